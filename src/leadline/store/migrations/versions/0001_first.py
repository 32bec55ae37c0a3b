"""The first schema: studies, trials, records, predictions."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "studies",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("spec", sa.JSON, nullable=False),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_studies"),
        sa.UniqueConstraint("name", name="uq_studies_name"),
    )
    op.create_table(
        "trials",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("spec", sa.JSON, nullable=False),
        sa.Column("seed", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("error", sa.Text),
        sa.Column("diverged_step", sa.Integer),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("owner", sa.String(255)),
        sa.Column("lease_until", sa.DateTime(timezone=True)),
        sa.Column("created", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started", sa.DateTime(timezone=True)),
        sa.Column("ended", sa.DateTime(timezone=True)),
        sa.Column("seconds", sa.Double),
        sa.Column("environment", sa.JSON),
        sa.Column("checkpoint", sa.String(255)),
        sa.Column("checkpoint_epoch", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_trials"),
        sa.UniqueConstraint("hash", name="uq_trials_hash"),
        sa.CheckConstraint(
            "state IN ('waiting', 'running', 'finished', 'diverged', 'failed')", name=op.f("ck_trials_state")
        ),
        sa.CheckConstraint(
            "(state = 'running') = (owner IS NOT NULL) AND (owner IS NULL) = (lease_until IS NULL)",
            name=op.f("ck_trials_owner"),
        ),
    )
    owned = sa.text("owner IS NOT NULL")
    op.create_index("ix_trials_owner", "trials", ["owner"], sqlite_where=owned, postgresql_where=owned)
    op.create_table(
        "study_trials",
        sa.Column("study_id", sa.Integer, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("trial_id", sa.Integer, nullable=False),
        sa.Column("arm", sa.String(255), nullable=False),
        sa.Column("base", sa.String(255), nullable=False),
        sa.Column("factors", sa.JSON, nullable=False),
        sa.Column("settled", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("study_id", "position", name="pk_study_trials"),
        sa.ForeignKeyConstraint(["study_id"], ["studies.id"], name="fk_study_trials_study_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["trial_id"], ["trials.id"], name="fk_study_trials_trial_id"),
    )
    op.create_index("ix_study_trials_trial_id", "study_trials", ["trial_id"])
    op.create_index(
        "ix_study_trials_unsettled",
        "study_trials",
        ["study_id", "position"],
        sqlite_where=sa.text("settled = 0"),
        postgresql_where=sa.text("NOT settled"),
    )
    op.create_table(
        "series",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("split", sa.String(64), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_series"),
        sa.UniqueConstraint("split", "name", name="uq_series_split"),
    )
    op.create_table(
        "records",
        sa.Column("trial_id", sa.Integer, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("series_id", sa.Integer, nullable=False),
        sa.Column("value", sa.Double),
        sa.PrimaryKeyConstraint("trial_id", "epoch", "step", "series_id", name="pk_records"),
        sa.ForeignKeyConstraint(["trial_id"], ["trials.id"], name="fk_records_trial_id", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["series_id"], ["series.id"], name="fk_records_series_id"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "predictions",
        sa.Column("trial_id", sa.Integer, nullable=False),
        sa.Column("predicted", sa.LargeBinary, nullable=False),
        sa.Column("labels", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("trial_id", name="pk_predictions"),
        sa.ForeignKeyConstraint(["trial_id"], ["trials.id"], name="fk_predictions_trial_id", ondelete="CASCADE"),
    )


def downgrade() -> None:
    for table in ("predictions", "records", "series", "study_trials", "trials", "studies"):
        op.drop_table(table)
