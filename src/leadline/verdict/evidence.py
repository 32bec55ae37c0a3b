"""The frames of a study, looked up: which trials count, and which values they have."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from leadline.spec import DataSpec
from leadline.spec.contrast import TO_TARGET, ContrastSpec
from leadline.stats.survival import convergence_epoch
from leadline.study import Study
from leadline.verdict.metrics import ERRORS, Curve, Waited, area, curves, final_values, waited

Prediction = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
"""Of one trial: classes predicted and true, each of shape [test images]."""


@dataclass(frozen=True)
class Trial:
    """A trial of the study, as far as its end is known."""

    hash: str
    seed: int
    state: str
    seconds: float


@dataclass(frozen=True)
class Evidence:
    """The frames, looked up."""

    data: Mapping[str, DataSpec]  # by arm
    trials: Mapping[str, tuple[Trial, ...]]  # by arm
    finals: Mapping[str, Mapping[str, float]]  # by metric and trial; finished trials and finite values only
    curves: Mapping[str, Curve]  # by trial; only where a contrast asks for what they show
    converged: Mapping[str, int]  # trial -> epoch of convergence
    predictions: Mapping[str, Prediction]

    def values(self, arm: str, metric: str) -> dict[int, tuple[str, float]]:
        """Seed -> hash and metric of each trial of an arm that has finished."""
        found = self.finals[metric]
        return {
            trial.seed: (trial.hash, found[trial.hash]) for trial in self.trials.get(arm, ()) if trial.hash in found
        }

    def on_the_same_data(self, contrast: ContrastSpec) -> Iterable[float]:
        """The contrast's metric of all trials on its arms' data, for on other images it moves in other steps."""
        same = {self.data[contrast.a], self.data[contrast.b]}
        for arm in self.trials:
            if self.data.get(arm) in same:
                yield from (value for _, value in self.values(arm, contrast.metric).values())

    def waited(self, arm: str, contrast: ContrastSpec) -> dict[int, Waited]:
        """Seed -> time to the contrast's target of each trial of an arm that has finished or diverged."""
        target = contrast.target or 0.0
        found = (
            (trial, waited(self.curves.get(trial.hash), contrast.metric, target, trial.state == "diverged"))
            for trial in self.trials.get(arm, ())
            if trial.state in ("finished", "diverged")
        )
        return {trial.seed: one for trial, one in found if one}

    def planned(self, study: Study, arm: str) -> int:
        """Trials of an arm that there are to be; of a study that decides while seeds are added, so far."""
        return len(study.spec.seed_values) if study.spec.decide is None else len(self.trials.get(arm, ()))

    def ended(self, study: Study) -> dict[str, set[int]]:
        """Arm -> seeds whose trials have finished or diverged."""
        over = ("finished", "diverged")
        return {
            arm.name: {trial.seed for trial in self.trials.get(arm.name, ()) if trial.state in over}
            for arm in study.arms
        }

    def tested(self) -> dict[str, int]:
        """Arm -> images that its trials were tested on, where they left predictions."""
        return {
            arm: len(self.predictions[trial.hash][1])
            for arm, trials in self.trials.items()
            for trial in trials
            if trial.hash in self.predictions
        }

    def count(self, arm: str, state: str) -> int:
        """Trials of an arm in a state."""
        return sum(trial.state == state for trial in self.trials.get(arm, ()))


def gather(
    study: Study, trials: pd.DataFrame, records: pd.DataFrame, predictions: Mapping[str, Prediction]
) -> Evidence:
    """Return the frames of a study, looked up; trials that have not finished have no values."""
    asked = {contrast.metric for contrast in study.contrasts}
    by_arm: dict[str, list[Trial]] = defaultdict(list)
    columns = (trials[name] for name in ("trial", "arm", "seed", "state", "seconds"))
    for key, arm, seed, state, seconds in zip(*columns, strict=True):
        by_arm[arm].append(Trial(key, int(seed), state, math.nan if pd.isna(seconds) else float(seconds)))
    finished = {trial.hash for group in by_arm.values() for trial in group if trial.state == "finished"}
    kept = records[records["trial"].isin(finished) & np.isfinite(records["value"].astype(float))]
    finals = {metric: values for metric, values in final_values(kept).items() if metric in (*ERRORS, *asked)}
    by_epoch = curves(records) if not {"learning_curve_area", *TO_TARGET}.isdisjoint(asked) else {}
    if "learning_curve_area" in asked:
        areas = {key: area(curve) for key, curve in by_epoch.items() if key in finished}
        finals["learning_curve_area"] = {key: value for key, value in areas.items() if value is not None}
    accuracies = kept[(kept["split"] == "validation") & (kept["name"] == "accuracy")].sort_values("epoch")
    converged = {}
    for key, curve in accuracies.groupby("trial"):
        place = convergence_epoch(curve["value"].to_numpy(dtype=float))
        if place is not None:
            converged[str(key)] = int(curve["epoch"].iloc[place - 1])
    in_order = {arm: tuple(sorted(group, key=lambda trial: trial.seed)) for arm, group in by_arm.items()}
    data = {arm.name: arm.trial.data for arm in study.arms}
    return Evidence(data, in_order, finals, by_epoch, converged, predictions)
