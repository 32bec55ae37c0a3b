"""Data that are resampled at every seed: the bootstrap of training images, and splits that are drawn again."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import leadline as ll
from leadline.analysis.verdict.wording.notes import notes
from leadline.data.batches import Dataset, load
from leadline.errors import SpecError
from leadline.seeds import Seed
from leadline.specs import DataSpec
from leadline.study.load import load_study


def numbered() -> ll.Arrays:
    """Images that hold their own number, of three classes, of which the first has half of the images."""
    count = 120
    images = np.zeros((count, 1, 2, 2), np.float32)
    images[:, 0, 0, 0] = np.arange(count)
    labels = np.array([0, 0, 1, 2])[np.arange(count) % 4]
    return ll.Arrays(train=(images[:90], labels[:90]), test=(images[90:], labels[90:]))


def numbers(seed: int = 0, **keys: Any) -> dict[str, list[int]]:
    """The numbers of the images of each part."""
    data = load(DataSpec(module=f"{__name__}:numbered", validation=10, normalise="none", **keys), seed=seed)
    assert isinstance(data, Dataset)
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    return {name: part.images[:, 0, 0, 0].int().tolist() for name, part in parts.items()}


def test_a_bootstrap_draws_training_images_with_replacement_and_leaves_the_rest() -> None:
    plain, first, again, other = numbers(), *(numbers(seed, resample="bootstrap") for seed in (1, 1, 2))
    assert first == again
    assert first["train"] != other["train"]
    for drawn in (first, other):
        assert drawn["validation"] == plain["validation"]
        assert drawn["test"] == plain["test"]
        assert len(drawn["train"]) == len(plain["train"]) == 80
        assert set(drawn["train"]) < set(plain["train"])
    times = Counter(number for seed in range(300) for number in numbers(seed, resample="bootstrap")["train"])
    assert set(times) == set(plain["train"])
    spread = np.std(list(times.values()))  # of binomial counts: the root of 300 x 80/80
    assert 0.7 * 300**0.5 < spread < 1.3 * 300**0.5


def test_a_split_is_drawn_from_all_images_with_the_classes_in_their_proportions() -> None:
    plain, first, again, other = numbers(), *(numbers(seed, resample="split") for seed in (1, 1, 2))
    assert first == again
    assert first["test"] != other["test"] != plain["test"]
    for drawn in (first, other):
        everything = [number for part in drawn.values() for number in part]
        assert sorted(everything) == list(range(120))
        assert len(drawn["test"]) == 30
        assert Counter(number % 4 // 2 for number in drawn["test"]) == {0: 15, 1: 15}


def test_a_subset_is_drawn_from_the_new_split() -> None:
    first, other = (numbers(seed, resample="split", train=20) for seed in (1, 2))
    assert len(first["train"]) == 20
    assert first["train"] != other["train"]
    assert numbers(1, train=20) == numbers(2, train=20)  # without resampling a subset is the same at every seed


@pytest.mark.parametrize("resample", ["bootstrap", "split"])
def test_resampling_follows_the_seed_of_the_split_alone(resample: str) -> None:
    by_source = numbers(Seed(5, {"split": 1, "init": 9}), resample=resample)
    assert by_source == numbers(1, resample=resample) != numbers(5, resample=resample)


def test_data_that_are_not_resampled_keep_their_specification() -> None:
    assert "resample" not in DataSpec(name="digits").model_dump()
    assert DataSpec(name="digits").content_hash == "a5fd5264480c523150d441f1bab5a51671c588357c4d458b1545281d8c8a281d"
    assert DataSpec(name="digits", resample="split").model_dump()["resample"] == "split"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"data": {"name": "digits", "resample": "halves"}}, "data.resample: 'halves'"),
        ({"data": {"name": "imagefolder", "path": "x", "size": 8, "resample": "split"}}, "is for images in memory"),
        (
            {"data": {"name": "digits", "resample": "split"}, "tune": {"learning_rate": {"log": [0.1, 1]}}},
            "tune would have chosen on",
        ),
    ],
)
def test_what_cannot_be_resampled(keys: dict[str, object], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        load_study({"name": "resampled", "arms": {"a": {"network": "mlp"}}, **keys})


def test_wrong_labels_are_said_of_arms_and_of_seeds(tmp_path: Path) -> None:
    study = ll.Study(
        "noisy",
        data={"name": "digits", "train": 100, "test": 60},
        training={"epochs": 2, "batch_size": 10, "optimizer": {"name": "adam", "learning_rate": 0.01}},
        arms={"clean": {"network": "mlp"}, "noisy": {"network": "mlp", "data": {"label_noise": 0.2}}},
        seeds={"split": 2},
    )
    said = " ".join(notes(study.run(tmp_path, workers=0, progress=False).verdict().findings))
    assert "Some training labels of noisy are wrong (data.label_noise); training errors are measured against" in said
    assert "other seeds of wrong labels alone, and the same initial weights, order, augmentation and noise in" in said


@pytest.mark.parametrize(
    ("resample", "seeds", "said"),
    [
        (None, 2, "with other seeds on this one data set and split."),
        ("bootstrap", 2, "with other seeds on data of this kind: other training images, as many, and the same test"),
        ("split", 2, "with other seeds on data of this kind: other training and test images, as many."),
        ("split", {"init": 2}, "other seeds of initial weights alone, and the same order, augmentation and noise in"),
        (
            "split",
            {"split": 2},
            "with the same initial weights, order, augmentation and noise in the network on data of",
        ),
    ],
)
def test_the_verdict_says_for_what_it_holds(tmp_path: Path, resample: str | None, seeds: object, said: str) -> None:
    study = ll.Study(
        "resampled",
        data={"name": "digits", "train": 100, "test": 60, **({"resample": resample} if resample else {})},
        training={"epochs": 10, "batch_size": 10, "optimizer": {"name": "adam", "learning_rate": 0.01}},
        arms={"narrow": {"network": {"family": "mlp", "width": 48}}, "wide": {"network": "mlp"}},
        seeds=seeds,
    )
    results = study.run(tmp_path, workers=0, progress=False)
    findings = results.verdict().findings
    assert said in " ".join(notes(findings))
    assert len(findings.contrasts[0].mcnemar) == 2  # both arms of a pair are tested on the same images
    labels = [group["label"].tolist() for _, group in results.predictions.groupby("trial", sort=False)]
    changed = labels[0] != labels[2]
    assert labels[0] == labels[1]
    assert changed == (resample == "split" and seeds != {"init": 2})
    assert (findings.contrasts[0].images is None) >= (resample == "split")
