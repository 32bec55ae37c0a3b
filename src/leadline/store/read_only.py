"""Reading a SQLite store without writing: nothing is created or migrated in its place, so read-only media will do."""

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import URL, Engine
from sqlalchemy.pool import StaticPool

from leadline.errors import StoreError
from leadline.store.connect import BUSY_SECONDS, display_address, engine_for, is_current, one_line, prepare


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


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    address = f"file:{quote(str(path))}?{mode}"
    return sqlite3.connect(address, uri=True, timeout=BUSY_SECONDS, check_same_thread=False)


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
