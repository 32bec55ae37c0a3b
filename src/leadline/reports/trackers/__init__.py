"""Runs of stored studies in the programs with which people look at experiments, each in a module of its own.

A module registers a `Tracker`. What it keeps always follows from the store: a run that is there to its end and has not
changed is left alone, one that is open goes on, and any other is written anew.
"""

import fcntl
import hashlib
import importlib
import json
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, Self, TextIO, TypeVar, final
from urllib.parse import quote

from leadline.analysis.runs.logs import VERDICT_RUN, flat
from leadline.errors import LeadlineError, SpecError, not_installed, unknown
from leadline.seeds import SeedName
from leadline.store.schema import SETTLED, TrialState

Points = Mapping[int, Mapping[str, float]]
"""Epoch -> name -> value."""

FORMAT = 1
"""Version of what is written; runs of another one are written anew."""


@dataclass(frozen=True)
class TrackedRun:
    """A trial of a study, as trackers show it."""

    study: str
    trial: str  # hash
    arm: str
    base: str
    factors: Mapping[str, Any]
    seed: SeedName
    state: TrialState
    spec: Mapping[str, Any]  # of the trial
    points: Points = field(hash=False)

    @property
    def id(self) -> str:
        """Identifier, the same whenever and wherever this trial of this study is written."""
        return _digest([self.study, self.arm, self.trial])[:16]

    @property
    def name(self) -> str:
        """Name such as `residual[blocks=5]_seed0`."""
        seed = self.seed if isinstance(self.seed, str) else f"seed{self.seed}"
        return f"{self.arm}_{seed}"

    @property
    def file_name(self) -> str:
        """The name as that of a file or folder."""
        return quote(self.name, safe="[]=,+ ()")

    @property
    def config(self) -> dict[str, Any]:
        """What tells the run from others, then the trial's specification, which may hold mappings and lists."""
        own = {"study": self.study, "arm": self.arm, "base": self.base, "factors": dict(self.factors)}
        return own | {"trial": self.trial} | dict(self.spec) | {"seed": self.seed}

    @property
    def settings(self) -> dict[str, Any]:
        """The configuration as one level, with dots between names."""
        return flat(self.config)

    @property
    def ended(self) -> bool:
        """Whether nothing is added any more, unless a failed trial is retried."""
        return self.state in SETTLED

    @property
    def digest(self) -> str:
        """What tells whether two runs hold the same."""
        return _digest([FORMAT, self.name, self.config, self.state, self.points])


class Tracker(ABC):
    """What a program keeps of one study's runs in a folder.

    Args:
        folder: created if missing; other studies may be kept in it as well.
        study: name.
    """

    name: ClassVar[str]
    package: ClassVar[str]  # that it needs
    module: ClassVar[str]  # by which that is imported
    next: ClassVar[str]  # command that shows a folder's runs, with `{folder}`

    def __init__(self, folder: Path, study: str) -> None:
        self.folder, self.study = folder.absolute(), study  # wandb resolves a relative one elsewhere
        self._open: dict[str, Points] = {}  # id of a run that goes on -> what it holds
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with ExitStack() as opened:
                self._lock = opened.enter_context(_lock(folder, study))
                self._known = self.read_known()
                opened.pop_all()
        except OSError as error:
            raise LeadlineError(f"{folder}: cannot be written: {error.strerror or error}") from None

    @abstractmethod
    def read_known(self) -> dict[str, str]:
        """Return id -> digest of the study's runs that are there; the digest is empty of those that did not end.

        The verdict's id is `VERDICT_RUN`.
        """

    @abstractmethod
    def remove(self, run: str) -> None:
        """Remove a run, by its id."""

    @abstractmethod
    def begin(self, run: TrackedRun) -> None:
        """Write a run's configuration; it has no values yet."""

    @abstractmethod
    def add(self, run: TrackedRun, points: Points) -> None:
        """Add values to a run that has begun."""

    @abstractmethod
    def end(self, run: TrackedRun) -> None:
        """Mark a run as ended, with its state and digest."""

    @abstractmethod
    def write_verdict(self, text: str, digest: str) -> None:
        """Write, or replace, the study's verdict, and its digest."""

    @abstractmethod
    def close(self) -> None:
        """Leave runs that go on as they are."""

    @final
    def __enter__(self) -> Self:
        return self

    @final
    def __exit__(self, *raised: object) -> None:
        with self._lock:
            self.close()

    @final
    def write(self, runs: Iterable[TrackedRun]) -> int:
        """Bring runs to what the store holds; return how many had to be written."""
        return sum([self._write(run) for run in runs])

    @final
    def keep(self, runs: Iterable[str]) -> None:
        """Remove runs of the study that are not among these ids, such as those of trials with earlier code."""
        for gone in set(self._known) - set(runs) - {VERDICT_RUN}:
            self._remove(gone)

    @final
    def keep_verdict(self, text: str) -> None:
        """Bring the study's verdict to this text."""
        if self._known.get(VERDICT_RUN) != (digest := _digest([FORMAT, text])):
            self.write_verdict(text, digest)
            self._known[VERDICT_RUN] = digest

    def _remove(self, run: str) -> None:
        self.remove(run)
        self._open.pop(run, None)
        del self._known[run]

    def _write(self, run: TrackedRun) -> bool:
        if self._known.get(run.id) == run.digest or not (run.points or run.ended):
            return False
        done = self._open.get(run.id)
        rest = None if done is None else _left(run.points, done)
        if rest is None:
            if run.id in self._known:
                self._remove(run.id)
            self.begin(run)
            self._known[run.id], rest = "", run.points
        self.add(run, rest)
        self._open[run.id] = run.points
        if run.ended:
            self.end(run)
            del self._open[run.id]
            self._known[run.id] = run.digest
        return True


def _lock(folder: Path, study: str) -> TextIO:
    """Return an open file that is locked until it is closed, so that one process at a time writes a study's runs.

    Raises:
        LeadlineError: another process has locked it.
    """
    file = (folder / f".{study}.lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise LeadlineError(
            f"{folder}: another process writes the runs of {study} there; wait until it ends, or use another folder"
        ) from None
    except OSError:  # the file system has no locks
        pass
    return file


def _left(points: Points, done: Points) -> Points | None:
    """Return the points that are not done; None if something else was done."""
    left = {}
    for epoch, values in points.items():
        before = done.get(epoch, {})
        if new := {name: value for name, value in values.items() if name not in before}:
            left[epoch] = new
    again = {
        epoch: {name: value for name, value in values.items() if name not in left.get(epoch, {})}
        for epoch, values in points.items()
    }
    return left if _plain({epoch: values for epoch, values in again.items() if values}) == _plain(done) else None


def _digest(value: object) -> str:
    return hashlib.sha256(_plain(value).encode()).hexdigest()


def _plain(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=str)


T = TypeVar("T", bound=type[Tracker])
_trackers: dict[str, type[Tracker]] = {}


def register(tracker: T) -> T:
    """Add a tracker under its name and return it.

    Raises:
        ValueError: another one has the name.
    """
    if _trackers.setdefault(tracker.name, tracker) is not tracker:
        raise ValueError(f"tracker {tracker.name!r} is declared twice")
    return tracker


def trackers() -> dict[str, type[Tracker]]:
    """Return name -> tracker."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return dict(sorted(_trackers.items()))


def find_tracker(name: str, option: str) -> type[Tracker]:
    """Return the tracker of a name, after checking that what it needs is installed.

    Args:
        name: such as `tensorboard`.
        option: what asks for it, for messages.

    Raises:
        SpecError: there is none of that name.
        LeadlineError: what it needs is not installed.
    """
    known = trackers()
    if name not in known:
        raise SpecError(unknown(option, name, known))
    found = known[name]
    spec = find_spec(found.module)
    if spec is None or spec.origin is None:  # a folder of that name, such as W&B's own, is no package
        raise LeadlineError(not_installed(f"{option} {name}", found.package, name))
    return found


__all__ = [
    "VERDICT_RUN",
    "Points",
    "TrackedRun",
    "Tracker",
    "find_tracker",
    "register",
    "trackers",
]
