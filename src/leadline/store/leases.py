"""Who owns which trial: taking the next one, and refusing those whose lease is lost."""

from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, Connection, and_, delete, func, or_, select, update

from leadline.spec import canonical_json
from leadline.store.connect import now
from leadline.store.owner import Owner
from leadline.store.schema import measurements, records, study_trials, trials
from leadline.store.values import Claim, LeaseLost

ENDED = datetime(1970, 1, 1, tzinfo=UTC)
"""When a lease ran out that was ended by hand."""


def claim_next(
    connection: Connection, study_id: int, owner: str, lease_seconds: float, again: bool = False
) -> Claim | None:
    """Take the first trial, in the study's order, that waits or whose worker is gone; None: there is no such trial.

    Asked `again`, because no answer came, it first gives the trial that the unheard answer may have given.
    """
    link, trial = study_trials.c, trials.c
    moment = now(connection)
    free = takeable(connection, owner, moment)
    row = connection.execute(
        select(
            *(trial.id, trial.hash, trial.spec, trial.checkpoint, trial.checkpoint_epoch, trial.attempts),
            *(trial.earlier_checkpoint, trial.earlier_epoch, trial.owner, trial.started, link.arm),
        )
        .join_from(study_trials, trials)
        .where(link.study_id == study_id, ~link.settled)
        .where(or_(free, trial.owner == owner) if again else free)
        .order_by(*([trial.owner.is_distinct_from(owner)] if again else []), link.position)
        .limit(1)
        .with_for_update(of=trials, skip_locked=True)
    ).first()
    if row is None:
        return None
    attempts: int = row.attempts + (not (again and row.owner == owner))
    connection.execute(
        update(trials)
        .where(trial.id == row.id)
        .values(
            state="running",
            owner=owner,
            lease_until=moment + timedelta(seconds=lease_seconds),
            attempts=attempts,
            started=func.coalesce(trial.started, moment),
        )
    )
    if row.started is not None:  # else nothing has been measured yet
        forget_beyond(connection, row.id, row.checkpoint_epoch)
    spec = canonical_json(row.spec)
    last, earlier = (row.checkpoint, row.checkpoint_epoch), (row.earlier_checkpoint, row.earlier_epoch or 0)
    return Claim(row.hash, row.arm, spec, *last, attempts, *earlier)


def takeable(connection: Connection, owner: str, moment: datetime) -> ColumnElement[bool]:
    """Return the condition on a trial that this owner may take it now: it waits, or its worker is gone.

    A worker of this machine is gone when its process is dead, and not before: its lease runs out as well where the
    machine sleeps or its clock is set. One of elsewhere is gone when its lease has run out, and any whose lease was
    ended.
    """
    trial = trials.c
    names = connection.scalars(select(trial.owner).where(trial.owner.is_not(None)).distinct()).all()
    here = [(name, parsed) for name in names if name != owner and (parsed := Owner.parse(name)) and parsed.is_here()]
    dead = [name for name, parsed in here if parsed.is_dead()]
    alive = [name for name, parsed in here if name not in dead]
    expired = or_(trial.lease_until <= ENDED, and_(trial.lease_until < moment, trial.owner.not_in(alive)))
    gone = or_(trial.owner.in_(dead), expired)
    return or_(trial.state == "waiting", and_(trial.state == "running", gone))


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
        raise LeaseLost(f"trial {trial[:12]}: lease lost: it is no longer {owner}'s; leave it to its new owner")
    return found
