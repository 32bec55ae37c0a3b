"""Predictions of runs that were trained elsewhere, example by example: read, matched with runs, and judged."""

import doctest
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest
from typer.testing import CliRunner

import leadline as ll
from leadline.analysis.verdict import analyze, headline
from leadline.analysis.verdict.wording.tables import contrast_values
from leadline.cli import app
from leadline.errors import DataError
from leadline.parts.metrics import Outputs, metrics
from leadline.specs import parse
from leadline.specs.study import StudySpec
from leadline.study.expand import ExpandedStudy, expand

IMAGES = 400
NAMES = np.array(["cat", "dog", "fox"])


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["compare", *map(str, arguments)])


def refused(*arguments: object) -> str:
    done = run(*arguments)
    assert done.exit_code == 1, done.output
    assert isinstance(done.exception, DataError) and len(done.exception.lines) == 1
    return str(done.exception)


def predictions(arms: Mapping[str, float], seeds: int = 4, examples: int = IMAGES) -> pd.DataFrame:
    """A row per arm, seed and example: hard examples that all arms often miss, and each arm's own error rate."""
    draw = np.random.default_rng(2)
    labels, hard = draw.integers(0, 3, examples), draw.random(examples) < 0.1
    parts = []
    for arm, rate in arms.items():
        for seed in range(seeds):
            wrong = draw.random(examples) < np.where(hard, 0.6, rate)
            predicted = np.where(wrong, (labels + 1) % 3, labels)
            columns = {"arm": arm, "seed": seed, "id": np.arange(examples), "label": labels, "prediction": predicted}
            parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


BOTH = {"plain": 0.08, "residual": 0.03}


# --- the verdict of a study, from its predictions alone


def a_study(**changes: Any) -> ExpandedStudy:
    arms = {"plain": {"network": "comparative-plain"}, "residual": {"network": "comparative-resnet"}}
    return expand(parse(StudySpec, {"name": "toy", "arms": arms, "contrasts": [["residual", "plain"]], **changes}))


@pytest.mark.parametrize("blocks", [[5], [2, 5]])
def test_the_verdict_of_a_studys_predictions_is_its_own(blocks: list[int]) -> None:
    study = a_study(seeds=4, vary={"blocks": blocks}, data={"test": IMAGES}, margin=0.7)
    trials, records, outputs, kept = [], [], {}, []
    frames = {number: predictions({arm: rate * number / 5 for arm, rate in BOTH.items()}) for number in blocks}
    for arm, trial in study.trials():
        frame = frames[int(arm.factors["blocks"])]
        rows = frame[(frame["arm"] == arm.base) & (frame["seed"] == trial.seed)]
        own = {"trial": trial.content_hash, "arm": arm.name, "base": arm.base, "seed": trial.seed}
        trials.append({**own, "state": "finished", "seconds": 1.0})
        error = 100 * float((rows["label"] != rows["prediction"]).mean())
        records.append({**own, "step": 1, "epoch": 1, "split": "final-test", "name": "error", "value": error})
        outputs[trial.content_hash] = Outputs(rows["label"].to_numpy(), rows["prediction"].to_numpy())
        kept.append(rows.assign(blocks=arm.factors["blocks"]))
    own_verdict = analyze(study, pd.DataFrame(trials), pd.DataFrame(records), outputs.items())
    found = ll.compare(predictions=pd.concat(kept), factor="blocks", margin=0.7).verdict.findings
    assert headline(found) == headline(own_verdict)
    for one, two in zip(own_verdict.contrasts, found.contrasts, strict=True):
        assert len(one.mcnemar) == 4 and one.images is not None
        assert contrast_values(one) == contrast_values(two)


def test_mcnemar_and_examples_by_hand() -> None:
    rows = [  # two seeds, five examples: example 3 is right in residual alone at both, 4 in plain alone at one
        ("plain", 0, "1 1 0 0 0"),
        ("plain", 1, "1 1 0 0 1"),
        ("residual", 0, "1 1 1 0 0"),
        ("residual", 1, "1 0 1 1 0"),
    ]
    frame = pd.DataFrame(
        [
            (arm, seed, f"image-{place}", "yes", "yes" if right == "1" else "no")
            for arm, seed, text in rows
            for place, right in enumerate(text.split(), start=1)
        ],
        columns=["model", "seed", "id", "label", "predicted"],
    )
    found = ll.compare(predictions=frame)
    assert found.arms["test_error_mean"].tolist() == [50.0, 40.0]
    tests = found.verdict.findings.contrasts[0].mcnemar
    assert [(one.a_only, one.b_only, one.p) for one in tests] == [(1, 0, 1.0), (2, 2, 1.0)]
    assert found.examples.values.tolist() == [
        ["residual", "plain", "image-3", "yes", 2, 2, 0],
        ["residual", "plain", "image-2", "yes", 2, 1, 2],
        ["residual", "plain", "image-4", "yes", 2, 1, 0],
        ["residual", "plain", "image-5", "yes", 2, 0, 1],
    ]
    assert re.search(r"residual +plain +2 +1 +5 +image-3 \(yes\) and image-4 \(yes\)", str(found))
    assert re.search(r"plain +residual +2 +0 +5 +image-2 \(yes\) and image-5 \(yes\)", str(found))


def test_mcnemar_is_the_binomial_test_of_scipy() -> None:
    frame = predictions(BOTH, seeds=2)
    right = frame.assign(right=frame["label"] == frame["prediction"]).pivot(
        index="id", columns=["arm", "seed"], values="right"
    )
    tests = ll.compare(predictions=frame).verdict.findings.contrasts[0].mcnemar
    for seed, one in enumerate(tests):
        first = int((right["residual", seed] & ~right["plain", seed]).sum())
        second = int((right["plain", seed] & ~right["residual", seed]).sum())
        assert (one.a_only, one.b_only) == (first, second)
        assert one.p == pytest.approx(binomtest(first, first + second).pvalue)


# --- files


def write_runs(frame: pd.DataFrame, folder: Path, ending: str) -> Path:
    """A file for each run, its rows in an order of their own."""
    folder.mkdir()
    for (arm, seed), rows in frame.groupby(["arm", "seed"]):
        own = rows[["id", "label", "prediction"]].sample(frac=1, random_state=seed)
        path = folder / f"{arm}_seed{seed}{ending}"
        if ending == ".npz":
            np.savez(path, **{name: np.array(own[name].tolist()) for name in own})
        elif ending == ".parquet":
            own.to_parquet(path)
        else:
            own.to_csv(path, index=False, sep="\t" if ending == ".tsv" else ",")
    return folder


@pytest.mark.parametrize("names", [False, True])
def test_every_format_gives_the_same(tmp_path: Path, names: bool) -> None:
    frame = predictions(BOTH, seeds=3, examples=60)
    if names:
        frame = frame.assign(label=NAMES[frame["label"]], prediction=NAMES[frame["prediction"]])
    expected = ll.compare(predictions=frame, margin=0.5)
    for ending in (".csv", ".tsv", ".npz", ".parquet"):
        if ending == ".parquet":
            pytest.importorskip("pyarrow")
        found = ll.compare(predictions=write_runs(frame, tmp_path / ending[1:], ending), margin=0.5)
        assert found.to_json()["contrasts"] == expected.to_json()["contrasts"], ending
        assert found.examples.equals(expected.examples)
    frame.to_csv(tmp_path / "all.csv", index=False)
    assert (
        ll.compare(predictions=tmp_path / "all.csv", margin=0.5).to_json()["contrasts"]
        == (expected.to_json()["contrasts"])
    )


def test_leadlines_own_frame_of_predictions_is_read(tmp_path: Path) -> None:
    study = ll.Study(
        "mine",
        arms={"one": ll.networks.mlp(width=8), "two": ll.networks.mlp(width=16)},
        data={"name": "digits", "train": 60, "validation": 20, "test": 50},
        training={"epochs": 1},
        seeds=2,
    )
    results = study.run(tmp_path / "runs", workers=0, progress=False)
    found = ll.compare(predictions=results.predictions)
    means = {arm.name: arm.metrics["test_error"].mean for arm in results.verdict().findings.arms}
    assert {arm.name: arm.metrics["test_error"].mean for arm in found.verdict.findings.arms} == pytest.approx(means)


def test_names_of_runs_follow_a_pattern(tmp_path: Path) -> None:
    folder = write_runs(predictions(BOTH, examples=30), tmp_path / "runs", ".csv")
    for path in list(folder.iterdir()):
        arm, seed = path.stem.split("_seed")
        path.rename(folder / f"{seed}-of-{arm}.csv")
    assert "which column names the arms?" in refused("--predictions", folder)
    done = run("--predictions", folder, "--pattern", "{seed}-of-{arm}")
    assert done.exit_code == 0 and "Compared: residual against plain." in done.output


def test_rows_without_names_of_examples_are_in_one_order(tmp_path: Path) -> None:
    frame = predictions(BOTH, examples=30)
    found = ll.compare(predictions=frame.drop(columns="id"))
    assert any("rows are taken to be in the same order in every run" in line for line in found.reading)
    assert found.to_json()["contrasts"] == ll.compare(predictions=frame).to_json()["contrasts"]


def test_files_that_are_not_read_are_named(tmp_path: Path) -> None:
    folder = write_runs(predictions(BOTH, examples=30), tmp_path / "runs", ".csv")
    (folder / "notes.md").write_text("")
    assert "Not read: notes.md." in run("--predictions", folder).output


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,label,prediction\n1,0,0\n1,1,1\n", "id 1 stands twice"),
        ("id,label,prediction\n1,cat,0\n2,dog,1\n", "classes are names in column 'label' and numbers in 'prediction'"),
        ("id,label,prediction\n1,0,0.3\n2,1,1\n", "column 'prediction' has 0.3; expected classes"),
        ("id,label,prediction\n1,0,1\n2,1,\n", "column 'prediction' is empty in row 2"),
        ("id,label,prediction\n", "has no rows"),
        ("epoch,loss\n1,0\n", "expected columns id, label and prediction"),
        ("\0", "is not text"),
    ],
)
def test_bad_files(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "plain_s0.csv").write_text(text)
    said = refused("--predictions", tmp_path)
    assert message in said and str(tmp_path / "plain_s0.csv") in said


def test_errors_computed_from_predictions_are_known_to_be_in_per_cent() -> None:
    wrong = {("a", 0): 1, ("a", 1): 180, ("b", 0): 2, ("b", 1): 150}  # of 200: errors on both sides of 1% in one arm
    rows = [
        {"model": model, "seed": seed, "index": index, "label": 0, "predicted": int(index < number)}
        for (model, seed), number in wrong.items()
        for index in range(200)
    ]
    found = ll.compare(predictions=pd.DataFrame(rows))
    assert found.arms["test_error_mean"].tolist() == pytest.approx([45.25, 38.0])
    assert "taken to be in per cent" not in str(found)


def test_nothing_to_read(tmp_path: Path) -> None:
    assert "no such file or folder" in refused("--predictions", tmp_path / "none")
    assert "holds no CSV" in refused("--predictions", tmp_path)
    np.savez(tmp_path / "plain_s0.npz", id=np.arange(3), label=np.arange(3), prediction=np.zeros((3, 2)))
    assert "prediction [3, 2]" in refused("--predictions", tmp_path)
    (tmp_path / "plain_s0.npz").write_bytes(b"PK\x03\x04")
    assert "cannot be read as npz" in refused("--predictions", tmp_path)
    np.savez(tmp_path / "plain_s0.npz", label=np.array([{}], dtype=object))
    assert "save text as an array of dtype str" in refused("--predictions", tmp_path)
    (tmp_path / "one.csv").write_text("id,label,prediction\n1,0,0\n")
    assert "no column tells runs apart" in refused("--predictions", tmp_path / "one.csv")
    assert "nothing to compare" in refused()


# --- pairs


def test_runs_of_a_pair_need_the_same_examples() -> None:
    frame = predictions(BOTH, examples=30)
    lacking = frame[(frame["arm"] != "residual") | (frame["seed"] != 1) | (frame["id"] != 7)]
    with pytest.raises(DataError, match="residual and plain did not predict the same examples at seed 1: the second"):
        ll.compare(predictions=lacking)
    other = frame.copy()
    other.loc[(other["arm"] == "plain") & (other["seed"] == 2) & (other["id"] == 5), "label"] += 1
    with pytest.raises(DataError, match="at seed 2: example 5 does not have the same class in both"):
        ll.compare(predictions=other)


def test_folds_have_examples_of_their_own() -> None:
    frame = predictions(BOTH, examples=100)
    label = frame["id"] % 3  # classes come alike in every fold, so that only names tell the examples apart
    wrong = frame["label"] != frame["prediction"]
    frame = frame.assign(label=label, prediction=np.where(wrong, (label + 1) % 3, label), id=frame["id"] * 10)
    folds = frame.assign(id=frame["id"] + frame["seed"]).rename(columns={"seed": "fold"})
    contrast = ll.compare(predictions=folds).verdict.findings.contrasts[0]
    assert len(contrast.mcnemar) == 4 and contrast.images is None
    assert ll.compare(predictions=frame).verdict.findings.contrasts[0].images is not None


# --- with a table of results


def test_a_failed_run_of_a_table_has_no_predictions(tmp_path: Path) -> None:
    frame = predictions(BOTH)
    lost = frame[(frame["arm"] != "plain") | (frame["seed"] != 3)]
    runs = frame[["arm", "seed"]].drop_duplicates().rename(columns={"arm": "model", "seed": "run_seed"})
    runs["accuracy"] = np.where((runs["model"] == "plain") & (runs["run_seed"] == 3), np.nan, 0.9)
    found = ll.compare(runs, predictions=lost)
    contrast = found.verdict.findings.contrasts[0]
    assert (contrast.metric, contrast.diverged_b, len(contrast.mcnemar)) == ("test_error", 1, 3)
    page = found.report(tmp_path)
    command = re.search(r'aria-label="Command">leadline compare (.*?)</pre>', page.read_text())
    assert command is not None
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        again = json.loads(run(*command[1].split(), "--json").output)
    assert again["contrasts"] == found.to_json()["contrasts"]
    assert again["examples"] == found.to_json()["examples"]


def test_predictions_and_table_must_be_of_the_same_runs() -> None:
    frame = predictions(BOTH)
    runs = frame[["arm", "seed"]].drop_duplicates()
    with pytest.raises(DataError, match="there are none of arm plain, seed 3; if that run failed"):
        ll.compare(runs, predictions=frame[(frame["arm"] != "plain") | (frame["seed"] != 3)])
    with pytest.raises(DataError, match="the table has no run with arm residual, seed 3"):
        ll.compare(runs[:-1], predictions=frame)
    errors = frame.assign(wrong=frame["label"] != frame["prediction"]).groupby(["arm", "seed"])["wrong"].mean()
    table = (100 * errors).round(2).rename("test_error").reset_index()
    assert ll.compare(table, predictions=frame).examples.equals(ll.compare(predictions=frame).examples)
    table.loc[2, "test_error"] += 0.5
    with pytest.raises(DataError, match=r"test_error of plain at seed 2 is 16 in the table"):
        ll.compare(table, predictions=frame)


def test_other_metrics_follow_from_predictions() -> None:
    frame = predictions(BOTH)
    found = ll.compare(predictions=frame, value="macro_f1").verdict.findings
    assert [one.metric for one in found.contrasts] == ["macro_f1", "test_error"]
    rows = frame[(frame["arm"] == "plain") & (frame["seed"] == 0)]
    expected = metrics()["macro_f1"].value(Outputs(rows["label"].to_numpy(), rows["prediction"].to_numpy()))  # type: ignore[attr-defined]
    assert found.contrasts[0].values_b[0] == expected
    with pytest.raises(DataError, match="unknown column 'calibration_error'"):
        ll.compare(predictions=frame, value="calibration_error")


@pytest.mark.parametrize("module", ["leadline.analysis.runs.predictions", "leadline.analysis.runs.columns"])
def test_examples(module: str) -> None:
    assert doctest.testmod(sys.modules[module]).failed == 0


def test_what_is_no_class_or_no_column_is_said_or_left_out(tmp_path: Path) -> None:
    frame = predictions(BOTH, seeds=2)
    for wrong in (np.inf, 0.3):
        bad = frame.assign(prediction=frame["prediction"].astype(float).replace(2, wrong))
        with pytest.raises(DataError, match=f"'prediction' has {wrong}; expected classes; of probabilities, give"):
            ll.compare(predictions=bad)
    folder = tmp_path / "runs"
    folder.mkdir()
    for (arm, seed), rows in frame.groupby(["arm", "seed"]):
        columns = {name: rows[name].to_numpy() for name in ("label", "prediction")}
        np.savez(folder / f"{arm}_seed{seed}.npz", **columns, logits=np.zeros((len(rows), 3)), accuracy=np.array(0.9))
    found = ll.compare(predictions=folder).contrasts["difference"]
    assert found.tolist() == ll.compare(predictions=frame).contrasts["difference"].tolist()
    for place, path in enumerate(sorted(folder.iterdir())):
        path.rename(folder / f"x{place}.npz")
    assert "--pattern '{arm}_seed{seed}'" in refused("--predictions", folder)
