"""A study in a notebook: three lines that train, judge and draw, run by a real kernel; what its cells display.

LEADLINE_KEEP_NOTEBOOK=FILE keeps the notebook with its outputs, to look at.
"""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

# As in a reader's notebook, but for fewer images and epochs.
CELLS = [
    "import leadline as ll\n"
    'study = ll.Study.load("demo", {"data.train": 100, "data.test": 50, "training.epochs": 2, "seeds": 2})\n'
    "study.plan(workers=1)",
    "results = study.run(workers=0)",
    "results.verdict()",
    'results.figures["accuracy-curves"]',
]


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[nbformat.NotebookNode]:
    """Return the cells of the notebook after a kernel ran them."""
    folder = tmp_path_factory.mktemp("notebook")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in CELLS])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path("src").resolve()), os.environ.get("PYTHONPATH", "")]))
        NotebookClient(notebook, timeout=1200, resources={"metadata": {"path": str(folder)}}).execute()
    if kept := os.environ.get("LEADLINE_KEEP_NOTEBOOK"):
        nbformat.write(notebook, kept)
    return list(notebook.cells)


def shown(cell: nbformat.NotebookNode, kind: str) -> list[str]:
    return [output["data"][kind] for output in cell.outputs if kind in output.get("data", {})]


def test_no_cell_writes_a_warning(cells: list[nbformat.NotebookNode]) -> None:
    assert [output for cell in cells for output in cell.outputs if output.output_type in ("stream", "error")] == []


def test_the_plan_displays_itself(cells: list[nbformat.NotebookNode]) -> None:
    [html] = shown(cells[0], "text/html")
    assert html.startswith("<pre>") and "trials" in html


def test_the_bar_is_one_output_that_ends_full(cells: list[nbformat.NotebookNode]) -> None:
    [html] = [html for html in shown(cells[1], "text/html") if "<table" in html]  # beside the line of what was changed
    total = html.split('max="')[1].split('"')[0]
    assert f"{total}/{total} trials" in html and f'value="{int(total):.4f}"' in html
    assert "time left" not in html and html.count("<progress") == 1


def test_the_verdict_displays_words_and_tables(cells: list[nbformat.NotebookNode]) -> None:
    [html] = shown(cells[2], "text/html")
    [text] = shown(cells[2], "text/plain")
    assert html.count("<table") == 2 and "residual" in html and "residual" in text


def test_the_figure_is_an_image_that_needs_no_network(cells: list[nbformat.NotebookNode]) -> None:
    [svg] = shown(cells[3], "image/svg+xml")
    assert svg.startswith("<svg") and shown(cells[3], "text/html") == []
