"""Initialisations: every name by its formula, orthogonality, and residual networks that start as their shortcuts."""

import math
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leadline.errors import SpecError
from leadline.networks.modules import build
from leadline.networks.modules.blocks import Block
from leadline.networks.modules.shortcuts import Gated
from leadline.specs import NetworkSpec, parse
from leadline.specs.network import InitialisationName

IMAGE = (3, 8, 8)
WIDTH = 48

# standard deviation of a weight with this fan-in and fan-out, and the factor from it to the bound of a uniform draw
GAUSSIAN, UNIFORM = None, math.sqrt(3)
FORMULAS = {
    "old-uniform": (lambda i, o: 1 / math.sqrt(3 * i), UNIFORM),
    "he-normal": (lambda i, o: math.sqrt(2 / i), GAUSSIAN),
    "he-uniform": (lambda i, o: math.sqrt(2 / i), UNIFORM),
    "he-normal-fan-out": (lambda i, o: math.sqrt(2 / o), GAUSSIAN),
    "he-uniform-fan-out": (lambda i, o: math.sqrt(2 / o), UNIFORM),
    "xavier-normal": (lambda i, o: math.sqrt(2 / (i + o)), GAUSSIAN),
    "xavier-uniform": (lambda i, o: math.sqrt(2 / (i + o)), UNIFORM),
    "lecun-normal": (lambda i, o: math.sqrt(1 / i), GAUSSIAN),
    "lecun-uniform": (lambda i, o: math.sqrt(1 / i), UNIFORM),
}


def network(initialisation: Any, seed: int = 0, **changes: Any) -> nn.Module:
    block = changes.pop("block", {"bias": True})
    spec = {
        "stem": {"width": WIDTH // 2},
        "stages": [{"blocks": 2, "width": WIDTH // 2}, {"blocks": 2, "width": WIDTH, "stride": 2}],
        "block": block,
        "normalisation": "none",
        "initialisation": initialisation,
        **changes,
    }
    return build(parse(NetworkSpec, spec), IMAGE, 40, seed=seed)


def weighted(model: nn.Module) -> list[nn.Conv2d | nn.Linear]:
    return [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]


def test_every_name_has_its_test() -> None:
    assert set(FORMULAS) | {"orthogonal", "delta-orthogonal"} == set(get_args(InitialisationName))


@pytest.mark.parametrize("name", FORMULAS)
def test_deviations_and_bounds(name: str) -> None:
    formula, uniform = FORMULAS[name]
    for module in weighted(network(name)):
        values = module.weight.detach().flatten()
        area = module.weight[0, 0].numel()
        std = formula(module.weight.shape[1] * area, module.weight.shape[0] * area)
        # the deviation of a sample deviation is at most sigma / sqrt(2n); five of them
        assert values.std().item() == pytest.approx(std, rel=5 / math.sqrt(2 * len(values)))
        assert abs(values.mean().item()) < 5 * std / math.sqrt(len(values))
        standard = values / std
        if uniform:
            assert 0.98 * uniform < standard.abs().max().item() <= uniform * (1 + 1e-6)
        else:
            assert standard.abs().max() > 2.5
            assert standard.pow(4).mean().item() == pytest.approx(3, abs=5 * math.sqrt(96 / len(values)))


def test_biases() -> None:
    for module in weighted(network("he-normal")):
        assert module.bias.eq(0).all()
    for module in weighted(network("old-uniform")):
        bound = 1 / math.sqrt(module.weight[0].numel())
        assert 0.5 * bound < module.bias.abs().max().item() <= bound
    biases = torch.cat([m.bias.detach() for m in weighted(network({"name": "orthogonal", "bias_std": 0.3}))])
    assert biases.std().item() == pytest.approx(0.3, rel=5 / math.sqrt(2 * len(biases)))


@pytest.mark.slow
def test_gain_multiplies() -> None:
    for name in [*FORMULAS, "orthogonal", "delta-orthogonal"]:
        one, three = (weighted(network({"name": name, "gain": gain}))[1].weight for gain in (1.0, 3.0))
        torch.testing.assert_close(three, 3 * one)


@pytest.mark.parametrize("gain", [None, 1.7])
def test_orthogonal(gain: float | None) -> None:
    model = network({"name": "orthogonal", "gain": gain}, block={"kind": "bottleneck", "shortcut": "B", "groups": 3})
    for module in weighted(model):
        rows = module.weight.detach().flatten(1)
        product = rows @ rows.T if rows.shape[0] <= rows.shape[1] else rows.T @ rows
        torch.testing.assert_close(product, (gain or 1) ** 2 * torch.eye(len(product)), rtol=0, atol=2e-5)


@pytest.mark.parametrize("gain", [None, 1.3])
@pytest.mark.parametrize("groups", [1, 2])
def test_delta_orthogonal_keeps_norms(gain: float | None, groups: int) -> None:
    if groups == 1:
        model = network({"name": "delta-orthogonal", "gain": gain})
    else:
        model = network(
            {"name": "delta-orthogonal", "gain": gain},
            stages=[{"blocks": 2, "width": WIDTH // 2, "inner_width": WIDTH // 2}],
            block={"kind": "bottleneck", "groups": 2},
        )
    seen = 0
    for conv in weighted(model):
        if isinstance(conv, nn.Linear):
            continue
        weight = conv.weight.detach()
        centre = torch.zeros_like(weight[0, 0])
        centre[weight.shape[2] // 2, weight.shape[3] // 2] = 1
        assert (weight * (1 - centre)).eq(0).all()
        assert (weight * centre).abs().sum() > 0
        x = torch.randn(2, conv.in_channels, 5, 5, generator=torch.Generator().manual_seed(0))
        around = weight.shape[-1] // 2
        y = F.conv2d(F.pad(x, (around,) * 4, mode="circular"), weight, groups=conv.groups)
        torch.testing.assert_close(y.norm(dim=1), (gain or 1) * x.norm(dim=1))
        seen = max(seen, conv.groups)
    assert seen == groups


@pytest.mark.parametrize("groups", [1, 2])
def test_identity_copies_the_first_channels_and_draws_the_rest(groups: int) -> None:
    block = {"kind": "bottleneck", "groups": groups, "shortcut": "B"}
    drawn, copying = (
        network({"name": "old-uniform", "identity": identity}, block=block, stem={"width": WIDTH // 2, "kernel": 2})
        for identity in (False, True)
    )
    x = torch.randn(2, WIDTH, 8, 8)
    for one, other in zip(weighted(copying), weighted(drawn), strict=True):
        if not isinstance(one, nn.Conv2d):
            assert torch.equal(one.weight, other.weight)
            continue
        channels, filters = one.weight.shape[1], len(one.weight) // one.groups
        given = x[:, : one.in_channels]
        out = F.conv2d(given, one.weight, padding=one.padding, groups=one.groups)[:, :, :8, :8]
        for group in range(one.groups):
            copied = out[:, group * filters : group * filters + min(channels, filters)]
            torch.testing.assert_close(copied, given[:, group * channels :][:, : copied.shape[1]])
            rest = slice(group * filters + channels, (group + 1) * filters)
            assert torch.equal(one.weight[rest], other.weight[rest])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight_standardisation": True}, "weight_standardisation changes filters that copy a channel"),
        ({"initialisation": {"branch": "fixup", "identity": True}}, "fixup scales filters that copy a channel"),
        (
            {"initialisation": {"name": "delta-orthogonal", "identity": True}},
            "not orthogonal to the others; use another initialisation than delta-orthogonal",
        ),
        ({"layers": "fully-connected", "head": "none"}, "initialisation.identity needs pixels"),
    ],
)
def test_impossible_identity(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse(NetworkSpec, {"stages": [{"blocks": 1, "width": 8}], "initialisation": {"identity": True}, **changes})


def test_gates_copy_no_channel() -> None:
    spec = {"name": "he-normal", "identity": True}
    model = network(spec, block={"shortcut": "exclusive-gating"}, stages=[{"blocks": 1, "width": WIDTH // 2}])
    drawn = network("he-normal", block={"shortcut": "exclusive-gating"}, stages=[{"blocks": 1, "width": WIDTH // 2}])
    (gate,) = (module.gate for module in model.modules() if isinstance(module, Gated))
    assert torch.equal(gate.weight, drawn.get_submodule("stages.0.0.join.gate").weight)


def test_identity_is_in_no_hash_of_networks_without_it() -> None:
    spec = parse(NetworkSpec, {"stages": [{"blocks": 1, "width": 8}]})
    assert "identity" not in spec.model_dump()["initialisation"]
    with_it = parse(NetworkSpec, {**spec.model_dump(), "initialisation": {"identity": True}})
    assert parse(NetworkSpec, with_it.model_dump()) == with_it != spec


def test_delta_orthogonal_cannot_narrow() -> None:
    with pytest.raises(
        SpecError, match=r"delta-orthogonal needs at least as many output channels as input channels, got 16 to 8; .*"
    ) as caught:
        network("delta-orthogonal", stages=[{"blocks": 1, "width": 8, "inner_width": 16}], stem={"width": 8})
    assert "\n" not in str(caught.value)


def shortcuts_alone(model: nn.Module, seed: int = 1) -> list[tuple[Tensor, Tensor]]:
    """What every block gives, and what its shortcut alone gives, for random maps that are positive and negative."""
    pairs = []
    for block in model.modules():
        if isinstance(block, Block):
            conv = next(module for module in block.branch.modules() if isinstance(module, nn.Conv2d))
            x = torch.randn(4, conv.in_channels, 6, 6, generator=torch.Generator().manual_seed(seed))
            pairs.append((block(x), block.after(block.join.path(block.before(x)))))
    return pairs


START = [
    *({"branch": branch, "order": order} for branch in ("skipinit", "rezero")
      for order in ("original", "bn-after-addition", "relu-before-addition", "relu-only-preactivation",
                    "full-preactivation", "preactivation-and-after")),
    *({"branch": "zero-gamma", "order": order} for order in ("original", "relu-only-preactivation")),
    *({"branch": "fixup", "order": "original"} for _ in range(1)),
]  # fmt: skip


@pytest.mark.parametrize("shortcut", ["A", "B", "C"])
@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
@pytest.mark.parametrize("case", START, ids=lambda case: "-".join(case.values()))
@pytest.mark.parametrize("name", ["he-normal", "old-uniform"])
def test_blocks_start_as_their_shortcuts(case: dict[str, str], kind: str, shortcut: str, name: str) -> None:
    model = network(
        {"name": name, "branch": case["branch"]},
        block={"kind": kind, "order": case["order"], "shortcut": shortcut, "bias": True},
        normalisation="none" if case["branch"] == "fixup" else "batch",
    ).train()
    pairs = shortcuts_alone(model)
    assert len(pairs) == 4
    for found, alone in pairs:
        assert alone.abs().max() > 0.1
        torch.testing.assert_close(found, alone)


@pytest.mark.parametrize("case", START, ids=lambda case: "-".join(case.values()))
def test_a_branch_that_starts_at_zero_learns(case: dict[str, str]) -> None:
    """What holds a branch at zero has a gradient, so that the branch does not stay there."""
    model = network(
        {"name": "he-normal", "branch": case["branch"]},
        block={"order": case["order"]},
        normalisation="none" if case["branch"] == "fixup" else "batch",
    ).train()
    x = torch.randn(4, *IMAGE, generator=torch.Generator().manual_seed(0))
    if case["branch"] == "fixup":  # nothing passes a classifier of zeros
        nn.init.normal_(model.get_parameter("head.linear.weight"), generator=torch.Generator().manual_seed(0))
    model(x).square().sum().backward()
    key = {"zero-gamma": "branch.norm2.weight", "fixup": "branch.conv2.weight"}.get(
        case["branch"], "branch.scale.factor"
    )
    held = [parameter for name, parameter in model.named_parameters() if name.endswith(key)]
    assert len(held) == 4
    for parameter in held:
        assert parameter.eq(0).all()
        assert parameter.grad.abs().max() > 0


def test_other_branches_do_not_start_at_zero() -> None:
    model = network("he-normal", block={"shortcut": "A"}, normalisation="batch").train()
    assert all((found - alone).abs().max() > 0.1 for found, alone in shortcuts_alone(model))


@pytest.mark.parametrize(("kind", "convolutions"), [("basic", 2), ("bottleneck", 3)])
@pytest.mark.parametrize("sharing", [None, {"normalisation": "shared"}])
def test_fixup_by_its_rule(kind: str, convolutions: int, sharing: Any) -> None:
    """Zhang et al. 2019, section 3.2: weights times L^(-1/(2m-2)), last and classifier 0, scales 1, shifts 0."""
    stages = [{"blocks": 5, "width": WIDTH // 2}]
    fixed, usual = (
        network({"name": "he-normal", "branch": branch}, stages=stages, block={"kind": kind}, sharing=sharing)
        for branch in ("fixup", "none")
    )
    drawn = dict(usual.named_parameters())
    assert "stages.0.0.branch.conv1.weight" in drawn
    for name, parameter in fixed.named_parameters():
        if name.startswith("head.linear") or name.endswith(f"branch.conv{convolutions}.weight"):
            assert parameter.eq(0).all()
        elif ".branch.conv" in name:
            torch.testing.assert_close(parameter, drawn[name] * 5 ** (-1 / (2 * convolutions - 2)))
        elif name.endswith("scale.factor"):
            assert parameter == 1
        elif ".shift_" in name:
            assert parameter == 0
        else:
            assert name == "stem.conv.weight"
            assert torch.equal(parameter, drawn[name])


def test_zero_gamma_zeroes_the_last_normalisation_of_a_branch_alone() -> None:
    model = network({"branch": "zero-gamma"}, normalisation="batch", block={"kind": "bottleneck", "shortcut": "B"})
    zeroed = {
        name for name, p in model.named_parameters() if "norm" in name and name.endswith("weight") and p.eq(0).all()
    }
    assert zeroed == {f"stages.{stage}.{number}.branch.norm3.weight" for stage in (0, 1) for number in (0, 1)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"block": {"order": "relu-before-addition"}}, "zero-gamma needs a branch that ends in its normalisation"),
        ({"block": {"order": "full-preactivation"}}, "zero-gamma needs a branch that ends in its normalisation"),
        ({"normalisation": "none"}, "zero-gamma needs a normalisation, got none"),
        ({"block": {"shortcut": "none"}}, "zero-gamma needs residual blocks, got shortcut none"),
    ],
)
def test_impossible_zero_gamma(changes: dict[str, Any], message: str) -> None:
    # after ReLU a scale and shift of 0 have no gradient: such a branch would be 0 for good
    with pytest.raises(SpecError, match=message):
        network({"branch": "zero-gamma"}, **{"normalisation": "batch", **changes})


@pytest.mark.parametrize("name", ["he-normal", "old-uniform", "orthogonal"])
@pytest.mark.parametrize("kind", ["exclusive-gating", "shortcut-only-gating"])
@pytest.mark.parametrize("bias", [0.0, -6.0])
def test_gates_start_at_their_bias(name: str, kind: str, bias: float) -> None:
    model = network(
        {"name": name, "bias_std": 0.5},
        block={"bias": True, "shortcut": {"kind": kind, "gate_bias": bias}},
    )
    gates = [module.gate for module in model.modules() if isinstance(module, Gated)]
    assert len(gates) == 4
    for gate in gates:
        assert gate.bias.eq(bias).all()
        assert gate.weight.abs().sum() > 0
    assert not model.get_parameter("stages.0.0.branch.conv1.bias").eq(bias).any()


def test_draws_depend_on_seed_and_name_alone() -> None:
    a, b, c = (dict(network("he-normal", seed=seed).named_parameters()) for seed in (0, 0, 1))
    wider = dict(network("he-normal", stages=[{"blocks": 3, "width": WIDTH // 2}]).named_parameters())
    for name, values in a.items():
        assert torch.equal(values, b[name])
        if name.endswith("weight"):
            assert not torch.equal(values, c[name])
        if name in wider and wider[name].shape == values.shape:
            assert torch.equal(values, wider[name])
    assert not torch.equal(a["stages.0.0.branch.conv1.weight"], a["stages.0.1.branch.conv1.weight"])
