"""Findings as plain JSON values for other programs, and as plain text for the terminal."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from leadline.stats import Summary
from leadline.study.rounds import Round
from leadline.verdict import lookwords
from leadline.verdict.findings import AcrossFinding, ArmFinding, ContrastFinding, FactorEffect, Findings, Looks
from leadline.verdict.metrics import ERRORS, KINDS, ToTarget
from leadline.verdict.words import CORRECTION_NAMES, LONGEST, decimals, listed, metric_of, number, p_text


def to_json(findings: Findings) -> dict[str, Any]:
    """Return findings as plain JSON values: None for what is missing, errors in per cent, differences in points.

    `p` is the sign-flip permutation test's and `p_adjusted` its adjustment by `correction`; `t_p` and `t_p_adjusted`
    are those of the paired t test. `verdict` rests on `ci95`, the paired-t interval, alone. `factors` has how contrasts
    depend on what is varied, `data_sets` what they show over several data sets. A contrast whose metric is a time to a
    target has `target` and `reach`; its values and differences are in epochs or seconds up to the horizon there.

    Where seeds are added until contrasts are decided, there are no p-values, `ci95` is the interval that holds at every
    look, if that is at 95%, and `looks` has it with how sure it is, how many seeds there are and how many there may be;
    `at` there has what each look that was taken showed.
    """
    return {
        "study": findings.study,
        "title": findings.title,
        "headline": list(findings.headline),
        "arms": {arm.name: _arm(arm) for arm in findings.arms},
        "contrasts": [_contrast(contrast) for contrast in findings.contrasts],
        "notes": list(findings.notes),
        "correction": findings.correction,
        "factors": [_factor(effect) for effect in findings.factors],
        "data_sets": [_across(one) for one in findings.across],
        **({"rounds": [_round(one) for one in findings.rounds]} if findings.rounds else {}),
    }


def _arm(arm: ArmFinding) -> dict[str, Any]:
    return {
        "base": arm.base,
        "factors": dict(arm.factors),
        "planned": arm.planned,
        "n": arm.finished,
        "diverged": arm.diverged,
        "failed": arm.failed,
        **{metric: _summary(arm.metrics.get(metric)) for metric in dict.fromkeys((*ERRORS, *arm.metrics))},
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
        "ci95": list(result.ci95) if result and result.ci95 and lookwords.level(contrast) == "95%" else None,
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
        **({"looks": _looks(contrast.looks)} if contrast.looks else {}),
        **({} if contrast.target is None else {"target": contrast.target}),
        **({"reach": asdict(contrast.reach)} if contrast.reach else {}),
    }


def _factor(effect: FactorEffect) -> dict[str, Any]:
    result, left = effect.paired, ("paired", "subject", "change", "levels", "seeds")
    return {
        **{name: value for name, value in asdict(effect).items() if name not in left},
        "levels": list(effect.levels),
        "seeds": list(effect.seeds),
        "estimate": result.difference,
        "ci95": list(result.ci95) if result.ci95 else None,
        "t_p": result.t_p,
        "p": result.p,
    }


def _across(one: AcrossFinding) -> dict[str, Any]:
    return {
        **{name: getattr(one, name) for name in ("a", "b", "metric", "target", "margin", "sentence")},
        "verdict": one.decision,
        "summary": _plain(asdict(one.summary)) if one.summary else None,
        "data_sets": [
            {
                "data": part.data,
                "a": part.contrast.a,
                "b": part.contrast.b,
                "n": part.contrast.paired.n if part.contrast.paired else 0,
                "difference": part.contrast.paired.difference if part.contrast.paired else None,
                "verdict": part.contrast.decision,
                "weight": part.weight,
            }
            for part in one.parts
        ],
    }


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def round_line(findings: Findings, one: Round) -> str:
    """Return what a round whose trials have ended added, and what is undecided after it, in one line."""
    seeds = f"{one.added} seed{'' if one.added == 1 else 's'}, {max(one.seeds.values())} in all"
    names = [
        f"{contrast.a} against {contrast.b} ({_ends(*ends)})"
        for contrast, (ends, decision) in zip(findings.contrasts, one.looks, strict=True)
        if decision == "undecided"
    ]
    return f"round {one.number}: {seeds}; {f'undecided: {listed(names)}' if names else 'every contrast is decided'}"


def decided_line(findings: Findings) -> str:
    """Return what a study that decides while seeds are added has decided, with how many of its seeds, in one line."""
    shown = [(contrast, contrast.looks) for contrast in findings.contrasts if contrast.looks]
    most = max((looks.most for _, looks in shown), default=0)
    parts = []
    for decision in ("better", "worse", "equivalent", "undecided"):
        names = [
            f"{contrast.a} against {contrast.b} ({looks.seeds} seed{'' if looks.seeds == 1 else 's'})"
            for contrast, looks in shown
            if contrast.decision == decision
        ]
        if names:
            parts.append(f"{decision}: {listed(names)}")
    return f"Of at most {most} seeds, {'; '.join(parts)}."


def _ends(low: float, high: float) -> str:
    return f"{number(low, 2)} to {number(high, 2)}" if math.isfinite(high - low) else "no interval yet"


def _round(one: Round) -> dict[str, Any]:
    return {"number": one.number, "added": one.added, "seeds": dict(one.seeds), "ended": bool(one.looks)}


def _looks(looks: Looks) -> dict[str, Any]:
    values = asdict(looks)
    at = [one for one in values.pop("course") if one.pop("looked")]
    for one in (values, *at):
        one |= {end: one[end] if math.isfinite(one[end]) else None for end in ("low", "high")}
    return {**values, "at": [{"verdict": one.pop("decision"), **one} for one in at]}


def to_text(findings: Findings) -> str:
    """Return findings as plain text: the verdict in words, a table of arms, the contrasts in numbers, the notes."""
    blocks = [
        [findings.title or findings.study],
        list(findings.headline),
        _table([_ARM_COLUMNS, *map(_arm_row, findings.arms)]),
        *([*_contrast_lines(contrast, findings)] for contrast in findings.contrasts),
        *([["Factors", *_table([_FACTOR_COLUMNS, *map(_factor_row, findings.factors)])]] if findings.factors else []),
        *([one.sentence] for one in findings.across if one.sentence not in findings.headline),
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


_FACTOR_COLUMNS = ("effect", "change", "estimate", "95% interval", "p", "adjusted", "seeds")


def _factor_row(effect: FactorEffect) -> tuple[str, ...]:
    result = effect.paired
    digits = decimals(result.difference, result.ci95)
    return (
        effect.subject,
        effect.change,
        f"{number(result.difference, digits)} {KINDS[effect.metric].of_difference}",
        " to ".join(number(end, digits) for end in result.ci95) if result.ci95 else "–",
        p_text(result.t_p) if result.t_p is not None else "–",
        p_text(effect.t_p_adjusted) if effect.t_p_adjusted is not None else "–",
        str(result.n),
    )


def _contrast_lines(contrast: ContrastFinding, findings: Findings) -> Iterable[str]:
    yield f"{contrast.a} against {contrast.b}, {metric_of(contrast)}: {contrast.decision}"
    if not any(line.endswith(contrast.sentence) for line in findings.headline):
        yield f"  {contrast.sentence}"
    result = contrast.paired
    if result and result.p is not None and result.p_smallest is not None and result.t_p is not None:
        yield (
            f"  paired t: p {p_text(result.t_p)}{_adjusted(contrast.t_p_adjusted, findings)}; permutation:"
            f" p {p_text(result.p)}{_adjusted(contrast.p_adjusted, findings)}, at {result.n} seeds never below"
            f" {p_text(result.p_smallest) if result.p_smallest >= 0.001 else f'{result.p_smallest:.1e}'}"
        )
        extra = [] if result.effect_size is None else [f"effect size {number(result.effect_size, 2)}"]
        if result.bca95:
            extra.append(f"BCa bootstrap interval {number(result.bca95[0], 3)} to {number(result.bca95[1], 3)}")
        if extra:
            yield f"  {'; '.join(extra)}"
    if contrast.reach:
        yield _reach_line(contrast, contrast.reach)
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


def _adjusted(p: float | None, findings: Findings) -> str:
    return "" if p is None else f" ({CORRECTION_NAMES[findings.correction]} {p_text(p)})"


def _reach_line(contrast: ContrastFinding, reach: ToTarget) -> str:
    medians = [
        f"{name} {'not seen' if median is None else f'{median:.4g}'}"
        for name, median in ((contrast.a, reach.median_a), (contrast.b, reach.median_b))
    ]
    first = reach.earlier
    return (
        f"  median (Kaplan-Meier): {', '.join(medians)}; known to be first: {contrast.a} at {first.a_first},"
        f" {contrast.b} at {first.b_first} of {len(contrast.seeds)} seeds, sign test p {p_text(first.p)}"
    )
