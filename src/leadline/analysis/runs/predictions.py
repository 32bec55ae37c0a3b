"""What runs predicted, example by example: read from a file for each run or from one table of all, and checked."""

import io
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from leadline.analysis.runs.columns import Columns, higher_is_better, is_arm, is_pair, short_name, tells_runs_apart
from leadline.analysis.runs.logs import RUN, find_files, name_of
from leadline.analysis.runs.names import fill_from_names
from leadline.analysis.runs.readers.tables import read_csv, read_parquet
from leadline.analysis.runs.runs import FAILED, levels_of
from leadline.errors import DataError
from leadline.parts.metrics import FinalMetric, Outputs, metrics
from leadline.text import join, plural

ERROR = "test_error"
"""The metric that is computed from predictions: the share of wrong ones, in per cent."""

EXAMPLES = (
    "id", "example", "example_id", "index", "idx", "image", "image_id", "sample", "sample_id",
)  # fmt: skip
LABELS = (
    "label", "labels", "target", "targets", "truth", "ground_truth", "y_true", "true_label", "true_class", "true", "y",
    "class",
)  # fmt: skip
PREDICTED = (
    "prediction", "predictions", "predicted", "pred", "preds", "y_pred", "y_hat", "predicted_label", "predicted_class",
)  # fmt: skip

CLASSES = "classes"
"""What columns of labels and predictions hold, in messages."""


@dataclass(frozen=True)
class Predictions:
    """What each of several runs predicted."""

    runs: pd.DataFrame  # a row per run: what tells it from the others, such as arm and seed
    outputs: tuple[Outputs, ...]  # of each row; classes are numbered
    classes: tuple[str, ...]  # their names
    said: tuple[str, ...]  # how they were read, in sentences

    def frame(self) -> pd.DataFrame:
        """Return a row per run and example, as `read_predictions` reads it again."""
        names = np.array(self.classes)
        parts = []
        for row, one in zip(self.runs.to_dict("records"), self.outputs, strict=True):
            own = pd.DataFrame({"id": one.examples, "label": names[one.labels], "prediction": names[one.predicted]})
            parts.append(own.assign(**{str(name): value for name, value in row.items()}))
        return pd.concat(parts, ignore_index=True)

    def values(self, name: str) -> list[float]:
        """Return a metric of `computed_metrics` for each run."""
        if name == ERROR:
            return [100 * float(np.mean(one.labels != one.predicted)) for one in self.outputs]
        values = [computed_metrics()[name].value(one) for one in self.outputs]
        return [float("nan") if value is None else value for value in values]

    def match(self, table: pd.DataFrame, columns: Columns) -> list[Outputs | None]:
        """Return what each row's run predicted; None: it has failed.

        Args:
            table: a row per run, or per run and epoch.
            columns: of the table; arm and seed may have other names here.

        Raises:
            DataError: a run that has not failed left no predictions, or predictions are of no run.
        """
        wanted = [columns.arm, *levels_of(columns), *columns.pair]
        own = [self._column(name, columns) for name in wanted]
        rows = self.runs[own].itertuples(index=False, name=None)
        known: dict[tuple[str, ...], Outputs] = {}
        for key, one in zip(map(_key, rows), self.outputs, strict=True):
            if key in known:
                raise DataError(f"--predictions: there are several of {_named(wanted, key)}")
            known[key] = one
        keys = [_key(row) for row in table[wanted].itertuples(index=False, name=None)]
        if lonely := [key for key in known if key not in set(keys)]:
            raise DataError(f"--predictions: the table has no run with {_named(wanted, lonely[0])}")
        for key, failed in zip(keys, _failed(table, columns), strict=True):
            if key not in known and not failed:
                raise DataError(
                    f"--predictions: there are none of {_named(wanted, key)}; if that run failed, say so in a column"
                    " state of the table, or leave its value empty"
                )
        return [known.get(key) for key in keys]

    def _column(self, name: str, columns: Columns) -> str:
        """Return which column tells what a column of the table does."""
        if name in self.runs:
            return name
        alike = {columns.arm: is_arm, **dict.fromkeys(columns.pair, is_pair)}.get(name)
        found = [str(one) for one in self.runs.columns if alike and alike(str(one))]
        if len(found) != 1:
            raise DataError(
                f"--predictions: nothing says which {name} a run has, by which the table names it; give --pattern, such"
                f" as '{{{columns.arm}}}_{{{columns.pair[0] if columns.pair else 'seed'}}}'"
            )
        return found[0]


def computed_metrics() -> dict[str, FinalMetric]:
    """Return name -> each metric that follows from labels and predictions."""
    found = {
        one.name: one
        for one in metrics().values()
        if isinstance(one, FinalMetric) and (one.name == ERROR or (one.compute and not one.needs_probabilities))
    }
    return dict(sorted(found.items(), key=lambda item: item[0] != ERROR))


def _key(row: Sequence[object]) -> tuple[str, ...]:
    return tuple(str(value).strip() for value in row)


def _named(names: Sequence[str], key: Sequence[str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in zip(names, key, strict=True))


def _failed(table: pd.DataFrame, columns: Columns) -> "np.ndarray[Any, Any]":
    """Return for each row whether it says that its run has failed."""
    failed = np.zeros(len(table), dtype=bool)
    for name in table.columns:
        words = table[name].astype("string").str.strip().str.lower().fillna("")
        if name == columns.state or higher_is_better(name) is not None:
            failed |= words.isin(FAILED).to_numpy()
    return failed


def read_predictions(source: Path | pd.DataFrame, pattern: str | None = None, apart: Sequence[str] = ()) -> Predictions:
    """Return what runs predicted.

    Args:
        source: a folder with a CSV, TSV, Parquet or npz file for each run, whose name says arm and seed, with a column
            or array for the examples (id), their classes (label) and what was predicted (prediction); or such a file,
            or a frame, with a row per run and example, and columns for what tells runs apart.
        pattern: how names of runs are written; see `fill_from_names`.
        apart: further columns that tell runs apart, such as factors.

    Raises:
        DataError: there is nothing to read, or a column is missing, or an example stands twice in a run.

    Example:
        >>> rows = [("plain", 0, 7, 1, 1), ("plain", 0, 8, 0, 1), ("deep", 0, 7, 1, 1), ("deep", 0, 8, 0, 0)]
        >>> frame = pd.DataFrame(rows, columns=["arm", "seed", "id", "label", "prediction"])
        >>> found = read_predictions(frame)
        >>> found.runs.values.tolist(), found.values("test_error")
        ([['plain', 0], ['deep', 0]], [50.0, 0.0])
    """
    parts, said = _parts(source, apart)
    runs = pd.DataFrame([part.run for part in parts])
    runs, taken = fill_from_names(runs, pattern)
    classes, outputs = _number_classes(parts)
    sizes = sorted({len(one.labels) for one in outputs})
    counts = plural(sizes[0], "example") if len(sizes) == 1 else f"{sizes[0]:,} to {sizes[-1]:,} examples"
    read = f"Predictions of {plural(len(parts), 'run')}, {counts} each, in {plural(len(classes), 'class', 'classes')}."
    return Predictions(runs, tuple(outputs), classes, (read, *said, *taken))


@dataclass(frozen=True)
class _Part:
    """The predictions of one run, its examples in order."""

    where: str
    run: Mapping[str, Any]  # column -> what it has for this run
    examples: "np.ndarray[Any, Any]"
    labels: pd.Series
    predicted: pd.Series


def _parts(source: Path | pd.DataFrame, apart: Sequence[str]) -> tuple[list[_Part], list[str]]:
    if isinstance(source, pd.DataFrame):
        return _divide(source.reset_index(drop=True).rename(columns=str), "the frame of predictions", apart)
    if not source.exists():
        raise DataError(f"{source}: no such file or folder")
    if source.is_file():
        if (read := _reader(source)) is None:
            raise DataError(f"{source}: expected CSV, TSV, Parquet or npz with predictions")
        return _divide(read(source), str(source), apart)
    found: list[Path] = []
    others: list[Path] = []
    for path in find_files(source, lambda name: not name.startswith(".")):
        (found if _reader(path) else others).append(path)
    if not found:
        raise DataError(f"{source}: holds no CSV, TSV, Parquet or npz file with the predictions of a run")
    said = [f"Not read: {join([name_of(path, source) for path in others], 3)}."] if others else []
    parts, unordered = [], False
    for path in found:
        frame = _read(path)
        columns = _columns(frame, str(path))
        unordered |= columns.example is None
        name = name_of(path, source)
        parts.append(_part(frame, columns, {RUN: name.removesuffix(path.suffix)}, str(path)))
    return parts, [*said, *([_BY_ROW] if unordered else [])]


_BY_ROW = "No column says which example a row is of: rows are taken to be in the same order in every run."


def _divide(frame: pd.DataFrame, where: str, apart: Sequence[str]) -> tuple[list[_Part], list[str]]:
    """Return the runs of a table with a row per run and example."""
    columns = _columns(frame, where)
    left = [str(name) for name in frame.columns if name not in columns.all]
    own = [name for name in left if name in apart or tells_runs_apart(name)]
    if not own:
        raise DataError(
            f"{where}: no column tells runs apart; expected one such as arm or run, and one such as seed, or a folder"
            " with a file for each run"
        )
    if (lacking := frame[own].isna().any(axis=1)).any():
        row = int(np.flatnonzero(lacking)[0]) + 1
        raise DataError(f"{where}: row {row}: {join(own)} must not be empty")
    parts = []
    for key, rows in frame.groupby(own, sort=False):
        named = dict(zip(own, key, strict=True))
        at = ", ".join(f"{name} {value}" for name, value in named.items())
        parts.append(_part(rows, columns, named, f"{where}, {at}"))
    return parts, [] if columns.example else [_BY_ROW]


# --- files


def _reader(path: Path) -> Callable[[Path], pd.DataFrame] | None:
    readers: dict[str, Callable[[Path], pd.DataFrame]] = {
        ".csv": read_csv,
        ".tsv": read_csv,
        ".parquet": read_parquet,
        ".npz": _read_npz,
    }
    return readers.get(path.suffix.lower())


def _read(path: Path) -> pd.DataFrame:
    read = _reader(path)
    assert read is not None
    return read(path)


def _read_npz(path: Path) -> pd.DataFrame:
    """Return arrays of one dimension and equal length as columns; nothing in the file is executed.

    Arrays that have neither a known name nor one dimension, such as logits, are left out.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as content:
            arrays = {name: content[name] for name in content.files}
            arrays = {name: array for name, array in arrays.items() if array.ndim == 1 or _is_known(name)}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        hint = "; save text as an array of dtype str" if "Object arrays" in str(error) else ""
        raise DataError(f"{path}: cannot be read as npz: {error}{hint}") from None
    shapes = {name: array.shape for name, array in arrays.items()}
    if len({shape[:1] for shape in shapes.values()}) != 1 or any(len(shape) != 1 for shape in shapes.values()):
        raise DataError(f"{path}: expected arrays of one dimension and equal length, got {_shapes(shapes)}")
    return pd.DataFrame(arrays)


def _is_known(name: str) -> bool:
    return short_name(name) in {*EXAMPLES, *LABELS, *PREDICTED}


def _shapes(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return join([f"{name} {list(shape)}" for name, shape in shapes.items()]) or "none"


def to_npz(frame: pd.DataFrame) -> bytes:
    """Return a table of predictions as a file that `read_predictions` reads."""
    content = io.BytesIO()
    arrays = {str(name): np.array(column.tolist()) for name, column in frame.items()}
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]
    return content.getvalue()


# --- columns and rows


@dataclass(frozen=True)
class _Columns:
    example: str | None
    label: str
    predicted: str

    @property
    def all(self) -> tuple[str, ...]:
        return (*([self.example] if self.example else []), self.label, self.predicted)


def _columns(frame: pd.DataFrame, where: str) -> _Columns:
    names = [str(name) for name in frame.columns]

    def first(known: Sequence[str]) -> str | None:
        found = [name for name in names if short_name(name) in known]
        return min(found, key=lambda name: known.index(short_name(name)), default=None)

    label, predicted = first(LABELS), first(PREDICTED)
    if label is None or predicted is None:
        raise DataError(
            f"{where}: expected columns id, label and prediction, with a row per example; found"
            f" {join(names, 8) if names else 'none'}"
        )
    return _Columns(first(EXAMPLES), label, predicted)


def _part(frame: pd.DataFrame, columns: _Columns, run: Mapping[str, Any], where: str) -> _Part:
    if frame.empty:
        raise DataError(f"{where}: has no rows; expected one per example")
    for name in columns.all:
        if (lacking := frame[name].isna().to_numpy()).any():
            raise DataError(f"{where}: column {name!r} is empty in row {int(np.flatnonzero(lacking)[0]) + 1}")
    if columns.example is None:
        examples = pd.Series(np.arange(len(frame)), index=frame.index)
    else:
        examples = _whole_or_text(frame[columns.example], where, "names of examples")
        if (twice := examples.duplicated()).any():
            raise DataError(f"{where}: {columns.example} {examples[twice].iloc[0]} stands twice")
    order = np.argsort(examples.to_numpy(), kind="stable")
    labels, predicted = (
        _whole_or_text(frame[name], where, CLASSES).iloc[order] for name in (columns.label, columns.predicted)
    )
    if (labels.dtype == object) != (predicted.dtype == object):
        kinds = ["names" if one.dtype == object else "numbers" for one in (labels, predicted)]
        raise DataError(
            f"{where}: classes are {kinds[0]} in column {columns.label!r} and {kinds[1]} in {columns.predicted!r}"
        )
    return _Part(where, run, examples.to_numpy()[order], labels, predicted)


def _whole_or_text(column: pd.Series, where: str, what: str) -> pd.Series:
    """Return a column as whole numbers, or as text.

    Raises:
        DataError: it has numbers that are not whole.
    """
    if not pd.api.types.is_numeric_dtype(column):
        return pd.Series([str(value).strip() for value in column], index=column.index, dtype=object)
    numbers = column.astype(float)
    if (wrong := ~np.isfinite(numbers) | (numbers != np.floor(numbers))).any():
        hint = "; of probabilities, give the class that has the highest" if what == CLASSES else ""
        raise DataError(f"{where}: column {column.name!r} has {numbers[wrong].iloc[0]:g}; expected {what}{hint}")
    return column.astype(np.int64)


def _number_classes(parts: Sequence[_Part]) -> tuple[tuple[str, ...], list[Outputs]]:
    """Return the names of all classes, and each run's predictions with numbers for them."""
    kinds = {part.labels.dtype == object for part in parts}
    if len(kinds) > 1:
        raise DataError(f"{parts[0].where} and others: classes are names in one and numbers in the other")
    columns = [column for part in parts for column in (part.labels, part.predicted)]
    known = pd.Index(sorted(set().union(*(column.unique() for column in columns))))
    numbered = [known.get_indexer(pd.Index(column)) for column in columns]
    made = [
        Outputs(labels, predicted, examples=part.examples)
        for part, labels, predicted in zip(parts, numbered[::2], numbered[1::2], strict=True)
    ]
    return tuple(map(str, known)), made
