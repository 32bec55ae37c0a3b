"""Checkpoints at a URL: written whole, found by the ledger's own words, taken from there where they are not here."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import pytest

from leadline import artifacts
from leadline.errors import SpecError, StoreError
from leadline.export import from_trial
from leadline.running.executors import InProcess
from leadline.running.job import Event, Job
from leadline.spec import DataSpec
from leadline.spec.study import StudySpec
from leadline.store import Store
from leadline.study import Study, expand


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "file":
        yield artifacts.folder_url(str(tmp_path / "else where"))
        return
    yield artifacts.folder_url(f"memory://lab/{tmp_path.name}")
    fsspec.filesystem("memory").store.clear()


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "PAUSE_SECONDS", 0.0)


def names(url: str) -> list[str]:
    system, path = fsspec.url_to_fs(url)
    return sorted(artifacts.base(name) for name in system.ls(path, detail=False)) if system.exists(path) else []


def content(url: str) -> bytes:
    with fsspec.open(url) as file:
        found: bytes = file.read()
    return found


def study(epochs: int = 2) -> Study:
    return expand(
        StudySpec.model_validate(
            {
                "name": "small",
                "data": {"name": "digits", "train": 80, "validation": 50, "test": 50},
                "training": {"epochs": epochs, "batch_size": 40},
                "arms": {"residual": {"network": "comparative-resnet"}},
                "vary": {"blocks": [1]},
                "seeds": 2,
            }
        )
    )


def run(runs: Path, url: str | None, emit: Callable[[Event], None] = lambda event: None) -> Store:
    store = Store.open(runs)
    store.register(study())
    InProcess().run(Job("small", runs, artifacts=url), emit)
    return store


def values(store: Store) -> list[tuple[object, ...]]:
    frame = store.records_frame("small")
    frame = frame[frame["split"] != "time"]
    return sorted(frame[["trial", "epoch", "step", "split", "name", "value"]].itertuples(index=False, name=None))


# --- files


def test_a_file_goes_there_and_comes_back(url: str, tmp_path: Path) -> None:
    here, elsewhere = tmp_path / "here", tmp_path / "elsewhere"
    here.mkdir()
    elsewhere.mkdir()
    (here / "a-1.bin").write_bytes(bytes(range(256)))
    name = artifacts.put(here / "a-1.bin", url)
    assert name == f"{url}/a-1.bin" and names(url) == ["a-1.bin"]
    assert artifacts.get(name, elsewhere).read_bytes() == bytes(range(256))
    assert [path.name for path in elsewhere.iterdir()] == ["a-1.bin"]
    (elsewhere / "a-1.bin").write_bytes(b"cut sho")  # a copy that is not whole is no copy
    assert artifacts.get(name, elsewhere).read_bytes() == bytes(range(256))
    artifacts.remove(name, elsewhere)
    artifacts.remove(name, elsewhere)
    assert names(url) == [] and list(elsewhere.iterdir()) == []
    with pytest.raises(artifacts.MissingArtifact, match=r"a-1\.bin: there is no such file"):
        artifacts.get(name, elsewhere)


def test_what_is_here_is_not_copied(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    name = artifacts.put(tmp_path / "a", url)
    system = type(fsspec.url_to_fs(url)[0])
    monkeypatch.setattr(system, "get_file", lambda *_, **__: pytest.fail("copied"))
    assert artifacts.get(name, tmp_path) == tmp_path / "a"


def test_without_a_url_a_file_goes_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert artifacts.put(tmp_path / "a", None) == "a"
    assert artifacts.get("a", tmp_path) == tmp_path / "a"
    artifacts.remove("a", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_strays_go_and_others_stay(url: str, tmp_path: Path) -> None:
    for name in ("t1-1.bin", "t1-2.bin", "t1-2.bin.77.partial", "t2-1.bin"):
        (tmp_path / name).write_bytes(b"x")
        artifacts.put(tmp_path / name, url)
    artifacts.remove_strays(url, "t1", [f"{url}/t1-1.bin", None])
    assert names(url) == ["t1-1.bin", "t2-1.bin"]
    artifacts.remove_strays(f"{url}/not/there", "t1", [])
    artifacts.remove_strays(None, "t1", [])


@pytest.mark.parametrize("failures", [1, artifacts.TRIES])
def test_a_copy_that_fails_is_tried_again_and_leaves_nothing_half(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failures: int
) -> None:
    (tmp_path / "a").write_bytes(b"abcdef")
    system = type(fsspec.url_to_fs(url)[0])
    real, number = system.put_file, itertools.count(1)

    def put_file(self: object, source: str, target: str, **more: object) -> None:
        real(self, source, target, **more)
        if next(number) <= failures:
            raise TimeoutError("the network is away")

    monkeypatch.setattr(system, "put_file", put_file)
    if failures == 1:
        assert content(artifacts.put(tmp_path / "a", url)) == b"abcdef"
        assert names(url) == ["a"]
        return
    with pytest.raises(StoreError, match="cannot be written: TimeoutError: the network is away") as caught:
        artifacts.put(tmp_path / "a", url)
    assert "\n" not in str(caught.value) and next(number) == failures + 1
    assert not any("partial" in name for name in names(url))


def test_places_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place, line in {
        "nowhere://x": "expected a folder or a URL such as",
        "s3://bucket/x": r"pip install 'leadline\[s3\]'",
        "gs://bucket/x": r"pip install 'leadline\[gcs\]'",
        f"memory://{'x' * 200}": "are more than 150",
        "ftp://me:secret@host/x": "a password in the URL would go into the ledger",
    }.items():
        with pytest.raises(SpecError, match=line) as caught:
            artifacts.folder_url(place)
        assert "\n" not in str(caught.value) and "secret" not in str(caught.value)
    monkeypatch.chdir(tmp_path)
    assert artifacts.folder_url("lab/") == artifacts.folder_url(f"file://{tmp_path}/lab") == f"file://{tmp_path}/lab"
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match=r"cannot be written: .*what was stored before is kept"):
        artifacts.put(tmp_path / "file", artifacts.folder_url(str(tmp_path / "file")))


def test_a_destination_gets_all_that_was_written_or_nothing(url: str, tmp_path: Path) -> None:
    with artifacts.destination(url) as folder:
        (folder / "below").mkdir()
        (folder / "a").write_bytes(b"a")
        (folder / "below" / "b").write_bytes(b"b")
    assert content(f"{url}/a") == b"a" and content(f"{url}/below/b") == b"b"
    with pytest.raises(ZeroDivisionError), artifacts.destination(f"{url}/more") as folder:
        (folder / "c").write_bytes(b"c")
        raise ZeroDivisionError
    assert "more" not in names(url) and not folder.exists()
    with artifacts.destination(str(tmp_path / "here")) as folder:
        assert folder == tmp_path / "here"


# --- trials


def interrupt(event: Event) -> None:
    if event.text.startswith("epoch 1"):
        raise KeyboardInterrupt


def test_a_trial_goes_on_from_the_url_to_the_same_bits(url: str, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "runs", url, interrupt)
    folder = tmp_path / "runs" / "checkpoints"
    kept = [path.name for path in folder.iterdir()]
    assert names(url) == kept and len(kept) == 1
    stray = kept[0].replace("-1.", "-1-2.")
    with fsspec.open(f"{url}/{stray}", "wb") as file:  # of a worker that was killed before it could say so
        file.write(b"half")
    for path in folder.iterdir():  # another machine
        path.unlink()
    events: list[Event] = []
    store = run(tmp_path / "runs", url, events.append)
    assert [event.kind for event in events if event.kind != "progress"] == ["started", "finished"] * 2
    assert min(event.fraction for event in events if event.trial == events[0].trial) == 0.5
    assert values(store) == values(run(tmp_path / "whole", None))
    checkpoints = {store.trial(trial).checkpoint for trial in store.trials_frame("small")["trial"]}
    assert checkpoints == {f"{url}/{name}" for name in names(url)} and len(checkpoints) == 2
    for path in folder.iterdir():
        path.unlink()
    loaded = from_trial(store, store.trials_frame("small")["trial"][0])
    assert loaded.trial is not None and loaded.trial.data == DataSpec(name="digits", train=80, validation=50, test=50)


def test_a_checkpoint_that_is_gone_from_the_url_is_done_without(url: str, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "runs", url, interrupt)
    system, path = fsspec.url_to_fs(url)
    system.rm(path, recursive=True)
    events: list[Event] = []
    store = run(tmp_path / "runs", url, events.append)
    (text,) = [event.text for event in events if event.kind == "restarted"]
    assert "there is no such file; training starts anew" in text
    assert store.trials_frame("small")["state"].tolist() == ["finished"] * 2
    assert values(store) == values(run(tmp_path / "whole", None))


def test_a_study_moves_to_a_url_and_back(url: str, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "runs", None, interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "runs", url, lambda event: interrupt(event) if event.fraction == 0.5 else None)
    store = run(tmp_path / "runs", None)
    assert values(store) == values(run(tmp_path / "whole", None))


def test_a_place_that_may_not_be_written_stops_the_run_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def put_file(self: object, source: str, target: str, **more: object) -> None:
        tries.append(target)
        raise PermissionError(13, "Permission denied")

    url = artifacts.folder_url(str(tmp_path / "else"))
    monkeypatch.setattr(type(fsspec.url_to_fs(url)[0]), "put_file", put_file)
    with pytest.raises(StoreError, match=r"cannot be written: PermissionError: .*Permission denied"):
        run(tmp_path / "runs", url)
    assert len(tries) == 1
    assert Store.open(tmp_path / "runs").trials_frame("small")["state"].tolist() == ["waiting"] * 2
