"""Load data sets and make batches on a device: splits, normalisation, order and augmentation.

`load` returns `Data`, with images in memory (`Dataset`) or decoded on demand (`encoded.EncodedDataset`). Images in
memory are stored as tensors on the device, mostly uint8, and converted to floats batch by batch. The augmentation of a
sample depends only on (seed, epoch, sample), and not on the batch size, the device, or other random numbers.

Measured with one thread of a 2-core CPU machine (AVX2), milliseconds per batch of 128, mean of 3 epochs: MNIST 0.05
(indexing images that are normalised floats already: 0.13), CIFAR-10 0.40 (0.35), CIFAR-10 with crop and flip 0.99.
At 167 images/s, ResNet-20 on that thread, augmentation adds less than 0.1% to a step.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from numpy.typing import NDArray
from torch import Tensor

from leadline.data import encoded
from leadline.data.arrays import Arrays
from leadline.data.augmenting import EpochAugmentation, Seen
from leadline.data.datasets import DataSpec
from leadline.data.encoded_images import EncodedImages
from leadline.data.files import default_data_dir
from leadline.data.image_dataset import ImageDataSpec
from leadline.data.metadata import Metadata
from leadline.data.pixels import Pixels, copy_at_once, generator, normalisation, normalise, to_memory_format
from leadline.data.split import cut, redraw, validate_split_sizes
from leadline.distributed.shard import WHOLE, Shard
from leadline.seeds import ORDER, stream

BLOCK_ON_CPU, BLOCK = 2**18, 2**24
"""Numbers in the images of a block of batches that are prepared at once, at most: 1 MiB, and 64 MiB on a GPU."""

Part = Literal["train", "validation", "test"]
Batch = tuple[Float[Tensor, "b c h w"], Shaped[Tensor, "b *targets"]]
Batches = Iterator[Batch]
"""Normalised images with their labels, with probabilities of the classes where labels are mixed, or with the targets of
another task than classification, on the data's device; the last batch may be smaller."""


@runtime_checkable
class Data(Protocol):
    """A data set loaded from a specification; the input of a network is (image - mean) / scale."""

    @property
    def spec(self) -> DataSpec:
        """The specification."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""

    @property
    def classes(self) -> int:
        """The number of classes, or of the outputs of another task."""

    @property
    def metadata(self) -> Metadata | None:
        """What is known without reading the images, such as the class names."""

    @property
    def mean(self) -> Float[Tensor, "1 c mh mw"]:
        """The mean to subtract, in the units of the images; one value per channel, or per channel and pixel."""

    @property
    def scale(self) -> Float[Tensor, "1 c 1 1"]:
        """The scale to divide by, in the units of the images."""

    @property
    def device(self) -> torch.device:
        """The device of the batches."""

    @property
    def train_size(self) -> int:
        """The number of training images, which is the number of images in an epoch."""

    @property
    def test_labels(self) -> NDArray[Any]:
        """The classes, or targets, of the test images, in the order of evaluation."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines that a user should know about the data, such as skipped images; usually none."""

    def to(self, device: torch.device | str) -> "Data":
        """Return the data with batches on a device."""

    def take_shard(self, shard: Shard) -> "Data":
        """Return the data with a shard of every training batch and of the evaluation batches."""

    def train_batches(
        self, seed: int, epoch: int, batch_size: int, channels_last: bool = True, first: int = 0
    ) -> Batches:
        """Yield one epoch of normalised, augmented training images with their labels.

        The order depends only on (seed, epoch), and the augmentation of a sample only on (seed, epoch, sample).

        Args:
            seed: the trial's seed.
            epoch: number of the epoch.
            batch_size: images per batch.
            channels_last: memory layout of the images.
            first: number of the first batch to yield, to continue an epoch with the same batches.
        """

    def training_view(self, positions: Sequence[int], seed: int, epoch: int) -> Batch:
        """Return the training images at some positions as they are seen in an epoch, with their targets."""

    def evaluation_batches(self, split: Part, batch_size: int, channels_last: bool = True) -> Batches:
        """Yield a split in its original order, normalised and not augmented."""

    def sample(self, split: Part, count: int, channels_last: bool = True) -> Batch:
        """Return at most `count` images of a split, normalised, always the same ones and from all classes."""

    def images(self, split: Part, positions: Sequence[int]) -> Pixels:
        """Return images of a split at some positions as the data set has them, neither normalised nor augmented."""

    def targets(self, split: Part, positions: Sequence[int]) -> Shaped[Tensor, "b *targets"]:
        """Return the classes, or targets, of a split at some positions; of training images with their label noise."""


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a data set."""

    images: Pixels
    labels: Shaped[Tensor, "n *targets"]

    def to(self, device: torch.device | str) -> "Split":
        """Return this split on a device."""
        return Split(self.images.to(device), self.labels.to(device))


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in memory; the input of a network is (image - mean) / scale."""

    spec: DataSpec
    shape: tuple[int, int, int]  # channels, height, width
    classes: int
    train: Split
    validation: Split
    test: Split
    mean: Float[Tensor, "1 c mh mw"]  # of 0 to 255; one value per channel, or per channel and pixel
    scale: Float[Tensor, "1 c 1 1"]
    notes: tuple[str, ...] = ()
    shard: Shard = WHOLE
    metadata: Metadata | None = None

    @property
    def name(self) -> str:
        """Name of the data set in messages."""
        return self.spec.display_name

    @property
    def device(self) -> torch.device:
        """The device of the images and batches."""
        return self.train.images.device

    @property
    def train_size(self) -> int:
        """The number of training images."""
        return len(self.train.labels)

    @property
    def test_labels(self) -> NDArray[Any]:
        """The classes, or targets, of the test images."""
        return self.test.labels.cpu().numpy()

    def to(self, device: torch.device | str) -> "Dataset":
        """Return this data set on a device."""
        splits = {name: getattr(self, name).to(device) for name in ("train", "validation", "test")}
        return replace(self, **splits, mean=self.mean.to(device), scale=self.scale.to(device))

    def take_shard(self, shard: Shard) -> "Dataset":
        """Return this data set with a shard of every training batch and of the evaluation batches."""
        return replace(self, shard=shard)

    def train_batches(
        self, seed: int, epoch: int, batch_size: int, channels_last: bool = True, first: int = 0
    ) -> Batches:
        """Yield one epoch as described in `Data.train_batches`, bit-identical on all devices.

        Raises:
            SpecError: a custom augmentation fails.
        """
        count = self.train_size
        order = torch.randperm(count, generator=generator(stream(seed, ORDER, epoch)))
        augmentation = EpochAugmentation(self.spec.augmentations, seed, epoch, count, self.device)
        parts = torch.split(order, batch_size)[first:]
        if self.shard != WHOLE:
            parts = tuple(part[self.shard.rows(len(part))] for part in parts)
        block = 1 if augmentation.has_custom else self._batches_in_block(batch_size)
        blocks = [parts[start : start + block] for start in range(0, len(parts), block)]
        views = [
            self._views(augmentation, positions)
            for positions in augmentation.with_partners([torch.cat(some) for some in blocks])
        ]
        for some, seen in zip(blocks, zip(*views, strict=True), strict=True):
            images, targets = augmentation.combine(seen, self.classes)
            images = to_memory_format(images, channels_last)
            sizes = list(map(len, some))
            for batch, labels in zip(torch.split(images, sizes), torch.split(targets, sizes), strict=True):
                # in memory of its own, whose alignment can decide the last bits of a product
                yield batch.clone() if len(some) > 1 else batch, labels

    def training_view(self, positions: Sequence[int], seed: int, epoch: int) -> Batch:
        """Return the training images at some positions as they are seen in an epoch, with their targets."""
        augmentation = EpochAugmentation(self.spec.augmentations, seed, epoch, self.train_size, self.device)
        parts = augmentation.with_partners([torch.as_tensor(positions, dtype=torch.int64)])
        seen = [one for part in parts for one in self._views(augmentation, part)]
        return augmentation.combine(seen, self.classes)

    def _views(self, augmentation: EpochAugmentation, parts: Sequence[Int64[Tensor, "_"]]) -> Iterator[Seen]:
        """Yield the training images at each part of the positions as they are seen in an epoch."""
        for positions, samples in zip(parts, copy_at_once(parts, self.device), strict=True):
            images = self.train.images.index_select(0, samples)
            floats = augmentation.view(images, positions, samples, self.mean, self.scale)
            yield Seen(floats, self.train.labels.index_select(0, samples), samples)

    def _batches_in_block(self, batch_size: int) -> int:
        """Return how many batches are prepared at once: few that a processor's cache holds, or many on a GPU."""
        floats = BLOCK_ON_CPU if self.device.type == "cpu" else BLOCK
        return max(1, floats // (batch_size * math.prod(self.shape)))

    def evaluation_batches(self, split: Part, batch_size: int, channels_last: bool = True) -> Batches:
        """Yield a split in its original order, normalised and not augmented."""
        part: Split = getattr(self, split)
        shard = self.shard
        for first in range(shard.index * batch_size, len(part.labels), shard.count * batch_size):
            batch = slice(first, first + batch_size)
            images = normalise(part.images[batch], self.mean, self.scale)
            yield to_memory_format(images, channels_last), part.labels[batch]

    def sample(self, split: Part, count: int, channels_last: bool = True) -> Batch:
        """Return the first images of a split, which contain all classes in published data sets."""
        return next(iter(self.evaluation_batches(split, count, channels_last)))

    def images(self, split: Part, positions: Sequence[int]) -> Pixels:
        """Return images of a split at some positions, as they are stored."""
        part: Split = getattr(self, split)
        return part.images[torch.as_tensor(positions, dtype=torch.int64, device=self.device)]

    def targets(self, split: Part, positions: Sequence[int]) -> Shaped[Tensor, "b *targets"]:
        """Return the targets of a split at some positions."""
        part: Split = getattr(self, split)
        return part.labels[torch.as_tensor(positions, dtype=torch.int64, device=self.device)]


def load(spec: DataSpec, data_dir: Path | None = None, download: bool = True, seed: int = 0) -> Data:
    """Read a data set, split off validation images and subsets, and compute the normalisation from training images.

    All choices of images are stratified by class and fixed, but for what `resample` redraws at every seed: see
    `split.cut` and `split.redraw`. Images keep their order. Encoded images
    are decoded during training: see `encoded.load`.

    Args:
        spec: the data set.
        data_dir: folder of the files; None: the default folder.
        download: whether to download missing files.
        seed: the trial's seed, for data that are resampled and for label noise.

    Raises:
        DataError: a file is missing or damaged, or more images are requested than available.
        SpecError: an augmentation cannot be applied to the images.
        LeadlineError: a required package is not installed.

    Example:
        >>> load(DataSpec(name="digits", train=100)).train_size
        100
    """
    if spec.known_sizes is not None:
        validate_split_sizes(spec.display_name, spec.known_sizes, spec)
    arrays = spec.read(data_dir or default_data_dir(), download)
    if isinstance(arrays, EncodedImages):
        assert isinstance(spec, ImageDataSpec)
        return encoded.load(spec, arrays, seed)
    validate_split_sizes(spec.display_name, arrays.sizes, spec)
    if spec.resample == "split":
        arrays = _redrawn(arrays, seed)
    assert arrays.test is not None
    held = arrays.train if arrays.validation is None else arrays.validation
    chosen = cut(arrays.train[1], arrays.test[1], spec, None if arrays.validation is None else held[1], seed)
    train = _split(arrays.train, chosen.train)
    known = Metadata.of_arrays(arrays)
    spec.check_images(known)
    mean, scale = normalisation(iter([train.images]), spec.normalise, arrays.shape[0])
    if spec.label_noise is not None:
        noisy = spec.label_noise.change(train.labels.numpy(), arrays.classes, seed)
        train = replace(train, labels=torch.from_numpy(noisy))
    return Dataset(
        spec,
        arrays.shape,
        arrays.classes,
        train,
        validation=_split(held, chosen.validation),
        test=_split(arrays.test, chosen.test),
        mean=mean,
        scale=scale,
        notes=arrays.notes,
        metadata=known,
    )


def _redrawn(arrays: Arrays, seed: int) -> Arrays:
    assert arrays.test is not None
    images, labels = (np.concatenate(both) for both in zip(arrays.train, arrays.test, strict=True))
    train, test = ((images[chosen], labels[chosen]) for chosen in redraw(arrays.train[1], arrays.test[1], seed))
    return replace(arrays, train=train, test=test)


def _split(part: tuple[NDArray[Any], NDArray[Any]], chosen: NDArray[np.int64]) -> Split:
    images, labels = part
    return Split(torch.from_numpy(images[chosen]), torch.from_numpy(labels[chosen]))
