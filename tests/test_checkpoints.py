"""Checkpoints that are whole, and not what they should be; devices that fail as they are read; what an end leaves."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from leadline.errors import SpecError
from leadline.running.checkpoints import DamagedCheckpoint, Interval, load_checkpoint
from leadline.running.executors import InProcess
from leadline.running.job import Event, Job
from leadline.specs import TrialSpec
from leadline.specs.study import StudySpec
from leadline.store import Store
from leadline.study.expand import expand
from leadline.training import TrainState

MLP = {"family": "mlp", "hidden": 2, "width": 12, "activation": "sigmoid", "initialisation": "old-uniform"}
EVERY_STEP = Interval(steps=1)


def registered(runs: Path) -> Store:
    """Two trials of two epochs, of four steps each, after two epochs of pre-training in each of two layers."""
    spec = {
        "name": "small",
        "data": {"name": "digits", "train": 80, "validation": 40, "test": 40, "normalise": "none"},
        "training": {"epochs": 2, "batch_size": 20},
        "arms": {"rbm": {"network": MLP, "pretraining": {"method": "rbm", "epochs": 2}}},
        "seeds": 2,
    }
    store = Store.open(runs)
    store.register(expand(StudySpec.model_validate(spec)))
    return store


def run(store: Store, emit: Callable[[Event], None] = lambda event: None, every: Interval = EVERY_STEP) -> None:
    InProcess().run(Job("small", store.folder, checkpoint_every=every), emit)


def results(store: Store) -> tuple[Any, ...]:
    frame = store.records_frame("small")
    frame = frame[~frame["name"].isin(["images_per_second", "seconds"])]
    rows = sorted(frame[["trial", "epoch", "step", "split", "name", "value"]].itertuples(index=False, name=None))
    return store.trials_frame("small")["state"].tolist(), rows


@dataclass
class At:
    """Interrupts at the so-manieth event that has some words."""

    words: str
    number: int

    def __call__(self, event: Event) -> None:
        self.number -= event.text.startswith(self.words)
        if self.number == 0:
            raise KeyboardInterrupt


@dataclass(frozen=True)
class Whole:
    """A study that nothing disturbed, and all the checkpoints that it came to have."""

    results: tuple[Any, ...]
    files: dict[str, bytes]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    store = registered(tmp_path_factory.mktemp("whole"))
    files = dict[str, bytes]()

    def emit(event: Event) -> None:
        files.update({path.name: path.read_bytes() for path in store.checkpoints.iterdir()})

    run(store, emit)
    return Whole(results(store), files)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return registered(tmp_path / "runs")


def interrupted(store: Store, words: str, number: int) -> str:
    """Run until then; return the name of the first trial's checkpoint."""
    with pytest.raises(KeyboardInterrupt):
        run(store, At(words, number))
    name = store.trial(store.trials_frame("small")["trial"][0]).checkpoint
    assert name is not None
    return name


# --- whole, and something else

POSITIONS = ["pretraining-1-1", "pretraining-2-1", "0", "0-3", "1", "1-7", "2"]


@pytest.mark.slow
@pytest.mark.parametrize("other", ["another trial", *POSITIONS])
@pytest.mark.parametrize(
    ("words", "number", "position"), [("pre-training", 4, "pretraining-2-1"), ("loss", 4, "0-3"), ("epoch", 1, "1")]
)
def test_a_whole_checkpoint_of_something_else_is_not_taken(
    store: Store, whole: Whole, words: str, number: int, position: str, other: str
) -> None:
    name = interrupted(store, words, number)
    first, second = store.trials_frame("small")["trial"]
    assert name == f"{first}-{position}.safetensors"
    source = f"{second}-{position}" if other == "another trial" else f"{first}-{other}"
    (store.checkpoints / name).write_bytes(whole.files[f"{source}.safetensors"])
    events: list[Event] = []
    run(store, events.append)
    texts = [event.text for event in events if event.kind == "restarted"]
    if source == f"{first}-{position}":
        assert texts == []
    else:
        (text,) = texts
        said = (
            "belongs to another trial"
            if other == "another trial"
            else f"does not match its name: it holds {source}.safetensors"
        )
        assert f"checkpoint {store.checkpoints / name}: " in text and "\n" not in text
        assert text.endswith(f"{said}; training continues from the previous checkpoint")
    assert results(store) == whole.results


def test_a_checkpoint_is_of_one_trial(store: Store, whole: Whole, tmp_path: Path) -> None:
    first, second = (
        TrialSpec.model_validate(store.trial(trial).spec) for trial in store.trials_frame("small")["trial"]
    )
    path = tmp_path / "a.safetensors"
    path.write_bytes(whole.files[f"{first.content_hash}-2.safetensors"])

    def load(self: TrainState, *_: object) -> None:
        loaded.append(self)

    loaded: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TrainState, "load", load)
        state: Any = TrainState(torch.nn.Linear(1, 1), torch.optim.SGD([torch.zeros(1)], 0.1))
        load_checkpoint(state, path)
        load_checkpoint(state, path, first)
        with pytest.raises(DamagedCheckpoint, match=r"a\.safetensors: belongs to another trial"):
            load_checkpoint(state, path, second)
    assert len(loaded) == 2  # nothing of the other trial came near the state


# --- a device that fails


@pytest.mark.slow
@pytest.mark.parametrize("words", ["CUDA error: unspecified launch failure", "CUDA error: out of memory"])
@pytest.mark.parametrize("place", [("loss", 6), ("pre-training", 4)])
def test_a_device_that_fails_as_a_checkpoint_is_loaded_costs_no_epoch(
    store: Store, whole: Whole, monkeypatch: pytest.MonkeyPatch, place: tuple[str, int], words: str
) -> None:
    name = interrupted(store, *place)
    trial = store.trials_frame("small")["trial"][0]
    before, records = store.trial(trial), len(store.records_frame("small"))

    def load(*_: object) -> None:
        raise RuntimeError(words)

    with monkeypatch.context() as broken:
        broken.setattr(TrainState, "load", load)
        with pytest.raises(KeyboardInterrupt):  # before the other trial begins
            run(store, lambda event: At(event.text, 1)(event) if event.kind == "failed" else None)
    after = store.trial(trial)
    assert after.state == "failed" and after.error is not None and words in after.error
    assert (after.checkpoint, after.earlier_checkpoint) == (before.checkpoint, before.earlier_checkpoint)
    assert after.checkpoint == name and after.note is None and len(store.records_frame("small")) == records
    assert store.requeue_failed("small") == 1
    events: list[Event] = []
    run(store, events.append)
    assert "restarted" not in {event.kind for event in events}
    assert results(store) == whole.results


# --- what an end leaves


@pytest.mark.parametrize("moment", ["before the end", "after it"])
def test_an_ended_trial_leaves_one_checkpoint_however_its_worker_died(
    store: Store, whole: Whole, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    real = Store.finish

    def finish(*arguments: Any, **more: Any) -> None:
        if moment == "after it":
            real(*arguments, **more)
        raise KeyboardInterrupt  # in place of a kill

    with monkeypatch.context() as dying:
        dying.setattr(Store, "finish", finish)
        with pytest.raises(KeyboardInterrupt):
            run(store)
    run(store)
    trials = store.trials_frame("small")["trial"]
    assert {path.name for path in store.checkpoints.iterdir()} == {f"{trial}-2.safetensors" for trial in trials}
    assert results(store) == whole.results


# --- intervals


@pytest.mark.parametrize("text", [f"{'9' * digits}{unit}" for digits in (310, 4000) for unit in ("steps", "s", "h")])
def test_more_than_any_number_is_no_interval(text: str) -> None:
    with pytest.raises(SpecError, match=r"--checkpoint-every .*: expected a time or steps"):
        Interval.parse(text)


@given(
    st.one_of(
        st.tuples(st.floats(1e-9, 1e300).map(lambda number: f"{number:.12f}"), st.sampled_from("smh")),
        st.tuples(st.integers(1, 10**40).map(str), st.sampled_from(["s", "m", "h", "steps"])),
    )
)
def test_an_interval_is_read_as_it_is_written(written: tuple[str, str]) -> None:
    """A job of Slurm is told so of its own."""
    asked = Interval.parse("".join(written))
    assert Interval.parse(str(asked)) == asked
