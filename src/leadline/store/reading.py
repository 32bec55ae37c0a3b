"""Opening and reading a store."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

from sqlalchemy import Connection, Row, select

from leadline.errors import StoreError, absence
from leadline.parts.metrics import Outputs
from leadline.store import frames
from leadline.store.cleaning import StoredFiles, stored_files
from leadline.store.connect import (
    address,
    backup,
    check_database,
    display_address,
    engine_for,
    is_there,
    name_damage,
    one_line,
    prepare,
    retry_while_unreachable,
    transaction,
)
from leadline.store.lookup import all_states, arm_of, count_trials, find_trial, held_trials, study_id
from leadline.store.read_only import missing, open_to_read
from leadline.store.schema import TrialState, series, studies
from leadline.store.values import HeldTrial, StudyRecord, StudySummary, TrialRecord, require_mapping
from leadline.study.resolved import complete_title
from leadline.text import plural

if TYPE_CHECKING:
    import pandas as pd


AT_A_TIME = 64
"""Trials whose outputs are read at once, and then unpacked one by one."""

P = ParamSpec("P")
S = TypeVar("S", bound="Reader")
R = TypeVar("R")


def with_retries(method: "Callable[Concatenate[S, P], R]") -> "Callable[Concatenate[S, P], R]":
    """Retry a method for up to `patience` seconds while the database is unreachable; it must be safe to repeat."""

    @wraps(method)
    def call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return retry_while_unreachable(lambda again: method(self, *args, **kwargs), self.patience)

    return call


def _title(row: Any) -> str:
    spec = require_mapping(row.spec, "specification")
    return complete_title(spec["title"], spec["name"], "search" in row.resolved, row.resolved.get("changed", {}))


class Reader:
    """Read access to a store; each method is one transaction, but for outputs, which are read in parts."""

    def __init__(self, url: str | None, folder: Path, patience: float = 0.0) -> None:
        """Refer to a store without opening it; see `open`."""
        self.url = url
        self.folder = folder.absolute()
        self.patience = patience
        self._engine = engine_for(address(url, self.folder))

    @classmethod
    def open(cls, runs: Path, url: str | None = None, patience: float = 0.0) -> Self:
        """Open a store, creating or migrating it if needed; several processes may do so at once.

        Args:
            runs: the folder of checkpoints and of the default database, created if missing.
            url: a SQLite or PostgreSQL database; None: `leadline.db` in the runs folder.
            patience: maximum seconds to retry opening it, and every later call, while the database is unreachable or
                locked; `heartbeat` and `release` are not retried, because leases expire by themselves.

        Raises:
            StoreError: the folder cannot be written, the URL or driver is unknown, the file is not a database, or the
                database cannot be opened, belongs to another program or was made by a newer version of Leadline.
        """
        store = cls(url, Path(runs), patience)
        try:
            store.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if store.folder.is_file():
                raise StoreError(f"runs folder {store.folder}: {absence(store.folder, 'folder')}; change it") from None
            raise StoreError(
                f"runs folder {store.folder}: cannot be written: {error.strerror or one_line(error)}; choose another"
                f" folder with --runs"
            ) from None
        try:
            retry_while_unreachable(lambda again: prepare(store._engine), patience)
        except StoreError:
            store.close()
            raise
        return store

    @classmethod
    def open_existing(cls, runs: Path, url: str | None = None) -> Self:
        """Open an existing store to read it; arguments and errors as in `open`.

        Nothing is created or written. A SQLite database with the schema of an older version is migrated in memory, a
        PostgreSQL database in its place.

        Raises:
            StoreError: the store does not exist.
        """
        store = cls(url, Path(runs))
        try:
            if not is_there(store._engine):
                raise missing(store._engine.url)
            if store._engine.dialect.name == "sqlite":
                store._engine = open_to_read(store._engine.url)
            else:
                prepare(store._engine)
        except StoreError:
            store.close()
            raise
        return store

    @classmethod
    def exists(cls, runs: Path, url: str | None = None) -> bool:
        """Return whether there is a store; arguments as in `open`.

        Raises:
            StoreError: the URL or driver is unknown, or the database cannot be reached.
        """
        store = cls(url, Path(runs))
        try:
            return is_there(store._engine)
        finally:
            store.close()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self).open, (self.folder, self.url, self.patience)

    def __repr__(self) -> str:
        return f"Store({display_address(self._engine.url)!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections; a later call opens new ones."""
        self._engine.dispose()

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.folder / "checkpoints"

    def _reading(self) -> AbstractContextManager[Connection]:
        return transaction(self._engine)

    @with_retries
    def study(self, name: str) -> StudyRecord:
        """Return a study as it was last registered.

        Raises:
            StoreError: there is no such study; the message suggests the closest name.
        """
        with self._reading() as connection:
            row = connection.execute(select(studies).where(studies.c.id == study_id(connection, name))).one()
            spec, resolved = (require_mapping(one, f"study {name}") for one in (row.spec, row.resolved))
            return StudyRecord(row.name, spec, resolved, row.hash, row.created)

    @with_retries
    def studies(self) -> list[StudySummary]:
        """Return every study, oldest first, with the number of its trials in each state."""
        with self._reading() as connection:
            rows = connection.execute(select(studies).order_by(studies.c.created, studies.c.id)).all()
            counts = count_trials(connection, None)
            return [StudySummary(row.name, _title(row), row.created, all_states(counts.get(row.id))) for row in rows]

    @with_retries
    def counts(self, study: str) -> dict[TrialState, int]:
        """Return the number of a study's trials in each of the five states.

        Raises:
            StoreError: there is no such study.
        """
        with self._reading() as connection:
            id_ = study_id(connection, study)
            return all_states(count_trials(connection, id_).get(id_))

    @with_retries
    def held(self, study: str) -> list[HeldTrial]:
        """Return the trials of a study that are running, in the order of the study.

        Raises:
            StoreError: there is no such study.
        """
        with self._reading() as connection:
            return held_trials(connection, study_id(connection, study))

    @with_retries
    def trial(self, name: str) -> TrialRecord:
        """Return a trial.

        Args:
            name: the beginning of its hash, or STUDY/ARM/SEED, such as `demo/residual[blocks=10]/0`.

        Raises:
            StoreError: there is none, or more than one.
        """
        with self._reading() as connection:
            return find_trial(connection, name)

    @with_retries
    def files(self) -> list[StoredFiles]:
        """Return the checkpoints that the ledger names, of every trial, and the studies that contain it."""
        with self._reading() as connection:
            return stored_files(connection)

    @with_retries
    def check_database(self) -> list[str]:
        """Return what a SQLite database finds wrong with itself, one line each; a PostgreSQL server guards its own."""
        with self._reading() as connection:
            return check_database(connection)

    @with_retries
    def has_results(self, trial: str) -> bool:
        """Return whether a trial has records and readable outputs of its final network.

        Args:
            trial: its full hash.

        Raises:
            StoreError: the outputs are damaged.
        """
        with self._reading() as connection:
            return frames.has_results(connection, trial)

    @with_retries
    def best_epoch(self, trial: str) -> int | None:
        """Return the epoch whose network a trial was tested with, where early stopping has chosen it.

        Args:
            trial: its full hash.
        """
        with self._reading() as connection:
            return frames.best_epoch(connection, trial)

    def backup(self, path: Path) -> None:
        """Write a consistent copy of a SQLite database into a new file, while others go on using it.

        Raises:
            StoreError: the store is another database, the file exists, or it cannot be written.
        """
        backup(self._engine, path)

    @with_retries
    def arm_of(self, trial: str) -> tuple[str, str] | None:
        """Return the arm of a trial in the newest study that contains it, with and without its levels, or None.

        Args:
            trial: its full hash.
        """
        with self._reading() as connection:
            return arm_of(connection, trial)

    @with_retries
    def trials_frame(self, study: str, columns: Sequence[str] = frames.TRIALS) -> "pd.DataFrame":
        """Return one row per trial, in the order of the study.

        Columns: trial (hash), arm, base, factors (dict), seed, state, error (text or None), diverged_step (Int64),
        created (UTC), started, ended (UTC or NaT), seconds (training wall time over all attempts, or NaN), environment
        (dict or None; trials that ran in the same one have the same object), note (text or None).

        Args:
            study: its name.
            columns: those to return.

        Raises:
            StoreError: there is no such study.
        """
        with self._reading() as connection:
            return frames.trials_frame(connection, study_id(connection, study), columns)

    @with_retries
    def records_frame(
        self,
        study: str,
        splits: Collection[str] | None = None,
        only: Collection[tuple[str, str]] | None = None,
        columns: Sequence[str] = frames.RECORDS,
        unfinished: bool = False,
    ) -> "pd.DataFrame":
        """Return the records of a study's trials, by position in the study, epoch, step, split and name.

        Columns: trial (hash), arm, base, seed, step (optimizer steps done), epoch (epochs done), split, name, value.

        Args:
            study: its name.
            splits: the splits to return; None: all.
            only: splits with names to return; None: all.
            columns: those to return.
            unfinished: whether to return only those of trials that have not finished.

        Raises:
            StoreError: there is no such study.
        """
        with self._reading() as connection:
            return frames.records_frame(connection, study_id(connection, study), splits, only, columns, unfinished)

    @with_retries
    def means_frame(self, study: str, splits: Collection[str]) -> "pd.DataFrame":
        """Return the records of a study's finished trials, summed up by the database.

        Columns: arm, base, split, name, epoch; mean, low, high (the least and the greatest) and seeds (the number) of
        the finite values; left_out (the number of values that are not finite).

        Args:
            study: its name.
            splits: the splits to return.

        Raises:
            StoreError: there is no such study.
        """
        with self._reading() as connection:
            return frames.means_frame(connection, study_id(connection, study), splits)

    @with_retries
    def series(self) -> set[tuple[str, str]]:
        """Return split and name of everything that trials of any study have recorded."""
        with self._reading() as connection:
            return {(row.split, row.name) for row in connection.execute(select(series.c.split, series.c.name))}

    def outputs(self, study: str, probabilities: bool = True) -> dict[str, Outputs]:
        """Return trial -> outputs of its network on the test images, for the trials that have stored them.

        Args:
            study: its name.
            probabilities: whether to read the class probabilities too, which take most of the memory.

        Raises:
            StoreError: there is no such study.
        """
        return dict(self.each_output(study, probabilities))

    def each_output(self, study: str, probabilities: bool = True) -> Iterator[tuple[str, Outputs]]:
        """Yield what `outputs` returns, trial by trial; nothing is read before the first is asked for.

        Args:
            study: its name.
            probabilities: whether to read the class probabilities too.

        Raises:
            StoreError: there is no such study, or outputs were deleted while they were read.
        """
        tested = self._tested(study)
        for start in range(0, len(tested), AT_A_TIME):
            asked = tested[start : start + AT_A_TIME]
            packed = self._packed_outputs(asked, probabilities)
            if len(packed) < len(asked):
                lost = plural(len(asked) - len(packed), "trial")
                raise StoreError(f"outputs of {lost} of study {study} were deleted while they were read; try again")
            with name_damage(self._engine):
                yield from frames.unpack_each(packed)

    @with_retries
    def _tested(self, study: str) -> list[int]:
        with self._reading() as connection:
            return frames.tested_trials(connection, study_id(connection, study))

    @with_retries
    def _packed_outputs(self, trials: Sequence[int], probabilities: bool) -> Sequence[Row[Any]]:
        with self._reading() as connection:
            return frames.packed_outputs(connection, trials, probabilities)

    @with_retries
    def measurements(self, study: str, name: str) -> dict[str, list[tuple[int, bytes]]]:
        """Return trial -> [(epoch, packed measurement)] of a probe, for the trials that have any.

        Raises:
            StoreError: there is no such study.
        """
        with self._reading() as connection:
            return frames.study_measurements(connection, study_id(connection, study), name)

    @with_retries
    def measurement(self, trial: str, name: str) -> bytes | None:
        """Return the last packed measurement of this name that a trial has stored, or None.

        Args:
            trial: its full hash.
            name: of a probe, or `input`.
        """
        with self._reading() as connection:
            return frames.trial_measurement(connection, trial, name)
