"""Several devices compute what one does: losses, weights, noise, statistics; those that die stop nobody."""

import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.distributed import HashStore

import parallel_cases as cases
from leadline.distributed import launch as launching
from leadline.distributed import process_group, torchrun
from leadline.distributed.launch import ProcessDied, assign_devices, launch
from leadline.distributed.process_group import SINGLE_PROCESS, Disconnected
from leadline.distributed.shard import Shard
from leadline.distributed.torchrun import Torchrun, check_torchrun
from leadline.errors import LeadlineError, SpecError
from leadline.networks import cifar_resnet, comparative_resnet, recurrent_resnet
from leadline.parts.augmentations.mixup import Mixup
from leadline.parts.augmentations.rand_augment import RandAugment
from leadline.parts.augmentations.random_erasing import RandomErasing
from leadline.probes.table import FlowTable
from leadline.running import worker
from leadline.running.executors import InProcess
from leadline.running.job import MOST_ATTEMPTS, Event, Job
from leadline.running.stopping import Stopped, at_sigterm
from leadline.specs import SGD, Augment, FlowSpec, ProbeSpec, TrainingSpec, parse
from leadline.specs.study import StudySpec
from leadline.store import Store
from leadline.study.expand import ExpandedStudy, expand

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
RECIPE = TrainingSpec(
    epochs=2,
    batch_size=32,
    optimizer=SGD(learning_rate=0.02, momentum=0.9, weight_decay=0.001),
    label_smoothing=0.1,
    clip_norm=1.0,
    test_every=1,
)
GRADIENTS = ProbeSpec(flow=FlowSpec(what=("gradients", "updates")))
NOISY = parse(
    type(cifar_resnet(8)),
    {
        **cifar_resnet(8).model_dump(mode="json"),
        "head": {"dropout": 0.3},
        "block": {**cifar_resnet(8).block.model_dump(mode="json"), "dropout": 0.2, "stochastic_depth": 0.5},
    },
)
MIXED = {"augment": (RandAugment(), Augment(pad=1), RandomErasing(), Mixup()), "label_noise": 0.2}
CASES: dict[str, tuple[Any, ...]] = {
    "none": (comparative_resnet(1), RECIPE, 129, GRADIENTS),  # of the last batch of 1, one device has nothing
    "batch": (cifar_resnet(8), RECIPE, 97, ProbeSpec()),
    "noise": (NOISY, RECIPE, 71, ProbeSpec()),
    "recomputed": (cifar_resnet(8).model_copy(update={"checkpoint_blocks": True}), RECIPE, 71, ProbeSpec()),
    "half": (cases.Steep, RECIPE.with_(precision="float16"), 71, ProbeSpec()),
    "shared": (recurrent_resnet(steps=2, width=8), RECIPE, 40, ProbeSpec()),
    "averaged": (cifar_resnet(8), RECIPE.with_(averaging={"name": "swa", "start": 0.5}), 97, ProbeSpec()),
    "frozen": (cifar_resnet(8), RECIPE.with_(rates={"stem": 0.0, "stages.0": 0.0, "head": 2.0}), 97, ProbeSpec()),
    "resized": (cifar_resnet(8), RECIPE.with_(resizing=[{"until": 0.5, "scale": 0.75}]), 97, ProbeSpec()),
    "in parts": (NOISY.with_(normalisation="layer"), RECIPE.with_(accumulate=3), 97, ProbeSpec()),
    "statistics": (cifar_resnet(8), RECIPE.with_(accumulate=3), 97, ProbeSpec()),
    "mixed": (comparative_resnet(1), RECIPE, 97, ProbeSpec(), MIXED),
    "unused": (cases.SometimesUnused, RECIPE, 97, ProbeSpec()),
    "diverges": (
        comparative_resnet(2),
        TrainingSpec(batch_size=40, optimizer=SGD(learning_rate=1e12)),
        120,
        ProbeSpec(),
    ),
    "draws": (cases.OwnDropout, RECIPE, 97, ProbeSpec()),
    "looks": (comparative_resnet(2), RECIPE, 97, ProbeSpec(flow=FlowSpec())),
}


@pytest.fixture(scope="module")
def found() -> list[Any]:
    """What two processes give, of each case by rank."""
    told: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEADLINE_DATA", "nowhere")
        launch(cases.train_all, (list(CASES.values()),), assign_devices(CPU, 2), 1, told.append, lambda: None)
    return told


def both(found: list[Any], name: str) -> tuple[Any, Any]:
    """Return what two devices give of a case, having seen that they agree to the bit, and what one gives."""
    first, second = found[list(CASES).index(name)]
    alone = cases.trained(SINGLE_PROCESS, *CASES[name])
    if len(first) == 4:
        assert all(np.array_equal(first[1][key], second[1][key]) for key in first[1])
        untimed = [[one for one in records if one.split != "time"] for records in (first[0], second[0])]
        assert untimed[0] == untimed[1]
    return first, alone


@pytest.mark.parametrize(
    "name",
    ["none", "batch", "noise", "recomputed", "shared", "mixed", "averaged", "frozen", "resized", "in parts", "unused"],
)
def test_two_devices_train_as_one_does(found: list[Any], name: str) -> None:
    (records, weights, predictions, _), alone = both(found, name)
    measured = [[one for one in some if one.split != "time"] for some in (records, alone[0])]
    assert [one[:-1] for one in measured[0]] == [one[:-1] for one in measured[1]]
    assert [one.value for one in measured[0]] == pytest.approx([one.value for one in measured[1]], rel=1e-5, abs=1e-5)
    averaged = {"averaged-validation", "averaged-test"} if name == "averaged" else set()
    splits = {"train", "validation", "test"} | averaged
    assert {one.split for one in measured[0]} == splits | {f"final-{split}" for split in splits}
    assert weights.keys() == alone[1].keys()
    for key, value in weights.items():
        assert value == pytest.approx(alone[1][key], rel=1e-4, abs=1e-5), key
    assert np.array_equal(predictions, alone[2])


def test_devices_that_train_in_float16_skip_the_same_steps(found: list[Any]) -> None:
    (records, weights, *_), alone = both(found, "half")
    assert 0 < weights["scaler.skipped"] < records[-1].step
    assert abs(weights["scaler.skipped"] - alone[1]["scaler.skipped"]) <= 1  # fewer rows overflow a little later
    final = [next(one.value for one in some if one[2:4] == ("final-train", "loss")) for some in (records, alone[0])]
    assert final[0] == pytest.approx(final[1], rel=0.1)


def test_noise_makes_a_difference() -> None:
    """So that the case above has something to get wrong."""
    recipe, size, probes = CASES["noise"][1:]
    plain = cases.trained(SINGLE_PROCESS, cifar_resnet(8), recipe, size, probes)
    assert not np.allclose(
        plain[1]["model.head.linear.weight"],
        cases.trained(SINGLE_PROCESS, *CASES["noise"])[1]["model.head.linear.weight"],
        atol=1e-3,
    )


def test_a_part_that_no_batch_uses_is_left_as_it_is(found: list[Any]) -> None:
    (_, weights, *_), _ = both(found, "unused")
    assert np.array_equal(weights["model.never.weight"], cases.SometimesUnused().never.weight.detach().numpy())
    assert not np.array_equal(weights["model.rarely.weight"], cases.SometimesUnused().rarely.weight.detach().numpy())


def test_gradients_and_updates_are_those_of_the_whole_batch(found: list[Any]) -> None:
    (*_, flow), alone = both(found, "none")
    mine, whole = (FlowTable.from_bytes(content).frame() for content in (flow, alone[3]))
    assert len(mine) == len(whole) > 0
    assert mine["value"].to_numpy() == pytest.approx(whole["value"].to_numpy(), rel=1e-4, abs=1e-7)


def test_all_devices_see_training_diverge_at_once(found: list[Any]) -> None:
    first, second = found[list(CASES).index("diverges")]
    kind, _, step = cases.trained(SINGLE_PROCESS, *CASES["diverges"])
    assert first[0] == second[0] == kind == "Diverged"
    assert first[2] == second[2] == step


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("draws", "OwnDropout: uses PyTorch's global"),
        ("looks", "2 dev"),
        ("statistics", "training.accumulate 3: on 2 devices, batch normalisation would see other parts of a batch"),
    ],
)
def test_what_several_devices_cannot_do_as_one_is_refused(found: list[Any], name: str, line: str) -> None:
    for kind, text, _ in found[list(CASES).index(name)]:
        assert kind == "SpecError" and line in text and "\n" not in text
    assert len(cases.trained(SINGLE_PROCESS, *CASES[name])) == 4


@pytest.mark.parametrize("name", cases.LAYERS)
@pytest.mark.parametrize("rows", cases.ROWS)
def test_batch_statistics_are_those_of_all_rows(found: list[Any], rows: int, name: str) -> None:
    whole = cases.layer_by_layer(SINGLE_PROCESS, rows)[name]
    parts = [one[cases.ROWS.index(rows)][name] for one in found[len(CASES)]]
    for place, expected in enumerate(whole):
        got = torch.cat([part[place] for part in parts]) if place < 2 else parts[0][place]
        assert torch.allclose(got, expected, rtol=1e-4, atol=2e-3), (place, (got - expected).abs().max())
        if place >= 2:
            assert torch.equal(parts[0][place], parts[1][place])


def test_evaluation_gives_the_same_bits_on_any_number_of_devices(found: list[Any]) -> None:
    from leadline.data.batches import load
    from leadline.networks.modules import build
    from leadline.specs import DataSpec
    from leadline.training import evaluate

    network, spec = CASES["none"][:2]
    data = load(DataSpec(name="digits", train=1200, validation=60, test=50))  # three batches
    alone = evaluate(build(network, (1, 8, 8), 10, 5), data, "train", spec)
    for one in found[len(CASES) + 1]:
        assert (one.loss, one.accuracy) == (alone.loss, alone.accuracy)
        assert np.array_equal(one.predicted, alone.predicted)


def test_gradients_are_summed_in_buckets_while_the_backward_pass_goes_on() -> None:
    told: list[Any] = []
    launch(cases.sum_in_buckets, (), assign_devices(CPU, 2), 1, told.append, lambda: None)
    first, second = told[0]
    for size, buckets, begun in ((1.0, 10, (6, 8)), (150.0, 4, (2, 3)), (None, 1, (0, 0))):
        assert first[size] == second[size] == first[None]
        assert (first[size, "buckets"][:2], second[size, "buckets"][:2]) == ((buckets, begun[0]), (buckets, begun[1]))
        assert first[size, "buckets"][2:] == second[size, "buckets"][2:] == (pytest.approx(1.1, abs=0.2), 7)
    assert set(first[None]) == {
        f"{layer}.{part}" for layer in ("of rank 1", "first", "second", "third") for part in ("weight", "bias")
    }


@pytest.mark.parametrize("parts", [1, 2, 3, 8])
def test_shards_are_all_of_a_batch_once(parts: int) -> None:
    for count in range(20):
        rows = [list(range(count))[Shard(index, parts).rows(count)] for index in range(parts)]
        assert [one for part in rows for one in part] == list(range(count))
        assert max(map(len, rows)) - min(map(len, rows)) <= 1


def test_shards_of_data_are_all_of_it(tmp_path: Path) -> None:
    data = cases.digits(70)
    shards = [data.take_shard(Shard(index, 2)) for index in range(2)]
    for first in (0, 1):
        pairs = zip(*(one.train_batches(0, 1, 32, first=first) for one in shards), strict=True)
        for (images, labels), parts in zip(data.train_batches(0, 1, 32, first=first), pairs, strict=True):
            assert torch.equal(torch.cat([part[0] for part in parts]), images)
            assert torch.equal(torch.cat([part[1] for part in parts]), labels)
    whole = [labels for _, labels in data.evaluation_batches("train", 16)]
    halves = [[labels for _, labels in one.evaluation_batches("train", 16)] for one in shards]
    assert all(torch.equal(a, b) for a, b in zip(whole[::2], halves[0], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(whole[1::2], halves[1], strict=True))


# --- what goes wrong


def test_what_one_device_raises_is_raised_and_not_what_follows_from_it() -> None:
    with pytest.raises(ValueError, match="no such thing") as caught:
        launch(cases.fails, (), assign_devices(CPU, 2), 1, print, lambda: None)
    assert "parallel_cases.py" in caught.value.__notes__[0]


def test_what_is_exchanged_keeps_its_bits() -> None:
    told: list[Any] = []
    launch(cases.exchanges, (), [CPU, CPU], 1, told.append, lambda: None)
    numbers = [torch.tensor([0.1, float("nan"), -0.0, 1e-42]).repeat(1 + 1000 * rank) for rank in (0, 1)]
    for rank, one in enumerate(told[0]):
        assert one["rank"] == rank and one["none"] is None
        assert one["numbers"][0].numpy().tobytes() == numbers[rank].numpy().tobytes()
        assert one["numbers"][1].dtype == torch.float64
    for rank, values in told[1]:
        assert rank == 0 and torch.equal(values.view(torch.int16), numbers[0].bfloat16().view(torch.int16))


def test_bytes_that_another_process_sends_call_nothing(tmp_path: Path) -> None:
    """Neither among processes that compute together, nor in the store that torchrun opens to the network."""

    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "called",)

    packed = process_group._pack([Hostile()])
    with pytest.raises(pickle.UnpicklingError):
        process_group._unpack(packed)
    store = HashStore()
    store.set("task", pickle.dumps(Hostile()).hex())
    with pytest.raises(ValueError):
        torchrun._wait_for_task(store, "task")
    assert not (tmp_path / "called").exists()


def test_a_device_that_is_stuck_stops_nobody_for_ever() -> None:
    with pytest.raises(Disconnected, match="lost contact with the other devices"):
        launch(cases.sleeps, (), assign_devices(CPU, 2), 1, print, lambda: None, timedelta(seconds=2))
    assert not multiprocessing.active_children()


def test_devices_meet_in_a_folder_of_any_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a b%20c#d?e"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    told: list[Any] = []
    launch(cases.meets, (), assign_devices(CPU, 2), 1, told.append, lambda: None, timedelta(seconds=60))
    assert told == [[0, 1]]


def test_a_device_that_is_stuck_when_all_is_stored_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launching, "AFTER_DEATH_SECONDS", 0.5)
    told: list[str] = []
    launch(cases.ends_alone, (tmp_path / "late",), assign_devices(CPU, 2), 1, told.append, lambda: None)
    assert told == ["stored"]
    assert not (tmp_path / "late").exists()
    assert not multiprocessing.active_children()


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_a_stop_in_the_moment_a_device_is_started_leaves_none_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    real = BaseProcess.start

    def start(process: BaseProcess) -> None:
        real(process)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(BaseProcess, "start", start)
    with pytest.raises(Stopped), at_sigterm():
        launch(cases.sleeps, (), assign_devices(CPU, 2), 1, print, lambda: None)
    left = multiprocessing.active_children()
    for process in left:
        process.kill()
    assert not left


def test_devices_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    assert assign_devices(CPU, 3) == [CPU] * 3
    with pytest.raises(SpecError, match="'cuda:1' is one GPU"):
        assign_devices(torch.device("cuda:1"), 2)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert assign_devices(torch.device("cuda"), 2) == [torch.device("cuda", 0), torch.device("cuda", 1)]
    with pytest.raises(SpecError, match="devices: 3, but PyTorch sees 2 CUDA"):
        assign_devices(torch.device("cuda"), 3)
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        assert Torchrun.current() is None
        check_torchrun(7)
        monkeypatch.setenv(name, value)
    check_torchrun(2)
    with pytest.raises(SpecError, match="torchrun started 2 processes, but 3 devices were requested; use --devices 2"):
        check_torchrun(3)


# --- as trials of a study


def pair(**more: object) -> ExpandedStudy:
    training = {"epochs": 3, "batch_size": 40, "optimizer": {"name": "sgd", "learning_rate": 0.02}}
    return expand(
        StudySpec.model_validate(
            {
                "name": "pair",
                "data": {"name": "digits", "train": 110, "validation": 50, "test": 50},
                "training": training,
                "arms": {"residual": {"network": "cifar-resnet"}},
                "vary": {"depth": [8]},
                "seeds": 1,
                **more,
            }
        )
    )


def run(
    runs: Path, devices: int | None, emit: Callable[[Event], None] = lambda event: None, said: int = 1, **more: object
) -> Store:
    store = Store.open(runs)
    store.register(pair(devices=said, **more))
    InProcess().run(Job("pair", runs, devices=devices), emit)
    return store


def values(store: Store) -> dict[tuple[Any, ...], float]:
    frame = store.records_frame("pair")
    frame = frame[frame["split"] != "time"]
    columns = ["epoch", "step", "split", "name", "value"]
    return {row[:-1]: row[-1] for row in frame[columns].itertuples(index=False, name=None)}


def interrupt_at(epoch: int) -> Callable[[Event], None]:
    def interrupt(event: Event) -> None:
        if event.text.startswith(f"epoch {epoch}"):
            raise KeyboardInterrupt

    return interrupt


def test_devices_that_cannot_measure_are_refused_before_a_trial_is_taken(tmp_path: Path) -> None:
    with pytest.raises(
        SpecError, match="on 2 devices, since none holds the whole batch; use gradients and updates only"
    ):
        run(tmp_path, 2, probes=["flow"])
    with Store.open(tmp_path) as store:
        assert store.counts("pair")["waiting"] == sum(store.counts("pair").values())


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[Any, ...], float]:
    """What a trial measures that one device trains without a break."""
    return values(run(tmp_path_factory.mktemp("whole"), 1))


def test_a_trial_goes_on_with_another_number_of_devices(tmp_path: Path, whole: dict[tuple[Any, ...], float]) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, 1, interrupt_at(1), said=2)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, None, interrupt_at(2), said=2)
    store = Store.open(tmp_path)
    assert store.trials_frame("pair")["environment"][0]["devices"] == 2
    assert store.trials_frame("pair")["state"].tolist() == ["waiting"]
    found = values(run(tmp_path, 1, said=2))
    assert found.keys() == whole.keys()
    assert list(found.values()) == pytest.approx(list(whole.values()), rel=1e-5, abs=1e-5)
    assert store.trials_frame("pair")["state"].tolist() == ["finished"]
    assert len(list(store.checkpoints.iterdir())) == 1


def test_a_trial_whose_device_dies_is_taken_up_again(tmp_path: Path, whole: dict[tuple[Any, ...], float]) -> None:
    told: list[Event] = []

    def kill(event: Event) -> None:
        if event.kind != "progress":
            told.append(event)
        elif event.text.startswith("epoch 1") and len(told) == 1:
            os.kill(max(child.pid or 0 for child in multiprocessing.active_children()), signal.SIGKILL)

    store = run(tmp_path, 2, kill)
    assert not multiprocessing.active_children()
    assert [event.kind for event in told] == ["started", "died", "started", "finished"]
    assert told[1].text == (
        "the process of device 2 of 2 died with signal 9 (SIGKILL); if memory ran out, use a smaller batch;"
        " the trial will be resumed"
    )
    assert told[2].fraction == pytest.approx(1 / 3)
    found = values(store)
    assert list(found.values()) == pytest.approx(list(whole.values()), rel=1e-5, abs=1e-5)
    assert store.trials_frame("pair")["state"].tolist() == ["finished"]


@pytest.mark.parametrize("lost", [ProcessDied("device 2 died"), Disconnected("nothing heard of it")])
def test_a_trial_whose_devices_die_again_and_again_fails_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: LeadlineError
) -> None:
    def dies(*_: object) -> None:
        raise lost

    told: list[Event] = []

    def emit(event: Event) -> None:
        told.append(event)
        with Store.open(tmp_path) as store:  # another may take it at once
            assert store.is_claimable("pair", "elsewhere:1:-") == (event.kind == "died")

    monkeypatch.setattr(worker.Worker, "_train", dies)
    store = run(tmp_path, 2, emit)
    again = ["started", "died"] * (MOST_ATTEMPTS - 1)
    assert [event.kind for event in told] == [*again, "started", "failed"]
    frame = store.trials_frame("pair")
    assert (frame["state"].tolist(), frame["error"].tolist()) == (["failed"], [str(lost)])
    assert told[-1].text == str(lost)
    assert store.requeue_failed("pair") == 1


def test_who_is_told_of_a_trial_that_ended_is_not_told_that_it_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "HEARTBEAT_SECONDS", 0.1)
    with Store.open(tmp_path) as store:
        store.register(pair(seeds=2))
        for ends in (True, False):
            claim, others = store.claim("pair", "here:1:-", 60.0), set(threading.enumerate())
            assert claim is not None
            with worker._heartbeat(store, claim.trial, "here:1:-") as lost:
                (beating,) = set(threading.enumerate()) - others
                if ends:
                    store.finish(claim.trial, "here:1:-", "finished")
                else:
                    store.release(claim.trial, "here:1:-")
                beating.join(60)
                assert not beating.is_alive() and lost.is_set() != ends


@pytest.mark.parametrize("command", ["run", "worker"])
def test_torchrun_starts_the_processes(tmp_path: Path, command: str) -> None:
    study = tmp_path / "pair.yaml"
    study.write_text(
        "name: pair\ndata: {name: digits, train: 110, validation: 50, test: 50}\n"
        "training: {epochs: 1, batch_size: 40}\narms: {residual: {network: comparative-resnet}}\n"
        "vary: {blocks: [1, 2]}\nseeds: 1\n"
    )
    starter = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    line = [*starter, "-m", "leadline", command, str(study), "--devices", "2", "--device", "cpu", "--json"]
    environment = {**os.environ, "LEADLINE_RUNS": str(tmp_path / "runs"), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(line, capture_output=True, text=True, timeout=600, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count('"finished": 2') == 1
    store = Store.open(tmp_path / "runs")
    assert [one["devices"] for one in store.trials_frame("pair")["environment"]] == [2, 2]


def test_ctrl_c_of_torchrun_keeps_what_was_trained(tmp_path: Path) -> None:
    study, runs = tmp_path / "pair.yaml", tmp_path / "runs"
    study.write_text(
        "name: pair\ndata: {name: digits, train: 110, validation: 50, test: 50}\n"
        "training: {epochs: 5000, batch_size: 40}\narms: {residual: {network: comparative-resnet}}\n"
        "vary: {blocks: [1]}\nseeds: 1\n"
    )
    starter = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    line = [*starter, "-m", "leadline", "worker", str(study), "--devices", "2", "--device", "cpu", "--runs", str(runs)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(line, env=environment, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        while not list(runs.glob("checkpoints/*.safetensors")):
            assert process.poll() is None
            time.sleep(0.2)
        os.killpg(process.pid, signal.SIGINT)
        process.wait(timeout=600)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    with Store.open(runs) as store:
        [record] = map(store.trial, store.trials_frame("pair")["trial"])
    assert (record.state, record.owner, record.attempts) == ("waiting", None, 0)
    assert record.checkpoint is not None and (runs / "checkpoints" / record.checkpoint).exists()
