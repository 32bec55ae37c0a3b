"""Move what a run has determined about a study from the specification to a column of its own.

A hyperparameter search used to have its own specification with the settings tried; it now has that of its study.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

SEARCH, TITLE = ".tuning", "Tuning of "


def upgrade() -> None:
    op.add_column("studies", sa.Column("resolved", sa.JSON, nullable=False, server_default="{}"))
    columns = (sa.column("id", sa.Integer), sa.column("hash", sa.String), sa.column("spec", sa.JSON))
    studies = sa.table("studies", *columns, sa.column("resolved", sa.JSON))
    links = sa.table("study_trials", sa.column("study_id", sa.Integer), sa.column("arm", sa.String))
    connection = op.get_bind()
    for row in connection.execute(sa.select(studies.c.id, studies.c.spec)).all():
        arms = connection.scalars(sa.select(links.c.arm).where(links.c.study_id == row.id))
        resolved = _extract_resolved(row.spec, Counter(arms))
        values = {"spec": row.spec, "resolved": resolved, "hash": _hash(row.spec)}
        connection.execute(sa.update(studies).where(studies.c.id == row.id).values(values))


def _extract_resolved(spec: dict[str, Any], drawn: Mapping[str, int]) -> dict[str, Any]:
    """Remove from a specification what a run wrote into it, and return that."""
    tune, decide = spec.get("tune") or {}, spec.get("decide") or {}
    found = {"matched": spec.pop("matched", None), "chosen": tune.pop("chosen", None)}
    if (tried := tune.pop("tried", None)) is not None:
        found["search"] = {"seeds": spec["seeds"], "tried": tried}
        spec["name"] = spec["name"].removesuffix(SEARCH)
        spec["title"] = spec["title"].removeprefix(TITLE)
    if decide.get("planned") is not None:
        found |= {"planned": decide["planned"], "drawn": dict(drawn)}
        decide["planned"] = None
    return {name: value for name, value in found.items() if value is not None}


def _hash(spec: dict[str, Any]) -> str:
    content = {"schema": 1, "kind": "StudySpec", "content": spec}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def downgrade() -> None:
    op.drop_column("studies", "resolved")
