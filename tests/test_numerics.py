"""PyTorch's settings while a trial computes, the precisions, and float16's scaled loss and skipped steps."""

import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import leadline as ll
from leadline.data.batches import Dataset, load
from leadline.errors import LeadlineWarning, SpecError
from leadline.networks import cifar_resnet
from leadline.networks.modules import build
from leadline.parts.base import parse
from leadline.probes.snapshots import PROBES
from leadline.specs import SGD, Adam, DataSpec, ProbeSpec, TrainingSpec, TrialSpec
from leadline.training import TrainState, choose_device, evaluate, prepare, train
from leadline.training.numerics import WORKSPACE, check_precision, fix_workspace, multiplies_bfloat16, numerics

CPU, CARD = torch.device("cpu"), torch.device("cuda", 1)
HALF = TrainingSpec(epochs=2, batch_size=25, optimizer=SGD(learning_rate=0.05), precision="float16")
STEPS = 8  # of both epochs
HIGH = 2.0**20  # a scale at which gradients overflow, and which is low enough after a few steps


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load(DataSpec(name="digits", train=100, validation=50, test=50))


def found() -> dict[str, object]:
    """The settings as PyTorch tells them."""
    backends = torch.backends
    told: dict[str, object] = {
        "deterministic": backends.cudnn.deterministic,
        "benchmark": backends.cudnn.benchmark,
        "matrix products": torch.get_float32_matmul_precision(),
        "cuDNN": backends.cudnn.allow_tf32,
    }
    if hasattr(backends, "fp32_precision"):
        parts: list[Any] = [backends.cuda.matmul, backends.mkldnn.matmul]  # type: ignore[attr-defined]
        parts += [getattr(backends.cudnn, name) for name in ("conv", "rnn")]
        told |= {str(number): one.fp32_precision for number, one in enumerate(parts)}
    return told


EXPECTED = {"deterministic": True, "benchmark": False, "matrix products": "highest", "cuDNN": False}


@pytest.fixture
def users_own() -> Iterator[dict[str, object]]:
    """Settings that a user has made, put back after the test."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("medium")
    torch.backends.cudnn.benchmark = torch.backends.cudnn.allow_tf32 = True
    yield found()
    torch.set_float32_matmul_precision(before[0])
    torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = before[1:]


def test_settings_hold_in_the_body_alone(users_own: dict[str, object]) -> None:
    with numerics(CPU):
        assert EXPECTED.items() <= found().items()
        with numerics(CPU, "tf32"):
            assert (found()["matrix products"], found()["cuDNN"]) == ("high", True)
        assert EXPECTED.items() <= found().items()
        with torch.backends.cudnn.flags(enabled=False):  # which reads the settings of before 2.9
            pass
    assert found() == users_own
    with pytest.raises(KeyError), numerics(CPU):
        raise KeyError
    assert found() == users_own


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_autocast_of_the_caller_changes_nothing_that_is_trained(digits: Dataset, precision: str) -> None:
    def records(callers: torch.dtype | None) -> list[tuple[str, str, float]]:
        state = prepare(build(cifar_resnet(8), digits.shape, digits.classes, 3), spec, CPU)
        seen = []
        with torch.autocast("cpu", callers or torch.bfloat16, enabled=callers is not None):
            for record in train(state, digits, spec, 3):
                assert torch.is_autocast_enabled("cpu") == (callers is not None)
                seen.append((record.split, record.name, record.value))
        return [one for one in seen if one[0] != "time"]

    spec = TrainingSpec(epochs=1, batch_size=25, precision=precision)  # type: ignore[arg-type]
    assert records(torch.float16) == records(None)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_settings_of_the_caller_change_nothing_that_is_evaluated(digits: Dataset, precision: str) -> None:
    model = build(cifar_resnet(8), digits.shape, digits.classes, 3)
    spec = TrainingSpec(precision=precision)  # type: ignore[arg-type]
    expected = evaluate(model, digits, "test", spec)
    with torch.autocast("cpu", torch.float16):
        assert evaluate(model, digits, "test", spec).values == expected.values
        assert torch.is_autocast_enabled("cpu")


def test_a_device_without_autocast_has_settings_too() -> None:
    with numerics(torch.device("meta")):
        assert EXPECTED.items() <= found().items()


@pytest.mark.skipif(not hasattr(torch.cpu, "get_capabilities"), reason="PyTorch tells since 2.11")
@pytest.mark.skipif(not Path("/proc/cpuinfo").is_file(), reason="Linux tells what a processor has")
def test_what_the_processor_multiplies_is_what_linux_says() -> None:
    assert multiplies_bfloat16() == ("amx_bf16" in Path("/proc/cpuinfo").read_text().split())


@pytest.mark.parametrize("setting", ["cuda.matmul", "cudnn.conv", ""])
@pytest.mark.skipif(not hasattr(torch.backends, "fp32_precision"), reason="settings of PyTorch 2.9 and newer")
def test_new_settings_that_contradict_the_old_ones_are_overcome_and_put_back(setting: str) -> None:
    # in a process of its own: contradictions cannot be undone
    script = f"""
import torch
from leadline.training.numerics import numerics

cuda, conv = torch.backends.cuda.matmul, torch.backends.cudnn.conv
conv.fp32_precision, cuda.fp32_precision = "ieee", "ieee"
owner = torch.backends{"." * bool(setting)}{setting}
owner.fp32_precision = "tf32"
before = cuda.fp32_precision, conv.fp32_precision
for precision, expected in (("float32", "ieee"), ("tf32", "tf32"), ("bfloat16", "ieee")):
    with numerics(torch.device("cpu"), precision):
        assert cuda.fp32_precision == conv.fp32_precision == expected, precision
        assert torch.backends.cudnn.allow_tf32 == cuda.allow_tf32 == (expected == "tf32")
    assert (cuda.fp32_precision, conv.fp32_precision) == before
"""
    subprocess.run([sys.executable, "-W", "error", "-c", script], check=True, timeout=600)


def test_on_cuda_operations_are_deterministic_where_they_can_be_and_the_card_is_the_current_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    current: list[torch.device] = []

    class Device:
        def __init__(self, device: torch.device) -> None:
            self.device = device

        def __enter__(self) -> None:
            current.append(self.device)

        def __exit__(self, *_: object) -> None:
            current.pop()

    monkeypatch.setattr(torch.cuda, "device", Device)
    with numerics(CARD):
        assert torch.are_deterministic_algorithms_enabled() and torch.is_deterministic_algorithms_warn_only_enabled()
        assert current == [CARD]
    assert not torch.are_deterministic_algorithms_enabled() and not current
    torch.use_deterministic_algorithms(True)
    try:
        with numerics(CARD):  # a user who wants errors gets them
            assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_training_leaves_the_settings_to_its_caller_between_records(users_own: dict[str, object]) -> None:
    seen: list[dict[str, object]] = []

    class Looking(torch.nn.Linear):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            seen.append(found())
            return super().forward(images.flatten(1))

    data = {"name": "digits", "train": 64, "test": 50}
    for _ in ll.train(Looking(64, 10), data, {"epochs": 1, "batch_size": 32}):
        assert found() == users_own
    assert len(seen) > 2 and all(EXPECTED.items() <= one.items() for one in seen)
    records = ll.train(Looking(64, 10), data, {"epochs": 1})
    next(records)
    del records  # training that is left behind
    assert found() == users_own


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_probes_measure_in_float32_whatever_the_precision(digits: Dataset, precision: str) -> None:
    kinds: list[tuple[bool, object, object]] = []

    class Seeing(torch.nn.Linear):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            out = super().forward(images.flatten(1))
            kinds.append((probing, out.dtype, torch.get_float32_matmul_precision()))
            return out

    probing = False
    probe = PROBES.members()["jacobian"](at="end", images=10)
    real = type(probe).measure

    def measure(self: object, *arguments: Any) -> Any:
        nonlocal probing
        probing = True
        try:
            return real(probe, *arguments)
        finally:
            probing = False

    spec = TrainingSpec(epochs=1, batch_size=50, precision=precision)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(probe), "measure", measure)
        list(train(prepare(Seeing(64, 10), spec, CPU), digits, spec, probes=ProbeSpec(jacobian=probe)))
    half = getattr(torch, precision)
    assert {kind for one, kind, _ in kinds if one} == {torch.float32}
    assert {kind for one, kind, _ in kinds if not one} == {half}


# --- which precision can be had where


def test_tf32_needs_a_card_that_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpecError, match="tf32 needs a CUDA device, and this is cpu; use float32"):
        prepare(torch.nn.Linear(1, 1), TrainingSpec(precision="tf32"), CPU)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(SpecError, match=r"compute capability 8\.0, and cuda:1 has 7\.5; use float32"):
        check_precision(CARD, "tf32")
    check_precision(CARD, "float16")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    check_precision(CARD, "tf32")


def test_a_precision_is_part_of_a_trials_identity() -> None:
    one = TrialSpec(network=cifar_resnet(8))
    hashes = {
        one.with_(training=TrainingSpec(precision=name)).content_hash
        for name in ("float32", "tf32", "bfloat16", "float16")
    }
    assert len(hashes) == 4 and one.content_hash in hashes


def test_flow_does_not_follow_scaled_gradients() -> None:
    network = cifar_resnet(8).model_dump(mode="json")
    content = {"network": network, "training": {"precision": "float16"}, "probes": {"flow": {}}}
    with pytest.raises(SpecError, match=r"probes\.flow: cannot follow training in float16"):
        parse(TrialSpec, content)


# --- cuBLAS


@pytest.fixture
def one_card(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A machine that seems to have a card, in a process whose environment does not name a workspace."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv(WORKSPACE, "")  # so that it is put back
    monkeypatch.delenv(WORKSPACE)
    return monkeypatch


def test_choosing_a_card_sets_the_workspace_before_cuda_is_in_use(one_card: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        choose_device("cpu")
        assert WORKSPACE not in os.environ
        choose_device("cuda")
        assert os.environ[WORKSPACE] == ":4096:8"
        one_card.setattr(torch.cuda, "is_initialized", lambda: True)
        choose_device("cuda:0")


@pytest.mark.parametrize(
    "prepare_case, line",
    [
        (lambda patch: patch.setattr(torch.cuda, "is_initialized", lambda: True), "CUDA was in use before"),
        (lambda patch: patch.setenv(WORKSPACE, ":0:0"), f"{WORKSPACE} is :0:0: matrix products"),
    ],
)
def test_where_it_is_too_late_one_line_says_so(
    one_card: pytest.MonkeyPatch, prepare_case: Callable[[pytest.MonkeyPatch], None], line: str
) -> None:
    prepare_case(one_card)
    before = os.environ.get(WORKSPACE)
    with pytest.warns(LeadlineWarning, match=line) as told:
        fix_workspace()
    assert len(told) == 1 and os.environ.get(WORKSPACE) == before


# --- float16


def scaled(scale: float = 2.0**16, spec: TrainingSpec = HALF) -> TrainState:
    state = prepare(build(cifar_resnet(8), (1, 8, 8), 10, 3), spec, CPU)
    state.scaler.load({"scale": torch.tensor(scale), "growth_tracker": torch.tensor(0), "skipped": torch.tensor(0)})
    return state


def skipped(state: TrainState, data: Dataset, spec: TrainingSpec = HALF) -> list[float]:
    """Train to the end; what the records of each epoch say."""
    return [record.value for record in train(state, data, spec, 3) if record.name == "skipped_steps"]


def test_float16_trains_as_pytorchs_scaler_does(digits: Dataset) -> None:
    state = scaled(HIGH)
    counts = skipped(state, digits)
    model = build(cifar_resnet(8), (1, 8, 8), 10, 3).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, 0.9)
    scaler = torch.amp.GradScaler("cpu", init_scale=HIGH)
    skips = 0
    for epoch in range(2):
        for images, labels in digits.train_batches(3, epoch, 25):
            with torch.autocast("cpu", torch.float16):
                loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            scaler.scale(loss).backward()
            before = scaler.get_scale()
            scaler.step(optimizer)
            scaler.update()
            skips += scaler.get_scale() < before
    assert 0 < counts[0] <= counts[1] == skips < STEPS
    assert float(state.tensors()["scaler.scale"]) == scaler.get_scale()
    for name, value in model.state_dict().items():
        assert torch.allclose(value, state.model.state_dict()[name], rtol=1e-3, atol=1e-4), name
    assert state.step == STEPS  # skipped ones are steps as well


def test_a_step_that_is_skipped_changes_neither_weights_nor_optimizer(digits: Dataset) -> None:
    state = scaled(2.0**120)
    before = {name: value.clone() for name, value in state.model.named_parameters()}
    assert skipped(state, digits) == [4, 8]
    assert all(torch.equal(before[name], value) for name, value in state.model.named_parameters())
    assert not any(name.startswith("optimizer.") for name in state.tensors())


@pytest.mark.parametrize("optimizer", [SGD(), Adam()], ids=["sgd", "adam"])
@pytest.mark.parametrize("stop", [2, 6])
def test_float16_in_parts_equals_at_once_to_the_bit(digits: Dataset, optimizer: Any, stop: int) -> None:
    spec = HALF.with_(optimizer=optimizer, clip_norm=1.0)
    whole, first, second = scaled(HIGH, spec), scaled(HIGH, spec), scaled(spec=spec)
    total = skipped(whole, digits, spec)
    for record in train(first, digits, spec, 3, pause=lambda step: step == stop):
        if record.split == "batch":
            break
    second.load(first.tensors(), first.step, first.epoch)
    assert skipped(second, digits, spec)[-1] == total[-1] > 0
    ours, theirs = whole.tensors(), second.tensors()
    assert ours.keys() == theirs.keys() >= {"scaler.scale", "scaler.growth_tracker", "scaler.skipped"}
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_other_precisions_scale_nothing(digits: Dataset) -> None:
    spec = HALF.with_(precision="bfloat16", epochs=1)
    state = prepare(build(cifar_resnet(8), (1, 8, 8), 10, 3), spec, CPU)
    assert skipped(state, digits, spec) == [] and not any(name.startswith("scaler") for name in state.tensors())
