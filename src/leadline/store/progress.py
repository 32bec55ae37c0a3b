"""Progress of a trial: its checkpoints, falling back to the earlier one, and its final state."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, case, func, null, select, update

from leadline.store.connect import now
from leadline.store.leases import drop_after
from leadline.store.schema import study_trials, trials


def advance(connection: Connection, trial_id: int, checkpoint: str | None, epoch: int, seconds: float) -> None:
    """Store a trial's new checkpoint, if any, and add the elapsed time; the last checkpoint becomes the earlier one."""
    trial = trials.c
    values: dict[str, Any] = {"seconds": func.coalesce(trial.seconds, 0.0) + seconds}
    if checkpoint is not None:
        # if it is stored already, an earlier call succeeded and only its response was lost
        known = trial.checkpoint == checkpoint
        before = (known, trial.earlier_epoch), (trial.checkpoint.is_(None), null())
        values = {
            "seconds": case((known, trial.seconds), else_=values["seconds"]),
            "checkpoint": checkpoint,
            "checkpoint_epoch": epoch,
            "earlier_checkpoint": case((known, trial.earlier_checkpoint), else_=trial.checkpoint),
            "earlier_epoch": case(*before, else_=trial.checkpoint_epoch),
            "attempts": 1,
        }
    connection.execute(update(trials).where(trial.id == trial_id).values(**values))


def fall_back(connection: Connection, trial_id: int, damaged: str, note: str) -> None:
    """Go back to the checkpoint before a damaged one; do nothing if the damaged one is no longer the last."""
    row = connection.execute(select(trials).where(trials.c.id == trial_id)).one()
    if row.checkpoint != damaged:
        return
    epoch = row.earlier_epoch or 0
    drop_after(connection, trial_id, epoch)
    values = {
        "checkpoint": row.earlier_checkpoint,
        "checkpoint_epoch": epoch,
        "earlier_checkpoint": None,
        "earlier_epoch": None,
    }
    connection.execute(update(trials).where(trials.c.id == trial_id).values(**values))
    add_note(connection, trial_id, note)


def add_note(connection: Connection, trial_id: int, note: str) -> None:
    """Add a line to a trial's note, unless it is the last one: the call may be a repetition."""
    before = connection.scalar(select(trials.c.note).where(trials.c.id == trial_id))
    if before is None or before.split("\n")[-1] != note:
        lines = note if before is None else f"{before}\n{note}"
        connection.execute(update(trials).where(trials.c.id == trial_id).values(note=lines))


def settle(connection: Connection, trial_id: int, values: Mapping[str, Any]) -> None:
    """Store the final state of a trial and end its lease."""
    given = {**values, "owner": None, "lease_until": None, "ended": now(connection)}
    connection.execute(update(trials).where(trials.c.id == trial_id).values(**given))
    connection.execute(update(study_trials).where(study_trials.c.trial_id == trial_id).values(settled=True))
