"""A study that would take results away from the one of its name is refused, or that one keeps them under another."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from leadline.api import Results, Study
from leadline.cli import app
from leadline.errors import SpecError
from leadline.store import Store

ARMS = {"plain": "comparative-plain", "residual": "comparative-resnet"}


def tiny(**changes: Any) -> Study:
    keys: dict[str, Any] = {
        "data": {"name": "digits", "train": 40, "validation": 20, "test": 20},
        "training": {"epochs": 1, "batch_size": 20},
        "seeds": 2,
    }
    return Study("tiny", arms=ARMS, **(keys | changes))


def test_results_are_not_taken_away_unless_one_says_so(tmp_path: Path) -> None:
    first = tiny().run(tmp_path, workers=0, progress=False)
    before = first.trials
    with pytest.raises(SpecError, match=r"4 of the 4 trials .* \(training.epochs: 1 before, 2 now\)") as error:
        tiny(training={"epochs": 2, "batch_size": 20}).run(tmp_path, workers=0, progress=False)
    assert "--as NAME" in str(error.value) and "--replace" in str(error.value)
    assert Results.open("tiny", tmp_path).trials.equals(before)
    with pytest.raises(SpecError, match=r"2 of the 4 trials .* \(seeds: 2 before, 1 now\)"):
        tiny(seeds=1).run(tmp_path, workers=0, progress=False)
    # what only adds, or only asks otherwise, continues
    more = tiny(seeds=3, margin=1.0, title="Tiny").run(tmp_path, workers=0, progress=False)
    assert len(more.trials) == 6 and set(before["trial"]) < set(more.trials["trial"])


def test_a_replaced_study_keeps_its_results_under_another_name(tmp_path: Path) -> None:
    before = tiny().run(tmp_path, workers=0, progress=False).trials
    other = tiny(training={"epochs": 2, "batch_size": 20}).run(tmp_path, workers=0, progress=False, replace=True)
    assert len(other.trials) == 4 and set(other.trials["trial"]).isdisjoint(before["trial"])
    assert Results.open("tiny.1", tmp_path).trials.equals(before)
    tiny().run(tmp_path, workers=0, progress=False, replace=True)
    with Store.open_existing(tmp_path) as store:
        assert [one.name for one in store.studies()] == ["tiny.1", "tiny.2", "tiny"]


def test_the_command_line_refuses_and_names_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = "name: tiny\narms:\n  a: {network: comparative-plain}\ndata: {name: digits, train: 40, test: 20}\nseeds: 1\n"
    Path("tiny.yaml").write_text(text + "training: {epochs: 1}\n")
    run = ["run", "tiny.yaml", "--workers", "0"]
    assert CliRunner().invoke(app, run).exit_code == 0
    changed = [*run, "--set", "training.epochs=2"]
    refused = CliRunner().invoke(app, changed)
    assert refused.exit_code != 0 and isinstance(refused.exception, SpecError)
    assert CliRunner().invoke(app, [*changed, "--as", "longer"]).exit_code == 0
    replaced = CliRunner().invoke(app, [*changed, "--replace"])
    assert replaced.exit_code == 0 and "The earlier study tiny is kept as tiny.1" in replaced.output
    assert CliRunner().invoke(app, [*run, "--replace"]).exit_code == 0


def test_tuned_studies_are_compared_by_what_their_search_depends_on(tmp_path: Path) -> None:
    tune = {"budget": 2, "learning_rate": {"log": [0.01, 0.1]}}
    tiny(tune=tune).run(tmp_path, workers=0, progress=False)
    assert tiny(tune=tune, margin=0.2).run(tmp_path, workers=0, progress=False).outcome is not None
    with pytest.raises(SpecError, match=r"tune\.budget: 2 before, 3 now"):
        tiny(tune=tune | {"budget": 3}).run(tmp_path, workers=0, progress=False)


def test_a_study_with_decide_continues_with_the_seeds_that_it_has(tmp_path: Path) -> None:
    decide = {"max_seeds": 4, "first": 3, "step": 1}
    first = tiny(seeds=4, decide=decide).run(tmp_path, workers=0, progress=False)
    again = tiny(seeds=6, decide=decide | {"max_seeds": 6}).run(tmp_path, workers=0, progress=False)
    assert set(first.trials["trial"]) <= set(again.trials["trial"])
