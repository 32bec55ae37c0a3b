"""The circuits and chains that a report draws of the chapters of the theory that its study belongs to."""

import csv
import json
import re
import shlex
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from leadline.analysis.diagnostics import Diagnostics, ProbeResult
from leadline.analysis.verdict import analyze
from leadline.cli import app
from leadline.probes.snapshots.decomposition import DecompositionProbe
from leadline.reports.charts.forest import forest
from leadline.reports.page import Section, Source, write_page
from leadline.reports.tables import tables
from leadline.reports.theory_chapters import BUILT_TO, MOST_LAYERS, WEIGHTS, chapters, theory_section
from leadline.study.expand import ExpandedStudy
from leadline.study.load import load_study
from test_report import Page, measured

PLAIN, RESIDUAL = {"plain": {"network": "comparative-plain"}}, {"residual": {"network": "comparative-resnet"}}


def of(bits: int, blocks: int, arms: Mapping[str, object] = PLAIN | RESIDUAL, followed: bool = True) -> ExpandedStudy:
    """A study of parity, or of digits where there are no bits."""
    return load_study(
        {
            "name": "s",
            "data": {"name": "parity", "bits": bits, "samples": 4} if bits else {"name": "digits"},
            "arms": arms,
            "vary": {"blocks": sorted({min(2, blocks), blocks})},
            "probes": {"flow": {}} if followed else {},
            "seeds": 1,
        }
    )


def test_chapters_of_the_theory_exist_and_say_where_they_are() -> None:
    root = Path(__file__).parents[1]
    wanted = {"parity": ["parity"], "gradients": ["chains"], "pretraining": ["chains", "pretraining"], "demo": []}
    for name, pages in wanted.items():
        found = list(chapters(load_study(name)))
        assert [chapter.page for chapter in found] == [f"docs/theory/{page}.md" for page in pages]
        for chapter in found:
            title = (root / chapter.page).read_text(encoding="utf-8").splitlines()[0]
            assert chapter.title == title.removeprefix("# ")
            assert chapter.title in chapter.paragraph and chapter.page in chapter.paragraph
        assert len(list(theory_section(load_study(name)))) == bool(pages)


def test_a_study_of_parity_shows_circuits_and_their_size_up_to_its_bits() -> None:
    (section,) = theory_section(of(12, 2))
    gates, units, _ = section.figures
    built = gates.data.dropna(subset="measured")
    assert (gates.data["bits"].max(), built["bits"].max()) == (12, BUILT_TO)
    assert (
        built["measured"] == built["formula"]
    ).all() and f"for 2 to {BUILT_TO} bits: none was wrong" in gates.caption
    assert [panel.title for panel in (*gates.panels, *units.panels)] == [
        *("Gates", "Depth", "Threshold units", "Threshold layers")
    ]
    assert (
        "As a circuit, parity of 12 bits takes 2,049 AND and OR gates at depth 2, or 11 XOR gates at depth 4"
        in (section.paragraphs[0])
    )
    for drawing, size in zip(section.drawings, ("9 gates, 40 wires", "3 gates, 6 wires", "5 gates, 20"), strict=True):
        assert not drawing.folded and f"<title>{drawing.title}</title>" in drawing.svg
        assert f"<desc>{drawing.title}. {size}" in drawing.svg
    assert [row["bits"] for row in section.tables[0].rows[::5]] == list(range(2, 13))


@pytest.mark.parametrize(("bits", "most"), [(2, 4), (64, 56)])
def test_figures_of_parity_have_the_bits_that_can_be_drawn_and_say_where_they_end(bits: int, most: int) -> None:
    chapter, *_ = chapters(of(bits, 2))
    assert (chapter.figures[0].data["bits"].min(), chapter.figures[0].data["bits"].max()) == (2, most)
    assert f"parity of {bits} bits takes" in chapter.paragraph
    assert (f"the figures go to {most} bits" in chapter.paragraph) == (bits > most)
    assert chapter.commands == (f"leadline theory parity --bits 2-{most}",)


def test_chains_are_as_deep_as_the_deepest_plain_network_and_their_commands_print_what_is_drawn() -> None:
    (chapter,) = chapters(of(0, 11))
    (figure,) = chapter.figures
    assert [panel.title for panel in figure.panels] == [
        f"scalar, linear, {one}" for one in ("no shortcut", "identity shortcuts")
    ]
    assert "have 11 layers" in chapter.paragraph and "has 11 blocks" in chapter.paragraph
    for command, panel in zip(chapter.commands, figure.panels, strict=True):
        program, *arguments = shlex.split(command)
        assert program == "leadline"
        printed = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).output)
        assert len(printed) == len(WEIGHTS)
        for one, weight in zip(printed, WEIGHTS, strict=True):
            wanted = [row["log10_closed"] for row in one["values"] if row["quantity"] == "activation-gradient"]
            drawn = figure.data[figure.data["panel"].eq(panel.title) & figure.data["base"].eq(f"W = {weight:g}")]
            assert drawn["log10_closed"].tolist() == pytest.approx(wanted) and len(drawn) == 11


def test_chains_stand_only_where_gradients_were_followed_in_networks_like_them() -> None:
    (chapter,) = chapters(of(0, 3, PLAIN))
    assert len(chapter.figures[0].panels) == len(chapter.commands) == 1
    assert "shortcut it multiplies" not in chapter.paragraph
    assert not list(chapters(of(0, 3, RESIDUAL)))
    assert not list(chapters(of(0, 3, PLAIN, followed=False)))
    assert not list(chapters(of(0, 1, PLAIN)))  # one block is no chain
    (chapter,) = chapters(of(0, MOST_LAYERS + 1, PLAIN))
    assert f"have {MOST_LAYERS} layers" in chapter.paragraph and f"has {MOST_LAYERS + 1} blocks" in chapter.paragraph


def test_theory_stands_on_the_page_is_linked_from_it_and_goes_with_it(tmp_path: Path) -> None:
    study = of(5, 2)
    trials, records = measured(study)
    findings, (section,) = analyze(study, trials, records, {}), theory_section(study)
    source = Source("Study", "", "", "study.yaml", "", "", "", "")
    tabled = tables(study, findings, trials, records)
    inside = Diagnostics(probes=(ProbeResult("decomposition", DecompositionProbe(), pd.DataFrame(), ""),))

    def write(*sections: Section) -> str:
        drawn = [forest(findings), *(figure for one in sections for figure in one.figures)]
        return write_page(source, findings, tabled, drawn, tmp_path, inside, sections).read_text(encoding="utf-8")

    html = write(section)
    page = Page(html)
    known = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    parts = dict(re.findall(r'<section id="([\w-]+)"(.*?)</section>', html, re.DOTALL))
    for name, target in (("verdict", "theory-parity-gates"), ("why", "theory-chain-activation-gradient")):
        assert f'<a href="#{target}">' in parts[name] and known.count(target) == 1
        assert parts["theory"].count(f'<figure id="{target}"') == 1
    drawings = [attributes for _, attributes in page.elements if attributes.get("class") == "drawing"]
    assert [one["aria-label"] for one in drawings] == [f"Drawing: {one.title}" for one in section.drawings]
    assert all((one["role"], one["tabindex"]) == ("region", "0") for one in drawings)
    assert parts["theory"].index('class="drawing"') < parts["theory"].index("<details")  # seen without opening anything
    assert "leadline theory parity --bits 2-5\nleadline theory chain" in page.text
    with (tmp_path / "tables" / "theory-parity.csv").open(encoding="utf-8") as file:
        assert {row["bits"] for row in csv.DictReader(file)} == set("2345")
    kept = {path.name for path in tmp_path.rglob("theory-*")}
    assert {"theory-parity-gates.csv", "theory-parity-units.pdf", "theory-parity-tree-4.svg"} <= kept
    write()
    assert not list(tmp_path.rglob("theory-*"))
