import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import altair as alt
import pandas as pd
import pytest

from leadline.reports.charts import paper
from leadline.reports.charts.chart import Figure, Panel
from leadline.reports.charts.files import to_svg
from leadline.reports.charts.paper import draw_on_paper


def figure(name: str, panels: int = 2, mark: str = "line") -> Figure:
    data = pd.DataFrame({"x": [1, 2, 3], "y": [0.5, 2.0, 1.0], "arm": ["plain", "plain", "ré <&>"]})
    chart = getattr(alt.Chart(data), f"mark_{mark}")().encode(x="x:Q", y="y:Q", color="arm:N")
    return Figure(name, f"Title of {name}", "", data, panels=tuple(Panel(f"{n}", chart) for n in range(panels)))


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Have every figure drawn by a second process; the processes are collected."""
    found: list[subprocess.Popen[bytes]] = []

    class Noted(subprocess.Popen):  # type: ignore[type-arg]
        def __init__(self, *args: Any, **kwds: Any) -> None:
            super().__init__(*args, **kwds)
            found.append(self)

    monkeypatch.setattr(paper, "MANY_PANELS", 0)
    monkeypatch.setattr(paper, "count_cores", lambda: 2)
    monkeypatch.setattr(subprocess, "Popen", Noted)
    yield found
    assert all(process.returncode is not None for process in found)


def test_a_second_process_draws_what_this_one_draws(started: list[subprocess.Popen[bytes]]) -> None:
    figures = [figure("one"), figure("two", panels=1, mark="point")]
    with draw_on_paper(figures) as drawn:
        found = drawn()
    assert [process.returncode for process in started] == [0]
    assert list(found) == ["one", "two"]
    for each in figures:
        assert found[each.name].svg == to_svg(each)
        assert found[each.name].pdf.startswith(b"%PDF-")


@pytest.mark.parametrize("executable", ["/bin/false", "/bin/true", "/bin/echo", "/nowhere/python", "", None])
def test_figures_are_drawn_where_a_second_process_fails(
    started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch, executable: str | None
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    with draw_on_paper([figure("one")]) as drawn:
        found = drawn()
    assert found["one"].svg == to_svg(figure("one"))
    assert len(started) == ("/bin/" in (executable or ""))


def test_figures_are_drawn_where_a_second_process_finds_no_modules(
    started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", ["", "src"])
    with draw_on_paper([figure("one")]) as drawn:
        found = drawn()
    assert found["one"].svg == to_svg(figure("one"))
    assert [process.returncode for process in started] == [1]


def test_a_second_process_runs_nothing_of_the_current_folder(
    started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "random.py").write_text("open('ran', 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with draw_on_paper([figure("one")]) as drawn:
        drawn()
    assert [process.returncode for process in started] == [0]
    assert not Path("ran").exists()


def test_figures_are_drawn_where_the_folder_of_temporary_files_is_full(
    started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def full(**_: object) -> Iterator[BinaryIO]:
        with open("/dev/full", "r+b", buffering=0) as file:  # noqa: PTH123
            yield file

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with draw_on_paper([figure("one")]) as drawn:
        found = drawn()
    assert found["one"].svg == to_svg(figure("one"))
    assert not started


def test_the_process_ends_with_the_body(started: list[subprocess.Popen[bytes]]) -> None:
    with pytest.raises(KeyboardInterrupt), draw_on_paper([figure("one")]):
        raise KeyboardInterrupt
    assert [process.returncode for process in started] == [-9]


def test_an_error_of_a_figure_is_raised_here(started: list[subprocess.Popen[bytes]]) -> None:
    figures = [figure("one"), broken_figure()]
    with pytest.raises(ValueError, match="Vega-Lite"), draw_on_paper(figures) as drawn:
        drawn()


def broken_figure() -> Figure:
    one = figure("broken", panels=1)
    one.panels[0].chart.mark = {"type": "no-such-mark"}
    return one


@pytest.mark.parametrize(("panels", "cores"), [(1, 2), (paper.MANY_PANELS, 1)])
def test_no_process_is_started_where_it_gains_nothing(
    started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch, panels: int, cores: int
) -> None:
    monkeypatch.setattr(paper, "MANY_PANELS", 30)
    monkeypatch.setattr(paper, "count_cores", lambda: cores)
    with draw_on_paper([figure("one", panels)]) as drawn:
        assert list(drawn()) == ["one"]
    assert not started
