"""The one training loop: a generator of records, read top to bottom; schedules are functions of progress."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from leadline.data.batches import Data
from leadline.errors import LeadlineError, SpecError
from leadline.nets import distinct_tensors, noise_at
from leadline.parallel import ALONE, Team
from leadline.probes.catalog import take
from leadline.probes.flow import OF_WEIGHTS, Flow, FlowPart, probe
from leadline.probes.measured import Measurement
from leadline.probes.schedules import every
from leadline.probes.selection import ALL
from leadline.probes.table import FlowTable
from leadline.record import Record
from leadline.spec import (
    SGD,
    Adam,
    Constant,
    Cosine,
    OneCycle,
    Optimizer,
    ProbeSpec,
    RMSprop,
    Schedule,
    StepDecay,
    TrainingSpec,
)

REPORT_EVERY = 50
"""Steps between `batch` records, and on a GPU between looks at whether the loss is still finite."""

EVALUATION_BATCH, EVALUATION_PIXELS = 500, 2**22
"""Images, and pixels of all of them, in a batch of evaluation at most: 500 of up to 91x91, 83 of 224x224."""


class Diverged(LeadlineError):
    """The training loss became NaN or infinite.

    Attributes:
        step: the optimizer step, counted from 1, whose loss was not finite.
    """

    def __init__(self, step: int, loss: float) -> None:
        super().__init__(f"the training loss was {loss} at step {step}")
        self.step = step


@dataclass
class PartOfEpoch:
    """How far training is in an epoch that has not ended: what a checkpoint within one holds beside the weights."""

    losses: Float[Tensor, " steps"]  # of each batch, times its images; 0 for those to come
    correct: Int64[Tensor, ""]  # images that were classified rightly, of the batches so far
    batches: int = 0  # done
    seconds: float = 0.0  # that they took
    flow: Flow | FlowPart | None = field(default=None, repr=False)  # at work, or from a checkpoint

    def tensors(self) -> dict[str, Tensor]:
        """Return all of it by name, for a checkpoint."""
        numbers = {"batches": torch.tensor(self.batches), "seconds": torch.tensor(self.seconds, dtype=torch.float64)}
        named = {"losses": self.losses, "correct": self.correct, **numbers}
        if self.flow is not None:
            seen = self.flow.part() if isinstance(self.flow, Flow) else self.flow
            named["flow"] = torch.frombuffer(bytearray(seen.table.to_bytes()), dtype=torch.uint8)
            named |= {f"active.{name}": active for name, active in seen.active.items()}
        return named

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], device: torch.device) -> "PartOfEpoch":
        """Return what `tensors` was called on, on a device."""
        flow = None
        if "flow" in tensors:
            active = {name[7:]: value for name, value in tensors.items() if name.startswith("active.")}
            flow = FlowPart(FlowTable.from_bytes(tensors["flow"].numpy().tobytes()), active)
        losses, correct = (tensors[name].to(device) for name in ("losses", "correct"))
        return cls(losses, correct, int(tensors["batches"]), float(tensors["seconds"]), flow)


@dataclass
class TrainState:
    """All that training changes: what a checkpoint holds, beside the streams, which need no state."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    step: int = 0  # optimizer steps done
    epoch: int = 0  # epochs whose records have been yielded, the last of them included
    part: PartOfEpoch | None = field(default=None, repr=False)  # None between epochs
    test_predictions: np.ndarray | None = field(default=None, repr=False)  # int16 [n], of the last epoch's model
    flow: FlowTable | None = field(default=None, repr=False)  # what was measured inside it in the last epoch
    # by epoch and probe: what the deeper probes saw at the end of the last epoch, with the first also before it, as 0
    measured: Mapping[int, Mapping[str, Measurement]] = field(default_factory=dict, repr=False)

    def tensors(self) -> dict[str, Tensor]:
        """Return the weights, buffers and optimizer state by name, for a checkpoint."""
        named = {f"model.{name}": tensor for name, tensor in distinct_tensors(self.model).items()}
        for index, values in self.optimizer.state_dict()["state"].items():
            for key, value in values.items():
                if value is not None:
                    named[f"optimizer.{index}.{key}"] = torch.as_tensor(value)
        if self.part is not None:
            named |= {f"epoch.{name}": tensor for name, tensor in self.part.tensors().items()}
        return {name: tensor.detach().cpu().contiguous() for name, tensor in named.items()}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor], step: int, epoch: int) -> None:
        """Take over what `tensors` returned, at the step and epoch at which it did."""
        for name, tensor in distinct_tensors(self.model).items():
            tensor.copy_(tensors[f"model.{name}"])
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        slots: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("optimizer."):
                _, index, key = name.split(".", 2)
                parameter = parameters[int(index)]
                if tensor.shape == parameter.shape:
                    # fused optimizers walk through memory, so state must lie in memory as its parameter does
                    tensor = torch.empty_like(parameter).copy_(tensor)
                slots.setdefault(int(index), {})[key] = tensor
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": slots})
        self.step, self.epoch = step, epoch
        part = {name.removeprefix("epoch."): tensor for name, tensor in tensors.items() if name.startswith("epoch.")}
        self.part = PartOfEpoch.of(part, parameters[0].device) if part else None


@dataclass(frozen=True)
class Evaluation:
    """A network's results on one split, in evaluation mode."""

    loss: float  # mean cross-entropy, nats
    accuracy: float  # fraction
    predicted: np.ndarray  # int16 [n]


def choose_device(name: str) -> torch.device:
    """Return the device of a name: `cpu`, `cuda`, `cuda:1`, or `auto` for a GPU where there is one.

    Raises:
        SpecError: the name is unknown or the device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SpecError(f"device {name!r}: expected cpu, cuda, cuda:N or auto") from None
    if device.type not in ("cpu", "cuda"):
        raise SpecError(f"device {name!r}: expected cpu, cuda, cuda:N or auto")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SpecError(
            f"device {name!r}: this machine shows {torch.cuda.device_count()} CUDA devices to PyTorch; use cpu or auto"
        )
    return device


def prepare(model: nn.Module, spec: TrainingSpec, device: torch.device) -> TrainState:
    """Move a model to its device and memory layout and give it its optimizer.

    Raises:
        SpecError: bfloat16 is asked for on a CPU.
    """
    if spec.precision == "bfloat16" and device.type != "cuda":
        raise SpecError("training.precision: bfloat16 autocast needs a CUDA device; use float32 on a CPU")
    layout = torch.channels_last if spec.channels_last else torch.contiguous_format
    model = model.to(device).to(memory_format=layout)  # type: ignore[call-overload]
    return TrainState(model, make_optimizer(spec.optimizer, model))


def make_optimizer(spec: Optimizer, model: nn.Module) -> torch.optim.Optimizer:
    """Return a fused optimizer over all parameters; RMSprop, which PyTorch does not fuse, in its foreach form."""
    parameters = list(model.parameters())
    match spec:
        case SGD():
            return torch.optim.SGD(
                parameters,
                spec.learning_rate,
                spec.momentum,
                weight_decay=spec.weight_decay,
                nesterov=spec.nesterov,
                fused=True,
            )
        case Adam():
            kind = torch.optim.AdamW if spec.name == "adamw" else torch.optim.Adam
            return kind(
                parameters,
                spec.learning_rate,
                spec.betas,
                spec.epsilon,
                weight_decay=spec.weight_decay,
                fused=True,
            )
        case RMSprop():
            return torch.optim.RMSprop(
                parameters,
                spec.learning_rate,
                spec.decay,
                spec.epsilon,
                spec.weight_decay,
                spec.momentum,
                foreach=True,
            )


def learning_rate(spec: TrainingSpec, steps: int) -> Callable[[int], float]:
    """Return the learning rate as a function of the optimizer steps already done, of `steps` in all."""

    def rate(step: int) -> float:
        base = spec.optimizer.learning_rate
        warmup = spec.warmup
        if warmup is not None and step < warmup.steps:
            grown = step / warmup.steps if warmup.form == "linear" else 0.0
            return base * (warmup.factor + (1 - warmup.factor) * grown)
        return base * schedule_factor(spec.schedule, step / steps)

    return rate


def schedule_factor(schedule: Schedule, progress: float) -> float:
    """Return what the learning rate is multiplied by when a fraction `progress` of training is done."""

    def cosine(start: float, end: float, fraction: float) -> float:
        return end + (start - end) * (1 + math.cos(math.pi * fraction)) / 2

    match schedule:
        case Constant():
            return 1.0
        case StepDecay():
            return schedule.factor ** sum(progress >= milestone for milestone in schedule.milestones)
        case Cosine():
            return cosine(1.0, schedule.final, progress)
        case OneCycle() if progress < schedule.peak_at:
            return cosine(schedule.start, 1.0, progress / schedule.peak_at)
        case OneCycle():
            return cosine(1.0, schedule.final, (progress - schedule.peak_at) / (1 - schedule.peak_at))


def train(
    state: TrainState,
    data: Data,
    spec: TrainingSpec,
    seed: int = 0,
    probes: ProbeSpec = ProbeSpec(),  # noqa: B008
    pause: Callable[[int], bool] = lambda step: False,
    team: Team = ALONE,
) -> Iterator[Record]:
    """Train to the end of the last epoch, yielding what is measured; nothing is drawn from a global generator.

    While an epoch runs, a `batch` record every 50 steps, and wherever `pause` asks for one, tells its loss; each is a
    moment for a checkpoint within the epoch. When it ends come the running `train`
    averages, `validation` and `time` records; `state.epoch` counts it with the last of these, which is the moment for a
    checkpoint, and `state.flow` and `state.measured` have what was measured inside the network; what deeper probes saw
    before the first step is on `state.measured` from the first record on. After the last epoch come `final-train`,
    `final-validation` and `final-test`, in evaluation mode. A state that has been loaded goes on where it was, to the
    same bits on the same device and threads.

    Args:
        state: from `prepare`, and perhaps `TrainState.load`; changed in place.
        data: on the model's device.
        spec: the recipe.
        seed: of the streams for order and augmentation.
        probes: what to measure inside the network.
        pause: whether to yield a `batch` record, given the number of steps done; no result depends on it.
        team: the processes that train together, each of which calls this with the same arguments and whole data, gets
            the same records and has the same weights: those of one device, but for the order of additions.

    Raises:
        Diverged: the training loss was not finite.
        SpecError: several devices cannot measure what `probes` asks for, or draw what the model draws.
        Disconnected: another process of the team is gone.
    """
    _see_to_it_that_devices_can_measure(probes, team)
    model, optimizer, device = state.model, state.optimizer, data.device
    examples = data.train_size
    steps_per_epoch = math.ceil(examples / spec.batch_size)
    rate = learning_rate(spec, steps_per_epoch * spec.epochs)
    shared = data.shared(team.share)
    look_every = 1 if device.type == "cpu" else REPORT_EVERY
    before = _looked_into(state, data, spec, seed, probes, 0) if state.step == 0 else {}
    state.measured = before

    while state.epoch < spec.epochs:
        epoch = state.epoch
        model.train()
        part = state.part = state.part or PartOfEpoch(
            torch.zeros(steps_per_epoch, device=device), torch.zeros((), dtype=torch.int64, device=device)
        )
        started = time.perf_counter() - part.seconds

        batches = shared.train_batches(seed, epoch, spec.batch_size, spec.channels_last, part.batches)
        with _watched(state, part, probes, steps_per_epoch):
            for index, (images, labels) in enumerate(batches, part.batches):
                for group in optimizer.param_groups:
                    group["lr"] = rate(state.step)
                rows = min(spec.batch_size, examples - index * spec.batch_size)  # on all devices
                with noise_at(model, seed, state.step), team.whole_batch(model, rows):
                    with torch.autocast(device.type, torch.bfloat16, enabled=spec.precision == "bfloat16"):
                        logits = model(images)
                        loss = _part_of_mean_loss(logits, labels, rows, spec.label_smoothing)
                    optimizer.zero_grad()
                    loss.backward()  # type: ignore[no-untyped-call]
                right = (logits.detach().argmax(1) == labels).sum()
                loss, right = team.add_up(model, loss.detach(), right)
                if spec.clip_norm is not None:
                    torch.nn.utils.clip_grad_norm_(model.parameters(), spec.clip_norm)
                part.losses[index] = loss * rows
                last = index + 1 == steps_per_epoch
                if last or (index + 1) % look_every == 0:
                    _raise_if_diverged(part.losses, index, state.step + 1)
                optimizer.step()
                part.correct += right
                part.batches += 1
                state.step += 1
                if (index + 1) % REPORT_EVERY == 0 or pause(state.step):
                    part.seconds = time.perf_counter() - started
                    yield Record(state.step, epoch, "batch", "loss", float(loss))

        loss_mean, accuracy = float(part.losses.sum()) / examples, int(part.correct) / examples
        seconds = time.perf_counter() - started
        records = [
            *_records(state.step, epoch + 1, "train", loss_mean, accuracy),
            Record(state.step, epoch + 1, "time", "seconds", seconds),
            Record(state.step, epoch + 1, "time", "images_per_second", examples / seconds),
        ]
        splits: list[Literal["validation", "test"]] = ["validation"]
        if spec.test_every and (epoch + 1) % spec.test_every == 0:
            splits.append("test")
        for split in splits:
            result = evaluate(model, data, split, spec, team)
            records += _records(state.step, epoch + 1, split, result.loss, result.accuracy)
        state.measured = before | _looked_into(state, data, spec, seed, probes, epoch + 1)
        before = {}
        yield from records[:-1]
        state.epoch, state.part = epoch + 1, None
        yield records[-1]

    for final in ("train", "validation", "test"):
        result = evaluate(model, data, final, spec, team)
        if final == "train" and not math.isfinite(result.loss):  # the last step's own doing
            raise Diverged(state.step, result.loss)
        if final == "test":
            state.test_predictions = result.predicted
        yield from _records(state.step, state.epoch, f"final-{final}", result.loss, result.accuracy)


@torch.no_grad()
def evaluate(
    model: nn.Module,
    data: Data,
    split: Literal["train", "validation", "test"],
    spec: TrainingSpec,
    team: Team = ALONE,
) -> Evaluation:
    """Return loss, accuracy and predicted classes on one split, without augmentation, in evaluation mode.

    The processes of a team evaluate whole batches each, whose results are put together in order: the same weights give
    the same bits on any number of devices.
    """
    model.eval()
    batches = data.shared(team.share).evaluation_batches(split, _evaluation_batch(data.shape), spec.channels_last)
    results: list[tuple[float, int, np.ndarray]] = []  # loss, correct, predicted
    for images, labels in batches:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=spec.precision == "bfloat16"):
            logits: Float[Tensor, "batch classes"] = model(images)
        predicted: Int64[Tensor, " batch"] = logits.argmax(1)
        loss = float(F.cross_entropy(logits.float(), labels, reduction="sum"))
        results.append((loss, int((predicted == labels).sum()), predicted.cpu().numpy().astype(np.int16)))
    in_turn = zip_longest(*team.gathered(results))
    losses, correct, classes = zip(*(one for turn in in_turn for one in turn if one is not None), strict=True)
    everything = np.concatenate(classes)
    return Evaluation(sum(losses) / len(everything), sum(correct) / len(everything), everything)


def _evaluation_batch(shape: tuple[int, int, int]) -> int:
    _, height, width = shape
    return max(1, min(EVALUATION_BATCH, EVALUATION_PIXELS // (height * width)))


def _part_of_mean_loss(
    logits: Float[Tensor, "part classes"], labels: Int64[Tensor, " part"], rows: int, smoothing: float
) -> Float[Tensor, ""]:
    """Return the part of some rows, of all or of none, in the mean cross-entropy of a batch of so many."""
    if len(labels) == rows:
        return F.cross_entropy(logits, labels, label_smoothing=smoothing)
    return F.cross_entropy(logits, labels, label_smoothing=smoothing, reduction="sum") / rows


def _see_to_it_that_devices_can_measure(probes: ProbeSpec, team: Team) -> None:
    if team.size > 1 and probes.flow is not None and not set(probes.flow.what) <= set(OF_WEIGHTS):
        raise SpecError(
            f"probes.flow.what {list(probes.flow.what)}: of what no device has the whole batch, {team.size} devices"
            f" measure nothing; ask for {' and '.join(OF_WEIGHTS)}, or train on one device"
        )


def _records(step: int, epoch: int, split: str, loss: float, accuracy: float) -> list[Record]:
    values = {"loss": loss, "accuracy": accuracy, "error": 100 * (1 - accuracy)}
    return [Record(step, epoch, split, name, value) for name, value in values.items()]


@contextmanager
def _watched(state: TrainState, part: PartOfEpoch, probes: ProbeSpec, steps: int) -> Iterator[None]:
    """Put on `state.flow` what is measured in the body; if training diverges there, what was measured before."""
    state.flow, asked = None, probes.flow
    if asked is None:
        yield
        return
    flow = probe(
        state.model,
        state.optimizer,
        ALL if asked.layers == (ALL,) else asked.layers,
        asked.what,
        every(asked.every),
        images=asked.images,
        first_step=state.step,
        capacity=min(steps, 1024),
    )
    if isinstance(part.flow, FlowPart):
        flow.resume(part.flow)
    part.flow = flow
    with flow:
        try:
            yield
        finally:
            state.flow = flow.table()


def _looked_into(
    state: TrainState, data: Data, spec: TrainingSpec, seed: int, probes: ProbeSpec, epoch: int
) -> dict[int, dict[str, Measurement]]:
    """Return what deeper probes see after so many epochs, if any is due then, under that number.

    Every network of a study sees the same images, and never test images.
    """
    due = {name: asked.images for name, asked in probes.deeper().items() if epoch in asked.epochs(spec.epochs)}
    measured = {}
    for name, count in due.items():
        images, labels = next(iter(data.evaluation_batches("validation", count, False)))
        measured[name] = take(name, state.model, images, labels, seed=seed, untrained=epoch == 0)
    return {epoch: measured} if measured else {}


def _raise_if_diverged(losses: Float[Tensor, " steps"], index: int, step: int) -> None:
    """Find the first loss of this epoch that is not finite; `step` is that of `losses[index]`."""
    wrong = (~torch.isfinite(losses[: index + 1])).nonzero()
    if len(wrong):
        first = int(wrong[0])
        raise Diverged(step - index + first, float(losses[first]))
