"""NumPy's .npz files."""

import functools
import zipfile
import zlib
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from leadline.data.arrays import Arrays, check_arrays, looks_channels_last
from leadline.data.datasets import DATASETS, DataSpec
from leadline.data.files import compute_sha256, find_file
from leadline.data.metadata import Metadata
from leadline.errors import MOST_NAMES, DataError
from leadline.parts.tasks import Task, task_of
from leadline.text import join

KEYS = {
    "train": (("train_images", "train_labels"), ("x_train", "y_train")),
    "validation": (
        ("validation_images", "validation_labels"),
        ("valid_images", "valid_labels"),
        ("val_images", "val_labels"),
        ("x_validation", "y_validation"),
        ("x_valid", "y_valid"),
        ("x_val", "y_val"),
    ),
    "test": (("test_images", "test_labels"), ("x_test", "y_test")),
}
"""Part -> possible names of its images and labels: descriptive ones, and those of Keras and MedMNIST."""


@DATASETS.register
class Npz(DataSpec):
    """A file with train_images, train_labels, test_images, test_labels, or x_train, y_train, x_test, y_test.

    Images are uint8 or float32, [n, channels, height, width], or [n, height, width] with one channel; with the names
    of Keras (`x_train`, ...), they can also be [n, height, width, channels] with 1 or 3 channels. Validation images and
    an array `class_names` of text are optional. Nothing is unpickled.
    """

    takes_tasks: ClassVar = True

    name: Literal["npz"] = "npz"
    path: str = Field(min_length=1, description="path of the file; relative paths are below the data folder")

    @property
    def display_name(self) -> str:
        """The path."""
        return self.path

    def metadata(self, data_dir: Path) -> Metadata:
        """Return the metadata of the arrays.

        Raises:
            DataError: as `read`.
        """
        return Metadata.of_arrays(self.read(data_dir))

    def read(self, data_dir: Path, download: bool = True) -> Arrays:
        """Read the file.

        Raises:
            DataError: the file is missing or damaged, or an array is missing or invalid.
        """
        path = find_file(self.path, data_dir)
        status = path.stat()
        return _read(path, status.st_mtime_ns, status.st_size, task_of(self.task))

    def identify(self, data_dir: Path) -> dict[str, str]:
        """Return the digest of the file.

        Raises:
            DataError: it is missing or cannot be read.
        """
        return {self.path: f"sha256:{compute_sha256(find_file(self.path, data_dir))}"}


@functools.lru_cache(maxsize=1)  # a study needs shape and sizes before its trials need the images
def _read(path: Path, modified: int, size: int, task: Task) -> Arrays:
    try:
        with path.open("rb") as opened:  # NumPy does not close a damaged file that it opened itself
            file = np.load(opened, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise DataError(f"{path}: contains a single array; expected an .npz file")
            with file:
                return check_arrays(_arrays(path, file), str(path), task)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path}: incomplete or not an .npz file of plain arrays: {' '.join(str(error).split())}"
        ) from None


def _arrays(path: Path, file: Any) -> Arrays:
    parts: dict[str, tuple[Any, Any]] = {}
    used = {"class_names"}
    for part, spellings in KEYS.items():
        for images, labels in spellings:
            if (images in file) != (labels in file):
                there, missing = (images, labels) if images in file else (labels, images)
                raise DataError(f"{path}: has {there} but no {missing}; it holds {', '.join(file.files)}")
            if images in file:
                parts[part] = (_channels_first(file[images], images), file[labels].squeeze())
                used |= {images, labels}
                break
    if "train" not in parts:
        raise DataError(
            f"{path}: holds {', '.join(file.files) or 'nothing'}; expected train_images and train_labels,"
            " or x_train and y_train"
        )
    names = file["class_names"].tolist() if "class_names" in file else None
    rest = [name for name in file.files if name not in used]
    note = f"{path.name}: not used: {join(rest, MOST_NAMES)}." if rest else ""
    return Arrays(parts["train"], parts.get("test"), parts.get("validation"), names, note)


def _channels_first(images: Any, name: str) -> Any:
    if images.ndim == 3:
        return images[:, None]
    return images.transpose(0, 3, 1, 2) if name.startswith("x_") and looks_channels_last(images) else images
