"""Workers that are stopped, fenced out, late, or on a device that failed; a SIGTERM that Python discards."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from leadline.api import Study
from leadline.errors import LeadlineError
from leadline.running.clusters.entering import enter
from leadline.running.executors import InProcess, LocalProcesses, describe_wait, run_until_ended
from leadline.running.job import Event, Job
from leadline.running.stopping import Terminated, sigterm_as_interrupt
from leadline.store import HeldTrial, Store, WorkerId
from leadline.study.pipeline import prepare
from leadline.training.device_errors import lost_device

DATA = {"name": "digits", "train": 40, "validation": 20, "test": 20}


def study(name: str = "small", **changes: Any) -> Study:
    keys: dict[str, Any] = {"data": DATA, "training": {"epochs": 2, "batch_size": 20}, "seeds": 2}
    return Study(name, arms={"plain": "comparative-plain", "residual": "comparative-resnet"}, **(keys | changes))


class Loud:
    """An object whose finaliser is interrupted by SIGTERM, whose exception Python then discards."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGTERM)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_sigterm_that_python_discards_ends_the_run_all_the_same(tmp_path: Path) -> None:
    made = study(seeds=20)
    with Store.open(tmp_path) as store:
        store.register(made.expanded)
    events: list[Event] = []

    def emit(event: Event) -> None:
        events.append(event)
        if len(events) == 1:
            Loud()

    with sigterm_as_interrupt(), pytest.raises(Terminated):
        LocalProcesses(1).run(Job("small", tmp_path), emit)
    with Store.open(tmp_path) as store:
        assert store.counts("small")["running"] == 0 < store.counts("small")["waiting"]


def test_who_holds_a_trial_is_said(tmp_path: Path) -> None:
    made = study(seeds=1)
    with (
        Store.open(tmp_path) as store,
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other,
    ):
        store.register(made.expanded)
        claim = store.claim("small", str(WorkerId.of(other.pid)), 60.0)
        assert claim is not None
        held = HeldTrial("plain", 0, str(WorkerId.of(other.pid)))
        assert store.held("small") == [held]
        assert describe_wait(held) == f"waiting for plain seed 0, which process {other.pid} of this machine runs"
        os.kill(other.pid, signal.SIGSTOP)
        os.waitpid(other.pid, os.WUNTRACED)
        lines: list[str] = []

        def say(line: str) -> None:
            lines.append(line)
            os.kill(other.pid, signal.SIGKILL)

        run_until_ended(InProcess(), Job("small", tmp_path), store, lambda event: None, say)
        assert lines == [
            f"waiting for plain seed 0, which process {other.pid} of this machine holds, but it is stopped; continue it"
            f" with `kill -CONT {other.pid}`, or end it with `kill -KILL {other.pid}`"
        ]
        assert store.counts("small")["finished"] == 2
    assert "elsewhere:7:1 runs; if it is lost" in describe_wait(HeldTrial("plain", 0, "elsewhere:7:1"))


def test_a_late_worker_with_an_older_study_takes_nothing_away(tmp_path: Path) -> None:
    new, old = tmp_path / "new.yaml", tmp_path / "old.yaml"
    text = "name: small\ndata: {name: digits, train: 40, test: 20}\ntraining: {epochs: 1}\narms:\n  a: {network: mlp}\n"
    new.write_text(text + "seeds: 5\n")
    old.write_text(text + "seeds: 2\n")
    runs = tmp_path / "runs"
    assert enter(str(new), {}, runs, None, None) == enter(str(old), {}, runs, None, None) == "small"
    with Store.open(runs) as store:
        assert store.counts("small")["waiting"] == 5
        assert store.claim("small", str(WorkerId.current()), 60.0) is not None
    # nor does a run that is started while another one is at work
    with pytest.raises(LeadlineError, match="would no longer belong to it"):
        Study.load(str(old)).run(runs, workers=0, progress=False)


def test_a_worker_that_was_fenced_out_leaves_no_file_behind(tmp_path: Path) -> None:
    made = study(seeds=1)
    with Store.open(tmp_path) as store:
        store.register(made.expanded)
    taken: list[str] = []

    def take_over(event: Event) -> None:
        if event.text.startswith("epoch 1") and not taken:
            taken.append(event.trial)
            with Store.open(tmp_path) as store:
                store.heartbeat(event.trial, event.owner, -1.0)
                assert store.claim("small", "other:1:1", 60.0) is not None
                store.finish(event.trial, "other:1:1", "finished")

    InProcess().run(Job("small", tmp_path), take_over)
    with Store.open(tmp_path) as store:
        named = {name for one in store.files() for name in one.names}
    assert not {path.name for path in (tmp_path / "checkpoints").iterdir() if path.name.startswith(taken[0])} - named


FAILING = """
import torch
from pathlib import Path

def build(marker, classes=10):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(64, classes)
        def forward(self, x):
            if torch.is_grad_enabled() and x.shape[0] == 20 and not Path(marker).exists():
                Path(marker).touch()
                raise torch.AcceleratorError("CUDA error: device-side assert triggered")
            return self.linear(x.flatten(1))
    return Net()
"""


@pytest.mark.slow
def test_a_failed_device_ends_the_process_and_its_trial_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "failing_device.py").write_text(FAILING)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    marker = str(tmp_path / "failed-once")
    network = {"module": "failing_device:build", "arguments": {"marker": marker}}
    made = Study(
        "small", arms={"a": {"network": network}}, data=DATA, training={"epochs": 1, "batch_size": 20}, seeds=2
    )
    with Store.open(tmp_path / "runs") as store:
        store.register(prepare(made.expanded, None))
    events: list[Event] = []
    LocalProcesses(1).run(Job("small", tmp_path / "runs"), events.append)
    assert Path(marker).exists()
    assert next(event.kind for event in events if event.kind not in ("progress", "started")) == "died"
    with Store.open(tmp_path / "runs") as store:
        assert store.counts("small")["finished"] == 2
    # in this process, the run ends with a line, and the trial can be resumed
    Path(marker).unlink()
    again = Study(
        "again", arms={"a": {"network": network}}, data=DATA, training={"epochs": 2, "batch_size": 20}, seeds=1
    )
    with pytest.raises(LeadlineError, match="CUDA error: device-side assert triggered; run the same command"):
        again.run(tmp_path / "runs", workers=0, progress=False)
    results = again.run(tmp_path / "runs", workers=0, progress=False)
    assert results.trials["state"].tolist() == ["finished"]


@pytest.mark.parametrize("has_class", [True, False])
def test_a_lost_device_is_known_with_and_without_pytorchs_class(
    has_class: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    error: RuntimeError = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    if not has_class:
        monkeypatch.delattr(torch, "AcceleratorError")
        error = RuntimeError(str(error))
    assert lost_device(error)
    assert not lost_device(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not lost_device(torch.OutOfMemoryError("CUDA out of memory"))
