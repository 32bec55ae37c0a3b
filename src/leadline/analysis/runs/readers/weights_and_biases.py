"""Weights & Biases: CSV files that its pages export, of a table of runs or of a chart; folders of offline runs."""

import csv
import json
import re
import struct
import zlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from leadline.analysis.runs.logs import RUN, find_files, flat, gather, to_rows, with_settings
from leadline.analysis.runs.readers import Reader, register
from leadline.analysis.runs.readers.tables import read_csv
from leadline.errors import DataError, not_installed

RUNS_TABLE = {"Name", "State", "Created"}
SERIES = re.compile(r"(?P<run>.+) - (?P<metric>.+?)(?P<range>__(MIN|MAX))?")
STEP = "step"


# --- exported files


def _head(path: Path) -> list[str]:
    if not path.is_file() or path.suffix.lower() != ".csv":
        return []
    with path.open("rb") as file:
        line = file.readline().decode("utf-8-sig", errors="replace")
    return next(iter(csv.reader([line])), [])


def _is_chart(path: Path) -> bool:
    names = _head(path)
    ranges = [name for name in names[1:] if name.endswith("__MIN")]
    return bool(ranges) and all(SERIES.fullmatch(name) for name in names[1:])


def read_runs_table(path: Path) -> pd.DataFrame:
    """Return an exported table of runs: a row per run, named in column run; W&B's own columns keep their names."""
    frame = read_csv(path)
    return frame.rename(columns={"Name": RUN, "State": "state"})


def read_chart(path: Path) -> pd.DataFrame:
    """Return an exported chart: a row per run and step, with a column for each metric.

    The columns __MIN and __MAX, the range of what a point of the chart stands for, are left out.
    """
    frame = read_csv(path, words=True)
    axis = str(frame.columns[0])
    parts = []
    for name in frame.columns[1:]:
        found = SERIES.fullmatch(name)
        if found and not found["range"]:
            part = pd.DataFrame({axis: frame[axis], RUN: found["run"], "metric": found["metric"]})
            part["value"] = pd.to_numeric(frame[name], errors="coerce")
            parts.append(part[frame[name].notna()])  # NaN is a value; an empty cell is none
    records = pd.concat(parts, ignore_index=True)
    names = records[RUN].unique()
    of_run = dict(list(records.groupby(RUN)))
    return gather(
        path,
        ((name, partial(_one_of_chart, of_run[name], axis, name)) for name in names),
    )


def _one_of_chart(records: pd.DataFrame, axis: str, run: str) -> pd.DataFrame:
    return with_settings(to_rows(records, axis), run, {})


# --- offline runs

BLOCK, HEADER = 32768, struct.Struct("<IHB")
MAGIC = struct.Struct("<4sHB")
IDENTITY = (b":W&B", 0xBEE1, 0)
FULL, LAST = 1, 4  # kinds of a part; others are followed by more


def read_offline_runs(path: Path) -> pd.DataFrame:
    """Return a row per run and step of a folder of offline runs.

    Raises:
        DataError: wandb is not installed, or no run can be read.
    """
    try:
        from wandb.proto.wandb_internal_pb2 import Record
    except ImportError:
        raise DataError(f"{path}: {not_installed('reading offline runs', 'wandb', 'wandb')}") from None
    return gather(
        path,
        ((file.parent.name, partial(_read, file, Record)) for file in find_files(path, _is_log)),
    )


def has_ended(folder: Path) -> bool:
    """Return whether the log in the folder of an offline run is whole, to its end; needs wandb."""
    from wandb.proto.wandb_internal_pb2 import Record

    try:
        return any(
            Record.FromString(content).HasField("exit")
            for file in find_files(folder, _is_log)
            for content in _records(file.read_bytes())
        )
    except DataError:
        return False


def _is_log(name: str) -> bool:
    return name.startswith("run-") and name.endswith(".wandb")


def _read(file: Path, record_type: Any) -> pd.DataFrame:
    from google.protobuf.message import DecodeError

    name, code = file.stem.removeprefix("run-"), None
    settings: dict[str, Any] = {}
    logged: list[tuple[int, str, float]] = []
    try:
        for content in _records(file.read_bytes()):
            record = record_type.FromString(content)
            kind = record.WhichOneof("record_type")
            if kind == "run":
                name = record.run.display_name or name
                settings |= _items(record.run.config.update)
            elif kind == "config":
                settings |= _items(record.config.update)
            elif kind == "history":
                logged += _numbers(record.history)
            elif kind == "exit":
                code = record.exit.exit_code
    except DecodeError:
        raise DataError("its log is of an unknown version of wandb") from None
    if code is None:
        raise DataError("has not ended, or was killed")
    settings = {key: value for key, value in settings.items() if not key.startswith("_wandb")}
    own = {"state": "finished" if code == 0 else "crashed", **flat(settings)}
    return with_settings(
        to_rows(pd.DataFrame(logged, columns=[STEP, "metric", "value"]), STEP, failed=code != 0), name, own
    )


def _items(items: Any) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def _numbers(history: Any) -> Iterator[tuple[int, str, float]]:
    for item in history.item:
        name = item.key or ".".join(item.nested_key)
        value = json.loads(item.value_json)
        number = float("nan") if value == "NaN" else value
        if not name.startswith("_") and isinstance(number, int | float):
            yield history.step.num, name, float(number)


def _records(content: bytes) -> Iterator[bytes]:
    """Yield the records of a log, whose format is that of LevelDB's with a header of its own.

    Raises:
        DataError: it is of another version, damaged, or half-written.
    """
    if len(content) < MAGIC.size or MAGIC.unpack_from(content) != IDENTITY:
        raise DataError("its log is empty, or of an unknown version of wandb")
    place, parts = MAGIC.size, []
    while place < len(content):
        left = BLOCK - place % BLOCK
        if left < HEADER.size:
            place += left
            continue
        if place + HEADER.size > len(content):
            raise DataError("its log is half-written")
        checksum, length, kind = HEADER.unpack_from(content, place)
        place += HEADER.size
        part = content[place : place + length]
        if len(part) < length:
            raise DataError("its log is half-written")
        if zlib.crc32(part, zlib.crc32(bytes([kind]))) != checksum:
            raise DataError(f"its log is damaged at byte {place:,}")
        place += length
        parts.append(part)
        if kind in (FULL, LAST):
            yield b"".join(parts)
            parts = []
    if parts:
        raise DataError("its log is half-written")


register(
    Reader("a table of runs exported from W&B (.csv)", lambda path: set(_head(path)) >= RUNS_TABLE, read_runs_table)
)
register(Reader("a chart exported from W&B (.csv)", _is_chart, read_chart))
register(
    Reader(
        "a folder of offline runs of W&B",
        lambda path: path.is_dir() and any(True for _ in find_files(path, _is_log)),
        read_offline_runs,
    )
)
