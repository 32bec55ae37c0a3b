"""MLflow: its SQLite file FOLDER/mlflow.db, in which a study is an experiment; no server is needed."""

import json
import logging
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from leadline.errors import LeadlineError
from leadline.reports.trackers import VERDICT_RUN, Points, TrackedRun, Tracker, register

ID, DIGEST = "leadline.id", "leadline.digest"
NOTE = "mlflow.note.content"
MOST_METRICS, MOST_PARAMS = 1000, 100
"""Entries of one request."""
LONGEST_PARAM, LONGEST_TAG = 6000, 8000
"""Characters; longer ones are cut, and whole in the files of the run."""
WORDS = {"finished": "FINISHED"}


@register
class MLflow(Tracker):
    """An experiment with parameters, metrics and tags."""

    name = "mlflow"
    package = "mlflow-skinny"
    module = "mlflow"
    next = "mlflow ui --backend-store-uri sqlite:///{folder}/mlflow.db"

    def __init__(self, folder: Path, study: str) -> None:
        self._runs: dict[str, str] = {}  # id -> MLflow's own
        super().__init__(folder, study)

    def read_known(self) -> dict[str, str]:
        """Return what the tags of the experiment's runs say; the experiment is created if missing."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        for source in ("alembic", "mlflow.store.db.utils"):  # which tell of every table that they create
            logging.getLogger(source).setLevel(logging.WARNING)
        from mlflow import MlflowClient

        folder = self.folder.resolve()
        self._client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
        found = self._client.get_experiment_by_name(self.study)
        if found is not None and found.lifecycle_stage == "deleted":
            raise LeadlineError(
                f"{folder}: the experiment {self.study} was deleted in MLflow; restore it there, remove it with"
                " mlflow gc, or use another folder"
            )
        artifacts = (folder / "mlartifacts" / self.study).as_uri()
        self._experiment = (
            self._client.create_experiment(self.study, artifact_location=artifacts)
            if found is None
            else found.experiment_id
        )
        known: dict[str, str] = {}
        token = None
        while token != "":
            page = self._client.search_runs([self._experiment], page_token=token)
            for run in page:
                if (id_ := run.data.tags.get(ID)) is not None:
                    self._runs[id_], known[id_] = run.info.run_id, run.data.tags.get(DIGEST, "")
            token = page.token or ""
        return known

    def remove(self, run: str) -> None:
        """Mark the run as deleted, as MLflow does; `mlflow gc` then frees its place."""
        self._client.delete_run(self._runs.pop(run))

    def begin(self, run: TrackedRun) -> None:
        """Create a run with its parameters, and its specification as a file."""
        from mlflow.entities import Param

        number = self._create(run.id, run.name)
        given = [Param(key, _cut(_text(value), LONGEST_PARAM)) for key, value in run.settings.items()]
        for some in _divide(given, MOST_PARAMS):
            self._client.log_batch(number, params=some)
        self._client.log_text(number, json.dumps(run.config, indent=2, default=str), "specification.json")

    def add(self, run: TrackedRun, points: Points) -> None:
        """Log metrics, with the epoch as their step."""
        from mlflow.entities import Metric

        moment = int(time.time() * 1000)
        logged = [
            Metric(name, value, moment, epoch) for epoch, values in points.items() for name, value in values.items()
        ]
        for some in _divide(logged, MOST_METRICS):
            self._client.log_batch(self._runs[run.id], metrics=some)

    def end(self, run: TrackedRun) -> None:
        """Set the run's status; what it was in Leadline's words stands in a tag."""
        number = self._runs[run.id]
        self._client.set_tag(number, "leadline.state", run.state)
        self._client.set_tag(number, DIGEST, run.digest)
        self._client.set_terminated(number, WORDS.get(run.state, "FAILED"))

    def close(self) -> None:
        """Leave runs that go on as they are: their status says so."""

    def write_verdict(self, text: str, digest: str) -> None:
        """Write the verdict as the description and a file of a run of its own."""
        if VERDICT_RUN in self._runs:
            self.remove(VERDICT_RUN)
        number = self._create(VERDICT_RUN, VERDICT_RUN)
        self._client.set_tag(number, NOTE, _cut(text, LONGEST_TAG))
        self._client.log_text(number, text, "verdict.txt")
        self._client.set_tag(number, DIGEST, digest)
        self._client.set_terminated(number, "FINISHED")

    def _create(self, id_: str, name: str) -> str:
        made = self._client.create_run(self._experiment, tags={ID: id_}, run_name=name)
        self._runs[id_] = number = str(made.info.run_id)
        return number


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _divide(items: Sequence[Any], most: int) -> list[Sequence[Any]]:
    return [items[start : start + most] for start in range(0, len(items), most)]
