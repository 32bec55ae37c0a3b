"""What the terminal shows of a run: the time left, and what to do next."""

import math
import os
import time
from pathlib import Path

import pytest

import leadline as ll
from leadline.data import threads
from leadline.data.threads import count_cores
from leadline.running.console import _Tally
from leadline.running.driving import Outcome
from leadline.running.job import Event
from leadline.study import pipeline
from leadline.study.planning import plan
from leadline.study.planning.timing import Timing


def event(kind: str, trial: str, fraction: float = 0.0) -> Event:
    return Event(kind, trial, "arm", 0, "owner", fraction)


def test_time_left_counts_what_was_done_here() -> None:
    tally = _Tally(total=4, ended=1, started=time.monotonic() - 30)
    assert tally.left() == "time left: ..."
    tally.take(event("started", "short"))  # ends before it could tell of any progress
    tally.take(event("finished", "short", 1.0))
    tally.take(event("started", "resumed", 0.5))
    assert tally.left() == "time left: 45 s"  # one trial in 30 s; half of one and a whole one remain
    tally.take(event("progress", "resumed", 0.75))
    assert tally.left() == "time left: 30 s"
    tally.take(event("restarted", "resumed"))
    assert tally.left() == "time left: 1 min 00 s"


def test_the_last_line_says_what_to_do_next() -> None:
    done = Outcome("demo", {"finished": 2, "diverged": 1}, (), False, 75.0)
    assert done.last_line() == "demo: 3 trials: 2 finished, 1 diverged; 1 min 15 s. Next: leadline report demo"
    assert done.last_line(" --runs /a").endswith("Next: leadline report demo --runs /a")
    failed = Outcome("demo", {"failed": 1}, ("a seed 0: no",), False, 1.0)
    assert failed.last_line().endswith("First failure: a seed 0: no. Run the same command to retry the failed trials.")


def test_cores_where_the_system_does_not_tell_which_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(threads, "read_quota", lambda *_: math.inf)
    assert count_cores() == (os.cpu_count() or 1)
    monkeypatch.setattr(threads, "read_quota", lambda *_: 0.2)
    assert count_cores() == 1


@pytest.mark.parametrize(
    ("group", "files", "cores"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, math.inf),
        ("0::/a/b\n", {"a/b/cpu.max": "400000 100000\n", "a/cpu.max": "300000 100000\n"}, 3.0),
        ("4:cpu,cpuacct:/x\n", {"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 0.5),
        ("4:cpu:/x\n", {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, math.inf),
        ("4:cpu,cpuacct:/job/step\n", {"cpu/job/cpu.cfs_quota_us": "1", "cpu/job/cpu.cfs_period_us": "1"}, 1.0),
        (
            "4:cpuset:/x\n4:cpu:/x\n0::/y\n",
            {"cpu/x/cpu.cfs_quota_us": "30", "cpu/x/cpu.cfs_period_us": "10", "x/cpu.max": "1 1"},
            3.0,
        ),
        ("", {}, math.inf),
        ("0::/\n", {"cpu.max": "what\n"}, math.inf),
    ],
)
def test_the_cpu_quota_of_a_container_is_heeded(
    tmp_path: Path, group: str, files: dict[str, str], cores: float
) -> None:
    groups, root = tmp_path / "groups", tmp_path / "fs"
    groups.write_text(group)
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    assert threads.read_quota(groups, root) == cores


@pytest.mark.parametrize(
    ("quota", "given", "threads_of_torch"),
    [(math.inf, {}, None), (1.0, {}, "1"), (1.0, {"OMP_NUM_THREADS": "7"}, "7")],
)
def test_pytorch_computes_in_no_more_threads_than_the_quota_has_cores(
    monkeypatch: pytest.MonkeyPatch, quota: float, given: dict[str, str], threads_of_torch: str | None
) -> None:
    monkeypatch.setattr(threads, "read_quota", lambda *_: quota)
    threads.limit_threads(given)
    assert given.get("OMP_NUM_THREADS") == threads_of_torch


@pytest.mark.parametrize("version", [1, 2])
def test_every_default_number_heeds_the_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: int) -> None:
    groups, root = tmp_path / "groups", tmp_path / "fs"
    files = {"cpu.max": "300000 100000"}
    if version == 1:
        files = {"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}
    groups.write_text("0::/\n" if version == 2 else "4:cpu,cpuacct:/docker/1a2b\n")
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    monkeypatch.setattr(threads, "_GROUPS", (groups, root))
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    asked: list[int] = []

    def note(store: object, job: object, runner: int, screen: object) -> Outcome:
        asked.append(runner)
        return Outcome("quota", {}, (), False, 0.0)

    monkeypatch.setattr(pipeline, "run_trials", note)
    study = ll.Study(
        "quota", data={"name": "digits", "train": 64, "test": 64}, arms={"a": "mlp", "b": "comparative-plain"}, seeds=1
    )
    study.run(tmp_path / "runs", progress=False, device="cpu")
    assert asked == [3] and threads.decoder_threads() == 3
    monkeypatch.setattr(plan, "measure", lambda work, *_: [Timing(0.1, 1, 0.001, 1.0, 0.1, 1) for _ in work])
    planned = study.plan(tmp_path / "runs", device="cpu").plan
    assert (planned.workers, planned.cores) == (3, 3)
