"""MNIST handwritten digits (LeCun et al. 1998)."""

from typing import ClassVar, Literal

from leadline.data.datasets import DATASETS
from leadline.data.idx_dataset import IdxDataSpec, idx_downloads
from leadline.data.split import PartSizes


@DATASETS.register
class MNIST(IdxDataSpec):
    """MNIST handwritten digits: 28x28, grey, ten classes."""

    shape: ClassVar = (1, 28, 28)
    class_names: ClassVar = tuple("0123456789")
    parts: ClassVar = PartSizes(60_000, None, 10_000)
    downloads: ClassVar = idx_downloads(
        "MNIST/raw",
        ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
        (9_912_422, 28_881, 1_648_877, 4_542),
        (
            "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
        ),
    )

    name: Literal["mnist"] = "mnist"
