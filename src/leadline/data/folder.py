"""A folder of pictures as data for training: decoded in threads a few batches ahead, augmented as they are decoded.

Pictures stay in their files, however many there are; what lies in memory is their paths, and of the batches those in
the making. A picture's random part and flip are a function of (seed, epoch, sample) alone, the order one of
(seed, epoch), so that batches depend neither on threads nor on the batch size, and arms are paired.

Measured against PyTorch's DataLoader with as many worker processes (`benchmarks.folder`; 2 busy cores, medians of 5
interleaved rounds): JPEG of 500x375 to 224x224 241 pictures/s, ratio 1.01; CIFAR-10 as JPEG 4,280 pictures/s, 1.13.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor

from leadline.data import index
from leadline.data.index import Part
from leadline.data.pictures import centre, decode, random_part
from leadline.data.pixels import augmented, draws, generator, laid_out, normalisation, normalised
from leadline.data.split import cut, see_to_it_that_there_are_enough, stratified_order
from leadline.data.threads import decoders, in_order
from leadline.distributed.shard import WHOLE, Shard
from leadline.errors import DataError
from leadline.seeds import AUGMENT, ORDER, SUBSET, stream
from leadline.spec import Augment, DataSpec, ResizedCrop

CPU = torch.device("cpu")

SAMPLE = 1_000
"""Training pictures that the normalisation's constants are taken from, evenly over the classes, for every seed the
same; the mean of a channel then has a standard error of about 0.2 of 255."""

CHUNK = 16
"""Pictures that a thread decodes at a time."""

AHEAD = 2
"""Batches that are decoded before they are asked for."""


@dataclass(frozen=True)
class _Chunk:
    """Neighbouring pictures of one batch, and the rows of it that they fill."""

    batch: NDArray[np.uint8]  # [b, height, width, 3], of the whole batch
    first: int
    paths: tuple[str, ...]
    drawn: tuple[int, ...] | None  # one number a picture decides its random part; None: the centre

    @property
    def last(self) -> bool:
        return self.first + len(self.paths) == len(self.batch)


@dataclass(frozen=True, eq=False)
class Folder:
    """A folder of pictures; what a network sees of one is (picture - mean) / scale, at one size, red, green, blue."""

    spec: DataSpec
    root: Path
    class_names: tuple[str, ...]
    train: Part
    validation: Part
    test: Part
    mean: Float[Tensor, "1 c mh mw"]  # of 0 to 255; one value per channel, or per channel and pixel
    scale: Float[Tensor, "1 c 1 1"]
    note: str = ""
    task: str = "classification"
    device: torch.device = CPU
    threads: int = field(default_factory=decoders)  # that decode; no result depends on it
    shard: Shard = WHOLE

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return (3, self.spec.size, self.spec.size)

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    @property
    def train_size(self) -> int:
        """The number of training pictures."""
        return len(self.train.labels)

    @property
    def test_labels(self) -> NDArray[np.int64]:
        """The classes of the test pictures."""
        return self.test.labels

    def to(self, device: torch.device | str) -> "Folder":
        """Return this data set with batches on a device."""
        return replace(self, mean=self.mean.to(device), scale=self.scale.to(device), device=torch.device(device))

    def take_shard(self, shard: Shard) -> "Folder":
        """Return this data set with a shard of every training batch, and of the batches of evaluation."""
        return replace(self, shard=shard)

    def train_batches(
        self, seed: int, epoch: int, batch_size: int, channels_last: bool = True, first: int = 0
    ) -> Iterator[tuple[Float[Tensor, "b c h w"], Int64[Tensor, "b"]]]:
        """Yield one epoch as `Data.train_batches` says; a translation is that of data in memory, of the centre crop.

        Raises:
            DataError: a file has gone or has changed since it was checked.
        """
        augment, count = self.spec.augment, self.train_size
        order = torch.randperm(count, generator=generator(stream(seed, ORDER, epoch)))
        drawn = draws(count, stream(seed, AUGMENT, epoch)) if augment else None
        parts = drawn[:, 0] if drawn is not None and isinstance(augment, ResizedCrop) else None
        batches = [indices[self.shard.rows(len(indices))] for indices in torch.split(order, batch_size)[first:]]
        for indices, images in zip(batches, self._decoded(self.train, batches, parts), strict=True):
            floats = normalised(self._moved(images), self.mean, self.scale)
            if drawn is not None and isinstance(augment, Augment):
                floats = augmented(floats, drawn[indices].to(self.device), augment)
            labels = torch.from_numpy(self.train.labels[indices.numpy()])
            yield laid_out(floats, channels_last), labels.to(self.device)

    def evaluation_batches(
        self, split: Literal["train", "validation", "test"], batch_size: int, channels_last: bool = True
    ) -> Iterator[tuple[Float[Tensor, "b c h w"], Int64[Tensor, "b"]]]:
        """Yield a split in its own order, normalised: the centre of each picture, its shorter side resized before.

        Raises:
            DataError: a file has gone or has changed since it was checked.
        """
        part: Part = getattr(self, split)
        batches = torch.split(torch.arange(len(part.labels)), batch_size)[self.shard.index :: self.shard.count]
        for indices, images in zip(batches, self._decoded(part, batches), strict=True):
            labels = torch.from_numpy(part.labels[indices.numpy()])
            floats = normalised(self._moved(images), self.mean, self.scale)
            yield laid_out(floats, channels_last), labels.to(self.device)

    def few(
        self, split: Literal["train", "validation", "test"], count: int, channels_last: bool = True
    ) -> tuple[Float[Tensor, "b c h w"], Int64[Tensor, "b"]]:
        """Return so many pictures of a split, evenly over its classes, which lie in one folder after the other.

        Raises:
            DataError: a file has gone or has changed since it was checked.
        """
        part: Part = getattr(self, split)
        chosen = np.sort(stratified_order(part.labels, stream(0, SUBSET, "few"))[:count])
        [images] = self._decoded(part, [torch.from_numpy(chosen)])
        floats = normalised(self._moved(images), self.mean, self.scale)
        return laid_out(floats, channels_last), torch.from_numpy(part.labels[chosen]).to(self.device)

    def _moved(self, images: UInt8[Tensor, "b c h w"]) -> UInt8[Tensor, "b c h w"]:
        """Bring bytes to the device: a quarter of what floats would take."""
        if self.device.type != "cuda":
            return images.to(self.device)
        return images.pin_memory().to(self.device, non_blocking=True)

    def _decoded(
        self, part: Part, batches: Sequence[Int64[Tensor, "_"]], drawn: Int64[Tensor, "n"] | None = None
    ) -> Iterator[UInt8[Tensor, "b c h w"]]:
        """Yield the pictures of each batch of positions; element i of `drawn` decides the random part of picture i."""
        size = self.spec.size

        def chunks() -> Iterator[_Chunk]:
            for positions in batches:
                batch = np.empty((len(positions), size, size, 3), np.uint8)
                for first in range(0, max(1, len(positions)), CHUNK):  # an empty shard is a chunk as well
                    some = positions[first : first + CHUNK]
                    paths = tuple(part.paths[position] for position in some.tolist())
                    yield _Chunk(batch, first, paths, None if drawn is None else tuple(drawn[some].tolist()))

        ahead = max(2 * self.threads, AHEAD * -(-max(map(len, batches), default=0) // CHUNK))
        for chunk in in_order(self._fill, chunks(), self.threads, ahead):
            if chunk.last:
                yield torch.from_numpy(chunk.batch).permute(0, 3, 1, 2)

    def _fill(self, chunk: _Chunk) -> _Chunk:
        """Decode a chunk's pictures into its rows; runs in several threads."""
        size, crop = self.spec.size, self.spec.augment
        for row, path in enumerate(chunk.paths):
            try:
                picture = decode(index.read_bytes(self.root / path))
            except ValueError as error:
                raise DataError(
                    f"{self.root / path}: {error}; it was whole when the folder was checked: mend it and run again"
                ) from None
            if chunk.drawn is not None and isinstance(crop, ResizedCrop):
                picture = random_part(picture, size, crop, chunk.drawn[row])
            else:
                picture = centre(picture, size, self.spec.shorter_side)
            chunk.batch[chunk.first + row] = np.asarray(picture)
        return chunk


def load(spec: DataSpec, data_dir: Path) -> Folder:
    """Index a folder of pictures, cut its splits as for data in memory, and take the normalisation's constants.

    Args:
        spec: of name imagefolder.
        data_dir: what its path is relative to.

    Raises:
        LeadlineError: Pillow is not installed.
        DataError: the folder is missing or laid out otherwise, pictures are corrupt and not to be skipped, or more are
            asked for than there are.
    """
    found = index.read_index(index.locate(spec, data_dir), spec.corrupt == "skip")
    see_to_it_that_there_are_enough(str(found.root), len(found.train.labels), len(found.test.labels), spec)
    chosen = cut(found.train.labels, found.test.labels, spec)
    unit = torch.ones(1, 3, 1, 1)
    data = Folder(
        spec,
        found.root,
        found.classes,
        train=found.train.at(chosen.train),
        validation=found.train.at(chosen.validation),
        test=found.test.at(chosen.test),
        mean=0 * unit,
        scale=unit,
        note=f"{index.said(found.root, found.corrupt)}; left out" if found.corrupt else "",
    )
    sample = stratified_order(data.train.labels, stream(0, SUBSET, "normalisation"))[:SAMPLE]
    parts = data._decoded(data.train, torch.split(torch.from_numpy(np.sort(sample)), CHUNK * AHEAD))
    mean, scale = normalisation(parts, spec.normalise, channels=3)
    return replace(data, mean=mean, scale=scale)
