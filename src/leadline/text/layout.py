"""Paragraphs and tables as text: whole in files and pipes, fitted to the width of a terminal.

Where there is no width, every line and every row of a table is one line. Within a width, text wraps at spaces alone:
names, numbers and paths stay whole, as does what stands in brackets behind a name, and one that is longer than a line
has a line of its own. A table that is too wide is continued below itself, with the columns that name its rows; what
does not fit beside these follows row by row. Nothing is left out.
"""

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.console import Console, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from leadline.text import NOTHING
from leadline.text.tables import Table
from leadline.text.terminal import escape_controls

Block = str | Table
"""Lines of prose, or a table."""

GAP = 2  # spaces between columns
READABLE = 24  # columns of prose are not made narrower than this for others' sake
UNLIMITED = 2**20  # wider than any line

_KEPT = "\ufdd0"  # a space at which no line ends; not a character of any text
_WORD = re.compile(r"(?:\[[^\[\]]*\]|[^ ])+")


def keep(text: str) -> str:
    """Return words that stay on one line."""
    return text.replace(" ", _KEPT)


def to_text(*blocks: Block, width: int | None = None) -> str:
    """Return paragraphs and tables as text with an empty line between them.

    Args:
        blocks: lines of prose, and tables; tables without rows are left out.
        width: columns of the terminal, of which a wide character takes two; None: lines are as long as they are.

    Examples:
        >>> print(to_text("- one two three", width=10))
        - one two
          three
    """
    file = io.StringIO()
    console = Console(
        file=file,
        width=UNLIMITED,
        color_system=None,
        force_terminal=False,
        force_jupyter=False,  # in a notebook, a console displays what it prints, whatever its file
        legacy_windows=False,
    )
    for part in render(blocks, width):
        console.print(part, soft_wrap=True)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def render(blocks: Sequence[Block], width: int | None) -> Iterator[RenderableType]:
    """Yield what a console of rich prints for paragraphs and tables; see `to_text`."""
    shown = [block for block in blocks if isinstance(block, str) or block.rows]
    for place, block in enumerate(shown):
        if place:
            yield Text("")
        if isinstance(block, str):
            yield _lines(block, width)
            continue
        if block.caption:
            yield _lines(block.caption, width, "bold")
        yield from _table(block, width)
        if block.note:
            yield Text("")
            yield _lines(block.note, width)


def wrap(text: str, width: int | None, hang: int = 0) -> list[str]:
    """Return one line of text as lines of at most a width, broken at spaces.

    Args:
        text: a line; spaces at its beginning indent all of its lines, and a dash hangs before them.
        width: columns of the terminal; None: as many as the line has.
        hang: spaces before all lines but the first.

    Examples:
        >>> wrap("  net[depth=2, width=3] is better", 22)
        ['  net[depth=2, width=3]', '  is better']
    """
    text = escape_controls(text)
    if width is None or cell_len(text) <= width:
        return [text.replace(_KEPT, " ")]
    body = text.lstrip(" ")
    lead = " " * (len(text) - len(body))
    after = lead + " " * (hang or 2 * body.startswith("- "))
    lines, line = [], lead
    for word in _words(body, width - len(after)):
        if line.strip() and cell_len(line) + 1 + cell_len(word) > width:
            lines.append(line)
            line = after
        line += f" {word}" if line.strip() else word
    return [each.replace(_KEPT, " ") for each in (*lines, line)]


def _words(text: str, width: int) -> Iterator[str]:
    for word in _WORD.findall(text):
        yield from [word] if cell_len(word) <= width else word.split(" ")


def _lines(text: str, width: int | None, style: str = "") -> Text:
    return Text("\n".join(line for each in text.split("\n") for line in wrap(each, width)), style=style)


@dataclass(frozen=True)
class _Shown:
    """A column as text: its heading and a cell for each row."""

    title: str
    cells: tuple[str, ...]
    numeric: bool

    @property
    def full(self) -> int:
        """The width at which nothing wraps."""
        return max(map(cell_len, (self.title, *self.cells)))

    @property
    def least(self) -> int:
        """The width that it needs: its numbers, or its longest word, and room to read on."""
        if self.numeric:
            return max(_longest_word(self.title), *map(cell_len, self.cells))
        return max(min(self.full, READABLE), *map(_longest_word, (self.title, *self.cells)))


def _longest_word(text: str) -> int:
    return max((cell_len(word) for word in _words(text, UNLIMITED)), default=0)


def _columns(table: Table) -> Iterator[_Shown]:
    rows = [[escape_controls(" ".join(cell.splitlines())) for cell in row] for row in table.shown]
    for column, *cells in zip(table.columns, *rows, strict=True):
        if not column.wide or set(cells) != {NOTHING}:
            yield _Shown(column.title, tuple(cells), column.numeric)


def _table(table: Table, width: int | None) -> Iterator[RenderableType]:
    """Yield a table, in parts where it is too wide."""
    columns = list(_columns(table))
    parts, apart = ([columns], []) if width is None else _divide(columns, width)
    for number, part in enumerate(parts):
        if number:
            yield Text("")
        yield _grid(part, width)
    if apart and width is not None:
        if parts:
            yield Text("")
        yield from _records(_naming(columns), apart, width)


def _divide(columns: Sequence[_Shown], width: int) -> tuple[list[list[_Shown]], list[_Shown]]:
    """Return the parts of a table, what names its rows in all of them, and the columns that do not fit beside that."""
    names = _naming(columns)
    others = columns[len(names) :]
    if not others:
        return [names], []
    taken = sum(name.least for name in names) + GAP * (len(names) - 1)
    parts: list[list[_Shown]] = []
    apart: list[_Shown] = []
    room = 0
    for column in others:
        needed = GAP + column.least
        if taken + needed > width:
            apart.append(column)
            continue
        if not parts or room < needed:
            parts.append([*names])
            room = width - taken
        parts[-1].append(column)
        room -= needed
    # a name so long that hardly more than one column fits beside it is better written once
    return ([], list(others)) if len(parts) > 2 and 2 * len(parts) > len(others) else (parts, apart)


def _naming(columns: Sequence[_Shown]) -> list[_Shown]:
    """Return the first columns, as many as tell the rows apart; the first alone where none do."""
    for count in range(1, len(columns)):
        cells = [column.cells for column in columns[:count]]
        if len(set(zip(*cells, strict=True))) == len(cells[0]):
            return list(columns[:count])
    return [columns[0]]


def _fit(columns: Sequence[_Shown], width: int) -> list[int]:
    """Return the width of each column: the widest give way to the others."""
    least, widths = [column.least for column in columns], [column.full for column in columns]
    while sum(widths) + GAP * (len(widths) - 1) > width:
        wide = [place for place in range(len(widths)) if widths[place] > least[place]]
        if not wide:
            break
        widths[max(wide, key=widths.__getitem__)] -= 1
    return widths


def _grid(columns: Sequence[_Shown], width: int | None) -> RichTable:
    ruled = width is not None
    grid = RichTable(
        box=box.SIMPLE_HEAD if ruled else None,
        show_edge=False,
        pad_edge=False,
        padding=(0, GAP - ruled, 0, 0),  # the box takes a column between two others
        header_style="bold",
    )
    laid = []
    for column, own in zip(columns, _fit(columns, UNLIMITED if width is None else width), strict=True):
        title, *cells = (Text("\n".join(wrap(cell, own))) for cell in (column.title, *column.cells))
        grid.add_column(title, justify="right" if column.numeric else "left", width=own, no_wrap=True)
        laid.append(cells)
    for row in zip(*laid, strict=True):
        grid.add_row(*row)
    return grid


def _records(names: Sequence[_Shown], columns: Sequence[_Shown], width: int) -> Iterator[RenderableType]:
    """Yield the values of some columns row by row, each below the name of its row."""
    for row in range(len(names[0].cells)):
        values = [
            f"  {keep(column.title)}: {column.cells[row]}"
            for column in columns
            if column.cells[row] not in ("", NOTHING)
        ]
        if values:
            yield _lines("; ".join(f"{name.title}: {name.cells[row]}" for name in names), width, "bold")
            yield Text("\n".join(line for value in values for line in wrap(value, width, hang=2)))
