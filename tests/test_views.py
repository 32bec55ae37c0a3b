"""Evaluation on several views of each image: against probabilities averaged by hand, and what cannot be seen so."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import leadline as ll
from leadline.data.batches import load
from leadline.errors import SpecError
from leadline.networks import comparative_resnet
from leadline.networks.modules import build
from leadline.parts.base import parse
from leadline.parts.tasks import Task
from leadline.specs import DataSpec, TrainingSpec, TrialSpec
from leadline.training import evaluate, prepare, train

CPU = torch.device("cpu")


def recipe(**settings: object) -> TrainingSpec:
    return parse(TrainingSpec, {"epochs": 2, "batch_size": 20, **settings})


def mean_of_probabilities(model: torch.nn.Module, views: list[Tensor]) -> Tensor:
    with torch.no_grad():
        return torch.stack([model.eval()(view).softmax(1) for view in views]).mean(0)


def test_mirror_images_are_averaged_at_the_end_alone() -> None:
    data = load(DataSpec(name="digits", train=70, validation=30, test=20))
    spec = recipe(evaluation={"flip": True}, averaging="swa")
    state = prepare(build(comparative_resnet(1), (1, 8, 8), 10, 0), spec, CPU)
    plain = prepare(build(comparative_resnet(1), (1, 8, 8), 10, 0), spec, CPU)
    records = [one for one in train(state, data, spec, 1) if one.split != "time"]
    others = [one for one in train(plain, data, spec.with_(evaluation=None), 1) if one.split != "time"]
    same = [one for one in records if not one.split.startswith("final") or one.split == "final-train"]
    assert same == [one for one in others if not one.split.startswith("final") or one.split == "final-train"]
    value = {(one.split, one.name): one.value for one in records}
    for split in ("validation", "test"):
        images, labels = next(iter(data.evaluation_batches(split, 100)))  # type: ignore[arg-type]
        expected = mean_of_probabilities(state.model, [images, images.flip(3)])
        assert value[f"final-{split}", "error"] == pytest.approx(100 * (expected.argmax(1) != labels).float().mean())
        loss = -expected[range(len(labels)), labels].log().mean()
        assert value[f"final-{split}", "loss"] == pytest.approx(float(loss), rel=1e-5)
    assert state.test_outputs is not None and state.test_outputs.probabilities is not None
    np.testing.assert_allclose(state.test_outputs.probabilities, expected, atol=1e-6)
    assert value["final-test", "loss"] != {(one.split, one.name): one.value for one in others}["final-test", "loss"]
    assert state.average is not None
    with state.average.applied(state.model, data, spec):
        of_average = mean_of_probabilities(state.model, [images, images.flip(3)])
    loss = -of_average[range(len(labels)), labels].log().mean()
    assert value["final-averaged-test", "loss"] == pytest.approx(float(loss), rel=1e-5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[np.ndarray]]:
    """An image folder of two classes, and its images, 16 high and 20 wide, in the order of evaluation."""
    place = tmp_path_factory.mktemp("images")
    noise, test = np.random.default_rng(0), []
    for part, count in (("train", 10), ("test", 4)):
        for label in ("a", "b"):
            (place / part / label).mkdir(parents=True)
            for number in range(count):
                pixels = noise.integers(0, 256, (16, 20, 3)).astype(np.uint8)
                Image.fromarray(pixels).save(place / part / label / f"{number}.png")
                test += [pixels] if part == "test" else []
    return place, test


def images(folder: Path, **keys: object) -> dict[str, Any]:
    return {"name": "imagefolder", "path": str(folder), "size": 12, "resize": 16, **keys}


@pytest.mark.parametrize(("crops", "flip", "count"), [(5, False, 5), (5, True, 10), (10, False, 10), (1, True, 2)])
def test_crops_are_those_of_the_corners_and_the_centre(
    folder: tuple[Path, list[np.ndarray]], crops: int, flip: bool, count: int
) -> None:
    place, pixels = folder
    evaluation = {"crops": crops, "flip": flip}
    network = comparative_resnet(1).model_dump(mode="json")
    trial = parse(
        TrialSpec,
        {"network": network, "data": images(place, validation=4), "training": {"evaluation": evaluation, "epochs": 1}},
    )
    views = trial.training.evaluation
    assert views is not None and views.count == count
    data = load(trial.data)
    model = build(trial.network, data.shape, 2, 3)
    found = evaluate(model, data, "test", trial.training, keep_outputs=True, views=views)
    # the shorter side stays as it is, and of the 20 columns the middle 16 are the centre square
    corners = [(2, 4)] if crops == 1 else [(2, 4), (0, 2), (0, 6), (4, 2), (4, 6)]
    cut = [torch.from_numpy(np.stack([one[y : y + 12, x : x + 12] for one in pixels])) for y, x in corners]
    normal = [(one.permute(0, 3, 1, 2).float() - data.mean) / data.scale for one in cut]
    mirrored = [one.flip(3) for one in normal] if count in (2, 10) else []
    expected = mean_of_probabilities(model, normal + mirrored)
    assert found.outputs is not None and found.outputs.probabilities is not None
    np.testing.assert_allclose(found.outputs.probabilities, expected, atol=1e-5)


def test_crops_that_cannot_be_are_refused(folder: tuple[Path, list[np.ndarray]]) -> None:
    network = comparative_resnet(1).model_dump(mode="json")
    for data, line in (
        ({"name": "digits"}, r"evaluation\.crops 10: needs images that are decoded during training, .* got digits"),
        (images(folder[0], resize=12), "images of shorter side 12 have no other crop of size 12 than the centre"),
    ):
        with pytest.raises(SpecError, match=line):
            parse(TrialSpec, {"network": network, "data": data, "training": {"evaluation": {"crops": 10}}})
    with pytest.raises(SpecError, match=r"evaluation\.crops 5: needs images that are decoded during training"):
        list(ll.train("mlp", {"name": "digits", "train": 64, "test": 50}, {"epochs": 1, "evaluation": {"crops": 5}}))


def test_each_image_once_is_in_no_hash() -> None:
    assert "evaluation" not in TrainingSpec().model_dump()
    assert recipe(evaluation={"flip": True}).content_hash != recipe().content_hash


def test_views_of_another_task_have_the_mean_of_their_outputs() -> None:
    class Regression(Task):
        name = "regression"

        def predict(self, outputs: Tensor) -> Tensor:
            return outputs

        def values(self, loss: float, right: float) -> dict[str, float]:
            return {"loss": loss}

    views = [torch.tensor([[1.0], [2.0]]), torch.tensor([[3.0], [6.0]])]
    assert Regression().average(views).tolist() == [[2.0], [4.0]]
