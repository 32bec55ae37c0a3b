"""Input-output Jacobian: against the matrix that torch.func writes out, by both ways of taking it, and by depth."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from leadline.errors import SpecError
from leadline.networks import cifar_resnet, comparative_plain, comparative_resnet, densenet
from leadline.networks.modules import build
from leadline.probes.lanczos import singular_values
from leadline.probes.snapshots.jacobian import measurement as module
from leadline.probes.snapshots.jacobian.measurement import Jacobians, jacobian
from leadline.probes.state import ProbeError
from leadline.specs import NetworkSpec


def images(count: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def small() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1),
            nn.BatchNorm2d(3),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(3, 4, 3, padding=1),
            nn.Tanh(),
            nn.Flatten(),
            nn.Linear(36, 5),
        ).double()


def exact(function: Callable[[Tensor], Tensor], x: Tensor) -> np.ndarray:
    """Singular values of the function's Jacobian at each x, from the matrix that torch.func writes out."""
    matrices = [torch.func.jacrev(lambda one: function(one[None].clone())[0].flatten())(one).flatten(1) for one in x]
    return np.stack([np.linalg.svd(matrix.detach().numpy(), compute_uv=False) for matrix in matrices])


def extremes(result: Jacobians) -> np.ndarray:
    return np.stack([result.largest, result.smallest], -1)


@pytest.mark.parametrize("steps", [5, 4])
def test_every_map_to_the_output_has_the_singular_values_of_the_matrix(steps: int) -> None:
    network, x = small(), images(3, 1, 6, 6)
    result = jacobian(network, x, steps=steps, chunk=2)
    network.eval()
    assert result.maps == ("images", *(str(number) for number in range(8)))
    assert result.inputs == (36, 36, 108, 108, 108, 27, 36, 36, 36) and result.outputs == (5,) * 9
    for index in range(8):
        before = network[:index](x).detach()
        true = exact(network[index:], before)
        np.testing.assert_allclose(result.largest[index + 1], true[:, 0], rtol=1e-10 if steps == 5 else 0.2)
        if steps == 5:
            np.testing.assert_allclose(result.smallest[index + 1], true[:, -1], rtol=1e-8)
            assert (result.largest_error == 0).all() and (result.smallest_error == 0).all()
        else:
            assert (result.largest[index + 1] <= true[:, 0] * (1 + 1e-12)).all()
            assert (result.smallest[index + 1] >= true[:, -1] * (1 - 1e-12)).all()
            distance = np.abs(true - result.largest[index + 1][:, None]).min(1)
            assert (distance <= result.largest_error[index + 1] + 1e-12).all()
    if steps == 5:
        np.testing.assert_array_equal(result.largest[0], result.largest[1])


def test_lanczos_steps_as_many_as_the_smaller_side_agree_with_rows() -> None:
    network, x = small(), images(2, 1, 6, 6)
    written = jacobian(network, x, maps="across", steps=200)
    iterated_values = []
    for index in range(8):
        piece = network.eval()[index : index + 1]
        entering = network[:index](x).detach().requires_grad_()
        leaving = piece(entering.clone())
        size = min(entering[0].numel(), leaving[0].numel())
        values, errors = module._approximate(entering, leaving, size, False, torch.Generator().manual_seed(3))
        assert values.shape == (2, size) and (errors == 0).all()
        iterated_values.append(values[:, [0, -1]])
    np.testing.assert_allclose(np.stack(iterated_values), extremes(written), rtol=1e-7, atol=1e-9)


def test_maps_from_the_images_and_across_places() -> None:
    network, x = small(), images(2, 1, 6, 6)
    from_input = jacobian(network, x, maps="from-input", layers=["3", "5"], steps=40)
    across = jacobian(network, x, maps="across", layers="4", steps=40)
    network.eval()
    assert from_input.maps == ("3", "5", "output") and across.maps == ("4",)
    assert across.inputs == (27,) and across.outputs == (36,)
    for index, stop in enumerate((4, 6, 8)):
        true = exact(network[:stop], x)
        np.testing.assert_allclose(from_input.largest[index], true[:, 0], rtol=1e-9)
        np.testing.assert_allclose(from_input.smallest[index], true[:, -1], rtol=1e-6, atol=1e-12)
    true = exact(network[4:5], network[:4](x).detach())
    np.testing.assert_allclose(extremes(across)[0], true[:, [0, -1]], rtol=1e-9)


def test_batch_statistics_make_one_map_of_the_whole_batch() -> None:
    network, x = small(), images(3, 1, 6, 6)
    result = jacobian(network, x, layers="0", batch_statistics=True, steps=15)
    twin = small().train()
    matrix = torch.autograd.functional.jacobian(twin, x).reshape(15, -1)
    true = np.linalg.svd(matrix.numpy(), compute_uv=False)
    assert result.largest.shape == (2, 1) and result.outputs == (15, 15)
    np.testing.assert_allclose(extremes(result)[0, 0], true[[0, -1]], rtol=1e-8)


def test_the_identity_keeps_every_length_though_all_its_values_are_equal() -> None:
    result = jacobian(
        nn.Sequential(nn.Flatten(), nn.Identity()), images(2, 1, 4, 4), maps="from-input", layers="0", steps=7
    )
    np.testing.assert_allclose(extremes(result), 1, rtol=1e-12)
    np.testing.assert_allclose(result.condition, 1, rtol=1e-12)


@pytest.mark.parametrize("rank", [0, 1, 3])
@pytest.mark.parametrize("shape", [(6, 9), (9, 6), (5, 5)])
def test_bidiagonalisation_survives_a_deficient_matrix(rank: int, shape: tuple[int, int]) -> None:
    random = torch.Generator().manual_seed(rank)
    left, right = (torch.randn(2, side, rank, generator=random, dtype=torch.float64) for side in shape)
    matrices = left @ right.mT
    values, errors = singular_values(
        lambda v: (matrices @ v[:, :, None])[:, :, 0],
        lambda u: (matrices.mT @ u[:, :, None])[:, :, 0],
        shape,
        20,
        lambda length: torch.randn(2, length, generator=random, dtype=torch.float64),
    )
    true = np.linalg.svd(matrices.numpy(), compute_uv=False)
    np.testing.assert_allclose(values, true, atol=1e-12)
    np.testing.assert_allclose(errors, 0, atol=1e-12)


@pytest.mark.parametrize(
    "spec",
    [comparative_plain(4), comparative_resnet(4), cifar_resnet(8), densenet(10)],
    ids=["plain", "residual", "cifar", "densenet"],
)
def test_our_networks_are_measured_from_each_block_on(spec: NetworkSpec) -> None:
    network = build(spec, (1, 8, 8), 4, seed=0).double()
    x = images(2, 1, 8, 8)
    result = jacobian(network, x)
    blocks = [
        f"stages.{s}.{b}"
        for s, stage in enumerate(network.stages)
        for b in range(len(stage))
        if str(b) in dict(stage.named_children())
    ]
    assert result.maps == ("images", *blocks)
    np.testing.assert_allclose(result.largest[0], exact(network.eval(), x)[:, 0], rtol=1e-9)
    np.testing.assert_allclose(result.smallest[0], exact(network, x)[:, -1], rtol=1e-6)


class Layered(nn.Module):
    """A user's own module, which may recompute each layer in the backward pass."""

    def __init__(self, recompute: bool) -> None:
        super().__init__()
        self.layers = small()
        self.layers[2] = nn.ReLU()  # what is recomputed may not be changed in place
        self.recompute = recompute

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = checkpoint(layer, x, use_reentrant=False) if self.recompute else layer(x)
        return x


@pytest.mark.parametrize("steps", [5, 3])
def test_layers_that_are_recomputed_give_the_same(steps: int) -> None:
    x = images(2, 1, 6, 6)
    kept, recomputed = (jacobian(Layered(flag), x, steps=steps) for flag in (False, True))
    assert recomputed.maps == kept.maps == ("images", *(f"layers.{number}" for number in range(8)))
    np.testing.assert_allclose(extremes(recomputed), extremes(kept), rtol=1e-9)


def test_shared_modules_are_told_apart_by_call() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.Linear(4, 4, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(3):
                x = self.cell(x)
            return x

    network = Recurrent().double()
    result = jacobian(network, images(1, 4))
    assert result.maps == ("images", "cell", "cell#2", "cell#3")
    for index, power in enumerate((3, 3, 2, 1)):
        true = np.linalg.norm(np.linalg.matrix_power(network.cell.weight.detach().numpy(), power), 2)
        np.testing.assert_allclose(result.largest[index, 0], true, rtol=1e-9)


def test_attention_has_the_derivatives_that_lanczos_needs() -> None:
    encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).double()
    network, x = nn.Sequential(encoder, nn.Flatten()), images(2, 5, 8)
    exhaustive = jacobian(network, x, layers="0", steps=40)
    few = jacobian(network, x, layers="0", steps=20)
    np.testing.assert_allclose(few.largest, exhaustive.largest, rtol=1e-3)
    assert (few.largest <= exhaustive.largest * (1 + 1e-9)).all()


def test_values_that_are_not_finite_or_have_vanished() -> None:
    x = images(2, 4)
    network = nn.Linear(4, 3, bias=False).double()
    with torch.no_grad():
        network.weight.mul_(1e-160)
    tiny = jacobian(nn.Sequential(network, nn.Linear(3, 50).double()), x, steps=2, layers="0")
    true = exact(lambda one: network(one), x)[:, 0]
    assert (tiny.largest > 1e-162).all() and (tiny.largest < 1e3 * true).all()
    with torch.no_grad():
        network.weight.fill_(float("nan"))
    for steps in (2, 10):
        assert np.isnan(jacobian(network, x, steps=steps, layers=[]).largest).all()


def test_the_frame_is_long_and_the_seed_settles_it() -> None:
    network, x = small(), images(3, 1, 6, 6)
    calls: list[tuple[int, int]] = []
    first = jacobian(network, x, steps=3, seed=4, chunk=2, progress=lambda done, total: calls.append((done, total)))
    again = jacobian(network, x, steps=3, seed=4, chunk=2)
    other = jacobian(network, x, steps=3, seed=5, chunk=2)
    np.testing.assert_array_equal(extremes(first), extremes(again))
    assert (first.largest != other.largest).any()
    assert calls[-1] == (18, 18) and calls == sorted(calls)
    frame = first.frame()
    assert list(frame.columns) == ["kind", "map", "depth", "image", "extreme", "value", "error"]
    assert len(frame) == 9 * 3 * 2
    row = frame[(frame["map"] == "4") & (frame["image"] == 2) & (frame["extreme"] == "smallest")].iloc[0]
    assert row["value"] == first.smallest[5, 2] and row["depth"] == 5


def test_what_cannot_be_measured_is_refused_in_one_line() -> None:
    network, x = small(), images(2, 1, 6, 6)
    with pytest.raises(ProbeError, match="expected real numbers"):
        jacobian(network, x.long())
    with pytest.raises(ProbeError, match="at least one image"):
        jacobian(network, x[:0])
    with pytest.raises(ProbeError, match="steps 0"):
        jacobian(network, x, steps=0)
    with pytest.raises(SpecError, match="unknown layer"):
        jacobian(network, x, layers="nowhere")
    with pytest.raises(ProbeError, match="differentiable"):
        jacobian(nn.Sequential(nn.Flatten(), Rounded()), x)
    with pytest.raises(ProbeError, match="one tensor"):
        jacobian(Several(), x)


class Rounded(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.detach().round()


class Several(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x
