"""Checkpoints: all that training changes, as one file that is whole or not there, with a checksum."""

import contextlib
import hashlib
import math
import os
import re
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from leadline.errors import SpecError, StoreError
from leadline.spec import TrialSpec
from leadline.training import TrainState
from leadline.training.memory import ran_out_of_memory

SUFFIX = ".safetensors"
CHECKSUM = "sha256"


class DamagedCheckpoint(StoreError):
    """A checkpoint that is gone, or is not what was written."""


@dataclass(frozen=True)
class Interval:
    """How much of an epoch may pass between two checkpoints; the end of an epoch has one in any case."""

    seconds: float | None = None
    steps: int | None = None

    def __str__(self) -> str:
        """What `parse` reads."""
        if self.seconds is not None:
            return f"{Decimal(repr(self.seconds)):f}".removesuffix(".0") + "s"
        return "epoch" if self.steps is None else f"{self.steps}steps"

    @classmethod
    def parse(cls, text: str) -> "Interval":
        """Read `10m`, `500s`, `2h`, `200steps`, or `epoch`: at the ends of epochs only.

        Raises:
            SpecError: it is something else.
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


@dataclass
class Timer:
    """Tells when the next checkpoint is due."""

    interval: Interval
    step: int  # at the last checkpoint
    moment: float  # of the last checkpoint, time.monotonic

    @classmethod
    def start(cls, interval: Interval, step: int) -> "Timer":
        """Begin to count at a step."""
        return cls(interval, step, time.monotonic())

    def due(self, step: int) -> bool:
        """Whether the interval has passed."""
        seconds, steps = self.interval.seconds, self.interval.steps
        late = seconds is not None and time.monotonic() - self.moment >= seconds
        return late or (steps is not None and step - self.step >= steps)

    def restart(self, step: int) -> None:
        """Count from here, where a checkpoint has been written."""
        self.step, self.moment = step, time.monotonic()


def checkpoint_name(trial: str, state: TrainState) -> str:
    """Return the name of a state's file, which is another for every step, and every epoch of a layer before them."""
    if state.pretraining is not None:
        layer, epoch = len(state.pretraining.machines), state.pretraining.layer.epochs
        return f"{trial}-pretraining-{layer}-{epoch}{SUFFIX}"
    within = "" if state.part is None else f"-{state.step}"
    return f"{trial}-{state.epoch}{within}{SUFFIX}"


def save_checkpoint(state: TrainState, spec: TrialSpec, path: Path) -> None:
    """Write all that a state holds as safetensors, whole or not at all.

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
            f"checkpoint {path}: cannot be written: {error.strerror or error}; what was stored before is kept: mend"
            " this, and the same command goes on"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Bring a file's new name to the disk, where the system lets one do so."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def load_checkpoint(state: TrainState, path: Path, trial: TrialSpec | None = None) -> None:
    """Bring a fresh state to where a checkpoint was written; one that raises is not fresh any more.

    Args:
        state: which is changed.
        path: of the file.
        trial: whose it must be; None: any trial's with such a network.

    Raises:
        DamagedCheckpoint: the file is missing or damaged, or another trial's.
        StoreError: it cannot be read now, and perhaps later.
        RuntimeError: the device failed, which says nothing about the file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            position = dict(file.metadata())
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        checksum = position.pop(CHECKSUM, None)  # the first ones had none
        if checksum is not None and checksum != _checksum(tensors, position):
            raise ValueError("its checksum is another")
        if trial is not None and TrialSpec.model_validate_json(position["spec"]) != trial:
            raise ValueError("it is another trial's")
        step, epoch = int(position["step"]), int(position["epoch"])
    except Exception as error:
        if ran_out_of_memory(error):  # which says nothing about the file
            raise
        passing = isinstance(error, OSError) and not isinstance(error, FileNotFoundError)
        kind = StoreError if passing else DamagedCheckpoint
        raise kind(f"checkpoint {path}: cannot be read: {' '.join(str(error).split())}") from None
    try:
        state.load(tensors, step, epoch)
    except (RuntimeError, MemoryError):  # from here on a device takes part, and what it raises is of this kind
        raise
    except Exception as error:
        raise DamagedCheckpoint(f"checkpoint {path}: cannot be read: {' '.join(str(error).split())}") from None


def remove_strays(folder: Path, trial: str, kept: Collection[str | None]) -> None:
    """Remove the files of a trial that a killed worker left behind: partly written ones, and those never committed."""
    for path in folder.glob(f"{trial}-*"):
        if path.name not in kept:
            path.unlink(missing_ok=True)


def _checksum(tensors: Mapping[str, Tensor], position: Mapping[str, str]) -> str:
    """Return the SHA-256 of names, types, shapes and bytes, and of the position."""
    digest = hashlib.sha256(repr(sorted(position.items())).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
