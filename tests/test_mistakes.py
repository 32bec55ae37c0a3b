"""What arms misclassify, against scikit-learn and closed forms, and how a report shows it."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn.calibration
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st

from leadline.analysis.mistakes import (
    SHOWN_CLASSES,
    Mistakes,
    analyze_mistakes,
    class_frame,
    class_table,
    difference_table,
    mistake_sentences,
    worst_classes,
)
from leadline.analysis.stats import StatisticsError, class_errors, confusion_matrix, paired, reliability
from leadline.data.batches import load
from leadline.data.datasets import DataSpec
from leadline.data.network_input import NetworkInput
from leadline.parts.metrics import Outputs
from leadline.parts.metrics.calibration_error import BINS, calibration_error
from leadline.reports.charts.mistakes import calibration_frame, confusion_frame, mistake_figures
from leadline.reports.gallery import SIDE, read_pictures
from leadline.reports.mistakes import SHOWN_ALWAYS, SHOWN_EACH, mistakes_section
from leadline.reports.page import Section
from leadline.specs import parse
from leadline.specs.study import StudySpec
from leadline.study.expand import ExpandedStudy, expand


def predictions(classes: int, images: int, seed: int, right: float = 0.8) -> Outputs:
    """Outputs of a made-up network that is right with this probability; labels are those of every other one."""
    labels = np.random.default_rng(0).integers(0, classes, images)
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.ones(classes), images)
    chosen = np.where(generator.random(images) < right, labels, probabilities.argmax(1))
    swapped = probabilities.copy()  # so that the chosen class is the most probable
    rows, most = np.arange(images), probabilities.argmax(1)
    swapped[rows, chosen], swapped[rows, most] = probabilities[rows, most], probabilities[rows, chosen]
    return Outputs(labels.astype(np.int16), chosen.astype(np.int16), swapped.astype(np.float32))


@given(st.integers(2, 12), st.integers(1, 300), st.integers(0, 5))
def test_confusion_and_class_errors_are_those_of_scikit_learn(classes: int, images: int, seed: int) -> None:
    one = predictions(classes, images, seed + 1)
    found = confusion_matrix(one.labels, one.predicted, classes)
    assert (found == sklearn.metrics.confusion_matrix(one.labels, one.predicted, labels=range(classes))).all()
    recall = sklearn.metrics.recall_score(
        one.labels, one.predicted, labels=range(classes), average=None, zero_division=np.nan
    )
    assert class_errors(found) == pytest.approx(100 * (1 - recall), nan_ok=True)
    several = np.stack([found, found.T])
    assert class_errors(several)[0] == pytest.approx(class_errors(found), nan_ok=True)


@given(st.integers(2, 10), st.integers(1, 400), st.integers(0, 5))
def test_reliability_is_that_of_scikit_learn_and_its_error_that_of_the_metric(
    classes: int, images: int, seed: int
) -> None:
    one = predictions(classes, images, seed + 1)
    found = reliability(one.labels, one.predicted, one.probabilities, BINS)
    assert one.probabilities is not None
    confidence = one.probabilities.astype(np.float64).max(1)
    accuracy, mean = sklearn.calibration.calibration_curve(one.labels == one.predicted, confidence, n_bins=BINS)
    assert found.accuracy == pytest.approx(accuracy) and found.confidence == pytest.approx(mean)
    assert found.counts.sum() == images
    assert found.error == pytest.approx(calibration_error(one.labels, one.predicted, one.probabilities))


def test_what_is_no_confusion_is_refused() -> None:
    with pytest.raises(StatisticsError, match="not one of 2 classes"):
        confusion_matrix([0, 2], [0, 0], 2)
    with pytest.raises(StatisticsError, match="shape"):
        confusion_matrix([0, 1], [0], 2)
    assert np.isnan(class_errors([[0, 0], [1, 3]])[0]) and class_errors([[0, 0], [1, 3]])[1] == 25


# --- a study


def study_of(seeds: int = 3, data: dict[str, Any] | None = None, **more: Any) -> ExpandedStudy:
    spec = {
        "name": "s",
        "data": data or {"name": "digits"},
        "arms": {"plain": {"network": "comparative-plain"}, "residual": {"network": "comparative-resnet"}},
        "contrasts": [["residual", "plain"]],
        "seeds": seeds,
        **more,
    }
    return expand(parse(StudySpec, spec))


def trials_of(study: ExpandedStudy, classes: int = 10, images: int = 360) -> tuple[pd.DataFrame, dict[str, Outputs]]:
    rows, outputs = [], {}
    for place, (arm, trial) in enumerate(study.trials()):
        rows.append({"trial": trial.content_hash, "arm": arm.name, "base": arm.base, "seed": trial.seed_name})
        rows[-1] |= {"factors": dict(arm.factors), "state": "finished"}
        one = predictions(classes, images, place + 1, 0.95 if arm.base == "residual" else 0.6)
        if study.arms[0].trial.data.name == "digits" and images == 360:
            labels = load(study.arms[0].trial.data).test_labels
            wrong = (one.predicted != one.labels) | (np.arange(360) < 30)  # the first 30 by every network
            one = Outputs(labels.astype(np.int16), np.where(wrong, (labels + 1) % 10, labels).astype(np.int16), None)
        outputs[trial.content_hash] = one
    return pd.DataFrame(rows), outputs


def found_in(study: ExpandedStudy, classes: int = 4, images: int = 400) -> tuple[Mistakes, dict[str, Outputs]]:
    trials, outputs = trials_of(study, classes, images)
    found = analyze_mistakes(study, trials, outputs, {})
    assert found is not None
    return found, outputs


def test_classes_and_their_differences_are_those_of_the_predictions() -> None:
    study = study_of()
    found, outputs = found_in(study)
    frame = class_frame(found.arms)
    assert list(frame["class"].unique()) == ["0", "1", "2", "3"] and set(frame["seeds"]) == {3}
    errors = {
        (arm.name, place): [
            100 * np.mean(one.predicted[one.labels == place] != place)
            for seed in (0, 1, 2)
            for one in [outputs[arm.at(seed).content_hash]]
        ]
        for arm in study.arms
        for place in range(4)
    }
    for row in frame.itertuples():
        assert row.error == pytest.approx(np.mean(errors[row.arm, row.place]))
        assert 0 <= row.low <= row.error <= row.high <= 100
    images = class_frame(found.arms).set_index(["arm", "place"])["images"]
    for row in found.differences.itertuples():
        a, b = errors[row.a, row.place], errors[row.b, row.place]
        expected = paired(a, b, resolution=100 / images[row.a, row.place])
        assert row.difference == pytest.approx(expected.difference)
        assert expected.ci95 is not None and (row.low, row.high) == pytest.approx(expected.ci95)
        assert row.p == pytest.approx(expected.t_p) and row.p <= row.p_adjusted <= 1
    assert [len(class_table(found.arms).rows), len(difference_table(found).rows)] == [8, 4]


def test_images_that_all_misclassify_are_found_and_arms_that_guess_do_not_count() -> None:
    study = study_of()
    found, outputs = found_in(study)
    (always,) = found.always
    wrong = np.all([one.predicted != one.labels for one in outputs.values()], axis=0)
    assert always.places.tolist() == np.flatnonzero(wrong).tolist() and (always.trials, always.images) == (6, 400)
    trials, outputs = trials_of(study, 4, 400)
    for trial in trials.loc[trials["arm"].eq("plain"), "trial"]:
        outputs[trial] = Outputs(outputs[trial].labels, np.zeros(400, np.int16))
    guessing = analyze_mistakes(study, trials, outputs, {})
    assert guessing is not None and guessing.always[0].arms == ("residual",)
    said = [text for text, _ in mistake_sentences(guessing)]
    assert not [text for text in said if "plain" in text]


def test_one_seed_and_seeds_by_source_have_no_intervals() -> None:
    found, _ = found_in(study_of(seeds=1))
    assert class_frame(found.arms)[["low", "high"]].isna().all(axis=None)
    assert found.differences[["low", "high", "p"]].isna().all(axis=None)
    sources = study_of(seeds=1, vary={"seed.init": [0, 1]})
    found, _ = found_in(sources)
    assert set(class_frame(found.arms)["seeds"]) == {2} and class_frame(found.arms)["low"].isna().all()


def test_no_bin_of_a_few_images_is_drawn() -> None:
    found, _ = found_in(study_of(seeds=1), 4, 4)
    [figure] = [one for one in mistake_figures(found) if one.name == "mistakes-calibration"]
    assert figure.panels == () and not figure.data.empty
    assert figure.caption.startswith("Every bin has fewer than")


def test_every_arm_and_every_class_is_drawn_and_many_classes_are_bounded() -> None:
    for classes in (4, 30):
        study = study_of(vary={"blocks": [2, 5]}, contrasts=[["residual", "plain"]])
        found, _ = found_in(study, classes, 900)
        names = [arm.name for arm in study.arms]
        drawn = {figure.name: figure for figure in mistake_figures(found)}
        assert list(drawn) == [f"mistakes-{name}" for name in ("confusion", "classes", "differences", "calibration")]
        assert [panel.title for panel in drawn["mistakes-confusion"].panels] == names
        assert len(drawn["mistakes-classes"].panels) == len(drawn["mistakes-calibration"].panels) == 2
        assert len(drawn["mistakes-differences"].panels) == 2
        shown = {str(place) for place in worst_classes(found.arms)}
        assert len(shown) == min(classes, SHOWN_CLASSES)
        for figure in drawn.values():
            spec = json.dumps(figure.chart().to_dict(validate=False), allow_nan=False)
            assert len(spec) < 250_000
            assert ("20 of 30 classes" in figure.caption) == (classes == 30 and "calibration" not in figure.name)
        cells = confusion_frame(found.arms)
        assert set(cells["arm"]) == set(names)
        assert cells.groupby(["arm", "row"])["share"].sum().to_numpy() == pytest.approx(100)
        assert calibration_frame(found.arms).groupby("arm")["images"].sum().eq(2700).all()
        assert {row["class"] for row in class_table(found.arms).rows} == set(map(str, range(classes)))


def test_other_tasks_and_trials_without_outputs_have_no_section() -> None:
    study = study_of()
    trials, _ = trials_of(study, 4, 100)
    assert analyze_mistakes(study, trials, {}, {}) is None
    assert not list(mistakes_section(study, trials, {}, {}, None))


# --- images


def section_of(study: ExpandedStudy, data_dir: Path | None = None, names: tuple[str, ...] | None = None) -> Section:
    trials, outputs = trials_of(study)
    given = NetworkInput(input_shape=(1, 8, 8), classes=10, class_names=names, mean=(((0.0,),),), scale=(1.0,))
    (section,) = mistakes_section(study, trials, outputs, {arm.name: given for arm in study.arms}, data_dir)
    return section


def test_probabilities_that_were_not_read_are_said() -> None:
    study = study_of()
    trials, outputs = trials_of(study)
    bare = {trial: Outputs(one.labels, one.predicted) for trial, one in outputs.items()}
    for unread in (0, 123_456_789):
        (section,) = mistakes_section(study, trials, bare, {}, None, unread=unread)
        assert "mistakes-calibration" not in {figure.name for figure in section.figures}
        said = [text for text in section.paragraphs if text.startswith("Calibration is not shown")]
        assert [("123,456,789 probabilities" in text) for text in said] == [True] * bool(unread)


def test_images_of_a_report_are_those_of_the_data_set() -> None:
    names = tuple(f"digit {place}" for place in range(10))
    section = section_of(study_of(), names=names)
    always, first, second = section.galleries
    assert [one.title for one in (first, second)] == ["residual right, plain wrong", "plain right, residual wrong"]
    assert len(first.pictures) == SHOWN_EACH and len(always.pictures) == SHOWN_ALWAYS
    assert all(one.grid.width == one.grid.height == 8 for one in first.pictures)
    assert all(one.caption.startswith("digit ") and " → digit " in one.caption for one in first.pictures)
    assert "by plain at 3 of 3 seeds, by residual at 0;" in first.pictures[0].description
    place = int(section.tables[3].rows[0]["example"])
    data = load(DataSpec(name="digits"))
    picture = read_pictures(study_of().arms[0].trial, [place], data.test_labels, None)[place]
    assert picture.png == first.pictures[0].grid.png or picture.png == second.pictures[0].grid.png
    assert {pointer.target for pointer in section.pointers} <= {
        *("mistakes-images", *(figure.name for figure in section.figures))
    }


def test_a_report_is_written_without_the_images(tmp_path: Path) -> None:
    study = study_of(data={"name": "mnist", "train": 100})
    trials, outputs = trials_of(study, 10, 300)
    (section,) = mistakes_section(study, trials, outputs, {}, tmp_path)
    with_mistakes = [one for one in section.galleries if one.title]
    assert not any(one.pictures for one in section.galleries)
    assert all("The images were not at hand: " in one.caption for one in with_mistakes[1:])
    assert "(test image " in with_mistakes[1].caption
    other = study_of(data={"name": "digits", "test": 359})
    trials, outputs = trials_of(study_of(), 10, 360)
    trials["trial"] = [trial.content_hash for _, trial in other.trials()]
    outputs = dict(zip(trials["trial"], outputs.values(), strict=True))
    (section,) = mistakes_section(other, trials, outputs, {}, None)
    assert any("no longer those that networks were tested on" in one.caption for one in section.galleries)


def test_resampled_test_images_are_not_compared_one_by_one() -> None:
    study = study_of(data={"name": "digits", "resample": "split"})
    trials, outputs = trials_of(study, 10, 300)
    (section,) = mistakes_section(study, trials, outputs, {}, None)
    (said,) = section.galleries
    assert "drawn again at every seed" in said.caption and not said.pictures
    assert [table.name for table in section.tables] == ["mistakes-by-class", "mistakes-class-differences"]


def test_large_images_become_small_pictures_and_floats_fill_the_scale(tmp_path: Path) -> None:
    labels = np.arange(40) % 2
    images = np.random.default_rng(0).normal(size=(40, 3, 120, 60)).astype(np.float32)
    np.savez(tmp_path / "d.npz", train_images=images, train_labels=labels, test_images=images, test_labels=labels)
    trial = study_of(data={"name": "npz", "path": "d.npz"}).arms[0].trial
    found = read_pictures(trial, [3, 7], labels, tmp_path)
    assert {(one.width, one.height) for one in found.values()} == {(SIDE // 2, SIDE)}
    assert all(len(one.png) < 8_000 for one in found.values())
