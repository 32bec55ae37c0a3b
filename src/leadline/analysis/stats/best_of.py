"""What a search with a smaller budget would have found, from all that a search tried. Arrays in, arrays out.

The best of k settings, averaged over every subset of k of the n that were drawn, is the unbiased estimate of what a
random search of k settings finds (Dodge et al. 2019, "Show Your Work", whose plug-in estimate draws with replacement
and is biased; Tang et al. 2020, "Showing Your Work Doesn't Always Work", without). At k = n it is what was found.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leadline.analysis.stats import StatisticsError

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class BestOf:
    """The least of k values, over all subsets of size k that are equally likely."""

    mean: float
    low: float  # its 10th percentile
    high: float  # its 90th


@dataclass(frozen=True)
class Ahead:
    """In what share of all subsets of k settings, the same for both arms, each arm's best is the lower one."""

    a: float
    b: float


def best_of(values: ArrayLike, k: int) -> BestOf:
    """Return the least of k out of n values, averaged over all subsets of size k, and its percentiles, exactly.

    Args:
        values: shape [n], in any order, finite.
        k: 1 to n.

    Raises:
        StatisticsError: no values, a value that is not finite, or k outside 1 to n.
    """
    x = np.sort(_checked(values, k))
    if not np.isfinite(x).all():
        raise StatisticsError("a value is not finite; give diverged trials the worst value that there is")
    shares = _least_is(len(x), k)
    reached = np.cumsum(shares)
    low, high = (x[min(int(np.searchsorted(reached, share - 1e-12)), len(x) - 1)] for share in (0.1, 0.9))
    return BestOf(float(shares @ x), float(low), float(high))


def running_best(values: ArrayLike) -> Floats:
    """Return the least of the first k values, for k from 1 to n: of a search whose order matters.

    Args:
        values: shape [n], in the order of the search.
    """
    return np.minimum.accumulate(np.asarray(values, dtype=np.float64))


def ahead(a: ArrayLike, b: ArrayLike, k: int) -> Ahead:
    """Return how often the best of k settings is lower in a than in b, and in b than in a, exactly.

    Both arms tried the same settings, so a subset of settings is one of both. The rest of the subsets are ties.

    Args:
        a: shape [n]; infinite where a setting diverged.
        b: shape [n], of the same settings in the same order.
        k: 1 to n.

    Raises:
        StatisticsError: no values, a value that is not a number, other numbers of them, or k outside 1 to n.
    """
    x, y = _checked(a, k), _checked(b, k)
    if len(x) != len(y):
        raise StatisticsError(f"{len(x)} values of a and {len(y)} of b; the arms must have tried the same settings")
    return Ahead(_first_lower(x, y, k), _first_lower(y, x, k))


def _first_lower(x: Floats, y: Floats, k: int) -> float:
    """Share of subsets in which min x < min y: by the setting that is x's least, all others lie above it in y."""
    order = np.argsort(x, kind="stable")
    share = 0.0
    for place, setting in enumerate(order):
        if y[setting] > x[setting]:
            others = int((y[order[place + 1 :]] > x[setting]).sum())
            share += _subsets_share(others, k, len(x))
    return min(1.0, share)


def _subsets_share(others: int, k: int, n: int) -> float:
    """C(others, k - 1) / C(n, k), without the large numbers."""
    if others < k - 1:
        return 0.0
    taken = np.arange(k - 1)
    return float(np.prod((others - taken) / (n - 1 - taken)) * k / n)


def _least_is(n: int, k: int) -> Floats:
    """Return, for each of n ranks, the share of all subsets of size k whose least has that rank."""
    return np.array([_subsets_share(n - 1 - rank, k, n) for rank in range(n)])


def _checked(values: ArrayLike, k: int) -> Floats:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or not len(x) or np.isnan(x).any():
        raise StatisticsError("expected a row of one number or more")
    if not 1 <= k <= len(x):
        raise StatisticsError(f"k {k} of {len(x)} values; give 1 to {len(x)}")
    return x
