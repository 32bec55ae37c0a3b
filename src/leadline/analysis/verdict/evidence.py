"""The frames of a study, looked up: which trials count, and which values they have."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain, groupby

import numpy as np
import pandas as pd

from leadline.analysis.verdict.design import Contrast, Design, DesignArm
from leadline.analysis.verdict.tested import ImageSets, Tested
from leadline.analysis.verdict.values import Waited, convergence_epochs, curves, final_values, waited
from leadline.parts.metrics import Curve, CurveMetric, FinalMetric, Metric, Outputs, TimeMetric, metrics
from leadline.seeds import SeedName, seed_order

TRIAL_COLUMNS = ("trial", "arm", "seed", "state", "seconds", "created", "ended")
RECORD_COLUMNS = ("trial", "epoch", "split", "name", "value")
"""Columns of the frames that are read."""


@dataclass(frozen=True)
class Trial:
    """A trial of the study, as far as its end is known."""

    hash: str
    seed: SeedName
    state: str
    seconds: float
    created: float = -math.inf  # when the study got it, in seconds; -inf: not known
    ended: float = math.inf  # inf: it has not, or that is not known


@dataclass(frozen=True)
class Evidence:
    """The frames, looked up."""

    arms: Mapping[str, DesignArm]  # by name
    trials: Mapping[str, tuple[Trial, ...]]  # by arm
    finals: Mapping[str, Mapping[str, float]]  # by metric and trial; finished trials and finite values only
    curves: Mapping[str, Curve]  # by trial; only where a contrast asks for what they show
    converged: Mapping[str, int]  # trial -> epoch of convergence
    tested: Mapping[str, Tested]  # by trial; of those that left outputs for the test images
    missing: Mapping[str, Mapping[str, str]]  # metric -> finished trial without it -> why
    at_chance: frozenset[str]  # finished trials that have learned nothing
    memorised: frozenset[str]  # finished trials that have learned the training images and guess on the test images

    def values(self, arm: str, name: str) -> dict[SeedName, tuple[str, float]]:
        """Seed -> hash and metric of each trial of an arm that has finished."""
        found = self.finals.get(name, {})
        return {
            trial.seed: (trial.hash, found[trial.hash]) for trial in self.trials.get(arm, ()) if trial.hash in found
        }

    def waited(self, arm: str, contrast: Contrast) -> dict[SeedName, Waited]:
        """Seed -> time to the contrast's target of each trial of an arm that has finished or diverged."""
        target, clock = contrast.target or 0.0, contrast.kind
        assert isinstance(clock, TimeMetric)
        found = (
            (trial, waited(self.curves.get(trial.hash), clock, target, trial.state == "diverged"))
            for trial in self.trials.get(arm, ())
            if trial.state in ("finished", "diverged")
        )
        return {trial.seed: one for trial, one in found if one}

    def rounds(self, contrast: Contrast) -> tuple[tuple[SeedName, ...], ...]:
        """The seeds of a contrast, those together between which no verdict can have been shown, in order of time.

        A verdict was there to be seen if the trials of two seeds or more had ended before others were created; of arms
        of two studies, the verdict of either study too.
        """
        together = self._rounds(contrast.a, contrast.b)
        if not contrast.across:
            return together
        histories = (together, self._rounds(contrast.a, contrast.a), self._rounds(contrast.b, contrast.b))
        places = [{seed: place for place, group in enumerate(one) for seed in group} for one in histories]

        def moment(seed: SeedName) -> tuple[int, ...]:
            return tuple(place[seed] for place in places)

        return tuple(tuple(group) for _, group in groupby(sorted(chain(*together), key=moment), key=moment))

    def _rounds(self, *arms: str) -> tuple[tuple[SeedName, ...], ...]:
        a, b = ({trial.seed: trial for trial in self.trials.get(arm, ())} for arm in arms)
        seeds = [seed for seed in a if seed in b]
        created = {seed: max(a[seed].created, b[seed].created) for seed in seeds}
        ended = {seed: max(a[seed].ended, b[seed].ended) for seed in seeds}
        found: list[list[SeedName]] = [[]]
        before: list[float] = []  # when the trials of seeds that were created earlier ended
        in_order = sorted(seeds, key=lambda seed: created[seed])
        for moment, together in groupby(in_order, key=created.__getitem__):
            if sum(end <= moment for end in before) > 1:
                found.append([])
            found[-1] += (added := list(together))
            before += [ended[seed] for seed in added]
        return tuple(map(tuple, found))

    def ended(self, arm: str) -> dict[SeedName, bool]:
        """Seed -> whether the trial failed, of an arm's trials that have ended: it diverged, or has learned nothing."""
        return {
            trial.seed: trial.state == "diverged" or trial.hash in self.at_chance
            for trial in self.trials.get(arm, ())
            if trial.state in ("finished", "diverged")
        }

    def at_chance_of(self, arm: str, seeds: Iterable[SeedName]) -> int:
        """Trials of an arm, at some seeds, that have learned nothing."""
        among = set(seeds)
        return sum(trial.seed in among and trial.hash in self.at_chance for trial in self.trials.get(arm, ()))

    def test_images(self, arm: str) -> int | None:
        """Images that an arm's trials were tested on; None where they left no predictions."""
        found = (self.tested[one.hash].images.count for one in self.trials.get(arm, ()) if one.hash in self.tested)
        return next(found, None)

    def unrecorded(self, design: Design) -> dict[str, dict[str, int]]:
        """Metric -> why finished trials of its contrasts lack it -> how many do; of metrics that all have, nothing."""
        lacking: dict[str, dict[str, str]] = defaultdict(dict)
        for contrast in design.contrasts:
            reasons = self.missing.get(contrast.metric, {})
            for trial in chain(self.trials.get(contrast.a, ()), self.trials.get(contrast.b, ())):
                if trial.state == "finished" and trial.hash in reasons:
                    lacking[contrast.metric][trial.hash] = reasons[trial.hash]
        return {name: dict(Counter(trials.values())) for name, trials in lacking.items()}

    def count(self, arm: str, state: str) -> int:
        """Trials of an arm in a state."""
        return sum(trial.state == state for trial in self.trials.get(arm, ()))

    def finished_seeds(self, arm: str) -> set[SeedName]:
        """Seeds at which an arm's trial has finished."""
        return {trial.seed for trial in self.trials.get(arm, ()) if trial.state == "finished"}


def gather(
    design: Design, trials: pd.DataFrame, records: pd.DataFrame, outputs: Iterable[tuple[str, Outputs]]
) -> Evidence:
    """Return the frames of what is compared, looked up; trials that have not finished have no values."""
    by_arm: dict[str, list[Trial]] = defaultdict(list)
    columns = trials.reindex(columns=list(TRIAL_COLUMNS))
    columns["seconds"] = columns["seconds"].astype(float)
    for name, unknown in (("created", -math.inf), ("ended", math.inf)):
        columns[name] = _moments(columns[name], unknown)
    for key, arm, *rest in columns.itertuples(index=False):
        by_arm[arm].append(Trial(key, *rest))
    finished = {trial.hash for group in by_arm.values() for trial in group if trial.state == "finished"}
    tasks = {trial.hash: arm.task for arm in design.arms for trial in by_arm.get(arm.name, ())}
    kept = records[list(RECORD_COLUMNS)]
    counts = records["trial"].isin(finished) & np.isfinite(records["value"].astype(float))
    if not counts.all():
        kept = kept[counts]
    wanted = {name: one for name, one in design.metrics.items() if not isinstance(one, TimeMetric)}
    recorded = final_values(kept, design.metrics.values())
    finals = {one.name: recorded[one.name] for one in metrics().values() if one.summary and one.name in recorded}
    of_curves = any(isinstance(one, CurveMetric | TimeMetric) for one in design.metrics.values())
    by_epoch = curves(records) if of_curves else {}
    found = {name: dict(recorded.get(name, {})) for name in design.metrics}
    missing: dict[str, dict[str, str]] = defaultdict(dict)

    def complete(key: str, given: Outputs | None) -> None:
        """Look up what is not recorded of a finished trial, or why that cannot be done."""
        for name, one in wanted.items():
            if key not in found[name]:
                value = _computed(one, by_epoch.get(key), given)
                if value is not None and math.isfinite(value):
                    found[name][key] = value
                else:
                    missing[name][key] = one.reason_missing(given) or "its value is not finite"

    tested: dict[str, Tested] = {}
    at_chance: set[str] = set()
    memorised: set[str] = set()
    image_sets = ImageSets()
    for key, given in outputs:
        tested[key] = image_sets.tested(given)
        if key in finished:
            complete(key, given)
            task = tasks.get(key)
            if task is not None:
                if task.is_at_chance(given, recorded["train_error"].get(key)):
                    at_chance.add(key)
                elif task.is_at_chance(given, None):
                    memorised.add(key)
    for key in sorted(finished - tested.keys()):
        complete(key, None)
    chance = {key: one.images.chance for key, one in tested.items()}
    return Evidence(
        arms={arm.name: arm for arm in design.arms},
        trials={arm: tuple(sorted(group, key=lambda trial: seed_order(trial.seed))) for arm, group in by_arm.items()},
        finals=finals | found,
        curves=by_epoch,
        converged=convergence_epochs(kept, chance),
        tested=tested,
        missing=missing,
        at_chance=frozenset(at_chance),
        memorised=frozenset(memorised),
    )


def _moments(times: pd.Series, unknown: float) -> pd.Series:
    """Return times in seconds."""
    seconds: pd.Series = (pd.to_datetime(times, utc=True) - pd.Timestamp(0, tz="UTC")).dt.total_seconds()
    return seconds.fillna(unknown)


def _computed(one: Metric, curve: Curve | None, outputs: Outputs | None) -> float | None:
    """Return a finished trial's metric from its curve or from what it gave for test images; None where they lack it."""
    if isinstance(one, CurveMetric):
        return None if curve is None else one.compute(curve)
    return one.value(outputs) if isinstance(one, FinalMetric) and outputs is not None else None
