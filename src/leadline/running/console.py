"""Progress display in a terminal or a notebook while a study runs."""

import html
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from uuid import uuid4

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from leadline.running.job import Emit, Event
from leadline.store.schema import SETTLED
from leadline.text import clock
from leadline.text.terminal import make_console


@dataclass(frozen=True)
class Terminal:
    """Show progress bars on a terminal or in a notebook, or else a line per finished trial on standard error."""

    def say(self, line: str) -> None:
        """Show a line that remains on the screen."""
        make_console(stderr=True).print(line, markup=False, highlight=False, soft_wrap=True)

    @contextmanager
    def watch(self, study: str, total: int, ended: int) -> Iterator[Emit]:
        """Show the progress of the trials within the context."""
        console = make_console(stderr=True)
        tally = _Tally(total, ended)
        if console.is_terminal:
            bars = _Bars(study, tally)
            with Live(bars.progress, console=console, refresh_per_second=4, transient=True):
                yield bars.show
        elif console.is_jupyter:
            yield _NotebookBars(study, tally).show
        else:
            yield _Lines(console, tally).show


@dataclass
class _Tally:
    """Number of finished trials and the remaining time, estimated from the trials' progress."""

    total: int
    ended: int
    running: dict[str, float] = field(default_factory=dict)
    began: dict[str, float] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)
    done_here: float = 0.0
    states: Counter[str] = field(default_factory=Counter)

    def take(self, event: Event) -> None:
        if event.kind in ("started", "moved", "restarted"):
            self.running[event.trial] = self.began[event.trial] = event.fraction
        elif event.kind == "progress":
            self.running[event.trial] = event.fraction
        else:
            self.running.pop(event.trial, None)
            if event.kind in SETTLED:
                self.ended += 1
                self.states[event.kind] += 1
                self.done_here += 1 - self.began.get(event.trial, 0.0)

    def note(self) -> str:
        """Return how many trials have ended, and the time left until all have."""
        count = f"{self.ended}/{self.total} trials"
        return count if self.ended == self.total else f"{count}, {self.left()}"

    def left(self) -> str:
        """Return the remaining time, extrapolated from the speed so far."""
        done = self.done_here + sum(now - self.began.get(trial, now) for trial, now in self.running.items())
        if done <= 0.02:
            return "time left: ..."
        remaining = self.total - self.ended - sum(self.running.values())
        return f"time left: {clock((time.monotonic() - self.started) * remaining / done)}"


@dataclass
class _Lines:
    console: Console
    tally: _Tally

    def show(self, event: Event) -> None:
        """Print a line when a trial ends, restarts or has moved to another environment."""
        self.tally.take(event)
        if event.kind in ("moved", "restarted", *SETTLED, "died"):
            self.console.print(
                f"{self.tally.ended}/{self.tally.total} {event.line()}; {self.tally.left()}",
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
        """Update the bars; the bar of a trial is removed when it ends."""
        self.tally.take(event)
        if event.kind in ("started", "progress"):
            if event.trial not in self.tasks:
                self.tasks[event.trial] = self.progress.add_task(event.name, total=1.0, note="")
            self.progress.update(self.tasks[event.trial], completed=event.fraction, note=event.text)
        elif event.trial in self.tasks:
            self.progress.remove_task(self.tasks.pop(event.trial))
            if event.kind in ("moved", "restarted", "failed", "diverged", "died"):
                self.progress.console.print(event.line(), markup=False)
        done = self.tally.ended + sum(self.tally.running.values())
        self.progress.update(self.whole, completed=done, note=self.tally.note())


REFRESH_SECONDS = 0.25
"""Minimum seconds between two updates of a notebook's bars; each update is a message to the browser."""


class _NotebookBars:
    """Progress bars in the output of a notebook cell, updated in place; they remain after the run."""

    def __init__(self, study: str, tally: _Tally) -> None:
        self.study = study
        self.tally = tally
        self.notes: dict[str, str] = {}  # trial -> its name and last message
        self.lines: list[str] = []
        self.shown = time.monotonic()
        self.place = uuid4().hex
        self.display(update=False)

    def show(self, event: Event) -> None:
        """Update the bars, immediately when a trial ends."""
        self.tally.take(event)
        if event.kind in ("started", "progress"):
            self.notes[event.trial] = f"{event.name} {event.text}".rstrip()
        else:
            self.notes.pop(event.trial, None)
            if event.kind in ("moved", "restarted", "failed", "diverged", "died"):
                self.lines.append(event.line())
        if event.kind != "progress" or time.monotonic() - self.shown >= REFRESH_SECONDS:
            self.shown = time.monotonic()
            self.display(update=True)

    def display(self, update: bool) -> None:
        from IPython.display import publish_display_data

        data = {"text/html": self.to_html(), "text/plain": f"{self.study}: {self.tally.note()}"}
        publish_display_data(data, transient={"display_id": self.place}, update=update)  # type: ignore[no-untyped-call]

    def to_html(self) -> str:
        tally = self.tally
        rows = [
            _bar(self.study, tally.ended + sum(tally.running.values()), tally.total, tally.note()),
            *(_bar(note, tally.running.get(trial, 0.0), 1, "") for trial, note in self.notes.items()),
        ]
        lines = "".join(f"<div>{html.escape(line)}</div>" for line in self.lines)
        return f"<table>{''.join(rows)}</table>{lines}"


def _bar(title: str, done: float, whole: float, note: str) -> str:
    bar = f'<progress value="{done:.4f}" max="{whole}"></progress>'
    cells = "".join(
        f'<td style="text-align: left">{cell}</td>' for cell in (html.escape(title), bar, html.escape(note))
    )
    return f"<tr>{cells}</tr>"
