"""The page of commands, from what the commands say of themselves with --help."""

import re
from collections.abc import Iterator
from typing import Any

from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata
from typer.main import get_command

from leadline.cli import app as leadline

PAGE = "commands"


def add_commands(app: Sphinx, page: str, source: list[str]) -> None:
    """Append the commands to their page."""
    if page == PAGE:
        source[0] += "\n".join(["", *(line for command, path in commands() for line in _section(command, path))])


def commands() -> Iterator[tuple[Any, Any]]:
    """Yield every command that runs by itself, and its context."""
    group = get_command(leadline)
    yield from _below(group, group.make_context("leadline", [], resilient_parsing=True))


def _below(group: Any, context: Any) -> Iterator[tuple[Any, Any]]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        own = command.make_context(name, [], parent=context, resilient_parsing=True)
        if hasattr(command, "list_commands"):
            yield from _below(command, own)
        else:
            yield command, own


def _section(command: Any, context: Any) -> Iterator[str]:
    path = context.command_path.strip()
    usage = " ".join([path, *command.collect_usage_pieces(context)])
    yield from (f"## {path}", "", command.help, "", f"```{{program}} {path}\n```", "", f"```text\n{usage}\n```", "")
    for param in command.get_params(context):
        if param.name != "help" and (record := param.get_help_record(context)):
            names, said = record
            yield from (f"```{{option}} {names}", _as_markdown(said), "```", "")


def _as_markdown(text: str) -> str:
    """Return help with its options as code, and what it says of defaults in brackets that make no link."""
    return re.sub(r"(?<![\w`-])(--[\w-]+)", r"`\1`", text).replace("[", "\\[")


def setup(app: Sphinx) -> ExtensionMetadata:
    """Register the page."""
    app.connect("source-read", add_commands)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
