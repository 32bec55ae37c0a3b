"""What the final errors of arms are worth a look for, in a sentence each: gaps to the training error, and depth."""

import math
from collections.abc import Sequence

from leadline.analysis.verdict.findings import ArmFinding, Findings
from leadline.text import number


def gap_sentence(findings: Findings) -> str:
    """Return which arm's test error is furthest above its training error; empty where none is above it by a point.

    Arms with wrong training labels have no part in it: their training error is measured on those.
    """
    known = [arm for arm in _learned(findings) if "test_error" in arm.metrics and "train_error" in arm.metrics]
    arms = [arm for arm in known if arm.name not in findings.mislabelled]
    gaps = {arm.name: arm.metrics["test_error"].mean - arm.metrics["train_error"].mean for arm in arms}
    if not gaps or max(gaps.values()) < 1:
        return ""
    worst = max(arms, key=lambda arm: gaps[arm.name])
    train, test = (number(worst.metrics[name].mean, 1) for name in ("train_error", "test_error"))
    among = "Of the arms with right training labels, " if findings.mislabelled else ""
    return (
        f"{among}{worst.name} has the largest gap between training and test: {train}% of the training images are"
        f" misclassified after training, and {test}% of the test images."
    )


def depth_sentence(findings: Findings) -> str:
    """Return for which arm the final training error rises most with a factor that is a number; empty: for none.

    A rise counts if it is larger than twice its standard error over seeds, and than one point. Factors of the data do
    not count: other images or labels may be harder to learn.
    """
    rises = []
    for arms in _by_base(findings).values():
        for key in (key for key in arms[0].factors if not key.startswith("data.")):
            levels = [arm for arm in arms if _is_number(arm.factors.get(key)) and "train_error" in arm.metrics]
            others = {tuple((k, v) for k, v in arm.factors.items() if k != key) for arm in levels}
            if len(levels) < 2 or len(others) > 1:
                continue
            first, last = (pick(levels, key=lambda arm: float(arm.factors[key])) for pick in (min, max))
            low, high = (one.metrics["train_error"] for one in (first, last))
            error = math.sqrt(sum((one.sd or 0.0) ** 2 / one.n for one in (low, high)))
            if high.mean - low.mean > max(1.0, 2 * error):
                rises.append((high.mean - low.mean, key, first, last))
    if not rises:
        return ""
    _, key, first, last = max(rises, key=lambda rise: rise[0])
    start, end = (number(one.metrics["train_error"].mean, 1) for one in (first, last))
    return (
        f"The training error of {first.base} rises from {start}% at {key} = {first.factors[key]} to {end}% at {key} ="
        f" {last.factors[key]}, so it is training that fails there, not generalisation."
    )


def _learned(findings: Findings) -> list[ArmFinding]:
    return [arm for arm in findings.arms if arm.finished > arm.at_chance]


def _by_base(findings: Findings) -> dict[str, Sequence[ArmFinding]]:
    found: dict[str, list[ArmFinding]] = {}
    for arm in findings.arms:
        found.setdefault(arm.base, []).append(arm)
    return dict(found)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
