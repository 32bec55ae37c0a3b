"""A study spelled out: arms crossed with factors, seeds, contrasts, expanded into trials. Pure."""

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from leadline.errors import SpecError, unknown
from leadline.families import family
from leadline.metrics import metric, metric_name
from leadline.spec import ModuleSpec, NetworkSpec, TrialSpec, parse
from leadline.spec.contrast import ContrastSpec
from leadline.spec.decide import LEAST_ERROR
from leadline.spec.study import ArmSpec, Scalar, StudySpec
from leadline.spec.tuning import TuneSpec, Value, edges, near, path_of
from leadline.tasks import Task, task_of

LONGEST_NAME = 255
"""Letters of an arm's name with its levels: what every database keeps."""

Where = Callable[[tuple[int | str, ...]], str]


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
    drawn: Mapping[str, int] = field(default_factory=dict)  # arm -> seeds that it has so far, where a study decides

    def trials(self) -> Iterable[tuple[Arm, TrialSpec]]:
        """Every trial, seed by seed, so that a study stopped early has complete pairs; of one that decides, so far."""
        taken = {arm.name: len(self.seeds_of(arm.name)) for arm in self.arms}
        for place, seed in enumerate(self.spec.seed_values):
            for arm in self.arms:
                if place < taken[arm.name]:
                    yield arm, arm.at(seed)

    def seeds_of(self, arm: str) -> tuple[int, ...]:
        """Return the seeds that an arm has, in the study's order; before the first round those of that round."""
        seeds, decide = self.spec.seed_values, self.spec.decide
        return seeds if decide is None else seeds[: self.drawn.get(arm, decide.first)]


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
            name = _arm_name(base, factors)
            if len(name) > LONGEST_NAME:
                problem = f"{name[:60]}... has {len(name)} letters with its levels; {LONGEST_NAME} at most"
                raise SpecError(_placed(where, ("arms", base), problem))
            arms.append(Arm(name, base, factors, trial))
    arms = compared = _with_matched(spec, arms, where)
    if spec.tune is not None:
        arms, compared = _with_tuned(spec, spec.tune, arms, where)
    known = {arm.name for arm in arms} | set(spec.arms)
    for number, published in enumerate(spec.published):
        if published.arm not in known:
            raise SpecError(_placed(where, ("published", number, "arm"), unknown("arm", published.arm, known)))
    contrasts = tuple(_contrasts(spec, compared, where))
    if spec.decide is not None and (left := 1 - spec.decide.confidence) / len(contrasts) < LEAST_ERROR:
        problem = f"confidence {spec.decide.confidence:g} leaves {left:.2g} for {len(contrasts)} contrasts; lower it"
        raise SpecError(_placed(where, ("decide", "confidence"), problem))
    return Study(spec, tuple(arms), contrasts)


def _with_matched(spec: StudySpec, arms: list[Arm], where: Where | None) -> list[Arm]:
    """Give arms the networks that `match` found for them."""
    names = {arm.name for arm in arms}
    if spec.match is not None and spec.match.to is not None and spec.match.to not in names | set(spec.arms):
        problem = unknown("arm", spec.match.to, names | set(spec.arms))
        raise SpecError(_placed(where, ("match", "to"), problem))
    networks = {one.arm: one.network for one in spec.matched or ()}
    own = {arm.name: arm.trial.network for arm in arms}
    for number, (name, network) in enumerate(networks.items()):
        before = own.get(name)
        if not isinstance(before, NetworkSpec) or _but_for_widths(before) != _but_for_widths(network):
            problem = f"{name} is an arm no more, or differs from it in more than widths; remove matched to match anew"
            raise SpecError(_placed(where, ("matched", number), problem))
    return [
        replace(arm, trial=arm.trial.model_copy(update={"network": networks.get(arm.name, arm.trial.network)}))
        for arm in arms
    ]


def _with_tuned(spec: StudySpec, tune: TuneSpec, arms: list[Arm], where: Where | None) -> tuple[list[Arm], list[Arm]]:
    """Give arms what tuning chose, or all that it tried; and, for whether a contrast has two sides, the same values."""
    varied = {_path(key) for key in spec.vary}
    for key in tune.space:
        path = path_of(key)
        if path in varied:
            raise SpecError(
                _placed(where, ("tune", key), f"{key} is varied and cannot be tuned as well; leave one out")
            )
        if spec.match is not None and path.startswith("network."):
            problem = f"{key} would change networks that match makes equal; tune training alone, or leave out match"
            raise SpecError(_placed(where, ("tune", key), problem))
    if tune.tried is not None:
        tried = tune.tried
        return [one for arm in arms for one in _searched(spec, arm, tried.get(arm.name, []))], []
    try:
        tune.seed_values(spec.seed_values)
    except SpecError as error:
        raise SpecError(_placed(where, ("tune", "seeds"), error)) from None
    for arm, (key, space) in itertools.product(arms, tune.space.items()):
        for value in edges(space):
            try:
                tuned_trial(spec, arm, {key: value})
            except SpecError as error:
                raise SpecError(
                    _placed(where, ("tune", key), f"{value!r} for arm {arm.name}: {error}{near(key)}")
                ) from None
    same = {key: edges(space)[-1] for key, space in tune.space.items()}
    try:
        compared = [replace(arm, trial=tuned_trial(spec, arm, same)) for arm in arms]
    except SpecError as error:
        problem = f"{', '.join(f'{key} {value!r}' for key, value in same.items())} together: {error}"
        raise SpecError(_placed(where, ("tune",), problem)) from None
    if tune.chosen is None:
        return arms, compared
    if tune.chosen.keys() != (names := {arm.name for arm in arms}):
        wrong = sorted(tune.chosen.keys() ^ names)[0]
        problem = f"arm {wrong!r} has no values, or is no arm of the study; remove chosen to tune anew"
        raise SpecError(_placed(where, ("tune", "chosen"), problem))
    return [replace(arm, trial=tuned_trial(spec, arm, tune.chosen[arm.name])) for arm in arms], compared


def _searched(spec: StudySpec, arm: Arm, tried: Iterable[Mapping[str, Value]]) -> Iterable[Arm]:
    for number, values in enumerate(tried, 1):
        yield Arm(
            setting_name(arm, number),
            arm.base,
            {**arm.factors, "trial": number, **values},
            tuned_trial(spec, arm, values),
        )


def setting_name(arm: Arm, number: int) -> str:
    """Return the name that a setting of an arm, counted from 1, has in the study of the search."""
    return _arm_name(arm.base, {**arm.factors, "trial": number})


def tuned_trial(spec: StudySpec, arm: Arm, values: Mapping[str, Value]) -> TrialSpec:
    """Return an arm's trial with tuned values laid over it.

    Raises:
        SpecError: the arm has no such key, or the value is impossible.
    """
    laid = {path_of(key): value for key, value in values.items()}
    trial = _trial(spec, spec.arms[arm.base], {**arm.factors, **laid})
    return trial if spec.match is None else trial.model_copy(update={"network": arm.trial.network})


def _but_for_widths(network: NetworkSpec) -> dict[str, Any]:
    plain = network.model_dump(mode="json")
    for part in (*plain["stages"], plain["stem"] or {}):
        part.pop("width", None)
        part.pop("inner_width", None)
    return plain


def _path(key: str) -> str:
    return key if "." in key else f"network.{key}"


def _arm_name(base: str, factors: Mapping[str, Scalar]) -> str:
    inside = ",".join(f"{key}={value}" for key, value in factors.items())
    return f"{base}[{inside}]" if inside else base


def _trial(spec: StudySpec, arm: ArmSpec, factors: Mapping[str, Scalar]) -> TrialSpec:
    plain = {
        "data": _merged(spec.data.model_dump(mode="json"), arm.data),
        "training": _merged(spec.training.model_dump(mode="json"), arm.training),
        "probes": spec.probes.model_dump(mode="json"),
        **({} if arm.pretraining is None else {"pretraining": arm.pretraining}),
    }
    changes: dict[str, Any] = {}
    for key, value in factors.items():
        set_key(changes, _path(key), value)
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
        inner = dict(inner)  # a copy, as YAML's aliases stand for one mapping at several places
        data[key], data = inner, inner
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


def default_metric(study: "Study") -> str:
    """Return the metric that a study's arms are for where no contrast names one: that of their task."""
    return str(metric_name(tasks_of(study)[0].metric))


def tasks_of(study: "Study") -> tuple[Task, ...]:
    """Return the tasks of a study's arms, each once."""
    return tuple(dict.fromkeys(task_of(arm.trial.data.task) for arm in study.arms))


def _contrasts(spec: StudySpec, arms: list[Arm], where: Where | None) -> Iterable[ContrastSpec]:
    by_name = {arm.name: arm for arm in arms}
    said: set[tuple[frozenset[str], str, float | None]] = set()
    if spec.contrasts is None:
        named = "test_error" if spec.decide is None else spec.decide.metric
        pairs = [ContrastSpec(a=a, b=b, metric=named) for b, a in itertools.combinations(spec.arms, 2)]
    else:
        pairs = spec.contrasts
    if spec.decide is not None and not pairs:
        problem = "decide: the study has no contrasts to decide; give two arms or more, or leave out decide"
        raise SpecError(_placed(where, (), problem))
    for number, pair in enumerate(pairs):
        try:
            if spec.decide is not None:
                pair = spec.decide.fill(pair)
            for contrast in _at_all_levels(spec, by_name, pair):
                metric(contrast.metric)  # a custom one can be imported: said before anything is trained
                sides = (frozenset((contrast.a, contrast.b)), contrast.metric, contrast.target)
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
            pair.model_copy(update={"a": arm.name, "b": _arm_name(pair.b, arm.factors)})
            for arm in arms.values()
            if arm.base == pair.a
        ]
    else:
        raise SpecError(
            f"[{pair.a}, {pair.b}] pairs an arm at one level with an arm at all levels; name both or neither level"
        )
    for contrast in _of_their_task(found, arms):
        if arms[contrast.a].trial == arms[contrast.b].trial:
            raise SpecError(f"{contrast.a} and {contrast.b} are one network under one recipe: nothing to compare")
        epochs = [arms[side].trial.training.epochs for side in (contrast.a, contrast.b)]
        if contrast.metric == "learning_curve_area" and len(set(epochs)) > 1:
            raise SpecError(
                f"{contrast.a} and {contrast.b} are trained for {epochs[0]} and {epochs[1]} epochs, and a mean over"
                " epochs needs as many of both; compare test_error or epochs_to"
            )
        yield contrast


def _of_their_task(contrasts: Iterable[ContrastSpec], arms: Mapping[str, Arm]) -> Iterable[ContrastSpec]:
    """Yield contrasts with their task's own metric in place of the test error, the default of specifications."""
    for contrast in contrasts:
        own = metric_name(task_of(arms[contrast.a].trial.data.task).metric)
        yield contrast.model_copy(update={"metric": own}) if contrast.metric == "test_error" != own else contrast


def _placed(where: Where | None, path: tuple[int | str, ...], problem: object) -> str:
    place = where(path) if where else ""
    return ": ".join(part for part in (place, ".".join(map(str, path)), str(problem)) if part)


def expand_stored(spec: Mapping[str, Any]) -> Study:
    """Expand a study's specification as a store gives it back.

    Raises:
        SpecError: another version of Leadline wrote it, and this one cannot read it.
    """
    return expand(parse(StudySpec, spec))
