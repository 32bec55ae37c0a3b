"""How far apart two sample means lie by chance, beside the standard error of their difference."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import optimize, special

from leadline.analysis.stats.samples import Floats

# probabilities up to one half, ever closer together at 0, and what each stands for (Takahasi & Mori 1974)
_STEPS = np.arange(-200, 1) / 50
PROBABILITIES = special.expit(2 * np.sinh(_STEPS))
WEIGHTS = 2 / 50 * np.cosh(_STEPS) * PROBABILITIES * (1 - PROBABILITIES) * np.where(_STEPS == 0, 0.5, 1.0)


@lru_cache(maxsize=64)
def _quantiles(freedom: int) -> Floats:
    """Return Student's t at the probabilities, shape [201]."""
    return np.asarray(special.stdtrit(freedom, PROBABILITIES))


@dataclass(frozen=True)
class BehrensFisher:
    """The distribution of a difference of two means over its standard error, where the true means are equal.

    Two independent t, weighted by the errors of the means (Behrens 1929; Fisher 1935). Tests by it hold their level for
    normal samples of any sizes and spreads (Robinson 1976). Student's t with the degrees of freedom of Welch (1947) and
    Satterthwaite (1946), which is usual, does not where a sample has few values: at the level 0.5% it calls samples of
    2 and 6 different in up to 5% of cases, and of 3 and 3 in up to 1%.
    """

    errors: tuple[float, float]  # standard errors of the two means; one of them at least above 0
    sizes: tuple[int, int]  # of the samples, two at least

    @property
    def error(self) -> float:
        """The standard error of the difference."""
        return math.hypot(*self.errors)

    def tail(self, t: float) -> float:
        """Return the probability of a value below -t.

        Example:
            >>> round(BehrensFisher((3.0, 4.0), (2, 2)).tail(0.0), 6)
            0.5
        """
        (small, few), (large, many) = sorted(zip(self.errors, self.sizes, strict=True))
        outer = small * _quantiles(few - 1)
        both = (special.stdtr(many - 1, (-t * self.error + side * outer) / large) for side in (-1, 1))
        return float(sum(WEIGHTS @ one for one in both))

    def quantile(self, probability: float) -> float:
        """Return the t below which a value lies with this probability, above one half."""
        most = 2 * float(special.stdtrit(min(self.sizes) - 1, probability))  # two equal weights add up to sqrt(2)
        return float(optimize.brentq(lambda t: self.tail(t) - (1 - probability), 0.0, most, xtol=1e-12, rtol=1e-12))
