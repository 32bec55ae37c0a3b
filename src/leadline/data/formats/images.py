"""Safe decoding of image files, and the centre crop."""

import io
from typing import TYPE_CHECKING

from leadline.errors import LeadlineError

if TYPE_CHECKING:
    from PIL.Image import Image

ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
FORMATS = ("JPEG", "PNG", "WEBP")

MOST_PIXELS = 89_478_485
"""Maximum number of pixels, to prevent decompression bombs: 256 MiB of colours, the limit at which Pillow warns."""

LONGEST_SIDE = 65_535
"""Maximum pixels of a side, as in JPEG: a decoder needs more memory for a row than for its only pixel."""

MOST_BYTES = 4 * MOST_PIXELS
"""Maximum size of a file with at most that many pixels."""


def need_pillow() -> None:
    """Check that Pillow is installed.

    Raises:
        LeadlineError: it is not.
    """
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise LeadlineError(
            "reading images needs the package pillow, which is not installed; pip install 'leadline[images]'"
        ) from None


def decode(content: bytes, grey: bool = False) -> "Image":
    """Decode a file completely, applying its EXIF orientation and dropping transparency.

    Args:
        content: content of a JPEG, PNG or WebP file.
        grey: whether to convert to one channel, the luma of ITU-R 601, instead of red, green and blue.

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
            if opened.mode.startswith(("I", "F")):
                raise ValueError(f"more than 8 bits per channel (mode {opened.mode})")
            image = _turn_upright(opened)
            if image.mode in ("P", "PA"):  # avoids Pillow's warning about transparency in a palette
                image = image.convert("RGBA")
            colours = image.convert("RGB")
            return colours.convert("L") if grey else colours
    except MemoryError:
        raise
    except UnidentifiedImageError:
        raise ValueError("neither JPEG, PNG nor WebP") from None
    except Image.DecompressionBombError:
        raise ValueError(f"more than {MOST_PIXELS:,} pixels") from None
    except Exception as error:  # decoders raise many kinds of errors for damaged files
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None


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
