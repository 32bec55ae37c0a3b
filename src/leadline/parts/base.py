"""Base class of all specifications: frozen, validated, convertible to JSON, and identified by their content."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import PurePath
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from leadline.errors import Problem, SpecError, unknown
from leadline.text import join, plural

SCHEMA_VERSION = 1
"""Part of every content hash: increase it if the meaning of a field changes but its name does not."""

S = TypeVar("S", bound="Spec")
Keys = tuple[int | str, ...]
"""Keys and positions that lead to a value inside plain data."""


class Spec(BaseModel):
    """Base of all specifications: immutable, no unknown keys, no silent conversions, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    def __hash__(self) -> int:
        return hash(self.model_dump_json())  # fields may be mappings, which are not hashable

    @property
    def revision(self) -> int:
        """1, and more for values of the fields whose meaning has changed: what they gave before has another hash."""
        return 1

    @property
    def content_hash(self) -> str:
        """SHA-256 of the schema version, the kind of specification and all fields, including defaults.

        Revisions above 1, of this specification and of those inside it, are included as well.
        """
        return self._hash(dict(_revisions(self)))

    def had_hash(self, content_hash: str) -> bool:
        """Return whether this is the specification's hash, or was before a field in it got another meaning."""
        revised = dict(_revisions(self))
        choices = [[(path, number) for number in range(newest, 0, -1)] for path, newest in revised.items()]
        earlier = ({path: number for path, number in one if number > 1} for one in product(*choices))
        return any(self._hash(revisions) == content_hash for revisions in earlier)

    def _hash(self, revisions: Mapping[str, int]) -> str:
        content: dict[str, object] = {
            "schema": SCHEMA_VERSION,
            "kind": type(self).__name__,
            "content": self.model_dump(mode="json"),
        }
        if revisions:  # so that the first revision changed no hash of the rest
            content["revisions"] = dict(revisions)
        return hashlib.sha256(canonical_json(content).encode()).hexdigest()

    def with_(self, **changes: Any) -> Self:
        """Return a validated copy with the given fields changed.

        Raises:
            SpecError: a field is unknown or its value is invalid.
        """
        return parse(type(self), {**self.model_dump(mode="json"), **changes})


def _revisions(value: object, path: str = "") -> Iterator[tuple[str, int]]:
    """Yield the path and the revision of each specification whose revision is above 1, inside any value."""
    if isinstance(value, Spec):
        if value.revision > 1:
            yield path, value.revision
        inside: Iterable[tuple[object, object]] = value
    elif isinstance(value, Mapping):
        inside = value.items()
    elif isinstance(value, tuple | list):
        inside = enumerate(value)
    else:
        return
    for key, one in inside:
        yield from _revisions(one, f"{path}.{key}")


def canonical_json(value: object) -> str:
    """Return the canonical JSON text of a value: sorted keys, no spaces, ASCII."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def parse(kind: type[S], data: object) -> S:
    """Validate plain data, as from JSON or YAML, and return a specification.

    Args:
        kind: class of the specification.
        data: mappings, lists, strings, numbers, booleans and None, which may contain specifications, and custom
            functions or classes, which become references.

    Raises:
        SpecError: the data are invalid; it has a line for each problem, with the keys, the value and what was expected.
    """
    try:
        return kind.model_validate_json(json.dumps(data, default=_plain))
    except ValidationError as error:
        raise SpecError(*explain(error, data, kind.model_json_schema)) from None
    except (TypeError, ValueError) as error:
        raise SpecError(f"{kind.__name__}: expected plain data: {error}") from None


def _plain(value: object) -> object:
    """Return a specification, or custom code, as plain data."""
    from leadline.parts.reference import refer  # circular import: a reference is a specification

    if isinstance(value, Spec):
        return value.model_dump(mode="json")
    if isinstance(value, PurePath):
        return str(value)
    as_plain = getattr(value, "as_plain", None)  # a part declared in code, such as a metric
    if callable(as_plain):
        return as_plain()
    if callable(value):
        return refer(value)
    raise TypeError(f"{_shorten(value)} is a {type(value).__name__}")


def explain(
    error: ValidationError, data: object, schema: Callable[[], Mapping[str, Any]] | None = None
) -> tuple[Problem, ...]:
    """Return what a validation error says as one problem for each value that is wrong.

    Args:
        error: from Pydantic.
        data: what was validated.
        schema: function that returns the JSON Schema of valid data, for suggestions of keys; None: there are none.
    """
    texts: dict[tuple[Keys, Keys], list[str]] = {}  # where a problem is and under which keys it is named -> what it is
    consequences = set()  # what is wrong only because something inside it is
    for one in error.errors(include_url=False):
        kind = one["type"]
        path = _path_in(data, one["loc"], keep_last=kind in ("missing", "extra_forbidden"))
        place = named = path
        if kind == "extra_forbidden":
            named = path[:-1]
            known = _known_keys(schema(), path[:-1], data) if schema else {}
            text = _unknown_key(str(path[-1]), known)
        elif kind == "missing":
            place = named = path[:-1]
            text = f"{str(path[-1])!r} is required but missing"
        elif kind == "value_error":
            text = str(one["ctx"]["error"])
        elif kind in ("too_short", "too_long"):
            words, most = ("at least", "min_length") if kind == "too_short" else ("at most", "max_length")
            text = f"{_shorten(one['input'])}: expected {words} {plural(one['ctx'][most], 'entry', 'entries')}"
        elif kind == "union_tag_invalid":
            tags = [tag.strip("'") for tag in one["ctx"]["expected_tags"].split(", ")]
            place = named = (*path, "name")
            text = unknown("name", one["ctx"]["tag"], tags)
        else:
            text = f"{one['msg'][0].lower()}{one['msg'][1:]}".replace("an object", "a mapping").replace("array", "list")
            if (place, named) in texts:  # what another of the kinds of value that may be here expects
                text = text.removeprefix("input should be ")
            else:
                text = f"{_shorten(one['input'])}: {text}"
        if len(path) < len(one["loc"]) or kind == "too_short":
            consequences.add((place, named))
        texts.setdefault((place, named), []).append(text)
    return tuple(
        Problem(": ".join(filter(None, (".".join(map(str, named)), ", or ".join(dict.fromkeys(said))))), place)
        for (place, named), said in texts.items()
        # a list with a wrong item is also not the number that may be in its place, and too short without the item
        if not ((place, named) in consequences and any(_is_inside(other, place) for other, _ in texts))
    )


def _is_inside(path: Keys, outer: Keys) -> bool:
    return len(path) > len(outer) and path[: len(outer)] == outer


def _unknown_key(key: str, known: Mapping[str, Sequence[str]]) -> str:
    """Say that a mapping has no such key, and what may be meant; `known` as `_known_keys` returns it."""
    if owners := known.get(key):  # but the mapping names none of them
        return f"{key!r} is a key of {join(owners)}; add name: {owners[0]}"
    if any(key in names for names in known.values()):
        return f"unknown key {key!r}; write name: {key}"
    return unknown("key", key, known) if known else f"unknown key {key!r}"


def _known_keys(schema: Mapping[str, Any], path: Keys, data: object) -> dict[str, list[str]]:
    """Return the keys that a mapping inside the data may have, by the JSON Schema of the data.

    Returns:
        Key -> names of the parts that have it; none where a mapping is no part that is told by its name.
    """

    def alternatives(node: Mapping[str, Any], value: object) -> Iterator[Mapping[str, Any]]:
        if "$ref" in node:
            yield from alternatives(schema["$defs"][node["$ref"].rpartition("/")[2]], value)
        elif choices := node.get("anyOf") or node.get("oneOf") or node.get("allOf"):
            for choice in choices:
                yield from alternatives(choice, value)
        elif not isinstance(value, Mapping) or _is_named(node, value):
            yield node

    nodes = list(alternatives(schema, data))
    for key in path:
        data = _item(data, key)
        inner = [
            node.get("items")
            if isinstance(key, int)
            else node.get("properties", {}).get(key) or node.get("additionalProperties")
            for node in nodes
        ]
        nodes = [found for node in inner if isinstance(node, Mapping) for found in alternatives(node, data)]
    known: dict[str, list[str]] = {}
    for node in nodes:
        name = node.get("properties", {}).get("name", {}).get("const")
        for key in node.get("properties", {}):
            owners = known.setdefault(key, [])
            owners += [name] if name and name not in owners else []
    return known


def _item(data: object, key: int | str) -> object:
    if isinstance(data, Mapping):
        return data.get(key)
    return data[key] if isinstance(data, Sequence) and isinstance(key, int) and key < len(data) else None


def _is_named(node: Mapping[str, Any], value: Mapping[str, Any]) -> bool:
    """Whether a schema, which may be that of one of several parts, is the one of the part that a mapping names."""
    if "module" in value:
        return "module" in node.get("properties", {"module": {}})
    name = node.get("properties", {}).get("name", {})
    allowed = [name["const"]] if "const" in name else name.get("enum", [value.get("name")])
    return "name" not in value or value["name"] in allowed


def _path_in(data: object, location: Keys, keep_last: bool) -> Keys:
    """Remove the tags of unions, which are not keys of the data, from a location of Pydantic."""
    path: list[int | str] = []
    for position, key in enumerate(location):
        last = position == len(location) - 1
        if isinstance(data, Mapping):
            if key in data:
                data = data[key]
            elif not (last and keep_last):
                continue
        elif isinstance(data, Sequence) and isinstance(key, int):
            data = data[key] if key < len(data) else None
        elif not (last and keep_last):
            continue
        path.append(key)
    return tuple(path)


def _shorten(value: object) -> str:
    text = "no value" if value is None else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
