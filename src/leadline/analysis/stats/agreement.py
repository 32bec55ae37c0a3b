"""How far two go together: two classifiers on the same examples, two measures over the same trials."""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike

from leadline.analysis.stats.samples import RESAMPLES, StatisticsError, sample
from leadline.seeds import SeedName

EXACT_ORDERS = 8
"""Up to this many pairs every one of the n! orders is counted; above it, orders are drawn."""


@dataclass(frozen=True)
class McNemar:
    """Two classifiers on the same examples: how often only one of them is right."""

    a_only: int  # examples
    b_only: int
    p: float  # exact, two-sided
    seed: SeedName | None = None  # of the two trials


@dataclass(frozen=True)
class Correlation:
    """How far two measures of the same things rise together."""

    n: int  # pairs
    rho: float | None  # Spearman's; None where one measure never varies
    p: float | None  # permutation test, two-sided: that they have nothing to do with each other; None where rho is
    p_smallest: float | None  # the smallest p that these pairs can reach, whichever way they are paired


def mcnemar(correct_a: ArrayLike, correct_b: ArrayLike, seed: SeedName | None = None) -> McNemar:
    """Return McNemar's test (1947) in its exact binomial form: are two classifiers right equally often?

    It speaks of these two trained networks on examples like these, not of training them again.

    Args:
        correct_a, correct_b: shape [examples], true where the classifier is right; same examples, same order.
        seed: kept in the result.

    Raises:
        StatisticsError: shapes that differ or are not one-dimensional.
    """
    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if a.shape != b.shape or a.ndim != 1:
        raise StatisticsError(
            f"shapes {a.shape} and {b.shape}: McNemar's test needs the same examples, in one dimension"
        )
    a_only, b_only = int(np.count_nonzero(a & ~b)), int(np.count_nonzero(b & ~a))
    return McNemar(a_only, b_only, _sign_test_p(min(a_only, b_only), a_only + b_only), seed)


def _sign_test_p(fewer: int, n: int) -> float:
    # the binomial distribution function, without the checks of scipy.stats, which take most of its time
    return min(1.0, 2 * float(scipy.special.betainc(n - fewer, fewer + 1, 0.5)))


def spearman(x: ArrayLike, y: ArrayLike, seed: int = 0) -> Correlation:
    """Return Spearman's rank correlation (1904), ties by their mean rank, with the p of its permutation test.

    The test is exact for pairs that are independent of each other, however few and however distributed (Pitman 1937):
    if the measures have nothing to do with each other, every way to pair them was as likely. Up to `EXACT_ORDERS`
    pairs all of them are counted; above, (k + 1)/(m + 1) with k of m = 9,999 random ones (Phipson & Smyth 2010).
    Values that were measured in groups, such as trials of one arm, are not independent: take one pair for each group.

    Args:
        x, y: one value per pair, in the same order.
        seed: of the random orders.

    Raises:
        StatisticsError: no value, one that is not finite, or lengths that differ.

    Example:
        >>> found = spearman([1, 2, 3, 4, 5], [10, 30, 20, 40, 50])
        >>> round(found.rho, 3), round(found.p, 3), round(found.p_smallest, 3)
        (0.9, 0.083, 0.017)
    """
    a, b = sample("x", x), sample("y", y)
    if len(a) != len(b):
        raise StatisticsError(f"x has {len(a)} values and y has {len(b)}; pairs need the same number of each")
    first, second = (rank - rank.mean() for rank in (scipy.stats.rankdata(a), scipy.stats.rankdata(b)))
    scale = math.sqrt((first @ first) * (second @ second))
    if scale == 0:
        return Correlation(len(a), None, None, None)
    rho, almost = float(first @ second) / scale, 1e-9
    if len(a) <= EXACT_ORDERS:
        sizes = np.abs(np.array(list(itertools.permutations(second))) @ first) / scale
        p, least = np.mean(sizes >= abs(rho) - almost), np.mean(sizes >= sizes.max() - almost)
    else:
        orders = np.random.default_rng(seed).permuted(np.tile(second, (RESAMPLES, 1)), axis=1)
        p = (np.sum(np.abs(orders @ first) / scale >= abs(rho) - almost) + 1) / (RESAMPLES + 1)
        least = 1 / (RESAMPLES + 1)
    return Correlation(len(a), rho, float(p), float(least))
