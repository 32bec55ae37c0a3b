"""MLflow: its folder of files (mlruns) and its SQLite file, both without MLflow."""

import io
import sys
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from leadline.analysis.runs.databases import has_tables, open_database
from leadline.analysis.runs.logs import find_files, gather, to_rows, with_settings
from leadline.analysis.runs.readers import Reader, register
from leadline.errors import DataError

META = "meta.yaml"
LOGGED = ["timestamp", "value", "step"]
STATES = {1: "running", 2: "scheduled", 3: "finished", 4: "failed", 5: "killed"}
TABLES = {
    "experiments": ["experiment_id", "name"],
    "runs": ["run_uuid", "name", "status", "lifecycle_stage", "experiment_id"],
    "metrics": ["run_uuid", "key", "value", "timestamp", "step", "is_nan"],
    "params": ["run_uuid", "key", "value"],
}
"""Tables of the SQLite file, and the columns that are read."""


def read_files(path: Path) -> pd.DataFrame:
    """Return a row per run and step of a folder of runs; runs that were deleted are left out.

    Raises:
        DataError: no run can be read.
    """
    found = {file.parent: _load(file) for file in _metas(path)}
    experiments = {str(meta.get("experiment_id")): meta.get("name") for meta in found.values() if "run_id" not in meta}
    return gather(
        path,
        (
            (str(meta.get("run_name") or run.name), partial(_read_files, run, meta, experiments))
            for run, meta in found.items()
            if ("run_id" in meta or not meta) and meta.get("lifecycle_stage") != "deleted"
        ),
    )


def _metas(path: Path) -> list[Path]:
    inner = ("artifacts", "metrics", "params", "tags", "models", "traces", "datasets", "inputs", "outputs")
    files = find_files(path, META.__eq__, deepest=3)
    return [file for file in files if not set(inner) & set(file.relative_to(path).parts)]


def _load(file: Path) -> dict[str, Any]:
    """Return what a meta.yaml holds; of a damaged one, nothing."""
    content = None
    with suppress(yaml.YAMLError, UnicodeDecodeError):
        if (text := file.read_text(encoding="utf-8")).endswith("\n"):
            content = yaml.safe_load(text)
    return content if isinstance(content, dict) else {}


def _read_files(run: Path, meta: dict[str, Any], experiments: dict[str, Any]) -> pd.DataFrame:
    if meta.get("status") not in STATES:
        raise DataError(f"{META} is half-written, or of an unknown version")
    parts = []
    for file in find_files(run / "metrics", lambda name: True):
        name = file.relative_to(run / "metrics").as_posix()
        parts.append(_read_metric(file, name).assign(metric=name))
    logged = pd.concat(parts) if parts else pd.DataFrame(columns=[*LOGGED, "metric"])
    settings = {
        file.relative_to(run / "params").as_posix(): file.read_text(encoding="utf-8")
        for file in find_files(run / "params", lambda name: True)
    }
    experiment = experiments.get(str(meta.get("experiment_id")))
    return _rows(logged, str(meta.get("run_name") or run.name), run.name, experiment, STATES[meta["status"]], settings)


def _read_metric(file: Path, name: str) -> pd.DataFrame:
    content = file.read_bytes()
    try:
        if not content.endswith(b"\n"):
            raise ValueError
        part = pd.read_csv(io.BytesIO(content), sep=" ", names=LOGGED, usecols=[0, 1, 2])
        return part.astype({"timestamp": int, "value": float, "step": int})
    except (ValueError, pd.errors.ParserError):
        raise DataError(f"metrics/{name} is half-written; expected lines of timestamp, value and step") from None


def read_database(path: Path) -> pd.DataFrame:
    """Return a row per run and step of MLflow's SQLite file; runs that were deleted are left out.

    Raises:
        DataError: it is damaged, or of a version with other tables.
    """
    with open_database(path) as connection:
        tables = {}
        for name, columns in TABLES.items():
            there = {row[1] for row in connection.execute(f"PRAGMA table_info({name})")}
            if lacking := [column for column in columns if column not in there]:
                raise DataError(f"{path}: of an unknown version of MLflow: table {name} has no column {lacking[0]}")
            tables[name] = pd.read_sql_query(f"SELECT {', '.join(columns)} FROM {name}", connection)
    metrics = tables["metrics"].rename(columns={"key": "metric"})
    metrics["value"] = metrics["value"].astype(float).mask(metrics["is_nan"].astype(bool))
    infinite = metrics["value"].abs() >= sys.float_info.max  # the largest number is what MLflow stores for it
    metrics["value"] = metrics["value"].mask(infinite, np.copysign(np.inf, metrics["value"]))
    logged = dict(list(metrics.groupby("run_uuid")))
    settings = {
        run: dict(zip(own["key"], own["value"], strict=True)) for run, own in tables["params"].groupby("run_uuid")
    }
    experiments = dict(zip(tables["experiments"]["experiment_id"], tables["experiments"]["name"], strict=True))

    kept = tables["runs"][tables["runs"]["lifecycle_stage"] != "deleted"]
    return gather(
        path,
        (
            (
                run["name"] or run["run_uuid"],
                partial(
                    _rows,
                    logged.get(run["run_uuid"], metrics.iloc[:0]),
                    run["name"] or run["run_uuid"],
                    run["run_uuid"],
                    experiments.get(run["experiment_id"]),
                    run["status"].lower(),
                    settings.get(run["run_uuid"], {}),
                ),
            )
            for run in kept.to_dict("records")
        ),
    )


def _rows(
    logged: pd.DataFrame, name: str, number: str, experiment: object, state: str, settings: dict[str, Any]
) -> pd.DataFrame:
    rows = to_rows(
        logged.sort_values(["step", "timestamp"], kind="stable"), "step", failed=state in ("failed", "killed")
    )
    own = {"run_id": number, "experiment": experiment, "state": state}
    return with_settings(rows, name, own | {key: _number(value) for key, value in settings.items()})


def _number(text: str) -> int | str:
    """Return a setting, which MLflow keeps as text, as a whole number where it is one."""
    return int(text) if text.isdecimal() else text


register(Reader("a folder of MLflow (mlruns)", lambda path: path.is_dir() and any(_metas(path)), read_files))
register(Reader("MLflow's SQLite file", lambda path: has_tables(path, {*TABLES, "alembic_version"}), read_database))
