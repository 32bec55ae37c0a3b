"""Lesions against networks rebuilt by hand, and paths against all 2^n of them."""

import copy
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import kendalltau
from torch import Tensor, nn

from leadline.errors import LeadlineError
from leadline.networks import (
    cifar_plain,
    cifar_preresnet,
    cifar_resnet,
    comparative_cnn,
    comparative_plain,
    comparative_resnet,
    densenet,
    highway,
    recurrent_resnet,
)
from leadline.networks.modules import build
from leadline.networks.modules.shortcuts import Concatenate, Gated
from leadline.probes.blocks import Parts, find_blocks
from leadline.probes.snapshots.lesion.measurement import kendall_tau, lesion, lesion_several, reorder, swap
from leadline.probes.snapshots.paths.measurement import PathLengths, gradient_by_path_length, path_sums
from leadline.probes.traces import traces
from leadline.specs import NetworkSpec, Stage

IMAGE, CLASSES = (3, 8, 8), 4


def network(spec: NetworkSpec, seed: int = 0) -> nn.Module:
    """In double precision, with every parameter drawn at random, so that nothing hides at 0 or 1."""
    model = build(spec, IMAGE, CLASSES, seed).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            if name.endswith("running_var"):
                value.uniform_(0.5, 2, generator=generator)
            elif not name.endswith("num_batches_tracked"):
                value.normal_(0, 1 / math.sqrt(value[0].numel() if value.ndim > 1 else 1), generator=generator)
    return model


def batch(count: int = 40, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, *IMAGE, generator=generator, dtype=torch.float64)
    return images, torch.randint(CLASSES, (count,), generator=generator)


Step = Callable[[Tensor], Tensor]


def straight_line(model: Any) -> dict[str, Step]:
    """What stands between stem and head, by name, in order."""
    return {f"stages.{n}.{k}": m for n, stage in enumerate(model.stages) for k, m in stage.named_children()}


def block_names(model: nn.Module) -> list[str]:
    return [name for name, module in straight_line(model).items() if hasattr(module, "branch")]


def without_branch(block: Any) -> Step:
    """A residual block whose branch is gone, written out for each join."""

    def step(x: Tensor) -> Tensor:
        z = block.before(x)
        join = block.join
        if isinstance(join, Concatenate):
            width = [m for m in block.branch if isinstance(m, nn.Conv2d)][-1].out_channels
            joined = torch.cat([z, torch.zeros(len(z), width, *z.shape[2:], dtype=z.dtype)], 1)
        elif isinstance(join, Gated):
            joined = join.path(z) * (1 - torch.sigmoid(join.gate(z)))
        else:
            joined = join.path(z)
        out: Tensor = block.after(joined)
        return out

    return step


@torch.no_grad()
def score(model: Any, steps: list[Step], images: Tensor, labels: Tensor) -> tuple[float, float]:
    x = model.stem(images)
    for step in steps:
        x = step(x)
    logits = model.head(x)
    return float((logits.argmax(1) != labels).double().mean() * 100), float(F.cross_entropy(logits, labels))


RESIDUAL = {
    "original-A": cifar_resnet(14),
    "original-B": cifar_resnet(14, "B"),
    "bn-after": cifar_resnet(14, "C", "bn-after-addition"),
    "scaled": cifar_resnet(14, "scaled"),
    "preactivated": cifar_preresnet(14, "basic"),
    "gated": cifar_resnet(14, "shortcut-only-gating"),
    "highway": highway(11, gate_bias=0.5),
    "comparative": comparative_resnet(3),
    "dense": densenet(16, 4),
    "recurrent": recurrent_resnet(4, 8),
    "recomputed": cifar_resnet(8).with_(checkpoint_blocks=True),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RESIDUAL)
def test_each_residual_block_deleted_is_the_network_rebuilt_without_its_branch(name: str) -> None:
    model = network(RESIDUAL[name])
    images, labels = batch()
    result = lesion(model, images, labels, batch_size=16)
    steps = straight_line(model)
    assert list(result.blocks) == block_names(model)
    assert (result.error, result.loss) == pytest.approx(score(model, list(steps.values()), images, labels), rel=1e-12)
    for number, block in enumerate(result.blocks):
        rebuilt = [without_branch(step) if where == block else step for where, step in steps.items()]
        error, loss = score(model, rebuilt, images, labels)
        assert result.errors[number] == pytest.approx(error, rel=1e-12)
        assert result.losses[number] == pytest.approx(loss, rel=1e-12)
        assert result.losses[number] != pytest.approx(result.loss, rel=1e-9)
        assert result.removed[number] == "branch"


def test_a_plain_block_is_replaced_by_the_identity_where_shapes_allow() -> None:
    model = network(cifar_plain(14))
    images, labels = batch()
    result = lesion(model, images, labels)
    steps = straight_line(model)
    for number, (name, block) in enumerate(zip(result.blocks, steps.values(), strict=True)):
        if name in ("stages.1.0", "stages.2.0"):
            assert np.isnan(result.errors[number]) and not result.keeps_shape[number]
            shapes = "16x8x8 to 32x4x4" if name == "stages.1.0" else "32x4x4 to 64x2x2"
            reason = f"not deleted: it changes the shape from {shapes}, which the identity cannot do"
            assert result.removed[number] == reason
        else:
            error, loss = score(model, [step for step in steps.values() if step is not block], images, labels)
            assert (result.errors[number], result.losses[number]) == pytest.approx((error, loss), rel=1e-12)
            assert result.removed[number] == "block" and result.keeps_shape[number]
    frame = result.frame()
    assert frame["number"].tolist() == [1, 2, 3, 4, 5, 6]
    assert np.allclose(frame["error_increase"], result.errors - result.error, equal_nan=True)


def test_a_step_is_left_out_once_though_its_weights_are_shared() -> None:
    model: Any = network(recurrent_resnet(4, 8, normalisation="shared"))
    images, labels = batch()
    result = lesion(model, images, labels)
    first, *steps = model.stages[0]
    assert steps[1].branch.conv1 is steps[2].branch.conv1
    three = score(model, [first, without_branch(steps[0]), *steps[1:]], images, labels)
    assert (result.errors[1], result.losses[1]) == pytest.approx(three, rel=1e-12)


class Cell(nn.Module):
    """Not ours: one layer, applied some times over, between two others."""

    def __init__(self, repeats: int = 3, residual: bool = True) -> None:
        super().__init__()
        self.inside = nn.Linear(192, 6)
        self.cell = Added(6) if residual else nn.Linear(6, 6)
        self.wide = nn.Linear(6, 7)
        self.outside = nn.Linear(7, CLASSES)
        self.repeats = repeats
        for parameter in self.parameters():
            nn.init.normal_(parameter, 0, 0.5, generator=torch.Generator().manual_seed(parameter.numel()))
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        x = self.inside(x.flatten(1))
        for _ in range(self.repeats):
            x = self.cell(x)
        return self.outside(self.wide(x).tanh())


class Added(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layer(x).tanh()


@pytest.mark.parametrize("residual", [False, True])
def test_somebodys_own_module_called_many_times(residual: bool) -> None:
    model = Cell(residual=residual)
    images, labels = batch()
    result = lesion(model, images, labels, blocks=["cell", "wide"], residual=residual)
    assert result.blocks == ("cell", "cell#2", "cell#3", "wide")
    shorter = Cell(2, residual)
    shorter.load_state_dict(model.state_dict())
    with torch.no_grad():
        expected = float(F.cross_entropy(shorter(images), labels))
    assert result.losses[:3] == pytest.approx([expected] * 3, rel=1e-12)
    assert result.removed[:3] == ("branch" if residual else "block",) * 3
    assert np.isnan(result.losses[3]) and result.removed[3].startswith("not deleted: it changes the shape from 6 to 7")
    several = lesion_several(model, images, labels, counts=[3], draws=1, blocks=["cell", "wide"], residual=residual)
    assert several.deleted == (("cell", "cell#2", "cell#3"),)


def test_somebodys_own_blocks_with_their_parts() -> None:
    model = Cell()
    model.cell = nn.Sequential(nn.Linear(6, 6), nn.Tanh()).double()
    parts = {
        "wide": Parts(lambda x: torch.tanh(x @ model.wide.weight.T), lambda x, y: y + F.pad(x, (0, 1)), after=F.relu)
    }
    images, labels = batch()
    result = lesion(model, images, labels, blocks=parts)
    with torch.no_grad():
        x = model.inside(images.flatten(1))
        for _ in range(3):
            x = model.cell(x)
        alone = model.outside(F.pad(x, (0, 1)).clamp(min=0).tanh())
    assert result.removed == ("branch",) and not result.keeps_shape[0]
    assert result.losses[0] == pytest.approx(float(F.cross_entropy(alone, labels)), rel=1e-12)


@pytest.mark.slow
def test_several_blocks_at_random() -> None:
    model = network(cifar_resnet(14))
    images, labels = batch()
    seen: list[tuple[int, int]] = []
    result = lesion_several(
        model, images, labels, counts=[1, 3, 6], draws=4, seed=5, progress=lambda done, of: seen.append((done, of))
    )
    assert seen == [(number, 13) for number in range(1, 14)]
    assert [len(set(names)) for names in result.deleted] == result.counts.tolist() == [1] * 4 + [3] * 4 + [6] * 4
    assert len(set(result.deleted[4:8])) > 1
    steps = straight_line(model)
    for number, deleted in enumerate(result.deleted):
        rebuilt = [without_branch(step) if where in deleted else step for where, step in steps.items()]
        expected = score(model, rebuilt, images, labels)
        assert (result.errors[number], result.losses[number]) == pytest.approx(expected, rel=1e-12)
    again = lesion_several(model, images, labels, counts=[3], draws=4, seed=5)
    assert again.deleted == result.deleted[4:8] and again.errors.tolist() == result.errors[4:8].tolist()
    assert lesion_several(model, images, labels, counts=[3], draws=4, seed=6).deleted != again.deleted
    both = lesion_several(model, images[:4], labels[:4], counts=[2, 3], draws=8, seed=5).deleted
    assert not all(set(few) < set(more) for few, more in zip(both[:8], both[8:], strict=True))
    assert set(lesion_several(model, images[:4], labels[:4], draws=1).counts) == {1, 2, 3, 4, 5, 6}
    assert len(result.frame()) == 12


def test_swapping_is_the_network_with_its_blocks_in_other_places() -> None:
    model: Any = network(cifar_preresnet(20, "basic"))
    images, labels = batch()
    result = swap(model, images, labels)
    steps = list(straight_line(model).values())
    # the blocks after each stage's first, and the network's first, which keeps its shape too
    expected = [(0, 1), (0, 2), (1, 2), (4, 5), (7, 8)]
    assert [tuple(np.flatnonzero(order != np.arange(9)).tolist()) for order in result.orders] == expected
    for order, error, loss in zip(result.orders, result.errors, result.losses, strict=True):
        assert (error, loss) == pytest.approx(score(model, [steps[i] for i in order], images, labels), rel=1e-12)
    assert set(result.frame()["swaps"]) == {1}


def test_reordering_is_random_seeded_and_measured_by_kendalls_tau() -> None:
    model: Any = network(cifar_resnet(20))
    images, labels = batch(10)
    result = reorder(model, images, labels, swaps=[0, 1, 4], draws=3, seed=2)
    assert result.swaps.tolist() == [0] * 3 + [1] * 3 + [4] * 3
    steps = list(straight_line(model).values())
    for order, tau, error, loss in zip(result.orders, result.taus, result.errors, result.losses, strict=True):
        assert sorted(order.tolist()) == list(range(9))
        assert tau == pytest.approx(kendalltau(np.arange(9), order).statistic, rel=1e-12)
        assert (error, loss) == pytest.approx(score(model, [steps[i] for i in order], images, labels), rel=1e-12)
    assert (result.taus[:3] == 1).all() and (result.taus[3:6] < 1).all()
    assert result.errors[:3].tolist() == [result.error] * 3
    again = reorder(model, images, labels, swaps=[4], draws=3, seed=2)
    assert again.orders.tolist() == result.orders[6:].tolist() and len(again.frame()) == 3
    assert reorder(model, images, labels, swaps=[4], draws=3, seed=3).orders.tolist() != again.orders.tolist()
    assert math.isnan(kendall_tau([0])) and kendall_tau([2, 1, 0]) == -1


def test_swapping_identical_blocks_changes_nothing() -> None:
    model: Any = network(cifar_resnet(20))
    for stage in model.stages:
        stage[2].load_state_dict(stage[1].state_dict())
    model.stages[0][0].load_state_dict(model.stages[0][1].state_dict())
    images, labels = batch()
    result = swap(model, images, labels)
    assert (result.errors == result.error).all() and (result.losses == result.loss).all() and len(result.errors) == 5


@pytest.mark.slow
@pytest.mark.parametrize("probe", [lesion, lesion_several, swap, reorder, gradient_by_path_length])
def test_the_network_is_left_as_it_was_found(probe: Any) -> None:
    model = network(cifar_resnet(14, "exclusive-gating")).train()
    model.get_submodule("stages.1").eval()
    images, labels = batch(6)
    F.cross_entropy(model(images), labels).backward()
    values = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    modes = [module.training for module in model.modules()]
    attributes = [sorted(vars(module)) for module in model.modules()]
    generator = torch.get_rng_state()

    def stops(logits: Tensor, labels: Tensor) -> Tensor:
        raise KeyboardInterrupt

    for loss in (F.cross_entropy, stops):
        try:
            probe(model, images, labels, loss=loss)
            assert loss is not stops
        except KeyboardInterrupt:
            assert loss is stops
        assert all(torch.equal(value, values[name]) for name, value in model.state_dict().items())
        now = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
        assert all(map(torch.equal, now, gradients)) and len(now) == len(gradients)
        assert modes == [module.training for module in model.modules()]
        assert attributes == [sorted(vars(module)) for module in model.modules()]
        assert not any(module._forward_pre_hooks for module in model.modules())
        assert torch.equal(generator, torch.get_rng_state())


def path_gradient(model: Any, images: Tensor, labels: Tensor, branches: tuple[bool, ...]) -> Tensor:
    """The gradient of one path, by a forward pass whose values are the network's and whose other ways are detached."""
    x = model.stem(images).detach().requires_grad_()
    start, taken = x, iter(branches)
    for step in straight_line(model).values():
        if not hasattr(step, "branch") or step.join is None:
            x = step(x)
            continue
        z = step.before(x)
        inner, straight = (z, z.detach()) if next(taken) else (z.detach(), z)
        y, join = step.branch(inner), step.join
        if isinstance(join, Concatenate):
            joined = torch.cat([straight, y], 1)
        elif isinstance(join, Gated):
            gate = torch.sigmoid(join.gate(inner))
            joined = join.path(straight) * (1 - gate) + (gate * y if join.exclusive else y)
        else:
            joined = join.branch(y) + join.path(straight)
        x = step.after(joined)
    (gradient,) = torch.autograd.grad(F.cross_entropy(model.head(x), labels), start)
    return gradient


PATHS = {
    "preactivated": NetworkSpec(
        stem={"width": 4}, stages=(Stage(blocks=4, width=4),), block={"order": "full-preactivation"}
    ),
    "original": cifar_resnet(14),
    "gated": cifar_resnet(8, "exclusive-gating"),
    "comparative": comparative_resnet(4),
    "dense": densenet(16, 4),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PATHS)
def test_all_paths_sum_to_the_gradient_by_length_and_in_all(name: str) -> None:
    model = network(PATHS[name])
    images, labels = batch(3)
    n = len(block_names(model))
    every: dict[int, list[Tensor]] = {k: [] for k in range(n + 1)}
    for branches in itertools.product([False, True], repeat=n):
        every[sum(branches)].append(path_gradient(model, images, labels, branches))
    whole = sum(sum(paths) for paths in every.values())
    x = model.stem(images).detach().requires_grad_()  # type: ignore[operator]
    y = x
    for step in straight_line(model).values():
        y = step(y)
    (gradient,) = torch.autograd.grad(F.cross_entropy(model.head(y), labels), x)  # type: ignore[operator]
    assert torch.allclose(whole, gradient, rtol=1e-9, atol=1e-12 * float(gradient.norm()))

    (one,) = traces(model, images, labels, find_blocks(model), F.cross_entropy, False, 3)
    for sums, paths in zip(path_sums(one), every.values(), strict=True):
        assert torch.allclose(sums, sum(paths), rtol=1e-9, atol=1e-12 * float(gradient.norm()))

    result = gradient_by_path_length(model, images, labels, samples=6, batch_size=2)
    assert result.blocks == n and result.lengths.tolist() == list(range(n + 1))
    assert result.total == pytest.approx(float(gradient.norm()), rel=1e-10)
    assert result.exact is not None and result.exact_share is not None
    assert result.exact_share.sum() == pytest.approx(1, rel=1e-10)
    assert np.allclose(10**result.log10_paths, [math.comb(n, k) for k in range(n + 1)])
    for k, paths in every.items():
        assert result.exact[k] == pytest.approx(float(sum(paths).norm()), rel=1e-8, abs=1e-14)
        share = float((sum(paths) * gradient).sum() / gradient.square().sum())
        assert result.exact_share[k] == pytest.approx(share, rel=1e-7, abs=1e-12)
        norms = np.array([float(path.norm()) for path in paths])
        for drawn in result.sampled[k]:
            assert np.isclose(norms, drawn, rtol=1e-8, atol=1e-14).any()
    means = result.sampled.mean(1) * [math.comb(n, k) for k in range(n + 1)]
    assert np.allclose(result.share, means / means.sum())
    frame = result.frame()
    assert frame["sum_share"].sum() == pytest.approx(1) and (frame["norm_low"] <= frame["norm_high"]).all()


def test_lengths_are_sampled_alike_whatever_else_is_sampled() -> None:
    model = network(cifar_resnet(14))
    images, labels = batch(3)
    everything = gradient_by_path_length(model, images, labels, samples=3, exact=False)
    seen: list[tuple[int, int]] = []
    some = gradient_by_path_length(
        model, images, labels, lengths=[4, 2], samples=3, exact=False, progress=lambda done, of: seen.append((done, of))
    )
    assert some.sampled.tolist() == everything.sampled[[4, 2]].tolist()
    assert seen == [(number, 6) for number in range(1, 7)]
    assert some.exact is None and some.frame()["sum_norm"].isna().all()
    other = gradient_by_path_length(model, images, labels, lengths=[2], samples=3, exact=False, seed=1)
    assert other.sampled.tolist() != some.sampled[[1]].tolist()


def test_plain_blocks_are_passed_and_training_mode_is_the_batchs_own() -> None:
    spec = NetworkSpec(stem={"width": 4}, stages=(Stage(blocks=2, width=4),), block={"order": "full-preactivation"})
    model: Any = network(spec)
    model.stages[0][0].join = None
    images, labels = batch(3)
    result = gradient_by_path_length(model, images, labels, samples=1, training=True, batch_size=1)
    assert result.blocks == 1
    copied: Any = copy.deepcopy(model).train()
    x = copied.stem(images).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(copied.head(copied.stages[0](x)), labels), x)
    assert result.total == pytest.approx(float(gradient.norm()), rel=1e-10)
    assert result.exact_share is not None and result.exact_share.sum() == pytest.approx(1, rel=1e-10)


def test_effective_lengths_and_shares_of_very_many_paths() -> None:
    n, ratio = 2000, 0.1  # norms fall as ratio^k, so the shares are a binomial distribution
    k = np.arange(n + 1)
    logs = np.array([math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) for i in k])
    keep = k[:300]
    result = PathLengths(keep, (10.0 ** (keep * math.log10(ratio)))[:, None], None, None, 1.0, n)
    exact = np.exp(logs + k * math.log(ratio))[:300]
    exact = exact / exact.sum()
    assert np.allclose(result.share, exact, rtol=1e-6)
    low, high = result.effective(0.95)
    assert exact[low : high + 1].sum() >= 0.95 > exact[low + 1 : high + 1].sum()
    assert low < n * ratio / (1 + ratio) < high
    assert result.effective(1.0)[1] - low <= 299
    one = PathLengths(np.array([0, 1]), np.array([[1.0], [0.0]]), None, None, 1.0, 1)
    assert one.effective() == (0, 0)
    with pytest.raises(LeadlineError, match=r"share 1\.5: expected above 0"):
        one.effective(1.5)
    with pytest.raises(LeadlineError, match="all zero"):
        PathLengths(np.array([0]), np.zeros((1, 1)), None, None, 0.0, 0).effective()


def test_mistakes_get_one_line() -> None:
    model, plain = network(cifar_resnet(8)), network(comparative_plain(2))
    images, labels = batch(4)
    cases: list[tuple[str, Any]] = [
        (
            "none of 5 blocks can be deleted; stages.0.0: not deleted: it changes the shape from",
            lambda: lesion_several(network(comparative_cnn(5)), images, labels),
        ),
        ("4 blocks to delete; expected 1 to 3", lambda: lesion_several(model, images, labels, counts=[4])),
        ("draws 0", lambda: lesion_several(model, images, labels, draws=0)),
        ("expected at least 1 draw of 0 or more swaps", lambda: reorder(model, images, labels, swaps=[-1])),
        ("no two of 2 blocks keep one shape", lambda: swap(plain, images, labels)),
        ("4 images and 2 labels", lambda: lesion(model, images, labels[:2])),
        ("0 images", lambda: lesion(model, images[:0], labels[:0])),
        ("batch_size 0", lambda: lesion(model, images, labels, batch_size=0)),
        ("no block has a shortcut", lambda: gradient_by_path_length(plain, images, labels)),
        ("path length 4: expected 0 to 3", lambda: gradient_by_path_length(model, images, labels, lengths=[4])),
        ("samples 0", lambda: gradient_by_path_length(model, images, labels, samples=0)),
        ("lengths is empty", lambda: gradient_by_path_length(model, images, labels, lengths=[])),
        ("block spare is not called", lambda: lesion(Spare(), images, labels, blocks=["spare"])),
        ("returns a tuple; expected a tensor", lambda: lesion(Spare(), images, labels, blocks=["pair"])),
    ]
    for message, call in cases:
        with pytest.raises(LeadlineError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


class Spare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.spare, self.pair, self.head = nn.Identity(), Pair(), nn.Linear(192, CLASSES).double()

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.pair(x)[0].flatten(1))
        return logits


class Pair(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x
