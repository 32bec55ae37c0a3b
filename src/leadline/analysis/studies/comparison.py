"""From arms of stored studies to their verdict: the design of the comparison and the frames that `analyze` takes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import pandas as pd

from leadline.analysis.runs import (
    ExampleDifferences,
    Options,
    check_margins,
    choose_pairs,
    compare_examples,
    describe_metric,
    match_keys,
)
from leadline.analysis.studies.arms import ENDED, Side, StoredStudy, find_sides, left_out, match_levels
from leadline.analysis.studies.differences import differences, refuse_others
from leadline.analysis.studies.sharing import sharing_sentence, streams
from leadline.analysis.verdict import (
    Contrast,
    Design,
    Findings,
    analyze,
    computes_from_probabilities,
    reads_probabilities,
)
from leadline.analysis.verdict.evidence import gather
from leadline.errors import SpecError, StoreError
from leadline.parts.metrics import metric, metrics
from leadline.seeds import SOURCES, SeedName, seed_order
from leadline.specs.contrast import ContrastSpec
from leadline.study.expand import ExpandedStudy, default_metric
from leadline.study.origin import find_differences
from leadline.text import join

Pair = tuple[Side, Side]

Value = tuple[str, float | None]
"""The name of a metric, and the target that it may need."""


@dataclass(frozen=True)
class ComparedArms:
    """The comparison of arms of stored studies."""

    design: Design
    findings: Findings
    trials: pd.DataFrame  # a row per trial of the arms that are compared
    records: pd.DataFrame
    reading: tuple[str, ...]  # what the arms have in common and what not, in sentences
    names: tuple[str, ...]  # of the arms, as given
    values: tuple[str, ...]  # of the metrics, as given
    options: Options
    studies: tuple[ExpandedStudy, ...]
    examples: tuple[ExampleDifferences, ...] = ()  # of each contrast whose trials left predictions


def reads_probabilities_of(studies: Iterable[ExpandedStudy], values: Sequence[str]) -> bool:
    """Return whether a comparison may need the probabilities of classes.

    Args:
        studies: whose arms are compared.
        values: names of metrics; none: those of the studies.

    Raises:
        SpecError: a metric is unknown.
    """
    named = [metric(name) for name, _ in map(_read_value, values)]
    return any(map(computes_from_probabilities, named)) or any(map(reads_probabilities, studies))


def compare_arms(
    names: Sequence[str], studies: Mapping[str, StoredStudy], values: Sequence[str], options: Options
) -> ComparedArms:
    """Return what arms of stored studies show when they are compared with one another.

    Args:
        names: two or more, such as `demo/residual` for the arm at every level, or `demo/residual[blocks=5]`.
        studies: every study that is named, by name.
        values: metrics, such as `macro_f1`, or `epochs_to=10` with its target; none: those of the studies.
        options: which arms are compared, and how.

    Raises:
        SpecError: an arm or a metric is given wrongly.
        StoreError: there is no such arm, or two arms cannot be compared.
    """
    sides = find_sides(names, studies)
    chosen, how = choose_pairs(names, options)
    pairs: list[Pair] = []
    notes: list[str] = []
    for first, second in chosen:
        matched = list(match_levels(first, second, sides))
        notes += filter(None, [left_out(first, second, sides, matched)])
        pairs += matched
    asked = [_read_value(value) for value in values] or _values_of(pairs)
    kinds = {name: metric(name) for name, _ in asked}
    margins = check_margins(options.margin, list(kinds))
    for a, b in pairs:
        refuse_others(a, b, list(kinds.values()))
    taken = {side.name for side in chain(*pairs)}
    kept = list({side.name: side for side in chain.from_iterable(sides.values()) if side.name in taken}.values())
    studied = tuple({side.study.name: side.study for side in kept}.values())
    contrasts = []
    for a, b in pairs:
        unpaired, why = _pairing(a, b, options.unpaired)
        notes += why
        for name, target in asked:
            margin, which = _margin(a, b, name, target, margins.get(name))
            notes += which
            contrasts.append(_contrast(a, b, Contrast(a.name, b.name, kinds[name], target, margin, unpaired)))
    # whether these are the contrasts until which seeds were added, as their study's own verdict has them
    own = studied[0] if len(studied) == 1 and not any(one.until_decided for one in contrasts) else None
    decide = None if own is None else own.decide
    task = default_metric(studied[0])
    design = Design(
        name=join(names),
        title=options.title,
        arms=tuple(replace(side.designed, name=side.name, base=side.base) for side in kept),
        contrasts=tuple(contrasts),
        metrics=kinds | {task: metric(task)},
        metric=task,
        seeds=studied[0].seed_values,
        sources=tuple(one for one in SOURCES if all(one in study.spec.varied_sources for study in studied)),
        correction=options.correction,
        decide=decide,
        shared_over=0 if own is None or decide is None else own.shared_over,
        curves={name: axis for side in kept for name, axis in side.stored.design.curves.items()},
        remarks=tuple(f"{study.name}: {remark}" for study in studied for remark in study.remarks),
        tune=studied[0].spec.tune if all(study.spec.tune for study in studied) else None,
    )
    trials, records = (_frame(kept, which) for which in ("trials", "records"))
    _refuse_looks_without_pairs(design, trials)
    stored = {key: one for side in kept for key, one in side.stored.outputs.items()}
    outputs = {key: stored[key] for key in trials["trial"] if key in stored}
    findings = analyze(design, trials, records, outputs.items())
    _refuse_without_values(findings)
    reading = (
        f"Compared: {how}.",
        *(describe_metric(kind) for kind in kinds.values()),
        *_by_pair(pairs),
        *_about_tuning(kept),
        *_unfinished(kept),
        *notes,
    )
    return ComparedArms(
        design,
        findings,
        trials,
        records,
        tuple(dict.fromkeys(reading)),
        tuple(names),
        tuple(values),
        options,
        studied,
        compare_examples(design, trials, outputs),
    )


# --- what is compared


def _read_value(text: str) -> Value:
    """Return a metric and its target from a text such as `macro_f1` or `epochs_to=10`.

    Raises:
        SpecError: the metric is unknown, or its target is missing or impossible.
    """
    name, _, target = text.partition("=")
    if not (name in metrics() and metrics()[name].needs_target):
        return metric(text).name, None
    try:
        found = ContrastSpec(a="a", b="b", metric=name, target=float(target))
    except ValueError:
        raise SpecError(f"--value {text}: expected a target below 100% validation error, such as {name}=10") from None
    return found.metric, found.target


def _values_of(pairs: Sequence[Pair]) -> list[Value]:
    """Return the metrics by which the studies compare the arms; where these differ, that of their task."""
    asked = [found for side in chain(*pairs) if (found := [(one.metric, one.target) for one in _contrasts_of(side)])]
    common = [value for value in (asked[0] if asked else ()) if all(value in other for other in asked)]
    return list(dict.fromkeys(common)) or [(default_metric(pairs[0][0].study), None)]


def _contrasts_of(side: Side) -> list[ContrastSpec]:
    """Return the contrasts that an arm's own study has of it."""
    return [one for one in side.study.contrasts if side.arm.name in (one.a, one.b)]


def _margin(a: Side, b: Side, name: str, target: float | None, given: float | None) -> tuple[float | None, list[str]]:
    """Return the margin of a contrast, and what is said of it: the smaller one where the studies have two."""
    kind = metric(name)
    if given is not None:
        return given, []
    found: list[float] = []
    for side in (a, b):
        alike = [one for one in _contrasts_of(side) if (one.metric, one.target) == (name, target)]
        if a.study.name == b.study.name:
            alike = [one for one in alike if {one.a, one.b} == {a.arm.name, b.arm.name}] or alike
        default = side.study.spec.margin if kind.in_points else None
        found += [margin for margin in [one.margin or default for one in alike] or [default] if margin]
    if len(set(found)) < 2:
        return (found[0] if found else None), []
    shown = join([f"{margin:g}" for margin in sorted(set(found))])
    return min(found), [
        f"Margin of {name}: {kind.amount(min(found))}, the smallest that the studies have ({shown}); --margin gives"
        " another."
    ]


def _contrast(a: Side, b: Side, one: Contrast) -> Contrast:
    """Return a contrast that knows whether it is of two studies, and whether it is one until which seeds were added."""
    across = a.study.name != b.study.name
    default = a.study.spec.margin if one.kind.in_points else None
    asked = {(frozenset((own.a, own.b)), own.metric, own.target, own.margin or default) for own in a.study.contrasts}
    is_own = not across and (frozenset((a.arm.name, b.arm.name)), one.metric, one.target, one.margin) in asked
    return replace(one, across=across, until_decided=bool(_deciding(a, b)) and not is_own)


# --- pairs


def _pairing(a: Side, b: Side, unpaired: bool) -> tuple[bool, list[str]]:
    """Return whether two arms are compared without pairs, and what is said of it.

    Raises:
        StoreError: they cannot be compared without pairs, and form none.
    """
    names, deciding = f"{a.name} and {b.name}", _deciding(a, b)
    found = match_keys([(seed,) for seed in a.seeds], [(seed,) for seed in b.seeds])
    alone = found.describe(a.name, b.name, "seed")
    # separate samples have no interval that holds at every look, so few pairs are taken where that is needed
    enough = found.shared > 1 if deciding else found.whole or found.enough
    if unpaired:
        why = "as asked for"
    elif not enough:
        why = f"most trials have no partner: {alone}"
    elif not deciding and not any(one.shared for one in streams(a, b)):
        why = "trials of one seed have nothing random in common"
    else:
        said = f"{names} are paired at the seeds that both have; left out: {alone}."
        return False, [] if found.whole else [said]
    if deciding:
        raise StoreError(
            f"{names} cannot be compared without pairs ({why}): {deciding} added seeds until contrasts were decided,"
            " and no interval of separate samples holds at every look; run both at the same seeds"
        )
    for side in (a, b):
        if _is_crossed(side.seeds):
            raise StoreError(
                f"{names} cannot be compared without pairs ({why}): trials of {side.name} share seeds of single sources"
                " of randomness and are not independent; run both at the same seeds"
            )
    return True, [f"{names} are not paired: {why}."]


def _deciding(*sides: Side) -> str:
    """Return the studies of arms that added seeds until they were decided; empty: none did."""
    return join(list(dict.fromkeys(side.study.name for side in sides if side.study.decide is not None)))


def _is_crossed(seeds: Sequence[SeedName]) -> bool:
    """Return whether different seeds of an arm have the seed of some source in common."""
    by_source = list(zip(*map(seed_order, seeds), strict=True))
    return len(by_source) > 1 and any(1 < len(set(values)) < len(values) for values in by_source)


def _refuse_looks_without_pairs(design: Design, trials: pd.DataFrame) -> None:
    """Check that no arm without pairs has seeds that were added after a verdict on others could be seen.

    Raises:
        StoreError: one has.
    """
    apart = [one for one in design.contrasts if one.unpaired]
    if not apart:
        return
    history = gather(design, trials, pd.DataFrame(columns=["trial", "epoch", "step", "split", "name", "value"]), ())
    for contrast in apart:
        for arm in (contrast.a, contrast.b):
            if len(history.rounds(Contrast(arm, arm, contrast.kind))) > 1:
                raise StoreError(
                    f"{contrast.a} and {contrast.b} cannot be compared without pairs: {arm} got more seeds after a"
                    " verdict on its first ones could be seen, and no interval of separate samples holds at every look;"
                    " run both at the same seeds"
                )


# --- what is said


def _by_pair(pairs: Sequence[Pair]) -> Iterator[str]:
    """Yield how the arms of each pair differ and what trials of one seed share; what holds for several, once."""
    said: dict[str, list[str]] = {}
    for a, b in pairs:
        for sentence in (*differences(a, b), sharing_sentence(streams(a, b))):
            said.setdefault(sentence, []).append(f"{a.name} against {b.name}")
    for sentence, own in said.items():
        yield sentence if len(own) == len(pairs) else f"{join(own, 2)}: {sentence[0].lower()}{sentence[1:]}"


def _unfinished(sides: Sequence[Side]) -> Iterator[str]:
    left = [
        f"{side.name} at {join([str(seed) for seed in rows['seed']])} ({state})"
        for side in sides
        for state, rows in side.trials.groupby("state", sort=False)
        if state not in ENDED
    ]
    if left:
        yield f"Left out, since they have not finished: the trials of {join(left, mark=';')}."


def _about_tuning(sides: Sequence[Side]) -> Iterator[str]:
    """Yield what a search chose for each arm, and how searches differ."""
    chosen = {side.name: (side.study.resolved.chosen or {}).get(side.arm.name) for side in sides}
    if not any(chosen.values()):
        return
    shown = [
        f"{name} {', '.join(f'{key}={value}' for key, value in own.items()) if own else 'not'}"
        for name, own in chosen.items()
    ]
    yield f"Tuned: {join(shown, mark=';')}."
    searches = {side.study.name: side.study.spec.tune for side in sides if side.study.spec.tune is not None}
    (first, one), *others = searches.items()
    for name, two in others:
        found = [
            f"{own.key} ({' and '.join(own.shown)})"
            for own in find_differences(one.model_dump(mode="json"), two.model_dump(mode="json"))
        ]
        if found:
            yield f"The searches of {first} and {name} differ in {join(found)}."


def _refuse_without_values(findings: Findings) -> None:
    """Check that every arm whose trials have finished has each metric.

    Raises:
        StoreError: one has not.
    """
    arms = {arm.name: arm for arm in findings.arms}
    for contrast in findings.contrasts:
        if contrast.reach is not None or contrast.metric not in findings.unrecorded:
            continue
        for arm in (arms[contrast.a], arms[contrast.b]):
            if arm.finished and contrast.metric not in arm.metrics:
                why = next(iter(findings.unrecorded[contrast.metric]))
                raise StoreError(f"{arm.name} has no {contrast.metric}: {why}; compare another metric with --value")


# --- frames


def _frame(sides: Sequence[Side], which: str) -> pd.DataFrame:
    """Return the trials or the records of arms, under the names that the arms have here."""
    parts = []
    for side in sides:
        rows: pd.DataFrame = getattr(side.stored, which)
        parts.append(rows[rows["arm"].eq(side.arm.name)].assign(arm=side.name, base=side.base))
    return pd.concat(parts, ignore_index=True)
