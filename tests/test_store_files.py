"""SQLite files that go away while they are used, and stores on media that cannot be written."""

import gzip
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from leadline.cli import app
from leadline.errors import LeadlineError, StoreError
from leadline.running.executors import InProcess
from leadline.running.job import Event, Job
from leadline.specs import parse
from leadline.specs.study import StudySpec
from leadline.store import Store
from leadline.store.schema import HEAD
from leadline.study.expand import expand

SPEC = {
    "name": "small",
    "data": {"name": "digits", "train": 60, "validation": 20, "test": 20},
    "training": {"epochs": 2, "batch_size": 20},
    "arms": {
        "a": {"network": {"family": "comparative-cnn", "blocks": 1}},
        "b": {"network": {"family": "comparative-cnn", "blocks": 2}},
    },
    "seeds": 2,
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("finished") / "runs"
    register(runs)
    InProcess().run(Job("small", runs), lambda event: None)
    return runs


def register(runs: Path) -> None:
    with Store.open(runs) as store:
        store.register(expand(parse(StudySpec, SPEC)))


def delete(path: Path) -> None:
    path.unlink()


def move(path: Path) -> None:
    path.rename(path.with_name("elsewhere.db"))


def replace(path: Path) -> None:
    other = path.with_name("other.db")
    shutil.copyfile(path, other)
    other.replace(path)


def delete_log(path: Path) -> None:
    path.with_name(f"{path.name}-wal").unlink()


@pytest.mark.parametrize("harm", [delete, move, replace, delete_log])
def test_a_store_that_goes_away_during_a_run_ends_it_and_is_saved(tmp_path: Path, harm: Callable[[Path], None]) -> None:
    runs = tmp_path / "runs"
    path = runs / "leadline.db"
    register(runs)
    ended = []

    def emit(event: Event) -> None:
        ended.append(event) if event.kind == "finished" else None
        if event.kind == "started" and len(ended) == 1:
            harm(path)

    with pytest.raises(StoreError, match="was deleted, moved or replaced while it was in use") as caught:
        InProcess().run(Job("small", runs), emit)
    assert "\n" not in str(caught.value) and f"all that it held is in {path}.rescued" in str(caught.value)
    # as the message says
    for name in ("leadline.db", "leadline.db-wal", "leadline.db-shm"):
        (runs / name).unlink(missing_ok=True)
    (runs / "leadline.db.rescued").rename(path)
    with Store.open(runs) as store:
        assert store.trial(ended[0].trial).state == "finished"
    InProcess().run(Job("small", runs), lambda event: None)
    with Store.open(runs) as store:
        assert set(store.trials_frame("small")["state"]) == {"finished"}


def test_the_command_ends_with_an_error_when_its_store_goes_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = tmp_path / "small.yaml"
    study.write_text(str(SPEC))
    runs = tmp_path / "runs"
    run = InProcess.run

    def run_and_delete(self: InProcess, job: Job, emit: Callable[[Event], None]) -> None:
        run(self, job, emit)
        delete(runs / "leadline.db")

    monkeypatch.setattr(InProcess, "run", run_and_delete)
    result = CliRunner().invoke(app, ["run", str(study), "--runs", str(runs), "--workers", "0"])
    assert result.exit_code and isinstance(result.exception, StoreError), result.output
    assert "while it was in use" in str(result.exception)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:", "sqlite:///file:x?mode=memory&uri=true"])
def test_a_store_in_memory_is_refused(tmp_path: Path, url: str) -> None:
    for one in (url, "sqlite:///x.db?mode=memory"):
        with pytest.raises(StoreError, match="is in memory"):
            Store.open(tmp_path, one)


# --- reading without writing


@pytest.fixture
def frozen(finished: Path, tmp_path: Path) -> Iterator[Path]:
    """A store in a folder in which nothing can be written, by root neither."""
    runs = tmp_path / "runs"
    shutil.copytree(finished, runs)
    yield from freeze(runs)


def freeze(runs: Path) -> Iterator[Path]:
    paths = [runs, *(one for one in runs.iterdir() if one.is_file())]
    if shutil.which("chattr") is None or subprocess.run(["chattr", "+i", *paths], capture_output=True).returncode:
        pytest.skip("no chattr, which makes a folder read-only for root too")
    try:
        yield runs
    finally:
        subprocess.run(["chattr", "-i", *paths], check=True)


def verdict(runs: Path) -> str:
    result = CliRunner().invoke(app, ["verdict", "small", "--runs", str(runs)])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.output


@pytest.mark.slow
def test_a_report_and_an_export_only_read(frozen: Path, tmp_path: Path) -> None:
    for command in (["report", "small", "--output"], ["export", "small/a/0", "--output"]):
        place = tmp_path / command[0]
        result = CliRunner().invoke(app, [*command, str(place), "--runs", str(frozen)])
        assert result.exit_code == 0, (result.output, result.exception)
        assert any(place.iterdir())


def test_a_store_that_cannot_be_written_is_read(frozen: Path, finished: Path) -> None:
    assert verdict(frozen) == verdict(finished)
    assert sorted(path.name for path in frozen.iterdir()) == ["checkpoints", "leadline.db"]


def test_a_store_that_was_not_closed_is_read_with_its_log(finished: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(finished, tmp_path / "open")
    database = sqlite3.connect(tmp_path / "open/leadline.db")
    database.execute("UPDATE studies SET name = 'renamed'")
    database.commit()
    runs.mkdir()
    for name in ("leadline.db", "leadline.db-wal"):
        shutil.copyfile(tmp_path / "open" / name, runs / name)
    database.close()
    for place in freeze(runs):
        with Store.open_existing(place) as store:
            assert [one.name for one in store.studies()] == ["renamed"]


def test_reading_an_older_store_leaves_it_as_it_is(tmp_path: Path) -> None:
    dump = gzip.decompress((Path(__file__).parent / "fixtures/stores/sqlite.sql.gz").read_bytes()).decode()
    path = tmp_path / "leadline.db"
    database = sqlite3.connect(path)
    database.executescript(dump)
    assert database.execute("SELECT version_num FROM leadline_version").fetchone() == ("0003",) != (HEAD,)
    database.close()
    before = path.read_bytes()
    with Store.open_existing(tmp_path) as store:
        assert "fixed" in {one.name for one in store.studies()}
        assert len(store.trials_frame("fixed"))
    assert path.read_bytes() == before


def test_a_store_that_is_only_read_cannot_be_written(finished: Path) -> None:
    with Store.open_existing(finished) as store, pytest.raises(LeadlineError, match="readonly"):
        store.rename_study("small", "other")
