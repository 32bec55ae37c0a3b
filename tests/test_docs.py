"""The chapters: their commands are real and give what they show, figures are drawn by them, and links lead on."""

import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from docs.make import DOCS, Command, Figure, Page, draw, html, index, kept, mathml, pages, target
from typer.main import get_command
from typer.testing import CliRunner

from leadline.cli import app
from leadline.errors import DataError, LeadlineError, SpecError
from leadline.reports.charts.files import to_svg
from leadline.study.load import load_study
from leadline.text.tables import to_markdown
from leadline.theory import meanfield_figures, parity_figures
from leadline.theory.parity import circuit, counts

runner = CliRunner()
PAGES = pages()
CHAPTERS = [page for page in PAGES if page.name.startswith("theory/")]
COMMANDS = sorted({command for page in PAGES for block in page.shell() for command in block})
OUTPUTS = {command: text for page in PAGES for command, text in page.outputs().items()}
ROUNDING = re.compile(r"\S+ of the value")
NUMBER = re.compile(r"[-−]?\d+(?:\.\d+)?(?:e[-+−]?\d+)?")


def quick(command: Command) -> bool:
    return command[1] == "predict-depth" or command[1:3] in (("theory", "chain"), ("theory", "variance"))


def ids(items: list[Command]) -> list[str]:
    return [shlex.join(item) for item in items]


def assert_alike(shown: str, found: str, noise: float = 0.0) -> None:
    """Words are the same; numbers are near, as another machine's are, or both are no more than rounding."""
    assert NUMBER.sub("#", shown) == NUMBER.sub("#", found)
    one, other = ([float(each.replace("−", "-")) for each in NUMBER.findall(text)] for text in (shown, found))
    assert one == pytest.approx(other, rel=0.02, abs=noise)


def said_by(svg: str) -> Iterator[str]:
    """Yield what a drawing says: its texts, and the values of its marks as it gives them to those who cannot see."""
    yield from re.findall(r'aria-label="([^"]*)"|<text[^>]*>([^<]*)<|<desc>([^<]*)<', svg)


# --- chapters as they are


def test_each_part_of_the_theory_has_a_chapter_of_one_shape() -> None:
    assert [page.name for page in CHAPTERS] == [
        f"theory/{name}" for name in ("parity", "chains", "mean-field", "pretraining", "techniques")
    ]
    for page in CHAPTERS:
        assert {"the-question", "what-it-shows", "references"} <= page.anchors(), page.name
        assert any(page.every("math_block")) and page.shell()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_is_whole_by_itself(page: Page) -> None:
    text = html(page, PAGES)
    assert "<!--" not in text and "$$" not in text
    assert not re.search(r"<script|<link|@import|url\(\s*['\"]?http|src=['\"](?!data:)", text)
    assert text.count("<math") == sum(1 for kind in ("math_inline", "math_block") for _ in page.every(kind))
    assert text.count("<figure") == sum(1 for _ in page.every("image"))
    for href in re.findall(r'<a href="([^"]*)"', text):
        assert href.startswith(("https://", "#")) or re.fullmatch(r"(\.\./)*[\w/-]+\.html(#[\w-]+)?", href), href


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Page) -> None:
    for link in page.every("link_open"):
        href = str(link.attrs["href"])
        if not href.startswith("https://"):
            target(page, href, PAGES)


def test_the_index_links_every_page_with_a_sentence_about_it() -> None:
    text = html(index(PAGES), PAGES)
    for page in PAGES:
        assert re.search(rf'<li>\s*<a href="{page.name}\.html">[^<]+</a>: \w[^<]+', text), page.name
        assert 'index.html">All pages</a>' in html(page, PAGES)


def test_a_new_page_is_in_the_index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "new.md").write_text("# A *new* page\n\n<!-- note -->\n\nIt has `code` of\n2.5 lines. And more.\n")
    monkeypatch.setattr("docs.make.DOCS", tmp_path)
    assert "[A new page](new.md): It has code of 2.5 lines.\n" in str(index(pages()).text)


# --- commands


@pytest.mark.parametrize("command", COMMANDS, ids=ids(COMMANDS))
def test_every_command_is_real(command: Command) -> None:
    name, *words = command
    assert name == "leadline"
    found = get_command(app)
    context = found.make_context("leadline", [*words], resilient_parsing=True)
    while words:
        subcommand = found.get_command(context, words[0]) if hasattr(found, "get_command") else None
        if subcommand is None:
            break
        found, words = subcommand, words[1:]
    found.make_context(name, words)  # raises a usage error for an option or an argument that there is not
    if command[1] == "run":
        pairs = [word.partition("=") for option, word in pairwise(command) if option == "--set"]
        load_study(command[2], {key: yaml.safe_load(value) for key, _, value in pairs})


@pytest.mark.slow
@pytest.mark.parametrize("command", [each for each in COMMANDS if quick(each)], ids=shlex.join)
def test_quick_commands_say_and_draw_what_the_chapter_shows(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = runner.invoke(app, list(command[1:]), catch_exceptions=False)
    assert result.exit_code == 0
    if command in OUTPUTS:
        # columns are as wide as their numbers, of which those of rounding differ from machine to machine
        texts = (ROUNDING.sub("", text) for text in (OUTPUTS[command], result.output))
        assert_alike(*(re.sub(" +", " ", text) for text in texts))
    for figure in [each for page in PAGES for each in page.figures() if command in each.block]:
        now = kept(figure, tmp_path).decode()
        assert_alike(str([*said_by(figure.path.read_text())]), str([*said_by(now)]), noise=1e-5)


def test_the_table_of_circuits_has_what_is_counted() -> None:
    (parity,) = [page for page in PAGES if page.name == "theory/parity"]
    shown = [line.strip("| ").split(" | ") for line in parity.path.read_text().splitlines() if re.match(r"\| \d", line)]
    counted = to_markdown(parity_figures.table(counts([4, 8, 12]))).splitlines()
    rows = [line.strip("| ").split(" | ") for line in counted if re.match(r"\| \d", line)]
    assert shown == [[row[place] for place in (0, 1, 2, 3, 4, 6, 8, 9)] for row in rows]
    assert all(row[-1].startswith("all ") for row in rows)


def test_drawings_and_maps_that_are_quick_alone_are_those_of_the_library(tmp_path: Path) -> None:
    for name in ("dnf", "tree", "threshold"):
        assert (DOCS / f"figures/parity/parity-{name}-4.svg").read_text() == parity_figures.draw(circuit(name, 4))
    maps = to_svg(meanfield_figures.maps_figure(meanfield_figures.three_points("tanh")))
    kept_maps = (DOCS / "figures/mean-field/mean-field-maps.svg").read_text()
    assert_alike(str([*said_by(kept_maps)]), str([*said_by(maps)]), noise=1e-5)


def test_most_output_that_chapters_show_is_checked() -> None:
    assert {command[1:3] for command in OUTPUTS if not quick(command)} == {("theory", "mean-field")}


def test_every_kept_figure_is_shown_and_drawn_by_a_command_of_its_page() -> None:
    shown = {figure.path for page in PAGES for figure in page.figures()}
    assert shown == {path for path in (DOCS / "figures").rglob("*") if path.is_file()}


def test_the_trials_that_why_names_are_those_of_the_study_beside_them() -> None:
    study = load_study("gradients", {"vary.blocks": [10], "seeds": 1})
    hashes = {trial.content_hash[:10] for _, trial in study.trials()}
    (why,) = [page for page in PAGES if page.name == "why"]
    named = {
        word for block in why.shell() for command in block for word in command if re.fullmatch("[0-9a-f]{10}", word)
    }
    assert named == hashes


# --- what goes wrong


@pytest.mark.parametrize("latex", [r"\nosuch{x}", r"\frac{a", r"\begin{aligned} a &= b \end{aligned}", "x_", r"a \! b"])
def test_a_formula_that_is_not_understood_is_one_line(latex: str) -> None:
    with pytest.raises(SpecError, match="formula") as error:
        mathml(latex)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[there](nowhere.md)", "not there"),
        ("[there](why.md#nowhere)", "no such heading"),
        ("![seen](figures/nothing.svg)", "not there"),
        (r"$\nosuch{x}$", "nosuch"),
    ],
)
def test_a_page_that_is_wrong_names_itself(
    text: str, words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "why.md").write_text("# Why\n")
    (tmp_path / "page.md").write_text(f"# Page\n\n{text}\n")
    found = [Page(tmp_path / "page.md"), Page(tmp_path / "why.md")]
    with pytest.raises((DataError, SpecError), match=words) as error:
        html(found[0], found)
    assert "page.md" in str(error.value) and "\n" not in str(error.value)


def test_a_figure_without_a_command_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("docs.make.FIGURES", tmp_path / "figures")
    (tmp_path / "page.md").write_text(
        "# Page\n\n```sh\nleadline theory chain --output b\n```\n\n![a](figures/a/a.svg)\n"
    )
    with pytest.raises(DataError, match="no command with --output a draws"):
        Page(tmp_path / "page.md").figures()


@pytest.mark.slow
def test_a_block_that_fails_or_draws_something_else_is_one_line(tmp_path: Path) -> None:
    failing = Figure(DOCS / "figures/a.svg", (("leadline", "theory", "chain", "--layers", "0"),), Path("a.svg"))
    with pytest.raises(LeadlineError, match="layers 0") as error:
        draw([failing], tmp_path)
    assert "\n" not in str(error.value)
    with pytest.raises(LeadlineError, match="not a command of Leadline"):
        draw([Figure(failing.path, (("rm", "a"),), Path("a.svg"))], tmp_path)
    with pytest.raises(LeadlineError, match=r"did not write a\.svg"):
        kept(failing, tmp_path)
