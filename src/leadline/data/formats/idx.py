"""Read idx files, the format of MNIST: a magic number, the dimensions, then one byte per value.

The whole file is checked, and no more than the expected number of bytes is decompressed.
"""

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

UNSIGNED_BYTE = 0x08


def read_idx(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Read an idx file of unsigned bytes, decompressing it if its name ends in .gz.

    Args:
        path: the file.
        shape: the expected dimensions.

    Raises:
        ValueError: the content differs from what is expected; the message does not name the path.
        OSError: the file cannot be read.
    """
    header = 4 + 4 * len(shape)
    size = header + math.prod(shape)
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            # One byte more than expected detects longer files, and makes gzip verify its checksum.
            content = file.read(size + 1)
    except gzip.BadGzipFile as error:
        raise ValueError(f"incomplete or not a gzip file ({_one_line(error)})") from None
    except EOFError:
        raise ValueError("the gzip data are truncated") from None
    except zlib.error as error:
        raise ValueError(f"the gzip data are damaged ({_one_line(error)})") from None
    magic = bytes((0, 0, UNSIGNED_BYTE, len(shape)))
    if content[:4] != magic:
        raise ValueError(f"starts with {content[:4].hex() or 'nothing'}, expected the idx magic number {magic.hex()}")
    found = tuple(np.frombuffer(content[4:header].ljust(4 * len(shape), b"\0"), ">u4").tolist())
    if found != shape:
        raise ValueError(f"declares {_times(found)} values, expected {_times(shape)}")
    if len(content) != size:
        amount = f"{len(content):,} bytes" if len(content) < size else f"more than {size:,} bytes"
        raise ValueError(f"holds {amount}, expected {size:,} for {_times(shape)} values")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _times(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
