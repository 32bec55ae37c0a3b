"""What the page shows of a store at one moment, as plain frozen data."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from leadline.seeds import SeedName
from leadline.store import TrialState
from leadline.text.tables import Table


@dataclass(frozen=True)
class Worker:
    """A process that holds a trial."""

    name: str  # machine and process
    trouble: str = ""  # why it may not be working; empty: its heartbeat is recent


@dataclass(frozen=True)
class TrialNow:
    """A trial: how far it is, where it runs, and what went wrong."""

    trial: str  # hash
    arm: str
    seed: SeedName
    state: TrialState
    epoch: int  # complete epochs that are stored
    epochs: int
    seconds: float | None = None  # training time until the last stored epoch
    left: float | None = None  # seconds; None: unknown, or it is not running
    worker: Worker | None = None  # of a running trial
    device: str = ""
    error: str = ""  # its first line
    detail: str = ""  # the error's other lines
    note: str = ""  # incidents, one per line


@dataclass(frozen=True)
class TrialsPage:
    """Some of a study's trials, in its order."""

    state: TrialState | None  # of all of them; None: any
    number: int  # of the page, from 1
    pages: int
    total: int  # trials on all pages
    trials: tuple[TrialNow, ...]


@dataclass(frozen=True)
class Line:
    """A learning curve: the mean over an arm's finished trials, or one trial that has not finished."""

    arm: str  # without its levels
    place: int  # of the arm among those drawn, which decides colour, dash and marker
    epochs: tuple[int, ...]
    values: tuple[float, ...]
    low: tuple[float, ...] = ()  # least and greatest over the trials
    high: tuple[float, ...] = ()
    trials: int = 1  # at the last epoch
    state: TrialState = "finished"


@dataclass(frozen=True)
class CurvePanel:
    """The learning curves of one split at one level of the factors."""

    title: str
    lines: tuple[Line, ...]  # means
    single: tuple[Line, ...]  # trials that have not finished


@dataclass(frozen=True)
class Curves:
    """The learning curves of one quantity."""

    quantity: str
    axis: str  # its title
    arms: tuple[str, ...]  # that are drawn
    panels: tuple[CurvePanel, ...]
    omitted: str = ""  # what is not drawn


@dataclass(frozen=True, eq=False)
class FlowMap:
    """Gradient norms of one arm by layer and epoch."""

    arm: str
    epochs: tuple[int, ...]
    layers: tuple[str, ...]  # from the input
    values: np.ndarray  # float64 [layers, epochs]: log10 of the norm, the mean over seeds; NaN: not measured


@dataclass(frozen=True)
class Flow:
    """Gradient flow through depth and time in a study's arms."""

    what: str  # whose gradients
    maps: tuple[FlowMap, ...]
    seeds: int  # of each arm, at most
    omitted: str = ""  # what is not drawn


@dataclass(frozen=True)
class VerdictNow:
    """What may be said of a study so far."""

    kind: str  # "pending", "interim" or "final"
    lines: tuple[str, ...]
    table: Table | None = None


@dataclass(frozen=True)
class StudyNow:
    """A study at one moment."""

    name: str
    title: str
    about: str  # data set and number of epochs
    created: datetime
    counts: Mapping[TrialState, int]  # all five states
    done: float  # trials that have ended, and the parts of others that are done
    left: float | None  # seconds until all trials that are known will have ended; None: unknown
    running: tuple[TrialNow, ...]  # the first of them
    troubled: tuple[TrialNow, ...]  # the first that failed or diverged
    verdict: VerdictNow
    curves: tuple[Curves, ...]
    flow: Flow | None

    @property
    def total(self) -> int:
        """Number of trials."""
        return sum(self.counts.values())


@dataclass(frozen=True)
class StudyLine:
    """A study in the list of all."""

    name: str
    title: str
    created: datetime
    counts: Mapping[TrialState, int]


@dataclass(frozen=True)
class Health:
    """Whether the store can be read, whether there is room, and whether workers are alive."""

    store: str  # its address, without passwords
    error: str = ""  # why it cannot be read
    free: int | None = None  # bytes on the disk of the runs folder; None: there is no such folder here
    size: int | None = None  # bytes of that disk
    workers: int = 0
    troubled: tuple[Worker, ...] = ()

    @property
    def is_nearly_full(self) -> bool:
        """Whether less than 5% of the disk and less than 10 GB are free."""
        return self.free is not None and bool(self.size) and self.free < min(0.05 * (self.size or 0), 10e9)


@dataclass(frozen=True)
class Overview:
    """Some of a store's studies: those that run first, then the newest."""

    studies: tuple[StudyLine, ...]
    number: int  # of the page, from 1
    pages: int
    total: int
