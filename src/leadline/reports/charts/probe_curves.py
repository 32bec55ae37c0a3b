"""What figures of probes share: rows of many trials as one mark per place, and curves of arms side by side.

A probe's frame has the trial's `arm`, `base`, `seed` and `epoch` (0: before the first step) before its own columns.
Values that are not finite never enter. Every figure has one scale for all panels: an epoch and a level of the study in
each.
"""

from collections.abc import Iterator, Mapping, Sequence

import altair as alt
import numpy as np
import pandas as pd

from leadline.errors import DataError
from leadline.reports.charts.axes import linear, logarithmic, numbers, whole_numbers
from leadline.reports.charts.chart import (
    MARKERS,
    RING,
    SHOWN_BASES,
    Figure,
    Key,
    Panel,
    arm_channels,
    at_field,
    inline,
    legend_keys,
    spread,
)
from leadline.text import join

TRIAL = ("arm", "base", "seed", "epoch")
NAMES = {"block", "column", "extreme", "kind", "layer", "map", "place", "quantity", "row"}
"""Columns of text; all others hold numbers."""
PLACE = ["arm", "base", "level", "epoch"]
SHOWN_LEVELS, SHOWN_EPOCHS, DOTTED = 3, 3, 25


def prepare_rows(name: str, frame: pd.DataFrame, columns: Sequence[str], bases: Sequence[str] = ()) -> pd.DataFrame:
    """Return the rows of a probe with a column `level`, such as `blocks = 5`; `base` is categorical, in its order.

    Args:
        name: of the probe.
        frame: its rows, those of a trial after its `TRIAL` columns.
        columns: that it must have beside these.
        bases: arms in the order of their colours; those of the frame that are not among them come after.

    Raises:
        DataError: a column is missing or holds no numbers, a trial has no name, or an epoch is no whole number from 0.
    """
    missing = [column for column in (*TRIAL, *columns) if column not in frame]
    if missing:
        has = ", ".join(map(str, frame.columns)) or "none"
        raise DataError(f"frame of probe {name}: no column {missing[0]!r}, only {has}; give {', '.join(TRIAL)} as well")
    for column in (*TRIAL[:3], *columns):
        wrong = frame.loc[frame[column].isna(), column] if column in TRIAL else _no_numbers(column, frame[column])
        if len(wrong):
            expected = "a value in every row" if column in TRIAL else "a number"
            raise DataError(
                f"frame of probe {name}: {column} {wrong.iloc[0]!r} in row {wrong.index[0]}; expected {expected}"
            )
    epochs = pd.to_numeric(frame["epoch"], errors="coerce")
    wrong = frame.loc[~(epochs.ge(0) & epochs.mod(1).eq(0)), "epoch"]
    if len(wrong):
        text = f"frame of probe {name}: epoch {wrong.iloc[0]!r}; expected a whole number, 0 for before the first step"
        raise DataError(text)
    arms = frame[["arm", "base"]].drop_duplicates("arm").astype("str")
    levels = {arm: _level(arm, base) for arm, base in arms.to_numpy().tolist()}
    names = frame["arm"].astype("str")
    order = list(dict.fromkeys([*bases, *arms["base"]]))
    return frame.assign(
        arm=names,
        base=pd.Categorical(frame["base"].astype("str"), order),
        epoch=epochs.astype("int64"),
        level=names.map(levels),
    )


def _no_numbers(column: str, values: pd.Series) -> pd.Series:
    return values[:0] if column in NAMES else values[values.notna() & pd.to_numeric(values, errors="coerce").isna()]


def _level(arm: str, base: str) -> str:
    inside = arm.removeprefix(base)
    if arm.startswith(base) and inside.startswith("["):
        return inside[1:].removesuffix("]").replace("=", " = ").replace(",", ", ")
    return "" if arm == base else arm


def over_seeds(rows: pd.DataFrame, by: Sequence[str], within: str = "mean") -> pd.DataFrame:
    """Return one row per arm, epoch and place: mean, low, high and number of seeds of what each seed has there.

    Args:
        rows: with a column `value`, and several rows a seed where there are several images or draws.
        by: columns that make a place.
        within: what is taken of one seed's rows, as pandas names it: mean, median.
    """
    rows = rows[np.isfinite(rows["value"].astype("float64"))]
    seeds = rows.groupby([*PLACE, "seed", *by], sort=False)["value"].agg(within).reset_index()
    found = seeds.groupby([*PLACE, *by], sort=False)["value"]
    return found.agg(mean="mean", low="min", high="max", seeds="count").reset_index()


def mark_places(rows: pd.DataFrame, x: str, place: str | None = None) -> pd.DataFrame:
    """Return marks by a column of places, each with its name where there is one."""
    rows = rows.rename(columns={x: "x"} | ({place: "place"} if place else {}))
    return over_seeds(rows, ["x", "place"] if place else ["x"])


def at_epoch(epoch: int) -> str:
    """Return an epoch in words."""
    return f"epoch {epoch}" if epoch else "before the first step"


def by_arm(rows: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield the rows of each arm and epoch with both in words."""
    for (arm, epoch), own in rows.groupby(["arm", "epoch"], sort=False):
        yield f"{arm}, {at_epoch(int(str(epoch)))}", own


def describe_omitted(every: Sequence[object], shown: Sequence[object], what: str) -> Iterator[str]:
    """Yield a sentence for the caption if not all items are drawn."""
    if len(shown) < len(every):
        yield f"{len(shown)} of {len(every)} {what} are drawn; this figure's data file has all of them."


# --- curves


def curves(
    figure: Figure,
    marks: pd.DataFrame,
    axes: tuple[str, str],
    *,
    log: bool = False,
    whole: bool = True,
    joined: bool = True,
    parts: Mapping[str, str] = {},
    rules: pd.DataFrame | None = None,
    lines: Sequence[float] = (),
    holds: Sequence[float] = (),
    bands: str = "the range over seeds",
) -> Figure:
    """Return a figure with a panel for each epoch and level, and a curve in it for each arm; none without marks.

    Args:
        figure: name, title, caption and data; the rest is added.
        marks: columns arm, base, level, epoch, x, mean, low, high, seeds; `place`, its name, where it has one; `part`,
            where an arm has two curves.
        axes: titles of x and y.
        log: whether y is logarithmic; what lies below its edge is put on it, and the caption tells.
        whole: whether x counts something.
        joined: whether marks of one arm are joined by a line.
        parts: values of `part`, at most two, and their names; the marks of the second are hollow.
        rules: columns arm, base, level, epoch, mean: a horizontal line for each arm, in its colour.
        lines: horizontal lines that are no arm's.
        holds: values that the vertical scale holds whatever is measured.
        bands: from where to where bands go.
    """
    if marks.empty:
        return figure
    bases, levels, epochs = (
        list(marks["base"].cat.categories),
        list(marks["level"].unique()),
        sorted(marks["epoch"].unique()),
    )
    shown, levels_shown = bases[:SHOWN_BASES], spread(levels, SHOWN_LEVELS)
    epochs_shown = spread(epochs, SHOWN_EPOCHS)
    caption = [
        figure.caption,
        *([f"Marks: the mean over seeds; bands: {bands}."] if joined and marks["seeds"].gt(1).any() else []),
        *describe_omitted(bases, shown, "arms"),
        *describe_omitted(levels, levels_shown, "levels"),
        *describe_omitted(epochs, epochs_shown, "epochs"),
    ]
    marks = _chosen(marks, shown, levels_shown, epochs_shown)
    rules = marks.iloc[:0] if rules is None else _chosen(rules, shown, levels_shown, epochs_shown)
    values = [*marks["low"], *marks["high"], *rules["mean"], *lines, *holds]
    drawn = marks
    if log:
        y, edge = logarithmic(axes[1], values)
        if min(values) < edge:
            caption.append(f"Values below {edge:.2g} are drawn at the lower edge.")
        drawn = marks.assign(**{field: marks[field].clip(lower=edge) for field in ("mean", "low", "high")})
    else:
        y = linear(axes[1], values)
    panels = []
    for epoch in epochs_shown:
        for level in levels_shown:
            here, own = (_chosen(frame, shown, [level], [epoch]) for frame in (drawn, rules))
            if here.empty:
                continue
            of_level = marks.loc[marks["level"].eq(level), "x"]
            x = (whole_numbers if whole else numbers)(axes[0], of_level)
            layers = [*_rules(own, lines, shown, y), *_arms(here, shown, x, axes[0], y, joined, list(parts))]
            panels.append(Panel(panel_title(epoch, level), alt.LayerChart(layer=layers, height=190)))
    keys = arm_keys(marks, joined)
    keys += [Key(said, marker) for said, marker in zip(parts.values(), (MARKERS[0], RING), strict=False)]
    return Figure(
        figure.name,
        figure.title,
        " ".join(caption),
        figure.data if len(figure.data) else marks,
        f"{figure.title}. {axes[1]}, from left to right: {join(list(_ends(marks, parts)), mark=';')}.",
        tuple(panels),
        len(levels_shown) if len(levels_shown) > 1 else len(epochs_shown),
        tuple(keys),
    )


def arm_keys(rows: pd.DataFrame, joined: bool = True) -> list[Key]:
    """Return the legend entries of the first arms, without those that have no rows."""
    drawn = {*rows["base"]}
    return [key for key in legend_keys(list(rows["base"].cat.categories[:SHOWN_BASES]), joined) if key.label in drawn]


def panel_title(epoch: int, level: str) -> str:
    """Return an epoch and a level in words."""
    words = at_epoch(epoch)
    return ", ".join(filter(None, [words[0].upper() + words[1:], level]))


def _chosen(frame: pd.DataFrame, bases: Sequence[str], levels: Sequence[str], epochs: Sequence[int]) -> pd.DataFrame:
    return frame[frame["base"].isin(bases) & frame["level"].isin(levels) & frame["epoch"].isin(epochs)]


def _rules(rules: pd.DataFrame, lines: Sequence[float], bases: Sequence[str], y: alt.Y) -> Iterator[alt.Chart]:
    if lines:
        data = inline(pd.DataFrame({"y": list(lines)}), ["y"])
        yield alt.Chart(data).mark_rule(style="zero", opacity=0.4, strokeDash=[2, 2]).encode(y=y)
    if not rules.empty:
        colour, _, _ = arm_channels(bases)
        data = inline(rules, ["arm", "base", "mean"])
        tips = [alt.Tooltip("arm:N"), alt.Tooltip("mean:Q", title="whole network", format=".3~g")]
        rule = alt.Chart(data).mark_rule(strokeWidth=1.2, opacity=0.8)
        yield rule.encode(y=at_field(y, "mean"), color=colour, tooltip=tips)


def _arms(
    marks: pd.DataFrame, bases: Sequence[str], x: alt.X, title: str, y: alt.Y, joined: bool, parts: Sequence[str]
) -> Iterator[alt.Chart]:
    colour, dash, shape = arm_channels(bases)
    named = [field for field in ("place", "part") if field in marks]
    columns = ["arm", "base", "x", "mean", "low", "high", "seeds", *named]
    tips = [alt.Tooltip("arm:N"), *(alt.Tooltip(f"{field}:N") for field in named)]
    tips += [alt.Tooltip("x:Q", title=title, format=".4~g")]
    tips += [alt.Tooltip(f"{field}:Q", format=".4~g") for field in ("mean", "low", "high", "seeds")]
    dots = marks.groupby(["arm", *(["part"] if parts else [])])["x"].count().max() <= DOTTED or not joined
    for number, part in enumerate(parts or [None]):
        own = marks if part is None else marks[marks["part"].eq(part)]
        if own.empty:
            continue
        data = inline(own, columns)
        if joined and own["high"].gt(own["low"]).any():
            band = alt.Chart(data).mark_area(opacity=0.18, line=False)
            yield band.encode(x=x, y=at_field(y, "low"), y2="high:Q", color=colour)
        if joined:
            line = alt.Chart(data).mark_line(strokeWidth=1.2 if number else 2)
            yield line.encode(x=x, y=at_field(y, "mean"), color=colour, strokeDash=dash)
        size, opacity = (40 if joined else 26), (1.0 if dots and joined else 0.6 if dots else 0.0)
        points = alt.Chart(data).mark_point(filled=not number, size=size, opacity=opacity, strokeWidth=1.2)
        yield points.encode(x=x, y=at_field(y, "mean"), color=colour, shape=shape, tooltip=tips)


def _ends(marks: pd.DataFrame, parts: Mapping[str, str]) -> Iterator[str]:
    for words, own in by_arm(marks):
        for part, name in parts.items() or [("", "")]:
            line = own[own["part"].eq(part)] if part else own
            means = line.sort_values("x", kind="stable")["mean"]
            if len(means):
                yield f"{words}{', ' if name else ''}{name}: {means.iloc[0]:.3g} to {means.iloc[-1]:.3g}"
