"""Files of results, each format in a module of its own: to a frame with a row per run, or per run and epoch.

A module registers a `Reader`, whose `read` returns columns for what tells runs apart (such as run, model and seed), an
epoch or step where there is one, and one column for each metric. To add a format, add a module to this package.
"""

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from leadline.errors import DataError
from leadline.text import join


@dataclass(frozen=True)
class Reader:
    """A format of results."""

    name: str  # as messages call it
    accepts: Callable[[Path], bool]  # whether a path, of a file or folder that exists, is in the format
    read: Callable[[Path], pd.DataFrame]  # raises DataError where it is damaged
    general: bool = False  # whether formats with more structure are asked first


_readers: dict[str, Reader] = {}


def register(reader: Reader) -> Reader:
    """Add a reader under its name and return it.

    Raises:
        ValueError: another reader has the name.
    """
    if _readers.setdefault(reader.name, reader) != reader:
        raise ValueError(f"reader {reader.name!r} is declared twice")
    return reader


def readers() -> tuple[Reader, ...]:
    """Return every reader by name, those of general formats last."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return tuple(sorted(_readers.values(), key=lambda one: (one.general, one.name)))


def _accepting(path: Path) -> tuple[Reader, ...]:
    """Return the readers that accept a file or folder, those of general formats last.

    Raises:
        DataError: there is no such path, or no reader accepts it.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or folder")
    if found := tuple(reader for reader in readers() if reader.accepts(path)):
        return found
    what = "a folder that holds no results" if path.is_dir() else "not a table of results"
    known = join([one.name for one in readers()], len(readers()))
    raise DataError(f"{path}: {what}; expected {known}; predictions of runs are given with --predictions")


def read_runs(path: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return the results in a file or folder, by the first reader that accepts it, and what is said of that.

    Raises:
        DataError: there is no such path, no reader accepts it, or its content is not what its format has.
    """
    reader, *others = _accepting(path)
    passed = [other.name for other in others if not other.general]
    said = (f"Read as {reader.name}, not as {join(passed)}; name the folder inside to read others.",) if passed else ()
    return reader.read(path), said
