"""Kuzushiji-MNIST (Clanuwat et al. 2018); its classes are ten Hiragana, here by their sound."""

from typing import ClassVar, Literal

from leadline.data.datasets import DATASETS
from leadline.data.idx_dataset import IdxDataSpec, idx_downloads
from leadline.data.split import PartSizes


@DATASETS.register
class KMNIST(IdxDataSpec):
    """Kuzushiji-MNIST cursive Japanese: 28x28, grey, ten classes."""

    shape: ClassVar = (1, 28, 28)
    class_names: ClassVar = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
    parts: ClassVar = PartSizes(60_000, None, 10_000)
    downloads: ClassVar = idx_downloads(
        "KMNIST/raw",
        # One host, by both of its addresses: no second one is known to keep these files.
        ("https://codh.rois.ac.jp/kmnist/dataset/kmnist/", "http://codh.rois.ac.jp/kmnist/dataset/kmnist/"),
        (18_165_135, 29_497, 3_041_136, 5_120),
        (
            "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
            "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
            "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
            "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
        ),
    )

    name: Literal["kmnist"] = "kmnist"
