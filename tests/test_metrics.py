"""Metrics beyond the final error: oracles by hand, exact counts, and simulation of what censoring does."""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leadline.analysis.stats import (
    StatisticsError,
    benjamini_hochberg,
    benjamini_hochberg_both,
    holm,
    holm_both,
    t_interval,
)
from leadline.analysis.verdict import (
    Findings,
    analyze,
    contrast_sentence,
    headline,
    meta_sentence,
    notes,
    to_json,
    to_text,
)
from leadline.analysis.verdict.values import Waited, curves, final_values, step_of_clock, to_target, waited
from leadline.analysis.verdict.wording.effect_tables import targets_table
from leadline.analysis.verdict.wording.tables import arms_table, contrasts_table
from leadline.errors import SpecError
from leadline.parts.metrics import Curve, metric
from leadline.parts.metrics.learning_curve_area import area
from leadline.reports.charts.forest import forest
from leadline.specs import parse
from leadline.specs.study import StudySpec
from leadline.study.expand import ExpandedStudy, expand
from leadline.text.tables import to_csv

ARMS = {"plain": {"network": "comparative-plain"}, "residual": {"network": "comparative-resnet"}}
Curves = Mapping[str, Sequence[Sequence[float]]]  # arm -> seed -> validation error by epoch


def a_study(metric: str = "epochs_to", target: float | None = 10.0, **changes: Any) -> ExpandedStudy:
    contrast = {"a": "residual", "b": "plain", "metric": metric} | ({} if target is None else {"target": target})
    margin = {"margin": changes.pop("of_contrast")} if "of_contrast" in changes else {}
    return expand(parse(StudySpec, {"name": "toy", "arms": ARMS, "contrasts": [contrast | margin], **changes}))


def verdict(
    study: ExpandedStudy,
    errors: Curves,
    state: Callable[[str, int], str] = lambda arm, seed: "finished",
    seconds: Callable[[str, int], float] = lambda arm, seed: 1.0,
) -> Findings:
    """Trials with these validation errors, a test error of a half and a test loss of a hundredth of the last."""
    trials, records = [], []
    for arm, trial in study.trials():
        base = {"trial": trial.content_hash, "arm": arm.name, "base": arm.base, "seed": trial.seed}
        curve = errors[arm.name][trial.seed]
        status = state(arm.name, trial.seed)
        trials.append({**base, "factors": dict(arm.factors), "state": status, "seconds": 9.0})
        rows = [("validation", "error", epoch, value) for epoch, value in enumerate(curve, 1)]
        rows += [("time", "seconds", epoch, seconds(arm.name, trial.seed)) for epoch in range(1, len(curve) + 1)]
        if status == "finished":
            rows += [
                ("final-test", "error", len(curve), curve[-1] / 2),
                ("final-test", "loss", len(curve), curve[-1] / 100),
            ]
        records += [
            {**base, "split": split, "name": name, "epoch": e, "step": e, "value": v} for split, name, e, v in rows
        ]
    return analyze(study, pd.DataFrame(trials), pd.DataFrame(records), {})


# --- one value per trial


def test_area_is_the_mean_by_the_trapezoid_rule() -> None:
    epochs = np.arange(1.0, 5.0)
    # (80/2 + 40 + 20 + 10/2) / 3
    assert area(Curve(epochs, np.array([80.0, 40, 20, 10]), epochs)) == pytest.approx(35)
    assert area(Curve(epochs, np.full(4, 7.0), epochs)) == 7
    assert area(Curve(epochs[:1], np.array([7.0]), epochs[:1])) == 7
    assert area(Curve(epochs, np.array([80, math.nan, 20, 10]), epochs)) is None


def test_curves_from_records_whatever_their_order_and_number() -> None:
    rows = [
        {"trial": trial, "epoch": epoch, "split": split, "name": name, "value": value}
        for trial in ("x", "y")
        for epoch, error in ((1, 50.0), (2, 30.0), (3, math.inf))
        for split, name, value in (("validation", "error", error), ("time", "seconds", 2.0), ("train", "error", 1.0))
    ]
    # a trial in two arms has its records twice; one epoch's time of y is missing
    frame = pd.DataFrame([*rows, *rows[:9]]).sample(frac=1, random_state=0)
    frame = frame[~((frame["trial"] == "y") & (frame["epoch"] == 2) & (frame["split"] == "time"))]
    found = curves(frame)
    assert found["x"].errors.tolist() == [50, 30, math.inf] and found["x"].seconds.tolist() == [2, 4, 6]
    assert found["y"].seconds[0] == 2 and np.isnan(found["y"].seconds[1:]).all()
    assert curves(frame.iloc[:0]) == {}


def test_final_values_take_split_and_name() -> None:
    splits = [("final-test", "error"), ("final-test", "loss"), ("final-train", "error"), ("test", "error")]
    frame = pd.DataFrame([{"trial": "x", "split": s, "name": n, "value": v} for v, (s, n) in enumerate(splits)])
    found = {name: values for name, values in final_values(frame).items() if values}
    assert found == {
        "test_error": {"x": 0}, "test_loss": {"x": 1}, "train_error": {"x": 2}
    }  # fmt: skip


@pytest.mark.parametrize(
    ("errors", "diverged", "expected"),
    [
        ([50, 10, 20], False, Waited(2, True, False, 3, 3)),
        ([50, 20, 11], False, Waited(3, False, False, 3, 3)),
        ([50, math.nan], True, Waited(2, False, True, 2, 2)),
        ([9, math.nan], True, Waited(1, True, True, 2, 2)),
        # 100 * (1 - 0.9) is 9.999999999999998, and of 95% it is 5.000000000000004
        ([100 * (1 - 0.9)], False, Waited(1, True, False, 1, 1)),
        ([math.nan, math.nan], False, None),
    ],
)
def test_epochs_to_a_target(errors: list[float], diverged: bool, expected: Waited | None) -> None:
    epochs = np.arange(1.0, len(errors) + 1)
    assert waited(Curve(epochs, np.array(errors, dtype=float), epochs), metric("epochs_to"), 10, diverged) == expected


def test_an_error_that_only_rounding_lifts_above_the_target_reaches_it() -> None:
    error = 100 * (1 - 0.95)
    assert error > 5
    one = np.array([1.0])
    assert waited(Curve(one, np.array([error]), one), metric("epochs_to"), 5, False) == Waited(1, True, False, 1, 1)


def test_no_epoch_is_known_of_a_trial_that_diverged_at_once() -> None:
    assert waited(None, metric("epochs_to"), 10, True) == Waited(0, False, True, 0, 0)
    assert waited(None, metric("epochs_to"), 10, False) is None


# --- pairs of times


def some(time: float, reached: bool = True, diverged: bool = False, whole: float = 20) -> Waited:
    return Waited(time, reached, diverged, whole, 20)


def test_times_are_compared_up_to_the_horizon() -> None:
    a, b = [some(3), some(5)], [some(20, reached=False), some(12)]
    found = to_target(10, a, b)
    assert found is not None
    reach, times_a, times_b = found
    assert (times_a, times_b) == ((3, 5), (20, 12))
    assert (reach.horizon, reach.reached_a, reach.reached_b) == (20, 2, 1)
    # half of two have reached it at the first of two times
    assert (reach.median_a, reach.median_b) == (3, 12)
    assert (reach.earlier.a_first, reach.earlier.b_first, reach.earlier.p) == (2, 0, 0.5)


def test_a_trial_watched_for_less_draws_the_horizon_in_and_a_diverged_one_does_not() -> None:
    slow = to_target(10, [some(3), some(9)], [some(8, reached=False, whole=8), some(7)])
    assert slow is not None and slow[0].horizon == 8 and slow[1:] == ((3, 8), (8, 7)) and slow[0].reached_a == 1
    lost = to_target(10, [some(3), some(9)], [some(2, reached=False, diverged=True, whole=2), some(7)])
    assert lost is not None and lost[0].horizon == 20 and lost[1:] == ((3, 9), (20, 7))
    assert lost[0].earlier.a_first == 1 and lost[0].median_b == 7
    # one that diverged after it had reached the target had reached it
    late = to_target(10, [some(3), some(9)], [some(2, diverged=True, whole=4), some(7)])
    assert late is not None and late[1:] == ((3, 9), (2, 7)) and late[0].reached_b == 2


@pytest.mark.parametrize("factor", ["blocks", "data.name"])
def test_times_with_other_horizons_are_not_added_up(factor: str) -> None:
    levels = {"blocks": [2, 4], "data.name": ["digits", "mnist"]}[factor]
    study = a_study("seconds_to", vary={factor: levels})
    curve = {arm.name: [SOON if arm.base == "residual" else NEVER] * 3 for arm in study.arms}
    alike = verdict(study, curve)
    assert alike.meta_analyses if factor == "data.name" else alike.factors
    slow = verdict(study, curve, seconds=lambda arm, seed: 2.0 if str(levels[1]) in arm else 1.0)
    assert {contrast.reach.horizon for contrast in slow.contrasts if contrast.reach} == {6, 12}
    assert slow.meta_analyses == () and slow.factors == ()


def test_no_pair_and_nothing_but_trials_that_diverged_at_once() -> None:
    gone = Waited(0, False, True, 0, 0)
    assert to_target(10, [], []) is None and to_target(10, [gone], [gone]) is None


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(*[st.integers(1, 9)] * 2, *[st.sampled_from(["reached", "not", "diverged"])] * 2), min_size=1)
)
def test_restricted_times_are_those_of_complete_data(pairs: list[tuple[int, int, str, str]]) -> None:
    """What is compared is min(time, horizon) of the times that unlimited training would have shown."""

    def one(time: int, how: str) -> Waited:
        watched = {"reached": time, "not": 9, "diverged": min(time, 9)}[how]
        return Waited(watched, how == "reached", how == "diverged", watched if how == "diverged" else 9, 9)

    a, b = [one(t, how) for t, _, how, _ in pairs], [one(t, how) for _, t, _, how in pairs]
    found = to_target(10, a, b)
    assert found is not None
    horizon = found[0].horizon
    for known, side in zip(found[1:], (a, b), strict=True):
        assert list(known) == [min(w.time, horizon) if w.reached else horizon for w in side]
    assert found[0].earlier.a_first + found[0].earlier.b_first + found[0].earlier.open == len(pairs)


def test_step_of_a_clock() -> None:
    assert step_of_clock([some(3), some(7)]) == 1
    assert step_of_clock([Waited(3, True, False, 30, 10), Waited(3, True, False, 10, 10)]) == 2
    assert step_of_clock([Waited(0, False, True, 0, 0)]) == 0


def test_restricted_means_of_few_pairs_find_no_difference_that_is_none() -> None:
    """Paired t on censored times keeps its level; leaving censored trials out finds an arm better that is worse."""
    draw = np.random.default_rng(0)
    horizon, studies = 20, 20_000
    for seeds in (3, 5, 10):
        easy = draw.normal(0, 0.4, (studies, seeds))  # what two arms of a seed share
        times = np.ceil(12 * np.exp(easy[..., None] + draw.normal(0, 0.5, (studies, seeds, 2))))
        known = np.minimum(times, horizon)
        low, high = t_interval(known[..., 0] - known[..., 1], resolution=1.0)
        assert ((low > 0) | (high < 0)).mean() <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / studies)
    # half of one arm's trials are lost, the others a little faster
    lost = np.where(draw.random(times.shape[:2]) < 0.5, np.inf, 0.9 * times[..., 1])
    assert lost[lost <= horizon].mean() < times[..., 0][times[..., 0] <= horizon].mean()
    assert (np.minimum(lost, horizon) - known[..., 0]).mean() > 1


# --- from records to a verdict

SOON, LATE, NEVER = [30.0, 9, 8, 7, 6, 5], [50.0, 40, 30, 20, 9, 8], [50.0, 45, 40, 35, 30, 25]


def test_epochs_to_a_target_with_one_that_never_reaches_it() -> None:
    findings = verdict(a_study(of_contrast=1.0), {"plain": [LATE, NEVER, LATE], "residual": [SOON, SOON, SOON]})
    (contrast,) = findings.contrasts
    assert contrast.values_a == (2, 2, 2) and contrast.values_b == (5, 6, 5) and contrast.decision == "better"
    assert contrast.reach and (contrast.reach.reached_a, contrast.reach.reached_b, contrast.reach.horizon) == (3, 2, 6)
    assert contrast.margin == 1 and contrast.target == 10 and contrast.resolution == 1
    assert contrast_sentence(contrast, findings) == (
        "residual needs fewer epochs to 10% validation error than plain: 2.0 against 5.3, a difference of −3.3 epochs"
        " (95% interval −4.8 to −1.9, paired t, 3 seeds). Within 6 epochs residual reached the target at 3 of 3 seeds"
        " and plain at 2; a trial that did not reach it counts as 6 epochs."
    )
    text, plain = to_text(findings), to_json(findings)
    assert re.search(r"\(epochs to 10%\) +10 +3 +6 epochs +3, 2 +2, 5 +2, 5.333 +3, 0 \(0 open\) +0.25", text)
    assert plain["contrasts"][0]["reach"]["earlier"]["p"] == 0.25 and plain["contrasts"][0]["target"] == 10
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    (row,) = targets_table(findings).rows
    assert (row["mean_a"], row["mean_b"], row["median_b"]) == (2, pytest.approx(16 / 3), 5)
    assert forest(findings).panels[0].title == "" and "← residual better" in json.dumps(
        forest(findings).chart().to_dict(validate=False), ensure_ascii=False
    )


def test_diverged_trials_are_in_pairs_as_trials_that_never_arrive() -> None:
    states = {("plain", 0): "diverged", ("plain", 2): "failed"}
    findings = verdict(
        a_study(),
        {"plain": [[50.0, math.nan], LATE, SOON], "residual": [SOON] * 3},
        lambda arm, seed: states.get((arm, seed), "finished"),
    )
    (contrast,) = findings.contrasts
    assert contrast.seeds == (0, 1) and contrast.values_b == (6, 5)
    assert "a diverged trial never reaches the target" in contrast_sentence(contrast, findings)
    assert findings.contrasts[0].margin == 0 and any("never equivalent" in note for note in notes(findings))


def test_where_nobody_arrives_nothing_is_decided() -> None:
    findings = verdict(a_study(of_contrast=3.0), {"plain": [NEVER] * 3, "residual": [NEVER] * 3})
    assert findings.contrasts[0].decision == "undecided"
    assert headline(findings) == (
        "Undecided between residual and plain: neither reached 10% validation error within 6 epochs at any of 3 seeds.",
    )


def test_metrics_on_the_images_by_which_tuning_chose_are_told() -> None:
    study = a_study(tune={"learning_rate": {"log": [0.001, 0.1]}})
    said = notes(verdict(study, {"plain": [LATE] * 3, "residual": [SOON] * 3}))
    assert any("use the images on which tuning chose" in note for note in said)


@pytest.mark.parametrize("factor", ["blocks", "data.name"])
def test_where_nobody_arrives_nothing_is_said_of_levels_and_data_sets(factor: str) -> None:
    levels = {"blocks": [2, 4], "data.name": ["digits", "mnist"]}[factor]
    study = a_study(of_contrast=3.0, vary={factor: levels})
    findings = verdict(study, {arm.name: [NEVER] * 3 for arm in study.arms})
    assert {contrast.decision for contrast in findings.contrasts} == {"undecided"} and findings.factors == ()
    assert all(one.summary is None and one.decision == "undecided" for one in findings.meta_analyses)
    if factor == "data.name":
        assert meta_sentence(findings.meta_analyses[0]) == (
            "Over 2 data sets residual and plain have no pair in which one reached the target."
        )
        # one data set on which they arrive is not a sample of several
        digits = {arm.name: [SOON if "digits" in arm.name else NEVER] * 3 for arm in study.arms}
        assert "fewer than two data sets have two pairs" in meta_sentence(verdict(study, digits).meta_analyses[0])


def test_seconds_are_summed_over_epochs_and_compared_within_the_time_that_all_had() -> None:
    findings = verdict(
        a_study("seconds_to"),
        {"plain": [NEVER] * 3, "residual": [LATE] * 3},
        seconds=lambda arm, seed: {"plain": 2.0, "residual": 1.0 + seed / 10}[arm],
    )
    (contrast,) = findings.contrasts
    # reached at the end of the fifth epoch; plain was watched for 12 seconds
    assert contrast.values_a == pytest.approx((5, 5.5, 6)) and contrast.values_b == (12, 12, 12)
    assert contrast.resolution == pytest.approx((2 * 3 + 1 + 1.1 + 1.2) / 6) and contrast.decision == "better"
    assert "seconds of training to 10% validation error" in contrast_sentence(contrast, findings)


def test_learning_curve_area_and_test_loss() -> None:
    errors = {"plain": [LATE] * 3, "residual": [SOON, SOON, LATE]}
    areas = verdict(a_study("learning_curve_area", None), errors)
    late, soon = (25 + 40 + 30 + 20 + 9 + 4) / 5, (15 + 9 + 8 + 7 + 6 + 2.5) / 5
    assert (
        areas.contrasts[0].differences == pytest.approx((soon - late, soon - late, 0))
        and areas.contrasts[0].margin == 0.5
    )
    assert areas.arms[0].metrics["learning_curve_area"].mean == pytest.approx(late)
    assert "learning_curve_area_mean" in to_csv(arms_table(areas)).splitlines()[0]
    losses = verdict(a_study("test_loss", None), errors)
    assert losses.contrasts[0].values_a == (0.05, 0.05, 0.08) and losses.contrasts[0].margin == 0
    assert "nats test loss, a difference of" in contrast_sentence(losses.contrasts[0], losses)
    assert contrasts_table(losses).columns[3].title == "Difference, nats"
    # what was not asked for is not there
    assert set(losses.arms[0].metrics) == {"test_error", "test_loss"}


def test_contrasts_of_several_units_have_a_panel_and_a_line_each() -> None:
    contrasts = [
        {"a": "residual", "b": "plain"},
        {"a": "residual", "b": "plain", "metric": "epochs_to", "target": 10},
        {"a": "residual", "b": "plain", "metric": "epochs_to", "target": 30},
        {"a": "residual", "b": "plain", "metric": "test_loss"},
    ]
    study = expand(parse(StudySpec, {"name": "toy", "arms": ARMS, "contrasts": contrasts}))
    findings = verdict(study, {"plain": [LATE, NEVER, LATE], "residual": [SOON, SOON, LATE]})
    assert [contrast.target for contrast in findings.contrasts] == [None, 10, 30, None]
    figure = forest(findings)
    assert [panel.title for panel in figure.panels] == ["Percentage points", "Epochs", "Nats"]
    assert figure.data["label"].tolist()[1:] == [
        "residual − plain (epochs to 10%)", "residual − plain (epochs to 30%)", "residual − plain (test loss)"
    ]  # fmt: skip
    assert contrasts_table(findings).rows[1]["unit"] == "epochs"


# --- specifications


@pytest.mark.parametrize(
    ("contrast", "problem"),
    [
        ({"metric": "epochs_to"}, "metric epochs_to needs a target, a validation error in per cent such as target: 10"),
        ({"target": 10}, "target 10 needs a metric that is a time to a target, such as epochs_to; got test_error"),
        ({"metric": "epochs_to", "target": 100}, "target: 100: input should be less than 100"),
        ({"metric": "epochs_to", "target": -1}, "target: -1: input should be greater than or equal to 0"),
        ({"metric": "speed"}, "'speed'"),
        ({"margin": 0}, "margin: 0: input should be greater than 0"),
    ],
)
def test_impossible_contrasts(contrast: dict[str, Any], problem: str) -> None:
    content = {"name": "toy", "arms": ARMS, "contrasts": [{"a": "residual", "b": "plain", **contrast}]}
    with pytest.raises(SpecError, match=r"contrasts\.0") as error:
        parse(StudySpec, content)
    assert problem in str(error.value) and "\n" not in str(error.value)


def test_areas_of_trainings_of_different_length_are_not_compared() -> None:
    arms = {**ARMS, "residual": {**ARMS["residual"], "training": {"epochs": 20}}}
    with pytest.raises(SpecError, match="trained for 20 and 10 epochs, but a mean over epochs needs equal numbers"):
        a_study("learning_curve_area", None, arms=arms)
    assert a_study(arms=arms).contrasts[0].metric == "epochs_to"


def test_a_contrast_keeps_target_and_margin_at_every_level_and_in_json() -> None:
    study = a_study(vary={"blocks": [1, 2]}, of_contrast=2.0)
    assert [(c.a, c.target, c.margin) for c in study.contrasts] == [
        ("residual[blocks=1]", 10, 2), ("residual[blocks=2]", 10, 2)
    ]  # fmt: skip
    again = parse(StudySpec, study.spec.model_dump(mode="json"))
    assert again == study.spec and again.content_hash == study.spec.content_hash
    # contrasts that ask for nothing new are written as ever
    plain = parse(StudySpec, {"name": "toy", "arms": ARMS, "contrasts": [["residual", "plain"]]})
    assert plain.model_dump(mode="json")["contrasts"] == [{"a": "residual", "b": "plain", "metric": "test_error"}]


# --- corrections

p_values = st.lists(st.one_of(st.none(), st.floats(0, 1)), max_size=12)


def test_benjamini_and_hochbergs_own_example() -> None:
    """Benjamini & Hochberg (1995), section 3.2: of 15 p-values Bonferroni's procedure rejects 3 and theirs 4."""
    p = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459]
    p += [0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0000]
    assert (benjamini_hochberg(p) <= 0.05).sum() == 4 and (holm(p) <= 0.05).sum() == 3


@given(p_values, st.floats(0.001, 0.999))
def test_benjamini_hochberg_is_the_step_up_procedure_and_never_above_holm(p: list[float | None], level: float) -> None:
    adjusted, strict = benjamini_hochberg(p), holm(p)
    given_ = sorted(value for value in p if value is not None)
    largest = max((k for k, value in enumerate(given_, 1) if value <= level * k / len(given_)), default=0)
    cut = given_[largest - 1] if largest else -1.0
    for value, found, holms in zip(p, adjusted, strict, strict=True):
        assert math.isnan(found) == (value is None)
        if value is not None:
            assert value - 1e-12 <= found <= holms + 1e-12
            # a p-value within rounding of the level may fall on either side
            assert (found <= level) == (value <= cut) or abs(found - level) < 1e-12


def test_benjamini_hochberg_keeps_the_false_discovery_rate() -> None:
    draw = np.random.default_rng(0)
    shares = []
    for _ in range(2000):
        z = draw.normal(size=10) + np.array([3.0] * 4 + [0.0] * 6)
        found = benjamini_hochberg(list(np.array([math.erfc(abs(value) / math.sqrt(2)) for value in z]))) <= 0.05
        shares.append(found[4:].sum() / max(1, found.sum()))
    # exactly 0.05 * 6/10 for independent tests
    assert abs(np.mean(shares) - 0.03) < 4 * np.std(shares) / math.sqrt(len(shares))


def test_impossible_p_values() -> None:
    with pytest.raises(StatisticsError, match=r"p-value 1.5 at position 1 is not between 0 and 1"):
        benjamini_hochberg([0.1, 1.5])
    assert benjamini_hochberg([]).size == 0


def test_the_correction_of_a_study_is_used_and_named() -> None:
    errors = {f"{base}[blocks={n}]": [[v] for v in values] for base, n, values in [
        ("plain", 1, [20, 22, 24.6]), ("plain", 2, [20, 23, 24]), ("plain", 3, [12, 13, 15]),
        *(("residual", n, [10, 11, 12]) for n in (1, 2, 3)),
    ]}  # fmt: skip
    found = {
        correction: verdict(a_study("test_error", None, vary={"blocks": [1, 2, 3]}, correction=correction), errors)
        for correction in ("holm", "benjamini-hochberg")
    }
    for correction, adjust in (("holm", holm_both), ("benjamini-hochberg", benjamini_hochberg_both)):
        findings = found[correction]
        judged = [one.judgement for one in findings.contrasts]
        raw = [[one.test.p or math.nan for one in judged], [one.equivalence_p or math.nan for one in judged]]
        both = [[one.difference_p_adjusted, one.equivalence_p_adjusted] for one in judged]
        assert np.transpose(adjust(*raw)) == pytest.approx(np.array(both))
        assert to_json(findings)["correction"] == correction
    text = to_text(found["benjamini-hochberg"])
    assert "Benjamini-Hochberg-adjusted: 0." in text and "Holm" not in text
    table = contrasts_table(found["benjamini-hochberg"])
    assert [column.title for column in table.columns].count("Benjamini-Hochberg-adjusted") == 2
    with pytest.raises(SpecError, match="correction"):
        a_study(correction="bonferroni")
