"""Registering a study: its trials, which are shared with every study that contains them, and links to them."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Table, delete, insert, select, text, update

from leadline.errors import SpecError, StoreError
from leadline.seeds import levels_of_seed
from leadline.specs import parse
from leadline.specs.study import SEARCH, StudySpec
from leadline.store.connect import build_insert, now
from leadline.store.lookup import study_id
from leadline.store.schema import SETTLED, studies, study_trials, trials

if TYPE_CHECKING:
    from leadline.specs import TrialSpec
    from leadline.study.expand import Arm, ExpandedStudy

    Planned = tuple[Arm, str, TrialSpec]

CHUNK = 500  # values in one IN (...): well below every database's limit


def plan(study: "ExpandedStudy") -> "list[Planned]":
    """Return a study's trials with their hashes; outside any transaction, since 100,000 trials take seconds.

    Raises:
        SpecError: `match`, `tune` or `decide` is not resolved yet.
    """
    if study.unresolved:
        raise SpecError(
            f"study {study.name}: {' and '.join(study.unresolved)} must be resolved before its trials are known; use"
            f" `leadline run`, which resolves them"
        )
    return [(arm, spec.content_hash, spec) for arm, spec in study.trials()]


def register(connection: Connection, study: "ExpandedStudy", planned: "list[Planned]") -> None:
    """Insert a study, or replace the one of the same name, keeping the results of trials."""
    moment = now(connection)
    study_id = _put_study(connection, study, moment)
    known = _put_trials(connection, {hash_: spec for _, hash_, spec in planned}, moment)
    links = [
        (position, known[hash_][0], arm.name, arm.base, {**arm.factors, **levels_of_seed(spec.random_seed)})
        for position, (arm, hash_, spec) in enumerate(planned)
    ]
    link = study_trials.c
    there = connection.execute(
        select(link.position, link.trial_id, link.arm, link.base, link.factors)
        .where(link.study_id == study_id)
        .order_by(link.position)
    ).all()
    if links == [tuple(row) for row in there]:
        return
    settled = {id_: state in SETTLED for id_, state in known.values()}
    names = ("position", "trial_id", "arm", "base", "factors")
    connection.execute(delete(study_trials).where(link.study_id == study_id))
    connection.execute(
        insert(study_trials),
        [{"study_id": study_id, "settled": settled[row[1]], **dict(zip(names, row, strict=True))} for row in links],
    )
    _update_statistics(connection, study_trials)


def rename(connection: Connection, name: str, new: str) -> None:
    """Give a study, and the study of its search, another name.

    Raises:
        StoreError: there is no such study, or one of the new name.
        SpecError: the new name is not one that a study may have.
    """
    study_id(connection, name)
    for suffix in ("", SEARCH):
        if connection.scalar(select(studies.c.id).where(studies.c.name == new + suffix)) is not None:
            raise StoreError(f"study {new}{suffix}: there is one already; choose another name")
    for suffix in ("", SEARCH):
        row = connection.execute(select(studies.c.id, studies.c.spec).where(studies.c.name == name + suffix)).first()
        if row is not None:
            spec = parse(StudySpec, {**row.spec, "name": new})
            values = {"name": new + suffix, "spec": spec.model_dump(mode="json"), "hash": spec.content_hash}
            connection.execute(update(studies).where(studies.c.id == row.id).values(**values))


def _update_statistics(connection: Connection, table: Table) -> None:
    # PostgreSQL updates its statistics about a minute later. Until then, it plans for an empty table, and each claim
    # reads every trial of the study.
    if connection.dialect.name == "postgresql":
        connection.execute(text(f"ANALYZE {table.name}"))


def _put_study(connection: Connection, study: "ExpandedStudy", moment: datetime) -> int:
    values = {
        "name": study.name,
        "hash": study.spec.content_hash,
        "spec": study.spec.model_dump(mode="json"),
        "resolved": study.resolved.model_dump(mode="json", exclude_defaults=True),
    }
    statement = build_insert(connection, studies).values(**values, created=moment)
    connection.execute(statement.on_conflict_do_update(index_elements=[studies.c.name], set_=values))
    found: int = connection.execute(select(studies.c.id).where(studies.c.name == study.name)).scalar_one()
    return found


def _put_trials(
    connection: Connection, planned: "dict[str, TrialSpec]", moment: datetime
) -> dict[str, tuple[int, str]]:
    """Insert the new trials and return hash -> (id, state) of all."""
    known = _find_trials(connection, planned)
    # Sorted, so that two concurrent registrations cannot deadlock.
    new = sorted(planned.keys() - known.keys())
    if new:
        connection.execute(
            build_insert(connection, trials).on_conflict_do_nothing(index_elements=[trials.c.hash]),
            [_new_trial(hash_, planned[hash_], moment) for hash_ in new],
        )
        _update_statistics(connection, trials)
        known |= _find_trials(connection, new)
    return known


def _new_trial(hash_: str, spec: "TrialSpec", moment: datetime) -> dict[str, Any]:
    return {
        "hash": hash_,
        "spec": spec.model_dump(mode="json"),
        "seed": spec.seed,
        "state": "waiting",
        "attempts": 0,
        "created": moment,
        "checkpoint_epoch": 0,
    }


def _find_trials(connection: Connection, hashes: Iterable[str]) -> dict[str, tuple[int, str]]:
    ordered: Sequence[str] = sorted(hashes)
    found: dict[str, tuple[int, str]] = {}
    for start in range(0, len(ordered), CHUNK):
        # With shared locks, if supported, because a state must not change before its link is written.
        rows = connection.execute(
            select(trials.c.hash, trials.c.id, trials.c.state)
            .where(trials.c.hash.in_(ordered[start : start + CHUNK]))
            .order_by(trials.c.hash)
            .with_for_update(read=True)
        )
        found |= {row.hash: (row.id, row.state) for row in rows}
    return found
