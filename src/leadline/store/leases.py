"""Ownership of trials: claiming the next one, and rejecting owners whose lease is lost."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, Connection, and_, case, delete, func, or_, select, true, update

from leadline.specs import canonical_json
from leadline.store.connect import clock
from leadline.store.lookup import no_study
from leadline.store.schema import measurements, records, studies, study_trials, trials
from leadline.store.values import Claim, LeaseLost
from leadline.store.worker_id import WorkerId

ENDED = datetime(1970, 1, 1, tzinfo=UTC)
"""When a lease ran out that was ended by hand."""


@dataclass(frozen=True)
class Around:
    """What a claim must know first, from one look at the store."""

    study_id: int
    moment: datetime
    owners: tuple[str, ...]  # of all trials that run, in any study

    @classmethod
    def look(cls, connection: Connection, study: str) -> "Around":
        """Look a study, the time and the owners up in one query: over a network each would be a way there and back.

        Raises:
            StoreError: there is no such study.
        """
        held = select(trials.c.owner).where(trials.c.owner.is_not(None)).distinct().subquery()
        query = select(studies.c.id, clock(connection), held.c.owner).outerjoin_from(studies, held, true())
        rows = connection.execute(query.where(studies.c.name == study)).all()
        if not rows:
            raise no_study(connection, study)
        id_, moment, _ = rows[0]
        return cls(id_, moment, tuple(owner for _, _, owner in rows if owner is not None))

    def takeable(self, owner: str) -> ColumnElement[bool]:
        """Return the condition on a trial that this owner may take it now: it waits, or its worker is gone.

        A worker of this machine is gone when its process is dead, and not before: its lease runs out as well where the
        machine sleeps or its clock is set. One of elsewhere is gone when its lease has run out, and any whose lease was
        ended.
        """
        trial = trials.c
        here = [(name, parsed) for name in self.owners if name != owner and (parsed := _of_here(name))]
        dead = [name for name, parsed in here if parsed.is_dead()]
        alive = [name for name, parsed in here if name not in dead and parsed.is_certain]
        expired = or_(trial.lease_until <= ENDED, and_(trial.lease_until < self.moment, trial.owner.not_in(alive)))
        gone = or_(trial.owner.in_(dead), expired)
        return or_(trial.state == "waiting", and_(trial.state == "running", gone))


def _of_here(name: str) -> WorkerId | None:
    parsed = WorkerId.parse(name)
    return parsed if parsed is not None and parsed.is_here() else None


def claim_next(
    connection: Connection, study: str, owner: str, lease_seconds: float, again: bool = False
) -> Claim | None:
    """Take the first trial, in the study's order, that waits or whose worker is gone; None: there is no such trial.

    Asked `again`, because no answer came, it first gives the trial that the unheard answer may have given.

    Raises:
        StoreError: there is no such study.
    """
    link, trial = study_trials.c, trials.c
    around = Around.look(connection, study)
    free, own = around.takeable(owner), trial.owner == owner
    unsettled = and_(link.study_id == around.study_id, ~link.settled)
    first = (
        select(trial.id)
        .join_from(study_trials, trials)
        .where(unsettled, or_(free, own) if again else free)
        .order_by(*([trial.owner.is_distinct_from(owner)] if again else []), link.position)
        .limit(1)
        .with_for_update(of=trials, skip_locked=True)
    )
    arm = select(link.arm).where(unsettled, link.trial_id == trial.id).order_by(link.position).limit(1)
    found = (
        *(trial.id, trial.hash, trial.spec, trial.checkpoint, trial.checkpoint_epoch, trial.attempts),
        *(trial.earlier_checkpoint, trial.earlier_epoch, trial.started, arm.scalar_subquery().label("arm")),
    )
    taking = update(trials).values(
        state="running",
        owner=owner,
        lease_until=around.moment + timedelta(seconds=lease_seconds),
        attempts=trial.attempts + (case((own, 0), else_=1) if again else 1),
        started=func.coalesce(trial.started, around.moment),
    )
    if connection.dialect.name == "sqlite":  # no way there and back to spare, and no RETURNING before 3.35
        id_ = connection.scalar(first)
        connection.execute(taking.where(trial.id == id_))
        row = connection.execute(select(*found).where(trial.id == id_)).first()
    else:
        row = connection.execute(taking.where(trial.id == first.scalar_subquery()).returning(*found)).first()
    if row is None:
        return None
    if row.started != around.moment:  # else nothing has been measured yet
        forget_beyond(connection, row.id, row.checkpoint_epoch)
    spec = canonical_json(row.spec)
    last, earlier = (row.checkpoint, row.checkpoint_epoch), (row.earlier_checkpoint, row.earlier_epoch or 0)
    return Claim(row.hash, row.arm, spec, *last, row.attempts, *earlier)


def forget_beyond(connection: Connection, trial_id: int, epoch: int) -> None:
    """Drop what was measured after an epoch: the epochs that follow are trained again."""
    for table in (records, measurements):
        connection.execute(delete(table).where(table.c.trial_id == trial_id, table.c.epoch > epoch))


def owned(connection: Connection, trial: str, owner: str) -> int:
    """Return the id of a trial that is the owner's, and stays so until the transaction ends.

    Raises:
        LeaseLost: it is not.
    """
    found: int | None = connection.scalar(
        select(trials.c.id).where(trials.c.hash == trial, trials.c.owner == owner).with_for_update()
    )
    if found is None:
        raise LeaseLost(
            f"trial {trial[:12]}: lease lost: {owner} no longer owns it, so its result is discarded; the"
            f" new owner continues the trial"
        )
    return found
