"""Random translation and horizontal flip."""

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from leadline.parts.augmentations import AUGMENTATIONS, BatchAugmentation
from leadline.parts.base import Spec

if TYPE_CHECKING:
    from torch import Tensor


@AUGMENTATIONS.register
class Augment(Spec, BatchAugmentation):
    """Random translation (zero padding and a random crop of the original size) and horizontal flip."""

    name: Literal["translation"] = Field(default="translation", exclude=True)
    pad: int = Field(default=4, ge=0, description="pixels of zero padding on each side before the random crop")
    flip: bool = Field(default=True, description="flip half of the images left to right")

    unnamed: ClassVar = True

    def apply(self, images: "Tensor", numbers: "Tensor") -> "Tensor":
        """Shift each image within a border of zeros and flip some horizontally, in one gather operation.

        Zero is the mean pixel after normalisation, as in He et al. 2015, section 4.2, where the mean is subtracted
        before padding.

        Args:
            images: [b, channels, height, width], normalised.
            numbers: [b, 3], large random integers: vertical shift, horizontal shift, and flip if odd.
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
