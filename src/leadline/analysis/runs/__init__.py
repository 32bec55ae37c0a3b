"""Results of runs that Leadline did not train: from a table with a row per run to what is compared."""

from leadline.analysis.runs.columns import Columns, find_columns
from leadline.analysis.runs.comparison import Compared, Options, compare_runs

__all__ = ["Columns", "Compared", "Options", "compare_runs", "find_columns"]
