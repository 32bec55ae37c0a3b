"""Results of runs that Leadline did not train: from a table with a row per run to what is compared."""

from leadline.analysis.runs.columns import find_columns
from leadline.analysis.runs.comparison import (
    Compared,
    Options,
    check_margins,
    choose_pairs,
    describe_metric,
    match_keys,
)
from leadline.analysis.runs.examples import ExampleDifferences, compare_examples, examples_table, summary_table
from leadline.analysis.runs.predictions import to_npz
from leadline.analysis.runs.summaries import collapse_runs
from leadline.analysis.runs.table import Given, compare_table

__all__ = [
    "Compared",
    "ExampleDifferences",
    "Given",
    "Options",
    "check_margins",
    "choose_pairs",
    "collapse_runs",
    "compare_examples",
    "compare_table",
    "describe_metric",
    "examples_table",
    "find_columns",
    "match_keys",
    "summary_table",
    "to_npz",
]
