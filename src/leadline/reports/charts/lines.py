"""Curves of arms in panels that share one scale, with bands over seeds and the trials that did not finish apart."""

import itertools
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Literal

import altair as alt
import pandas as pd

from leadline.reports.charts.axes import Values, accuracies, magnitudes, whole_numbers
from leadline.reports.charts.chart import (
    CROSS,
    DIVERGED,
    MARKERS,
    Figure,
    Key,
    Panel,
    arm_channels,
    at_field,
    divide_arms,
    each,
    grid_columns,
    inline,
    legend_keys,
    spread,
)
from leadline.reports.charts.frames import Curves
from leadline.reports.charts.notable import choose_arms, describe_choice
from leadline.reports.charts.probe_curves import describe_omitted
from leadline.text import join

SHOWN_LEVELS, SHOWN_EPOCHS = 6, 120
SHOWN_MARKS, DOTTED = 750, 400
"""Marks of a figure, so that with many curves fewer epochs are drawn; those up to which each has a dot."""


def line_figure(
    figure: Figure,
    bands: pd.DataFrame,
    loose: pd.DataFrame,
    caption: list[str],
    axes: tuple[str, str],
    splits: Mapping[str, str],
    end: Literal["max", "min"] = "max",
    most_levels: int = SHOWN_LEVELS,
    levels_are: str = "levels",
    notable: Sequence[str] = (),
) -> Figure:
    """Lay curves out: a panel for each split and level, all on one scale.

    Args:
        figure: name, title and data; the rest is added.
        bands: columns arm, base, level, split, x, mean, low, high, seeds; a base is a curve of a panel.
        loose: columns base, level, split, x, value, trial, seed, state, last: trials that did not finish.
        caption: sentences.
        axes: titles of x and y.
        splits: in the order of panels -> their titles.
        end: which end of the curves is put in words.
        most_levels: that are drawn.
        levels_are: what they are called.
        notable: arms that are drawn before others where there are too many.
    """
    every = pd.concat([frame[["base", "level", "split"]] for frame in (bands, loose) if not frame.empty])
    bases, levels = list(every["base"].unique()), list(every["level"].unique())
    shown = choose_arms(bases, notable)
    groups = divide_arms(shown)
    most = max(2, most_levels // len(groups))
    by_arm = levels_are == "arms"
    shown_levels = choose_arms(levels, notable, most) if by_arm and notable else spread(levels, most)
    caption += describe_choice(bases, shown, notable)
    caption += (
        describe_choice(levels, shown_levels, notable) if by_arm else describe_omitted(levels, shown_levels, levels_are)
    )
    bands, loose = (frame[frame["base"].isin(shown) & frame["level"].isin(shown_levels)] for frame in (bands, loose))
    most_steps = min(SHOWN_EPOCHS, SHOWN_MARKS // len(shown) // len(shown_levels) // len(splits))
    if len(steps := sorted({*bands["x"], *loose["x"]})) > most_steps:
        every_step, steps = steps, spread(steps, most_steps)
        bands, loose = bands[bands["x"].isin(steps)], loose[loose["x"].isin(steps) | loose["last"]]
        caption += describe_omitted(every_step, steps, f"{axes[0].partition(',')[0].lower()}s")
    dots = len(steps) <= 20 and len(bands) <= DOTTED
    y = _y_axis(axes[1], bands, loose)
    caption += _describe_beyond(y, bands, loose)
    if y.place and pd.concat([bands["high"], loose["value"]]).ge(1).any():
        caption = [*caption, "An accuracy of 100% lies at the upper edge."]
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
                panels.append(Panel(title, draw_lines(here[0], here[1], shown, x, y, dots)))
    ends = bands[bands["x"].eq(bands.groupby(["arm", "split"])["x"].transform(end))]
    said = [
        f"{row.arm}, {(splits[row.split] or row.base).lower()}: {format_value(row.mean, axes[1])}" for row in each(ends)
    ]
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


def draw_lines(
    bands: pd.DataFrame, loose: pd.DataFrame, bases: Sequence[str], x: alt.X, axis: Values, dots: bool
) -> alt.LayerChart:
    """Return one panel: bands, means and trials that did not finish; arguments as of `line_figure`."""
    y = axis.axis
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
    columns += ["layer"] if "layer" in bands else []
    own, mean, low, high = _chart(bands, columns, axis, "mean", "low", "high")
    layers: list[alt.Chart] = []
    if bands["seeds"].gt(1).any():
        band = own.mark_area(opacity=0.2, clip=True, line=False)
        layers.append(band.encode(x=x, y=at_field(y, low), y2=f"{high}:Q", color=colour))
    if not bands.empty:
        line = own.mark_line(strokeWidth=2, clip=True)
        layers.append(line.encode(x=x, y=at_field(y, mean), color=colour, strokeDash=dash))
        points = own.mark_point(filled=True, size=34 if dots else 60, opacity=1 if dots else 0, clip=True)
        layers.append(points.encode(x=x, y=at_field(y, mean), color=colour, shape=shape, tooltip=tips))
    if not loose.empty:
        tips = [alt.Tooltip(f"{field}:N") for field in ("base", "seed", "state")]
        tips += [alt.Tooltip("x:Q", title="epoch"), alt.Tooltip("value:Q", format=".4~g")]
        shown = ["base", "x", "value", "seed", "state"]
        own, value = _chart(loose, [*shown, "trial"], axis, "value")
        line = own.mark_line(strokeWidth=1, opacity=0.75, clip=True)
        layers.append(line.encode(x=x, y=at_field(y, value), color=colour, strokeDash=dash, detail="trial:N"))
        ends = loose[loose["last"]]
        for frame, marker in (
            (ends[ends["state"].eq(DIVERGED)], CROSS),
            (ends[ends["state"].ne(DIVERGED)], MARKERS[0]),
        ):
            if not frame.empty:
                own, value = _chart(frame, shown, axis, "value")
                points = own.mark_point(filled=True, shape=marker, size=40, opacity=1)
                layers.append(points.encode(x=x, y=at_field(y, value), color=colour, tooltip=tips))
    return alt.LayerChart(layer=layers, height=190)


def _chart(frame: pd.DataFrame, columns: Sequence[str], axis: Values, *fields: str) -> tuple[Any, ...]:
    """Return a chart of a frame, and the names of the fields that say where values lie on an axis."""
    chart = alt.Chart(inline(frame, columns))
    if not axis.place:
        return chart, *fields
    placed = {f"at_{field}": axis.place.format(f"datum.{field}") for field in fields}
    return chart.transform_calculate(**placed), *placed


def band_words(bands: pd.DataFrame) -> Iterator[str]:
    """Yield what lines and bands are."""
    if bands.empty:
        return
    if bands["seeds"].max() == 1:
        yield "Lines: the only finished trial of each arm."
    else:
        yield "Lines: mean over the seeds of the finished trials; bands: from the smallest to the largest value."


def describe_gaps(curves: Curves, name: str, splits: Collection[str]) -> Iterator[str]:
    """Yield which values of a record curves do not have."""
    if curves.end_apart(name, splits):
        yield "Where trials of an arm stopped at different epochs, its curve ends with the first of them."
    if curves.leave_out(name, splits):
        yield "Values that are not finite are not drawn."


def _y_axis(title: str, bands: pd.DataFrame, loose: pd.DataFrame) -> Values:
    """Return the axis that all panels share: the finished trials' range, and what little the others go beyond it."""
    values = [*bands["low"], *bands["high"]]
    if title == "Accuracy":
        return accuracies(title, [*values, *loose["value"]])
    ceiling = 3 * max(values) if values else math.inf
    return Values(magnitudes(title, [*values, *(value for value in loose["value"] if value <= ceiling)] or [1.0]))


def _describe_beyond(y: Values, bands: pd.DataFrame, loose: pd.DataFrame) -> Iterator[str]:
    """Yield a sentence for each edge of an axis that values lie beyond."""
    if y.place:
        return
    low, high = y.axis["scale"].domain
    if loose["value"].gt(high).any():
        yield f"Values above {high:.3g}, of trials that did not finish, lie beyond the upper edge."
    if bands["low"].lt(low).any() or loose["value"].lt(low).any():
        yield f"Values below {low:.2g} lie beyond the lower edge."


def format_value(value: float, axis: str) -> str:
    """Return a value in words."""
    return f"{100 * value:.1f}%" if axis == "Accuracy" else f"{value:.3g}"
