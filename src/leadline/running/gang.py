"""Several trials at once in one process, for networks that leave most of a card idle: a thread for each.

Every trial has its own lease, checkpoints and, on a card, its own stream and graph; the data and CUDA itself are in
memory once. One that diverges, fails or loses its lease ends alone. Results do not depend on it: what a trial computes
with is its own, settings of PyTorch are the same for all, and who draws from global generators holds them meanwhile
(`leadline.seeds.seeded`).
"""

import threading
import time
from contextlib import AbstractContextManager, nullcontext

import torch

from leadline.errors import SpecError
from leadline.running.job import Emit, Event, Job
from leadline.running.stopping import GRACE_SECONDS, Stop, Stopped
from leadline.running.worker import DeviceFailed, work
from leadline.study.expand import ExpandedStudy
from leadline.training import choose_device
from leadline.training.numerics import numerics

LOOK_SECONDS = 0.1
"""Seconds between two looks at whether the process was asked to stop, or a trial's thread has failed."""
CUDA_STREAMS = 32
"""How many streams PyTorch makes on a card; the next one that is asked for is the first again."""


def check_gang(study: ExpandedStudy, number: int, devices: int | None, device: torch.device | None) -> None:
    """Check that a process can train several trials of a study at once.

    Args:
        study: its arms.
        number: trials at once.
        devices: that train each trial; None: as many as the study says.
        device: where they train; None: it is not known here.

    Raises:
        SpecError: it cannot.
    """
    asked = f"study {study.name}: {number} trials per worker"
    if (devices := devices or study.spec.devices) > 1:
        raise SpecError(f"{asked}, each on {devices} devices: a trial on several devices has processes of its own")
    if device is not None and device.type == "cuda" and number > CUDA_STREAMS:
        raise SpecError(f"{asked}: PyTorch has {CUDA_STREAMS} CUDA streams for a card; use more workers")
    if has_tf32(study):
        raise SpecError(f"{asked}: training.precision tf32 is a setting of the whole process; use {number} workers")


def has_tf32(study: ExpandedStudy) -> bool:
    """Return whether an arm trains in TF32, which is a setting of the process and not of a trial."""
    return any(arm.trial.training.precision == "tf32" for arm in study.arms)


def work_together(job: Job, emit: Emit, stop: Stop) -> int:
    """Run trials of a study, `job.trials_at_once` at a time, until none is available; return how many were run.

    Raises:
        StoreError, DeviceFailed, Stopped: as `work`; the other trials have been given back, too.
    """
    if job.trials_at_once == 1:
        return work(job, emit, stop=stop)
    device, gang = choose_device(job.device), _Gang(job, emit)
    with numerics(device), stop.defer():
        threads = [
            threading.Thread(target=gang.run, args=(number, device), daemon=True)
            for number in range(job.trials_at_once)
        ]
        try:
            for thread in threads:
                thread.start()
            while any(thread.is_alive() for thread in threads):
                threads[0 if threads[0].is_alive() else -1].join(LOOK_SECONDS)
                if stop.asked or gang.errors:
                    gang.ask_to_stop()
        except BaseException:
            gang.ask_to_stop()
            until = time.monotonic() + GRACE_SECONDS
            for thread in threads:
                if thread.is_alive():  # and so was started
                    thread.join(max(0.0, until - time.monotonic()))
            raise
    if gang.errors:
        raise next((error for error in gang.errors if not isinstance(error, DeviceFailed)), gang.errors[0])
    return sum(gang.taken)


class _Gang:
    """What the threads of a process have in common."""

    def __init__(self, job: Job, emit: Emit) -> None:
        self.job, self.errors, self.taken = job, list[BaseException](), list[int]()
        self._emit, self._one_at_a_time = emit, threading.Lock()
        self._stops = [Stop() for _ in range(job.trials_at_once)]

    def run(self, number: int, device: torch.device) -> None:
        """Run trials one after the other in the current thread."""
        try:
            with own_stream(device):
                self.taken.append(work(self.job, self._emit_one, stop=self._stops[number], thread=number))
        except Stopped:
            pass
        except BaseException as error:
            self.errors.append(error)

    def ask_to_stop(self) -> None:
        """Let every trial write a checkpoint and be given back."""
        for stop in self._stops:
            stop.asked = True

    def _emit_one(self, event: Event) -> None:
        with self._one_at_a_time:
            self._emit(event)


def own_stream(device: torch.device) -> AbstractContextManager[object]:
    """Let the current thread use a CUDA stream of its own in the body; elsewhere than on a card do nothing."""
    if device.type != "cuda":
        return nullcontext()
    stream: AbstractContextManager[object] = torch.cuda.stream(torch.cuda.Stream(device))  # type: ignore[no-untyped-call]
    return stream
