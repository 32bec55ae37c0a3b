"""The parts of the gradient against autograd, against straight-line code, and against closed forms."""

import copy
import math
import sys
from typing import Any, get_args

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leadline.errors import LeadlineError
from leadline.networks import (
    cifar_plain,
    cifar_preresnet,
    cifar_resnet,
    comparative_plain,
    comparative_resnet,
    densenet,
    highway,
    recurrent_resnet,
    wide_resnet,
)
from leadline.networks.modules import build
from leadline.networks.modules.shortcuts import Concatenate, Gated
from leadline.parts.shortcuts import SHORTCUTS as KINDS
from leadline.probes.blocks import Parts
from leadline.probes.snapshots.decomposition.measurement import decompose, split_gradients, sum_of_branches
from leadline.specs import NetworkSpec, Shortcut, Stage
from leadline.specs.network import Order

IMAGE, CLASSES = (3, 8, 8), 4
SHORTCUTS = [
    *(Shortcut(kind=kind) for kind in KINDS.members() if kind not in ("scaled", "concatenate", "none")),
    Shortcut(kind="scaled", shortcut_factor=0.5, branch_factor=0.25),
]
ORDERS = get_args(Order)
NETWORKS = {
    **{f"{order}-{cut.kind}": cifar_resnet(14, cut, order) for order in ORDERS for cut in SHORTCUTS},
    "preresnet-basic": cifar_preresnet(14, "basic"),
    "preresnet-bottleneck-A": cifar_preresnet(11, shortcut="A"),
    "wide": wide_resnet(10, 1),
    "comparative": comparative_resnet(4),
    "comparative-projected": comparative_resnet(3, "C"),
    "highway": highway(8, gate_bias=0.5),
    "densenet": densenet(10, 4),
    "recurrent": recurrent_resnet(3, 8),
    "stochastic-depth": NetworkSpec(
        stages=(Stage(blocks=3, width=6),), block={"stochastic_depth": 0.5, "order": "full-preactivation"}
    ),
    "fixup": NetworkSpec(stages=(Stage(blocks=2, width=4),), normalisation="none", initialisation={"branch": "fixup"}),
    "pooled": NetworkSpec(stages=(Stage(blocks=2, width=4, pool=True), Stage(blocks=2, width=4)), activation="tanh"),
    "layer-norm": NetworkSpec(stages=(Stage(blocks=2, width=4),), normalisation="layer"),
    "densenet-recomputed": densenet(10, 4).with_(checkpoint_blocks=True),
}


def network(spec: NetworkSpec, seed: int = 0) -> nn.Module:
    """In double precision, with every parameter drawn at random, so that nothing hides at 0 or 1."""
    model = build(spec, IMAGE, CLASSES, seed).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2, generator=generator)
            elif not name.endswith("num_batches_tracked"):
                value.normal_(0, 1 / math.sqrt(value[0].numel() if value.ndim > 1 else 1), generator=generator)
    return model


def batch(count: int = 4, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, *IMAGE, generator=generator, dtype=torch.float64)
    return images, torch.randint(CLASSES, (count,), generator=generator)


def pieces(model: Any) -> list[tuple[str, nn.Module]]:
    """Everything between stem and head, by name, in order."""
    return [(f"stages.{n}.{k}", m) for n, stage in enumerate(model.stages) for k, m in stage.named_children()]


def autograd_totals(model: Any, images: Tensor, labels: Tensor, training: bool) -> dict[str, Tensor]:
    """Gradients at the blocks' inputs from one ordinary backward pass of a copy."""
    model = copy.deepcopy(model).train(training)
    x = model.stem(images)
    if not x.requires_grad:
        x.requires_grad_()
    entries = {}
    for name, piece in pieces(model):
        x.retain_grad()
        entries[name] = x
        x = piece(x)
    F.cross_entropy(model.head(x), labels).backward()
    return {name: entry.grad for name, entry in entries.items()}


def straight_down(model: Any, images: Tensor, labels: Tensor, training: bool) -> dict[str, Tensor]:
    """The direct part, written out for each kind of join, with the branch and the gate as constants."""
    model = copy.deepcopy(model).train(training)
    with torch.no_grad():
        states = [model.stem(images)]
        for _, piece in pieces(model):
            states.append(piece(states[-1]))
    top = states[-1].requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(model.head(top), labels), top)
    result = {}
    for (name, piece), state in reversed(list(zip(pieces(model), states, strict=False))):
        x = state.detach().requires_grad_()
        if not hasattr(piece, "branch"):
            out = piece(x)
        elif piece.join is None:
            out = 0 * x.sum() + torch.zeros_like(gradient)
        else:
            z = piece.before(x)
            with torch.no_grad():
                y = piece.branch(z)
            join = piece.join
            if isinstance(join, Concatenate):
                total = torch.cat([z, y], 1)
            elif isinstance(join, Gated):
                gate = torch.sigmoid(join.gate(z)).detach()
                total = (y * gate if join.exclusive else y) + (1 - gate) * join.path(z)
            else:
                total = join.branch(y) + join.path(z)
            out = piece.after(total)
        (gradient,) = torch.autograd.grad(out, x, gradient)
        result[name] = gradient
    return result


def close(a: Tensor, b: Tensor, scale: float) -> bool:
    return float((a - b).norm()) <= 1e-12 * scale


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_parts_sum_to_autograds_gradient(name: str, training: bool) -> None:
    model = network(NETWORKS[name])
    images, labels = batch()
    parts = split_gradients(model, images, labels, training=training)
    totals = autograd_totals(model, images, labels, training)
    direct = straight_down(model, images, labels, training)
    assert [part.block for part in parts] == [name for name, piece in pieces(model) if hasattr(piece, "branch")]
    for part in parts:
        scale = float(totals[part.block].norm())
        assert scale > 0
        assert close(part.total, totals[part.block], scale)
        assert close(part.direct, direct[part.block], scale + float(part.direct.norm()))
        assert close(part.direct + part.through, totals[part.block], scale + float(part.direct.norm()))
    assert max(float(part.direct.norm()) for part in parts) > 0


@pytest.mark.parametrize("spec", [comparative_plain(4), cifar_plain(14)], ids=["comparative", "cifar"])
def test_a_plain_network_has_no_direct_part(spec: NetworkSpec) -> None:
    result = decompose(network(spec), *batch())
    assert (result.direct == 0).all() and (result.share == 0).all() and np.isnan(result.cosine).all()
    assert np.allclose(result.through, result.total, rtol=1e-12) and (result.total > 0).all()


def test_relu_masks_by_hand() -> None:
    model: Any = network(comparative_resnet(3))
    images, labels = batch()
    outs, x = [], images
    for block in model.stages[0]:
        y = block.branch.conv2(block.branch.conv1(x).clamp(min=0))
        x = (y + F.pad(x, (0, 0, 0, 0, 0, y.shape[1] - x.shape[1]))).clamp(min=0)
        outs.append(x)
    (gradient,) = torch.autograd.grad(F.cross_entropy(model.head(x), labels), x)
    expected = []
    for out in reversed(outs):
        gradient = gradient * (out > 0)
        expected.append(gradient)
    expected[-1] = expected[-1][:, :3]  # the first shortcut pads three channels with zeros
    for part, hand in zip(split_gradients(model, images, labels), reversed(expected), strict=True):
        assert torch.allclose(part.direct, hand, rtol=1e-12, atol=0)


def test_within_a_preactivated_stage_the_direct_part_is_the_last_gradient_itself() -> None:
    model = network(cifar_preresnet(20, "basic"))
    parts = split_gradients(model, *batch())
    last = [part.direct for part in parts if part.block.startswith("stages.2.")]
    assert torch.equal(last[1], last[2])  # the first block's shortcut is a projection
    assert not torch.equal(parts[-1].total, parts[-1].direct)
    other = network(cifar_preresnet(20, "basic"))
    with torch.no_grad():  # other branches, the same activations at the last: only the part through them moves
        other.get_submodule("stages.2.2.branch.conv2").weight.zero_()
    silent = split_gradients(other, *batch())[-1]
    assert float(silent.through.norm()) == 0 and torch.equal(silent.direct, silent.total)


def test_branches_that_start_at_zero_leave_the_direct_part_alone() -> None:
    spec = NetworkSpec(stages=(Stage(blocks=3, width=4),), initialisation={"branch": "skipinit"})
    result = decompose(build(spec, IMAGE, CLASSES), *batch())
    assert np.allclose(result.share, 1, atol=1e-6) and (result.through == 0).all()


def test_norms_cosine_and_share_are_those_of_the_parts_in_chunks_too() -> None:
    model = network(cifar_resnet(14))
    images, labels = batch(7)
    steps: list[tuple[int, int]] = []
    result = decompose(model, images, labels, batch_size=3, progress=lambda done, of: steps.append((done, of)))
    assert steps == [(1, 3), (2, 3), (3, 3)]
    for number, part in enumerate(split_gradients(model, images, labels)):
        total, direct, through = (getattr(part, name).flatten().numpy() for name in ("total", "direct", "through"))
        assert result.blocks[number] == part.block
        assert result.total[number] == pytest.approx(np.linalg.norm(total), rel=1e-10)
        assert result.direct[number] == pytest.approx(np.linalg.norm(direct), rel=1e-10)
        assert result.through[number] == pytest.approx(np.linalg.norm(through), rel=1e-10)
        assert result.share[number] == pytest.approx(direct @ total / (total @ total), rel=1e-9)
        cosine = direct @ through / np.linalg.norm(direct) / np.linalg.norm(through)
        assert result.cosine[number] == pytest.approx(cosine, rel=1e-9)
    assert (result.gap < 1e-12).all()
    frame = result.frame()
    assert list(frame.columns) == ["number", "block", "quantity", "value"]
    assert len(frame) == 6 * 6
    shares = frame[frame["quantity"] == "share"]
    assert shares["value"].tolist() == result.share.tolist() and shares["number"].tolist() == [1, 2, 3, 4, 5, 6]


def test_gradients_too_small_for_single_precision_to_square() -> None:
    model = build(comparative_resnet(3), IMAGE, CLASSES)
    images, labels = batch()
    result = decompose(model, images, labels, loss=lambda logits, labels: 1e-25 * F.cross_entropy(logits, labels))
    plain = decompose(model, images, labels)
    assert np.allclose(result.total, 1e-25 * plain.total, rtol=1e-4, atol=0)
    assert np.allclose(result.share, plain.share, rtol=1e-4)
    assert (plain.gap < 1e-5).all()


class Linear(nn.Module):
    """x + W x, some times over; `after` the addition, perhaps, a ReLU. The loss is c . x_L."""

    def __init__(self, count: int, relu: bool = False) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.layers = nn.ModuleList(Added(torch.randn(5, 5, generator=generator), relu) for _ in range(count))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


class Added(nn.Module):
    def __init__(self, weight: Tensor, relu: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.double())
        self.relu = relu

    def forward(self, x: Tensor) -> Tensor:
        x = x + x @ self.weight.T
        return x.clamp(min=0) if self.relu else x


def weighted(outputs: Tensor, c: Tensor) -> Tensor:
    return (outputs * c).sum(1).mean()


def linear_batch() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(4)
    return tuple(torch.randn(3, 5, generator=generator, dtype=torch.float64) for _ in range(2))  # type: ignore[return-value]


def names(model: nn.Module) -> list[str]:
    return [name for name, module in model.named_modules() if isinstance(module, Added)]


def test_somebodys_own_linear_network_in_closed_form() -> None:
    model = Linear(4)
    x, c = linear_batch()
    parts = split_gradients(model, x, c, blocks=names(model), residual=True, loss=weighted)
    matrix = torch.eye(5, dtype=torch.float64)
    for part, layer in zip(reversed(parts), reversed(list(model.layers)), strict=True):
        matrix = matrix @ (torch.eye(5, dtype=torch.float64) + layer.weight.detach())
        assert torch.allclose(part.total, c / 3 @ matrix, rtol=1e-12)
        assert torch.allclose(part.direct, c / 3, rtol=1e-12)
    plain = decompose(model, x, c, blocks=names(model), loss=weighted)
    assert (plain.direct == 0).all()


def test_somebodys_own_blocks_with_their_parts() -> None:
    model = Linear(4, relu=True)
    x, c = linear_batch()
    parts = {
        name: Parts(lambda x, w=layer.weight: x @ w.T, lambda x, y: x + y, after=torch.relu)
        for name, layer in zip(names(model), model.layers, strict=True)
    }
    split = split_gradients(model, x, c, blocks=parts, loss=weighted)
    outs = [x]
    for layer in model.layers:
        outs.append(layer(outs[-1]))
    gradient = c / 3
    for part, out in zip(reversed(split), reversed(outs), strict=False):
        gradient = gradient * (out > 0)
        assert torch.allclose(part.direct, gradient, rtol=1e-14)
        assert torch.allclose(part.direct + part.through, part.total, rtol=1e-12)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = Added(torch.randn(5, 5, generator=torch.Generator().manual_seed(1)) / 3, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(3):
            x = self.cell(x)
        return x


def test_a_module_that_is_called_again_is_a_block_at_each_call() -> None:
    x, c = linear_batch()
    model = Recurrent()
    parts = split_gradients(model, x, c, blocks=["cell"], residual=True, loss=weighted)
    assert [part.block for part in parts] == ["cell", "cell#2", "cell#3"]
    once = torch.eye(5, dtype=torch.float64) + model.cell.weight.detach()
    for part, power in zip(parts, (3, 2, 1), strict=True):
        assert torch.allclose(part.total, c / 3 @ torch.linalg.matrix_power(once, power))
        assert torch.allclose(part.direct, c / 3)


class Modes(nn.Module):
    """Keeps what a probe might spoil."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def state(self) -> dict[str, Any]:
        return {
            "modes": [m.training for m in self.model.modules()],
            "values": [(k, v.clone()) for k, v in self.model.state_dict().items()],
            "places": [id(v) for v in self.model.state_dict(keep_vars=True).values()],
            "grads": [None if p.grad is None else p.grad.clone() for p in self.model.parameters()],
            "trained": [p.requires_grad for p in self.model.parameters()],
            "attributes": [sorted(vars(m)) for m in self.model.modules()],
            "hooks": [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in self.model.modules()],
            "generator": torch.get_rng_state(),
        }


def equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return bool(a == b)


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_the_network_is_left_as_it_was_found(training: bool) -> None:
    model = network(cifar_resnet(8, "exclusive-gating", "bn-after-addition"))
    images, labels = batch()
    model.train()
    model.get_submodule("stages.1").eval()
    F.cross_entropy(model(images), labels).backward()
    next(model.parameters()).requires_grad_(False)
    watched = Modes(model)
    before = watched.state()

    def stops(logits: Tensor, labels: Tensor) -> Tensor:
        raise KeyboardInterrupt

    decompose(model, images, labels, training=training)
    sum_of_branches(model, images, training=training)
    with pytest.raises(KeyboardInterrupt):
        decompose(model, images, labels, loss=stops, training=training)
    with torch.no_grad():
        assert equal(before, watched.state())
        again = decompose(model, images, labels, training=training)
    with torch.inference_mode():
        third = decompose(model, images.clone(), labels, training=training)
    assert equal(again.total.tolist(), decompose(model, images, labels, training=training).total.tolist())
    assert again.total.tolist() == third.total.tolist()
    assert equal(before, watched.state())


def test_what_a_module_draws_comes_from_the_seed() -> None:
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(192, 6), nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5)), nn.Linear(6, 4)
    )
    images, labels = batch()
    results = [
        decompose(model, images.float(), labels, blocks=["2"], residual=True, training=True, seed=seed).total.tolist()
        for seed in (0, 0, 1)
    ]
    assert results[0] == results[1] != results[2]


def test_recomputation_is_put_back() -> None:
    import torch.utils.checkpoint

    real = torch.utils.checkpoint.checkpoint
    spec = cifar_resnet(14)
    kept, recomputed = network(spec), network(spec.with_(checkpoint_blocks=True))
    images, labels = batch()
    a, b = (decompose(model, images, labels, training=True) for model in (kept, recomputed))
    assert a.direct.tolist() == b.direct.tolist() and a.total.tolist() == b.total.tolist()
    assert torch.utils.checkpoint.checkpoint is real
    assert sys.modules[type(recomputed.get_submodule("stages.0")).__module__].checkpoint is real


def test_a_compiled_model_is_measured_as_the_original() -> None:
    model = network(cifar_resnet(8))
    compiled = torch.compile(model, backend="eager")
    images, labels = batch()
    assert decompose(compiled, images, labels).share.tolist() == decompose(model, images, labels).share.tolist()


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_the_sum_of_branches_in_a_preactivated_network(training: bool) -> None:
    model: Any = network(cifar_preresnet(20, "basic"))
    images, _ = batch()
    result = sum_of_branches(model, images, training=training, batch_size=3)
    assert result.stretch.tolist() == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert (result.gap < 1e-13).all()
    model.train(training)
    with torch.no_grad():
        x = model.stem(images)
        for number, stage in enumerate(model.stages):
            first = stage[0]
            z = first.before(x)
            base = first.join.path(z)
            terms = [first.branch(z)]
            x = base + terms[0]
            for block in list(stage)[1:]:
                terms.append(block.branch(x))
                x = x + terms[-1]
            whole = base + sum(terms)
            assert torch.allclose(whole, x, rtol=1e-12)
            rows = slice(3 * number, 3 * number + 3)
            shares = [float((term * whole).sum() / (whole * whole).sum()) for term in terms]
            assert result.share[rows] == pytest.approx(shares, rel=1e-9)
            assert result.branch[rows] == pytest.approx([float(term.norm()) for term in terms], rel=1e-9)
            assert result.share[rows].sum() + result.base_share[rows][0] == pytest.approx(1, rel=1e-12)


def test_where_a_relu_follows_every_block_is_a_sum_of_its_own() -> None:
    result = sum_of_branches(network(comparative_resnet(4)), batch(5)[0], batch_size=2)
    assert result.stretch.tolist() == [1, 2, 3, 4]
    assert np.allclose(result.share + result.base_share, 1, rtol=1e-12)
    frame = result.frame()
    assert set(frame["quantity"]) >= {"stretch", "branch", "shortcut", "share"} and len(frame) == 4 * 8


def test_the_sum_of_branches_of_a_gated_network() -> None:
    model: Any = network(highway(8, gate_bias=0.5))
    images, _ = batch()
    result = sum_of_branches(model, images)
    with torch.no_grad():
        x = model.stem(images)
        block = model.stages[0][0]
        gate = torch.sigmoid(block.join.gate(x))
        assert result.shortcut[0] == pytest.approx(float((x * (1 - gate)).norm()), rel=1e-12)
        assert result.branch[0] == pytest.approx(float((block.branch(x) * gate).norm()), rel=1e-12)


def test_mistakes_get_one_line() -> None:
    model = network(cifar_resnet(8))
    images, labels = batch()
    linear = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.Linear(4, 4)).double()
    cases: list[tuple[str, Any]] = [
        (
            "Sequential has no blocks with before, branch, join and after; name its",
            lambda: decompose(linear, images, labels),
        ),
        ("unknown submodule 'stage.0'", lambda: decompose(model, images, labels, blocks=["stage.0"])),
        ("stages.0 holds stages.0.0", lambda: decompose(model, images, labels, blocks=["stages.0", "stages.0.0"])),
        ("expected a list", lambda: decompose(model, images, labels, blocks="stages")),
        ("blocks is empty", lambda: decompose(model, images, labels, blocks=[])),
        ("0 images", lambda: decompose(model, images[:0], labels[:0])),
        ("0 images", lambda: decompose(model, images[:0], labels[:0], training=True)),
        ("4 images and 3 labels", lambda: decompose(model, images, labels[:3])),
        ("batch_size 0", lambda: decompose(model, images, labels, batch_size=0)),
        ("so it is not x", lambda: decompose(linear, images, labels, blocks=["1"], residual=True)),
        ("no block has a shortcut", lambda: sum_of_branches(network(comparative_plain(2)), images)),
    ]
    for message, call in cases:
        with pytest.raises(LeadlineError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)
