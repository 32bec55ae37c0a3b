"""Networks outside of their study: saved folders, ONNX, torch.export, predictions for image files."""

import json
import struct
import sys
import warnings
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor, nn
from typer.testing import CliRunner

from leadline.api import export
from leadline.api.export import Loaded, from_trial, load, predict, read_image, save, to_onnx, to_torch_export
from leadline.cli import app, main
from leadline.data import batches
from leadline.data.network_input import INPUT
from leadline.errors import DataError, LeadlineError, LeadlineWarning, SpecError, StoreError
from leadline.networks import cifar_resnet, family, recurrent_resnet, wide_resnet
from leadline.networks.modules import build
from leadline.networks.weights import hash_tensors
from leadline.running.executors import InProcess
from leadline.running.job import Job
from leadline.specs import DataSpec, ModuleSpec, NetworkSpec, Stage, Stem, TrialSpec, parse
from leadline.specs.study import StudySpec
from leadline.store import Store
from leadline.study.expand import expand

SHAPE = (3, 16, 16)

SMALL = NetworkSpec(stem=Stem(width=8), stages=(Stage(blocks=1, width=8), Stage(blocks=1, width=16, stride=2)))
NETWORKS: dict[str, NetworkSpec] = {
    "comparative-cnn": family("comparative-cnn", {"blocks": 3}),
    "comparative-resnet": family("comparative-resnet", {"blocks": 2}),
    "cifar-resnet-20": family("cifar-resnet", {"depth": 20}),
    "gated-preactivated": SMALL.with_(
        block={"shortcut": "exclusive-gating", "order": "full-preactivation", "dropout": 0.3, "stochastic_depth": 0.5}
    ),
    "recurrent": recurrent_resnet(steps=3, width=8),
    "recnet": family("recnet", {"width": 16, "steps": 3, "dropout": 0.5}),
    "group-norm": SMALL.with_(
        normalisation="group", weight_standardisation=True, checkpoint_blocks=True, activation="gelu"
    ),
}


def trained(spec: NetworkSpec, shape: tuple[int, int, int] = SHAPE, classes: int = 10, seed: int = 1) -> nn.Module:
    """A network whose every value, statistics and zeros included, is as if drawn by training."""
    network = build(spec, shape, classes, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2, generator=generator)
            elif name.endswith("num_batches_tracked"):
                value.fill_(11)
            elif value.ndim < 2:
                value.add_(torch.empty(value.shape).uniform_(-0.3, 0.3, generator=generator))
    return network.eval()


def loaded(name: str = "comparative-resnet", shape: tuple[int, int, int] = SHAPE, **changes: object) -> Loaded:
    mean, scale = torch.linspace(90, 150, shape[0]), torch.linspace(40, 70, shape[0])
    values = {"mean": mean.view(1, -1, 1, 1), "scale": scale.view(1, -1, 1, 1), **changes}
    return Loaded(trained(NETWORKS[name], shape), NETWORKS[name], shape, 10, **values)  # type: ignore[arg-type]


def bytes_like(shape: tuple[int, int, int], count: int = 5) -> Tensor:
    return torch.randint(0, 256, (count, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


# --- saved folders


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("name", list(NETWORKS))
def test_a_saved_network_gives_the_same_logits_to_the_bit(
    tmp_path: Path, name: str, layout: torch.memory_format
) -> None:
    before = loaded(name)
    before.model.to(memory_format=layout)  # type: ignore[call-overload]
    paths = save(before, tmp_path / "new" / "folder")
    assert [path.name for path in paths] == ["model.safetensors", "model.json"]
    assert sorted(path.name for path in paths[0].parent.iterdir()) == ["model.json", "model.safetensors"]
    images = bytes_like(SHAPE)
    for path in (paths[0].parent, paths[0]):
        after = load(path)
        assert torch.equal(after.logits(images), before.logits(images))
        assert (after.network, after.input_shape, after.classes, after.trial) == (NETWORKS[name], SHAPE, 10, None)
        assert torch.equal(after.mean, before.mean) and torch.equal(after.scale, before.scale)
        assert not after.model.training


def test_the_description_stands_in_the_file_and_beside_it(tmp_path: Path) -> None:
    trial = TrialSpec(network=NETWORKS["comparative-resnet"], data=DataSpec(normalise="pixel-mean"), seed=4)
    mean = torch.rand(1, *SHAPE, generator=torch.Generator().manual_seed(0)) * 255
    before = loaded(trial=trial, mean=mean)
    weights, beside = save(before, tmp_path)
    with safe_open(weights, framework="pt") as file:
        assert json.loads(file.metadata()["leadline"]) == json.loads(beside.read_text())
    described = json.loads(beside.read_text())
    assert described["network"] == trial.network.model_dump(mode="json")
    assert np.array_equal(np.array(described["mean"], np.float32), mean[0].numpy())
    after = load(tmp_path)
    assert after.trial == trial
    assert torch.equal(after.mean, mean)
    images = bytes_like(SHAPE)
    assert torch.equal(after.logits(images), before.logits(images))
    again, _ = save(after, tmp_path / "again")
    assert again.read_bytes() == weights.read_bytes()


def test_logits_are_those_of_the_normalised_image() -> None:
    one = loaded()
    images = bytes_like(SHAPE)
    constants = zip(images.unbind(1), one.mean.flatten().tolist(), one.scale.flatten().tolist(), strict=True)
    by_hand = torch.stack([(channel.double() - mean) / scale for channel, mean, scale in constants], 1)
    with torch.no_grad():
        torch.testing.assert_close(one.logits(images), one.model(by_hand.float()), rtol=1e-5, atol=1e-5)


def edited(path: Path, **changes: object) -> None:
    """Write a saved network again with another description."""
    with safe_open(path, framework="pt") as file:
        description = {**json.loads(file.metadata()["leadline"]), **changes}
    safetensors.torch.save_file(safetensors.torch.load_file(path), path, {"leadline": json.dumps(description)})


def cut(path: Path, length: int) -> None:
    path.write_bytes(path.read_bytes()[:length])


def flip_bit(path: Path) -> None:
    """Change the last byte, which belongs to a weight, so that the file is still valid."""
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "part"),
    [
        (lambda path: path.unlink(), "no such file; check the path"),
        (lambda path: path.write_bytes(b""), "is not a valid safetensors file"),
        (lambda path: path.write_bytes(b"\xff" * 100), "is not a valid safetensors file"),
        (lambda path: cut(path, 100), "is not a valid safetensors file"),
        (lambda path: cut(path, path.stat().st_size - 1), "is not a valid safetensors file"),
        (
            lambda path: safetensors.torch.save_file({"a": torch.ones(1)}, path),
            "was not saved by Leadline as a network",
        ),
        (
            lambda path: safetensors.torch.save_file({"a": torch.ones(1)}, path, {"leadline": "{"}),
            "its metadata are invalid: ",
        ),
        (lambda path: edited(path, format=3), "format: 3: "),
        (lambda path: edited(path, sha256=None), "format 2 needs sha256"),
        (lambda path: edited(path, class_names=["one"]), "class_names has 1 names for 10 classes"),
        (lambda path: flip_bit(path), "its weights are not those that were saved; copy or export it again"),
        (lambda path: edited(path, network={"stages": []}), "network.stages: "),
        (lambda path: edited(path, layers=3), "unknown key 'layers'"),
        (lambda path: edited(path, mean=[[[1.0]]]), "mean and scale are of 1 and 3 channels, not 3"),
        (lambda path: edited(path, mean=[[[1.0, 2.0]]] * 3), "mean is neither 3x1x1 nor 3x16x16"),
        (lambda path: edited(path, scale=[1.0, 0.0, 1.0]), "scale.1: 0.0: "),
        (lambda path: edited(path, classes=7), "the file's classifier has 10 classes, the network's 7"),
        (
            lambda path: edited(path, network=NETWORKS["cifar-resnet-20"].model_dump()),
            "do not fit the network: missing",
        ),
    ],
)
def test_damaged_and_foreign_folders_give_one_line(tmp_path: Path, damage: Callable[[Path], None], part: str) -> None:
    weights, _ = save(loaded(), tmp_path)
    damage(weights)
    with pytest.raises(SpecError) as caught:
        load(tmp_path)
    assert part in str(caught.value) and str(weights) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_checksum_is_of_names_types_shapes_and_bytes(tmp_path: Path) -> None:
    weights, beside = save(loaded(), tmp_path)
    tensors = safetensors.torch.load_file(weights)
    assert json.loads(beside.read_text())["sha256"] == hash_tensors(tensors)
    name = next(name for name, tensor in tensors.items() if tensor.ndim == 4)
    value = tensors.pop(name)
    for other in ({"b": value}, {name: value.flatten()}, {name: value.half()}, {name: -value}):
        assert hash_tensors({**tensors, **other}) != hash_tensors({**tensors, name: value})


def save_in_format_1(folder: Path) -> Loaded:
    """Write a network, which it returns, as an earlier version did."""
    data = DataSpec(name="imagefolder", path="pets", size=16, resize=20)
    before = loaded(trial=TrialSpec(network=NETWORKS["comparative-resnet"], data=data))
    weights, _ = save(before, folder)
    with safe_open(weights, framework="pt") as file:
        description = json.loads(file.metadata()["leadline"])
    for added in ("sha256", "class_names", "shorter_side", "background"):
        del description[added]
    content = json.dumps({**description, "format": 1})
    safetensors.torch.save_file(safetensors.torch.load_file(weights), weights, {"leadline": content})
    return before


def test_a_network_saved_by_an_earlier_version_is_loaded_with_a_warning(tmp_path: Path) -> None:
    before = save_in_format_1(tmp_path)
    with pytest.warns(LeadlineWarning, match="was saved without a checksum by an earlier version") as caught:
        after = load(tmp_path)
    assert len(caught) == 1 and "\n" not in str(caught[0].message)
    assert torch.equal(after.logits(bytes_like(SHAPE)), before.logits(bytes_like(SHAPE)))
    assert after.shorter_side == 20 and after.class_names is None


def test_the_command_line_prints_a_warning_on_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_in_format_1(tmp_path / "saved")
    image = painted(tmp_path / "a.png")
    monkeypatch.setattr(sys, "argv", ["leadline", "predict", str(tmp_path / "saved"), str(image)])
    with warnings.catch_warnings(), pytest.raises(SystemExit) as caught:
        warnings.simplefilter("default")
        main()
    out, err = capsys.readouterr()
    assert caught.value.code == 0 and out.startswith(f"{image}: ")
    assert err.startswith("leadline: network ") and err.endswith("export it again\n") and err.count("\n") == 1


OWN = """
from torch import nn

def make(in_channels, classes, width):
    body = nn.Conv2d(in_channels, width, 3, stride=2)
    return nn.Sequential(body, nn.BatchNorm2d(width), nn.ReLU(), nn.Flatten(), nn.Linear(width * 49, classes))
"""


def test_a_network_of_ones_own_is_rebuilt_where_the_file_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_network.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    spec = ModuleSpec(module="own_network:make", arguments={"width": 4})
    before = replace(loaded(), model=build(spec, SHAPE, 10, seed=5).eval(), network=spec)
    weights, _ = save(before, tmp_path / "saved")
    with pytest.raises(SpecError, match=r"needs own_network:make to be called to build it; if you trust the file"):
        load(weights)
    after = load(weights, trust=True)
    assert torch.equal(after.logits(bytes_like(SHAPE)), before.logits(bytes_like(SHAPE)))
    assert after.network == spec


def test_a_network_with_a_custom_shortcut_is_rebuilt_where_the_file_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_shortcut.py").write_text(
        "from torch import nn\n\n\nclass Summed(nn.Module):\n"
        "    def __init__(self, channels_in, channels_out, stride):\n"
        "        super().__init__()\n"
        "        self.path = nn.Conv2d(channels_in, channels_out, 1, stride)\n\n"
        "    def forward(self, x, y):\n"
        "        return y + self.path(x)\n"
    )
    monkeypatch.chdir(tmp_path)
    plain = cifar_resnet(8).model_dump(mode="json")
    shortcut = {"module": "own_shortcut:Summed"}
    spec = parse(NetworkSpec, {**plain, "block": {**plain["block"], "shortcut": shortcut}})
    before = replace(loaded(), model=build(spec, SHAPE, 10, seed=5).eval(), network=spec)
    weights, _ = save(before, tmp_path / "saved")
    with pytest.raises(SpecError, match=r"needs own_shortcut:Summed to be called to build it; if you trust the file"):
        load(weights)
    after = load(weights, trust=True)
    assert torch.equal(after.logits(bytes_like(SHAPE)), before.logits(bytes_like(SHAPE)))
    assert after.network == spec


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": 10**9},
        {"network": wide_resnet(16, 1250).model_dump()},
        {"input_shape": [3, 10**6, 10**6], "classes": 10**9},
    ],
    ids=["classes", "width", "image"],
)
def test_a_description_that_does_not_fit_its_file_takes_no_memory(
    tmp_path: Path, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    weights, _ = save(loaded(), tmp_path)
    edited(weights, **changes)
    monkeypatch.setattr("leadline.api.export.build", lambda *_: pytest.fail("memory was taken"))
    with pytest.raises(SpecError, match=r"do not fit the network|is of no network: Storage size"):
        load(weights)


def test_a_file_that_is_not_trusted_calls_nothing(tmp_path: Path) -> None:
    weights, _ = save(loaded(), tmp_path)
    edited(weights, network={"module": "os:mkdir", "arguments": {"path": str(tmp_path / "hostile-was-here")}})
    with pytest.raises(SpecError, match="needs os:mkdir to be called"):
        load(weights)
    assert not (tmp_path / "hostile-was-here").exists()


def test_a_folder_that_cannot_be_made_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("here")
    with pytest.raises(LeadlineError, match=r"model\.safetensors: cannot be written: File exists") as caught:
        save(loaded(), tmp_path / "file")
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# --- other formats


def in_onnxruntime(path: Path, images: Tensor) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"images": images.numpy()})
    return np.asarray(logits)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(NETWORKS))
def test_onnx_gives_the_same_logits_in_onnxruntime(tmp_path: Path, name: str) -> None:
    model = trained(NETWORKS[name]).train().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    path = to_onnx(model, SHAPE, tmp_path / "network.onnx")
    assert [file.name for file in tmp_path.iterdir()] == ["network.onnx"]
    import onnx

    graph = onnx.load(path).graph
    shapes = {
        one.name: [axis.dim_param or axis.dim_value for axis in one.type.tensor_type.shape.dim]
        for one in (*graph.input, *graph.output)
    }
    assert shapes == {"images": ["batch", *SHAPE], "logits": ["batch", 10]}
    assert model.training
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    for count in (1, 2, 5):
        images = torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(count))
        with torch.no_grad():
            expected = model.eval()(images).numpy()
        assert np.ptp(expected) > 0.1
        np.testing.assert_allclose(in_onnxruntime(path, images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["comparative-resnet", "gated-preactivated", "recurrent", "group-norm"])
def test_a_torch_export_program_gives_the_same_logits(tmp_path: Path, name: str) -> None:
    model = trained(NETWORKS[name]).train()
    program = torch.export.load(to_torch_export(model, SHAPE, tmp_path / "network.pt2")).module()
    assert [file.name for file in tmp_path.iterdir()] == ["network.pt2"]
    assert model.training
    for count in (1, 2, 5):
        images = torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(count))
        with torch.no_grad():
            torch.testing.assert_close(program(images), model.eval()(images), rtol=1e-5, atol=1e-5)


def test_absent_packages_are_named_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(LeadlineError, match=r"needs the package onnxscript.* pip install '\.\[onnx\]'"):
        to_onnx(trained(NETWORKS["comparative-cnn"]), SHAPE, tmp_path / "a.onnx")
    assert not list(tmp_path.iterdir())


class Undecided(nn.Module):
    """A network that no tracer can follow: what it computes depends on the values it sees."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 16 * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x.flatten(1))
        return y if y.sum() > 0 else -y


@pytest.mark.parametrize(("write", "name"), [(to_onnx, "a.onnx"), (to_torch_export, "a.pt2")])
def test_what_cannot_be_traced_or_written_says_so(
    tmp_path: Path, write: Callable[[nn.Module, tuple[int, int, int], Path], Path], name: str
) -> None:
    with pytest.raises(LeadlineError, match="the network cannot be traced: ") as caught:
        write(Undecided(), SHAPE, tmp_path / name)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("here")
    with pytest.raises(LeadlineError, match="cannot be written: File exists"):
        write(trained(NETWORKS["comparative-cnn"]), SHAPE, tmp_path / "file" / name)


def test_limits_of_the_formats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "LARGEST_ONNX", 100_000)
    with pytest.raises(LeadlineError, match=r"[\d,]+ bytes of weights, but an ONNX file can hold at most 2 GiB"):
        to_onnx(trained(NETWORKS["comparative-cnn"]), SHAPE, tmp_path / "a.onnx")
    with pytest.raises(LeadlineError, match=r"ends in '\.pt'; torch\.export files must end in \.pt2"):
        to_torch_export(trained(NETWORKS["comparative-cnn"]), SHAPE, tmp_path / "a.pt")


# --- trials


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    runs = tmp_path_factory.mktemp("runs")
    store = Store.open(runs)
    study = {
        "name": "small",
        "data": {"name": "digits", "train": 120, "validation": 50, "test": 60, "normalise": "pixel-mean"},
        "training": {"epochs": 2, "batch_size": 20, "optimizer": {"name": "adam"}},
        "arms": {
            "good": {"network": "comparative-resnet"},
            "bad": {"network": "comparative-resnet", "training": {"optimizer": {"name": "sgd", "learning_rate": 1e9}}},
        },
        "vary": {"blocks": [2]},
        "seeds": 1,
    }
    store.register(expand(StudySpec.model_validate(study)))
    InProcess().run(Job("small", runs), lambda event: None)
    return store


def trial_of(store: Store, arm: str) -> str:
    frame = store.trials_frame("small").set_index("base")
    return str(frame.loc[arm, "trial"])


def test_a_finished_trials_network_predicts_what_the_trial_did(store: Store, tmp_path: Path) -> None:
    trial = trial_of(store, "good")
    taken = from_trial(store, trial[:10])
    found = store.outputs("small")[trial]
    predicted, labels = found.predicted, found.labels
    data = batches.load(taken.trial.data)
    assert torch.equal(taken.mean, data.mean)
    assert np.array_equal(data.test.labels.numpy(), labels)
    assert len(set(predicted.tolist())) > 3
    for one in (taken, load(save(taken, tmp_path)[0])):
        assert np.array_equal(one.logits(data.test.images).argmax(1).numpy(), predicted)
    paths = []
    for number, image in enumerate(data.test.images[:, 0]):
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(image.numpy()).save(paths[-1])
    assert [one.classes[0] for one in predict(taken, paths, top=1)] == predicted.tolist()


def test_the_names_of_classes_are_those_of_the_data(store: Store, tmp_path: Path) -> None:
    taken = from_trial(store, trial_of(store, "good"))
    renamed = replace(taken, class_names=tuple(f"digit {number}" for number in range(10)))
    path = painted(tmp_path / "a.png", mode="L")
    (found,) = predict(load(save(renamed, tmp_path / "saved")[0]), [path], top=10)
    assert taken.class_names == tuple("0123456789")
    assert found.names == tuple(f"digit {number}" for number in found.classes)
    assert predict(replace(taken, class_names=None), [path])[0].names == tuple(map(str, found.classes[:5]))


def test_a_trial_that_stored_no_input_gets_it_from_its_data_with_a_warning(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = trial_of(store, "good")
    stored = from_trial(store, trial)
    assert store.measurement(trial, INPUT) is not None
    monkeypatch.setattr(Store, "measurement", lambda *_: None)
    with pytest.warns(LeadlineWarning, match="ended before Leadline stored the normalisation") as caught:
        read = from_trial(store, trial)
    assert len(caught) == 1 and "\n" not in str(caught[0].message)
    assert torch.equal(read.mean, stored.mean) and torch.equal(read.scale, stored.scale)
    assert (read.class_names, read.input_shape, read.classes) == (
        stored.class_names,
        stored.input_shape,
        stored.classes,
    )


def test_a_finished_trial_needs_no_data(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "load", None)
    assert from_trial(store, trial_of(store, "good")).class_names == tuple("0123456789")


def test_a_trial_without_a_network_says_so(store: Store) -> None:
    with pytest.raises(StoreError, match=r"is diverged; only a finished trial"):
        from_trial(store, trial_of(store, "bad"))
    with pytest.raises(StoreError, match=r"no trial's hash begins with"):
        from_trial(store, "nothing")


# --- image files


def painted(path: Path, size: tuple[int, int] = (16, 16), mode: str = "RGB", **options: object) -> Path:
    generator = np.random.default_rng(0)
    channels = {"L": 1, "RGB": 3, "RGBA": 4}[mode]
    pixels = generator.integers(0, 256, (size[1], size[0], channels), dtype=np.uint8).squeeze()
    Image.fromarray(pixels).save(path, **options)
    return path


def test_predictions_are_the_softmax_in_order(tmp_path: Path) -> None:
    one = loaded()
    paths = []
    for number, image in enumerate(bytes_like(SHAPE, 70)):  # more than are predicted at once
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(paths[-1])
    predictions = predict(one, paths, top=3)
    assert [prediction.path for prediction in predictions] == paths
    expected = torch.softmax(one.logits(bytes_like(SHAPE, 70)).double(), 1)
    for prediction, row in zip(predictions, expected.numpy(), strict=True):
        assert list(prediction.classes) == np.argsort(-row)[:3].tolist()
        np.testing.assert_allclose(prediction.probabilities, np.sort(row)[::-1][:3], rtol=1e-4)
    everything = predict(one, paths[:1], top=99)[0]
    assert sorted(everything.classes) == list(range(10))
    assert sum(everything.probabilities) == pytest.approx(1)
    assert predict(one, []) == []


def test_an_image_that_cannot_be_read_leaves_the_others(tmp_path: Path) -> None:
    good = [painted(tmp_path / f"{number}.png", size=(number + 1, 16)) for number in range(70)]
    (tmp_path / "bad.png").write_bytes(b"no image")
    images = [good[0], tmp_path / "bad.png", *good[1:], tmp_path / "none.png"]
    failed: list[DataError] = []
    found = predict(loaded(), images, skip=failed.append)
    assert [one.path for one in found] == good
    for one, alone in zip(found, predict(loaded(), good), strict=True):
        np.testing.assert_allclose(one.probabilities, alone.probabilities, rtol=1e-4)
    assert [str(error).split(":")[0] for error in failed] == [f"image {images[1]}", f"image {images[-1]}"]
    with pytest.raises(DataError, match=r"bad\.png"):
        predict(loaded(), images)
    assert predict(loaded(), [tmp_path / "bad.png"], skip=failed.append) == []


def test_on_the_command_line_each_bad_image_gets_its_line(tmp_path: Path) -> None:
    names = tuple(f"{number} legs" for number in range(10))
    folder = save(loaded(class_names=names, shorter_side=20), tmp_path / "saved")[0].parent
    good = painted(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"no image")
    asked = ["predict", str(folder), str(tmp_path / "bad.png"), str(good)]
    text = CliRunner().invoke(app, [*asked, "--top", "1"])
    (best,) = predict(load(folder), [good], top=1)
    assert (text.exit_code, text.stdout) == (1, f"{good}: {best.names[0]} {best.probabilities[0]:.1%}\n")
    assert text.stderr.startswith(f"leadline: image {tmp_path / 'bad.png'}: ") and text.stderr.count("\n") == 1
    (one,) = json.loads(CliRunner().invoke(app, [*asked, "--top", "1", "--json"]).stdout)
    assert (one["names"], one["classes"]) == (list(best.names), list(best.classes))
    assert one["prepared"] == "resized to a shorter side of 20 pixels, centre crop of 16x16"
    assert CliRunner().invoke(app, [*asked[:2], str(good)]).exit_code == 0


def test_how_images_are_prepared_is_said() -> None:
    assert loaded().preparation == "resized to 16x16 pixels without keeping the aspect ratio"


def test_images_become_what_the_network_takes(tmp_path: Path) -> None:
    colour = painted(tmp_path / "colour.png")
    pixels = np.asarray(Image.open(colour))
    assert np.array_equal(read_image(colour, (3, 16, 16)).permute(1, 2, 0), pixels)
    grey = (pixels @ np.array([0.299, 0.587, 0.114])).round()  # ITU-R 601-2
    assert np.abs(read_image(colour, (1, 16, 16))[0].numpy() - grey).max() <= 1
    assert np.array_equal(
        read_image(painted(tmp_path / "grey.png", mode="L"), (3, 16, 16))[2],
        read_image(tmp_path / "grey.png", (1, 16, 16))[0],
    )
    clear = painted(tmp_path / "alpha.png", mode="RGBA")
    white = Image.alpha_composite(Image.new("RGBA", (16, 16), "white"), Image.open(clear)).convert("RGB")
    assert np.array_equal(read_image(clear, (3, 16, 16)).permute(1, 2, 0), np.asarray(white))
    one = loaded(background=(0, 0, 0))
    black = Image.alpha_composite(Image.new("RGBA", (16, 16), "black"), Image.open(clear)).convert("RGB")
    black.save(tmp_path / "black.png")
    (found,), (expected,) = predict(one, [clear]), predict(one, [tmp_path / "black.png"])
    assert found.probabilities == expected.probabilities != predict(loaded(), [clear])[0].probabilities


def test_images_are_resized_without_shifting_them(tmp_path: Path) -> None:
    rows = np.repeat(np.linspace(0, 252, 64, dtype=np.uint8)[:, None], 32, 1)
    Image.fromarray(rows).save(tmp_path / "slope.jpg", quality=100)
    for height, width in ((8, 8), (128, 5)):
        image = read_image(tmp_path / "slope.jpg", (1, height, width))[0].double()
        assert image.shape == (height, width)
        centres = ((torch.arange(height) + 0.5) * 64 / height - 0.5).clamp(0, 63) * 4
        inner = slice(height // 8, -height // 8)
        assert (image[inner] - centres[inner, None]).abs().max() <= 2


def test_photographs_are_turned_as_they_say(tmp_path: Path) -> None:
    upright = np.zeros((16, 16), np.uint8)
    upright[:8] = 250
    exif = Image.Exif()
    exif[0x0112] = 3  # half a turn
    Image.fromarray(upright[::-1, ::-1]).save(tmp_path / "turned.jpg", exif=exif, quality=100)
    image = read_image(tmp_path / "turned.jpg", (1, 16, 16))[0].numpy()
    assert np.abs(image.astype(int) - upright).max() <= 3


def bomb(path: Path) -> None:
    """A small file that says it is 20,000 pixels wide and high."""
    content = bytearray(painted(path).read_bytes())
    content[16:24] = struct.pack(">II", 20_000, 20_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("make", "part"),
    [
        (lambda path: None, "no such file; check the path"),
        (lambda path: path.mkdir(), "no such file; check the path"),
        (lambda path: path.write_bytes(b""), "the file is empty; replace it or leave it out"),
        (lambda path: path.write_bytes(b"no image" * 50), "not a JPEG, PNG, WebP, BMP, TIFF or GIF file; replace it"),
        (lambda path: cut(painted(path), 200), "image file is truncated"),
        (lambda path: cut(painted(path, (64, 64), format="JPEG"), 900), "image file is truncated"),
        (lambda path: painted(path, format="PPM"), "not a JPEG, PNG, WebP, BMP, TIFF or GIF file; replace it"),
        (bomb, "more than 89,478,485 pixels"),
        (
            lambda path: Image.fromarray(np.zeros((4, 4), np.float32)).save(path, format="TIFF"),
            "more than 16 bits per channel (mode F)",
        ),
    ],
)
def test_images_that_cannot_be_read_give_one_line(tmp_path: Path, make: Callable[[Path], None], part: str) -> None:
    path = tmp_path / "image.png"
    make(path)
    with pytest.raises(DataError) as caught:
        predict(loaded(), [painted(tmp_path / "fine.png"), path])
    assert str(caught.value).startswith(f"image {path}: ") and part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_impossible_requests_say_why(tmp_path: Path) -> None:
    image = painted(tmp_path / "a.png")
    with pytest.raises(SpecError, match=r"top 0: expected 1 or more classes"):
        predict(loaded(), [image], top=0)
    with pytest.raises(SpecError, match=r"a network of 4 channels: image files can only be read with 1"):
        predict(loaded(shape=(4, 16, 16)), [image])
