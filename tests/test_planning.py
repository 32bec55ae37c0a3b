"""Plans: counts from closed forms, seeds against the power of the t test, sizes against data, words, a real trial."""

import json
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import leadline as ll
from leadline import networks
from leadline.analysis.stats import power, sequential
from leadline.analysis.verdict import Findings, analyze
from leadline.cli import app
from leadline.data.batches import load
from leadline.data.split import SplitSizes
from leadline.errors import DataError, LeadlineError, SpecError
from leadline.networks.modules import build, inspect_network
from leadline.networks.modules.shapes import remember_shapes
from leadline.parts.metrics import metrics
from leadline.parts.metrics.base import recorded
from leadline.running.executors import InProcess
from leadline.running.job import Job
from leadline.seeds import name_seed
from leadline.specs import DataSpec, NetworkSpec, ProbeSpec, TrainingSpec, TrialSpec
from leadline.specs.study import StudySpec
from leadline.store import Store
from leadline.study import pipeline
from leadline.study.expand import ExpandedStudy, expand
from leadline.study.planning import calibration, capacity, timing
from leadline.study.planning import plan as planning
from leadline.study.planning import words as plantext
from leadline.study.planning.calibration import predict
from leadline.study.planning.capacity import sizes
from leadline.study.planning.plan import Plan, plan
from leadline.study.planning.seeds import SeedsNeeded, seeds_by_deviation, seeds_by_pilot
from leadline.study.planning.timing import Work, measure, strip_for_timing, time_one
from leadline.study.planning.tracing import step_amounts, trace

pytestmark = pytest.mark.usefixtures("known_speed")

SMALL = DataSpec(name="digits", train=200, validation=100, test=50)


def small(**more: object) -> ExpandedStudy:
    given: dict[str, object] = {
        "name": "small",
        "data": SMALL,
        "training": {"epochs": 3, "batch_size": 64, "test_every": 2},
        "arms": {"a": {"network": {"family": "mlp", "hidden": 2, "width": 8}}, "b": {"network": "mlp"}},
        "seeds": 4,
    }
    return expand(StudySpec.model_validate({**given, **more}))


@pytest.fixture
def found(tmp_path: Path) -> Plan:
    return plan(small(), tmp_path, device="cpu", workers=1)


def test_trials_parameters_steps_and_flops_are_counted(found: Plan) -> None:
    a, b = found.arms
    info = inspect_network(small().arms[0].trial.network, (1, 8, 8), 10)
    assert (a.trials, a.parameters, a.steps) == (4, info.parameters, 3 * 4)
    assert info.multiply_adds == 64 * 8 + 8 * 8 + 8 * 10
    # training: forward and backward, three times 200 images; evaluated: validation 3 times, test once, all at the end
    assert a.flops == 2 * info.multiply_adds * (3 * 3 * 200 + 3 * 100 + 50 + 200 + 100 + 50)
    assert found.trials == 8
    assert found.flops == 4 * (a.flops + b.flops)


def test_time_is_that_of_steps_and_evaluation(found: Plan) -> None:
    for arm in found.arms:
        assert arm.seconds is not None and arm.seconds > 0 and arm.timed == 0
    assert found.worker_seconds == pytest.approx(sum(4 * arm.seconds for arm in found.arms if arm.seconds))
    assert found.seconds == pytest.approx(found.worker_seconds)  # one worker


def test_trials_go_to_the_worker_that_is_free_first() -> None:
    assert planning._schedule([5, 3, 3, 3], 2) == 8  # 5 + 3 beside 3 + 3
    assert planning._schedule([1, 1, 1], 1) == 3
    assert planning._schedule([2, 7], 16) == 7


def test_memory_and_disk_have_their_parts(found: Plan) -> None:
    a, b = found.arms
    grown = b.parameters - a.parameters
    assert b.memory - a.memory >= 3 * 4 * grown  # weights, gradients, momentum
    # two checkpoints of weights and momentum
    assert b.disk - a.disk == 2 * 2 * 4 * grown
    # eight records an epoch, three for the test during it, nine and the metrics at the end; of each test image two
    # classes and ten probabilities
    records = planning.RECORD * (8 * 3 + 3 + 9 + len(recorded(metrics(), 10)))
    assert a.disk == 2 * 2 * 4 * a.parameters + records + planning.TRIAL + (4 + 2 * 10) * 50


@pytest.mark.slow
def test_a_batch_counts_in_memory_as_what_the_backward_pass_keeps(tmp_path: Path) -> None:
    network = {"network": {"family": "cifar-resnet", "depth": 8}}
    one, two = (
        plan(
            small(
                arms={"a": network}, training={"batch_size": size, "epochs": 1}, data={"name": "digits", "train": 1200}
            ),
            tmp_path,
            device="cpu",
            workers=1,
        ).arms[0]
        for size in (600, 1200)
    )
    kept = inspect_network(small(arms={"a": network}).arms[0].trial.network, (1, 8, 8), 10).training_memory
    assert two.memory - one.memory == pytest.approx(600 * capacity.KEPT * kept, rel=0.05)  # but for batch statistics


@pytest.mark.parametrize(
    "spec",
    [
        DataSpec(name="digits"),
        DataSpec(name="digits", train=300, validation=7, test=11),
        DataSpec(name="parity", bits=6),
        DataSpec(name="parity", bits=20, samples=500, test=100),
    ],
)
def test_sizes_are_those_of_the_data(spec: DataSpec) -> None:
    data, known = load(spec), sizes(spec)
    assert known.train == data.train_size
    assert known.validation == len(data.validation.labels)
    assert known.test == len(data.test_labels)


def test_sizes_need_no_files_and_see_what_is_too_many() -> None:
    assert sizes(DataSpec(name="cifar10", validation=5000)) == SplitSizes(45_000, 5_000, 10_000)
    assert sizes(DataSpec(name="mnist")) == SplitSizes(55_000, 5_000, 10_000)
    with pytest.raises(DataError, match="2000 training images requested"):
        sizes(DataSpec(name="digits", train=2000))


def test_seeds_for_a_margin_are_the_fewest_with_80_percent_power() -> None:
    for needed in seeds_by_deviation(small(), [0.25, 0.5, 2.0]):
        assert needed.for_margin is not None
        assert power(0.5 / needed.sd, needed.for_margin) >= 0.8 > power(0.5 / needed.sd, needed.for_margin - 1)
    [enough] = seeds_by_deviation(small(), [0.5])
    # by simulation: 10 normal differences of mean 1 deviation, tested at 5%
    draws = np.random.default_rng(0).normal(1, 1, (20_000, enough.for_margin))
    t = draws.mean(1) / draws.std(1, ddof=1) * math.sqrt(enough.for_margin)
    assert 0.79 < np.mean(np.abs(t) > 2.262) < 0.83
    assert enough.for_margin == 10


def test_a_study_that_decides_as_it_goes_is_told_how_many_seeds_to_expect() -> None:
    decide = {"margin": 1.0, "max_seeds": 20, "first": 3}
    far, near = (
        seeds_by_deviation(small(seeds=20, decide={**decide, "margin": margin}), [1.0])[0] for margin in (5.0, 0.1)
    )
    assert far.expected is not None and near.expected is not None
    assert 3 <= far.expected < 8 and far.decided == 1.0  # five deviations apart
    assert near.expected > 18 and near.decided is not None and near.decided < 0.2
    assert seeds_by_deviation(small(), [1.0])[0].expected is None
    [by_hand] = seeds_by_deviation(small(seeds=20, decide=decide), [1.0])
    draws = np.random.default_rng(1).normal(1.0, 1.0, (200, 20))
    taken = [
        next((n for n in range(3, 21) if sequential.decide(row[:n], 1.0, 0.95, 0.0, 20) != "undecided"), 20)
        for row in draws
    ]
    assert by_hand.expected == pytest.approx(np.mean(taken), abs=3 * np.std(taken) / math.sqrt(200))


def test_no_study_decides_before_its_first_round_has_ended() -> None:
    study = small(seeds=20, margin=50.0, decide={"max_seeds": 20, "first": 6})
    [needed] = seeds_by_deviation(study, [0.01])  # a difference of 5,000 deviations is seen at two seeds
    assert needed.expected == 6 and needed.decided == 1


def test_trials_that_tune_are_counted(tmp_path: Path) -> None:
    study = small(tune={"learning_rate": {"log": [0.001, 1]}, "budget": 5, "seeds": 2}, seeds=3)
    planned = plan(study, tmp_path, device="cpu", workers=1)
    assert planned.trials == 2 * (3 + 5 * 2)
    assert planned.seconds == pytest.approx(13 * sum(arm.seconds for arm in planned.arms))
    assert any("tuned by 10 trials beforehand" in note for note in planned.notes)


@pytest.mark.parametrize("sd", [0.0, -1.0, math.nan, math.inf])
def test_a_deviation_is_above_zero(sd: float) -> None:
    with pytest.raises(SpecError, match=r"--sd .* above 0"):
        seeds_by_deviation(small(), [sd])


def shown(study: ExpandedStudy, errors: dict[str, list[float]]) -> Findings:
    """Return the findings of a study whose arms had these test errors, seed by seed."""
    rows = [(f"{arm}{seed}", arm, seed, value) for arm, values in errors.items() for seed, value in enumerate(values)]
    trials = pd.DataFrame(
        [(t, arm, arm, {}, seed, "finished", 1.0) for t, arm, seed, _ in rows],
        columns=["trial", "arm", "base", "factors", "seed", "state", "seconds"],
    )
    records = pd.DataFrame(
        [(t, 3, 12, "final-test", "error", value) for t, _, _, value in rows],
        columns=["trial", "epoch", "step", "split", "name", "value"],
    )
    return analyze(study, trials, records, {})


def test_a_pilot_gives_the_spread_and_the_difference_with_its_sign() -> None:
    study = small(contrasts=[["b", "a"]], margin=1.0)
    errors = {"a": [10.0, 11.0, 12.5, 13.0], "b": [11.0, 14.0, 13.5, 15.5]}
    d = np.subtract(errors["b"], errors["a"])
    for pilot in (study, small(contrasts=[["a", "b"]], name="other")):
        [needed] = seeds_by_pilot(study, shown(pilot, errors))
        assert needed.contrast == "b against a" and needed.pairs == 4
        assert needed.sd == pytest.approx(d.std(ddof=1))
        assert needed.difference == pytest.approx(d.mean())
        assert power(1 / needed.sd, needed.for_margin) >= 0.8 > power(1 / needed.sd, needed.for_margin - 1)
        assert power(d.mean() / needed.sd, needed.for_difference) >= 0.8


def test_a_pilot_without_spread_or_difference_is_planned_with_too() -> None:
    study = small(contrasts=[["b", "a"]])
    [same] = seeds_by_pilot(study, shown(study, {"a": [5.0, 5.0], "b": [5.0, 5.0]}))
    assert (same.sd, same.difference, same.for_difference) == (0.0, 0.0, 2)
    assert same.for_margin == 2
    [apart] = seeds_by_pilot(study, shown(study, {"a": [5.0, 5.0], "b": [7.0, 7.0]}))
    assert apart.sd > 0  # of the step in which errors move


def test_a_pilot_that_decided_as_it_went_gives_seeds_too() -> None:
    errors = {"a": [10.0, 11.0, 12.5, 13.0], "b": [11.0, 14.0, 13.5, 15.5]}
    decides = small(contrasts=[["b", "a"]], seeds=20, decide={"max_seeds": 20})
    study = small(contrasts=[["b", "a"]])
    [went], [fixed] = (seeds_by_pilot(study, shown(pilot, errors)) for pilot in (decides, study))
    assert went.for_difference == fixed.for_difference is not None


def test_a_pilot_that_says_nothing_is_refused() -> None:
    study = small(contrasts=[["b", "a"]])
    for pilot in (shown(study, {"a": [5.0], "b": [6.0]}), shown(study, {"a": [5.0, 6.0]})):
        with pytest.raises(
            SpecError, match=r"--pilot small: it has no contrast of small with at least two pairs"
        ) as caught:
            seeds_by_pilot(study, pilot)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("seeds", "why"),
    [({"init": 2, "order": 2}, "some of its pairs share seeds"), ({"init": 4}, "it has one seed of order")],
)
def test_a_pilot_whose_trials_are_not_independent_is_refused(seeds: dict[str, int], why: str) -> None:
    study, pilot = small(contrasts=[["b", "a"]]), small(contrasts=[["b", "a"]], seeds=seeds, name="pilot")
    rows = [(f"{arm}{n}", arm, name_seed(seed)) for arm in "ab" for n, seed in enumerate(pilot.seed_values)]
    trials = pd.DataFrame(rows, columns=["trial", "arm", "seed"]).assign(state="finished", seconds=1.0)
    trials = trials.assign(base=trials["arm"], factors=[{} for _ in rows])
    values = pd.DataFrame({"trial": trials["trial"], "value": [10.0, 11.0, 12.5, 13.0, 11.0, 14.0, 13.5, 15.5]})
    records = values.assign(epoch=3, step=12, split="final-test", name="error")
    with pytest.raises(SpecError, match=f"--pilot pilot: {why}, so it does not show"):
        seeds_by_pilot(study, analyze(pilot, trials, records, {}))


def test_trials_of_one_pace_are_timed_once() -> None:
    study = small(
        arms={"a": {"network": "mlp"}}, vary={"training.optimizer.learning_rate": [0.1, 0.2], "training.epochs": [1, 5]}
    )
    assert len({strip_for_timing(arm.trial) for arm in study.arms}) == 1
    wider = small(vary={"training.batch_size": [8, 16], "training.optimizer.name": ["sgd", "adam"]})
    assert len({strip_for_timing(arm.trial) for arm in wider.arms}) == 8


def test_timing_leaves_threads_and_generators_as_they_were() -> None:
    work = Work(strip_for_timing(small().arms[0].trial), (1, 8, 8), 10)
    before, state = torch.get_num_threads(), torch.random.get_rng_state()
    once = time_one(work, "cpu", 2, 0.0)
    assert torch.get_num_threads() == before
    assert torch.equal(torch.random.get_rng_state(), state)
    parameters = inspect_network(work.trial.network, (1, 8, 8), 10).parameters
    assert once.state == 2 * 4 * parameters and once.steps >= 3
    assert 0 < once.share <= 1 and once.step > 0 and once.evaluation > 0 and once.flow == 0 and once.snapshots == {}


def test_probes_are_timed_and_sized(tmp_path: Path) -> None:
    plain = small(arms={"a": {"network": {"family": "mlp", "hidden": 3}}})
    probed = small(
        arms={"a": {"network": {"family": "mlp", "hidden": 3}}},
        probes={"flow": {"every": 2}, "jacobian": {"images": 2}},
    )
    work = Work(strip_for_timing(probed.arms[0].trial), (1, 8, 8), 10)
    timed = time_one(work, "cpu", 1, 0.0)
    assert timed.flow_bytes > 0 and set(timed.snapshots) == {"jacobian"} and timed.snapshots["jacobian"][1] > 0
    one, other = (
        plan(each, tmp_path, device="cpu", workers=1, time=True, seconds=0.0).arms[0] for each in (plain, probed)
    )
    assert other.disk > one.disk


@pytest.mark.slow
def test_several_processes_time_all_that_is_asked(tmp_path: Path) -> None:
    work = [Work(strip_for_timing(arm.trial), (1, 8, 8), 10) for arm in small().arms]
    told: list[tuple[int, int]] = []
    timings = measure(work, "cpu", 1, 2, lambda done, all_: told.append((done, all_)), seconds=0.0)
    assert [timing.state for timing in timings] == [time_one(one, "cpu", 1, 0.0).state for one in work]
    assert told == [(0, 2), (1, 2), (2, 2)]


@pytest.mark.slow
def test_a_planned_trial_leaves_what_was_planned(tmp_path: Path) -> None:
    study = small(seeds=1)
    with Store.open(tmp_path) as store:
        store.register(study)
        InProcess().run(Job("small", tmp_path), lambda event: None)
        records = store.records_frame("small")
        checkpoints = [path.stat().st_size for path in store.checkpoints.glob("*.safetensors")]
    for arm in study.arms:
        assert (records["arm"] == arm.name).sum() == planning._records(arm.trial.training, 10)
    planned = plan(study, tmp_path, device="cpu", workers=1)
    states = [2 * 4 * arm.parameters for arm in planned.arms]
    assert sum(states) < sum(checkpoints) < sum(states) + 2 * 8192  # a header each, with the specification


def with_share(plan: Plan, share: float) -> Plan:
    return replace(plan, arms=tuple(replace(arm, share=share) for arm in plan.arms))


def test_the_text_names_every_number_with_its_unit(found: Plan) -> None:
    seeds = (*seeds_by_deviation(small(), [0.5]), SeedsNeeded("b against a", 9.0, 0.001, None, None, -2.0, 3487, 3))
    text = plantext.to_text(replace(found, seeds=seeds, fits=0, disk_free=10))
    assert "Total: 8 trials" in text and "sequentially" in text
    assert (
        f"about 10 seeds to detect a difference equal to the margin, 0.5 points; about {seeds[0].for_equivalence} seeds"
        " to show equivalence where there is no difference (standard deviation 0.5 points)" in text
    )
    assert (
        "b against a, test_error: more than 10,000 seeds to detect a difference equal to the margin, 0.001 points;"
        " more than 10,000 seeds to show equivalence where there is no difference; about 3,500 seeds" in text
    )
    assert "Few studies can afford more than 100 seeds" in text
    assert "can afford" not in plantext.to_text(replace(found, seeds=seeds[:1]))
    assert "on an idle machine" not in plantext.to_text(with_share(found, 1.0))
    assert "a worker had 25% of its cores; on an idle machine the time is about" in plantext.to_text(
        with_share(found, 0.25)
    )
    assert "enough for no worker" in text and "lower --workers or training.batch_size" in text
    assert "but 10 bytes are free" in text
    assert "2 per multiply-add" in text and "estimated from the operations" in text
    again = json.loads(json.dumps(plantext.to_json(replace(found, seeds=seeds)), allow_nan=False))
    assert again["trials"] == 8 and again["arms"][0]["arm"] == "a" and again["seeds"][1]["for_margin"] is None
    assert again["seeds"][1]["for_difference"] == 3487


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0012, "0.0012 s"), (9.94, "9.9 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (1e6, "11.6 days")],
)
def test_durations(seconds: float, text: str) -> None:
    assert plantext.duration(seconds) == text


@pytest.mark.slow
def test_a_plan_of_a_file_and_of_a_matched_study(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(
        "name: s\nmatch: parameters\ntraining: {epochs: 1}\ndata: {name: digits, train: 64, test: 50}\n"
        "arms: {a: {network: {family: mlp, hidden: 2, width: 64}}, b: {network: {family: mlp, hidden: 5, width: 64}}}\n"
    )
    asked = ["plan", str(tmp_path / "s.yaml"), "--workers", "1", "--sd", "0.5", "--json", "--runs", str(tmp_path)]
    result = CliRunner().invoke(app, asked, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    planned = json.loads(result.stdout)
    one, other = (arm["parameters"] for arm in planned["arms"])
    assert abs(one / other - 1) <= 0.01
    assert planned["notes"][0].startswith("match parameters: b stem.width 64 -> ")
    assert planned["seeds"][0]["for_margin"] == 10
    assert not list(tmp_path.glob("*.db"))


def test_early_stopping_is_planned_with_all_epochs_and_does_not_end_what_is_timed(tmp_path: Path) -> None:
    stopping = {"epochs": 3, "batch_size": 20, "early_stopping": {"patience": 1}}
    arms = {
        "stopping": {"network": {"family": "mlp", "hidden": 2}, "training": stopping},
        "whole": {"network": {"family": "mlp", "hidden": 2}, "training": {**stopping, "early_stopping": None}},
    }
    study = small(arms=arms, probes={"flow": {"every": 1}})
    timed = time_one(Work(strip_for_timing(study.arms[0].trial), (1, 8, 8), 10), "cpu", 1, 0.0)
    assert timed.steps >= timing.FEWEST_STEPS and timed.flow_bytes
    stopped, whole = (found := plan(study, tmp_path, workers=1)).arms
    assert (stopped.steps, stopped.flops) == (whole.steps, whole.flops)
    assert "Training of stopping may stop early; the estimates assume all epochs." in found.notes
    assert not any("stop early" in note for note in plan(small(), tmp_path, workers=1).notes)


def test_smaller_images_and_frozen_parameters_are_told_to_take_less(tmp_path: Path) -> None:
    training = {"epochs": 2, "batch_size": 64}
    network = {"network": {"family": "cifar-resnet", "depth": 8}}
    arms = {
        "resized": {**network, "training": {**training, "resizing": [{"until": 0.5, "scale": 0.5}]}},
        "tuned": {**network, "training": {**training, "rates": {"stem": 0.0, "stages": 0.1}}},
        "plain": {**network, "training": {**training, "rates": {"stages": 0.1}}},
    }
    study = small(arms=arms)
    resized = "Training of resized begins with smaller images; the FLOPs, an upper bound there, and the time are those"
    frozen = "Training of tuned freezes parameters; the FLOPs, an upper bound there,"
    notes = plan(study, tmp_path, device="cpu", workers=1).notes
    assert f"{resized} of whole images." in notes
    assert f"{frozen} and the estimated time are those of training all parameters." in notes
    notes = plan(study, tmp_path, device="cpu", workers=1, time=True, seconds=0.01).notes
    assert f"{resized} of whole images." in notes
    assert f"{frozen} are those of training all parameters." in notes
    assert not any("smaller" in note or "freezes" in note for note in plan(small(), tmp_path, workers=1).notes)


def test_averages_are_evaluated_where_weights_are(tmp_path: Path) -> None:
    swa = {"epochs": 4, "batch_size": 64, "test_every": 2, "averaging": {"name": "swa", "start": 0.75}}
    arms = {
        "averaged": {"network": {"family": "mlp", "hidden": 2, "width": 8}, "training": swa},
        "plain": {"network": {"family": "mlp", "hidden": 2, "width": 8}, "training": {**swa, "averaging": None}},
    }
    averaged, plain = plan(small(arms=arms), tmp_path, device="cpu", workers=1).arms
    operations = inspect_network(small(arms=arms).arms[0].trial.network, (1, 8, 8), 10).multiply_adds
    # on validation data after epochs 3 and 4 and at the end, on test data after epoch 4 and at the end; batch
    # statistics on training data each time that it is evaluated
    assert averaged.flops - plain.flops == 2 * operations * (3 * 100 + 2 * 50 + 3 * 200)


def test_pretraining_is_told_to_come_on_top(tmp_path: Path) -> None:
    network = {"family": "mlp", "hidden": 2, "width": 8, "activation": "sigmoid"}
    arms = {"plain": {"network": network}, "rbm": {"network": network, "pretraining": {"method": "rbm", "epochs": 2}}}
    timed: list[int] = []
    found = plan(
        small(arms=arms), tmp_path, workers=1, time=True, seconds=0.01, progress=lambda _, all_: timed.append(all_)
    )
    assert any("pre-training is neither timed nor counted" in note for note in found.notes)
    assert set(timed) == {1}  # one network, whatever came before
    assert not any("pre-training" in note for note in plan(small(), tmp_path, workers=1).notes)


def test_another_device_and_too_many_images_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="device 'tpu'"):
        plan(small(), tmp_path, device="tpu")
    with pytest.raises(DataError, match="training images requested"):
        plan(small(data={"name": "digits", "train": 5000}), tmp_path, device="cpu", workers=1)


def test_devices_share_a_trial(tmp_path: Path, found: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    beside: list[int] = []

    def measured(work: Any, device: str, threads: int, workers: int, *more: Any) -> Any:
        beside.append(workers)
        return measure(work, device, threads, 1, *more)

    monkeypatch.setattr(planning, "measure", measured)
    monkeypatch.setattr(planning, "count_cores", lambda: 6)
    two = plan(small(devices=2), tmp_path, device="cpu", time=True, seconds=0.01)
    assert two.workers == 3 and beside == [6]
    assert [arm.memory for arm in two.arms] == [2 * arm.memory for arm in found.arms]
    assert [arm.flops for arm in two.arms] == [arm.flops for arm in found.arms]
    assert any("trains on 2 devices" in note for note in two.notes)


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_what_does_not_fit_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def starved(*_: object) -> None:
        raise error

    monkeypatch.setattr(timing, "_time_one", starved)
    with pytest.raises(
        LeadlineError, match=r"^not enough memory for a training step of [\d,]+ parameters at batch size 64"
    ):
        plan(small(), tmp_path, device="cpu", workers=1, time=True)


def test_a_recomputed_network_goes_forward_twice(tmp_path: Path) -> None:
    block = {"stages": [{"blocks": 2, "width": 4}]}
    plain, recomputed = (
        plan(
            small(arms={"a": {"network": {**block, "checkpoint_blocks": given}}}),
            tmp_path,
            device="cpu",
            workers=1,
        ).arms[0]
        for given in (False, True)
    )
    assert (
        recomputed.flops - plain.flops
        == 2
        * 3
        * 200
        * inspect_network(small(arms={"a": {"network": block}}).arms[0].trial.network, (1, 8, 8), 10).multiply_adds
    )


def test_specs_of_probes_and_training_are_untouched_by_essence() -> None:
    trial = small(probes={"flow": {"every": 3}}).arms[0].trial
    assert strip_for_timing(trial).probes == trial.probes != ProbeSpec()
    assert strip_for_timing(trial).training.batch_size == trial.training.batch_size
    assert trial.training == TrainingSpec(epochs=3, batch_size=64, test_every=2)


class Filtered(torch.nn.Module):
    """A linear layer of an image's spectrum, whose transform no counter sees."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(channels * 64, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.linear(torch.fft.fft2(images).abs().flatten(1))
        return out


def filtered(input_shape: tuple[int, int, int], classes: int) -> torch.nn.Module:
    return Filtered(input_shape[0], classes)


@pytest.mark.slow
def test_operations_that_are_not_counted_are_named(tmp_path: Path) -> None:
    arms = {"filtered": {"network": {"module": f"{__name__}:filtered"}}, "plain": {"network": "comparative-plain"}}
    notes = plan(small(arms=arms, vary={}), tmp_path, device="cpu", workers=1).notes
    assert [note for note in notes if note.startswith("Not counted")] == ["Not counted in the FLOPs: aten::_fft_c2c."]


def sized(
    input_shape: tuple[int, int, int], classes: int, sizes: list[int], options: dict[str, bool]
) -> torch.nn.Module:
    inside = math.prod(input_shape)
    layers = [torch.nn.Flatten(), torch.nn.Linear(inside, sizes[0]), torch.nn.Linear(sizes[0], classes, **options)]
    return torch.nn.Sequential(*layers)


def decayed(progress: float, factors: list[float]) -> float:
    return factors[0]


def test_custom_code_with_lists_and_mappings_as_arguments_is_planned(tmp_path: Path) -> None:
    arms = {
        f"a{size}": {
            "network": {"module": f"{__name__}:sized", "arguments": {"sizes": [size], "options": {"bias": True}}}
        }
        for size in (3, 4)
    }
    schedule = {"module": f"{__name__}:decayed", "arguments": {"factors": [1.0]}}
    study = small(arms=arms, training={"epochs": 1, "batch_size": 64, "schedule": schedule})
    found = plan(study, tmp_path, device="cpu", workers=1)
    assert [arm.parameters for arm in found.arms] == [65 * size + 10 * size + 10 for size in (3, 4)]


def test_what_data_are_not_used_is_noted(tmp_path: Path) -> None:
    for number in range(20):
        path = tmp_path / "pets" / "train" / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 10 * number).save(path)
    (tmp_path / "pets" / "extra").mkdir()
    data = {"name": "imagefolder", "path": str(tmp_path / "pets"), "size": 8, "channels": "grey", "augment": None}
    notes = plan(small(data=data), tmp_path, device="cpu", workers=1).notes
    assert notes[0].startswith(f"{tmp_path / 'pets'}: not used: extra")
    assert not any("mixed in pairs" in note for note in notes)
    assert not any("Augmentation" in note for note in notes)
    mixed = plan(small(data={**data, "augment": "mixup"}), tmp_path, device="cpu", workers=1).notes
    assert "Augmentation is not in the time of networks that were not timed: use --time." in mixed
    assert "Where images are mixed in pairs, two are decoded for each image of a batch." in mixed


# --- a last batch that cannot be trained on

DEEP = {
    "stages": [{"blocks": 1, "width": 4}, {"blocks": 1, "width": 4, "stride": 2}],
    "stem": {"width": 4, "stride": 8},
}


@pytest.mark.parametrize(
    ("network", "train", "batch_size", "change"),
    [
        (DEEP, 65, 64, "set training.batch_size to 63 or data.train to 64"),
        (DEEP, 65, 2, "set training.batch_size to 3 or data.train to 64"),
        (DEEP, 20, 1, "set training.batch_size to 2"),
        ({"family": "mlp", "hidden": 2, "width": 8, "normalisation": "batch"}, 21, 20, "set training.batch_size to 19"),
    ],
)
def test_a_last_batch_of_one_is_refused_by_the_plan_and_by_the_run(
    tmp_path: Path, network: dict[str, Any], train: int, batch_size: int, change: str
) -> None:
    data = {"name": "digits", "train": train, "validation": 50, "test": 50}
    training = {"epochs": 1, "batch_size": batch_size}
    study = small(data=data, training=training, arms={"a": {"network": "mlp"}, "b": {"network": network}}, seeds=1)
    for refuse in (
        lambda: plan(study, tmp_path, device="cpu", workers=1),
        lambda: pipeline.prepare(study, None),
        lambda: list(ll.train(network, data, training)),
    ):
        with pytest.raises(
            SpecError, match=r"the last batch of an epoch is one image of \d+, and batch norm"
        ) as caught:
            refuse()
        assert change in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("network", "train", "batch_size"),
    [
        (DEEP, 64, 64),
        (DEEP, 66, 64),
        ({**DEEP, "normalisation": "none"}, 65, 64),
        ({**DEEP, "stem": {"width": 4}}, 65, 64),  # one image has several values per channel
        ({"family": "mlp", "hidden": 2, "width": 8}, 65, 64),
    ],
)
def test_other_last_batches_are_trained_on(network: dict[str, Any], train: int, batch_size: int) -> None:
    data = {"name": "digits", "train": train, "validation": 50, "test": 50}
    study = small(data=data, training={"epochs": 1, "batch_size": batch_size}, arms={"b": {"network": network}})
    pipeline.prepare(study, None)
    assert list(ll.train(network, data, {"epochs": 1, "batch_size": batch_size}))[-1].split == "final-test"


# --- where the speed comes from


@pytest.mark.parametrize(
    ("changed", "noted"),
    [
        ({}, True),
        ({"precision": "bfloat16"}, False),
        ({"has_amx": False}, False),
        ({"long": 1e9}, False),
        ({"large": 9}, False),
        ({"family": "mlp"}, False),
    ],
)
def test_a_long_study_of_convolutions_in_float32_is_told_of_faster_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], noted: bool
) -> None:
    case = {"family": "comparative-cnn", "precision": "float32", "has_amx": True, "long": 0, "large": 8} | changed
    monkeypatch.setattr(planning, "multiplies_bfloat16", lambda: case["has_amx"])
    monkeypatch.setattr(planning, "LONG", case["long"])
    monkeypatch.setattr(planning, "LARGE", case["large"])
    training = {"epochs": 1, "batch_size": 64, "precision": case["precision"]}
    study = small(training=training, arms={case["family"]: {"network": {"family": case["family"]}}})
    in_half = case["precision"] != "float32"
    notes = plan(study, tmp_path, device="cpu", workers=1, time=in_half, seconds=0.01).notes
    assert any("training.precision=bfloat16" in note for note in notes) == noted


def test_an_estimate_is_what_is_called_times_what_a_call_takes(tmp_path: Path, known_speed: dict[str, float]) -> None:
    quick, slow = (plan(small(), tmp_path, device="cpu", workers=1).arms[0] for _ in range(2))
    assert quick == slow and quick.timed == 0 and quick.day == timing.today()
    work = Work(strip_for_timing(small().arms[0].trial), (1, 8, 8), 10)
    traced = trace(work)
    step = step_amounts(work, traced)
    assert step is not None
    # forward 3 products; backward 3 of weights and 2 of inputs, as images need no gradient
    products = 64 * (64 * 8 + 8 * 8 + 8 * 10)
    assert step["multiply-adds of products"] == 3 * products - 64 * 64 * 8
    assert step["steps"] == 1 and step["updated values"] == 5 * traced.parameters
    assert predict(known_speed, step) == pytest.approx(
        1e-3 + 1e-5 * step["calls"] + 2e-9 * step["multiply-adds of products"]
    )


@pytest.mark.parametrize(
    ("network", "shape"),
    [
        (networks.cifar_resnet(depth=20, shortcut="A"), (3, 32, 32)),
        (networks.densenet(depth=22), (3, 32, 32)),
        (networks.cifar_preresnet(depth=29), (3, 32, 32)),
        (networks.recnet(), (1, 8, 8)),
        (networks.resnext(depth=50), (3, 64, 64)),
        (networks.mlp(activation="tanh"), (1, 8, 8)),
    ],
)
def test_a_trace_counts_as_inspection_does(network: NetworkSpec, shape: tuple[int, int, int]) -> None:
    trial = TrialSpec(network=network, training=TrainingSpec(batch_size=64))
    with remember_shapes():
        traced = trace(Work(trial, shape, 10))
    info = inspect_network(network, shape, 10)
    assert (traced.parameters, traced.multiply_adds) == (info.parameters, info.multiply_adds)
    assert traced.kept == pytest.approx(64 * info.training_memory, rel=0.02)  # but for what has no batch
    assert traced.peak == pytest.approx(traced.evaluated * info.inference_memory, rel=0.02)


def test_remembered_shapes_are_those_of_the_cpu() -> None:
    for network in (networks.cifar_resnet(depth=8, shortcut="A"), networks.densenet(depth=10), networks.recnet()):
        for layout in (torch.channels_last, torch.contiguous_format):
            seen: dict[str, list[tuple[object, ...]]] = {}
            for device in ("cpu", "meta"):
                model = build(network, (3, 8, 8), 10).to(device).to(memory_format=layout)
                images = torch.zeros(4, 3, 8, 8, device=device).to(memory_format=layout)
                with remember_shapes():
                    for _ in range(2):  # the second time from memory
                        outputs: list[torch.Tensor] = []
                        hooks = [
                            one.register_forward_hook(lambda _m, _i, out: outputs.append(out))  # noqa: B023
                            for one in model.modules()
                        ]
                        model(images).sum().backward()
                        for hook in hooks:
                            hook.remove()
                gradients = [one.grad for one in model.parameters() if one.grad is not None]
                seen[device] = [(one.shape, one.dtype) for one in outputs + gradients]
            assert seen["cpu"] == seen["meta"]


def test_a_fit_finds_the_time_of_each_operation() -> None:
    units = {"calls": 2e-5, "multiply-adds": 3e-11, "values": 1e-9}
    rng = np.random.default_rng(0)
    amounts = [Counter({name: int(rng.integers(1, 100) / value) for name, value in units.items()}) for _ in range(8)]
    samples = [calibration.Sample(one, predict(units, one)) for one in amounts]
    assert calibration.fit(samples) == pytest.approx(units, rel=1e-6)


def test_what_is_timed_is_kept_and_used(tmp_path: Path) -> None:
    first = plan(small(), tmp_path, device="cpu", workers=1, time=True, seconds=0.01)
    assert all(arm.timed >= 3 for arm in first.arms) and not first.estimated
    again = plan(small(), tmp_path, device="cpu", workers=1)
    assert again.arms == first.arms and "timed on" in plantext.to_text(again)
    assert "about" not in plantext.to_text(again).partition("sequentially")[0]
    # another network is estimated beside them, and with more networks at once so are they all
    more = plan(small(arms={"a": {"network": "mlp"}, "c": {"network": "comparative-plain"}}), tmp_path, workers=1)
    assert [bool(arm.timed) for arm in more.arms] == [True, False] and more.estimated
    assert "about" in plantext.to_text(more)
    assert plan(small(), tmp_path, device="cpu", workers=2).estimated


@pytest.mark.parametrize("content", ["", "{", "[]", '{"machine": {}}', '{"machine": {"host": "other"}, "units": {}}'])
def test_a_calibration_is_made_once_and_again_if_its_file_is_damaged(tmp_path: Path, content: str) -> None:
    said: list[str] = []
    plan(small(), tmp_path, device="cpu", workers=1, say=said.append)
    assert said == ["calibrating this machine (once, about 8 s)"]
    plan(small(), tmp_path, device="cpu", workers=1, say=said.append)
    assert len(said) == 1
    [file] = (tmp_path / "cache" / "leadline" / "speed").glob("calibration-*.json")
    file.write_text(content)
    plan(small(), tmp_path, device="cpu", workers=1, say=said.append)
    assert len(said) == 2 and said[1].startswith(f"{file} is ") and said[1].endswith(said[0])
    plan(small(), tmp_path, device="cpu", workers=1, say=said.append)
    assert len(said) == 2


@pytest.mark.parametrize("second", [math.nan, math.inf, -1.0, 0.0, "long"])
def test_times_that_are_none_are_measured_again(tmp_path: Path, second: float | str) -> None:
    said: list[str] = []
    plan(small(), tmp_path, device="cpu", workers=1, say=said.append)
    [file] = (tmp_path / "cache" / "leadline" / "speed").glob("calibration-*.json")
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "units": dict.fromkeys(content["units"], second)}))
    seconds = plan(small(), tmp_path, device="cpu", workers=1, say=said.append).worker_seconds
    assert "is damaged; calibrating" in said[1] and seconds is not None and 0 < seconds < math.inf


@pytest.mark.slow
def test_a_calibration_times_networks_of_every_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    some = [work for number, work in enumerate(calibration.networks_to_time()) if number in (1, 4, 7)]
    monkeypatch.setattr(calibration, "networks_to_time", lambda: iter(some))
    units = calibration.calibrate(torch.device("cpu"), 1)
    assert {"steps", "calls", "multiply-adds, convolved", "multiply-adds of products"} <= units.keys()
    assert all(value >= 0 for value in units.values()) and sum(units.values()) > 0


def test_what_cannot_be_counted_is_timed_only(tmp_path: Path) -> None:
    arms = {"filtered": {"network": {"module": f"{__name__}:filtered"}}, "plain": {"network": "mlp"}}
    found = plan(small(arms=arms, vary={}), tmp_path, device="cpu", workers=1)
    assert [arm.seconds is None for arm in found.arms] == [True, False]
    text = plantext.to_text(found)
    assert "Time of filtered: not known; it is estimated in float32 only" in text and "Use --time to time" in text
    assert json.loads(json.dumps(plantext.to_json(found), allow_nan=False))["seconds"] is None
    timed = plan(small(arms=arms, vary={}), tmp_path, device="cpu", workers=1, time=True, seconds=0.01)
    assert timed.seconds is not None
    custom = {"epochs": 1, "optimizer": {"module": "torch.optim:NAdam", "arguments": {"lr": 0.001}}}
    assert plan(small(training=custom), tmp_path, device="cpu", workers=1).seconds is None
