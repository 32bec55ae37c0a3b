"""Base class of data sets of encoded images, with their input size and random crops."""

import math
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from leadline.data.datasets import DataSpec
from leadline.data.formats.images import WHITE
from leadline.data.metadata import Metadata
from leadline.parts.augmentations.resized_crop import ResizedCrop

Byte = Annotated[int, Field(ge=0, le=255)]


class ImageDataSpec(DataSpec):
    """A data set of encoded images of any size, which are resized to one size."""

    in_memory: ClassVar = False

    path: str = Field(min_length=1, description="path of the folder or file; relative paths are below the data folder")
    size: int = Field(default=224, ge=1, description="height and width of the network's input")
    resize: int | None = Field(
        default=None,
        ge=1,
        description="shorter side before the centre crop of evaluation; None: size * 256 / 224",
    )
    channels: Literal["colour", "grey"] = Field(
        default="colour", description="three channels, or one: the luma of ITU-R 601"
    )
    background: tuple[Byte, Byte, Byte] = Field(
        default=WHITE, description="red, green and blue, from 0 to 255, behind the transparent pixels of images"
    )

    @model_validator(mode="before")
    @classmethod
    def _add_default_crop(cls, value: object) -> object:
        if not isinstance(value, Mapping):
            return value
        augment = value.get("augment", {})
        if not isinstance(augment, Mapping) or augment.keys() & {"pad", "name", "module"}:
            return value
        return {**value, "augment": {"scale": ResizedCrop().scale, **augment}}

    @model_validator(mode="after")
    def _check_image_settings(self) -> Self:
        if self.resize is not None and self.resize < self.size:
            raise ValueError(
                f"resize {self.resize} is smaller than size {self.size}, which is cropped from it; raise resize"
            )
        if self.channels == "grey" and self.normalise == "imagenet":
            raise ValueError("normalise imagenet is for three channels, got channels grey; use channel")
        return self

    def _omitted_keys(self) -> set[str]:
        later = {"channels": "colour", "background": WHITE}
        return super()._omitted_keys() | {key for key, default in later.items() if getattr(self, key) == default}

    @property
    def display_name(self) -> str:
        """The path."""
        return self.path

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        return (1 if self.channels == "grey" else 3, self.size, self.size)

    @property
    def shorter_side(self) -> int:
        """The shorter side of an image before the centre crop."""
        return self.resize or math.floor(self.size * 256 / 224 + 0.5)

    def metadata(self, data_dir: Path) -> Metadata:
        """Return the shape and the classes.

        Raises:
            DataError: as `read`.
        """
        names = self._class_names(data_dir)
        return Metadata(self.shape, len(names), names)

    @abstractmethod
    def _class_names(self, data_dir: Path) -> tuple[str, ...]:
        """Return the names of the classes."""
