"""What a contrast shows over several data sets: each by itself, and a random-effects summary; never a plain mean."""

import math
from collections.abc import Iterator, Mapping, Sequence

from leadline.parts.base import canonical_json
from leadline.spec import TrialSpec
from leadline.stats import Paired, decide
from leadline.stats.factorial import OverDataSets, over_data_sets
from leadline.study import Arm, Study, expand
from leadline.verdict.factors import NAMES_DATA
from leadline.verdict.findings import AcrossFinding, ContrastFinding, DataSetFinding
from leadline.verdict.metrics import KINDS, amount, named
from leadline.verdict.words import decimals, number


def across_data_sets(study: Study, contrasts: Sequence[ContrastFinding]) -> tuple[AcrossFinding, ...]:
    """Return a summary of each group of contrasts that differ in their data set alone, where there are several.

    A group has the same two networks under the same recipe, but for what tuning and matching made of them on each data
    set, whether that is varied as a factor or given with the arms; times to a target are left out where their horizons
    differ. A data set with fewer than two pairs, or none in which a trial reached the target, is listed and does not
    count in the summary.

    Args:
        study: the study, expanded.
        contrasts: of its findings.
    """
    arms = {arm.name: arm for arm in study.arms}
    given = _as_given(study)
    groups: dict[tuple[str, ...], list[tuple[str, ContrastFinding]]] = {}
    for contrast in contrasts:
        a, b = arms[contrast.a], arms[contrast.b]
        if (data := _data(a.trial)) == _data(b.trial):
            key = (*(_but_for_data(given[arm.name]) for arm in (a, b)), contrast.metric, str(contrast.target))
            groups.setdefault(key, []).append((data, contrast))
    return tuple(
        _across(arms, dict(members))
        for members in groups.values()
        if 1 < len(members) == len({data for data, _ in members})
        and len({contrast.reach.horizon for _, contrast in members if contrast.reach}) <= 1
    )


def _data(trial: TrialSpec) -> str:
    return trial.data.display_name


def _as_given(study: Study) -> dict[str, Arm]:
    """Return arms as their file gives them, for tuning and matching change each one on each data set."""
    changed = dict.fromkeys(("tune", "match", "matched", "decide"))
    return {arm.name: arm for arm in expand(study.spec.model_copy(update=changed | {"contrasts": []})).arms}


def _but_for_data(arm: Arm) -> str:
    """Return what two arms have in common that differ in their data alone."""
    factors = {name: value for name, value in arm.factors.items() if name not in NAMES_DATA}
    return canonical_json([arm.trial.model_dump(mode="json", exclude={"data", "seed"}), factors])


def _across(arms: Mapping[str, Arm], members: Mapping[str, ContrastFinding]) -> AcrossFinding:
    one = next(iter(members.values()))
    known = {data: result for data, contrast in members.items() if (result := _told(contrast)) and result.n > 1}
    # equal differences have no spread, though rounding alone gives them one
    sds = [max(result.sd or 0.0, members[data].resolution / math.sqrt(6)) for data, result in known.items()]
    summary = None
    if len(known) > 1 and any(sds):
        effects, seeds = [result.difference for result in known.values()], [result.n for result in known.values()]
        summary = over_data_sets(effects, sds, seeds)
    weights = dict(zip(known, summary.weights, strict=True)) if summary else {}
    sides = [
        _name([arms[name] for name in names]) for names in zip(*((c.a, c.b) for c in members.values()), strict=True)
    ]
    parts = tuple(DataSetFinding(data, contrast, weights.get(data)) for data, contrast in members.items())
    decision = decide(summary.interval if summary else None, one.margin)
    sentence = _sentence(sides[0], sides[1], parts, summary, decision)
    return AcrossFinding(sides[0], sides[1], one.metric, one.target, one.margin, parts, summary, decision, sentence)


def _told(contrast: ContrastFinding) -> Paired | None:
    """Return what a contrast's pairs say; None: there is none, or no trial reached the target."""
    return None if contrast.reach and contrast.reach.silent else contrast.paired


def _name(arms: Sequence[Arm]) -> str:
    """Return what arms are called together: their base name, or names, with the levels that they share."""
    bases = "/".join(dict.fromkeys(arm.base for arm in arms))
    levels = ",".join(f"{name}={value}" for name, value in arms[0].factors.items() if name not in NAMES_DATA)
    return f"{bases}[{levels}]" if levels else bases


# --- words


def _sentence(a: str, b: str, parts: Sequence[DataSetFinding], summary: OverDataSets | None, decision: str) -> str:
    one = parts[0].contrast
    kind = KINDS[one.metric]
    shown = [part for part in parts if _told(part.contrast)]
    signs = ", ".join(_part(part) for part in shown)
    below = sum(part.contrast.paired.difference < 0 for part in shown if part.contrast.paired)
    listed = f"below zero on {below} of {len(shown)} data sets ({signs})" if shown else "no data set has a pair"
    if summary is None:
        lacking = " in which one reached the target" * any(part.contrast.reach for part in parts)
        return (
            f"Over {len(parts)} data sets nothing is said of {a} against {b}: fewer than two have two pairs with a"
            f" spread; the difference is {listed}."
            if shown
            else f"Over {len(parts)} data sets {a} and {b} have no pair{lacking}."
        )
    digits = decimals(summary.mean, summary.interval)
    low, high = (number(end, digits) for end in summary.interval)
    numbers = (
        f"a difference of {number(summary.mean, digits)} {kind.of_difference} in {named(one.metric, one.target)} as a"
        f" mean over such data sets (95% interval {low} to {high}, random effects)"
    )
    if summary.prediction:
        ends = " to ".join(number(end, digits) for end in summary.prediction)
        numbers += f", on one more data set {ends}"
    opening = {
        "better": f"{a} {kind.better} than {b}",
        "worse": f"{a} {kind.worse} than {b}",
        "equivalent": f"{a} and {b} are equivalent within {amount(one.margin, one.metric)}",
    }.get(decision, f"undecided between {a} and {b}")
    few = " Two data sets say next to nothing of others: the interval has one degree of freedom." * (summary.k == 2)
    return f"Over {summary.k} data sets {opening}: {numbers}; {listed}.{few}"


def _part(part: DataSetFinding) -> str:
    contrast = part.contrast
    assert contrast.paired is not None
    return (
        f"{part.data} {number(contrast.paired.difference, decimals(contrast.paired.difference, contrast.paired.ci95))}"
    )


def several_data_sets(study: Study) -> bool:
    """Return whether a study's arms are trained on more than one data set."""
    return len({_data(arm.trial) for arm in study.arms}) > 1


def about_data_sets(across: Sequence[AcrossFinding]) -> Iterator[str]:
    """Return what a reader must know before trusting the summaries, each one sentence."""
    if any(one.summary for one in across):
        yield (
            "The summary over data sets takes them as a sample of such data sets, on which the effect varies normally"
            " about its mean (random effects: Paule & Mandel 1982, Knapp & Hartung 2003); data sets that were chosen"
            " for their likeness say nothing of others."
        )
