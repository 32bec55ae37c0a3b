"""What a contrast is called, and the tests that it rests on: of difference, of equivalence, and of failures.

The hypotheses are that the mean difference is 0 (paired t, two-sided), and that it is the margin or more (two
one-sided tests, Schuirmann 1987). At most one of them is true, so each may be tested at the full level; what has to be
paid for is the number of contrasts, see `leadline.analysis.stats.corrections`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import scipy

from leadline.analysis.stats.effects import Decision, difference_p, sign_flip_p
from leadline.analysis.stats.unpaired import permutation_p

LEVEL = 0.05
"""The share of studies in which some word may be wrong; by Benjamini and Hochberg's correction, the share of words."""


def choose_word(
    favours: int, difference: float | None, equivalence: float | None, higher_is_better: bool = False
) -> Decision:
    """Return what adjusted p-values say of a contrast; a difference that is real and within the margin is a difference.

    Args:
        favours: the side of 0 on which the difference lies: -1, 0 or 1.
        difference, equivalence: adjusted p-values; None: there is no such test.
        higher_is_better: whether a difference above 0 is in favour of the first arm.
    """
    if difference is not None and difference <= LEVEL and favours:
        return "better" if (favours > 0) == higher_is_better else "worse"
    return "equivalent" if equivalence is not None and equivalence <= LEVEL else "undecided"


# --- failures


@lru_cache(maxsize=4096)
def count_p(failed_a: int, failed_b: int, seeds: int, seeds_b: int | None = None) -> float:
    """Return the two-sided p of Fisher's exact test that two arms fail equally often.

    It takes the arms as independent. Seeds that are hard for both make it careful, and arms of one study share them.

    Args:
        failed_a, failed_b: seeds at which each arm failed.
        seeds: at which both trials have ended.
        seeds_b: of the second arm, where its trials are others.
    """
    of_b = seeds if seeds_b is None else seeds_b
    counts = np.array([[failed_a, seeds - failed_a], [failed_b, of_b - failed_b]])
    return float(scipy.stats.fisher_exact(counts).pvalue)


Ground = Literal["values", "failures"]


@dataclass(frozen=True)
class Outcome:
    """How a pair of trials ended."""

    difference: float | None  # a minus b; None where one of them has no value
    failed_a: bool
    failed_b: bool

    def lead(self, higher_is_better: bool) -> float:
        """Return how far a is ahead of b, below 0 if it is behind; a failed trial is worse than any other."""
        if self.failed_a or self.failed_b:
            return self.failed_b - self.failed_a
        difference = self.difference or 0.0
        return difference if higher_is_better else -difference


@dataclass(frozen=True)
class DifferenceTest:
    """Whether two arms differ, with their failures counted."""

    p: float | None  # two-sided; None: nothing can be tested
    sign: int  # of the difference: -1, 0 or 1
    ground: Ground = "values"
    p_failures: float | None = None  # that the arms fail equally often; None where neither fails more


def difference_with_failures(outcomes: Sequence[Outcome], p: float | None, higher_is_better: bool) -> DifferenceTest:
    """Return the test of a difference between two arms of which trials failed.

    A trial that fails is worse than any that does not. To leave it out flatters the arm that fails more, which is rid
    of its hardest seeds. So two things are tested, each at half the level where both can be: whether the arms fail
    equally often (`count_p`), and whether the values of complete pairs differ. A difference in favour of the arm that
    fails more counts only as far as the signed ranks of all pairs show it too, with a failure ranked as worse than any
    value (worst-rank scores: Lachin 1999), by sign flips. Pairs of which one trial learned nothing have differences far
    from all others and close to each other; a few of them that agree look like certainty. Where there are any, seeds at
    which both trials failed count as without a difference, for they were as likely to show one. Where even the most
    uneven count of so many failures would show nothing, counts are not tested (Tarone 1990).

    Args:
        outcomes: of every seed at which both trials ended.
        p: of the paired t test of the differences; None where there are fewer than two.
        higher_is_better: whether a difference above 0 is in favour of a.
    """
    values = [one.difference for one in outcomes if one.difference is not None]
    sign = int(np.sign(np.mean(values))) if values else 0
    failed_a, failed_b = sum(one.failed_a for one in outcomes), sum(one.failed_b for one in outcomes)
    if failed_a == failed_b:
        return DifferenceTest(p, sign)
    worse = -1 if higher_is_better else 1
    failing = worse if failed_a > failed_b else -worse  # the sign of a difference that tells against who fails more
    by_values, by_count = p, count_p(failed_a, failed_b, len(outcomes))
    if p is not None and any(one.difference is not None and (one.failed_a or one.failed_b) for one in outcomes):
        both = sum(one.failed_a and one.failed_b for one in outcomes)
        by_values = p = max(p, float(difference_p([*values, *[0.0] * both])))
    if p is not None and sign == -failing:
        by_rank, favours = _worst_rank(outcomes, worse)
        by_values = max(p, by_rank) if favours == sign else 1.0
    total = failed_a + failed_b
    testable = count_p(max(0, total - len(outcomes)), min(total, len(outcomes)), len(outcomes)) <= LEVEL
    return _by_either(by_values, sign, by_count, failing, testable)


def unpaired_with_failures(
    a: Sequence[float],
    b: Sequence[float],
    failed_a: int,
    failed_b: int,
    p: float | None,
    higher_is_better: bool,
) -> DifferenceTest:
    """Return the test of a difference between two arms that form no pairs, and of which trials failed.

    As `difference_with_failures`, with the ranks of all trials in place of signed ranks, by permutations.

    Args:
        a, b: values of the trials that did not fail.
        failed_a, failed_b: trials of each arm that did.
        p: of the test by Behrens and Fisher; None where an arm has fewer than two values.
        higher_is_better: whether a difference above 0 is in favour of a.
    """
    sign = int(np.sign(np.mean(a) - np.mean(b))) if len(a) and len(b) else 0
    ended_a, ended_b = len(a) + failed_a, len(b) + failed_b
    if failed_a * ended_b == failed_b * ended_a:
        return DifferenceTest(p, sign)
    worse = -1 if higher_is_better else 1
    failing = worse if failed_a * ended_b > failed_b * ended_a else -worse
    by_values, by_count = p, count_p(failed_a, failed_b, ended_a, ended_b)
    if p is not None and sign == -failing:
        far = 1 + max(map(abs, (*a, *b)))
        ranks = scipy.stats.rankdata(
            [*(worse * far for _ in range(failed_a)), *a, *b, *(worse * far for _ in range(failed_b))]
        )
        by_rank = permutation_p(ranks[:ended_a], ranks[ended_a:])
        favours = int(np.sign(ranks[:ended_a].mean() - ranks[ended_a:].mean()))
        by_values = max(p, by_rank) if favours == sign else 1.0
    total = failed_a + failed_b
    splits = [(least, total - least) for least in (max(0, total - ended_b), min(total, ended_a))]
    testable = min(count_p(*split, ended_a, ended_b) for split in splits) <= LEVEL
    return _by_either(by_values, sign, by_count, failing, testable)


def _by_either(by_values: float | None, sign: int, by_count: float, failing: int, testable: bool) -> DifferenceTest:
    """Return the test by values or by the number of failures, each at half the level where both can be."""
    if not testable:
        return DifferenceTest(by_values, sign, "values", by_count)
    if by_values is None:
        return DifferenceTest(by_count, failing, "failures", by_count)
    if by_count <= by_values:
        return DifferenceTest(min(1.0, 2 * by_count), failing, "failures", by_count)
    return DifferenceTest(min(1.0, 2 * by_values), sign, "values", by_count)


def _worst_rank(outcomes: Sequence[Outcome], worse: int) -> tuple[float, int]:
    """Return the p of signed worst ranks by sign flips, and the sign that they have together."""
    far = 1 + max((abs(one.difference) for one in outcomes if one.difference is not None), default=0.0)
    scores = [
        worse * far * (one.failed_a - one.failed_b) if one.failed_a or one.failed_b else one.difference or 0.0
        for one in outcomes
    ]
    ranks = np.sign(scores) * scipy.stats.rankdata(np.abs(scores))
    return sign_flip_p(ranks), int(np.sign(ranks.sum()))
