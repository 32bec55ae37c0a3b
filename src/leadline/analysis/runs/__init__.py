"""Results of runs that Leadline did not train: from a table with a row per run to what is compared."""

from leadline.analysis.runs.columns import Columns, find_columns
from leadline.analysis.runs.comparison import Compared, Options, compare_runs
from leadline.analysis.runs.examples import ExampleDifferences, examples_table, summary_table
from leadline.analysis.runs.names import fill_from_names
from leadline.analysis.runs.predictions import ERROR, Predictions, computed_metrics, read_predictions, to_npz
from leadline.analysis.runs.summaries import collapse_runs, expand_summaries, is_summary, without_spread

__all__ = [
    "ERROR",
    "Columns",
    "Compared",
    "ExampleDifferences",
    "Options",
    "Predictions",
    "collapse_runs",
    "compare_runs",
    "computed_metrics",
    "examples_table",
    "expand_summaries",
    "fill_from_names",
    "find_columns",
    "is_summary",
    "read_predictions",
    "summary_table",
    "to_npz",
    "without_spread",
]
