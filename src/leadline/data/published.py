"""Published data sets: find their files in the usual layouts, download and check them.

The checksums are those published by common loaders (TensorFlow Datasets for the idx files, Keras for CIFAR). They are
used for downloads; existing files may be packed differently and are checked by their structure.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar

from leadline.data.arrays import Arrays
from leadline.data.datasets import DataSpec
from leadline.data.files import default_data_dir
from leadline.data.metadata import Metadata
from leadline.data.split import PartSizes
from leadline.errors import DataError
from leadline.text.terminal import progress_bar

SLACK = 10
"""A mirror may send a tenth more than the published size before it is given up."""

CHUNK = 2**16
"""Bytes that are written at a time."""

SILENCE_SECONDS = 30.0
"""Time without a byte after which a mirror is given up."""


@dataclass(frozen=True)
class Download:
    """One published file."""

    path: str  # below the data folder
    sha256: str
    size: int  # bytes
    mirrors: tuple[str, ...]  # complete URLs, tried in this order

    @property
    def name(self) -> str:
        """The file's name without its folder."""
        return self.path.rpartition("/")[2]


class PublishedDataSpec(DataSpec):
    """Base class of published data sets, which define their content and the URLs of their files."""

    shape: ClassVar[tuple[int, int, int]]
    class_names: ClassVar[tuple[str, ...]]
    parts: ClassVar[PartSizes]
    downloads: ClassVar[tuple[Download, ...]]

    @property
    def known_sizes(self) -> PartSizes:
        """The sizes of the parts."""
        return self.parts

    def metadata(self, data_dir: Path) -> Metadata:
        """Return the published metadata, without reading any file."""
        return Metadata(self.shape, len(self.class_names), self.class_names)

    def read(self, data_dir: Path, download: bool = True) -> Arrays:
        """Read the data set and check every file completely.

        Raises:
            DataError: a file is missing, damaged or malicious, or cannot be downloaded.
        """
        if download:
            self.fetch(data_dir)
        return self._read_files(self._complete(data_dir), data_dir)

    def fetch(self, data_dir: Path) -> list[Path]:
        """Download missing files and return all files; existing files are not read.

        Raises:
            DataError: no mirror has the published file, or it cannot be written.
        """
        for missing in self._find(data_dir)[1]:
            _download(self.display_name, missing, data_dir / missing.path)
        return self.files(data_dir)

    def files(self, data_dir: Path) -> list[Path]:
        """Return the files that are read.

        Raises:
            DataError: one is missing.
        """
        return sorted(self._complete(data_dir).values())

    @abstractmethod
    def _find(self, folder: Path) -> tuple[Mapping[str, Path], tuple[Download, ...]]:
        """Return the existing files by the name of the published file or batch, and the downloads that are missing."""

    @abstractmethod
    def _read_files(self, found: Mapping[str, Path], data_dir: Path) -> Arrays:
        """Read the files that `_find` found."""

    def _complete(self, data_dir: Path) -> Mapping[str, Path]:
        found, missing = self._find(data_dir)
        if missing:
            also = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise DataError(f"{data_dir / missing[0].path}{also}: no such file; run {self._get(data_dir)}")
        return found

    def _get(self, data_dir: Path) -> str:
        elsewhere = "" if data_dir == default_data_dir() else f" --data-dir {data_dir}"
        return f"`leadline data get {self.display_name}{elsewhere}`"

    def _damaged(self, path: Path, problem: object, data_dir: Path) -> DataError:
        return DataError(f"{path}: {problem}; delete it and run {self._get(data_dir)}")

    def _unreadable(self, path: Path, error: OSError) -> DataError:
        return DataError(f"{path}: cannot be read: {error.strerror or error}")


class _TooLong(Exception):
    """A mirror sends more than the published file."""


@dataclass
class _Bounded:
    """A file of a published size, which takes little more and shows how much it has."""

    file: BinaryIO
    size: int
    progress: Callable[[int, int], None]
    written: int = 0

    def write(self, content: bytes) -> None:
        """Write, unless it is too much."""
        self.written += len(content)
        if self.written > self.size + self.size // SLACK:
            raise _TooLong
        self.file.write(content)
        self.progress(self.written, self.size)

    def flush(self) -> None:
        """Do nothing: the file is flushed when it is closed."""


def _download(name: str, item: Download, target: Path) -> None:
    """Download one file atomically from the first mirror that has the published version."""
    import pooch
    import requests

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{target.parent}: cannot be created: {error.strerror}; choose another --data-dir") from None
    problems = []
    for address in item.mirrors:
        http = pooch.HTTPDownloader(chunk_size=CHUNK, timeout=SILENCE_SECONDS)

        def fetch(url: str, file: str, _: object, http: Callable[..., object] = http) -> None:
            with progress_bar(f"downloading {item.name}") as progress, Path(file).open("wb") as opened:
                http(url, _Bounded(opened, item.size, progress), None)

        try:
            pooch.retrieve(address, f"sha256:{item.sha256}", target.name, target.parent, downloader=fetch)
            return
        except _TooLong:
            problem = f"more than the published {item.size:,} bytes"
        except requests.HTTPError as error:
            problem = f"HTTP status {error.response.status_code if error.response is not None else 'unknown'}"
        except requests.RequestException as error:
            # A connection that falls silent raises Timeout, or later ConnectionError; an interrupted one
            # ChunkedEncodingError, and one that failed ConnectionError.
            if isinstance(error, requests.Timeout) or "Read timed out" in str(error):
                problem = f"no answer in {SILENCE_SECONDS:g} s"
            else:
                broken = isinstance(error, requests.exceptions.ChunkedEncodingError)
                problem = "connection lost during the download" if broken else "connection failed"
        except ValueError:
            problem = "checksum differs from the published one"
        except OSError as error:
            raise DataError(f"{target}: cannot be written: {error.strerror}; choose another --data-dir") from None
        problems.append(f"{address} ({problem})")
    raise DataError(
        f"{name}: {item.name} could not be downloaded from {', '.join(problems)}; try again later, or place the file"
        f" at {target}"
    )
