"""Which arms figures draw where a study has too many: the control, the best, the worst, those of clear differences."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from leadline.analysis.verdict import Findings
from leadline.reports.charts.chart import SHOWN_BASES

BEST, WORST, DECIDED = 7, 4, 6
NOTABLE = "the control (the arm of most contrasts), the best, the worst and those of the largest decided differences"


def notable_arms(findings: Findings) -> tuple[str, ...]:
    """Return names of arms without their levels, those first that a figure should not leave out."""
    bases = {arm.name: arm.base for arm in findings.arms}
    compared = Counter(bases[arm] for one in findings.contrasts for arm in (one.a, one.b) if arm in bases)
    control = [base for base, _ in compared.most_common(1)]
    ranked = _rank(findings)
    decided = sorted(
        (one for one in findings.contrasts if one.decision in ("better", "worse") and one.paired is not None),
        key=lambda one: -abs(one.paired.difference) if one.paired else 0.0,
    )
    clear = [bases[arm] for one in decided[:DECIDED] for arm in (one.a, one.b) if arm in bases]
    return tuple(dict.fromkeys((*control, *ranked[:BEST], *ranked[-WORST:], *clear)))


def _rank(findings: Findings) -> list[str]:
    """Return arms without their levels by the best mean that one of their levels has, the best first."""
    kind = findings.declared.get(findings.metric)
    sign = -1.0 if kind is not None and kind.higher_is_better else 1.0
    best: dict[str, float] = {}
    for arm in findings.arms:
        if (summary := arm.metrics.get(findings.metric)) is not None:
            best[arm.base] = min(best.get(arm.base, math.inf), sign * summary.mean)
    return sorted(best, key=best.__getitem__)


def choose_arms(every: Sequence[str], notable: Sequence[str], most: int = SHOWN_BASES) -> list[str]:
    """Return at most so many arms, in their order: all of them, or the notable ones; where none is, the first.

    Example:
        >>> choose_arms(["a", "b", "c", "d"], notable=["d", "b", "a"], most=2)
        ['b', 'd']
    """
    if len(every) <= most:
        return list(every)
    known = set(every)
    kept = [one for one in notable if one in known][:most] or every[:most]
    return [one for one in every if one in kept]


def describe_choice(every: Sequence[str], shown: Sequence[str], notable: Sequence[str]) -> Iterator[str]:
    """Yield a sentence for the caption if not all arms are drawn."""
    if len(shown) < len(every):
        which = f": {NOTABLE}" if notable else ""
        yield f"{len(shown)} of {len(every)} arms are drawn{which}; this figure's data file has all of them."
