"""Oracles: hand-worked and published examples, scipy's own tests, and simulation with fixed seeds."""

import itertools
import math
import random
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from leadline.analysis.stats import (
    Correlation,
    McNemar,
    Outcome,
    StatisticsError,
    Summary,
    benjamini_hochberg,
    benjamini_hochberg_both,
    decide,
    difference_p,
    difference_with_failures,
    equivalence_p,
    holm,
    holm_both,
    mcnemar,
    paired,
    power,
    seeds_for_power,
    seeds_for_word,
    sign_flip_p,
    spearman,
    summarise,
    t_interval,
)
from leadline.analysis.stats.pairing import ahead_at_a_seed, over_seeds_and_images, pairing
from leadline.analysis.stats.survival import convergence_epoch
from leadline.errors import LeadlineError

# Student (1908), "The probable error of a mean": hours of sleep gained under two drugs, ten patients.
SLEEP_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SLEEP_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
# Fisher (1935), "The design of experiments", section 21: Darwin's maize, height differences in eighths of an inch.
DARWIN = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]


def margin_of_error(rate: float, studies: int) -> float:
    """Four standard errors of a rate seen over so many simulated studies."""
    return 4 * math.sqrt(rate * (1 - rate) / studies)


# --- summaries


def test_summary_by_hand() -> None:
    # mean 40/8 = 5; squared deviations 9+1+1+1+0+0+4+16 = 32, over 7; median (4+5)/2
    assert summarise([2, 4, 4, 4, 5, 5, 7, 9]) == Summary(8, 5.0, pytest.approx(math.sqrt(32 / 7)), 4.5, 2.0, 9.0)


def test_summary_of_one_has_no_deviation_and_of_equals_has_none_left_by_rounding() -> None:
    assert summarise([3.5]) == Summary(1, 3.5, None, 3.5, 3.5, 3.5)
    assert summarise([0.1] * 3).sd == 0.0


# --- paired


def test_paired_by_hand() -> None:
    result = paired([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    # differences 1, 2, 3: mean 2, deviation 1, t = 2 sqrt(3) with 2 degrees of freedom, where Student's t has a
    # closed form: p = 1 - t/sqrt(2 + t^2) = 1 - sqrt(12/14), and the 97.5% point is 0.95/sqrt(2 * 0.975 * 0.025)
    half = 0.95 / math.sqrt(2 * 0.975 * 0.025) / math.sqrt(3)
    assert (result.n, result.difference, result.sd, result.effect_size) == (3, 2.0, 1.0, 2.0)
    assert result.ci95 == pytest.approx((2 - half, 2 + half))
    assert result.t_p == pytest.approx(1 - math.sqrt(12 / 14))
    # of the 8 sign patterns +++ and --- alone are as far from 0
    assert (result.p, result.p_smallest) == (0.25, 0.25)


def test_paired_on_students_sleep_data() -> None:
    result = paired(SLEEP_2, SLEEP_1)
    assert result.difference == pytest.approx(1.58)
    assert result.t_p == pytest.approx(0.002833, abs=5e-7)
    assert result.ci95 == pytest.approx((0.7001142, 2.4598858), abs=5e-8)


def test_fishers_count_on_darwins_maize() -> None:
    # "in 863 cases out of 32,768 the sum is 314 or more", and as many on the other side
    assert sign_flip_p(DARWIN) == 2 * 863 / 32768
    assert paired(DARWIN, [0] * 15).t_p == pytest.approx(0.0497, abs=5e-5)


values = st.floats(-50, 50).map(lambda x: round(x, 2))
pairs = st.lists(st.tuples(values, values), min_size=2, max_size=8)


@settings(max_examples=60, deadline=None)
@given(pairs)
@example([(0.0, 33.0), (0.0, -12.0), (4.5, -15.38), (0.75, 32.5), (33.0, 0.0)])
def test_paired_agrees_with_scipy(sample: list[tuple[float, float]]) -> None:
    a, b = np.array(sample).T
    result = paired(a, b)
    whole = stats.permutation_test(
        (np.round(100 * a), np.round(100 * b)),  # whole numbers, whose equal sums SciPy sees as equal
        lambda x, y, axis: np.sum(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    )
    assert result.p == pytest.approx(whole.pvalue)
    assert result.p is not None and result.p_smallest is not None and result.p >= result.p_smallest
    if result.sd:
        oracle = stats.ttest_rel(a, b)
        assert result.t_p == pytest.approx(oracle.pvalue, rel=1e-6)
        assert result.ci95 == pytest.approx(tuple(oracle.confidence_interval(0.95)), rel=1e-6, abs=1e-9)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(pairs, st.floats(0, 1))
def test_swapping_the_arms_mirrors_everything(sample: list[tuple[float, float]], resolution: float) -> None:
    a, b = np.array(sample).T
    there, back = paired(a, b, resolution=resolution), paired(b, a, resolution=resolution)
    assert back.difference == -there.difference
    assert there.ci95 and back.ci95 and back.ci95 == pytest.approx((-there.ci95[1], -there.ci95[0]))
    assert (back.p, back.t_p) == (there.p, there.t_p)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(pairs, st.floats(0, 1))
def test_no_field_is_nan(sample: list[tuple[float, float]], resolution: float) -> None:
    a, b = np.array(sample).T
    result = paired(a, b, resolution=resolution)
    numbers = [result.difference, result.sd, result.t_p, result.p, result.p_smallest, result.effect_size]
    numbers += [*(result.ci95 or ()), *(result.bca95 or ())]
    assert all(math.isfinite(value) for value in numbers if value is not None)


def test_one_pair_has_a_difference_and_nothing_else() -> None:
    result = paired([3.0], [5.0])
    assert (result.n, result.difference) == (1, -2.0)
    fields = ("sd", "ci95", "t_p", "bca95", "p", "p_smallest", "effect_size")
    assert all(getattr(result, field) is None for field in fields)


def test_equal_differences_collapse_to_a_point() -> None:
    result = paired([1.1, 2.2, 3.3, 4.4], [0.8, 1.9, 3.0, 4.1])  # each 0.3, but for rounding
    assert result.sd == 0.0
    assert result.ci95 == pytest.approx((0.3, 0.3))
    assert (result.t_p, result.p, result.p_smallest) == (0.0, 0.125, 0.125)
    assert result.bca95 is None and result.effect_size is None


def test_no_difference_at_all() -> None:
    result = paired([7.0, 8.0], [7.0, 8.0])
    assert (result.difference, result.ci95, result.t_p, result.p) == (0.0, (0.0, 0.0), 1.0, 1.0)


def test_resolution_widens_an_interval_that_collapsed_by_chance() -> None:
    # two seeds, each one image of 360 worse: t with 1 degree of freedom at 97.5% is tan(0.475 pi)
    step = 100 / 360
    half = math.tan(0.475 * math.pi) * (step / 2) / math.sqrt(2)
    result = paired([5 * step, 6 * step], [4 * step, 5 * step], resolution=step)
    assert result.ci95 == pytest.approx((step - half, step + half))
    assert result.sd == 0.0 and result.effect_size == pytest.approx(2)
    # and leaves a difference alone that is wider spread than rounding makes it
    assert paired([1, 5, 9], [2, 2, 2], resolution=0.5) == paired([1, 5, 9], [2, 2, 2])


def test_many_pairs_draw_their_flips() -> None:
    # the exact distribution of the sum, by adding one integer after the other
    differences = [3, -1, 4, 1, -5, 9, 2, 6, 5, 3, -5, 8, 9, -7, 9, 3, 2, -3, 8, 4, 6, -2, 6, 4, -3]
    ways = {0: 1}
    for d in differences:
        after: dict[int, int] = {}
        for total, count in ways.items():
            for signed in (total + d, total - d):
                after[signed] = after.get(signed, 0) + count
        ways = after
    exact = float(
        Fraction(sum(n for total, n in ways.items() if abs(total) >= sum(differences)), 2 ** len(differences))
    )
    drawn = sign_flip_p(differences)
    assert drawn == pytest.approx(exact, abs=margin_of_error(exact, 99_999))
    assert drawn != exact and drawn == sign_flip_p(differences) != sign_flip_p(differences, seed=1)
    assert paired(differences, [0] * 25).p_smallest == 1 / 100_000


def test_one_in_many_flips_is_never_zero() -> None:
    assert sign_flip_p([1.0] * 60) == 1 / 100_000


def test_paired_repeats_and_draws_from_no_global_generator() -> None:
    before = (np.random.get_state()[1].tolist(), random.getstate())  # noqa: NPY002
    assert paired(SLEEP_1, SLEEP_2) == paired(SLEEP_1, SLEEP_2)
    assert (np.random.get_state()[1].tolist(), random.getstate()) == before  # noqa: NPY002
    assert paired(SLEEP_1, SLEEP_2, seed=1).bca95 != paired(SLEEP_1, SLEEP_2, seed=2).bca95


def test_bca_lies_within_the_sample_and_moves_with_it() -> None:
    low, high = paired(SLEEP_2, SLEEP_1).bca95 or (math.nan, math.nan)
    assert 0 < low < 1.58 < high < 4.6
    assert 1.58 - low < high - 1.58  # one patient far above the others pulls the upper end out
    moved = paired(np.add(SLEEP_2, 10), SLEEP_1).bca95
    # rounding breaks ties between resamples and the sample, and with them the bias correction, by a little
    assert moved == pytest.approx((low + 10, high + 10), abs=0.02)


# --- power


@pytest.mark.parametrize(("effect", "pairs"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_seeds_for_cohens_effects(effect: float, pairs: int) -> None:
    # Cohen's small, medium and large effect at 80% and 5% two-sided, as G*Power gives them
    assert seeds_for_power([effect, -effect], [1.0, 1.0]).tolist() == [pairs, pairs]


def test_seeds_at_the_ends() -> None:
    assert seeds_for_power([0.0, 1e-6, 1e9], [1.0, 1.0, 1.0]).tolist() == [math.inf, math.inf, 2]
    assert power(0.0, 7) == pytest.approx(0.05)
    assert all(
        0.05 <= power(effect, n) <= 1 for effect in np.geomspace(0.001, 1e6, 30) for n in (2, 3, 10, 100, 10_000)
    )


@pytest.mark.parametrize("effect", [0.4, 0.8, 1.5, 3.0])
def test_power_at_the_seeds_for_it_by_simulation(effect: float) -> None:
    studies, n = 20_000, int(seeds_for_power(effect, 1.0))
    noise = np.random.default_rng(5).standard_normal((studies, n))
    decided = {}
    for pairs in (n - 1, n):
        low, high = t_interval(noise[:, :pairs] - effect) if pairs > 1 else (np.zeros(1), np.zeros(1))
        decided[pairs] = np.mean([decide((x, y), 1e-9) == "better" for x, y in zip(low, high, strict=True)])
    assert decided[n] >= 0.8 - margin_of_error(0.8, studies)
    assert decided[n - 1] < 0.8 + margin_of_error(0.8, studies)
    assert decided[n] == pytest.approx(power(effect, n), abs=margin_of_error(0.8, studies))


@pytest.mark.parametrize(("difference", "sd", "needed"), [(0.1, 0.4, 8), (0.02, 0.2, 4), (0.0, 0.3, 5), (1.5, 1.0, 6)])
def test_seeds_for_either_word_by_simulation(difference: float, sd: float, needed: int) -> None:
    """Differences within the margin are decided too: .1 ± .4 takes 128 seeds to differ, and 8 to be equivalent."""
    n, studies = int(seeds_for_power(difference, sd, margin=0.5)), 20_000
    d = np.random.default_rng(3).normal(difference, sd, (studies, n))
    word = (difference_p(d) <= 0.05) | (equivalence_p(d, 0.5) <= 0.05)
    assert abs(n - needed) <= 1 and word.mean() >= 0.79
    fewer = (difference_p(d[:, :-1]) <= 0.05) | (equivalence_p(d[:, :-1], 0.5) <= 0.05)
    assert fewer.mean() < 0.81


def test_seeds_for_a_word_are_a_range_as_wide_as_few_seeds_make_it() -> None:
    three, more = (seeds_for_word(0.5, 1.0, n) for n in (3, 20))
    assert three.likely == more.likely == 34 and three.low and more.low and more.high
    assert three.low < more.low < 34 < more.high < (three.high or math.inf)
    assert seeds_for_word(1.0, 1.0, 20).low == 21  # they are more than there are
    assert (seeds_for_word(1.0, 1.0, 3, alpha=0.005).likely or 0) > 15  # of ten contrasts


# --- words: tests of difference and of equivalence, corrections, failures


def test_tests_are_those_of_scipy_sample_by_sample() -> None:
    d = np.random.default_rng(0).normal(0.2, 1, (4, 5, 6))
    for place in np.ndindex(4, 5):
        assert difference_p(d)[place] == pytest.approx(stats.ttest_1samp(d[place], 0).pvalue)
        below, above = (
            stats.ttest_1samp(d[place], end, alternative=side).pvalue for end, side in ((1, "less"), (-1, "greater"))
        )
        assert equivalence_p(d, 1.0)[place] == pytest.approx(max(below, above))
    assert difference_p([2.0, 2.0]) == 0 == equivalence_p([0.1, 0.1], 0.5) and difference_p([0.0, 0.0]) == 1
    assert difference_p([2.0, 2.0], 0.5) == pytest.approx(2 * stats.t.sf(2 / (0.25 / math.sqrt(2)), 1))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1) | st.none()), min_size=1, max_size=4))
def test_holm_over_both_tests_is_the_closed_test_by_bonferroni(values: list[tuple[float, float | None]]) -> None:
    p, q = np.array([[one, math.nan if two is None else two] for one, two in values]).T
    adjusted = np.array(holm_both(p, q))
    expected = np.zeros_like(adjusted)
    for kinds in itertools.product((None, 0, 1), repeat=len(p)):
        chosen = [(kind, place) for place, kind in enumerate(kinds) if kind is not None]
        ps = [(p, q)[kind][place] for kind, place in chosen]
        if ps and not any(map(math.isnan, ps)):
            for kind, place in chosen:
                expected[kind, place] = max(expected[kind, place], min(1, len(ps) * min(ps)))
    assert adjusted == pytest.approx(np.where(np.isnan([p, q]), math.nan, expected), nan_ok=True)
    assert holm_both(p, np.full(len(p), math.nan))[0] == pytest.approx(holm(p.tolist()))


def test_benjamini_hochberg_over_both_tests_ranks_contrasts_by_the_smaller_value() -> None:
    p, q = benjamini_hochberg_both([0.001, 0.5, 0.04], [0.9, 0.02, math.nan])
    # three contrasts, .001, .02 and .04; at .5 and .9 all three are rejected already
    assert p == pytest.approx([0.003, 0.5, 0.04]) and q == pytest.approx([0.9, 0.03, math.nan], nan_ok=True)
    # one contrast has nothing to adjust, and a word of two rejected tests counts once
    assert [one.tolist() for one in benjamini_hochberg_both([0.08], [0.001])] == [[0.08], [0.001]]
    assert [one.size for one in benjamini_hochberg_both([], [])] == [0, 0]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_benjamini_hochberg_over_both_tests_is_the_plain_one_without_margins(values: list[float]) -> None:
    adjusted, _ = benjamini_hochberg_both(values, [math.nan] * len(values))
    assert adjusted == pytest.approx(benjamini_hochberg(values))


@pytest.mark.parametrize("contrasts", [1, 3])
def test_by_benjamini_hochberg_few_words_are_false_where_precise_contrasts_are_all_equal(contrasts: int) -> None:
    differences = np.random.default_rng(0).normal(0, 0.1, (4000, contrasts, 10))
    p, q = benjamini_hochberg_both(difference_p(differences), equivalence_p(differences, 0.5))
    false, words = (p <= 0.05).sum(axis=-1), ((p <= 0.05) | (q <= 0.05)).sum(axis=-1)
    assert np.mean(false / np.maximum(words, 1)) < 0.06


def test_seeds_needed_do_not_depend_on_which_arm_comes_first_and_their_range_holds_what_is_likely() -> None:
    for difference, sd, n, margin in ((0.02, 1.0, 3, 0.0), (0.05, 1.0, 5, 0.0), (0.3, 0.4, 4, 0.5), (1.0, 2.0, 3, 0.5)):
        found = seeds_for_word(difference, sd, n, margin)
        assert found == seeds_for_word(-difference, sd, n, margin)
        low, likely, high = (math.inf if one is None else one for one in (found.low, found.likely, found.high))
        assert low <= likely <= high


def outcomes_of(*pairs: float | str) -> list[Outcome]:
    """Differences, or which of the two trials failed."""
    return [
        Outcome(None, "a" in one, "b" in one) if isinstance(one, str) else Outcome(one, False, False) for one in pairs
    ]


def test_a_few_seeds_at_which_one_arm_alone_stays_at_chance_are_not_certain() -> None:
    few = [Outcome(difference, True, False) for difference in (85.0, 85.1, 84.9)]
    p = float(difference_p([85.0, 85.1, 84.9]))
    assert difference_with_failures(few, p, False).p == p < 0.001
    # at five more seeds both fail: three of eight is what chance gives
    found = difference_with_failures([*few, *[Outcome(None, True, True)] * 5], p, False)
    assert found.p and found.p > 0.05
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(600):
        failed = rng.random((2, 10)) < 0.8
        errors = np.where(failed, 90, 5) + 0.3 * rng.normal(size=(2, 10))
        pairs = [
            Outcome(None if a and b else float(one - other), bool(a), bool(b))
            for (one, other), (a, b) in zip(errors.T, failed.T, strict=True)
        ]
        values = [one.difference for one in pairs if one.difference is not None]
        test = difference_with_failures(pairs, float(difference_p(values)) if len(values) > 2 else None, False)
        wrong += test.p is not None and test.p <= 0.05
    assert wrong / 600 < 0.05


def test_the_arm_that_diverges_is_not_the_better_one() -> None:
    # 2.9, 2.91, diverged against 3.2, 3.22, 3.1: the two pairs that are left are nearly equal
    p = float(difference_p([-0.3, -0.31]))
    assert p < 0.05
    found = difference_with_failures(outcomes_of(-0.3, -0.31, "a"), p, False)
    assert found.sign == -1 and found.p == 1.0 and found.p_failures == pytest.approx(1.0)
    # the other way round its divergence does not speak for it either
    other = difference_with_failures(outcomes_of(0.3, 0.31, "a"), p, False)
    assert other.sign == 1 and other.p == p
    # where values are in favour of an arm at many seeds more than it fails, they outweigh its failures
    many = outcomes_of(*np.linspace(-1.2, -0.8, 12), "a")
    p = float(difference_p(np.linspace(-1.2, -0.8, 12)))
    outweighed = difference_with_failures(many, p, False)
    assert outweighed.p and p < outweighed.p < 0.05 and outweighed.sign == -1


def test_failures_alone_decide_by_fishers_exact_test() -> None:
    always = difference_with_failures(outcomes_of(*["a"] * 5), None, False)
    assert always.p == pytest.approx(stats.fisher_exact([[5, 0], [0, 5]]).pvalue) and always.p < 0.05
    assert (always.sign, always.ground) == (1, "failures")
    assert difference_with_failures(outcomes_of(*["a"] * 5), None, True).sign == -1  # higher is better
    assert difference_with_failures(outcomes_of("a", "ab", "b"), None, False).p is None
    # beside values each gets half of the level
    mixed = outcomes_of(*["b"] * 6, -0.1, 0.1)
    both = difference_with_failures(mixed, 1.0, False)
    assert both.p == pytest.approx(2 * stats.fisher_exact([[0, 8], [6, 2]]).pvalue) and both.sign == -1


# --- what pairing, other seeds and other images say


def test_pairing_is_worth_what_it_takes_from_the_variance() -> None:
    draw = np.random.default_rng(1)
    shared, a, b = draw.normal(size=(3, 4000))
    found = pairing(shared + a, shared + b)
    assert (
        found and found.correlation == pytest.approx(0.5, abs=0.05) and found.worth / 4000 == pytest.approx(2, abs=0.1)
    )
    covered = 0
    for _ in range(400):
        shared, a, b = draw.normal(size=(3, 6))
        one = pairing(shared + a, shared + b)
        covered += one is not None and one.low <= 12 <= one.high
    assert covered / 400 == pytest.approx(0.95, abs=0.033)
    covered = 0
    for _ in range(400):  # the second arm varies three times as much: worth (1 + 9) / (1 + 9 - 2 * 0.9 * 3)
        shared, own = draw.normal(size=(2, 6))
        one = pairing(shared, 3 * (0.9 * shared + np.sqrt(1 - 0.9**2) * own))
        covered += one is not None and one.low <= 6 * 10 / 4.6 <= one.high
    assert covered / 400 >= 0.95
    assert pairing([1.0, 2.0], [2.0, 1.0]) is None and pairing([1.0, 2.0, 3.0], [2.0, 3.0, 4.0]) is None


def test_ahead_at_a_seed_is_clopper_and_pearsons() -> None:
    oracle = stats.binomtest(7, 10).proportion_ci(0.95)
    found = ahead_at_a_seed(7, 0, 10)
    assert (found.share, found.low, found.high) == pytest.approx((0.7, oracle.low, oracle.high))
    assert ahead_at_a_seed(0, 2, 2).share == 0.5 and ahead_at_a_seed(0, 0, 3).low == 0


def test_sums_over_seeds_and_images_are_exact() -> None:
    # every network errs once, each on an image of its own: no spread at all
    for size in (7, 30, 60):
        found = over_seeds_and_images(np.eye(size, dtype=bool), np.zeros((size, size), dtype=bool))
        assert found.low == found.difference == found.high == 100 / size
    # more seeds than a byte counts
    wrong = np.zeros((200, 50), dtype=bool)
    wrong[:, 10:] = True
    found = over_seeds_and_images(wrong, np.zeros_like(wrong))
    assert found.difference == 80 and (round(found.low, 1), round(found.high, 1)) == (68.5, 91.5)


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_other_images_never_make_an_interval_narrower_than_other_seeds_alone(seeds: int) -> None:
    draw = np.random.default_rng(seeds)
    equal = 0
    for _ in range(50):
        wrong = [draw.random((seeds, 200)) < draw.uniform(0.1, 0.4, (seeds, 1)) for _ in range(2)]
        found = over_seeds_and_images(*wrong)
        difference = 100 * (wrong[0].mean(1) - wrong[1].mean(1))
        half = stats.t.ppf(0.975, seeds - 1) * stats.sem(difference)
        assert found.low <= found.difference - half + 1e-9 and found.high >= found.difference + half - 1e-9
        equal += found.high - found.low == pytest.approx(2 * half)
    assert 0 < equal < 50


def test_seeds_and_images_that_do_not_fit_are_refused() -> None:
    table = np.zeros((3, 4), dtype=bool)
    for other in (table[:2], table[:, :3], table[0], table[:, :, None]):
        with pytest.raises(StatisticsError, match="the same for every seed"):
            over_seeds_and_images(table, other)
    for few, said in (
        (table[:0], "0 seeds and 0 images"),
        (table[:1], "1 seeds and 4"),
        (table[:, :1], "3 seeds and 1"),
    ):
        with pytest.raises(StatisticsError, match=said):
            over_seeds_and_images(few, few)


@pytest.mark.parametrize(("seeds", "images"), [(2, 40), (2, 400), (3, 40), (10, 40), (10, 400)])
def test_intervals_over_seeds_and_images_cover(seeds: int, images: int) -> None:
    draw, covered, studies = np.random.default_rng(seeds * images), 0, 600
    for _ in range(studies):
        effect = 0.3 + 0.1 * draw.normal(size=(seeds, 1)) + 0.2 * draw.normal(size=(1, images))
        wrong = [draw.random((seeds, images)) < np.clip(chance, 0, 1) for chance in (effect, np.full_like(effect, 0.3))]
        found = over_seeds_and_images(*wrong)
        covered += found.low <= 0.15 <= found.high  # clipping moves the mean from 0 by about as much
    assert covered / studies >= 0.93


# --- what the interval promises, by simulation


@pytest.mark.parametrize("n", [2, 3, 5, 10])
def test_coverage_and_false_positives_of_the_interval(n: int) -> None:
    studies = 20_000
    # two arms that share what a seed does to both, with unequal noise of their own
    draw = np.random.default_rng(n)
    shared = draw.normal(5, 2, (studies, n))
    a, b = shared + draw.normal(0, 0.3, (studies, n)), shared + draw.normal(0, 0.6, (studies, n))
    low, high = t_interval(a + 0.7 - b)
    assert np.mean((low <= 0.7) & (high >= 0.7)) == pytest.approx(0.95, abs=margin_of_error(0.95, studies))
    null = [decide(ends, 0.5) for ends in zip(*t_interval(a - b), strict=True)]
    wrong = np.mean([decision in ("better", "worse") for decision in null])
    assert wrong == pytest.approx(0.05, abs=margin_of_error(0.05, studies))
    result = paired(a[0] + 0.7, b[0])
    assert result.ci95 == pytest.approx((low[0], high[0]))


@pytest.mark.parametrize("n", [3, 5, 10])
def test_equivalence_is_seldom_claimed_at_the_margin(n: int) -> None:
    studies = 20_000
    low, high = t_interval(np.random.default_rng(n).normal(0.5, 0.2, (studies, n)))
    claimed = np.mean([decide(ends, 0.5) == "equivalent" for ends in zip(low, high, strict=True)])
    assert claimed <= 0.025 + margin_of_error(0.025, studies)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_false_positives_where_errors_move_in_steps(n: int) -> None:
    # equal arms, 360 test images, 0.5% errors; the resolution holds what t alone does not
    studies, step = 20_000, 100 / 360
    wrong = np.random.default_rng(n).binomial(360, 0.005, (2, studies, n)) * step
    rates = {}
    for resolution in (0.0, step):
        ends = zip(*t_interval(wrong[0] - wrong[1], resolution=resolution), strict=True)
        rates[resolution] = np.mean([decide(end, 0.5) in ("better", "worse") for end in ends])
    assert rates[step] <= 0.05 + margin_of_error(0.05, studies)
    assert rates[step] <= rates[0.0]
    if n == 2:
        assert rates[0.0] > 0.08


def test_sign_flip_p_keeps_its_level() -> None:
    studies = 4_000
    draw = np.random.default_rng(3)
    p = np.array([sign_flip_p(row) for row in draw.standard_t(2, (studies, 7))])
    for level in (2 / 128, 0.0625, 0.25):
        assert np.mean(p <= level) == pytest.approx(level, abs=margin_of_error(level, studies))


@pytest.mark.slow
def test_bca_covers_too_little_with_few_pairs() -> None:
    studies = 400
    draw = np.random.default_rng(4).standard_normal((studies, 5))
    ends = [paired(row, np.zeros(5)).bca95 or (0.0, 0.0) for row in draw]
    assert np.mean([low <= 0 <= high for low, high in ends]) < 0.92


# --- Holm


def test_holm_by_hand() -> None:
    # sorted .005 .01 .03 .04, times 4 3 2 1: .02 .03 .06 .04, and never falling: .02 .03 .06 .06
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_leaves_out_what_has_no_p() -> None:
    adjusted = holm([None, 0.02, math.nan, 0.03])
    assert adjusted[[1, 3]] == pytest.approx([0.04, 0.04])
    assert np.isnan(adjusted[[0, 2]]).all()
    assert holm([]).shape == (0,) and np.isnan(holm([None])).all()


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_against_its_definition(p: list[float]) -> None:
    m, order = len(p), sorted(range(len(p)), key=lambda i: p[i])
    adjusted = holm(p)
    for place, index in enumerate(order):
        assert adjusted[index] == pytest.approx(min(1, max(p[order[j]] * (m - j) for j in range(place + 1))))


@pytest.mark.parametrize("shared", [0.0, 0.8])
def test_family_wise_error_rate_with_holm(shared: float) -> None:
    # six contrasts at 5 seeds, four without a difference; contrasts may share an arm and so its noise
    studies, n = 4_000, 5
    draw = np.random.default_rng(6)
    common = draw.standard_normal((studies, 1, n)) * math.sqrt(shared)
    differences = common + draw.standard_normal((studies, 6, n)) * math.sqrt(1 - shared)
    differences[:, :2] += 3
    p = stats.ttest_1samp(differences, 0, axis=-1).pvalue
    wrong = np.mean([(holm(list(row))[2:] <= 0.05).any() for row in p])
    assert wrong <= 0.05 + margin_of_error(0.05, studies)
    assert np.mean((p[:, 2:] <= 0.05).any(axis=1)) > wrong


# --- McNemar


def test_mcnemar_by_hand() -> None:
    a = [1, 1, 0, 0, 0, 0, 0, 1, 0]
    b = [1, 0, 1, 1, 1, 1, 1, 1, 0]
    # 1 against 5: twice the chance of at most 1 head in 6 throws, 2 (1 + 6)/64
    assert mcnemar(a, b, seed=3) == McNemar(1, 5, 14 / 64, 3)
    assert mcnemar(a, a) == McNemar(0, 0, 1.0)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=200))
def test_mcnemar_agrees_with_scipy(outcomes: list[tuple[bool, bool]]) -> None:
    a, b = np.array(outcomes).T
    result = mcnemar(a, b)
    differ = result.a_only + result.b_only
    assert differ == np.sum(a != b)
    if differ:
        assert result.p == pytest.approx(stats.binomtest(result.a_only, differ).pvalue)


# --- convergence


@pytest.mark.parametrize(
    ("curve", "epoch"),
    [
        ([0.5, 0.9, 0.98, 0.99, 0.985], 3),
        ([0.98, 0.5, 0.98, 0.98], 3),
        ([0.98, 0.5, 0.98], None),  # the last epoch alone is no plateau
        ([0.98, 0.99], 1),  # one point apart, which in binary is a little more
        ([0.9], None),
        ([0.97, math.nan, 0.97, 0.97], 3),
        ([0.1] * 8, None),  # chance, however flat
        ([0.27] * 8, None),
        ([0.28] * 8, 1),  # a fifth of the way from 0.1 to 1
        (np.linspace(0.5, 0.99, 40).tolist(), None),  # still rising
        ([0.5] * 6 + [0.9, 0.9], 7),
        ([0.5] * 7 + [0.9, 0.9], None),  # a quarter of nine epochs are three
        ([0.9, math.nan], None),
        ([], None),
    ],
)
def test_convergence_epoch(curve: list[float], epoch: int | None) -> None:
    assert convergence_epoch(curve, chance=0.1) == epoch


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.floats(0.001, 0.5))
def test_convergence_epoch_against_its_definition(curve: list[float], tolerance: float) -> None:
    found = convergence_epoch(curve, 0.5, tolerance)
    stays = [all(abs(x - curve[-1]) <= tolerance + 1e-9 for x in curve[start:]) for start in range(len(curve))]
    first = stays.index(True)
    settled = len(curve) - first >= max(2, len(curve) / 4) and curve[-1] >= 0.6
    assert found == (first + 1 if settled else None)


# --- decisions


@pytest.mark.parametrize(
    ("ci", "decision"),
    [
        ((-3, -1), "better"),
        ((1, 3), "worse"),
        ((-0.4, 0.3), "equivalent"),
        ((-0.4, 0.6), "undecided"),
        ((-0.5, 0.3), "undecided"),  # the margin itself is outside
        ((-0.3, -0.1), "better"),  # within the margin, and yet not zero
        ((0, 0.3), "equivalent"),  # touches zero
        ((0.0, 0.0), "equivalent"),
        (None, "undecided"),
    ],
)
def test_decide(ci: tuple[float, float] | None, decision: str) -> None:
    assert decide(ci, 0.5) == decision


# --- what cannot be


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: summarise([]), "values: shape (0,); expected one dimension"),
        (lambda: summarise([1, math.nan]), "values: nan at position 1 is not finite"),
        (lambda: paired([1, 2], [1]), "a has 2 values and b has 1"),
        (lambda: paired([1, 2], [1, math.inf]), "b: inf at position 1"),
        (lambda: paired([1, 2], [1, 3], confidence=95), "confidence 95 is not between 0 and 1"),
        (lambda: holm([0.5, 1.5]), "p-value 1.5 at position 1"),
        (lambda: mcnemar([True], [True, False]), "shapes (1,) and (2,)"),
    ],
)
def test_impossible_input_is_one_line(call: object, message: str) -> None:
    assert callable(call)
    with pytest.raises(LeadlineError) as caught:
        call()
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("n", [5, 7, 16, 40])
def test_spearman_is_scipys_ties_included(n: int) -> None:
    draw = np.random.default_rng(n)
    x = draw.integers(0, 6, n).astype(float)
    y = x + draw.normal(0, 3, n).round()
    found, turned = spearman(x, y), spearman(-x, y)
    assert found.n == n and found == spearman(x, y)
    assert found.rho == pytest.approx(stats.spearmanr(x, y).statistic) and turned.rho == pytest.approx(-found.rho)

    def rho(order: np.ndarray) -> float:
        return float(stats.spearmanr(x, order).statistic)

    test = stats.permutation_test(
        (y,), rho, permutation_type="pairings", n_resamples=math.inf if n < 8 else 2000, rng=draw
    )
    share = np.mean(np.abs(test.null_distribution) >= abs(rho(y)) - 1e-9)
    assert found.p == pytest.approx(share, abs=1e-9 if n < 8 else 0.04)


def test_spearman_sees_ranks_alone_and_nothing_where_nothing_varies() -> None:
    x = np.array([1.0, 2.0, 4.0, 8.0, 1e30])
    # of 120 orders, the one as it is and its mirror image are as far from 0
    assert spearman(x, np.log(x)) == Correlation(5, pytest.approx(1.0), pytest.approx(2 / 120), pytest.approx(2 / 120))
    assert spearman(x, np.zeros(5)) == Correlation(5, None, None, None)
    with pytest.raises(StatisticsError, match="the same number of each"):
        spearman(x, x[:4])
    with pytest.raises(StatisticsError, match="not finite"):
        spearman(x, [1, 2, 3, 4, np.inf])


@pytest.mark.parametrize("n", [5, 6, 12])
def test_spearmans_test_keeps_its_level(n: int) -> None:
    draw, studies = np.random.default_rng(0), 400
    p = [spearman(draw.standard_t(2, n), draw.exponential(1, n)).p or 0.0 for _ in range(studies)]
    assert np.mean(np.array(p) <= 0.05) <= 0.05 + 4 * math.sqrt(0.05 * 0.95 / studies)
