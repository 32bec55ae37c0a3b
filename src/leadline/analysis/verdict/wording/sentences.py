"""One sentence, or two, for each thing that findings hold: a contrast, an effect of a factor, a meta-analysis."""

from collections.abc import Iterator, Mapping, Sequence

from leadline.analysis.stats import LARGEST_PLAN, LEVEL, Effect, Unpaired
from leadline.analysis.verdict.findings import (
    ContrastFinding,
    DataSetFinding,
    FactorEffect,
    Findings,
    MetaAnalysis,
    SequentialAnalysis,
)
from leadline.specs.contrast import Correction
from leadline.text import decimals, interval, join, number, p_value, plural

CORRECTION_NAMES = {"holm": "Holm", "benjamini-hochberg": "Benjamini-Hochberg"}

_OPENINGS = {
    "better": "{a} {kind.verb} {kind.better} {metric} than {b}",
    "worse": "{a} {kind.verb} {kind.worse} {metric} than {b}",
    "equivalent": "{a} and {b} are equivalent in {metric} within {margin}",
    "undecided": "Undecided whether {a} or {b} {kind.verb} {kind.best} {metric}",
}


_FAILURES = {"better": "{b} fails to train more often than {a}", "worse": "{a} fails to train more often than {b}"}

MOST_SEEDS, MOST_TIMES = 100, 10
"""Seeds, or times those that were run, beyond which no number is recommended.

Few studies can afford more, and a spread that few seeds show tells little about a hundred times as many.
"""

RARE = 0.05
"""A share of seeds that a finding of equivalence may leave open without a word."""


def correction_name(correction: Correction) -> str:
    """Return how a correction of p-values is called in a sentence."""
    return "Holm's correction" if correction == "holm" else f"the {CORRECTION_NAMES[correction]} correction"


def opening(one: ContrastFinding | MetaAnalysis, a: str = "", b: str = "") -> str:
    """Return what was decided, such as `residual has a lower test error than plain`.

    Args:
        one: a contrast, or a meta-analysis of several.
        a, b: how its arms are called; by default by their own names.
    """
    words = _FAILURES if isinstance(one, ContrastFinding) and one.by_failures else _OPENINGS
    return words[one.decision].format(
        a=a or one.a,
        b=b or one.b,
        kind=one.kind,
        metric=one.kind.named(one.target),
        margin=one.kind.amount(one.margin),
    )


# --- contrasts


def name_pair(contrast: ContrastFinding, contrasts: Sequence[ContrastFinding]) -> str:
    """Return which arms a contrast compares, and in what where another of the contrasts compares the same two."""
    alike = sum({one.a, one.b} == {contrast.a, contrast.b} for one in contrasts)
    return f"{contrast.a} against {contrast.b}" + f" in {contrast.kind.named(contrast.target)}" * (alike > 1)


def contrast_sentence(contrast: ContrastFinding, findings: Findings) -> str:
    """Return what a contrast shows, with its numbers, and what qualifies it."""
    return " ".join(_contrast_sentences(contrast, findings))


def _contrast_sentences(contrast: ContrastFinding, findings: Findings) -> Iterator[str]:
    planned = {arm.name: arm.planned for arm in findings.arms}
    yield _verdict(contrast, max(planned[contrast.a], planned[contrast.b]), findings)
    n, reach = len(contrast.seeds), contrast.reach
    if reach and 0 < reach.reached_a + reach.reached_b < 2 * n:
        horizon = contrast.kind.amount(reach.horizon, 4)
        yield (
            f"Within {horizon} {contrast.a} reached the target at {reach.reached_a} of {plural(n, 'seed')} and"
            f" {contrast.b} at {reach.reached_b}; a trial that did not reach it counts as {horizon}."
        )
    yield from _about_failures(contrast, planned)
    if contrast.judgement.alone:
        yield _undecided_beside_others(contrast, findings)
    if contrast.decision == "equivalent":
        yield from _cannot_exclude(contrast)
    if contrast.decision == "undecided" and not contrast.sequential:
        yield from _these_networks_differ(contrast, findings)
    if contrast.looked:
        shown = join([str(seeds) for seeds in contrast.looked])
        so = ", so the interval is one that holds at every look" if contrast.paired and contrast.paired.ci95 else ""
        if contrast.until_decided:
            yield f"How many seeds there are was decided by what they showed in a study that decides{so}."
        else:
            yield f"Seeds were added after a verdict on the first {shown} could be seen{so}."


def detail_sentences(contrast: ContrastFinding) -> tuple[str, ...]:
    """Return what is known of a contrast beside its decision: what pairing is worth, other seeds, other test images."""
    return (*_about_pairing(contrast), *_about_fresh_seed(contrast), *_about_images(contrast))


def _about_pairing(contrast: ContrastFinding) -> Iterator[str]:
    found, n = contrast.pairing, len(contrast.seeds)
    if found and found.correlation is not None:
        worth, low, high = (
            f"{one:,.0f}" if one >= 10 else f"{one:.2g}" for one in (found.worth, found.low, found.high)
        )
        yield (
            f"Over the seeds the two arms correlate by {number(found.correlation, 2, signed=True)}, so that {n} paired"
            f" seeds are worth {worth} unpaired ones (95% interval {low} to {high})."
        )


def _about_fresh_seed(contrast: ContrastFinding) -> Iterator[str]:
    found = contrast.ahead
    if found and contrast.ended > 1 and not contrast.neither_learned:
        kinds = ["a tie"] * (found.ties > contrast.both_failed) + ["both failing"] * (contrast.both_failed > 0)
        ties = f" ({' or '.join(kinds)} counted as half)" if kinds else ""
        yield (
            f"{contrast.a} is better than {contrast.b} at {found.share:.0%} of the seeds{ties}, so the probability of"
            f" that at a fresh seed is {found.low:.0%} to {found.high:.0%} (95% interval)."
        )


def _about_images(contrast: ContrastFinding) -> Iterator[str]:
    found = contrast.images
    if found is None or _leaves_all(contrast, (found.low, found.high)):
        return
    digits = decimals(found.difference, (found.low, found.high))
    larger = f"of {found.images:,} test images, so more of them would narrow it more than more seeds would"
    if found.from_seeds > found.from_images:
        larger = "of seeds, so more of them would narrow it more than more test images would"
    yield (
        f"For other test images as well as other seeds the 95% interval is {interval((found.low, found.high), digits)}"
        f" points; its larger part comes from the sample {larger}."
    )


def _about_failures(contrast: ContrastFinding, planned: Mapping[str, int]) -> Iterator[str]:
    lost = [(contrast.a, contrast.diverged_a), (contrast.b, contrast.diverged_b)]
    counts = [f"{name} diverged at {of_seeds(count, planned[name])}" for name, count in lost if count]
    if contrast.reach:
        if counts:
            yield f"{join(counts)}; a diverged trial never reaches the target unless it already had."
        return
    at_chance = (contrast.a, contrast.at_chance_a), (contrast.b, contrast.at_chance_b)
    if not contrast.neither_learned:
        counts += [f"{name} stayed at chance at {of_seeds(idle, contrast.ended)}" for name, idle in at_chance if idle]
    if counts:
        counted = "; in the decision that counts as worse than any error"
        counted *= contrast.ended > 0 and not contrast.neither_learned and not contrast.crossed
        yield f"{join(counts)}{counted}."


def _undecided_beside_others(contrast: ContrastFinding, findings: Findings) -> str:
    judged = contrast.judgement
    tests = findings.tested
    p, raised, of = judged.test.p, judged.difference_p_adjusted, "difference"
    if p is None or p > LEVEL:
        p, raised, of = judged.equivalence_p, judged.equivalence_p_adjusted, "equivalence"
    return (
        f"The study has {tests} contrasts, so {correction_name(findings.correction)} raises the p-value of its test of"
        f" {of} from {p_value(p)} to {p_value(raised)}; by itself the contrast would be decided."
    )


def _cannot_exclude(contrast: ContrastFinding) -> Iterator[str]:
    """Yield what a finding of equivalence leaves open: seeds unlike those that were seen."""
    n = len(contrast.seeds)
    if not n:  # without pairs no seed has a difference
        return
    other = 1 - 0.05 ** (1 / n)
    if other >= RARE and not contrast.crossed:
        largest = max(contrast.differences, key=abs)
        digits = decimals(largest, (min(contrast.differences), max(contrast.differences)))
        if not largest:
            yield f"The two are equal at every seed; {plural(n, 'seed')} cannot exclude that up to {other:.0%} differ."
            return
        yield (
            f"The largest difference at one seed is {contrast.kind.with_unit(number(abs(largest), digits))};"
            f" {plural(n, 'seed')} cannot exclude that up to {other:.0%} of seeds behave otherwise."
        )


def _these_networks_differ(contrast: ContrastFinding, findings: Findings) -> Iterator[str]:
    """Yield that the trained networks differ at every seed, where too few seeds leave open whether others would."""
    tests = contrast.mcnemar
    total = sum(len(one.mcnemar) for one in findings.contrasts)
    ahead = {test.a_only > test.b_only for test in tests}
    if not tests or len(tests) != len(contrast.seeds) or len(ahead) > 1 or contrast.judgement.alone:
        return
    if (largest := total * max(test.p for test in tests)) <= LEVEL:
        winner, loser = (contrast.a, contrast.b) if ahead.pop() else (contrast.b, contrast.a)
        at = "At the one seed" if len(tests) == 1 else f"At each of the {len(tests)} seeds"
        yield (
            f"{at} the network of {winner} classifies more of the test images correctly than that of {loser}"
            f" (McNemar's test, p {_equals(largest)}, Bonferroni); {plural(len(tests), 'seed does', 'seeds do')} not"
            " show how much training again with other seeds would change that."
        )


def _verdict(contrast: ContrastFinding, planned: int, findings: Findings) -> str:
    undecided = f"Undecided between {contrast.a} and {contrast.b}"
    result, kind = contrast.paired, contrast.kind
    if contrast.neither_learned and not findings.trained:
        return f"{undecided}: every trial of both failed."
    if contrast.neither_learned:
        return (
            f"{undecided}: neither learned; at {_all(contrast.ended)} both trials diverged or did no better than"
            " guessing."
        )
    if contrast.by_failures:
        test, adjusted = contrast.judgement.test, contrast.judgement.difference_p_adjusted
        how = "odds that hold at every look"
        if test.p is not None:
            raised = f"; adjusted p {_equals(adjusted)}" if adjusted != test.p_failures else ""
            how = f"Fisher's exact test, p {_equals(test.p_failures)}{raised}"
        counts = {contrast.a: contrast.failed_a, contrast.b: contrast.failed_b}
        if contrast.apart:
            failed = [f"{one.failed} of {plural(one.trials, 'trial')}" for one in contrast.apart]
            return f"{opening(contrast)}: {failed[0]} of {contrast.a} failed and {failed[1]} of {contrast.b} ({how})."
        return (
            f"{opening(contrast)}: trials of {contrast.a} failed at {counts[contrast.a]} and those of {contrast.b} at"
            f" {counts[contrast.b]} of {plural(contrast.ended, 'seed')} ({how})."
        )
    if result is None:
        if contrast.finished:
            return f"{undecided}: {kind.named(contrast.target)} has no value at any seed at which both finished."
        if contrast.apart:
            return f"{undecided}: no trial of one of them finished."
        return f"{undecided}: there is no seed at which both finished."
    if contrast.reach and contrast.reach.silent:
        horizon = contrast.kind.amount(contrast.reach.horizon, 4)
        return (
            f"{undecided}: neither reached {contrast.target:g}% validation error within {horizon} at any of"
            f" {plural(result.n, 'seed')}."
        )
    digits = decimals(result.difference, result.ci95)
    means = (sum(values) / len(values) for values in (contrast.values_a, contrast.values_b))
    values = " against ".join(f"{number(mean, digits)}{kind.unit}" for mean in means)
    if contrast.decision == "undecided":
        values += f" {contrast.kind.named(contrast.target)}"
    if contrast.both_failed:
        values = f"at {of_seeds(len(contrast.seeds), contrast.ended)}, at which not both failed, {values}"
    difference = f"a difference of {kind.with_unit(number(result.difference, digits))}"
    if result.ci95 is None:
        return f"{undecided}: {values}, {difference}{_without_interval(contrast, planned, findings.trained)}."
    numbers = (
        f"{values}, {difference} ({_interval(contrast, result.ci95, digits, findings)}{_corrected(contrast, findings)})"
    )
    if contrast.decision == "undecided":
        following = next_step(contrast.sequential) if contrast.sequential else _needed(contrast)
        return f"{undecided}: {numbers}{following and f'; {following}'}."
    small = contrast.decision != "equivalent" and max(map(abs, result.ci95)) < contrast.margin
    within = f", less than the margin of {contrast.kind.amount(contrast.margin)}" if small else ""
    return f"{opening(contrast)}: {numbers}{within}."


def of_seeds(count: int, total: int) -> str:
    """Return at how many of the seeds something happened, such as `2 of 3 seeds`."""
    return "the only seed" if count == total == 1 else f"{count} of {plural(total, 'seed')}"


def _equals(p: float | None) -> str:
    return p_value(p) if p_value(p).startswith("<") else f"= {p_value(p)}"


def _all(seeds: int) -> str:
    return "the only seed" if seeds == 1 else f"all {seeds} seeds"


def add_seeds(trained: bool) -> str:
    """Return what to do about a single seed.

    Args:
        trained: whether Leadline trains the networks.
    """
    return "add seeds, such as `--set seeds=3`" if trained else "add runs at other seeds"


def _without_interval(contrast: ContrastFinding, planned: int, trained: bool) -> str:
    if contrast.sequential:
        few = "differences that are all equal give"
        if len(contrast.seeds) == 1:
            few = "one pair shows no spread, so there is"
        return f"; {few} no interval; {next_step(contrast.sequential)}"
    if contrast.reach and contrast.looked:
        return "; since no interval for such times holds at every look, nothing is decided"
    if contrast.apart:
        return "; a single trial of an arm gives no interval and no p-value"
    if len(contrast.seeds) > 1:
        return "; differences that are all equal give no interval"
    only, more = "at the only seed", f"; {add_seeds(trained)}"
    if planned > 1:
        only, more = "at the only seed at which both have finished", ""
    return f" {only}; one seed shows no spread between seeds, so there is no interval and no p-value{more}"


def _interval(contrast: ContrastFinding, ends: tuple[float, float], digits: int, findings: Findings) -> str:
    sequential = contrast.sequential
    test, seen = "paired t", plural(len(contrast.seeds), "seed")
    if isinstance(result := contrast.paired, Unpaired):
        test, seen = "Behrens–Fisher", f"{result.n_a} and {plural(result.n_b, 'unpaired trial')}"
    elif contrast.crossed:
        seen = plural(len(contrast.seeds), "combination of seeds", "combinations of seeds")
    basis = f"{test}{', by itself' * (len(findings.contrasts) > 1)}, {seen}"
    if sequential:
        spent = f"{sequential.seeds} of at most {plural(sequential.most, 'seed')}"
        if len(contrast.seeds) != sequential.seeds:
            spent = f"{plural(len(contrast.seeds), 'pair')} at {spent}"
        basis = f"valid at every look, {spent}, {plural(sequential.taken, 'look')}"
        if sequential.adjusted is not None and contrast.decision != "undecided":
            adjusted = number(sequential.adjusted, digits)
            basis += f"; {contrast.kind.with_unit(adjusted)} adjusted for stopping then"
    elif contrast.at_every_look:
        basis = f"valid at every look, {plural(len(contrast.seeds), 'seed')}"
    nothing = ", which excludes nothing" * _leaves_all(contrast, ends)
    return f"{level(contrast)} interval {interval(ends, digits)}{nothing}, {basis}"


def _leaves_all(contrast: ContrastFinding, ends: tuple[float, float]) -> bool:
    """Whether an interval holds every difference that is possible."""
    largest = contrast.kind.largest_difference
    return ends == (-largest, largest)


def _corrected(contrast: ContrastFinding, findings: Findings) -> str:
    """Return the p-value that a decision rests on, where it is not that of the interval beside it."""
    judged = contrast.judgement
    tests = findings.tested
    if contrast.decision == "undecided" or judged.test.p is None:
        return ""
    if contrast.decision == "equivalent":
        kind, p = "; two one-sided tests, p", judged.equivalence_p_adjusted
    elif tests > 1 or contrast.failed_a or contrast.failed_b:
        kind, p = "; p", judged.difference_p_adjusted
    else:
        return ""
    corrected = f" by {correction_name(findings.correction)} for {tests} contrasts" if tests > 1 else ""
    return f"{kind} {_equals(p)}{corrected}"


def _needed(contrast: ContrastFinding) -> str:
    """Return how many seeds would probably decide a contrast, as far as its few seeds tell; empty: nothing is known."""
    needed = contrast.needed
    if needed is None:
        return ""
    likely, low, high = map(roughly, (needed.likely, needed.low, needed.high))
    about, n = f"{'about ' * (needed.likely is not None)}{likely} seeds in all", len(contrast.seeds) or contrast.ended
    if needed.low is not None:
        about += f" ({low} to {high}, as {plural(n, 'seed shows', 'seeds show')} mean and spread only roughly)"
    if needed.likely is not None and can_be_run(needed.likely, n):
        return f"{about} would decide it with 80% power"
    helps = ["a larger test set would lessen that spread"] * (contrast.images is not None)
    helps += ["a larger margin, if such differences do not matter, may show equivalence"] * (contrast.margin > 0)
    advice = f"; {', and '.join(helps)}; otherwise it stays undecided" if helps else ""
    return (
        "the difference is too small beside the spread between seeds to be decided by more of them, which would take"
        f" {about}{advice}"
    )


def provisional_sentence(unfinished: int, planned: int) -> str:
    """Return that a verdict waits for so many of a study's trials."""
    return f"Provisional: waiting for {unfinished} of {plural(planned, 'trial')}."


def can_be_run(seeds: float, there: int) -> bool:
    """Return whether so many seeds are few enough to be worth naming, beside those that there are."""
    return seeds <= max(MOST_SEEDS, MOST_TIMES * there)


def roughly(seeds: int | None) -> str:
    """Return a number of seeds with two significant digits, for it is estimated; None: more than is looked for."""
    return f"more than {LARGEST_PLAN:,}" if seeds is None else f"{float(f'{seeds:.2g}'):,.0f}"


def level(contrast: ContrastFinding) -> str:
    """Return the confidence of a contrast's interval, such as `95%`; in a sequential study, of all together."""
    return "95%" if contrast.sequential is None else f"{100 * contrast.sequential.confidence:g}%"


def interval_name(contrasts: Sequence[ContrastFinding]) -> str:
    """Return what the intervals of a study's contrasts are, for captions and the headings of tables."""
    if not any(contrast.at_every_look for contrast in contrasts):
        apart = {contrast.apart is not None for contrast in contrasts}
        if apart == {True}:
            return "95% interval (Behrens–Fisher)"
        return (
            "95% interval (paired t, or Behrens–Fisher where unpaired)" if True in apart else "95% interval (paired t)"
        )
    return f"{level(contrasts[0])} interval that holds at every look"


def next_step(sequential: SequentialAnalysis) -> str:
    """Return what happens to a contrast that is undecided."""
    if sequential.futile:
        return "it gets no more seeds, since neither arm learned anything"
    if sequential.seeds < sequential.most:
        return f"seeds are added until it is decided, up to {sequential.most}"
    return f"all {plural(sequential.most, 'seed')} are used"


# --- factors


def effect_subject(effect: FactorEffect) -> str:
    """Return what an effect is about, such as `residual − plain, test error`."""
    arms = f"{effect.a} − {effect.b}" if effect.of == "difference" else f"mean of {effect.a} and {effect.b}"
    return ", ".join(part for part in (arms, effect.kind.named(effect.target), effect.within) if part)


def effect_change(effect: FactorEffect) -> str:
    """Return over which levels an effect is, such as `from blocks=2 to 5`."""
    if effect.over == "step":
        return f"from {effect.factor}={effect.levels[0]} to {effect.levels[1]}"
    if effect.over == "slope":
        return f"per {'doubling' if effect.logarithmic else 'unit'} of {effect.factor}"
    return "mean over all levels"


def effect_sentence(effect: FactorEffect) -> str:
    """Return what an effect of a factor is, with its interval."""
    result = effect.paired
    digits = decimals(result.difference, result.ci95)
    size = effect.kind.with_unit(number(result.difference, digits))
    basis = " (one seed shows no spread, so no interval)"
    if result.ci95:
        basis = f" (95% interval {interval(result.ci95, digits)}, paired t, {plural(result.n, 'seed')})"
    doubt = "" if effect.shown or not result.ci95 else ", which may be due to chance"
    if result.ci95 and not effect.shown and effect.t_p_adjusted is not None:
        doubt += f" (adjusted p {_equals(effect.t_p_adjusted)})"
    if effect.over == "mean":
        return f"{effect_subject(effect)}: {size} on average over all levels{basis}{doubt}."
    return f"{effect_subject(effect)}: changes by {size} {effect_change(effect)}{basis}{doubt}."


# --- data sets


def meta_sentence(one: MetaAnalysis) -> str:
    """Return what a contrast shows over several data sets: the summary, and each data set's own difference."""
    shown = [(part, result) for part in one.parts if (result := part.contrast.estimate)]
    if not shown:
        lacking = " in which one reached the target" * any(part.contrast.reach for part in one.parts)
        return f"Over {len(one.parts)} data sets {one.a} and {one.b} have no pair{lacking}."
    below = sum(result.difference < 0 for _, result in shown)
    signs = join([_part(part, result) for part, result in shown])
    listed = f"below zero on {below} of {plural(len(shown), 'data set')} ({signs})"
    summary = one.summary
    if summary is None:
        return (
            f"Over {len(one.parts)} data sets {one.a} and {one.b} cannot be compared: fewer than two data sets have two"
            f" pairs with a spread; the difference is {listed}."
        )
    digits = decimals(summary.mean, summary.interval)
    numbers = (
        f"a mean difference of {one.kind.with_unit(number(summary.mean, digits))} (95% interval"
        f" {interval(summary.interval, digits)}, random effects)"
    )
    if summary.prediction:
        numbers += f", and {interval(summary.prediction, digits)} on a new data set (95% prediction interval)"
    few = " With two data sets the interval has one degree of freedom and says little about others." * (summary.k == 2)
    return (
        f"Over {summary.k} data sets {opening(one).replace('Undecided', 'it is undecided')}: {numbers}; {listed}.{few}"
    )


def _part(part: DataSetFinding, result: Effect) -> str:
    return f"{part.data} {number(result.difference, decimals(result.difference, result.ci95))}"
