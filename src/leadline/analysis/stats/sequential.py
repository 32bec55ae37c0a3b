"""Deciding while seeds are added: intervals that hold at every look, however often one looks. Arrays in, results out.

A 95% interval that is looked at after every seed misses the truth far more often than 5% of the time. Here the error
is shared out over the looks before the first of them, as a spending function says (Lan & DeMets 1983), and the
interval at each look is mean ± critical value x spread/sqrt(n), a repeated confidence interval (Jennison & Turnbull
1989). The critical values are those of t, whose spread is not known but estimated, and are exact rather than the
normal's (Jennison & Turnbull 1991): seeds are few, and at few seeds the two are far apart.

What is assumed: the differences, one per seed, are independent and normal with one mean and one deviation; and which
seeds have been seen at a look does not depend on what they showed, so they are looked at in the order of their
numbers. Nothing is assumed of when or why one looks or stops. Symmetric heavy tails make it careful, skewed
differences careless, as they do the t interval of a single look: of 20,000 studies of 20 exponential differences 14%
leave out the mean, and 8% do with one look at the end.

An interval for any number of seeds whatever, by the t confidence sequences of Lai (1976) and Wang & Ramdas (2024),
spends half of the error or less by 50 seeds: at 20 it is a third wider than the one here. `benchmarks/sequential.py`
has the figures.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import count, islice

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from leadline.analysis import stats
from leadline.analysis.stats import Decision, StatisticsError

Floats = NDArray[np.float64]

MOST_SEEDS = 400
"""Looks are taken no further: from there on the exact computation takes long, and is not needed."""

FIRST_ROUND = 3
"""Seeds before the first look that can decide anything but differences of many deviations."""

CONFIDENCES = 0.5, 0.999999
"""Lowest and highest: further out floats lose what is spent at two seeds, or what is left at many."""

_POWER = 1.5
_RESERVE = 0.1
_SIMULATED = 20_000  # differences, from which the mean is adjusted for stopping
_CELL = 0.02  # asinh(t); half of it moves the critical values at 20 seeds by less than 0.1%


@dataclass(frozen=True)
class AnytimeInterval:
    """What n differences say of their mean, at whatever n one stops, in the unit of the values."""

    n: int
    mean: float
    sd: float | None  # of the differences, with n - 1; None at n = 1
    low: float  # the part that all looks so far have in common; -inf at n = 1
    high: float
    confidence: float  # that no look, past or to come, leaves out the true mean
    planned: int  # seeds over which the error was shared out


def interval_at_any_time(differences: ArrayLike, confidence: float, resolution: float, planned: int) -> AnytimeInterval:
    """Return an interval for the mean difference that may be looked at after every seed, and acted upon.

    The chance that it ever leaves out the true mean, at any look up to 400 seeds, is at most 1 - confidence. So all
    looks hold at once, and the interval is what they have in common: it only ever shrinks, and the mean, which goes
    on moving, may lie outside. Looks that have nothing in common, which happens at most as often, leave the interval
    where it was.

    The spread is never taken below half the resolution, as in `stats.paired`. Where all differences are equal and the
    resolution is 0 nothing is known of the spread, and the interval has no ends.

    Args:
        differences: shape [n], in the order of their seeds.
        confidence: 0.5 to 0.999999; of several contrasts, see `confidence_of_each`.
        resolution: the step in which the values move, in their unit; 0 where they do not move in steps.
        planned: seeds that the study may have, 2 to 400; fixed before the first look. A study may go past it, with
            intervals that stay valid and widen at first, for a tenth of the error is kept for what comes after.

    Raises:
        StatisticsError: no difference, one that is not finite, more than 400, or an argument out of its range.
    """
    d = np.asarray(differences, dtype=np.float64)
    if d.ndim != 1:
        raise StatisticsError(f"differences: shape {d.shape}; expected one dimension, a value per seed")
    low, high = running_interval(d, confidence, resolution, planned)
    return AnytimeInterval(
        len(d), float(d.mean()), stats.summarise(d).sd, float(low[-1]), float(high[-1]), confidence, planned
    )


def decide(differences: ArrayLike, margin: float, confidence: float, resolution: float, planned: int) -> Decision:
    """Return what the differences a - b of two arms' errors show so far, by `stats.decide`; none show nothing.

    Better and worse, once told, stay. Equivalent may sharpen to one of them with more seeds: a difference that is
    real and within the margin. Whichever is told, at any look, is wrong in at most 1 - confidence of all studies:
    better or worse where the true difference is 0 or on the other side, equivalent where it is the margin or more.

    Args:
        differences: shape [n], in the order of their seeds.
        margin: the largest difference that does not matter, at least 0.
        confidence, resolution, planned: see `interval_at_any_time`.

    Raises:
        StatisticsError: as `interval_at_any_time`, or a margin that is negative or not finite.
    """
    if not 0 <= margin < math.inf:
        raise StatisticsError(f"margin {margin} is not a number from 0 up, in the unit of the differences")
    _check(confidence, resolution, planned)
    if np.size(differences) == 0:
        return "undecided"
    found = interval_at_any_time(differences, confidence, resolution, planned)
    return stats.decide((found.low, found.high), margin)


def next_round(
    differences: ArrayLike, margin: float, confidence: float, resolution: float, planned: int, most: int | None = None
) -> int:
    """Return how many seeds to add before looking again: 0 where it is decided, or no seed is left.

    As many as would decide if mean and spread stayed as they are, but no more than there are already, for mean and
    spread of a few seeds are rough. It only says how large a round is worth its while; intervals hold for any.

    Args:
        differences: shape [n], in the order of their seeds; n may be 0.
        margin, confidence, resolution, planned: see `decide`.
        most: seeds that the study may have in all, if not as many as planned; at most 400.

    Raises:
        StatisticsError: as `decide`, or `most` out of its range.
    """
    limit = planned if most is None else most
    if not 1 <= limit <= MOST_SEEDS:
        raise StatisticsError(f"most {limit} is not a number of seeds from 1 to {MOST_SEEDS}")
    n = np.size(differences)
    if decide(differences, margin, confidence, resolution, planned) != "undecided" or n >= limit:
        return 0
    if n < FIRST_ROUND:
        return min(FIRST_ROUND, limit) - n
    found = interval_at_any_time(differences, confidence, resolution, planned)
    seeds = np.arange(n + 1, min(2 * n, limit) + 1)
    spread = max(found.sd or 0.0, stats.least_spread(resolution))
    half = critical_values(planned, confidence, int(seeds[-1]))[seeds - 1] * spread / np.sqrt(seeds)
    ends = zip(np.maximum(found.low, found.mean - half), np.minimum(found.high, found.mean + half), strict=True)
    decided = (stats.decide(end, margin) != "undecided" for end in ends)
    return next((added for added, done in enumerate(decided, start=1) if done), len(seeds))


def adjust_for_stopping(
    mean: float,
    sd: float,
    looks: Sequence[int],
    margin: float,
    confidence: float,
    resolution: float,
    planned: int,
    most: int,
    seed: int = 0,
) -> float:
    """Return the mean difference of a contrast that stops when it is decided, adjusted for that (Whitehead 1986).

    Whoever stops when an interval excludes 0 stops at a mean that is too far from 0. The adjusted mean is the true one
    at which studies that are looked at in the same way would, on average, stop at the mean that was observed; Emerson &
    Fleming (1990) compare it with other estimates. Studies are simulated with normal differences of the observed
    spread; after the looks that were taken there is one at each further seed.

    Args:
        mean, sd: of the differences at the last look; sd not below that of rounding, see `stats.paired`.
        looks: numbers of seeds at which the contrast was looked at, rising.
        margin, confidence, resolution, planned: see `decide`.
        most: seeds that the study may have.
        seed: of the simulated differences.
    """
    studies = max(200, _SIMULATED // most)
    noise = sd * np.random.default_rng(seed).standard_normal((studies, most))
    taken = np.zeros(most, dtype=bool)
    taken[[*(look - 1 for look in looks if look <= most), *range(looks[-1], most)]] = True
    taken[-1] = True
    seeds = np.arange(1, most + 1)

    def expected(true: float) -> float:
        d = true + noise
        low, high = running_interval(d, confidence, resolution, planned)
        over = (low > 0) | (high < 0) | ((low > -margin) & (high < margin))
        over = (over | (seeds == most)) & taken
        last = over.argmax(axis=1)
        means = d.cumsum(axis=1) / seeds
        return float(np.take_along_axis(means, last[:, None], axis=1).mean())

    low, high = mean - 2 * sd, mean + 2 * sd
    for _ in range(14):
        middle = (low + high) / 2
        low, high = (middle, high) if expected(middle) < mean else (low, middle)
    return (low + high) / 2


def odds_of_uneven_failures(failed_a: Sequence[bool], failed_b: Sequence[bool]) -> list[float]:
    """Return the odds against two arms failing equally often, after each seed; they may be looked at after every one.

    At each seed the odds are those of the failure rates that the seeds before suggest (one failure and one success are
    added to each arm's) against their mean in both arms, which is the null hypothesis that is nearest (Turner, Ly &
    Grünwald 2021, for blocks of one trial of each arm). Where arms fail independently, or at the same seeds, the odds
    ever reach 1/q in at most a share q of studies (Ville 1939).

    Args:
        failed_a, failed_b: whether each arm's trial failed, in the order of seeds.

    Example:
        >>> [round(odds, 1) for odds in odds_of_uneven_failures([True] * 5, [False] * 5)]
        [1.0, 1.8, 4.0, 10.2, 28.4]
    """
    odds, found, count_a, count_b = 1.0, [], 1, 1
    for seen, (a, b) in enumerate(zip(failed_a, failed_b, strict=True)):
        rate_a, rate_b = count_a / (seen + 2), count_b / (seen + 2)
        mean = (rate_a + rate_b) / 2
        odds *= (rate_a if a else 1 - rate_a) * (rate_b if b else 1 - rate_b)
        odds /= (mean if a else 1 - mean) * (mean if b else 1 - mean)
        found.append(odds)
        count_a, count_b = count_a + a, count_b + b
    return found


def odds_against_even(only_a: int, only_b: int) -> float:
    """Return the odds against two arms being ahead equally often, which may be looked at after every seed.

    Of the seeds at which just one arm is ahead, half should be a's. A mixture over all other shares bets against that;
    by Ville's inequality (1939) its odds ever reach 1/q in at most a share q of studies (Robbins 1970).

    Args:
        only_a, only_b: seeds at which that arm is ahead.

    Example:
        >>> round(odds_against_even(8, 0), 1), odds_against_even(1, 1) < 1
        (28.4, True)
    """
    return float(2.0 ** (only_a + only_b) * scipy.special.beta(only_a + 1, only_b + 1))


def confidence_of_each(confidence: float, contrasts: int) -> float:
    """Return the confidence of each contrast's interval at which all of them hold together (Bonferroni).

    Holm's step (1979), which asks less of the rest once one contrast is decided, has no ground here: it may leave out
    of the count a hypothesis that was false, but a contrast that is decided can always have been decided wrongly, to
    the other side or as equivalent. So as many may be wrong at the end as there were at the start.

    Args:
        confidence: of all together, 0.5 to 0.999999.
        contrasts: their number, fixed before the first look; those that are decided still count.

    Raises:
        StatisticsError: a confidence out of its range, or fewer than one contrast.
    """
    _check_confidence(confidence)
    if contrasts < 1:
        raise StatisticsError(f"{contrasts} contrasts share no confidence; expected at least 1")
    return 1 - (1 - confidence) / contrasts


def running_interval(
    differences: ArrayLike, confidence: float, resolution: float, planned: int
) -> tuple[Floats, Floats]:
    """Return the ends of `interval_at_any_time` at each look along the last axis; the rest are separate studies.

    Args:
        differences: shape [..., n], finite, n at least 1, in the order of their seeds.
        confidence, resolution, planned: see `interval_at_any_time`.

    Returns:
        Low and high ends, shape [..., n]; infinite at the first.

    Raises:
        StatisticsError: a value that is not finite, more than 400 per study, or an argument out of its range.
    """
    d = np.asarray(differences, dtype=np.float64)
    if d.ndim == 0 or d.shape[-1] == 0:
        raise StatisticsError(f"differences: shape {d.shape}; expected at least one difference")
    if not np.isfinite(d).all():
        place = np.unravel_index(int(np.argmin(np.isfinite(d))), d.shape)
        raise StatisticsError(
            f"differences: {d[place]} at position {', '.join(map(str, place))} is not finite; leave such seeds out and"
            " count them"
        )
    _check(confidence, resolution, planned)
    n = np.arange(1, d.shape[-1] + 1)
    # squares are summed around the first value, or those of a large mean would swallow the spread
    offset = d - d[..., :1]
    shift = offset.cumsum(axis=-1) / n
    squares = np.maximum((offset**2).cumsum(axis=-1) - n * shift**2, 0.0)
    reach = np.maximum.accumulate(d, axis=-1) - np.minimum.accumulate(d, axis=-1)
    rounding = 1e-12 * np.maximum.accumulate(np.abs(d), axis=-1)
    spread = np.where(reach <= rounding, 0.0, np.sqrt(squares / np.maximum(n - 1, 1)))
    spread = np.maximum(spread, stats.least_spread(resolution))
    critical = critical_values(planned, confidence, len(n))
    half = np.where(spread == 0, 1.0, spread) * critical / np.sqrt(n)
    half = np.where(spread == 0, math.inf, half)
    mean = d[..., :1] + shift
    low = np.maximum.accumulate(mean - half, axis=-1)
    high = np.minimum.accumulate(mean + half, axis=-1)
    # from the first look that has nothing in common with those before, the ends stay where they were
    last = np.maximum.accumulate(np.where(low <= high, np.arange(len(n)), 0), axis=-1)
    return np.take_along_axis(low, last, axis=-1), np.take_along_axis(high, last, axis=-1)


def critical_values(planned: int, confidence: float, seeds: int) -> Floats:
    """Return by how many standard errors the interval reaches to each side at every look, shape [seeds].

    At the first it is infinite: one seed has no spread. With normal differences, |t| at 2, 3, ... n seeds has exceeded
    its critical value somewhere with probability exactly 0.9 (1 - confidence) (n/planned)^1.5 (the power family of
    Kim & DeMets 1987, which sees large differences early and costs little at the end) up to n = planned, and
    (1 - confidence) (1 - 0.1 planned/n) after it, which never reaches 1 - confidence.

    Args:
        planned: see `interval_at_any_time`.
        confidence: 0.5 to 0.999999.
        seeds: looks, 1 to 400.

    Raises:
        StatisticsError: an argument out of its range.
    """
    _check(confidence, 0.0, planned)
    if not 1 <= seeds <= MOST_SEEDS:
        raise StatisticsError(f"{seeds} seeds to look at; expected 1 to {MOST_SEEDS}")
    # a little further than asked for, so that a study that grows computes them seldom
    further = planned
    while further < seeds:
        further = min(2 * further, MOST_SEEDS)
    return np.array(_boundary(int(planned), float(confidence), further)[:seeds])


def _check(confidence: float, resolution: float, planned: int) -> None:
    _check_confidence(confidence)
    if not 0 <= resolution < math.inf:
        raise StatisticsError(f"resolution {resolution} is not a number from 0 up, in the unit of the differences")
    if not 2 <= planned <= MOST_SEEDS or planned != int(planned):
        raise StatisticsError(f"planned {planned} is not a whole number of seeds from 2 to {MOST_SEEDS}")


def _check_confidence(confidence: float) -> None:
    lowest, highest = CONFIDENCES
    if not lowest <= confidence <= highest:
        raise StatisticsError(f"confidence {confidence} is not between {lowest} and {highest}, such as 0.95")


@lru_cache(maxsize=64)
def _boundary(planned: int, confidence: float, seeds: int) -> tuple[float, ...]:
    return tuple(islice(_critical(planned, 1 - confidence), seeds))


def _critical(planned: int, alpha: float) -> Iterator[float]:
    """Yield the critical value at 1, 2, 3, ... seeds, by carrying on the distribution of |t| where none was exceeded.

    With true mean 0, t at n + 1 seeds depends on the seeds before only through t at n: the direction in space of n
    independent normal values of mean 0, which says every t so far, is independent of their length. So one dimension
    is enough (as for a known spread: Armitage, McPherson & Rowe 1969). It is cut into cells; where a cell's middle
    leads is computed exactly, so no probability is lost.
    """
    yield math.inf
    where, weight = np.ones(1), np.ones(1)  # of one value, which has no t, any will do
    for n in count(2):
        part = (1 - _RESERVE) * (n / planned) ** _POWER if n <= planned else 1 - _RESERVE * planned / n
        critical = _exceeded_with(alpha * part, n, where, weight)
        yield critical
        cells = math.ceil(math.asinh(critical) / _CELL)
        grid = np.sinh(np.linspace(0, math.asinh(critical), 2 * cells + 1))
        weight = weight @ np.diff(_within(n, where[:, None], grid[::2]), axis=1)
        where = grid[1::2]


def _exceeded_with(probability: float, n: int, where: Floats, weight: Floats) -> float:
    """Return the |t| of n values that, with what was exceeded before, is exceeded with this probability."""

    def left(log_t: float) -> float:
        return float(weight @ _within(n, where, np.exp(log_t))) - (1 - probability)

    return math.exp(scipy.optimize.brentq(left, -30, 40, xtol=1e-10))


def _within(n: int, where: Floats, ends: Floats) -> Floats:
    """Return the probability that |t| of n values is at most `ends`, from |t| of the first n - 1 of them.

    The direction of k values is their sum over the root of the sum of their squares; its square is k less a gap,
    k (k - 1)/(k - 1 + t^2). The value that is added, over the root of the sum of the squares before it, is w: Student's
    t with n - 1 degrees of freedom over sqrt(n - 1). It leads from direction u to (u + w)/sqrt(1 + w^2), which first
    rises and then falls. So that lies within ±e between the two roots of (u + w)^2 = e^2 (1 + w^2), or outside of them
    where e is above 1.

    Args:
        n: values, the added one included, at least 2.
        where: |t| of n - 1 values, above 0.
        ends: |t| of n values, from 0 up; both broadcast.
    """
    before, after = (t * np.sqrt(k / (k - 1 + t**2)) for t, k in ((where, n - 1), (ends, n)))
    gap_before, gap_after = (k * (k - 1) / (k - 1 + t**2) for t, k in ((where, n - 1), (ends, n)))
    under = gap_after - gap_before  # 1 + u^2 - e^2, of which t in the millions would leave no digit
    reach = before + after * np.sqrt(np.maximum(under, 0.0))
    with np.errstate(divide="ignore"):
        far = -reach / (1 - after**2)
    near = (1 - under) / reach  # the product of the roots over the other one: no digits cancel
    beyond_far, beyond_near = (scipy.special.stdtr(n - 1, math.sqrt(n - 1) * root) for root in (far, near))
    chance: Floats = np.where(after <= 1, beyond_near - beyond_far, 1 - beyond_far + beyond_near)
    return np.where(under <= 0, 1.0, chance)
