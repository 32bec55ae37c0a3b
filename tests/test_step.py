"""A step of training: to the bits of a loop that is written out, replayed or not, and what is read back and when."""

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from leadline.data import batches as data_batches
from leadline.data.batches import Dataset, load
from leadline.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from leadline.distributed.shard import Shard
from leadline.errors import LeadlineWarning
from leadline.networks import cifar_resnet, comparative_resnet, mlp
from leadline.networks.modules import build, is_capturable, noise_at
from leadline.seeds import GENERATORS
from leadline.specs import SGD, Adam, DataSpec, FlowSpec, NetworkSpec, ProbeSpec, RMSprop, TrainingSpec
from leadline.training import TrainState, prepare, train
from leadline.training import step as steps
from leadline.training.numerics import autocast
from leadline.training.step import CapturedStep, Diverged, Step, prepare_step

CPU = torch.device("cpu")
SEED = 3
DROPOUT = mlp(hidden=3, width=16, dropout=0.5)
RECURRENT = mlp(hidden=4, width=16, shared=True, dropout=0.3)
NOISY = comparative_resnet(1).block.model_dump(mode="json")
SMALL = DataSpec(name="digits", train=230, validation=20, test=20)  # of a batch of 50 the last has 30
MOVED = DataSpec(name="digits", train=230, validation=20, test=20, augment={"name": "translation"})


def recipe(**changes: object) -> TrainingSpec:
    return TrainingSpec(epochs=2, batch_size=50, optimizer=SGD(learning_rate=0.05)).with_(**changes)


def prepared(network: NetworkSpec | Callable[[], nn.Module], data: Dataset, spec: TrainingSpec) -> TrainState:
    module = build(network, data.shape, data.classes, SEED) if isinstance(network, NetworkSpec) else network()
    return prepare(module, spec, CPU)


def trained(network: NetworkSpec, asked: DataSpec, spec: TrainingSpec, probes: ProbeSpec = ProbeSpec()) -> TrainState:  # noqa: B008
    data = load(asked)
    assert isinstance(data, Dataset)
    state = prepared(network, data, spec)
    for _ in train(state, data, spec, SEED, probes):
        pass
    return state


def assert_equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one.keys() - {"epoch.seconds"}:
        assert torch.equal(one[name], other[name]), name


def train_written_out(network: NetworkSpec, asked: DataSpec, spec: TrainingSpec) -> tuple[TrainState, list[float]]:
    """What a step does, one thing after the other, with each batch prepared by itself."""
    data = load(asked)
    assert isinstance(data, Dataset)
    state, errors = prepared(network, data, spec), []
    size, total = spec.batch_size, math.ceil(data.train_size / spec.batch_size) * spec.epochs
    for epoch in range(spec.epochs):
        state.model.train()
        right = 0
        order = torch.randperm(
            data.train_size, generator=torch.Generator().manual_seed(data_batches.stream(SEED, "order", epoch))
        )
        drawn = (
            asked.augment.draw(data.train_size, data_batches.stream(SEED, "augment", epoch)) if asked.augment else None
        )
        for chosen in order.split(size):
            images = (data.train.images[chosen].float() - data.mean) / data.scale
            if drawn is not None:
                images = asked.augment.apply(images, drawn[chosen])
            images, labels = images.contiguous(memory_format=torch.channels_last), data.train.labels[chosen]
            for group in state.optimizer.param_groups:
                group["lr"] = spec.optimizer.learning_rate * spec.schedule.at(state.step, total)
            state.optimizer.zero_grad()
            with noise_at(state.model, SEED, state.step):
                logits = state.model(images)
            F.cross_entropy(logits, labels, label_smoothing=spec.label_smoothing).backward()
            if spec.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(state.model.parameters(), spec.clip_norm)
            state.optimizer.step()
            right += int((logits.argmax(1) == labels).sum())
            state.step += 1
        errors.append(100 * (1 - right / data.train_size))
    return state, errors


RECIPES = {
    "SGD": recipe(schedule={"name": "cosine"}),
    "Adam": recipe(optimizer=Adam(), label_smoothing=0.1),
    "RMSprop": recipe(optimizer=RMSprop(), clip_norm=0.5),
}


@pytest.mark.parametrize("spec", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("network", [DROPOUT, RECURRENT, comparative_resnet(1)], ids=["dropout", "recurrent", "resnet"])
@pytest.mark.parametrize("asked", [SMALL, MOVED], ids=["plain", "augmented"])
def test_training_equals_a_loop_that_is_written_out(network: NetworkSpec, asked: DataSpec, spec: TrainingSpec) -> None:
    expected, errors = train_written_out(network, asked, spec)
    data = load(asked)
    assert isinstance(data, Dataset)
    state = prepared(network, data, spec)
    records = list(train(state, data, spec, SEED))
    assert_equal(state.tensors(), expected.tensors())
    assert [one.value for one in records if (one.split, one.name) == ("train", "error")] == pytest.approx(errors)


class Recording(TorchDispatchMode):
    """Notes every operation with the tensors that it reads and writes, as a CUDA graph does."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any], Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, results))
        return results

    def replay(self) -> None:
        with torch.no_grad():
            for func, args, kwargs, results in self.operations:
                again = func(*args, **kwargs)
                for old, new in zip(tree_leaves(results), tree_leaves(again), strict=True):
                    if isinstance(old, Tensor):
                        old.copy_(new)


class Replayed(CapturedStep):
    """A captured step on a CPU, whose graph computes nothing but the same operations on the same memory."""

    captures = 0
    replays = 0

    def _capture(self) -> "Replayed":  # type: ignore[override]
        type(self).captures += 1
        model = self.state.model
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        self._recording = Recording()
        with self._recording:
            self._loss = Step.differentiate(self, self._images, self._targets, len(self._targets))
            self._right = self.task.count_right(*self._uncounted.pop())
        model.load_state_dict(before)  # a capture computes nothing
        return self

    def replay(self) -> None:
        type(self).replays += 1
        step, self.state.step = self.state.step, -1  # nothing but the tensors may tell the step
        self._recording.replay()
        self.state.step = step
        for parameter in self._parameters:
            parameter.grad = None  # a graph knows nothing of it


@pytest.fixture
def replayed(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Replayed]]:
    monkeypatch.setattr("leadline.training.loop.prepare_step", Replayed)
    Replayed.captures = Replayed.replays = 0
    yield Replayed


@pytest.mark.parametrize("spec", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("network", [DROPOUT, RECURRENT, comparative_resnet(1)], ids=["dropout", "recurrent", "resnet"])
def test_a_replayed_step_has_the_bits_of_an_eager_one(
    network: NetworkSpec, spec: TrainingSpec, replayed: type[Replayed]
) -> None:
    data = load(SMALL)
    assert isinstance(data, Dataset)
    state = prepared(network, data, spec)
    records = list(train(state, data, spec, SEED))
    assert replayed.captures == 1
    assert replayed.replays == 2 * 4 - steps.EAGER_STEPS  # full batches
    expected, errors = train_written_out(network, SMALL, spec)
    assert_equal(state.tensors(), expected.tensors())
    assert [one.value for one in records if (one.split, one.name) == ("train", "error")] == pytest.approx(errors)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_replayed_step_has_the_bits_of_an_eager_one_in_half_precision(
    precision: str, replayed: type[Replayed], monkeypatch: pytest.MonkeyPatch
) -> None:
    narrow = [{"blocks": 1, "width": 8, "inner_width": 8}]  # wider ones take a CPU long in float16
    network = comparative_resnet(1).with_(stages=narrow, block={**NOISY, "stochastic_depth": 0.4})
    spec = recipe(precision=precision, optimizer=SGD(learning_rate=0.05), clip_norm=0.5, epochs=3)
    state = trained(network, SMALL, spec)
    assert replayed.replays == 3 * 4 - steps.EAGER_STEPS
    monkeypatch.undo()
    assert_equal(state.tensors(), trained(network, SMALL, spec).tensors())


@pytest.mark.parametrize("rates", [{"stem": 0.0, "stages.0": 0.0, "head": 2.0}, {"head": 0.0}], ids=["first", "last"])
def test_replayed_steps_leave_what_is_frozen_like_eager_ones(
    rates: dict[str, float], replayed: type[Replayed], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = recipe(rates=rates)
    state = trained(cifar_resnet(8), SMALL, spec)
    assert replayed.replays == 2 * 4 - steps.EAGER_STEPS
    monkeypatch.undo()
    assert_equal(state.tensors(), trained(cifar_resnet(8), SMALL, spec).tensors())


@pytest.mark.parametrize(
    "averaging", [{"name": "ema", "decay": 0.5}, {"name": "swa", "start": 0.5}], ids=["ema", "swa"]
)
def test_replayed_steps_are_averaged_like_eager_ones(
    averaging: object, replayed: type[Replayed], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = recipe(averaging=averaging)
    state = trained(cifar_resnet(8), SMALL, spec)
    assert replayed.replays == 2 * 4 - steps.EAGER_STEPS
    monkeypatch.undo()
    assert_equal(state.tensors(), trained(cifar_resnet(8), SMALL, spec).tensors())


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_replayed_step_takes_mixed_labels(
    precision: str, replayed: type[Replayed], monkeypatch: pytest.MonkeyPatch
) -> None:
    mixed, spec = SMALL.with_(augment="mixup"), recipe(precision=precision, label_smoothing=0.1)
    state = trained(DROPOUT, mixed, spec)
    assert replayed.replays == 2 * 4 - steps.EAGER_STEPS
    monkeypatch.undo()
    assert_equal(state.tensors(), trained(DROPOUT, mixed, spec).tensors())


def test_probed_steps_are_eager_and_measure_what_they_would(
    replayed: type[Replayed], monkeypatch: pytest.MonkeyPatch
) -> None:
    probes = ProbeSpec(flow=FlowSpec(every=2))
    state = trained(DROPOUT, SMALL, recipe(epochs=4), probes)
    assert replayed.replays == 5  # of 16 full batches half are probed, and three come before the graph
    monkeypatch.undo()
    eager = trained(DROPOUT, SMALL, recipe(epochs=4), probes)
    assert_equal(state.tensors(), eager.tensors())
    assert state.flow is not None and eager.flow is not None
    assert state.flow.frame().equals(eager.flow.frame())


def test_probed_weights_need_no_eager_step(replayed: type[Replayed], monkeypatch: pytest.MonkeyPatch) -> None:
    probes = ProbeSpec(flow=FlowSpec(every=1, what=["gradients", "updates"]))
    state = trained(DROPOUT, SMALL, recipe(), probes)
    assert replayed.replays == 5
    monkeypatch.undo()
    eager = trained(DROPOUT, SMALL, recipe(), probes)
    assert state.flow is not None and eager.flow is not None
    assert state.flow.frame().equals(eager.flow.frame())


def test_a_replayed_training_continues_from_a_checkpoint_of_an_eager_one(replayed: type[Replayed]) -> None:
    spec, data = recipe(optimizer=Adam()), load(SMALL)
    assert isinstance(data, Dataset)
    first, second = prepared(RECURRENT, data, spec), prepared(RECURRENT, data, spec)
    for record in train(first, data, spec, SEED, pause=lambda step: step == 4):
        if record.split == "batch":
            break
    second.load(first.tensors(), first.step, first.epoch)
    for _ in train(second, data, spec, SEED):
        pass
    assert replayed.replays == 1 + (4 - steps.EAGER_STEPS)
    assert_equal(second.tensors(), train_written_out(RECURRENT, SMALL, spec)[0].tensors())


@pytest.mark.parametrize(("current", "captured_on"), [("of its thread", "of its thread"), ("default", "new")])
def test_a_graph_is_captured_on_a_stream_of_its_thread_while_nobody_draws(
    current: str, captured_on: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[object, bool]] = []

    class Refusing:
        def __init__(self, _: object, stream: object, capture_error_mode: str) -> None:
            self.stream = stream

        def __enter__(self) -> None:
            held = []
            thread = threading.Thread(target=lambda: held.append(not GENERATORS.acquire(blocking=False)))
            thread.start()
            thread.join()
            seen.append((self.stream, held[0]))
            raise RuntimeError("no card")

        def __exit__(self, *_: object) -> None: ...

    fakes = {
        "CUDAGraph": object,
        "current_stream": lambda device: current,
        "default_stream": lambda device: "default",
        "Stream": lambda device: "new",
        "stream": lambda stream: nullcontext(),
        "graph": Refusing,
    }
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)
    steps._side_stream.cache_clear()
    monkeypatch.setattr("leadline.training.loop.prepare_step", CapturedStep)
    with pytest.warns(LeadlineWarning, match="no card"):
        trained(DROPOUT, SMALL, recipe())
    steps._side_stream.cache_clear()
    assert seen == [(captured_on, True)]


def test_what_cannot_be_captured_is_eager_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    class Refused(CapturedStep):
        def _capture(self) -> torch.cuda.CUDAGraph:
            kind = getattr(torch, "AcceleratorError", RuntimeError)
            raise kind("CUDA error: operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr("leadline.training.loop.prepare_step", Refused)
    with pytest.warns(LeadlineWarning, match="without a CUDA graph: CUDA error: operation not permitted") as seen:
        state = trained(DROPOUT, SMALL, recipe())
    assert len(seen) == 1
    assert_equal(state.tensors(), train_written_out(DROPOUT, SMALL, recipe())[0].tensors())


def test_a_device_that_is_lost_is_no_reason_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = getattr(torch, "AcceleratorError", RuntimeError)

    class Lost(CapturedStep):
        def _capture(self) -> torch.cuda.CUDAGraph:
            raise kind("CUDA error: an illegal memory access was encountered\nWhile capturing")

    monkeypatch.setattr("leadline.training.loop.prepare_step", Lost)
    with pytest.raises(kind, match="illegal memory access"):
        trained(DROPOUT, SMALL, recipe())


def test_memory_that_is_short_is_no_reason_to_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    class Short(CapturedStep):
        def _capture(self) -> torch.cuda.CUDAGraph:
            raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("leadline.training.loop.prepare_step", Short)
    with pytest.raises(torch.OutOfMemoryError):
        trained(DROPOUT, SMALL, recipe())


class Own(nn.Module):
    def __init__(self, capturable: bool = False) -> None:
        super().__init__()
        self.linear, self.dropout = nn.Linear(64, 10), nn.Dropout(0.5)
        self.capturable = capturable

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.linear(self.dropout(images.flatten(1)))
        return out


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_gradients_in_half_precision_do_not_depend_on_other_threads(precision: str) -> None:
    data = load(SMALL)
    assert isinstance(data, Dataset)
    images, _ = next(data.train_batches(SEED, 0, 50))

    def gradients(disturbed: bool) -> list[Tensor]:
        model = build(mlp(hidden=6, width=32, shared=True), data.shape, data.classes, SEED)

        def disturb(*_: object) -> None:
            with autocast(CPU, precision):  # type: ignore[arg-type]
                nn.Linear(2, 2)(torch.zeros(1, 2))

        def elsewhere(*_: object) -> None:
            thread = threading.Thread(target=disturb)
            thread.start()
            thread.join()

        if disturbed:
            for module in model.modules():
                module.register_forward_hook(elsewhere)
        with autocast(CPU, precision):  # type: ignore[arg-type]
            outputs = model(images)
        outputs.float().square().mean().backward()
        return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]

    assert all(map(torch.equal, gradients(True), gradients(False)))


def test_which_networks_can_be_captured() -> None:
    digits = (1, 8, 8)
    assert is_capturable(build(DROPOUT, digits, 10))
    assert not is_capturable(build(comparative_resnet(1).with_(checkpoint_blocks=True), digits, 10))
    assert not is_capturable(Own()) and is_capturable(Own(capturable=True))


def test_a_custom_network_that_asks_to_be_captured_draws_from_no_stream() -> None:
    torch.manual_seed(1)
    with noise_at(Own(), SEED, 0):
        streamed = torch.rand(1)
    with noise_at(Own(capturable=True), SEED, 0):
        torch.manual_seed(1)
        drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(drawn, torch.rand(1)) and not torch.equal(drawn, streamed)


@pytest.mark.parametrize(
    ("device", "group", "network", "kind"),
    [
        ("cpu", SINGLE_PROCESS, DROPOUT, Step),
        ("meta", SINGLE_PROCESS, DROPOUT, CapturedStep),
        ("meta", ProcessGroup(0, 2), DROPOUT, Step),
        ("meta", SINGLE_PROCESS, comparative_resnet(1).with_(checkpoint_blocks=True), Step),
    ],
)
def test_which_steps_are_captured(
    device: str, group: ProcessGroup, network: NetworkSpec, kind: type[Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load(SMALL)
    assert isinstance(data, Dataset)
    state = prepared(network, data, recipe())
    if device == "meta":  # stands for a GPU
        monkeypatch.setattr(Dataset, "device", torch.device("cuda"))
    assert type(prepare_step(state, data, recipe(), SEED, group)) is kind
    for setting in ({"accumulate": 2}, {"resizing": [{"until": 0.5, "scale": 0.5}]}):
        assert type(prepare_step(state, data, recipe(**setting), SEED, group)) is Step


def test_the_count_of_correct_predictions_is_up_to_date_at_every_record() -> None:
    data, spec, seen = load(SMALL), recipe(epochs=1), []
    assert isinstance(data, Dataset)
    state = prepared(DROPOUT, data, spec)
    for record in train(state, data, spec, SEED, pause=lambda step: True):
        if record.split == "batch":
            assert state.part is not None
            seen.append(int(state.part.correct))
        elif (record.split, record.name) == ("train", "accuracy"):
            assert seen[-1] / data.train_size == record.value
    assert len(seen) == 5 and seen == sorted(seen) and seen[-1] > 0


def test_the_first_loss_that_is_not_finite_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    data, spec = load(SMALL), recipe(epochs=1)
    assert isinstance(data, Dataset)
    for every in (1, 50):
        step = prepare_step(prepared(DROPOUT, data, spec), data, spec, SEED, SINGLE_PROCESS)
        step.look_every = every
        step.start_epoch()
        with pytest.raises(Diverged, match="was nan at step 3") as caught:
            for number, (images, labels) in enumerate(data.train_batches(SEED, 0, 50)):
                step(images * math.nan if number == 2 else images, labels)
        assert caught.value.step == 3
        assert step.state.step == (2 if every == 1 else 4)


@pytest.mark.parametrize("asked", [SMALL, MOVED], ids=["plain", "augmented"])
@pytest.mark.parametrize("shard", [Shard(0, 1), Shard(1, 3)], ids=["whole", "shard"])
@pytest.mark.parametrize("first", [0, 2])
def test_batches_do_not_depend_on_how_many_are_prepared_at_once(
    asked: DataSpec, shard: Shard, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load(asked).take_shard(shard)

    def all_batches() -> list[tuple[Tensor, Tensor]]:
        return list(data.train_batches(SEED, 1, 50, first=first))

    many = all_batches()
    monkeypatch.setattr(data_batches, "BLOCK_ON_CPU", 1)
    single = all_batches()
    monkeypatch.setattr(data_batches, "BLOCK_ON_CPU", 2 * 50 * 64)
    two = all_batches()
    assert len(many) == len(single) == len(two) == 5 - first
    for a, b, c in zip(many, single, two, strict=True):
        for x, y, z in zip(a, b, c, strict=True):
            assert torch.equal(x, y) and torch.equal(x, z) and x.stride() == y.stride()
        assert all(images.data_ptr() % 64 == 0 for images, _ in (a, b, c))


@pytest.mark.parametrize("asked", [SMALL, MOVED], ids=["plain", "augmented"])
def test_nothing_is_copied_to_the_device_after_the_first_batch(
    asked: DataSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Copies(TorchDispatchMode):
        count = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            moved = [one.device for one in tree_leaves((args, result)) if isinstance(one, Tensor) and one.ndim]
            type(self).count += len(set(moved)) > 1 and func is torch.ops.aten._to_copy.default
            return result

    monkeypatch.setattr(data_batches, "BLOCK", 2 * 50 * 64)
    data = load(asked).to("meta")  # stands for a GPU
    with Copies():
        batches = data.train_batches(SEED, 0, 50)
        next(batches)
        before = Copies.count
        assert len(list(batches)) == 4
    assert before > 0 and Copies.count == before
