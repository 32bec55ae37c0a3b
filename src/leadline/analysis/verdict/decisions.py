"""Decisions: the one place where they are taken, from the numbers of all contrasts of a study together."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from leadline.analysis.stats import Decision, Paired, benjamini_hochberg, decide, holm
from leadline.analysis.verdict.pairs import Pairs
from leadline.parts.metrics import metric
from leadline.specs.contrast import Correction


@dataclass(frozen=True)
class Judgement:
    """What is decided about one contrast, beside the others."""

    decision: Decision
    p_adjusted: float | None  # of the permutation test
    t_p_adjusted: float | None  # of the paired t test


def decide_contrasts(
    pairs: Sequence[Pairs], estimates: Sequence[Paired | None], correction: Correction
) -> tuple[Judgement, ...]:
    """Return what is decided about each contrast.

    A decision rests on the contrast's own interval; p-values are adjusted over the contrasts that have one.

    Args:
        pairs: what each contrast compares.
        estimates: what its pairs show; None without a pair.
        correction: of the p-values.
    """
    p_adjusted = adjust([one.p if one else None for one in estimates], correction)
    t_p_adjusted = adjust([one.t_p if one else None for one in estimates], correction)
    decisions = (
        decide(
            estimate.ci95 if estimate and not compared.silent else None,
            compared.margin,
            metric(compared.contrast.metric).higher_is_better,
        )
        for compared, estimate in zip(pairs, estimates, strict=True)
    )
    return tuple(map(Judgement, decisions, p_adjusted, t_p_adjusted))


def adjust(ps: Sequence[float | None], correction: Correction) -> list[float | None]:
    """Return p-values adjusted for how many there are, None where there is none."""
    adjusted = (holm if correction == "holm" else benjamini_hochberg)(ps)
    return [None if math.isnan(p) else float(p) for p in adjusted]
