"""Findings from hand-made frames: what is paired, counted, decided, said and passed on."""

import itertools
import json
import math
import subprocess
import sys
from collections.abc import Callable, ItemsView, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leadline.analysis.stats import SeedsForWord, difference_p, paired
from leadline.analysis.stats.sequential import interval_at_any_time
from leadline.analysis.verdict import (
    Contrast,
    Findings,
    analyze,
    contrast_sentence,
    decided_line,
    detail_sentences,
    headline,
    notes,
    round_line,
    to_json,
    to_text,
)
from leadline.analysis.verdict.decisions import Judgement, decide_contrasts
from leadline.analysis.verdict.pairs import Pairs
from leadline.analysis.verdict.tested import ImageSets
from leadline.analysis.verdict.wording.sentences import effect_sentence
from leadline.analysis.verdict.wording.tables import arms_table, contrasts_table, flat
from leadline.parts.metrics import Outputs, metric
from leadline.specs import parse
from leadline.specs.study import StudySpec
from leadline.study.expand import Arm, ExpandedStudy, expand
from leadline.text import number, p_value
from leadline.text.tables import to_csv, to_frame

IMAGES = 1000
ONE_LEVEL = {"seeds": 3}
THREE_LEVELS = {"seeds": 3, "vary": {"blocks": [2, 5, 10]}}
Frames = tuple[pd.DataFrame, pd.DataFrame, ItemsView[str, Outputs]]


def a_study(**changes: Any) -> ExpandedStudy:
    arms = {"plain": {"network": "comparative-plain"}, "residual": {"network": "comparative-resnet"}}
    return expand(parse(StudySpec, {"name": "toy", "arms": arms, "contrasts": [["residual", "plain"]], **changes}))


def frames(
    study: ExpandedStudy,
    error: Callable[[Arm, int], float],
    state: Callable[[Arm, int], str] = lambda arm, seed: "finished",
    epochs: int = 4,
) -> Frames:
    """Trials whose test error is `error`, training error half of it, validation error a tenth of a point more.

    Trials that are not finished have records as well, which must not count. A NaN error comes without predictions.
    """
    trials, records, predictions = [], [], {}
    labels = np.arange(IMAGES, dtype=np.int16) % 10
    for arm, trial in study.trials():
        key, value = trial.content_hash, error(arm, trial.seed)
        base = {"trial": key, "arm": arm.name, "base": arm.base, "seed": trial.seed}
        status = state(arm, trial.seed)
        trials.append({**base, "factors": dict(arm.factors), "state": status, "seconds": 10.0 + trial.seed})
        finals = {"final-test": value, "final-train": value / 2, "final-validation": value + 0.1}
        records += [
            {**base, "step": 1, "epoch": epochs, "split": split, "name": "error", "value": one}
            for split, one in finals.items()
        ]
        # accuracy 0.5, then 0.9, then as at the end: converged at epoch 3
        for epoch in range(1, epochs + 1):
            accuracy = [0.5, 0.9][epoch - 1] if epoch < 3 else 0.97
            row = {"step": epoch, "epoch": epoch, "split": "validation", "name": "accuracy", "value": accuracy}
            records.append({**base, **row})
        if math.isfinite(value):
            wrong = round(value * IMAGES / 100)
            predicted = labels.copy()
            predicted[:wrong] = (predicted[:wrong] + 1) % 10
            predictions[key] = Outputs(labels, predicted)
    return pd.DataFrame(trials), pd.DataFrame(records), predictions.items()


def by_base(values: Mapping[str, list[float]]) -> Callable[[Arm, int], float]:
    return lambda arm, seed: values[arm.base][seed]


def found(values: Mapping[str, list[float]], **changes: Any) -> Findings:
    study = a_study(seeds=len(values["plain"]), **changes)
    return analyze(study, *frames(study, by_base(values)))


# --- numbers


def test_numbers_of_one_contrast_by_hand() -> None:
    findings = found({"plain": [5.0, 6.0, 7.0], "residual": [4.0, 4.0, 4.0]})
    plain, residual = findings.arms
    assert (plain.name, plain.planned, plain.finished, plain.diverged, plain.failed) == ("plain", 3, 3, 0, 0)
    assert plain.metrics["test_error"].mean == 6 and plain.metrics["test_error"].sd == 1
    assert plain.metrics["train_error"].mean == 3 and residual.metrics["validation_error"].median == pytest.approx(4.1)
    assert plain.convergence_epoch and (plain.convergence_epoch.minimum, plain.convergence_epoch.maximum) == (3, 3)
    assert plain.seconds and plain.seconds.mean == 11
    (contrast,) = findings.contrasts
    # differences -1, -2, -3: mean -2, deviation 1, interval -2 -+ 4.302653/sqrt(3)
    assert contrast.seeds == (0, 1, 2) and contrast.differences == (-1, -2, -3)
    assert contrast.paired and contrast.paired.ci95 == pytest.approx((-4.484138, 0.484138), abs=1e-6)
    assert contrast.decision == "undecided"
    # residual alone is right on the images between its errors and plain's: 10, 20, 30 of 1,000
    assert [(test.seed, test.a_only, test.b_only) for test in contrast.mcnemar] == [(0, 10, 0), (1, 20, 0), (2, 30, 0)]
    assert contrast.mcnemar[0].p == pytest.approx(2 / 2**10)
    # one contrast: nothing to adjust
    assert contrast.paired.p == contrast.judgement.p_adjusted == 0.25
    assert contrast.judgement.test.p == contrast.judgement.difference_p_adjusted == contrast.paired.t_p


def test_what_has_not_learned_has_no_epoch_of_convergence() -> None:
    study = a_study(seeds=3)
    trials, records, outputs = frames(study, by_base({"plain": [90.0] * 3, "residual": [5.0, 6.0, 90.0]}))
    chance = records["split"].eq("validation") & (records["arm"].eq("plain") | records["seed"].eq(2))
    findings = analyze(study, trials, records.assign(value=records["value"].mask(chance, 0.1)), outputs)
    plain, residual = findings.arms
    assert plain.convergence_epoch is None and residual.convergence_epoch and residual.convergence_epoch.n == 2
    table = arms_table(findings)
    place = [column.heading for column in table.columns].index("Epoch of convergence")
    assert [row[place] for row in table.shown] == ["–", "3.0 ± 0.0 (2 of 3)"]
    assert "Epoch of convergence: the first" in table.note and table.note in to_text(findings)
    # without outputs for test images, and so the most common class, chance is not known
    assert all(arm.convergence_epoch is None for arm in analyze(study, trials, records, {}).arms)
    # a task without accuracies has no such epoch, and no note of it
    assert arms_table(replace(findings, curves={"loss": "Loss"})).note == ""


def test_trials_pair_by_seed_whatever_the_order_of_rows() -> None:
    study = a_study(seeds=[7, 3, 11])
    errors = {"plain": {7: 5.0, 3: 9.0, 11: 2.0}, "residual": {7: 4.0, 3: 7.0, 11: 2.5}}
    trials, records, predictions = frames(study, lambda arm, seed: errors[arm.base][seed])
    shuffled = trials.sample(frac=1, random_state=1), records.sample(frac=1, random_state=2), predictions
    findings = analyze(study, *shuffled)
    assert findings.contrasts[0].seeds == (3, 7, 11) and findings.contrasts[0].differences == (-2, -1, 0.5)
    assert findings == analyze(study, trials, records, predictions)


def test_diverged_failed_and_unfinished_trials_are_counted_and_stay_out_of_every_number() -> None:
    states = {"plain": ["diverged", "finished", "failed", "finished"], "residual": ["finished"] * 3 + ["running"]}
    study = a_study(seeds=4)
    errors = {"plain": [90.0, 5.0, 80.0, 6.0], "residual": [4.0, 4.5, 4.0, 70.0]}
    findings = analyze(study, *frames(study, by_base(errors), lambda arm, seed: states[arm.base][seed]))
    plain, residual = findings.arms
    assert (plain.finished, plain.diverged, plain.failed) == (2, 1, 1) and plain.metrics["test_error"].maximum == 6
    assert residual.finished == 3 and residual.metrics["test_error"].maximum == 4.5
    (contrast,) = findings.contrasts
    assert contrast.seeds == (1,) and contrast.paired and contrast.paired.ci95 is None
    assert (contrast.diverged_a, contrast.diverged_b, contrast.decision) == (0, 1, "undecided")
    assert "plain diverged at 1 of 4 seeds" in contrast_sentence(contrast, findings)
    assert headline(findings)[-2:] == (
        "Diverged: plain at 1 of 4 seeds.",
        "Provisional: waiting for 1 of 8 trials.",
    )
    assert "Trials that failed with an error are left out: 1 of 4 trials of plain." in notes(findings)


@pytest.mark.parametrize(("metric", "difference"), [("train_error", -1.0), ("validation_error", -2.0)])
def test_other_metrics(metric: str, difference: float) -> None:
    contrast = {"a": "residual", "b": "plain", "metric": metric}
    findings = found({"plain": [5.0, 6.0, 7.0], "residual": [4.0, 4.0, 4.0]}, contrasts=[contrast])
    paired = findings.contrasts[0].paired
    assert paired and paired.difference == pytest.approx(difference)
    assert findings.contrasts[0].mcnemar == ()
    assert {"train_error": "training error", "validation_error": "validation error"}[metric] in headline(findings)[0]


def test_holm_runs_over_the_contrasts_that_have_a_p() -> None:
    study = a_study(**THREE_LEVELS)
    errors = {2: [1.0, 2.0, 3.5], 5: [1.0, 1.1, 1.2], 10: [5.0, 5.2, 5.1]}
    findings = analyze(
        study,
        *frames(
            study,
            lambda arm, seed: errors[arm.factors["blocks"]][seed] if arm.base == "plain" else 1.0,
            lambda arm, seed: "diverged" if arm.name == "plain[blocks=10]" and seed else "finished",
        ),
    )
    two, five, ten = findings.contrasts
    assert ten.judgement.p_adjusted is ten.judgement.difference_p_adjusted is None and ten.failed_b == 2
    # without a margin, Holm's procedure for differences alone; with one, a contrast counts until both are rejected
    p, q = ([one.judgement.test.p, one.judgement.equivalence_p] for one in (two, five))
    for own, other, contrast in ((p, q, two), (q, p, five)):
        expected = [min(1, max(one, 2 * min(one, max(other)))) for one in own]
        judged = contrast.judgement
        assert [judged.difference_p_adjusted, judged.equivalence_p_adjusted] == pytest.approx(expected)


def test_missing_or_other_predictions_give_no_mcnemar() -> None:
    study = a_study(seeds=3)
    trials, records, given = frames(study, by_base({"plain": [5.0, 6.0, 7.0], "residual": [4.0] * 3}))
    predictions = dict(given)
    keys = {(row.arm, row.seed): row.trial for row in trials.itertuples()}
    del predictions[keys["plain", 0]]
    whole = predictions[keys["plain", 1]]
    predictions[keys["plain", 1]] = Outputs(whole.labels[:-1], whole.predicted[:-1])
    findings = analyze(study, trials, records, predictions.items())
    assert [test.seed for test in findings.contrasts[0].mcnemar] == [2]


def test_what_trials_got_wrong_is_kept_in_bits_and_their_images_are_told_apart() -> None:
    labels = np.array([2, 0, 1, 1, 0, 2, 1, 0, 1, 1], np.int16)
    predicted = labels.copy()
    predicted[[0, 9]] = 0, 2
    read = ImageSets().tested
    first, again, wider = (read(Outputs(one, predicted)) for one in (labels, labels.copy(), labels.astype(np.int64)))
    np.testing.assert_array_equal(first.wrong, predicted != labels)
    assert first.packed.nbytes == 2 and first.images.count == 10 and first.images.chance == 0.5
    assert first.images is again.images is wider.images
    names = np.arange(10)
    named = read(Outputs(labels, predicted, examples=names)).images
    assert named is read(Outputs(labels, predicted, examples=names.astype(np.int32))).images
    others = [
        read(Outputs(labels[::-1], predicted)).images,
        read(Outputs(labels[:9], predicted[:9])).images,
        read(Outputs(labels, predicted, examples=names[::-1])).images,
        read(Outputs(labels, predicted, examples=names.astype(str).astype(object))).images,
    ]
    assert len({first.images, named, *others}) == 6
    assert first.is_comparable(again) and not first.is_comparable(read(Outputs(labels[::-1], predicted)))
    # of tasks whose examples have no single label, nothing is right or wrong
    for targets, values in ((np.zeros((3, 2)), np.ones((3, 2))), (np.zeros(3), np.ones((3, 1)))):
        other = read(Outputs(targets, values))
        assert other.packed is None and other.images.count == 3 and not other.is_comparable(other)
    assert read(Outputs(labels[:0], labels[:0])).wrong.size == 0


def test_differences_that_one_image_made_do_not_decide() -> None:
    step = 100 / 360
    few = {"plain": [4 * step, 6 * step], "residual": [5 * step, 7 * step]}
    assert found(few, margin=3.0).contrasts[0].decision == "equivalent"
    # the step is one of the test images, whatever the margin is and whatever other arms show
    for margin, decision in ((0.02, "undecided"), (0.5, "equivalent")):
        (contrast,) = found({"plain": [5.0, 5.0], "residual": [5.1, 5.1]}, margin=margin).contrasts
        assert contrast.decision == decision and contrast.resolution == 100 / IMAGES
    # while a gulf that is the same at every seed does
    assert found({"plain": [60.0, 60.0], "residual": [0.0, 0.0]}).contrasts[0].decision == "better"


def test_a_final_value_that_is_not_finite_is_left_out() -> None:
    study = a_study(seeds=2)
    trials, records, predictions = frames(study, by_base({"plain": [5.0, math.nan], "residual": [4.0, 4.0]}))
    findings = analyze(study, trials, records, predictions)
    assert findings.arms[0].finished == 2 and findings.arms[0].metrics["test_error"].n == 1
    assert findings.contrasts[0].seeds == (0,)


# --- words


def test_sentence_of_a_decided_contrast() -> None:
    findings = found({"plain": [60.0, 60.3, 60.8], "residual": [2.0, 2.2, 2.1]})
    assert headline(findings) == (
        "residual has a lower test error than plain: 2.10% against 60.37%, a difference of −58.27 points"
        " (95% interval −59.21 to −57.33, paired t, 3 seeds).",
    )
    swapped = found({"residual": [60.0, 60.3, 60.8], "plain": [2.0, 2.2, 2.1]})
    assert (
        swapped.contrasts[0].decision == "worse"
        and "residual has a higher test error than plain: 60.37%" in headline(swapped)[0]
    )


def test_sentence_of_a_difference_that_is_real_and_small() -> None:
    findings = found({"plain": [2.2, 2.31, 2.4], "residual": [2.0, 2.1, 2.2]})
    assert findings.contrasts[0].decision == "better"
    assert contrast_sentence(findings.contrasts[0], findings).endswith("3 seeds), less than the margin of 0.5 points.")


def test_sentence_of_equivalence() -> None:
    findings = found({"plain": [2.2, 2.3, 2.4], "residual": [2.1, 2.4, 2.4]})
    assert findings.contrasts[0].decision == "equivalent"
    assert headline(findings)[0].startswith(
        "residual and plain are equivalent in test error within 0.5 points: 2.30% against 2.30%"
    )


def test_sentence_of_an_undecided_contrast_says_how_many_seeds() -> None:
    findings = found({"plain": [5.0, 6.0, 7.0], "residual": [4.0, 4.0, 4.0]})
    # differences -1, -2, -3: an effect of 2 needs 5 pairs, as G*Power gives it
    assert contrast_sentence(findings.contrasts[0], findings) == (
        "Undecided between residual and plain: 4.0% against 6.0% test error, a difference of −2.0 points (95% interval"
        " −4.5 to 0.5, paired t, 3 seeds); about 5 seeds in all (4 to 39, as 3 seeds show mean and spread only roughly)"
        " would decide it with 80% power. At each of the 3 seeds the network of residual classifies more of the test"
        " images correctly than that of plain (McNemar's test, p = 0.0059, Bonferroni); 3 seeds do not show how much"
        " training again with other seeds would change that."
    )


def test_sentence_of_no_mean_difference() -> None:
    findings = found({"plain": [5.0, 6.0, 7.0], "residual": [7.0, 6.0, 5.0]})
    # differences 2, 0, -2: equivalence within 0.5 is what more seeds would show
    needed = findings.contrasts[0].needed
    assert needed and needed.likely and 100 < needed.likely < 200


@pytest.mark.parametrize(
    ("needed", "seeds", "words"),
    [
        (
            SeedsForWord(84, 7, 347),
            3,
            "about 84 seeds in all (7 to 350, as 3 seeds show mean and spread only roughly)",
        ),
        (SeedsForWord(101, 9, None), 3, "too small beside the spread between seeds to be decided by more of them"),
        (SeedsForWord(101, 9, None), 3, "about 100 seeds in all (9 to more than 10,000, as 3 seeds"),
        (SeedsForWord(3487, 340, 9999), 3, "which would take about 3,500 seeds in all (340 to 10,000, as 3 seeds"),
        (
            SeedsForWord(299, 90, 900),
            30,
            "about 300 seeds in all (90 to 900, as 30 seeds show mean and spread only roughly)",
        ),
        (
            SeedsForWord(None, None, None),
            3,
            "would take more than 10,000 seeds in all; a larger test set would lessen that",
        ),
    ],
)
def test_no_number_of_seeds_is_recommended_that_nobody_can_run(needed: SeedsForWord, seeds: int, words: str) -> None:
    findings = found({"plain": [5.0, 6.0, 7.0] * (seeds // 3), "residual": [7.0, 6.0, 5.0] * (seeds // 3)})
    contrast = replace(findings.contrasts[0], needed=needed, judgement=Judgement("undecided"))
    sentence = contrast_sentence(contrast, findings)
    assert words in sentence
    table = contrasts_table(replace(findings, contrasts=(contrast,)))
    cell = dict(zip((one.title for one in table.columns), table.shown[0], strict=True))["Seeds to decide, 80% power"]
    assert cell.replace(" (", " seeds in all (").removesuffix(")") in sentence
    assert table.rows[0]["needed_likely"] == needed.likely
    assert ("a larger margin, if such" in sentence) == ("too small" in sentence) == ("80% power" not in sentence)
    assert "larger margin" not in contrast_sentence(replace(contrast, margin=0.0), findings)


def test_no_interval_goes_beyond_what_is_possible() -> None:
    findings = found({"plain": [89.0, 5.0], "residual": [4.0, 75.0]})
    (contrast,) = findings.contrasts
    assert contrast.paired and contrast.paired.ci95 == (-100.0, 100.0)
    assert "(95% interval −100.0 to 100.0, which excludes nothing, paired t, 2 seeds)" in headline(findings)[0]
    assert contrast.images and (contrast.images.low, contrast.images.high) == (-100.0, 100.0)
    assert not any("For other test images" in line for line in detail_sentences(contrast))
    shown = to_json(findings)["contrasts"][0]
    assert shown["ci95"] == [-100.0, 100.0] and shown["images"]["low"] == -100.0

    # one end alone is cut, and the test of difference is the one of the whole interval
    half = found({"plain": [85.0, 60.0, 80.0], "residual": [4.0, 5.0, 3.0]}).contrasts[0]
    assert half.paired and half.paired.ci95 and half.paired.ci95[0] == -100 and -50 < half.paired.ci95[1] < 0
    assert half.paired.t_p == pytest.approx(float(difference_p(half.differences)))


def test_levels_at_one_seed_say_what_was_seen_and_what_to_do() -> None:
    study = a_study(seeds=1, vary={"blocks": [2, 5, 10]})
    errors = {2: 5.0, 5: 6.0, 10: 80.0}
    findings = analyze(
        study, *frames(study, lambda arm, seed: errors[arm.factors["blocks"]] if arm.base == "plain" else 4.0)
    )
    assert headline(findings)[1] == (
        "One seed shows no spread between seeds, so there are no intervals. The differences are −76.0 to −1.0 points."
        " Add seeds, such as `--set seeds=3`."
    )
    assert not any("chance" in effect_sentence(effect) for effect in findings.factors)
    assert not any("One seed" in line for line in headline(replace(findings, contrasts=findings.contrasts[:1])))


def test_one_seed_says_that_it_gives_no_interval() -> None:
    findings = found({"plain": [2.8], "residual": [2.1]})
    assert headline(findings) == (
        "Undecided between residual and plain: 2.10% against 2.80% test error, a difference of −0.70 points"
        " at the only seed; one seed shows no spread between seeds, so there is no interval and no p-value; add seeds,"
        " such as `--set seeds=3`. At the one seed the network of residual classifies more of the test images correctly"
        " than that of plain (McNemar's test, p = 0.016, Bonferroni); 1 seed does not show how much training again with"
        " other seeds would change that.",
    )
    assert any("One seed shows no spread between seeds" in note for note in notes(findings))
    assert to_json(findings)["contrasts"][0]["p"] is None


def test_an_arm_that_always_diverged_leaves_no_pair() -> None:
    study = a_study(seeds=3)
    state = {"plain": "diverged", "residual": "finished"}
    findings = analyze(study, *frames(study, lambda arm, seed: 3.0, lambda arm, seed: state[arm.base]))
    assert findings.contrasts[0].paired is None
    assert headline(findings) == (
        "Undecided between residual and plain: there is no seed at which both finished."
        " plain diverged at 3 of 3 seeds; in the decision that counts as worse than any error.",
        "Diverged: plain at 3 of 3 seeds.",
    )


def test_headline_sums_up_over_levels() -> None:
    study = a_study(**THREE_LEVELS)
    plain = {2: [2.0, 2.3, 2.8], 5: [3.0, 3.1, 3.3], 10: [60.0, 60.4, 60.6]}
    residual = {2: [2.2, 2.9, 2.1], 5: [2.1, 2.1, 2.2], 10: [2.0, 2.2, 2.1]}
    values = {"plain": plain, "residual": residual}
    findings = analyze(study, *frames(study, lambda arm, seed: values[arm.base][arm.factors["blocks"]][seed]))
    assert headline(findings) == (
        "residual has a lower test error than plain at blocks=5 and 10; undecided at blocks=2.",
        f"The largest decided difference: {contrast_sentence(findings.contrasts[2], findings)}",
    )
    assert findings.contrasts[2].a == "residual[blocks=10]" and "−58.2" in headline(findings)[1]
    plain[10] = [5.0, 5.9, 5.4]
    nearer = analyze(study, *frames(study, lambda arm, seed: values[arm.base][arm.factors["blocks"]][seed]))
    assert "As the largest of 3 it is likely too large; shrunk: −3." in headline(nearer)[1]


@pytest.mark.parametrize(
    ("sign", "line"),
    [
        (-1, "residual has a lower test error than plain at every level of blocks (2, 5 and 10)."),
        (1, "residual has a higher test error than plain at every level of blocks (2, 5 and 10)."),
    ],
)
def test_headline_where_all_levels_agree(sign: int, line: str) -> None:
    study = a_study(**THREE_LEVELS)
    findings = analyze(
        study, *frames(study, lambda arm, seed: 20 + seed / 10 + sign * (arm.base == "residual") * (9 + seed / 90))
    )
    assert headline(findings)[0] == line


def test_headline_of_several_factors_and_of_equivalence() -> None:
    study = a_study(seeds=3, vary={"blocks": [2, 5], "training.batch_size": [32, 64]})
    findings = analyze(study, *frames(study, lambda arm, seed: 5.0 + seed + 0.01 * (arm.base == "plain") * seed))
    assert headline(findings) == (
        "residual and plain are equivalent in test error within 0.5 points at every combination"
        " (blocks=2,training.batch_size=32, blocks=2,training.batch_size=64, blocks=5,training.batch_size=32"
        " and blocks=5,training.batch_size=64).",
    )


def test_a_contrast_that_others_keep_undecided_says_so() -> None:
    # at blocks=1 differences -1, -1.2, -1.5: t = 8.5, p = 0.014, and times four 0.055; elsewhere none
    def error(arm: Arm, seed: int) -> float:
        return [6.0, 6.2, 6.5][seed] if arm.name == "plain[blocks=1]" else 5.0 + (seed - 1) * (arm.base == "plain")

    study = a_study(seeds=3, vary={"blocks": [1, 2, 3, 4]})
    findings = analyze(study, *frames(study, error))
    one = findings.contrasts[0]
    assert one.decision == "undecided" and one.judgement.alone
    assert one.judgement.difference_p_adjusted and one.judgement.difference_p_adjusted > 0.05
    sentence = contrast_sentence(one, findings)
    assert "The study has 4 contrasts, so Holm's correction raises the p-value of its test of difference" in sentence
    assert "from 0.014 to 0.054; by itself the contrast would be decided." in sentence
    assert any("Holm's correction): residual[blocks=1] against plain[blocks=1]." in line for line in headline(findings))
    of_both = [["residual", "plain"], {"a": "plain", "b": "residual", "metric": "train_error"}]
    study = a_study(seeds=3, vary={"blocks": [1, 2, 3, 4]}, contrasts=of_both)
    one, other = "residual[blocks=1]", "plain[blocks=1]"
    assert any(
        f"Holm's correction): {one} against {other} in test error and {other} against {one} in training error." in line
        for line in headline(analyze(study, *frames(study, error)))
    )


def test_many_pairs_are_counted_not_listed() -> None:
    arms = {
        f"arm{number}": {"network": "comparative-cnn", "training": {"batch_size": number + 1}} for number in range(6)
    }
    study = a_study(arms=arms, contrasts=None)
    findings = analyze(
        study, *frames(study, lambda arm, seed: 10.0 * int(arm.base[3:]) + seed / 10 + 0.01 * seed * int(arm.base[3:]))
    )
    assert len(findings.contrasts) == 15
    assert headline(findings)[0] == "All 15 contrasts are decided."
    assert headline(findings)[1:6] == (
        "A higher test error than arm0: arm1, arm2, arm3, arm4 and arm5.",
        "A higher test error than arm1: arm2, arm3, arm4 and arm5.",
        "A higher test error than arm2: arm3, arm4 and arm5.",
        "A higher test error than arm3: arm4 and arm5.",
        "A higher test error than arm4: arm5.",
    )
    assert "arm5 has a higher test error than arm0" in headline(findings)[6] and len(headline(findings)) == 7
    idle = analyze(
        study,
        *frames(
            study, lambda arm, seed: (90.0 if arm.base in ("arm0", "arm1") else 10.0 * int(arm.base[3:])) + seed / 10
        ),
    )
    assert headline(idle)[0].endswith("and in 1 neither arm learned.") and "undecided" not in headline(idle)[0]


def test_a_count_of_contrasts_names_the_arms_unless_that_takes_many_lines() -> None:
    errors = {"base": 5.0, "same": 5.0, "low": 3.0, "lower": 2.0, "wild": 5.0, "idle": 90.0, "high": 9.0, "other": 5.0}

    def error(arm: Arm, seed: int) -> float:
        wild = (-3, 4, -4)[seed] if arm.base == "wild" else 0
        return errors[arm.base] + seed / 10 + wild + 0.01 * seed * len(arm.base)

    arms = {name: {"network": "comparative-cnn", "training": {"batch_size": n + 1}} for n, name in enumerate(errors)}
    against_one = [[name, "base"] for name in errors if name != "base"]
    study = a_study(arms=arms, contrasts=against_one)
    lines = headline(analyze(study, *frames(study, error)))
    assert lines[:4] == (
        "Of 7 contrasts 4 show a difference, 2 are equivalent within 0.5 points and 1 is undecided.",
        "Equivalent in test error within 0.5 points to base: same and other.",
        "A lower test error than base: low and lower.",
        "A higher test error than base: idle and high.",
    )
    assert lines[4].startswith("The largest decided difference: idle")
    chain = [[one, other] for one, other in itertools.pairwise(errors)]
    study = a_study(arms=arms, contrasts=chain)
    lines = headline(analyze(study, *frames(study, lambda arm, seed: 5.0 * list(errors).index(arm.base) + seed / 100)))
    assert lines[0] == "All 7 contrasts are decided." and lines[1].startswith("The largest decided difference")


def test_study_without_a_contrast_and_study_not_begun() -> None:
    arms = {"plain": {"network": "comparative-plain"}}
    study = a_study(arms=arms, contrasts=None, seeds=2)
    errors = by_base({"plain": [2.0, 3.0]})
    findings = analyze(study, *frames(study, errors))
    assert headline(findings) == (
        "The study has no contrasts; test errors: plain 2.50% (standard deviation 0.71 over 2 seeds).",
    )
    findings = analyze(study, *frames(study, errors, lambda arm, seed: "waiting"))
    assert headline(findings) == ("No trial has finished yet, so there is no verdict.",)
    assert "plain" in to_text(findings)


def test_empty_frames() -> None:
    study = a_study(**THREE_LEVELS)
    trials, records, _ = frames(study, lambda arm, seed: 1.0)
    findings = analyze(study, trials.iloc[:0], records.iloc[:0], {})
    assert all(arm.finished == 0 and not arm.metrics for arm in findings.arms)
    assert json.dumps(to_json(findings), allow_nan=False)


def test_notes_warn_of_what_few_seeds_cannot_do() -> None:
    text = "\n".join(notes(found({"plain": [5.0, 6.0, 7.0], "residual": [4.0, 4.0, 4.0]})))
    for part in (
        "roughly normal; 3 seeds are too few",
        "cannot fall below 0.25 with 3 seeds",
        "Test data were not used for any selection",
        "one data set",
        "McNemar",
        "nothing about training them again",
    ):
        assert part in text  # fmt: skip
    many = {"plain": [5 + seed / 7 for seed in range(12)], "residual": [5 + (seed * 5 % 12) / 7 for seed in range(12)]}
    assert "cannot fall below" not in "\n".join(notes(found(many)))


@pytest.mark.parametrize(
    ("value", "digits", "text"), [(-1.25, 1, "−1.2"), (-0.01, 1, "0.0"), (0.0, 2, "0.00"), (3.14159, 3, "3.142")]
)
def test_numbers_in_words(value: float, digits: int, text: str) -> None:
    assert number(value, digits) == text


def test_p_in_words() -> None:
    assert [p_value(p) for p in (1.0, 0.25, 0.0312, 0.001, 0.0009, 0.0)] == [
        "1", "0.25", "0.031", "0.001", "<0.001", "<0.001",
    ]  # fmt: skip


# --- JSON and text


def test_json_has_the_keys_that_other_programs_rely_on() -> None:
    study = a_study(**THREE_LEVELS)
    result = to_json(analyze(study, *frames(study, lambda arm, seed: seed + len(arm.name) / 7)))
    assert list(result["arms"]) == [f"{base}[blocks={n}]" for base in ("plain", "residual") for n in (2, 5, 10)]
    for arm in result["arms"].values():
        assert {"n", "diverged", "test_error"} <= arm.keys() and {"mean", "sd"} <= arm["test_error"].keys()
    for contrast in result["contrasts"]:
        assert {"a", "b", "metric", "n", "difference", "ci95", "p", "p_adjusted", "verdict"} <= contrast.keys()
    assert result["contrasts"][0]["a"] == "residual[blocks=2]" and result["contrasts"][0]["metric"] == "test_error"
    assert result["contrasts"][0]["p_smallest"] == 0.25


states = st.sampled_from(["waiting", "running", "finished", "finished", "finished", "diverged", "failed"])
errors = st.one_of(st.integers(0, 1000).map(lambda wrong: wrong / 10), st.just(math.nan))


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(errors, states), min_size=12, max_size=12), st.integers(1, 3))
def test_any_outcome_gives_plain_json_and_text(outcomes: list[tuple[float, str]], seeds: int) -> None:
    study = a_study(seeds=seeds, vary={"blocks": [2, 5]})
    at = {(arm.name, trial.seed): outcomes[place] for place, (arm, trial) in enumerate(study.trials())}
    findings = analyze(
        study, *frames(study, lambda arm, seed: at[arm.name, seed][0], lambda arm, seed: at[arm.name, seed][1])
    )
    result = to_json(findings)
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    text = to_text(findings) + json.dumps(result, ensure_ascii=False)
    assert "nan" not in text.lower() and "None" not in to_text(findings)
    for arm in findings.arms:
        mine = [state for (name, _), (_, state) in at.items() if name == arm.name]
        assert [arm.finished, arm.diverged, arm.failed] == [mine.count(s) for s in ("finished", "diverged", "failed")]
    for line in (
        *headline(findings),
        *notes(findings),
        *(contrast_sentence(contrast, findings) for contrast in findings.contrasts),
    ):
        assert line.endswith(".") and "\n" not in line and "  " not in line


def test_text_has_the_verdict_the_arms_and_the_contrasts() -> None:
    study = a_study(title="Toy study", **THREE_LEVELS)
    findings = analyze(study, *frames(study, lambda arm, seed: seed + len(arm.name) / 7))
    lines = to_text(findings).splitlines()
    assert lines[0] == "Toy study" and lines[2] == headline(findings)[0]
    table = [line for line in lines if line.startswith(("Arm ", "plain[", "residual[")) and "against" not in line]
    assert len(table) == 7 and len({len(line) for line in table}) == 1
    assert all(
        sum(contrast_sentence(contrast, findings) in line for line in lines) == 1 for contrast in findings.contrasts
    )
    assert all(f"- {note}" in lines for note in notes(findings))


def test_files_frames_and_json_have_the_same_values() -> None:
    study = a_study(**THREE_LEVELS)
    findings = analyze(study, *frames(study, lambda arm, seed: seed + len(arm.name) / 7))
    plain = to_json(findings)
    for table, values in (
        (contrasts_table(findings), plain["contrasts"]),
        (arms_table(findings), list(plain["arms"].values())),
    ):
        frame = to_frame(table)
        assert list(frame.columns) == to_csv(table).splitlines()[0].split(",") and len(frame) == len(values)
        for row, one in zip(frame.to_dict("records"), map(flat, values), strict=True):
            shared = row.keys() & one.keys()
            assert len(shared) >= 16 and all(row[key] == one[key] or pd.isna(row[key]) for key in shared)
        assert all(len(row) == len(table.columns) for row in table.shown)
        assert {name.split("_")[0] for name in frame.columns} - {"contrast", "unit", "target", "arm"} <= {
            key.split("_")[0] for one in values for key in flat(one)
        }


def test_decisions_see_all_contrasts_at_once() -> None:
    contrast = Contrast("a", "b", metric("test_error"))
    pairs = Pairs(contrast, 0.5, (0, 1, 2), (1.0, 1.1, 1.2), (6.0, 6.2, 6.5), 0.1)
    estimate = paired(pairs.a, pairs.b, resolution=pairs.resolution)
    (alone,) = decide_contrasts([pairs], [estimate], "holm")
    twice = decide_contrasts([pairs, pairs, pairs], [estimate, estimate, None], "holm")
    assert alone.decision == twice[0].decision == "better" and twice[2].decision == "undecided"
    assert estimate.t_p and alone.difference_p_adjusted == estimate.t_p
    assert twice[0].difference_p_adjusted == 2 * estimate.t_p
    assert twice[2].difference_p_adjusted is twice[2].p_adjusted is None


@pytest.mark.slow
def test_verdict_imports_neither_torch_nor_sqlalchemy() -> None:
    code = "import sys, leadline.analysis.verdict; print({'torch', 'sqlalchemy', 'altair'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


# --- trials that fail


def diverging(lost: Mapping[str, set[int]], values: Mapping[str, list[float]], **changes: Any) -> Findings:
    study = a_study(seeds=len(values["plain"]), **changes)
    return analyze(
        study,
        *frames(
            study, by_base(values), lambda arm, seed: "diverged" if seed in lost.get(arm.base, set()) else "finished"
        ),
    )


def test_an_arm_is_not_better_for_losing_its_hardest_seed() -> None:
    values = {"residual": [2.9, 2.9, 1.0], "plain": [3.2, 3.2, 3.1]}
    whole = found({**values, "residual": [2.9, 2.9, 2.8]})
    assert whole.contrasts[0].decision == "better"
    (contrast,) = (findings := diverging({"residual": {2}}, values)).contrasts
    assert contrast.decision == "undecided" and (contrast.failed_a, contrast.failed_b, contrast.ended) == (1, 0, 3)
    assert "residual diverged at 1 of 3 seeds; in the decision that counts as worse" in headline(findings)[0]
    # nor are two arms equivalent of which one diverged where the other did not
    close = {"residual": [2.0, 2.1, 2.0, 2.1], "plain": [2.0, 2.1, 2.1, 2.0]}
    assert found(close).contrasts[0].decision == "equivalent"
    assert diverging({"residual": {3}}, close).contrasts[0].decision == "undecided"


def test_an_arm_that_always_diverges_is_worse_by_that_alone() -> None:
    values = {"residual": [3.0] * 5, "plain": [3.0] * 5}
    findings = diverging({"plain": set(range(5))}, values)
    (contrast,) = findings.contrasts
    assert contrast.decision == "better" and contrast.by_failures and contrast.paired is None
    assert headline(findings)[0] == (
        "plain fails to train more often than residual: trials of residual failed at 0 and those of plain at 5 of 5"
        " seeds (Fisher's exact test, p = 0.0079). plain diverged at 5 of 5 seeds; in the decision that counts as worse"
        " than any error."
    )
    assert contrast.ahead and (contrast.ahead.share, contrast.ahead.low) == (1, pytest.approx(0.478, abs=0.001))
    by_level = diverging({"plain": set(range(5))}, values, vary={"blocks": [2, 5]})
    assert headline(by_level)[0] == "plain fails to train more often than residual at every level of blocks (2 and 5)."
    assert json.dumps(to_json(findings), allow_nan=False) and "fails to train" in to_text(findings)


def test_with_seeds_added_an_arm_that_always_diverges_is_decided_early_and_a_hopeless_pair_stops() -> None:
    study = a_study(decide={"max_seeds": 20})
    for lost, seeds, decision in (({"plain"}, 5, "better"), ({"plain", "residual"}, 6, "undecided")):
        taken = 3
        for _ in range(8):
            drawn = study.resolve(drawn={"plain": taken, "residual": taken})
            state = lambda arm, seed, lost=lost: "diverged" if arm.base in lost else "finished"  # noqa: E731
            findings = analyze(drawn, *frames(drawn, lambda arm, seed: 3.0, state))
            if findings.rounds[-1].looks:
                break
            taken = max(findings.rounds[-1].seeds.values())
        (contrast,) = findings.contrasts
        assert contrast.decision == decision and contrast.sequential and seeds <= contrast.sequential.seeds <= seeds + 1
    assert "neither learned" in contrast_sentence(contrast, findings)


def test_what_failures_decided_is_said_of_failures_although_values_came_later() -> None:
    errors = {"plain": [3.0] * 8 + [1.0, 1.1, 1.05], "residual": [3.0] * 8 + [3.0, 3.1, 3.0]}
    states = {"plain": ["diverged"] * 8 + ["finished"] * 3, "residual": ["finished"] * 11}
    findings = deciding(errors, states, max_seeds=20, step=11)
    (contrast,) = findings.contrasts
    assert contrast.decision == "better" and contrast.by_failures and contrast.paired and contrast.paired.difference > 0
    assert headline(findings)[0].startswith("plain fails to train more often than residual: trials of residual failed")


def test_the_p_of_fishers_test_stands_beside_the_adjusted_one() -> None:
    study = a_study(seeds=5, vary={"blocks": [2, 5, 10]})
    findings = analyze(
        study,
        *frames(
            study,
            lambda arm, seed: 3 + seed / 10 + (arm.base == "plain") * (arm.factors["blocks"] - 3 + 0.1 * (seed % 2)),
            lambda arm, seed: "diverged" if arm.name == "plain[blocks=2]" else "finished",
        ),
    )
    shown = to_json(findings)["contrasts"][0]
    assert (shown["failures_p"], shown["difference_p_adjusted"]) == pytest.approx((1 / 126, 3 / 126))
    assert "(Fisher's exact test, p = 0.0079; adjusted p = 0.024)" in shown["sentence"]


def test_trials_at_chance_are_told_beside_one_that_diverged_where_the_other_arm_has_not_ended() -> None:
    study = a_study(seeds=5)
    states = {("plain", 4): "diverged", ("residual", 4): "running"}
    data = frames(
        study,
        by_base({"plain": [90.0, 5, 5, 5, 5], "residual": [4.0] * 5}),
        lambda arm, seed: states.get((arm.base, seed), "finished"),
    )
    assert (
        "plain diverged at 1 of 5 seeds and plain stayed at chance at 1 of 4 seeds"
        in headline(analyze(study, *data))[0]
    )


def test_the_largest_decided_difference_is_called_too_large_only_if_it_is_drawn_towards_zero() -> None:
    study = a_study(seeds=4, vary={"blocks": [1, 2, 3, 4]})
    for sign in (1, -1):  # undecided ones are far larger, to the same side or to the other
        by_level = {1: [0.9, 1, 1.1, 1], 2: [30, 2, 10, 25], 3: [12, 33, 2, 20], 4: [9, 1, 30, 31]}
        findings = analyze(
            study,
            *frames(
                study,
                lambda arm, seed, sign=sign, by_level=by_level: (
                    50
                    + seed
                    + (arm.base == "plain")
                    * by_level[arm.factors["blocks"]][seed]
                    * (1 if arm.factors["blocks"] == 1 else sign)
                ),
            ),
        )
        assert [one.decision for one in findings.contrasts] == ["better", *["undecided"] * 3]
        assert "The largest decided difference" in headline(findings)[1] and "shrunk" not in headline(findings)[1]


def test_arms_that_stay_at_chance_are_said_to_have_learned_nothing() -> None:
    idle = {"plain": [90.0, 90.1, 90.0, 90.1], "residual": [90.1, 90.0, 90.1, 90.0]}
    findings = found(idle)
    (contrast,) = findings.contrasts
    assert contrast.neither_learned and contrast.decision == "undecided" and contrast.paired is None
    assert headline(findings)[0] == (
        "Undecided between residual and plain: neither learned; at all 4 seeds both trials diverged or did no better"
        " than guessing."
    )
    assert "Did no better than guessing: plain at 4 of 4 seeds and residual at 4 of 4 seeds." in headline(findings)
    # one arm alone at chance: its errors count, and so do its failures
    one = found({"plain": idle["plain"], "residual": [2.0, 2.1, 2.2, 2.1]})
    assert one.contrasts[0].decision == "better" and one.contrasts[0].at_chance_b == 4
    # of two seeds both at chance nothing is known of how often an arm fails
    two = found({"plain": [90.0, 90.1], "residual": [2.0, 2.1]})
    assert two.contrasts[0].decision == "undecided"
    assert "At each of the 2 seeds the network of residual classifies more" in headline(two)[0]


def test_arms_that_memorise_are_compared_by_their_errors() -> None:
    study = a_study(
        seeds=4, contrasts=[["residual", "plain"], {"a": "residual", "b": "plain", "metric": "train_error"}]
    )
    errors = {"plain": [92.0, 92.2, 92.1, 92.3], "residual": [91.0, 91.1, 91.2, 91.3]}
    trials, records, outputs = frames(study, by_base(errors))
    trained = records["split"].eq("final-train")
    records["value"] = records["value"].where(
        ~trained, np.where(records["arm"] == "plain", 3.0, 1.0) + records["seed"] / 10
    )
    findings = analyze(study, trials, records, outputs)
    assert [arm.at_chance for arm in findings.arms] == [0, 0]
    assert [(one.decision, one.by_failures, one.failed_b) for one in findings.contrasts] == [("better", False, 0)] * 2
    (line,) = [line for line in headline(findings) if "guessing" in line]
    assert line == (
        "Learned the training images, and did no better than guessing on the test images: plain at 4 of 4 seeds and"
        " residual at 4 of 4 seeds."
    )


def test_seeds_at_which_both_failed_are_told_and_spoil_effects_of_factors() -> None:
    study = a_study(seeds=6, vary={"blocks": [2, 5]})
    failing = {("plain", seed) for seed in range(6)} | {("residual", seed) for seed in range(3)}

    def error(arm: Arm, seed: int) -> float:
        failed = arm.factors["blocks"] == 5 and (arm.base, seed) in failing
        return 90.0 + seed / 10 if failed else 4.0 + seed % 3 / 10 + (arm.base == "plain")

    findings = analyze(study, *frames(study, error))
    shallow, deep = findings.contrasts
    assert (shallow.both_failed, deep.both_failed, deep.ended) == (0, 3, 6) and not findings.factors
    assert "at 3 of 6 seeds, at which not both failed, 4.1" in contrast_sentence(deep, findings)
    assert "not both failed" not in contrast_sentence(shallow, findings)
    assert (
        "is better than plain[blocks=5] at 75% of the seeds (both failing counted as half)" in detail_sentences(deep)[0]
    )
    assert [one for one in notes(findings) if one.startswith("Effects of factors are left out")] == [
        "Effects of factors are left out where both arms failed at some seeds, for which the others do not stand:"
        " residual against plain."
    ]


def test_few_seeds_say_what_equivalence_cannot_exclude() -> None:
    few = found({"plain": [2.2, 2.3, 2.4], "residual": [2.1, 2.4, 2.4]})
    assert (
        "The largest difference at one seed is 0.10 points; 3 seeds cannot exclude that up to 63% of seeds behave"
        " otherwise." in headline(few)[0]
    )
    draw = np.random.default_rng(0)
    many = found({arm: (2 + draw.integers(0, 5, 60) / 10).tolist() for arm in ("plain", "residual")})
    assert many.contrasts[0].decision == "equivalent" and "cannot exclude" not in headline(many)[0]


# --- what else a contrast shows


def test_details_tell_what_pairing_is_worth_and_what_images_add() -> None:
    findings = found({"plain": [5.0, 6.0, 7.0, 8.0], "residual": [4.0, 5.1, 6.0, 7.2]})
    (contrast,) = findings.contrasts
    pairing, fresh, images = detail_sentences(contrast)
    assert pairing.startswith("Over the seeds the two arms correlate by +1.00, so that 4 paired seeds are worth")
    assert fresh == (
        "residual is better than plain at 100% of the seeds, so the probability of that at a fresh seed is 40% to 100%"
        " (95% interval)."
    )
    # the same images are wrong at every seed, so other images would change more than other seeds
    assert images.endswith("of 1,000 test images, so more of them would narrow it more than more seeds would.")
    assert contrast.images and contrast.paired and contrast.paired.ci95
    assert contrast.images.low < contrast.paired.ci95[0] < contrast.paired.ci95[1] < contrast.images.high
    shown = to_json(findings)["contrasts"][0]
    assert shown["details"] == [pairing, fresh, images] and shown["images"]["images"] == IMAGES
    assert all(f"  {one}" in to_text(findings) for one in (pairing, fresh, images))


def test_seeds_that_were_added_after_a_verdict_bring_an_interval_that_holds_at_every_look() -> None:
    study = a_study(seeds=5)
    values = {"plain": [5.0, 5.2, 5.1, 5.0, 5.3], "residual": [4.2, 4.5, 4.2, 4.3, 4.4]}
    trials, records, outputs = frames(study, by_base(values))
    start = pd.Timestamp("2026-01-01", tz="UTC")
    later = trials["seed"] >= 3
    created = [start + pd.Timedelta(hours=2 if late else 0) for late in later]
    ended = [moment + pd.Timedelta(hours=1) for moment in created]
    at_once = trials.assign(created=start, ended=ended)
    assert analyze(study, at_once, records, outputs).contrasts[0].looked == ()
    findings = analyze(study, trials.assign(created=created, ended=ended), records, outputs)
    (contrast,) = findings.contrasts
    assert contrast.looked == (3,) and contrast.decision == "better" and contrast.paired and contrast.paired.t_p is None
    expected = interval_at_any_time(contrast.differences, 0.95, 0.1, 20)
    assert contrast.paired.ci95 == (expected.low, expected.high)
    assert headline(findings)[0].endswith(
        "valid at every look, 5 seeds). Seeds were added after a verdict on the first 3 could be seen, so the interval"
        " is one that holds at every look."
    )
    assert any(note.startswith("Seeds were added after a verdict on fewer could be seen.") for note in notes(findings))
    # trials that were still running when others were added had shown no verdict
    running = [moment + pd.Timedelta(hours=3) for moment in created]
    assert analyze(study, trials.assign(created=created, ended=running), records, outputs).contrasts[0].looked == ()


def added_later(study: ExpandedStudy, data: Frames, later: Callable[[str, int], bool]) -> Findings:
    """Findings where some trials were created after all others had ended."""
    trials, records, outputs = data
    start = pd.Timestamp("2026-01-01", tz="UTC")
    rows = zip(trials["base"], trials["seed"], strict=True)
    created = [start + pd.Timedelta(hours=2 * later(base, seed)) for base, seed in rows]
    ended = [moment + pd.Timedelta(hours=1) for moment in created]
    return analyze(study, trials.assign(created=created, ended=ended), records, outputs)


def test_with_seeds_added_after_a_verdict_failures_that_decide_are_said_to() -> None:
    study = a_study(seeds=10)
    data = frames(study, lambda arm, seed: 3.0, lambda arm, seed: "diverged" if arm.base == "plain" else "finished")
    findings = added_later(study, data, lambda base, seed: seed >= 3)
    (contrast,) = findings.contrasts
    assert contrast.decision == "better" and contrast.by_failures
    assert headline(findings)[0] == (
        "plain fails to train more often than residual: trials of residual failed at 0 and those of plain at 10 of 10"
        " seeds (odds that hold at every look). plain diverged at 10 of 10 seeds; in the decision that counts as worse"
        " than any error. Seeds were added after a verdict on the first 3 could be seen."
    )


def test_an_arm_that_came_with_the_added_seeds_has_an_interval_of_the_same_kind() -> None:
    arms = {name: {"network": f"comparative-{name}"} for name in ("plain", "resnet", "cnn")}
    study = a_study(seeds=5, arms=arms, contrasts=[["resnet", "plain"], ["cnn", "plain"]])
    values = {"plain": [5.0, 5.2, 5.1, 5, 5.3], "resnet": [4.2, 4.5, 4.2, 4.3, 4.4], "cnn": [4.1, 4.4, 4.2, 4.3, 4.2]}
    findings = added_later(study, frames(study, by_base(values)), lambda base, seed: base == "cnn" or seed >= 3)
    first, second = findings.contrasts
    assert first.looked == (3,) and second.looked == () and first.at_every_look and second.at_every_look
    for line in headline(findings):
        assert "valid at every look, 5 seeds)" in line and "paired t" not in line


def test_times_to_a_target_decide_nothing_where_seeds_were_added_after_a_verdict() -> None:
    study = a_study(seeds=5, contrasts=[{"a": "residual", "b": "plain", "metric": "epochs_to", "target": 20}])
    trials, records, outputs = frames(study, lambda arm, seed: 4.0)
    keys = trials[["trial", "arm", "base", "seed"]].merge(pd.DataFrame({"epoch": range(1, 5)}), how="cross")
    slow = keys["epoch"] < 2 + keys["base"].eq("plain")
    curve = keys.assign(step=keys["epoch"], split="validation", name="error", value=np.where(slow, 40.0, 4.0))
    data = trials, pd.concat([records, curve]), outputs
    assert analyze(study, *data).contrasts[0].decision == "better"
    findings = added_later(study, data, lambda base, seed: seed >= 3)
    assert headline(findings) == (
        "Undecided between residual and plain: 2.00 against 3.00 epochs to 20% validation error, a difference of −1.00"
        " epochs; since no interval for such times holds at every look, nothing is decided. Seeds were added after a"
        " verdict on the first 3 could be seen.",
    )
    assert json.dumps(to_json(findings), allow_nan=False) and "epochs to 20%" in to_text(findings)


def test_arms_that_are_equal_everywhere_say_nothing_of_other_images_and_count_ties_as_half() -> None:
    findings = found({"plain": [2.0, 2.1, 2.2], "residual": [2.0, 2.1, 2.2]})
    (contrast,) = findings.contrasts
    assert contrast.decision == "equivalent" and contrast.images is None
    assert detail_sentences(contrast) == (
        "residual is better than plain at 50% of the seeds (a tie counted as half), so the probability of that at a"
        " fresh seed is 4% to 96% (95% interval).",
    )


# --- seeds that are added until contrasts are decided


def deciding(
    values: Mapping[str, list[float]], states: Mapping[str, list[str]] | None = None, **decide: Any
) -> Findings:
    study = a_study(decide={"max_seeds": 8, "step": 1, **decide})
    drawn = {base: len(errors) for base, errors in values.items()}
    state = (lambda arm, seed: states[arm.base][seed]) if states else (lambda arm, seed: "finished")
    return analyze(study, *frames(study.resolve(drawn=drawn), by_base(values), state))


DIFFERENT = [-2.0, -1.2, -2.4, -1.6, -2.1]


def test_intervals_of_a_study_that_decides_hold_at_every_look() -> None:
    plain = [20.0, 20.5, 21.0, 20.2, 20.8]
    residual = [one + other for one, other in zip(plain, DIFFERENT, strict=True)]
    (contrast,) = deciding({"plain": plain, "residual": residual}).contrasts
    # the step is one of the 1,000 test images; error shared out over 8 seeds; looks at 3, 4 and 5
    expected = interval_at_any_time(contrast.differences, 0.95, 0.1, 8)
    assert contrast.differences == pytest.approx(DIFFERENT) and contrast.resolution == 0.1
    assert contrast.paired and contrast.paired.ci95 == (expected.low, expected.high)
    assert contrast.sequential and (contrast.sequential.low, contrast.sequential.high) == contrast.paired.ci95
    assert (contrast.sequential.planned, contrast.sequential.seeds, contrast.sequential.most) == (8, 5, 8)
    assert contrast.decision == "better" and contrast.paired.difference == pytest.approx(-1.86)
    fixed = found({"plain": plain, "residual": residual}).contrasts[0].paired
    assert fixed and fixed.ci95 and contrast.paired.ci95[0] < fixed.ci95[0] < fixed.ci95[1] < contrast.paired.ci95[1]
    # p-values hold at one look
    assert [contrast.paired.t_p, contrast.paired.p, contrast.paired.bca95] == [None] * 3


def test_words_of_a_study_that_decides() -> None:
    plain = [20.0, 20.5, 21.0, 20.2, 20.8]
    findings = deciding({"plain": plain, "residual": [one + d for one, d in zip(plain, DIFFERENT, strict=True)]})
    assert headline(findings) == (
        "residual has a lower test error than plain: 18.64% against 20.50%, a difference of −1.86 points (95% interval"
        " −2.84 to −0.88, valid at every look, 5 of at most 8 seeds, 2 looks; −1.85 points adjusted for stopping"
        " then).",
    )
    text = "\n".join(notes(findings))
    for part in ("Jennison & Turnbull 1989", "Lan & DeMets 1983", "skewed differences", "no p-values", "over 8 seeds"):
        assert part in text
    assert "paired-t" not in text and "permutation" not in text
    undecided = deciding({"plain": [5.0, 6.0, 7.0], "residual": [4.0, 4.0, 4.0]})
    assert contrast_sentence(undecided.contrasts[0], undecided).endswith(
        "1 look); seeds are added until it is decided, up to 8."
    )
    assert round_line(undecided, undecided.rounds[0]).startswith(
        "round 1: 3 seeds, 3 in all; undecided: residual against"
    )
    used = deciding({"plain": [5.0, 6.0, 7.0], "residual": [4.0, 4.0, 4.0]}, max_seeds=3)
    assert contrast_sentence(used.contrasts[0], used).endswith("all 3 seeds are used.")
    assert "Undecided after 3 seeds means that more would be needed, not that the arms are equal." in notes(used)
    assert decided_line(used) == "Of at most 3 seeds, undecided: residual against plain (3 seeds)."
    assert "(95% interval" not in headline(deciding({"plain": [5.0], "residual": [4.0]}))[0]


def test_only_seeds_before_the_first_gap_are_looked_at() -> None:
    errors = {"plain": [20.0, 20.5, 21.0, 20.2, 20.8], "residual": [4.0, 4.1, 4.2, 4.3, 0.1]}
    states = {"plain": ["finished", "diverged", "finished", "finished", "finished"], "residual": ["finished"] * 5}
    findings = deciding(errors, states)
    whole = findings.contrasts[0]
    assert whole.seeds == (0, 2, 3, 4) and whole.sequential and whole.sequential.seeds == 5 and whole.diverged_b == 1
    assert "4 pairs at 5 of at most 8 seeds" in contrast_sentence(whole, findings)
    for state in ("waiting", "running", "failed"):
        gap = deciding(errors, {**states, "residual": ["finished"] * 3 + [state, "finished"]}).contrasts[0]
        assert gap.seeds == (0, 2) and gap.sequential and gap.sequential.seeds == 3
        assert [test.seed for test in gap.mcnemar] == [0, 2] and len(gap.values_a) == 2
    none = deciding(errors, {**states, "plain": ["diverged"] * 5})
    assert none.contrasts[0].paired is None and none.contrasts[0].decision == "better"  # by its failures
    fewer = {base: own[:4] for base, own in errors.items()}
    open_ = deciding(fewer, {"plain": ["diverged"] * 4, "residual": ["finished"] * 4})
    assert open_.contrasts[0].decision == "undecided" and open_.rounds[-1].seeds == {"plain": 5, "residual": 5}


def test_all_contrasts_hold_together_at_another_confidence() -> None:
    study = a_study(vary={"blocks": [2, 5]}, decide={"max_seeds": 6, "confidence": 0.9})
    study = study.resolve(drawn=dict.fromkeys((arm.name for arm in study.arms), 4))
    findings = analyze(study, *frames(study, lambda arm, seed: 20 + (arm.base == "plain") * (2 + seed % 2 / 2) + seed))
    for contrast in findings.contrasts:
        assert (
            contrast.sequential
            and contrast.sequential.of_each == pytest.approx(0.95)
            and contrast.sequential.contrasts == 2
        )
        expected = interval_at_any_time(contrast.differences, 0.95, 0.1, 6)
        assert (contrast.sequential.low, contrast.sequential.high) == (expected.low, expected.high)
        assert "(90% interval" in contrast_sentence(contrast, findings)
    assert any("for all 2 contrasts together, each at 95% (Bonferroni)" in note for note in notes(findings))
    shown = to_json(findings)["contrasts"][0]
    assert shown["ci95"] is None and shown["looks"]["confidence"] == 0.9 and shown["looks"]["low"] is not None


def test_an_interval_without_ends_is_none_in_json() -> None:
    findings = deciding({"plain": [5.0], "residual": [4.0]})
    shown = to_json(findings)["contrasts"][0]
    assert shown["looks"]["low"] is shown["looks"]["high"] is shown["ci95"] is None
    assert json.dumps(to_json(findings), allow_nan=False)


@pytest.mark.parametrize(
    ("metric", "data", "step"),
    [
        ("test_error", {"name": "mnist"}, 0.01),
        ("test_error", {"name": "mnist", "test": 500}, 0.2),
        ("validation_error", {"name": "mnist"}, 0.02),
        ("validation_error", {"name": "digits", "validation": 40}, 2.5),
        ("train_error", {"name": "mnist", "train": 1000}, 0.1),
        ("train_error", {"name": "mnist"}, 100 / 55_000),
        ("test_loss", {"name": "mnist"}, 0.0),
    ],
)
def test_the_step_is_one_image_known_beforehand(metric: str, data: dict[str, Any], step: float) -> None:
    study = a_study(decide={"metric": metric}, data=data)
    trials, records, _ = frames(study, lambda arm, seed: 5.0 + 0.001 * seed * (arm.base == "plain"))
    loss = records[records["split"] == "final-test"].assign(name="loss")
    findings = analyze(study, trials, pd.concat([records, loss]), {})
    assert findings.contrasts[0].metric == metric and findings.contrasts[0].resolution == pytest.approx(step)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(errors, states), min_size=10, max_size=10))
def test_any_outcome_of_a_study_that_decides_gives_plain_json_and_text(outcomes: list[tuple[float, str]]) -> None:
    study = a_study(decide={"max_seeds": 5})
    study = study.resolve(drawn={"plain": 5, "residual": 5})
    at = {(arm.name, trial.seed): outcomes[place] for place, (arm, trial) in enumerate(study.trials())}
    findings = analyze(
        study, *frames(study, lambda arm, seed: at[arm.name, seed][0], lambda arm, seed: at[arm.name, seed][1])
    )
    text = to_text(findings) + json.dumps(to_json(findings), allow_nan=False) + decided_line(findings)
    assert "nan" not in text.lower() and "inf" not in text.lower() and "None" not in to_text(findings)
    for line in (
        *headline(findings),
        *notes(findings),
        *(contrast_sentence(contrast, findings) for contrast in findings.contrasts),
    ):
        assert line.endswith(".") and "\n" not in line and "  " not in line
    for one in findings.rounds:
        assert not one.looks or round_line(findings, one).startswith(f"round {one.number}: ")
