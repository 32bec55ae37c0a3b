"""Stratified choice of images, with an order that is the same on every machine and in every version."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from leadline.errors import DataError
from leadline.seeds import SPLIT, SUBSET, stream

if TYPE_CHECKING:
    from leadline.data.datasets import DataSpec

Resample = Literal["bootstrap", "split"]
"""What is drawn again at every seed: training images, with replacement, or which images are to train and test on."""
MOST_VALIDATION = 5_000
"""Maximum number of validation images, unless the specification sets their number."""
TEST_SHARE = 5
"""Without a test part, one image in this many of each class is held out for testing."""


@dataclass(frozen=True, eq=False)
class Cut:
    """Ascending positions of the images of each split; the first two refer to the training part of the data."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


@dataclass(frozen=True)
class PartSizes:
    """Numbers of images in the parts of a data set; validation None: it is split off the training part."""

    train: int
    validation: int | None
    test: int


def cut(
    train_labels: NDArray[Any],
    test_labels: NDArray[Any],
    spec: "DataSpec",
    validation_labels: NDArray[Any] | None = None,
    seed: int = 0,
) -> Cut:
    """Choose the images of the three splits, stratified by class.

    Unless the data have validation images, these are split off the training part. They are the same for every seed, and
    smaller validation parts are contained in larger ones. Subsets of training and test images are chosen by
    `spec.subset_seed`, and are also contained in the larger subsets of that seed. With a bootstrap, as many training
    images are drawn from these with replacement, by `seed`: the only choice that differs from trial to trial.
    """
    held = train_labels if validation_labels is None else validation_labels
    order = stratified_order(held, stream(0, SUBSET, "validation"))
    count = split_sizes(PartSizes(len(train_labels), _len(validation_labels), len(test_labels)), spec).validation
    held_out, rest = np.sort(order[:count]), np.sort(order[count:])
    if validation_labels is not None:
        rest = np.arange(len(train_labels))
    train = rest[_subset(train_labels[rest], spec.train, stream(spec.subset_seed, SUBSET, "train"))]
    if spec.resample == "bootstrap":
        drawn = split_mix(np.arange(len(train), dtype=np.uint64), stream(seed, SPLIT, "bootstrap"))
        train = np.sort(train[(drawn % np.uint64(len(train))).astype(np.int64)])
    return Cut(train, held_out, _subset(test_labels, spec.test, stream(spec.subset_seed, SUBSET, "test")))


def redraw(train_labels: NDArray[Any], test_labels: NDArray[Any], seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return ascending positions of new training and test images among both, as many of each, stratified by class.

    Args:
        train_labels, test_labels: of the parts as they are, one after the other.
        seed: the trial's seed.
    """
    order = stratified_order(np.concatenate([train_labels, test_labels]), stream(seed, SPLIT, "split"))
    return np.sort(order[len(test_labels) :]), np.sort(order[: len(test_labels)])


def cut_test_part(labels: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the positions of the remaining training images, and of the fixed fifth of each class for testing."""
    order = stratified_order(labels, stream(0, SUBSET, "imagefolder"))
    count = len(labels) // TEST_SHARE
    return np.sort(order[count:]), np.sort(order[:count])


@dataclass(frozen=True)
class SplitSizes:
    """Numbers of images in the three splits of a specification."""

    train: int
    validation: int
    test: int


def split_sizes(parts: PartSizes, spec: "DataSpec") -> SplitSizes:
    """Return the number of images in each split, given the sizes of the parts; see `validate_split_sizes`."""
    if parts.validation is None:
        validation = spec.validation or min(parts.train // 10, MOST_VALIDATION)
        return SplitSizes(spec.train or parts.train - validation, validation, spec.test or parts.test)
    return SplitSizes(spec.train or parts.train, spec.validation or parts.validation, spec.test or parts.test)


def validate_split_sizes(name: str, parts: PartSizes, spec: "DataSpec") -> None:
    """Check the requested numbers of images against the sizes of the parts.

    Raises:
        DataError: more images are requested than available, or none would be left for training or validation.
    """
    train, validation = parts.train, split_sizes(parts, spec).validation
    if parts.validation is not None:
        if validation > parts.validation:
            raise DataError(
                f"{name}: {validation} validation images requested, but it has {parts.validation};"
                " lower data.validation"
            )
        if spec.train is not None and spec.train > train:
            raise DataError(f"{name}: {spec.train} training images requested, but it has {train}; lower data.train")
    else:
        if validation == 0:
            raise DataError(
                f"{name}: a tenth of its {train} training images for validation is zero; set data.validation"
            )
        if validation >= train:
            raise DataError(
                f"{name}: {validation} validation images leave none of its {train} for training; lower data.validation"
            )
        if spec.train is not None and spec.train > train - validation:
            raise DataError(
                f"{name}: {spec.train} training images requested, but of its {train} only {train - validation} remain"
                f" besides {validation} for validation; lower data.train or data.validation"
            )
    if spec.test is not None and spec.test > parts.test:
        raise DataError(f"{name}: {spec.test} test images requested, but it has {parts.test}; lower data.test")


def _len(labels: NDArray[Any] | None) -> int | None:
    return None if labels is None else len(labels)


def _subset(labels: NDArray[Any], count: int | None, seed: int) -> NDArray[np.int64]:
    if count is None:
        return np.arange(len(labels))
    return np.sort(stratified_order(labels, seed)[:count])


def stratified_order(labels: NDArray[Any], seed: int) -> NDArray[np.int64]:
    """Return an order of all images whose prefixes have the classes in their proportions.

    Smaller subsets are therefore contained in larger ones of the same seed. Within a class, the order is that of
    SplitMix64 of (seed, position), a pure function.

    Args:
        labels: [n], classes from 0; real-valued targets count as one class.
        seed: 63 bits, as from `leadline.seeds.stream`.
    """
    keys = split_mix(np.arange(len(labels), dtype=np.uint64), seed)
    if labels.dtype.kind == "f":
        labels = np.zeros(len(labels), np.int64)
    by_class = np.lexsort((keys, labels))
    sizes = np.bincount(labels)
    starts = np.cumsum(sizes) - sizes
    classes = labels[by_class]
    rank = np.arange(len(labels)) - starts[classes]
    # The position of each image within its class, from 0 to 1, so that classes of any size advance together.
    progress = (rank + 0.5) / sizes[classes]
    return by_class[np.lexsort((keys[by_class], progress))].astype(np.int64)


def split_mix(positions: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """Return the outputs of SplitMix64 at the given positions: Steele, Lea & Flood 2014.

    Args:
        positions: [n], counted from 0.
        seed: initial state, 64 bits.
    """
    state = np.uint64(seed) + (positions + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = state ^ (state >> np.uint64(31))
    return mixed
