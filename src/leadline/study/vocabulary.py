"""What a study file may say, from the code: every key, and every part by its name, with types, defaults and meaning."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic.json_schema import models_json_schema

from leadline.data.datasets import DATASETS
from leadline.data.label_noise import LabelNoise
from leadline.networks import FAMILIES, list_arguments
from leadline.networks.families.registry import describe_type
from leadline.parts.augmentations import AUGMENTATIONS
from leadline.parts.averaging import AVERAGES
from leadline.parts.base import Spec
from leadline.parts.losses import LOSSES
from leadline.parts.metrics import Metric, metrics
from leadline.parts.optimizers import OPTIMIZERS
from leadline.parts.schedules import SCHEDULES
from leadline.parts.shortcuts import SHORTCUTS
from leadline.probes.snapshots import PROBES
from leadline.specs import (
    Block,
    FlowSpec,
    Head,
    Initialisation,
    NetworkSpec,
    PretrainingSpec,
    Sharing,
    Shortcut,
    Stage,
    Stem,
    TrainingSpec,
    Warmup,
)
from leadline.specs.contrast import ContrastSpec
from leadline.specs.decide import DecideSpec
from leadline.specs.network import RecurrentHead
from leadline.specs.study import ArmSpec, MatchSpec, Published, StudySpec
from leadline.specs.training import EarlyStopping, Resizing, Views
from leadline.specs.tuning import TuneSpec
from leadline.study.yaml12 import flow_text
from leadline.text.docstrings import read_docstring

REQUIRED = "required"


@dataclass(frozen=True)
class Key:
    """A key of a mapping in a study file, or an argument of a network."""

    name: str
    type: str  # in words
    default: str  # as a study file has it; `REQUIRED` where there is none
    meaning: str


@dataclass(frozen=True)
class Entry:
    """A part of a study file that has a name."""

    kind: str
    name: str
    summary: str
    details: str
    keys: tuple[Key, ...]
    source: str = ""
    example: str = ""  # lines of a study file


SECTIONS: Mapping[str, type[Spec]] = {
    "study": StudySpec,
    "arms.NAME": ArmSpec,
    "arms.NAME.pretraining": PretrainingSpec,
    "data.label_noise": LabelNoise,
    "training": TrainingSpec,
    "training.warmup": Warmup,
    "training.early_stopping": EarlyStopping,
    "training.evaluation": Views,
    "training.resizing": Resizing,
    "contrasts": ContrastSpec,
    "decide": DecideSpec,
    "tune": TuneSpec,
    "match": MatchSpec,
    "probes.flow": FlowSpec,
    "published": Published,
    "network": NetworkSpec,
    "network.stem": Stem,
    "network.stages": Stage,
    "network.block": Block,
    "network.block.shortcut": Shortcut,
    "network.sharing": Sharing,
    "network.head": Head,
    "network.head.recurrent": RecurrentHead,
    "network.initialisation": Initialisation,
}
"""Dotted key -> what stands under it; `network` is a network written out in an arm."""

KINDS: Mapping[str, Callable[[], Mapping[str, Any]]] = {
    "network": lambda: FAMILIES,
    "data set": DATASETS.members,
    "optimizer": OPTIMIZERS.members,
    "schedule": SCHEDULES.members,
    "averaging": AVERAGES.members,
    "loss": LOSSES.members,
    "augmentation": AUGMENTATIONS.members,
    "shortcut": SHORTCUTS.members,
    "probe": PROBES.members,
    "metric": metrics,
}
"""Kind of part -> its members by name."""

_EXAMPLES = {
    "network": "arms: {{mine: {{network: {0}}}}}",
    "data set": "data: {{name: {0}{1}}}",
    "optimizer": "training: {{optimizer: {{name: {0}{1}}}}}",
    "schedule": "training: {{schedule: {{name: {0}{1}}}}}",
    "averaging": "training: {{averaging: {{name: {0}{1}}}}}",
    "loss": "training: {{loss: {0}}}",
    "augmentation": "data: {{augment: {{name: {0}{1}}}}}",
    "shortcut": "arms: {{mine: {{network: {{family: cifar-resnet, shortcut: {0}}}}}}}",
    "probe": "probes: [{0}]",
    "metric": "contrasts: [{{a: residual, b: plain, metric: {0}{1}}}]",
}

_OWN_EXAMPLES = {
    "concatenate": "arms: {mine: {network: densenet}}",
    "resized-crop": "data: {name: imagefolder, path: images, augment: {name: resized-crop, scale: [0.25, 1.0]}}",
}
"""Of parts that need another one beside them."""

_REQUIRED = {"averaging": "{averaging: ema}", "early_stopping": "{early_stopping: {patience: 5}}"}
"""Key of `training` that a metric requires -> an example of it."""


def keys_of(spec: type[Spec]) -> tuple[Key, ...]:
    """Return the keys that stand for a specification.

    Example:
        >>> from leadline.parts.schedules.cosine import Cosine
        >>> [(key.name, key.type, key.default) for key in keys_of(Cosine)]
        [('final', 'number, at least 0, below 1', '0.0')]
    """
    schema = _schema(spec)
    found = []
    for name, field in spec.model_fields.items():
        if field.exclude or (name == "name" and spec is not StudySpec and not _chooses(spec)):
            continue
        default = REQUIRED if field.is_required() else _default(field.get_default(call_default_factory=True))
        found.append(Key(name, describe_type(schema.get(name, {})), default, field.description or ""))
    return tuple(found)


def entries(kind: str) -> tuple[Entry, ...]:
    """Return the members of a kind of part, in the order of their names.

    Example:
        >>> [entry.name for entry in entries("optimizer")]
        ['adam', 'adamw', 'rmsprop', 'sgd']
    """
    return tuple(_entry(kind, name, member) for name, member in sorted(KINDS[kind]().items()))


def find_entries(name: str) -> tuple[Entry, ...]:
    """Return every part that has a name; none, or several of different kinds."""
    return tuple(_entry(kind, name, members()[name]) for kind, members in KINDS.items() if name in members())


def every_name() -> Iterator[str]:
    """Yield the names of all parts."""
    for members in KINDS.values():
        yield from members()


def _entry(kind: str, name: str, member: Any) -> Entry:
    if kind == "metric":
        return _metric_entry(member)
    said = read_docstring(member)
    keys = _arguments(name, said.arguments) if kind == "network" else keys_of(member)
    needed = "".join(f", {key.name}: ..." for key in keys if key.default == REQUIRED)
    example = _OWN_EXAMPLES.get(name) or _EXAMPLES[kind].format(name, needed)
    return Entry(kind, name, said.summary, said.details, keys, said.source, example)


def _metric_entry(member: Metric) -> Entry:
    unit = f", in {'per cent' if member.in_points else member.unit.strip()}" if member.unit.strip() else ""
    better = "higher" if member.higher_is_better else "lower"
    summary = f"{member.named(10)}{unit}; {better} is better"
    needed = ", target: 10" if member.needs_target else ""
    example = _EXAMPLES["metric"].format(member.name, needed)
    if member.requires:
        example = f"{{training: {_REQUIRED[member.requires]}, {example}}}"
    return Entry("metric", member.name, summary, "", (), "", example)


def _arguments(name: str, meanings: Mapping[str, str]) -> tuple[Key, ...]:
    return tuple(
        Key(
            one.name,
            one.type,
            REQUIRED if one.default is inspect.Parameter.empty else _default(one.default),
            meanings.get(one.name, ""),
        )
        for one in list_arguments(name)
    )


def _schema(spec: type[Spec]) -> Mapping[str, Any]:
    """Return the JSON Schemas of a specification's fields by name."""
    (_, schema) = models_json_schema([(spec, "validation")])
    found: Mapping[str, Any] = schema["$defs"][spec.__name__]["properties"]
    return found


def _default(value: object) -> str:
    if isinstance(value, Spec):
        value = value.model_dump(mode="json", exclude_defaults=True) or getattr(value, "name", {})
    return flow_text(list(value) if isinstance(value, tuple) else value)


def _chooses(spec: type[Spec]) -> bool:
    """Return whether `name` is a setting and not the name of the part."""
    return spec is Initialisation
