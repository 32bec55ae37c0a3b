"""Random erasing."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from leadline.parts.augmentations import AUGMENTATIONS, BatchAugmentation
from leadline.parts.augmentations.numbers import draw_integers, draw_normal, to_uniform
from leadline.parts.augmentations.rectangles import mark
from leadline.parts.base import Spec

if TYPE_CHECKING:
    from torch import Tensor

TRIES = 64
"""Rectangles that are drawn for an image; with the defaults, none of them fits with a probability of about 10^-9, and
then nothing is erased."""


@AUGMENTATIONS.register
class RandomErasing(Spec, BatchAugmentation):
    """Random erasing: in some images, a random rectangle is replaced by noise (Zhong et al. 2017, algorithm 1).

    Area, ratio of height to width and upper left corner are uniform; a rectangle that does not fit is drawn again. In
    the paper the noise is uniform from 0 to 255; here, where images are normalised, it is normal, of mean 0 and
    deviation 1.
    """

    name: Literal["random-erasing"] = "random-erasing"
    probability: float = Field(default=0.5, ge=0, le=1, description="share of images in which something is erased")
    area: Annotated[
        tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]], Field(strict=False)
    ] = Field(default=(0.02, 0.4), description="smallest and largest fraction of the image's area")
    ratio: float = Field(
        default=0.3, gt=0, le=1, description="smallest ratio of height to width; the largest is its inverse"
    )
    value: Literal["noise", "mean"] = Field(
        default="noise", description="noise: a random number for each pixel and channel; mean: 0, the mean"
    )

    @model_validator(mode="after")
    def _check_order(self) -> "RandomErasing":
        if self.area[0] > self.area[1]:
            raise ValueError(f"area [{self.area[0]}, {self.area[1]}]: the smallest comes first")
        return self

    def apply(self, images: "Tensor", numbers: "Tensor") -> "Tensor":
        """Return images with an erased rectangle in some."""
        import torch

        height, width = images.shape[2:]
        uniform = to_uniform(draw_integers(numbers[:, 0], 4 * TRIES)).view(-1, 4, TRIES)
        area = (self.area[0] + (self.area[1] - self.area[0]) * uniform[:, 0]) * (height * width)
        ratio = self.ratio + (1 / self.ratio - self.ratio) * uniform[:, 1]
        heights, widths = (area * ratio).sqrt().round().long(), (area / ratio).sqrt().round().long()
        tops, lefts = (uniform[:, 2] * height).long(), (uniform[:, 3] * width).long()
        fits = (tops + heights <= height) & (lefts + widths <= width)
        first = fits.byte().argmax(1, keepdim=True)
        top, left, tall, wide = (each.gather(1, first)[:, 0] for each in (tops, lefts, heights, widths))
        erased = mark(images, top, top + tall, left, left + wide)
        erased &= (fits.any(1) & (to_uniform(numbers[:, 1]) < self.probability)).view(-1, 1, 1, 1)
        if self.value == "mean":
            return images.masked_fill(erased, 0)
        return torch.where(erased, draw_normal(numbers[:, 2], images[0].numel()).view(images.shape), images)
