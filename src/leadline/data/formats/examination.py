"""Examine encoded images once: which cannot be decoded, and what they contain; no torch.

The results are in `leadline/images/` in the user's cache folder. `<hash of a path>.json` has, for each folder, a digest
of names, sizes and modification times, and what is known of its images, as in `Examined`; a folder
whose names, sizes or times have changed is examined again. `contents/<digest>.json.gz` lists what a digest of contents
stands for, so that a later run can say what has changed. If the cache cannot be written, every process examines all
images.
"""

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import platformdirs

from leadline.data.files import read_bytes, write_cache_file
from leadline.data.formats.images import MOST_BYTES, WHITE, Colour, read_pixels
from leadline.data.threads import decoder_threads, map_in_order
from leadline.text import join, plural
from leadline.text.terminal import progress_bar

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


@dataclass(frozen=True)
class Examined:
    """What the images of one folder contain."""

    content: str  # digest of their names and bytes
    corrupt: Mapping[str, str]  # name -> problem of those that cannot be decoded
    transparent: int  # how many have transparent pixels


def examine(root: Path, files: Mapping[str, list[ImageFile]], key: Path | None = None) -> Mapping[str, Examined]:
    """Decode all images that have changed since they were last examined, and return the results by folder.

    Args:
        root: parent of the folders.
        files: folder -> its images.
        key: path under which the results are cached; None: `root`.

    Raises:
        DataError: a file cannot be read.
    """
    key = key or root
    known = _read_cache(key)
    digests = {folder: _digest(inside) for folder, inside in files.items()}
    found = {
        folder: Examined(**{field.name: known[folder][field.name] for field in fields(Examined)})
        for folder, digest in digests.items()
        if folder in known and known[folder]["digest"] == digest
    }
    changed = [folder for folder in files if folder not in found]
    if changed:
        found |= _examine(root, {folder: files[folder] for folder in changed})
        _write_cache(key, {folder: {"digest": digests[folder], **asdict(found[folder])} for folder in files})
    return found


def describe_transparent(key: Path, examined: Mapping[str, Examined], background: Colour) -> str:
    """Say how many images have transparent pixels, and what is put behind these; empty if none has."""
    count = sum(one.transparent for one in examined.values())
    behind = "white" if background == WHITE else f"the colour {background}"
    return (
        f"{key}: {plural(count, 'image has', 'images have')} transparent pixels; {behind} is put behind them, as"
        " data.background says"
        if count
        else ""
    )


def identify(examined: Mapping[str, Examined]) -> str:
    """Return a digest of the names and bytes of images, `sha256:...`.

    Args:
        examined: the results of `examine`.
    """
    return f"sha256:{_keep({folder: one.content for folder, one in examined.items()})}"


def describe_changes(before: str, now: str) -> str:
    """Say how many images were added, removed and changed between two digests, and name the first ones.

    Args:
        before: from `identify`.
        now: from `identify`.

    Returns:
        Such as `images: 1 added, 1 removed: train/cat/1.png and train/cat/2.png`; empty if the cache does not have what
        the digests stand for.
    """
    old, new = (_images_of(digest.removeprefix("sha256:")) for digest in (before, now))
    if old is None or new is None:
        return ""
    kinds = {
        "added": sorted(new.keys() - old.keys()),
        "removed": sorted(old.keys() - new.keys()),
        "changed": sorted(name for name in new.keys() & old.keys() if new[name] != old[name]),
    }
    counts = [f"{len(names):,} {kind}" for kind, names in kinds.items() if names]
    first = [name for names in kinds.values() for name in names[:SHOWN]]
    total = sum(map(len, kinds.values()))
    which = f", such as {join(first[:SHOWN])}" if total > SHOWN else f": {join(first)}"
    return f"images: {', '.join(counts)}{which}"


def _images_of(digest: str) -> dict[str, str] | None:
    """Return path -> digest of the images that a digest stands for, or None if the cache does not have them."""
    folders = _listing(digest)
    if folders is None:
        return None
    inside = {folder: _listing(content) for folder, content in folders.items()}
    return {
        f"{folder}/{name}" if folder else name: content
        for folder, listing in inside.items()
        for name, content in (listing or {}).items()
    }


def _examine(root: Path, files: Mapping[str, list[ImageFile]]) -> Mapping[str, Examined]:
    def look(item: tuple[str, ImageFile]) -> tuple[str, str, str, str | None, bool]:
        folder, file = item
        if file.size > MOST_BYTES:
            return folder, file.name, str(file.size), f"{file.size:,} bytes are more than {MOST_BYTES:,}", False
        content = read_bytes(root / folder / file.name)
        digest = hashlib.sha256(content).hexdigest()
        try:
            return folder, file.name, digest, None, read_pixels(content).mode == "RGBA"
        except ValueError as error:
            return folder, file.name, digest, str(error), False

    contents: dict[str, dict[str, str]] = {folder: {} for folder in files}
    corrupt: dict[str, dict[str, str]] = {folder: {} for folder in files}
    transparent = dict.fromkeys(files, 0)
    items = ((folder, file) for folder, inside in files.items() for file in inside)
    total = sum(map(len, files.values()))
    with progress_bar(f"checking {root.name}") as progress:
        looked = map_in_order(look, items, decoder_threads(), 64 * decoder_threads())
        for done, (folder, name, content, problem, alpha) in enumerate(looked, 1):
            progress(done, total)
            contents[folder][name] = content
            transparent[folder] += alpha
            if problem is not None:
                corrupt[folder][name] = problem
    return {folder: Examined(_keep(contents[folder]), corrupt[folder], transparent[folder]) for folder in files}


# --- the cache


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
                entry["digest"], entry["content"], entry["corrupt"].items(), entry["transparent"]
            return folders
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass  # a missing or damaged cache is created again
    return {}


def _write_cache(root: Path, folders: Mapping[str, Any]) -> None:
    content = {"format": _decoder(), "folder": str(root.resolve()), "folders": folders}
    write_cache_file(_cache(root), json.dumps(content, indent=1).encode())


def _keep(listing: Mapping[str, str]) -> str:
    """Return the digest of a listing, and keep the listing in the cache."""
    content = json.dumps(listing, sort_keys=True).encode()
    digest = hashlib.sha256(content).hexdigest()
    if not _kept(digest).is_file():
        write_cache_file(_kept(digest), gzip.compress(content, mtime=0))
    return digest


def _listing(digest: str) -> dict[str, str] | None:
    """Return the listing with this digest, or None if the cache does not have it."""
    try:
        content = gzip.decompress(_kept(digest).read_bytes())
    except (OSError, EOFError, zlib.error):
        return None
    return json.loads(content) if hashlib.sha256(content).hexdigest() == digest else None


def _kept(digest: str) -> Path:
    return platformdirs.user_cache_path("leadline") / "images" / "contents" / f"{digest}.json.gz"
