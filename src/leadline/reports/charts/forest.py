"""The forest plot of a study's contrasts: every paired difference with its interval, seed by seed."""

import math
from collections.abc import Sequence
from typing import Any

import altair as alt
import pandas as pd

from leadline.analysis.verdict import Findings
from leadline.analysis.verdict.wording.labels import contrast_pair
from leadline.analysis.verdict.wording.sentences import interval_name
from leadline.reports.charts.chart import DECISIONS, Figure, Key, Panel, at_field, each, inline
from leadline.reports.charts.frames import contrast_frame
from leadline.text import interval, join, number

SHOWN_CONTRASTS, SHOWN_SEEDS = 24, 1000
"""Contrasts that are drawn; seeds of all of them that have a ring each."""


def forest(findings: Findings) -> Figure:
    """Return the paired differences as a forest plot: estimate, 95% interval, every seed, zero line and margin."""
    frame = contrast_frame(findings.contrasts)
    apart = any(contrast.apart for contrast in findings.contrasts)
    title, where = ("Differences", "") if apart else ("Paired differences", " at the same seed")
    if not findings.contrasts:
        text = "The study has no contrasts: no arm is compared with another."
        return Figure("differences", title, text, frame)
    if frame.empty:
        text = "No contrast has a seed at which both arms finished, so there are no differences to show."
        return Figure("differences", title, text, frame)
    units = list(frame["unit"].unique())
    rows = frame
    if len(frame) > SHOWN_CONTRASTS:
        size = frame["difference"].abs()
        largest = [size[frame["unit"].eq(unit)].nlargest(SHOWN_CONTRASTS // len(units)) for unit in units]
        rows = frame.loc[sorted(index for chosen in largest for index in chosen.index)]
    rings = sum(map(len, rows["seeds"])) <= SHOWN_SEEDS
    a, b = contrast_pair(findings.contrasts) or ("the first arm", "the second")
    caption = [
        f"Difference between the two arms{where}; below zero the first has the lower value.",
        f"Large marks: the mean over seeds; bars: its {interval_name(findings.contrasts)};"
        f" {'rings below: one seed each' if rings else 'single seeds, too many to draw, are in the trials table'};",
        _margin_words(rows),
    ]
    if any(contrast.kind.needs_target for contrast in findings.contrasts):
        caption.append("A trial that never reached the target of a time counts as the horizon of its contrast.")
    if rows["low"].isna().any():
        caption.append("A contrast with a single pair has no interval.")
    if len(rows) < len(frame):
        caption.append(f"The {len(rows)} largest of {len(frame)} differences are drawn; the table has all of them.")
    panels = [
        ((str(key[0]), bool(key[1])), part) for key, part in rows.groupby(["unit", "higher_is_better"], sort=False)
    ]
    said = [f"{row.label}: {_difference_words(row)} {row.unit}, {row.decision}" for row in each(rows)]
    decided = [decision for decision in DECISIONS if decision in set(rows["decision"])]
    return Figure(
        "differences",
        f"{title}, {a} − {b}" if contrast_pair(findings.contrasts) else title,
        " ".join(caption),
        frame.drop(columns=["differences", "seeds", "higher_is_better", *(["unit"] if units == ["points"] else [])]),
        f"{title}: {join(said, mark=';')}.",
        tuple(
            Panel(
                _panel_title(unit, higher) if len(panels) > 1 else "",
                _forest(part, unit, (b, a) if higher else (a, b), rings),
            )
            for (unit, higher), part in panels
        ),
        1,
        tuple(Key(decision, DECISIONS[decision]) for decision in decided),
    )


_UNITS = {"points": "Percentage points", "epochs": "Epochs", "seconds": "Seconds", "nats": "Nats"}


def _margin_words(rows: pd.DataFrame) -> str:
    margins = rows.loc[rows["margin"].gt(0), ["margin", "unit"]].drop_duplicates()
    if len(margins) != 1:
        return "shaded: the margin within which two arms count as equivalent, where there is one."
    (one,) = each(margins)
    unit = "percentage points" if one.unit == "points" else one.unit
    return f"shaded: the margin of ±{one.margin:g} {unit} within which two arms count as equivalent."


def _forest(rows: pd.DataFrame, unit: str, arms: tuple[str, str], rings: bool) -> alt.LayerChart:
    rows = rows.reset_index(drop=True).assign(row=range(len(rows)))
    seeds = pd.DataFrame(
        [
            {"row": row.row + 0.24, "value": value, "seed": seed, "label": row.label}
            for row in each(rows)
            for seed, value in (zip(row.seeds, row.differences, strict=True) if rings else ())
        ],
        columns=["row", "value", "seed", "label"],
    )
    drawn = [*rows["low"].dropna(), *rows["high"].dropna(), *seeds["value"], *rows["difference"]]
    x = _differences_axis(drawn, float(rows["margin"].max()), unit, arms)
    rows_scale = alt.Scale(domain=[-0.75, len(rows) - 0.4], nice=False, zero=False, reverse=True)
    y = alt.Y("row:Q", axis=None, scale=rows_scale)
    rows = rows.assign(head=rows["row"] - 0.36, words=[_difference_words(row) for row in each(rows)])
    data = inline(rows, ["label", "row", "head", "words", "n", "difference", "low", "high", "decision"])
    base, head = alt.Chart(data), at_field(y, "head")
    decided = [decision for decision in DECISIONS if decision in set(rows["decision"])]
    shapes = alt.Scale(domain=decided, range=[DECISIONS[decision] for decision in decided])
    tips = [alt.Tooltip("label:N", title="contrast"), alt.Tooltip("words:N", title="difference")]
    tips += [alt.Tooltip("n:Q", title="pairs"), alt.Tooltip("decision:N")]
    lanes = rows.assign(
        top=rows["row"] - 0.2, bottom=rows["row"] + 0.42, left=-rows["margin"], right=rows["margin"], zero=0
    )
    lane = alt.Chart(inline(lanes, ["top", "bottom", "left", "right", "zero"])).encode(
        y=at_field(y, "top"), y2="bottom:Q"
    )
    layers: list[alt.Chart] = [
        lane.mark_rect(style="margin").encode(x=at_field(x, "left"), x2="right:Q"),
        lane.mark_rule(style="zero").encode(x=at_field(x, "zero")),
    ]
    if rows["low"].notna().any():
        bars = alt.Chart(inline(rows[rows["low"].notna()], ["row", "low", "high"])).mark_rule(style="interval")
        layers.append(bars.encode(x=at_field(x, "low"), x2="high:Q", y=y))
    if rings:
        layers.append(_rings(seeds, x, y))
    shape = alt.Shape("decision:N", scale=shapes)
    estimates = base.mark_point(style="estimate", filled=True, size=110)
    layers.append(estimates.encode(x=at_field(x, "difference"), y=y, shape=shape, tooltip=tips))
    layers.append(base.mark_text(style="words", align="left").encode(x=alt.value(0), y=head, text="label:N"))
    if max(len(label) for label in rows["label"]) <= 24:
        room = alt.ExprRef("width < 440 ? 0 : 1")
        numbers = base.mark_text(style="numbers", align="right", opacity=room)
        layers.append(numbers.encode(x=alt.value("width"), y=head, text="words:N"))
    return alt.LayerChart(layer=layers, height=54 * len(rows) + 8)


def _rings(seeds: pd.DataFrame, x: alt.X, y: alt.Y) -> alt.Chart:
    dots = alt.Chart(inline(seeds, ["row", "value", "seed", "label"])).mark_point(style="seed", size=26)
    shown = [alt.Tooltip("label:N", title="contrast"), alt.Tooltip("seed:N"), alt.Tooltip("value:Q", format="+.2f")]
    drawn: alt.Chart = dots.encode(x=at_field(x, "value"), y=y, tooltip=shown)
    return drawn


def _panel_title(unit: str, higher_is_better: bool) -> str:
    title = _UNITS.get(unit, unit or "Differences")
    return f"{title}, higher is better" if higher_is_better else title


def _differences_axis(values: Sequence[float], margin: float, unit: str, arms: tuple[str, str]) -> alt.X:
    """Return the axis of the differences; symmetrically logarithmic where they dwarf the margin."""
    low, high = min([*values, -1.5 * margin]), max([*values, 1.5 * margin])
    about = {"points": " (percentage points)", "": ""}.get(unit, f" ({unit})")
    title = [f"← {arms[0]} better · {arms[1]} better →", f"Difference{about}"]
    pad = 0.04 * (high - low) or 1.0
    if margin and max(-low, high) > 30 * margin:
        title.append("on a symmetric log scale")
        steps = [sign * 10.0**power for power in range(-1, 3) for sign in (-1, 1) if 10.0**power >= margin]
        low, high = 1.25 * low, 1.25 * high
        ticks = [tick for tick in (0.0, *steps) if low <= tick <= high]
        scale = alt.Scale(type="symlog", constant=margin, domain=[low, high], nice=False)
        return alt.X("x:Q", title=title, axis=alt.Axis(values=sorted(ticks), format=".6~r"), scale=scale)
    scale = alt.Scale(domain=[low - pad, high + pad], nice=False, zero=False)
    return alt.X("x:Q", title=title, axis=alt.Axis(tickCount=6), scale=scale)


def _difference_words(row: Any) -> str:
    ends = interval((row.low, row.high), signed=True) if not math.isnan(row.low) else ""
    return number(row.difference, signed=True) + (f" ({ends})" if ends else "")
