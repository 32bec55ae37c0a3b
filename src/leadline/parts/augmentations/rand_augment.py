"""RandAugment."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from leadline.parts.augmentations import AUGMENTATIONS, PixelAugmentation
from leadline.parts.augmentations.numbers import draw_integers
from leadline.parts.augmentations.operations import IDENTITY, Space, apply_drawn
from leadline.parts.base import Spec

if TYPE_CHECKING:
    from torch import Tensor

LARGEST = 10
"""The magnitude at which an operation is as strong as AutoAugment has it."""


@AUGMENTATIONS.register
class RandAugment(Spec, PixelAugmentation):
    """RandAugment: a few operations one after the other, all of one magnitude (Cubuk et al. 2019).

    Drawn from 14: none, shear, translation and rotation, auto-contrast, equalize, solarize, posterize, colour,
    contrast, brightness and sharpness. Half of them go the other way, where there is one.
    """

    name: Literal["rand-augment"] = "rand-augment"
    operations: int = Field(default=2, ge=1, le=8, description="number of operations for each image; N of the paper")
    magnitude: float = Field(
        default=9.0, ge=0, le=LARGEST, description="strength of all operations; 10 is AutoAugment's largest"
    )
    fill: int = Field(default=0, ge=0, le=255, description="value of pixels from outside the image")

    def space(self, height: int, width: int) -> Space:
        """Return the operations with their magnitudes: one for each sign."""
        share = self.magnitude / LARGEST
        both = {
            "shear-x": 0.3 * share,
            "shear-y": 0.3 * share,
            "translate-x": 150 / 331 * width * share,
            "translate-y": 150 / 331 * height * share,
            "rotate": 30 * share,
        }
        return (
            (IDENTITY, ()),
            ("auto-contrast", (0, 0)),
            ("equalize", (0, 0)),
            ("posterize", (8 - round(4 * share),) * 2),
            ("solarize", (256 * (1 - share),) * 2),
            *((name, (most, -most)) for name, most in both.items()),
            *((name, (1 + 0.9 * share, 1 - 0.9 * share)) for name in ("brightness", "colour", "contrast", "sharpness")),
        )

    def apply(self, images: "Tensor", numbers: "Tensor") -> "Tensor":
        """Return images after their operations."""
        space = self.space(*images.shape[2:])
        drawn = draw_integers(numbers[:, 0], 2 * self.operations)
        for place in range(self.operations):
            choices, signs = drawn[:, 2 * place], drawn[:, 2 * place + 1]
            images = apply_drawn(images, choices % len(space), signs % 2, space, self.fill)
        return images
