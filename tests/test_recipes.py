"""Settings of a recipe beyond optimizer and schedule: against loops that are written out, and resumed to the bit."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from leadline.data.batches import Dataset, load
from leadline.errors import SpecError
from leadline.networks import cifar_resnet
from leadline.networks.modules import build
from leadline.parts.base import parse
from leadline.specs import DataSpec, NetworkSpec, TrainingSpec
from leadline.training import TrainState, prepare, train
from resuming import assert_resumes_to_the_bit

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    data = load(DataSpec(name="digits", train=70, validation=30, test=20, augment={"name": "translation"}))
    assert isinstance(data, Dataset)
    return data


def recipe(**settings: object) -> TrainingSpec:
    given: dict[str, object] = {"epochs": 3, "batch_size": 20, "optimizer": {"name": "sgd", "learning_rate": 0.05}}
    return parse(TrainingSpec, {**given, **settings})


def fresh(spec: TrainingSpec, network: NetworkSpec | None = None) -> TrainState:
    return prepare(build(network or cifar_resnet(8), (1, 8, 8), 10, 0), spec, CPU)


# --- weight decay of weights alone

DECAYING: dict[str, dict[str, Any]] = {
    "sgd": {"name": "sgd", "learning_rate": 0.05, "weight_decay": 0.1},
    "adam": {"name": "adam", "weight_decay": 0.1},
    "adamw": {"name": "adamw", "weight_decay": 0.1},
    "rmsprop": {"name": "rmsprop", "weight_decay": 0.1},
    "custom": {"module": "torch.optim:NAdam", "arguments": {"weight_decay": 0.1}},
}


@pytest.mark.parametrize("optimizer", DECAYING.values(), ids=DECAYING)
def test_biases_and_normalisation_do_not_decay(digits: Dataset, optimizer: dict[str, Any]) -> None:
    spec = recipe(optimizer=optimizer, decayed="weights", epochs=1)
    state = fresh(spec)
    list(train(state, digits, spec))

    model = build(cifar_resnet(8), (1, 8, 8), 10, 0).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with_, without = [], []
    for name, parameter in model.named_parameters():
        is_weight = name.endswith("weight") and ("conv" in name or "linear" in name)
        (with_ if is_weight else without).append(parameter)
    kind = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}.get(optimizer.get("name", ""))
    kind = kind or (torch.optim.RMSprop if "name" in optimizer else torch.optim.NAdam)
    given = {"lr": 0.05, "momentum": 0.9} if kind is torch.optim.SGD else {}
    groups = [{"params": with_, "weight_decay": 0.1}, {"params": without, "weight_decay": 0.0}]
    theirs = kind(groups, **({"lr": 0.001} if kind is torch.optim.RMSprop else given))
    model.train()
    for images, labels in digits.train_batches(0, 0, 20):
        theirs.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        theirs.step()
    for name, parameter in state.model.named_parameters():
        torch.testing.assert_close(parameter, model.get_parameter(name), rtol=1e-4, atol=1e-6)
    assert without and with_


@pytest.mark.parametrize("name", ["sgd", "adamw", "custom"])
def test_groups_of_parameters_resume_to_the_bit(digits: Dataset, name: str) -> None:
    spec = recipe(optimizer=DECAYING[name], decayed="weights", schedule="cosine")
    assert_resumes_to_the_bit(lambda: fresh(spec), digits, spec, (2, 4, 7))


def test_a_decay_that_is_not_there_cannot_be_of_weights_alone() -> None:
    spec = recipe(optimizer={"module": "torch.optim:Rprop"}, decayed="weights")
    with pytest.raises(
        SpecError, match=r"training\.decayed: weights needs an optimizer with weight decay, .* of Rprop"
    ):
        fresh(spec)


def test_decay_of_all_parameters_is_in_no_hash() -> None:
    assert "decayed" not in TrainingSpec().model_dump(mode="json")
    assert recipe(decayed="all").content_hash == recipe().content_hash != recipe(decayed="weights").content_hash
