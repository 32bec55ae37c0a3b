"""The report of a study: one HTML file that opens without a network, and its figures and tables as files beside it."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import altair as alt
import pandas as pd
import vl_convert
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from leadline.atomic import write_whole
from leadline.chart import DARK, DECISIONS, LIGHT, PAGE, Figure, theme
from leadline.errors import LeadlineError
from leadline.figures import figures
from leadline.study import Study
from leadline.tables import curve_table, tables, to_csv, to_latex, to_markdown, unfinished
from leadline.verdict import Findings
from leadline.why import NOTHING_MEASURED, THRESHOLDS, Why

SHOWN_SENTENCES = 24  # about what was measured; the rest is folded away
SHOWN_ROWS = 200  # of a table on the page; its files have them all
WHY_FIGURES = ("gradient-profiles", "gradient-flow", "weight-gradients", "activations", "dead-units", "updates")
STILL_WIDTHS = {1: 640, 2: 440, 3: 320}  # pixels of a panel without scripts, by columns of its figure


def write(
    study: Study,
    findings: Findings,
    trials: pd.DataFrame,
    records: pd.DataFrame,
    folder: Path,
    command: str = "",
    environment: Mapping[str, Any] | None = None,
    why: Why = NOTHING_MEASURED,
) -> Path:
    """Write a study's report into a folder and return the path of its HTML file.

    The folder gets report.html, study.yaml (the exact specification), figures/*.svg and *.pdf, and tables/*.csv, *.md
    and *.tex. Each file is replaced whole or not at all, report.html last; figures and tables of an earlier report that
    have nothing to show any more are removed. The same input gives the same HTML.

    Args:
        study: the study, expanded.
        findings: what `leadline.verdict.find` made of the frames.
        trials: one row per trial.
        records: one row per measured value.
        folder: made if it is missing.
        command: what repeats the study; by default, to run the study.yaml that lies beside the report.
        environment: where the report was written, if that should be said beside where the trials were run.
        why: what probes saw inside the networks, from `leadline.why.explain`.

    Raises:
        LeadlineError: a file or folder cannot be written.
    """
    drawn, tabled = figures(findings, trials, records, why), tables(study, findings, trials, records)
    specification = yaml.safe_dump(study.spec.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100)
    files: dict[str, bytes | None] = {"study.yaml": specification.encode()}
    for figure in drawn:
        files |= _figure_files(figure)
    for name in {*WHY_FIGURES} - {figure.name for figure in drawn}:
        files |= {f"figures/{name}.svg": None, f"figures/{name}.pdf": None, f"tables/{name}.csv": None}
    for table in tabled:
        made = {"csv": to_csv(table), "md": to_markdown(table), "tex": to_latex(table)}
        files |= {f"tables/{table.name}.{end}": text.encode() if table.rows else None for end, text in made.items()}
    by_name = {table.name: table for table in tabled}
    page = (
        _environment()
        .get_template("report.html")
        .render(
            study=study,
            findings=findings,
            figures={figure.name: _page_figure(figure) for figure in drawn},
            tables=by_name,
            why=why,
            why_figures=[figure.name for figure in drawn if figure.name in WHY_FIGURES],
            thresholds=THRESHOLDS,
            unfinished=unfinished(by_name["trials"]),
            specification=specification,
            command=command or "leadline run study.yaml\nleadline report " + study.spec.name,
            environments=_environments(trials, environment),
            when=_when(trials),
            script=_script(),
            script_hash=base64.b64encode(hashlib.sha256(_script().encode()).digest()).decode(),
            light=LIGHT,
            dark=DARK,
            decision_markers=DECISIONS,
            shown_rows=SHOWN_ROWS,
            shown_sentences=SHOWN_SENTENCES,
        )
    )
    files["report.html"] = page.encode()
    for name, content in files.items():
        _replace(folder / name, content)
    return folder / "report.html"


# --- figures


def _figure_files(figure: Figure) -> Iterator[tuple[str, bytes | None]]:
    pictures: dict[str, bytes | None] = {"svg": None, "pdf": None}
    if figure.panels:
        spec = figure.chart().to_dict(validate=False) | {"config": theme(LIGHT, standalone=True)}
        svg = _own_ids(vl_convert.vegalite_to_svg(spec, vl_version=_vegalite()), f"{figure.name}-")
        pictures = {"svg": svg.encode(), "pdf": vl_convert.svg_to_pdf(svg)}
    for end, content in pictures.items():
        yield f"figures/{figure.name}.{end}", content
    data = figure.data.to_csv(index=False, lineterminator="\n").encode()
    yield f"tables/{figure.name}.csv", None if figure.data.empty else data


def _page_figure(figure: Figure) -> dict[str, Any]:
    """Return what the page shows of a figure: each panel as a still picture, and as the chart that replaces it."""
    panels = []
    for number, panel in enumerate(figure.panels):
        spec = panel.chart.to_dict(validate=False) | {"config": theme(PAGE, standalone=False)}
        still = vl_convert.vegalite_to_svg({**spec, "width": STILL_WIDTHS[figure.columns]}, vl_version=_vegalite())
        panels.append(
            {
                "title": panel.title,
                "label": f"{figure.title}: {panel.title}" if panel.title else figure.title,
                "still": Markup(_own_ids(still, f"{figure.name}-{number}-")),
                "spec": Markup(_json_in_html(spec | {"width": "container"})),
            }
        )
    curves = figure.panels and figure.name.endswith("-curves") and not figure.data.empty
    return {"figure": figure, "panels": panels, "table": curve_table(figure) if curves else None}


def _own_ids(svg: str, prefix: str) -> str:
    """Number a picture's identifiers from 0 under its own prefix: they depend on what was drawn before, and clash."""
    numbers: dict[str, int] = {}

    def own(match: re.Match[str]) -> str:
        return f"{match[1]}{prefix}{numbers.setdefault(match[2], len(numbers))}{match[3]}"

    return re.sub(r'(\bid="|url\(#)([\w-]+)(["\)])', own, svg)


def _json_in_html(value: object) -> str:
    """Return JSON that no HTML parser takes for markup, whatever the names in it."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def _script() -> str:
    """Return the page's one script: the Vega libraries and the few lines that draw with them."""
    snippet = resources.files("leadline").joinpath("templates", "report.js").read_text(encoding="utf-8")
    bundle: str = vl_convert.javascript_bundle(snippet, vl_version=_vegalite())
    # Inside a JavaScript string or regular expression the backslash changes nothing; elsewhere neither can stand.
    return bundle.replace("\r", "").replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _vegalite() -> str:
    """Return the version of Vega-Lite that charts are made for, or the newest there is of the same generation."""
    major, minor = alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2]
    known: list[str] = vl_convert.get_vegalite_versions()
    same = [version for version in known if version.split(".")[0] == major]
    return f"{major}.{minor}" if f"{major}.{minor}" in known else (same or known)[-1]


# --- the page


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("leadline"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["style"] = Markup(
        resources.files("leadline").joinpath("templates", "report.css").read_text(encoding="utf-8")
    )
    return environment


def _environments(trials: pd.DataFrame, writer: Mapping[str, Any] | None) -> list[tuple[str, dict[str, str]]]:
    """Return every environment in which trials ran, with how many did, as a caption and lines of text."""
    counts: dict[str, int] = {}
    for found in trials["environment"]:
        if isinstance(found, Mapping):
            key = json.dumps(_flat(found))
            counts[key] = counts.get(key, 0) + 1
    shown = [(f"Where {count} trial{'s' * (count > 1)} ran", json.loads(key)) for key, count in counts.items()]
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
    """Write a file whole or not at all; without content, remove it.

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
