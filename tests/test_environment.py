"""Where a trial was trained: on a card too, and every place of one that has moved."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from leadline.reports.page import _environments
from leadline.running import environment as module
from leadline.running import worker
from leadline.running.environment import continue_in, environment
from leadline.running.executors import InProcess
from leadline.running.job import Event, Job
from leadline.specs.study import StudySpec
from leadline.store import Store
from leadline.study.expand import expand

BITS = "bits may differ from those of a run without a break"


def test_a_card_is_described_with_all_that_its_bits_depend_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"Card {device.index}")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)
    monkeypatch.setattr(module, "_driver_version", lambda: "550.54.15")
    cards = [torch.device("cuda", index) for index in (2, 3)]
    found = environment(cards, "tf32")
    assert {name: found[name] for name in ("device", "devices", "compute_capability", "cudnn", "driver", "tf32")} == {
        "device": "Card 2",
        "devices": 2,
        "compute_capability": "9.0",
        "cudnn": 91002,
        "driver": "550.54.15",
        "tf32": True,
    }
    assert environment(cards)["tf32"] is False
    here = environment([torch.device("cpu")])
    assert here["device"] == "cpu" and "tf32" not in here
    assert environment([torch.device("mps")])["device"] == "mps"


def test_a_program_that_is_not_there_tells_nothing() -> None:
    assert module._output_of(["leadline-no-such-program"]) == ""
    assert module._output_of(["git", "no-such-command"]) == ""


def test_every_environment_is_kept_and_what_may_change_bits_is_said() -> None:
    first = {"torch": "2.12.0", "device": "A", "threads": 1, "git_commit": "a"}
    assert continue_in(first, None) == (first, "") == continue_in(first, first)
    moved, line = continue_in({**first, "device": "B", "cuda": "12.8", "torch": "2.13.0"}, first)
    assert moved == {**first, "device": "B", "cuda": "12.8", "torch": "2.13.0", "earlier": [first]}
    assert line == f"goes on with torch 2.13.0 (before: 2.12.0) and device B (before: A): {BITS}"
    committed, line = continue_in({**first, "git_commit": "b"}, moved)
    assert committed["earlier"] == [first, {name: moved[name] for name in moved if name != "earlier"}]
    assert line == f"goes on with torch 2.12.0 (before: 2.13.0) and device A (before: B): {BITS}"
    assert continue_in({**first, "git_commit": "c"}, {**first, "git_commit": "b"})[1] == ""


STUDY = {
    "name": "moving",
    "data": {"name": "digits", "train": 120, "validation": 50, "test": 50},
    "training": {"epochs": 2, "batch_size": 60},
    "arms": {"only": {"network": {"family": "mlp", "hidden": 1}}},
    "seeds": 1,
}


@pytest.mark.parametrize("stop", ["started", "epoch 1"])
def test_a_trial_that_goes_on_elsewhere_keeps_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: str
) -> None:
    store = Store.open(tmp_path)
    store.register(expand(StudySpec.model_validate(STUDY)))

    def interrupt(event: Event) -> None:
        if event.kind == stop or event.text.startswith(stop):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        InProcess().run(Job("moving", tmp_path), interrupt)
    real = environment([torch.device("cpu")])

    def elsewhere(devices: Sequence[torch.device], precision: Any) -> dict[str, Any]:
        return {**real, "torch": "9.9"}

    monkeypatch.setattr(worker, "environment", elsewhere)
    events: list[Event] = []
    InProcess().run(Job("moving", tmp_path), events.append)
    [trial] = store.trials_frame("moving").itertuples()
    said = [event for event in events if event.kind == "moved"]
    assert trial.state == "finished" and trial.environment["torch"] == "9.9"
    if stop == "started":  # nothing is left of what was trained before
        assert not said and trial.note is None and "earlier" not in trial.environment
        return
    line = f"goes on with torch 9.9 (before: {real['torch']}): {BITS}"
    assert [event.line() for event in said] == [f"only seed 0 moved: {line}"]
    assert trial.note == line and trial.environment["earlier"] == [real]
    captions = [caption for caption, _ in _environments(pd.DataFrame({"environment": [trial.environment]}), None)]
    assert captions == ["Where 1 trial ran", "Where 1 trial ran"]
