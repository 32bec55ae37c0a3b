"""Batches: fixed splits, nested subsets, and images that depend on nothing but seed, epoch and sample."""

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import sklearn.datasets  # noqa: F401 - importing it draws on Python's generator, once
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from leadline.data import batches
from leadline.data.arrays import Arrays
from leadline.data.batches import Dataset, Split, load
from leadline.data.datasets.digits import Digits
from leadline.data.datasets.mnist import MNIST
from leadline.data.pixels import normalisation
from leadline.data.split import stratified_order
from leadline.errors import DataError
from leadline.seeds import AUGMENT, ORDER, SUBSET, stream
from leadline.specs import Augment, DataSpec


@pytest.fixture(autouse=True)
def _global_generators_stay_untouched() -> Iterator[None]:
    """No test of this file may find that anything drew on a global generator."""
    before = (torch.get_rng_state(), np.random.get_state())  # noqa: NPY002
    yield
    assert torch.equal(before[0], torch.get_rng_state())
    assert str(before[1]) == str(np.random.get_state())  # noqa: NPY002


def test_pythons_own_generator_stays_untouched() -> None:
    """In a process of its own, for the types that are checked in this one are checked with random numbers."""
    code = """
        import random
        from leadline.data.batches import load
        from leadline.specs import Augment, DataSpec
        load(DataSpec())  # imports what it needs
        before = random.getstate()
        data = load(DataSpec(train=100, augment=Augment()))
        assert len(list(data.train_batches(0, 0, 10))) == 10 and random.getstate() == before
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def toy(count: int = 37, shape: tuple[int, int, int] = (3, 5, 6), augment: Augment | None = None) -> Dataset:
    """A data set whose images tell which sample they are: the label is the sample's position."""
    generator = torch.Generator().manual_seed(count)
    images = torch.randint(0, 256, (count, *shape), generator=generator, dtype=torch.uint8)
    split = Split(images, torch.arange(count))
    mean, scale = normalisation(iter([images]), "channel", shape[0])
    return Dataset(
        spec=DataSpec(augment=augment),
        shape=shape,
        classes=count,
        train=split,
        validation=split,
        test=split,
        mean=mean,
        scale=scale,
    )


def whole(batches: Iterator[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


def keys(split: Split) -> set[bytes]:
    return {image.numpy().tobytes() for image in split.images}


# --- splits


def test_the_splits_of_digits() -> None:
    data = load(DataSpec())
    assert (data.name, data.shape, data.classes) == ("digits", (1, 8, 8), 10)
    assert [len(s.labels) for s in (data.train, data.validation, data.test)] == [1437 - 143, 143, 360]
    assert not keys(data.train) & keys(data.validation) and not keys(data.train) & keys(data.test)
    arrays = Digits().read(Path())
    everything = torch.cat([data.train.images, data.validation.images]).numpy()
    assert sorted(map(bytes, everything)) == sorted(map(bytes, arrays.train[0]))
    assert np.array_equal(data.test.images, arrays.test[0])
    share = torch.bincount(data.validation.labels) / torch.from_numpy(np.bincount(arrays.train[1]))
    assert (share - 143 / 1437).abs().max() < 1 / 139


def test_validation_does_not_move_with_any_seed_or_size() -> None:
    base = load(DataSpec())
    other = load(DataSpec(subset_seed=5, train=300, test=50))
    assert torch.equal(base.validation.images, other.validation.images)
    assert keys(load(DataSpec(validation=40)).validation) < keys(base.validation)


@pytest.mark.parametrize("part", ["train", "test"])
def test_subsets_are_even_nested_and_chosen_by_their_seed(part: str) -> None:
    def subset(count: int, seed: int = 0) -> Split:
        return getattr(load(DataSpec(subset_seed=seed, **{part: count})), part)  # type: ignore[no-any-return, arg-type]

    small, large, other = subset(100), subset(250), subset(100, seed=1)
    assert keys(small) < keys(large) and keys(small) != keys(other)
    for split, count in ((small, 100), (large, 250), (other, 100)):
        sizes = torch.bincount(split.labels, minlength=10)
        assert len(split.labels) == count and sizes.min() >= count // 10 - 1 and sizes.max() <= count // 10 + 2


def test_the_full_size_is_everything_in_its_order() -> None:
    spelled, silent = load(DataSpec(train=1294, test=360, subset_seed=3)), load(DataSpec())
    assert torch.equal(spelled.train.images, silent.train.images)
    assert torch.equal(spelled.test.labels, silent.test.labels)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=200), st.integers(0, 2**63 - 1))
@settings(max_examples=100, deadline=None)
def test_every_beginning_of_the_order_is_stratified(labels: list[int], seed: int) -> None:
    array = np.array(labels)
    order = stratified_order(array, seed)
    assert sorted(order) == list(range(len(labels)))
    sizes = np.bincount(array)
    for count in range(len(labels) + 1):
        inside = np.bincount(array[order[:count]], minlength=len(sizes))
        # Between neighbours in any one class all other classes advance by one at most, half a step either side.
        assert np.abs(inside - sizes * count / len(labels)).max() <= len(sizes) / 2 + 0.5


def split_mix(seed: int, count: int) -> list[int]:
    """SplitMix64 in whole numbers, as published."""
    values, state = [], seed
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        z = state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        values.append(z ^ (z >> 31))
    return values


def test_the_order_is_the_same_for_ever() -> None:
    assert stratified_order(np.array([0, 1] * 5), stream(0, SUBSET, "train")).tolist() == [9, 2, 7, 8, 5, 0, 3, 6, 4, 1]
    assert stratified_order(np.zeros(10, np.int64), 1).tolist() == sorted(range(10), key=split_mix(1, 10).__getitem__)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            DataSpec(train=1400),
            "digits: 1400 training images requested, but of its 1437 only 1294 remain besides 143 for validation;"
            " lower data.train or data.validation",
        ),
        (DataSpec(test=361), "digits: 361 test images requested, but it has 360; lower data.test"),
        (
            DataSpec(validation=1437),
            "digits: 1437 validation images leave none of its 1437 for training; lower data.validation",
        ),
    ],
)
def test_more_images_than_there_are(spec: DataSpec, message: str) -> None:
    with pytest.raises(DataError) as caught:
        load(spec)
    assert str(caught.value) == message


def test_a_large_data_set_holds_out_at_most_5000(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(spec: MNIST, data_dir: Path, download: bool) -> Arrays:
        labels = np.arange(60_000) % 10
        images = np.zeros((60_000, 1, 28, 28), np.uint8)
        return Arrays((images, labels), (images[:10], labels[:10]))

    monkeypatch.setattr(MNIST, "read", read)
    data = load(DataSpec(name="mnist"))
    assert torch.bincount(data.validation.labels).tolist() == [500] * 10 and len(data.train.labels) == 55_000


# --- normalisation


def test_constants_come_from_the_training_images_alone() -> None:
    data = load(DataSpec(train=200, normalise="channel"))
    pixels = data.train.images.double()
    assert data.mean.item() == pytest.approx(pixels.mean().item(), rel=1e-6)
    assert data.scale.item() == pytest.approx(pixels.std(correction=0).item(), rel=1e-6)
    images, _ = whole(data.evaluation_batches("train", 64))
    assert images.mean().item() == pytest.approx(0, abs=1e-5) and images.std().item() == pytest.approx(1, abs=1e-4)


def test_the_three_normalisations() -> None:
    images = toy().train.images
    mean, scale = normalisation(iter([images]), "channel", 3)
    assert torch.allclose(mean.flatten().double(), images.double().mean((0, 2, 3)))
    assert torch.allclose(scale.flatten().double(), images.double().std((0, 2, 3), correction=0))
    mean, scale = normalisation(iter([images]), "pixel-mean", 3)
    assert torch.allclose(mean, images.float().mean(0, keepdim=True)) and (scale == 255).all()
    mean, scale = normalisation(iter([images]), "none", 3)
    assert (mean == 0).all() and (scale == 255).all()


def test_a_channel_that_never_varies_stays_finite() -> None:
    mean, scale = normalisation(iter([torch.full((4, 2, 3, 3), 7, dtype=torch.uint8)]), "channel", 2)
    assert mean.flatten().tolist() == [7, 7] and scale.flatten().tolist() == [255, 255]


# --- order and augmentation

AUGMENTS = [None, Augment(), Augment(pad=2, flip=False), Augment(pad=0, flip=True)]


@pytest.mark.parametrize("augment", AUGMENTS)
@given(seed=st.integers(0, 2**31), epoch=st.integers(0, 500), sizes=st.tuples(*[st.integers(1, 50)] * 2))
@settings(max_examples=25, deadline=None)
def test_the_batch_size_only_cuts(augment: Augment | None, seed: int, epoch: int, sizes: tuple[int, int]) -> None:
    data = toy(augment=augment)
    one, other = (whole(data.train_batches(seed, epoch, size)) for size in sizes)
    assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])
    assert sorted(one[1].tolist()) == list(range(37))


def test_sizes_layouts_and_the_smaller_last_batch() -> None:
    for channels_last in (True, False):
        found = list(toy(augment=Augment()).train_batches(0, 0, 10, channels_last))
        assert [len(labels) for _, labels in found] == [10, 10, 10, 7]
        layout = torch.channels_last if channels_last else torch.contiguous_format
        assert all(images.is_contiguous(memory_format=layout) for images, _ in found)
        assert all(images.dtype == torch.float32 for images, _ in found)
        found = list(toy().evaluation_batches("test", 10, channels_last))
        assert [len(labels) for _, labels in found] == [10, 10, 10, 7]
        assert all(images.is_contiguous(memory_format=layout) for images, _ in found)


def test_evaluation_keeps_order_and_augments_nothing() -> None:
    data = toy(augment=Augment())
    images, labels = whole(data.evaluation_batches("validation", 8))
    assert labels.tolist() == list(range(37))
    assert torch.equal(images, (data.validation.images.float() - data.mean) / data.scale)


def test_seed_and_epoch_change_order_and_augmentation() -> None:
    data = toy(augment=Augment())
    runs = [whole(data.train_batches(seed, epoch, 37)) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    assert len({tuple(labels.tolist()) for _, labels in runs}) == 3
    by_sample = [images[labels.argsort()] for images, labels in runs]
    assert not torch.equal(by_sample[0], by_sample[1]) and not torch.equal(by_sample[0], by_sample[2])
    again = whole(data.train_batches(0, 0, 37))
    assert torch.equal(again[0], runs[0][0])


def test_order_and_augmentation_come_from_their_own_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """What becomes of a sample does not depend on where in the order it stands."""
    data = toy(augment=Augment())
    images, labels = whole(data.train_batches(3, 4, 9))

    def other_order(seed: int, purpose: str, *keys: int | str) -> int:
        return stream(seed + (purpose == ORDER), purpose, *keys)

    monkeypatch.setattr(batches, "stream", other_order)
    moved_images, moved_labels = whole(data.train_batches(3, 4, 9))
    assert labels.tolist() != moved_labels.tolist()
    assert torch.equal(images[labels.argsort()], moved_images[moved_labels.argsort()])


def test_no_option_shifts_the_draws_of_another() -> None:
    data = toy(augment=Augment(pad=2, flip=True))
    flipped, labels = whole(data.train_batches(0, 0, 37))
    plain, same_labels = whole(toy(augment=Augment(pad=2, flip=False)).train_batches(0, 0, 37))
    assert torch.equal(labels, same_labels)
    mirrored = [torch.equal(a, b.flip(2)) for a, b in zip(flipped, plain, strict=True)]
    straight = [torch.equal(a, b) for a, b in zip(flipped, plain, strict=True)]
    assert all(m or s for m, s in zip(mirrored, straight, strict=True)) and any(mirrored) and any(straight)


def slow_augmented(image: Tensor, down: int, right: int, flip: bool, pad: int) -> Tensor:
    """One image at a time, pixel by pixel."""
    channels, height, width = image.shape
    result = torch.zeros_like(image)
    for c in range(channels):
        for y in range(height):
            for x in range(width):
                source_y, source_x = y + down - pad, x + right - pad
                if 0 <= source_y < height and 0 <= source_x < width:
                    result[c, y, width - 1 - x if flip else x] = image[c, source_y, source_x]
    return result


@pytest.mark.parametrize("augment", AUGMENTS[1:])
@pytest.mark.parametrize("normalise", ["channel", "pixel-mean"])
def test_augmentation_against_one_pixel_at_a_time(augment: Augment, normalise: str) -> None:
    data = toy(count=24, augment=augment)
    mean, scale = normalisation(iter([data.train.images]), normalise, 3)  # type: ignore[arg-type]
    data = Dataset(**{**vars(data), "mean": mean, "scale": scale})
    generator = torch.Generator().manual_seed(stream(7, AUGMENT, 2))
    draws = torch.randint(2**62, (24, 3), generator=generator).tolist()
    images, labels = whole(data.train_batches(7, 2, 5))
    normalised = (data.train.images.float() - mean) / scale
    steps = 2 * augment.pad + 1
    for image, sample in zip(images, labels.tolist(), strict=True):
        down, right, odd = draws[sample]
        flip = augment.flip and odd % 2 == 1
        assert torch.equal(image, slow_augmented(normalised[sample], down % steps, right % steps, flip, augment.pad))


def test_all_shifts_occur_equally_often() -> None:
    augment = Augment(pad=1, flip=True)
    generator = torch.Generator().manual_seed(0)
    draws = torch.randint(2**62, (9000, 3), generator=generator)
    images = torch.arange(1.0, 10.0).view(1, 1, 3, 3).expand(9000, -1, -1, -1)
    found = augment.apply(images, draws)
    counts = torch.unique(found.flatten(1), dim=0, return_counts=True)[1]
    # 9 shifts x 2 flips, 500 each expected: 5 standard deviations of a binomial are 109.
    assert len(counts) == 18 and (counts - 500).abs().max() < 110


def test_padding_is_the_average_pixel() -> None:
    image = torch.full((1, 1, 4, 4), 3.0)
    shifted = Augment(pad=2).apply(image, torch.tensor([[0, 0, 0]]))
    assert torch.equal(shifted, F.pad(torch.full((1, 1, 2, 2), 3.0), (2, 0, 2, 0)))


def test_moving_to_a_device_moves_everything() -> None:
    data = toy().to("meta")
    tensors = [
        data.mean,
        data.scale,
        *(t for s in (data.train, data.validation, data.test) for t in (s.images, s.labels)),
    ]
    assert all(tensor.is_meta for tensor in tensors)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_another_device_gives_the_same_order_and_images() -> None:
    data = toy(augment=Augment())
    images, labels = whole(data.train_batches(0, 0, 10))
    other_images, other_labels = whole(data.to("cuda").train_batches(0, 0, 10))
    assert torch.equal(labels, other_labels.cpu())
    assert torch.allclose(images, other_images.cpu(), rtol=1e-6, atol=1e-6)
