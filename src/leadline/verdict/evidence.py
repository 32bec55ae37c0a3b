"""From tidy frames to findings: which trials count, how they pair, what is decided."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from leadline.stats import McNemar, Summary, convergence_epoch, decide, holm, mcnemar, paired, summarise
from leadline.study import Arm, ContrastSpec, Study
from leadline.verdict import words
from leadline.verdict.findings import ArmFinding, ContrastFinding, Findings

Predictions = Mapping[str, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]

FINAL_SPLITS = {"test_error": "final-test", "train_error": "final-train", "validation_error": "final-validation"}
"""Metric -> the split whose error, in evaluation mode after the last epoch, it is."""


@dataclass(frozen=True)
class _Trial:
    hash: str
    seed: int
    state: str
    seconds: float


@dataclass(frozen=True)
class _Evidence:
    """The frames, looked up."""

    trials: Mapping[str, tuple[_Trial, ...]]  # by arm
    finals: Mapping[str, Mapping[str, float]]  # by metric and trial; finished trials and finite values only
    converged: Mapping[str, int]  # trial -> epoch of convergence
    predictions: Predictions

    def values(self, arm: str, metric: str) -> dict[int, tuple[str, float]]:
        """Seed -> hash and metric of each trial of an arm that has finished."""
        found = self.finals[metric]
        return {
            trial.seed: (trial.hash, found[trial.hash]) for trial in self.trials.get(arm, ()) if trial.hash in found
        }

    def count(self, arm: str, state: str) -> int:
        """Trials of an arm in a state."""
        return sum(trial.state == state for trial in self.trials.get(arm, ()))


def find(study: Study, trials: pd.DataFrame, records: pd.DataFrame, predictions: Predictions) -> Findings:
    """Return what a study shows so far; trials that have not finished are counted, never filled in.

    A contrast pairs its arms by seed, over the seeds at which both finished; its decision rests on the 95% paired-t
    interval of the differences in error.

    Args:
        study: the study, expanded.
        trials: a row per trial: trial (hash), arm, seed, state, seconds.
        records: a row per measured value: trial, epoch, split, name, value; errors in per cent, accuracies fractions.
        predictions: trial hash -> classes predicted and true, each of shape [test images].
    """
    evidence = _gather(trials, records, predictions)
    arms = tuple(_arm(arm, len(study.spec.seed_values), evidence) for arm in study.arms)
    drafts = [_contrast(contrast, study.spec.margin, evidence) for contrast in study.contrasts]
    adjusted = holm([draft.paired.p if draft.paired else None for draft in drafts])
    t_adjusted = holm([draft.paired.t_p if draft.paired else None for draft in drafts])
    contrasts = [
        replace(draft, p_adjusted=_or_none(p), t_p_adjusted=_or_none(t_p))
        for draft, p, t_p in zip(drafts, adjusted, t_adjusted, strict=True)
    ]
    planned = {arm.name: arm.planned for arm in arms}
    tests = sum(contrast.t_p_adjusted is not None for contrast in contrasts)
    said = tuple(replace(contrast, sentence=words.sentence(contrast, planned, tests)) for contrast in contrasts)
    return Findings(
        study=study.spec.name,
        title=study.spec.title,
        headline=words.headline(arms, said),
        arms=arms,
        contrasts=said,
        notes=words.notes(arms, said),
    )


def _gather(trials: pd.DataFrame, records: pd.DataFrame, predictions: Predictions) -> _Evidence:
    by_arm: dict[str, list[_Trial]] = defaultdict(list)
    columns = (trials[name] for name in ("trial", "arm", "seed", "state", "seconds"))
    for key, arm, seed, state, seconds in zip(*columns, strict=True):
        by_arm[arm].append(_Trial(key, int(seed), state, math.nan if pd.isna(seconds) else float(seconds)))
    finished = {trial.hash for group in by_arm.values() for trial in group if trial.state == "finished"}
    kept = records[records["trial"].isin(finished) & np.isfinite(records["value"].astype(float))]
    errors = kept[kept["name"] == "error"]
    finals = {
        metric: dict(zip(part["trial"], part["value"].astype(float), strict=True))
        for metric, part in ((metric, errors[errors["split"] == split]) for metric, split in FINAL_SPLITS.items())
    }
    curves = kept[(kept["split"] == "validation") & (kept["name"] == "accuracy")].sort_values("epoch")
    converged = {}
    for key, curve in curves.groupby("trial"):
        place = convergence_epoch(curve["value"].to_numpy(dtype=float))
        if place is not None:
            converged[str(key)] = int(curve["epoch"].iloc[place - 1])
    in_order = {arm: tuple(sorted(group, key=lambda trial: trial.seed)) for arm, group in by_arm.items()}
    return _Evidence(in_order, finals, converged, predictions)


def _arm(arm: Arm, planned: int, evidence: _Evidence) -> ArmFinding:
    finished = [trial for trial in evidence.trials.get(arm.name, ()) if trial.state == "finished"]
    summaries = {
        metric: _summary(value for _, value in evidence.values(arm.name, metric).values()) for metric in FINAL_SPLITS
    }
    return ArmFinding(
        name=arm.name,
        base=arm.base,
        factors=arm.factors,
        planned=planned,
        finished=len(finished),
        diverged=evidence.count(arm.name, "diverged"),
        failed=evidence.count(arm.name, "failed"),
        metrics={metric: summary for metric, summary in summaries.items() if summary},
        convergence_epoch=_summary(
            evidence.converged[trial.hash] for trial in finished if trial.hash in evidence.converged
        ),
        seconds=_summary(trial.seconds for trial in finished if math.isfinite(trial.seconds)),
    )


def _contrast(contrast: ContrastSpec, margin: float, evidence: _Evidence) -> ContrastFinding:
    a, b = evidence.values(contrast.a, contrast.metric), evidence.values(contrast.b, contrast.metric)
    seeds = tuple(sorted(a.keys() & b.keys()))
    values_a, values_b = (tuple(side[seed][1] for seed in seeds) for side in (a, b))
    result = None
    if seeds:
        resolution = _resolution(evidence.finals[contrast.metric].values(), margin)
        result = paired(values_a, values_b, resolution=resolution)
    pairs = [(seed, a[seed][0], b[seed][0]) for seed in seeds] if contrast.metric == "test_error" else []
    tests = (_mcnemar(seed, evidence.predictions.get(one), evidence.predictions.get(two)) for seed, one, two in pairs)
    return ContrastFinding(
        a=contrast.a,
        b=contrast.b,
        metric=contrast.metric,
        margin=margin,
        seeds=seeds,
        differences=tuple(x - y for x, y in zip(values_a, values_b, strict=True)),
        diverged_a=evidence.count(contrast.a, "diverged"),
        diverged_b=evidence.count(contrast.b, "diverged"),
        paired=result,
        p_adjusted=None,
        mcnemar=tuple(test for test in tests if test),
        decision=decide(result.ci95 if result else None, margin),
        sentence="",
        values_a=values_a,
        values_b=values_b,
    )


def _mcnemar(seed: int, a: tuple[Any, Any] | None, b: tuple[Any, Any] | None) -> McNemar | None:
    """None where a trial has no predictions, or the two saw different test images."""
    if a is None or b is None or not np.array_equal(a[1], b[1]):
        return None
    return mcnemar(a[0] == a[1], b[0] == b[1], seed)


def _resolution(values: Iterable[float], margin: float) -> float:
    """The step in which errors move: the smallest gap between any two of the study, at most the margin."""
    gaps = np.diff(np.unique(np.fromiter(values, dtype=float)))
    # per cent that differ by less differ by rounding alone: one image in a million is 0.0001
    return float(min([margin, *gaps[gaps > 1e-7]]))


def _summary(values: Iterable[float]) -> Summary | None:
    found = list(values)
    return summarise(found) if found else None


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
