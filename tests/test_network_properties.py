"""Properties over the space of networks: whatever can be written down builds and works, or says why not in one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, get_args

import pytest
import torch
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from leadline.errors import SpecError
from leadline.networks.modules import build, inspect_network, noise_at
from leadline.parts.shortcuts import SHORTCUTS as KINDS
from leadline.specs import Block, NetworkSpec, Shortcut, Stage, parse
from leadline.specs.network import (
    Activation,
    BranchInitialisation,
    InitialisationName,
    Normalisation,
    Order,
)

slow = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
WIDTHS = st.integers(1, 16)
RATES = st.sampled_from([0.0, 0.0, 0.25, 0.6])
SHAPES = st.tuples(st.integers(1, 3), st.integers(4, 17), st.integers(4, 17))
CLASSES = st.integers(1, 5)


def one_of(literal: Any) -> st.SearchStrategy[str]:
    return st.sampled_from(get_args(literal))


def stages(widths: st.SearchStrategy[int]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {
            "blocks": st.integers(1, 3),
            "width": widths,
            "inner_width": st.none() | widths,
            "stride": st.sampled_from([1, 1, 2, 3]),
            "pool": st.sampled_from([False, False, True]),
            "transition": st.none() | st.sampled_from([0.1, 0.5, 1.0]),
        }
    )


SHORTCUTS = st.fixed_dictionaries(
    {
        "kind": st.sampled_from(sorted(KINDS.members())),
        "shortcut_factor": st.floats(-1, 1),
        "branch_factor": st.floats(-1, 1),
        "gate_bias": st.floats(-6, 6),
        "gate_kernel": st.sampled_from([1, 3]),
        "arguments": st.just({}),
        "dropout": RATES,
    }
)
BLOCKS = st.fixed_dictionaries(
    {
        "kind": one_of(Block.model_fields["kind"].annotation),
        "order": one_of(Order),
        "shortcut": SHORTCUTS,
        "bias": st.booleans(),
        "kernel": st.sampled_from([1, 3, 3, 5]),
        "groups": st.sampled_from([1, 1, 2, 4]),
        "stride_in": st.sampled_from(["3x3", "first-1x1"]),
        "dropout": RATES,
        "stochastic_depth": RATES,
    }
)
NETWORKS = st.fixed_dictionaries(
    {
        "layers": st.sampled_from(["convolutional", "convolutional", "fully-connected"]),
        "stem": st.none()
        | st.fixed_dictionaries(
            {"width": WIDTHS, "kernel": st.integers(1, 7), "stride": st.integers(1, 3), "pool": st.booleans()}
        ),
        "stages": st.lists(stages(WIDTHS), min_size=1, max_size=3),
        "block": BLOCKS,
        "sharing": st.none() | st.fixed_dictionaries({"normalisation": st.sampled_from(["shared", "per-step"])}),
        "head": st.fixed_dictionaries(
            {
                "pool": st.sampled_from(["global-average", "average-2x2", "none"]),
                "dropout": RATES,
                "recurrent": st.none()
                | st.fixed_dictionaries({"steps": st.integers(1, 4), "width": WIDTHS, "dropout": RATES}),
            }
        ),
        "normalisation": one_of(Normalisation),
        "weight_standardisation": st.booleans(),
        "activation": one_of(Activation),
        "initialisation": st.fixed_dictionaries(
            {
                "name": one_of(InitialisationName),
                "gain": st.none() | st.floats(0.1, 2),
                "bias_std": st.none() | st.floats(0, 1),
                "branch": st.sampled_from(["none", "none", *get_args(BranchInitialisation)]),
            }
        ),
        "checkpoint_blocks": st.booleans(),
    }
)


@st.composite
def likely(draw: st.DrawFn) -> dict[str, Any]:
    """A network that is seldom impossible: what would rule a combination out is mended, in either direction."""
    data = draw(NETWORKS)
    block, kind = data["block"], data["block"]["shortcut"]["kind"]
    # widths that grow suit every shortcut
    widths = sorted(draw(st.lists(st.sampled_from([4, 8, 12, 16]), min_size=3, max_size=3)))
    pooled = draw(st.sampled_from([None, None, 0, 1, 2]))
    for number, (stage, width) in enumerate(zip(data["stages"], widths, strict=False)):
        stage["pool"] = number == pooled
        stage["width"] = width
        stage["inner_width"] = draw(st.sampled_from([None, 4, 8]))
        if kind != "concatenate":
            stage["transition"] = None
    if data["stem"]:
        data["stem"]["width"] = draw(st.integers(1, 4))
    if block["kind"] != "bottleneck":
        block["groups"], block["stride_in"] = 1, "3x3"
    else:
        for stage in data["stages"]:
            stage["inner_width"] = draw(st.sampled_from([4, 8]))
    branch = data["initialisation"]["branch"]
    if branch == "fixup":
        block["kind"] = "basic" if block["kind"] == "single" else block["kind"]
        block["order"], data["normalisation"], data["weight_standardisation"] = "original", "none", False
    elif branch == "zero-gamma":
        block["order"] = draw(st.sampled_from(["original", "relu-only-preactivation"]))
    if kind == "concatenate":
        block["order"], data["sharing"] = "full-preactivation", None
        for stage in data["stages"]:
            stage["stride"] = 1
    if kind in ("none", "concatenate"):
        data["initialisation"]["branch"], block["stochastic_depth"] = "none", 0.0
    if data["initialisation"]["branch"] == "zero-gamma" or block["order"] in (
        "bn-after-addition",
        "relu-only-preactivation",
    ):
        data["normalisation"] = draw(one_of(Normalisation).filter(lambda name: name != "none"))
    if data["layers"] == "fully-connected":
        if data["stem"]:
            data["stem"].update(stride=1, pool=False)
        for stage in data["stages"]:
            stage.update(stride=1, pool=False, transition=None)
        block["groups"], data["head"]["pool"], data["weight_standardisation"] = 1, "none", False
        if data["normalisation"] == "instance":
            data["normalisation"] = "layer"
    return data


@contextmanager
def garbage_in_new_memory() -> Iterator[None]:
    """Fill memory that nobody has written to with NaN, so that what is left unset shows."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.empty(3).isnan().all()
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def one_line(error: SpecError) -> bool:
    return "\n" not in str(error) and len(str(error)) > 10


def built(data: dict[str, Any], shape: tuple[int, int, int], classes: int) -> tuple[NetworkSpec, nn.Module] | None:
    """The network; None, after a look at the message, where it is impossible."""
    try:
        spec = parse(NetworkSpec, data)
        with garbage_in_new_memory():
            network = build(spec, shape, classes, seed=3)
    except SpecError as error:
        assert one_line(error)
        event("impossible")
        return None
    event("possible")
    return spec, network


@pytest.mark.parametrize(
    ("stem", "block", "channels", "works"),
    [
        (None, {"kernel": 1, "shortcut": "none"}, 1, False),
        (None, {"kernel": 1, "shortcut": "none"}, 2, True),
        (None, {"shortcut": "C"}, 1, False),  # 1x1, from the image
        ({"width": 4, "kernel": 1}, {}, 1, False),
        ({"width": 4}, {}, 1, True),
        ({"width": 4}, {"kind": "bottleneck", "groups": 4, "kernel": 1}, 1, False),
        ({"width": 4}, {"kind": "bottleneck", "groups": 2, "kernel": 1}, 1, True),
    ],
)
def test_a_filter_of_one_weight_is_not_standardised_to_zero(
    stem: dict[str, Any] | None, block: dict[str, Any], channels: int, works: bool
) -> None:
    spec = parse(
        NetworkSpec,
        {
            "stem": stem,
            "stages": [{"blocks": 2, "width": 8, "inner_width": 4}],
            "block": {"order": "relu-only-preactivation", **block},
            "weight_standardisation": True,
        },
    )
    if works:
        network = build(spec, (channels, 4, 4), 2, seed=0)
        network(torch.randn(2, channels, 4, 4, generator=torch.Generator().manual_seed(0))).sum().backward()
        assert all(one.grad is not None and one.grad.isfinite().all() for one in network.parameters())
    else:
        with pytest.raises(SpecError, match="weight_standardisation needs filters of two weights or more") as caught:
            build(spec, (channels, 4, 4), 2, seed=0)
        assert one_line(caught.value)


@pytest.mark.slow
@slow
@given(likely(), SHAPES, CLASSES)
def test_what_is_counted_is_there(data: dict[str, Any], shape: tuple[int, int, int], classes: int) -> None:
    state = torch.get_rng_state()
    made = built(data, shape, classes)
    if made is None:
        return
    spec, network = made
    assert NetworkSpec.model_validate_json(spec.model_dump_json()) == spec
    info = inspect_network(spec, shape, classes)
    assert info.parameters == sum(parameter.numel() for parameter in network.parameters())
    assert info.output_shape == (classes,)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        logits = network.eval()(torch.ones(1, *shape))
    assert logits.shape == (1, classes)
    assert 2 * info.multiply_adds == counter.get_total_flops()
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.slow
@slow
@given(likely(), SHAPES, CLASSES, st.integers(2, 3))
def test_every_parameter_is_drawn_and_has_a_finite_gradient(
    data: dict[str, Any], shape: tuple[int, int, int], classes: int, batch: int
) -> None:
    made = built(data, shape, classes)
    if made is None:
        return
    spec, network = made
    again = build(spec, shape, classes, seed=3).state_dict()
    values = network.state_dict()
    assert list(values) == list(again)
    for name, value in values.items():
        assert value.isfinite().all(), f"{name} is not set"
        assert torch.equal(value, again[name]), name
    state = torch.get_rng_state()
    images = torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0))
    with noise_at(network, 1, 2):
        logits = network.train()(images)
        loss = nn.functional.cross_entropy(logits, torch.arange(batch) % classes)
        loss.backward()
    assert logits.shape == (batch, classes)
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, f"{name} is never used"
        assert parameter.grad.isfinite().all(), name
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(NETWORKS, SHAPES, CLASSES)
def test_anything_builds_or_says_why(data: dict[str, Any], shape: tuple[int, int, int], classes: int) -> None:
    made = built(data, shape, classes)
    if made is not None:
        with torch.no_grad():
            assert made[1].train()(torch.ones(2, *shape)).shape == (2, classes)


@pytest.mark.slow
@slow
@given(likely(), SHAPES)
def test_plain_and_residual_twins(data: dict[str, Any], shape: tuple[int, int, int]) -> None:
    """One argument apart, the same names, shapes and values, whatever else the network is made of."""
    data["initialisation"]["branch"], data["block"]["stochastic_depth"] = "none", 0.0
    data["block"]["shortcut"]["kind"] = "A"
    residual = built(data, shape, 3)
    data["block"]["shortcut"]["kind"] = "none"
    plain = built(data, shape, 3)
    if residual is None:
        return
    assert plain is not None
    a, b = residual[1].state_dict(), plain[1].state_dict()
    assert list(a) == list(b)
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize(
    ("strategy", "spec"),
    [
        (NETWORKS, NetworkSpec),
        (BLOCKS, Block),
        (SHORTCUTS, Shortcut),
        (stages(WIDTHS), Stage),
    ],
)
def test_the_space_covers_every_argument(strategy: st.SearchStrategy[dict[str, Any]], spec: Any) -> None:
    seen: list[dict[str, Any]] = []

    @settings(max_examples=1, database=None)
    @given(strategy)
    def look(data: dict[str, Any]) -> None:
        seen.append(data)

    look()
    assert set(seen[0]) == set(spec.model_fields)


TOO_SMALL = [
    {"stages": [{"blocks": 1, "width": 4, "pool": True}] * 3},
    {"stages": [{"blocks": 1, "width": 4, "transition": 0.5}] * 3},
    {"stages": [{"blocks": 1, "width": 4, "stride": 8}], "head": {"pool": "average-2x2"}},
    {"stages": [{"blocks": 1, "width": 4, "stride": 8}], "normalisation": "instance"},
]


@pytest.mark.parametrize("data", TOO_SMALL, ids=str)
def test_images_that_are_too_small_are_refused_when_building(data: dict[str, Any]) -> None:
    spec = parse(NetworkSpec, data)
    with pytest.raises(SpecError, match=r"^an image of 3x7x5 is too small for the network's ") as caught:
        build(spec, (3, 7, 5), 10)
    assert one_line(caught.value)
    assert build(spec, (3, 32, 32), 10)(torch.ones(2, 3, 32, 32)).shape == (2, 10)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"block": {"groups": 2}}, "block.groups 2 needs block.kind bottleneck, got basic"),
        ({"block": {"kind": "bottleneck", "groups": 3}}, "stages.0: 2 inner channels do not divide into 3 groups"),
        ({"block": {"stride_in": "first-1x1"}}, "block.stride_in first-1x1 needs block.kind bottleneck, got basic"),
        ({"block": {"kernel": 2}}, "block.kernel 2 is even"),
        ({"block": {"shortcut": "concatenate"}}, "concatenate needs block.order full-preactivation, got original"),
        ({"block": {"shortcut": "none", "stochastic_depth": 0.5}}, "stochastic_depth 0.5 needs a shortcut"),
        ({"block": {"order": "bn-after-addition"}, "normalisation": "none"}, "bn-after-addition needs a normalisation"),
        ({"initialisation": {"branch": "fixup"}}, "fixup needs normalisation none"),
        (
            {"initialisation": {"branch": "fixup"}, "normalisation": "none", "weight_standardisation": True},
            "fixup scales weights, and weight_standardisation undoes that",
        ),
        ({"stages": []}, "stages"),
    ],
)
def test_impossible_specs_say_why_in_one_line(data: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse(NetworkSpec, {"stages": [{"blocks": 1, "width": 8}], **data})
    assert message in str(caught.value)
    assert one_line(caught.value)
