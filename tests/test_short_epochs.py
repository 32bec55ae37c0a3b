"""Epochs so short that several share a checkpoint: however a run ends, what whole epochs have measured is kept."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leadline.running.checkpoints import TEN_MINUTES, Checkpoints, Interval, Timer
from leadline.running.executors import InProcess
from leadline.running.job import Event, Job
from leadline.running.stopping import Stop, Stopped
from leadline.running.worker import work
from leadline.specs.study import StudySpec
from leadline.store import LeaseLost, Store
from leadline.study.expand import expand
from leadline.training import Diverged, TrainState, evaluation, loop

EPOCHS = 6


@pytest.fixture
def saved(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Epoch and step of the checkpoints that are written: so dear that only the first epoch and the last have one."""
    written, real = list[tuple[int, int]](), Checkpoints.save

    def save(self: Checkpoints, state: TrainState, *arguments: Any) -> None:
        real(self, state, *arguments)
        written.append((state.epoch, state.step))

    monkeypatch.setattr(Checkpoints, "save", save)
    monkeypatch.setattr("leadline.running.checkpoints.LARGEST_SHARE", 1e-12)
    return written


def registered(runs: Path, **settings: Any) -> Store:
    """One trial of six epochs, of four steps each."""
    spec = {
        "name": "small",
        "data": {"name": "digits", "train": 80, "validation": 40, "test": 40},
        "training": {"epochs": EPOCHS, "batch_size": 20},
        "arms": {"mlp": {"network": {"family": "mlp", "hidden": 1, "width": 12}}},
        "seeds": 1,
        **settings,
    }
    store = Store.open(runs)
    store.register(expand(StudySpec.model_validate(spec)))
    return store


def job(store: Store, every: Interval = TEN_MINUTES) -> Job:
    return Job("small", store.folder, checkpoint_every=every)


def run(store: Store, every: Interval = TEN_MINUTES, emit: Callable[[Event], None] = lambda event: None) -> None:
    InProcess().run(job(store, every), emit)


def results(store: Store) -> tuple[Any, ...]:
    frame = store.records_frame("small")
    names = frame.loc[frame["name"] == "seconds", "epoch"].tolist()
    frame = frame[~frame["name"].isin(["images_per_second", "seconds"])]
    rows = sorted(frame[["trial", "epoch", "step", "split", "name", "value"]].itertuples(index=False, name=None))
    return store.trials_frame("small")["state"].tolist(), names, rows


def epochs(store: Store) -> list[int]:
    """Return the epochs that records of training are stored of."""
    frame = store.records_frame("small")
    return sorted(frame.loc[(frame["split"] == "train") & (frame["name"] == "loss"), "epoch"])


@pytest.fixture
def expected(tmp_path: Path) -> tuple[Any, ...]:
    store = registered(tmp_path / "every")
    run(store, Interval())
    return results(store)


def test_what_is_stored_is_the_same(saved: list[tuple[int, int]], tmp_path: Path) -> None:
    store, every = registered(tmp_path / "runs"), registered(tmp_path / "every")
    run(store)
    assert saved == [(1, 4), (EPOCHS, 4 * EPOCHS)]
    saved.clear()
    run(every, Interval())
    assert [epoch for epoch, _ in saved] == list(range(1, EPOCHS + 1))
    assert results(store) == results(every) and epochs(store) == list(range(1, EPOCHS + 1))
    times = store.records_frame("small").query("name == 'seconds'")["value"]
    assert store.trial(store.trials_frame("small")["trial"][0]).seconds == pytest.approx(times.sum())


def test_an_interval_within_an_epoch_stores_the_whole_ones_before_it(
    saved: list[tuple[int, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: tuple[Any, ...]
) -> None:
    saved.clear()
    store = registered(tmp_path / "runs")
    monkeypatch.setattr(Timer, "due", lambda self, step: step == 14 and self.step != step)

    def emit(event: Event) -> None:
        if saved[-1:] == [(3, 14)]:
            assert epochs(store) == [1, 2, 3]
            raise KeyboardInterrupt
        assert epochs(store) == [1][: len(saved)]

    with pytest.raises(KeyboardInterrupt):
        run(store, emit=emit)
    run(store)
    assert results(store) == expected


def test_a_stop_stores_every_whole_epoch(
    saved: list[tuple[int, int]], tmp_path: Path, expected: tuple[Any, ...]
) -> None:
    saved.clear()
    store, stop = registered(tmp_path / "runs"), Stop()

    def emit(event: Event) -> None:
        stop.asked = stop.asked or event.text == f"epoch 3 of {EPOCHS}"

    with pytest.raises(Stopped):
        work(job(store), emit, stop=stop)
    assert saved == [(1, 4), (3, 12)] and epochs(store) == [1, 2, 3]
    run(store)
    assert results(store) == expected


@pytest.mark.parametrize("last", [1, 2, 4])
def test_a_kill_loses_only_time(
    saved: list[tuple[int, int]], tmp_path: Path, expected: tuple[Any, ...], last: int
) -> None:
    saved.clear()
    store = registered(tmp_path / "runs")

    def emit(event: Event) -> None:
        if event.text == f"epoch {last} of {EPOCHS}":
            raise KeyboardInterrupt  # which writes nothing, as a kill does

    with pytest.raises(KeyboardInterrupt):
        run(store, emit=emit)
    assert saved == [(1, 4)] and epochs(store) == [1]
    run(store)
    assert results(store) == expected


def fail_in_the_fourth_epoch(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Let the evaluation after the fourth epoch raise an error, and none after it."""
    calls = 0

    def fail(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise error
        return evaluation.evaluate(*arguments, **named)

    monkeypatch.setattr(loop, "evaluate", fail)


@pytest.mark.parametrize(
    ("error", "state", "stored"),
    [
        (RuntimeError("the disk of a loss function"), "failed", [1, 2, 3]),
        (Diverged(15, float("nan")), "diverged", [1, 2, 3]),
        (LeaseLost("another worker has taken it over"), "running", [1]),  # whose business it is
    ],
)
def test_a_trial_that_ends_early_keeps_its_whole_epochs(
    saved: list[tuple[int, int]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    state: str,
    stored: list[int],
) -> None:
    store = registered(tmp_path / "runs")
    fail_in_the_fourth_epoch(monkeypatch, error)
    work(job(store), lambda event: None, most=1)
    assert store.trials_frame("small")["state"].tolist() == [state]
    assert epochs(store) == stored


def test_a_retry_counts_the_time_of_no_epoch_twice(
    saved: list[tuple[int, int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expected: tuple[Any, ...]
) -> None:
    store = registered(tmp_path / "runs")
    fail_in_the_fourth_epoch(monkeypatch, RuntimeError("once"))
    run(store)
    [trial] = store.trials_frame("small")["trial"]
    record = store.trial(trial)
    assert (record.state, record.checkpoint_epoch) == ("failed", 1)
    assert store.requeue_failed("small") == 1
    run(store)
    times = store.records_frame("small").query("name == 'seconds'")["value"]
    assert store.trial(trial).seconds == pytest.approx(times.sum())
    assert results(store) == expected


def test_epochs_with_measurements_of_probes_are_stored_at_once(saved: list[tuple[int, int]], tmp_path: Path) -> None:
    run(registered(tmp_path / "runs", probes={"flow": {"every": 8}}))
    assert [epoch for epoch, _ in saved] == [1, 3, 5, EPOCHS]
