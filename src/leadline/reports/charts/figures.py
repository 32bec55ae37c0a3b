"""Figures of a study, in Altair: tidy frames in, figures out.

The frames are prepared in `frames`, and `chart` has what all charts share. A figure is a grid of panels; each panel
is one view whose width is left open, so that a page can lay the panels out for any screen.
"""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import altair as alt
import numpy as np
import pandas as pd

from leadline.analysis.diagnostics import NOTHING_MEASURED, Diagnostics, of_gradients
from leadline.analysis.verdict import Findings
from leadline.probes.table import ACTIVATION_GRADIENT
from leadline.reports.charts.axes import magnitudes, whole_numbers
from leadline.reports.charts.chart import (
    CROSS,
    DIVERGED,
    MARKERS,
    SHOWN_BASES,
    Figure,
    Key,
    Panel,
    arm_channels,
    at_edge,
    at_field,
    divide_arms,
    each,
    grid_columns,
    inline,
    legend_keys,
    name_axis,
    name_height,
    place_marks,
    spread,
)
from leadline.reports.charts.forest import forest
from leadline.reports.charts.frames import (
    CURVE_SPLITS,
    curve_frame,
    error_frame,
    level_of,
    profile_frame,
    unfinished_frame,
)
from leadline.reports.charts.heat import heat_maps
from leadline.reports.charts.probe_curves import describe_omitted
from leadline.text import join

SHOWN_LEVELS, SHOWN_EPOCHS = 6, 120


def figures(
    findings: Findings, trials: pd.DataFrame, records: pd.DataFrame, diagnostics: Diagnostics = NOTHING_MEASURED
) -> tuple[Figure, ...]:
    """Return a study's figures in the order of a report; those of `why` only where something was measured."""
    return (
        *(learning_curves(trials, records, quantity, axis) for quantity, axis in findings.curves.items()),
        *((final_error(trials, records),) if findings.metric == "test_error" else ()),
        forest(findings),
        *(() if diagnostics.frame.empty else (gradient_profiles(trials, diagnostics), *heat_maps(diagnostics, trials))),
    )


# --- curves


CURVES = dict(zip(CURVE_SPLITS, ("Training", "Validation"), strict=True))


def learning_curves(
    trials: pd.DataFrame,
    records: pd.DataFrame,
    quantity: str,
    axis: str,
    splits: Mapping[str, str] = CURVES,
    name: str = "",
) -> Figure:
    """Return the curves of a record such as `loss`, one column of panels per level.

    Args:
        trials, records: of a study.
        quantity: the name of the record.
        axis: title of its axis.
        splits: splits whose curves are drawn -> their titles.
        name: of the figure's files; by default that of the record.
    """
    bands, loose = (frame(trials, records, quantity, splits) for frame in (curve_frame, unfinished_frame))
    name, title = f"{name or quantity}-curves", f"{quantity[0].upper()}{quantity[1:]} during training"
    if bands.empty and loose.empty:
        return Figure(name, title, f"No trial has yet finished an epoch, so there are no curves of {quantity}.", bands)
    caption = [*_band_words(bands)]
    if "train" in splits:
        caption.append(
            "Training values are running averages over the batches of an epoch, during which the network changes."
        )
    if not np.isfinite(records.loc[records["name"].eq(quantity) & records["split"].isin(splits), "value"]).all():
        caption.append("Values that are not finite are not drawn.")
    if "validation" in splits and "validation" not in {*bands["split"], *loose["split"]}:
        caption.append("There are no validation records.")
    if not loose.empty:
        caption.append("Thin lines: trials that did not finish, each by itself; a cross marks where one diverged.")
    return _line_figure(
        Figure(name, title, "", bands),
        bands.rename(columns={"epoch": "x"}),
        loose.rename(columns={"epoch": "x"}),
        caption,
        ("Epoch", axis),
        splits,
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
    return _line_figure(
        Figure("gradient-profiles", title, "", bands),
        bands.rename(columns={"place": "x"}),
        pd.DataFrame(columns=["base", "level", "split", "x", "value"]),
        caption,
        ("Block, counted from the input" if rows["block"].notna().any() else "Layer, counted from the input", "Norm"),
        {split: split[0].upper() + split[1:] for split in bands["split"].unique()},
        end="min",
    )


def _line_figure(
    figure: Figure,
    bands: pd.DataFrame,
    loose: pd.DataFrame,
    caption: list[str],
    axes: tuple[str, str],
    splits: Mapping[str, str],
    end: Literal["max", "min"] = "max",
) -> Figure:
    """Lay curves out: a panel for each split and level, all on one scale; their `end`, max or min, is put in words."""
    every = pd.concat([frame[["base", "level", "split"]] for frame in (bands, loose) if not frame.empty])
    bases, levels = list(every["base"].unique()), list(every["level"].unique())
    shown = bases[:SHOWN_BASES]
    groups = divide_arms(shown)
    shown_levels = spread(levels, max(2, SHOWN_LEVELS // len(groups)))
    caption = [*caption, *describe_omitted(bases, shown, "arms"), *describe_omitted(levels, shown_levels, "levels")]
    bands, loose = (frame[frame["base"].isin(shown) & frame["level"].isin(shown_levels)] for frame in (bands, loose))
    if len(steps := sorted({*bands["x"], *loose["x"]})) > SHOWN_EPOCHS:
        steps = spread(steps, SHOWN_EPOCHS)
        bands, loose = bands[bands["x"].isin(steps)], loose[loose["x"].isin(steps) | loose["last"]]
    y = _y_axis(axes[1], bands, loose)
    panels = []
    for split, split_title in splits.items():
        for level, group in itertools.product(shown_levels, groups):
            here = [
                frame[frame["split"].eq(split) & frame["level"].eq(level) & frame["base"].isin(group)]
                for frame in (bands, loose)
            ]
            if not all(frame.empty for frame in here):
                among = f"{group[0]} to {group[-1]}" if len(groups) > 1 else ""
                title = ", ".join(filter(None, (split_title, level, among)))
                at_level = pd.concat(frame.loc[frame["level"].eq(level), "x"] for frame in (bands, loose))
                x = whole_numbers(axes[0], at_level)
                panels.append(Panel(title, _lines(here[0], here[1], shown, x, y, len(steps) <= 20)))
    ends = bands[bands["x"].eq(bands.groupby(["arm", "split"])["x"].transform(end))]
    said = [f"{row.arm}, {splits[row.split].lower()}: {_format_value(row.mean, axes[1])}" for row in each(ends)]
    place = f"At the {'right' if end == 'max' else 'left'} end of the curves"
    keys = legend_keys(shown)
    if not loose.empty and loose["state"].eq(DIVERGED).any():
        keys.append(Key(DIVERGED, CROSS))
    return Figure(
        figure.name,
        figure.title,
        " ".join(caption),
        figure.data,
        f"{figure.title}. {place}: {join(said, mark=';') or 'no finished trial'}.",
        tuple(panels),
        grid_columns(columns if (columns := len(shown_levels) * len(groups)) > 1 else len(panels)),
        tuple(keys),
    )


def _lines(
    bands: pd.DataFrame, loose: pd.DataFrame, bases: Sequence[str], x: alt.X, y: alt.Y, dots: bool
) -> alt.LayerChart:
    colour, dash, shape = arm_channels(bases)
    tips = [
        alt.Tooltip("base:N", title="arm"),
        alt.Tooltip("layer:N", title="layer") if "layer" in bands else alt.Tooltip("x:Q", title="epoch"),
        alt.Tooltip("mean:Q", title="mean", format=".4~g"),
        alt.Tooltip("low:Q", title="least", format=".4~g"),
        alt.Tooltip("high:Q", title="greatest", format=".4~g"),
        alt.Tooltip("seeds:Q", title="seeds"),
    ]
    columns = ["base", "x", "mean", "low", "high", "seeds"]
    data = inline(bands, [*columns, "layer"] if "layer" in bands else columns)
    layers: list[alt.Chart] = []
    if bands["seeds"].gt(1).any():
        band = alt.Chart(data).mark_area(opacity=0.2, clip=True, line=False)
        layers.append(band.encode(x=x, y=at_field(y, "low"), y2="high:Q", color=colour))
    if not bands.empty:
        line = alt.Chart(data).mark_line(strokeWidth=2, clip=True)
        layers.append(line.encode(x=x, y=at_field(y, "mean"), color=colour, strokeDash=dash))
        points = alt.Chart(data).mark_point(filled=True, size=34 if dots else 60, opacity=1 if dots else 0, clip=True)
        layers.append(points.encode(x=x, y=at_field(y, "mean"), color=colour, shape=shape, tooltip=tips))
    if not loose.empty:
        tips = [alt.Tooltip(f"{field}:N") for field in ("base", "seed", "state")]
        tips += [alt.Tooltip("x:Q", title="epoch"), alt.Tooltip("value:Q", format=".4~g")]
        data = inline(loose, ["base", "x", "value", "trial", "seed", "state"])
        line = alt.Chart(data).mark_line(strokeWidth=1, opacity=0.75, clip=True)
        layers.append(line.encode(x=x, y=at_field(y, "value"), color=colour, strokeDash=dash, detail="trial:N"))
        ends = loose[loose["last"]]
        for frame, marker in (
            (ends[ends["state"].eq(DIVERGED)], CROSS),
            (ends[ends["state"].ne(DIVERGED)], MARKERS[0]),
        ):
            if not frame.empty:
                data = inline(frame, ["base", "x", "value", "seed", "state"])
                points = alt.Chart(data).mark_point(filled=True, shape=marker, size=40, opacity=1)
                layers.append(points.encode(x=x, y=at_field(y, "value"), color=colour, tooltip=tips))
    return alt.LayerChart(layer=layers, height=190)


def _band_words(bands: pd.DataFrame) -> Iterator[str]:
    if bands.empty:
        return
    if bands["seeds"].max() == 1:
        yield "Lines: the only finished trial of each arm."
    else:
        yield "Lines: mean over the seeds of the finished trials; bands: from the smallest to the largest value."


def _y_axis(title: str, bands: pd.DataFrame, loose: pd.DataFrame) -> alt.Y:
    """Return the scale that all panels share: the finished trials' range, and what little the others go beyond it."""
    if title == "Accuracy":
        low = min([*bands["low"], *loose["value"]])
        low = 0.0 if low < 0.5 else math.floor(low * 20) / 20 if low < 0.95 else math.floor(low * 100) / 100
        return alt.Y(
            "y:Q", title=title, axis=alt.Axis(format="%", tickCount=5), scale=alt.Scale(domain=[low, 1], nice=False)
        )
    values = [*bands["low"], *bands["high"]]
    ceiling = 3 * max(values) if values else math.inf
    return magnitudes(title, [*values, *(value for value in loose["value"] if value <= ceiling)] or [1.0])


# --- final error


def final_error(trials: pd.DataFrame, records: pd.DataFrame) -> Figure:
    """Return the test error of every seed and its mean by the varied factor, or by arm where nothing is varied."""
    frame = error_frame(trials, records)
    factor, others = _factor(trials)
    title = f"Test error by {factor}" if factor else "Test error by arm"
    if frame["value"].notna().sum() == 0:
        return Figure("test-error", title, "No trial has finished, so there is no test error to show.", frame)
    bases = list(frame["base"].unique())
    shown = bases[:SHOWN_BASES]
    rows = frame[frame["base"].isin(shown)]
    rows = rows.assign(
        x=[factors[factor] if factor else base for factors, base in zip(rows["factors"], rows["base"], strict=True)],
        panel=[level_of({key: factors[key] for key in others}) for factors in rows["factors"]],
    )
    panel_names = list(rows["panel"].unique())
    shown_panels = spread(panel_names, SHOWN_LEVELS)
    y = magnitudes("Test error (%)", list(rows["value"].dropna()))
    x = _x_axis(factor, list(dict.fromkeys(rows["x"])))
    panels = tuple(Panel(name, _errors(rows[rows["panel"].eq(name)], shown, x, y)) for name in shown_panels)
    edge = "upper" if isinstance(x, alt.X) else "right"
    caption = ["Small hollow marks: one seed each; filled marks: the mean of an arm's finished trials."]
    keys = legend_keys(shown, dashed=factor is not None)
    if rows["state"].eq(DIVERGED).any():
        caption.append(f"Crosses at the {edge} edge: trials that diverged and so have no test error.")
        keys.append(Key(DIVERGED, CROSS))
    caption += [*describe_omitted(bases, shown, "arms"), *describe_omitted(panel_names, shown_panels, "levels")]
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


def _errors(rows: pd.DataFrame, bases: Sequence[str], x: alt.X | alt.Y, y: alt.Y) -> alt.LayerChart:
    colour, dash, shape = arm_channels(bases)
    finished = rows[rows["value"].notna()]
    seeds = inline(finished, ["arm", "base", "x", "value", "seed"])
    means = finished.groupby(["arm", "base", "x"], sort=False)["value"].agg(mean="mean", seeds="count").reset_index()
    data = inline(means, ["arm", "base", "x", "mean", "seeds"])
    layers: list[alt.Chart] = []
    if x.shorthand == "x:Q":  # categories have nothing between them
        line = alt.Chart(data).mark_line(strokeWidth=2)
        layers.append(line.encode(**place_marks(x, y, "mean"), color=colour, strokeDash=dash))
    tips = [alt.Tooltip("arm:N"), alt.Tooltip("seed:N"), alt.Tooltip("value:Q", title="test error (%)", format=".2f")]
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


def _factor(trials: pd.DataFrame) -> tuple[str | None, list[str]]:
    """Return the factor that makes the horizontal axis, a numeric one if there is one, and the other factors."""
    values: dict[str, list[object]] = {}
    for factors in trials["factors"]:
        for key, value in factors.items():
            values.setdefault(key, []).append(value)
    varied = [key for key, seen in values.items() if len(set(map(str, seen))) > 1]
    numeric = [key for key in varied if all(_is_number(value) for value in values[key])]
    chosen = next(iter(numeric or varied), None)
    return chosen, [key for key in values if key != chosen]


def _x_axis(factor: str | None, values: Sequence[Any]) -> alt.X | alt.Y:
    """Return an axis for numbers, or a vertical one for names."""
    if not factor or not all(_is_number(value) for value in values):
        return name_axis("x", [str(value) for value in values], factor)
    # with a precision of its own: a linear scale would take one from ticks of its own, and write 60 for 56
    axis = alt.Axis(values=spread(sorted(values), 10), format=".6~r", labelFlush=False)
    if min(values) > 0 and max(values) >= 20 * min(values):
        scale = alt.Scale(type="log", nice=False, padding=18)
        return alt.X("x:Q", title=f"{factor}, log scale", axis=axis, scale=scale)
    return alt.X("x:Q", title=factor, axis=axis, scale=alt.Scale(zero=False, nice=False, padding=18))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _format_value(value: float, axis: str) -> str:
    return f"{100 * value:.1f}%" if axis == "Accuracy" else f"{value:.3g}"
