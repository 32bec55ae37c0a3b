"""Frozen values and errors that the store returns and raises, independent of the database."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from leadline.errors import LeadlineError, SpecError, StoreError
from leadline.seeds import Seed, SeedName, name_seed
from leadline.specs import TrialSpec, parse
from leadline.specs.study import StudySpec
from leadline.store.schema import TrialState
from leadline.study.expand import ExpandedStudy, expand
from leadline.study.resolved import ResolvedStudy


class AlteredTrial(LeadlineError):
    """The specification of a trial in the ledger is not the one that its hash stands for."""


class LeaseLost(StoreError):
    """The worker no longer owns its trial: another worker has taken it over, and the results of this one are
    discarded."""


def verify_spec(trial: str, spec: Mapping[str, Any]) -> TrialSpec:
    """Return the specification of a trial in the ledger, after checking that it is the one that its hash stands for.

    Args:
        trial: the hash.
        spec: what the ledger has for it.

    Raises:
        AlteredTrial: it is invalid, or another one than was registered.
    """
    try:
        found = parse(TrialSpec, dict(spec))
    except SpecError as error:
        raise AlteredTrial(f"trial {trial[:12]}: its specification in the store cannot be read: {error}") from None
    if not found.had_hash(trial):
        raise AlteredTrial(
            f"trial {trial[:12]}: its specification in the store was changed after it was registered, so its results"
            f" are not what they seem; `leadline check` lists all such trials, and `leadline delete` removes a study"
        )
    return found


def require_mapping(value: object, what: str) -> dict[str, Any]:
    """Return a value that the ledger holds as JSON, after checking that it is a mapping.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(value, dict):
        raise TypeError(f"{what} is {value!r}, not a mapping")
    return value


def clean_text(text: str) -> str:
    """Return a text without null bytes and surrogates, which some databases reject."""
    return text.replace("\0", "").encode(errors="replace").decode()


@dataclass(frozen=True)
class Claim:
    """A trial that a worker owns, and where it resumes."""

    trial: str  # content hash of its specification
    arm: str
    seed: SeedName
    spec: str  # JSON of the TrialSpec, as the ledger has it; see `verify_spec`
    checkpoint: str | None  # file name inside the checkpoints folder; None: from the start
    epochs_done: int  # complete epochs in the checkpoint
    attempts: int  # claims since the last new checkpoint, including this one
    earlier_checkpoint: str | None = None  # the previous one, to fall back on
    earlier_epoch: int = 0  # complete epochs in it


@dataclass(frozen=True)
class HeldTrial:
    """A trial that a worker runs, or holds without running it."""

    arm: str
    seed: SeedName
    owner: str


@dataclass(frozen=True)
class StudyRecord:
    """A study as it was last registered."""

    name: str
    spec: Mapping[str, Any]
    resolved: Mapping[str, Any]  # what a run has determined
    hash: str
    created: datetime

    def expand(self) -> ExpandedStudy:
        """Return the expanded study, as far as it is resolved.

        Raises:
            SpecError: it was written by another version of Leadline and cannot be read by this one.
        """
        return expand(parse(StudySpec, self.spec), parse(ResolvedStudy, self.resolved))


@dataclass(frozen=True)
class StudySummary:
    """A study and its progress."""

    name: str
    title: str
    created: datetime
    counts: Mapping[TrialState, int]  # all five states


@dataclass(frozen=True)
class TrialRecord:
    """Everything about one trial except its records."""

    trial: str
    spec: Mapping[str, Any]
    seed: int
    state: TrialState
    error: str | None
    diverged_step: int | None
    attempts: int
    owner: str | None
    lease_until: datetime | None
    created: datetime
    started: datetime | None
    ended: datetime | None
    seconds: float | None  # training wall time over all attempts
    environment: Mapping[str, Any] | None
    checkpoint: str | None
    checkpoint_epoch: int
    earlier_checkpoint: str | None
    earlier_epoch: int | None
    note: str | None  # incidents such as a damaged checkpoint, one per line

    @property
    def seed_name(self) -> SeedName:
        """How tables and messages call the seed."""
        return stored_name(self.seed, self.spec)


def stored_name(number: int, spec: object) -> SeedName:
    """Return how tables and messages call a trial's seed, from what the ledger has of it, which may be damaged."""
    by_source = spec.get("seeds") if isinstance(spec, Mapping) else None
    return name_seed(Seed(number, by_source) if by_source and isinstance(by_source, Mapping) else number)
