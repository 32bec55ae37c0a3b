"""The pages: their commands give what they show and draw their figures, links lead on, and all of it is built."""

import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from docs.draw import DOCS, Command, Figure, Page, draw, kept, pages
from docs.extensions.commands import commands
from typer.main import get_command
from typer.testing import CliRunner

import leadline
from browser import Browser
from leadline.cli import app
from leadline.errors import DataError, LeadlineError
from leadline.reports.charts.files import to_svg
from leadline.study.load import load_study
from leadline.text.tables import to_markdown
from leadline.theory import meanfield_figures, parity_figures
from leadline.theory.parity import circuit, counts

runner = CliRunner()
ROOT = DOCS.parent
PAGES = pages()
CHAPTERS = [page for page in PAGES if page.name.startswith("theory/")]
COMMANDS = sorted({command for page in PAGES for block in page.shell() for command in block})
OUTPUTS = {  # those of the tutorial are seen in their order
    command: text for page in PAGES if page.name != "tutorial" for command, text in page.outputs().items()
}
DURATION = re.compile(r"(?:\d+ (?:h|min) )*[\d.]+ s\b")
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


# --- pages as they are


def test_each_part_of_the_theory_has_a_chapter_of_one_shape() -> None:
    assert {page.name for page in CHAPTERS} == {
        f"theory/{name}" for name in ("parity", "chains", "mean-field", "pretraining", "techniques")
    }
    for page in CHAPTERS:
        text = page.path.read_text()
        assert all(f"\n## {heading}\n" in text for heading in ("The question", "What it shows", "References"))
        assert "\n$$\n" in text and page.shell()


@pytest.mark.parametrize(
    "page", [*PAGES, *map(Page, sorted(ROOT.glob("*.md")))], ids=lambda page: str(page.path.relative_to(ROOT))
)
def test_every_link_is_to_a_file_of_the_repository(page: Page) -> None:
    built = {"genindex"}  # which there is in the HTML alone
    hrefs = [token.attrs[key] for kind, key in (("link_open", "href"), ("image", "src")) for token in page.every(kind)]
    for href in map(str, hrefs):
        file = unquote(href.partition("#")[0])
        assert href.startswith("https://") or file in built or (page.path.parent / file).exists(), href


# --- commands


@pytest.mark.parametrize("command", COMMANDS, ids=ids(COMMANDS))
def test_every_command_is_real(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where folders of --output are created as options are read
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
    if command[1] == "run" and not command[2].endswith(".yaml"):
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
        shown, found = (re.sub(" +", " ", ROUNDING.sub("", text)) for text in (OUTPUTS[command], result.output))
        assert_alike(shown, found)
    for figure in [each for page in PAGES for each in page.figures() if command in each.block]:
        now = kept(figure, tmp_path).decode()
        assert_alike(str([*said_by(figure.path.read_text())]), str([*said_by(now)]), noise=1e-5)


@pytest.mark.slow
def test_the_tutorial_runs_and_says_what_it_shows(tmp_path: Path) -> None:
    (tutorial,) = [page for page in PAGES if page.name == "tutorial"]
    said = ""
    for block in tutorial.every("fence"):
        match block.info:
            case "yaml":
                (tmp_path / "first.yaml").write_text(block.content)
            case "sh":
                said = run(["-m", *shlex.split(block.content)], tmp_path)
            case "python":
                said = run(["-c", block.content], tmp_path)
            case "text":
                found = {_without_numbers(line) for line in said.splitlines()}
                for line in map(_without_numbers, block.content.splitlines()):
                    assert any(each.startswith(line) for each in found), line


def run(words: list[str], folder: Path) -> str:
    """Run Python with some arguments in a folder and return what it prints."""
    result = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


def _without_numbers(line: str) -> str:
    """Return a line in which other numbers and times, and so other widths of columns, make no difference."""
    return re.sub(" +", " ", NUMBER.sub("#", DURATION.sub("# s", line))).strip()


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


def test_a_figure_without_a_command_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("docs.draw.FIGURES", tmp_path / "figures")
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


# --- the HTML


def build(source: Path, output: Path) -> "subprocess.CompletedProcess[str]":
    """Run Sphinx with the configuration of the pages, without a network."""
    words = ["-q", "-E", "-W", "--keep-going", "-c", str(DOCS), "-d", str(output.parent / "doctrees")]
    nowhere = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    return subprocess.run(
        [sys.executable, "-m", "sphinx", *words, str(source), str(output)],
        cwd=ROOT,
        env=os.environ | nowhere,
        capture_output=True,
        text=True,
        check=False,
    )


class Links(HTMLParser):
    """What a page of HTML points to, what can be pointed to in it, and how many formulas and figures it has."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.hrefs: list[str] = []
        self.loaded: list[str] = []
        self.parts: set[str] = set()
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.tags.append(tag)
        self.parts.add(given.get("id", ""))
        self.hrefs += [given["href"]] if tag == "a" and "href" in given else []
        self.loaded += [given[key] for key in ("src", "href") if key in given and tag != "a"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("site") / "html"
    result = build(DOCS, output)
    assert result.returncode == 0, result.stderr
    return output


@pytest.fixture(scope="module")
def read(site: Path) -> dict[Path, Links]:
    return {path: Links(path.read_text()) for path in site.rglob("*.html")}


@pytest.mark.slow
def test_every_page_is_built_and_shows_its_formulas_and_figures(site: Path, read: dict[Path, Links]) -> None:
    for page in PAGES:
        tags = read[site / f"{page.name}.html"].tags
        assert tags.count("math") == len(re.findall(r"\$\$.+?\$\$|\$[^$\n]+\$", _prose(page), re.DOTALL)), page.name
        shown = sum(1 for _ in page.every("image"))
        charts = (site / f"{page.name}.html").read_text().count('<span class="chart"')
        assert tags.count("img") + charts == shown, page.name


def _prose(page: Page) -> str:
    """Return what a page says, without code."""
    return re.sub(r"^```.*?^```|`[^`]*`", "", page.path.read_text(), flags=re.DOTALL | re.MULTILINE)


@pytest.mark.slow
def test_no_page_loads_anything_from_elsewhere(site: Path, read: dict[Path, Links]) -> None:
    for path, found in read.items():
        for address in found.loaded:
            there = urlsplit(address)
            assert not there.scheme and (path.parent / unquote(there.path)).exists(), (path.name, address)
    for style in site.rglob("*.css"):
        assert not re.search(r"@import|url\(\s*['\"]?(https?:)?//", style.read_text()), style.name


@pytest.mark.slow
def test_every_link_of_the_html_leads_somewhere(read: dict[Path, Links]) -> None:
    for path, found in read.items():
        for href in found.hrefs:
            there = urlsplit(href)
            if there.scheme:
                assert there.scheme == "https", (path.name, href)
                continue
            target = (path.parent / unquote(there.path)).resolve() if there.path else path
            assert target.is_file(), (path.name, href)
            assert not there.fragment or unquote(there.fragment) in read[target].parts, (path.name, href)


@pytest.mark.slow
def test_every_public_name_and_every_command_is_in_the_index_and_found_by_search(site: Path) -> None:
    public = {f"leadline.{name}" for name in leadline.__all__ if name != "__version__"}
    for module in ("networks", "analysis.stats", "store", "parts.metrics"):
        members = vars(import_module(f"leadline.{module}"))
        public |= {f"leadline.{module}.{name}" for name in members["__all__"] if inspect.isroutine(members[name])}
        public |= {f"leadline.{module}.{name}" for name in members["__all__"] if inspect.isclass(members[name])}
    elsewhere = {"FAMILIES", "family", "Store", "Metric", "FinalMetric"}  # leadline's own
    public = {name for name in public if name.count(".") == 1 or name.rpartition(".")[2] not in elsewhere}

    search = json.loads((site / "searchindex.js").read_text().removeprefix("Search.setIndex(").removesuffix(")"))
    found = {f"{where}.{entry[4]}" for where, entries in search["objects"].items() for entry in entries}
    assert public - found == set()
    index = (site / "genindex.html").read_text()
    assert [name for name in public if f'#{name}"' not in index and f'#module-{name}"' not in index] == []
    headings = (site / "commands.html").read_text()
    for _, context in commands():
        assert f"<h2>{context.command_path.strip()}<" in headings


@pytest.mark.slow
def test_what_is_wrong_on_a_page_fails_the_build_and_names_the_page(tmp_path: Path) -> None:
    wrong = {
        "a file": ("[there](nowhere.md)", "nowhere.md"),
        "a heading": ("[there](index.md#nowhere)", "nowhere"),
        "an image": ("![seen](nothing.svg)", "nothing.svg"),
        "a formula": (r"$\nosuch{x}$", "nosuch"),
    }
    for number, (text, _) in enumerate(wrong.values()):
        (tmp_path / f"wrong-{number}.md").write_text(f"# Wrong\n\n{text}\n")
    (tmp_path / "index.md").write_text("# Index\n\n```{toctree}\n:glob:\n\nwrong-*\n```\n")
    (tmp_path / "forgotten.md").write_text("# Forgotten\n")
    result = build(tmp_path, tmp_path / "out" / "html")
    assert result.returncode == 1
    said = result.stderr.splitlines()
    for number, (what, (_, words)) in enumerate(wrong.items()):
        assert any(f"wrong-{number}.md" in line and words in line for line in said), what
    assert any("forgotten.md" in line and "toctree" in line for line in said)


@pytest.mark.slow
@pytest.mark.parametrize("dark", [False, True])
def test_pages_keep_the_rules_of_accessibility(dark: bool, site: Path, browser: Browser, axe: str) -> None:
    for name in ("training", "gpu", "security"):  # code, a wide table, prose
        browser.open(site / f"{name}.html", dark=dark)
        assert browser.complaints() == [], name
        assert browser.violations(axe) == [], name
