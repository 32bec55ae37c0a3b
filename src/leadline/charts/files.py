"""A figure as a file of its own: SVG, PDF and PNG without a browser, HTML that is interactive, JSON for Vega-Lite."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert

from leadline.atomic import write_whole
from leadline.charts.chart import LIGHT, Figure, theme
from leadline.errors import LeadlineError, SpecError

SUFFIXES = (".svg", ".png", ".pdf", ".html", ".json")


def check_place(path: Path) -> None:
    """Refuse a file that no figure can be written as, before anything is measured for it.

    Raises:
        SpecError: its suffix is not one of `SUFFIXES`, or its folder is not there.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise SpecError(f"figure {path}: suffix {path.suffix!r} is not one of {', '.join(SUFFIXES)}; change it")
    if not path.parent.is_dir():
        raise SpecError(f"figure {path}: there is no folder {path.parent}; make it, or choose another place")


def write_figures(figures: Sequence[Figure], path: Path) -> list[Path]:
    """Write figures as the suffix says, the first as `path`, the next as the same name with -2, -3, ...

    PNG has two pixels for each one; HTML needs no network. A figure without panels has nothing to draw and is left out.

    Returns:
        The files, each of which is written whole or not at all.

    Raises:
        SpecError: as `check_place`.
        LeadlineError: no figure has anything to draw, or a file cannot be written.
    """
    check_place(path)
    drawn = [figure for figure in figures if figure.panels]
    if not drawn:
        why = " ".join(figure.caption for figure in figures)
        raise LeadlineError(f"figure {path}: there is nothing to draw. {why}".rstrip())
    written = []
    for number, figure in enumerate(drawn, 1):
        file = path if number == 1 else path.with_stem(f"{path.stem}-{number}")
        content = _content(figure, path.suffix.lower())
        try:
            write_whole(file, content)
        except OSError as error:
            reason = error.strerror or str(error)
            raise LeadlineError(f"figure {file}: cannot be written: {reason}; choose another place") from None
        written.append(file)
    return written


def to_svg(figure: Figure) -> str:
    """Return a figure that has panels on a ground of its own, as on paper."""
    svg = vl_convert.vegalite_to_svg(_standalone(figure), vl_version=vegalite_version())
    return own_ids(svg, f"{figure.name}-")


def _content(figure: Figure, suffix: str) -> bytes:
    content: bytes | str
    match suffix:
        case ".svg":
            content = to_svg(figure)
        case ".pdf":
            content = vl_convert.svg_to_pdf(to_svg(figure))
        case ".png":
            content = vl_convert.svg_to_png(to_svg(figure), scale=2)
        case ".html":
            content = vl_convert.vegalite_to_html(_standalone(figure), vl_version=vegalite_version(), bundle=True)
        case _:
            content = json.dumps(_standalone(figure), allow_nan=False)
    return content.encode() if isinstance(content, str) else content


def _standalone(figure: Figure) -> dict[str, Any]:
    return figure.chart().to_dict(validate=False) | {"config": theme(LIGHT, standalone=True)}


def own_ids(svg: str, prefix: str) -> str:
    """Number a picture's identifiers from 0 under its own prefix: they depend on what was drawn before, and clash."""
    numbers: dict[str, int] = {}

    def own(match: re.Match[str]) -> str:
        return f"{match[1]}{prefix}{numbers.setdefault(match[2], len(numbers))}{match[3]}"

    return re.sub(r'(\bid="|url\(#)([\w-]+)(["\)])', own, svg)


def vegalite_version() -> str:
    """Return the version of Vega-Lite that charts are made for, or the newest there is of the same generation."""
    major, minor = alt.SCHEMA_VERSION.removeprefix("v").split(".")[:2]
    known: list[str] = vl_convert.get_vegalite_versions()
    same = [version for version in known if version.split(".")[0] == major]
    return f"{major}.{minor}" if f"{major}.{minor}" in known else (same or known)[-1]
