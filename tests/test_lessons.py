"""The lessons: of one shape, without outputs as they are kept, and executed: without an error, and true.

LEADLINE_KEEP_LESSONS=FOLDER keeps the executed notebooks, to look at.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from docs.execute import FIGURES, execute, lessons, page_figure

import leadline as ll
from leadline.store import Store

LESSONS = lessons()
LONGEST = 40
"""Lines of a cell of code."""
ABSOLUTE = re.compile(r"""(?<![\w.:/<])(/(?!/)[a-z]+/[\w.]|[A-Z]:\\|~/)""")
WORDS = re.compile(r">([^<>]*[A-Za-z][^<>]*)</text>")
LOG_SCALE = ", log scale"
CITED = re.compile(r"([A-Z]\w+)(?: et al\.| & [A-Z]\w+| and [A-Z]\w+) \(?(\d{4})|\(([A-Z]\w+) (\d{4})\)")


def names(paths: list[Path]) -> list[str]:
    return [path.stem for path in paths]


@pytest.fixture(params=LESSONS, ids=names(LESSONS))
def lesson(request: pytest.FixtureRequest) -> nbformat.NotebookNode:
    return nbformat.read(request.param, as_version=4)


def prose(notebook: nbformat.NotebookNode) -> str:
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


# --- as they are kept


def test_there_are_four_lessons_and_a_research_example() -> None:
    assert names(LESSONS) == [
        "1-cnn-and-resnet",
        "2-recurrence-as-depth",
        "3-depth-and-gradients",
        "4-architecture",
        "5-research",
    ]


def test_a_lesson_asks_lets_predict_and_sets_exercises(lesson: nbformat.NotebookNode) -> None:
    text = prose(lesson)
    assert text.startswith("# ") and len(re.findall(r"^# ", text, re.MULTILINE)) == 1
    for heading in ("## The question", "## What it says, and what it does not", "## Exercises", "## Sources"):
        assert len(re.findall(f"^{re.escape(heading)}$", text, re.MULTILINE)) == 1, heading
    assert len(re.findall(r"^\d\. ", text.partition("## Exercises")[2], re.MULTILINE)) >= 2


def test_a_reader_predicts_before_anything_is_trained(lesson: nbformat.NotebookNode) -> None:
    sources = [cell.source for cell in lesson.cells]
    predictions = [place for place, source in enumerate(sources) if re.search(r"^##.* prediction", source, re.M | re.I)]
    runs = [place for place, cell in enumerate(lesson.cells) if cell.cell_type == "code" and ".run()" in cell.source]
    assert predictions and predictions[0] < runs[0]
    for place in predictions:
        assert re.search(r"[Bb]efore you run (this|the\s+next\s+cell)", sources[place])


def test_a_lesson_is_kept_without_outputs_for_any_machine(lesson: nbformat.NotebookNode) -> None:
    nbformat.validate(lesson)
    assert lesson.metadata.kernelspec == {"name": "python3", "display_name": "Python 3", "language": "python"}
    for cell in lesson.cells:
        assert not ABSOLUTE.search(cell.source), cell.source
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None
            assert len(cell.source.splitlines()) <= LONGEST


def test_what_is_cited_is_a_source_and_the_other_way_round(lesson: nbformat.NotebookNode) -> None:
    text, _, sources = prose(lesson).partition("## Sources")
    text = " ".join(text.split())
    listed = [" ".join(one.split()) for one in re.findall(r"^- ((?:.|\n  )+)", sources, re.MULTILINE)]
    cited = {tuple(filter(None, one)) for one in CITED.findall(text)}
    for name, year in cited:
        assert any(name in one and year in one for one in listed), f"{name} {year} is not among the sources"
    for one in listed:
        title = re.findall(r"\*(.+?)\.?\*", one)[0]
        assert title in text or any(name in one and year in one for name, year in cited), f"{one} is not cited"


# --- executed


@dataclass(frozen=True)
class Executed:
    notebook: nbformat.NotebookNode
    runs: Path

    @property
    def name(self) -> str:
        return str(self.notebook.metadata["name"])

    def shown(self, kind: str) -> list[str]:
        outputs = [output for cell in self.notebook.cells for output in cell.get("outputs", [])]
        return [output["data"][kind] for output in outputs if kind in output.get("data", {})]

    @property
    def printed(self) -> list[str]:
        outputs = [output for cell in self.notebook.cells for output in cell.get("outputs", [])]
        return "".join(one.text for one in outputs if one.output_type == "stream").splitlines()

    def studies(self) -> Iterator[ll.Results]:
        with Store.open_existing(self.runs) as store:
            found = [study.name for study in store.studies()]
        yield from (ll.Results.open(name, self.runs) for name in found)


@pytest.fixture(scope="module", params=LESSONS, ids=names(LESSONS))
def executed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Executed:
    kept = os.environ.get("LEADLINE_KEEP_LESSONS")
    folder = Path(kept) / request.param.stem if kept else tmp_path_factory.mktemp(request.param.stem)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path("src").resolve()), os.environ.get("PYTHONPATH", "")]))
        notebook = execute(request.param, folder)
    notebook.metadata["name"] = request.param.stem
    return Executed(notebook, folder / "runs")


@pytest.mark.slow
def test_no_cell_fails_or_warns(executed: Executed) -> None:
    outputs = [output for cell in executed.notebook.cells for output in cell.get("outputs", [])]
    assert [one for one in outputs if one.output_type == "error" or one.get("name") == "stderr"] == []
    assert all(cell.execution_count for cell in executed.notebook.cells if cell.cell_type == "code")


@pytest.mark.slow
def test_pictures_and_the_verdict_are_shown(executed: Executed) -> None:
    assert len(executed.shown("image/svg+xml")) >= 2
    assert any("Contrasts: difference, first arm minus second" in html for html in executed.shown("text/html"))
    figure, kept = page_figure(executed.notebook), (FIGURES / f"{executed.name}.svg").read_text(encoding="utf-8")
    # what the page shows is of this lesson; whether an axis is logarithmic depends on numbers, and so on the machine
    assert WORDS.findall(kept.replace(LOG_SCALE, "")) == WORDS.findall(figure.replace(LOG_SCALE, ""))


@pytest.mark.slow
def test_what_is_said_of_a_contrast_is_what_was_found(executed: Executed) -> None:
    said = 0
    for results in executed.studies():
        for row in results.verdict().contrasts.itertuples():
            [line] = [line for line in executed.printed if line.startswith(f"{row.contrast}: ")]
            looks = hasattr(row, "looks_low")
            low, high = (row.looks_low, row.looks_high) if looks else (row.ci_low, row.ci_high)
            interval = f"95% interval{' that holds at every look' * looks} {low:+.2f} to {high:+.2f}"
            numbers = f" Difference {row.difference:+.2f} points ({interval}, {row.n} seeds)."
            assert line in (f"{row.contrast}: {row.verdict}.", f"{row.contrast}: {row.verdict}.{numbers}")
            said += 1
    assert said


@pytest.mark.slow
def test_what_else_is_said_with_a_number_is_so(executed: Executed) -> None:
    text = "\n".join(executed.printed)
    results = {one.name: one.verdict() for one in executed.studies()}
    match executed.name:
        case "1-cnn-and-resnet":
            assert "the same batches in the same order: True" in text
            assert "plain and residual start from the same weights: True" in text
        case "2-recurrence-as-depth":
            recurrent, residual = (
                ll.inspect_network(ll.networks.recurrent_resnet(7, width=16, shared=shared), (1, 8, 8), 10).parameters
                for shared in (True, False)
            )
            assert f"the recurrent network has {recurrent / residual:.0%} of the parameters" in text
            assert "have the same error at every seed: True" in text
        case "3-depth-and-gradients":
            for row in results["remedies"].arms.itertuples():
                how = "learns" if row.train_error_mean < 50 else "stays near chance"
                errors = f"test error {row.test_error_mean:.1f}%, training error {row.train_error_mean:.1f}%"
                assert f"{row.arm} {how}: {errors}." in text
        case "4-architecture":
            largest = results["details"].contrasts["difference"].abs().max()
            gap = abs(results["degradation"].contrasts["difference"].iloc[-1])
            assert f"between details is {largest:.2f} points; shortcuts as such made {gap:.2f}." in text
        case "5-research":
            report = executed.runs.parent / "report" / "bars"
            assert {"html", "svg", "pdf", "tex", "csv", "md"} <= {path.suffix[1:] for path in report.rglob("*.*")}
            assert (report / "tables" / "arms.tex").read_text() in text
