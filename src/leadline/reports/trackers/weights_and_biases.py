"""Weights & Biases: offline runs in FOLDER/wandb, which `wandb sync` uploads; a study is a project."""

import hashlib
import os
import shutil
import time
from pathlib import Path
from typing import Any

from leadline.analysis.runs.readers.weights_and_biases import has_ended
from leadline.errors import LeadlineError
from leadline.reports.trackers import VERDICT_RUN, Points, TrackedRun, Tracker, register
from leadline.reports.trackers.marks import find_marks, write_mark

STATE = "state"
"""Name in the configuration under which a run's state stands, since W&B has no word for a run that diverged."""

WRITTEN_SECONDS = 60.0
"""In which a run that was finished must be in its file."""


@register
class WeightsAndBiases(Tracker):
    """Offline runs; nothing leaves this machine."""

    name = "wandb"
    package = "wandb"
    module = "wandb"
    next = "wandb sync {folder}/wandb/offline-run-*"

    def __init__(self, folder: Path, study: str) -> None:
        self._runs: dict[str, Any] = {}
        super().__init__(folder, study)

    def read_known(self) -> dict[str, str]:
        """Return what the marks in the folders of offline runs say."""
        found = find_marks(self.folder.glob("wandb/offline-run-*"), self.study)
        self._folders = {id_: folder for id_, (folder, _) in found.items()}
        return {id_: digest for id_, (_, digest) in found.items()}

    def remove(self, run: str) -> None:
        """Remove the run's folder."""
        if (open_run := self._runs.pop(run, None)) is not None:
            _finish(open_run, 1)
        shutil.rmtree(self._folders.pop(run))

    def begin(self, run: TrackedRun) -> None:
        """Start a run with its configuration."""
        self._runs[run.id] = started = self._start(run.id, run.name, run.base, run.config | {STATE: "running"})
        self._folders[run.id] = Path(started.dir).parent
        write_mark(self._folders[run.id], self.study, run.id)

    def add(self, run: TrackedRun, points: Points) -> None:
        """Log values, with the epoch as their step."""
        for epoch, values in points.items():
            self._runs[run.id].log(dict(values), step=epoch)

    def end(self, run: TrackedRun) -> None:
        """Finish the run; the last value of each name is its summary."""
        ended = self._runs.pop(run.id)
        ended.config.update({STATE: run.state}, allow_val_change=True)
        _finish(ended, 0 if run.state == "finished" else 1)
        write_mark(self._folders[run.id], self.study, run.id, run.digest)

    def close(self) -> None:
        """End the logs of runs that go on, whose state still says so."""
        for run in self._runs.values():
            _finish(run, 1)
        self._runs.clear()

    def write_verdict(self, text: str, digest: str) -> None:
        """Write the verdict as the summary of a run of its own."""
        id_ = f"{VERDICT_RUN}-{hashlib.sha256(self.study.encode()).hexdigest()[:16]}"
        if (before := self._folders.pop(VERDICT_RUN, None)) is not None:
            shutil.rmtree(before)
        run = self._start(id_, VERDICT_RUN, None, {"study": self.study})
        run.summary["verdict"] = text
        _finish(run, 0)
        self._folders[VERDICT_RUN] = folder = Path(run.dir).parent
        write_mark(folder, self.study, VERDICT_RUN, digest)

    def _start(self, id_: str, name: str, group: str | None, config: dict[str, Any]) -> Any:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        import wandb

        quiet = wandb.Settings(
            silent=True, console="off", disable_git=True, save_code=False, x_disable_stats=True, x_disable_meta=True
        )
        return wandb.init(
            project=self.study,
            dir=self.folder,
            id=id_,
            name=name,
            group=group,
            config=config,
            mode="offline",
            reinit="create_new",
            settings=quiet,
        )


def _finish(run: Any, code: int) -> None:
    """Finish a run and wait until its log is whole, since `finish` returns earlier."""
    run.finish(exit_code=code)
    folder, until = Path(run.dir).parent, time.monotonic() + WRITTEN_SECONDS
    while not has_ended(folder):
        if time.monotonic() > until:
            raise LeadlineError(f"{folder}: wandb did not write its log within {WRITTEN_SECONDS:.0f} s")
        time.sleep(0.02)
