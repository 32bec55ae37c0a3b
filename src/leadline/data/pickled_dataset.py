"""Data sets of pickled batches, in a folder or a tar.gz archive, such as CIFAR."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from leadline.data.arrays import Arrays
from leadline.data.formats.cifar import largest_batch, read_batch, read_members
from leadline.data.published import Download, PublishedDataSpec


class PickledDataSpec(PublishedDataSpec):
    """Base class of data sets of pickled batches, with an archive as the only download."""

    folder: ClassVar[str]  # on disk as well as inside the archive
    train_batches: ClassVar[tuple[str, ...]]
    test_batches: ClassVar[tuple[str, ...]]
    labels_key: ClassVar[str]  # of a batch

    def _find(self, folder: Path) -> tuple[Mapping[str, Path], tuple[Download, ...]]:
        batches = {name: folder / self.folder / name for name in (*self.train_batches, *self.test_batches)}
        if all(path.is_file() for path in batches.values()):
            return batches, ()
        (archive,) = self.downloads
        path = folder / archive.path
        return ({archive.name: path}, ()) if path.is_file() else ({}, self.downloads)

    def _read_files(self, found: Mapping[str, Path], data_dir: Path) -> Arrays:
        parts = {
            name: (np.empty((count, *self.shape), np.uint8), np.empty(count, np.int64))
            for name, count in (("train", self.parts.train), ("test", self.parts.test))
        }
        counts = {name: self.parts.train // len(self.train_batches) for name in self.train_batches}
        counts |= {name: self.parts.test // len(self.test_batches) for name in self.test_batches}
        limits = {name: largest_batch(count, self.shape) for name, count in counts.items()}

        def keep(name: str, content: bytes) -> None:
            train = name in self.train_batches
            images, labels = parts["train" if train else "test"]
            first = (self.train_batches if train else self.test_batches).index(name) * counts[name]
            place = slice(first, first + counts[name])
            images[place], labels[place] = read_batch(
                content, counts[name], self.shape, len(self.class_names), self.labels_key
            )

        for source, path in found.items():
            try:
                if source == self.downloads[0].name:
                    for name, content in read_members(path, self.folder, limits):
                        try:
                            keep(name, content)
                        except ValueError as error:
                            raise ValueError(f"{self.folder}/{name} in it: {error}") from None
                else:
                    keep(source, _read_bounded(path, limits[source]))
            except ValueError as error:
                raise self._damaged(path, error, data_dir) from None
            except OSError as error:
                raise self._unreadable(path, error) from None
        return Arrays(parts["train"], parts["test"], class_names=self.class_names)


def _read_bounded(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"holds more than {limit:,} bytes, the most that such a batch takes")
    return content
