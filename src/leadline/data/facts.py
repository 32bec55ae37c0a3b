"""What is known of a data set before any of its images is read; no torch."""

from pathlib import Path

from leadline.data import parity
from leadline.data.catalog import CATALOG, DatasetInfo
from leadline.data.files import default_data_dir
from leadline.data.index import class_names, locate
from leadline.spec import DataSpec


def describe(spec: DataSpec, data_dir: Path | None = None) -> tuple[tuple[int, int, int], int]:
    """Return the shape of an image (channels, height, width) and the number of classes.

    Args:
        spec: a data set of the catalog, or a folder of pictures, whose class folders are counted.
        data_dir: where the files are; None: the default folder.

    Raises:
        DataError: the folder of pictures is missing or is not laid out in classes; or as `known`.
    """
    if spec.name == "imagefolder":
        classes = class_names(locate(spec, data_dir or default_data_dir()))
        return (3, spec.size, spec.size), len(classes)
    info = known(spec)
    return info.shape, info.classes


def known(spec: DataSpec) -> DatasetInfo:
    """Return what is known of a data set of the catalog, or of that which a specification of parity asks for.

    Raises:
        DataError: no input of parity would be left for training, or none would be held out.
    """
    return parity.facts(spec) if spec.name == "parity" else CATALOG[spec.name]
