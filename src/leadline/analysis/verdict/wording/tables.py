"""Arms and contrasts as tables: one list of columns for the terminal, reports, files and frames, with JSON's values."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, fields, replace
from functools import partial
from typing import Any

from leadline.analysis.stats import SeedsForWord, Summary, Unpaired
from leadline.analysis.stats.pairing import Ahead, Pairing, SeedsAndImages
from leadline.analysis.stats.survival import LEARNED, SETTLED
from leadline.analysis.verdict.findings import ArmFinding, ContrastFinding, Findings, SequentialAnalysis
from leadline.analysis.verdict.wording.labels import contrast_labels
from leadline.analysis.verdict.wording.sentences import CORRECTION_NAMES, interval_name, roughly
from leadline.parts.metrics import Metric
from leadline.text import NOTHING, decimals, interval, number, p_value
from leadline.text.tables import Column, Table, first, is_missing, plain

SUMMARY = ("n", "mean", "sd", "median", "minimum", "maximum")


def arms_table(findings: Findings) -> Table:
    """Return one row per arm: how its trials ended, its errors, its speed."""
    named = dict.fromkeys(name for arm in findings.arms for name in arm.metrics)
    others = [name for name in named if name not in findings.summarised]
    main, *beside = findings.summarised
    columns = [
        Column("Arm", ("arm", "base"), first, numeric=False),
        Column("Finished", ("n", "planned"), "{} of {}".format),
        Column("Diverged", ("diverged",), plain),
        Column("Failed", ("failed",), plain),
        _metric(findings.kind(main)),
        Column("Median", (f"{main}_median",), number),
        Column("Range", (f"{main}_minimum", f"{main}_maximum"), interval_of),
        *(_metric(one, wide=one.on_validation) for one in sorted(map(findings.kind, beside), key=_validation_first)),
        *(_metric(findings.kind(name), wide=True) for name in others),
    ]
    if findings.trained:
        columns += [
            Column("Epoch of convergence", (*_of_summary("convergence_epoch"), "n"), _convergence),
            Column("Seconds per trial", _of_summary("seconds"), _mean(1), wide=True),
        ]
    missing = {key: None for name in others for key in _of_summary(name)}
    rows = tuple({"arm": arm.name} | missing | flat(arm_values(arm, findings.summarised)) for arm in findings.arms)
    note = _CONVERGENCE if "accuracy" in findings.curves else ""
    return Table("arms", "Arms: mean ± standard deviation over finished trials", tuple(columns), rows, note)


def _validation_first(one: Metric) -> bool:
    return not one.on_validation


_CONVERGENCE = (
    "Epoch of convergence: the first from which the validation accuracy stays within 1 point of its last value. A"
    f" trial has one only if that holds for the last {SETTLED:.0%} of its epochs, so that it no longer improves, and if"
    f" its last accuracy is {LEARNED:.0%} of the way or more from chance (always giving the most common class) to 100%."
    " Where not all finished trials have one, the number that do is in brackets."
)


def _convergence(converged: int, mean: float | None, sd: float | None, *others: float | int | None) -> str:
    finished = others[-1]
    shown = mean_sd(mean, sd, 1)
    return shown if converged in (0, finished) else f"{shown} ({converged} of {finished})"


def _metric(one: Metric, wide: bool = False) -> Column:
    words = one.named(None) if not one.needs_target else one.name
    return Column(f"{words[0].upper()}{words[1:]}", _of_summary(one.name), _mean(2), unit=one.unit.strip(), wide=wide)


def _of_summary(name: str) -> tuple[str, ...]:
    return tuple(f"{name}_{key}" for key in SUMMARY)


def contrasts_table(findings: Findings) -> Table:
    """Return one row per contrast: what is decided, the difference and its interval, and the tests or the looks."""
    contrasts, labels = findings.contrasts, contrast_labels(findings.contrasts)
    units = {contrast.kind.difference_unit for contrast in contrasts}
    unit = units.pop() if len(units) == 1 else ""
    rows = [
        {"contrast": label, "unit": contrast.kind.difference_unit, "target": contrast.target}
        | {"n_a": None, "n_b": None, "welch_ci95_low": None, "welch_ci95_high": None, "welch_p": None}
        | flat(contrast_values(contrast))
        for contrast, label in zip(contrasts, labels, strict=True)
    ]
    needed = {label: contrast.needed for contrast, label in zip(contrasts, labels, strict=True)}
    show = (lambda value, low, high, _: format_difference(value, low, high)) if unit else format_difference
    effect = Column("Effect size d", ("effect_size",), partial(number, signed=True))
    correction = f"{CORRECTION_NAMES[findings.correction]}-adjusted"
    by_itself = ", by itself" * (len(contrasts) > 1)
    heading = re.sub(r" \((.*t.*)\)$", rf", \1{by_itself}", interval_name(contrasts))
    columns = [
        Column("Contrast", ("contrast", "a", "b", "metric", "target"), first, numeric=False),
        Column("Verdict", ("verdict",), plain, numeric=False),
    ]
    if any(contrast.sequential for contrast in contrasts):
        ends = ("looks_low", "looks_high")
        columns += [
            Column("Seeds", ("looks_seeds", "looks_most"), "{} of at most {}".format),
            Column("Looks", ("looks_taken",), plain),
            Column("Pairs", ("n",), plain),
            Column("Difference", ("difference", *ends, "unit"), show, unit=unit),
            Column(interval_name(contrasts), ends, interval_of),
            Column("Confidence", ("looks_confidence", "looks_of_each"), None),
            effect,
            *_beside(),
        ]
        caption = "Contrasts: difference, first arm minus second, and seeds"
    else:
        pairs, welch = Column("Pairs", ("n",), plain), list[Column]()
        if any(contrast.apart for contrast in contrasts):
            pairs = Column("Pairs, or trials of each", ("n", "n_a", "n_b"), _pairs_or_trials)
            welch = [
                Column("95% interval, Welch's t", ("welch_ci95_low", "welch_ci95_high"), interval_of, wide=True),
                Column("p, Welch's t", ("welch_p",), p_value),
            ]
        columns += [
            pairs,
            Column("Difference", ("difference", "ci_low", "ci_high", "unit"), show, unit=unit),
            Column(heading, ("ci_low", "ci_high"), interval_of),
            Column("95% interval, BCa", ("bca95_low", "bca95_high"), interval_of, wide=True),
            Column("p, difference", ("difference_p",), p_value),
            Column(correction, ("difference_p_adjusted",), p_value),
            Column("p, equivalence", ("equivalence_p",), p_value, wide=True),
            Column(f"p, equivalence, {correction}", ("equivalence_p_adjusted",), p_value),
            Column("p, permutation (smallest possible)", ("p", "p_smallest"), _p_of_least),
            Column(correction, ("p_adjusted",), p_value, wide=True),
            *welch,
            replace(effect, wide=True),
            Column("Needed seeds", ("needed_likely", "needed_low", "needed_high"), None),
            Column("Seeds to decide, 80% power", ("contrast",), lambda label: _seeds_range(needed[label])),
            *_beside(),
        ]
        caption = "Contrasts: difference, first arm minus second"
    return Table("contrasts", caption, tuple(columns), tuple(rows))


def _beside() -> tuple[Column, ...]:
    """Return what is known of a contrast beside its decision: what pairing is worth, other seeds, other images."""
    return (
        Column("Correlation of pairs", ("pairing_correlation",), partial(number, signed=True), wide=True),
        Column("Pairing is worth, unpaired seeds", ("pairing_worth", "pairing_low", "pairing_high"), _worth, wide=True),
        Column("First is better at a fresh seed", ("ahead_share", "ahead_low", "ahead_high"), _share, wide=True),
        Column("95% interval, other images too", ("images_low", "images_high"), interval_of, wide=True),
    )


def mcnemar_table(findings: Findings) -> Table:
    """Return one row per contrast and seed: test images that only one of the two networks classifies correctly."""
    rows = [
        {"a": contrast.a, "b": contrast.b} | asdict(test)
        for contrast in findings.contrasts
        for test in contrast.mcnemar
    ]
    columns = (
        Column("First arm", ("a",), plain, numeric=False),
        Column("Second arm", ("b",), plain, numeric=False),
        Column("Seed", ("seed",), plain),
        Column("Correct in the first only", ("a_only",), plain),
        Column("Correct in the second only", ("b_only",), plain),
        Column("p", ("p",), p_value),
    )
    return Table("mcnemar", "McNemar's exact test on the test images, seed by seed", columns, tuple(rows))


# --- how values are shown


def mean_sd(mean: float | None, sd: float | None, digits: int = 2) -> str:
    """Return a mean with its standard deviation, where there is one."""
    return number(mean, digits) + ("" if is_missing(sd) else f" ± {number(sd, digits)}")


def _mean(digits: int) -> Callable[..., str]:
    return lambda _n, mean, sd, *_: mean_sd(mean, sd, digits)


def format_difference(difference: float | None, low: float | None, high: float | None, unit: str = "") -> str:
    """Return a difference with its sign and unit, and as many decimals as its interval needs, two at least."""
    if difference is None:
        return NOTHING
    digits = 2 if low is None or high is None else max(2, decimals(difference, (low, high)))
    return f"{number(difference, digits, signed=True)} {unit}".rstrip()


def interval_of(low: float | None, high: float | None) -> str:
    """Return an interval with as many decimals as it needs, two at least."""
    digits = 2 if low is None or high is None else max(2, decimals((low + high) / 2, (low, high)))
    return interval((low, high), digits)


def _seeds_range(needed: SeedsForWord | None) -> str:
    if needed is None:
        return NOTHING
    likely = roughly(needed.likely)
    return likely if needed.low is None else f"{likely} ({roughly(needed.low)} to {roughly(needed.high)})"


def _worth(worth: float | None, low: float | None, high: float | None) -> str:
    return NOTHING if worth is None else f"{worth:.3g} ({low:.3g} to {high:.3g})"


def _pairs_or_trials(n: int, a: int | None, b: int | None) -> str:
    return plain(n) if a is None else f"{a}, {b} unpaired"


def _share(share: float | None, low: float | None, high: float | None) -> str:
    return NOTHING if share is None or low is None or high is None else f"{share:.0%} ({low:.0%} to {high:.0%})"


def _p_of_least(p: float | None, least: float | None) -> str:
    return p_value(p) if least is None else f"{p_value(p)} ({p_value(least)})"


# --- plain values, as JSON has them


def arm_values(arm: ArmFinding, summarised: Iterable[str]) -> dict[str, Any]:
    """Return what is known of an arm as plain values; errors in per cent, None for what is missing.

    Args:
        arm: of findings.
        summarised: metrics that are there even where they are missing.
    """
    return {
        "base": arm.base,
        "factors": dict(arm.factors),
        "planned": arm.planned,
        "n": arm.finished,
        "diverged": arm.diverged,
        "failed": arm.failed,
        **{name: _summary(arm.metrics.get(name)) for name in dict.fromkeys((*summarised, *arm.metrics))},
        "convergence_epoch": _summary(arm.convergence_epoch),
        "seconds": _summary(arm.seconds),
    }


def _summary(summary: Summary | None) -> dict[str, float | int | None]:
    if summary is None:
        return {"n": 0, **dict.fromkeys(("mean", "sd", "median", "minimum", "maximum"))}
    return asdict(summary)


def contrast_values(contrast: ContrastFinding) -> dict[str, Any]:
    """Return what is known of a contrast as plain values; differences in points, None for what is missing."""
    result, sequential = contrast.paired, contrast.sequential
    at_95 = sequential is None or sequential.confidence == 0.95
    return {
        "a": contrast.a,
        "b": contrast.b,
        "metric": contrast.metric,
        "n": result.n if result else 0,
        "difference": result.difference if result else None,
        "ci95": list(result.ci95) if result and result.ci95 and at_95 else None,
        "p": result.p if result else None,
        "p_adjusted": contrast.judgement.p_adjusted,
        "verdict": contrast.decision,
        "margin": contrast.margin,
        "seeds": list(contrast.seeds),
        "differences": list(contrast.differences),
        "diverged_a": contrast.diverged_a,
        "diverged_b": contrast.diverged_b,
        "sd": result.sd if result else None,
        "bca95": list(result.bca95) if result and result.bca95 else None,
        "p_smallest": result.p_smallest if result else None,
        "t_p": result.t_p if result else None,
        "t_p_adjusted": contrast.judgement.difference_p_adjusted,
        "difference_p": contrast.judgement.test.p,
        "difference_p_adjusted": contrast.judgement.difference_p_adjusted,
        "equivalence_p": contrast.judgement.equivalence_p,
        "equivalence_p_adjusted": contrast.judgement.equivalence_p_adjusted,
        "ground": contrast.judgement.test.ground,
        "failed_a": contrast.failed_a,
        "failed_b": contrast.failed_b,
        "failures_p": contrast.judgement.test.p_failures,
        "neither_learned": contrast.neither_learned,
        "looked": list(contrast.looked),
        "shrunk": contrast.shrunk,
        "effect_size": result.effect_size if result else None,
        "needed": _fields(SeedsForWord, contrast.needed),
        "pairing": _fields(Pairing, contrast.pairing),
        "ahead": _fields(Ahead, contrast.ahead),
        "images": _fields(SeedsAndImages, contrast.images),
        "mcnemar": [asdict(test) for test in contrast.mcnemar],
        **({"looks": _looks(sequential)} if sequential else {}),
        **(_apart(result) if isinstance(result, Unpaired) else {}),
        **({} if contrast.target is None else {"target": contrast.target}),
        **({"reach": asdict(contrast.reach)} if contrast.reach else {}),
    }


def _apart(result: Unpaired) -> dict[str, Any]:
    welch = list(result.welch_ci95) if result.welch_ci95 else None
    return {"n_a": result.n_a, "n_b": result.n_b, "welch_ci95": welch, "welch_p": result.welch_p}


def _fields(kind: type[Any], known: Any) -> dict[str, Any]:
    """Return a frozen result as plain values, all None where there is none, so that tables have their columns."""
    return dict.fromkeys((one.name for one in fields(kind)), None) if known is None else asdict(known)


def _looks(sequential: SequentialAnalysis) -> dict[str, Any]:
    values = asdict(sequential)
    at = [one for one in values.pop("interim") if one.pop("looked")]
    for one in at:
        del one["by_failures"]  # that of the last is the contrast's `ground`
    for one in (values, *at):
        one |= {end: one[end] if math.isfinite(one[end]) else None for end in ("low", "high")}
    return {**values, "at": [{"verdict": one.pop("decision"), **one} for one in at]}


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return plain values under names of one level: `test_error_mean` of a summary, `ci_low` of an interval."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if name in ("ci95", "bca95", "welch_ci95"):
            of = "ci" if name == "ci95" else name  # whose level is another where seeds are added until it is decided
            found |= dict(zip((f"{of}_low", f"{of}_high"), value or (None, None), strict=True))
        elif isinstance(value, Mapping):
            found |= {f"{name}_{key}": own for key, own in value.items()}
        else:
            found[name] = value
    return found
