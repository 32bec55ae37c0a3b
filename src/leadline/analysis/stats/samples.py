"""Samples of numbers: what a statistic can be taken of."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leadline.errors import LeadlineError

Floats = NDArray[np.float64]

RESAMPLES = 9_999
CHUNK = 1 << 22
"""Numbers held at once while resampling."""


class StatisticsError(LeadlineError, ValueError):
    """Numbers of which no statistic can be taken: none at all, not finite, or not in pairs."""


def rounding_spread(resolution: float) -> float:
    """Return the standard deviation that rounding gives a difference of two values, below which no spread is taken.

    Args:
        resolution: the step in which the values move, in their unit.
    """
    return resolution / math.sqrt(6)


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
