"""`compare`: the verdict on runs that Leadline did not train, from a table with a row for each."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from leadline.api.verdict import Verdict

if TYPE_CHECKING:
    import pandas as pd

    from leadline.analysis.runs import Compared


class Comparison:
    """The verdict on the runs of a table; it prints as text and displays itself in a notebook."""

    def __init__(self, compared: "Compared") -> None:
        """Wrap what `leadline.analysis.runs.compare_runs` returns."""
        self._compared = compared
        self.verdict = Verdict(compared.findings)

    @property
    def reading(self) -> tuple[str, ...]:
        """How the table was read: what was guessed, left out or averaged, in sentences."""
        return self._compared.reading

    @property
    def contrasts(self) -> "pd.DataFrame":
        """One row per contrast, with the columns of `Verdict.contrasts`: a, b, metric, n, difference, ci95_low, ..."""
        return self.verdict.contrasts

    @property
    def arms(self) -> "pd.DataFrame":
        """One row per arm, with the columns of `Verdict.arms`."""
        return self.verdict.arms

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as plain data, as `leadline compare --json` prints it."""
        return {"reading": list(self.reading), **self.verdict.to_json()}

    def report(self, folder: str | Path) -> Path:
        """Write a report into a folder, and return the path of its HTML file.

        The folder gets one HTML file that opens without a network, figures as SVG and PDF, and tables as CSV, Markdown
        and LaTeX.

        Raises:
            LeadlineError: a file cannot be written.
        """
        from leadline.reports.runs_page import write_comparison

        return write_comparison(self._compared, Path(folder))

    def __str__(self) -> str:
        return "\n".join(self.reading) + f"\n\n{self.verdict}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return "".join(f"<p>{html.escape(line)}</p>" for line in self.reading) + self.verdict._repr_html_()


def compare(
    results: "pd.DataFrame | str | Path",
    *,
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
) -> Comparison:
    """Compare the arms of a table of runs that were trained anywhere, paired by seed where they share seeds.

    Columns that are not given are guessed from their names, which the result says. A run without a number, or that is
    marked as diverged or failed, counts as worse than any other.

    Args:
        results: a frame, or a CSV, TSV, Parquet, JSON or JSON lines file, with a row per run, or per run and epoch; or
            what another program logged, such as a folder of runs of Lightning, W&B, MLflow or TensorBoard.
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

    Raises:
        DataError: the table cannot be read, or does not have what is asked for.

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
    from leadline.analysis.runs import Options, compare_runs, fill_from_names, find_columns
    from leadline.analysis.runs.readers import read_runs

    name, read = "runs", tuple[str, ...]()
    if isinstance(results, str | Path):
        name = Path(results).stem
        results, read = read_runs(Path(results))
    results, said = fill_from_names(results.reset_index(drop=True).rename(columns=str), pattern)
    columns = find_columns(results, arm, _several(pair), _several(value), epoch, data_set, _several(factor))
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
    return Comparison(compare_runs(results, columns, options, name, (*read, *said)))


def _several(names: str | Sequence[str] | None) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names or ())
