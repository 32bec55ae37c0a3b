"""Figures of a study, in Altair: tidy frames in, figures out.

The frames are prepared in `frames`, and `chart` has what all charts share. A figure is a grid of panels; each panel
is one view whose width is left open, so that a page can lay the panels out for any screen.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from leadline.analysis.diagnostics import NOTHING_MEASURED, Diagnostics, of_gradients
from leadline.analysis.verdict import Findings
from leadline.probes.table import ACTIVATION_GRADIENT
from leadline.reports.charts.axes import magnitudes
from leadline.reports.charts.chart import (
    CROSS,
    DIVERGED,
    Figure,
    Key,
    Panel,
    arm_channels,
    at_edge,
    grid_columns,
    inline,
    legend_keys,
    name_axis,
    name_height,
    place_marks,
    spread,
)
from leadline.reports.charts.fit import about_training, depth_curves, fit_curves
from leadline.reports.charts.forest import forest
from leadline.reports.charts.frames import (
    CURVE_SPLITS,
    Curves,
    curve_frame,
    error_frame,
    horizontal_factor,
    is_number,
    level_of,
    profile_frame,
    sum_up,
    unfinished_frame,
)
from leadline.reports.charts.heat import heat_maps
from leadline.reports.charts.lines import band_words, describe_gaps, line_figure
from leadline.reports.charts.notable import choose_arms, describe_choice, notable_arms
from leadline.reports.charts.probe_curves import describe_omitted
from leadline.text import join

SHOWN_LEVELS, SHOWN_SEEDS = 6, 1000
"""Levels that have a panel; trials of the final error that have a mark each, or else arms have bars."""


def figures(
    findings: Findings,
    trials: pd.DataFrame,
    records: pd.DataFrame,
    diagnostics: Diagnostics = NOTHING_MEASURED,
    curves: Curves | None = None,
) -> tuple[Figure, ...]:
    """Return a study's figures in the order of a report; those of `why` only where something was measured.

    Curves are drawn from `curves`, or from `records` where they are not given.
    """
    curves = curves or sum_up(trials, records)
    notable, error = notable_arms(findings), "Misclassification error (%)"
    arms = [arm.name for base in notable for arm in findings.arms if arm.base == base]
    tested = "test" in curves.splits
    splits = CURVES | ({"test": "Test"} if tested else {})
    return (
        *(
            figure
            for quantity, axis in findings.curves.items()
            for figure in (
                learning_curves(trials, curves, quantity, axis, splits, notable=notable),
                *fit_curves(trials, curves, quantity, axis, notable=arms),
            )
        ),
        *(fit_curves(trials, curves, "error", error, ("train", "test"), arms) if tested else ()),
        *depth_curves(trials, curves),
        *((final_error(trials, records, notable),) if findings.metric == "test_error" else ()),
        forest(findings),
        *(() if diagnostics.frame.empty else (gradient_profiles(trials, diagnostics), *heat_maps(diagnostics, trials))),
    )


# --- curves


def curve_names(findings: Findings) -> tuple[str, ...]:
    """Return the names that figures of curves may have, in the order of a report."""
    both = (f"{quantity}-{kind}" for quantity in findings.curves for kind in ("curves", "fit"))
    return (*both, "error-fit", "error-by-depth")


CURVES = dict(zip(CURVE_SPLITS, ("Training", "Validation"), strict=True))


def learning_curves(
    trials: pd.DataFrame,
    curves: Curves,
    quantity: str,
    axis: str,
    splits: Mapping[str, str] = CURVES,
    name: str = "",
    notable: Sequence[str] = (),
) -> Figure:
    """Return the curves of a record such as `loss`, one column of panels per level.

    Args:
        trials, curves: of a study.
        quantity: the name of the record.
        axis: title of its axis.
        splits: splits whose curves are drawn -> their titles.
        name: of the figure's files; by default that of the record.
        notable: arms that are drawn before others where there are too many.
    """
    bands, loose = (frame(trials, curves, quantity, splits) for frame in (curve_frame, unfinished_frame))
    name, title = f"{name or quantity}-curves", f"{quantity[0].upper()}{quantity[1:]} during training"
    if bands.empty and loose.empty:
        return Figure(name, title, f"No trial has yet finished an epoch, so there are no curves of {quantity}.", bands)
    caption = [*band_words(bands)]
    if "train" in splits:
        caption += about_training(quantity)
    caption += describe_gaps(curves, quantity, splits)
    if "validation" in splits and "validation" not in {*bands["split"], *loose["split"]}:
        caption.append("There are no validation records.")
    if not loose.empty:
        caption.append("Thin lines: trials that did not finish, each by itself; a cross marks where one diverged.")
    return line_figure(
        Figure(name, title, "", bands),
        bands.rename(columns={"epoch": "x"}),
        loose.rename(columns={"epoch": "x"}),
        caption,
        ("Epoch", axis),
        splits,
        notable=notable,
    )


def gradient_profiles(trials: pd.DataFrame, diagnostics: Diagnostics) -> Figure:
    """Return the norm of the gradient from input to output, in the first, the middle and the last epoch measured."""
    rows = of_gradients(diagnostics.frame)
    bands = profile_frame(trials, rows)
    title = "Gradient norms from input to output"
    if bands.empty:
        return Figure("gradient-profiles", title, "No gradient norms above zero were measured.", bands)
    outputs = ACTIVATION_GRADIENT in set(rows["kind"])
    caption = [
        f"Norm of the loss's gradient with respect to each {'output' if outputs else 'weight'}: the median over an"
        " epoch's steps. Lines: mean over the trials that reached the epoch, diverged ones included;"
        " bands: range. Norms of 0 have no logarithm and are left out."
    ]
    measured = rows["epoch"].nunique()
    if (drawn := bands["split"].nunique()) < measured:
        caption.append(
            f"{drawn} of {measured} measured epochs are drawn: the first, the middle and the last. The map of gradient"
            " flow through depth and time has more."
        )
    return line_figure(
        Figure("gradient-profiles", title, "", bands),
        bands.rename(columns={"place": "x"}),
        pd.DataFrame(columns=["base", "level", "split", "x", "value", "last"]).astype({"last": bool}),
        caption,
        ("Block, counted from the input" if rows["block"].notna().any() else "Layer, counted from the input", "Norm"),
        {split: split[0].upper() + split[1:] for split in bands["split"].unique()},
        end="min",
    )


# --- final error


def final_error(trials: pd.DataFrame, records: pd.DataFrame, notable: Sequence[str] = ()) -> Figure:
    """Return the test error of every seed and its mean by the varied factor, or by arm where nothing is varied."""
    frame = error_frame(trials, records)
    factor, others = horizontal_factor(trials)
    title = f"Test error by {factor}" if factor else "Test error by arm"
    if frame["value"].notna().sum() == 0:
        return Figure("test-error", title, "No trial has finished, so there is no test error to show.", frame)
    bases = list(frame["base"].unique())
    shown = choose_arms(bases, notable)
    rows = frame[frame["base"].isin(shown)]
    rows = rows.assign(
        x=[factors[factor] if factor else base for factors, base in zip(rows["factors"], rows["base"], strict=True)],
        panel=[level_of({key: factors[key] for key in others}) for factors in rows["factors"]],
    )
    panel_names = list(rows["panel"].unique())
    shown_panels = spread(panel_names, SHOWN_LEVELS)
    y = magnitudes("Test error (%)", list(rows["value"].dropna()))
    x = _x_axis(factor, list(dict.fromkeys(rows["x"])))
    ranges = rows["panel"].isin(shown_panels).sum() > SHOWN_SEEDS
    panels = tuple(Panel(name, _errors(rows[rows["panel"].eq(name)], shown, x, y, ranges)) for name in shown_panels)
    edge = "upper" if isinstance(x, alt.X) else "right"
    each_seed = (
        "Thin bars: from the smallest to the largest value over the seeds; thick bars: the middle half of them"
        if ranges
        else "Small hollow marks: one seed each"
    )
    caption = [f"{each_seed}; filled marks: the mean of an arm's finished trials."]
    keys = legend_keys(shown, dashed=factor is not None)
    if rows["state"].eq(DIVERGED).any():
        caption.append(f"Crosses at the {edge} edge: trials that diverged and so have no test error.")
        keys.append(Key(DIVERGED, CROSS))
    caption += [*describe_choice(bases, shown, notable), *describe_omitted(panel_names, shown_panels, "levels")]
    means = frame.groupby("arm", sort=False)["value"].mean().dropna()
    said = [f"{arm} {mean:.2f}%" for arm, mean in means.items()]
    return Figure(
        "test-error",
        title,
        " ".join(caption),
        frame.drop(columns="factors"),
        f"{title}. Means: {join(said, mark=';') or 'no finished trial'}.",
        panels,
        grid_columns(len(panels)),
        tuple(keys),
    )


def _errors(rows: pd.DataFrame, bases: Sequence[str], x: alt.X | alt.Y, y: alt.Y, ranges: bool) -> alt.LayerChart:
    colour, dash, shape = arm_channels(bases)
    finished = rows[rows["value"].notna()]
    means = finished.groupby(["arm", "base", "x"], sort=False)["value"].agg(mean="mean", seeds="count").reset_index()
    data = inline(means, ["arm", "base", "x", "mean", "seeds"])
    layers: list[alt.Chart] = []
    if x.shorthand == "x:Q":  # categories have nothing between them
        line = alt.Chart(data).mark_line(strokeWidth=2)
        layers.append(line.encode(**place_marks(x, y, "mean"), color=colour, strokeDash=dash))
    if ranges:
        layers += _spreads(finished, x, y, colour)
    else:
        seeds = inline(finished, ["arm", "base", "x", "value", "seed"])
        tips = [alt.Tooltip("arm:N"), alt.Tooltip("seed:N")]
        tips.append(alt.Tooltip("value:Q", title="test error (%)", format=".2f"))
        points = alt.Chart(seeds).mark_point(filled=False, size=30, opacity=0.85, strokeWidth=1.2)
        layers.append(points.encode(**place_marks(x, y, "value"), color=colour, shape=shape, tooltip=tips))
    tips = [alt.Tooltip("arm:N"), alt.Tooltip("mean:Q", title="mean (%)", format=".2f"), alt.Tooltip("seeds:Q")]
    points = alt.Chart(data).mark_point(filled=True, size=80, opacity=1)
    layers.append(points.encode(**place_marks(x, y, "mean"), color=colour, shape=shape, tooltip=tips))
    lost = rows[rows["state"].eq(DIVERGED)].groupby(["arm", "base", "x"], sort=False)["trial"].count().reset_index()
    if not lost.empty:
        tips = [alt.Tooltip("arm:N"), alt.Tooltip("trial:Q", title="diverged")]
        points = alt.Chart(inline(lost, ["arm", "base", "x", "trial"]))
        points = points.mark_point(filled=True, shape=CROSS, size=60, opacity=1)
        layers.append(points.encode(**at_edge(x), color=colour, tooltip=tips))
    height = 260 if isinstance(x, alt.X) else name_height(rows["x"].nunique())
    return alt.LayerChart(layer=layers, height=height)


def _spreads(finished: pd.DataFrame, x: alt.X | alt.Y, y: alt.Y, colour: alt.Color) -> Iterator[alt.Chart]:
    """Yield bars over all values of an arm and over the middle half of them."""
    groups = finished.groupby(["arm", "base", "x"], sort=False)["value"]
    found = groups.quantile(np.array([0, 0.25, 0.75, 1])).unstack()
    found.columns = ["least", "low", "high", "greatest"]
    data = inline(found.reset_index(), ["arm", "base", "x", *found])
    tips = [alt.Tooltip("arm:N"), *(alt.Tooltip(f"{name}:Q", format=".2f") for name in found)]
    far = "y2" if isinstance(x, alt.X) else "x2"
    for start, end, width in (("least", "greatest", 1.0), ("low", "high", 5.0)):
        bar = alt.Chart(data).mark_rule(strokeWidth=width, opacity=0.5)
        yield bar.encode(**place_marks(x, y, start), **{far: f"{end}:Q"}, color=colour, tooltip=tips)


def _x_axis(factor: str | None, values: Sequence[Any]) -> alt.X | alt.Y:
    """Return an axis for numbers, or a vertical one for names."""
    if not factor or not all(is_number(value) for value in values):
        return name_axis("x", [str(value) for value in values], factor)
    # with a precision of its own: a linear scale would take one from ticks of its own, and write 60 for 56
    axis = alt.Axis(values=spread(sorted(values), 10), format=".6~r", labelFlush=False)
    if min(values) > 0 and max(values) >= 20 * min(values):
        scale = alt.Scale(type="log", nice=False, padding=18)
        return alt.X("x:Q", title=f"{factor}, log scale", axis=axis, scale=scale)
    return alt.X("x:Q", title=factor, axis=axis, scale=alt.Scale(zero=False, nice=False, padding=18))
