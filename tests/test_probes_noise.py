"""Gradient noise: against per-image gradients written out, without bias by enumeration, and on known populations."""

from itertools import combinations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leadline.networks import cifar_resnet
from leadline.networks.modules import build
from leadline.probes.snapshots.noise.measurement import gradient_noise
from leadline.probes.state import ProbeError


def batch(count: int = 12, classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 1, 4, 4, generator=random, dtype=torch.float64)
    return images, torch.randint(0, classes, (count,), generator=random)


def small() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(
            nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(8, 3)
        ).double()


def per_image(network: nn.Module, images: Tensor, labels: Tensor) -> dict[str, np.ndarray]:
    """Gradients of single images, by layer: images x parameters."""
    network = network.eval()
    parameters = dict(network.named_parameters())
    rows: dict[str, list[np.ndarray]] = {}
    for image, label in zip(images, labels, strict=True):
        loss = F.cross_entropy(network(image[None].clone()), label[None])
        of_layer: dict[str, list[np.ndarray]] = {}
        for name, gradient in zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True):
            of_layer.setdefault(name.rpartition(".")[0], []).append(gradient.flatten().numpy())
        for layer, parts in of_layer.items():
            rows.setdefault(layer, []).append(np.concatenate(parts))
    return {layer: np.stack(parts) for layer, parts in rows.items()}


def test_single_images_give_the_sample_covariance() -> None:
    network, (images, labels) = small(), batch()
    result = gradient_noise(network, images, labels, batch_size=1)
    assert result.layers == ("0", "1", "4") and result.parameters == (20, 4, 27)
    for layer, gradients in per_image(network, images, labels).items():
        index = result.layers.index(layer)
        variance = gradients.var(0, ddof=1).sum()
        assert result.noise[index] == pytest.approx(variance, rel=1e-9)
        # |mean|^2 is too long by the mean's own variance
        signal = (gradients.mean(0) ** 2).sum() - variance / 12
        assert result.signal[index] == pytest.approx(signal, rel=1e-9)
        ratio = np.sqrt(max(signal, 0) / variance)
        assert result.signal_to_noise[index] == pytest.approx(ratio, rel=1e-9)


def test_the_mean_over_all_ways_to_make_batches_is_the_value_of_single_images() -> None:
    """Batches only group the images, so their estimates scatter around that of single images, not beside it."""
    network, (images, labels) = small(), batch(6)
    single = gradient_noise(network, images, labels, batch_size=1)
    gradients = np.concatenate(list(per_image(network, images, labels).values()), 1)
    noise, signal = [], []
    for half in combinations(range(6), 3):
        means = np.stack([gradients[list(half)].mean(0), gradients[[i for i in range(6) if i not in half]].mean(0)])
        small_norm, big_norm = (means**2).sum(1).mean(), (means.mean(0) ** 2).sum()
        noise.append((small_norm - big_norm) / (1 / 3 - 1 / 6))
        signal.append((6 * big_norm - 3 * small_norm) / (6 - 3))
    assert np.mean(noise) == pytest.approx(single.noise.sum(), rel=1e-9)
    assert np.mean(signal) == pytest.approx(single.signal.sum(), rel=1e-9)
    result = gradient_noise(network, images, labels, batch_size=3)
    distances = [abs(n - result.noise.sum()) + abs(s - result.signal.sum()) for n, s in zip(noise, signal, strict=True)]
    assert min(distances) < 1e-10 and result.batches == 2


def test_a_population_whose_noise_scale_is_known() -> None:
    """One weight w at 0, loss -w x: an image's gradient is -x, with mean -m and variance s^2, so B = s^2 / m^2."""

    def pull(output: Tensor, _labels: Tensor) -> Tensor:
        return -output.mean()

    line = nn.Linear(1, 1, bias=False).double()
    nn.init.zeros_(line.weight)
    images = 0.5 + 2 * torch.randn(200_000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    result = gradient_noise(line, images, images, batch_size=200, loss=pull)
    assert result.layers == ("Linear",) and result.batches == 1000
    assert result.noise_scale == pytest.approx(4 / 0.25, rel=0.2)
    assert result.signal_to_noise[0] == pytest.approx(0.5 / np.sqrt(4 / 200), rel=0.1)
    assert result.noise_scale == pytest.approx(200 / result.signal_to_noise[0] ** 2, rel=1e-12)


def test_noise_that_drowns_the_signal_and_signal_without_noise() -> None:
    images, labels = batch(4)
    network = small()
    same = gradient_noise(network, images[:1].repeat(8, 1, 1, 1), labels[:1].repeat(8), batch_size=2)
    np.testing.assert_allclose(same.noise, 0, atol=1e-14)
    assert abs(same.noise_scale) < 1e-12

    def pull(output: Tensor, truth: Tensor) -> Tensor:
        return (output[:, 0] * truth).mean()

    opposite = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    line = nn.Linear(1, 1, bias=False).double()
    drowned = gradient_noise(line, torch.ones(4, 1).double(), opposite, batch_size=1, loss=pull)
    assert drowned.signal[0] < 0 and drowned.signal_to_noise[0] == 0 and drowned.noise_scale == np.inf
    still = gradient_noise(line, torch.zeros(4, 1).double(), opposite, batch_size=1, loss=pull)
    assert np.isnan(still.noise_scale) and np.isnan(still.signal_to_noise[0])


def test_batch_statistics_are_those_of_each_batch() -> None:
    network, (images, labels) = small(), batch()
    running, own = (gradient_noise(network, images, labels, batch_size=6, batch_statistics=b) for b in (False, True))
    twin = small().train()
    for half in combinations(range(12), 6):
        halves = [list(half), [i for i in range(12) if i not in half]]
        gradients = []
        for rows in halves:
            loss = F.cross_entropy(twin(images[rows]), labels[rows])
            gradients.append(torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(twin.parameters()))]))
        difference = (gradients[0] - gradients[1]).square().sum().item() / 4
        if own.noise.sum() == pytest.approx(difference / (1 / 6 - 1 / 12), rel=1e-9):
            break
    else:
        pytest.fail("no split of the images into halves gives this noise")
    assert running.noise.sum() != pytest.approx(own.noise.sum(), rel=1e-3)


def test_on_our_networks_by_seed_with_progress_and_a_long_frame() -> None:
    images, labels = batch(22, classes=10)
    images = F.interpolate(images, (8, 8))
    network = build(cifar_resnet(8), (1, 8, 8), 10, seed=0)
    calls: list[tuple[int, int]] = []
    first = gradient_noise(network, images, labels, batch_size=5, seed=1, progress=lambda *done: calls.append(done))
    again = gradient_noise(network, images, labels, batch_size=5, seed=1)
    other = gradient_noise(network, images, labels, batch_size=5, seed=2)
    np.testing.assert_array_equal(first.signal, again.signal)
    assert (first.signal != other.signal).any() and calls == [(n, 4) for n in range(1, 5)]
    assert sum(first.parameters) == sum(parameter.numel() for parameter in network.parameters())
    frame = first.frame()
    assert list(frame.columns) == ["layer", "depth", "quantity", "value"]
    assert len(frame) == (len(first.layers) + 1) * 4
    total = frame[(frame["layer"] == "all") & (frame["quantity"] == "noise_scale")]["value"].item()
    assert total == first.noise_scale


def test_what_cannot_be_measured_is_refused_in_one_line() -> None:
    network, (images, labels) = small(), batch()
    with pytest.raises(ProbeError, match="at least two full batches"):
        gradient_noise(network, images, labels, batch_size=7)
    with pytest.raises(ProbeError, match="11 labels for 12 images"):
        gradient_noise(network, images, labels[:-1], batch_size=2)
    with pytest.raises(ProbeError, match="no parameter that requires a gradient"):
        gradient_noise(network.requires_grad_(False), images, labels, batch_size=2)
