"""Execute the lessons, and keep them with their outputs.

    python -m docs.execute [LESSON ...] [--output build/lessons] [--figures]

A lesson is a notebook in `docs/lessons`, where it has no outputs, so that none is out of date. What it trains is kept
in the folder of the output and not trained again. `--figures` keeps the figure of the cell with the tag `page` in
`docs/lessons/figures`, for the page that lists the lessons.
"""

import argparse
import os
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from leadline.reports.charts.files import write_whole
from leadline.reports.charts.svg import prefix_ids

LESSONS = Path(__file__).resolve().parent / "lessons"
FIGURES = LESSONS / "figures"


def lessons() -> list[Path]:
    """Return the notebooks in their order."""
    return sorted(LESSONS.glob("*.ipynb"))


def execute(lesson: Path, folder: Path) -> nbformat.NotebookNode:
    """Return a lesson with its outputs, which is also written into a folder, where it runs.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell raises an error.
    """
    folder.mkdir(parents=True, exist_ok=True)
    notebook = nbformat.read(lesson, as_version=4)
    # a kernel of one's own: without the user's start-up files
    environment = os.environ | {"IPYTHONDIR": str(folder / ".ipython"), "JUPYTER_CONFIG_DIR": str(folder / ".jupyter")}
    client = NotebookClient(notebook, timeout=None, resources={"metadata": {"path": str(folder)}})
    client.execute(env=environment)
    nbformat.write(notebook, folder / lesson.name)
    return notebook


def page_figure(notebook: nbformat.NotebookNode) -> str:
    """Return the figure of an executed lesson that is shown on the page of the lessons, as SVG."""
    [cell] = [cell for cell in notebook.cells if "page" in cell.metadata.get("tags", ())]
    [svg] = [output["data"]["image/svg+xml"] for output in cell.outputs if "image/svg+xml" in output.get("data", {})]
    return str(svg)


def main() -> None:
    """Execute the lessons that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lesson", nargs="*", help="name of a notebook, such as 1-cnn-and-resnet; default: all")
    parser.add_argument("--output", type=Path, default=Path("build/lessons"), help="folder of the executed notebooks")
    parser.add_argument("--figures", action="store_true", help="keep a figure of each in docs/lessons/figures")
    asked = parser.parse_args()
    known = {path.stem: path for path in lessons()}
    if unknown := [name for name in asked.lesson if name not in known]:
        parser.error(f"no lesson {', '.join(unknown)}; there are {', '.join(known)}")
    for name in asked.lesson or known:
        notebook = execute(known[name], asked.output.resolve())
        if asked.figures:
            FIGURES.mkdir(exist_ok=True)
            write_whole(FIGURES / f"{name}.svg", prefix_ids(page_figure(notebook), f"lesson-{name[0]}-").encode())
        print(f"written: {asked.output / name}.ipynb", flush=True)


if __name__ == "__main__":
    main()
