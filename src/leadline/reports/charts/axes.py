"""Axes for integers, numbers and magnitudes, with round ticks."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt
import pandas as pd

DECADES = 12
"""Maximum number of decades of a logarithmic scale; smaller values are drawn at its lower edge."""


@dataclass(frozen=True)
class Values:
    """A vertical axis, and where values lie on it if not at their own size."""

    axis: alt.Y
    place: str = ""  # as an expression of Vega in which {} is the value


def whole_step(span: float, most: int) -> int:
    """Return the smallest of 1, 2, 5, 10, 20, ... that divides a span into at most `most` parts."""
    steps = (size * int(10**power) for power in itertools.count() for size in (1, 2, 5))
    return next(step for step in steps if span / step <= most)


def log_ticks(low: float, high: float, sizes: Sequence[int]) -> list[float]:
    """Return at most a dozen round numbers in a range: powers of ten, times these sizes if there are few."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = math.ceil(len(powers) / 7)
    steps = sizes if len(powers) <= 4 else (1,)
    ticks = [float(f"{step}e{power}") for power in powers if power % every == 0 for step in steps]
    inside = [tick for tick in ticks if low <= tick <= high]
    for digits in (1, 2):  # beyond the first, where the two are near
        if len(inside) > 1:
            break
        fine = range(10**digits, 10 ** (digits + 1))
        inside = [tick for power in powers for n in fine if low <= (tick := float(f"{n}e{power - digits}")) <= high]
    return inside[:: math.ceil(len(inside) / 12) or 1]


def whole_numbers(title: str, values: pd.Series) -> alt.X:
    """Return an axis for integers such as blocks, layers or lengths."""
    low, high = int(values.min()), int(values.max())
    step = whole_step(high - low, 9)
    scale = alt.Scale(domain=[low, high], nice=False, zero=False, padding=6)
    ticks = [tick for tick in range(low, high + 1) if tick % step == 0]
    return alt.X("x:Q", title=title, axis=alt.Axis(values=ticks, format="d", labelFlush=False), scale=scale)


def numbers(title: str, values: pd.Series) -> alt.X:
    """Return an axis for arbitrary numbers."""
    scale = alt.Scale(domain=[float(values.min()), float(values.max())], nice=False, zero=False, padding=6)
    return alt.X("x:Q", title=title, axis=alt.Axis(tickCount=5, format="~r"), scale=scale)


def linear(title: str, values: Sequence[float]) -> alt.Y:
    """Return a linear axis for the values, with a small margin."""
    low, high = min(values), max(values)
    room = 0.04 * (high - low) or 0.04 * abs(high) or 1.0
    scale = alt.Scale(domain=[low - (room if low else 0), high + room], nice=False, zero=False)
    return alt.Y("y:Q", title=title, axis=alt.Axis(tickCount=5, format="~r"), scale=scale)


def logarithmic(title: str, values: Sequence[float]) -> tuple[alt.Y, float]:
    """Return a logarithmic axis for the positive values, and its lower edge, at most `DECADES` below the maximum."""
    # smaller numbers are subnormal, and larger ones overflow
    positive = [value for value in values if value > 1e-300] or [1.0]
    high = min(1.3 * max(positive), 1.7e308)
    edge = max(min(positive) / 1.3, high / 10.0**DECADES)
    said = "format(datum.value, datum.value < 1e-4 || datum.value >= 1e5 ? '~e' : '~r')"
    axis = alt.Axis(values=log_ticks(edge, high, (1, 2, 5)), labelExpr=said)
    scale = alt.Scale(type="log", domain=[edge, high], nice=False)
    return alt.Y("y:Q", title=f"{title}, log scale", axis=axis, scale=scale), edge


def magnitudes(title: str, values: Sequence[float]) -> alt.Y:
    """Return an axis for non-negative values, logarithmic if they are positive and span more than a factor of 20."""
    if values and min(values) > 0 and max(values) > 20 * min(values):
        return logarithmic(title, values)[0]
    return linear(title, [0.0, *values])


MUCH = 0.9
"""Accuracy from which on an axis shows errors on a log scale, so that 98% and 99% are as far apart as 80% and 90%."""


def accuracies(title: str, values: Sequence[float]) -> Values:
    """Return an axis for accuracies as fractions: logarithmic in 1 - accuracy if the best is `MUCH` or more.

    An accuracy of 1 lies at the upper edge, a third above the best accuracy below it.
    """
    low, high = min(values), max(values)
    if high < MUCH:
        ends = [math.floor(20 * low) / 20, math.ceil(20 * high + 1e-9) / 20]
        scale = alt.Scale(domain=ends, nice=False, zero=False)
        return Values(alt.Y("y:Q", title=title, axis=alt.Axis(format=".3~p", tickCount=5), scale=scale))
    missed = [1 - value for value in values if 1 - value > 1e-9]
    least = min(missed, default=0.01) / 1.3
    most = min(1.0, max([*missed, 4 * least]) * 1.1)
    axis = alt.Axis(values=log_ticks(least, most, (1, 2, 5)), labelExpr="format(1 - datum.value, '.6~p')")
    scale = alt.Scale(type="log", domain=[least, most], reverse=True, nice=False)
    return Values(
        alt.Y("y:Q", title=f"{title}, log scale of the error", axis=axis, scale=scale),
        f"max(1 - {{}}, {least!r})",
    )
