"""From what a user gives, a table, a file, a folder or predictions, to the comparison of its runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from leadline.analysis.runs.columns import find_columns
from leadline.analysis.runs.comparison import Compared, Options, compare_runs
from leadline.analysis.runs.logs import RUN
from leadline.analysis.runs.names import fill_from_names
from leadline.analysis.runs.predictions import ERROR, Predictions, computed_metrics, read_predictions
from leadline.analysis.runs.readers import read_runs
from leadline.analysis.runs.summaries import (
    describe_unused_spread,
    expand_summaries,
    is_summary,
    without_spread,
)
from leadline.errors import DataError

Source = pd.DataFrame | Path


@dataclass(frozen=True)
class Given:
    """What is said of the columns of a table; the rest is guessed. See `Columns`."""

    arm: str | None = None
    pair: Sequence[str] = ()
    values: Sequence[str] = ()
    epoch: str | None = None
    data_set: str | None = None
    factors: Sequence[str] = ()
    pattern: str | None = None  # of the names of runs; see `fill_from_names`


def compare_table(results: Source | None, predictions: Source | None, given: Given, options: Options) -> Compared:
    """Return what the runs of a table show.

    Args:
        results: a frame, or a file or folder that `read_runs` reads; None: the runs are those of `predictions`.
        predictions: what the runs predicted; see `read_predictions`.
        given: which column is what.
        options: how runs are compared.

    Raises:
        DataError: something cannot be read, or does not have what is asked for.
    """
    if results is None and predictions is None:
        raise DataError(
            "nothing to compare: give a table, file or folder of results, predictions, or two arms such as"
            " demo/residual"
        )
    files = (one.name.removesuffix(".gz") for one in (results, predictions) if isinstance(one, Path))
    name = next((Path(one).stem for one in files), "runs")
    predicted = None if predictions is None else _read_predictions(predictions, given)
    table, said = _read_table(results, predicted, given.pattern)
    values = tuple(given.values)
    if predicted is not None and ERROR not in values:
        values = (*values, ERROR)
    moments = predicted is None and is_summary(table)
    computed = [one for one in values if predicted and one not in table and one in computed_metrics()]
    columns = find_columns(
        without_spread(table) if moments else table.assign(**dict.fromkeys(computed, 0.0)),
        given.arm,
        given.pair,
        values,
        given.epoch,
        given.data_set,
        given.factors,
        paired=not moments,
    )
    if moments:
        table, expanded = expand_summaries(table, columns)
        said = (*said, expanded)
    else:
        said = (*said, *describe_unused_spread(table, columns))
    return compare_runs(table, columns, options, name, said, predicted, moments)


def _read_predictions(source: Source, given: Given) -> Predictions:
    own = (given.arm, *given.pair, given.data_set, *given.factors)
    return read_predictions(source, given.pattern, [one for one in own if one is not None])


def _read_table(
    results: Source | None, predicted: Predictions | None, pattern: str | None
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return a row per run, or per run and epoch, and what is said of how it came about."""
    said = () if predicted is None else predicted.said
    if results is None:
        assert predicted is not None
        return predicted.runs, said
    if isinstance(results, Path):
        results, read = read_runs(results)
        said = (*read, *said)
    table = results.reset_index(drop=True).rename(columns=str)
    # a pattern is that of the predictions, if the table has no names of runs
    table, filled = fill_from_names(table, pattern if predicted is None or RUN in table else None)
    return table, (*said, *filled)
