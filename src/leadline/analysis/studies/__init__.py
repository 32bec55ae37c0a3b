"""Arms of stored studies, compared with one another: from what the studies ask for and hold to what is compared."""

from leadline.analysis.studies.arms import StoredStudy, split_name
from leadline.analysis.studies.comparison import ComparedArms, compare_arms, reads_probabilities_of

__all__ = ["ComparedArms", "StoredStudy", "compare_arms", "reads_probabilities_of", "split_name"]
