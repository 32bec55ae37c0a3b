"""What other programs log while they train: files that they wrote, as tables of runs, whole and damaged."""

import json
import shutil
import sqlite3
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import leadline as ll
from leadline.analysis.runs import readers
from leadline.analysis.runs.names import fill_from_names
from leadline.cli import app
from leadline.errors import DataError, LeadlineWarning

FIXTURES = Path(__file__).parent / "fixtures" / "runs"
ARMS, SEEDS, EPOCHS = ["plain", "resnet20"], range(3), range(3)

PACKAGES = {"wandb": "wandb", "tensorboard": "tensorboard", "optuna.db": "optuna"}
"""What the format is read with, where that is not part of Leadline."""

LOGS = {
    "lightning": "val_acc",
    "keras/csv": "val_acc",
    "keras/json": "val_acc",
    "huggingface": "eval_accuracy",
    "wandb": "val/acc",
    "mlflow/mlruns": "val/acc",
    "mlflow.db": "val/acc",
    "tensorboard": "acc/val",
    "optuna.db": "val_acc",
}
"""Folder or database -> the name of the validation accuracy in it."""


def accuracy(arm: str, seed: int, epoch: int) -> float:
    """What every program logged; see fixtures/runs/make.py."""
    return 0.5 + epoch / 16 + (arm == "resnet20") / 32 + [0, 3, 1][seed] / 64 + (arm == "plain") * seed / 256


def logs(name: str, folder: Path) -> Path:
    """Return a copy of what a program wrote."""
    if name in PACKAGES:
        pytest.importorskip(PACKAGES[name], reason=f"{PACKAGES[name]} is not installed")
    path = folder / name
    if name.endswith(".db"):
        tool = path.stem
        connection = sqlite3.connect(path)
        connection.executescript((FIXTURES / tool / f"{tool}.sql").read_text())
        connection.close()
    else:
        shutil.copytree(FIXTURES / name, path)
    return path


def read_runs(path: Path) -> pd.DataFrame:
    return readers.read_runs(path)[0]


def refused(path: Path) -> str:
    with pytest.raises(DataError) as error:
        read_runs(path)
    assert len(error.value.lines) == 1
    return str(error.value)


def left_out(path: Path) -> str:
    """Return the warning of the run that is left out."""
    with pytest.warns(LeadlineWarning) as said:
        frame = read_runs(path)
    assert frame["run"].nunique() == len(ARMS) * len(SEEDS) - 1
    (one,) = said
    return str(one.message)


# --- whole


@pytest.mark.parametrize("name", LOGS)
def test_every_number_is_read(name: str, tmp_path: Path) -> None:
    frame, _ = fill_from_names(read_runs(logs(name, tmp_path)))
    frame = frame.rename(columns={"model": "arm"})
    assert frame["run"].nunique() == len(ARMS) * len(SEEDS)
    for (arm, seed), own in frame.groupby(["arm", "seed"]):
        values = own[LOGS[name]].to_list()
        if name == "optuna.db":
            assert values == [accuracy(arm, seed, EPOCHS[-1])]
        else:
            assert values[: len(EPOCHS)] == [accuracy(arm, seed, epoch) for epoch in EPOCHS]
            assert own["epoch" if "epoch" in own else "step"].is_monotonic_increasing


@pytest.mark.parametrize("name", LOGS)
def test_the_verdict_is_that_of_a_plain_table(name: str, tmp_path: Path) -> None:
    rows = [(arm, seed, accuracy(arm, seed, EPOCHS[-1])) for arm in ARMS for seed in SEEDS]
    table = pd.DataFrame(rows, columns=["arm", "seed", LOGS[name]])
    found = ll.compare(logs(name, tmp_path), value=LOGS[name], baseline="plain", margin=0.05)
    plain = ll.compare(table, value=LOGS[name], baseline="plain", margin=0.05)
    pd.testing.assert_frame_equal(found.contrasts, plain.contrasts)


def test_a_metric_of_the_test_alone_is_in_the_last_row(tmp_path: Path) -> None:
    frame = read_runs(logs("lightning", tmp_path))
    last = frame.groupby("run").tail(1)
    assert last["epoch"].tolist() == [3] * 6
    assert last["test_acc"].tolist() == last["val_acc"].tolist()
    assert frame.groupby("run")["test_acc"].count().tolist() == [1] * 6
    assert len(ll.compare(tmp_path / "lightning", value="test_acc", arm="model").contrasts) == 1


def test_a_number_that_is_nan_at_the_end_is_a_failure(tmp_path: Path) -> None:
    path = logs("lightning", tmp_path)
    file = path / "plain_seed0" / "version_0" / "metrics.csv"
    file.write_text(file.read_text().replace(",0.625\n", ",nan\n"))
    found = ll.compare(path, value="val_acc", arm="model")
    assert any("plain at seed 0" in line and "diverged" in line for line in found.reading)
    history = logs("keras/json", tmp_path) / "plain_seed0.json"
    history.write_text(json.dumps({"val_acc": [0.5, 0.6, float("nan")]}))
    assert any("plain at seed 0" in line for line in ll.compare(history.parent, value="val_acc").reading)


def test_settings_of_python_objects_are_not_made(tmp_path: Path) -> None:
    path = logs("lightning", tmp_path)
    made = tmp_path / "made"
    (path / "plain_seed0" / "version_0" / "hparams.yaml").write_text(
        f"model: plain\nseed: 0\nact: !!python/name:torch.nn.ReLU ''\n"
        f"trap: !!python/object/apply:pathlib.Path.touch [!!python/object/apply:pathlib.Path ['{made}']]\n"
    )
    frame = read_runs(path)
    assert frame["act"].dropna().unique().tolist() == ["torch.nn.ReLU"]
    assert not made.exists()


def test_the_latest_checkpoint_is_read(tmp_path: Path) -> None:
    path = logs("huggingface", tmp_path)
    for file in path.glob("*/trainer_state.json"):
        file.unlink()
    assert read_runs(path).groupby("run")["step"].max().tolist() == [6] * 6
    for file in path.glob("*/checkpoint-6/trainer_state.json"):
        file.unlink()
    assert read_runs(path).groupby("run")["step"].max().tolist() == [4] * 6
    assert read_runs(path / "plain_seed0")["run"].unique().tolist() == ["plain_seed0"]


def test_what_else_a_folder_holds_is_said(tmp_path: Path) -> None:
    logs("lightning", tmp_path)
    logs("huggingface", tmp_path)
    _, said = readers.read_runs(tmp_path)
    assert "Read as a folder of Hugging Face's Trainer, not as a folder of Lightning's CSVLogger" in said[0]
    assert readers.read_runs(tmp_path / "lightning")[1] == ()


def test_event_files_of_training_and_validation_are_of_one_run(tmp_path: Path) -> None:
    path = logs("tensorboard", tmp_path)
    for arm in ARMS:
        for seed in SEEDS:
            run = path / f"{arm}_seed{seed}"
            for split in ("train", "validation"):
                shutil.copytree(FIXTURES / "tensorboard" / run.name, run / split)
            next(run.glob("events*")).unlink()
    frame = read_runs(path)
    assert list(frame.columns) == ["run", "step", "train/acc/val", "validation/acc/val"]
    assert frame["run"].nunique() == 6


def write_chart(path: Path, metric: str, cells: list[list[str]]) -> None:
    """Write what W&B exports of a chart: a line per step, three cells for each run: a value and its range."""
    series = [f"{arm}_seed{seed} - {metric}{part}" for arm in ARMS for seed in SEEDS for part in ("", "__MIN", "__MAX")]
    lines = [["Step", *series]]
    lines += [
        [str(step), *(cell for value in row for cell in (value, "-9", "9"))]
        for step, row in zip(EPOCHS, cells, strict=True)
    ]
    path.write_text("".join(",".join(f'"{cell}"' for cell in line) + "\n" for line in lines))


def change(path: Path, *statements: str) -> None:
    """Change an SQLite file."""
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def test_exports_of_wandb(tmp_path: Path) -> None:
    rows = [
        f'"{arm}-{seed}","finished","-","me","","2026-01-01T00:00:00Z","71","","{arm}","{seed}","{0.9 + seed / 100}"'
        for arm in ARMS
        for seed in SEEDS
    ]
    names = '"Name","State","Notes","User","Tags","Created","Runtime","Sweep","model","seed","val_acc"'
    (tmp_path / "runs.csv").write_text("\n".join([names, *rows]) + "\n")
    found = ll.compare(tmp_path / "runs.csv")
    assert found.contrasts[["a", "n", "metric"]].values.tolist() == [["resnet20", 3, "val_acc"]]
    runs = [(arm, seed) for arm in ARMS for seed in SEEDS]
    write_chart(tmp_path / "chart.csv", "val_acc", [[f"{accuracy(*run, step)}" for run in runs] for step in EPOCHS])
    found = ll.compare(tmp_path / "chart.csv", baseline="plain")
    assert found.arms["val_acc_mean"].tolist() == pytest.approx(
        [np.mean([accuracy(arm, seed, 2) for seed in SEEDS]) for arm in ARMS]
    )


def test_a_chart_of_wandb_that_ends_with_nan_is_of_a_failed_run(tmp_path: Path) -> None:
    cells = [[f"{1 + seed / 10}" for _ in ARMS for seed in SEEDS] for _ in EPOCHS]
    cells[-1][0], cells[list(EPOCHS).index(1)][1] = "NaN", ""
    write_chart(tmp_path / "chart.csv", "val_loss", cells)
    frame = read_runs(tmp_path / "chart.csv")
    assert len(frame) == len(ARMS) * len(SEEDS) * len(EPOCHS) - 1
    reading = " ".join(ll.compare(tmp_path / "chart.csv", baseline=ARMS[0]).reading)
    assert f"1 run has no number or failed, and counts as diverged, worse than any other: {ARMS[0]} at seed" in reading


def test_infinity_in_a_database_of_mlflow_is_infinity(tmp_path: Path) -> None:
    path = logs("mlflow.db", tmp_path)
    change(
        path,
        "UPDATE metrics SET value = 1.7976931348623157e308 WHERE step = 0 AND key = 'loss'",
        "UPDATE metrics SET value = -1.7976931348623157e308 WHERE step = 1 AND key = 'loss'",
    )
    frame = read_runs(path)
    assert (frame.loc[frame["step"] == 0, "loss"] == np.inf).all()
    assert (frame.loc[frame["step"] == 1, "loss"] == -np.inf).all()


def test_runs_of_mlflow_that_failed_or_go_on(tmp_path: Path) -> None:
    path = logs("mlflow.db", tmp_path)
    change(
        path,
        "UPDATE runs SET status = 'FAILED' WHERE name = 'plain_seed0'",
        "DELETE FROM metrics WHERE run_uuid = (SELECT run_uuid FROM runs WHERE name = 'plain_seed0')",
        "UPDATE runs SET status = 'RUNNING' WHERE name = 'plain_seed1'",
        "UPDATE runs SET lifecycle_stage = 'deleted' WHERE name = 'resnet20_seed2'",
        "UPDATE metrics SET value = 0, is_nan = 1 WHERE step = 0 AND key = 'loss'",
    )
    frame = read_runs(path)
    assert sorted(frame["run"].unique()) == [
        "plain_seed0",
        "plain_seed1",
        "plain_seed2",
        "resnet20_seed0",
        "resnet20_seed1",
    ]
    assert frame.loc[frame["step"] == 0, "loss"].isna().all()
    reading = "\n".join(ll.compare(path, arm="model", value="val/acc", unpaired=True).reading)
    assert "whose state is 'running'" in reading
    assert "plain at seed 0" in reading


def test_trials_of_optuna_that_failed(tmp_path: Path) -> None:
    path = logs("optuna.db", tmp_path)
    change(
        path,
        "UPDATE trials SET state = 'FAIL' WHERE number = 0",
        "UPDATE trials SET state = 'PRUNED' WHERE number = 1",
    )
    reading = "\n".join(ll.compare(path, arm="model", value="val_acc").reading)
    assert "whose state is 'pruned'" in reading
    assert "plain at seed 0" in reading


# --- damaged


def test_half_written_and_empty_logs_of_lightning(tmp_path: Path) -> None:
    path = logs("lightning", tmp_path)
    file = path / "plain_seed1" / "version_0" / "metrics.csv"
    file.write_text(file.read_text()[:-3])
    assert "1 run left out: plain_seed1/version_0 (its last line is half-written)" in left_out(path)
    file.write_text("")
    assert "plain_seed1/version_0 (empty)" in left_out(path)
    file.write_text("epoch,step,val_acc\n")
    assert "no metric was logged" in left_out(path)
    file.write_text("epoch,step,val_acc\n0,1,0.5\n1,2,0.5,7,8\n")
    assert "Expected 3 fields in line 3, saw 5" in left_out(path)
    file.write_bytes(b"\x00\x01\n")
    assert "is not text" in left_out(path)
    assert "no metric was logged" in str(refused_alone(path / "plain_seed1", "epoch,step,val_acc\n"))


def refused_alone(path: Path, content: str) -> str:
    (path / "version_0" / "metrics.csv").write_text(content)
    return refused(path)


@pytest.mark.parametrize(
    ("name", "file", "said"),
    [
        ("keras/csv", "plain_seed1.csv", "plain_seed1 (its last line is half-written)"),
        ("keras/json", "plain_seed1.json", "plain_seed1 (is half-written, or"),
        ("huggingface", "plain_seed1/trainer_state.json", "plain_seed1/trainer_state.json is half-written"),
        ("wandb", "wandb/*-8vphq4um/run-8vphq4um.wandb", "8vphq4um (its log is half-written)"),
        ("tensorboard", "plain_seed1/events*", "damaged or half-written"),
        ("mlflow/mlruns", "*/*/meta.yaml", "meta.yaml is half-written"),
        ("mlflow/mlruns", "*/*/metrics/val/acc", "metrics/val/acc is half-written"),
    ],
)
def test_half_written_logs(name: str, file: str, said: str, tmp_path: Path) -> None:
    path = logs(name, tmp_path)
    damaged = min(path.glob(file))
    content = damaged.read_bytes()
    damaged.write_bytes(content[: -4 if len(content) > 200 else -1])
    assert said in left_out(path)


def test_a_log_of_wandb_of_a_run_that_has_not_ended(tmp_path: Path) -> None:
    path = logs("wandb", tmp_path)
    file = min(path.rglob("*.wandb"))
    content = file.read_bytes()
    ends = []
    place = 7
    while place < len(content):
        place += 7 + struct.unpack_from("<H", content, place + 4)[0]
        ends.append(place)
    file.write_bytes(content[: ends[len(ends) // 2]])
    assert "has not ended, or was killed" in left_out(path)
    file.write_bytes(content[:100] + bytes([content[100] ^ 1]) + content[101:])
    assert "its log is damaged at byte" in left_out(path)
    file.write_bytes(b":W&B\xe1\xbe\x07" + content[7:])
    assert "unknown version" in left_out(path)


def test_event_files_of_another_version(tmp_path: Path) -> None:
    path = logs("tensorboard", tmp_path)
    file = min(path.glob("plain_seed1/*"))
    file.write_bytes(file.read_bytes().replace(b"brain.Event:2", b"brain.Event:3"))
    assert "is of version 'brain.Event:3'; expected 'brain.Event:2'" in left_out(path)


@pytest.mark.parametrize("name", ["mlflow.db", "optuna.db"])
def test_damaged_databases(name: str, tmp_path: Path) -> None:
    path = logs(name, tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[:8192])
    assert str(path) in refused(path)
    path.write_bytes(content[:10])
    assert "not a table of results" in refused(path)
    assert not list(tmp_path.glob("*-journal"))


def test_databases_of_other_versions(tmp_path: Path) -> None:
    path = logs("mlflow.db", tmp_path)
    change(
        path,
        "ALTER TABLE metrics RENAME COLUMN step TO at",
    )
    assert "of an unknown version of MLflow: table metrics has no column step" in refused(path)
    path = logs("optuna.db", tmp_path)
    change(
        path,
        "UPDATE version_info SET schema_version = 3",
        "UPDATE alembic_version SET version_num = 'v1.0.0'",
    )
    assert "cannot be read by optuna" in refused(path)


@pytest.mark.parametrize("name", ["wandb", "tensorboard", "optuna.db"])
def test_a_package_that_is_not_installed_is_named(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / name
    if name.endswith(".db"):
        path = logs(name, tmp_path)
    else:
        shutil.copytree(FIXTURES / name, path)
    blocked = {"wandb": "wandb.proto.wandb_internal_pb2", "tensorboard": "tensorboard.compat.proto.event_pb2"}
    monkeypatch.setitem(__import__("sys").modules, blocked.get(name, "optuna"), None)
    assert f"needs the package {PACKAGES[name]}, which is not installed" in refused(path)


# --- names of runs


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["plain_seed0", "resnet20_seed13"], [["plain", 0], ["resnet20", 13]]),
        (["plain-s1/version_0", "res-net-s2/version_0"], [["plain", 1], ["res-net", 2]]),
        (["plain/seed=1", "resnet/seed=2"], [["plain", 1], ["resnet", 2]]),
        (["a_fold1", "b-fold-2"], [["a", 1], ["b", 2]]),
        (["plain3", "resnets4"], None),
        (["plain_seed0", "other"], None),
    ],
)
def test_names_are_guessed_where_all_fit(names: list[str], found: list[list[Any]] | None) -> None:
    frame, said = fill_from_names(pd.DataFrame({"run": names}))
    if found is None:
        assert (list(frame.columns), said) == (["run"], ())
    else:
        assert frame[["arm", "seed"]].values.tolist() == found
        assert f"such as {names[0]}: arm {found[0][0]} and seed {found[0][1]}" in said[0]


def test_only_what_the_table_lacks_is_guessed() -> None:
    frame, said = fill_from_names(pd.DataFrame({"run": ["plain_seed0", "deep_seed1"], "seed": [7, 8]}))
    assert frame[["arm", "seed"]].values.tolist() == [["plain", 7], ["deep", 8]]
    assert "seed 7" not in said[0]


def test_patterns() -> None:
    runs = pd.DataFrame({"run": ["exp/resnet_x_seed3-lr0.1/version_0", "exp/plain_seed4-lr0.2/version_1"]})
    frame, _ = fill_from_names(runs, "{arm}_seed{seed}-lr{lr}")
    assert frame[["arm", "seed", "lr"]].values.tolist() == [["resnet_x", 3, "0.1"], ["plain", 4, "0.2"]]
    nested, _ = fill_from_names(runs, "{group}/{arm}_seed{seed}-lr{lr}")
    assert nested["group"].tolist() == ["exp", "exp"]
    for pattern, said in (
        ("{arm}__{seed}", "does not fit the run 'exp/resnet_x_seed3-lr0.1/version_0'"),
        ("arm", "expected fields with different names"),
        ("{arm}_{arm}", "expected fields with different names"),
    ):
        with pytest.raises(DataError, match="--pattern") as error:
            fill_from_names(runs, pattern)
        assert said in str(error.value)
    with pytest.raises(DataError, match=r"seed is 3 by the name of the run .*, and 5 in"):
        fill_from_names(runs.assign(seed=[5, 4]), "{arm}_seed{seed}-lr{lr}")
    with pytest.raises(DataError, match="no column run"):
        fill_from_names(pd.DataFrame({"a": [1]}), "{arm}")


def test_the_command_says_what_it_took_from_names(tmp_path: Path) -> None:
    path = logs("keras/csv", tmp_path)
    (path / "plain_seed2.csv").write_text("epoch,val_acc\n0,0.5")
    with pytest.warns(LeadlineWarning, match="plain_seed2"):
        shown = CliRunner().invoke(app, ["compare", str(path), "--value", "val_acc"])
    assert shown.exit_code == 0
    assert "Taken from the names of runs, such as plain_seed0: arm plain and seed 0" in shown.output
    assert "left out: resnet20 alone has seed 2" in shown.output


# --- large


def test_a_log_of_a_million_lines(tmp_path: Path) -> None:
    for arm in ARMS:
        folder = tmp_path / f"{arm}_seed0" / "version_0"
        folder.mkdir(parents=True)
        steps = np.arange(500_000)
        table = pd.DataFrame({"epoch": steps // 500, "step": steps, "train_loss": 1 / (1 + steps)})
        table.to_csv(folder / "metrics.csv", index=False)
    frame = read_runs(tmp_path)
    assert len(frame) == 2 * 1000
    assert frame["train_loss"].iloc[-1] == 1 / 500_000
