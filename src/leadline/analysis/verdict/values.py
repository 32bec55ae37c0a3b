"""What contrasts compare, as one value per trial; of times to a target, as pairs whose end is known.

A trial that ends above its target has no time to it, only a time that it is longer than. So that pairs stay pairs,
times are compared up to a horizon within which all of them are known, and the mean of what is compared is the
restricted mean (Irwin 1949; Royston & Parmar 2013). Without earlier censoring these are the pseudo-observations of
Andersen, Hansen & Klein (2004), complete data to which the paired statistics apply.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from leadline.analysis.stats.survival import Earlier, convergence_epoch, earlier, first_epoch, kaplan_meier, up_to
from leadline.parts.metrics import Curve, FinalMetric, Metric, TimeMetric, metrics

Floats = NDArray[np.float64]

CURVE_RECORDS = (("validation", "error"), ("time", "seconds"))
"""Split and name of the records that curves are read from."""
CONVERGENCE_RECORD = ("validation", "accuracy")
"""Those of the record that tells when a trial converged."""

ALMOST = 1e-9
"""Per cent: an accuracy of 0.95 is an error of 5.000000000000004%, and reaches 5%."""


@dataclass(frozen=True)
class Waited:
    """When a trial reached a target or, where it did not, how long it was watched."""

    time: float  # of a trial that diverged: when it did, though it will never reach the target
    reached: bool
    diverged: bool
    whole: float  # how long the trial was watched
    epochs: int  # in all


@dataclass(frozen=True)
class ToTarget:
    """What paired trials show of the time to a target, in epochs or seconds."""

    target: float  # validation error, per cent
    horizon: float  # longer times, and those of trials that never reached the target, count as this
    reached_a: int  # trials that reached the target by the horizon
    reached_b: int
    median_a: float | None  # Kaplan-Meier; None where half of the trials or more did not reach it
    median_b: float | None
    earlier: Earlier  # which side was first, pair by pair: sign test

    @property
    def silent(self) -> bool:
        """Whether no trial reached the target: times are all equal at the horizon, which says nothing of them."""
        return self.reached_a + self.reached_b == 0


def final_values(records: pd.DataFrame, custom: Iterable[Metric] = ()) -> dict[str, dict[str, float]]:
    """Return metric -> trial -> value after the last epoch, of metrics that are recorded.

    Args:
        records: of finished trials, finite: trial, split, name, value.
        custom: metrics beside the built-in ones.
    """
    found = {}
    for one in (*metrics().values(), *custom):
        if isinstance(one, FinalMetric) and one.record is not None:
            split, name = one.record
            part = records[(records["split"] == split) & (records["name"] == name)]
            found[one.name] = dict(zip(part["trial"], part["value"].astype(float), strict=True))
    return found


def curves(records: pd.DataFrame) -> dict[str, Curve]:
    """Return trial -> its validation errors and training seconds, epoch by epoch.

    Args:
        records: trial, epoch, split, name, value.
    """
    wanted = pd.Series(False, index=records.index)
    for split, name in CURVE_RECORDS:
        wanted |= (records["split"] == split) & (records["name"] == name)
    # a trial that stands in two arms has its records twice
    once = records[wanted].groupby(["trial", "epoch", "split"])["value"].first().unstack("split")
    once = once.reindex(columns=["validation", "time"]).astype(float)
    found = {}
    for trial, rows in once.groupby(level="trial"):
        epochs = rows.index.get_level_values("epoch").to_numpy(dtype=float)
        whole = np.array_equal(epochs, np.arange(1, len(epochs) + 1))
        seconds = np.cumsum(rows["time"].to_numpy()) if whole else np.full(len(epochs), math.nan)
        found[str(trial)] = Curve(epochs, rows["validation"].to_numpy(), seconds)
    return found


def convergence_epochs(records: pd.DataFrame, chance: Mapping[str, float]) -> dict[str, int]:
    """Return trial -> epoch from which its validation accuracy stays where it ends; only of trials that converged.

    Args:
        records: of finished trials: trial, epoch, split, name, value.
        chance: trial -> accuracy, a fraction, of giving every test image the most common label; of a trial without it,
            it is not known whether it has learned.
    """
    split, name = CONVERGENCE_RECORD
    rows = np.flatnonzero((records["split"] == split) & (records["name"] == name))
    numbers, trials = pd.factorize(records["trial"])
    numbers, epochs, values = (one[rows] for one in (numbers, records["epoch"].to_numpy(), records["value"].to_numpy()))
    order = np.lexsort((epochs, numbers))
    epochs, values = epochs[order], values[order].astype(float)
    starts = np.searchsorted(numbers[order], np.arange(len(trials) + 1))
    found = {}
    for trial, start, end in zip(trials, starts[:-1], starts[1:], strict=True):
        share = chance.get(str(trial))
        if share is not None and (place := convergence_epoch(values[start:end], share)):
            found[str(trial)] = int(epochs[start:end][place - 1])
    return found


def waited(curve: Curve | None, metric: TimeMetric, target: float, diverged: bool) -> Waited | None:
    """Return when a trial first was at a validation error of the target or less; None where that is not recorded.

    Args:
        curve: None: no epoch was ended.
        metric: whose clock it is.
        target: per cent.
        diverged: whether the trial ended that way; if it had reached the target before, it had.
    """
    if curve is None:
        return Waited(0.0, False, True, 0.0, 0) if diverged else None
    clock = metric.clock(curve)
    known = np.isfinite(curve.errors)
    place = first_epoch(np.where(known, -curve.errors, -math.inf), -(target + ALMOST))
    time = float(clock[place - 1 if place else -1])
    if not math.isfinite(time) or not (known.any() or diverged):
        return None
    return Waited(time, place is not None, diverged, float(clock[-1]), len(clock))


def to_target(
    target: float, a: Sequence[Waited], b: Sequence[Waited]
) -> tuple[ToTarget, tuple[float, ...], tuple[float, ...]] | None:
    """Return what pairs show of the time to a target, and the time up to the horizon of each, first a, then b.

    The horizon is the shortest time after which a trial that had not reached the target, and might have, was watched
    no longer; where there is none, the longest that a trial was watched, and every time counts in full. A trial that
    diverged will never reach the target, so that its time is known to lie beyond any horizon.

    Args:
        target: validation error, per cent.
        a, b: of the same pairs, in the same order.

    Returns:
        None where there is no pair, or every trial diverged before its first epoch ended.
    """
    every = (*a, *b)
    longest = max((one.whole for one in every if math.isfinite(one.whole)), default=0.0)
    if longest <= 0:
        return None
    cut = [one.time for one in every if not one.reached and not one.diverged]
    horizon = min(cut) if cut else longest
    times_a, times_b = (
        np.array([longest if one.diverged and not one.reached else one.time for one in side]) for side in (a, b)
    )
    done_a, done_b = (np.array([one.reached for one in side]) for side in (a, b))
    known_a, known_b = up_to(times_a, done_a, horizon), up_to(times_b, done_b, horizon)
    found = ToTarget(
        target=target,
        horizon=horizon,
        reached_a=int(np.sum(done_a & (times_a <= horizon))),
        reached_b=int(np.sum(done_b & (times_b <= horizon))),
        median_a=kaplan_meier(times_a, done_a).median,
        median_b=kaplan_meier(times_b, done_b).median,
        earlier=earlier(times_a, done_a, times_b, done_b),
    )
    return found, tuple(known_a.tolist()), tuple(known_b.tolist())


def step_of_clock(trials: Sequence[Waited]) -> float:
    """Return the step in which times to a target move: the mean length of an epoch, which is 1 if told in epochs."""
    lengths = [one.whole / one.epochs for one in trials if one.epochs and math.isfinite(one.whole)]
    return float(np.mean(lengths)) if lengths else 0.0
