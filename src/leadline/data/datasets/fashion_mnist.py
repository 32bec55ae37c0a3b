"""Fashion-MNIST (Xiao, Rasul & Vollgraf 2017)."""

from typing import ClassVar, Literal

from leadline.data.datasets import DATASETS
from leadline.data.idx_dataset import IdxDataSpec, idx_downloads
from leadline.data.split import PartSizes


@DATASETS.register
class FashionMNIST(IdxDataSpec):
    """Fashion-MNIST articles: 28x28, grey, ten classes."""

    shape: ClassVar = (1, 28, 28)
    class_names: ClassVar = (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )
    parts: ClassVar = PartSizes(60_000, None, 10_000)
    downloads: ClassVar = idx_downloads(
        "FashionMNIST/raw",
        (
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        ),
        (26_421_880, 29_515, 4_422_102, 5_148),
        (
            "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        ),
    )

    name: Literal["fashion-mnist"] = "fashion-mnist"
