"""Blocks against the papers: every order, shortcut, kind and normalisation beside straight-line functional code.

The second implementation, `expected`, shares nothing with the first but the names of parameters. Before any comparison
every parameter and running statistic is drawn at random, since scales that start at 0 or 1 would hide mistakes.
"""

import copy
import math
from collections.abc import Callable, Iterator
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leadline.errors import SpecError
from leadline.networks import cifar_resnet
from leadline.networks.modules import build, build_network, inspect_network, noise_at
from leadline.networks.modules.blocks import Block
from leadline.networks.modules.layers import Dropout, Noisy, StochasticDepth
from leadline.parts.shortcuts import SHORTCUTS as KINDS
from leadline.specs import NetworkSpec, parse
from leadline.specs.network import Activation, Normalisation, Order

ORDERS = get_args(Order)
SHORTCUTS = [{"kind": kind} for kind in KINDS.members() if kind not in ("scaled", "concatenate")] + [
    {"kind": "scaled", "shortcut_factor": 0.5, "branch_factor": 0.25},
    {"kind": "exclusive-gating", "gate_kernel": 3, "gate_bias": 1.0},
]
IMAGE = (3, 7, 6)
CLASSES = 4
Weights = dict[str, Tensor]

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": lambda x: x.clamp(min=0),
    "leaky-relu": lambda x: torch.where(x > 0, x, 0.01 * x),
    "elu": lambda x: torch.where(x > 0, x, x.clamp(max=0).exp() - 1),
    "gelu": lambda x: x * (1 + torch.erf(x / math.sqrt(2))) / 2,
    "silu": lambda x: x / (1 + (-x).exp()),
    "tanh": lambda x: 1 - 2 / ((2 * x).exp() + 1),
    "sigmoid": lambda x: 1 / (1 + (-x).exp()),
    "softplus": lambda x: x.clamp(min=0) + (1 + (-x.abs()).exp()).log(),
}


def small(**changes: Any) -> NetworkSpec:
    """A stem and two stages, the second of which changes width and size; blocks with and without a change of shape."""
    block = changes.pop("block", {})
    return parse(
        NetworkSpec,
        {
            "stem": {"width": 8},
            "stages": [{"blocks": 2, "width": 8}, {"blocks": 2, "width": 16, "stride": 2}],
            "block": block,
            **changes,
        },
    )


def randomised(spec: NetworkSpec, seed: int = 0) -> nn.Module:
    """A network in double precision whose parameters and running statistics are all drawn at random."""
    network = build(spec, IMAGE, CLASSES, seed=seed).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2, generator=generator)
            elif name.endswith("num_batches_tracked"):
                value.fill_(3)
            else:
                fan = value[0].numel() if value.ndim > 1 else 1
                value.normal_(0, 1.5 / math.sqrt(fan), generator=generator)
    return network


def images(count: int = 3, seed: int = 0) -> Tensor:
    return torch.randn(count, *IMAGE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def conv(spec: NetworkSpec, w: Weights, name: str, x: Tensor, stride: int = 1, groups: int = 1) -> Tensor:
    kernel = w[f"{name}.weight"]
    if spec.weight_standardisation and not name.endswith("gate"):
        rows = kernel.flatten(1)
        rows = (rows - rows.mean(1, keepdim=True)) / rows.std(1, unbiased=False, keepdim=True)
        kernel = rows.view(kernel.shape)
    return F.conv2d(x, kernel, w.get(f"{name}.bias"), stride, kernel.shape[-1] // 2, groups=groups)


def norm(spec: NetworkSpec, w: Weights, name: str, x: Tensor) -> Tensor:
    if spec.normalisation == "none":
        assert f"{name}.weight" not in w
        return x
    batch, channels, height, width = x.shape
    if spec.normalisation == "batch":
        mean, var = (w[f"{name}.{which}"].view(1, -1, 1, 1) for which in ("running_mean", "running_var"))
        x = (x - mean) / (var + 1e-5).sqrt()
    else:
        groups = {"layer": 1, "instance": channels, "group": math.gcd(32, channels, max(1, channels // 4))}[
            spec.normalisation
        ]
        parts = x.reshape(batch, groups, -1)
        parts = (parts - parts.mean(2, keepdim=True)) / (parts.var(2, unbiased=False, keepdim=True) + 1e-5).sqrt()
        x = parts.view(batch, channels, height, width)
    return x * w[f"{name}.weight"].view(1, -1, 1, 1) + w[f"{name}.bias"].view(1, -1, 1, 1)


def pad(x: Tensor, channels: int, stride: int) -> Tensor:
    """Option A, He et al. 2015, section 3.3: every stride-th pixel, zeros for the new channels."""
    rows, columns = range(0, x.shape[2], stride), range(0, x.shape[3], stride)
    out = torch.zeros(len(x), channels, len(rows), len(columns), dtype=x.dtype)
    out[:, : x.shape[1]] = x[:, :, list(rows)][:, :, :, list(columns)]
    return out


def joined(spec: NetworkSpec, w: Weights, name: str, x: Tensor, f: Tensor, stride: int) -> Tensor:
    """He et al. 2015, section 3.3; He et al. 2016, section 3 and figure 2."""
    shortcut, channels = spec.block.shortcut, f.shape[1]
    changes = x.shape[1] != channels or stride != 1
    match shortcut.kind:
        case "none":
            return f
        case "concatenate":
            return torch.cat((x, f), 1)
        case "A" | "dropout":  # dropout does nothing in evaluation
            return f + pad(x, channels, stride)
        case "B" | "C":
            if shortcut.kind == "B" and not changes:
                return f + x
            projected = conv(spec, w, f"{name}.join.path.conv", x, stride)
            if spec.block.order in ("original", "relu-before-addition", "relu-only-preactivation"):
                projected = norm(spec, w, f"{name}.join.path.norm", projected)
            return f + projected
        case "scaled":
            return shortcut.branch_factor * f + shortcut.shortcut_factor * pad(x, channels, stride)
        case "exclusive-gating":
            gate = torch.sigmoid(conv(spec, w, f"{name}.join.gate", x, stride))
            return gate * f + (1 - gate) * pad(x, channels, stride)
        case "shortcut-only-gating":
            gate = torch.sigmoid(conv(spec, w, f"{name}.join.gate", x, stride))
            return f + (1 - gate) * pad(x, channels, stride)


def block(spec: NetworkSpec, w: Weights, name: str, x: Tensor, stride: int, first: bool, survival: float) -> Tensor:
    act, branch, kind = ACTIVATIONS[spec.activation], spec.initialisation.branch, spec.block.kind
    count = {"single": 1, "basic": 2, "bottleneck": 3, "dense": 2}[kind]
    striding = 2 if kind == "bottleneck" and spec.block.stride_in == "3x3" else 1

    def c(number: int, y: Tensor) -> Tensor:
        if branch == "fixup":
            y = y + w[f"{name}.branch.shift_conv{number}.bias"]
        groups = spec.block.groups if kind == "bottleneck" and number == 2 else 1
        return conv(spec, w, f"{name}.branch.conv{number}", y, stride if number == striding else 1, groups)

    def n(number: int, y: Tensor) -> Tensor:
        return norm(spec, w, f"{name}.branch.norm{number}", y)

    def a(number: int, y: Tensor) -> Tensor:
        return act(y + w[f"{name}.branch.shift_act{number}.bias"] if branch == "fixup" else y)

    def add(x: Tensor, f: Tensor) -> Tensor:
        if branch in ("skipinit", "rezero", "fixup"):
            f = f * w[f"{name}.branch.scale.factor"]
        if branch == "fixup":
            f = f + w[f"{name}.branch.shift_out.bias"]
        return joined(spec, w, name, x, survival * f, stride)

    y = x
    match spec.block.order:
        case "original":  # figure 4a
            for k in range(1, count):
                y = a(k, n(k, c(k, y)))
            return act(add(x, n(count, c(count, y))))
        case "bn-after-addition":  # figure 4b
            for k in range(1, count):
                y = a(k, n(k, c(k, y)))
            return act(norm(spec, w, f"{name}.after.norm", add(x, c(count, y))))
        case "relu-before-addition":  # figure 4c
            for k in range(1, count + 1):
                y = a(k, n(k, c(k, y)))
            return add(x, y)
        case "relu-only-preactivation":  # figure 4d
            for k in range(1, count + 1):
                y = n(k, c(k, a(k, y)))
            return add(x, y)
        case "full-preactivation":  # figure 4e; where the shape changes, and first, as in the appendix
            wider = kind != "dense" and y.shape[1] != w[f"{name}.branch.conv{count}.weight"].shape[0]
            if spec.block.shortcut.kind != "concatenate" and (first or stride != 1 or wider):
                x = act(norm(spec, w, f"{name}.before.norm1", x))
                y = c(1, x)
            else:
                y = c(1, a(1, n(1, y)))
            for k in range(2, count + 1):
                y = c(k, a(k, n(k, y)))
            return add(x, y)
        case "preactivation-and-after":  # BN, ReLU, convolution, twice; addition; BN, ReLU
            for k in range(1, count + 1):
                y = c(k, a(k, n(k, y)))
            return act(norm(spec, w, f"{name}.after.norm", add(x, y)))


def expected(spec: NetworkSpec, w: Weights, x: Tensor) -> Tensor:
    act, order = ACTIVATIONS[spec.activation], spec.block.order
    assert spec.stem is not None
    x = conv(spec, w, "stem.conv", x, spec.stem.stride)
    if order not in ("full-preactivation", "preactivation-and-after"):
        x = norm(spec, w, "stem.norm", x)
        if order != "relu-only-preactivation":
            x = act(x)
    total, done = sum(stage.blocks for stage in spec.stages), 0
    for s, stage in enumerate(spec.stages):
        for number in range(stage.blocks):
            done += 1
            stride = stage.stride if number == 0 else 1
            survival = 1 - spec.block.stochastic_depth * done / total
            x = block(spec, w, f"stages.{s}.{number}", x, stride, done == 1, survival)
        if stage.transition:
            name = f"stages.{s}.transition"
            x = conv(spec, w, f"{name}.conv", act(norm(spec, w, f"{name}.norm", x)))
            x = (
                F.unfold(x, 2, stride=2)
                .view(len(x), x.shape[1], 4, -1)
                .mean(2)
                .view(len(x), x.shape[1], x.shape[2] // 2, x.shape[3] // 2)
            )
    if order == "full-preactivation":
        x = act(norm(spec, w, "head.norm", x))
    elif order == "relu-only-preactivation":
        x = act(x)
    x = x.mean((2, 3)) if spec.head.pool == "global-average" else x.flatten(1)
    if cell := spec.head.recurrent:
        r = "head.recurrent"
        h = torch.zeros(len(x), cell.width, dtype=x.dtype)
        for _ in range(cell.steps):
            seen = x @ w[f"{r}.input.weight"].T + w[f"{r}.input.bias"]
            h = torch.tanh(seen + h @ w[f"{r}.hidden.weight"].T + w[f"{r}.hidden.bias"])
        x = h
    return x @ w["head.linear.weight"].T + w["head.linear.bias"]


def agrees(spec: NetworkSpec) -> None:
    network = randomised(spec).eval()
    x = images(5)
    with torch.no_grad():
        found = network(x)
        # the second implementation leaves out standardisation's epsilon, 1e-10 beside a variance, and PyTorch takes
        # softplus(x) for x above 20, where the difference is 2e-9
        exact = 1e-6 if spec.weight_standardisation else 1e-8
        torch.testing.assert_close(found, expected(spec, network.state_dict(), x), rtol=exact, atol=exact)
    assert found.std(0).max() > 10 * exact, "the images must matter"


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("shortcut", SHORTCUTS, ids=lambda shortcut: "-".join(map(str, shortcut.values())))
@pytest.mark.parametrize("kind", ["single", "basic", "bottleneck"])
def test_orders_and_shortcuts(order: str, shortcut: dict[str, Any], kind: str) -> None:
    agrees(small(block={"order": order, "shortcut": shortcut, "kind": kind}))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    "block",
    [
        {"kind": "bottleneck", "stride_in": "first-1x1", "shortcut": "B"},
        {"kind": "bottleneck", "groups": 2, "shortcut": "B"},
        {"kind": "bottleneck", "groups": 2, "stride_in": "first-1x1", "shortcut": "A", "bias": True},
        {"kind": "dense", "shortcut": "A"},
        {"kind": "basic", "kernel": 5, "bias": True},
        {"kind": "single", "kernel": 1},
        {"kind": "basic", "dropout": 0.5, "stochastic_depth": 0.4, "shortcut": "B"},
    ],
    ids=str,
)
def test_kinds(order: str, block: dict[str, Any]) -> None:
    agrees(small(block={"order": order, **block}))


@pytest.mark.parametrize("kind", ["single", "basic", "bottleneck", "dense"])
@pytest.mark.parametrize("normalisation", get_args(Normalisation))
def test_concatenation_and_transitions(kind: str, normalisation: str) -> None:
    agrees(
        small(
            block={"kind": kind, "order": "full-preactivation", "shortcut": "concatenate"},
            stages=[{"blocks": 2, "width": 4, "transition": 0.5}, {"blocks": 3, "width": 4}],
            normalisation=normalisation,
        )
    )


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("normalisation", get_args(Normalisation))
@pytest.mark.parametrize("standardised", [False, True])
def test_normalisations(order: str, normalisation: str, standardised: bool) -> None:
    if normalisation == "none" and order in ("bn-after-addition", "relu-only-preactivation"):
        pytest.skip("needs a normalisation, and says so")
    block = {"order": order, "shortcut": "B"}
    agrees(small(block=block, normalisation=normalisation, weight_standardisation=standardised))


@pytest.mark.parametrize("activation", get_args(Activation))
def test_activations(activation: str) -> None:
    for order in ORDERS:
        agrees(small(block={"order": order}, activation=activation))


@pytest.mark.parametrize("branch", ["skipinit", "rezero", "fixup", "zero-gamma"])
@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
def test_factors_and_shifts_in_the_branch(branch: str, kind: str) -> None:
    normalisation = "none" if branch == "fixup" else "batch"
    agrees(small(block={"kind": kind}, normalisation=normalisation, initialisation={"branch": branch}))


@pytest.mark.parametrize("pool", ["global-average", "none"])
def test_recurrent_head(pool: str) -> None:
    agrees(small(head={"pool": pool, "dropout": 0.3, "recurrent": {"steps": 3, "width": 5, "dropout": 0.5}}))


def test_stem_and_head_pooling() -> None:
    spec = small(
        stem={"width": 8, "kernel": 5, "stride": 1, "pool": True},
        stages=[{"blocks": 1, "width": 8, "inner_width": 3, "pool": True}],
        head={"pool": "average-2x2"},
        normalisation="none",
    )
    network = build(spec, (3, 18, 17), CLASSES).double().eval()
    w = {name: value + 0.01 for name, value in network.state_dict().items()}
    network.load_state_dict(w)
    x = torch.randn(2, 3, 18, 17, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = F.max_pool2d(F.relu(F.conv2d(x, w["stem.conv.weight"], padding=2)), 3, 2, 1)
    z = F.relu(F.conv2d(y, w["stages.0.0.branch.conv1.weight"], padding=1))
    y = F.max_pool2d(F.relu(y + F.conv2d(z, w["stages.0.0.branch.conv2.weight"], padding=1)), 2)
    y = F.avg_pool2d(y, 2)
    assert y.shape == (2, 8, 2, 2)
    torch.testing.assert_close(network(x), F.linear(y.flatten(1), w["head.linear.weight"], w["head.linear.bias"]))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", ["single", "basic", "bottleneck"])
def test_plain_and_residual_twins(order: str, kind: str) -> None:
    plain, residual = (
        build(small(block={"order": order, "kind": kind, "shortcut": shortcut}), IMAGE, CLASSES, seed=4)
        for shortcut in ("none", "A")
    )
    a, b = plain.state_dict(), residual.state_dict()
    assert list(a) == list(b)
    assert all(torch.equal(a[name], b[name]) for name in a)
    x = images().float()
    assert not torch.allclose(plain.eval()(x), residual.eval()(x))


# recurrence


def recurrent(order: str, shortcut: Any, kind: str, normalisation: str, **changes: Any) -> NetworkSpec:
    return small(
        block={"order": order, "shortcut": shortcut, "kind": kind},
        stages=[{"blocks": 3, "width": 8}, {"blocks": 4, "width": 16, "stride": 2}],
        sharing={"normalisation": normalisation},
        **changes,
    )


def unrolled(shared: nn.Module, spec: NetworkSpec) -> nn.Module:
    """The network of as many blocks that hold copies of the shared weights."""
    network = build(spec.with_(sharing=None), IMAGE, CLASSES).double()
    assert set(network.state_dict()) == set(shared.state_dict())
    assert len(list(network.parameters())) > len(list(shared.parameters()))
    network.load_state_dict({name: value.clone() for name, value in shared.state_dict().items()})
    return network


@pytest.mark.slow
@pytest.mark.parametrize("normalisation", ["shared", "per-step"])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("shortcut", "kind"), [("A", "basic"), ("C", "bottleneck"), ("exclusive-gating", "single"), ("none", "basic")]
)
def test_recurrence_is_the_unrolled_network(order: str, shortcut: str, kind: str, normalisation: str) -> None:
    spec = recurrent(order, shortcut, kind, normalisation)
    shared = randomised(spec)
    copies = unrolled(shared, spec)
    x = images(4)
    for training in (False, True):
        shared.train(training)
        copies.train(training)
        for network in (shared, copies):
            network.zero_grad()
        found, wanted = shared(x), copies(x)
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
        for logits in (found, wanted):
            logits.square().sum().backward()
        sums: dict[int, Tensor] = {}
        copy_of = dict(copies.named_parameters())
        for name, parameter in shared.named_parameters(remove_duplicate=False):
            gradient = copy_of[name].grad
            assert gradient is not None
            sums[id(parameter)] = sums.get(id(parameter), torch.zeros_like(parameter)) + gradient
        for parameter in shared.parameters():
            torch.testing.assert_close(parameter.grad, sums[id(parameter)], rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("normalisation", ["shared", "per-step"])
def test_every_weight_of_every_step_is_the_one(order: str, normalisation: str) -> None:
    network = build(recurrent(order, "A", "basic", normalisation), IMAGE, CLASSES)
    for stage, steps in ((0, range(3)), (1, range(1, 4))):
        for part in ("conv1", "conv2"):
            weights = {id(network.get_parameter(f"stages.{stage}.{k}.branch.{part}.weight")) for k in steps}
            assert len(weights) == 1
        norms = [
            [
                id(module)
                for module in network.get_submodule(f"stages.{stage}.{k}").modules()
                if isinstance(module, nn.BatchNorm2d)
            ]
            for k in steps
        ]
        distinct = {one for step in norms for one in step}
        assert len(distinct) == (len(norms[0]) if normalisation == "shared" else sum(map(len, norms)))
    for module in network.modules():
        assert not (isinstance(module, nn.Identity) and list(module.children())), "a layer that never runs"


@pytest.mark.slow
@pytest.mark.parametrize(("normalisation", "norms"), [("shared", 1), ("per-step", 5)])
def test_count_of_a_recurrent_network_does_not_grow_with_its_steps(normalisation: str, norms: int) -> None:
    spec = small(stages=[{"blocks": 5, "width": 8}], sharing={"normalisation": normalisation})
    convolutions = 9 * 8 * 3 + 2 * 9 * 8 * 8
    count = convolutions + 2 * 8 + norms * 2 * 2 * 8 + 8 * CLASSES + CLASSES
    assert inspect_network(spec, IMAGE, CLASSES).parameters == count
    once, five = (
        inspect_network(small(stages=[{"blocks": n, "width": 8}], sharing={}), IMAGE, CLASSES).multiply_adds
        for n in (1, 5)
    )
    assert five - once == 4 * 2 * 9 * 8 * 8 * 7 * 6


def test_statistics_of_shared_and_per_step_normalisation() -> None:
    x = images(4)
    for normalisation, tracked in (("shared", 3), ("per-step", 1)):
        network = build(recurrent("original", "A", "basic", normalisation), IMAGE, CLASSES).double().train()
        network(x)
        norm1 = network.get_submodule("stages.0.0.branch.norm1")
        assert norm1.num_batches_tracked == tracked


# checkpointing

NOISY = {"dropout": 0.3, "stochastic_depth": 0.4}


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"block": {**NOISY, "shortcut": "B"}},
        *({"block": {**NOISY, "order": order}} for order in ORDERS[1:]),
        {"block": {"shortcut": {"kind": "dropout", "dropout": 0.5}, "kind": "bottleneck", **NOISY}},
        {"block": {**NOISY, "shortcut": "exclusive-gating"}, "normalisation": "group"},
        {
            "block": {"kind": "dense", "order": "full-preactivation", "shortcut": "concatenate", "dropout": 0.3},
            "stages": [{"blocks": 2, "width": 4, "transition": 0.5}, {"blocks": 2, "width": 4}],
        },
        {"block": {**NOISY}, "sharing": {"normalisation": "shared"}},
        {"block": {**NOISY}, "sharing": {"normalisation": "per-step"}, "head": {"dropout": 0.5}},
        {"block": {**NOISY}, "normalisation": "none", "initialisation": {"branch": "fixup"}},
        {"block": {**NOISY}, "stem": None, "activation": "softplus"},
        # stages of several segments, the last of them shorter
        {"block": {**NOISY}, "stages": [{"blocks": 5, "width": 8}, {"blocks": 7, "width": 8, "pool": True}]},
        {"block": {**NOISY}, "stages": [{"blocks": 7, "width": 8}], "sharing": {"normalisation": "shared"}},
    ],
    ids=str,
)
def test_checkpointing_changes_nothing_but_memory(changes: dict[str, Any]) -> None:
    spec = small(**changes)
    networks = [build(spec.with_(checkpoint_blocks=on), IMAGE, CLASSES, seed=2).train() for on in (False, True)]
    state = torch.get_rng_state()
    for step in range(3):
        x = images(5, seed=step).float()
        outcomes = []
        for network in networks:
            optimizer = torch.optim.SGD(network.parameters(), 0.05)
            with noise_at(network, 7, step):
                logits = network(x)
                logits.square().mean().backward()
            gradients = {name: parameter.grad.clone() for name, parameter in network.named_parameters()}
            optimizer.step()
            optimizer.zero_grad()
            outcomes.append((logits.detach(), gradients, copy.deepcopy(network.state_dict())))
        (logits, gradients, after), (logits2, gradients2, after2) = outcomes
        assert torch.equal(logits, logits2)
        assert all(torch.equal(gradients[name], gradients2[name]) for name in gradients)
        assert list(after) == list(after2)
        assert all(torch.equal(after[name], after2[name]) for name in after)
        tracked = [int(value) for name, value in after2.items() if name == "stages.0.0.after.norm.num_batches_tracked"]
        assert tracked in ([], [step + 1])
    assert torch.equal(state, torch.get_rng_state())
    for network in networks:
        network.eval()
    assert torch.equal(networks[0](x), networks[1](x))


def test_checkpointing_recomputes_in_training_only() -> None:
    spec = small(checkpoint_blocks=True)
    network = build(spec, IMAGE, CLASSES).train()
    calls = []
    network.get_submodule("stages.0.1.branch.conv1").register_forward_hook(lambda *_: calls.append(1))
    x = images().float()
    network(x).sum().backward()
    assert len(calls) == 2
    with torch.no_grad():
        network(x)
    assert len(calls) == 3
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    assert all(norm.track_running_stats for norm in norms)


def test_checkpointing_keeps_fewer_activations() -> None:
    def kept(on: bool) -> int:
        network = build(small(stages=[{"blocks": 12, "width": 8}], checkpoint_blocks=on), IMAGE, CLASSES).train()
        sizes: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            sizes[tensor.data_ptr()] = tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            network(images(8).float())
        return sum(sizes.values())

    assert kept(True) < kept(False) / 3


def test_running_statistics_move_in_spite_of_checkpointing() -> None:
    network = build(small(checkpoint_blocks=True), IMAGE, CLASSES).train()
    network(images().float()).sum().backward()
    norm1 = network.get_submodule("stages.1.0.branch.norm1")
    assert norm1.num_batches_tracked == 1
    assert norm1.running_mean.abs().min() > 0


# noise


def noisy() -> Iterator[Noisy]:
    for layer in (Dropout(0.3), StochasticDepth(0.3)):
        layer.name = "here"
        yield layer.train()


@pytest.mark.parametrize("layer", list(noisy()), ids=lambda layer: type(layer).__name__)
def test_noise_is_a_function_of_seed_step_and_name(layer: Noisy) -> None:
    x = torch.ones(64, 3, 2, 2)

    def drawn(seed: int, step: int, name: str) -> Tensor:
        layer.noise.seed, layer.noise.step, layer.name = seed, step, name
        return layer(x)

    state = torch.get_rng_state()
    first = drawn(1, 2, "a")
    torch.rand(7)
    assert torch.equal(first, drawn(1, 2, "a"))
    torch.set_rng_state(state)
    for other in ((2, 2, "a"), (1, 3, "a"), (1, 2, "b"), (2, 1, "a")):
        assert not torch.equal(first, drawn(*other))
    assert torch.equal(state, torch.get_rng_state())


def test_rates_and_scales_of_noise() -> None:
    dropout, depth = noisy()
    x = torch.ones(4000, 5, 3, 3)
    y = dropout(x)
    assert y.unique().tolist() == pytest.approx([0, 1 / 0.7])
    # five standard deviations of a fraction of n draws
    assert y.eq(0).float().mean().item() == pytest.approx(0.3, abs=5 * math.sqrt(0.21 / y.numel()))
    z = depth(x)
    per_image = z.flatten(1)
    assert (per_image == per_image[:, :1]).all()
    assert set(z.unique().tolist()) == {0.0, 1.0}
    assert z.mean().item() == pytest.approx(0.7, abs=5 * math.sqrt(0.21 / len(x)))
    assert torch.equal(dropout.eval()(x), x)
    torch.testing.assert_close(depth.eval()(x), 0.7 * x)


def test_stochastic_depth_decays_linearly_to_the_last_block() -> None:
    network = build(small(block={"stochastic_depth": 0.5}), IMAGE, CLASSES)
    rates = [module.rate for module in network.modules() if isinstance(module, StochasticDepth)]
    assert rates == pytest.approx([0.125, 0.25, 0.375, 0.5])


def test_layers_and_steps_of_a_network_draw_apart() -> None:
    spec = small(block={"dropout": 0.5, "stochastic_depth": 0.5}, sharing={"normalisation": "shared"})
    network = build(spec, IMAGE, CLASSES).train()
    names = [module.name for module in network.modules() if isinstance(module, Noisy)]
    assert len(set(names)) == len(names) == 8
    x = images().float()

    def at(seed: int, step: int) -> Tensor:
        with noise_at(network, seed, step):
            return network(x)

    first = at(0, 0)
    assert torch.equal(first, at(0, 0))
    assert not torch.equal(first, at(0, 1))
    assert not torch.equal(first, at(1, 0))
    network.eval()
    assert torch.equal(at(0, 0), at(5, 9))


def test_modules_of_others_draw_from_the_step_and_leave_the_global_generator() -> None:
    model = nn.Sequential(nn.Dropout(0.5))
    x = torch.ones(1, 100)
    state = torch.get_rng_state()

    def at(seed: int, step: int) -> Tensor:
        with noise_at(model, seed, step):
            return model(x)

    assert torch.equal(at(0, 0), at(0, 0))
    assert not torch.equal(at(0, 0), at(0, 1))
    assert torch.equal(state, torch.get_rng_state())


def test_blocks_without_a_shortcut_have_no_join() -> None:
    for shortcut, joins in (("none", False), ("A", True)):
        blocks = [
            m for m in build(small(block={"shortcut": shortcut}), IMAGE, CLASSES).modules() if isinstance(m, Block)
        ]
        assert len(blocks) == 4
        assert all((block.join is not None) is joins for block in blocks)


def test_a_recomputed_network_can_go_backward_twice() -> None:
    spec = cifar_resnet(8).with_(checkpoint_blocks=True)
    x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    net = build_network(spec, (3, 8, 8), 10).train()
    loss = net(x).square().sum()
    first = torch.autograd.grad(loss, list(net.parameters()), retain_graph=True)
    before = {name: buffer.clone() for name, buffer in net.named_buffers()}
    second = torch.autograd.grad(loss, list(net.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(torch.equal(buffer, before[name]) for name, buffer in net.named_buffers())


@pytest.mark.parametrize("normalisation", ["none", "batch", "layer", "group"])
@pytest.mark.parametrize("shortcut", SHORTCUTS[:-1], ids=lambda s: s["kind"])
@pytest.mark.parametrize("order", ORDERS)
def test_a_fully_connected_network_is_the_network_of_1x1_convolutions_on_one_pixel(
    order: Order, shortcut: dict[str, Any], normalisation: Normalisation
) -> None:
    if order in ("bn-after-addition", "relu-only-preactivation") and normalisation == "none":
        pytest.skip("this order has a normalisation")
    stages = [{"blocks": 2, "width": 8}, {"blocks": 2, "width": 16}]
    content = {
        "stem": {"width": 8, "kernel": 1},
        "stages": stages,
        "block": {"order": order, "shortcut": shortcut, "kernel": 1, "bias": True, "dropout": 0.2},
        "head": {"pool": "none"},
        "normalisation": normalisation,
    }
    dense = build_network(parse(NetworkSpec, {**content, "layers": "fully-connected"}), IMAGE, CLASSES)
    pixel = build_network(parse(NetworkSpec, content), (math.prod(IMAGE), 1, 1), CLASSES)
    generator = torch.Generator().manual_seed(1)
    values = {
        name: torch.rand(tensor.shape, generator=generator) - 0.4
        for name, tensor in dense.state_dict().items()
        if tensor.is_floating_point()
    }
    for model in (dense, pixel):
        for tensor, value in zip(
            (tensor for tensor in model.state_dict().values() if tensor.is_floating_point()),
            values.values(),
            strict=True,
        ):
            tensor.copy_(value.abs().reshape(tensor.shape) if value.ndim == 1 else value.reshape(tensor.shape))
    x = torch.randn(5, *IMAGE, generator=generator)
    for mode in (True, False):
        dense.train(mode)
        pixel.train(mode)
        torch.testing.assert_close(dense(x), pixel(x.flatten(1)[:, :, None, None]), rtol=1e-4, atol=1e-4)
    assert [name.replace("linear", "conv") for name in dict(dense.named_parameters())] == [
        name.replace("linear", "conv") for name in dict(pixel.named_parameters())
    ]


def test_what_needs_pixels_is_refused_in_a_fully_connected_network() -> None:
    content: dict[str, Any] = {
        "layers": "fully-connected",
        "stem": {"width": 8},
        "stages": [{"blocks": 1, "width": 8}],
        "head": {"pool": "none"},
    }
    parse(NetworkSpec, content)
    for change, word in [
        ({"stages": [{"blocks": 1, "width": 8, "stride": 2}]}, "stages.0.stride"),
        ({"stages": [{"blocks": 1, "width": 8, "pool": True}]}, "stages.0.pool"),
        ({"stem": {"width": 8, "pool": True}}, "stem.pool"),
        ({"head": {}}, "head.pool"),
        ({"weight_standardisation": True}, "weight_standardisation"),
        ({"normalisation": "instance"}, "instance"),
    ]:
        with pytest.raises(SpecError, match=word):
            parse(NetworkSpec, {**content, **change})
