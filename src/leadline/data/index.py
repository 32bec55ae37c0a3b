"""A folder of pictures: its classes, its files, which of them can be decoded; no torch.

The folder is listed anew whenever it is used, which takes some microseconds a file; that every picture decodes is
checked once. What was found lies in the user's cache, `leadline/pictures/<hash of the folder's path>.json`: for each
class folder a digest over names, sizes and modification times, and its corrupt pictures with what is wrong. A class
folder whose digest has changed is checked anew. Where the cache cannot be written, every process checks for itself.
"""

import contextlib
import hashlib
import json
import os
import stat
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from numpy.typing import NDArray

from leadline.data.pictures import ENDINGS, MOST_BYTES, decode, need_pillow
from leadline.data.split import stratified_order
from leadline.data.threads import decoders, in_order
from leadline.errors import DataError
from leadline.seeds import SUBSET, stream
from leadline.spec import DataSpec
from leadline.text import plural

LAYOUT = "expected train/<class>/<picture> and val or test beside it, or <class>/<picture>"
TEST_SHARE = 5
"""Where a folder has no test part, one picture in five of each class is it."""

SHOWN = 3
"""Corrupt pictures that a message names."""


@dataclass(frozen=True, eq=False)
class Part:
    """Pictures of one part of the data: paths below the folder, with `/`, and their classes from 0 up."""

    paths: tuple[str, ...]
    labels: NDArray[np.int64]

    def at(self, chosen: NDArray[np.int64]) -> "Part":
        """Return some of the pictures, in the order given."""
        return Part(tuple(self.paths[position] for position in chosen.tolist()), self.labels[chosen])


@dataclass(frozen=True)
class Corrupt:
    """A picture that cannot be decoded."""

    path: str  # below the folder
    problem: str


@dataclass(frozen=True, eq=False)
class Index:
    """What a folder of pictures holds; the corrupt ones are in neither part."""

    root: Path
    classes: tuple[str, ...]  # sorted
    train: Part
    test: Part
    corrupt: tuple[Corrupt, ...]


@dataclass(frozen=True)
class _File:
    name: str
    size: int
    modified: int  # nanoseconds


def locate(spec: DataSpec, data_dir: Path) -> Path:
    """Return the folder that a specification names; a relative path is below the folder of the data sets."""
    assert spec.path is not None
    return data_dir / Path(spec.path).expanduser()


def class_names(root: Path) -> tuple[str, ...]:
    """Return the names of the classes, sorted: those of the folders in `train`, or in the folder itself.

    Raises:
        DataError: the folder is missing or is not laid out in classes.
    """
    return tuple(_class_folders(root, _train_folder(root)))


def read_index(root: Path, skip_corrupt: bool) -> Index:
    """List a folder of pictures and see to it that each of them can be decoded.

    Training pictures lie in `train/<class>`, those of the test part in `test/<class>`, or in `val/<class>` where
    `test` has no class folders (as ImageNet's has not). Where there is neither, or no `train` but class folders alone,
    the test part is a fixed fifth of each class. Names that begin with a dot and files that do not end in .jpg, .jpeg,
    .png or .webp are passed over.

    Args:
        root: the folder.
        skip_corrupt: leave out pictures that cannot be decoded, which are listed, and do not raise.

    Raises:
        LeadlineError: Pillow is not installed.
        DataError: the folder is missing, unreadable or laid out otherwise, a class is empty, the test part has a
            class that training lacks, or a picture is corrupt and `skip_corrupt` is false.
    """
    need_pillow()
    train_folder, test_folder = _train_folder(root), _test_folder(root)
    classes = class_names(root)
    folders = [train_folder / name for name in classes]
    test_classes: tuple[str, ...] = ()
    if test_folder is not None:
        test_classes = tuple(_class_folders(root, test_folder))
        strange = sorted(set(test_classes) - set(classes))
        if strange:
            more = f" and {len(strange) - 1} more" if len(strange) > 1 else ""
            raise DataError(
                f"{test_folder / strange[0]}{more}: a class that {train_folder.name} lacks; add it there or remove it"
            )
        folders += [test_folder / name for name in test_classes]
    files = {folder.relative_to(root).as_posix(): _files(folder) for folder in folders}
    found = _corrupt(root, files)
    corrupt = tuple(Corrupt(f"{folder}/{name}", problem) for folder in files for name, problem in found[folder].items())
    if corrupt and not skip_corrupt:
        raise DataError(f"{said(root, corrupt)}; mend or remove them, or leave them out with data.corrupt skip")

    def part(folder: Path, names: tuple[str, ...]) -> Part:
        paths: list[str] = []
        labels: list[NDArray[np.int64]] = []
        for name in names:
            key = (folder / name).relative_to(root).as_posix()
            whole = [f"{key}/{file.name}" for file in files[key] if file.name not in found[key]]
            if not whole:
                raise DataError(f"{folder / name}: not one of its {len(files[key])} pictures can be decoded; mend it")
            paths += whole
            labels.append(np.full(len(whole), classes.index(name), np.int64))
        return Part(tuple(paths), np.concatenate(labels))

    train = part(train_folder, classes)
    if test_folder is not None:
        return Index(root, classes, train, part(test_folder, test_classes), corrupt)
    order = stratified_order(train.labels, stream(0, SUBSET, "imagefolder"))
    count = len(train.labels) // TEST_SHARE
    if count == 0:
        raise DataError(f"{root}: {len(train.labels)} pictures are too few to cut a test part from; add some, or a val")
    return Index(root, classes, train.at(np.sort(order[count:])), train.at(np.sort(order[:count])), corrupt)


def said(root: Path, corrupt: tuple[Corrupt, ...]) -> str:
    """Say in one line how many images cannot be decoded, and which are the first of them."""
    named = ", ".join(f"{one.path} ({one.problem})" for one in corrupt[:SHOWN])
    more = f" and {len(corrupt) - SHOWN:,} more, all in {_cache(root)}" if len(corrupt) > SHOWN else ""
    return f"{root}: {plural(len(corrupt), 'corrupt image')}: {named}{more}"


# --- listing


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
        raise DataError(f"{there[-1]}: holds no class folders; sort its pictures into folders named as those of train")
    return None


def _class_folders(root: Path, folder: Path) -> Iterator[str]:
    names = sorted(entry.name for entry in _entries(folder) if _is_folder(entry))
    if not names:
        raise DataError(
            f"{folder}: holds no class folders; {LAYOUT if folder == root else 'expected <class>/<picture>'}"
        )
    yield from names


def _files(folder: Path) -> list[_File]:
    """List the pictures of a class, sorted by name."""
    files = []
    for entry in _entries(folder):
        status = _status(entry)
        if stat.S_ISDIR(status.st_mode):
            raise DataError(f"{entry.path}: a folder inside a class folder, which is not read; {LAYOUT}")
        if stat.S_ISREG(status.st_mode) and entry.name.lower().endswith(ENDINGS):
            files.append(_File(entry.name, status.st_size, status.st_mtime_ns))
    if not files:
        raise DataError(f"{folder}: holds no picture ({', '.join(ENDINGS)}); fill or remove this class folder")
    return sorted(files, key=lambda file: file.name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return stat.S_ISDIR(_status(entry).st_mode)


def _status(entry: os.DirEntry[str]) -> os.stat_result:
    try:
        return entry.stat()
    except OSError as error:  # a link to nowhere, or to itself
        raise DataError(f"{entry.path}: cannot be read: {error.strerror}; mend or remove it") from None


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder}: cannot be listed: {error.strerror}") from None


# --- checking, once


def _corrupt(root: Path, files: Mapping[str, list[_File]]) -> Mapping[str, Mapping[str, str]]:
    """Return what is wrong with the corrupt pictures, by class folder and name."""
    known = _read_cache(root)
    digests = {folder: _digest(inside) for folder, inside in files.items()}
    found: dict[str, Mapping[str, str]] = {
        folder: known[folder]["corrupt"]
        for folder, digest in digests.items()
        if folder in known and known[folder]["digest"] == digest
    }
    unchecked = [folder for folder in files if folder not in found]
    if unchecked:
        found |= _checked(root, {folder: files[folder] for folder in unchecked})
        _write_cache(root, {f: {"digest": digests[f], "corrupt": dict(found[f])} for f in files})
    return found


def _checked(root: Path, files: Mapping[str, list[_File]]) -> Mapping[str, Mapping[str, str]]:
    from tqdm import tqdm

    def problem(item: tuple[str, _File]) -> tuple[str, str, str | None]:
        folder, file = item
        if file.size > MOST_BYTES:
            return folder, file.name, f"{file.size:,} bytes are more than {MOST_BYTES:,}"
        try:
            decode(read_bytes(root / folder / file.name))
        except ValueError as error:
            return folder, file.name, str(error)
        return folder, file.name, None

    found: dict[str, dict[str, str]] = {folder: {} for folder in files}
    items = ((folder, file) for folder, inside in files.items() for file in inside)
    bar = tqdm(
        total=sum(map(len, files.values())),
        desc=f"checking {root.name}",
        unit=" pictures",
        disable=not sys.stderr.isatty(),
    )
    with bar, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # what is wrong with a picture is told by name, once
        for folder, name, wrong in in_order(problem, items, decoders(), 64 * decoders()):
            bar.update()
            if wrong is not None:
                found[folder][name] = wrong
    return found


def read_bytes(path: Path) -> bytes:
    """Return a file's content.

    Raises:
        DataError: it cannot be read now, which says nothing of the picture in it.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def _digest(files: list[_File]) -> str:
    text = "\0".join(f"{file.name}\0{file.size}\0{file.modified}" for file in files)
    return hashlib.blake2b(os.fsencode(text), digest_size=16).hexdigest()


def _cache(root: Path) -> Path:
    name = hashlib.blake2b(os.fsencode(root.resolve()), digest_size=16).hexdigest()
    return platformdirs.user_cache_path("leadline") / "pictures" / f"{name}.json"


def _decoder() -> str:
    import PIL

    return f"1, pillow {PIL.__version__}"  # another one may find other pictures corrupt


def _read_cache(root: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(_cache(root).read_bytes())
        if content["format"] == _decoder():
            folders: Mapping[str, Any] = content["folders"]
            for entry in folders.values():
                entry["digest"], entry["corrupt"].items()
            return folders
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # a cache that is not there, or is damaged, is made anew
    return {}


def _write_cache(root: Path, folders: Mapping[str, Any]) -> None:
    path = _cache(root)
    partial = path.with_suffix(f".{os.getpid()}.partial")
    content = {"format": _decoder(), "folder": str(root.resolve()), "folders": folders}
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
