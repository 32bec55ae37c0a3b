"""The report of arms of stored studies that were compared with one another: the page of a study, over several."""

import shlex
from pathlib import Path

from leadline.analysis.studies import ComparedArms
from leadline.reports.page import Section, Source, write_specification, write_trials
from leadline.reports.runs_page import arguments_of, examples_section
from leadline.reports.tables import tables_of_trials
from leadline.text import join


def write_arms(compared: ComparedArms, folder: Path) -> Path:
    """Write the report of a comparison into a folder and return the path of its HTML file.

    The folder gets what `leadline.reports.page.write` writes, with the exact specification of every study whose arms
    were compared.

    Raises:
        LeadlineError: a file or folder cannot be written.
    """
    files = {f"{study.name}.yaml": write_specification(study) for study in compared.studies}
    (file, content), *others = files.items()
    also = f"and {join([name for name, _ in others])} hold the exact specifications" if others else ""
    source = Source(
        kind="Comparison",
        setting="",
        notes="",
        file=file,
        content=content,
        others={name: content.encode() for name, content in others},
        command="\n".join([*(f"leadline run {name}" for name in files), shlex.join(_command(compared))]),
        again="Repeat this comparison",
        before=also or "holds the exact specification",
    )
    findings, trials, records = compared.findings, compared.trials, compared.records
    sections = (Section("compared", "What is compared", compared.reading), *examples_section(compared.examples))
    tabled = tables_of_trials(findings, trials, records)
    return write_trials(source, findings, trials, records, tabled, folder, sections=sections)


def _command(compared: ComparedArms) -> list[str]:
    values = [part for value in compared.values for part in ("--value", value)]
    return ["leadline", "compare", *compared.names, *values, *arguments_of(compared.options)]
