"""Studies that decide, run for real on a few digits: rounds, kills, failures, two drivers, one result."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from leadline.cli import app
from leadline.errors import LeadlineError
from leadline.running import gang, trial, worker
from leadline.running.job import Event, Job
from leadline.store import Store

pytestmark = pytest.mark.slow

STUDY = """
name: decides
data: {name: digits, train: 150, validation: 50, test: 100}
training: {epochs: 1, batch_size: 50, optimizer: {name: adam, learning_rate: 0.01}}
arms:
  gentle: {network: {family: comparative-cnn, blocks: 1}, training: {optimizer: {learning_rate: 0.001}}}
  learns: {network: {family: comparative-cnn, blocks: 1}}
  slower: {network: {family: comparative-cnn, blocks: 1}, training: {optimizer: {learning_rate: 0.009}}}
contrasts: [[learns, gentle], [learns, slower]]
decide: {margin: 0.5, max_seeds: 7, first: 4, step: 2}
"""
runner = CliRunner()


@pytest.fixture
def study(tmp_path: Path) -> str:
    path = tmp_path / "decides.yaml"
    path.write_text(STUDY)
    return str(path)


def invoke(study: str, runs: Path, *more: str, code: int = 0) -> tuple[str, str]:
    """Run a study inside this process; give its last line and the rounds that it told of."""
    result = runner.invoke(app, ["run", study, "--runs", str(runs), "--workers", "0", *more])
    assert result.exit_code == code, result.output
    return result.stdout, "\n".join(line for line in result.stderr.splitlines() if line.startswith("round "))


def shown(runs: Path) -> dict[str, Any]:
    """The verdict without the seconds, which no two runs share."""
    found = json.loads(runner.invoke(app, ["verdict", "decides", "--runs", str(runs), "--json"]).stdout)
    for arm in found["arms"].values():
        del arm["seconds"]
    return dict(found)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[str, str]]:
    """The study run without any mishap, and what it said."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "decides.yaml").write_text(STUDY)
    return folder / "runs", invoke(str(folder / "decides.yaml"), folder / "runs")


def test_seeds_are_added_to_the_arms_of_undecided_contrasts_alone(whole: tuple[Path, tuple[str, str]]) -> None:
    runs, (last, told) = whole
    found = shown(runs)
    assert {name: arm["n"] for name, arm in found["arms"].items()} == {"gentle": 4, "learns": 7, "slower": 7}
    clear, close = found["contrasts"]
    assert (clear["verdict"], clear["n"], clear["looks"]["taken"]) == ("worse", 4, 1)
    assert (close["verdict"], close["n"], close["looks"]["taken"], close["looks"]["most"]) == ("undecided", 7, 3, 7)
    assert clear["p"] is clear["t_p"] is clear["p_adjusted"] is None and clear["ci95"][0] > 0
    assert close["looks"]["of_each"] == pytest.approx(0.975)
    assert [one["added"] for one in found["rounds"]] == [4, 2, 1] and all(one["ended"] for one in found["rounds"])
    lines = told.splitlines()
    assert [line.split("; ")[0] for line in lines] == [
        "round 1: 4 seeds, 4 in all",
        "round 2: 2 seeds, 6 in all",
        "round 3: 1 seed, 7 in all",
    ]
    assert all("undecided: learns against slower (" in line and "gentle" not in line for line in lines)
    decided = "worse: learns against gentle (4 seeds); undecided: learns against slower (7 seeds)."
    assert f"Of at most 7 seeds, {decided}" in last


def test_a_finished_study_does_nothing_more(whole: tuple[Path, tuple[str, str]], study: str) -> None:
    runs, (last, _) = whole
    before = shown(runs)
    with Store.open(runs) as store:
        ended = store.trials_frame("decides")["ended"].tolist()
    again, told = invoke(study, runs)
    assert told == "" and again.split("Of at most")[1] == last.split("Of at most")[1] and shown(runs) == before
    with Store.open(runs) as store:
        assert store.trials_frame("decides")["ended"].tolist() == ended


def test_a_study_that_is_interrupted_again_and_again_ends_the_same(
    whole: tuple[Path, tuple[str, str]], study: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = worker.work

    def interrupted(job: Job, emit: Callable[[Event], None], **more: Any) -> int:
        left = [5]

        def counted(event: Event) -> None:
            emit(event)
            left[0] -= event.kind == "started"
            if not left[0] and event.kind == "progress":  # in the middle of the fifth
                raise KeyboardInterrupt

        return work(job, counted, **more)

    monkeypatch.setattr(gang, "work", interrupted)
    told, codes = [], []
    for _ in range(8):
        result = runner.invoke(app, ["run", study, "--runs", str(tmp_path / "runs"), "--workers", "0"])
        codes.append(result.exit_code)
        told += [line for line in result.stderr.splitlines() if line.startswith("round ")]
        if result.exit_code == 0:
            break
    assert codes[-1] == 0 and len(codes) > 2 and set(codes[:-1]) == {130}, result.exception
    assert shown(tmp_path / "runs") == shown(whole[0]) and "\n".join(told) == whole[1][1]


def test_a_failed_trial_stops_the_rounds_until_it_is_tried_again(
    whole: tuple[Path, tuple[str, str]], study: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = trial.build

    def refused(spec: Any, shape: Any, classes: int, seed: int) -> Any:
        if seed == 2:
            raise LeadlineError("no memory for it")
        return build(spec, shape, classes, seed)

    monkeypatch.setattr(trial, "build", refused)
    last, told = invoke(study, tmp_path / "runs", code=1)
    assert told == "" and "First failure: " in last and "no memory for it" in last
    with Store.open(tmp_path / "runs") as store:
        assert store.counts("decides")["failed"] == 3 and len(store.trials_frame("decides")) == 12
    # of the seeds 0, 1 and 3 that are there, only those before the gap are looked at
    assert [contrast["seeds"] for contrast in shown(tmp_path / "runs")["contrasts"]] == [[0, 1], [0, 1]]
    monkeypatch.undo()
    assert invoke(study, tmp_path / "runs")[1] == whole[1][1]
    assert shown(tmp_path / "runs") == shown(whole[0])


def test_two_drivers_on_one_study_agree(whole: tuple[Path, tuple[str, str]], study: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "leadline", "run", study, "--runs", str(tmp_path / "runs"), "--workers", "0"]
    both = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ)
        for _ in range(2)
    ]
    results = [driver.communicate(timeout=600) for driver in both]
    assert [driver.returncode for driver in both] == [0, 0], results
    assert len({out.split("Of at most")[1] for out, _ in results}) == 1
    assert shown(tmp_path / "runs") == shown(whole[0])


def test_more_seeds_later_keep_the_plan_and_what_was_decided(
    whole: tuple[Path, tuple[str, str]], study: str, tmp_path: Path
) -> None:
    first = ("--set", "decide.max_seeds=5")
    invoke(study, tmp_path / "runs", *first)
    before = shown(tmp_path / "runs")["contrasts"]
    invoke(study, tmp_path / "runs")
    clear, close = shown(tmp_path / "runs")["contrasts"]
    assert (clear["looks"]["planned"], clear["looks"]["most"], close["n"]) == (5, 7, 7)
    assert clear["ci95"] == before[0]["ci95"] and clear["seeds"] == before[0]["seeds"]
    assert before[1]["looks"]["low"] <= close["looks"]["low"] <= close["looks"]["high"] <= before[1]["looks"]["high"]
    # its specification, as the report writes it out, is that of the same study
    with Store.open(tmp_path / "runs") as store:
        spec = store.study("decides").spec
    (tmp_path / "stored.yaml").write_text(json.dumps(spec))
    assert invoke(str(tmp_path / "stored.yaml"), tmp_path / "runs")[1] == ""
    result = runner.invoke(
        app, ["run", study, "--runs", str(tmp_path / "runs"), "--set", "decide.confidence=0.9", "--workers", "0"]
    )
    assert isinstance(result.exception, LeadlineError) and "give the study another name" in str(result.exception)


def test_the_report_names_the_interval_and_the_looks(whole: tuple[Path, tuple[str, str]], tmp_path: Path) -> None:
    result = runner.invoke(app, ["report", "decides", "--runs", str(whole[0]), "--output", str(tmp_path)])
    assert result.exit_code == 0, result.output
    page = (tmp_path / "report.html").read_text()
    assert "its 95% interval that holds at every look" in page and "Jennison &amp; Turnbull 1989" in page
    assert "paired t" not in page and "18 of 18 trials finished" in page
    header, clear, close = (tmp_path / "tables/contrasts.csv").read_text().splitlines()
    names = set(header.split(","))
    assert {f"looks_{name}" for name in ("seeds", "most", "taken", "low", "high", "of_each")} <= names
    assert "t_p" not in names
    assert ",4,7,1,4," in clear and ",7,7,3,7," in close
