"""The cost of a study before anything runs: trials, operations, hours on this machine, memory, disk, seeds."""

import heapq
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from leadline.data.files import default_data_dir
from leadline.data.metadata import describe
from leadline.data.split import SplitSizes
from leadline.data.threads import count_cores
from leadline.networks.modules import check_last_batch
from leadline.networks.modules.shapes import remember_shapes
from leadline.parts.augmentations import MixingAugmentation
from leadline.parts.metrics import metrics
from leadline.parts.metrics.base import recorded
from leadline.parts.metrics.outputs import bytes_kept
from leadline.parts.reference import Reference
from leadline.specs import NetworkSpec, TrainingSpec
from leadline.study.expand import Arm, ExpandedStudy
from leadline.study.planning.capacity import (
    Capacity,
    card_capacity,
    default_workers,
    free_memory,
    process_memory,
    sizes,
    state_bytes,
)
from leadline.study.planning.estimate import FACTOR, estimate
from leadline.study.planning.seeds import SeedsNeeded
from leadline.study.planning.speeds import Speeds
from leadline.study.planning.timing import SECONDS, Timing, Work, measure, strip_for_timing
from leadline.study.planning.tracing import Traced, trace
from leadline.text import join
from leadline.training import choose_device
from leadline.training.numerics import multiplies_bfloat16

RECORD = 30
"""Bytes per record in SQLite, measured over the 1,314 records of `demo`, including page overhead."""

TRIAL = 4096
"""Bytes of a trial's specification, environment and links in the store, measured in the same way."""

LONG, LARGE = 600, 24
"""Seconds of a study, and pixels of its images' height, from which a plan says that another precision may be faster."""


@dataclass(frozen=True)
class ArmPlan:
    """The cost of each trial of one arm."""

    arm: str
    trials: int  # at most, where the study decides as it goes
    tuning: int  # trials that tune the arm beforehand
    parameters: int
    flops: float  # floating-point operations of one trial
    seconds: float | None  # one trial, while as many run as workers there are; None: it cannot be estimated
    memory: int  # bytes, at most, of a worker that runs it; on a GPU, of the GPU
    disk: int  # bytes that one trial leaves
    steps: int  # optimizer steps of one trial
    timed: int  # optimizer steps that were timed; 0: the time is an estimate
    day: str | None  # ISO date of that timing, or of the calibration that the estimate is from
    share: float  # of its cores, that the process had while they were; 1 on a GPU


@dataclass(frozen=True)
class Plan:
    """The cost of a study."""

    study: str
    arms: tuple[ArmPlan, ...]
    device: str
    workers: int
    threads: int  # of each worker
    cores: int
    cards: int  # GPUs that trials are placed on; 0: none
    memory: int  # bytes free on this machine, or on the one of its GPUs that has least
    fits: int  # workers whose memory is there at once
    disk_free: int  # bytes, where the store will be
    seconds: float | None  # of all trials with these workers; None: that of some arm cannot be estimated
    seeds: tuple[SeedsNeeded, ...]
    notes: tuple[str, ...]

    @property
    def trials(self) -> int:
        """Total number of trials, including those of tuning."""
        return sum(arm.trials + arm.tuning for arm in self.arms)

    @property
    def flops(self) -> float:
        """Total floating-point operations of all trials."""
        return sum((arm.trials + arm.tuning) * arm.flops for arm in self.arms)

    @property
    def worker_seconds(self) -> float | None:
        """Total seconds of all trials run one after another; None: those of some arm cannot be estimated."""
        taken = [(arm.trials + arm.tuning) * arm.seconds for arm in self.arms if arm.seconds is not None]
        return sum(taken) if len(taken) == len(self.arms) else None

    @property
    def estimated(self) -> bool:
        """Whether the time of some arm is an estimate, rather than from steps that were timed."""
        return any(arm.seconds is not None and not arm.timed for arm in self.arms)

    @property
    def share(self) -> float:
        """The fraction of its cores that a worker had while steps were timed: below 1 if other programs ran."""
        timed = [(arm.seconds, arm.share) for arm in self.arms if arm.seconds is not None]
        return sum(seconds * share for seconds, share in timed) / sum(seconds for seconds, _ in timed) if timed else 1.0

    @property
    def disk(self) -> int:
        """Total bytes on disk of all trials."""
        return sum((arm.trials + arm.tuning) * arm.disk for arm in self.arms)


def plan(
    study: ExpandedStudy,
    runs: Path,
    data_dir: Path | None = None,
    device: str = "auto",
    workers: int | None = None,
    threads: int = 1,
    seeds: Iterable[SeedsNeeded] = (),
    time: bool = False,
    say: Callable[[str], None] = lambda line: None,
    progress: Callable[[int, int], None] = lambda done, all_: None,
    seconds: float = SECONDS,
) -> Plan:
    """Estimate the cost of a study from what its networks call and from how fast this machine is.

    The machine's speed comes from a calibration, which is made once and kept in the user's cache folder. What networks
    took when they were timed is kept there as well, and used in place of an estimate.

    Args:
        study: the study, expanded, and matched where it asks for that.
        runs: folder where the store will be, whose free disk space is measured.
        data_dir: folder with the data sets; only image folders are read.
        device: cpu, cuda, cuda:N, mps or auto.
        workers: worker processes; None: one per core; on CUDA, also no more than there is memory for.
        threads: number of threads per worker.
        seeds: what `seeds_by_pilot` or `seeds_by_deviation` found.
        time: whether to time a few training steps of each network on synthetic images, now.
        say: called with a line before the machine is calibrated.
        progress: called with the number of networks timed so far and the total.
        seconds: minimum duration of the timed steps of a network.

    Raises:
        SpecError: the device is not available, or a network does not accept the data's images, or the last batch.
        DataError: more images are requested than available, or an image folder cannot be read.
        Diverged: with `time`, a network's loss is not finite on random images at its first step.
    """
    chosen, cores, devices = choose_device(device), count_cores(), study.spec.devices
    images = [sizes(arm.trial.data, data_dir) for arm in study.arms]
    work = [Work(strip_for_timing(arm.trial), *describe(arm.trial.data, data_dir)) for arm in study.arms]
    for arm, of, split in zip(study.arms, work, images, strict=True):
        recipe = arm.trial.training
        check_last_batch(arm.trial.network, of.shape, of.classes, split.train, recipe, f"arm {arm.name}")
    distinct = list(dict.fromkeys(work))
    with remember_shapes():
        traced = {of: trace(of) for of in distinct}
    free, cards = free_memory(chosen), chosen.type == "cuda"
    if workers is None and cards:
        workers = card_capacity(study, data_dir, chosen, devices, cores, free).workers
    elif workers is None:
        workers = default_workers(chosen, devices, cores)
    beside = workers * devices if chosen.type == "cpu" else workers  # a GPU has one of the processes of a trial
    speeds = Speeds(chosen, threads, beside)
    if time:
        timings: dict[Work, Timing | None] = dict(
            zip(distinct, measure(distinct, str(chosen), threads, beside, progress, seconds), strict=True)
        )
        speeds.keep({of: timing for of, timing in timings.items() if timing is not None})
    else:
        timings = {of: speeds.timed(of) for of in distinct}
        if None in timings.values():
            speed = speeds.calibrated(say)
            timings = {of: timing or estimate(of, traced[of], speed) for of, timing in timings.items()}
    trials, tuning = len(study.seed_values), _tuning(study)
    arms = tuple(
        _arm_plan(arm, trials, tuning, of, traced[of], timings[of], split, chosen, devices)
        for arm, of, split in zip(study.arms, work, images, strict=True)
    )
    taken = [arm.seconds for arm in arms if arm.seconds is not None]
    all_seconds = _schedule(taken * (tuning + trials), workers) if len(taken) == len(arms) else None
    room = Capacity(max(arm.memory for arm in arms), free, devices if cards else 1, cores)
    return Plan(
        study=study.name,
        arms=arms,
        device=str(chosen),
        workers=workers,
        threads=threads,
        cores=cores,
        cards=len(free) if cards else 0,
        memory=min(free),
        fits=room.fits,
        disk_free=shutil.disk_usage(
            next(place for place in (runs.absolute(), *runs.absolute().parents) if place.exists())
        ).free,
        seconds=all_seconds,
        seeds=tuple(seeds),
        notes=(
            *_data_notes(study, data_dir),
            *_notes(study, arms, traced.values()),
            *_precision_notes(study, traced, chosen, all_seconds),
        ),
    )


def _tuning(study: ExpandedStudy) -> int:
    """Return the trials that tune one arm before the study; 0: it is not tuned, or has been."""
    tune = study.spec.tune
    if tune is None or study.resolved.chosen is not None:
        return 0
    return tune.budget * len(tune.seed_values(study.spec.seeds_taken))


def _arm_plan(
    arm: Arm,
    trials: int,
    tuning: int,
    work: Work,
    traced: Traced,
    timing: Timing | None,
    images: SplitSizes,
    device: torch.device,
    devices: int,
) -> ArmPlan:
    training, probes = arm.trial.training, arm.trial.probes
    epochs = training.epochs
    steps = math.ceil(images.train / training.batch_size) * epochs
    evaluated = images.train + images.validation + images.test + epochs * images.validation
    if training.test_every:
        evaluated += epochs // training.test_every * images.test
    if averaged := _averaged_epochs(training):
        evaluated += (len(averaged) + 1) * images.validation + images.test
        if training.test_every:
            evaluated += sum(epoch % training.test_every == 0 for epoch in averaged) * images.test
        if training.averaging is not None and training.averaging.recomputes_statistics:
            evaluated += (len(averaged) + 1) * images.train
    if training.evaluation is not None:
        networks = 1 if training.averaging is None else 2
        evaluated += networks * (training.evaluation.count - 1) * (images.validation + images.test)
    # forward once and backward twice that; a recomputed block goes forward again
    passes = 4 if isinstance(arm.trial.network, NetworkSpec) and arm.trial.network.checkpoint_blocks else 3
    measured = math.ceil(steps / probes.flow.every) if probes.flow else 0
    taken = {name: len(asked.epochs(epochs)) for name, asked in probes.snapshots().items()}
    state = state_bytes(training, traced)
    disk = RECORD * _records(training, work.classes) + TRIAL + (4 + bytes_kept(work.classes)) * images.test
    seconds = None
    if timing is not None:
        state = timing.state or state
        snapshots = [(times, *timing.snapshots[name]) for name, times in taken.items() if name in timing.snapshots]
        disk += timing.flow_bytes * measured + sum(times * size for times, _, size in snapshots)
        seconds = (
            timing.start
            + (timing.step * images.train / training.batch_size * epochs + timing.evaluation * evaluated) / devices
            + timing.flow * measured
            + sum(times * cost for times, cost, _ in snapshots)
        )
    return ArmPlan(
        arm=arm.name,
        trials=trials,
        tuning=tuning,
        parameters=traced.parameters,
        flops=2.0 * traced.multiply_adds * (passes * images.train * epochs + evaluated),
        seconds=seconds,
        memory=process_memory(work, traced, state, images, device) * (1 if device.type == "cuda" else devices),
        disk=2 * state + disk,
        steps=steps,
        timed=0 if timing is None else timing.steps,
        day=None if timing is None else timing.day,
        share=1.0 if timing is None else timing.share,
    )


def _averaged_epochs(training: TrainingSpec) -> list[int]:
    """Return the epochs, from 1, at whose end there may be an average of the weights."""
    averaging, epochs = training.averaging, range(1, training.epochs + 1)
    if averaging is None:
        return []
    if isinstance(averaging, Reference):
        return list(epochs)
    return [epoch for epoch in epochs if averaging.share(1, epoch, training.epochs, training.epochs) > 0]


def _records(training: TrainingSpec, classes: int) -> int:
    """Return the number of records: eight per epoch, three per intermediate test, nine and metrics at the end."""
    looks = training.epochs // training.test_every if training.test_every else 0
    final = len(recorded(metrics(), classes))
    averaged = 0 if training.averaging is None else 3 * (training.epochs + looks) + 6 + final  # at most
    stopped = 0 if training.early_stopping is None else 2
    return 8 * training.epochs + 3 * looks + 9 + final + averaged + stopped


def _schedule(trials: Sequence[float], workers: int) -> float:
    """Return the time at which the last trial ends, in seconds, if each free worker takes the next trial."""
    free = [0.0] * workers
    for seconds in trials:
        heapq.heapreplace(free, free[0] + seconds)
    return max(free)


def _data_notes(study: ExpandedStudy, data_dir: Path | None) -> Iterator[str]:
    """Yield what a user should know about data that are on this machine, such as files that are not read."""
    for spec in dict.fromkeys(arm.trial.data for arm in study.arms):
        if spec.known_sizes is None:
            yield from spec.read(data_dir or default_data_dir(), download=False).notes


def _notes(study: ExpandedStudy, arms: Sequence[ArmPlan], traced: Iterable[Traced]) -> Iterable[str]:
    uncounted = sorted({name for one in traced for name in one.uncounted})
    yield from study.remarks
    decide, tune = study.decide, study.spec.tune
    if decide is not None:
        yield (
            f"The study adds seeds until it is decided: each arm gets {decide.first} to {decide.max_seeds} seeds; the"
            f" estimates assume the maximum."
        )
    if tune is not None and arms[0].tuning:
        yield (
            f"Each arm is tuned by {arms[0].tuning:,} trials beforehand; they are included, each at the cost of a"
            f" trial with the study's own values."
        )
    recipes = [(arm, one.trial.training) for arm, one in zip(arms, study.arms, strict=True)]
    if stopping := [arm for arm, training in recipes if training.early_stopping is not None]:
        yield f"Training of {_which(stopping, arms)} may stop early; the estimates assume all epochs."
    if resizing := [arm for arm, training in recipes if training.resizing is not None]:
        yield (
            f"Training of {_which(resizing, arms)} begins with smaller images; the FLOPs, an upper bound there,"
            f"{' and the time' if any(arm.seconds is not None for arm in resizing) else ''} are those of whole images."
        )
    if frozen := [arm for arm, training in recipes if 0 in (training.rates or {}).values()]:
        estimated = any(arm.seconds is not None and not arm.timed for arm in frozen)
        yield (
            f"Training of {_which(frozen, arms)} freezes parameters; the FLOPs, an upper bound there,"
            f"{' and the estimated time' if estimated else ''} are those of training all parameters."
        )
    yield ("FLOPs: 2 per multiply-add; the backward pass counts as two forward passes, evaluation as one forward pass.")
    if uncounted:
        yield f"Not counted in the FLOPs: {join(uncounted)}."
    yield from _speed_notes(arms)
    yield (
        "Memory of a worker: the process, the data, weights, gradients, optimizer state, and twice the activations"
        " stored for the backward pass of a batch, or the peak of evaluation. Disk: two checkpoints per trial,"
        " records, outputs and probe measurements."
    )
    if study.spec.devices > 1:
        yield (
            f"Each trial trains on {study.spec.devices} devices: its time is that of one device divided by their"
            f" number; communication is not timed."
        )
    decoded = [arm.trial.data for arm in study.arms if not arm.trial.data.in_memory]
    if decoded:
        yield "Reading and decoding images is not timed; if it is slower than training, it determines the total time."
    if any(isinstance(each, MixingAugmentation) for one in decoded for each in one.augmentations):
        yield "Where images are mixed in pairs, two are decoded for each image of a batch."
    if any(arm.trial.pretraining for arm in study.arms):
        yield "Layer-wise pre-training is neither timed nor counted; add it to the time and FLOPs of its arms."
    if any(arm.trial.probes.snapshots() for arm in study.arms):
        if all(arm.timed for arm in arms):
            yield "Snapshot probes were timed once each, on random images before training."
        else:
            yield "Snapshot probes are in neither the time nor the disk of networks that were not timed: use --time."
    if any(arm.trial.data.augmentations for arm in study.arms) and not all(arm.timed for arm in arms):
        yield "Augmentation is not in the time of networks that were not timed: use --time."


def _speed_notes(arms: Sequence[ArmPlan]) -> Iterator[str]:
    """Yield where the times are from."""
    timed, estimated = ([arm for arm in arms if arm.day and bool(arm.timed) == known] for known in (True, False))
    unknown = [arm.arm for arm in arms if arm.day is None]
    if estimated:
        yield (
            f"Time of {_which(estimated, arms)}: estimated from the operations and from this machine's calibration of"
            f" {estimated[0].day}, for most networks within a factor of {FACTOR:g}; use --time to time the networks"
            f" themselves."
        )
    if timed:
        steps = sorted({arm.timed for arm in timed})
        days = sorted({arm.day for arm in timed if arm.day})
        yield (
            f"Time of {_which(timed, arms)}: from {' to '.join(dict.fromkeys(map(str, (steps[0], steps[-1]))))}"
            f" training steps of each network on random images, timed on"
            f" {' to '.join(dict.fromkeys((days[0], days[-1])))} with as many networks training at once as there are"
            f" workers."
        )
    if unknown:
        yield (
            f"Time of {join(unknown)}: not known; it is estimated in float32 only, from operations of a network and of"
            f" its optimizer that can be counted. Use --time to time the networks themselves."
        )
    yield "Time for the store and checkpoints is not included."


def _precision_notes(
    study: ExpandedStudy, traced: Mapping[Work, Traced], device: torch.device, seconds: float | None
) -> Iterator[str]:
    """Yield what would make a long study shorter on this processor."""
    wide = all(arm.trial.training.precision == "float32" for arm in study.arms)
    convolves = any(one.step and one.step["convolutions"] and of.shape[1] >= LARGE for of, one in traced.items())
    if device.type == "cpu" and wide and convolves and (seconds or 0) >= LONG and multiplies_bfloat16():
        yield (
            "This processor multiplies bfloat16 in hardware (AMX), in which convolutional networks may train two to"
            " three times as fast. Their results differ, so that it is another study: plan it with --set"
            " training.precision=bfloat16 --time."
        )


def _which(some: Sequence[ArmPlan], arms: Sequence[ArmPlan]) -> str:
    return "all arms" if len(some) == len(arms) else join([arm.arm for arm in some])
