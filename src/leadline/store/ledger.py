"""The store: registers studies, leases trials to workers and commits measurements epoch by epoch."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, and_, select, update

from leadline.parts.metrics.record import Record
from leadline.store.connect import now, retry_while_unreachable, transaction
from leadline.store.leases import ENDED, Around, claim_next, owned
from leadline.store.lookup import study_id
from leadline.store.measured import number_series, pack_pair, put_measurements, put_predictions, put_records
from leadline.store.progress import advance, fall_back, settle
from leadline.store.reading import Reader, patient
from leadline.store.register import plan, register
from leadline.store.schema import Settled, study_trials, trials
from leadline.store.values import Claim, storable

if TYPE_CHECKING:
    import numpy as np

    from leadline.study.expand import ExpandedStudy


class Store(Reader):
    """A database of studies, trials and measurements, together with a folder of checkpoints.

    Every method is one transaction and may raise StoreError: the database is unreachable, locked, full or damaged. Many
    processes may share one database; each opens its own Store, which pickling one for another process does.
    """

    def __init__(self, url: str | None, folder: Path, patience: float = 0.0) -> None:
        """Refer to a store without opening it; see `open`."""
        super().__init__(url, folder, patience)
        self._series: dict[tuple[str, str], int] = {}

    def _writing(self) -> AbstractContextManager[Connection]:
        return transaction(self._engine, write=True)

    # --- entering and taking trials

    @patient
    def register(self, study: "ExpandedStudy") -> None:
        """Register a study and its trials; existing trials keep their results.

        A study of the same name gets the new specification and trials. No trial loses a result: those that no study
        names any more are kept, and found again by a study that does.

        Raises:
            SpecError: its trials hang on what no run has found yet: what `match`, `tune` or `decide` resolve to.
        """
        planned = plan(study)
        with self._writing() as connection:
            register(connection, study, planned)

    def claim(
        self, study: str, owner: str, lease_seconds: float, unless: Callable[[], bool] = lambda: False
    ) -> Claim | None:
        """Take the next trial of a study: in its order, the first that waits or whose worker is gone; None: no such.

        A worker is gone when it was a process of this machine that is dead, or one of elsewhere whose lease has run
        out. Records beyond the trial's last checkpoint are dropped, for its epochs are trained again.

        Args:
            study: the study's name.
            owner: who takes it, `str(WorkerId.current())`.
            lease_seconds: how long it stays the owner's without a heartbeat.
            unless: function that says whether to stop retrying an unreachable database.

        Raises:
            StoreError: there is no such study.
        """

        def body(again: bool) -> Claim | None:
            with self._writing() as connection:
                return claim_next(connection, study, owner, lease_seconds, again)

        return retry_while_unreachable(body, self.patience, unless)

    @patient
    def is_claimable(self, study: str, owner: str) -> bool:
        """Whether `claim` would give this owner a trial now.

        Raises:
            StoreError: there is no such study.
        """
        with self._reading() as connection:
            link, around = study_trials.c, Around.look(connection, study)
            open_ = and_(link.study_id == around.study_id, ~link.settled, around.takeable(owner))
            return (
                connection.scalar(select(link.position).join_from(study_trials, trials).where(open_).limit(1))
                is not None
            )

    def heartbeat(self, trial: str, owner: str, lease_seconds: float) -> bool:
        """Renew a lease for `seconds` from now; return False if the trial is no longer the owner's.

        Below 0, the lease is ended: the trial may be taken even if its process seems to live.
        """
        with self._writing() as connection:
            mine = and_(trials.c.hash == trial, trials.c.owner == owner)
            if connection.scalar(select(trials.c.id).where(mine).with_for_update()) is None:
                return False
            # from now on, however long the row was locked
            until = now(connection) + timedelta(seconds=lease_seconds) if lease_seconds >= 0 else ENDED
            connection.execute(update(trials).where(mine).values(lease_until=until))
            return True

    def release(self, trial: str, owner: str) -> bool:
        """Release an unfinished trial; return False and change nothing if it was lost or has ended.

        It waits again and keeps its checkpoint. The attempt that ends so counts for none.
        """
        with self._writing() as connection:
            given_back = (
                update(trials)
                .where(trials.c.hash == trial, trials.c.owner == owner)
                .values(state="waiting", owner=None, lease_until=None, attempts=trials.c.attempts - 1)
            )
            return connection.execute(given_back).rowcount == 1

    @patient
    def requeue_failed(self, study: str) -> int:
        """Queue the failed trials of a study again, from their last checkpoints; return their number."""
        with self._writing() as connection:
            ours = select(study_trials.c.trial_id).where(study_trials.c.study_id == study_id(connection, study))
            failed = and_(trials.c.state == "failed", trials.c.id.in_(ours))
            # trials are locked before links, as everywhere: a study that is being entered links them by their states
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

    @patient
    def set_environment(self, trial: str, owner: str, environment: Mapping[str, Any]) -> None:
        """Store a trial's environment: versions, processor, commit; anything that JSON can represent.

        Raises:
            LeaseLost: the trial is no longer the owner's.
        """
        with self._writing() as connection:
            id_ = owned(connection, trial, owner)
            connection.execute(update(trials).where(trials.c.id == id_).values(environment=dict(environment)))

    @patient
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

        The checkpoint before stays known as the earlier one, on which `fall_back` falls back. With a new checkpoint
        the trial has got on, so the starts that are counted as its attempts are counted from this one again.

        Args:
            trial: its hash.
            owner: who ran it.
            records: what was measured; a record that is there already gets the new value.
            checkpoint: name of the file, inside the checkpoints folder, that holds the state after this epoch or
                somewhere in the next, and is on disk by now; None: none was made, so the one before stays the place to
                go on from.
            epoch: whole epochs done.
            seconds: wall time since the last commit.
            measurements: what each probe saw in this epoch, by its name.

        Raises:
            LeaseLost: the trial is no longer the owner's; nothing was kept.
        """
        ids = self._series_ids(records)
        with self._writing() as connection:
            id_ = owned(connection, trial, owner)
            put_records(connection, id_, records, ids)
            put_measurements(connection, id_, epoch, measurements)
            advance(connection, id_, checkpoint, epoch, seconds)

    @patient
    def fall_back(self, trial: str, owner: str, damaged: str, note: str) -> None:
        """Go on from the checkpoint before a damaged one, or from the start where there is none; say so in a note.

        What was measured after the earlier checkpoint is dropped. Nothing happens if the last is another by now.

        Args:
            trial: its hash.
            owner: who runs it.
            damaged: name of the last checkpoint.
            note: one line, that is added to the trial's note.

        Raises:
            LeaseLost: the trial is no longer the owner's.
        """
        with self._writing() as connection:
            fall_back(connection, owned(connection, trial, owner), damaged, storable(note))

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
            owner: who ran it.
            state: finished, diverged or failed.
            error: why it failed.
            diverged_step: the optimizer step whose loss was not finite.
            records: what was measured since the last commit.
            predictions: of the test images, predicted and true, whole numbers [n] each.
            measurements: what else was measured at its end, by name, with the epoch.

        Raises:
            LeaseLost: the trial is no longer the owner's; nothing was kept.
            ValueError: the predictions are not two rows of one length that fit int16.
        """
        packed = None if predictions is None else pack_pair(*predictions)
        said = None if error is None else storable(error)
        values = {"state": state, "error": said, "diverged_step": diverged_step}

        def body(again: bool) -> None:
            ids = self._series_ids(records)
            with self._writing() as connection:
                if again and connection.scalar(select(trials.c.state).where(trials.c.hash == trial)) == state:
                    return  # an earlier call was kept, and only its answer got lost
                id_ = owned(connection, trial, owner)
                put_records(connection, id_, records, ids)
                settle(connection, id_, values)
                put_measurements(connection, id_, *measurements)
                if packed is not None:
                    put_predictions(connection, id_, packed)

        retry_while_unreachable(body, self.patience)

    def _series_ids(self, records: Sequence[Record]) -> Mapping[tuple[str, str], int]:
        # In a transaction of their own, remembered after it: a number that is kept here is never rolled back.
        missing = {(record.split, record.name) for record in records} - self._series.keys()
        if missing:
            with self._writing() as connection:
                numbers = number_series(connection, missing)
            self._series |= numbers
        return self._series
