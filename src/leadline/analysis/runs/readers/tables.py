"""Tables in files: CSV, TSV, Parquet, JSON and JSON lines."""

import csv
import gzip
import json
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

from leadline.analysis.runs.readers import Reader, register
from leadline.errors import DataError

SEPARATORS = ",;\t"


# fmt: off
MISSING = frozenset({
    "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL",
    "NaN", "None", "n/a", "nan", "null",
})
# fmt: on
"""Words for a missing number: those that pandas knows."""


def read_csv(path: Path, words: bool = False) -> pd.DataFrame:
    """Return a table of text whose cells are divided by commas, semicolons or tabs, as its first line shows.

    It may be compressed with gzip, as the ending `.gz` says. Between semicolons, numbers may have decimal commas, as
    spreadsheets write them in many countries. Among numbers, words such as NaN are missing numbers; in a column of
    text, such as arms of which one is called None, they are text.

    Args:
        path: the file.
        words: leave words such as NaN among numbers, so that they can be told from empty cells.

    Raises:
        DataError: it is not UTF-8 text, has no rows, is damaged, or a column's name stands twice.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8-sig") if _is_gzip(path) else path.open(encoding="utf-8-sig") as file:
            head, row = file.readline(), file.readline()
        if "\0" in head:
            raise DataError(f"{path}: is not text; expected a table with names of columns in its first line")
        separator = max(SEPARATORS, key=head.count)
        names, first = _cells(head, separator), _cells(row, separator)
        frame = _read_csv(path, separator, len(names), len(first) - len(names))
        if separator == ";":
            frame = frame.apply(_with_decimal_points)
    except UnicodeDecodeError:
        raise DataError(
            f"{path}: is not UTF-8 text; expected a table with names of columns in its first line"
        ) from None
    except (pd.errors.EmptyDataError, pd.errors.ParserError) as error:
        raise DataError(f"{path}: is not a table: {error}") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: cannot be decompressed: {error}") from None
    if twice := [name for name, count in Counter(names).items() if count > 1 and name]:
        raise DataError(f"{path}: column {twice[0]!r} stands twice; rename one of them")
    return frame if words else frame.apply(_without_words)


def _cells(line: str, separator: str) -> list[str]:
    """Return the cells of a line, without spaces around them."""
    return [cell.strip() for cell in next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])]


def _read_csv(path: Path, separator: str, columns: int, more: int) -> pd.DataFrame:
    """Return the table in a file of text, with empty cells as missing values and words as they are.

    Args:
        path: the file.
        separator: between cells.
        columns: number of names in the first line.
        more: number of cells that the next line has beyond these.

    Raises:
        DataError: it is left open whether rows begin with a name of theirs or end with a separator.
    """

    def read(**further: Any) -> pd.DataFrame:
        found: pd.DataFrame = pd.read_csv(
            path,
            sep=separator,
            encoding="utf-8-sig",
            low_memory=False,
            skipinitialspace=True,
            keep_default_na=False,
            na_values=[""],
            **further,
        )
        return found

    frame = read()
    if more < 1 or not frame.iloc[:, -1].isna().all():
        return frame
    if more == 1 and frame.index.is_unique:
        raise DataError(
            f"{path}: rows have more cells than there are names of columns, and the last cells are empty; if the first"
            " are names of rows, name their column, and if rows end with a separator, remove it"
        )
    return read(index_col=False, usecols=range(columns))


def _with_decimal_points(column: pd.Series) -> pd.Series:
    """Return a column as numbers where spreadsheets have written decimal commas; any other as it is."""
    if column.dtype.kind in "biuf" or not column.astype("string").str.fullmatch(r"[-+]?\d+,\d+").any():
        return column
    return _to_numbers(column.astype("string").str.replace(",", ".", regex=False), column)


def _without_words(column: pd.Series) -> pd.Series:
    """Return a column of numbers among which words say that one is missing without the words; any other as it is."""
    return column if column.dtype.kind in "biuf" else _to_numbers(column, column)


def _to_numbers(text: pd.Series, column: pd.Series) -> pd.Series:
    """Return text as numbers, NaN for a missing one; where it holds no number or something else, a column as it is."""
    missing = text.isna() | text.astype("string").str.strip().isin(MISSING)
    if missing.all() or any(isinstance(one, bool) for one in column):
        return column
    try:
        return pd.to_numeric(text.mask(missing)).astype(float)
    except (ValueError, TypeError):
        return column


def read_parquet(path: Path) -> pd.DataFrame:
    """Return the table in a Parquet file.

    Raises:
        DataError: pyarrow is not installed, or the file is damaged.
    """
    try:
        return pd.read_parquet(path)
    except ImportError:
        raise DataError(f"{path}: reading Parquet needs pyarrow: pip install pyarrow") from None
    except (ValueError, OSError) as error:
        raise DataError(f"{path}: cannot be read as Parquet: {error}") from None


def read_json(path: Path) -> pd.DataFrame:
    """Return a table from a list of objects, a row each, or from an object of columns.

    Raises:
        DataError: it is neither.
    """
    content = _parse(path, _text(path), "")
    if isinstance(content, list) and content and all(isinstance(row, dict) for row in content):
        return pd.json_normalize(content)
    if isinstance(content, dict) and content and all(isinstance(column, list) for column in content.values()):
        try:
            return pd.DataFrame(content)
        except ValueError as error:
            raise DataError(f"{path}: {error}") from None
    raise DataError(f"{path}: expected a list of objects, one per run, or an object of columns")


def read_json_lines(path: Path) -> pd.DataFrame:
    """Return a table from lines that hold an object each.

    Raises:
        DataError: a line holds something else.
    """
    rows = []
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if line.strip():
            row = _parse(path, line, f":{number}")
            if not isinstance(row, dict):
                raise DataError(f'{path}:{number}: expected an object such as {{"model": "plain", "seed": 0}}')
            rows.append(row)
    return pd.json_normalize(rows) if rows else pd.DataFrame()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{path}: is not UTF-8 text; expected JSON") from None


def _parse(path: Path, text: str, place: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise DataError(f"{path}{place}: is not JSON: {error}") from None


def _is_gzip(path: Path) -> bool:
    return path.suffix.lower() == ".gz"


def _named(*endings: str) -> Callable[[Path], bool]:
    return lambda path: path.is_file() and path.name.lower().endswith(endings)


TEXT = (".csv", ".tsv", ".txt")
register(
    Reader(
        "CSV or TSV (.csv, .tsv, .txt; or .gz of them)", _named(*TEXT, *(f"{one}.gz" for one in TEXT)), read_csv, True
    )
)
register(Reader("Parquet (.parquet)", _named(".parquet", ".pq"), read_parquet, general=True))
register(Reader("JSON (.json)", _named(".json"), read_json, general=True))
register(Reader("JSON lines (.jsonl)", _named(".jsonl", ".ndjson"), read_json_lines, general=True))
