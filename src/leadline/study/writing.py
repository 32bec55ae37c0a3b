"""A study as the text of a study file: what `leadline show` prints, and what `leadline init` writes to be changed."""

import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from leadline.parts.base import Spec, parse
from leadline.specs.contrast import ContrastSpec
from leadline.specs.study import StudySpec
from leadline.study.yaml12 import flow_text

WIDTH = 120

ORDER = ("name", "title", "notes", "based_on", "data", "training", "arms", "vary", "seeds", "contrasts")
"""Keys in the order in which a study is thought of; others follow."""

_ONE_LINE_EACH = ("arms", "vary")
_ALWAYS = ("name", "data", "training", "epochs", "batch_size", "learning_rate", "seeds")
"""Keys that are written at their default values too, unless they are empty."""


SECTIONS = {
    "name": "The store and reports know the study by this name.",
    "data": "The images. Fewer of them: train: 1000, test: 500. `leadline list` shows the data sets.",
    "training": "The recipe that all arms share.",
    "arms": "What is compared: networks that differ in one thing. `leadline list NETWORK` shows a network's arguments.",
    "vary": "Arguments of the networks, or settings such as training.batch_size, at each value of which all arms are"
    " trained.",
    "seeds": "Repetitions: arms with the same seed see the same batches in the same order.",
    "contrasts": "Pairs of arms to compare, each with the one that may be better first.",
}
"""Comments before keys of a new study file."""

OPTIONS = {
    "title": ("Plain and residual networks", "heading of the report"),
    "notes": ("What is assumed.", "paragraph of the report"),
    "contrasts": ("[[residual, plain]]", "pairs of arms to compare; default: all pairs"),
    "margin": ("1.0", "difference in percentage points within which two arms are equivalent"),
    "decide": ("{margin: 0.5, max_seeds: 20}", "instead of `seeds`: add seeds until every contrast is decided"),
    "tune": ("{learning_rate: {log: [0.0001, 0.1]}, budget: 10}", "the same search for every arm, on validation data"),
    "match": ("parameters", "adjust widths so that all arms have equally many"),
    "probes": ("[flow, lesion]", "what to measure inside the networks"),
    "correction": ("benjamini-hochberg", "control the false discovery rate instead of the family-wise error rate"),
}
"""Keys that a new study file has commented out: a value, and what it is for."""

FIRST = StudySpec.model_validate_json(
    """{
        "name": "first",
        "data": {"name": "digits"},
        "training": {"epochs": 8, "batch_size": 64, "optimizer": {"name": "adam", "learning_rate": 0.001}},
        "arms": {"plain": {"network": "comparative-plain"}, "residual": {"network": "comparative-resnet"}},
        "vary": {"blocks": [2, 5, 10]},
        "seeds": 3,
        "contrasts": [["residual", "plain"]]
    }"""
)
"""The study of a new file that begins with no other."""


def to_yaml(spec: StudySpec, comments: Mapping[str, str] | None = None) -> str:
    """Return the text of a study file that stands for a study; most keys at their default values are left out.

    Args:
        spec: the study.
        comments: key -> what is written in the line before it.

    Example:
        >>> print(to_yaml(StudySpec(name="mine", arms={"a": {"network": "comparative-resnet"}}, seeds=2)), end="")
        name: mine
        data: {name: digits}
        training: {epochs: 10, batch_size: 128, optimizer: {name: sgd, learning_rate: 0.1}}
        arms:
          a: {network: comparative-resnet}
        seeds: 2
    """
    values = _plain(spec)
    if "contrasts" in values and spec.contrasts is not None:
        values["contrasts"] = [_contrast(one, spec) for one in spec.contrasts]
    lines: list[str] = []
    for key in (*(key for key in ORDER if key in values), *(key for key in values if key not in ORDER)):
        if comment := (comments or {}).get(key):
            lines += ["", *textwrap.wrap(comment, WIDTH, initial_indent="# ", subsequent_indent="# ")]
        lines += _lines(key, values[key], "")
    return "\n".join(lines).lstrip("\n") + "\n"


def new_study_file(spec: StudySpec) -> str:
    """Return the text of a study file to change: commented, and with the options that it does not use.

    Example:
        >>> text = new_study_file(StudySpec(name="mine", arms={"a": {"network": "comparative-resnet"}}))
        >>> "# probes: [flow, lesion]" in text
        True
    """
    written = to_yaml(spec, SECTIONS)
    unused = [key for key in OPTIONS if not re.search(rf"^{key}:", written, re.MULTILINE)]
    options = [f"# {key}: {OPTIONS[key][0]}  # {OPTIONS[key][1]}" for key in unused]
    return "\n".join([written, "# Options; docs/reference.md describes every key.", *options]) + "\n"


def _plain(value: Any) -> Any:
    """Return a value as plain data, a specification without most of the fields that have their default values."""
    if isinstance(value, Spec):
        fields = {
            name: getattr(value, name)
            for name, field in type(value).model_fields.items()
            if not field.exclude
            and (field.is_required() or getattr(value, name) != field.default or name in _ALWAYS)
            and getattr(value, name) != {}
        }
        found = {key: _plain(one) for key, one in {**fields, **(value.__pydantic_extra__ or {})}.items()}
        # where leaving a key out means something else than its default value
        return found if parse(type(value), found) == value else value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, PurePath) else value


def _contrast(contrast: ContrastSpec, spec: StudySpec) -> object:
    found = contrast.model_dump(mode="json")
    if contrast.metric == ("test_error" if spec.decide is None else spec.decide.metric):
        del found["metric"]  # of contrasts that name none
    return [contrast.a, contrast.b] if found.keys() == {"a", "b"} else found


def _lines(key: object, value: object, indent: str) -> Iterator[str]:
    """Yield the lines of a key and its value: one if they fit, else one for each item."""
    start = "-" if key is None else f"{flow_text(key)}:"
    whole = f"{indent}{start} {flow_text(value)}"
    splits = bool(value) and (len(whole) > WIDTH or (key in _ONE_LINE_EACH and not indent))
    if isinstance(value, str) and len(whole) > WIDTH and value == " ".join(value.split()):
        yield f"{indent}{start} >-"
        words = textwrap.TextWrapper(WIDTH - len(indent) - 2, break_long_words=False, break_on_hyphens=False)
        yield from (f"{indent}  {line}" for line in words.wrap(value))
    elif isinstance(value, Mapping) and splits:
        yield f"{indent}{start}"
        for inner, one in value.items():
            yield from _lines(inner, one, f"{indent}  ")
    elif isinstance(value, list) and splits:
        yield f"{indent}{start}"
        for one in value:
            yield from _lines(None, one, f"{indent}  ")
    else:
        yield whole
