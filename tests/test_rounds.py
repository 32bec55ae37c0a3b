"""Rounds of a study that decides: which arms go on, by how many seeds, when it ends; the same from any history."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leadline.analysis.stats import Outcome, sequential
from leadline.errors import SpecError
from leadline.specs import parse
from leadline.specs.study import StudySpec
from leadline.study.expand import ExpandedStudy, expand
from leadline.study.rounds import Course, Linked, confidence_of_each, look, resume, rounds, with_seeds

STEP = 100 / 360


def a_study(contrasts: Sequence[Sequence[str]] = (("a", "b"), ("a", "c")), **decide: Any) -> ExpandedStudy:
    arms = {name: {"network": "comparative-cnn", "training": {"batch_size": ord(name)}} for name in "abcd"}
    spec = {"name": "toy", "arms": arms, "contrasts": list(map(list, contrasts)), "margin": 0.5}
    return expand(parse(StudySpec, {**spec, "decide": {"max_seeds": 20, **decide}}))


def course(a: str, b: str, differences: Sequence[float], lost: Sequence[int] = (), ended: int | None = None) -> Course:
    """A contrast whose trials have all ended, with no pair at the seeds that are lost."""
    ended = len(differences) if ended is None else ended
    values = (None if place in lost else float(differences[place]) for place in range(ended))
    return Course(a, b, 0.5, STEP, tuple(Outcome(value, False, False) for value in values))


def through(study: ExpandedStudy, truth: Mapping[tuple[str, str], Sequence[float]]) -> list[Mapping[str, int]]:
    """Run a study whose differences are known beforehand; give the seeds of each round."""
    seen = [rounds(study, [course(*pair, ()) for pair in truth])[-1].seeds]
    while True:
        shown = [course(*pair, values[: min(seen[-1][side] for side in pair)]) for pair, values in truth.items()]
        last = rounds(study, shown)[-1]
        if last.looks:
            return seen
        seen.append(last.seeds)


DRAW = np.random.default_rng(1)
CLEAR = 30 + DRAW.normal(size=20)
CLOSE = 0.3 + DRAW.normal(size=20)


def test_all_arms_begin_and_only_those_of_undecided_contrasts_go_on() -> None:
    study = a_study()
    begun = rounds(study, [course("a", "b", ()), course("a", "c", ())])
    assert [one.seeds for one in begun] == [dict.fromkeys("abcd", 3)] and begun[0].looks == ()
    after = rounds(study, [course("a", "b", CLEAR[:3]), course("a", "c", CLOSE[:3])])
    assert [decision for _, decision in after[0].looks] == ["worse", "undecided"]
    assert after[1].looks == () and after[1].seeds["b"] == after[1].seeds["d"] == 3
    assert after[1].seeds["a"] == after[1].seeds["c"] == 3 + after[1].added > 3


def test_the_last_round_has_all_seeds_or_decides_everything() -> None:
    study = a_study()
    hopeless = through(study, {("a", "b"): CLEAR, ("a", "c"): CLOSE})
    assert hopeless[-1] == {"a": 20, "b": 3, "c": 20, "d": 3}
    assert all(one["a"] == one["c"] for one in hopeless)
    found = rounds(study, [course("a", "b", CLEAR[:3]), course("a", "c", CLOSE)])
    assert [one.number for one in found] == list(range(1, len(found) + 1)) and all(one.looks for one in found)
    assert found[-1].looks[1][1] == "undecided"
    assert through(study, {("a", "b"): CLEAR, ("a", "c"): -CLEAR}) == [dict.fromkeys("abcd", 3)]


def test_a_step_fixes_how_many_seeds_a_round_adds_up_to_the_most() -> None:
    found = through(a_study(step=4, first=2), {("a", "b"): CLOSE, ("a", "c"): CLOSE})
    assert [one["a"] for one in found] == [2, 6, 10, 14, 18, 20]


def test_without_a_step_the_nearest_contrast_says_how_many() -> None:
    study = a_study()
    near, far = 2.5 + CLOSE, CLOSE
    each = confidence_of_each(study)
    wanted = [sequential.next_round(values[:3], 0.5, each, STEP, 20, 20) for values in (near, far)]
    found = rounds(study, [course("a", "b", near[:3]), course("a", "c", far[:3])])
    assert found[1].added == min(wanted) and found[1].seeds["b"] == found[1].seeds["c"] == 3 + min(wanted)


def test_intervals_are_those_of_the_study_of_all_contrasts_and_the_planned_seeds() -> None:
    study = a_study(confidence=0.9)
    assert confidence_of_each(study) == pytest.approx(0.95)
    ends, decision = look(study, course("a", "c", CLOSE), 12)
    expected = sequential.interval_at_any_time(CLOSE[:12], 0.95, STEP, 20)
    assert ends == (expected.low, expected.high)
    assert decision == sequential.decide(CLOSE[:12], 0.5, 0.95, STEP, 20)
    assert look(study, course("a", "c", ()), 0) == ((-math.inf, math.inf), "undecided")


def test_a_seed_that_gave_no_pair_is_spent_and_a_gap_stops_the_round() -> None:
    study = a_study([("a", "b")])
    never = rounds(study, [course("a", "b", CLOSE, lost=range(20))])
    assert never[-1].seeds["a"] == 20 and [one.looks[0][1] for one in never] == ["undecided"] * len(never)
    half = course("a", "b", CLOSE, lost=range(0, 20, 2))
    assert rounds(study, [half])[-1].seeds["a"] == 20
    assert half.first(5) == tuple(CLOSE[[1, 3]])
    # two of three trials have ended: there is no look, whatever they show
    assert rounds(study, [course("a", "b", CLEAR[:2])])[-1].looks == ()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 3), st.sampled_from([None, 1, 3]), st.sampled_from([0.2, 0.5, 2.0]))
def test_rounds_are_the_same_from_any_point_on(seed: int, shift: float, step: int | None, margin: float) -> None:
    study = a_study(step=step, max_seeds=12, margin=margin)
    draw = np.random.default_rng(seed)
    truth = {pair: shift * place + draw.normal(size=12) for place, pair in enumerate((("a", "b"), ("a", "c")))}
    with_margin = {pair: replace(course(*pair, values), margin=margin) for pair, values in truth.items()}
    whole = rounds(study, list(with_margin.values()))
    assert all(one.looks for one in whole)
    counts = [one.seeds for one in whole]
    for before, after in pairwise(counts):
        assert all(before[arm] <= after[arm] for arm in before) and before != after
    for until in (3, 5, 8):
        cut = [replace(one, outcomes=one.outcomes[:until]) for one in with_margin.values()]
        part = rounds(study, cut)
        assert [one for one in part if one.looks] == list(whole[: len([one for one in part if one.looks])])
        assert [one.seeds for one in part] == counts[: len(part)]
    # an arm's seeds beyond the round change nothing, and a decision once told stays told
    told = [[decision != "undecided" for _, decision in one.looks] for one in whole]
    for earlier, later in pairwise(told):
        assert all(now or not then for then, now in zip(earlier, later, strict=True))


@pytest.mark.slow
def test_the_error_over_a_whole_study_stays_below_what_was_asked() -> None:
    # three arms that do not differ, two contrasts that share one of them; looks when the rounds ask for them
    study, wrong, studies = a_study(max_seeds=12, margin=0.05), 0, 300
    draw = np.random.default_rng(7)
    for _ in range(studies):
        a, b, c = draw.normal(size=(3, 12))
        found = rounds(study, [course("a", "b", a - b), course("a", "c", a - c)])
        wrong += any(decision in ("better", "worse") for _, decision in found[-1].looks)
    assert wrong / studies <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / studies)


# --- going on with what is in the ledger


def ledger(study: ExpandedStudy, drawn: int, ended: bool = True) -> list[Linked]:
    return [
        Linked(arm.name, seed, arm.at(seed).content_hash, ended)
        for arm in study.arms
        for seed in study.spec.seed_values[:drawn]
    ]


def test_a_study_goes_on_with_the_seeds_that_are_there() -> None:
    study = a_study()
    fresh = resume(study, [], None)
    assert set(fresh.resolved.drawn.values()) == {3} and len(list(fresh.trials())) == 12
    there = [one for one in ledger(study, 7) if one.arm != "b" or one.seed < 4]
    assert resume(study, there, study).resolved.drawn == {"a": 7, "b": 4, "c": 7, "d": 7}
    # trials of another recipe under the same names are not its own
    other = expand(study.spec.with_(training={"epochs": 3}))
    assert set(resume(other, there, study).resolved.drawn.values()) == {3}
    assert with_seeds(resume(study, there, study), {"a": 3, "b": 9, "c": 7, "d": 3}).resolved.drawn["b"] == 9


def test_what_was_planned_stays_when_more_seeds_are_allowed() -> None:
    first = resume(a_study(max_seeds=8), [], None)
    assert first.resolved.planned == 8 and first.spec == a_study(max_seeds=8).spec
    more = resume(a_study(max_seeds=30), ledger(first, 8), first)
    assert more.spec.decide and (more.resolved.planned, more.spec.decide.max_seeds) == (8, 30)
    again = resume(a_study(max_seeds=40), ledger(more, 9), more)
    assert again.resolved.planned == 8
    # and so do the intervals at the looks that were taken
    before, after = (look(one, course("a", "b", CLOSE[:6]), 6) for one in (first, more))
    assert before == after
    unlooked = resume(a_study(max_seeds=30), ledger(first, 3, ended=False), first)
    assert unlooked.resolved.planned == 30


@pytest.mark.parametrize(
    "change",
    [
        {"confidence": 0.9},
        {"contrasts": [("a", "b")]},
        {"contrasts": [("a", "b"), ("a", "d")]},
        {"metric": "train_error"},
    ],
)
def test_what_was_fixed_before_the_first_look_cannot_change_after_it(change: dict[str, Any]) -> None:
    first = resume(a_study(), [], None)
    with pytest.raises(SpecError, match="restore them, or give the study another name") as caught:
        resume(a_study(**change), ledger(first, 3), first)
    assert "\n" not in str(caught.value)
    assert resume(a_study(**change), ledger(first, 3, ended=False), first).resolved.drawn


def test_a_few_seeds_at_which_one_arm_alone_stays_at_chance_decide_nothing() -> None:
    study = a_study([("a", "b")])
    both, only_a = Outcome(None, True, True), [Outcome(85 + place / 10, True, False) for place in range(8)]
    for outcomes, decision in (
        ([*only_a[:3], both, both], "undecided"),
        (only_a[:4], "undecided"),
        (only_a[:5], "worse"),
    ):
        assert look(study, Course("a", "b", 0.5, STEP, tuple(outcomes)), len(outcomes))[1] == decision
    # nor do they keep undecided what the other seeds show by themselves
    sound = [Outcome(20 + place, False, False) for place in range(4)]
    worse = Course("a", "b", 0.5, STEP, (*sound, Outcome(24, True, False)))
    assert look(study, worse, 5)[1] == "worse" == look(study, replace(worse, outcomes=worse.outcomes[::-1]), 5)[1]
    # without failures as many seeds are enough
    values = [Outcome(85 + place / 10, False, False) for place in range(3)]
    assert look(study, Course("a", "b", 0.5, STEP, tuple(values)), 3)[1] == "worse"


@pytest.mark.parametrize(
    ("outcomes", "seeds", "decision"),
    [
        ([Outcome(85 + place / 10, True, False) for place in range(20)], 6, "worse"),  # at chance at every seed
        ([Outcome(None, True, False), *[Outcome(-85 + place / 10, False, False) for place in range(19)]], 12, "better"),
        ([Outcome(None, True, False), *[Outcome(place % 2 / 100, False, False) for place in range(19)]], 20, None),
    ],
)
def test_a_contrast_that_only_failures_keep_undecided_gets_more_seeds(
    outcomes: list[Outcome], seeds: int, decision: str | None
) -> None:
    study, taken = a_study([("a", "b")]), 3
    while not (found := rounds(study, [Course("a", "b", 0.5, STEP, tuple(outcomes[:taken]))]))[-1].looks:
        taken = found[-1].seeds["a"]
    assert (taken, found[-1].looks[0][1]) == (seeds, decision or "undecided")
