"""Stores that an earlier Leadline wrote: every later one opens them, gives their verdicts and carries them on.

What `fixtures/stores` holds, and how it was made, is said there. Wording may change from version to version; names,
numbers and the hashes of trials may not, but for trials that a version trains otherwise: they get another hash.
"""

import gzip
import json
import math
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, make_url, text
from typer.testing import CliRunner

from leadline.cli import app
from leadline.errors import StoreError
from leadline.running.trial import check_revision
from leadline.specs import TrialSpec
from leadline.store import Store

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parent / "fixtures" / "stores"
FINISHED = ("fixed", "parts", "decide", "tune", "tune-tpe", "match", "probes", "diverged", "pretraining")
REVISED = {"cosine", "one-cycle"}
"""Arms of `parts` that were trained with other learning rates: a cosine after a warm-up, and the one-cycle policy."""
PROSE = {"headline", "notes", "sentence"}
REDEFINED = {"convergence_epoch", "seeds_to_decide", "t_p_adjusted", "p_adjusted"}
"""What verdicts compute otherwise now: only what learned converges, and contrasts are decided together."""
UNDECIDED = {".fixed.contrasts[6].verdict", ".fixed.contrasts[8].verdict"}
"""Contrasts of nine that were called better each by its own interval, and are not beside the other eight."""

COARSE = {f".fixed.{one}" for one in ("contrasts[9]", "contrasts[11]", "contrasts[12]")} | {
    f".fixed.factors[{number}]" for number in (12, 13, 14)
}
"""Times to a target at three seeds that agree to less than half an epoch or log step, the least spread taken now."""
MOST_POINTS = 100.0
"""The largest difference of two errors in per cent, where intervals end now."""
WIDER = {"ci95", "t_p", "effect_size"}


@dataclass(frozen=True)
class OldStore:
    """A copy of an old store, which a test may change, and what the version that wrote it said of its studies."""

    runs: Path
    url: str | None
    said: Mapping[str, Any]  # study -> its verdict, as JSON, and its trials

    def leadline(self, *arguments: str) -> Any:
        """Run a command on this store; return its JSON."""
        place = ["--runs", str(self.runs), *(["--store", self.url] if self.url else [])]
        result = CliRunner().invoke(app, [*arguments, *place, "--json"], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    def run(self, study: str) -> Any:
        return self.leadline("run", str(FOLDER / "studies" / f"{study}.yaml"), "--workers", "0")

    def trials(self) -> dict[str, list[dict[str, Any]]]:
        """Return the trials of every study that there is, with all that would differ if one were trained again."""
        columns = ["trial", "arm", "seed", "state", "diverged_step", "started", "ended", "seconds"]
        with Store.open(self.runs, self.url) as store:
            frames = {study.name: store.trials_frame(study.name) for study in store.studies()}
        exactly = {"orient": "records", "date_format": "iso", "date_unit": "us"}
        return {name: json.loads(frame[columns].to_json(**exactly)) for name, frame in frames.items()}


def read(name: str) -> str:
    return gzip.decompress((FOLDER / name).read_bytes()).decode()


@pytest.fixture(params=["sqlite", "postgresql"])
def old(request: pytest.FixtureRequest, tmp_path: Path, worker_id: str) -> Iterator[OldStore]:
    said = json.loads(read(f"{request.param}.json.gz"))
    dump = read(f"{request.param}.sql.gz")
    runs = tmp_path / "runs"
    runs.mkdir()
    if request.param == "sqlite":
        database = sqlite3.connect(runs / "leadline.db")
        database.executescript(dump)
        database.close()
        yield OldStore(runs, None, said)
        return
    server = os.environ.get("LEADLINE_TEST_STORE")
    if server is None:
        pytest.skip("no PostgreSQL: set LEADLINE_TEST_STORE to the URL of a database to empty")
    schema = f"leadline_old_{worker_id}"
    url = make_url(server).set(drivername="postgresql+psycopg")
    url = url.update_query_dict({"options": f"-c search_path={schema}"})
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(f"DROP SCHEMA IF EXISTS {schema} CASCADE"))
        connection.execute(text(f"CREATE SCHEMA {schema}"))
        cursor = connection.connection.cursor()
        cursor.execute(dump)
        cursor.close()
    yield OldStore(runs, url.render_as_string(hide_password=False), said)
    with engine.begin() as connection:
        connection.execute(text(f"DROP SCHEMA {schema} CASCADE"))
    engine.dispose()


def differences(said: Any, found: Any, place: str = "") -> Iterator[str]:
    """Yield what was said and is not found: keys may be added, sentences reworded, floats differ by rounding."""
    if isinstance(said, dict) and isinstance(found, dict):
        neither = found.get("failed_a") and found.get("failed_b")  # pairs of trials at chance are none any more
        for key, value in said.items():
            if (
                key in REDEFINED
                or (place in COARSE and key in WIDER)
                or (neither and key not in ("a", "b", "metric", "margin", "verdict"))
            ):
                continue
            if key not in found:
                yield f"{place}.{key} is missing"
            elif key in PROSE:
                if type(found[key]) is not type(value) or bool(found[key]) != bool(value):
                    yield f"{place}.{key}: {value!r} -> {found[key]!r}"
            else:
                yield from differences(value, found[key], f"{place}.{key}")
    elif isinstance(said, list) and isinstance(found, list) and len(said) == len(found):
        for number, pair in enumerate(zip(said, found, strict=True)):
            yield from differences(*pair, f"{place}[{number}]")
    elif isinstance(said, float) and isinstance(found, float):
        end = ".ci95[" in place or place.endswith((".low", ".high"))
        if end and abs(said) > MOST_POINTS and found == math.copysign(MOST_POINTS, said):
            return
        if not math.isclose(said, found, rel_tol=1e-9, abs_tol=1e-9):
            yield f"{place}: {said!r} -> {found!r}"
    elif place in UNDECIDED and (said, found) == ("better", "undecided"):
        return
    elif said != found or type(said) is not type(found):
        yield f"{place}: {said!r} -> {found!r}"


def verdict_differences(old: OldStore, studies: Sequence[str]) -> list[str]:
    verdicts = {name: old.leadline("verdict", name) for name in studies}
    return list(differences({name: old.said[name]["verdict"] for name in studies}, verdicts))


def test_every_study_is_there_with_its_trials(old: OldStore) -> None:
    trials = old.trials()
    assert list(differences({name: one["trials"] for name, one in old.said.items()}, trials)) == []
    assert trials.keys() == old.said.keys() > set(FINISHED)


def test_every_verdict_is_what_it_was(old: OldStore) -> None:
    assert verdict_differences(old, list(old.said)) == []


def test_a_finished_study_is_recognised_and_nothing_is_trained_again(old: OldStore) -> None:
    before = old.trials()
    recognised = [study for study in FINISHED if study != "parts"]
    for study in recognised:
        outcome = old.run(study)
        assert outcome["complete"], study
        assert old.trials() == before, study
    assert verdict_differences(old, list(old.said)) == []


def test_only_trials_that_are_trained_otherwise_are_trained_again(old: OldStore) -> None:
    before = old.trials()
    assert old.run("parts")["complete"]
    after = old.trials()
    pairs = list(zip(before.pop("parts"), after.pop("parts"), strict=True))
    assert after == before
    for then, now in pairs:
        assert (then["arm"], then["seed"], then["state"]) == (now["arm"], now["seed"], now["state"])
        assert (then != now) == (then["trial"] != now["trial"]) == (then["arm"] in REVISED)
    with Store.open(old.runs, old.url) as store:  # what they gave is kept, apart from the study
        assert all(store.trial(then["trial"]).state == "finished" for then, _ in pairs)
    assert verdict_differences(old, [study for study in old.said if study != "parts"]) == []


def test_an_old_trial_is_not_trained_under_its_old_name(old: OldStore) -> None:
    trial = next(one["trial"] for one in old.trials()["parts"] if one["arm"] == "cosine")
    with Store.open(old.runs, old.url) as store:
        spec = TrialSpec.model_validate(store.trial(trial).spec)
    with pytest.raises(StoreError, match=f"trial {trial[:12]} was registered with another version of Leadline"):
        check_revision(spec, trial)
    check_revision(spec, spec.content_hash)


def test_what_probes_measured_is_there(old: OldStore) -> None:
    with Store.open(old.runs, old.url) as store:
        trials = list(store.trials_frame("probes")["trial"])
        for probe, epochs in (("flow", [1, 2]), ("jacobian", [0, 1, 2]), ("decomposition", [0, 2]), ("lesion", [2])):
            measured = store.measurements("probes", probe)
            assert {trial: [epoch for epoch, _ in measured[trial]] for trial in trials} == dict.fromkeys(trials, epochs)


@pytest.mark.parametrize("study", ["unfinished", "unfinished-decide", "unfinished-tune"])
def test_an_unfinished_study_goes_on_to_its_end(old: OldStore, study: str) -> None:
    before = old.trials()
    search = f"{study}.tuning" if study == "unfinished-tune" else study
    states = [trial["state"] for trial in before[search]]
    assert states.count("running") == 1 and states.count("finished") >= 1 and states.count("waiting") >= 1

    outcome = old.run(study)
    assert outcome["complete"]
    assert outcome["trials"] == {"finished": sum(outcome["trials"].values())}

    after = old.trials()
    found = {trial["trial"]: trial for trial in after[search]}
    assert all(found[trial["trial"]] == trial for trial in before[search] if trial["state"] == "finished")
    assert {trial["trial"] for trial in before[search]} <= found.keys()
    assert {trial["state"] for trials in (after[search], after[study]) for trial in trials} == {"finished"}
    verdict = old.leadline("verdict", study)
    assert all(arm["n"] == arm["planned"] for arm in verdict["arms"].values())
    assert {name: trials for name, trials in after.items() if name not in (study, search)} == {
        name: trials for name, trials in before.items() if name not in (study, search)
    }

    assert old.run(study)["complete"]
    assert old.trials() == after


def test_differences_are_told() -> None:
    said = {"a": [{"n": 3, "sd": 0.5, "p": None, "sentence": "x is better"}], "notes": []}
    same = {"a": [{"n": 3, "sd": 0.5 + 1e-12, "p": None, "sentence": "x wins", "new": 1}], "notes": [], "more": 2}
    assert list(differences(said, same)) == []
    for key, value in (("n", 4), ("sd", 0.5001), ("sd", None), ("p", 0.1), ("sentence", ""), ("n", 3.0)):
        assert list(differences(said, {"a": [{**said["a"][0], key: value}], "notes": []}))  # type: ignore[dict-item]
    assert list(differences(said, {"a": said["a"], "notes": ["something"]})) == [".notes: [] -> ['something']"]
    assert list(differences(said, {"a": said["a"]})) == [".notes is missing"]
    assert list(differences(said, {"a": [], "notes": []}))
