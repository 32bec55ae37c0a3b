"""The pages as HTML: each is a heading and parts that are replaced by themselves when they change."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib import resources
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from leadline.errors import LeadlineError
from leadline.live import drawing
from leadline.live.ledger import SHOWN, Ledger
from leadline.live.snapshot import StudyNow
from leadline.reports.charts.chart import DARK, LIGHT, Palette
from leadline.seeds import call_seed
from leadline.store import STATES, TrialState
from leadline.text import byte_size, clock, plural

Parts = Mapping[str, str]
"""Name of a part of a page -> its HTML."""


@dataclass(frozen=True)
class View:
    """What a browser looks at: all studies, or one study with some of its trials."""

    study: str | None = None
    state: TrialState | None = None  # of the trials in the table
    number: int = 1  # of the table's page

    def address(self, **changed: Any) -> str:
        """Return the path of this view, or of one that differs in some fields."""
        study, state, number = (changed.get(name, getattr(self, name)) for name in ("study", "state", "number"))
        query = urlencode(
            {name: value for name, value in (("state", state), ("page", number)) if value not in (None, 1)}
        )
        path = "/" if study is None else f"/study/{quote(study, safe='')}"
        return f"{path}?{query}" if query else path

    @property
    def events(self) -> str:
        """The path of the events about what changes in it."""
        return f"/events{self.address()}"


@dataclass(frozen=True)
class Pages:
    """Renders views of a store."""

    ledger: Ledger

    def page(self, view: View, moment: datetime) -> tuple[str, bool]:
        """Return a whole page, and whether there is what it is about."""
        parts = self.parts(view)
        return (
            _environment()
            .get_template("page.html")
            .render(view=view, parts={name: Markup(html) for name, html in parts.items()}, moment=moment),
            "heading" in parts,
        )

    def parts(self, view: View) -> Parts:
        """Return the parts of a page; where the store or the study cannot be read, only the one that says so."""
        try:
            found = dict(self._overview(view) if view.study is None else self._study(view.study, view))
            notice = ""
        except LeadlineError as error:
            found, notice = {}, "\n".join(error.lines)
        health = self.ledger.health()
        return {
            "notice": _render("notice", notice=notice),
            **found,
            "health": _render("health", health=health, byte_size=byte_size),
        }

    def _overview(self, view: View) -> Iterator[tuple[str, str]]:
        overview = self.ledger.overview(view.number)
        yield "heading", _render("overview_heading", overview=overview)
        yield "studies", _render("studies", overview=overview, view=view)

    def _study(self, name: str, view: View) -> Iterator[tuple[str, str]]:
        study = self.ledger.study(name)
        yield "heading", _render("study_heading", study=study)
        yield "progress", _render("progress", study=study)
        yield "verdict", _render("verdict", verdict=study.verdict)
        yield "running", _render("running", study=study, shown=SHOWN)
        yield "troubled", _render("troubled", study=study, shown=SHOWN)
        yield "curves", _draw_curves(study)
        yield "flow", _draw_flow(study)
        yield (
            "trials",
            _render("trials", page=self.ledger.trials(name, view.state, view.number), study=study, view=view),
        )


def _draw_curves(study: StudyNow) -> str:
    figures = [
        {"curves": one, "panels": panels, "keys": drawing.curve_keys(one)}
        for one in study.curves
        if (panels := drawing.draw_curves(one))
    ]
    return _render("curves", figures=figures)


def _draw_flow(study: StudyNow) -> str:
    if study.flow is None:
        return ""
    panels, scale = drawing.draw_flow(study.flow), drawing.draw_scale(drawing.flow_range(study.flow))
    return _render("flow", flow=study.flow, panels=panels, scale=scale)


def _render(macro: str, **values: Any) -> str:
    module = _environment().get_template("parts.html").module
    return str(getattr(module, macro)(**values)).strip()


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("leadline.live"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"plural": plural, "clock": clock, "states": STATES, "call_seed": call_seed}
    environment.globals["moment_text"] = lambda moment: f"{moment:%Y-%m-%d %H:%M} UTC"
    return environment


@cache
def style_sheet() -> str:
    """Return the style sheet: the report's colours and type, and what this page adds."""
    report = _read("leadline.reports", "report.css")
    dark = f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {_colours(DARK)} }} }}"
    return "\n".join((f":root {{ {_colours(LIGHT)} }}", dark, report, _read("leadline.live", "live.css")))


@cache
def script() -> str:
    """Return the page's one script."""
    return _read("leadline.live", "live.js")


def _read(package: str, name: str) -> str:
    return resources.files(package).joinpath("templates", name).read_text(encoding="utf-8")


def _colours(palette: Palette) -> str:
    named = {"ink": palette.ink, "muted": palette.muted, "rule": palette.rule, "ground": palette.ground}
    named |= {f"arm-{number}": colour for number, colour in enumerate(palette.arms, 1)}
    return " ".join(f"--{name}: {colour};" for name, colour in named.items())
