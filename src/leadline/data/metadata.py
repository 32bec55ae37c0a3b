"""Metadata of a data set, known without reading its images; no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from leadline.data.files import default_data_dir

if TYPE_CHECKING:
    from leadline.data.arrays import Arrays
    from leadline.data.datasets import DataSpec


@dataclass(frozen=True)
class Metadata:
    """Shape of an image, number of classes, their names if known, and what images are made of."""

    shape: tuple[int, int, int]  # channels, height, width
    classes: int
    class_names: tuple[str, ...] | None = None
    pixels: bool = True  # of uint8, from 0 to 255; False: of float32

    @classmethod
    def of_arrays(cls, arrays: "Arrays") -> "Metadata":
        """Return the metadata of arrays."""
        return cls(arrays.shape, arrays.classes, _tuple(arrays.class_names), arrays.has_pixels)


def describe(spec: "DataSpec", data_dir: Path | None = None) -> tuple[tuple[int, int, int], int]:
    """Return the shape of an image (channels, height, width) and the number of classes.

    Args:
        spec: any data set.
        data_dir: folder of the files; None: the default folder.

    Raises:
        DataError: a file is missing or damaged, or a folder of images is not sorted into classes.
    """
    found = spec.metadata(data_dir or default_data_dir())
    return found.shape, found.classes


def _tuple(names: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(names)
