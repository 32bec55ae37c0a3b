"""Figures as SVG and PDF, on paper, drawn by a second process where there are many of them.

vl-convert holds Python's global interpreter lock while it draws, so that a thread would gain nothing.
"""

import base64
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

import vl_convert

from leadline.data.threads import count_cores
from leadline.reports.charts.svg import draw_standalone

if TYPE_CHECKING:  # the second process imports this module, and none that takes long
    from leadline.reports.charts.chart import Figure

MANY_PANELS = 30
"""With fewer panels, drawing takes less time than a second process takes to start."""

Work = dict[str, dict[str, Any]]
"""Name of each figure -> its Vega-Lite specification."""


@dataclass(frozen=True)
class PaperImages:
    """A figure in the two formats of papers."""

    svg: str
    pdf: bytes

    @classmethod
    def of(cls, svg: str) -> Self:
        """Convert an image to PDF as well."""
        return cls(svg, vl_convert.svg_to_pdf(svg))


@contextmanager
def draw_on_paper(figures: "Sequence[Figure]") -> Iterator[Callable[[], dict[str, PaperImages]]]:
    """Draw figures while the body runs, which gets a function that waits for them.

    If the second process cannot start or fails, the function draws them itself.

    Args:
        figures: figures that have panels.

    Yields:
        A function that returns each figure's name -> its images.
    """
    work = {figure.name: figure.specification() for figure in figures}
    gains = count_cores() > 1 and sum(len(figure.panels) for figure in figures) >= MANY_PANELS
    with ExitStack() as cleanup:
        read: Callable[[], dict[str, PaperImages] | None] = dict  # nothing, of no process
        if gains:
            with suppress(OSError):
                # without buffers, so that all is written here or fails here
                given = cleanup.enter_context(tempfile.TemporaryFile(buffering=0))
                drawn = cleanup.enter_context(tempfile.TemporaryFile(buffering=0))
                given.write(json.dumps(work).encode())
                given.seek(0)
                process = _start(given, drawn)
                cleanup.callback(process.wait)
                cleanup.callback(process.kill)
                read = partial(_read, process, drawn)
        yield lambda: read() or _draw(work)


def _start(given: IO[bytes], drawn: IO[bytes]) -> "subprocess.Popen[bytes]":
    """Start a process that runs `main`, as isolated as possible, but with the modules of this one.

    Relative entries of its path are left out, so that it runs nothing of whatever folder is the current one.
    """
    path = [entry for entry in sys.path if Path(entry).is_absolute()]
    start = f"import sys; sys.path[:] = {path!a}; from {__name__} import main; main()"
    command = [sys.executable or "", "-I", "-c", start]
    return subprocess.Popen(command, stdin=given, stdout=drawn, stderr=subprocess.DEVNULL)


def _read(process: "subprocess.Popen[bytes]", drawn: IO[bytes]) -> dict[str, PaperImages] | None:
    """Wait for a process and return what it has drawn; None if it has failed."""
    if process.wait() != 0:
        return None
    try:
        drawn.seek(0)
        found = json.load(drawn)
    except (OSError, ValueError):
        return None
    return {name: PaperImages(svg, base64.b64decode(pdf)) for name, (svg, pdf) in found.items()}


def main() -> None:
    """Draw the figures of standard input, name -> specification, and print name -> [SVG, PDF in base 64]."""
    found = _draw(json.load(sys.stdin))
    json.dump({name: (one.svg, base64.b64encode(one.pdf).decode()) for name, one in found.items()}, sys.stdout)


def _draw(work: Work) -> dict[str, PaperImages]:
    return {name: PaperImages.of(draw_standalone(name, specification)) for name, specification in work.items()}
