"""The Python API: studies, their results, and training of single networks."""

from leadline.api.comparison import Comparison, compare
from leadline.api.results import Results
from leadline.api.study import PlannedStudy, Study
from leadline.api.training import train
from leadline.api.verdict import Verdict

__all__ = ["Comparison", "PlannedStudy", "Results", "Study", "Verdict", "compare", "train"]
