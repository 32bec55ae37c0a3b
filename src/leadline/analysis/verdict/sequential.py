"""Contrasts of a study that decides while seeds are added: intervals that hold at every look in place of the t's."""

import math
from bisect import bisect_left
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from leadline.analysis.stats import Paired, decide, summarise
from leadline.analysis.stats.sequential import running_interval
from leadline.analysis.verdict.findings import InterimAnalysis, SequentialAnalysis
from leadline.analysis.verdict.pairs import Pairs
from leadline.data.split import split_sizes
from leadline.parts.metrics import Counts, metric
from leadline.specs import TrialSpec
from leadline.study.expand import ExpandedStudy
from leadline.study.rounds import Course, Round, confidence_of_each, look, rounds


def interim_analyses(
    study: ExpandedStudy, every: Sequence[Pairs], ended: Mapping[str, Collection[int]], tested: Mapping[str, int]
) -> tuple[list[Pairs], list[Paired | None], list[SequentialAnalysis], tuple[Round, ...]]:
    """Return the pairs that count, what they show at every look, and the rounds that the study has gone through.

    Only seeds before the first gap count, in the study's order: which trials ended first may depend on what they
    show. There are no p-values, for these hold at a single look.

    Args:
        study: one with `decide`.
        every: all pairs of each contrast.
        ended: arm -> seeds whose trials have finished or diverged.
        tested: arm -> images of its test set, where that is known from its predictions.
    """
    place = {seed: number for number, seed in enumerate(study.seed_values)}
    trials = {arm.name: arm.trial for arm in study.arms}
    courses, kept = [], []
    for pairs in every:
        sides = (pairs.contrast.a, pairs.contrast.b)
        gap = (number for seed, number in place.items() if not all(seed in ended[side] for side in sides))
        before = next(gap, len(place))
        found = sorted((place[seed], at) for at, seed in enumerate(pairs.seeds) if place.get(seed, before) < before)
        step = max(_step(pairs.contrast.metric, trials[side], tested.get(side)) for side in sides)
        own = pairs.at((at for _, at in found), step)
        numbers, higher = tuple(number for number, _ in found), metric(pairs.contrast.metric).higher_is_better
        courses.append(Course(*sides, own.margin, step, before, numbers, own.differences, higher))
        kept.append(own)
    passed = rounds(study, courses)
    ends = [look(study, course, course.ended)[0] for course in courses]
    return (
        kept,
        [_paired(course, own) if course.differences else None for course, own in zip(courses, ends, strict=True)],
        [
            _analysis(study, course, own, _looks_at(passed, number, course))
            for number, (course, own) in enumerate(zip(courses, ends, strict=True))
        ],
        passed,
    )


def _analysis(
    study: ExpandedStudy, course: Course, ends: tuple[float, float], looked: Sequence[int]
) -> SequentialAnalysis:
    assert study.decide is not None
    return SequentialAnalysis(
        low=ends[0],
        high=ends[1],
        confidence=study.decide.confidence,
        of_each=confidence_of_each(study),
        contrasts=len(study.contrasts),
        planned=study.shared_over,
        seeds=course.ended,
        most=study.decide.max_seeds,
        taken=len(looked),
        interim=tuple(_interim(study, course, looked)),
    )


def _interim(study: ExpandedStudy, course: Course, looked: Collection[int]) -> Iterator[InterimAnalysis]:
    """Yield what `look` returns at 1, 2, 3, ... seeds, all from one pass over the differences."""
    assert study.decide is not None
    ends, differences = [(-math.inf, math.inf)], np.asarray(course.differences)
    if course.differences:
        planned = study.shared_over
        low, high = running_interval(differences, confidence_of_each(study), course.resolution, planned)
        ends += zip(low.tolist(), high.tolist(), strict=True)
    for seeds in range(1, course.ended + 1):
        pairs = bisect_left(course.places, seeds)
        mean = float(differences[:pairs].mean()) if pairs else None
        decision = decide(ends[pairs], course.margin, course.higher_is_better)
        yield InterimAnalysis(seeds, pairs, mean, *ends[pairs], decision, seeds in looked)


def _paired(course: Course, ends: tuple[float, float]) -> Paired:
    over = summarise(course.differences)
    spread = max(over.sd or 0.0, course.resolution / math.sqrt(6))
    return Paired(
        n=over.n,
        difference=over.mean,
        sd=over.sd,
        ci95=ends if all(map(math.isfinite, ends)) else None,
        t_p=None,
        bca95=None,
        p=None,
        p_smallest=None,
        effect_size=over.mean / spread if over.n > 1 and spread > 0 else None,
        seeds_to_decide=None,
    )


def _looks_at(found: Sequence[Round], contrast: int, course: Course) -> list[int]:
    """Return at how many seeds a contrast was looked at, look by look, until it was decided."""
    seen = []
    for one in found:
        if one.looks:
            seen.append(min(one.seeds[course.a], one.seeds[course.b]))
            if one.looks[contrast][1] != "undecided":
                break
    return seen


def _step(name: str, trial: TrialSpec, tested: int | None) -> float:
    """Return the step in which a metric moves, known before the first trial; 0 where none is known."""
    resolution = metric(name).resolution
    if resolution is None:
        return 0.0
    data = trial.data
    sizes = split_sizes(data.known_sizes, data) if data.known_sizes else data  # what is asked for, where it is
    counts = Counts(sizes.train, sizes.validation, tested or sizes.test, trial.training.epochs)
    return resolution(counts) or 0.0
