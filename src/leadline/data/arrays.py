"""Data sets in memory: arrays from custom functions and files, checked before training; no torch."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leadline.data.split import PartSizes, cut_test_part
from leadline.errors import DataError
from leadline.parts.tasks import Task, task_of

NO_TEST_PART = "no test images given; a fixed fifth of each class is held out as test data"
"""Note on a data set without test images."""

Part = tuple[Any, Any]
"""Images and labels: NumPy arrays, or objects that `numpy.asarray` converts, such as tensors on the CPU."""


@dataclass(frozen=True, eq=False)
class Arrays:
    """A data set in memory, as returned by a custom data set.

    Images are uint8 from 0 to 255, or float32, which are used as they are; [n, channels, height, width]. Labels are
    integers from 0 to classes - 1; [n]. For tasks other than classification, targets take the place of labels, such as
    numbers of shape [n] or [n, outputs].

    Args:
        train: training images and labels; validation images are split off unless given.
        test: test images and labels; None: a fixed fifth of each class of `train` is held out.
        validation: validation images and labels; None: split off `train`.
        class_names: names of all classes in the order of the labels; None: classes have no names.
        note: a line that a user should know about the data; usually empty.

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
        """The number of classes; for real-valued targets, the number of outputs."""
        targets = np.asarray(self.train[1])
        if targets.dtype.kind == "f":
            return 1 if targets.ndim == 1 else targets.shape[1]
        return len(self.class_names) if self.class_names is not None else int(targets.max()) + 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        channels, height, width = np.shape(self.train[0])[1:]
        return channels, height, width

    @property
    def has_pixels(self) -> bool:
        """Whether images are of uint8, from 0 to 255, and not of float32."""
        return bool(np.asarray(self.train[0]).dtype == np.uint8)

    @property
    def notes(self) -> tuple[str, ...]:
        """The note, if there is one."""
        return (self.note,) if self.note else ()

    @property
    def sizes(self) -> PartSizes:
        """The sizes of the parts; only of checked arrays, which have a test part."""
        assert self.test is not None
        validation = None if self.validation is None else len(self.validation[1])
        return PartSizes(len(self.train[1]), validation, len(self.test[1]))


def check_arrays(found: object, name: str, task: Task | None = None) -> Arrays:
    """Check a data set, convert its images and targets to the types that training expects, and split off a test part.

    Args:
        found: the result of a custom function, or the content of a file.
        name: name of the data set in messages.
        task: the task; None: classification.

    Raises:
        DataError: it is not an `Arrays`, or its images or labels are invalid.
    """
    task = task or task_of("classification")
    if not isinstance(found, Arrays):
        raise DataError(f"{name}: returned a {type(found).__name__}; expected leadline.Arrays")
    named = found.class_names
    if named is not None and (isinstance(named, str) or not all(isinstance(one, str) for one in named)):
        raise DataError(f"{name}: class_names {named!r}: expected a list of names")
    parts = {
        part: _check_part(f"{name}: {part}", value, task)
        for part in ("train", "validation", "test")
        if (value := getattr(found, part)) is not None
    }
    train_images, train_labels = parts["train"]
    for part, (images, _) in parts.items():
        if images.shape[1:] != train_images.shape[1:] or images.dtype != train_images.dtype:
            raise DataError(
                f"{name}: {part} images are {_describe(images)}, and those of train {_describe(train_images)}"
            )
    if named is not None and len(set(named)) < len(named):
        raise DataError(f"{name}: class_names has {_first_repeated(named)!r} twice")
    task.check_parts({part: targets for part, (_, targets) in parts.items()}, named, name)
    note = found.note
    if "test" not in parts:
        note = f"{note} {name}: {NO_TEST_PART}".lstrip()
        train, test = cut_test_part(train_labels)
        if len(test) == 0:
            raise DataError(
                f"{name}: {len(train)} images are too few to split off a test part; add images, or give test"
            )
        parts["test"] = train_images[test], train_labels[test]
        parts["train"] = train_images[train], train_labels[train]
    return replace(found, **parts, class_names=None if named is None else tuple(named), note=note)


def looks_channels_last(images: NDArray[Any]) -> bool:
    """Return whether images of shape [n, ?, ?, ?] have 1 or 3 channels in their last axis and not in their second."""
    return images.ndim == 4 and images.shape[3] in (1, 3) and images.shape[1] > 3


def _check_part(name: str, part: object, task: Task) -> tuple[NDArray[Any], NDArray[Any]]:
    if not isinstance(part, tuple | list) or len(part) != 2:
        raise DataError(f"{name}: expected a pair of images and labels, got a {type(part).__name__}")
    images = np.asarray(part[0])
    if images.ndim != 4 or images.dtype not in (np.uint8, np.float32):
        raise DataError(
            f"{name} images are {_describe(images)}; expected uint8 or float32 of shape [n, channels, height, width]"
        )
    if looks_channels_last(images):
        raise DataError(
            f"{name} images are {_describe(images)}, which looks like channels last; expected [n, channels, height,"
            " width], as `images.transpose(0, 3, 1, 2)` gives"
        )
    labels = task.check_targets(part[1], name)
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
