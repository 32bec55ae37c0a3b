"""Variance components: by hand, against the known truth in simulations, and designs."""

import itertools

import numpy as np
import pytest

from leadline.analysis.stats.samples import StatisticsError
from leadline.analysis.stats.variance_components import orthogonal_array, variance_components, variance_from_images


@pytest.mark.parametrize(("levels", "columns"), [(3, 1), (3, 3), (5, 2), (5, 5), (7, 4), (11, 5)])
def test_any_two_levels_of_two_columns_meet_once(levels: int, columns: int) -> None:
    rows = orthogonal_array(levels, columns)
    assert len(rows) == levels**2
    for one, other in itertools.combinations(zip(*rows, strict=True), 2):
        assert set(zip(one, other, strict=True)) == set(itertools.product(range(levels), repeat=2))


@pytest.mark.parametrize(("levels", "columns"), [(4, 2), (3, 4), (5, 0)])
def test_there_is_no_such_array(levels: int, columns: int) -> None:
    with pytest.raises(StatisticsError, match="at least as many as sources"):
        orthogonal_array(levels, columns)


def test_a_balanced_table_by_hand() -> None:
    """Row means 1, 4, 10 about 5, column means 4, 5, 6, and 2, -1, -1, ... left in every row and column.

    Mean squares: 3 (16 + 1 + 25) / 2 = 63; 3 (1 + 0 + 1) / 2 = 3; left, (3 x 4 + 6 x 1) / 4 = 4.5.
    """
    left = np.array([[2, -1, -1], [-1, 2, -1], [-1, -1, 2]])
    table = np.array([1, 4, 10])[:, None] + np.array([-1, 0, 1]) + left
    first, second = zip(*orthogonal_array(3, 2), strict=True)
    a, b, rest = variance_components(table.ravel(), {"a": first, "b": second})
    assert a.variance == pytest.approx((63 - 4.5) / 3)
    assert b.variance == 0
    assert rest.variance == pytest.approx(4.5)
    assert a.share == pytest.approx(19.5 / 24)
    assert a.low < a.share < a.high


def test_what_images_give_by_hand() -> None:
    """Means over two trainings 0, 0.5, 1, with variance 1/4; within, 0, 1/2, 0: (1/4 - 1/6 / 2) / 3."""
    assert variance_from_images([[0, 0, 1], [0, 1, 1]])[0] == pytest.approx((1 / 4 - 1 / 12) / 3)


def test_shares_are_covered_as_they_say() -> None:
    """Three sources, an interaction of two of them and other images; 95% intervals, so within 3.5 errors of 300."""
    truth = {"a": 1.0, "b": 0.3, "c": 0.0, "images": 0.4, "": 0.8}
    share = {name: one / sum(truth.values()) for name, one in truth.items()}
    rows = orthogonal_array(5, 3)
    columns = dict(zip("abc", zip(*rows, strict=True), strict=True))
    draw, covered = np.random.default_rng(1), dict.fromkeys(truth, 0)
    for number in range(300):
        y = np.zeros(25)
        for name, levels in columns.items():
            y += draw.normal(0, truth[name] ** 0.5, 5)[list(levels)]
        y += draw.normal(0, 0.5**0.5, (5, 5))[list(columns["a"]), list(columns["c"])]  # together, not by themselves
        y += draw.normal(0, 0.3**0.5, 25)
        images = 0.4 * draw.chisquare(300, 4001) / 300
        for one in variance_components(y, columns, ("images", images), seed=number):
            covered[one.name] += one.low <= share[one.name] <= one.high
    assert all(count >= 0.905 * 300 for count in covered.values()), covered


def test_values_that_cannot_be_divided() -> None:
    first, second = zip(*orthogonal_array(3, 2), strict=True)
    with pytest.raises(StatisticsError, match="no complete orthogonal array"):
        variance_components([1.0] * 8, {"a": first[:8], "b": second[:8]})
    with pytest.raises(StatisticsError, match="no complete orthogonal array"):
        variance_components(np.arange(9), {"a": first, "b": first})
    with pytest.raises(StatisticsError, match="all values are equal"):
        variance_components([1.0] * 9, {"a": first, "b": second})
