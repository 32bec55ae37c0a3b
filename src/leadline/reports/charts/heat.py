"""Heat maps of what was measured inside networks: depth from the top down, epochs from the left, one colour scale."""

import math
from collections.abc import Iterator

import altair as alt
import numpy as np
import pandas as pd

from leadline.analysis.diagnostics import Diagnostics, of_gradients
from leadline.probes.table import ACTIVATION_GRADIENT, DEAD, SECOND_MOMENT, UPDATE, WEIGHT_GRADIENT
from leadline.reports.charts.chart import Figure, Panel, inline, spread
from leadline.reports.charts.frames import level_of

SHOWN_PANELS, SHOWN_EPOCHS, SHOWN_LAYERS = 12, 60, 120
DECADES = 12
"""Of the scale at most: what is smaller is drawn in its last colour."""


def heat_maps(diagnostics: Diagnostics, trials: pd.DataFrame) -> Iterator[Figure]:
    """Yield the figures: gradients and activations always, what sentences rest on beside these where they do."""
    frame = diagnostics.frame
    flow = of_gradients(frame)
    outputs = ACTIVATION_GRADIENT in set(flow["kind"])
    yield _heat_map(
        "gradient-flow",
        "Gradient flow through depth and time",
        "norm of the loss's gradient with respect to each block's output, or each layer's in a network without blocks"
        if outputs
        else "norm of the loss's gradient with respect to each weight",
        flow,
        trials,
    )
    if outputs:
        weights = frame[frame["kind"].eq(WEIGHT_GRADIENT)]
        what = "norm of the loss's gradient with respect to each weight"
        yield _heat_map("weight-gradients", "Weight gradients through depth and time", what, weights, trials)
    moments = frame[frame["kind"].eq(SECOND_MOMENT)]
    what = "second moment (mean of squares) of each layer's output"
    yield _heat_map("activations", "Activations through depth and time", what, moments, trials)
    rested = {said.figure for said in diagnostics.statements}
    if "dead-units" in rested:
        dead, what = frame[frame["kind"].eq(DEAD)], "fraction of units never active in the epoch"
        yield _heat_map("dead-units", "Dead units through depth and time", what, dead, trials, log=False)
    if "updates" in rested:
        updates, what = frame[frame["kind"].eq(UPDATE)], "norm of a step's change over the weight's norm"
        yield _heat_map("updates", "Updates through depth and time", what, updates, trials)


def _heat_map(name: str, title: str, what: str, rows: pd.DataFrame, trials: pd.DataFrame, log: bool = True) -> Figure:
    """Return a panel for each arm, arms of one level side by side; cells are means over seeds."""
    finite = np.isfinite(rows["value"]) & rows["value"].ge(0)
    whole = bool(finite.all())
    rows = rows[finite]
    rows = rows.assign(measured=rows["value"])
    kind = next(iter(rows["kind"]), "")
    positive = rows.loc[rows["value"].gt(0), "value"]
    if rows.empty or (log and positive.empty):
        return Figure(name, title, "Not measured in this study.", rows)
    caption = [
        f"Colour: log10 of the {what}; the median over an epoch's steps, then the mean over seeds."
        if log
        else f"Colour: {what}; the mean over seeds."
    ]
    if not whole:
        caption.append("Values that are not finite are left out.")
    if log:
        high = math.ceil(math.log10(positive.max()))
        low = max(math.floor(math.log10(positive.min())), high - DECADES)
        low, high = (low, high) if low < high else (low - 1, high)
        if rows["value"].min() < 10.0**low:
            caption.append(f"Values below 1e{low} are drawn as 1e{low}.")
        rows = rows.assign(value=np.log10(rows["value"].clip(lower=10.0**low)))
    else:
        low, high = 0, 1
    cells = (
        rows.groupby(["arm", "base", "epoch", "position", "layer"], sort=False)
        .agg(value=("value", "mean"), least=("measured", "min"), greatest=("measured", "max"), seeds=("value", "count"))
        .reset_index()
    )
    row = "Block" if kind == ACTIVATION_GRADIENT and rows["block"].notna().all() else "Layer"
    known = trials.drop_duplicates("arm")
    levels = dict(zip(known["arm"], map(level_of, known["factors"]), strict=True))
    bases = [base for base in known["base"].unique() if base in set(cells["base"])]
    order = {level: place for place, level in enumerate(dict.fromkeys(levels.values()))}
    arms = sorted(
        (arm for arm in known["arm"] if arm in set(cells["arm"])),
        key=lambda arm: (order[levels[arm]], bases.index(known.loc[known["arm"].eq(arm), "base"].iloc[0])),
    )
    shown = spread(arms, SHOWN_PANELS)
    if len(shown) < len(arms):
        caption.append(f"{len(shown)} of {len(arms)} arms are drawn; this figure's data file has all of them.")
    panels_of = cells[cells["arm"].isin(shown)].groupby("arm")
    for column, most, what in (("epoch", SHOWN_EPOCHS, "epochs"), ("position", SHOWN_LAYERS, f"{row.lower()}s")):
        if panels_of[column].nunique().max() > most:
            caption.append(
                f"At most {most} {what} of an arm are drawn, evenly over all; this figure's data file has all of them."
            )
    colour = alt.Color(
        "value:Q",
        scale=alt.Scale(domain=[low, high], clamp=True, nice=False),
        legend=alt.Legend(
            title=None,
            orient="bottom",
            gradientThickness=8,
            gradientLength=160,
            values=spread(list(range(low, high + 1)), 4) if log else [0, 0.5, 1],
            labelExpr="'1e' + datum.value" if log else "datum.value",
        ),
    )
    panels = tuple(Panel(arm, _panel(cells[cells["arm"].eq(arm)], colour, row)) for arm in shown)
    return Figure(
        name,
        title,
        " ".join([*caption, "One colour scale for all panels; the input is at the top, the first epoch at the left."]),
        cells.assign(value=10.0 ** cells["value"]) if log else cells,
        f"{title}. First and last layer in the last epoch: {'; '.join(_ends(cells, shown, log))}.",
        panels,
        min(3, max(1, len(bases))),
    )


def _panel(cells: pd.DataFrame, colour: alt.Color, row: str) -> alt.LayerChart:
    epochs = spread(sorted(cells["epoch"].unique()), SHOWN_EPOCHS)
    layers = spread(sorted(cells["position"].unique()), SHOWN_LAYERS)
    cells = cells[cells["epoch"].isin(epochs) & cells["position"].isin(layers)]
    x = alt.X("epoch:O", title="Epoch", axis=alt.Axis(values=_ticks(epochs), labelAngle=0), scale=_BAND)
    y = alt.Y("position:O", title=f"{row}, from the input", axis=alt.Axis(values=_ticks(layers)), scale=_BAND)
    tips = [
        alt.Tooltip("layer:N"),
        alt.Tooltip("epoch:Q"),
        alt.Tooltip("value:Q", title="colour", format=".3~g"),
        alt.Tooltip("seeds:Q"),
    ]
    data = inline(cells, ["epoch", "position", "layer", "value", "seeds"])
    # a little more than their places, so that cells leave no seams
    rectangles = alt.Chart(data).mark_rect(width=alt.RelativeBandSize(band=1.03), height=alt.RelativeBandSize(band=1.1))
    chart = rectangles.encode(x=x, y=y, color=colour, tooltip=tips)
    return alt.LayerChart(layer=[chart], height=150)


def _ticks(places: list[int]) -> list[int]:
    return places[:: math.ceil(len(places) / 7)]


_BAND = alt.Scale(paddingInner=0, paddingOuter=0)


def _ends(cells: pd.DataFrame, arms: list[str], log: bool) -> Iterator[str]:
    for arm in arms:
        own = cells[cells["arm"].eq(arm)]
        last = own[own["epoch"].eq(own["epoch"].max())].sort_values("position")["value"]
        first, final = (f"{10.0**value if log else value:.2g}" for value in (last.iloc[0], last.iloc[-1]))
        yield f"{arm} {first} and {final}"
