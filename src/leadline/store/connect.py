"""Database connections: addresses, the settings of SQLite and PostgreSQL, transactions, schema migrations."""

import os
import sqlite3
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import (
    URL,
    Column,
    ColumnElement,
    Connection,
    Engine,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    func,
    inspect,
    literal,
    make_url,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    IntegrityError,
    InterfaceError,
    NoSuchModuleError,
    OperationalError,
    ProgrammingError,
)
from sqlalchemy.pool import Pool, QueuePool

from leadline.errors import StoreError, absence, not_installed, unknown
from leadline.store.retry import retry
from leadline.store.schema import HEAD, VERSION_TABLE, Moment, metadata
from leadline.store.secrets import hide_secrets

BUSY_SECONDS = 60.0
"""Maximum seconds that a SQLite transaction waits for another process."""

FIRST_PAUSE = 0.1
"""Seconds before the first retry of an unreachable database."""

DRIVERS = {"sqlite": "pysqlite", "postgresql": "psycopg"}

GONE_ON_SQLITE = ("SQLITE_BUSY", "SQLITE_CANTOPEN", "SQLITE_IOERR", "SQLITE_LOCKED", "SQLITE_PROTOCOL")
FULL_ON_POSTGRESQL, FORBIDDEN_ON_POSTGRESQL = "53100", "42501"

CONNECTION = {
    **{"client_encoding": "utf8", "connect_timeout": 10, "tcp_user_timeout": 60_000},
    **{"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3},
}
"""Options of a PostgreSQL connection, in seconds and milliseconds: a server that disappears is noticed within a minute,
instead of after the system's default of two hours."""

ABANDONED_SECONDS = 60.0
"""Time after which PostgreSQL ends the transaction of an idle client."""

SERVERS_END = {
    **{"tcp_keepalives_idle": 30, "tcp_keepalives_interval": 10, "tcp_keepalives_count": 3},
    **{"tcp_user_timeout": 60_000},
}
"""The same as `CONNECTION` on the server side: otherwise a client that disappears keeps the row of its trial locked
until the server's system drops the dead connection."""

UNREADABLE = (ValueError, TypeError, LookupError, ArithmeticError, EOFError, zlib.error, zipfile.BadZipFile)
"""Errors of decoding JSON, times, numbers, text and packed arrays that something else than Leadline wrote."""

WATCHED = "leadline_watched"
"""Key of a connection's info for the files that it has open: path -> (device, inode)."""

T = TypeVar("T")

_version = Table(VERSION_TABLE, MetaData(), Column("version_num", String(32)))


def address(url: str | None, folder: Path) -> URL:
    """Return the address of a database; by default, the one in the runs folder.

    Raises:
        StoreError: it is not a database URL, or the database cannot be shared between processes.
    """
    if url is None:
        return URL.create("sqlite", database=str(folder / "leadline.db"))
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise StoreError(
            f"store {hide_secrets(url)!r} is not a database URL; expected one like sqlite:///runs/leadline.db or"
            " postgresql://host/name"
        ) from None
    kind = parsed.get_backend_name()
    if kind not in DRIVERS:
        raise StoreError(f"store {display_address(parsed)}: {unknown('database', kind, DRIVERS)}")
    database = parsed.database or ":memory:"
    if kind == "sqlite" and (database.startswith((":memory:", "file:")) or "mode" in parsed.query):
        raise StoreError(
            f"store {display_address(parsed)} is in memory, where other processes cannot see it, or has a mode of"
            f" its own; use sqlite:///FILE"
        )
    # SQLAlchemy's own default for PostgreSQL differs between its versions.
    return parsed if "+" in parsed.drivername else parsed.set(drivername=f"{kind}+{DRIVERS[kind]}")


def absolute(url: str | None) -> str | None:
    """Return an address that is valid in any working directory: the path of a SQLite file is made absolute."""
    parsed = None if url is None else address(url, Path())
    if parsed is None or parsed.get_backend_name() != "sqlite" or parsed.database is None:
        return url
    return parsed.set(database=str(Path(parsed.database).absolute())).render_as_string(hide_password=False)


def display_address(url: URL) -> str:
    """Return the address for messages: the path of a file, or a URL without passwords."""
    if url.get_backend_name() == "sqlite" and url.database:
        return url.database
    return hide_secrets(url.render_as_string(hide_password=True))


def engine_for(
    url: URL, connect: Callable[[], sqlite3.Connection] | None = None, pool: type[Pool] = QueuePool
) -> Engine:
    """Create the engine for an address without opening a connection.

    Args:
        url: from `address`.
        connect: opens a connection to a SQLite database that is only read; None: the database is at the address.
        pool: of the connections that `connect` opens.

    Raises:
        StoreError: the driver is unknown or not installed.
    """
    on_sqlite = url.get_backend_name() == "sqlite"
    options: dict[str, Any] = {"connect_args": {"timeout": BUSY_SECONDS}}
    if not on_sqlite:
        given = {name: value for name, value in CONNECTION.items() if name not in url.query}
        options = {"pool_pre_ping": True, "connect_args": given if url.get_driver_name() == "psycopg" else {}}
    if connect is not None:
        options = {"creator": connect, "poolclass": pool}
    try:
        engine = create_engine(url, **options)
    except NoSuchModuleError:
        raise StoreError(
            f"store {display_address(url)}: unknown driver {url.drivername!r}; remove it from the URL to use"
            f" {url.get_backend_name()}+{DRIVERS[url.get_backend_name()]}"
        ) from None
    except ModuleNotFoundError as error:
        extra = "postgres" if error.name == "psycopg" else None
        raise StoreError(not_installed(f"store {display_address(url)}", str(error.name), extra)) from None
    if engine.dialect.is_async:
        raise StoreError(
            f"store {display_address(url)}: the driver {url.drivername!r} is asynchronous; remove it from the URL"
        )
    if on_sqlite and connect is not None:
        event.listen(engine, "connect", _leave_transactions_to_engine)
    else:
        event.listen(engine, "connect", _set_up_sqlite if on_sqlite else _set_up_postgresql)
    if on_sqlite:
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _set_up_postgresql(connection: Any, _: object) -> None:
    # Not in the address, because connection poolers reject unknown settings there.
    wanted = {**SERVERS_END, "idle_in_transaction_session_timeout": round(1000 * ABANDONED_SECONDS)}
    values = ", ".join(f"('{name}', '{value}')" for name, value in wanted.items())
    with closing(connection.cursor()) as cursor:
        # only settings that the server knows: old versions lack some
        cursor.execute(
            "SELECT set_config(name, wanted.value, false)"
            f" FROM pg_settings JOIN (VALUES {values}) AS wanted (name, value) USING (name)"
        )
    connection.commit()


def _leave_transactions_to_engine(connection: Any, _: object) -> None:
    # By default, Python's sqlite3 begins transactions by itself, and only before a write.
    connection.isolation_level = None


def _set_up_sqlite(connection: Any, record: Any) -> None:
    _leave_transactions_to_engine(connection, None)
    record.info[WATCHED] = {}
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = FULL")


def _begin_sqlite(connection: Connection) -> None:
    # A transaction that reads and then writes must hold the write lock from the start: otherwise it fails without
    # waiting if the data that it read have changed.
    write = connection.get_execution_options().get("leadline_write")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


class Unreachable(StoreError):
    """The database is unreachable or locked; a later attempt may succeed."""


def retry_while_unreachable(body: Callable[[bool], T], seconds: float, unless: Callable[[], bool] = lambda: False) -> T:
    """Return body(again), retrying as `retry` does while the database is unreachable and `unless` returns False.

    Raises:
        StoreError: the last error of `body`.
    """
    began = time.monotonic()

    def is_transient(error: Exception) -> bool:
        return isinstance(error, Unreachable) and not unless()

    try:
        return retry(body, seconds, FIRST_PAUSE, is_transient)
    except Unreachable as error:
        if seconds > 0 and (seconds_tried := round(time.monotonic() - began)):
            raise Unreachable(f"{error}; gave up after {seconds_tried} s") from error
        raise


def _is_transient(error: DBAPIError) -> bool:
    """Return whether an error is due to the connection or a lock, and not to the statement or a full disk."""
    if error.connection_invalidated:
        return True
    if isinstance(error.orig, sqlite3.Error):
        return getattr(error.orig, "sqlite_errorname", "").startswith(GONE_ON_SQLITE)
    kinds = isinstance(error, OperationalError | InterfaceError)
    return kinds and getattr(error.orig, "sqlstate", None) != FULL_ON_POSTGRESQL


@contextmanager
def transaction(engine: Engine, *, write: bool = False) -> Iterator[Connection]:
    """Run the body in one transaction, which is rolled back if the body raises.

    Raises:
        Unreachable: the database is unreachable or locked.
        StoreError: it is full, read-only or damaged, or its file is not in its place any more.
    """
    options: dict[str, Any] = {"leadline_write": write}
    if not write and engine.dialect.name == "postgresql":
        # All queries of a transaction see the same snapshot, as on SQLite.
        options |= {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    try:
        with name_damage(engine), engine.connect().execution_options(**options) as connection:
            with connection.begin():
                yield connection
            if WATCHED in connection.info:
                _check_files(connection)
    except DBAPIError as error:
        forbidden = getattr(error.orig, "sqlstate", None) == FORBIDDEN_ON_POSTGRESQL
        if isinstance(error, IntegrityError | ProgrammingError) and not forbidden:
            raise
        kind = Unreachable if _is_transient(error) else StoreError
        raise kind(f"store {display_address(engine.url)}: {hide_secrets(one_line(error.orig))}") from error


@contextmanager
def name_damage(engine: Engine) -> Iterator[None]:
    """Say of what the body cannot unpack that the store is damaged.

    Raises:
        StoreError: the body met a stored value that cannot be read.
    """
    try:
        yield
    except UNREADABLE as error:
        raise StoreError(
            f"store {display_address(engine.url)}: holds a value that cannot be read ({one_line(error)}); `leadline"
            " check` says where the store is damaged"
        ) from error


def _check_files(connection: Connection) -> None:
    """Check that the files of a SQLite database are still those that a connection has open.

    A process goes on reading and writing files that were deleted or moved, and all of it is gone when it ends. So the
    content is saved to another file first.

    Raises:
        StoreError: one of them was deleted, moved or replaced.
    """
    path = Path(connection.engine.url.database or "").absolute()
    watched = connection.info[WATCHED]
    for file in (path, path.with_name(f"{path.name}-wal")):
        try:
            status = file.stat()
            found = (status.st_dev, status.st_ino)
        except OSError:
            found = None
        if found != watched.get(file, found) or (found is None and file == path):
            raise StoreError(
                f"store {path}: {file.name} was deleted, moved or replaced while it was in use; {_rescue(connection)}"
            )
        if found is not None:
            watched[file] = found


def _rescue(connection: Connection) -> str:
    """Save the content of a database whose file is not in its place any more; return what was done, for a message."""
    path = Path(connection.engine.url.database or "").absolute()
    for place in (path.with_name(f"{path.name}.rescued"), Path(tempfile.gettempdir()) / f"{path.name}.rescued"):
        try:
            _copy_database(connection, place)
        except (sqlite3.Error, OSError):
            continue
        return (
            f"all that it held is in {place}: stop every process that uses the store, move that file to {path},"
            f" remove {path.name}-wal and {path.name}-shm beside it, and run the same command again"
        )
    return "what it held could not be saved elsewhere; put it back if you can, and run the same command again"


def one_line(error: object) -> str:
    """Return the text of an error on one line."""
    return " ".join(str(error).split()) or type(error).__name__


def clock(connection: Connection) -> ColumnElement[datetime]:
    """Return an SQL expression for the database server's time, so that the clocks of workers may differ."""
    if connection.dialect.name == "sqlite":
        return literal(datetime.now(UTC), Moment)
    return func.clock_timestamp(type_=Moment)


def now(connection: Connection) -> datetime:
    """Return the time of `clock`."""
    if connection.dialect.name == "sqlite":
        return datetime.now(UTC)
    moment: datetime = connection.execute(select(clock(connection))).scalar_one()
    return moment


def build_insert(connection: Connection, table: Table) -> postgresql.Insert | sqlite.Insert:
    """Return an INSERT statement of the connection's dialect, which supports ON CONFLICT."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


def check_database(connection: Connection) -> list[str]:
    """Return what SQLite finds wrong with a database, one line each; nothing for other databases."""
    if connection.dialect.name != "sqlite":
        return []
    found = [str(row[0]) for row in connection.exec_driver_sql("PRAGMA integrity_check(20)")]
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").all()
    lines = [line for line in found if line != "ok"]
    return lines + [f"{table}, row {row}: refers to a missing row of {other}" for table, row, other, _ in broken[:20]]


def backup(engine: Engine, path: Path) -> None:
    """Write a consistent copy of a SQLite database into a new file, while others go on using it.

    Raises:
        StoreError: the store is another database, the file exists, or it cannot be written.
    """
    if engine.dialect.name != "sqlite":
        raise StoreError(f"store {display_address(engine.url)}: is backed up with pg_dump; this copies SQLite only")
    if path.exists():
        raise StoreError(f"{path}: exists already; choose a new file for the backup")
    with transaction(engine) as connection:
        try:
            _copy_database(connection, path)
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{path}: cannot be written: {one_line(error)}") from None


def _copy_database(connection: Connection, path: Path) -> None:
    """Copy a SQLite database with all that its connection sees, atomically."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with closing(sqlite3.connect(partial)) as copy:
            connection.connection.driver_connection.backup(copy)  # type: ignore[union-attr]
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def is_there(engine: Engine) -> bool:
    """Return whether a store exists, without creating one.

    Raises:
        StoreError: the database server cannot be reached, or a folder is where the file of the store would be.
    """
    _check_place(engine)
    if engine.dialect.name == "sqlite":
        return Path(engine.url.database or "").is_file()
    with transaction(engine) as connection:
        return _schema_version(connection) is not None


def _check_place(engine: Engine) -> None:
    """Raise StoreError where a SQLite store cannot be: at the path of a folder, or below that of a file."""
    path = Path(engine.url.database or "")
    if engine.dialect.name == "sqlite" and engine.url.database:
        if path.is_dir():
            raise StoreError(f"store {display_address(engine.url)}: {absence(path, 'file')}")
        if path.parent.is_file():
            raise StoreError(f"store {display_address(engine.url)}: {path.parent} {absence(path.parent, 'folder')}")


def prepare(engine: Engine) -> None:
    """Migrate the database to the newest schema; several processes may call this at once.

    Raises:
        StoreError: it cannot be opened or written, is not a database, holds tables of another program, or was made by
            a newer version of Leadline.
    """
    _check_place(engine)
    if engine.dialect.name == "sqlite":
        _use_write_ahead_log(engine)
    if not is_current(engine):
        with transaction(engine, write=True) as connection:
            _migrate(connection)


def is_current(engine: Engine) -> bool:
    """Return whether a database has the newest schema.

    Raises:
        StoreError: it cannot be read, or is not a database.
    """
    with transaction(engine) as connection:
        return _schema_version(connection) == HEAD


def _use_write_ahead_log(engine: Engine) -> None:
    # Unlike a transaction, changing the mode does not wait for other processes.
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection = engine.raw_connection()
            try:
                connection.cursor().execute("PRAGMA journal_mode = WAL")
            finally:
                connection.close()
            return
        except (sqlite3.Error, DBAPIError) as error:
            reason = one_line(error.orig if isinstance(error, DBAPIError) else error)
            if "locked" not in reason or time.monotonic() > deadline:
                locked = "locked" in reason or "unable to open" in reason
                kind = Unreachable if locked else StoreError
                raise kind(f"store {display_address(engine.url)}: cannot be opened: {reason}") from None
            time.sleep(0.02)


def _schema_version(connection: Connection) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.execute(select(_version.c.version_num)).scalar()


def _migrate(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(func.hashtext(VERSION_TABLE))))
    # Read again, now that no other process can be migrating.
    version = _schema_version(connection)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    name = display_address(connection.engine.url)
    if version is None and (strangers := sorted(metadata.tables.keys() & set(inspect(connection).get_table_names()))):
        raise StoreError(
            f"store {name}: holds the tables of another program ({', '.join(strangers)}); use a separate database for"
            f" Leadline"
        )
    if version is not None and version not in known:
        raise StoreError(
            f"store {name}: its schema {version!r} was made by a newer version of Leadline (this one supports up to"
            f" {HEAD!r}); upgrade Leadline or choose another store"
        )
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
