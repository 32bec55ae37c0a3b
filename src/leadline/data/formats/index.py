"""List the classes and files of a folder of images; no torch.

The folder is listed on each use, which takes microseconds per file; images are checked only once, see
`leadline.data.formats.examination`.
"""

import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leadline.data.encoded_images import EncodedImages, Part
from leadline.data.files import read_bytes
from leadline.data.formats import examination
from leadline.data.formats.examination import Corrupt, ImageFile, describe_corrupt, examine
from leadline.data.formats.images import ENDINGS, need_pillow
from leadline.data.split import cut_test_part
from leadline.errors import DataError

LAYOUT = "expected train/<class>/<image> and val or test beside it, or <class>/<image>"


@dataclass(frozen=True, eq=False)
class Index:
    """The images of a folder; corrupt ones are in neither part."""

    root: Path
    classes: tuple[str, ...]  # sorted
    train: Part
    test: Part
    corrupt: tuple[Corrupt, ...]

    def encoded_images(self) -> EncodedImages:
        """Return the images, which are read on demand."""
        note = f"{describe_corrupt(self.root, self.corrupt)}; left out" if self.corrupt else ""

        def read(path: str) -> bytes:
            return read_bytes(self.root / path)

        return EncodedImages(str(self.root), self.root, self.classes, self.train, self.test, read, note=note)


def class_names(root: Path) -> tuple[str, ...]:
    """Return the sorted names of the classes: the folders in `train`, or in the folder itself.

    Raises:
        DataError: the folder is missing or has no class folders.
    """
    return tuple(_class_folders(root, _train_folder(root)))


def identify(root: Path) -> str:
    """Return a digest of the names and bytes of all images of a folder that are read, `sha256:...`.

    Raises:
        LeadlineError: as `read_index`, but not for corrupt images.
    """
    need_pillow()
    return examination.identify(examine(root, _list(root).files))


def read_index(root: Path, skip_corrupt: bool) -> Index:
    """List a folder of images and check that all of them can be decoded.

    Training images are in `train/<class>`, test images in `test/<class>`, or in `val/<class>` if `test` has no class
    folders (as in ImageNet). If there is neither, or if there are only class folders, a fixed fifth of each class is
    held out for testing. Names that begin with a dot and files that do not end in .jpg, .jpeg, .png or .webp are
    ignored.

    Args:
        root: the folder.
        skip_corrupt: whether to skip images that cannot be decoded, instead of raising.

    Raises:
        LeadlineError: Pillow is not installed.
        DataError: the folder is missing, unreadable or has another layout, a class is empty, a test class is missing
            in the training part, or an image is corrupt and `skip_corrupt` is false.
    """
    need_pillow()
    listed = _list(root)
    files, classes = listed.files, listed.classes
    found = examine(root, files)
    corrupt = tuple(
        Corrupt(f"{folder}/{name}", problem) for folder in files for name, problem in found[folder].corrupt.items()
    )
    if corrupt and not skip_corrupt:
        raise DataError(
            f"{describe_corrupt(root, corrupt)}; repair or remove them, or skip them with data.corrupt: skip"
        )

    def part(folders: Mapping[str, str]) -> Part:
        paths: list[str] = []
        labels: list[NDArray[np.int64]] = []
        for key, name in folders.items():
            whole = [f"{key}/{file.name}" for file in files[key] if file.name not in found[key].corrupt]
            if not whole:
                raise DataError(
                    f"{root / key}: none of its {len(files[key])} images can be decoded; replace them"
                    f" or remove the folder"
                )
            paths += whole
            labels.append(np.full(len(whole), classes.index(name), np.int64))
        return Part(tuple(paths), np.concatenate(labels))

    train = part(listed.train)
    if listed.test:
        return Index(root, classes, train, part(listed.test), corrupt)
    kept, held_out = cut_test_part(train.labels)
    if len(held_out) == 0:
        raise DataError(
            f"{root}: {len(train.labels)} images are too few to split off a test part; add images or a val folder"
        )
    return Index(root, classes, train.at(kept), train.at(held_out), corrupt)


# --- listing


@dataclass(frozen=True)
class _Listing:
    """The class folders of each part, relative to the folder, with their classes, and the images inside."""

    classes: tuple[str, ...]
    train: Mapping[str, str]
    test: Mapping[str, str]
    files: Mapping[str, list[ImageFile]]


def _list(root: Path) -> _Listing:
    train_folder, test_folder = _train_folder(root), _test_folder(root)
    classes = class_names(root)
    train, test = _by_class(root, train_folder, classes), {}
    if test_folder is not None:
        test_classes = tuple(_class_folders(root, test_folder))
        strange = sorted(set(test_classes) - set(classes))
        if strange:
            more = f" and {len(strange) - 1} more" if len(strange) > 1 else ""
            raise DataError(
                f"{test_folder / strange[0]}{more}: this class is missing in {train_folder.name}; add it there or"
                f" remove it here"
            )
        test = _by_class(root, test_folder, test_classes)
    return _Listing(classes, train, test, {key: _files(root / key) for key in (*train, *test)})


def _by_class(root: Path, folder: Path, names: tuple[str, ...]) -> dict[str, str]:
    return {(folder / name).relative_to(root).as_posix(): name for name in names}


def _train_folder(root: Path) -> Path:
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; change data.path or --data-dir")
    if (root / "train").is_dir():
        return root / "train"
    for name in ("val", "test"):
        if (root / name).is_dir():
            raise DataError(f"{root}: has {name} but no train; {LAYOUT}")
    return root


def _test_folder(root: Path) -> Path | None:
    if not (root / "train").is_dir():
        return None
    there = [root / name for name in ("test", "val") if (root / name).is_dir()]
    for folder in there:
        if any(map(_is_folder, _entries(folder))):
            return folder
    if there:
        raise DataError(f"{there[-1]}: holds no class folders; sort its images into folders named as those of train")
    return None


def _class_folders(root: Path, folder: Path) -> Iterator[str]:
    names = sorted(entry.name for entry in _entries(folder) if _is_folder(entry))
    if not names:
        raise DataError(f"{folder}: holds no class folders; {LAYOUT if folder == root else 'expected <class>/<image>'}")
    yield from names


def _files(folder: Path) -> list[ImageFile]:
    """List the images of a class, sorted by name."""
    files = []
    for entry in _entries(folder):
        status = _status(entry)
        if stat.S_ISDIR(status.st_mode):
            raise DataError(f"{entry.path}: folders inside a class folder are not read; {LAYOUT}")
        if stat.S_ISREG(status.st_mode) and entry.name.lower().endswith(ENDINGS):
            files.append(ImageFile(entry.name, status.st_size, status.st_mtime_ns))
    if not files:
        raise DataError(f"{folder}: holds no image ({', '.join(ENDINGS)}); fill or remove this class folder")
    return sorted(files, key=lambda file: file.name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return stat.S_ISDIR(_status(entry).st_mode)


def _status(entry: os.DirEntry[str]) -> os.stat_result:
    try:
        return entry.stat()
    except OSError as error:  # a broken or circular link
        raise DataError(f"{entry.path}: cannot be read: {error.strerror}; repair or remove it") from None


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror}") from None
