"""The command line: quick start, JSON that other programs rely on, one-line errors."""

import functools
import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from leadline.api.probing import probe_trial, probe_trials
from leadline.cli import app, main
from leadline.probes.snapshots import PROBES, find_probe
from leadline.running.executors import InProcess
from leadline.running.job import Job
from leadline.specs.study import StudySpec
from leadline.store import Store
from leadline.study.load import load_study

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


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["list", "--json"], ["schema"]])
def test_quick_commands_import_nothing_heavy(arguments: list[str]) -> None:
    heavy = {"torch", "pandas", "scipy", "altair", "sqlalchemy"} | ({"rich"} if arguments != ["list"] else set())
    script = f"""
import sys
from leadline.cli import app
try:
    app({arguments!r}, standalone_mode=False)
except SystemExit:
    pass
found = {heavy!r} & set(sys.modules)
assert not found, found
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_list_json() -> None:
    listed = json.loads(invoke("list", "--json"))
    assert set(listed) == {"studies", "networks", "datasets"}
    assert {"demo", "comparative-mnist", "comparative-cifar10", "comparative-mnist-10k"} <= set(listed["studies"])
    assert listed["studies"]["comparative-cifar10"] == "CNN against ResNet on CIFAR-10"
    assert all(text for section in listed.values() for text in section.values())


def test_version() -> None:
    assert invoke("--version") == f"leadline {metadata.version('leadline')}\n"


def test_list_json_names_every_kind() -> None:
    listed = json.loads(invoke("list", "--json"))
    assert {"comparative-cnn", "comparative-resnet"} <= set(listed["networks"])
    assert {"digits", "mnist", "fashion-mnist", "kmnist", "cifar10", "cifar100"} <= set(listed["datasets"])


def test_list_for_people() -> None:
    text = invoke("list")
    assert "comparative-resnet" in text and "Identical residual blocks" in text


@pytest.mark.slow
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
        (
            ["run", "demo", "--set", "probes={flow: {layers: [stagse.*]}}", "--workers", "0"],
            "setting probes: arm plain[blocks=2]: probes.flow.layers: unknown layer 'stagse.*'",
        ),
        (["worker", "demo", "--checkpoint-every", "soon"], "--checkpoint-every 'soon': expected a time or steps"),
        (["run", "demo", "--device", "tpu"], "device 'tpu': expected cpu, cuda, cuda:N, mps or auto"),
        (["run", "demo", "--set", "data.train=5000", "--workers", "0"], "digits: 5000 training images requested"),
        (["inspect", "cifar-resnet", "--figure", "a.gif"], "a.gif"),
        (["inspect", "cifar-resnet", "--figure", "."], "figure .: is a folder, where a file is expected"),
        (["inspect", "cifar-resnet", "--weights", "none.pt"], "none.pt"),
        (["inspect", "cifar-resnet", "--weights", "."], "weights .: is a folder, where a file is expected"),
        (["run", "demo", "--workers", "0", "--runs", __file__], "test_cli.py: is a file, where a folder is expected"),
        (["data", "check", "mnist", "--data-dir", __file__], "test_cli.py: is a file, where a folder is expected"),
        (
            ["show", "demmo"],
            "`leadline run STUDY` creates it; or did you mean the ready study 'demo'?",
        ),
        (["run", "."], ".: is a folder, where a YAML file is expected"),
        (["verdict", "demo", "--store", "sqlite:///."], "is a folder, where a file is expected"),
        (["verdict", "demo", "--runs", __file__], f"{__file__} is a file, where a folder is expected"),
        (
            ["run", "demo", "--workers", "0", "--artifacts", __file__],
            "test_cli.py: is a file, where a folder is expected",
        ),
        (["data", "check", "minst"], "name: unknown name 'minst'; did you mean 'mnist'?"),
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
    assert "does not exist yet" in line
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
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
    assert 'id="why"' not in path.read_text()

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

    with closing(sqlite3.connect(tmp_path / "runs/leadline.db")) as database, database:
        database.execute("UPDATE trials SET state = 'waiting' WHERE id = 1")
    printed = invoke("report", "demo", *runs, "--output", str(tmp_path / "report"))
    assert printed.endswith("report.html\nProvisional: waiting for 1 of 4 trials.\n")


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[str]]:
    """A folder of runs with a plain and a residual trial of the demo, shrunk, and their hashes."""
    runs = tmp_path_factory.mktemp("runs")
    tiny = {"training.epochs": 1, "vary.blocks": [2], "seeds": 1, "data.train": 100, "probes": ["flow", "jacobian"]}
    with Store.open(runs) as store:
        store.register(load_study("demo", tiny))
        InProcess().run(Job("demo", runs), lambda event: None)
        return str(runs), list(store.trials_frame("demo")["trial"])


@pytest.mark.slow
def test_every_probe_by_name_runs_on_a_stored_trial(stored: tuple[str, list[str]]) -> None:
    runs, (_, trial) = stored
    with Store.open(Path(runs)) as store:
        for name in PROBES.members():
            probe = find_probe(name)
            frame = probe_trial(store, trial, probe, images=64)
            assert len(frame) and probe.about, name
            place = frame[["arm", "base", "seed", "epoch"]].drop_duplicates().to_numpy().tolist()
            assert place == [["residual[blocks=2]", "residual", 0, 1]]
            if name in ("landscape", "paths"):  # they draw
                assert frame.equals(probe_trial(store, trial, probe, images=64)), name
                assert not frame.equals(probe_trial(store, trial, probe, images=64, seed=1)), name


@pytest.mark.slow
def test_the_report_says_what_a_deeper_probe_shows(stored: tuple[str, list[str]], tmp_path: Path) -> None:
    printed = invoke("report", "demo", "--runs", stored[0], "--output", str(tmp_path / "report"))
    html = Path(printed.split("report: ", 1)[1].strip()).read_text()
    assert "dynamical isometry" in html and 'id="probe-jacobian"' in html and "The snapshot probes took" in html
    assert (tmp_path / "report/tables/probe-jacobian.csv").exists()


@pytest.mark.slow
def test_probe_draws_several_trials_in_one_figure(stored: tuple[str, list[str]], tmp_path: Path) -> None:
    runs, (plain, residual) = stored
    given = ["--runs", runs, "--images", "16"]
    beside = ["probe", plain[:9], "lesion", "--beside", residual[:9], *given]
    for suffix, magic in ((".svg", b"<svg"), (".png", b"\x89PNG"), (".pdf", b"%PDF"), (".html", b"<!DOCTYPE html>")):
        file = tmp_path / f"lesion{suffix}"
        assert invoke(*beside, "--figure", str(file)).split() == ["written:", str(file)]
        assert magic in file.read_bytes()[:200]
    file, table = tmp_path / "lesion.json", tmp_path / "lesion.csv"
    invoke(*beside, "--figure", str(file), "--output", str(table))
    drawn = json.loads(file.read_text())
    assert "plain" in str(drawn) and "residual" in str(drawn) and drawn["$schema"]
    assert {line.split(",")[0] for line in table.read_text().splitlines()} == {
        *("arm", "plain[blocks=2]", "residual[blocks=2]")
    }
    two = tmp_path / "paths.svg"
    assert invoke("probe", residual, "paths", *given, "--figure", str(two)).count("written:") == 2
    assert (tmp_path / "paths-2.svg").read_text().startswith("<svg")


def test_probe_at_initialisation_is_what_a_study_sees_before_the_first_step(stored: tuple[str, list[str]]) -> None:
    runs, (_, trial) = stored
    with Store.open(Path(runs)) as store:
        start = probe_trial(store, trial, find_probe("decomposition"), images=8, at_initialisation=True)
        trained = probe_trial(store, trial, find_probe("decomposition"), images=8)
        assert set(start["epoch"]) == {0} and not start["value"].equals(trained["value"])
        assert [epoch for epoch, _ in store.measurements("demo", "jacobian")[trial]] == [0, 1]


def test_trials_of_one_arm_and_seed_are_told_apart_by_their_hashes(tmp_path: Path) -> None:
    tiny = {"vary.blocks": [1], "seeds": 2, "data.train": 100}
    with Store.open(tmp_path) as store:
        hashes = []
        for name, epochs in (("one", 1), ("other", 2)):
            store.register(load_study("demo", {**tiny, "name": name, "training.epochs": epochs}))
            hashes += list(store.trials_frame(name).query("base == 'plain'")["trial"])
        measure = functools.partial(probe_trials, store, probe=find_probe("lesion"), images=8, at_initialisation=True)
        of_seeds = measure(hashes[:2])
        assert list(of_seeds["arm"].unique()) == ["plain[blocks=1]"] and list(of_seeds["seed"].unique()) == [0, 1]
        # each as it was drawn from its own seed
        start = probe_trials(store, hashes[:2], find_probe("landscape"), 8, at_initialisation=True)
        assert start.query("x == 0")["loss"].nunique() == 2
        of_studies = measure([hashes[0], hashes[2]])
        assert list(of_studies["arm"].unique()) == [hashes[0][:10], hashes[2][:10]]
        assert (of_studies["arm"] == of_studies["base"]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{plain}", "leson"], "unknown probe 'leson'; did you mean 'lesion'?"),
        (["{plain}", "lesion", "--beside", "{plain}"], "is given twice"),
        (["{plain}", "lesion", "--beside", "zz"], "no trial's hash begins with 'zz'"),
        (["{plain}", "paths", "--figure", "a.svg"], "no block has a shortcut"),
        (["{plain}", "lesion", "--figure", "a.gif"], "suffix '.gif' is not one of .svg, .pdf"),
        (["{plain}", "lesion", "--figure", "no/a.svg"], "folder no does not exist"),
        (["{plain}", "cka", "--images", "2"], "2 images: expected at least 4"),
    ],
)
def test_mistakes_in_probing_get_one_line(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    stored: tuple[str, list[str]],
    tmp_path: Path,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    given = [argument.format(plain=stored[1][0]) for argument in arguments]
    assert message in failing(capsys, monkeypatch, "probe", *given, "--runs", stored[0])
    assert not list(tmp_path.glob("*.*"))


@pytest.mark.slow
def test_inspect_draws_and_checks_weights(tmp_path: Path) -> None:
    for suffix, magic in ((".svg", b"<svg"), (".png", b"\x89PNG"), (".pdf", b"%PDF")):
        file = tmp_path / f"network{suffix}"
        invoke("inspect", "cifar-resnet", "--figure", str(file))
        assert magic in file.read_bytes()[:200]
    from safetensors.torch import save_file

    from leadline.networks import family
    from leadline.networks.modules import build

    tensors = build(family("cifar-resnet", {}), (3, 32, 32), 10).state_dict()
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "fits.safetensors")
    said = invoke("inspect", "cifar-resnet", "--weights", str(tmp_path / "fits.safetensors"))
    assert f"all {len(tensors)} tensors of this safetensors file fit, under the names of the network" in said
