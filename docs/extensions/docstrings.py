"""Docstrings as pages: bars of norms as they stand, fields with what the code says of them, names that lead on."""

import inspect
import re
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
_COMMENTED_FIELD = re.compile(r"^ +(\w+): [^#\n]*# (.+)$", re.MULTILINE)


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
    elif is_dataclass(thing) or hasattr(thing, "_fields"):
        yield from _COMMENTED_FIELD.findall(inspect.getsource(thing))


def _escape(text: str) -> str:
    return re.sub(r"([*|\\]|_\b)", r"\\\1", text)


def skip_aliases(app: Sphinx, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """Leave out the fields of named tuples, of which Python says no more than their number."""
    return True if (inspect.getdoc(thing) or "").startswith("Alias for field number") else None


def keep_words(app: Sphinx, document: nodes.document) -> None:
    """Make no link of a plain word between backticks, which is more often a value or an argument than a name."""
    for node in list(document.findall(pending_xref)):
        if node.get("reftype") == "obj" and re.fullmatch("[a-z]+", node["reftarget"]):
            node.replace_self(node.children)


def find_public(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.reference | None:
    """Resolve a name of Leadline under the name that these pages have for it.

    What is documented as `leadline.SpecError` is called `SpecError` in docstrings, and `leadline.errors.SpecError`
    by the code.
    """
    if node.get("refdomain") != "py":
        return None
    python = env.domains.python_domain
    target = node["reftarget"].rpartition(".")[2] if node["reftarget"].startswith("leadline.") else node["reftarget"]
    known = [name for name in python.objects if name.endswith(f".{target}")]
    known = [f"leadline.{target}"] if f"leadline.{target}" in known else known
    if len(known) != 1:
        return None
    return python.resolve_xref(env, node["refdoc"], app.builder, "obj", known[0], node, content)


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register all of them."""
    app.connect("autodoc-process-docstring", prepare, priority=100)  # before sections become lists
    app.connect("autodoc-process-docstring", add_fields, priority=900)  # after that
    app.connect("autodoc-skip-member", skip_aliases)
    app.connect("doctree-read", keep_words)
    app.connect("missing-reference", find_public)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
