"""The loss around a network: filter normalisation, values against moved copies, and lines between two models."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leadline.networks import cifar_resnet
from leadline.networks.modules import build
from leadline.probes.snapshots.landscape.measurement import along, between, direction, plane
from leadline.probes.state import ProbeError


def batch(count: int = 12, classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 1, 6, 6, generator=random, dtype=torch.float64)
    return images, torch.randint(0, classes, (count,), generator=random)


def small(seed: int = 1) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(144, 3)
        ).double()
        network(torch.randn(20, 1, 6, 6).double())  # running statistics of its own
        return network


def test_every_filter_of_a_direction_is_as_long_as_the_networks_own() -> None:
    network = small()
    step = direction(network, seed=3)
    assert set(step) == {"0.weight", "4.weight"}
    for name, moved in step.items():
        weight = network.get_parameter(name).detach()
        assert moved.shape == weight.shape
        np.testing.assert_allclose(moved.flatten(1).norm(dim=1), weight.flatten(1).norm(dim=1), rtol=1e-10)
        assert abs(F.cosine_similarity(moved.flatten(), weight.flatten(), dim=0)) < 0.6
    again, other, second = direction(network, 3), direction(network, 4), direction(network, 3, axis=1)
    assert all(torch.equal(step[name], again[name]) for name in step)
    assert not any(torch.equal(step[name], away[name]) for name in step for away in (other, second))


def test_a_filter_of_zeros_stays() -> None:
    network = small()
    with torch.no_grad():
        network[0].weight[2] = 0
    assert not direction(network)["0.weight"][2].any()


def measured(network: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float]:
    with torch.no_grad():
        output = network.eval()(images.clone())
    return F.cross_entropy(output, labels).item(), 100 * (output.argmax(1) != labels).double().mean().item()


def test_the_line_is_that_of_copies_with_their_weights_moved() -> None:
    network, (images, labels) = small(), batch()
    result = along(network, images, labels, span=0.7, points=5, seed=2, chunk=5)
    step = direction(network, 2)
    np.testing.assert_allclose(result.x, [-0.7, -0.35, 0, 0.35, 0.7], atol=1e-15)
    for index, distance in enumerate(result.x):
        moved = copy.deepcopy(network)
        with torch.no_grad():
            for name, part in step.items():
                moved.get_parameter(name).add_(distance * part)
        loss, error = measured(moved, images, labels)
        assert (result.loss[index], result.error[index]) == pytest.approx((loss, error), rel=1e-10)
    assert result.loss[2] == pytest.approx(measured(network, images, labels)[0], rel=1e-12)


def test_the_plane_holds_the_line() -> None:
    network, (images, labels) = small(), batch()
    calls: list[tuple[int, int]] = []
    flat = plane(network, images, labels, points=3, seed=2, progress=lambda *done: calls.append(done))
    line = along(network, images, labels, points=3, seed=2)
    assert flat.loss.shape == flat.error.shape == (3, 3) and calls == [(n, 9) for n in range(1, 10)]
    np.testing.assert_allclose(flat.loss[:, 1], line.loss, rtol=1e-12)
    first, second = direction(network, 2), direction(network, 2, axis=1)
    corner = copy.deepcopy(network)
    with torch.no_grad():
        for name in first:
            corner.get_parameter(name).add_(first[name] - second[name])
    assert flat.loss[2, 0] == pytest.approx(measured(corner, images, labels)[0], rel=1e-10)
    frame = flat.frame()
    assert list(frame.columns) == ["kind", "x", "y", "loss", "error"]
    row = frame[(frame["x"] == 1) & (frame["y"] == -1)].iloc[0]
    assert row["loss"] == flat.loss[2, 0] and np.isnan(flat.barrier)


def test_between_two_models_the_ends_are_the_models() -> None:
    first, second, (images, labels) = small(1), small(2), batch()
    result = between(first, images, labels, second, points=5, margin=0.5)
    np.testing.assert_allclose(result.x, [-0.5, 0, 0.5, 1, 1.5])
    for index, model in ((1, first), (3, second)):
        assert (result.loss[index], result.error[index]) == pytest.approx(measured(model, images, labels), rel=1e-12)
    middle = copy.deepcopy(first)
    mixed = {
        name: (value + second.state_dict()[name]) / 2 if value.is_floating_point() else value
        for name, value in first.state_dict().items()
    }
    middle.load_state_dict(mixed)
    assert result.loss[2] == pytest.approx(measured(middle, images, labels)[0], rel=1e-10)


def test_the_barrier_of_a_loss_that_is_known() -> None:
    """One weight, squared error: from w = -1 to w = 2 the loss is w^2, which never rises above its chord."""

    def model(weight: float) -> nn.Linear:
        line = nn.Linear(1, 1, bias=False).double()
        nn.init.constant_(line.weight, weight)
        return line

    images, labels = torch.ones(2, 1).double(), torch.zeros(2, 1).double()

    def square(output: Tensor, truth: Tensor) -> Tensor:
        return (output - truth).square().mean()

    def dome(output: Tensor, truth: Tensor) -> Tensor:
        return -square(output, truth)

    result = between(model(-1), images, labels, model(2), points=7, loss=square)
    np.testing.assert_allclose(result.loss, np.linspace(-1, 2, 7) ** 2, atol=1e-12)
    assert np.isnan(result.error).all() and result.barrier == pytest.approx(0, abs=1e-12)
    hill = between(model(-1), images, labels, model(2), points=7, loss=dome)
    # -w^2 lies most above the chord from -1 to -4 half-way, by (3/2)^2
    assert hill.barrier == pytest.approx(9 / 4)


def test_batch_statistics_take_the_place_of_running_ones() -> None:
    network, other, (images, labels) = small(1), small(2), batch()
    twin = copy.deepcopy(network).train()
    expected = F.cross_entropy(twin(images.clone()), labels).item()
    assert along(network, images, labels, points=3, batch_statistics=True).loss[1] == pytest.approx(expected, rel=1e-10)
    line = between(network, images, labels, other, points=2, batch_statistics=True)
    assert line.loss[0] == pytest.approx(expected, rel=1e-10)
    assert along(network, images, labels, points=3).loss[1] != pytest.approx(expected, rel=1e-6)


def test_on_our_networks() -> None:
    images, labels = batch(classes=10)
    network = build(cifar_resnet(8), (1, 6, 6), 10, seed=0)
    result = along(network, images, labels, points=3)
    assert np.isfinite(result.loss).all() and ((result.error >= 0) & (result.error <= 100)).all()
    assert result.loss[1] == pytest.approx(measured(network, images.float(), labels)[0], rel=1e-5)


def test_what_cannot_be_measured_is_refused_in_one_line() -> None:
    network, (images, labels) = small(), batch()
    with pytest.raises(ProbeError, match="11 labels for 12 images"):
        along(network, images, labels[:-1])
    with pytest.raises(ProbeError, match="points 1"):
        plane(network, images, labels, points=1)
    wider = nn.Sequential(*network[:4], nn.Linear(144, 4)).double()
    with pytest.raises(ProbeError, match=r"4\.(bias|weight) is .* in one model and .* in the other"):
        between(network, images, labels, wider)
