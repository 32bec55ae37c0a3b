"""What arms misclassify: confusion matrices, errors by class and their differences, calibration."""

from collections.abc import Iterator, Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from leadline.analysis.mistakes import SHOWN_CLASSES, ArmMistakes, Mistakes, by_data, class_frame, worst_classes
from leadline.analysis.stats import LEVEL
from leadline.reports.charts.axes import linear
from leadline.reports.charts.chart import (
    MARKERS,
    RING,
    Figure,
    Key,
    Panel,
    arm_channels,
    at_field,
    divide_arms,
    grid_columns,
    inline,
    legend_keys,
    most_panels,
    spread,
)
from leadline.reports.charts.frames import level_of
from leadline.reports.charts.notable import choose_arms, describe_choice
from leadline.reports.charts.probe_curves import describe_omitted
from leadline.text import join, number, plural

SHOWN_PANELS, SHOWN_ARMS, LEAST_IMAGES = 6, 12, 5
"""Contrasts of a figure; its panels of arms; images of a bin of confidence from which on it is drawn."""
LEAST_SHARE = 0.5
"""Per cent of a class from which on a cell of a confusion matrix has its number."""


def mistake_figures(mistakes: Mistakes, notable: Sequence[str] = ()) -> Iterator[Figure]:
    """Yield confusion matrices, errors by class, differences by class and calibration, where there is any.

    Of many arms, the notable ones are drawn before others.
    """
    yield _confusion(mistakes.arms, notable)
    yield _classes(mistakes.arms, notable)
    if len(mistakes.differences):
        yield _differences(mistakes)
    calibrated = [one for one in mistakes.arms if one.calibration is not None]
    if calibrated:
        yield _calibration(calibrated, notable)


def _shown_classes(arms: Sequence[ArmMistakes]) -> dict[str, list[int]]:
    """Return arm -> numbers of the classes that are drawn, the same for all arms of a data set."""
    return {one.arm.name: classes for own in by_data(arms).values() for classes in [worst_classes(own)] for one in own}


def _about_classes(arms: Sequence[ArmMistakes]) -> Iterator[str]:
    most = max(len(one.names) for one in arms)
    if most > SHOWN_CLASSES:
        yield (
            f"{SHOWN_CLASSES} of {most} classes are drawn, those that are misclassified most often; this figure's data"
            " file has all of them."
        )


# --- confusion


def _confusion(arms: Sequence[ArmMistakes], notable: Sequence[str]) -> Figure:
    frame = confusion_frame(arms)
    chosen = choose_arms(list(dict.fromkeys(one.arm.base for one in arms)), notable)
    candidates = [one for one in arms if one.arm.base in chosen]
    drawn, classes = spread(candidates, most_panels(len(candidates))), _shown_classes(arms)
    ends = [_most_confused(one) for one in drawn]
    cells = max(36, SHOWN_CELLS // len(drawn))
    some = any(_kinds_of_mistakes(one) > cells for one in drawn)
    numbers = max(map(len, classes.values())) <= SMALL and len(drawn) <= SMALL
    written = f"numbers: per cent of the images of the true class, those below {LEAST_SHARE}% not written"
    title = "Confusion matrices"
    return Figure(
        "mistakes-confusion",
        title,
        " ".join(
            [
                "Rows: the true class; columns: the predicted class; the stronger the colour, the more images of the"
                f" true class, over all seeds{'; ' + written if numbers else ''}. On the diagonal, in grey: those"
                " classified correctly.",
                *([f"Of each arm the {cells} most frequent kinds of mistakes are drawn."] if some else []),
                *_about_classes(arms),
                *describe_omitted(arms, drawn, "arms"),
            ]
        ),
        frame,
        f"{title}. Most often confused: {join([end for end in ends if end], mark=';') or 'nothing'}.",
        tuple(
            Panel(
                one.arm.name, _matrix(frame[frame["arm"].eq(one.arm.name)], one, classes[one.arm.name], cells, numbers)
            )
            for one in drawn
        ),
        min(3, grid_columns(len(drawn))) if len(drawn) > 2 else len(drawn),
    )


def confusion_frame(arms: Sequence[ArmMistakes]) -> pd.DataFrame:
    """Return one row per arm, true class and predicted class, of those that occur.

    Columns: arm, true, predicted (names), row, column (numbers), images (over all seeds), share (per cent of the
    images of the true class).
    """
    parts = []
    for one in arms:
        total = one.matrices.sum(0)
        rows, columns = np.nonzero(total)
        names = np.array(one.names, dtype=object)
        parts.append(
            pd.DataFrame(
                {
                    "arm": one.arm.name,
                    "true": names[rows],
                    "predicted": names[columns],
                    "row": rows,
                    "column": columns,
                    "images": total[rows, columns],
                    "share": 100 * total[rows, columns] / total.sum(1)[rows],
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def _matrix(
    cells: pd.DataFrame, one: ArmMistakes, classes: Sequence[int], most_mistakes: int, numbers: bool
) -> alt.LayerChart:
    names = [one.names[place] for place in classes]
    cells = cells[cells["row"].isin(classes) & cells["column"].isin(classes)]
    right = cells["row"].eq(cells["column"])
    rank = cells["share"].where(~right).rank(method="first", ascending=False)
    cells = cells[right | rank.le(most_mistakes)]
    right = cells["row"].eq(cells["column"])
    written = cells["share"].ge(LEAST_SHARE)
    band = alt.Scale(domain=names, paddingInner=0.06, paddingOuter=0.03)
    angle = 0 if max(map(len, names)) <= 2 else -90
    label: dict[str, Any] = {"labelLimit": 90, "labelOverlap": False, "domain": False, "ticks": False}
    x = alt.X("predicted:N", title="Predicted class", scale=band, axis=alt.Axis(labelAngle=angle, **label))
    y = alt.Y("true:N", title="True class", scale=band, axis=alt.Axis(grid=False, **label))
    tips = [*(alt.Tooltip(f"{name}:N") for name in ("true", "predicted")), alt.Tooltip("images:Q")]
    tips.append(alt.Tooltip("share:Q", title="share (%)", format=".3~g"))
    most = max(5.0, float(cells.loc[~right, "share"].max()) if (~right).any() else 0.0)
    columns = ["true", "predicted", "images", "share"]
    layers: list[alt.Chart] = []
    for own, style, top, strong in ((cells[right], "correct", 100.0, 0.4), (cells[~right], "mistake", most, 0.65)):
        if own.empty:
            continue
        shade = alt.Opacity("share:Q", scale=alt.Scale(domain=[0, top], range=[0.08, strong]), legend=None)
        chart = alt.Chart(inline(own, columns)).mark_rect(style=style, aria=False)
        layers.append(chart.encode(x=x, y=y, opacity=shade, tooltip=tips))
    if numbers:
        size = 11 if len(names) <= 10 else 9
        chart = alt.Chart(inline(cells[written], ["true", "predicted", "share"]))
        text = chart.mark_text(style="words", size=size, aria=False)
        layers.append(text.encode(x=x, y=y, text=alt.Text("share:Q", format=".0f")))
    resolve = alt.Resolve(scale=alt.ScaleResolveMap(opacity="independent"))
    return alt.LayerChart(layer=layers, height=60 + 22 * len(names), resolve=resolve)


SHOWN_CELLS = 760
"""Kinds of mistakes of all arms that are drawn at most, but 36 of each arm in any case."""
SMALL = 12
"""Classes, and arms, up to which cells of confusion matrices have numbers."""


def _kinds_of_mistakes(one: ArmMistakes) -> int:
    total = one.matrices.sum(0)
    return int(np.count_nonzero(total) - np.count_nonzero(np.diag(total)))


def _most_confused(one: ArmMistakes) -> str:
    total = one.matrices.sum(0)
    wrong = total - np.diag(np.diag(total))
    row, column = np.unravel_index(int(wrong.argmax()), wrong.shape)
    if not wrong[row, column]:
        return ""
    share = number(100 * float(wrong[row, column] / total[row].sum()), 1)
    return f"{one.arm.name}, {one.names[row]} as {one.names[column]} ({share}%)"


# --- classes


def _classes(arms: Sequence[ArmMistakes], notable: Sequence[str]) -> Figure:
    frame = class_frame(arms)
    bases = list(dict.fromkeys(one.arm.base for one in arms))
    shown = choose_arms(bases, notable)
    groups, classes = divide_arms(shown), _shown_classes(arms)
    levels: dict[str, list[ArmMistakes]] = {}
    for one in arms:
        levels.setdefault(level_of(one.arm.factors), []).append(one)
    panels = []
    shown_levels = spread(list(levels), max(2, SHOWN_ARMS // len(groups)))
    for level in shown_levels:
        own = levels[level]
        for group in groups:
            here = [one for one in own if one.arm.base in group]
            if here:
                among = f"{group[0]} to {group[-1]}" if len(groups) > 1 else ""
                rows = frame[frame["arm"].isin([one.arm.name for one in here])]
                rows = rows[rows["place"].isin(classes[here[0].arm.name])]
                panels.append(Panel(", ".join(filter(None, (level, among))), _errors_of_classes(rows, here, shown)))
    ends = [
        f"{one.arm.name}, {one.names[place]}: {number(float(np.nan_to_num(one.errors.mean(0))[place]), 1)}%"
        for one in arms
        for place in [int(np.nan_to_num(one.errors.mean(0)).argmax())]
    ]
    title = "Error of each class"
    return Figure(
        "mistakes-classes",
        title,
        " ".join(
            [
                "Marks: per cent of a class that is misclassified, the mean over seeds; bars: the 95% interval (t) for"
                " training again, on the same test images. One seed has no interval.",
                *_about_classes(arms),
                *describe_choice(bases, shown, notable),
                *describe_omitted(list(levels), shown_levels, "levels"),
            ]
        ),
        frame,
        f"{title}. Highest: {join(ends, mark=';')}.",
        tuple(panels),
        grid_columns(len(panels)) if len(panels) > 1 else 1,
        tuple(legend_keys(shown, dashed=False)),
    )


def _errors_of_classes(rows: pd.DataFrame, own: Sequence[ArmMistakes], bases: Sequence[str]) -> alt.LayerChart:
    colour, _, shape = arm_channels(bases)
    names = list(rows.sort_values("place")["class"].unique())
    here = [base for base in bases if base in {one.arm.base for one in own}]
    ends = [*rows["error"], *rows["low"].dropna(), *rows["high"].dropna()]
    x = _along(linear("Error (%)", [0.0, *ends]))
    y = alt.Y("class:N", title="Class", sort=names, axis=alt.Axis(labelLimit=140, grid=True))
    known = rows.dropna(subset=["low", "high"])
    inner = alt.Undefined if known.empty else 0.2  # which a scale of points alone does not have
    beside = alt.YOffset("base:N", sort=here, scale=alt.Scale(domain=here, paddingInner=inner, paddingOuter=0.4))
    tips = [*(alt.Tooltip(f"{name}:N") for name in ("arm", "class")), alt.Tooltip("images:Q"), alt.Tooltip("seeds:Q")]
    tips += [alt.Tooltip(f"{name}:Q", format=".3~g") for name in ("error", "low", "high")]
    layers: list[alt.Chart] = []
    if not known.empty:
        bar = alt.Chart(inline(known, ["base", "class", "low", "high"])).mark_rule(strokeWidth=1.5, aria=False)
        layers.append(bar.encode(x=_of(x, "low"), x2="high:Q", y=y, yOffset=beside, color=colour))
    data = inline(rows, ["arm", "base", "class", "images", "seeds", "error", "low", "high"])
    point = alt.Chart(data).mark_point(filled=True, size=40, opacity=1)
    layers.append(point.encode(x=_of(x, "error"), y=y, yOffset=beside, color=colour, shape=shape, tooltip=tips))
    return alt.LayerChart(layer=layers, height=40 + len(names) * max(16, 9 * len(here) + 5))


def _along(y: alt.Y) -> alt.X:
    """Return a vertical axis as a horizontal one."""
    return alt.X("x:Q", title=y["title"], axis=y["axis"], scale=y["scale"])


def _of(x: alt.X, field: str) -> alt.X:
    changed: alt.X = at_field(x, field)
    return changed


def _differences(mistakes: Mistakes) -> Figure:
    frame = mistakes.differences
    pairs = list(dict.fromkeys(zip(frame["a"], frame["b"], strict=True)))
    shown = pairs[:SHOWN_PANELS]
    classes = _shown_classes(mistakes.arms)
    drawn = frame[[pair in shown for pair in zip(frame["a"], frame["b"], strict=True)]]
    drawn = drawn[[place in classes[arm] for arm, place in zip(drawn["a"], drawn["place"], strict=True)]]
    ends = [*drawn["difference"], *drawn["low"].dropna(), *drawn["high"].dropna()]
    x = _along(linear("Difference (percentage points)", [0.0, *ends]))
    panels = [Panel(f"{a} − {b}", _differences_of(drawn[drawn["a"].eq(a) & drawn["b"].eq(b)], x)) for a, b in shown]
    certain = int(frame["p_adjusted"].le(LEVEL).sum())
    title = "Differences in the error of each class"
    keys = (Key("shown after Holm’s correction", MARKERS[0]), Key("not shown", RING))
    return Figure(
        "mistakes-differences",
        title,
        " ".join(
            [
                "First arm minus second, at the same seeds: below zero the first misclassifies a class less often."
                " Bars: the 95% interval (paired t) by itself; filled marks: shown to differ from zero beside all"
                " classes and contrasts (Holm).",
                *_about_classes(mistakes.arms),
                *describe_omitted(pairs, shown, "contrasts"),
            ]
        ),
        frame,
        f"{title}. {plural(certain, 'difference is', 'differences are')} shown of {len(frame)}.",
        tuple(panels),
        grid_columns(len(panels)),
        keys,
    )


def _differences_of(rows: pd.DataFrame, x: alt.X) -> alt.LayerChart:
    names = list(rows.sort_values("place")["class"].unique())
    y = alt.Y("class:N", title="Class", sort=names, axis=alt.Axis(labelLimit=140, grid=True))
    zero = alt.Chart(inline(pd.DataFrame({"zero": [0.0]}), ["zero"])).mark_rule(style="zero").encode(x=_of(x, "zero"))
    layers: list[alt.Chart] = [zero]
    known = rows.dropna(subset=["low", "high"])
    if not known.empty:
        bar = alt.Chart(inline(known, ["class", "low", "high"])).mark_rule(
            style="interval", strokeWidth=1.5, aria=False
        )
        layers.append(bar.encode(x=_of(x, "low"), x2="high:Q", y=y))
    tips = [alt.Tooltip("class:N"), alt.Tooltip("seeds:Q", title="pairs")]
    tips += [alt.Tooltip(f"{name}:Q", format="+.3~g") for name in ("difference", "low", "high")]
    tips.append(alt.Tooltip("p_adjusted:Q", title="p, Holm-adjusted", format=".2~g"))
    certain = rows["p_adjusted"].le(LEVEL)
    for own, marker in ((rows[certain], MARKERS[0]), (rows[~certain], RING)):
        if not own.empty:
            data = inline(own, ["class", "seeds", "difference", "low", "high", "p_adjusted"])
            point = alt.Chart(data).mark_point(style="estimate", filled=True, size=60, shape=marker)
            layers.append(point.encode(x=_of(x, "difference"), y=y, tooltip=tips))
    return alt.LayerChart(layer=layers, height=40 + 18 * len(names))


# --- calibration


def calibration_frame(arms: Sequence[ArmMistakes]) -> pd.DataFrame:
    """Return one row per arm and bin that holds images: arm, base, level, images, confidence, accuracy (per cent)."""
    rows = [
        {"arm": one.arm.name, "base": one.arm.base, "level": level_of(one.arm.factors)}
        | {"images": int(count), "confidence": 100 * float(confidence), "accuracy": 100 * float(accuracy)}
        for one in arms
        if (found := one.calibration) is not None
        for count, confidence, accuracy in zip(found.counts, found.confidence, found.accuracy, strict=True)
    ]
    return pd.DataFrame(rows)


def _calibration(arms: Sequence[ArmMistakes], notable: Sequence[str]) -> Figure:
    frame = calibration_frame(arms)
    bases = list(dict.fromkeys(frame["base"]))
    shown = choose_arms(bases, notable)
    groups, levels = divide_arms(shown), list(dict.fromkeys(frame["level"]))
    shown_levels = spread(levels, max(2, SHOWN_ARMS // len(groups)))
    panels = []
    for level in shown_levels:
        for group in groups:
            rows = frame[frame["level"].eq(level) & frame["base"].isin(group)]
            rows = rows[rows["images"].ge(LEAST_IMAGES)]
            if not rows.empty:
                among = f"{group[0]} to {group[-1]}" if len(groups) > 1 else ""
                panels.append(Panel(", ".join(filter(None, (level, among))), _reliability(rows, shown)))
    ends = [f"{one.arm.name} {number(one.calibration.error, 1)}" for one in arms if one.calibration is not None]
    name, title = "mistakes-calibration", "Calibration: accuracy by confidence"
    if not panels:
        return Figure(name, title, f"Every bin has fewer than {LEAST_IMAGES} images, so none is drawn.", frame)
    return Figure(
        name,
        title,
        " ".join(
            [
                "Test images of all seeds in 15 bins of equal width by the probability of their predicted class; marks:"
                " mean probability and accuracy of a bin, the larger, the more images. On the diagonal a network is"
                f" calibrated, below it too confident. Bins of fewer than {LEAST_IMAGES} images are not drawn.",
                *describe_choice(bases, shown, notable),
                *describe_omitted(levels, shown_levels, "levels"),
            ]
        ),
        frame,
        f"{title}. Expected calibration error in points: {join(ends, mark=';')}.",
        tuple(panels),
        grid_columns(len(panels)) if len(panels) > 1 else 1,
        tuple(legend_keys(shown)),
    )


def _reliability(rows: pd.DataFrame, bases: Sequence[str]) -> alt.LayerChart:
    colour, dash, shape = arm_channels(bases)
    scale = alt.Scale(domain=[0, 100], nice=False)
    axis = alt.Axis(values=[0, 20, 40, 60, 80, 100])
    x = alt.X("confidence:Q", title="Confidence (%)", scale=scale, axis=axis)
    y = alt.Y("accuracy:Q", title="Accuracy (%)", scale=scale, axis=axis)
    corner = alt.Chart(inline(pd.DataFrame({"confidence": [0, 100], "accuracy": [0, 100]}), ["confidence", "accuracy"]))
    data = inline(rows, ["arm", "base", "images", "confidence", "accuracy"])
    tips = [alt.Tooltip("arm:N"), alt.Tooltip("images:Q")]
    tips += [alt.Tooltip(f"{name}:Q", format=".3~g") for name in ("confidence", "accuracy")]
    most = max(2, int(rows["images"].max()))
    size = alt.Size("images:Q", scale=alt.Scale(type="sqrt", domain=[0, most], range=[8, 160]), legend=None)
    line = alt.Chart(data).mark_line(strokeWidth=1.2, opacity=0.7)
    point = alt.Chart(data).mark_point(filled=True, opacity=1)
    return alt.LayerChart(
        layer=[
            corner.mark_line(style="zero", strokeDash=[3, 3], aria=False).encode(x=x, y=y),
            line.encode(x=x, y=y, color=colour, strokeDash=dash),
            point.encode(x=x, y=y, color=colour, shape=shape, size=size, tooltip=tips),
        ],
        height=220,
    )
