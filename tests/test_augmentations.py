"""Augmentations: what every one of them promises, their closed forms, label noise, and what is refused."""

import base64
import hashlib
import io
import itertools
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

import leadline as ll
from leadline.cli import app
from leadline.data import batches
from leadline.data.augmenting import EpochAugmentation
from leadline.data.batches import Dataset, Split, load
from leadline.data.label_noise import LabelNoise
from leadline.distributed.shard import Shard
from leadline.errors import SpecError
from leadline.networks import mlp
from leadline.networks.modules import build
from leadline.parts.augmentations import (
    AUGMENTATIONS,
    Augmentation,
    BatchAugmentation,
    DecodingAugmentation,
    MixingAugmentation,
    PixelAugmentation,
)
from leadline.parts.augmentations.auto_augment import AutoAugment, space, sub_policies
from leadline.parts.augmentations.cutmix import CutMix
from leadline.parts.augmentations.cutout import Cutout
from leadline.parts.augmentations.gaussian_noise import GaussianNoise
from leadline.parts.augmentations.mixup import Mixup
from leadline.parts.augmentations.mixup_or_cutmix import MixupOrCutMix
from leadline.parts.augmentations.numbers import draw_integers, draw_normal, to_uniform
from leadline.parts.augmentations.operations import PLACES, VALUES
from leadline.parts.augmentations.rand_augment import RandAugment
from leadline.parts.augmentations.random_erasing import RandomErasing
from leadline.parts.augmentations.trivial_augment import WIDE
from leadline.parts.losses.cross_entropy import CrossEntropy
from leadline.parts.tasks import task_of
from leadline.reports.settings import settings_table
from leadline.seeds import AUGMENT, Seed, stream
from leadline.specs import Augment, DataSpec, TrainingSpec, TrialSpec, parse
from leadline.specs.study import StudySpec
from leadline.study.check import check_networks
from leadline.study.expand import expand
from leadline.study.load import load_study
from leadline.training import TrainState, prepare, train

CPU = torch.device("cpu")
EVERY = {
    name: member() for name, member in AUGMENTATIONS.members().items() if not issubclass(member, DecodingAugmentation)
}
SETTINGS: list[Any] = [
    *EVERY.values(),
    RandomErasing(probability=1, value="mean"),
    RandAugment(operations=3, magnitude=5, fill=128),
    AutoAugment(policy="imagenet"),
    CutMix(alpha=0.5, probability=0.5),
    Mixup(alpha=0.2),
    MixupOrCutMix(mixup_alpha=1, probability=0.2),
    (RandAugment(), Augment(), Cutout(size=4), RandomErasing(), GaussianNoise(), CutMix()),
]


def made(augment: Any, count: int = 65, shape: tuple[int, int, int] = (3, 12, 10), **changes: Any) -> Dataset:
    """Random images in ten classes."""
    images = torch.randint(256, (count, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    split = Split(images, torch.arange(count) % 10)
    mean, scale = torch.full((1, shape[0], 1, 1), 120.0), torch.full((1, shape[0], 1, 1), 60.0)
    spec = DataSpec(augment=augment, **changes)
    return Dataset(spec, shape, 10, split, split, split, mean, scale)


def whole(found: Iterator[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    images, targets = zip(*found, strict=True)
    return torch.cat(images), torch.cat(targets)


def told(augment: Augmentation) -> str:
    return "+".join(each.called for each in augment) if isinstance(augment, tuple) else augment.called


def trial(**data: Any) -> TrialSpec:
    return parse(TrialSpec, {"network": {"module": "torch.nn:Identity"}, "data": {"name": "digits", **data}})


def by_hash(found: Iterator[tuple[Tensor, Tensor]]) -> str:
    """SHA-256 of an epoch."""
    digest = hashlib.sha256()
    for images, labels in found:
        digest.update(images.contiguous().numpy().tobytes() + labels.numpy().tobytes())
    return digest.hexdigest()


# --- what every augmentation promises


@pytest.mark.parametrize("shape", [(3, 20, 18), (1, 28, 28)], ids=["colour", "grey"])
@pytest.mark.parametrize("augment", SETTINGS, ids=told)
def test_what_becomes_of_a_sample_depends_on_seed_epoch_and_sample_alone(
    augment: Any, shape: tuple[int, int, int]
) -> None:
    data = made(augment, shape=shape)
    images, targets = whole(data.train_batches(1, 2, 32))
    assert images.dtype == torch.float32 and images.shape == (65, *shape) and images.isfinite().all()
    for size in (7, 64, 65):
        again = whole(data.train_batches(1, 2, size))
        assert torch.equal(images, again[0]) and torch.equal(targets, again[1])
    for seed, epoch in ((1, 3), (2, 2)):
        assert not torch.equal(images, whole(data.train_batches(seed, epoch, 32))[0])
    rest = whole(data.train_batches(1, 2, 16, first=3))
    assert torch.equal(images[48:], rest[0]) and torch.equal(targets[48:], rest[1])


@pytest.mark.parametrize("augment", SETTINGS, ids=told)
def test_processes_see_what_one_would(augment: Any) -> None:
    data = made(augment)
    shards = [list(data.take_shard(Shard(index, 2)).train_batches(1, 2, 32)) for index in range(2)]
    together = whole(part for parts in zip(*shards, strict=True) for part in parts)
    images, targets = whole(data.train_batches(1, 2, 32))
    assert torch.equal(images, together[0]) and torch.equal(targets, together[1])


@pytest.mark.parametrize("name", EVERY)
def test_an_image_does_not_depend_on_the_others_of_its_batch(name: str) -> None:
    augment, data = EVERY[name], made(None, count=40)
    numbers = augment.draw(40, 5)
    assert numbers.shape[0] == 40 and torch.equal(numbers, augment.draw(40, 5))
    if isinstance(augment, MixingAugmentation):
        images, others = torch.randn(40, 3, 12, 10), torch.randn(40, 3, 12, 10)
        mixed, share = augment.mix(images, others, numbers)
        for row in (slice(0, 1), slice(17, 20)):
            part = augment.mix(images[row], others[row], numbers[row])
            assert torch.equal(mixed[row], part[0]) and torch.equal(share[row], part[1])
        return
    assert isinstance(augment, PixelAugmentation | BatchAugmentation)
    images = data.train.images if isinstance(augment, PixelAugmentation) else torch.randn(40, 3, 12, 10)
    before = images.clone()
    changed = augment.apply(images, numbers)
    assert changed.dtype == images.dtype and changed.shape == images.shape and torch.equal(images, before)
    for row in (slice(0, 1), slice(17, 20), slice(39, 40)):
        assert torch.equal(changed[row], augment.apply(images[row], numbers[row]))


@pytest.mark.parametrize("name", EVERY)
def test_an_augmentation_is_written_and_read(name: str) -> None:
    asked = trial(augment=name)
    assert parse(TrialSpec, asked.model_dump(mode="json")) == asked
    assert asked.data.augmentations == (EVERY[name],)


def test_images_of_several_blocks_are_those_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    data = made((RandAugment(), Augment(), Mixup()))
    images, targets = whole(data.train_batches(0, 0, 8))
    monkeypatch.setattr(batches, "BLOCK_ON_CPU", 0)
    again = whole(data.train_batches(0, 0, 8))
    assert torch.equal(images, again[0]) and torch.equal(targets, again[1])


# --- lists


GOLDEN = {
    "a40c51c8091d36876343ae258bc7b3b7f636206822dd9264a7faa6e9c56e97f6": {"augment": {"pad": 4}},
    "621e91f1c68b0a4041ee733571bac88f977166f7d5aaf0af1273b7dc6becdd59": {"augment": {"pad": 2, "flip": False}},
    "dab112bf45d1d0c1182853fbc9d32cc51833a739d66defd1933123492d4b480b": {"augment": None},
    "4f8efb4a01192691f30abc37ea174ced2871c0144d39eb1e881374270b66cabf": {"augment": {"module": "shapes:fade"}},
    "277d6b5c278518029d013b435b104b70fc2e28f6940c93022d6e605bc7452f60": {"name": "imagefolder", "path": "x"},
    "ef6b053bbe5b832ad4f93729dfbafded75ecf93ee8007719fdfdf7b8cd4b97c3": {
        "name": "imagefolder",
        "path": "x",
        "augment": {"scale": [0.25, 1.0]},
    },
    "5b8e4d3b0f874b17e2bec5948b18282b031d460746f03bf3858e39466c2b0713": {
        "name": "imagefolder",
        "path": "x",
        "augment": {"pad": 1},
    },
}
"""Hashes from before there were lists -> data."""


@pytest.mark.parametrize("content_hash", GOLDEN)
def test_trials_of_one_augmentation_have_the_hash_that_they_had(content_hash: str) -> None:
    data = GOLDEN[content_hash]
    assert trial(**data).content_hash == content_hash
    if "augment" in data:
        one = [] if data["augment"] is None else [data["augment"]]
        assert trial(**{**data, "augment": one}).content_hash == content_hash
    assert trial(**data, label_noise=0).content_hash == content_hash


DIGESTS = {
    "auto-augment": "76aee4603d046b45",
    "color-jitter": "bd3ec4af4c318e67",
    "cutmix": "eebf21e6370031ee",
    "cutout": "09f9db45c3081120",
    "gaussian-noise": "5f75f069506bb03e",
    "mixup": "4f63c4cd42899d86",
    "mixup-or-cutmix": "b17109b1af65304c",
    "rand-augment": "df257a83a76766b6",
    "random-erasing": "f1573264a46d1a7b",
    "translation": "a811375a764b7711",
    "trivial-augment": "909834bbcb004e9d",
}
"""Augmentation -> the beginning of the digest of an epoch."""


def fade(images: Tensor, random: Tensor, most: float = 0.5) -> Tensor:
    return images * (1 - most * random[:, 0].view(-1, 1, 1, 1))


@pytest.mark.parametrize(
    ("augment", "digest"),
    [
        (Augment(pad=1), "d26386eb02c1a1e4eef2c2b44f8eb78e49b5f50f36648ad52c2396f75442b0f9"),
        (fade, "8c4b5f3781581019982292a4d3a8d67c5de2d8cac0d449c3b3a12cc32ce5b821"),
    ],
)
def test_one_augmentation_gives_the_bits_that_it_gave(augment: Any, digest: str) -> None:
    data = load(
        parse(
            TrialSpec,
            {"network": {"module": "torch.nn:Identity"}, "data": {"name": "digits", "train": 100, "augment": augment}},
        ).data
    )
    assert by_hash(data.train_batches(3, 2, 32)) == digest


@pytest.mark.parametrize("name", EVERY)
def test_an_augmentation_gives_the_bits_that_it_gave(name: str) -> None:
    """What changes them changes results: the member says so by its `revision`."""
    assert by_hash(made(EVERY[name]).train_batches(1, 2, 32))[:16] == DIGESTS[name]


def test_another_augmentation_changes_nothing_for_the_first() -> None:
    alone = whole(made(Augment()).train_batches(0, 1, 13))
    images, labels = whole(made((Augment(), Cutout(size=4))).train_batches(0, 1, 13))
    assert torch.equal(labels, alone[1]) and (images == 0).any() and ((images == alone[0]) | (images == 0)).all()
    cut = whole(made((RandAugment(magnitude=2), Augment(), Cutout(size=4))).train_batches(0, 1, 13))[0]
    assert torch.equal((cut == 0).all(1) | (images == 0).all(1), (cut == 0).all(1))


def test_custom_code_in_a_list_draws_from_a_stream_of_its_own() -> None:
    data = load(trial(train=50, augment=["translation", fade]).data)
    images, _ = whole(data.train_batches(0, 0, 50))
    moved, _ = whole(load(trial(train=50, augment="translation").data).train_batches(0, 0, 50))
    drawn = torch.rand(
        50, 16, generator=torch.Generator().manual_seed(stream(0, AUGMENT, 0, data.spec.augmentations[1].called))
    )
    order = torch.randperm(50, generator=torch.Generator().manual_seed(stream(0, "order", 0)))
    assert torch.allclose(images, fade(moved, drawn[order]))


# --- closed forms


def test_random_numbers_of_a_key() -> None:
    keys = torch.randint(2**62, (2000,), generator=torch.Generator().manual_seed(0))
    integers = draw_integers(keys, 9)
    assert integers.min() >= 0 and integers.max() < 2**62 and len(integers.unique()) == integers.numel()
    assert torch.equal(integers[:, :4], draw_integers(keys, 4))
    first = 0x1234567
    word = (first + 0x9E3779B97F4A7C15) % 2**64  # SplitMix64, written out
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB % 2**64
    assert draw_integers(torch.tensor([first]), 1).item() == (word ^ (word >> 31)) >> 2
    uniform, normal = to_uniform(integers), draw_normal(keys, 9)
    # means and variances within five standard errors
    assert uniform.min() >= 0 and uniform.max() < 1 and abs(uniform.mean() - 0.5) < 5 * (1 / 12 / 18000) ** 0.5
    assert abs(normal.mean()) < 5 / 18000**0.5 and abs(normal.var() - 1) < 5 * (2 / 18000) ** 0.5
    assert torch.equal(normal[:, :3], draw_normal(keys, 3))


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_mixup_is_a_mean_of_images_and_of_labels(alpha: float) -> None:
    data = made(Mixup(alpha=alpha), count=4000, shape=(1, 2, 2))
    drawn = EpochAugmentation(data.spec.augmentations, 0, 0, 4000, CPU)
    assert drawn.partners is not None
    images, targets = whole(data.train_batches(0, 0, 512))
    order = torch.randperm(4000, generator=torch.Generator().manual_seed(stream(0, "order", 0)))
    plain = (data.train.images.float() - data.mean) / data.scale
    share = (data.spec.augmentations[0].draw(4000, stream(0, AUGMENT, 0, "mixup"))[:, 1].float() / 2**24)[order]
    expected = share.view(-1, 1, 1, 1) * plain[order]
    expected += (1 - share).view(-1, 1, 1, 1) * plain[drawn.partners[order]]
    assert torch.equal(images, expected) and targets.dtype == torch.float32
    one_hot = F.one_hot(data.train.labels, 10)
    mixed = share[:, None] * one_hot[order] + (1 - share)[:, None] * one_hot[drawn.partners[order]]
    assert torch.allclose(targets, mixed) and torch.equal(targets.sum(1), torch.ones(4000))
    # of Beta(alpha, alpha): mean 1/2 and variance 1 / (8 alpha + 4), within five standard errors
    variance = 1 / (8 * alpha + 4)
    assert abs(share.mean() - 0.5) < 5 * (variance / 4000) ** 0.5 and abs(share.var() / variance - 1) < 0.1
    assert len(drawn.partners.unique()) == pytest.approx(4000 * (1 - np.exp(-1)), rel=0.05)


def test_the_partner_is_seen_as_it_is_itself_in_that_epoch() -> None:
    data = made((RandAugment(), Augment(), Mixup()), count=20)
    drawn = EpochAugmentation(data.spec.augmentations, 3, 1, 20, CPU)
    every = torch.arange(20)
    alone = drawn.view(data.train.images, every, every, data.mean, data.scale)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(stream(3, "order", 1)))
    share = (Mixup().draw(20, stream(3, AUGMENT, 1, "mixup"))[:, 1].float() / 2**24).view(-1, 1, 1, 1)[order]
    assert drawn.partners is not None
    expected = share * alone[order] + (1 - share) * alone[drawn.partners[order]]
    assert torch.equal(whole(data.train_batches(3, 1, 6))[0], expected)


def test_cutmix_weighs_labels_by_area() -> None:
    augment, count = CutMix(), 3000
    numbers = augment.draw(count, 0)
    mixed, share = augment.mix(torch.zeros(count, 1, 32, 24), torch.ones(count, 1, 32, 24), numbers)
    assert torch.allclose(1 - share, mixed.mean((1, 2, 3)), atol=1e-6)
    for image in mixed[:50, 0]:  # the replaced part is a rectangle
        rows, columns = image.amax(1).bool(), image.amax(0).bool()
        assert torch.equal(image.bool(), rows[:, None] & columns)
        assert len(torch.unique_consecutive(rows)) <= 3 and len(torch.unique_consecutive(columns)) <= 3
    half = CutMix(probability=0.5).mix(torch.zeros(count, 1, 32, 24), torch.ones(count, 1, 32, 24), numbers)[1]
    assert set(half[half < 1].tolist()) <= set(share.tolist()) and abs((half == 1).float().mean() - 0.5) < 0.05


def test_each_image_is_mixed_by_either() -> None:
    either, count = MixupOrCutMix(mixup_alpha=0.7, cutmix_alpha=2.0, probability=0.3), 3000
    found, images, partners = either.draw(count, 4), torch.rand(count, 3, 8, 6), torch.rand(count, 3, 8, 6)
    expected = []
    for one in (Mixup(alpha=0.7), CutMix(alpha=2.0)):
        numbers = one.draw(count, 4)  # which differ in the shares alone
        assert torch.equal(numbers[:, [0, 2, 3, 4]], found[:, [0, 2, 3, 4]])
        expected.append((*one.mix(images, partners, numbers), numbers[:, 1]))
    (blended, weight, _), (cut, share, _) = expected
    mixed, left = either.mix(images, partners, found)
    is_cut = torch.tensor([torch.equal(*pair) for pair in zip(mixed, cut, strict=True)])
    assert torch.equal(mixed[~is_cut], blended[~is_cut]) and torch.equal(left, torch.where(is_cut, share, weight))
    assert torch.equal(found[:, 1], torch.where(is_cut, expected[1][2], expected[0][2]))
    assert abs(is_cut.float().mean() - 0.3) < 5 * (0.3 * 0.7 / count) ** 0.5
    # the choice tells nothing of what is drawn for the mixture
    assert abs(torch.corrcoef(torch.stack([is_cut.double(), expected[1][2].double()]))[0, 1]) < 5 / count**0.5


def test_cutout_is_a_square_around_any_pixel() -> None:
    numbers = torch.tensor(list(itertools.product(range(9), range(7), [0])))
    for size in (1, 4, 5):
        cut = (Cutout(size=size).apply(torch.ones(63, 2, 9, 7), numbers) == 0)[:, 0]
        for (y, x, _), found in zip(numbers.tolist(), cut, strict=True):
            top, left = y - size // 2, x - size // 2
            expected = torch.zeros(9, 7, dtype=torch.bool)
            expected[max(0, top) : top + size, max(0, left) : left + size] = True
            assert torch.equal(found, expected)


def test_a_square_larger_than_the_images_is_refused() -> None:
    small, whole_side = DataSpec(name="digits", augment="cutout"), {"name": "cutout", "size": 8}
    with pytest.raises(SpecError, match="augment cutout: images of digits are 8x8, and a square of side 16 hides most"):
        load(small)
    assert load(small.with_(augment=whole_side)).spec.augment == Cutout(size=8)


def test_what_is_erased() -> None:
    augment, count = RandomErasing(probability=1, value="mean"), 4000
    numbers = augment.draw(count, 0)
    erased = (augment.apply(torch.ones(count, 2, 40, 30), numbers) == 0)[:, 0]
    tall, wide = erased.any(2).sum(1), erased.any(1).sum(1)
    assert torch.equal(erased.sum((1, 2)), tall * wide) and (tall > 0).all()
    fraction, ratio = tall * wide / 1200, tall / wide
    assert fraction.min() > 0.01 and 0.35 < fraction.max() < 0.43 and ratio.min() > 0.2 and ratio.max() < 4
    some = RandomErasing().apply(torch.full((count, 2, 40, 30), 9.0), numbers)
    changed = (some != 9).flatten(1).any(1)
    assert abs(changed.float().mean() - 0.5) < 0.05
    noise = some[some != 9]
    assert abs(noise.mean()) < 0.01 and abs(noise.std() - 1) < 0.01


def test_gaussian_noise_has_its_deviation() -> None:
    augment = GaussianNoise(deviation=0.3)
    noise = augment.apply(torch.full((500, 3, 8, 8), 2.0), augment.draw(500, 0)) - 2
    assert abs(noise.mean()) < 0.005 and noise.std().item() == pytest.approx(0.3, rel=0.01)


def test_operations_are_drawn_equally_often() -> None:
    augment, images = RandAugment(operations=1, magnitude=10), torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    names = [name for name, _ in augment.space(8, 8)]
    assert len(names) == len(set(names)) == 14 and {*names} == {name for name, _ in WIDE}
    assert {*names} - {"identity"} == {*PLACES, *VALUES} - {"invert"}
    assert {name for name, _ in space(8, 8)} == {*names, "invert"}
    assert augment.apply(images, augment.draw(1, 0)).shape == images.shape
    solarize = dict(augment.space(8, 8))["solarize"]
    assert solarize == (0, 0) and dict(RandAugment(magnitude=0).space(8, 8))["rotate"] == (0, 0)


def test_the_strongest_operations_are_those_of_the_papers() -> None:
    strongest = {name: magnitudes[9] for name, magnitudes in space(331, 331) if magnitudes}
    assert strongest == pytest.approx(
        {
            "auto-contrast": 0,
            "equalize": 0,
            "invert": 0,
            "posterize": 4,
            "solarize": 0,
            "shear-x": 0.3,
            "shear-y": 0.3,
            "translate-x": 150,
            "translate-y": 150,
            "rotate": 30,
            "brightness": 1.9,
            "colour": 1.9,
            "contrast": 1.9,
            "sharpness": 1.9,
        }
    )
    widest = {name: magnitudes[30] for name, magnitudes in WIDE if magnitudes}
    assert (widest["posterize"], widest["translate-x"], widest["rotate"]) == (2, 32, 135)
    assert (widest["shear-x"], widest["brightness"]) == pytest.approx((0.99, 1.99))


@pytest.mark.parametrize("policy", ["cifar10", "imagenet"])
def test_policies_have_25_pairs(policy: str) -> None:
    found, known = sub_policies(policy), {name for name, _ in space(8, 8)}
    assert len(found) == 25 and all(len(pair) == 2 for pair in found)
    for name, chance, level in itertools.chain(*found):
        assert name in known and 0 <= chance <= 1 and 0 <= level <= 9


def test_an_operation_is_applied_with_its_probability() -> None:
    """Of CIFAR-10's policy, what is certain never to happen does not, and what is rare is as rare as it should be."""
    augment, count = AutoAugment(), 20_000
    images = torch.full((count, 3, 4, 4), 200, dtype=torch.uint8)
    chosen = augment.draw(count, 0)
    chosen[:, 0] = 0  # invert with probability 0.1, then contrast, which leaves one colour as it is
    inverted = (augment.apply(images, chosen) == 55).flatten(1).all(1).float().mean()
    assert inverted.item() == pytest.approx(0.1, abs=0.01)


# --- targets


def test_the_loss_of_probabilities_is_that_of_labels_weighed() -> None:
    outputs, labels, others = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 0, 1]), torch.tensor([1, 1, 0, 2, 3, 0])
    targets = 0.7 * F.one_hot(labels, 4) + 0.3 * F.one_hot(others, 4)
    loss = CrossEntropy()
    for smoothing, reduction in itertools.product((0.0, 0.1), ("mean", "sum")):
        one, other = (loss.compute(outputs, each, reduction, smoothing) for each in (labels, others))  # type: ignore[arg-type]
        found = loss.compute(outputs, targets, reduction, smoothing)  # type: ignore[arg-type]
        assert torch.allclose(found, 0.7 * one + 0.3 * other, atol=1e-6)
    task = task_of("classification")
    assert task.count_right(outputs, targets) == task.count_right(outputs, labels)


RECIPE = TrainingSpec(epochs=2, batch_size=20, label_smoothing=0.1)
MODERN: dict[str, Any] = {
    "name": "digits",
    "train": 110,
    "validation": 30,
    "test": 30,
    "augment": ["trivial-augment", {"pad": 1}, "random-erasing", "cutmix"],
    "label_noise": {"rate": 0.3, "kind": "pair"},
}


def fresh() -> TrainState:
    return prepare(build(mlp(hidden=1, width=16), (1, 8, 8), 10, 0), RECIPE, CPU)


def test_a_training_that_stops_within_an_epoch_continues_to_the_same_bits() -> None:
    data = load(trial(**MODERN).data, seed=4)
    at_once, first, second = fresh(), fresh(), fresh()
    records = [record for record in train(at_once, data, RECIPE, 4) if record.split != "time"]
    for record in train(first, data, RECIPE, 4, pause=lambda step: step == 8):
        if record.split == "batch":
            break
    second.load(first.tensors(), first.step, first.epoch)
    rest = [record for record in train(second, data, RECIPE, 4) if record.split != "time"]
    assert rest == records[-len(rest) :]
    one, other = at_once.tensors(), second.tensors()
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# --- label noise


def test_labels_are_wrong_at_the_rate() -> None:
    labels = np.arange(20_000) % 10
    for rate in (0.2, 0.45, 1.0):
        noisy = LabelNoise(rate=rate).change(labels, 10, 0)
        steps = (noisy - labels) % 10
        assert np.mean(steps != 0) == pytest.approx(rate, abs=0.02)
        counts = np.bincount(steps, minlength=10)[1:]
        assert counts.min() > 0.85 * counts.mean() and counts.max() < 1.15 * counts.mean()
        paired = LabelNoise(rate=rate, kind="pair").change(labels, 10, 0)
        assert {0, 1} >= {*((paired - labels) % 10).tolist()} and np.array_equal(paired != labels, noisy != labels)
    less, more = (LabelNoise(rate=rate).change(labels, 10, 0) for rate in (0.2, 0.4))
    assert np.array_equal(less[less != labels], more[less != labels])
    assert not np.array_equal(less, LabelNoise(rate=0.2).change(labels, 10, 1))
    assert np.array_equal(LabelNoise(rate=1).change(np.arange(6) % 2, 2, 0), 1 - np.arange(6) % 2)


def test_only_training_labels_are_noisy() -> None:
    plain, noisy = (load(trial(**noise).data, seed=3) for noise in ({}, {"label_noise": 0.3}))
    assert isinstance(plain, Dataset) and isinstance(noisy, Dataset)
    assert torch.equal(plain.train.images, noisy.train.images) and torch.equal(plain.mean, noisy.mean)
    assert torch.equal(plain.validation.labels, noisy.validation.labels)
    assert torch.equal(plain.test.labels, noisy.test.labels)
    changed = (plain.train.labels != noisy.train.labels).float().mean().item()
    assert changed == pytest.approx(0.3, abs=0.05)
    asked = trial(label_noise=0.3)
    assert "split" in asked.sources and "split" not in trial().sources
    other = load(asked.data, seed=Seed(3, {"split": 9}))
    assert isinstance(other, Dataset) and not torch.equal(other.train.labels, noisy.train.labels)
    same = load(asked.data, seed=Seed(3, {"init": 9}))
    assert isinstance(same, Dataset) and torch.equal(same.train.labels, noisy.train.labels)


# --- what is refused


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"augment": ["translation", "rand-augment"]},
            "data.augment: rand-augment changes pixels .* follow translation, .*; place rand-augment first",
        ),
        ({"augment": ["mixup", "cutout"]}, "place cutout first"),
        ({"augment": ["cutout", "translation", "cutout"]}, "data.augment: cutout is in the list twice; name it once"),
        (
            {"augment": ["mixup", "cutmix"]},
            "data.augment: mixup and cutmix are both in the list; remove one of them, or use mixup-or-cutmix alone$",
        ),
        ({"augment": ["mixup-or-cutmix", "mixup"]}, "are both in the list; remove one of them$"),
        ({"augment": ["translation", "cutuot"]}, "data.augment.1.name: unknown name 'cutuot'; did you mean 'cutout'"),
        ({"augment": ["translation", {"name": "cutout", "sise": 3}]}, "data.augment.1: unknown key 'sise'"),
        ({"augment": {"size": 3}}, "data.augment: 'size' is a key of cutout; add name: cutout"),
        ({"augment": [{"cutout": {"size": 3}}]}, "data.augment: unknown key 'cutout'; write name: cutout"),
        ({"augment": {"name": "random-erasing", "area": [0.5, 0.1]}}, "the smallest comes first"),
        ({"label_noise": 2}, "data.label_noise: 2: input should be less than or equal to 1"),
        ({"label_noise": "some"}, "data.label_noise: 'some': input should be a valid number"),
        ({"label_noise": {"rate": 0.1, "kind": "pare"}}, "'symmetric' or 'pair'"),
    ],
)
def test_what_cannot_be_gets_one_line(data: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        trial(**data)
    assert "\n" not in str(caught.value)


def floats() -> ll.Arrays:
    images = np.random.default_rng(0).random((60, 3, 8, 8), dtype=np.float32)
    return ll.Arrays(train=(images[:40], np.arange(40) % 2), test=(images[40:], np.arange(20) % 2))


def planes() -> ll.Arrays:
    images = np.zeros((60, 4, 8, 8), np.uint8)
    return ll.Arrays(train=(images[:40], np.arange(40) % 2), test=(images[40:], np.arange(20) % 2))


def study(data: object, **training: Any) -> dict[str, Any]:
    return {"name": "own", "data": data, "training": training, "arms": {"a": {"network": "mlp"}}}


@pytest.mark.parametrize(("function", "message"), [(floats, "are float32"), (planes, "those of .* have 4")])
def test_pixels_that_there_are_not_are_refused_before_training(function: Any, message: str) -> None:
    plain = parse(TrialSpec, {"network": {"module": "torch.nn:Identity"}, "data": function}).data
    asked = plain.with_(augment="rand-augment")
    with pytest.raises(SpecError, match=f"augment rand-augment .*{message}"):
        load(asked)
    with pytest.raises(SpecError, match=f"arm a: data.augment rand-augment .*{message}"):
        check_networks(load_study(study(asked.model_dump(mode="json"))))


def test_floats_can_be_erased_and_mixed() -> None:
    asked = parse(TrialSpec, {"network": {"module": "torch.nn:Identity"}, "data": floats}).data
    data = load(
        asked.with_(augment=["translation", {"name": "cutout", "size": 4}, "random-erasing", "gaussian-noise", "mixup"])
    )
    images, targets = whole(data.train_batches(0, 0, 16))
    assert images.shape == (36, 3, 8, 8) and targets.shape == (36, 2)


def test_losses_and_tasks_that_take_no_probabilities() -> None:
    with pytest.raises(SpecError, match=r"mixup makes labels probabilities .* loss torch.nn:MultiMarginLoss does not"):
        parse(
            TrialSpec,
            {
                "network": {"module": "torch.nn:Identity"},
                "data": {"name": "digits", "augment": "mixup"},
                "training": {"loss": "torch.nn:MultiMarginLoss"},
            },
        )
    records = ll.train("mlp", {**MODERN, "augment": "cutmix"}, {"loss": "torch.nn:MultiMarginLoss"})
    with pytest.raises(SpecError, match="cutmix makes labels probabilities"):
        next(records)
    for data in ({"augment": "mixup"}, {"label_noise": 0.1}):
        with pytest.raises(SpecError, match="is for task classification"):
            trial(name="npz", path="a.npz", task={"module": "own:Regression"}, **data)


# --- encoded images


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for part, name, number in itertools.product(("train", "test"), ("one", "two"), range(20)):
        (root / part / name).mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / part / name / f"{number}.png")
    return root


@pytest.mark.parametrize("first", [(), ("resized-crop",)], ids=["centre", "crop"])
def test_encoded_images_are_augmented_as_those_in_memory(folder: Path, first: tuple[str, ...]) -> None:
    augment = [*first, "auto-augment", "color-jitter", "translation", "random-erasing", "mixup"]
    spec = trial(name="imagefolder", path=str(folder), size=16, augment=augment, label_noise=0.4).data
    data = load(spec)
    images, targets = whole(data.train_batches(1, 1, 11))
    again = whole(data.train_batches(1, 1, 4))
    assert torch.equal(images, again[0]) and torch.equal(targets, again[1]) and targets.shape == (36, 2)
    shards = [list(data.take_shard(Shard(index, 2)).train_batches(1, 1, 11)) for index in range(2)]
    together = whole(part for parts in zip(*shards, strict=True) for part in parts)
    assert torch.equal(images, together[0]) and torch.equal(targets, together[1])
    if first:
        return
    plain = load(spec.with_(augment=None))
    assert np.array_equal(plain.targets("train", range(36)), data.train.labels)  # type: ignore[attr-defined]
    pixels = plain.images("train", range(36)).contiguous()
    split = Split(pixels, torch.from_numpy(data.train.labels))  # type: ignore[attr-defined]
    memory = Dataset(spec, (3, 16, 16), 2, split, split, split, data.mean, data.scale)
    in_memory = whole(memory.train_batches(1, 1, 11))
    assert torch.equal(images, in_memory[0]) and torch.equal(targets, in_memory[1])
    assert not np.array_equal(data.train.labels, load(spec.with_(label_noise=None)).train.labels)  # type: ignore[attr-defined]
    assert replace(memory, shard=Shard(0, 1)).train_size == 36


def test_labels_of_one_class_have_no_noise(tmp_path: Path) -> None:
    for part, number in itertools.product(("train", "test"), range(12)):
        path = tmp_path / "images" / part / "only" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    data = {"name": "imagefolder", "path": str(tmp_path / "images"), "size": 8, "label_noise": 0.5}
    with pytest.raises(SpecError, match=r"label_noise replaces labels by other classes, and .*images has one class"):
        load(trial(**data).data)
    study = expand(parse(StudySpec, {"name": "one", "data": data, "arms": {"a": {"network": "cifar-resnet"}}}))
    with pytest.raises(SpecError, match=r"arm a: data\.label_noise replaces labels"):
        check_networks(study)


# --- what is shown


@pytest.mark.parametrize("augment", [None, "[trivial-augment, translation, cutmix]"], ids=["own", "asked"])
def test_a_sheet_of_training_images(augment: str | None, tmp_path: Path) -> None:
    asked = [] if augment is None else ["--augment", augment]
    path = tmp_path / "sheet.svg"
    command = ["data", "show", "digits", *asked, "--figure", str(path), "--samples", "3", "--epochs", "2"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0 and done.output == f"written: {path}\n"
    drawn = path.read_text()
    pictures = re.findall(r'href="data:image/png;base64,([^"]+)"', drawn)
    assert len(pictures) == 9 and re.findall(r'"bold">([^<]+)', drawn) == ["original", "epoch 1", "epoch 2"]
    pixels = [np.array(Image.open(io.BytesIO(base64.b64decode(one)))) for one in pictures]
    assert {one.shape for one in pixels} == {(96, 96, 3)}
    data = load(DataSpec())
    positions = [0, (data.train_size - 1) // 2, data.train_size - 1]
    for shown, image in zip(pixels, data.images("train", positions), strict=False):
        assert np.array_equal(shown[::12, ::12, 0], image[0].numpy())
    same = [np.array_equal(one, other) for one, other in zip(pixels[:3], pixels[3:6], strict=True)]
    assert same == [augment is None] * 3
    words = re.findall(r'"normal">([^<]+)', drawn)
    assert words[:3] == [str(int(one)) for one in data.targets("train", positions)]
    assert ("0." in "".join(words)) == (augment is not None)
    assert "image-rendering:pixelated" in drawn  # 12 pixels of the sheet for each of the image


def test_a_sheet_shows_the_class_without_label_noise_below_the_original(tmp_path: Path) -> None:
    path = tmp_path / "sheet.svg"
    command = ["data", "show", "{name: digits, label_noise: 1}", "--figure", str(path), "--samples", "4"]
    assert CliRunner().invoke(app, [*command, "--epochs", "2"]).exit_code == 0
    words = re.findall(r'"normal">([^<]+)', path.read_text())
    data = load(DataSpec())
    positions = np.linspace(0, data.train_size - 1, 4).astype(int).tolist()
    assert words[:4] == [str(int(one)) for one in data.targets("train", positions)]
    assert words[4:8] == words[8:] and all(one != other for one, other in zip(words[:4], words[4:8], strict=True))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--augment", "cutuot", "--figure", "a.png"], "unknown name 'cutuot'; did you mean 'cutout'"),
        (["--augment", "[translation, rand-augment]", "--figure", "a.png"], "place rand-augment first"),
        (["--figure", "a.txt"], "suffix '.txt' is not one of"),
        (["--figure", "nowhere/a.png"], "folder nowhere does not exist"),
    ],
)
def test_a_sheet_that_cannot_be_drawn(more: list[str], message: str) -> None:
    done = CliRunner().invoke(app, ["data", "show", "digits", *more])
    assert isinstance(done.exception, SpecError) and message in str(done.exception)
    assert "\n" not in str(done.exception)


def test_a_check_of_data_tells_label_noise() -> None:
    done = CliRunner().invoke(app, ["data", "check", "{name: digits, label_noise: {rate: 0.2, kind: pair}}"])
    said = "label noise: a training label is replaced by the next class with probability 0.2, at every seed anew"
    assert said in " ".join(done.output.split())
    assert "label noise" not in CliRunner().invoke(app, ["data", "check", "digits"]).output


def test_the_settings_of_a_report_name_what_is_done_to_data() -> None:
    asked = {"name": "digits", "augment": ["translation", {"name": "cutout", "size": 4}], "label_noise": 0.1}
    arms = {"plain": {"network": "mlp"}, "noisy": {"network": "mlp", "data": asked}}
    rows = {
        (row["setting"], row["arms"]): row["value"]
        for row in settings_table(load_study({"name": "a", "arms": arms})).rows
    }
    assert rows["Augmentation", "plain"] == "none" and rows["Label noise", "plain"] == "none"
    assert rows["Augmentation", "noisy"] == "translation (pad 4, flip yes); then cutout (size 4)"
    assert rows["Label noise", "noisy"] == "symmetric (rate 0.1)"
