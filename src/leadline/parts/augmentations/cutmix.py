"""CutMix."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from leadline.parts.augmentations import AUGMENTATIONS, MixingAugmentation
from leadline.parts.augmentations.numbers import draw_beta, to_uniform
from leadline.parts.augmentations.rectangles import mark
from leadline.parts.base import Spec

if TYPE_CHECKING:
    from torch import Tensor


@AUGMENTATIONS.register
class CutMix(Spec, MixingAugmentation):
    """CutMix: a rectangle of the image is replaced by that of another one (Yun et al. 2019).

    The rectangle has the shape of the image around a random pixel, with a fraction of its area that has the
    distribution Beta(alpha, alpha), and without what is beyond the border; probabilities of the classes are the shares
    in pixels. The partner is drawn from all training images, and is augmented by what stands before.
    """

    name: Literal["cutmix"] = "cutmix"
    alpha: float = Field(default=1.0, gt=0, description="parameter of the distribution of areas")
    probability: float = Field(default=1.0, gt=0, le=1, description="share of images that are mixed")

    def draw_shares(self, numbers: "Tensor") -> "Tensor":
        """Return shares of the distribution Beta(alpha, alpha)."""
        return draw_beta(self.alpha, numbers[:, 1])

    def mix(self, images: "Tensor", partners: "Tensor", numbers: "Tensor") -> "tuple[Tensor, Tensor]":
        """Return images with a rectangle of their partners, and the share that is left of them."""
        import torch

        height, width = images.shape[2:]
        side = (1 - numbers[:, 1].float() / 2**24).sqrt()
        tall, wide = (side * height).long(), (side * width).long()
        top, left = numbers[:, 2] % height - tall // 2, numbers[:, 3] % width - wide // 2
        inside = mark(images, top, top + tall, left, left + wide)
        inside &= (to_uniform(numbers[:, 4]) < self.probability).view(-1, 1, 1, 1)
        share = 1 - inside.sum((1, 2, 3)).float() / (height * width)
        return torch.where(inside, partners, images), share
