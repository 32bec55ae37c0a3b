"""The one training loop: a generator of records, read top to bottom."""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from leadline.data.batches import Data, Part
from leadline.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from leadline.errors import SpecError
from leadline.parts.metrics.record import Record
from leadline.probes.flow import OF_WEIGHTS, FlowPart, probe
from leadline.probes.measured import Measurement
from leadline.probes.running import run_probe
from leadline.probes.schedules import every
from leadline.specs import ProbeSpec, TrainingSpec
from leadline.training.evaluation import evaluate
from leadline.training.numerics import compute_in, numerics
from leadline.training.state import PartOfEpoch, TrainState
from leadline.training.step import Diverged, prepare_step

REPORT_EVERY = 50
"""Steps between `batch` records."""

FINAL_SPLITS: tuple[Part, ...] = ("train", "validation", "test")
"""On which the trained network is evaluated, in this order."""


def train(
    state: TrainState,
    data: Data,
    spec: TrainingSpec,
    seed: int = 0,
    probes: ProbeSpec = ProbeSpec(),  # noqa: B008
    pause: Callable[[int], bool] = lambda step: False,
    group: ProcessGroup = SINGLE_PROCESS,
) -> Iterator[Record]:
    """Train to the end of the last epoch, yielding what is measured; nothing is drawn from a global generator.

    While an epoch runs, a `batch` record every 50 steps, and wherever `pause` asks for one, tells its loss; each is a
    moment for a checkpoint within the epoch. When it ends come the running `train` averages, `validation` and `time`
    records; `state.epoch` counts it with the last of these, which is the moment for a checkpoint, and `state.flow` and
    `state.measured` have what was measured inside the network; what snapshots showed before the first step is on
    `state.measured` from the first record on. After the last epoch come `final-train`, `final-validation` and
    `final-test`, in evaluation mode. Where weights are averaged, `averaged-validation`, `final-averaged-validation` and
    `final-averaged-test` are of the average. With early stopping, the network is the best one from the end of the last
    epoch on, and `final-epochs` says how many epochs it was `trained` and which was `best`.

    A loaded state continues where it stopped, with bit-identical results on the same device and number of threads.
    PyTorch's settings are those of `numerics` while this computes, and the caller's own whenever a record has been
    yielded.

    In float16 the loss is scaled, and a step whose gradients are not finite is skipped: it counts as a step, and
    `skipped_steps` of the `train` records says how many of all steps so far were.

    Args:
        state: from `prepare`, and perhaps `TrainState.load`; changed in place.
        data: on the model's device.
        spec: the recipe.
        seed: of the streams for order and augmentation.
        probes: what to measure inside the network.
        pause: whether to yield a `batch` record, given the number of steps done; no result depends on it.
        group: the processes that train together, each of which calls this with the same arguments and whole data, gets
            the same records and has the same weights: those of one device, but for the order of additions.

    Raises:
        Diverged: the training loss was not finite.
        SpecError: several devices cannot measure what `probes` asks for, draw what the model draws, or take the same
            batch statistics of parts of a batch as one.
        Disconnected: another process of the group is gone.
    """
    check_devices(probes, group.world_size)
    _check_parts(state.model, spec, group.world_size)
    records = _train(state, data, spec, seed, probes, pause, group)
    yield from compute_in(lambda: numerics(data.device, spec.precision), records)


def _train(
    state: TrainState,
    data: Data,
    spec: TrainingSpec,
    seed: int,
    probes: ProbeSpec,
    pause: Callable[[int], bool],
    group: ProcessGroup,
) -> Iterator[Record]:
    step = prepare_step(state, data, spec, seed, group)
    sharded = data.take_shard(group.shard)
    before: dict[int, dict[str, Measurement]] = {}
    if state.step == 0:
        before = _take_snapshots(state, data, spec.epochs, seed, probes, 0, untrained=spec.weights is None)
    state.measured = before

    while not state.is_over(spec.epochs):
        epoch = state.epoch
        part = step.start_epoch()
        started = time.perf_counter() - part.seconds

        batches = sharded.train_batches(seed, epoch, spec.batch_size, spec.channels_last, part.batches)
        with _watched(state, part, probes, step.steps):
            for images, targets in batches:
                loss = step(images, targets)
                if part.batches % REPORT_EVERY == 0 or pause(state.step):
                    step.count()
                    part.seconds = time.perf_counter() - started
                    yield Record(state.step, epoch, "batch", "loss", float(loss))

        step.count()
        examples, scaler = data.train_size, state.scaler
        values = step.task.values(float(part.losses.sum()) / examples, int(part.correct) / examples)
        seconds = time.perf_counter() - started
        records = [
            *_records(state.step, epoch + 1, "train", values),
            *_records(
                state.step, epoch + 1, "train", {"skipped_steps": float(scaler.skipped)} if scaler.enabled else {}
            ),
            Record(state.step, epoch + 1, "time", "seconds", seconds),
            Record(state.step, epoch + 1, "time", "images_per_second", examples / seconds),
        ]
        splits: list[Part] = ["validation"]
        if spec.test_every and (epoch + 1) % spec.test_every == 0:
            splits.append("test")
        for split in splits:
            result = evaluate(state.model, data, split, spec, group)
            records += _records(state.step, epoch + 1, split, result.values)
            if split == "validation" and state.best is not None:
                state.best.update(state.model, epoch + 1, result.values)
        with _average_applied(state, data, spec) as applied:
            for split in splits if applied else ():
                result = evaluate(state.model, data, split, spec, group)
                records += _records(state.step, epoch + 1, f"averaged-{split}", result.values)
        last = spec.epochs
        if state.best is not None and (epoch + 1 == last or state.best.ends_training(epoch + 1)):
            last = epoch + 1
            state.best.restore(state.model)
        state.measured = before | _take_snapshots(state, data, last, seed, probes, epoch + 1)
        before = {}
        yield from records[:-1]
        state.epoch, state.part = epoch + 1, None
        yield records[-1]

    for final in FINAL_SPLITS:
        views = None if final == "train" else spec.evaluation
        result = evaluate(state.model, data, final, spec, group, final == "test", views)
        if final == "train" and not math.isfinite(result.loss):  # the last step's own doing
            raise Diverged(state.step, result.loss)
        if final == "test":
            state.test_outputs = result.outputs
        yield from _records(state.step, state.epoch, f"final-{final}", result.values)
    records = []
    if state.best is not None:
        epochs = {"trained": float(state.epoch), "best": float(state.best.epoch)}
        records += _records(state.step, state.epoch, "final-epochs", epochs)
    with _average_applied(state, data, spec) as applied:
        if applied:
            for split in FINAL_SPLITS[1:]:
                result = evaluate(state.model, data, split, spec, group, split == "test", spec.evaluation)
                records += _records(state.step, state.epoch, f"final-averaged-{split}", result.values)
    yield from records


@contextmanager
def _average_applied(state: TrainState, data: Data, spec: TrainingSpec) -> Iterator[bool]:
    """Let the model have the average of its weights in the body, if there is one; say whether there is."""
    average = state.average
    if average is None or not average.count:
        yield False
        return
    with average.applied(state.model, data, spec):
        yield True


def check_devices(probes: ProbeSpec, devices: int) -> None:
    """Check that this number of devices can measure what the probes ask for.

    Raises:
        SpecError: `probes.flow` asks for outputs, and there are several devices.
    """
    if devices > 1 and probes.flow is not None and not set(probes.flow.what) <= set(OF_WEIGHTS):
        raise SpecError(
            f"probes.flow.what {list(probes.flow.what)}: outputs cannot be measured on {devices} devices, since none"
            f" holds the whole batch; use {' and '.join(OF_WEIGHTS)} only, or train on one device"
        )


def _check_parts(model: nn.Module, spec: TrainingSpec, devices: int) -> None:
    """Check that batch statistics do not depend on the number of devices.

    Raises:
        SpecError: batches are computed in parts, each of rows of all devices.
    """
    if devices > 1 and spec.accumulate > 1 and any(isinstance(module, _BatchNorm) for module in model.modules()):
        raise SpecError(
            f"training.accumulate {spec.accumulate}: on {devices} devices, batch normalisation would see other parts of"
            f" a batch than on one; leave accumulate out, as each device has a part of the batch anyway, use another"
            f" normalisation, or train on one device"
        )


def _records(step: int, epoch: int, split: str, values: Mapping[str, float]) -> list[Record]:
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
        asked.layers,
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


def _take_snapshots(
    state: TrainState, data: Data, last: int, seed: int, probes: ProbeSpec, epoch: int, untrained: bool = False
) -> dict[int, dict[str, Measurement]]:
    """Return what snapshots show after so many epochs, of `last` in all, if any is due then, under that number.

    Every network of a study sees the same images, and never test images.
    """
    measured = {}
    for name, asked in probes.snapshots().items():
        if epoch in asked.epochs(last):
            images, labels = data.sample("validation", asked.images, False)
            with numerics(data.device):
                measured[name] = run_probe(asked, state.model, images, labels, seed=seed, untrained=untrained)
    return {epoch: measured} if measured else {}
