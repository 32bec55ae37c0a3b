"""TensorBoard: folders of event files, of which scalars and hyperparameters are read."""

import re
import struct
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from leadline.analysis.runs.logs import find_files, gather, name_of, to_rows, with_settings
from leadline.analysis.runs.readers import Reader, register
from leadline.errors import DataError, not_installed

VERSION = "brain.Event:2"
HPARAMS = "hparams"
OF_HPARAMS = re.compile(r"\d{9,}\.\d+")
"""Folders inside that of a run in which PyTorch's `add_hparams` logs: the time."""
STATES = {1: "finished", 2: "failed", 3: "running"}
LENGTH, CHECKSUM = struct.Struct("<Q4x"), 4
SPLITS = {"train", "validation", "test"}
"""Folders inside that of a run in which Keras logs; their name is put before that of the metric."""


def _is_log(name: str) -> bool:
    return ".tfevents." in name


def read_events(path: Path) -> pd.DataFrame:
    """Return a row per run, which is a folder with event files, and step.

    Raises:
        DataError: tensorboard is not installed, or no run can be read.
    """
    try:
        from tensorboard.compat.proto.event_pb2 import Event
    except ImportError:
        raise DataError(f"{path}: {not_installed('reading event files', 'tensorboard', 'tensorboard')}") from None
    runs: dict[Path, list[Path]] = {}
    for file in find_files(path, _is_log):
        inside = file.parent != path and (file.parent.name in SPLITS or OF_HPARAMS.fullmatch(file.parent.name))
        runs.setdefault(file.parent.parent if inside else file.parent, []).append(file)
    return gather(
        path,
        ((name_of(run, path), partial(_read, files, name_of(run, path), Event)) for run, files in runs.items()),
    )


def _read(files: list[Path], run: str, event: Any) -> pd.DataFrame:
    logged = []
    settings: dict[str, Any] = {}
    for file in files:
        before = f"{file.parent.name}/" if file.parent.name in SPLITS and len({one.parent for one in files}) > 1 else ""
        logged += [(step, time, before + tag, value) for step, time, tag, value in _scalars(file, event, settings)]
    records = pd.DataFrame(logged, columns=["step", "time", "metric", "value"])
    failed = settings.get("state") == "failed"
    return with_settings(to_rows(records.sort_values("time", kind="stable"), "step", failed), run, settings)


def _scalars(file: Path, event_type: Any, settings: dict[str, Any]) -> Iterator[tuple[int, float, str, float]]:
    """Yield step, time, tag and value of the scalars in an event file; add its hyperparameters to settings.

    Raises:
        DataError: it is damaged or half-written, or of an unknown version.
    """
    from google.protobuf.message import DecodeError
    from tensorboard.util.tensor_util import make_ndarray

    plugins: dict[str, str] = {}  # told with the first value of a tag alone
    try:
        for record in _records(file):
            event = event_type.FromString(record)
            if event.HasField("file_version") and event.file_version != VERSION:
                raise DataError(f"{file.name} is of version {event.file_version!r}; expected {VERSION!r}")
            for value in event.summary.value:
                plugin = plugins.setdefault(value.tag, value.metadata.plugin_data.plugin_name)
                if value.HasField("simple_value"):
                    yield event.step, event.wall_time, value.tag, value.simple_value
                elif value.HasField("tensor") and plugin == "scalars":
                    yield event.step, event.wall_time, value.tag, float(make_ndarray(value.tensor))
                elif plugin == HPARAMS:
                    settings |= _hyperparameters(value.metadata.plugin_data.content)
    except DecodeError:
        raise DataError(f"{file.name} is damaged") from None


def _hyperparameters(content: bytes) -> dict[str, Any]:
    """Return the hyperparameters with which a run started, or how it ended where that is known."""
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    data = HParamsPluginData.FromString(content)
    if data.HasField("session_end_info"):
        state = STATES.get(data.session_end_info.status)
        return {} if state is None else {"state": state}
    found = {}
    for name, value in data.session_start_info.hparams.items():
        own = getattr(value, value.WhichOneof("kind") or "string_value")
        found[name] = int(own) if isinstance(own, float) and own.is_integer() else own
    return found


def _records(file: Path) -> Iterator[bytes]:
    """Yield the records of a TFRecord file; each has its length before it, and a checksum after either.

    The checksums are not tested, since that takes minutes in Python; lengths that do not fit are found.
    """
    content, place = file.read_bytes(), 0
    while place < len(content):
        start = place + LENGTH.size
        place = start + LENGTH.unpack_from(content, place)[0] + CHECKSUM if start <= len(content) else start
        if place > len(content):
            raise DataError(f"{file.name} is damaged or half-written")
        yield content[start : place - CHECKSUM]


register(
    Reader(
        "a folder of TensorBoard's event files",
        lambda path: path.is_dir() and any(True for _ in find_files(path, _is_log)),
        read_events,
    )
)
