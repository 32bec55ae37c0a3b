"""From tidy frames to findings: which trials count, how they pair, what is decided."""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from leadline.spec import DataSpec
from leadline.spec.contrast import IN_POINTS, TO_TARGET, ContrastSpec
from leadline.stats import (
    McNemar,
    Summary,
    benjamini_hochberg,
    decide,
    holm,
    mcnemar,
    paired,
    summarise,
)
from leadline.stats.survival import convergence_epoch
from leadline.study.expand import Arm, ExpandedStudy
from leadline.study.rounds import Round
from leadline.verdict import words
from leadline.verdict.across import about_data_sets, across_data_sets, several_data_sets
from leadline.verdict.factors import about_factors, factor_effects, with_adjusted
from leadline.verdict.findings import ArmFinding, ContrastFinding, Findings
from leadline.verdict.looks import at_every_look
from leadline.verdict.metrics import (
    ERRORS,
    Curve,
    ToTarget,
    Waited,
    area,
    curves,
    final_values,
    step_of_clock,
    to_target,
    waited,
)
from leadline.verdict.tuned import Tuning, tuning_words

Predictions = Mapping[str, tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]


@dataclass(frozen=True)
class _Trial:
    hash: str
    seed: int
    state: str
    seconds: float


@dataclass(frozen=True)
class _Evidence:
    """The frames, looked up."""

    data: Mapping[str, DataSpec]  # by arm
    trials: Mapping[str, tuple[_Trial, ...]]  # by arm
    finals: Mapping[str, Mapping[str, float]]  # by metric and trial; finished trials and finite values only
    curves: Mapping[str, Curve]  # by trial; only where a contrast asks for what they show
    converged: Mapping[str, int]  # trial -> epoch of convergence
    predictions: Predictions

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

    def waited(self, arm: str, contrast: ContrastSpec) -> dict[int, tuple[str, Waited]]:
        """Seed -> hash and time to the contrast's target of each trial of an arm that has finished or diverged."""
        target = contrast.target or 0.0
        found = (
            (trial, waited(self.curves.get(trial.hash), contrast.metric, target, trial.state == "diverged"))
            for trial in self.trials.get(arm, ())
            if trial.state in ("finished", "diverged")
        )
        return {trial.seed: (trial.hash, one) for trial, one in found if one}

    def planned(self, study: ExpandedStudy, arm: str) -> int:
        """Trials of an arm that there are to be; of a study that decides while seeds are added, so far."""
        return len(study.seed_values) if study.decide is None else len(self.trials.get(arm, ()))

    def ended(self, study: ExpandedStudy) -> dict[str, set[int]]:
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


def find(
    study: ExpandedStudy,
    trials: pd.DataFrame,
    records: pd.DataFrame,
    predictions: Predictions,
    tuning: Tuning | None = None,
) -> Findings:
    """Return what a study shows so far; trials that have not finished are counted, never filled in.

    A contrast pairs its arms by seed, over the seeds at which both finished; its decision rests on the 95% paired-t
    interval of the differences in error. Where seeds are added until contrasts are decided it rests on the interval
    that holds at every look, over the seeds before the first whose trials have not both ended.

    Args:
        study: the study, expanded.
        trials: a row per trial: trial (hash), arm, seed, state, seconds.
        records: a row per measured value: trial, epoch, split, name, value; errors in per cent, accuracies fractions.
        predictions: trial hash -> classes predicted and true, each of shape [test images].
        tuning: what the study's search shows, of which the headline tells; None: what the study says of it.
    """
    asked = {contrast.metric for contrast in study.contrasts}
    evidence = _gather(study, trials, records, predictions, asked)
    arms = tuple(_arm(arm, evidence.planned(study, arm.name), evidence) for arm in study.arms)
    drafts = [_contrast(contrast, study.spec.margin, evidence) for contrast in study.contrasts]
    gone_through: tuple[Round, ...] = ()
    if study.decide is not None:
        drafts, gone_through = at_every_look(study, drafts, evidence.ended(study), evidence.tested())
    adjust = holm if study.spec.correction == "holm" else benjamini_hochberg
    adjusted = adjust([draft.paired.p if draft.paired else None for draft in drafts])
    t_adjusted = adjust([draft.paired.t_p if draft.paired else None for draft in drafts])
    contrasts = [
        replace(draft, p_adjusted=_or_none(p), t_p_adjusted=_or_none(t_p))
        for draft, p, t_p in zip(drafts, adjusted, t_adjusted, strict=True)
    ]
    planned = {arm.name: arm.planned for arm in arms}
    tests = sum(contrast.t_p_adjusted is not None for contrast in contrasts)
    said = tuple(
        replace(contrast, sentence=words.sentence(contrast, planned, tests, study.spec.correction))
        for contrast in contrasts
    )
    # seeds whose number hangs on what they showed are no sample for statistics that look once
    fixed = said if study.decide is None else ()
    effects = factor_effects(arms, fixed)
    effects = with_adjusted(effects, adjust([effect.paired.t_p for effect in effects]))
    across = across_data_sets(study, fixed)
    return Findings(
        study=study.name,
        title=study.title,
        headline=(
            *words.headline(arms, said, study.spec.correction, [one.sentence for one in across][: words.LONGEST]),
            *_tuned(study, tuning),
        ),
        arms=arms,
        contrasts=said,
        notes=(
            *study.matching,
            *words.notes(arms, said, study.spec.correction, several_data_sets(study)),
            *_about_tuning(study),
            *about_factors(effects),
            *about_data_sets(across),
        ),
        correction=study.spec.correction,
        factors=effects,
        across=across,
        rounds=gone_through,
    )


def _tuned(study: ExpandedStudy, tuning: Tuning | None) -> Iterable[str]:
    if tuning is not None:
        yield tuning.sentences[0]
    elif study.resolved.chosen is not None:
        yield tuning_words(study)


def _about_tuning(study: ExpandedStudy) -> Iterable[str]:
    if study.spec.tune is None:
        return
    if study.contrasts:
        yield (
            "Contrasts compare the arms with the values that one search chose for each; that another might choose other"
            " ones is no part of their intervals."
        )
    on_validation = {"validation_error", "learning_curve_area", *TO_TARGET}
    if not on_validation.isdisjoint(one.metric for one in study.contrasts):
        yield (
            "Contrasts of validation errors, or of times to one, are on the images by which tuning chose, though at"
            " other seeds: such errors are a little too low, the more so the more was tried."
        )


def _gather(
    study: ExpandedStudy, trials: pd.DataFrame, records: pd.DataFrame, predictions: Predictions, asked: Collection[str]
) -> _Evidence:
    by_arm: dict[str, list[_Trial]] = defaultdict(list)
    columns = (trials[name] for name in ("trial", "arm", "seed", "state", "seconds"))
    for key, arm, seed, state, seconds in zip(*columns, strict=True):
        by_arm[arm].append(_Trial(key, int(seed), state, math.nan if pd.isna(seconds) else float(seconds)))
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
    return _Evidence(data, in_order, finals, by_epoch, converged, predictions)


def _arm(arm: Arm, planned: int, evidence: _Evidence) -> ArmFinding:
    finished = [trial for trial in evidence.trials.get(arm.name, ()) if trial.state == "finished"]
    summaries = {
        metric: _summary(value for _, value in evidence.values(arm.name, metric).values()) for metric in evidence.finals
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
    margin = contrast.margin or (margin if contrast.metric in IN_POINTS else 0.0)
    pairs = (_times if contrast.metric in TO_TARGET else _values)(contrast, margin, evidence)
    seeds, values_a, values_b = tuple(pairs.trials), pairs.a, pairs.b
    result = paired(values_a, values_b, resolution=pairs.resolution) if seeds else None
    silent = pairs.reach is not None and pairs.reach.silent
    tests = (
        _mcnemar(seed, evidence.predictions.get(one), evidence.predictions.get(two))
        for seed, (one, two) in pairs.trials.items()
        if contrast.metric == "test_error"
    )
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
        decision=decide(result.ci95 if result and not silent else None, margin),
        sentence="",
        values_a=values_a,
        values_b=values_b,
        target=contrast.target,
        reach=pairs.reach,
        resolution=pairs.resolution,
    )


@dataclass(frozen=True)
class _Pairs:
    """What is compared, seed by seed."""

    trials: Mapping[int, tuple[str, str]]  # seed -> hashes of a and b
    a: tuple[float, ...]
    b: tuple[float, ...]
    resolution: float  # the step in which the values move
    reach: ToTarget | None = None


def _values(contrast: ContrastSpec, margin: float, evidence: _Evidence) -> _Pairs:
    a, b = (evidence.values(side, contrast.metric) for side in (contrast.a, contrast.b))
    seeds = sorted(a.keys() & b.keys())
    return _Pairs(
        {seed: (a[seed][0], b[seed][0]) for seed in seeds},
        tuple(a[seed][1] for seed in seeds),
        tuple(b[seed][1] for seed in seeds),
        _resolution(evidence.on_the_same_data(contrast), margin),
    )


def _times(contrast: ContrastSpec, margin: float, evidence: _Evidence) -> _Pairs:
    """The times to a target, of which a margin says nothing: they move by epochs."""
    a, b = (evidence.waited(side, contrast) for side in (contrast.a, contrast.b))
    seeds = sorted(a.keys() & b.keys())
    one, two = ([side[seed][1] for seed in seeds] for side in (a, b))
    found = to_target(contrast.target or 0.0, one, two)
    if found is None:
        return _Pairs({}, (), (), margin)
    reach, values_a, values_b = found
    trials = {seed: (a[seed][0], b[seed][0]) for seed in seeds}
    return _Pairs(trials, values_a, values_b, step_of_clock([*one, *two]), reach)


def _mcnemar(seed: int, a: tuple[Any, Any] | None, b: tuple[Any, Any] | None) -> McNemar | None:
    """None where a trial has no predictions, or the two saw different test images."""
    if a is None or b is None or not np.array_equal(a[1], b[1]):
        return None
    return mcnemar(a[0] == a[1], b[0] == b[1], seed)


def _resolution(values: Iterable[float], margin: float) -> float:
    """The step in which errors move: the smallest gap between any two, at most the margin."""
    gaps = np.diff(np.unique(np.fromiter(values, dtype=float)))
    # per cent that differ by less differ by rounding alone: one image in a million is 0.0001
    return float(min([margin, *gaps[gaps > 1e-7]]))


def _summary(values: Iterable[float]) -> Summary | None:
    found = list(values)
    return summarise(found) if found else None


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
