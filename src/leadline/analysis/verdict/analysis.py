"""From tidy frames to findings: arms are summarised, contrasts paired by seed and decided, all in numbers."""

import math
from collections.abc import Iterable, Mapping
from functools import partial

import pandas as pd

from leadline.analysis.stats import Paired, Summary, paired, summarise
from leadline.analysis.verdict.decisions import Judgement, adjust, decide_contrasts
from leadline.analysis.verdict.evidence import Evidence, gather
from leadline.analysis.verdict.factors import factor_effects
from leadline.analysis.verdict.findings import ArmFinding, ContrastFinding, Findings, SequentialAnalysis
from leadline.analysis.verdict.meta_analysis import data_set, meta_analyses
from leadline.analysis.verdict.pairs import Pairs, pair
from leadline.analysis.verdict.sequential import interim_analyses
from leadline.analysis.verdict.tuned import Tuning
from leadline.parts.metrics import Outputs
from leadline.study.expand import Arm, ExpandedStudy, default_metric, tasks_of
from leadline.study.rounds import Round


def analyze(
    study: ExpandedStudy,
    trials: pd.DataFrame,
    records: pd.DataFrame,
    outputs: Mapping[str, Outputs],
    tuning: Tuning | None = None,
) -> Findings:
    """Return what a study shows so far; trials that have not finished are counted, never filled in.

    A contrast pairs its arms by seed, over the seeds at which both finished; its decision rests on the 95% paired-t
    interval of the differences. Where seeds are added until contrasts are decided it rests on the interval that holds
    at every look, over the seeds before the first whose trials have not both ended.

    Args:
        study: the study, expanded.
        trials: a row per trial: trial (hash), arm, seed, state, seconds.
        records: a row per measured value: trial, epoch, split, name, value; errors in per cent, accuracies fractions.
        outputs: trial hash -> what its network gave for the test images.
        tuning: what the study's search tried; None: it tunes nothing, or that is not known.
    """
    evidence = gather(study, trials, records, outputs)
    pairs = [pair(contrast, study.spec.margin, evidence) for contrast in study.contrasts]
    estimates: list[Paired | None] = []
    sequential: list[SequentialAnalysis | None] = [None] * len(pairs)
    rounds: tuple[Round, ...] = ()
    if study.decide is None:
        estimates += (paired(own.a, own.b, resolution=own.resolution) if own.seeds else None for own in pairs)
    else:
        pairs, estimates, sequential[:], rounds = interim_analyses(
            study, pairs, evidence.ended(study), evidence.tested()
        )
    judgements = decide_contrasts(pairs, estimates, study.spec.correction)
    arms = tuple(_arm(arm, evidence.planned(study, arm.name), evidence) for arm in study.arms)
    contrasts = tuple(map(partial(_contrast, evidence), pairs, estimates, judgements, sequential))
    # seeds whose number depends on what they showed are no sample for statistics that look once
    fixed = contrasts if study.decide is None else ()
    return Findings(
        study=study.name,
        title=study.title,
        arms=arms,
        contrasts=contrasts,
        correction=study.spec.correction,
        factors=factor_effects(arms, fixed, partial(adjust, correction=study.spec.correction)),
        meta_analyses=meta_analyses(study, fixed),
        rounds=rounds,
        data_sets=tuple(dict.fromkeys(data_set(arm.trial) for arm in study.arms)),
        unrecorded=evidence.unrecorded(study),
        metric=default_metric(study),
        curves={name: axis for one in tasks_of(study) for name, axis in one.curves.items()},
        matching=tuple(study.matching),
        tune=study.spec.tune,
        chosen=study.resolved.chosen,
        tuning=tuning,
    )


def _arm(arm: Arm, planned: int, evidence: Evidence) -> ArmFinding:
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


def _contrast(
    evidence: Evidence,
    pairs: Pairs,
    estimate: Paired | None,
    judgement: Judgement,
    sequential: SequentialAnalysis | None,
) -> ContrastFinding:
    contrast = pairs.contrast
    return ContrastFinding(
        a=contrast.a,
        b=contrast.b,
        metric=contrast.metric,
        margin=pairs.margin,
        seeds=pairs.seeds,
        differences=pairs.differences,
        diverged_a=evidence.count(contrast.a, "diverged"),
        diverged_b=evidence.count(contrast.b, "diverged"),
        paired=estimate,
        p_adjusted=judgement.p_adjusted,
        mcnemar=pairs.mcnemar,
        decision=judgement.decision,
        t_p_adjusted=judgement.t_p_adjusted,
        values_a=pairs.a,
        values_b=pairs.b,
        target=contrast.target,
        reach=pairs.reach,
        resolution=pairs.resolution,
        sequential=sequential,
        finished=len(evidence.finished_seeds(contrast.a) & evidence.finished_seeds(contrast.b)),
    )


def _summary(values: Iterable[float]) -> Summary | None:
    found = list(values)
    return summarise(found) if found else None
