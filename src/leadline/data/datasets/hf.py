"""Images in the format of the Hugging Face `datasets` library: a Parquet file, a folder of them, or a hub name."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from leadline.data.datasets import DATASETS
from leadline.data.encoded_images import EncodedImages, Part, sort_class_names
from leadline.data.files import compute_sha256, locate, read_bytes
from leadline.data.formats.images import KINDS, silence_pillow
from leadline.data.image_dataset import ImageDataSpec
from leadline.errors import MOST_NAMES, DataError, LeadlineError, not_installed
from leadline.text import join

SPLITS = {"train": ("train",), "validation": ("validation", "valid", "val"), "test": ("test",)}
"""Part -> possible names of its split."""


@DATASETS.register
class HuggingFace(ImageDataSpec):
    """Encoded images and labels in columns; without a test split, a fixed fifth of each class is held out."""

    name: Literal["hf"] = "hf"
    path: str = Field(
        min_length=1,
        description="a .parquet file, a folder of them whose names begin with their split, or a data set name on the"
        " Hugging Face hub; relative paths are below the data folder",
    )
    image: str = Field(default="image", description="column of the images")
    label: str = Field(default="label", description="column of the labels, names or whole numbers")

    def read(self, data_dir: Path, download: bool = True) -> EncodedImages:
        """Read the labels and, from local files, the encoded images; images from the hub remain in its cache.

        Raises:
            LeadlineError: `datasets` is not installed.
            DataError: a file is missing or damaged, or the data lack a column or a split.
        """
        _need_datasets()
        silence_pillow()
        files = self._local_files(data_dir)
        splits = self._read_hub(data_dir) if files is None else {k: self._read_files(v) for k, v in files.items()}
        if "train" not in splits:
            raise DataError(f"{self.path}: has no split train, only {', '.join(splits) or 'nothing'}")
        named = [splits["train"], *splits.values()]
        names = next((split.names for split in named if split.names is not None), None)
        if names is None:
            names = sort_class_names({str(label) for split in splits.values() for label in split.labels})
        parts = {
            part: Part(tuple(f"{part}:{row}" for row in range(len(split.labels))), split.classes(names, self.path))
            for part, split in splits.items()
        }

        def read_image(key: str) -> bytes:
            part, _, row = key.partition(":")
            return _bytes_of(splits[part].image(int(row)), f"{self.path}: {part} row {row}: {self.image}")

        return EncodedImages.of_parts(self.path, Path(self.path), names, parts, read_image)

    def identify(self, data_dir: Path) -> dict[str, str]:
        """Return the digests of local files; empty for a name on the hub.

        Raises:
            DataError: a file cannot be read.
        """
        files = self._local_files(data_dir) or {}
        return {
            str(file.relative_to(data_dir)) if file.is_relative_to(data_dir) else str(file): f"sha256:{digest}"
            for file in (one for part in files.values() for one in part)
            for digest in [compute_sha256(file)]
        }

    def _class_names(self, data_dir: Path) -> tuple[str, ...]:
        return self.read(data_dir).class_names

    def _local_files(self, data_dir: Path) -> dict[str, list[Path]] | None:
        """Return part -> its files, or None if the path is a name on the hub.

        Raises:
            DataError: the file does not exist, or a folder has no file of a known split.
        """
        path = locate(self.path, data_dir)
        if path.is_file():
            return {"train": [path]}
        if not path.is_dir():
            if path.suffix == ".parquet" or Path(self.path).is_absolute():
                raise DataError(f"{path}: no such file; change data.path or --data-dir")
            return None
        found: dict[str, list[Path]] = {}
        for file in sorted(path.rglob("*.parquet")):
            part = next((p for p, spellings in SPLITS.items() if file.name.startswith(spellings)), None)
            if part is None:
                raise DataError(f"{file}: expected a name that begins with train, validation or test")
            found.setdefault(part, []).append(file)
        if not found:
            raise DataError(f"{path}: holds no .parquet file")
        return found

    def _read_files(self, files: list[Path]) -> "_Split":
        import pyarrow as pa
        import pyarrow.parquet as pq
        from datasets import Features

        try:
            tables = [pq.read_table(file, partitioning=None) for file in files]
            known: dict[tuple[str, ...], Path] = {}  # class names -> the first file that has them
            for file, one in zip(files, tables, strict=True):
                self._check_columns(str(file), one.column_names)
                if names := _names(Features.from_arrow_schema(one.schema)[self.label]):
                    known.setdefault(names, file)
            if len(known) > 1:
                (names, first), (others, other) = list(known.items())[:2]
                raise DataError(
                    f"{other}: its class names are {_listed(others)}, and those of {first.name} are {_listed(names)};"
                    " give all files of a split the same names in the same order"
                )
            table = pa.concat_tables(tables)
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{files[0]}: cannot be read: {' '.join(str(error).split())}") from None
        return _Split(table.column(self.label).to_pylist(), next(iter(known), None), table.column(self.image))

    def _read_hub(self, data_dir: Path) -> "dict[str, _Split]":
        from datasets import Image, load_dataset

        try:
            loaded = load_dataset(self.path)
        except Exception as error:  # errors of the network, the hub or its libraries
            raise DataError(
                f"{self.path}: not found below {data_dir}, and loading it from the Hugging Face hub failed:"
                f" {type(error).__name__}: {' '.join(str(error).split())}"
            ) from None
        found = {}
        for part, spellings in SPLITS.items():
            for one in (loaded[name] for name in spellings if name in loaded):
                self._check_columns(self.path, one.column_names)
                encoded = one.cast_column(self.image, Image(decode=False)).select_columns([self.image])
                found[part] = _Split(list(one[self.label]), _names(one.features[self.label]), encoded)
                break
        return found

    def _check_columns(self, place: str, columns: list[str]) -> None:
        for key, column in (("image", self.image), ("label", self.label)):
            if column not in columns:
                raise DataError(f"{place}: has no column {column!r}, only {', '.join(columns)}; change data.{key}")


@dataclass(frozen=True, eq=False)
class _Split:
    """Labels as stored, the names of integer labels if known, and images by row."""

    labels: list[Any]
    names: tuple[str, ...] | None
    images: Any  # an Arrow column, or a data set of the library with only this column

    def image(self, row: int) -> Any:
        """Return the stored value of an image."""
        found = self.images[row]
        return next(iter(found.values())) if isinstance(found, dict) else found.as_py()

    def classes(self, names: tuple[str, ...], place: str) -> NDArray[np.int64]:
        """Return the classes as integers from 0; numbers stand for the split's own names, whatever their order.

        Args:
            names: of the classes.
            place: what messages begin with.

        Raises:
            DataError: a label is neither a name nor an integer, or is not a known class.
        """
        numbers = {name: number for number, name in enumerate(names)}
        found = []
        for row, label in enumerate(self.labels):
            name = self._name_of(label)
            if name not in numbers:
                meaning = f" ({name})" if name is not None and name != str(label) else ""
                raise DataError(
                    f"{place}: label {label!r}{meaning} in row {row}; expected a name or a whole number of a class"
                )
            found.append(numbers[name])
        return np.array(found, np.int64)

    def _name_of(self, label: object) -> str | None:
        """Return the name of the class that a label stands for; None: it is no label."""
        if isinstance(label, int) and self.names is not None:
            return self.names[label] if 0 <= label < len(self.names) else None
        return str(label) if isinstance(label, int | str) else None


def _names(feature: Any) -> tuple[str, ...] | None:
    names = getattr(feature, "names", None)
    return None if names is None else tuple(names)


def _listed(names: tuple[str, ...]) -> str:
    return join(list(names), MOST_NAMES)


def _bytes_of(value: Any, place: str) -> bytes:
    """Return an encoded image from the value in a row: bytes, or a mapping with bytes or a path.

    Raises:
        DataError: the value is neither.
    """
    if isinstance(value, dict):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str):
        return read_bytes(Path(value))
    if not isinstance(value, bytes):
        raise DataError(f"{place} holds a {type(value).__name__}; expected the bytes of a {KINDS} file")
    return value


def _need_datasets() -> None:
    try:
        import datasets  # noqa: F401
    except ImportError:
        raise LeadlineError(not_installed("data.name hf", "datasets", "hf")) from None
