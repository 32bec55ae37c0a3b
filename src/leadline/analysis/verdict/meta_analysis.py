"""What a contrast shows over several data sets: each by itself, and a random-effects summary; never a plain mean."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from leadline.analysis.stats import LEVEL, cut, decide, least_spread
from leadline.analysis.stats.factorial import over_data_sets
from leadline.analysis.verdict.design import Design, DesignArm
from leadline.analysis.verdict.findings import ContrastFinding, DataSetFinding, MetaAnalysis


def meta_analyses(design: Design, contrasts: Sequence[ContrastFinding]) -> tuple[MetaAnalysis, ...]:
    """Return a summary of each group of contrasts that differ in their data set alone, where there are several.

    A group has the same two networks under the same recipe, but for what tuning and matching made of them on each data
    set, whether that is varied as a factor or given with the arms; times to a target are left out where their horizons
    differ. A data set with fewer than two pairs, or none in which a trial reached the target, is listed and does not
    count in the summary.

    Args:
        design: what is compared.
        contrasts: of its findings.
    """
    arms = {arm.name: arm for arm in design.arms}
    groups: dict[tuple[str, ...], list[tuple[str, ContrastFinding]]] = {}
    for contrast in contrasts:
        a, b = arms[contrast.a], arms[contrast.b]
        if a.data == b.data:
            key = (a.alike, b.alike, contrast.metric, str(contrast.target))
            groups.setdefault(key, []).append((a.data, contrast))
    chosen = [
        dict(members)
        for members in groups.values()
        if 1 < len(members) == len({data for data, _ in members})
        and len({contrast.reach.horizon for _, contrast in members if contrast.reach}) <= 1
    ]
    return tuple(_analysis(design, members, len(chosen)) for members in chosen)


def _analysis(design: Design, members: Mapping[str, ContrastFinding], together: int) -> MetaAnalysis:
    """Return the summary of one group, decided at the confidence at which all of the study's hold together."""
    one, arms = next(iter(members.values())), {arm.name: arm for arm in design.arms}
    known = {data: result for data, contrast in members.items() if (result := contrast.estimate) and result.n > 1}
    # equal differences have no spread, though rounding alone gives them one
    sds = [max(result.sd or 0.0, least_spread(members[data].resolution)) for data, result in known.items()]
    summary = strict = None
    if len(known) > 1 and any(sds):
        effects, seeds = [result.difference for result in known.values()], [result.n for result in known.values()]
        summary = over_data_sets(effects, sds, seeds)
        strict = summary if together == 1 else over_data_sets(effects, sds, seeds, 1 - LEVEL / together)
    if summary:
        largest = one.kind.largest_difference
        prediction = cut(summary.prediction, largest) if summary.prediction else None
        summary = replace(summary, interval=cut(summary.interval, largest), prediction=prediction)
    weights = dict(zip(known, summary.weights, strict=True)) if summary else {}
    a, b = (
        _name([arms[name] for name in names], design.names_data)
        for names in zip(*((c.a, c.b) for c in members.values()), strict=True)
    )
    return MetaAnalysis(
        a=a,
        b=b,
        metric=one.metric,
        target=one.target,
        margin=one.margin,
        parts=tuple(DataSetFinding(data, contrast, weights.get(data)) for data, contrast in members.items()),
        summary=summary,
        decision=decide(strict.interval if strict else None, one.margin, one.kind.higher_is_better),
        declared=one.declared,
    )


def _name(arms: Sequence[DesignArm], names_data: Sequence[str]) -> str:
    """Return what arms are called together: their base name, or names, with the levels that they share."""
    bases = "/".join(dict.fromkeys(arm.base for arm in arms))
    levels = ",".join(f"{name}={value}" for name, value in arms[0].factors.items() if name not in names_data)
    return f"{bases}[{levels}]" if levels else bases
