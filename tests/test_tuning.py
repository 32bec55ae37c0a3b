"""Tuning: what is asked for, how settings are drawn and chosen, that it goes on after a kill, and what it shows."""

import itertools
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from leadline.analysis.stats import StatisticsError
from leadline.analysis.stats.best_of import Ahead, ahead, best_of, running_best
from leadline.analysis.verdict import analyze, headline
from leadline.analysis.verdict.tuned import Tuning, explain_tuning, tuning_sentences, tuning_words
from leadline.errors import LeadlineError, SpecError
from leadline.parts.metrics.record import Record
from leadline.reports.charts.tuning import tuning_figures
from leadline.reports.tuning_tables import tuning_tables
from leadline.reports.writing import write_report
from leadline.running.console import Terminal
from leadline.specs import parse
from leadline.specs.study import StudySpec
from leadline.specs.tuning import FIRST_SEED, TuneSpec, path_of
from leadline.store import Store
from leadline.study.expand import ExpandedStudy, expand
from leadline.study.load import load_study
from leadline.study.pipeline import resolve, run_study
from leadline.study.resolved import Searched
from leadline.study.search import FIRST_AT_RANDOM, Search, suggest, tuning_of
from leadline.text.tables import Table

RATE = {"learning_rate": {"log": [0.001, 1]}}


def study_of(tune: dict[str, Any], **more: Any) -> ExpandedStudy:
    spec = {
        "name": "tuned",
        "data": {"name": "digits", "train": 60, "test": 60},
        "training": {"epochs": 1, "batch_size": 30},
        "arms": {
            "plain": {"network": {"family": "comparative-plain", "blocks": 1}},
            "residual": {"network": {"family": "comparative-resnet", "blocks": 1}},
        },
        "seeds": 2,
        "tune": tune,
        **more,
    }
    return expand(parse(StudySpec, spec))


# --- a ledger without training: the validation error of a trial is a function of its specification

Errors = Callable[[str, dict[str, Any]], float | None]  # arm, training -> per cent; None: it diverges


def bowl(arm: str, training: dict[str, Any]) -> float | None:
    """Least at 0.03 for plain, at 0.3 for residual; diverges above 0.8."""
    rate = training["optimizer"]["learning_rate"]
    best = 0.03 if arm.startswith("plain") else 0.3
    return None if rate > 0.8 else 5 + 10 * abs(math.log10(rate / best))


def play(store: Store, name: str, errors: Errors, most: int | None = None) -> int:
    """End at most so many trials of a study; return how many."""
    for done in itertools.count():
        claim = store.claim(name, "player", 60) if done != most else None
        if claim is None:
            return done
        training = store.trial(claim.trial).spec["training"]
        value = errors(claim.arm, training)
        if value is None:
            store.finish(claim.trial, "player", "diverged", error="the training loss was nan", diverged_step=3)
        else:
            # what is best on test data is worst on validation data, so a search that looked at them would be seen
            records = [
                Record(2, 1, "final-validation", "error", value),
                Record(2, 1, "final-test", "error", 90 - value),
            ]
            store.finish(claim.trial, "player", "finished", records=records)
    raise AssertionError


def searched(
    study: ExpandedStudy, store: Store, errors: Errors = bowl, most: int | None = None
) -> tuple[ExpandedStudy, int]:
    """Search to the end, killed and begun anew after every so many trials; return the tuned study, and kills."""
    kills = 0
    search = Search(study)
    while (asked := search.next(store)) is not None:
        store.register(asked)
        play(store, asked.name, errors, most)
        if most is not None:
            search, kills = Search(study), kills + 1
    return search.tuned(), kills


# --- what is asked for


@pytest.mark.parametrize(
    ("tune", "message"),
    [
        ("{learnin_rate: {log: [0.1, 1]}}", r"s.yaml:5:8: .*unknown argument 'learnin_rate'.*mean 'learning_rate'\?"),
        ("{learning_rate: {log: [0, 3]}}", r"s.yaml:5:24: tune.learning_rate.log: 0 has no logarithm"),
        ("{learning_rate: {log: [3, 1]}}", r"\[3, 1\] is empty; give the smaller end first"),
        ("{learning_rate: {linear: [1, 1]}}", r"\[1, 1\] is empty"),
        ("{batch_size: {integer: [9, 8]}}", r"\[9, 8\] is empty"),
        ("{learning_rate: {log: [0.1]}}", r"\[0.1\] is not two ends"),
        ("{learning_rate: {log: [0.1, .inf]}}", r"inf: input should be a finite number"),
        ("{learning_rate: {choice: []}}", r"\[\] has fewer than two choices"),
        ("{learning_rate: {choice: [1, 2, 1]}}", r"\[1, 2, 1\] names a value twice"),
        ("{learning_rate: {log: [0.1, 1], linear: [0, 1]}}", r"learning_rate: .* is not one of log, linear"),
        ("{learning_rate: {lg: [0.1, 1]}}", r"learning_rate: .* is not one of log, linear, integer, choice"),
        ("{learning_rate: 0.1}", r"tune: learning_rate: 0.1 is not a search space such as"),
        ("{learning_rate: {log: [0.1, 1]}, buget: 3}", r"unknown key 'buget'; did you mean 'budget'"),
        ("{learning_rate: {log: [0.1, 1]}, budget: 0}", r"s.yaml:5:40: tune.budget: 0: input should be greater"),
        ("{learning_rate: {log: [0.1, 1]}, sampler: grid}", r"tune.sampler: 'grid': input should be 'random' or 'tpe'"),
        (
            "{learning_rate: {log: [0.1, 1]}, seeds: [7, 1]}",
            r"s.yaml:5:40: tune.seeds: seed 1 is also a seed of the study",
        ),
        ("{learning_rate: {log: [0.1, 1]}, seeds: [7, 7]}", r"names a seed twice"),
        ("{budget: 3}", r"nothing is tuned"),
        ("{momentum: {linear: [0, 1]}}", r"1.0 for arm plain: training.optimizer.momentum: 1.0: input should be less"),
        ("{batch_size: {linear: [16, 64]}}", r"16.0 for arm plain: .* valid integer"),
        ("{lr: {choice: [1, 2]}}", r"unknown argument 'lr'"),
        ("{data.train: {integer: [1, 5]}}", r"'data' cannot be tuned; keys begin with training or network"),
        ("{momentum: {choice: [0.1, 0]}, optimizer.momentum: {choice: [0.1, 0]}}", r"momentum is tuned twice"),
        (
            "{learning_rate: {linear: [-1.0e+308, 1.0e+308]}}",
            r"too wide to sample from; bring the ends closer together",
        ),
        (
            "{learning_rate: {log: [0.1, 1]}, chosen: {plain: {learning_rate: 1}}}",
            r"s.yaml:5:40: tune.chosen: chosen is determined by the search when the study runs and stored",
        ),
        ("{learning_rate: {log: [0.1, 1]}, tried: {}}", r"s.yaml:5:40: tune.tried: .*; remove "),
    ],
)
def test_what_cannot_be_tuned_is_one_line_with_its_place(tmp_path: Path, tune: str, message: str) -> None:
    file = tmp_path / "s.yaml"
    arms = "  plain: {network: comparative-plain}\n  residual: {network: comparative-resnet}\n"
    file.write_text(f"name: s\narms:\n{arms}tune: {tune}\n")
    with pytest.raises(SpecError, match=message) as caught:
        load_study(str(file))
    assert "\n" not in str(caught.value)


def test_keys_go_where_a_reader_expects_them() -> None:
    assert path_of("learning_rate") == "training.optimizer.learning_rate"
    assert path_of("optimizer.momentum") == "training.optimizer.momentum"
    assert path_of("batch_size") == "training.batch_size"
    assert path_of("training.schedule.final") == "training.schedule.final"
    assert path_of("blocks") == "network.blocks"
    study = study_of({"blocks": {"integer": [1, 2]}, "batch_size": {"choice": [10, 20]}, "budget": 1})
    chosen = {arm.name: {"blocks": 2, "batch_size": 20} for arm in study.arms}
    tuned = study.resolve(chosen=chosen)
    assert [arm.trial.training.batch_size for arm in tuned.arms] == [20, 20]
    assert tuned.arms[0].trial.network != study.arms[0].trial.network


def test_what_is_varied_or_matched_is_not_tuned() -> None:
    with pytest.raises(SpecError, match="batch_size is varied and cannot be tuned as well"):
        study_of({"batch_size": {"choice": [10, 20]}}, vary={"training.batch_size": [10, 20]})
    with pytest.raises(SpecError, match="blocks would change networks that match makes equal"):
        study_of({"blocks": {"choice": [1, 2]}}, match="parameters")


def test_arms_that_differ_in_what_is_tuned_alone_are_no_contrast() -> None:
    arms = {
        rate: {"network": "comparative-plain", "training": {"optimizer": {"learning_rate": float(rate)}}}
        for rate in ("0.1", "0.2")
    }
    assert study_of({"batch_size": {"choice": [10, 20]}}, arms=arms).contrasts
    with pytest.raises(SpecError, match=r"0\.2 and 0\.1 have the same network and the same training"):
        study_of(RATE, arms=arms)


def test_a_search_takes_no_other_studys_place(tmp_path: Path) -> None:
    other = study_of(RATE).spec.with_(name="tuned.tuning", tune=None)
    with Store.open(tmp_path) as store:
        store.register(expand(other))
        with pytest.raises(SpecError, match=r"^study tuned\.tuning in the store is not a search"):
            Search(study_of({**RATE, "budget": 5})).next(store)
        assert store.study("tuned.tuning").hash == other.content_hash


def test_no_study_is_run_before_it_is_searched(tmp_path: Path) -> None:
    study = study_of({**RATE, "budget": 2})
    with Store.open(tmp_path) as store:
        with pytest.raises(SpecError, match="study tuned: tune must be resolved before its trials are known"):
            store.register(study)
        with pytest.raises(SpecError, match="its next trials depend on the results of earlier ones"):
            resolve(study, store)
        assert store.studies() == []
        tuned, _ = searched(study, store)
        assert resolve(study, store) == tuned  # as the ledger has the whole search, workers may share the rest
        store.register(tuned)
        assert store.study("tuned").spec == study.spec.model_dump(mode="json")


def test_a_name_leaves_room_for_the_name_of_its_search() -> None:
    asked = study_of({**RATE, "budget": 5}, name="n" * 93)
    assert asked.resolve(search=Searched(seeds=[7], tried={})).name == "n" * 93 + ".tuning"
    with pytest.raises(SpecError, match="is longer than 93 letters"):
        study_of(RATE, name="n" * 94)


# --- how settings are drawn


def test_settings_at_random_fill_their_spaces_evenly_and_are_functions_of_their_number() -> None:
    spaces = {
        "learning_rate": {"log": [0.001, 1]},
        "momentum": {"linear": [0, 0.9]},
        "batch_size": {"integer": [1, 4]},
        "nesterov": {"choice": [True, False]},
    }
    tune = parse(TuneSpec, {**spaces, "budget": 400})
    drawn = [suggest(tune, number, [], []) for number in range(400)]
    assert suggest(tune, 7, drawn[:7], [1.0] * 7) == drawn[7]  # whatever the others gave
    assert [list(one) for one in drawn[:2]] == [list(spaces)] * 2
    logs = [math.log10(float(one["learning_rate"])) for one in drawn]
    assert scipy_stats.kstest(logs, scipy_stats.uniform(-3, 3).cdf).pvalue > 0.01
    momenta = [float(one["momentum"]) for one in drawn]
    assert scipy_stats.kstest(momenta, scipy_stats.uniform(0, 0.9).cdf).pvalue > 0.01
    sizes = [one["batch_size"] for one in drawn]
    assert scipy_stats.chisquare([sizes.count(size) for size in (1, 2, 3, 4)]).pvalue > 0.01
    assert 150 < sum(one["nesterov"] is True for one in drawn) < 250
    other = parse(TuneSpec, {**spaces, "budget": 400, "seed": 1})
    assert suggest(other, 0, [], []) != drawn[0]


def test_tpe_learns_and_repeats_itself() -> None:
    tune = parse(TuneSpec, {**RATE, "sampler": "tpe", "budget": 40})
    runs = []
    for _ in range(2):
        tried: list[dict[str, Any]] = []
        scores: list[float] = []
        for number in range(40):
            tried.append(suggest(tune, number, tried, scores))
            rate = tried[-1]["learning_rate"]
            scores.append(math.inf if rate > 0.2 else 10 * abs(math.log10(rate / 0.03)))
        runs.append(scores)
    assert runs[0] == runs[1]
    assert np.median(runs[0][20:]) < np.median(runs[0][:FIRST_AT_RANDOM]) / 2
    assert math.inf in runs[0][:FIRST_AT_RANDOM]  # a diverged setting is no obstacle


def test_without_optuna_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(LeadlineError, match=r"needs the package optuna.*pip install '\.\[tune\]'"):
        Search(study_of(RATE))


# --- how a search goes


@pytest.mark.slow
@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_search_that_is_killed_goes_on_where_it_was(tmp_path: Path, sampler: str) -> None:
    study = study_of({**RATE, "sampler": sampler, "budget": 13, "seeds": 2})
    found = []
    for most in (None, 5):
        with Store.open(tmp_path / str(most)) as store:
            tuned, kills = searched(study, store, most=most)
            frame = store.records_frame("tuned.tuning")
            found.append((tuned, store.study("tuned.tuning").resolved, frame))
    assert kills >= 10
    assert found[0][:2] == found[1][:2]
    pd.testing.assert_frame_equal(found[0][2], found[1][2])
    assert len(found[0][2]["trial"].unique()) <= 2 * 2 * 13


def test_the_least_mean_validation_error_is_chosen(tmp_path: Path) -> None:
    study = study_of({**RATE, "budget": 12, "seeds": [50, 51]})
    with Store.open(tmp_path) as store:
        tuned, _ = searched(study, store)
        again = store.study("tuned.tuning").expand()
        trials = store.trials_frame("tuned.tuning")
        store.register(tuned)
        stored = store.study("tuned").expand()
    assert again.resolved.search is not None and tuned.resolved.chosen is not None
    tried = again.resolved.search.tried
    assert tried["plain"] == tried["residual"] and len(tried["plain"]) == 12  # all arms try the same settings
    assert sorted(set(trials["seed"])) == [50, 51]
    for arm in tuned.arms:
        best = min(tried[arm.name], key=lambda one: bowl(arm.name, {"optimizer": one}) or math.inf)
        assert tuned.resolved.chosen[arm.name] == best
        assert arm.trial.training.optimizer.learning_rate == best["learning_rate"]
    assert len({arm.trial.training.optimizer.learning_rate for arm in tuned.arms}) == 2
    assert stored == tuned and stored.spec == again.spec == study.spec
    assert {spec.seed for _, spec in tuned.trials()} == {0, 1}


def test_a_larger_budget_keeps_what_was_tried(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        searched(study_of({**RATE, "budget": 3}), store)
        asked = Search(study_of({**RATE, "budget": 5})).next(store)
        assert asked is not None
        store.register(asked)
        assert play(store, "tuned.tuning", bowl) == 4


def test_each_level_of_a_factor_is_tuned_by_itself(tmp_path: Path) -> None:
    arms = {"plain": {"network": "comparative-plain"}, "residual": {"network": "comparative-resnet"}}
    study = study_of({**RATE, "budget": 6}, arms=arms, vary={"blocks": [1, 2]})

    def errors(arm: str, training: dict[str, Any]) -> float:
        return 50 * abs(math.log10(training["optimizer"]["learning_rate"] / (0.9 if "blocks=2" in arm else 0.002)))

    with Store.open(tmp_path) as store:
        tuned, _ = searched(study, store, errors)
        tuning = explain_tuning(tuned, store.trials_frame("tuned.tuning"), store.records_frame("tuned.tuning"))
    rates = [arm.trial.training.optimizer.learning_rate for arm in tuned.arms]
    assert rates[0] == rates[2] != rates[1] == rates[3]
    assert list(tuning.tried["arm"].unique()) == [arm.name for arm in tuned.arms]
    assert [len(figure.panels) for figure in tuning_figures(tuning)] == [2, 2]


def test_seeds_are_never_those_of_the_study() -> None:
    tune = parse(TuneSpec, {**RATE, "seeds": 3})
    assert tune.seed_values(range(10)) == (FIRST_SEED, FIRST_SEED + 1, FIRST_SEED + 2)
    assert tune.seed_values([FIRST_SEED + 1]) == (FIRST_SEED, FIRST_SEED + 2, FIRST_SEED + 3)


def test_diverged_settings_are_worst_and_nothing_but_them_is_an_error(tmp_path: Path) -> None:
    study = study_of({**RATE, "budget": 4, "seeds": [50, 51]})

    def one_seed(arm: str, training: dict[str, Any]) -> float | None:
        return None if training["optimizer"]["learning_rate"] < 0.9 and arm.startswith("plain") else 40.0

    with Store.open(tmp_path) as store, pytest.raises(LeadlineError, match="all 4 settings of arm plain diverged") as e:
        searched(study, store, one_seed)
    assert "\n" not in str(e.value)


def test_a_finished_trial_without_a_validation_error_is_not_waited_for(tmp_path: Path) -> None:
    with (
        Store.open(tmp_path) as store,
        pytest.raises(LeadlineError, match="has finished without a validation error"),
    ):
        searched(study_of({**RATE, "budget": 1}), store, lambda *_: math.nan)


def test_a_failed_trial_is_run_again_and_is_no_result(tmp_path: Path) -> None:
    study = study_of({**RATE, "budget": 2})
    with Store.open(tmp_path) as store:
        asked = Search(study).next(store)
        assert asked is not None
        store.register(asked)
        claim = store.claim("tuned.tuning", "player", 60)
        assert claim is not None
        store.finish(claim.trial, "player", "failed", error="no memory")
        play(store, "tuned.tuning", bowl)
        again = Search(study).next(store)
        assert again == asked
        store.register(again)
        assert store.requeue_failed("tuned.tuning") == 1
        assert play(store, "tuned.tuning", bowl) == 1
        assert Search(study).next(store) is None


# --- what a smaller budget would have found

Values = st.lists(st.integers(0, 5).map(float), min_size=1, max_size=7)


@given(Values, st.integers(1, 7))
def test_best_of_k_is_the_mean_over_every_subset(values: list[float], k: int) -> None:
    if k > len(values):
        with pytest.raises(StatisticsError, match="give 1 to"):
            best_of(values, k)
        return
    least = sorted(min(subset) for subset in itertools.combinations(values, k))
    found = best_of(values, k)
    assert found.mean == pytest.approx(sum(least) / len(least))
    assert found.low == least[math.ceil(0.1 * len(least)) - 1]
    assert found.high == least[math.ceil(0.9 * len(least) - 1e-9) - 1]


@given(st.lists(st.tuples(*[st.sampled_from([0.0, 1.0, 2.0, math.inf])] * 2), min_size=1, max_size=7), st.data())
def test_who_is_ahead_is_counted_over_every_subset(pairs: list[tuple[float, float]], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(pairs)))
    best = [[min(side) for side in zip(*subset, strict=True)] for subset in itertools.combinations(pairs, k)]
    found = ahead(*zip(*pairs, strict=True), k)
    assert found.a == pytest.approx(sum(a < b for a, b in best) / len(best))
    assert found.b == pytest.approx(sum(b < a for a, b in best) / len(best))


def test_best_of_many() -> None:
    n = 2_000
    values = np.random.default_rng(0).permutation(n) + 1.0
    for k in (1, 7, 1_000, n):
        assert best_of(values, k).mean == pytest.approx((n + 1) / (k + 1))  # least of k ranks out of n
    assert list(running_best([3, 4, 2, 5])) == [3, 3, 2, 2]
    assert ahead([1.0], [2.0], 1) == Ahead(1.0, 0.0)
    with pytest.raises(StatisticsError, match="not finite"):
        best_of([1.0, math.inf], 1)
    with pytest.raises(StatisticsError, match="2 values of a and 1 of b"):
        ahead([1.0, 2.0], [1.0], 1)


# --- what is shown


def tuning_after(tmp_path: Path, tune: dict[str, Any], errors: Errors = bowl) -> tuple[ExpandedStudy, Tuning]:
    with Store.open(tmp_path) as store:
        tuned, _ = searched(study_of(tune), store, errors)
        store.register(tuned)
        tuning = tuning_of(store, tuned)
    assert tuning is not None
    return tuned, tuning


def test_numbers_shown_are_those_of_the_search(tmp_path: Path) -> None:
    tuned, tuning = tuning_after(tmp_path, {**RATE, "budget": 8, "seed": 3})
    own = tuning.tried[tuning.tried["arm"].eq("plain")]
    expected = [bowl("plain", {"optimizer": values}) for values in own["values"]]
    assert [None if math.isnan(error) else error for error in own["error"]] == expected
    best = tuning.best.set_index(["arm", "k"])["mean"]
    worst = [100.0 if error is None else error for error in expected]
    assert best["plain", 1] == pytest.approx(np.mean(worst))
    assert best["plain", 8] == min(worst)
    tables = {table.name: table for table in tuning_tables(tuning)}
    assert [row["settings"] for row in tables["tuning-chosen"].rows] == [8, 8]
    assert tables["tuning-budgets"].rows[0]["8"] == min(worst)
    assert [column.title for column in tables["tuning-budgets"].columns[1:]] == [f"k = {k}" for k in (1, 2, 4, 8)]
    few = "4 of 8 budgets k: the smallest, doubling, and the whole one."
    assert (tables["tuning-budgets"].note, tables["tuning-leads"].note) == (
        f"{few} tables/tuning-best-of-k.csv has the others.",
        few,
    )
    assert set(tuning_figures(tuning)[0].data["k"]) == set(range(1, 9))
    assert len(tables["tuning-every"].rows) == 16
    rate = (tuned.resolved.chosen or {})["plain"]["learning_rate"]
    assert tables["tuning-chosen"].shown[0][:2] == ("plain", f"{rate:.3g}")


def test_the_arm_ahead_depends_on_the_budget(tmp_path: Path) -> None:
    def narrow(arm: str, training: dict[str, Any]) -> float:
        rate = training["optimizer"]["learning_rate"]
        return 20.0 if arm.startswith("plain") else 5.0 if 0.01 < rate < 0.04 else 60.0

    _, tuning = tuning_after(tmp_path, {**RATE, "budget": 10, "seed": 1}, narrow)
    hits = int(tuning.tried.loc[tuning.tried["arm"].eq("residual"), "error"].eq(5).sum())
    missed = [math.comb(10 - hits, k) / math.comb(10, k) for k in range(1, 11)]  # searches of k that hit nothing
    turn = next(k for k, share in enumerate(missed, 1) if 60 * share + 5 * (1 - share) < 20)
    assert 1 < turn <= 10
    last = f"residual at {turn}" + (" to 10" if turn < 10 else "")
    first = "plain at 1" + (f" to {turn - 1}" if turn > 2 else "")
    assert tuning_sentences(tuning)[-1] == (
        "Which of residual and plain has the lower expected best validation error depends on the budget:"
        f" {first} and {last} trials."
    )
    shares = tuning.leads.set_index("k")[["share_a", "share_b"]]
    assert list(shares["share_b"]) == pytest.approx(missed)
    assert list(shares["share_a"]) == pytest.approx([1 - share for share in missed])


def test_of_tpe_the_course_of_the_one_search_is_shown(tmp_path: Path) -> None:
    _, tuning = tuning_after(tmp_path, {**RATE, "budget": 12, "sampler": "tpe"})
    own = tuning.tried[tuning.tried["arm"].eq("residual")]
    curve = tuning.best[tuning.best["arm"].eq("residual")]
    assert list(curve["mean"]) == list(np.minimum.accumulate(own["error"].fillna(100)))
    assert set(tuning.leads["share_a"] + tuning.leads["share_b"]) <= {0.0, 1.0}
    assert "in the order of the search" in tuning_figures(tuning)[0].caption


def test_a_value_near_the_end_of_its_space_is_told(tmp_path: Path) -> None:
    def falling(arm: str, training: dict[str, Any]) -> float:
        return 50 - training["optimizer"]["learning_rate"]

    _, tuning = tuning_after(tmp_path, {**RATE, "budget": 12, "seed": 1}, falling)
    assert any("at the upper end" in sentence for sentence in tuning_sentences(tuning))
    assert not any("at the lower end" in sentence for sentence in tuning_sentences(tuning))


def test_a_setting_whose_trials_have_not_all_ended_is_no_result(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        tuned, _ = searched(study_of({**RATE, "budget": 3}), store)
        trials, records = (frame("tuned.tuning") for frame in (store.trials_frame, store.records_frame))
    for place, trial in enumerate(trials["trial"]):
        waiting = trials.assign(state=[*trials["state"][:place], "waiting", *trials["state"][place + 1 :]])
        assert explain_tuning(tuned, waiting, records[records["trial"].ne(trial)]).tried.empty


def test_where_the_search_is_gone_it_is_said(tmp_path: Path) -> None:
    tuned, tuning = tuning_after(tmp_path, {**RATE, "budget": 3})
    assert tuning_sentences(tuning)[0].startswith(
        "Tuned: 3 trials per arm, drawn at random; chosen by validation error before"
    )
    with Store.open(tmp_path / "elsewhere") as store:
        store.register(tuned)
        gone = tuning_of(store, tuned)
        name = tuned.spec.name
        findings = analyze(tuned, store.trials_frame(name), store.records_frame(name), {}, gone)
    assert gone is not None and gone.tried.empty and tuning_sentences(gone)[0] in headline(findings)
    assert tuning_sentences(gone)[0].startswith(
        "Tuned elsewhere, according to the study: 3 trials per arm, drawn at random"
    )
    assert "is not in this store" in tuning_sentences(gone)[1]
    assert all(not figure.panels for figure in tuning_figures(gone))
    assert all(not table.rows for table in tuning_tables(gone) if isinstance(table, Table))


def test_words_name_every_arm_and_key() -> None:
    tune = {**RATE, "batch_size": {"choice": [32, 64]}, "budget": 20, "sampler": "tpe", "seeds": 2}
    chosen = {"cnn": {"learning_rate": 0.0300001, "batch_size": 32}, "resnet": {"learning_rate": 0.1, "batch_size": 64}}
    assert tuning_words(parse(TuneSpec, tune), chosen) == (
        "Tuned: 20 settings per arm at 2 seeds each, drawn by a tree-structured Parzen estimator; chosen by validation"
        " error before the contrasts, with seeds other than theirs: learning_rate 0.03 (cnn) and 0.1 (resnet);"
        " batch_size 32 (cnn) and 64 (resnet)."
    )


# --- all of it


@pytest.mark.slow
def test_a_study_is_tuned_run_and_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = study_of({**RATE, "momentum": {"choice": [0.0, 0.9]}, "budget": 2})
    outcome = run_study(study, tmp_path, None, None, 0, "cpu", Terminal())
    assert outcome.complete and outcome.counts == {"finished": 4}
    assert "Tuned: 2 trials per arm" in capsys.readouterr().err
    with Store.open_existing(tmp_path) as store:
        tuned = store.study("tuned").expand()
        before = store.counts("tuned.tuning")
        records = store.records_frame("tuned.tuning", ["final-validation"])
        finals = records[records["name"].eq("error")].set_index("arm")["value"]
        tuning = tuning_of(store, tuned)
        assert tuning is not None
        for arm in ("plain", "residual"):
            best = int(tuning.tried.loc[tuning.tried["arm"].eq(arm) & tuning.tried["chosen"], "number"].iloc[0])
            assert finals[f"{arm}[trial={best}]"] == min(finals[f"{arm}[trial={n}]"] for n in (1, 2))
        findings = analyze(tuned, store.trials_frame("tuned"), store.records_frame("tuned"), store.each_output("tuned"))
        page = write_report(store, "tuned", tmp_path / "report").read_text()
    assert headline(findings)[-1] == tuning_sentences(tuning)[0]
    assert '<section id="tuning"' in page
    assert {path.name for path in (tmp_path / "report" / "figures").glob("tuning-*.svg")} == {
        "tuning-best-of-k.svg",
        "tuning-settings.svg",
    }
    assert (tmp_path / "report" / "tables" / "tuning-every.csv").read_text().count("\n") == 5
    again = run_study(study, tmp_path, None, None, 0, "cpu")
    with Store.open_existing(tmp_path) as store:
        assert again.complete and store.counts("tuned.tuning") == before
        assert store.study("tuned").expand() == tuned
        assert [one.title for one in store.studies()] == ["Tuning of tuned", ""]
