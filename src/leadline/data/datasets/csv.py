"""Images listed with their labels in a CSV file."""

import csv
import posixpath
from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal
from unicodedata import normalize

import numpy as np
from pydantic import Field

from leadline.data.datasets import DATASETS
from leadline.data.encoded_images import EncodedImages, Part, sort_class_names
from leadline.data.files import compute_sha256, find_file, read_bytes
from leadline.data.formats import examination
from leadline.data.formats.examination import (
    Corrupt,
    Examined,
    ImageFile,
    describe_corrupt,
    describe_transparent,
    examine,
)
from leadline.data.formats.images import silence_pillow
from leadline.data.image_dataset import ImageDataSpec
from leadline.errors import DataError

SPLITS = ("train", "validation", "test")


@DATASETS.register
class CsvManifest(ImageDataSpec):
    """A file with lines `path,label` or `path,label,split`; paths are relative to the folder of the file.

    Classes are sorted numerically if all labels are integers, else alphabetically. Splits are train, validation and
    test; without a test split, a fixed fifth of each class is held out.
    """

    name: Literal["csv"] = "csv"
    corrupt: Literal["fail", "skip"] = Field(
        default="fail", description="what to do with images that cannot be decoded"
    )

    def read(self, data_dir: Path, download: bool = True) -> EncodedImages:
        """List the images after checking that they can be decoded.

        Raises:
            DataError: the file or an image is missing, a line is malformed, or images are corrupt and not skipped.
        """
        silence_pillow()
        manifest = find_file(self.path, data_dir)
        rows = list(_read_rows(manifest))
        examined = _examine(manifest, rows)
        corrupt = tuple(_corrupt(examined))
        if corrupt and self.corrupt == "fail":
            raise DataError(
                f"{describe_corrupt(manifest, corrupt)}; repair or remove them, or skip them with data.corrupt: skip"
            )
        left_out = {one.path for one in corrupt}
        names = sort_class_names({label for _, label, _ in rows})
        parts = {}
        for split in SPLITS:
            kept = [(path, names.index(label)) for path, label, of in rows if of == split and path not in left_out]
            if kept:
                parts[split] = Part(tuple(path for path, _ in kept), np.array([label for _, label in kept], np.int64))
        left = f"{describe_corrupt(manifest, corrupt)}; left out" if corrupt else ""
        notes = tuple(note for note in (left, describe_transparent(manifest, examined, self.background)) if note)

        def read_image(path: str) -> bytes:
            return read_bytes(manifest.parent / path)

        return EncodedImages.of_parts(str(manifest), manifest.parent, names, parts, read_image, notes)

    def identify(self, data_dir: Path) -> dict[str, str]:
        """Return the digests of the CSV file and of the images that it lists.

        Raises:
            LeadlineError: as `read`, but not for corrupt images.
        """
        silence_pillow()
        manifest = find_file(self.path, data_dir)
        images = examination.identify(_examine(manifest, list(_read_rows(manifest))))
        return {self.path: f"sha256:{compute_sha256(manifest)}", f"{self.path} (images)": images}

    def _class_names(self, data_dir: Path) -> tuple[str, ...]:
        return sort_class_names({label for _, label, _ in _read_rows(find_file(self.path, data_dir))})


def _read_rows(manifest: Path) -> Iterator[tuple[str, str, str]]:
    """Yield the path, label and split of each line.

    Raises:
        DataError: the file cannot be read, or a line is malformed.
    """
    seen: dict[str, int] = {}
    try:
        with manifest.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            if not {"path", "label"} <= set(reader.fieldnames or ()):
                raise DataError(
                    f"{manifest}: its first line is {','.join(reader.fieldnames or ())[:80]!r}; expected path,label or"
                    " path,label,split"
                )
            for row in reader:
                place = f"{manifest}:{reader.line_num}"
                path, label = row["path"], normalize("NFC", row["label"] or "").strip()
                split = (row.get("split") or "").strip() or "train"
                if not path or not label or None in row:
                    raise DataError(
                        f"{place}: expected {len(reader.fieldnames or ())} values, including path and label"
                    )
                if split not in SPLITS:
                    raise DataError(f"{place}: split {split!r}; expected {', '.join(SPLITS)}")
                if "\0" in path:
                    raise DataError(f"{place}: {path!r} is not a path")
                if (same := posixpath.normpath(path)) in seen:
                    raise DataError(f"{place}: {path} is already listed in line {seen[same]}")
                seen[same] = reader.line_num
                yield path, label, split
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{manifest}: not a CSV file in UTF-8: {error}") from None
    except OSError as error:
        raise DataError(f"{manifest}: cannot be read: {error.strerror}") from None


def _examine(manifest: Path, rows: list[tuple[str, str, str]]) -> Mapping[str, Examined]:
    """Return what is in the images that a file lists, by folder.

    Raises:
        DataError: one is missing.
    """
    folders: dict[str, list[ImageFile]] = defaultdict(list)
    for path, _, _ in rows:
        try:
            status = (manifest.parent / path).stat()
        except OSError as error:
            raise DataError(
                f"{manifest.parent / path}: cannot be read: {error.strerror}; {manifest} lists it"
            ) from None
        folder, _, name = path.rpartition("/")
        folders[folder].append(ImageFile(name, status.st_size, status.st_mtime_ns))
    return examine(manifest.parent, folders, manifest)


def _corrupt(examined: Mapping[str, Examined]) -> Iterator[Corrupt]:
    for folder, one in examined.items():
        for name, problem in one.corrupt.items():
            yield Corrupt(f"{folder}/{name}" if folder else name, problem)
