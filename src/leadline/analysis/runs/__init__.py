"""Results of runs that Leadline did not train: from a table with a row per run to what is compared."""

from leadline.analysis.runs.columns import Columns, find_columns
from leadline.analysis.runs.comparison import (
    Compared,
    Options,
    check_margins,
    choose_pairs,
    compare_runs,
    describe_metric,
    match_keys,
)
from leadline.analysis.runs.names import fill_from_names

__all__ = [
    "Columns",
    "Compared",
    "Options",
    "check_margins",
    "choose_pairs",
    "compare_runs",
    "describe_metric",
    "fill_from_names",
    "find_columns",
    "match_keys",
]
