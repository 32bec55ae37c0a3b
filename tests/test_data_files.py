"""Data files: found in every layout, read whole, and refused in one line when damaged or hostile."""

import functools
import gzip
import io
import os
import pickle
import struct
import tarfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from leadline.data import idx_dataset
from leadline.data.arrays import Arrays
from leadline.data.checking import check
from leadline.data.datasets import DATASETS, DataSpec, digits
from leadline.data.files import default_data_dir
from leadline.data.published import PublishedDataSpec
from leadline.data.split import PartSizes
from leadline.errors import DataError, SpecError

TRAIN, TEST = 50, 20  # images of the small data sets that stand for the real ones
CIFAR10, CIFAR100 = "cifar-10-batches-py", "cifar-100-python"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep formats and layouts as they are and make the data sets small."""

    for member in DATASETS.members().values():
        if issubclass(member, PublishedDataSpec):
            monkeypatch.setattr(member, "parts", PartSizes(TRAIN, None, TEST))


def read(name: str, folder: Path | None = None, download: bool = False) -> Arrays:
    found = DataSpec(name=name).read(folder or default_data_dir(), download)
    assert isinstance(found, Arrays)
    return found


def arrays(shape: tuple[int, ...], classes: int) -> Arrays:
    rng = np.random.default_rng(1)
    parts = []
    for count in (TRAIN, TEST):
        parts.append((rng.integers(0, 256, (count, *shape), np.uint8), rng.permutation(np.arange(count) % classes)))
    return Arrays(*parts)


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.astype(np.uint8).tobytes()


def write_mnist(folder: Path, data: Arrays, packed: bool = True, dot: bool = False) -> Path:
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, images, labels in (
        ("train", *data.train),
        ("t10k", *data.test),
    ):
        for kind, values in (("images-idx3", images[:, 0]), ("labels-idx1", labels)):
            name = f"{part}-{kind.replace('-', '.') if dot else kind}-ubyte"
            content = idx(values)
            (raw / (name + ".gz" * packed)).write_bytes(gzip.compress(content, 1) if packed else content)
    return raw


def cifar_batches(data: Arrays, count: int, labels: bytes) -> list[bytes]:
    """Pickle the data as `count` training batches and a test batch, as Python 3 does for Python 2 to read."""
    step = TRAIN // count
    parts = [
        *((data.train[0][k : k + step], data.train[1][k : k + step]) for k in range(0, TRAIN, step)),
        data.test,
    ]
    return [
        pickle.dumps({labels: numbers.tolist(), b"data": images.reshape(len(images), -1)}, protocol=2)
        for images, numbers in parts
    ]


def write_cifar10(folder: Path, batches: list[bytes]) -> Path:
    target = folder / CIFAR10
    target.mkdir(parents=True)
    for name, content in zip([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"], batches, strict=True):
        (target / name).write_bytes(content)
    return target


def archive(folder: str, members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(f"{folder}/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def same(left: Arrays, right: Arrays) -> bool:
    return all(
        np.array_equal(one, other) and one.dtype == kind
        for part in ("train", "test")
        for one, other, kind in zip(getattr(left, part), getattr(right, part), (np.uint8, np.int64), strict=True)
    )


def refusal(name: str, folder: Path) -> str:
    """Return the line with which a data set is refused."""
    with pytest.raises(DataError) as caught:
        read(name, folder)
    message = str(caught.value)
    assert "\n" not in message and len(message) - len(str(folder)) < 400
    return message


# --- layouts


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("dot", [True, False])
def test_idx_files_are_found_packed_or_not_and_in_both_spellings(tmp_path: Path, packed: bool, dot: bool) -> None:
    data = arrays((1, 28, 28), 10)
    write_mnist(tmp_path, data, packed, dot)
    assert same(read("mnist", tmp_path), data)


def test_batches_in_a_folder_are_put_together_in_order(tmp_path: Path) -> None:
    data = arrays((3, 32, 32), 10)
    write_cifar10(tmp_path, cifar_batches(data, 5, b"labels"))
    assert same(read("cifar10", tmp_path), data)


def test_an_archive_is_read_where_it_lies(tmp_path: Path) -> None:
    data = arrays((3, 32, 32), 100)
    train, test = cifar_batches(data, 1, b"fine_labels")
    members = {"file.txt~": b"", "test": test, "meta": b"\x80\x02}.", "train": train}
    (tmp_path / "cifar-100-python.tar.gz").write_bytes(archive(CIFAR100, members))
    assert same(read("cifar100", tmp_path), data)
    assert [path.name for path in tmp_path.iterdir()] == ["cifar-100-python.tar.gz"]
    lines = check(DataSpec(name="cifar100"), tmp_path).lines
    assert len(lines) == 3 and "not identical to the published file" in lines[0]
    assert lines[1] == "cifar100 train: 50 images of 3x32x32, 100 classes of 0 to 1"


def test_a_folder_that_lacks_a_batch_gives_way_to_the_archive(tmp_path: Path) -> None:
    data = arrays((3, 32, 32), 10)
    batches = cifar_batches(data, 5, b"labels")
    folder = write_cifar10(tmp_path, batches)
    members = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    (folder / "data_batch_3").unlink()
    assert "cifar-10-python.tar.gz: no such file" in refusal("cifar10", tmp_path)
    (tmp_path / "cifar-10-python.tar.gz").write_bytes(archive(CIFAR10, members))
    assert same(read("cifar10", tmp_path), data)


def test_digits_are_those_of_scikit_learn() -> None:
    with np.load(Path(digits.__file__).with_suffix(".npz")) as file:
        images, labels = file["images"], file["labels"]
    theirs = load_digits()
    assert images.shape == theirs.images.shape and (images == theirs.images).all() and (labels == theirs.target).all()


def test_digits_are_split_evenly_and_always_alike() -> None:
    data, again = read("digits"), read("digits")
    assert same(data, again)
    assert data.train[0].shape == (1437, 1, 8, 8) and data.test[0].shape == (360, 1, 8, 8)
    counts = np.bincount(load_digits().target)
    assert np.abs(np.bincount(data.test[1]) - counts * 360 / 1797).max() <= 1
    assert np.array_equal(np.bincount(data.test[1]) + np.bincount(data.train[1]), counts)
    whole = sorted(map(bytes, np.concatenate([data.train[0], data.test[0]])))
    assert whole == sorted(map(bytes, np.rint(load_digits().images * 255 / 16).astype(np.uint8)))
    assert DataSpec().fetch(default_data_dir()) == [] and len(check(DataSpec()).lines) == 2


def test_the_data_folder_is_the_named_one_or_in_the_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LEADLINE_DATA", str(tmp_path))
    assert default_data_dir() == tmp_path
    monkeypatch.setenv("LEADLINE_DATA", "")
    assert default_data_dir().parts[-2:] == ("leadline", "data")


def test_missing_files_and_names() -> None:
    with pytest.raises(SpecError, match="unknown data set 'mnst'; did you mean 'mnist'"):
        read("mnst")
    missing = Path("nowhere")
    assert refusal("kmnist", missing) == (
        "nowhere/KMNIST/raw/train-images-idx3-ubyte.gz and 3 more: no such file;"
        " run `leadline data get kmnist --data-dir nowhere`"
    )


# --- damaged and hostile idx files

GOOD = idx(np.zeros((TRAIN, 28, 28)))
BAD_LABELS = np.where(np.arange(TRAIN) == 7, 10, 0)
IDX_CASES: dict[str, tuple[str, bytes, str]] = {
    "truncated": ("train-images-idx3-ubyte", GOOD[:-1], "holds 39,215 bytes, expected 39,216 for 50 x 28 x 28 values"),
    "longer": ("train-images-idx3-ubyte", GOOD + b"\0", "holds more than 39,216 bytes, expected 39,216"),
    "magic": ("train-images-idx3-ubyte", b"\0\0\x0d\3" + GOOD[4:], "starts with 00000d03, expected the idx magic"),
    "web page": ("train-images-idx3-ubyte", b"<!DOCTYPE html>", "starts with 3c21444f, expected the idx magic"),
    "empty": ("train-images-idx3-ubyte", b"", "starts with nothing, expected the idx magic number 00000803"),
    "header only": ("train-images-idx3-ubyte", GOOD[:6], "declares 0 x 0 x 0 values, expected 50 x 28 x 28"),
    "count": ("train-images-idx3-ubyte", idx(np.zeros((49, 28, 28))), "declares 49 x 28 x 28 values, expected 50"),
    "shape": ("train-images-idx3-ubyte", idx(np.zeros((50, 32, 32))), "declares 50 x 32 x 32 values"),
    "label": ("train-labels-idx1-ubyte", idx(BAD_LABELS), "label 10 at position 7, expected 0 to 9"),
    "gzip truncated": ("train-images-idx3-ubyte.gz", gzip.compress(GOOD)[:-5], "the gzip data are truncated"),
    "gzip trailing": ("train-images-idx3-ubyte.gz", gzip.compress(GOOD) + b"x", "incomplete or not a gzip file"),
    "gzip checksum": (
        "train-images-idx3-ubyte.gz",
        gzip.compress(GOOD)[:-8] + b"abcd" + gzip.compress(GOOD)[-4:],
        "incomplete or not a gzip file (CRC check failed",
    ),
    "gzip damaged": ("train-images-idx3-ubyte.gz", gzip.compress(GOOD)[:10] + b"\xff" * 99, "gzip data are damaged"),
    "not gzip": ("train-images-idx3-ubyte.gz", GOOD, "incomplete or not a gzip file (Not a gzipped file"),
    "gzip bomb": (
        "train-images-idx3-ubyte.gz",
        gzip.compress(GOOD + bytes(50_000_000), 9),
        "holds more than 39,216 bytes, expected 39,216",
    ),
}


@pytest.mark.parametrize("case", IDX_CASES)
def test_a_bad_idx_file_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    name, content, expected = IDX_CASES[case]
    raw = write_mnist(tmp_path, arrays((1, 28, 28), 10))
    (raw / (name.removesuffix(".gz") + ".gz")).unlink()
    (raw / name).write_bytes(content)
    message = refusal("mnist", tmp_path)
    assert message.startswith(f"{raw / name}: ") and expected in message
    assert message.endswith(f"; delete it and run `leadline data get mnist --data-dir {tmp_path}`")


def test_a_gzip_bomb_is_not_unpacked(tmp_path: Path) -> None:
    raw = write_mnist(tmp_path, arrays((1, 28, 28), 10))
    (raw / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(GOOD + bytes(100_000_000), 9))
    tracemalloc.start()
    refusal("mnist", tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000


def test_a_file_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(path: Path, shape: tuple[int, ...]) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    write_mnist(tmp_path, arrays((1, 28, 28), 10))
    monkeypatch.setattr(idx_dataset, "read_idx", refused)
    assert refusal("mnist", tmp_path).endswith("train-images-idx3-ubyte.gz: cannot be read: Permission denied")


# --- damaged and hostile batches

SHELL = b"\x80\x02cposix\nsystem\nU\x0btouch OWNED\x85R."


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (SHELL, "the pickle names 'posix.system', which no array, list, number or string needs"),
        (bytes(200_000), "holds more than 129,536 bytes, the most that such a batch takes"),
        (b"<!DOCTYPE html>", "the pickle is damaged"),
    ],
)
def test_a_bad_batch_is_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = write_cifar10(tmp_path, cifar_batches(arrays((3, 32, 32), 10), 5, b"labels"))
    (folder / "data_batch_2").write_bytes(content)
    message = refusal("cifar10", tmp_path)
    assert message.startswith(f"{folder / 'data_batch_2'}: {expected}")
    assert message.endswith(f"; delete it and run `leadline data get cifar10 --data-dir {tmp_path}`")
    assert [path.name for path in tmp_path.iterdir()] == [CIFAR10]


# --- damaged and hostile archives


def cifar_members() -> dict[str, bytes]:
    batches = cifar_batches(arrays((3, 32, 32), 10), 5, b"labels")
    return dict(zip([*(f"data_batch_{n}" for n in range(1, 6)), "test_batch"], batches, strict=True))


def with_member(member: tarfile.TarInfo, content: bytes = b"") -> bytes:
    """Return an archive that opens with a member of its own, then has the good ones, but for one of that name."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", compresslevel=1) as tar:
        tar.addfile(member, io.BytesIO(content))
        for name, good in cifar_members().items():
            if not member.name.endswith(name):
                info = tarfile.TarInfo(f"{CIFAR10}/{name}")
                info.size = len(good)
                tar.addfile(info, io.BytesIO(good))
    return buffer.getvalue()


def tar_member(name: str, **changes: object) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    for key, value in changes.items():
        setattr(member, key, value)
    return member


def claiming(size: int) -> bytes:
    """Return an archive of one member that says to be so large and is not there."""
    member = tar_member("something", size=size)
    return gzip.compress(member.tobuf(tarfile.GNU_FORMAT))


@functools.cache
def archive_cases() -> dict[str, tuple[bytes, str]]:
    members = cifar_members()
    good = archive(CIFAR10, members)
    one = f"{CIFAR10}/data_batch_1"
    return {
        "truncated": (good[: len(good) // 2], "the gzip data are truncated"),
        "truncated in its last bytes": (good[:-3], "the gzip data are truncated"),
        "trailing": (good + b"garbage", "incomplete or not a tar.gz file (Not a gzipped file"),
        "not gzip": (b"<!DOCTYPE html>" * 99, "incomplete or not a tar.gz file (Not a gzipped file"),
        "not tar": (gzip.compress(b"x" * 9999), "incomplete or not a tar.gz file (invalid header)"),
        "empty": (b"", "incomplete or not a tar.gz file (empty file)"),
        "lacks one": (
            archive(CIFAR10, {k: v for k, v in members.items() if k != "test_batch"}),
            f"has no {CIFAR10}/test_batch",
        ),
        "link": (with_member(tar_member(one, type=tarfile.SYMTYPE, linkname="/etc/passwd")), "is not a regular file"),
        "hard link": (with_member(tar_member(one, type=tarfile.LNKTYPE, linkname="x")), "is not a regular file"),
        "device": (with_member(tar_member(one, type=tarfile.CHRTYPE)), "is not a regular file"),
        "outside": (with_member(tar_member(f"../{one}")), f"has no {CIFAR10}/data_batch_1"),
        "absolute": (with_member(tar_member(f"/{one}")), f"has no {CIFAR10}/data_batch_1"),
        "twice": (twice(one), f"has '{one}' twice"),
        "large member": (
            with_member(tar_member(one, size=200_000), bytes(200_000)),
            "has 200,000 bytes, expected at most 129,536",
        ),
        "bomb": (with_member(tar_member("zeros", size=30_000_000), bytes(30_000_000)), "unpacks to more than"),
        "claim": (claiming(2**62), "claims a member larger than itself"),
        "hostile member": (
            archive(CIFAR10, {**members, "data_batch_4": SHELL}),
            f"{CIFAR10}/data_batch_4 in it: the pickle names 'posix.system'",
        ),
    }


def twice(name: str) -> bytes:
    content = cifar_members()["data_batch_1"]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for _ in range(2):
            tar.addfile(tar_member(name, size=len(content)), io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize("case", archive_cases())
def test_a_bad_archive_is_refused_in_one_line(tmp_path: Path, case: str) -> None:
    content, expected = archive_cases()[case]
    path = tmp_path / "cifar-10-python.tar.gz"
    path.write_bytes(content)
    message = refusal("cifar10", tmp_path)
    assert message.startswith(f"{path}: ") and expected in message
    assert message.endswith(f"; delete it and run `leadline data get cifar10 --data-dir {tmp_path}`")
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


# --- the real thing

REAL = os.environ.get("LEADLINE_TEST_DATA")


@pytest.mark.slow
@pytest.mark.skipif(REAL is None, reason="LEADLINE_TEST_DATA names no folder with real data")
@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_real_files(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.undo()
    data = read(name, Path(str(REAL)), download=False)
    mean = data.train[0].mean(axis=(0, 2, 3)) / 255
    if name == "mnist":
        counts = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
        assert np.bincount(data.train[1]).tolist() == counts
        assert data.test[1][:5].tolist() == [7, 2, 1, 0, 4]
        assert mean == pytest.approx([0.1307], abs=5e-5)
    else:
        assert np.bincount(data.train[1]).tolist() == [5000] * 10
        assert np.bincount(data.test[1]).tolist() == [1000] * 10
        assert mean == pytest.approx([0.4914, 0.4822, 0.4465], abs=0.001)
