"""Trials that are killed, stopped, starved or damaged: the same bits, nothing lost, nothing doubled."""

import errno
import importlib
import multiprocessing
import os
import random
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from leadline.data.batches import Data, load
from leadline.errors import SpecError, StoreError
from leadline.networks import cifar_resnet, comparative_resnet, recurrent_resnet
from leadline.networks.modules import build
from leadline.parts.metrics.record import Record
from leadline.pretraining.state import PretrainingState
from leadline.probes.table import FlowTable
from leadline.running import checkpoints
from leadline.running import trial as trial_module
from leadline.running.checkpoints import DamagedCheckpoint, Interval, Timer, load_checkpoint, save_checkpoint
from leadline.running.executors import InProcess, run_until_ended
from leadline.running.job import Emit, Event, Job
from leadline.running.stopping import Stop, Stopped, at_sigterm, sigterm_as_interrupt
from leadline.running.worker import work
from leadline.specs import (
    SGD,
    Adam,
    Augment,
    DataSpec,
    NetworkSpec,
    PretrainingSpec,
    ProbeSpec,
    RMSprop,
    TrainingSpec,
    TrialSpec,
    parse,
)
from leadline.specs.study import StudySpec
from leadline.store import Store, WorkerId
from leadline.study.expand import ExpandedStudy, expand
from leadline.training import TrainState, prepare, train
from leadline.training.layerwise import pretrain_network

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
DATA = DataSpec(name="digits", train=100, validation=40, test=40, augment=Augment())
posix = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
FORK = multiprocessing.get_context("fork" if os.name == "posix" else "spawn")


def study(seeds: int = 1, epochs: int = 2, batch_size: int = 20, **more: object) -> ExpandedStudy:
    return expand(
        StudySpec.model_validate(
            {
                "name": "small",
                "data": {"name": "digits", "train": 100, "validation": 40, "test": 40},
                "training": {"epochs": epochs, "batch_size": batch_size, "optimizer": {"name": "adam"}},
                "arms": {"plain": {"network": "comparative-plain"}, "residual": {"network": "comparative-resnet"}},
                "vary": {"blocks": [1]},
                "seeds": seeds,
                "probes": ["flow"],
                **more,
            }
        )
    )


def registered(asked: ExpandedStudy, runs: Path) -> Store:
    store = Store.open(runs)
    store.register(asked)
    return store


def job(store: Store, steps: int | None = 1) -> Job:
    return Job("small", store.folder, checkpoint_every=Interval(steps=steps))


def results(store: Store) -> tuple[Any, ...]:
    """Everything that must be equal to the bit: states, records but for times, what flow saw, predictions, pictures."""
    frame = store.records_frame("small")
    frame = frame[frame["name"] != "images_per_second"]
    frame.loc[frame["name"] == "seconds", "value"] = 0.0  # it must be there, once
    tables = {
        (trial, epoch): (one.names, one.kinds, one.steps.tobytes(), one.values.tobytes())
        for trial, epochs in store.measurements("small", "flow").items()
        for epoch, content in epochs
        for one in [FlowTable.from_bytes(content)]
    }
    predictions = {trial: one.predicted.tobytes() for trial, one in store.outputs("small").items()}
    trials = list(store.trials_frame("small")[["trial", "state"]].itertuples(index=False, name=None))
    pictures = store.measurements("small", "pretraining")
    return trials, list(frame.itertuples(index=False, name=None)), tables, predictions, pictures


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return registered(study(), tmp_path / "runs")


@pytest.fixture
def expected(tmp_path: Path) -> tuple[Any, ...]:
    """What an uninterrupted run of the study gives."""
    with registered(study(), tmp_path / "calm") as calm:
        InProcess().run(job(calm, None), lambda event: None)
        return results(calm)


# --- within an epoch


def went(state: TrainState, data: Data, spec: TrainingSpec, probes: ProbeSpec, seed: int = 3) -> list[Any]:
    """Train to the end; give what it yields but times, and the flow of every epoch."""
    seen: list[Any] = []
    for record in train(state, data, spec, seed, probes):
        if record.split not in ("time", "batch"):
            seen.append(record)
        if record.name == "images_per_second" or record.name == "error":
            table = state.flow
            if state.part is None and table is not None:
                seen.append((table.names, table.kinds, table.steps.tobytes(), table.values.tobytes()))
    return seen


@pytest.mark.parametrize(
    ("network", "training"),
    [
        (comparative_resnet(1), TrainingSpec(epochs=2, batch_size=20, optimizer=Adam())),
        (cifar_resnet(8), TrainingSpec(epochs=2, batch_size=30, optimizer=SGD(momentum=0.9))),
        (
            recurrent_resnet(steps=3, width=8, normalisation="shared"),
            TrainingSpec(epochs=2, batch_size=45, optimizer=RMSprop(), channels_last=False),
        ),
    ],
)
def test_training_goes_on_from_any_step_to_the_same_bits(
    tmp_path: Path, network: NetworkSpec, training: TrainingSpec
) -> None:
    data, probes = load(DATA), parse(ProbeSpec, ["flow"])
    spec = TrialSpec(network=network, training=training, data=DATA)

    def fresh() -> TrainState:
        return prepare(build(network, data.shape, data.classes, 3), training, CPU)

    whole, steps = fresh(), -(-data.train_size // training.batch_size) * training.epochs
    expected = went(whole, data, training, probes)
    for stop in range(1, steps + 1):
        first, path = fresh(), tmp_path / "a.safetensors"
        before: list[Any] = []
        pause: Callable[[int], bool] = lambda step, stop=stop: step == stop  # noqa: E731
        for record in train(first, data, training, 3, probes, pause):
            if record.split == "batch" and record.step == stop:
                break
            if record.split != "time" and record.split != "batch":
                before.append(record)
        assert first.part is not None and first.step == stop
        save_checkpoint(first, spec, path)
        second = fresh()
        load_checkpoint(second, path)
        assert set(second.tensors()) == set(first.tensors())
        after = went(second, data, training, probes)
        old = [one for one in expected if isinstance(one, Record)]
        assert before + [one for one in after if isinstance(one, Record)] == old, stop
        tables, new_tables = ([one for one in some if not isinstance(one, Record)] for some in (expected, after))
        assert new_tables == tables[-len(new_tables) :], stop
        assert all(torch.equal(tensor, second.tensors()[name]) for name, tensor in whole.tensors().items()), stop


def test_an_epochs_batches_begin_where_one_asks(tmp_path: Path) -> None:
    data = load(DATA)
    every = list(data.train_batches(3, 1, 16))
    for first in range(len(every) + 1):
        rest = list(data.train_batches(3, 1, 16, first=first))
        assert len(rest) == len(every) - first
        for one, other in zip(rest, every[first:], strict=True):
            assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


# --- checkpoints


def trained(path: Path) -> tuple[TrainState, TrialSpec, Callable[[], TrainState]]:
    training = TrainingSpec(epochs=2, batch_size=20)
    spec = TrialSpec(network=comparative_resnet(1), training=training, data=DATA)

    def fresh() -> TrainState:
        return prepare(build(spec.network, (1, 8, 8), 10), training, CPU)

    state = fresh()
    for record in train(state, load(DATA), training, 0, parse(ProbeSpec, ["flow"]), lambda step: step == 3):
        if record.step == 3:
            break
    save_checkpoint(state, spec, path)
    return state, spec, fresh


def test_a_changed_or_shortened_checkpoint_is_never_taken_for_the_one_that_was_written(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    state, _, fresh = trained(path)
    content, chance, refused = path.read_bytes(), random.Random(5), 0
    for _ in range(60):
        damaged = bytearray(content)
        if chance.random() < 0.7:
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        else:
            del damaged[chance.randrange(len(damaged)) :]
        path.write_bytes(damaged)
        other = fresh()
        try:
            load_checkpoint(other, path)
        except DamagedCheckpoint as error:
            assert "\n" not in str(error)
            refused += 1
        else:  # a space of the header
            assert all(torch.equal(tensor, other.tensors()[name]) for name, tensor in state.tensors().items())
            assert (other.step, other.epoch) == (state.step, state.epoch)
    assert refused > 50


@posix
@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_a_checkpoint_may_be_read_by_whom_the_umask_lets(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        trained(tmp_path / "a.safetensors")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.safetensors").stat().st_mode) == 0o666 & ~mask


def test_a_checkpoint_without_a_checksum_is_not_taken(tmp_path: Path) -> None:
    state, spec, fresh = trained(tmp_path / "a.safetensors")
    position = {"spec": spec.model_dump_json(), "step": "3", "epoch": "0"}
    (tmp_path / "b.safetensors").write_bytes(checkpoints.save(state.tensors(), position))
    with pytest.raises(DamagedCheckpoint, match="its checksum does not match"):
        load_checkpoint(fresh(), tmp_path / "b.safetensors")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10m", Interval(600.0)),
        ("500s", Interval(500.0)),
        ("1.5h", Interval(5400.0)),
        ("200steps", Interval(None, 200)),
        ("1 step", Interval(None, 1)),
        ("epoch", Interval()),
    ],
)
def test_intervals_are_read(text: str, expected: Interval) -> None:
    assert Interval.parse(text) == expected == Interval.parse(str(expected))


@pytest.mark.parametrize(
    "text", ["", "10", "m", "-1m", "0s", "0steps", "1.5steps", "ten minutes", "1d", "nans", "infs"]
)
def test_what_is_no_interval_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match=r"--checkpoint-every .*: expected a time or steps"):
        Interval.parse(text)


def test_a_timer_counts_from_the_last_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    moment = 100.0
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: moment)
    by_steps, by_time = Timer.start(Interval(steps=5), 7), Timer.start(Interval(seconds=60.0), 7)
    never = Timer.start(Interval(), 0)
    assert [step for step in range(8, 20) if by_steps.due(step)] == list(range(12, 20))
    by_steps.restart(13, 0.0)
    assert not by_steps.due(17) and by_steps.due(18)
    assert not by_time.due(10**6)
    moment = 160.0
    assert by_time.due(8) and not never.due(10**6)


def test_epochs_end_with_a_checkpoint_that_takes_two_per_cent_of_the_time_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    moment = 100.0
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: moment)
    timer, by_steps = Timer.start(Interval(seconds=60.0), 0), Timer.start(Interval(steps=5), 0)
    every = Timer.start(Interval(), 0)
    assert timer.due_after_epoch(1)  # what the first costs is not known
    for one in (timer, by_steps, every):
        one.restart(1, cost=0.5)
    moment = 124.9
    assert not timer.due_after_epoch(2) and by_steps.due_after_epoch(2) and every.due_after_epoch(2)
    moment = 125.0
    assert timer.due_after_epoch(2)
    timer.restart(2, cost=30.0)
    moment = 185.0
    assert timer.due_after_epoch(3)  # the interval has passed


# --- killed


def stages() -> dict[str, Callable[[int], None]]:
    """By name: lets this process kill itself at a place in or around the n-th checkpoint."""

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def at_call(owner: Any, name: str, number: int, before: bool = True) -> None:
        real, calls = getattr(owner, name), 0

        def counted(*arguments: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == number and before:
                die()
            result = real(*arguments, **named)
            if calls == number:
                die()
            return result

        setattr(owner, name, counted)

    def half_written(number: int) -> None:
        real, calls = checkpoints.save, 0

        def cut(tensors: Any, about: Any) -> bytes:
            nonlocal calls
            calls += 1
            content = real(tensors, about)
            if calls == number:
                file = next(iter(Path.cwd().glob("checkpoints"))) / f"{trial_name(about)}-9.{os.getpid()}.partial"
                file.write_bytes(content[: len(content) // 2])
                die()
            return content

        checkpoints.save = cut  # type: ignore[assignment]

    return {
        "half written": half_written,
        "written, not named": lambda number: at_call(Path, "replace", number),
        "named, not committed": lambda number: at_call(Path, "replace", number, before=False),
        "committed": lambda number: at_call(Store, "commit_epoch", number, before=False),
        "ended, not told": lambda number: at_call(Store, "finish", 1, before=False),
    }


def trial_name(about: Any) -> str:
    return TrialSpec.model_validate_json(about["spec"]).content_hash


def _killed(asked: Job, stage: str, number: int) -> None:
    os.chdir(asked.runs)
    stages()[stage](number)
    work(asked, lambda event: None)


@posix
@pytest.mark.parametrize("stage", list(stages()))
def test_a_kill_in_or_around_a_checkpoint_loses_nothing(store: Store, expected: tuple[Any, ...], stage: str) -> None:
    store.close()
    for number in (1, 4, 6):
        process = FORK.Process(target=_killed, args=(job(store), stage, number))
        process.start()
        process.join()
        assert process.exitcode == (-signal.SIGKILL if store.counts("small")["finished"] < 2 else process.exitcode)
        store.close()
    InProcess().run(job(store), lambda event: None)
    assert results(store) == expected
    assert {path.suffix for path in store.checkpoints.iterdir()} == {".safetensors"}


def test_hundreds_of_kills_in_small_lose_nothing() -> None:
    options = ["--kills", "12", "--pause", "0.25", "--workers", "2", "--seeds", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.soak", *options],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert all(f'"{what}": {number}' in done.stdout for what, number in (("kills", 12), ("lost", 0), ("at once", 0)))


# --- stopped


def _until_stopped(asked: Job, told: Any) -> None:
    def emit(event: Event) -> None:
        told.send((event.kind, event.text))

    with suppress(Stopped), at_sigterm() as stop:
        work(asked, emit, stop=stop)


@posix
def test_sigterm_ends_a_step_writes_a_checkpoint_and_gives_the_trial_back(
    store: Store, expected: tuple[Any, ...]
) -> None:
    ours, theirs = FORK.Pipe()
    store.close()
    process = FORK.Process(target=_until_stopped, args=(job(store, steps=2), theirs))
    process.start()
    while ours.recv()[0] != "progress":
        pass
    os.kill(process.pid or 0, signal.SIGTERM)
    process.join()
    assert process.exitcode == 0
    events = []
    while ours.poll():
        events.append(ours.recv()[0])
    assert events[-1] == "stopped"
    counts = store.counts("small")
    assert (counts["running"], counts["failed"]) == (0, 0) and counts["waiting"] >= 1
    record = store.trial(store.trials_frame("small")["trial"][0])
    assert record.checkpoint is not None and record.owner is None
    InProcess().run(job(store), lambda event: None)
    assert results(store) == expected


@posix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_keeps_the_very_step_where_trials_run_in_the_caller(
    store: Store, expected: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    due, told = Timer.due, list[Event]()

    def interrupt(timer: Timer, step: int) -> bool:
        if step == 2:
            os.kill(os.getpid(), number)
        return due(timer, step)

    monkeypatch.setattr(Timer, "due", interrupt)
    with sigterm_as_interrupt() as stop, pytest.raises(KeyboardInterrupt):
        InProcess().run(job(store, steps=1000), told.append)
    monkeypatch.undo()
    assert stop.asked == (number == signal.SIGTERM)
    record = store.trial(told[0].trial)
    assert (record.state, record.owner, record.attempts) == ("waiting", None, 0)
    assert record.checkpoint == f"{record.trial}-0-3.safetensors"
    InProcess().run(job(store), lambda event: None)
    assert results(store) == expected


@posix
def test_a_second_ctrl_c_waits_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    with at_sigterm(or_ctrl_c=True) as stop, pytest.raises(KeyboardInterrupt), stop.defer():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)  # at once: who sent the first to a whole group
        assert (stop.asked, stop.number) == (True, signal.SIGINT)
        monkeypatch.setattr("leadline.running.stopping.INSIST_SECONDS", -1.0)
        os.kill(os.getpid(), signal.SIGINT)
        pytest.fail("waits")
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@posix
def test_sigterm_takes_precedence_over_ctrl_c() -> None:
    with at_sigterm(or_ctrl_c=True) as stop, pytest.raises(Stopped), stop.defer():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
    assert (stop.asked, stop.number) == (True, signal.SIGTERM)


@posix
@pytest.mark.parametrize("installs", [2, 3, 4, 5])  # the handler that is being set: three on entry, then three back
def test_a_signal_on_the_way_into_the_body_or_out_of_it_is_noted(
    monkeypatch: pytest.MonkeyPatch, installs: int
) -> None:
    real, done, numbers = signal.signal, list[int](), (signal.SIGTERM, signal.SIGINT, signal.SIGALRM)
    before = [signal.getsignal(number) for number in numbers]

    def install(number: int, handler: Any) -> Any:
        done.append(number)
        if len(done) == installs:
            os.kill(os.getpid(), done[0] if installs < 4 else number)
        return real(number, handler)

    monkeypatch.setattr("leadline.running.stopping.signal.signal", install)
    with at_sigterm(or_ctrl_c=True) as stop:
        assert stop.asked == (installs < 4)
    monkeypatch.undo()
    assert [signal.getsignal(number) for number in numbers] == before
    assert stop.asked


@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda number, frame: None])
def test_an_interrupt_that_is_handled_otherwise_stays_so(handler: Any) -> None:
    before = signal.signal(signal.SIGINT, handler)
    try:
        with at_sigterm(or_ctrl_c=True):
            assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_stop_between_steps_keeps_the_very_step(store: Store, expected: tuple[Any, ...]) -> None:
    stop = Stop()

    def emit(event: Event) -> None:
        if event.kind == "progress" and event.fraction == pytest.approx(0.3):
            stop.ask()  # as the signal's handler does

    with pytest.raises(Stopped):
        work(job(store, steps=3), emit, stop=stop)
    trial = store.trials_frame("small")["trial"][0]
    record = store.trial(trial)
    assert (record.state, record.checkpoint, record.attempts) == ("waiting", f"{trial}-0-3.safetensors", 0)
    with pytest.raises(Stopped):
        Stop().ask()  # anywhere else it ends at once
    InProcess().run(job(store), lambda event: None)
    assert results(store) == expected


@posix
def test_a_step_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leadline.running.stopping.GRACE_SECONDS", 0.05)
    ended = False
    with at_sigterm() as stop:
        with pytest.raises(Stopped), stop.defer():
            os.kill(os.getpid(), signal.SIGTERM)
            assert stop.asked
            time.sleep(30)
            ended = True
        os.kill(os.getpid(), signal.SIGTERM)  # ignored from then on
    assert not ended


@posix
@pytest.mark.parametrize(("number", "raised"), [(signal.SIGTERM, Stopped), (signal.SIGINT, KeyboardInterrupt)])
def test_a_stop_within_a_claim_gives_the_trial_back(
    store: Store, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, raised: type[BaseException]
) -> None:
    real, events = Store.claim, list[Event]()

    def claim(*arguments: Any) -> Any:
        claimed = real(*arguments)
        os.kill(os.getpid(), number)
        return claimed

    monkeypatch.setattr(Store, "claim", claim)
    with pytest.raises(raised), at_sigterm() as stop:
        work(job(store), events.append, stop=stop)
    counts = store.counts("small")
    assert (counts["waiting"], counts["running"]) == (2, 0)
    assert {store.trial(trial).attempts for trial in store.trials_frame("small")["trial"]} == {0}
    assert [event.kind for event in events] == ["stopped"]


@posix
@pytest.mark.parametrize(("number", "raised"), [(signal.SIGTERM, Stopped), (signal.SIGINT, KeyboardInterrupt)])
def test_a_claim_that_takes_too_long_is_given_up(
    store: Store, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, raised: type[BaseException]
) -> None:
    ended = False

    def claim(*_: Any) -> None:
        nonlocal ended
        for _ in range(1000):  # a database that is gone; whoever waits sends the signal again and again
            os.kill(os.getpid(), number)
            time.sleep(0.01)
        ended = True

    monkeypatch.setattr("leadline.running.stopping.GRACE_SECONDS", 0.1)
    monkeypatch.setattr("leadline.distributed.processes.INSIST_SECONDS", 0.1)
    monkeypatch.setattr(Store, "claim", claim)
    with pytest.raises(raised), at_sigterm() as stop:
        work(job(store), lambda event: None, stop=stop)
    assert not ended


@pytest.mark.parametrize("kind", ["started", "progress", "finished"])
def test_who_cannot_be_told_ends_the_worker_and_no_trial(store: Store, expected: tuple[Any, ...], kind: str) -> None:
    def emit(event: Event) -> None:
        if event.kind in (kind, "stopped"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match="No space left"):
        InProcess().run(job(store), emit)
    counts = store.counts("small")
    assert (counts["running"], counts["failed"], counts["finished"]) == (0, 0, int(kind == "finished"))
    InProcess().run(job(store), lambda event: None)
    assert results(store) == expected


@posix
def test_a_driver_that_is_told_to_stop_says_so_and_exits_143(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(
        "name: small\ndata: {name: digits, train: 100, validation: 40, test: 40}\n"
        "training: {epochs: 500, batch_size: 20, optimizer: {name: adam}}\n"
        "arms: {plain: {network: comparative-plain}}\nvary: {blocks: [1]}\nseeds: 1\ncontrasts: []\n"
    )
    runs = tmp_path / "runs"
    command = [sys.executable, "-m", "leadline", "run", str(tmp_path / "small.yaml"), "--runs", str(runs)]
    process = subprocess.Popen(
        [*command, "--workers", "1", "--checkpoint-every", "epoch"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 600
    while not list(runs.glob("checkpoints/*.safetensors")) and time.monotonic() < until:
        time.sleep(0.1)
    process.terminate()
    out, err = process.communicate(timeout=600)
    assert process.returncode == 143, err
    assert out.endswith("Run the same command to continue.\n") and "Traceback" not in err
    with Store.open_existing(runs) as store:
        assert store.counts("small")["waiting"] == 1


# --- before training


LAYERS, EPOCHS = 2, 3
PLACES = [(layer, epoch) for layer in range(1, LAYERS + 1) for epoch in range(1, EPOCHS + 1)]


def pretraining(**more: object) -> ExpandedStudy:
    """Two networks that are pre-trained: with persistent chains, and with decoders of their own."""
    network = {"family": "mlp", "hidden": LAYERS, "width": 12, "activation": "sigmoid"}
    methods = {
        "rbm": {"method": "rbm", "persistent": True, "momentum": 0.9},
        "coder": {"method": "denoising-autoencoder", "tied": False},
    }
    arms = {
        name: {"network": network, "pretraining": {**method, "epochs": EPOCHS, "batch_size": 30}}
        for name, method in methods.items()
    }
    data = {"name": "digits", "train": 100, "validation": 40, "test": 40, "normalise": "none"}
    return study(data=data, arms=arms, vary={}, **more)


@pytest.fixture
def deep(tmp_path: Path) -> Store:
    return registered(pretraining(), tmp_path / "runs")


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    """What an uninterrupted run of that study gives."""
    with registered(pretraining(), tmp_path_factory.mktemp("calm")) as calm:
        InProcess().run(job(calm, None), lambda event: None)
        assert {len(epochs) for epochs in calm.measurements("small", "pretraining").values()} == {1}
        return results(calm)


def seconds_agree(store: Store) -> bool:
    """Whether the time of each trial is that of its records: none lost, none doubled."""
    frame = store.records_frame("small")
    times = frame[(frame["split"] == "time") & (frame["name"] == "seconds")].groupby("trial")["value"].sum()
    trials = store.trials_frame("small").set_index("trial")["seconds"]
    return trials.to_dict() == pytest.approx(times.to_dict())


def stopped_in(store: Store, words: str, number: int, asked: Job) -> None:
    """Run until asked to stop when told so for the n-th time."""
    stop, told = Stop(), 0

    def emit(event: Event) -> None:
        nonlocal told
        told += event.text.startswith(words)
        if told == number:
            stop.ask()

    with pytest.raises(Stopped):
        work(asked, emit, stop=stop)
    assert told == number


@pytest.mark.parametrize("every", [None, 1])
def test_a_stop_in_pretraining_keeps_the_very_epoch(
    deep: Store, pretrained: tuple[Any, ...], every: int | None
) -> None:
    """Each start is stopped at the first thing that it tells, and the next goes on after it."""
    for trial in deep.trials_frame("small")["trial"]:
        for layer, epoch in PLACES:
            stopped_in(deep, "pre-training", 1, job(deep, every))
            record = deep.trial(trial)
            assert (record.state, record.attempts) == ("waiting", 0)
            assert record.checkpoint == f"{trial}-pretraining-{layer}-{epoch}.safetensors"
        stopped_in(deep, "loss", 1, job(deep, 1))
        assert deep.trial(trial).checkpoint == f"{trial}-0-1.safetensors"
        stopped_in(deep, "epoch 2", 1, job(deep, None))
        work(job(deep, None), lambda event: None, most=1)
    assert results(deep) == pretrained
    assert seconds_agree(deep)


def test_checkpoints_of_pretraining_are_due_as_those_of_training_and_at_the_end_of_a_layer(
    deep: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, trial = list[str](), deep.trials_frame("small")["trial"][0]
    real = checkpoints.save_checkpoint
    monkeypatch.setattr("leadline.running.checkpoints.save_checkpoint", lambda *a: (kept.append(a[2].stem), real(*a)))
    work(job(deep, 8), lambda event: None, most=1)  # an epoch has four steps
    places = [f"pretraining-{layer}-{epoch}" for layer, epoch in ((1, 2), (1, 3), (2, 2), (2, 3))]
    assert kept[:5] == [f"{trial}-{place}" for place in (*places, "0")]


@posix
@pytest.mark.parametrize(("stage", "number"), [("named, not committed", 2), ("committed", 1)])
def test_a_kill_at_every_checkpoint_of_pretraining_loses_nothing(
    deep: Store, pretrained: tuple[Any, ...], stage: str, number: int
) -> None:
    """Each start comes one checkpoint further, and dies."""
    deep.close()
    found = set[str | None]()
    first = pretrained[0][0][0]
    for _ in range(LAYERS * EPOCHS + 2):
        process = FORK.Process(target=_killed, args=(job(deep), stage, number))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        found.add(deep.trial(first).checkpoint)
        deep.close()
    assert {f"{first}-pretraining-{layer}-{epoch}.safetensors" for layer, epoch in PLACES} <= found
    assert f"{first}-0.safetensors" in found
    InProcess().run(job(deep), lambda event: None)
    assert results(deep) == pretrained
    assert seconds_agree(deep)
    assert len(list(deep.checkpoints.iterdir())) == 2


@pytest.mark.parametrize("damaged", [1, 2])
@pytest.mark.parametrize(("words", "number"), [("pre-training", 5), ("loss", 1)])
def test_a_damaged_checkpoint_of_pretraining_falls_back(
    deep: Store, pretrained: tuple[Any, ...], words: str, number: int, damaged: int
) -> None:
    if words == "loss":  # damage what training began with, and what pre-training ended with

        def broken(event: Event) -> None:
            if event.text.startswith("loss"):
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            InProcess().run(job(deep), broken)
    else:
        stopped_in(deep, words, number, job(deep))
    trial = pretrained[0][0][0]
    record = deep.trial(trial)
    names = [str(record.checkpoint), str(record.earlier_checkpoint)]
    assert [name.removeprefix(f"{trial}-") for name in names] == (
        ["0.safetensors", "pretraining-2-3.safetensors"]
        if words == "loss"
        else ["pretraining-2-2.safetensors", "pretraining-2-1.safetensors"]
    )
    for name in names[:damaged]:
        content = bytearray((deep.checkpoints / name).read_bytes())
        content[-5] ^= 4
        (deep.checkpoints / name).write_bytes(content)
    events: list[Event] = []
    InProcess().run(job(deep), events.append)
    texts = [event.text for event in events if event.kind == "restarted"]
    ends = ["training continues from the previous checkpoint", "training restarts from the beginning"][:damaged]
    assert [text.rpartition("; ")[2] for text in texts] == ends
    assert results(deep) == pretrained
    assert deep.trial(trial).note == "\n".join(texts)


def test_a_checkpoint_of_one_kind_is_never_taken_for_the_other(tmp_path: Path) -> None:
    spec = next(trial for _, trial in pretraining().trials())
    assert spec.pretraining is not None
    data, path = load(spec.data), tmp_path / "a.safetensors"

    def fresh(asked: PretrainingSpec | None) -> TrainState:
        state = prepare(build(spec.network, data.shape, data.classes, 0), spec.training, CPU)
        state.pretraining = None if asked is None else PretrainingState(asked)
        return state

    before, after = fresh(spec.pretraining), fresh(None)
    assert before.pretraining is not None
    next(pretrain_network(before.pretraining, before.model, data, 0))
    names = {checkpoints.checkpoint_name("t", state) for state in (before, after)}
    assert names == {"t-pretraining-1-1.safetensors", "t-0.safetensors"}
    save_checkpoint(before, spec, path)
    with pytest.raises(DamagedCheckpoint, match="it is of a pre-training, which is not asked for"):
        load_checkpoint(fresh(None), path)
    save_checkpoint(after, spec, path)
    done = fresh(spec.pretraining)
    load_checkpoint(done, path)
    assert done.pretraining is None


def test_several_devices_go_on_with_pretraining(tmp_path: Path, deep: Store) -> None:
    """One device's bits until training begins, whose additions are in another order."""

    def interrupt(event: Event) -> None:
        if event.text.startswith("pre-training layer 2"):
            raise KeyboardInterrupt

    InProcess().run(job(deep, None), lambda event: None)
    with registered(pretraining(probes=[]), tmp_path / "two") as two:
        with pytest.raises(KeyboardInterrupt):
            work(job(two), interrupt, most=1)
        (trial, *_), states = two.trials_frame("small")["trial"], two.counts("small")
        assert states["waiting"] == 2 and "-pretraining-1-3." in str(two.trial(trial).checkpoint)
        work(replace(job(two), devices=2), lambda event: None, most=1)
        assert two.trial(trial).state == "finished"
        columns = ["epoch", "step", "split", "name", "value"]
        frames = [one.records_frame("small").query("arm == 'rbm'")[columns] for one in (deep, two)]
        rows = [
            {row[:-1]: row[-1] for row in frame[frame["split"] != "time"].itertuples(index=False, name=None)}
            for frame in frames
        ]
        before = [{key: value for key, value in some.items() if key[0] == 0 and key[3] != "seconds"} for some in rows]
        assert before[0] == before[1] and len(before[0]) == 2 * LAYERS * EPOCHS
        after = [{key: value for key, value in some.items() if key[0] > 0} for some in rows]
        assert after[0] == pytest.approx(after[1], rel=1e-5, abs=1e-5)
        assert rows[0].keys() == rows[1].keys()
        (pictures,) = two.measurements("small", "pretraining").values()
        assert pictures in deep.measurements("small", "pretraining").values()


# --- starved and damaged


@pytest.mark.parametrize("damaged", [1, 2])
def test_a_damaged_checkpoint_falls_back_and_says_so(store: Store, expected: tuple[Any, ...], damaged: int) -> None:
    def interrupt(event: Event) -> None:
        if event.fraction == pytest.approx(0.8):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        InProcess().run(job(store), interrupt)
    trial = store.trials_frame("small")["trial"][0]
    record = store.trial(trial)
    names = [record.checkpoint, record.earlier_checkpoint]
    assert sorted(path.name for path in store.checkpoints.iterdir()) == sorted(map(str, names))
    for name in names[:damaged]:
        path = store.checkpoints / str(name)
        content = bytearray(path.read_bytes())
        content[-5] ^= 4
        path.write_bytes(content)
    events: list[Event] = []
    InProcess().run(job(store), events.append)
    texts = [event.text for event in events if event.kind == "restarted"]
    ends = ["training continues from the previous checkpoint", "training restarts from the beginning"][:damaged]
    assert [text.rpartition("; ")[2] for text in texts] == ends
    assert all("its checksum does not match" in text for text in texts)
    assert store.trial(trial).note == "\n".join(texts)
    assert results(store) == expected


@pytest.mark.parametrize("full", ["fsync", "replace"])
@pytest.mark.parametrize("number", [1, 2, 6])
def test_a_full_disk_stops_the_study_with_a_line_and_loses_nothing(
    store: Store, expected: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch, number: int, full: str
) -> None:
    calls = 0
    real = {"fsync": os.fsync, "replace": Path.replace}[full]

    def no_space(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls >= (2 * number - 1 if full == "fsync" else number):  # the folder is synchronised as well
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*arguments)

    with monkeypatch.context() as broken:
        broken.setattr(*((checkpoints.os, "fsync") if full == "fsync" else (Path, "replace")), no_space)
        with pytest.raises(StoreError, match=r"checkpoint .*: cannot be written: No space left on device") as caught:
            InProcess().run(job(store), lambda event: None)
    assert "\n" not in str(caught.value)
    counts = store.counts("small")
    assert (counts["waiting"], counts["running"], counts["failed"]) == (2, 0, 0)
    assert {path.suffix for path in store.checkpoints.iterdir()} <= {".safetensors"}
    InProcess().run(job(store), lambda event: None)
    assert results(store) == expected


def host_memory() -> None:
    torch.empty(2**58)


def python_memory() -> None:
    raise MemoryError


def device_memory() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee documentation")


@pytest.mark.parametrize("exhaust", [host_memory, python_memory, device_memory])
def test_a_trial_for_which_there_is_no_memory_fails_with_a_line_and_the_others_go_on(
    store: Store, expected: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch, exhaust: Callable[[], None]
) -> None:
    def too_large(spec: NetworkSpec, *arguments: Any) -> torch.nn.Module:
        if spec.block.shortcut.kind == "none":
            exhaust()
        return build(spec, *arguments)

    with monkeypatch.context() as starved:
        starved.setattr(trial_module, "build", too_large)
        InProcess().run(job(store), lambda event: None)
    frame = store.trials_frame("small")
    assert list(frame["state"]) == ["failed", "finished"]
    assert frame["error"][0].startswith("out of memory; use a smaller training.batch_size or fewer workers (")
    assert "\n" not in frame["error"][0]
    store.requeue_failed("small")
    InProcess().run(job(store), lambda event: None)
    assert results(store) == expected


def test_no_memory_for_a_checkpoint_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.safetensors"
    _, _, fresh = trained(path)
    monkeypatch.setattr(checkpoints, "_checksum", lambda *_: host_memory())
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        load_checkpoint(fresh(), path)


def test_a_database_that_is_gone_for_a_while_costs_nothing(
    store: Store, expected: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One connection in three fails while the trials run, at every operation some time or other."""
    from leadline.store import connect, ledger

    real, calls, failed = ledger.transaction, 0, 0

    def failing(engine: Any, *, write: bool = False) -> Any:
        nonlocal calls, failed
        calls += 1
        if calls > 3 and calls % 3 == 0:
            failed += 1
            raise connect.Unreachable("the database is restarting")
        return real(engine, write=write)

    with monkeypatch.context() as shaky:
        shaky.setattr(ledger, "transaction", failing)
        shaky.setattr(connect.time, "sleep", lambda seconds: None)
        InProcess().run(job(store), lambda event: None)
    assert failed > 5
    assert results(store) == expected


# --- two drivers


@pytest.fixture
def soak(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """What the soak sees two workers of one trial by."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1])
    return importlib.import_module("benchmarks.soak")


@pytest.fixture
def notes(tmp_path: Path) -> Path:
    (tmp_path / "notes").mkdir()
    return tmp_path / "notes"


def _drive(asked: Job, emit: Emit) -> None:
    with Store.open(asked.runs) as store:
        run_until_ended(InProcess(), asked, store, emit)
        assert store.counts("small")["finished"] == 6


@posix
def test_two_drivers_on_one_study_both_finish_and_double_nothing(tmp_path: Path, soak: ModuleType, notes: Path) -> None:
    asked = study(seeds=3)
    with registered(asked, tmp_path / "both") as both, registered(asked, tmp_path / "calm") as calm:
        both.close()
        drivers = [FORK.Process(target=_drive, args=(job(both, 3), soak.noting(notes))) for _ in range(2)]
        for driver in drivers:
            driver.start()
        for driver in drivers:
            driver.join()
        assert [driver.exitcode for driver in drivers] == [0, 0]
        InProcess().run(job(calm), lambda event: None)
        assert results(both) == results(calm)
        runs = {trial: len(some) for trial, some in soak.noted(notes, {}).items()}
        assert runs == dict.fromkeys(both.trials_frame("small")["trial"], 1)


def _waiting_at_the_third_step(asked: Job, note: Emit, told: Any) -> None:
    def emit(event: Event) -> None:
        note(event)
        if event.fraction == pytest.approx(0.3):
            told.send((event.trial, event.owner))
            told.recv()

    work(asked, emit, most=1)


def test_a_worker_whose_machine_slept_while_it_wrote_leaves_the_trial_to_its_new_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Event] = []
    with registered(study(), tmp_path / "runs") as store:
        write, asleep = os.fsync, [False]

        def sleep(file: int) -> None:
            write(file)
            running = [store.trial(trial) for trial in store.trials_frame("small")["trial"]]
            mine = next((one for one in running if one.state == "running" and one.checkpoint), None)
            if mine is not None and mine.owner is not None and not asleep[0]:
                asleep[0] = True
                store.heartbeat(mine.trial, mine.owner, -1.0)
                assert store.claim("small", "elsewhere:7:1", 3600.0)
                for partial in store.checkpoints.glob("*.partial"):
                    partial.unlink()

        monkeypatch.setattr(os, "fsync", sleep)
        InProcess().run(job(store), told.append)
        assert [event.text.partition(": ")[2] for event in told if event.kind == "stopped"] == [
            "another worker has taken it over"
        ]
        assert store.counts("small") == {"waiting": 0, "running": 1, "finished": 1, "diverged": 0, "failed": 0}


@posix
@pytest.mark.parametrize(("killed", "expected_at_once"), [("before", 0), ("while the other ran", 1), ("never", 1)])
def test_a_trial_that_two_run_at_once_is_seen(
    store: Store,
    expected: tuple[Any, ...],
    soak: ModuleType,
    notes: Path,
    killed: str,
    expected_at_once: int,
) -> None:
    """A live worker's lease is ended by hand; but for the notes nothing tells, for both enter the same bits."""
    ours, theirs = FORK.Pipe()
    store.close()
    process = FORK.Process(target=_waiting_at_the_third_step, args=(job(store), soak.noting(notes), theirs))
    process.start()
    trial, owner = ours.recv()
    deaths = {}

    def kill() -> None:
        deaths[owner] = time.monotonic()
        process.kill()
        process.join()

    if killed == "before":
        kill()
    else:
        assert store.heartbeat(trial, owner, -1.0)
    InProcess().run(job(store), soak.noting(notes))
    if killed == "while the other ran":
        kill()
    elif killed == "never":
        ours.send("go on")
        process.join()
        assert process.exitcode == 0
    runs = soak.noted(notes, deaths)
    assert [(len(runs[name]), soak.at_once(runs[name])) for name, _ in expected[0]] == [(2, expected_at_once), (1, 0)]
    assert results(store) == expected


@posix
def test_a_driver_takes_up_what_another_loses(store: Store, expected: tuple[Any, ...]) -> None:
    sleeper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    claim = store.claim("small", str(WorkerId.of(sleeper.pid)), 3600.0)
    assert claim is not None

    def emit(event: Event) -> None:
        if event.kind == "finished" and sleeper.poll() is None:
            sleeper.kill()
            sleeper.communicate()

    run_until_ended(InProcess(), replace(job(store)), store, emit)
    assert results(store) == expected
