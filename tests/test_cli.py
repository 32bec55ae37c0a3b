"""The command line: quick start, JSON that other programs rely on, one-line errors."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from leadline.cli import app, main
from leadline.probing import PROBES, probe_trial
from leadline.run import InProcess, Job
from leadline.store import Store
from leadline.study import StudySpec
from leadline.studyfile import load_study

runner = CliRunner()


def invoke(*arguments: str) -> str:
    result = runner.invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def failing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    """Run the real entry point; return its one line on stderr."""
    monkeypatch.setattr(sys, "argv", ["leadline", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1 and "Traceback" not in err
    return err


@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["list", "--json"], ["schema"]])
def test_quick_commands_import_nothing_heavy(arguments: list[str]) -> None:
    script = f"""
import sys
from leadline.cli import app
try:
    app({arguments!r}, standalone_mode=False)
except SystemExit:
    pass
heavy = {{"torch", "pandas", "scipy", "sklearn", "altair", "sqlalchemy"}} & set(sys.modules)
assert not heavy, heavy
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_list_json() -> None:
    listed = json.loads(invoke("list", "--json"))
    assert set(listed) == {"studies", "networks", "datasets"}
    assert {"demo", "comparative-mnist", "comparative-cifar10", "comparative-mnist-10k"} <= set(listed["studies"])
    assert {"comparative-cnn", "comparative-resnet"} <= set(listed["networks"])
    assert {"digits", "mnist", "fashion-mnist", "kmnist", "cifar10", "cifar100"} <= set(listed["datasets"])


def test_list_for_people() -> None:
    text = invoke("list")
    assert "comparative-resnet" in text and "Identical residual blocks" in text


def test_inspect_json() -> None:
    shape = ["--input", "1x28x28", "--json"]
    info = json.loads(invoke("inspect", "comparative-cnn", *shape))
    assert info["parameters"] == 576_330
    assert info["multiply_adds"] == sum(layer["multiply_adds"] for layer in info["layers"])
    assert set(info["layers"][0]) == {"name", "kind", "output_shape", "parameters", "multiply_adds"}
    assert json.loads(invoke("inspect", "comparative-resnet", *shape))["parameters"] == 417_834
    plain = json.loads(invoke("inspect", "comparative-resnet", "--set", "shortcut=none", "--set", "blocks=5", *shape))
    assert plain["parameters"] == 417_834
    hundred = json.loads(invoke("inspect", "cifar-resnet", "--classes", "100", "--json"))
    assert hundred["layers"][-1]["output_shape"] == [100]


def test_inspect_table() -> None:
    assert "417,834" in invoke("inspect", "comparative-resnet", "--input", "1x28x28")


def test_schema_accepts_the_demo_and_names_every_key() -> None:
    schema = json.loads(invoke("schema"))
    assert set(schema["properties"]) == set(StudySpec.model_fields)
    assert schema["additionalProperties"] is False


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "comparative-ccn"], "unknown network 'comparative-ccn'; did you mean 'comparative-cnn'?"),
        (["inspect", "comparative-cnn", "--set", "blocks=0"], "blocks: 0: input should be greater than or equal to 1"),
        (["inspect", "comparative-cnn", "--set", "blocks"], "--set 'blocks': expected KEY=VALUE"),
        (["inspect", "comparative-cnn", "--input", "28x28"], "--input '28x28': expected channels x height x width"),
        (["inspect", "cifar-resnet", "--set", "depth=57"], "depth 57 is not 6n+2; nearest: 56, 62"),
        (["run", "demmo"], "unknown study 'demmo'; did you mean 'demo'?"),
        (["run", "none.yaml"], "none.yaml: no such file"),
        (["run", "a" * 5000], "File name too long"),
        (["run", "demo", "--set", "training.epochs=0"], "training.epochs: 0"),
        (["run", "demo", "--device", "tpu"], "device 'tpu': expected cpu, cuda, cuda:N or auto"),
        (["run", "demo", "--set", "data.train=5000", "--workers", "0"], "digits: 5000 training images asked for"),
        (["inspect", "cifar-resnet", "--figure", "a.gif"], "a.gif"),
        (["inspect", "cifar-resnet", "--weights", "none.pt"], "none.pt"),
        (["data", "check", "minst"], "unknown data set 'minst'; did you mean 'mnist'?"),
    ],
)
def test_mistakes_get_one_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in failing(capsys, monkeypatch, *arguments)


@pytest.mark.parametrize("command", ["verdict", "report"])
def test_nothing_run_yet(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str
) -> None:
    line = failing(capsys, monkeypatch, command, "demo", "--runs", str(tmp_path / "runs"))
    assert "there is none yet" in line
    assert not (tmp_path / "runs").exists()


def test_run_verdict_report_end_to_end(tmp_path: Path) -> None:
    runs = ["--runs", str(tmp_path / "runs")]
    tiny = ["--set", "training.epochs=1", "--set", "vary.blocks=[2]", "--set", "seeds=2", "--set", "data.train=100"]
    outcome = json.loads(invoke("run", "demo", *tiny, *runs, "--workers", "0", "--json"))
    assert outcome["complete"] and outcome["trials"] == {"finished": 4}
    found = json.loads(invoke("verdict", "demo", *runs, "--json"))
    assert set(found["arms"]) == {"plain[blocks=2]", "residual[blocks=2]"}
    arm = found["arms"]["plain[blocks=2]"]
    assert arm["n"] == 2 and arm["diverged"] == 0 and 0 <= arm["test_error"]["mean"] <= 100
    (contrast,) = found["contrasts"]
    assert {"a", "b", "metric", "n", "difference", "ci95", "p", "p_adjusted", "verdict"} <= set(contrast)
    other = found["arms"]["residual[blocks=2]"]
    assert contrast["difference"] == pytest.approx(other["test_error"]["mean"] - arm["test_error"]["mean"])
    assert "residual[blocks=2]" in invoke("verdict", "demo", *runs)
    printed = invoke("report", "demo", *runs, "--output", str(tmp_path / "report"))
    path = Path(printed.split("report: ", 1)[1].strip())
    assert path.read_text().lstrip().lower().startswith("<!doctype html>")

    with Store.open(tmp_path / "runs") as store:
        trial = store.trials_frame("demo")["trial"][0]
    about = invoke("probe", trial[:10], "lesion", "--images", "40", *runs)
    assert "Veit" in about and "stages.0.1" in about
    table = tmp_path / "noise.csv"
    assert "written: " in invoke("probe", trial[:10], "noise", "--images", "64", "--output", str(table), *runs)
    assert len(table.read_text().splitlines()) > 2

    folder = tmp_path / "exported"
    printed = invoke("export", trial[:10], *runs, "--output", str(folder), "--format", "onnx", "--format", "pt2")
    assert {file.name for file in folder.iterdir()} == {"model.safetensors", "model.json", "model.onnx", "model.pt2"}
    assert printed.count("written: ") == 4
    image = tmp_path / "four.png"
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(image)
    by_trial = json.loads(invoke("predict", trial[:10], str(image), *runs, "--json"))
    assert by_trial == json.loads(invoke("predict", str(folder), str(image), "--json"))
    assert len(by_trial[0]["classes"]) == 3 and sum(by_trial[0]["probabilities"]) <= 1
    assert str(image) in invoke("predict", str(folder), str(image), "--top", "1")


def test_every_probe_by_name_runs_on_a_stored_trial(tmp_path: Path) -> None:
    tiny = {"training.epochs": 1, "vary.blocks": [2], "seeds": 1, "data.train": 100}
    with Store.open(tmp_path) as store:
        store.register(load_study("demo", tiny))
        InProcess().run(Job("demo", tmp_path), lambda event: None)
        trial = store.trials_frame("demo")["trial"][1]
        for name, probe in PROBES.items():
            frame = probe_trial(store, trial, name, images=64)
            assert len(frame) and probe.about, name
            if name in ("landscape", "paths"):  # they draw
                assert frame.equals(probe_trial(store, trial, name, images=64)), name


def test_inspect_draws_and_checks_weights(tmp_path: Path) -> None:
    for suffix, magic in ((".svg", b"<svg"), (".png", b"\x89PNG"), (".pdf", b"%PDF")):
        file = tmp_path / f"network{suffix}"
        invoke("inspect", "cifar-resnet", "--figure", str(file))
        assert magic in file.read_bytes()[:200]
