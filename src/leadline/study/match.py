"""Arms made equal in parameters, multiply-adds or activations by their widths, so that depth is all that differs.

All widths of an arm are scaled alike and rounded; where no scale comes near enough, widths are moved one step at a
time: first all those that are equal together, then the widths inside the branches, then every stage by itself. Each of
these leaves less of the network's proportions than the one before, so the first that comes within 1% is taken.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from leadline.data.metadata import describe
from leadline.errors import SpecError
from leadline.networks.modules import InputShape, count_operations, inspect_network, skeleton
from leadline.networks.modules.memory import training_memory
from leadline.specs import ModuleSpec, NetworkSpec, parse
from leadline.study.expand import Arm, ExpandedStudy, align_tuned, refuse_twins
from leadline.study.resolved import MatchedArm

What = Literal["parameters", "multiply_adds", "activations"]
Widths = Mapping[str, int]  # "stem", "stages.0.width", "stages.0.inner_width" -> channels

TOLERANCE = 0.01
"""Maximum relative deviation of an arm from the target count."""

_UNITS = {"parameters": "parameters", "multiply_adds": "multiply-adds", "activations": "bytes of activations"}
_SCALES = 12  # tries of one scale for all widths; the counts are smooth, so few are needed
_MOVES = (1, 2, 4)  # steps that a width is moved by


def match(study: ExpandedStudy, data_dir: Path | None = None) -> ExpandedStudy:
    """Return a study whose arms are equal within 1% in what `match` names, and which says what was changed.

    At each level of the factors every arm is made equal to the first one, or to the one that `match.to` names. Stem,
    stages and the widths inside branches change, and nothing else. A study without `match` is returned as it is.

    Args:
        study: the study, expanded.
        data_dir: where the data are; folders of images are asked how many classes they have.

    Raises:
        SpecError: an arm comes no nearer than 1%, is a custom module that is not equal already, or has become
            the same as one that it is compared with.
        DataError: a folder of images is missing or not laid out in classes.
    """
    asked = study.spec.match
    if asked is None:
        return study
    changes = []
    for arm, reference in _pairs(study, asked.to):
        shape, classes = describe(arm.trial.data, data_dir)
        target = count(asked.what, reference.trial.network, *describe(reference.trial.data, data_dir))
        before = count(asked.what, arm.trial.network, shape, classes)
        if abs(before / target - 1) <= TOLERANCE:
            continue
        title = f"match {asked.what}: {arm.name}"
        if isinstance(arm.trial.network, ModuleSpec):
            raise SpecError(
                f"{title}: {arm.trial.network.module} is a custom module, with {before:,} {_UNITS[asked.what]}"
                f" against {target:,} of {reference.name}; only networks built from Leadline's parts can be matched"
            )
        network = nearest(arm.trial.network, target, lambda spec: count(asked.what, spec, shape, classes))  # noqa: B023
        after = count(asked.what, network, shape, classes)
        said = f"{_describe_changes(arm.trial.network, network)}: {before:,} -> {after:,} {_UNITS[asked.what]}"
        gap = f"{100 * abs(after / target - 1):.1f}% from the {target:,} of {reference.name}"
        if abs(after / target - 1) > TOLERANCE:
            raise SpecError(
                f"{title} cannot be matched within 1%; closest: {said}, {gap}; choose another arm as match.to, another"
                f" depth, or larger widths, which allow finer steps"
            )
        changes.append(MatchedArm(arm=arm.name, network=network, sentence=f"{title} {said}, {gap}."))
    found = study.resolve(matched=changes)
    arms = {arm.name: arm for arm in align_tuned(study.spec, found.arms)}
    for contrast in found.contrasts:
        refuse_twins(contrast, arms)
    return found


def count(what: What, spec: NetworkSpec | ModuleSpec, shape: InputShape, classes: int) -> int:
    """Return a network's parameters, multiply-adds of one image, or bytes kept for the backward pass of one image.

    The numbers are those of `inspect_network`, each without what the others take.

    Raises:
        SpecError: the network cannot be built, or cannot take images of this shape.
    """
    if isinstance(spec, ModuleSpec):
        info = inspect_network(spec, shape, classes)
        return {
            "parameters": info.parameters,
            "multiply_adds": info.multiply_adds,
            "activations": info.training_memory,
        }[what]
    model = skeleton(spec, shape, classes)
    match what:
        case "parameters":
            return sum(parameter.numel() for parameter in model.parameters())
        case "multiply_adds":
            with torch.no_grad(), count_operations() as operations:
                model.eval()(torch.empty(1, *shape, device="meta"))
            return operations.multiply_adds
        case "activations":
            return training_memory(model, shape)


def nearest(spec: NetworkSpec, target: int, counted: Callable[[NetworkSpec], int]) -> NetworkSpec:
    """Return a network within 1% of a target count, or the nearest that was found.

    Args:
        spec: the network whose widths may be changed.
        target: the target count, above 0.
        counted: function that counts; its value grows with every width.
    """
    known: dict[NetworkSpec, float] = {}

    def ratio(widths: Widths) -> float:
        """Return count / target, or NaN if there is no such network."""
        try:
            network = with_widths(spec, widths)
            if network not in known:
                known[network] = counted(network) / target
        except SpecError:
            return math.nan
        return known[network]

    def distance(widths: Widths) -> float:
        found = abs(ratio(widths) - 1)
        return math.inf if math.isnan(found) else found

    own = widths_of(spec)
    best = min(_scale_widths(spec, own, ratio), key=distance)
    together = [tuple(place for place in own if own[place] == width) for width in dict.fromkeys(own.values())]
    best = _refine_widths(spec, best, together, ratio, distance)
    if distance(best) > TOLERANCE:
        best = widths_of(with_widths(spec, best), inside=True)
        inside = [(place,) for place in best if place.endswith(".inner_width")]
        best = _refine_widths(spec, best, inside, ratio, distance)
        # blocks are shared where a stage is as wide as what comes before it
        if spec.sharing is None:
            best = _refine_widths(spec, best, [(place,) for place in best], ratio, distance)
    return _omit_implied(spec, with_widths(spec, best))


def widths_of(spec: NetworkSpec, inside: bool = False) -> dict[str, int]:
    """Return a network's widths by place.

    Args:
        spec: the network.
        inside: give the width inside every branch that has one, also where it follows from the stage's.
    """
    found = {} if spec.stem is None else {"stem.width": spec.stem.width}
    for number, stage in enumerate(spec.stages):
        found[f"stages.{number}.width"] = stage.width
        inner = stage.inner_width or (_implied_width(spec, stage.width) if inside else None)
        if inner is not None and spec.block.kind != "single":
            found[f"stages.{number}.inner_width"] = inner
    return found


def with_widths(spec: NetworkSpec, widths: Widths) -> NetworkSpec:
    """Return a network with the widths at some places changed.

    Raises:
        SpecError: a width that its block cannot have.
    """
    plain: dict[str, Any] = spec.model_dump(mode="json")
    for place, width in widths.items():
        *path, last = place.split(".")
        part: Any = plain
        for key in path:
            part = part[int(key) if key.isdecimal() else key]
        part[last] = width
    return parse(NetworkSpec, plain)


def _pairs(study: ExpandedStudy, to: str | None) -> Iterator[tuple[Arm, Arm]]:
    """Yield each arm that is to be matched, with its reference arm."""
    wanted = next(iter(study.spec.arms)) if to is None else to
    for arm in study.arms:
        at_each_level = [one for one in study.arms if one.base == wanted and one.factors == arm.factors]
        reference = next(one for one in (*at_each_level, *study.arms) if wanted in (one.base, one.name))
        if arm is not reference:
            yield arm, reference


def _step(spec: NetworkSpec, widths: Widths, places: Iterable[str]) -> int:
    """Return what the widths at some places, which move together, must be multiples of."""
    block = spec.block
    steps = [1]
    for place in places:
        part, _, kind = place.rpartition(".")
        if block.kind == "bottleneck" and part != "stem":
            follows = f"{part}.inner_width" not in widths
            steps.append(block.groups if kind == "inner_width" else 4 * block.groups if follows else 1)
        if spec.normalisation == "group":
            # the number of groups is a common divisor, and an odd width would be left with one
            steps.append(math.gcd(16, widths_of(spec, inside=True)[place]))
    return math.lcm(*steps)


def _scale_widths(spec: NetworkSpec, own: Widths, ratio: Callable[[Widths], float]) -> Iterator[dict[str, int]]:
    """Yield scaled widths, estimating each scale from the previous two (secant method on the logarithm)."""
    steps = {width: _step(spec, own, [place for place in own if own[place] == width]) for width in own.values()}
    log_scale, power = 0.0, 2.0  # counts grow with the power 1 to 2 of the scale
    before: tuple[float, float] | None = None
    seen: list[dict[str, int]] = []
    for _ in range(_SCALES):
        scale = math.exp(log_scale)
        widths = {place: max(1, round(width * scale / steps[width])) * steps[width] for place, width in own.items()}
        if widths in seen:
            return
        seen.append(widths)
        yield widths
        error = math.log(ratio(widths))
        if math.isnan(error):
            log_scale += 0.1  # more width, where there is too little for the network
            continue
        if before is not None and log_scale != before[0]:
            power = min(2.5, max(0.5, (error - before[1]) / (log_scale - before[0])))
        before = log_scale, error
        log_scale -= error / power


def _refine_widths(
    spec: NetworkSpec,
    widths: dict[str, int],
    knobs: Sequence[tuple[str, ...]],
    ratio: Callable[[Widths], float],
    distance: Callable[[Widths], float],
) -> dict[str, int]:
    """Greedily change the group of widths that helps most, until within the tolerance or nothing helps."""
    while distance(widths) > TOLERANCE:
        direction = -1 if ratio(widths) > 1 else 1
        tried = []
        for places in knobs:
            step = _step(spec, widths, places)
            for move in _MOVES:
                changed = {place: widths[place] + direction * move * step for place in places}
                if min(changed.values()) > 0:
                    tried.append({**widths, **changed})
        best = min(tried, key=distance, default=widths)
        if distance(best) >= distance(widths):
            return widths
        widths = best
    return widths


def _omit_implied(before: NetworkSpec, after: NetworkSpec) -> NetworkSpec:
    """Omit widths inside branches that were not specified before and follow from the width of their stage."""
    stages = [
        {**new.model_dump(mode="json"), "inner_width": None}
        if old.inner_width is None and new.inner_width == _implied_width(before, new.width)
        else new.model_dump(mode="json")
        for old, new in zip(before.stages, after.stages, strict=True)
    ]
    return after.with_(stages=stages)


def _implied_width(spec: NetworkSpec, width: int) -> int | None:
    """Return the width inside the branch that follows from the stage's, or None if there is none."""
    match spec.block.kind:
        case "single":
            return None
        case "basic":
            return width
        case "bottleneck":
            return None if width % 4 else width // 4
        case "dense":
            return 4 * width


def _describe_changes(before: NetworkSpec, after: NetworkSpec) -> str:
    """Describe which widths were changed to which; equal widths are listed once if they remain equal."""
    explicit = widths_of(before).keys() | widths_of(after).keys()
    old, new = (
        {place: width for place, width in widths_of(spec, inside=True).items() if place in explicit}
        for spec in (before, after)
    )
    became = dict.fromkeys(zip(old.values(), (new[place] for place in old), strict=True))
    if len(became) == len(set(old.values())):
        return f"widths {'/'.join(str(a) for a, _ in became)} -> {'/'.join(str(b) for _, b in became)}"
    return ", ".join(f"{place} {old[place]} -> {new[place]}" for place in old if old[place] != new[place])
