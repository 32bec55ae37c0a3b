"""How many trials run at once: what one takes of the memory of a card or of the machine, and what is free."""

import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from leadline.data.files import default_data_dir
from leadline.data.metadata import describe
from leadline.data.split import SplitSizes, split_sizes, validate_split_sizes
from leadline.distributed.launch import assign_devices
from leadline.distributed.processes import start_process
from leadline.errors import LeadlineError
from leadline.networks.modules.shapes import remember_shapes
from leadline.specs import DataSpec, TrainingSpec
from leadline.study.expand import ExpandedStudy
from leadline.study.planning.timing import Work, strip_for_timing
from leadline.study.planning.tracing import Traced, trace
from leadline.text import byte_size, join, plural

PROCESS = 460 * 2**20
"""Bytes of an idle worker process (Python, PyTorch and the store's libraries), measured on Linux."""

CONTEXT = 2**30
"""Bytes of a GPU that a process takes beside its tensors: CUDA's context, kernels, workspaces of cuBLAS and cuDNN. Not
measured, but rather too many."""

KEPT = 2
"""Memory of training relative to the activations kept for the backward pass, because of gradients of activations,
workspaces and gaps of the allocator. Measured at batch 128 on a CPU: 1.9 with ResNet-20, 1.5 with ResNet-56."""

UNKNOWN_STATE = 2
"""Values that a custom optimizer is taken to keep for each parameter where it was not timed, as Adam does."""


def sizes(spec: DataSpec, data_dir: Path | None = None) -> SplitSizes:
    """Return the number of images in each split without reading or downloading published data sets.

    Raises:
        DataError: more images are requested than available, or a file is missing or damaged.
    """
    parts = spec.sizes(data_dir or default_data_dir())
    validate_split_sizes(spec.display_name, parts, spec)
    return split_sizes(parts, spec)


def state_bytes(training: TrainingSpec, traced: Traced) -> int:
    """Return the bytes of weights, buffers, their average, the best of them, and the optimizer's state."""
    slots = training.optimizer.state_values
    networks = 1 + (training.averaging is not None) + (training.early_stopping is not None)
    kept = UNKNOWN_STATE if slots is None else slots
    return traced.state * networks + 4 * kept * traced.parameters


def process_memory(work: Work, traced: Traced, state: int, images: SplitSizes, device: torch.device) -> int:
    """Return the peak bytes of a process that trains: its data, training state, gradients and activations.

    On CUDA, of the card; elsewhere, of the machine, with the process itself.
    """
    asked, together = work.trial.training.batch_size, work.trial.training.accumulate
    kept = max(KEPT * traced.kept * min(asked, images.train) // (asked * together), traced.peak)
    pixels = math.prod(work.shape) if work.trial.data.in_memory else 0
    data = (pixels + 8) * (images.train + images.validation + images.test)
    process = CONTEXT if device.type == "cuda" else PROCESS
    return process + data + state + 4 * traced.parameters + kept


def free_memory(device: torch.device) -> list[int]:
    """Return the free bytes of each card that trials may take, or of the machine within the limit of its container."""
    if device.type == "cuda":
        cards = range(torch.cuda.device_count()) if device.index is None else [device.index]
        return [int(torch.cuda.mem_get_info(card)[0]) for card in cards]
    pages = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
    free = os.sysconf(pages) * os.sysconf("SC_PAGE_SIZE")
    table = Path("/proc/meminfo")
    if table.is_file():
        lines = dict(line.split(":", 1) for line in table.read_text().splitlines() if ":" in line)
        free = int(lines["MemAvailable"].split()[0]) * 1024
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if limit.is_file() and used.is_file() and limit.read_text().strip().isdecimal():
        free = min(free, int(limit.read_text()) - int(used.read_text()))
    return [max(0, free)]


def ask_free_memory(device: torch.device) -> list[int]:
    """Return `free_memory`, asked in a process of its own: one that asks keeps a part of every card to its end.

    Raises:
        LeadlineError: the process died.
    """
    with start_process(_send_free_memory, device) as (process, answers):
        pass
    try:
        free: list[int] = answers.recv()
    except EOFError:
        raise LeadlineError(
            f"device {device}: its free memory cannot be read; name the number of trials at once with --workers"
        ) from None
    finally:
        answers.close()
        process.join()
    return free


def _send_free_memory(answers: Connection, device: torch.device) -> None:
    answers.send(free_memory(device))


@dataclass(frozen=True)
class Capacity:
    """How many trials may run at once.

    Attributes:
        memory: bytes of a process at most, of its card or of the machine.
        free: bytes free, of each card or of the machine.
        processes: of each trial, each on a card of its own.
        cores: of the machine.
    """

    memory: int
    free: Sequence[int]
    processes: int
    cores: int

    @property
    def each(self) -> int:
        """Processes for which there is memory on every card, or on the machine."""
        return min(self.free) // self.memory

    @property
    def fits(self) -> int:
        """Trials for which there is memory at once."""
        return len(self.free) * self.each // self.processes

    @property
    def workers(self) -> int:
        """Trials for which there are memory and cores, at least one."""
        return max(1, min(self.fits, self.cores // self.processes))


def card_capacity(
    study: ExpandedStudy, data_dir: Path | None, device: torch.device, devices: int, cores: int, free: Sequence[int]
) -> Capacity:
    """Return how many trials of a study may run at once on cards.

    Args:
        study: expanded and matched.
        data_dir: folder with the data sets.
        device: `cuda`, or one card.
        devices: that train each trial together.
        cores: of the machine.
        free: from `free_memory` of the device.
    """
    memory = 0
    with remember_shapes():
        for arm in study.arms:
            work = Work(strip_for_timing(arm.trial), *describe(arm.trial.data, data_dir))
            traced, images = trace(work), sizes(arm.trial.data, data_dir)
            state = state_bytes(arm.trial.training, traced)
            memory = max(memory, process_memory(work, traced, state, images, device))
    return Capacity(memory, free, devices, cores)


def default_workers(device: torch.device, devices: int, cores: int) -> int:
    """Return how many trials run at once where nobody says, on other devices than cards: one per core, or one."""
    return max(1, cores // devices) if device.type == "cpu" else 1


def describe_capacity(room: Capacity) -> str:
    """Return how many trials run at once on cards, and why."""
    cards = f"each of {len(room.free)} GPUs" if len(room.free) > 1 else "the GPU"
    process = "process" if room.processes > 1 else "trial"
    return (
        f"{plural(room.workers, 'trial')} at once: {cards} has {byte_size(min(room.free))} free, for"
        f" {plural(room.each, process)} of {byte_size(room.memory)}, and the machine has {plural(room.cores, 'core')}."
    )


def describe_sharing(device: torch.device, workers: int, devices: int, trials_per_worker: int = 1) -> str:
    """Return which cards several processes share, as a line; empty: each has its own, or they are on the CPU.

    Example:
        >>> describe_sharing(torch.device("cuda:1"), 3, 1)
        'Trials that run at once share cards: 3 on cuda:1.'
    """
    if device.type == "cpu":
        return ""
    cards = Counter(
        str(card)
        for place in range(workers)
        for card in assign_devices(device, devices, place)
        for _ in range(trials_per_worker)
    )
    if max(cards.values()) == 1:
        return ""
    return f"Trials that run at once share cards: {join([f'{count} on {card}' for card, count in cards.items()])}."
