"""Filters and samples as images: many small images as one PNG file, which a page holds as a data URI.

A grid of 64 filters of 28x28 pixels is some 40 kB, where as many rectangles of a chart would be megabytes. Arrays of
numbers in, bytes out: no torch, no chart, no imaging library.
"""

import base64
import io
import math
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from leadline.errors import DataError

BACKGROUND = 255
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
LEVELS = 64
"""Shades of grey of a grid: as many as can be told apart by eye; 256 of them would make files a third larger."""


@dataclass(frozen=True)
class ImageGrid:
    """Images in a grid, as a PNG file."""

    png: bytes
    width: int  # pixels
    height: int

    @property
    def data_uri(self) -> str:
        """The file as an address that holds it."""
        return "data:image/png;base64," + base64.b64encode(self.png).decode()


@dataclass(frozen=True)
class ImageGrids:
    """What a pre-trained network's first layer looks for, and images that the machines generate."""

    filters: ImageGrid
    samples: ImageGrid | None  # None: the method generates none

    def to_bytes(self) -> bytes:
        """Return both as one .npz file, which `from_bytes` reads."""
        file = io.BytesIO()
        arrays = {name: np.frombuffer(grid.png, np.uint8) for name, grid in self._named()}
        np.savez(file, **arrays)  # type: ignore[arg-type]
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "ImageGrids":
        """Read what `to_bytes` wrote.

        Raises:
            DataError: the bytes are damaged or something else.
        """
        try:
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                found = {name: _read(arrays[name].tobytes()) for name in arrays.files}
            return cls(found["filters"], found.get("samples"))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile, struct.error) as error:
            raise DataError(f"the stored pre-training images are damaged: {' '.join(str(error).split())}") from None

    def _named(self) -> Iterator[tuple[str, ImageGrid]]:
        yield "filters", self.filters
        if self.samples is not None:
            yield "samples", self.samples


def filters(
    weight: Float[np.ndarray, "hidden features"], shape: tuple[int, int, int], columns: int = 8, rows: int = 8
) -> ImageGrid:
    """Return what hidden units look for: the weights of some, evenly over all, each on a scale of its own.

    Mid-grey is 0, white and black are plus and minus the greatest weight of the unit.

    Args:
        weight: of the first layer, as `torch.nn.Linear` has it.
        shape: channels (1 or 3), height and width of an image.
        columns: of the grid at most.
        rows: of the grid at most.

    Raises:
        DataError: weights are not finite, or not of images of this shape.
    """
    chosen = np.unique(np.linspace(0, len(weight) - 1, min(len(weight), columns * rows)).round().astype(int))
    shown = _images(np.asarray(weight)[chosen], shape, "weights")
    greatest = np.abs(shown).max(axis=(1, 2, 3), keepdims=True)
    scaled = np.divide(shown, greatest, out=np.zeros_like(shown), where=greatest > 0)
    return grid((scaled + 1) / 2, columns)


def samples(
    images: Float[np.ndarray, "images features"],
    shape: tuple[int, int, int],
    columns: int = 8,
    standardised: bool = False,
) -> ImageGrid:
    """Return images in a grid, as many as there are.

    Args:
        images: flat, with values in [0, 1].
        shape: channels (1 or 3), height and width of an image.
        columns: of the grid at most.
        standardised: values are of mean 0 and variance 1, as Gaussian units have them, and shown from -2.5 to 2.5.

    Raises:
        DataError: images are not finite, not of this shape, or hold values outside [0, 1].
    """
    shown = _images(np.asarray(images), shape, "images")
    if standardised:
        return grid(np.clip(shown / 5 + 0.5, 0, 1), columns)
    if shown.min() < 0 or shown.max() > 1:
        raise DataError(f"images hold values from {shown.min():g} to {shown.max():g}; expected values in [0, 1]")
    return grid(shown, columns)


def grid(images: Float[np.ndarray, "images channels height width"], columns: int = 8) -> ImageGrid:
    """Return images with values in [0, 1] in a grid with a pixel of white between them."""
    count, channels, height, width = images.shape
    columns = max(1, min(columns, count))
    rows = math.ceil(count / columns)
    cells = np.full((rows * columns, height + 1, width + 1, channels), BACKGROUND, np.uint8)
    shades = np.round(images * (LEVELS - 1)) * (255 / (LEVELS - 1))
    cells[:count, :height, :width] = shades.round().astype(np.uint8).transpose(0, 2, 3, 1)
    whole = cells.reshape(rows, columns, height + 1, width + 1, channels).swapaxes(1, 2)
    whole = whole.reshape(rows * (height + 1), columns * (width + 1), channels)[:-1, :-1]
    return ImageGrid(_png(whole), whole.shape[1], whole.shape[0])


def _images(values: np.ndarray, shape: tuple[int, int, int], what: str) -> np.ndarray:
    """Return rows of values as images, checked."""
    channels, height, width = shape
    if values.ndim != 2 or len(values) == 0 or values.shape[1] != channels * height * width or channels not in (1, 3):
        raise DataError(
            f"{what} of shape {values.shape} as images of {channels}x{height}x{width}; expected one row of"
            f" {channels * height * width} values per image, in 1 or 3 channels"
        )
    if not np.isfinite(values).all():
        raise DataError(f"{what} hold NaN or infinite values; expected finite numbers")
    return values.astype(np.float64).reshape(-1, channels, height, width)


def _png(pixels: UInt8[np.ndarray, "height width channels"]) -> bytes:
    """Return a PNG file of 8 bits a channel, grey or RGB: ISO/IEC 15948, without filters between rows."""
    height, width, channels = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, 8, 2 if channels == 3 else 0, 0, 0, 0)
    rows = np.concatenate([np.zeros((height, 1), np.uint8), pixels.reshape(height, -1)], 1)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b"")]
    chunks = (
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in parts
    )
    return _SIGNATURE + b"".join(chunks)


def _read(png: bytes) -> ImageGrid:
    if png[:8] != _SIGNATURE:
        raise ValueError("not a PNG file")
    width, height = struct.unpack(">II", png[16:24])
    return ImageGrid(png, width, height)
