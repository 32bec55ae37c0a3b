"""Decisions: the one place where they are taken, from the numbers of all contrasts of a study together."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from leadline.analysis.stats import (
    LEVEL,
    Decision,
    DifferenceTest,
    Effect,
    SeedsForWord,
    benjamini_hochberg,
    benjamini_hochberg_both,
    choose_word,
    difference_with_failures,
    equivalence_p,
    holm,
    holm_both,
    least_spread,
    seeds_for_word,
    unpaired_equivalence_p,
    unpaired_with_failures,
)
from leadline.analysis.stats.crossed import equivalence_p_crossed
from leadline.analysis.verdict.pairs import Pairs
from leadline.specs.contrast import Correction


@dataclass(frozen=True)
class Judgement:
    """What is decided about one contrast, beside the others."""

    decision: Decision
    test: DifferenceTest = field(default_factory=lambda: DifferenceTest(None, 0))
    difference_p_adjusted: float | None = None
    equivalence_p: float | None = None
    equivalence_p_adjusted: float | None = None
    p_adjusted: float | None = None  # of the permutation test, among these

    @property
    def alone(self) -> bool:
        """Whether the contrast is undecided only because there are others."""
        ps = (self.test.p, self.equivalence_p)
        return self.decision == "undecided" and any(p is not None and p <= LEVEL for p in ps)


def decide_contrasts(
    pairs: Sequence[Pairs], estimates: Sequence[Effect | None], correction: Correction
) -> tuple[Judgement, ...]:
    """Return what is decided about each contrast of a study whose seeds were fixed.

    By p-values of difference and of equivalence that are adjusted for all contrasts that have any, so that what the
    correction promises holds for the words. Failed trials count, see `stats.difference_with_failures`; where only one
    trial of a pair failed, the two arms are not equivalent, and where none of any pair learned, nothing is decided.

    Args:
        pairs: what each contrast compares.
        estimates: what its pairs show; None without a pair.
        correction: of the p-values.
    """
    tests = [_difference(own, one) for own, one in zip(pairs, estimates, strict=True)]
    equivalences = [_equivalence(own, one) for own, one in zip(pairs, estimates, strict=True)]
    both = holm_both if correction == "holm" else benjamini_hochberg_both
    differ, same = both(*(_with_nan(ps) for ps in ([test.p for test in tests], equivalences)))
    permuted = adjust([one.p if one else None for one in estimates], correction)
    found = []
    for own, test, p, p_differ, p_same, p_permuted in zip(
        pairs, tests, equivalences, _plain(differ), _plain(same), permuted, strict=True
    ):
        word = choose_word(test.sign, p_differ, p_same, own.contrast.kind.higher_is_better)
        found.append(Judgement(word, test, p_differ, p, p_same, p_permuted))
    return tuple(found)


def _difference(pairs: Pairs, estimate: Effect | None) -> DifferenceTest:
    if pairs.neither_learned:
        return DifferenceTest(None, 0)
    higher = pairs.contrast.kind.higher_is_better
    p = None if estimate is None or pairs.silent else estimate.t_p
    if pairs.apart:
        failed_a, failed_b = (side.failed for side in pairs.apart)
        return unpaired_with_failures(pairs.a, pairs.b, failed_a, failed_b, p, higher)
    outcomes = [one for _, one in pairs.outcomes]
    if pairs.shared and any(one.failed_a or one.failed_b for one in outcomes):
        return DifferenceTest(None, 0)  # failures are counted as if trials were independent
    if not outcomes:  # times to a target, which have failures in them
        return DifferenceTest(p, 0 if estimate is None else (estimate.difference > 0) - (estimate.difference < 0))
    return difference_with_failures(outcomes, p, higher)


def _equivalence(pairs: Pairs, estimate: Effect | None) -> float | None:
    if estimate is None or estimate.n < 2 or pairs.silent or pairs.uneven or not pairs.margin:
        return None
    if pairs.reach and pairs.reach.reached_a + pairs.reach.reached_b < 2 * estimate.n:
        return None  # how long the others would have taken is not known, and a horizon makes them equal
    if pairs.apart:
        return unpaired_equivalence_p(pairs.a, pairs.b, pairs.margin, pairs.resolution)
    if pairs.shared:
        return equivalence_p_crossed(pairs.differences, pairs.margin, pairs.shared, pairs.resolution)
    return float(equivalence_p(pairs.differences, pairs.margin, pairs.resolution))


def seeds_needed(pairs: Pairs, estimate: Effect | None, contrasts: int) -> SeedsForWord | None:
    """Return how many seeds would decide a contrast that is undecided; None where its few pairs tell nothing.

    Args:
        pairs, estimate: what it compares, and what that shows.
        contrasts: that share the error of the study.
    """
    if estimate is None or estimate.n < 2 or estimate.t_p is None or pairs.silent or pairs.uneven or pairs.shared:
        return None
    spread = max(estimate.sd or 0.0, least_spread(pairs.resolution))
    if not spread:
        return None
    return seeds_for_word(estimate.difference, spread, estimate.n, pairs.margin, LEVEL / max(1, contrasts))


def adjust(ps: Sequence[float | None], correction: Correction) -> list[float | None]:
    """Return p-values adjusted for how many there are, None where there is none."""
    return _plain((holm if correction == "holm" else benjamini_hochberg)(ps))


def _with_nan(ps: Sequence[float | None]) -> list[float]:
    return [math.nan if p is None else p for p in ps]


def _plain(ps: Iterable[float]) -> list[float | None]:
    return [None if math.isnan(p) else float(p) for p in ps]
