"""Tuning in figures: what was tried, and what a smaller budget would have found."""

from collections.abc import Sequence

import altair as alt
import pandas as pd

from leadline.analysis.verdict.tuned import UNSEEN, Tuning, shown
from leadline.reports.charts.axes import log_ticks, magnitudes, whole_numbers
from leadline.reports.charts.chart import (
    CROSS,
    DIVERGED,
    SHOWN_BASES,
    Figure,
    Key,
    Panel,
    arm_channels,
    at_field,
    each,
    grid_columns,
    inline,
    legend_keys,
    spread,
)
from leadline.reports.charts.frames import level_of
from leadline.reports.charts.probe_curves import describe_omitted
from leadline.specs.tuning import ChoiceSpace, IntegerSpace, LogSpace, Space, edges
from leadline.text import join

SHOWN_LEVELS = 6
SHOWN_KEYS = 4
CHOSEN = "chosen"
BEST_OF, TRIED = "tuning-best-of-k", "tuning-settings"


def tuning_figures(tuning: Tuning) -> tuple[Figure, ...]:
    """Return the curves of the best of k settings, and every setting that was tried; without panels if none is left."""
    if tuning.tried.empty:
        text = UNSEEN
        return (
            Figure(BEST_OF, "Best validation error by tuning budget", text, tuning.best),
            Figure(TRIED, "All settings that were tried", text, tuning.tried),
        )
    return best_of_k(tuning), every_setting(tuning)


def best_of_k(tuning: Tuning) -> Figure:
    """Return the best validation error that k settings find, for each arm and every budget k."""
    random = tuning.spec.sampler == "random"
    title = "Expected best validation error by tuning budget" if random else "Best validation error by tuning budget"
    rows = tuning.best.assign(level=[level_of(factors) for factors in tuning.best["factors"]], x=tuning.best["k"])
    bases, levels = list(rows["base"].unique()), list(rows["level"].unique())
    drawn, drawn_levels = bases[:SHOWN_BASES], spread(levels, SHOWN_LEVELS)
    caption = [
        "Lines: the best of k settings, averaged over all subsets of k of the settings tried, which is what a shorter"
        " random search is expected to find (Dodge et al. 2019; Tang et al. 2020); bands: from the 10th to the 90th"
        " percentile of these subsets, which close at the right by construction and do not describe another search."
        if random
        else "Lines: the best of the first k settings, in the order of the search; another search would differ.",
        "The validation error of the best setting is slightly too low, because settings were chosen by it.",
        *describe_omitted(bases, drawn, "arms"),
        *describe_omitted(levels, drawn_levels, "levels"),
    ]
    here = rows[rows["base"].isin(drawn) & rows["level"].isin(drawn_levels)]
    y = magnitudes("Best validation error (%)", [*here["low"], *here["high"]])
    x = whole_numbers("Settings tried, k", here["k"])
    panels = tuple(
        Panel(level, _curves(own, drawn, x, y)) for level in drawn_levels for own in [here[here["level"].eq(level)]]
    )
    ends = [
        f"{arm} {own['mean'].iloc[0]:.3g}% at {own['k'].iloc[0]}, {own['mean'].iloc[-1]:.3g}% at {own['k'].iloc[-1]}"
        for arm, own in rows.groupby("arm", sort=False)
    ]
    return Figure(
        BEST_OF,
        title,
        " ".join(caption),
        tuning.best.drop(columns="factors"),
        f"{title}. {join(ends, mark=';')}.",
        panels,
        grid_columns(len(panels)),
        tuple(legend_keys(drawn)),
    )


def _curves(rows: pd.DataFrame, bases: Sequence[str], x: alt.X, y: alt.Y) -> alt.LayerChart:
    colour, dash, shape = arm_channels(bases)
    data = inline(rows, ["arm", "base", "x", "mean", "low", "high"])
    tips = [alt.Tooltip("arm:N"), alt.Tooltip("x:Q", title="settings")]
    tips += [alt.Tooltip(f"{field}:Q", format=".4~g") for field in ("mean", "low", "high")]
    layers: list[alt.Chart] = []
    if rows["high"].gt(rows["low"]).any():
        band = alt.Chart(data).mark_area(opacity=0.18, line=False)
        layers.append(band.encode(x=x, y=at_field(y, "low"), y2="high:Q", color=colour))
    line = alt.Chart(data).mark_line(strokeWidth=2)
    layers.append(line.encode(x=x, y=at_field(y, "mean"), color=colour, strokeDash=dash))
    points = alt.Chart(data).mark_point(filled=True, size=30, opacity=1)
    layers.append(points.encode(x=x, y=at_field(y, "mean"), color=colour, shape=shape, tooltip=tips))
    return alt.LayerChart(layer=layers, height=210)


def every_setting(tuning: Tuning) -> Figure:
    """Return the validation error of every setting by each value that was tuned, the chosen ones filled."""
    keys = list(tuning.spec.space)[:SHOWN_KEYS]
    rows = tuning.tried.assign(level=[level_of(factors) for factors in tuning.tried["factors"]])
    bases, levels = list(rows["base"].unique()), list(rows["level"].unique())
    drawn, drawn_levels = bases[:SHOWN_BASES], spread(levels, max(1, SHOWN_LEVELS // len(keys)))
    here = rows[rows["base"].isin(drawn) & rows["level"].isin(drawn_levels)]
    lost = bool(here["state"].eq(DIVERGED).any())
    caption = [
        "Hollow marks: one setting each; filled: the one chosen for its arm.",
        *(["Crosses at the upper edge: settings at which training diverged."] if lost else []),
        *describe_omitted(list(tuning.spec.space), keys, "tuned keys"),
        *describe_omitted(bases, drawn, "arms"),
        *describe_omitted(levels, drawn_levels, "levels"),
    ]
    y = magnitudes("Validation error (%)", list(here["error"].dropna()))
    panels = [
        Panel(", ".join(filter(None, [key if len(keys) > 1 else "", level])), _settings(own, key, tuning, drawn, y))
        for level in drawn_levels
        for key in keys
        for own in [here[here["level"].eq(level)]]
    ]
    said = [
        f"{row.arm}: {', '.join(f'{key} {shown(value)}' for key, value in row.values.items())}, {row.error:.3g}%"
        for row in each(rows[rows["chosen"]])
    ]
    return Figure(
        TRIED,
        "All settings that were tried",
        " ".join(caption),
        settings_frame(tuning),
        f"All settings that were tried. Chosen: {join(said, mark=';')}.",
        tuple(panels),
        len(keys) if len(keys) > 1 else grid_columns(len(panels)),
        (*legend_keys(drawn, dashed=False), *([Key(DIVERGED, CROSS)] if lost else [])),
    )


def _settings(rows: pd.DataFrame, key: str, tuning: Tuning, bases: Sequence[str], y: alt.Y) -> alt.LayerChart:
    colour, _, shape = arm_channels(bases)
    space = tuning.spec.space[key]
    x = _values_axis(key, space)
    points = rows.assign(
        x=[str(values[key]) if isinstance(space, ChoiceSpace) else values[key] for values in rows["values"]],
        said=[", ".join(f"{name} {shown(value)}" for name, value in values.items()) for values in rows["values"]],
    )
    tips = [alt.Tooltip("arm:N"), alt.Tooltip("number:Q", title="setting"), alt.Tooltip("said:N", title="values")]
    layers: list[alt.Chart] = []
    finished = points[points["error"].notna()]
    for own, filled, size in ((finished[~finished["chosen"]], False, 34), (finished[finished["chosen"]], True, 90)):
        if not own.empty:
            data = inline(own, ["arm", "base", "x", "error", "number", "said"])
            marks = alt.Chart(data).mark_point(filled=filled, size=size, opacity=0.9, strokeWidth=1.2)
            seen = [*tips, alt.Tooltip("error:Q", title="validation error (%)", format=".2f")]
            layers.append(marks.encode(x=x, y=at_field(y, "error"), color=colour, shape=shape, tooltip=seen))
    lost = points[points["error"].isna()]
    if not lost.empty:
        marks = alt.Chart(inline(lost, ["arm", "base", "x", "number", "said"]))
        marks = marks.mark_point(filled=True, shape=CROSS, size=50, opacity=1)
        layers.append(marks.encode(x=x, y=alt.value(2), color=colour, tooltip=tips))
    return alt.LayerChart(layer=layers, height=210)


def _values_axis(key: str, space: Space) -> alt.X:
    if isinstance(space, ChoiceSpace):
        scale = alt.Scale(domain=[str(value) for value in space.choice])
        return alt.X("x:N", title=key, scale=scale, axis=alt.Axis(labelAngle=0))
    low, high = (float(end) for end in edges(space))
    if isinstance(space, LogSpace):
        axis = alt.Axis(values=log_ticks(low, high, (1, 3)), format="~g", labelFlush=False)
        scale = alt.Scale(type="log", domain=[low, high], nice=False, padding=8)
        return alt.X("x:Q", title=f"{key}, log scale", axis=axis, scale=scale)
    axis = alt.Axis(tickCount=5, format="d" if isinstance(space, IntegerSpace) else "~g", labelFlush=False)
    return alt.X("x:Q", title=key, axis=axis, scale=alt.Scale(domain=[low, high], nice=False, zero=False, padding=8))


def settings_frame(tuning: Tuning) -> pd.DataFrame:
    """Return every setting as one row of plain values."""
    rows = tuning.tried
    values = {key: [one[key] for one in rows["values"]] for key in tuning.spec.space}
    return rows[["arm", "base", "number"]].assign(**values, **rows[["error", "state", "chosen"]])
