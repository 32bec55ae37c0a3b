"""Custom data: arrays of a function, .npz, CSV, grey folders, Parquet; each trained by two arms on the same batches."""

import functools
import random
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from torch import Tensor
from typer.testing import CliRunner

import leadline as ll
from leadline.cli import app
from leadline.data.arrays import Arrays, check_arrays
from leadline.data.batches import Data, Dataset, load
from leadline.data.checking import check
from leadline.data.encoded import EncodedDataset
from leadline.data.metadata import describe
from leadline.data.split import cut, split_sizes, validate_split_sizes
from leadline.errors import DataError, LeadlineError, SpecError
from leadline.networks import mlp
from leadline.parts.augmentations.resized_crop import ResizedCrop
from leadline.running.executors import InProcess
from leadline.running.job import Job
from leadline.specs import Augment, DataSpec, TrialSpec, parse
from leadline.specs.study import StudySpec
from leadline.store import Store
from leadline.study.expand import expand

ARMS = {
    "plain": {"network": {"stages": [{"blocks": 1, "width": 4}], "block": {"shortcut": "none"}}},
    "residual": {"network": {"stages": [{"blocks": 1, "width": 4}]}},
}


def spirals(points: int = 80, noise: float = 0.0, drawn: bool = False) -> ll.Arrays:
    """Two classes of small images, bright to the left or to the right."""
    rng = np.random.default_rng(int(torch.randint(2**31, ())) if drawn else 0)
    labels = np.arange(points) % 2
    images = rng.random((points, 1, 6, 6), dtype=np.float32)
    images[labels == 0, :, :, :3] += 1
    images[labels == 1, :, :, 3:] += 1
    return ll.Arrays(
        train=(images + np.float32(noise), labels),
        test=(images[:20], labels[:20]),
        class_names=["left", "right"],
    )


def fade(images: Tensor, random: Tensor, most: float = 0.5) -> Tensor:
    """Darken each image by a random share."""
    return images * (1 - most * random[:, 0].view(-1, 1, 1, 1))


def jitter(images: Tensor, random: Tensor) -> Tensor:
    """Add noise from PyTorch's global generator, which is not keyed by sample."""
    return images + 0.01 * torch.randn_like(images)


def halve(images: Tensor, random: Tensor) -> Tensor:
    return images[:, :, ::2]


def fail(images: Tensor, random: Tensor) -> Tensor:
    raise ZeroDivisionError("no")


def nothing() -> int:
    return 3


def write_images(folder: Path, count: int = 30, mode: str = "L") -> list[Path]:
    """Write images that are dark or bright, in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(1)
    paths = []
    for number in range(count):
        values = rng.integers(0, 100, (14, 12, 1 if mode == "L" else 3), dtype=np.uint8) + 120 * (number % 2)
        paths.append(folder / f"{number:03}.png")
        Image.fromarray(values.astype(np.uint8).squeeze()).save(paths[-1])
    return paths


def write_npz(folder: Path) -> dict[str, Any]:
    made = spirals()
    assert made.test is not None
    names = np.array(["left", "right"])
    train, test = made.train, made.test
    np.savez(
        folder / "arrays.npz",
        train_images=train[0],
        train_labels=train[1],
        test_images=test[0],
        test_labels=test[1],
        class_names=names,
    )
    return {"name": "npz", "path": str(folder / "arrays.npz")}


def write_csv(folder: Path) -> dict[str, Any]:
    paths = write_images(folder / "scans")
    splits = ["test" if n >= 24 else "validation" if n >= 18 else "train" for n in range(30)]
    rows = [f"scans/{path.name},{('dark', 'bright')[n % 2]},{splits[n]}" for n, path in enumerate(paths)]
    (folder / "manifest.csv").write_text("\n".join(["path,label,split", *rows]))
    return {"name": "csv", "path": str(folder / "manifest.csv"), "size": 8, "augment": {"pad": 1}}


def write_grey_folder(folder: Path) -> dict[str, Any]:
    for number, path in enumerate(write_images(folder / "flat")):
        target = folder / "grey" / ("dark", "bright")[number % 2] / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    return {"name": "imagefolder", "path": str(folder / "grey"), "size": 8, "channels": "grey"}


def write_parquet(folder: Path) -> dict[str, Any]:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pytest.importorskip("datasets")
    paths = write_images(folder / "scans", mode="RGB")
    images = [{"bytes": path.read_bytes(), "path": path.name} for path in paths]
    labels = [number % 2 for number in range(30)]
    for part, rows in (("train", slice(0, 24)), ("test", slice(24, 30))):
        table = pa.table({"image": images[rows], "label": labels[rows]})
        (folder / "parquet").mkdir(exist_ok=True)
        pq.write_table(table, folder / "parquet" / f"{part}-00000-of-00001.parquet")
    return {"name": "hf", "path": str(folder / "parquet"), "size": 8, "augment": None}


def write_function(folder: Path) -> dict[str, Any]:
    return {"module": "test_custom_data:spirals", "arguments": {"points": 60}, "augment": "test_custom_data:fade"}


WAYS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "function": write_function,
    "npz": write_npz,
    "csv": write_csv,
    "grey folder": write_grey_folder,
    "parquet": write_parquet,
}


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Functions of this file are found as other processes find them, by the file's name."""
    monkeypatch.syspath_prepend(Path(__file__).parent)
    monkeypatch.setitem(sys.modules, "test_custom_data", sys.modules[__name__])


def whole(batches: Iterator[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


# --- the whole way


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_two_arms_are_trained_on_the_same_batches(tmp_path: Path, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = WAYS[way](tmp_path)
    study = expand(
        parse(
            StudySpec,
            {
                "name": "custom",
                "data": {"validation": 6, **data} if way != "csv" else data,
                "training": {"epochs": 2, "batch_size": 8},
                "arms": ARMS,
                "seeds": 1,
            },
        )
    )
    seen: list[list[bytes]] = []
    for kind in (Dataset, EncodedDataset):
        real = kind.train_batches

        def watched(self: Any, *arguments: Any, real: Any = real, **named: Any) -> Iterator[tuple[Tensor, Tensor]]:
            seen.append([])
            for images, labels in real(self, *arguments, **named):
                seen[-1].append(images.numpy().tobytes() + labels.numpy().tobytes())
                yield images, labels

        monkeypatch.setattr(kind, "train_batches", watched)
    with Store.open(tmp_path / "runs") as store:
        store.register(study)
        InProcess().run(Job("custom", tmp_path / "runs"), lambda event: None)
        frame = store.trials_frame("custom")
        assert list(frame["state"]) == ["finished"] * 2, frame["error"].tolist()
        predictions = store.outputs("custom")
    assert len(predictions) == 2
    epochs = len(seen) // 2
    assert epochs == 2 and seen[:epochs] == seen[epochs:] and seen[0] != seen[1]


@pytest.mark.parametrize("way", WAYS)
def test_a_specification_comes_back_as_it_was(tmp_path: Path, way: str) -> None:
    spec = parse(DataSpec, WAYS[way](tmp_path))
    assert parse(DataSpec, spec.model_dump(mode="json")) == spec == DataSpec(**spec.model_dump(mode="json"))
    assert type(spec).__name__ in str(StudySpec.model_json_schema())


@pytest.mark.parametrize("way", WAYS)
def test_what_is_known_before_is_what_is_loaded(tmp_path: Path, way: str) -> None:
    spec = parse(DataSpec, {"validation": 5, **WAYS[way](tmp_path)})
    data = load(spec)
    assert isinstance(data, Data) and data.metadata is not None
    assert describe(spec) == (data.shape, data.classes) == (data.metadata.shape, 2)
    sizes = spec.sizes(tmp_path)
    lines = check(spec).lines
    assert len(data.test_labels) == sizes.test and f"test: {sizes.test} images" in " ".join(lines)
    known = {"function": ("left", "right"), "npz": ("left", "right"), "parquet": ("0", "1")}
    assert data.metadata.class_names == known.get(way, ("bright", "dark"))


# --- arrays


def test_a_function_is_given_by_reference_or_as_itself() -> None:
    spec = parse(DataSpec, {"module": "test_custom_data:spirals", "arguments": {"points": 60}, "train": 20})
    assert spec.display_name == "test_custom_data:spirals(points=60)"
    given = parse(TrialSpec, {"network": ARMS["plain"]["network"], "data": functools.partial(spirals, points=60)})
    assert given.data.with_(train=20) == spec or given.data.model_dump()["arguments"] == {"points": 60}
    assert not {"name"} & spec.model_dump().keys()
    with pytest.raises(SpecError, match="unknown key 'pionts'"):
        parse(DataSpec, {"module": "a:b", "pionts": 3})


def test_floats_are_used_as_they_are() -> None:
    reference = {"module": "test_custom_data:spirals", "arguments": {"noise": 5.0}}
    plain = load(parse(DataSpec, {**reference, "normalise": "none"}))
    assert isinstance(plain, Dataset)
    images, _ = whole(plain.evaluation_batches("train", 7))
    assert torch.equal(images, plain.train.images) and images.min() >= 5
    centred = load(parse(DataSpec, {**reference, "normalise": "pixel-mean"}))
    images, _ = whole(centred.evaluation_batches("train", 7))
    assert images.mean(0).abs().max() < 1e-5 and images.max() - images.min() > 1
    channel = load(parse(DataSpec, reference))
    for _ in range(2):  # evaluation does not change what it is given
        images, _ = whole(channel.evaluation_batches("train", 7))
        assert abs(float(images.mean())) < 1e-5 and abs(float(images.std()) - 1) < 1e-2


def test_what_a_function_draws_is_seeded_and_put_back() -> None:
    drawn = {"module": "test_custom_data:spirals", "arguments": {"drawn": True}}
    first = parse(DataSpec, drawn).read(Path())
    other = parse(DataSpec, {**drawn, "subset_seed": 1}).read(Path())
    torch.manual_seed(7)
    before = torch.get_rng_state()
    again = parse(DataSpec, drawn).read(Path())
    assert torch.equal(before, torch.get_rng_state())
    assert isinstance(first, Arrays) and isinstance(other, Arrays) and isinstance(again, Arrays)
    assert np.array_equal(first.train[0], again.train[0]) and not np.array_equal(first.train[0], other.train[0])


def good(count: int = 10, **changes: Any) -> Arrays:
    images, labels = np.zeros((count, 1, 4, 4), np.uint8), np.arange(count) % 2
    return Arrays(**{"train": (images, labels), "test": (images, labels), **changes})


IMAGES, LABELS = np.zeros((10, 1, 4, 4), np.uint8), np.arange(10) % 2
NAN = np.full((10, 1, 4, 4), np.nan, np.float32)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ([], "d: returned a list; expected leadline.Arrays"),
        (good(train=IMAGES), "d: train: expected a pair of images and labels, got a ndarray"),
        (
            good(train=(IMAGES[:, 0], LABELS)),
            "d: train images are uint8 of shape [10, 4, 4]; expected uint8 or float32 of shape [n, channels, height,"
            " width]",
        ),
        (
            good(test=(IMAGES.astype(float), LABELS)),
            "d: test images are float64 of shape [10, 1, 4, 4]; expected uint8 or float32 of shape [n, channels,"
            " height, width]",
        ),
        (good(train=(NAN, LABELS)), "d: train image 0 holds NaN or infinity; expected finite numbers"),
        (good(train=(IMAGES, LABELS[:9])), "d: train: 10 images, but 9 labels"),
        (good(train=(IMAGES, LABELS / 2)), "d: train labels are float64; expected whole numbers from 0"),
        (
            good(train=(IMAGES, LABELS[:, None])),
            "d: train labels have shape [10, 1]; expected [n], one number for each image",
        ),
        (good(train=(IMAGES, LABELS - 1)), "d: train label -1 at position 0; expected 0 or more"),
        (good(train=(IMAGES, LABELS + 1)), "d: no training image has label 0; labels run from 0 to 2"),
        (good(train=(IMAGES, 0 * LABELS)), "d: test label 1 at position 1, but there are 1 classes in train; labels run"
         " from 0"),
        (good(train=(IMAGES[:0], LABELS[:0])), "d: train images are empty: shape [0, 1, 4, 4]"),
        (
            good(test=(np.zeros((10, 1, 5, 5), np.uint8), LABELS)),
            "d: test images are uint8 of shape [10, 1, 5, 5], and those of train uint8 of shape [10, 1, 4, 4]",
        ),
        (
            good(train=(np.zeros((10, 8, 8, 3), np.uint8), LABELS)),
            "d: train images are uint8 of shape [10, 8, 8, 3], which looks like channels last; expected [n, channels,"
            " height, width], as `images.transpose(0, 3, 1, 2)` gives",
        ),
        (good(class_names=["a"]), "d: train label 1 at position 1, but there are 1 class_names; labels run from 0"),
        (good(class_names=["a", "b", "c"]), "d: no training image has label 2; labels run from 0 to 2"),
        (good(class_names=["a", "a"]), "d: class_names has 'a' twice"),
        (good(class_names="ab"), "d: class_names 'ab': expected a list of names"),
        (good(train=(IMAGES, 0 * LABELS), test=None), "d: all training images have label 0; a network needs two classes"
         " or more to tell apart"),
        (good(4, test=None), "d: 4 images are too few to split off a test part; add images, or give test"),
    ],
)  # fmt: skip
def test_arrays_that_cannot_be_used_get_one_line(found: object, message: str) -> None:
    with pytest.raises(DataError) as caught:
        check_arrays(found, "d")
    assert str(caught.value) == message


def test_without_a_test_part_a_fifth_is_held_out_and_said() -> None:
    found = check_arrays(good(50, test=None), "d")
    assert (found.sizes.train, found.sizes.test) == (40, 10) and np.bincount(found.test[1]).tolist() == [5, 5]  # type: ignore[index]
    assert found.note == "d: no test images given; a fixed fifth of each class is held out as test data"
    assert check_arrays(good(), "d").notes == ()


def test_a_validation_part_is_used_as_it_is() -> None:
    found = check_arrays(good(30, validation=(IMAGES, LABELS)), "d")
    assert found.sizes.validation == 10
    spec = DataSpec(**write_function(Path()))
    chosen = cut(found.train[1], LABELS, spec.with_(validation=4, train=10), found.validation[1])  # type: ignore[index]
    assert len(chosen.validation) == 4 and len(chosen.train) == 10 and chosen.validation.max() < 10
    assert split_sizes(found.sizes, spec).train == 30 and split_sizes(found.sizes, spec).validation == 10
    for wrong in ({"validation": 11}, {"train": 31}, {"test": 31}):
        with pytest.raises(DataError, match=f"{next(iter(wrong.values()))} .* images requested, but it has"):
            validate_split_sizes("d", found.sizes, spec.with_(**wrong))


def test_a_function_that_returns_something_else() -> None:
    with pytest.raises(DataError, match=r"test_custom_data:nothing: returned a int; expected leadline.Arrays"):
        load(parse(DataSpec, "test_custom_data:nothing"))
    with pytest.raises(SpecError, match="test_custom_data:spirals: calling it failed: TypeError"):
        load(parse(DataSpec, {"module": "test_custom_data:spirals", "arguments": {"dots": 3}}))


# --- npz


def test_keras_names_and_a_missing_channel(tmp_path: Path) -> None:
    np.savez_compressed(
        tmp_path / "keras.npz",
        x_train=np.zeros((20, 5, 5), np.uint8),
        y_train=(np.arange(20) % 2)[:, None],
        x_test=np.zeros((4, 5, 5), np.uint8),
        y_test=np.arange(4)[:, None] % 2,
    )
    data = load(parse(DataSpec, {"name": "npz", "path": "keras.npz"}), tmp_path)
    assert (data.shape, data.classes, data.train_size) == ((1, 5, 5), 2, 18)


@pytest.mark.parametrize("names", ["val_{}", "valid_{}", "validation_{}"])
def test_validation_images_under_usual_names_are_used_and_other_arrays_are_named(tmp_path: Path, names: str) -> None:
    parts = {"train_{}": 20, names: 6, "test_{}": 4}
    arrays = {name.format("images"): np.zeros((count, 5, 5), np.uint8) for name, count in parts.items()}
    arrays |= {name.format("labels"): np.arange(count) % 2 for name, count in parts.items()}
    np.savez(tmp_path / "med.npz", weights=np.ones(3), **arrays)
    data = load(parse(DataSpec, {"name": "npz", "path": "med.npz"}), tmp_path)
    assert (data.train_size, len(data.validation.labels), len(data.test_labels)) == (20, 6, 4)
    assert data.notes == ("med.npz: not used: weights.",)


def test_keras_images_may_have_their_channels_last(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (20, 5, 6, 3), dtype=np.uint8)
    np.savez(tmp_path / "keras.npz", x_train=images, y_train=np.arange(20) % 2, x_test=images, y_test=np.arange(20) % 2)
    found = parse(DataSpec, {"name": "npz", "path": "keras.npz"}).read(tmp_path)
    assert np.array_equal(found.train[0], images.transpose(0, 3, 1, 2)) and found.train[0].flags.c_contiguous


def test_an_npz_file_that_cannot_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> str:
        with pytest.raises(DataError) as caught:
            load(parse(DataSpec, {"name": "npz", "path": "a.npz"}), tmp_path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    path = tmp_path / "a.npz"
    assert refused() == (f"{path}: no such file; a.npz is relative to {tmp_path}; change data.path or --data-dir")
    path.write_bytes(b"PK\x03\x04")
    assert "incomplete or not an .npz file of plain arrays" in refused()
    np.savez(path, images=IMAGES)
    assert refused() == f"{path}: holds images; expected train_images and train_labels, or x_train and y_train"
    np.savez(path, train_images=IMAGES, train_labels=np.array([print] * 10, object))
    assert "incomplete or not an .npz file of plain arrays" in refused() and "pickle" in refused()
    np.savez(path, x_train=IMAGES, y_train=LABELS, x_test=IMAGES, y_tets=LABELS)
    assert refused() == f"{path}: has x_test but no y_test; it holds x_train, y_train, x_test, y_tets"
    np.save(tmp_path / "one.npy", IMAGES)
    (tmp_path / "one.npy").rename(path)
    assert refused() == f"{path}: contains a single array; expected an .npz file"
    np.savez(path, train_images=IMAGES, train_labels=LABELS / 3)
    assert refused() == f"{path}: train labels are float64; expected whole numbers from 0"


def test_content_of_a_file_is_part_of_a_trials_identity(tmp_path: Path) -> None:
    data = write_npz(tmp_path)
    trial = parse(TrialSpec, {"network": ARMS["plain"]["network"], "data": data})
    first = trial.with_code()
    assert list(first.code) == [data["path"]] and first.code[data["path"]].startswith("sha256:")
    assert trial.with_code() == first
    np.savez(data["path"], x_train=IMAGES, y_train=LABELS)
    assert trial.with_code().content_hash != first.content_hash != trial.content_hash


def test_a_file_is_checked_on_the_command_line(tmp_path: Path) -> None:
    write_npz(tmp_path)
    asked = ["data", "check", "{name: npz, path: arrays.npz}", "--data-dir", str(tmp_path)]
    name, _, *rows = map(str.split, CliRunner().invoke(app, asked).output.splitlines())
    assert name == ["arrays.npz"]
    assert rows == [
        ["train", "80", "1x6x6", "2", "40", "to", "40"],
        ["test", "20", "1x6x6", "2", "10", "to", "10"],
    ]


# --- csv


def test_the_splits_of_a_manifest(tmp_path: Path) -> None:
    data = load(parse(DataSpec, write_csv(tmp_path)))
    assert isinstance(data, EncodedDataset)
    assert (data.train_size, len(data.validation.labels), len(data.test_labels)) == (18, 6, 6)
    assert data.class_names == ("bright", "dark") and data.shape == (3, 8, 8)
    rows = [f"scans/{number:03}.png,{number % 3}" for number in range(30)]
    (tmp_path / "manifest.csv").write_text("\n".join(["path,label", *rows]))
    data = load(parse(DataSpec, {**write_csv_spec(tmp_path), "channels": "grey", "augment": {"scale": [0.5, 1.0]}}))
    assert isinstance(data, EncodedDataset)
    assert data.class_names == ("0", "1", "2") and data.shape == (1, 8, 8) and len(data.test_labels) == 6
    assert "a fixed fifth of each class is held out" in data.notes[0]
    images, labels = next(iter(data.train_batches(0, 0, 5)))
    assert images.shape == (5, 1, 8, 8) and len(labels) == 5


def write_csv_spec(folder: Path) -> dict[str, Any]:
    return {"name": "csv", "path": str(folder / "manifest.csv"), "size": 8}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,label\na.png,1", r"its first line is 'file,label'; expected path,label or path,label,split"),
        ("path,label\na.png,", r"manifest.csv:2: expected 2 values, including path and label"),
        ("path,label\na.png,1,2", r"manifest.csv:2: expected 2 values, including path and label"),
        ("path,label,split\nscans/000.png,1,dev", r":2: split 'dev'; expected train, validation, test"),
        ("path,label\nscans/000.png,1\nscans/000.png,1", r":3: scans/000.png is already listed in line 2"),
        ("path,label\nscans/000.png,1\n./scans//000.png,1", r":3: ./scans//000.png is already listed in line 2"),
        ("path,label\na\0.png,1", r"'a\\x00.png' is not a path"),
        ("path,label\nscans/none.png,1", r"scans/none.png: cannot be read: No such file .*; .*manifest.csv lists it"),
        ("path,label\nbroken.png,1", r"1 corrupt image: broken.png \(the file is empty\); repair or remove"),
        ("path,label,split\nscans/000.png,a,test", r"no training image is of class 'a'"),
        ("path,label\nscans/000.png,a", r"1 images are too few to split off a test part; add images"),
        ("", r"its first line is ''; expected path,label"),
    ],
)
def test_a_manifest_that_cannot_be_used_gets_one_line(tmp_path: Path, text: str, message: str) -> None:
    write_images(tmp_path / "scans", 2)
    (tmp_path / "broken.png").write_bytes(b"")
    (tmp_path / "manifest.csv").write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        load(parse(DataSpec, write_csv_spec(tmp_path)))
    assert "\n" not in str(caught.value)


def test_corrupt_images_of_a_manifest_can_be_left_out(tmp_path: Path) -> None:
    spec = parse(DataSpec, {**write_csv(tmp_path), "corrupt": "skip"})
    (tmp_path / "scans" / "003.png").write_bytes(b"")
    data = load(spec)
    assert data.train_size == 17 and "1 corrupt image: scans/003.png (the file is empty); left out" in data.notes[0]


# --- grey and colour


def test_grey_folders_have_one_channel_and_colour_keeps_its_identity(tmp_path: Path) -> None:
    given = write_grey_folder(tmp_path)
    grey, colour = load(parse(DataSpec, given)), load(parse(DataSpec, {**given, "channels": "colour"}))
    assert isinstance(colour.spec.augment, ResizedCrop) and "channels" not in colour.spec.model_dump()
    one, three = (next(iter(data.evaluation_batches("test", 6)))[0] for data in (grey, colour))
    assert one.shape == (6, 1, 8, 8) and torch.allclose(one.expand(-1, 3, -1, -1), three, atol=1e-5)
    with pytest.raises(SpecError, match="normalise imagenet is for three channels, got channels grey"):
        parse(DataSpec, {**given, "normalise": "imagenet"})


# --- Parquet


def test_numbers_in_parquet_stand_for_the_names_of_their_own_file(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    datasets = pytest.importorskip("datasets")
    images = [path.read_bytes() for path in write_images(tmp_path / "scans")]

    def write(file: str, names: list[str], labels: list[str]) -> None:
        features = datasets.Features({"image": datasets.Value("binary"), "label": datasets.ClassLabel(names=names)})
        numbers = [names.index(label) for label in labels]
        table = pa.table({"image": images[: len(labels)], "label": numbers})
        pq.write_table(table.replace_schema_metadata(features.arrow_schema.metadata), tmp_path / "own" / file)

    (tmp_path / "own").mkdir()
    write("train-0.parquet", ["ant", "bee", "cat"], ["ant", "bee", "cat"] * 8)
    write("test-0.parquet", ["cat", "bee"], ["cat", "bee", "bee", "cat"])
    spec = parse(DataSpec, {"name": "hf", "path": "own", "size": 8})
    read = spec.read(tmp_path)
    assert read.class_names == ("ant", "bee", "cat")
    assert load(spec, tmp_path).test_labels.tolist() == [2, 1, 1, 2]
    write("test-0.parquet", ["cat", "dog"], ["cat", "dog"])
    with pytest.raises(DataError, match=r"label 1 \(dog\) in row 1; expected a name or a whole number of a class"):
        load(spec, tmp_path)
    write("test-0.parquet", ["cat", "bee"], ["cat", "bee"])
    plain = pa.table({"image": images[:3], "label": [0, 1, 2]})
    pq.write_table(plain, tmp_path / "own" / "train-1.parquet")
    assert load(spec, tmp_path).class_names == ("ant", "bee", "cat")  # of the file that has names
    write("train-1.parquet", ["bee", "ant", "cat"], ["ant", "bee", "cat"])
    with pytest.raises(DataError, match=r"train-1.parquet: its class names are bee, ant and cat, and those of train-0"):
        load(spec, tmp_path)


def test_labels_of_parquet_by_class_and_by_name(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    datasets = pytest.importorskip("datasets")
    images = [path.read_bytes() for path in write_images(tmp_path / "scans")]
    features = datasets.Features({"image": datasets.Value("binary"), "label": datasets.ClassLabel(names=["n", "y"])})
    table = pa.table({"image": images, "label": [number % 2 for number in range(30)]})
    pq.write_table(table.replace_schema_metadata(features.arrow_schema.metadata), tmp_path / "one.parquet")
    spec = parse(DataSpec, {"name": "hf", "path": "one.parquet", "size": 8})
    data = load(spec, tmp_path)
    assert isinstance(data, EncodedDataset) and data.class_names == ("n", "y") and len(data.test_labels) == 6
    assert list(spec.identify(tmp_path)) == ["one.parquet"]
    pq.write_table(pa.table({"img": images, "fine": ["b", "a"] * 15}), tmp_path / "one.parquet")
    with pytest.raises(DataError, match=r"has no column 'image', only img, fine; change data.image"):
        load(spec, tmp_path)
    data = load(spec.with_(image="img", label="fine"), tmp_path)
    assert isinstance(data, EncodedDataset) and data.class_names == ("a", "b")


def test_without_the_library_one_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(LeadlineError, match=r"needs the package datasets, .* pip install '.\[hf\]'"):
        load(parse(DataSpec, {"name": "hf", "path": "mnist"}))


# --- custom augmentation


def augmented(augment: object, size: int) -> tuple[Tensor, Tensor]:
    data = load(parse(DataSpec, {"name": "digits", "train": 60, "augment": augment}))
    images, labels = whole(data.train_batches(3, 1, size))
    return images, labels


def test_what_is_drawn_from_random_is_keyed_by_sample() -> None:
    reference = {"module": "test_custom_data:fade", "arguments": {"most": 0.9}}
    one, other = augmented(reference, 7), augmented(reference, 60)
    assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])
    plain = augmented(None, 60)
    assert torch.equal(plain[1], one[1])
    share = (one[0] / plain[0]).flatten(1).mean(1)
    assert share.min() >= 0.1 - 1e-6 and share.max() <= 1 and share.std() > 0.1
    data = load(parse(DataSpec, {"name": "digits", "train": 60, "augment": reference}))
    tail = whole(data.train_batches(3, 1, 7, first=4))  # an epoch that goes on
    assert torch.equal(tail[0], one[0][28:])


def test_global_draws_are_seeded_by_batch_and_put_back() -> None:
    state = (torch.get_rng_state(), random.getstate())
    one, again = augmented("test_custom_data:jitter", 7), augmented("test_custom_data:jitter", 7)
    assert torch.equal(one[0], again[0]) and not torch.equal(one[0], augmented(None, 7)[0])
    assert torch.equal(state[0], torch.get_rng_state())


def test_a_custom_augmentation_of_encoded_images(tmp_path: Path) -> None:
    given = write_grey_folder(tmp_path)
    spec = parse(DataSpec, {**given, "augment": {"module": "test_custom_data:fade", "arguments": {"most": 0.0}}})
    plain = parse(DataSpec, {**given, "augment": None})
    assert torch.equal(whole(load(spec).train_batches(0, 0, 5))[0], whole(load(plain).train_batches(0, 0, 5))[0])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("halve", r"test_custom_data:halve returned torch.float32 of shape \[60, 1, 4, 8\]; expected torch.float32 of"),
        ("fail", "test_custom_data:fail: calling it failed: ZeroDivisionError: no"),
        ("none", "has no function or class 'none'"),
    ],
)
def test_an_augmentation_that_cannot_be_used_gets_one_line(name: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        augmented(f"test_custom_data:{name}", 60)


def test_augmentations_are_told_by_their_keys_or_their_name() -> None:
    assert parse(DataSpec, {"augment": {}}).augment == Augment()
    assert parse(DataSpec, {"augment": "translation"}).augment == Augment()
    named = parse(DataSpec, {"augment": {"name": "translation", "pad": 2}})
    assert named.augment == Augment(pad=2) and named.model_dump()["augment"] == {"pad": 2, "flip": True}
    crop = parse(DataSpec, {"name": "imagefolder", "path": "x", "augment": {"name": "resized-crop", "flip": False}})
    assert crop.augment == ResizedCrop(flip=False)
    with pytest.raises(SpecError, match=r"augment.name: unknown name 'translaton'; did you mean 'translation'"):
        parse(DataSpec, {"augment": {"name": "translaton"}})


def test_evaluation_sees_no_augmentation() -> None:
    data = load(parse(DataSpec, {"name": "digits", "augment": "test_custom_data:fade"}))
    plain = load(parse(DataSpec, {"name": "digits"}))
    one, other = (whole(each.evaluation_batches("train", 50))[0] for each in (data, plain))
    assert torch.equal(one, other)


def test_the_examples_of_the_documentation_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[1] / "docs" / "data.md").read_text()
    code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    given = [yaml.safe_load(block)["data"] for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)]
    (tmp_path / "shapes.py").write_text("\n".join(code))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    specs = [parse(DataSpec, data) for data in given]
    assert {type(spec).__name__ for spec in specs} == {
        "CIFAR10",
        "CsvManifest",
        "CustomDataset",
        "HuggingFace",
        "ImageFolder",
        "Npz",
    }
    data = load(specs[0])
    assert (data.shape, data.classes, data.train_size) == ((1, 8, 8), 2, 200)
    augmented = next(spec.augment for spec in specs if type(spec).__name__ == "CIFAR10")
    data = load(specs[0].with_(augment=augmented))
    assert len(list(data.train_batches(0, 0, 50))) == 4


def test_whether_a_function_or_a_file_of_data_is_another_one_now() -> None:
    data = parse(DataSpec, {"module": "test_custom_data:spirals"})
    trial = TrialSpec(network=mlp(), data=data).with_code()
    assert not trial.has_other_data()
    before = dict.fromkeys(trial.code, "sha256:0")
    assert trial.code and trial.model_copy(update={"code": before}).has_other_data()
