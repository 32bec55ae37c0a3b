"""Optuna: a storage in an SQLite file, whose trials are the runs."""

from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from leadline.analysis.runs.databases import address, check, has_tables
from leadline.analysis.runs.logs import flat, with_settings
from leadline.analysis.runs.readers import Reader, register
from leadline.errors import DataError, not_installed

if TYPE_CHECKING:
    import optuna

METRIC_NAMES = "study:metric_names"
STATES = {"FAIL": "failed"}
"""States whose name in Optuna is not that of a table of runs."""


def read_storage(path: Path) -> pd.DataFrame:
    """Return a row per trial of every study, with its parameters, its attributes and its values.

    Raises:
        DataError: optuna is not installed, or the file is damaged or of another version.
    """
    try:
        import optuna
    except ImportError:
        raise DataError(f"{path}: {not_installed('reading a storage', 'optuna', 'tune')}") from None
    check(path)
    try:
        storage = optuna.storages.RDBStorage(
            f"sqlite:///{address(path)}&uri=true", skip_table_creation=True, skip_compatibility_check=False
        )
        rows = [
            _row(study.study_name, trial, study.system_attrs.get(METRIC_NAMES))
            for study in storage.get_all_studies()
            for trial in storage.get_all_trials(study._study_id, deepcopy=False)
        ]
    except (RuntimeError, optuna.exceptions.OptunaError) as error:
        raise DataError(
            f"{path}: cannot be read by optuna {optuna.__version__}: {str(error).splitlines()[0]}"
        ) from None
    if not rows:
        raise DataError(f"{path}: no study in it has a trial")
    return pd.concat(rows, ignore_index=True)


def _row(study: str, trial: "optuna.trial.FrozenTrial", names: list[str] | None) -> pd.DataFrame:
    """Return a trial as a row; without names of its own, a value is called value, or value_0, value_1 of several."""
    values = trial.values or []
    names = names or (["value"] if len(values) < 2 else [f"value_{place}" for place in range(len(values))])
    state = STATES.get(trial.state.name, trial.state.name.lower())
    row = pd.DataFrame([dict.fromkeys(names) | dict(zip(names, values, strict=False))])
    settings = {"study": study, "state": state, **flat(trial.params), **flat(trial.user_attrs)}
    return with_settings(row, f"{study}/{trial.number}", settings)


register(
    Reader(
        "Optuna's SQLite file",
        lambda path: has_tables(path, {"studies", "trials", "trial_params", "version_info"}),
        read_storage,
    )
)
