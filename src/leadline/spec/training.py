"""How a network is trained: data, optimizer, schedule, budget."""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, SerializerFunctionWrapHandler, Tag, model_serializer, model_validator

from leadline.parts.base import Spec
from leadline.parts.losses import Loss
from leadline.parts.optimizers import Optimizer
from leadline.parts.optimizers.sgd import SGD
from leadline.parts.schedules import Schedule
from leadline.parts.schedules.constant import Constant

DatasetName = Literal["digits", "mnist", "fashion-mnist", "kmnist", "cifar10", "cifar100", "parity"]
Fraction = Annotated[float, Field(gt=0, le=1)]
Above0 = Annotated[float, Field(gt=0)]
ALL_INPUTS_TO = 16
"""Bits up to which parity takes all of its inputs."""
MOST_SAMPLES = 2**20
"""Of the inputs of parity, however many bits they have."""


class Augment(Spec):
    """Random translation (zero padding, then a random crop of the old size) and horizontal flip."""

    pad: int = Field(default=4, ge=0, description="pixels of zero padding on each side before the random crop")
    flip: bool = Field(default=True, description="flip half of the images left to right")


class ResizedCrop(Spec):
    """Random part of a picture, resized, and horizontal flip: Szegedy et al. 2015, section 6."""

    scale: Annotated[tuple[Fraction, Fraction], Field(strict=False)] = Field(
        default=(0.08, 1.0), description="smallest and largest fraction of the picture's area"
    )
    ratio: Annotated[tuple[Above0, Above0], Field(strict=False)] = Field(
        default=(3 / 4, 4 / 3), description="smallest and largest ratio of width to height"
    )
    flip: bool = Field(default=True, description="flip half of the images left to right")

    @model_validator(mode="after")
    def _in_order(self) -> "ResizedCrop":
        for name, (low, high) in (("scale", self.scale), ("ratio", self.ratio)):
            if low > high:
                raise ValueError(f"{name} [{low}, {high}]: the smallest comes first")
        return self


def _kind_of_augmentation(value: object) -> str:
    cropped = {"scale", "ratio"} & value.keys() if isinstance(value, Mapping) else isinstance(value, ResizedCrop)
    return "resized-crop" if cropped else "translation"


Augmentation = Annotated[
    Annotated[Augment, Tag("translation")] | Annotated[ResizedCrop, Tag("resized-crop")],
    Discriminator(_kind_of_augmentation),
]


class DataSpec(Spec):
    """A data set, its split and its preprocessing."""

    name: Literal[DatasetName, "imagefolder"] = "digits"
    path: str | None = Field(
        default=None,
        min_length=1,
        description="imagefolder: the folder that holds train/<class>/<image> and val or test, or <class>/<image>;"
        " a relative one is looked for in the folder of the data sets",
    )
    size: int = Field(default=224, ge=1, description="imagefolder: height and width that the network sees")
    resize: int | None = Field(
        default=None,
        ge=1,
        description="imagefolder: shorter side before the centre crop of evaluation; None: size * 256 / 224",
    )
    corrupt: Literal["fail", "skip"] = Field(
        default="fail", description="imagefolder: what pictures that cannot be decoded lead to"
    )
    bits: int = Field(default=10, ge=2, le=64, description="parity: n, the bits of an input")
    samples: int | None = Field(
        default=None,
        ge=1,
        le=MOST_SAMPLES,
        description=f"parity: distinct inputs drawn at random by subset_seed, held-out ones included; None: all 2^n, up"
        f" to {ALL_INPUTS_TO} bits",
    )
    train: int | None = Field(default=None, ge=1, description="training images; None: all that validation leaves")
    validation: int | None = Field(
        default=None,
        ge=1,
        description="images cut from the training part; None: a tenth of it, at most 5,000",
    )
    test: int | None = Field(
        default=None, ge=1, description="test images; None: all, of parity a quarter of the inputs, which are held out"
    )
    subset_seed: int = Field(default=0, ge=0, description="chooses the images of a subset, evenly over the classes")
    normalise: Literal["channel", "pixel-mean", "none", "imagenet"] = Field(
        default="channel",
        description="channel: mean 0 and deviation 1 per channel; pixel-mean: subtract the mean image, scale to [0, 1];"
        " none: scale to [0, 1]. Constants come from the training images alone, of an imagefolder from 1,000 of them;"
        " imagenet, for an imagefolder: those that are published for ImageNet's channels",
    )
    augment: Augmentation | None = Field(
        default=None,
        description="with pad: translation; with scale or ratio, imagefolder only: resized crop, which an imagefolder"
        " has unless this is null or has pad",
    )

    @model_validator(mode="before")
    @classmethod
    def _pictures_are_cropped_at_random(cls, value: object) -> object:
        if not isinstance(value, Mapping) or value.get("name") != "imagefolder":
            return value
        augment = value.get("augment", {})
        if not isinstance(augment, Mapping) or "pad" in augment:
            return value
        return {**value, "augment": {"scale": ResizedCrop().scale, **augment}}

    @model_validator(mode="after")
    def _parity_alone_has_bits(self) -> "DataSpec":
        if self.name != "parity":
            for field in _OF_PARITY:
                if field in self.model_fields_set:
                    raise ValueError(f"{field} is for name parity, got {self.name}; leave it out")
            return self
        everything = 2**self.bits
        if self.samples is None and self.bits > ALL_INPUTS_TO:
            raise ValueError(
                f"bits {self.bits} has 2^{self.bits} = {everything:,} inputs, too many to take all, which goes to"
                f" {ALL_INPUTS_TO} bits; give samples, up to {min(everything, MOST_SAMPLES):,} of them"
            )
        if self.samples is not None and self.samples > everything:
            raise ValueError(
                f"samples {self.samples:,} are more than the 2^{self.bits} = {everything:,} inputs that there are;"
                " leave it out to take all of them"
            )
        if self.augment is not None:
            raise ValueError("augment of name parity would change bits and not the label; leave it out")
        return self

    @model_validator(mode="after")
    def _pictures_alone_have_a_path_and_a_size(self) -> "DataSpec":
        if self.name == "imagefolder":
            if self.path is None:
                raise ValueError("imagefolder needs path, the folder of its pictures")
            if self.resize is not None and self.resize < self.size:
                raise ValueError(f"resize {self.resize} is below size {self.size}, which is cut out of it")
            return self
        for field in _OF_PICTURES:
            if field in self.model_fields_set:
                raise ValueError(f"{field} is for name imagefolder, got {self.name}; leave it out")
        if isinstance(self.augment, ResizedCrop):
            raise ValueError(f"a resized crop (scale, ratio) is for name imagefolder, got {self.name}; use pad")
        if self.normalise == "imagenet":
            raise ValueError(f"normalise imagenet is for name imagefolder, got {self.name}; use channel")
        return self

    @model_serializer(mode="wrap")
    def _without_what_others_alone_have(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = plain(self)
        absent = (() if self.name == "imagefolder" else _OF_PICTURES) + (() if self.name == "parity" else _OF_PARITY)
        for field in absent:
            content.pop(field, None)
        return content

    @property
    def shorter_side(self) -> int:
        """The shorter side of an imagefolder's picture before its centre is cut out."""
        return self.resize or math.floor(self.size * 256 / 224 + 0.5)


_OF_PICTURES = ("path", "size", "resize", "corrupt")
_OF_PARITY = ("bits", "samples")


class Warmup(Spec):
    """Steps at a smaller learning rate before the schedule takes over."""

    steps: int = Field(ge=1)
    factor: float = Field(default=0.0, ge=0, lt=1, description="fraction of the learning rate that it starts from")
    form: Literal["linear", "constant"] = "linear"


class TrainingSpec(Spec):
    """One recipe: everything that is the same for all arms unless an arm says otherwise."""

    epochs: int = Field(default=10, ge=1)
    batch_size: int = Field(default=128, ge=1)
    optimizer: Optimizer = SGD()
    schedule: Schedule = Constant()
    warmup: Warmup | None = None
    loss: Loss | None = Field(default=None, description="None: the task's own, which is cross-entropy for classes")
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    clip_norm: float | None = Field(
        default=None, gt=0, description="largest norm of the whole gradient; None: not clipped"
    )
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32", description="bfloat16: autocast of the forward pass, on CUDA only"
    )
    channels_last: bool = Field(default=True, description="memory layout of images and convolutions")
    test_every: int = Field(default=0, ge=0, description="epochs between looks at the test data; 0: only at the end")

    @model_serializer(mode="wrap")
    def _without_a_loss_that_is_not_named(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = plain(self)  # so that naming losses changed no hash of trials that name none
        return content if self.loss is not None else {key: one for key, one in content.items() if key != "loss"}
