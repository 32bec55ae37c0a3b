"""Parity as a data set: n bits as one row of black and white pixels, labelled sum(x) mod 2; computed, never read.

All 2^n inputs, or a sample of distinct ones. A part of them is held out as test images, so that what a network has
learned of the function can be told from what it remembers of the table. No torch.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from leadline.data.catalog import CATALOG, DatasetInfo
from leadline.data.split import split_mix, stratified_order
from leadline.errors import DataError
from leadline.seeds import SUBSET, stream
from leadline.spec import DataSpec

HELD_OUT = 4
"""One input in so many is a test image, unless the specification says how many are."""
SAMPLED_FROM_ALL_TO = 20
"""Up to so many bits a sample is chosen from a list of all inputs, above it drawn; then it is half of them at most."""


def facts(spec: DataSpec) -> DatasetInfo:
    """Return the shape, 1 x 1 x bits, and the sizes of the parts of what a specification asks for.

    Raises:
        DataError: no input would be left for training, or none would be held out.
    """
    inputs = spec.samples or 2**spec.bits
    test = spec.test or inputs // HELD_OUT
    if test == 0:
        raise DataError(f"parity: a quarter of its {inputs} inputs for testing is none; give data.test")
    if test >= inputs:
        raise DataError(
            f"parity: {test} test inputs leave none of its {inputs:,} for training; lower data.test, or give more"
            " data.bits or data.samples"
        )
    return replace(CATALOG["parity"], shape=(1, 1, spec.bits), train=inputs - test, test=test)


def parts(
    spec: DataSpec,
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.uint8], NDArray[np.int64]]:
    """Return training images and labels, then those that are held out, each with the classes in their proportions.

    Images are [n, 1, 1, bits], 255 for a bit that is 1, the most significant first; labels are [n]. No input occurs
    twice, and those of a part rise as whole numbers. `spec.subset_seed` chooses the sample and what is held out.

    Raises:
        DataError: as `facts`.
    """
    info = facts(spec)
    inputs = _inputs(spec)
    labels = _parity(inputs)
    order = stratified_order(labels, stream(spec.subset_seed, SUBSET, "parity", "test"))
    test, train = np.sort(order[: info.test]), np.sort(order[info.test :])
    return _images(inputs[train], spec.bits), labels[train], _images(inputs[test], spec.bits), labels[test]


def _inputs(spec: DataSpec) -> NDArray[np.uint64]:
    """Return the inputs as whole numbers, rising: all of them, or a sample without repetition."""
    count, seed = spec.samples or 2**spec.bits, stream(spec.subset_seed, SUBSET, "parity", "sample")
    if spec.bits <= SAMPLED_FROM_ALL_TO:
        everything = np.arange(2**spec.bits, dtype=np.uint64)
        return everything[np.sort(stratified_order(_parity(everything), seed)[:count])]
    found = np.zeros(0, np.uint64)
    drawn = 0
    while len(found) < count:
        # the first of equal draws stays, in the order of drawing, so that a smaller sample lies inside a larger one
        drawn = max(count, 2 * drawn)
        words = split_mix(np.arange(drawn, dtype=np.uint64), seed) >> np.uint64(64 - spec.bits)
        found = words[np.sort(np.unique(words, return_index=True)[1])]
    return np.sort(found[:count])


def _parity(inputs: NDArray[np.uint64]) -> NDArray[np.int64]:
    for half in (32, 16, 8, 4, 2, 1):
        inputs = inputs ^ (inputs >> np.uint64(half))
    return (inputs & np.uint64(1)).astype(np.int64)


def _images(inputs: NDArray[np.uint64], bits: int) -> NDArray[np.uint8]:
    places = np.arange(bits - 1, -1, -1, dtype=np.uint64)
    images: NDArray[np.uint8] = ((inputs[:, None] >> places) & np.uint64(1)).astype(np.uint8) * np.uint8(255)
    return images.reshape(-1, 1, 1, bits)
