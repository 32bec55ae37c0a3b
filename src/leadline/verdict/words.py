"""Findings in plain English: a sentence per contrast, the headline, the notes. Every number has its unit."""

import math
from collections.abc import Iterable, Mapping, Sequence

from leadline.stats import EXACT_PAIRS, LARGEST_PLAN
from leadline.verdict import lookwords
from leadline.verdict.findings import ArmFinding, ContrastFinding
from leadline.verdict.metrics import KINDS, Kind, amount, named

CORRECTION_NAMES = {"holm": "Holm", "benjamini-hochberg": "Benjamini-Hochberg"}

LONGEST = 6  # names, levels or lines that a reader takes in at once; more are counted


def number(value: float, digits: int) -> str:
    """Write a number to so many decimals with a true minus sign, and no minus before a zero."""
    text = f"{value:.{digits}f}"
    return text.replace("-", "−") if float(text) else text.lstrip("-")


def listed(items: Sequence[str]) -> str:
    """Write names one after another; more than a reader takes in at once are counted."""
    more = len(items) - LONGEST
    return ", ".join(items[:LONGEST]) + (f" and {more} more" if more > 0 else "")


def plural(count: int, word: str) -> str:
    """Write how many of a thing there are."""
    return f"{count:,} {word}{'' if count == 1 else 's'}"


def p_text(p: float) -> str:
    """Write a p-value to two significant digits, or that it is below 0.001."""
    return "below 0.001" if p < 0.001 else f"{p:.2g}"


def sentence(contrast: ContrastFinding, planned: Mapping[str, int], tests: int, correction: str = "holm") -> str:
    """Return what a contrast shows, in words.

    Args:
        contrast: all but its sentence.
        planned: arm -> seeds planned.
        tests: contrasts of the study over which p-values are adjusted.
        correction: how.
    """
    parts = [_verdict(contrast, planned), *_reached(contrast)]
    lost = [(contrast.a, contrast.diverged_a), (contrast.b, contrast.diverged_b)]
    said = [f"{name} diverged at {count} of {_seeds(planned[name])}" for name, count in lost if count]
    if said:
        left_out = ", and no pair is left" if not contrast.seeds else "; such seeds are in no pair"
        if contrast.reach:
            left_out = "; such a trial never reaches the target, unless it had before"
        parts.append(f"{' and '.join(said)}{left_out}.")
    if _lost_to_holm(contrast):
        parts.append(
            f"Among the study's {tests} contrasts this may be chance: {_correction(correction)} raises the p of its"
            f" paired t test to {p_text(contrast.t_p_adjusted or 0)}."
        )
    return " ".join(parts)


def _correction(name: str) -> str:
    return "Holm's correction" if name == "holm" else f"the {CORRECTION_NAMES[name]} correction"


def kind_of(contrast: ContrastFinding) -> Kind:
    """Return how a contrast's metric is put in words."""
    return KINDS[contrast.metric]


def metric_of(contrast: ContrastFinding) -> str:
    """Return a contrast's metric in words, with its target where it has one."""
    return named(contrast.metric, contrast.target)


def _reached(contrast: ContrastFinding) -> Iterable[str]:
    reach, n = contrast.reach, len(contrast.seeds)
    if reach is None or reach.reached_a + reach.reached_b in (0, 2 * n):
        return
    horizon = amount(reach.horizon, contrast.metric, 4)
    yield (
        f"Within {horizon} {contrast.a} reached it at {reach.reached_a} of {_seeds(n)} and {contrast.b} at"
        f" {reach.reached_b}; a trial that did not counts as {horizon}."
    )


def _verdict(contrast: ContrastFinding, planned: Mapping[str, int]) -> str:
    a, b, result = contrast.a, contrast.b, contrast.paired
    if result is None:
        return f"Undecided between {a} and {b}: there is no seed at which both finished."
    digits = _digits(contrast)
    mean_a, mean_b = (sum(values) / len(values) for values in (contrast.values_a, contrast.values_b))
    kind = kind_of(contrast)
    if contrast.reach and contrast.reach.silent:
        horizon = amount(contrast.reach.horizon, contrast.metric, 4)
        return (
            f"Undecided between {a} and {b}: within {horizon} neither reached {contrast.target:g}% validation error at"
            f" any of {_seeds(result.n)}."
        )
    errors = f"{number(mean_a, digits)}{kind.unit} against {number(mean_b, digits)}{kind.unit} {metric_of(contrast)}"
    difference = f"a difference of {number(result.difference, digits)} {kind.of_difference}"
    if result.ci95 is None and contrast.looks:
        return f"Undecided between {a} and {b}: {errors}, {difference}; {lookwords.without_an_interval(contrast)}."
    if result.ci95 is None:
        if max(planned[a], planned[b]) == 1:
            return f"Undecided between {a} and {b}: {errors}, {difference}; one seed gives no interval and no p-value."
        return (
            f"Undecided between {a} and {b}: {errors}, {difference}, at the one seed that both have finished;"
            " one seed gives no interval and no p-value."
        )
    low, high = (number(end, digits) for end in result.ci95)
    numbers = f"{errors}, {difference} ({_interval_of(contrast, low, high)})"
    margin = amount(contrast.margin, contrast.metric)
    if contrast.decision == "equivalent":
        return f"{a} and {b} are equivalent within {margin}: {numbers}."
    if contrast.decision == "undecided":
        if contrast.looks:
            return f"Undecided between {a} and {b}: {numbers}; {lookwords.next_step(contrast.looks)}."
        return f"Undecided between {a} and {b}: {numbers}; {_needed(result.seeds_to_decide, result.difference)}."
    small = max(map(abs, result.ci95)) < contrast.margin
    verb = kind.better if contrast.decision == "better" else kind.worse
    return f"{a} {verb} than {b}: {numbers}{f', less than the margin of {margin}' if small else ''}."


def _interval_of(contrast: ContrastFinding, low: str, high: str) -> str:
    basis = lookwords.basis(contrast) if contrast.looks else f"paired t, {_seeds(len(contrast.seeds))}"
    return f"{lookwords.level(contrast)} interval {low} to {high}, {basis}"


def _needed(seeds: int | None, difference: float) -> str:
    if seeds is not None:
        return f"about {seeds:,} seeds would decide a difference of this size at 80% power"
    if difference == 0:
        return "a mean difference of zero says nothing of how many seeds would decide"
    return f"more than {LARGEST_PLAN:,} seeds would be needed to decide a difference of this size at 80% power"


def headline(
    arms: Sequence[ArmFinding],
    contrasts: Sequence[ContrastFinding],
    correction: str = "holm",
    over_data_sets: Sequence[str] = (),
) -> tuple[str, ...]:
    """Return the verdict of a whole study, most important first: what is decided at which levels, what went wrong."""
    if not any(arm.finished + arm.diverged for arm in arms):
        return ("No trial has finished yet, so there is nothing to say.",)
    lines = [*_summed_up(arms, contrasts), *over_data_sets]
    shaky = [f"{contrast.a} against {contrast.b}" for contrast in contrasts if _lost_to_holm(contrast)]
    if shaky and len(contrasts) > 1 and len(lines) != len(contrasts):
        lines.append(f"Among so many contrasts these may be chance ({_correction(correction)}): {listed(shaky)}.")
    if diverged := [f"{arm.name} at {arm.diverged} of {_seeds(arm.planned)}" for arm in arms if arm.diverged]:
        lines.append(f"Diverged: {listed(diverged)}.")
    if open_trials := sum(_open(arm) for arm in arms):
        total = sum(arm.planned for arm in arms)
        lines.append(f"Provisional: {open_trials} of {total} trials {_be(open_trials)} still to finish.")
    return tuple(lines)


def _summed_up(arms: Sequence[ArmFinding], contrasts: Sequence[ContrastFinding]) -> list[str]:
    if not contrasts:
        scores = [_score(arm) for arm in arms if "test_error" in arm.metrics]
        return [f"The study contrasts no arms; test errors: {listed(scores)}."]
    groups = _by_level(arms, contrasts)
    lines = []
    for (a, b, _), levels in groups.items():
        if len(levels) == 1:
            lines.append(next(iter(levels.values())).sentence)
        else:
            lines.append(_over_levels(a, b, levels))
    if len(lines) > LONGEST:
        tally = {word: sum(contrast.decision == word for contrast in contrasts) for word in _CLAUSES}
        decided = tally["better"] + tally["worse"]
        margins = {amount(contrast.margin, contrast.metric) for contrast in contrasts}
        within = "their margins" if len(margins) > 1 else margins.pop()
        lines = [
            f"Of {len(contrasts)} contrasts {decided} {_be(decided)} decided, {tally['equivalent']} equivalent within"
            f" {within} and {tally['undecided']} undecided."
        ]
    elif len(lines) == len(contrasts):
        return lines
    units = list(dict.fromkeys(kind_of(contrast).of_difference for contrast in contrasts))
    for unit in units:
        largest = max(
            (
                contrast
                for contrast in contrasts
                if contrast.decision in ("better", "worse") and kind_of(contrast).of_difference == unit
            ),
            key=lambda contrast: abs(contrast.paired.difference) if contrast.paired else 0.0,
            default=None,
        )
        if largest:
            of = "" if len(units) == 1 else f" in {unit}"
            lines.append(f"The largest decided difference{of}: {largest.sentence}")
    return lines


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
        metric = metric_of(contrast)
        key = (a.base, b.base, metric) if across else (a.name, b.name, metric)
        groups.setdefault(key, {})[",".join(f"{name}={value}" for name, value in a.factors.items())] = contrast
    return groups


# decision -> how it reads when it comes first, and after another
_CLAUSES = {
    "better": ("{a} {kind.verb} {kind.less} {metric} than {b} {at}", "{kind.less}{kind.again} {at}"),
    "worse": ("{a} {kind.verb} {kind.more} {metric} than {b} {at}", "{kind.more}{kind.again} {at}"),
    "equivalent": (
        "{a} and {b} are equivalent in {metric}, within {margin}, {at}",
        "equivalent within {margin} {at}",
    ),
    "undecided": ("Undecided which of {a} and {b} {kind.verb} {kind.least} {metric} {at}", "undecided {at}"),
}


def _over_levels(a: str, b: str, levels: Mapping[str, ContrastFinding]) -> str:
    one = next(iter(levels.values()))
    words = {"a": a, "b": b, "kind": kind_of(one), "metric": metric_of(one), "margin": amount(one.margin, one.metric)}
    clauses: list[str] = []
    for decision, (first, later) in _CLAUSES.items():
        chosen = [level for level, contrast in levels.items() if contrast.decision == decision]
        if chosen:
            form = later if clauses else first
            clauses.append(form.format(**words, at=_at(chosen, len(levels))))
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


def notes(
    arms: Sequence[ArmFinding],
    contrasts: Sequence[ContrastFinding],
    correction: str = "holm",
    several_data_sets: bool = False,
) -> tuple[str, ...]:
    """Return what a reader must know before trusting the numbers, each one sentence."""
    return (
        *_about_trials(arms),
        *_about_pairs(contrasts, correction, several_data_sets),
        *_about_metrics(contrasts),
        *_about_method(contrasts),
    )


def _about_trials(arms: Sequence[ArmFinding]) -> Iterable[str]:
    if open_trials := sum(_open(arm) for arm in arms):
        total = sum(arm.planned for arm in arms)
        yield f"{open_trials} of {total} trials {_be(open_trials)} waiting or running; the verdict rests on the others."
    if failed := [f"{arm.failed} of {_trials(arm.planned)} of {arm.name}" for arm in arms if arm.failed]:
        yield f"Trials that failed with an error are left out: {listed(failed)}."
    if any(arm.diverged for arm in arms):
        yield (
            "Diverged trials are counted and left out of means and pairs, so a mean speaks only of the trials that"
            " survived."
        )
    if silent := [arm.name for arm in arms if arm.finished and "test_error" not in arm.metrics]:
        yield f"Finished trials without a test error are left out: {listed(silent)}."


def _about_pairs(contrasts: Sequence[ContrastFinding], correction: str, several_data_sets: bool) -> Iterable[str]:
    where = "each data set and split by itself" if several_data_sets else "this one data set and split"
    if any(contrast.looks for contrast in contrasts):
        yield from lookwords.notes(contrasts)
        yield f"Intervals say what training again with other seeds would give, on {where}."
        return
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
    yield f"Intervals and p-values say what training again with other seeds would give, on {where}."
    coarse = {pair.n: pair.p_smallest for pair in tested if pair.p_smallest is not None and pair.p_smallest > 0.05}
    if coarse:
        limits = [f"{p:g} with {_seeds(n)}" for n, p in sorted(coarse.items())]
        yield (
            f"The permutation p counts all sign flips of the differences and cannot fall below {_joined(limits)}, so"
            " such a p is the strongest result it can give, not a sign of equality."
        )
    if any(pair.n > EXACT_PAIRS for pair in tested):
        yield f"Above {EXACT_PAIRS} seeds the permutation p comes from 99,999 random sign flips."
    if len(tested) > 1 and correction == "holm":
        yield (
            f"Each interval is at 95% by itself; the adjusted p-values (Holm) hold for all {len(tested)} contrasts"
            " together."
        )
    elif len(tested) > 1:
        yield (
            f"Each interval is at 95% by itself; of the {len(tested)} contrasts those with an adjusted p-value"
            " (Benjamini-Hochberg) below 0.05 are a list of which at most 5% are expected to be chance, if the"
            " contrasts are independent or positively dependent."
        )
    if any(contrast.decision == "undecided" and contrast.paired in tested for contrast in contrasts):
        yield (
            "The number of seeds that would decide takes the difference and spread seen so far as true, which few seeds"
            " only roughly know."
        )
    if any(pair.bca95 and pair.n < 20 for pair in tested):
        yield "The BCa bootstrap interval beside the paired t is too narrow with fewer than about twenty seeds."


def _about_metrics(contrasts: Sequence[ContrastFinding]) -> Iterable[str]:
    metrics = {contrast.metric for contrast in contrasts}
    if "learning_curve_area" in metrics:
        yield (
            "The mean validation error over the epochs is the area under the learning curve by the trapezoid rule, over"
            " its length."
        )
    if any(contrast.reach for contrast in contrasts):
        yield (
            "Times to a target are of the validation error at the ends of epochs; a trial that never reaches its target"
            " has none, so times are compared up to a horizon within which all are known, as restricted means (Irwin"
            " 1949), and the sign test beside them counts which side was known to be first."
        )
    if "seconds_to" in metrics:
        yield "Seconds are of training alone, without evaluation, and speak of the machines that these trials ran on."


def _about_method(contrasts: Sequence[ContrastFinding]) -> Iterable[str]:
    tested = [contrast for contrast in contrasts if contrast.paired and contrast.paired.ci95 and contrast.margin]
    if tested:
        margins = {amount(contrast.margin, contrast.metric) for contrast in tested}
        within = "its contrast's margin" if len(margins) > 1 else margins.pop()
        yield (
            f"Equivalent means that the whole {lookwords.level(tested[0])} interval lies within {within} of zero and"
            " holds zero; an interval that leaves out zero counts as a difference, however small."
        )
    if any(contrast.paired and contrast.paired.ci95 and not contrast.margin for contrast in contrasts):
        yield "Contrasts without a margin in their metric's unit are better, worse or undecided, and never equivalent."
    if any(contrast.mcnemar for contrast in contrasts):
        yield (
            "McNemar's test compares two trained networks, seed by seed, on the images of this test set; it says"
            " nothing about training them again."
        )
    yield "Test data chose nothing: the network after the last epoch is the one that is tested."


def _digits(contrast: ContrastFinding) -> int:
    """Decimals, 1 to 3: two significant digits of the interval's half-width, and no number that falsely reads as 0."""
    return decimals(contrast.paired.difference, contrast.paired.ci95) if contrast.paired else 1


def decimals(estimate: float, interval: tuple[float, float] | None) -> int:
    """Return how many decimals, 1 to 3, an estimate and its interval are written with."""
    low, high = interval or (estimate, estimate)
    half = (high - low) / 2
    enough = 1 - math.floor(math.log10(half)) if half > 0 else 1 if interval else 2
    shown = [value for value in (estimate, low, high) if value != 0]
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


def _joined(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"


def _seeds(count: int) -> str:
    return f"{count} seed{'' if count == 1 else 's'}"


def _trials(count: int) -> str:
    return f"{count} trial{'' if count == 1 else 's'}"


def _be(count: int) -> str:
    return "is" if count == 1 else "are"
