"""Findings in plain English: a sentence per contrast, the headline, the notes. Every number has its unit."""

import math
from collections.abc import Iterable, Mapping, Sequence

from leadline.stats import EXACT_PAIRS, LARGEST_PLAN
from leadline.verdict.findings import ArmFinding, ContrastFinding

METRICS = {"test_error": "test error", "train_error": "training error", "validation_error": "validation error"}
"""Metric -> how it is called in a sentence."""

LONGEST = 6  # names, levels or lines that a reader takes in at once; more are counted


def number(value: float, digits: int) -> str:
    """Write a number to so many decimals with a true minus sign, and no minus before a zero."""
    text = f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text) else text.lstrip("-")


def p_text(p: float) -> str:
    """Write a p-value to two significant digits, or that it is below 0.001."""
    return "below 0.001" if p < 0.001 else f"{p:.2g}"


def sentence(contrast: ContrastFinding, planned: Mapping[str, int], tests: int) -> str:
    """Return what a contrast shows, in words.

    Args:
        contrast: all but its sentence.
        planned: arm -> seeds planned.
        tests: contrasts of the study over which p-values are adjusted.
    """
    parts = [_verdict(contrast, planned)]
    lost = [(contrast.a, contrast.diverged_a), (contrast.b, contrast.diverged_b)]
    said = [f"{name} diverged at {count} of {_seeds(planned[name])}" for name, count in lost if count]
    if said:
        left_out = ", and no pair is left" if not contrast.seeds else "; such seeds are in no pair"
        parts.append(f"{' and '.join(said)}{left_out}.")
    if _lost_to_holm(contrast):
        parts.append(
            f"Among the study's {tests} contrasts this may be chance: Holm's correction raises the p of its paired t"
            f" test to {p_text(contrast.t_p_adjusted or 0)}."
        )
    return " ".join(parts)


def _verdict(contrast: ContrastFinding, planned: Mapping[str, int]) -> str:
    a, b, result = contrast.a, contrast.b, contrast.paired
    if result is None:
        return f"Undecided between {a} and {b}: there is no seed at which both finished."
    digits = _digits(contrast)
    mean_a, mean_b = (sum(values) / len(values) for values in (contrast.values_a, contrast.values_b))
    errors = f"{number(mean_a, digits)}% against {number(mean_b, digits)}% {METRICS[contrast.metric]}"
    difference = f"a difference of {number(result.difference, digits)} points"
    if result.ci95 is None:
        if max(planned[a], planned[b]) == 1:
            return f"Undecided between {a} and {b}: {errors}, {difference}; one seed gives no interval and no p-value."
        return (
            f"Undecided between {a} and {b}: {errors}, {difference}, at the one seed that both have finished;"
            " one seed gives no interval and no p-value."
        )
    low, high = (number(end, digits) for end in result.ci95)
    numbers = f"{errors}, {difference} (95% interval {low} to {high}, paired t, {_seeds(result.n)})"
    margin = f"{contrast.margin:g} points"
    if contrast.decision == "equivalent":
        return f"{a} and {b} are equivalent within {margin}: {numbers}."
    if contrast.decision == "undecided":
        return f"Undecided between {a} and {b}: {numbers}; {_needed(result.seeds_to_decide, result.difference)}."
    small = max(map(abs, result.ci95)) < contrast.margin
    verb = "errs less than" if contrast.decision == "better" else "errs more than"
    return f"{a} {verb} {b}: {numbers}{f', less than the margin of {margin}' if small else ''}."


def _needed(seeds: int | None, difference: float) -> str:
    if seeds is not None:
        return f"about {seeds:,} seeds would decide a difference of this size at 80% power"
    if difference == 0:
        return "a mean difference of zero says nothing of how many seeds would decide"
    return f"more than {LARGEST_PLAN:,} seeds would be needed to decide a difference of this size at 80% power"


def headline(arms: Sequence[ArmFinding], contrasts: Sequence[ContrastFinding]) -> tuple[str, ...]:
    """Return the verdict of a whole study, most important first: what is decided at which levels, what went wrong."""
    if not any(arm.finished + arm.diverged for arm in arms):
        return ("No trial has finished yet, so there is nothing to say.",)
    lines = _summed_up(arms, contrasts)
    shaky = [f"{contrast.a} against {contrast.b}" for contrast in contrasts if _lost_to_holm(contrast)]
    if shaky and len(contrasts) > 1 and len(lines) != len(contrasts):
        lines.append(f"Among so many contrasts these may be chance (Holm's correction): {_listed(shaky)}.")
    if diverged := [f"{arm.name} at {arm.diverged} of {_seeds(arm.planned)}" for arm in arms if arm.diverged]:
        lines.append(f"Diverged: {_listed(diverged)}.")
    if open_trials := sum(_open(arm) for arm in arms):
        total = sum(arm.planned for arm in arms)
        lines.append(f"Provisional: {open_trials} of {total} trials {_be(open_trials)} still to finish.")
    return tuple(lines)


def _summed_up(arms: Sequence[ArmFinding], contrasts: Sequence[ContrastFinding]) -> list[str]:
    if not contrasts:
        scores = [_score(arm) for arm in arms if "test_error" in arm.metrics]
        return [f"The study contrasts no arms; test errors: {_listed(scores)}."]
    groups = _by_level(arms, contrasts)
    lines = []
    for (a, b, metric), levels in groups.items():
        if len(levels) == 1:
            lines.append(next(iter(levels.values())).sentence)
        else:
            lines.append(_over_levels(a, b, metric, levels))
    if len(lines) > LONGEST:
        tally = {word: sum(contrast.decision == word for contrast in contrasts) for word in _CLAUSES}
        decided = tally["better"] + tally["worse"]
        lines = [
            f"Of {len(contrasts)} contrasts {decided} {_be(decided)} decided, {tally['equivalent']} equivalent within"
            f" {contrasts[0].margin:g} points and {tally['undecided']} undecided."
        ]
    elif len(lines) == len(contrasts):
        return lines
    largest = max(
        (contrast for contrast in contrasts if contrast.decision in ("better", "worse") and contrast.paired),
        key=lambda contrast: abs(contrast.paired.difference) if contrast.paired else 0.0,
        default=None,
    )
    return lines if largest is None else [*lines, f"The largest decided difference: {largest.sentence}"]


Key = tuple[str, str, str]


def _by_level(
    arms: Sequence[ArmFinding], contrasts: Sequence[ContrastFinding]
) -> dict[Key, dict[str, ContrastFinding]]:
    """Gather contrasts of the same two base arms at the same level of every factor: level in words -> contrast."""
    by_name = {arm.name: arm for arm in arms}
    groups: dict[Key, dict[str, ContrastFinding]] = {}
    for contrast in contrasts:
        a, b = by_name[contrast.a], by_name[contrast.b]
        across = a.factors and a.factors == b.factors
        key = (a.base, b.base, contrast.metric) if across else (a.name, b.name, contrast.metric)
        groups.setdefault(key, {})[",".join(f"{name}={value}" for name, value in a.factors.items())] = contrast
    return groups


# decision -> how it reads when it comes first, and after another
_CLAUSES = {
    "better": ("{a} has a lower {metric} than {b} {at}", "a lower one {at}"),
    "worse": ("{a} has a higher {metric} than {b} {at}", "a higher one {at}"),
    "equivalent": (
        "{a} and {b} are equivalent in {metric}, within {margin:g} points, {at}",
        "equivalent within {margin:g} points {at}",
    ),
    "undecided": ("Undecided which of {a} and {b} has the lower {metric} {at}", "undecided {at}"),
}


def _over_levels(a: str, b: str, metric: str, levels: Mapping[str, ContrastFinding]) -> str:
    margin = next(iter(levels.values())).margin
    clauses: list[str] = []
    for decision, (first, later) in _CLAUSES.items():
        chosen = [level for level, contrast in levels.items() if contrast.decision == decision]
        if chosen:
            form = later if clauses else first
            clauses.append(form.format(a=a, b=b, metric=METRICS[metric], margin=margin, at=_at(chosen, len(levels))))
    return f"{'; '.join(clauses)}."


def _at(chosen: Sequence[str], total: int) -> str:
    whole = len(chosen) == total
    if len(chosen) > LONGEST:
        return f"at all {total} levels" if whole else f"at {len(chosen)} of {total} levels"
    names = {level.partition("=")[0] for level in chosen}
    if len(names) == 1 and not any("," in level for level in chosen):
        values = _joined([level.partition("=")[2] for level in chosen])
        name = names.pop()
        return f"at every level of {name} ({values})" if whole else f"at {name}={values}"
    return f"at every combination ({_joined(chosen)})" if whole else f"at {_joined(chosen)}"


def notes(arms: Sequence[ArmFinding], contrasts: Sequence[ContrastFinding]) -> tuple[str, ...]:
    """Return what a reader must know before trusting the numbers, each one sentence."""
    return (*_about_trials(arms), *_about_pairs(contrasts), *_about_method(contrasts))


def _about_trials(arms: Sequence[ArmFinding]) -> Iterable[str]:
    if open_trials := sum(_open(arm) for arm in arms):
        total = sum(arm.planned for arm in arms)
        yield f"{open_trials} of {total} trials {_be(open_trials)} waiting or running; the verdict rests on the others."
    if failed := [f"{arm.failed} of {_trials(arm.planned)} of {arm.name}" for arm in arms if arm.failed]:
        yield f"Trials that failed with an error are left out: {_listed(failed)}."
    if any(arm.diverged for arm in arms):
        yield (
            "Diverged trials are counted and left out of means and pairs, so a mean speaks only of the trials that"
            " survived."
        )
    if silent := [arm.name for arm in arms if arm.finished and "test_error" not in arm.metrics]:
        yield f"Finished trials without a test error are left out: {_listed(silent)}."


def _about_pairs(contrasts: Sequence[ContrastFinding]) -> Iterable[str]:
    pairs = [contrast.paired for contrast in contrasts if contrast.paired]
    if any(pair.n == 1 for pair in pairs):
        yield "One seed gives no interval and no p-value: a difference at one seed may be due to that seed."
    tested = [pair for pair in pairs if pair.ci95]
    if not tested:
        return
    fewest = min(pair.n for pair in tested)
    unseen = f"; {_seeds(fewest)} cannot show whether they are" if fewest < 10 else ""
    yield (
        "Verdicts rest on the 95% paired-t interval, which assumes that seeds are independent and that the differences"
        f" over seeds are roughly normal{unseen}."
    )
    yield "Intervals and p-values say what training again with other seeds would give, on this one data set and split."
    coarse = {pair.n: pair.p_smallest for pair in tested if pair.p_smallest is not None and pair.p_smallest > 0.05}
    if coarse:
        limits = [f"{p:g} with {_seeds(n)}" for n, p in sorted(coarse.items())]
        yield (
            f"The permutation p counts all sign flips of the differences and cannot fall below {_joined(limits)}, so"
            " such a p is the strongest result it can give, not a sign of equality."
        )
    if any(pair.n > EXACT_PAIRS for pair in tested):
        yield f"Above {EXACT_PAIRS} seeds the permutation p comes from 99,999 random sign flips."
    if len(tested) > 1:
        yield (
            f"Each interval is at 95% by itself; the adjusted p-values (Holm) hold for all {len(tested)} contrasts"
            " together."
        )
    if any(contrast.decision == "undecided" and contrast.paired in tested for contrast in contrasts):
        yield (
            "The number of seeds that would decide takes the difference and spread seen so far as true, which few seeds"
            " only roughly know."
        )
    if any(pair.bca95 and pair.n < 20 for pair in tested):
        yield "The BCa bootstrap interval beside the paired t is too narrow with fewer than about twenty seeds."


def _about_method(contrasts: Sequence[ContrastFinding]) -> Iterable[str]:
    if any(contrast.paired and contrast.paired.ci95 for contrast in contrasts):
        margin = contrasts[0].margin
        yield (
            f"Equivalent means that the whole 95% interval lies within {margin:g} points of zero and holds zero;"
            " an interval that leaves out zero counts as a difference, however small."
        )
    if any(contrast.mcnemar for contrast in contrasts):
        yield (
            "McNemar's test compares two trained networks, seed by seed, on the images of this test set; it says"
            " nothing about training them again."
        )
    yield "Test data chose nothing: the network after the last epoch is the one that is tested."


def _digits(contrast: ContrastFinding) -> int:
    """Decimals, 1 to 3: two significant digits of the interval's half-width, and no number that falsely reads as 0."""
    result = contrast.paired
    if result is None:
        return 1
    low, high = result.ci95 or (result.difference, result.difference)
    half = (high - low) / 2
    enough = 1 - math.floor(math.log10(half)) if half > 0 else 1 if result.ci95 else 2
    shown = [value for value in (result.difference, low, high) if value != 0]
    return next((d for d in (1, 2) if d >= enough and all(round(value, d) for value in shown)), 3)


def _lost_to_holm(contrast: ContrastFinding) -> bool:
    adjusted = contrast.t_p_adjusted
    return contrast.decision in ("better", "worse") and adjusted is not None and adjusted > 0.05


def _open(arm: ArmFinding) -> int:
    return max(0, arm.planned - arm.finished - arm.diverged - arm.failed)


def _score(arm: ArmFinding) -> str:
    summary = arm.metrics["test_error"]
    spread = "" if summary.sd is None else f" (standard deviation {number(summary.sd, 2)} over {_seeds(summary.n)})"
    return f"{arm.name} {number(summary.mean, 2)}%{spread}"


def _listed(items: Sequence[str]) -> str:
    shown = list(items[:LONGEST])
    return ", ".join(shown) + (f" and {len(items) - len(shown)} more" if len(items) > len(shown) else "")


def _joined(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _seeds(count: int) -> str:
    return f"{count} seed{'' if count == 1 else 's'}"


def _trials(count: int) -> str:
    return f"{count} trial{'' if count == 1 else 's'}"


def _be(count: int) -> str:
    return "is" if count == 1 else "are"
