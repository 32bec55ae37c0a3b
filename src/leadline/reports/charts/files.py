"""A figure as a file of its own: SVG, PDF and PNG without a browser, HTML that is interactive, JSON for Vega-Lite."""

import json
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import vl_convert

from leadline.errors import LeadlineError, SpecError, absence
from leadline.reports.charts.chart import Figure
from leadline.reports.charts.svg import draw_standalone, vegalite_version

PAPER_SUFFIXES = (".svg", ".pdf", ".png")
SUFFIXES = (*PAPER_SUFFIXES, ".html", ".json")


def check_place(path: Path) -> None:
    """Check that a figure can be written to a path, before anything is measured for it.

    Raises:
        SpecError: it is a folder, its suffix is not one of `SUFFIXES`, or its folder does not exist.
    """
    if path.is_dir():
        raise SpecError(f"figure {path}: {absence(path, 'file')}; choose another path")
    if path.suffix.lower() not in SUFFIXES:
        raise SpecError(f"figure {path}: suffix {path.suffix!r} is not one of {', '.join(SUFFIXES)}; change it")
    if not path.parent.is_dir():
        raise SpecError(f"figure {path}: folder {path.parent} does not exist; create it or choose another path")


def write_figures(figures: Sequence[Figure], path: Path) -> list[Path]:
    """Write figures as the suffix says, the first as `path`, the next as the same name with -2, -3, ...

    PNG has two pixels for each one; HTML needs no network. A figure without panels has nothing to draw and is left out.

    Returns:
        The files, each of which is written atomically.

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
        _write(file, _content(figure, path.suffix.lower()))
        written.append(file)
    return written


def write_drawing(svg: str, path: Path) -> None:
    """Write a drawing atomically in the format of its suffix: .svg, .pdf or .png, which has two pixels for each one.

    Raises:
        SpecError: the path is a folder, or the suffix is another one.
        LeadlineError: the file cannot be written.
    """
    suffix = path.suffix.lower()
    if path.is_dir():
        raise SpecError(f"figure {path}: {absence(path, 'file')}; choose another path")
    if suffix not in PAPER_SUFFIXES:
        raise SpecError(f"figure {path}: suffix {path.suffix!r} is not one of {', '.join(PAPER_SUFFIXES)}; change it")
    _write(path, _convert(svg, suffix))


def _write(path: Path, content: bytes) -> None:
    try:
        write_whole(path, content)
    except OSError as error:
        reason = error.strerror or str(error)
        raise LeadlineError(f"figure {path}: cannot be written: {reason}; choose another path") from None


def write_whole(path: Path, content: bytes) -> None:
    """Write a file atomically: to a temporary file in the same folder, which then replaces it.

    Its permissions are those of any new file of the user.

    Raises:
        OSError: the file or its folder cannot be written; an existing file is left unchanged.
    """
    temporary = path.with_name(f".{path.name}.{uuid4().hex[:8]}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def to_svg(figure: Figure) -> str:
    """Return a figure that has panels on a ground of its own, as on paper."""
    return draw_standalone(figure.name, figure.specification())


def _content(figure: Figure, suffix: str) -> bytes:
    if suffix in PAPER_SUFFIXES:
        return _convert(to_svg(figure), suffix)
    if suffix == ".html":
        specification = figure.specification()
        version = vegalite_version(specification["$schema"])
        html: str = vl_convert.vegalite_to_html(specification, vl_version=version, bundle=True)
        return html.encode()
    return json.dumps(figure.specification(), allow_nan=False).encode()


def _convert(svg: str, suffix: str) -> bytes:
    if suffix == ".svg":
        return svg.encode()
    content: bytes = vl_convert.svg_to_pdf(svg) if suffix == ".pdf" else vl_convert.svg_to_png(svg, scale=2)
    return content
