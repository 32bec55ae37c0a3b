"""Augmentations: the base classes, the registry, and custom augmentations; each built-in one has its own file.

The random numbers of a sample depend only on (seed, epoch, sample). All arms of a seed therefore see the same images,
whatever their batch size, and a resumed trial does not need to replay any draws.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

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


class BatchAugmentation(Augmentation, ABC):
    """An augmentation of whole batches, after normalisation, for any data set."""

    @abstractmethod
    def apply(self, images: "Tensor", numbers: "Tensor") -> "Tensor":
        """Return a batch of augmented images.

        Args:
            images: [b, channels, height, width], normalised.
            numbers: [b, columns], the rows of `draw` for these images.
        """


class DecodingAugmentation(Augmentation, ABC):
    """An augmentation of single images of any size while they are decoded, for data sets of encoded images."""

    @abstractmethod
    def crop(self, image: "Image", size: int, number: int) -> "Image":
        """Return an image of size x size pixels.

        Args:
            image: the decoded image, of any size.
            size: height and width of the result.
            number: random number that determines the result; the first column of `draw`.
        """


@AUGMENTATIONS.register
class CustomAugmentation(Reference, BatchAugmentation):
    """A function of a batch and of random numbers: `f(images, random, **arguments) -> images`.

    `images` are [b, channels, height, width], normalised; `random` is [b, 16], from 0 to 1, and row i depends only on
    (seed, epoch, sample), so that results are paired whatever the batch size. Global generators are also seeded, by
    (seed, epoch, first sample of the batch), so that their numbers depend on the batches.
    """

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
