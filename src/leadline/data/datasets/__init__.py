"""Data sets: their common settings, the registry, and custom data sets; each built-in data set has its own file.

Each data set has a specification, metadata that are known without reading it, and a method to read it. Without torch,
it returns NumPy arrays, or encoded images that are decoded during training; `leadline.data.batches` makes batches of
both.
"""

import functools
import itertools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    ConfigDict,
    Discriminator,
    Field,
    GetCoreSchemaHandler,
    SerializerFunctionWrapHandler,
    Tag,
    field_validator,
    model_serializer,
    model_validator,
)
from pydantic_core import CoreSchema

from leadline.data.arrays import Arrays, check_arrays
from leadline.data.encoded_images import EncodedImages
from leadline.data.label_noise import LabelNoise
from leadline.data.metadata import Metadata
from leadline.data.split import PartSizes, Resample
from leadline.errors import Problem, SpecError, unknown
from leadline.parts.augmentations import (
    STAGES,
    Augmentation,
    BatchAugmentation,
    DecodingAugmentation,
    MixingAugmentation,
    PixelAugmentation,
)
from leadline.parts.base import Spec
from leadline.parts.losses import Loss
from leadline.parts.reference import Reference
from leadline.parts.registry import Registry
from leadline.parts.tasks import Task, task_of
from leadline.seeds import DATA, seeded, stream

DEFAULT = "digits"
"""The data set of a specification without a name."""

DATASETS: "Registry[DataSpec]" = Registry("data set", __name__, lambda keys: DEFAULT)
"""Every data set by name."""


def _how_many(value: object) -> str:
    return "several" if isinstance(value, list | tuple) else "one"


class DataSpec(Spec):
    """A data set, its split and its preprocessing; the base class, which creates the data set of a given name.

    Example:
        >>> type(DataSpec(name="mnist", train=100)).__name__
        'MNIST'
    """

    model_config = ConfigDict(defer_build=True)  # members are imported on first use

    in_memory: ClassVar[bool] = True
    """Whether all images are read before training, instead of being decoded during training."""
    takes_tasks: ClassVar[bool] = False
    """Whether the data may have targets of a task other than classification."""

    train: int | None = Field(
        default=None, ge=1, description="number of training images; None: all that are not used for validation"
    )
    validation: int | None = Field(
        default=None,
        ge=1,
        description="number of validation images, split off the training part; None: a tenth of it, at most 5,000. If"
        " the data set has its own validation images: how many of them; None: all",
    )
    test: int | None = Field(
        default=None, ge=1, description="number of test images; None: all; for parity, a held-out quarter of the inputs"
    )
    subset_seed: int = Field(
        default=0, ge=0, description="seed for choosing the images of a subset, stratified by class"
    )
    normalise: Literal["channel", "pixel-mean", "none", "imagenet"] = Field(
        default="channel",
        description="channel: mean 0 and deviation 1 per channel; pixel-mean: subtract the mean image, scale to [0, 1];"
        " none: scale to [0, 1]. Images of float32 are not scaled to [0, 1]: pixel-mean subtracts alone, and none"
        " leaves them as they are. Constants come from the training images alone, of encoded images from 1,000 of them;"
        " imagenet, for encoded images in colour: those that are published for ImageNet's channels",
    )
    augment: (
        Annotated[
            Annotated[Augmentation, Tag("one")]
            | Annotated[tuple[Augmentation, ...], Tag("several"), Field(strict=False)],
            Discriminator(_how_many),
        ]
        | None
    ) = Field(
        default=None,
        description="an augmentation, or a list of several that are applied in order. With pad: translation; with scale"
        " or ratio: resized crop, for data sets of encoded images alone, which have it unless this is null, a list or"
        " another augmentation; or custom code",
    )
    resample: Resample | None = Field(
        default=None,
        description="what is redrawn at every seed, so that a verdict holds for data of this kind and not for one"
        " split of them. bootstrap: training images, drawn from the training images with replacement, as many; split:"
        " which images are for training and which for testing; None: nothing",
    )
    label_noise: LabelNoise | None = Field(
        default=None,
        description="training labels that are replaced by wrong ones, drawn at every seed: a rate, or a mapping;"
        " labels for validation and testing stay as they are. None: none",
    )
    task: str | Reference = Field(
        default="classification",
        description="task that networks are trained for: classification, or {module: package.module:Task} for a custom"
        " one",
    )

    if TYPE_CHECKING:

        def __init__(self, **fields: Any) -> None:
            """Create a data set from the fields of the one called `name`."""

    def __new__(cls, *arguments: Any, **fields: Any) -> Self:
        """Return an instance of the data set called `name`."""
        return super().__new__(_member(fields) if cls is DataSpec else cls)  # type: ignore[return-value]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Accept any data set in a field of this type."""
        return DATASETS.schema(handler) if cls is DataSpec else handler(source)

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, value: object) -> object:
        for key in sorted(value.keys() - cls.model_fields.keys(), key=str) if isinstance(value, Mapping) else ():
            owners = sorted(name for name, member in DATASETS.members().items() if key in member.model_fields)
            if owners:
                raise ValueError(f"{key} is for name {', '.join(owners)}, got {_name_of(cls)}; leave it out")
        return value

    @model_serializer(mode="wrap")
    def _serialize(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = plain(self)
        return {key: value for key, value in content.items() if key not in self._omitted_keys()}

    def _omitted_keys(self) -> set[str]:
        """Return keys to omit at their defaults: they were added later, and hashes must not change."""
        later = {"task": "classification", "resample": None, "label_noise": None}
        return {key for key, default in later.items() if getattr(self, key) == default}

    @field_validator("augment", mode="before")
    @classmethod
    def _one_is_no_list(cls, value: object) -> object:
        return (value[0] if value else None) if isinstance(value, list | tuple) and len(value) < 2 else value

    @field_validator("label_noise", mode="before")
    @classmethod
    def _rate_0_is_none(cls, value: object) -> object:
        rate = value.get("rate") if isinstance(value, Mapping) else value
        return None if rate == 0 and type(rate) in (int, float) else value

    @field_validator("augment")
    @classmethod
    def _check_order(cls, augment: Augmentation | tuple[Augmentation, ...] | None) -> object:
        several = augment if isinstance(augment, tuple) else ()
        names = [each.called for each in several]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{name} is in the list twice; name it once")
        for before, after in itertools.pairwise(several):
            if STAGES.index(before.changes) > STAGES.index(after.changes):
                raise ValueError(
                    f"{after.called} changes {after.changes}, so it cannot follow {before.called}, which changes"
                    f" {before.changes}; place {after.called} first"
                )
            if before.changes == after.changes in (STAGES[0], STAGES[-1]):
                either = {before.called, after.called} == {"mixup", "cutmix"}
                instead = ", or use mixup-or-cutmix alone" if either else ""
                raise ValueError(
                    f"{before.called} and {after.called} are both in the list; remove one of them{instead}"
                )
        return augment

    @model_validator(mode="after")
    def _check_preprocessing(self) -> Self:
        if self.in_memory and any(isinstance(each, DecodingAugmentation) for each in self.augmentations):
            raise ValueError(
                f"a resized crop (scale, ratio) is for encoded images, got {_name_of(type(self))}; use pad"
            )
        if self.in_memory and self.normalise == "imagenet":
            raise ValueError(f"normalise imagenet is for encoded images, got {_name_of(type(self))}; use channel")
        return self

    @model_validator(mode="after")
    def _check_resample(self) -> Self:
        if self.resample == "split" and not self.in_memory:
            raise ValueError(
                f"resample split is for images in memory, got {_name_of(type(self))}, whose images are decoded during"
                " training; use bootstrap"
            )
        return self

    @model_validator(mode="after")
    def _check_task(self) -> Self:
        if self.task != "classification" and not self.takes_tasks:
            raise ValueError(
                f"task is for custom data sets and npz, got {_name_of(type(self))}, whose images have classes"
            )
        if self.task != "classification":
            for what in (*(each.called for each in self._mixing), *(["label_noise"] if self.label_noise else [])):
                raise ValueError(f"{what} is for task classification, whose targets are classes; leave it out")
        return self

    @property
    def display_name(self) -> str:
        """Name of the data in tables and messages: the name, or the path or reference."""
        return _name_of(type(self))

    @property
    def augmentations(self) -> tuple[Augmentation, ...]:
        """The augmentations in the order in which they are applied."""
        found = self.augment
        return found if isinstance(found, tuple) else () if found is None else (found,)

    @property
    def is_redrawn(self) -> bool:
        """Whether images or labels are drawn at every seed, so that seeds do not share them."""
        return self.resample is not None or self.label_noise is not None

    @property
    def _mixing(self) -> tuple[MixingAugmentation, ...]:
        return tuple(each for each in self.augmentations if isinstance(each, MixingAugmentation))

    def check_images(self, known: Metadata) -> None:
        """Check that the augmentations can be applied to the images, and label noise to their labels.

        Raises:
            SpecError: one changes pixels, and the images are floats, or neither grey nor in colour; one hides most of
                images as small as these; or labels have no other class to be replaced by.
        """
        if self.label_noise is not None and known.classes < 2:
            raise SpecError(
                Problem(
                    f"label_noise replaces labels by other classes, and {self.display_name} has one class; leave it"
                    f" out",
                    ("label_noise",),
                )
            )
        for each in self.augmentations:
            if isinstance(each, PixelAugmentation) and not known.pixels:
                raise SpecError(
                    f"augment {each.called} changes pixels from 0 to 255, and images of {self.display_name} are"
                    " float32; leave it out, or give images of uint8"
                )
            if isinstance(each, PixelAugmentation) and known.shape[0] not in (1, 3):
                raise SpecError(
                    f"augment {each.called} is for images of 1 or 3 channels, and those of {self.display_name} have"
                    f" {known.shape[0]}; leave it out"
                )
            height, width = known.shape[1:]
            if isinstance(each, BatchAugmentation) and (problem := each.find_problem(height, width)):
                raise SpecError(
                    f"augment {each.called}: images of {self.display_name} are {height}x{width}, and {problem}"
                )

    def check_loss(self, loss: Loss | None) -> None:
        """Check that a loss takes the targets of training.

        Args:
            loss: of the recipe; None: the task's own.

        Raises:
            SpecError: labels are mixed, and the loss does not take probabilities.
        """
        for each in self._mixing:
            loss = loss or task_of(self.task).loss
            if not loss.takes_probabilities:
                name = loss.module if isinstance(loss, Reference) else getattr(loss, "name", type(loss).__name__)
                raise SpecError(
                    f"augment {each.called} makes labels probabilities of the classes, which loss {name} does not"
                    " take; use cross-entropy, or leave the augmentation out"
                )

    @property
    def known_sizes(self) -> PartSizes | None:
        """The sizes of the parts if they are known without reading any file, else None.

        Raises:
            DataError: the specification leaves no images for training or testing.
        """
        return None

    def metadata(self, data_dir: Path) -> Metadata:
        """Return the metadata, reading as little as possible.

        Args:
            data_dir: folder for relative paths and for the files of published data sets.

        Raises:
            DataError: a file is missing or damaged.
        """
        raise NotImplementedError

    def sizes(self, data_dir: Path) -> PartSizes:
        """Return the sizes of the parts, before splits are made.

        Raises:
            DataError: as `metadata`.
        """
        return self.known_sizes or self.read(data_dir, download=False).sizes

    def read(self, data_dir: Path, download: bool = True) -> Arrays | EncodedImages:
        """Read all images, or list those that are decoded during training.

        Args:
            data_dir: as for `metadata`.
            download: whether to download missing files of published data sets.

        Raises:
            DataError: a file is missing, damaged or malicious, or cannot be downloaded.
            LeadlineError: a required package is not installed.
        """
        raise NotImplementedError

    def fetch(self, data_dir: Path) -> list[Path]:
        """Download missing files of a published data set and return all files; empty for other data sets.

        Raises:
            DataError: a file cannot be downloaded or written.
        """
        return []

    def identify(self, data_dir: Path) -> dict[str, str]:
        """Return file -> digest of its content, for files that identify the data; empty if the name identifies them.

        Raises:
            DataError: a file cannot be read.
        """
        return {}


def _member(fields: Mapping[str, Any]) -> type[Spec]:
    if "module" in fields:
        return CustomDataset
    name, members = fields.get("name", DEFAULT), DATASETS.members()
    if name not in members:
        raise SpecError(unknown("data set", name, members))
    return members[name]


def _name_of(kind: type[Spec]) -> str:
    name = kind.model_fields.get("name")
    return str(name.default) if name is not None else "custom"


@DATASETS.register
class CustomDataset(DataSpec, Reference):
    """A function that returns `leadline.Arrays`, called with `arguments`.

    Example: `{module: package.module:spirals, arguments: {points: 500}, train: 400}`. Global random generators are
    seeded by `subset_seed`, so that the data are the same for every arm and trial.
    """

    takes_tasks: ClassVar = True

    @property
    def display_name(self) -> str:
        """The reference with its arguments."""
        inside = ", ".join(f"{key}={value}" for key, value in self.arguments.items())
        return f"{self.module}({inside})" if inside else self.module

    def metadata(self, data_dir: Path) -> Metadata:
        """Return the metadata of the function's arrays.

        Raises:
            SpecError: as `read`.
            DataError: as `read`.
        """
        return Metadata.of_arrays(self.read(data_dir))

    def read(self, data_dir: Path, download: bool = True) -> Arrays:
        """Call the function.

        Raises:
            SpecError: it cannot be imported, or calling it fails.
            DataError: it does not return `Arrays`, or returns invalid arrays.
        """
        arguments = json.dumps(self.arguments, sort_keys=True)
        return _call(self.resolve(), self.module, arguments, self.subset_seed, task_of(self.task))


@functools.lru_cache(maxsize=1)  # a study needs shape and sizes before its trials need the images
def _call(function: Callable[..., Any], module: str, arguments: str, seed: int, task: Task) -> Arrays:
    with seeded(stream(seed, DATA)):
        found = Reference(module=module, arguments=json.loads(arguments)).call()
    return check_arrays(found, module, task)
