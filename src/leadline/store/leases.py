"""Ownership of trials: claiming the next one, and rejecting owners whose lease is lost."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sqlalchemy import ColumnElement, Connection, and_, case, delete, func, or_, select, true, update

from leadline.specs import canonical_json
from leadline.store.connect import clock, now
from leadline.store.lookup import no_study
from leadline.store.schema import measurements, records, studies, study_trials, trials
from leadline.store.values import Claim, LeaseLost, stored_name
from leadline.store.worker_id import WorkerId

ENDED = datetime(1970, 1, 1, tzinfo=UTC)
"""Expiry of a lease that was ended explicitly."""


@dataclass(frozen=True)
class ClaimContext:
    """What a claim depends on: the study, the time and the current owners."""

    study_id: int
    moment: datetime
    owners: tuple[str, ...]  # of all running trials of any study

    @classmethod
    def read(cls, connection: Connection, study: str) -> "ClaimContext":
        """Read all of it in one query, which saves round trips over a network.

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

    @classmethod
    def anywhere(cls, connection: Connection) -> "ClaimContext":
        """Read what does not depend on a study; `study_id` is 0."""
        owners = connection.scalars(select(trials.c.owner).where(trials.c.owner.is_not(None)).distinct())
        return cls(0, now(connection), tuple(str(owner) for owner in owners))

    def claimable(self, owner: str) -> ColumnElement[bool]:
        """Return the SQL condition for trials that this owner can claim: waiting, or with a lost worker.

        A worker on this machine is lost only when its process is dead, because its lease also expires while the machine
        sleeps or if its clock is changed. A worker on another machine is lost when its lease has expired. Any worker is
        lost when its lease was ended explicitly.
        """
        trial = trials.c
        here = [(name, parsed) for name in self.owners if name != owner and (parsed := _parse_local(name))]
        dead = [name for name, parsed in here if parsed.is_dead()]
        alive = [name for name, parsed in here if name not in dead and parsed.is_certain]
        expired = or_(trial.lease_until <= ENDED, and_(trial.lease_until < self.moment, trial.owner.not_in(alive)))
        gone = or_(trial.owner.in_(dead), expired)
        return or_(trial.state == "waiting", and_(trial.state == "running", gone))


def _parse_local(name: str) -> WorkerId | None:
    parsed = WorkerId.parse(name)
    return parsed if parsed is not None and parsed.is_here() else None


def claim_next(
    connection: Connection, study: str, owner: str, lease_seconds: float, again: bool = False
) -> Claim | None:
    """Claim the first trial, in the study's order, that is waiting or whose worker is lost; None if there is none.

    With `again`, because the previous call got no response, prefer the trial that it may have claimed.

    Raises:
        StoreError: there is no such study.
    """
    link, trial = study_trials.c, trials.c
    context = ClaimContext.read(connection, study)
    free, own = context.claimable(owner), trial.owner == owner
    unsettled = and_(link.study_id == context.study_id, ~link.settled)
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
        *(trial.id, trial.hash, trial.seed, trial.spec, trial.checkpoint, trial.checkpoint_epoch, trial.attempts),
        *(trial.earlier_checkpoint, trial.earlier_epoch, trial.started, arm.scalar_subquery().label("arm")),
    )
    taking = update(trials).values(
        state="running",
        owner=owner,
        lease_until=context.moment + timedelta(seconds=lease_seconds),
        attempts=trial.attempts + (case((own, 0), else_=1) if again else 1),
        started=func.coalesce(trial.started, context.moment),
    )
    if connection.dialect.name == "sqlite":  # no round trips to save, and no RETURNING before 3.35
        id_ = connection.scalar(first)
        connection.execute(taking.where(trial.id == id_))
        row = connection.execute(select(*found).where(trial.id == id_)).first()
    else:
        row = connection.execute(taking.where(trial.id == first.scalar_subquery()).returning(*found)).first()
    if row is None:
        return None
    if row.started != context.moment:  # otherwise nothing has been measured yet
        drop_after(connection, row.id, row.checkpoint_epoch)
    spec = canonical_json(row.spec)
    last, earlier = (row.checkpoint, row.checkpoint_epoch), (row.earlier_checkpoint, row.earlier_epoch or 0)
    return Claim(row.hash, row.arm, stored_name(row.seed, row.spec), spec, *last, row.attempts, *earlier)


def drop_after(connection: Connection, trial_id: int, epoch: int) -> None:
    """Delete the records and measurements after an epoch, because the following epochs are trained again."""
    for table in (records, measurements):
        connection.execute(delete(table).where(table.c.trial_id == trial_id, table.c.epoch > epoch))


def find_owned(connection: Connection, trial: str, owner: str) -> int:
    """Return the id of a trial after checking its owner; the row stays locked until the transaction ends.

    Raises:
        LeaseLost: the trial belongs to another owner.
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
