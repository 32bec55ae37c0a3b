"""What commands print: whole in pipes, wrapped at words in terminals of any width, and JSON that parsers accept."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from typer.testing import CliRunner

from leadline.api import Study
from leadline.cli import app
from leadline.cli.options import print_json
from leadline.text.layout import Block, keep, to_text, wrap
from leadline.text.tables import Column, Table, plain

WIDTHS = (60, 80, 120)
LONG = "residual-network-with-a-name-of-40-marks"
ARMS = ("plain", LONG, f"{LONG}[blocks=10, width=16]", "網絡" * 6, *(f"arm-{number}" for number in range(8)))
PATH = "/runs" + "/a-folder" * 22
COUNTS = ("Finished", "Diverged", "Test error, %", "Range", "Epoch of convergence", "Parameters")
VALUES = ("2 of 3", "1", "16.94 ± 0.79", "−16.39 to 17.50", "4.5 (2 of 3)", "1,234,567")
ANSI = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


def arms_table(arms: tuple[str, ...], errors: dict[str, str]) -> Table:
    columns = (
        Column("Arm", ("arm",), plain, numeric=False),
        *(Column(heading, (heading,), str) for heading in COUNTS),
        Column("Error", ("error",), str, numeric=False),
    )
    rows = tuple({"arm": arm, **dict(zip(COUNTS, VALUES, strict=True)), "error": errors.get(arm, "")} for arm in arms)
    return Table("arms", "Arms: mean ± standard deviation over finished trials", columns, rows, "A note on the arms.")


BLOCKS: dict[str, tuple[Block, ...]] = {
    "short names": (arms_table(("plain", "residual[10]"), {}),),
    "twelve arms": (arms_table(ARMS, {"plain": "the store could not be opened: it is read-only"}),),
    "long names": (arms_table((LONG, ARMS[2]), {LONG: "the loss was not finite at step 1,234 of 5,000"}),),
    "a long path": (arms_table(("plain",), {"plain": f"no checkpoint at {PATH}: it was removed"}),),
    "sixty contrasts": (
        "\n".join(
            f"{LONG} against arm-{number}[blocks={number}, width=16], test error: −5.8 points (95% interval −9.4 to"
            f" −2.3, paired t, 12 seeds)\n  {keep('95% interval, BCa: −6.11 to −5.56')}; {keep('p, difference: 0.03')}"
            for number in range(60)
        ),
        "- A note that is a sentence, which is longer than a line of most terminals, with a hanging dash before it.",
    ),
}


def words(text: str) -> set[str]:
    return set(text.split())


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", BLOCKS)
def test_lines_fit_and_every_word_stays_whole(name: str, width: int) -> None:
    whole = to_text(*BLOCKS[name])
    laid = to_text(*BLOCKS[name], width=width)
    for line in laid.splitlines():
        assert cell_len(line) <= width or len(line.split()) == 1, line  # a word that is longer than a line
    rule = {word for word in words(laid) if set(word) == {"─"}}
    colons = {word.removesuffix(":") for word in words(laid)}  # after the headings of values that stand row by row
    assert words(laid) - rule <= words(whole) | {word for word in words(laid) if word.removesuffix(":") in words(whole)}
    assert words(whole) - {"–"} <= words(laid) | colons
    for block in BLOCKS[name]:
        if isinstance(block, Table):
            for cells in zip(*block.shown, strict=True):
                for cell, count in ((cell, cells.count(cell)) for cell in set(cells[1:]) & set(VALUES)):
                    assert laid.count(cell) >= count, cell


@pytest.mark.parametrize("width", WIDTHS)
def test_numbers_are_aligned_to_the_right(width: int) -> None:
    columns = (Column("Arm", ("arm",), str, numeric=False), Column("Steps", ("steps",), "{:,}".format))
    rows = tuple({"arm": arm, "steps": 10**power} for power, arm in enumerate(("plain", "網絡", "residual[10]")))
    lines = to_text(Table("t", "", columns, rows), width=width).splitlines()
    assert len({cell_len(line) for line in lines}) == 1 and lines[-1].endswith("  100")


def test_what_is_piped_has_one_line_for_a_row() -> None:
    lines = to_text(arms_table(ARMS, {"plain": f"no checkpoint at {PATH}"})).splitlines()
    assert len(lines) == 2 + len(ARMS) + 2 and lines[2].startswith("plain") and lines[2].endswith(PATH)
    assert not any(line.endswith(" ") or "─" in line for line in lines)


def test_a_column_of_little_importance_without_values_is_left_out() -> None:
    columns = (Column("Arm", ("arm",), str), *(Column(key, (key,), plain, wide=True) for key in ("empty", "full")))
    text = to_text(Table("t", "", columns, ({"arm": "a", "empty": None, "full": 1},)), width=80)
    assert "empty" not in text and "full" in text


def test_brackets_longer_than_a_line_are_broken_at_spaces() -> None:
    text = "net[" + ", ".join(f"factor-{number}={number}" for number in range(12)) + "]"
    assert all(len(line) <= 60 for line in wrap(text, 60)) and "".join(wrap(text, 60)).replace(" ", "") == text.replace(
        " ", ""
    )


# --- commands


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = tmp_path_factory.mktemp("layout") / "runs"
    study = Study(
        "small",
        arms={"plain": "comparative-plain", LONG: "comparative-resnet"},
        data={"name": "digits", "train": 40, "validation": 20, "test": 20},
        training={"epochs": 1, "batch_size": 20},
        seeds=2,
        title="A title that is longer than what is left of a line of eighty characters",
    )
    study.run(runs, workers=0, progress=False)
    return runs


STORE = [
    ["studies"],
    ["trials", "small"],
    ["verdict", "small"],
    ["show", "small"],
    ["show", "small/plain/0"],
    ["check"],
    ["probe", "small/plain/0", "lesion", "--images", "8", "--beside", f"small/{LONG}/0"],
]
OTHERS = [
    ["list"],
    ["inspect", "comparative-resnet", "--input", "1x8x8"],
    ["predict-depth", "mlp", "--set", "hidden=3", "--input", "1x8x8"],
    ["data", "check", "digits"],
    ["theory", "parity", "--bits", "2-4"],
    ["theory", "chain", "--layers", "400", "--weight", "0.5"],
    ["theory", "variance", "--initialisation", "he-normal", "--depth", "3", "--networks", "1"],
    ["theory", "mean-field", "--sigma-w", "1.414", "--activation", "relu", "--depth", "3", "--width", "50"],
]
COMMANDS = [*(([*one], True) for one in STORE), *((one, False) for one in OTHERS)]


def run(made: Path, arguments: list[str], stored: bool) -> str:
    result = CliRunner().invoke(app, [*arguments, *(["--runs", str(made)] if stored else [])])
    assert result.exit_code == 0, (result.output, result.exception)
    return result.stdout


def refuse(constant: str) -> Any:
    raise AssertionError(f"{constant} is not JSON")


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "stored"), COMMANDS, ids=str)
def test_json_is_all_that_is_printed(made: Path, arguments: list[str], stored: bool, tmp_path: Path) -> None:
    written = [["--output", str(tmp_path / "out")]] if arguments[0] in ("theory", "probe") else []
    for more in ([], *written):
        found = json.loads(run(made, [*arguments, "--json", *more], stored), parse_constant=refuse)
        assert found if arguments != ["check"] else found == []


@pytest.mark.slow
def test_a_plan_is_printed_as_json(made: Path) -> None:
    found = json.loads(run(made, ["plan", "demo", "--json", "--workers", "1"], True), parse_constant=refuse)
    assert found["trials"] == 18


def test_what_is_not_a_finite_number_is_null(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"a": [float("nan"), (1.5, float("-inf"))], "b": {"c": float("inf"), "d": True}})
    assert json.loads(capsys.readouterr().out) == {"a": [None, [1.5, None]], "b": {"c": None, "d": True}}


@pytest.mark.slow
@pytest.mark.parametrize(("arguments", "stored"), COMMANDS, ids=str)
def test_commands_fit_the_terminal_and_are_whole_in_a_pipe(
    made: Path, arguments: list[str], stored: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    whole = run(made, arguments, stored)
    assert not ANSI.search(whole) and whole == run(made, arguments, stored)
    if arguments[0] == "show":
        return
    monkeypatch.setenv("FORCE_COLOR", "1")
    shown = {}
    for width in WIDTHS:
        monkeypatch.setenv("COLUMNS", str(width))
        shown[width] = ANSI.sub("", run(made, arguments, stored))
        for line in shown[width].splitlines():
            assert cell_len(line.rstrip()) <= width or len(line.split()) == 1, line
        tokens = {word.removesuffix(":") for word in words(shown[width]) if set(word) != {"─"}}
        assert tokens <= {word.removesuffix(":") for word in words(whole)}
        assert len(shown[width].splitlines()) >= len(whole.splitlines())
