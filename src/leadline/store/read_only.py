"""Reading a store without writing: nothing is created or migrated in its place, so read-only media will do."""

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import URL, Engine
from sqlalchemy.pool import NullPool, StaticPool

from leadline.errors import StoreError
from leadline.store.connect import BUSY_SECONDS, display_address, engine_for, is_current, is_there, one_line, prepare

FOLLOWING_SECONDS = 2.0
"""Maximum seconds that a reader who will come again waits for a locked SQLite database."""


def open_to_read(url: URL) -> Engine:
    """Return an engine that reads a SQLite database as it is at every transaction, and never writes to it.

    Where SQLite cannot read it in its place, because the folder is read-only and the database was left open, it is
    copied to memory first; so is one with the schema of an older version, and the copy is migrated.

    Raises:
        StoreError: it cannot be read, or is not a database.
    """
    path = Path(url.database or "").absolute()
    try:
        mode = _find_mode(path)
        engine = engine_for(url, lambda: _connect(path, mode)) if mode else None
        if engine is not None and is_current(engine):
            return engine
        return _copy_to_memory(url, path, mode)
    except sqlite3.Error as error:
        raise StoreError(f"store {display_address(url)}: cannot be read: {one_line(error)}") from None


def open_to_follow(url: URL) -> Engine:
    """Return an engine that reads a database again and again while others write to it, and never writes itself.

    SQLite's file is opened anew for every transaction, so that one that was removed or replaced is noticed.

    Raises:
        StoreError: it does not exist, cannot be read, is not a database, or has the schema of another version.
    """
    path = Path(url.database or "").absolute()
    on_sqlite = url.get_backend_name() == "sqlite"
    engine = engine_for(url, lambda: _connect_as_it_is(url, path), NullPool) if on_sqlite else engine_for(url)
    try:
        if not is_there(engine):
            raise missing(url)
        if not is_current(engine):
            raise StoreError(
                f"store {display_address(url)}: has the schema of another version of Leadline, and following changes"
                " nothing; an older one is migrated by `leadline run` or `leadline worker`"
            )
    except StoreError:
        engine.dispose()
        raise
    return engine


def missing(url: URL) -> StoreError:
    """Return the error for a store that is not there."""
    return StoreError(f"store {display_address(url)}: does not exist yet; `leadline run STUDY` creates it")


def _connect_as_it_is(url: URL, path: Path) -> sqlite3.Connection:
    if not path.is_file():
        raise missing(url)
    # Without a log nobody has it open; opened as one that may change, SQLite would create a log and leave it there.
    logged = path.with_name(f"{path.name}-wal").exists()
    return _connect(path, "mode=ro" if logged else "mode=ro&immutable=1", FOLLOWING_SECONDS)


def _find_mode(path: Path) -> str | None:
    """Return how SQLite can read a database in its place; None: it cannot."""
    for mode in ("mode=ro", "mode=ro&immutable=1"):
        # an immutable database is read without its log
        if "immutable" in mode and (log := path.with_name(f"{path.name}-wal")).exists() and log.stat().st_size:
            return None
        try:
            with closing(_connect(path, mode)) as connection:
                connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            return mode
        except sqlite3.OperationalError as error:
            if not error.sqlite_errorname.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_IOERR")):
                raise
    return None


def _connect(path: Path, mode: str, patience: float = BUSY_SECONDS) -> sqlite3.Connection:
    address = f"file:{quote(str(path))}?{mode}"
    return sqlite3.connect(address, uri=True, timeout=patience, check_same_thread=False)


def _copy_to_memory(url: URL, path: Path, mode: str | None) -> Engine:
    """Return an engine on a migrated copy of a database, which lives as long as the engine's connection."""
    memory = sqlite3.connect(":memory:", check_same_thread=False)
    with _readable(path, mode) as source:
        source.backup(memory)
    engine = engine_for(url, lambda: memory, StaticPool)
    prepare(engine)
    return engine


@contextmanager
def _readable(path: Path, mode: str | None) -> Iterator[sqlite3.Connection]:
    if mode:
        with closing(_connect(path, mode)) as connection:
            yield connection
        return
    with tempfile.TemporaryDirectory(prefix="leadline-") as folder:
        for name in (path.name, f"{path.name}-wal"):
            shutil.copyfile(path.with_name(name), Path(folder) / name)
        with closing(sqlite3.connect(Path(folder) / path.name)) as connection:
            yield connection
