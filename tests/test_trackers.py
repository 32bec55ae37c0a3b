"""Studies in TensorBoard, W&B and MLflow: written by the real libraries, read back by them and by `compare`."""

import hashlib
import json
import math
import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import leadline as ll
from leadline.analysis.runs.readers import read_runs
from leadline.analysis.runs.readers.weights_and_biases import _records as parts_of
from leadline.cli import app
from leadline.errors import LeadlineError, SpecError
from leadline.reports import trackers
from leadline.reports.trackers import VERDICT_RUN, TrackedRun, Tracker, find_tracker
from leadline.running import logging

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of MLflow's tables in SQLAlchemy 2.1

PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}
PLACES = {"tensorboard": "tiny", "wandb": "wandb", "mlflow": "mlflow.db"}
"""What `compare` is given inside the folder."""

Read = tuple[dict[tuple[str, str], list[tuple[int, float]]], dict[str, dict[str, Any]], str]
"""(Run, metric) -> (epoch, value) in the order of the log; run -> its settings; the verdict."""


def tiny(name: str = "tiny") -> ll.Study:
    wild = {"network": "mlp", "training": {"optimizer": {"name": "sgd", "learning_rate": 1e25}}}
    return ll.Study(
        name,
        arms={"narrow": ll.networks.mlp(width=4), "wide": ll.networks.mlp(width=30), "wild": wild},
        data={"name": "digits", "train": 100, "validation": 50, "test": 100},
        training={"epochs": 3, "batch_size": 20},
        seeds=3,
        contrasts=[["wide", "narrow"], ["wild", "narrow"]],
        margin=2,
    )


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> ll.Results:
    return tiny().run(tmp_path_factory.mktemp("runs"), workers=0, progress=False)


@pytest.fixture(scope="module", params=PACKAGES)
def exported(
    request: pytest.FixtureRequest, results: ll.Results, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path]:
    pytest.importorskip(PACKAGES[request.param], reason=f"{request.param} is not installed")
    folder = tmp_path_factory.mktemp(request.param)
    found = results.export_runs(request.param, folder)
    assert (found.written, found.unchanged, found.waiting) == (9, 0, 0)
    return request.param, folder


# --- the libraries' own readers


def read_tensorboard(folder: Path) -> Read:
    from tensorboard.backend.event_processing.event_accumulator import SCALARS, EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData
    from tensorboard.util.tensor_util import make_ndarray

    values, settings, verdict = {}, {}, ""
    for place in (folder / "tiny").iterdir():
        events = EventAccumulator(str(place), size_guidance={SCALARS: 0}).Reload()
        if place.name == VERDICT_RUN:
            (text,) = events.Tensors("verdict")
            verdict = make_ndarray(text.tensor_proto).item().decode().removeprefix("```\n").removesuffix("\n```")
            continue
        for tag in events.Tags()["scalars"]:
            values[place.name, tag] = [(one.step, one.value) for one in events.Scalars(tag)]
        start = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        hparams = HParamsPluginData.FromString(start).session_start_info.hparams
        settings[place.name] = {name: getattr(one, one.WhichOneof("kind")) for name, one in hparams.items()}
    return values, settings, verdict


def read_wandb(folder: Path) -> Read:
    from wandb.proto.wandb_internal_pb2 import Record  # wandb has no reader of its own in Python any more

    values: dict[tuple[str, str], list[tuple[int, float]]] = {}
    settings, verdict = {}, ""
    for file in sorted(folder.glob("wandb/offline-run-*/run-*.wandb")):
        name, own = "", {}
        for content in parts_of(file.read_bytes()):
            record = Record.FromString(content)
            name = record.run.display_name or name
            for one in (*record.run.config.update, *record.config.update):
                own[one.key] = json.loads(one.value_json)
            for one in record.history.item:
                key = one.key or ".".join(one.nested_key)
                if not key.startswith("_"):
                    value = json.loads(one.value_json)
                    values.setdefault((name, key), []).append((record.history.step.num, float(value)))
            for one in record.summary.update:
                verdict = json.loads(one.value_json) if one.key == "verdict" else verdict
        if name != VERDICT_RUN:
            settings[name] = own
    return values, settings, verdict


def read_mlflow(folder: Path) -> Read:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("tiny")
    values, settings, verdict = {}, {}, ""
    for run in client.search_runs([experiment.experiment_id]):
        name = run.info.run_name
        if name == VERDICT_RUN:
            verdict = Path(client.download_artifacts(run.info.run_id, "verdict.txt")).read_text(encoding="utf-8")
            continue
        settings[name] = dict(run.data.params)
        for metric in run.data.metrics:
            history = client.get_metric_history(run.info.run_id, metric)
            values[name, metric] = [(one.step, one.value) for one in history]
    return values, settings, verdict


READERS: dict[str, Callable[[Path], Read]] = {
    "tensorboard": read_tensorboard,
    "wandb": read_wandb,
    "mlflow": read_mlflow,
}


def stored_points(results: ll.Results) -> dict[tuple[str, str], list[tuple[int, float]]]:
    final = {"error": "test_error", "loss": "test_loss", "balanced_error": "balanced_error", "macro_f1": "macro_f1"}
    final |= {"calibration_error": "calibration_error", "top5_error": "top5_error"}
    found: dict[tuple[str, str], list[tuple[int, float]]] = {}
    for row in results.records.itertuples():
        name = f"{row.split}/{row.name}"
        if row.split == "final-test":
            name = final.get(str(row.name), name)
        elif row.split.startswith("final-") and row.name == "error":
            name = f"{row.split.removeprefix('final-')}_error"
        found.setdefault((f"{row.arm}_seed{row.seed}", name), []).append((row.epoch, row.value))
    return found


def as_kept(tracker: str, values: dict[Any, list[tuple[int, float]]]) -> dict[Any, list[tuple[int, float]]]:
    """Values as a tracker keeps them: TensorBoard as float32."""
    if tracker != "tensorboard":
        return values
    return {key: [(epoch, float(np.float32(value))) for epoch, value in points] for key, points in values.items()}


def plain(values: dict[Any, list[tuple[int, float]]]) -> dict[Any, list[tuple[int, str]]]:
    return {key: [(epoch, repr(value)) for epoch, value in sorted(points)] for key, points in values.items()}


def test_values_settings_and_verdict_are_those_of_the_store(exported: tuple[str, Path], results: ll.Results) -> None:
    tracker, folder = exported
    values, settings, verdict = READERS[tracker](folder)
    assert plain(values) == plain(as_kept(tracker, stored_points(results)))
    assert verdict == str(results.verdict())
    assert len(settings) == 9
    own = settings["wide_seed1"]
    trial = results.trials.query("arm == 'wide' and seed == 1")["trial"].item()
    assert (own["study"], own["arm"], own["trial"], int(own["seed"])) == ("tiny", "wide", trial, 1)
    nested = own if tracker != "wandb" else {"training.optimizer.name": own["training"]["optimizer"]["name"]}
    assert nested["training.optimizer.name"] == "sgd"


def test_compare_gives_the_verdict_of_the_study(exported: tuple[str, Path], results: ll.Results) -> None:
    tracker, folder = exported
    found = ll.compare(
        folder / PLACES[tracker],
        value="test_error",
        margin=2,
        resolution=1,
        contrasts=[("wide", "narrow"), ("wild", "narrow")],
    )
    columns = ["a", "b", "n", "difference", "ci_low", "ci_high", "difference_p_adjusted", "verdict"]
    columns += ["diverged_a", "diverged_b"]
    expected = results.verdict().contrasts
    columns = [column for column in columns if column in expected]
    pd.testing.assert_frame_equal(
        found.contrasts[columns], expected[columns], rtol=1e-5 if tracker == "tensorboard" else 0, atol=0
    )
    assert expected["verdict"].nunique() == 2
    assert "wild" in str(found) and "Diverged: wild at 3 of 3 seeds" in str(found)


def contents(folder: Path) -> dict[str, str]:
    """Return file -> digest, but for what wandb says of itself, later."""
    found = {}
    for file in folder.rglob("*"):
        if file.is_file() and file.suffix != ".log":
            found[file.relative_to(folder).as_posix()] = hashlib.sha256(file.read_bytes()).hexdigest()
    return found


def test_a_second_export_changes_nothing(exported: tuple[str, Path], results: ll.Results) -> None:
    tracker, folder = exported
    before = contents(folder)
    found = results.export_runs(tracker, folder)
    assert (found.written, found.unchanged) == (0, 9)
    assert contents(folder) == before
    assert found.line().startswith(f"{tracker}: 0 runs written, 9 unchanged: {folder}. Next: ")


# --- runs that grow, go back, and go away


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without runs, whose tables take seconds to create."""
    folder = tmp_path_factory.mktemp("empty")
    with find_tracker("mlflow", "--to")(folder, "none"):
        return folder / "mlflow.db"


@pytest.fixture(params=PACKAGES)
def tracker(request: pytest.FixtureRequest, tmp_path: Path) -> type[Tracker]:
    pytest.importorskip(PACKAGES[request.param], reason=f"{request.param} is not installed")
    if request.param == "mlflow":
        shutil.copy(request.getfixturevalue("empty_database"), tmp_path)
    return find_tracker(request.param, "--to")


def run_of(state: Any = "running", losses: tuple[float, ...] = (), seed: int = 0, **final: float) -> TrackedRun:
    points = {epoch: {"train/loss": loss} for epoch, loss in enumerate(losses, 1)}
    if final:
        points[len(losses)] |= final
    hash_ = hashlib.sha256(bytes([seed])).hexdigest()
    spec = {"network": {"depth": 8}, "seed": seed}
    return TrackedRun("tiny", hash_, "a/b[x=1.5]", "a/b", {"x": 1.5}, seed, state, spec, points)


def read_back(tracker: type[Tracker], folder: Path) -> pd.DataFrame:
    return read_runs(folder / PLACES[tracker.name])[0].sort_values(["seed", "step"]).reset_index(drop=True)


def test_a_run_grows_without_repeating_points(tracker: type[Tracker], tmp_path: Path) -> None:
    with tracker(tmp_path, "tiny") as place:
        assert place.write([run_of(losses=()), run_of(losses=(3.0,), seed=1)]) == 1
        assert place.write([run_of(losses=(2.0,))]) == 1
        assert place.write([run_of(losses=(2.0, 1.0))]) == 1
        assert place.write([run_of("finished", (2.0, 1.0, math.nan), test_error=0.1)]) == 1
    values = {key: found for key, found in READERS[tracker.name](tmp_path)[0].items() if key[0].endswith("seed0")}
    name = next(iter(values))[0]
    assert plain(values) == {
        (name, "train/loss"): [(1, "2.0"), (2, "1.0"), (3, "nan")],
        (name, "test_error"): [(3, repr(float(np.float32(0.1)) if tracker.name == "tensorboard" else 0.1))],
    }
    states = read_back(tracker, tmp_path).groupby("seed")["state"].unique().map(list)
    assert states.to_dict() == {0: ["finished"], 1: ["running"]}


def test_a_run_that_another_process_left_open_is_written_anew(tracker: type[Tracker], tmp_path: Path) -> None:
    with tracker(tmp_path, "tiny") as place:
        place.write([run_of(losses=(2.0, 9.0))])
    with tracker(tmp_path, "tiny") as place:
        assert place.write([run_of("finished", (2.0, 1.0))]) == 1
    with tracker(tmp_path, "tiny") as place:
        assert place.write([run_of("finished", (2.0, 1.0))]) == 0
    values = READERS[tracker.name](tmp_path)[0]
    assert list(plain(values).values()) == [[(1, "2.0"), (2, "1.0")]]


def test_a_run_that_went_back_and_one_that_was_retried(tracker: type[Tracker], tmp_path: Path) -> None:
    with tracker(tmp_path, "tiny") as place:
        place.write([run_of(losses=(2.0, 9.0))])
        place.write([run_of(losses=(2.0,))])
        place.write([run_of("failed", (2.0, 1.5))])
        assert set(read_back(tracker, tmp_path)["state"]) <= {"failed", "crashed"}
        place.write([run_of(losses=(2.0, 1.5))])
        place.write([run_of("finished", (2.0, 1.5, 1.0))])
    assert list(plain(READERS[tracker.name](tmp_path)[0]).values()) == [[(1, "2.0"), (2, "1.5"), (3, "1.0")]]
    assert set(read_back(tracker, tmp_path)["state"]) == {"finished"}


def test_runs_that_the_study_no_longer_has_are_removed(tracker: type[Tracker], tmp_path: Path) -> None:
    with tracker(tmp_path, "tiny") as place:
        place.write([run_of("finished", (2.0,), seed) for seed in (0, 1)])
        place.keep_verdict("undecided")
        place.keep([run_of(seed=1).id])
        place.keep_verdict("decided: ≥ 1\nsecond line")
    assert list(read_back(tracker, tmp_path)["seed"]) == [1]
    assert READERS[tracker.name](tmp_path)[2] == "decided: ≥ 1\nsecond line"


def test_a_run_without_any_value_has_failed(tracker: type[Tracker], tmp_path: Path) -> None:
    with tracker(tmp_path, "tiny") as place:
        place.write([run_of("diverged"), run_of("finished", (1.0,), seed=1, test_error=0.5)])
    states = read_back(tracker, tmp_path).set_index("seed")["state"]
    assert states[1] == "finished" and states[0] in ("failed", "diverged")


def test_two_studies_in_one_folder(tracker: type[Tracker], tmp_path: Path) -> None:
    for study in ("tiny", "other"):
        with tracker(tmp_path, study) as place:
            place.write([TrackedRun(**{**vars(run_of("finished", (1.0,))), "study": study})])
            place.keep([run_of().id if study == "tiny" else ""])
    with tracker(tmp_path, "tiny") as place:
        assert place.write([run_of("finished", (1.0,))]) == 0


# --- while a study runs


@pytest.mark.slow
@pytest.mark.parametrize("name", PACKAGES)
def test_a_study_is_logged_while_it_runs(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip(PACKAGES[name], reason=f"{name} is not installed")
    results = tiny().run(tmp_path / "runs", workers=0, log=name)
    assert "--log" not in capfd.readouterr().err
    values, _, verdict = READERS[name](tmp_path / "runs" / name)
    assert plain(values) == plain(as_kept(name, stored_points(results)))
    assert verdict == str(results.verdict())
    assert results.export_runs(name, tmp_path / "runs" / name).written == 0


@pytest.mark.slow
def test_a_tracker_that_fails_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    (tmp_path / "taken").write_text("a file")
    study = tmp_path / "study.yaml"
    study.write_text(
        "name: one\narms: {mlp: {network: {family: mlp}}}\ndata: {name: digits, train: 50, test: 20}\n"
        "training: {epochs: 1}\n"
    )
    command = ["run", str(study), "--runs", str(tmp_path / "runs"), "--workers", "0", "--log", "tensorboard"]
    done = CliRunner().invoke(app, [*command, "--log-folder", str(tmp_path / "taken")])
    assert done.exit_code == 0
    lines = [line for line in done.stderr.splitlines() if "--log" in line]
    place = tmp_path / "taken"
    assert lines == [
        f"--log tensorboard: {place}: cannot be written: File exists; training is not affected, and"
        f" `leadline export-runs one --to tensorboard --output {place}` writes what is missing"
    ]
    assert done.stdout.startswith("one: 3 trials: 3 finished")


def test_following_writes_what_changes_and_the_verdict_at_the_end(
    results: ll.Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    monkeypatch.setattr(logging, "EVERY_SECONDS", 0.01)
    waits: Iterator[bool] = iter([False, False, True])

    class Ending:
        def wait(self, seconds: float) -> bool:
            return next(waits)

    job = logging.Job("tiny", results._runs)
    logging.follow(job, "tensorboard", tmp_path, Ending())  # type: ignore[arg-type]
    values, _, verdict = read_tensorboard(tmp_path)
    assert plain(values) == plain(as_kept("tensorboard", stored_points(results)))
    assert verdict == str(results.verdict())


def test_one_process_at_a_time_writes_a_studys_runs(tracker: type[Tracker], tmp_path: Path) -> None:
    with tracker(tmp_path, "tiny") as place:
        place.write([run_of(losses=(2.0,))])
        with pytest.raises(LeadlineError, match="another process writes the runs of tiny there; wait until it ends"):
            tracker(tmp_path, "tiny")
        with tracker(tmp_path, "other"):
            pass
        assert place.write([run_of("finished", (2.0, 1.0))]) == 1
    with tracker(tmp_path, "tiny") as place:
        assert place.write([run_of("finished", (2.0, 1.0))]) == 0


def test_an_experiment_that_was_deleted_in_mlflow_is_said(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    from mlflow import MlflowClient

    shutil.copy(request.getfixturevalue("empty_database"), tmp_path)
    with find_tracker("mlflow", "--to")(tmp_path, "tiny"):
        pass
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    client.delete_experiment(client.get_experiment_by_name("tiny").experiment_id)
    with pytest.raises(LeadlineError, match="the experiment tiny was deleted in MLflow; restore it there"):
        find_tracker("mlflow", "--to")(tmp_path, "tiny")


def test_hyperparameters_that_pytorch_logs_are_those_of_the_run(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    for arm in ("plain", "residual"):
        for seed in range(2):
            with SummaryWriter(str(tmp_path / f"{arm}_{seed}")) as writer:
                writer.add_scalar("val/error", 3.0 + seed, 1)
                writer.add_hparams({"lr": 0.1, "depth": 20, "model": arm, "seed": seed}, {})
    table, _ = read_runs(tmp_path)
    assert table.sort_values("run")[["run", "step", "val/error", "lr", "depth", "model", "seed"]].values.tolist() == [
        [f"{arm}_{seed}", 1, 3.0 + seed, 0.1, 20, arm, seed] for arm in ("plain", "residual") for seed in (0, 1)
    ]


# --- what is asked for


def test_a_tracker_that_is_unknown_or_not_installed(
    results: ll.Results, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SpecError, match=r"unknown --to 'tensorbord'; did you mean 'tensorboard'\?"):
        results.export_runs("tensorbord", tmp_path)
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    packages = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow-skinny"}
    for name, package in packages.items():
        needs = f"needs the package {package}, which is not installed; from a checkout: pip install '.[{name}]'"
        with pytest.raises(LeadlineError) as caught:
            results.export_runs(name, tmp_path)
        assert str(caught.value) == f"--to {name} {needs}"
        with pytest.raises(LeadlineError) as caught:
            tiny("other").run(tmp_path / "runs", workers=0, log=name)
        assert str(caught.value) == f"--log {name} {needs}"
    assert not (tmp_path / "runs").exists()


def test_the_command_says_what_it_wrote(results: ll.Results, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    command = ["export-runs", "tiny", "--to", "tensorboard", "--output", str(tmp_path), "--runs", str(results._runs)]
    done = CliRunner().invoke(app, command)
    assert done.stdout == f"tensorboard: 9 runs written: {tmp_path}. Next: tensorboard --logdir {tmp_path}\n"


@pytest.mark.slow
def test_the_commands_of_the_page_agree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in PACKAGES:
        pytest.importorskip(name)
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[1] / "docs" / "trackers.md").read_text(encoding="utf-8")
    compared = []
    for line in page.split("```sh\n")[1].split("```")[0].splitlines():
        words = shlex.split(line.removeprefix("leadline "))
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
        if words[0] == "compare":
            compared.append(done.stdout.partition("Arms: mean")[2])
    assert len(compared) == 3 and len(set(compared)) == 1
