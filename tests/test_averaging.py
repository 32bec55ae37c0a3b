"""Averages of weights: against PyTorch's own, resumed to the bit, recorded, and compared where arms have them."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn, update_bn
from typer.testing import CliRunner

import leadline as ll
from leadline.cli import app
from leadline.data.batches import Dataset, load
from leadline.errors import DataError, SpecError, StoreError
from leadline.networks import cifar_resnet
from leadline.networks.modules import build
from leadline.parts.averaging import AVERAGES
from leadline.parts.base import parse
from leadline.running.executors import InProcess
from leadline.running.job import Job
from leadline.running.repeating import repeats
from leadline.specs import SGD, DataSpec, TrainingSpec
from leadline.specs.study import StudySpec
from leadline.store import Store
from leadline.study.expand import expand
from leadline.training import TrainState, evaluate, prepare, train
from resuming import assert_resumes_to_the_bit

CPU = torch.device("cpu")
NETWORK = cifar_resnet(8)


@pytest.fixture(scope="module")
def digits() -> Dataset:
    data = load(DataSpec(name="digits", train=70, validation=30, test=20, augment={"name": "translation"}))
    assert isinstance(data, Dataset)
    return data


def recipe(averaging: object, epochs: int = 4) -> TrainingSpec:
    return parse(
        TrainingSpec,
        {"epochs": epochs, "batch_size": 20, "optimizer": SGD(learning_rate=0.05), "averaging": averaging},
    )


def fresh(spec: TrainingSpec) -> TrainState:
    return prepare(build(NETWORK, (1, 8, 8), 10, 0), spec, CPU)


def test_an_exponential_moving_average_is_pytorchs(digits: Dataset) -> None:
    spec = recipe({"name": "ema", "decay": 0.8}, epochs=2)
    state = fresh(spec)
    theirs = AveragedModel(state.model, multi_avg_fn=get_ema_multi_avg_fn(0.8), use_buffers=True)
    for record in train(state, digits, spec, 1, pause=lambda step: True):
        if record.split == "batch":
            theirs.update_parameters(state.model)
    assert state.average is not None and state.average.count == 8
    for name, tensor in theirs.module.state_dict().items():
        if tensor.is_floating_point():
            assert torch.equal(state.average.tensors[name], tensor), name
        else:
            assert state.average.tensors[name] == 8  # a counter counts


def test_a_decay_that_warms_up_is_that_of_tensorflow() -> None:
    averaging = recipe({"name": "ema", "decay": 0.99, "warmup": True}).averaging
    assert averaging is not None
    decays = [1 - averaging.share(step - 1, step, 2000, 10) for step in (1, 2, 9, 2000)]
    assert decays == pytest.approx([2 / 11, 3 / 12, 10 / 19, 0.99])


def test_stochastic_weight_averaging_is_pytorchs_with_its_batch_statistics(digits: Dataset) -> None:
    spec = recipe({"name": "swa", "start": 0.5})
    state = fresh(spec)
    theirs = AveragedModel(state.model, multi_avg_fn=get_swa_multi_avg_fn())
    records = []
    for record in train(state, digits, spec, 1, pause=lambda step: True):
        records.append(record)
        if record.split == "batch" and record.step in (8, 12, 16):  # the ends of epochs 2, 3 and 4
            theirs.update_parameters(state.model)
    assert state.average is not None and state.average.count == 3
    for name, parameter in theirs.module.named_parameters():
        assert torch.equal(state.average.tensors[name], parameter), name
    last = copy.deepcopy(state.model.state_dict())
    update_bn(digits.evaluation_batches("train", 20), theirs)
    expected = evaluate(theirs.module, digits, "test", spec)
    found = {one.name: one.value for one in records if one.split == "final-averaged-test"}
    assert {name: found[name] for name in expected.values} == dict(expected.values)
    own = {one.name: one.value for one in records if one.split == "final-test"}
    assert own["loss"] != found["loss"] and own.keys() == found.keys()
    # the trained weights are what they were, statistics included
    assert evaluate(state.model, digits, "test", spec).values["loss"] == own["loss"]
    assert all(torch.equal(last[name], tensor) for name, tensor in state.model.state_dict().items())
    assert [one.epoch for one in records if (one.split, one.name) == ("averaged-validation", "error")] == [2, 3, 4]


@pytest.mark.parametrize(
    "averaging", [{"name": "ema", "decay": 0.7, "warmup": True}, {"name": "swa", "start": 0.25}], ids=["ema", "swa"]
)
def test_a_resumed_average_has_the_same_bits(digits: Dataset, averaging: object) -> None:
    spec = recipe(averaging, epochs=3).with_(test_every=2)
    records = assert_resumes_to_the_bit(lambda: fresh(spec), digits, spec, (2, 4, 7))
    assert (2, "averaged-test") in {(one.epoch, one.split) for one in records}


def test_averaging_changes_nothing_about_the_weights_that_are_trained(digits: Dataset) -> None:
    spec = recipe("swa", epochs=2)
    with_it, without = fresh(spec), fresh(spec.with_(averaging=None))
    records = list(train(with_it, digits, spec, 1))
    others = list(train(without, digits, spec.with_(averaging=None), 1))
    kept = [one for one in records if "averaged" not in one.split and one.split != "time"]
    assert kept == [one for one in others if one.split != "time"]
    for name, tensor in without.tensors().items():
        assert torch.equal(tensor, with_it.tensors()[name]), name


def latest(progress: float, averaged: int) -> float:
    """The weights of the first half alone, then nothing more."""
    return 1.0 if progress <= 0.5 else 0.0


def nothing(progress: float, averaged: int) -> float:
    return 0.0


def test_an_average_of_the_users_own(digits: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = recipe(latest, epochs=2)
    state, half = fresh(spec), {}
    for record in train(state, digits, spec, 1, pause=lambda step: step == 4):
        if record.split == "batch":
            half = {name: one.detach().clone() for name, one in state.model.named_parameters()}
    assert state.average is not None and state.average.count == 4
    assert half and all(torch.equal(state.average.tensors[name], one) for name, one in half.items())
    monkeypatch.setenv("LEADLINE_TRUST", "math")
    with pytest.raises(SpecError, match=r"math:pow returned 2\.0 at step 4; expected a number from 0 to 1"):
        parse(TrainingSpec, {"averaging": "math:pow"}).averaging.share(1, 4, 2, 1)  # type: ignore[union-attr]


def test_names_and_hashes() -> None:
    assert sorted(AVERAGES.members()) == ["ema", "swa"]
    assert "averaging" not in TrainingSpec().model_dump(mode="json")
    assert recipe("ema").content_hash != recipe(None).content_hash
    with pytest.raises(SpecError, match=r"averaging.decay: 1.0: input should be less than 1"):
        recipe({"name": "ema", "decay": 1.0})


STUDY = {
    "name": "averaged",
    "data": {"name": "digits", "train": 200, "validation": 20, "test": 100},
    "training": {
        "epochs": 4,
        "batch_size": 20,
        "optimizer": {"name": "adam", "learning_rate": 0.01},
        "averaging": {"name": "swa", "start": 0.5},
    },
    "arms": {"narrow": {"network": {"family": "mlp", "width": 8}}, "wide": {"network": {"family": "mlp", "width": 32}}},
    "contrasts": [
        {"a": "wide", "b": "narrow", "metric": "averaged_test_error"},
        {"a": "wide", "b": "narrow", "metric": "averaged_test_loss"},
        {"a": "wide", "b": "narrow"},
    ],
    "seeds": 2,
}


def test_a_contrast_compares_averaged_weights(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        store.register(expand(parse(StudySpec, STUDY)))
        InProcess().run(Job("averaged", tmp_path), lambda event: None)
        records = store.records_frame("averaged", splits=["final-averaged-test", "final-test"])
        trial = str(records["trial"][0])
        assert repeats(store, "averaged", trial, None, "cpu")
    errors = records[records["name"].eq("error")].set_index(["split", "arm", "seed"])["value"]
    averaged, last = errors["final-averaged-test"], errors["final-test"]
    verdict = ll.Results("averaged", tmp_path).verdict()
    effects = {one["metric"]: one["difference"] for one in verdict.to_json()["contrasts"]}
    for metric, values in (("averaged_test_error", averaged), ("test_error", last)):
        assert effects[metric] == pytest.approx((values["wide"] - values["narrow"]).mean())
    assert not averaged.equals(last)


def test_what_is_not_averaged_cannot_be_compared_by_it() -> None:
    arms = {**STUDY["arms"], "plain": {"network": "mlp", "training": {"averaging": None}}}  # type: ignore[dict-item]
    contrasts = [{"a": "wide", "b": "plain", "metric": "averaged_test_error"}]
    with pytest.raises(
        SpecError, match=r"contrasts.0: metric averaged_test_error needs training.averaging, which arm plain does not"
    ):
        expand(parse(StudySpec, {**STUDY, "arms": arms, "contrasts": contrasts}))


@pytest.mark.parametrize(
    "averaging", [{"name": "ema", "decay": 0.9}, {"name": "swa", "start": 0.5}], ids=["ema", "swa"]
)
def test_an_average_is_exported_and_classifies_as_it_was_evaluated(averaging: object, tmp_path: Path) -> None:
    training = {**STUDY["training"], "averaging": averaging}  # type: ignore[dict-item]
    arms = {"narrow": {"network": {"family": "cifar-resnet", "depth": 8}, "training": {"optimizer": "sgd"}}}
    study = {**STUDY, "arms": arms, "training": training, "contrasts": [], "seeds": 1}
    with Store.open(tmp_path) as store:
        store.register(expand(parse(StudySpec, study)))
        InProcess().run(Job("averaged", tmp_path), lambda event: None)
        records = store.records_frame("averaged").set_index(["split", "name"])["value"]
        trained = ll.from_trial(store, "averaged/narrow/0")
        average = ll.from_trial(store, "averaged/narrow/0", averaged=True)
    data = load(parse(DataSpec, STUDY["data"]))
    for loaded, split in ((trained, "final-test"), (average, "final-averaged-test")):
        found = evaluate(loaded.model, data, "test", recipe(averaging))
        assert found.values["loss"] == pytest.approx(records[split, "loss"], rel=1e-6)
        assert found.values["error"] == records[split, "error"]
    assert records["final-test", "loss"] != records["final-averaged-test", "loss"]
    ll.save(average, tmp_path / "model")
    again = ll.load(tmp_path / "model")
    assert again.averaged and not trained.averaged
    ll.save(trained, tmp_path / "trained")
    assert "averaged" not in (tmp_path / "trained" / "model.json").read_text()  # which earlier versions read
    images = data.images("test", range(5))
    assert torch.equal(again.logits(images), average.logits(images))
    network = ll.Results("averaged", tmp_path).network("narrow", averaged=True)
    assert all(map(torch.equal, network.state_dict().values(), average.model.state_dict().values()))


def test_a_trial_without_an_average_has_none_to_export(tmp_path: Path) -> None:
    said = {None: "keeps one beside them", nothing: "gave none of them a share"}
    with Store.open(tmp_path) as store:
        for name, averaging in (("none", None), ("never", nothing)):
            training = {**STUDY["training"], "epochs": 1, "averaging": averaging}  # type: ignore[dict-item]
            study = {**STUDY, "name": name, "training": training, "contrasts": []}
            store.register(expand(parse(StudySpec, study)))
            InProcess().run(Job(name, tmp_path), lambda event: None)
            with pytest.raises(StoreError, match=f"no average of its weights: training.averaging {said[averaging]}"):
                ll.from_trial(store, f"{name}/wide/0", averaged=True)


def test_the_commands_take_an_average_if_its_images_are_still_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load(parse(DataSpec, STUDY["data"]))
    assert isinstance(data, Dataset)
    parts = {"train": data.train, "test": data.test}
    arrays = {f"{name}_images": part.images.numpy() for name, part in parts.items()}
    arrays |= {f"{name}_labels": part.labels.numpy() for name, part in parts.items()}
    np.savez(tmp_path / "own.npz", **arrays)
    arms = {"narrow": {"network": {"family": "cifar-resnet", "depth": 8}}}
    own = {"name": "npz", "path": "own.npz"}
    (tmp_path / "study.yaml").write_text(
        yaml.safe_dump({**STUDY, "arms": arms, "contrasts": [], "seeds": 1, "data": own})
    )
    monkeypatch.setenv("LEADLINE_DATA", str(tmp_path))
    monkeypatch.setenv("LEADLINE_RUNS", str(tmp_path / "runs"))

    def call(*arguments: str) -> str:
        return CliRunner().invoke(app, arguments, catch_exceptions=False).output

    model = str(tmp_path / "model")
    call("run", str(tmp_path / "study.yaml"), "--workers", "0")
    export = ("export", "averaged/narrow/0", "--output", model)
    assert "The weights are those after the last epoch, not their average (--averaged)." in call(*export)
    assert "The weights are the average at the end of training." in call(*export, "--averaged")
    np.savez(tmp_path / "own.npz", **arrays | {"train_images": arrays["train_images"][::-1]})
    with pytest.raises(DataError, match="are no longer those that the network was trained on"):
        call(*export, "--averaged")
    with pytest.raises(SpecError, match="--averaged: is for trials"):
        call("predict", model, "image.png", "--averaged")
