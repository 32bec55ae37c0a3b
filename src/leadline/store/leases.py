"""Who owns which trial: taking the next one, and refusing those whose lease is lost."""

from datetime import timedelta

from sqlalchemy import Connection, and_, delete, func, or_, select, update

from leadline.spec import canonical_json
from leadline.store.connect import now
from leadline.store.owner import Owner
from leadline.store.schema import measurements, records, study_trials, trials
from leadline.store.values import Claim, LeaseLost


def claim_next(connection: Connection, study_id: int, owner: str, lease_seconds: float) -> Claim | None:
    """Take the first trial, in the study's order, that waits or whose worker is gone; None: there is no such trial."""
    link, trial = study_trials.c, trials.c
    moment = now(connection)
    gone = or_(trial.lease_until < moment, trial.owner.in_(_dead_owners(connection)))
    row = connection.execute(
        select(trial.id, trial.hash, trial.spec, trial.checkpoint, trial.checkpoint_epoch, trial.attempts, link.arm)
        .join_from(study_trials, trials)
        .where(link.study_id == study_id, ~link.settled)
        .where(or_(trial.state == "waiting", and_(trial.state == "running", gone)))
        .order_by(link.position)
        .limit(1)
        .with_for_update(of=trials, skip_locked=True)
    ).first()
    if row is None:
        return None
    connection.execute(
        update(trials)
        .where(trial.id == row.id)
        .values(
            state="running",
            owner=owner,
            lease_until=moment + timedelta(seconds=lease_seconds),
            attempts=trial.attempts + 1,
            started=func.coalesce(trial.started, moment),
        )
    )
    # They are beyond the checkpoint: their epochs are trained again.
    for table in (records, measurements):
        connection.execute(delete(table).where(table.c.trial_id == row.id, table.c.epoch > row.checkpoint_epoch))
    spec = canonical_json(row.spec)
    return Claim(row.hash, row.arm, spec, row.checkpoint, row.checkpoint_epoch, row.attempts + 1)


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


def _dead_owners(connection: Connection) -> list[str]:
    """The owners of running trials that were processes of this machine and are no more."""
    names = connection.scalars(select(trials.c.owner).where(trials.c.owner.is_not(None)).distinct()).all()
    return [name for name in names if (owner := Owner.parse(name)) and owner.is_dead()]
