"""A standalone worker: runs trials from a store until none is left, and releases its trial when asked to stop."""

import contextlib
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import torch

from leadline.errors import SpecError
from leadline.running.clusters.places import hold_place
from leadline.running.executors import describe_wait
from leadline.running.gang import check_gang, work_together
from leadline.running.job import PATIENCE_SECONDS, Emit, Event, Job
from leadline.running.stopping import Stopped, at_sigterm
from leadline.store import Store
from leadline.store.schema import SETTLED
from leadline.training import choose_device, device_line

LOOK_SECONDS = 5.0
"""Seconds between two checks of trials that other workers run."""


@dataclass
class Tally:
    """Number of trials that a worker brought to each final state."""

    ends: Counter[str] = field(default_factory=Counter)
    stopped: int | None = None  # the signal that asked the worker to stop
    trials_at_once: int = 1

    def to_json(self) -> dict[str, object]:
        """Return the counts as plain data."""
        return {**{end: self.ends[end] for end in SETTLED}, "stopped": self.stopped is not None}

    def line(self) -> str:
        """Return the counts as one line."""
        counts = ", ".join(f"{self.ends[end]} {end}" for end in SETTLED if self.ends[end])
        line = f"worker: {self.ends.total()} trials completed{f': {counts}' if counts else ''}"
        released = "its trial was released" if self.trials_at_once == 1 else "its trials were released"
        return line + (f"; stopped, and {released}" if self.stopped is not None else "")


def say(event: Event) -> None:
    """Print a line, for the log of a batch system, when a trial starts or ends."""
    if event.kind != "progress":
        _log(event.line())


def _log(line: str) -> None:
    with contextlib.suppress(OSError):  # a log on a full disk must not stop a trial
        print(line, file=sys.stderr, flush=True)


def _suitable(store: Store, job: Job, device: torch.device, said: set[str]) -> Iterator[str]:
    """Yield the studies that a worker can train; say once why it leaves another one to other workers."""
    for name in [one.name for one in store.studies()]:
        try:
            if job.trials_at_once > 1:
                check_gang(store.study(name).expand(), job.trials_at_once, job.devices, device)
            yield name
        except SpecError as error:
            if (line := f"left to other workers: {error}") not in said:
                said.add(line)
                _log(line)


def take_trials(job: Job, study: str | None, until_empty: bool, emit: Emit = say) -> Tally:
    """Run trials until none is available; at SIGTERM or Ctrl-C, release the current trial and return.

    Args:
        job: the locations of the store and the data.
        study: the study's name; None: all studies in the store.
        until_empty: stay until every trial has ended, to take over those that other workers lose.
        emit: called with each event.

    Raises:
        StoreError: the store cannot be opened or used, or has no such study.
        SpecError: a worker cannot train several trials of that study at once.
    """
    tally = Tally(trials_at_once=job.trials_at_once)
    said: set[str] = set()

    def count_and_emit(event: Event) -> None:
        tally.ends.update([event.kind] if event.kind in SETTLED else [])
        emit(event)

    device = choose_device(job.device)
    if job.device == "auto":
        _log(device_line(device))
    with (
        contextlib.suppress(Stopped),
        Store.open_existing(job.runs, job.store_url) as store,
        at_sigterm(or_ctrl_c=True) as stop,
        hold_place() as place,
    ):
        if study is not None and job.trials_at_once > 1:
            check_gang(store.study(study).expand(), job.trials_at_once, job.devices, device)
        if device == torch.device("cuda") and place >= torch.cuda.device_count():
            _log(f"worker {place + 1} of this machine shares its card with others")
        store.patience = PATIENCE_SECONDS  # only from here on, so that a wrong address is reported at once
        while True:
            names = [study] if study is not None else list(_suitable(store, job, device, said))
            here = replace(job, place=place)
            taken = sum(work_together(replace(here, study=name), count_and_emit, stop) for name in names)
            counts = [store.counts(name) for name in names]
            if not any(one["waiting"] or (until_empty and one["running"]) for one in counts):
                break
            if not taken:  # waiting trials are locked while another process registers a study
                for line in {describe_wait(one) for name in names for one in store.held(name)} - said:
                    said.add(line)
                    _log(line)
                time.sleep(LOOK_SECONDS)
    if stop.asked:
        tally.stopped = stop.number
    return tally
