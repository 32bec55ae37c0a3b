"""Values of runs by arm, those of a pair joined by a line."""

import altair as alt
import pandas as pd

from leadline.parts.metrics import Metric
from leadline.reports.charts.axes import linear
from leadline.reports.charts.chart import (
    CROSS,
    DIVERGED,
    SHOWN_BASES,
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
from leadline.reports.charts.frames import level_of
from leadline.reports.charts.probe_curves import describe_omitted
from leadline.text import join

SHOWN_LEVELS = 6
SHOWN_LINES = 100  # more make a grey surface


def run_values(trials: pd.DataFrame, records: pd.DataFrame, kind: Metric, name: str, linked: bool) -> Figure:
    """Return the value of every run by arm, and the mean of each arm.

    Args:
        trials: a row per run: trial, arm, base, factors, seed, state.
        records: their values.
        kind: the metric.
        name: of the figure's files.
        linked: whether runs of one seed form a pair.
    """
    values = records[records["name"].eq(kind.name) & records["split"].eq("final")].set_index("trial")["value"]
    rows = trials.assign(
        value=trials["trial"].map(values).mask(trials["state"].eq(DIVERGED)),
        level=[level_of(factors) for factors in trials["factors"]],
    )
    words = kind.named()
    title = f"{words[0].upper()}{words[1:]} by arm"
    bases, levels = list(rows["base"].unique()), list(rows["level"].unique())
    shown, shown_levels = bases[:SHOWN_BASES], spread(levels, SHOWN_LEVELS)
    drawn = rows[rows["base"].isin(shown) & rows["level"].isin(shown_levels)]
    y = linear(f"{words} ({kind.unit.strip()})" if kind.unit else words, list(drawn["value"].dropna()) or [0.0])
    pairs = drawn["seed"].nunique()
    caption = ["Small hollow marks: one run each; filled marks: the mean of an arm."]
    keys = legend_keys(shown, dashed=False)
    if linked and pairs > SHOWN_LINES:
        caption.append(f"No lines join the runs of a pair, of which there are {pairs:,}.")
        linked = False
    elif linked:
        caption.append("Lines join the runs of a pair.")
    if drawn["state"].eq(DIVERGED).any():
        caption.append("Crosses at the right edge: runs that failed and so have no value.")
        keys.append(Key(DIVERGED, CROSS))
    caption += [*describe_omitted(bases, shown, "arms"), *describe_omitted(levels, shown_levels, "levels")]
    means = rows.groupby("arm", sort=False)["value"].mean().dropna()
    said = [f"{arm} {mean:.4g}{kind.unit}" for arm, mean in means.items()]
    return Figure(
        name,
        title,
        " ".join(caption),
        rows[["arm", "base", "level", "seed", "state", "value"]],
        f"{title}. Means: {join(said, mark=';') or 'no run has a value'}.",
        tuple(Panel(level, _panel(drawn[drawn["level"].eq(level)], shown, y, linked)) for level in shown_levels),
        grid_columns(len(shown_levels)),
        tuple(keys),
    )


def _panel(rows: pd.DataFrame, bases: list[str], value: alt.Y, linked: bool) -> alt.LayerChart:
    colour, _, shape = arm_channels(bases)
    names = name_axis("base", bases)
    known = rows[rows["value"].notna()].assign(place=rows["base"].map(bases.index))
    runs = inline(known, ["base", "place", "seed", "value"])
    at_value = place_marks(names, value, "value")
    layers: list[alt.Chart] = []
    if linked:
        line = alt.Chart(runs).mark_line(strokeWidth=1, opacity=0.35)
        layers.append(line.encode(**at_value, detail="seed:N", order="place:Q"))
    tips = [alt.Tooltip("base:N", title="arm"), alt.Tooltip("seed:N"), alt.Tooltip("value:Q", format=".4~g")]
    points = alt.Chart(runs).mark_point(filled=False, size=30, opacity=0.85, strokeWidth=1.2)
    layers.append(points.encode(**at_value, color=colour, shape=shape, tooltip=tips))
    means = known.groupby("base", sort=False)["value"].mean().reset_index()
    points = alt.Chart(inline(means, ["base", "value"])).mark_point(filled=True, size=80, opacity=1)
    tips = [alt.Tooltip("base:N", title="arm"), alt.Tooltip("value:Q", title="mean", format=".4~g")]
    layers.append(points.encode(**at_value, color=colour, shape=shape, tooltip=tips))
    lost = rows[rows["state"].eq(DIVERGED)].groupby("base", sort=False)["seed"].count().reset_index()
    if not lost.empty:
        points = alt.Chart(inline(lost, ["base", "seed"])).mark_point(filled=True, shape=CROSS, size=60, opacity=1)
        tips = [alt.Tooltip("base:N", title="arm"), alt.Tooltip("seed:Q", title="failed")]
        layers.append(points.encode(**at_edge(names), color=colour, tooltip=tips))
    return alt.LayerChart(layer=layers, height=name_height(rows["base"].nunique()))
