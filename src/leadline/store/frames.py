"""The results of a study as data frames for statistics, figures and reports."""

import json
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cache
from itertools import chain
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Double,
    FromClause,
    Row,
    Select,
    Text,
    and_,
    case,
    cast,
    func,
    or_,
    select,
    type_coerce,
)

from leadline.parts.metrics import Outputs
from leadline.parts.metrics.outputs import OUTPUTS, unpack_outputs
from leadline.seeds import SeedName, divide_levels
from leadline.store.measured import unpack_classes
from leadline.store.schema import measurements, predictions, records, series, study_trials, trials
from leadline.store.values import require_mapping

if TYPE_CHECKING:
    import pandas as pd

PARTITION = 5_000
"""Records that are read at once."""

TRIALS = (
    *("trial", "arm", "base", "factors", "seed", "state", "error", "diverged_step"),
    *("created", "started", "ended", "seconds", "environment", "note"),
)
MEANS = ("arm", "base", "split", "name", "epoch", "mean", "low", "high", "seeds", "left_out")
RECORDS = ("trial", "arm", "base", "seed", "step", "epoch", "split", "name", "value")


def trials_frame(connection: Connection, study_id: int, columns: Sequence[str] = TRIALS) -> "pd.DataFrame":
    """Return one row per trial, in the order of the study; columns among `TRIALS`."""
    import pandas as pd

    link, trial = study_trials.c, trials.c
    source: dict[str, ColumnElement[Any]] = {
        **{name: trial[name] for name in TRIALS if name in trial},
        **{name: link[name] for name in ("arm", "base", "factors")},
        "trial": trial.hash,
        "environment": cast(trial.environment, Text),  # few differ, of which each is read once
    }
    wanted = list(dict.fromkeys(("trial", "factors", "seed", *columns)))
    rows = connection.execute(
        select(*(source[name].label(name) for name in wanted))
        .join_from(study_trials, trials)
        .where(link.study_id == study_id)
        .order_by(link.position)
    ).all()
    for row in rows:
        require_mapping(row.factors, f"the factors of trial {row.trial[:12]}")
    found: dict[str, Sequence[Any]] = dict.fromkeys(wanted, ())
    found |= zip(wanted, zip(*rows, strict=True), strict=True) if rows else ()
    divided = [divide_levels(row.factors, row.seed) for row in rows]
    found |= {"factors": [factors for factors, _ in divided], "seed": [seed for _, seed in divided]}
    if "environment" in found:
        found["environment"] = list(map(cache(_read_json), found["environment"]))
    # With explicit types, because None in text columns would become NaN.
    types: dict[str, Any] = {
        **dict.fromkeys(("factors", "error", "environment", "note"), object),
        **dict.fromkeys(("trial", "arm", "base", "state"), str),
        "seed": _type_of_seeds(found["seed"]),
        "diverged_step": "Int64",
        "created": "datetime64[us, UTC]",
        "started": "datetime64[us, UTC]",
        "ended": "datetime64[us, UTC]",
        "seconds": "float64",
    }
    return pd.DataFrame({name: pd.Series(list(found[name]), dtype=types[name]) for name in columns})


def _read_json(text: str | None) -> Any:
    return None if text is None else json.loads(text)


def _type_of_seeds(names: Iterable[SeedName]) -> str:
    """Return the type of a column of seeds: numbers, or names of seeds by source."""
    return "str" if any(isinstance(name, str) for name in names) else "int64"


def records_frame(
    connection: Connection,
    study_id: int,
    splits: Collection[str] | None = None,
    only: Collection[tuple[str, str]] | None = None,
    columns: Sequence[str] = RECORDS,
    unfinished: bool = False,
) -> "pd.DataFrame":
    """Return records of a study's trials, by position in the study, epoch, step, split and name."""
    import numpy as np
    import pandas as pd

    link = study_trials.c
    links = connection.execute(
        select(link.position, trials.c.hash, link.arm, link.base, link.factors, trials.c.seed)
        .join_from(study_trials, trials)
        .where(link.study_id == study_id, *([trials.c.state != "finished"] if unfinished else []))
        .order_by(link.position)
    ).all()
    known = connection.execute(select(series.c.id, series.c.split, series.c.name)).all()
    wanted = [
        row
        for row in known
        if (splits is None or row.split in splits) and (only is None or (row.split, row.name) in only)
    ]
    kept = records.c
    query = (
        select(link.position, kept.series_id, kept.step, kept.epoch, type_coerce(kept.value, Double))
        .join_from(study_trials, records, kept.trial_id == link.trial_id)
        .where(link.study_id == study_id)
    )
    if unfinished:
        query = query.join(trials, trials.c.id == link.trial_id).where(trials.c.state != "finished")
    if len(wanted) < len(known):
        query = query.where(kept.series_id.in_([row.id for row in wanted]))
    # Names repeat for thousands of rows, so they are joined here by id instead of in the database.
    integers, values = [np.empty((0, 4), np.int32)], [np.empty(0)]
    for rows in connection.execute(query).partitions(PARTITION):  # all at once take ten times the memory
        read = np.array(list(chain.from_iterable(rows)), dtype=np.float64).reshape(-1, 5)  # None becomes NaN
        integers.append(read[:, :4].astype(np.int32))
        values.append(read[:, 4].copy())
    numbers, value = np.concatenate(integers), np.concatenate(values)
    ordered = sorted(wanted, key=lambda row: (row.split, row.name))
    seeds = [divide_levels(row.factors, row.seed)[1] for row in links]
    rank = np.zeros(max((row.id for row in known), default=0) + 1, dtype=np.int64)
    rank[[row.id for row in ordered]] = np.arange(len(ordered))
    position, name, step, epoch = numbers[:, 0], rank[numbers[:, 1]], numbers[:, 2], numbers[:, 3]
    order = np.lexsort((name, step, epoch, position))
    at = np.searchsorted(np.array([row.position for row in links], dtype=np.int64), position[order])

    def take(source: list[str], index: "np.ndarray[Any, Any]") -> "pd.Series[str]":
        return pd.Series(source, dtype=str).take(index).reset_index(drop=True)

    made: dict[str, Callable[[], Any]] = {
        "trial": lambda: take([row.hash for row in links], at),
        "arm": lambda: take([row.arm for row in links], at),
        "base": lambda: take([row.base for row in links], at),
        "seed": lambda: pd.Series(seeds, dtype=_type_of_seeds(seeds)).take(at).reset_index(drop=True),
        "step": lambda: step[order].astype(np.int64),
        "epoch": lambda: epoch[order].astype(np.int64),
        "split": lambda: take([row.split for row in ordered], name[order]),
        "name": lambda: take([row.name for row in ordered], name[order]),
        "value": lambda: value[order],
    }
    return pd.DataFrame({column: made[column]() for column in columns})


def means_frame(connection: Connection, study_id: int, splits: Collection[str]) -> "pd.DataFrame":
    """Return records of finished trials by arm, split, name and epoch, as the database sums them up."""
    import pandas as pd

    link, value = study_trials.c, records.c.value
    finite = case((func.abs(value) <= sys.float_info.max, type_coerce(value, Double)))
    rows = connection.execute(
        select(
            link.arm,
            func.min(link.base),  # the only one of its arm
            series.c.split,
            series.c.name,
            records.c.epoch,
            *(summed(finite) for summed in (func.avg, func.min, func.max, func.count)),
            func.count() - func.count(finite),
        )
        .join_from(study_trials, trials)
        .join(records, records.c.trial_id == trials.c.id)
        .join(series, series.c.id == records.c.series_id)
        .where(link.study_id == study_id, trials.c.state == "finished", series.c.split.in_(splits))
        .group_by(link.arm, series.c.id, records.c.epoch)
        .order_by(func.min(link.position), series.c.split, series.c.name, records.c.epoch)
    ).all()
    frame = pd.DataFrame([tuple(row) for row in rows], columns=[*MEANS])
    types = dict.fromkeys(("mean", "low", "high"), "float64") | dict.fromkeys(("epoch", "seeds", "left_out"), "int64")
    return frame.astype(types | dict.fromkeys(("arm", "base", "split", "name"), str))


def tested_trials(connection: Connection, study_id: int) -> list[int]:
    """Return the IDs of the trials that have stored outputs on the test images, in the order of their hashes."""
    ours = select(study_trials.c.trial_id).where(study_trials.c.study_id == study_id)
    return list(connection.scalars(_with_outputs(measurements.alias(), trials.c.id).where(trials.c.id.in_(ours))))


def packed_outputs(
    connection: Connection, trial_ids: Collection[int] | Select[tuple[int]], probabilities: bool
) -> Sequence[Row[Any]]:
    """Return the stored outputs on the test images of some trials that have any, for `unpack_each`."""
    kept = measurements.alias()
    content = kept.c.content if probabilities else case((predictions.c.trial_id.is_(None), kept.c.content))
    columns = trials.c.hash, predictions.c.predicted, predictions.c.labels, content.label("content")
    return connection.execute(_with_outputs(kept, *columns).where(trials.c.id.in_(trial_ids))).all()


def unpack_each(packed: Iterable[Row[Any]]) -> Iterator[tuple[str, Outputs]]:
    """Yield the trial and its outputs of each row of `packed_outputs`; unpacked, they take many times the memory."""
    labels = cache(unpack_classes)  # most trials have the same test images
    for row in packed:
        pair = None if row.predicted is None else (unpack_classes(row.predicted), labels(row.labels))
        if row.content is not None:
            yield row.hash, unpack_outputs(row.content, pair)
        elif pair is not None:
            yield row.hash, Outputs(pair[1], pair[0])


def _with_outputs(kept: FromClause, *columns: ColumnElement[Any]) -> Select[Any]:
    """Select columns of the trials that have stored outputs on the test images; `kept` is an alias of measurements."""
    return (
        select(*columns)
        .outerjoin_from(trials, predictions, predictions.c.trial_id == trials.c.id)
        .outerjoin(kept, and_(kept.c.trial_id == trials.c.id, kept.c.name == OUTPUTS))
        .where(or_(predictions.c.trial_id.is_not(None), kept.c.name.is_not(None)))
        .order_by(trials.c.hash)
    )


def has_results(connection: Connection, trial: str) -> bool:
    """Return whether a trial has records and readable outputs of its final network."""
    recorded = (
        select(records.c.value)
        .join_from(trials, records)
        .join(series, series.c.id == records.c.series_id)
        .where(trials.c.hash == trial, series.c.split == "final-test")
    )
    if connection.execute(recorded.limit(1)).first() is None:
        return False
    packed = packed_outputs(connection, select(trials.c.id).where(trials.c.hash == trial), probabilities=True)
    return any(True for _ in unpack_each(packed))


def best_epoch(connection: Connection, trial: str) -> int | None:
    """Return the epoch whose network a trial was tested with, where early stopping has chosen it."""
    chosen = (
        select(type_coerce(records.c.value, Double))
        .join_from(trials, records)
        .join(series, series.c.id == records.c.series_id)
        .where(trials.c.hash == trial, series.c.split == "final-epochs", series.c.name == "best")
    )
    found = connection.scalar(chosen.limit(1))
    return None if found is None else int(found)


def study_measurements(connection: Connection, study_id: int, name: str) -> dict[str, list[tuple[int, bytes]]]:
    """Return trial -> [(epoch, packed measurement)] of a probe, in the order of the study."""
    rows = connection.execute(
        select(trials.c.hash, measurements.c.epoch, measurements.c.content)
        .join_from(study_trials, trials)
        .join(measurements, measurements.c.trial_id == trials.c.id)
        .where(study_trials.c.study_id == study_id, measurements.c.name == name)
        .order_by(study_trials.c.position, measurements.c.epoch)
    )
    found: dict[str, list[tuple[int, bytes]]] = {}
    for row in rows:
        found.setdefault(row.hash, []).append((row.epoch, row.content))
    return found


def trial_measurement(connection: Connection, trial: str, name: str) -> bytes | None:
    """Return the last packed measurement of this name that a trial has stored, or None."""
    found: bytes | None = connection.scalar(
        select(measurements.c.content)
        .join(trials, measurements.c.trial_id == trials.c.id)
        .where(trials.c.hash == trial, measurements.c.name == name)
        .order_by(measurements.c.epoch.desc())
        .limit(1)
    )
    return found
