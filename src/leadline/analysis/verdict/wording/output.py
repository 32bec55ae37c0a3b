"""Findings as plain JSON values for other programs, and as plain text for the terminal."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from leadline.analysis.verdict.findings import ContrastFinding, FactorEffect, Findings, MetaAnalysis
from leadline.analysis.verdict.tuned import tuning_sentences
from leadline.analysis.verdict.wording.effect_tables import factors_table, targets_table
from leadline.analysis.verdict.wording.headline import headline
from leadline.analysis.verdict.wording.notes import notes
from leadline.analysis.verdict.wording.sentences import (
    contrast_sentence,
    detail_sentences,
    effect_sentence,
    meta_sentence,
    name_pair,
)
from leadline.analysis.verdict.wording.tables import arm_values, arms_table, contrast_values, contrasts_table
from leadline.seeds import call_seed
from leadline.study.rounds import Round
from leadline.text import LONGEST, NOTHING, interval, join, p_value, plural
from leadline.text.layout import Block, keep
from leadline.text.layout import to_text as lay_out
from leadline.text.tables import Table


def to_json(findings: Findings) -> dict[str, Any]:
    """Return findings as plain JSON values: None for what is missing, errors in per cent, differences in points.

    `verdict` rests on `difference_p_adjusted` and `equivalence_p_adjusted`: the paired t test of difference, with
    failed trials counted, and two one-sided t tests of equivalence, adjusted together by `correction`. `ci95` is the
    paired-t interval of the contrast by itself. `p` is the sign-flip permutation test's and `p_adjusted` its adjustment
    among its like. Of arms without pairs, all of these are Behrens and Fisher's, and `welch_p` and `welch_ci95` are
    Welch's, which nothing rests on. Intervals are cut at differences that are impossible, such as more than 100 points
    of an error. `needed` has the seeds at which the contrast would be decided, `pairing` what pairing is worth, `ahead`
    how often the first arm is better at a fresh seed, `images` an interval for other seeds and other test images at
    once, `looked` the seeds at which a verdict was there to see before more were added, or that ended it.
    `factors` has how contrasts depend on what is varied, `data_sets` what they show over several data sets. A contrast
    whose metric is a time to a target has `target` and `reach`; its values and differences are in epochs or seconds up
    to the horizon there.

    Where seeds are added until contrasts are decided, there are no p-values, `ci95` is the interval that holds at every
    look, if that is at 95%, and `looks` has it with how sure it is, how many seeds there are and how many there may be;
    `at` there has what each look that was taken showed.
    """
    return {
        "study": findings.study,
        "title": findings.title,
        "headline": list(headline(findings)),
        "arms": {arm.name: arm_values(arm, findings.summarised) for arm in findings.arms},
        "contrasts": [
            {
                **contrast_values(contrast),
                "sentence": contrast_sentence(contrast, findings),
                "details": list(detail_sentences(contrast)),
            }
            for contrast in findings.contrasts
        ],
        "notes": _notes(findings),
        "correction": findings.correction,
        "factors": [_factor(effect) for effect in findings.factors],
        "data_sets": [_meta_analysis(one) for one in findings.meta_analyses],
        **({"rounds": [_round(one) for one in findings.rounds]} if findings.rounds else {}),
    }


def _notes(findings: Findings) -> list[str]:
    """Return what tuning showed beside the headline, and the notes."""
    return [*(tuning_sentences(findings.tuning)[1:] if findings.tuning else ()), *notes(findings)]


def _factor(effect: FactorEffect) -> dict[str, Any]:
    result = effect.paired
    return {
        **{name: value for name, value in asdict(effect).items() if name not in ("paired", "declared")},
        "sentence": effect_sentence(effect),
        "levels": list(effect.levels),
        "seeds": list(effect.seeds),
        "estimate": result.difference,
        "ci95": list(result.ci95) if result.ci95 else None,
        "t_p": result.t_p,
        "p": result.p,
    }


def _meta_analysis(one: MetaAnalysis) -> dict[str, Any]:
    return {
        **{name: getattr(one, name) for name in ("a", "b", "metric", "target", "margin")},
        "sentence": meta_sentence(one),
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


def _round(one: Round) -> dict[str, Any]:
    return {"number": one.number, "added": one.added, "seeds": dict(one.seeds), "ended": bool(one.looks)}


# --- lines while a study runs


def round_line(findings: Findings, one: Round) -> str:
    """Return what a round whose trials have ended added, and what is undecided after it, in one line."""
    names = []
    for contrast, (ends, decision) in zip(findings.contrasts, one.looks, strict=True):
        if decision == "undecided":
            shown = interval(ends)
            pair = name_pair(contrast, findings.contrasts)
            names.append(f"{pair} ({'no interval yet' if shown == NOTHING else shown})")
    result = f"undecided: {join(names)}" if names else "every contrast is decided"
    return f"round {one.number}: {plural(one.added, 'seed')}, {max(one.seeds.values())} in all; {result}"


def decided_line(findings: Findings) -> str:
    """Return what a study that decides while seeds are added has decided, with how many of its seeds, in one line."""
    names: dict[str, list[str]] = {"better": [], "worse": [], "equivalent": [], "undecided": []}
    most = 0
    for contrast in findings.contrasts:
        if contrast.sequential:
            seeds = plural(contrast.sequential.seeds, "seed")
            names[contrast.decision].append(f"{name_pair(contrast, findings.contrasts)} ({seeds})")
            most = contrast.sequential.most
    parts = [f"{decision}: {join(own)}" for decision, own in names.items() if own]
    return f"Of at most {plural(most, 'seed')}, {'; '.join(parts)}."


# --- text


def to_text(findings: Findings) -> str:
    """Return findings as plain text, whose lines are as long as they are; see `to_blocks`."""
    return lay_out(*to_blocks(findings))


def to_blocks(findings: Findings) -> list[Block]:
    """Return findings for a reader: the verdict in words, a table of arms, the contrasts in numbers, the notes."""
    lines = headline(findings)
    contrasts = contrasts_table(findings)
    meta = [meta_sentence(one) for one in findings.meta_analyses]
    return [
        findings.title or findings.study,
        "\n".join(lines),
        arms_table(findings),
        *(
            "\n".join([*_contrast(contrast, findings, lines), _cells(contrasts, place), *_mcnemar(contrast)])
            for place, contrast in enumerate(findings.contrasts)
        ),
        targets_table(findings),
        factors_table(findings),
        *(sentence for sentence in meta if sentence not in lines),
        "\n".join(f"- {note}" for note in _notes(findings)),
    ]


def _contrast(contrast: ContrastFinding, findings: Findings, lines: tuple[str, ...]) -> Iterator[str]:
    yield f"{contrast.a} against {contrast.b}, {contrast.kind.named(contrast.target)}: {contrast.decision}"
    sentence = contrast_sentence(contrast, findings)
    shown = () if any(sentence in line for line in lines) else (sentence,)
    yield from (f"  {one}" for one in (*shown, *detail_sentences(contrast)))


def _mcnemar(contrast: ContrastFinding) -> Iterator[str]:
    if contrast.mcnemar:
        tests = [
            f"{call_seed(one.seed or 0)}: {one.a_only} and {one.b_only}, p {p_value(one.p)}" for one in contrast.mcnemar
        ]
        yield (
            "  McNemar's test, images that only the first or only the second classifies correctly:"
            f" {join(tests, LONGEST, ';')}"
        )


def _cells(table: Table, row: int) -> str:
    """Return the cells of a row of contrasts, its name and decision left out, as an indented line."""
    cells = [
        keep(f"{column.heading}: {cell} {column.unit}".rstrip())
        for column, cell in zip(table.columns[2:], table.shown[row][2:], strict=True)
        if cell != NOTHING
    ]
    return f"  {'; '.join(cells)}"
