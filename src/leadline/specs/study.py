"""What a study is asked to be: arms, what they are crossed with, seeds, one data set, one recipe, what is compared."""

import itertools
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    ValidationError,
    field_validator,
    model_serializer,
    model_validator,
)

from leadline.data.datasets import DataSpec
from leadline.data.datasets.digits import Digits
from leadline.errors import unknown
from leadline.parts.base import Spec
from leadline.seeds import SOURCES, Seed, Source, key_of, name_seed, source_of
from leadline.specs.contrast import ContrastSpec, Correction, MetricName, needs_target
from leadline.specs.decide import DecideSpec
from leadline.specs.probes import ProbeSpec
from leadline.specs.training import TrainingSpec
from leadline.specs.trial import OneSeed
from leadline.specs.tuning import TuneSpec

Scalar = bool | int | float | str
_Seeds = int | list[int] | list[dict[Source, int]] | dict[Source, int]
MOST_DEVICES = 1024
"""Maximum number of devices that train one trial."""

SEARCH = ".tuning"
"""Ends the name of the study that holds the trials of another one's search."""


class ArmSpec(Spec):
    """One variant: a network by name, by name with arguments, or written out; and what else differs."""

    network: str | dict[str, Any] = Field(
        description="a family's name; a mapping with `family` and its arguments; one with `module`,"
        " package.module:function; or the keys of a network written out"
    )
    training: dict[str, Any] = Field(default={}, description="overrides of the study's training settings")
    data: dict[str, Any] = Field(default={}, description="overrides of the study's data settings")
    pretraining: dict[str, Any] | None = Field(
        default=None, description="layer-wise pre-training of a fully-connected sigmoid network before its training"
    )


class Published(Spec):
    """A published number that the report prints beside the measured one."""

    arm: str = Field(description="the arm that the number is of, at one level of the factors or at all")
    metric: MetricName = Field(default="test_error", description="what was measured")
    value: float = Field(description="in the metric's unit, per cent for errors")
    source: str = Field(description="where the number was published")

    @model_validator(mode="after")
    def _is_one_number_of_an_arm(self) -> "Published":
        if needs_target(self.metric):
            raise ValueError(f"metric {self.metric} is a time to a target; choose another, such as test_error")
        return self


class MatchSpec(Spec):
    """Arms made equal in what they cost, within 1%, by their widths; a bare string stands for `what`."""

    what: Literal["parameters", "multiply_adds", "activations"] = Field(
        description="multiply_adds: of one image; activations: bytes kept for the backward pass, of one image"
    )
    to: str | None = Field(
        default=None,
        description="reference arm that the others are matched to at each level of the factors, or an arm at one level"
        " that all are matched to; None: the first arm",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_what(cls, value: object) -> object:
        return {"what": value} if isinstance(value, str) else value


_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


def _form_of_seeds(value: object) -> str:
    if isinstance(value, Mapping):
        return "numbers"
    return "combinations" if isinstance(value, list) and value and isinstance(value[0], Mapping) else "plain"


class StudySpec(Spec):
    """Arms, the factors they are crossed with, seeds, one data set, one recipe, and the contrasts to decide."""

    name: str = Field(
        pattern=_NAME,
        max_length=100,
        description="letters, digits, dots, underscores and hyphens; the store and reports know the study by it",
    )
    title: str = Field(default="", description="heading of the report")
    notes: str = Field(
        default="", description="a paragraph for the report: where the study comes from and what is assumed"
    )
    based_on: str | None = Field(
        default=None, description="the ready study that this one was made from; what differs is said with the results"
    )
    data: DataSpec = Field(
        default=Digits(), description="the data set that all arms are trained on; a name stands for its defaults"
    )
    training: TrainingSpec = Field(default=TrainingSpec(), description="the recipe that all arms share")
    probes: ProbeSpec = Field(default=ProbeSpec(), description="what to measure inside the networks")
    arms: dict[str, ArmSpec] = Field(
        min_length=1, description="name -> what is compared: a network, and what else differs"
    )
    vary: dict[str, Annotated[list[Scalar], Field(min_length=1)]] = Field(
        default={},
        description="arguments of the networks, or dotted keys such as training.batch_size or, of a network written"
        " out, network.block.order; or seeds of one source of randomness, such as seed.init",
    )
    seeds: Annotated[
        Annotated[
            Annotated[int, Field(ge=1, le=10_000)] | Annotated[list[OneSeed], Field(min_length=1, max_length=10_000)],
            Tag("plain"),
        ]
        | Annotated[
            list[Annotated[dict[Source, OneSeed], Field(min_length=1)]], Field(max_length=10_000), Tag("combinations")
        ]
        | Annotated[dict[Source, Annotated[int, Field(ge=1, le=10_000)]], Field(min_length=1), Tag("numbers")],
        Discriminator(_form_of_seeds),
    ] = Field(
        default=3,
        description="their number, at most 10,000, or the seeds themselves; by source of randomness (init, order,"
        " augment, noise, split): the number of seeds of each, all of which are combined, or a list of combinations",
    )
    contrasts: list[ContrastSpec] | None = Field(
        default=None, description="None: every pair of arms, or of more than ten arms each with the first"
    )
    margin: float = Field(
        default=0.5, gt=0, description="difference in percentage points within which two arms are considered equivalent"
    )
    correction: Correction = Field(
        default="holm",
        description="correction of p-values for multiple contrasts: control of the family-wise error"
        " rate or of the false discovery rate",
    )
    decide: DecideSpec | None = Field(
        default=None,
        description="add seeds in rounds until every contrast is decided; None: all arms have the same seeds, fixed in"
        " advance",
    )
    published: list[Published] = Field(
        default=[], description="published numbers that the report prints beside the measured ones"
    )
    match: MatchSpec | None = Field(
        default=None, description="widths are adjusted so that all arms cost the same; None: networks are as given"
    )
    tune: TuneSpec | None = Field(
        default=None, description="the same search of hyperparameters for every arm; None: no search"
    )
    devices: int = Field(
        default=1,
        ge=1,
        le=MOST_DEVICES,
        description="number of devices that train each trial together; results depend on it only in the last bits",
    )

    @model_validator(mode="before")
    @classmethod
    def _as_it_decides(cls, value: object) -> object:
        """Write out what `decide` says of seeds and contrasts, so that what is stored reads the same."""
        if not isinstance(value, Mapping) or value.get("decide") is None:
            return value
        try:
            decide = DecideSpec.model_validate(value["decide"])
        except ValidationError:
            return value  # and let the field tell
        result = {"seeds": decide.max_seeds, **value}
        if isinstance(value.get("contrasts"), list):
            result["contrasts"] = [decide.named(contrast) for contrast in value["contrasts"]]
        return result

    @model_serializer(mode="wrap")
    def _without_an_origin_that_is_not_named(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = plain(self)  # so that the hash of a study that names none is what it was
        return content if self.based_on is not None else {key: one for key, one in content.items() if key != "based_on"}

    @field_validator("name", mode="before")
    @classmethod
    def _plain_name(cls, name: object) -> object:
        if isinstance(name, str) and not re.match(_NAME, name):
            raise ValueError(
                f"{name!r}: expected letters from a to z, digits, dots, underscores and hyphens, with a letter or a"
                " digit first"
            )
        return name

    @field_validator("arms")
    @classmethod
    def _plain_names(cls, arms: dict[str, ArmSpec]) -> dict[str, ArmSpec]:
        for name in arms:
            if not name or set("[],= ") & set(name) or not name.isprintable():
                raise ValueError(
                    f"arm name {name!r} is empty or contains a bracket, comma, equals sign, white space or control"
                    f" character; rename the arm"
                )
        return arms

    @field_validator("vary")
    @classmethod
    def _plain_distinct_levels(cls, vary: dict[str, list[Scalar]]) -> dict[str, list[Scalar]]:
        for key, levels in vary.items():
            for text in (key, *(level for level in levels if isinstance(level, str))):
                if not text.isprintable():
                    raise ValueError(f"{text!r} contains a control character, which names and levels may not")
            if len(set(map(str, levels))) < len(levels):
                raise ValueError(f"{levels} names a level of {key} twice")
            if not key.startswith("seed."):
                continue
            if source_of(key) is None:
                raise ValueError(unknown("key", key, map(key_of, SOURCES)))
            if not all(type(level) is int and 0 <= level < 2**31 for level in levels):
                raise ValueError(f"{key}: {levels} are not all seeds, which are whole numbers from 0 to 2147483647")
        return vary

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: _Seeds) -> _Seeds:
        if isinstance(seeds, list):
            if len({name_seed(_made(one)) for one in seeds}) < len(seeds):
                raise ValueError(
                    f"{seeds} contains a seed twice, and repeating a trial adds no evidence; remove the duplicate"
                )
            if len({frozenset(one) if isinstance(one, dict) else None for one in seeds}) > 1:
                raise ValueError(f"{seeds} gives different sources of randomness; give each entry the same")
        return seeds

    @model_validator(mode="after")
    def _name_of_the_search_fits(self) -> "StudySpec":
        if self.tune is not None and len(self.name) > (most := 100 - len(SEARCH)):
            raise ValueError(f"name {self.name!r} is longer than {most} letters, and tune adds {SEARCH}; shorten it")
        return self

    @model_validator(mode="before")
    @classmethod
    def _one_seed_for_other_sources(cls, value: object) -> object:
        """Write out that sources whose seeds are not varied have one seed, if the study says nothing of them."""
        if isinstance(value, Mapping) and "seeds" not in value and isinstance(value.get("vary"), Mapping):
            return {"seeds": 1, **value} if any(source_of(str(key)) for key in value["vary"]) else value
        return value

    @model_validator(mode="after")
    def _test_images_not_tuned_on(self) -> "StudySpec":
        asked = (self.data.resample, *(arm.data.get("resample") for arm in self.arms.values()))
        if self.tune is not None and "split" in asked:
            raise ValueError(
                "data.resample split takes images for testing that tune would have chosen on at another seed; use"
                " bootstrap, or remove tune"
            )
        return self

    @model_validator(mode="after")
    def _sources_once(self) -> "StudySpec":
        given = self.seeds[0] if isinstance(self.seeds, list) else self.seeds
        twice = [key_of(source) for source in self.varied_seeds if isinstance(given, dict) and source in given]
        if twice:
            raise ValueError(f"{twice[0]} is given by both vary and seeds; remove it from one of them")
        if self.decide is not None and isinstance(self.seed_values[0], Seed):
            raise ValueError(
                "decide adds seeds one by one, and seeds by source are a fixed set of combinations; remove one of them"
            )
        return self

    @model_validator(mode="after")
    def _seeds_to_draw_from(self) -> "StudySpec":
        if self.decide is None:
            return self
        most = self.decide.max_seeds
        if isinstance(self.seeds, int) and self.seeds != most:
            raise ValueError(
                f"seeds {self.seeds} and decide.max_seeds {most} differ; remove seeds, or list the seeds to use in"
                f" order"
            )
        if isinstance(self.seeds, list) and len(self.seeds) < most:
            raise ValueError(
                f"seeds lists {len(self.seeds)} to draw from, fewer than decide.max_seeds {most}; list more, or lower"
                " max_seeds"
            )
        return self

    @property
    def factors(self) -> dict[str, list[Scalar]]:
        """What the arms are crossed with: key -> levels, of everything that is varied but seeds."""
        return {key: levels for key, levels in self.vary.items() if source_of(key) is None}

    @property
    def varied_seeds(self) -> dict[Source, list[int]]:
        """Source of randomness -> its seeds, of those that are varied."""
        found = {source_of(key): levels for key, levels in self.vary.items()}
        return {source: [int(level) for level in levels] for source, levels in found.items() if source is not None}

    @property
    def seed_values(self) -> tuple[int, ...]:
        """The seeds themselves: 0 to n-1 where only their number is given; of a study that decides, all it may take.

        Where sources of randomness have seeds of their own: every combination, as `leadline.seeds.Seed`.
        """
        if isinstance(self.seeds, dict):
            given: tuple[int, ...] = _combined((0,), {source: range(n) for source, n in self.seeds.items()})
        else:
            given = tuple(range(self.seeds)) if isinstance(self.seeds, int) else tuple(map(_made, self.seeds))
        seeds = _combined(given, self.varied_seeds)
        return seeds if self.decide is None else seeds[: self.decide.max_seeds]

    @property
    def varied_sources(self) -> tuple[Source, ...]:
        """The sources of randomness that differ from seed to seed: all of them, or those with several seeds."""
        seeds = [seed for seed in self.seed_values if isinstance(seed, Seed)]
        if not seeds:
            return SOURCES
        return tuple(one for one in SOURCES if len({seed.by_source.get(one, int(seed)) for seed in seeds}) > 1)

    @property
    def seeds_taken(self) -> set[int]:
        """Every number that is a seed of something."""
        sources = (one.by_source.values() if isinstance(one, Seed) else () for one in self.seed_values)
        return {*map(int, self.seed_values), *itertools.chain.from_iterable(sources)}


def _made(seed: int | Mapping[Source, int]) -> int:
    return seed if isinstance(seed, int) else Seed(0, seed)


def _combined(seeds: tuple[int, ...], sources: Mapping[Source, Iterable[int]]) -> tuple[int, ...]:
    """Return seeds at every combination of those of the sources."""
    if not sources:
        return seeds
    found = []
    for seed, *values in itertools.product(seeds, *sources.values()):
        own = seed.by_source if isinstance(seed, Seed) else {}
        found.append(Seed(int(seed), {**own, **dict(zip(sources, values, strict=True))}))
    return tuple(found)
