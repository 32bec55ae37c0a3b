"""Choosing images evenly over the classes, in an order that is the same on every machine and in every version."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from leadline.errors import DataError
from leadline.seeds import SUBSET, stream
from leadline.spec import DataSpec

MOST_VALIDATION = 5_000


@dataclass(frozen=True, eq=False)
class Cut:
    """Positions of the images of each split, rising: of the first two in the data's training part."""

    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]


def cut(train_labels: NDArray[np.int64], test_labels: NDArray[np.int64], spec: DataSpec) -> Cut:
    """Choose the images of the three splits, evenly over the classes.

    The validation part is cut from the training part and is the same for every seed; a smaller one lies inside a
    larger one. Subsets of training and test images are chosen by `spec.subset_seed`, again each inside the larger
    ones of that seed.
    """
    order = stratified_order(train_labels, stream(0, SUBSET, "validation"))
    validation = _validation(len(train_labels), spec)
    held_out, rest = np.sort(order[:validation]), np.sort(order[validation:])
    train = rest[_subset(train_labels[rest], spec.train, stream(spec.subset_seed, SUBSET, "train"))]
    return Cut(train, held_out, _subset(test_labels, spec.test, stream(spec.subset_seed, SUBSET, "test")))


def see_to_it_that_there_are_enough(name: str, train: int, test: int, spec: DataSpec) -> None:
    """Compare what a specification asks for with the images that the two parts of a data set have.

    Raises:
        DataError: more are asked for than there are, or none would be left for training or validation.
    """
    validation = _validation(train, spec)
    if validation == 0:
        raise DataError(f"{name}: a tenth of its {train} training images for validation is none; give data.validation")
    if validation >= train:
        raise DataError(
            f"{name}: {validation} validation images leave none of its {train} for training;"
            f" ask for a smaller data.validation"
        )
    if spec.train is not None and spec.train > train - validation:
        raise DataError(
            f"{name}: {spec.train} training images asked for, but of its {train} there are"
            f" {train - validation} beside {validation} for validation; lower data.train or data.validation"
        )
    if spec.test is not None and spec.test > test:
        raise DataError(f"{name}: {spec.test} test images asked for, but it has {test}; lower data.test")


def _validation(train: int, spec: DataSpec) -> int:
    return spec.validation or min(train // 10, MOST_VALIDATION)


def _subset(labels: NDArray[np.int64], count: int | None, seed: int) -> NDArray[np.int64]:
    if count is None:
        return np.arange(len(labels))
    return np.sort(stratified_order(labels, seed)[:count])


def stratified_order(labels: NDArray[Any], seed: int) -> NDArray[np.int64]:
    """Return an order of all images of which every beginning holds the classes in their proportions.

    So a smaller subset lies inside each larger one of the same seed. Within a class the order is that of
    SplitMix64 of (seed, position), a pure function with no generator behind it.

    Args:
        labels: [n], classes from 0 up.
        seed: 63 bits, as `leadline.seeds.stream` gives.
    """
    keys = split_mix(np.arange(len(labels), dtype=np.uint64), seed)
    by_class = np.lexsort((keys, labels))
    sizes = np.bincount(labels)
    starts = np.cumsum(sizes) - sizes
    classes = labels[by_class]
    rank = np.arange(len(labels)) - starts[classes]
    # The middle of each image's share of its class: classes of any size advance together.
    progress = (rank + 0.5) / sizes[classes]
    return by_class[np.lexsort((keys[by_class], progress))].astype(np.int64)


def split_mix(positions: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """Return the outputs at positions of SplitMix64 from a seed: Steele, Lea & Flood 2014.

    Args:
        positions: [n], counted from 0.
        seed: the state that the generator starts from, 64 bits.
    """
    state = np.uint64(seed) + (positions + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = state ^ (state >> np.uint64(31))
    return mixed
