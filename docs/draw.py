"""Run the commands in these pages that draw their figures: `python -m docs.draw [PAGE ...]`.

A figure stands on the page of the command that makes it: what a command writes as `NAME`, with --figure NAME or below
--output FOLDER, is kept as `docs/figures/NAME` where the page shows it. A figure too large to keep as SVG is kept as
PNG, drawn from it. A shell block runs from its first command to its last, in a folder of its own; studies in it take
their time, but for trials that LEADLINE_RUNS has. Data sets are those in LEADLINE_DATA.
"""

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import vl_convert
from markdown_it import MarkdownIt
from markdown_it.token import Token

from leadline.errors import DataError, LeadlineError, SpecError, unknown
from leadline.reports.charts.files import write_whole

DOCS = Path(__file__).resolve().parent
FIGURES = DOCS / "figures"

Command = tuple[str, ...]  # its words


@dataclass(frozen=True)
class Figure:
    """An image of a page that a command on it draws."""

    path: Path  # where it is kept
    block: tuple[Command, ...]  # the shell block that draws it
    drawn: Path  # what is written, from the folder that the block runs in


@dataclass(frozen=True)
class Page:
    """A Markdown file."""

    path: Path

    @cached_property
    def tokens(self) -> list[Token]:
        """What the page says, block by block."""
        return MarkdownIt("commonmark").enable("table").parse(self.path.read_text(encoding="utf-8"))

    @property
    def name(self) -> str:
        """Its path from the folder of all pages, without suffix."""
        return self.path.relative_to(DOCS).with_suffix("").as_posix()

    def every(self, kind: str) -> Iterator[Token]:
        """Yield tokens of one kind, those inside blocks too."""
        for token in self.tokens:
            yield from (each for each in (token, *(token.children or ())) if each.type == kind)

    def shell(self) -> list[tuple[Command, ...]]:
        """Return its shell blocks as commands; comments are gone, and lines that end with a backslash go on."""
        return [_commands(token.content) for token in self.every("fence") if token.info.strip() == "sh"]

    def outputs(self) -> dict[Command, str]:
        """Return what `text` blocks show, by the last command of the shell block before each."""
        found: dict[Command, str] = {}
        last: Command | None = None
        for token in self.every("fence"):
            if token.info.strip() == "text" and last is not None:
                found[last] = token.content
            last = _commands(token.content)[-1] if token.info.strip() == "sh" else None
        return found

    def figures(self) -> list[Figure]:
        """Return the figures that it shows and a command on it draws.

        Raises:
            DataError: one of the kept figures that it shows has no command on it.
        """
        places = {Path(name): block for block in self.shell() for command in block for name in _written(command)}
        found = []
        for path in self._shown():
            if not path.is_relative_to(FIGURES):
                continue
            drawn = path.relative_to(FIGURES).with_suffix(".svg")
            place = next((place for place in (drawn, *drawn.parents) if place in places), None)
            if place is None:
                raise DataError(f"{self.path}: no command with --output {drawn.parent} draws {drawn}; name it")
            found.append(Figure(path, places[place], drawn))
        return found

    def _shown(self) -> list[Path]:
        return [(self.path.parent / unquote(str(token.attrs["src"]))).resolve() for token in self.every("image")]


def _commands(block: str) -> tuple[Command, ...]:
    lines = block.replace("\\\n", " ").splitlines()
    return tuple(words for line in lines if (words := tuple(shlex.split(line, comments=True))))


def _written(command: Command) -> Iterator[str]:
    yield from (value for option, value in pairwise(command) if option in ("--output", "--figure"))


def pages() -> list[Page]:
    """Return all pages by name."""
    return sorted((Page(path) for path in DOCS.rglob("*.md")), key=lambda page: page.name)


def draw(figures: Sequence[Figure], folder: Path) -> dict[Path, bytes]:
    """Run the shell blocks of figures, each once, inside a folder, and return what is to be kept of them.

    Raises:
        LeadlineError: a command fails, or does not write what a page shows.
    """
    for command in [each for block in dict.fromkeys(figure.block for figure in figures) for each in block]:
        if command[0] != "leadline":
            raise LeadlineError(f"{shlex.join(command)}: not a command of Leadline; keep it out of blocks with figures")
        print(shlex.join(command), flush=True)
        words = [sys.executable, "-m", *command]
        one = os.environ | {"OMP_NUM_THREADS": "1"}  # bits change with the thread count
        run = subprocess.run(words, cwd=folder, env=one, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if run.returncode:
            raise LeadlineError(f"{shlex.join(command)}: {' '.join(run.stderr.split())}")
    return {figure.path: kept(figure, folder) for figure in figures}


def kept(figure: Figure, folder: Path) -> bytes:
    """Return a figure that was drawn in a folder as it is kept.

    Raises:
        LeadlineError: it was not drawn.
    """
    if not (folder / figure.drawn).is_file():
        raise LeadlineError(f"{shlex.join(figure.block[-1])}: did not write {figure.drawn}; see which name it gives")
    svg = (folder / figure.drawn).read_text(encoding="utf-8")
    return vl_convert.svg_to_png(svg, scale=1.5) if figure.path.suffix == ".png" else svg.encode()


def main() -> None:
    """Draw the figures of all pages, or of some."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pages", nargs="*", metavar="PAGE", help="such as theory/chains; default: all")
    options = parser.parse_args()
    found = pages()
    try:
        if strange := set(options.pages) - {page.name for page in found}:
            raise SpecError(unknown("page", min(strange), [page.name for page in found]))
        chosen = [page for page in found if page.name in options.pages or not options.pages]
        with tempfile.TemporaryDirectory() as folder:
            contents = draw([figure for page in chosen for figure in page.figures()], Path(folder))
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, content)
    except LeadlineError as error:
        sys.exit(f"docs: {error}")
    print(f"written: {len(contents)} files in {FIGURES}")


if __name__ == "__main__":
    main()
