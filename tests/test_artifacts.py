"""Checkpoints at a URL: written whole, found by the ledger's own words, taken from there where they are not here."""

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from leadline.api.export import from_trial
from leadline.errors import SpecError, StoreError
from leadline.running.executors import InProcess
from leadline.running.job import PATIENCE_SECONDS, Event, Job
from leadline.specs import DataSpec
from leadline.specs.study import StudySpec
from leadline.store import Store, artifacts
from leadline.store.retry import LONGEST_PAUSE
from leadline.study.expand import ExpandedStudy, expand


@pytest.fixture(params=["memory", "file"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "file":
        yield artifacts.folder_url(str(tmp_path / "else where"))
        return
    yield artifacts.folder_url(f"memory://lab/{tmp_path.name}")
    fsspec.filesystem("memory").store.clear()


class Clock:
    """A clock that goes on when somebody sleeps."""

    def __init__(self) -> None:
        self.now, self.pauses = 0.0, list[float]()

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.pauses.append(seconds)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("leadline.store.retry.time", made)
    return made


def names(url: str) -> list[str]:
    system, path = fsspec.url_to_fs(url)
    return sorted(artifacts.file_name(name) for name in system.ls(path, detail=False)) if system.exists(path) else []


def content(url: str) -> bytes:
    with fsspec.open(url) as file:
        found: bytes = file.read()
    return found


def study(epochs: int = 2) -> ExpandedStudy:
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
    assert artifacts.get(name, "a", elsewhere).read_bytes() == bytes(range(256))
    assert [path.name for path in elsewhere.iterdir()] == ["a-1.bin"]
    (elsewhere / "a-1.bin").write_bytes(b"cut sho")  # a copy that is not whole is no copy
    assert artifacts.get(name, "a", elsewhere).read_bytes() == bytes(range(256))
    artifacts.remove(name, "a", elsewhere, url)
    artifacts.remove(name, "a", elsewhere, url)
    assert names(url) == [] and list(elsewhere.iterdir()) == []
    with pytest.raises(artifacts.MissingArtifact, match=r"a-1\.bin: there is no such file"):
        artifacts.get(name, "a", elsewhere)


def test_what_is_here_is_not_copied(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a-1").write_bytes(b"abc")
    name = artifacts.put(tmp_path / "a-1", url)
    system = type(fsspec.url_to_fs(url)[0])
    monkeypatch.setattr(system, "get_file", lambda *_, **__: pytest.fail("copied"))
    assert artifacts.get(name, "a", tmp_path) == tmp_path / "a-1"


def test_without_a_url_a_file_goes_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "a-1").write_bytes(b"abc")
    assert artifacts.put(tmp_path / "a-1", None) == "a-1"
    assert artifacts.get("a-1", "a", tmp_path) == tmp_path / "a-1"
    artifacts.remove("a-1", "a", tmp_path, None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name",
    [
        "{top}/secret",
        "file://{top}/secret",
        "file://{top}/b2-1.safetensors",
        "../secret",
        "../a1-1.safetensors",
        "b2-1.safetensors",
        "a1-1.safetensors\n",
        "a1-",
        "a1",
        "",
        "zip://a1-1.safetensors::file://{top}/secret",
        "filecache::file://{top}/a1-1.safetensors",
    ],
)
def test_a_ledger_cannot_name_a_file_that_is_not_the_trials(name: str, tmp_path: Path) -> None:
    """Neither to be read, nor to be copied, nor to be removed."""
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    name = name.format(top=tmp_path)
    for place in (tmp_path / "secret", tmp_path / "b2-1.safetensors", tmp_path / "a1-1.safetensors"):
        place.write_bytes(b"kept")
        (folder / place.name).write_bytes(b"kept")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(artifacts.MissingArtifact, match="is not a file of trial a1, so it is not used"):
        artifacts.get(name, "a1", folder)
    artifacts.remove(name, "a1", folder, artifacts.folder_url(str(tmp_path)))
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_removed_lies_in_the_folder_that_is_set(tmp_path: Path, url: str) -> None:
    (tmp_path / "a1-1.safetensors").write_bytes(b"abc")
    name = artifacts.put(tmp_path / "a1-1.safetensors", url)
    for configured in (None, f"{url}x"):
        artifacts.remove(name, "a1", tmp_path / "nowhere", configured)
        assert names(url) == ["a1-1.safetensors"]
    artifacts.remove(name, "a1", tmp_path / "nowhere", url)
    assert names(url) == []


def test_a_trial_whose_row_names_another_file_starts_again_and_touches_nothing(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"kept")
    with Store.open(tmp_path / "runs") as store:
        store.register(study())
        claim = store.claim("small", "elsewhere:7:1", 60.0)
        assert claim is not None
        for epoch, place in ((0, "/etc/hostname"), (1, f"file://{secret}")):
            store.commit_epoch(claim.trial, "elsewhere:7:1", [], place, epoch, 0.0)
        store.release(claim.trial, "elsewhere:7:1")
    events: list[Event] = []
    after = run(tmp_path / "runs", None, events.append)
    assert after.trials_frame("small")["state"].tolist() == ["finished"] * 2
    assert [event.text for event in events if event.kind == "restarted"] == [
        f"checkpoint file://{secret}: is not a file of trial {claim.trial[:12]}, so it is not used; training continues"
        " from the previous checkpoint",
        f"checkpoint /etc/hostname: is not a file of trial {claim.trial[:12]}, so it is not used; training restarts"
        " from the beginning",
    ]
    assert secret.read_bytes() == b"kept" and not (tmp_path / "runs" / "checkpoints" / "secret").exists()


def test_strays_go_and_others_stay(url: str, tmp_path: Path) -> None:
    for name in ("t1-1.bin", "t1-2.bin", "t1-2.bin.77.partial", "t2-1.bin"):
        (tmp_path / name).write_bytes(b"x")
        artifacts.put(tmp_path / name, url)
    artifacts.remove_strays(url, "t1", [f"{url}/t1-1.bin", None])
    assert names(url) == ["t1-1.bin", "t2-1.bin"]
    artifacts.remove_strays(f"{url}/not/there", "t1", [])
    artifacts.remove_strays(None, "t1", [])


def test_strays_of_a_folder_whose_name_is_a_pattern_are_its_own(tmp_path: Path) -> None:
    ours, others = tmp_path / "run[1]", tmp_path / "run1"
    for folder in (ours, others):
        folder.mkdir()
        for name in ("t1-1.bin", "t1-2.bin"):
            (folder / name).write_bytes(b"x")
    artifacts.remove_strays(artifacts.folder_url(str(ours)), "t1", ["t1-2.bin"])
    assert [path.name for path in ours.iterdir()] == ["t1-2.bin"]
    assert sorted(path.name for path in others.iterdir()) == ["t1-1.bin", "t1-2.bin"]


@pytest.mark.parametrize("away", [1.0, 250.0, 1000.0])
def test_a_place_that_is_gone_is_waited_for_and_has_nothing_half(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock, away: float
) -> None:
    (tmp_path / "a").write_bytes(b"abcdef")
    system = type(fsspec.url_to_fs(url)[0])
    real = system.put_file

    def put_file(self: object, source: str, target: str, **more: object) -> None:
        real(self, source, target, **more)
        if clock.now < away:
            raise TimeoutError("the network is away")

    monkeypatch.setattr(system, "put_file", put_file)
    if away < PATIENCE_SECONDS:
        assert content(artifacts.put(tmp_path / "a", url, PATIENCE_SECONDS)) == b"abcdef"
        assert names(url) == ["a"]
        assert clock.pauses[:5] == [1.0, 2.0, 4.0, 8.0, 10.0][: len(clock.pauses)] and max(clock.pauses) <= 10.0
        return
    for patience in (artifacts.MOMENT_SECONDS, PATIENCE_SECONDS):
        began = clock.now
        with pytest.raises(StoreError, match="cannot be written: TimeoutError: the network is away") as caught:
            artifacts.put(tmp_path / "a", url, patience)
        assert "\n" not in str(caught.value)
        assert patience - LONGEST_PAUSE < clock.now - began <= patience
    assert not any("partial" in name for name in names(url))


class NoCredentialsError(Exception):
    """As botocore has it."""


@pytest.mark.parametrize(
    "error",
    [
        PermissionError(errno.EACCES, "Access Denied"),
        FileNotFoundError("The specified bucket does not exist"),
        NotADirectoryError(errno.ENOTDIR, "Not a directory"),
        NotImplementedError(),
        NoCredentialsError("Unable to locate credentials"),
        OSError(errno.ENOSPC, "No space left on device"),
    ],
)
def test_a_place_that_cannot_be_is_not_waited_for(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock, error: Exception
) -> None:
    (tmp_path / "a").write_bytes(b"abcdef")

    def put_file(*_: object, **more: object) -> None:
        raise error

    monkeypatch.setattr(type(fsspec.url_to_fs(url)[0]), "put_file", put_file)
    with pytest.raises(StoreError, match=r"cannot be written: .*; everything stored so far is kept"):
        artifacts.put(tmp_path / "a", url, PATIENCE_SECONDS)
    assert clock.pauses == []


def test_where_there_are_no_folders_none_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the bucket would be made as well, whose name may be mistyped."""
    (tmp_path / "a").write_bytes(b"abc")
    url = artifacts.folder_url(f"memory://lab/{tmp_path.name}")
    system = fsspec.url_to_fs(url)[0]
    for name in ("makedirs", "mkdir"):
        monkeypatch.setattr(type(system), name, lambda *_, **__: pytest.fail("made"))

    def put_file(self: Any, here: str, there: str) -> None:  # of fsspec's own, it would make a folder
        self.pipe_file(there, Path(here).read_bytes())

    monkeypatch.setattr(type(system), "put_file", put_file)
    assert content(artifacts.put(tmp_path / "a", url)) == b"abc"
    system.store.clear()


def test_a_file_that_came_after_the_folder_was_listed_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A storage that remembers what it has listed, as those of s3:// and gs:// do."""
    url = artifacts.folder_url(f"memory://lab/{tmp_path.name}")
    system, target = fsspec.url_to_fs(f"{url}/a-1")
    kind, listed = type(system), dict[str, list[Any]]()
    real_ls, real_info = kind.ls, kind.info

    def ls(self: Any, path: str, detail: bool = True, **more: object) -> list[Any]:
        path = self._strip_protocol(path)
        listed.setdefault(path, real_ls(self, path, detail=True))
        return listed[path] if detail else [one["name"] for one in listed[path]]

    def info(self: Any, path: str, **more: object) -> Any:
        path = self._strip_protocol(path)
        if self._parent(path) in listed and path not in [one["name"] for one in listed[self._parent(path)]]:
            raise FileNotFoundError(path)
        return real_info(self, path)

    monkeypatch.setattr(kind, "ls", ls)
    monkeypatch.setattr(kind, "info", info)
    monkeypatch.setattr(kind, "invalidate_cache", lambda self, path=None: listed.clear())
    system.pipe_file(f"{url}/b", b"b")
    assert names(url) == ["b"]
    system.pipe_file(target, b"abc")  # by another machine
    assert not system.exists(target)
    assert artifacts.get(f"{url}/a-1", "a", tmp_path).read_bytes() == b"abc"
    assert names(url) == ["a-1", "b"]
    system.pipe_file(f"{url}/t1-1.bin", b"stray")
    assert names(url) == ["a-1", "b"]
    artifacts.remove_strays(url, "t1", [])
    listed.clear()
    assert names(url) == ["a-1", "b"]
    system.store.clear()


def test_places_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place, line in {
        "nowhere://x": "expected a folder or a URL such as",
        "s3://bucket/x": r"s3:// needs the package s3fs, .* pip install '\.\[s3\]'",
        "gs://bucket/x": r"gs:// needs the package gcsfs, .* pip install '\.\[gcs\]'",
        f"memory://{'x' * 200}": "more than 150",
        "ftp://me:secret@host/x": "a password in the URL would be stored in the ledger",
        "https://host/x?v=1&sig=secret": "a password in the URL would be stored in the ledger",
        "nowhere://host/x?TOKEN=secret": "a password in the URL would be stored in the ledger",
    }.items():
        with pytest.raises(SpecError, match=line) as caught:
            artifacts.folder_url(place)
        assert "\n" not in str(caught.value) and "secret" not in str(caught.value)
    monkeypatch.chdir(tmp_path)
    assert artifacts.folder_url("lab/") == artifacts.folder_url(f"file://{tmp_path}/lab") == f"file://{tmp_path}/lab"
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match=r"cannot be written: .*everything stored so far is kept"):
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_checkpoint_that_is_gone_from_the_url_is_done_without(url: str, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "runs", url, interrupt)
    system, path = fsspec.url_to_fs(url)
    system.rm(path, recursive=True)
    for kept in (tmp_path / "runs" / "checkpoints").iterdir():  # another machine
        kept.unlink()
    events: list[Event] = []
    store = run(tmp_path / "runs", url, events.append)
    (text,) = [event.text for event in events if event.kind == "restarted"]
    assert "there is no such file; training restarts from the beginning" in text
    assert store.trials_frame("small")["state"].tolist() == ["finished"] * 2
    assert values(store) == values(run(tmp_path / "whole", None))


@pytest.mark.slow
@pytest.mark.parametrize("damaged", ["changed here", "shorter here", "changed there", "shorter there", "gone there"])
def test_the_copy_that_is_whole_is_used(url: str, tmp_path: Path, damaged: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "runs", url, interrupt)
    (here,) = (tmp_path / "runs" / "checkpoints").iterdir()
    system, there = fsspec.url_to_fs(f"{url}/{here.name}")
    whole = here.read_bytes()
    changed = whole[:-5] + bytes([whole[-5] ^ 4]) + whole[-4:]
    assert content(f"{url}/{here.name}") == whole
    what, place = damaged.split()
    if place == "here":
        here.write_bytes(changed if what == "changed" else whole[:-100])
    else:
        system.rm_file(there)
        if what != "gone":
            system.pipe_file(there, changed if what == "changed" else whole[:-100])
    events: list[Event] = []
    store = run(tmp_path / "runs", url, events.append)
    assert [event.kind for event in events if event.kind != "progress"] == ["started", "finished"] * 2
    assert values(store) == values(run(tmp_path / "whole", None))


@pytest.mark.slow
def test_where_nothing_may_be_removed_or_listed_trials_go_on(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    kind = type(fsspec.url_to_fs(url)[0])
    refused: list[str] = []

    def refuse(self: object, path: str, **more: object) -> None:
        refused.append(path)
        raise TimeoutError("away") if len(refused) % 2 else PermissionError(errno.EACCES, "Access Denied")

    with monkeypatch.context() as append_only:
        for name in ("rm_file", "ls"):
            append_only.setattr(kind, name, refuse)
        store = run(tmp_path / "runs", url)
    assert store.trials_frame("small")["state"].tolist() == ["finished"] * 2
    assert len(refused) >= 4 and clock.pauses == []
    assert len(names(url)) == 4  # of each trial the earlier one as well
    assert values(store) == values(run(tmp_path / "whole", None))


@pytest.mark.slow
def test_a_worker_waits_for_a_place_that_is_gone_for_minutes(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    """Each time that something is to be written or read there."""
    kind = type(fsspec.url_to_fs(url)[0])
    back = dict[str, float]()

    def away(name: str) -> Callable[..., Any]:
        real = getattr(kind, name)

        def tried(self: object, path: str, *arguments: object, **more: object) -> Any:
            if clock.now < back.setdefault(name + path, clock.now + 240.0):
                raise ConnectionError("no route to host")
            return real(self, path, *arguments, **more)

        return tried

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "runs", url, interrupt)
    for path in (tmp_path / "runs" / "checkpoints").iterdir():
        path.unlink()
    with monkeypatch.context() as shaky:
        for name in ("put_file", "get_file"):
            shaky.setattr(kind, name, away(name))
        events: list[Event] = []
        store = run(tmp_path / "runs", url, events.append)
    assert [event.kind for event in events if event.kind != "progress"] == ["started", "finished"] * 2
    assert len(back) >= 4 and clock.now >= 4 * 240.0
    assert values(store) == values(run(tmp_path / "whole", None))


def test_a_machine_that_knows_no_such_place_leaves_the_trials_to_others(tmp_path: Path) -> None:
    with Store.open(tmp_path / "runs") as store:
        store.register(study())
        claim = store.claim("small", "elsewhere:7:1", 60.0)
        assert claim is not None
        store.commit_epoch(claim.trial, "elsewhere:7:1", [], f"nowhere://lab/{claim.trial}-1.safetensors", 1, 0.0)
        store.release(claim.trial, "elsewhere:7:1")
        artifacts.remove(f"nowhere://lab/{claim.trial}-1.safetensors", claim.trial, store.checkpoints, "nowhere://lab")
    with pytest.raises(StoreError, match=r"nowhere://lab/\w+-1\.safetensors: .*expected a folder or a URL such as"):
        run(tmp_path / "runs", None)
    assert Store.open(tmp_path / "runs").trials_frame("small")["state"].tolist() == ["waiting"] * 2


@pytest.mark.slow
def test_a_study_moves_to_a_url_and_back(url: str, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "runs", None, interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "runs", url, lambda event: interrupt(event) if event.fraction == 0.5 else None)
    store = run(tmp_path / "runs", None)
    assert values(store) == values(run(tmp_path / "whole", None))


def test_a_place_that_may_not_be_written_stops_the_run_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    tries = []

    def put_file(self: object, source: str, target: str, **more: object) -> None:
        tries.append(target)
        raise PermissionError(13, "Permission denied")

    url = artifacts.folder_url(str(tmp_path / "else"))
    monkeypatch.setattr(type(fsspec.url_to_fs(url)[0]), "put_file", put_file)
    with pytest.raises(StoreError, match=r"cannot be written: PermissionError: .*Permission denied"):
        run(tmp_path / "runs", url)
    assert len(tries) == 1 and clock.pauses == []
    assert Store.open(tmp_path / "runs").trials_frame("small")["state"].tolist() == ["waiting"] * 2
