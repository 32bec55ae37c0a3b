"""Factors and data sets: oracles by hand, by least squares, by published examples, and by simulation of coverage."""

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from leadline.analysis.stats import StatisticsError, holm, paired
from leadline.analysis.stats.factorial import (
    PRIOR,
    between_variance,
    mean_weights,
    over_data_sets,
    prediction_interval,
    shrink_to_mean,
    slope_weights,
    step_weights,
    within_seeds,
)
from leadline.analysis.verdict import (
    Findings,
    analyze,
    effect_sentence,
    headline,
    meta_sentence,
    notes,
    to_json,
    to_text,
)
from leadline.analysis.verdict.wording.effect_tables import data_sets_table, effect_tables, factors_table
from leadline.analysis.verdict.wording.sentences import effect_change
from leadline.specs import parse
from leadline.specs.study import StudySpec
from leadline.study.expand import Arm, ExpandedStudy, expand
from leadline.study.match import match
from leadline.text.tables import to_csv, to_latex, to_markdown

ARMS = {"plain": {"network": "comparative-plain"}, "residual": {"network": "comparative-resnet"}}


def a_study(**changes: Any) -> ExpandedStudy:
    content = {"name": "toy", "arms": ARMS, "contrasts": [["residual", "plain"]], "seeds": 3, **changes}
    return expand(parse(StudySpec, content))


def verdict(
    study: ExpandedStudy,
    error: Callable[[Arm, int], float],
    state: Callable[[Arm, int], str] = lambda arm, seed: "finished",
) -> Findings:
    trials, records = [], []
    for arm, trial in study.trials():
        base = {"trial": trial.content_hash, "arm": arm.name, "base": arm.base, "seed": trial.seed}
        trials.append({**base, "factors": dict(arm.factors), "state": state(arm, trial.seed), "seconds": 9.0})
        row = {"split": "final-test", "name": "error", "epoch": 1, "step": 1, "value": error(arm, trial.seed)}
        records.append({**base, **row})
    return analyze(study, pd.DataFrame(trials), pd.DataFrame(records), {})


# --- effects within seeds


def test_weights_by_hand() -> None:
    assert mean_weights(4).tolist() == [0.25] * 4
    assert step_weights(3, 1, 2).tolist() == [0, -1, 1]
    # (x - mean) / sum of squares: -2, 0, 2 over 8
    assert slope_weights([1, 3, 5]).tolist() == [-0.25, 0, 0.25]


@given(st.lists(st.integers(-50, 50), min_size=2, max_size=6, unique=True), st.integers(0, 99))
def test_slope_is_least_squares(positions: list[int], seed: int) -> None:
    y = np.random.default_rng(seed).normal(size=len(positions))
    assert slope_weights(positions) @ y == pytest.approx(np.polyfit(positions, y, 1)[0], abs=1e-9)


def test_interaction_is_the_paired_difference_of_differences() -> None:
    values = np.random.default_rng(0).normal(size=(5, 3))
    found, by_hand = within_seeds(values, step_weights(3, 0, 2)), paired(values[:, 2], values[:, 0])
    assert found.ci95 == pytest.approx(by_hand.ci95) and found.t_p == pytest.approx(by_hand.t_p)
    assert found.p == by_hand.p and within_seeds(np.eye(21, 3), step_weights(3, 0, 2)).p is None


def test_interaction_agrees_with_the_balanced_analysis_of_variance() -> None:
    """F of seed x level in a two-level repeated-measures design is the square of the paired t."""
    draw = np.random.default_rng(1)
    y = draw.normal(size=(6, 2, 2)) + draw.normal(size=(6, 1, 1))  # seeds, arms, levels
    found = within_seeds(y[:, 0] - y[:, 1], step_weights(2, 0, 1))
    cells, seeds = y.mean(axis=0), y.mean(axis=(1, 2))
    arm, level = cells.mean(axis=1) - y.mean(), cells.mean(axis=0) - y.mean()
    between = 6 * ((cells - y.mean() - arm[:, None] - level) ** 2).sum()
    by_arm, by_level = y.mean(axis=2), y.mean(axis=1)
    left = (
        y
        - by_arm[:, :, None]
        - by_level[:, None, :]
        - cells
        + (seeds[:, None, None] + cells.mean(axis=1)[:, None] + cells.mean(axis=0) - y.mean())
    )
    f = between / ((left**2).sum() / 5)
    assert found.t_p == pytest.approx(stats.f.sf(f, 1, 5))


def test_rounding_follows_from_the_weights() -> None:
    # a difference of two differences has a spread of at least half a step of each, so sqrt(2)/2
    same = np.tile([3.0, 5.0], (4, 1))
    low, high = within_seeds(same, step_weights(2, 0, 1), resolution=1.0).ci95 or (0, 0)
    assert (high - low) / 2 == pytest.approx(stats.t.ppf(0.975, 3) * math.sqrt(2) / 2 / math.sqrt(4))


def test_bad_shapes_and_positions() -> None:
    with pytest.raises(StatisticsError, match=r"values of shape \(3, 2\) and weights of shape \(3,\)"):
        within_seeds(np.zeros((3, 2)), [1, 2, 3])
    with pytest.raises(StatisticsError, match="two of them different"):
        slope_weights([2, 2])
    with pytest.raises(StatisticsError, match="two of them different"):
        slope_weights([1, math.nan])


# --- factors of a study


def by_depth(arm: Arm, seed: int) -> float:
    """The difference residual - plain is -1, -2, -7 (and a little by seed) at 2, 4 and 8 blocks."""
    gap = {2: 1.0, 4: 2.0, 8: 7.0}[int(arm.factors["blocks"])]
    return 10 + seed / 4 + (gap + 0.1 * seed * gap if arm.base == "plain" else 0)


def test_factors_by_hand() -> None:
    findings = verdict(a_study(vary={"blocks": [8, 2, 4]}), by_depth)
    effects = {(effect.of, effect_change(effect)): effect for effect in findings.factors}
    assert set(effects) == {
        ("difference", "mean over all levels"),
        *(
            (of, change)
            for of in ("difference", "both")
            for change in ("from blocks=2 to 4", "from blocks=4 to 8", "per doubling of blocks")
        ),
    }
    # per seed the differences are -(1, 2, 7) times 1, 1.1, 1.2
    scale = 1.1
    mean = effects["difference", "mean over all levels"].paired
    assert mean.difference == pytest.approx(-10 / 3 * scale) and mean.n == 3
    step = effects["difference", "from blocks=4 to 8"]
    assert step.paired.difference == pytest.approx(-5 * scale) and step.paired.sd == pytest.approx(0.5)
    assert step.levels == (4, 8) and not step.logarithmic
    half = stats.t.ppf(0.975, 2) * 0.5 / math.sqrt(3)
    assert step.paired.ci95 == pytest.approx((-5.5 - half, -5.5 + half))
    slope = effects["difference", "per doubling of blocks"]
    assert slope.paired.difference == pytest.approx(-3 * scale) and slope.logarithmic
    # of both arms together: half of plain's growth
    assert effects["both", "from blocks=2 to 4"].paired.difference == pytest.approx(0.5 * scale)
    raw = [effect.paired.t_p for effect in findings.factors]
    assert [effect.t_p_adjusted for effect in findings.factors] == pytest.approx(holm(raw).tolist())
    assert effect_sentence(step) == (
        "residual − plain, test error: changes by −5.5 points from blocks=4 to 8 (95% interval −6.7 to −4.3, paired t,"
        " 3 seeds)."
    )


def test_equal_steps_have_a_slope_by_the_unit_and_words_have_none() -> None:
    study = a_study(vary={"blocks": [1, 2, 3], "training.optimizer.name": ["sgd"], "training.batch_size": [32, 64]})
    findings = verdict(study, lambda arm, seed: seed + 5.0 * int(arm.factors["blocks"]) * (arm.base == "plain"))
    changes = [
        (effect_change(effect), effect.paired.difference) for effect in findings.factors if effect.of == "difference"
    ]
    assert changes == [
        ("mean over all levels", pytest.approx(-10)),
        ("from blocks=1 to 2", pytest.approx(-5)),
        ("from blocks=2 to 3", pytest.approx(-5)),
        ("per unit of blocks", pytest.approx(-5)),
        ("from training.batch_size=32 to 64", pytest.approx(0)),
    ]


def test_each_effect_takes_the_seeds_that_it_has() -> None:
    def state(arm: Arm, seed: int) -> str:
        return "diverged" if arm.name == "plain[blocks=8]" and seed else "finished"

    findings = verdict(a_study(vary={"blocks": [2, 4, 8]}), by_depth, state)
    n = {effect_change(effect): effect.paired.n for effect in findings.factors if effect.of == "difference"}
    assert n == {
        "mean over all levels": 1, "from blocks=2 to 4": 3, "from blocks=4 to 8": 1, "per doubling of blocks": 1
    }  # fmt: skip
    assert "(one seed shows no spread, so no interval)." in next(
        effect_sentence(effect) for effect in findings.factors if effect_change(effect) == "from blocks=4 to 8"
    )
    gone = verdict(a_study(vary={"blocks": [2, 4]}), by_depth, lambda arm, seed: "diverged")
    assert gone.factors == () and factors_table(gone).rows == ()


def test_no_factors_where_nothing_is_varied_or_levels_are_missing() -> None:
    assert verdict(a_study(), lambda arm, seed: float(seed)).factors == ()
    some = a_study(vary={"blocks": [2, 4], "training.batch_size": [32, 64]}, contrasts=[
        ["residual[blocks=2,training.batch_size=32]", "plain[blocks=2,training.batch_size=32]"],
        ["residual[blocks=4,training.batch_size=64]", "plain[blocks=4,training.batch_size=64]"],
    ])  # fmt: skip
    assert verdict(some, lambda arm, seed: float(seed)).factors == ()


# --- several data sets


def test_paule_and_mandels_equation_holds() -> None:
    draw = np.random.default_rng(0)
    for _ in range(20):
        y, v = draw.normal(0, 2, 5), draw.uniform(0.1, 1, 5)

        def excess(tau2: float, y: Any = y, v: Any = v) -> float:
            w = 1 / (v + tau2)
            return float((w * (y - (w @ y) / w.sum()) ** 2).sum() - 4)

        found = float(between_variance(y, v))
        assert found == pytest.approx(optimize.brentq(excess, 0, 100) if excess(0) > 0 else 0.0, abs=1e-9)


def test_equal_variances_give_the_paired_t_over_data_sets_or_the_pooled_error() -> None:
    # the closed form: between = var(y) - v; interval mean +- t sqrt(var(y)/k), and never tighter than sqrt(v/k)
    y = [1.0, 2.0, 6.0]
    found = over_data_sets(y, [1.0] * 3, [4] * 3)
    assert found.between == pytest.approx(math.sqrt(np.var(y, ddof=1) - 0.25)) and found.mean == 3
    half = stats.t.ppf(0.975, 2) * math.sqrt(np.var(y, ddof=1) / 3)
    assert found.interval == pytest.approx((3 - half, 3 + half)) and found.weights == pytest.approx([1 / 3] * 3)
    assert found.p == pytest.approx(2 * stats.t.sf(3 / math.sqrt(np.var(y, ddof=1) / 3), 2))
    alike = over_data_sets([3.0, 3.0, 3.0], [1.0] * 3, [4] * 3)
    assert alike.between == 0 and alike.interval[1] - 3 == pytest.approx(stats.t.ppf(0.975, 2) * math.sqrt(0.25 / 3))


def test_the_prediction_interval_is_its_closed_form_for_equal_variances() -> None:
    """Of equal variances v, the variance between is the squares over a chi-squared variable, less v."""
    y, v, draw = np.array([1.0, 2.0, 4.0, 6.0, 6.5]), 0.25, np.random.default_rng(3)
    squares = ((y - y.mean()) ** 2).sum()
    between = np.maximum(squares / draw.chisquare(4, 400_000) - v, 0)
    spread = np.sqrt(between) * draw.normal(size=between.shape)
    expected = np.quantile(
        y.mean() + spread + draw.standard_t(4, between.shape) * np.sqrt((v + between) / 5), (0.025, 0.975)
    )
    found = np.array(prediction_interval([y, y + 10], np.full(5, v)))
    assert found[:, 0] == pytest.approx(expected, abs=0.03 * np.ptp(expected))
    assert found[:, 1] == pytest.approx(found[:, 0] + 10)
    assert over_data_sets(y.tolist(), [1.0] * 5, [4] * 5).prediction == pytest.approx(found[:, 0])


def test_two_data_sets_have_one_degree_of_freedom_and_no_prediction() -> None:
    found = over_data_sets([-4.0, -5.0], [0.5, 0.5], [5, 5])
    assert found.prediction is None and found.interval[0] < -10 and found.interval[1] > 0


def test_variances_of_few_seeds_are_drawn_together() -> None:
    v = shrink_to_mean([1.0, 3.0], [3, 21])
    assert v.tolist() == pytest.approx([(2 * 1 + PRIOR * 2) / (2 + PRIOR), (20 * 3 + PRIOR * 2) / (20 + PRIOR)])


@pytest.mark.parametrize("spreads", ["equal", "far apart"])
@pytest.mark.parametrize("between", [0.0, 0.3, 1.0, 3.0])
@pytest.mark.parametrize(("k", "seeds"), [(3, 3), (8, 3), (3, 10), (5, 5)])
def test_intervals_cover_the_mean_over_data_sets(k: int, seeds: int, between: float, spreads: str) -> None:
    """At least 95% of simulated studies, but for two points where the spread between is about the seeds' own."""
    draw, studies = np.random.default_rng(k + 10 * seeds), 4000
    sd = np.ones(k) if spreads == "equal" else np.geomspace(0.1, 2, k)
    true = 1.5 + between * draw.normal(size=(studies, k))
    y = true + draw.normal(size=(studies, k)) * sd / math.sqrt(seeds)
    s2 = sd**2 * draw.chisquare(seeds - 1, (studies, k)) / (seeds - 1)
    v = shrink_to_mean(s2, np.full(k, seeds)) / seeds
    w = 1 / (v + between_variance(y, v)[:, None])
    mean, se = (w * y).sum(axis=1) / w.sum(axis=1), 1 / np.sqrt(w.sum(axis=1))
    covered = np.abs(mean - 1.5) <= stats.t.ppf(0.975, k - 1) * se
    assert covered.mean() > 0.95 - 4 * math.sqrt(0.95 * 0.05 / studies)
    # the simulation is of the function itself
    one = over_data_sets(y[0].tolist(), np.sqrt(s2[0]).tolist(), [seeds] * k)
    assert one.mean == pytest.approx(mean[0]) and one.interval[0] == pytest.approx(
        mean[0] - stats.t.ppf(0.975, k - 1) * se[0]
    )
    if between == 3:
        # a mean with its error over seeds speaks of these data sets alone
        naive = np.abs(y.mean(axis=1) - 1.5) <= 1.96 * np.sqrt((s2 / seeds).sum(axis=1)) / k
        assert naive.mean() < 0.6


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (([1.0], [1.0], [3]), "1 effects, 1 deviations and 1 numbers of seeds"),
        (([1.0, 2.0], [1.0], [3, 3]), "2 effects, 1 deviations and 2 numbers of seeds"),
        (([1.0, math.nan], [1.0, 1.0], [3, 3]), "expected numbers"),
        (([1.0, 2.0], [0.0, 0.0], [3, 3]), "no deviation below 0 and one above"),
        (([1.0, 2.0], [1.0, -1.0], [3, 3]), "no deviation below 0 and one above"),
        (([1.0, 2.0], [1.0, 1.0], [3, 1]), "expected 2 or more on each data set"),
        (([1.0, 2.0], [1.0, 1.0], [3, 3], 1.0), "confidence 1.0 is not between 0 and 1"),
    ],
)
def test_impossible_summaries(arguments: tuple[Any, ...], problem: str) -> None:
    with pytest.raises(StatisticsError, match=problem):
        over_data_sets(*arguments)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(1e-3, 1e3), st.integers(2, 30)), min_size=2, max_size=8))
def test_any_summary_lies_within_its_effects_and_scales_with_them(found: list[tuple[float, float, int]]) -> None:
    y, sd, n = map(list, zip(*found, strict=True))
    one = over_data_sets(y, sd, n)
    assert min(y) - 1e-6 <= one.mean <= max(y) + 1e-6 and one.interval[0] < one.mean < one.interval[1]
    assert sum(one.weights) == pytest.approx(1) and one.between >= 0
    twice = over_data_sets([2 * value for value in y], [2 * value for value in sd], n)
    assert twice.mean == pytest.approx(2 * one.mean, rel=1e-6, abs=1e-6)
    assert twice.between == pytest.approx(2 * one.between, rel=1e-6, abs=1e-9)


DATA = ["digits", "mnist", "fashion-mnist"]
GAPS = {"digits": -1.0, "mnist": -2.0, "fashion-mnist": -6.0}


def by_data(arm: Arm, seed: int) -> float:
    gap = GAPS[arm.trial.data.name] + 0.3 * (seed - 1)
    return 20 + seed / 7 + (gap if arm.base.startswith("residual") else 0)


def test_data_sets_varied_as_a_factor() -> None:
    study = a_study(vary={"data.name": DATA})
    findings = verdict(study, by_data)
    (one,) = findings.meta_analyses
    assert (one.a, one.b, [part.data for part in one.parts]) == ("residual", "plain", DATA)
    assert [part.contrast.paired.difference for part in one.parts if part.contrast.paired] == pytest.approx(
        [-1, -2, -6]
    )
    assert one.summary and one.summary.mean == pytest.approx(-3, abs=1e-6) and one.decision == "undecided"
    assert meta_sentence(one).startswith(
        "Over 3 data sets it is undecided whether residual or plain has the lower test error: a mean difference of −3.0"
    )
    assert "below zero on 3 of 3 data sets (digits −1.00, mnist −2.00 and fashion-mnist −6.00)." in meta_sentence(one)
    assert meta_sentence(one) in headline(findings) and "on a new data set" in meta_sentence(one)
    assert "on each data set and split separately" in "\n".join(notes(findings))
    # nothing is averaged over data sets as if they were levels
    assert findings.factors == ()
    plain = to_json(findings)
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain and len(plain["data_sets"][0]["data_sets"]) == 3
    assert len(data_sets_table(findings).rows) == 4


def test_data_sets_given_with_the_arms() -> None:
    arms = {
        f"{base}-{name}": {**arm, "data": {"name": name}} for base, arm in ARMS.items() for name in ("digits", "mnist")
    }
    contrasts = [[f"residual-{name}", f"plain-{name}"] for name in ("digits", "mnist")]
    findings = verdict(a_study(arms=arms, contrasts=[*contrasts, ["residual-mnist", "residual-digits"]]), by_data)
    (one,) = findings.meta_analyses
    assert one.a == "residual-digits/residual-mnist" and one.summary and one.summary.k == 2
    assert "With two data sets the interval has one degree of freedom" in meta_sentence(one)


def test_factors_are_told_by_data_set_and_data_sets_by_level() -> None:
    study = a_study(vary={"data.name": DATA, "blocks": [2, 4]})
    findings = verdict(study, lambda arm, seed: by_data(arm, seed) * int(arm.factors["blocks"]))
    assert [one.a for one in findings.meta_analyses] == ["residual[blocks=2]", "residual[blocks=4]"]
    assert {effect.within for effect in findings.factors} == {f"data.name={name}" for name in DATA}
    assert {effect.factor for effect in findings.factors} == {"", "blocks"}
    text = to_text(findings)
    assert "residual − plain, test error, data.name=mnist" in text and "None" not in text
    for table in effect_tables(findings):
        assert to_csv(table).count("\n") == len(table.rows) + 1 and to_markdown(table) and to_latex(table)


def test_a_data_set_with_one_pair_is_listed_and_does_not_count() -> None:
    def state(arm: Arm, seed: int) -> str:
        return "diverged" if arm.trial.data.name == "mnist" and seed else "finished"

    findings = verdict(a_study(vary={"data.name": DATA}), by_data, state)
    (one,) = findings.meta_analyses
    assert (
        one.summary and one.summary.k == 2 and one.parts[1].weight is None and "3 of 3 data sets" in meta_sentence(one)
    )
    lost = verdict(a_study(vary={"data.name": DATA}), by_data, lambda arm, seed: "finished" if not seed else "waiting")
    assert lost.meta_analyses[0].summary is None and "residual and plain cannot be compared" in meta_sentence(
        lost.meta_analyses[0]
    )
    none = verdict(a_study(vary={"data.name": DATA}), by_data, lambda arm, seed: "diverged")
    assert meta_sentence(none.meta_analyses[0]) == "Over 3 data sets residual and plain have no pair."


@pytest.mark.slow
def test_arms_that_tuning_and_matching_changed_on_each_data_set_are_one_contrast() -> None:
    data, rates = ["digits", "cifar10"], (0.01, 0.02)
    names = {f"{base}[data.name={name}]": rate for base in ARMS for name, rate in zip(data, rates, strict=True)}
    tune = {"learning_rate": {"log": [0.001, 0.1]}}
    arms = {"plain": {"network": {"family": "comparative-plain", "blocks": 3}}, "residual": ARMS["residual"]}
    study = match(a_study(arms=arms, vary={"data.name": data}, match="parameters", tune=tune))
    study = study.resolve(chosen={name: {"learning_rate": rate} for name, rate in names.items()})
    trials = [arm.trial for arm in study.arms if arm.base == "residual"]
    assert trials[0].network != trials[1].network and trials[0].training != trials[1].training
    findings = verdict(study, lambda arm, seed: seed / 7 + len(arm.base) * (seed + 1))
    (one,) = findings.meta_analyses
    assert [part.data for part in one.parts] == data and one.summary and one.summary.k == 2
    assert any("one search chose for each" in note for note in notes(findings))
    assert not any("on the images by which tuning chose" in note for note in notes(findings))


def test_equal_differences_are_as_sure_as_the_step_of_errors() -> None:
    """Errors that no seed changes, in steps of one of 360 images: a mean of two arms has half the steps of one."""
    findings = verdict(a_study(vary={"blocks": [2, 4]}), lambda arm, seed: int(arm.factors["blocks"]) + len(arm.base))
    both = next(effect.paired for effect in findings.factors if effect.of == "both")
    low, high = both.ci95 or (0, 0)
    assert both.difference == 2 and (high - low) / 2 == pytest.approx(
        stats.t.ppf(0.975, 2) * (100 / 360 / 2) * math.sqrt(2) / 2 / math.sqrt(3)
    )
    (one,) = verdict(a_study(vary={"data.name": ["digits", "mnist"]}), lambda arm, seed: len(arm.base)).meta_analyses
    assert one.summary and one.summary.mean == 3 and one.summary.interval[0] < 3 < one.summary.interval[1]


def test_each_data_set_has_its_own_step() -> None:
    def error(arm: Arm, seed: int) -> float:
        images, wrong = {"digits": (360, 10), "mnist": (10_000, 201)}[arm.trial.data.name]
        return 100 * (wrong + seed + (arm.base == "residual")) / images

    digits, mnist = verdict(a_study(vary={"data.name": ["digits", "mnist"]}, seeds=2), error).contrasts
    assert digits.resolution == pytest.approx(100 / 360) and mnist.resolution == pytest.approx(0.01)
    # one image more at both seeds is nothing, whatever steps the other data set has
    assert digits.decision == "undecided" and digits.paired and digits.paired.t_p and digits.paired.t_p > 0.05


outcomes = st.tuples(st.integers(0, 1000), st.sampled_from(["finished", "finished", "diverged", "waiting"]))


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(st.lists(outcomes, min_size=24, max_size=24))
def test_any_outcome_gives_plain_json_and_text(found: list[tuple[int, str]]) -> None:
    study = a_study(vary={"data.name": ["digits", "mnist"], "blocks": [1, 2, 4]}, seeds=2)
    at = {(arm.name, trial.seed): found[place] for place, (arm, trial) in enumerate(study.trials())}
    findings = verdict(study, lambda arm, s: at[arm.name, s][0] / 10, lambda arm, s: at[arm.name, s][1])
    plain = to_json(findings)
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert "nan" not in to_text(findings) and "None" not in to_text(findings)
    for line in (
        *(effect_sentence(effect) for effect in findings.factors),
        *(meta_sentence(one) for one in findings.meta_analyses),
    ):
        assert line.endswith(".") and "\n" not in line and "  " not in line
