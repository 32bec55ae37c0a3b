"""Docstrings as pages: bars of norms as they stand, fields with what the code says of them, names that lead on."""

import inspect
import io
import re
import tokenize
from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Any

from docutils import nodes
from pydantic import BaseModel
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.typing import ExtensionMetadata

_BAR_OR_CODE = re.compile(r"`[^`]*`|\|")
_FIELD = re.compile(r"    (\w+): [^#]*# (.+)")


def prepare(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Keep what is prose: `|`, of which reStructuredText would make a substitution, and `:` of what a property is.

    Examples and code stay as they are.
    """
    if what in ("property", "attribute", "data") and lines:
        lines[0] = f": {lines[0]}"  # in front of a colon Google's style has a type, which annotations give
    example = False
    for number, line in enumerate(lines):
        example = line.lstrip().startswith(">>>") or (example and bool(line.strip()))
        if not example:
            lines[number] = _BAR_OR_CODE.sub(lambda found: found[0] if found[0] != "|" else r"\|", line)


def add_fields(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Append the fields of a specification or a frozen result to its docstring, if that does not list arguments."""
    if what not in ("class", "exception") or any(line.startswith(":param") for line in lines):
        return
    described = [f":param {field}: {_escape(text)}" for field, text in _fields(thing)]
    if described:
        end = next((at for at, line in enumerate(lines) if line.startswith((":", ".. "))), len(lines))
        lines[end:end] = ["", *described, ""]


def _fields(thing: Any) -> Iterator[tuple[str, str]]:
    if issubclass(thing, BaseModel):
        yield from ((name, field.description) for name, field in thing.model_fields.items() if field.description)
    elif is_dataclass(thing):
        yield from _commented_fields(inspect.getsource(thing))


def _commented_fields(source: str) -> Iterator[tuple[str, str]]:
    """Yield the fields of a class and the comments behind them."""
    comments = {
        token.start[0]: token.line
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    for line in comments.values():
        if found := _FIELD.match(line):
            yield found[1], found[2]


def _escape(text: str) -> str:
    return re.sub(r"([*|\\]|_\b)", r"\\\1", text)


def find_public(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.reference | None:
    """Resolve a name of Leadline under the name that these pages have for it.

    What is documented as `leadline.SpecError` is called `SpecError` in docstrings, and `leadline.errors.SpecError`
    by the code.
    """
    if node.get("refdomain") != "py" or node.get("reftype") == "obj":
        return None
    python = env.domains.python_domain
    target = node["reftarget"]
    if target.startswith("leadline.") or "." not in target:
        last = target.rpartition(".")[2]
        known = [f"leadline.{last}"] if f"leadline.{last}" in python.objects else []
        known = known or [each for each in python.objects if each.rpartition(".")[2] == last]
        if len(known) == 1:
            return python.resolve_xref(env, node["refdoc"], app.builder, "obj", known[0], node, content)
    return None


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register all three."""
    app.connect("autodoc-process-docstring", prepare, priority=100)
    app.connect("autodoc-process-docstring", add_fields, priority=900)  # after sections have become lists
    app.connect("missing-reference", find_public)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
