"""The store: registers studies, leases trials to workers and commits measurements epoch by epoch."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, and_, select, update

from leadline.parts.metrics.record import Record
from leadline.specs.study import SEARCH
from leadline.store import artifacts
from leadline.store.cleaning import delete_orphans, delete_study, find_strays
from leadline.store.connect import now, retry_while_unreachable, transaction
from leadline.store.leases import ENDED, ClaimContext, claim_next, find_owned
from leadline.store.lookup import study_id
from leadline.store.measured import number_series, pack_pair, put_measurements, put_predictions, put_records
from leadline.store.progress import add_note, advance, fall_back, settle
from leadline.store.reading import Reader, with_retries
from leadline.store.register import plan, register, rename
from leadline.store.schema import Settled, study_trials, trials
from leadline.store.values import Claim, clean_text

if TYPE_CHECKING:
    import numpy as np

    from leadline.study.expand import ExpandedStudy


class Store(Reader):
    """A database of studies, trials and measurements, together with a folder of checkpoints.

    Each method is one transaction and raises StoreError if the database is unreachable, locked, full or damaged. Many
    processes can share one database; each opens its own Store. A pickled Store is opened again when it is unpickled.
    """

    def __init__(self, url: str | None, folder: Path, patience: float = 0.0) -> None:
        """Refer to a store without opening it; see `open`."""
        super().__init__(url, folder, patience)
        self._series: dict[tuple[str, str], int] = {}

    def _writing(self) -> AbstractContextManager[Connection]:
        return transaction(self._engine, write=True)

    # --- registering and claiming trials

    @with_retries
    def register(self, study: "ExpandedStudy") -> None:
        """Register a study and its trials; existing trials keep their results.

        A study of the same name gets the new specification and trials. Results are never lost: trials that no study
        contains any more are kept and used again by any study that contains them.

        Raises:
            SpecError: `match`, `tune` or `decide` is not resolved yet.
        """
        planned = plan(study)
        with self._writing() as connection:
            register(connection, study, planned)

    @with_retries
    def rename_study(self, name: str, new: str) -> None:
        """Give a study another name; its trials, their results and those of its search stay with it.

        Raises:
            StoreError: there is no such study, or one of the new name.
            SpecError: the new name is not one that a study may have.
        """
        with self._writing() as connection:
            rename(connection, name, new)

    @with_retries
    def delete_study(self, name: str) -> None:
        """Delete a study and the study of its search; their trials and results stay in the store until `clean`.

        Raises:
            StoreError: there is no such study, or a worker is running its trials.
        """
        with self._writing() as connection:
            study_id(connection, name)
            for one in (name, name + SEARCH):
                delete_study(connection, one)

    @with_retries
    def clean(self, url: str | None = None) -> None:
        """Delete every trial that no study contains and no worker is running, and the files that no trial needs.

        Args:
            url: of a folder with copies of the checkpoints, from `artifacts.folder_url`.
        """
        with self._writing() as connection:
            orphans = delete_orphans(connection)
        for trial, names in orphans:
            for name in names:
                artifacts.remove(name, trial, self.checkpoints, url)
        for path in find_strays(self.checkpoints, self.files()):
            path.unlink(missing_ok=True)

    def claim(
        self, study: str, owner: str, lease_seconds: float, unless: Callable[[], bool] = lambda: False
    ) -> Claim | None:
        """Claim the first trial of a study, in its order, that is waiting or whose worker is lost; None if none is.

        A worker is lost if it was a process of this machine and is dead, or ran on another machine and its lease has
        expired. Records after the trial's last checkpoint are deleted, because its epochs are trained again.

        Args:
            study: the study's name.
            owner: the claiming worker, `str(WorkerId.current())`.
            lease_seconds: time after which the claim expires without a heartbeat.
            unless: function that returns whether to stop retrying an unreachable database.

        Raises:
            StoreError: there is no such study.
        """

        def body(again: bool) -> Claim | None:
            with self._writing() as connection:
                return claim_next(connection, study, owner, lease_seconds, again)

        return retry_while_unreachable(body, self.patience, unless)

    @with_retries
    def is_claimable(self, study: str, owner: str) -> bool:
        """Return whether `claim` would return a trial for this owner now.

        Raises:
            StoreError: there is no such study.
        """
        with self._reading() as connection:
            link, context = study_trials.c, ClaimContext.read(connection, study)
            open_ = and_(link.study_id == context.study_id, ~link.settled, context.claimable(owner))
            return (
                connection.scalar(select(link.position).join_from(study_trials, trials).where(open_).limit(1))
                is not None
            )

    def heartbeat(self, trial: str, owner: str, lease_seconds: float) -> bool:
        """Renew a lease for `lease_seconds` from now; return False if the owner has lost the trial.

        A negative value ends the lease: the trial can be claimed even if its process still seems to be alive.
        """
        with self._writing() as connection:
            mine = and_(trials.c.hash == trial, trials.c.owner == owner)
            if connection.scalar(select(trials.c.id).where(mine).with_for_update()) is None:
                return False
            # from now on, even if the row was locked for a while
            until = now(connection) + timedelta(seconds=lease_seconds) if lease_seconds >= 0 else ENDED
            connection.execute(update(trials).where(mine).values(lease_until=until))
            return True

    def release(self, trial: str, owner: str) -> bool:
        """Release an unfinished trial; return False and change nothing if it was lost or has ended.

        The trial is waiting again and keeps its checkpoint. The attempt is not counted.
        """
        with self._writing() as connection:
            statement = (
                update(trials)
                .where(trials.c.hash == trial, trials.c.owner == owner)
                .values(state="waiting", owner=None, lease_until=None, attempts=trials.c.attempts - 1)
            )
            return connection.execute(statement).rowcount == 1

    @with_retries
    def requeue_failed(self, study: str) -> int:
        """Queue the failed trials of a study again, from their last checkpoints; return their number."""
        with self._writing() as connection:
            ours = select(study_trials.c.trial_id).where(study_trials.c.study_id == study_id(connection, study))
            failed = and_(trials.c.state == "failed", trials.c.id.in_(ours))
            # lock trials before links, as everywhere: registering a study reads their states to write its links
            connection.execute(select(trials.c.id).where(failed).order_by(trials.c.hash).with_for_update()).all()
            connection.execute(
                update(study_trials)
                .where(study_trials.c.trial_id.in_(select(trials.c.id).where(failed)))
                .values(settled=False)
            )
            return connection.execute(
                update(trials).where(failed).values(state="waiting", error=None, ended=None, attempts=0)
            ).rowcount

    # --- what a worker reports

    @with_retries
    def set_environment(self, trial: str, owner: str, environment: Mapping[str, Any], note: str = "") -> None:
        """Store a trial's environment: versions, processor, commit; anything that JSON can represent.

        Args:
            trial: its hash.
            owner: the worker that runs it.
            environment: replaces what is stored.
            note: line to add to the trial's note; empty: none.

        Raises:
            LeaseLost: the owner has lost the trial.
        """
        with self._writing() as connection:
            id_ = find_owned(connection, trial, owner)
            connection.execute(update(trials).where(trials.c.id == id_).values(environment=dict(environment)))
            if note:
                add_note(connection, id_, clean_text(note))

    @with_retries
    def commit_epoch(
        self,
        trial: str,
        owner: str,
        records: Sequence[Record],
        checkpoint: str | None,
        epoch: int,
        seconds: float,
        measurements: Mapping[str, bytes] = MappingProxyType({}),
    ) -> None:
        """Commit an epoch, or a checkpoint within one, atomically.

        The previous checkpoint is kept as the earlier one for `fall_back`. A new checkpoint resets the number of
        attempts, because the trial has progressed.

        Args:
            trial: its hash.
            owner: the worker that runs it.
            records: what was measured; replaces existing records.
            checkpoint: name of a file, already in the checkpoints folder, with the state after this epoch or within the
                next one; None: no new checkpoint, the previous one remains the last.
            epoch: number of complete epochs.
            seconds: wall time since the last commit.
            measurements: probe measurements of this epoch, by name.

        Raises:
            LeaseLost: the owner has lost the trial; nothing was stored.
        """
        ids = self._series_ids(records)
        with self._writing() as connection:
            id_ = find_owned(connection, trial, owner)
            put_records(connection, id_, records, ids)
            put_measurements(connection, id_, epoch, measurements)
            advance(connection, id_, checkpoint, epoch, seconds)

    @with_retries
    def fall_back(self, trial: str, owner: str, damaged: str, note: str) -> None:
        """Go back to the checkpoint before a damaged one, or to the start if there is none, and add a note.

        Measurements after the earlier checkpoint are deleted. Nothing happens if `damaged` is no longer the last one.

        Args:
            trial: its hash.
            owner: the worker that runs it.
            damaged: name of the last checkpoint.
            note: line to add to the trial's note.

        Raises:
            LeaseLost: the owner has lost the trial.
        """
        with self._writing() as connection:
            fall_back(connection, find_owned(connection, trial, owner), damaged, clean_text(note))

    def finish(
        self,
        trial: str,
        owner: str,
        state: Settled,
        error: str | None = None,
        diverged_step: int | None = None,
        records: Sequence[Record] = (),
        predictions: "tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]] | None" = None,
        measurements: tuple[int, Mapping[str, bytes]] = (0, MappingProxyType({})),
    ) -> None:
        """End a trial: store its state, last records and predictions in one transaction, and end the lease.

        Args:
            trial: its hash.
            owner: the worker that ran it.
            state: finished, diverged or failed.
            error: why it failed.
            diverged_step: the optimizer step whose loss was not finite.
            records: what was measured since the last commit.
            predictions: predicted and true classes of the test images, integers [n] each.
            measurements: the epoch, and measurements of it by name.

        Raises:
            LeaseLost: the owner has lost the trial; nothing was stored.
            ValueError: the predictions are not two arrays of one length within int16.
        """
        packed = None if predictions is None else pack_pair(*predictions)
        said = None if error is None else clean_text(error)
        values = {"state": state, "error": said, "diverged_step": diverged_step}

        def body(again: bool) -> None:
            ids = self._series_ids(records)
            with self._writing() as connection:
                if again and connection.scalar(select(trials.c.state).where(trials.c.hash == trial)) == state:
                    return  # an earlier call succeeded, and only its response was lost
                id_ = find_owned(connection, trial, owner)
                put_records(connection, id_, records, ids)
                settle(connection, id_, values)
                put_measurements(connection, id_, *measurements)
                if packed is not None:
                    put_predictions(connection, id_, packed)

        retry_while_unreachable(body, self.patience)

    def _series_ids(self, records: Sequence[Record]) -> Mapping[tuple[str, str], int]:
        # In a separate transaction, so that an id cached here is never rolled back.
        missing = {(record.split, record.name) for record in records} - self._series.keys()
        if missing:
            with self._writing() as connection:
                numbers = number_series(connection, missing)
            self._series |= numbers
        return self._series
