"""Read and check the pickled batches of CIFAR, from a folder or directly from the tar.gz archive.

Nothing is extracted to disk: members are selected by name while the archive is streamed, so that links, devices and
paths to other folders have no effect, and the stream is limited to the size of a complete archive.
"""

import gzip
import math
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from leadline.data.formats.pickled import read_pickle

Batch = tuple[NDArray[np.uint8], NDArray[np.int64]]


def read_batch(content: bytes, images: int, shape: tuple[int, int, int], classes: int, labels: str) -> Batch:
    """Return the images [n, channels, height, width] and labels [n] of one batch.

    Args:
        content: the pickle.
        images: expected number of images.
        shape: channels, height and width of an image.
        classes: number of classes.
        labels: key of the labels.

    Raises:
        ValueError: the content differs from what is expected; the message does not name the file.
    """
    batch = read_pickle(content)
    for key in ("data", labels):
        if key not in batch:
            raise ValueError(f"has no {key!r}, only {', '.join(sorted(map(ascii, batch)))[:80] or 'nothing'}")
    data, numbers = batch["data"], batch[labels]
    values = math.prod(shape)
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8:
        found = data.dtype if isinstance(data, np.ndarray) else type(data).__name__
        raise ValueError(f"its 'data' are {found}, expected an array of uint8")
    if data.shape != (images, values):
        raise ValueError(f"its 'data' have shape {data.shape}, expected ({images}, {values})")
    if isinstance(numbers, np.ndarray):
        numbers = numbers.ravel().tolist()
    if not isinstance(numbers, list):
        raise ValueError(f"its {labels!r} are a {type(numbers).__name__}, expected a list")
    if len(numbers) != images:
        raise ValueError(f"has {len(numbers):,} {labels!r} for {images:,} images")
    for position, number in enumerate(numbers):
        if type(number) is not int or not 0 <= number < classes:
            raise ValueError(f"label {ascii(number)[:40]} at position {position}, expected 0 to {classes - 1}")
    return data.reshape(images, *shape), np.array(numbers, np.int64)


def largest_batch(images: int, shape: tuple[int, int, int]) -> int:
    """Return an upper bound for the bytes of a pickled batch of images.

    Protocol 2 writes bytes of Python 3 as text, in which every second value takes two bytes, besides names and labels.
    """
    return images * (2 * math.prod(shape) + 256) + 65_536


def read_members(path: Path, folder: str, limits: Mapping[str, int]) -> Iterator[tuple[str, bytes]]:
    """Yield the name and content of members of a tar.gz archive in its order, and check the end of the archive.

    Args:
        path: the archive.
        folder: folder of the members inside the archive.
        limits: name of a member in that folder -> maximum size in bytes.

    Raises:
        ValueError: the content differs from what is expected; the message does not name the path.
        OSError: the file cannot be read.
    """
    wanted = {f"{folder}/{name}": name for name in limits}
    seen = set()
    try:
        with gzip.open(path) as unpacked:
            stream = _Limited(unpacked, sum(limits.values()) + 16 * 2**20)
            with tarfile.open(fileobj=cast(BinaryIO, stream), mode="r|") as archive:
                for member in archive:
                    name = wanted.get(member.name.removeprefix("./"))
                    if name is None:
                        continue
                    if not member.isreg() or member.issparse():
                        raise ValueError(f"its member {member.name!r} is not a regular file")
                    if name in seen:
                        raise ValueError(f"has {member.name!r} twice")
                    if member.size > limits[name]:
                        raise ValueError(
                            f"its member {member.name!r} has {member.size:,} bytes, expected at most {limits[name]:,}"
                        )
                    file = archive.extractfile(member)
                    content = file.read() if file else b""
                    if len(content) != member.size:
                        raise ValueError(f"ends inside {member.name!r}")
                    seen.add(name)
                    yield name, content
            while stream.read(2**20):
                pass
    except EOFError:
        raise ValueError("the gzip data are truncated") from None
    except (gzip.BadGzipFile, zlib.error, tarfile.TarError) as error:
        raise ValueError(f"incomplete or not a tar.gz file ({' '.join(str(error).split())[:100]})") from None
    missing = [name for name in limits if name not in seen]
    if missing:
        raise ValueError(f"has no {folder}/{missing[0]}")


class _Limited:
    """A stream of limited size, because small archives can expand to huge files or declare huge members."""

    def __init__(self, file: gzip.GzipFile, limit: int) -> None:
        self._file, self._limit, self._left = file, limit, limit
        self._reads_past_end = 0

    def read(self, size: int) -> bytes:
        content = self._file.read(min(size, self._left + 1))
        self._left -= len(content)
        if self._left < 0:
            raise ValueError(f"unpacks to more than {self._limit:,} bytes")
        if not content:
            # tarfile skips as many blocks of a member as its header declares, even past the end of the file.
            self._reads_past_end += 1
            if self._reads_past_end > 8:
                raise ValueError("claims a member larger than itself")
        return content
