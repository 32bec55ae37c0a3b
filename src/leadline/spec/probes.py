"""What is measured inside a network while it trains, and when."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from leadline.errors import unknown
from leadline.parts.base import Spec

Measured = Literal["gradients", "updates", "activations", "activation-gradients"]
Moment = Literal["start", "end"] | int
START: Literal["start"] = "start"
END: Literal["end"] = "end"


class FlowSpec(Spec):
    """Gradient, activation and update flow, layer by layer, while the network trains; see `leadline.probes.flow`."""

    every: int = Field(default=1, ge=1, description="steps from one measurement to the next")
    what: Annotated[tuple[Measured, ...], Field(strict=False, min_length=1)] = (
        "gradients",
        "updates",
        "activations",
        "activation-gradients",
    )
    layers: Annotated[tuple[str, ...], Field(strict=False, min_length=1)] = Field(
        default=("*",), description="patterns of module names; * alone: all blocks, and the modules beside them"
    )
    images: int = Field(default=16, ge=1, description="of a batch, whose activations are looked at")


class DeeperSpec(Spec):
    """When a probe of the network as a whole is taken; each kind below says of how many images."""

    at: Annotated[tuple[Moment, ...], Field(strict=False, min_length=1)] = Field(
        default=(START, END),
        description="epochs at whose end it is taken; start: before the first step; end: after the last epoch",
    )
    images: int = Field(ge=1, description="of the validation part, at most so many")

    @field_validator("at", mode="before")
    @classmethod
    def _moments(cls, value: object) -> object:
        if isinstance(value, str | int | float):
            value = [value]
        if isinstance(value, list | tuple):
            for moment in value:
                number = isinstance(moment, int) and not isinstance(moment, bool) and moment >= 1
                if moment not in (START, END) and not number:
                    raise ValueError(f"{moment!r} is no moment of training; expected start, end or an epoch from 1 on")
                if value.count(moment) > 1:
                    raise ValueError(f"{list(value)} names {moment} twice")
        return value

    @field_validator("at")
    @classmethod
    def _in_order(cls, value: tuple[Moment, ...]) -> tuple[Moment, ...]:
        # the order that they are written in means nothing, and so must not change a hash
        return tuple(sorted(value, key=lambda moment: (moment != START, moment == END, str(moment).rjust(20))))

    def epochs(self, last: int) -> frozenset[int]:
        """Return the numbers of epochs after which it is taken, of `last` in all; 0 is before the first step."""
        return frozenset(moment if isinstance(moment, int) else (last if moment == END else 0) for moment in self.at)


class CKASpec(DeeperSpec):
    """How alike layers represent images; see `leadline.probes.cka`."""

    images: int = Field(default=128, ge=4)


class DecompositionSpec(DeeperSpec):
    """The gradient's part that came straight down the shortcuts; see `leadline.probes.decomposition`."""

    images: int = Field(default=64, ge=1)


class HessianSpec(DeeperSpec):
    """Curvature of the loss; see `leadline.probes.hessian`."""

    images: int = Field(default=32, ge=1)


class JacobianSpec(DeeperSpec):
    """Singular values from the images to the output; see `leadline.probes.jacobian`."""

    images: int = Field(default=3, ge=1)


class LandscapeSpec(DeeperSpec):
    """The loss along a random direction; see `leadline.probes.landscape`."""

    images: int = Field(default=128, ge=1)


class LesionSpec(DeeperSpec):
    """The error without each block; see `leadline.probes.lesion`."""

    at: Annotated[tuple[Moment, ...], Field(strict=False, min_length=1)] = (END,)
    images: int = Field(default=256, ge=1)


class NoiseSpec(DeeperSpec):
    """Signal and noise of minibatches' gradients; see `leadline.probes.noise`."""

    images: int = Field(default=128, ge=64, description="of the validation part, in batches of 32")


class PathsSpec(DeeperSpec):
    """The gradient by the length of its path; see `leadline.probes.paths`."""

    images: int = Field(default=16, ge=1)


class ShatteredSpec(DeeperSpec):
    """How alike the gradients of nearby images are; see `leadline.probes.shattered`."""

    images: int = Field(default=4, ge=2, multiple_of=2)


class ProbeSpec(Spec):
    """What is measured inside a network while it trains; a name, or a list of them, asks for each with its defaults."""

    flow: FlowSpec | None = None
    cka: CKASpec | None = None
    decomposition: DecompositionSpec | None = None
    hessian: HessianSpec | None = None
    jacobian: JacobianSpec | None = None
    landscape: LandscapeSpec | None = None
    lesion: LesionSpec | None = None
    noise: NoiseSpec | None = None
    paths: PathsSpec | None = None
    shattered: ShatteredSpec | None = None

    @model_validator(mode="before")
    @classmethod
    def _by_name(cls, value: object) -> object:
        if isinstance(value, str):
            value = [value]
        if not isinstance(value, list | Mapping):
            return value
        for name in value:
            if not isinstance(name, str) or name not in cls.model_fields:
                raise ValueError(unknown("probe", str(name), cls.model_fields))
        if isinstance(value, Mapping):
            return value
        if len(set(value)) < len(value):
            raise ValueError(f"{value} names a probe twice")
        return {name: {} for name in value}

    @model_serializer(mode="wrap")
    def _without_what_is_not_asked_for(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # so a probe that is added later changes no hash of a trial that does not ask for it
        content: dict[str, Any] = plain(self)
        return {name: asked for name, asked in content.items() if asked is not None or name == "flow"}

    def deeper(self) -> dict[str, DeeperSpec]:
        """Return the probes of the network as a whole that are asked for, by name."""
        asked = {name: getattr(self, name) for name in DEEPER}
        return {name: spec for name, spec in asked.items() if spec is not None}

    def beyond(self, last: int) -> Iterable[tuple[str, int]]:
        """Yield what is asked for at an epoch after the last: the probe's name and the epoch."""
        for name, spec in self.deeper().items():
            yield from ((name, epoch) for epoch in sorted(spec.epochs(last)) if epoch > last)


DEEPER = tuple(name for name in ProbeSpec.model_fields if name != "flow")
"""The names of the probes that look at the network as a whole at some moments, and not at every step."""
