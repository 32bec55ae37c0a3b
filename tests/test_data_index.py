"""Folders of pictures: layouts, what is checked once and what again, and one line for what cannot be used."""

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from unicodedata import normalize

import numpy as np
import pytest
from PIL import Image

from leadline.data.batches import load
from leadline.data.checking import check
from leadline.data.encoded import EncodedDataset
from leadline.data.formats import examination
from leadline.data.formats.images import WHITE
from leadline.data.formats.index import Index, read_index
from leadline.data.metadata import describe
from leadline.errors import DataError
from leadline.specs import DataSpec


def fill(folder: Path, count: int = 5, size: tuple[int, int] = (12, 10), ending: str = ".png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        values = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(values).save(folder / f"{number:04}{ending}")
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for part in ("train", "val"):
        for name in ("cat", "dog"):
            fill(tmp_path / "pets" / part / name)
    return tmp_path / "pets"


def problem(root: Path, skip: bool = False) -> str:
    """The one line that a folder leads to, below its own path."""
    with pytest.raises(DataError) as caught:
        read_index(root, skip)
    text = str(caught.value)
    assert "\n" not in text and text.startswith(str(root))
    return text.removeprefix(str(root))


def counts(found: Index) -> tuple[list[int], list[int]]:
    return np.bincount(found.train.labels).tolist(), np.bincount(found.test.labels).tolist()


# --- layouts


def test_imagenets_layout(root: Path) -> None:
    (root / "test").mkdir()  # ImageNet's test pictures have no classes
    Image.new("RGB", (4, 4)).save(root / "test" / "unlabelled.png")
    found = read_index(root, False)
    assert found.classes == ("cat", "dog") and counts(found) == ([5, 5], [5, 5])
    assert found.train.paths[0] == "train/cat/0000.png" and found.test.paths[-1] == "val/dog/0004.png"
    assert describe(DataSpec(name="imagefolder", path=str(root), size=64)) == ((3, 64, 64), 2)


def test_a_test_folder_with_classes_comes_before_val(root: Path) -> None:
    fill(root / "test" / "dog", 3)
    found = read_index(root, False)
    assert set(found.test.paths) == {f"test/dog/{n:04}.png" for n in range(3)} and set(found.test.labels) == {1}
    assert found.validation is not None and found.notes == ()
    assert set(found.validation.paths) == {f"val/{name}/{n:04}.png" for name in ("cat", "dog") for n in range(5)}


@pytest.mark.parametrize("name", ["val", "validation", "Valid", "DEV"])
def test_a_validation_folder_is_used_beside_a_test_folder(root: Path, name: str) -> None:
    (root / "val").rename(root / name)
    (root / "train").rename(root / "Train")
    fill(root / "TEST" / "cat", 3)
    found = read_index(root, False)
    assert found.validation is not None and {path.split("/")[0] for path in found.validation.paths} == {name}
    assert {path.split("/")[0] for path in found.train.paths} == {"Train"} and counts(found) == ([5, 5], [3])
    spec = DataSpec(name="imagefolder", path=str(root), size=8)
    data = load(spec)
    assert isinstance(data, EncodedDataset) and data.validation.paths == found.validation.paths
    assert data.train_size == 10 and check(spec).lines[1].startswith(f"{root} validation: 10 images")


@pytest.mark.parametrize("name", ["val", "validation", "Valid", "dev"])
def test_a_validation_folder_alone_is_the_test_part_which_is_said(root: Path, name: str) -> None:
    (root / "val").rename(root / name)
    found = read_index(root, False)
    assert found.validation is None and {path.split("/")[0] for path in found.test.paths} == {name}
    assert found.notes == (f"{root}: {name} holds the test images; validation images are split off train",)


def test_two_validation_folders_are_refused(root: Path) -> None:
    fill(root / "valid" / "cat")
    assert problem(root) == ": has val and valid, which are all the validation part; keep one of them, or merge them"


def test_classes_may_be_named_like_parts(tmp_path: Path) -> None:
    for name in ("valid", "invalid", "dev"):
        fill(tmp_path / "letters" / name)
    assert read_index(tmp_path / "letters", False).classes == ("dev", "invalid", "valid")


def test_folders_and_files_that_are_not_used_are_said(root: Path) -> None:
    (root / "extra" / "cat").mkdir(parents=True)
    (root / "test").mkdir()
    (root / "train" / "cat" / "b.heic").write_bytes(b"x")
    (root / "train" / "readme.md").write_bytes(b"x")
    (root / "readme.md").write_bytes(b"x")
    expected = [
        f"{root}: test holds no class folders and is not used",
        f"{root}: val holds the test images; validation images are split off train",
        f"{root}: not used: extra; only train/<class>/<image> and val or test beside it, or <class>/<image> is read",
        f"{root}: 2 files are not read, the first is train/cat/b.heic: only names in .jpg, .jpeg, .jpe, .jfif, .png,"
        " .webp, .bmp, .tif, .tiff, .gif are images",
    ]
    assert list(read_index(root, False).notes) == expected
    spec = DataSpec(name="imagefolder", path=str(root), size=8)
    assert check(spec).lines[-4:] == expected and list(load(spec).notes) == expected


def test_names_are_the_same_in_any_unicode_normalisation(root: Path) -> None:
    composed, decomposed = (normalize(form, "café") for form in ("NFC", "NFD"))
    fill(root / "train" / decomposed, 3)
    fill(root / "val" / composed, 2)
    found = read_index(root, False)
    assert found.classes == (composed, "cat", "dog") and counts(found) == ([3, 5, 5], [2, 5, 5])
    fill(root / "train" / composed, 3)
    assert problem(root).startswith("/train: has two folders named 'café', which differ in their Unicode normalisation")


def test_transparent_pixels_are_said(root: Path) -> None:
    Image.new("RGBA", (4, 4), (0, 0, 0, 255)).save(root / "train" / "cat" / "opaque.png")
    assert "transparent pixels" not in " ".join(read_index(root, False).notes)
    Image.new("RGBA", (4, 4), (0, 0, 0, 100)).save(root / "train" / "cat" / "clear.png")
    for background, words in ((WHITE, "white"), ((1, 2, 3), "the colour (1, 2, 3)")):
        assert read_index(root, False, background).notes[-1] == (
            f"{root}: 1 image has transparent pixels; {words} is put behind them, as data.background says"
        )


def test_class_folders_alone_give_a_fixed_fifth_for_testing(tmp_path: Path) -> None:
    for number, name in enumerate(("ant", "bee", "fly")):
        fill(tmp_path / "insects" / name, 10 * (number + 1))
    found = read_index(tmp_path / "insects", False)
    assert counts(found) == ([8, 16, 24], [2, 4, 6])
    assert not set(found.train.paths) & set(found.test.paths)
    again = read_index(tmp_path / "insects", False)
    assert again.test.paths == found.test.paths and list(again.test.paths) == sorted(again.test.paths)


def test_train_without_val_gives_a_fixed_fifth_too(root: Path) -> None:
    shutil.rmtree(root / "val")
    assert counts(read_index(root, False)) == ([4, 4], [1, 1])


def test_what_is_passed_over(root: Path) -> None:
    (root / "train" / "cat" / ".DS_Store").write_bytes(b"x")
    (root / "train" / "cat" / "notes.txt").write_bytes(b"x")
    (root / ".git").mkdir()
    (root / "train" / ".cache").mkdir()
    (root / "train" / "readme.md").write_bytes(b"x")
    os.mkfifo(root / "train" / "cat" / "pipe.jpg")  # reading it would wait for ever
    assert counts(read_index(root, False)) == ([5, 5], [5, 5])


def test_links_to_folders_and_files_are_followed(root: Path, tmp_path: Path) -> None:
    (root / "train" / "cat").rename(tmp_path / "elsewhere")
    (root / "train" / "cat").symlink_to(tmp_path / "elsewhere")
    (root / "train" / "dog" / "linked.PNG").symlink_to(tmp_path / "elsewhere" / "0000.png")
    assert counts(read_index(root, False)) == ([5, 6], [5, 5])


# --- folders that cannot be used


def test_no_folder(tmp_path: Path) -> None:
    assert problem(tmp_path / "none") == ": no such folder; change data.path or --data-dir"
    (tmp_path / "file").write_bytes(b"")
    assert "is a file, where a folder is expected" in problem(tmp_path / "file")


def test_an_empty_folder_and_pictures_without_classes(tmp_path: Path) -> None:
    assert "holds no class folders; expected train/<class>/<image>" in problem(tmp_path)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    assert "holds no class folders" in problem(tmp_path)


def test_no_pictures_at_all(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    endings = ".jpg, .jpeg, .jpe, .jfif, .png, .webp, .bmp, .tif, .tiff, .gif"
    assert problem(tmp_path) == f"/cat: holds no image ({endings}); fill or remove this class folder"


@pytest.mark.parametrize("part", ["train", "val"])
def test_an_empty_class_folder(root: Path, part: str) -> None:
    (root / part / "eel").mkdir()
    if part == "val":
        fill(root / "train" / "eel")
    assert problem(root).startswith(f"/{part}/eel: holds no image")


def test_a_class_that_training_lacks(root: Path) -> None:
    fill(root / "val" / "eel")
    assert problem(root) == "/val/eel: this class is missing in train; add it there or remove it here"
    fill(root / "val" / "owl")
    assert problem(root).startswith("/val/eel and 1 more: this class is missing in train")


def test_val_without_class_folders(root: Path) -> None:
    shutil.rmtree(root / "val")
    (root / "val").mkdir()
    Image.new("RGB", (4, 4)).save(root / "val" / "ILSVRC2012_val_00000001.png")
    assert problem(root) == "/val: holds no class folders; sort its images into folders named as those of train"


def test_val_without_train(root: Path) -> None:
    shutil.rmtree(root / "train")
    assert problem(root).startswith(": has val but no train; expected")


def test_links_that_lead_round_in_a_circle(root: Path) -> None:
    loop = root / "train" / "cat" / "loop"
    loop.symlink_to(root / "train" / "cat")
    assert problem(root).startswith("/train/cat/loop: folders inside a class folder are not read")
    loop.unlink()
    loop.symlink_to(loop)
    assert problem(root) == "/train/cat/loop: cannot be read: Too many levels of symbolic links; repair or remove it"
    loop.unlink()
    (root / "train" / "all").symlink_to(root)
    assert problem(root).startswith("/train/all/")


def test_too_few_to_cut_a_test_part_from(tmp_path: Path) -> None:
    fill(tmp_path / "cat", 2)
    assert "2 images are too few to split off a test part" in problem(tmp_path)


# --- corrupt images


def spoil(root: Path) -> None:
    (root / "train" / "cat" / "0001.png").write_bytes(b"")
    (root / "train" / "dog" / "text.jpg").write_text("no picture")
    whole = (root / "val" / "dog" / "0000.png").read_bytes()
    (root / "val" / "dog" / "0000.png").write_bytes(whole[: len(whole) // 2])


def test_corrupt_pictures_are_listed_and_fatal(root: Path) -> None:
    spoil(root)
    text = problem(root)
    assert text.startswith(": 3 corrupt images: train/cat/0001.png (the file is empty), train/dog/text.jpg (not a")
    assert text.endswith("repair or remove them, or skip them with data.corrupt: skip")


def test_corrupt_pictures_are_left_out_and_counted(root: Path) -> None:
    spoil(root)
    found = read_index(root, True)
    assert counts(found) == ([4, 5], [5, 4])
    assert [one.path for one in found.corrupt] == ["train/cat/0001.png", "train/dog/text.jpg", "val/dog/0000.png"]
    assert not {one.path for one in found.corrupt} & {*found.train.paths, *found.test.paths}


def test_many_corrupt_pictures_are_counted_and_listed_in_a_file(root: Path) -> None:
    for number in range(5):
        (root / "train" / "cat" / f"bad{number}.jpg").write_bytes(b"")
    text = problem(root)
    assert ": 5 corrupt images: " in text and text.count("(the file is empty)") == 3
    listed = Path(text.partition(" and 2 more, all in ")[2].partition(";")[0])
    assert listed.read_text().count("the file is empty") == 5


def test_a_class_of_which_nothing_is_left(root: Path) -> None:
    for path in (root / "train" / "cat").iterdir():
        path.write_bytes(b"")
    assert (
        problem(root, skip=True) == "/train/cat: none of its 5 images can be decoded; replace them or remove the folder"
    )


def test_a_bomb_is_a_corrupt_picture(root: Path) -> None:
    Image.MAX_IMAGE_PIXELS, before = None, Image.MAX_IMAGE_PIXELS
    try:
        Image.new("1", (10_000, 9_000)).save(root / "train" / "cat" / "bomb.png")
    finally:
        Image.MAX_IMAGE_PIXELS = before
    (one,) = read_index(root, True).corrupt
    assert one.path == "train/cat/bomb.png" and "10000 x 9000 pixels are more than" in one.problem


def test_a_file_far_too_large_is_not_read(root: Path) -> None:
    with (root / "train" / "cat" / "huge.jpg").open("wb") as file:
        file.truncate(2**40)
    (one,) = read_index(root, True).corrupt
    assert one.path == "train/cat/huge.jpg" and one.problem == "1,099,511,627,776 bytes are more than 357,913,940"


# --- checked once


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> "Counter[str]":
    """How many pictures have been checked."""
    seen: Counter[str] = Counter()
    real = examination.read_pixels

    def read_pixels(content: bytes) -> Image.Image:
        seen["pictures"] += 1
        return real(content)

    monkeypatch.setattr(examination, "read_pixels", read_pixels)
    return seen


def test_nothing_is_checked_twice(root: Path, decoded: "Counter[str]") -> None:
    spoil(root)
    first = read_index(root, True)
    assert decoded["pictures"] == 21
    again = read_index(root, True)
    assert decoded["pictures"] == 21 and again.corrupt == first.corrupt and again.train.paths == first.train.paths
    assert "3 corrupt images" in problem(root)


def test_a_class_that_has_changed_is_checked_again(root: Path, decoded: "Counter[str]") -> None:
    spoil(root)
    read_index(root, True)
    Image.new("RGB", (4, 4)).save(root / "train" / "cat" / "0001.png")  # mended in place
    found = read_index(root, True)
    assert decoded["pictures"] == 21 + 5 and len(found.corrupt) == 2 and "train/cat/0001.png" in found.train.paths
    fill(root / "val" / "cat", 7)
    assert counts(read_index(root, True))[1] == [7, 4] and decoded["pictures"] == 21 + 5 + 7


@pytest.mark.parametrize("content", ["", "[]", '{"format": 3}', '{"folders": {"train/cat": 3}}'])
def test_a_damaged_cache_is_made_anew(root: Path, decoded: "Counter[str]", content: str) -> None:
    read_index(root, True)
    examination._cache(root).write_text(content)
    read_index(root, True)
    read_index(root, True)
    assert decoded["pictures"] == 40


def test_a_cache_that_cannot_be_written(root: Path, decoded: "Counter[str]", tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    for _ in range(2):
        assert counts(read_index(root, True)) == ([5, 5], [5, 5])
    assert decoded["pictures"] == 40


def test_a_file_that_cannot_be_read_now_is_not_corrupt(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.read_bytes

    def broken(path: Path) -> bytes:
        if path.name == "0003.png":
            raise OSError(5, "Input/output error")
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", broken)
    assert "cannot be read: Input/output error" in problem(root, skip=True)


# --- without torch


def test_describing_needs_neither_torch_nor_pillow() -> None:
    code = "import sys, leadline.data.metadata; print('torch' in sys.modules, 'PIL' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
