"""Executors, which run a study's trials until none is available."""

import contextlib
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Protocol

from leadline.distributed.processes import describe_death, follow_parent, start_process
from leadline.errors import LeadlineError
from leadline.running.gang import work_together
from leadline.running.job import MOST_ATTEMPTS, Emit, Event, Job, trial_name
from leadline.running.stopping import GRACE_SECONDS, Stopped, at_sigterm, raise_if_terminated
from leadline.running.worker import LEASE_SECONDS, DeviceFailed
from leadline.store import HeldTrial, Store, WorkerId
from leadline.store.schema import SETTLED

STOP_SECONDS = GRACE_SECONDS + 6
"""Maximum seconds for all workers to write checkpoints and exit; then they are killed, which loses only steps."""
LOOK_SECONDS = 2.0
"""Seconds between two checks of trials that other drivers run."""


ENDS = (*SETTLED, "stopped")
"""Kinds of events that end a trial."""


class Executor(Protocol):
    """Interface for running a study's trials until none is available, reporting events."""

    def run(self, job: Job, emit: Emit) -> None:
        """Run until no trial is available."""


@dataclass(frozen=True)
class InProcess:
    """Run trials in this process, for debugging and tests."""

    def run(self, job: Job, emit: Emit) -> None:
        """Run until no trial is available.

        SIGTERM and Ctrl-C take effect after a checkpoint has been written and the trial has been released.
        """
        with contextlib.suppress(Stopped), at_sigterm(or_ctrl_c=True) as stop:
            work_together(job, emit, stop)
        if stop.asked:
            signal.raise_signal(stop.number)  # now handled by the previous handler


@dataclass(frozen=True)
class LocalProcesses:
    """Run trials in worker processes on this machine; a process that dies affects only its own trial."""

    workers: int

    def run(self, job: Job, emit: Emit) -> None:
        """Run until no trial is available.

        Raises:
            LeadlineError: a worker could not use the store, or died before its first trial.
        """
        current: dict[Connection, _Worker] = {}
        silent_deaths = 0  # consecutive deaths of workers that had reported nothing yet
        reported = False
        try:
            for place in range(self.workers):
                _start_worker(replace(job, place=place), current)
            while current:
                raise_if_terminated()
                for events in wait(list(current), LOOK_SECONDS):
                    assert isinstance(events, Connection)
                    worker = current[events]
                    try:
                        message = events.recv()
                    except (EOFError, OSError):
                        del current[events]
                        if (text := worker.describe_death()) is not None:
                            silent_deaths = 0 if worker.reported else silent_deaths + 1
                            if silent_deaths and (not reported or silent_deaths == MOST_ATTEMPTS):
                                raise LeadlineError(f"{job.study}: {text}") from None
                            for event in worker.running.values():
                                emit(replace(event, kind="died", text=f"{text}; the trial will be resumed"))
                            _start_worker(worker.job, current)
                        continue
                    if isinstance(message, LeadlineError):
                        raise message
                    reported = True
                    worker.note(message)
                    emit(message)
        finally:
            for worker in current.values():
                worker.process.terminate()
            until = time.monotonic() + STOP_SECONDS
            for events, worker in current.items():
                worker.end(events, until)


@dataclass
class _Worker:
    job: Job
    process: BaseProcess
    reported: bool = False
    running: dict[str, Event] = field(default_factory=dict)  # trial -> its last event

    def note(self, event: Event) -> None:
        """Keep track of which trials the worker is running."""
        self.reported = True
        if event.kind in (*ENDS, "died"):
            self.running.pop(event.trial, None)
        else:
            self.running[event.trial] = event

    def describe_death(self) -> str | None:
        """Return how the worker died, or None if it exited normally."""
        self.process.join()
        if not self.process.exitcode:
            return None
        return f"its worker process {describe_death(self.process.exitcode, 'if memory ran out, use fewer workers')}"

    def end(self, events: Connection, until: float) -> None:
        """Wait for the worker to exit, and kill it at the time `until`."""
        # a full pipe would block the worker
        with contextlib.suppress(EOFError, OSError):
            while (left := until - time.monotonic()) > 0 and events.poll(left):
                events.recv()
        self.process.join(max(0.0, until - time.monotonic()))
        self.process.kill()


def _start_worker(job: Job, current: dict[Connection, _Worker]) -> None:
    """Start a worker and add it to the current ones, which the driver ends when it exits."""
    with start_process(_worker_main, job) as (process, events):
        current[events] = _Worker(job, process)


def _worker_main(events: Connection, job: Job) -> None:
    def emit(event: Event) -> None:
        with contextlib.suppress(BrokenPipeError):
            events.send(event)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides what Ctrl-C means
    with contextlib.suppress(Stopped), at_sigterm() as stop:
        follow_parent(signal.SIGTERM)
        try:
            work_together(job, emit, stop)
        except DeviceFailed as error:
            sys.exit(str(error))  # like a process that died: the driver starts another one
        except LeadlineError as error:
            events.send(error)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the process is about to exit anyway


def run_until_ended(
    executor: Executor, job: Job, store: Store, emit: Emit, say: Callable[[str], None] = lambda line: None
) -> None:
    """Run a study's trials, including those that other drivers lose, until none is waiting or running anywhere.

    `say` gets a line for each trial that another process runs in the end.

    Raises:
        LeadlineError: as the executor does.
    """
    own = str(WorkerId.current())
    while True:
        executor.run(job, emit)
        said: set[str] = set()
        while not store.is_claimable(job.study, own):
            raise_if_terminated()
            held = store.held(job.study)
            if not held:
                return
            for one in held:
                if (line := describe_wait(one)) not in said:
                    said.add(line)
                    say(line)
            time.sleep(LOOK_SECONDS)


def describe_wait(held: HeldTrial) -> str:
    """Return who runs a trial that another process waits for, and what to do if that process is stopped."""
    line = f"waiting for {trial_name(held.arm, held.seed)}, which"
    worker = WorkerId.parse(held.owner)
    if worker is None or not worker.is_here():
        return f"{line} {held.owner} runs; if it is lost, its lease ends within {round(LEASE_SECONDS)} s"
    if worker.is_stopped():
        return (
            f"{line} process {worker.pid} of this machine holds, but it is stopped; continue it with `kill -CONT"
            f" {worker.pid}`, or end it with `kill -KILL {worker.pid}`"
        )
    return f"{line} process {worker.pid} of this machine runs"
