"""Locate and read the files of data sets, and write those of the cache; no torch."""

import contextlib
import hashlib
import os
from pathlib import Path

import platformdirs

from leadline.errors import DataError, absence


def default_data_dir() -> Path:
    """Return the folder in the environment variable LEADLINE_DATA, or else in the user's cache."""
    given = os.environ.get("LEADLINE_DATA")
    return Path(given) if given else platformdirs.user_cache_path("leadline") / "data"


def locate(path: str, data_dir: Path) -> Path:
    """Return the path in a specification, relative to the folder of the data sets."""
    return data_dir / Path(path).expanduser()


def find_file(path: str, data_dir: Path, key: str = "data.path") -> Path:
    """Return the path of an existing file.

    Args:
        path: of the file, relative to the folder of the data sets.
        data_dir: that folder.
        key: that has the path in a study, for the message.

    Raises:
        DataError: the file does not exist.
    """
    found = locate(path, data_dir)
    if not found.is_file():
        below = "" if Path(path).expanduser().is_absolute() else f"; {path} is relative to {data_dir}"
        raise DataError(f"{found}: {absence(found, 'file')}{below}; change {key} or --data-dir")
    return found


def read_bytes(path: Path) -> bytes:
    """Return the content of a file.

    Raises:
        DataError: it cannot be read, for reasons other than its content.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def compute_sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file.

    Raises:
        DataError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def write_cache_file(path: Path, content: bytes) -> None:
    """Write a file of the cache, atomically, if it can be written."""
    partial = path.with_suffix(f".{os.getpid()}.partial")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_bytes(content)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
