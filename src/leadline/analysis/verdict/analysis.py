"""From tidy frames to findings: arms are summarised, contrasts paired by seed and decided, all in numbers."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import accumulate, chain

import pandas as pd

from leadline.analysis.stats import Effect, Outcome, Summary, cut, paired, summarise, unpaired
from leadline.analysis.stats.crossed import paired_crossed
from leadline.analysis.stats.factorial import shrink_effects
from leadline.analysis.stats.pairing import Ahead, SeedsAndImages, ahead_at_a_seed, over_seeds_and_images, pairing
from leadline.analysis.verdict.decisions import Judgement, adjust, decide_contrasts, seeds_needed
from leadline.analysis.verdict.design import Design, DesignArm, design_of
from leadline.analysis.verdict.evidence import Evidence, gather
from leadline.analysis.verdict.factors import factor_effects
from leadline.analysis.verdict.findings import ArmFinding, ContrastFinding, Findings, SequentialAnalysis
from leadline.analysis.verdict.meta_analysis import meta_analyses
from leadline.analysis.verdict.pairs import Pairs, pair
from leadline.analysis.verdict.sequential import interim_analyses, looked_at_before
from leadline.analysis.verdict.tuned import Tuning
from leadline.parts.metrics import Outputs
from leadline.study.expand import ExpandedStudy
from leadline.study.rounds import Round


def analyze(
    study: ExpandedStudy | Design,
    trials: pd.DataFrame,
    records: pd.DataFrame,
    outputs: Iterable[tuple[str, Outputs]],
    tuning: Tuning | None = None,
) -> Findings:
    """Return what a study shows so far; trials that have not finished are counted, never filled in.

    A contrast pairs its arms by seed. Its word rests on paired t tests of difference and of equivalence, adjusted for
    the study's contrasts, with trials that failed counted as worse than any other. Where seeds are added until
    contrasts are decided it rests on the interval that holds at every look, over the seeds before the first whose
    trials have not both ended; likewise where a study got more seeds after a verdict on its first ones could be seen,
    or until it had decided other contrasts.

    Args:
        study: the study, expanded, or the design of another comparison.
        trials: a row per trial: trial (hash), arm, seed, state, seconds; created and ended where they are known.
        records: a row per measured value: trial, epoch, split, name, value; errors in per cent, accuracies fractions.
        outputs: trial hashes with what their networks gave for the test images; gone through once, so that those of
            many trials need not be in memory at once.
        tuning: what the study's search tried; None: it tunes nothing, or that is not known.
    """
    design = study if isinstance(study, Design) else design_of(study)
    evidence = gather(design, trials, records, outputs)
    pairs = [pair(contrast, design.margin, evidence) for contrast in design.contrasts]
    crossed = any(own.shared for own in pairs)
    estimates: list[Effect | None] = []
    sequential: list[SequentialAnalysis | None] = [None] * len(pairs)
    rounds: tuple[Round, ...] = ()
    looked: list[tuple[int, ...]] = [()] * len(pairs)
    if design.decide is None:
        history = [evidence.rounds(own.contrast) for own in pairs]
        ends = [own.contrast.until_decided for own in pairs]  # whether what the last seeds showed ended their number
        if (any(len(groups) > 1 for groups in history) or any(ends)) and not crossed:
            pairs, estimates, judgements = looked_at_before(pairs, [tuple(chain(*groups)) for groups in history])
            counts = [tuple(accumulate(map(len, groups))) for groups in history]
            looked = [one if end else one[:-1] for one, end in zip(counts, ends, strict=True)]
        else:
            estimates += (_estimate(own, design.moments) for own in pairs)
            judgements = decide_contrasts(pairs, estimates, design.correction)
    else:
        pairs, estimates, analyses, rounds = interim_analyses(design, pairs)
        sequential[:], judgements = analyses, tuple(one.judgement for one in analyses)
    arms = tuple(_arm(arm, design, evidence) for arm in design.arms)
    with_p = sum(one.test.p is not None for one in judgements)
    contrasts = _with_shrunk(
        map(partial(_contrast, evidence, with_p), pairs, estimates, judgements, sequential, looked)
    )
    # seeds whose number depends on what they showed, or that pairs share, are no sample for statistics that look once
    fixed = contrasts if design.decide is None and not any(looked) and not crossed else ()
    return Findings(
        study=design.name,
        title=design.title,
        arms=arms,
        contrasts=contrasts,
        correction=design.correction,
        factors=factor_effects(arms, fixed, design.names_data, partial(adjust, correction=design.correction)),
        meta_analyses=meta_analyses(design, fixed),
        rounds=rounds,
        data_sets=tuple(dict.fromkeys(arm.data for arm in design.arms)),
        sources=design.sources,
        resample=design.resample,
        mislabelled=tuple(arm.name for arm in design.arms if arm.mislabelled),
        unrecorded=evidence.unrecorded(design),
        metric=design.metric,
        declared=design.metrics,
        summarised=design.summarised,
        trained=design.trained,
        curves=design.curves,
        remarks=design.remarks,
        tune=design.tune,
        chosen=design.chosen,
        tuning=tuning,
    )


def _estimate(pairs: Pairs, moments: bool) -> Effect | None:
    """Return what pairs, or separate samples, show, of which only moments may be known; None where there are none."""
    if not pairs.a or not pairs.b:
        return None
    if pairs.shared:
        return paired_crossed(pairs.a, pairs.b, pairs.shared, pairs.resolution, pairs.largest)
    estimate = unpaired if pairs.apart else paired
    found: Effect = estimate(pairs.a, pairs.b, resolution=pairs.resolution, largest=pairs.largest)
    return replace(found, p=None, p_smallest=None) if moments else found


def _arm(arm: DesignArm, design: Design, evidence: Evidence) -> ArmFinding:
    finished = [trial for trial in evidence.trials.get(arm.name, ()) if trial.state == "finished"]
    summaries = {
        metric: _summary(value for _, value in evidence.values(arm.name, metric).values()) for metric in evidence.finals
    }
    if design.moments:
        summaries = {
            metric: one and replace(one, median=None, minimum=None, maximum=None) for metric, one in summaries.items()
        }
    return ArmFinding(
        name=arm.name,
        base=arm.base,
        factors=arm.factors,
        planned=len(evidence.trials.get(arm.name, ())) if design.planned is None else design.planned,
        finished=len(finished),
        diverged=evidence.count(arm.name, "diverged"),
        failed=evidence.count(arm.name, "failed"),
        at_chance=sum(trial.hash in evidence.at_chance for trial in finished),
        memorised=sum(trial.hash in evidence.memorised for trial in finished),
        metrics={metric: summary for metric, summary in summaries.items() if summary},
        convergence_epoch=_summary(
            evidence.converged[trial.hash] for trial in finished if trial.hash in evidence.converged
        ),
        seconds=_summary(trial.seconds for trial in finished if math.isfinite(trial.seconds)),
        data=arm.data,
    )


def _contrast(
    evidence: Evidence,
    with_p: int,  # contrasts that have a p
    pairs: Pairs,
    estimate: Effect | None,
    judgement: Judgement,
    sequential: SequentialAnalysis | None,
    looked: tuple[int, ...],
) -> ContrastFinding:
    contrast, outcomes = pairs.contrast, [one for _, one in pairs.outcomes]
    return ContrastFinding(
        a=contrast.a,
        b=contrast.b,
        metric=contrast.metric,
        declared=contrast.kind,
        margin=pairs.margin,
        seeds=pairs.seeds,
        differences=pairs.differences,
        diverged_a=evidence.count(contrast.a, "diverged"),
        diverged_b=evidence.count(contrast.b, "diverged"),
        paired=estimate,
        mcnemar=pairs.mcnemar,
        judgement=judgement,
        failed_a=pairs.apart[0].failed if pairs.apart else sum(one.failed_a for one in outcomes),
        failed_b=pairs.apart[1].failed if pairs.apart else sum(one.failed_b for one in outcomes),
        both_failed=sum(one.failed_a and one.failed_b for _, one in pairs.outcomes),
        at_chance_a=evidence.at_chance_of(contrast.a, (seed for seed, _ in pairs.outcomes)),
        at_chance_b=evidence.at_chance_of(contrast.b, (seed for seed, _ in pairs.outcomes)),
        ended=min(side.trials for side in pairs.apart) if pairs.apart else len(outcomes),
        crossed=bool(pairs.shared),
        neither_learned=pairs.neither_learned,
        values_a=pairs.a,
        values_b=pairs.b,
        target=contrast.target,
        reach=pairs.reach,
        resolution=pairs.resolution,
        apart=pairs.apart,
        sequential=sequential,
        looked=looked,
        until_decided=contrast.until_decided,
        finished=len(evidence.finished_seeds(contrast.a) & evidence.finished_seeds(contrast.b)),
        needed=seeds_needed(pairs, estimate, with_p) if judgement.decision == "undecided" else None,
        pairing=pairing(pairs.a, pairs.b) if pairs.seeds and not pairs.silent and not pairs.shared else None,
        ahead=None if pairs.shared else _ahead(outcomes, contrast.kind.higher_is_better),
        # which holds at one look, of independent pairs
        images=None if sequential or looked or pairs.shared else _over_images(pairs, evidence),
    )


def _with_shrunk(contrasts: Iterable[ContrastFinding]) -> tuple[ContrastFinding, ...]:
    """Return contrasts with their differences drawn to the mean of all of one metric, where there are three or more."""
    found = list(contrasts)
    groups: dict[tuple[str, float | None], list[int]] = {}
    for place, one in enumerate(found):
        if one.paired and one.paired.sd and not (one.reach and one.reach.silent):
            groups.setdefault((one.metric, one.target), []).append(place)
    for places in groups.values():
        if len(places) > 2:
            results = [own for place in places if (own := found[place].paired)]
            effects, sds, seeds = zip(*((own.difference, own.sd, own.n) for own in results), strict=True)
            for place, shrunk in zip(places, shrink_effects(effects, sds, seeds), strict=True):
                found[place] = replace(found[place], shrunk=float(shrunk))
    return tuple(found)


def _ahead(outcomes: Sequence[Outcome], higher_is_better: bool) -> Ahead | None:
    """How often a is better than b, where a trial that failed is worse than one that did not."""
    known = [one for one in outcomes if one.difference is not None or one.failed_a or one.failed_b]
    if not known:
        return None
    leads = [one.lead(higher_is_better) for one in known]
    return ahead_at_a_seed(sum(lead > 0 for lead in leads), sum(lead == 0 for lead in leads), len(leads))


def _over_images(pairs: Pairs, evidence: Evidence) -> SeedsAndImages | None:
    """The difference in test error for other images too; None where predictions are missing, or of other images."""
    if pairs.contrast.metric != "test_error" or len(pairs.mcnemar) != len(pairs.seeds) or len(pairs.seeds) < 2:
        return None
    sides = []
    for side in (pairs.contrast.a, pairs.contrast.b):
        if evidence.arms[side].resample == "split":
            return None
        hashes = {trial.seed: trial.hash for trial in evidence.trials[side]}
        seen = [evidence.tested[hashes[seed]] for seed in pairs.seeds]
        images = seen[0].images
        if images.count < 2 or any(one.images is not images for one in seen):
            return None
        sides.append(one.wrong for one in seen)
    found = over_seeds_and_images(*sides)
    low, high = cut((found.low, found.high), pairs.largest)
    # without any spread, as of networks that agree everywhere, nothing is known of others
    return replace(found, low=low, high=high) if low < high else None


def _summary(values: Iterable[float]) -> Summary | None:
    found = list(values)
    return summarise(found) if found else None
