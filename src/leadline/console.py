"""What the terminal shows: a study while it runs, and a network's layers."""

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from leadline.artifacts import folder_url
from leadline.checkpoints import TEN_MINUTES, Interval
from leadline.data import batches
from leadline.data.facts import describe
from leadline.executors import Executor, InProcess, LocalProcesses, run_until_ended
from leadline.matching import matched
from leadline.nets import NetworkInfo, check
from leadline.rounds import Linked, resumed, with_seeds
from leadline.run import LEASE_SECONDS, PATIENCE_SECONDS, Event, Job
from leadline.spec.study import SEARCH
from leadline.store import Store
from leadline.study import Study, expand_stored
from leadline.training import choose_device
from leadline.tuning import Search
from leadline.verdict import Findings, decided_line, find, round_line
from leadline.verdict.tuned import tuning_words


@dataclass(frozen=True)
class Outcome:
    """How a run of a study ended."""

    study: str
    counts: Mapping[str, int]  # state -> trials, of the states that there are
    failed: tuple[str, ...]  # one line each
    interrupted: bool
    seconds: float
    decided: str = ""  # of a study that decides while seeds are added, in one line

    @property
    def complete(self) -> bool:
        """Whether every trial has ended, diverged ones included, and none failed."""
        return not self.interrupted and set(self.counts) <= {"finished", "diverged"}

    def last_line(self, options: str = "") -> str:
        """Say in one line what there is now and what to do next, which takes these options to find the runs."""
        total = sum(self.counts.values())
        parts = [f"{self.counts[state]} {state}" for state in sorted(self.counts, key=_STATE_ORDER.index)]
        line = f"{self.study}: {total} trials: {', '.join(parts)}; {_clock(self.seconds)}."
        line = " ".join(part for part in (line, self.decided) if part)
        if self.complete:
            return f"{line} Next: leadline report {self.study}{options}"
        if self.counts.get("failed") and not self.interrupted:
            return f"{line} First failure: {self.failed[0]}. The same command tries the failed ones again."
        return f"{line} The same command goes on from here."

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as plain data."""
        return {
            "study": self.study,
            "complete": self.complete,
            "trials": dict(self.counts),
            "failed": list(self.failed),
            "interrupted": self.interrupted,
            "seconds": self.seconds,
            **({"decided": self.decided} if self.decided else {}),
        }


ANOTHERS_SECONDS = 1.0
"""Between two looks at trials that a search or a round waits for and another process runs."""
_STATE_ORDER = ["finished", "diverged", "failed", "running", "waiting"]


def run_and_show(
    study: Study,
    runs: Path,
    store_url: str | None,
    data_dir: Path | None,
    workers: int | None,
    device: str,
    quiet: bool,
    executor: Executor | None = None,
    checkpoint_every: Interval = TEN_MINUTES,
    devices: int | None = None,
    artifacts: str | None = None,
) -> Outcome:
    """Register a study, run its unfinished trials, and show how they go.

    Args:
        study: what to run.
        runs: folder of the checkpoints and of the default store.
        store_url: the store's address; None: inside the runs folder.
        data_dir: folder of the data sets; None: the user's cache.
        workers: processes of this machine; None: one per core, or one for a GPU; 0: inside this one.
        device: cpu, cuda, cuda:N or auto.
        quiet: show nothing.
        executor: runs the trials elsewhere, on a device of this name there; None: this machine does.
        checkpoint_every: between two checkpoints of a trial within an epoch.
        devices: that train each trial together; None: as many as the study says.
        artifacts: a folder or a URL where checkpoints are kept as well; None: nowhere.

    Raises:
        LeadlineError: what makes the whole study impossible: its data, its store, its device, a network that cannot
            take the data's images.
    """
    chosen = device if executor is not None else str(choose_device(device))
    if workers is None:
        workers = max(1, _cores() // (devices or study.spec.devices)) if chosen == "cpu" else 1
    name = study.spec.name
    study = ready(study, data_dir, quiet)

    def run(job: Job) -> Callable[[Study], Outcome]:
        return lambda asked: _run(asked, store, job, executor or workers, quiet)

    url = None if artifacts is None else folder_url(artifacts)
    job = Job(name, runs, store_url, data_dir, chosen, 1, checkpoint_every, devices, url)
    with Store.open(runs, store_url) as store:
        store.patience = PATIENCE_SECONDS  # from here on: an address that is wrong is said at once
        if study.spec.tune is not None and study.spec.tune.chosen is None:
            found = _tuned(study, store, run(replace(job, study=name + SEARCH)), quiet)
            if isinstance(found, Outcome):
                return found
            study = found
        if study.spec.decide is not None:
            return _in_rounds(study, store, run(job), quiet)
        store.register(study)
        store.requeue_failed(name)
        return run(job)(study)


def ready(study: Study, data_dir: Path | None, quiet: bool) -> Study:
    """Return a study with its arms matched, when its data are there and its networks can take them.

    Raises:
        LeadlineError: they are not, or cannot.
    """
    study = matched(study, data_dir)
    for sentence in study.spec.matching:
        if not quiet:
            Console(stderr=True).print(sentence, markup=False, highlight=False, soft_wrap=True)
    for arm in study.arms:
        check(arm.trial.network, *describe(arm.trial.data, data_dir))
    for spec in {arm.trial.data for arm in study.arms}:
        note = batches.load(spec, data_dir).note  # downloads and checks once, before the workers start
        if note and not quiet:
            Console(stderr=True).print(note, markup=False, highlight=False, soft_wrap=True)
    return study


def _run(study: Study, store: Store, job: Job, runner: Executor | int, quiet: bool) -> Outcome:
    """Run what is left of a study that is registered, by an executor or so many processes of this machine."""
    name = study.spec.name
    started = time.monotonic()
    interrupted = False
    counts = store.counts(name)
    ended = sum(counts.get(state, 0) for state in ("finished", "diverged"))
    left = sum(counts.values()) - ended
    executor = runner if not isinstance(runner, int) else LocalProcesses(min(runner, left)) if runner else InProcess()
    with _display(name, sum(counts.values()), ended, quiet) as display:
        try:
            if left:
                run_until_ended(executor, job, store, display.show)
        except KeyboardInterrupt:
            interrupted = True
    counts = store.counts(name)
    frame = store.trials_frame(name)
    bad = frame[frame["state"] == "failed"]
    failed = tuple(
        f"{arm} seed {seed}: {str(error).splitlines()[0]}"
        for arm, seed, error in zip(bad["arm"], bad["seed"], bad["error"], strict=True)
    )
    return Outcome(
        name,
        {state: number for state, number in counts.items() if number},
        failed,
        interrupted,
        time.monotonic() - started,
    )


def _in_rounds(study: Study, store: Store, run: Callable[[Study], Outcome], quiet: bool) -> Outcome:
    """Run a study round by round until its contrasts are decided or have all seeds, telling what each round shows.

    What to run next follows from the ledger alone, so that another driver's rounds are these as well.
    """
    started, name = time.monotonic(), study.spec.name
    study = _with_what_is_there(study, store)
    store.register(study)
    store.requeue_failed(name)
    findings = _findings(study, store)
    told = sum(bool(one.looks) for one in findings.rounds)
    while True:
        outcome = run(study)
        findings = _findings(study, store)
        over = [one for one in findings.rounds if one.looks]
        for one in over[told:]:
            if not quiet:
                Console(stderr=True).print(round_line(findings, one), markup=False, highlight=False, soft_wrap=True)
        told = max(told, len(over))
        if outcome.interrupted or outcome.counts.get("failed"):
            break
        study = _with_what_is_there(study, store)
        last = findings.rounds[-1]
        wider = with_seeds(study, last.seeds)
        if outcome.complete and last.looks and wider == study:
            break
        store.register(study := wider)
        try:
            _wait_for_others(name, store)
        except KeyboardInterrupt:
            outcome = replace(outcome, interrupted=True)
            break
    return replace(outcome, seconds=time.monotonic() - started, decided=decided_line(findings))


def _with_what_is_there(study: Study, store: Store) -> Study:
    """Return a study that decides with the seeds that its arms have in the ledger, and planned as it was at first."""
    name = study.spec.name
    if not any(one.name == name for one in store.studies()):
        return resumed(study, (), None)
    before = store.study(name).spec
    frame = store.trials_frame(name)
    columns = (frame[column] for column in ("arm", "seed", "trial", "state"))
    linked = [
        Linked(arm, int(seed), trial, state in ("finished", "diverged"))
        for arm, seed, trial, state in zip(*columns, strict=True)
    ]
    return resumed(study, linked, expand_stored(before) if before.get("decide") else None)


def _findings(study: Study, store: Store) -> Findings:
    name = study.spec.name
    return find(study, store.trials_frame(name), store.records_frame(name), store.predictions(name))


def _wait_for_others(study: str, store: Store) -> None:
    """Wait while all that is left is run by others, but no longer than it takes a dead one's lease to run out."""
    until = time.monotonic() + LEASE_SECONDS
    while time.monotonic() < until:
        counts = store.counts(study)
        if counts["waiting"] or not counts["running"]:
            return
        time.sleep(ANOTHERS_SECONDS)


def _tuned(study: Study, store: Store, run: Callable[[Study], Outcome], quiet: bool) -> Study | Outcome:
    """Search for every arm's best values; give the study with them, or how the search ended without."""
    search = Search(study)
    while (asked := search.next(store)) is not None:
        store.register(asked)
        store.requeue_failed(asked.spec.name)
        outcome = run(asked)
        if outcome.interrupted or outcome.counts.get("failed"):
            return outcome
        try:  # on whose results the next settings depend
            _wait_for_others(asked.spec.name, store)
        except KeyboardInterrupt:
            return replace(outcome, interrupted=True)
    tuned = search.tuned()
    if tuned.spec.tune is not None and not quiet:
        Console(stderr=True).print(tuning_words(tuned.spec.tune), markup=False, highlight=False, soft_wrap=True)
    return tuned


def _cores() -> int:
    """Cores that this process may use, where the system tells; else all there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Display(Protocol):
    def show(self, event: Event) -> None: ...


@contextmanager
def _display(study: str, total: int, ended: int, quiet: bool) -> Iterator[_Display]:
    console = Console(stderr=True)
    tally = _Tally(total, ended)
    if quiet:
        yield _Silent()
    elif console.is_terminal:
        bars = _Bars(study, tally)
        with Live(bars.progress, console=console, refresh_per_second=4, transient=True):
            yield bars
    else:
        yield _Lines(console, tally)


@dataclass
class _Tally:
    """Trials done, and the time left, from the trials' own fractions."""

    total: int
    ended: int
    running: dict[str, float] = field(default_factory=dict)
    began: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    done_here: float = 0.0
    states: Counter[str] = field(default_factory=Counter)

    def take(self, event: Event) -> None:
        if event.kind in ("started", "restarted"):
            self.running[event.trial] = self.began[event.trial] = event.fraction
        elif event.kind == "progress":
            self.running[event.trial] = event.fraction
        else:
            self.running.pop(event.trial, None)
            if event.kind in ("finished", "diverged", "failed"):
                self.ended += 1
                self.states[event.kind] += 1
                self.done_here += 1 - self.began.get(event.trial, 0.0)

    def left(self) -> str:
        """Time left if what remains goes as fast as what was done so far."""
        done = self.done_here + sum(now - self.began.get(trial, now) for trial, now in self.running.items())
        if done <= 0.02:
            return "time left: ..."
        remaining = self.total - self.ended - sum(self.running.values())
        return f"time left: {_clock((time.monotonic() - self.started) * remaining / done)}"


@dataclass(frozen=True)
class _Silent:
    def show(self, event: Event) -> None:
        """Show nothing."""


@dataclass
class _Lines:
    console: Console
    tally: _Tally

    def show(self, event: Event) -> None:
        """Print a line when a trial ends or starts anew."""
        self.tally.take(event)
        if event.kind in ("restarted", "finished", "diverged", "failed", "died"):
            text = f": {event.text}" if event.text else ""
            self.console.print(
                f"{self.tally.ended}/{self.tally.total} {event.arm} seed {event.seed} {event.kind}{text};"
                f" {self.tally.left()}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )


class _Bars:
    def __init__(self, study: str, tally: _Tally) -> None:
        self.tally = tally
        self.study = study
        self.progress = Progress(
            TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.fields[note]}", markup=False)
        )
        self.whole = self.progress.add_task(study, total=tally.total, completed=tally.ended, note="")
        self.tasks: dict[str, TaskID] = {}

    def show(self, event: Event) -> None:
        """Update the bars; a trial's own bar goes when it ends."""
        self.tally.take(event)
        if event.kind in ("started", "progress"):
            if event.trial not in self.tasks:
                self.tasks[event.trial] = self.progress.add_task(f"{event.arm} seed {event.seed}", total=1.0, note="")
            self.progress.update(self.tasks[event.trial], completed=event.fraction, note=event.text)
        elif event.trial in self.tasks:
            self.progress.remove_task(self.tasks.pop(event.trial))
            if event.kind in ("restarted", "failed", "diverged", "died"):
                self.progress.console.print(f"{event.arm} seed {event.seed} {event.kind}: {event.text}", markup=False)
        note = f"{self.tally.ended}/{self.tally.total} trials, {self.tally.left()}"
        self.progress.update(self.whole, completed=self.tally.ended + sum(self.tally.running.values()), note=note)


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show how far something is, on a terminal alone; gives a function of (done, all)."""
    console = Console(stderr=True)
    columns = TextColumn("{task.description}", markup=False), BarColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, all_: bar.update(task, completed=done, total=all_)


def network_table(name: str, info: NetworkInfo) -> None:
    """Print a network's layers and totals."""
    table = Table(title=name, title_justify="left", show_edge=False, pad_edge=False)
    table.add_column("layer", overflow="fold")
    table.add_column("kind")
    for heading in ("output", "parameters", "multiply-adds"):
        table.add_column(heading, justify="right")
    for layer in info.layers:
        shape = "x".join(map(str, layer.output_shape))
        table.add_row(layer.name, layer.kind, shape, _count(layer.parameters), _count(layer.multiply_adds))
    table.add_section()
    table.add_row("total", "", "", f"{info.parameters:,}", f"{info.multiply_adds:,}")
    console = Console()
    if not console.is_terminal:
        console.width = 140  # a file or a pipe has no edge to fold at
    console.print(table)
    if info.receptive_field is not None:
        console.print(f"receptive field before the head: {info.receptive_field} pixels on a side")
    console.print(
        f"activations of one image: {_bytes(info.training_memory)} kept for training,"
        f" {_bytes(info.inference_memory)} at most at once for inference"
    )


def _bytes(number: int) -> str:
    return f"{number / 2**20:.2f} MiB" if number >= 2**20 else f"{number / 2**10:.1f} KiB"


def _count(number: int) -> str:
    return f"{number:,}" if number else ""


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"
