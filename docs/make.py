"""Render these pages as offline HTML, and run the commands in them that draw their figures.

    python -m docs.make [--output build/docs]    pages: formulas as MathML, figures inside, index.html with links to all
    python -m docs.make --figures [PAGE ...]     runs the commands whose figures pages show, into docs/figures

Pages are Markdown, and render on code-hosting sites as they are. A figure stands on the page of the command that makes
it: what a command writes as `NAME`, with --figure NAME or below --output FOLDER, is kept as `docs/figures/NAME` where
the page shows it. A figure too large to keep as SVG is kept as PNG, drawn from it. A shell block runs from its first
command to its last, in a folder of its own; studies in it take their time, but for trials that LEADLINE_RUNS has.
"""

import argparse
import base64
import os
import re
import shlex
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import vl_convert
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from latex2mathml.converter import convert
from markdown_it import MarkdownIt
from markdown_it.token import Token
from mdit_py_plugins.anchors import anchors_plugin
from mdit_py_plugins.dollarmath import dollarmath_plugin

from leadline.errors import DataError, LeadlineError, SpecError, unknown
from leadline.reports.charts.chart import DARK, LIGHT, PAGE
from leadline.reports.charts.files import write_whole

DOCS = Path(__file__).resolve().parent
FIGURES = DOCS / "figures"
FIRST = ("theory/parity", "theory/chains", "theory/mean-field", "theory/pretraining", "theory/techniques", "why")
"""Pages in the order of their links; others follow by name."""
SHORT = 24  # characters of code that stay on one line

_CHILDREN = {"mfrac": 2, "msub": 2, "msup": 2, "munder": 2, "mover": 2, "mroot": 2, "msubsup": 3, "munderover": 3}
_SPACES = {"thinmathspace": "0.167em"}  # by name browsers no longer know them
_FUNCTION = re.compile(  # letters that the converter leaves no room around
    r"<msub><mi>log</mi>(<mn>\d+</mn>|<mrow><mn>\d+</mn></mrow>)</msub>|<mi>(log|exp)</mi>"
)
_MARKDOWN = MarkdownIt("commonmark").enable("table").use(anchors_plugin, max_level=3)
_MARKDOWN.use(dollarmath_plugin, allow_space=False, allow_digits=False)

Command = tuple[str, ...]  # its words


@dataclass(frozen=True)
class Figure:
    """An image of a page that a command on it draws."""

    path: Path  # where it is kept
    block: tuple[Command, ...]  # the shell block that draws it
    drawn: Path  # what is written, from the folder that the block runs in


@dataclass(frozen=True)
class Page:
    """A Markdown file, or a page of a text that is in none."""

    path: Path
    text: str | None = None

    @cached_property
    def tokens(self) -> list[Token]:
        """What the page says, block by block."""
        return _MARKDOWN.parse(self.path.read_text(encoding="utf-8") if self.text is None else self.text)

    @property
    def name(self) -> str:
        """Its path from the folder of all pages, without suffix."""
        return self.path.relative_to(DOCS).with_suffix("").as_posix()

    @property
    def up(self) -> str:
        """The way to the folder of all pages."""
        return "../" * self.name.count("/")

    @property
    def title(self) -> str:
        """Its name in links."""
        return self.path.stem.replace("-", " ").capitalize()

    @property
    def heading(self) -> str:
        """Its first heading, or its name in links where it has none."""
        return next(self._inline("heading_open"), self.title)

    @property
    def summary(self) -> str:
        """The first sentence of its first paragraph, without marks; empty where it has none."""
        first = " ".join(next(self._inline("paragraph_open"), "").split())
        return re.split(r"(?<=[.!?]) (?!\d)", first)[0]

    def _inline(self, kind: str) -> Iterator[str]:
        """Yield the text of blocks of one kind that have any."""
        for opening, content in pairwise(self.tokens):
            if opening.type == kind:
                words = (" " if each.type == "softbreak" else each.content for each in content.children or ())
                if text := "".join(words).strip():
                    yield text

    def href(self, other: "Page") -> str:
        """Return the link from here to another page."""
        return Path(os.path.relpath(DOCS / other.name, self.path.parent)).as_posix() + ".html"

    def every(self, kind: str) -> Iterator[Token]:
        """Yield tokens of one kind, those inside blocks too."""
        for token in self.tokens:
            yield from (each for each in (token, *(token.children or ())) if each.type == kind)

    def anchors(self) -> set[str]:
        """Return what a link to a part of this page may name."""
        return {str(token.attrs["id"]) for token in self.every("heading_open") if "id" in token.attrs}

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
    """Return all pages in the order of their links."""
    found = [Page(path) for path in DOCS.rglob("*.md")]
    return sorted(found, key=lambda page: (FIRST.index(page.name) if page.name in FIRST else len(FIRST), page.name))


# --- formulas


def mathml(latex: str, display: bool = False) -> str:
    """Return a formula as MathML.

    Raises:
        SpecError: something in it is not understood; the converter itself would print it as it stands.
    """
    try:
        text = convert(latex, display="block" if display else "inline")
        root = ET.fromstring(text)
    except Exception as error:  # the converter raises what it likes
        raise SpecError(f"formula {latex!r}: {type(error).__name__} {error}".rstrip() + "; mend it") from None
    for element in root.iter():
        tag, width = element.tag.rpartition("}")[2], element.get("width", "0em")
        if width.isalpha() and width not in _SPACES:
            raise SpecError(f"formula {latex!r}: a space of {width} is not known to browsers; use \\thinspace")
        if "\\" in (element.text or "") or len(element) != _CHILDREN.get(tag, len(element)):
            raise SpecError(f"formula {latex!r}: {element.text or tag} is not understood; write it another way")
    text = _FUNCTION.sub(r'<mspace width="thinmathspace" />\g<0><mspace width="thinmathspace" />', text)
    return re.sub(r'width="([a-z]+)"', lambda match: f'width="{_SPACES[match[1]]}"', text)


# --- HTML


def html(page: Page, all_pages: Sequence[Page]) -> str:
    """Return a page that needs no other file, but for its links.

    Raises:
        LeadlineError: a formula, a link or an image is wrong; the line names the page.
    """
    engine = Environment(loader=FileSystemLoader(DOCS), undefined=StrictUndefined, trim_blocks=True)
    tokens = [token for token in page.tokens if not _is_comment(token)]
    try:
        body = "".join(_block(page, all_pages, tokens))
    except SpecError as error:
        raise SpecError(f"{page.path}: {error}") from None
    style = (DOCS / "page.css").read_text(encoding="utf-8")
    given: dict[str, Any] = {"page": page, "pages": all_pages, "light": LIGHT, "dark": DARK}
    return engine.get_template("page.html").render(given, style=style, body=body)


def index(all_pages: Sequence[Page]) -> Page:
    """Return the page that links all pages, with a sentence about each."""
    lines = (
        f"- [{_escape(page.heading)}]({page.name}.md)" + (f": {_escape(page.summary)}" if page.summary else "")
        for page in all_pages
    )
    return Page(DOCS / "index.md", "\n".join(["# Leadline", "", *lines, ""]))


def _escape(text: str) -> str:
    return re.sub(r"([\\`*_\[\]<>$])", r"\\\1", text)


def target(page: Page, href: str, all_pages: Sequence[Page]) -> tuple[Path, Page | None, str]:
    """Return what a link without a scheme leads to: the file, the page if it is one, the part of it.

    Raises:
        DataError: there is no such file, or no such part.
    """
    file, _, part = href.partition("#")
    path = (page.path.parent / unquote(file)).resolve() if file else page.path
    if not path.exists():
        raise DataError(f"{page.path}: a link to {href}, which is not there; mend or remove it")
    other = next((each for each in all_pages if each.path == path), None)
    if part and (other is None or part not in other.anchors()):
        raise DataError(f"{page.path}: a link to {href}, whose file has no such heading; mend or remove it")
    return path, other, part


def _is_comment(token: Token) -> bool:
    return token.type == "html_block" and token.content.strip().startswith("<!--")


def _block(page: Page, all_pages: Sequence[Page], tokens: Sequence[Token]) -> Iterator[str]:
    """Yield HTML block by block; what the renderer has no idea of is done here."""
    number = 0
    while number < len(tokens):
        token, inside = tokens[number], tokens[number + 1] if number + 1 < len(tokens) else None
        if token.type == "paragraph_open" and inside and inside.children and _is_figure(inside.children):
            yield from (_figure(page, image) for image in inside.children if image.type == "image")
            number += 3
            continue
        match token.type:
            case "inline":
                yield "".join(_inline(page, all_pages, token.children or ()))
            case "math_block":
                yield f'<div class="formula" tabindex="0">{mathml(token.content.strip(), display=True)}</div>\n'
            case "fence":
                kind = ' class="output"' if token.info.strip() == "text" else ""
                yield f'<pre{kind} tabindex="0"><code>{escape(token.content)}</code></pre>\n'
            case "table_open":
                yield '<div class="scroll" tabindex="0">\n<table>\n'
            case "table_close":
                yield "</table>\n</div>\n"
            case _:
                yield _plain(tokens, number)
        number += 1


def _inline(page: Page, all_pages: Sequence[Page], tokens: Sequence[Token]) -> Iterator[str]:
    linked = True
    for number, token in enumerate(tokens):
        if token.type == "math_inline":
            yield mathml(token.content)
        elif token.type == "link_open" and not re.match(r"[a-z]+:", str(token.attrs["href"])):
            _, other, part = target(page, str(token.attrs["href"]), all_pages)
            linked = other is not None  # a file of the repository is not beside the HTML
            if other is not None:
                yield f'<a href="{escape((page.href(other) if other is not page else "") + (part and "#" + part))}">'
        elif token.type == "code_inline" and len(token.content) <= SHORT:
            yield f'<code class="short">{escape(token.content)}</code>'
        elif token.type == "link_close" and not linked:
            linked = True
        else:
            yield _plain(tokens, number)


def _plain(tokens: Sequence[Token], number: int) -> str:
    return _MARKDOWN.renderer.render([tokens[number]], _MARKDOWN.options, {})  # type: ignore[no-any-return]


def _is_figure(tokens: Sequence[Token]) -> bool:
    kinds = {token.type for token in tokens}
    return "image" in kinds and kinds <= {"image", "softbreak"}


def _figure(page: Page, image: Token) -> str:
    """Return an image: a chart in the colours of the page, anything else as it is, on paper."""
    path = (page.path.parent / unquote(str(image.attrs["src"]))).resolve()
    alt = escape(image.content)
    if not path.is_file():
        raise DataError(f"{page.path}: shows {path.name}, which is not there; run python -m docs.make --figures")
    content = path.read_bytes()
    if path.suffix == ".svg" and b'class="marks"' in content[:400]:
        return f"<figure><div tabindex='0'>{_in_page_colours(content.decode(), alt)}</div></figure>\n"
    kind = "svg+xml" if path.suffix == ".svg" else path.suffix.removeprefix(".")
    data = base64.b64encode(content).decode()
    return f'<figure class="paper"><div><img alt="{alt}" src="data:image/{kind};base64,{data}"></div></figure>\n'


def _in_page_colours(svg: str, alt: str) -> str:
    shown = dict(zip(_colours(LIGHT), _colours(PAGE), strict=True))
    svg = re.sub(r'"(#[0-9a-fA-F]{6})"', lambda match: f'"{shown.get(match[1].lower(), match[1])}"', svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{alt}" ', 1)


def _colours(palette: Any) -> list[str]:
    return [each.lower() for each in (palette.ink, palette.muted, palette.rule, palette.ground, *palette.arms)]


# --- what the commands draw


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
    """Render the pages, or draw their figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, default=Path("build/docs"), help="folder of the HTML")
    parser.add_argument("--figures", nargs="*", metavar="PAGE", help="draw the figures of all pages or of some")
    options = parser.parse_args()
    found = pages()
    try:
        if options.figures is not None:
            if strange := set(options.figures) - {page.name for page in found}:
                raise SpecError(unknown("page", min(strange), [page.name for page in found]))
            chosen = [page for page in found if page.name in options.figures or not options.figures]
            figures = [figure for page in chosen for figure in page.figures()]
            with tempfile.TemporaryDirectory() as folder:
                contents = draw(figures, Path(folder))
        else:
            rendered = [index(found), *found]
            contents = {options.output / f"{page.name}.html": html(page, found).encode() for page in rendered}
        for path, content in contents.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, content)
    except LeadlineError as error:
        sys.exit(f"docs: {error}")
    except OSError as error:
        sys.exit(f"docs: {error.filename}: {error.strerror}; choose another --output")
    if options.figures is None:
        print(f"written: {len(contents)} pages in {options.output}; open {options.output / 'index.html'}")
    else:
        print(f"written: {len(contents)} files in {FIGURES}")


if __name__ == "__main__":
    main()
