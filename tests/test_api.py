"""The way in: a study that runs itself, its results, and training alone, as a notebook uses them."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

import leadline as ll
from leadline.analysis.verdict import headline
from leadline.errors import LeadlineError, SpecError, StoreError

DATA = {"name": "digits", "train": 100, "test": 50}


def tiny(**keys: object) -> ll.Study:
    given = {"data": DATA, "training": {"epochs": 1, "batch_size": 50}, "seeds": 2}
    arms = {"plain": ll.networks.comparative_plain(blocks=1), "residual": "comparative-resnet"}
    return ll.Study("tiny", **{"arms": arms, **given, **keys})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> ll.Results:
    return tiny().run(tmp_path_factory.mktemp("runs"), workers=0, progress=False)


def documented_columns(docstring: str | None) -> list[str]:
    text = (docstring or "").partition("Columns:")[2]
    text = re.sub(r"\([^)]*\)", "", text)
    return [name for part in text.replace(".", "").split(",") for name in re.split(r"\band\b", part.strip()) if name]


def test_specifications_names_and_mappings_make_the_same_study() -> None:
    one = tiny(arms={"a": ll.networks.mlp(hidden=2), "b": {"network": {"family": "mlp", "hidden": 3}}})
    other = ll.Study.load(
        {
            "name": "tiny",
            "data": DATA,
            "training": {"epochs": 1, "batch_size": 50},
            "seeds": 2,
            "arms": {
                "a": {"network": {"family": "mlp", "hidden": 2}},
                "b": {"network": {"family": "mlp", "hidden": 3}},
            },
        }
    )
    hashes = [[trial.content_hash for _, trial in study.expanded.trials()] for study in (one, other)]
    assert hashes[0] == hashes[1]
    assert repr(one) == "Study('tiny': 2 arms, 4 trials)"


def test_a_loaded_study_takes_changes() -> None:
    study = ll.Study.load("demo", {"training.epochs": 3, "seeds": 1})
    assert {arm.trial.training.epochs for arm in study.expanded.arms} == {3}
    with pytest.raises(SpecError, match="unknown study 'dem'; did you mean 'demo'"):
        ll.Study.load("dem")
    with pytest.raises(SpecError, match="unknown key 'sedes'"):
        tiny(sedes=3)


def test_frames_have_the_columns_that_their_docstrings_list(results: ll.Results) -> None:
    for name in ("trials", "records", "predictions"):
        frame = getattr(results, name)
        assert isinstance(frame, pd.DataFrame) and len(frame)
        columns = documented_columns(getattr(ll.Results, name).__doc__)
        assert [column.split()[0] for column in columns] == list(frame.columns), name


def test_predictions_are_those_of_the_network(results: ll.Results) -> None:
    frame = results.predictions
    own = frame[frame["arm"].eq("residual") & frame["seed"].eq(1)]
    network = results.network("residual", seed=1)
    data = ll.load_data(ll.DataSpec(**DATA))
    with torch.no_grad():
        images, labels = next(data.evaluation_batches("test", 50))
        probabilities = torch.softmax(network(images), 1)
    assert own["predicted"].tolist() == probabilities.argmax(1).tolist()
    assert own["label"].tolist() == labels.tolist()
    assert own["label_name"].tolist() == [str(number) for number in labels.tolist()]  # the names of digits
    assert own["predicted_name"].tolist() == [str(number) for number in own["predicted"]]
    np.testing.assert_allclose(own["probability"], probabilities.max(1).values.numpy(), atol=1e-3)
    error = 100 * float((own["label"] != own["predicted"]).mean())
    records = results.records
    final = records[records["split"].eq("final-test") & records["name"].eq("error")]
    assert final.loc[final["trial"].eq(own["trial"].iloc[0]), "value"].item() == pytest.approx(error)


def test_the_verdict_prints_in_words_and_displays_itself(results: ll.Results) -> None:
    verdict = results.verdict()
    first = headline(verdict.findings)[0]
    assert first.split()[0] in str(verdict) and str(verdict) == repr(verdict)
    assert verdict.contrasts["a"].tolist() == ["residual"] and verdict.arms["arm"].tolist() == ["plain", "residual"]
    shown = verdict._repr_html_()
    assert "<table>" in shown and "residual" in shown and "<script" not in shown
    assert verdict.to_json()["study"] == "tiny"


@pytest.mark.slow
def test_figures_are_charts_and_the_report_is_written(results: ll.Results, tmp_path: Path) -> None:
    figures = results.figures
    assert "accuracy-curves" in figures
    assert figures["accuracy-curves"].to_dict()["$schema"].startswith("https://vega.github.io/")
    written = results.report(tmp_path / "out")
    assert Path(written).read_text().startswith("<!doctype html>")


def test_running_again_trains_nothing(results: ll.Results) -> None:
    before = results.trials
    again = tiny().run(results._runs, workers=0, progress=False)
    pd.testing.assert_frame_equal(before[["trial", "started", "ended"]], again.trials[["trial", "started", "ended"]])
    assert again.outcome is not None and again.outcome.complete


def test_results_that_are_not_there_get_one_line(results: ll.Results, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist yet"):
        ll.Results.open("tiny", tmp_path / "nothing")
    with pytest.raises(StoreError, match="tiny"):
        ll.Results.open("tinny", results._runs)
    with pytest.raises(StoreError, match="unknown arm 'residul'; did you mean 'residual'"):
        results.network("residul")
    with pytest.raises(StoreError, match="arm residual has no seed 7; its seeds: 0 and 1"):
        results.network("residual", seed=7)


@pytest.mark.slow
def test_a_study_with_a_search_is_searched_first(tmp_path: Path) -> None:
    study = tiny(tune={"learning_rate": {"choice": [0.001, 0.1]}, "budget": 2}, seeds=1)
    results = study.run(tmp_path, workers=0, progress=False)
    assert results.verdict().findings.chosen is not None
    assert ll.Results.open("tiny.tuning", tmp_path).trials["state"].eq("finished").all()
    assert not hasattr(study.spec, "chosen") and "chosen" not in study.spec.model_dump(mode="json")["tune"]


@pytest.mark.slow
def test_a_plan_prints_and_displays_itself(tmp_path: Path, known_speed: dict[str, float]) -> None:
    planned = tiny().plan(tmp_path, workers=1, device="cpu")
    assert "4 trials" in str(planned) and planned._repr_html_().startswith("<pre>")
    assert planned.to_json()["study"] == "tiny"


def widths(classes: int, input_shape: tuple[int, int, int], width: int = 8) -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(int(np.prod(input_shape)), width), nn.ReLU(), nn.Linear(width, classes)
    )


@pytest.mark.slow
def test_custom_code_defined_here_runs_in_worker_processes_too(tmp_path: Path) -> None:
    def halves(classes: int, input_shape: tuple[int, int, int]) -> nn.Module:
        return widths(classes, input_shape, 4)

    study = tiny(arms={"wide": widths, "narrow": halves}, seeds=1)
    results = study.run(tmp_path, workers=1, progress=False)
    assert results.trials["state"].tolist() == ["finished", "finished"]
    codes = [trial.code for _, trial in study.expanded.trials()]
    assert codes == [{}, {}]  # what was asked for; what identifies the code is found by the run
    stored = ll.Results.open("tiny", tmp_path)
    with stored._store() as store:
        code = store.study("tiny").expand().resolved.code
    assert all(identity.startswith("sha256:") for used in code.values() for identity in used.values())
    assert set(code) == {"wide", "narrow"}


@pytest.mark.slow
def test_changed_code_is_trained_again_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import subprocess
    import sys

    (tmp_path / "study.yaml").write_text(
        """
name: own
data: {name: digits, train: 100, test: 50}
training: {epochs: 1, batch_size: 50}
arms: {own: {network: "mine:build"}, plain: {network: comparative-plain}}
vary: {}
seeds: 1
"""
    )
    source = (
        "from torch import nn\ndef build(classes):\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes{}))\n"
    )

    def run(more: str) -> str:
        (tmp_path / "mine.py").write_text(source.format(more))
        command = [sys.executable, "-m", "leadline", "run", "study.yaml", "--workers", "0", "--runs", "runs"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout + done.stderr

    first = run("")
    assert "has changed" not in first
    before = ll.Results.open("own", tmp_path / "runs").trials
    assert "has changed" not in run("")
    second = run(", bias=False")
    assert "mine:build has changed since 1 trial of own ended" in " ".join(second.split())
    after = ll.Results.open("own", tmp_path / "runs").trials
    assert after["trial"].iloc[1] == before["trial"].iloc[1] and after["trial"].iloc[0] != before["trial"].iloc[0]
    assert after["state"].eq("finished").all()
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
def test_training_alone_says_recipe_and_seed_once() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    before = module[1].weight.detach().clone()
    records = list(ll.train(module, DATA, {"epochs": 1, "batch_size": 50}, seed=3))
    assert records[-1].split == "final-test"
    assert not torch.equal(before, module[1].weight)
    one, other = (
        [
            record.value
            for record in ll.train("comparative-resnet", DATA, {"epochs": 1}, seed=3)
            if record.split != "time"
        ]
        for _ in range(2)
    )
    assert one == other
    with pytest.raises(LeadlineError, match="expected a specification, a family's name, a function or a module"):
        next(ll.train(3, DATA, {"epochs": 1}))
    with pytest.raises(LeadlineError, match="seed: -1: input should be greater than or equal to 0"):
        next(ll.train("mlp", DATA, {"epochs": 1}, seed=-1))
    with pytest.raises(LeadlineError, match=r"seed 1\.5: expected an integer"):
        next(ll.train("mlp", DATA, {"epochs": 1}, seed=1.5))  # type: ignore[arg-type]
    assert next(ll.train("mlp", DATA, {"epochs": 1}, seed=np.int64(3))).split == "train"  # type: ignore[arg-type]


@pytest.mark.slow
def test_code_that_is_defined_again_is_not_slipped_under_a_study(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"hidden": 2}

    def net(input_shape: tuple[int, int, int], classes: int) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, settings["hidden"]), nn.Linear(settings["hidden"], classes))

    study = tiny(arms={"own": net, "plain": "mlp"})
    settings["hidden"] = 3
    with pytest.raises(
        SpecError, match=r"net_\w+: it, or what it uses, has changed since this study was made; make it again"
    ):
        study.plan()
    with pytest.raises(SpecError, match="has changed since this study was made"):
        study.run(workers=0)


def test_wrong_types_get_one_line(results: ll.Results, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="arms: expected a mapping of name to network, got a list"):
        ll.Study("mine", arms=[ll.networks.mlp()])  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="expected a network from `load` or `from_trial`, got a "):
        ll.save(results.network("plain"), tmp_path)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_study_whose_code_is_gone_can_be_run_again_with_other_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    text = "def share(labels, predicted):\n    return 100.0 * float((labels != predicted).mean())\n"
    said = []
    for name in ("gone_metric", "kept_metric"):
        (tmp_path / f"{name}.py").write_text(text)
        contrast = {"a": "plain", "b": "residual", "metric": {"module": f"{name}:share"}}
        study = tiny(contrasts=[contrast], training={"epochs": 1, "batch_size": 50}, seeds=1)
        results = study.run(tmp_path / "runs", workers=0, progress=False)
        said.append(str(results.verdict()))
        (tmp_path / f"{name}.py").unlink()
        if name == "gone_metric":
            sys.modules.pop(name)
    assert "share" in said[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "call", ["study.run(workers=1)", "study.run(workers=0, devices=2)", "study.plan(workers=2, time=True)"]
)
def test_a_script_without_a_guard_ends_with_one_line_before_anything_runs(tmp_path: Path, call: str) -> None:
    done = run_script(tmp_path, f"{call}\n")
    assert done.returncode == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert "script.py:3: this starts processes" in line and '`if __name__ == "__main__":`, or use ' in line
    assert [path.name for path in tmp_path.iterdir()] == ["script.py"]


@pytest.mark.slow
def test_a_script_whose_condition_is_no_guard_gets_one_line(tmp_path: Path) -> None:
    body = "if True:\n  try:\n    study.run(workers=1)\n  except ll.LeadlineError as error:\n    print(error)\n"
    done = run_script(tmp_path, body)
    assert done.returncode == 0 and '`if __name__ == "__main__":`, or use workers=0' in done.stdout
    assert "Traceback" not in done.stderr and "bootstrapping" not in done.stderr


def run_script(folder: Path, body: str) -> subprocess.CompletedProcess[str]:
    script = folder / "script.py"
    script.write_text(
        "import leadline as ll\n"
        f"study = ll.Study('unguarded', data={DATA}, arms={{'a': 'mlp', 'b': 'comparative-plain'}}, seeds=1)\n{body}"
    )
    return subprocess.run([sys.executable, str(script)], cwd=folder, capture_output=True, text=True)
