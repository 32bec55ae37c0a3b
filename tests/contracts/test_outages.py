"""A PostgreSQL server that goes away while a study runs: nothing lost, nothing doubled, the same bits.

A test cannot stop the server that it is given, so Leadline reaches it through a proxy on loopback, which can be gone or
silent for a while, or break a connection at any message. The database that LEADLINE_TEST_STORE names is emptied.
"""

import itertools
import os
import select
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import pandas as pd
import pytest
from sqlalchemy import URL, create_engine, make_url, text

from leadline.errors import StoreError
from leadline.probes.table import FlowTable
from leadline.record import Record
from leadline.running import worker
from leadline.running.checkpoints import Interval
from leadline.running.executors import Executor, InProcess, LocalProcesses, run_until_ended
from leadline.running.job import Event, Job
from leadline.spec.study import StudySpec
from leadline.store import Owner, Store, connect
from leadline.store.schema import VERSION_TABLE, metadata
from leadline.study import Study, expand

NAME = "outage"
HERE = str(Owner.current())
HOUR = 3600.0
STUDY = """
name: outage
data: {name: digits, train: 100, validation: 40, test: 40}
training: {epochs: 3, batch_size: 20, optimizer: {name: adam}}
arms: {plain: {network: comparative-plain}, residual: {network: comparative-resnet}}
vary: {blocks: [1]}
seeds: 2
probes: [flow]
"""
T = TypeVar("T")


# --- the server, and the way there

Fate = Literal["arrives", "lost", "unanswered", "abandoned"]
"""Of a client's message: the connection breaks before it arrives, before it is answered, or so that the client alone
hears of it."""


class Proxy:
    """A port of loopback that leads to the server."""

    def __init__(self, server: URL) -> None:
        self.server = server
        self.fate: Callable[[bytes], Fate] = arrives
        self.refused = self.ended = 0  # connections while it was gone; those that were abandoned and the server ended
        self._gone = False
        self._flowing = threading.Event()
        self._flowing.set()
        self._links: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._door = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._open, daemon=True).start()

    @property
    def url(self) -> str:
        """The server's address, by way of this port, in plain text."""
        query = {name: value for name, value in self.server.query.items() if name not in ("host", "port")}
        plain = {**query, "sslmode": "disable", "gssencmode": "disable"}
        url = self.server.set(host="127.0.0.1", port=self._door.getsockname()[1], query=plain)
        return url.render_as_string(hide_password=False)

    def leave(self, seconds: float | None = None) -> None:
        """Break every connection, and let nobody in for so long, or until `come_back`."""
        self._gone = True
        self._break_all()
        if seconds is not None:
            threading.Timer(seconds, self.come_back).start()

    def come_back(self) -> None:
        self._gone = False

    def fall_silent(self, seconds: float, then_break: bool) -> None:
        """Let everybody in and nothing through for so long; then go on, or break every connection."""
        self._flowing.clear()

        def end() -> None:
            if then_break:
                self._break_all()
            self._flowing.set()

        threading.Timer(seconds, end).start()

    def close(self) -> None:
        self.leave()
        self._flowing.set()
        self._door.shutdown(socket.SHUT_RDWR)
        self._door.close()

    def _break_all(self) -> None:
        with self._lock:
            for link in self._links:
                with suppress(OSError):
                    link.shutdown(socket.SHUT_RDWR)

    def _open(self) -> None:
        while True:
            try:
                client, _ = self._door.accept()
            except OSError:
                return
            if self._gone:
                self.refused += 1
                client.close()
            else:
                threading.Thread(target=self._lead, args=(client,), daemon=True).start()

    def _reach(self) -> socket.socket:
        host, port = self.server.host or str(self.server.query.get("host", "localhost")), self.server.port or 5432
        if not host.startswith("/"):
            link = socket.create_connection((host, port))
            link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return link
        link = socket.socket(socket.AF_UNIX)
        link.connect(f"{host}/.s.PGSQL.{port}")
        return link

    def _lead(self, client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with client, self._reach() as server, suppress(OSError):
            with self._lock:
                self._links |= {client, server}
            try:
                self._pass_on(client, server)
            finally:
                with self._lock:
                    self._links -= {client, server}

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        while True:
            from_ = select.select([server, client], [], [])[0][0]
            self._flowing.wait()
            data = from_.recv(2**16)
            fate = self.fate(data) if from_ is client and data else "arrives"
            if data and fate != "lost":
                (server if from_ is client else client).sendall(data)
            if data and fate == "arrives":
                continue
            server.settimeout(5.0)
            if fate == "abandoned":
                server.recv(2**16)
                client.shutdown(socket.SHUT_RDWR)
            else:
                server.shutdown(socket.SHUT_WR)
            # when the server has hung up, what it does about a broken connection is done
            while server.recv(2**16):
                pass
            self.ended += fate == "abandoned"
            return


def arrives(message: bytes) -> Fate:
    return "arrives"


@dataclass
class Cut:
    """What befalls one message: the one of that number, from 0."""

    number: int
    fate: Fate
    heard: int = 0

    def __call__(self, message: bytes) -> Fate:
        self.heard += 1
        return self.fate if self.heard == self.number + 1 else "arrives"

    @property
    def fell(self) -> bool:
        return self.heard > self.number


@pytest.fixture
def proxy(postgresql: str) -> Iterator[Proxy]:
    engine = create_engine(postgresql)
    with engine.begin() as connection:
        metadata.drop_all(connection)
        connection.execute(text(f"DROP TABLE IF EXISTS {VERSION_TABLE}"))
    engine.dispose()
    opened = Proxy(make_url(postgresql))
    yield opened
    opened.close()


# --- a study


def study(**more: Any) -> Study:
    import yaml

    return expand(StudySpec.model_validate({**yaml.safe_load(STUDY), **more}))


def results(store: Store) -> tuple[Any, ...]:
    """Everything that must be equal to the bit, and how often each trial was begun."""
    frame = store.records_frame(NAME)
    frame = frame[frame["split"] != "time"]
    flow = {
        (trial, epoch): (one.names, one.kinds, one.steps.tobytes(), one.values.tobytes())
        for trial, epochs in store.measurements(NAME, "flow").items()
        for epoch, content in epochs
        for one in [FlowTable.from_bytes(content)]
    }
    predictions = {trial: tuple(one.tobytes() for one in pair) for trial, pair in store.predictions(NAME).items()}
    trials = store.trials_frame(NAME)
    about = [
        (one.trial, one.state, one.attempts, one.note, one.checkpoint, one.checkpoint_epoch, one.owner)
        for one in map(store.trial, trials["trial"])
    ]
    values = [value.hex() for value in frame["value"]]
    return about, list(frame.drop(columns="value").itertuples(index=False, name=None)), values, flow, predictions


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    """What the study gives when nothing happens."""
    runs = tmp_path_factory.mktemp("calm")
    with Store.open(runs) as store:
        store.register(study())
        InProcess().run(Job(NAME, runs, checkpoint_every=Interval(steps=1)), lambda event: None)
        found = results(store)
    assert [one[1:4] for one in found[0]] == [("finished", 1, None)] * 4
    return found


class Storm:
    """What befalls a study's commits, by their number, while it runs."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.commits = itertools.count(1)
        self.befell: Counter[str] = Counter()

    def __call__(self, message: bytes) -> Fate:
        if b"COMMIT" not in message:
            return "arrives"
        number = next(self.commits)
        fate: Fate = "arrives"
        if number in (12, 45):
            self.proxy.leave(1.2)
            self.befell["gone, before a commit arrived"] += 1
            return "lost"
        if number == 25:
            self.proxy.fall_silent(1.0, then_break=True)
            self.befell["silent, then broken"] += 1
        elif number == 35:
            self.proxy.fall_silent(1.0, then_break=False)
            self.befell["silent"] += 1
        elif number % 4 == 0:
            self.befell["a commit's answer lost"] += 1
            fate = "unanswered"
        elif number % 7 == 0:
            self.befell["a commit lost"] += 1
            fate = "lost"
        return fate


@pytest.mark.parametrize("executor", [InProcess(), LocalProcesses(2)], ids=["in process", "local processes"])
def test_a_study_survives_its_server(
    proxy: Proxy, calm: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, executor: Executor
) -> None:
    monkeypatch.setattr(worker, "HEARTBEAT_SECONDS", 0.05)  # in this process: beats fall into outages as well
    told: list[Event] = []
    job = Job(NAME, tmp_path, proxy.url, checkpoint_every=Interval(steps=1))
    with Store.open(tmp_path, proxy.url, patience=60.0) as store:
        store.register(study())
        proxy.fate = storm = Storm(proxy)
        run_until_ended(executor, job, store, told.append)
        proxy.fate = arrives
        assert results(store) == calm
        assert sorted(path.name for path in store.checkpoints.iterdir()) == sorted(one[4] for one in calm[0])
    assert storm.befell["gone, before a commit arrived"] == 2 and proxy.refused > 2
    assert set(storm.befell.values()) >= {1, 2} and len(storm.befell) == 5, storm.befell
    kinds = Counter(event.kind for event in told)
    del kinds["progress"]
    assert kinds == {"started": 4, "finished": 4}
