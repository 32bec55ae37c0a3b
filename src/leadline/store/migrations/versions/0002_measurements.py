"""Add probe measurements by epoch, and remove the setting `gradient_norms`, which they replace, from specifications."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "measurements",
        sa.Column("trial_id", sa.Integer, nullable=False),
        sa.Column("epoch", sa.Integer, nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("content", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("trial_id", "epoch", "name", name="pk_measurements"),
        sa.ForeignKeyConstraint(["trial_id"], ["trials.id"], name="fk_measurements_trial_id", ondelete="CASCADE"),
    )
    connection = op.get_bind()
    for name in ("studies", "trials"):
        table = sa.table(name, sa.column("id", sa.Integer), sa.column("spec", sa.JSON))
        for row in connection.execute(sa.select(table.c.id, table.c.spec)).all():
            if row.spec.get("probes", {}).pop("gradient_norms", None) is not None:
                connection.execute(sa.update(table).where(table.c.id == row.id).values(spec=row.spec))


def downgrade() -> None:
    op.drop_table("measurements")
