"""Networks of finished trials are read only if they are what the ledger says; one bad trial stops no other."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load, load_file, save_file
from typer.testing import CliRunner

from leadline.api.export import from_trial
from leadline.cli import app
from leadline.errors import LeadlineError
from leadline.running.checkpoints import Interval, read_checkpoint
from leadline.running.executors import InProcess
from leadline.running.job import Event, Job
from leadline.specs import parse
from leadline.specs.study import StudySpec
from leadline.store import Store
from leadline.study.expand import expand

SPEC = {
    "name": "small",
    "data": {"name": "digits", "train": 60, "validation": 20, "test": 20},
    "training": {"epochs": 2, "batch_size": 20},
    "arms": {"a": {"network": {"family": "comparative-cnn", "blocks": 1}}},
    "seeds": 2,
}


def run(runs: Path) -> list[Event]:
    events: list[Event] = []
    InProcess().run(Job("small", runs, checkpoint_every=Interval(steps=1)), events.append)
    return events


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("finished") / "runs"
    with Store.open(runs) as store:
        store.register(expand(parse(StudySpec, SPEC)))
    run(runs)
    return runs


@pytest.fixture
def runs(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "runs")
    return tmp_path / "runs"


def trials(runs: Path) -> list[str]:
    with Store.open(runs) as store:
        return [str(one) for one in store.trials_frame("small")["trial"]]


def network_file(runs: Path, number: int = 0) -> Path:
    return runs / "checkpoints" / f"{trials(runs)[number]}-2.safetensors"


def swap(runs: Path) -> None:
    first, second = (network_file(runs, number) for number in (0, 1))
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


def zero(runs: Path) -> None:
    path = network_file(runs)
    tensors = {name: torch.zeros_like(one) for name, one in load_file(path).items()}
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file(tensors, path, metadata)


def truncate(runs: Path) -> None:
    path = network_file(runs)
    path.write_bytes(path.read_bytes()[:-9])


def replace_by_folder(runs: Path) -> None:
    network_file(runs).unlink()
    network_file(runs).mkdir()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (swap, "not epoch 2 of"),
        (zero, "its checksum does not match"),
        (truncate, "cannot be read"),
        (replace_by_folder, "cannot be read"),
        (lambda runs: network_file(runs).unlink(), "cannot be read"),
    ],
)
def test_a_network_that_is_not_the_trials_is_refused(
    runs: Path, tmp_path: Path, damage: Callable[[Path], None], said: str
) -> None:
    trial = trials(runs)[0]
    damage(runs)
    for command in (["export", trial, "--output", str(tmp_path / "out")], ["probe", trial, "jacobian"]):
        result = CliRunner().invoke(app, [*command, "--runs", str(runs)])
        assert isinstance(result.exception, LeadlineError) and said in str(result.exception), result.output
        assert str(network_file(runs)) in str(result.exception) and "\n" not in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_no_flipped_bit_changes_a_network_unnoticed(runs: Path) -> None:
    trial, path = trials(runs)[0], network_file(runs)
    content, random = path.read_bytes(), np.random.default_rng(0)
    whole = {name: one for name, one in load(content).items() if name.startswith("model.")}
    refused = 0
    with Store.open(runs) as store:
        for place in random.integers(0, len(content), 60):
            flipped = bytearray(content)
            flipped[place] ^= 1 << int(random.integers(8))
            path.write_bytes(flipped)
            try:
                found = from_trial(store, trial).model.state_dict()
            except LeadlineError:
                refused += 1
                continue
            assert all(torch.equal(found[name.removeprefix("model.")], one) for name, one in whole.items())
    assert refused > 50


def test_a_trial_whose_specification_was_changed_fails_alone_and_is_not_read(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with Store.open(runs) as store:
        store.register(expand(parse(StudySpec, SPEC)))
    changed, other = trials(runs)
    database = sqlite3.connect(runs / "leadline.db")
    (spec,) = database.execute("SELECT spec FROM trials WHERE hash = ?", [changed]).fetchone()
    edited = json.loads(spec)
    edited["training"]["optimizer"]["learning_rate"] *= 2
    database.execute("UPDATE trials SET spec = ? WHERE hash = ?", [json.dumps(edited), changed])
    database.commit()
    database.close()
    events = run(runs)
    with Store.open(runs) as store:
        assert (store.trial(changed).state, store.trial(other).state) == ("failed", "finished")
        assert "was changed after it was registered" in (store.trial(changed).error or "")
        with pytest.raises(LeadlineError, match="is failed"):
            from_trial(store, changed)
    assert [event.kind for event in events if event.trial == changed] == ["failed"]


def test_an_older_revision_is_no_change(runs: Path) -> None:
    spec = parse(StudySpec, {**SPEC, "training": {"epochs": 3, "schedule": {"name": "one-cycle"}}})
    ((_, trial), *_) = expand(spec).trials()
    assert trial.had_hash(trial.content_hash)
    assert trial.had_hash(trial._hash({})) and trial._hash({}) != trial.content_hash
    assert not trial.with_(seed=7).had_hash(trial.content_hash)


def test_an_unreadable_checkpoint_is_fallen_back_from_and_the_others_go_on(finished: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    with Store.open(runs) as store:
        store.register(expand(parse(StudySpec, SPEC)))

    def stop_late(event: Event) -> None:
        if event.text.startswith("epoch 1"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        InProcess().run(Job("small", runs, checkpoint_every=Interval(steps=1)), stop_late)
    with Store.open(runs) as store:
        name = store.trial(trials(runs)[0]).checkpoint
    assert name is not None
    (runs / "checkpoints" / name).unlink()
    (runs / "checkpoints" / name).mkdir()
    events = run(runs)
    (text,) = [event.text for event in events if event.kind == "restarted"]
    assert name in text and "cannot be read" in text and "training continues from the previous checkpoint" in text
    with Store.open(runs) as store:
        assert [store.trial(trial).state for trial in trials(runs)] == ["finished"] * 2
    for number in (0, 1):
        assert read_checkpoint(network_file(runs, number)).tensors.keys() == (
            read_checkpoint(network_file(finished, number)).tensors.keys()
        )
        for key, one in read_checkpoint(network_file(finished, number)).tensors.items():
            assert torch.equal(one, read_checkpoint(network_file(runs, number)).tensors[key])
