"""Two separate samples: difference, equivalence, permutations and failures, against scipy and by hand."""

import doctest
import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate, stats

from leadline.analysis.stats import (
    StatisticsError,
    permutation_p,
    unpaired,
    unpaired_difference_p,
    unpaired_equivalence_p,
)
from leadline.analysis.stats.behrens_fisher import BehrensFisher
from leadline.analysis.stats.decisions import unpaired_with_failures

A, B = [5.1, 6.3, 7.2, 5.9], [8.0, 9.4, 10.1, 11.7, 9.0]


def test_two_values_each_have_a_cauchy_distribution() -> None:
    """Sums of two Cauchy variables with weights are Cauchy variables, with the sum of the weights."""
    found = unpaired([1, 3], [2, 6])
    weights = 1 + 2
    assert found.t_p == pytest.approx(2 * stats.cauchy.sf(2 / weights))
    half = stats.cauchy.ppf(0.975) * weights
    assert found.ci95 == pytest.approx((-2 - half, -2 + half), rel=1e-3)


def test_many_values_have_welchs_t() -> None:
    draw = np.random.default_rng(2)
    a, b = draw.normal(0, 1, 400), draw.normal(0.1, 2, 300)
    oracle = stats.ttest_ind(a, b, equal_var=False)
    assert unpaired_difference_p(a, b) == pytest.approx(oracle.pvalue, rel=0.01)


@pytest.mark.parametrize("errors", [(1.0, 1.0), (0.3, 1.0), (1.0, 0.4)])
@pytest.mark.parametrize("sizes", [(3, 3), (2, 5), (3, 9), (12, 4)])
def test_the_distribution_is_the_integral_of_scipy(errors: tuple[float, float], sizes: tuple[int, int]) -> None:
    """The density of one t, times the distribution of the other, integrated by scipy."""
    found, (first, second) = BehrensFisher(errors, sizes), (stats.t(size - 1) for size in sizes)
    for value in (0.0, 0.7, 2.0, 6.0):
        limit = value * math.hypot(*errors)
        below = integrate.quad(
            lambda x, limit=limit: first.pdf(x) * second.cdf((-limit - errors[0] * x) / errors[1]), -np.inf, np.inf
        )
        assert found.tail(value) == pytest.approx(below[0], rel=1e-5)
    assert found.tail(found.quantile(0.975)) == pytest.approx(0.025)


def test_an_error_of_zero_leaves_the_other_samples_t() -> None:
    assert BehrensFisher((0.0, 2.0), (30, 4)).tail(2.0) == pytest.approx(stats.t.sf(2, 3))


def test_normal_samples_of_different_sizes_are_not_called_different_too_often() -> None:
    """Two values against six, at the level of one contrast of ten, where Welch's t is wrong seven times as often."""
    draw, level, found, welch = np.random.default_rng(1), 0.005, 0, 0
    for _ in range(1000):
        a, b = draw.normal(0, 3, 2), draw.normal(0, 1, 6)
        found += unpaired_difference_p(a, b) <= level
        welch += stats.ttest_ind(a, b, equal_var=False).pvalue <= level
    assert found <= 12 and welch > 35


def test_by_hand() -> None:
    """Samples 1, 3 and 2, 6: means 2 and 4, variances 2 and 8, error sqrt(1 + 4)."""
    found = unpaired([1, 3], [2, 6])
    assert found.difference == -2
    assert found.sd == pytest.approx(math.sqrt(5) * math.sqrt(2))
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
    center = np.array(B) - np.mean(B) + np.mean(A)
    # the test of a difference has two tails where this one has one
    assert 2 * unpaired_equivalence_p(A, center, 4) == pytest.approx(unpaired_difference_p(A, center + 4))
    assert 2 * unpaired_equivalence_p(A, center + 1, 4) == pytest.approx(unpaired_difference_p(A, center + 3))
    assert unpaired_equivalence_p(A, center + 5, 4) > 0.5


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
    for name in ("unpaired", "behrens_fisher"):
        tried = doctest.testmod(sys.modules[f"leadline.analysis.stats.{name}"])
        assert tried.attempted and not tried.failed


@pytest.mark.parametrize(("few", "many"), [(2, 7), (5, 5), (4, 12)])
def test_welchs_t_is_given_beside(few: int, many: int) -> None:
    random = np.random.default_rng(few)
    a, b = random.normal(1, 2, few), random.normal(0, 1, many)
    found, welch = unpaired(a, b), stats.ttest_ind(a, b, equal_var=False)
    assert found.welch_p == pytest.approx(welch.pvalue, rel=1e-9)
    assert found.welch_ci95 == pytest.approx(tuple(welch.confidence_interval()), rel=1e-9)


def test_welchs_t_of_values_that_do_not_vary() -> None:
    assert unpaired([1.0, 1.0], [1.0, 1.0]).welch_p == 1
    found = unpaired([1.0, 1.0], [2.0, 2.0])
    assert (found.welch_p, found.welch_ci95) == (0, (-1, -1))
