"""Many comparisons at once: p-values adjusted for their number."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from leadline.analysis.stats.samples import Floats, StatisticsError


def holm(p_values: Sequence[float | None]) -> Floats:
    """Return the p-values adjusted for their number, which keeps the family-wise error rate (Holm 1979).

    Args:
        p_values: None or NaN where a comparison has none; these stay NaN and do not count.

    Raises:
        StatisticsError: a p-value outside 0 to 1.
    """
    p, order = _in_order(p_values)
    steps = p[order] * (len(order) - np.arange(len(order)))
    p[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return p


def benjamini_hochberg(p_values: Sequence[float | None]) -> Floats:
    """Return the p-values adjusted so that those below q are a list with a false discovery rate of at most q.

    Benjamini & Hochberg (1995): it holds for independent tests, and for positively dependent ones (Benjamini &
    Yekutieli 2001). Never above Holm's.

    Args:
        p_values: see `holm`.

    Raises:
        StatisticsError: a p-value outside 0 to 1.
    """
    p, order = _in_order(p_values)
    steps = p[order] * len(order) / np.arange(1, len(order) + 1)
    p[order] = np.minimum.accumulate(steps[::-1])[::-1]
    return p


def _in_order(p_values: Sequence[float | None]) -> tuple[Floats, NDArray[np.intp]]:
    """Return p-values, NaN where there is none, and the places of the others, smallest first."""
    p = np.array([math.nan if value is None else value for value in p_values], dtype=np.float64)
    given = np.flatnonzero(~np.isnan(p))
    for index in given:
        if not 0 <= p[index] <= 1:
            raise StatisticsError(f"p-value {p[index]} at position {index} is not between 0 and 1")
    return p, given[np.argsort(p[given], kind="stable")]
