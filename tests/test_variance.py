"""Where the spread between seeds comes from: the study that tells, what it shows, and the command."""

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import leadline as ll
from leadline.analysis.variance import analyze_variance, spread_sentence, variance_notes
from leadline.cli import app
from leadline.errors import LeadlineError, SpecError
from leadline.parts.metrics import Outputs
from leadline.study.expand import ExpandedStudy
from leadline.study.load import load_study
from leadline.study.variance import variance_study

SMALL: dict[str, Any] = {
    "name": "small",
    "data": {"name": "digits", "train": 100, "test": 60},
    "training": {"epochs": 4, "batch_size": 20, "optimizer": {"name": "adam", "learning_rate": 0.01}},
    "arms": {"narrow": {"network": {"family": "mlp", "width": 32}}, "wide": {"network": "mlp"}},
    "seeds": 2,
}


def test_the_study_varies_every_source_that_its_arms_draw_from() -> None:
    study = variance_study(load_study("variance"), levels=5)
    assert study.name == "variance.variance"
    assert len(list(study.trials())) == 50
    seeds = [trial.seeds for arm, trial in study.trials() if arm.name == "plain"]
    assert [list(one) for one in seeds] == [["init", "order", "augment", "noise", "split"]] * 25
    for one, other in itertools.combinations(seeds[0], 2):
        assert {(seed[one], seed[other]) for seed in seeds} == set(itertools.product(range(5), repeat=2))
    assert [(pair.a, pair.b) for pair in study.contrasts] == [("residual", "plain")]


def test_what_the_arms_do_not_draw_is_not_varied_and_images_are_resampled() -> None:
    study = variance_study(load_study({**SMALL, "probes": ["lesion"]}), "wide", 3)
    assert [arm.name for arm in study.arms] == ["wide"]
    assert study.contrasts == ()
    trial = next(trial for _, trial in study.trials())
    assert list(trial.seeds) == ["init", "order", "split"]
    assert trial.data.resample == "bootstrap"
    assert not trial.probes.snapshots()
    as_split = load_study({**SMALL, "data": {"name": "digits", "resample": "split"}})
    assert variance_study(as_split, levels=3).arms[0].trial.data.resample == "split"


@pytest.mark.parametrize(
    ("keys", "arm", "levels", "said"),
    [
        ({}, "broad", 5, "unknown arm 'broad'"),
        ({}, None, 4, "levels are 3, 5, 7"),
        ({"data": {"name": "digits", "augment": {"pad": 1}}}, None, 3, "at least as many as sources"),
        ({"tune": {"learning_rate": {"log": [0.1, 1]}, "budget": 2}}, None, 5, "needs settings that are known"),
    ],
)
def test_studies_of_which_there_is_none(keys: dict[str, Any], arm: str | None, levels: int, said: str) -> None:
    with pytest.raises(LeadlineError, match=said):
        variance_study(load_study({**SMALL, **keys}), arm, levels)


def made_up(study: ExpandedStudy, sds: dict[str, float]) -> tuple[pd.DataFrame, dict[str, Outputs]]:
    """Trials that err on a number of 400 images which their seeds decide; the same images err first."""
    draw = np.random.default_rng(5)
    effects = {source: draw.permutation(np.linspace(-1.5, 1.5, 7)) * sd for source, sd in sds.items()}
    rows, outputs = [], {}
    for arm, trial in study.trials():
        size = 100 + sum(effects[source][seed] for source, seed in trial.seeds.items() if source in effects)
        wrong = np.arange(400) < round(size + draw.normal() * sds["rest"])
        rows.append({"trial": trial.content_hash, "arm": arm.name, "seed": trial.seed_name, "state": "finished"})
        outputs[trial.content_hash] = Outputs(np.zeros(400, np.int16), wrong.astype(np.int16))
    return pd.DataFrame(rows), outputs


def test_the_larger_part_is_named_only_where_its_interval_shows_it() -> None:
    study = variance_study(load_study(SMALL), "wide", 7)
    clear = analyze_variance(study, *made_up(study, {"init": 30, "order": 3, "rest": 2}))
    assert clear is not None
    (spread,) = clear.spreads
    shares = {one.name: one for one in spread.components}
    assert list(shares) == ["initial weights", "order", "choice of images", "test images", ""]
    assert shares["initial weights"].share > 0.8
    assert sum(one.share for one in spread.components) == pytest.approx(1)
    assert "most of it from initial weights" in spread_sentence(spread)
    assert f"{shares['initial weights'].low:.0%} to {shares['initial weights'].high:.0%}" in spread_sentence(spread)
    # 3/4 x 1/4 of 100^2 / 400 if all trainings erred on the same 100 images, and less as some err on more
    assert 3 < shares["test images"].variance < 4.7
    even = analyze_variance(study, *made_up(study, {"init": 10, "order": 10, "rest": 10}))
    assert even is not None
    assert "what most of it comes from is open" in spread_sentence(even.spreads[0])
    assert "No arm draws augmentation and noise in the network" in " ".join(variance_notes(even))
    assert "which training labels are wrong" not in " ".join(variance_notes(even))
    wrong = variance_study(load_study({**SMALL, "data": {**SMALL["data"], "label_noise": 0.2}}), "wide", 7)
    mislabelled = analyze_variance(wrong, *made_up(wrong, {"init": 10, "order": 10, "rest": 10}))
    assert mislabelled is not None
    assert "The choice of images includes which training labels are wrong" in " ".join(variance_notes(mislabelled))


def test_arms_with_trials_missing_are_left_out() -> None:
    study = variance_study(load_study(SMALL), levels=3)
    trials, outputs = made_up(study, {"init": 30, "order": 3, "rest": 2})
    found = analyze_variance(study, trials, outputs)
    assert found is not None
    assert [one.subject for one in found.spreads] == ["narrow", "wide", "wide − narrow"]
    trials.loc[trials["arm"].eq("wide").idxmax(), "state"] = "diverged"
    found = analyze_variance(study, trials, outputs)
    assert found is not None
    assert [one.subject for one in found.spreads] == ["narrow"]
    assert analyze_variance(study, trials.assign(state="waiting"), outputs) is None
    assert analyze_variance(load_study(SMALL), trials, outputs) is None


def test_the_command_runs_continues_draws_and_repeats_a_training(tmp_path: Path) -> None:
    file, runs = tmp_path / "small.json", tmp_path / "runs"
    file.write_text(json.dumps(SMALL))

    def variance(*options: str) -> str:
        place = ["--arm", "wide", "--levels", "3", "--workers", "0", "--runs", str(runs)]
        result = CliRunner().invoke(app, ["variance", str(file), *place, *options], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    found = json.loads(variance("--json", "--figure", str(tmp_path / "shares.svg")))
    assert found["repeated"] is True
    assert found["spreads"][0]["trainings"] == 9
    assert "initial weights" in (tmp_path / "shares.svg").read_text()
    ended = ll.Results.open("small.variance", runs).trials["ended"].tolist()
    text = variance()
    assert found["spreads"][0]["sentence"] in text
    assert "came to the same results to the bit" in text
    results = ll.Results.open("small.variance", runs)
    assert results.trials["ended"].tolist() == ended
    page = Path(results.report(tmp_path / "report")).read_text()
    assert "Where the spread between seeds comes from" in page
    assert found["spreads"][0]["sentence"] in page


def test_in_python_it_is_a_frame(tmp_path: Path) -> None:
    study = ll.Study.load({**SMALL, "training": {**SMALL["training"], "epochs": 1}})
    shown = study.variance("narrow", 3, tmp_path, workers=0, progress=False)
    assert shown.frame["subject"].eq("narrow").all()
    assert shown.frame["share"].sum() == pytest.approx(1)
    assert "narrow: standard deviation" in str(shown)
    with pytest.raises(SpecError, match="unknown arm"):
        study.variance("none", runs=tmp_path)
