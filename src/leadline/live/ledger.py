"""From a store to what the page shows; what was read a moment ago is not read again."""

import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Generic, TypeVar

from leadline.errors import LeadlineError
from leadline.live.curves import CurveReader
from leadline.live.flow import FlowReader
from leadline.live.snapshot import Health, Overview, StudyLine, StudyNow, TrialNow, TrialsPage, Worker
from leadline.live.verdict import VerdictReader
from leadline.store import STATES, StudyRecord, TrialState, WorkerId
from leadline.store.connect import address, display_address
from leadline.store.following import Detail, Followed, Follower, Lease, Link, Progress
from leadline.store.leases import ENDED
from leadline.store.schema import SETTLED
from leadline.study.expand import ExpandedStudy, tasks_of
from leadline.text import clock, plural

LEAST_SECONDS = 1.0
"""Seconds between two readings of the same."""
REST = 4.0
"""How much longer than a reading took the next one waits, so that a large store is not read all the time."""
SHOWN = 24
"""Trials of a list that is not divided into pages."""
ROWS = 50
"""Rows of a page."""
KEPT_STUDIES = 4
"""Studies whose curves are kept in memory: those that were looked at last."""

T = TypeVar("T")


class Recent(Generic[T]):
    """A value that is made again when it is asked for and has become old."""

    def __init__(self, make: Callable[[], T]) -> None:
        """Refer to the value without making it."""
        self._make = make
        self._value: list[T] = []
        self._due = 0.0

    def get(self) -> T:
        """Return the value, which is at most as old as the time that making it takes justifies.

        Raises:
            LeadlineError: it cannot be made.
        """
        started = time.monotonic()
        if not self._value or started >= self._due:
            self._value = []
            self._value = [self._make()]
            took = time.monotonic() - started
            self._due = started + took + max(LEAST_SECONDS, REST * took)
        return self._value[0]


class Ledger:
    """What the page shows of a store. Its methods may be called from any thread; they run one at a time."""

    def __init__(self, store: Follower) -> None:
        """Read from an open store."""
        self._store = store
        self._lock = threading.Lock()
        self._studies: dict[str, StudyReader] = {}  # the one that was asked for last at the end
        self._every = Recent(self._read_studies)
        self._leases = Recent(store.leases)

    def overview(self, number: int = 1) -> Overview:
        """Return a page of the studies: those that run first, then the newest.

        Raises:
            LeadlineError: the store cannot be read.
        """
        with self._lock:
            every = self._every.get()
        number, pages = turn(number, len(every))
        return Overview(tuple(every[(number - 1) * ROWS : number * ROWS]), number, pages, len(every))

    def study(self, name: str) -> StudyNow:
        """Return a study.

        Raises:
            LeadlineError: there is no such study, or the store cannot be read.
        """
        with self._lock:
            return self._reader(name).now.get()

    def trials(self, name: str, state: TrialState | None, number: int) -> TrialsPage:
        """Return a page of a study's trials in one state, or in any; errors as of `study`."""
        with self._lock:
            reader = self._reader(name)
            reader.now.get()
            return reader.trials(state, number)

    def health(self) -> Health:
        """Return whether the store can be read, whether there is room, and whether workers are alive."""
        place = display_address(address(self._store.url, self._store.folder))
        free, size = _disk(self._store.folder)
        try:
            with self._lock:
                leases, moment = self._leases.get()
        except LeadlineError as error:
            return Health(place, error.lines[0], free, size)
        workers = {lease.owner: describe_worker(lease, moment) for lease in leases}
        return Health(place, "", free, size, len(workers), tuple(one for one in workers.values() if one.trouble))

    def _read_studies(self) -> list[StudyLine]:
        found = [StudyLine(one.name, one.title, one.created, one.counts) for one in self._store.studies()]
        return sorted(found, key=lambda one: (one.counts["running"] > 0, one.created), reverse=True)

    def _reader(self, name: str) -> "StudyReader":
        reader = self._studies.pop(name, None) or StudyReader(self._store, name)
        reader.now.get()  # of a study that there is not, nothing is kept
        self._studies[name] = reader
        while len(self._studies) > KEPT_STUDIES:
            del self._studies[next(iter(self._studies))]
        return reader


class StudyReader:
    """Reads one study again and again."""

    def __init__(self, store: Follower, name: str) -> None:
        """Refer to a study without reading it."""
        self.now = Recent(self._read)
        self._store, self._name = store, name
        self._followed: Followed | None = None
        self._expanded: tuple[StudyRecord, ExpandedStudy] | None = None
        self._pace = Pace({}, {})
        self._curves, self._flow, self._verdict = CurveReader(store), FlowReader(store), VerdictReader(store)

    def trials(self, state: TrialState | None, number: int) -> TrialsPage:
        """Return a page of its trials in one state, or in any, as they were when it was last read."""
        assert self._followed is not None
        chosen = self._find(state)
        number, pages = turn(number, len(chosen))
        shown = self._describe(chosen[(number - 1) * ROWS : number * ROWS], self._followed)
        return TrialsPage(state, number, pages, len(chosen), shown)

    def _read(self) -> StudyNow:
        followed = self._followed = self._store.progress(self._name, self._followed)
        study = self._expand(followed.record)
        pace = self._pace = Pace.of(followed, {arm.name: arm.trial.training.epochs for arm in study.arms})
        counts = dict.fromkeys(STATES, 0)
        for one in followed.progress:
            counts[one.state] += 1
        troubled = [*self._find("failed"), *self._find("diverged")]
        sizes = plural(study.spec.training.epochs, "epoch"), plural(len(study.arms), "arm")
        return StudyNow(
            name=study.name,
            title=study.title,
            about=" · ".join((study.spec.data.display_name, *sizes)),
            created=followed.record.created,
            counts=counts,
            done=sum(map(pace.done, followed.links, followed.progress)),
            left=pace.left(followed),
            running=self._describe(self._find("running")[:SHOWN], followed),
            troubled=self._describe(troubled[:SHOWN], followed),
            verdict=self._verdict.read(followed, study),
            curves=self._curves.read(
                followed, {name: axis for task in tasks_of(study) for name, axis in task.curves.items()}
            ),
            flow=self._flow.read(followed),
        )

    def _expand(self, record: StudyRecord) -> ExpandedStudy:
        if self._expanded is None or self._expanded[0] != record:
            self._expanded = record, record.expand()
        return self._expanded[1]

    def _find(self, state: TrialState | None) -> list[int]:
        assert self._followed is not None
        return [place for place, one in enumerate(self._followed.progress) if state in (None, one.state)]

    def _describe(self, places: Sequence[int], followed: Followed) -> tuple[TrialNow, ...]:
        details = self._store.details([followed.links[place].id for place in places]) if places else {}
        return tuple(
            describe_trial(link, followed.progress[place], details[link.id], self._pace, followed.moment)
            for place in places
            if (link := followed.links[place]).id in details
        )


@dataclass(frozen=True)
class Pace:
    """How long trials are, and how long their epochs take."""

    epochs: Mapping[str, int]  # arm -> epochs of its trials
    seconds: Mapping[str, float]  # arm -> seconds per epoch, of arms with an epoch that is stored

    @classmethod
    def of(cls, followed: Followed, epochs: Mapping[str, int]) -> "Pace":
        """Return the mean pace of a study's trials."""
        sums: dict[str, tuple[float, int]] = {}
        for link, one in zip(followed.links, followed.progress, strict=True):
            if one.epoch and one.seconds is not None:
                seconds, count = sums.get(link.arm, (0.0, 0))
                sums[link.arm] = seconds + one.seconds, count + one.epoch
        return cls(epochs, {arm: seconds / count for arm, (seconds, count) in sums.items()})

    def length(self, link: Link, one: Progress) -> int:
        """Return the number of epochs of a trial."""
        return max(self.epochs.get(link.arm, 1), one.epoch)

    def done(self, link: Link, one: Progress) -> float:
        """Return which part of a trial is done, 1 where it has ended."""
        return 1.0 if one.state in SETTLED else one.epoch / self.length(link, one)

    def left_of(self, link: Link, one: Progress) -> float | None:
        """Return the seconds that a trial will still train; None: unknown."""
        if one.state in SETTLED:
            return 0.0
        whole = sum(self.seconds.values()) / len(self.seconds) if self.seconds else None
        seconds = self.seconds.get(link.arm, whole)
        return None if seconds is None else seconds * (self.length(link, one) - one.epoch)

    def left(self, followed: Followed) -> float | None:
        """Return the seconds until all trials have ended, with as many workers as now; None: unknown."""
        workers = sum(one.state == "running" for one in followed.progress)
        each = [self.left_of(link, one) for link, one in zip(followed.links, followed.progress, strict=True)]
        known = [seconds for seconds in each if seconds is not None]
        return sum(known) / workers if workers and len(known) == len(each) else None


def turn(number: int, items: int) -> tuple[int, int]:
    """Return the number of an existing page that is nearest to the one that is asked for, and how many there are."""
    pages = max(1, -(-items // ROWS))
    return min(max(1, number), pages), pages


def describe_trial(link: Link, one: Progress, detail: Detail, pace: Pace, moment: datetime) -> TrialNow:
    """Return what the page shows of a trial."""
    error, _, rest = (detail.error or "").partition("\n")
    if one.state == "diverged" and detail.diverged_step is not None:
        error = error or f"diverged at step {detail.diverged_step}"
    lease = Lease(one.owner, one.lease_until) if one.owner is not None and one.lease_until is not None else None
    return TrialNow(
        trial=link.trial,
        arm=link.arm,
        seed=link.seed,
        state=one.state,
        epoch=one.epoch,
        epochs=pace.length(link, one),
        seconds=one.seconds,
        left=pace.left_of(link, one) if one.state == "running" else None,
        worker=None if lease is None else describe_worker(lease, moment),
        device=_device(detail.environment),
        error=error,
        detail=rest.strip("\n"),
        note=detail.note or "",
    )


def describe_worker(lease: Lease, moment: datetime) -> Worker:
    """Return which process holds a trial, and why it may not be working.

    Args:
        lease: as the store has it.
        moment: the present, by the clock that leases are measured with.
    """
    parsed = WorkerId.parse(lease.owner)
    if parsed is None:
        return Worker(lease.owner, _silence(lease, moment))
    name = f"{parsed.host.partition('/')[0]}, process {parsed.pid}"
    if parsed.is_dead():
        return Worker(name, "the process has ended; another worker will take its trial")
    if parsed.is_stopped():
        return Worker(name, "the process is stopped, as by Ctrl-Z")
    return Worker(name, _silence(lease, moment))


def _disk(folder: Path) -> tuple[int | None, int | None]:
    """Return the bytes that are free on the disk of a folder, and those of all of it; None: there is no such folder."""
    try:
        found = shutil.disk_usage(folder)
    except OSError:
        return None, None
    return found.free, found.total


def _silence(lease: Lease, moment: datetime) -> str:
    if lease.until <= ENDED:
        return "it has given its trial up; another worker will take it"
    late = (moment - lease.until).total_seconds()
    return f"no heartbeat; its lease ended {clock(late)} ago" if late > 0 else ""


def _device(environment: Mapping[str, object] | None) -> str:
    device, count = (environment or {}).get("device"), (environment or {}).get("devices", 1)
    return "" if device is None else f"{count} × {device}" if count != 1 else str(device)
