"""Oracles: a published trial, exact fractions, scipy's own statistics, and the complete data that censoring hides."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from leadline.analysis.stats import paired
from leadline.analysis.stats.survival import (
    Earlier,
    LogRank,
    earlier,
    first_epoch,
    kaplan_meier,
    log_rank,
    restricted_mean,
    up_to,
)
from leadline.errors import LeadlineError

# Freireich et al. (1963): weeks of remission of 42 children with leukaemia, as Gehan (1965) gives them.
DRUG = [6, 6, 6, 6, 7, 9, 10, 10, 11, 13, 16, 17, 19, 20, 22, 23, 25, 32, 32, 34, 35]
RELAPSED = np.array([1, 1, 1, 0, 1, 0, 1, 0, 0, 1, 1, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0], dtype=bool)
PLACEBO = [1, 1, 2, 2, 3, 4, 4, 5, 5, 8, 8, 8, 8, 11, 11, 12, 12, 15, 17, 22, 23]
ALL = np.ones(21, dtype=bool)

trials = st.lists(st.tuples(st.integers(1, 8), st.booleans()), min_size=1, max_size=12)
Trials = list[tuple[int, bool]]


def split(sample: Trials) -> tuple[list[int], list[bool]]:
    return [time for time, _ in sample], [done for _, done in sample]


def product_limit(sample: Trials) -> dict[int, Fraction]:
    """Kaplan and Meier's product, in fractions."""
    share, curve = Fraction(1), {}
    for moment in sorted({time for time, _ in sample}):
        watched = sum(time >= moment for time, _ in sample)
        share *= 1 - Fraction(sum(time == moment and done for time, done in sample), watched)
        curve[moment] = share
    return curve


# --- the first epoch at the target


@pytest.mark.parametrize(
    ("curve", "epoch"),
    [([0.2, 0.5, 0.9, 0.4, 0.95], 3), ([0.9], 1), ([0.2, 0.89], None), ([math.nan, math.inf, 0.91], 3), ([], None)],
)
def test_first_epoch(curve: list[float], epoch: int | None) -> None:
    assert first_epoch(curve, 0.9) == epoch


# --- Kaplan-Meier


def test_kaplan_meier_on_freireichs_trial() -> None:
    found = kaplan_meier(DRUG, RELAPSED)
    # the published curve falls to these at 6, 7, 10, 13, 16, 22 and 23 weeks
    at = dict(zip(found.times, found.share, strict=True))
    falls = [at[week] for week in (6, 7, 10, 13, 16, 22, 23)]
    assert falls == pytest.approx([0.857, 0.807, 0.753, 0.690, 0.627, 0.538, 0.448], abs=5e-4)
    assert (found.median, kaplan_meier(PLACEBO, ALL).median) == (23.0, 8.0)
    # by hand at 6 weeks: S = 18/21, Greenwood's sum 3/(21 18), and S^exp(±1.96 sqrt(sum)/log S)
    factor = math.exp(1.959964 * math.sqrt(3 / (21 * 18)) / math.log(18 / 21))
    assert (found.low[0], found.high[0]) == pytest.approx(((18 / 21) ** (1 / factor), (18 / 21) ** factor))
    assert found.at_risk[:4] == (21, 17, 16, 15)


@settings(max_examples=80, deadline=None)
@given(trials)
def test_kaplan_meier_against_its_product(sample: Trials) -> None:
    found, exact = kaplan_meier(*split(sample)), product_limit(sample)
    assert found.times == tuple(exact)
    assert found.share == pytest.approx([float(share) for share in exact.values()], abs=1e-12)
    half = [moment for moment, share in exact.items() if share <= Fraction(1, 2)]
    assert found.median == (half[0] if half else None)
    for share, low, high in zip(found.share, found.low, found.high, strict=True):
        inner = 1e-9 < share < 1 - 1e-9
        assert (low is not None and high is not None and 0 <= low < share < high <= 1) if inner else low is high is None


def test_without_censoring_the_curve_is_the_share_left() -> None:
    found = kaplan_meier([3, 1, 2, 2], [True] * 4)
    assert (found.times, found.at_risk) == ((1.0, 2.0, 3.0), (4, 3, 1))
    assert found.share == pytest.approx((0.75, 0.25, 0.0))
    assert found.low[-1] is found.high[-1] is None
    nobody = kaplan_meier([5, 5], [False, False])
    assert (nobody.share, nobody.low, nobody.median) == ((1.0,), (None,), None)


def test_kaplan_meiers_interval_covers() -> None:
    # half are left at 10 log 2
    studies, moment = 600, 10 * math.log(2)
    draw = np.random.default_rng(0)
    inside = 0
    for _ in range(studies):
        time, stop = draw.exponential(10, 40), draw.uniform(5, 40, 40)
        found = kaplan_meier(np.minimum(time, stop), time <= stop)
        place = int(np.searchsorted(found.times, moment, side="right")) - 1
        low, high = found.low[place], found.high[place]
        inside += low is not None and high is not None and low <= 0.5 <= high
    assert inside / studies == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / studies))


# --- restricted mean


@settings(max_examples=80, deadline=None)
@given(trials, st.integers(1, 8))
def test_restricted_mean_is_the_area_under_the_curve(sample: Trials, horizon: int) -> None:
    times, reached = split(sample)
    horizon = min(horizon, max(times))
    curve = product_limit(sample)
    left = [
        Fraction(1),
        *(curve[max(m for m in curve if m <= t)] if min(curve) <= t else Fraction(1) for t in range(1, 9)),
    ]
    area = sum(left[:horizon], Fraction(0))
    # Greenwood: area beyond each event squared, times d/(r (r - d))
    variance = Fraction(0)
    for moment in curve:
        watched = sum(time >= moment for time in times)
        events = sum(time == moment and done for time, done in sample)
        if moment < horizon and watched > events:
            variance += sum(left[moment:horizon], Fraction(0)) ** 2 * Fraction(events, watched * (watched - events))
    found = restricted_mean(times, reached, horizon)
    assert found.mean == pytest.approx(float(area))
    assert found.se == pytest.approx(math.sqrt(variance), abs=1e-12)
    assert 0 <= found.low <= found.mean <= found.high <= horizon + 1e-12
    assert (found.n, found.reached) == (len(times), sum(done and time <= horizon for time, done in sample))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=1, max_size=12), st.integers(1, 25))
def test_restricted_mean_of_those_who_were_all_given_the_horizon(epochs: list[int], horizon: int) -> None:
    reached = [epoch <= horizon for epoch in epochs]
    times = [min(epoch, horizon) for epoch in epochs]
    within = up_to(times, reached, horizon)
    assert within.tolist() == times
    found = restricted_mean(times, reached, horizon)
    assert found.mean == pytest.approx(np.mean(within))
    assert found.se == pytest.approx(np.std(within) / math.sqrt(len(within)), abs=1e-12)


def test_restricted_mean_of_censored_times_is_that_of_the_whole_ones() -> None:
    studies, horizon = 600, 12.0
    draw = np.random.default_rng(1)
    truth = 10 * (1 - math.exp(-horizon / 10))
    means, inside = [], 0
    for _ in range(studies):
        time, stop = draw.exponential(10, 60), draw.uniform(3, 40, 60)
        found = restricted_mean(np.minimum(time, stop), time <= stop, horizon)
        means.append(found.mean)
        inside += found.low <= truth <= found.high
    assert np.mean(means) == pytest.approx(truth, abs=4 * np.std(means) / math.sqrt(studies))
    assert inside / studies > 0.95 - 4 * math.sqrt(0.05 * 0.95 / studies)


def test_intervals_of_restricted_means_in_closed_form() -> None:
    # nobody reached the target: the share left is 0.025^(1/3) at its low end, as Clopper and Pearson's
    nobody = restricted_mean([10] * 3, [False] * 3, 10)
    assert nobody.low == pytest.approx(10 * 0.025 ** (1 / 3), rel=0.03) and nobody.high == 10
    at_once = restricted_mean([0] * 3, [True] * 3, 10)
    assert at_once.low == 0 and at_once.high == pytest.approx(10 * (1 - 0.025 ** (1 / 3)), rel=0.03)
    some = restricted_mean([0, 0, 0, 10, 10], [True] * 3 + [False] * 2, 10)
    exact = stats.binomtest(2, 5).proportion_ci(method="exact")
    assert (some.low / 10, some.high / 10) == pytest.approx((exact.low, exact.high), abs=0.02)
    # the order of the trials does not matter
    assert restricted_mean([1, 4, 6], [True] * 3, 9) == restricted_mean([6, 1, 4], [True] * 3, 9)


def test_pairs_up_to_the_horizon_are_complete_data() -> None:
    # the second arm never arrives at two of its seeds
    a = up_to([5, 6, 7, 8], [True] * 4, 20)
    b = up_to([9, 20, 11, 20], [True, False, True, False], 20)
    assert (b - a).tolist() == [4, 14, 4, 12]
    assert paired(a, b, resolution=1).difference == -8.5
    # what came after the horizon counts as the horizon
    assert up_to([25, 30], [True, False], 20).tolist() == [20, 20]


# --- two groups


def test_log_rank_on_freireichs_trial() -> None:
    found = log_rank(DRUG, RELAPSED, PLACEBO, ALL)
    assert found.statistic**2 == pytest.approx(16.79, abs=5e-3)
    assert found.statistic < 0 and found.p == pytest.approx(4.17e-5, abs=1e-7)


@settings(max_examples=80, deadline=None)
@given(trials, trials)
def test_log_rank_against_mantels_tables(a: Trials, b: Trials) -> None:
    surplus, variance = Fraction(0), Fraction(0)
    for moment in {time for time, done in a + b if done}:
        n_a, n_b = (sum(time >= moment for time, _ in group) for group in (a, b))
        d_a, d_b = (sum(time == moment and done for time, done in group) for group in (a, b))
        n, d = n_a + n_b, d_a + d_b
        surplus += d_a - Fraction(d * n_a, n)
        if n > 1:
            variance += Fraction(d * (n - d) * n_a * n_b, n * n * (n - 1))
    found, back = log_rank(*split(a), *split(b)), log_rank(*split(b), *split(a))
    if variance == 0:
        assert found == LogRank(0.0, 1.0)
    else:
        z = float(surplus) / math.sqrt(variance)
        assert found.statistic == pytest.approx(z, abs=1e-9)
        assert found.p == pytest.approx(2 * stats.norm.sf(abs(z)))
    assert back.statistic == pytest.approx(-found.statistic, abs=1e-9) and back.p == pytest.approx(found.p)


@pytest.mark.slow
def test_log_rank_keeps_its_level_and_finds_what_is_there() -> None:
    studies = 600
    draw = np.random.default_rng(2)
    found = {}
    for slower in (1, 3):
        a, b = draw.exponential(10, (studies, 20)), draw.exponential(10 * slower, (studies, 20))
        p = [log_rank(np.minimum(x, 25), x <= 25, np.minimum(y, 25), y <= 25).p for x, y in zip(a, b, strict=True)]
        found[slower] = np.mean(np.array(p) <= 0.05)
    assert found[1] == pytest.approx(0.05, abs=4 * math.sqrt(0.05 * 0.95 / studies))
    assert found[3] > 0.7


# --- pairs


def test_earlier_by_hand() -> None:
    # a first, b first, together, a given up too soon to say, a not yet there when b was, a there as b was given up
    a, done_a = [5, 9, 7, 3, 6, 4], [True, True, True, False, False, True]
    b, done_b = [8, 6, 7, 6, 6, 4], [True, True, True, True, True, False]
    assert earlier(a, done_a, b, done_b) == Earlier(a_first=2, b_first=2, open=2, p=1.0)
    ten = earlier([5] * 10, [True] * 10, [9] * 10, [False] * 10)
    assert (ten.a_first, ten.p) == (10, 2 / 1024)
    assert earlier([5], [False], [5], [False]) == Earlier(0, 0, 1, 1.0)


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(*[st.integers(1, 5), st.booleans()] * 2), min_size=1, max_size=12))
def test_earlier_is_the_log_rank_test_of_pairs(pairs: list[tuple[int, bool, int, bool]]) -> None:
    a, done_a, b, done_b = zip(*pairs, strict=True)
    found = earlier(a, done_a, b, done_b)
    # each pair a stratum: what Mantel's tables of one against one add up to
    single = [log_rank([p[0]], [p[1]], [p[2]], [p[3]]).statistic for p in pairs]
    assert found.a_first == sum(z > 0 for z in single) and found.b_first == sum(z < 0 for z in single)
    assert found.a_first + found.b_first + found.open == len(pairs)


# --- what cannot be


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: kaplan_meier([], []), "times: shape (0,); expected one dimension"),
        (lambda: kaplan_meier([[1]], [[True]]), "times: shape (1, 1)"),
        (lambda: kaplan_meier([1, math.nan], [True, True]), "times: nan at position 1 is not a time"),
        (lambda: kaplan_meier([1, -2], [True, True]), "times: -2.0 at position 1 is not a time"),
        (lambda: kaplan_meier([1, 2], [True]), "reached has shape (1,) and type bool; expected a true or false"),
        (lambda: kaplan_meier([1, 2], [0, 7]), "type int64"),
        (lambda: kaplan_meier([1, 2], [True, True], confidence=95), "confidence 95 is not between 0 and 1"),
        (lambda: restricted_mean([5, 9], [True, False], 12), "horizon 12 lies beyond 9"),
        (lambda: restricted_mean([5, 9], [True, True], 0), "horizon 0 is not a number above 0"),
        (lambda: restricted_mean([5, 9], [True, True], math.nan), "horizon nan is not"),
        (
            lambda: up_to([5, 9], [True, False], 12),
            "9 at position 1 was not the target's and lies before the horizon 12",
        ),
        (lambda: log_rank([1], [True], [math.inf], [True]), "times_b: inf at position 0"),
        (lambda: earlier([1, 2], [True, True], [1], [True]), "times_a has 2 values and times_b has 1"),
        (lambda: first_epoch([[1.0]], 0.5), "curve: shape (1, 1)"),
        (lambda: first_epoch([1.0], math.nan), "target nan is not finite"),
    ],
)
def test_impossible_input_is_one_line(call: object, message: str) -> None:
    assert callable(call)
    with pytest.raises(LeadlineError) as caught:
        call()
    assert message in str(caught.value) and "\n" not in str(caught.value)
