"""SQLite files of other programs, which are read and never written."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from leadline.errors import DataError

MAGIC = b"SQLite format 3\0"


def address(path: Path) -> str:
    """Return the address of an SQLite file that opens it for reading alone."""
    return f"{path.resolve().as_uri()}?mode=ro"


@contextmanager
def open_database(path: Path) -> Iterator[sqlite3.Connection]:
    """Open an SQLite file for reading.

    Raises:
        DataError: it is damaged, locked, or lacks what is asked of it.
    """
    try:
        with closing(sqlite3.connect(address(path), uri=True)) as connection:
            yield connection
    except sqlite3.Error as error:
        raise DataError(f"{path}: cannot be read as SQLite: {error}") from None


def has_tables(path: Path, names: set[str]) -> bool:
    """Return whether a path is an SQLite file with these tables."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            return False
    with open_database(path) as connection:
        return names <= {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}


def check(path: Path) -> None:
    """Raise DataError where an SQLite file is damaged."""
    with open_database(path) as connection:
        (found,) = connection.execute("PRAGMA quick_check(1)").fetchone()
    if found != "ok":
        raise DataError(f"{path}: is damaged: {found}")
