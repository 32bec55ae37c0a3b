"""Statistics: arrays in, frozen results out."""

from leadline.stats.agreement import Correlation, McNemar, mcnemar, spearman
from leadline.stats.corrections import benjamini_hochberg, holm
from leadline.stats.effects import (
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
from leadline.stats.power import LARGEST_PLAN, power, seeds_to_decide
from leadline.stats.samples import StatisticsError

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
