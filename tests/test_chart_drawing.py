"""Charts drawn in processes of their own: what vl-convert draws, and nothing is left of them."""

import os
import re
import signal
import subprocess
import sys
import time
from typing import Any

import pytest
import vl_convert

from leadline.errors import LeadlineError
from leadline.reports.charts import drawing
from leadline.reports.charts.drawing import draw_svg, start_bundle, start_svg, vegalite_version


def bars(*heights: float) -> dict[str, Any]:
    values = [{"x": str(place), "y": height} for place, height in enumerate(heights)]
    y = {"field": "y", "type": "quantitative", "title": "Größe − ≤"}
    encoding = {"x": {"field": "x", "type": "nominal"}, "y": y}
    return {"data": {"values": values}, "mark": "bar", "encoding": encoding}


def plain(svg: str) -> str:
    """Without identifiers, whose numbers depend on what was drawn before."""
    return re.sub(r"clip\d+|gradient_\d+", "id", svg)


def test_charts_are_those_of_vl_convert_in_the_order_in_which_they_were_asked_for() -> None:
    charts = [bars(*range(1, count)) for count in range(2, 9)]
    drawn = [one.result() for one in [start_svg(chart) for chart in charts]]
    for chart, svg in zip(charts, drawn, strict=True):
        assert plain(svg) == plain(vl_convert.vegalite_to_svg(chart, vl_version=vegalite_version()))
    assert "Größe − ≤" in drawn[0]


def test_the_script_is_that_of_vl_convert() -> None:
    snippet = "window.drawn = vega.version;"
    expected = vl_convert.javascript_bundle(snippet, vl_version=vegalite_version())
    assert start_bundle(snippet).result() == expected


def test_a_chart_that_cannot_be_drawn_says_why_and_the_next_is_drawn() -> None:
    with pytest.raises(ValueError, match="SVG conversion failed"):
        draw_svg({"data": {"values": []}, "mark": "no-such-mark", "encoding": {}})
    assert draw_svg(bars(1)).startswith("<svg")


def test_a_process_that_is_killed_is_one_line_and_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Watched(drawing._Process):
        def __init__(self) -> None:
            super().__init__()
            started.append(self._process)

    monkeypatch.setattr(drawing, "_Process", Watched)
    own = drawing._Drawing(1)
    assert own.submit({"specification": bars(1)}).result().startswith("<svg")
    started[0].kill()
    started[0].wait()
    with pytest.raises(LeadlineError, match="the process that draws charts ended with exit code -9") as caught:
        own.submit({"specification": bars(1)}).result()
    assert len(caught.value.lines) == 1
    assert own.submit({"specification": bars(2)}).result().startswith("<svg")
    assert len(started) == 2


PROGRAM = """
import os, signal, sys, time
from leadline.reports.charts import drawing
charts = [drawing.start_svg({"data": {"values": [{"x": n}]}, "mark": "point"}) for n in range(400)]
charts[0].result()
children = open(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read().split()
for task in os.listdir(f"/proc/{os.getpid()}/task"):
    children += open(f"/proc/{os.getpid()}/task/{task}/children").read().split()
print(*sorted(set(children)), flush=True)
if sys.argv[1] == "wait":
    time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("end", ["exit", "interrupt", "kill"])
def test_no_process_is_left_when_the_program_ends(end: str) -> None:
    command = [sys.executable, "-c", PROGRAM, "wait" if end != "exit" else "go"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None and program.stderr is not None
        children = [int(one) for one in program.stdout.readline().split()]
        assert children
        if end != "exit":
            program.send_signal(signal.SIGINT if end == "interrupt" else signal.SIGKILL)
        said = program.stderr.read()
        program.wait()
    assert said.count("Traceback") == (end == "interrupt")  # of the program alone
    patience = time.monotonic() + 120
    while any(alive(child) for child in children):
        assert time.monotonic() < patience, f"{children} go on"
        time.sleep(0.05)


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
