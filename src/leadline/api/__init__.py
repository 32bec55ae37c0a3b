"""The way in: a study that plans and runs itself, its results, and training alone."""

from leadline.api.results import Results
from leadline.api.study import PlannedStudy, Study
from leadline.api.training import train
from leadline.api.verdict import Verdict

__all__ = ["PlannedStudy", "Results", "Study", "Verdict", "train"]
