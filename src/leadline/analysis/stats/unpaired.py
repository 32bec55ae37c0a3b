"""What two separate samples show of the difference between their means: tests, equivalence, permutations."""

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from leadline.analysis.stats.behrens_fisher import BehrensFisher
from leadline.analysis.stats.samples import CHUNK, Floats, StatisticsError, cut, least_spread, sample

EXACT_SPLITS = 200_000
"""Up to this many ways to divide the values between the samples all are counted; above it, permutations are drawn."""

PERMUTATIONS = 99_999


@dataclass(frozen=True)
class Unpaired:
    """What two separate samples say about the difference of their means, a - b, in the unit of the values."""

    n_a: int
    n_b: int
    difference: float
    sd: float | None  # at which `n` pairs would know the difference as well; None where a sample has one value
    ci95: tuple[float, float] | None  # of this contrast alone, at `confidence`: 95% by default
    t_p: float | None  # test of Behrens and Fisher, two-sided
    p: float | None  # permutation test, two-sided
    p_smallest: float | None  # the smallest p that samples of these sizes can reach
    effect_size: float | None  # difference / spread within the samples; None without any
    welch_ci95: tuple[float, float] | None = None  # by Welch's t, as other programs give it; nothing rests on it
    welch_p: float | None = None  # of Welch's t test, two-sided
    bca95: None = None  # there is no bootstrap of separate samples

    @property
    def n(self) -> int:
        """The size of the smaller sample."""
        return min(self.n_a, self.n_b)


def unpaired(
    a: ArrayLike,
    b: ArrayLike,
    confidence: float = 0.95,
    seed: int = 0,
    resolution: float = 0.0,
    largest: float = math.inf,
) -> Unpaired:
    """Return the difference of two means with interval, tests and effect size, for values that form no pairs.

    The test, see `BehrensFisher`, assumes independent values that are normal in each sample, with spreads that
    may differ. As for `paired`, values that move in steps are not taken to vary by less than makes half a step in a
    difference.

    Args:
        a, b: the values of each sample; their numbers may differ.
        confidence: of the interval, between 0 and 1.
        seed: of the permutations, where they are drawn.
        resolution: the step in which the values move, in their unit.
        largest: the largest difference that is possible; see `cut`.

    Raises:
        StatisticsError: no value, one that is not finite, or a confidence outside (0, 1).

    Example:
        >>> found = unpaired([5.0, 6.0, 7.0], [8.0, 9.0, 10.0, 11.0])
        >>> found.difference, round(found.t_p, 3), round(found.p, 3)
        (-3.5, 0.045, 0.057)
    """
    x, y = sample("a", a), sample("b", b)
    if not 0 < confidence < 1:
        raise StatisticsError(f"confidence {confidence} is not between 0 and 1, such as 0.95")
    difference = float(x.mean() - y.mean())
    if min(len(x), len(y)) == 1:
        return Unpaired(len(x), len(y), difference, None, None, None, None, None, None)
    under = _distribution(x, y, resolution)
    half = under.quantile((1 + confidence) / 2) * under.error if under.error else 0.0
    freedom = _welch_freedom(under)
    welch = float(special.stdtrit(freedom, (1 + confidence) / 2)) * under.error
    within = math.sqrt((_spread(x, resolution) ** 2 + _spread(y, resolution) ** 2) / 2)
    splits = math.comb(len(x) + len(y), len(x))
    least = (1 + (len(x) == len(y))) / splits if splits <= EXACT_SPLITS else 1 / (PERMUTATIONS + 1)
    return Unpaired(
        n_a=len(x),
        n_b=len(y),
        difference=difference,
        sd=under.error * math.sqrt(min(len(x), len(y))),
        ci95=cut((difference - half, difference + half), largest),
        t_p=unpaired_difference_p(x, y, resolution),
        p=permutation_p(x, y, seed),
        p_smallest=least,
        effect_size=difference / within if within > np.finfo(float).tiny else None,
        welch_ci95=cut((difference - welch, difference + welch), largest),
        welch_p=float(2 * special.stdtr(freedom, -abs(difference) / under.error))
        if under.error
        else unpaired_difference_p(x, y),
    )


def unpaired_difference_p(a: ArrayLike, b: ArrayLike, resolution: float = 0.0) -> float:
    """Return the two-sided p of the test that two means are equal; see `BehrensFisher`.

    Samples without any spread, and without a resolution, have p 0, or 1 where their means are equal.

    Args:
        a, b: the values of each sample, two of each at least.
        resolution: see `unpaired`.
    """
    x, y = sample("a", a), sample("b", b)
    under = _distribution(x, y, resolution)
    difference = float(x.mean() - y.mean())
    if under.error == 0:
        return 1.0 if difference == 0 else 0.0
    return min(1.0, 2 * under.tail(abs(difference) / under.error))


def unpaired_equivalence_p(a: ArrayLike, b: ArrayLike, margin: float, resolution: float = 0.0) -> float:
    """Return the p of the test that two means differ by less than the margin: the larger of two one-sided tests.

    Args:
        a, b: the values of each sample, two of each at least.
        margin: above 0, in their unit.
        resolution: see `unpaired`.
    """
    x, y = sample("a", a), sample("b", b)
    under = _distribution(x, y, resolution)
    room = margin - abs(float(x.mean() - y.mean()))
    if under.error == 0:
        return 0.0 if room > 0 else 1.0
    return under.tail(room / under.error)


def permutation_p(a: ArrayLike, b: ArrayLike, seed: int = 0) -> float:
    """Return the two-sided p of the permutation test (Fisher 1935; Pitman 1937) on the difference of two means.

    The share of all ways to divide the values between two samples of these sizes whose means are at least as far apart
    as those observed; above 200,000 ways (k + 1)/(m + 1) with k of m = 99,999 random ones (Phipson & Smyth 2010).

    Args:
        a, b: the values of each sample, at least one of each.
        seed: of the random permutations.
    """
    x, y = sample("a", a), sample("b", b)
    every, n = np.concatenate([x, y]), len(x)
    every = every - every.mean()  # so that a sum of the first sample tells how far apart the means are
    # sums of the same numbers in another order differ by rounding
    limit = abs(every[:n].sum()) - 1e-12 * np.abs(every).sum()
    if math.comb(len(every), n) <= EXACT_SPLITS:
        places = np.array(list(combinations(range(len(every)), n)))
        return float(np.mean(np.abs(every[places].sum(axis=1)) >= limit))
    draw, extreme, left = np.random.default_rng(seed), 0, PERMUTATIONS
    while left:
        rows = min(left, max(1, CHUNK // len(every)))
        shuffled = draw.permuted(np.broadcast_to(every, (rows, len(every))), axis=1)
        extreme += int(np.sum(np.abs(shuffled[:, :n].sum(axis=1)) >= limit))
        left -= rows
    return (extreme + 1) / (PERMUTATIONS + 1)


def _spread(x: Floats, resolution: float) -> float:
    """Return a standard deviation, at least that of which two make half a step in a difference."""
    return max(0.0 if np.ptp(x) == 0 else float(x.std(ddof=1)), least_spread(resolution) / math.sqrt(2))


def _welch_freedom(under: BehrensFisher) -> float:
    """Return Welch's degrees of freedom (Satterthwaite 1946); where nothing varies, those of equal spreads."""
    if under.error == 0:
        return float(sum(under.sizes) - 2)
    parts = (error**4 / (size - 1) for error, size in zip(under.errors, under.sizes, strict=True))
    return under.error**4 / sum(parts)


def _distribution(x: Floats, y: Floats, resolution: float) -> BehrensFisher:
    """Return the distribution of the difference between two means of two values or more."""
    first, second = (_spread(one, resolution) / math.sqrt(len(one)) for one in (x, y))
    return BehrensFisher((first, second), (len(x), len(y)))
