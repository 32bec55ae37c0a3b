"""YAML 1.2 as study files use it: what a text stands for, and the line and column of every value."""

import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from leadline.errors import Problem, SpecError

MOST_VALUES = 100_000
"""Values that a study file may hold, each counted as often as an alias repeats it."""


MOST_DIGITS = 1000
"""Digits that a whole number may have; Python reads no more than some thousands."""


class _Loader(yaml.SafeLoader):
    """Reads YAML 1.2's core schema: `on` and `12:30` are text, 010 is ten, 1e-3 is a number, and every key is text.

    A key may appear only once in a mapping, and there are no tags, which study files have no use for.
    """

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.problems: list[yaml.MarkedYAMLError] = []  # that do not keep the rest from being read

    def refuse(self, node: Any, problem: str) -> None:
        """Note a problem of a node, or of the event that begins one."""
        self.problems.append(yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark))

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "tag", None) is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")
            self.refuse(event, f"tag {tag}: tags are not used in study files")
            event.tag, event.implicit = None, (True, False)  # read on as if it were not there
        return super().compose_node(parent, index)

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        node = super().compose_scalar_node(anchor)
        if any("\ud800" <= mark <= "\udfff" for mark in node.value):
            self.refuse(node, f"{node.value!r} contains half of a character; write the whole character")
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.refuse(key, "a list or mapping cannot be a key; put quotes around it")
                continue
            if key.value in seen:
                self.refuse(key, f"key {key.value!r} appears twice")
            if hidden := [mark for mark in key.value if mark != " " and not mark.isprintable()]:
                name = unicodedata.name(hidden[0], "a control character").lower()
                self.refuse(key, f"key {key.value!r} contains {name} (U+{ord(hidden[0]):04X}); remove it")
            seen.add(key.value)
            if key.tag != _MERGE:
                key.tag = _TEXT
        return node

    def construct_number(self, node: yaml.ScalarNode) -> int:
        """Return a whole number: decimal whatever its zeros, 0x and 0o as they say."""
        text = node.value.replace("_", "")
        if len(text) > MOST_DIGITS:
            problem = f"a number of {len(text):,} digits; put quotes around it if it is a text"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        return int(text, 0) if re.match(r"[-+]?0[xo]", text) else int(text)


_TEXT, _MERGE, _MAPPING = (f"tag:yaml.org,2002:{kind}" for kind in ("str", "merge", "map"))
for _kind, _pattern, _first in (
    ("bool", r"(true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("null", r"(~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("int", r"([-+]?\d[\d_]*|0o[0-7]+|0x[0-9a-fA-F]+)$", "-+0123456789"),
    ("float", r"([-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$", "-+.0123456789"),
    ("merge", r"<<$", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(_pattern), list(_first))
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_number)
_NAMES = [
    ("name",),
    ("title",),
    ("notes",),
    *[("contrasts", "*", key) for key in ("*", "a", "b")],
    ("published", "*", "arm"),
    ("match", "to"),
]
"""Where names stand, of the study and of arms, which are text even if they look like numbers; * is any item."""


@dataclass(frozen=True)
class Text:
    """What a YAML text stands for."""

    value: object
    marks: Mapping[tuple[int | str, ...], tuple[int, int]]  # keys that lead to a value -> its line and column, from 1


def read_yaml(text: str, shown: str = "", key: str = "") -> Text:
    """Return what a YAML text stands for.

    Args:
        text: of a file, or of one value.
        shown: name of the file, for errors.
        key: dotted key of the study that has the value; empty: the text is a whole study.

    Raises:
        SpecError: it is no YAML, or holds what study files may not: tags, a key twice, too many values; the error has
            a line for each.

    Example:
        >>> read_yaml("epochs: 010").value, read_yaml("[[18, 34]]", key="contrasts").value
        ({'epochs': 10}, [['18', '34']])
    """
    if strange := yaml.reader.Reader.NON_PRINTABLE.search(text):
        line, column = text.count("\n", 0, strange.start()) + 1, strange.start() - text.rfind("\n", 0, strange.start())
        problem = f"character U+{ord(strange[0]):04X} is not allowed; remove it, or save the file as UTF-8"
        raise SpecError(Problem(f"invalid YAML: {problem}", place=f"{shown}:{line}:{column}" if shown else ""))
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        if loader.problems:
            in_order = sorted(loader.problems, key=lambda one: one.problem_mark.index)  # type: ignore[union-attr]
            raise SpecError(*(_problem(one, shown) for one in in_order))
        if node is None:
            return Text(None, {})
        _bound(node)
        whole = node
        for part in reversed(key.split(".") if key else []):
            whole = yaml.MappingNode(_MAPPING, [(yaml.ScalarNode(_TEXT, part), whole)])
        for path in _NAMES:
            for named in _find(whole, path):
                named.tag = _TEXT
        return Text(loader.construct_document(node), dict(_marks(node)))
    except (yaml.YAMLError, RecursionError) as error:  # brackets 1,000 deep
        raise SpecError(_problem(error, shown, text)) from None
    finally:
        loader.dispose()


def parse_value(text: str, key: str = "") -> object:
    """Parse the value of `--set key=value` as YAML: a number, boolean, list or mapping, else the text itself."""
    try:
        return read_yaml(text, key=key).value
    except SpecError:
        return text


class _Dumper(yaml.SafeDumper):
    """Writes text in quotes if YAML 1.2 or 1.1 would read it as something else."""

    yaml_implicit_resolvers = {
        first: [
            *_Loader.yaml_implicit_resolvers.get(first, []),
            *yaml.SafeDumper.yaml_implicit_resolvers.get(first, []),
        ]
        for first in {*_Loader.yaml_implicit_resolvers, *yaml.SafeDumper.yaml_implicit_resolvers}
    }

    def ignore_aliases(self, data: object) -> bool:
        """Write everything out."""
        return True


def flow_text(value: object) -> str:
    """Return plain data as YAML in one line.

    Example:
        >>> flow_text({"name": "sgd", "nesterov": True, "note": "1e-3", "values": [1, 0.5]})
        "{name: sgd, nesterov: true, note: '1e-3', values: [1, 0.5]}"
    """
    text = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, sort_keys=False, allow_unicode=True, width=1e9)
    return text.removesuffix("\n...\n").removesuffix("\n")  # dots end a document that is a single text


def _bound(root: yaml.Node) -> None:
    """Raise an error for a text whose aliases repeat it to more than `MOST_VALUES` values, or without end."""
    sizes: dict[int, int] = {}

    def size(node: yaml.Node) -> int:
        if id(node) not in sizes:
            sizes[id(node)] = MOST_VALUES + 1  # of a node inside itself
            sizes[id(node)] = min(MOST_VALUES + 1, 1 + sum(map(size, _inside(node))))
        return sizes[id(node)]

    if size(root) > MOST_VALUES:
        raise yaml.MarkedYAMLError(
            problem=f"more than {MOST_VALUES:,} values, or aliases (*) that repeat as many",
            problem_mark=root.start_mark,
        )


def _inside(node: yaml.Node) -> list[yaml.Node]:
    if isinstance(node, yaml.MappingNode):
        return [one for pair in node.value for one in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []


def _find(node: yaml.Node, path: tuple[str, ...]) -> Iterator[yaml.ScalarNode]:
    """Yield the scalars at a path, in which * stands for every item of a list."""
    if not path:
        if isinstance(node, yaml.ScalarNode):
            yield node
    elif path[0] == "*":
        for item in node.value if isinstance(node, yaml.SequenceNode) else []:
            yield from _find(item, path[1:])
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == path[0]:
                yield from _find(value, path[1:])


def _marks(
    node: yaml.Node, path: tuple[int | str, ...] = ()
) -> Iterator[tuple[tuple[int | str, ...], tuple[int, int]]]:
    """Yield the keys that lead to each value with its line and column; those of its key where it has one."""
    if not path:
        yield (), _mark(node)
    pairs: list[tuple[int | str, yaml.Node, yaml.Node]] = []
    if isinstance(node, yaml.MappingNode):
        pairs = [(key.value, key, value) for key, value in node.value]
    elif isinstance(node, yaml.SequenceNode):
        pairs = [(number, item, item) for number, item in enumerate(node.value)]
    for key, shown, value in pairs:
        yield (*path, key), _mark(shown)
        yield from _marks(value, (*path, key))


def _mark(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


_WORDS = {
    "'\\t'": "a tab, which YAML does not allow here; use spaces",
    "mapping values are not allowed here": "a colon that is not expected here; indent keys of one mapping alike,"
    " and put quotes around a text that contains a colon and a space",
    "another document": "a second document begins here; a study file holds one",
    "could not find expected ':'": "a line that is neither a key with a colon nor indented as the text above it",
    "<stream end>": "the file ends inside brackets",
    "<block end>": "a line that is indented unlike those above it",
    "found unexpected end of stream": "the file ends inside quotes",
    "expected ',' or": "a comma or the closing bracket is expected here; put quotes around a text that contains"
    " brackets",
}
"""Part of what PyYAML says of a problem -> what is said instead."""


def _problem(error: Exception, shown: str, text: str = "") -> Problem:
    """Return what is wrong with a text in one line, with its place."""
    mark = getattr(error, "problem_mark", None)
    place = f"{shown}:{mark.line + 1}:{mark.column + 1}" if mark and shown else shown
    said = str(getattr(error, "problem", None) or error)
    if isinstance(error, RecursionError):
        said = "brackets or indented lines inside each other, too deep to read"
    opened = getattr(error, "context_mark", None)
    since = f" (in what begins in line {opened.line + 1})" if opened and mark and opened.line < mark.line else ""
    said = next((words for part, words in _WORDS.items() if part in said), said)
    blank = text.find("\u00a0")
    hint = f"; line {text.count(chr(10), 0, blank) + 1} contains a no-break space, which is no space in YAML"
    return Problem(f"invalid YAML: {said}{since}{hint if blank >= 0 else ''}", place=place)
