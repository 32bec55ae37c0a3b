"""What a trained network takes and what its outputs stand for: everything needed to use it besides its weights."""

from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import Field, model_validator

from leadline.data.formats.images import WHITE
from leadline.data.image_dataset import Byte, ImageDataSpec
from leadline.parts.base import Spec, canonical_json

if TYPE_CHECKING:
    from leadline.data.batches import Data
    from leadline.data.datasets import DataSpec

INPUT = "input"
"""Name of a finished trial's `NetworkInput` in the store."""

Positive = Annotated[int, Field(ge=1)]


class NetworkInput(Spec):
    """The input and the classes of a trained network; its input is (image - mean) / scale, in the units of the images.

    Example:
        >>> given = NetworkInput(input_shape=(1, 8, 8), classes=2, mean=(((90.0,),),), scale=(40.0,))
        >>> NetworkInput.from_bytes(given.to_bytes()) == given
        True
    """

    input_shape: tuple[Positive, Positive, Positive] = Field(description="channels, height, width")
    classes: Positive = Field(description="number of logits")
    class_names: tuple[str, ...] | None = Field(default=None, description="in the order of the logits, if known")
    mean: tuple[tuple[tuple[float, ...], ...], ...] = Field(
        description="[channel][row][column], with one row and column if it is the same for all pixels"
    )
    scale: tuple[Annotated[float, Field(gt=0)], ...] = Field(description="[channel]")
    shorter_side: Positive | None = Field(
        default=None,
        description="shorter side to which an image file is resized before its centre crop; None: an image file is"
        " resized to the input without keeping its aspect ratio",
    )
    background: tuple[Byte, Byte, Byte] = Field(
        default=WHITE, description="colour behind the transparent pixels of image files"
    )

    @model_validator(mode="after")
    def _check_constants(self) -> Self:
        channels, height, width = self.input_shape
        for rows, columns in ((1, 1), (height, width)):
            if all(len(plane) == rows and all(len(row) == columns for row in plane) for plane in self.mean):
                break
        else:
            raise ValueError(f"mean is neither {channels}x1x1 nor {channels}x{height}x{width}")
        if not len(self.mean) == len(self.scale) == channels:
            raise ValueError(f"mean and scale are of {len(self.mean)} and {len(self.scale)} channels, not {channels}")
        if self.class_names is not None and len(self.class_names) != self.classes:
            raise ValueError(f"class_names has {len(self.class_names)} names for {self.classes} classes")
        return self

    @classmethod
    def of_data(cls, data: "Data") -> "NetworkInput":
        """Return the input of the networks that are trained on a data set."""
        names = None if data.metadata is None else data.metadata.class_names
        return NetworkInput(
            input_shape=data.shape,
            classes=data.classes,
            class_names=names if names is not None and len(names) == data.classes else None,  # outputs have no names
            mean=to_tuples(data.mean[0].tolist()),
            scale=to_tuples(data.scale.flatten().tolist()),
            **preparation(data.spec),
        )

    def to_bytes(self) -> bytes:
        """Return the JSON that the store keeps."""
        return canonical_json(self.model_dump(mode="json")).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> "NetworkInput":
        """Return the value of `to_bytes`."""
        return NetworkInput.model_validate_json(content)


def preparation(spec: "DataSpec | None") -> dict[str, Any]:
    """Return the fields of `NetworkInput` that say how an image file is prepared, as in evaluation on a data set."""
    return {key: getattr(spec, key) for key in ("shorter_side", "background") if isinstance(spec, ImageDataSpec)}


def to_tuples(values: Any) -> Any:
    """Return nested lists as nested tuples."""
    return tuple(map(to_tuples, values)) if isinstance(values, list) else values
