"""A first convolution that whitens patches of images: by its formula, in trials, and where it is impossible."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import leadline as ll
from leadline.api.probing import probe_trial
from leadline.cli import app
from leadline.data.batches import Dataset, load
from leadline.errors import SpecError, StoreError
from leadline.networks import cifar_resnet, mlp
from leadline.networks.modules import build
from leadline.networks.modules.whitening import EPSILON, find_first_convolution, images_to_read, whiten
from leadline.probes.snapshots import find_probe
from leadline.running.trial import init_network
from leadline.specs import DataSpec, NetworkSpec, TrainingSpec, TrialSpec, parse
from leadline.specs.study import StudySpec
from leadline.store import Store
from leadline.study.check import check_networks
from leadline.study.expand import expand
from leadline.training.initial_weights import set_initial_weights

DATA = {"name": "digits", "train": 200, "validation": 30, "test": 30}


@pytest.fixture(scope="module")
def digits() -> Dataset:
    data = load(DataSpec(**DATA))
    assert isinstance(data, Dataset)
    return data


def images(count: int = 64, channels: int = 3, size: int = 10) -> torch.Tensor:
    """Images whose neighbouring pixels and channels are correlated."""
    noise = torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(1))
    return noise.cumsum(2).cumsum(3).cumsum(1) / 10 + 0.3


@pytest.mark.parametrize(("kernel", "filters"), [((2, 2), 24), ((3, 3), 20), ((3, 2), 41), ((1, 1), 9)])
def test_filters_are_those_of_the_formula(kernel: tuple[int, int], filters: int) -> None:
    """Jordan 2024, section 3.2, spelled out over all patches one by one."""
    conv = nn.Conv2d(3, filters, kernel)
    before = conv.weight.detach().clone()
    seen = images()
    whiten(conv, seen)
    height, width = kernel
    patches = np.stack(
        [
            seen[:, :, top : top + height, left : left + width].reshape(len(seen), -1).numpy()
            for top in range(10 - height + 1)
            for left in range(10 - width + 1)
        ]
    ).reshape(-1, 3 * height * width)
    values, vectors = np.linalg.eigh(patches.T.astype(np.float64) @ patches / len(patches))
    used = min(filters // 2, len(values))
    expected = (vectors / np.sqrt(values + EPSILON)).T[::-1][:used]
    weight = conv.weight.detach().reshape(filters, -1).numpy()
    signs = np.sign((weight[:used] * expected).sum(1, keepdims=True))
    np.testing.assert_allclose(weight[:used], signs * expected, rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(weight[used : 2 * used], -weight[:used])
    assert torch.equal(conv.weight[2 * used :], before[2 * used :])


def test_outputs_are_uncorrelated_with_mean_square_one(digits: Dataset) -> None:
    conv = nn.Conv2d(1, 18, 3, bias=False)
    seen, _ = digits.sample("train", 200)
    whiten(conv, seen)
    outputs = conv(seen).detach()[:, :9].transpose(0, 1).reshape(9, -1)
    found = outputs @ outputs.T / outputs.shape[1]
    products = outputs.new_tensor(np.diag(np.diag(found.numpy())))
    torch.testing.assert_close(found, products, atol=1e-3, rtol=0)
    torch.testing.assert_close(found.diag(), torch.ones(9), atol=0.02, rtol=0)  # EPSILON of the smallest


def test_many_images_count_as_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = nn.Conv2d(3, 10, 3), nn.Conv2d(3, 10, 3)
    whiten(one, images())
    monkeypatch.setattr("leadline.networks.modules.whitening._AT_A_TIME", 20_000)
    whiten(two, images())
    torch.testing.assert_close(one.weight[:10], two.weight[:10], rtol=1e-4, atol=1e-5)


# --- in trials


def trial(seed: int = 0, network: NetworkSpec | None = None, **training: Any) -> TrialSpec:
    spec = (network or cifar_resnet(8)).model_dump(mode="json")
    given = {"epochs": 1, "batch_size": 50, "whitening": True, **training}
    return parse(TrialSpec, {"network": spec, "data": DATA, "training": given, "seed": seed})


def test_a_trial_starts_with_it_at_every_seed_and_draws_all_else(digits: Dataset) -> None:
    drawn, first, second = (
        init_network(spec, digits).state_dict() for spec in (trial(whitening=False), trial(), trial(seed=1))
    )
    assert torch.equal(first["stem.conv.weight"], second["stem.conv.weight"])
    changed = [name for name in drawn if not torch.equal(first[name], drawn[name])]
    assert changed == ["stem.conv.weight"]
    assert not torch.equal(first["head.linear.weight"], second["head.linear.weight"])


def test_it_stays_where_its_rate_is_zero_and_is_stored(tmp_path: Path, digits: Dataset) -> None:
    own = {"whitening": True, "rates": {"stem.conv": 0.0}}
    study = {
        "name": "whitened",
        "data": DATA,
        "training": {"epochs": 1, "batch_size": 50},
        "arms": {
            "whitened": {"network": {"family": "cifar-resnet", "depth": 8}, "training": own},
            "drawn": {"network": {"family": "cifar-resnet", "depth": 8}},
        },
        "seeds": 2,
    }
    file = tmp_path / "whitened.yaml"
    file.write_text(json.dumps(study))
    runs = tmp_path / "runs"
    result = CliRunner().invoke(app, ["run", str(file), "--runs", str(runs), "--workers", "0", "--device", "cpu"])
    assert result.exit_code == 0, result.output
    expected = init_network(trial(), digits).stem.conv.weight
    for seed in (0, 1):
        network = ll.Results("whitened", runs).network(arm="whitened", seed=seed)
        assert torch.equal(network.stem.conv.weight, expected)
    report = CliRunner().invoke(app, ["report", "whitened", "--runs", str(runs), "--output", str(tmp_path / "report")])
    assert report.exit_code == 0, report.output
    page = next((tmp_path / "report").glob("*.html")).read_text()
    assert "the first convolution whitens patches of the images" in page


def test_the_first_network_cannot_be_had_again_from_other_images(tmp_path: Path) -> None:
    def write(factor: float) -> None:
        pixels = (images(60, channels=1, size=8) * factor).numpy()
        np.savez(
            tmp_path / "own.npz", x_train=pixels, y_train=np.arange(60) % 2, x_test=pixels, y_test=np.arange(60) % 2
        )

    write(1.0)
    study = {
        "name": "own",
        "data": {"name": "npz", "path": str(tmp_path / "own.npz"), "normalise": "none", "validation": 10},
        "training": {"epochs": 1, "batch_size": 50, "whitening": True},
        "arms": {"one": {"network": {"family": "cifar-resnet", "depth": 8}}},
        "seeds": 1,
    }
    runs = tmp_path / "runs"
    ll.Study(**study).run(runs, workers=0)
    with Store.open(runs) as store:
        trial = store.trials_frame("own")["trial"].iloc[0]
        measure = partial(probe_trial, store, trial, find_probe("decomposition"), images=8, at_initialisation=True)
        measure()
        write(2.0)
        with pytest.raises(StoreError, match="first convolution before the first step is computed from them; restore"):
            measure()


def test_train_whitens_any_module(digits: Dataset) -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10))
    model(torch.zeros(1, 1, 8, 8))
    list(ll.train(model, digits, {"epochs": 1, "batch_size": 50, "whitening": True, "rates": {"0.weight": 0.0}}))
    assert torch.equal(model[0].weight[:2], -model[0].weight[2:])
    expected = nn.Conv2d(1, 4, 3)
    whiten(expected, digits.sample("train", 200)[0])
    assert torch.equal(model[0].weight, expected.weight)


def test_hashes_of_trials_without_it_are_as_before() -> None:
    assert "whitening" not in TrainingSpec().model_dump()
    assert trial().content_hash != trial(whitening=False).content_hash


# --- where it is impossible


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (mlp(hidden=1, width=8).model_dump(mode="json"), "whose first layer is a convolution of the image"),
        (cifar_resnet(8).model_dump(mode="json") | {"weight_standardisation": True}, "weight_standardisation removes"),
        (cifar_resnet(8).model_dump(mode="json") | {"stem": {"width": 1}}, "needs two filters or more"),
        (
            cifar_resnet(8).model_dump(mode="json") | {"stem": {"width": 8, "kernel": 9}},
            "images are 8x8; use a smaller",
        ),
    ],
)
def test_networks_that_it_does_not_fit_are_refused_before_training(network: dict[str, Any], message: str) -> None:
    plain = {"name": "one", "data": DATA, "training": {"whitening": True}, "arms": {"a": {"network": network}}}
    with pytest.raises(SpecError, match=rf"arm a: training\.whitening.*{message}"):
        check_networks(expand(parse(StudySpec, plain)))


def test_weights_from_a_file_and_whitening_exclude_each_other() -> None:
    with pytest.raises(SpecError, match="weights and whitening both say what the first convolution starts as"):
        trial(weights="start.safetensors")


class Backwards(nn.Module):
    """A network whose layers are not registered in the order in which they are applied."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(8, 10)
        self.unused = nn.Conv2d(3, 8, 3)
        self.first = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        maps = self.norm(self.first(x.contiguous(memory_format=torch.channels_last)))
        logits: torch.Tensor = self.classifier(maps.mean((2, 3)))
        return logits


def test_the_first_convolution_is_the_one_that_is_applied_to_the_image() -> None:
    model = Backwards()
    model.norm.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert find_first_convolution(model, (3, 8, 8)) is model.first
    assert model.training and not model.norm.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not model.first._forward_pre_hooks


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ([nn.Conv2d(4, 8, 3, groups=2)], "whose first layer is a convolution of the image itself"),
        ([nn.BatchNorm2d(4), nn.Conv2d(4, 8, 3)], "whose first layer is a convolution of the image itself"),
        ([nn.Linear(8, 8), nn.Conv2d(4, 8, 3)], "whose first layer is a convolution of the image itself"),
        ([nn.ReLU()], "whose first layer is a convolution of the image itself"),
        ([nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 8, 3))], "whose weight is parametrized"),
        ([nn.Conv2d(4, 8, 5, dilation=2, padding=4)], "patches of 9x9, and images are 8x8; use a smaller kernel"),
    ],
)
def test_first_layers_that_cannot_whiten(layers: list[nn.Module], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        find_first_convolution(nn.Sequential(*layers), (4, 8, 8))


def test_directions_along_which_images_do_not_vary_get_no_filter() -> None:
    grey = images(channels=1).expand(-1, 3, -1, -1)
    conv = nn.Conv2d(3, 20, 2)
    before = conv.weight.detach().clone()
    whiten(conv, grey)
    assert torch.equal(conv.weight[8:], before[8:])
    assert torch.equal(conv.weight[:4], -conv.weight[4:8])
    assert not torch.equal(conv.weight[:8], before[:8])


def test_patches_of_dilated_filters_are_dilated() -> None:
    conv = nn.Conv2d(3, 12, 3, dilation=2, bias=False)
    whiten(conv, images(256, size=12))
    outputs = conv(images(256, size=12)).detach()[:, :6].transpose(0, 1).reshape(6, -1)
    torch.testing.assert_close(outputs @ outputs.T / outputs.shape[1], torch.eye(6), atol=0.02, rtol=0)


def test_large_patches_are_taken_from_fewer_images() -> None:
    assert images_to_read(nn.Conv2d(3, 8, 2), (3, 32, 32)) == images_to_read(nn.Conv2d(3, 8, 3), (3, 32, 32)) == 5120
    assert images_to_read(nn.Conv2d(3, 8, 6), (3, 32, 32)) == 1280
    assert images_to_read(nn.Conv2d(3, 8, 16, 16), (3, 4096, 4096)) == 1


def test_images_of_all_classes_are_read_where_data_are_sorted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.repeat(np.arange(4), 50)
    pixels = np.broadcast_to(labels[:, None, None, None], (200, 1, 8, 8)).astype(np.float32)
    np.savez(tmp_path / "sorted.npz", x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)
    spec = {"name": "npz", "path": str(tmp_path / "sorted.npz"), "validation": 40, "normalise": "none"}
    data = load(parse(TrialSpec, {"network": {"module": "torch.nn:Identity"}, "data": spec}).data)
    seen: list[torch.Tensor] = []
    monkeypatch.setattr("leadline.training.initial_weights.whiten", lambda _, read: seen.append(read))
    monkeypatch.setattr("leadline.training.initial_weights.images_to_read", lambda *_: 40)
    set_initial_weights(build(cifar_resnet(8), data.shape, 4), TrainingSpec(whitening=True), data)
    assert torch.equal(seen[0][:, 0, 0, 0].unique(return_counts=True)[1], torch.full((4,), 10))
