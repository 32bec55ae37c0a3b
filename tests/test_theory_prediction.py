"""Predictions from specifications: against the maps, closed forms, networks as they are built, and bad input."""

import json
import math
import re
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
import torch

from leadline.errors import SpecError
from leadline.networks import family
from leadline.networks.modules import build
from leadline.networks.modules.network import skeleton
from leadline.reports.charts.files import to_svg
from leadline.specs import Initialisation, ModuleSpec, NetworkSpec, parse
from leadline.specs.network import InitialisationName
from leadline.theory.meanfield import Point, chi, covariance_map, signal, variance_map
from leadline.theory.meanfield_figures import prediction_figure
from leadline.theory.population import Walk, variances
from leadline.theory.prediction import FAR, LOST, Prediction, predict_depth
from leadline.theory.random_networks import MeasuredBlocks, measure_blocks

IMAGE = (3, 8, 8)


def network(**changes: Any) -> NetworkSpec:
    spec = {
        "stages": [{"blocks": 6, "width": 24}],
        "block": {"kind": "single", "shortcut": "none", "bias": True},
        "normalisation": "none",
        **changes,
    }
    return parse(NetworkSpec, spec)


def dense(depth: int, activation: str, sigma_w: float, sigma_b: float, **changes: Any) -> NetworkSpec:
    """A stack whose hidden layers are one point of the plane."""
    block = {"kind": "single", "shortcut": "none", "bias": True, **changes.pop("block", {})}
    return network(
        layers="fully-connected",
        stages=[{"blocks": depth, "width": 100}],
        head={"pool": "none"},
        activation=activation,
        block=block,
        initialisation={"name": "lecun-normal", "gain": sigma_w, "bias_std": sigma_b},
        **changes,
    )


# --- against the maps


@pytest.mark.parametrize(
    ("activation", "sigma_w", "sigma_b"),
    [("tanh", 0.9, 0.2), ("tanh", 2.0, 0.2), ("relu", 1.0, 0.3), ("gelu", 1.5, 0.1)],
)
def test_plain_dense_networks_follow_the_maps(activation: Any, sigma_w: float, sigma_b: float) -> None:
    depth, point = 12, Point(activation, sigma_w, sigma_b)
    found = predict_depth(dense(depth, activation, sigma_w, sigma_b), twin=False)
    start = sigma_w**2 + sigma_b**2  # the image has variance 1, no activation before the first layer
    (q, unlike), (_, alike) = (
        signal(point, depth, start, (correlation * sigma_w**2 + sigma_b**2) / start) for correlation in (0.25, 0.75)
    )
    unit = Point(activation, 1.0)
    np.testing.assert_allclose(found.second_moment, variance_map(unit, q), rtol=0.005)
    # a block's output is phi of its layer
    told = [
        covariance_map(unit, v, b) / float(variance_map(unit, v))
        - covariance_map(unit, v, a) / float(variance_map(unit, v))
        for v, a, b in zip(q, unlike, alike, strict=True)
    ]
    np.testing.assert_allclose(found.kept, 2 * np.array(told), atol=0.03)
    # so from the last block's output its gradient takes the slopes of all layers above its own
    logs = np.log10(chi(point, q[1:])) / 2
    np.testing.assert_allclose(found.gradient[:-1], np.cumsum(logs[::-1])[::-1], atol=0.003)
    assert found.fixed is not None and found.fixed.chi_1 > 0
    assert found.layers == tuple(range(1, depth + 1))


def test_a_gradient_takes_the_slopes_of_the_layers_above() -> None:
    """Two layers, sigma_w^2 = 3: ReLU halves, so the first output's squared gradient is 3/2 of the second's."""
    found = predict_depth(dense(2, "relu", math.sqrt(3), 0.0), twin=False)
    assert found.gradient[0] == pytest.approx(math.log10(1.5) / 2, abs=1e-3)
    assert found.gradient[1] == 0.0


def test_preactivated_residual_relu_doubles() -> None:
    """Yang & Schoenholz 2017: with sigma_w^2 = 2 each block doubles the variance, and the squared gradient."""
    spec = network(
        layers="fully-connected",
        stages=[{"blocks": 10, "width": 64}],
        block={"kind": "single", "shortcut": "A", "order": "full-preactivation"},
        head={"pool": "none"},
    )
    # as many inputs as units and no stem: the first block leaves its shortcut alone like any other
    found = predict_depth(spec, (1, 8, 8), twin=False)
    np.testing.assert_allclose(found.second_moment, 2.0 ** np.arange(1, 11), rtol=0.04)
    assert found.gradient[0] == pytest.approx(9 * math.log10(2) / 2, abs=0.01)


@pytest.mark.slow
def test_branches_that_start_at_zero_leave_the_shortcut() -> None:
    for branch, changes in (
        ("skipinit", {"kind": "single"}),
        ("rezero", {"kind": "basic"}),
        ("fixup", {"kind": "basic"}),
    ):
        spec = network(
            stem={"width": 24},
            block={**changes, "shortcut": "A"},
            initialisation={"name": "he-normal", "branch": branch},
        )
        found = predict_depth(spec, IMAGE, twin=False)
        np.testing.assert_allclose(found.second_moment, found.second_moment[0], rtol=1e-12)
        # the half of the units that ReLU set to 0 passes no gradient to the block before
        np.testing.assert_allclose(found.gradient, [math.log10(0.5) / 2] * 5 + [0], atol=1e-3)
        real = measure_blocks(spec, IMAGE, seeds=2, images=2)
        np.testing.assert_allclose(real.gradient.mean(0), found.gradient, atol=0.03)


def test_zero_padding_counts_at_the_border() -> None:
    """One 3x3 convolution of an 8x8 image: 9 neighbours inside, 6 at an edge, 4 in a corner."""
    spec = network(stages=[{"blocks": 1, "width": 24}], activation="relu", initialisation="he-normal")
    share = (36 * 9 + 24 * 6 + 4 * 4) / (64 * 9)
    assert predict_depth(spec, IMAGE, twin=False).second_moment[0] == pytest.approx(share, rel=0.02)
    delta = network(stages=[{"blocks": 1, "width": 24}], initialisation={"name": "delta-orthogonal"})
    assert predict_depth(delta, IMAGE, twin=False).second_moment[0] == pytest.approx(3 / 24 / 2, rel=0.02)


@pytest.mark.parametrize("name", get_args(InitialisationName))
@pytest.mark.parametrize("gain", [None, 1.7])
def test_variances_are_those_of_the_weights_drawn(name: InitialisationName, gain: float | None) -> None:
    initialisation = {"name": name, "gain": gain}
    block = {"kind": "bottleneck", "groups": 2, "shortcut": "none", "bias": True}
    spec = network(stages=[{"blocks": 1, "width": 240}], block=block, initialisation=initialisation)
    if name == "delta-orthogonal":
        spec = spec.with_(stages=[{"blocks": 1, "width": 240, "inner_width": 120}])
    drawn = build(spec, (60, 8, 8), 2)
    for module in drawn.modules():
        if isinstance(module, torch.nn.Conv2d):
            rows, inputs, *area = module.weight.shape
            weight, bias = variances(
                Initialisation(name=name, gain=gain), inputs, rows // module.groups, math.prod(area), rows
            )
            values = module.weight.detach()
            if name == "delta-orthogonal":
                values = values[:, :, area[0] // 2, area[1] // 2]
            assert float(values.square().mean()) == pytest.approx(weight, rel=0.05)
            assert module.bias is not None
            if bias:
                assert float(module.bias.detach().square().mean()) == pytest.approx(bias, rel=0.5)
            else:
                assert not module.bias.any()


# --- against networks as they are built


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"activation": "tanh", "initialisation": {"name": "xavier-normal", "bias_std": 0.1}},
        {"block": {"kind": "basic", "shortcut": "A", "bias": True}, "initialisation": "old-uniform"},
        {
            "block": {"kind": "basic", "shortcut": "C", "order": "relu-before-addition"},
            "initialisation": "lecun-normal",
        },
        {"block": {"kind": "basic", "shortcut": "B", "order": "full-preactivation"}, "activation": "silu"},
        {"block": {"kind": "bottleneck", "shortcut": {"kind": "scaled", "shortcut_factor": 0.7}, "groups": 2}},
        {"block": {"kind": "single", "shortcut": "A", "order": "preactivation-and-after"}, "activation": "gelu"},
    ],
    ids=lambda changes: str(changes)[:60],
)
def test_networks_as_they_are_built_do_as_predicted(changes: dict[str, Any]) -> None:
    """Wide ones: two stages, the second strided and twice as wide."""
    stages = [{"blocks": 3, "width": 96}, {"blocks": 3, "width": 192, "stride": 2}]
    spec = network(**{"stem": {"width": 96}, "stages": stages, **changes})
    found = predict_depth(spec, IMAGE, twin=False)
    networks = 6
    real = measure_blocks(spec, IMAGE, networks, images=2)
    for measured, predicted in (
        (np.log10(real.second_moment), np.log10(found.second_moment)),
        (real.gradient, found.gradient),
    ):
        error = measured.std(0, ddof=1).max() / math.sqrt(networks)
        assert error < 0.1
        assert np.abs(measured.mean(0) - predicted).max() < 4 * error + 0.02


@pytest.mark.slow
@pytest.mark.parametrize(
    ("blocks", "name"), [(5, "comparative-plain"), (20, "comparative-plain"), (20, "comparative-resnet")]
)
def test_the_comparative_networks_do_as_predicted(blocks: int, name: str) -> None:
    spec = family(name, {"blocks": blocks})
    found = predict_depth(spec, (1, 12, 12), twin=False)
    real = measure_blocks(spec, (1, 12, 12), seeds=4, images=2)
    # of 32 and 64 channels: what a layer of so few adds to the spread grows with the square root of depth
    np.testing.assert_allclose(real.gradient.mean(0), found.gradient, atol=0.06 * math.sqrt(2 * blocks))
    assert (found.gradient[0] < -10) == (name == "comparative-plain" and blocks == 20)


def test_a_wrong_initialisation_is_told_apart() -> None:
    right, wrong = (network(initialisation=name) for name in ("he-normal", "lecun-normal"))
    real = measure_blocks(right, IMAGE, seeds=2, images=2).gradient.mean(0)
    gaps = [abs(real[0] - predict_depth(spec, IMAGE, twin=False).gradient[0]) for spec in (right, wrong)]
    assert gaps[0] < 0.3 < gaps[1]


# --- what is said


@pytest.mark.slow
def test_the_comparative_study_is_told() -> None:
    said = predict_depth(family("comparative-plain", {"blocks": 20}), (1, 12, 12)).words()
    assert re.search(r"signals survive about \d of 40 layers; at that depth expect a gradient ratio of 1e-1\d,", said)
    assert "vanishing" in said
    with_shortcuts = said.split("The same with shortcuts: ")[1]
    assert "signals survive all 40 layers" in with_shortcuts and "ratio of 0." in with_shortcuts


@pytest.mark.slow
def test_twins_differ_in_their_shortcut_alone() -> None:
    plain = predict_depth(family("comparative-plain", {"blocks": 3}), (1, 8, 8))
    residual = predict_depth(family("comparative-resnet", {"blocks": 3}), (1, 8, 8))
    assert plain.twin is not None and residual.twin is not None
    assert plain.twin.spec == residual.spec and residual.twin.spec == plain.spec
    assert plain.twin.gradient == residual.gradient and plain.twin.twin is None
    assert "without shortcuts" in residual.words()
    narrowing = predict_depth(family("comparative-cnn", {"blocks": 3}), (1, 8, 8)).twin
    assert narrowing is not None and narrowing.spec.block.shortcut.kind == "B"
    fixup = network(block={"kind": "basic", "shortcut": "A"}, initialisation={"name": "he-normal", "branch": "fixup"})
    assert predict_depth(fixup, IMAGE).twin is not None


def test_survival_is_six_depth_scales_where_there_is_one() -> None:
    """Near the fixed point, tanh with sigma_b above 0."""
    point = Point("tanh", 0.9, 0.2)
    found = predict_depth(dense(3, "tanh", 0.9, 0.2), twin=False)
    fixed = found.fixed
    assert fixed is not None and found.survives > found.depth
    kept = [abs(b - a) * 2 for a, b in zip(*(signal(point, 60, 0.85, c)[1] for c in (0.2618, 0.7537)), strict=True)]
    by_map = next(layer for layer, left in enumerate(kept, 1) if left < LOST)
    assert found.survives == pytest.approx(by_map, abs=1.5)
    assert found.survives == pytest.approx(6 * fixed.xi_c, rel=0.25)


def test_seeds_move_predictions_little_and_repeat_them() -> None:
    spec = network(stages=[{"blocks": 20, "width": 24}])
    first, again, other = (predict_depth(spec, IMAGE, twin=False, seed=seed) for seed in (0, 0, 1))
    assert first == again != other
    np.testing.assert_allclose(first.gradient, other.gradient, atol=0.03)


@pytest.mark.slow
def test_depth_far_beyond_floats_still_has_numbers() -> None:
    spec = network(stages=[{"blocks": 420, "width": 8}], initialisation="old-uniform")
    found = predict_depth(spec, (1, 2, 2), twin=False)
    assert found.gradient[0] < -150 and math.isfinite(found.gradient[0])
    assert "1e-" in found.words() and found.survives < 20
    exploding = predict_depth(
        network(stages=[{"blocks": 300, "width": 8}], initialisation={"name": "he-normal", "gain": 4.0}),
        (1, 4, 4),
        twin=False,
    )
    assert exploding.gradient[0] > 100 and "exploding" in exploding.words()
    assert all(math.isfinite(moment) for moment in exploding.second_moment)


def test_predictions_are_plain_json_too() -> None:
    found = predict_depth(dense(3, "relu", math.sqrt(2), 0.0))
    read = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert read["words"] == found.words() and read["gradient"] == list(found.gradient)
    assert read["fixed"]["xi_gradient"] is None and read["fixed"]["phase"] == "critical"
    assert read["twin"]["spec"]["block"]["shortcut"]["kind"] in ("A", "B") and read["twin"]["twin"] is None


def test_one_block_has_no_ratio() -> None:
    found = predict_depth(network(stages=[{"blocks": 1, "width": 4}]), (1, 4, 4))
    assert "one block has no gradient ratio" in found.words() and found.gradient == (0.0,)


@pytest.mark.slow
def test_predictions_are_drawn_beside_what_was_measured() -> None:
    found = predict_depth(family("comparative-plain", {"blocks": 4}), (1, 8, 8))
    assert found.twin is not None
    both: list[Prediction] = [found, found.twin]
    measured = [measure_blocks(each.spec, (1, 8, 8), 2, 1) for each in both]
    figure = prediction_figure(both, measured)
    assert set(figure.data["base"]) == {"plain", "shortcuts A"} and len(figure.data) == 16
    own = figure.data.query("base == 'plain' and quantity == 'gradient'")
    np.testing.assert_allclose(own["predicted"], found.gradient)
    np.testing.assert_allclose(own["measured"], measured[0].gradient.mean(0))
    assert "<svg" in to_svg(figure) and "some of the blocks" not in figure.caption
    deep = replace(found, gradient=(0.0,) * 17, second_moment=(1.0,) * 17)
    many = MeasuredBlocks(np.ones((2, 17)), np.zeros((2, 17)))
    assert "as they are trained, on some of the blocks; bars" in prediction_figure([deep], [many]).caption
    with pytest.raises(SpecError, match="2 predictions and 1 measurements"):
        prediction_figure(both, measured[:1])


# --- what is not covered

BLOCK = {"kind": "basic", "bias": True}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"normalisation": "batch"}, "normalisation batch: layers do not act on each image separately"),
        ({"normalisation": "layer"}, "normalisation layer: it divides by"),
        ({"normalisation": "group"}, "normalisation group"),
        ({"initialisation": {"name": "he-normal", "identity": True}}, "initialisation.identity: filters that copy"),
        ({"weight_standardisation": True}, "weight_standardisation: the weights of a unit sum to 0"),
        ({"block": {**BLOCK, "shortcut": "A"}, "sharing": {}}, "sharing: the weights of different layers"),
        ({"block": {**BLOCK, "shortcut": "exclusive-gating"}}, "block.shortcut exclusive-gating: a gate multiplies"),
        ({"block": {**BLOCK, "shortcut": "dropout"}}, "block.shortcut dropout 0.5: different images"),
        ({"block": {**BLOCK, "dropout": 0.3, "shortcut": "A"}}, "block.dropout 0.3"),
        ({"block": {**BLOCK, "shortcut": "A", "stochastic_depth": 0.2}}, "block.stochastic_depth 0.2"),
        (
            {"block": {"kind": "dense", "shortcut": "concatenate", "order": "full-preactivation"}},
            "block.shortcut concatenate",
        ),
        ({"stem": {"width": 8, "pool": True}}, "stem.pool: its output depends on the correlations"),
        ({"stages": [{"blocks": 1, "width": 4}, {"blocks": 1, "width": 4, "pool": True}]}, "stages.1.pool"),
    ],
)
def test_what_the_theory_does_not_cover_is_one_line(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(SpecError, match=re.escape("mean-field theory does not cover " + words)) as caught:
        predict_depth(network(**changes), IMAGE)
    assert "\n" not in str(caught.value)


def test_modules_of_ones_own_and_impossible_images_are_one_line() -> None:
    with pytest.raises(SpecError, match=r"does not cover torchvision\.models:resnet18"):
        predict_depth(ModuleSpec(module="torchvision.models:resnet18"))
    with pytest.raises(SpecError, match="input 0x8x8"):
        predict_depth(network(), (0, 8, 8))
    with pytest.raises(SpecError, match="images 0"):
        measure_blocks(network(), IMAGE, images=0)


def test_an_unknown_module_is_named() -> None:
    spec = network()
    walk = Walk(skeleton(spec, IMAGE, 2), spec.initialisation, torch.Generator())
    with pytest.raises(SpecError, match="does not cover MaxPool2d"):
        walk.through(torch.nn.MaxPool2d(2), walk.images(IMAGE, (0.5,)))


@pytest.mark.slow
def test_signals_are_followed_no_further_than_said() -> None:
    spec = network(stem={"width": 8}, block={"kind": "single", "shortcut": "A"}, initialisation="old-uniform")
    found = predict_depth(spec.with_(initialisation={"name": "he-normal", "branch": "skipinit"}), (1, 2, 2), twin=False)
    assert math.isinf(found.survives) and f"more than {FAR}" in found.words()
