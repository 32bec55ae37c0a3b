"""The spectrum of the Hessian: the density of its eigenvalues as curves, its largest eigenvalues as marks."""

from collections.abc import Iterator, Sequence

import altair as alt
import numpy as np
import pandas as pd

from leadline.probes.snapshots.hessian import HessianProbe
from leadline.reports.charts.axes import logarithmic
from leadline.reports.charts.chart import (
    SHOWN_BASES,
    Figure,
    Panel,
    arm_channels,
    at_field,
    each,
    inline,
    spread,
)
from leadline.reports.charts.probe_curves import (
    PLACE,
    SHOWN_EPOCHS,
    SHOWN_LEVELS,
    arm_keys,
    at_epoch,
    describe_omitted,
    over_seeds,
    panel_title,
)
from leadline.text import join

SHOWN_SEEDS, SHOWN_POINTS = 5, 256
SHOWN_DECADES = 4
"""Of each density: below them lie hardly more than the tails of the bumps that it is drawn with."""


def draw(rows: pd.DataFrame) -> Iterator[Figure]:
    """Yield the spectra of prepared rows, see `leadline.reports.charts.probe_curves.prepare_rows`."""
    yield spectra(rows)


def spectra(rows: pd.DataFrame) -> Figure:
    """Return the density of eigenvalues, a curve for each seed and a panel for each epoch and level, on one scale."""
    rows = rows[np.isfinite(rows["value"].astype("float64"))]
    density = rows[rows["quantity"].eq("density") & np.isfinite(rows["x"].astype("float64"))]
    largest = rows[rows["quantity"].isin(["largest", "smallest"])]
    largest = largest.assign(x=largest["value"])
    every = [*density["x"], *largest["x"]]
    if not every:
        return Figure("hessian", HessianProbe.title, "", rows)
    bases, levels = list(rows["base"].cat.categories), list(rows["level"].unique())
    epochs, seeds = sorted(rows["epoch"].unique()), sorted(rows["seed"].unique())
    shown, levels_shown = bases[:SHOWN_BASES], spread(levels, SHOWN_LEVELS)
    epochs_shown, seeds_shown = spread(epochs, SHOWN_EPOCHS), seeds[:SHOWN_SEEDS]
    caption = [
        "Density of the eigenvalues of the loss's second derivatives with respect to all trained weights; each"
        " eigenvalue found is drawn as a bump one hundredth of the spectrum wide. One line per seed. Marks at the lower"
        " edge: the largest and the smallest eigenvalues, where they were requested. Each panel has its own horizontal"
        " scale.",
        *_traces(rows[rows["quantity"].eq("trace")]),
        *describe_omitted(bases, shown, "arms"),
        *describe_omitted(levels, levels_shown, "levels"),
        *describe_omitted(epochs, epochs_shown, "epochs"),
        *describe_omitted(seeds, seeds_shown, "seeds"),
    ]
    peaks = density[density["value"].gt(0)].groupby(["arm", "seed", "epoch"])["value"].max()
    top, least = (float(peaks.max()), float(peaks.min())) if len(peaks) else (1.0, 1.0)
    y, edge = logarithmic("Density", [max(least / 10**SHOWN_DECADES, top / 10 ** (2 * SHOWN_DECADES)), top])
    panels = []
    for epoch in epochs_shown:
        for level in levels_shown:
            density_here, largest_here = (
                frame[
                    frame["base"].isin(shown)
                    & frame["level"].eq(level)
                    & frame["epoch"].eq(epoch)
                    & frame["seed"].isin(seeds_shown)
                ]
                for frame in (density, largest)
            )
            if len(density_here) or len(largest_here):
                x = _eigenvalues([*density_here["x"], *largest_here["x"]])
                chart = alt.LayerChart(layer=list(_layers(density_here, largest_here, shown, x, y, edge)), height=190)
                panels.append(Panel(panel_title(epoch, level), chart))
    return Figure(
        "hessian",
        HessianProbe.title,
        " ".join(caption),
        rows,
        f"{HessianProbe.title}. Largest eigenvalue: {join(list(_largest(rows)), mark=';')}.",
        tuple(panels),
        len(levels_shown) if len(levels_shown) > 1 else len(epochs_shown),
        tuple(arm_keys(rows)),
    )


def _layers(
    density: pd.DataFrame, largest: pd.DataFrame, bases: Sequence[str], x: alt.X, y: alt.Y, edge: float
) -> Iterator[alt.Chart]:
    colour, dash, shape = arm_channels(bases)
    for _, own in density.groupby(["arm", "seed"], sort=False):
        own = own.sort_values("x")
        own = own[own["index"].isin(spread(list(own["index"]), SHOWN_POINTS))].assign(y=own["value"].clip(lower=edge))
        flat = own["y"].eq(edge)
        # of a stretch along the lower edge its two ends are enough
        own = own[~(flat & flat.shift(1, fill_value=False) & flat.shift(-1, fill_value=False))]
        line = alt.Chart(inline(own, ["base", "x", "y"])).mark_line(strokeWidth=1.2, opacity=0.85)
        yield line.encode(x=x, y=at_field(y, "y"), color=colour, strokeDash=dash)
    if len(largest):
        tips = [alt.Tooltip(f"{field}:N") for field in ("arm", "seed", "quantity")]
        tips.append(alt.Tooltip("x:Q", title="eigenvalue", format=".4~g"))
        points = alt.Chart(inline(largest, ["arm", "base", "seed", "quantity", "x"]))
        points = points.mark_point(filled=True, size=34, opacity=0.9)
        yield points.encode(x=x, y=alt.value("height"), color=colour, shape=shape, tooltip=tips)


def _eigenvalues(seen: Sequence[float]) -> alt.X:
    low, high = min(seen), max(seen)
    room = 0.02 * (high - low) or 1.0
    scale = alt.Scale(domain=[low - room, high + room], nice=False, zero=False)
    return alt.X("x:Q", title="Eigenvalue", axis=alt.Axis(tickCount=5, format="~r"), scale=scale)


def _traces(rows: pd.DataFrame) -> Iterator[str]:
    found = over_seeds(rows, [])
    if len(found):
        # each seed's estimate has an error of its own, and these are independent
        errors = over_seeds(rows.assign(value=rows["error"] ** 2), [])
        found = found.merge(errors.assign(error=(errors["mean"] / errors["seeds"]) ** 0.5)[[*PLACE, "error"]], "left")
        said = [
            f"{row.arm}, {at_epoch(row.epoch)}: {row.mean:.3g}"
            + (f" ± {row.error:.2g}" if np.isfinite(row.error) else "")
            + (f" ({row.low:.3g} to {row.high:.3g})" if row.seeds > 1 else "")
            for row in each(found)
        ]
        over = ", the mean over seeds" if found["seeds"].gt(1).any() else ""
        yield (
            f"Trace, the sum of all eigenvalues{over}, ± the standard error of its estimate: {join(said, mark=';')}."
        )


def _largest(rows: pd.DataFrame) -> Iterator[str]:
    found = over_seeds(rows[rows["quantity"].eq("largest") & rows["index"].eq(0)], [])
    for row in each(found):
        yield f"{row.arm}, {at_epoch(row.epoch)}: {row.mean:.3g}"
