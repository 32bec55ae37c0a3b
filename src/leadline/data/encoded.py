"""Encoded images as training data: decoded and augmented in threads, a few batches ahead.

Only the paths of the images and the next batches are in memory. The random crop and flip of an image depend only on
(seed, epoch, sample), and the order only on (seed, epoch), so that batches depend neither on the number of threads nor
on the batch size, and arms are paired.

Measured against PyTorch's DataLoader with as many worker processes (`benchmarks.folder`; 2 busy cores, medians of 5
interleaved rounds): JPEG of 500x375 to 224x224 241 images/s, ratio 1.01; CIFAR-10 as JPEG 4,280 images/s, 1.13.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped, UInt8
from numpy.typing import NDArray
from torch import Tensor

from leadline.data.augmenting import EpochAugmentation, Seen
from leadline.data.encoded_images import EncodedImages, Part
from leadline.data.formats.images import centre, corner, decode
from leadline.data.image_dataset import ImageDataSpec
from leadline.data.metadata import Metadata
from leadline.data.pixels import copy_at_once, generator, normalisation, normalise, to_memory_format
from leadline.data.split import cut, stratified_order, validate_split_sizes
from leadline.data.threads import decoder_threads, map_in_order
from leadline.distributed.shard import WHOLE, Shard
from leadline.errors import DataError
from leadline.parts.augmentations import DecodingAugmentation
from leadline.seeds import ORDER, SUBSET, stream

CPU = torch.device("cpu")

SAMPLE = 1_000
"""Number of training images from which the normalisation is computed, stratified by class and the same for every seed;
the mean of a channel then has a standard error of about 0.2 of 255."""

CHUNK = 16
"""Number of images that a thread decodes at a time."""

AHEAD = 2
"""Number of batches that are decoded in advance."""


@dataclass(frozen=True)
class _Chunk:
    """Consecutive images of one batch, and the rows of the batch that they fill."""

    batch: UInt8[Tensor, "b height width channels"]  # the whole batch, on CUDA in memory that can be copied to the card
    first: int
    paths: tuple[str, ...]
    drawn: tuple[int, ...] | None  # random number per image, which determines its crop; None: the centre

    @property
    def last(self) -> bool:
        return self.first + len(self.paths) == len(self.batch)


@dataclass(frozen=True, eq=False)
class EncodedDataset:
    """Encoded images, decoded to one size; the input of a network is (image - mean) / scale."""

    spec: ImageDataSpec
    root: Path  # folder of the images, for messages
    class_names: tuple[str, ...]
    train: Part
    validation: Part
    test: Part
    read: Callable[[str], bytes]
    mean: Float[Tensor, "1 c mh mw"]  # of 0 to 255; one value per channel, or per channel and pixel
    scale: Float[Tensor, "1 c 1 1"]
    notes: tuple[str, ...] = ()
    device: torch.device = CPU
    threads: int = field(default_factory=decoder_threads)  # decoding threads; results do not depend on their number
    shard: Shard = WHOLE
    corner: tuple[int, int] | None = None  # of the centre square that evaluation crops; None: the centre

    @property
    def metadata(self) -> Metadata:
        """Shape and classes."""
        return Metadata(self.shape, self.classes, self.class_names)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return self.spec.shape

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    @property
    def train_size(self) -> int:
        """The number of training images."""
        return len(self.train.labels)

    @property
    def test_labels(self) -> NDArray[np.int64]:
        """The classes of the test images."""
        return self.test.labels

    def to(self, device: torch.device | str) -> "EncodedDataset":
        """Return this data set with batches on a device."""
        return replace(self, mean=self.mean.to(device), scale=self.scale.to(device), device=torch.device(device))

    def take_shard(self, shard: Shard) -> "EncodedDataset":
        """Return this data set with a shard of every training batch and of the evaluation batches."""
        return replace(self, shard=shard)

    def crops(self) -> "tuple[EncodedDataset, ...]":
        """Return this data set with each of five crops in evaluation: the centre, and the corners of its square."""
        return (self, *(replace(self, corner=(x, y)) for y in (0, 1) for x in (0, 1)))

    def train_batches(
        self, seed: int, epoch: int, batch_size: int, channels_last: bool = True, first: int = 0
    ) -> Iterator[tuple[Float[Tensor, "b c h w"], Shaped[Tensor, "b *targets"]]]:
        """Yield one epoch as described in `Data.train_batches`; without a random crop, of the centre crops.

        Raises:
            DataError: a file has been removed or changed since it was checked.
        """
        count = self.train_size
        order = torch.randperm(count, generator=generator(stream(seed, ORDER, epoch)))
        augmentation = EpochAugmentation(self.spec.augmentations, seed, epoch, count, self.device)
        batches = [indices[self.shard.rows(len(indices))] for indices in torch.split(order, batch_size)[first:]]
        views = [self._views(augmentation, positions) for positions in augmentation.with_partners(batches)]
        for seen in zip(*views, strict=True):
            images, targets = augmentation.combine(seen, self.classes)
            yield to_memory_format(images, channels_last), targets

    def training_view(
        self, positions: Sequence[int], seed: int, epoch: int
    ) -> tuple[Float[Tensor, "b c h w"], Shaped[Tensor, "b *targets"]]:
        """Return the training images at some positions as they are seen in an epoch, with their targets.

        Raises:
            DataError: a file has been removed or changed since it was checked.
        """
        augmentation = EpochAugmentation(self.spec.augmentations, seed, epoch, self.train_size, self.device)
        parts = augmentation.with_partners([torch.as_tensor(positions, dtype=torch.int64)])
        seen = [one for part in parts for one in self._views(augmentation, part)]
        return augmentation.combine(seen, self.classes)

    def _views(self, augmentation: EpochAugmentation, batches: Sequence[Int64[Tensor, "_"]]) -> Iterator[Seen]:
        """Yield the training images of each batch of positions as they are seen in an epoch."""
        decoded = self._decode_batches(self.train, batches, augmentation.crop_numbers)
        labels = self._labels_at(self.train, batches)
        for positions, samples, images, targets in zip(
            batches, copy_at_once(batches, self.device), decoded, labels, strict=True
        ):
            floats = augmentation.view(self._to_device(images), positions, samples, self.mean, self.scale)
            yield Seen(floats, targets, samples)

    def evaluation_batches(
        self, split: Literal["train", "validation", "test"], batch_size: int, channels_last: bool = True
    ) -> Iterator[tuple[Float[Tensor, "b c h w"], Int64[Tensor, "b"]]]:
        """Yield a split in its original order, normalised: the centre crop of each image after resizing.

        Raises:
            DataError: a file has been removed or changed since it was checked.
        """
        part: Part = getattr(self, split)
        batches = torch.split(torch.arange(len(part.labels)), batch_size)[self.shard.index :: self.shard.count]
        labels = self._labels_at(part, batches)
        for images, targets in zip(self._decode_batches(part, batches), labels, strict=True):
            floats = normalise(self._to_device(images), self.mean, self.scale)
            yield to_memory_format(floats, channels_last), targets

    def sample(
        self, split: Literal["train", "validation", "test"], count: int, channels_last: bool = True
    ) -> tuple[Float[Tensor, "b c h w"], Int64[Tensor, "b"]]:
        """Return `count` images of a split, stratified by class, because images are sorted by class.

        Raises:
            DataError: a file has been removed or changed since it was checked.
        """
        part: Part = getattr(self, split)
        chosen = np.sort(stratified_order(part.labels, stream(0, SUBSET, "few"))[:count])
        [images] = self._decode_batches(part, [torch.from_numpy(chosen)])
        floats = normalise(self._to_device(images), self.mean, self.scale)
        return to_memory_format(floats, channels_last), torch.from_numpy(part.labels[chosen]).to(self.device)

    def _labels_at(self, part: Part, batches: Sequence[Int64[Tensor, "_"]]) -> Sequence[Int64[Tensor, "_"]]:
        """Return the labels of each batch of positions, on the device."""
        labels = torch.from_numpy(part.labels)
        return copy_at_once([labels[positions] for positions in batches], self.device)

    def images(
        self, split: Literal["train", "validation", "test"], positions: Sequence[int]
    ) -> UInt8[Tensor, "b c h w"]:
        """Return images of a split at some positions: the centre crop of each after resizing.

        Raises:
            DataError: a file has been removed or changed since it was checked.
        """
        [images] = self._decode_batches(getattr(self, split), [torch.as_tensor(positions, dtype=torch.int64)])
        return images

    def targets(self, split: Literal["train", "validation", "test"], positions: Sequence[int]) -> Int64[Tensor, "b"]:
        """Return the classes of a split at some positions."""
        [labels] = self._labels_at(getattr(self, split), [torch.as_tensor(positions, dtype=torch.int64)])
        return labels

    def _to_device(self, images: UInt8[Tensor, "b c h w"]) -> UInt8[Tensor, "b c h w"]:
        """Copy images to the device as bytes, a quarter of the size of floats; on CUDA nothing waits for the copy."""
        return images.to(self.device, non_blocking=self.device.type == "cuda")

    def _decode_batches(
        self, part: Part, batches: Sequence[Int64[Tensor, "_"]], drawn: Int64[Tensor, "n"] | None = None
    ) -> Iterator[UInt8[Tensor, "b c h w"]]:
        """Yield the images of each batch of positions; element i of `drawn` determines the random crop of image i."""
        channels, size, _ = self.shape

        def chunks() -> Iterator[_Chunk]:
            for positions in batches:
                shape = (len(positions), size, size, channels)
                batch = torch.empty(shape, dtype=torch.uint8, pin_memory=self.device.type == "cuda")
                for first in range(0, max(1, len(positions)), CHUNK):  # an empty shard is also a chunk
                    some = positions[first : first + CHUNK]
                    paths = tuple(part.paths[position] for position in some.tolist())
                    yield _Chunk(batch, first, paths, None if drawn is None else tuple(drawn[some].tolist()))

        ahead = max(2 * self.threads, AHEAD * -(-max(map(len, batches), default=0) // CHUNK))
        for chunk in map_in_order(self._fill, chunks(), self.threads, ahead):
            if chunk.last:
                yield chunk.batch.permute(0, 3, 1, 2)

    def _fill(self, chunk: _Chunk) -> _Chunk:
        """Decode the images of a chunk into its rows; called in several threads."""
        size, grey = self.spec.size, self.spec.channels == "grey"
        crop = next((each for each in self.spec.augmentations if isinstance(each, DecodingAugmentation)), None)
        rows = chunk.batch.numpy()
        for row, path in enumerate(chunk.paths):
            try:
                image = decode(self.read(path), grey, self.spec.background)
            except ValueError as error:
                raise DataError(
                    f"{self.root / path}: {error}; it was readable when the data were checked: repair it and run again"
                ) from None
            if chunk.drawn is not None and crop is not None:
                image = crop.crop(image, size, chunk.drawn[row])
            elif self.corner is not None:
                image = corner(image, size, self.spec.shorter_side, self.corner)
            else:
                image = centre(image, size, self.spec.shorter_side)
            rows[chunk.first + row] = np.asarray(image).reshape(size, size, -1)
        return chunk


def load(spec: ImageDataSpec, found: EncodedImages, seed: int = 0) -> EncodedDataset:
    """Split encoded images as for data in memory, and compute the normalisation.

    Args:
        spec: the data set.
        found: its images.
        seed: the trial's seed, for data that are resampled and for label noise.

    Raises:
        DataError: more images are requested than available, or one cannot be decoded.
        SpecError: label noise is asked for, and there is one class.
    """
    validate_split_sizes(found.name, found.sizes, spec)
    validation = found.train if found.validation is None else found.validation
    held = None if found.validation is None else validation.labels
    chosen = cut(found.train.labels, found.test.labels, spec, held, seed)
    unit = torch.ones(1, spec.shape[0], 1, 1)
    data = EncodedDataset(
        spec,
        found.root,
        found.class_names,
        train=found.train.at(chosen.train),
        validation=validation.at(chosen.validation),
        test=found.test.at(chosen.test),
        read=found.read,
        mean=0 * unit,
        scale=unit,
        notes=found.notes,
    )
    sample = stratified_order(data.train.labels, stream(0, SUBSET, "normalisation"))[:SAMPLE]
    parts = data._decode_batches(data.train, torch.split(torch.from_numpy(np.sort(sample)), CHUNK * AHEAD))
    mean, scale = normalisation(parts, spec.normalise, channels=spec.shape[0])
    train = data.train
    spec.check_images(data.metadata)
    if spec.label_noise is not None:
        train = replace(train, labels=spec.label_noise.change(train.labels, data.classes, seed))
    return replace(data, train=train, mean=mean, scale=scale)
