"""Early stopping: against training to the end with the choice made afterwards, resumed, stored, compared and told."""

import math
from pathlib import Path

import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import leadline as ll
from leadline.api.probing import probe_trial
from leadline.cli import app
from leadline.data.batches import Dataset, load
from leadline.errors import SpecError
from leadline.networks import mlp
from leadline.networks.modules import build
from leadline.parts.base import parse
from leadline.parts.metrics.record import Record
from leadline.probes.snapshots import find_probe
from leadline.reports.charts.frames import curve_frame, sum_up
from leadline.reports.writing import read_study
from leadline.running.repeating import repeats
from leadline.specs import DataSpec, ProbeSpec, TrainingSpec
from leadline.specs.study import StudySpec
from leadline.store import Store
from leadline.study.expand import expand
from leadline.text import plural
from leadline.training import TrainState, prepare, train
from resuming import assert_resumes_to_the_bit

CPU = torch.device("cpu")
EPOCHS = 12


@pytest.fixture(scope="module")
def digits() -> Dataset:
    data = load(DataSpec(name="digits", train=70, validation=30, test=20))
    assert isinstance(data, Dataset)
    return data


def recipe(**settings: object) -> TrainingSpec:
    optimizer = {"name": "adam", "learning_rate": 0.2}
    return parse(TrainingSpec, {"epochs": EPOCHS, "batch_size": 20, "optimizer": optimizer, **settings})


def fresh(spec: TrainingSpec) -> TrainState:
    return prepare(build(mlp(hidden=1, width=16), (1, 8, 8), 10, 0), spec, CPU)


@pytest.fixture(scope="module")
def whole(digits: Dataset) -> tuple[list[Record], list[dict[str, Tensor]]]:
    """The records of training to the end, and the weights after each epoch."""
    spec = recipe(schedule="cosine")
    state, records, weights = fresh(spec), [], []
    for record in train(state, digits, spec, 1):
        records.append(record)
        if len(weights) < state.epoch:
            weights.append({name: one.clone() for name, one in state.model.state_dict().items()})
    return records, weights


def choose(records: list[Record], metric: str, patience: int) -> tuple[int, int]:
    """Return after which epoch training ends, and which is the best until then, both from 1."""
    values = [one.value for one in records if (one.split, one.name) == ("validation", metric)]
    for epoch in range(1, len(values) + 1):
        best = values.index(min(values[:epoch])) + 1
        if epoch - best >= patience:
            return epoch, best
    return len(values), values.index(min(values)) + 1


@pytest.mark.parametrize(("metric", "patience"), [("loss", 1), ("loss", 2), ("error", 3), ("error", EPOCHS)])
def test_it_is_the_choice_among_the_epochs_of_whole_training(
    digits: Dataset, whole: tuple[list[Record], list[dict[str, Tensor]]], metric: str, patience: int
) -> None:
    records, weights = whole
    end, best = choose(records, metric, patience)
    assert best < end and (end < EPOCHS or patience == EPOCHS)
    spec = recipe(schedule="cosine", early_stopping={"metric": metric, "patience": patience})
    state = fresh(spec)
    found = list(train(state, digits, spec, 1))
    during = [one for one in records if not one.split.startswith("final") and one.epoch <= end and one.split != "time"]
    assert [one for one in found if not one.split.startswith("final") and one.split != "time"] == during
    for name, tensor in state.model.state_dict().items():
        assert torch.equal(tensor, weights[best - 1][name]), name
    value = {(one.split, one.name): one.value for one in found if one.split.startswith("final")}
    assert (value["final-epochs", "trained"], value["final-epochs", "best"]) == (end, best)
    expected = {one.name: one.value for one in records if (one.split, one.epoch) == ("validation", best)}
    assert {name: value["final-validation", name] for name in expected} == expected
    assert state.epoch == end


@pytest.mark.parametrize("stops", [(1, 2, 3), (4, 8), (7, 12)])
def test_it_resumes_to_the_bit(digits: Dataset, stops: tuple[int, ...]) -> None:
    spec = recipe(schedule="cosine", early_stopping={"patience": 2}, averaging={"name": "ema", "decay": 0.9})
    records = assert_resumes_to_the_bit(lambda: fresh(spec), digits, spec, stops, parse(ProbeSpec, {}))
    assert max(one.epoch for one in records) < EPOCHS


def test_what_is_resumed_after_its_last_epoch_trains_no_more(digits: Dataset) -> None:
    spec = recipe(early_stopping={"metric": "error", "patience": 1})
    state = fresh(spec)
    whole = list(train(state, digits, spec, 1))
    again = fresh(spec)
    again.load({name: one.clone() for name, one in state.tensors().items()}, state.step, state.epoch)
    rest = list(train(again, digits, spec, 1))
    assert rest == [one for one in whole if one.split.startswith("final")]


def test_an_average_that_may_never_begin_is_refused() -> None:
    stopping = {"early_stopping": {"patience": 2}}
    with pytest.raises(SpecError, match=r"averaging swa starts .* before which early_stopping may end training"):
        recipe(**stopping, averaging="swa")
    for averaging in ("ema", {"name": "swa", "start": 0}):
        recipe(**stopping, averaging=averaging)


def test_any_number_is_better_than_a_result_that_is_none(digits: Dataset) -> None:
    spec = recipe(early_stopping={"patience": 2})
    state = fresh(spec)
    best = state.best
    assert best is not None
    for epoch, loss in enumerate([math.nan, 3.0, math.nan], 1):
        best.update(state.model, epoch, {"loss": loss})
    assert (best.epoch, best.value) == (2, 3.0)
    assert not best.ends_training(3) and best.ends_training(4)


def test_a_metric_that_the_task_does_not_measure_is_refused(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = recipe(early_stopping={"metric": "error", "patience": 1})
    monkeypatch.setattr("leadline.parts.tasks.classification.Classification.values", lambda *_: {"loss": 1.0})
    with pytest.raises(SpecError, match=r"early_stopping\.metric: error is not measured on the validation part"):
        list(train(fresh(spec), digits, spec, 1))


STUDY = {
    "name": "stopped",
    "data": {"name": "digits", "train": 100, "validation": 50, "test": 50},
    "training": {
        "epochs": 8,
        "batch_size": 20,
        "optimizer": {"name": "adam", "learning_rate": 0.05},
        "early_stopping": {"metric": "error", "patience": 2},
    },
    "arms": {
        "narrow": {"network": {"family": "mlp", "width": 16}},
        "wide": {"network": {"family": "mlp", "width": 64}},
        "whole": {"network": {"family": "mlp", "width": 64}, "training": {"early_stopping": None}},
    },
    "contrasts": [
        {"a": "wide", "b": "narrow"},
        {"a": "wide", "b": "narrow", "metric": "epochs_trained"},
        {"a": "wide", "b": "whole", "metric": "epochs_to", "target": 40},
    ],
    "probes": ["cka"],
    "seeds": 3,
}


@pytest.mark.slow
def test_a_study_tells_how_long_its_arms_were_trained(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    study = ll.Study.load(STUDY)
    results = study.run(runs, workers=0)
    records = results.records
    trained = records[records["split"].eq("final-epochs") & records["name"].eq("trained")]
    assert set(trained["arm"]) == {"narrow", "wide"} and trained["value"].max() <= 8 and trained["value"].min() < 8
    epochs = records[records["split"].eq("validation")].groupby("trial")["epoch"].max()
    assert dict(zip(trained["trial"], trained["value"], strict=True)) == epochs[trained["trial"]].to_dict()
    verdict = results.verdict()
    arms = verdict.to_json()["arms"]
    wide = trained[trained["arm"].eq("wide")]["value"]
    assert arms["wide"]["epochs_trained"]["mean"] == pytest.approx(wide.mean())
    assert arms["whole"].get("epochs_trained") is None
    text = " ".join(str(verdict).split())
    assert "where training stops early, of narrow and wide, the network of the best epoch" in text
    assert "Epochs of training" in text
    # what is exported is the network that was tested, and the store is in order
    row = records[records["trial"].eq(trained["trial"].iloc[0]) & records["split"].eq("final-validation")]
    network = results.network(str(trained["arm"].iloc[0]), int(trained["seed"].iloc[0]))
    loss = row[row["name"].eq("loss")]["value"].iloc[0]
    data = load(parse(StudySpec, STUDY).data)
    images, labels = next(iter(data.evaluation_batches("validation", 50)))
    with torch.no_grad():
        assert torch.nn.functional.cross_entropy(network.eval()(images), labels).item() == pytest.approx(loss, rel=1e-5)
    result = CliRunner().invoke(app, ["check", "--runs", str(runs)])
    assert result.exit_code == 0, result.output
    best = records[records["name"].eq("best") & records["trial"].eq(trained["trial"].iloc[0])]["value"].iloc[0]
    one = str(trained["trial"].iloc[0])
    result = CliRunner().invoke(app, ["show", one, "--runs", str(runs)])
    assert f"epoch of the tested network: {int(best)}\n" in result.output
    result = CliRunner().invoke(app, ["export", one, "--runs", str(runs), "--output", str(tmp_path / "exported")])
    assert "The weights are those after the best epoch on the validation images." in result.output
    with Store.open(runs) as store:
        assert repeats(store, "stopped", str(trained["trial"].iloc[0]), None, "cpu")
    curves = curve_frame(results.trials, sum_up(results.trials, records), "error")
    assert curves.groupby("arm")["epoch"].max().to_dict() == {**trained.groupby("arm")["value"].min(), "whole": 8}
    assert set(curves["seeds"]) == {3}
    results.report(tmp_path / "report")


def test_probes_tell_the_epoch_of_the_network_that_they_measure(tmp_path: Path) -> None:
    runs, network = tmp_path / "runs", {"network": {"family": "mlp", "width": 16}}
    arms = {"stopped": network, "whole": {**network, "training": {"early_stopping": None}}}
    study = ll.Study.load({**STUDY, "arms": arms, "contrasts": [], "probes": ["cka"], "seeds": 1})
    results = study.run(runs, workers=0)
    final = results.records.query("split == 'final-epochs'").set_index("name")["value"].astype(int)
    trained, best = final["trained"], final["best"]
    assert best < trained
    with Store.open(runs) as store:
        hashes = results.trials.set_index("base")["trial"]
        epochs = {
            (base, start): set(probe_trial(store, hashes[base], find_probe("cka"), 8, at_initialisation=start)["epoch"])
            for base in arms
            for start in (False, True)
        }
        (probe,) = read_study(store, "stopped").diagnostics.probes
    assert epochs == {
        ("stopped", False): {best},
        ("stopped", True): {0},
        ("whole", False): {8},
        ("whole", True): {0},
    }
    result = CliRunner().invoke(app, ["probe", hashes["stopped"], "cka", "--images", "8", "--runs", str(runs)])
    assert f"seed 0, after {plural(best, 'epoch')}" in result.output
    assert set(probe.frame.query("base == 'stopped'")["epoch"]) == {0, trained}
    said = "what is shown of stopped after a trial's last epoch is the network of its best epoch."
    assert f"Early stopping: {said}" in probe.how


def test_a_mean_over_epochs_needs_equal_numbers() -> None:
    contrasts = [{"a": "wide", "b": "narrow", "metric": "learning_curve_area"}]
    with pytest.raises(SpecError, match="wide stops early, after a number of epochs that differs from trial to trial"):
        expand(parse(StudySpec, {**STUDY, "contrasts": contrasts}))
    with pytest.raises(SpecError, match=r"metric epochs_trained needs training\.early_stopping, which arm whole"):
        expand(parse(StudySpec, {**STUDY, "contrasts": [{"a": "wide", "b": "whole", "metric": "epochs_trained"}]}))


def test_training_to_the_end_is_in_no_hash() -> None:
    assert "early_stopping" not in TrainingSpec().model_dump()
    with pytest.raises(SpecError, match=r"early_stopping: 'patience' is required but missing"):
        recipe(early_stopping={})
