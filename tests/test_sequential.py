"""Oracles: closed forms at two seeds, simulation of whole paths with fixed seeds, and the definition of an interval."""

import math
from dataclasses import astuple
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from leadline.analysis.stats import paired, t_interval
from leadline.analysis.stats.sequential import (
    CONFIDENCES,
    FIRST_ROUND,
    adjust_for_stopping,
    confidence_of_each,
    critical_values,
    decide,
    interval_at_any_time,
    next_round,
    odds_against_even,
    odds_of_uneven_failures,
    running_interval,
)
from leadline.errors import LeadlineError


def margin_of_error(rate: float, studies: int) -> float:
    """Four standard errors of a rate seen over so many simulated studies."""
    return 4 * math.sqrt(rate * (1 - rate) / studies)


def ever_wrong(differences: Any, planned: int, resolution: float = 0.0, truth: float = 0.0) -> float:
    """Share of studies that at some look leave out the truth; the rows are studies."""
    low, high = running_interval(differences, 0.95, resolution, planned)
    return float(np.mean(((low > truth) | (high < truth)).any(axis=1)))


# --- critical values


@pytest.mark.parametrize(("planned", "confidence"), [(2, 0.95), (5, 0.9), (20, 0.95), (20, 0.999), (50, 0.5)])
def test_at_two_seeds_the_critical_value_is_cauchys(planned: int, confidence: float) -> None:
    spent = 0.9 * (1 - confidence) * (2 / planned) ** 1.5
    found = critical_values(planned, confidence, 2)
    assert found[0] == math.inf
    # t with one degree of freedom has a closed form
    assert found[1] == pytest.approx(math.tan(math.pi / 2 * (1 - spent)), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("planned", "seeds", "studies"), [(20, 80, 40_000), (3, 12, 100_000), (100, 100, 20_000)])
def test_the_error_is_spent_as_promised(planned: int, seeds: int, studies: int) -> None:
    # |t| over whole paths, straight from its definition
    d = np.random.default_rng(planned).standard_normal((studies, seeds))
    n = np.arange(2, seeds + 1)
    mean = d.cumsum(axis=1)[:, 1:] / n
    sd = np.sqrt(((d**2).cumsum(axis=1)[:, 1:] - n * mean**2) / (n - 1))
    exceeded = np.abs(mean) / (sd / np.sqrt(n)) > critical_values(planned, 0.95, seeds)[1:]
    spent = np.logical_or.accumulate(exceeded, axis=1).mean(axis=0)
    for look in {2, 3, 5, 10, planned, seeds} - set(range(seeds + 1, 100)):
        before = look <= planned
        promised = 0.05 * (0.9 * (look / planned) ** 1.5 if before else 1 - 0.1 * planned / look)
        # cells err to the wide side, by less than a hundredth
        assert spent[look - 2] == pytest.approx(promised, abs=margin_of_error(promised, studies) + 0.01 * promised)


def test_critical_values_against_the_single_look() -> None:
    many = critical_values(20, 0.95, 20)
    n = np.arange(2, 21)
    assert (many[1:] > stats.t.isf(0.025, n - 1)).all()
    # the last look pays a quarter for all those before it; sharing alike among 19 looks would pay two thirds
    assert many[-1] / stats.t.isf(0.025, 19) < 1.26 < stats.t.isf(0.025 / 19, 19) / stats.t.isf(0.025, 19)
    assert (np.diff(many[1:]) < 0).all()


@pytest.mark.slow
def test_critical_values_do_not_depend_on_how_far_one_looks() -> None:
    far = critical_values(8, 0.9, 40)
    for seeds in (1, 2, 7, 8, 9, 17):
        assert (critical_values(8, 0.9, seeds) == far[:seeds]).all()
    far[:] = 0  # belongs to the caller
    assert critical_values(8, 0.9, 3)[2] > 0


@pytest.mark.slow
@pytest.mark.parametrize("confidence", CONFIDENCES)
@pytest.mark.parametrize("planned", [2, 7, 60])
def test_critical_values_at_the_ends(planned: int, confidence: float) -> None:
    found = critical_values(planned, confidence, 60)[1:]
    assert np.isfinite(found).all() and (found > stats.t.isf((1 - confidence) / 2, np.arange(1, 60))).all()


@pytest.mark.slow
def test_more_confidence_reaches_further() -> None:
    rows = [critical_values(10, confidence, 20)[1:] for confidence in (0.5, 0.8, 0.95, 0.99, 0.9999)]
    assert all((wide > narrow).all() for narrow, wide in pairwise(rows))


# --- what is promised, by simulation of whole studies, looked at after every seed


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "studies"), [(20, 40_000), (50, 20_000), (100, 10_000)])
def test_no_difference_is_seldom_found_over_the_whole_study(seeds: int, studies: int) -> None:
    # two arms that share what a seed does to both, with unequal noise of their own
    draw = np.random.default_rng(seeds)
    shared = draw.normal(5, 2, (studies, seeds))
    a, b = shared + draw.normal(0, 0.3, (studies, seeds)), shared + draw.normal(0, 0.6, (studies, seeds))
    rate = ever_wrong(a - b, seeds)
    assert rate == pytest.approx(0.045, abs=margin_of_error(0.045, studies))
    assert rate <= 0.05
    # the interval for a single look, looked at after every seed, is wrong several times as often
    looks = [t_interval((a - b)[:2000, :n]) for n in range(2, seeds + 1)]
    assert np.mean(np.any([(low > 0) | (high < 0) for low, high in looks], axis=0)) > 0.2


@pytest.mark.slow
@pytest.mark.parametrize(("truth", "scale"), [(0.7, 0.2), (-40.0, 1e-3), (0.0, 1e6)])
def test_coverage_holds_at_all_looks_at_once_and_past_the_plan(truth: float, scale: float) -> None:
    studies = 20_000
    d = np.random.default_rng(3).normal(truth, scale, (studies, 60))
    assert ever_wrong(d, 15, truth=truth) <= 0.05 + margin_of_error(0.05, studies)
    assert ever_wrong(d, 15, truth=truth) > 0.03


@pytest.mark.parametrize("error", [0.0005, 0.005, 0.05])
@pytest.mark.parametrize("seeds", [20, 50])
def test_false_positives_where_errors_move_in_steps(error: float, seeds: int) -> None:
    # equal arms on 360 test images: an image is 0.28%
    studies, step = 20_000, 100 / 360
    wrong = np.random.default_rng(seeds).binomial(360, error, (2, studies, seeds)) * step
    assert ever_wrong(wrong[0] - wrong[1], seeds, resolution=step) <= 0.05 + margin_of_error(0.05, studies)


@pytest.mark.parametrize("often", [0.07, 0.2, 0.5])
def test_coverage_where_most_differences_are_equal(often: float) -> None:
    # one image more is wrong at some seeds, none at the others: t alone is too sure, and the floor holds
    studies = 10_000
    d = (np.random.default_rng(1).random((studies, 50)) < often).astype(float)
    assert ever_wrong(d, 50, resolution=1.0, truth=often) <= 0.05 + margin_of_error(0.05, studies)
    assert ever_wrong(d, 50, resolution=0.0, truth=often) > (0.07 if often < 0.5 else 0.045)


@pytest.mark.parametrize("contrasts", [2, 6])
def test_several_contrasts_hold_together(contrasts: int) -> None:
    # all against one arm, whose noise they share
    studies = 10_000
    draw = np.random.default_rng(contrasts)
    base, others = draw.standard_normal((1, studies, 20)), draw.standard_normal((contrasts, studies, 20))
    low, high = running_interval(others - base, confidence_of_each(0.95, contrasts), 0.0, 20)
    rate = np.mean(((low[..., -1] > 0) | (high[..., -1] < 0)).any(axis=0))
    assert 0.015 < rate <= 0.05 + margin_of_error(0.05, studies)


@pytest.mark.parametrize("truth", [0.5, -0.5])
def test_equivalence_is_seldom_claimed_at_the_margin(truth: float) -> None:
    studies = 20_000
    low, high = running_interval(np.random.default_rng(2).normal(truth, 0.3, (studies, 20)), 0.95, 0.0, 20)
    claimed = np.mean(((low > -0.5) & (high < 0.5)).any(axis=1))
    assert claimed <= 0.025 + margin_of_error(0.025, studies)


def test_large_effects_are_decided_soon_and_small_ones_at_the_end() -> None:
    draw = np.random.default_rng(9)
    mean_seeds = {}
    for effect in (0.7, 1.5, 3.0):
        low, _ = running_interval(draw.normal(effect, 1, (4_000, 20)), 0.95, 0.0, 20)
        decided = low > 0
        mean_seeds[effect] = np.where(decided.any(axis=1), decided.argmax(axis=1) + 1, 20).mean()
        # 19, 6 and 4 seeds of a fixed design have 80% power
        assert decided.any(axis=1).mean() > (0.7 if effect < 1 else 0.99)
    assert mean_seeds[3.0] < 6 < mean_seeds[1.5] < 9 < mean_seeds[0.7] < 15.5


# --- one study


values = st.floats(-50, 50).map(lambda x: round(x, 2))
studies_of_one = st.lists(values, min_size=1, max_size=12)


def by_definition(d: list[float], confidence: float, resolution: float, planned: int) -> tuple[float, float]:
    """Intersect the looks one by one, until they have nothing in common."""
    low, high = -math.inf, math.inf
    for n in range(2, len(d) + 1):
        sd = float(np.std(d[:n], ddof=1)) if np.ptp(d[:n]) > 0 else 0.0
        spread = max(sd, resolution / 2)
        half = critical_values(planned, confidence, n)[-1] * spread / math.sqrt(n) if spread else math.inf
        lower, upper = max(low, np.mean(d[:n]) - half), min(high, np.mean(d[:n]) + half)
        if lower > upper:
            break
        low, high = lower, upper
    return low, high


@settings(max_examples=80, deadline=None)
@given(studies_of_one, st.sampled_from([0.0, 0.1, 1.0]), st.sampled_from([0.5, 0.95]), st.sampled_from([4, 10]))
def test_the_interval_against_its_definition(
    d: list[float], resolution: float, confidence: float, planned: int
) -> None:
    found = interval_at_any_time(d, confidence, resolution, planned)
    assert (found.low, found.high) == pytest.approx(by_definition(d, confidence, resolution, planned), abs=1e-6)
    assert (found.n, found.confidence, found.planned) == (len(d), confidence, planned)
    assert found.mean == pytest.approx(np.mean(d))
    assert (found.sd is None) == (len(d) == 1)


@settings(max_examples=80, deadline=None)
@given(studies_of_one, st.sampled_from([0.0, 0.5]), st.floats(0, 10))
def test_looks_agree_with_one_another(d: list[float], resolution: float, margin: float) -> None:
    low, high = running_interval(d, 0.8, resolution, 6)
    assert (low[1:] >= low[:-1]).all() and (high[1:] <= high[:-1]).all() and (low <= high).all()
    told = []
    for n in range(1, len(d) + 1):
        found = interval_at_any_time(d[:n], 0.8, resolution, 6)
        assert (found.low, found.high) == (low[n - 1], high[n - 1])
        told.append(decide(d[:n], margin, 0.8, resolution, 6))
    order = ["undecided", "equivalent", "better", "worse"]
    assert told == sorted(told, key=order.index)
    assert not {"better", "worse"} <= set(told)


@settings(max_examples=40, deadline=None)
@given(studies_of_one, st.sampled_from([0.0, 0.5]), st.floats(0, 10))
def test_swapping_the_arms_mirrors_everything(d: list[float], resolution: float, margin: float) -> None:
    there, back = (interval_at_any_time(np.multiply(d, sign), 0.9, resolution, 8) for sign in (1, -1))
    assert (back.low, back.high, back.mean) == (-there.high, -there.low, -there.mean)
    mirrored = {"better": "worse", "worse": "better"}
    found = decide(d, margin, 0.9, resolution, 8)
    assert decide(np.negative(d), margin, 0.9, resolution, 8) == mirrored.get(found, found)


def test_the_mean_of_large_values_keeps_its_spread() -> None:
    d = np.random.default_rng(0).normal(0, 1e-3, 10)
    near, far = interval_at_any_time(d, 0.95, 0.0, 10), interval_at_any_time(d + 1e6, 0.95, 0.0, 10)
    assert far.high - far.low == pytest.approx(near.high - near.low, rel=1e-4)


def test_past_the_plan_single_looks_widen_and_then_narrow() -> None:
    width = critical_values(20, 0.95, 80) / np.sqrt(np.arange(1, 81))
    assert width[19] < width[20] and width[79] < width[39] < width[19]
    low, high = running_interval(np.random.default_rng(4).standard_normal(80), 0.95, 0.0, 20)
    assert high[20] - low[20] <= high[19] - low[19] and high[79] - low[79] < 0.9 * (high[19] - low[19])


def test_few_seeds_and_no_spread() -> None:
    assert astuple(interval_at_any_time([1.5], 0.95, 0.1, 20)) == (1, 1.5, None, -math.inf, math.inf, 0.95, 20)
    # equal differences say nothing of their spread, unless their step is known
    for equal in ([0.0, 0.0, 0.0], [0.3, 0.1 + 0.2, 0.3]):
        assert interval_at_any_time(equal, 0.95, 0.0, 20).high == math.inf
        assert decide(equal, 0.5, 0.95, 0.0, 20) == "undecided"
    found = interval_at_any_time([0.5] * 8, 0.95, 0.5, 20)
    half = critical_values(20, 0.95, 8)[7] * 0.25 / math.sqrt(8)
    assert (found.low, found.high) == pytest.approx((0.5 - half, 0.5 + half))
    # the same floor as the interval of a single look
    assert (found.low + found.high) / 2 == pytest.approx(sum(paired([0.5] * 8, [0] * 8, resolution=0.5).ci95 or ()) / 2)


def test_looks_with_nothing_in_common_leave_the_interval() -> None:
    jump = [1.0, 1.1, 0.9, 1.0, 1.05, 0.95] + [40.0] * 30
    low, high = running_interval(jump, 0.5, 0.0, 6)
    assert (low <= high).all() and low[-1] == low[5] and high[-1] == high[5]
    assert decide(jump, 0.5, 0.5, 0.0, 6) == "worse"


@pytest.mark.parametrize(
    ("d", "decision"),
    [
        (np.tile([-5.1, -4.9], 4), "better"),
        (np.tile([5.1, 4.9], 4), "worse"),
        (np.tile([0.1, -0.1], 6), "equivalent"),
        (np.tile([4.0, -4.0], 6), "undecided"),
        ([-9.0], "undecided"),
        ([], "undecided"),
    ],
)
def test_decide(d: Any, decision: str) -> None:
    assert decide(d, 0.5, 0.95, 0.01, 20) == decision


# --- rounds


@settings(max_examples=60, deadline=None)
@given(st.lists(values, max_size=12), st.sampled_from([0.0, 0.5]), st.floats(0, 10), st.integers(2, 14))
def test_a_round_is_within_its_bounds(d: list[float], resolution: float, margin: float, most: int) -> None:
    added = next_round(d, margin, 0.9, resolution, 10, most)
    if decide(d, margin, 0.9, resolution, 10) != "undecided" or len(d) >= most:
        assert added == 0
    else:
        assert 1 <= added <= max(len(d), FIRST_ROUND) and len(d) + added <= most


def test_a_round_aims_at_a_decision() -> None:
    assert next_round([], 0.2, 0.95, 0.1, 20) == FIRST_ROUND
    # 1 ± 0.3 at 3 seeds: what it takes at 4, 5 and 6 seeds if nothing changes
    d = [0.7, 1.0, 1.3]
    reach = critical_values(20, 0.95, 6)[3:] * 0.3 / np.sqrt([4, 5, 6])
    assert decide(d, 0.2, 0.95, 0.0, 20) == "undecided"
    assert next_round(d, 0.2, 0.95, 0.0, 20) == 1 + int(np.argmax(reach < 1))
    # nothing in sight: as many again, and no more than are left
    flat = [3.0, -3.0] * 4
    assert next_round(flat, 0.2, 0.95, 0.0, 20) == 8 and next_round(flat, 0.2, 0.95, 0.0, 20, most=10) == 2
    assert next_round(flat * 3, 0.2, 0.95, 0.0, 20) == 0 and next_round(flat * 3, 0.2, 0.95, 0.0, 20, most=30) == 6


def test_studies_in_rounds_end_and_are_seldom_wrong() -> None:
    studies = 400
    draw = np.random.default_rng(8)
    wrong = 0
    for d in draw.normal(0, 1, (studies, 20)):
        n = 0
        while added := next_round(d[:n], 0.0, 0.95, 0.0, 20):
            n += added
        assert n <= 20
        wrong += decide(d[:n], 0.0, 0.95, 0.0, 20) != "undecided"
    assert wrong / studies <= 0.05 + margin_of_error(0.05, studies)


# --- what cannot be


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: interval_at_any_time([], 0.95, 0.1, 20), "shape (0,); expected at least one difference"),
        (lambda: interval_at_any_time([[1.0]], 0.95, 0.1, 20), "shape (1, 1); expected one dimension"),
        (lambda: interval_at_any_time([1, math.nan], 0.95, 0.1, 20), "nan at position 1 is not finite"),
        (lambda: running_interval([[1, 2], [math.inf, 1]], 0.95, 0.1, 20), "inf at position 1, 0 is not finite"),
        (lambda: running_interval(3.0, 0.95, 0.1, 20), "shape (); expected at least one"),
        (lambda: interval_at_any_time([1, 2], 95, 0.1, 20), "confidence 95 is not between 0.5 and 0.999999"),
        (lambda: interval_at_any_time([1, 2], math.nan, 0.1, 20), "confidence nan"),
        (lambda: interval_at_any_time([1, 2], 0.95, -0.1, 20), "resolution -0.1 is not"),
        (lambda: interval_at_any_time([1, 2], 0.95, math.inf, 20), "resolution inf is not"),
        (lambda: interval_at_any_time([1, 2], 0.95, 0.1, 1), "planned 1 is not a whole number of seeds from 2 to 400"),
        (lambda: interval_at_any_time([1, 2], 0.95, 0.1, 2.5), "planned 2.5"),
        (lambda: interval_at_any_time([1.0] * 401, 0.95, 0.1, 20), "401 seeds to look at; expected 1 to 400"),
        (lambda: decide([1, 2], -1, 0.95, 0.1, 20), "margin -1 is not"),
        (lambda: decide([], 1, 2, 0.1, 20), "confidence 2 is not"),
        (lambda: next_round([1, 2], math.nan, 0.95, 0.1, 20), "margin nan is not"),
        (lambda: next_round([], 0.1, 0.95, 0.1, 20, most=0), "most 0 is not a number of seeds from 1 to 400"),
        (lambda: confidence_of_each(0.95, 0), "0 contrasts share no confidence"),
        (lambda: confidence_of_each(1.0, 2), "confidence 1.0 is not between"),
    ],
)
def test_impossible_input_is_one_line(call: object, message: str) -> None:
    assert callable(call)
    with pytest.raises(LeadlineError) as caught:
        call()
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_one_contrast_needs_no_more_than_its_own_confidence() -> None:
    assert confidence_of_each(0.95, 1) == pytest.approx(0.95)
    assert confidence_of_each(0.95, 10) == pytest.approx(0.995)


@pytest.mark.slow
def test_a_mean_adjusted_for_stopping_is_nearer_to_the_truth_on_average() -> None:
    draw, raw, adjusted = np.random.default_rng(2), [], []
    for _ in range(200):
        d = draw.normal(0.8, 1, 20)
        low, high = running_interval(d, 0.95, 0.0, 20)
        over = (low > 0) | (high < 0)
        over[:2], over[-1] = False, True
        n = int(over.argmax()) + 1
        raw.append(d[:n].mean())
        looks = list(range(3, n + 1))
        adjusted.append(adjust_for_stopping(raw[-1], d[:n].std(ddof=1), looks, 0.0, 0.95, 0.0, 20, 20))
    error = np.std(adjusted) / math.sqrt(200)
    assert np.mean(raw) - 0.8 > 0.04 and abs(np.mean(adjusted) - 0.8) < 2 * error
    assert adjust_for_stopping(3.0, 1.0, [20], 0.0, 0.95, 0.0, 20, 20) == pytest.approx(3.0, abs=0.05)


def test_odds_of_uneven_failures_rarely_rise_however_often_one_looks() -> None:
    draw, reached = np.random.default_rng(4), 0
    for _ in range(2000):
        a = np.cumsum(draw.random(40) < 0.5)
        reached += any(odds_against_even(int(one), n - int(one)) >= 20 for n, one in enumerate(a, start=1))
    assert reached / 2000 <= 0.05


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_odds_of_uneven_failures_rarely_rise_where_arms_fail_alike(rate: float) -> None:
    draw, reached = np.random.default_rng(6), 0
    for _ in range(1500):
        a, b = draw.random((2, 20)) < rate
        reached += max(odds_of_uneven_failures(a.tolist(), b.tolist())) >= 20
    assert reached / 1500 <= 0.05
