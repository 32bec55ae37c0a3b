"""Study files: ready studies by name, and YAML files, read so that errors name the file, line and column."""

import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from leadline.errors import SpecError, unknown
from leadline.specs import parse
from leadline.specs.study import StudySpec
from leadline.study.expand import ExpandedStudy, Where, expand, set_key

FOUND = {("matched",): "match", ("tune", "chosen"): "the search", ("tune", "tried"): "the search"}
"""Keys that a run determines and what determines them; study files must not contain them."""


def ready_studies() -> dict[str, str]:
    """Return the ready studies as name -> title."""
    return {
        path.name.removesuffix(".yaml"): next(
            (str(yaml.safe_load(line)["title"]) for line in path.read_text().splitlines() if line.startswith("title:")),
            "",
        )
        for path in sorted(resources.files("leadline.study").joinpath("studies").iterdir(), key=lambda path: path.name)
        if path.name.endswith(".yaml")
    }


def load_study(
    name_or_file: str | Path | Mapping[str, object], settings: Mapping[str, object] = MappingProxyType({})
) -> ExpandedStudy:
    """Load and expand a ready study, a YAML file, or a mapping with the same keys.

    Args:
        name_or_file: the name of a ready study, a path, or a mapping with the keys of a study file, whose values may
            also be specifications, and custom functions or classes.
        settings: dotted key -> value; these override the file.

    Raises:
        SpecError: no such study or file, or one line with file, line and column of what is wrong in it.
    """
    if isinstance(name_or_file, Mapping):
        return _expand(dict(name_or_file), lambda path: "study", settings)
    path, name_or_file = Path(name_or_file), str(name_or_file)
    if name_or_file in ready_studies():
        text, shown = (
            resources.files("leadline.study").joinpath("studies", f"{name_or_file}.yaml").read_text(),
            f"{name_or_file}.yaml",
        )
    elif path.is_file():
        text, shown = _read(path), str(path)
    elif path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        raise SpecError(f"{path}: no such file")
    else:
        raise SpecError(f"{unknown('study', name_or_file, ready_studies())}; or give the path of a YAML file")
    return _expand(*_parse_yaml(text, shown), settings)


def _expand(data: dict[str, Any], where: Where, settings: Mapping[str, object]) -> ExpandedStudy:
    for key, value in settings.items():
        set_key(data, key, value)
    for keys, finder in FOUND.items():
        if _has_key(data, keys):
            text = f"{keys[-1]} is determined by {finder} when the study runs and stored in the ledger; remove this key"
            raise SpecError(f"{where(keys)}: {'.'.join(keys)}: {text}")
    return expand(parse(StudySpec, data, where), where=where)


def _has_key(data: object, keys: tuple[str, ...]) -> bool:
    for key in keys:
        if not isinstance(data, Mapping) or key not in data:
            return False
        data = data[key]
    return True


def parse_value(text: str) -> object:
    """Parse the value of `--set key=value` as YAML: a number, boolean, list or mapping, else the text itself."""
    try:
        return yaml.load(text, _Loader)
    except _NOT_YAML:
        return text


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read: {error}") from None


class _Loader(yaml.SafeLoader):
    """Reads YAML as people mean it: 1e-3 is a number, a date is text, and a key may stand but once in a mapping."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(problem=f"key {key.value!r} appears twice", problem_mark=key.start_mark)
                seen.add(key.value)
        return node


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)
_NOT_YAML = (yaml.YAMLError, ValueError, RecursionError)  # a number of 5,000 digits; brackets 1,000 deep


def _parse_yaml(text: str, shown: str) -> tuple[dict[str, Any], Where]:
    try:
        node = yaml.compose(text, _Loader)
        data = yaml.load(text, _Loader)
    except _NOT_YAML as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{shown}:{mark.line + 1}:{mark.column + 1}" if mark else shown
        raise SpecError(f"{place}: invalid YAML: {getattr(error, 'problem', error)}") from None
    if not isinstance(data, dict) or node is None:
        raise SpecError(f"{shown}: expected a mapping with name, arms, ..., got {type(data).__name__}")

    root: yaml.Node = node

    def where(path: tuple[int | str, ...]) -> str:
        mark, here = root.start_mark, root
        for key in path:
            if isinstance(here, yaml.MappingNode):
                found = [(k, v) for k, v in here.value if k.value == str(key)]
                if not found:
                    break
                mark, here = found[0][0].start_mark, found[0][1]
            elif isinstance(here, yaml.SequenceNode) and isinstance(key, int) and key < len(here.value):
                here = here.value[key]
                mark = here.start_mark
            else:
                break
        return f"{shown}:{mark.line + 1}:{mark.column + 1}"

    return data, where
