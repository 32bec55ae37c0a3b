"""Random translation and horizontal flip."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from leadline.parts.augmentations import AUGMENTATIONS, BatchAugmentation
from leadline.parts.base import Spec

if TYPE_CHECKING:
    from torch import Tensor


@AUGMENTATIONS.register
class Augment(Spec, BatchAugmentation):
    """Random translation (zero padding, then a random crop of the old size) and horizontal flip."""

    name: Literal["translation"] = Field(default="translation", exclude=True)
    pad: int = Field(default=4, ge=0, description="pixels of zero padding on each side before the random crop")
    flip: bool = Field(default=True, description="flip half of the images left to right")

    def apply(self, images: "Tensor", numbers: "Tensor") -> "Tensor":
        """Shift each image within a border of zeros and flip some left to right, all of them in one gather.

        Zero is the value of an average pixel after normalisation: in the recipe of He et al. 2016, section 4.2, the
        mean has been subtracted from what is padded.

        Args:
            images: [b, channels, height, width], normalised.
            numbers: [b, 3], far larger than any shift: down, right, and odd for a flip of the crop.
        """
        import torch
        import torch.nn.functional as F

        batch, channels, height, width = images.shape
        border = self.pad
        padded = F.pad(images, (border,) * 4)
        shifts = numbers[:, :2] % (2 * border + 1)
        flip = (numbers[:, 2] % 2 == 1) & self.flip
        rows = torch.arange(height, device=images.device) + shifts[:, :1]
        columns = torch.arange(width, device=images.device).expand(batch, -1)
        columns = torch.where(flip[:, None], width - 1 - columns, columns) + shifts[:, 1:]
        places = rows[:, :, None] * padded.shape[3] + columns[:, None, :]
        places = places.view(batch, 1, height * width).expand(-1, channels, -1)
        return padded.flatten(2).gather(2, places).view(images.shape)
