"""The report of a study: an HTML file that can be viewed offline, and separate files of its figures and tables."""

import base64
import hashlib
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from leadline.analysis.diagnostics import NOTHING_MEASURED, THRESHOLDS, Diagnostics
from leadline.analysis.verdict import (
    Findings,
    contrast_sentence,
    depth_sentence,
    detail_sentences,
    effect_sentence,
    gap_sentence,
    headline,
    meta_sentence,
    notes,
)
from leadline.errors import LeadlineError
from leadline.pretraining.image_grids import ImageGrid
from leadline.reports.charts.chart import DARK, DECISIONS, LIGHT, PAGE, Figure, theme
from leadline.reports.charts.earlyflow import early_flow
from leadline.reports.charts.figures import curve_names, figures
from leadline.reports.charts.files import write_whole
from leadline.reports.charts.frames import Curves
from leadline.reports.charts.interim import interim_intervals
from leadline.reports.charts.paper import PaperImages, draw_on_paper
from leadline.reports.charts.probes import figures as probe_figures
from leadline.reports.charts.svg import draw_svg, prefix_ids
from leadline.reports.script import page_script
from leadline.reports.tables import curve_table, tables, unfinished
from leadline.study.expand import ExpandedStudy
from leadline.text import LONGEST, join, plural
from leadline.text.tables import Table, frame_to_csv, to_csv, to_latex, to_markdown

SHOWN_SENTENCES = 24  # about what was measured; the rest is folded away
SHOWN_EFFECTS = 12  # in words; the table beside them has all of them
SHOWN_ROWS = 100  # of a table on the page; its files have all of them
SEARCHED_ROWS = 400  # of the tables of arms and contrasts
FOLDED_ROWS = 12  # of a table in a section; one with more is folded away
WHY_FIGURES = ("gradient-profiles", "gradient-flow", "weight-gradients", "activations", "dead-units", "updates")
EARLY, INTERIM = "early-flow", "interim"
PROBE = "probe-"  # begins the names of the figures of probes that take a snapshot
OPTIONAL = (
    "pretraining-",
    "predicted-",
    "tuning-",
    "runs-",
    "network-",
    "mistakes-",
    "theory-",
)  # begin names of figures in sections that not every report has
STILL_WIDTHS = {1: 640, 2: 440, 3: 320}  # pixels of a panel without scripts, by columns of its figure


@dataclass(frozen=True)
class Drawing:
    """A drawing that is no chart: the same on a page and in a file."""

    name: str  # of its files
    title: str
    svg: str
    folded: bool = True


@dataclass(frozen=True)
class Picture:
    """A small image that the page holds."""

    grid: ImageGrid
    caption: str
    description: str  # for readers who do not see it


@dataclass(frozen=True)
class Gallery:
    """Images of one kind; where there are none, the caption says why."""

    title: str
    caption: str
    pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True)
class Pointer:
    """What is worth a look, in a sentence, and where it is seen."""

    text: str
    target: str  # the id of a place on the page
    said_in: Literal["verdict", "why"] = "verdict"  # the section of the page


@dataclass(frozen=True)
class Section:
    """A part of a report that not every report has."""

    name: str  # of its place on the page
    title: str
    paragraphs: tuple[str, ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()  # those without rows are left out, long ones folded away
    drawings: tuple[Drawing, ...] = ()
    galleries: tuple[Gallery, ...] = ()
    pointers: tuple[Pointer, ...] = ()  # shown in other sections
    commands: tuple[str, ...] = ()  # that its numbers come from


@dataclass(frozen=True)
class Source:
    """What a report's results are of, and how they can be had again."""

    kind: str  # "Study"
    setting: str  # what all arms share, in short
    notes: str
    file: str  # beside the report, which holds what the command needs
    content: str  # of that file
    command: str
    again: str  # title of the section with the command
    before: str  # what stands before it
    specification: str = ""  # shown below the command
    changes: str = ""  # from the ready study that it was made from
    tested: str = ""  # a command whose results would have test values by epoch, where these have none
    others: Mapping[str, bytes] = field(default_factory=dict)  # further files beside the report -> their content


def write(
    study: ExpandedStudy,
    findings: Findings,
    trials: pd.DataFrame,
    records: pd.DataFrame,
    folder: Path,
    command: str = "",
    environment: Mapping[str, Any] | None = None,
    diagnostics: Diagnostics = NOTHING_MEASURED,
    sections: Sequence[Section] = (),
    curves: Curves | None = None,
) -> Path:
    """Write a study's report into a folder and return the path of its HTML file.

    The folder gets report.html, study.yaml (the exact specification), figures/*.svg and *.pdf, and tables/*.csv, *.md
    and *.tex. Each file is replaced atomically, report.html last; figures and tables of an earlier report that no
    longer have content are removed. The same input produces the same HTML.

    Args:
        study: the study, expanded.
        findings: what `leadline.analysis.verdict.analyze` made of the frames.
        trials: one row per trial.
        records: one row per measured value.
        folder: created if missing.
        command: the command that reproduces the study; by default it runs the study.yaml next to the report.
        environment: where the report was written, if it should be shown in addition to where the trials ran.
        diagnostics: what the probes measured inside the networks, from `leadline.analysis.diagnostics.diagnose`.
        sections: further parts, in order, after the diagnostics.
        curves: records by epoch, summed up; None: `records` has them all.

    Raises:
        LeadlineError: a file or folder cannot be written.
    """
    specification = write_specification(study)
    source = Source(
        kind="Study",
        setting=_setting(study),
        notes=study.spec.notes,
        changes=study.changes,
        file="study.yaml",
        content=specification,
        command=command or "leadline run study.yaml\nleadline report " + study.name,
        again="Reproduce this study",
        before="holds the exact specification",
        specification=specification,
        tested=""
        if records.empty or _is_tested(study)
        else "leadline run study.yaml --set training.test_every=1 --as NAME",
    )
    tabled = tables(study, findings, trials, records)
    return write_trials(source, findings, trials, records, tabled, folder, environment, diagnostics, sections, curves)


def _is_tested(study: ExpandedStudy) -> bool:
    """Whether any arm is evaluated on test data by epoch."""
    recipes = [arm.trial.training for arm in study.arms]
    return any(0 < one.test_every <= one.epochs for one in recipes)


def _setting(study: ExpandedStudy) -> str:
    """Return the data sets and the epochs of all arms in short."""
    data_sets = list(dict.fromkeys(arm.trial.data.display_name for arm in study.arms))
    epochs = [arm.trial.training.epochs for arm in study.arms]
    fewest = f"{min(epochs)} to " if min(epochs) < max(epochs) else ""
    return f"{join(data_sets)} · {fewest}{plural(max(epochs), 'epoch')}"


def write_specification(study: ExpandedStudy) -> str:
    """Return a study's exact specification as YAML."""
    plain = study.spec.model_dump(mode="json")
    text: str = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100)
    return text


def write_trials(
    source: Source,
    findings: Findings,
    trials: pd.DataFrame,
    records: pd.DataFrame,
    tabled: Sequence[Table],
    folder: Path,
    environment: Mapping[str, Any] | None = None,
    diagnostics: Diagnostics = NOTHING_MEASURED,
    sections: Sequence[Section] = (),
    curves: Curves | None = None,
) -> Path:
    """Write the report of trials that Leadline trained into a folder; see `write` and `write_page`.

    Raises:
        LeadlineError: a file or folder cannot be written.
    """
    drawn = draw_figures(findings, trials, records, diagnostics, sections, curves)
    where = _environments(trials, environment)
    return write_page(source, findings, tabled, drawn, folder, diagnostics, sections, _when(trials), where)


def write_page(
    source: Source,
    findings: Findings,
    tabled: Sequence[Table],
    drawn: Sequence[Figure],
    folder: Path,
    diagnostics: Diagnostics = NOTHING_MEASURED,
    sections: Sequence[Section] = (),
    when: str = "",
    environments: Sequence[tuple[str, dict[str, str]]] = (),
) -> Path:
    """Write a report from what it shows into a folder and return the path of its HTML file; see `write`.

    Args:
        source: what the results are of.
        findings: what they show.
        tabled: tables of the report but for those of its sections.
        drawn: every figure, those of sections included.
        folder: created if missing.
        diagnostics, sections: see `write`.
        when: from when to when trials ran.
        environments: captions and lines about where they ran.

    Raises:
        LeadlineError: a file or folder cannot be written.
    """
    snapshots = _snapshot_figures(diagnostics)
    tabled = [*tabled, *(table for section in sections for table in section.tables)]
    files: dict[str, bytes | None] = {source.file: source.content.encode(), **source.others}
    drawn_names = {one.name for one in drawn} | {one.name for section in sections for one in section.drawings}
    earlier = {
        path.stem
        for prefix in (PROBE, *OPTIONAL)
        for path in (*folder.glob(f"figures/{prefix}*"), *folder.glob(f"tables/{prefix}*.csv"))
    }
    for name in {*WHY_FIGURES, EARLY, INTERIM, *curve_names(findings), *earlier} - drawn_names:
        files |= {f"figures/{name}.{end}": None for end in ("svg", "pdf")}
        files |= {f"tables/{name}.{end}": None for end in ("csv", "md", "tex")}
    bases = {arm.name: arm.base for arm in findings.arms}
    with draw_on_paper([figure for figure in drawn if figure.panels]) as drawn_on_paper:
        for table in tabled:
            files |= _table_files(table)
        on_page = {figure.name: _page_figure(figure, bases) for figure in drawn}
        on_paper = drawn_on_paper()
    for figure in drawn:
        files |= _image_files(figure.name, on_paper.get(figure.name))
        files[f"tables/{figure.name}.csv"] = None if figure.data.empty else frame_to_csv(figure.data).encode()
    for drawing in (drawing for section in sections for drawing in section.drawings):
        files |= _image_files(drawing.name, PaperImages.of(drawing.svg))
    by_name = {table.name: table for table in tabled}
    pointers = [*_pointers(findings, {figure.name for figure in drawn}), *_pointers_of(diagnostics, sections)]
    page = (
        _environment()
        .get_template("report.html")
        .render(
            source=source,
            findings=findings,
            headline=headline(findings),
            sentences=[
                " ".join((contrast_sentence(contrast, findings), *detail_sentences(contrast)))
                for contrast in findings.contrasts
            ],
            effects=[effect_sentence(effect) for effect in findings.factors if effect.of == "difference"],
            meta_analyses=[meta_sentence(one) for one in findings.meta_analyses],
            notes=notes(findings),
            figures=on_page,
            bases=_drawn_arms(bases.values(), drawn),
            tables=by_name,
            diagnostics=diagnostics,
            curves=[figure.name for figure in drawn if figure.name in curve_names(findings)],
            why_figures=[figure.name for figure in drawn if figure.name in WHY_FIGURES],
            snapshot_figures={name: [figure.name for figure in group] for name, group in snapshots.items()},
            early=EARLY,
            sections=sections,
            thresholds=THRESHOLDS,
            unfinished=unfinished(by_name["trials"]),
            pointers=[one for one in pointers if one.said_in == "verdict"],
            why_pointers=[one for one in pointers if one.said_in == "why"],
            environments=environments,
            when=when,
            theme=Markup(_json_in_html(theme(PAGE, standalone=False))),
            script=page_script(),
            script_hash=base64.b64encode(hashlib.sha256(page_script().encode()).digest()).decode(),
            light=LIGHT,
            dark=DARK,
            decision_markers=DECISIONS,
            shown_rows=SHOWN_ROWS,
            searched_rows=SEARCHED_ROWS,
            folded_rows=FOLDED_ROWS,
            shown_sentences=SHOWN_SENTENCES,
            shown_effects=SHOWN_EFFECTS,
            shown_meta_analyses=LONGEST,
        )
    )
    files["report.html"] = page.encode()
    for name, content in files.items():
        _replace(folder / name, content)
    return folder / "report.html"


def _pointers(findings: Findings, drawn: Collection[str]) -> Iterator[Pointer]:
    """Yield what errors after training are worth a look for, of what is drawn."""
    for text, target in (depth_sentence(findings), "error-by-depth"), (gap_sentence(findings), "accuracy-fit"):
        if text and target in drawn:
            yield Pointer(text, target)


def _pointers_of(diagnostics: Diagnostics, sections: Sequence[Section]) -> Iterator[Pointer]:
    yield from (pointer for section in sections for pointer in section.pointers)
    if diagnostics.statements:
        one = diagnostics.statements[0]
        yield Pointer(f"{one.arm}: {one.text}", one.figure)


# --- figures


def draw_figures(
    findings: Findings,
    trials: pd.DataFrame,
    records: pd.DataFrame,
    diagnostics: Diagnostics = NOTHING_MEASURED,
    sections: Sequence[Section] = (),
    curves: Curves | None = None,
) -> list[Figure]:
    """Return every figure of a report, in its order; arguments as of `write`."""
    return [
        *figures(findings, trials, records, diagnostics, curves),
        *(figure for group in _snapshot_figures(diagnostics).values() for figure in group),
        *([interim_intervals(findings)] if any(contrast.sequential for contrast in findings.contrasts) else []),
        *([] if diagnostics.frame.empty else [early_flow(diagnostics)]),
        *(figure for section in sections for figure in section.figures),
    ]


def _snapshot_figures(diagnostics: Diagnostics) -> dict[str, list[Figure]]:
    return {
        probe.name: [replace(one, name=f"{PROBE}{one.name}") for one in probe_figures(probe.probe, probe.frame)]
        for probe in diagnostics.probes
        if not probe.frame.empty
    }


def _image_files(name: str, images: PaperImages | None) -> Iterator[tuple[str, bytes | None]]:
    yield f"figures/{name}.svg", images.svg.encode() if images else None
    yield f"figures/{name}.pdf", images.pdf if images else None


def _table_files(table: Table) -> Iterator[tuple[str, bytes | None]]:
    for end, write in {"csv": to_csv, "md": to_markdown, "tex": to_latex}.items():
        yield f"tables/{table.name}.{end}", write(table).encode() if table.rows else None


def _drawn_arms(bases: Iterable[str], drawn: Sequence[Figure]) -> list[str]:
    """Return the arms, without their levels, that some legend names."""
    named = {key.label for figure in drawn for key in figure.keys}
    return [base for base in dict.fromkeys(bases) if base in named]


def _page_figure(figure: Figure, bases: Mapping[str, str]) -> dict[str, Any]:
    """Return what the page shows of a figure: each panel as a still image, and as the chart that replaces it.

    Args:
        figure: which may have a panel for each arm.
        bases: name of each arm -> its name without levels.
    """
    panels = []
    for number, panel in enumerate(figure.panels):
        spec = panel.specification
        still = draw_svg({**spec, "width": STILL_WIDTHS[figure.columns], "config": theme(PAGE, standalone=False)})
        panels.append(
            {
                "title": panel.title,
                "arm": bases.get(panel.title, ""),
                "label": f"{figure.title}: {panel.title}" if panel.title else figure.title,
                "still": Markup(prefix_ids(_shorten(still), f"{figure.name}-{number}-")),
                "spec": Markup(_json_in_html(_with_rows(spec) | {"width": "container"})),
            }
        )
    curves = figure.panels and figure.name.endswith("-curves") and not figure.data.empty
    return {"figure": figure, "panels": panels, "table": curve_table(figure) if curves else None}


_UNSEEN = re.compile(
    r' (?:role|aria-[a-z]+|font-family|pointer-events)="[^"]*"'  # its panel has a label, the page a font
    r'| opacity="1"'
    r'|<path [^>]*opacity="0"[^>]*/>'  # marks that only show tooltips
    r'|<path class="(?:foreground|background)"[^>]*(?:display="none"|d="M0,0h0v0h0Z")[^>]*/>'
)
_PLACES = re.compile(r'(?<= )(?:d|transform|[xy][12]?|width|height)="[^"]*"')


def _shorten(still: str) -> str:
    """Return the same image in less than half the room: without what nobody sees, in hundredths of a pixel."""
    seen = _UNSEEN.sub("", still)
    return _PLACES.sub(lambda found: re.sub(r"(\.\d\d)\d+", r"\1", found[0]), seen)


def _with_rows(spec: dict[str, Any]) -> dict[str, Any]:
    """Return a specification whose data are lists of values below one of names, which report.js makes records again."""
    datasets = {}
    for name, stored in spec.get("datasets", {}).items():
        values = json.loads(stored) if isinstance(stored, str) else stored  # of a chart that custom code has drawn
        records = [one if isinstance(one, dict) else {"data": one} for one in values]  # as Vega-Lite takes bare values
        names = list(dict.fromkeys(key for record in records for key in record))
        datasets[name] = [names, *([record.get(key) for key in names] for record in records)]
    return spec | {"datasets": datasets}


def _json_in_html(value: object) -> str:
    """Return JSON that no HTML parser takes for markup, whatever the names in it."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


# --- the page


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("leadline.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["plural"] = plural
    environment.filters["breakable"] = _breakable
    environment.globals["style"] = Markup(
        resources.files("leadline.reports").joinpath("templates", "report.css").read_text(encoding="utf-8")
    )
    return environment


def _breakable(name: str) -> Markup:
    """Return a name that may be broken before its levels and between them."""
    return Markup(escape(name).replace("[", Markup("<wbr>[")).replace(",", Markup(",<wbr>")))


def _environments(trials: pd.DataFrame, writer: Mapping[str, Any] | None) -> list[tuple[str, dict[str, str]]]:
    """Return every environment in which trials ran, with how many did for a time, as a caption and lines of text."""
    counts: dict[str, int] = {}
    for found in trials["environment"]:
        if isinstance(found, Mapping):
            last = {name: value for name, value in found.items() if name != "earlier"}
            for one in (*found.get("earlier", ()), last):  # a trial that has moved ran in several
                key = json.dumps(_flat(one))
                counts[key] = counts.get(key, 0) + 1
    shown = [(f"Where {plural(count, 'trial')} ran", json.loads(key)) for key, count in counts.items()]
    return [*shown, ("Where this report was written", _flat(writer))] if writer else shown


def _flat(values: Mapping[str, Any]) -> dict[str, str]:
    return {
        str(key).replace("_", " "): value if isinstance(value, str) else json.dumps(value, default=str)
        for key, value in values.items()
        if value is not None
    }


def _when(trials: pd.DataFrame) -> str:
    """Return from when to when the trials ran; empty where none has begun."""
    times = pd.concat([trials["started"], trials["ended"]]).dropna()
    if times.empty:
        return ""
    first, last = (f"{time:%Y-%m-%d %H:%M}" for time in (times.min(), times.max()))
    if first == last:
        return f"{first} UTC"
    return f"{first} to {last[11:] if first[:10] == last[:10] else last} UTC"


# --- files


def _replace(path: Path, content: bytes | None) -> None:
    """Write a file atomically; without content, remove it.

    Raises:
        LeadlineError: the file or its folder cannot be written.
    """
    try:
        if content is None:
            path.unlink(missing_ok=True)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
    except OSError as error:
        text = f"{path}: cannot be written: {error.strerror or error}; choose another folder for the report"
        raise LeadlineError(text) from None
