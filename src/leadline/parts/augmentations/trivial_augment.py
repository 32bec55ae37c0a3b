"""TrivialAugment."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from leadline.parts.augmentations import AUGMENTATIONS, PixelAugmentation
from leadline.parts.augmentations.operations import IDENTITY, Space, apply_drawn
from leadline.parts.base import Spec

if TYPE_CHECKING:
    from torch import Tensor

LEVELS = 31
"""Number of magnitudes of an operation."""

_SIGNED = {"shear-x": 0.99, "shear-y": 0.99, "translate-x": 32.0, "translate-y": 32.0, "rotate": 135.0}
_ENHANCED = ("brightness", "colour", "contrast", "sharpness")


def _space() -> Space:
    """Return the wide space: each operation has its magnitudes, and then those of the other sign."""
    shares = [level / (LEVELS - 1) for level in range(LEVELS)]
    signed = [*shares, *(-share for share in shares)]
    return (
        (IDENTITY, ()),
        ("auto-contrast", (0,) * 2 * LEVELS),
        ("equalize", (0,) * 2 * LEVELS),
        ("posterize", tuple(8 - round(6 * share) for share in shares) * 2),
        ("solarize", tuple(255 * (1 - share) for share in shares) * 2),
        *((name, tuple(most * share for share in signed)) for name, most in _SIGNED.items()),
        *((name, tuple(1 + 0.99 * share for share in signed)) for name in _ENHANCED),
    )


WIDE = _space()


@AUGMENTATIONS.register
class TrivialAugment(Spec, PixelAugmentation):
    """TrivialAugment: one operation of a random magnitude for each image (Müller & Hutter 2021).

    Of the wide space, TrivialAugmentWide: 14 operations with 31 magnitudes, up to a shear of 0.99, a translation by 32
    pixels and a rotation by 135 degrees.
    """

    name: Literal["trivial-augment"] = "trivial-augment"
    fill: int = Field(default=0, ge=0, le=255, description="value of pixels from outside the image")

    def apply(self, images: "Tensor", numbers: "Tensor") -> "Tensor":
        """Return images after their operation."""
        levels = numbers[:, 1] % LEVELS + LEVELS * (numbers[:, 2] % 2)
        return apply_drawn(images, numbers[:, 0] % len(WIDE), levels, WIDE, self.fill)
