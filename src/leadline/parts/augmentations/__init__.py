"""Augmentations: the base classes, the registry, and custom augmentations; each built-in one has its own file.

The random numbers of a sample depend only on (seed, epoch, sample). All arms of a seed therefore see the same images,
whatever their batch size, and a resumed trial does not need to replay any draws. Of several augmentations, each has a
stream of its own, so that none changes what the others draw.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema

from leadline.errors import SpecError
from leadline.parts.reference import Reference
from leadline.parts.registry import Registry

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor

COLUMNS = 16
"""Number of random numbers per sample for a custom augmentation."""


def _infer_name(keys: Mapping[str, Any]) -> str:
    return "resized-crop" if {"scale", "ratio"} & keys.keys() else "translation"


AUGMENTATIONS: "Registry[Augmentation]" = Registry("augmentation", __name__, _infer_name)
"""Every augmentation by name; without a name, it is inferred from the keys."""


class Augmentation:
    """Base class of augmentations: random changes of each training image in each epoch."""

    changes: ClassVar[str]
    """What it changes, in words; `STAGES` has the order in which these follow each other."""
    unnamed: ClassVar[bool] = False
    """Whether it draws from the epoch's stream without a name, as when a data set had one augmentation at most."""

    @property
    def called(self) -> str:
        """What messages and streams call it: its name, or the reference to custom code."""
        return str(self.module if isinstance(self, Reference) else getattr(self, "name", ""))

    def draw(self, samples: int, seed: int) -> "Tensor":
        """Return the random numbers of one epoch, [samples, columns], with a row per sample.

        All columns are always drawn, so that no option changes the numbers of another.

        Args:
            samples: number of training images.
            seed: seed of the stream, which depends on the trial's seed and the epoch.
        """
        import torch

        return torch.randint(2**62, (samples, 3), generator=torch.Generator().manual_seed(seed))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Accept any augmentation in a field of this type."""
        return AUGMENTATIONS.schema(handler)


class DecodingAugmentation(Augmentation, ABC):
    """An augmentation of single images of any size while they are decoded, for data sets of encoded images."""

    changes = "images while they are decoded"

    @abstractmethod
    def crop(self, image: "Image", size: int, number: int) -> "Image":
        """Return an image of size x size pixels.

        Args:
            image: the decoded image, of any size.
            size: height and width of the result.
            number: random number that determines the result; the first column of `draw`.
        """


class PixelAugmentation(Augmentation, ABC):
    """An augmentation of whole batches of pixels from 0 to 255, before normalisation."""

    changes = "pixels before normalisation"

    @abstractmethod
    def apply(self, images: "Tensor", numbers: "Tensor") -> "Tensor":
        """Return a batch of augmented images.

        Args:
            images: uint8 [b, channels, height, width].
            numbers: [b, columns], the rows of `draw` for these images.
        """


class BatchAugmentation(Augmentation, ABC):
    """An augmentation of whole batches, after normalisation, for any data set."""

    changes = "normalised images"

    def find_problem(self, height: int, width: int) -> str:
        """Return why images of this size cannot be told apart afterwards; empty: they can."""
        return ""

    @abstractmethod
    def apply(self, images: "Tensor", numbers: "Tensor") -> "Tensor":
        """Return a batch of augmented images.

        Args:
            images: [b, channels, height, width], normalised.
            numbers: [b, columns], the rows of `draw` for these images.
        """


class MixingAugmentation(Augmentation, ABC):
    """An augmentation that mixes each image, and its label, with those of a partner: another training image.

    The partner is drawn from all training images, by (seed, epoch, sample), not from the batch. It has been augmented
    by what stands before, with its own numbers, as it is seen itself in that epoch. A label becomes probabilities of
    the classes.
    """

    changes = "images and labels, mixed in pairs"

    @abstractmethod
    def draw_shares(self, numbers: "Tensor") -> "Tensor":
        """Return the shares of the images in their mixtures, float32 [n] from 0 to 1.

        Args:
            numbers: [n, 5] random integers from 0 to 2^62, of which the second is for the share.
        """

    @abstractmethod
    def mix(self, images: "Tensor", partners: "Tensor", numbers: "Tensor") -> "tuple[Tensor, Tensor]":
        """Return the mixed images and the probability of each image's own class, float32 [b].

        Args:
            images: [b, channels, height, width], normalised.
            partners: the images to mix them with, of the same shape.
            numbers: [b, 5], the rows of `draw` for these images.
        """

    def draw(self, samples: int, seed: int) -> "Tensor":
        """Return the random integers of one epoch, [samples, 5].

        The first tells the partner, and the second the share of the image in the mixture, in units of 2^-24.
        """
        import torch

        numbers = torch.randint(2**62, (samples, 5), generator=torch.Generator().manual_seed(seed))
        numbers[:, 1] = (self.draw_shares(numbers) * 2**24).round().long()
        return numbers

    def choose_partners(self, numbers: "Tensor") -> "Tensor":
        """Return the position of each training image's partner among all of them, [samples]."""
        return numbers[:, 0] % len(numbers)


STAGES: tuple[str, ...] = tuple(
    kind.changes for kind in (DecodingAugmentation, PixelAugmentation, BatchAugmentation, MixingAugmentation)
)
"""What augmentations change, in the order in which those of a list follow each other."""


def name_streams(augmentations: Sequence[Augmentation]) -> list[tuple[str, ...]]:
    """Return the further keys of each augmentation's stream, beside the epoch: its name, so that each has its own.

    The first of those that draw from the epoch's stream without a name does so still, wherever it stands.
    """
    first = next((each for each in augmentations if each.unnamed), None)
    return [() if each is first else (each.called,) for each in augmentations]


@AUGMENTATIONS.register
class CustomAugmentation(Reference, BatchAugmentation):
    """A function of a batch and of random numbers: `f(images, random, **arguments) -> images`.

    `images` are [b, channels, height, width], normalised; `random` is [b, 16], from 0 to 1, and row i depends only on
    (seed, epoch, sample), so that results are paired whatever the batch size. Global generators are also seeded, by
    (seed, epoch, first sample of the batch), so that their numbers depend on the batches.
    """

    unnamed: ClassVar = True

    def draw(self, samples: int, seed: int) -> "Tensor":
        """Return uniform random numbers, [samples, 16]."""
        import torch

        return torch.rand(samples, COLUMNS, generator=torch.Generator().manual_seed(seed))

    def apply(self, images: "Tensor", numbers: "Tensor") -> "Tensor":
        """Return the augmented batch.

        Raises:
            SpecError: it cannot be imported, calling it fails, or it does not return images of the same shape.
        """
        import torch

        found = self.call(images, numbers)
        if not isinstance(found, torch.Tensor):
            raise SpecError(f"{self.module} returned a {type(found).__name__}; expected a tensor of images")
        if found.shape != images.shape or found.dtype != images.dtype:
            raise SpecError(
                f"{self.module} returned {found.dtype} of shape {list(found.shape)}; expected {images.dtype} of shape"
                f" {list(images.shape)}"
            )
        return found.detach()
