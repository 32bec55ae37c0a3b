"""The families by name: how a function joins them, how one is called, what arguments it takes."""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, TypeVar, cast

from pydantic import TypeAdapter, ValidationError, validate_call

from leadline.errors import Problem, SpecError, unknown
from leadline.specs import NetworkSpec, explain

F = TypeVar("F", bound=Callable[..., NetworkSpec])

_registered: dict[str, Callable[..., NetworkSpec]] = {}

FAMILIES: Mapping[str, Callable[..., NetworkSpec]] = MappingProxyType(_registered)
"""Every registered family by its name."""


def register_family(name: str) -> Callable[[F], F]:
    """Register a function that returns a network's specification under a name.

    The function keeps its signature, and its arguments are checked against their annotations whenever it is called.

    Args:
        name: what studies and `leadline inspect` call the network.

    Raises:
        SpecError: another function has the name.

    Example:
        >>> from leadline.networks import register_family
        >>> from leadline.specs import NetworkSpec, Stage, Stem
        >>> @register_family("one-stage")
        ... def one_stage(blocks: int = 3, width: int = 16) -> NetworkSpec:
        ...     return NetworkSpec(stem=Stem(width=width), stages=(Stage(blocks=blocks, width=width),))
        >>> one_stage(width=8).stages[0].width
        8
    """

    def register(function: F) -> F:
        other = _registered.get(name)
        # the same function again is a notebook's cell that is run again
        if other is not None and (other.__module__, other.__qualname__) != (function.__module__, function.__qualname__):
            raise SpecError(f"network {name!r} is already registered by {other.__module__}; choose another name")
        signature = inspect.signature(function)
        checked = functools.cache(lambda: validate_call(config={"strict": True})(function))

        @functools.wraps(function)
        def call(*positional: Any, **named: Any) -> NetworkSpec:
            if strange := [key for key in named if key not in signature.parameters]:
                problems = [Problem(unknown("argument", key, signature.parameters), (key,)) for key in strange]
                raise _of_family(name, named, problems)
            try:
                given = signature.bind(*positional, **named).arguments
            except TypeError as error:
                raise SpecError(f"{name}: {error}") from None
            try:
                return checked()(**given)
            except ValidationError as error:
                raise _of_family(name, given, explain(error, given)) from None
            except SpecError as error:
                raise _of_family(name, given, error.problems) from None

        _registered[name] = call
        return cast("F", call)

    return register


def _of_family(name: str, given: Mapping[str, Any], problems: Iterable[Problem]) -> SpecError:
    """Return an error that names the family; a message that starts with an argument's name is about that argument."""
    found = []
    for problem in problems:
        first = problem.text.split(" ", 1)[0]
        path = problem.path or ((first,) if first in given else ())
        found.append(Problem(f"{name}: {problem.text}", path))
    return SpecError(*found)


def family(name: str, arguments: Mapping[str, Any]) -> NetworkSpec:
    """Return the specification of a network whose name comes as a string.

    Args:
        name: one of `FAMILIES`.
        arguments: those of the function of that name.

    Raises:
        SpecError: the name or an argument is unknown, or a value is impossible.

    Example:
        >>> from leadline.networks import cifar_resnet, family
        >>> family("cifar-resnet", {"depth": 56}) == cifar_resnet(depth=56)
        True
    """
    if name not in FAMILIES:
        raise SpecError(unknown("network", name, FAMILIES))
    return FAMILIES[name](**arguments)


@dataclass(frozen=True)
class Argument:
    """An argument of a family, as its function's signature has it."""

    name: str
    type: str  # in words, such as `integer, at least 1` or `'A' | 'B'`
    default: Any  # `inspect.Parameter.empty` where there is none


def list_arguments(name: str) -> tuple[Argument, ...]:
    """Return the arguments that a family takes, with what each may be and its default.

    Raises:
        SpecError: no family has the name.

    Example:
        >>> from leadline.networks import list_arguments
        >>> list_arguments("wide-resnet")[1]
        Argument(name='widen', type='integer, at least 1', default=10)
    """
    if name not in FAMILIES:
        raise SpecError(unknown("network", name, FAMILIES))
    parameters = inspect.signature(FAMILIES[name]).parameters.values()
    return tuple(
        Argument(each.name, describe_type(TypeAdapter(each.annotation).json_schema()), each.default)
        for each in parameters
    )


_BOUNDS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}


def describe_type(schema: Mapping[str, Any]) -> str:
    """Return in words which values a JSON Schema allows.

    Example:
        >>> describe_type({"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]})
        'integer, at least 1 | null'
        >>> describe_type({"type": "array", "items": {"enum": ["A", "B"]}})
        "list of ('A' | 'B')"
    """
    if choices := schema.get("anyOf") or schema.get("oneOf"):
        return " | ".join(dict.fromkeys(map(describe_type, choices)))
    if "enum" in schema:
        return " | ".join(map(repr, schema["enum"]))
    if "const" in schema:
        return repr(schema["const"])
    if "$ref" in schema:
        return "mapping"
    if "items" in schema:
        inside = describe_type(schema["items"])
        return f"list of {f'({inside})' if ' | ' in inside or ', ' in inside else inside}"
    bounds = [
        f"{words} {schema[key]:{',' if isinstance(schema[key], int) else 'g'}}"
        for key, words in _BOUNDS.items()
        if key in schema
    ]
    return ", ".join([_KINDS.get(kind := schema.get("type", "any value"), kind), *bounds])


_KINDS = {"object": "mapping", "array": "list"}
