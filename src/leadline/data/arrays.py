"""Data sets in memory: the arrays that custom functions and files give, checked before training; no torch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leadline.data.split import PartSizes, cut_test_part
from leadline.errors import DataError

NO_TEST_PART = "no test images are given; a fixed fifth of each class is held out as the test part"
"""Note on a data set without test images."""

Part = tuple[Any, Any]
"""Images and labels: NumPy arrays, or what `numpy.asarray` makes arrays of, such as tensors on the CPU."""


@dataclass(frozen=True, eq=False)
class Arrays:
    """A whole data set in memory, as a custom data set returns it.

    Images are uint8, from 0 to 255, or float32, which are used as they are; [n, channels, height, width]. Labels are
    whole numbers from 0 to classes - 1; [n].

    Args:
        train: training images and labels; the validation images are cut from them unless given.
        test: test images and labels; None: a fixed fifth of each class of `train`, which is then held out.
        validation: validation images and labels; None: cut from `train`.
        class_names: of all classes, in the order of the labels; None: as many classes as the labels have, unnamed.
        note: what a user should know of the data, in one line; mostly empty.

    Example:
        >>> import numpy as np
        >>> images, labels = np.zeros((20, 1, 4, 4), np.uint8), np.arange(20) % 2
        >>> Arrays(train=(images, labels), class_names=["left", "right"]).classes
        2
    """

    train: Part
    test: Part | None = None
    validation: Part | None = None
    class_names: Sequence[str] | None = None
    note: str = ""

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.class_names) if self.class_names is not None else int(np.max(self.train[1])) + 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        channels, height, width = np.shape(self.train[0])[1:]
        return channels, height, width

    @property
    def sizes(self) -> PartSizes:
        """The sizes of the parts; of checked arrays alone, which have a test part."""
        assert self.test is not None
        validation = None if self.validation is None else len(self.validation[1])
        return PartSizes(len(self.train[1]), validation, len(self.test[1]))


def check_arrays(found: object, name: str) -> Arrays:
    """Return a data set in memory with its parts as arrays, its labels int64, and a test part.

    Args:
        found: what a custom function returned, or what was read from a file.
        name: what messages call it.

    Raises:
        DataError: it is no `Arrays`, or holds images or labels that no network can be trained on.
    """
    if not isinstance(found, Arrays):
        raise DataError(f"{name}: returned a {type(found).__name__}; expected leadline.Arrays")
    named = found.class_names
    if named is not None and (isinstance(named, str) or not all(isinstance(one, str) for one in named)):
        raise DataError(f"{name}: class_names {named!r}: expected a list of names")
    parts = {
        part: _check_part(f"{name}: {part}", value)
        for part in ("train", "validation", "test")
        if (value := getattr(found, part)) is not None
    }
    train_images, train_labels = parts["train"]
    for part, (images, _) in parts.items():
        if images.shape[1:] != train_images.shape[1:] or images.dtype != train_images.dtype:
            raise DataError(
                f"{name}: {part} images are {_describe(images)}, and those of train {_describe(train_images)}"
            )
    classes = len(named) if named is not None else int(train_labels.max()) + 1
    if named is not None and len(set(named)) < len(named):
        raise DataError(f"{name}: class_names has {_first_repeated(named)!r} twice")
    for part, (_, labels) in parts.items():
        if labels.max() >= classes:
            known = f"{classes} class_names" if named is not None else f"{classes} classes in train"
            raise DataError(
                f"{name}: {part} label {labels.max()} at position {int(labels.argmax())}, but there are {known}; labels"
                " run from 0"
            )
    missing = np.flatnonzero(np.bincount(train_labels, minlength=classes) == 0)
    if len(missing):
        raise DataError(f"{name}: no training image has label {missing[0]}; labels run from 0 to {classes - 1}")
    if classes < 2:
        raise DataError(f"{name}: all training images have label 0; a network needs two classes or more to tell apart")
    note = found.note
    if "test" not in parts:
        note = f"{name}: {NO_TEST_PART}"
        train, test = cut_test_part(train_labels)
        if len(test) == 0:
            raise DataError(f"{name}: {len(train)} images are too few to cut a test part from; give test")
        parts["test"] = train_images[test], train_labels[test]
        parts["train"] = train_images[train], train_labels[train]
    return replace(found, **parts, class_names=None if named is None else tuple(named), note=note)


def check_labels(labels: Any, name: str) -> NDArray[np.int64]:
    """Return labels as int64, [n].

    Raises:
        DataError: they are no whole numbers of 0 or more.
    """
    array = np.asarray(labels)
    if array.ndim != 1:
        raise DataError(f"{name} labels have shape {list(array.shape)}; expected [n], one number for each image")
    if array.dtype.kind not in "iu":
        raise DataError(f"{name} labels are {array.dtype}; expected whole numbers from 0")
    if len(array) and array.min() < 0:
        raise DataError(f"{name} label {array.min()} at position {int(array.argmin())}; expected 0 or more")
    return array.astype(np.int64)


def _check_part(name: str, part: object) -> tuple[NDArray[Any], NDArray[np.int64]]:
    if not isinstance(part, tuple | list) or len(part) != 2:
        raise DataError(f"{name}: expected a pair of images and labels, got a {type(part).__name__}")
    images = np.asarray(part[0])
    if images.ndim != 4 or images.dtype not in (np.uint8, np.float32):
        raise DataError(
            f"{name} images are {_describe(images)}; expected uint8 or float32 of shape [n, channels, height, width]"
        )
    labels = check_labels(part[1], name)
    if len(images) != len(labels):
        raise DataError(f"{name}: {len(images):,} images, but {len(labels):,} labels")
    if not images.size:
        raise DataError(f"{name} images are empty: shape {list(images.shape)}")
    if images.dtype == np.float32 and not np.isfinite(images).all():
        position = int(np.flatnonzero(~np.isfinite(images).reshape(len(images), -1).all(1))[0])
        raise DataError(f"{name} image {position} holds NaN or infinity; expected finite numbers")
    return np.ascontiguousarray(images), labels


def _describe(images: NDArray[Any]) -> str:
    return f"{images.dtype} of shape {list(images.shape)}"


def _first_repeated(names: Sequence[str]) -> str:
    return next(name for position, name in enumerate(names) if name in names[:position])
