"""Augmentations: the kind, its registry, and custom augmentations; one file for each that is built in.

What an augmentation draws for a sample is a function of (seed, epoch, sample) alone. So both arms of a seed see the
same images whatever their batch size, and a trial that is resumed needs no replay.
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
"""Random numbers that a custom augmentation is given for each sample."""


def _infer_name(keys: Mapping[str, Any]) -> str:
    return "resized-crop" if {"scale", "ratio"} & keys.keys() else "translation"


AUGMENTATIONS: "Registry[Augmentation]" = Registry("augmentation", __name__, _infer_name)
"""Every augmentation by name; where no name is given, the keys tell which it is."""


class Augmentation:
    """What is done at random to each training image in each epoch."""

    def draw(self, samples: int, seed: int) -> "Tensor":
        """Return the random numbers of one epoch, [samples, columns]: row i is what sample i is augmented by.

        All columns are drawn whatever is used, so that no option shifts the numbers of another.

        Args:
            samples: training images.
            seed: of the stream, keyed by the trial's seed and the epoch.
        """
        import torch

        return torch.randint(2**62, (samples, 3), generator=torch.Generator().manual_seed(seed))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Take any member where a field asks for the kind."""
        return AUGMENTATIONS.schema(handler)


class BatchAugmentation(Augmentation, ABC):
    """An augmentation of whole batches, after normalisation, for any data set."""

    @abstractmethod
    def apply(self, images: "Tensor", numbers: "Tensor") -> "Tensor":
        """Return a batch of augmented images.

        Args:
            images: [b, channels, height, width], normalised.
            numbers: [b, columns], the rows of `draw` that belong to the images.
        """


class DecodingAugmentation(Augmentation, ABC):
    """An augmentation of single images of any size while they are decoded, for data sets of encoded images."""

    @abstractmethod
    def crop(self, image: "Image", size: int, number: int) -> "Image":
        """Return an image of size x size pixels.

        Args:
            image: decoded, of any size.
            size: height and width of what is returned.
            number: decides everything; the first column of `draw`.
        """


@AUGMENTATIONS.register
class CustomAugmentation(Reference, BatchAugmentation):
    """A function of a batch and of random numbers: `f(images, random, **arguments) -> images`.

    `images` are [b, channels, height, width], normalised; `random` is [b, 16], from 0 to 1, and its row i depends on
    (seed, epoch, sample) alone, so that what is drawn from it is paired whatever the batch size. Global generators are
    seeded as well, by (seed, epoch, first sample of the batch): what is drawn from them depends on the batch.
    """

    def draw(self, samples: int, seed: int) -> "Tensor":
        """Return uniform random numbers, [samples, 16]."""
        import torch

        return torch.rand(samples, COLUMNS, generator=torch.Generator().manual_seed(seed))

    def apply(self, images: "Tensor", numbers: "Tensor") -> "Tensor":
        """Return what the function makes of a batch.

        Raises:
            SpecError: it cannot be imported, calling it fails, or it returns anything but images of the same shape.
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
