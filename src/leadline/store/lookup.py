"""Finding studies by name and trials by hash, and counting trials by state."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, func, select

from leadline.errors import StoreError, unknown
from leadline.seeds import call_seed, divide_levels, name_seed, seed_of
from leadline.store.connect import display_address
from leadline.store.schema import STATES, TrialState, studies, study_trials, trials
from leadline.store.values import HeldTrial, TrialRecord, require_mapping
from leadline.text import join


def study_id(connection: Connection, name: str) -> int:
    """Return the id of a study.

    Raises:
        StoreError: there is no such study; the message suggests the closest name.
    """
    found: int | None = connection.scalar(select(studies.c.id).where(studies.c.name == name))
    if found is None:
        raise no_study(connection, name)
    return found


def no_study(connection: Connection, name: str) -> StoreError:
    """Return the error for an unknown study, which suggests the closest name."""
    names = connection.scalars(select(studies.c.name))
    return StoreError(f"store {display_address(connection.engine.url)}: {unknown('study', name, names)}")


def find_trial(connection: Connection, name: str) -> TrialRecord:
    """Return the trial of a name: the beginning of its hash, or STUDY/ARM/SEED.

    Raises:
        StoreError: there is none, or more than one.
    """
    return _trial_of_study(connection, name) if "/" in name else _trial_by_prefix(connection, name)


def _trial_of_study(connection: Connection, name: str) -> TrialRecord:
    study, _, rest = name.partition("/")
    arm, _, seed = rest.rpartition("/")
    try:
        wanted = seed_of(seed)
    except ValueError:
        wanted = None
    if not arm or wanted is None:
        raise StoreError(f"trial {name!r}: expected STUDY/ARM/SEED, such as demo/plain/0, or the beginning of a hash")
    link = study_trials.c
    ours = link.study_id == study_id(connection, study)
    rows = connection.execute(
        select(trials).join_from(study_trials, trials).where(ours, link.arm == arm, trials.c.seed == int(wanted))
    ).all()
    for row in map(_record, rows):
        if row.seed_name == name_seed(wanted):
            return row
    arms = set(connection.scalars(select(link.arm).where(ours)))
    if arm not in arms:
        raise StoreError(f"study {study}: {unknown('arm', arm, arms)}")
    found = connection.execute(
        select(trials.c.seed, link.factors)
        .join_from(study_trials, trials)
        .where(ours, link.arm == arm)
        .order_by(link.position)
    )
    seeds = join([str(divide_levels(factors, number)[1]) for number, factors in found], 20)
    raise StoreError(f"study {study}: arm {arm} has no {call_seed(name_seed(wanted))}; its seeds: {seeds}")


def _trial_by_prefix(connection: Connection, prefix: str) -> TrialRecord:
    begins = trials.c.hash.startswith(prefix.lower(), autoescape=True)
    rows = connection.execute(select(trials).where(begins).order_by(trials.c.hash).limit(3)).all()
    if not rows:
        raise StoreError(
            f"store {display_address(connection.engine.url)}: no trial's hash begins with {prefix!r}; `leadline trials"
            " STUDY` lists the trials of a study"
        )
    if len(rows) > 1:
        some = ", ".join(row.hash[: len(prefix) + 8] for row in rows)
        raise StoreError(f"trial {prefix!r} matches several trials ({some}); give more characters of the hash")
    return _record(rows[0])


def _record(row: "Row[Any]") -> TrialRecord:
    values = dict(row._mapping)
    del values["id"]
    require_mapping(values["spec"], f"the specification of trial {values['hash'][:12]}")
    return TrialRecord(trial=values.pop("hash"), **values)


def arm_of(connection: Connection, trial: str) -> tuple[str, str] | None:
    """Return the arm of a trial in the newest study that contains it, with and without its levels, or None."""
    link = study_trials.c
    row = connection.execute(
        select(link.arm, link.base)
        .join_from(study_trials, trials)
        .join(studies, studies.c.id == link.study_id)
        .where(trials.c.hash == trial)
        .order_by(studies.c.created.desc(), studies.c.id.desc())
        .limit(1)
    ).first()
    return None if row is None else (row.arm, row.base)


def held_trials(connection: Connection, study_id: int) -> list[HeldTrial]:
    """Return the trials of a study that are running, in its order."""
    link = study_trials.c
    rows = connection.execute(
        select(link.arm, link.factors, trials.c.seed, trials.c.owner)
        .join_from(study_trials, trials)
        .where(link.study_id == study_id, trials.c.state == "running")
        .order_by(link.position)
    )
    return [HeldTrial(row.arm, divide_levels(row.factors, row.seed)[1], row.owner) for row in rows]


def count_trials(connection: Connection, study_id: int | None) -> dict[int, dict[TrialState, int]]:
    """Return study id -> state -> number of trials, for one study or for all."""
    link = study_trials.c
    query = (
        select(link.study_id, trials.c.state, func.count())
        .join_from(study_trials, trials)
        .group_by(link.study_id, trials.c.state)
    )
    if study_id is not None:
        query = query.where(link.study_id == study_id)
    result: dict[int, dict[TrialState, int]] = {}
    for id_, state, count in connection.execute(query):
        result.setdefault(id_, {})[state] = count
    return result


def all_states(counted: Mapping[TrialState, int] | None) -> dict[TrialState, int]:
    """Fill in zeros for states without trials."""
    return {state: (counted or {}).get(state, 0) for state in STATES}
