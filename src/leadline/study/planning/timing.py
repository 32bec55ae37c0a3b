"""Time the steps of trials on this machine: a few real steps on synthetic images of the right shape."""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from multiprocessing import get_context

import torch

from leadline.data.batches import Dataset, Split
from leadline.data.datasets.digits import Digits
from leadline.data.pixels import normalisation
from leadline.distributed.launch import assign_devices
from leadline.distributed.processes import check_guard
from leadline.errors import LeadlineError
from leadline.networks.modules import InputShape, build
from leadline.parts.augmentations import DecodingAugmentation
from leadline.parts.trust import trust, trusted_names
from leadline.probes.running import run_probe
from leadline.specs import Constant, FlowSpec, ProbeSpec, Spec, TrainingSpec, TrialSpec
from leadline.study.match import count
from leadline.training import TrainState, choose_device, evaluate, prepare, train
from leadline.training.device_errors import ran_out_of_memory
from leadline.training.step import EAGER_STEPS

SECONDS = 1.0
"""Minimum total seconds of the timed steps of one network, after a warm-up step."""

FEWEST_STEPS = 3
_STEPS_AT_ONCE = 50
_PIXELS = 2**24  # maximum total of all synthetic images, unless a single batch is larger
_RATE = 1e-9  # learning rate; labels are random, and training must not diverge


@dataclass(frozen=True)
class Work:
    """A trial to time, from `strip_for_timing`, on images of one shape."""

    trial: TrialSpec
    shape: InputShape
    classes: int


@dataclass(frozen=True)
class Timing:
    """Measured cost of one network on this machine; times in seconds, sizes in bytes."""

    step: float  # mean of one optimizer step on a full batch
    steps: int  # number of steps in that mean; 0: it is an estimate
    evaluation: float  # per image
    share: float  # fraction of its cores that the process had: below 1 if other programs ran; 1 on a GPU
    start: float  # building the network
    day: str  # ISO date of the timing, or of the calibration that an estimate is from
    state: int | None = None  # weights, buffers and optimizer state, as in a checkpoint; None: not measured
    flow: float = 0.0  # one measurement of the flow probe
    flow_bytes: int = 0  # size of that measurement
    snapshots: Mapping[str, tuple[float, int]] = field(default_factory=dict)  # probe -> time and bytes of one


def strip_for_timing(trial: TrialSpec) -> TrialSpec:
    """Return a trial without the settings that do not affect the time of a step."""
    optimizer = trial.training.optimizer
    if isinstance(optimizer, Spec) and "learning_rate" in type(optimizer).model_fields:
        optimizer = optimizer.with_(learning_rate=_RATE)
    changes = {"epochs": 1, "optimizer": optimizer, "schedule": Constant(), "warmup": None, "test_every": 0}
    changes |= {"weights": None, "resizing": None}
    training = trial.training.model_copy(update=changes)
    augment = tuple(each for each in trial.data.augmentations if not isinstance(each, DecodingAugmentation))
    data = Digits(normalise="pixel-mean", augment=augment)
    return trial.model_copy(update={"training": training, "data": data, "pretraining": None, "seed": 0})


def measure(
    work: list[Work],
    device: str,
    threads: int,
    workers: int,
    progress: Callable[[int, int], None] = lambda done, all_: None,
    seconds: float = SECONDS,
) -> list[Timing]:
    """Time each network, as many at once as will be trained at once, because they share memory and caches.

    Args:
        work: what to time.
        device: as for training.
        threads: number of threads per process.
        workers: number of processes; 1 runs in this process.
        progress: called with the number of timed networks and their total.
        seconds: minimum total seconds of the timed steps of one network.

    Raises:
        SpecError: the device is not available, or a network cannot be trained on it.
        Diverged: the loss of a network is not finite at its first step.
    """
    found: dict[int, Timing] = {}
    progress(0, len(work))
    if workers <= 1:
        for number, each in enumerate(work):
            found[number] = time_one(each, device, threads, seconds)
            progress(len(found), len(work))
    else:
        check_guard("workers=1")
        started = min(workers, len(work)), get_context("spawn"), trust, (trusted_names(),)
        with ProcessPoolExecutor(*started) as pool:
            places = [str(assign_devices(choose_device(device), 1, n)[0]) for n in range(len(work))]
            running = {
                pool.submit(time_one, each, place, threads, seconds): n
                for n, (each, place) in enumerate(zip(work, places, strict=True))
            }
            for future in as_completed(running):
                try:
                    found[running[future]] = future.result()
                except BrokenProcessPool:
                    raise LeadlineError(
                        "a process that was timing a network died; if memory ran out, use fewer --workers or a smaller"
                        " training.batch_size"
                    ) from None
                progress(len(found), len(work))
    return [found[number] for number in range(len(work))]


def time_one(work: Work, device: str, threads: int, seconds: float = SECONDS) -> Timing:
    """Time one network's training step, evaluation and probes in this process.

    Raises:
        SpecError: the device is not available, or the network cannot be trained on it.
        Diverged: the loss is not finite at the first step.
    """
    with limit_threads(threads):
        try:
            return _time_one(work, choose_device(device), seconds)
        except (MemoryError, RuntimeError) as error:
            if not ran_out_of_memory(error):
                raise
            network = f"{count('parameters', work.trial.network, work.shape, work.classes):,} parameters"
            raise LeadlineError(
                f"not enough memory for a training step of {network} at batch size {work.trial.training.batch_size};"
                f" lower training.batch_size or use fewer --workers"
            ) from None


def settling_steps(device: torch.device) -> int:
    """Return how many steps of a training run take longer than the others: on CUDA, those before the graph is there."""
    return EAGER_STEPS + 1 if device.type == "cuda" else 0


def today() -> str:
    """Return the day in UTC, as an ISO date."""
    return datetime.now(UTC).date().isoformat()


def _time_one(work: Work, device: torch.device, seconds: float) -> Timing:
    trial, batch, endless = work.trial, work.trial.training.batch_size, _endless(work.trial.training)
    for _ in range(2):  # the first build in a process includes imports
        began = time.perf_counter()
        state = prepare(build(trial.network, work.shape, work.classes), endless, device)
        start = time.perf_counter() - began

    first = next(_epochs(state, synthetic(work, 1).to(device), endless))
    pixels = batch * work.shape[1] * work.shape[2]
    steps = max(1, min(_STEPS_AT_ONCE, _PIXELS // pixels, int(seconds / 2 / first) + 1))
    data = synthetic(work, steps).to(device)
    took: list[float] = []
    computed, passed = time.process_time(), time.perf_counter()
    for number, epoch in enumerate(_epochs(state, data, endless)):
        if number * steps < settling_steps(device):
            continue
        took.append(epoch)
        if sum(took) >= seconds and len(took) * steps >= FEWEST_STEPS:
            break
    share = (time.process_time() - computed) / (time.perf_counter() - passed) / torch.get_num_threads()
    timing = Timing(
        step=sum(took) / len(took) / steps,
        steps=len(took) * steps,
        share=min(1.0, share) if device.type == "cpu" else 1.0,
        evaluation=_evaluation(state, data, endless),
        start=start,
        day=today(),
        state=sum(tensor.numel() * tensor.element_size() for tensor in state.tensors().values()),
        snapshots=_snapshots(state, work, device),
    )
    if trial.probes.flow is None:
        return timing
    cost, size = _flow(state, data, endless, trial.probes.flow)
    return replace(timing, flow=max(0.0, cost - timing.step), flow_bytes=size)


def synthetic(work: Work, steps: int) -> Dataset:
    """Return random images and labels: `steps` batches for training, one for testing, one image for validation."""
    generator = torch.Generator().manual_seed(0)
    batch = work.trial.training.batch_size

    def split(count: int) -> Split:
        images = torch.randint(256, (count, *work.shape), dtype=torch.uint8, generator=generator)
        return Split(images, torch.randint(work.classes, (count,), generator=generator))

    train_split = split(batch * steps)
    mean, scale = normalisation(iter([train_split.images]), work.trial.data.normalise, work.shape[0])
    spec, shape, classes = work.trial.data, work.shape, work.classes
    return Dataset(spec, shape, classes, train_split, split(1), split(batch), mean, scale)


_EPOCHS = 10**9
"""Epochs of training that is timed, more than there are."""


def _endless(training: TrainingSpec) -> TrainingSpec:
    """Return a recipe whose training does not end before it is timed."""
    stopping = training.early_stopping
    patient = None if stopping is None else stopping.model_copy(update={"patience": _EPOCHS})
    return training.model_copy(update={"epochs": _EPOCHS, "early_stopping": patient})


def _epochs(
    state: TrainState,
    data: Dataset,
    training: TrainingSpec,
    probes: ProbeSpec = ProbeSpec(),  # noqa: B008
) -> Iterator[float]:
    """Yield the seconds of each epoch, in the training loop that trials use."""
    done, seconds = state.epoch, 0.0
    for record in train(state, data, training, probes=probes):
        if (record.split, record.name) == ("time", "seconds"):
            seconds = record.value
        if state.epoch > done:  # the last record of the epoch, after which training can be paused
            done = state.epoch
            yield seconds


def _evaluation(state: TrainState, data: Dataset, training: TrainingSpec) -> float:
    """Return the seconds to evaluate one image, after a warm-up."""
    for _ in range(2):
        began = time.perf_counter()
        evaluate(state.model, data, "test", training)
        seconds = time.perf_counter() - began
    return seconds / len(data.test.labels)


def _flow(state: TrainState, data: Dataset, training: TrainingSpec, asked: FlowSpec) -> tuple[float, int]:
    """Return the seconds of a step with a flow measurement, and the bytes of one measurement."""
    took = next(_epochs(state, data, training, ProbeSpec(flow=asked.model_copy(update={"every": 1}))))
    assert state.flow is not None
    steps = len(state.flow.steps)
    return took / steps, len(state.flow.to_bytes()) // steps


def _snapshots(state: TrainState, work: Work, device: torch.device) -> dict[str, tuple[float, int]]:
    """Return the seconds and bytes of one snapshot of each probe."""
    found = {}
    for name, asked in work.trial.probes.snapshots().items():
        images = replace(work, trial=_with_batch_size(work.trial, asked.images))
        batch, labels = synthetic(images, 1).to(device).sample("test", asked.images, False)
        measured = run_probe(asked, state.model, batch, labels, seed=0, untrained=True)
        found[name] = measured.seconds, len(measured.to_bytes())
    return found


def _with_batch_size(trial: TrialSpec, size: int) -> TrialSpec:
    return trial.model_copy(update={"training": trial.training.model_copy(update={"batch_size": size})})


@contextmanager
def limit_threads(count: int) -> Iterator[None]:
    """Let PyTorch use so many threads inside the `with` block."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
