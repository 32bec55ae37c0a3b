"""Find which folders inside a folder of images are its parts and its classes; no torch.

| there are                                | training      | validation      | test                        |
|------------------------------------------|---------------|-----------------|-----------------------------|
| `train`, `val`, `test`                   | `train`       | `val`           | `test`                      |
| `train`, `test`                          | rest of it    | off `train`     | `test`                      |
| `train`, `val` (as in ImageNet)          | rest of it    | off `train`     | `val`                       |
| `train` alone, or class folders alone    | rest of it    | off `train`     | a fixed fifth of each class |

`val` may also be called `validation`, `valid` or `dev`; capitals do not matter. A part without class folders, such as
the unlabelled test images of ImageNet, is not used.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

from leadline.errors import DataError, absence
from leadline.text import join

LAYOUT = "expected train/<class>/<image> and val or test beside it, or <class>/<image>"
NAMES = {"train": ("train",), "validation": ("val", "validation", "valid", "dev"), "test": ("test",)}
"""Part -> possible names of its folder, in lower case."""


@dataclass(frozen=True)
class Layout:
    """The folders of the parts; None: the part is split off the training images."""

    train: Path
    validation: Path | None
    test: Path | None
    notes: tuple[str, ...]  # lines about folders that are not used, or not as their name says


def find_layout(root: Path) -> Layout:
    """Find the parts of a folder of images.

    Raises:
        DataError: the folder is missing or cannot be listed, a part has two folders, or no training images are there.
    """
    if not root.is_dir():
        raise DataError(f"{root}: {absence(root, 'folder')}; change data.path or --data-dir")
    folders = sorted(Path(entry.path) for entry in list_entries(root) if is_folder(entry))
    named = {part: [one for one in folders if one.name.lower() in names] for part, names in NAMES.items()}
    if not named["train"]:
        # without train, valid and dev may well be classes
        for one in (*named["test"], *named["validation"]):
            if one.name.lower() in ("test", "val", "validation"):
                raise DataError(f"{root}: has {one.name} but no train; {LAYOUT}")
        return Layout(root, None, None, ())
    labelled = {part: [one for one in found if _has_classes(one)] for part, found in named.items()}
    labelled["train"] = named["train"]
    for part, found in labelled.items():
        if len(found) > 1:
            names = join([one.name for one in found])
            raise DataError(f"{root}: has {names}, which are all the {part} part; keep one of them, or merge them")
    train, validation, test = (next(iter(labelled[part]), None) for part in NAMES)
    assert train is not None
    beside = [*named["test"], *named["validation"]]
    if beside and validation is None and test is None:
        raise DataError(
            f"{beside[-1]}: holds no class folders; sort its images into folders named as those of {train.name}"
        )
    notes = [f"{root}: {one.name} holds no class folders and is not used" for one in beside if not _has_classes(one)]
    if test is None and validation is not None:
        notes.append(f"{root}: {validation.name} holds the test images; validation images are split off {train.name}")
        validation, test = None, validation
    if others := [one.name for one in folders if one != train and one not in beside]:
        notes.append(f"{root}: not used: {join(others)}; only {LAYOUT.removeprefix('expected ')} is read")
    return Layout(train, validation, test, tuple(notes))


def class_folders(root: Path, folder: Path) -> dict[str, Path]:
    """Return the name of each class of a part, sorted, with its folder.

    Args:
        root: the folder of images, for messages.
        folder: the folder of the part.

    Raises:
        DataError: there are none, or two names differ in their Unicode normalisation alone.
    """
    found: dict[str, Path] = {}
    for entry in list_entries(folder):
        if not is_folder(entry):
            continue
        name = normalize("NFC", entry.name)
        if name in found:
            raise DataError(
                f"{folder}: has two folders named {name!r}, which differ in their Unicode normalisation alone; merge"
                " them"
            )
        found[name] = Path(entry.path)
    if not found:
        raise DataError(f"{folder}: holds no class folders; {LAYOUT if folder == root else 'expected <class>/<image>'}")
    return dict(sorted(found.items()))


def list_entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return what is in a folder, except for names that begin with a dot.

    Raises:
        DataError: it cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror}") from None


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether an entry is a folder, or a link to one.

    Raises:
        DataError: it cannot be read.
    """
    return stat.S_ISDIR(read_status(entry).st_mode)


def read_status(entry: os.DirEntry[str]) -> os.stat_result:
    """Return the status of an entry; links are followed.

    Raises:
        DataError: it cannot be read.
    """
    try:
        return entry.stat()
    except OSError as error:  # a broken or circular link
        raise DataError(f"{entry.path}: cannot be read: {error.strerror}; repair or remove it") from None


def _has_classes(folder: Path) -> bool:
    return any(map(is_folder, list_entries(folder)))
