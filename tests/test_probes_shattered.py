"""Shattered gradients: against plain loops, and decay with depth against the theory of wide networks."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from leadline.networks import cifar_resnet, comparative_resnet
from leadline.networks.modules import build
from leadline.probes.snapshots.shattered.measurement import expected_correlation, shattered
from leadline.probes.state import ProbeError


def images(count: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def small() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(
            nn.Flatten(), nn.Linear(9, 7), nn.ReLU(inplace=True), nn.Linear(7, 7), nn.Tanh(), nn.Linear(7, 3)
        ).double()


def test_gradients_are_those_of_each_point_alone() -> None:
    network, x = small(), images(4, 1, 3, 3)
    result = shattered(network, x, points=6, output=2, layers=["3"], chunk=4)
    assert result.places == ("images", "3")
    np.testing.assert_allclose(result.positions, np.arange(6) / 5, rtol=1e-12)
    covariance, correlation = np.zeros((2, 6, 6)), np.zeros((2, 6, 6))
    for line, (first, second) in enumerate(((x[0], x[1]), (x[2], x[3]))):
        at: list[list[np.ndarray]] = [[], []]
        for t in range(6):
            point = (first + (second - first) * t / 5)[None].requires_grad_()
            entered = network[:3](point.clone())
            output = network[3:](entered)[0, 2]
            for place, gradient in enumerate(torch.autograd.grad(output, [point, entered])):
                at[place].append(gradient.flatten().numpy())
        assert result.slopes[line] == pytest.approx([g @ (second - first).flatten().numpy() for g in at[0]])
        for place in range(2):
            for i in range(6):
                for j in range(6):
                    a, b = at[place][i], at[place][j]
                    covariance[place, i, j] += a @ b / len(a) / 2
                    correlation[place, i, j] += a @ b / np.sqrt(a @ a * (b @ b)) / 2
    np.testing.assert_allclose(result.covariance, covariance, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(result.correlation, correlation, rtol=1e-9)
    unlike = [correlation[0, i, j] for i in range(6) for j in range(6) if i != j]
    assert result.mean_correlation[0] == pytest.approx(np.mean(unlike))
    for lag in range(6):
        apart = [correlation[1, i, i + lag] for i in range(6 - lag)]
        assert result.by_distance[1, lag] == pytest.approx(np.mean(apart))


def test_the_autocorrelation_is_the_textbook_one() -> None:
    result = shattered(small(), images(4, 1, 3, 3), points=9)
    expected = np.zeros(9)
    for slopes in result.slopes:
        centred = slopes - slopes.mean()
        expected += np.correlate(centred, centred, "full")[8:] / (centred @ centred) / 2
    np.testing.assert_allclose(result.autocorrelation, expected, rtol=1e-9, atol=1e-12)


def test_a_linear_map_never_shatters_and_its_slope_is_constant() -> None:
    result = shattered(nn.Linear(4, 3).double(), images(2, 4), points=5, layers=[])
    np.testing.assert_allclose(result.correlation, 1, rtol=1e-12)
    np.testing.assert_allclose(result.slopes, result.slopes[0, 0], rtol=1e-12)


def layered(kind: str, depth: int, width: int, seed: int) -> nn.Module:
    """He-initialised rectifier layers on flat inputs, plain or residual, which theory speaks of."""

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(width, width, bias=False)
            nn.init.normal_(self.linear.weight, std=(2 / width) ** 0.5)

        def forward(self, x: Tensor) -> Tensor:
            y = self.linear(torch.relu(x)) if kind == "residual" else torch.relu(self.linear(x))
            return x + y if kind == "residual" else y

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(*[Layer() for _ in range(depth)])


def wide_limit(kind: str, line: np.ndarray, depth: int) -> np.ndarray:
    """Correlation of gradients at every layer's input in the limit of wide layers: depth x points x points.

    Rectified Gaussians at the angle t share 1 - t/pi of their active units, and have the product
    (sin t + (pi - t) cos t) / pi of that of their norms (Cho & Saul 2009, equations 3 and 6).
    """
    k = line @ line.T
    shared = []
    for _ in range(depth):
        norms = np.sqrt(np.diagonal(k))
        angle = np.arccos(np.clip(k / np.outer(norms, norms), -1, 1))
        shared.append(1 - angle / np.pi)
        rectified = np.outer(norms, norms) * (np.sin(angle) + (np.pi - angle) * np.cos(angle)) / np.pi
        k = k + rectified if kind == "residual" else rectified
    factors = np.array(shared) if kind == "plain" else (1 + np.array(shared)) / 2
    return np.cumprod(factors[::-1], 0)[::-1]


@pytest.mark.parametrize("kind", ["plain", "residual"])
def test_gradients_shatter_with_depth_as_theory_has_it_for_wide_layers(kind: str) -> None:
    depth, width, draws, x = 6, 256, 24, images(2, 256).float()
    names = [str(number) for number in range(depth)]
    results = [shattered(layered(kind, depth, width, s), x, points=4, layers=names, seed=s) for s in range(draws)]
    measured = np.stack([result.correlation[1:] for result in results])
    line = (x[0] + (x[1] - x[0]) * torch.linspace(0, 1, 4)[:, None]).numpy()
    expected = wide_limit(kind, line, depth)
    # four standard errors over the draws of weights, and what is left of the order of depth over width
    allowed = 4 * measured.std(0, ddof=1) / draws**0.5 + depth / width
    assert (np.abs(measured.mean(0) - expected) < allowed).all() and allowed.max() < 0.15
    unlike = np.mean([result.mean_correlation[1:] for result in results], 0)
    assert (np.diff(unlike) > 0).all()  # the fewer layers there are to come back through, the more alike
    # points of a line are more alike than the inputs of the paper's theorems
    assert unlike[0] > expected_correlation(depth, kind)


def test_one_layer_halves_the_covariance_of_unlike_inputs() -> None:
    """The step of theory's recursion: two inputs that are orthogonal share half of their active units."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layer = nn.Sequential(nn.Linear(400, 4000, bias=False), nn.ReLU())
        nn.init.normal_(layer[0].weight, std=(2 / 400) ** 0.5)
    ends = torch.zeros(2, 400)
    ends[0, 0] = ends[1, 1] = 1
    result = shattered(layer, ends, points=2, layers=[])
    assert result.correlation[0, 0, 1] == pytest.approx(expected_correlation(1, "plain"), abs=0.05)


def test_the_curves_of_theory() -> None:
    assert expected_correlation(0, "plain") == expected_correlation(0, "residual-normalised") == 1
    assert expected_correlation(3, "plain") == 1 / 8
    assert expected_correlation(2, "residual") == 9 / 16
    assert expected_correlation(1, "residual-normalised") == pytest.approx(3 / 4)
    # the recursion written out for three blocks: factors (1 + s/2) / (1 + s) for s = 1, 1/2, 1/3
    assert expected_correlation(3, "residual-normalised") == pytest.approx(1.5 / 2 * 1.25 / 1.5 * (7 / 6) / (4 / 3))
    products = [expected_correlation(layers, "residual-normalised") * layers**0.5 for layers in (1000, 4000)]
    assert products[0] == pytest.approx(products[1], rel=1e-3)


def test_on_our_networks_with_and_without_batch_statistics() -> None:
    x = images(4, 1, 8, 8).float()
    network = build(comparative_resnet(3), (1, 8, 8), 10, seed=0)
    result = shattered(network, x, points=8)
    assert result.places == ("images", "stages.0.0", "stages.0.1", "stages.0.2")
    assert result.correlation.shape == (4, 8, 8) and np.isfinite(result.correlation).all()
    np.testing.assert_allclose(np.diagonal(result.correlation, 0, 1, 2), 1, rtol=1e-6)
    frame = result.frame()
    assert list(frame.columns) == ["place", "depth", "blocks_to_output", "distance", "correlation"]
    assert frame.groupby("place", sort=False)["blocks_to_output"].first().tolist() == [3, 3, 2, 1]
    assert frame[(frame["place"] == "images")]["correlation"].iloc[2] == result.by_distance[0, 2]
    normalised = build(cifar_resnet(8), (1, 8, 8), 10, seed=0)
    running, own = (shattered(normalised, x, points=8, batch_statistics=flag) for flag in (False, True))
    assert (running.correlation != own.correlation).any()


def test_repeats_by_seed_and_shows_progress() -> None:
    network, x, calls = small(), images(4, 1, 3, 3), []
    first = shattered(network, x, points=7, chunk=3, seed=1, progress=lambda *done: calls.append(done))
    again = shattered(network, x, points=7, chunk=3, seed=1)
    np.testing.assert_array_equal(first.covariance, again.covariance)
    assert (shattered(network, x, points=7, seed=2).covariance != first.covariance).any()
    np.testing.assert_allclose(
        shattered(network, x, points=7, chunk=64, seed=1).covariance, first.covariance, rtol=1e-10
    )
    assert calls == [(n, 6) for n in range(1, 7)]


def test_what_cannot_be_measured_is_refused_in_one_line() -> None:
    network, x = small(), images(4, 1, 3, 3)
    with pytest.raises(ProbeError, match="pairs of ends"):
        shattered(network, x[:3])
    with pytest.raises(ProbeError, match="output 3"):
        shattered(network, x, output=3)
    with pytest.raises(ProbeError, match="points 1"):
        shattered(network, x, points=1)


def test_gradients_that_are_zero_have_no_correlation() -> None:
    network = small()
    with torch.no_grad():
        network[5].weight.zero_()
    assert np.isnan(shattered(network, images(2, 1, 3, 3), points=4).mean_correlation).all()
