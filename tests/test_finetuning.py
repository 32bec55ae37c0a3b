"""Fine-tuning: rates by layer, frozen layers, and weights that training starts from."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

import leadline as ll
from leadline.api.probing import probe_trial
from leadline.cli import app
from leadline.data.batches import Dataset, load
from leadline.errors import LeadlineError, LeadlineWarning, SpecError, StoreError
from leadline.networks import cifar_resnet
from leadline.networks.modules import build
from leadline.parts.base import parse
from leadline.probes.measured import Measurement
from leadline.probes.snapshots import find_probe
from leadline.reports.writing import write_report
from leadline.running.trial import init_state
from leadline.specs import DataSpec, FlowSpec, NetworkSpec, ProbeSpec, TrainingSpec, TrialSpec
from leadline.store import Store
from leadline.study.check import check_networks
from leadline.study.load import load_study
from leadline.study.variance import variance_study
from leadline.training import TrainState, prepare, train
from resuming import assert_resumes_to_the_bit

CPU = torch.device("cpu")
RATES = {"stem": 0.0, "stages.0": 0.0, "stages.1": 0.1, "head": 2.0}


@pytest.fixture(scope="module")
def digits() -> Dataset:
    data = load(DataSpec(name="digits", train=70, validation=30, test=20))
    assert isinstance(data, Dataset)
    return data


def recipe(**settings: object) -> TrainingSpec:
    given: dict[str, object] = {"epochs": 2, "batch_size": 20, "optimizer": {"name": "sgd", "learning_rate": 0.05}}
    return parse(TrainingSpec, {**given, **settings})


def fresh(spec: TrainingSpec, network: NetworkSpec | None = None) -> TrainState:
    return prepare(build(network or cifar_resnet(8), (1, 8, 8), 10, 0), spec, CPU)


# --- rates by layer


def test_layers_learn_at_their_own_rates(digits: Dataset) -> None:
    spec = recipe(rates=RATES, schedule="cosine", epochs=1)
    state = fresh(spec)
    list(train(state, digits, spec))

    model = build(cifar_resnet(8), (1, 8, 8), 10, 0).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    parts: dict[str, nn.Module] = {"stem": model.stem, "head": model.head}
    parts |= {f"stages.{number}": stage for number, stage in enumerate(model.stages)}
    rates = {"stages.1": 0.1, "stages.2": 1.0, "head": 2.0}
    groups = [{"params": list(parts[name].parameters()), "lr": 0.05 * rate} for name, rate in rates.items()]
    theirs = torch.optim.SGD(groups, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, 4)
    model.train()
    for name in ("stem", "stages.0"):
        parts[name].requires_grad_(False).eval()
    for images, labels in digits.train_batches(0, 0, 20):
        theirs.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        theirs.step()
        schedule.step()
    for name, tensor in state.model.state_dict().items():
        torch.testing.assert_close(tensor, model.state_dict()[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*", None),
        ("stages.*.*.branch.norm1.bias", [f"stages.{number}.0.branch.norm1.bias" for number in range(3)]),
        ("stages.1.*.branch.*.bias", [f"stages.1.0.branch.norm{number}.bias" for number in (1, 2)]),
        ("*.norm", ["stem.norm.weight", "stem.norm.bias"]),
    ],
)
def test_an_asterisk_stands_for_one_part_of_a_name(pattern: str, names: list[str] | None) -> None:
    state = fresh(recipe(rates={pattern: 4.0}))
    group_of = {id(one): group for group in state.optimizer.param_groups for one in group["params"]}
    fast = [
        name for name, one in state.model.named_parameters() if group_of[id(one)]["initial_lr"] == pytest.approx(0.2)
    ]
    assert fast == (names if names is not None else [name for name, _ in state.model.named_parameters()])


def test_the_longest_prefix_counts_whether_it_has_asterisks_or_not() -> None:
    spec = recipe(rates={"stages.*.0": 0.5, "stages.2": 3.0, "stages.2.0.branch": 0.0, "*.*.0.branch": 9.0})
    names = ("stages.1.0.join.x", "stages.2.0.after", "stages.2.1.after", "stages.2.0.branch.conv1.weight", "head.x")
    assert [spec.rate(name) for name in names] == [0.5, 0.5, 3.0, 0.0, 1.0]
    for rates in ({"a.*": 2.0, "a.b": 3.0, "*.b": 4.0}, {"*.b": 4.0, "a.b": 3.0, "a.*": 2.0}):
        assert recipe(rates=rates).rate("a.b.c") == 3.0
        assert recipe(rates={name: rate for name, rate in rates.items() if name != "a.b"}).rate("a.b.c") == 2.0
    with pytest.raises(SpecError, match=r"'stages\.\*\.9' begins the name of no parameter"):
        fresh(recipe(rates={"stages.*.9": 0.1}))


@pytest.mark.parametrize("settings", [{}, {"averaging": "swa"}, {"accumulate": 2, "decayed": "weights"}])
def test_what_is_frozen_stays_as_it_is_to_the_bit_and_has_no_gradient(
    digits: Dataset, settings: dict[str, object]
) -> None:
    optimizer = {"name": "adamw", "weight_decay": 0.1}
    spec = recipe(rates={"stem": 0.0, "stages.0": 0.0}, optimizer=optimizer, **settings)
    state = fresh(spec)
    before = {name: tensor.clone() for name, tensor in state.model.state_dict().items()}
    list(train(state, digits, spec))
    frozen = {name for name in before if name.startswith(("stem.", "stages.0."))}
    for name, tensor in state.model.state_dict().items():
        changes = "num_batches" not in name or name not in frozen
        assert torch.equal(tensor, before[name]) == (name in frozen), (name, changes)
    if state.average is not None:
        assert all(torch.equal(state.average.tensors[name], before[name]) for name in frozen)
    for name, parameter in state.model.named_parameters():
        assert (parameter.grad is None) == (name in frozen), name


@pytest.mark.parametrize(
    ("rates", "frozen"),
    [
        ({"stem.norm": 0.0}, True),
        ({"stem.norm.*": 0.0}, True),
        ({"*.norm.weight": 0.0, "*.norm.bias": 0.0}, True),
        ({"stem.norm.weight": 0.0}, False),
    ],
)
def test_batch_statistics_stay_where_no_parameter_of_the_normalisation_is_trained(
    digits: Dataset, rates: dict[str, float], frozen: bool
) -> None:
    spec = recipe(rates=rates)
    state = fresh(spec)
    list(train(state, digits, spec))
    assert torch.equal(state.model.stem.norm.running_mean, torch.zeros(16)) == frozen


def test_frozen_layers_resume_to_the_bit(digits: Dataset) -> None:
    spec = recipe(rates=RATES, decayed="weights", averaging={"name": "swa", "start": 0.5}, epochs=3)
    probes = ProbeSpec(flow=FlowSpec(every=2))
    assert_resumes_to_the_bit(lambda: fresh(spec), digits, spec, (2, 4, 7), probes)


def test_recomputed_blocks_behind_frozen_ones_learn_the_same(digits: Dataset) -> None:
    spec = recipe(rates={"stem": 0.0, "stages.0": 0.0})
    states = [fresh(spec, cifar_resnet(8).model_copy(update={"checkpoint_blocks": again})) for again in (False, True)]
    for state in states:
        list(train(state, digits, spec))
    first, second = (state.tensors() for state in states)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_rates_that_are_impossible_are_refused() -> None:
    line = (
        "'stage.0' begins the name of no parameter; there are stem, stem.conv, stem.norm, stages, stages.0, stages.1,"
        " stages.2, head and head.linear"
    )
    with pytest.raises(SpecError, match=line):
        fresh(recipe(rates={"stage.0": 0.1}))
    with pytest.raises(SpecError, match="every parameter has rate 0; leave one to train"):
        fresh(recipe(rates={"stem": 0.0, "stages": 0, "head": 0}))
    with pytest.raises(SpecError, match=r"rates.head: -1: input should be greater than or equal to 0"):
        recipe(rates={"head": -1})
    with pytest.raises(SpecError, match="'ste' begins the name of no parameter"):
        fresh(recipe(rates={"ste": 0.1}))


# --- weights that training starts from


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the weights of a network for ten classes, and of one for three."""
    place = tmp_path_factory.mktemp("weights")
    for classes in (3, 10):
        save_file(build(cifar_resnet(8), (1, 8, 8), classes, 7).state_dict(), place / f"{classes}.safetensors")
    save_file(build(cifar_resnet(14), (1, 8, 8), 10, 7).state_dict(), place / "deep.safetensors")
    return place


def study(file: Path | str, **training: object) -> dict[str, Any]:
    own = {"epochs": 1, "batch_size": 20, "weights": str(file), **training}
    return {
        "name": "tuned",
        "data": {"name": "digits", "train": 60, "validation": 20, "test": 20},
        "training": {"epochs": 1, "batch_size": 20},
        "arms": {"tuned": {"network": "cifar-resnet", "training": own}, "drawn": {"network": "cifar-resnet"}},
        "vary": {"depth": [8]},
        "seeds": 1,
    }


def trial(file: object, **training: object) -> TrialSpec:
    network = cifar_resnet(8).model_dump(mode="json")
    given = {"epochs": 1, "batch_size": 20, "weights": str(file), **training}
    return parse(TrialSpec, {"network": network, "training": given, "seed": 3})


def test_training_starts_from_the_weights_of_a_file(folder: Path, digits: Dataset) -> None:
    expected = build(cifar_resnet(8), (1, 8, 8), 10, 7).state_dict()
    drawn = build(cifar_resnet(8), (1, 8, 8), 10, 3).state_dict()
    same = init_state(trial("10.safetensors"), digits, CPU, folder).model.state_dict()
    assert all(torch.equal(same[name], expected[name]) for name in expected)
    other = init_state(trial(folder / "3.safetensors"), digits, CPU).model.state_dict()
    body = build(cifar_resnet(8), (1, 8, 8), 3, 7).state_dict()
    for name, tensor in other.items():
        assert torch.equal(tensor, (drawn if name.startswith("head.linear.") else body)[name]), name
    with pytest.raises(StoreError, match=r"weights .*deep\.safetensors: do not fit the network: unexpected"):
        init_state(trial("deep.safetensors"), digits, CPU, folder)


def test_the_content_of_the_file_identifies_a_trial(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "start.safetensors"
    file.write_bytes((folder / "10.safetensors").read_bytes())
    first = trial(file).with_code()
    assert list(first.code) == [str(file)]
    file.write_bytes((folder / "3.safetensors").read_bytes())
    assert trial(file).with_code().content_hash != first.content_hash != trial(file).content_hash
    file.unlink()
    with pytest.raises(LeadlineError, match=r"start.safetensors: .*; change training.weights or --data-dir"):
        trial(file).with_code()
    assert "weights" not in TrainingSpec().model_dump() and "rates" not in TrainingSpec().model_dump()


def test_a_study_says_that_a_last_layer_is_drawn_and_stores_what_it_trained(folder: Path, tmp_path: Path) -> None:
    lines: list[str] = []
    runs = tmp_path / "runs"
    yaml = tmp_path / "tuned.yaml"
    yaml.write_text(json.dumps(study(folder / "3.safetensors", rates={"stem": 0.0})))
    result = CliRunner().invoke(app, ["run", str(yaml), "--runs", str(runs), "--workers", "0", "--device", "cpu"])
    assert result.exit_code == 0, result.output
    lines = " ".join(result.output.split()).split(". ")
    (said,) = [line for line in lines if "drawn at random" in line]
    assert "3.safetensors: the last layer, head.linear, is drawn at random: the file has one for 3 classes" in said
    network = ll.Results("tuned", runs).network(arm="tuned[depth=8]")
    start = build(cifar_resnet(8), (1, 8, 8), 3, 7)
    assert torch.equal(network.stem.conv.weight, start.stem.conv.weight)


def test_the_network_before_the_first_step_is_that_of_the_file_for_probes_and_theory(
    folder: Path, tmp_path: Path
) -> None:
    file = tmp_path / "start.safetensors"
    file.write_bytes((folder / "10.safetensors").read_bytes())
    probes = {"flow": {"every": 3}, "decomposition": {"at": ["start"], "images": 8}}
    ll.Study(**study(file), probes=probes).run(tmp_path / "runs", workers=0)
    probe = find_probe("decomposition")
    with Store.open(tmp_path / "runs") as store:
        hashes = store.trials_frame("tuned").set_index("base")["trial"]
        found = [probe_trial(store, trial, probe, 8, at_initialisation=True)["value"] for trial in hashes]
        page = write_report(store, "tuned", tmp_path / "report").read_text()
        data = load(DataSpec(name="digits", train=60, validation=20, test=20))
        images, labels = data.sample("test", 8)
        for arm, seed, own in (("tuned", 7, False), ("drawn", 0, True)):
            network = build(cifar_resnet(8), (1, 8, 8), 10, seed)
            frame = probe.measure(network, images.contiguous(), labels, 0, own, None)
            assert found[list(hashes.index).index(arm)].tolist() == frame["value"].tolist()
            ((epoch, packed),) = store.measurements("tuned", "decomposition")[hashes[arm]]
            assert (epoch, Measurement.from_bytes(packed).batch_statistics) == (0, own)
        assert "batch normalisation of drawn[depth=8] used the statistics of the batch." in page
        assert "tuned[depth=8]: training starts from weights that were read from a file." in page
        file.write_bytes((folder / "3.safetensors").read_bytes())
        with pytest.raises(StoreError, match=r"start.safetensors is not the version that the trial was"):
            probe_trial(store, hashes["tuned"], probe, 8, at_initialisation=True)


@pytest.mark.parametrize("seeds", [{"seeds": {"init": 3}}, {"vary": {"depth": [8], "seed.init": [0, 1]}}])
def test_seeds_of_initial_weights_that_nobody_draws_are_refused(folder: Path, seeds: dict[str, Any]) -> None:
    def read(classes: int) -> dict[str, Any]:
        arms = {"tuned": {"network": "cifar-resnet"}}
        return {**study(folder / f"{classes}.safetensors"), "arms": arms, "training": trial_of(classes), **seeds}

    def trial_of(classes: int) -> dict[str, Any]:
        return {"epochs": 1, "batch_size": 20, "weights": str(folder / f"{classes}.safetensors")}

    with pytest.raises(SpecError, match=r"seed.init: no arm draws a weight .* so its seeds would change nothing"):
        check_networks(load_study(read(10)))
    check_networks(load_study(read(3)))  # the last layer is drawn
    either = read(10)
    either["arms"]["drawn"] = {"network": "cifar-resnet", "training": {"weights": None}}
    check_networks(load_study(either))
    for classes in (3, 10):
        varied = variance_study(load_study({**read(classes), "seeds": 1, "vary": {"depth": [8]}}), levels=3)
        named = {source for one in varied.spec.seed_values for source in one.by_source}
        assert ("init" in named) == (classes == 3)


def test_probes_of_a_stored_trial_see_the_weights_that_are_trained_as_those_of_its_study_do(
    folder: Path, tmp_path: Path
) -> None:
    spec = study(folder / "10.safetensors", rates={"stem": 0.0, "stages.0": 0.0})
    spec["data"] = {"name": "digits", "train": 60, "validation": 64, "test": 64}
    ll.Study(**spec, probes={"noise": {"images": 64}}).run(tmp_path, workers=0)
    with Store.open(tmp_path) as store:
        one = store.trials_frame("tuned").set_index("base")["trial"]["tuned"]
        stored = store.measurements("tuned", "noise")[one]
        assert [epoch for epoch, _ in stored] == [0, 1]
        for epoch, packed in stored:
            frame = probe_trial(store, one, find_probe("noise"), 64, at_initialisation=epoch == 0)
            layers = set(frame["layer"])
            assert layers == set(Measurement.from_bytes(packed).frame["layer"])
            assert {"stem.conv", "stem.norm"}.isdisjoint(layers)


def test_weights_and_rates_that_do_not_fit_are_said_before_anything_is_trained(folder: Path, tmp_path: Path) -> None:
    for settings, line in (
        ((folder / "deep.safetensors",), r"tuned\[depth=8\]: weights .*deep.safetensors: do not fit the network"),
        ((folder / "none.safetensors",), r"none.safetensors: .*change training.weights or --data-dir"),
    ):
        with pytest.raises(LeadlineError, match=line):
            ll.Study(**study(*settings)).run(tmp_path, workers=0)
    with pytest.raises(LeadlineError, match=r"training\.rates: 'stems' begins the name of no parameter"):
        ll.Study(**study(folder / "10.safetensors", rates={"stems": 0.1})).run(tmp_path, workers=0)


def test_train_warns_that_the_last_layer_of_any_module_is_drawn(tmp_path: Path) -> None:
    def small(classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Tanh(), nn.Linear(8, classes))

    old, new = small(4), small(10)
    torch.save({"state_dict": old.state_dict()}, tmp_path / "small.pt")
    head = new[3].weight.detach().clone()
    settings = {"epochs": 1, "weights": "small.pt", "rates": {"1": 0.0, "3": 1e-30}}
    data = {"name": "digits", "train": 64, "test": 50}
    with pytest.warns(LeadlineWarning, match="the last layer, 3, is drawn at random: the file has one for 4 classes"):
        list(ll.train(new, data, settings, data_dir=tmp_path))
    assert torch.equal(new[1].weight, old[1].weight) and torch.equal(new[3].weight, head)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.save(small(10).state_dict(), tmp_path / "small.pt")
        list(ll.train(new, data, {"epochs": 1, "weights": "small.pt"}, data_dir=tmp_path))


def test_pre_training_and_weights_exclude_each_other() -> None:
    network = ll.networks.mlp(activation="sigmoid").model_dump(mode="json")
    with pytest.raises(SpecError, match=r"pretraining and training\.weights both say where training starts"):
        parse(TrialSpec, {"network": network, "training": {"weights": "a.pt"}, "pretraining": {"method": "rbm"}})
