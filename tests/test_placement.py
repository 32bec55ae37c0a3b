"""Which trial trains on which card, and how many at once; PyTorch is asked on machines that seem to have cards."""

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import leadline as ll
from leadline.distributed.launch import assign_devices
from leadline.errors import SpecError
from leadline.pretraining.state import PretrainingState
from leadline.running import executors, worker
from leadline.running.clusters.places import hold_place
from leadline.running.driving import Outcome
from leadline.running.executors import LocalProcesses
from leadline.running.job import Event, Job
from leadline.specs import TrainingSpec, parse
from leadline.specs.study import StudySpec
from leadline.store import Store
from leadline.study import pipeline
from leadline.study.expand import expand
from leadline.study.planning import capacity, speeds
from leadline.study.planning import plan as planning
from leadline.study.planning.capacity import (
    Capacity,
    ask_free_memory,
    card_capacity,
    describe_capacity,
    describe_sharing,
    free_memory,
)
from leadline.study.planning.speeds import Speed
from leadline.study.planning.words import to_text
from leadline.training import choose_device, device_line, prepare
from leadline.training.layerwise import pretrain_network
from leadline.training.numerics import WORKSPACE

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda", "mps"))
GIB = 2**30
STUDY: dict[str, Any] = {
    "name": "placed",
    "data": {"name": "digits", "train": 120, "validation": 50, "test": 50},
    "training": {"epochs": 1, "batch_size": 60},
    "arms": {"one": {"network": {"family": "mlp", "hidden": 1}}, "two": {"network": {"family": "mlp", "hidden": 2}}},
    "seeds": 3,
}


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A machine that seems to have four cards."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Card")
    monkeypatch.setenv(WORKSPACE, ":4096:8")
    yield monkeypatch


def numbers(device: torch.device, count: int, places: int) -> list[list[int | None]]:
    return [[card.index for card in assign_devices(device, count, place)] for place in range(places)]


def test_workers_take_the_cards_in_turn(cards: pytest.MonkeyPatch) -> None:
    assert numbers(CUDA, 1, 6) == [[0], [1], [2], [3], [0], [1]]
    assert numbers(CUDA, 2, 3) == [[0, 1], [2, 3], [0, 1]]
    assert numbers(CUDA, 3, 3) == [[0, 1, 2], [3, 0, 1], [2, 3, 0]]
    assert numbers(torch.device("cuda:2"), 1, 3) == [[2]] * 3  # named by the user
    assert numbers(CPU, 2, 2) == [[None, None]] * 2


def test_sharing_is_said(cards: pytest.MonkeyPatch) -> None:
    said = "Trials that run at once share cards: "
    assert describe_sharing(CUDA, 4, 1) == describe_sharing(CUDA, 2, 2) == describe_sharing(CPU, 8, 1) == ""
    assert describe_sharing(CUDA, 5, 1) == f"{said}2 on cuda:0, 1 on cuda:1, 1 on cuda:2 and 1 on cuda:3."
    assert describe_sharing(CUDA, 3, 3).endswith("3 on cuda:0, 2 on cuda:1, 2 on cuda:2 and 2 on cuda:3.")
    assert describe_sharing(torch.device("cuda:1"), 2, 1) == f"{said}2 on cuda:1."


class Ended:
    """A process that has ended."""

    def __init__(self, exitcode: int) -> None:
        self.exitcode = exitcode

    def join(self, timeout: float = 0) -> None:
        pass

    terminate = kill = join


def test_every_worker_has_a_place_which_one_that_takes_over_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[int] = []

    @contextmanager
    def start(target: object, job: Job) -> Iterator[tuple[Any, Any]]:
        started.append(job.place)
        dies = started == [0, 1]  # the second worker, at the first time
        ours, theirs = multiprocessing.Pipe(duplex=False)
        theirs.send(Event("started" if dies else "finished", "t", "arm", 0, "owner"))
        theirs.close()
        yield Ended(-9 if dies else 0), ours

    monkeypatch.setattr(executors, "start_process", start)
    events: list[Event] = []
    LocalProcesses(3).run(Job("placed", Path("nowhere")), events.append)
    assert started == [0, 1, 2, 1]
    assert [event.kind for event in events].count("died") == 1


@pytest.mark.parametrize(
    "job, expected",
    [
        ({"place": 2}, ["cuda:2"]),
        ({"place": 5, "devices": 2}, ["cuda:2", "cuda:3"]),
        ({"place": 5, "device": "cuda:3"}, ["cuda:3"]),
        ({"device": "auto"}, ["cuda:0"]),
        ({"device": "cpu", "place": 1}, ["cpu"]),
    ],
)
def test_a_worker_trains_on_the_cards_of_its_place(
    tmp_path: Path, cards: pytest.MonkeyPatch, job: dict[str, Any], expected: list[str]
) -> None:
    with Store.open(tmp_path) as store:
        store.register(expand(StudySpec.model_validate(STUDY)))
    seen: list[list[str]] = []

    def run_trial(self: worker.Worker) -> bool:
        seen.append([str(device) for device in self.devices])
        return False

    cards.setattr(worker.Worker, "run_trial", run_trial)
    worker.work(replace(Job("placed", tmp_path, device="cuda"), **job), lambda event: None)
    assert seen == [expected]


def test_standalone_workers_of_a_machine_have_places_of_their_own(tmp_path: Path) -> None:
    with hold_place(tmp_path) as first, hold_place(tmp_path) as second:
        assert (first, second) == (0, 1)
    with hold_place(tmp_path) as again:
        assert again == 0
    (tmp_path / "file").write_text("")
    with hold_place(tmp_path / "file") as nowhere, hold_place(tmp_path / "file") as other:
        assert nowhere == other == 0


# --- how many at once


@pytest.mark.parametrize(
    "free, processes, cores, workers",
    [
        ([10 * GIB], 1, 16, 3),
        ([10 * GIB] * 2, 1, 16, 6),
        ([10 * GIB, 4 * GIB], 1, 16, 2),  # as many on each as on the fullest
        ([10 * GIB] * 2, 1, 5, 5),
        ([10 * GIB] * 4, 2, 16, 6),
        ([10 * GIB] * 4, 2, 4, 2),
        ([GIB], 1, 16, 1),
    ],
)
def test_as_many_trials_as_there_are_memory_and_cores_for(
    free: list[int], processes: int, cores: int, workers: int
) -> None:
    assert Capacity(3 * GIB, free, processes, cores).workers == workers


def test_the_line_says_how_many_and_why() -> None:
    assert describe_capacity(Capacity(3 * GIB, [10 * GIB] * 2, 1, 16)) == (
        "6 trials at once: each of 2 GPUs has 10.0 GiB free, for 3 trials of 3.0 GiB, and the machine has 16 cores."
    )
    assert describe_capacity(Capacity(3 * GIB, [GIB], 1, 1)) == (
        "1 trial at once: the GPU has 1.0 GiB free, for 0 trials of 3.0 GiB, and the machine has 1 core."
    )


def test_a_card_holds_the_largest_trial_and_what_every_process_takes(cards: pytest.MonkeyPatch) -> None:
    study = expand(StudySpec.model_validate(STUDY))
    room = card_capacity(study, None, CUDA, 1, 8, [10 * GIB])
    assert capacity.CONTEXT < room.memory < capacity.CONTEXT + 2**24
    wide = {**STUDY, "arms": {**STUDY["arms"], "wide": {"network": {"family": "mlp", "hidden": 2, "width": 4096}}}}
    more = card_capacity(expand(StudySpec.model_validate(wide)), None, CUDA, 1, 8, [10 * GIB])
    assert more.memory - room.memory > 4096**2 * 12  # weights, gradients, momentum


def test_free_memory_is_that_of_the_cards_that_trials_take(cards: pytest.MonkeyPatch) -> None:
    cards.setattr(torch.cuda, "mem_get_info", lambda card: (card * GIB, 80 * GIB))
    assert free_memory(CUDA) == [0, GIB, 2 * GIB, 3 * GIB]
    assert free_memory(torch.device("cuda:2")) == [2 * GIB]
    [free] = free_memory(CPU)
    assert free > 0


@pytest.mark.slow
def test_another_process_is_asked_for_free_memory() -> None:
    [free] = ask_free_memory(CPU)
    assert free > 0


class Said:
    """A screen that keeps its lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


@pytest.mark.parametrize(
    "device, asked, free, workers, lines",
    [
        ("auto", 2, 0, 2, ["Device: cuda (auto, 4 cards)."]),
        (
            "cuda",
            None,
            10,
            6,
            ["6 trials at once: each of 4 GPUs has 10.0 GiB free", "--trials-per-worker 4", "share cards: 2 on cuda:0"],
        ),
        (
            "cuda:1",
            None,
            3,
            2,
            ["2 trials at once: the GPU has 3.0 GiB free", "--trials-per-worker 4", "share cards: 2 on cuda:1."],
        ),
        ("cpu", None, 0, 6, []),
        ("cuda", 50, 0, 50, ["share cards: 2 on cuda:0, 2 on cuda:1, 1 on cuda:2 and 1 on cuda:3."]),  # of 6 trials
    ],
)
def test_a_run_places_its_trials_and_says_so(
    tmp_path: Path,
    cards: pytest.MonkeyPatch,
    device: str,
    asked: int | None,
    free: int,
    workers: int,
    lines: list[str],
) -> None:
    ran: list[tuple[Job, Any]] = []

    def run_trials(store: Store, job: Job, runner: Any, screen: Any) -> Outcome:
        ran.append((job, runner))
        return Outcome("placed", {}, (), False, 0.0)

    cards.setattr(pipeline, "run_trials", run_trials)
    cards.setattr(pipeline, "count_cores", lambda: 6)
    cards.setattr(pipeline, "ask_free_memory", lambda place: [free * GIB] * (4 if place.index is None else 1))
    screen: Any = Said()
    study = expand(StudySpec.model_validate(STUDY))
    pipeline.run_study(study, tmp_path, None, None, asked, device, screen)
    [(job, runner)] = ran
    assert (job.device, runner) == ("cuda" if device == "auto" else device, workers)
    assert len(screen.lines) == len(lines)
    assert all(part in line for part, line in zip(lines, screen.lines, strict=True))


def test_a_run_on_more_cards_than_there_are_is_refused_at_once(tmp_path: Path, cards: pytest.MonkeyPatch) -> None:
    study = expand(StudySpec.model_validate(STUDY))
    with pytest.raises(SpecError, match="devices: 5, but PyTorch sees 4 CUDA devices"):
        pipeline.run_study(study, tmp_path, None, None, 1, "cuda", devices=5)


def test_a_precision_that_the_device_does_not_have_is_refused_before_anything_runs(tmp_path: Path) -> None:
    study = expand(StudySpec.model_validate({**STUDY, "training": {"precision": "tf32"}}))
    with pytest.raises(SpecError, match=r"training\.precision: tf32 needs a CUDA device"):
        pipeline.run_study(study, tmp_path / "runs", None, None, 0, "cpu")
    assert not (tmp_path / "runs").exists()


def test_a_plan_tells_of_all_cards(tmp_path: Path, cards: pytest.MonkeyPatch) -> None:
    cards.setattr(planning, "free_memory", lambda device: [10 * GIB] * 4)
    cards.setattr(planning, "count_cores", lambda: 64)
    cards.setattr(speeds.Speeds, "calibrated", lambda self, say: Speed({"steps": 1e-3}, "2026-11-29"))
    found = ll.Study("placed", **{key: value for key, value in STUDY.items() if key != "name"}).plan(
        tmp_path, device="cuda"
    )
    assert found.plan.workers == found.plan.fits == 4 * 9 and found.plan.cards == 4
    assert "Memory: 10.0 GiB of each of 4 GPUs free, enough for 36 workers at once." in to_text(found.plan)


# --- Apple's GPUs


def test_a_gpu_is_chosen_before_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto") == CPU and device_line(CPU) == "Device: cpu (auto)."
    with pytest.raises(SpecError, match="device 'mps': PyTorch sees no such Apple GPU"):
        choose_device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto") == choose_device("mps") == MPS
    with pytest.raises(SpecError, match="device 'mps:1'"):
        choose_device("mps:1")


def test_what_apples_gpus_cannot_do_is_refused() -> None:
    assert assign_devices(MPS, 1) == [MPS] and capacity.default_workers(MPS, 1, 8) == 1
    with pytest.raises(SpecError, match="'mps' is one GPU, but 2 devices were requested; use --device cpu"):
        assign_devices(MPS, 2)
    for precision in ("tf32", "bfloat16", "float16"):
        with pytest.raises(SpecError, match=rf"training\.precision: {precision} .*mps"):
            prepare(torch.nn.Linear(1, 1), TrainingSpec(precision=precision), MPS)
    spec = parse(
        StudySpec,
        {**STUDY, "arms": {"deep": {"network": {"family": "mlp", "activation": "sigmoid"}, "pretraining": {}}}},
    )
    trial = expand(spec).arms[0].trial
    assert trial.pretraining is not None
    data: Any = SimpleNamespace(device=MPS)
    with pytest.raises(SpecError, match="pretraining: needs sums in float64, which mps does not have"):
        next(pretrain_network(PretrainingState(trial.pretraining), torch.nn.Linear(1, 1), data, 0))
