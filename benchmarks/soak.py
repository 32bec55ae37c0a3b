"""What random kills cost a study: nothing. Workers are killed again and again; the ledger must be as if none had been.

    python -m benchmarks.soak [--minutes 8 | --kills 15] [--workers 3] [--seeds 8] [--store postgresql://user@host/empty]

A study of tiny networks on the 8x8 digits is run twice: by one worker that is left alone, and by several that are
killed at random moments, three in four by SIGKILL and the rest by SIGTERM, with a checkpoint after every step, so that
kills hit steps, checkpoints half-written, and commits alike; now and then the newest checkpoint of a killed worker's
trial is damaged as well. A trial that is killed five times before its next checkpoint is given up, as for users, and
asked for again. Seeds are added until the time or the kills are over. Then both ledgers are compared: states,
records, predictions and what the flow probe saw, to the bit. The ledger alone cannot tell whether two workers ran one
trial at once, for both would have entered the same bits: so every worker notes from when to when it ran which, and
the killer notes when it killed whom. Prints the counts; ends with 1 on any difference, any crash, and any trial that
two ran at once.
"""

import argparse
import json
import math
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from leadline.probes.table import FlowTable
from leadline.running.checkpoints import Interval
from leadline.running.executors import ENDS
from leadline.running.job import Emit, Event, Job
from leadline.running.stopping import Stopped, at_sigterm
from leadline.running.worker import work
from leadline.specs.study import StudySpec
from leadline.store import Store, WorkerId
from leadline.study.expand import ExpandedStudy, expand

NAME = "soak"
STEPS_BETWEEN = 1
TERMINATED, DAMAGED = 0.25, 0.1
"""Fractions of kills that are SIGTERM, and after which a checkpoint is damaged."""


def study(seeds: int) -> ExpandedStudy:
    """Two tiny networks, three epochs of eight steps, flow measured at every step."""
    return expand(
        StudySpec.model_validate(
            {
                "name": NAME,
                "data": {"name": "digits", "train": 128, "validation": 50, "test": 50, "augment": {"flip": False}},
                "training": {"epochs": 3, "batch_size": 16, "optimizer": {"name": "adam"}},
                "arms": {"plain": {"network": "comparative-plain"}, "residual": {"network": "comparative-resnet"}},
                "vary": {"blocks": [1]},
                "seeds": seeds,
                "probes": ["flow"],
            }
        )
    )


@dataclass
class Run:
    """One worker's time with one trial, in seconds of the machine's monotonic clock, which its processes share."""

    start: float
    end: float


def noting(folder: Path) -> Emit:
    """Return what notes in a folder from when to when the process that calls it runs which trial.

    Each process writes to a file of its own, and each line in one call: one that is killed leaves whole lines, but for
    its last.
    """
    last = 0.0

    def note(event: Event) -> None:
        nonlocal last
        moment = time.monotonic()
        before, last = last, moment
        if event.kind == "started":
            write(event, "start", moment)
        elif event.kind in ENDS:
            # It is told after the trial was given away, and another may have begun with it: what is sure is the moment
            # before. A worker that gives its reason did not give it away, but lost it, and ran it until now.
            lost = event.kind == "stopped" and event.text
            write(event, "end", moment if lost else before)

    def write(event: Event, what: str, moment: float) -> None:
        with (folder / str(os.getpid())).open("ab", buffering=0) as file:
            file.write(json.dumps([event.trial, event.owner, what, moment]).encode() + b"\n")

    return note


def noted(folder: Path, deaths: Mapping[str, float]) -> dict[str, list[Run]]:
    """Return the runs of every trial that `noting` left in a folder.

    Args:
        folder: of the notes.
        deaths: moments just before owners were killed; who was not and noted no end is taken to run for ever.
    """
    runs = defaultdict[str, list[Run]](list)
    for path in folder.iterdir():
        *lines, _ = path.read_bytes().split(b"\n")  # after the last line end: nothing, or what a kill cut short
        open_ = dict[str, Run]()
        for trial, owner, what, moment in map(json.loads, lines):
            if what == "start":
                open_[trial] = Run(moment, deaths.get(owner, math.inf))
                runs[trial].append(open_[trial])
            elif trial in open_:  # else a signal came before its start was written
                open_.pop(trial).end = moment
    return dict(runs)


def at_once(runs: Iterable[Run]) -> int:
    """Return how many of a trial's runs began before an earlier one had ended."""
    number, end = 0, -math.inf
    for run in sorted(runs, key=lambda run: run.start):
        number += run.start < end
        end = max(end, run.end)
    return number


@dataclass
class Soak:
    """Workers of one study, and what has been done to them."""

    job: Job
    workers: int
    chance: random.Random
    notes: Path
    deaths: dict[str, float] = field(default_factory=dict)
    context: Any = field(default_factory=lambda: multiprocessing.get_context("fork"))
    alive: list[Any] = field(default_factory=list)
    done: Counter[str] = field(default_factory=Counter)

    def fill(self) -> None:
        """Have as many workers as there should be; forked, for importing torch takes longer than a trial."""
        for process in [process for process in self.alive if not process.is_alive()]:
            self.bury(process)
        while len(self.alive) < self.workers:
            process = self.context.Process(target=_worker, args=(self.job, self.notes))
            process.start()
            self.alive.append(process)

    def kill(self, store: Store) -> None:
        """Kill one worker."""
        process = self.chance.choice(self.alive)
        gently = self.chance.random() < TERMINATED
        owner = str(WorkerId.of(process.pid))
        self.deaths[owner] = time.monotonic()  # before: as soon as it is dead, another may begin
        process.terminate() if gently else process.kill()
        self.bury(process)
        self.done["SIGTERM" if gently else "SIGKILL"] += 1
        half = list(store.checkpoints.glob(f"*.{process.pid}.partial"))
        self.done["within the write of a checkpoint"] += len(half)
        if self.chance.random() < DAMAGED:
            self.damage(store, owner)

    def bury(self, process: Any) -> None:
        """Wait for a worker's end, and count it where it was none of ours."""
        process.join()
        self.alive.remove(process)
        if process.exitcode not in (0, -signal.SIGKILL, -signal.SIGTERM):  # the last: before it listened
            self.done["crashed"] += 1

    def damage(self, store: Store, owner: str) -> None:
        """Damage the last checkpoint of the trial that a dead worker held: cut it short, or change a byte."""
        for hash_ in store.trials_frame(NAME).query("state == 'running'")["trial"]:
            record = store.trial(hash_)
            if record.owner != owner or record.checkpoint is None:
                continue
            path = store.checkpoints / record.checkpoint
            content = bytearray(path.read_bytes())
            place = self.chance.randrange(len(content) // 2, len(content))
            if self.chance.random() < 0.5:
                content = content[:place]
            else:
                content[place] ^= 1
            path.write_bytes(content)
            self.done["checkpoints damaged"] += 1

    def end(self) -> None:
        for process in self.alive:
            process.kill()
            process.join()


def _worker(job: Job, notes: Path) -> None:
    try:
        with at_sigterm() as stop:
            work(job, noting(notes), stop=stop)
    except Stopped:
        pass


def ledger(store: Store) -> dict[str, dict[Any, Any]]:
    """Everything that must be equal, by what it is of; not times."""
    frame = store.records_frame(NAME)
    frame = frame[frame["split"] != "time"]
    key = ["trial", "epoch", "step", "split", "name"]
    flow = {
        (trial, epoch): (table.names, table.kinds, table.steps.tobytes(), table.values.tobytes())
        for trial, epochs in store.measurements(NAME, "flow").items()
        for epoch, content in epochs
        for table in [FlowTable.from_bytes(content)]
    }
    predictions = {trial: (one.predicted.tobytes(), one.labels.tobytes()) for trial, one in store.outputs(NAME).items()}
    return {
        "trials": dict(store.trials_frame(NAME)[["trial", "state"]].itertuples(index=False, name=None)),
        "records": {
            tuple(row): np.float64(value).tobytes()
            for *row, value in frame[[*key, "value"]].itertuples(index=False, name=None)
        },
        "measurements": flow,
        "predictions": predictions,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, help="kill for so long")
    parser.add_argument("--kills", type=int, help="kill so often; default, without --minutes: 15")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=4, help="at first, and added whenever all have ended")
    parser.add_argument("--pause", type=float, default=0.5, help="mean seconds between two kills")
    parser.add_argument("--store", help="an empty database; default: SQLite in a temporary folder")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and victims")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    most = asked.kills if asked.kills is not None else 15 if asked.minutes is None else sys.maxsize
    until = time.monotonic() + 60 * asked.minutes if asked.minutes is not None else float("inf")
    seeds = asked.seeds
    with tempfile.TemporaryDirectory() as folder:
        runs, calm, notes = (Path(folder) / name for name in ("killed", "calm", "notes"))
        notes.mkdir()
        job = Job(NAME, runs, asked.store, threads=1, checkpoint_every=Interval(steps=STEPS_BETWEEN))
        soak = Soak(job, asked.workers, random.Random(asked.seed), notes)
        with Store.open(runs, asked.store, patience=60.0) as store:
            store.register(study(seeds))
            store.close()  # before workers are forked
            try:
                while soak.done.total() - _notes(soak) < most and time.monotonic() < until:
                    soak.fill()
                    time.sleep(soak.chance.expovariate(1 / asked.pause))
                    soak.kill(store)
                    soak.done["given up, and asked for again"] += store.requeue_failed(NAME)
                    counts = store.counts(NAME)
                    if counts["waiting"] + counts["running"] <= asked.workers:
                        seeds += asked.seeds
                        store.register(study(seeds))
                    store.close()
                while (counts := store.counts(NAME))["waiting"] + counts["running"] + counts["failed"]:
                    store.requeue_failed(NAME)
                    store.close()
                    soak.fill()
                    time.sleep(0.2)
                for process in list(soak.alive):
                    soak.bury(process)
            finally:
                soak.end()
            names = store.trials_frame(NAME)["trial"]
            soak.done["fell back"] = sum(len((store.trial(name).note or "").splitlines()) for name in names)
            found = ledger(store)
        with Store.open(calm) as store:
            store.register(study(seeds))
            work(Job(NAME, calm), lambda event: None)
            expected = ledger(store)
        return _tell(soak, found, expected, noted(notes, soak.deaths))


def _notes(soak: Soak) -> int:
    """What is counted of kills, and is none itself."""
    return soak.done.total() - soak.done["SIGKILL"] - soak.done["SIGTERM"]


def _tell(soak: Soak, found: Any, expected: Any, runs: Mapping[str, list[Run]]) -> int:
    different = {
        what: sum(found[what].get(key) != value for key, value in expected[what].items() if key in found[what])
        for what in expected
    }
    result: dict[str, Any] = {
        "kills": soak.done["SIGKILL"] + soak.done["SIGTERM"],
        **soak.done,
        "trials": len(found["trials"]),
        "records": len(found["records"]),
        "measurements": len(found["measurements"]),
        "starts": sum(map(len, runs.values())),
        "at once": sum(map(at_once, runs.values())),
        "lost": sum(len(expected[what].keys() - found[what].keys()) for what in expected),
        "too many": sum(len(found[what].keys() - expected[what].keys()) for what in expected),
        "different": different,
    }
    print(json.dumps(result, indent=2))
    wrong = sum(result[what] for what in ("at once", "lost", "too many")) or sum(different.values())
    complete = set(found["trials"].values()) == {"finished"} and runs.keys() == found["trials"].keys()
    return 1 if wrong or soak.done["crashed"] or not complete else 0


if __name__ == "__main__":
    sys.exit(main())
