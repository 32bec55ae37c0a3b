"""A study: arms x seeds on one data set under one recipe, with its contrasts; expanded into trials. Pure."""

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from leadline.errors import SpecError, unknown
from leadline.families import family
from leadline.spec import DataSpec, ModuleSpec, NetworkSpec, ProbeSpec, Spec, TrainingSpec, TrialSpec, parse

Scalar = bool | int | float | str
Metric = Literal["test_error", "train_error", "validation_error"]
Where = Callable[[tuple[int | str, ...]], str]


class ArmSpec(Spec):
    """One variant: a network by name, by name with arguments, or written out; and what else differs."""

    network: str | dict[str, Any]
    training: dict[str, Any] = Field(default={}, description="what differs from the study's training")
    data: dict[str, Any] = Field(default={}, description="what differs from the study's data")


class ContrastSpec(Spec):
    """A pair of arms to compare, `a` against `b`; where factors are varied, at each of their levels."""

    a: str
    b: str
    metric: Metric = "test_error"

    @model_validator(mode="before")
    @classmethod
    def _from_pair(cls, value: object) -> object:
        if isinstance(value, list | tuple):
            if len(value) != 2:
                raise ValueError(f"{list(value)} is not a pair of arms, such as [resnet, cnn]")
            return {"a": value[0], "b": value[1]}
        return value


class Published(Spec):
    """A published number that the report prints beside the measured one."""

    arm: str
    metric: Literal["test_error", "train_error"] = "test_error"
    value: float = Field(description="per cent")
    source: str


class StudySpec(Spec):
    """Arms, the factors they are crossed with, seeds, one data set, one recipe, and the contrasts to decide."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)
    title: str = ""
    notes: str = ""
    data: DataSpec = DataSpec()
    training: TrainingSpec = TrainingSpec()
    probes: ProbeSpec = ProbeSpec()
    arms: dict[str, ArmSpec] = Field(min_length=1)
    vary: dict[str, Annotated[list[Scalar], Field(min_length=1)]] = Field(
        default={},
        description="arguments of the networks, or dotted keys such as training.batch_size or, of a network written"
        " out, network.block.order",
    )
    seeds: (
        Annotated[int, Field(ge=1, le=10_000)]
        | Annotated[list[Annotated[int, Field(ge=0, lt=2**31)]], Field(min_length=1)]
    ) = 3
    contrasts: list[ContrastSpec] | None = Field(default=None, description="None: every pair of arms")
    margin: float = Field(default=0.5, gt=0, description="percentage points within which two arms count as equivalent")
    published: list[Published] = []

    @field_validator("arms")
    @classmethod
    def _plain_names(cls, arms: dict[str, ArmSpec]) -> dict[str, ArmSpec]:
        for name in arms:
            if not name or set("[],= ") & set(name) or not name.isprintable():
                raise ValueError(f"arm name {name!r} is empty or has a bracket, comma, equals sign or white space")
        return arms

    @field_validator("vary")
    @classmethod
    def _distinct_levels(cls, vary: dict[str, list[Scalar]]) -> dict[str, list[Scalar]]:
        for key, levels in vary.items():
            if len(set(map(str, levels))) < len(levels):
                raise ValueError(f"{levels} names a level of {key} twice")
        return vary

    @field_validator("seeds")
    @classmethod
    def _distinct(cls, seeds: int | list[int]) -> int | list[int]:
        if isinstance(seeds, list) and len(set(seeds)) < len(seeds):
            raise ValueError(f"{seeds} names a seed twice, and a repeated trial is no further evidence")
        return seeds

    @property
    def seed_values(self) -> tuple[int, ...]:
        """The seeds themselves: 0 to n-1 where only their number is given."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else tuple(self.seeds)


@dataclass(frozen=True)
class Arm:
    """One variant at one level of every factor; `trial` holds everything but the seed."""

    name: str
    base: str
    factors: Mapping[str, Scalar]
    trial: TrialSpec

    def at(self, seed: int) -> TrialSpec:
        """Return this arm's trial at a seed."""
        return self.trial.model_copy(update={"seed": seed})


@dataclass(frozen=True)
class Study:
    """A study spelled out: every arm, every contrast between named arms."""

    spec: StudySpec
    arms: tuple[Arm, ...]
    contrasts: tuple[ContrastSpec, ...]

    def trials(self) -> Iterable[tuple[Arm, TrialSpec]]:
        """Every trial, seed by seed, so that a study stopped early has complete pairs."""
        for seed in self.spec.seed_values:
            for arm in self.arms:
                yield arm, arm.at(seed)


def expand(spec: StudySpec, where: Where | None = None) -> Study:
    """Cross arms with factors and resolve every network.

    Args:
        spec: the study.
        where: turns a path of keys into the place that an error message opens with.

    Raises:
        SpecError: an arm, argument or contrast that cannot be.
    """
    levels = [[(key, value) for value in values] for key, values in spec.vary.items()]
    arms = []
    for base, arm in spec.arms.items():
        for combination in itertools.product(*levels):
            factors = dict(combination)
            try:
                trial = _trial(spec, arm, factors)
            except SpecError as error:
                raise SpecError(_placed(where, ("arms", base), error)) from None
            arms.append(Arm(_arm_name(base, factors), base, factors, trial))
    known = {arm.name for arm in arms} | set(spec.arms)
    for number, published in enumerate(spec.published):
        if published.arm not in known:
            raise SpecError(_placed(where, ("published", number, "arm"), unknown("arm", published.arm, known)))
    return Study(spec, tuple(arms), tuple(_contrasts(spec, arms, where)))


def _arm_name(base: str, factors: Mapping[str, Scalar]) -> str:
    inside = ",".join(f"{key}={value}" for key, value in factors.items())
    return f"{base}[{inside}]" if inside else base


def _trial(spec: StudySpec, arm: ArmSpec, factors: Mapping[str, Scalar]) -> TrialSpec:
    plain = {
        "data": _merged(spec.data.model_dump(mode="json"), arm.data),
        "training": _merged(spec.training.model_dump(mode="json"), arm.training),
        "probes": spec.probes.model_dump(mode="json"),
    }
    changes: dict[str, Any] = {}
    for key, value in factors.items():
        set_key(changes, key if "." in key else f"network.{key}", value)
    network = resolve_network(arm.network, changes.pop("network", {}))
    for section, change in changes.items():
        plain[section] = _merged(plain.get(section, {}), change)
    return parse(TrialSpec, {**plain, "network": network.model_dump(mode="json")})


def resolve_network(network: str | Mapping[str, Any], arguments: Mapping[str, Any] = {}) -> NetworkSpec | ModuleSpec:
    """Return the specification of a network given by name, by name with arguments, as a module, or written out.

    Raises:
        SpecError: the name, an argument or a key is unknown, or a value is impossible.
    """
    if isinstance(network, str):
        network = {"module" if ":" in network else "family": network}
    if "family" in network:
        given = {key: value for key, value in network.items() if key != "family"}
        return family(str(network["family"]), {**given, **arguments})
    if "module" in network:
        own = network.get("arguments", {})
        return parse(ModuleSpec, {**network, "arguments": {**own, **arguments} if isinstance(own, Mapping) else own})
    return parse(NetworkSpec, _merged(network, arguments))


def set_key(data: dict[str, Any], dotted: str, value: object) -> None:
    """Set `data["a"]["b"]` from `a.b`, making mappings on the way.

    Raises:
        SpecError: something on the way is no mapping.
    """
    *path, last = dotted.split(".")
    for key in path:
        inner = data.setdefault(key, {})
        if not isinstance(inner, dict):
            raise SpecError(f"{dotted}: {key!r} holds {inner!r}, which has no keys inside")
        data = inner
    data[last] = value


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Lay changes over a base, mapping by mapping; a mapping whose `name` changes is replaced whole."""
    result = dict(base)
    for key, value in changes.items():
        old = result.get(key)
        same_kind = (
            isinstance(old, dict)
            and isinstance(value, Mapping)
            and value.get("name", old.get("name")) == old.get("name")
        )
        result[key] = _merged(old, value) if same_kind and isinstance(old, dict) else value
    return result


def _contrasts(spec: StudySpec, arms: list[Arm], where: Where | None) -> Iterable[ContrastSpec]:
    by_name = {arm.name: arm for arm in arms}
    said: set[tuple[frozenset[str], str]] = set()
    if spec.contrasts is None:
        pairs = [ContrastSpec(a=a, b=b) for b, a in itertools.combinations(spec.arms, 2)]
    else:
        pairs = spec.contrasts
    for number, pair in enumerate(pairs):
        try:
            for contrast in _at_all_levels(spec, by_name, pair):
                sides = (frozenset((contrast.a, contrast.b)), contrast.metric)
                if sides in said:
                    raise SpecError(f"{contrast.a} and {contrast.b} are compared twice")
                said.add(sides)
                yield contrast
        except SpecError as error:
            raise SpecError(_placed(where, ("contrasts", number), error)) from None


def _at_all_levels(spec: StudySpec, arms: Mapping[str, Arm], pair: ContrastSpec) -> Iterable[ContrastSpec]:
    for side in (pair.a, pair.b):
        if side not in arms and side not in spec.arms:
            raise SpecError(unknown("arm", side, arms.keys() | spec.arms.keys()))
    if pair.a == pair.b:
        raise SpecError(f"arm {pair.a!r} is compared with itself")
    if pair.a in arms and pair.b in arms:
        found = [pair]
    elif pair.a in spec.arms and pair.b in spec.arms:
        found = [
            ContrastSpec(a=arm.name, b=_arm_name(pair.b, arm.factors), metric=pair.metric)
            for arm in arms.values()
            if arm.base == pair.a
        ]
    else:
        raise SpecError(
            f"[{pair.a}, {pair.b}] pairs an arm at one level with an arm at all levels; name both or neither level"
        )
    for contrast in found:
        if arms[contrast.a].trial == arms[contrast.b].trial:
            raise SpecError(f"{contrast.a} and {contrast.b} are one network under one recipe: nothing to compare")
    return found


def _placed(where: Where | None, path: tuple[int | str, ...], problem: object) -> str:
    place = where(path) if where else ""
    return ": ".join(part for part in (place, ".".join(map(str, path)), str(problem)) if part)


def expand_stored(spec: Mapping[str, Any]) -> Study:
    """Expand a study's specification as a store gives it back.

    Raises:
        SpecError: another version of Leadline wrote it, and this one cannot read it.
    """
    return expand(parse(StudySpec, spec))
