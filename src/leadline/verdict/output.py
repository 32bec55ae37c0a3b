"""Findings as plain JSON values for other programs, and as plain text for the terminal."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from leadline.stats import Summary
from leadline.verdict.findings import ArmFinding, ContrastFinding, Findings
from leadline.verdict.words import LONGEST, METRICS, number, p_text


def to_json(findings: Findings) -> dict[str, Any]:
    """Return findings as plain JSON values: None for what is missing, errors in per cent, differences in points.

    `p` is the sign-flip permutation test's and `p_adjusted` its Holm adjustment; `t_p` and `t_p_adjusted` are those of
    the paired t test. `verdict` rests on `ci95`, the paired-t interval, alone.
    """
    return {
        "study": findings.study,
        "title": findings.title,
        "headline": list(findings.headline),
        "arms": {arm.name: _arm(arm) for arm in findings.arms},
        "contrasts": [_contrast(contrast) for contrast in findings.contrasts],
        "notes": list(findings.notes),
    }


def _arm(arm: ArmFinding) -> dict[str, Any]:
    return {
        "base": arm.base,
        "factors": dict(arm.factors),
        "planned": arm.planned,
        "n": arm.finished,
        "diverged": arm.diverged,
        "failed": arm.failed,
        **{metric: _summary(arm.metrics.get(metric)) for metric in METRICS},
        "convergence_epoch": _summary(arm.convergence_epoch),
        "seconds": _summary(arm.seconds),
    }


def _summary(summary: Summary | None) -> dict[str, float | int | None]:
    if summary is None:
        return {"n": 0, **dict.fromkeys(("mean", "sd", "median", "minimum", "maximum"))}
    return asdict(summary)


def _contrast(contrast: ContrastFinding) -> dict[str, Any]:
    result = contrast.paired
    return {
        "a": contrast.a,
        "b": contrast.b,
        "metric": contrast.metric,
        "n": result.n if result else 0,
        "difference": result.difference if result else None,
        "ci95": list(result.ci95) if result and result.ci95 else None,
        "p": result.p if result else None,
        "p_adjusted": contrast.p_adjusted,
        "verdict": contrast.decision,
        "sentence": contrast.sentence,
        "margin": contrast.margin,
        "seeds": list(contrast.seeds),
        "differences": list(contrast.differences),
        "diverged_a": contrast.diverged_a,
        "diverged_b": contrast.diverged_b,
        "sd": result.sd if result else None,
        "bca95": list(result.bca95) if result and result.bca95 else None,
        "p_smallest": result.p_smallest if result else None,
        "t_p": result.t_p if result else None,
        "t_p_adjusted": contrast.t_p_adjusted,
        "effect_size": result.effect_size if result else None,
        "seeds_to_decide": result.seeds_to_decide if result else None,
        "mcnemar": [asdict(test) for test in contrast.mcnemar],
    }


def to_text(findings: Findings) -> str:
    """Return findings as plain text: the verdict in words, a table of arms, the contrasts in numbers, the notes."""
    blocks = [
        [findings.title or findings.study],
        list(findings.headline),
        _table([_ARM_COLUMNS, *map(_arm_row, findings.arms)]),
        *([*_contrast_lines(contrast, findings.headline)] for contrast in findings.contrasts),
        [f"- {note}" for note in findings.notes],
    ]
    return "\n\n".join("\n".join(lines) for lines in blocks)


_ARM_COLUMNS = ("arm", "finished", "diverged", "test error %", "sd", "median", "range", "train error %", "converged")


def _arm_row(arm: ArmFinding) -> tuple[str, ...]:
    test, train, epoch = arm.metrics.get("test_error"), arm.metrics.get("train_error"), arm.convergence_epoch
    return (
        arm.name,
        f"{arm.finished} of {arm.planned}",
        str(arm.diverged),
        number(test.mean, 2) if test else "–",
        number(test.sd, 2) if test and test.sd is not None else "–",
        number(test.median, 2) if test else "–",
        f"{number(test.minimum, 2)} to {number(test.maximum, 2)}" if test else "–",
        number(train.mean, 2) if train else "–",
        f"epoch {epoch.median:g}" if epoch else "–",
    )


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lay rows out in columns: the first to the left, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]


def _contrast_lines(contrast: ContrastFinding, said: Sequence[str]) -> Iterable[str]:
    yield f"{contrast.a} against {contrast.b}, {METRICS[contrast.metric]}: {contrast.decision}"
    if not any(line.endswith(contrast.sentence) for line in said):
        yield f"  {contrast.sentence}"
    result = contrast.paired
    if result and result.p is not None and result.p_smallest is not None and result.t_p is not None:
        yield (
            f"  paired t: p {p_text(result.t_p)}{_adjusted(contrast.t_p_adjusted)}; permutation:"
            f" p {p_text(result.p)}{_adjusted(contrast.p_adjusted)}, at {result.n} seeds never below"
            f" {p_text(result.p_smallest) if result.p_smallest >= 0.001 else f'{result.p_smallest:.1e}'}"
        )
        extra = [] if result.effect_size is None else [f"effect size {number(result.effect_size, 2)}"]
        if result.bca95:
            extra.append(f"BCa bootstrap interval {number(result.bca95[0], 3)} to {number(result.bca95[1], 3)}")
        if extra:
            yield f"  {'; '.join(extra)}"
    if contrast.mcnemar:
        tests = [
            f"seed {test.seed}: {test.a_only} and {test.b_only}, p {p_text(test.p)}"
            for test in contrast.mcnemar[:LONGEST]
        ]
        more = len(contrast.mcnemar) - len(tests)
        yield (
            "  McNemar, images that only the first or only the second gets right: "
            + "; ".join(tests)
            + (f"; and {more} more seeds" if more else "")
        )


def _adjusted(p: float | None) -> str:
    return "" if p is None else f" (Holm {p_text(p)})"
