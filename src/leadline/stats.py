"""Statistics of few seeds: summaries, paired effects, corrections, decisions. Arrays in, frozen results out."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from leadline.errors import LeadlineError

Decision = Literal["better", "worse", "equivalent", "undecided"]
Floats = NDArray[np.float64]

EXACT_PAIRS = 20
"""Up to this many pairs every one of the 2^n sign flips is counted; above it, flips are drawn."""

FLIPS = 99_999
RESAMPLES = 9_999
LARGEST_PLAN = 10_000
"""`seeds_to_decide` looks no further than a study may have seeds."""

_CHUNK = 1 << 22  # numbers held at once while resampling


class StatisticsError(LeadlineError, ValueError):
    """Numbers of which no statistic can be taken: none at all, not finite, or not in pairs."""


@dataclass(frozen=True)
class Summary:
    """A sample in short, in its own unit."""

    n: int
    mean: float
    sd: float | None  # with n - 1; None at n = 1
    median: float
    minimum: float
    maximum: float


@dataclass(frozen=True)
class Paired:
    """What n pairs say about the difference a - b, in the unit of the values."""

    n: int
    difference: float  # mean
    sd: float | None  # of the differences, with n - 1; None at n = 1
    ci95: tuple[float, float] | None  # paired t, at `confidence`: 95% unless told otherwise; None at n = 1
    t_p: float | None  # paired t test, two-sided; None at n = 1
    bca95: tuple[float, float] | None  # bias-corrected accelerated bootstrap; None where it does not exist
    p: float | None  # sign-flip permutation test, two-sided; None at n = 1
    p_smallest: float | None  # the smallest p that n pairs can reach: 2/2^n while flips are counted
    effect_size: float | None  # Cohen's d_z: difference / spread; None at n = 1 or without spread
    seeds_to_decide: int | None  # pairs at which the observed effect has 80% power; None: no effect or > 10,000


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


def summarise(values: ArrayLike) -> Summary:
    """Return n, mean, standard deviation, median and range of a sample.

    Raises:
        StatisticsError: no value, or one that is not finite.
    """
    x = _sample("values", values)
    # equal values keep a rounding residue in numpy's standard deviation
    sd = 0.0 if np.ptp(x) == 0 else float(x.std(ddof=1))
    return Summary(
        len(x), float(x.mean()), sd if len(x) > 1 else None, float(np.median(x)), float(x.min()), float(x.max())
    )


def paired(a: ArrayLike, b: ArrayLike, confidence: float = 0.95, seed: int = 0, resolution: float = 0.0) -> Paired:
    """Return the mean of a - b with intervals, tests, effect size and the number of pairs that would decide it.

    The paired t (Student 1908) assumes independent pairs whose differences are normal. Errors on a finite test set
    move in steps, so that a few differences are often equal by chance, and t is then sure of a difference that one
    image made: between equal arms at 2 seeds, 360 images and 0.5% errors it finds one in 10% of studies. `resolution`
    guards against this: the spread behind the t interval, its p, the effect size and the number of seeds is never
    taken below resolution/sqrt(6), the deviation that rounding gives a difference of two values. With resolution 0
    and all differences equal the interval is the point itself, t_p is 0 (1 at no difference), and there is no effect
    size, bootstrap or number of seeds.

    BCa: Efron (1987). At 95% it covers 85% of normal samples of 5 and 91% of those of 10 (1,000 simulated studies
    each), so it stands beside the t interval and decides nothing.

    Args:
        a, b: one value per pair, in the same order.
        confidence: of both intervals, between 0 and 1.
        seed: of the bootstrap, and of the sign flips above 20 pairs.
        resolution: the step in which the values move, in their unit.

    Raises:
        StatisticsError: no value, one that is not finite, lengths that differ, or a confidence outside (0, 1).
    """
    x, y = _sample("a", a), _sample("b", b)
    if len(x) != len(y):
        raise StatisticsError(f"a has {len(x)} values and b has {len(y)}; pairs need as many of both")
    if not 0 < confidence < 1:
        raise StatisticsError(f"confidence {confidence} is not between 0 and 1, such as 0.95")
    d = x - y
    n, difference = len(d), float(d.mean())
    # differences that only rounding tells apart are equal
    if np.ptp(d) <= 16 * np.finfo(float).eps * max(np.abs(x).max(), np.abs(y).max()):
        d = np.full(n, difference)
    if n == 1:
        return Paired(1, difference, None, None, None, None, None, None, None, None)
    sd = summarise(d).sd or 0.0
    low, high = t_interval(d, confidence, resolution)
    spread = max(sd, resolution / math.sqrt(6))
    effect = difference / spread if spread > 0 else None
    t = math.inf if effect is None else abs(effect) * math.sqrt(n)
    return Paired(
        n=n,
        difference=difference,
        sd=sd,
        ci95=(float(low), float(high)),
        t_p=1.0 if difference == 0 else float(2 * stats.t.sf(t, n - 1)),
        bca95=_bca(d, confidence, seed) if sd > 0 else None,
        p=sign_flip_p(d, seed),
        p_smallest=2.0 ** (1 - n) if n <= EXACT_PAIRS else 1 / (FLIPS + 1),
        effect_size=effect,
        seeds_to_decide=None if effect is None else seeds_to_decide(effect, alpha=1 - confidence),
    )


def t_interval(differences: ArrayLike, confidence: float = 0.95, resolution: float = 0.0) -> tuple[Floats, Floats]:
    """Return the ends of the paired-t interval for the mean, over the last axis; the rest are separate samples.

    Args:
        differences: shape [..., n], n at least 2.
        confidence: between 0 and 1.
        resolution: see `paired`.
    """
    d = np.asarray(differences, dtype=np.float64)
    n = d.shape[-1]
    mean = d.mean(axis=-1)
    sd = np.where(np.ptp(d, axis=-1) == 0, 0.0, d.std(axis=-1, ddof=1))
    spread = np.maximum(sd, resolution / math.sqrt(6))
    half = stats.t.ppf((1 + confidence) / 2, n - 1) * spread / math.sqrt(n)
    return mean - half, mean + half


def sign_flip_p(differences: ArrayLike, seed: int = 0) -> float:
    """Return the two-sided p of the sign-flip permutation test (Fisher 1935) on the mean of paired differences.

    Exact to 20 pairs: the share of all 2^n sign patterns whose mean is at least as far from 0 as the one observed.
    Above, (k + 1)/(m + 1) with k of m = 99,999 random patterns (Phipson & Smyth 2010).

    Args:
        differences: shape [n], n at least 1.
        seed: of the random patterns.

    Raises:
        StatisticsError: no value, or one that is not finite.
    """
    d = _sample("differences", differences)
    size = np.abs(d)
    # sums of the same numbers in another order differ by rounding
    limit = abs(d.sum()) - 1e-12 * size.sum()
    if len(d) <= EXACT_PAIRS:
        # a pattern and its mirror image are equally far from 0, so the first sign may stay
        sums = size[:1]
        for value in size[1:]:
            sums = np.concatenate([sums + value, sums - value])
        return float(np.mean(np.abs(sums) >= limit))
    draw, extreme, left = np.random.default_rng(seed), 0, FLIPS
    while left:
        rows = min(left, max(1, _CHUNK // len(d)))
        flipped = draw.integers(0, 2, size=(rows, len(d)), dtype=np.int8) @ size
        extreme += int(np.sum(np.abs(size.sum() - 2 * flipped) >= limit))
        left -= rows
    return (extreme + 1) / (FLIPS + 1)


def power(effect_size: float, n: int, alpha: float = 0.05) -> float:
    """Return the power of the two-sided paired t test by the noncentral t (Cohen 1988).

    Args:
        effect_size: true mean of the differences / their standard deviation.
        n: pairs, at least 2.
        alpha: level of the test.
    """
    # scipy's noncentral t is NaN far out, where the power is 1 to every digit anyway
    shift = min(abs(effect_size), 30.0) * math.sqrt(n)
    critical = stats.t.isf(alpha / 2, n - 1)
    # at most normal.cdf(-shift), and NaN in scipy for large shifts
    wrong_side = stats.nct.cdf(-critical, n - 1, shift) if shift < 5 else 0.0
    return float(stats.nct.sf(critical, n - 1, shift) + wrong_side)


def seeds_to_decide(effect_size: float, wanted: float = 0.8, alpha: float = 0.05) -> int | None:
    """Return the smallest number of pairs at which the paired t test finds an effect with the wanted power.

    Args:
        effect_size: mean of the differences / their standard deviation, taken as true.
        wanted: power, between 0 and 1.
        alpha: level of the two-sided test.

    Returns:
        None where there is no effect, or more than 10,000 pairs would be needed.
    """
    if effect_size == 0 or power(effect_size, LARGEST_PLAN, alpha) < wanted:
        return None
    low, high = 1, LARGEST_PLAN  # power below wanted at low, reached at high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(effect_size, middle, alpha) >= wanted else (middle, high)
    return high


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
    a, b = _sample("x", x), _sample("y", y)
    if len(a) != len(b):
        raise StatisticsError(f"x has {len(a)} values and y has {len(b)}; pairs need as many of both")
    rho = _rank_correlation(a[None], b[None])[0]
    if math.isnan(rho):
        return Correlation(len(a), None, None)
    draw = np.random.default_rng(seed)
    found: list[Floats] = []
    left = RESAMPLES
    while left:
        rows = min(left, max(1, _CHUNK // len(a)))
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


def convergence_epoch(curve: ArrayLike, tolerance: float = 0.01) -> int | None:
    """Return the first epoch, from 1, from which a curve stays within the tolerance of its final value.

    Args:
        curve: shape [epochs]; a value that is not finite is outside the tolerance.
        tolerance: in the curve's unit: 0.01 is one point of an accuracy.

    Returns:
        None for an empty curve, or one whose final value is not finite.
    """
    x = np.asarray(curve, dtype=np.float64)
    if x.size == 0 or not np.isfinite(x[-1]):
        return None
    # 0.99 - 0.98 is above 0.01 in binary
    near = np.isfinite(x) & (np.abs(np.where(np.isfinite(x), x, 0.0) - x[-1]) <= tolerance + 1e-9)
    outside = np.flatnonzero(~near)
    return int(outside[-1]) + 2 if outside.size else 1


def decide(ci: tuple[float, float] | None, margin: float) -> Decision:
    """Return what an interval for a difference of errors, a - b, shows.

    better: all of it is below 0, so a errs less. worse: all of it is above 0. equivalent: it holds 0 and lies wholly
    inside (-margin, margin). undecided: anything else, or no interval. Better and worse come first: an interval that
    excludes 0 and lies inside the margin is a difference that is real and small, and both can be told.

    With a 95% interval, better or worse is wrong in at most 5% of studies without a difference, and equivalence is
    two one-sided tests at 2.5% each (Schuirmann 1987), stricter than the usual 5%.

    Args:
        ci: low and high end.
        margin: the largest difference that does not matter, in the interval's unit.
    """
    if ci is None:
        return "undecided"
    low, high = ci
    if high < 0:
        return "better"
    if low > 0:
        return "worse"
    return "equivalent" if -margin < low and high < margin else "undecided"


def _sample(what: str, values: ArrayLike) -> Floats:
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 1 or x.size == 0:
        raise StatisticsError(f"{what}: shape {x.shape}; expected one dimension with at least one value")
    if not np.isfinite(x).all():
        index = int(np.flatnonzero(~np.isfinite(x))[0])
        raise StatisticsError(
            f"{what}: {x[index]} at position {index} is not finite; leave such values out and count them"
        )
    return x


def _bca(differences: Floats, confidence: float, seed: int) -> tuple[float, float] | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = stats.bootstrap(
            (differences,),
            np.mean,
            n_resamples=RESAMPLES,
            batch=max(1, _CHUNK // len(differences)),
            confidence_level=confidence,
            method="BCa",
            rng=np.random.default_rng(seed),
        ).confidence_interval
    ends = float(found.low), float(found.high)
    return ends if all(map(math.isfinite, ends)) else None
