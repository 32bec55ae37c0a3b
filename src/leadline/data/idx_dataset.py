"""Data sets of four idx files, optionally compressed with gzip, such as MNIST."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leadline.data.arrays import Arrays
from leadline.data.formats.idx import read_idx
from leadline.data.published import Download, PublishedDataSpec

FILES = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
"""The four files: training images and labels, test images and labels."""


def idx_downloads(
    folder: str, hosts: tuple[str, ...], sizes: tuple[int, int, int, int], checksums: tuple[str, str, str, str]
) -> tuple[Download, ...]:
    """Return the downloads of the four files of a folder, in the order of `FILES`, with a mirror at each host."""
    names = [f"{part}-ubyte.gz" for part in FILES]
    return tuple(
        Download(f"{folder}/{name}", checksum, size, tuple(host + name for host in hosts))
        for name, size, checksum in zip(names, sizes, checksums, strict=True)
    )


class IdxDataSpec(PublishedDataSpec):
    """Base class of data sets of four idx files, which define their `downloads` in the order of `FILES`."""

    def _find(self, folder: Path) -> tuple[Mapping[str, Path], tuple[Download, ...]]:
        found = {}
        for item in self.downloads:
            for path in _possible_paths(folder / item.path):
                if path.is_file():
                    found[item.name] = path
                    break
        return found, tuple(item for item in self.downloads if item.name not in found)

    def _read_files(self, found: Mapping[str, Path], data_dir: Path) -> Arrays:
        def read(item: Download, shape: tuple[int, ...], limit: int = 256) -> NDArray[np.uint8]:
            path = found[item.name]
            try:
                values = read_idx(path, shape)
                if values.size and values.max() >= limit:
                    position = int(np.argmax(values >= limit))
                    raise ValueError(f"label {values[position]} at position {position}, expected 0 to {limit - 1}")
            except ValueError as error:
                raise self._damaged(path, error, data_dir) from None
            except OSError as error:
                raise self._unreadable(path, error) from None
            return values

        def read_part(images: Download, labels: Download, count: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
            pixels = read(images, (count, *self.shape[1:])).reshape(-1, *self.shape)
            return pixels, read(labels, (count,), len(self.class_names)).astype(np.int64)

        train_images, train_labels, test_images, test_labels = self.downloads
        return Arrays(
            train=read_part(train_images, train_labels, self.parts.train),
            test=read_part(test_images, test_labels, self.parts.test),
            class_names=self.class_names,
        )


def _possible_paths(packed: Path) -> Iterator[Path]:
    """Yield the usual paths of an idx file: compressed or not, with a hyphen or a dot before `idx`."""
    for name in (packed.name, packed.name.replace("-idx", ".idx")):
        yield packed.with_name(name.removesuffix(".gz"))
        yield packed.with_name(name)
