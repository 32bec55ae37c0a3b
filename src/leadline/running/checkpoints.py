"""Checkpoints: the complete training state in one file, written atomically, with a checksum.

A trial keeps its last checkpoint and the one before it; `Checkpoints` saves and restores them.
"""

import contextlib
import json
import math
import os
import re
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TypeVar

from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from leadline.errors import SpecError, StoreError
from leadline.networks.weights import hash_tensors
from leadline.parts.metrics.record import Record
from leadline.specs import TrialSpec
from leadline.store import Claim, LeaseLost, Store, TrialRecord, artifacts, verify_spec
from leadline.store.schema import SETTLED
from leadline.training import TrainState
from leadline.training.device_errors import ran_out_of_memory

SUFFIX = ".safetensors"
CHECKSUM = "sha256"

T = TypeVar("T")


class DamagedCheckpoint(StoreError):
    """A checkpoint that is missing or damaged."""


@dataclass(frozen=True)
class Interval:
    """Maximum interval between two checkpoints, of which every epoch ends with one unless it is short."""

    seconds: float | None = None
    steps: int | None = None

    def __str__(self) -> str:
        """Return the form that `parse` accepts."""
        if self.seconds is not None:
            return f"{Decimal(repr(self.seconds)):f}".removesuffix(".0") + "s"
        return "epoch" if self.steps is None else f"{self.steps}steps"

    @classmethod
    def parse(cls, text: str) -> "Interval":
        """Parse `10m`, `500s`, `2h`, `200steps`, or `epoch` (only at the ends of epochs).

        Raises:
            SpecError: the text has another form.
        """
        if text == "epoch":
            return cls()
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|h|steps?)", text.strip())
        if match is not None:
            unit = match[2]
            number = float(match[1]) * {"m": 60, "h": 3600}.get(unit, 1)
            if 0 < number < math.inf and unit in ("s", "m", "h"):
                return cls(seconds=number)
            if 0 < number < math.inf and number.is_integer():
                return cls(steps=int(number))
        raise SpecError(f"--checkpoint-every {text!r}: expected a time or steps, such as 10m, 500s, 200steps, or epoch")


TEN_MINUTES = Interval(seconds=600.0)
LARGEST_SHARE = 0.02
"""Epochs so short that a checkpoint at the end of each would take more than this share of the time share one."""


@dataclass
class Timer:
    """Timer that says when the next checkpoint is due."""

    interval: Interval
    step: int  # at the last checkpoint
    moment: float  # of the last checkpoint, time.monotonic
    cost: float = 0.0  # seconds that the last checkpoint took

    @classmethod
    def start(cls, interval: Interval, step: int) -> "Timer":
        """Start counting at a step."""
        return cls(interval, step, time.monotonic())

    def due(self, step: int) -> bool:
        """Whether the interval has passed."""
        seconds, steps = self.interval.seconds, self.interval.steps
        late = seconds is not None and time.monotonic() - self.moment >= seconds
        return late or (steps is not None and step - self.step >= steps)

    def due_after_epoch(self, step: int) -> bool:
        """Whether an epoch ends with a checkpoint; if the interval is a time, very short epochs share one."""
        by_time = self.interval.seconds is not None
        return not by_time or self.due(step) or time.monotonic() - self.moment >= self.cost / LARGEST_SHARE

    def restart(self, step: int, cost: float) -> None:
        """Restart counting after a checkpoint has been written, which took so many seconds."""
        self.step, self.moment, self.cost = step, time.monotonic(), cost


@dataclass
class Checkpoints:
    """The checkpoints of a claimed trial: the last one, and the one before it, kept until the next is committed."""

    store: Store
    claim: Claim
    worker: str  # the id of the one that has the claim
    url: str | None = None  # of a folder where they are kept as well
    spec: TrialSpec = field(init=False)
    last: str | None = field(init=False)
    earlier: str | None = field(init=False)

    def __post_init__(self) -> None:
        """Start with the checkpoints named in the claim."""
        self.spec = verify_spec(self.claim.trial, json.loads(self.claim.spec))
        self.last, self.earlier = self.claim.checkpoint, self.claim.earlier_checkpoint

    def save(
        self, state: TrainState, records: Sequence[Record], seconds: float, measurements: Mapping[str, bytes]
    ) -> None:
        """Write a checkpoint, commit it together with the measurements, and remove the one that is no longer needed."""
        trial = self.claim.trial
        path = self.store.checkpoints / checkpoint_name(trial, state)
        try:
            save_checkpoint(state, self.spec, path)
            name = artifacts.put(path, self.url, self.store.patience)
        except StoreError:
            # a new owner removes what the old one, whose machine may have slept, is still writing
            if self.store.trial(trial).owner != self.worker:
                raise LeaseLost(f"trial {trial[:12]}: another worker has taken it over") from None
            raise
        try:
            self.store.commit_epoch(trial, self.worker, records, name, state.epoch, seconds, measurements)
        except LeaseLost:
            self._discard(name)
            raise
        if name != self.last:
            self.remove_earlier()
            self.last, self.earlier = name, self.last

    def _discard(self, name: str) -> None:
        """Remove a file of a trial that another worker has ended; one that still runs it removes it at its end."""
        record = self.store.trial(self.claim.trial)
        if record.state in SETTLED and name != record.checkpoint:
            artifacts.remove(name, self.claim.trial, self.store.checkpoints, self.url)

    def remove_all_but_last(self) -> None:
        """Remove every file of the trial but its last checkpoint, because it is about to end."""
        self.remove_earlier()
        self._remove_strays([self.last])

    def _remove_strays(self, kept: Sequence[str | None]) -> None:
        names = [artifacts.file_name(name) for name in kept if name is not None]
        remove_strays(self.store.checkpoints, self.claim.trial, names)
        artifacts.remove_strays(self.url, self.claim.trial, names)

    def remove_earlier(self) -> None:
        """Remove the checkpoint before the last, because the trial has progressed or ended."""
        if self.earlier is not None:
            artifacts.remove(self.earlier, self.claim.trial, self.store.checkpoints, self.url)
            self.earlier = None

    def restore_or_init(self, init: Callable[[], TrainState], report: Callable[[str, float, str], None]) -> TrainState:
        """Return the state of the last intact checkpoint, or a new state; training gives the same bits either way.

        Args:
            init: function that returns the state before the first step, into which a checkpoint is loaded.
            report: called for each damaged or missing checkpoint.
        """
        trial, epochs = self.claim.trial, self.spec.training.epochs
        self._remove_strays([self.last, self.earlier])
        while self.last is not None:
            try:
                return _read_intact(self.last, trial, self.store, lambda path: self._load(path, init))
            except (DamagedCheckpoint, artifacts.MissingArtifact) as error:
                done, follows = 0, "training restarts from the beginning"
                if self.earlier is not None:
                    done, follows = self.claim.earlier_epoch, "training continues from the previous checkpoint"
                self.store.fall_back(trial, self.worker, self.last, f"{error}; {follows}")
                report("restarted", done / epochs, f"{error}; {follows}")
                with contextlib.suppress(artifacts.MissingArtifact):
                    _make_way(artifacts.local_copy(self.last, trial, self.store.checkpoints))
                self.last, self.earlier = self.earlier, None
        return init()

    def _load(self, path: Path, init: Callable[[], TrainState]) -> TrainState:
        """Return the state in a file, after checking that its trial and position match its name."""
        state = init()
        load_checkpoint(state, path, self.spec)
        if (inside := checkpoint_name(self.claim.trial, state)) != path.name:
            raise DamagedCheckpoint(f"checkpoint {path}: does not match its name: it holds {inside}")
        return state


def checkpoint_name(trial: str, state: TrainState) -> str:
    """Return the file name of a state, which is unique to its step, or to its layer and epoch of pre-training."""
    if state.pretraining is not None:
        layer, epoch = len(state.pretraining.machines), state.pretraining.layer.epochs
        return f"{trial}-pretraining-{layer}-{epoch}{SUFFIX}"
    within = "" if state.part is None else f"-{state.step}"
    return f"{trial}-{state.epoch}{within}{SUFFIX}"


def save_checkpoint(state: TrainState, spec: TrialSpec, path: Path) -> None:
    """Write a training state as safetensors, atomically.

    Raises:
        StoreError: the file cannot be written: no space, no permission.
    """
    tensors = state.tensors()
    position = {"spec": spec.model_dump_json(), "step": str(state.step), "epoch": str(state.epoch)}
    content = save(tensors, {**position, CHECKSUM: _checksum(tensors, position)})
    partial = path.with_suffix(f".{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise StoreError(
            f"checkpoint {path}: cannot be written: {error.strerror or error}; everything stored so far is kept; fix"
            f" this and run the same command to continue"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Flush a folder to disk, so that the new name of a file survives a crash, where the system supports it."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@dataclass(frozen=True)
class Content:
    """What a checkpoint file holds, after its checksum has been verified."""

    tensors: Mapping[str, Tensor]
    trial: TrialSpec
    step: int
    epoch: int


def read_checkpoint(path: Path) -> Content:
    """Return the content of a checkpoint file.

    Raises:
        DamagedCheckpoint: the file is missing or damaged, or this machine cannot read it.
    """
    try:
        with safe_open(path, framework="pt") as file:
            position = dict(file.metadata())
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        if position.pop(CHECKSUM, None) != _checksum(tensors, position):
            raise ValueError("its checksum does not match")
        trial = TrialSpec.model_validate_json(position["spec"])
        return Content(tensors, trial, int(position["step"]), int(position["epoch"]))
    except Exception as error:
        if ran_out_of_memory(error):  # which says nothing about the file
            raise
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise DamagedCheckpoint(f"checkpoint {path}: cannot be read: {reason}") from None


def load_checkpoint(state: TrainState, path: Path, trial: TrialSpec | None = None) -> None:
    """Load a checkpoint into a fresh state; if this raises, the state must not be used again.

    Args:
        state: changed in place.
        path: the checkpoint file.
        trial: the trial that it must belong to; None: any trial with the same network.

    Raises:
        DamagedCheckpoint: the file is missing, damaged or unreadable, or belongs to another trial.
        RuntimeError: the device failed; the file may be intact.
    """
    content = read_checkpoint(path)
    if trial is not None and content.trial != trial:
        raise DamagedCheckpoint(f"checkpoint {path}: belongs to another trial")
    try:
        state.load(content.tensors, content.step, content.epoch)
    except (RuntimeError, MemoryError):  # from here on a device takes part, and what it raises is of this kind
        raise
    except Exception as error:
        raise DamagedCheckpoint(f"checkpoint {path}: cannot be read: {' '.join(str(error).split())}") from None


def read_network(store: Store, trial: TrialRecord, averaged: bool = False) -> dict[str, Tensor]:
    """Return the parameters and buffers of a finished trial's network by name, from its last checkpoint.

    Args:
        store: the store that contains the trial.
        trial: its record.
        averaged: return the average of the weights instead of those that were trained.

    Raises:
        StoreError: the trial has not finished or has no average, or its checkpoint is missing, damaged, of another
            trial or of another epoch than the last.
    """
    if trial.state != "finished" or trial.checkpoint is None:
        raise StoreError(f"trial {trial.trial[:12]} is {trial.state}; only a finished trial has a network to use")
    spec = verify_spec(trial.trial, trial.spec)
    epochs = spec.training.epochs if spec.training.early_stopping is None else trial.checkpoint_epoch
    content = read_verified(store, trial.trial, spec, trial.checkpoint, epochs)
    if averaged and not content.tensors.get("average.count"):
        asked = "training.averaging keeps one beside them"
        if spec.training.averaging is not None:
            asked = "training.averaging gave none of them a share"
        raise StoreError(f"trial {trial.trial[:12]} has no average of its weights: {asked}")
    prefix = "average.of." if averaged else "model."
    return {name.removeprefix(prefix): one for name, one in content.tensors.items() if name.startswith(prefix)}


def read_verified(store: Store, trial: str, spec: TrialSpec, name: str, epoch: int) -> Content:
    """Return the content of a checkpoint that the ledger names, after checking that it is of that trial and epoch.

    Args:
        store: the ledger.
        trial: the trial's hash.
        spec: its specification.
        name: of the checkpoint, as the ledger has it.
        epoch: complete epochs that it should hold.

    Raises:
        StoreError: it is missing, damaged, or of another trial or epoch.
    """

    def read(path: Path) -> Content:
        content = read_checkpoint(path)
        if (content.trial, content.epoch) != (spec, epoch):
            raise DamagedCheckpoint(
                f"checkpoint {path}: holds epoch {content.epoch} of trial {content.trial.content_hash[:12]}, not epoch"
                f" {epoch} of {trial[:12]}"
            )
        return content

    return _read_intact(name, trial, store, read)


def _read_intact(name: str, trial: str, store: Store, read: Callable[[Path], T]) -> T:
    """Return what `read` makes of a trial's checkpoint, from the local copy if it is intact, else from its URL."""
    here = artifacts.local_copy(name, trial, store.checkpoints)
    if artifacts.is_url(name) and here.is_file():
        with contextlib.suppress(DamagedCheckpoint):
            return read(here)
        here.unlink(missing_ok=True)
    return read(artifacts.get(name, trial, store.checkpoints, store.patience))


def remove_strays(folder: Path, trial: str, kept: Collection[str | None]) -> None:
    """Remove files that a killed worker left behind: partly written and uncommitted checkpoints of a trial."""
    for path in folder.glob(f"{trial}-*"):
        if path.name not in kept:
            with contextlib.suppress(OSError):  # it only takes space
                path.unlink(missing_ok=True)


def _make_way(path: Path) -> None:
    """Remove what cannot be read, so that a new checkpoint of the same name can be written; a folder is renamed."""
    with contextlib.suppress(OSError):  # writing then says what is wrong
        if path.is_dir():
            path.rename(path.with_name(f"{path.name}.aside"))
        else:
            path.unlink(missing_ok=True)


def _checksum(tensors: Mapping[str, Tensor], position: Mapping[str, str]) -> str:
    """Return the SHA-256 of names, types, shapes and bytes, and of the position."""
    return hash_tensors(tensors, repr(sorted(position.items())).encode())
