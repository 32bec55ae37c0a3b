"""A study of a store written to a tracker: once, or again and again while it runs."""

from dataclasses import dataclass
from pathlib import Path

from leadline.analysis.verdict import to_text
from leadline.reports.stored import read_findings
from leadline.reports.trackers import Tracker, find_tracker
from leadline.reports.trackers.stored import StoredRuns
from leadline.store.following import Follower
from leadline.store.schema import SETTLED
from leadline.text import plural


@dataclass(frozen=True)
class Exported:
    """What a tracker has of a study."""

    tracker: str
    folder: Path
    written: int  # runs
    unchanged: int
    waiting: int  # trials of which nothing is stored
    next: str  # command that shows the runs

    def line(self) -> str:
        """Return this in one line."""
        parts = [f"{plural(self.written, 'run')} written"]
        parts += [f"{self.unchanged} unchanged"] * bool(self.unchanged)
        parts += [f"{self.waiting} left out, of which nothing is stored"] * bool(self.waiting)
        return f"{self.tracker}: {', '.join(parts)}: {self.folder}. Next: {self.next}"


class StudyWriter:
    """Brings what a tracker has of a study to what the store has."""

    def __init__(self, store: Follower, study: str, tracker: Tracker) -> None:
        self._store, self._study, self._tracker = store, study, tracker
        self._runs = StoredRuns(store, study)

    def write_runs(self) -> int:
        """Write the runs that have changed since the last call; return how many had to be written.

        Raises:
            StoreError: there is no such study, or the store cannot be read.
        """
        written = self._tracker.write(self._runs.read())
        self._tracker.keep(self._runs.ids)
        return written

    def write_verdict(self) -> None:
        """Write the verdict as `leadline verdict` prints it."""
        self._tracker.keep_verdict(to_text(read_findings(self._store, self._study)))

    @property
    def complete(self) -> bool:
        """Whether every trial had ended when the runs were last read."""
        return set(self._runs.counts) <= {*SETTLED}

    @property
    def waiting(self) -> int:
        """Number of trials that had not begun when the runs were last read."""
        return self._runs.counts.get("waiting", 0)

    @property
    def total(self) -> int:
        """Number of trials when the runs were last read."""
        return sum(self._runs.counts.values())


def export_runs(store: Follower, study: str, to: str, folder: Path) -> Exported:
    """Write a study's runs, as far as they are stored, and its verdict to a tracker.

    Args:
        store: open.
        study: name.
        to: name of the tracker.
        folder: created if missing.

    Raises:
        SpecError: there is no such tracker.
        LeadlineError: it is not installed, there is no such study, or the folder cannot be written.
    """
    kind = find_tracker(to, "--to")
    store.study(study)
    with kind(folder, study) as tracker:
        writer = StudyWriter(store, study, tracker)
        written = writer.write_runs()
        writer.write_verdict()
    unchanged = writer.total - writer.waiting - written
    return Exported(to, folder, written, unchanged, writer.waiting, kind.next.format(folder=folder))
