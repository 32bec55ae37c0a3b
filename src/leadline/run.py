"""From a claimed trial to its records: a worker takes trials one after another and runs each to its end."""

import contextlib
import math
import platform
import signal
import subprocess
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from leadline import artifacts
from leadline.checkpoints import (
    TEN_MINUTES,
    DamagedCheckpoint,
    Interval,
    Timer,
    checkpoint_name,
    load_checkpoint,
    ran_out_of_memory,
    remove_strays,
    save_checkpoint,
)
from leadline.data import batches
from leadline.devices import Place, answer, called, check_torchrun, spread, together, under_torchrun
from leadline.errors import LeadlineError, StoreError
from leadline.layerwise import pretrain_network
from leadline.nets import build
from leadline.parallel import ALONE, Team
from leadline.pretraining.fitting import PretrainingDiverged
from leadline.record import Record
from leadline.spec import DataSpec, TrialSpec, canonical_json
from leadline.stopping import Stop, Stopped, at_sigterm
from leadline.store import Claim, LeaseLost, Owner, Store
from leadline.training import Diverged, TrainState, choose_device, prepare, train

LEASE_SECONDS = 120.0
HEARTBEAT_SECONDS = 20.0
JOIN_SECONDS = 5.0
PATIENCE_SECONDS = 300.0
"""For which a worker tries to reach a database that is gone, before it gives up."""
MOST_ATTEMPTS = 5
"""Starts of a trial whose worker died each time before the next checkpoint, after which nobody starts it unasked."""


@dataclass(frozen=True)
class Job:
    """What a worker needs to take part in a study."""

    study: str
    runs: Path
    store_url: str | None = None
    data_dir: Path | None = None
    device: str = "cpu"
    threads: int = 1  # per process; bits change with it
    checkpoint_every: Interval = TEN_MINUTES  # no bit changes with it
    devices: int | None = None  # that train a trial together; last bits change with it; None: as the study says
    artifacts: str | None = None  # URL of a folder for checkpoints, from `artifacts.folder_url`; None: the runs folder


@dataclass(frozen=True)
class Event:
    """Something that happened to a trial: `progress` while it runs, then its final state."""

    kind: str  # "started", "progress", "restarted", "finished", "diverged", "failed", "stopped", "died"
    trial: str
    arm: str
    seed: int
    owner: str
    fraction: float = 0.0  # of the trial's steps done
    text: str = ""


Emit = Callable[[Event], None]


def work(job: Job, emit: Emit, most: float = math.inf, stop: Stop | None = None) -> int:
    """Take trials of a study and run them until none can be taken, or so many were; return how many were taken.

    While the database is gone, its calls are tried again for five minutes.

    Raises:
        StoreError: the store cannot be opened or used, or a checkpoint cannot be written.
        Stopped: the process was asked to stop; the trial has been given back.
    """
    stop = stop or Stop()
    taken = 0
    torch.set_num_threads(job.threads)
    device = choose_device(job.device)
    owner = Owner.current()
    with Store.open(job.runs, job.store_url, PATIENCE_SECONDS) as store:
        devices = job.devices or store.study(job.study).spec.get("devices", 1)
        check_torchrun(devices)
        places = spread(device, devices)
        while taken < most and (claim := store.claim(job.study, str(owner), LEASE_SECONDS)) is not None:
            taken += 1
            run_trial(store, claim, str(owner), places, job, emit, stop)
            if stop.asked:
                raise Stopped
    return taken


def run_trial(
    store: Store,
    claim: Claim,
    owner: str,
    devices: Sequence[torch.device],
    job: Job,
    emit: Emit,
    stop: Stop,
) -> None:
    """Run one claimed trial from its last checkpoint to its end, and store what it gives.

    A trial that diverges or fails is stored as such; the caller goes on with the next one. When the process is
    asked to stop, the step ends, a checkpoint is written, and the claim is given back.
    """
    spec = TrialSpec.model_validate_json(claim.spec)

    def tell(kind: str, fraction: float = 0.0, text: str = "") -> None:
        emit(Event(kind, claim.trial, claim.arm, spec.seed, owner, fraction, text))

    try:  # from the first moment, for a stop may come in any
        tell("started", claim.epochs_done / spec.training.epochs)
        with _heartbeat(store, claim.trial, owner) as lost:
            try:
                if claim.attempts > MOST_ATTEMPTS:
                    raise LeadlineError(
                        f"its worker process died {MOST_ATTEMPTS} times; if memory ran out, use fewer workers"
                    )
                store.set_environment(claim.trial, owner, environment(devices))
                last, earlier = claim.checkpoint, claim.earlier_checkpoint
                files = _Checkpoints(store, spec, claim.trial, owner, last, earlier, job.artifacts)
                _train_on(devices, job, files, claim, tell, lost, stop)
            except (Diverged, PretrainingDiverged) as error:
                store.finish(claim.trial, owner, "diverged", error=str(error), diverged_step=error.step)
                files.remove_earlier()
                tell("diverged", 1.0, str(error))
            except StoreError:
                raise
            except Exception as error:
                line, detail = _in_words(error)
                store.finish(claim.trial, owner, "failed", error=line + detail)
                tell("failed", 0.0, line)
    except LeaseLost as error:
        tell("stopped", 0.0, str(error))
    except (Stopped, KeyboardInterrupt, StoreError):
        given_back = True
        with contextlib.suppress(StoreError):  # then it ends with the process, or its lease
            given_back = store.release(claim.trial, owner)
        if given_back:
            tell("stopped")
        raise


def _in_words(error: Exception) -> tuple[str, str]:
    """Return why a trial failed, in one line, and what a developer wants to see below it."""
    if isinstance(error, LeadlineError):
        return " ".join(str(error).split()), ""
    line = " ".join(f"{type(error).__name__}: {error}".split())
    if ran_out_of_memory(error):
        return f"out of memory; use a smaller training.batch_size, or fewer workers at once ({line})", ""
    return line, f"\n{traceback.format_exc()}"


@dataclass
class _Checkpoints:
    """A trial's checkpoints: the last, and the one before it, which is kept until the next is committed."""

    store: Store
    spec: TrialSpec
    trial: str
    owner: str
    last: str | None
    earlier: str | None
    url: str | None = None  # of a folder where they are kept as well

    def keep(
        self, state: TrainState, records: Sequence[Record], seconds: float, measurements: Mapping[str, bytes]
    ) -> None:
        """Write a checkpoint, commit it with what was measured, and remove the one that nothing falls back on now."""
        path = self.store.checkpoints / checkpoint_name(self.trial, state)
        save_checkpoint(state, self.spec, path)
        name = artifacts.put(path, self.url)
        self.store.commit_epoch(self.trial, self.owner, records, name, state.epoch, seconds, measurements)
        if name != self.last:
            self.remove_earlier()
            self.last, self.earlier = name, self.last

    def remove_earlier(self) -> None:
        """Remove the checkpoint before the last: the trial has got on, or ended."""
        if self.earlier is not None:
            artifacts.remove(self.earlier, self.store.checkpoints)
            self.earlier = None


def _begun(
    files: _Checkpoints, claim: Claim, fresh: Callable[[], TrainState], tell: Callable[[str, float, str], None]
) -> TrainState:
    """Return the state of the last checkpoint that is whole, or of the beginning; the same bits follow either way."""
    store, folder = files.store, files.store.checkpoints
    kept = [artifacts.base(name) for name in (files.last, files.earlier) if name is not None]
    remove_strays(folder, files.trial, kept)
    artifacts.remove_strays(files.url, files.trial, kept)
    while files.last is not None:
        state = fresh()
        try:
            load_checkpoint(state, artifacts.get(files.last, folder))
            return state
        except (DamagedCheckpoint, artifacts.MissingArtifact) as error:
            done, follows = 0, "training starts anew"
            if files.earlier is not None:
                done, follows = claim.earlier_epoch, "training goes on from the one before it"
            store.fall_back(files.trial, files.owner, files.last, f"{error}; {follows}")
            tell("restarted", done / files.spec.training.epochs, f"{error}; {follows}")
            files.last, files.earlier = files.earlier, None
    return fresh()


def _train_on(
    devices: Sequence[torch.device],
    job: Job,
    files: _Checkpoints,
    claim: Claim,
    tell: Callable[[str, float, str], None],
    lost: threading.Event,
    stop: Stop,
) -> None:
    """Train on one device, in this process, or on several: in new processes, or with those of torchrun."""

    def look() -> None:
        if lost.is_set():
            raise LeaseLost(f"trial {claim.trial[:12]}: another worker has taken it over")

    if len(devices) == 1:
        _train_and_store(job, files, claim, devices[0], tell, look, stop, ALONE)
    elif (place := under_torchrun()) is not None:
        device = place.device(devices[0])
        with called((job.threads, claim.spec, job.data_dir), place, device) as team:
            _train_and_store(job, files, claim, device, tell, look, stop, team)
    else:
        together(_train_beside_others, (job, files, claim), devices, job.threads, tell, look)


def _train_beside_others(
    team: Team,
    device: torch.device,
    tell: Callable[[str, float, str], None],
    job: Job,
    files: _Checkpoints,
    claim: Claim,
) -> None:
    """Be one of the processes of a trial; rank 0 stores what it gives, and a worker outside keeps its lease."""
    if team.rank:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # while rank 0 needs it to end a step; then it ends as well
        follow(team, device, job.threads, claim.spec, job.data_dir)
        return
    with at_sigterm() as stop:
        try:
            _train_and_store(job, files, claim, device, tell, lambda: None, stop, team)
        except Diverged:
            files.remove_earlier()
            raise


def assist(place: Place, device: str) -> None:
    """Train beside rank 0 for as long as it has trials, in a process that torchrun has started."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # rank 0 ends its step first, and then calls no more
    answer(place, place.device(choose_device(device)), follow)


def follow(team: Team, device: torch.device, threads: int, trial: str, data_dir: Path | None) -> None:
    """Train a trial as rank 0 does, from the state that it gives, and store nothing.

    Args:
        team: of which this is not rank 0.
        device: of this process.
        threads: of this process.
        trial: its specification as JSON.
        data_dir: folder of the data sets.
    """
    torch.set_num_threads(threads)
    spec = TrialSpec.model_validate_json(trial)
    data = _dataset(canonical_json(spec.data.model_dump(mode="json")), data_dir, device)
    state = prepare(build(spec.network, data.shape, data.classes, spec.seed), spec.training, device)
    if team.told(False) and spec.pretraining is not None:  # for as long as rank 0 does
        pretrain_network(state.model, data, spec.pretraining, spec.seed, lambda *_: None)
    state.load(*team.told(({}, 0, 0)))
    for _ in train(state, data, spec.training, spec.seed, spec.probes, team=team):
        pass


def _train_and_store(
    job: Job,
    files: _Checkpoints,
    claim: Claim,
    device: torch.device,
    tell: Callable[[str, float, str], None],
    look: Callable[[], None],
    stop: Stop,
    team: Team,
) -> None:
    store, spec, owner = files.store, files.spec, files.owner
    data = _dataset(canonical_json(spec.data.model_dump(mode="json")), job.data_dir, device)

    def fresh() -> TrainState:
        return prepare(build(spec.network, data.shape, data.classes, spec.seed), spec.training, device)

    state = _begun(files, claim, fresh, tell)
    pretrains = team.told(state.step == 0 and spec.pretraining is not None)
    if pretrains and spec.pretraining is not None:
        before = pretrain_network(
            state.model, data, spec.pretraining, spec.seed, lambda words, _: tell("progress", 0.0, words)
        )
        pictures = {} if before.pictures is None else {"pretraining": before.pictures.to_bytes()}
        store.commit_epoch(claim.trial, owner, before.records, None, 0, before.seconds, pictures)
    if team.size > 1:
        team.told((state.tensors(), state.step, state.epoch))
    steps = -(-data.train_size // spec.training.batch_size) * spec.training.epochs
    pending: list[Record] = []
    stored_epoch = state.epoch
    timer = Timer.start(job.checkpoint_every, state.step)

    def due(step: int) -> bool:
        return stop.asked or timer.due(step)

    with stop.gently():
        for record in _records(store, claim, spec, owner, state, data, due, team):
            look()
            if record.split == "batch":
                tell("progress", record.step / steps, f"loss {record.value:.4g}")
                if due(record.step):
                    _commit_start(store, claim, owner, state)
                    files.keep(state, [], 0.0, {})
                    timer.restart(state.step)
            else:
                pending.append(record)
                if state.epoch == stored_epoch:
                    continue
                stored_epoch = state.epoch
                seconds = sum(one.value for one in pending if (one.split, one.name) == ("time", "seconds"))
                _commit_start(store, claim, owner, state)
                files.keep(state, pending, seconds, _measured(state, state.epoch))
                timer.restart(state.step)
                pending = []
                tell("progress", state.step / steps, f"epoch {state.epoch} of {spec.training.epochs}")
            if stop.asked:
                raise Stopped
        assert state.test_predictions is not None
        predictions = state.test_predictions, data.test_labels.astype(np.int16)
        store.finish(claim.trial, owner, "finished", records=pending, predictions=predictions)
        files.remove_earlier()
        tell("finished", 1.0, "")


def _records(
    store: Store,
    claim: Claim,
    spec: TrialSpec,
    owner: str,
    state: TrainState,
    data: batches.Data,
    pause: Callable[[int], bool],
    team: Team,
) -> Iterator[Record]:
    """Train; of an epoch in which training diverges, store what probes saw of it, which no later epoch will."""
    try:
        yield from train(state, data, spec.training, spec.seed, spec.probes, pause, team)
    except Diverged:
        if state.epoch < spec.training.epochs:
            _commit_start(store, claim, owner, state)
            cut_short = state.epoch + 1
            store.commit_epoch(claim.trial, owner, [], None, cut_short, 0.0, _measured(state, cut_short))
        raise


def _commit_start(store: Store, claim: Claim, owner: str, state: TrainState) -> None:
    """Store what probes saw before the first step, once; a trial that is killed before its checkpoint sees it again."""
    if seen := {name: one.to_bytes() for name, one in state.measured.get(0, {}).items()}:
        store.commit_epoch(claim.trial, owner, [], None, 0, 0.0, seen)


def _measured(state: TrainState, epoch: int) -> dict[str, bytes]:
    """Return what probes measured in an epoch, or in the part of it that training got through."""
    seen = {name: one.to_bytes() for name, one in state.measured.get(epoch, {}).items()}
    if state.flow is not None and len(state.flow.steps):
        seen["flow"] = state.flow.to_bytes()
    return seen


@lru_cache(maxsize=2)
def _dataset(spec: str, data_dir: Path | None, device: torch.device) -> batches.Data:
    return batches.load(DataSpec.model_validate_json(spec), data_dir).to(device)


@contextlib.contextmanager
def _heartbeat(store: Store, trial: str, owner: str) -> Iterator[threading.Event]:
    """Renew the trial's lease while the body runs; the event is set when another worker has taken the trial over."""
    done, lost = threading.Event(), threading.Event()

    def beat() -> None:
        pause = HEARTBEAT_SECONDS
        while not done.wait(pause):
            pause = HEARTBEAT_SECONDS / 4
            with contextlib.suppress(StoreError):
                if not store.heartbeat(trial, owner, LEASE_SECONDS):
                    lost.set()
                    return
                pause = HEARTBEAT_SECONDS

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield lost
    finally:
        done.set()
        thread.join(JOIN_SECONDS)  # it may hang on a database that is gone


def environment(devices: Sequence[torch.device]) -> dict[str, Any]:
    """Return what the bits of a result may depend on: versions, machine, threads, commit."""
    packages = ("leadline", "torch", "numpy", "scipy", "scikit-learn")
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "device": torch.cuda.get_device_name(devices[0]) if devices[0].type == "cuda" else "cpu",
        "devices": len(devices),
        "threads": torch.get_num_threads(),
        "git_commit": _git_commit(),
    }


def _cpu_name() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


@lru_cache(maxsize=1)
def _git_commit() -> str | None:
    """Return the commit of the folder that the study was started in, where that is a git work tree."""
    try:
        result = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() or None
