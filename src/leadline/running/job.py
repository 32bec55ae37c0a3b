"""A worker's job description and the events that it reports."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from leadline.running.checkpoints import TEN_MINUTES, Interval
from leadline.store.connect import absolute

PATIENCE_SECONDS = 300.0
"""Maximum seconds for which a worker retries an unreachable database or artifact store."""
MOST_ATTEMPTS = 5
"""Number of consecutive starts without a new checkpoint in which a trial's worker died, after which it counts as
failed."""


@dataclass(frozen=True)
class Job:
    """Everything that a worker needs to run trials of a study."""

    study: str
    runs: Path
    store_url: str | None = None
    data_dir: Path | None = None
    device: str = "cpu"
    threads: int = 1  # per process; bits change with it
    checkpoint_every: Interval = TEN_MINUTES  # no bit changes with it
    devices: int | None = None  # that train a trial together; last bits change with it; None: as the study says
    artifacts: str | None = None  # URL of a folder for checkpoints, from `artifacts.folder_url`; None: the runs folder
    objects: bytes | None = None  # custom code that no other process can import, from `pack_objects`

    def anywhere(self) -> "Job":
        """Return the same job with absolute paths, for a process that may start in another folder."""
        data_dir = None if self.data_dir is None else self.data_dir.absolute()
        return replace(self, runs=self.runs.absolute(), store_url=absolute(self.store_url), data_dir=data_dir)


@dataclass(frozen=True)
class Event:
    """Event of a trial: `progress` while it runs, then its final state."""

    kind: str  # "started", "progress", "restarted", "finished", "diverged", "failed", "stopped", "died"
    trial: str
    arm: str
    seed: int
    owner: str
    fraction: float = 0.0  # of the trial's steps done
    text: str = ""


Emit = Callable[[Event], None]

Tell = Callable[[str, float, str], None]
"""Tells how one trial gets on: the kind of event, the fraction of its steps done, and a line."""
