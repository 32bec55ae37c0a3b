"""Interim results of a study with `decide`: the interval of each contrast by the number of seeds."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import altair as alt
import pandas as pd

from leadline.analysis.verdict import ContrastFinding, Findings
from leadline.analysis.verdict.wording.labels import contrast_labels, contrast_pair
from leadline.analysis.verdict.wording.sentences import level
from leadline.parts.metrics import Metric
from leadline.reports.charts.axes import whole_numbers
from leadline.reports.charts.chart import DECISIONS, Figure, Key, Panel, at_field, each, inline, spread
from leadline.text import interval, join, plural

SHOWN_PANELS, SHOWN_SEEDS = 12, 60
REACH = 1.25  # what a panel shows beyond each end of the last interval, in units of its width
TITLE_LETTERS = 42  # maximum above one of two panels side by side


def interim_intervals(findings: Findings) -> Figure:
    """Return a figure of the intervals that hold at every look, by the number of seeds, one panel per contrast.

    The intervals are those of `ContrastFinding.sequential.interim`; the last one is that of the verdict.
    """
    frame = interim_frame(findings.contrasts)
    drawn = {str(label): own for label, own in frame.dropna(subset=["low", "high"]).groupby("label", sort=False)}
    pair = contrast_pair(findings.contrasts) if findings.contrasts else None
    title = "Intervals as seeds were added" + (f", {pair[0]} − {pair[1]}" if pair else "")
    if not drawn:
        text = "No contrast has an interval yet, which takes two seeds at which both arms finished."
        return Figure("interim", title, text, frame)
    by_seeds = sorted(drawn, key=lambda label: -drawn[label]["seeds"].iloc[-1])
    shown = {label: own for label, own in drawn.items() if label in by_seeds[:SHOWN_PANELS]}
    decisions = {row.decision for own in shown.values() for row in each(_select_looks(own))}
    decided = [decision for decision in DECISIONS if decision in decisions]
    x = whole_numbers("Seeds", pd.Series([1, max(own["seeds"].iloc[-1] for own in shown.values())]))
    titles = [_title(label, own) for label, own in shown.items()]
    return Figure(
        "interim",
        title,
        " ".join(_caption(findings, frame, drawn, shown)),
        frame,
        f"{title}. {join([_describe(label, own) for label, own in drawn.items()], mark=';')}.",
        tuple(Panel(name, _chart(own, decided, x)) for name, own in zip(titles, shown.values(), strict=True)),
        min(len(shown), 2) if max(map(len, titles)) <= TITLE_LETTERS else 1,
        tuple(Key(decision, DECISIONS[decision]) for decision in decided),
    )


def interim_frame(contrasts: Sequence[ContrastFinding]) -> pd.DataFrame:
    """Return the interim results of each contrast: one row per number of seeds.

    Columns: label, a, b, metric, seeds, pairs, difference (the mean, NaN without a pair), low, high (NaN without an
    interval), decision, looked, margin, unit (of the difference, its interval and the margin).
    """
    rows = [
        {
            "label": label,
            "a": contrast.a,
            "b": contrast.b,
            "metric": contrast.metric,
            "seeds": one.seeds,
            "pairs": one.pairs,
            "difference": math.nan if one.difference is None else one.difference,
            **dict(zip(("low", "high"), _ends(one.low, one.high), strict=True)),
            "decision": one.decision,
            "looked": one.looked,
            "margin": contrast.margin,
            "unit": contrast.kind.difference_unit,
        }
        for contrast, label in zip(contrasts, contrast_labels(contrasts), strict=True)
        if contrast.sequential is not None
        for one in contrast.sequential.interim
    ]
    columns = ["label", "a", "b", "metric", "seeds", "pairs", "difference", "low", "high", "decision", "looked"]
    return pd.DataFrame(rows, columns=[*columns, "margin", "unit"])


def _ends(low: float, high: float) -> tuple[float, float]:
    return (low, high) if math.isfinite(high - low) else (math.nan, math.nan)


def _select_looks(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of looks, and the last row, which has all seeds and is that of the verdict."""
    return rows[rows["looked"] | rows["seeds"].eq(rows["seeds"].max())]


def _domain(rows: pd.DataFrame) -> tuple[float, float]:
    """Return the ends of a panel's axis, which cut off the first intervals, because they are very wide."""
    low, high = float(rows["low"].iloc[-1]), float(rows["high"].iloc[-1])
    reach, margin = REACH * (high - low), 1.5 * float(rows["margin"].iloc[0])
    low, high = max(low - reach, rows["low"].min()), min(high + reach, rows["high"].max())
    low, high = min(low, -margin, rows["difference"].min()), max(high, margin, rows["difference"].max())
    room = 0.04 * (high - low) or 1.0
    return low - room, high + room


# --- words


def _caption(
    findings: Findings, frame: pd.DataFrame, drawn: dict[str, pd.DataFrame], shown: dict[str, pd.DataFrame]
) -> Iterator[str]:
    rows = pd.concat(shown.values())
    more = any(not own["looked"].iloc[-1] for own in shown.values())
    yield (
        f"Bars: the {level(findings.contrasts[0])} interval that holds at every look, after each seed; line: the mean"
        f" difference so far; {_describe_direction([findings.kind(name) for name in rows['metric'].unique()])}."
    )
    yield (
        f"Thick bars with a mark: the looks that were taken{', and all seeds so far' if more else ''}, marked by"
        f" their decision; thin bars: {'some of ' if rows['seeds'].max() > SHOWN_SEEDS else ''}the seeds in between."
    )
    yield "Shaded: the margin within which two arms count as equivalent. One seed has no interval."
    if rows["pairs"].lt(rows["seeds"]).any():
        yield "A seed at which a trial diverged forms no pair and leaves the interval unchanged."
    if any(
        own["low"].min() < low or high < own["high"].max() for own in shown.values() for low, high in [_domain(own)]
    ):
        yield "Bars that extend beyond a panel are cut off at its edge."
    if without := [label for label in frame["label"].unique() if label not in drawn]:
        yield f"No interval yet: {join(without, mark=';')}."
    if len(shown) < len(drawn):
        yield (
            f"The {len(shown)} of {len(drawn)} contrasts that took the most seeds are drawn; the data file of this"
            " figure has all of them."
        )


def _describe_direction(kinds: Sequence[Metric]) -> str:
    """Describe on which side of zero a difference favours the first arm."""
    higher = [one.named() for one in kinds if one.higher_is_better]
    if not higher:
        return "below zero favours the first arm"
    if len(higher) == len(kinds):
        return "above zero favours the first arm"
    return f"below zero favours the first arm, but above zero of {join(higher)}"


def _title(label: str, rows: pd.DataFrame) -> str:
    """Return the name of a contrast with its decisions and their numbers of seeds."""
    steps = _select_looks(rows).drop_duplicates("decision")
    made = [row for row in each(steps) if row.decision != "undecided"] or list(each(rows.tail(1)))
    decided = (f"{row.decision} at {plural(row.seeds, 'seed')}" for row in made)
    return f"{label}: {', then '.join(decided)}"


def _describe(label: str, rows: pd.DataFrame) -> str:
    """Describe the first and the last interval at a look."""
    seen = list(each(_select_looks(rows)))
    ends = seen if len(seen) < 2 else [seen[0], seen[-1]]
    intervals = (f"{_interval(row)} at {plural(row.seeds, 'seed')}, {row.decision}" for row in ends)
    return f"{label}: {', then '.join(intervals)}"


def _interval(row: Any) -> str:
    return interval((row.low, row.high), signed=True)


# --- marks


def _chart(rows: pd.DataFrame, decided: Sequence[str], x: alt.X) -> alt.LayerChart:
    marked, unit = _select_looks(rows), rows["unit"].iloc[0]
    y = alt.Y(
        "y:Q",
        title={"points": "Difference (percentage points)", "": "Difference"}.get(unit, f"Difference ({unit})"),
        axis=alt.Axis(tickCount=6),
        scale=alt.Scale(domain=list(_domain(rows)), nice=False, zero=False),
    )
    between = rows[~rows["seeds"].isin(marked["seeds"])]
    between = between[between["seeds"].isin(spread(list(between["seeds"]), SHOWN_SEEDS))]
    line = pd.concat([between, marked]).sort_values("seeds")
    lane = pd.DataFrame({"top": rows["margin"].iloc[:1], "bottom": -rows["margin"].iloc[:1], "zero": 0.0})
    behind = alt.Chart(inline(lane, ["top", "bottom", "zero"]))
    mean = alt.Chart(inline(line, ["seeds", "difference"])).mark_line(style="seed", strokeWidth=1.5)
    layers: list[alt.Chart] = [
        behind.mark_rect(style="margin").encode(y=at_field(y, "top"), y2="bottom:Q"),
        behind.mark_rule(style="zero").encode(y=at_field(y, "zero")),
        mean.encode(x=at_field(x, "seeds"), y=at_field(y, "difference")),
    ]
    tips = [alt.Tooltip("seeds:Q"), alt.Tooltip("pairs:Q"), alt.Tooltip("difference:Q", format="+.2f")]
    tips += [alt.Tooltip("words:N", title="interval"), alt.Tooltip("decision:N")]
    for part, style in ((between, "seed"), (marked, "interval")):
        if not part.empty:
            data = inline(part.assign(words=[_interval(row) for row in each(part)]), _FIELDS)
            bar = alt.Chart(data).mark_rule(style=style, clip=True)
            layers.append(bar.encode(x=at_field(x, "seeds"), y=at_field(y, "low"), y2="high:Q", tooltip=tips))
    shape = alt.Shape("decision:N", scale=alt.Scale(domain=decided, range=[DECISIONS[one] for one in decided]))
    marks = alt.Chart(layers[-1].data).mark_point(style="estimate", filled=True, size=90)
    marks = marks.encode(x=at_field(x, "seeds"), y=at_field(y, "difference"), shape=shape, tooltip=tips)
    return alt.LayerChart(layer=[*layers, marks], height=210)


_FIELDS = ("seeds", "pairs", "difference", "low", "high", "words", "decision")
