"""What docstrings say of arguments and sources, for pages and commands that describe them."""

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass

_HEADING = re.compile(r"(Args|Returns|Raises|Yields|Example|Attributes):$|(Source): ?(.*)$")


@dataclass(frozen=True)
class Docstring:
    """The parts of a docstring, each as text without line breaks."""

    summary: str  # the first sentence or paragraph
    details: str  # the paragraphs below it
    arguments: Mapping[str, str]
    source: str  # the paper, equation or table


def read_docstring(thing: object) -> Docstring:
    """Return the parts of the docstring of a function or class.

    Example:
        >>> def double(x):
        ...     '''Return twice a number.
        ...
        ...     Args:
        ...         x: the number,
        ...             of any kind.
        ...
        ...     Source: arithmetic.
        ...     '''
        >>> found = read_docstring(double)
        >>> found.summary, dict(found.arguments), found.source
        ('Return twice a number.', {'x': 'the number, of any kind.'}, 'arithmetic.')
    """
    parts: dict[str, list[str]] = {"": []}
    part = parts[""]
    for line in inspect.cleandoc(getattr(thing, "__doc__", None) or "").splitlines():
        if heading := _HEADING.match(line):
            part = parts.setdefault(heading[1] or heading[2], [heading[3] or ""])
        else:
            part.append(line)
    paragraphs = [_joined(one) for one in "\n".join(parts[""]).split("\n\n")]
    return Docstring(
        paragraphs[0],
        " ".join(filter(None, paragraphs[1:])),
        dict(_entries(parts.get("Args", []))),
        _joined("\n".join(parts.get("Source", []))),
    )


def _entries(lines: list[str]) -> list[tuple[str, str]]:
    """Return the names and descriptions of an indented list."""
    entries = re.split(r"^    (?=\w+: )", "\n".join(lines), flags=re.MULTILINE)[1:]
    return [(name, _joined(text)) for name, _, text in (one.partition(": ") for one in entries)]


def _joined(text: str) -> str:
    return " ".join(text.split())
