"""The augmentations of a data set in one epoch: what each sample becomes, in batches of any size."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from leadline.data.pixels import Pixels, normalise
from leadline.parts.augmentations import (
    Augmentation,
    BatchAugmentation,
    DecodingAugmentation,
    MixingAugmentation,
    PixelAugmentation,
    name_streams,
)
from leadline.parts.reference import Reference, drawing_of
from leadline.seeds import AUGMENT, stream


class Seen(NamedTuple):
    """Training images as they are seen in an epoch."""

    images: Float[Tensor, "b c h w"]  # normalised
    labels: Shaped[Tensor, "b *targets"]
    samples: Int64[Tensor, "b"]  # positions among all training images


class EpochAugmentation:
    """Augmentations with their random numbers for each training image in one epoch.

    Args:
        augmentations: in the order in which they are applied.
        seed: the trial's seed.
        epoch: number of the epoch.
        samples: number of training images.
        device: of the batches; numbers are drawn on the CPU.

    Attributes:
        crop_numbers: the number that determines each sample's crop as it is decoded, on the CPU; None: it has none.
        partners: the position of each sample's partner among the training images, on the CPU; None: none are mixed.
        has_custom: whether some are custom code, which may do to an image what depends on the others of its batch.
    """

    def __init__(
        self, augmentations: Sequence[Augmentation], seed: int, epoch: int, samples: int, device: torch.device
    ) -> None:
        self._seed = seed
        self.crop_numbers: Int64[Tensor, " n"] | None = None
        self.partners: Int64[Tensor, " n"] | None = None
        self.has_custom = any(isinstance(each, Reference) for each in augmentations)
        self._mixing: tuple[MixingAugmentation, Tensor] | None = None
        self._on_pixels: list[tuple[PixelAugmentation, Tensor]] = []
        self._on_normalised: list[tuple[BatchAugmentation, Tensor, tuple[int | str, ...]]] = []
        for each, names in zip(augmentations, name_streams(augmentations), strict=True):
            keys: tuple[int | str, ...] = (epoch, *names)
            numbers = each.draw(samples, stream(seed, AUGMENT, *keys))
            if isinstance(each, DecodingAugmentation):
                self.crop_numbers = numbers[:, 0]
            elif isinstance(each, PixelAugmentation):
                self._on_pixels.append((each, numbers.to(device)))
            elif isinstance(each, BatchAugmentation):
                self._on_normalised.append((each, numbers.to(device), keys))
            elif isinstance(each, MixingAugmentation):
                self.partners, self._mixing = each.choose_partners(numbers), (each, numbers.to(device))

    def with_partners(self, parts: Sequence[Int64[Tensor, "_"]]) -> list[Sequence[Int64[Tensor, "_"]]]:
        """Return parts of the positions of training images and, if images are mixed, those of their partners."""
        return [parts] if self.partners is None else [parts, [self.partners[part] for part in parts]]

    def view(
        self,
        images: Pixels,
        positions: Int64[Tensor, "b"],
        samples: Int64[Tensor, "b"],
        mean: Float[Tensor, "1 c mh mw"],
        scale: Float[Tensor, "1 c 1 1"],
    ) -> Float[Tensor, "b c h w"]:
        """Return images as they are seen in this epoch, normalised, before any are mixed.

        Args:
            images: as the data set has them, or as they were decoded.
            positions: of the images among all training images, on the CPU.
            samples: the same on the device of the images.
            mean: to subtract.
            scale: to divide by.

        Raises:
            SpecError: a custom augmentation fails.
        """
        if not len(positions):
            return normalise(images, mean, scale)
        for on_pixels, numbers in self._on_pixels:
            images = on_pixels.apply(images, numbers.index_select(0, samples))
        floats = normalise(images, mean, scale)
        for on_normalised, numbers, keys in self._on_normalised:
            with drawing_of(on_normalised, self._seed, AUGMENT, *keys, int(positions[0])):
                floats = on_normalised.apply(floats, numbers.index_select(0, samples))
        return floats

    def combine(
        self, seen: Sequence[Seen], classes: int
    ) -> tuple[Float[Tensor, "b c h w"], Shaped[Tensor, "b *targets"]]:
        """Return images and targets for training.

        Args:
            seen: the images and, if images are mixed, their partners: the parts of `with_partners`.
            classes: number of classes.
        """
        own, *others = seen
        if self._mixing is None:
            return own.images, own.labels
        (partners,), (mixing, numbers) = others, self._mixing
        mixed, share = mixing.mix(own.images, partners.images, numbers.index_select(0, own.samples))
        return mixed, _shares(own.labels, share, classes) + _shares(partners.labels, 1 - share, classes)


def _shares(labels: Int64[Tensor, "b"], shares: Float[Tensor, "b"], classes: int) -> Float[Tensor, "b classes"]:
    """Return each label's share under its class and 0 under the others."""
    is_class = labels[:, None] == torch.arange(classes, device=labels.device)
    return torch.where(is_class, shares[:, None], 0.0)
