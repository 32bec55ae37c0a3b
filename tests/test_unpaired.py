"""Two separate samples: Welch's t, equivalence, permutations and failures, against scipy and by hand."""

import doctest
import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from leadline.analysis.stats import StatisticsError, permutation_p, unpaired, unpaired_equivalence_p
from leadline.analysis.stats.decisions import unpaired_with_failures

A, B = [5.1, 6.3, 7.2, 5.9], [8.0, 9.4, 10.1, 11.7, 9.0]


def test_welch_is_scipys() -> None:
    found = unpaired(A, B)
    oracle = stats.ttest_ind(A, B, equal_var=False)
    ends = oracle.confidence_interval(0.95)
    assert found.difference == pytest.approx(np.mean(A) - np.mean(B))
    assert found.t_p == pytest.approx(oracle.pvalue)
    assert found.ci95 == pytest.approx((ends.low, ends.high))
    assert (found.n_a, found.n_b, found.n) == (4, 5, 4)


def test_by_hand() -> None:
    """Samples 1, 3 and 2, 6: means 2 and 4, variances 2 and 8, error sqrt(1 + 4), 25 / (1 + 16) degrees of freedom."""
    found = unpaired([1, 3], [2, 6])
    assert found.difference == -2
    assert found.sd == pytest.approx(math.sqrt(5) * math.sqrt(2))
    assert found.t_p == pytest.approx(2 * stats.t.sf(2 / math.sqrt(5), 25 / 17))
    assert found.effect_size == pytest.approx(-2 / math.sqrt(5))
    # of the six ways to divide 1, 2, 3, 6 in two, those with sums 3, 4, 8 and 9 are as far apart as 4 and 8
    assert found.p == pytest.approx(4 / 6)
    assert found.p_smallest == pytest.approx(2 / 6)


def test_permutations_are_scipys() -> None:
    def apart(x: np.ndarray, y: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.abs(np.mean(x, axis=axis) - np.mean(y, axis=axis))

    oracle = stats.permutation_test((A, B), apart, n_resamples=np.inf, alternative="greater")
    assert permutation_p(A, B) == pytest.approx(oracle.pvalue)


def test_drawn_permutations_agree_with_welch() -> None:
    draw = np.random.default_rng(3)
    a, b = draw.normal(0, 1, 30), draw.normal(0.4, 1, 30)
    assert permutation_p(a, b) == pytest.approx(stats.ttest_ind(a, b).pvalue, abs=0.01)


def test_equivalence_is_two_one_sided_tests() -> None:
    above = stats.ttest_ind(A, np.array(B) - 4, equal_var=False, alternative="greater").pvalue
    below = stats.ttest_ind(A, np.array(B) + 4, equal_var=False, alternative="less").pvalue
    assert unpaired_equivalence_p(A, B, 4) == pytest.approx(max(above, below))


@given(st.lists(st.integers(0, 9), min_size=2, max_size=6), st.lists(st.integers(0, 9), min_size=2, max_size=6))
@settings(max_examples=40, deadline=None)
def test_the_order_of_samples_and_a_shift_change_nothing_else(a: list[int], b: list[int]) -> None:
    one, other, shifted = unpaired(a, b), unpaired(b, a), unpaired(np.array(a) + 50, np.array(b) + 50)
    assert (one.t_p, one.p) == pytest.approx((other.t_p, other.p))
    assert one.difference == pytest.approx(-other.difference)
    assert (one.t_p, one.p) == pytest.approx((shifted.t_p, shifted.p))


def test_equal_values_and_single_ones() -> None:
    same = unpaired([3, 3], [3, 3])
    assert (same.t_p, same.p, same.effect_size) == (1.0, 1.0, None)
    assert unpaired([3, 3], [4, 4]).t_p == 0
    assert unpaired([3, 3], [4, 4], resolution=1.0).t_p > 0.1
    assert unpaired([3], [4, 5]).ci95 is None
    with pytest.raises(StatisticsError, match="not finite"):
        unpaired([3, math.nan], [4, 5])


def test_failures_count_as_worse_than_any_value() -> None:
    lower, upper = [1.0, 1.1, 1.2, 1.3, 1.4, 1.5], [2.0, 2.1, 2.2, 2.3, 2.4, 2.5]
    p = unpaired(lower, upper).t_p
    # four failures of the arm with the lower errors outweigh its six better values
    assert unpaired_with_failures(lower, upper, 4, 0, p, False).p > 0.05
    assert unpaired_with_failures(lower, upper, 0, 0, p, False) == unpaired_with_failures(lower, upper, 3, 3, p, False)
    by_count = unpaired_with_failures(lower[:1], upper, 9, 0, None, False)
    assert by_count.ground == "failures"
    assert by_count.sign == 1
    assert by_count.p == pytest.approx(stats.fisher_exact([[9, 1], [0, 6]]).pvalue)


def test_examples() -> None:
    tried = doctest.testmod(sys.modules["leadline.analysis.stats.unpaired"])
    assert tried.attempted and not tried.failed
