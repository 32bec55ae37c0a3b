"""Hugging Face's Trainer: output folders and checkpoints with trainer_state.json, which has every metric."""

import json
import re
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from leadline.analysis.runs.logs import find_files, gather, name_of, to_rows, with_settings
from leadline.analysis.runs.readers import Reader, register
from leadline.errors import DataError

STATE = "trainer_state.json"
CHECKPOINT = re.compile(r"checkpoint-(\d+)")


def read_trainer_states(path: Path) -> pd.DataFrame:
    """Return a row per run and step; of a run's checkpoints the one with the most steps is read."""
    runs: dict[Path, list[Path]] = {}
    for file in find_files(path, STATE.__eq__):
        inside = CHECKPOINT.fullmatch(file.parent.name) and file.parent != path
        runs.setdefault(file.parent.parent if inside else file.parent, []).append(file)
    return gather(
        path,
        (
            (name_of(run, path), partial(_read, max(files, key=_steps), name_of(run, path)))
            for run, files in runs.items()
        ),
    )


def _steps(file: Path) -> float:
    """Return the steps of a checkpoint by its folder's name; a state outside checkpoints is the last."""
    found = CHECKPOINT.fullmatch(file.parent.name)
    return int(found[1]) if found else float("inf")


def _read(file: Path, run: str) -> pd.DataFrame:
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
        history: list[dict[str, Any]] = state["log_history"]
        logged = [
            (int(entry["step"]), name, float(value))
            for entry in history
            for name, value in entry.items()
            if name not in ("step", "epoch") and isinstance(value, int | float)
        ]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise DataError(f"{file.parent.name}/{STATE} is half-written, or has no log_history") from None
    return with_settings(to_rows(pd.DataFrame(logged, columns=["step", "metric", "value"]), "step"), run, {})


register(
    Reader(
        "a folder of Hugging Face's Trainer",
        lambda path: path.is_dir() and any(True for _ in find_files(path, STATE.__eq__)),
        read_trainer_states,
    )
)
