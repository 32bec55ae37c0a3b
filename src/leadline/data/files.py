"""The files of the data sets: finding them in the layouts that people have, downloading, checking and reading them."""

import hashlib
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import platformdirs
from numpy.typing import NDArray

from leadline.data import parity
from leadline.data.catalog import CATALOG, DatasetInfo, Download, IdxFiles, PickleFiles
from leadline.data.cifar import largest_batch, read_batch, read_members
from leadline.data.idx import read_idx
from leadline.data.split import stratified_order
from leadline.errors import DataError, unknown
from leadline.seeds import SUBSET, stream
from leadline.spec import DataSpec


@dataclass(frozen=True, eq=False)
class Arrays:
    """A whole data set as it lies in its files."""

    train_images: NDArray[np.uint8]  # [n, channels, height, width]
    train_labels: NDArray[np.int64]  # [n]
    test_images: NDArray[np.uint8]
    test_labels: NDArray[np.int64]


def default_data_dir() -> Path:
    """Return the folder that LEADLINE_DATA names, else the one in the user's cache."""
    given = os.environ.get("LEADLINE_DATA")
    return Path(given) if given else platformdirs.user_cache_path("leadline") / "data"


def read_arrays(name: str, data_dir: Path | None = None, download: bool = True) -> Arrays:
    """Read a data set whole, every file of it checked to its last byte; of parity, that of the default specification.

    Args:
        name: a name of the catalog.
        data_dir: where the files are; None: `default_data_dir()`.
        download: fetch what is missing.

    Raises:
        DataError: a file is missing, damaged, hostile or cannot be had.
    """
    info = _info(name)
    if info.files is None:
        return compute_parity(DataSpec(name="parity")) if name == "parity" else _digits(info)
    if download:
        fetch(name, data_dir)
    found = _complete(info, data_dir)
    if isinstance(info.files, IdxFiles):
        return _read_idx_files(info, info.files, found, data_dir)
    return _read_pickle_files(info, info.files, found, data_dir)


def fetch(name: str, data_dir: Path | None = None) -> list[Path]:
    """Download what is missing of a data set and return its files; what is there is left alone and unread.

    Raises:
        DataError: no mirror gave the file as it was published, or it cannot be written.
    """
    info = _info(name)
    folder = data_dir or default_data_dir()
    for missing in _find(info, folder)[1]:
        _download(info, missing, folder / missing.path)
    return sorted(_complete(info, data_dir).values())


def check(name: str, data_dir: Path | None = None) -> list[str]:
    """Read every file of a data set that is there and return a line on each, then one on each part of the data.

    Raises:
        DataError: a file is missing or is not what it should be.
    """
    info = _info(name)
    published = {item.name: item.sha256 for item in info.files.downloads} if info.files else {}
    lines = []
    arrays = read_arrays(name, data_dir, download=False)
    for path in sorted(_complete(info, data_dir).values()):
        if path.name not in published:
            note = "no checksum is published for this form"
        elif _sha256(path) == published[path.name]:
            note = "as published"
        else:
            note = "well-formed, but other bytes than published: packed again, or other pixels"
        lines.append(f"{path}: {path.stat().st_size:,} bytes, {note}")
    shape = "x".join(map(str, info.shape))
    for part, labels in (("train", arrays.train_labels), ("test", arrays.test_labels)):
        counts = np.bincount(labels, minlength=info.classes)
        sizes = f"{info.classes} classes of {counts.min():,} to {counts.max():,}"
        lines.append(f"{name} {part}: {len(labels):,} images of {shape}, {sizes}")
    return lines


def _info(name: str) -> DatasetInfo:
    if name not in CATALOG:
        raise DataError(unknown("data set", name, CATALOG))
    return CATALOG[name]


# --- finding


def _find(info: DatasetInfo, folder: Path) -> tuple[Mapping[str, Path], tuple[Download, ...]]:
    """Return the files to read, by the name of the published file or batch, and the downloads that lack one."""
    files = info.files
    if files is None:
        return {}, ()
    if isinstance(files, PickleFiles):
        batches = {name: folder / files.folder / name for name in (*files.train, *files.test)}
        if all(path.is_file() for path in batches.values()):
            return batches, ()
        archive = folder / files.archive.path
        return ({files.archive.name: archive}, ()) if archive.is_file() else ({}, files.downloads)
    found = {}
    for item in files.downloads:
        for path in _spellings(folder / item.path):
            if path.is_file():
                found[item.name] = path
                break
    return found, tuple(item for item in files.downloads if item.name not in found)


def _spellings(packed: Path) -> Iterator[Path]:
    """The names under which people keep one idx file: unpacked or not, with a hyphen or a dot before `idx`."""
    for name in (packed.name, packed.name.replace("-idx", ".idx")):
        yield packed.with_name(name.removesuffix(".gz"))
        yield packed.with_name(name)


def _complete(info: DatasetInfo, data_dir: Path | None) -> Mapping[str, Path]:
    folder = data_dir or default_data_dir()
    found, missing = _find(info, folder)
    if missing:
        also = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise DataError(f"{folder / missing[0].path}{also}: no such file; run {_get(info, data_dir)}")
    return found


def _get(info: DatasetInfo, data_dir: Path | None) -> str:
    return f"`leadline data get {info.name}{f' --data-dir {data_dir}' if data_dir else ''}`"


# --- downloading


def _download(info: DatasetInfo, item: Download, target: Path) -> None:
    """Fetch one file from the first mirror that has it as published; it appears whole or not at all."""
    import pooch
    import requests

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{target.parent}: cannot be made: {error.strerror}; choose another --data-dir") from None
    problems = []
    for address in item.mirrors:
        downloader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=30)
        try:
            pooch.retrieve(address, f"sha256:{item.sha256}", target.name, target.parent, downloader=downloader)
            return
        except requests.HTTPError as error:
            problem = f"HTTP status {error.response.status_code if error.response is not None else 'unknown'}"
        except requests.Timeout:
            problem = "no answer in 30 s"
        except requests.RequestException as error:
            # A connection that breaks off is a ChunkedEncodingError, none at all a ConnectionError.
            broken = isinstance(error, requests.exceptions.ChunkedEncodingError)
            problem = "broke off in the middle" if broken else "connection failed"
        except ValueError:
            problem = "another checksum than published"
        except OSError as error:
            raise DataError(f"{target}: cannot be written: {error.strerror}; choose another --data-dir") from None
        problems.append(f"{address} ({problem})")
    raise DataError(
        f"{info.name}: {item.name} could not be downloaded from {', '.join(problems)};"
        f" try again later, or put the file at {target} yourself"
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- reading


def _damaged(path: Path, problem: object, info: DatasetInfo, data_dir: Path | None) -> DataError:
    return DataError(f"{path}: {problem}; delete it and run {_get(info, data_dir)}")


def _unreadable(path: Path, error: OSError) -> DataError:
    return DataError(f"{path}: cannot be read: {error.strerror or error}")


def _read_idx_files(info: DatasetInfo, files: IdxFiles, found: Mapping[str, Path], data_dir: Path | None) -> Arrays:
    def read(item: Download, shape: tuple[int, ...], limit: int = 256) -> NDArray[np.uint8]:
        path = found[item.name]
        try:
            values = read_idx(path, shape)
            if values.size and values.max() >= limit:
                position = int(np.argmax(values >= limit))
                raise ValueError(f"label {values[position]} at position {position}, expected 0 to {limit - 1}")
        except ValueError as error:
            raise _damaged(path, error, info, data_dir) from None
        except OSError as error:
            raise _unreadable(path, error) from None
        return values

    size = info.shape[1:]
    return Arrays(
        read(files.train_images, (info.train, *size)).reshape(-1, *info.shape),
        read(files.train_labels, (info.train,), info.classes).astype(np.int64),
        read(files.test_images, (info.test, *size)).reshape(-1, *info.shape),
        read(files.test_labels, (info.test,), info.classes).astype(np.int64),
    )


def _read_pickle_files(
    info: DatasetInfo, files: PickleFiles, found: Mapping[str, Path], data_dir: Path | None
) -> Arrays:
    counts = {name: info.train // len(files.train) for name in files.train}
    counts |= {name: info.test // len(files.test) for name in files.test}
    limits = {name: largest_batch(count, info.shape) for name, count in counts.items()}
    images = {
        "train": np.empty((info.train, *info.shape), np.uint8),
        "test": np.empty((info.test, *info.shape), np.uint8),
    }
    labels = {"train": np.empty(info.train, np.int64), "test": np.empty(info.test, np.int64)}

    def keep(name: str, content: bytes) -> None:
        part, names = ("train", files.train) if name in files.train else ("test", files.test)
        first = names.index(name) * counts[name]
        place = slice(first, first + counts[name])
        images[part][place], labels[part][place] = read_batch(
            content, counts[name], info.shape, info.classes, files.labels
        )

    for source, path in found.items():
        try:
            if source == files.archive.name:
                for name, content in read_members(path, files.folder, limits):
                    try:
                        keep(name, content)
                    except ValueError as error:
                        raise ValueError(f"{files.folder}/{name} in it: {error}") from None
            else:
                keep(source, _read_bounded(path, limits[source]))
        except ValueError as error:
            raise _damaged(path, error, info, data_dir) from None
        except OSError as error:
            raise _unreadable(path, error) from None
    return Arrays(images["train"], labels["train"], images["test"], labels["test"])


def _read_bounded(path: Path, limit: int) -> bytes:
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"holds more than {limit:,} bytes, the most that such a batch takes")
    return content


def compute_parity(spec: DataSpec) -> Arrays:
    """Return the parity data that a specification asks for: see `parity.parts`.

    Raises:
        DataError: no input would be left for training, or none would be held out.
    """
    return Arrays(*parity.parts(spec))


def _digits(info: DatasetInfo) -> Arrays:
    """Scale scikit-learn's digits from 0..16 to 0..255; a fixed fifth of each class is the test part."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = np.rint(bunch.images * (255 / 16)).astype(np.uint8).reshape(-1, *info.shape)
    labels = bunch.target.astype(np.int64)
    order = stratified_order(labels, stream(0, SUBSET, "digits"))
    test, train = np.sort(order[: info.test]), np.sort(order[info.test :])
    return Arrays(images[train], labels[train], images[test], labels[test])
