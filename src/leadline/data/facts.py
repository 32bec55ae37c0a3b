"""What is known of a data set before any of its images is read; no torch."""

from pathlib import Path

from leadline.data.catalog import CATALOG
from leadline.data.files import default_data_dir
from leadline.data.index import class_names, locate
from leadline.spec import DataSpec


def describe(spec: DataSpec, data_dir: Path | None = None) -> tuple[tuple[int, int, int], int]:
    """Return the shape of an image (channels, height, width) and the number of classes.

    Args:
        spec: a data set of the catalog, or a folder of pictures, whose class folders are counted.
        data_dir: where the files are; None: the default folder.

    Raises:
        DataError: the folder of pictures is missing or is not laid out in classes.
    """
    if spec.name == "imagefolder":
        classes = class_names(locate(spec, data_dir or default_data_dir()))
        return (3, spec.size, spec.size), len(classes)
    info = CATALOG[spec.name]
    return info.shape, info.classes
