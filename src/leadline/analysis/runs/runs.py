"""A table's rows as runs: one arm, one pair and one value of each metric, or that it failed."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from leadline.analysis.runs.columns import Columns
from leadline.analysis.runs.readers.tables import MISSING
from leadline.errors import DataError
from leadline.text import join, plural

MOST_RUNS = 10_000
"""Runs of an arm at one level."""

FAILED = frozenset({"", "-", "na", "diverged", "failed", "crashed", "killed", "error", "oom", *map(str.lower, MISSING)})
"""What stands in place of a number, or as a run's state, where it has failed."""

ENDED = frozenset({"finished", "complete", "completed", "done", "ok", "success", "succeeded"})

SHOWN = 6  # rows that a message names


@dataclass(frozen=True)
class Runs:
    """The runs of a table, in its order."""

    frame: pd.DataFrame  # arm (text), level (tuple), pair (tuple or None), failed, each value, row (from 1)
    curves: pd.DataFrame  # run (place in `frame`), epoch, metric, value; empty without epochs
    said: tuple[str, ...]  # what a reader must know of how the rows were taken


def read_rows(table: pd.DataFrame, columns: Columns, mean_of_duplicates: bool = False) -> Runs:
    """Return a table's runs: with epochs the last of each, duplicates averaged only where that is asked for.

    A run without a number, or whose state says that it failed, has failed.

    Raises:
        DataError: no rows, text among the values, no arm, or several rows of one arm and pair.
    """
    if table.empty:
        raise DataError("the table has no rows; expected one for each run")
    levels = [*([columns.data_set] if columns.data_set else []), *columns.factors]
    frame = pd.DataFrame({"arm": table[columns.arm].astype("string").str.strip()}, index=table.index)
    frame["row"], frame["label"] = np.arange(1, len(table) + 1), table.index
    for name in (columns.arm, *levels, *columns.pair):
        if (lacking := table[name].isna().to_numpy()).any():
            raise DataError(f"column {name!r} is empty in {_rows(frame.loc[lacking, 'row'])}; every run needs it")
    frame["level"] = _tuples(table, levels)
    frame["pair"] = _tuples(table, columns.pair)
    said: list[str] = []
    for name in columns.values:
        frame[f"value:{name}"] = _numbers(table, name)
    frame["failed"] = frame[[f"value:{name}" for name in columns.values]].isna().any(axis=1)
    if columns.state is not None:
        states = table[columns.state].astype("string").str.strip().str.lower().fillna("")
        frame["failed"] |= states.isin(FAILED)
        if (open_rows := ~states.isin(FAILED | ENDED)).any():
            names = join([repr(one) for one in states[open_rows].unique()])
            said.append(f"Left out: {plural(int(open_rows.sum()), 'row')} whose {columns.state} is {names}.")
            frame, table = frame[~open_rows], table[~open_rows]
            if frame.empty:
                raise DataError(f"no run has ended: column {columns.state!r} is {names} in every row")
    curves = pd.DataFrame(columns=["run", "epoch", "metric", "value"])
    if columns.epoch is not None:
        frame, curves, words = _last_epochs(frame, table, columns)
        said += words
    frame = frame.reset_index(drop=True)
    if columns.pair and (repeated := frame.duplicated(["arm", "level", "pair"], keep=False)).any():
        if not mean_of_duplicates:
            raise DataError(_duplicates(frame[repeated], table, columns))
        frame, averaged = _averaged(frame, columns)
        said += [averaged, *(["No curves are drawn of averages."] if len(curves) else [])]
        curves = curves.iloc[:0]
    arm, most = max(Counter(zip(frame["arm"], frame["level"], strict=True)).items(), key=lambda item: item[1])
    if most > MOST_RUNS:
        raise DataError(
            f"arm {arm[0]!r} has {most:,} runs, and at most {MOST_RUNS:,} are compared; if a row is an"
            " epoch, name its column with --epoch; if it is an example, take the mean over each run first"
        )
    if lost := int(frame["failed"].sum()):
        rows = frame[frame["failed"]]
        named = [f"{arm}{_at(columns, pair)}" for arm, pair in zip(rows["arm"], rows["pair"], strict=True)]
        said.append(
            f"{plural(lost, 'run has no number or failed, and counts', 'runs have no number or failed, and count')} as"
            f" diverged, worse than any other: {join(named)}."
        )
        said += _half_logged(rows, columns)
    return Runs(frame, curves, tuple(said))


def _tuples(table: pd.DataFrame, names: Sequence[str]) -> pd.Series:
    """Return the values of some columns, row by row, each row's together."""
    rows = zip(*(_alike(table[name]) for name in names), strict=True) if names else [()] * len(table)
    return pd.Series(list(rows), index=table.index, dtype=object)


def _alike(column: pd.Series) -> list[object]:
    """Return values without spaces around text, and numbers as numbers even where some of them were read as text."""
    if column.dtype.kind in "biuf":
        return column.tolist()
    values = [one.strip() if isinstance(one, str) else one for one in column.tolist()]
    if any(isinstance(one, str) for one in values) and not all(isinstance(one, str) for one in values):
        try:
            numbers: list[object] = pd.to_numeric(pd.Series(values, dtype=object)).tolist()
        except (ValueError, TypeError):
            return list(map(str, values))
        return numbers
    return values


def _numbers(table: pd.DataFrame, name: str) -> pd.Series:
    """Return a column as numbers, NaN where a run failed.

    Raises:
        DataError: it holds other text, or truth values.
    """
    column = table[name]
    if pd.api.types.is_bool_dtype(column):
        raise DataError(f"column {name!r} holds true and false; expected numbers")
    numbers = pd.to_numeric(column, errors="coerce").astype(float)
    text = numbers.isna() & column.notna()
    if text.any():
        words = column[text].astype(str).str.strip().str.lower()
        if (wrong := ~words.isin(FAILED)).any():
            first = words[wrong].index[0]
            row = int(np.flatnonzero(table.index == first)[0]) + 1
            raise DataError(
                f"column {name!r}, row {row}: {column.loc[first]!r} is not a number; {_instead(words[first])}"
            )
    return numbers.where(np.isfinite(numbers))


def _instead(text: str) -> str:
    """Return what to write instead of a cell that is not a number."""
    if re.fullmatch(r"[-+]?[\d.,]+\s*%", text):
        return "write it without %, and name the column so that it has it, such as 'accuracy, %'"
    if re.search(r"\d\s*(±|\+/-|\+-)\s*\d", text):
        return "write mean and standard deviation in columns of their own, beside n, the number of runs"
    return "leave the cell empty, or write diverged, for a run that failed"


def _last_epochs(
    frame: pd.DataFrame, table: pd.DataFrame, columns: Columns
) -> tuple[pd.DataFrame, pd.DataFrame, list[str]]:
    """Return the rows of each run's last epoch, every epoch's values, and what is said of them."""
    assert columns.epoch is not None
    epochs = pd.to_numeric(table[columns.epoch], errors="coerce")
    if (lacking := epochs.isna()).any():
        row, wrong = int(frame.loc[lacking, "row"].iloc[0]), table.loc[lacking, columns.epoch].iloc[0]
        raise DataError(f"column {columns.epoch!r}, row {row}: {wrong!r} is not a number")
    own, said = ["arm", "level", "pair"], []
    names = [f"value:{name}" for name in columns.values]
    keyed = frame.assign(epoch=epochs)
    if columns.run is not None:
        keyed["run"] = table[columns.run]
        own.append("run")
    elif not columns.pair:
        raise DataError("the table has epochs, but no column that tells runs apart; name one with --pair")
    logged = frame[names].notna().any(axis=1).groupby(epochs).transform("any")
    if (~logged & (epochs < epochs[logged].max())).any():  # values are logged now and then
        runs = keyed.groupby(own, sort=False, dropna=False).ngroup()
        logged |= ~logged.groupby(runs).transform("any")  # a run that ended before the first such epoch has failed
        keyed, table = keyed[logged], table[logged]
        said.append(f"Left out: every {columns.epoch} at which no run has a value.")
    groups = keyed.groupby(own, sort=False, dropna=False)
    number = groups.ngroup()
    if (twice := keyed.assign(number=number).duplicated(["number", "epoch"], keep=False)).any():
        raise DataError(
            f"{_rows(keyed.loc[twice, 'row'])} are of one run and one {columns.epoch}; name a column that tells them"
            " apart with --pair or --factor"
        )
    keyed["number"] = number
    last = keyed.loc[groups["epoch"].idxmax()].sort_values("number").reset_index(drop=True)
    curves = keyed.melt(["number", "epoch"], names, "metric", "value")
    curves["metric"] = curves["metric"].str.removeprefix("value:")
    curves = curves.rename(columns={"number": "run"}).dropna(subset=["value"])
    ends = last.loc[~last["failed"], "epoch"]
    if ends.empty or ends.min() == ends.max():
        shown = f" ({ends.max():g})" if len(ends) else ""
        said.append(f"Of each run the last {columns.epoch}{shown} is compared.")
    else:
        said.append(
            f"Of each run the last {columns.epoch} is compared, and these differ: {ends.min():g} to {ends.max():g}."
        )
    return last.drop(columns=["epoch", "number", *(["run"] if columns.run is not None else [])]), curves, said


def _half_logged(failed: pd.DataFrame, columns: Columns) -> Iterator[str]:
    """Yield which of the values runs lack that have others, for they count as failed in all."""
    lacking = failed[[f"value:{name}" for name in columns.values]].isna()
    half = lacking.any(axis=1) & ~lacking.all(axis=1)
    if half.any():
        lacks = [name for name in columns.values if lacking.loc[half, f"value:{name}"].any()]
        yield (
            f"Of these, {plural(int(half.sum()), 'run has', 'runs have')} other values and no {join(lacks)}: if that"
            " does not mean that a run failed, compare the values one at a time with --value."
        )


def _duplicates(repeated: pd.DataFrame, table: pd.DataFrame, columns: Columns) -> str:
    """Say which rows are of one arm and pair, and what may tell them apart."""
    same = repeated[repeated.groupby(["arm", "level", "pair"], sort=False).ngroup() == 0]
    rows = table.loc[same["label"]]
    apart = [str(name) for name in table.columns if name not in columns.all and rows[name].astype(str).nunique() > 1]
    hint = f"name what tells them apart ({join(apart)}) with --pair or --factor" if apart else "keep one of them"
    more = len(repeated) - len(same)
    others = f", and {plural(more, 'more row')} likewise" if more else ""
    return (
        f"{_rows(same['row'])} are all of {same['arm'].iloc[0]}{_at(columns, same['pair'].iloc[0])}{others}; {hint}, or"
        " compare their means with --mean-of-duplicates"
    )


def _averaged(frame: pd.DataFrame, columns: Columns) -> tuple[pd.DataFrame, str]:
    """Return one row per arm and pair, with the mean of its rows; one that failed makes it a failed run."""
    values = {f"value:{name}": lambda one: one.mean(skipna=False) for name in columns.values}
    groups = frame.groupby(["arm", "level", "pair"], sort=False)
    found = groups.agg({**values, "failed": "any", "row": "first"}).reset_index()
    words = f"Duplicates were averaged: {len(frame)} rows are {plural(len(found), 'run')}."
    return found, words


def _rows(rows: pd.Series) -> str:
    numbers = [str(int(row)) for row in rows]
    return f"row {numbers[0]}" if len(numbers) == 1 else f"rows {join(numbers, SHOWN)}"


def _at(columns: Columns, pair: tuple[object, ...]) -> str:
    if not pair:
        return ""
    return " at " + ", ".join(f"{name} {value}" for name, value in zip(columns.pair, pair, strict=True))


def levels_of(columns: Columns) -> Iterator[str]:
    """Yield the columns that make a run's level, in their order."""
    if columns.data_set is not None:
        yield columns.data_set
    yield from columns.factors
