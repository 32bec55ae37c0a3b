"""List the classes and files of a folder of images; no torch.

The folder is listed on each use, which takes microseconds per file; images are examined only once, see
`leadline.data.formats.examination`.
"""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from leadline.data.encoded_images import EncodedImages, Part
from leadline.data.files import read_bytes
from leadline.data.formats import examination
from leadline.data.formats.examination import Corrupt, ImageFile, describe_corrupt, describe_transparent, examine
from leadline.data.formats.images import ENDINGS, WHITE, Colour, silence_pillow
from leadline.data.formats.layout import LAYOUT, class_folders, find_layout, list_entries, read_status
from leadline.data.split import cut_test_part
from leadline.errors import DataError
from leadline.text import plural


@dataclass(frozen=True, eq=False)
class Index:
    """The images of a folder; corrupt ones are in no part."""

    root: Path
    classes: tuple[str, ...]  # sorted
    train: Part
    validation: Part | None  # None: it is split off the training part
    test: Part
    corrupt: tuple[Corrupt, ...]
    notes: tuple[str, ...]  # lines about what is not used, or used otherwise than expected

    def encoded_images(self) -> EncodedImages:
        """Return the images, which are read on demand."""

        def read(path: str) -> bytes:
            return read_bytes(self.root / path)

        return EncodedImages(
            str(self.root), self.root, self.classes, self.train, self.test, read, self.validation, self.notes
        )


def class_names(root: Path) -> tuple[str, ...]:
    """Return the sorted names of the classes: the folders in `train`, or in the folder itself.

    Raises:
        DataError: the folder is missing or has no class folders.
    """
    return tuple(class_folders(root, find_layout(root).train))


def identify(root: Path) -> str:
    """Return a digest of the names and bytes of all images of a folder that are read, `sha256:...`.

    Raises:
        LeadlineError: as `read_index`, but not for corrupt images.
    """
    silence_pillow()
    return examination.identify(examine(root, _list(root).files))


def read_index(root: Path, skip_corrupt: bool, background: Colour = WHITE) -> Index:
    """List a folder of images and check that all of them can be decoded.

    `leadline.data.formats.layout` describes which folders are the parts. Names that begin with a dot are ignored; other
    files that are no images by their endings are counted in a note.

    Args:
        root: the folder.
        skip_corrupt: whether to skip images that cannot be decoded, instead of raising.
        background: what is put behind transparent pixels, for a note.

    Raises:
        DataError: the folder is missing, unreadable or has another layout, a class is empty, a class of another part is
            missing in the training part, or an image is corrupt and `skip_corrupt` is false.
    """
    silence_pillow()
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

    def part(name: str) -> Part | None:
        paths: list[str] = []
        labels: list[NDArray[np.int64]] = []
        for key, label in listed.parts.get(name, {}).items():
            whole = [f"{key}/{file.name}" for file in files[key] if file.name not in found[key].corrupt]
            if not whole:
                raise DataError(
                    f"{root / key}: none of its {len(files[key])} images can be decoded; replace them"
                    f" or remove the folder"
                )
            paths += whole
            labels.append(np.full(len(whole), classes.index(label), np.int64))
        return Part(tuple(paths), np.concatenate(labels)) if labels else None

    left_out = f"{describe_corrupt(root, corrupt)}; left out" if corrupt else ""
    more = (left_out, _describe_unread(root, listed.unread), describe_transparent(root, found, background))
    notes = (*listed.notes, *(note for note in more if note))
    train, test = part("train"), part("test")
    assert train is not None
    if test is None:
        kept, held_out = cut_test_part(train.labels)
        if len(held_out) == 0:
            raise DataError(
                f"{root}: {len(train.labels)} images are too few to split off a test part; add images or a val folder"
            )
        train, test = train.at(kept), train.at(held_out)
    return Index(root, classes, train, part("validation"), test, corrupt, notes)


# --- listing


@dataclass(frozen=True)
class _Listing:
    classes: tuple[str, ...]
    parts: Mapping[str, Mapping[str, str]]  # part -> class folder, relative to the folder -> class
    files: Mapping[str, list[ImageFile]]  # class folder -> its images
    unread: tuple[str, ...]  # paths of other files
    notes: tuple[str, ...]


def _list(root: Path) -> _Listing:
    layout = find_layout(root)
    parts: dict[str, dict[str, str]] = {}
    files: dict[str, list[ImageFile]] = {}
    unread: list[str] = []
    train = class_folders(root, layout.train)
    for part, folder in (("train", layout.train), ("test", layout.test), ("validation", layout.validation)):
        if folder is None:
            continue
        inside = class_folders(root, folder)
        if strange := [path for name, path in inside.items() if name not in train]:
            more = f" and {len(strange) - 1} more" if len(strange) > 1 else ""
            raise DataError(
                f"{strange[0]}{more}: this class is missing in {layout.train.name}; add it there or remove it here"
            )
        unread += [_relative(entry.path, root) for entry in list_entries(folder) if entry.is_file()]
        parts[part] = {}
        for name, path in inside.items():
            key = _relative(path, root)
            parts[part][key] = name
            files[key], others = _files(path)
            unread += [f"{key}/{other}" for other in others]
    return _Listing(tuple(train), parts, files, tuple(sorted(unread)), layout.notes)


def _files(folder: Path) -> tuple[list[ImageFile], list[str]]:
    """Return the images of a class, sorted by name, and the names of other files."""
    files, others = [], []
    for entry in list_entries(folder):
        status = read_status(entry)
        if stat.S_ISDIR(status.st_mode):
            raise DataError(f"{entry.path}: folders inside a class folder are not read; {LAYOUT}")
        if stat.S_ISREG(status.st_mode) and entry.name.lower().endswith(ENDINGS):
            files.append(ImageFile(entry.name, status.st_size, status.st_mtime_ns))
        else:
            others.append(entry.name)
    if not files:
        raise DataError(f"{folder}: holds no image ({', '.join(ENDINGS)}); fill or remove this class folder")
    return sorted(files, key=lambda file: file.name), others


def _describe_unread(root: Path, unread: tuple[str, ...]) -> str:
    if not unread:
        return ""
    count = plural(len(unread), "file is not read", "files are not read")
    first = f"{unread[0]}" if len(unread) == 1 else f"the first is {unread[0]}"
    return f"{root}: {count}, {first}: only names in {', '.join(ENDINGS)} are images"


def _relative(path: str | os.PathLike[str], root: Path) -> str:
    return Path(path).relative_to(root).as_posix()
