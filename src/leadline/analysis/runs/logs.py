"""What programs log while they train, as rows: several metrics in lines of their own, settings, folders of runs."""

import io
import json
import os
import warnings
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from leadline.errors import DataError, LeadlineWarning
from leadline.text import join, plural

DEEPEST = 6
"""Folders below a given one in which runs are looked for."""

SHOWN = 3  # damaged runs that a message describes

RUN = "run"

VERDICT_RUN = "leadline-verdict"
"""What is in the name of a run that holds the verdict of a study beside the study's runs, and no results."""


def find_files(folder: Path, wanted: Callable[[str], bool], deepest: int = DEEPEST) -> Iterator[Path]:
    """Yield the files of a folder and those below it whose name is wanted, folder by folder, in the order of names.

    Links to folders are not followed, so that a link to the latest run does not repeat it.
    """
    for place, folders, names in os.walk(folder):
        here = Path(place)
        folders[:] = sorted(folders) if len(here.relative_to(folder).parts) < deepest else []
        yield from (here / name for name in sorted(names) if wanted(name))


def name_of(run: Path, folder: Path) -> str:
    """Return a run's name: its path from the folder that was given, or its own name where it is that folder."""
    return run.relative_to(folder).as_posix() if run != folder else run.resolve().name


def read_logged(path: Path) -> pd.DataFrame:
    """Return the table in a CSV file that is written while a run trains; empty cells are left missing, `nan` is text.

    Raises:
        DataError: it is damaged, empty, or still being written.
    """
    try:
        if b"\0" in (content := path.read_bytes()):
            raise DataError("is not text")
        if not content.endswith(b"\n"):
            raise DataError("empty" if not content else "its last line is half-written")
        return pd.read_csv(io.BytesIO(content), keep_default_na=False, na_values=[""], low_memory=False)
    except (UnicodeDecodeError, pd.errors.EmptyDataError, pd.errors.ParserError) as error:
        raise DataError(str(error)) from None


def to_records(table: pd.DataFrame, axis: str, without: Collection[str] = ()) -> pd.DataFrame:
    """Return what a table with a column per metric logs, as `to_rows` takes it; cells that are missing log nothing.

    Raises:
        DataError: an epoch or step is not a number.
    """
    at = pd.to_numeric(table[axis], errors="coerce")
    if at.isna().any():
        raise DataError(f"column {axis!r}: {table.loc[at.isna(), axis].iloc[0]!r} is not a number")
    parts = []
    for name in table.columns:
        if name == axis or name in without:
            continue
        logged = table[name].notna()
        values = pd.to_numeric(table[name], errors="coerce")
        if (values.isna() & logged & (table[name].astype(str).str.lower() != "nan")).any():
            continue  # text, such as the state of a run
        parts.append(pd.DataFrame({axis: at, "metric": str(name), "value": values.astype(float)})[logged])
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=[axis, "metric", "value"])


def to_rows(records: pd.DataFrame, axis: str, failed: bool = False) -> pd.DataFrame:
    """Return a row per epoch or step, with a column for each metric.

    The last value of a metric in each epoch is taken. The last row has the last value of every metric, since many are
    not logged in every epoch, or once at the end. Elsewhere a metric that was not logged is NaN.

    Args:
        records: a row per value that was logged, in their order: columns `axis`, metric, value. NaN is a value too.
        axis: name of the column with the epoch or step.
        failed: whether the run is known to have failed; it then has a row even if it logged nothing.

    Raises:
        DataError: nothing was logged.

    Example:
        >>> logged = [(0, "loss", 2.0), (0, "acc", 0.5), (1, "loss", 1.0)]
        >>> to_rows(pd.DataFrame(logged, columns=["epoch", "metric", "value"]), "epoch").values.tolist()
        [[0.0, 0.5, 2.0], [1.0, 0.5, 1.0]]
    """
    if records.empty and failed:
        return pd.DataFrame({axis: [0]})
    if records.empty:
        raise DataError("no metric was logged")
    records = records.sort_values(axis, kind="stable")
    rows = records.drop_duplicates([axis, "metric"], keep="last").pivot(index=axis, columns="metric", values="value")
    last = records.drop_duplicates("metric", keep="last").set_index("metric")["value"]
    rows.iloc[-1] = last[rows.columns]
    return rows.rename_axis(columns=None).reset_index()


def flat(settings: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Return settings that may hold others as one level, with dots between their names; lists become text.

    Example:
        >>> flat({"model": {"depth": 20}, "widths": [16, 32]})
        {'model.depth': 20, 'widths': '[16, 32]'}
    """
    found: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{before}{key}.")
        else:
            plain = value is None or isinstance(value, bool | int | float | str)
            found[f"{before}{key}"] = value if plain else json.dumps(value, default=str)
    return found


def with_settings(rows: pd.DataFrame, run: str, settings: Mapping[str, Any]) -> pd.DataFrame:
    """Return a run's rows with its name and settings before them; a setting named as a metric gets `config.` before."""
    taken = {RUN, *map(str, rows.columns)}
    named = {(f"config.{name}" if name in taken else name): value for name, value in settings.items()}
    own = pd.DataFrame({RUN: run, **named}, index=rows.index)
    return pd.concat([own, rows], axis=1)


def gather(path: Path, runs: Iterable[tuple[str, Callable[[], pd.DataFrame]]]) -> pd.DataFrame:
    """Return the rows of many runs; those that cannot be read are left out with a warning that says why.

    Args:
        path: where the runs are, for messages.
        runs: name -> what reads it, which raises DataError where it is damaged, half-written or empty.

    Raises:
        DataError: none of them can be read.
    """
    frames, wrong = [], []
    for name, read in runs:
        if VERDICT_RUN in name.rpartition("/")[2]:
            continue
        try:
            frames.append(read())
        except DataError as error:
            wrong.append(f"{name} ({error})")
    if wrong:
        said = f"{path}: {plural(len(wrong), 'run')} left out: {join(wrong, SHOWN)}"
        if not frames:
            raise DataError(said)
        warnings.warn(said, LeadlineWarning, stacklevel=2)
    if not frames:
        raise DataError(f"{path}: holds no run")
    return _without_gaps(pd.concat(frames, ignore_index=True))


def _without_gaps(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows of steps without an epoch that is logged as a metric, unless it names every row of a run alone."""
    if {"epoch", "step"} <= set(rows.columns) and (rows["epoch"].isna().any() or rows.duplicated([RUN, "epoch"]).any()):
        return rows.drop(columns="epoch")
    return rows
