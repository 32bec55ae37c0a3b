"""`leadline theory ...` and `predict-depth` as a user runs them: what is printed, what is written, what is refused."""

import csv
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from leadline.cli import app
from leadline.errors import SpecError

runner = CliRunner()


def said(*arguments: str) -> str:
    result = runner.invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.slow
def test_parity_prints_its_table_and_writes_figures_drawings_and_data(tmp_path: Path) -> None:
    text = said("theory", "parity", "--bits", "3-4", "--output", str(tmp_path / "new"))
    assert any(line.split()[:3] == ["4", "DNF", "9"] for line in text.splitlines()) and "all 16 inputs" in text
    names = {path.name for path in (tmp_path / "new").iterdir()}
    assert {"parity-gates.svg", "parity-gates.csv", "parity-dnf-4.svg", "parity-tree-4.svg"} <= names
    assert all(path.read_text().startswith("<svg") for path in (tmp_path / "new").glob("*.svg"))


def test_the_chain_that_is_printed_is_the_one_in_the_file(tmp_path: Path) -> None:
    text = said("theory", "chain", "--weight", "0.5", "--layers", "11", "--kind", "scalar", "--output", str(tmp_path))
    assert "W = 0.5" in text
    with (tmp_path / "chain-activation-gradient.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["layer"] == "1"]
    assert float(rows[0]["log10_closed"]) == pytest.approx(-10 * 0.30102999566)


@pytest.mark.slow
def test_variance_and_mean_field_put_measurement_beside_prediction(tmp_path: Path) -> None:
    text = said("theory", "variance", "--initialisation", "lecun-normal", "--activation", "linear", "--depth", "3")
    assert "mean of 16 networks" in text
    [row] = (line for line in text.splitlines() if line.startswith("lecun-normal, linear, 3 dense layers"))
    assert [float(value) for value in row.split()[-4:]] == pytest.approx([1.0] * 4, abs=0.2)
    text = said(
        *("theory", "mean-field", "--activation", "tanh", "--sigma-w", "1.5", "--depth", "6", "--width", "300"),
        *("--output", str(tmp_path)),
    )
    assert "chaotic" in text and "5 networks of width 300" in text
    assert (tmp_path / "mean-field-plane.svg").exists()


@pytest.mark.slow
def test_predict_depth_tells_a_plain_network_from_its_residual_twin() -> None:
    plain = said("predict-depth", "comparative-plain", "--set", "blocks=20", "--input", "1x28x28")
    assert "vanishing" in plain and "The same with shortcuts" in plain
    found = json.loads(said("predict-depth", "mlp", "--set", "hidden=5", "--input", "1x8x8", "--json"))
    assert len(found["gradient"]) == len(found["blocks"]) == 4
    assert found["fixed"]["phase"] == "critical"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("theory", "parity", "--bits", "9-2"), "the range is empty"),
        (("theory", "parity", "--bits", "many"), "expected a number or a range"),
        (("theory", "parity", "--bits", "1"), "2"),
        (("theory", "chain", "--layers", "0"), "0"),
        (("theory", "chain", "--kind", "round"), "round"),
        (("theory", "mean-field", "--activation", "tanhh"), "tanh"),
        (("theory", "variance", "--initialisation", "he"), "he-normal"),
        (("theory", "variance", "--depth", "1000000000000"), "choose fewer layers"),
        (("theory", "mean-field", "--width", "1000000"), "choose narrower or fewer layers"),
        (("predict-depth", "cifar-resnet"), "batch"),
        (("predict-depth", "torch.nn:Identity"), "custom module"),
    ],
)
def test_bad_input_is_one_line(arguments: tuple[str, ...], words: str) -> None:
    with pytest.raises(SpecError, match=words) as error:
        runner.invoke(app, list(arguments), catch_exceptions=False)
    assert "\n" not in str(error.value)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = runner.invoke(app, ["theory", "chain", "--layers", "3", "--output", str(tmp_path / "file" / "in")])
    assert result.exit_code == 1
    assert "cannot be created" in str(result.exception)
    assert result.output == ""  # before anything is computed
