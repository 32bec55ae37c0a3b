"""Choosing images evenly over the classes, in an order that is the same on every machine and in every version."""

from typing import Any

import numpy as np
from numpy.typing import NDArray


def stratified_order(labels: NDArray[Any], seed: int) -> NDArray[np.int64]:
    """Return an order of all images of which every beginning holds the classes in their proportions.

    So a smaller subset lies inside each larger one of the same seed. Within a class the order is that of
    SplitMix64 of (seed, position), a pure function with no generator behind it.

    Args:
        labels: [n], classes from 0 up.
        seed: 63 bits, as `leadline.seeds.stream` gives.
    """
    keys = _split_mix(np.arange(len(labels), dtype=np.uint64), seed)
    by_class = np.lexsort((keys, labels))
    sizes = np.bincount(labels)
    starts = np.cumsum(sizes) - sizes
    classes = labels[by_class]
    rank = np.arange(len(labels)) - starts[classes]
    # The middle of each image's share of its class: classes of any size advance together.
    progress = (rank + 0.5) / sizes[classes]
    return by_class[np.lexsort((keys[by_class], progress))].astype(np.int64)


def _split_mix(positions: NDArray[np.uint64], seed: int) -> NDArray[np.uint64]:
    """Steele, Lea & Flood 2014: the positions-th outputs of the generator that starts at the seed."""
    state = np.uint64(seed) + (positions + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: NDArray[np.uint64] = state ^ (state >> np.uint64(31))
    return mixed
