"""Mixup or CutMix."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from leadline.parts.augmentations import AUGMENTATIONS, MixingAugmentation
from leadline.parts.augmentations.cutmix import CutMix
from leadline.parts.augmentations.mixup import Mixup
from leadline.parts.augmentations.numbers import to_uniform
from leadline.parts.base import Spec

if TYPE_CHECKING:
    from torch import Tensor


@AUGMENTATIONS.register
class MixupOrCutMix(Spec, MixingAugmentation):
    """Mixup or CutMix: each image is mixed with another one by either, at random (Wightman et al. 2021).

    The defaults are those of the paper's procedure A1. The choice is made for each image by itself, where many
    implementations make one for a whole batch. The partner is drawn from all training images, and is augmented by what
    stands before.
    """

    name: Literal["mixup-or-cutmix"] = "mixup-or-cutmix"
    mixup_alpha: float = Field(default=0.2, gt=0, description="parameter of mixup's distribution of weights")
    cutmix_alpha: float = Field(default=1.0, gt=0, description="parameter of CutMix's distribution of areas")
    probability: float = Field(
        default=0.5, gt=0, lt=1, description="share of images mixed by CutMix, the rest by mixup"
    )

    def draw_shares(self, numbers: "Tensor") -> "Tensor":
        """Return the shares that mixup or CutMix draws, whichever mixes the image."""
        import torch

        mixup, cutmix = (one.draw_shares(numbers) for one in self._either)
        return torch.where(self._is_cut(numbers), cutmix, mixup)

    def mix(self, images: "Tensor", partners: "Tensor", numbers: "Tensor") -> "tuple[Tensor, Tensor]":
        """Return what mixup or CutMix makes of each image, and the probability of the image's own class."""
        import torch

        (blended, weight), (cut, share) = (one.mix(images, partners, numbers) for one in self._either)
        is_cut = self._is_cut(numbers)
        return torch.where(is_cut.view(-1, 1, 1, 1), cut, blended), torch.where(is_cut, share, weight)

    @property
    def _either(self) -> tuple[Mixup, CutMix]:
        return Mixup(alpha=self.mixup_alpha), CutMix(alpha=self.cutmix_alpha)

    def _is_cut(self, numbers: "Tensor") -> "Tensor":
        """Return whether CutMix mixes each image; CutMix itself, with probability 1, cuts whatever this number is."""
        return to_uniform(numbers[:, 4]) < self.probability
