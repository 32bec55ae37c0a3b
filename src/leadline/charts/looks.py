"""How the intervals of a study that decides narrowed, contrast by contrast, while seeds were added."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import altair as alt
import pandas as pd

from leadline.charts.axes import whole_numbers
from leadline.charts.chart import DECISIONS, Figure, Key, Panel, at_field, each, grid_columns, inline, listed, spread
from leadline.charts.frames import contrast_labels, contrast_pair
from leadline.verdict import ContrastFinding, Findings
from leadline.verdict.lookwords import level
from leadline.verdict.metrics import KINDS

SHOWN_PANELS, SHOWN_SEEDS = 12, 120
REACH = 2.0  # widths of the last interval that a panel shows to each side of it


def narrowing(findings: Findings) -> Figure:
    """Return the interval of every contrast that holds at every look, by the number of seeds: a panel for each.

    The intervals are `ContrastFinding.looks.course`, so the last one is the verdict's own.
    """
    frame = course_frame(findings.contrasts)
    bounded = frame[frame["low"].notna()]
    pair = contrast_pair(findings.contrasts) if findings.contrasts else None
    title = "Intervals as seeds were added" + (f", {pair[0]} − {pair[1]}" if pair else "")
    if bounded.empty:
        text = "No contrast has an interval yet: that takes two seeds at which both arms finished."
        return Figure("looks", title, text, frame)
    taken = bounded.groupby("label", sort=False)["seeds"].max()
    most = set(taken.nlargest(SHOWN_PANELS).index)  # the first of the study where as many took the same
    shown = [label for label in taken.index if label in most]
    x = whole_numbers("Seeds", pd.Series([1, taken[shown].max()]))
    views = [_view(bounded[bounded["label"].eq(label)], x) for label in shown]
    decisions = {one.decision for label in shown for one in each(_marked(bounded[bounded["label"].eq(label)]))}
    caption = [
        f"Lines: both ends of the {level(findings.contrasts[0])} interval that holds at every look, after each seed at"
        " which both arms had ended, and between them the mean difference so far;",
        "below zero is in favour of the first arm. Bars with a mark: the looks that were taken; the first that is not"
        " a ring decided. Shaded: the margin within which two arms count as equivalent.",
        *_words_of_what_is_not_drawn(frame, shown, any(cut for _, cut in views)),
    ]
    return Figure(
        "looks",
        title,
        " ".join(caption),
        frame,
        f"{title}. {listed([_said(frame[frame['label'].eq(label)]) for label in taken.index])}.",
        tuple(Panel(label, chart) for label, (chart, _) in zip(shown, views, strict=True)),
        grid_columns(len(shown)),
        tuple(Key(decision, marker) for decision, marker in DECISIONS.items() if decision in decisions),
    )


def course_frame(contrasts: Sequence[ContrastFinding]) -> pd.DataFrame:
    """Return one row per contrast and number of seeds, in the study's order: what these seeds show.

    Columns: label, a, b, metric, seeds, pairs, difference, low, high (NaN without an interval), decision, looked,
    margin, unit (of the difference, its interval and the margin).
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
            "low": one.low if math.isfinite(one.high - one.low) else math.nan,
            "high": one.high if math.isfinite(one.high - one.low) else math.nan,
            "decision": one.decision,
            "looked": one.looked,
            "margin": contrast.margin,
            "unit": KINDS[contrast.metric].of_difference,
        }
        for contrast, label in zip(contrasts, contrast_labels(contrasts), strict=True)
        if contrast.looks is not None
        for one in contrast.looks.course
    ]
    columns = ["label", "a", "b", "metric", "seeds", "pairs", "difference", "low", "high", "decision", "looked"]
    return pd.DataFrame(rows, columns=[*columns, "margin", "unit"])


def _words_of_what_is_not_drawn(frame: pd.DataFrame, shown: Sequence[str], cut: bool) -> Iterator[str]:
    yield "One seed has no interval." + (" An interval that reaches beyond its panel is cut off there." if cut else "")
    without = [label for label, own in frame.groupby("label", sort=False) if own["low"].isna().all()]
    if without:
        yield f"Without an interval so far, and not drawn: {listed(without)}."
    every = frame["label"].nunique() - len(without)
    if len(shown) < every:
        yield (
            f"The {len(shown)} of {every} contrasts that took the most seeds are drawn; the file of this figure's data"
            " has them all."
        )


def _marked(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the looks that were taken, and what the verdict rests on: all seeds that there are."""
    return rows[rows["looked"] | rows["seeds"].eq(rows["seeds"].max())]


def _view(rows: pd.DataFrame, x: alt.X) -> tuple[alt.LayerChart, bool]:
    """Return the panel of one contrast, and whether an interval reaches beyond it."""
    marked = _marked(rows)
    last, margin = rows.iloc[-1], float(rows["margin"].iloc[0])
    reach = REACH * (last["high"] - last["low"])
    ends = rows["low"].min(), rows["high"].max()
    always = [-1.5 * margin, 1.5 * margin, *rows["difference"]]
    low, high = min(*always, max(ends[0], last["low"] - reach)), max(*always, min(ends[1], last["high"] + reach))
    room = 0.04 * (high - low)
    domain = [low - room, high + room]
    title = "Difference " + ("(percentage points)" if last["unit"] == "points" else f"({last['unit']})")
    scale = alt.Scale(domain=domain, nice=False, zero=False)
    y = alt.Y("y:Q", title=title, axis=alt.Axis(tickCount=6), scale=scale)
    return _chart(_thinned(rows, marked), marked, x, y, margin), ends[0] < domain[0] or domain[1] < ends[1]


def _thinned(rows: pd.DataFrame, marked: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["seeds"].isin({*spread(list(rows["seeds"]), SHOWN_SEEDS), *marked["seeds"]})]


def _chart(rows: pd.DataFrame, marked: pd.DataFrame, x: alt.X, y: alt.Y, margin: float) -> alt.LayerChart:
    lane = alt.Chart(
        inline(pd.DataFrame({"top": [margin], "bottom": [-margin], "zero": [0.0]}), ["top", "bottom", "zero"])
    )
    x = at_field(x, "seeds")
    rows, marked = (frame.assign(words=[_interval(row) for row in each(frame)]) for frame in (rows, marked))
    columns = ["seeds", "pairs", "difference", "low", "high", "words", "decision"]
    data, looks = inline(rows, columns), inline(marked, columns)
    tips = [alt.Tooltip("seeds:Q"), alt.Tooltip("pairs:Q"), alt.Tooltip("difference:Q", format="+.2f")]
    tips += [alt.Tooltip("words:N", title="interval"), alt.Tooltip("decision:N")]
    decided = [decision for decision in DECISIONS if decision in set(marked["decision"])]
    shapes = alt.Scale(domain=decided, range=[DECISIONS[decision] for decision in decided])
    line, dot = alt.Chart(data), alt.Chart(looks)
    layers: list[alt.Chart] = [
        lane.mark_rect(style="margin").encode(y=at_field(y, "top"), y2="bottom:Q"),
        lane.mark_rule(style="zero").encode(y=at_field(y, "zero")),
        line.mark_area(style="interval", opacity=0.08, clip=True).encode(x=x, y=at_field(y, "low"), y2="high:Q"),
        *(
            line.mark_line(style="interval", strokeWidth=1, clip=True).encode(x=x, y=at_field(y, end))
            for end in ("low", "high")
        ),
        line.mark_line(style="seed", strokeDash=[3, 2]).encode(x=x, y=at_field(y, "difference")),
        dot.mark_rule(style="interval", clip=True).encode(x=x, y=at_field(y, "low"), y2="high:Q"),
        line.mark_point(style="seed", size=14, opacity=0).encode(x=x, y=at_field(y, "difference"), tooltip=tips),
        dot.mark_point(style="estimate", filled=True, size=90).encode(
            x=x, y=at_field(y, "difference"), shape=alt.Shape("decision:N", scale=shapes), tooltip=tips
        ),
    ]
    return alt.LayerChart(layer=layers, height=210)


def _said(rows: pd.DataFrame) -> str:
    """Return the intervals at the first look and at the last in words."""
    seen = rows[rows["looked"]]
    first, last = (seen if len(seen) else rows).iloc[0], rows.iloc[-1]
    ends = [first] if first["seeds"] == last["seeds"] else [first, last]
    looks = [
        f"{_interval(one)} at {one['seeds']} seed{'' if one['seeds'] == 1 else 's'}, {one['decision']}" for one in ends
    ]
    return f"{rows['label'].iloc[0]}: {', then '.join(looks)}"


def _interval(row: Any) -> str:
    if math.isnan(row.low):
        return "no interval"
    return f"{row.low:+.2f} to {row.high:+.2f}".replace("-", "−")
