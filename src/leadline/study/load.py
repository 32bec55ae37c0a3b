"""Study files: ready studies by name, and YAML files, read so that errors name the file, line and column."""

import re
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from leadline.errors import SpecError, unknown
from leadline.parts.trust import trust
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
        trust([str(path.parent.absolute())])
    elif path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        problem = "is a folder, where a YAML file is expected" if path.is_dir() else "no such file"
        raise SpecError(f"{path}: {problem}")
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
        return _compose(text)[1]
    except _NOT_YAML:
        return text


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path}: cannot be read: {error}") from None


MOST_VALUES = 100_000
"""Values that a study file may hold, each counted as often as an alias repeats it."""


class _Loader(yaml.SafeLoader):
    """Reads YAML 1.2's core schema: `on` and `12:30` are text, 010 is ten, 1e-3 is a number, and every key is text.

    A key may appear only once in a mapping, and there are no tags, which study files have no use for.
    """

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "tag", None) is not None:
            raise yaml.MarkedYAMLError(
                problem=f"tag {event.tag.replace('tag:yaml.org,2002:', '!!')}: tags are not used in study files",
                problem_mark=event.start_mark,
            )
        return super().compose_node(parent, index)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(
                    problem="a list or mapping cannot be a key; put quotes around it", problem_mark=key.start_mark
                )
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"key {key.value!r} appears twice", problem_mark=key.start_mark)
            seen.add(key.value)
            if key.tag != _MERGE:
                key.tag = _TEXT
        return node

    def construct_number(self, node: yaml.ScalarNode) -> int:
        """Return a whole number: decimal whatever its zeros, 0x and 0o as they say."""
        text = node.value.replace("_", "")
        return int(text, 0) if re.match(r"[-+]?0[xo]", text) else int(text)


_TEXT, _MERGE = "tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"
for _kind, _pattern, _first in (
    ("bool", r"(true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("null", r"(~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("int", r"([-+]?\d[\d_]*|0o[0-7]+|0x[0-9a-fA-F]+)$", "-+0123456789"),
    ("float", r"([-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$", "-+.0123456789"),
    ("merge", r"<<$", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(_pattern), list(_first))
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_number)
_NOT_YAML = (yaml.YAMLError, ValueError, RecursionError)  # a number of 5,000 digits; brackets 1,000 deep


def _compose(text: str) -> tuple[yaml.Node | None, object]:
    """Return a text's nodes and what they stand for; names of arms in `contrasts` and `published` stay text."""
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None, None
        _bound(node)
        for item in _items(_child(node, "contrasts")):
            names = _items(item) if isinstance(item, yaml.SequenceNode) else [_child(item, "a"), _child(item, "b")]
            _keep_text(names)
        _keep_text([_child(item, "arm") for item in _items(_child(node, "published"))])
        return node, loader.construct_document(node)
    finally:
        loader.dispose()


def _bound(root: yaml.Node) -> None:
    """Raise an error for a text whose aliases repeat it to more than `MOST_VALUES` values, or without end."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node) -> int:
        if id(node) not in sizes:
            sizes[id(node)] = MOST_VALUES + 1  # of a node inside itself
            pairs = node.value if isinstance(node, yaml.MappingNode) else []
            inside = [one for pair in pairs for one in pair] or (
                node.value if isinstance(node, yaml.SequenceNode) else []
            )
            sizes[id(node)] = min(MOST_VALUES + 1, 1 + sum(map(size, inside)))
        return sizes[id(node)]

    if size(root) > MOST_VALUES:
        raise yaml.MarkedYAMLError(
            problem=f"more than {MOST_VALUES:,} values, or aliases (*) that repeat as many",
            problem_mark=root.start_mark,
        )


def _items(node: yaml.Node | None) -> list[yaml.Node]:
    return node.value if isinstance(node, yaml.SequenceNode) else []


def _child(node: yaml.Node | None, name: str) -> yaml.Node | None:
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    return next((value for key, value in pairs if key.value == name), None)


def _keep_text(nodes: Iterable[yaml.Node | None]) -> None:
    for node in nodes:
        if isinstance(node, yaml.ScalarNode):
            node.tag = _TEXT


def _parse_yaml(text: str, shown: str) -> tuple[dict[str, Any], Where]:
    try:
        node, data = _compose(text)
    except _NOT_YAML as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{shown}:{mark.line + 1}:{mark.column + 1}" if mark else shown
        problem = str(getattr(error, "problem", None) or error)
        if "'\\t'" in problem:
            problem = "a tab, which YAML does not allow here; indent with spaces"
        raise SpecError(f"{place}: invalid YAML: {problem}") from None
    if node is None:
        raise SpecError(f"{shown}: the file is empty; expected a mapping with name, arms, ...")
    if not isinstance(data, dict):
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
