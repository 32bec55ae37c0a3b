"""How far two go together: two classifiers on the same examples, two measures over the same trials."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from leadline.analysis.stats.samples import CHUNK, RESAMPLES, Floats, StatisticsError, sample


@dataclass(frozen=True)
class McNemar:
    """Two classifiers on the same examples: how often only one of them is right."""

    a_only: int  # examples
    b_only: int
    p: float  # exact, two-sided
    seed: int | None = None  # of the two trials


@dataclass(frozen=True)
class Correlation:
    """How far two measures of the same things rise together."""

    n: int  # pairs
    rho: float | None  # Spearman's; None where one measure never varies
    ci95: tuple[float, float] | None  # percentile bootstrap; None where rho is


def mcnemar(correct_a: ArrayLike, correct_b: ArrayLike, seed: int | None = None) -> McNemar:
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
    a_only, b_only = int(np.sum(a & ~b)), int(np.sum(b & ~a))
    p = min(1.0, 2 * float(stats.binom.cdf(min(a_only, b_only), a_only + b_only, 0.5)))
    return McNemar(a_only, b_only, p, seed)


def spearman(x: ArrayLike, y: ArrayLike, seed: int = 0) -> Correlation:
    """Return Spearman's rank correlation (1904), ties by their mean rank, with a percentile bootstrap over the pairs.

    Resamples in which a measure does not vary have no correlation and are left out (Efron & Tibshirani 1993, ch. 13).

    Args:
        x, y: one value per pair, in the same order.
        seed: of the bootstrap.

    Raises:
        StatisticsError: no value, one that is not finite, or lengths that differ.
    """
    a, b = sample("x", x), sample("y", y)
    if len(a) != len(b):
        raise StatisticsError(f"x has {len(a)} values and y has {len(b)}; pairs need the same number of each")
    rho = _rank_correlation(a[None], b[None])[0]
    if math.isnan(rho):
        return Correlation(len(a), None, None)
    draw = np.random.default_rng(seed)
    found: list[Floats] = []
    left = RESAMPLES
    while left:
        rows = min(left, max(1, CHUNK // len(a)))
        chosen = draw.integers(0, len(a), size=(rows, len(a)))
        found.append(_rank_correlation(a[chosen], b[chosen]))
        left -= rows
    low, high = np.nanpercentile(np.concatenate(found), (2.5, 97.5))
    return Correlation(len(a), float(rho), (float(low), float(high)))


def _rank_correlation(a: Floats, b: Floats) -> Floats:
    """Return Spearman's correlation by row, shape [rows, n]; NaN where a row does not vary."""
    ranks = [stats.rankdata(values, axis=1) for values in (a, b)]
    first, second = (rank - rank.mean(axis=1, keepdims=True) for rank in ranks)
    scale = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    together = (first * second).sum(axis=1)
    rho: Floats = np.divide(together, scale, out=np.full(len(scale), np.nan), where=scale > 0)
    return rho
