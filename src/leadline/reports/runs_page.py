"""The report of a comparison of runs that were trained elsewhere: the page of a study, from a table."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from leadline.analysis.runs import (
    Compared,
    ExampleDifferences,
    Options,
    collapse_runs,
    examples_table,
    summary_table,
    to_npz,
)
from leadline.analysis.runs.comparison import BY_EPOCH
from leadline.analysis.verdict.wording.effect_tables import effect_tables
from leadline.analysis.verdict.wording.tables import arms_table, contrasts_table, mcnemar_table
from leadline.reports.charts.chart import Figure
from leadline.reports.charts.figures import learning_curves
from leadline.reports.charts.forest import forest
from leadline.reports.charts.frames import sum_up
from leadline.reports.charts.interim import interim_intervals
from leadline.reports.charts.runs import run_values
from leadline.reports.page import Section, Source, write_page
from leadline.text import NOTHING
from leadline.text.tables import Column, Table, frame_to_csv, is_missing, plain

FILE, PREDICTIONS = "runs.csv", "predictions.npz"


def write_comparison(compared: Compared, folder: Path) -> Path:
    """Write the report of a comparison into a folder and return the path of its HTML file.

    The folder gets what `leadline.reports.page.write` writes, with the runs that were compared in `runs.csv` in place
    of a study's specification.

    Raises:
        LeadlineError: a file or folder cannot be written.
    """
    findings = compared.findings
    source = Source(
        kind="Comparison",
        setting="",
        notes="",
        file=FILE,
        content=frame_to_csv(_repeatable(compared)),
        command=shlex.join(_command(compared)),
        again="Repeat this comparison",
        before="holds the runs that were compared"
        + (f", and {PREDICTIONS} what they predicted" if compared.predictions else ""),
        others={PREDICTIONS: to_npz(compared.predictions.frame())} if compared.predictions else {},
    )
    sections = (
        Section("runs", "Runs", compared.reading, tuple(_figures(compared))),
        *([Section("run-curves", "Learning curves", (), curves)] if (curves := tuple(_curves(compared))) else []),
        *examples_section(compared.examples),
    )
    tabled = (
        arms_table(findings),
        contrasts_table(findings),
        mcnemar_table(findings),
        *effect_tables(findings),
        _trials_table(compared),
    )
    drawn = [forest(findings), *(figure for section in sections for figure in section.figures)]
    if any(contrast.sequential for contrast in findings.contrasts):
        drawn.append(interim_intervals(findings))
    return write_page(source, findings, tabled, drawn, folder, sections=sections)


def _repeatable(compared: Compared) -> pd.DataFrame:
    """Return what the comparison can be made from again: of predicted values, only which runs failed."""
    if compared.design.moments:
        return collapse_runs(compared.rows, compared.columns.values[0])
    rows = compared.rows.drop(columns=list(compared.computed))
    state = compared.trials["state"]
    return rows.assign(state=state) if compared.computed and (state != "finished").any() else rows


def _figures(compared: Compared) -> Iterator[Figure]:
    if compared.design.moments:
        return
    linked = any(not one.unpaired for one in compared.design.contrasts)
    for name, kind in compared.design.metrics.items():
        yield run_values(compared.trials, compared.records, kind, f"runs-{_file_name(name)}", linked)


def _curves(compared: Compared) -> Iterator[Figure]:
    if not compared.records["split"].eq(BY_EPOCH).any():
        return
    curves = sum_up(compared.trials, compared.records)
    for name, kind in compared.design.metrics.items():
        axis = f"{kind.named()} ({kind.unit.strip()})" if kind.unit else kind.named()
        words = {BY_EPOCH: "By epoch"}
        yield learning_curves(compared.trials, curves, name, axis, words, f"runs-{_file_name(name)}")


def examples_section(found: Sequence[ExampleDifferences]) -> Iterator[Section]:
    """Yield the section about examples that one arm classifies correctly and another does not, if there is any."""
    if found:
        said = (
            "Always against never: every run of the one arm classifies the example correctly, and none of the other."
            " All examples at which two arms differ are in tables/examples-all.csv."
        )
        yield Section("examples", "Examples", (said,), (), (summary_table(found), examples_table(found)))


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower() or "value"


def _trials_table(compared: Compared) -> Table:
    kinds, pair = compared.design.metrics.values(), compared.columns.pair
    known = [*pair, *(() if compared.design.moments else compared.columns.values)]
    shown = compared.rows[known].to_dict("records")
    ended = compared.trials[["arm", "state"]].to_dict("records")
    columns = (
        Column("Arm", ("arm",), plain, numeric=False),
        *(Column(name, (name,), plain) for name in pair),
        Column("State", ("state",), plain, numeric=False),
        *(Column(kind.named(), (kind.name,), _short, unit=kind.unit.strip()) for kind in kinds if kind.name in known),
    )
    rows = [{str(key): value for key, value in {**own, **end}.items()} for own, end in zip(shown, ended, strict=True)]
    return Table("trials", "Runs", columns, tuple(rows))


def _short(value: float) -> str:
    return NOTHING if is_missing(value) else f"{value:.6g}"


def _command(compared: Compared) -> list[str]:
    """Return the command that makes the same comparison from the file beside the report."""
    columns, options = compared.columns, compared.options
    given: list[tuple[str, Any]] = [
        ("--predictions", PREDICTIONS if compared.predictions else None),
        ("--arm", columns.arm),
        *(("--pair", name) for name in columns.pair),
        *(("--value", name) for name in columns.values),
        ("--data-set", columns.data_set),
        *(("--factor", name) for name in columns.factors),
        ("--unit", options.unit),
        ("--resolution", options.resolution),
        ("--decide", options.decide),
    ]
    flags = {None: [], True: ["--higher-is-better"], False: ["--lower-is-better"]}[options.higher_is_better]
    columns_given = [str(part) for pair in given if pair[1] is not None for part in pair]
    return ["leadline", "compare", FILE, *columns_given, *flags, *arguments_of(options)]


def arguments_of(options: Options) -> Iterator[str]:
    """Yield the arguments of the command for those options that every comparison has."""
    for pair in options.contrasts:
        yield from ("--contrast", ",".join(pair))
    if options.baseline is not None:
        yield from ("--baseline", options.baseline)
    for text in _margins(options.margin):
        yield from ("--margin", text)
    if options.correction != "holm":
        yield from ("--correction", options.correction)
    if options.title:
        yield from ("--title", options.title)
    if options.unpaired:
        yield "--unpaired"


def _margins(margin: float | Mapping[str, float] | None) -> list[str]:
    if isinstance(margin, Mapping):
        return [f"{name}={value:g}" for name, value in margin.items()]
    return [] if margin is None else [f"{margin:g}"]
