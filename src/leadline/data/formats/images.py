"""Image files: decoded with care, and their centre."""

import io
from typing import TYPE_CHECKING

from leadline.errors import LeadlineError

if TYPE_CHECKING:
    from PIL.Image import Image

ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
FORMATS = ("JPEG", "PNG", "WEBP")

MOST_PIXELS = 89_478_485
"""More, out of a small file, are taken for an attack: 256 MiB of colours, where Pillow starts to warn."""

MOST_BYTES = 4 * MOST_PIXELS
"""A file that holds more is no image of so few pixels."""


def need_pillow() -> None:
    """Say in one line that Pillow is missing, where it is.

    Raises:
        LeadlineError: it is not installed.
    """
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise LeadlineError(
            "reading images needs the package pillow, which is not installed; pip install 'leadline[images]'"
        ) from None


def decode(content: bytes, grey: bool = False) -> "Image":
    """Decode a whole file, turned as its EXIF orientation says, transparency left out.

    Args:
        content: of a JPEG, PNG or WebP file, whatever its name ends in.
        grey: into one channel, the luma of ITU-R 601, and not into red, green and blue.

    Raises:
        ValueError: what is wrong with it, in a few words.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    if not content:
        raise ValueError("the file is empty")
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
            width, height = opened.size
            if width * height > MOST_PIXELS:
                raise ValueError(f"{width} x {height} pixels are more than {MOST_PIXELS:,}")
            if opened.mode.startswith(("I", "F")):
                raise ValueError(f"more than 8 bits per channel (mode {opened.mode})")
            image = ImageOps.exif_transpose(opened)
            if image.mode in ("P", "PA"):  # a palette's transparency would be lost with a warning
                image = image.convert("RGBA")
            colours = image.convert("RGB")
            return colours.convert("L") if grey else colours
    except MemoryError:
        raise
    except UnidentifiedImageError:
        raise ValueError("neither JPEG, PNG nor WebP") from None
    except Image.DecompressionBombError:
        raise ValueError(f"more than {MOST_PIXELS:,} pixels") from None
    except Exception as error:  # decoders of damaged files raise anything
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None


def centre(image: "Image", size: int, shorter_side: int) -> "Image":
    """Return the middle of an image whose shorter side has been resized, bilinearly with antialiasing.

    What lies outside the middle is never resized, so that a very long image costs no more than a square one.

    Args:
        image: of any size.
        size: height and width of what is returned.
        shorter_side: height or width, whichever is smaller, of the resized image.
    """
    from PIL import Image

    width, height = image.size
    side = min(width, height) * size / shorter_side
    left, top = (width - side) / 2, (height - side) / 2
    return image.resize((size, size), Image.Resampling.BILINEAR, (left, top, left + side, top + side))
