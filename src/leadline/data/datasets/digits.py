"""scikit-learn's handwritten digits, which come with the package: `digits.npz`, whose source `digits.txt` names."""

from pathlib import Path
from typing import Literal

import numpy as np

from leadline.data.arrays import Arrays
from leadline.data.datasets import DATASETS, DataSpec
from leadline.data.metadata import Metadata
from leadline.data.split import PartSizes, stratified_order
from leadline.seeds import SUBSET, stream


@DATASETS.register
class Digits(DataSpec):
    """scikit-learn's handwritten digits: 8x8, grey, ten classes; no file is needed."""

    name: Literal["digits"] = "digits"

    @property
    def known_sizes(self) -> PartSizes:
        """The sizes of the parts."""
        return PartSizes(1_437, None, 360)

    def metadata(self, data_dir: Path) -> Metadata:
        """Return what is known of the digits."""
        return Metadata((1, 8, 8), 10, tuple("0123456789"))

    def read(self, data_dir: Path, download: bool = True) -> Arrays:
        """Scale the digits from 0..16 to 0..255; a fixed fifth of each class is the test part."""
        with np.load(Path(__file__).with_suffix(".npz")) as file:
            images = np.rint(file["images"] * (255 / 16)).astype(np.uint8)[:, None]
            labels = file["labels"].astype(np.int64)
        order = stratified_order(labels, stream(0, SUBSET, "digits"))
        count = self.known_sizes.test
        test, train = np.sort(order[:count]), np.sort(order[count:])
        return Arrays((images[train], labels[train]), (images[test], labels[test]), class_names=tuple("0123456789"))
