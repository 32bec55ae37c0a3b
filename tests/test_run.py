"""Running studies: idempotence, failures kept apart, kill -9 in the middle, Ctrl-C, dead workers."""

import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from multiprocessing.process import BaseProcess
from pathlib import Path

import pandas as pd
import pytest
import torch

from leadline.data.batches import load
from leadline.distributed.processes import shield_start
from leadline.errors import LeadlineError, StoreError
from leadline.networks import cifar_resnet, comparative_resnet, recurrent_resnet
from leadline.networks.modules import build
from leadline.probes.measured import Measurement
from leadline.probes.snapshots import PROBES, find_probe
from leadline.probes.table import FlowTable
from leadline.running import executors
from leadline.running import trial as trial_module
from leadline.running.checkpoints import DamagedCheckpoint, Interval, load_checkpoint, save_checkpoint
from leadline.running.executors import InProcess, LocalProcesses
from leadline.running.job import Event, Job
from leadline.running.stopping import sigterm_as_interrupt
from leadline.specs import SGD, DataSpec, NetworkSpec, ProbeSpec, TrainingSpec, TrialSpec, parse
from leadline.specs.study import StudySpec
from leadline.store import Store
from leadline.study.expand import ExpandedStudy, expand
from leadline.study.load import load_study
from leadline.training import Diverged, prepare, train

CPU = torch.device("cpu")
SMALL = DataSpec(name="digits", train=120, validation=50, test=50)


def small(epochs: int = 2, seeds: int = 2, **training: object) -> ExpandedStudy:
    return expand(
        StudySpec.model_validate(
            {
                "name": "small",
                "data": {"name": "digits", "train": 120, "validation": 50, "test": 50},
                "training": {"epochs": epochs, "batch_size": 40, "optimizer": {"name": "adam"}, **training},
                "arms": {"plain": {"network": "comparative-plain"}, "residual": {"network": "comparative-resnet"}},
                "vary": {"blocks": [2]},
                "seeds": seeds,
            }
        )
    )


def registered(study: ExpandedStudy, runs: Path) -> Store:
    store = Store.open(runs)
    store.register(study)
    return store


def measured(store: Store) -> list[tuple[object, ...]]:
    frame = store.records_frame("small")
    frame = frame[frame["split"] != "time"]
    return sorted(frame[["trial", "epoch", "step", "split", "name", "value"]].itertuples(index=False, name=None))


@pytest.mark.slow
def test_in_process_runs_everything_once(tmp_path: Path) -> None:
    store = registered(small(), tmp_path)
    events: list[Event] = []
    InProcess().run(Job("small", tmp_path), events.append)
    assert [event.kind for event in events if event.kind != "progress"] == ["started", "finished"] * 4
    frame = store.trials_frame("small")
    assert list(frame["state"]) == ["finished"] * 4
    assert frame["seconds"].gt(0).all()
    assert {"torch", "cpu", "threads", "git_commit"} <= set(frame["environment"][0])
    records = store.records_frame("small")
    finals = records[(records["split"] == "final-test") & (records["name"] == "error")]
    assert len(finals) == 4 and finals["value"].between(0, 100).all()
    for outputs in store.outputs("small").values():
        predicted, labels = outputs.predicted, outputs.labels
        assert len(predicted) == len(labels) == 50
    assert len(list(store.checkpoints.iterdir())) == 4
    again: list[Event] = []
    InProcess().run(Job("small", tmp_path), again.append)
    assert again == []


def probed(**training: object) -> ExpandedStudy:
    spec = small(**training).spec.model_dump(mode="json")
    return expand(parse(StudySpec, {**spec, "seeds": 1, "probes": ["flow"]}))


@pytest.mark.slow
def test_what_probes_saw_is_stored_epoch_by_epoch(tmp_path: Path) -> None:
    store = registered(probed(), tmp_path)
    InProcess().run(Job("small", tmp_path), lambda event: None)
    found = store.measurements("small", "flow")
    assert list(found) == list(store.trials_frame("small")["trial"])
    for epochs in found.values():
        tables = [FlowTable.from_bytes(content) for _, content in epochs]
        assert [epoch for epoch, _ in epochs] == [1, 2]
        assert [list(table.steps) for table in tables] == [[0, 1, 2], [3, 4, 5]]
        assert len(tables[0].blocks) == 2


def test_the_epoch_in_which_training_diverges_is_measured_too(tmp_path: Path) -> None:
    store = registered(probed(epochs=3, optimizer={"name": "sgd", "learning_rate": 1e12}), tmp_path)
    InProcess().run(Job("small", tmp_path), lambda event: None)
    trials = store.trials_frame("small").set_index("trial")
    assert set(trials["state"]) == {"diverged"}
    found = store.measurements("small", "flow")
    assert len(found) == 2
    for trial, epochs in found.items():
        steps = [int(step) for _, content in epochs for step in FlowTable.from_bytes(content).steps]
        assert steps == list(range(trials.loc[trial, "diverged_step"] - 1))


ALL_PROBES = {
    "flow": {},
    **{name: {"at": ["start", 1, "end"], "images": 4} for name in PROBES.members()},
    "noise": {"at": ["start", 1, "end"], "images": 64},
}


def looked_into(probes: object = ALL_PROBES, **training: object) -> ExpandedStudy:
    """Two shallow CIFAR networks, which have batch normalisation."""
    spec = small(**training).spec.model_dump(mode="json")
    arms = {"plain": {"network": "cifar-plain"}, "residual": {"network": "cifar-resnet"}}
    more = {"arms": arms, "vary": {"depth": [8]}, "seeds": 1, "probes": probes}
    return expand(parse(StudySpec, {**spec, **more}))


def seen(store: Store, name: str) -> dict[str, dict[int, Measurement]]:
    return {
        trial: {epoch: Measurement.from_bytes(content) for epoch, content in epochs}
        for trial, epochs in store.measurements("small", name).items()
    }


@pytest.mark.slow
def test_all_probes_at_once_change_no_bit_of_training() -> None:
    data = load(DataSpec(name="digits", train=80, validation=64, test=20))
    training = TrainingSpec(epochs=2, batch_size=40)
    bare, probed = (prepare(build(cifar_resnet(8), (1, 8, 8), 10), training, CPU) for _ in range(2))
    records = list(train(bare, data, training, 3))
    probes = parse(ProbeSpec, {**ALL_PROBES, "hessian": {"images": 1}})
    moments = []
    same = []
    for record in train(probed, data, training, 3, probes):
        same.append(record)
        moments.append({epoch: set(found) for epoch, found in probed.measured.items()})
    untimed = [[record for record in some if record.split != "time"] for some in (records, same)]
    assert untimed[0] == untimed[1]
    assert all(torch.equal(tensor, probed.tensors()[name]) for name, tensor in bare.tensors().items())
    assert bare.measured == {}
    rarely = set(PROBES.members()) - {"hessian"}
    assert moments[0] == {0: set(PROBES.members()), 1: rarely} and moments[-1] == {2: set(PROBES.members())}
    assert {one.reason for found in probed.measured.values() for one in found.values()} == {""}


@pytest.mark.slow
def test_deeper_probes_see_what_the_probe_sees_of_the_first_validation_images(tmp_path: Path) -> None:
    study = looked_into({"decomposition": {"images": 30}, "lesion": {"images": 1000}, "cka": {"images": 10}})
    store = registered(study, tmp_path)
    InProcess().run(Job("small", tmp_path), lambda event: None)
    images, labels = next(iter(load(SMALL).evaluation_batches("validation", 30, False)))
    for arm, spec in study.trials():
        model = build(spec.network, (1, 8, 8), 10, spec.seed)
        start = seen(store, "decomposition")[spec.content_hash][0]
        assert start.images == 30 and start.batch_statistics
        own = find_probe("decomposition").measure(model, images, labels, batch_statistics=True)
        assert start.frame["value"].to_numpy() == pytest.approx(
            own["value"].to_numpy(), rel=1e-4, abs=1e-6, nan_ok=True
        )
        state = prepare(model, spec.training, CPU)
        load_checkpoint(state, store.checkpoints / f"{spec.content_hash}-2.safetensors")
        end = seen(store, "decomposition")[spec.content_hash][2]
        own = find_probe("decomposition").measure(state.model, images, labels)
        assert not end.batch_statistics
        assert end.frame["value"].to_numpy() == pytest.approx(own["value"].to_numpy(), rel=1e-4, abs=1e-6, nan_ok=True)
        shares = end.frame.loc[end.frame["quantity"].eq("share"), "value"]
        assert shares.eq(0).all() if arm.base == "plain" else shares.gt(0).all()
    lesions = seen(store, "lesion")
    assert [list(epochs) for epochs in lesions.values()] == [[2], [2]]
    assert all(one.images == 50 for epochs in lesions.values() for one in epochs.values())


@pytest.mark.slow
def test_what_a_probe_cannot_measure_fails_no_trial(tmp_path: Path) -> None:
    store = registered(looked_into(["paths", "noise"]), tmp_path)
    InProcess().run(Job("small", tmp_path), lambda event: None)
    trials = store.trials_frame("small")
    assert set(trials["state"]) == {"finished"}
    plain, residual = trials["trial"]
    found = seen(store, "paths")
    assert "no block has a shortcut" in found[plain][0].reason and found[plain][0].frame.empty
    assert found[residual][2].reason == "" and len(found[residual][2].frame)
    assert "at least two full batches" in seen(store, "noise")[plain][2].reason


@pytest.mark.slow
@pytest.mark.parametrize("stop", ["epoch 1", "epoch 2"])
def test_an_interrupted_trial_measures_the_same(tmp_path: Path, stop: str) -> None:
    def interrupt(event: Event) -> None:
        if event.text.startswith(stop):
            raise KeyboardInterrupt

    probes = {"flow": {}, "decomposition": {"at": ["start", 1, 2, "end"]}, "landscape": {"images": 8}, "lesion": {}}
    study = looked_into(probes, epochs=3)
    with registered(study, tmp_path / "stopped") as store, registered(study, tmp_path / "whole") as whole:
        with pytest.raises(KeyboardInterrupt):
            InProcess().run(Job("small", tmp_path / "stopped"), interrupt)
        done = store.measurements("small", "decomposition")
        assert [[epoch for epoch, _ in epochs] for epochs in done.values()] == [[0, *range(1, int(stop[-1]) + 1)]]
        InProcess().run(Job("small", tmp_path / "stopped"), lambda event: None)
        InProcess().run(Job("small", tmp_path / "whole"), lambda event: None)
        for name in ("decomposition", "landscape", "lesion"):
            one, other = seen(store, name), seen(whole, name)
            assert {trial: list(epochs) for trial, epochs in one.items()} == {
                trial: list(epochs) for trial, epochs in other.items()
            }
            for trial, epochs in one.items():
                for epoch, measurement in epochs.items():
                    pd.testing.assert_frame_equal(measurement.frame, other[trial][epoch].frame, check_exact=True)
        assert measured(store) == measured(whole)


def test_what_was_seen_before_the_first_step_is_kept_of_a_trial_that_diverges_at_once(tmp_path: Path) -> None:
    study = looked_into(["decomposition"], epochs=3, optimizer={"name": "sgd", "learning_rate": 1e30})
    store = registered(study, tmp_path)
    InProcess().run(Job("small", tmp_path), lambda event: None)
    assert set(store.trials_frame("small")["state"]) == {"diverged"}
    assert [list(epochs) for epochs in seen(store, "decomposition").values()] == [[0], [0]]


@pytest.mark.slow
def test_processes_give_the_same_bits_as_one_process(tmp_path: Path) -> None:
    with registered(small(), tmp_path / "one") as one, registered(small(), tmp_path / "two") as two:
        InProcess().run(Job("small", tmp_path / "one"), lambda event: None)
        LocalProcesses(2).run(Job("small", tmp_path / "two"), lambda event: None)
        assert measured(one) == measured(two)


@pytest.mark.slow
def test_a_failing_trial_does_not_stop_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails_for_plain(spec: NetworkSpec, *args: object) -> torch.nn.Module:
        if spec.block.shortcut.kind == "none":
            raise ZeroDivisionError("by\nhand")
        return build(spec, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(trial_module, "build", fails_for_plain)
    store = registered(small(), tmp_path)
    InProcess().run(Job("small", tmp_path), lambda event: None)
    frame = store.trials_frame("small")
    assert list(frame["state"]) == ["failed", "finished"] * 2
    assert frame["error"][0].splitlines()[0] == "ZeroDivisionError: by hand"
    monkeypatch.undo()
    monkeypatch.setenv("LEADLINE_DATA", str(tmp_path))
    store.requeue_failed("small")
    InProcess().run(Job("small", tmp_path), lambda event: None)
    assert store.counts("small")["finished"] == 4


def test_a_diverged_trial_is_counted_with_its_step(tmp_path: Path) -> None:
    study = small(optimizer={"name": "sgd", "learning_rate": 1e8}, seeds=1)
    store = registered(study, tmp_path)
    events: list[Event] = []
    InProcess().run(Job("small", tmp_path), events.append)
    assert [event.kind for event in events if event.kind not in ("progress", "started")] == ["diverged"] * 2
    frame = store.trials_frame("small")
    assert list(frame["state"]) == ["diverged"] * 2
    assert frame["diverged_step"].between(1, 6).all()


def start(tmp_path: Path, workers: int) -> subprocess.Popen[str]:
    text = "name: small\ndata: {name: digits, train: 120, validation: 50, test: 50}\n"
    text += "training: {epochs: 20, batch_size: 8, optimizer: {name: adam}}\n"
    text += "arms: {plain: {network: comparative-plain}, residual: {network: comparative-resnet}}\n"
    text += "vary: {blocks: [2]}\nseeds: 2\n"
    (tmp_path / "small.yaml").write_text(text)
    command = [
        sys.executable,
        "-m",
        "leadline",
        "run",
        str(tmp_path / "small.yaml"),
        "--runs",
        str(tmp_path / "runs"),
    ]
    return subprocess.Popen(
        [*command, "--workers", str(workers)],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def wait_for_epochs(runs: Path, epochs: int) -> None:
    deadline = time.monotonic() + 600
    while time.monotonic() < deadline:
        if (runs / "leadline.db").exists():
            try:
                with Store.open_existing(runs) as store:
                    if store.records_frame("small", ["validation"])["epoch"].max() >= epochs:
                        return
            except StoreError:
                pass
        time.sleep(0.2)
    raise AssertionError("no epoch was stored within a minute")


@pytest.mark.slow
def test_kill_9_in_the_middle_then_the_same_command_goes_on(tmp_path: Path) -> None:
    process = start(tmp_path, workers=1)
    wait_for_epochs(tmp_path / "runs", 3)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    with Store.open_existing(tmp_path / "runs") as store:
        epochs = store.records_frame("small", ["validation"])["epoch"].max()
        assert epochs >= 3
        assert "finished" not in {state for state, number in store.counts("small").items() if number == 4}
    process = start(tmp_path, workers=2)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err
    assert "4 trials: 4 finished" in out
    study = load_study(str(tmp_path / "small.yaml"))
    with Store.open(tmp_path / "runs") as killed, registered(study, tmp_path / "whole") as unkilled:
        InProcess().run(Job("small", tmp_path / "whole"), lambda event: None)
        assert measured(killed) == measured(unkilled)


@pytest.mark.slow
def test_ctrl_c_stops_cleanly(tmp_path: Path) -> None:
    process = start(tmp_path, workers=2)
    wait_for_epochs(tmp_path / "runs", 1)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 130
    assert "Run the same command to continue." in out
    assert "Traceback" not in err
    with Store.open_existing(tmp_path / "runs") as store:
        assert store.counts("small")["running"] == 0


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_in_the_moment_a_worker_is_started_leaves_none_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    store = registered(small(), tmp_path)
    real, started = BaseProcess.start, list[BaseProcess]()

    def start(process: BaseProcess) -> None:
        real(process)
        started.append(process)
        if len(started) == 1:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(BaseProcess, "start", start)
    try:
        with sigterm_as_interrupt() as stop, pytest.raises(KeyboardInterrupt):
            LocalProcesses(2).run(Job("small", tmp_path), lambda event: None)
        assert stop.asked == (number == signal.SIGTERM)
        assert [process.is_alive() for process in started] == [False]
        assert store.counts("small")["waiting"] == 4
    finally:
        for process in started:
            process.kill()


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_what_is_started_hears_no_interrupt_from_its_first_moment() -> None:
    with shield_start():
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    child.send_signal(signal.SIGINT)
    child.send_signal(signal.SIGTERM)  # of signals that wait, the lower number comes first
    child.communicate()
    assert child.returncode == -signal.SIGTERM
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)


@pytest.mark.slow
def test_a_dead_workers_trial_is_taken_up_again(tmp_path: Path) -> None:
    study = small(epochs=6)
    store = registered(study, tmp_path)
    killed: list[str] = []

    def kill_first(event: Event) -> None:
        if event.kind == "started" and not killed:
            killed.append(event.trial)
            os.kill(int(re.split(":", event.owner)[1]), signal.SIGKILL)

    LocalProcesses(2).run(Job("small", tmp_path), kill_first)
    assert store.counts("small")["finished"] == 4
    assert store.trial(killed[0]).started is not None


@pytest.mark.slow
@pytest.mark.parametrize("kept", [500, 0, None])  # bytes of the checkpoint; None: it is gone
def test_a_damaged_checkpoint_costs_time_and_nothing_else(tmp_path: Path, kept: int | None) -> None:
    def interrupt(event: Event) -> None:
        if event.text.startswith("epoch 2"):
            raise KeyboardInterrupt

    study = small(epochs=3, seeds=1)
    with registered(study, tmp_path / "damaged") as store, registered(study, tmp_path / "whole") as whole:
        with pytest.raises(KeyboardInterrupt):
            InProcess().run(Job("small", tmp_path / "damaged", checkpoint_every=Interval()), interrupt)
        before, checkpoint = sorted(store.checkpoints.iterdir())
        assert before.name.endswith("-1.safetensors")
        content = checkpoint.read_bytes()
        checkpoint.unlink()
        if kept is not None:
            checkpoint.write_bytes(content[:kept])
        events: list[Event] = []
        InProcess().run(Job("small", tmp_path / "damaged"), events.append)
        kinds = [event.kind for event in events if event.kind != "progress"]
        assert kinds == ["started", "restarted", "finished", "started", "finished"]
        assert events[0].fraction == pytest.approx(2 / 3)
        assert events[1].fraction == pytest.approx(1 / 3)
        assert events[1].text.endswith("training continues from the previous checkpoint")
        InProcess().run(Job("small", tmp_path / "whole"), lambda event: None)
        assert measured(store) == measured(whole)


def test_a_checkpoint_that_cannot_be_read_counts_as_damaged(tmp_path: Path) -> None:
    state = prepare(build(comparative_resnet(1), (1, 8, 8), 10), TrainingSpec(), CPU)
    tmp_path.joinpath("a.safetensors").mkdir()
    with pytest.raises(DamagedCheckpoint, match="cannot be read"):
        load_checkpoint(state, tmp_path / "a.safetensors")


@pytest.mark.parametrize("failure", ["diverges", "fails"])
def test_a_lost_trial_does_not_stop_its_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: str) -> None:
    store = registered(small(seeds=1), tmp_path)

    def taken_over(*_: object) -> torch.nn.Module:
        with closing(sqlite3.connect(tmp_path / "leadline.db")) as database, database:
            database.execute("UPDATE trials SET owner = 'elsewhere:1:-' WHERE state = 'running'")
        raise Diverged(1, float("nan")) if failure == "diverges" else ZeroDivisionError

    monkeypatch.setattr(trial_module, "build", taken_over)
    events: list[Event] = []
    InProcess().run(Job("small", tmp_path), events.append)
    assert [event.kind for event in events] == ["started", "stopped"] * 2
    assert store.counts("small")["running"] == 2


def test_a_worker_that_cannot_even_start_ends_the_run_with_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered(small(), tmp_path)
    monkeypatch.setattr(executors, "_worker_main", os._exit)  # called with three arguments, it raises
    with pytest.raises(LeadlineError, match=r"small: its worker process died with exit code 1"):
        LocalProcesses(2).run(Job("small", tmp_path), lambda event: None)


@pytest.mark.parametrize(
    "network", [comparative_resnet(1), cifar_resnet(8), recurrent_resnet(steps=3, width=8, normalisation="shared")]
)
@pytest.mark.parametrize("channels_last", [True, False])
def test_a_checkpoint_is_whole_or_not_there_and_a_damaged_one_says_so(
    tmp_path: Path, network: NetworkSpec, channels_last: bool
) -> None:
    training = TrainingSpec(epochs=1, optimizer=SGD(), channels_last=channels_last)
    spec = TrialSpec(network=network, training=training, data=SMALL)
    state = prepare(build(spec.network, (1, 8, 8), 10), training, CPU)
    list(train(state, load(SMALL), training))
    path = tmp_path / "a.safetensors"
    save_checkpoint(state, spec, path)
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]
    other = prepare(build(spec.network, (1, 8, 8), 10, seed=5), training, CPU)
    load_checkpoint(other, path)
    assert set(state.tensors()) == set(other.tensors())
    assert all(torch.equal(tensor, other.tensors()[name]) for name, tensor in state.tensors().items())
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(DamagedCheckpoint, match=r"a\.safetensors: cannot be read") as caught:
        load_checkpoint(other, path)
    assert "\n" not in str(caught.value)
