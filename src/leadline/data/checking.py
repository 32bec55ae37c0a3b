"""Check a data set: read every file and count its images; no torch."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from leadline.data.arrays import Arrays
from leadline.data.datasets import DataSpec
from leadline.data.files import compute_sha256, default_data_dir
from leadline.data.published import PublishedDataSpec


@dataclass(frozen=True)
class CheckedFile:
    """A file of a data set."""

    path: str
    bytes: int
    checksum: str  # in words: how the file compares with the published one

    def __str__(self) -> str:
        return f"{self.path}: {self.bytes:,} bytes, {self.checksum}"


@dataclass(frozen=True)
class CheckedPart:
    """The training, validation or test images of a data set."""

    part: str
    images: int
    shape: tuple[int, int, int]  # channels, height, width
    classes: int
    smallest_class: int  # images
    largest_class: int

    def __str__(self) -> str:
        shape = "x".join(map(str, self.shape))
        sizes = f"{self.classes} classes of {self.smallest_class:,} to {self.largest_class:,}"
        return f"{self.part}: {self.images:,} images of {shape}, {sizes}"


@dataclass(frozen=True)
class Checked:
    """What a data set holds."""

    name: str
    files: tuple[CheckedFile, ...]  # of published data sets
    parts: tuple[CheckedPart, ...]
    notes: tuple[str, ...]  # what is not used, and why

    @property
    def lines(self) -> list[str]:
        """A line about each file, each part of the data and what is not used."""
        return [*map(str, self.files), *(f"{self.name} {part}" for part in self.parts), *self.notes]


def check(spec: DataSpec, data_dir: Path | None = None) -> Checked:
    """Read every file of a data set, and return what is in each file and each part of the data.

    Args:
        spec: any data set.
        data_dir: folder of the files; None: the default folder.

    Raises:
        DataError: a file is missing or invalid.
    """
    folder = data_dir or default_data_dir()
    found = spec.read(folder, download=False)
    files = tuple(_check_files(spec, folder)) if isinstance(spec, PublishedDataSpec) else ()
    known = spec.metadata(folder)
    parts = []
    for name in ("train", "validation", "test"):
        part = getattr(found, name)
        if part is None:
            continue
        labels = part[1] if isinstance(found, Arrays) else part.labels
        counts = np.bincount(labels, minlength=known.classes)
        parts.append(CheckedPart(name, len(labels), known.shape, known.classes, int(counts.min()), int(counts.max())))
    noise = [] if spec.label_noise is None else [f"{spec.label_noise}; the numbers above are of labels without it."]
    return Checked(spec.display_name, files, tuple(parts), (*found.notes, *noise))


def _check_files(spec: PublishedDataSpec, folder: Path) -> Iterator[CheckedFile]:
    published = {item.name: item.sha256 for item in spec.downloads}
    for path in spec.files(folder):
        if path.name not in published:
            note = "no checksum is published for this form"
        elif compute_sha256(path) == published[path.name]:
            note = "as published"
        else:
            note = "well-formed, but not identical to the published file: repacked, or with different pixels"
        yield CheckedFile(str(path), path.stat().st_size, note)
