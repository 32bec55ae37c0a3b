"""Several trials at once in one process: the bits of trials that run alone, and nothing that one does to the others."""

import os
import signal
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leadline.api import Results, Study
from leadline.data import batches
from leadline.errors import SpecError, StoreError
from leadline.probes.blocks import preserve_state
from leadline.probes.table import FlowTable
from leadline.running import gang
from leadline.running.checkpoints import Checkpoints
from leadline.running.executors import InProcess, LocalProcesses
from leadline.running.job import Emit, Event, Job
from leadline.running.stopping import Stop, sigterm_as_interrupt
from leadline.seeds import seeded
from leadline.store import Store, WorkerId
from leadline.training import TrainState

NAME = "gang"


class OwnDropout(nn.Module):
    """A custom network that draws from the global generator."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.dropout, self.linear = nn.Dropout(0.5), nn.Linear(64, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.linear(self.dropout(images.flatten(1)))
        return out


class Hungry(nn.Module):
    """A custom network for whose batches there is no memory."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(64, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        if torch.is_grad_enabled() and len(images) > 20:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        out: Tensor = self.linear(images.flatten(1))
        return out


MLP = {"network": {"family": "mlp", "hidden": 2, "width": 32, "dropout": 0.4}}
OTHERS = {
    "residual": {"network": {"family": "comparative-resnet", "blocks": 1}, "training": {"batch_size": 20}},
    "own": {"network": OwnDropout, "training": {"epochs": 5}},
    "diverging": {
        "network": {"family": "mlp", "hidden": 1},
        "training": {"optimizer": {"name": "sgd", "learning_rate": 1e30}},
    },
    "hungry": {"network": Hungry},
}


def study(arms: Mapping[str, object], epochs: int = 3, **changes: object) -> Study:
    """Arms of different networks, batch sizes and lengths."""
    asked: dict[str, object] = {
        "data": {"name": "digits", "train": 150, "validation": 50, "test": 60},
        "training": {"epochs": epochs, "batch_size": 40, "optimizer": {"name": "adam"}},
        "probes": {"flow": {"every": 2}},
        "seeds": 2,
    }
    return Study(NAME, arms=arms, **asked | changes)


def run(asked: Study, runs: Path, trials_per_worker: int, **options: object) -> Results:
    return asked.run(runs, workers=0, progress=False, trials_per_worker=trials_per_worker, **options)  # type: ignore[arg-type]


def measured(runs: Path) -> tuple[list[object], dict[str, bytes], dict[str, object]]:
    """Everything that must be equal to the bit: records but for times, outputs, what probes saw."""
    with Store.open(runs) as store:
        records = store.records_frame(NAME)
        records = records[records["split"] != "time"]
        outputs = {trial: one.predicted.tobytes() for trial, one in store.outputs(NAME).items()}
        flow = {
            trial: [(epoch, FlowTable.from_bytes(one).frame().to_csv()) for epoch, one in seen]
            for trial, seen in store.measurements(NAME, "flow").items()
        }
    columns = ["trial", "step", "epoch", "split", "name", "value"]
    return sorted(map(str, records[columns].itertuples(index=False, name=None))), outputs, flow


def states(runs: Path) -> dict[tuple[str, int], str]:
    with Store.open(runs) as store:
        frame = store.trials_frame(NAME)
    return {(arm, seed): state for arm, seed, state in zip(frame["arm"], frame["seed"], frame["state"], strict=True)}


def test_trials_of_all_kinds_have_the_bits_of_trials_that_run_alone(tmp_path: Path) -> None:
    asked = study({"dropout": MLP, **OTHERS})
    run(asked, tmp_path / "alone", 1)
    run(asked, tmp_path / "together", 4)
    assert measured(tmp_path / "together") == measured(tmp_path / "alone")
    ends = {"diverging": "diverged", "hungry": "failed"}
    expected = {(arm, seed): ends.get(arm, "finished") for arm in ("dropout", *OTHERS) for seed in (0, 1)}
    assert states(tmp_path / "together") == states(tmp_path / "alone") == expected


def test_trials_run_at_the_same_time_under_leases_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    barrier, owners, save = threading.Barrier(3), set(), Checkpoints.save

    def meet(self: Checkpoints, *args: Any) -> None:
        if self.worker not in owners:
            owners.add(self.worker)
            barrier.wait(300)  # for all three to be in their first epoch
        save(self, *args)

    monkeypatch.setattr(Checkpoints, "save", meet)
    run(study({"dropout": MLP}, seeds=3), tmp_path, 3)
    assert owners == {str(WorkerId.current(number)) for number in range(3)}
    assert set(states(tmp_path).values()) == {"finished"}


def test_data_of_several_trials_are_loaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, load = list[object](), batches.load

    def slowly(*args: Any, **options: Any) -> batches.Data:
        loaded.append(args)
        time.sleep(0.2)
        return load(*args, **options)

    asked = study({"dropout": MLP}, epochs=1, seeds=3, data={"name": "digits", "train": 130, "test": 60})
    with Store.open(tmp_path) as store:
        store.register(asked.expanded)
    monkeypatch.setattr(batches, "load", slowly)
    gang.work_together(Job(NAME, tmp_path, trials_at_once=3), lambda event: None, Stop())
    assert len(loaded) == 1


def test_trials_that_do_not_end_in_time_are_waited_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on, waits, join = threading.Event(), list[float](), threading.Thread.join

    def wait(self: threading.Thread, timeout: float) -> None:
        waits.append(timeout)
        if len(waits) == 1:
            raise KeyboardInterrupt
        join(self, timeout)

    monkeypatch.setattr(gang, "work", lambda *_, **__: go_on.wait(300))
    monkeypatch.setattr(gang, "GRACE_SECONDS", 0.2)
    monkeypatch.setattr(threading.Thread, "join", wait)
    with pytest.raises(KeyboardInterrupt):
        gang.work_together(Job(NAME, tmp_path, trials_at_once=3), lambda event: None, Stop())
    go_on.set()
    assert len(waits) == 4 and sum(waits[1:]) < 0.4


def test_a_trial_that_another_worker_took_over_ends_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lost, save = list[str](), Checkpoints.save

    def lose(self: Checkpoints, *args: Any) -> None:
        if not lost:
            lost.append(self.claim.trial)
            with Store.open(tmp_path) as store:
                store.heartbeat(self.claim.trial, self.worker, -1.0)
                assert store.claim(NAME, "another:1:1", 0.0) is not None
        save(self, *args)

    monkeypatch.setattr(Checkpoints, "save", lose)
    asked = study({"dropout": MLP}, seeds=4)
    run(asked, tmp_path, 2)
    assert set(states(tmp_path).values()) == {"finished"}  # the lost one, too, once the other's lease had ended
    monkeypatch.undo()
    run(asked, tmp_path / "alone", 1)
    assert measured(tmp_path) == measured(tmp_path / "alone")


def test_a_request_to_stop_reaches_all_and_they_continue_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = study({"dropout": MLP, "own": {"network": OwnDropout}}, epochs=8, probes={})
    stops, save = list[Stop](), Checkpoints.save
    work, barrier = gang.work_together, threading.Barrier(4)

    def note(job: Job, emit: Emit, stop: Stop) -> None:
        stops.append(stop)
        work(job, emit, stop)

    def ask(self: Checkpoints, state: TrainState, *args: Any) -> None:
        save(self, state, *args)
        if state.epoch == 1 and state.part is None:
            barrier.wait(300)  # for a trial that has not begun to have something to lose
        if state.epoch >= 3:
            stops[-1].asked = True

    monkeypatch.setattr("leadline.running.executors.work_together", note)
    monkeypatch.setattr(Checkpoints, "save", ask)
    with sigterm_as_interrupt():
        outcome = run(asked, tmp_path, 4, checkpoint_every="epoch").outcome
    assert outcome is not None and outcome.interrupted
    with Store.open(tmp_path) as store:
        trials = store.trials_frame(NAME)
        assert set(trials["state"]) == {"waiting"}, trials["error"].dropna().to_list()
        assert all(store.trial(trial).checkpoint for trial in trials["trial"])
    monkeypatch.undo()
    run(asked, tmp_path, 4)
    run(asked, tmp_path / "alone", 1)
    assert measured(tmp_path) == measured(tmp_path / "alone")


@pytest.mark.parametrize("number", [1, 3])
def test_an_error_of_the_store_ends_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    save, saved = Checkpoints.save, list[str]()

    def fail(self: Checkpoints, *args: Any) -> None:
        saved.append(self.claim.trial)
        if len(saved) > 2:
            raise StoreError("no space left on device")
        save(self, *args)

    monkeypatch.setattr(Checkpoints, "save", fail)
    with pytest.raises(StoreError, match="no space left"):
        run(study({"dropout": MLP}, seeds=4), tmp_path, number)
    assert "running" not in states(tmp_path).values()


@pytest.mark.parametrize("probes", [False, True])
def test_threads_that_draw_from_global_generators_wait_for_one_another(probes: bool) -> None:
    def draw(seed: int) -> tuple[float, float]:
        probed = seed % 2 and probes
        with preserve_state(nn.Flatten(), seed=seed) if probed else seeded(seed):
            first = float(torch.rand(1))
            time.sleep(0.01)
            return first, float(torch.rand(1))

    alone = [draw(seed) for seed in range(4)]
    found: dict[int, list[tuple[float, float]]] = {}

    def repeat(seed: int) -> None:
        found[seed] = [draw(seed) for _ in range(5)]

    threads = [threading.Thread(target=repeat, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {seed: [alone[seed]] * 5 for seed in range(4)}


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"training": {"epochs": 1, "precision": "tf32"}}, {}, "needs a CUDA device"),
        ({}, {"devices": 2}, "2 trials per worker, each on 2 devices"),
        ({}, {"executor": InProcess()}, "only workers of this machine"),
    ],
)
def test_what_cannot_run_together_is_said(
    tmp_path: Path, changes: dict[str, object], options: dict[str, object], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        run(study({"dropout": MLP}, **changes), tmp_path, 2, **options)


def test_no_more_trials_share_a_card_than_there_are_streams(tmp_path: Path) -> None:
    asked = study({"dropout": MLP}).expanded
    gang.check_gang(asked, 32, None, torch.device("cuda"))
    gang.check_gang(asked, 33, None, torch.device("cpu"))
    with pytest.raises(SpecError, match="33 trials per worker: PyTorch has 32 CUDA streams for a card"):
        gang.check_gang(asked, 33, None, torch.device("cuda"))


def test_a_thread_is_told_apart_from_its_process() -> None:
    first, second = WorkerId.current(), WorkerId.current(2)
    assert str(second) == f"{first}#2"
    assert WorkerId.parse(str(first)) == first and WorkerId.parse(str(second)) == second
    assert not second.is_dead() and WorkerId.parse(f"{first}#x") is None
    assert replace(second, start="1").is_dead()


@pytest.mark.slow
def test_a_process_that_is_killed_takes_up_all_its_trials_again(tmp_path: Path) -> None:
    asked = study({"dropout": MLP, "residual": OTHERS["residual"]}, epochs=40, probes={})
    told: list[Event] = []
    killed: list[int] = []

    def kill(event: Event) -> None:
        told.append(event)
        progress = {one.trial for one in told if one.kind == "progress"}
        if not killed and len(progress) == 4:
            worker = WorkerId.parse(event.owner)
            assert worker is not None
            killed.append(worker.pid)
            os.kill(worker.pid, signal.SIGKILL)

    with Store.open(tmp_path) as store:
        store.register(asked.expanded)
    LocalProcesses(1).run(Job(NAME, tmp_path, trials_at_once=4), kill)
    died = [event for event in told if event.kind == "died"]
    assert killed and len(died) == len({event.trial for event in died}) >= 2
    assert set(states(tmp_path).values()) == {"finished"}
    run(asked, tmp_path / "alone", 1)
    assert measured(tmp_path) == measured(tmp_path / "alone")
