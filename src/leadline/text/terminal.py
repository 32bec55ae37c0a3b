"""What reaches a terminal: text without control characters, in the characters that it has, fitted to its width."""

import codecs
import sys
import unicodedata
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from rich.console import Console

    from leadline.text.layout import Block

_NEAREST = str.maketrans(
    {
        **dict.fromkeys("\N{MINUS SIGN}\N{EN DASH}\N{EM DASH}\N{HYPHEN}\N{NON-BREAKING HYPHEN}\N{HORIZONTAL BAR}", "-"),
        **dict.fromkeys("\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}\N{PRIME}", "'"),
        **dict.fromkeys("\N{LEFT DOUBLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}\N{DOUBLE PRIME}", '"'),
        "\N{MULTIPLICATION SIGN}": "x",
        "\N{PLUS-MINUS SIGN}": "+-",
        "\N{ALMOST EQUAL TO}": "~",
        "\N{LESS-THAN OR EQUAL TO}": "<=",
        "\N{GREATER-THAN OR EQUAL TO}": ">=",
        "\N{RIGHTWARDS ARROW}": "->",
        "\N{MIDDLE DOT}": "*",
        "\N{BULLET}": "*",
        "\N{SUPERSCRIPT TWO}": "^2",
        "\N{LATIN SMALL LETTER SHARP S}": "ss",
        # what progress bars and frames of tables are drawn with
        **dict.fromkeys(map(chr, range(0x2500, 0x2580)), "-"),
        **dict.fromkeys("\u2502\u2503\u2551", "|"),
        **dict.fromkeys(map(chr, range(0x2580, 0x25A0)), "#"),
    }
)


def to_ascii(text: str) -> str:
    """Return a text with the nearest ASCII characters; those that have none are written as escapes.

    Examples:
        >>> to_ascii("−4.5 ± 0.5 × 2 – größer"), to_ascii("語")
        ('-4.5 +- 0.5 x 2 - grosser', '\\\\u8a9e')
    """
    plain = unicodedata.normalize("NFKD", text.translate(_NEAREST))
    plain = "".join(mark for mark in plain if not unicodedata.combining(mark))
    return plain.encode("ascii", "backslashreplace").decode()


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return to_ascii(error.object[error.start : error.end]), error.end


codecs.register_error("leadline-nearest", _replace)

_BIDIRECTIONAL = [0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_ESCAPED = {
    code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
    for code in (*range(0x20), *range(0x7F, 0xA0), *_BIDIRECTIONAL)
    if chr(code) not in "\n\t"
}


def escape_controls(text: str) -> str:
    """Return a text whose control characters and changes of direction are written as escapes, so that none has effect.

    Line breaks and tabs remain.

    Example:
        >>> escape_controls("a\\x1b[31mb")
        'a\\\\x1b[31mb'
    """
    return text.translate(_ESCAPED)


class PlainStream:
    """A text stream for plain text alone: control characters are written as escapes."""

    def __init__(self, stream: TextIO) -> None:
        self.rich_proxied_file = stream  # where consoles of rich write, with colours and movements of the cursor

    def write(self, text: str) -> int:
        """Write a text; a carriage return at its start is left, with which progress bars begin."""
        bar = text.startswith("\r") and not text.startswith("\r\n")
        return self.rich_proxied_file.write("\r" * bar + escape_controls(text[bar:].replace("\r\n", "\n")))

    def writelines(self, lines: list[str]) -> None:
        """Write texts."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        if name == "buffer":  # through which text would pass by
            raise AttributeError(name)
        return getattr(self.rich_proxied_file, name)


def protect_streams() -> None:
    """Let standard output and standard error escape control characters, and replace what their encoding lacks."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None or isinstance(stream, PlainStream):
            continue
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="leadline-nearest")
        setattr(sys, name, PlainStream(stream))


def make_console(stderr: bool = False) -> "Console":
    """Return a console of rich on standard output or standard error whose texts have no control characters."""
    from collections.abc import Iterable

    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class PlainConsole(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else segment._replace(text=escape_controls(segment.text))

    stream = sys.stderr if stderr else sys.stdout
    while (inner := getattr(stream, "rich_proxied_file", None)) is not None:
        stream = inner
    return PlainConsole(file=stream)


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on standard error, on a terminal only; yield a function of (done, total) that updates it."""
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    console = make_console(stderr=True)
    columns = TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def print_text(*blocks: "Block") -> None:
    """Print paragraphs and tables on standard output.

    They are fitted to a terminal. In files and pipes, the lines of paragraphs and the rows of tables are whole and have
    no styles, whatever COLUMNS says.
    """
    from leadline.text.layout import UNLIMITED, render, to_text

    console = make_console()
    if not console.is_terminal:
        print(to_text(*blocks))
        return
    parts = list(render(blocks, console.width))
    console.width = UNLIMITED  # the parts fit; a word that is longer than a line is not cut
    for part in parts:
        console.print(part, soft_wrap=True, highlight=False)
