"""Opening a store: what it makes, what it refuses and in which words, and its migrations."""

import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, event

import leadline
from leadline.errors import StoreError
from leadline.parts.metrics.record import Record
from leadline.specs import ProbeSpec, TrialSpec, parse
from leadline.specs.study import StudySpec
from leadline.store import Store, connect
from leadline.store.schema import HEAD, VERSION_TABLE, metadata
from leadline.study.expand import expand

MIGRATIONS = Path(leadline.__file__).parent / "store" / "migrations"


def refusal(runs: Path, url: str | None = None) -> str:
    """The one line with which opening is refused."""
    with pytest.raises(StoreError) as caught:
        Store.open(runs, url)
    message = str(caught.value)
    assert "\n" not in message
    return message


def query(path: Path, sql: str) -> list[tuple[object, ...]]:
    database = sqlite3.connect(path)
    try:
        return database.execute(sql).fetchall()
    finally:
        database.close()


def test_a_new_store_has_its_database_and_its_checkpoints_in_the_runs_folder(tmp_path: Path) -> None:
    runs = tmp_path / "deep" / "runs"
    with Store.open(runs) as store:
        assert store.checkpoints == runs / "checkpoints"
        assert store.checkpoints.is_dir()
        assert repr(store) == f"Store('{runs / 'leadline.db'}')"
    assert query(runs / "leadline.db", "PRAGMA journal_mode") == [("wal",)]
    assert query(runs / "leadline.db", f"SELECT version_num FROM {VERSION_TABLE}") == [(HEAD,)]
    assert sorted(path.name for path in runs.iterdir()) == ["checkpoints", "leadline.db"]


@pytest.mark.parametrize("name", ["with space", "100%d", "what?a=b", "a#b", "Größe"])
def test_the_runs_folder_may_have_any_name(tmp_path: Path, name: str) -> None:
    with Store.open(tmp_path / name) as store:
        assert store.studies() == []
    assert (tmp_path / name / "leadline.db").is_file()


def test_a_database_elsewhere_is_used_where_a_url_names_it(tmp_path: Path) -> None:
    with Store.open(tmp_path / "runs", f"sqlite:///{tmp_path}/other.db") as store:
        assert store.studies() == []
    assert (tmp_path / "other.db").is_file()
    assert not (tmp_path / "runs" / "leadline.db").exists()


def test_connections_are_set_up_to_survive(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store, connect.transaction(store._engine) as connection:
        settings = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("foreign_keys", "synchronous", "busy_timeout", "journal_mode")
        }
    assert settings == {"foreign_keys": 1, "synchronous": 2, "busy_timeout": 60_000, "journal_mode": "wal"}


def test_open_existing_makes_nothing(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"nowhere/leadline\.db: does not exist yet; `leadline run STUDY` creates it"):
        Store.open_existing(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []
    Store.open(tmp_path / "runs").close()
    with Store.open_existing(tmp_path / "runs") as store:
        assert store.studies() == []


# --- refusals


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "leadline.db").write_bytes(b"not a database, but long enough to look at\n" * 100)
    assert refusal(tmp_path) == f"store {tmp_path}/leadline.db: cannot be opened: file is not a database"


def test_a_database_cut_short(tmp_path: Path) -> None:
    Store.open(tmp_path).close()
    path = tmp_path / "leadline.db"
    path.write_bytes(path.read_bytes()[:5000])
    assert "malformed" in refusal(tmp_path)


def test_a_folder_in_the_databases_place(tmp_path: Path) -> None:
    (tmp_path / "leadline.db").mkdir()
    assert "leadline.db: is a folder, where a file is expected" in refusal(tmp_path)


def test_a_database_of_a_newer_leadline(tmp_path: Path) -> None:
    Store.open(tmp_path).close()
    database = sqlite3.connect(tmp_path / "leadline.db")
    database.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")
    database.commit()
    database.close()
    message = refusal(tmp_path)
    assert "schema '9999' was made by a newer version of Leadline" in message
    assert "upgrade Leadline or choose another store" in message


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "other.db")
    database.execute("CREATE TABLE studies (study_id INTEGER)")
    database.close()
    message = refusal(tmp_path, f"sqlite:///{tmp_path}/other.db")
    assert "holds the tables of another program (studies); use a separate database for Leadline" in message
    assert query(tmp_path / "other.db", "SELECT name FROM sqlite_master") == [("studies",)]


def test_a_runs_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    assert refusal(tmp_path / "runs").startswith(f"runs folder {tmp_path}/runs: is a file, where a folder is expected")


@pytest.fixture
def locked_folder() -> Iterator[Path]:
    """A folder that this process may not write, even where the tests run as root."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        Store.open(folder / "there").close()
        for path in (folder / "there" / "leadline.db", folder / "there" / "checkpoints", folder / "there", folder):
            path.chmod(0o555 if path.is_dir() else 0o444)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            os.seteuid(user)
            folder.chmod(0o755)
            (folder / "there").chmod(0o755)


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_a_folder_that_cannot_be_written(locked_folder: Path) -> None:
    message = refusal(locked_folder / "new")
    assert (
        message
        == f"runs folder {locked_folder}/new: cannot be written: Permission denied; choose another folder with --runs"
    )
    message = refusal(locked_folder / "there")
    assert message.startswith(f"store {locked_folder}/there/leadline.db: ")
    assert "readonly" in message or "unable to open" in message


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("nonsense", "'nonsense' is not a database URL; expected one like sqlite:///runs/leadline.db"),
        ("postgres://host/name", "unknown database 'postgres'; did you mean 'postgresql'?"),
        ("oracle://host/name", "unknown database 'oracle'; known: postgresql, sqlite"),
        ("sqlite+nodriver:///x.db", "unknown driver 'sqlite+nodriver'; remove it from the URL to use sqlite+pysqlite"),
        ("sqlite://", "is in memory"),
        ("sqlite:///:memory:", "is in memory"),
        ("sqlite:////nowhere/at/all/x.db", "/nowhere/at/all/x.db: cannot be opened: unable to open database file"),
    ],
)
def test_an_impossible_url(tmp_path: Path, url: str, expected: str) -> None:
    assert expected in refusal(tmp_path, url)


@pytest.mark.parametrize(
    "url",
    [
        "mysql://me:secret@host/name",
        "postgresql+nodriver://me:secret@host/name",
        "me:secret@host",
        "mysql://host/name?password=secret",
        "postgresql+nodriver://host/name?sslmode=require&sslpassword=secret&target=x",
        "host?password=secret",
        "mysql://me:se%40secret@host/name",
        "me:half@secret@host",
    ],
)
def test_no_message_shows_a_password(tmp_path: Path, url: str) -> None:
    message = refusal(tmp_path, url)
    assert "secret" not in message
    assert "host" in message


def test_a_driver_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    message = refusal(tmp_path, "postgresql://me:secret@host/name")
    assert "needs the package psycopg, which is not installed;" in message
    assert message.endswith("from a checkout: pip install '.[postgres]'")
    assert "secret" not in message


# --- what may happen later


def waiting_study() -> StudySpec:
    return parse(StudySpec, {"name": "one", "arms": {"cnn": {"network": "comparative-cnn"}}, "seeds": 1})


def test_a_database_that_stays_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Store.open(tmp_path).close()
    monkeypatch.setattr(connect, "BUSY_SECONDS", 0.05)
    other = sqlite3.connect(tmp_path / "leadline.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with Store.open(tmp_path) as store:
        assert store.studies() == []  # reading does not wait
        with pytest.raises(StoreError, match=r"leadline\.db: database is locked$"):
            store.register(expand(waiting_study()))
        other.rollback()
        store.register(expand(waiting_study()))
    other.close()


def test_a_lock_that_is_held_too_long_is_waited_for_with_patience(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Store.open(tmp_path).close()
    monkeypatch.setattr(connect, "BUSY_SECONDS", 0.05)
    other = sqlite3.connect(tmp_path / "leadline.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    freed = threading.Timer(0.6, other.rollback)
    freed.start()
    with Store.open(tmp_path, patience=60.0) as store:
        store.register(expand(waiting_study()))
        assert not freed.is_alive()
        assert store.counts("one")["waiting"] == 1
    other.close()


def test_a_database_that_cannot_be_opened_for_a_while(tmp_path: Path) -> None:
    left = 3

    def refuse(*_: object) -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            error = sqlite3.OperationalError("unable to open database file")
            error.sqlite_errorname = "SQLITE_CANTOPEN"
            raise error

    with Store.open(tmp_path) as store:
        store.register(expand(waiting_study()))
        store.close()
        event.listen(store._engine, "do_connect", refuse)
        with pytest.raises(StoreError, match=r"unable to open database file$"):
            store.counts("one")
        store.patience = 60.0
        assert store.counts("one")["waiting"] == 1
        assert left < 0


def test_a_full_disk_keeps_what_was_committed(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        store.register(expand(waiting_study()))
        claim = store.claim("one", "host:1:1", 60.0)
        assert claim is not None
        store.commit_epoch(claim.trial, "host:1:1", [Record(1, 1, "train", "loss", 1.0)], "c1", 1, 1.0)
        pages = query(tmp_path / "leadline.db", "PRAGMA page_count")[0][0]
        store.close()
        event.listen(store._engine, "connect", lambda raw, _: raw.execute(f"PRAGMA max_page_count = {pages}"))
        many = [Record(step, 2, "train", "loss", 1.0) for step in range(20_000)]
        with pytest.raises(StoreError, match=r"leadline\.db: database or disk is full$"):
            store.commit_epoch(claim.trial, "host:1:1", many, "c2", 2, 1.0)
        assert len(store.records_frame("one")) == 1
        assert store.trial(claim.trial).checkpoint == "c1"


# --- migrations


def test_the_migrations_make_the_schema(tmp_path: Path) -> None:
    Store.open(tmp_path).close()
    engine = create_engine(f"sqlite:///{tmp_path}/leadline.db")
    with engine.connect() as connection:
        options = {"version_table": VERSION_TABLE, "compare_type": True}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), metadata) == []
        migrated = dict(connection.exec_driver_sql("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL").all())
    engine.dispose()
    # What the comparison leaves out: checks, partial indices, tables without row numbers.
    for table in metadata.sorted_tables:
        assert ("WITHOUT ROWID" in migrated[table.name]) == (not table.dialect_options["sqlite"]["with_rowid"])
    checks = {
        str(c.name): str(c.sqltext)
        for table in metadata.sorted_tables
        for c in table.constraints
        if hasattr(c, "sqltext")
    }
    assert set(checks) == {"ck_trials_state", "ck_trials_owner"}
    for name, condition in checks.items():
        assert f"CONSTRAINT {name} CHECK ({condition})" in migrated["trials"]
    assert migrated["ix_trials_owner"].endswith("WHERE owner IS NOT NULL")
    assert migrated["ix_study_trials_unsettled"].endswith("WHERE settled = 0")


def test_the_newest_revision_is_the_head() -> None:
    assert ScriptDirectory(str(MIGRATIONS)).get_current_head() == HEAD


def test_a_store_of_the_first_schema_is_brought_up_with_all_it_holds(tmp_path: Path) -> None:
    old = sqlite3.connect(tmp_path / "leadline.db")
    old.executescript((Path(__file__).parent / "fixtures" / "store-0001.sql").read_text())
    records = old.execute("SELECT count(*) FROM records").fetchone()[0]
    old.close()
    with Store.open(tmp_path) as store:
        study = store.study("old").expand()
        assert study.spec.probes == ProbeSpec()
        assert list(store.trials_frame("old")["state"]) == ["finished"] * 4
        assert len(store.records_frame("old")) == records > 0
        assert len(store.outputs("old")) == 4
        assert store.measurements("old", "flow") == {}
        for trial in store.trials_frame("old")["trial"]:
            assert parse(TrialSpec, store.trial(trial).spec).probes == ProbeSpec()
        # the same study is entered anew
        store.register(study)
        claim = store.claim("old", "elsewhere:7:1", 60.0)
        assert claim is not None
        store.commit_epoch(claim.trial, "elsewhere:7:1", [], None, 1, 1.0, {"flow": b"seen"})
        assert store.measurements("old", "flow") == {claim.trial: [(1, b"seen")]}
    assert query(tmp_path / "leadline.db", f"SELECT version_num FROM {VERSION_TABLE}") == [(HEAD,)]


def test_a_store_of_the_second_schema_goes_on_with_what_it_had_begun(tmp_path: Path) -> None:
    old = sqlite3.connect(tmp_path / "leadline.db")
    old.executescript((Path(__file__).parent / "fixtures" / "store-0002.sql").read_text())
    records = old.execute("SELECT count(*) FROM records").fetchone()[0]
    old.close()
    with Store.open(tmp_path) as store:
        frame = store.trials_frame("old")
        assert list(frame["state"]) == ["finished", "finished", "running", "waiting"]
        assert list(frame["note"]) == [None] * 4
        assert len(store.records_frame("old")) == records > 0
        assert {trial: len(seen) for trial, seen in store.measurements("old", "flow").items()} == dict(
            zip(frame["trial"][:3], (2, 2, 1), strict=True)
        )
        claim = store.claim("old", "elsewhere:9:1", 60.0)
        assert claim is not None
        assert (claim.trial, claim.epochs_done, claim.earlier_checkpoint) == (frame["trial"][2], 1, None)
        assert claim.checkpoint is not None
        store.commit_epoch(claim.trial, "elsewhere:9:1", [], "c2", 2, 1.0)
        record = store.trial(claim.trial)
        assert (record.earlier_checkpoint, record.earlier_epoch) == (claim.checkpoint, 1)
        store.register(store.study("old").expand())
    assert query(tmp_path / "leadline.db", f"SELECT version_num FROM {VERSION_TABLE}") == [(HEAD,)]


def test_a_migration_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(connect, "BUSY_SECONDS", 1.0)
        full = Store(None, tmp_path)._engine
        event.listen(full, "connect", lambda raw, _: raw.execute("PRAGMA max_page_count = 5"))
        with pytest.raises(StoreError, match="full"):
            connect.prepare(full)
        full.dispose()
    assert query(tmp_path / "leadline.db", "SELECT name FROM sqlite_master") == []
    with Store.open(tmp_path) as store:
        assert store.studies() == []


@pytest.mark.slow
def test_importing_and_reopening_stay_light(tmp_path: Path) -> None:
    Store.open(tmp_path).close()
    script = (
        "import sys; from pathlib import Path; from leadline.store import Store\n"
        "with Store.open(Path(sys.argv[1])) as store: store.studies()\n"
        "print(sorted({'torch', 'alembic', 'pandas', 'scipy', 'altair'} & sys.modules.keys()))"
    )
    result = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"
