"""A drawing's file: SVG as it is, PDF and PNG made from it without a browser."""

from pathlib import Path

from leadline.atomic import write_whole
from leadline.errors import LeadlineError, SpecError

_SUFFIXES = (".svg", ".pdf", ".png")


def write_drawing(svg: str, path: Path) -> None:
    """Write a drawing whole or not at all, as its suffix says: .svg, .pdf or .png, which has two pixels for each one.

    Raises:
        SpecError: the suffix is another one.
        LeadlineError: the file cannot be written.
    """
    suffix = path.suffix.lower()
    if suffix not in _SUFFIXES:
        raise SpecError(f"figure {path}: suffix {path.suffix!r} is not one of .svg, .pdf, .png; change it")
    content = _content(svg, suffix)
    try:
        write_whole(path, content)
    except OSError as error:
        reason = error.strerror or str(error)
        raise LeadlineError(f"figure {path}: cannot be written: {reason}; choose another place") from None


def _content(svg: str, suffix: str) -> bytes:
    if suffix == ".svg":
        return svg.encode()
    import vl_convert

    made: bytes = vl_convert.svg_to_pdf(svg) if suffix == ".pdf" else vl_convert.svg_to_png(svg, scale=2)
    return made
