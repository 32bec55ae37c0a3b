"""The task seam: a small regression goes through training, store, verdict and report, and tells them nothing new."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from leadline.analysis.verdict import analyze, headline, to_json, to_text
from leadline.data.arrays import Arrays
from leadline.data.batches import load
from leadline.data.metadata import describe
from leadline.errors import DataError, SpecError
from leadline.networks.modules import build
from leadline.parts.base import Spec, parse
from leadline.parts.code import identify_all
from leadline.parts.losses import Loss
from leadline.parts.metrics import FinalMetric, Outputs
from leadline.parts.reference import Reference
from leadline.parts.tasks import Task, task_of
from leadline.reports.writing import write_report
from leadline.running.executors import InProcess
from leadline.running.job import Job
from leadline.specs import DataSpec
from leadline.specs.study import StudySpec
from leadline.store import Store
from leadline.study.expand import ExpandedStudy, expand


def heights(count: int = 60) -> Arrays:
    """Images of one bright row, and where it is: from -1 at the top to 1 at the bottom."""
    noise = np.random.default_rng(0)
    rows = noise.integers(0, 8, count)
    images = noise.normal(0, 0.1, (count, 1, 8, 8)).astype(np.float32)
    images[np.arange(count), 0, rows] += 1
    targets = (rows / 3.5 - 1).astype(np.float32)
    return Arrays(train=(images[:40], targets[:40]), test=(images[40:], targets[40:]))


class SquaredError(Spec, Loss):
    name: Literal["squared-error"] = "squared-error"

    def compute(self, outputs: torch.Tensor, targets: torch.Tensor, reduction: Any, smoothing: float = 0.0) -> Any:
        return F.mse_loss(outputs[:, 0], targets, reduction=reduction)


class Regression(Task):
    name = "regression"
    loss = SquaredError()
    metric = "test_tasks:RMSE"
    curves = {"rmse": "Root mean squared error", "loss": "Squared error"}

    def predict(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs[:, 0]

    def values(self, loss: float, right: float) -> dict[str, float]:
        return {"loss": loss, "rmse": loss**0.5}


RMSE = FinalMetric("test_rmse", "test RMSE", "", "", record=("final-test", "rmse"))


def mean_absolute_error(labels: Any, predicted: Any) -> float:
    return float(np.abs(labels - predicted).mean())


DATA: dict[str, Any] = {"module": "test_tasks:heights", "task": {"module": "test_tasks:Regression"}, "validation": 8}


def a_study(**changes: Any) -> ExpandedStudy:
    plain = {
        "name": "heights",
        "data": DATA,
        "training": {"epochs": 3, "batch_size": 10, "optimizer": {"name": "adam"}},
        "arms": {
            "plain": {"network": {"family": "comparative-plain", "blocks": 1}},
            "residual": {"network": {"family": "comparative-resnet", "blocks": 1}},
        },
        "seeds": 2,
    }
    return expand(parse(StudySpec, plain | changes))


@pytest.mark.slow
def test_a_regression_is_trained_stored_judged_and_reported(tmp_path: Path) -> None:
    absolute = {"a": "residual", "b": "plain", "metric": {"module": "test_tasks:mean_absolute_error"}}
    study = a_study(contrasts=[["residual", "plain"], absolute])
    assert [one.metric for one in study.contrasts] == ["test_tasks:RMSE", "test_tasks:mean_absolute_error"]
    with Store.open(tmp_path / "runs") as store:
        store.register(study)
        InProcess().run(Job("heights", tmp_path / "runs"), lambda event: None)
        trials, records, outputs = (
            store.trials_frame("heights"),
            store.records_frame("heights"),
            store.outputs("heights", probabilities=False),
        )
        assert list(trials["state"]) == ["finished"] * 4, trials["error"].tolist()
        write_report(store, "heights", tmp_path / "report")
    assert set(records.loc[records["split"].str.startswith("final"), "name"]) == {"loss", "rmse"}
    final = records[records["split"].eq("final-test") & records["name"].eq("rmse")].set_index("trial")["value"]
    for trial, found in outputs.items():
        assert found.labels.dtype == np.float32 and found.probabilities is None
        assert np.sqrt(np.square(found.labels - found.predicted).mean()) == pytest.approx(final[trial], rel=1e-4)
    findings = analyze(study, trials, records, outputs.items())
    values = to_json(findings)
    for contrast in values["contrasts"]:
        assert contrast["n"] == 2 and contrast["difference"] is not None
    assert values["arms"]["plain"]["test_tasks:RMSE"]["n"] == 2
    first = findings.contrasts[0]
    assert first.values_a == tuple(final[arm.at(seed).content_hash] for arm in study.arms[1:] for seed in (0, 1))
    assert "test RMSE" in to_text(findings) and "mean absolute error" in headline(findings)[1]
    assert "test error" not in to_text(findings).replace("Test error", "")
    page = (tmp_path / "report" / "report.html").read_text()
    assert "Root mean squared error" in page and "Cross-entropy" not in page and "Final test error" not in page


def test_a_network_has_as_many_outputs_as_there_are_targets(tmp_path: Path) -> None:
    spec = parse(DataSpec, DATA)
    data = load(spec)
    assert describe(spec) == (data.shape, data.classes) == ((1, 8, 8), 1)
    network = build(a_study().arms[0].trial.network, data.shape, data.classes)
    images, targets = next(data.train_batches(0, 0, 4))
    assert network(images).shape == (4, 1) and targets.dtype == torch.float32


@pytest.mark.slow
def test_the_task_is_in_the_hash_with_its_code_and_classification_is_not() -> None:
    plain = parse(DataSpec, DATA)
    assert parse(DataSpec, plain.model_dump(mode="json")) == plain
    assert set(identify_all(a_study().arms[0].trial.model_dump(mode="json"))) == {
        "test_tasks:heights",
        "test_tasks:Regression",
    }
    assert "task" not in DataSpec(name="digits").model_dump(mode="json")
    assert DataSpec(name="digits", task="classification") == DataSpec(name="digits")


def not_finite() -> Arrays:
    return Arrays(train=(np.zeros((20, 1, 4, 4), np.uint8), np.full(20, np.nan)))


def of_two_shapes() -> Arrays:
    images = np.zeros((20, 1, 4, 4), np.uint8)
    return Arrays(train=(images, np.zeros(20)), test=(images, np.zeros((20, 2))))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (DATA | {"task": "regresion"}, "unknown task 'regresion'"),
        ({"name": "digits", "task": {"module": "test_tasks:Regression"}}, "task is for custom data sets and npz"),
        (DATA | {"task": {"module": "test_tasks:heights"}}, "expected a subclass of leadline.Task, got Arrays"),
        (DATA | {"module": "test_tasks:not_finite"}, "targets hold NaN or infinity"),
        (DATA | {"module": "test_tasks:of_two_shapes"}, "targets of its parts differ in shape"),
        ({"module": "test_tasks:heights"}, "labels are float32; expected whole numbers from 0"),
    ],
)
def test_what_cannot_be_trained_on_is_one_line(data: dict[str, Any], message: str) -> None:
    with pytest.raises((SpecError, DataError), match=message) as caught:
        load(parse(DataSpec, data))
    assert "\n" not in str(caught.value)


def test_a_custom_task_is_made_once() -> None:
    named = Reference(module="test_tasks:Regression")
    assert task_of(named) is task_of(Reference(module="test_tasks:Regression"))
    assert task_of("classification").metric == "test_error"


@pytest.mark.parametrize(
    ("zeros", "right", "images", "train_error", "idle"),
    [
        (0.5, 0.5, 1000, None, True),
        (0.5, 0.55, 1000, None, True),  # ahead on 500 images and behind on 450
        (0.5, 0.58, 1000, None, False),
        (0.95, 0.98, 1000, None, False),  # better than 95%, which needs no learning
        (0.5, 1.0, 2, 0.0, False),  # a good network on two images
        (0.5, 1.0, 2, 50.0, True),  # a lucky one
        (1.0, 1.0, 50, 50.0, False),  # one class alone
        (0.5, 0.5, 1000, 10.0, True),  # one class throughout, as nine of ten training labels have
        (0.5, 0.5, 1000, 30.0, True),  # a few of them
        (0.7, 0.95, 1000, 29.5, False),  # training labels that are noisy, and in other proportions
    ],
)
def test_a_classifier_is_at_chance_by_what_a_constant_one_gets_right(
    zeros: float, right: float, images: int, train_error: float | None, idle: bool
) -> None:
    labels = (np.arange(images) >= round(zeros * images)).astype(np.int16)
    wrong = np.arange(images) < round((1 - right) * images)
    outputs = Outputs(labels, np.where(wrong, 1 - labels, labels))
    assert task_of("classification").is_at_chance(outputs, train_error) is idle


@pytest.mark.parametrize("right", [0.3, 0.5])
def test_a_classifier_that_memorises_is_not_at_chance(right: float) -> None:
    labels = np.tile(np.array([0, 1], dtype=np.int16), 500)
    outputs = Outputs(labels, np.where(np.arange(1000) < 1000 * right, labels, 1 - labels))
    found = {error: task_of("classification").is_at_chance(outputs, error) for error in (None, 1.0, 24.0, 26.0)}
    assert found == {None: True, 1.0: False, 24.0: False, 26.0: True}
