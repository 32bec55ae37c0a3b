"""The job description of a worker, and the events that it reports."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from leadline.parts.reference import unpack_objects
from leadline.parts.trust import trust
from leadline.running.checkpoints import TEN_MINUTES, Interval
from leadline.seeds import SeedName, call_seed
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
    threads: int = 1  # per process; results depend on it in their last bits
    checkpoint_every: Interval = TEN_MINUTES  # results do not depend on it
    devices: int | None = None  # per trial; results depend on it in their last bits; None: the study's setting
    artifacts: str | None = None  # URL of a folder for checkpoints, from `artifacts.folder_url`; None: the runs folder
    objects: bytes | None = None  # custom code that no other process can import, from `pack_objects`
    place: int = 0  # of the worker among those of its machine, which decides its cards
    trials_at_once: int = 1  # in a process of a worker; results do not depend on it
    trusted: frozenset[str] = frozenset()  # custom code that may run wherever it lies, from `trusted_names`

    def admit_code(self) -> None:
        """Let this process run the custom code that the driver of the study uses and trusts."""
        unpack_objects(self.objects)
        trust(self.trusted)

    def with_absolute_paths(self) -> "Job":
        """Return the same job with absolute paths, for a process that may start in another folder."""
        data_dir = None if self.data_dir is None else self.data_dir.absolute()
        return replace(self, runs=self.runs.absolute(), store_url=absolute(self.store_url), data_dir=data_dir)


@dataclass(frozen=True)
class Event:
    """Event of a trial: `progress` while it runs, then its final state."""

    kind: str  # "started", "moved", "progress", "restarted", "finished", "diverged", "failed", "stopped", "died"
    trial: str
    arm: str
    seed: SeedName
    owner: str
    fraction: float = 0.0  # of the trial's steps done
    text: str = ""

    @property
    def name(self) -> str:
        """The trial's name, such as `plain seed 0`."""
        return trial_name(self.arm, self.seed)

    def line(self) -> str:
        """Return the event as one line, such as `plain seed 0 failed: out of memory`."""
        return f"{self.name} {self.kind}: {self.text}" if self.text else f"{self.name} {self.kind}"


def trial_name(arm: str, seed: SeedName) -> str:
    """Return the name of a trial in progress displays and messages."""
    return f"{arm} {call_seed(seed)}"


Emit = Callable[[Event], None]

ReportProgress = Callable[[str, float, str], None]
"""Callback with the progress of one trial: the kind of event, the fraction of its steps done, and a message."""
