"""Small versions of benchmarks/verdicts.py and benchmarks/unpaired.py: how often words are false, by simulation."""

import numpy as np
import pandas as pd
import pytest
from benchmarks import unpaired as separate
from benchmarks import verdicts

import leadline as ll
from leadline.analysis.verdict.decisions import decide_contrasts

LAWS = {law.name: law for law in verdicts.LAWS}


def allowed(studies: int) -> float:
    """5% and three standard errors of so many studies."""
    return 0.05 + 3 * float(np.sqrt(0.05 * 0.95 / studies))


@pytest.mark.parametrize("law", [law.name for law in verdicts.LAWS if law.bounded and not law.fails])
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_any_word_of_a_study_is_false_in_at_most_one_of_twenty(law: str, shift: float) -> None:
    for contrasts, seeds in ((1, 3), (3, 2), (10, 5)):
        wrong, alone = verdicts.false_words(LAWS[law], contrasts, seeds, 1000, shift, seed=1)
        assert wrong / 1000 <= allowed(1000)
        if law == "normal" and contrasts == 10 and not shift:
            assert alone / 1000 > 0.3  # as before, each contrast by its own interval


@pytest.mark.parametrize("law", [law.name for law in verdicts.LAWS if law.bounded and law.fails])
def test_trials_that_fail_make_no_more_words_false(law: str) -> None:
    for contrasts, seeds in ((1, 3), (3, 2), (6, 5)):
        wrong, _ = verdicts.false_words(LAWS[law], contrasts, seeds, 200, 0.0, seed=1)
        assert wrong / 200 <= allowed(200)


def test_words_in_bulk_are_those_of_the_verdict_study_by_study() -> None:
    law = LAWS["1% of 360 images"]
    errors = law.draw(np.random.default_rng(3), (40, 5, 4))
    errors[:20, 1:3] += 2
    bulk = verdicts.words(errors, law)
    none = np.zeros(errors.shape[1:], dtype=bool)
    for study, expected in zip(errors, bulk, strict=True):
        pairs = [
            verdicts.pairs_of(study[0], study[arm], none[0], none[arm], f"a{arm}", law) for arm in range(1, len(study))
        ]
        found = decide_contrasts(pairs, [verdicts.estimate(one) for one in pairs], "holm")
        assert [one.decision for one in found] == expected
    assert {word for study in bulk for word in study} >= {"worse", "equivalent", "undecided"}


@pytest.mark.parametrize("case", [case for case in separate.CASES if not case.law.fails], ids=str)
@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_any_word_of_arms_without_pairs_is_false_in_at_most_one_of_twenty(case: separate.Case, shift: float) -> None:
    for contrasts, runs in ((1, 3), (3, 2)):
        assert separate.false_words(case, contrasts, runs, 100, shift, seed=1) / 100 <= allowed(100)


@pytest.mark.parametrize("case", [case for case in separate.CASES if case.law.fails], ids=str)
def test_runs_without_pairs_that_fail_make_no_more_words_false(case: separate.Case) -> None:
    assert separate.false_words(case, 3, 4, 50, 0.0, seed=1) / 50 <= allowed(50)


def test_words_of_arms_without_pairs_are_those_of_compare() -> None:
    case = next(case for case in separate.CASES if case.law.name == "1% of 200 images")
    draw, seen = np.random.default_rng(2), set()
    for _ in range(6):
        first, second, third, *_ = case.draw(draw, 3, 30)
        arms = [first, second, third[:4] + 1]
        rows = [(f"a{place}", value) for place, arm in enumerate(arms) for value in arm]
        table = pd.DataFrame(rows, columns=["arm", "error"])
        found = ll.compare(table, baseline="a0", margin=case.law.margin, resolution=case.law.step, unit="%")
        assert found.contrasts["verdict"].tolist() == separate.words(arms, case.law)
        seen |= set(found.contrasts["verdict"])
    assert seen == {"worse", "equivalent", "undecided"}
