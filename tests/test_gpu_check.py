"""The check of a GPU, as far as a CPU can run it: every phase, what it takes for a failure, and its limits."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks import gpu_check


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "benchmarks.gpu_check", "--output", str(folder), *arguments]
    root = Path(gpu_check.__file__).parents[1]
    return subprocess.run(line, cwd=root, capture_output=True, text=True, timeout=1800, check=False)


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_without_a_gpu_it_says_so(tmp_path: Path) -> None:
    done = run(tmp_path / "out")
    assert done.returncode == 2 and "no CUDA device" in done.stderr and not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize("phase", gpu_check.PHASES)
def test_every_phase_runs_and_holds_on_a_cpu(phase: str, tmp_path: Path) -> None:
    done = run(tmp_path, "--device", "cpu", "--quick", "--patience", "20", "--phases", phase)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith("all checks hold\n")
    rows = json.loads((tmp_path / f"{phase}.json").read_text())
    assert rows and not any(row["passed"] is False for row in rows)
    checks = {row["check"] for row in rows}
    if phase == "correctness":
        assert {f"resumed within an epoch: {name}" for name in ("SGD", "Adam", "RMSprop", "dropout")} <= checks
        assert sum(check.startswith("probe ") for check in checks) == len(gpu_check.PROBES.members()) + 1
    if phase in ("teams", "replicas"):
        assert rows[-1]["passed"] and "different" not in rows[-1]["value"]


@pytest.mark.slow
def test_a_phase_that_takes_too_long_fails_alone(tmp_path: Path) -> None:
    done = run(tmp_path, "--device", "cpu", "--quick", "--phases", "teams", "--patience", "0.001")
    assert done.returncode == 1
    assert "took longer than 0.04 s" in done.stdout and "1 of the checks failed" in done.stdout


def test_an_error_is_a_row_that_failed_and_what_came_before_stays(tmp_path: Path) -> None:
    report = gpu_check.Report(tmp_path / "phase.json")
    report.add("first", 1)
    with report.measuring("second"):
        raise RuntimeError("CUDA error: out of luck\nand more")
    first, second = json.loads((tmp_path / "phase.json").read_text())
    assert first == {"check": "first", "value": "1", "wanted": "", "passed": None}
    assert second["value"] == "RuntimeError: CUDA error: out of luck" and second["passed"] is False


def test_one_changed_bit_changes_the_digest() -> None:
    tensors = {"a": torch.ones(3), "b": torch.zeros(2, dtype=torch.int64)}
    found = gpu_check.digest(tensors)
    assert found == gpu_check.digest({name: tensors[name].clone() for name in ("b", "a")})
    tensors["a"][1] = float(np.nextafter(np.float32(1), np.float32(2)))
    assert gpu_check.digest(tensors) != found


def test_the_gap_of_two_tables_is_relative_to_each_column() -> None:
    a = np.array([[100.0, 0.0], [50.0, 0.01], [np.nan, 0.0]])
    assert gpu_check.relative_gap(a, a) == 0
    assert gpu_check.relative_gap(a, a + np.array([1.0, 0.0])) == pytest.approx(0.01)
    assert gpu_check.relative_gap(a, a + np.array([0.0, 0.001])) == pytest.approx(0.1)


def test_a_missing_number_is_a_gap() -> None:
    a = np.array([[1.0], [2.0]])
    assert gpu_check.relative_gap(a, np.array([[1.0], [np.nan]])) == np.inf


def test_infinities_of_one_sign_are_no_gap() -> None:
    a = np.array([[np.inf, 1.0], [2.0, -np.inf]])
    assert gpu_check.relative_gap(a, a) == 0
    assert gpu_check.relative_gap(a, a + np.array([0.0, 0.5])) == 0.5
    assert gpu_check.relative_gap(a, np.array([[-np.inf, 1.0], [2.0, -np.inf]])) == np.inf


def test_the_phases_take_eight_minutes_at_most() -> None:
    assert sum(gpu_check.SECONDS.values()) <= 480 and set(gpu_check.SECONDS) == set(gpu_check.PHASES)
