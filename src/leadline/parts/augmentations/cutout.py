"""Cutout."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from leadline.parts.augmentations import AUGMENTATIONS, BatchAugmentation
from leadline.parts.augmentations.rectangles import mark
from leadline.parts.base import Spec

if TYPE_CHECKING:
    from torch import Tensor


@AUGMENTATIONS.register
class Cutout(Spec, BatchAugmentation):
    """Cutout: a square of zeros, the mean after normalisation, around a random pixel (DeVries & Taylor 2017).

    What is beyond the border is left out, as in section 3.2, so that the square is smaller near it.
    """

    name: Literal["cutout"] = "cutout"
    size: int = Field(
        default=16, ge=1, description="pixels of a side; in the paper 16 for CIFAR-10, 8 for CIFAR-100, 20 for SVHN"
    )

    def find_problem(self, height: int, width: int) -> str:
        """Return that the square is larger than the images, if it is."""
        smaller = min(height, width)
        if self.size <= smaller:
            return ""
        return f"a square of side {self.size} hides most of them or all; use a smaller size, such as {-(-smaller // 4)}"

    def apply(self, images: "Tensor", numbers: "Tensor") -> "Tensor":
        """Return images with a square of zeros each."""
        height, width = images.shape[2:]
        top, left = numbers[:, 0] % height - self.size // 2, numbers[:, 1] % width - self.size // 2
        return images.masked_fill(mark(images, top, top + self.size, left, left + self.size), 0)
