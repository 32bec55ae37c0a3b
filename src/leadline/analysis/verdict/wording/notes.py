"""What a reader must know before trusting a study's numbers: assumptions and cautions, one paragraph each."""

import math
from collections.abc import Iterator, Sequence

from leadline.analysis.stats import EXACT_PAIRS, Effect, Paired, Unpaired
from leadline.analysis.verdict.findings import ContrastFinding, Findings, SequentialAnalysis
from leadline.analysis.verdict.wording.sentences import level, name_pair
from leadline.seeds import NAMES
from leadline.text import LONGEST, join, plural


def notes(findings: Findings) -> tuple[str, ...]:
    """Return the assumptions and cautions that apply to a study's findings."""
    return (
        *findings.remarks,
        *_about_trials(findings),
        *_about_pairs(findings),
        *_about_metrics(findings.contrasts),
        *_about_unrecorded(findings),
        *_about_method(findings.contrasts),
        *_about_selection(findings),
        *_about_tuning(findings),
        *_about_missing_effects(findings),
        *_about_effects(findings),
    )


def _about_trials(findings: Findings) -> Iterator[str]:
    arms = findings.arms
    if unfinished := sum(arm.unfinished for arm in arms):
        total = sum(arm.planned for arm in arms)
        yield f"Trials still waiting or running: {unfinished} of {total}; the verdict rests on the others."
    if failed := [f"{arm.failed} of {plural(arm.planned, 'trial')} of {arm.name}" for arm in arms if arm.failed]:
        yield f"Trials that failed with an error are left out: {join(failed)}."
    if any(arm.diverged for arm in arms):
        yield (
            "Diverged trials are counted but excluded from means and pairs, so means describe only the trials that did"
            " not diverge."
        )
    yield from _about_failures(findings)
    if wrong := findings.mislabelled:
        whose = "all arms" if len(wrong) == len(arms) else join(wrong)
        yield (
            f"Some training labels of {whose} are wrong (data.label_noise); training errors are measured against the"
            " labels that are trained on."
        )
    said = findings.metric in findings.unrecorded
    if silent := [arm.name for arm in arms if arm.finished and findings.metric not in arm.metrics and not said]:
        yield f"Finished trials without a {findings.kind(findings.metric).named()} are left out: {join(silent)}."


def _about_failures(findings: Findings) -> Iterator[str]:
    if any(contrast.failed_a or contrast.failed_b for contrast in findings.contrasts):
        failed = "diverged or did no better than guessing" if findings.trained else "diverged"
        yield (
            f"A trial that {failed} has failed, which counts as worse than any error. An"
            " arm that fails more often is better only if worst-rank scores (Lachin 1999) show it too; an arm may be"
            " worse by the number of its failures alone; arms of which only one failed at some seed are not called"
            " equivalent."
        )


def _about_missing_effects(findings: Findings) -> Iterator[str]:
    """Yield of which arms effects of factors are left out, and why."""
    arms = {arm.name: arm for arm in findings.arms}
    pairs = [(arms[one.a], arms[one.b]) for one in findings.contrasts if one.both_failed]
    if bases := dict.fromkeys(f"{a.base} against {b.base}" for a, b in pairs if a.factors == b.factors != {}):
        yield (
            f"Effects of factors are left out where both arms failed at some seeds, for which the others do not stand:"
            f" {join(list(bases), LONGEST)}."
        )


def _about_unrecorded(findings: Findings) -> Iterator[str]:
    for name, reasons in findings.unrecorded.items():
        for reason, count in reasons.items():
            yield (
                f"{plural(count, 'finished trial has', 'finished trials have')} no {findings.kind(name).named()} and"
                f" {'forms no pair' if count == 1 else 'form no pairs'}: {reason}."
            )


def _about_pairs(findings: Findings) -> Iterator[str]:
    contrasts = findings.contrasts
    again = f"training again with {_other_seeds(findings)} on {_scope(findings)}"
    if not findings.trained:
        again = "further runs that are made as these were"
    if any(contrast.looked for contrast in contrasts):
        when = "Seeds were added after a verdict on fewer could be seen."
        planned = (
            " A study with `decide` adds seeds until each contrast is decided, with intervals that are planned for it."
        )
        if any(contrast.until_decided for contrast in contrasts):
            when, planned = "A study added seeds until its own contrasts were decided, which are not those here.", ""
        yield (
            f"{when} Tests that look once would be wrong too often, so each interval is one that holds at every look,"
            f" and all hold together with 95% confidence (Bonferroni); there are no p-values.{planned}"
        )
    analyses = [(contrast, contrast.sequential) for contrast in contrasts if contrast.sequential]
    if analyses:
        yield from _about_looks(analyses)
        yield f"Intervals describe {again}."
        return
    pairs = [contrast.paired for contrast in contrasts if contrast.paired]
    yield from _about_unpaired(contrasts)
    if any(pair.n == 1 for pair in pairs):
        yield (
            "One seed shows no spread between seeds, so there is no interval and no p-value: how much of a difference"
            " is due to that seed is not known."
        )
    tested = [pair for pair in pairs if pair.ci95 and pair.t_p is not None]
    if not tested:
        return
    fewest = min(pair.n for pair in tested)
    unseen = f"; {plural(fewest, 'seed is', 'seeds are')} too few to check this" if fewest < 10 else ""
    if any(isinstance(pair, Paired) for pair in tested):
        yield (
            "Verdicts are based on paired t tests of difference and of equivalence, which assume that seeds are"
            f" independent and that the differences between arms are roughly normal{unseen}."
        )
    if any(contrast.crossed for contrast in contrasts):
        yield (
            "A pair is a combination of seeds, one for each source of randomness that is varied, and pairs that share"
            " one of them are not independent. The error of the mean difference adds up the spread over the seeds of"
            " each source, which makes intervals too wide rather than too narrow (degrees of freedom: Satterthwaite"
            " 1946). There is no permutation test, and where trials failed no test of difference."
        )
    yield f"Intervals and p-values describe {again}."
    yield from _about_p_values(findings, tested)
    if any(contrast.needed for contrast in contrasts):
        yield (
            "Numbers of seeds that would decide are those at which either test does with 80% power, beside the study's"
            " other contrasts; the range is for the middle 80% of means and spreads that agree with the seeds so far."
        )
    if any(pair.bca95 and pair.n < 20 for pair in tested):
        yield "The BCa bootstrap interval is too narrow with fewer than about twenty seeds."


def _about_unpaired(contrasts: Sequence[ContrastFinding]) -> Iterator[str]:
    apart = [contrast for contrast in contrasts if isinstance(contrast.paired, Unpaired) and contrast.paired.ci95]
    if not apart:
        return
    names = join([name_pair(contrast, contrasts) for contrast in apart])
    least = max(contrast.paired.p_smallest or 0.0 for contrast in apart if contrast.paired)
    permuted = any(contrast.paired and contrast.paired.p is not None for contrast in apart)
    limit = f"; with so few trials its p-value cannot fall below {least:.2g}" if least > 0.05 else ""
    yield (
        f"Not paired: {names}. Their verdicts are based on Behrens and Fisher's tests of difference and of equivalence,"
        " which assume independent trials that are roughly normal in each arm, hold whatever their numbers and spreads"
        " are, and pay for whatever pairing would have taken away (Welch's t, which is usual and stands beside them, is"
        " too sure of few trials)"
        + (f"; the permutation test counts ways to divide the trials between the two arms{limit}." if permuted else ".")
    )


def _scope(findings: Findings) -> str:
    """Return the data for which verdicts hold."""
    many = len(findings.data_sets) > 1
    if findings.resample is None or "split" not in findings.sources:
        return "each data set and split separately" if many else "this one data set and split"
    kind = "data of each kind separately" if many else "data of this kind"
    if findings.resample == "split":
        return f"{kind}: other training and test images, as many"
    return f"{kind}: other training images, as many, and the same test images"


def _other_seeds(findings: Findings) -> str:
    """Return what differs in training again; which images there are is said by `_scope`."""
    names = {source: name for source, name in NAMES.items() if source != "split"}
    varied = [name for source, name in names.items() if source in findings.sources]
    fixed = [name for source, name in names.items() if source not in findings.sources]
    if findings.mislabelled:
        (varied if "split" in findings.sources else fixed).append("wrong labels")
    if not fixed:
        return "other seeds"
    same = f"the same {join(fixed)}"
    return f"other seeds of {join(varied)} alone, and {same}" if varied else same


def _about_p_values(findings: Findings, tested: Sequence[Effect]) -> Iterator[str]:
    paired = [one for one in tested if isinstance(one, Paired)]
    coarse = {one.n: one.p_smallest for one in paired if one.p_smallest is not None and one.p_smallest > 0.05}
    if coarse:
        limits = [f"{p:g} with {plural(n, 'seed')}" for n, p in sorted(coarse.items())]
        yield (
            "The permutation test counts all sign flips of the differences, so its p-value cannot fall below"
            f" {join(limits)}; a p-value at that limit is the strongest possible result, not evidence of equality."
        )
    if any(pair.n > EXACT_PAIRS and pair.p is not None for pair in paired):
        yield f"With more than {EXACT_PAIRS} seeds the permutation p-value comes from 99,999 random sign flips."
    if len(tested) > 1 and findings.correction == "holm":
        yield (
            f"Each interval has 95% confidence by itself. Verdicts hold for all {len(tested)} contrasts together: their"
            " p-values are adjusted by Holm's procedure over tests of difference and of equivalence, so that in at most"
            " 5% of studies like this one any verdict is wrong."
        )
    elif len(tested) > 1:
        yield (
            f"Each interval has 95% confidence by itself. Of the verdicts on the {len(tested)} contrasts, which have"
            " p-values adjusted by Benjamini and Hochberg's procedure over tests of difference and of equivalence, at"
            " most 5% are expected to be wrong, if the contrasts are independent or positively dependent."
        )


def _about_looks(analyses: Sequence[tuple[ContrastFinding, SequentialAnalysis]]) -> Iterator[str]:
    """Yield what a reader must know of intervals that hold at every look."""
    one = analyses[0][1]
    together = ""
    if one.contrasts > 1:
        together = f" for all {one.contrasts} contrasts together, each at {100 * one.of_each:.5g}% (Bonferroni)"
    yield (
        f"Seeds were added until each contrast was decided, up to {one.most}, so the intervals hold at every look at"
        f" once with {100 * one.confidence:g}% confidence{together}: repeated confidence intervals (Jennison & Turnbull"
        " 1989) with error spending (Lan & DeMets 1983)."
    )
    looks = max(own.taken for _, own in analyses)
    yield (
        f"The {100 * (1 - one.confidence):g}% chance of an error was shared out over {plural(one.planned, 'seed')}"
        " before the first look, so it does not matter"
        f" how often or why the results were looked at; looks taken: {looks}."
    )
    yield (
        "These intervals assume that seeds are independent and that the differences between arms are normal; skewed"
        " differences make them too narrow, and few seeds cannot show whether differences are skewed."
    )
    yield (
        "There are no p-values, because these are valid for a single look only; the interval is the intersection of"
        " the intervals at all looks, so the mean difference may lie outside it."
    )
    if one.planned != one.most:
        yield (
            f"The study was planned for {plural(one.planned, 'seed')} and may now take {one.most}; its intervals remain"
            " valid."
        )
    if any(contrast.decision == "undecided" and own.seeds >= own.most for contrast, own in analyses):
        yield (
            f"Undecided after {plural(one.most, 'seed')} means that more would be needed, not that the arms are equal."
        )
    if any(not math.isfinite(own.high - own.low) and len(contrast.seeds) > 1 for contrast, own in analyses):
        yield "Equal differences of a metric without a known step give no estimate of their spread."


def _about_metrics(contrasts: Sequence[ContrastFinding]) -> Iterator[str]:
    yield from dict.fromkeys(note for contrast in contrasts if (note := contrast.kind.note))
    if any(contrast.reach for contrast in contrasts):
        yield (
            "Times to a target refer to the validation error at the end of each epoch. A trial that never reaches its"
            " target has no such time, so times are compared up to a horizon within which all are known, as restricted"
            " means (Irwin 1949), and the sign test counts which arm is known to be first."
        )


def _about_method(contrasts: Sequence[ContrastFinding]) -> Iterator[str]:
    tested = [contrast for contrast in contrasts if contrast.paired and contrast.paired.ci95 and contrast.margin]
    if tested:
        margins = {contrast.kind.amount(contrast.margin) for contrast in tested}
        within = margins.pop() if len(margins) == 1 else "its contrast's margin"
        how = "two one-sided t tests (Schuirmann 1987) show that the mean difference lies"
        if tested[0].at_every_look:
            how = f"the whole {level(tested[0])} interval lies"
        yield (
            f"Equivalent means that {how} within {within} of zero; a difference that is shown counts as a difference,"
            " however small."
        )
    if any(contrast.paired and contrast.paired.ci95 and not contrast.margin for contrast in contrasts):
        yield "Contrasts whose metric has no margin are better, worse or undecided, but never equivalent."
    if any(contrast.mcnemar for contrast in contrasts):
        yield (
            "McNemar's test compares two trained networks, seed by seed, on the images of this test set; it says"
            " nothing about training them again."
        )


def _about_selection(findings: Findings) -> Iterator[str]:
    if not findings.trained:
        return
    stopped = [arm.name for arm in findings.arms if "epochs_trained" in arm.metrics]
    tested = "the network after the last epoch is the one that is tested"
    if stopped:
        tested = (
            f"where training stops early, of {join(stopped)}, the network of the best epoch on the validation images is"
        )
        tested += " the one that is tested; its validation results are slightly too good"
        if len(stopped) < len(findings.arms):
            tested += "; of the other arms it is that after the last epoch"
    yield f"Test data were not used for any selection: {tested}."


def _about_tuning(findings: Findings) -> Iterator[str]:
    if findings.tune is None:
        return
    if findings.contrasts:
        yield (
            "Contrasts compare the arms with the values that one search chose for each; their intervals do not include"
            " how much the choice would vary from search to search."
        )
    if any(one.kind.on_validation for one in findings.contrasts):
        yield (
            "Contrasts of validation errors, or of times to one, use the images on which tuning chose, though at other"
            " seeds; such errors are slightly too low, the more so the more settings were tried."
        )


def _about_effects(findings: Findings) -> Iterator[str]:
    if findings.factors:
        yield (
            "Effects of factors are computed within each seed, as weighted sums over levels, and compared over seeds by"
            " a paired t test, which is exact for such balanced pairs; their p-values are adjusted among themselves."
            " Times to a target are included only where all levels have one horizon."
        )
    if any(one.summary for one in findings.meta_analyses):
        yield (
            "The summary over data sets takes them as a sample of similar data sets, on which the effect varies"
            " normally about its mean (random effects: Paule & Mandel 1982, Knapp & Hartung 2003); data sets selected"
            " because they resemble each other say little about others."
        )
    if len(findings.meta_analyses) > 1:
        yield (
            "Intervals over data sets have 95% confidence by themselves; what is said of the"
            f" {len(findings.meta_analyses)} summaries holds for all together (Bonferroni)."
        )
