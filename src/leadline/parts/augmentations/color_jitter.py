"""Colour jitter."""

import itertools
import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from leadline.parts.augmentations import AUGMENTATIONS, PixelAugmentation
from leadline.parts.augmentations.numbers import draw_integers, to_uniform
from leadline.parts.augmentations.operations import apply_chosen, brightness, colour, contrast, hue
from leadline.parts.base import Spec

if TYPE_CHECKING:
    from torch import Tensor

_ORDERS = tuple(itertools.permutations(range(4)))


@AUGMENTATIONS.register
class ColorJitter(Spec, PixelAugmentation):
    """Colour jitter: brightness, contrast, saturation and hue change in a random order (Howard 2013).

    The first three are multiplied by a factor from max(0, 1 - b) to 1 + b, and the hue is turned by -b to b of the
    circle, all uniform. The defaults are those of MoCo v2 (Chen et al. 2020). In grey images, saturation and hue stay.
    """

    name: Literal["color-jitter"] = "color-jitter"
    brightness: float = Field(default=0.4, ge=0, description="largest change of the factor of brightness from 1")
    contrast: float = Field(default=0.4, ge=0, description="largest change of the factor of contrast from 1")
    saturation: float = Field(default=0.4, ge=0, description="largest change of the factor of saturation from 1")
    hue: float = Field(default=0.1, ge=0, le=0.5, description="largest turn of the hue, as a fraction of the circle")

    def apply(self, images: "Tensor", numbers: "Tensor") -> "Tensor":
        """Return images with changed colours."""
        import torch

        orders = torch.tensor(_ORDERS, device=images.device)[numbers[:, 0] % math.factorial(4)]
        uniform = to_uniform(draw_integers(numbers[:, 1], 4))
        factors = []
        for place, most in enumerate((self.brightness, self.contrast, self.saturation)):
            least = max(0.0, 1 - most)
            factors.append(least + (1 + most - least) * uniform[:, place])
        steps = (255 * self.hue * (2 * uniform[:, 3] - 1)).round().long()
        functions = [
            lambda some, rows: brightness(some, factors[0][rows]),
            lambda some, rows: contrast(some, factors[1][rows]),
            lambda some, rows: colour(some, factors[2][rows]),
            lambda some, rows: hue(some, steps[rows]),
        ]
        changes = [self.brightness, self.contrast, self.saturation, self.hue]
        wanted = [function if most else None for function, most in zip(functions, changes, strict=True)]
        for place in range(len(functions)):
            images = apply_chosen(images, orders[:, place], wanted)
        return images
