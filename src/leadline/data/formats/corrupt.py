"""Find encoded images that cannot be decoded, and cache the result; no torch.

The cache is `leadline/images/<hash of a path>.json` in the user's cache folder. It contains, for each folder, a digest
of names, sizes and modification times, and the corrupt images with their problems. A folder whose digest has changed is
checked again. If the cache cannot be written, every process checks all images.
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
from leadline.data.threads import decoder_threads, map_in_order

SHOWN = 3
"""Number of corrupt images named in a message."""


@dataclass(frozen=True)
class Corrupt:
    """An image that cannot be decoded."""

    path: str  # relative to the folder
    problem: str


@dataclass(frozen=True)
class ImageFile:
    """A file in a folder."""

    name: str
    size: int
    modified: int  # nanoseconds


def describe_corrupt(key: Path, corrupt: tuple[Corrupt, ...]) -> str:
    """Describe in one line how many images cannot be decoded, and name the first ones."""
    named = ", ".join(f"{one.path} ({one.problem})" for one in corrupt[:SHOWN])
    more = f" and {len(corrupt) - SHOWN:,} more, all in {_cache(key)}" if len(corrupt) > SHOWN else ""
    return f"{key}: {len(corrupt):,} corrupt image{'s' * (len(corrupt) > 1)}: {named}{more}"


def find_corrupt(
    root: Path, files: Mapping[str, list[ImageFile]], key: Path | None = None
) -> Mapping[str, Mapping[str, str]]:
    """Return the problems of corrupt images by folder and name.

    Args:
        root: parent of the folders.
        files: folder -> its images.
        key: path under which the result is cached; None: `root`.
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
        found |= _check(root, {folder: files[folder] for folder in unchecked})
        _write_cache(key, {f: {"digest": digests[f], "corrupt": dict(found[f])} for f in files})
    return found


def _check(root: Path, files: Mapping[str, list[ImageFile]]) -> Mapping[str, Mapping[str, str]]:
    from tqdm import tqdm

    def find_problem(item: tuple[str, ImageFile]) -> tuple[str, str, str | None]:
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
        warnings.filterwarnings("ignore", module="PIL")  # problems are reported with the names of images
        for folder, name, wrong in map_in_order(find_problem, items, decoder_threads(), 64 * decoder_threads()):
            bar.update()
            if wrong is not None:
                found[folder][name] = wrong
    return found


def _digest(files: list[ImageFile]) -> str:
    text = "\0".join(f"{file.name}\0{file.size}\0{file.modified}" for file in files)
    return hashlib.blake2b(os.fsencode(text), digest_size=16).hexdigest()


def _cache(root: Path) -> Path:
    name = hashlib.blake2b(os.fsencode(root.resolve()), digest_size=16).hexdigest()
    return platformdirs.user_cache_path("leadline") / "images" / f"{name}.json"


def _decoder() -> str:
    import PIL

    return f"2, pillow {PIL.__version__}"  # another version may find other images corrupt


def _read_cache(root: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(_cache(root).read_bytes())
        if content["format"] == _decoder():
            folders: Mapping[str, Any] = content["folders"]
            for entry in folders.values():
                entry["digest"], entry["corrupt"].items()
            return folders
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # a missing or damaged cache is created again
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
