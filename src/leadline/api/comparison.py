"""`compare`: the verdict on runs that Leadline did not train, from a table with a row for each."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from leadline.api.verdict import Verdict
from leadline.errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from leadline.analysis.runs import Compared
    from leadline.text.layout import Block


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
        if self._compared.predictions is not None:
            found["examples"] = self.examples.to_dict("records")
        return found

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
        from leadline.text.layout import to_text

        return to_text(*self.to_blocks())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return "".join(f"<p>{html.escape(line)}</p>" for line in self.reading) + self.verdict._repr_html_()


def compare(
    results: "pd.DataFrame | str | Path | None" = None,
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
) -> Comparison:
    """Compare the arms of a table of runs that were trained anywhere, paired by seed where they share seeds.

    Columns that are not given are guessed from their names, which the result says. A run without a number, or that is
    marked as diverged or failed, counts as worse than any other.

    Args:
        results: a frame, or a CSV, TSV, Parquet, JSON or JSON lines file, with a row per run, or per run and epoch; or
            what another program logged, such as a folder of runs of Lightning, W&B, MLflow or TensorBoard; None: the
            runs are those of `predictions`.
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
    from leadline.analysis.runs import (
        ERROR,
        Options,
        compare_runs,
        computed_metrics,
        expand_summaries,
        fill_from_names,
        find_columns,
        is_summary,
        read_predictions,
        without_spread,
    )
    from leadline.analysis.runs.logs import RUN
    from leadline.analysis.runs.readers import read_runs

    name, read, values = "runs", tuple[str, ...](), _several(value)
    predicted = None
    if predictions is not None:
        source = Path(predictions) if isinstance(predictions, str | Path) else predictions
        own = [arm, *_several(pair), data_set, *_several(factor)]
        predicted = read_predictions(source, pattern, [one for one in own if one is not None])
        name, read = (source.stem if isinstance(source, Path) else name), predicted.said
        values = (*values, *((ERROR,) if ERROR not in values else ()))
    if results is None:
        if predicted is None:
            raise DataError("nothing to compare; give a table of results, a folder of runs, or predictions")
        results = predicted.runs
    else:
        if isinstance(results, str | Path):
            name = Path(results).stem
            results, found = read_runs(Path(results))
            read = (*found, *read)
        own_names = predicted is None or RUN in results  # else the pattern is that of the predictions
        results, said = fill_from_names(
            results.reset_index(drop=True).rename(columns=str), pattern if own_names else None
        )
        read = (*read, *said)
    moments = predicted is None and is_summary(results)
    computed = [one for one in values if predicted and one not in results and one in computed_metrics()]
    columns = find_columns(
        without_spread(results) if moments else results.assign(**dict.fromkeys(computed, 0.0)),
        arm,
        _several(pair),
        values,
        epoch,
        data_set,
        _several(factor),
    )
    if moments:
        results, expanded = expand_summaries(results, columns)
        read = (*read, expanded)
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
    return Comparison(compare_runs(results, columns, options, name, read, predicted, moments))


def _several(names: str | Sequence[str] | None) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names or ())
