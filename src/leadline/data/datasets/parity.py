"""Parity as a data set: n bits as a row of black and white pixels with the label sum(x) mod 2; computed, not read.

It has all 2^n inputs, or a sample of distinct ones. Some are held out for testing, which distinguishes learning the
function from memorising the table. No torch.
"""

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from leadline.data.arrays import Arrays
from leadline.data.datasets import DATASETS, DataSpec
from leadline.data.metadata import Metadata
from leadline.data.split import PartSizes, split_mix, stratified_order
from leadline.errors import DataError
from leadline.seeds import SUBSET, stream

ALL_INPUTS_TO = 16
"""Maximum number of bits for which all inputs are used."""
MOST_SAMPLES = 2**20
"""Maximum number of sampled inputs."""
HELD_OUT = 4
"""One input in this many is a test image, unless the specification sets their number."""
SAMPLED_FROM_ALL_TO = 20
"""Maximum number of bits for which a sample is chosen from a list of all inputs; beyond, inputs are drawn at random."""


@DATASETS.register
class Parity(DataSpec):
    """Parity of n bits: 1 x n, black and white, two classes; computed."""

    name: Literal["parity"] = "parity"
    bits: int = Field(default=10, ge=2, le=64, description="n, the number of bits of an input")
    samples: int | None = Field(
        default=None,
        ge=1,
        le=MOST_SAMPLES,
        description=f"distinct inputs drawn at random by subset_seed, held-out ones included; None: all 2^n, up to"
        f" {ALL_INPUTS_TO} bits",
    )

    @model_validator(mode="after")
    def _check_samples(self) -> "Parity":
        everything = 2**self.bits
        if self.samples is None and self.bits > ALL_INPUTS_TO:
            raise ValueError(
                f"bits {self.bits} has 2^{self.bits} = {everything:,} inputs, too many to take all, which goes to"
                f" {ALL_INPUTS_TO} bits; give samples, up to {min(everything, MOST_SAMPLES):,} of them"
            )
        if self.samples is not None and self.samples > everything:
            raise ValueError(
                f"samples {self.samples:,} are more than the 2^{self.bits} = {everything:,} possible inputs; remove it"
                f" to use all of them"
            )
        if self.augment is not None:
            raise ValueError("augment of name parity would change bits and not the label; leave it out")
        return self

    @property
    def known_sizes(self) -> PartSizes:
        """The sizes of the parts.

        Raises:
            DataError: no input would be left for training, or none would be held out.
        """
        inputs = self.samples or 2**self.bits
        test = self.test or inputs // HELD_OUT
        if test == 0:
            raise DataError(f"parity: a quarter of its {inputs} inputs for testing is zero; set data.test")
        if test >= inputs:
            raise DataError(
                f"parity: {test} test inputs leave none of its {inputs:,} for training; lower data.test, or raise"
                " data.bits or data.samples"
            )
        return PartSizes(inputs - test, None, test)

    def metadata(self, data_dir: Path) -> Metadata:
        """Return the shape, 1 x 1 x bits, and the two classes.

        Raises:
            DataError: as `known_sizes`.
        """
        assert self.known_sizes
        return Metadata((1, 1, self.bits), 2, ("even", "odd"))

    def read(self, data_dir: Path, download: bool = True) -> Arrays:
        """Return the training inputs and the held-out inputs, both stratified by class.

        Images are [n, 1, 1, bits], 255 for a bit that is 1, with the most significant bit first; labels are [n]. Inputs
        are distinct and sorted as integers in each part. `subset_seed` determines the sample and the held-out inputs.

        Raises:
            DataError: as `known_sizes`.
        """
        count = self.known_sizes.test
        inputs = _inputs(self)
        labels = _parity(inputs)
        order = stratified_order(labels, stream(self.subset_seed, SUBSET, "parity", "test"))
        test, train = np.sort(order[:count]), np.sort(order[count:])
        return Arrays(
            (_images(inputs[train], self.bits), labels[train]),
            (_images(inputs[test], self.bits), labels[test]),
            class_names=("even", "odd"),
        )


def _inputs(spec: Parity) -> NDArray[np.uint64]:
    """Return the inputs as sorted integers: all of them, or a sample without repetition."""
    count, seed = spec.samples or 2**spec.bits, stream(spec.subset_seed, SUBSET, "parity", "sample")
    if spec.bits <= SAMPLED_FROM_ALL_TO:
        everything = np.arange(2**spec.bits, dtype=np.uint64)
        return everything[np.sort(stratified_order(_parity(everything), seed)[:count])]
    found = np.zeros(0, np.uint64)
    drawn = 0
    while len(found) < count:
        # keep the first of equal draws, in the order of drawing, so that larger samples contain smaller ones
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
