"""The live page: what is read of a store, what is said and what is not, who may see it, and in a browser."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from browser import Browser
from leadline.analysis.diagnostics import diagnose, of_gradients
from leadline.api import Results, Study
from leadline.cli import app as commands
from leadline.errors import LeadlineError, StoreError
from leadline.live import ledger as ledger_module
from leadline.live.app import MOST_LISTENERS, follow, make_app
from leadline.live.drawing import Scale, describe_map, flow_range, scale_epochs, scale_values
from leadline.live.flow import FlowReader
from leadline.live.guard import HEADERS, Guard, Hosts, is_loopback
from leadline.live.ledger import Ledger, describe_worker, turn
from leadline.live.pages import Pages, View
from leadline.live.server import address
from leadline.live.snapshot import Flow, FlowMap, StudyNow
from leadline.parts.metrics.record import Record
from leadline.reports.charts.frames import curve_frame, sum_up, unfinished_frame
from leadline.reports.charts.heat import SHOWN_LAYERS
from leadline.store import Store, WorkerId
from leadline.store.following import Follower, Lease, Link
from leadline.store.leases import ENDED
from leadline.store.read_only import open_to_follow

HOSTILE = "</script><script>alert(1)</script>"
LOCAL = Hosts.of("127.0.0.1")


def study(name: str, **changes: Any) -> Study:
    keys: dict[str, Any] = {
        "data": {"name": "digits", "train": 40, "validation": 20, "test": 20},
        "training": {"epochs": 3, "batch_size": 20},
        "arms": {"plain": "comparative-plain", "residual": "comparative-resnet"},
        "probes": ["flow"],
        "vary": {"blocks": [1, 2]},
        "contrasts": [["residual", "plain"]],
        "seeds": 2,
        "title": "Shown & seen",
    }
    return Study(name, **{key: value for key, value in (keys | changes).items() if value is not None})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a study whose trials have ended."""
    runs = tmp_path_factory.mktemp("made") / "runs"
    study("shown").run(runs, workers=0, progress=False)
    return runs


@pytest.fixture
def runs(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture(autouse=True)
def _read_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "LEAST_SECONDS", 0.0)
    monkeypatch.setattr(ledger_module, "REST", 0.0)


def change(runs: Path, statement: str, *values: object) -> None:
    with contextlib.closing(sqlite3.connect(runs / "leadline.db")) as database:
        database.execute(statement, values)
        database.commit()


def unfinish(runs: Path, count: int = 1, epoch: int = 2) -> None:
    """Make the last trials such as another machine runs, of which some epochs are stored."""
    until = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%d %H:%M:%S.%f")
    chosen = "(SELECT trial_id FROM study_trials ORDER BY position DESC LIMIT ?)"
    change(runs, f"DELETE FROM records WHERE epoch > ? AND trial_id IN {chosen}", epoch, count)
    change(runs, f"DELETE FROM measurements WHERE epoch > ? AND trial_id IN {chosen}", epoch, count)
    change(runs, f"UPDATE study_trials SET settled = 0 WHERE trial_id IN {chosen}", count)
    change(
        runs,
        "UPDATE trials SET state = 'running', owner = 'node/1/2:77:5', lease_until = ?, checkpoint_epoch = ?"
        f" WHERE id IN {chosen}",
        until,
        epoch,
        count,
    )


def ledger_of(runs: Path) -> Ledger:
    return Ledger(Follower.follow(runs))


def shown(runs: Path, name: str = "shown") -> StudyNow:
    return ledger_of(runs).study(name)


def client(runs: Path, hosts: Hosts = LOCAL, token: str | None = None) -> TestClient:
    application = make_app(Follower.follow(runs), hosts, token)
    return TestClient(application, base_url="http://127.0.0.1:8642", follow_redirects=False)


def files(runs: Path) -> dict[str, bytes]:
    return {str(path.relative_to(runs)): path.read_bytes() for path in runs.rglob("*") if path.is_file()}


# --- what is read


def test_progress_is_that_of_the_store(runs: Path) -> None:
    unfinish(runs)
    now = shown(runs)
    with Store.open_existing(runs) as store:
        frame = store.trials_frame("shown")
        assert now.counts == store.counts("shown")
    page = ledger_of(runs).trials("shown", None, 1)
    assert [(one.trial, one.arm, one.seed, one.state) for one in page.trials] == list(
        frame[["trial", "arm", "seed", "state"]].itertuples(index=False, name=None)
    )
    assert [one.seconds for one in page.trials] == frame["seconds"].tolist()
    assert [one.epoch for one in page.trials] == [3] * 7 + [2]
    assert {one.epochs for one in page.trials} == {3}
    assert now.done == pytest.approx(7 + 2 / 3)
    [running] = now.running
    seconds = frame[frame["arm"].eq(running.arm)]["seconds"]
    assert running.worker is not None and (running.worker.name, running.worker.trouble) == ("node, process 77", "")
    assert running.left == pytest.approx(seconds.sum() / 5)  # of five epochs of its arm that are stored, one is left
    assert now.left == pytest.approx(running.left)
    assert running.device == "cpu"


def test_curves_are_those_of_the_report(runs: Path) -> None:
    unfinish(runs)
    with Store.open_existing(runs) as store:
        trials, records = store.trials_frame("shown"), store.records_frame("shown")
    now = shown(runs)
    assert [one.quantity for one in now.curves] == ["accuracy", "loss"]
    for curves in now.curves:
        means = curve_frame(trials, sum_up(trials, records), curves.quantity)
        single = unfinished_frame(trials, sum_up(trials, records), curves.quantity)
        found, alone = [], []
        for panel in curves.panels:
            split, _, level = panel.title.partition(", ")
            name = {"Training": "train", "Validation": "validation"}[split]
            for line in panel.lines:
                low, high = line.low or line.values, line.high or line.values
                for row in zip(line.epochs, line.values, low, high, strict=True):
                    found.append((line.arm, level, name, *row))
            for line in panel.single:
                alone += [(line.arm, level, name, *row) for row in zip(line.epochs, line.values, strict=True)]
        for ours, frame, values in (
            (found, means, ["mean", "low", "high"]),
            (alone, single, ["value"]),
        ):
            rows = frame[["base", "level", "split", "epoch", *values]].itertuples(index=False, name=None)
            expected = sorted(rows)
            assert [row[:4] for row in sorted(ours)] == [row[:4] for row in expected]
            assert np.allclose([row[4:] for row in sorted(ours)], [row[4:] for row in expected], rtol=1e-6)


def test_means_end_where_the_first_trial_of_an_arm_stops_early(runs: Path) -> None:
    first = "(SELECT trial_id FROM study_trials ORDER BY position LIMIT 1)"
    change(runs, f"DELETE FROM records WHERE epoch > 2 AND trial_id = {first}")
    # a value that is not finite is left out of the mean, and does not end it
    change(runs, f"UPDATE records SET value = 9e999 WHERE epoch = 2 AND trial_id = {first}")
    with Store.open_existing(runs) as store:
        trials, records = store.trials_frame("shown"), store.records_frame("shown")
    [arm] = trials.loc[[0], "arm"]
    now = shown(runs)
    ends = set()
    for curves in now.curves:
        means = curve_frame(trials, sum_up(trials, records), curves.quantity)
        assert means.groupby("arm")["epoch"].max().to_dict() == {one: 2 if one == arm else 3 for one in means["arm"]}
        drawn = [line for panel in curves.panels for line in panel.lines]
        assert sum(len(line.epochs) for line in drawn) == len(means)
        ends |= {(line.epochs[-1], line.trials) for line in drawn}
    assert ends == {(2, 1), (3, 2)}
    page = client(runs).get("/study/shown").text
    assert "with the range over them, up to the last epoch that all finished trials of an arm have." in page


def test_gradient_flow_is_that_of_the_diagnostics(runs: Path) -> None:
    with Store.open_existing(runs) as store:
        found = diagnose(store.trials_frame("shown"), store.records_frame("shown"), store.measurements("shown", "flow"))
    rows = of_gradients(found.frame)
    flow = shown(runs).flow
    assert flow is not None and [one.arm for one in flow.maps] == list(rows["arm"].unique())
    for one in flow.maps:
        own = rows[rows["arm"].eq(one.arm)].assign(value=np.log10(rows["value"]))
        table = own.pivot_table("value", "position", "epoch", "mean")
        assert one.epochs == tuple(table.columns) == (1, 2, 3)
        assert one.layers == tuple(own.drop_duplicates("position").sort_values("position")["layer"])
        assert np.allclose(one.values, table.to_numpy(), rtol=1e-6)


def test_what_has_changed_is_read_again(runs: Path) -> None:
    unfinish(runs, 2)
    found = ledger_of(runs)
    before = found.study("shown")
    with Store.open(runs) as store:
        [trial, _] = [one.trial for one in before.running]
        worker = "node/1/2:77:5"
        values = [Record(6, 3, split, name, 0.25) for split in ("train", "validation") for name in ("loss", "accuracy")]
        store.commit_epoch(trial, worker, values, f"{trial}-9.safetensors", 3, 1.0)
        after = found.study("shown")
        assert [one.epoch for one in before.running] == [2, 2] and [one.epoch for one in after.running] == [3, 2]
        panels = [one for one in after.curves[0].panels if one.title.startswith("Validation")]
        assert [line.epochs for one in panels for line in one.single] == [(1, 2, 3), (1, 2)]
        assert panels[0].single[0].values[-1] == 0.25
        store.finish(trial, worker, "failed", error=f"out of memory {HOSTILE}\nline 1\nline 2")
    last = found.study("shown")
    assert last.counts["failed"] == 1 and last.done >= after.done > before.done
    [failed] = last.troubled
    assert (failed.trial, failed.error, failed.detail) == (trial, f"out of memory {HOSTILE}", "line 1\nline 2")
    assert found.trials("shown", "failed", 1).trials == (failed,)


def test_lists_are_divided_into_pages(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "ROWS", 3)
    found = ledger_of(runs)
    every = [one.trial for number in (1, 2, 3) for one in found.trials("shown", None, number).trials]
    assert len(set(every)) == 8
    assert found.trials("shown", None, 99).number == 3 and found.trials("shown", "failed", 1).trials == ()
    assert turn(0, 0) == (1, 1) and turn(5, 6) == (2, 2)


@pytest.mark.parametrize(
    ("owner", "late", "said"),
    [
        ("node/1/2:77:5", -5, ""),
        ("node/1/2:77:5", 125, "no heartbeat; its lease ended 2 min 05 s ago"),
        ("something else", 2, "no heartbeat; its lease ended 2 s ago"),
        (str(WorkerId.current()), -5, ""),
        (str(WorkerId.current()).replace(f":{os.getpid()}:", ":1:"), -5, "the process has ended; another worker"),
    ],
    ids=["elsewhere", "late", "unknown", "this process", "a process that is gone"],
)
def test_workers_that_may_not_work_are_named(owner: str, late: int, said: str) -> None:
    moment = datetime.now(UTC)
    found = describe_worker(Lease(owner, moment - timedelta(seconds=late)), moment)
    assert found.trouble.startswith(said) and bool(found.trouble) == bool(said)


def test_a_lease_that_was_ended_is_no_silence() -> None:
    found = describe_worker(Lease("node/1/2:77:5", ENDED), datetime.now(UTC))
    assert found.trouble == "it has given its trial up; another worker will take it"


# --- the verdict


def test_a_study_of_fixed_seeds_has_no_verdict_before_its_end(runs: Path) -> None:
    whole = Results.open("shown", runs).verdict()
    ended = shown(runs).verdict
    assert ended.kind == "final" and list(ended.lines) == whole.to_json()["headline"]
    unfinish(runs)
    early = shown(runs).verdict
    assert (early.kind, early.table) == ("pending", None)
    assert early.lines[0] == "No verdict yet: it comes when all 8 trials have ended; waiting for 1 trial."
    assert "error" not in " ".join(early.lines)


def test_no_test_result_is_shown_before_the_end(runs: Path) -> None:
    final = "series_id IN (SELECT id FROM series WHERE split LIKE 'final%')"
    change(runs, f"UPDATE records SET value = 77.6543 WHERE {final}")
    unfinish(runs)
    text = re.sub(r"<[^>]*>", " ", " ".join(Pages(ledger_of(runs)).parts(View("shown")).values()))
    assert "77.6" not in text and "1 running" in text


@pytest.mark.slow
def test_a_study_that_decides_shows_its_interim_analysis(tmp_path: Path) -> None:
    decide = {"metric": "test_error", "margin": 5.0, "max_seeds": 4, "first": 2, "step": 2}
    runs = tmp_path / "runs"
    study("deciding", decide=decide, seeds=None, vary={}).run(runs, workers=0, progress=False)
    ended = shown(runs, "deciding").verdict
    assert list(ended.lines) == Results.open("deciding", runs).verdict().to_json()["headline"]
    assert ended.kind == "final" and ended.table is not None
    unfinish(runs)
    interim = shown(runs, "deciding").verdict
    assert interim.kind == "interim"
    assert list(interim.lines) == Results.open("deciding", runs).verdict().to_json()["headline"]
    assert interim.lines[-1].startswith("Provisional: waiting for 1 of")


# --- a store that is only read


def test_nothing_is_written(runs: Path) -> None:
    before = files(runs)
    pages = Pages(ledger_of(runs))
    for view in (View(), View("shown"), View("nothing"), View("shown", "failed", 3)):
        pages.page(view, datetime.now(UTC))
    assert files(runs) == before
    with Store.open(runs) as store:  # and a log that others write is read, and left alone
        store.rename_study("shown", "renamed")
        before = files(runs)
        assert pages.ledger.study("renamed").total == 8
        assert {name: one for name, one in files(runs).items() if "shm" not in name} == {
            name: one for name, one in before.items() if "shm" not in name
        }


def test_a_followed_store_cannot_be_written(runs: Path) -> None:
    engine = open_to_follow(Follower.follow(runs)._engine.url)
    with engine.connect() as connection, pytest.raises(Exception, match=r"readonly|read-only"):
        connection.exec_driver_sql("DELETE FROM trials")


def line_of(call: Callable[[], object]) -> str:
    with pytest.raises(StoreError) as caught:
        call()
    [line] = caught.value.lines
    return line


def test_a_store_that_cannot_be_followed_is_one_line(runs: Path, tmp_path: Path) -> None:
    missing = line_of(lambda: Follower.follow(tmp_path / "none"))
    assert missing.endswith("leadline.db: does not exist yet; `leadline run STUDY` creates it")
    assert not (tmp_path / "none").exists()
    change(runs, "UPDATE leadline_version SET version_num = '0001'")
    before = files(runs)
    assert "has the schema of another version of Leadline" in line_of(lambda: Follower.follow(runs))
    assert files(runs) == before
    (runs / "leadline.db").write_bytes(b"something else" * 100)
    assert "file is not a database" in line_of(lambda: Follower.follow(runs))


def test_a_store_that_goes_away_and_comes_back_is_said_and_read(runs: Path) -> None:
    pages = Pages(ledger_of(runs))
    whole = pages.parts(View("shown"))
    assert whole["notice"] == ""
    kept = (runs / "leadline.db").rename(runs / "kept.db")
    gone = pages.parts(View("shown"))
    assert set(gone) == {"notice", "health"}
    assert "does not exist yet" in gone["notice"] and "cannot be read" in gone["health"]
    kept.rename(runs / "leadline.db")
    assert pages.parts(View("shown")) == whole


def test_a_locked_store_is_said(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leadline.store.read_only.FOLLOWING_SECONDS", 0.05)
    pages = Pages(ledger_of(runs))
    database = sqlite3.connect(runs / "leadline.db")
    database.execute("PRAGMA locking_mode = EXCLUSIVE")
    database.execute("BEGIN EXCLUSIVE")
    database.execute("UPDATE trials SET note = 'x'")
    try:
        assert "database is locked" in pages.parts(View("shown"))["notice"]
    finally:
        database.close()
    assert pages.parts(View("shown"))["notice"] == ""


# --- who may see it


def test_every_answer_has_the_headers_that_keep_it_to_itself(runs: Path) -> None:
    with client(runs) as http:
        for path, status in (("/", 200), ("/study/shown", 200), ("/live.js", 200), ("/no", 404), ("/study/no", 404)):
            answer = http.get(path)
            assert answer.status_code == status
            assert {name: answer.headers[name] for name in HEADERS} == HEADERS
            assert "access-control-allow-origin" not in answer.headers and "server" not in answer.headers
        policy = HEADERS["Content-Security-Policy"]
        assert "unsafe" not in policy and "default-src 'none'" in policy and "http" not in policy
        page = http.get("/study/shown").text
    # nothing in it that its own policy forbids
    assert not re.search(r"<script(?! src=\"/live.js\" defer></script>)|\son\w+=|\sstyle=|<style", page)
    assert set(re.findall(r"(?:src|href)=\"([^\"#?]*)", page)) <= {
        *("data:,", "/live.css", "/live.js", "/", "", "/study/shown"),
        *(address for address in re.findall(r"href=\"([^\"]*)", page) if address.startswith("data:image/png;base64,")),
    }


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"])
def test_only_reading_is_answered(runs: Path, method: str) -> None:
    with client(runs) as http:
        for path in ("/", "/study/shown", "/events/", "/none"):
            answer = http.request(method, path)
            assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")
        assert http.head("/study/shown").status_code == 200
        assert http.head("/events/study/shown").headers["content-type"].startswith("text/event-stream")


@pytest.mark.parametrize(
    ("host", "header", "allowed"),
    [
        ("127.0.0.1", "127.0.0.1:8642", True),
        ("127.0.0.1", "localhost:9000", True),  # the other end of a tunnel
        ("127.0.0.1", "LOCALHOST", True),
        ("127.0.0.1", "[::1]:8642", True),
        ("127.0.0.1", "evil.example", False),
        ("127.0.0.1", "evil.example:8642", False),
        ("127.0.0.1", "localhost.evil.example", False),
        ("127.0.0.1", "10.0.0.7", False),
        ("127.0.0.1", "[::1]evil.example", False),
        ("127.0.0.1", "", False),
        ("0.0.0.0", "10.0.0.7:8642", True),
        ("0.0.0.0", socket.gethostname(), True),
        ("0.0.0.0", "evil.example", False),
        ("::", "[fd00::7]:8642", True),
        ("node.example", "node.example:80", True),
    ],
)
def test_only_its_own_names_are_answered(host: str, header: str, allowed: bool) -> None:
    assert Hosts.of(host).allow(header) == allowed


def test_another_name_gets_nothing(runs: Path) -> None:
    with client(runs) as http:
        for path in ("/", "/events/", "/live.css"):
            answer = http.get(path, headers={"Host": "evil.example"})
            assert answer.status_code == 421 and "shown" not in answer.text


def test_loopback_addresses_are_known() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.8.8.8", "::1", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.7", "localhost.example", "")))


def test_a_token_opens_the_page_once_and_a_cookie_afterwards(runs: Path) -> None:
    with client(runs, Hosts.of("0.0.0.0"), "the-token") as http:
        for path in (
            "/",
            "/study/shown",
            "/events/",
            "/live.js",
            "/?token=",
            "/?token=the-toke",
            "/?token=the-token%00",
        ):
            answer = http.get(path)
            assert answer.status_code == 403 and "shown" not in answer.text
        assert http.get("/", headers={"Cookie": "leadline-live=other"}).status_code == 403
        answer = http.get("/study/shown?state=failed&token=the-token&page=2")
        assert (answer.status_code, answer.headers["location"]) == (303, "/study/shown?state=failed&page=2")
        cookie = answer.headers["set-cookie"]
        assert {"HttpOnly", "Path=/", "SameSite=strict"} <= {part.strip() for part in cookie.split(";")}
        for path in ("/", "/study/shown", "/live.js"):
            answer = http.get(path)
            assert answer.status_code == 200 and "the-token" not in answer.text


@pytest.mark.parametrize("path", ["//evil.example", "/\\evil.example", "///evil.example/a", "/%2f%2fevil.example"])
def test_the_token_leads_to_no_other_server(runs: Path, path: str) -> None:
    sent: list[dict[str, Any]] = []
    scope = {
        **{"type": "http", "method": "GET", "path": path, "query_string": b"token=t"},
        "headers": [(b"host", b"127.0.0.1")],
    }

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return {"type": "http.disconnect"}

    asyncio.run(Guard(make_app(Follower.follow(runs), LOCAL), LOCAL, "t")(scope, receive, send))
    [location] = [value.decode() for name, value in sent[0]["headers"] if name == b"location"]
    assert re.match(r"/[^/\\]", location)


@pytest.mark.parametrize("name", ["../../etc/passwd", "..%2f..%2fleadline.db", "/etc/passwd", "shown%00", HOSTILE])
def test_names_from_outside_are_looked_up_and_nothing_else(runs: Path, name: str) -> None:
    with client(runs) as http:
        for place in (f"/study/{name}", f"/{name}", f"/study/shown?state={name}&page={name}"):
            answer = http.get(place)
            assert answer.status_code in (200, 404)
            assert "root:" not in answer.text and "<script>alert" not in answer.text


def test_what_trials_say_is_text(runs: Path) -> None:
    change(runs, "UPDATE trials SET state = 'failed', error = ?, note = ?", f"{HOSTILE}\n{HOSTILE}", HOSTILE)
    page, found = Pages(ledger_of(runs)).page(View("shown"), datetime.now(UTC))
    assert found and "<script>alert" not in page and page.count("&lt;script&gt;alert(1)") >= 3 * 8


# --- events


def test_events_send_what_has_changed() -> None:
    states = iter([{"a": "1", "b": "2"}, {"a": "1", "b": "2"}, {"a": "1", "b": "3"}, {"notice": "gone"}])
    left = [3]

    def read() -> dict[str, str]:
        left[0] -= 1
        return next(states)

    async def collect() -> list[str]:
        return [text async for text in follow(read, lambda: left[0] < 0)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("leadline.live.app.LEAST_SECONDS", 0.0)
        first, *events = asyncio.run(collect())
    assert first.startswith("retry:")
    sent = [json.loads(text.partition("data: ")[2]) for text in events]
    assert sent == [{"a": "1", "b": "2"}, {"b": "3"}, {"notice": "gone"}]
    assert all(text.startswith("event: parts\ndata: ") and text.endswith("\n\n") for text in events)


# --- axes


def test_axes_have_round_ticks_and_hold_every_value() -> None:
    assert scale_epochs([1]).ticks == (1.0,)
    assert scale_epochs(range(1, 41)).ticks == (10.0, 20.0, 30.0, 40.0)
    linear = scale_values([0.1, 0.97])
    assert linear.ticks == (0.0, 0.2, 0.4, 0.6, 0.8) and linear.low == 0 and not linear.log
    assert scale_values([1e-4, 2.0]).log and not scale_values([0.0, 2.0]).log
    assert scale_values([]).ticks[0] == 0 and scale_values([0.0]).high > 0
    scale = Scale(0.01, 100.0, (), log=True)
    assert [scale.place(value) for value in (0.001, 0.01, 1.0, 1e9)] == pytest.approx([0, 0, 0.5, 1])


def test_an_epoch_whose_drawn_layers_have_no_gradients_is_left_out() -> None:
    layers = tuple(f"layer {place}" for place in range(3 * SHOWN_LAYERS))
    norms = np.full((2, len(layers)), np.nan)
    norms[0] = 1.0
    norms[1, 1] = 1.0  # between two that are drawn
    link = Link(1, "t", "plain", "plain", {}, 0)
    reader = FlowReader(store=None, _profiles={("t", epoch): ("weight", layers, norms[epoch]) for epoch in (0, 1)})  # type: ignore[arg-type]
    drawn = reader._map("plain", [link], [0, 1])
    assert drawn is not None and drawn.epochs == (0,) and len(drawn.layers) == SHOWN_LAYERS
    assert describe_map(drawn).startswith("plain, epoch 0: gradient norm 1 in the first layer")


def flow_of(*exponents: float) -> Flow:
    return Flow("each weight", (FlowMap("a", tuple(range(1, len(exponents) + 1)), ("w",), np.array([exponents])),), 1)


def test_colours_tell_ordinary_gradients_apart_whatever_exploded() -> None:
    assert flow_range(flow_of(-3.5, -1.2, 0.4)) == (-4, 1)
    assert flow_range(flow_of(-2.5, -2.2, -2.0, -1.7, 14.6)) == (-3, 4)
    assert flow_range(flow_of(-40.0, -2.0, -2.0, 0.0)) == (-12, 0)
    assert flow_range(flow_of(-2.0, -2.0)) == (-3, -2)
    assert flow_range(flow_of(float("nan"), 0.5)) == (0, 1)


# --- the command


def refused(*arguments: str) -> str:
    result = CliRunner().invoke(commands, ["live", *arguments])
    assert isinstance(result.exception, LeadlineError), result.output
    [line] = result.exception.lines
    return line


def test_what_keeps_the_server_from_starting_is_one_line(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "does not exist yet" in refused("--runs", str(runs / "none"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused("--runs", str(runs), "--port", str(port))
    assert said == f"port {port} is taken; choose another, or --port 0 for any that is free"
    assert "cannot be listened on" in refused("--runs", str(runs), "--host", "203.0.113.1", "--port", "0")
    for module in [name for name in sys.modules if name.startswith(("leadline.live.server", "uvicorn"))]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert "leadline live needs the package uvicorn, which is not installed" in refused("--runs", str(runs))
    assert "'.[live]'" in refused("--runs", str(runs))


class Server:
    """`leadline live` in a process of its own."""

    def __init__(self, runs: Path, *options: str, port: int = 0) -> None:
        command = [sys.executable, "-m", "leadline", "live", "--runs", str(runs), "--port", str(port), *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        found = re.search(r"http://\S+", self.line)
        assert found is not None, self.process.communicate()
        self.address = found[0]
        self.port = int(re.findall(r":(\d+)/", self.address)[0])

    def end(self, how: signal.Signals = signal.SIGINT) -> tuple[int, str]:
        self.process.send_signal(how)
        _, said = self.process.communicate(timeout=60)
        return self.process.returncode, said


@pytest.mark.slow
def test_an_interrupt_ends_the_server_while_a_page_is_open(runs: Path) -> None:
    server = Server(runs, "--token")
    assert re.search(r"/\?token=[\w-]{32}\s", server.line)
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as listening:
        token = server.address.partition("token=")[2]
        request = f"GET /events/ HTTP/1.1\r\nHost: localhost\r\nCookie: leadline-live-{server.port}={token}\r\n\r\n"
        listening.sendall(request.encode())
        received = b""
        while b"event: parts" not in received:
            received += listening.recv(1 << 16)
        assert b"200 OK" in received
        assert server.end() == (130, "")


@pytest.mark.slow
def test_pages_that_were_closed_make_room_for_others(runs: Path) -> None:
    server = Server(runs)
    request = b"GET /events/ HTTP/1.1\r\nHost: localhost\r\n\r\n"

    def listen() -> socket.socket:
        opened = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        opened.sendall(request)
        return opened

    def first_line(opened: socket.socket) -> bytes:
        return opened.recv(1 << 16).partition(b"\r\n")[0]

    try:
        every = [listen() for _ in range(MOST_LISTENERS)]
        assert {first_line(opened) for opened in every} == {b"HTTP/1.1 200 OK"}
        with contextlib.closing(listen()) as one_more:
            assert first_line(one_more).startswith(b"HTTP/1.1 503")
        for opened in every:
            opened.close()
        deadline = time.monotonic() + 60
        while True:
            with contextlib.closing(listen()) as again:
                if first_line(again) == b"HTTP/1.1 200 OK":
                    break
            assert time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        assert server.end() == (130, "")


@pytest.mark.parametrize(
    ("host", "token", "expected"),
    [
        ("127.0.0.1", None, "http://127.0.0.1:80/"),
        ("::1", None, "http://[::1]:80/"),
        ("0.0.0.0", "t", f"http://{socket.gethostname()}:80/?token=t"),
    ],
)
def test_the_address_that_is_printed_can_be_opened(host: str, token: str | None, expected: str) -> None:
    assert address(host, 80, token) == expected


@pytest.mark.slow
def test_the_server_imports_no_torch() -> None:
    code = "import sys, leadline.cli, leadline.live.server, leadline.live.verdict; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


# --- in a browser


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    started: list[Server] = []

    def start(runs: Path, port: int = 0) -> Server:
        started.append(Server(runs, port=port))
        return started[-1]

    yield start
    for server in started:
        if server.process.poll() is None:
            server.process.kill()
        server.process.communicate()


def wait_for(browser: Browser, expression: str, seconds: float = 120.0) -> Any:
    """Return what an expression gives as soon as it is true."""
    deadline = time.monotonic() + seconds
    while not (found := browser.value(expression)):
        assert time.monotonic() < deadline, (expression, browser.value("document.body.innerText"), browser.complaints())
        time.sleep(0.1)
    return found


def whole_page(browser: Browser) -> str:
    """Return the text of the page, without the free space on the disk, which other programs change."""
    text = str(browser.value("document.getElementById('main').innerText"))
    return re.sub(r"[\d.,]+ \w+ free of", "free of", text)


@pytest.mark.slow
def test_a_browser_sees_a_study_grow(tmp_path: Path, browser: Browser, serving: Callable[..., Server]) -> None:
    runs = tmp_path / "runs"
    Store.open(runs).close()
    server = serving(runs)
    browser.open(server.address)
    assert "no studies yet" in browser.value("document.body.innerText")
    keys = {"training": {"epochs": 60, "batch_size": 4}, "seeds": 1, "vary": {}}
    path = tmp_path / "grow.yaml"
    path.write_text(json.dumps(written(keys)))
    command = [sys.executable, "-m", "leadline", "run", str(path), "--runs", str(runs), "--workers", "0"]
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(browser, "document.querySelector('article a') !== null")  # without reloading
        browser.open(f"{server.address}study/grow")
        browser.value("window.loadedOnce = true")
        epoch = "parseInt(document.querySelector('#running td')?.textContent ?? '0')"
        first = wait_for(browser, epoch)
        wait_for(browser, f"{epoch} > {first}")
        wait_for(browser, "document.querySelectorAll('#curves .curves path.single').length > 0")
        assert browser.value("window.loadedOnce") is True
        assert "No verdict yet" in browser.value("document.getElementById('verdict').innerText")
        assert browser.complaints() == []
        assert all(address.startswith(server.address) or address.startswith("data:") for address in browser.requests())

        server.process.kill()
        server.process.communicate()
        wait_for(browser, "document.getElementById('status').textContent.startsWith('Disconnected')")
        assert browser.value("document.querySelectorAll('#curves .curves').length") > 0  # what was there stays
        serving(runs, port=server.port)
        wait_for(browser, "document.getElementById('status').textContent.startsWith('Live')")
        wait_for(browser, "document.querySelector('#verdict .lead') !== null")
        assert browser.value("window.loadedOnce") is True
        assert running.wait(120) == 0
        wait_for(browser, "/2 of 2 trials have ended/.test(document.getElementById('progress').innerText)")
        before = whole_page(browser)
    finally:
        running.kill()
        running.wait()
    browser.open(f"{server.address}study/grow", scripts=False)
    assert whole_page(browser) == before  # the page is whole without its script
    assert browser.value("document.getElementById('status').textContent").startswith("As of ")
    browser.open(f"{server.address}study/grow")
    wait_for(browser, "document.getElementById('status').textContent.startsWith('Live')")
    assert whole_page(browser) == before
    assert browser.complaints() == []


def written(keys: dict[str, Any]) -> dict[str, Any]:
    """What `study` gives, as a file."""
    return {
        **{
            "name": "grow",
            "title": "Shown & seen",
            "data": {"name": "digits", "train": 40, "validation": 20, "test": 20},
        },
        **{"arms": {"plain": {"network": "comparative-plain"}, "residual": {"network": "comparative-resnet"}}},
        **{"probes": ["flow"], "contrasts": [["residual", "plain"]], **keys},
    }


@pytest.mark.slow
@pytest.mark.parametrize("width", [320, 390, 800])
def test_no_page_scrolls_sideways(width: int, runs: Path, browser: Browser, serving: Callable[..., Server]) -> None:
    change(runs, "UPDATE trials SET state = 'failed', error = ? WHERE id = 1", "a/long/path/" * 30)
    server = serving(runs)
    for page in ("", "study/shown", "study/none"):
        browser.open(f"{server.address}{page}", width=width)
        assert browser.value("document.documentElement.scrollWidth") <= width


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
def test_pages_keep_the_rules_of_accessibility(
    dark: bool, runs: Path, browser: Browser, serving: Callable[..., Server], axe: str
) -> None:
    server = serving(runs)
    for page in ("", "study/shown", "study/none"):
        browser.open(f"{server.address}{page}", dark=dark)
        assert browser.violations(axe) == [], page
