"""Run the trials of a registered study and show their progress."""

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

from leadline.running.executors import Executor, InProcess, LocalProcesses, run_until_ended
from leadline.running.job import Emit, Job, trial_name
from leadline.store import Store
from leadline.text import clock


class Screen(Protocol):
    """Display for the progress of a study."""

    def say(self, line: str) -> None:
        """Show a line that remains on the screen."""

    def watch(self, study: str, total: int, ended: int) -> AbstractContextManager[Emit]:
        """Show the progress of `total` trials, of which `ended` have ended; yield the function that takes their
        events."""


class _Silent:
    def say(self, line: str) -> None:
        """Show nothing."""

    def watch(self, study: str, total: int, ended: int) -> AbstractContextManager[Emit]:
        """Show nothing."""
        return nullcontext(lambda event: None)


SILENT: Screen = _Silent()


@dataclass(frozen=True)
class Outcome:
    """Result of running a study."""

    study: str
    counts: Mapping[str, int]  # state -> number of trials, without zeros
    failed: tuple[str, ...]  # one line each
    interrupted: bool
    seconds: float
    decided: str = ""  # one-line result of a study with `decide`

    @property
    def complete(self) -> bool:
        """Whether every trial has finished or diverged, and none failed."""
        return not self.interrupted and set(self.counts) <= {"finished", "diverged"}

    def last_line(self, options: str = "") -> str:
        """Return a one-line summary with the next command, to which `options` are appended."""
        total = sum(self.counts.values())
        parts = [f"{self.counts[state]} {state}" for state in sorted(self.counts, key=_STATE_ORDER.index)]
        line = f"{self.study}: {total} trials: {', '.join(parts)}; {clock(self.seconds)}."
        line = " ".join(part for part in (line, self.decided) if part)
        if self.complete:
            return f"{line} Next: leadline report {self.study}{options}"
        if self.counts.get("failed") and not self.interrupted:
            return f"{line} First failure: {self.failed[0]}. Run the same command to retry the failed trials."
        return f"{line} Run the same command to continue."

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


_STATE_ORDER = ["finished", "diverged", "failed", "running", "waiting"]


def run_trials(store: Store, job: Job, runner: Executor | int, screen: Screen) -> Outcome:
    """Run the unfinished trials of a registered study with an executor or worker processes on this machine."""
    name, started = job.study, time.monotonic()
    interrupted = False
    counts = store.counts(name)
    ended = sum(counts.get(state, 0) for state in ("finished", "diverged"))
    left = sum(counts.values()) - ended
    executor = runner if not isinstance(runner, int) else LocalProcesses(min(runner, left)) if runner else InProcess()
    with screen.watch(name, sum(counts.values()), ended) as emit:
        try:
            if left:
                run_until_ended(executor, job, store, emit, screen.say)
        except KeyboardInterrupt:
            interrupted = True
    counts = store.counts(name)
    frame = store.trials_frame(name)
    bad = frame[frame["state"] == "failed"]
    failed = tuple(
        f"{trial_name(arm, seed)}: {str(error).splitlines()[0]}"
        for arm, seed, error in zip(bad["arm"], bad["seed"], bad["error"], strict=True)
    )
    return Outcome(
        name,
        {state: number for state, number in counts.items() if number},
        failed,
        interrupted,
        time.monotonic() - started,
    )
