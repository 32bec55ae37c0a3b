"""Power: how many seeds it takes until a contrast gets a word, of difference or of equivalence."""

import math
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from leadline.analysis.stats.samples import Floats

LARGEST_PLAN = 10_000
"""`seeds_for_word` looks no further than a study may have seeds."""

RANGE = 0.8
"""Of the means and spreads that are compatible with a few seeds, the share whose need for seeds a range covers."""

_SPREADS = 4096, 16, 400  # quantiles of the sample's spread over which power is averaged: shared by cases, least, most
_DRAWS = 200


@dataclass(frozen=True)
class SeedsForWord:
    """Seeds at which a contrast gets a word with the wanted power; None: more than 10,000."""

    likely: int | None  # if mean and spread are as observed
    low: int | None  # ends of a range, as few seeds show mean and spread only roughly
    high: int | None


def power(effect_size: float, n: int, alpha: float = 0.05) -> float:
    """Return the power of the two-sided paired t test by the noncentral t (Cohen 1988).

    Args:
        effect_size: true mean of the differences / their standard deviation.
        n: pairs, at least 2.
        alpha: level of the test.

    Example:
        >>> round(power(1.0, 10), 3)
        0.803
    """
    # scipy's noncentral t is NaN far out, where the power is 1 to every digit anyway
    shift = min(abs(effect_size), 30.0) * math.sqrt(n)
    critical = scipy.stats.t.isf(alpha / 2, n - 1)
    # at most normal.cdf(-shift), and NaN in scipy for large shifts
    wrong_side = scipy.stats.nct.cdf(-critical, n - 1, shift) if shift < 5 else 0.0
    return float(scipy.stats.nct.sf(critical, n - 1, shift) + wrong_side)


def word_power(difference: ArrayLike, sd: ArrayLike, n: ArrayLike, margin: float = 0.0, alpha: float = 0.05) -> Floats:
    """Return the probability that n pairs show a difference, or equivalence, by the tests of `difference_p` and
    `equivalence_p`, each at level alpha; averaged over the spread that a sample may have.

    Args:
        difference, sd: true mean and standard deviation of normal differences; broadcast with n.
        n: pairs, at least 2.
        margin: of equivalence; 0: there is none.
        alpha: level of the tests, divided by the number of contrasts where there are several.

    Example:
        >>> round(float(word_power(1.0, 1.0, 10)), 2), round(float(word_power(0.0, 0.2, 4, margin=0.5)), 2)
        (0.8, 0.88)
    """
    delta, sigma, n = (np.asarray(one, dtype=np.float64)[..., None] for one in (difference, sd, n))
    shared, least, most = _SPREADS
    number = min(most, max(least, shared // delta.size))
    quantiles = (np.arange(number) + 0.5) / number
    error = sigma / np.sqrt(n)
    sizes, place = np.unique(n, return_inverse=True)  # the quantiles below take most of the time
    sizes, place = sizes[:, None], place.reshape(n.shape[:-1])
    seen = error * np.sqrt(scipy.special.chdtri(sizes - 1, 1 - quantiles) / (sizes - 1))[place]
    outer = -scipy.special.stdtrit(sizes - 1, alpha / 2)[place] * seen
    inner = np.maximum(margin + scipy.special.stdtrit(sizes - 1, alpha)[place] * seen, 0.0)

    def within(end: Floats) -> Floats:
        return scipy.special.ndtr((end - delta) / error) - scipy.special.ndtr((-end - delta) / error)

    given = np.where(inner >= outer, 1.0, 1 - within(outer) + within(inner))
    return np.asarray(given.mean(axis=-1))


def seeds_for_power(
    difference: ArrayLike, sd: ArrayLike, margin: float = 0.0, alpha: float = 0.05, wanted: float = 0.8, least: int = 2
) -> Floats:
    """Return the smallest number of pairs at which a word has the wanted power; infinite: more than 10,000.

    Args:
        difference, sd, margin, alpha: see `word_power`; sd above 0.
        wanted: power, between 0 and 1.
        least: pairs, at least.

    Example:
        >>> seeds_for_power([1.0, 0.0], [1.0, 0.2], margin=0.5).tolist()
        [10.0, 4.0]
    """
    delta, sigma = np.broadcast_arrays(*(np.asarray(one, dtype=np.float64) for one in (difference, sd)))

    def is_enough(seeds: Floats) -> NDArray[np.bool_]:
        return np.asarray(word_power(delta, sigma, seeds, margin, alpha) >= wanted)

    # power grows with the number of pairs: halve what lies between too few and enough
    too_few, enough = np.full(delta.shape, least - 1.0), np.full(delta.shape, max(LARGEST_PLAN, least) + 1.0)
    guess = np.full(delta.shape, float(least))
    while True:
        reached = is_enough(guess)
        enough, too_few = np.where(reached, guess, enough), np.where(reached, too_few, guess)
        guess = np.floor((too_few + enough) / 2)
        if (enough - too_few <= 1).all():
            return np.where(enough > max(LARGEST_PLAN, least), math.inf, enough)
        guess = np.where(enough - too_few <= 1, enough, guess)


def seeds_for_word(
    difference: float, sd: float, n: int, margin: float = 0.0, alpha: float = 0.05, wanted: float = 0.8, seed: int = 0
) -> SeedsForWord:
    """Return how many pairs, more than n, a contrast needs until it gets a word, from what n pairs have shown.

    The range comes from means and spreads that could have given what is observed: the spread by the chi-squared
    distribution, the mean by the normal one about the observed mean. At three seeds it is wide, as it has to be. It
    holds what is likely, and is the same whichever arm comes first.

    Args:
        difference, sd: observed mean and standard deviation of n differences; sd above 0.
        n: pairs, at least 2.
        margin, alpha, wanted: see `seeds_for_power`.
        seed: of the draws.
    """
    draw = np.random.default_rng(seed)
    sigma = sd * np.sqrt((n - 1) / draw.chisquare(n - 1, _DRAWS))
    difference = -abs(difference)
    delta = difference + sigma / math.sqrt(n) * draw.normal(size=_DRAWS)
    sigma, delta = np.append(sigma, sd), np.append(delta, difference)
    needed = seeds_for_power(delta, sigma, margin, alpha, wanted, n + 1)
    ends = np.quantile(needed[:-1], [(1 - RANGE) / 2, (1 + RANGE) / 2], method="nearest")
    found = min(ends[0], needed[-1]), max(ends[1], needed[-1]), needed[-1]
    low, high, likely = (int(one) if math.isfinite(one) else None for one in found)
    return SeedsForWord(likely, low, high)
