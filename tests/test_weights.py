"""Weights from files: torchvision's names against straight-line functional code, our own, and what does not fit."""

import os
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from leadline.errors import SpecError
from leadline.networks import family, recurrent_resnet
from leadline.networks.modules import build, distinct_tensors, skeleton
from leadline.networks.weights import load_weights, torchvision_name
from leadline.running.checkpoints import save_checkpoint
from leadline.specs import NetworkSpec, TrainingSpec, TrialSpec
from leadline.training import prepare

SHAPE = (3, 64, 64)
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class Weights:
    """Random values under torchvision's names, large enough for each to be seen in the output."""

    def __init__(self, counters: bool = True) -> None:
        self.values: dict[str, Tensor] = {}
        self.counters = counters
        self.generator = torch.Generator().manual_seed(0)

    def conv(self, name: str, channels_in: int, channels_out: int, kernel: int, groups: int = 1) -> None:
        shape = (channels_out, channels_in // groups, kernel, kernel)
        fan_in = channels_in // groups * kernel**2
        self.values[f"{name}.weight"] = torch.randn(shape, generator=self.generator) * (2 / fan_in) ** 0.5

    def norm(self, name: str, channels: int) -> None:
        for part, low, high in (("weight", 0.5, 1), ("bias", -0.5, 0.5), ("running_mean", -0.5, 0.5)):
            values = torch.empty(channels).uniform_(low, high, generator=self.generator)
            self.values[f"{name}.{part}"] = values
        self.values[f"{name}.running_var"] = torch.empty(channels).uniform_(0.8, 2, generator=self.generator)
        if self.counters:
            self.values[f"{name}.num_batches_tracked"] = torch.tensor(7)

    def linear(self, name: str, features: int, classes: int) -> None:
        self.values[f"{name}.weight"] = torch.randn(classes, features, generator=self.generator)
        self.values[f"{name}.bias"] = torch.randn(classes, generator=self.generator)


def torchvision_weights(
    depth: int, classes: int = 10, groups: int = 1, group_width: int = 64, counters: bool = True
) -> dict[str, Tensor]:
    """What torchvision.models.resnet gives as a state_dict, in its order."""
    made = Weights(counters)
    made.conv("conv1", 3, 64, 7)
    made.norm("bn1", 64)
    channels, expansion = 64, 1 if depth < 50 else 4
    for layer, blocks in enumerate(BLOCKS[depth], 1):
        planes = 64 * 2 ** (layer - 1)
        for number in range(blocks):
            prefix = f"layer{layer}.{number}"
            if expansion == 1:
                made.conv(f"{prefix}.conv1", channels, planes, 3)
                made.norm(f"{prefix}.bn1", planes)
                made.conv(f"{prefix}.conv2", planes, planes, 3)
                made.norm(f"{prefix}.bn2", planes)
            else:
                width = planes * group_width // 64 * groups
                made.conv(f"{prefix}.conv1", channels, width, 1)
                made.norm(f"{prefix}.bn1", width)
                made.conv(f"{prefix}.conv2", width, width, 3, groups)
                made.norm(f"{prefix}.bn2", width)
                made.conv(f"{prefix}.conv3", width, planes * 4, 1)
                made.norm(f"{prefix}.bn3", planes * 4)
            if number == 0 and (layer > 1 or expansion == 4):
                made.conv(f"{prefix}.downsample.0", channels, planes * expansion, 1)
                made.norm(f"{prefix}.downsample.1", planes * expansion)
            channels = planes * expansion
    made.linear("fc", channels, classes)
    return made.values


def torchvision_forward(weights: dict[str, Tensor], x: Tensor, groups: int = 1) -> Tensor:
    """torchvision.models.resnet in evaluation mode, written out over its names."""

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
        return F.batch_norm(x, mean, var, weights[f"{name}.weight"], weights[f"{name}.bias"], False, 0.0, 1e-5)

    x = F.conv2d(x, weights["conv1.weight"], stride=2, padding=3)
    x = F.max_pool2d(F.relu(norm(x, "bn1")), 3, 2, 1)
    prefixes = list(dict.fromkeys(name.rsplit(".conv1", 1)[0] for name in weights if ".conv1." in name))
    for prefix in prefixes:
        stride = 2 if prefix.endswith(".0") and not prefix.startswith("layer1") else 1
        if f"{prefix}.conv3.weight" in weights:
            y = F.relu(norm(F.conv2d(x, weights[f"{prefix}.conv1.weight"]), f"{prefix}.bn1"))
            y = F.conv2d(y, weights[f"{prefix}.conv2.weight"], stride=stride, padding=1, groups=groups)
            y = F.relu(norm(y, f"{prefix}.bn2"))
            y = norm(F.conv2d(y, weights[f"{prefix}.conv3.weight"]), f"{prefix}.bn3")
        else:
            y = F.relu(norm(F.conv2d(x, weights[f"{prefix}.conv1.weight"], stride=stride, padding=1), f"{prefix}.bn1"))
            y = norm(F.conv2d(y, weights[f"{prefix}.conv2.weight"], padding=1), f"{prefix}.bn2")
        if f"{prefix}.downsample.0.weight" in weights:
            x = norm(F.conv2d(x, weights[f"{prefix}.downsample.0.weight"], stride=stride), f"{prefix}.downsample.1")
        x = F.relu(x + y)
    return F.linear(x.mean((2, 3)), weights["fc.weight"], weights["fc.bias"])


def empty(spec: NetworkSpec, classes: int = 10) -> torch.nn.Module:
    return skeleton(spec, SHAPE, classes).to_empty(device="cpu")


@pytest.fixture(scope="module")
def resnet18(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(torchvision_weights(18), path)
    yield path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "depth", "groups", "group_width", "suffix"),
    [
        ("imagenet-resnet", 18, 1, 64, ".safetensors"),
        ("imagenet-resnet", 34, 1, 64, ".pth"),
        ("imagenet-resnet", 50, 1, 64, ".pth"),
        ("imagenet-resnet", 101, 1, 64, ".safetensors"),
        ("imagenet-resnet", 152, 1, 64, ".pt"),
        ("resnext", 50, 32, 4, ".pth"),
    ],
)
def test_torchvision_weights_give_torchvisions_output(
    tmp_path: Path, name: str, depth: int, groups: int, group_width: int, suffix: str
) -> None:
    weights = torchvision_weights(depth, groups=groups, group_width=group_width)
    path = tmp_path / f"weights{suffix}"
    save_file(weights, path) if suffix == ".safetensors" else torch.save(weights, path)
    network = empty(family(name, {"depth": depth}))
    load_weights(network, path)
    x = torch.randn(2, *SHAPE, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = torchvision_forward(weights, x, groups)
        given = network.eval()(x)
    assert expected.std() > 0.1
    assert (given - expected).abs().max() < 1e-4 * expected.abs().max()
    assert network.stem.norm.num_batches_tracked == 7


def test_the_published_counts_of_the_weights_built_here() -> None:
    # torchvision's own documentation, num_params
    published = {18: 11_689_512, 34: 21_797_672, 50: 25_557_032}
    for depth, count in published.items():
        weights = torchvision_weights(depth, classes=1000, counters=False)
        assert sum(value.numel() for name, value in weights.items() if "running" not in name) == count


def under(prefix: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: value for name, value in weights.items()}


PACKED: dict[str, Callable[[dict[str, Tensor]], object]] = {
    "state_dict.pth": lambda weights: {"state_dict": weights, "epoch": 3},
    "model.pth": lambda weights: {"model": weights, "optimizer": {"state": {}}},
    "net.bin": lambda weights: {"net": weights, "acc": 91.7, "epoch": 3},
    "weights.pt": lambda weights: {"weights": {"state_dict": weights}},
    "data-parallel.pth": lambda weights: under("module.", weights),
    "compiled.pth": lambda weights: under("_orig_mod.", weights),
    "compiled-parallel.pth": lambda weights: under("module._orig_mod.", weights),
    "parallel-compiled.pth": lambda weights: under("_orig_mod.module.", weights),
    "compiled-layers.pth": lambda weights: {
        name.replace("layer1.", "layer1._orig_mod."): value for name, value in weights.items()
    },
    "tutorial.pth": lambda weights: {"epoch": 5, "model_state_dict": weights, "optimizer_state_dict": {"state": {}}},
    "checkpoint.pth.tar": lambda weights: {"arch": "resnet18", "state_dict": under("module.", weights), "best": 71.0},
    "resnet.th": lambda weights: {"state_dict": under("module.", weights), "best_prec1": 91.7},
    "last.ckpt": lambda weights: {
        "epoch": 3,
        "global_step": 100,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": under("model.", weights),
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {},
        "hyper_parameters": {"lr": 0.1},
    },
    "compiled.ckpt": lambda weights: {"state_dict": under("net._orig_mod.", weights)},
    "float64.pt": lambda weights: {name: value.double() if value.ndim else value for name, value in weights.items()},
}


@pytest.mark.parametrize("name", list(PACKED))
def test_state_dicts_as_people_pack_them(tmp_path: Path, name: str) -> None:
    weights = torchvision_weights(18)
    torch.save(PACKED[name](weights), tmp_path / name)
    network = empty(family("imagenet-resnet", {"depth": 18}))
    load_weights(network, tmp_path / name)
    assert all(torch.equal(value, weights[torchvision_name(name)]) for name, value in network.state_dict().items())
    assert all(value.dtype == torch.float32 for value in network.parameters())


def test_a_networks_own_names_may_begin_like_those_of_a_wrapper(tmp_path: Path) -> None:
    saved, network = (torch.nn.Sequential(OrderedDict(model=torch.nn.Linear(3, 2))) for _ in range(2))
    torch.save(under("module.", saved.state_dict()), tmp_path / "a.pt")
    load_weights(network, tmp_path / "a.pt")
    assert torch.equal(network.model.weight, saved.model.weight)


def test_files_without_counters_leave_the_networks_own(tmp_path: Path) -> None:
    torch.save(torchvision_weights(18, counters=False), tmp_path / "a.pth")
    network = build(family("imagenet-resnet", {"depth": 18}), SHAPE, 10)
    load_weights(network, tmp_path / "a.pth")
    assert network.stem.norm.num_batches_tracked == 0
    assert not network.stem.norm.running_mean.eq(0).any()


SMALL = {
    "comparative-resnet": {"blocks": 2},
    "cifar-preresnet": {"depth": 11},
    "wide-resnet": {"depth": 10, "widen": 1},
    "highway": {"depth": 8},
    "recnet": {},
}


@pytest.mark.parametrize("name", list(SMALL))
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_own_names_round_trip_and_keep_the_memory_layout(tmp_path: Path, name: str, suffix: str) -> None:
    spec = family(name, SMALL[name])
    saved = build(spec, (3, 16, 16), 10, seed=1)
    path = tmp_path / f"own{suffix}"
    save_file(saved.state_dict(), path) if suffix == ".safetensors" else torch.save(saved.state_dict(), path)
    network = build(spec, (3, 16, 16), 10, seed=2).to(memory_format=torch.channels_last)
    strides = [parameter.stride() for parameter in network.parameters()]
    load_weights(network, path)
    assert all(torch.equal(value, saved.state_dict()[key]) for key, value in network.state_dict().items())
    assert [parameter.stride() for parameter in network.parameters()] == strides


def test_a_trials_checkpoint_loads(tmp_path: Path) -> None:
    spec = TrialSpec(network=family("cifar-resnet", {"depth": 8}), training=TrainingSpec())
    state = prepare(build(spec.network, (3, 16, 16), 10, seed=1), spec.training, torch.device("cpu"))
    state.model(torch.ones(2, 3, 16, 16)).sum().backward()
    state.optimizer.step()
    save_checkpoint(state, spec, tmp_path / "a.safetensors")
    network = build(spec.network, (3, 16, 16), 10, seed=2)
    load_weights(network, tmp_path / "a.safetensors")
    assert all(torch.equal(value, state.model.state_dict()[name]) for name, value in network.state_dict().items())


def test_shared_weights_are_written_once_and_must_agree_where_they_are_written_twice(tmp_path: Path) -> None:
    spec = recurrent_resnet(steps=3, width=4)
    saved, network = build(spec, (3, 8, 8), 10, seed=1), build(spec, (3, 8, 8), 10, seed=2)
    once = distinct_tensors(saved)
    assert "stages.0.0.branch.conv1.weight" in once
    assert "stages.0.1.branch.conv1.weight" not in once
    assert "stages.0.1.branch.norm1.weight" in once  # each step has its own
    assert sum(value.numel() for value in once.values() if value.is_floating_point()) == sum(
        value.numel() for value in [*saved.parameters(), *saved.buffers()] if value.is_floating_point()
    )
    for content in (once, saved.state_dict()):
        torch.save(content, tmp_path / "a.pt")
        load_weights(network, tmp_path / "a.pt")
        assert all(torch.equal(value, saved.state_dict()[name]) for name, value in network.state_dict().items())
    apart = build(spec.with_(sharing=None), (3, 8, 8), 10).state_dict()
    torch.save(apart, tmp_path / "apart.pt")
    line = refusal(network, tmp_path / "apart.pt")
    assert "different values stages.0.1.branch.conv1.weight (the network shares it with stages.0.0.branch" in line


def test_modules_of_another_make_take_their_own_names(tmp_path: Path) -> None:
    saved, network = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    torch.save(saved.state_dict(), tmp_path / "a.pt")
    load_weights(network, tmp_path / "a.pt")
    assert torch.equal(network.weight, saved.weight) and torch.equal(network.bias, saved.bias)


def refusal(network: torch.nn.Module, path: Path) -> str:
    """What a file is refused with, of several lines without what they all begin with; the network stays as it was."""
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(SpecError) as caught:
        load_weights(network, path)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    first, *others = caught.value.lines
    start, kind = f"weights {path}: ", "do not fit the network: "
    assert first.startswith(start) and all(line.startswith(start + kind) for line in others)
    return "; ".join([first.removeprefix(start), *(line.removeprefix(start + kind) for line in others)])


@pytest.mark.slow
def test_a_file_of_another_depth_names_the_first_mismatches(tmp_path: Path, resnet18: Path) -> None:
    thirty_four = build(family("imagenet-resnet", {"depth": 34}), SHAPE, 10)
    missing = len(torchvision_weights(34, counters=False)) - len(torchvision_weights(18, counters=False))
    assert refusal(thirty_four, resnet18) == (
        f"do not fit the network: missing layer1.2.conv1.weight, layer1.2.bn1.weight and {missing - 2} more"
    )
    fifty = build(family("imagenet-resnet", {"depth": 50}), SHAPE, 10)
    line = refusal(fifty, resnet18)
    assert line.startswith("do not fit the network: missing layer1.0.conv3.weight, layer1.0.bn3.weight and ")
    assert "; wrong shape or type layer1.0.conv1.weight (64x64x3x3 in the file, 64x64x1x1 in the network), " in line
    padded = build(family("imagenet-resnet", {"depth": 18, "shortcut": "A"}), SHAPE, 10)
    assert refusal(padded, resnet18).startswith("do not fit the network: unexpected layer2.0.downsample.0.weight, ")


def test_another_number_of_classes_is_named_and_may_be_left_out(resnet18: Path) -> None:
    network = build(family("imagenet-resnet", {"depth": 18}), SHAPE, 7, seed=3)
    assert refusal(network, resnet18) == (
        "do not fit the network: wrong shape or type fc.weight (10x512 in the file, 7x512 in the network) and fc.bias"
        " (10 in the file, 7 in the network); the file's classifier has 10 classes, the network's 7: build it for 10,"
        " or leave the file's classifier out"
    )
    drawn = network.head.linear.weight.clone()
    load_weights(network, resnet18, classifier=False)
    assert torch.equal(network.head.linear.weight, drawn)
    weights = torchvision_weights(18)
    body = {name: value for name, value in network.state_dict().items() if not name.startswith("head.")}
    assert all(torch.equal(value, weights[torchvision_name(name)]) for name, value in body.items())


def like_resnet(kind: str, **changes: object) -> NetworkSpec:
    """ResNet-18 or -50's parameters, name by name, around another function."""
    return family("imagenet-resnet", {"depth": 18 if kind == "basic" else 50}).with_(**changes)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "changes", "part"),
    [
        ("basic", {"block": {"shortcut": "B", "order": "relu-before-addition"}}, "another order"),
        ("basic", {"activation": "gelu"}, "GELU where theirs have ReLU"),
        ("basic", {"weight_standardisation": True}, "standardises its weights"),
        (
            "bottleneck",
            {"block": {"kind": "bottleneck", "shortcut": "B", "stride_in": "first-1x1"}},
            "stages.1.0 subsamples in its first 1x1",
        ),
    ],
)
def test_names_that_fit_around_another_function_are_refused(
    tmp_path: Path, kind: str, changes: dict[str, object], part: str
) -> None:
    network = build(like_resnet(kind, **changes), SHAPE, 10)
    weights = {torchvision_name(name): value for name, value in network.state_dict().items()}
    assert {name: value.shape for name, value in weights.items()} == {
        name: value.shape for name, value in torchvision_weights(18 if kind == "basic" else 50).items()
    }
    torch.save(weights, tmp_path / "a.pt")
    line = refusal(network, tmp_path / "a.pt")
    assert line.startswith("are torchvision's, but ") and part in line and "; build it with " in line


class Hostile:
    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, ("hostile-was-here",)


def saved_bytes(content: object, folder: Path, **options: object) -> bytes:
    torch.save(content, folder / "content.pt", **options)
    return (folder / "content.pt").read_bytes()


def in_itself() -> dict[str, object]:
    content: dict[str, object] = {}
    content["model"] = {"state_dict": content}
    return content


SOME = {"stem.conv.weight": torch.zeros(4, 3, 3, 3), "head.linear.bias": torch.zeros(10)}


@pytest.mark.parametrize(
    ("name", "made", "part"),
    [
        ("a.pt", lambda folder: saved_bytes({"stem": Hostile()}, folder), "contains objects other than tensors"),
        ("a.pt", lambda folder: b"no pickle at all", "damaged, or contains objects other than tensors"),
        ("a.pt", lambda folder: b"", "cannot be read: EOFError"),
        ("a.pth", lambda folder: saved_bytes(SOME, folder)[:-300], "cannot be read: PytorchStreamReader failed"),
        (
            "a.pth",
            lambda folder: saved_bytes(SOME, folder, _use_new_zipfile_serialization=False)[:-30],
            "cannot be read: unexpected EOF",
        ),
        ("a.pt", lambda folder: saved_bytes([1, 2], folder), "got a list"),
        ("a.pt", lambda folder: saved_bytes({}, folder), "got an empty one"),
        ("a.pt", lambda folder: saved_bytes({**SOME, "epoch": 3}, folder), "'epoch' has type int"),
        ("a.pt", lambda folder: saved_bytes({"a": torch.zeros(2).to_sparse()}, folder), "'a' is sparse"),
        ("a.pt", lambda folder: saved_bytes({"a": SOME["head.linear.bias"]}, folder), "a: neither the network's"),
        ("a.pt", lambda folder: saved_bytes(SOME, folder), "do not fit the network: missing stem.norm.weight"),
        (
            "a.pt",
            lambda folder: saved_bytes({"head.linear.bias": torch.zeros(10, dtype=torch.int8)}, folder),
            "wrong shape or type head.linear.bias (torch.int8 in the file, torch.float32 in the network)",
        ),
        ("a.safetensors", lambda folder: safetensors.torch.save(SOME)[:-1], "cannot be read: Error while deserial"),
        ("a.safetensors", lambda folder: safetensors.torch.save(SOME)[:40], "cannot be read: Error while deserial"),
        ("a.safetensors", lambda folder: b"\xff" * 64, "cannot be read: Error while deserializing header"),
        ("a.tar", lambda folder: b"", "unsupported suffix '.tar'; expected .safetensors, .pt, .pth, .pth.tar, .th, "),
        ("a.pt", lambda folder: saved_bytes(in_itself(), folder), "holds a mapping that contains itself"),
        ("a.pt", None, "there is no such file"),
    ],
)
@pytest.mark.filterwarnings("ignore:Validating sparse tensor")  # of PyTorch 2.14
def test_damaged_hostile_and_foreign_files_give_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, made: Callable[[Path], bytes] | None, part: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if made is not None:
        (tmp_path / name).write_bytes(made(tmp_path))
    assert part in refusal(build(family("cifar-resnet", {"depth": 8}), (3, 8, 8), 10), tmp_path / name)
    assert not (tmp_path / "hostile-was-here").exists()


def test_torchscript_archives_are_refused(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):  # the newer of which PyTorch 2.14 gives
            warnings.simplefilter("ignore", category)
        torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)).save(tmp_path / "a.pt")
    assert "TorchScript" in refusal(torch.nn.Linear(2, 2), tmp_path / "a.pt")
