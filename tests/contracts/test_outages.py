"""A PostgreSQL server that goes away while a study runs: nothing lost, nothing doubled, the same bits.

A test cannot stop the server that it is given, so Leadline reaches it through a proxy on loopback, which can be gone or
silent for a while, or break a connection at any message. The database that LEADLINE_TEST_STORE names is emptied.
"""

import itertools
import os
import re
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
import pytest
from sqlalchemy import URL, create_engine, make_url, text

from leadline.cli import main
from leadline.errors import StoreError
from leadline.parts.metrics.record import Record
from leadline.probes.table import FlowTable
from leadline.running import worker
from leadline.running.checkpoints import Interval
from leadline.running.executors import Executor, InProcess, LocalProcesses, run_until_ended
from leadline.running.job import Event, Job
from leadline.specs.study import StudySpec
from leadline.store import Store, WorkerId, connect
from leadline.store.schema import VERSION_TABLE, metadata
from leadline.study.expand import ExpandedStudy, expand

pytestmark = pytest.mark.slow

NAME = "outage"
HERE = str(WorkerId.current())
HOUR = 3600.0
STUDY = """
name: outage
data: {name: digits, train: 100, validation: 40, test: 40}
training: {epochs: 2, batch_size: 20, optimizer: {name: adam}}
arms: {plain: {network: comparative-plain}, residual: {network: comparative-resnet}}
vary: {blocks: [1]}
seeds: 1
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


def empty(server: URL) -> None:
    engine = create_engine(server)
    with engine.begin() as connection:
        metadata.drop_all(connection)
        connection.execute(text(f"DROP TABLE IF EXISTS {VERSION_TABLE}"))
    engine.dispose()


@pytest.fixture
def proxy(postgresql: str) -> Iterator[Proxy]:
    empty(make_url(postgresql))
    opened = Proxy(make_url(postgresql))
    yield opened
    opened.close()


# --- a study


def study(**more: Any) -> ExpandedStudy:
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
    predictions = {trial: (one.predicted.tobytes(), one.labels.tobytes()) for trial, one in store.outputs(NAME).items()}
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
    assert [one[1:4] for one in found[0]] == [("finished", 1, None)] * 2
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
        if number in (5, 33):
            self.proxy.leave(0.7)
            self.befell["gone, before a commit arrived"] += 1
            return "lost"
        if number == 15:
            self.proxy.fall_silent(0.5, then_break=True)
            self.befell["silent, then broken"] += 1
        elif number == 25:
            self.proxy.fall_silent(0.5, then_break=False)
            self.befell["silent"] += 1
        elif number % 8 == 0:
            self.befell["a commit's answer lost"] += 1
            fate = "unanswered"
        elif number % 11 == 0:
            self.befell["a commit lost"] += 1
            fate = "lost"
        return fate


@pytest.mark.parametrize("executor", [InProcess(), LocalProcesses(2)], ids=["in process", "local processes"])
def test_a_study_survives_its_server(
    proxy: Proxy, calm: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, executor: Executor
) -> None:
    monkeypatch.setattr(worker, "HEARTBEAT_SECONDS", 0.2)  # in this process: beats fall into outages as well
    told: list[Event] = []
    job = Job(NAME, tmp_path, proxy.url, checkpoint_every=Interval(steps=1))
    with Store.open(tmp_path, proxy.url, patience=60.0) as store:
        store.register(study())
        proxy.fate = storm = Storm(proxy)
        run_until_ended(executor, job, store, told.append)
        proxy.fate = arrives
        assert not [event.text for event in told if event.kind not in ("started", "progress", "finished")]
        assert results(store) == calm
        assert sorted(path.name for path in store.checkpoints.iterdir()) == sorted(one[4] for one in calm[0])
    assert storm.befell["gone, before a commit arrived"] == 2 and proxy.refused > 2
    assert set(storm.befell.values()) >= {1, 2} and len(storm.befell) == 5, storm.befell
    assert Counter(event.kind for event in told if event.kind != "progress") == {"started": 2, "finished": 2}


def test_a_server_that_stays_gone_ends_the_run_with_a_line_and_the_same_command_goes_on(
    proxy: Proxy, calm: tuple[Any, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "outage.yaml").write_text(STUDY)
    impatient = (
        "from leadline.cli import main; from leadline.running import worker; from leadline.study import pipeline\n"
        "pipeline.PATIENCE_SECONDS = worker.PATIENCE_SECONDS = 1.0; main()"
    )
    options = ["--store", proxy.url, "--executor", "inprocess", "--checkpoint-every", "1step"]
    command = ["run", str(tmp_path / "outage.yaml"), "--runs", str(tmp_path / "runs"), *options]
    seen: Counter[bytes] = Counter()

    def leaving(message: bytes) -> Fate:
        seen.update(word for word in (b"INSERT INTO records", b"COMMIT") if word in message)
        if not seen[b"INSERT INTO records"]:
            seen.clear()
        if seen[b"COMMIT"] < 3:
            return "arrives"
        proxy.leave()
        return "lost"

    proxy.fate = leaving
    gone = subprocess.run(
        [sys.executable, "-c", impatient, *command],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert gone.returncode == 1
    device, line = gone.stderr.splitlines()
    assert device == "Device: cpu (auto)."
    assert re.match(r"leadline: store postgresql\+psycopg://.*; gave up after \d+ s", line)
    proxy.fate = arrives
    with pytest.raises(StoreError) as refused:  # an address may be wrong: that is said at once
        Store.open(tmp_path / "runs", proxy.url)
    assert "\n" not in str(refused.value) and "gave up" not in str(refused.value)
    proxy.come_back()
    with Store.open(tmp_path / "runs", proxy.url) as store:
        assert store.counts(NAME)["finished"] < 2
        assert not store.records_frame(NAME).empty
    monkeypatch.setattr(sys, "argv", ["leadline", *command])
    with pytest.raises(SystemExit) as back:
        main()
    assert back.value.code == 0
    with Store.open(tmp_path / "runs", proxy.url) as store:
        assert results(store) == calm


# --- single calls


RECORDS = [Record(10, 1, "train", name, 0.1) for name in ("accuracy", "error", "loss")]
PREDICTIONS = np.arange(40, dtype=np.int16) % 10, np.arange(40, dtype=np.int16) % 7


class Trouble:
    """A store whose every call is troubled at one message, from the first that opens a connection for it."""

    def __init__(self, store: Store, proxy: Proxy) -> None:
        self.store = store
        self.proxy = proxy
        self.cut = Cut(0, "arrives")
        self.fell = False  # on any call since it was asked

    def __call__(self, call: Callable[..., T], *arguments: Any, **named: Any) -> T:
        self.store.close()
        self.proxy.fate = cut = Cut(self.cut.number, self.cut.fate)
        try:
            return call(*arguments, **named)
        finally:
            self.proxy.fate = arrives
            self.fell |= cut.fell

    def everywhere(self, fate: Fate) -> Iterator[int]:
        """Go through the numbers of all messages at which there is a call to trouble."""
        for number in itertools.count():
            self.cut, self.fell = Cut(number, fate), False
            yield number
            if not self.fell:
                return


@pytest.fixture
def trouble(proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Trouble]:
    monkeypatch.setattr(connect, "FIRST_PAUSE", 0.001)
    with Store.open(tmp_path, proxy.url, patience=20.0) as store:
        yield Trouble(store, proxy)


def many(**more: Any) -> ExpandedStudy:
    return study(arms={"plain": {"network": "comparative-plain"}}, contrasts=[], **more)


def settled_once(store: Store) -> None:
    """Every trial that is not waiting has what one undisturbed life of it gives."""
    frame = store.records_frame(NAME)
    ended = [store.trial(trial) for trial in frame["trial"].unique()]
    for one in ended:
        assert (one.state, one.attempts, one.seconds) == ("finished", 1, 6.5)
        assert (one.checkpoint, one.checkpoint_epoch, one.earlier_checkpoint) == ("b", 1, "a")
        assert (one.note, one.environment, one.owner) == ("b is damaged", {"cpu": "some"}, None)
    assert set(frame.groupby("trial").size()) == {3} and set(frame["value"]) == {0.1}
    assert set(map(len, store.measurements(NAME, "flow").values())) == {1}
    for outputs in store.outputs(NAME).values():
        predicted, labels = outputs.predicted, outputs.labels
        np.testing.assert_array_equal((predicted, labels), PREDICTIONS)
    counts = store.counts(NAME)
    assert counts["finished"] == len(ended) and counts["waiting"] == sum(counts.values()) - len(ended)


@pytest.mark.parametrize("fate", ["lost", "unanswered"])
def test_what_a_worker_does_may_break_at_any_message(trouble: Trouble, fate: Fate) -> None:
    store = trouble.store
    store.register(many(seeds=40))
    for number in trouble.everywhere(fate):
        # a series that the store has not numbered yet
        new = [*RECORDS[1:], RECORDS[0]._replace(name=f"new {number}")]
        claim = trouble(store.claim, NAME, HERE, HOUR)
        assert claim is not None and claim.attempts == 1
        trial = claim.trial
        trouble(store.set_environment, trial, HERE, {"cpu": "some"})
        trouble(store.commit_epoch, trial, HERE, new, "a", 1, 1.5, {"flow": b"seen"})
        store.commit_epoch(trial, HERE, [], "b", 1, 2.0)
        trouble(store.fall_back, trial, HERE, "b", "b is damaged")
        trouble(store.commit_epoch, trial, HERE, new, "b", 1, 3.0, {"flow": b"seen"})
        trouble(store.finish, trial, HERE, "finished", records=new, predictions=PREDICTIONS)
    settled_once(store)
    assert store.counts(NAME)["running"] == 0


@pytest.mark.parametrize("fate", ["lost", "unanswered"])
def test_what_a_driver_asks_may_break_at_any_message(trouble: Trouble, fate: Fate) -> None:
    store = trouble.store
    store.register(study())
    for number in range(2):
        claim = store.claim(NAME, HERE, HOUR)
        assert claim is not None
        store.finish(claim.trial, HERE, ("finished", "failed")[number], "no", records=RECORDS, predictions=PREDICTIONS)
    reads: list[Callable[[], Any]] = [
        lambda: store.counts(NAME),
        lambda: store.is_claimable(NAME, HERE),
        lambda: [one.name for one in store.studies()],
        lambda: store.trials_frame(NAME).drop(columns=["started", "ended"]).to_dict("list"),
        lambda: store.records_frame(NAME).to_dict("list"),
        lambda: {trial: one.predicted.tobytes() for trial, one in store.outputs(NAME).items()},
    ]
    expected = [str(read()) for read in reads]
    for number in trouble.everywhere(fate):
        assert [str(trouble(read)) for read in reads] == expected
        trouble(store.register, study(title=f"title {number}"))
        assert store.study(NAME).spec["title"] == f"title {number}"
    for _ in trouble.everywhere(fate):
        trouble(store.requeue_failed, NAME)
        claim = store.claim(NAME, HERE, HOUR)
        assert claim is not None and claim.attempts == 1
        store.finish(claim.trial, HERE, "failed", "no", records=RECORDS, predictions=PREDICTIONS)
    assert [str(read()) for read in reads] == expected


@pytest.mark.parametrize("fate", ["lost", "unanswered"])
def test_what_is_not_tried_again_says_that_the_server_is_out_of_reach(trouble: Trouble, fate: Fate) -> None:
    store, refused = trouble.store, 0
    store.register(many(seeds=1))
    for _ in trouble.everywhere(fate):
        claim = store.claim(NAME, HERE, HOUR)
        assert claim is not None
        for call, rest in ((store.heartbeat, (HOUR,)), (store.release, ())):
            try:
                assert trouble(call, claim.trial, HERE, *rest)
            except connect.Unreachable as error:
                assert "\n" not in str(error)
                refused += 1
        with suppress(StoreError):
            store.release(claim.trial, HERE)
        record = store.trial(claim.trial)
        assert (record.state, record.attempts, record.owner) == ("waiting", 0, None)
    assert refused >= 6


@pytest.mark.parametrize("fate", ["lost", "unanswered"])
def test_a_store_may_be_made_through_a_connection_that_breaks(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fate: Fate
) -> None:
    monkeypatch.setattr(connect, "FIRST_PAUSE", 0.001)
    for number in itertools.count(0, 11):
        proxy.fate = cut = Cut(number, fate)
        with Store.open(tmp_path, proxy.url, patience=20.0) as store:
            proxy.fate = arrives
            store.register(many(seeds=1))
            assert store.counts(NAME)["waiting"] == 1
        empty(proxy.server)
        if not cut.fell:
            break
    assert number > 20


def test_what_a_vanished_client_holds_is_let_go(trouble: Trouble, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client alone hears of the break: its transaction stays open, and holds the row that the next try needs."""
    monkeypatch.setattr(connect, "ABANDONED_SECONDS", 0.1)
    store = trouble.store
    store.register(many(seeds=1))
    claim = store.claim(NAME, HERE, HOUR)
    assert claim is not None
    for number in trouble.everywhere("abandoned"):
        trouble(store.set_environment, claim.trial, HERE, {"number": number})
        assert store.trial(claim.trial).environment == {"number": number}
    assert trouble.proxy.ended >= 2


def test_the_server_watches_for_dead_clients_as_well(proxy: Proxy, tmp_path: Path) -> None:
    with Store.open(tmp_path, proxy.url) as store, connect.transaction(store._engine) as connection:
        wanted = {**connect.SERVERS_END, "idle_in_transaction_session_timeout": 60_000}
        rows = connection.execute(text("SELECT name, setting FROM pg_settings")).all()
    settings = {name: int(value) for name, value in rows if name in wanted}
    local = proxy.server.host is None or proxy.server.host.startswith("/")  # where TCP's settings are none
    assert settings == ({name: 0 if "tcp" in name else value for name, value in wanted.items()} if local else wanted)
