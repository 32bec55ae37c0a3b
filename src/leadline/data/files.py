"""Where files of data sets are, and what is in them; no torch."""

import hashlib
import os
from pathlib import Path

import platformdirs

from leadline.errors import DataError


def default_data_dir() -> Path:
    """Return the folder that LEADLINE_DATA names, else the one in the user's cache."""
    given = os.environ.get("LEADLINE_DATA")
    return Path(given) if given else platformdirs.user_cache_path("leadline") / "data"


def locate(path: str, data_dir: Path) -> Path:
    """Return where a path of a specification leads; a relative one is below the folder of the data sets."""
    return data_dir / Path(path).expanduser()


def find_file(path: str, data_dir: Path) -> Path:
    """Return an existing file.

    Raises:
        DataError: there is none.
    """
    found = locate(path, data_dir)
    if not found.is_file():
        below = "" if Path(path).expanduser().is_absolute() else f"; {path} is looked for below {data_dir}"
        raise DataError(f"{found}: no such file{below}; change data.path or --data-dir")
    return found


def read_bytes(path: Path) -> bytes:
    """Return a file's content.

    Raises:
        DataError: it cannot be read now, which says nothing of what is in it.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None


def compute_sha256(path: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from None
