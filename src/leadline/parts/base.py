"""Base class of all specifications: frozen, validated, convertible to JSON, and identified by their content."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import PurePath
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from leadline.errors import SpecError, unknown

SCHEMA_VERSION = 1
"""Part of every content hash: increase it if the meaning of a field changes but its name does not."""

S = TypeVar("S", bound="Spec")


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


def parse(kind: type[S], data: object, where: Callable[[tuple[int | str, ...]], str] | None = None) -> S:
    """Validate plain data, as from JSON or YAML, and return a specification.

    Args:
        kind: class of the specification.
        data: mappings, lists, strings, numbers, booleans and None, which may contain specifications, and custom
            functions or classes, which become references.
        where: function that converts a path of keys into the location at the beginning of an error message, such as
            `study.yaml:7`.

    Raises:
        SpecError: the data are invalid; the message is one line with the location, the value and what was expected.
    """
    try:
        return kind.model_validate_json(json.dumps(data, default=_plain))
    except ValidationError as error:
        raise SpecError(explain(error, data, where)) from None
    except (TypeError, ValueError) as error:
        place = where(()) if where else kind.__name__
        raise SpecError(f"{place}: expected plain data: {error}") from None


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


def explain(error: ValidationError, data: object, where: Callable[[tuple[int | str, ...]], str] | None = None) -> str:
    """Return the first problem of a validation error as one line, with the number of further problems."""
    problems = error.errors(include_url=False)
    first = problems[0]
    kind = first["type"]
    path = _path_in(data, first["loc"], keep_last=kind in ("missing", "extra_forbidden"))
    if kind == "extra_forbidden":
        text, shown_path = f"unknown key {str(path[-1])!r}", path[:-1]
    elif kind == "missing":
        text, shown_path = f"{str(path[-1])!r} is required but missing", path[:-1]
    elif kind == "value_error":
        text, shown_path = str(first["ctx"]["error"]), path
    elif kind == "union_tag_invalid":
        tags = [tag.strip("'") for tag in first["ctx"]["expected_tags"].split(", ")]
        text, shown_path = unknown("name", first["ctx"]["tag"], tags), (*path, "name")
    else:
        text, shown_path = f"{_shorten(first['input'])}: {first['msg'][0].lower()}{first['msg'][1:]}", path
    place = where(path if kind == "extra_forbidden" else shown_path) if where else ""
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return ": ".join(part for part in (place, ".".join(map(str, shown_path)), text + more) if part)


def _path_in(data: object, location: tuple[int | str, ...], keep_last: bool) -> tuple[int | str, ...]:
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
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
