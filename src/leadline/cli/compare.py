"""The command that compares runs that Leadline did not train, or arms of stored studies."""

import re
from pathlib import Path
from typing import Annotated, Literal

import typer

from leadline.cli.options import RUNS, Json, Runs, StoreUrl, print_json
from leadline.errors import SpecError

app = typer.Typer()


@app.command()
def compare(
    results: Annotated[
        list[str] | None,
        typer.Argument(
            show_default=False,
            help="Two or more arms of stored studies, such as demo/residual; or one CSV, TSV, Parquet, JSON or JSON"
            " lines file with a row per run, or per run and epoch; or what Lightning, Keras, Hugging Face, W&B, MLflow,"
            " TensorBoard or Optuna logged: a folder of runs, an export or an SQLite file. Without it, the runs are"
            " those of --predictions.",
        ),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="What each run predicted: a folder with a CSV, TSV, Parquet or npz file for each run, with columns id,"
            " label and prediction, or such a file of all runs with columns such as arm and seed.",
        ),
    ] = None,
    arm: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of the arms that are compared.")] = None,
    pair: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="Column that runs of a pair share, such as seed; repeatable."),
    ] = None,
    value: Annotated[
        list[str] | None,
        typer.Option(
            metavar="COLUMN",
            help="Column of the values to compare, or of arms of studies a metric, such as macro_f1; repeatable.",
        ),
    ] = None,
    epoch: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column of the epoch; the last of each run is compared.")
    ] = None,
    data_set: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of the data set.")] = None,
    factor: Annotated[
        list[str] | None,
        typer.Option(metavar="COLUMN", help="Column at each of whose levels arms are compared; repeatable."),
    ] = None,
    pattern: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help="How names of runs are written, such as '{arm}_seed{seed}'; each field becomes a column.",
        ),
    ] = None,
    contrast: Annotated[
        list[str] | None,
        typer.Option(metavar="A,B", help="Two arms to compare, the first against the second; repeatable."),
    ] = None,
    baseline: Annotated[str | None, typer.Option(metavar="ARM", help="Compare every other arm with this one.")] = None,
    margin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NUMBER|COLUMN=NUMBER",
            help="Largest difference that does not matter, in the unit of the values; repeatable.",
        ),
    ] = None,
    higher_is_better: Annotated[
        bool | None,
        typer.Option(
            "--higher-is-better/--lower-is-better", help="Direction of the values; default: as their name says."
        ),
    ] = None,
    unit: Annotated[
        str | None, typer.Option(help="Unit of the values; with % differences are percentage points.")
    ] = None,
    resolution: Annotated[
        float | None, typer.Option(help="Step in which values move, such as 0.01 for % of 10,000 test images.")
    ] = None,
    correction: Annotated[
        Literal["holm", "benjamini-hochberg"], typer.Option(help="Correction of p-values for several contrasts.")
    ] = "holm",
    decide: Annotated[
        int | None,
        typer.Option(
            metavar="SEEDS",
            help="Seeds that there may be in all, if seeds are added until contrasts are decided; intervals are then"
            " valid at every look.",
        ),
    ] = None,
    unpaired: Annotated[bool, typer.Option("--unpaired", help="Compare without pairs.")] = False,
    mean_of_duplicates: Annotated[
        bool, typer.Option("--mean-of-duplicates", help="Average rows of the same arm and pair.")
    ] = False,
    title: Annotated[str, typer.Option(help="Title of the comparison.")] = "",
    report: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Also write an HTML report, figures and tables here.")
    ] = None,
    runs: Runs = RUNS,
    store_url: StoreUrl = None,
    as_json: Json = False,
) -> None:
    """Compare runs that were trained elsewhere, or arms of several studies: which is better, by how much, how surely.

    Columns that are not named are guessed from their names, and the guess is printed. Arms are paired by seed where
    they share seeds. A run without a number counts as worse than any other. What else differs between arms of studies
    is said before the verdict.
    """
    from leadline.api.comparison import compare as compare_results
    from leadline.text.terminal import print_text

    found = compare_results(
        results[0] if results and len(results) == 1 else results,
        predictions=predictions,
        arm=arm,
        pair=pair,
        value=value,
        epoch=epoch,
        data_set=data_set,
        factor=factor,
        pattern=pattern,
        contrasts=[_two_arms(one) for one in contrast or []],
        baseline=baseline,
        margin=_margin(margin or []),
        higher_is_better=higher_is_better,
        unit=unit,
        resolution=resolution,
        correction=correction,
        decide=decide,
        unpaired=unpaired,
        mean_of_duplicates=mean_of_duplicates,
        title=title,
        runs=runs,
        store=store_url,
    )
    if as_json:
        print_json(found.to_json())
    else:
        print_text(*found.to_blocks())
    if report is not None:
        typer.echo(f"report: {found.report(report)}", err=as_json)


def _two_arms(text: str) -> tuple[str, str]:
    arms = [one.strip() for one in re.split(r",(?![^[]*\])", text)]  # not at commas between levels
    if len(arms) != 2 or not all(arms):
        raise SpecError(f"--contrast {text!r}: expected two arms, such as residual,plain")
    return arms[0], arms[1]


def _margin(given: list[str]) -> float | dict[str, float] | None:
    margins: dict[str, float] = {}
    for text in given:
        name, _, number = text.rpartition("=")
        try:
            margins[name] = float(number)
        except ValueError:
            raise SpecError(f"--margin {text!r}: expected a number, or COLUMN=NUMBER such as test_error=0.5") from None
    return margins[""] if list(margins) == [""] else margins or None
