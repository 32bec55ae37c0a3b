"""How arms are tuned before they are compared: one space of values and one budget for all of them."""

import difflib
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Literal

from pydantic import BeforeValidator, ConfigDict, Discriminator, Field, Tag, field_validator, model_validator

from leadline.errors import SpecError, unknown
from leadline.parts.base import Spec
from leadline.parts.optimizers import OPTIMIZERS
from leadline.specs.training import TrainingSpec

Value = bool | int | float | str
Values = dict[str, Value]
"""Tuned key -> one value, such as learning_rate: 0.03."""
WIDEST = 1e300
"""From end to end: what is drawn from a wider space is beyond what floats can hold."""
FOUND_BY_A_RUN = {"chosen", "tried"}
"""Keys under `tune` that older versions wrote into specifications."""
FIRST_SEED = 1_000_000
"""Of tuning where only the number of its seeds is given: far from those that studies use."""


def _pair(ends: object) -> object:
    if isinstance(ends, list | tuple) and len(ends) != 2:
        raise ValueError(f"{list(ends)} is not two ends, such as [0.001, 1]")
    return ends


class LogSpace(Spec):
    """Every number between two above 0, evenly over their logarithms."""

    log: Annotated[tuple[float, float], Field(strict=False), BeforeValidator(_pair)] = Field(
        description="lowest and highest value"
    )

    @field_validator("log")
    @classmethod
    def _positive_and_rising(cls, ends: tuple[float, float]) -> tuple[float, float]:
        if min(ends) <= 0:
            raise ValueError(f"{min(ends):g} has no logarithm; use a lower end above 0, or a linear space")
        _see_that_they_rise(ends)
        return ends


class LinearSpace(Spec):
    """Every number between two."""

    linear: Annotated[tuple[float, float], Field(strict=False), BeforeValidator(_pair)] = Field(
        description="lowest and highest value"
    )

    @field_validator("linear")
    @classmethod
    def _rising(cls, ends: tuple[float, float]) -> tuple[float, float]:
        _see_that_they_rise(ends)
        return ends


class IntegerSpace(Spec):
    """Every whole number between two, both included."""

    integer: Annotated[tuple[int, int], Field(strict=False), BeforeValidator(_pair)] = Field(
        description="lowest and highest value"
    )

    @field_validator("integer")
    @classmethod
    def _rising(cls, ends: tuple[int, int]) -> tuple[int, int]:
        _see_that_they_rise(ends)
        return ends


class ChoiceSpace(Spec):
    """A few values in no order."""

    choice: Annotated[tuple[Value, ...], Field(strict=False)] = Field(description="the values")

    @field_validator("choice")
    @classmethod
    def _several(cls, values: tuple[Value, ...]) -> tuple[Value, ...]:
        if len(values) < 2:
            raise ValueError(f"{list(values)} has fewer than two choices; give at least two values")
        if len(set(values)) < len(values):
            raise ValueError(f"{list(values)} names a value twice")
        return values


def _see_that_they_rise(ends: Sequence[float]) -> None:
    if ends[0] >= ends[1]:
        raise ValueError(f"[{ends[0]:g}, {ends[1]:g}] is empty; give the smaller end first")
    if ends[1] - ends[0] > WIDEST:
        raise ValueError(
            f"{list(ends)} is more than {WIDEST:g} wide, too wide to sample from; bring the ends closer together"
        )


KINDS = ("log", "linear", "integer", "choice")


def _kind(value: object) -> str | None:
    if isinstance(value, Mapping):
        return next((kind for kind in KINDS if kind in value), None)
    return next((kind for kind in KINDS if hasattr(value, kind)), None)


Space = Annotated[
    Annotated[LogSpace, Tag("log")]
    | Annotated[LinearSpace, Tag("linear")]
    | Annotated[IntegerSpace, Tag("integer")]
    | Annotated[ChoiceSpace, Tag("choice")],
    Discriminator(_kind),
]


class TuneSpec(Spec):
    """What is tuned, each key with its space, such as `learning_rate: {log: [0.001, 1]}`, and how long is searched.

    Keys are fields of the optimizer or of training (learning_rate, batch_size), arguments of the networks, or dotted
    keys such as training.schedule.final. Every arm, at every level of the factors, gets the same spaces and budget.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Space] = Field(init=False)

    budget: int = Field(default=20, ge=1, le=1_000, description="number of settings tried for each arm")
    sampler: Literal["random", "tpe"] = Field(
        default="random",
        description="random: independent draws, the same for every arm, run in parallel; tpe: from the eleventh"
        " setting on, each is chosen from the results of the previous ones (Bergstra et al. 2011)",
    )
    seeds: (
        Annotated[int, Field(ge=1, le=1_000)]
        | Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)]
    ) = Field(default=1, description="seeds at which each setting is tried; none of them may be a seed of the study")
    seed: int = Field(default=0, ge=0, description="random seed of the sampler")

    @model_validator(mode="before")
    @classmethod
    def _spaces_have_a_kind(cls, value: object) -> object:
        if not isinstance(value, Mapping):
            return value
        for key in FOUND_BY_A_RUN & value.keys():
            raise ValueError(f"{key} is determined by the search and kept in the store; remove it")
        for key, space in value.items():
            if key in cls.model_fields or isinstance(space, Spec):
                continue
            if not isinstance(space, Mapping):
                if difflib.get_close_matches(str(key), cls.model_fields, n=1):
                    raise ValueError(unknown("key", key, cls.model_fields))
                raise ValueError(f"{key}: {space!r} is not a search space such as {{log: [0.001, 1]}}")
            if len(space) != 1 or _kind(space) is None:
                raise ValueError(f"{key}: {dict(space)} is not one of {', '.join(KINDS)}, such as {{log: [0.001, 1]}}")
        return value

    @model_validator(mode="after")
    def _something_is_tuned(self) -> "TuneSpec":
        if not self.space:
            raise ValueError(
                "nothing is tuned; add a key with its search space, such as learning_rate: {log: [0.001, 1]}"
            )
        paths = [path_of(key) for key in self.space]
        for key, path in zip(self.space, paths, strict=True):
            if paths.count(path) > 1:
                raise ValueError(f"{key} is tuned twice, as {path}")
        if isinstance(self.seeds, list) and len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {self.seeds} names a seed twice")
        return self

    @property
    def space(self) -> dict[str, Space]:
        """What is tuned: key -> its space, in the order of the file."""
        return dict(self.__pydantic_extra__)

    def seed_values(self, taken: Collection[int]) -> tuple[int, ...]:
        """Return the seeds that settings are tried at, none of which is taken.

        Raises:
            SpecError: a seed that was given is one of the study's.
        """
        if isinstance(self.seeds, int):
            free = (seed for seed in range(FIRST_SEED, FIRST_SEED + self.seeds + len(taken)) if seed not in taken)
            return tuple(seed for seed, _ in zip(free, range(self.seeds), strict=False))
        if both := sorted(set(self.seeds) & set(taken)):
            raise SpecError(
                f"seed {both[0]} is also a seed of the study, which would bias the comparison; choose other seeds for"
                f" tuning"
            )
        return tuple(self.seeds)


_OF_OPTIMIZER = {field for member in OPTIMIZERS.members().values() for field in member.model_fields} - {"name"}
_SEARCHED = ("training", "network")


def path_of(key: str) -> str:
    """Return the whole path of a tuned key: learning_rate is training.optimizer.learning_rate, blocks network.blocks.

    Raises:
        ValueError: it lies in a part of a trial that no search may change.
    """
    first = key.partition(".")[0]
    if "." in key and first in _SEARCHED:
        return key
    if first in _OF_OPTIMIZER:
        return f"training.optimizer.{key}"
    if first in TrainingSpec.model_fields:
        return f"training.{key}"
    if "." in key:
        raise ValueError(f"{key}: {first!r} cannot be tuned; keys begin with training or network")
    return f"network.{key}"


def near(key: str) -> str:
    """Return a hint at the field that a key which no network knows is nearly called; empty where there is none."""
    found = difflib.get_close_matches(key, {*_OF_OPTIMIZER, *TrainingSpec.model_fields}, n=1)
    return f"; or did you mean {found[0]!r}?" if found and found[0] != key.rpartition(".")[2] else ""


def edges(space: Space) -> tuple[Value, ...]:
    """Return the values that must be possible for all of a space to be: its ends, or each choice."""
    if isinstance(space, LogSpace):
        return space.log
    if isinstance(space, LinearSpace):
        return space.linear
    return space.integer if isinstance(space, IntegerSpace) else space.choice
