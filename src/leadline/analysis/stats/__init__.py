"""Statistics: arrays in, frozen results out."""

from leadline.analysis.stats.agreement import Correlation, McNemar, mcnemar, spearman
from leadline.analysis.stats.classes import Reliability, class_errors, confusion_matrix, reliability
from leadline.analysis.stats.corrections import benjamini_hochberg, benjamini_hochberg_both, holm, holm_both
from leadline.analysis.stats.decisions import (
    LEVEL,
    DifferenceTest,
    Outcome,
    choose_word,
    difference_with_failures,
    unpaired_with_failures,
)
from leadline.analysis.stats.effects import (
    EXACT_PAIRS,
    Decision,
    Effect,
    Paired,
    Summary,
    decide,
    difference_p,
    equivalence_p,
    paired,
    sign_flip_p,
    summarise,
    t_interval,
)
from leadline.analysis.stats.power import LARGEST_PLAN, SeedsForWord, power, seeds_for_power, seeds_for_word
from leadline.analysis.stats.samples import StatisticsError, cut, least_spread
from leadline.analysis.stats.unpaired import (
    Unpaired,
    permutation_p,
    unpaired,
    unpaired_difference_p,
    unpaired_equivalence_p,
)

__all__ = [
    "EXACT_PAIRS",
    "LARGEST_PLAN",
    "LEVEL",
    "Correlation",
    "Decision",
    "DifferenceTest",
    "Effect",
    "McNemar",
    "Outcome",
    "Paired",
    "Reliability",
    "SeedsForWord",
    "StatisticsError",
    "Summary",
    "Unpaired",
    "benjamini_hochberg",
    "benjamini_hochberg_both",
    "choose_word",
    "class_errors",
    "confusion_matrix",
    "cut",
    "decide",
    "difference_p",
    "difference_with_failures",
    "equivalence_p",
    "holm",
    "holm_both",
    "least_spread",
    "mcnemar",
    "paired",
    "permutation_p",
    "power",
    "reliability",
    "seeds_for_power",
    "seeds_for_word",
    "sign_flip_p",
    "spearman",
    "summarise",
    "t_interval",
    "unpaired",
    "unpaired_difference_p",
    "unpaired_equivalence_p",
    "unpaired_with_failures",
]
