"""A table, and the same table as text, CSV, Markdown and LaTeX, and as a frame.

A table keeps plain values, which CSV and frames hold in full; each column knows how to show its values to a reader.
"""

import csv
import html
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any

from leadline.text import NOTHING

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Column:
    """One column that a reader sees, made of one or more plain values of a row."""

    heading: str
    keys: tuple[str, ...]  # of the plain values
    show: Callable[..., str] | None  # None: the values are for programs alone
    numeric: bool = True
    unit: str = ""
    wide: bool = False  # left out where there is little room, as in a notebook

    @property
    def title(self) -> str:
        """The heading with the unit of the values."""
        return f"{self.heading}, {self.unit}" if self.unit else self.heading


@dataclass(frozen=True)
class Table:
    """Rows of plain values under named columns; without rows there is nothing to show."""

    name: str  # of its files
    caption: str
    every: tuple[Column, ...]
    rows: tuple[Mapping[str, Any], ...]
    note: str = ""  # below the table: what a column means

    @property
    def columns(self) -> tuple[Column, ...]:
        """The columns that a reader sees."""
        return tuple(column for column in self.every if column.show)

    @property
    def keys(self) -> tuple[str, ...]:
        """The names of the plain values, in the order of the columns."""
        return tuple(dict.fromkeys(key for column in self.every for key in column.keys))

    @cached_property
    def shown(self) -> tuple[tuple[str, ...], ...]:
        """Every row as a reader sees it."""
        return tuple(
            tuple(column.show(*(row[key] for key in column.keys)) for column in self.every if column.show)
            for row in self.rows
        )


def plain(value: object) -> str:
    """Return a plain value as a reader sees it: as it is, or a dash where it is missing."""
    return NOTHING if is_missing(value) else str(value)


def first(value: object, *_: object) -> str:
    """Return the first of a column's values; the others are for programs alone."""
    return plain(value)


def is_missing(value: object) -> bool:
    """Whether a plain value is missing: None or NaN."""
    return value is None or (isinstance(value, float) and value != value)


def to_frame(table: Table) -> "pd.DataFrame":
    """Return a table's plain values as a frame with one column for each."""
    import pandas as pd

    return pd.DataFrame([[row[key] for key in table.keys] for row in table.rows], columns=list(table.keys))


def from_frame(frame: "pd.DataFrame", name: str, caption: str) -> Table:
    """Return a frame as a table whose headings are the frame's; numbers are shown with six significant digits."""
    import pandas as pd

    def show(value: Any) -> str:
        return NOTHING if pd.isna(value) else f"{value:.6g}" if isinstance(value, float) else str(value)

    columns = (
        Column(str(key), (str(key),), show, pd.api.types.is_numeric_dtype(values) and values.dtype != bool)
        for key, values in frame.items()
    )
    rows = ({str(key): value for key, value in row.items()} for row in frame.to_dict("records"))
    return Table(name, caption, tuple(columns), tuple(rows))


def to_html(table: Table) -> str:
    """Return a table as an HTML table, its wide columns left out."""
    shown = [(place, column) for place, column in enumerate(table.columns) if not column.wide]
    head = "".join(f"<th>{html.escape(column.title)}</th>" for _, column in shown)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(row[place])}</td>" for place, _ in shown) + "</tr>" for row in table.shown
    )
    caption = f"<caption>{html.escape(table.caption)}</caption>"
    note = f"<p>{html.escape(table.note)}</p>" if table.note else ""
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{note}"


def to_csv(table: Table) -> str:
    """Return a table as CSV: plain values in full, empty where there is none, and no formulas."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(csv_cell, table.keys))
    for row in table.rows:
        writer.writerow(["" if is_missing(row[key]) else csv_cell(row[key]) for key in table.keys])
    return text.getvalue()


def frame_to_csv(frame: "pd.DataFrame") -> str:
    """Return a frame as CSV without its index, and without formulas."""
    import pandas as pd

    texts = [place for place, kind in enumerate(frame.dtypes) if not pd.api.types.is_numeric_dtype(kind)]
    plain_cells = {place: frame.iloc[:, place].astype(object).map(csv_cell) for place in texts}
    columns = [plain_cells.get(place, frame.iloc[:, place]) for place in range(frame.shape[1])]
    safe = pd.concat(columns, axis=1) if columns else frame
    return str(
        safe.to_csv(index=False, lineterminator="\n", header=[str(csv_cell(str(name))) for name in frame.columns])
    )


def csv_cell(value: object) -> object:
    """Return a value of a CSV file; an apostrophe is put before a text that a spreadsheet would take for a formula.

    Examples:
        >>> csv_cell("=1+1"), csv_cell("-1.5"), csv_cell("-x"), csv_cell(-1.5), csv_cell("plain")
        ("'=1+1", '-1.5', "'-x", -1.5, 'plain')
    """
    if not isinstance(value, str) or not value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return value
    try:
        float(value)
    except ValueError:
        return f"'{value}"
    return value


def to_markdown(table: Table) -> str:
    """Return a table as GitHub's Markdown, its caption above it and its note below."""
    titles = [markdown_escape(column.title) for column in table.columns]
    rules = ["---:" if column.numeric else "---" for column in table.columns]
    rows = [titles, rules, *([markdown_escape(cell) for cell in row] for row in table.shown)]
    note = f"\n{markdown_escape(table.note)}\n" if table.note else ""
    return f"**{markdown_escape(table.caption)}**\n\n" + "".join(f"| {' | '.join(row)} |\n" for row in rows) + note


def to_latex(table: Table) -> str:
    """Return a table as LaTeX; the document needs the package booktabs."""
    layout = "".join("r" if column.numeric else "l" for column in table.columns)
    head = " & ".join(latex_escape(column.title) for column in table.columns)
    body = "".join(f"    {' & '.join(map(latex_escape, row))} \\\\\n" for row in table.shown)
    note = f"\n  \\par\\footnotesize {latex_escape(table.note)}" if table.note else ""
    return (
        "% needs \\usepackage{booktabs}\n\\begin{table}\n  \\centering\n"
        f"  \\caption{{{latex_escape(table.caption)}}}\n  \\label{{tab:{table.name}}}\n"
        f"  \\begin{{tabular}}{{{layout}}}\n    \\toprule\n    {head} \\\\\n    \\midrule\n{body}"
        f"    \\bottomrule\n  \\end{{tabular}}{note}\n\\end{{table}}\n"
    )


_MARKDOWN = {ord(mark): f"\\{mark}" for mark in "\\`*_{}[]<>#|~&$"}
_LATEX = {
    **{ord(mark): f"\\{mark}" for mark in "&%$#_{}"},
    ord("\\"): r"\textbackslash{}",
    ord("~"): r"\textasciitilde{}",
    ord("^"): r"\textasciicircum{}",
    ord("<"): r"\textless{}",
    ord(">"): r"\textgreater{}",
    ord("["): "{[}",  # a bracket after \\ would be read as its argument
    ord("]"): "{]}",
    ord("−"): "$-$",
    ord("±"): r"$\pm$",
    ord("–"): "--",
}


@lru_cache(maxsize=2**14)  # long tables repeat names and numbers
def markdown_escape(text: str) -> str:
    """Return a text that Markdown shows as it is, on one line."""
    return _one_line(text).translate(_MARKDOWN)


@lru_cache(maxsize=2**14)
def latex_escape(text: str) -> str:
    """Return a text that LaTeX sets as it is, on one line."""
    return _one_line(text).translate(_LATEX)


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if line.isprintable() else "".join(filter(str.isprintable, line))
