"""Metrics against scikit-learn and by hand, what is kept of outputs, and custom metrics."""

import functools
import importlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as theirs

from leadline.analysis.verdict import analyze, headline, notes, to_json, to_text
from leadline.analysis.verdict.wording.tables import arms_table
from leadline.errors import SpecError
from leadline.parts.base import parse
from leadline.parts.metrics import Counts, FinalMetric, Metric, Outputs, metric, metric_name, metrics
from leadline.parts.metrics.balanced_error import balanced_error
from leadline.parts.metrics.calibration_error import calibration_error
from leadline.parts.metrics.macro_f1 import macro_f1
from leadline.parts.metrics.outputs import bytes_kept, pack_outputs, unpack_outputs
from leadline.parts.metrics.top5_error import top5_error
from leadline.reports.charts.forest import forest
from leadline.reports.charts.interim import interim_intervals
from leadline.specs.study import StudySpec
from leadline.study.expand import expand

pairs = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60)


@pytest.mark.slow
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
    assert [name for name, one in metrics().items() if one.summary] == [
        *("test_error", "train_error", "validation_error", "epochs_trained", "best_epoch"),
    ]


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
        ('json:loads({"broken"})', "expected a name, or a reference such as package.module:function"),
        ("math:pi", "math has no function or class 'pi'"),
        ("json:nothing", "json has no function or class 'nothing'"),
    ],
)
def test_an_unknown_metric_gets_one_line(name: str, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEADLINE_TRUST", "math,json")
    with pytest.raises(SpecError, match=message):
        metric(name)


# --- custom metrics, as studies give them

KAPPA = {"module": "sklearn.metrics:cohen_kappa_score", "higher_is_better": True}
FBETA = {
    "module": "sklearn.metrics:fbeta_score",
    "arguments": {"beta": 2, "average": "macro"},
    "higher_is_better": True,
}


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("macro_f1", "macro_f1"),
        (metric("macro_f1"), "macro_f1"),
        (worst_class_error, f"{__name__}:worst_class_error"),
        (RECALL, f"{__name__}:RECALL"),
        (KAPPA, "sklearn.metrics:cohen_kappa_score, higher is better"),
        (FBETA, 'sklearn.metrics:fbeta_score({"average":"macro","beta":2}), higher is better'),
        (
            {"module": worst_class_error, "higher_is_better": True},
            f"{__name__}:worst_class_error, higher is better",
        ),
        (
            functools.partial(theirs.fbeta_score, beta=2, average="macro"),
            'sklearn.metrics._classification:fbeta_score({"average":"macro","beta":2})',
        ),
    ],
)
def test_whatever_a_study_gives_has_one_name_that_holds_it(given: Any, name: str) -> None:
    contrast = {"a": "residual", "b": "plain", "metric": given}
    study = parse(StudySpec, {"name": "toy", "arms": ARMS, "contrasts": [contrast], "decide": {"metric": given}})
    assert study.contrasts is not None and study.decide is not None
    assert study.contrasts[0].metric == study.decide.metric == name
    assert parse(StudySpec, study.model_dump(mode="json")) == study
    assert metric(name).name == name
    assert metric(name).higher_is_better == (name == "macro_f1" or "RECALL" in name or "higher" in name)


def test_a_metric_of_a_notebook_is_kept_in_its_process() -> None:
    own = FinalMetric("own", "own metric", compute=lambda labels, predicted, _: 1.0, needs_probabilities=False)
    name = metric_name(own)
    assert isinstance(name, str) and metric(name).wording == "own metric"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"module": "sklearn.metrics:f1_score", "argument": {}}, "unknown key 'argument'"),
        ({"arguments": {}}, "'module' is required but missing"),
        ({"module": "a:b", "higher_is_better": 1}, "higher_is_better must be true or false, got 1"),
        ("tset_error", "unknown metric 'tset_error'; did you mean 'test_error'"),
        (3, "metric: 3: input should be a valid string"),
    ],
)
def test_what_is_no_metric_is_one_line(given: Any, message: str) -> None:
    contrast = {"a": "residual", "b": "plain", "metric": given}
    with pytest.raises(SpecError, match=message) as caught:
        parse(StudySpec, {"name": "toy", "arms": ARMS, "contrasts": [contrast]})
    assert "\n" not in str(caught.value)


def test_a_metric_that_cannot_be_imported_is_told_before_training() -> None:
    contrast = {"a": "residual", "b": "plain", "metric": "nowhere_at_all:metric"}
    with pytest.raises(SpecError, match=r"contrasts.0: nowhere_at_all:metric: importing nowhere_at_all failed"):
        expand(parse(StudySpec, {"name": "toy", "arms": ARMS, "contrasts": [contrast]}))


def broken(labels: Any, predicted: Any) -> float:
    return float(labels[10**9])


def wordy(labels: Any, predicted: Any) -> str:
    return "good"


@pytest.mark.parametrize("function", [broken, wordy])
def test_a_metric_that_fails_is_one_line(function: Callable[..., Any]) -> None:
    name = metric_name(function)
    assert isinstance(name, str)
    one = metric(name)
    assert isinstance(one, FinalMetric)
    with pytest.raises(SpecError, match=f"metric {name}: expected a number from labels") as caught:
        one.value(outputs(3))
    assert "\n" not in str(caught.value)


# --- what verdicts make of them

ARMS = {"plain": {"network": "comparative-plain"}, "residual": {"network": "comparative-resnet"}}


def verdict(
    given: Any, right: Mapping[str, float], kept: str = "probabilities", classes: int = 8, **changes: Any
) -> Any:
    """Findings of four seeds whose arms are right on such shares of the images, and what was kept of them."""
    contrast = {"a": "residual", "b": "plain", "metric": given}
    study = expand(
        parse(StudySpec, {"name": "toy", "arms": ARMS, "contrasts": [contrast], **(changes or {"seeds": 4})})
    )
    trials, records, found = [], [], {}
    for arm, trial in study.trials():
        noise = np.random.default_rng(trial.seed)
        labels = (np.arange(400) % classes).astype(np.int16)
        wrong = noise.random(400) > right[arm.name]
        predicted = np.where(wrong, (labels + 1) % classes, labels).astype(np.int16)
        probabilities = np.full((400, classes), 0.2 / (classes - 1), np.float32)
        probabilities[np.arange(400), predicted] = 0.8
        base = {"trial": trial.content_hash, "arm": arm.name, "base": arm.base, "seed": trial.seed}
        trials.append({**base, "factors": {}, "state": "finished", "seconds": 1.0})
        error = 100 * float(wrong.mean())
        records.append({**base, "step": 1, "epoch": 1, "split": "final-test", "name": "error", "value": error})
        if kept != "nothing":
            found[trial.content_hash] = Outputs(labels, predicted, probabilities if kept == "probabilities" else None)
    return analyze(study, pd.DataFrame(trials), pd.DataFrame(records), found.items())


@pytest.mark.slow
@pytest.mark.parametrize("given", ["macro_f1", KAPPA, FBETA, RECALL])
@pytest.mark.parametrize("better", ["residual", "plain"])
@pytest.mark.parametrize("decide", [None, {"max_seeds": 8, "first": 8}])
def test_where_higher_is_better_the_arm_with_more_is_the_better_one(given: Any, better: str, decide: Any) -> None:
    changes = {"seeds": 4} if decide is None else {"decide": decide}
    findings = verdict(given, {"plain": 0.7, "residual": 0.7} | {better: 0.95}, **changes)
    (contrast,) = findings.contrasts
    mean = sum(contrast.differences) / len(contrast.differences)
    assert contrast.decision == ("better" if better == "residual" else "worse")
    assert (mean > 0) == (better == "residual")
    sentence = headline(findings)[0]
    named = metric(contrast.metric).named()
    assert sentence.startswith(f"residual has a {'higher' if better == 'residual' else 'lower'} {named} than plain")
    axis = json.dumps([panel.chart.to_dict() for panel in forest(findings).panels], ensure_ascii=False)
    assert "← plain better · residual better →" in axis
    if decide is not None:
        figure = interim_intervals(findings)
        assert "above zero favours the first arm" in figure.caption
        assert set(figure.data["decision"]) <= {contrast.decision, "undecided"}
    values = to_json(findings)["contrasts"][0]
    assert values["verdict"] == contrast.decision and values["metric"] == contrast.metric


def greedy(labels: Any, predicted: Any) -> float:
    labels.sort()
    return 0.0


def nothing(labels: Any, predicted: Any) -> float:
    return float("nan")


def test_a_metric_cannot_change_what_the_others_read() -> None:
    with pytest.raises(SpecError, match=r"metric .*:greedy: .*read-only"):
        verdict(greedy, {"plain": 0.7, "residual": 0.9})


def test_a_metric_without_values_is_not_said_to_lack_finished_trials() -> None:
    sentence = headline(verdict(nothing, {"plain": 0.7, "residual": 0.9}))[0]
    assert sentence.endswith("nothing has no value at any seed at which both finished.")


def share_of_zeros(labels: Any, predicted: Any) -> float:
    return float(np.mean(predicted == 0))


def test_equal_differences_of_a_metric_without_a_margin_are_not_sure() -> None:
    """One image more at each of two seeds is no certainty, in whatever unit it is told."""
    contrast = {"a": "residual", "b": "plain", "metric": share_of_zeros}
    study = expand(parse(StudySpec, {"name": "toy", "arms": ARMS, "contrasts": [contrast], "seeds": 2}))
    trials, found = [], {}
    for arm, trial in study.trials():
        zeros = 10 + 3 * trial.seed + (arm.name == "residual")
        predicted = (np.arange(100) >= zeros).astype(np.int16)
        base = {"trial": trial.content_hash, "arm": arm.name, "base": arm.base, "seed": trial.seed}
        trials.append({**base, "factors": {}, "state": "finished", "seconds": 1.0})
        found[trial.content_hash] = Outputs(np.zeros(100, np.int16), predicted)
    records = pd.DataFrame(columns=["trial", "arm", "epoch", "split", "name", "value"])
    (one,) = analyze(study, pd.DataFrame(trials), records, found.items()).contrasts
    assert one.differences == pytest.approx((0.01, 0.01)) and one.resolution == pytest.approx(0.01)
    assert one.paired is not None and one.paired.ci95 is not None
    assert one.paired.ci95[0] < 0 < one.paired.ci95[1] and one.decision == "undecided"


def test_a_custom_error_is_lower_the_better() -> None:
    findings = verdict(worst_class_error, {"plain": 0.6, "residual": 0.95})
    assert findings.contrasts[0].decision == "better"
    assert headline(findings)[0].startswith("residual has a lower worst class error than plain")
    assert to_json(findings)["arms"]["plain"][f"{__name__}:worst_class_error"]["n"] == 4
    assert "Worst class error" in [column.heading for column in arms_table(findings).columns]
    assert "  (" not in to_text(findings)  # it has no unit, and no gap in its place


@pytest.mark.parametrize(
    ("given", "kept", "classes", "pairs", "note"),
    [
        ("macro_f1", "predictions", 8, 4, ""),
        ("balanced_error", "predictions", 8, 4, ""),
        (KAPPA, "predictions", 8, 4, ""),
        ("top5_error", "probabilities", 8, 4, ""),
        ("top5_error", "probabilities", 4, 0, "it needs 6 classes or more, and the data have 4"),
        ("top5_error", "predictions", 8, 0, "trained before Leadline recorded it"),
        ("calibration_error", "predictions", 8, 0, "trained before Leadline recorded it"),
        ("macro_f1", "nothing", 8, 0, "trained before Leadline recorded it"),
        (worst_class_error, "predictions", 8, 0, "trained before Leadline recorded it"),
    ],
)
def test_trials_of_older_versions_have_what_their_predictions_give(
    given: Any, kept: str, classes: int, pairs: int, note: str
) -> None:
    findings = verdict(given, {"plain": 0.7, "residual": 0.9}, kept, classes)
    assert len(findings.contrasts[0].seeds) == pairs
    said = [one for one in notes(findings) if "finished trials have no" in one]
    if pairs:
        assert said == []
    else:
        (line,) = said
        assert line.startswith(f"8 finished trials have no {metric(findings.contrasts[0].metric).named()} and form no")
        assert note in line


def test_the_schema_of_a_metric_lists_the_built_in_ones() -> None:
    schema = json.dumps(StudySpec.model_json_schema())
    assert all(f'"{name}"' in schema for name in metrics())
    assert '"higher_is_better"' in schema


def test_the_step_of_a_metric_is_its_own() -> None:
    counts = Counts(train=50, validation=20, test=200, epochs=4)
    steps = {name: one.resolution and one.resolution(counts) for name, one in metrics().items()}
    expected = {"test_error": 0.5, "top5_error": 0.5, "validation_error": 5, "train_error": 2}
    expected |= {"averaged_test_error": 0.5, "averaged_validation_error": 5, "epochs_trained": 1, "best_epoch": 1}
    expected |= {"balanced_error": 0.5, "macro_f1": 0.5}  # where classes are equally many
    assert {name: step for name, step in steps.items() if step} == expected | {"learning_curve_area": 1.25}


def test_the_page_on_metrics_is_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[1] / "docs" / "metrics.md").read_text()
    listed = text.partition("## Built-in metrics")[2].partition("\nEvery trial")[0]
    assert set(re.findall(r"`(\w+)`", listed)) - {"target"} == set(metrics())
    for name in re.findall(r"^\| `(\w+)`.*higher \|$", listed, re.MULTILINE):
        assert metric(name).higher_is_better
    code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "scores.py").write_text("\n".join(code))
    (tmp_path / "robust.py").write_text("def generalised_cross_entropy(logits, labels, q): ...")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    whole: dict[str, Any] = {"name": "page", "arms": ARMS}
    for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL):
        study = expand(parse(StudySpec, whole | yaml.safe_load(block)))
        for one in study.contrasts:
            assert metric(one.metric).named(one.target)
    scores = importlib.import_module("scores")
    assert scores.worst_class_error(np.array([0, 0, 1]), np.array([0, 1, 1])) == 50
    assert scores.Regression().check_targets([1, 2.5], "train").dtype == np.float32
    assert metric("scores:RECALL").higher_is_better


def test_kept_outputs_take_no_more_than_the_page_says() -> None:
    assert [(4 + bytes_kept(classes)) * count for classes, count in ((10, 10_000), (1000, 50_000))] == [
        240_000,
        1_400_000,
    ]
