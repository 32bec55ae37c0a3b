"""Which seeds a study that decides takes next: from what its contrasts show to the arms' seeds. Pure.

All arms begin with the same seeds. When these trials have ended, the arms of the contrasts that are undecided get
more, all of them as many as the nearest decision needs, and so on until every contrast is decided or has all seeds.
Arms of decided contrasts alone get none. An arm's seeds are always the first of the study's, in their order, so pairs
stay pairs and which ones are looked at never depends on which trial ended first.

The rounds follow from the trials' results alone: a study that was killed, and two drivers on one study, go through
the same ones.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from leadline.analysis import stats
from leadline.analysis.stats import Decision, Outcome, sequential
from leadline.errors import SpecError
from leadline.specs.decide import DecideSpec
from leadline.study.expand import ExpandedStudy

Ends = tuple[float, float]

FUTILE = 5
"""Seeds at which both trials failed, and none at which one did not, after which a contrast gets no more."""


@dataclass(frozen=True)
class Course:
    """What is known of one contrast; of seeds beyond a gap, whose trials have not all ended, nothing is used."""

    a: str
    b: str
    margin: float
    resolution: float
    outcomes: tuple[Outcome, ...]  # of the first seeds in the study's order, at which both trials have ended
    higher_is_better: bool = False  # of the metric
    largest: float = math.inf  # difference that two values of the metric can have

    @property
    def ended(self) -> int:
        """Seeds at which both trials have ended."""
        return len(self.outcomes)

    def first(self, seeds: int) -> tuple[float, ...]:
        """Return the differences at the first so many seeds, those that form no pair left out."""
        return tuple(one.difference for one in self.outcomes[:seeds] if one.difference is not None)

    def word(self, seeds: int, ends: Ends, confidence: float, planned: int) -> Decision:
        """Return what the first so many seeds show.

        Values decide by their interval. Before there are two of them, which is where one arm fails nearly always,
        failures may decide: trials that diverged or learned nothing, where only one of a pair did. Two arms of which
        one alone failed at some seed are not equivalent, and the arm that fails more is better only if it is ahead at
        so many more seeds that its failures are outweighed. Where a trial that learned nothing has a value that counts,
        the other arm is better only if something else shows it too: the pairs of which neither failed, failures, or
        the number of seeds at which it is ahead. A few such differences agree so well that they look like certainty.

        Args:
            seeds: that are looked at.
            ends: of the interval that holds at every look.
            confidence: of this contrast.
            planned: seeds over which its error is shared out.
        """
        if by_failures := self.word_by_failures(seeds, confidence):
            return by_failures
        enough = 1 / (1 - confidence)
        decision, (only_a, only_b) = stats.decide(ends, self.margin, self.higher_is_better), self._alone(seeds)
        if decision == "equivalent" and only_a + only_b:
            return "undecided"
        lone = any(one.difference is not None and one.failed_a != one.failed_b for one in self.outcomes[:seeds])
        fewer = "better" if only_a > only_b else "worse" if only_b > only_a else None  # for the arm that fails more
        if decision not in ("better", "worse") or not (lone or decision == fewer):
            return decision
        if decision != fewer:
            sound = [one.difference for one in self.outcomes[:seeds] if not (one.failed_a or one.failed_b)]
            by_sound = self.interval([one for one in sound if one is not None], confidence, planned)
            shown = stats.decide(by_sound, self.margin, self.higher_is_better)
            if shown == decision or max(self._odds(seeds)) >= enough:
                return decision
        leads = [one.lead(self.higher_is_better) * (1 if decision == "better" else -1) for one in self.outcomes[:seeds]]
        ahead, behind = sum(lead > 0 for lead in leads), sum(lead < 0 for lead in leads)
        return decision if ahead > behind and sequential.odds_against_even(ahead, behind) >= enough else "undecided"

    def interval(self, differences: Sequence[float], confidence: float, planned: int) -> Ends:
        """Return the interval that holds at every look; it has no ends where there is no difference, or one."""
        if not differences:
            return -math.inf, math.inf
        found = sequential.interval_at_any_time(differences, confidence, self.resolution, planned)
        return stats.cut((found.low, found.high), self.largest)

    def word_by_failures(self, seeds: int, confidence: float) -> Decision | None:
        """Return what failures had decided before there were two pairs; it stays, whatever values show later."""
        for looked, odds in enumerate(self._odds(seeds), start=1):
            if len(self.first(looked)) > 1:
                break
            only_a, only_b = self._alone(looked)
            if only_a != only_b and odds >= 1 / (1 - confidence):
                return "worse" if only_a > only_b else "better"
        return None

    def _odds(self, seeds: int) -> list[float]:
        """Return the odds against equal failures after each of the first seeds."""
        shown = self.outcomes[:seeds]
        return sequential.odds_of_uneven_failures([one.failed_a for one in shown], [one.failed_b for one in shown])

    def _alone(self, seeds: int) -> tuple[int, int]:
        """Return at how many of the first seeds a alone failed, and b alone."""
        shown = self.outcomes[:seeds]
        return (
            sum(one.failed_a > one.failed_b for one in shown),
            sum(one.failed_b > one.failed_a for one in shown),
        )

    def is_futile(self, seeds: int) -> bool:
        """Whether more seeds are not worth their while: at none of so many has either arm learned anything."""
        shown = self.outcomes[:seeds]
        return len(shown) >= FUTILE and all(one.failed_a and one.failed_b for one in shown)


class Named(Protocol):
    """An arm, by its name alone."""

    @property
    def name(self) -> str:
        """The name."""


class Deciding(Protocol):
    """What seeds are added to until its contrasts are decided: a study, or another comparison."""

    @property
    def name(self) -> str:
        """The name by which messages call it."""

    @property
    def arms(self) -> Sequence[Named]:
        """The arms."""

    @property
    def contrasts(self) -> Sequence[object]:
        """The contrasts, which share the error."""

    @property
    def decide(self) -> DecideSpec | None:
        """How it decides; None: its seeds are fixed."""

    @property
    def shared_over(self) -> int:
        """Seeds over which the error is shared out."""


@dataclass(frozen=True)
class Round:
    """The seeds that arms have from one look to the next, and what was seen when their trials had ended."""

    number: int  # from 1
    seeds: Mapping[str, int]  # arm -> the seeds that it has
    added: int  # seeds that are new, for the arms that got any
    looks: tuple[tuple[Ends, Decision], ...]  # one per contrast; empty while trials of the round have not ended


@dataclass(frozen=True)
class Linked:
    """A trial of the ledger's study of the same name."""

    arm: str
    seed: int
    hash: str
    ended: bool  # finished or diverged


def rounds(study: Deciding, courses: Sequence[Course]) -> tuple[Round, ...]:
    """Return the rounds that a study has gone through; the last has no looks where its trials have not all ended.

    Args:
        study: one with `decide`.
        courses: one per contrast of the study, in their order.
    """
    decide = _require_decide(study)
    seeds = {arm.name: decide.first for arm in study.arms}
    found = [Round(1, dict(seeds), decide.first, ())]
    while all(course.ended >= _common_seeds(seeds, course) for course in courses):
        looks = tuple(look(study, course, _common_seeds(seeds, course)) for course in courses)
        found[-1] = replace(found[-1], looks=looks)
        still_open = [
            course
            for course, (_, decision) in zip(courses, looks, strict=True)
            if decision == "undecided" and not course.is_futile(_common_seeds(seeds, course))
        ]
        wanted = [more for course in still_open if (more := _seeds_to_add(study, course, _common_seeds(seeds, course)))]
        if not wanted:
            break
        for course in still_open:
            goal = min(_common_seeds(seeds, course) + min(wanted), decide.max_seeds)
            seeds |= {side: max(seeds[side], goal) for side in (course.a, course.b)}
        found.append(Round(len(found) + 1, dict(seeds), min(wanted), ()))
    return tuple(found)


def look(study: Deciding, course: Course, seeds: int) -> tuple[Ends, Decision]:
    """Return a contrast's interval at its first so many seeds, which holds with all others at every look; what it says.

    The interval has no ends where there is no pair, or one.
    """
    confidence = confidence_of_each(study)
    ends = course.interval(course.first(seeds), confidence, study.shared_over)
    return ends, course.word(seeds, ends, confidence, study.shared_over)


def confidence_of_each(study: Deciding) -> float:
    """Return the confidence of each contrast's interval at which all of them hold together."""
    return sequential.confidence_of_each(_require_decide(study).confidence, len(study.contrasts))


def resume(study: ExpandedStudy, linked: Iterable[Linked], before: ExpandedStudy | None) -> ExpandedStudy:
    """Return a study with at least the seeds that its arms have in the ledger, and its original error spending.

    Whatever was fixed before the first look is kept: the joint confidence, the contrasts, and the number of seeds over
    which the error is spent, even if `max_seeds` has changed since.

    Args:
        study: one with `decide`, as its file gives it.
        linked: the trials of the ledger's study of this name.
        before: that study; None: there is none, or it does not decide.

    Raises:
        SpecError: the confidence or the contrasts differ from those at earlier looks.
    """
    decide, trials = _require_decide(study), list(linked)
    there = {(one.arm, one.seed): one.hash for one in trials}
    drawn, seeds = {}, study.seed_values
    for arm in study.arms:
        gap = (place for place, seed in enumerate(seeds) if there.get((arm.name, seed)) != arm.at(seed).content_hash)
        drawn[arm.name] = max(decide.first, next(gap, len(seeds)))
    own = {arm.at(seed).content_hash for arm in study.arms for seed in seeds}
    looked = any(one.ended and one.hash in own for one in trials)
    planned = decide.shared_over
    if before is not None and before.decide is not None and looked:
        old = before.decide
        if (decide.confidence, _sides(study)) != (old.confidence, _sides(before)):
            raise SpecError(
                f"study {study.name}: confidence {decide.confidence:g} of {_list_contrasts(study)}, but its results"
                f" have already been looked at with {old.confidence:g} of {_list_contrasts(before)}, and these must not"
                f" change after the first look; restore them, or give the study another name"
            )
        planned = before.shared_over
    return study.resolve(planned=planned, drawn=drawn)


def with_seeds(study: ExpandedStudy, seeds: Mapping[str, int]) -> ExpandedStudy:
    """Return a study whose arms have these many seeds, and none fewer than before."""
    drawn = {arm.name: max(len(study.seeds_of(arm.name)), seeds[arm.name]) for arm in study.arms}
    return study.resolve(drawn=drawn)


def _seeds_to_add(study: Deciding, course: Course, seeds: int) -> int:
    """Return how many more seeds an undecided contrast needs; 0 if it has all."""
    decide, shown = _require_decide(study), course.first(seeds)
    left = decide.max_seeds - seeds
    if left == 0 or decide.step is not None:
        return min(decide.step or 0, left)
    # a seed without a pair counts towards max_seeds
    most = len(shown) + left
    confidence = confidence_of_each(study)
    more = sequential.next_round(shown, course.margin, confidence, course.resolution, study.shared_over, most)
    # 0 where values alone would decide, but failures do not let them
    return more or min(sequential.FIRST_ROUND, left)


def _common_seeds(seeds: Mapping[str, int], course: Course) -> int:
    return min(seeds[course.a], seeds[course.b])


def _require_decide(study: Deciding) -> DecideSpec:
    if study.decide is None:
        raise SpecError(f"study {study.name}: it has no `decide`, so all of its seeds are fixed in advance")
    return study.decide


def _sides(study: ExpandedStudy) -> set[tuple[frozenset[str], str]]:
    return {(frozenset((one.a, one.b)), one.metric) for one in study.contrasts}


def _list_contrasts(study: ExpandedStudy) -> str:
    shown = [f"{one.metric} of {one.a} against {one.b}" for one in study.contrasts[:3]]
    return "; ".join([*shown, *(["..."] if len(study.contrasts) > 3 else [])])
