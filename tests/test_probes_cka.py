"""Linear CKA: the estimator against its definition, its lack of bias by enumeration, and what CKA must not see."""

from itertools import combinations, permutations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from leadline.networks import cifar_resnet, comparative_plain
from leadline.networks.modules import build
from leadline.probes.snapshots.cka.measurement import cka, hsic
from leadline.probes.state import ProbeError


def images(count: int, *shape: int, seed: int = 0) -> Tensor:
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def small(seed: int = 1, width: int = 7) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Flatten(), nn.Linear(9, width), nn.ReLU(inplace=True), nn.Linear(width, 5), nn.Tanh(), nn.Linear(5, 3)
        ).double()


def grams(*features: np.ndarray) -> np.ndarray:
    return np.stack([x @ x.T for x in features])


def four_index_hsic(k: np.ndarray, el: np.ndarray) -> float:
    """The U-statistic that defines HSIC without bias: every ordered choice of different images (Song et al. 2012)."""
    n = len(k)
    pairs = sum(k[i, j] * el[i, j] for i, j in permutations(range(n), 2)) / (n * (n - 1))
    three = sum(k[i, j] * el[i, q] for i, j, q in permutations(range(n), 3)) / (n * (n - 1) * (n - 2))
    four = sum(k[i, j] * el[q, r] for i, j, q, r in permutations(range(n), 4)) / (n * (n - 1) * (n - 2) * (n - 3))
    return float(pairs + four - 2 * three)


def test_hsic_is_the_u_statistic() -> None:
    random = np.random.default_rng(0)
    k = grams(random.normal(size=(7, 3)), random.normal(size=(7, 2)))
    el = grams(random.normal(size=(7, 4)) + 5)
    result = hsic(k, el)
    assert result.shape == (2, 1)
    for row in range(2):
        assert result[row, 0] == pytest.approx(four_index_hsic(k[row], el[0]), rel=1e-10)


def test_the_mean_over_all_minibatches_is_the_full_batch_value() -> None:
    random = np.random.default_rng(1)
    x, y = random.normal(size=(8, 3)), random.normal(size=(8, 2))
    full = hsic(grams(x), grams(y))[0, 0]
    parts = [hsic(grams(x[list(c)]), grams(y[list(c)]))[0, 0] for c in combinations(range(8), 5)]
    assert np.mean(parts) == pytest.approx(full, rel=1e-10)
    assert np.std(parts) > abs(full) / 100


def plain_cka(x: np.ndarray, y: np.ndarray) -> float:
    k, el = grams(x), grams(y)
    return float((hsic(k, el) / np.sqrt(hsic(k, k) * hsic(el, el)))[0, 0])


def test_one_batch_of_all_images_is_the_exact_value_of_every_pair() -> None:
    network, other, x = small(), small(2, width=4), images(20, 1, 3, 3)
    result = cka(network, x, other, batch_size=20)
    assert result.rows == result.columns == ("0", "1", "2", "3", "4", "5")
    assert (result.batch_size, result.batches) == (20, 1)
    features = [[net[: i + 1](x).detach().flatten(1).numpy() for i in range(6)] for net in (network, other)]
    for row in range(6):
        for column in range(6):
            assert result.values[row, column] == pytest.approx(
                plain_cka(features[0][row], features[1][column]), rel=1e-8
            )


def test_minibatches_come_near_the_full_batch_value() -> None:
    network, x = small(), images(240, 1, 3, 3)
    full = cka(network, x, batch_size=240)
    parts = cka(network, x, batch_size=24, passes=8)
    assert (parts.batch_size, parts.batches) == (24, 80)
    np.testing.assert_allclose(parts.values, full.values, atol=0.02)
    np.testing.assert_allclose(np.diagonal(parts.values), 1, rtol=1e-10)
    np.testing.assert_allclose(parts.values, parts.values.T, rtol=1e-10)


def test_minibatches_are_averaged_before_the_ratio_is_taken() -> None:
    network, x = small(), images(12, 1, 3, 3)
    result = cka(network, x, layers=["1", "5"], batch_size=6)
    # two halves make one pass, in whatever order: find the split that gives the value
    features = [network[: i + 1](x).detach().flatten(1).numpy() for i in (1, 5)]

    def of(split: list[list[int]]) -> float:
        cross, first, second = (
            sum(float(hsic(grams(features[a][half]), grams(features[b][half]))[0, 0]) for half in split)
            for a, b in ((0, 1), (0, 0), (1, 1))
        )
        return float(cross / np.sqrt(first * second))

    splits = [[list(half), [i for i in range(12) if i not in half]] for half in combinations(range(12), 6)]
    assert min(abs(of(split) - result.values[0, 1]) for split in splits) < 1e-10


def test_rotation_scale_and_shift_are_not_seen() -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            q, _ = torch.linalg.qr(images(9, 9, seed=3))
            self.turn = nn.Linear(9, 9).double()
            with torch.no_grad():
                self.turn.weight.copy_(1e-25 * q)
                self.turn.bias.fill_(1e-20)

        def forward(self, x: Tensor) -> Tensor:
            return self.turn(x.flatten(1))

    result = cka(nn.Flatten(), images(30, 1, 3, 3), Turned(), layers="Flatten")
    assert result.values[0, 0] == pytest.approx(1, rel=1e-6)


def test_independent_features_are_unlike_on_average() -> None:
    values = [cka(nn.Flatten(), images(40, 5, seed=s), Drawn(s), layers="Flatten").values[0, 0] for s in range(40)]
    assert abs(np.mean(values)) < 4 * np.std(values, ddof=1) / np.sqrt(40)


class Drawn(nn.Module):
    """Features that have nothing to do with the images."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed
        self.out = nn.Flatten()

    def forward(self, x: Tensor) -> Tensor:
        return self.out(images(len(x), 5, seed=1000 + self.seed))


def test_a_layer_that_is_constant_is_like_nothing() -> None:
    network = small()
    with torch.no_grad():
        network[3].weight.zero_()
    values = cka(network, images(20, 1, 3, 3)).values
    assert np.isnan(values[3]).all() and np.isnan(values[:, 3]).all()
    assert np.isfinite(values[:3, :3]).all()


def test_our_networks_beside_each_other() -> None:
    x = images(24, 1, 8, 8).float()
    plain, residual = (build(spec, (1, 8, 8), 10, seed=0) for spec in (comparative_plain(3), cifar_resnet(8)))
    result = cka(plain, x, residual, batch_size=8)
    assert result.rows[:3] == ("stages.0.0", "stages.0.1", "stages.0.2") and result.rows[-1].startswith("head")
    assert result.columns[:4] == ("stem", "stages.0.0", "stages.1.0", "stages.2.0")
    frame = result.frame()
    assert list(frame.columns) == ["row", "column", "row_depth", "column_depth", "cka"]
    cell = frame[(frame["row"] == "stages.0.1") & (frame["column"] == "stages.1.0")].iloc[0]
    assert cell["cka"] == result.values[1, 2] and (cell["row_depth"], cell["column_depth"]) == (1, 2)


def test_repeats_by_seed_and_shows_progress() -> None:
    network, x, calls = small(), images(30, 1, 3, 3), []
    first = cka(network, x, batch_size=7, passes=2, seed=1, progress=lambda *done: calls.append(done))
    np.testing.assert_array_equal(first.values, cka(network, x, batch_size=7, passes=2, seed=1).values)
    assert (first.values != cka(network, x, batch_size=7, passes=2, seed=2).values).any()
    assert calls == [(n, 8) for n in range(1, 9)]


def test_what_cannot_be_measured_is_refused_in_one_line() -> None:
    with pytest.raises(ProbeError, match="at least 4"):
        cka(small(), images(3, 1, 3, 3))
    with pytest.raises(ProbeError, match="batch_size 3"):
        cka(small(), images(9, 1, 3, 3), batch_size=3)
