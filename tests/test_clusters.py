"""Workers that share a store, and Slurm arrays of them: as commands, and through submitit for real."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import make_url
from typer.testing import CliRunner

from leadline.cli import app
from leadline.errors import LeadlineError, SpecError, StoreError
from leadline.running.checkpoints import Interval
from leadline.running.clusters import on_ray, worker
from leadline.running.clusters.entering import enter
from leadline.running.clusters.slurm import Resources, check_store, script, submit
from leadline.running.clusters.worker import take_trials
from leadline.running.executors import InProcess
from leadline.running.job import Event, Job
from leadline.store import Store
from leadline.study.load import load_study

pytestmark = pytest.mark.slow

STUDY = """
name: shared
data: {name: digits, train: 120, validation: 50, test: 50}
training: {epochs: EPOCHS, batch_size: 40, optimizer: {name: adam}}
arms: {plain: {network: comparative-plain}, residual: {network: comparative-resnet}}
vary: {blocks: [2]}
seeds: 2
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return written(tmp_path, 2)


def written(folder: Path, epochs: int) -> Path:
    file = folder / "shared.yaml"
    file.write_text(STUDY.replace("EPOCHS", str(epochs)))
    return file


def counts(runs: Path) -> dict[str, int]:
    with Store.open(runs) as store:
        return {state: number for state, number in store.counts("shared").items() if number}


def values(runs: Path) -> list[tuple[Any, ...]]:
    with Store.open(runs) as store:
        frame = store.records_frame("shared")
    columns = ["trial", "step", "split", "name", "value"]
    return list(frame.loc[frame["split"] != "time", columns].itertuples(index=False, name=None))


def command(*arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "leadline", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said(arguments: list[str], expect: type[Exception]) -> str:
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, expect), result.output
    return str(result.exception)


# --- workers


def test_workers_share_a_study_that_each_of_them_may_enter(study: Path, tmp_path: Path) -> None:
    workers = [command("worker", study, "--runs", tmp_path / "shared", "--until-empty") for _ in range(2)]
    ends = [worker.communicate(timeout=600)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    taken = [int(re.fullmatch(r"worker: (\d) trials completed(: \d finished)?\n", end)[1]) for end in ends]  # type: ignore[index]
    assert sum(taken) == 4
    with Store.open(tmp_path / "alone") as store:
        store.register(load_study(str(study)))
    InProcess().run(Job("shared", tmp_path / "alone"), lambda _: None)
    assert values(tmp_path / "shared") == values(tmp_path / "alone")


def test_a_worker_without_a_study_takes_all_of_the_store(study: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    assert enter(str(study), {}, runs, None, None) == "shared"
    with Store.open(runs) as store:
        store.register(load_study(str(study), {"name": "other", "seeds": [7]}))
    told: list[Event] = []
    tally = take_trials(Job("", runs), None, False, told.append)
    assert tally.ends == {"finished": 6}
    assert tally.line() == "worker: 6 trials completed: 6 finished"
    assert counts(runs) == {"finished": 4}
    again = take_trials(Job("", runs), None, True, told.append)
    assert again.line() == "worker: 0 trials completed"


def test_a_worker_trains_several_trials_at_once_to_the_same_bits(study: Path, tmp_path: Path) -> None:
    told: list[Event] = []
    for runs in (tmp_path / "together", tmp_path / "alone"):
        assert enter(str(study), {}, runs, None, None) == "shared"
    tally = take_trials(Job("", tmp_path / "together", trials_at_once=3), None, True, told.append)
    assert tally.line() == "worker: 4 trials completed: 4 finished"
    started = [event.owner for event in told if event.kind == "started"]
    assert len(started) == 4 and len(set(started)) == 3  # each trial is held by a thread's own name
    take_trials(Job("", tmp_path / "alone"), None, False, lambda _: None)
    assert values(tmp_path / "together") == values(tmp_path / "alone")


def test_a_worker_of_several_trials_leaves_studies_to_others_that_it_cannot_train_so(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    assert enter(str(study), {}, runs, None, None) == "shared"
    with Store.open(runs) as store:
        store.register(load_study(str(study), {"name": "two", "devices": 2, "seeds": [7]}))
    tally = take_trials(Job("", runs, trials_at_once=2), None, True, lambda _: None)
    assert tally.ends == {"finished": 4} and counts(runs) == {"finished": 4}
    said = "left to other workers: study two: 2 trials per worker, each on 2 devices"
    assert capsys.readouterr().err.count(said) == 1
    with pytest.raises(SpecError, match="study two: 2 trials per worker, each on 2 devices"):
        take_trials(Job("", runs, trials_at_once=2), "two", True, lambda _: None)


def test_a_study_that_a_worker_cannot_train_several_trials_of_is_refused_before_jobs_are_submitted(
    study: Path, tmp_path: Path
) -> None:
    asked = ["slurm", str(study), "--runs", str(tmp_path / "runs"), "--print", "--trials-per-worker", "2"]
    assert "2 trials per worker: training.precision tf32" in said(
        [*asked, "--set", "training.precision=tf32"], SpecError
    )
    with Store.open(tmp_path / "runs") as store:
        assert store.studies() == []  # nothing is registered
    other = [*asked[:2], "--runs", str(tmp_path / "other"), *asked[4:]]
    printed = CliRunner().invoke(app, other)
    assert printed.exit_code == 0 and " --trials-per-worker 2 " in printed.output


def test_a_worker_that_is_told_to_stop_gives_its_trials_back(tmp_path: Path) -> None:
    study, runs = written(tmp_path, 500), tmp_path / "runs"
    assert enter(str(study), {}, runs, None, None) == "shared"
    told: list[Event] = []

    def emit(event: Event) -> None:
        told.append(event)
        if len({one.trial for one in told if one.kind == "progress"}) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    tally = take_trials(Job("", runs, trials_at_once=2), None, True, emit)
    assert tally.line() == "worker: 0 trials completed; stopped, and its trials were released"
    assert counts(runs) == {"waiting": 4}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_told_to_stop_gives_its_trial_back(tmp_path: Path, number: signal.Signals) -> None:
    study, runs = written(tmp_path, 500), tmp_path / "runs"
    worker = command("worker", study, "--runs", runs)
    assert worker.stderr is not None
    try:
        assert any("started" in line for line in worker.stderr)
        worker.send_signal(number)
        output, _ = worker.communicate(timeout=600)
    finally:
        worker.kill()
    assert worker.returncode == 128 + number
    assert output == "worker: 0 trials completed; stopped, and its trial was released\n"
    assert counts(runs) == {"waiting": 4}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device that is always full")
def test_a_log_on_a_full_disk_stops_no_trial(study: Path, tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as log:
        ended = subprocess.run(
            [sys.executable, "-m", "leadline", "worker", str(study), "--runs", str(tmp_path / "runs")],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            timeout=600,
            check=False,
        )
    assert (ended.returncode, ended.stdout) == (0, "worker: 4 trials completed: 4 finished\n")
    assert counts(tmp_path / "runs") == {"finished": 4}


def test_a_worker_that_lacks_the_data_leaves_the_trials_to_others(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for number in range(4):
            Image.new("RGB", (8, 8), (30 * number, 0, 0)).save(folder / name / f"{number}.png")
    settings: dict[str, object] = {"data": {"name": "imagefolder", "path": "pictures", "size": 8}, "vary.blocks": [2]}
    with Store.open(tmp_path / "runs") as store:
        store.register(load_study("demo", settings))
    with pytest.raises(StoreError, match="pictures"):
        take_trials(Job("demo", tmp_path / "runs", data_dir=tmp_path / "nowhere"), "demo", until_empty=True)
    with Store.open(tmp_path / "runs") as store:
        assert set(store.trials_frame("demo")["state"]) == {"waiting"}


def test_a_worker_does_not_ask_without_a_pause_for_what_it_cannot_have(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = enter(str(study), {}, tmp_path / "runs", None, None)
    asked: list[float] = []

    def pause(seconds: float) -> None:
        asked.append(seconds)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(worker, "work_together", lambda *_: 0)  # all that waits is locked
    monkeypatch.setattr(worker.time, "sleep", pause)
    assert take_trials(Job(name, tmp_path / "runs"), name, until_empty=False).stopped == signal.SIGTERM
    assert asked == [worker.LOOK_SECONDS]


def test_until_empty_takes_over_what_another_loses(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = tmp_path / "runs"
    enter(str(study), {}, runs, None, None)
    with Store.open(runs) as store:
        lost = store.claim("shared", "elsewhere:7:1", 3600.0)
        assert lost is not None
        assert take_trials(Job("", runs), "shared", False, lambda _: None).ends == {"finished": 3}
        assert store.counts("shared")["running"] == 1
        # while the worker waits, the lease runs out
        monkeypatch.setattr(worker.time, "sleep", lambda _: store.heartbeat(lost.trial, "elsewhere:7:1", -1.0))
        tally = take_trials(Job("", runs), "shared", True, lambda _: None)
    assert tally.ends == {"finished": 1}
    assert counts(runs) == {"finished": 4}


def test_a_study_of_the_store_is_taken_as_it_is_there(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        store.register(load_study("demo", {"seeds": 1}))
    assert enter("demo", {}, tmp_path, None, None) == "demo"
    with Store.open(tmp_path) as store:
        assert store.study("demo").spec["seeds"] == 1


def test_what_cannot_be_entered_is_one_line(study: Path, tmp_path: Path) -> None:
    assert "does not exist yet" in said(["worker", "nothing", "--runs", str(tmp_path / "new")], StoreError)
    assert not (tmp_path / "new").exists()
    enter(str(study), {}, tmp_path / "runs", None, None)
    assert "did you mean 'shared'?" in said(["worker", "sharde", "--runs", str(tmp_path / "runs")], StoreError)
    study.write_text(study.read_text() + "tune: {learning_rate: {log: [0.001, 0.1]}, budget: 2}\n")
    assert "run it with `leadline run`" in said(["worker", str(study), "--runs", str(tmp_path / "runs")], SpecError)


# --- executors by name


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("rai", None, 1, 0, None), r"unknown --executor 'rai'; did you mean 'ray'\?"),
        (("local", "auto", 1, 0, None), "--address needs --executor ray"),
        (("inprocess", None, 1, 0.5, None), "--gpus-per-trial needs --executor ray"),
        (("ray", None, 1, 0, 4), "--workers 4 --executor ray"),
    ],
)
def test_options_of_another_executor_are_refused(given: tuple[Any, ...], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        on_ray(*given)
    assert on_ray("local", None, 1, 0, 3) is None


def test_ray_that_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch, study: Path, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    given = ["run", str(study), "--runs", str(tmp_path), "--executor", "ray", "--json"]
    assert "pip install '.[ray]'" in said(given, LeadlineError)


# --- Slurm


def resources(**given: Any) -> Resources:
    values = {"workers": 2, "time": "4:00:00", "cpus": 1, "gpus": 0, "memory": "4G", "options": [], "setup": []}
    return Resources.of(**(values | given))


def test_a_job_means_the_same_in_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    here = Job("one", Path("runs"), "sqlite:///folder/a.db", Path("data")).with_absolute_paths()
    assert (here.runs, here.data_dir) == (tmp_path / "runs", tmp_path / "data")
    assert here.store_url is not None and make_url(here.store_url).database == str(tmp_path / "folder" / "a.db")
    elsewhere = "postgresql://someone:secret@host/name"
    assert Job("one", Path("runs"), elsewhere).with_absolute_paths().store_url == elsewhere
    assert Job("one", Path("runs")).with_absolute_paths().store_url is None


def test_the_script_is_what_sbatch_and_bash_read(tmp_path: Path) -> None:
    runs = tmp_path / "runs with a space"
    asked = resources(workers=8, time="1-12:30:01", gpus=1, options=["partition=gpu"], setup=["module load cuda"])
    job = Job("shared", runs, "postgresql://host/name", tmp_path, "cuda", 1, Interval(steps=200), 2, "s3://bucket/it")
    text = script(job, asked)
    file = tmp_path / "job.sh"
    # srun stands for a program that prints each of its arguments in a line
    file.write_text(text.replace("srun ", "printf '%s\\n' ").replace("module load cuda", "true"))
    ran = subprocess.run(["bash", file], capture_output=True, text=True, check=True).stdout.splitlines()
    assert ran == [
        *[sys.executable, "-m", "leadline", "worker", "shared", "--runs", str(runs)],
        *["--store", "postgresql://host/name", "--data-dir", str(tmp_path), "--devices", "2"],
        *["--artifacts", "s3://bucket/it", "--checkpoint-every", "200steps", "--device", "cuda", "--until-empty"],
    ]
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)=?(.*)$", text, re.MULTILINE))
    assert options["array"] == "0-7"
    assert options["time"] == "36:31:00"
    assert options["gpus-per-node"] == "1"
    assert options["partition"] == "gpu"
    assert options["output"] == f'"{runs}/slurm-%A_%a.log"'
    assert text.index("#SBATCH") < text.index("module load cuda") < text.index("srun")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"time": "4h"}, "--time '4h': expected hours:minutes:seconds"),
        ({"time": "0:01:00"}, "a job is signalled 90 s before its time limit"),
        ({"memory": "much"}, "--memory 'much'"),
        ({"options": ["gpu"]}, "--option 'gpu': expected KEY=VALUE"),
        ({"options": ["partition=a\nb"]}, "--option"),
    ],
)
def test_resources_that_slurm_would_not_understand(given: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        resources(**given)


def test_stores_that_jobs_cannot_share_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="a SQLite store works on one machine only; use --store"):
        check_store(None, tmp_path, 2)
    check_store(None, tmp_path, 1)
    check_store("postgresql://user@host/name", tmp_path, 2)
    with pytest.raises(StoreError, match=r"into ~/\.pgpass") as caught:
        check_store("postgresql://user:secret@host/name", tmp_path, 2)
    assert "secret" not in str(caught.value)


def test_no_slurm_is_one_line(monkeypatch: pytest.MonkeyPatch, study: Path, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    given = ["slurm", str(study), "--runs", str(tmp_path / "runs")]
    assert "sbatch was not found" in said(given, LeadlineError)
    printed = CliRunner().invoke(app, [*given, "--print"])
    assert printed.exit_code == 0
    assert printed.output.startswith("#!/bin/bash\n")
    assert counts(tmp_path / "runs") == {"waiting": 4}
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert "pip install '.[slurm]'" in said(given, LeadlineError)


def test_jobs_of_submitit_run_the_study(study: Path, tmp_path: Path) -> None:
    pytest.importorskip("submitit", reason="submitit is not installed; pip install '.[slurm]'")
    runs = tmp_path / "runs"
    enter(str(study), {}, runs, None, None)
    jobs = submit(Job("shared", runs), resources(), "local")
    lines = [job.result() for job in jobs]
    assert sum(int(re.match(r"worker: (\d)", line)[1]) for line in lines) == 4  # type: ignore[index]
    assert counts(runs) == {"finished": 4}
    for job in jobs:
        job._process.wait()


def test_a_job_whose_time_is_over_gives_its_trial_back_and_is_queued_again(tmp_path: Path) -> None:
    local = pytest.importorskip("submitit.local.local", reason="submitit is not installed")
    runs = tmp_path / "runs"
    enter(str(written(tmp_path, 500)), {}, runs, None, None)
    [job] = submit(Job("shared", runs), resources(workers=1), "local")
    first = owner_of_a_trial(runs)
    try:
        os.kill(int(first.split(":")[1]), local.LocalJobEnvironment._usr_sig())
        assert owner_of_a_trial(runs, unlike=first)
    finally:
        job._process.terminate()  # which submitit hands on to the worker
        job._process.wait(600)
    assert "Requeued job" in job.stdout()
    assert counts(runs) == {"waiting": 4}


def owner_of_a_trial(runs: Path, unlike: str = "") -> str:
    until = time.monotonic() + 600
    with Store.open(runs) as store:
        first = store.trials_frame("shared")["trial"][0]
        while time.monotonic() < until:
            owner = store.trial(first).owner
            if owner and owner != unlike:
                return owner
            time.sleep(0.1)
    raise AssertionError("nobody has taken it")
