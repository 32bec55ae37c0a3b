"""Study files: ready studies by name, and YAML files, read so that errors name the file, line and column."""

import codecs
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from leadline.errors import Problem, SpecError, unknown
from leadline.parts.trust import trust
from leadline.specs import parse
from leadline.specs.study import StudySpec
from leadline.study.expand import ExpandedStudy, expand, set_key
from leadline.study.origin import find_differences
from leadline.study.places import Places
from leadline.study.ready import RENAMED, find_ready_study, read_ready, ready_studies
from leadline.study.resolved import ResolvedStudy
from leadline.study.yaml12 import read_yaml

FOUND = {("matched",): "match", ("tune", "chosen"): "the search", ("tune", "tried"): "the search"}
"""Keys that a run determines and what determines them; study files must not contain them."""

_SHARED = ("data", "training", "probes")
"""What all arms share, but for what an arm overrides."""


def read_study(name: str) -> str:
    """Return the text of a ready study, which names itself as its origin, or of a YAML file.

    Raises:
        SpecError: the file cannot be read.
    """
    ready = RENAMED.get(name, name)
    if ready not in ready_studies():
        return _read(Path(name))
    first, rest = read_ready(ready).split("\n", 1)
    return f"{first}\nbased_on: {ready}\n{rest}"


def load_study(
    name_or_file: str | Path | Mapping[str, object], settings: Mapping[str, object] = MappingProxyType({})
) -> ExpandedStudy:
    """Load and expand a ready study, a YAML file, or a mapping with the same keys.

    Args:
        name_or_file: the name of a ready study, a path, or a mapping with the keys of a study file, whose values may
            also be specifications, and custom functions or classes.
        settings: dotted key -> value; these override the file.

    Raises:
        SpecError: no such study or file, or everything that is wrong in it, a line each with file, line and column.
    """
    if isinstance(name_or_file, Mapping):
        return _expand(dict(name_or_file), Places("study"), settings)
    path, name_or_file = Path(name_or_file), str(name_or_file)
    ready = find_ready_study(name_or_file)
    if ready is not None:
        text, shown = read_ready(ready), f"{ready}.yaml"
    elif path.is_file():
        text, shown = _read(path), str(path)
        trust([str(path.parent.absolute())])
    elif path.suffix in (".yaml", ".yml") or len(path.parts) > 1 or path.is_dir():
        problem = "is a folder, where a YAML file is expected" if path.is_dir() else "no such file"
        raise SpecError(f"{path}: {problem}")
    else:
        raise SpecError(f"{unknown('study', name_or_file, ready_studies())}; or give the path of a YAML file")
    found = read_yaml(text, shown)
    expected = "expected a mapping with name, arms, ..."
    if found.value is None:
        raise SpecError(f"{shown}: the file is empty; {expected}")
    if not isinstance(found.value, dict):
        got = "a list" if isinstance(found.value, list) else repr(found.value)
        raise SpecError(f"{shown}: {expected}, got {got}")
    data = found.value if ready is None else {**found.value, "based_on": ready}
    return _expand(data, Places(shown, found.marks), settings)


def _expand(data: dict[str, Any], places: Places, settings: Mapping[str, object]) -> ExpandedStudy:
    for key, value in settings.items():
        set_key(data, key, value)
    places = replace(places, settings={tuple(key.split(".")): key for key in settings})
    try:
        spec = _parse(data)
        return replace(expand(spec, ResolvedStudy(changed=_compare_with_ready(spec))), places=places)
    except SpecError as error:
        raise places.locate(error) from None


def _compare_with_ready(spec: StudySpec) -> dict[str, str]:
    """Return each key that differs from the ready study that a study is based on, with both values.

    Raises:
        SpecError: it is based on something else.
    """
    if spec.based_on is None:
        return {}
    ready = find_ready_study(spec.based_on)
    if ready is None:
        raise SpecError(Problem(unknown("ready study", spec.based_on, ready_studies())).under(("based_on",)))
    before, now = (one.model_dump(mode="json") for one in (parse(StudySpec, read_yaml(read_ready(ready)).value), spec))
    return {
        one.key: " -> ".join(one.shown) for one in find_differences(before, now) if one.key not in ("name", "based_on")
    }


def _parse(data: dict[str, Any]) -> StudySpec:
    problems = [
        Problem(
            f"{'.'.join(keys)}: {keys[-1]} is determined by {finder} when the study runs and stored in the ledger;"
            " remove this key",
            keys,
        )
        for keys, finder in FOUND.items()
        if _has_key(data, keys)
    ]
    if problems:
        raise SpecError(*problems)
    try:
        return parse(StudySpec, data)
    except SpecError as error:
        raise SpecError(*error.problems, *_further_problems(data, error.problems)) from None


def _further_problems(data: dict[str, Any], known: Iterable[Problem]) -> tuple[Problem, ...]:
    """Return what is wrong with the arms and contrasts of a study that has other problems.

    What is left of the study without the values that have problems is expanded, where that says something of the rest.
    """
    wrong = [problem.path for problem in known if problem.path]
    rest: dict[str, Any] = {key: data[key] for key in ("arms", "vary", "contrasts", *_SHARED) if key in data}
    if any(path[0] == "vary" or (path[0] == "arms" and len(path) == 1) for path in wrong):
        return ()
    gone = {path[1] for path in wrong if path[0] == "arms"}
    rest["arms"] = {name: arm for name, arm in rest.get("arms", {}).items() if name not in gone}
    if not rest["arms"]:
        return ()
    networks_only = any(path[0] in _SHARED for path in wrong)
    if networks_only:
        rest = {key: value for key, value in rest.items() if key not in _SHARED}
        rest["arms"] = {name: {"network": arm["network"]} for name, arm in rest["arms"].items()}
    if gone or any(path[0] in ("contrasts", "decide") for path in wrong):
        rest.pop("contrasts", None)
    try:
        expand(parse(StudySpec, {"name": "rest", **rest}))
    except SpecError as error:
        return tuple(
            problem
            for problem in error.problems
            if problem.path[:1] == ("arms",) or (problem.path[:1] == ("contrasts",) and len(problem.path) == 3)
        )
    return ()


def _has_key(data: object, keys: tuple[str, ...]) -> bool:
    for key in keys:
        if not isinstance(data, Mapping) or key not in data:
            return False
        data = data[key]
    return True


def _read(path: Path) -> str:
    try:
        content = path.read_bytes()
        marks = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        return content.decode("utf-16" if content.startswith(marks) else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise SpecError(
            f"{path}:{line}: byte 0x{content[error.start]:02x} is not UTF-8; save the file as UTF-8"
        ) from None
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror or error}") from None
