"""Statistics: arrays in, frozen results out."""

from leadline.analysis.stats.agreement import Correlation, McNemar, mcnemar, spearman
from leadline.analysis.stats.corrections import benjamini_hochberg, holm
from leadline.analysis.stats.effects import (
    EXACT_PAIRS,
    Decision,
    Paired,
    Summary,
    decide,
    paired,
    sign_flip_p,
    summarise,
    t_interval,
)
from leadline.analysis.stats.power import LARGEST_PLAN, power, seeds_to_decide
from leadline.analysis.stats.samples import StatisticsError

__all__ = [
    "EXACT_PAIRS",
    "LARGEST_PLAN",
    "Correlation",
    "Decision",
    "McNemar",
    "Paired",
    "StatisticsError",
    "Summary",
    "benjamini_hochberg",
    "decide",
    "holm",
    "mcnemar",
    "paired",
    "power",
    "seeds_to_decide",
    "sign_flip_p",
    "spearman",
    "summarise",
    "t_interval",
]
