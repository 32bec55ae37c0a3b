"""A study spelled out: arms crossed with factors, seeds, contrasts, expanded into trials. Pure."""

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from leadline.errors import Problem, SpecError, unknown
from leadline.networks import family
from leadline.parts.metrics import CurveMetric, metric, metric_name
from leadline.parts.tasks import Task, task_of
from leadline.seeds import SOURCES, Seed, Source, key_of
from leadline.specs import ModuleSpec, NetworkSpec, ProbeSpec, TrialSpec, parse
from leadline.specs.contrast import ContrastSpec
from leadline.specs.decide import LEAST_ERROR, DecideSpec
from leadline.specs.study import SEARCH, ArmSpec, Published, Scalar, StudySpec
from leadline.specs.tuning import TuneSpec, Value, edges, near, path_of
from leadline.study.origin import UNSAID
from leadline.study.places import Places
from leadline.study.resolved import NOTHING_FOUND, ResolvedStudy, complete_title
from leadline.text import plural

LONGEST_NAME = 255
"""Maximum length of an arm's name with its levels, which every database can store."""

MOST_TRIALS = 100_000
"""Maximum number of trials of a study: arms at every combination of levels, times seeds."""

MOST_ARMS_IN_PAIRS = 10
"""Arms up to which a study without `contrasts` compares every pair; with more, each is compared with the first."""

MOST_CHANGES = 6
"""Changes of a ready study that are named; more are counted."""

_OF_THE_READY_STUDY = {
    "notes": "The notes are those of the unchanged study.",
    "published": "The published numbers are for the unchanged study and are not compared.",
}


@dataclass(frozen=True)
class Arm:
    """One variant at one level of every factor; `trial` holds everything but the seed."""

    name: str
    base: str
    factors: Mapping[str, Scalar]
    trial: TrialSpec

    def at(self, seed: int) -> TrialSpec:
        """Return this arm's trial at a seed."""
        return self.trial.with_seed(seed)

    def with_changes(self, **parts: object) -> "Arm":
        """Return this arm with parts of its trial replaced."""
        return replace(self, trial=self.trial.model_copy(update=parts))


@dataclass(frozen=True)
class ExpandedStudy:
    """A study spelled out: every arm and every contrast, as the specification asks for them and as a run resolved them.

    Where `resolved` holds the settings of a search, this is the study of that search, under a name of its own.
    """

    spec: StudySpec
    asked: tuple[Arm, ...]  # as the specification gives them, before matching and tuning
    pairs: tuple[ContrastSpec, ...]  # every contrast between named arms
    resolved: ResolvedStudy = NOTHING_FOUND
    places: Places = field(default=Places(), compare=False, repr=False)  # where the specification is written

    @property
    def name(self) -> str:
        """The name that the study has in the ledger."""
        return self.spec.name if self.resolved.search is None else self.spec.name + SEARCH

    @property
    def title(self) -> str:
        """The title, which may be empty."""
        found = self.resolved
        return complete_title(self.spec.title, self.spec.name, found.search is not None, found.changed)

    @property
    def contrasts(self) -> tuple[ContrastSpec, ...]:
        """Contrasts between named arms; a search has none."""
        return self.pairs if self.resolved.search is None else ()

    @property
    def published(self) -> Sequence[Published]:
        """Published numbers to print next to the measured ones; those of a ready study only while it is unchanged."""
        return self.spec.published if self.resolved.search is None and self.resolved.is_own("published") else ()

    @property
    def decide(self) -> DecideSpec | None:
        """How the study decides while seeds are added; None: all its seeds are fixed beforehand."""
        return self.spec.decide if self.resolved.search is None else None

    @property
    def seed_values(self) -> tuple[int, ...]:
        """The seeds themselves; of a study that decides, all it may take."""
        return self.spec.seed_values if self.resolved.search is None else tuple(self.resolved.search.seeds)

    @property
    def shared_over(self) -> int:
        """Seeds over which a study that decides shares the error out."""
        assert self.spec.decide is not None
        return self.resolved.planned or self.spec.decide.shared_over

    @property
    def matching(self) -> tuple[str, ...]:
        """What was done to make arms equal, in sentences; empty where nothing was asked for or done yet."""
        if self.spec.match is None or self.resolved.matched is None:
            return ()
        said = tuple(one.sentence for one in self.resolved.matched)
        return said or (f"match {self.spec.match.what}: the arms are already equal within 1%; nothing was changed.",)

    @property
    def changes(self) -> str:
        """What differs from the ready study that this one was made from, in a line; empty: nothing does."""
        said = [f"{key} {values}" for key, values in self.resolved.changed.items() if key not in UNSAID]
        if not said:
            return ""
        more = f", and {len(said) - MOST_CHANGES} more" if len(said) > MOST_CHANGES else ""
        line = f"Changed from the ready study {self.spec.based_on}: {', '.join(said[:MOST_CHANGES])}{more}."
        left = [key for key in ("notes", "published") if getattr(self.spec, key) and not self.resolved.is_own(key)]
        return " ".join([line, *(_OF_THE_READY_STUDY[key] for key in left)])

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader must know of how the specification was made and completed, in sentences."""
        return tuple(filter(None, (self.changes, *self._completed, self._views)))

    @property
    def _completed(self) -> tuple[str, ...]:
        count = len(self.spec.arms)
        if self.spec.contrasts is not None or count <= MOST_ARMS_IN_PAIRS:
            return self.matching
        first = next(iter(self.spec.arms))
        return (
            f"The study names no contrasts and has {count} arms, more than {MOST_ARMS_IN_PAIRS}: each arm is compared"
            f" with the first, {first}, and not with the others.",
            *self.matching,
        )

    @property
    def _views(self) -> str:
        if self.resolved.search is not None or self._tunes_views:
            return ""
        views = [arm.trial.training.evaluation for arm in self.arms]
        counts = [1 if one is None else one.count for one in views]
        if set(counts) == {1}:
            return ""
        if len(set(counts)) == 1:
            evaluated = f"the mean over {counts[0]} views of each image"
        else:
            several = sum(count > 1 for count in counts)
            evaluated = f"the mean over several views of each image in {several} of {plural(len(counts), 'arm')}"
        return f"At the end of training, validation and test results are of {evaluated} (training.evaluation)."

    @property
    def _tunes_views(self) -> bool:
        tuned = {} if self.spec.tune is None or self.resolved.chosen is not None else self.spec.tune.space
        return any(key.startswith("training.evaluation") for key in tuned)

    @cached_property
    def arms(self) -> tuple[Arm, ...]:
        """The arms with the networks that matching found and the values that tuning chose; of a search all it tries."""
        found, arms = self.resolved, list(self.asked)
        networks = {one.arm: one.network for one in found.matched or ()}
        arms = [
            arm.with_changes(network=networks.get(arm.name, arm.trial.network), code=found.code.get(arm.name, {}))
            for arm in arms
        ]
        if found.search is not None:
            return tuple(
                one for arm in arms for one in _search_arms(self.spec, arm, found.search.tried.get(arm.name, []))
            )
        if found.chosen is not None:
            arms = [replace(arm, trial=apply_tuned(self.spec, arm, found.chosen[arm.name])) for arm in arms]
        return tuple(arms)

    @property
    def unresolved(self) -> tuple[str, ...]:
        """The keys of the specification whose answer the trials hang on, and which no run has found yet."""
        spec, found = self.spec, self.resolved
        return (
            *(["match"] if spec.match is not None and found.matched is None else []),
            *(["tune"] if spec.tune is not None and found.chosen is None and found.search is None else []),
            *(["decide"] if self.decide is not None and found.planned is None else []),
        )

    def resolve(self, **found: object) -> "ExpandedStudy":
        """Return the study with these fields of `resolved` changed."""
        return replace(self, resolved=self.resolved.model_copy(update=found))

    def trials(self) -> Iterable[tuple[Arm, TrialSpec]]:
        """Every trial, seed by seed, so that a study stopped early has complete pairs; of one that decides, so far."""
        taken = {arm.name: len(self.seeds_of(arm.name)) for arm in self.arms}
        for place, seed in enumerate(self.seed_values):
            for arm in self.arms:
                if place < taken[arm.name]:
                    yield arm, arm.at(seed)

    def seeds_of(self, arm: str) -> tuple[int, ...]:
        """Return the seeds that an arm has, in the study's order; before the first round those of that round."""
        seeds, decide = self.seed_values, self.decide
        return seeds if decide is None else seeds[: self.resolved.drawn.get(arm, decide.first)]


def expand(spec: StudySpec, resolved: ResolvedStudy = NOTHING_FOUND) -> ExpandedStudy:
    """Cross the arms with the factors and resolve every network.

    Args:
        spec: the study.
        resolved: what earlier runs of it determined, as stored in the ledger.

    Raises:
        SpecError: arms, arguments or contrasts are invalid, each in a line; or there are more than `MOST_TRIALS`
            trials.
    """
    _bound_trials(spec)
    arms, problems = [], []
    for base, arm in spec.arms.items():
        for factors in _combinations(spec):
            name = _arm_name(base, factors)
            if len(name) > LONGEST_NAME:
                text = (
                    f"{name[:60]}... has {len(name)} characters with its levels; at most {LONGEST_NAME} are allowed;"
                    f" shorten the names"
                )
                problems.append(Problem(text).under(("arms", base)))
                continue
            try:
                arms.append(Arm(name, base, factors, _trial(spec, arm, factors)))
            except SpecError as error:
                problems += [
                    Problem(f"arms.{base}: {one.text}", source_of(spec, base, factors, one.path))
                    for one in error.problems
                ]
    problems += [*_unknown_arms(spec, resolved), *(_seeds_of_no_arm(spec, arms) if not problems else ())]
    if problems:
        each_once = {one.text: one for one in reversed(problems)}  # such as an argument unknown at every level
        raise SpecError(*reversed(each_once.values()))
    if resolved.search is not None:
        return ExpandedStudy(spec, tuple(arms), (), resolved)
    if spec.tune is not None:
        _check_tune(spec, spec.tune, arms)
    contrasts = _contrasts(spec, align_tuned(spec, arms))
    if spec.decide is not None and (left := 1 - spec.decide.confidence) / len(contrasts) < LEAST_ERROR:
        problem = f"confidence {spec.decide.confidence:g} leaves {left:.2g} for {len(contrasts)} contrasts; lower it"
        raise _error(("decide", "confidence"), problem)
    return ExpandedStudy(spec, tuple(arms), contrasts, resolved)


def source_of(
    spec: StudySpec, base: str, factors: Mapping[str, Scalar], path: tuple[int | str, ...]
) -> tuple[int | str, ...]:
    """Return the keys of a study that give an arm's trial the value at a path, such as ("network", "depth")."""
    for key, value in factors.items():
        laid = tuple(_path(key).split("."))
        if (shared := min(len(path), len(laid))) > 1 and path[:shared] == laid[:shared]:
            return ("vary", key, spec.vary[key].index(value))
    overrides = {"training": spec.arms[base].training, "data": spec.arms[base].data, "probes": {}}
    own = not path or path[0] not in overrides or (len(path) > 1 and path[1] in overrides[str(path[0])])
    return ("arms", base, *path) if own else path


def _combinations(spec: StudySpec) -> Iterator[dict[str, Scalar]]:
    """Yield the levels of all factors, in every combination."""
    levels = [[(key, value) for value in values] for key, values in spec.factors.items()]
    return (dict(combination) for combination in itertools.product(*levels))


def _bound_trials(spec: StudySpec) -> None:
    sizes = [len(spec.arms), math.prod(len(levels) for levels in spec.factors.values()), len(spec.seed_values)]
    if math.prod(sizes) > MOST_TRIALS:
        arms, levels, seeds = sizes
        crossed = f"{plural(arms, 'arm')} x {plural(levels, 'combination of levels', 'combinations of levels')}"
        problem = (
            f"{crossed} x {plural(seeds, 'seed')} are {math.prod(sizes):,} trials, and a study has at most"
            f" {MOST_TRIALS:,}; divide it into several studies"
        )
        raise _error(("vary",) if levels > 1 else ("arms",), problem)


def _unknown_arms(spec: StudySpec, resolved: ResolvedStudy) -> Iterator[Problem]:
    """Yield the names in `match`, `published` and `contrasts` that are of no arm."""
    known = {*spec.arms, *(_arm_name(base, factors) for base in spec.arms for factors in _combinations(spec))}
    named: list[tuple[tuple[int | str, ...], str]] = []
    if spec.match is not None and spec.match.to is not None:
        named.append((("match", "to"), spec.match.to))
    if resolved.is_own("published"):
        named += [(("published", number, "arm"), one.arm) for number, one in enumerate(spec.published)]
    for number, pair in enumerate(spec.contrasts or ()):
        named += [(("contrasts", number, "a"), pair.a), (("contrasts", number, "b"), pair.b)]
    for path, name in named:
        if name not in known:
            shown = path[:2] if path[0] == "contrasts" else path
            yield Problem(f"{'.'.join(map(str, shown))}: {unknown('arm', name, known)}", path)


_LACKS: dict[Source, str] = {
    "init": "draws a weight (files have them all)",
    "augment": "augments its images",
    "noise": "has dropout, stochastic depth or custom code",
    "split": "resamples its images (data.resample) or has label noise (data.label_noise)",
}


def _seeds_of_no_arm(spec: StudySpec, arms: Sequence[Arm]) -> Iterator[Problem]:
    """Yield the sources of randomness that have several seeds and of which no arm draws, so that all trials agree."""
    for source in SOURCES:
        if source not in drawn_sources(arms):
            yield from seeds_of_nothing(spec, source)


def drawn_sources(arms: Sequence[Arm]) -> tuple[Source, ...]:
    """Return the sources of randomness that at least one arm draws from."""
    return tuple(source for source in SOURCES if any(source in arm.trial.sources for arm in arms))


def seeds_of_nothing(spec: StudySpec, source: Source) -> Iterator[Problem]:
    """Yield a problem if a source of randomness of which no arm draws has several seeds."""
    seeds = [seed.by_source for seed in spec.seed_values if isinstance(seed, Seed)]
    if len({one.get(source) for one in seeds}) > 1:
        key = key_of(source)
        path = ("vary", key) if key in spec.vary else ("seeds",)
        yield Problem(f"{key}: no arm {_LACKS[source]}, so its seeds would change nothing; give it one seed", path)


def align_tuned(spec: StudySpec, arms: Sequence[Arm]) -> list[Arm]:
    """Return arms with the same value of each tuned key, so that arms that differ only by tuning compare equal.

    Raises:
        SpecError: values that are valid one by one are invalid together.
    """
    if spec.tune is None:
        return list(arms)
    same = {key: edges(space)[-1] for key, space in spec.tune.space.items()}
    try:
        return [replace(arm, trial=apply_tuned(spec, arm, same)) for arm in arms]
    except SpecError as error:
        problem = f"{', '.join(f'{key} {value!r}' for key, value in same.items())} together: {error}"
        raise _error(("tune",), problem) from None


def refuse_twins(contrast: ContrastSpec, arms: Mapping[str, Arm]) -> None:
    """Raise an error if the two arms of a contrast are the same.

    Raises:
        SpecError: they are the same.
    """
    if arms[contrast.a].trial == arms[contrast.b].trial:
        raise SpecError(
            f"{contrast.a} and {contrast.b} have the same network and the same training, so there is nothing to"
            f" compare; change one of them"
        )


def _check_tune(spec: StudySpec, tune: TuneSpec, arms: list[Arm]) -> None:
    """Check that every arm has the tuned keys and that their spaces contain only valid values."""
    varied = {_path(key) for key in spec.vary}
    problems = []
    for key in tune.space:
        path = path_of(key)
        if path in varied:
            problem = f"{key} is varied and cannot be tuned as well; remove it from vary or from tune"
            problems.append(Problem(problem).under(("tune", key)))
        if spec.match is not None and path.startswith("network."):
            problem = f"{key} would change networks that match makes equal; tune only training keys, or remove match"
            problems.append(Problem(problem).under(("tune", key)))
    try:
        tune.seed_values(spec.seeds_taken)
    except SpecError as error:
        problems += [one.under(("tune", "seeds")) for one in error.problems]
    if problems:
        raise SpecError(*problems)
    for arm, (key, space) in itertools.product(arms, tune.space.items()):
        for value in edges(space):
            try:
                apply_tuned(spec, arm, {key: value})
            except SpecError as error:
                raise _error(("tune", key), f"{value!r} for arm {arm.name}: {error}{near(key)}") from None


def _search_arms(spec: StudySpec, arm: Arm, tried: Iterable[Mapping[str, Value]]) -> Iterable[Arm]:
    for number, values in enumerate(tried, 1):
        factors = {**arm.factors, "trial": number, **values}
        yield Arm(setting_name(arm, number), arm.base, factors, search_trial(spec, arm, values))


def setting_name(arm: Arm, number: int) -> str:
    """Return the name that a setting of an arm, counted from 1, has in the study of the search."""
    return _arm_name(arm.base, {**arm.factors, "trial": number})


def apply_tuned(spec: StudySpec, arm: Arm, values: Mapping[str, Value], probes: ProbeSpec | None = None) -> TrialSpec:
    """Return an arm's trial with tuned values, and with these probes instead of the study's.

    Raises:
        SpecError: the arm has no such key, or the value is invalid.
    """
    laid = {path_of(key): value for key, value in values.items()}
    trial = _trial(spec, spec.arms[arm.base], {**arm.factors, **laid}, probes)
    kept = {"code": arm.trial.code} if spec.match is None else {"code": arm.trial.code, "network": arm.trial.network}
    return trial.model_copy(update=kept)


def search_trial(spec: StudySpec, arm: Arm, values: Mapping[str, Value]) -> TrialSpec:
    """Return the trial of a search: like `apply_tuned`, but without probes, which do not affect the choice."""
    return apply_tuned(spec, arm, values, ProbeSpec())


def _path(key: str) -> str:
    return key if "." in key else f"network.{key}"


def _arm_name(base: str, factors: Mapping[str, Scalar]) -> str:
    inside = ",".join(f"{key}={value}" for key, value in factors.items())
    return f"{base}[{inside}]" if inside else base


def _trial(spec: StudySpec, arm: ArmSpec, factors: Mapping[str, Scalar], probes: ProbeSpec | None = None) -> TrialSpec:
    plain = {
        "data": _merge(spec.data.model_dump(mode="json"), arm.data),
        "training": _merge(spec.training.model_dump(mode="json"), arm.training),
        "probes": (probes or spec.probes).model_dump(mode="json"),
        **({} if arm.pretraining is None else {"pretraining": arm.pretraining}),
    }
    changes: dict[str, Any] = {}
    for key, value in factors.items():
        set_key(changes, _path(key), value)
    network = _resolve_for_trial(arm, changes.pop("network", {}))
    for section, change in changes.items():
        plain[section] = _merge(plain.get(section, {}), change)
    return parse(TrialSpec, {**plain, "network": network.model_dump(mode="json")})


def _resolve_for_trial(arm: ArmSpec, changes: Mapping[str, Any]) -> NetworkSpec | ModuleSpec:
    try:
        return resolve_network(arm.network, changes)
    except SpecError as error:
        raise SpecError(*(Problem(one.text, ("network", *one.path)) for one in error.problems)) from None


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
    return parse(NetworkSpec, _merge(network, arguments))


def set_key(data: dict[str, Any], dotted: str, value: object) -> None:
    """Set `data["a"]["b"]` from `a.b`, making intermediate mappings as needed.

    Raises:
        SpecError: an intermediate value is not a mapping.
    """
    *path, last = dotted.split(".")
    for key in path:
        inner = data.setdefault(key, {})
        if not isinstance(inner, dict):
            raise SpecError(f"{dotted}: {key!r} is {inner!r}, which is not a mapping and has no keys")
        inner = dict(inner)  # a copy, as YAML's aliases stand for one mapping at several places
        data[key], data = inner, inner
    data[last] = value


def _merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Merge changes into a base recursively; a mapping with another `name` or `module` is replaced as a whole.

    If the base itself is replaced, it keeps the keys that all members share, such as the sizes of a data set's splits.
    """
    result = dict(base)
    if _is_replaced(base, changes):
        for key in ("name", "module", "arguments"):
            result.pop(key, None)
    for key, value in changes.items():
        old = result.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping) and not _is_replaced(old, value):
            value = _merge(old, value)
        result[key] = value
    return result


def _is_replaced(base: Mapping[str, Any], changes: Mapping[str, Any]) -> bool:
    return any(key in changes and changes[key] != base.get(key) for key in ("name", "module"))


def default_metric(study: "ExpandedStudy") -> str:
    """Return the metric that a study's arms are for where no contrast names one: that of their task."""
    return str(metric_name(tasks_of(study)[0].metric))


def tasks_of(study: "ExpandedStudy") -> tuple[Task, ...]:
    """Return the tasks of a study's arms, each once."""
    return tuple(dict.fromkeys(task_of(arm.trial.data.task) for arm in study.arms))


def _contrasts(spec: StudySpec, arms: list[Arm]) -> tuple[ContrastSpec, ...]:
    by_name = {arm.name: arm for arm in arms}
    said: set[tuple[frozenset[str], str, float | None]] = set()
    pairs = _default_pairs(spec) if spec.contrasts is None else spec.contrasts
    if spec.decide is not None and not pairs:
        raise SpecError("decide: the study has no contrasts to decide; add a second arm, or remove decide")
    found: list[ContrastSpec] = []
    problems: list[Problem] = []
    for number, pair in enumerate(pairs):
        try:
            if spec.decide is not None:
                pair = spec.decide.fill(pair)
            for contrast in _cross_levels(spec, by_name, pair):
                metric(contrast.metric)  # a custom one can be imported: said before anything is trained
                sides = (frozenset((contrast.a, contrast.b)), contrast.metric, contrast.target)
                if sides in said:
                    raise SpecError(f"{contrast.a} and {contrast.b} are compared twice; remove one of the contrasts")
                said.add(sides)
                found.append(contrast)
        except SpecError as error:
            problems += [one.under(("contrasts", number)) for one in error.problems]
    if problems:
        raise SpecError(*problems)
    return tuple(found)


def _default_pairs(spec: StudySpec) -> list[ContrastSpec]:
    """Return the contrasts of a study that names none: all pairs, or those with the first arm if arms are many."""
    named = "test_error" if spec.decide is None else spec.decide.metric
    first, *others = spec.arms
    many = len(spec.arms) > MOST_ARMS_IN_PAIRS
    pairs = ((first, other) for other in others) if many else itertools.combinations(spec.arms, 2)
    return [ContrastSpec(a=a, b=b, metric=named) for b, a in pairs]


def _cross_levels(spec: StudySpec, arms: Mapping[str, Arm], pair: ContrastSpec) -> Iterable[ContrastSpec]:
    if pair.a == pair.b:
        raise SpecError(f"arm {pair.a!r} is compared with itself; name two different arms")
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
            f"[{pair.a}, {pair.b}] pairs an arm at one level with an arm at all levels; give the level of both arms or"
            f" of neither"
        )
    for contrast in _with_task_metric(found, arms):
        needed = metric(contrast.metric).requires
        for side in (contrast.a, contrast.b):
            if needed and getattr(arms[side].trial.training, needed) is None:
                raise SpecError(f"metric {contrast.metric} needs training.{needed}, which arm {side} does not have")
        if arms[contrast.a].trial == arms[contrast.b].trial:
            raise SpecError(
                f"{contrast.a} and {contrast.b} have the same network and the same training, so there is nothing to"
                f" compare; change one of them"
            )
        epochs = [arms[side].trial.training.epochs for side in (contrast.a, contrast.b)]
        stopping = [side for side in (contrast.a, contrast.b) if arms[side].trial.training.early_stopping is not None]
        if isinstance(metric(contrast.metric), CurveMetric) and stopping:
            raise SpecError(
                f"{stopping[0]} stops early, after a number of epochs that differs from trial to trial, but"
                f" {contrast.metric} is a mean over epochs and needs equal numbers; compare test_error or epochs_to"
                f" instead"
            )
        if isinstance(metric(contrast.metric), CurveMetric) and len(set(epochs)) > 1:
            raise SpecError(
                f"{contrast.a} and {contrast.b} are trained for {epochs[0]} and {epochs[1]} epochs, but a mean over"
                f" epochs needs equal numbers; compare test_error or epochs_to instead"
            )
        yield contrast


def _with_task_metric(contrasts: Iterable[ContrastSpec], arms: Mapping[str, Arm]) -> Iterable[ContrastSpec]:
    """Yield contrasts with the metric of their task instead of test error, the default of specifications."""
    for contrast in contrasts:
        own = metric_name(task_of(arms[contrast.a].trial.data.task).metric)
        yield contrast.model_copy(update={"metric": own}) if contrast.metric == "test_error" != own else contrast


def _error(path: tuple[int | str, ...], problem: str) -> SpecError:
    return SpecError(Problem(problem).under(path))
