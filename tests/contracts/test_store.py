"""What every backend of the store must do: SQLite in a file, and PostgreSQL, which `conftest.py` finds or starts.

The database that LEADLINE_TEST_STORE names is emptied before every test.
"""

import itertools
import json
import math
import os
import pickle
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import IntegrityError

import leadline
from leadline.errors import StoreError
from leadline.parts.metrics import Outputs
from leadline.parts.metrics.outputs import OUTPUTS, pack_outputs, unpack_outputs
from leadline.parts.metrics.record import Record
from leadline.reports.charts.frames import sum_up
from leadline.specs import ProbeSpec, TrialSpec, parse
from leadline.specs.study import StudySpec
from leadline.specs.tuning import FIRST_SEED
from leadline.store import STATES, LeaseLost, Store, WorkerId, connect, ledger, worker_id
from leadline.store import register as registering
from leadline.store.following import Follower
from leadline.store.schema import VERSION_TABLE, metadata
from leadline.study.expand import ExpandedStudy, expand
from leadline.study.match import match
from leadline.study.search import Search

HERE = str(WorkerId.current())
ELSEWHERE = "elsewhere:7:1"
HOUR = 3600.0
GONE = -1.0  # a lease that has run out when it is given


@dataclass
class Place:
    """Where the stores of one test are."""

    runs: Path
    url: str | None

    def open(self) -> Store:
        return Store.open(self.runs, self.url)

    def start(self, script: str, *arguments: object) -> "subprocess.Popen[str]":
        """Run a script in a process of its own, with `runs`, `url` and `arguments` defined."""
        given = (
            f"from pathlib import Path\nruns, url, arguments = Path({str(self.runs)!r}), {self.url!r}, {arguments!r}\n"
        )
        return subprocess.Popen([sys.executable, "-c", given + script], stdout=subprocess.PIPE, text=True)


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    url: str | None = request.getfixturevalue("postgresql") if request.param == "postgresql" else None
    if url is not None:
        engine = create_engine(url)
        with engine.begin() as connection:
            metadata.drop_all(connection)
            connection.execute(text(f"DROP TABLE IF EXISTS {VERSION_TABLE}"))
        engine.dispose()
    return Place(tmp_path / "runs", url)


@pytest.fixture
def store(place: Place) -> Iterator[Store]:
    with place.open() as opened:
        yield opened


def study(
    name: str = "one", seeds: int = 2, arms: tuple[str, ...] = ("cnn", "resnet"), **more: object
) -> ExpandedStudy:
    networks = {arm: {"network": f"comparative-{arm}"} for arm in arms}
    return expand(parse(StudySpec, {"name": name, "arms": networks, "seeds": seeds, **more}))


def epoch_records(epoch: int, value: float = 1.0) -> list[Record]:
    return [Record(10 * epoch, epoch, "train", name, value) for name in ("accuracy", "error", "loss")]


def finish_next(store: Store, name: str = "one", **more: Any) -> str:
    claim = store.claim(name, HERE, HOUR)
    assert claim is not None
    store.finish(claim.trial, HERE, **{"state": "finished", **more})
    return claim.trial


# --- entering


def enter_at(place: Place, revision: str, *entered: tuple[dict[str, Any], ExpandedStudy]) -> None:
    """Make a store of an old schema with studies: their specifications as they were written then, and their trials."""
    engine, config = connect.engine_for(connect.address(place.url, place.runs)), Config()
    place.runs.mkdir()
    config.set_main_option("script_location", str(Path(leadline.__file__).parent / "store" / "migrations"))
    moment = datetime.now(UTC).replace(tzinfo=None)
    study_row = "INSERT INTO studies (id, name, hash, spec, created) VALUES (:id, :name, 'old', :spec, :now)"
    trial_row = (
        "INSERT INTO trials (id, hash, spec, seed, state, attempts, created, checkpoint_epoch)"
        " VALUES (:id, :hash, :spec, :seed, 'waiting', 0, :now, 0)"
    )
    link_row = (
        "INSERT INTO study_trials (study_id, position, trial_id, arm, base, factors, settled)"
        " VALUES (:study, :position, :trial, :arm, :arm, :factors, :settled)"
    )
    numbers = itertools.count(1001)  # beyond those that the database itself gives
    with connect.transaction(engine, write=True) as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        for plain, old in entered:
            id_ = next(numbers)
            row = {"id": id_, "name": old.name, "spec": json.dumps(plain), "now": moment}
            connection.execute(text(study_row), row)
            for position, (arm, spec) in enumerate(old.trials()):
                content = json.dumps(spec.model_dump(mode="json"))
                row = {"id": (trial := next(numbers)), "hash": spec.content_hash, "spec": content, "seed": spec.seed}
                connection.execute(text(trial_row), {**row, "now": moment})
                row = {"study": id_, "position": position, "trial": trial, "arm": arm.name, "settled": False}
                connection.execute(text(link_row), {**row, "factors": json.dumps(arm.factors)})
    engine.dispose()


def test_a_store_of_the_first_schema_goes_on(place: Place) -> None:
    old = study("old")
    enter_at(place, "0001", (old.spec.model_dump(mode="json"), old))
    with place.open() as store:
        claim = store.claim("old", HERE, HOUR)
        assert claim is not None and claim.trial == next(old.trials())[1].content_hash
        store.commit_epoch(claim.trial, HERE, epoch_records(1), "c1", 1, 1.0, {"flow": b"seen"})
        store.finish(claim.trial, HERE, "finished")
        assert store.counts("old")["finished"] == 1 and len(store.records_frame("old")) == 3


@pytest.mark.slow
def test_what_a_run_wrote_into_a_specification_moves_beside_it(place: Place) -> None:
    tune = {"learning_rate": {"log": [0.001, 1]}, "budget": 2}
    decide = {"max_seeds": 5}
    asked = study("old", 5, match="parameters", tune=tune, decide=decide, probes=["flow"], title="Deep")
    search = Search(match(asked))
    with Store.open(place.runs.with_name("elsewhere")) as elsewhere:
        searching = search.next(elsewhere)
        assert searching is not None
        elsewhere.register(searching)
        while (claim := elsewhere.claim("old.tuning", HERE, HOUR)) is not None:
            elsewhere.finish(claim.trial, HERE, "finished", records=[Record(1, 1, "final-validation", "error", 7.0)])
        assert search.next(elsewhere) is None
    decided = search.tuned().resolve(planned=7, drawn={"cnn": 3, "resnet": 4})
    found, plain = decided.resolved.model_dump(mode="json"), asked.spec.model_dump(mode="json")
    of_main = plain | {"matched": found["matched"], "tune": plain["tune"] | {"chosen": found["chosen"], "tried": None}}
    of_main |= {"decide": plain["decide"] | {"planned": 7}}
    tried = searching.resolved.model_dump(mode="json")["search"]["tried"]
    of_search = plain | {"name": "old.tuning", "title": "Tuning of Deep", "seeds": [FIRST_SEED], "contrasts": []}
    of_search |= {"probes": ProbeSpec().model_dump(mode="json"), "decide": None, "matched": found["matched"]}
    of_search |= {"tune": plain["tune"] | {"tried": tried, "chosen": None}}
    other = study("plain", seeds=1)
    of_other = other.spec.model_dump(mode="json") | {"matched": None}
    enter_at(place, "0003", (of_main, decided), (of_search, searching), (of_other, other))
    with place.open() as store:
        assert [one.title for one in store.studies()] == ["Deep", "Tuning of Deep", ""]
        main, searched = store.study("old"), store.study("old.tuning")
        assert main.expand() == decided and main.hash == asked.spec.content_hash
        assert store.study("plain").expand() == other and store.study("plain").resolved == {}
        assert searched.expand().arms == searching.arms and searched.expand().seed_values == (FIRST_SEED,)
        assert list(searched.expand().trials()) == list(searching.trials())
        # it goes on where it was: the search, then the rounds
        for _ in range(4):
            finish_next(store, "old.tuning", records=[Record(1, 1, "final-validation", "error", 7.0)])
        again = Search(match(asked))
        assert again.next(store) is None and again.tuned().resolved.chosen == decided.resolved.chosen
        before = store.trials_frame("old")["trial"].tolist()
        store.register(decided)
        assert store.trials_frame("old")["trial"].tolist() == before and len(before) == 7


def test_a_study_is_entered_once(store: Store) -> None:
    store.register(study())
    trial = finish_next(store)
    before = store.trials_frame("one")
    store.register(study())
    pd.testing.assert_frame_equal(store.trials_frame("one"), before)
    assert store.trial(trial).state == "finished"
    assert [summary.name for summary in store.studies()] == ["one"]


def test_trials_stand_in_the_studys_order_with_their_arms(store: Store) -> None:
    planned = study(vary={"blocks": [2, 3]})
    store.register(planned)
    frame = store.trials_frame("one")
    assert list(frame.columns) == (
        "trial arm base factors seed state error diverged_step".split()  # noqa: SIM905
        + "created started ended seconds environment note".split()  # noqa: SIM905
    )
    expected = [(spec.content_hash, arm.name, arm.base, dict(arm.factors), spec.seed) for arm, spec in planned.trials()]
    assert list(frame[["trial", "arm", "base", "factors", "seed"]].itertuples(index=False, name=None)) == expected
    assert frame["arm"][1] == "cnn[blocks=3]"
    assert set(frame["state"]) == {"waiting"}


def test_a_claim_carries_the_specification_whole(store: Store) -> None:
    planned = study()
    store.register(planned)
    claim = store.claim("one", HERE, HOUR)
    arm, spec = next(iter(planned.trials()))
    assert claim is not None
    assert TrialSpec.model_validate_json(claim.spec) == spec
    assert (claim.trial, claim.arm, claim.checkpoint, claim.epochs_done) == (spec.content_hash, arm.name, None, 0)
    assert store.trial(claim.trial).spec == spec.model_dump(mode="json")


def test_a_changed_study_replaces_its_trials_and_keeps_results(store: Store) -> None:
    store.register(study(arms=("cnn", "resnet")))
    trial = finish_next(store, records=epoch_records(1))
    store.register(study(arms=("resnet", "plain"), title="another"))
    assert list(store.trials_frame("one")["arm"]) == ["resnet", "plain"] * 2
    assert store.study("one").spec["title"] == "another"
    assert store.trial(trial).state == "finished"
    store.register(study())
    assert list(store.trials_frame("one")["state"]) == ["finished", "waiting", "waiting", "waiting"]
    assert len(store.records_frame("one")) == 3
    assert finish_next(store) != trial


def test_studies_share_trials(store: Store) -> None:
    store.register(study("one", arms=("cnn",)))
    store.register(study("two", arms=("plain", "cnn")))
    first = finish_next(store, "one", records=epoch_records(1))
    assert store.counts("two") == {"waiting": 3, "running": 0, "finished": 1, "diverged": 0, "failed": 0}
    claimed = [store.claim("two", HERE, HOUR) for _ in range(4)]
    assert [claim.arm for claim in claimed[:3] if claim] == ["plain", "plain", "cnn"]
    assert claimed[3] is None
    assert store.claim("one", HERE, HOUR) is None
    assert set(store.records_frame("two")["trial"]) == {first}


def test_two_arms_may_be_the_same_trial(store: Store) -> None:
    twins = {"a": {"network": "comparative-cnn"}, "b": {"network": "comparative-cnn"}}
    store.register(expand(parse(StudySpec, {"name": "one", "arms": twins, "seeds": 1, "contrasts": []})))
    finish_next(store, records=epoch_records(1))
    assert store.claim("one", HERE, HOUR) is None
    assert store.counts("one")["finished"] == 2
    assert Counter(store.records_frame("one")["arm"]) == {"a": 3, "b": 3}


# --- taking and losing


def test_trials_are_taken_in_order_and_only_once(store: Store) -> None:
    store.register(study())
    taken = [store.claim("one", HERE, HOUR) for _ in range(5)]
    assert [claim.trial for claim in taken[:4] if claim] == list(store.trials_frame("one")["trial"])
    assert taken[4] is None
    assert store.counts("one")["running"] == 4


def test_an_expired_lease_is_taken_over_and_its_owner_refused(store: Store) -> None:
    store.register(study(seeds=1, arms=("cnn",)))
    lost = store.claim("one", ELSEWHERE, HOUR)
    assert lost is not None
    store.commit_epoch(lost.trial, ELSEWHERE, epoch_records(1), "c1", 1, 5.0)
    assert store.heartbeat(lost.trial, ELSEWHERE, GONE)
    claim = store.claim("one", HERE, HOUR)
    assert claim is not None
    assert (claim.trial, claim.checkpoint, claim.epochs_done, claim.attempts) == (lost.trial, "c1", 1, 2)

    assert not store.heartbeat(lost.trial, ELSEWHERE, HOUR)
    store.release(lost.trial, ELSEWHERE)
    with pytest.raises(LeaseLost, match=r"lease lost.*elsewhere:7:1"):
        store.commit_epoch(lost.trial, ELSEWHERE, epoch_records(2), "c2", 2, 5.0)
    with pytest.raises(LeaseLost, match="lease lost"):
        store.finish(lost.trial, ELSEWHERE, "finished", records=epoch_records(2))
    with pytest.raises(LeaseLost, match="lease lost"):
        store.set_environment(lost.trial, ELSEWHERE, {})
    record = store.trial(lost.trial)
    assert (record.state, record.owner, record.checkpoint, record.seconds) == ("running", HERE, "c1", 5.0)
    assert set(store.records_frame("one")["epoch"]) == {1}


def test_a_claim_on_sqlite_needs_no_newer_one(tmp_path: Path) -> None:
    said: list[str] = []
    with Store.open(tmp_path) as store:  # RETURNING came with 3.35, and systems have older ones
        event.listen(store._engine, "before_cursor_execute", lambda _, __, statement, *___: said.append(statement))
        store.register(study())
        claim = store.claim("one", HERE, HOUR)
        assert claim is not None
        store.finish(claim.trial, HERE, "finished", records=epoch_records(1))
    assert said and not [statement for statement in said if "RETURNING" in statement]


def test_who_is_asked_to_stop_waits_for_no_database(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(again: bool) -> None:
        raise connect.Unreachable("store host: gone")

    monkeypatch.setattr(connect.time, "sleep", lambda _: pytest.fail("waits"))
    with pytest.raises(connect.Unreachable, match=r"^store host: gone$"):
        connect.retry_while_unreachable(gone, 300.0, lambda: True)


def test_a_heartbeat_keeps_a_lease(store: Store) -> None:
    store.register(study(seeds=1, arms=("cnn",)))
    claim = store.claim("one", ELSEWHERE, GONE)
    assert claim is not None
    assert store.heartbeat(claim.trial, ELSEWHERE, HOUR)
    assert store.claim("one", HERE, HOUR) is None


def test_a_dead_process_of_this_machine_loses_its_trial_at_once(store: Store) -> None:
    store.register(study(seeds=1, arms=("cnn",)))
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = str(WorkerId.of(process.pid))
    taken = store.claim("one", owner, HOUR)
    assert taken is not None
    assert store.claim("one", HERE, HOUR) is None
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and still in the process table
    again = store.claim("one", HERE, HOUR)
    process.communicate()
    assert again is not None
    assert again.trial == taken.trial


def test_a_live_process_of_this_machine_keeps_its_trial_whatever_the_clock_says(store: Store) -> None:
    store.register(study(seeds=1, arms=("cnn",)))
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    owner = str(WorkerId.of(process.pid))
    taken = store.claim("one", owner, GONE)  # as after an hour's sleep, or when the clock was set
    assert taken is not None
    assert not store.is_claimable("one", HERE)
    assert store.claim("one", HERE, HOUR) is None
    assert store.heartbeat(taken.trial, owner, HOUR)
    assert store.heartbeat(taken.trial, owner, GONE)  # ended by hand: whoever did so knows better
    assert store.is_claimable("one", HERE)
    assert store.claim("one", HERE, HOUR) is not None
    process.kill()
    process.communicate()
    assert not store.heartbeat(taken.trial, owner, HOUR)


@pytest.mark.parametrize("skew", [-timedelta(days=1), timedelta(days=1)])
def test_leases_hold_when_the_hosts_clock_is_wrong(
    place: Place, store: Store, monkeypatch: pytest.MonkeyPatch, skew: timedelta
) -> None:
    class Skewed(datetime):
        @classmethod
        def now(cls, zone: Any = None) -> Any:
            return datetime.now(zone) + skew

    store.register(study(seeds=2, arms=("cnn",)))
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    local = store.claim("one", str(WorkerId.of(process.pid)), HOUR)
    assert local is not None
    other = store.claim("one", ELSEWHERE, HOUR) if place.url else None
    monkeypatch.setattr(connect, "datetime", Skewed)
    # a server judges by its own clock; a file is shared by processes of one machine, which need none
    held = {one.trial for one in (local, other) if one is not None}
    for _ in range(2):
        claim = store.claim("one", HERE, HOUR)
        assert claim is None or claim.trial not in held
    process.kill()
    process.communicate()
    again = store.claim("one", HERE, HOUR)
    assert again is not None and again.trial == local.trial


def test_a_released_trial_waits_with_its_checkpoint(store: Store) -> None:
    store.register(study(seeds=1, arms=("cnn",)))
    claim = store.claim("one", HERE, HOUR)
    assert claim is not None
    store.commit_epoch(claim.trial, HERE, epoch_records(1), "c1", 1, 5.0)
    store.release(claim.trial, HERE)
    assert store.counts("one")["waiting"] == 1
    assert len(store.records_frame("one")) == 3
    again = store.claim("one", ELSEWHERE, HOUR)
    assert again is not None
    assert (again.checkpoint, again.epochs_done) == ("c1", 1)


CLAIM_ALL = """
from leadline.parts.metrics.record import Record
from leadline.reports.charts.frames import sum_up
from leadline.store import WorkerId, Store
owner = str(WorkerId.current())
with Store.open(runs, url) as store:
    while claim := store.claim("one", owner, 60.0):
        print(claim.trial, flush=True)
        store.commit_epoch(claim.trial, owner, [Record(1, 1, "train", f"by {owner}", 1.0)], None, 1, 1.0)
        store.finish(claim.trial, owner, "finished")
"""


@pytest.mark.slow
def test_processes_together_run_every_trial_once(place: Place, store: Store) -> None:
    store.register(study(seeds=40))
    workers = [place.start(CLAIM_ALL) for _ in range(4)]
    taken = [worker.communicate()[0].split() for worker in workers]
    assert [worker.returncode for worker in workers] == [0] * 4
    everything = [trial for trials in taken for trial in trials]
    assert sorted(everything) == sorted(store.trials_frame("one")["trial"])
    assert len(everything) == 80
    assert store.counts("one")["finished"] == 80
    assert set(store.records_frame("one").groupby("trial").size()) == {1}


@pytest.mark.slow
def test_processes_together_open_a_new_store(place: Place) -> None:
    script = "from leadline.store import Store\nwith Store.open(runs, url) as store: print(len(store.studies()))"
    workers = [place.start(script) for _ in range(3)]
    assert [worker.communicate()[0] for worker in workers] == ["0\n"] * 3
    assert [worker.returncode for worker in workers] == [0] * 3


# --- measuring


def test_records_beyond_the_checkpoint_are_dropped_when_it_goes_on(store: Store) -> None:
    store.register(study(seeds=1, arms=("cnn",)))
    claim = store.claim("one", HERE, HOUR)
    assert claim is not None
    for epoch, checkpoint in ((1, "c1"), (2, "c2"), (3, None)):
        store.commit_epoch(claim.trial, HERE, epoch_records(epoch, epoch), checkpoint, epoch, 1.0)
    assert sorted(set(store.records_frame("one")["epoch"])) == [1, 2, 3]
    store.release(claim.trial, HERE)
    again = store.claim("one", HERE, HOUR)
    assert again is not None
    assert (again.checkpoint, again.epochs_done) == ("c2", 2)
    assert sorted(set(store.records_frame("one")["epoch"])) == [1, 2]
    store.commit_epoch(claim.trial, HERE, epoch_records(3, 33.0), "c3", 3, 1.0)
    frame = store.records_frame("one")
    assert list(frame["value"]) == [1.0] * 3 + [2.0] * 3 + [33.0] * 3
    assert store.trial(claim.trial).seconds == 4.0


def test_measurements_come_back_by_epoch_and_go_with_the_records_beyond_the_checkpoint(store: Store) -> None:
    store.register(study())
    claim = store.claim("one", ELSEWHERE, GONE)
    assert claim is not None
    for epoch in (1, 2, 3):
        checkpoint = None if epoch == 3 else f"{epoch}.safetensors"
        content = {"flow": bytes([0, epoch, 255]), "other": b"x"}
        store.commit_epoch(claim.trial, ELSEWHERE, epoch_records(epoch), checkpoint, epoch, 1.0, content)
    store.commit_epoch(claim.trial, ELSEWHERE, [], None, 3, 0.0, {"flow": b"new"})
    expected = [(1, b"\0\x01\xff"), (2, b"\0\x02\xff"), (3, b"new")]
    assert store.measurements("one", "flow") == {claim.trial: expected}
    assert store.measurements("one", "jacobian") == {}
    again = store.claim("one", HERE, HOUR)
    assert again is not None and again.trial == claim.trial
    assert store.measurements("one", "flow") == {claim.trial: expected[:2]}
    with pytest.raises(LeaseLost):
        store.commit_epoch(claim.trial, ELSEWHERE, [], None, 3, 0.0, {"flow": b"late"})
    assert store.measurements("one", "flow") == {claim.trial: expected[:2]}


def test_a_record_that_is_there_already_gets_the_new_value(store: Store) -> None:
    store.register(study(seeds=1, arms=("cnn",)))
    claim = store.claim("one", HERE, HOUR)
    assert claim is not None
    store.commit_epoch(claim.trial, HERE, epoch_records(1, 1.0), None, 1, 1.0)
    store.commit_epoch(claim.trial, HERE, epoch_records(1, 2.0), None, 1, 1.0)
    assert list(store.records_frame("one")["value"]) == [2.0] * 3


def test_values_that_are_not_finite_come_back(store: Store) -> None:
    store.register(study(seeds=1, arms=("cnn",)))
    values = {"a": math.nan, "b": math.inf, "c": -math.inf, "d": 5e-324, "e": 0.1}
    finish_next(store, records=[Record(1, 1, "train", name, value) for name, value in values.items()])
    frame = store.records_frame("one")
    assert list(frame["name"]) == list(values)
    assert repr(list(frame["value"])) == repr(list(values.values()))


def test_the_database_sums_up_what_finished_trials_recorded(store: Store) -> None:
    store.register(study())
    random = np.random.default_rng(0)
    for number in range(4):
        claim = store.claim("one", HERE, HOUR)
        assert claim is not None
        for epoch in (1, 2):
            values = {"loss": random.random(), "error": (math.nan, math.inf, 1.5, -2.5)[number]}
            new = [Record(epoch, epoch, split, name, values[name]) for split in ("train", "time") for name in values]
            store.commit_epoch(claim.trial, HERE, new, None, epoch, 1.0)
        if number < 3:
            store.finish(claim.trial, HERE, "finished", None, None, [], (np.zeros(2, np.int16), np.zeros(2, np.int16)))
    found = store.means_frame("one", ["train"])
    wanted = sum_up(store.trials_frame("one"), store.records_frame("one", ["train"])).finished
    by = ["arm", "split", "name", "epoch"]
    found, wanted = (frame.sort_values(by, ignore_index=True)[found.columns] for frame in (found, wanted))
    pd.testing.assert_frame_equal(found, wanted, check_dtype=False)
    assert found["left_out"].sum() == 4 and set(found["split"]) == {"train"}
    unfinished = store.records_frame("one", ["train"], unfinished=True)
    running = store.trials_frame("one", ("trial", "state")).query("state == 'running'")
    assert set(unfinished["trial"]) == set(running["trial"]) and len(unfinished) == 4
    assert store.series() == {(split, name) for split in ("train", "time") for name in ("loss", "error")}


def test_records_come_in_order_and_by_split(store: Store) -> None:
    store.register(study())
    trials = list(store.trials_frame("one")["trial"])
    for number in range(4):
        claim = store.claim("one", HERE, HOUR)
        assert claim is not None
        for epoch in (1, 2):
            new = [
                Record(10 * epoch, epoch, split, name, 100 * number + epoch)
                for split in ("validation", "train")
                for name in ("loss", "error")
            ]
            store.commit_epoch(claim.trial, HERE, new, None, epoch, 1.0)
    frame = store.records_frame("one")
    assert list(frame.columns) == ["trial", "arm", "base", "seed", "step", "epoch", "split", "name", "value"]
    expected = [
        (
            trials[number],
            ("cnn", "resnet")[number % 2],
            number // 2,
            10 * epoch,
            epoch,
            split,
            name,
            100.0 * number + epoch,
        )
        for number in range(4)
        for epoch in (1, 2)
        for split in ("train", "validation")
        for name in ("error", "loss")
    ]
    assert list(frame.drop(columns="base").itertuples(index=False, name=None)) == expected
    part = store.records_frame("one", ["validation"])
    pd.testing.assert_frame_equal(part, frame[frame["split"] == "validation"].reset_index(drop=True))
    assert store.records_frame("one", ["nothing"]).empty


def test_empty_frames_have_the_types_of_full_ones(store: Store) -> None:
    store.register(study())
    empty = store.records_frame("one")
    assert empty.empty
    finish_next(store, records=epoch_records(1))
    pd.testing.assert_series_equal(empty.dtypes, store.records_frame("one").dtypes)
    assert store.records_frame("one", []).empty


def test_times_are_utc_and_in_order(store: Store) -> None:
    before = datetime.now(UTC) - timedelta(seconds=5)  # the server's clock may differ a little
    store.register(study())
    finish_next(store)
    frame = store.trials_frame("one")
    assert str(frame["started"].dtype) == str(frame["ended"].dtype) == "datetime64[us, UTC]"
    assert before < frame["started"][0] <= frame["ended"][0] < datetime.now(UTC) + timedelta(seconds=5)
    assert frame["ended"][1:].isna().all()
    record = store.trial(frame["trial"][0])
    assert record.created.tzinfo is not None
    assert record.created <= record.started <= record.ended  # type: ignore[operator]
    assert store.study("one").created.utcoffset() == timedelta(0)


def test_predictions_come_back(store: Store) -> None:
    store.register(study())
    generator = np.random.default_rng(0)
    predicted, labels = generator.integers(0, 100, 10_000), generator.integers(0, 100, 10_000).astype(np.int16)
    trial = finish_next(store, predictions=(predicted, labels))
    empty = finish_next(store, predictions=(labels[:0], labels[:0]))
    assert list(store.outputs("one")) == [trial, empty]
    back = store.outputs("one")[trial]
    assert back.predicted.dtype == back.labels.dtype == np.int16
    np.testing.assert_array_equal(back.predicted, predicted)
    np.testing.assert_array_equal(back.labels, labels)
    assert back.probabilities is None


def test_outputs_are_read_in_parts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leadline.store.reading.AT_A_TIME", 2)
    # a trial that two arms share is read once
    names = {"a": "comparative-cnn", "twin": "comparative-cnn", "b": "comparative-resnet"}
    arms = {arm: {"network": name} for arm, name in names.items()}
    store.register(expand(parse(StudySpec, {"name": "one", "arms": arms, "seeds": 5, "contrasts": []})))
    labels = np.arange(4, dtype=np.int16)
    ended = [finish_next(store, predictions=(labels + place, labels)) for place in range(4)]
    finish_next(store)  # which leaves no outputs
    read = store.each_output("one")
    found = [next(read), next(read), *read]
    assert [trial for trial, _ in found] == sorted(ended) == list(store.outputs("one"))
    for place, trial in enumerate(ended):
        np.testing.assert_array_equal(dict(found)[trial].predicted, labels + place)
        np.testing.assert_array_equal(dict(found)[trial].labels, labels)


def test_outputs_are_unpacked_one_by_one(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.register(study())
    whole = Outputs(np.arange(2, dtype=np.int16), np.arange(2, dtype=np.int16), np.eye(2, dtype=np.float32))
    for _ in range(3):
        finish_next(
            store, measurements=(1, {OUTPUTS: pack_outputs(whole)}), predictions=(whole.predicted, whole.labels)
        )
    unpacked = []
    monkeypatch.setattr(
        "leadline.store.frames.unpack_outputs", lambda *given: unpacked.append(given) or unpack_outputs(*given)
    )
    read = store.each_output("one")
    for count in range(3):
        assert len(unpacked) == count
        np.testing.assert_array_equal(next(read)[1].probabilities, whole.probabilities)


def test_damaged_outputs_are_named(store: Store) -> None:
    store.register(study())
    labels = np.arange(4, dtype=np.int16)
    for _ in range(2):
        finish_next(store, predictions=(labels, labels))
    with connect.transaction(store._engine, write=True) as connection:
        connection.execute(text("UPDATE predictions SET predicted = :junk"), {"junk": b"junk"})
    with pytest.raises(StoreError, match=r"holds a value that cannot be read .*`leadline check`"):
        list(store.each_output("one"))


def test_outputs_that_are_deleted_while_they_are_read_are_missed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leadline.store.reading.AT_A_TIME", 2)
    store.register(study(seeds=3))
    labels = np.arange(4, dtype=np.int16)
    for _ in range(3):
        finish_next(store, predictions=(labels, labels))
    read = store.each_output("one")
    next(read), next(read)
    store.delete_study("one")
    store.clean()
    with pytest.raises(
        StoreError, match=r"^outputs of 1 trial of study one were deleted while they were read; try again$"
    ):
        next(read)


def test_probabilities_and_the_outputs_of_other_tasks_come_back(store: Store) -> None:
    store.register(study())
    labels, predicted = np.array([0, 1], np.int16), np.array([0, 0], np.int16)
    whole = Outputs(labels, predicted, np.array([[0.75, 0.25], [0.5, 0.5]], np.float32))
    kept = (1, {OUTPUTS: pack_outputs(whole)})
    classes = finish_next(store, predictions=(predicted, labels), measurements=kept)
    values = Outputs(np.array([0.5, 2.0]), np.array([1.0, 2.0]))
    other = finish_next(store, measurements=(1, {OUTPUTS: pack_outputs(values)}))
    found = store.outputs("one")
    assert list(found) == [classes, other]
    np.testing.assert_array_equal(found[classes].probabilities, whole.probabilities)
    assert store.outputs("one", probabilities=False)[classes].probabilities is None
    for back in (found[other], store.outputs("one", probabilities=False)[other]):
        np.testing.assert_array_equal(back.predicted, values.predicted)
        np.testing.assert_array_equal(back.labels, values.labels)


@pytest.mark.parametrize(
    "predictions",
    [
        (np.zeros(3, np.int16), np.zeros(4, np.int16)),
        (np.array([40_000]), np.array([0])),
        (np.array([0.5]), np.array([0])),
        (np.zeros((2, 2), np.int16), np.zeros((2, 2), np.int16)),
    ],
)
def test_impossible_predictions_are_refused_whole(store: Store, predictions: tuple[Any, Any]) -> None:
    store.register(study(seeds=1, arms=("cnn",)))
    with pytest.raises(ValueError, match=r"differ in shape|fit int16"):
        finish_next(store, predictions=predictions, records=epoch_records(1))
    assert store.counts("one")["running"] == 1
    assert store.records_frame("one").empty


def test_a_commit_that_fails_keeps_nothing(store: Store) -> None:
    store.register(study(seeds=1, arms=("cnn",)))
    claim = store.claim("one", HERE, HOUR)
    assert claim is not None
    broken = [*epoch_records(1), Record(None, 1, "train", "loss", 1.0)]  # type: ignore[arg-type]
    with pytest.raises(IntegrityError):
        store.commit_epoch(claim.trial, HERE, broken, "c1", 1, 1.0)
    with pytest.raises(IntegrityError):
        store.finish(claim.trial, HERE, "finished", records=broken)
    record = store.trial(claim.trial)
    assert (record.state, record.checkpoint, record.seconds, record.ended) == ("running", None, None, None)
    assert store.records_frame("one").empty


def test_a_state_that_is_none_is_refused(store: Store) -> None:
    store.register(study(seeds=1, arms=("cnn",)))
    with pytest.raises(IntegrityError):
        finish_next(store, state="done")
    assert store.counts("one")["running"] == 1


# --- falling back


def test_a_damaged_checkpoint_gives_way_to_the_one_before_and_then_to_the_beginning(store: Store) -> None:
    store.register(study(seeds=1, arms=("cnn",)))
    claim = store.claim("one", HERE, HOUR)
    assert claim is not None
    for epoch in (1, 2, 3):
        content = {"flow": bytes([epoch])}
        store.commit_epoch(claim.trial, HERE, epoch_records(epoch), f"c{epoch}", epoch, 1.0, content)
    store.commit_epoch(claim.trial, HERE, [], "c3-step", 3, 0.0)
    record = store.trial(claim.trial)
    assert (record.checkpoint, record.earlier_checkpoint, record.earlier_epoch) == ("c3-step", "c3", 3)
    store.fall_back(claim.trial, HERE, "c3", "not the last")
    assert store.trial(claim.trial) == record
    store.fall_back(claim.trial, HERE, "c3-step", "first")
    record = store.trial(claim.trial)
    assert (record.checkpoint, record.checkpoint_epoch, record.earlier_checkpoint) == ("c3", 3, None)
    assert set(store.records_frame("one")["epoch"]) == {1, 2, 3}
    store.fall_back(claim.trial, HERE, "c3", "second")
    record = store.trial(claim.trial)
    assert (record.checkpoint, record.checkpoint_epoch, record.note) == (None, 0, "first\nsecond")
    assert store.records_frame("one").empty
    assert store.measurements("one", "flow") == {}
    assert list(store.trials_frame("one")["note"]) == ["first\nsecond"]
    with pytest.raises(LeaseLost):
        store.fall_back(claim.trial, ELSEWHERE, "c3", "no")


def test_attempts_count_from_the_last_checkpoint(store: Store) -> None:
    store.register(study(seeds=1, arms=("cnn",)))
    attempts = []
    for epoch in range(1, 5):
        claim = store.claim("one", ELSEWHERE, GONE)
        assert claim is not None
        attempts.append(claim.attempts)
        if epoch == 3:
            store.commit_epoch(claim.trial, ELSEWHERE, [], f"c{epoch}", epoch, 1.0)
    assert attempts == [1, 2, 3, 2]
    store.release(claim.trial, ELSEWHERE)
    again = store.claim("one", HERE, HOUR)
    assert again is not None and again.attempts == 2


# --- the database gone for a while


@pytest.mark.slow
def test_a_call_whose_answer_got_lost_is_repeated_without_harm(
    place: Place, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every transaction that writes is committed, and its connection lost before anybody hears of it."""
    real, lost = ledger.transaction, []

    @contextmanager
    def losing(engine: Any, *, write: bool = False) -> Iterator[Any]:
        with real(engine, write=write) as connection:
            yield connection
        if write and len(lost) % 2 == 0:
            lost.append(True)
            raise connect.Unreachable("the connection is gone")
        lost.append(False)

    store.register(study())
    monkeypatch.setattr(ledger, "transaction", losing)
    store.patience = 10.0
    for number in range(4):
        lost.clear()
        claim = store.claim("one", HERE, HOUR)
        assert claim is not None and claim.attempts == 1
        lost.clear()
        store.commit_epoch(claim.trial, HERE, epoch_records(1, number), "c1", 1, 3.0)
        lost.clear()
        store.commit_epoch(claim.trial, HERE, epoch_records(2, number), "c2", 2, 3.0)
        lost.clear()
        store.finish(claim.trial, HERE, "finished", records=epoch_records(3, number))
        record = store.trial(claim.trial)
        assert (record.state, record.checkpoint, record.earlier_checkpoint) == ("finished", "c2", "c1")
        assert record.seconds == 6.0
    assert store.claim("one", HERE, HOUR) is None
    assert store.counts("one")["finished"] == 4
    assert set(store.records_frame("one").groupby("trial").size()) == {9}


def test_it_is_tried_again_for_as_long_as_was_said(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(connect.time, "sleep", slept.append)
    left = 3

    def failing(again: bool) -> str:
        nonlocal left
        assert again == (left < 3)
        left -= 1
        if left >= 0:
            raise connect.Unreachable("gone")
        return "back"

    assert connect.retry_while_unreachable(failing, 60.0) == "back"
    assert slept == [0.1, 0.2, 0.4]

    def gone(again: bool) -> None:
        raise connect.Unreachable("gone")

    moments = iter(range(0, 1000, 7))
    monkeypatch.setattr(connect.time, "monotonic", lambda: float(next(moments)))
    with pytest.raises(connect.Unreachable, match=r"^gone$"):  # one attempt, however long it took
        connect.retry_while_unreachable(gone, 0.0)
    with pytest.raises(StoreError, match=r"^gone; gave up after \d+ s$"):
        connect.retry_while_unreachable(gone, 60.0)
    with pytest.raises(ZeroDivisionError):
        connect.retry_while_unreachable(lambda again: 1 // 0, 60.0)  # type: ignore[arg-type, return-value]


# --- settling


def test_settled_trials_tell_how_it_went(store: Store) -> None:
    store.register(study())
    finish_next(store, records=epoch_records(3))
    finish_next(store, state="diverged", diverged_step=17, error="loss is nan at step 17")
    finish_next(store, state="failed", error="out of memory\nTraceback")
    frame = store.trials_frame("one")
    assert list(frame["state"]) == ["finished", "diverged", "failed", "waiting"]
    assert list(frame["diverged_step"].isna()) == [True, False, True, True]
    assert frame["diverged_step"][1] == 17
    assert list(frame["error"]) == [None, "loss is nan at step 17", "out of memory\nTraceback", None]
    finished = store.trial(frame["trial"][0])
    assert finished.owner is None and finished.ended is not None
    assert store.counts("one") == {"waiting": 1, "running": 0, "finished": 1, "diverged": 1, "failed": 1}
    [summary] = store.studies()
    assert dict(summary.counts) == store.counts("one")
    assert tuple(summary.counts) == STATES


def test_only_failed_trials_are_tried_again_and_only_when_asked(store: Store) -> None:
    store.register(study())
    store.register(study("other"))
    claim = store.claim("one", HERE, HOUR)
    assert claim is not None
    store.commit_epoch(claim.trial, HERE, epoch_records(1), "c1", 1, 1.0)
    store.finish(claim.trial, HERE, "failed", error="no")
    for state in ("diverged", "finished", "finished"):
        finish_next(store, state=state)
    assert store.claim("one", HERE, HOUR) is None
    assert store.requeue_failed("one") == 1
    assert store.requeue_failed("one") == 0
    again = store.claim("other", HERE, HOUR)
    assert again is not None
    assert (again.trial, again.checkpoint, again.epochs_done, again.attempts) == (claim.trial, "c1", 1, 1)
    record = store.trial(claim.trial)
    assert (record.error, record.ended) == (None, None)
    assert store.claim("one", HERE, HOUR) is None


@contextmanager
def being_entered(place: Place, asked: ExpandedStudy, seconds: float, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Run the body while a study is being entered, which takes so long and holds the trials that are there."""
    holding, find = threading.Event(), registering._find_trials

    def find_at_leisure(connection: Any, hashes: Any) -> Any:
        found = find(connection, hashes)
        if not holding.is_set():
            holding.set()
            time.sleep(seconds)
        return found

    def enter() -> None:
        with place.open() as store:
            store.register(asked)

    patch.setattr(registering, "_find_trials", find_at_leisure)
    thread = threading.Thread(target=enter)
    thread.start()
    assert holding.wait(300)
    yield
    thread.join()
    patch.undo()


def test_a_trial_that_is_tried_again_waits_in_a_study_that_is_entered_meanwhile(
    place: Place, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.register(study(seeds=1, arms=("cnn",)))
    failed = finish_next(store, state="failed", error="no memory")
    with being_entered(place, study("two", seeds=1, arms=("cnn",)), 0.5, monkeypatch):
        assert store.requeue_failed("one") == 1
    claim = store.claim("two", HERE, HOUR)
    assert claim is not None and claim.trial == failed


def test_a_study_grows_while_its_failed_trials_are_tried_again(
    place: Place, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.register(study(seeds=1, arms=("cnn",)))
    finish_next(store, state="failed", error="no memory")
    with being_entered(place, study(seeds=3, arms=("cnn",)), 0.5, monkeypatch):
        assert store.requeue_failed("one") == 1
    assert store.counts("one")["waiting"] == 3


@pytest.mark.slow
def test_a_heartbeat_that_had_to_wait_renews_from_when_it_was_heard(
    place: Place, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.register(study(seeds=1, arms=("cnn",)))
    claim = store.claim("one", ELSEWHERE, 3.0)
    assert claim is not None
    with being_entered(place, study(seeds=2, arms=("cnn",)), 4.0, monkeypatch):
        assert store.heartbeat(claim.trial, ELSEWHERE, 3.0)
    other = store.claim("one", HERE, HOUR)
    assert other is not None and other.trial != claim.trial


def test_what_no_database_can_keep_of_an_error_is_left_out(store: Store) -> None:
    store.register(study())
    trial = finish_next(store, state="failed", error="caf\udce9.png\0: cannot be read")
    assert store.trial(trial).error == "caf?.png: cannot be read"


def test_a_process_whose_start_is_not_known_keeps_its_trial_no_longer_than_its_lease(store: Store) -> None:
    store.register(study())
    here = WorkerId.current()
    claim = store.claim("one", str(WorkerId(here.host, os.getppid(), worker_id.UNKNOWN)), GONE)
    assert claim is not None
    again = store.claim("one", HERE, HOUR)
    assert again is not None and again.trial == claim.trial


def test_the_environment_is_kept(store: Store) -> None:
    store.register(study(seeds=1, arms=("cnn",)))
    claim = store.claim("one", HERE, HOUR)
    assert claim is not None
    environment = {"torch": "2.13.0", "threads": 1, "git": None, "gpu": ["a", "b"]}
    store.set_environment(claim.trial, HERE, environment)
    assert store.trials_frame("one")["environment"][0] == environment
    assert store.trial(claim.trial).note is None
    for note in ("moved", "moved", "and back"):  # a call whose answer was lost is repeated
        store.set_environment(claim.trial, HERE, {"torch": note}, note)
    assert store.trials_frame("one")["environment"][0] == {"torch": "and back"}
    assert store.trial(claim.trial).note == "moved\nand back"


# --- finding


@pytest.mark.parametrize(
    "ask",
    [
        lambda store: store.study("onne"),
        lambda store: store.counts("onne"),
        lambda store: store.claim("onne", HERE, HOUR),
        lambda store: store.requeue_failed("onne"),
        lambda store: store.trials_frame("onne"),
        lambda store: store.records_frame("onne"),
        lambda store: store.outputs("onne"),
    ],
)
def test_an_unknown_study_is_named_with_the_nearest(store: Store, ask: Callable[[Store], object]) -> None:
    store.register(study("one"))
    with pytest.raises(StoreError, match=r"unknown study 'onne'; did you mean 'one'\?$"):
        ask(store)


def test_a_study_comes_back_as_it_was_entered(store: Store) -> None:
    planned = study(vary={"blocks": [2, 3]}, title='Größe & "Tiefe"')
    store.register(planned)
    record = store.study("one")
    assert parse(StudySpec, record.spec) == planned.spec
    assert record.hash == planned.spec.content_hash


def test_a_trial_is_found_by_the_beginning_of_its_hash(store: Store) -> None:
    store.register(study(seeds=40))
    hashes = sorted(store.trials_frame("one")["trial"])
    assert store.trial(hashes[3][:16].upper()).trial == hashes[3]
    first = Counter(hash_[0] for hash_ in hashes).most_common(1)[0][0]
    with pytest.raises(StoreError, match=f"'{first}' matches several"):
        store.trial(first)
    for nothing in ("xyz", "%", "_" * 64):
        with pytest.raises(StoreError, match="no trial's hash begins with"):
            store.trial(nothing)


@pytest.mark.slow
def test_a_store_travels_to_other_processes_by_its_address(store: Store) -> None:
    store.register(study())
    with pickle.loads(pickle.dumps(store)) as other:
        assert other.counts("one") == store.counts("one")
        assert other.checkpoints == store.checkpoints
        assert other.checkpoints.is_dir()


# --- surviving

RECORDS_PER_EPOCH = 60
COMMIT_FOREVER = """
from leadline.parts.metrics.record import Record
from leadline.reports.charts.frames import sum_up
from leadline.store import WorkerId, Store
owner = str(WorkerId.current())
with Store.open(runs, url) as store:
    claim = store.claim("one", owner, 3600.0)
    epoch = claim.epochs_done
    while True:
        epoch += 1
        new = [Record(epoch, epoch, "probe", f"{i:02}", 1000.0 * epoch + i) for i in range(arguments[0])]
        store.commit_epoch(claim.trial, owner, new, f"c{epoch}", epoch, 1.0)
        print(epoch, flush=True)
"""


@pytest.mark.slow
def test_kill_9_loses_no_epoch_and_leaves_no_half_one(place: Place) -> None:
    with place.open() as store:
        store.register(study(seeds=1, arms=("cnn",)))
    chance = random.Random(7)
    done = 0
    for _ in range(4):
        child = place.start(COMMIT_FOREVER, RECORDS_PER_EPOCH)
        assert child.stdout is not None
        told = [int(child.stdout.readline())]
        time.sleep(chance.uniform(0, 0.15))
        child.send_signal(signal.SIGKILL)
        told += [int(line) for line in child.communicate()[0].split()]
        assert told[0] == done + 1

        with place.open() as store:
            if place.url is None:
                with sqlite3.connect(place.runs / "leadline.db") as database:
                    assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
                    assert database.execute("PRAGMA foreign_key_check").fetchall() == []
                database.close()
            frame = store.records_frame("one")
            [trial] = store.trials_frame("one")["trial"]
            record = store.trial(trial)
        # The last commit may have landed just before the child could tell of it.
        assert record.checkpoint_epoch in (told[-1], told[-1] + 1)
        done = record.checkpoint_epoch
        assert (record.checkpoint, record.seconds) == (f"c{done}", float(done))
        epochs, number = np.arange(1, done + 1), np.arange(RECORDS_PER_EPOCH)
        np.testing.assert_array_equal(frame["value"], (1000.0 * epochs[:, None] + number).ravel())
        np.testing.assert_array_equal(frame["epoch"], np.repeat(epochs, RECORDS_PER_EPOCH))


# --- following


def test_a_follower_sees_what_others_commit(place: Place, store: Store) -> None:
    store.register(study())
    with Follower.follow(place.runs, place.url) as follower:
        before = follower.progress("one")
        assert [one.state for one in before.progress] == ["waiting"] * 4 and follower.leases()[0] == []
        claim = store.claim("one", ELSEWHERE, HOUR)
        assert claim is not None
        store.set_environment(claim.trial, ELSEWHERE, {"device": "cpu"})
        store.commit_epoch(claim.trial, ELSEWHERE, epoch_records(1), "a", 1, 2.5, {"flow": b"measured"})
        after = follower.progress("one", before)
        assert after.links is before.links
        frame = store.trials_frame("one")
        assert [link.trial for link in after.links] == frame["trial"].tolist()
        assert [(one.arm, one.base, one.seed) for one in after.links] == list(
            frame[["arm", "base", "seed"]].itertuples(index=False, name=None)
        )
        [place_of] = [number for number, one in enumerate(after.progress) if one.state == "running"]
        link, now = after.links[place_of], after.progress[place_of]
        assert (link.trial, now.epoch, now.seconds, now.owner) == (claim.trial, 1, 2.5, ELSEWHERE)
        [lease], moment = follower.leases()
        assert lease.owner == ELSEWHERE and timedelta(0) < lease.until - moment <= timedelta(seconds=HOUR)
        assert follower.details([link.id])[link.id].environment == {"device": "cpu"}
        assert follower.values([link.id], [("train", "loss"), ("train", "none")]) == {link.id: [(0, 1, 1.0)]}
        assert follower.measured_epochs([link.id], "flow") == {link.id: [1]}
        assert follower.measured_at([(link.id, 1), (link.id, 2)], "flow") == {(link.id, 1): b"measured"}
        store.register(study(seeds=3))
        assert len(follower.progress("one", after).links) == 6
        with pytest.raises(StoreError, match="unknown study 'two'"):
            follower.progress("two")


def test_a_follower_writes_nothing(place: Place, store: Store) -> None:
    store.register(study())
    with Follower.follow(place.runs, place.url) as follower:
        with pytest.raises(StoreError, match=r"read-?only"), follower._reading() as connection:
            connection.execute(text("DELETE FROM study_trials"))
        assert len(follower.progress("one").links) == 4
    if place.url is not None:  # whose schema of another version is left as it is
        engine = create_engine(place.url)
        with engine.begin() as connection:
            connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '0001'"))
        with pytest.raises(StoreError, match="has the schema of another version"):
            Follower.follow(place.runs, place.url)
        with engine.begin() as connection:
            metadata.drop_all(connection)
            connection.execute(text(f"DROP TABLE {VERSION_TABLE}"))
        engine.dispose()
        with pytest.raises(StoreError, match="does not exist yet"):
            Follower.follow(place.runs, place.url)
