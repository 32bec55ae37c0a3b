"""Metrics against scikit-learn and by hand, what is kept of outputs, and metrics of the user's own."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as theirs

from leadline.errors import SpecError
from leadline.metrics import FinalMetric, Metric, Outputs, metric, metrics
from leadline.metrics.balanced_error import balanced_error
from leadline.metrics.calibration_error import calibration_error
from leadline.metrics.macro_f1 import macro_f1
from leadline.metrics.outputs import pack_outputs, unpack_outputs
from leadline.metrics.top5_error import top5_error

pairs = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60)


@given(pairs)
def test_balanced_error_and_f1_against_scikit_learn(both: list[tuple[int, int]]) -> None:
    labels, predicted = np.array(both).T
    recall = theirs.recall_score(labels, predicted, average=None, labels=np.unique(labels), zero_division=0)
    assert balanced_error(labels, predicted) == pytest.approx(100 * (1 - recall.mean()))
    expected = theirs.f1_score(labels, predicted, average="macro", zero_division=0)
    assert macro_f1(labels, predicted) == pytest.approx(100 * expected)


def outputs(classes: int, count: int = 200, seed: int = 0) -> Outputs:
    noise = np.random.default_rng(seed)
    logits = 2 * noise.standard_normal((count, classes))
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = noise.integers(0, classes, count).astype(np.int16)
    return Outputs(labels, probabilities.argmax(1).astype(np.int16), probabilities.astype(np.float32))


def test_top5_against_scikit_learn() -> None:
    one = outputs(12)
    expected = theirs.top_k_accuracy_score(one.labels, one.probabilities, k=5, labels=range(12))
    assert top5_error(one.labels, one.predicted, one.probabilities) == pytest.approx(100 * (1 - expected))


def test_calibration_error_bin_by_bin() -> None:
    one = outputs(4)
    assert one.probabilities is not None
    confidence, right = one.probabilities.max(1).astype(float), one.labels == one.predicted
    total = 0.0
    for low in range(15):
        inside = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        if inside.any():
            total += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    assert calibration_error(one.labels, one.predicted, one.probabilities) == pytest.approx(100 * total)


@pytest.mark.parametrize("classes", [2, 10, 20])
def test_every_probability_of_few_classes_comes_back_in_half_precision(classes: int) -> None:
    one = outputs(classes)
    back = unpack_outputs(pack_outputs(one), (one.predicted, one.labels))
    assert back.probabilities is not None and one.probabilities is not None
    np.testing.assert_allclose(back.probabilities, one.probabilities, atol=5e-4)
    assert len(pack_outputs(one)) < 200 * (2 * classes) + 400


def test_of_many_classes_the_first_five_and_the_true_one_come_back() -> None:
    one = outputs(100)
    back = unpack_outputs(pack_outputs(one), (one.predicted, one.labels))
    assert back.probabilities is not None and one.probabilities is not None
    rows = np.arange(len(one.labels))
    np.testing.assert_allclose(back.probabilities[rows, one.labels], one.probabilities[rows, one.labels], atol=5e-4)
    np.testing.assert_allclose(back.probabilities.max(1), one.probabilities.max(1), atol=5e-4)
    np.testing.assert_allclose(back.probabilities.sum(1), 1, atol=5e-3)
    for function in (top5_error, calibration_error):
        expected = function(one.labels, one.predicted, one.probabilities)
        assert function(back.labels, back.predicted, back.probabilities) == pytest.approx(expected, abs=0.5)


def test_outputs_of_another_task_come_back_whole() -> None:
    one = Outputs(np.array([1.5, 2.5]), np.array([1.0, 3.0], dtype=np.float32))
    back = unpack_outputs(pack_outputs(one))
    assert back.labels.tolist() == [1.5, 2.5] and back.predicted.tolist() == [1.0, 3.0] and back.probabilities is None


def test_every_metric_says_what_it_is() -> None:
    for name, one in metrics().items():
        assert name == one.name
        assert one.named(5.0) and "{" not in one.named(5.0)
    assert metric("macro_f1").better == "a higher" and metric("macro_f1").worse == "a lower"
    assert metric("epochs_to").better == "fewer"
    assert [name for name, one in metrics().items() if one.summary] == ["test_error", "train_error", "validation_error"]


def worst_class_error(labels: np.ndarray, predicted: np.ndarray, probabilities: np.ndarray) -> float:
    return 100 * max(float(np.mean(predicted[labels == one] != one)) for one in np.unique(labels))


RECALL = FinalMetric(
    "recall",
    "recall of class 0",
    compute=lambda labels, predicted, _: 100 * float(np.mean(predicted[labels == 0] == 0)),
    higher_is_better=True,
)


def test_metrics_of_the_users_own() -> None:
    one = metric(f"{__name__}:worst_class_error")
    assert isinstance(one, FinalMetric)
    assert one.wording == "worst class error" and not one.higher_is_better
    assert one.value(Outputs(np.array([0, 0, 1]), np.array([0, 1, 1]), np.zeros((3, 2)))) == 50.0
    other: Metric = metric(f"{__name__}:RECALL")
    assert other.name == f"{__name__}:RECALL" and other.higher_is_better


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tset_error", "unknown metric 'tset_error'; did you mean 'test_error'"),
        ("no module: x", "expected a name, or a reference such as package.module:function"),
        ("json:nothing", "json has no function or class 'nothing'"),
    ],
)
def test_an_unknown_metric_gets_one_line(name: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        metric(name)
