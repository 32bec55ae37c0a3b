"""The verdict on a whole study in words, most important first."""

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence

from leadline.analysis.verdict.findings import ArmFinding, ContrastFinding, Findings
from leadline.analysis.verdict.tuned import tuning_words
from leadline.analysis.verdict.wording.sentences import (
    add_seeds,
    contrast_sentence,
    correction_name,
    meta_sentence,
    name_pair,
    of_seeds,
    opening,
    provisional_sentence,
)
from leadline.text import LONGEST, decimals, interval, join, number, plural

Key = tuple[str, str, str]
"""Two arms without their levels, and what they are compared in."""

_DIFFERENT = ("better", "worse")


def headline(findings: Findings) -> tuple[str, ...]:
    """Return the verdict in words: what is decided at which levels, what went wrong, how arms were tuned."""
    return (*_about_contrasts(findings), *_about_tuning(findings))


def _about_contrasts(findings: Findings) -> Iterator[str]:
    arms, contrasts = findings.arms, findings.contrasts
    if not any(arm.finished + arm.diverged for arm in arms):
        yield "No trial has finished yet, so there is no verdict."
        return
    groups = _by_level(findings)
    yield from _summary(findings, groups)
    yield from [meta_sentence(one) for one in findings.meta_analyses][:LONGEST]
    if not _one_by_one(contrasts, groups):
        alone = [name_pair(one, contrasts) for one in contrasts if one.judgement.alone]
        if alone:
            which = plural(len(alone), "contrast that is undecided would be", "contrasts that are undecided would be")
            yield f"{which} decided if the study had no other ({correction_name(findings.correction)}): {join(alone)}."
        yield from _about_single_seeds(findings)
    if neither := [f"{one.a} and {one.b}" for one in contrasts if one.neither_learned]:
        how = "Neither learned" if findings.trained else "Every trial failed"
        yield f"{how}, so nothing is decided: {join(list(dict.fromkeys(neither)), LONGEST, ';')}."
    if idle := [f"{arm.name} at {of_seeds(arm.at_chance, arm.finished)}" for arm in arms if arm.at_chance]:
        yield f"Did no better than guessing: {join(idle)}."
    if apt := [f"{arm.name} at {of_seeds(arm.memorised, arm.finished)}" for arm in arms if arm.memorised]:
        yield f"Learned the training images, and did no better than guessing on the test images: {join(apt)}."
    if diverged := [f"{arm.name} at {of_seeds(arm.diverged, arm.planned)}" for arm in arms if arm.diverged]:
        yield f"Diverged: {join(diverged)}."
    if unfinished := sum(arm.unfinished for arm in arms):
        yield provisional_sentence(unfinished, sum(arm.planned for arm in arms))


def _about_single_seeds(findings: Findings) -> Iterator[str]:
    """Yield why nothing is decided by a study of one seed, what it shows, and what to do."""
    shown = [(one.paired.difference, one.kind) for one in findings.contrasts if one.paired]
    if not shown or any(arm.planned != 1 for arm in findings.arms):
        return
    seen = ""
    if len({kind.difference_unit for _, kind in shown}) == 1:
        ends = min(value for value, _ in shown), max(value for value, _ in shown)
        seen = f" The differences are {shown[0][1].with_unit(interval(ends, decimals(ends[0], ends)))}."
    more = add_seeds(findings.trained)
    yield f"One seed shows no spread between seeds, so there are no intervals.{seen} {more[0].upper()}{more[1:]}."


def _about_tuning(findings: Findings) -> Iterator[str]:
    tune, tuning = findings.tune, findings.tuning
    if tuning is not None:
        yield tuning_words(tuning.spec, tuning.chosen, tuning.seen)
    elif tune is not None and findings.chosen is not None:
        yield tuning_words(tune, findings.chosen)


def _summary(findings: Findings, groups: Mapping[Key, Mapping[str, ContrastFinding]]) -> list[str]:
    contrasts = findings.contrasts
    if not contrasts:
        scores = [_score(arm, findings) for arm in findings.arms if findings.metric in arm.metrics]
        return [f"The study has no contrasts; {findings.kind(findings.metric).named()}s: {join(scores)}."]
    if len(groups) > LONGEST:
        return [_tally(contrasts), *_decided(contrasts), *_largest(findings)]
    lines = [
        contrast_sentence(next(iter(levels.values())), findings) if len(levels) == 1 else _over_levels(a, b, levels)
        for (a, b, _), levels in groups.items()
    ]
    return lines if _one_by_one(contrasts, groups) else [*lines, *_largest(findings)]


def _one_by_one(contrasts: Sequence[ContrastFinding], groups: Collection[Key]) -> bool:
    """Whether every contrast has a sentence of its own."""
    return len(groups) == len(contrasts) <= LONGEST


def _tally(contrasts: Sequence[ContrastFinding]) -> str:
    counts = {decision: sum(one.decision == decision for one in contrasts) for decision in _CLAUSES}
    neither = sum(one.neither_learned for one in contrasts)
    counts["undecided"] -= neither
    differ, total = counts["better"] + counts["worse"], len(contrasts)
    if counts["undecided"] == total:
        return f"None of the {total} contrasts is decided."
    if differ == total:
        return f"All {total} contrasts are decided."
    margins = {contrast.kind.amount(contrast.margin) for contrast in contrasts}
    within = margins.pop() if len(margins) == 1 else "their margins"
    parts = [
        plural(differ, "shows a difference", "show a difference") if differ else "",
        f"{plural(counts['equivalent'], 'is', 'are')} equivalent within {within}" if counts["equivalent"] else "",
        f"{plural(counts['undecided'], 'is', 'are')} undecided" if counts["undecided"] else "",
        f"in {neither} neither arm learned" if neither else "",
    ]
    return f"Of {total} contrasts {join([part for part in parts if part])}."


def _decided(contrasts: Sequence[ContrastFinding]) -> list[str]:
    """Return which arms were found to differ from which, or to be equivalent; nothing where that takes many lines."""
    groups: dict[str, list[str]] = {}
    for one in contrasts:
        if one.decision == "equivalent":
            words = f"equivalent in {one.kind.named(one.target)} within {one.kind.amount(one.margin)} to"
        elif one.by_failures:
            words = f"fails to train {'less' if one.decision == 'better' else 'more'} often than"
        elif one.decision in _DIFFERENT:
            words = f"{getattr(one.kind, one.decision)} {one.kind.named(one.target)} than"
        else:
            continue
        groups.setdefault(f"{words[0].upper()}{words[1:]} {one.b}", []).append(one.a)
    return [f"{words}: {join(arms, LONGEST)}." for words, arms in groups.items()] if len(groups) <= LONGEST else []


def _largest(findings: Findings) -> Iterator[str]:
    """Yield the largest decided difference in each unit."""
    units: dict[str, list[ContrastFinding]] = {}
    for contrast in findings.contrasts:
        units.setdefault(contrast.kind.difference_unit, []).append(contrast)
    for unit, contrasts in units.items():
        decided = [
            (abs(one.paired.difference), one)
            for one in contrasts
            if one.paired and one.paired.difference and one.decision in _DIFFERENT and not one.by_failures
        ]
        if decided:
            _, largest = max(decided, key=lambda pair: pair[0])
            of = f" in {unit}" if unit and len(units) > 1 else ""
            shrunk = ""
            # where others that are undecided are larger it may be drawn away from 0, or beyond it
            if largest.shrunk is not None and largest.paired and 0 <= largest.shrunk / largest.paired.difference < 0.99:
                shrunk = largest.kind.with_unit(number(largest.shrunk, 2))
            less = f" As the largest of {len(contrasts)} it is likely too large; shrunk: {shrunk}." if shrunk else ""
            yield f"The largest decided difference{of}: {contrast_sentence(largest, findings)}{less}"


def _by_level(findings: Findings) -> dict[Key, dict[str, ContrastFinding]]:
    """Gather contrasts of the same two base arms at the same level of every factor: level in words -> contrast."""
    by_name = {arm.name: arm for arm in findings.arms}
    groups: dict[Key, dict[str, ContrastFinding]] = {}
    for contrast in findings.contrasts:
        a, b = by_name[contrast.a], by_name[contrast.b]
        across = a.factors and a.factors == b.factors
        named = contrast.kind.named(contrast.target)
        key = (a.base, b.base, named) if across else (a.name, b.name, named)
        groups.setdefault(key, {})[",".join(f"{name}={value}" for name, value in a.factors.items())] = contrast
    return groups


# decision -> how it reads after another decision
_CLAUSES = {
    "better": "{kind.better}{kind.again} {at}",
    "worse": "{kind.worse}{kind.again} {at}",
    "equivalent": "equivalent within {margin} {at}",
    "undecided": "undecided {at}",
}


def _over_levels(a: str, b: str, levels: Mapping[str, ContrastFinding]) -> str:
    clauses: list[str] = []
    for decision, by_failures in itertools.product(_CLAUSES, (False, True)):
        chosen = {
            level: contrast
            for level, contrast in levels.items()
            if (contrast.decision, contrast.by_failures) == (decision, by_failures)
        }
        if chosen:
            one = next(iter(chosen.values()))
            at = _at(list(chosen), len(levels))
            later = f"{opening(one, a, b)} {at}"
            if clauses and not by_failures:
                words = {"kind": one.kind, "margin": one.kind.amount(one.margin)}
                later = _CLAUSES[decision].format(at=at, **words)
            clauses.append(later)
    return f"{'; '.join(clauses)}."


def _at(chosen: Sequence[str], total: int) -> str:
    whole = len(chosen) == total
    if len(chosen) > LONGEST:
        return f"at all {total} levels" if whole else f"at {len(chosen)} of {total} levels"
    names = {level.partition("=")[0] for level in chosen}
    if len(names) == 1 and not any("," in level for level in chosen):
        values = join([level.partition("=")[2] for level in chosen])
        name = names.pop()
        return f"at every level of {name} ({values})" if whole else f"at {name}={values}"
    return f"at every combination ({join(chosen)})" if whole else f"at {join(chosen)}"


def _score(arm: ArmFinding, findings: Findings) -> str:
    summary = arm.metrics[findings.metric]
    spread = ""
    if summary.sd is not None:
        spread = f" (standard deviation {number(summary.sd)} over {plural(summary.n, 'seed')})"
    return f"{arm.name} {number(summary.mean)}{findings.kind(findings.metric).unit}{spread}"
