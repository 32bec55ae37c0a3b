"""Contrasts of a study that decides while seeds are added: intervals that hold at every look in place of the t's."""

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import numpy as np

from leadline.analysis.stats import (
    LEVEL,
    DifferenceTest,
    Effect,
    Paired,
    cut,
    least_spread,
    paired,
    sequential,
    summarise,
)
from leadline.analysis.stats.decisions import Ground
from leadline.analysis.stats.sequential import running_interval
from leadline.analysis.verdict.decisions import Judgement
from leadline.analysis.verdict.design import Design
from leadline.analysis.verdict.findings import InterimAnalysis, SequentialAnalysis
from leadline.analysis.verdict.pairs import Pairs
from leadline.seeds import SeedName
from leadline.study.rounds import Course, Round, confidence_of_each, look, rounds

PLANNED = 20
"""Seeds over which the error is shared out where a study added some after a verdict; as many as `decide` takes."""


def interim_analyses(
    design: Design, every: Sequence[Pairs]
) -> tuple[list[Pairs], list[Effect | None], list[SequentialAnalysis], tuple[Round, ...]]:
    """Return the pairs that count, what they show at every look, and the rounds that it has gone through.

    Only seeds before the first gap count, in their order: which trials ended first may depend on what they
    show. There are no p-values, for these hold at a single look.

    Args:
        design: one with `decide`.
        every: all pairs of each contrast.
    """
    place = {seed: number for number, seed in enumerate(design.seeds)}
    courses, kept = [], []
    for pairs in every:
        ended = dict(pairs.outcomes)
        before = next((number for seed, number in place.items() if seed not in ended), len(place))
        course, own = _course(pairs, [seed for seed, number in place.items() if number < before])
        courses.append(course)
        kept.append(own)
    passed = rounds(design, courses)
    ends = [look(design, course, course.ended)[0] for course in courses]
    estimates: list[Effect | None] = list(map(_paired, courses, ends))
    analyses = [
        _analysis(design, course, own, estimate, _looks_at(passed, number, course))
        for number, (course, own, estimate) in enumerate(zip(courses, ends, estimates, strict=True))
    ]
    return kept, estimates, analyses, passed


def looked_at_before(
    every: Sequence[Pairs], orders: Sequence[Sequence[SeedName]]
) -> tuple[list[Pairs], list[Effect | None], tuple[Judgement, ...]]:
    """Return pairs, what they show, and what is decided, where seeds were added after a verdict had been there to see.

    As for a study with `decide`: each contrast by the interval that holds at every look, all contrasts together at 95%,
    its error shared out over `PLANNED` seeds, since the study named no number. p-values hold for a single look, so
    there are none. Of times to a target no such interval is known, so that they decide nothing.

    Args:
        every: all pairs of each contrast.
        orders: its seeds, in the order in which the study got them.
    """
    confidence = sequential.confidence_of_each(1 - LEVEL, len(every))
    kept, judgements = [], []
    estimates: list[Effect | None] = []
    for pairs, order in zip(every, orders, strict=True):
        if pairs.reach:
            kept.append(pairs)
            shown = paired(pairs.a, pairs.b, resolution=pairs.resolution, largest=pairs.largest)
            estimates.append(replace(shown, ci95=None, t_p=None, bca95=None, p=None, p_smallest=None))
            judgements.append(Judgement("undecided"))
            continue
        ended = dict(pairs.outcomes)
        course, own = _course(pairs, [seed for seed in order if seed in ended][: sequential.MOST_SEEDS])
        ends = course.interval(course.first(course.ended), confidence, PLANNED)
        kept.append(own)
        estimates.append(_paired(course, ends))
        ground: Ground = "failures" if course.word_by_failures(course.ended, confidence) else "values"
        judgements.append(
            Judgement(course.word(course.ended, ends, confidence, PLANNED), DifferenceTest(None, 0, ground))
        )
    return kept, estimates, tuple(judgements)


def _course(pairs: Pairs, seeds: Sequence[SeedName]) -> tuple[Course, Pairs]:
    """Return the course of a contrast over seeds at which both trials ended, in their order, and its pairs there."""
    ended, compared = dict(pairs.outcomes), pairs.contrast
    own = pairs.at(pairs.seeds.index(seed) for seed in seeds if ended[seed].difference is not None)
    higher = compared.kind.higher_is_better
    outcomes = tuple(ended[seed] for seed in seeds)
    resolution = own.resolution if own.declared else 0.0  # what is seen only at a look may depend on it
    course = Course(compared.a, compared.b, own.margin, resolution, outcomes, higher, own.largest)
    return course, replace(own, resolution=resolution)


def _analysis(
    design: Design, course: Course, ends: tuple[float, float], estimate: Effect | None, looked: Sequence[int]
) -> SequentialAnalysis:
    assert design.decide is not None
    adjusted = None
    if estimate and estimate.n > 1 and looked:
        spread = _spread(estimate.sd, course)
        at = sorted({max(2, len(course.first(seeds))) for seeds in looked})
        each = (confidence_of_each(design), course.resolution, design.shared_over)
        if spread:
            adjusted = sequential.adjust_for_stopping(
                estimate.difference, spread, at, course.margin, *each, design.decide.max_seeds
            )
    return SequentialAnalysis(
        adjusted=adjusted,
        low=ends[0],
        high=ends[1],
        confidence=design.decide.confidence,
        of_each=confidence_of_each(design),
        contrasts=len(design.contrasts),
        planned=design.shared_over,
        seeds=course.ended,
        most=design.decide.max_seeds,
        taken=len(looked),
        interim=tuple(_interim(design, course, looked)),
        futile=course.is_futile(course.ended),
    )


def _interim(design: Design, course: Course, looked: Collection[int]) -> Iterator[InterimAnalysis]:
    """Yield what `look` returns at 1, 2, 3, ... seeds, all from one pass over the differences."""
    assert design.decide is not None
    ends, differences = [(-math.inf, math.inf)], np.asarray(course.first(course.ended))
    confidence = confidence_of_each(design)
    if len(differences):
        low, high = running_interval(differences, confidence, course.resolution, design.shared_over)
        ends += (cut(one, course.largest) for one in zip(low.tolist(), high.tolist(), strict=True))
    for seeds in range(1, course.ended + 1):
        pairs = len(course.first(seeds))
        mean = float(differences[:pairs].mean()) if pairs else None
        decision = course.word(seeds, ends[pairs], confidence, design.shared_over)
        by_failures = course.word_by_failures(seeds, confidence) is not None
        yield InterimAnalysis(seeds, pairs, mean, *ends[pairs], decision, seeds in looked, by_failures)


def _paired(course: Course, ends: tuple[float, float]) -> Paired | None:
    if not (shown := course.first(course.ended)):
        return None
    over = summarise(shown)
    spread = _spread(over.sd, course)
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
    )


def _spread(sd: float | None, course: Course) -> float:
    return max(sd or 0.0, least_spread(course.resolution))


def _looks_at(found: Sequence[Round], contrast: int, course: Course) -> list[int]:
    """Return at how many seeds a contrast was looked at, look by look, until it was decided."""
    seen = []
    for one in found:
        if one.looks:
            seen.append(min(one.seeds[course.a], one.seeds[course.b]))
            if one.looks[contrast][1] != "undecided":
                break
    return seen
