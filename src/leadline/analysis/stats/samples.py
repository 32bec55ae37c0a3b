"""Samples of numbers: what a statistic can be taken of."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leadline.errors import LeadlineError

Floats = NDArray[np.float64]

RESAMPLES = 9_999
CHUNK = 1 << 19
"""Numbers held at once while resampling."""


class StatisticsError(LeadlineError, ValueError):
    """Numbers of which no statistic can be taken: none at all, not finite, or not in pairs."""


def least_spread(resolution: float) -> float:
    """Return half a step, below which the standard deviation of differences that move in steps is not taken to be.

    Values in steps often agree by chance, and a spread near 0 makes any difference look certain. At 1% error on 200
    images and 5 seeds, one of ten contrasts without a difference is called one in 6% of studies with step/sqrt(6) (the
    spread that rounding gives a difference) and in 5% with half a step; `benchmarks/verdicts.py` has more.

    Args:
        resolution: the step in which the values move, in their unit.
    """
    return resolution / 2


def sample(what: str, values: ArrayLike) -> Floats:
    """Return values as an array, shape [n].

    Raises:
        StatisticsError: none at all, more than one dimension, or one that is not finite.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or x.size == 0:
        raise StatisticsError(f"{what}: shape {x.shape}; expected one dimension with at least one value")
    if not np.isfinite(x).all():
        index = int(np.flatnonzero(~np.isfinite(x))[0])
        raise StatisticsError(
            f"{what}: {x[index]} at position {index} is not finite; leave such values out and count them"
        )
    return x


def cut(ends: tuple[float, float], largest: float) -> tuple[float, float]:
    """Return an interval for a difference without the part that no difference can reach.

    What is cut off cannot hold the true difference, so that the interval holds it as often as before. An end that is
    infinite, because nothing is known, stays.

    Args:
        ends: low and high.
        largest: the largest difference that is possible, such as 100 points of two errors; infinite: cut nothing.

    Examples:
        >>> cut((-351.3, 40.0), 100.0), cut((-math.inf, math.inf), 100.0)
        ((-100.0, 40.0), (-inf, inf))
    """
    low, high = (min(max(end, -largest), largest) if math.isfinite(end) else end for end in ends)
    return low, high
