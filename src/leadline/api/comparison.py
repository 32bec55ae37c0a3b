"""`compare`: the verdict on runs that Leadline did not train, from a table, or on arms of several stored studies."""

import html
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from leadline.api.verdict import Verdict
from leadline.errors import DataError, SpecError
from leadline.text import join

if TYPE_CHECKING:
    import pandas as pd

    from leadline.analysis.runs import Compared, Options
    from leadline.analysis.studies import ComparedArms
    from leadline.text.layout import Block


class Comparison:
    """The verdict on runs of a table, or on arms of studies; it prints as text and displays itself in a notebook."""

    def __init__(self, compared: "Compared | ComparedArms") -> None:
        """Wrap what `leadline.analysis.runs.compare_runs` or `leadline.analysis.studies.compare_arms` returns."""
        self._compared = compared
        self.verdict = Verdict(compared.findings)

    @property
    def reading(self) -> tuple[str, ...]:
        """How the table was read: what was guessed, left out or averaged; how arms of studies differ; in sentences."""
        return self._compared.reading

    @property
    def contrasts(self) -> "pd.DataFrame":
        """One row per contrast, with the columns of `Verdict.contrasts`: a, b, metric, n, difference, ci_low, ..."""
        return self.verdict.contrasts

    @property
    def arms(self) -> "pd.DataFrame":
        """One row per arm, with the columns of `Verdict.arms`."""
        return self.verdict.arms

    @property
    def examples(self) -> "pd.DataFrame":
        """One row per contrast and example at which its arms differ; empty without predictions.

        Columns: a, b, example, label, pairs (of runs that predicted it), right_a and right_b (at how many of them each
        arm was correct).
        """
        import pandas as pd

        names = ["a", "b", "example", "label", "pairs", "right_a", "right_b"]
        parts = [one.frame.assign(a=one.a, b=one.b)[names] for one in self._compared.examples]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=names)

    def to_blocks(self) -> "list[Block]":
        """Return what the comparison shows as paragraphs and tables."""
        from leadline.analysis.runs import summary_table
        from leadline.analysis.verdict import to_blocks

        examples = [summary_table(self._compared.examples)] if self._compared.examples else []
        return ["\n".join(self.reading), *to_blocks(self.verdict.findings), *examples]

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as plain data, as `leadline compare --json` prints it."""
        found = {"reading": list(self.reading), **self.verdict.to_json()}
        if self._compared.examples:
            found["examples"] = self.examples.to_dict("records")
        return found

    def report(self, folder: str | Path) -> Path:
        """Write a report into a folder, and return the path of its HTML file.

        The folder gets one HTML file that opens without a network, figures as SVG and PDF, and tables as CSV, Markdown
        and LaTeX.

        Raises:
            LeadlineError: a file cannot be written.
        """
        from leadline.analysis.runs import Compared
        from leadline.reports.arms_page import write_arms
        from leadline.reports.runs_page import write_comparison

        if isinstance(self._compared, Compared):
            return write_comparison(self._compared, Path(folder))
        return write_arms(self._compared, Path(folder))

    def __str__(self) -> str:
        from leadline.text.layout import to_text

        return to_text(*self.to_blocks())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return "".join(f"<p>{html.escape(line)}</p>" for line in self.reading) + self.verdict._repr_html_()


def compare(
    results: "pd.DataFrame | str | Path | Sequence[str] | None" = None,
    *,
    predictions: "pd.DataFrame | str | Path | None" = None,
    arm: str | None = None,
    pair: str | Sequence[str] | None = None,
    value: str | Sequence[str] | None = None,
    epoch: str | None = None,
    data_set: str | None = None,
    factor: str | Sequence[str] | None = None,
    pattern: str | None = None,
    contrasts: Sequence[tuple[str, str]] | None = None,
    baseline: str | None = None,
    margin: float | Mapping[str, float] | None = None,
    higher_is_better: bool | None = None,
    unit: str | None = None,
    resolution: float | None = None,
    correction: Literal["holm", "benjamini-hochberg"] = "holm",
    decide: int | None = None,
    unpaired: bool = False,
    mean_of_duplicates: bool = False,
    title: str = "",
    runs: str | Path = "runs",
    store: str | None = None,
) -> Comparison:
    """Compare the arms of a table of runs that were trained anywhere, or of stored studies, paired by seed.

    Columns that are not given are guessed from their names, which the result says. A run without a number, or that is
    marked as diverged or failed, counts as worse than any other.

    Args:
        results: a frame, or a CSV, TSV, Parquet, JSON or JSON lines file, with a row per run, or per run and epoch; or
            what another program logged, such as a folder of runs of Lightning, W&B, MLflow or TensorBoard; or several
            arms of stored studies, such as `["demo/residual", "other/residual"]`, for which the arguments that name
            or describe columns are not given, but for `value`, a metric of Leadline; None: the runs are those of
            `predictions`.
        predictions: what each run predicted, example by example, with columns id, label and prediction: a folder with a
            CSV, TSV, Parquet or npz file for each run, or such a file or a frame of all runs, with columns such as arm
            and seed. Adds the test error, McNemar's test, an interval for other examples as well as other seeds, and
            the examples that only one arm classifies correctly.
        arm: column with the arms that are compared.
        pair: column, or columns, whose value two runs of a pair share, such as the seed.
        value: column, or columns, with the values to compare.
        epoch: column with the epoch or step; of each run the last one is compared.
        data_set: column with the data set, each of which is compared by itself and in a summary.
        factor: further columns at each of whose levels arms are compared.
        pattern: how names of runs are written, such as `{arm}_seed{seed}`; each field becomes a column.
        contrasts: pairs of arms to compare; None: all of up to four arms, or each with `baseline`.
        baseline: arm with which every other one is compared.
        margin: largest difference that does not matter, in the unit of the values; by value if there are several.
        higher_is_better: None: as the name of the values says; of several values, it holds where names do not say.
        unit: of the values; None: % for shares that go beyond 1. Differences of % are percentage points.
        resolution: step in which values move, such as 0.01 for per cent of 10,000 test images; None: unknown.
        correction: of p-values, for the number of contrasts.
        decide: number of seeds that there may be in all, if more are added until every contrast is decided; intervals
            are then valid at every look.
        unpaired: whether runs are compared without pairs, even if they could be paired.
        mean_of_duplicates: whether several rows of one arm and pair are averaged; otherwise they are an error.
        title: title of the comparison.
        runs: the folder of the store's checkpoints and of the default store, for arms of studies.
        store: URL of the store; None: `leadline.db` in the runs folder.

    Raises:
        DataError: the table cannot be read, or does not have what is asked for.
        StoreError: there is no such store, study or arm, or two arms cannot be compared.
        SpecError: an argument is not for arms of studies, or a metric is unknown.

    Example:
        >>> import pandas as pd
        >>> frame = pd.DataFrame(
        ...     {
        ...         "arm": ["plain"] * 4 + ["residual"] * 4,
        ...         "seed": [0, 1, 2, 3] * 2,
        ...         "test_error": [7.1, 7.4, 6.9, 7.3, 6.5, 6.7, 6.4, 6.6],
        ...     }
        ... )
        >>> found = compare(frame, arm="arm", pair="seed", value="test_error", margin=0.5)
        >>> found.contrasts[["a", "b", "verdict"]].values.tolist()
        [['residual', 'plain', 'better']]
    """
    from leadline.analysis.runs import Given, Options, compare_table

    if isinstance(results, Sequence) and not isinstance(results, str):
        unfit: dict[str, object] = {"predictions": predictions is not None or None, "arm": arm, "pair": pair}
        unfit |= {"epoch": epoch, "data_set": data_set, "factor": factor, "pattern": pattern}
        unfit |= {"higher_is_better": higher_is_better, "unit": unit, "resolution": resolution, "decide": decide}
        unfit |= {"mean_of_duplicates": mean_of_duplicates or None}
        names = tuple(map(str, results))
        _refuse_for_arms(names, unfit)
        options = Options(
            tuple(contrasts or ()), baseline, margin, correction=correction, unpaired=unpaired, title=title
        )
        return Comparison(_compare_arms(names, _several(value), options, Path(runs), store))
    if isinstance(results, str | Path):
        _refuse_one_arm(str(results))
        results = Path(results)
    if isinstance(predictions, str):
        predictions = Path(predictions)
    given = Given(arm, _several(pair), _several(value), epoch, data_set, _several(factor), pattern)
    options = Options(
        contrasts=tuple(contrasts or ()),
        baseline=baseline,
        margin=margin,
        higher_is_better=higher_is_better,
        unit=unit,
        resolution=resolution,
        correction=correction,
        decide=decide,
        unpaired=unpaired,
        mean_of_duplicates=mean_of_duplicates,
        title=title,
    )
    return Comparison(compare_table(results, predictions, given, options))


def _several(names: str | Sequence[str] | None) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names or ())


ARM = re.compile(r"[A-Za-z0-9][\w.-]*/[^/\\]+")
"""What looks like an arm of a stored study, and like a path below a folder."""


def _refuse_one_arm(name: str) -> None:
    """Check that a path of results is not an arm of a stored study, which is compared with another.

    Raises:
        DataError: it is, as far as its name says.
    """
    if ARM.fullmatch(name) and ("[" in name or not Path(name).suffix) and not Path(name).exists():
        raise DataError(
            f"{name}: no such file or folder; if it is an arm of a stored study, name another to compare it with, such"
            f" as leadline compare {name} other/residual"
        )


def _refuse_for_arms(names: Sequence[str], unfit: Mapping[str, object]) -> None:
    """Check that names are those of arms, and that no argument is for tables of results.

    Raises:
        DataError: they are paths.
        SpecError: there is one name, or an argument is for tables.
    """
    if len(names) < 2:
        raise SpecError(
            f"{join(names) or 'nothing'}: expected two arms of stored studies, such as demo/residual, or more"
        )
    files = [name for name in names if Path(name).is_file()]
    if files or all(Path(name).exists() for name in names):
        raise DataError(
            f"{join(names)}: expected one table, folder or file of results, or two arms of stored studies, such as"
            f" demo/residual, and {files[0] if files else names[0]} is a {'file' if files else 'folder'}; join tables"
            " into one, with a column that names the arms"
        )
    if given := [f"--{name.replace('_', '-')}" for name, value in unfit.items() if value not in (None, (), [])]:
        raise SpecError(f"{join(given)}: for tables of results, and {join(names)} are arms of studies; leave it out")


def _compare_arms(
    names: Sequence[str], values: Sequence[str], options: "Options", runs: Path, store: str | None
) -> "ComparedArms":
    from leadline.analysis.studies import StoredStudy, compare_arms, reads_probabilities_of, split_name
    from leadline.store import Store

    with Store.open_existing(runs, store) as opened:
        studies = {name: opened.study(name).expand() for name, _ in map(split_name, names)}
        whole = reads_probabilities_of(studies.values(), values)
        stored = {
            name: StoredStudy(study, opened.trials_frame(name), opened.records_frame(name), opened.outputs(name, whole))
            for name, study in studies.items()
        }
    return compare_arms(names, stored, values, options)
