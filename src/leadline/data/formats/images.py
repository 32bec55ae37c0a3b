"""Safe decoding of image files, transparency, and the centre crop."""

import io
import warnings
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL.Image import Image

ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")
KINDS = "JPEG, PNG, WebP, BMP, TIFF or GIF"

Colour = tuple[int, int, int]
"""Red, green and blue from 0 to 255."""
WHITE: Colour = (255, 255, 255)

MOST_PIXELS = 89_478_485
"""Maximum number of pixels, to prevent decompression bombs: 256 MiB of colours, the limit at which Pillow warns."""

LONGEST_SIDE = 65_535
"""Maximum pixels of a side, as in JPEG: a decoder needs more memory for a row than for its only pixel."""

MOST_BYTES = 4 * MOST_PIXELS
"""Maximum size of a file with at most that many pixels."""


def silence_pillow() -> None:
    """Silence Pillow's warnings in this process: they do not say which image is meant."""
    warnings.filterwarnings("ignore", module=r"PIL\.")


def decode(content: bytes, grey: bool = False, background: Colour = WHITE) -> "Image":
    """Decode a file completely, as `read_pixels`, and put a colour behind its transparent pixels.

    Args:
        content: content of a JPEG, PNG, WebP, BMP, TIFF or GIF file.
        grey: whether to convert to one channel, the luma of ITU-R 601, instead of red, green and blue.
        background: the colour.

    Raises:
        ValueError: the file cannot be decoded; the message says why in a few words.
    """
    from PIL import Image

    image = read_pixels(content)
    if image.mode == "RGBA":
        image = Image.alpha_composite(Image.new("RGBA", image.size, (*background, 255)), image).convert("RGB")
    return image.convert("L") if grey else image


def read_pixels(content: bytes) -> "Image":
    """Decode a file completely, applying its EXIF orientation; of several frames or pages, the first.

    16 bits per channel are scaled to 8, and CMYK is converted to red, green and blue.

    Args:
        content: content of a JPEG, PNG, WebP, BMP, TIFF or GIF file.

    Returns:
        An image of mode RGB, or RGBA if any of its pixels is transparent.

    Raises:
        ValueError: the file cannot be decoded; the message says why in a few words.
    """
    from PIL import Image, UnidentifiedImageError

    if not content:
        raise ValueError("the file is empty")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
            width, height = opened.size
            if width * height > MOST_PIXELS:
                raise ValueError(f"{width} x {height} pixels are more than {MOST_PIXELS:,}")
            if max(width, height) > LONGEST_SIDE:
                raise ValueError(f"{width} x {height} pixels: a side is longer than {LONGEST_SIDE:,}")
            opened.load()  # for TIFF, this applies the orientation already
            image = _turn_upright(_to_8_bits(opened))
            if "A" not in image.getbands() and "transparency" not in image.info:
                return image.convert("RGB")
            image = image.convert("RGBA")
            lowest, _ = image.getchannel("A").getextrema()
            return image.convert("RGB") if lowest == 255 else image
    except MemoryError:
        raise
    except UnidentifiedImageError:
        raise ValueError(f"not a {KINDS} file") from None
    except Image.DecompressionBombError:
        raise ValueError(f"more than {MOST_PIXELS:,} pixels") from None
    except Exception as error:  # decoders raise many kinds of errors for damaged files
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None


def _to_8_bits(image: "Image") -> "Image":
    """Return an image with at most 8 bits per channel: 16 bits of grey are scaled."""
    if not image.mode.startswith(("I", "F")):
        return image
    if not image.mode.startswith("I;16") and (image.mode, image.format) != ("I", "PNG"):
        raise ValueError(f"more than 16 bits per channel (mode {image.mode}); convert it to 8 or 16 bits")
    from PIL import Image

    values = (np.asarray(image).astype(np.uint32) * 255 + 32_767) // 65_535
    scaled = Image.fromarray(values.astype(np.uint8))
    scaled.info["exif"] = image.info.get("exif", b"")
    return scaled


def _turn_upright(image: "Image") -> "Image":
    """Return an image turned as the orientation of its EXIF data says; of these nothing else is looked at."""
    from PIL import ExifTags
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    turn = turns.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return image if turn is None else image.transpose(turn)


def corner(image: "Image", size: int, shorter_side: int, at: tuple[int, int]) -> "Image":
    """Return a crop in a corner of the centre square of an image, resized as by `centre`.

    Args:
        image: an image of any size.
        size: height and width of the crop.
        shorter_side: shorter side of the resized image.
        at: 0 for left or 1 for right, and 0 for top or 1 for bottom.
    """
    from PIL import Image

    width, height = image.size
    square = min(width, height)
    side = square * size / shorter_side
    left, top = ((whole - square) / 2 + (square - side) * end for whole, end in zip((width, height), at, strict=True))
    return image.resize((size, size), Image.Resampling.BILINEAR, (left, top, left + side, top + side))


def centre(image: "Image", size: int, shorter_side: int) -> "Image":
    """Return the centre crop of an image after resizing its shorter side, bilinearly with antialiasing.

    Only the crop is resized, so that a very long image costs no more than a square one.

    Args:
        image: an image of any size.
        size: height and width of the crop.
        shorter_side: shorter side of the resized image.
    """
    from PIL import Image

    width, height = image.size
    side = min(width, height) * size / shorter_side
    left, top = (width - side) / 2, (height - side) / 2
    return image.resize((size, size), Image.Resampling.BILINEAR, (left, top, left + side, top + side))
