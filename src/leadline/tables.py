"""A table, and the same table as CSV, Markdown and LaTeX.

A table keeps plain values, which CSV writes in full; each column knows how to show its values to a reader.
"""

import csv
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

NOTHING = "–"


@dataclass(frozen=True)
class Column:
    """One column that a reader sees, made of one or more plain values of a row."""

    title: str
    keys: tuple[str, ...]
    show: Callable[..., str]
    numeric: bool = True


@dataclass(frozen=True)
class Table:
    """Rows of plain values under named columns; without rows there is nothing to show."""

    name: str  # of its files
    caption: str
    columns: tuple[Column, ...]
    rows: tuple[Mapping[str, Any], ...]

    @property
    def keys(self) -> tuple[str, ...]:
        """The names of the plain values, in the order of the columns."""
        return tuple(key for column in self.columns for key in column.keys)

    @property
    def shown(self) -> tuple[tuple[str, ...], ...]:
        """Every row as a reader sees it."""
        return tuple(
            tuple(column.show(*(row[key] for key in column.keys)) for column in self.columns) for row in self.rows
        )


def is_missing(value: object) -> bool:
    """Whether a plain value is none: None or NaN."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def to_csv(table: Table) -> str:
    """Return a table as CSV: plain values in full, empty where there is none."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(table.keys)
    for row in table.rows:
        writer.writerow(["" if is_missing(row[key]) else row[key] for key in table.keys])
    return text.getvalue()


def to_markdown(table: Table) -> str:
    """Return a table as GitHub's Markdown, its caption above it."""
    titles = [markdown_escape(column.title) for column in table.columns]
    rules = ["---:" if column.numeric else "---" for column in table.columns]
    rows = [titles, rules, *([markdown_escape(cell) for cell in row] for row in table.shown)]
    return f"**{markdown_escape(table.caption)}**\n\n" + "".join(f"| {' | '.join(row)} |\n" for row in rows)


def to_latex(table: Table) -> str:
    """Return a table as LaTeX; the document needs the package booktabs."""
    layout = "".join("r" if column.numeric else "l" for column in table.columns)
    head = " & ".join(latex_escape(column.title) for column in table.columns)
    body = "".join(f"    {' & '.join(map(latex_escape, row))} \\\\\n" for row in table.shown)
    return (
        "% needs \\usepackage{booktabs}\n\\begin{table}\n  \\centering\n"
        f"  \\caption{{{latex_escape(table.caption)}}}\n  \\label{{tab:{table.name}}}\n"
        f"  \\begin{{tabular}}{{{layout}}}\n    \\toprule\n    {head} \\\\\n    \\midrule\n{body}"
        "    \\bottomrule\n  \\end{tabular}\n\\end{table}\n"
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


def markdown_escape(text: str) -> str:
    """Return a text that Markdown shows as it is, on one line."""
    return _one_line(text).translate(_MARKDOWN)


def latex_escape(text: str) -> str:
    """Return a text that LaTeX sets as it is, on one line."""
    return _one_line(text).translate(_LATEX)


def _one_line(text: str) -> str:
    return "".join(mark for mark in " ".join(text.split()) if mark.isprintable())
