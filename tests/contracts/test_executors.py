"""What every executor must do: in this process, in local processes, on a Ray cluster of several nodes."""

import importlib.util
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from leadline.errors import SpecError, StoreError
from leadline.running.executors import Executor, InProcess, LocalProcesses
from leadline.running.job import Event, Job
from leadline.specs.study import StudySpec
from leadline.store import Store, WorkerId
from leadline.study.expand import ExpandedStudy, expand

pytestmark = pytest.mark.slow

NAME = "contract"


def study(seeds: int = 2, epochs: int = 2, train: int = 120, **more: object) -> ExpandedStudy:
    return expand(
        StudySpec.model_validate(
            {
                "name": NAME,
                "data": {"name": "digits", "train": train, "validation": 50, "test": 50},
                "training": {"epochs": epochs, "batch_size": 40, "optimizer": {"name": "adam"}},
                "arms": {"plain": {"network": "comparative-plain"}, "residual": {"network": "comparative-resnet"}},
                "vary": {"blocks": [2]},
                "seeds": seeds,
                **more,
            }
        )
    )


@dataclass
class Ledger:
    """A store with a study in it, and what was told while it ran."""

    job: Job
    told: list[Event]

    @classmethod
    def of(cls, runs: Path, asked: ExpandedStudy) -> "Ledger":
        with Store.open(runs) as store:
            store.register(asked)
        return cls(Job(NAME, runs), [])

    def run(self, executor: Executor) -> None:
        executor.run(self.job, self.told.append)

    def counts(self) -> dict[str, int]:
        with Store.open(self.job.runs) as store:
            return {state: number for state, number in store.counts(NAME).items() if number}

    def results(self) -> tuple[Any, ...]:
        """Everything that must be equal to the bit: records but for times, predictions, states."""
        with Store.open(self.job.runs) as store:
            frame = store.records_frame(NAME)
            frame = frame[frame["split"] != "time"]
            predictions = {
                trial: (one.predicted.tobytes(), one.labels.tobytes()) for trial, one in store.outputs(NAME).items()
            }
            states = dict(zip(*(store.trials_frame(NAME)[column] for column in ("trial", "state")), strict=True))
        columns = ["trial", "step", "epoch", "split", "name", "value"]
        return list(frame[columns].itertuples(index=False, name=None)), predictions, states


class Cluster:
    """A Ray cluster of three nodes on this machine's loopback: a head that runs nothing, and two that run trials."""

    def __init__(self) -> None:
        from leadline.running.clusters.ray import ON_LOOPBACK, QUIET, import_ray

        self.ray = import_ray(QUIET | ON_LOOPBACK)
        from ray.cluster_utils import Cluster as Nodes

        small: dict[str, Any] = {"object_store_memory": 80 * 2**20}
        self.nodes = Nodes(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **small})
        self.add = partial(self.nodes.add_node, num_cpus=1, **small)
        self.workers = [self.add(), self.add()]
        self.ray.init(self.nodes.address, log_to_driver=False, logging_level="ERROR", namespace="leadline")

    def close(self) -> None:
        self.ray.shutdown()
        self.nodes.shutdown()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    if importlib.util.find_spec("ray") is None:  # not imported here: its settings come first
        pytest.skip("Ray is not installed; pip install '.[ray]'")
    cluster = Cluster()
    yield cluster
    cluster.close()


def on_ray(request: pytest.FixtureRequest) -> Executor:
    request.getfixturevalue("cluster")
    from leadline.running.clusters.ray import RayTasks

    return RayTasks()


KINDS: dict[str, Callable[[pytest.FixtureRequest], Executor]] = {
    "in process": lambda _: InProcess(),
    "local processes": lambda _: LocalProcesses(2),
    "ray": on_ray,
}


@pytest.fixture(params=KINDS)
def executor(request: pytest.FixtureRequest) -> Executor:
    return KINDS[request.param](request)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    """What the study gives when one process runs it undisturbed."""
    ledger = Ledger.of(tmp_path_factory.mktemp("alone"), study())
    ledger.run(InProcess())
    return ledger.results()


def test_a_study_runs_to_its_end_with_the_same_bits(executor: Executor, tmp_path: Path, alone: tuple[Any, ...]) -> None:
    ledger = Ledger.of(tmp_path, study())
    ledger.run(executor)
    assert ledger.counts() == {"finished": 4}
    assert ledger.results() == alone
    kinds = Counter(event.kind for event in ledger.told)
    assert (kinds["started"], kinds["finished"]) == (4, 4)
    for event in ledger.told:
        assert event.arm and event.trial and WorkerId.parse(event.owner)
    ledger.told.clear()
    ledger.run(executor)  # nothing is left, so nothing happens
    assert ledger.told == []


def test_a_trial_that_fails_or_diverges_takes_no_other_with_it(executor: Executor, tmp_path: Path) -> None:
    asked = study(
        seeds=1,
        arms={
            "wild": {"network": "comparative-plain", "training": {"optimizer": {"name": "sgd", "learning_rate": 1e30}}},
            "broken": {"network": {"module": "nowhere_to_be_found:network"}},
            "good": {"network": "comparative-plain"},
        },
        vary={},
        contrasts=[],
    )
    ledger = Ledger.of(tmp_path, asked)
    ledger.run(executor)
    assert ledger.counts() == {"finished": 1, "diverged": 1, "failed": 1}
    [failed] = [event for event in ledger.told if event.kind == "failed"]
    assert failed.arm == "broken"
    assert "nowhere_to_be_found" in failed.text


def test_a_live_workers_trial_is_left_to_it(executor: Executor, tmp_path: Path) -> None:
    ledger = Ledger.of(tmp_path, study())
    with Store.open(tmp_path) as store:
        theirs = store.claim(NAME, "elsewhere:7:1", 3600.0)
    assert theirs is not None
    ledger.run(executor)
    assert ledger.counts() == {"finished": 3, "running": 1}
    assert theirs.trial not in {event.trial for event in ledger.told}


def test_an_unknown_study_is_one_line(executor: Executor, tmp_path: Path) -> None:
    ledger = Ledger.of(tmp_path, study())
    with pytest.raises(StoreError, match=r"unknown study 'contrast'; did you mean 'contract'\?$"):
        executor.run(Job("contrast", tmp_path), ledger.told.append)


# --- Ray alone


def test_a_node_that_is_killed_loses_nothing(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from leadline.running.clusters.ray import RayTasks

    monkeypatch.setattr("leadline.running.clusters.ray.AT_ONCE", 2)  # of four
    asked = study(seeds=2, epochs=24, train=600)
    undisturbed = Ledger.of(tmp_path / "undisturbed", asked)
    undisturbed.run(InProcess())
    ledger = Ledger.of(tmp_path / "killed", asked)
    killed: list[str] = []

    def kill(event: Event) -> None:
        ledger.told.append(event)
        trained = {one.owner for one in ledger.told if one.kind == "progress"}
        if not killed and len(trained) == 2:  # both nodes are in the middle of a trial
            killed.append(event.trial)
            cluster.nodes.remove_node(cluster.workers.pop(), allow_graceful=False)

    RayTasks().run(ledger.job, kill)
    cluster.workers.append(cluster.add())
    assert killed
    starts = Counter(event.trial for event in ledger.told if event.kind == "started")
    again = {trial for trial, number in starts.items() if number > 1}
    assert again == {event.trial for event in ledger.told if event.kind in ("died", "stopped")} != set()
    finished = Counter(event.trial for event in ledger.told if event.kind == "finished")
    assert set(finished.values()) == {1}
    assert ledger.counts() == {"finished": 4}
    assert ledger.results() == undisturbed.results()


def test_no_task_begins_once_the_others_are_told_to_stop() -> None:
    from leadline.running.clusters.ray import _Mailbox

    mailbox = _Mailbox()
    assert mailbox.begin(0) and mailbox.begin(2)
    assert mailbox.stop() == {0, 2}  # which are not cancelled, as they may hold trials
    assert not mailbox.begin(1) and mailbox.is_stopping()
    assert mailbox.stop() == {0, 2}


def test_an_interrupted_driver_gives_the_trials_back(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from leadline.running.clusters.ray import RayTasks

    monkeypatch.setattr("leadline.running.clusters.ray.GRACE_SECONDS", 300.0)  # tasks still import on a slow machine
    ledger = Ledger.of(tmp_path, study(epochs=20_000))

    def interrupt(event: Event) -> None:
        if event.kind == "progress":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        RayTasks().run(ledger.job, interrupt)
    assert ledger.counts() == {"waiting": 4}
    with Store.open(tmp_path) as store:
        begun = [store.trial(trial) for trial in store.trials_frame(NAME)["trial"]]
    assert any(one.checkpoint for one in begun)  # of the step that it was in


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (
            {"cpus_per_trial": 3.0},
            r"no node of the Ray cluster has 3 CPUs and 0 GPUs for a trial; the largest has 1",
        ),
        ({"gpus_per_trial": 0.25}, r"no node of the Ray cluster has 1 CPUs and 0\.25 GPUs"),
    ],
)
def test_a_trial_that_no_node_can_take_is_one_line(
    cluster: Cluster, tmp_path: Path, wanted: dict[str, float], message: str
) -> None:
    from leadline.errors import LeadlineError
    from leadline.running.clusters.ray import RayTasks

    ledger = Ledger.of(tmp_path, study())
    with pytest.raises(LeadlineError, match=message):
        RayTasks(**wanted).run(ledger.job, ledger.told.append)


@pytest.mark.parametrize("wanted", [{"gpus_per_trial": -1.0}, {"gpus_per_trial": 1.5}, {"cpus_per_trial": 0.0}])
def test_impossible_shares_are_refused(wanted: dict[str, float]) -> None:
    from leadline.running.clusters.ray import RayTasks

    with pytest.raises(SpecError, match="per-trial"):
        RayTasks(**wanted)


def test_the_device_is_the_one_that_ray_gives() -> None:
    from leadline.running.clusters.ray import RayTasks

    assert RayTasks().device("auto") == RayTasks().device("cpu") == "cpu"
    assert RayTasks(gpus_per_trial=0.5).device("auto") == "cuda"
    with pytest.raises(SpecError, match=r"--device cuda:1 --gpus-per-trial 1"):
        RayTasks(gpus_per_trial=1).device("cuda:1")
