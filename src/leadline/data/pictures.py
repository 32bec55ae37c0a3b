"""Picture files: opened with care, and seen by a network as a random part or as their centre."""

import io
import math
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from leadline.errors import LeadlineError

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

    from leadline.spec import ResizedCrop

ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
FORMATS = ("JPEG", "PNG", "WEBP")

MOST_PIXELS = 89_478_485
"""More, out of a small file, are taken for an attack: 256 MiB of colours, where Pillow starts to warn."""

MOST_BYTES = 4 * MOST_PIXELS
"""A file that holds more is no picture of so few pixels."""

TRIES = 10
"""Random parts that are tried before the centre is taken."""


def need_pillow() -> None:
    """Say in one line that Pillow is missing, where it is.

    Raises:
        LeadlineError: it is not installed.
    """
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise LeadlineError(
            "reading pictures needs the package pillow, which is not installed; pip install 'leadline[images]'"
        ) from None


def decode(content: bytes) -> "Picture":
    """Decode a whole file into red, green and blue, turned as its EXIF orientation says, transparency left out.

    Args:
        content: of a JPEG, PNG or WebP file, whatever its name ends in.

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
            picture = ImageOps.exif_transpose(opened)
            if picture.mode in ("P", "PA"):  # a palette's transparency would be lost with a warning
                picture = picture.convert("RGBA")
            return picture.convert("RGB")
    except MemoryError:
        raise
    except UnidentifiedImageError:
        raise ValueError("neither JPEG, PNG nor WebP") from None
    except Image.DecompressionBombError:
        raise ValueError(f"more than {MOST_PIXELS:,} pixels") from None
    except Exception as error:  # decoders of damaged files raise anything
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from None


def centre(picture: "Picture", size: int, shorter_side: int) -> "Picture":
    """Return the middle of a picture whose shorter side has been resized, bilinearly with antialiasing.

    What lies outside the middle is never resized, so that a very long picture costs no more than a square one.

    Args:
        picture: of any size.
        size: height and width of what is returned.
        shorter_side: height or width, whichever is smaller, of the resized picture.
    """
    from PIL import Image

    width, height = picture.size
    side = min(width, height) * size / shorter_side
    left, top = (width - side) / 2, (height - side) / 2
    return picture.resize((size, size), Image.Resampling.BILINEAR, (left, top, left + side, top + side))


def random_part(picture: "Picture", size: int, crop: "ResizedCrop", draw: int) -> "Picture":
    """Return a random part of a picture, resized, and perhaps flipped left to right.

    Area and logarithm of the ratio of width to height are uniform, and so is the place; a part that does not fit is
    drawn anew, at most ten times, then the middle is taken, cut to the nearest ratio allowed: as in Szegedy et al.
    2015, section 6, in the form that torchvision gave it.

    Args:
        picture: of any size.
        size: height and width of what is returned.
        crop: the ranges to draw from, and whether pictures are flipped.
        draw: decides everything.
    """
    from PIL import Image

    # its `random()` alone is the same in every version of Python; all else is made of it here
    uniform = random.Random(draw).random
    flip = uniform() < 0.5 and crop.flip
    left, top, width, height = _part(picture.size, crop, uniform)
    part = picture.crop((left, top, left + width, top + height)).resize((size, size), Image.Resampling.BILINEAR)
    return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else part


def _part(size: tuple[int, int], crop: "ResizedCrop", uniform: Callable[[], float]) -> tuple[int, int, int, int]:
    """Return left, top, width and height of a part of a picture of width x height."""
    whole_width, whole_height = size
    (smallest, largest), (narrowest, widest) = crop.scale, crop.ratio
    for _ in range(TRIES):
        area = whole_width * whole_height * (smallest + (largest - smallest) * uniform())
        ratio = math.exp(math.log(narrowest) + (math.log(widest) - math.log(narrowest)) * uniform())
        width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < width <= whole_width and 0 < height <= whole_height:
            left = int(uniform() * (whole_width - width + 1))
            return left, int(uniform() * (whole_height - height + 1)), width, height
    width, height = whole_width, whole_height
    if width < narrowest * height:
        height = max(1, round(width / narrowest))
    elif width > widest * height:
        width = max(1, round(height * widest))
    return (whole_width - width) // 2, (whole_height - height) // 2, width, height
