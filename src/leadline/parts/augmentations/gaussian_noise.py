"""Gaussian noise."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from leadline.parts.augmentations import AUGMENTATIONS, BatchAugmentation
from leadline.parts.augmentations.numbers import draw_normal
from leadline.parts.base import Spec

if TYPE_CHECKING:
    from torch import Tensor


@AUGMENTATIONS.register
class GaussianNoise(Spec, BatchAugmentation):
    """Gaussian noise: a normal random number is added to each pixel and channel (Bishop 1995)."""

    name: Literal["gaussian-noise"] = "gaussian-noise"
    deviation: float = Field(default=0.1, gt=0, description="standard deviation, in units of normalised images")

    def apply(self, images: "Tensor", numbers: "Tensor") -> "Tensor":
        """Return images with noise."""
        return images + self.deviation * draw_normal(numbers[:, 0], images[0].numel()).view(images.shape)
