"""Folders with one file per run and a row per epoch: CSV, such as Keras's CSVLogger writes, and JSON of a `History`."""

import json
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pandas as pd

from leadline.analysis.runs.logs import find_files, gather, read_logged, to_records, to_rows, with_settings
from leadline.analysis.runs.readers import Reader, register
from leadline.errors import DataError

EPOCH = "epoch"
HISTORY = re.compile(rb'\s*\{\s*"[^"]*"\s*:\s*\[')
"""How the JSON of a `History` begins; other JSON files are taken for settings."""


def read_histories(path: Path) -> pd.DataFrame:
    """Return a row per run and epoch; a run is named as its file."""
    return gather(path, ((_name(file, path), partial(_read, file, path)) for file in _files(path)))


def _files(path: Path) -> Iterator[Path]:
    for file in find_files(path, lambda name: name.endswith((".csv", ".json"))):
        if file.suffix == ".csv" or HISTORY.match(_head(file)):
            yield file


def _head(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.readline(4096)


def _accepts(path: Path) -> bool:
    return path.is_dir() and any(
        file.suffix == ".json" or EPOCH.encode() in _head(file).strip().split(b",") for file in _files(path)
    )


def _name(file: Path, path: Path) -> str:
    return file.relative_to(path).with_suffix("").as_posix()


def _read(file: Path, path: Path) -> pd.DataFrame:
    if file.suffix == ".json":
        records = _history(file)
    else:
        table = read_logged(file)
        if EPOCH not in table:
            raise DataError(f"has no column {EPOCH}")
        records = to_records(table, EPOCH)
    return with_settings(to_rows(records, EPOCH), _name(file, path), {})


def _history(file: Path) -> pd.DataFrame:
    """Return what `History.history` holds, metric -> its value of each epoch, from epoch 0."""
    try:
        history = json.loads(file.read_text(encoding="utf-8"))
        return pd.DataFrame(history, dtype=float).rename_axis(EPOCH).reset_index().melt(EPOCH, var_name="metric")
    except (ValueError, TypeError, AttributeError):
        raise DataError("is half-written, or no object of lists of one length, as History.history is") from None


register(Reader("a folder of CSV or JSON files with epochs (Keras)", _accepts, read_histories, general=True))
