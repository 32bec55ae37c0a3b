"""The Hessian by its products: against the matrix that autograd writes out, and Lanczos against known spectra."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leadline.networks import comparative_resnet
from leadline.networks.modules import build
from leadline.probes.lanczos import lanczos
from leadline.probes.snapshots.hessian.measurement import Hessian, hessian, product
from leadline.probes.state import ProbeError, generator, measurement_mode, prepare_batch, trainable


def batch(count: int = 12, classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 1, 4, 4, generator=random, dtype=torch.float64)
    return images, torch.randint(0, classes, (count,), generator=random)


def small() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(
            nn.Conv2d(1, 2, 3),
            nn.BatchNorm2d(2),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.Linear(8, 3),
            nn.Tanh(),
            nn.Linear(3, 3),
        ).double()


def exact(network: nn.Module, images: Tensor, labels: Tensor, training: bool = False) -> np.ndarray:
    """The Hessian of the mean cross-entropy with respect to the trained parameters, written out."""
    network = copy.deepcopy(network).train(training)
    names, values = zip(*((n, p) for n, p in network.named_parameters() if p.requires_grad), strict=True)

    def loss(flat: Tensor) -> Tensor:
        pieces = torch.split(flat, [value.numel() for value in values])
        moved = {name: piece.view_as(value) for name, piece, value in zip(names, pieces, values, strict=True)}
        return F.cross_entropy(torch.func.functional_call(network, moved, (images.clone(),)), labels)

    flat = torch.cat([value.detach().flatten() for value in values])
    return torch.autograd.functional.hessian(loss, flat).numpy()


@pytest.mark.parametrize("chunk", [12, 5])
def test_products_are_those_with_the_matrix(chunk: int) -> None:
    network, (images, labels) = small(), batch()
    matrix = exact(network, images, labels)
    with measurement_mode(network) as lent:
        multiply = product(lent, prepare_batch(lent, images, labels, chunk), F.cross_entropy)
        for seed in range(3):
            vector = torch.randn(len(matrix), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
            np.testing.assert_allclose(multiply(vector).numpy(), matrix @ vector.numpy(), atol=1e-12)


@pytest.mark.parametrize("chunk", [12, 5])
def test_eigenvalues_are_those_of_the_matrix(chunk: int) -> None:
    network, (images, labels) = small(), batch()
    true = np.linalg.eigvalsh(exact(network, images, labels))[::-1]
    nothing = {"vectors": 0, "trace_vectors": 0}
    result = hessian(network, images, labels, count=3, steps=200, tolerance=1e-9, chunk=chunk, **nothing)
    assert result.parameters == len(true) == 63 and result.images == 12
    np.testing.assert_allclose(result.largest, true[:3], rtol=1e-7)
    assert (np.abs(result.smallest[:, None] - true).min(1) <= result.smallest_error + 1e-12).all()
    assert result.smallest[0] >= true[-1] - 1e-12
    assert np.isnan(result.trace) and np.isnan(result.trace_error) and result.nodes == ()


def test_few_steps_are_honest_about_their_error() -> None:
    network, (images, labels) = small(), batch()
    true = np.linalg.eigvalsh(exact(network, images, labels))[::-1]
    result = hessian(network, images, labels, count=2, steps=4, vectors=0, tolerance=0)
    assert result.steps == 4 and (result.largest_error > 0).all()
    assert (result.largest <= true[:2] + 1e-12).all()
    for values, errors in ((result.largest, result.largest_error), (result.smallest, result.smallest_error)):
        assert (np.abs(values[:, None] - true).min(1) <= errors + 1e-12).all()


@pytest.mark.slow
def test_the_trace_is_without_bias_and_its_error_is_the_right_size() -> None:
    network, (images, labels) = small(), batch()
    matrix = exact(network, images, labels)
    result = hessian(network, images, labels, count=0, steps=1, vectors=0, trace_vectors=400)
    # for random signs the variance is 2 (|H|^2 - |diagonal|^2): Hutchinson 1989
    spread = np.sqrt(2 * ((matrix**2).sum() - (np.diag(matrix) ** 2).sum()) / 400)
    assert abs(result.trace - np.trace(matrix)) < 4 * spread
    assert result.trace_error == pytest.approx(spread, rel=0.2)
    assert result.largest.size == 0 and result.steps == 0


def test_the_trace_is_exact_where_lanczos_reaches_everything() -> None:
    network, (images, labels) = small(), batch()
    true = np.trace(exact(network, images, labels))
    whole = hessian(network, images, labels, count=63, steps=63, vectors=0, trace_vectors=2)
    assert whole.trace == pytest.approx(true, rel=1e-9) and whole.trace_error < 1e-9 * true


@pytest.mark.slow
def test_dividing_the_trace_leaves_no_bias_and_the_error_of_the_rest() -> None:
    network, (images, labels) = small(), batch()
    matrix = torch.from_numpy(exact(network, images, labels))

    def variance(basis: Tensor) -> float:
        """Of 8 random signs outside a space: Hutchinson 1989, on the matrix with both sides projected."""
        outside = torch.eye(len(matrix), dtype=torch.float64) - basis.T @ basis
        rest = outside @ matrix @ outside
        return float(2 * (rest.square().sum() - rest.diag().square().sum()) / 8)

    random = torch.Generator().manual_seed(0)
    starts = torch.randn(20, len(matrix), generator=random, dtype=torch.float64)
    expected = np.mean([variance(lanczos(lambda v: matrix @ v, start, 10).basis) for start in starts]) ** 0.5
    found = [
        hessian(network, images, labels, count=1, steps=10, tolerance=0, vectors=0, trace_vectors=8, seed=seed)
        for seed in range(40)
    ]
    off = np.array([one.trace - float(matrix.trace()) for one in found])
    assert abs(off.mean()) < 4 * expected / 40**0.5
    assert off.std(ddof=1) == pytest.approx(expected, rel=0.35)
    assert np.mean([one.trace_error**2 for one in found]) ** 0.5 == pytest.approx(expected, rel=0.25)
    assert expected < 0.75 * variance(matrix[:0]) ** 0.5  # of the same number of signs for the whole trace


def test_quadrature_has_the_moments_of_the_spectrum() -> None:
    network, (images, labels) = small(), batch()
    matrix = exact(network, images, labels)
    result = hessian(network, images, labels, count=0, steps=5, vectors=3, seed=9)
    for nodes, weights in zip(result.nodes, result.weights, strict=True):
        assert len(nodes) == 5 and weights.sum() == pytest.approx(1)
    # k steps are exact for the vector's own moments up to 2k - 1: check them on the vectors that were drawn
    for number, (nodes, weights) in enumerate(zip(result.nodes, result.weights, strict=True)):
        vector = (
            torch.randint(0, 2, (63,), generator=generator(9, "hessian", "density", number)) * 2 - 1
        ).numpy() / 63**0.5
        for power in range(10):
            true = vector @ np.linalg.matrix_power(matrix, power) @ vector
            assert weights @ nodes**power == pytest.approx(true, rel=1e-7)


@pytest.mark.slow
def test_the_density_is_that_of_the_eigenvalues() -> None:
    network, (images, labels) = small(), batch()
    true = np.linalg.eigvalsh(exact(network, images, labels))
    result = hessian(network, images, labels, count=1, steps=63, vectors=60)
    x, density = result.density(points=2000, width=0.05)
    assert np.trapezoid(density, x) == pytest.approx(1, abs=1e-3)
    smooth = np.exp(-0.5 * ((x[:, None] - true) / 0.05) ** 2).mean(1) / (0.05 * np.sqrt(2 * np.pi))
    assert np.trapezoid(np.abs(density - smooth), x) < 0.1
    frame = result.frame(points=64)
    assert list(frame.columns) == ["quantity", "index", "x", "value", "error"]
    assert frame["quantity"].value_counts().to_dict() == {"density": 64, "largest": 1, "smallest": 1, "trace": 1}
    assert frame[frame["quantity"] == "largest"]["value"].item() == result.largest[0]


def test_frozen_parameters_are_left_out_and_unused_ones_are_flat() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = small()
            self.unused = nn.Parameter(torch.ones(2, dtype=torch.float64))

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x)

    network, (images, labels) = Own(), batch()
    for parameter in network.body[0].parameters():
        parameter.requires_grad_(False)
    result = hessian(network, images, labels, count=2, steps=80, vectors=0, tolerance=1e-9)
    body = copy.deepcopy(network.body)
    true = np.linalg.eigvalsh(exact(body, images, labels))[::-1]
    assert result.parameters == 63 - 20 + 2
    np.testing.assert_allclose(result.largest, true[:2], rtol=1e-7)
    with measurement_mode(network) as lent:
        assert next(iter(trainable(lent))) == "unused"


def test_batch_statistics_are_differentiated_through() -> None:
    network, (images, labels) = small(), batch()
    true = np.linalg.eigvalsh(exact(network, images, labels, training=True))[::-1]
    result = hessian(network, images, labels, count=2, steps=80, vectors=0, tolerance=1e-9, batch_statistics=True)
    np.testing.assert_allclose(result.largest, true[:2], rtol=1e-7)
    assert result.largest[0] != pytest.approx(np.linalg.eigvalsh(exact(network, images, labels))[-1], rel=1e-3)


def test_a_loss_without_curvature_has_a_hessian_of_zeros() -> None:
    network = nn.Linear(16, 3).double()

    def mean(output: Tensor, _labels: Tensor) -> Tensor:
        return output.mean()

    images, labels = batch()
    result = hessian(network, images.flatten(1), labels, count=2, steps=5, vectors=2, loss=mean)
    assert (result.largest == 0).all() and (result.largest_error == 0).all() and result.trace == 0
    x, density = result.density()
    assert np.trapezoid(density, x) == pytest.approx(1, abs=1e-3)


def test_values_that_are_not_finite_are_nan() -> None:
    network, (images, labels) = small(), batch()
    with torch.no_grad():
        network[0].weight.fill_(float("inf"))
    result = hessian(network, images, labels, count=2, steps=5, vectors=2)
    assert np.isnan(result.largest).all() and result.largest.shape == (2,) and np.isnan(result.trace)


def test_lanczos_finds_repeated_eigenvalues_when_it_may_draw_again() -> None:
    random = torch.Generator().manual_seed(0)
    q, _ = torch.linalg.qr(torch.randn(6, 6, generator=random, dtype=torch.float64))
    values = torch.tensor([3.0, 3.0, 1.0, 0.0, 0.0, -2.0], dtype=torch.float64)
    matrix = q @ values.diag() @ q.T

    def draw() -> Tensor:
        return torch.randn(6, generator=random, dtype=torch.float64)

    found, errors = lanczos(lambda v: matrix @ v, draw(), 20, draw).ritz()
    np.testing.assert_allclose(found, np.sort(values), atol=1e-12)
    np.testing.assert_allclose(errors, 0, atol=1e-12)
    once, _ = lanczos(lambda v: matrix @ v, draw(), 20).ritz()
    # rounding may find the repeated ones too, on some processors
    np.testing.assert_allclose(np.unique(once.round(9)), [-2, 0, 1, 3], atol=1e-10)


def test_on_our_networks_by_seed_with_progress() -> None:
    images, labels = batch(classes=10)
    network = build(comparative_resnet(2), (1, 8, 8), 10, seed=0)
    images = F.interpolate(images, (8, 8))
    calls: list[tuple[int, int]] = []

    def note(done: int, total: int) -> None:
        calls.append((done, total))

    def once(seed: int) -> Hessian:
        calls.clear()
        return hessian(
            network,
            images,
            labels,
            steps=6,
            vectors=2,
            trace_vectors=5,
            seed=seed,
            progress=lambda *done: calls.append(done),
        )

    first, again, other = once(1), once(1), once(2)
    np.testing.assert_array_equal(first.largest, again.largest)
    assert first.trace == again.trace != other.trace
    assert calls[-1] == (23, 23) and calls == sorted(calls)


def test_what_cannot_be_measured_is_refused_in_one_line() -> None:
    network, (images, labels) = small(), batch()
    with pytest.raises(ProbeError, match="no parameter that requires a gradient"):
        hessian(network.requires_grad_(False), images, labels)
    with pytest.raises(ProbeError, match="11 labels for 12 images"):
        hessian(small(), images, labels[:-1])
    with pytest.raises(ProbeError, match="steps 2: expected at least 3"):
        hessian(small(), images, labels, count=3, steps=2)
