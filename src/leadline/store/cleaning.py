"""Removing studies, and trials that no study contains."""

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import ColumnElement, Connection, and_, delete, func, not_, or_, select

from leadline.errors import StoreError
from leadline.store.artifacts import MissingArtifact, file_name, local_copy
from leadline.store.leases import ClaimContext
from leadline.store.register import CHUNK
from leadline.store.schema import measurements, predictions, records, studies, study_trials, trials
from leadline.text import plural


@dataclass(frozen=True)
class StoredFiles:
    """The checkpoints that the ledger names for a trial."""

    trial: str
    state: str
    running: bool  # whether its worker may still be at work
    checkpoint: str | None
    earlier_checkpoint: str | None
    studies: tuple[str, ...]  # that contain it

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its files, as the ledger has them."""
        return tuple(name for name in (self.checkpoint, self.earlier_checkpoint) if name is not None)

    @property
    def is_orphan(self) -> bool:
        """Whether no study contains the trial and no worker runs it, so that `clean` removes it."""
        return not self.studies and not self.running

    def local_copies(self, folder: Path) -> list[Path]:
        """Return the files that exist in a folder of checkpoints."""
        paths = []
        for name in self.names:
            with contextlib.suppress(MissingArtifact):
                paths.append(local_copy(name, self.trial, folder))
        return [path for path in paths if path.is_file()]


def stored_files(connection: Connection) -> list[StoredFiles]:
    """Return the files of every trial, by its hash."""
    held = connection.scalars(select(trials.c.id).where(_is_held(connection))).all()
    inside: dict[int, list[str]] = {}
    links = select(study_trials.c.trial_id, studies.c.name).join_from(study_trials, studies).order_by(studies.c.name)
    for trial, name in connection.execute(links.distinct()):
        inside.setdefault(trial, []).append(name)
    one = trials.c
    rows = connection.execute(
        select(one.id, one.hash, one.state, one.checkpoint, one.earlier_checkpoint).order_by(one.hash)
    )
    return [
        StoredFiles(hash_, state, id_ in held, checkpoint, earlier, tuple(inside.get(id_, ())))
        for id_, hash_, state, checkpoint, earlier in rows
    ]


def find_strays(folder: Path, files: Sequence[StoredFiles]) -> list[Path]:
    """Return the files in the folder of checkpoints that no trial names; those of a running trial are left out.

    Args:
        folder: it may hold files of other programs, which are none of these.
        files: of all trials.
    """
    named = {file_name(name) for one in files for name in one.names}
    running = tuple(one.trial for one in files if one.running)
    found = sorted(folder.glob("*")) if folder.is_dir() else []
    ours = (path for path in found if re.match(r"[0-9a-f]{64}-", path.name) and path.is_file())
    return [path for path in ours if path.name not in named and not path.name.startswith(running)]


def delete_study(connection: Connection, name: str) -> None:
    """Delete a study, if there is one of this name, and leave its trials in the store.

    Raises:
        StoreError: a worker is running its trials.
    """
    id_ = connection.scalar(select(studies.c.id).where(studies.c.name == name))
    ours = select(study_trials.c.trial_id).where(study_trials.c.study_id == id_)
    held = and_(trials.c.id.in_(ours), _is_held(connection))
    if count := connection.scalar(select(func.count()).select_from(trials).where(held)):
        raise StoreError(f"study {name}: {plural(count, 'trial is', 'trials are')} running; stop its workers first")
    connection.execute(delete(study_trials).where(study_trials.c.study_id == id_))
    connection.execute(delete(studies).where(studies.c.id == id_))


def delete_orphans(connection: Connection) -> list[tuple[str, tuple[str, ...]]]:
    """Delete every trial that no study contains and no worker is running; return them with the names of their files."""
    orphan = and_(trials.c.id.not_in(select(study_trials.c.trial_id)), not_(_is_held(connection)))
    rows = connection.execute(
        select(trials.c.id, trials.c.hash, trials.c.checkpoint, trials.c.earlier_checkpoint)
        .where(orphan)
        .order_by(trials.c.hash)
        .with_for_update(skip_locked=True)
    ).all()
    ids: Sequence[int] = [row.id for row in rows]
    for start in range(0, len(ids), CHUNK):
        some = ids[start : start + CHUNK]
        for table in (records, predictions, measurements):
            connection.execute(delete(table).where(table.c.trial_id.in_(some)))
        connection.execute(delete(trials).where(trials.c.id.in_(some)))
    named = ((row.hash, (row.checkpoint, row.earlier_checkpoint)) for row in rows)
    return [(trial, tuple(name for name in names if name is not None)) for trial, names in named]


def _is_held(connection: Connection) -> ColumnElement[bool]:
    """Return the SQL condition for trials that a worker is running, unless it is certainly lost."""
    free = ClaimContext.anywhere(connection).claimable("")
    return and_(trials.c.state == "running", or_(trials.c.owner.is_(None), not_(free)))
