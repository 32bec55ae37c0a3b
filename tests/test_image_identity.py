"""The content of image folders and listed images as a part of a trial's identity, and what is said when it changes."""

import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import leadline as ll
from leadline.data.formats import examination
from leadline.data.formats.examination import describe_changes
from leadline.specs import DataSpec, TrialSpec, parse

NETWORK = {"stages": [{"blocks": 1, "width": 4}]}


def paint(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.random.default_rng(value).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(values).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for part, count in (("train", 8), ("val", 2)):
        for number in range(count):
            for name in ("cat", "dog"):
                paint(tmp_path / "pets" / part / name / f"{number}.png", 2 * number + len(name))
    return tmp_path / "pets"


def folder(root: Path) -> dict[str, Any]:
    return {"name": "imagefolder", "path": str(root), "size": 8, "augment": None}


def trial(data: dict[str, Any]) -> TrialSpec:
    return parse(TrialSpec, {"network": NETWORK, "data": data})


def study(data: dict[str, Any], name: str = "own", arms: tuple[str, ...] = ("plain", "residual")) -> ll.Study:
    shortcut = {"plain": {"block": {"shortcut": "none"}}, "residual": {}}
    return ll.Study.load(
        {
            "name": name,
            "data": data,
            "training": {"epochs": 1, "batch_size": 8},
            "arms": {arm: {"network": {**NETWORK, **shortcut[arm]}} for arm in arms},
            "seeds": 1,
        }
    )


def test_a_folder_is_identified_by_what_its_images_contain(root: Path) -> None:
    spec = trial(folder(root))
    first = spec.with_code()
    assert list(first.code) == [str(root)] and first.code[str(root)].startswith("sha256:")
    path = root / "train" / "cat" / "3.png"
    content = path.read_bytes()
    os.utime(path, (1, 1))
    (root / "notes.txt").write_text("not read")
    assert spec.with_code() == first
    paint(path, 99)
    other = spec.with_code()
    assert other.content_hash != first.content_hash
    path.write_bytes(content)
    assert spec.with_code() == first
    path.rename(path.with_name("x.png"))
    assert spec.with_code().content_hash not in (first.content_hash, other.content_hash)


def test_what_a_trial_stored_before_keeps_its_hash(root: Path) -> None:
    spec = trial(folder(root))
    assert not spec.code and "code" not in spec.model_dump()
    assert trial({"name": "digits"}).with_code().content_hash == trial({"name": "digits"}).content_hash


def test_images_that_a_file_lists_are_identified_and_others_are_not(root: Path) -> None:
    rows = [f"train/{name}/{number}.png,{name}" for name in ("cat", "dog") for number in range(8)]
    (root / "list.csv").write_text("\n".join(["path,label", *rows]))
    spec = trial({"name": "csv", "path": str(root / "list.csv"), "size": 8, "augment": None})
    first = spec.with_code()
    assert list(first.code) == [str(root / "list.csv"), f"{root / 'list.csv'} (images)"]
    paint(root / "val" / "cat" / "0.png", 50)
    assert spec.with_code() == first
    paint(root / "train" / "cat" / "0.png", 50)
    changed = spec.with_code()
    assert [name for name in first.code if first.code[name] != changed.code[name]] == [f"{root / 'list.csv'} (images)"]


def test_nothing_is_read_twice(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: Counter[str] = Counter()
    real = examination.read_bytes

    def read(path: Path) -> bytes:
        seen["files"] += 1
        return real(path)

    monkeypatch.setattr(examination, "read_bytes", read)
    spec = parse(DataSpec, folder(root))
    first = spec.identify(root)
    spec.read(root)
    assert seen["files"] == 20 and spec.identify(root) == first
    paint(root / "val" / "dog" / "0.png", 77)
    assert spec.identify(root) != first and seen["files"] == 22  # those of the folder that has changed


def test_what_has_changed_is_counted_and_named(root: Path) -> None:
    spec = parse(DataSpec, folder(root))

    def identity() -> str:
        return spec.identify(root)[str(root)]

    before = identity()
    (root / "train" / "cat" / "0.png").unlink()
    paint(root / "val" / "dog" / "new.png", 30)
    assert describe_changes(before, identity()) == ("images: 1 added, 1 removed: val/dog/new.png and train/cat/0.png")
    for number in range(1, 5):
        paint(root / "train" / "dog" / f"{number}.png", 40 + number)
    assert describe_changes(before, identity()) == (
        "images: 1 added, 1 removed, 4 changed, such as val/dog/new.png, train/cat/0.png and train/dog/1.png"
    )
    assert describe_changes("sha256:" + 64 * "0", before) == "" and describe_changes("torch 2", before) == ""
    examination._kept(before.removeprefix("sha256:")).write_bytes(b"damaged")
    assert describe_changes(before, identity()) == ""


def run(capsys: pytest.CaptureFixture[str], study: ll.Study, runs: Path) -> tuple[list[str], str]:
    """The finished trials of a study, and what the run said."""
    trials = study.run(runs, workers=0, progress=True).trials
    assert set(trials["state"]) == {"finished"}
    return trials["trial"].tolist(), " ".join("".join(capsys.readouterr()).split())


def test_arms_are_compared_on_the_same_images_only(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, _ = run(capsys, study(folder(root)), tmp_path / "runs")
    again, said = run(capsys, study(folder(root)), tmp_path / "runs")
    assert again == first and "has changed" not in said
    (root / "train" / "cat" / "0.png").unlink()
    later, said = run(capsys, study(folder(root)), tmp_path / "runs")
    change = f"{root} has changed (images: 1 removed: train/cat/0.png)"
    assert f"{change} since 2 trials of plain and residual ended: the trials are run again" in said
    assert not set(first) & set(later)


def test_another_study_of_changed_images_shares_no_trial(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, _ = run(capsys, study(folder(root), "first", ("plain",)), tmp_path / "runs")
    (root / "val" / "dog" / "1.png").unlink()
    both, said = run(capsys, study(folder(root), "both"), tmp_path / "runs")
    assert "(images: 1 removed: val/dog/1.png) since first last ran: no trials are shared with both" in said
    assert not set(plain) & set(both)
