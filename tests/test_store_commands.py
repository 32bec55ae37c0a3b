"""Commands that manage a store: list, show, rename, delete, clean, check, back up."""

import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from leadline.api import Study
from leadline.cli import app
from leadline.errors import LeadlineError
from leadline.store import Store, WorkerId

ARMS = {"plain": "comparative-plain", "residual": "comparative-resnet"}


def study(name: str, **changes: Any) -> Study:
    keys: dict[str, Any] = {
        "data": {"name": "digits", "train": 40, "validation": 20, "test": 20},
        "training": {"epochs": 2, "batch_size": 20},
        "seeds": 2,
    }
    return Study(name, arms=ARMS, title="A title", **(keys | changes))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two studies that share two of their trials."""
    runs = tmp_path_factory.mktemp("made") / "runs"
    study("small").run(runs, workers=0, progress=False)
    study("smaller", seeds=1).run(runs, workers=0, progress=False)
    return runs


@pytest.fixture
def runs(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "runs")
    return tmp_path / "runs"


def leadline(runs: Path, *arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, [*arguments, "--runs", str(runs)])
    assert result.exit_code == code, (result.output, result.exception)
    return result.stdout


def refused(runs: Path, *arguments: str) -> str:
    result = CliRunner().invoke(app, [*arguments, "--runs", str(runs)])
    assert result.exit_code and isinstance(result.exception, LeadlineError), result.output
    assert "\n" not in str(result.exception)
    return str(result.exception)


def change(runs: Path, statement: str, *values: object) -> None:
    database = sqlite3.connect(runs / "leadline.db")
    database.execute(statement, values)
    database.commit()
    database.close()


def checkpoints(runs: Path) -> list[Path]:
    return sorted((runs / "checkpoints").iterdir())


def test_studies_and_trials_are_listed(runs: Path) -> None:
    found = json.loads(leadline(runs, "studies", "--json"))
    assert [(one["study"], one["title"], one["trials"]) for one in found] == [
        ("small", "A title", {"finished": 4}),
        ("smaller", "A title", {"finished": 2}),
    ]
    sizes = [path.stat().st_size for path in checkpoints(runs)]
    assert found[0]["bytes"] == sum(sizes) > found[1]["bytes"] > 0
    assert "4 finished" in leadline(runs, "studies")
    rows = json.loads(leadline(runs, "trials", "small", "--json"))
    assert [(row["arm"], row["seed"], row["state"]) for row in rows] == [
        ("plain", 0, "finished"),
        ("residual", 0, "finished"),
        ("plain", 1, "finished"),
        ("residual", 1, "finished"),
    ]
    assert rows[0]["trial"][:12] in leadline(runs, "trials", "small")
    assert "did you mean 'small'" in refused(runs, "trials", "smal")
    assert "Missing" not in leadline(runs, "trials", "small")
    change(runs, "UPDATE trials SET state = 'waiting' WHERE id = 1")
    assert leadline(runs, "trials", "small").endswith("Missing: 1 of 4 trials (1 waiting).\n")


def test_a_trial_is_named_by_study_arm_and_seed(runs: Path, tmp_path: Path) -> None:
    rows = json.loads(leadline(runs, "trials", "small", "--json"))
    shown = json.loads(leadline(runs, "show", "small/residual/1", "--json"))
    assert shown["trial"] == rows[3]["trial"] and shown["specification"]["seed"] == 1 and shown["arm"] == "residual"
    assert json.loads(leadline(runs, "show", shown["trial"][:9], "--json")) == shown
    assert "state: finished" in leadline(runs, "show", "small/residual/1")
    assert json.loads(leadline(runs, "show", "small", "--json"))["specification"]["name"] == "small"
    assert "written:" in leadline(runs, "export", "small/residual/1", "--output", str(tmp_path / "out"))
    assert "jacobian" in leadline(runs, "probe", "small/plain/0", "jacobian", "--beside", "small/residual/0").lower()
    assert "unknown arm 'residul'; did you mean 'residual'?" in refused(runs, "show", "small/residul/0")
    assert "arm plain has no seed 7; its seeds: 0 and 1" in refused(runs, "show", "small/plain/7")
    assert "expected STUDY/ARM/SEED" in refused(runs, "show", "small/plain")


def test_a_renamed_study_keeps_its_results(runs: Path) -> None:
    before = leadline(runs, "trials", "small", "--json")
    leadline(runs, "rename", "small", "other")
    assert leadline(runs, "trials", "other", "--json") == before
    assert "other" in leadline(runs, "verdict", "other") and "no fault" in leadline(runs, "check")
    assert "there is one already" in refused(runs, "rename", "other", "smaller")
    assert "name" in refused(runs, "rename", "other", "not a name")
    assert "unknown study 'small'" in refused(runs, "rename", "small", "again")


def test_deleting_keeps_trials_until_they_are_cleaned_away(runs: Path) -> None:
    assert "2 trials belong to no study now" in leadline(runs, "delete", "small")
    assert "no fault" in leadline(runs, "check")
    study("small").run(runs, workers=0, progress=False)  # takes up what is left
    with Store.open_existing(runs) as store:
        assert {one["attempts"] for one in map(vars, map(store.trial, store.trials_frame("small")["trial"]))} == {1}
    leadline(runs, "delete", "small")
    stray = runs / "checkpoints" / f"{'0' * 64}-1.safetensors"
    stray.write_bytes(b"left by a worker that was killed")
    (runs / "checkpoints/notes.txt").write_text("mine")
    before = checkpoints(runs)
    assert "would be removed: 2 trials and 3 files" in leadline(runs, "clean", "--dry-run")
    assert checkpoints(runs) == before
    assert "removed: 2 trials and 3 files" in leadline(runs, "clean")
    with Store.open_existing(runs) as store:
        assert {path.name for path in checkpoints(runs)} == {
            *(one.checkpoint for one in store.files()),
            "notes.txt",
        }
        assert [one.name for one in store.studies()] == ["smaller"] and len(store.files()) == 2
    assert leadline(runs, "check").startswith("checked: 2 trials; no fault")
    assert "removed: 0 trials and 0 files" in leadline(runs, "clean")


def test_a_study_that_is_running_is_not_deleted_and_its_files_are_kept(runs: Path) -> None:
    with Store.open(runs) as store:
        store.register(study("running", training={"epochs": 1, "batch_size": 20}).expanded)
        claim = store.claim("running", str(WorkerId.current()), 60.0)
    assert claim is not None
    being_written = runs / "checkpoints" / f"{claim.trial}-0-1.safetensors"
    being_written.write_bytes(b"")
    assert "1 trial is running; stop its workers first" in refused(runs, "delete", "running")
    leadline(runs, "clean")
    assert being_written.exists()


def test_a_backup_is_a_store(runs: Path, tmp_path: Path) -> None:
    file = tmp_path / "copy.db"
    leadline(runs, "backup", str(file))
    url = ["--store", f"sqlite:///{file}"]
    assert leadline(runs, "verdict", "small", *url) == leadline(runs, "verdict", "small")
    assert "exists already" in refused(runs, "backup", str(file))
    assert "cannot be written" in refused(runs, "backup", str(tmp_path / "no/copy.db"))


# --- check


def flip(runs: Path) -> None:
    path = checkpoints(runs)[0]
    content = bytearray(path.read_bytes())
    content[-5] ^= 4
    path.write_bytes(content)


def swap(runs: Path) -> None:
    first, second, *_ = checkpoints(runs)
    content = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(content)


def edit_spec(runs: Path) -> None:
    change(runs, "UPDATE trials SET spec = json_set(spec, '$.training.batch_size', 10) WHERE id = 1")


def break_json(runs: Path) -> None:
    change(runs, "UPDATE trials SET spec = '{' WHERE id = 1")


def corrupt_pages(runs: Path) -> None:
    with (runs / "leadline.db").open("r+b") as file:
        pages = file.seek(0, 2) // 4096
        file.seek(4096 * (pages // 2))
        file.write(b"\xff" * 4096 * 2)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (flip, "its checksum does not match"),
        (lambda runs: checkpoints(runs)[0].unlink(), "cannot be read"),
        (swap, "of trial"),
        (edit_spec, "was changed after it was registered"),
        (break_json, "cannot be read"),
        (lambda runs: change(runs, "UPDATE trials SET seed = 9 WHERE id = 1"), "its seed is 9, but 0 in its"),
        (
            lambda runs: change(runs, "UPDATE studies SET spec = json_set(spec, '$.seeds', 3) WHERE name = 'small'"),
            "2 trials missing, such as small/plain/2",
        ),
        (
            lambda runs: change(
                runs, "UPDATE studies SET spec = json_set(spec, '$.training.batch_size', 4) WHERE name = 'small'"
            ),
            "which is trained otherwise",
        ),
        (lambda runs: change(runs, "DELETE FROM study_trials WHERE study_id = 1 AND position = 3"), "missing"),
        (lambda runs: change(runs, "UPDATE predictions SET predicted = x'00' WHERE trial_id = 1"), "cannot be read"),
        (lambda runs: change(runs, "DELETE FROM records WHERE trial_id = 1"), "its records or the outputs"),
        (lambda runs: change(runs, "UPDATE trials SET checkpoint_epoch = 1 WHERE id = 1"), "after 1 of 2 epochs"),
        (lambda runs: change(runs, "DELETE FROM trials WHERE id = 1"), "refers to a missing row"),
        (corrupt_pages, "database"),
    ],
)
def test_check_finds_damage(runs: Path, damage: Callable[[Path], None], said: str) -> None:
    damage(runs)
    result = CliRunner().invoke(app, ["check", "--runs", str(runs)])
    assert result.exit_code == 1
    shown = result.output if isinstance(result.exception, SystemExit) else str(result.exception)
    assert said in shown, shown
    assert not isinstance(result.exception, Exception) or isinstance(result.exception, LeadlineError)
