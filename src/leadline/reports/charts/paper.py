"""Figures as SVG and PDF, on paper, drawn by a second process where there are many of them.

vl-convert holds Python's global interpreter lock while it draws, so that a thread would gain nothing.
"""

import base64
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import vl_convert

from leadline.data.threads import count_cores
from leadline.reports.charts.chart import Figure
from leadline.reports.charts.files import draw_standalone

MANY_PANELS = 30
"""With fewer panels, drawing takes less time than a second process takes to start."""


@dataclass(frozen=True)
class PaperImages:
    """A figure in the two formats of papers."""

    svg: str
    pdf: bytes


@contextmanager
def draw_on_paper(figures: Sequence[Figure]) -> Iterator[Callable[[], dict[str, PaperImages]]]:
    """Draw figures while the body runs, which gets a function that waits for them.

    If the second process cannot start or fails, the function draws them itself.

    Args:
        figures: figures that have panels.

    Yields:
        A function that returns each figure's name -> its images.
    """
    work = {figure.name: figure.specification() for figure in figures}
    if count_cores() == 1 or sum(len(figure.panels) for figure in figures) < MANY_PANELS:
        yield lambda: _draw(work)
        return
    with tempfile.TemporaryFile("w+", encoding="utf-8") as given, tempfile.TemporaryFile("w+") as drawn:
        json.dump(work, given)
        given.seek(0)
        try:
            # -P and the path of this process: the same modules are found, and none in the current folder
            start = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import main; main()"
            process = subprocess.Popen(
                [sys.executable, "-P", "-c", start], stdin=given, stdout=drawn, stderr=subprocess.DEVNULL
            )
        except OSError:
            yield lambda: _draw(work)
            return

        def wait() -> dict[str, PaperImages]:
            if process.wait() != 0:
                return _draw(work)
            drawn.seek(0)
            return {name: PaperImages(svg, base64.b64decode(pdf)) for name, (svg, pdf) in json.load(drawn).items()}

        try:
            yield wait
        finally:
            process.kill()
            process.wait()


def main() -> None:
    """Draw the figures of standard input, name -> specification, and print name -> [SVG, PDF in base 64]."""
    found = _draw(json.load(sys.stdin))
    json.dump({name: (one.svg, base64.b64encode(one.pdf).decode()) for name, one in found.items()}, sys.stdout)


def _draw(work: dict[str, dict[str, Any]]) -> dict[str, PaperImages]:
    images = {name: draw_standalone(name, specification) for name, specification in work.items()}
    return {name: PaperImages(svg, vl_convert.svg_to_pdf(svg)) for name, svg in images.items()}
