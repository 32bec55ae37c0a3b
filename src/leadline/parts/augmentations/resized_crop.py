"""Random resized crop and horizontal flip."""

import math
import random
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from leadline.parts.augmentations import AUGMENTATIONS, DecodingAugmentation
from leadline.parts.base import Spec

if TYPE_CHECKING:
    from PIL.Image import Image

Fraction = Annotated[float, Field(gt=0, le=1)]
Above0 = Annotated[float, Field(gt=0)]

TRIES = 10
"""Number of random crops that are tried before the centre is used."""


@AUGMENTATIONS.register
class ResizedCrop(Spec, DecodingAugmentation):
    """Random resized crop and horizontal flip: Szegedy et al. 2015, section 6."""

    name: Literal["resized-crop"] = Field(default="resized-crop", exclude=True)
    scale: Annotated[tuple[Fraction, Fraction], Field(strict=False)] = Field(
        default=(0.08, 1.0), description="smallest and largest fraction of the image's area"
    )
    ratio: Annotated[tuple[Above0, Above0], Field(strict=False)] = Field(
        default=(3 / 4, 4 / 3), description="smallest and largest ratio of width to height"
    )
    flip: bool = Field(default=True, description="flip half of the images left to right")

    unnamed: ClassVar = True

    @model_validator(mode="after")
    def _check_order(self) -> "ResizedCrop":
        for name, (low, high) in (("scale", self.scale), ("ratio", self.ratio)):
            if low > high:
                raise ValueError(f"{name} [{low}, {high}]: the smallest comes first")
        return self

    def crop(self, image: "Image", size: int, number: int) -> "Image":
        """Return a random crop of an image, resized and possibly flipped horizontally.

        The area, the logarithm of the aspect ratio and the position are uniform. A crop that does not fit is drawn
        again, at most ten times; then the centre is cropped to the nearest allowed aspect ratio. As in Szegedy et al.
        2015, section 6, and in torchvision.
        """
        from PIL import Image

        # only `random()` is the same in every version of Python
        uniform = random.Random(number).random
        flip = uniform() < 0.5 and self.flip
        left, top, width, height = self._part(image.size, uniform)
        part = image.crop((left, top, left + width, top + height)).resize((size, size), Image.Resampling.BILINEAR)
        return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else part

    def _part(self, size: tuple[int, int], uniform: Callable[[], float]) -> tuple[int, int, int, int]:
        """Return left, top, width and height of a random crop of an image of width x height."""
        whole_width, whole_height = size
        (smallest, largest), (narrowest, widest) = self.scale, self.ratio
        for _ in range(TRIES):
            area = whole_width * whole_height * (smallest + (largest - smallest) * uniform())
            ratio = math.exp(math.log(narrowest) + (math.log(widest) - math.log(narrowest)) * uniform())
            width, height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < width <= whole_width and 0 < height <= whole_height:
                left = int(uniform() * (whole_width - width + 1))
                return left, int(uniform() * (whole_height - height + 1)), width, height
        width, height = whole_width, whole_height
        if width < narrowest * height:
            height = max(1, round(width / narrowest))
        elif width > widest * height:
            width = max(1, round(height * widest))
        return (whole_width - width) // 2, (whole_height - height) // 2, width, height
