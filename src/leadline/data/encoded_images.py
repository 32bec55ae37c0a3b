"""Encoded images, such as JPEG or PNG, which are decoded on demand; no torch."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leadline.data.arrays import NO_TEST_PART
from leadline.data.split import PartSizes, cut_test_part
from leadline.errors import DataError


@dataclass(frozen=True, eq=False)
class Part:
    """Images of one part of the data: their keys and their classes from 0."""

    paths: tuple[str, ...]
    labels: NDArray[np.int64]

    def at(self, chosen: NDArray[np.int64]) -> "Part":
        """Return the images at these positions, in this order."""
        return Part(tuple(self.paths[position] for position in chosen.tolist()), self.labels[chosen])


@dataclass(frozen=True, eq=False)
class EncodedImages:
    """A data set whose images are read one by one."""

    name: str
    """Name of the data set in messages."""
    root: Path
    """Prefix of the keys of images in messages."""
    class_names: tuple[str, ...]
    train: Part
    test: Part
    read: Callable[[str], bytes]
    """Function that returns the encoded image of a key, and raises `DataError` if it cannot be read."""
    validation: Part | None = None
    notes: tuple[str, ...] = ()
    """Lines that a user should know about the data, such as skipped images."""

    @classmethod
    def of_parts(
        cls,
        name: str,
        root: Path,
        class_names: tuple[str, ...],
        parts: Mapping[str, Part],
        read: Callable[[str], bytes],
        notes: tuple[str, ...] = (),
    ) -> "EncodedImages":
        """Return a data set from the parts train, validation and test; a missing test part is split off train.

        Raises:
            DataError: a class has no training image, or there are too few images to split off a test part.
        """
        train, test = parts.get("train", Part((), np.zeros(0, np.int64))), parts.get("test")
        missing = np.flatnonzero(np.bincount(train.labels, minlength=len(class_names)) == 0)
        if len(missing):
            raise DataError(f"{name}: no training image is of class {class_names[missing[0]]!r}")
        if test is None:
            kept, held_out = cut_test_part(train.labels)
            if len(held_out) == 0:
                raise DataError(f"{name}: {len(kept)} images are too few to split off a test part; add images")
            train, test = train.at(kept), train.at(held_out)
            notes = (*notes, f"{name}: {NO_TEST_PART}")
        return cls(name, root, class_names, train, test, read, parts.get("validation"), notes)

    @property
    def sizes(self) -> PartSizes:
        """The sizes of the parts."""
        validation = None if self.validation is None else len(self.validation.labels)
        return PartSizes(len(self.train.labels), validation, len(self.test.labels))


def sort_class_names(labels: Iterable[str]) -> tuple[str, ...]:
    """Return the names of classes, sorted numerically if all are integers, else alphabetically.

    Example:
        >>> sort_class_names({"10", "9", "0"}), sort_class_names({"10", "9", "cat"})
        (('0', '9', '10'), ('10', '9', 'cat'))
    """
    names = sorted(labels)
    numbers = all(name.removeprefix("-").isdecimal() for name in names)
    return tuple(sorted(names, key=int) if numbers else names)
