"""Power: how many seeds an effect needs to be found."""

import math

from scipy import stats

LARGEST_PLAN = 10_000
"""`seeds_to_decide` looks no further than a study may have seeds."""


def power(effect_size: float, n: int, alpha: float = 0.05) -> float:
    """Return the power of the two-sided paired t test by the noncentral t (Cohen 1988).

    Args:
        effect_size: true mean of the differences / their standard deviation.
        n: pairs, at least 2.
        alpha: level of the test.
    """
    # scipy's noncentral t is NaN far out, where the power is 1 to every digit anyway
    shift = min(abs(effect_size), 30.0) * math.sqrt(n)
    critical = stats.t.isf(alpha / 2, n - 1)
    # at most normal.cdf(-shift), and NaN in scipy for large shifts
    wrong_side = stats.nct.cdf(-critical, n - 1, shift) if shift < 5 else 0.0
    return float(stats.nct.sf(critical, n - 1, shift) + wrong_side)


def seeds_to_decide(effect_size: float, wanted: float = 0.8, alpha: float = 0.05) -> int | None:
    """Return the smallest number of pairs at which the paired t test finds an effect with the wanted power.

    Args:
        effect_size: mean of the differences / their standard deviation, taken as true.
        wanted: power, between 0 and 1.
        alpha: level of the two-sided test.

    Returns:
        None where there is no effect, or more than 10,000 pairs would be needed.
    """
    if effect_size == 0 or power(effect_size, LARGEST_PLAN, alpha) < wanted:
        return None
    low, high = 1, LARGEST_PLAN  # power below wanted at low, reached at high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(effect_size, middle, alpha) >= wanted else (middle, high)
    return high
