"""From a claimed trial to its records: run_trial, and the executors that run a study's trials until none is left."""

import contextlib
import multiprocessing
import os
import platform
import signal
import subprocess
import threading
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import metadata
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from leadline.data import batches
from leadline.errors import LeadlineError, StoreError
from leadline.nets import build
from leadline.record import Record
from leadline.spec import DataSpec, TrialSpec, canonical_json
from leadline.store import Claim, LeaseLost, Owner, Store
from leadline.training import Diverged, TrainState, choose_device, prepare, train

LEASE_SECONDS = 120.0
HEARTBEAT_SECONDS = 20.0
MOST_ATTEMPTS = 5
"""Starts of a trial whose worker died each time, after which nobody starts it again unasked."""


@dataclass(frozen=True)
class Job:
    """What a worker needs to take part in a study."""

    study: str
    runs: Path
    store_url: str | None = None
    data_dir: Path | None = None
    device: str = "cpu"
    threads: int = 1  # per process; bits change with it


@dataclass(frozen=True)
class Event:
    """Something that happened to a trial: `progress` while it runs, then its final state."""

    kind: str  # "started", "progress", "restarted", "finished", "diverged", "failed", "stopped"
    trial: str
    arm: str
    seed: int
    owner: str
    fraction: float = 0.0  # of the trial's steps done
    text: str = ""


Emit = Callable[[Event], None]


class DamagedCheckpoint(StoreError):
    """A checkpoint that is gone, or is not what was written."""


class Stopped(BaseException):
    """The process was asked to stop; no Exception, so that nothing but the worker's end catches it."""


def work(job: Job, emit: Emit) -> None:
    """Take trials of a study and run them until none can be taken.

    Raises:
        StoreError: the store cannot be opened or used.
    """
    torch.set_num_threads(job.threads)
    device = choose_device(job.device)
    owner = Owner.current()
    with Store.open(job.runs, job.store_url) as store:
        while (claim := store.claim(job.study, str(owner), LEASE_SECONDS)) is not None:
            run_trial(store, claim, str(owner), device, job.data_dir, emit)


def run_trial(store: Store, claim: Claim, owner: str, device: torch.device, data_dir: Path | None, emit: Emit) -> None:
    """Run one claimed trial from its last checkpoint to its end, and store what it gives.

    A trial that diverges or fails is stored as such; the caller goes on with the next one. When the process is
    asked to stop, the claim is given back, and every finished epoch stays.
    """
    spec = TrialSpec.model_validate_json(claim.spec)

    def tell(kind: str, fraction: float = 0.0, text: str = "") -> None:
        emit(Event(kind, claim.trial, claim.arm, spec.seed, owner, fraction, text))

    tell("started", claim.epochs_done / spec.training.epochs)
    try:
        with _heartbeat(store, claim.trial, owner) as lost:
            try:
                if claim.attempts > MOST_ATTEMPTS:
                    raise LeadlineError(
                        f"its worker process died {MOST_ATTEMPTS} times; if memory ran out, use fewer workers"
                    )
                store.set_environment(claim.trial, owner, environment(device))
                _train_and_store(store, claim, spec, owner, device, data_dir, tell, lost)
                tell("finished", 1.0)
            except Diverged as error:
                store.finish(claim.trial, owner, "diverged", error=str(error), diverged_step=error.step)
                tell("diverged", 1.0, str(error))
            except StoreError:
                raise
            except Exception as error:
                text = str(error) if isinstance(error, LeadlineError) else f"{type(error).__name__}: {error}"
                line = " ".join(text.split())
                detail = "" if isinstance(error, LeadlineError) else f"\n{traceback.format_exc()}"
                store.finish(claim.trial, owner, "failed", error=line + detail)
                tell("failed", 0.0, line)
    except LeaseLost as error:
        tell("stopped", 0.0, str(error))
    except (Stopped, KeyboardInterrupt):
        store.release(claim.trial, owner)
        tell("stopped")
        raise


def _train_and_store(
    store: Store,
    claim: Claim,
    spec: TrialSpec,
    owner: str,
    device: torch.device,
    data_dir: Path | None,
    tell: Callable[[str, float, str], None],
    lost: threading.Event,
) -> None:
    def fresh() -> TrainState:
        return prepare(build(spec.network, data.shape, data.classes, spec.seed), spec.training, device)

    data = _dataset(canonical_json(spec.data.model_dump(mode="json")), data_dir, device)
    state, checkpoint = fresh(), claim.checkpoint
    if checkpoint is not None:
        try:
            load_checkpoint(state, store.checkpoints / checkpoint)
        except DamagedCheckpoint as error:  # the same epochs, trained again, give the same bits
            state = fresh()
            tell("restarted", 0.0, f"{error}; training starts anew")
    steps = -(-data.train_size // spec.training.batch_size) * spec.training.epochs
    pending: list[Record] = []
    stored_epoch = state.epoch
    for record in _records(store, claim, spec, owner, state, data):
        if lost.is_set():
            raise LeaseLost(f"trial {claim.trial[:12]}: another worker has taken it over")
        if record.split == "batch":
            tell("progress", record.step / steps, f"loss {record.value:.4g}")
            continue
        pending.append(record)
        if state.epoch == stored_epoch:
            continue
        stored_epoch, previous = state.epoch, checkpoint
        checkpoint = f"{claim.trial}-{state.epoch}.safetensors"
        save_checkpoint(state, spec, store.checkpoints / checkpoint)
        seconds = sum(record.value for record in pending if (record.split, record.name) == ("time", "seconds"))
        store.commit_epoch(claim.trial, owner, pending, checkpoint, state.epoch, seconds, _measured(state))
        pending = []
        if previous is not None:
            (store.checkpoints / previous).unlink(missing_ok=True)
        tell("progress", state.step / steps, f"epoch {state.epoch} of {spec.training.epochs}")
    assert state.test_predictions is not None
    predictions = state.test_predictions, data.test_labels.astype(np.int16)
    store.finish(claim.trial, owner, "finished", records=pending, predictions=predictions)


def _records(
    store: Store, claim: Claim, spec: TrialSpec, owner: str, state: TrainState, data: batches.Data
) -> Iterator[Record]:
    """Train; of an epoch in which training diverges, store what probes saw of it, which no later epoch will."""
    try:
        yield from train(state, data, spec.training, spec.seed, spec.probes)
    except Diverged:
        if state.epoch < spec.training.epochs:
            store.commit_epoch(claim.trial, owner, [], None, state.epoch + 1, 0.0, _measured(state))
        raise


def _measured(state: TrainState) -> dict[str, bytes]:
    """Return what probes measured in the last epoch, or in the part of it that training got through."""
    return {} if state.flow is None or not len(state.flow.steps) else {"flow": state.flow.to_bytes()}


@lru_cache(maxsize=2)
def _dataset(spec: str, data_dir: Path | None, device: torch.device) -> batches.Data:
    return batches.load(DataSpec.model_validate_json(spec), data_dir).to(device)


def save_checkpoint(state: TrainState, spec: TrialSpec, path: Path) -> None:
    """Write weights, buffers and optimizer state as safetensors, whole or not at all."""
    partial = path.with_suffix(f".{os.getpid()}.partial")
    position = {"spec": spec.model_dump_json(), "step": str(state.step), "epoch": str(state.epoch)}
    try:
        save_file(state.tensors(), partial, position)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def load_checkpoint(state: TrainState, path: Path) -> None:
    """Bring a fresh state to where a checkpoint was written.

    Raises:
        DamagedCheckpoint: the file is missing or damaged.
        StoreError: it cannot be read now, and perhaps later: no memory, no connection.
    """
    try:
        with safe_open(path, framework="pt") as file:
            position = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        state.load(tensors, int(position["step"]), int(position["epoch"]))
    except Exception as error:
        passing = isinstance(error, OSError | MemoryError | torch.OutOfMemoryError)
        kind = StoreError if passing and not isinstance(error, FileNotFoundError) else DamagedCheckpoint
        raise kind(f"checkpoint {path}: cannot be read: {error}") from None


@contextlib.contextmanager
def _heartbeat(store: Store, trial: str, owner: str) -> Iterator[threading.Event]:
    """Renew the trial's lease while the body runs; the event is set when another worker has taken the trial over."""
    done, lost = threading.Event(), threading.Event()

    def beat() -> None:
        while not done.wait(HEARTBEAT_SECONDS):
            with contextlib.suppress(StoreError):
                if not store.heartbeat(trial, owner, LEASE_SECONDS):
                    lost.set()
                    return

    thread = threading.Thread(target=beat, daemon=True)
    thread.start()
    try:
        yield lost
    finally:
        done.set()
        thread.join()


def environment(device: torch.device) -> dict[str, Any]:
    """Return what the bits of a result may depend on: versions, machine, threads, commit."""
    packages = ("leadline", "torch", "numpy", "scipy", "scikit-learn")
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
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


# --- executors


class Executor(Protocol):
    """Runs a study's trials until none can be taken, telling what happens."""

    def run(self, job: Job, emit: Emit) -> None:
        """Run until no trial is left that could be taken."""


@dataclass(frozen=True)
class InProcess:
    """Runs trials one after another in this process: for debugging and for tests."""

    def run(self, job: Job, emit: Emit) -> None:
        """Run until no trial is left that could be taken."""
        work(job, emit)


@dataclass(frozen=True)
class LocalProcesses:
    """Runs trials in worker processes of this machine; one that dies takes only its own trial with it."""

    workers: int

    def run(self, job: Job, emit: Emit) -> None:
        """Run until no trial is left that could be taken.

        Raises:
            LeadlineError: a worker could not use the store, or died before its first trial.
        """
        context = multiprocessing.get_context("spawn")
        current: dict[Connection, _Worker] = {}
        try:
            for _ in range(self.workers):
                worker = _Worker.start(context, job)
                current[worker.events] = worker
            while current:
                for events in wait(list(current)):
                    assert isinstance(events, Connection)
                    worker = current[events]
                    try:
                        message = events.recv()
                    except (EOFError, OSError):
                        del current[events]
                        if worker.died(job, emit):
                            replacement = _Worker.start(context, job)
                            current[replacement.events] = replacement
                        continue
                    if isinstance(message, LeadlineError):
                        raise message
                    worker.last = message
                    emit(message)
        finally:
            for worker in current.values():
                worker.process.terminate()
            for worker in current.values():
                worker.process.join(10)
                worker.process.kill()


@dataclass
class _Worker:
    process: multiprocessing.process.BaseProcess
    events: Connection
    last: Event | None = None

    @classmethod
    def start(cls, context: Any, job: Job) -> "_Worker":
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_worker_main, args=(job, theirs, os.getpid()), daemon=True)
        with _deaf_to_interrupts():
            process.start()
        theirs.close()
        return cls(process, ours)

    def died(self, job: Job, emit: Emit) -> bool:
        """Store a dead worker's trial as failed; return whether another worker must take its place.

        Raises:
            LeadlineError: it died before its first trial, as another would.
        """
        self.process.join()
        code, last = self.process.exitcode or 0, self.last
        if code == 0:
            return False
        how = f"signal {-code} ({signal.Signals(-code).name})" if code < 0 else f"exit code {code}"
        text = f"its worker process died with {how}; if memory ran out, use fewer workers"
        if last is None:
            raise LeadlineError(f"{job.study}: {text}")
        if last.kind in ("finished", "diverged", "failed", "stopped"):
            return True
        with Store.open(job.runs, job.store_url) as store:
            try:
                store.finish(last.trial, last.owner, "failed", error=text)
            except LeaseLost:  # another worker has seen the death first and goes on with the trial
                return True
        emit(Event("failed", last.trial, last.arm, last.seed, last.owner, 0.0, text))
        return True


@contextlib.contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """Let what is started in the body ignore Ctrl-C from its first moment, its imports included."""
    if threading.current_thread() is not threading.main_thread():  # only the main one may set signals
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _worker_main(job: Job, events: Connection, parent: int) -> None:
    def stop(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once: what it interrupts must be able to clean up
        raise Stopped

    def follow_parent() -> None:
        while os.getppid() == parent:
            threading.Event().wait(1)
        os.kill(os.getpid(), signal.SIGTERM)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    signal.signal(signal.SIGTERM, stop)
    threading.Thread(target=follow_parent, daemon=True).start()

    def emit(event: Event) -> None:
        with contextlib.suppress(BrokenPipeError):
            events.send(event)

    with contextlib.suppress(Stopped):
        try:
            work(job, emit)
        except LeadlineError as error:
            events.send(error)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it ends by itself now
