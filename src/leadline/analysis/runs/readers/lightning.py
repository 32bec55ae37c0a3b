"""Lightning's CSVLogger: folders with metrics.csv, whose rows hold training or validation, and hparams.yaml."""

from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from leadline.analysis.runs.logs import (
    find_files,
    flat,
    gather,
    name_of,
    read_logged,
    to_records,
    to_rows,
    with_settings,
)
from leadline.analysis.runs.readers import Reader, register
from leadline.errors import DataError

METRICS, SETTINGS = "metrics.csv", "hparams.yaml"


class _Plain(yaml.SafeLoader):
    """Reads settings that name Python objects, which become their names; nothing is imported."""


_Plain.add_multi_constructor(
    "tag:yaml.org,2002:python/", lambda loader, suffix, node: suffix.partition(":")[2] or suffix
)


def read_settings(path: Path) -> dict[str, Any]:
    """Return the settings in a YAML file, without nesting; of a file that is not there, none.

    Raises:
        DataError: it is not YAML, or holds something else than settings.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Plain) if path.exists() else None  # a safe loader
    except (yaml.YAMLError, UnicodeDecodeError):
        raise DataError(f"{path.name} is not YAML") from None
    if not isinstance(content, dict | None):
        raise DataError(f"{path.name} holds no settings")
    return flat(content or {})


def read_lightning(path: Path) -> pd.DataFrame:
    """Return a row per run and epoch, or per step where no epoch is logged."""
    files = find_files(path, METRICS.__eq__)
    return gather(path, ((name_of(file.parent, path), partial(_read, file, path)) for file in files))


def _read(file: Path, path: Path) -> pd.DataFrame:
    table = read_logged(file)
    axis = "epoch" if "epoch" in table and table["epoch"].notna().all() else "step"
    if axis not in table:
        raise DataError(f"{METRICS} has no column epoch or step")
    rows = to_rows(to_records(table, axis, {"epoch", "step"}), axis)
    return with_settings(rows, name_of(file.parent, path), read_settings(file.parent / SETTINGS))


register(
    Reader(
        "a folder of Lightning's CSVLogger",
        lambda path: path.is_dir() and any(True for _ in find_files(path, METRICS.__eq__)),
        read_lightning,
    )
)
