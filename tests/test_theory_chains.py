"""Chains and initialisations: measured gradients and moments against closed forms, and what precision loses."""

import math
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
import torch
import vl_convert
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import integrate

from leadline.errors import SpecError
from leadline.reports.charts.chart import LIGHT, theme
from leadline.specs.network import Initialisation, InitialisationName
from leadline.theory.chain_figures import LOST, chain_figure, variance_figure
from leadline.theory.chain_forms import (
    QUANTITIES,
    Chain,
    ChainActivation,
    ChainShortcut,
    Kind,
    power_form,
    product_form,
)
from leadline.theory.chains import ChainNetwork, chain, measure
from leadline.theory.variance import (
    Stack,
    measured_variance,
    predicted_variance,
    stack,
    variance,
    weight_variance,
)

KINDS, ACTIVATIONS, SHORTCUTS = get_args(Kind), get_args(ChainActivation), get_args(ChainShortcut)
WEIGHTS = (0.9, 1.0, 1.1)
SIZE = {"width": 6, "positions": 5}
LOG_TINY, LOG_HUGE, LOG_LEAST = (math.log10(value) for value in (2.0**-126, 3.4028235e38, 2.0**-149))


def rows(frame: pd.DataFrame, quantity: str) -> pd.DataFrame:
    return frame[frame["quantity"].eq(quantity)].set_index("layer")


def deviation(frame: pd.DataFrame, precision: str) -> float:
    """Largest relative deviation of what the precision holds."""
    normal = frame[frame[precision].eq("normal")]
    assert not normal.empty
    logs = (normal[f"log10_{precision}"] - normal["log10_closed"]).abs().max()
    return float(math.expm1(logs * math.log(10)))


# --- linear chains


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_powers_of_the_weight(kind: Kind, weight: float) -> None:
    layers = 60
    result = chain(weight, layers, kind=kind, **SIZE)
    frame = result.frame()
    # the formula itself, not the module's way to it
    power = np.array([(layers - n) * math.log10(weight) for n in range(1, layers + 1)])
    gradient = rows(frame, "activation-gradient")
    np.testing.assert_allclose(gradient["log10_closed"], power, atol=1e-12)
    np.testing.assert_allclose(gradient["log10_float32"], power, atol=layers * 1e-7)
    np.testing.assert_allclose(gradient["log10_float64"], power, atol=layers * 1e-15)
    activation = rows(frame, "activation")
    channels, positions, _ = result.chain.shape
    start = math.log10(channels * positions) / 2
    np.testing.assert_allclose(
        activation["log10_closed"], [start + n * math.log10(weight) for n in range(1, layers + 1)], atol=1e-12
    )
    if kind != "convolutional":  # where the kernel's gradient is one outer product, its norm is the product of norms
        np.testing.assert_allclose(
            rows(frame, "weight-gradient")["log10_closed"], start + (layers - 1) * math.log10(weight), atol=1e-12
        )


@pytest.mark.slow
@pytest.mark.parametrize("shortcut", SHORTCUTS)
@pytest.mark.parametrize(("kind", "weight"), [("scalar", 0.9), ("dense", 1.1), ("convolutional", -0.9)])
def test_thousand_layers_in_double_precision(kind: Kind, weight: float, shortcut: ChainShortcut) -> None:
    frame = chain(weight, 1000, kind=kind, shortcut=shortcut, **SIZE).frame()
    assert deviation(frame, "float64") < 1e-11
    if frame["float32"].eq("normal").any():
        assert deviation(frame, "float32") < 2e-4  # 1000 roundings of up to 6e-8 each, and of the weight
    assert frame.loc[frame["log10_closed"].abs().lt(300), "float64"].eq("normal").all()


def test_scalar_chain_with_shortcuts() -> None:
    layers = 40
    for weight in (*WEIGHTS, -0.5):
        for arguments, factor in (
            ({"shortcut": "identity"}, 1 + weight),
            ({"shortcut": "scaled"}, 1 + weight / layers),
            ({"shortcut": "scaled", "shortcut_factor": 0.7, "branch_factor": 1.0}, 0.7 + weight),
            ({"shortcut": "scaled", "shortcut_factor": 0.0, "branch_factor": 0.5}, 0.5 * weight),
        ):
            result = chain(weight, layers, **arguments)
            frame = result.frame()
            expected = [abs(factor) ** (layers - n) for n in range(1, layers + 1)]
            gradient = rows(frame, "activation-gradient")
            np.testing.assert_allclose(10 ** gradient["log10_closed"], expected, rtol=1e-12)
            np.testing.assert_allclose(10 ** gradient["log10_float64"], expected, rtol=1e-12)
            # dL/dW_n = beta a_(n-1) (alpha + beta W)^(l-n)
            whole = result.chain.factors[1] * abs(factor) ** (layers - 1)
            np.testing.assert_allclose(10 ** rows(frame, "weight-gradient")["log10_float64"], whole, rtol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_branches_of_one_over_depth_are_bounded(kind: Kind) -> None:
    for weight in (0.9, 3.0):
        for layers in (10, 400):
            gradient = rows(chain(weight, layers, kind=kind, shortcut="scaled", **SIZE).frame(), "activation-gradient")
            assert gradient["float32"].eq("normal").all()
            assert 10 ** gradient["log10_float32"].max() < math.exp(weight)
            if kind == "scalar" and layers == 400:
                assert 10 ** gradient["log10_float32"].max() == pytest.approx(
                    math.exp(weight), rel=(weight + weight**2) / layers
                )


@pytest.mark.parametrize("shortcut", SHORTCUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_powers_and_products_are_one(kind: Kind, shortcut: ChainShortcut) -> None:
    for weight in (0.3, 1.1):
        own = Chain(weight, 300, kind, "linear", shortcut, **SIZE)
        np.testing.assert_allclose(power_form(own), product_form(own), atol=1e-10)


@pytest.mark.parametrize("kind", ["dense", "convolutional"])
def test_every_singular_value_is_the_weight(kind: Kind) -> None:
    own = Chain(1.3, 1, kind, **SIZE)
    layer = ChainNetwork(own, torch.float64).layers[0]
    shape = (6,) if kind == "dense" else (6, 5)
    matrix = torch.func.jacrev(lambda state: layer(state[None])[0])(torch.zeros(shape, dtype=torch.float64))
    size = math.prod(shape)
    torch.testing.assert_close(
        torch.linalg.svdvals(matrix.reshape(size, size)), torch.full((size,), 1.3, dtype=torch.float64)
    )
    if kind == "convolutional":  # its kernel reaches both neighbours
        assert all(layer.weight[:, :, tap].abs().sum() > 0 for tap in range(3))


# --- activations


@pytest.mark.parametrize("shortcut", SHORTCUTS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_product_along_the_way(kind: Kind, activation: ChainActivation, shortcut: ChainShortcut) -> None:
    for weight in WEIGHTS:
        # while no derivative saturates, float32 keeps its digits
        frame = chain(weight, 4, kind=kind, activation=activation, shortcut=shortcut, **SIZE).frame()
        assert frame["float32"].eq("normal").all()
        assert deviation(frame, "float32") < 5e-4
        assert deviation(frame, "float64") < 1e-12


@pytest.mark.slow
@pytest.mark.parametrize("activation", ["tanh", "sigmoid"])
@pytest.mark.parametrize("kind", KINDS)
def test_deep_chains_with_activations(kind: Kind, activation: ChainActivation) -> None:
    for weight in (0.9, 1.1):
        frame = chain(weight, 400, kind=kind, activation=activation, **SIZE).frame()
        assert deviation(frame, "float64") < 1e-9
        assert deviation(frame, "float32") < 1e-3
    assert rows(frame, "activation-gradient")["log10_closed"].is_monotonic_increasing or activation == "tanh"


def test_scalar_sigmoid_by_hand() -> None:
    own = chain(1.1, 3, activation="sigmoid")
    a, slopes = [1.0], []
    for _ in range(3):
        a.append(1 / (1 + math.exp(-1.1 * a[-1])))
        slopes.append(a[-1] * (1 - a[-1]))
    expected = {
        "activation": a[1:],
        "activation-gradient": [1.1**2 * slopes[1] * slopes[2], 1.1 * slopes[2], 1.0],
        "weight-gradient": [
            1.1**2 * slopes[1] * slopes[2] * slopes[0] * a[0],
            1.1 * slopes[2] * slopes[1] * a[1],
            slopes[2] * a[2],
        ],
    }
    for quantity, values in expected.items():
        np.testing.assert_allclose(10 ** rows(own.frame(), quantity)["log10_closed"], values, rtol=1e-13)


def test_slopes_that_saturate() -> None:
    """1 - tanh(z)^2 is 4 e^(-2z) for large z, which both precisions round to 0: the closed form does not."""
    frame = rows(chain(30.0, 1, activation="tanh").frame(), "weight-gradient")
    assert frame["log10_closed"].item() == pytest.approx(math.log10(4) - 60 / math.log(10), rel=1e-14)
    assert frame["float32"].item() == frame["float64"].item() == "zero"


# --- what precision loses


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_single_precision_says_what_it_lost(kind: Kind) -> None:
    for weight, shortcut in ((0.5, "none"), (3.0, "none"), (1.1, "identity")):
        frame = chain(weight, 300, kind=kind, shortcut=shortcut, **SIZE).frame()
        gradient = rows(frame, "activation-gradient")
        closed, state = gradient["log10_closed"], gradient["float32"]
        # by the largest number of a vector, which is at least its norm over the root of how many it has
        within = math.log10(30) / 2 + 0.01
        assert state[closed.between(LOG_TINY + within, LOG_HUGE - 0.01)].eq("normal").all()
        assert state[closed.between(LOG_LEAST + within, LOG_TINY - 0.01)].eq("subnormal").all()
        assert state[closed.gt(LOG_HUGE + within)].eq("overflow").all()
        if kind == "scalar":  # half the least number is rounded to it or to 0
            assert state[closed.lt(LOG_LEAST - 0.4)].eq("zero").all()
        assert gradient["log10_float32"].isna().equals(state.eq("overflow"))
        assert np.isneginf(gradient["log10_float32"]).tolist() == state.eq("zero").tolist()
        assert set(state) >= ({"normal", "zero"} if weight < 1 else {"normal", "overflow"})
        assert gradient["float64"].eq("normal").all()


@pytest.mark.slow
def test_a_weight_near_one_never_leaves_the_least_numbers() -> None:
    """0.9 times four times the least number is rounded back to it: the gradient freezes instead of vanishing."""
    gradient = rows(chain(0.9, 1200).frame(), "activation-gradient")
    assert gradient["float32"].iloc[0] == "subnormal"
    assert gradient["log10_closed"].iloc[0] == pytest.approx(1199 * math.log10(0.9), rel=1e-12)
    frozen = 10 ** gradient["log10_float32"].iloc[0] / 2.0**-149
    assert frozen == pytest.approx(round(frozen)) and 1 <= frozen <= 5
    assert gradient["log10_float32"].iloc[0] > gradient["log10_closed"].iloc[0] + 9


def test_gradients_through_what_is_no_number_count_as_lost() -> None:
    frame = chain(1.0, 300, kind="dense", activation="relu", shortcut="identity").frame()
    assert rows(frame, "activation")["float32"].iloc[-1] == "overflow"
    assert rows(frame, "activation-gradient")["float32"].eq("overflow").all()
    assert deviation(frame, "float64") < 1e-9


def test_a_gradient_that_is_zero() -> None:
    result = chain(-1.0, 5, shortcut="identity")
    gradient = rows(result.frame(), "activation-gradient")
    assert np.isneginf(gradient["log10_closed"].iloc[:4]).all()
    assert gradient["float64"].tolist() == ["zero"] * 4 + ["normal"]
    assert np.isneginf(chain(0.0, 4, kind="dense").closed[1, :3]).all()
    dead = chain(-1.0, 4, activation="relu").frame()
    assert np.isneginf(dead["log10_closed"]).sum() == np.isneginf(dead["log10_float64"]).sum() == 11
    assert "|dL/da_1| = 0 " in result.words()


# --- results


@pytest.mark.slow
def test_frame_words_and_determinism() -> None:
    result = chain(0.9, 1000, kind="dense", seed=3)
    frame = result.frame()
    assert list(frame.columns) == [
        "layer",
        "quantity",
        "log10_closed",
        "log10_float32",
        "float32",
        "log10_float64",
        "float64",
    ]
    assert len(frame) == 3000 and list(frame["quantity"].unique()) == list(QUANTITIES)
    words = result.words()
    assert "\n" not in words and "|dL/da_1| = 10^-45.71 |dL/da_1000|" in words
    assert "the weight gradient is 0 in float32" in words
    one, same, other = (chain(0.9, 20, kind="dense", shortcut="identity", seed=seed).frame() for seed in (3, 3, 4))
    pd.testing.assert_frame_equal(one, same)
    assert not one["log10_closed"].equals(other["log10_closed"])


def test_nothing_global_is_drawn() -> None:
    before = torch.random.get_rng_state()
    chain(0.9, 3, kind="convolutional")
    measured_variance(stack("he-normal", "relu", 2, 4))
    assert torch.random.get_rng_state().equal(before)


@settings(max_examples=30, deadline=None)
@given(
    st.floats(-3, 3, width=32, allow_subnormal=False),
    st.integers(1, 12),
    st.sampled_from(KINDS),
    st.sampled_from(ACTIVATIONS),
    st.floats(-1.5, 1.5, width=32, allow_subnormal=False),
    st.floats(-1.5, 1.5, width=32, allow_subnormal=False),
    st.integers(1, 4),
    st.integers(1, 4),
)
def test_any_chain_agrees_in_double_precision(
    weight: float,
    layers: int,
    kind: Kind,
    activation: ChainActivation,
    alpha: float,
    beta: float,
    width: int,
    size: int,
) -> None:
    own = Chain(weight, layers, kind, activation, "scaled", alpha, beta, width, size)
    closed, measured = product_form(own), measure(own, torch.float64)
    normal = (np.array(measured.ranges) == "normal") & (closed > -8)  # smaller ones are what cancellation left
    assert np.abs(closed[normal] - measured.log10[normal]).max(initial=0) < 1e-4
    assert not np.isnan(closed).any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layers": 0}, "chain: layers 0: expected a whole number of at least 1"),
        ({"layers": True}, "chain: layers True: expected"),
        ({"layers": 10_001}, "chain: layers 10001: expected at most 10000"),
        ({"weight": math.nan}, "chain: weight nan: expected a number within the range of float32"),
        ({"weight": 1e39}, "chain: weight 1e[+]39: expected a number within the range of float32"),
        ({"weight": "0.9"}, "chain: weight '0.9': expected a number"),
        ({"kind": "densse"}, "chain: unknown kind 'densse'; did you mean 'dense'"),
        ({"activation": "gelu"}, "chain: unknown activation 'gelu'"),
        ({"shortcut": "A"}, "chain: unknown shortcut 'A'"),
        ({"branch_factor": 0.5}, "chain: branch_factor 0.5 with shortcut 'none': only 'scaled' has factors"),
        ({"kind": "dense", "width": 0}, "chain: width 0: expected"),
        ({"kind": "dense", "width": 2000, "layers": 100}, "chain: 400200000 weights and activations in 100 dense"),
    ],
)
def test_bad_chains(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        chain(**{"weight": 0.9, "layers": 5, **arguments})
    assert "\n" not in str(caught.value)


# --- variance


@pytest.mark.parametrize("name", get_args(InitialisationName))
@pytest.mark.parametrize("kernel", [None, 3])
def test_variance_of_a_weight(name: InitialisationName, kernel: int | None) -> None:
    made = Stack(Initialisation(name=name, gain=1.3), "linear", (40, 60), kernel)
    from leadline.theory.variance import _network

    weights = torch.cat([_network(made, seed)[0][0].weight.flatten() for seed in range(4)])
    assert weights.square().mean().item() == pytest.approx(
        weight_variance(made.initialisation, 40 * made.area, 60 * made.area, made.area),
        rel=5 * math.sqrt(2 / len(weights)) if "orthogonal" not in name else 1e-5,
    )


def test_closed_forms_by_layer() -> None:
    for name, activation, factor in (
        ("old-uniform", "linear", 1 / 3),
        ("old-uniform", "relu", 1 / 6),
        ("xavier-normal", "relu", 1 / 2),
        ("lecun-uniform", "linear", 1),
        ("he-normal", "relu", 1),
        ("he-uniform", "linear", 2),
        ("orthogonal", "linear", 1),
    ):
        for kernel in (None, 3):
            if name == "orthogonal" and kernel:
                continue
            forward, backward = predicted_variance(stack(name, activation, 20, 64, kernel=kernel))
            np.testing.assert_allclose(forward, [factor**n for n in range(1, 21)], rtol=1e-12)
            np.testing.assert_allclose(backward, [factor ** (20 - n) for n in range(1, 21)], rtol=1e-12)


@pytest.mark.parametrize("q", [1e-4, 0.3, 1.0, 10.0])
def test_tanh_of_a_gaussian(q: float) -> None:
    from leadline.theory.variance import _expectations

    def expected(f: Any) -> float:
        density = lambda x: f(math.sqrt(q) * x) * math.exp(-x * x / 2) / math.sqrt(2 * math.pi)  # noqa: E731
        return float(integrate.quad(density, -12, 12, epsabs=1e-13, epsrel=1e-12, limit=400)[0])

    squares, slopes = _expectations("tanh", q)
    assert squares == pytest.approx(expected(lambda z: math.tanh(z) ** 2), rel=1e-7)
    assert slopes == pytest.approx(expected(lambda z: math.cosh(z) ** -4), rel=1e-7)


def deviations(made: Stack, networks: int, **arguments: Any) -> np.ndarray:
    """How many standard errors the mean of random networks is from the prediction, by direction and layer."""
    found = np.stack([measured_variance(made, seed=seed, **arguments) for seed in range(networks)])
    error = found.std(0, ddof=1) / math.sqrt(networks)
    # the last layer's gradient is exact, and so is all that orthogonal linear layers do
    floor = 1e-9 * predicted_variance(made)
    return np.abs(found.mean(0) - predicted_variance(made)) / np.maximum(error, floor)


@pytest.mark.parametrize("name", ["old-uniform", "he-normal", "he-uniform-fan-out", "xavier-uniform", "lecun-normal"])
@pytest.mark.parametrize("activation", ["linear", "relu", "tanh"])
def test_measured_on_predicted(name: InitialisationName, activation: Any) -> None:
    made = stack(name, activation, 8, 128)
    if activation == "tanh":  # predicted for infinite width: off by about depth / width
        found = np.mean([measured_variance(made, samples=8, seed=seed) for seed in range(24)], axis=0)
        np.testing.assert_allclose(found, predicted_variance(made), rtol=0.15)
    else:
        assert deviations(made, 24, samples=8).max() < 5


@pytest.mark.slow
def test_widths_that_change() -> None:
    """Xavier's compromise: neither direction is kept where widths change, and both are predicted."""
    widths = (32, 64, 128, 64, 16)
    for name in ("xavier-normal", "he-normal", "he-normal-fan-out", "old-uniform"):
        made = Stack(Initialisation(name=name), "relu", widths)
        assert deviations(made, 60, samples=8).max() < 5
    made = Stack(Initialisation(name="orthogonal"), "linear", widths)
    assert deviations(made, 60, samples=8).max() < 5


@pytest.mark.parametrize("name", ["old-uniform", "he-normal", "orthogonal", "delta-orthogonal"])
def test_convolutions(name: InitialisationName) -> None:
    assert deviations(stack(name, "linear", 4, 12, kernel=3), 40, samples=2, pixels=6).max() < 5
    if "orthogonal" not in name:
        assert deviations(stack(name, "relu", 4, 12, kernel=3), 60, samples=2, pixels=6).max() < 5


@pytest.mark.slow
def test_relu_is_exact_in_narrow_layers() -> None:
    """At width 8 all that is missing is what one dead layer in 256 stops."""
    assert deviations(stack("he-normal", "relu", 3, 8), 800, samples=1).max() < 5


def test_biases_keep_a_floor() -> None:
    made = stack("old-uniform", "relu", 12, 96, bias=True)
    forward = predicted_variance(made)[0]
    assert forward[-1] == pytest.approx((1 / (6 * 96)) / (1 - 1 / 6), rel=1e-6)
    assert deviations(made, 24, samples=4).max() < 5
    assert predicted_variance(replace(made, bias=False))[0, -1] == pytest.approx(6.0**-12)


def test_variance_result() -> None:
    result = variance(stack("old-uniform", "relu", 5, 32), networks=6, samples=4)
    frame = result.frame()
    assert list(frame.columns) == ["layer", "direction", "predicted", "measured", "low", "high", "networks"]
    assert (frame["low"] <= frame["measured"]).all() and (frame["measured"] <= frame["high"]).all()
    pd.testing.assert_frame_equal(frame, variance(stack("old-uniform", "relu", 5, 32), networks=6, samples=4).frame())
    assert "old-uniform, relu, 5 dense layers of width 32: forward" in result.words()
    assert np.isinf(variance(stack("he-normal", "relu", 2, 4), networks=1).frame()["high"]).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: stack("hee-normal", "relu", 3, 8), "stack: unknown initialisation 'hee-normal'; did you mean"),
        (lambda: stack("he-normal", "gelu", 3, 8), "stack: unknown activation 'gelu'"),
        (lambda: stack("he-normal", "relu", 0, 8), "stack: depth 0: expected a whole number of at least 1"),
        (lambda: stack("he-normal", "relu", 3, 0), "stack: width 0: expected a whole number"),
        (lambda: stack("he-normal", "relu", 3, 8, kernel=2), "stack: kernel 2: expected an odd number"),
        (lambda: stack("he-normal", "relu", 3, 8, gain=-1.0), "stack: gain -1.0: expected a number above 0"),
        (lambda: stack("he-normal", "relu", 1000, 1000), "stack: 1000000000 weights: expected at most"),
        (
            lambda: Stack(Initialisation(name="delta-orthogonal"), "relu", (8, 4), 3),
            "stack: delta-orthogonal cannot go from 8",
        ),
        (lambda: Stack(Initialisation(identity=True), "relu", (8, 8), 3), "stack: initialisation.identity copies"),
        (lambda: Stack(Initialisation(), "relu", (8,)), "stack: widths"),
        (lambda: variance(stack("he-normal", "relu", 3, 8), networks=0), "stack: networks 0: expected"),
        (lambda: variance(stack("he-normal", "relu", 3, 8, kernel=5), pixels=3), "stack: pixels 3 with kernel 5"),
    ],
)
def test_bad_stacks(make: Any, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        make()
    assert "\n" not in str(caught.value)


# --- figures


def svg(figure: Any) -> str:
    spec = figure.chart().to_dict() | {"config": theme(LIGHT, standalone=True)}
    return str(vl_convert.vegalite_to_svg(spec, vl_version=vl_convert.get_vegalite_versions()[-1]))


@pytest.mark.slow
def test_chain_figure() -> None:
    results = [chain(weight, 200, shortcut=shortcut) for shortcut in SHORTCUTS for weight in (0.5, 1.0, 1.1)]
    figure = chain_figure(results)
    assert [panel.title for panel in figure.panels] == [
        "scalar, linear, no shortcut",
        "scalar, linear, identity shortcuts",
        "scalar, linear, 1 + W/200",
    ]
    assert [key.label for key in figure.keys] == ["W = 0.5", "W = 1", "W = 1.1", LOST]
    assert "50 layers of W = 0.5 (scalar, linear, no shortcut: 0)" in figure.caption
    assert len(figure.data) == 9 * 200
    drawn = svg(figure)
    assert "float32 overflows" in drawn and "1e-60" in drawn
    for quantity in QUANTITIES:
        assert chain_figure(results[:3], quantity).name == f"chain-{quantity}"


def test_chain_figures_that_cannot_be() -> None:
    one = chain(0.9, 5)
    for results, message in (
        ([], "no chain"),
        ([one, chain(0.9, 6)], r"chains of \[5, 6\] layers"),
        ([one, one], "two chains of one weight"),
        ([chain(0.1 * n, 5) for n in range(22)], "22 weights; expected at most 21"),
    ):
        with pytest.raises(SpecError, match=message):
            chain_figure(results)
    zero = chain_figure([chain(-1.0, 1, activation="relu")], "weight-gradient")
    assert not zero.panels and "0 in every layer" in zero.caption


def test_variance_figure() -> None:
    results = [
        variance(stack(name, activation, 6, 16), networks=3, samples=2)
        for activation in ("linear", "relu")
        for name in ("old-uniform", "he-normal")
    ]
    figure = variance_figure(results)
    assert [panel.title for panel in figure.panels] == [
        "Activations: linear, dense",
        "Gradients: linear, dense",
        "Activations: relu, dense",
        "Gradients: relu, dense",
    ]
    assert len(figure.data) == 4 * 12
    assert "NaN" not in svg(figure)
    for wrong, message in (([], "no stack"), ([results[0]] * 2, "two stacks")):
        with pytest.raises(SpecError, match=message):
            variance_figure(wrong)
    assert svg(variance_figure([variance(stack("he-normal", "tanh", 1, 4), networks=1)]))
