"""Tuning in figures and tables: what was tried, and what a smaller budget would have found."""

import math
from collections.abc import Sequence

import altair as alt
import numpy as np
import pandas as pd

from leadline.chart import (
    CROSS,
    DASHES,
    DIVERGED,
    MARKERS,
    SHOWN_BASES,
    Figure,
    Key,
    Panel,
    arm_channels,
    at_field,
    each,
    grid_columns,
    inline,
    listed,
    spread,
)
from leadline.chartdata import level_of
from leadline.probechart import linear, logarithmic, shown_in_part, whole_numbers
from leadline.spec.tuning import ChoiceSpace, IntegerSpace, LogSpace, Space, edges
from leadline.tables import NOTHING, Column, Table
from leadline.verdict.tuned import Tuning, shown

SHOWN_LEVELS = 6
SHOWN_KEYS = 4
SHOWN_BUDGETS = 8
CHOSEN = "chosen"
BEST_OF, TRIED = "tuning-best-of-k", "tuning-settings"


def tuning_figures(tuning: Tuning) -> tuple[Figure, ...]:
    """Return the curves of the best of k settings, and every setting that was tried; without panels if none is left."""
    if tuning.tried.empty:
        text = tuning.sentences[-1]
        return (
            Figure(BEST_OF, "Best validation error by tuning budget", text, tuning.best),
            Figure(TRIED, "Every setting that was tried", text, tuning.tried),
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
        "Lines: the best of k settings, averaged over all choices of k of those that were tried, which is what a"
        " shorter random search is expected to find (Dodge et al. 2019; Tang et al. 2020); bands: from the 10th to the"
        " 90th percentile of these choices, which close at the right by construction and say nothing of another search."
        if random
        else "Lines: the best of the first k settings, in the order of the one search that was made; another search"
        " would take another course.",
        "Validation error, by which settings were chosen, is a little too low for the best of many.",
        *shown_in_part(bases, drawn, "arms"),
        *shown_in_part(levels, drawn_levels, "levels"),
    ]
    here = rows[rows["base"].isin(drawn) & rows["level"].isin(drawn_levels)]
    y = _error_axis("Best validation error (%)", [*here["low"], *here["high"]])
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
        f"{title}. {listed(ends)}.",
        panels,
        grid_columns(len(panels)),
        tuple(Key(base, MARKERS[i], tuple(DASHES[i]), i + 1) for i, base in enumerate(drawn)),
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
        "Hollow marks: one setting each; filled: the one that its arm goes on with.",
        *(["Crosses at the upper edge: settings at which training diverged."] if lost else []),
        *shown_in_part(list(tuning.spec.space), keys, "tuned keys"),
        *shown_in_part(bases, drawn, "arms"),
        *shown_in_part(levels, drawn_levels, "levels"),
    ]
    y = _error_axis("Validation error (%)", list(here["error"].dropna()))
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
        "Every setting that was tried",
        " ".join(caption),
        _flat(tuning),
        f"Every setting that was tried. Chosen: {listed(said)}.",
        tuple(panels),
        len(keys) if len(keys) > 1 else grid_columns(len(panels)),
        (
            *(Key(base, MARKERS[i], (), i + 1) for i, base in enumerate(drawn)),
            *([Key(DIVERGED, CROSS)] if lost else []),
        ),
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
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        steps = (1, 3) if len(powers) <= 3 else (1,)
        ticks = [float(f"{step}e{power}") for power in powers for step in steps]
        axis = alt.Axis(values=[tick for tick in ticks if low <= tick <= high], format="~g", labelFlush=False)
        scale = alt.Scale(type="log", domain=[low, high], nice=False, padding=8)
        return alt.X("x:Q", title=f"{key}, log scale", axis=axis, scale=scale)
    axis = alt.Axis(tickCount=5, format="d" if isinstance(space, IntegerSpace) else "~g", labelFlush=False)
    return alt.X("x:Q", title=key, axis=axis, scale=alt.Scale(domain=[low, high], nice=False, zero=False, padding=8))


def _error_axis(title: str, values: Sequence[float]) -> alt.Y:
    """Return an axis for errors, logarithmic where they are above 0 and span over a factor of 20."""
    if values and min(values) > 0 and max(values) > 20 * min(values):
        return logarithmic(title, values)[0]
    return linear(title, [0.0, *values])


# --- tables


def tuning_tables(tuning: Tuning) -> tuple[Table, ...]:
    """Return the chosen values, the best of k by arm and contrast, and every setting; empty where nothing is left."""
    return chosen_table(tuning), best_table(tuning), leads_table(tuning), tried_table(tuning)


def chosen_table(tuning: Tuning) -> Table:
    """Return one row per arm: what was chosen, and how the search that chose it went."""
    keys = list(tuning.spec.space)
    rows = []
    for row in each(tuning.tried[tuning.tried["chosen"]]):
        own = tuning.tried[tuning.tried["arm"].eq(row.arm)]
        rows.append(
            {"arm": row.arm, **{key: row.values[key] for key in keys}, "error": row.error, "number": row.number}
            | {"median": float(own["error"].fillna(np.inf).median()), "settings": len(own)}
            | {"diverged": int(own["state"].eq(DIVERGED).sum())}
        )
    columns = (
        Column("Arm", ("arm",), str, numeric=False),
        *(Column(key, (key,), shown) for key in keys),
        Column("Validation error, %", ("error",), _per_cent),
        Column("Setting", ("number", "settings"), "{} of {}".format),
        Column("Median of all, %", ("median",), _per_cent),
        Column("Diverged", ("diverged",), str),
    )
    return Table("tuning-chosen", "What tuning chose for each arm", columns, tuple(rows))


def best_table(tuning: Tuning) -> Table:
    """Return one row per arm: the best validation error at a few budgets, the smallest and the whole among them."""
    if tuning.best.empty:
        return Table("tuning-budgets", _BUDGETS_CAPTION, (), ())
    budgets = _few_budgets(tuning)
    rows = [
        {"arm": arm} | {str(k): own.set_index("k")["mean"][k] for k in budgets}
        for arm, own in tuning.best.groupby("arm", sort=False)
    ]
    columns = (
        Column("Arm", ("arm",), str, numeric=False),
        *(Column(f"k = {k}", (str(k),), _per_cent) for k in budgets),
    )
    return Table("tuning-budgets", _BUDGETS_CAPTION, columns, tuple(rows))


def leads_table(tuning: Tuning) -> Table:
    """Return one row per contrast: the arm that a few budgets would have put ahead, and in what share of searches."""
    if tuning.leads.empty:
        return Table("tuning-leads", _LEADS_CAPTION, (), ())
    budgets = _few_budgets(tuning)
    rows = []
    for (a, b), own in tuning.leads.groupby(["a", "b"], sort=False):
        row: dict[str, object] = {"a": a, "b": b}
        for one in each(own[own["k"].isin(budgets)]):
            row |= {f"{one.k}_a": one.share_a, f"{one.k}_b": one.share_b}
        rows.append(row)
    columns = (
        Column("First arm", ("a",), str, numeric=False),
        Column("Second arm", ("b",), str, numeric=False),
        *(Column(f"k = {k}", (f"{k}_a", f"{k}_b"), "{:.0%} / {:.0%}".format) for k in budgets),
    )
    return Table("tuning-leads", _LEADS_CAPTION, columns, tuple(rows))


def tried_table(tuning: Tuning) -> Table:
    """Return one row per setting of every arm, in the order of the search."""
    keys = list(tuning.spec.space)
    rows = tuple({str(name): value for name, value in row.items()} for row in _flat(tuning).to_dict("records"))
    columns = (
        Column("Arm", ("arm",), str, numeric=False),
        Column("Setting", ("number",), str),
        *(Column(key, (key,), shown) for key in keys),
        Column("Validation error, %", ("error",), _per_cent),
        Column("State", ("state",), str, numeric=False),
        Column("Chosen", ("chosen",), lambda chosen: CHOSEN if chosen else "", numeric=False),
    )
    return Table("tuning-every", "Every setting that tuning tried", columns, rows)


_BUDGETS_CAPTION = "Best validation error by tuning budget k, %"
_LEADS_CAPTION = "Share of searches of k settings whose best is lower in the first / in the second arm"


def _few_budgets(tuning: Tuning) -> list[int]:
    """Return the smallest budgets, doubling, and the whole one, of those that curves have points at."""
    every = sorted(map(int, tuning.best["k"].unique()))
    doubled = {min(every, key=lambda k: abs(k - 2**power)) for power in range(every[-1].bit_length())}
    return spread(sorted({*doubled, every[-1]}), SHOWN_BUDGETS)


def _flat(tuning: Tuning) -> pd.DataFrame:
    """Return every setting as one row of plain values."""
    rows = tuning.tried
    values = {key: [one[key] for one in rows["values"]] for key in tuning.spec.space}
    return rows[["arm", "base", "number"]].assign(**values, **rows[["error", "state", "chosen"]])


def _per_cent(value: float) -> str:
    return f"{value:.2f}" if math.isfinite(value) else NOTHING
