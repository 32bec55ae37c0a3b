"""How an effect depends on factors, and what it is over several data sets. Arrays in, frozen results out.

Where every seed has every level, an effect within seeds is one number per seed: a weighted sum of its values, with
weights 1/L for a mean over L levels, -1 and 1 for a step between two, least squares for a slope. Those numbers are
independent samples to which the paired statistics apply exactly, and which a mixed model of such a balanced design
would come to as well, with more assumptions about the spread (Maxwell & Delaney 2004, chapters 11 to 14).

Data sets are another matter: an effect differs from one to the next, by more than its seeds would have it, and a mean
with its standard error over seeds would speak of these data sets alone. `over_data_sets` estimates the spread between.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from leadline.analysis.stats import Paired, StatisticsError, paired

Floats = NDArray[np.float64]

PRIOR = 4
"""Degrees of freedom that the mean spread has where the spread on each data set is drawn to it. Without, of 8 data
sets at 3 seeds, or 3 whose spreads are far apart, intervals cover 85 to 91%; with 4, 94.6% or more of all simulated."""

_QUANTILES = 200  # of the variance between data sets
_DRAWS = 200  # of an effect, at each

_HALVINGS = 60  # of the bracket that holds the variance between data sets: to the last digit


@dataclass(frozen=True)
class OverDataSets:
    """An effect over several data sets, in its unit: that of data sets like these, of which these are a sample."""

    k: int  # data sets
    mean: float
    interval: tuple[float, float]  # for the mean over all such data sets
    prediction: tuple[float, float] | None  # for the effect on one more data set; None with two
    between: float  # standard deviation of the effect from data set to data set
    p: float  # two-sided, that the mean is 0
    weights: tuple[float, ...]  # of the data sets in the mean; their sum is 1


def mean_weights(levels: int) -> Floats:
    """Return the weights of the mean over so many levels, shape [levels]."""
    return np.full(levels, 1 / levels)


def step_weights(levels: int, start: int, end: int) -> Floats:
    """Return the weights of the step from one level to another, counted from 0: the second minus the first."""
    weights = np.zeros(levels)
    weights[start], weights[end] = -1, 1
    return weights


def slope_weights(positions: ArrayLike) -> Floats:
    """Return the weights of the least-squares slope over levels at these positions, shape [levels].

    Raises:
        StatisticsError: fewer than two different positions, or one that is not finite.
    """
    x = np.asarray(positions, dtype=np.float64)
    if x.ndim != 1 or not np.isfinite(x).all() or len(np.unique(x)) < 2:
        raise StatisticsError(f"positions {x.tolist()}; a slope needs numbers, two of them different")
    centred = x - x.mean()
    weights: Floats = centred / (centred @ centred)
    return weights


def within_seeds(values: ArrayLike, weights: ArrayLike, resolution: float = 0.0, confidence: float = 0.95) -> Paired:
    """Return the paired statistics of a weighted sum of each seed's values: its mean over seeds, interval and tests.

    There is no bootstrap interval, nor a permutation test above 20 seeds.

    Args:
        values: shape [seeds, levels], such as differences between two arms at each level of a factor.
        weights: shape [levels], such as those of a step, or of a slope.
        resolution: see `stats.paired`, of a single difference; rounding in the sum follows from the weights.
        confidence: between 0 and 1.

    Raises:
        StatisticsError: shapes that do not fit, no seed, or a value that is not finite.
    """
    x, w = np.asarray(values, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    if x.ndim != 2 or w.shape != x.shape[1:]:
        raise StatisticsError(f"values of shape {x.shape} and weights of shape {w.shape}; expected [seeds, levels]")
    rounding = resolution * float(np.sqrt((w**2).sum()))
    return paired(x @ w, np.zeros(len(x)), confidence, resolution=rounding, resample=False)


def over_data_sets(
    effects: Sequence[float], sds: Sequence[float], seeds: Sequence[int], confidence: float = 0.95
) -> OverDataSets:
    """Return the mean effect over data sets by a random-effects summary, with its interval and a prediction interval.

    The effect on a data set is normal about the mean over such data sets, with a variance that is estimated as by
    Paule & Mandel (1982), and each observed effect about it with the variance that its seeds show. Few seeds show it
    badly, so each is drawn to their mean, as if that had `PRIOR` degrees of freedom (as Smyth 2004 does for genes).
    Interval: Knapp & Hartung (2003), Sidik & Jonkman (2002), by Student's t with k - 1 degrees of freedom; their
    factor, never taken below 1, is 1 with Paule & Mandel's variance.

    Prediction interval: a parametric bootstrap from a confidence distribution (Nagashima, Noma & Furukawa 2019), so
    that it holds how little a few data sets tell of the variance between them; the distribution is that of the
    Q-profile (Viechtbauer 2007). Of three data sets it covers more than it states, up to all; of ten with spreads
    far apart, 93% instead of 95%. `python -m benchmarks.intervals` measures it.

    With two data sets there is one degree of freedom, and the interval says next to nothing, as it should.

    Args:
        effects: one per data set.
        sds: of each effect over its seeds.
        seeds: that each effect is the mean of, 2 or more.
        confidence: between 0 and 1.

    Raises:
        StatisticsError: fewer than two data sets, lengths that differ, a value that is not finite, no spread at all,
            fewer than two seeds, or a confidence outside (0, 1).
    """
    y, sd, n = (np.asarray(values, dtype=np.float64) for values in (effects, sds, seeds))
    if y.ndim != 1 or not y.shape == sd.shape == n.shape or len(y) < 2:
        raise StatisticsError(
            f"{y.size} effects, {sd.size} deviations and {n.size} numbers of seeds; expected one of each for two data"
            " sets or more"
        )
    if not (np.isfinite(y).all() and np.isfinite(sd).all() and (sd >= 0).all() and sd.any()):
        raise StatisticsError(
            f"effects {y.tolist()} and deviations {sd.tolist()}; expected numbers, no deviation below 0 and one above"
        )
    if not (n >= 2).all():
        raise StatisticsError(f"seeds {list(seeds)}; expected 2 or more on each data set")
    if not 0 < confidence < 1:
        raise StatisticsError(f"confidence {confidence} is not between 0 and 1, such as 0.95")
    k = len(y)
    v = shrink_to_mean(sd**2, n) / n
    between = between_variance(y, v)
    weights = 1 / (v + between)
    weights /= weights.sum()
    mean = float(weights @ y)
    se = math.sqrt(1 / (1 / (v + between)).sum())
    tail = (1 - confidence) / 2
    half = float(scipy.stats.t.isf(tail, k - 1)) * se
    prediction = None
    if k > 2:
        low, high = prediction_interval(y, v, confidence)
        prediction = float(low), float(high)
    return OverDataSets(
        k=k,
        mean=mean,
        interval=(mean - half, mean + half),
        prediction=prediction,
        between=math.sqrt(between),
        p=float(2 * scipy.stats.t.sf(abs(mean) / se, k - 1)),
        weights=tuple(weights.tolist()),
    )


def prediction_interval(
    effects: ArrayLike, variances: ArrayLike, confidence: float = 0.95, seed: int = 0
) -> tuple[Floats, Floats]:
    """Return the ends of the interval for the effect on one more data set, over the last axis.

    Each variance between data sets is taken as often as the data speak for it: it is the one at which the weighted
    squares add up to a quantile of the chi-squared distribution with k - 1 degrees of freedom, 0 where they are less
    even without it. With each go a mean, its error by Student's t, and an effect about that mean.

    Args:
        effects, variances: shape [..., k], k at least 3; variances above 0.
        confidence: between 0 and 1.
        seed: of the draws.
    """
    y, v = (np.asarray(values, dtype=np.float64)[..., None, :] for values in (effects, variances))
    degrees, draw = y.shape[-1] - 1, np.random.default_rng(seed)
    between = between_variance(y, v, scipy.stats.chi2.ppf((np.arange(_QUANTILES) + 0.5) / _QUANTILES, degrees))
    weights = 1 / (v + between[..., None])
    total = weights.sum(axis=-1)
    mean = (weights * y).sum(axis=-1) / total
    about, of_mean = draw.standard_normal((_DRAWS, _QUANTILES)), draw.standard_t(degrees, (_DRAWS, _QUANTILES))
    effect = mean[..., None, :] + about * np.sqrt(between)[..., None, :] + of_mean / np.sqrt(total)[..., None, :]
    low, high = np.quantile(effect, ((1 - confidence) / 2, (1 + confidence) / 2), axis=(-2, -1))
    return low, high


def shrink_to_mean(variances: ArrayLike, seeds: ArrayLike) -> Floats:
    """Return each variance drawn to the mean of all, over the last axis, by their degrees of freedom and `PRIOR`.

    Args:
        variances: shape [..., k], each with one degree of freedom less than its seeds.
        seeds: shape [k].
    """
    v, degrees = np.asarray(variances, dtype=np.float64), np.asarray(seeds, dtype=np.float64) - 1
    mean = v.mean(axis=-1, keepdims=True)
    return np.asarray((degrees * v + PRIOR * mean) / (degrees + PRIOR))


def shrink_effects(effects: ArrayLike, sds: ArrayLike, seeds: ArrayLike) -> Floats:
    """Return effects drawn to their mean, each by how little it is known: empirical Bayes (Efron & Morris 1975).

    The largest of many observed effects owes its place to chance as well, so it overstates the true one.

    Args:
        effects: shape [k], k at least 2.
        sds: of each over its seeds, above 0.
        seeds: that each is the mean of, 2 or more.
    """
    y, n = np.asarray(effects, dtype=np.float64), np.asarray(seeds, dtype=np.float64)
    variances = shrink_to_mean(np.square(np.asarray(sds, dtype=np.float64)), n) / n
    between = between_variance(y, variances)
    weights = 1 / (variances + between)
    mean = (weights * y).sum() / weights.sum()
    return np.asarray(mean + between / (between + variances) * (y - mean))


def between_variance(effects: ArrayLike, variances: ArrayLike, squares: ArrayLike | None = None) -> Floats:
    """Return the variance between data sets (Paule & Mandel 1982), over the last axis; the rest are separate studies.

    It is the one at which the weighted squares about the weighted mean add up to what is expected of them, k - 1; 0
    where they are less even without it.

    Args:
        effects, variances: shape [..., k], k at least 2; variances above 0.
        squares: shape [...], above 0: what they are to add up to instead.
    """
    y, v = np.asarray(effects, dtype=np.float64), np.asarray(variances, dtype=np.float64)
    wanted = np.asarray(y.shape[-1] - 1 if squares is None else squares, dtype=np.float64)
    # squares about the plain mean are no less, so that at their variance the sum is at most what is wanted
    high = np.asarray(y.var(axis=-1) * y.shape[-1] / wanted)
    low = np.zeros(high.shape)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        weights = 1 / (v + middle[..., None])
        mean = (weights * y).sum(axis=-1) / weights.sum(axis=-1)
        more = (weights * (y - mean[..., None]) ** 2).sum(axis=-1) > wanted
        low, high = np.where(more, middle, low), np.where(more, high, middle)
    return np.asarray(np.where(low > 0, (low + high) / 2, 0.0))
