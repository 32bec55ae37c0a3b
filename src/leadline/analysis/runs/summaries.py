"""Tables that have of each arm only the mean, standard deviation and number of runs, as papers print them."""

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
import scipy

from leadline.analysis.runs.columns import Columns, is_pair, short_name
from leadline.analysis.runs.runs import MOST_RUNS, levels_of
from leadline.errors import DataError
from leadline.text import join

DEVIATIONS = ("sd", "std", "stdev", "std_dev", "stddev", "standard_deviation")
COUNTS = ("n", "runs", "seeds", "trials", "n_runs", "n_seeds", "num_runs", "num_seeds", "count")


def is_summary(table: pd.DataFrame) -> bool:
    """Return whether a table has a standard deviation and a number of runs of each arm, and nothing of single runs.

    Example:
        >>> is_summary(pd.DataFrame({"model": ["a", "b"], "error": [6.6, 6.4], "sd": [0.2, 0.1], "n": [5, 5]}))
        True
    """
    names = [str(name) for name in table.columns]
    return all(_find(names, known) for known in (DEVIATIONS, COUNTS)) and not any(map(is_pair, names))


def describe_unused_spread(table: pd.DataFrame, columns: Columns) -> Iterator[str]:
    """Yield that standard deviations are not used because the numbers of runs are missing, if that is so."""
    names = [str(name) for name in table.columns]
    spread = [name for name in _find(names, DEVIATIONS) if name not in columns.all]
    if spread and not _find(names, COUNTS) and not any(map(is_pair, names)):
        yield f"Not used: {join(spread)}; a standard deviation counts only with the number of runs, in a column n."


def without_spread(table: pd.DataFrame) -> pd.DataFrame:
    """Return a table of `is_summary` without its standard deviations and numbers of runs."""
    return table.drop(columns=list(_spread_of(table)))


def expand_summaries(table: pd.DataFrame, columns: Columns) -> tuple[pd.DataFrame, str]:
    """Return a row per run in place of a row per arm, and a sentence that says so.

    The runs are normal scores with the arm's mean and standard deviation, on which alone Behrens and Fisher's test
    depends; nothing else may be read from them.

    Args:
        table: a row per arm, and level of each factor, with the mean, standard deviation (sd) and number of runs (n).
        columns: what its columns are.

    Raises:
        DataError: a cell is no number, a standard deviation is not above 0, there are too many runs, or two rows are of
            one arm.

    Example:
        >>> given = pd.DataFrame({"model": ["a"], "error": [6.61], "sd": [0.16], "n": [5]})
        >>> runs, said = expand_summaries(given, Columns("model", (), ("error",)))
        >>> len(runs), f"{runs['error'].mean():.6g} +- {runs['error'].std():.6g}"
        (5, '6.61 +- 0.16')
    """
    if len(columns.values) > 1:
        raise DataError("--value: a table of means and standard deviations has one column of means")
    deviation, count = _spread_of(table)
    (mean,) = columns.values
    own = [columns.arm, *levels_of(columns)]
    if (twice := table.duplicated(own, keep=False)).any():
        first, second = (np.flatnonzero(twice)[:2] + 1).tolist()
        raise DataError(f"rows {first} and {second} are of one arm; expected one row for each, or --factor")
    parts = []
    for place, row in enumerate(table.to_dict("records"), start=1):
        center, spread, number = (_number(row[name], name, place) for name in (mean, deviation, count))
        if number != int(number) or number < 2 or spread <= 0:
            raise DataError(
                f"row {place}: {deviation} is {spread:g} and {count} is {number:g}; expected a standard deviation above"
                " 0 of two runs or more"
            )
        if number > MOST_RUNS:
            raise DataError(
                f"row {place}: {count} is {number:,.0f}; expected the number of runs, at most {MOST_RUNS:,}"
            )
        runs = pd.DataFrame({name: row[name] for name in own}, index=range(int(number)))
        parts.append(runs.assign(**{mean: center + spread * _scores(int(number))}))
    said = (
        f"Each row is an arm: {mean} is the mean of its runs, {deviation} their standard deviation and {count} their"
        " number. These allow Behrens and Fisher's tests alone, without pairs and without failed runs."
    )
    return pd.concat(parts, ignore_index=True), said


def collapse_runs(runs: pd.DataFrame, value: str) -> pd.DataFrame:
    """Return a row per arm again, as `expand_summaries` takes it.

    Args:
        runs: a row per run, as `expand_summaries` returns it.
        value: the column with the means.
    """
    own = [str(name) for name in runs.columns if name != value]
    found = runs.groupby(own, sort=False)[value].agg(["mean", "std", "count"]).reset_index()
    found[["mean", "std"]] = found[["mean", "std"]].round(12)
    return found.rename(columns={"mean": value, "std": "sd", "count": "n"})


def _scores(number: int) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """Return values with mean 0 and standard deviation 1 (with n - 1), shape [number]."""
    scores = scipy.special.ndtri((np.arange(number) + 0.5) / number)
    return np.asarray(scores / scores.std(ddof=1))


def _find(names: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return the columns that have such a name, or one that ends with it as `error_sd` does."""
    ends = tuple(f"_{one}" for one in known)
    return [name for name in names if f"_{short_name(name)}".endswith(ends)]


def _spread_of(table: pd.DataFrame) -> tuple[str, str]:
    """Return the columns with standard deviations and numbers of runs."""
    names = [str(name) for name in table.columns]
    for what, known in (("standard deviation", DEVIATIONS), ("number of runs", COUNTS)):
        if len(found := _find(names, known)) > 1:
            raise DataError(f"columns {join(found)} may all be the {what}; keep one of them")
    return _find(names, DEVIATIONS)[0], _find(names, COUNTS)[0]


def _number(value: object, name: str, row: int) -> float:
    try:
        number = float(str(value))
    except ValueError:
        number = float("nan")
    if not np.isfinite(number):
        raise DataError(f"row {row}: {name} is {value!r}; expected a number")
    return number
