"""Mean-field maps: against closed forms, other quadratures, iteration, and real random networks."""

import itertools
import json
import math
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate

from leadline.errors import SpecError
from leadline.reports.charts.chart import Figure
from leadline.reports.charts.files import to_svg
from leadline.specs.network import Activation
from leadline.theory import meanfield
from leadline.theory.meanfield import (
    Point,
    batch_norm_growth,
    batch_norm_residual_growth,
    chi,
    correlation_map,
    covariance_map,
    edge_of_chaos,
    fixed_point,
    fixed_variance,
    gradient,
    mean,
    mean_of_two,
    signal,
    variance_map,
    variance_slope,
)
from leadline.theory.meanfield_figures import depth_figure, maps_figure, plane_figure, three_points
from leadline.theory.random_networks import FUNCTIONS, Measured, batch_norm_gradients, measure

ACTIVATIONS: tuple[Activation, ...] = get_args(Activation)
HE = math.sqrt(2)


def arc_cosine(c: float) -> float:
    """Cho & Saul 2009, order 1: what ReLU makes of a correlation."""
    return (math.sqrt(1 - c * c) + c * (math.pi - math.acos(c))) / math.pi


# --- activations and expectations


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_functions_and_slopes_are_pytorchs(activation: Activation) -> None:
    phi, slope = meanfield._FUNCTIONS[activation]
    x = torch.linspace(-30, 30, 400, dtype=torch.float64, requires_grad=True)
    y = FUNCTIONS[activation](x)
    (expected,) = torch.autograd.grad(y.sum(), x)
    at = x.detach().numpy()
    np.testing.assert_allclose(phi(at), y.detach().numpy(), rtol=1e-9, atol=1e-14)  # softplus has a threshold
    np.testing.assert_allclose(slope(at), expected.numpy(), rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("q", [0.01, 1.0, 100.0])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_expectations_agree_with_adaptive_quadrature(activation: Activation, q: float) -> None:
    def expected(function: meanfield.Function) -> float:
        def integrand(z: float) -> float:
            return float(function(np.array(math.sqrt(q) * z))) * math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

        edges = (-38, -1, -0.01, 0, 0.01, 1, 38)
        return sum(
            integrate.quad(integrand, low, high, epsabs=1e-13, limit=300)[0] for low, high in itertools.pairwise(edges)
        )

    phi, slope = meanfield._FUNCTIONS[activation]
    point = Point(activation, 1.3, 0.4)
    assert variance_map(point, q) == pytest.approx(1.69 * expected(lambda x: phi(x) ** 2) + 0.16, rel=1e-10)
    assert chi(point, q) == pytest.approx(1.69 * expected(lambda x: slope(x) ** 2), rel=1e-9)


def test_gauss_hermite_agrees_where_it_is_good_and_fails_where_it_is_said_to() -> None:
    nodes, weights = np.polynomial.hermite_e.hermegauss(200)

    def hermite(q: float) -> float:
        return float(weights @ np.tanh(math.sqrt(q) * nodes) ** 2 / math.sqrt(2 * math.pi))

    tanh = Point("tanh", 1.0)
    assert hermite(0.5) == pytest.approx(float(variance_map(tanh, 0.5)), rel=1e-9)
    assert hermite(100.0) / float(variance_map(tanh, 100.0)) == pytest.approx(1.018, abs=0.001)


@pytest.mark.parametrize("c", [-1.0, -0.7, 0.0, 0.3, 0.9, 0.9999, 1.0])
def test_relu_follows_the_arc_cosine_kernel(c: float) -> None:
    assert correlation_map(Point("relu", HE), 0.7, c) == pytest.approx(arc_cosine(c), abs=1e-11)


@pytest.mark.parametrize("q", [0.1, 1.0, 100.0])
@pytest.mark.parametrize("c", [0.0, 0.5, 0.99])
def test_expectations_of_two_have_the_error_functions_closed_form(q: float, c: float) -> None:
    """Williams 1997: E[erf(u / sqrt 2) erf(v / sqrt 2)] = 2 / pi asin(q c / (1 + q))."""
    found = mean_of_two(lambda x: np.asarray(torch.erf(torch.as_tensor(x) / math.sqrt(2))), q, c)
    assert found == pytest.approx(2 / math.pi * math.asin(q * c / (1 + q)), abs=2e-8)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_correlations_agree_with_an_integral_over_the_plane(activation: Activation) -> None:
    phi, _ = meanfield._FUNCTIONS[activation]
    q, c = 1.7, 0.6
    grid = np.arange(-9, 9, 0.01) + 0.005  # midpoints: a kink costs the square of the step
    u, v = grid[:, None], c * grid[:, None] + 0.8 * grid
    density = np.exp(-(grid**2) / 2) * 0.01 / math.sqrt(2 * math.pi)
    expected = density @ (phi(math.sqrt(q) * u) * phi(math.sqrt(q) * v)) @ density
    assert covariance_map(Point(activation, 1.0), q, c) == pytest.approx(float(expected), rel=2e-5)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(ACTIVATIONS),
    st.floats(0.1, 5),
    st.floats(0, 2),
    st.floats(-6, 6).map(lambda power: 10.0**power),
)
def test_maps_meet_where_two_inputs_are_one(activation: Activation, sigma_w: float, sigma_b: float, q: float) -> None:
    point = Point(activation, sigma_w, sigma_b)
    variance = float(variance_map(point, q))
    assert covariance_map(point, q, 1.0) == pytest.approx(variance, rel=1e-6)
    assert covariance_map(point, q, 0.0) - sigma_b**2 == pytest.approx(
        sigma_w**2 * float(mean(meanfield._FUNCTIONS[activation][0], q)) ** 2, rel=1e-5, abs=1e-9 * variance
    )
    step = 1e-4 * q
    rise = (float(variance_map(point, q + step)) - float(variance_map(point, q - step))) / (2 * step)
    # V(q) less sigma_b^2 and what phi(0) gives is what a difference of two of its values can tell
    assert variance_slope(point, q) == pytest.approx(rise, rel=1e-4, abs=1e-11 * variance / step)
    assert rise > 0


# --- fixed points


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(ACTIVATIONS), st.floats(0.3, 4), st.floats(0, 1), st.floats(0.01, 10))
def test_fixed_points_are_where_iteration_goes(
    activation: Activation, sigma_w: float, sigma_b: float, start: float
) -> None:
    point = Point(activation, sigma_w, sigma_b)
    found, q = fixed_variance(point, start), start
    for _ in range(200):
        before, q = q, min(float(variance_map(point, q)), 1e20)
    if math.isinf(found):
        assert q > start and q >= before
    elif found == 0:
        assert q < start and q <= before
    else:
        assert float(variance_map(point, found)) == pytest.approx(found, rel=1e-8)
        # on the way there, however slowly, and never past it
        assert min(start, found) * (1 - 1e-8) <= q <= max(start, found) * (1 + 1e-8)


def test_relus_fixed_points_have_closed_forms() -> None:
    own = fixed_point(Point("relu", 1.0, 0.3))
    assert own.q == pytest.approx(0.09 / (1 - 0.5))
    assert (own.chi_1, own.c, own.phase) == (pytest.approx(0.5), 1.0, "ordered")
    assert (own.xi_q, own.xi_c, own.xi_gradient) == pytest.approx((1 / math.log(2),) * 3)
    assert fixed_point(Point("relu", HE), start=0.37).q == 0.37
    assert fixed_point(Point("relu", HE)).phase == "critical"
    assert math.isinf(fixed_point(Point("relu", HE)).xi_gradient)
    assert math.isinf(fixed_point(Point("relu", HE, 0.1)).q)
    assert fixed_point(Point("relu", 1.0)).q == 0.0
    exploding = fixed_point(Point("relu", 2.0))
    assert (math.isinf(exploding.q), exploding.chi_1, exploding.phase) == (True, pytest.approx(2.0), "chaotic")


@pytest.mark.parametrize("activation", ["elu", "tanh", "sigmoid"])
def test_fixed_points_that_are_numbers_of_the_search_itself_are_found(activation: Activation) -> None:
    # on a node of the grid rounding decides the sign of what is 0 there, and a root finder refuses
    q = np.geomspace(1e-6, 1e4, 41)
    for w, b, end in zip(*edge_of_chaos(activation, q), q, strict=True):
        if np.isfinite(w):
            assert fixed_variance(Point(activation, float(w), float(b))) == pytest.approx(end, rel=1e-9)


def test_gelu_has_two_ends() -> None:
    """Its slope is 1/2 at 0 and up to 1 far out, so sigma_w^2 between 2 and 4 shrinks small signals and not large."""
    point = Point("gelu", 1.6)
    assert fixed_variance(point, 0.01) == 0.0
    assert math.isinf(fixed_variance(point, 10.0))


@pytest.mark.parametrize("activation", ["sigmoid", "softplus"])
def test_slopes_go_on_where_variances_are_too_small_for_the_integral(activation: Activation) -> None:
    point = Point(activation, 1.3)
    assert variance_slope(point, 0.9e-6) == pytest.approx(variance_slope(point, 1e-5), rel=1e-3)


def test_tanhs_phases() -> None:
    """Poole et al. 2016: chaos at sigma_w = 2.5 and 4 with sigma_b = 0.3, order at 1.3."""
    ordered, chaotic = fixed_point(Point("tanh", 1.3, 0.3)), fixed_point(Point("tanh", 2.5, 0.3))
    assert (ordered.phase, ordered.c) == ("ordered", 1.0)
    assert chaotic.phase == "chaotic" and chaotic.chi_1 > 1 and 0 < chaotic.c < 0.3
    assert correlation_map(Point("tanh", 2.5, 0.3), chaotic.q, chaotic.c) == pytest.approx(chaotic.c, abs=1e-9)
    assert fixed_point(Point("tanh", 4.0)).c == 0.0  # odd, no bias


@pytest.mark.parametrize("point", [Point("tanh", 0.8, 0.2), Point("tanh", 2.5, 0.3), Point("gelu", 1.4, 0.3)])
def test_depth_scales_are_the_rates_at_which_maps_are_iterated(point: Point) -> None:
    own = fixed_point(point, 0.5)
    q, _ = signal(point, 12, own.q * 1.001)
    assert math.log((q[9] - own.q) / (q[8] - own.q)) == pytest.approx(-1 / own.xi_q, rel=2e-3)
    _, c = signal(point, 12, own.q, own.c - 0.001)
    assert math.log((own.c - c[6]) / (own.c - c[5])) == pytest.approx(-1 / own.xi_c, rel=5e-3)


@pytest.mark.parametrize("activation", ["tanh", "gelu", "elu", "sigmoid"])
def test_the_edge_is_where_chi_is_one(activation: Activation) -> None:
    sigma_w, sigma_b = edge_of_chaos(activation, np.geomspace(0.05, 2000, 25))
    there = np.isfinite(sigma_w)
    assert there.sum() >= 5
    for w, b, q in zip(sigma_w[there], sigma_b[there], np.geomspace(0.05, 2000, 25)[there], strict=True):
        point = Point(activation, float(w), float(b))
        assert float(variance_map(point, q)) == pytest.approx(q, rel=1e-9)
        assert float(chi(point, q)) == pytest.approx(1, rel=1e-9)


def test_relus_edge_is_one_point_and_softplus_has_none() -> None:
    sigma_w, sigma_b = edge_of_chaos("relu", np.geomspace(1e-3, 1e3, 7))
    np.testing.assert_allclose(sigma_w, HE, rtol=1e-12)
    np.testing.assert_array_equal(sigma_b, 0)
    assert np.isnan(edge_of_chaos("softplus", np.geomspace(1e-3, 1e3, 7))[0]).all()
    assert edge_of_chaos("tanh", np.zeros(1))[0] == pytest.approx(1.0)


# --- by depth


def test_residual_relu_doubles() -> None:
    """Yang & Schoenholz 2017: variance and squared gradient grow as (1 + sigma_w^2 / 2)^l."""
    q, c = signal(Point("relu", HE), 8, 0.5, 0.2, residual=True)
    np.testing.assert_allclose(q, 0.5 * 2.0 ** np.arange(8), rtol=1e-12)
    assert c[1] == pytest.approx((0.2 + arc_cosine(0.2)) / 2)
    np.testing.assert_allclose(gradient(Point("relu", HE), q, True), np.arange(7, -1, -1) * math.log10(2) / 2)


def test_residual_tanh_grows_linearly() -> None:
    """Yang & Schoenholz 2017: q_l is of order l, because phi^2 is below 1."""
    q, _ = signal(Point("tanh", 1.0), 400, residual=True)
    steps = np.diff(q)
    assert steps.max() < 1 and np.all(np.diff(steps) > 0) and steps[-1] > 0.9


def test_signals_past_all_floats_go_on() -> None:
    for sigma_w in (0.01, 100.0):
        q, c = signal(Point("relu", sigma_w), 40)
        assert np.isfinite(q).all() and np.isfinite(c).all() and c[-1] > 0.9
        assert gradient(Point("relu", sigma_w), q)[0] == pytest.approx(39 / 2 * math.log10(sigma_w**2 / 2))


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(
    "point",
    [Point("tanh", 0.9, 0.2), Point("tanh", 2.0, 0.2), Point("relu", 1.0, 0.3), Point("relu", HE)],
    ids=str,
)
def test_real_networks_of_width_1000_agree_within_sampling_error(point: Point, residual: bool) -> None:
    depth, networks = 14, 4
    own = measure(point, depth, networks, residual=residual)
    q, c = signal(point, depth, residual=residual)
    for measured, predicted in (
        (np.log(own.q), np.log(q)),
        (own.c, c),
        (own.gradient, gradient(point, q, residual)),
    ):
        # four networks tell little of their spread at any one layer: the widest of all layers stands for it
        error = measured.std(0, ddof=1).max() / math.sqrt(networks)
        assert np.abs(measured.mean(0) - predicted).max() < 4 * error
        assert error < 0.12


def test_measured_inputs_are_exact_and_seeds_repeat() -> None:
    first, again = (measure(Point("gelu", 1.2, 0.1), 3, 2, 64, 0.7, -0.3) for _ in range(2))
    np.testing.assert_allclose(first.q[:, 0], 0.7, rtol=1e-6)
    np.testing.assert_allclose(first.c[:, 0], -0.3, rtol=1e-5)
    np.testing.assert_array_equal(first.gradient, again.gradient)
    assert first.q[0, 2] != first.q[1, 2]


# --- batch normalisation


def test_growth_with_batch_normalisation_has_the_papers_number() -> None:
    assert batch_norm_growth("relu") == pytest.approx(math.pi / (math.pi - 1))
    assert all(batch_norm_growth(activation) >= 1 for activation in ACTIVATIONS)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_gradients_explode_with_batch_normalisation_as_predicted(activation: Activation) -> None:
    logs = batch_norm_gradients(activation, 12, seed=0, width=400, images=400)
    per_layer = 10 ** (2 * (logs[4] - logs[-1]) / 8)
    assert per_layer == pytest.approx(batch_norm_growth(activation), rel=0.015)


@pytest.mark.parametrize("layers", [1, 2])
def test_residual_gradients_grow_by_one_over_depth_with_batch_normalisation(layers: int) -> None:
    logs = batch_norm_gradients("relu", 10, seed=0, width=400, images=400, block=layers)
    measured = 10 ** (-2 * np.diff(logs))
    branch = 2 * (1 / 2 - 1 / (2 * math.pi))  # He's variance times Var[relu(z)]; the input has variance 1
    predicted = [batch_norm_residual_growth("relu", 1 / branch + number, layers) for number in range(10)]
    np.testing.assert_allclose(measured, predicted, rtol=0.03)


# --- bad input


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Point("rleu", 1.0), "did you mean 'relu'"),  # type: ignore[arg-type]
        (lambda: Point("relu", 0.0), "sigma_w 0.0"),
        (lambda: Point("relu", math.nan), "sigma_w nan"),
        (lambda: Point("relu", 1.0, -0.1), "sigma_b -0.1"),
        (lambda: fixed_point(Point("relu", 1.0), math.inf), "start inf"),
        (lambda: signal(Point("relu", 1.0), 0), "depth 0"),
        (lambda: signal(Point("relu", 1.0), 5, correlation=1.5), "correlation 1.5"),
        (lambda: measure(Point("relu", 1.0), 5, 0), "seeds 0"),
        (lambda: batch_norm_gradients("relu", 1, 0), "depth 1"),
        (lambda: batch_norm_growth("relo"), "did you mean"),  # type: ignore[arg-type]
        (lambda: batch_norm_residual_growth("relu", 0.0), "variance 0.0"),
        (lambda: maps_figure([]), "0 points"),
        (lambda: maps_figure([Point("relu", 1.0), Point("tanh", 1.0)]), "several activations"),
        (lambda: maps_figure([Point("relu", 1.0)] * 2), "points that differ"),
        (lambda: depth_figure([Point("relu", 1.0)], []), "0 measurements of 1 points"),
    ],
)
def test_impossible_input_is_one_line(make: object, words: str) -> None:
    with pytest.raises(SpecError, match=words.replace(".", r"\.")) as caught:
        make()  # type: ignore[operator]
    assert "\n" not in str(caught.value)


# --- figures


def rows_of(figure: Figure) -> list[dict[str, object]]:
    spec = figure.chart().to_dict()
    return [row for data in spec["datasets"].values() for row in json.loads(data)]


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["relu", "tanh", "softplus", "sigmoid"])
def test_maps_are_drawn_with_their_fixed_points(activation: Activation) -> None:
    points = three_points(activation)
    figure = maps_figure(points)
    frame = figure.data
    assert set(frame["map"]) == {"variance", "correlation"} and frame["point"].nunique() == 3
    assert "<svg" in to_svg(figure)
    drawn = [row for row in rows_of(figure) if "base" in row and row["x"] == row["y"] and row["x"] != 0]
    for point in points:
        own = fixed_point(point)
        if 0 < own.q < math.inf:
            assert any(row["x"] == pytest.approx(own.q, rel=1e-5) for row in drawn)


def test_three_points_are_in_their_phases() -> None:
    for activation in ("relu", "tanh", "gelu", "silu", "elu", "sigmoid"):
        phases = [fixed_point(point).phase for point in three_points(activation)]
        assert phases == ["ordered", "critical", "chaotic"], activation


def test_the_plane_is_brightest_at_its_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leadline.theory.meanfield_figures.CELLS", 20)
    figure = plane_figure("tanh", three_points("tanh"))
    frame = figure.data
    best = frame.loc[frame["layers"].idxmax()]
    sigma_w, sigma_b = edge_of_chaos("tanh", np.geomspace(1e-4, 5, 400))
    bias = (best["bottom"] + best["top"]) / 2
    assert best["left"] - 0.1 < np.interp(bias, sigma_b, sigma_w) < best["right"] + 0.1
    assert "edge of chaos" in figure.caption and "<svg" in to_svg(figure)


def test_depth_is_drawn_with_the_measured_on_the_predicted() -> None:
    points = (Point("tanh", 0.9, 0.2), Point("tanh", 2.0, 0.2))
    measured = [measure(point, 6, 2, 100) for point in points]
    figure = depth_figure(points, measured)
    assert len(figure.panels) == 3 and len(figure.data) == 2 * 3 * 6
    own = figure.data.query("quantity == 'c'")["measured"].to_numpy().reshape(2, 6)
    np.testing.assert_allclose(own, [each.c.mean(0) for each in measured])
    assert "<svg" in to_svg(figure)


def test_values_without_a_logarithm_leave_gaps() -> None:
    dead = Measured(np.zeros((1, 3)), np.full((1, 3), np.nan), np.full((1, 3), -np.inf))
    figure = depth_figure([Point("relu", 1.0)], [dead])
    assert "<svg" in to_svg(figure)
