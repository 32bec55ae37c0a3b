"""How long until a target is reached, where some never reach it: epochs or seconds to an accuracy. Arrays in.

A trial that ends below its target has no time to the target, only a time that it is longer than: it is censored.
Leaving such trials out, or giving them their last epoch as if they had then arrived, makes the worse arm look better.

Where all trials were given the same time, the horizon, pairs stay pairs: the time up to the horizon, `up_to`, is
known of every trial, its mean is the restricted mean, and the paired statistics of `stats` and `sequential` take it.
Where some were stopped sooner, `restricted_mean` and `log_rank` compare arms, but not by pairs; `earlier` does.
"""

import math
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

from leadline.analysis.stats import StatisticsError
from leadline.analysis.stats.samples import RESAMPLES

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

SETTLED = 0.25
"""Share of the epochs, the last ones, over which a curve that has converged stays where it ends."""

LEARNED = 0.2
"""Share of the way from chance to no errors that a network must have gone before it can be said to converge."""


@dataclass(frozen=True)
class Survival:
    """The share of trials that have not reached their target, after each time at which one did or was censored."""

    times: tuple[float, ...]  # ascending
    share: tuple[float, ...]  # right after each time; 1 before the first
    low: tuple[float | None, ...]  # pointwise, log-log; None where the share is 0 or 1, which has no such interval
    high: tuple[float | None, ...]
    at_risk: tuple[int, ...]  # trials that had not reached it, and were still watched, right before
    median: float | None  # first time at which half or more have reached it; None where that is not seen


@dataclass(frozen=True)
class RestrictedMean:
    """Mean time to the target, where what lies beyond the horizon counts as the horizon."""

    n: int
    reached: int  # by the horizon
    horizon: float
    mean: float
    se: float
    low: float  # beta product interval, at `confidence`; no further than 0 and the horizon
    high: float


@dataclass(frozen=True)
class LogRank:
    """Do two groups reach the target at the same pace?"""

    statistic: float  # standard normal if they do; above 0: a reaches it more often, or sooner
    p: float  # two-sided


@dataclass(frozen=True)
class Earlier:
    """In how many pairs each side was known to reach the target first."""

    a_first: int
    b_first: int
    open: int  # at the same time, or not known which
    p: float  # sign test, exact, two-sided


def first_epoch(curve: ArrayLike, target: float) -> int | None:
    """Return the first epoch, from 1, at which a curve is at the target or above; None where it never is.

    Args:
        curve: shape [epochs], such as validation accuracies; a value that is not finite is below every target.
        target: in the curve's unit.

    Raises:
        StatisticsError: a curve that is not one-dimensional, or a target that is not finite.
    """
    x = np.asarray(curve, dtype=np.float64)
    if x.ndim != 1:
        raise StatisticsError(f"curve: shape {x.shape}; expected one dimension, a value per epoch")
    if not math.isfinite(target):
        raise StatisticsError(f"target {target} is not finite; expected a value in the curve's unit")
    there = np.flatnonzero(np.isfinite(x) & (x >= target))
    return int(there[0]) + 1 if there.size else None


def convergence_epoch(curve: ArrayLike, chance: float, tolerance: float = 0.01) -> int | None:
    """Return the first epoch, from 1, from which a curve of accuracies stays within the tolerance of its last value.

    A curve that is still rising, or that has not learned, has not converged, however flat it is: it must have been
    within the tolerance for the last `SETTLED` of its epochs, two at least, and end at `LEARNED` of the way from
    chance to 1, or above.

    Args:
        curve: accuracies between 0 and 1, shape [epochs]; a value that is not finite is outside the tolerance.
        chance: the accuracy of what has learned nothing, such as 0.1 for ten classes of one size.
        tolerance: of accuracies: 0.01 is one point.

    Returns:
        None for a curve that has not converged.

    Example:
        >>> convergence_epoch([0.5, 0.9, 0.98, 0.99], chance=0.1)
        3
        >>> convergence_epoch([0.1, 0.1, 0.1, 0.1], chance=0.1) is None
        True
    """
    x = np.asarray(curve, dtype=np.float64)
    if x.size < 2 or not x[-1] >= chance + LEARNED * (1 - chance):
        return None
    # 0.99 - 0.98 is above 0.01 in binary
    outside = np.flatnonzero(~(np.abs(x - x[-1]) <= tolerance + 1e-9))
    first = int(outside[-1]) + 1 if outside.size else 0
    return first + 1 if len(x) - first >= max(2, math.ceil(SETTLED * len(x))) else None


def up_to(times: ArrayLike, reached: ArrayLike, horizon: float) -> Floats:
    """Return the time to the target within the horizon, shape [n]: the horizon itself for those that took longer.

    The mean of it is the restricted mean (Irwin 1949; Royston & Parmar 2013), and differences of it between two arms
    are complete data. A trial that diverged never reaches a target: its time may be given as the horizon, censored.

    The paired t of such differences covers too little where few trials reach the target and arms differ, since it then
    sees hardly any spread: with one arm 1.5 to 3 times slower and 30% of the faster one's trials reaching it, 49 to 88%
    instead of 95% of 2 to 10 pairs, and with 70% reaching it, 86 to 95% (`python -m benchmarks.intervals`).

    Args:
        times: shape [n], when the target was reached or, where it was not, how long it was waited for.
        reached: shape [n], true where the target was reached.
        horizon: the same for all that are compared, above 0.

    Raises:
        StatisticsError: impossible times, or a trial that stopped before the horizon without reaching the target.
    """
    t, done = _checked("times", times, reached)
    _check_horizon(horizon)
    if short := np.flatnonzero(~done & (t < horizon)).tolist():
        raise StatisticsError(
            f"times: {t[short[0]]:g} at position {short[0]} was not the target's and lies before the horizon"
            f" {horizon:g}; take a horizon of at most {t[~done].min():g}, or restricted_mean"
        )
    return np.minimum(t, horizon)


def kaplan_meier(times: ArrayLike, reached: ArrayLike, confidence: float = 0.95) -> Survival:
    """Return the share that has not reached its target over time (Kaplan & Meier 1958), with its intervals.

    The intervals are Greenwood's on the log-log scale (Kalbfleisch & Prentice 1980), each at its confidence by itself.

    Args:
        times, reached: see `up_to`.
        confidence: between 0 and 1.

    Raises:
        StatisticsError: impossible times, or a confidence outside (0, 1).
    """
    t, done = _checked("times", times, reached)
    _check_confidence(confidence)
    curve = scipy.stats.ecdf(_censored(t, done)).sf
    share = np.asarray(curve.probabilities)
    at = np.asarray(curve.quantiles)
    inner = (share > 0) & (share < 1)
    with warnings.catch_warnings():
        # shares of 0 and 1 have no such interval
        warnings.simplefilter("ignore", RuntimeWarning)
        interval: Any = curve.confidence_interval(confidence, method="log-log")  # its ends are curves, not numbers
    low, high = (_where(inner, end.probabilities) for end in (interval.low, interval.high))
    half = np.flatnonzero(share <= 0.5 + 1e-12)
    return Survival(
        times=tuple(at.tolist()),
        share=tuple(share.tolist()),
        low=low,
        high=high,
        at_risk=tuple(int(np.sum(t >= moment)) for moment in at),
        median=float(at[half[0]]) if half.size else None,
    )


def restricted_mean(
    times: ArrayLike, reached: ArrayLike, horizon: float, confidence: float = 0.95, seed: int = 0
) -> RestrictedMean:
    """Return the mean time to the target up to a horizon: the area under the Kaplan-Meier curve (Irwin 1949).

    Standard error: Greenwood's, by Kaplan & Meier (1958), section 6. No interval comes from it: of three trials the
    normal one covers 54 to 74% instead of 95%, and Student's t 60 to 92%, for where no trial has reached the target
    they see no spread at all. The interval is the area under the ends of the beta product procedure (Fay, Brittain &
    Proschan 2013), in which the share left is a product of beta variables between each event and the next. Of complete
    times it is Gaffke's (2005), and where only reaching the target counts Clopper & Pearson's, so that it covers at
    least what it states at two trials as well, and is as wide as two trials leave it.

    Args:
        times, reached: see `up_to`.
        horizon: above 0, and no later than the last time, unless all had reached the target by then.
        confidence: between 0 and 1.
        seed: of the draws that the interval is made of.

    Raises:
        StatisticsError: impossible times, a confidence outside (0, 1), or a horizon at which the curve is not known.
    """
    t, done = _checked("times", times, reached)
    _check_confidence(confidence)
    _check_horizon(horizon)
    last = float(t.max())
    if horizon > last and not done[t == last].all():
        raise StatisticsError(
            f"horizon {horizon:g} lies beyond {last:g}, the last time at which a trial was watched; take at most that"
        )
    moments = np.unique(t[done & (t < horizon)])
    events = np.array([np.sum(done & (t == moment)) for moment in moments], dtype=np.float64)
    at_risk = np.array([np.sum(t >= moment) for moment in moments], dtype=np.float64)
    share = np.cumprod(1 - events / at_risk)
    edges = np.concatenate([[0.0], moments, [horizon]])
    areas = np.diff(edges) * np.concatenate([[1.0], share])
    mean = float(areas.sum())
    after = mean - np.cumsum(areas)[:-1]  # area from each moment on
    survivors = at_risk - events
    terms = np.divide(after**2 * events, at_risk * survivors, out=np.zeros_like(share), where=survivors > 0)
    se = math.sqrt(terms.sum())
    least, most = _areas(t, done, horizon, seed)
    return RestrictedMean(
        n=len(t),
        reached=int(np.sum(done & (t <= horizon))),
        horizon=float(horizon),
        mean=mean,
        se=se,
        low=float(np.quantile(least, (1 - confidence) / 2)),
        high=float(np.quantile(most, (1 + confidence) / 2)),
    )


def _areas(times: Floats, reached: Flags, horizon: float, seed: int) -> tuple[Floats, Floats]:
    """Return draws of the area under the curve, shape [draws]: with each fall as early as it may be, and as late."""
    draw, done = np.random.default_rng(seed), reached & (times <= horizon)
    order = np.lexsort((~done, times))  # at one time, those who reach the target come first
    edges = np.append(np.minimum(times[order], horizon), horizon)
    least, most, share, fall = np.zeros(RESAMPLES), np.zeros(RESAMPLES), np.ones(RESAMPLES), draw.random(RESAMPLES)
    passed = np.diff(edges, prepend=0.0)
    for place, event in enumerate(done[order].tolist()):
        after = share * fall ** (1 / (len(order) - place))  # beta: the smallest of as many as are watched
        least += passed[place] * after
        most += passed[place] * share
        if event:
            share, fall = after, draw.random(RESAMPLES)
    return least, most + passed[-1] * share


def log_rank(times_a: ArrayLike, reached_a: ArrayLike, times_b: ArrayLike, reached_b: ArrayLike) -> LogRank:
    """Return the log-rank test (Mantel 1966): are the times to the target of two independent groups alike?

    With a few trials per group its p is approximate. Where neither group ever reached the target, p is 1.

    Args:
        times_a, reached_a: see `up_to`.
        times_b, reached_b: of the other group, which may be of another size.

    Raises:
        StatisticsError: impossible times.
    """
    a, b = _checked("times_a", times_a, reached_a), _checked("times_b", times_b, reached_b)
    # without an event at which both groups are watched nothing is compared, and the statistic would be 0/0
    moments = [moment for t, done in (a, b) for moment in t[done]]
    if not any(_compares(moment, a, b) for moment in moments):
        return LogRank(0.0, 1.0)
    found = scipy.stats.logrank(_censored(*a), _censored(*b))
    return LogRank(float(found.statistic), float(found.pvalue))


def earlier(times_a: ArrayLike, reached_a: ArrayLike, times_b: ArrayLike, reached_b: ArrayLike) -> Earlier:
    """Return the sign test of pairs: which side reaches the target first, where that is known?

    A side is first where it reached the target at a time at which the other was watched and had not yet. It is the
    log-rank test with each pair a stratum, by exact probabilities instead of the normal's. Like every sign test it
    needs six pairs to find anything at 5%.

    Args:
        times_a, reached_a: see `up_to`.
        times_b, reached_b: of the same pairs, in the same order.

    Raises:
        StatisticsError: impossible times, or lengths that differ.
    """
    (a, done_a), (b, done_b) = _checked("times_a", times_a, reached_a), _checked("times_b", times_b, reached_b)
    if len(a) != len(b):
        raise StatisticsError(
            f"times_a has {len(a)} values and times_b has {len(b)}; pairs need the same number of each"
        )
    # one that was given up at a time had not reached the target then
    a_first = int(np.sum(done_a & ((a < b) | ((a == b) & ~done_b))))
    b_first = int(np.sum(done_b & ((b < a) | ((a == b) & ~done_a))))
    known = a_first + b_first
    p = float(scipy.stats.binomtest(a_first, known).pvalue) if known else 1.0
    return Earlier(a_first, b_first, len(a) - known, p)


def _where(known: Flags, values: ArrayLike) -> tuple[float | None, ...]:
    return tuple(float(value) if there else None for value, there in zip(np.asarray(values), known, strict=True))


def _compares(moment: float, a: tuple[Floats, Flags], b: tuple[Floats, Flags]) -> bool:
    """Say whether an event tells the groups apart: both are watched, and not every one of them reaches it then."""
    watched = [int(np.sum(t >= moment)) for t, _ in (a, b)]
    events = sum(int(np.sum(done & (t == moment))) for t, done in (a, b))
    return min(watched) > 0 and events < sum(watched)


def _censored(times: Floats, reached: Flags) -> "scipy.stats.CensoredData":
    return scipy.stats.CensoredData.right_censored(times, ~reached)


def _checked(what: str, times: ArrayLike, reached: ArrayLike) -> tuple[Floats, Flags]:
    t, done = np.asarray(times, dtype=np.float64), np.asarray(reached)
    if t.ndim != 1 or t.size == 0:
        raise StatisticsError(f"{what}: shape {t.shape}; expected one dimension with at least one value")
    if done.shape != t.shape or done.dtype != np.bool_:
        raise StatisticsError(
            f"{what}: reached has shape {done.shape} and type {done.dtype}; expected a true or false for each of the"
            f" {len(t)} times"
        )
    if not (np.isfinite(t) & (t >= 0)).all():
        place = int(np.argmin(np.isfinite(t) & (t >= 0)))
        raise StatisticsError(f"{what}: {t[place]} at position {place} is not a time; expected a number from 0 up")
    return t, done


def _check_confidence(confidence: float) -> None:
    if not 0 < confidence < 1:
        raise StatisticsError(f"confidence {confidence} is not between 0 and 1, such as 0.95")


def _check_horizon(horizon: float) -> None:
    if not 0 < horizon < math.inf:
        raise StatisticsError(f"horizon {horizon} is not a number above 0, in the unit of the times")
