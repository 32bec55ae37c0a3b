"""Mixup."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from leadline.parts.augmentations import AUGMENTATIONS, MixingAugmentation
from leadline.parts.augmentations.numbers import draw_beta
from leadline.parts.base import Spec

if TYPE_CHECKING:
    from torch import Tensor


@AUGMENTATIONS.register
class Mixup(Spec, MixingAugmentation):
    """Mixup: images and labels are weighted means of two samples (Zhang et al. 2017).

    The weight of the sample itself has the distribution Beta(alpha, alpha). The partner is drawn from all training
    images, and is augmented by what stands before.
    """

    name: Literal["mixup"] = "mixup"
    alpha: float = Field(
        default=1.0,
        gt=0,
        description="parameter of the distribution of weights; in the paper 1 for CIFAR, 0.2 for ImageNet",
    )

    def draw_shares(self, numbers: "Tensor") -> "Tensor":
        """Return shares of the distribution Beta(alpha, alpha)."""
        return draw_beta(self.alpha, numbers[:, 1])

    def mix(self, images: "Tensor", partners: "Tensor", numbers: "Tensor") -> "tuple[Tensor, Tensor]":
        """Return the weighted means, and the weights of the images."""
        share = numbers[:, 1].float() / 2**24
        weight = share.view(-1, 1, 1, 1)
        return weight * images + (1 - weight) * partners, share
