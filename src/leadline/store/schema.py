"""The tables of the store, as after the newest migration.

A trial is identified by the content hash of its specification and belongs to every study that contains it. Inside the
database, trials and series (split, name) have integer ids, which keeps the many records small.
"""

import math
from datetime import UTC, datetime
from typing import Literal, get_args

from sqlalchemy import (
    JSON,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.types import TypeDecorator

Settled = Literal["finished", "diverged", "failed"]
SETTLED: tuple[Settled, ...] = get_args(Settled)
TrialState = Literal["waiting", "running", "finished", "diverged", "failed"]
STATES: tuple[TrialState, ...] = get_args(TrialState)

HEAD = "0004"
"""The newest revision in migrations/versions; a database at this revision is opened without importing Alembic."""

VERSION_TABLE = "leadline_version"


class Moment(TypeDecorator[datetime]):
    """A time in UTC, with its time zone also on databases that do not store one."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Convert a time to UTC."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Restore the time zone UTC if the database does not store it."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Measured(TypeDecorator[float]):
    """A float that may be NaN, stored as NULL because SQLite does not support NaN."""

    impl = Double()
    cache_ok = True

    def process_bind_param(self, value: float | None, dialect: Dialect) -> float | None:
        """Convert NaN to NULL."""
        return None if value is None or math.isnan(value) else float(value)

    def process_result_value(self, value: float | None, dialect: Dialect) -> float:
        """Convert NULL to NaN."""
        return math.nan if value is None else value


metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

studies = Table(
    "studies",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(255), nullable=False, unique=True),
    Column("hash", String(64), nullable=False),
    Column("spec", JSON, nullable=False),
    Column("resolved", JSON, nullable=False, server_default="{}"),
    Column("created", Moment, nullable=False),
)

trials = Table(
    "trials",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("hash", String(64), nullable=False, unique=True),
    Column("spec", JSON, nullable=False),
    Column("seed", Integer, nullable=False),
    Column("state", String(16), nullable=False),
    Column("error", Text),
    Column("diverged_step", Integer),
    Column("attempts", Integer, nullable=False),
    Column("owner", String(255)),
    Column("lease_until", Moment),
    Column("created", Moment, nullable=False),
    Column("started", Moment),
    Column("ended", Moment),
    Column("seconds", Double),
    Column("environment", JSON(none_as_null=True)),
    Column("checkpoint", String(255)),
    Column("checkpoint_epoch", Integer, nullable=False),
    Column("earlier_checkpoint", String(255)),  # kept until the next one is committed
    Column("earlier_epoch", Integer),
    Column("note", Text),
    CheckConstraint("state IN ('waiting', 'running', 'finished', 'diverged', 'failed')", name="state"),
    CheckConstraint(
        "(state = 'running') = (owner IS NOT NULL) AND (owner IS NULL) = (lease_until IS NULL)", name="owner"
    ),
)
Index(
    "ix_trials_owner",
    trials.c.owner,
    sqlite_where=trials.c.owner.is_not(None),
    postgresql_where=trials.c.owner.is_not(None),
)

study_trials = Table(
    "study_trials",
    metadata,
    Column("study_id", ForeignKey("studies.id", ondelete="CASCADE"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("trial_id", ForeignKey("trials.id"), nullable=False, index=True),
    Column("arm", String(255), nullable=False),
    Column("base", String(255), nullable=False),
    Column("factors", JSON, nullable=False),
    # Redundant with the trial's state; lets a claim skip trials that have ended.
    Column("settled", Boolean, nullable=False),
)
Index(
    "ix_study_trials_unsettled",
    study_trials.c.study_id,
    study_trials.c.position,
    sqlite_where=~study_trials.c.settled,
    postgresql_where=~study_trials.c.settled,
)

series = Table(
    "series",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("split", String(64), nullable=False),
    Column("name", String(255), nullable=False),
    UniqueConstraint("split", "name"),
)

records = Table(
    "records",
    metadata,
    Column("trial_id", ForeignKey("trials.id", ondelete="CASCADE"), primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column("step", Integer, primary_key=True),
    Column("series_id", ForeignKey("series.id"), primary_key=True),
    Column("value", Measured),
    sqlite_with_rowid=False,
)

predictions = Table(
    "predictions",
    metadata,
    Column("trial_id", ForeignKey("trials.id", ondelete="CASCADE"), primary_key=True),
    Column("predicted", LargeBinary, nullable=False),
    Column("labels", LargeBinary, nullable=False),
)

measurements = Table(
    "measurements",
    metadata,
    Column("trial_id", ForeignKey("trials.id", ondelete="CASCADE"), primary_key=True),
    Column("epoch", Integer, primary_key=True),
    Column("name", String(64), primary_key=True),
    Column("content", LargeBinary, nullable=False),
)
