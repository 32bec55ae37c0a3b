"""Add the checkpoint before the last, to fall back on, and a note of incidents such as a damaged checkpoint."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("trials", sa.Column("earlier_checkpoint", sa.String(255)))
    op.add_column("trials", sa.Column("earlier_epoch", sa.Integer))
    op.add_column("trials", sa.Column("note", sa.Text))


def downgrade() -> None:
    for column in ("note", "earlier_epoch", "earlier_checkpoint"):
        op.drop_column("trials", column)
