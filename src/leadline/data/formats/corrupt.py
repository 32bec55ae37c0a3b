"""Which encoded images cannot be decoded: checked once, and remembered; no torch.

What was found is kept in the user's cache, `leadline/pictures/<hash of a path>.json`: for each folder a digest over
names, sizes and modification times, and its corrupt images with what is wrong. A folder whose digest has changed is
checked again. Where the cache cannot be written, every process checks for itself.
"""

import contextlib
import hashlib
import json
import os
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from leadline.data.files import read_bytes
from leadline.data.formats.images import MOST_BYTES, decode
from leadline.data.threads import decoders, in_order

SHOWN = 3
"""Corrupt images that a message names."""


@dataclass(frozen=True)
class Corrupt:
    """An image that cannot be decoded."""

    path: str  # below the folder
    problem: str


@dataclass(frozen=True)
class ImageFile:
    """A file as its folder lists it."""

    name: str
    size: int
    modified: int  # nanoseconds


def describe_corrupt(key: Path, corrupt: tuple[Corrupt, ...]) -> str:
    """Say in one line how many images cannot be decoded, and which are the first of them."""
    named = ", ".join(f"{one.path} ({one.problem})" for one in corrupt[:SHOWN])
    more = f" and {len(corrupt) - SHOWN:,} more, all in {_cache(key)}" if len(corrupt) > SHOWN else ""
    return f"{key}: {len(corrupt):,} corrupt image{'s' * (len(corrupt) > 1)}: {named}{more}"


def find_corrupt(
    root: Path, files: Mapping[str, list[ImageFile]], key: Path | None = None
) -> Mapping[str, Mapping[str, str]]:
    """Return what is wrong with the corrupt images, by folder and name.

    Args:
        root: what the folders are relative to.
        files: folder -> its images.
        key: the path that the result is remembered by; None: `root`.
    """
    key = key or root
    known = _read_cache(key)
    digests = {folder: _digest(inside) for folder, inside in files.items()}
    found: dict[str, Mapping[str, str]] = {
        folder: known[folder]["corrupt"]
        for folder, digest in digests.items()
        if folder in known and known[folder]["digest"] == digest
    }
    unchecked = [folder for folder in files if folder not in found]
    if unchecked:
        found |= _checked(root, {folder: files[folder] for folder in unchecked})
        _write_cache(key, {f: {"digest": digests[f], "corrupt": dict(found[f])} for f in files})
    return found


def _checked(root: Path, files: Mapping[str, list[ImageFile]]) -> Mapping[str, Mapping[str, str]]:
    from tqdm import tqdm

    def problem(item: tuple[str, ImageFile]) -> tuple[str, str, str | None]:
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
        unit=" images",
        disable=not sys.stderr.isatty(),
    )
    with bar, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")  # what is wrong with an image is told by name, once
        for folder, name, wrong in in_order(problem, items, decoders(), 64 * decoders()):
            bar.update()
            if wrong is not None:
                found[folder][name] = wrong
    return found


def _digest(files: list[ImageFile]) -> str:
    text = "\0".join(f"{file.name}\0{file.size}\0{file.modified}" for file in files)
    return hashlib.blake2b(os.fsencode(text), digest_size=16).hexdigest()


def _cache(root: Path) -> Path:
    name = hashlib.blake2b(os.fsencode(root.resolve()), digest_size=16).hexdigest()
    return platformdirs.user_cache_path("leadline") / "pictures" / f"{name}.json"


def _decoder() -> str:
    import PIL

    return f"1, pillow {PIL.__version__}"  # another one may find other images corrupt


def _read_cache(root: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(_cache(root).read_bytes())
        if content["format"] == _decoder():
            folders: Mapping[str, Any] = content["folders"]
            for entry in folders.values():
                entry["digest"], entry["corrupt"].items()
            return folders
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # a cache that is not there, or is damaged, is made again
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
