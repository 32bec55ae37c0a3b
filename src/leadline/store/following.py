"""A store that is read again and again while others write to it: where trials are, and what they have measured."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar, final

from sqlalchemy import Connection, select

from leadline.seeds import SeedName, divide_levels
from leadline.store.connect import address, now
from leadline.store.lookup import no_study
from leadline.store.read_only import open_to_follow
from leadline.store.reading import Reader, with_retries
from leadline.store.schema import TrialState, measurements, records, series, studies, study_trials, trials
from leadline.store.values import StudyRecord, require_mapping

AT_ONCE = 500
"""Trials of one query; databases limit the number of parameters."""

T = TypeVar("T")


@dataclass(frozen=True)
class Link:
    """A trial in a study; none of it changes."""

    id: int  # in this database
    trial: str  # hash
    arm: str
    base: str
    factors: Mapping[str, Any] = field(hash=False)
    seed: SeedName


class Progress(NamedTuple):
    """How far a trial is."""

    state: TrialState
    epoch: int  # complete epochs that are stored
    seconds: float | None  # training wall time until the last commit
    owner: str | None
    lease_until: datetime | None


@dataclass(frozen=True)
class Followed:
    """A study at one moment."""

    record: StudyRecord
    links: tuple[Link, ...]  # in the study's order
    progress: tuple[Progress, ...]  # of the same trials
    moment: datetime  # by the clock that leases are measured with


class Detail(NamedTuple):
    """What is stored of a trial besides its progress."""

    error: str | None
    diverged_step: int | None
    note: str | None
    environment: Mapping[str, Any] | None


class Lease(NamedTuple):
    """A worker's hold on a trial."""

    owner: str
    until: datetime


@final
class Follower(Reader):
    """Read access to a store that others write to; each method is one transaction, and nothing is ever written."""

    @classmethod
    def follow(cls, runs: Path, url: str | None = None) -> Self:
        """Open an existing store to follow what others write to it; arguments as of `open`.

        Nothing is created, written or migrated. A database that is removed later is an error of the next call, and one
        that appears in its place is read.

        Raises:
            StoreError: the store does not exist, cannot be read, or has the schema of another version of Leadline.
        """
        store = cls(url, Path(runs))
        store.close()
        store._engine = open_to_follow(address(url, store.folder))
        return store

    @with_retries
    def leases(self) -> tuple[list[Lease], datetime]:
        """Return the leases of all running trials, and the time that they are measured with."""
        with self._reading() as connection:
            held = select(trials.c.owner, trials.c.lease_until).where(trials.c.owner.is_not(None))
            return [Lease(*row) for row in connection.execute(held)], now(connection)

    @with_retries
    def progress(self, study: str, before: Followed | None = None) -> Followed:
        """Return where a study's trials are.

        Args:
            study: its name.
            before: what an earlier call returned; what has not changed is not read again.

        Raises:
            StoreError: there is no such study.
        """
        with self._reading() as connection:
            row = connection.execute(select(studies).where(studies.c.name == study)).first()
            if row is None:
                raise no_study(connection, study)
            spec, resolved = (require_mapping(one, f"study {study}") for one in (row.spec, row.resolved))
            record = StudyRecord(row.name, spec, resolved, row.hash, row.created)
            trial = trials.c
            found = connection.execute(
                select(trial.id, trial.state, trial.checkpoint_epoch, trial.seconds, trial.owner, trial.lease_until)
                .join_from(study_trials, trials)
                .where(study_trials.c.study_id == row.id)
                .order_by(study_trials.c.position)
            ).all()
            links = () if before is None or before.record != record else before.links
            if [link.id for link in links] != [one.id for one in found]:
                links = _read_links(connection, row.id)
            return Followed(record, links, tuple(Progress(*one[1:]) for one in found), now(connection))

    @with_retries
    def details(self, ids: Sequence[int]) -> dict[int, Detail]:
        """Return trial -> what is stored of it besides its progress; trials as `Link.id` has them."""
        trial = trials.c
        with self._reading() as connection:
            return {
                row.id: Detail(*row[1:])
                for some in _divide(ids)
                for row in connection.execute(
                    select(trial.id, trial.error, trial.diverged_step, trial.note, trial.environment).where(
                        trial.id.in_(some)
                    )
                )
            }

    @with_retries
    def values(self, ids: Sequence[int], wanted: Sequence[tuple[str, str]]) -> dict[int, list[tuple[int, int, float]]]:
        """Return trial -> [(place of a series in `wanted`, epoch, value)]; trials as `Link.id` has them.

        Args:
            ids: of the trials.
            wanted: split and name of each series.
        """
        found: dict[int, list[tuple[int, int, float]]] = {}
        record = records.c
        with self._reading() as connection:
            known = connection.execute(select(series.c.id, series.c.split, series.c.name))
            places = {row.id: wanted.index(key) for row in known if (key := (row.split, row.name)) in wanted}
            for some in _divide(ids):
                chosen = record.trial_id.in_(some), record.series_id.in_(places)
                rows = connection.execute(
                    select(record.trial_id, record.series_id, record.epoch, record.value).where(*chosen)
                )
                for trial, number, epoch, value in rows:
                    found.setdefault(trial, []).append((places[number], epoch, value))
        return found

    @with_retries
    def records(self, ids: Sequence[int]) -> dict[int, list[tuple[int, str, str, float]]]:
        """Return trial -> [(epoch, split, name, value)] by epoch, step and series; trials as `Link.id` has them."""
        found: dict[int, list[tuple[int, str, str, float]]] = {}
        record = records.c
        with self._reading() as connection:
            for some in _divide(ids):
                query = (
                    select(record.trial_id, record.epoch, series.c.split, series.c.name, record.value)
                    .join_from(records, series)
                    .where(record.trial_id.in_(some))
                    .order_by(record.trial_id, record.epoch, record.step, series.c.split, series.c.name)
                )
                for trial, *row in connection.execute(query):
                    found.setdefault(trial, []).append(tuple(row))
        return found

    @with_retries
    def specs(self, ids: Sequence[int]) -> dict[int, dict[str, Any]]:
        """Return trial -> its specification as it was registered; trials as `Link.id` has them."""
        with self._reading() as connection:
            return {
                row.id: require_mapping(row.spec, f"the specification of trial {row.hash[:12]}")
                for some in _divide(ids)
                for row in connection.execute(
                    select(trials.c.id, trials.c.hash, trials.c.spec).where(trials.c.id.in_(some))
                )
            }

    @with_retries
    def measured_epochs(self, ids: Sequence[int], name: str) -> dict[int, list[int]]:
        """Return trial -> the epochs of which a probe's measurement is stored; trials as `Link.id` has them."""
        found: dict[int, list[int]] = {}
        kept = measurements.c
        with self._reading() as connection:
            for some in _divide(ids):
                chosen = kept.trial_id.in_(some), kept.name == name
                query = select(kept.trial_id, kept.epoch).where(*chosen).order_by(kept.trial_id, kept.epoch)
                for trial, epoch in connection.execute(query):
                    found.setdefault(trial, []).append(epoch)
        return found

    @with_retries
    def measured_at(self, places: Iterable[tuple[int, int]], name: str) -> dict[tuple[int, int], bytes]:
        """Return (trial, epoch) -> the packed measurement of a probe; trials as `Link.id` has them."""
        kept = measurements.c
        with self._reading() as connection:
            found = {
                (trial, epoch): connection.scalar(
                    select(kept.content).where(kept.trial_id == trial, kept.epoch == epoch, kept.name == name)
                )
                for trial, epoch in places
            }
        return {place: content for place, content in found.items() if content is not None}


def _read_links(connection: Connection, study_id: int) -> tuple[Link, ...]:
    link = study_trials.c
    rows = connection.execute(
        select(trials.c.id, trials.c.hash, link.arm, link.base, link.factors, trials.c.seed)
        .join_from(study_trials, trials)
        .where(link.study_id == study_id)
        .order_by(link.position)
    )
    return tuple(
        Link(id_, hash_, arm, base, *divide_levels(require_mapping(levels, f"the factors of trial {hash_[:12]}"), seed))
        for id_, hash_, arm, base, levels, seed in rows
    )


def _divide(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[start : start + AT_ONCE] for start in range(0, len(items), AT_ONCE))
