"""A study driven to its end: the search for settings, the rounds of seeds, the trials that are left."""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from leadline.artifacts import folder_url
from leadline.data import batches
from leadline.data.metadata import describe
from leadline.errors import SpecError
from leadline.machine import cores
from leadline.matching import matched
from leadline.nets import check, skeleton
from leadline.probes.selection import select
from leadline.rounds import Linked, resumed, with_seeds
from leadline.running.checkpoints import TEN_MINUTES, Interval
from leadline.running.executors import Executor, InProcess, LocalProcesses, run_until_ended
from leadline.running.job import PATIENCE_SECONDS, Emit, Job
from leadline.spec import NetworkSpec
from leadline.spec.study import SEARCH
from leadline.store import Store
from leadline.study import Study, expand_stored
from leadline.training import choose_device
from leadline.tuning import Search
from leadline.verdict import Findings, analyze, decided_line, reads_probabilities, round_line
from leadline.verdict.tuned import tuning_words


class Screen(Protocol):
    """Where a study is shown while it runs."""

    def say(self, line: str) -> None:
        """Show a line that stays."""

    def watch(self, study: str, total: int, ended: int) -> AbstractContextManager[Emit]:
        """Show, while the body runs, how trials go, of so many of which some have ended; gives what is told of them."""


class _Unseen:
    def say(self, line: str) -> None:
        """Show nothing."""

    def watch(self, study: str, total: int, ended: int) -> AbstractContextManager[Emit]:
        """Show nothing."""
        return nullcontext(lambda event: None)


UNSEEN: Screen = _Unseen()


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
        line = f"{self.study}: {total} trials: {', '.join(parts)}; {clock(self.seconds)}."
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


def clock(seconds: float) -> str:
    """Return a time as people say it: 1 h 5 min, 2 min 5 s, 40 s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s" if minutes else f"{rest} s"


_STATE_ORDER = ["finished", "diverged", "failed", "running", "waiting"]


def run_study(
    study: Study,
    runs: Path,
    store_url: str | None,
    data_dir: Path | None,
    workers: int | None,
    device: str,
    screen: Screen = UNSEEN,
    executor: Executor | None = None,
    checkpoint_every: Interval = TEN_MINUTES,
    devices: int | None = None,
    artifacts: str | None = None,
) -> Outcome:
    """Register a study and run its unfinished trials.

    Args:
        study: what to run.
        runs: folder of the checkpoints and of the default store.
        store_url: the store's address; None: inside the runs folder.
        data_dir: folder of the data sets; None: the user's cache.
        workers: processes of this machine; None: one per core, or one for a GPU; 0: inside this one.
        device: cpu, cuda, cuda:N or auto.
        screen: where its progress is shown; `UNSEEN`: nowhere.
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
        workers = max(1, cores() // (devices or study.spec.devices)) if chosen == "cpu" else 1
    name = study.spec.name
    study = ready(study, data_dir, screen)

    def run(job: Job) -> Callable[[Study], Outcome]:
        return lambda asked: _run(asked, store, job, executor or workers, screen)

    url = None if artifacts is None else folder_url(artifacts)
    job = Job(name, runs, store_url, data_dir, chosen, 1, checkpoint_every, devices, url)
    with Store.open(runs, store_url) as store:
        store.patience = PATIENCE_SECONDS  # from here on: an address that is wrong is said at once
        if study.spec.tune is not None and study.spec.tune.chosen is None:
            found = _tuned(study, store, run(replace(job, study=name + SEARCH)), screen)
            if isinstance(found, Outcome):
                return found
            study = found
        if study.spec.decide is not None:
            return _in_rounds(study, store, run(job), screen)
        store.register(study)
        store.requeue_failed(name)
        return run(job)(study)


def ready(study: Study, data_dir: Path | None, screen: Screen) -> Study:
    """Return a study with its arms matched, when its data are there and its networks can take them.

    Raises:
        LeadlineError: they are not, or cannot.
    """
    study = matched(study, data_dir)
    for sentence in study.spec.matching:
        screen.say(sentence)
    for arm in study.arms:
        shape, classes = describe(arm.trial.data, data_dir)
        check(arm.trial.network, shape, classes)
        if arm.trial.probes.flow is not None and isinstance(arm.trial.network, NetworkSpec):
            try:
                select(skeleton(arm.trial.network, shape, classes), arm.trial.probes.flow.layers)
            except SpecError as error:
                raise SpecError(f"probes.flow.layers, arm {arm.name}: {error}") from None
    for spec in {arm.trial.data for arm in study.arms}:
        note = batches.load(spec, data_dir).note  # downloads and checks once, before the workers start
        if note:
            screen.say(note)
    return study


def _run(study: Study, store: Store, job: Job, runner: Executor | int, screen: Screen) -> Outcome:
    """Run what is left of a study that is registered, by an executor or so many processes of this machine."""
    name = study.spec.name
    started = time.monotonic()
    interrupted = False
    counts = store.counts(name)
    ended = sum(counts.get(state, 0) for state in ("finished", "diverged"))
    left = sum(counts.values()) - ended
    executor = runner if not isinstance(runner, int) else LocalProcesses(min(runner, left)) if runner else InProcess()
    with screen.watch(name, sum(counts.values()), ended) as emit:
        try:
            if left:
                run_until_ended(executor, job, store, emit)
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


def _in_rounds(study: Study, store: Store, run: Callable[[Study], Outcome], screen: Screen) -> Outcome:
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
            screen.say(round_line(findings, one))
        told = max(told, len(over))
        if outcome.interrupted or outcome.counts.get("failed"):
            break
        study = _with_what_is_there(study, store)
        last = findings.rounds[-1]
        wider = with_seeds(study, last.seeds)
        if outcome.complete and last.looks and wider == study:
            break
        store.register(study := wider)
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
    return analyze(
        study, store.trials_frame(name), store.records_frame(name), store.outputs(name, reads_probabilities(study))
    )


def _tuned(study: Study, store: Store, run: Callable[[Study], Outcome], screen: Screen) -> Study | Outcome:
    """Search for every arm's best values; give the study with them, or how the search ended without."""
    search = Search(study)
    while (asked := search.next(store)) is not None:
        store.register(asked)
        store.requeue_failed(asked.spec.name)
        outcome = run(asked)
        if outcome.interrupted or outcome.counts.get("failed"):
            return outcome
    tuned = search.tuned()
    if tuned.spec.tune is not None:
        screen.say(tuning_words(tuned.spec.tune))
    return tuned
