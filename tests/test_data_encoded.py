"""A folder of pictures as data: the same batches whatever decodes them, paired, bounded, like data in memory."""

import itertools
import os
import random
import shutil
import threading
import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from leadline.api.export import Loaded, predict, read_image
from leadline.data import encoded
from leadline.data import threads as pool
from leadline.data.batches import Data, Dataset, Split, load
from leadline.data.encoded import EncodedDataset
from leadline.data.encoded_images import Part
from leadline.data.formats.images import Colour, centre, decode
from leadline.data.network_input import NetworkInput
from leadline.data.pixels import IMAGENET_DEVIATION, IMAGENET_MEAN, normalisation
from leadline.data.threads import map_in_order
from leadline.errors import DataError, SpecError
from leadline.networks import comparative_resnet
from leadline.networks.modules import build
from leadline.running.executors import InProcess, LocalProcesses
from leadline.running.job import Job
from leadline.seeds import AUGMENT, ORDER, stream
from leadline.specs import Augment, DataSpec, NetworkSpec, ResizedCrop, Stage, TrainingSpec, parse
from leadline.specs.study import StudySpec
from leadline.store import Store
from leadline.study.expand import expand
from leadline.training import TrainState, prepare, train

CLASSES = ("red", "green", "blue")
REAL = Path(os.environ.get("LEADLINE_TEST_DATA", "")) / "cifar10-images"


@pytest.fixture(autouse=True)
def _global_generators_stay_untouched() -> Iterator[None]:
    before = torch.get_rng_state(), str(np.random.get_state())  # noqa: NPY002
    yield
    assert torch.equal(before[0], torch.get_rng_state()) and before[1] == str(np.random.get_state())  # noqa: NPY002


@pytest.fixture(autouse=True)
def _no_thread_is_left_behind() -> Iterator[None]:
    yield
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("leadline-decode")]


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures of three classes that differ in their strongest colour, each of another size and shape."""
    root = tmp_path_factory.mktemp("pictures") / "colours"
    rng = np.random.default_rng(0)
    for part, count in (("train", 24), ("val", 8)):
        for label, name in enumerate(CLASSES):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                height, width = rng.integers(20, 60, 2)
                values = rng.integers(0, 128, (height, width, 3), dtype=np.uint8)
                values[..., label] += 96
                kind, options = [(".png", {}), (".jpg", {"quality": 95}), (".webp", {"lossless": True})][number % 3]
                Image.fromarray(values).save(root / part / name / f"{number:03}{kind}", **options)
    return root


def spec(root: Path, **changes: object) -> DataSpec:
    return DataSpec(**{"name": "imagefolder", "path": str(root), "size": 16, **changes})  # type: ignore[arg-type]


def loaded(root: Path, **changes: object) -> EncodedDataset:
    data = load(spec(root, **changes))
    assert isinstance(data, EncodedDataset) and isinstance(data, Data)
    return data


def whole(batches: Iterator[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    images, labels = zip(*batches, strict=True)
    return torch.cat(images), torch.cat(labels)


# --- specifications


def test_what_a_folder_alone_has_changes_no_other_data_sets_identity() -> None:
    assert not {"path", "size", "resize", "corrupt"} & DataSpec().model_dump().keys()
    kept = spec(Path("x"), augment=None)
    assert parse(DataSpec, kept.model_dump(mode="json")) == kept


@pytest.mark.parametrize(
    ("augment", "found"),
    [
        ("left out", ResizedCrop()),
        ({"flip": False}, ResizedCrop(flip=False)),
        ({"ratio": [1.0, 2.0]}, ResizedCrop(ratio=(1.0, 2.0))),
        ({"pad": 3}, Augment(pad=3)),
        (None, None),
    ],
)
def test_a_folder_has_resized_crops_unless_it_says_otherwise(augment: object, found: object) -> None:
    given = {"name": "imagefolder", "path": "x", "augment": augment}
    if augment == "left out":
        del given["augment"]
    assert parse(DataSpec, given).augment == found


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"name": "imagefolder"}, "'path' is required but missing"),
        ({"path": "x"}, "path is for name csv, hf, imagefolder, npz, got digits; leave it out"),
        (
            {"augment": {"scale": [0.1, 1.0]}},
            "a resized crop (scale, ratio) is for encoded images, got digits; use pad",
        ),
        ({"normalise": "imagenet"}, "normalise imagenet is for encoded images, got digits; use channel"),
        (
            {"name": "imagefolder", "path": "x", "augment": {"scale": [0.5, 0.1]}},
            "augment: scale [0.5, 0.1]: the smallest comes first",
        ),
        (
            {"name": "imagefolder", "path": "x", "resize": 8},
            "resize 8 is smaller than size 224, which is cropped from it; raise resize",
        ),
    ],
)
def test_impossible_specifications(given: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse(DataSpec, given)
    assert str(caught.value) == message


# --- splits and constants


def test_splits_are_cut_as_for_data_in_memory(root: Path) -> None:
    data = loaded(root, validation=12, train=30, test=9)
    assert (data.shape, data.classes, data.class_names) == ((3, 16, 16), 3, ("blue", "green", "red"))
    assert data.train_size == 30 and np.bincount(data.validation.labels).tolist() == [4, 4, 4]
    assert np.bincount(data.train.labels).tolist() == [10, 10, 10] and len(data.test_labels) == 9
    assert not set(data.train.paths) & set(data.validation.paths)
    all_of_it = loaded(root)
    assert (all_of_it.train_size, len(all_of_it.validation.paths), len(all_of_it.test.paths)) == (65, 7, 24)
    assert set(all_of_it.validation.paths) < set(data.validation.paths)
    assert set(loaded(root, subset_seed=1, train=30, validation=12).train.paths) != set(data.train.paths)


def test_more_than_there_are(root: Path) -> None:
    with pytest.raises(DataError, match="66 training images requested, but of its 72 only 65 remain besides 7"):
        loaded(root, train=66)


def test_a_relative_path_lies_in_the_data_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = spec(root).with_(path="colours")
    found = load(asked, root.parent)
    monkeypatch.setenv("LEADLINE_DATA", str(root.parent))
    assert np.array_equal(load(asked).test_labels, found.test_labels)


def test_constants_are_those_of_the_training_pictures_centres(root: Path) -> None:
    data = loaded(root, augment=None)
    pixels = [np.asarray(centre(decode((root / p).read_bytes()), 16, 18)) for p in data.train.paths]
    values = np.stack(pixels).astype(float)
    assert torch.allclose(data.mean.flatten().double(), torch.from_numpy(values.mean((0, 1, 2))))
    assert torch.allclose(data.scale.flatten().double(), torch.from_numpy(values.std((0, 1, 2))))
    images, _ = whole(data.evaluation_batches("train", 10))
    assert images.mean((0, 2, 3)).abs().max() < 1e-5 and (images.std((0, 2, 3)) - 1).abs().max() < 1e-3
    per_pixel = loaded(root, augment=None, normalise="pixel-mean")
    assert torch.allclose(per_pixel.mean[0].permute(1, 2, 0).double(), torch.from_numpy(values.mean(0)))


def test_constants_come_from_a_fixed_sample(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoded, "SAMPLE", 12)
    data, again = loaded(root), loaded(root)
    assert torch.equal(data.mean, again.mean)
    monkeypatch.setattr(encoded, "SAMPLE", 65)
    everything = loaded(root)
    assert not torch.equal(everything.mean, data.mean) and (everything.mean - data.mean).abs().max() < 10


def test_published_constants(root: Path) -> None:
    data = loaded(root, normalise="imagenet")
    assert torch.allclose(data.mean.flatten(), 255 * torch.tensor(IMAGENET_MEAN))
    assert torch.allclose(data.scale.flatten(), 255 * torch.tensor(IMAGENET_DEVIATION))


# --- order and augmentation


def test_a_straight_line_through_one_epoch(root: Path) -> None:
    """One picture at a time, without threads: order, random part, flip and normalisation."""
    data = loaded(root)
    order = torch.randperm(65, generator=torch.Generator().manual_seed(stream(5, ORDER, 2))).tolist()
    drawn = torch.randint(2**62, (65, 3), generator=torch.Generator().manual_seed(stream(5, AUGMENT, 2)))[:, 0].tolist()
    images, labels = whole(data.train_batches(5, 2, 20))
    assert labels.tolist() == data.train.labels[order].tolist()
    for image, sample in zip(images, order, strict=True):
        picture = decode((root / data.train.paths[sample]).read_bytes())
        pixels = np.array(ResizedCrop().crop(picture, 16, drawn[sample]))
        expected = (torch.from_numpy(pixels).permute(2, 0, 1).float() - data.mean[0]) / data.scale[0]
        assert torch.equal(image, expected)


@pytest.mark.parametrize("augment", [None, {"scale": [0.5, 1.0]}, {"pad": 2}])
def test_neither_threads_nor_batch_size_change_anything(root: Path, augment: object) -> None:
    data = loaded(root, augment=augment)
    one = whole(data.train_batches(0, 1, 65))
    for threads, size in ((1, 7), (2, 16), (5, 17), (16, 1)):
        other = whole(replace(data, threads=threads).train_batches(0, 1, size))
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])


def test_slow_pictures_do_not_overtake(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = loaded(root)
    expected = whole(data.train_batches(0, 0, 9))
    real, delays = encoded.decode, random.Random(0)

    def decode_at_leisure(content: bytes, grey: bool, background: Colour) -> Image.Image:
        threading.Event().wait(delays.random() / 200)
        return real(content, grey, background)

    monkeypatch.setattr(encoded, "decode", decode_at_leisure)
    found = whole(replace(data, threads=6).train_batches(0, 0, 9))
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


def test_a_few_pictures_are_of_all_classes_and_as_in_evaluation(root: Path) -> None:
    data = loaded(root)
    every = whole(data.evaluation_batches("test", 16))
    images, labels = data.sample("test", 6)
    assert sorted(labels.tolist()) == [0, 0, 1, 1, 2, 2]
    places = [int((every[0] == image).flatten(1).all(1).nonzero()[0]) for image in images]
    assert places == sorted(places) and every[1][places].tolist() == labels.tolist()
    again = data.sample("test", 6)
    assert torch.equal(images, again[0])
    assert len(data.sample("test", 10_000)[1]) == len(every[1])


def test_seeds_and_epochs_differ_and_repeat(root: Path) -> None:
    data = loaded(root)
    runs = [whole(data.train_batches(seed, epoch, 65)) for seed, epoch in ((0, 0), (0, 1), (1, 0), (0, 0))]
    assert torch.equal(runs[0][0], runs[3][0])
    assert len({tuple(labels.tolist()) for _, labels in runs}) == 3


def test_layouts_sizes_and_types(root: Path) -> None:
    data = loaded(root)
    for channels_last in (True, False):
        layout = torch.channels_last if channels_last else torch.contiguous_format
        for batches in (
            data.train_batches(0, 0, 30, channels_last),
            data.evaluation_batches("train", 30, channels_last),
        ):
            found = list(batches)
            assert [len(labels) for _, labels in found] == [30, 30, 5]
            assert all(images.is_contiguous(memory_format=layout) for images, _ in found)
            assert all((i.dtype, y.dtype) == (torch.float32, torch.int64) for i, y in found)


def test_evaluation_is_the_centre_in_the_files_order(root: Path) -> None:
    data = loaded(root, resize=20)
    images, labels = whole(data.evaluation_batches("test", 5))
    assert labels.tolist() == data.test_labels.tolist() == sorted(labels.tolist())
    for image, path in zip(images, data.test.paths, strict=True):
        pixels = np.array(centre(decode((root / path).read_bytes()), 16, 20))
        assert torch.equal(image, (torch.from_numpy(pixels).permute(2, 0, 1).float() - data.mean[0]) / data.scale[0])


def test_the_same_pictures_in_memory_give_the_same_batches(root: Path) -> None:
    """With translation, which both kinds of data know, a folder is what a data set in memory is."""
    data = loaded(root, augment=Augment(pad=2))
    parts = {}
    for name in ("train", "validation", "test"):
        part = getattr(data, name)
        pixels = np.stack([np.array(centre(decode((root / p).read_bytes()), 16, 18)) for p in part.paths])
        parts[name] = Split(torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(part.labels))
    mean, scale = normalisation(iter([parts["train"].images]), "channel", 3)
    memory = Dataset(data.spec, data.shape, data.classes, **parts, mean=mean, scale=scale)
    assert torch.equal(mean, data.mean) and torch.equal(scale, data.scale)
    assert (memory.train_size, memory.device) == (data.train_size, data.device)
    assert np.array_equal(memory.test_labels, data.test_labels)
    for one, other in (
        (memory.train_batches(3, 1, 16), data.train_batches(3, 1, 16)),
        (memory.evaluation_batches("test", 7), data.evaluation_batches("test", 7)),
    ):
        for (images, labels), (same_images, same_labels) in zip(one, other, strict=True):
            assert torch.equal(images, same_images) and torch.equal(labels, same_labels)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_batches_on_another_device(root: Path) -> None:
    data = loaded(root)
    here, there = whole(data.train_batches(0, 0, 20)), whole(data.to("cuda").train_batches(0, 0, 20))
    assert there[0].is_cuda and torch.equal(here[1], there[1].cpu())
    assert torch.allclose(here[0], there[0].cpu(), rtol=1e-6, atol=1e-6)


# --- what goes wrong


def test_skipped_pictures_leave_arms_paired(root: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(root, tmp_path / "copy"))
    (copy / "train" / "red" / "003.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"1 corrupt image: train/red/003.png \(the file is empty\); repair"):
        loaded(copy)
    one, other = loaded(copy, corrupt="skip"), loaded(copy, corrupt="skip")
    assert f"{copy}: 1 corrupt image: train/red/003.png (the file is empty); left out" in one.notes
    assert one.train_size + len(one.validation.labels) == 71
    for (images, labels), (same_images, same_labels) in zip(
        one.train_batches(0, 0, 16), other.train_batches(0, 0, 16), strict=True
    ):
        assert torch.equal(images, same_images) and torch.equal(labels, same_labels)


@pytest.mark.parametrize("how", ["gone", "spoiled"])
def test_a_file_that_changes_while_a_study_runs_is_fatal(root: Path, tmp_path: Path, how: str) -> None:
    copy = Path(shutil.copytree(root, tmp_path / "copy"))
    data = loaded(copy, corrupt="skip")
    victim = copy / data.train.paths[40]
    victim.unlink() if how == "gone" else victim.write_bytes(b"")
    words = "cannot be read: No such file" if how == "gone" else "the file is empty; it was readable when"
    with pytest.raises(DataError, match=words) as caught:
        list(data.train_batches(0, 0, 8))
    assert str(caught.value).startswith(str(victim)) and "\n" not in str(caught.value)


# --- threads and memory


def test_no_more_is_decoded_than_a_few_batches_ahead(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = replace(loaded(root), threads=2)
    monkeypatch.setattr(encoded, "CHUNK", 1)
    seen = []
    real = encoded.decode
    monkeypatch.setattr(encoded, "decode", lambda *given: (seen.append(1), real(*given))[1])
    batches = data.train_batches(0, 0, 5)
    for taken in range(1, 5):
        next(batches)
        threading.Event().wait(0.1)  # the threads do all that they may
        assert 5 * taken <= len(seen) <= 5 * taken + encoded.AHEAD * 5
    batches.close()


def test_results_come_in_order_and_errors_in_their_turn() -> None:
    def work(item: int) -> int:
        threading.Event().wait(0.002 * (item % 3))
        if item == 7:
            raise ValueError("seven")
        return item * item

    found = []
    with pytest.raises(ValueError, match="seven"):
        for result in map_in_order(work, itertools.count(), 4, 6):
            found.append(result)
    assert found == [item * item for item in range(7)]


def test_the_number_of_threads_is_bounded() -> None:
    assert 1 <= pool.decoder_threads() <= pool.MOST_THREADS


def test_memory_does_not_grow_with_the_epoch(root: Path) -> None:
    data = loaded(root, size=64)
    many = Part(data.train.paths * 8, np.tile(data.train.labels, 8))
    peaks = []
    for part in (data.train, many):
        repeated = replace(data, train=part, threads=2)
        tracemalloc.start()
        for _ in repeated.train_batches(0, 0, 16):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0]


# --- the whole way


def tiny(root: Path, **data: object) -> StudySpec:
    return StudySpec(
        name="colours",
        data=spec(root, **{"validation": 12, **data}),
        training=TrainingSpec(epochs=2, batch_size=16),
        arms={
            "plain": {"network": {"stages": [{"blocks": 1, "width": 4}], "block": {"shortcut": "none"}}},
            "residual": {"network": {"stages": [{"blocks": 1, "width": 4}]}},
        },
        seeds=1,
    )


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_study_over_a_folder(root: Path, tmp_path: Path, workers: int) -> None:
    study = expand(tiny(root))
    with Store.open(tmp_path / "runs") as store:
        store.register(study)
        executor = LocalProcesses(workers) if workers else InProcess()
        executor.run(Job("colours", tmp_path / "runs"), lambda event: None)
        frame = store.trials_frame("colours")
        assert list(frame["state"]) == ["finished"] * 2, frame["error"]
        predictions = store.outputs("colours")
    assert len(predictions) == 2


def test_it_learns_and_goes_on_to_the_same_bits(root: Path) -> None:
    data, recipe = loaded(root, augment=ResizedCrop(scale=(0.3, 1.0))), TrainingSpec(epochs=3, batch_size=16)
    network = NetworkSpec(stages=(Stage(blocks=1, width=8),))

    def fresh() -> TrainState:
        return prepare(build(network, data.shape, data.classes, 0), recipe, torch.device("cpu"))

    at_once = fresh()
    records = [r for r in train(at_once, data, recipe) if r.split != "time"]
    assert next(r.value for r in records if (r.split, r.name) == ("final-test", "error")) < 20
    half = fresh()
    for _ in train(half, data, recipe):
        if half.epoch == 1:
            break
    rest = fresh()
    rest.load(half.tensors(), half.step, half.epoch)
    again = [r for r in train(rest, data, recipe) if r.split != "time"]
    assert again == records[-len(again) :]


def test_prediction_sees_what_evaluation_saw(root: Path, tmp_path: Path) -> None:
    data = loaded(root, resize=20)
    network = comparative_resnet(1)
    one = Loaded(build(network, data.shape, 3).eval(), network, data.shape, 3, data.mean, data.scale)
    trained = Loaded.of_input(one.model, network, NetworkInput.of_data(data), None)
    path = next(root / path for path in data.test.paths if path.endswith(".jpg"))
    seen = np.array(centre(decode(path.read_bytes()), 16, 20))
    assert np.array_equal(read_image(path, data.shape, 20).permute(1, 2, 0), seen)
    logits = trained.logits(torch.from_numpy(seen).permute(2, 0, 1)[None])
    (found,) = predict(trained, [path])
    assert set(found.names) == set(CLASSES) and found.names == tuple(data.class_names[one] for one in found.classes)
    assert found.probabilities[0] == pytest.approx(float(torch.softmax(logits.double(), 1).max()), abs=1e-6)
    assert predict(one, [path])[0].probabilities != found.probabilities


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="LEADLINE_TEST_DATA holds no cifar10-images")
def test_real_pictures(tmp_path: Path) -> None:
    """A hundred pictures of each class, linked; padded and cropped at random, and soon better than chance."""
    for part, count in (("train", 100), ("test", 20)):
        for name in sorted(path.name for path in (REAL / part).iterdir()):
            (tmp_path / "some" / part / name).mkdir(parents=True)
            for path in sorted((REAL / part / name).iterdir())[:count]:
                (tmp_path / "some" / part / name / path.name).symlink_to(path)
    data = loaded(tmp_path / "some", size=32, resize=32, augment={"pad": 4})
    assert (data.shape, data.classes, data.train_size, len(data.test_labels)) == ((3, 32, 32), 10, 900, 200)
    assert (data.mean.flatten() - torch.tensor([125.3, 123.0, 113.9])).abs().max() < 6  # CIFAR-10's own
    assert (data.scale.flatten() - torch.tensor([63.0, 62.1, 66.7])).abs().max() < 6
    images, _ = whole(data.evaluation_batches("test", 64))
    first = np.asarray(Image.open(tmp_path / "some" / data.test.paths[0]).convert("RGB"))
    assert torch.allclose(images[0], (torch.from_numpy(first.copy()).permute(2, 0, 1) - data.mean[0]) / data.scale[0])
    recipe = TrainingSpec(epochs=4, batch_size=50)
    network = NetworkSpec(stages=(Stage(blocks=1, width=8, stride=2),))
    state = prepare(build(network, data.shape, 10), recipe, torch.device("cpu"))
    error = [r.value for r in train(state, data, recipe) if (r.split, r.name) == ("final-train", "error")]
    assert error[0] < 80
