"""Settings of a recipe beyond optimizer and schedule: against loops that are written out, and resumed to the bit."""

import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leadline.data.batches import Dataset, load
from leadline.errors import SpecError
from leadline.networks import cifar_resnet, comparative_resnet, family
from leadline.networks.modules import build, check_last_batch
from leadline.parts.base import parse
from leadline.specs import DataSpec, FlowSpec, NetworkSpec, ProbeSpec, TrainingSpec
from leadline.specs.study import StudySpec
from leadline.study.check import check_networks
from leadline.study.expand import expand
from leadline.study.load import load_study
from leadline.study.yaml12 import read_yaml
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


@pytest.mark.parametrize(
    ("training", "line"),
    [
        ({"optimizer": {"module": "torch.optim:Nope"}}, "torch.optim has no function or class 'Nope'"),
        ({"optimizer": {"module": "torch.optim:LBFGS"}}, "needs a closure"),
        ({"optimizer": {"module": "torch.optim:Rprop"}, "decayed": "weights"}, "Rprop have no weight_decay"),
    ],
)
def test_an_optimizer_that_cannot_train_is_refused_before_anything_is_trained(
    training: dict[str, object], line: str
) -> None:
    arms = {"plain": {"network": "mlp"}, "own": {"network": "mlp", "training": training}}
    study = expand(parse(StudySpec, {"name": "own", "data": {"name": "digits"}, "arms": arms}))
    with pytest.raises(SpecError, match=f"arm own: .*{line}"):
        check_networks(study)


def test_decay_of_all_parameters_is_in_no_hash() -> None:
    assert "decayed" not in TrainingSpec().model_dump(mode="json")
    assert recipe(decayed="all").content_hash == recipe().content_hash != recipe(decayed="weights").content_hash


# --- batches in parts

NOISY = parse(
    NetworkSpec,
    {
        **comparative_resnet(1).model_dump(mode="json"),
        "normalisation": "layer",
        "head": {"pool": "none", "dropout": 0.3},
        "block": {**comparative_resnet(1).block.model_dump(mode="json"), "stochastic_depth": 0.4, "dropout": 0.2},
    },
)
"""Draws noise and normalises every image by itself."""
FLOW = ProbeSpec(flow=FlowSpec(every=1, what=["gradients", "updates"]))


@pytest.mark.parametrize("parts", [2, 3, 20])
def test_a_batch_in_parts_gives_what_it_gives_at_once(digits: Dataset, parts: int) -> None:
    settings = {"label_smoothing": 0.1, "clip_norm": 0.5, "schedule": "cosine"}
    at_once, in_parts = recipe(**settings), recipe(**settings, accumulate=parts)
    whole, divided = fresh(at_once, NOISY), fresh(in_parts, NOISY)
    expected = list(train(whole, digits, at_once, 1, FLOW))
    found = list(train(divided, digits, in_parts, 1, FLOW))
    for name, tensor in whole.tensors().items():
        torch.testing.assert_close(divided.tensors()[name], tensor, rtol=1e-4, atol=1e-5)
    untimed = [[one for one in records if one.split != "time"] for records in (expected, found)]
    assert [one[:-1] for one in untimed[0]] == [one[:-1] for one in untimed[1]]
    assert [one.value for one in untimed[1]] == pytest.approx([one.value for one in untimed[0]], rel=1e-4)
    assert whole.flow is not None and divided.flow is not None
    flows = [one.flow.frame()["value"].to_numpy() for one in (whole, divided) if one.flow is not None]
    assert flows[1] == pytest.approx(flows[0], rel=1e-3)


class Counting(nn.Module):
    """Remembers of how many images each training pass was, and what it drew from the global generator."""

    def __init__(self) -> None:
        super().__init__()
        self.linear, self.passes, self.drawn = nn.Linear(64, 10), list[int](), list[float]()

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.passes.append(len(x))
            self.drawn.append(float(torch.rand(1)))
        out: Tensor = self.linear(x.flatten(1))
        return out


def test_parts_of_a_batch_differ_by_one_image_and_draw_noise_of_their_own(digits: Dataset) -> None:
    spec, model = recipe(batch_size=24, accumulate=5, epochs=1), Counting()
    list(train(prepare(model, spec, CPU), digits, spec, 1))
    assert [sum(model.passes[i : i + 5]) for i in (0, 5, 10)] == [24, 24, 22]
    assert set(model.passes) == {4, 5} and len(set(model.drawn)) == 15
    few, other = recipe(batch_size=23, accumulate=5, epochs=1), Counting()
    list(train(prepare(other, few, CPU), digits, few, 1))
    assert other.passes[-1:] == [1] and len(other.passes) == 3 * 5 + 1  # the last batch is one image


def test_batch_statistics_are_those_of_a_part(digits: Dataset) -> None:
    spec = recipe(batch_size=70, accumulate=2, epochs=1)
    state = fresh(spec)
    list(train(state, digits, spec))
    counts = [tensor for name, tensor in state.model.named_buffers() if name.endswith("num_batches_tracked")]
    assert counts and all(int(one) == 2 for one in counts)


def test_a_batch_in_parts_resumes_to_the_bit(digits: Dataset) -> None:
    spec = recipe(accumulate=3, averaging={"name": "ema", "decay": 0.9})
    assert_resumes_to_the_bit(lambda: fresh(spec, NOISY), digits, spec, (1, 6), FLOW)
    assert_resumes_to_the_bit(lambda: fresh(spec), digits, spec, (3, 4, 9))


@pytest.mark.parametrize(
    ("batch", "parts", "line"),
    [
        (20, 11, "with training.accumulate 11, a part of a batch is one image"),
        (20, 6, "with training.accumulate 6, a part of a batch is one image"),  # of the last, which has 10
        (20, 5, ""),
    ],
)
def test_a_part_that_batch_normalisation_cannot_train_on_is_refused(batch: int, parts: int, line: str) -> None:
    network = family("mlp", {"normalisation": "batch"})
    given = network, (1, 8, 8), 10, 70, recipe(batch_size=batch, accumulate=parts), "arm mlp"
    if not line:
        check_last_batch(*given)
        return
    with pytest.raises(SpecError, match=f"arm mlp: {line}, and batch normalisation cannot train on one value"):
        check_last_batch(*given)


def test_more_parts_than_images_are_refused() -> None:
    with pytest.raises(SpecError, match="accumulate 21 is more than the images of a batch, batch_size 20"):
        recipe(accumulate=21)


# --- optimizers of the user's own


@pytest.fixture
def lion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, object]]:
    """The study file's optimizer of the page on recipes, with the module that it is in."""
    page = (Path(__file__).parents[1] / "docs" / "training.md").read_text()
    section = page.partition("## Optimizers of your own")[2]
    (tmp_path / "lion.py").write_text(section.partition("```python\n")[2].partition("```")[0])
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("LEADLINE_TRUST", "lion")
    given = read_yaml(section.partition("```yaml\n")[2].partition("```")[0]).value
    assert isinstance(given, dict)
    yield given["training"]["optimizer"]
    sys.modules.pop("lion", None)


class LAMB(torch.optim.Optimizer):
    """LAMB (You et al. 2020), with its step as a number in Python, and in its group how long it has been at work."""

    def __init__(self, parameters: Any, lr: float = 0.01) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": 0.01, "seen": 0.0, "extra": None})

    @torch.no_grad()
    def step(self, closure: object = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            group["seen"] += 0.1
            for parameter in group["params"]:
                state = self.state[parameter]
                if not state:
                    state |= {"step": 0, "m": torch.zeros_like(parameter), "v": torch.zeros_like(parameter)}
                state["step"] += 1
                state["m"].mul_(0.9).add_(parameter.grad, alpha=0.1)
                state["v"].mul_(0.999).addcmul_(parameter.grad, parameter.grad, value=0.001)
                first, second = (state[key] / (1 - beta ** state["step"]) for key, beta in (("m", 0.9), ("v", 0.999)))
                update = first / (second.sqrt() + 1e-6) + group["weight_decay"] * parameter
                ratio = parameter.norm() / update.norm() if parameter.norm() > 0 and update.norm() > 0 else 1.0
                parameter -= group["lr"] * (1 + group["seen"] / 7) * ratio * update


class Keeping(torch.optim.SGD):
    """Keeps what a checkpoint cannot hold."""

    def step(self, closure: object = None) -> None:  # type: ignore[override]
        super().step()
        self.state[self.param_groups[0]["params"][0]]["history"] = [1, 2]


@pytest.mark.parametrize("settings", [{}, {"decayed": "weights", "schedule": "cosine", "rates": {"stem": 0.1}}])
@pytest.mark.parametrize(
    "optimizer",
    [
        functools.partial(torch.optim.NAdam, lr=0.01, weight_decay=0.01),
        functools.partial(LAMB, lr=0.02),
    ],
    ids=["nadam", "lamb"],
)
def test_an_optimizer_of_the_users_own_resumes_to_the_bit(
    digits: Dataset, optimizer: object, settings: dict[str, object]
) -> None:
    spec = recipe(optimizer=optimizer, **settings)
    assert_resumes_to_the_bit(lambda: fresh(spec), digits, spec, (1, 4, 7))


def test_the_lion_of_the_page_steps_by_its_paper_and_resumes_to_the_bit(
    digits: Dataset, lion: dict[str, object]
) -> None:
    spec = recipe(optimizer=lion, epochs=2)
    state = fresh(spec)
    before = {name: one.detach().clone() for name, one in state.model.named_parameters()}
    next(train(state, digits, spec, pause=lambda step: True))
    for name, parameter in state.model.named_parameters():
        assert parameter.grad is not None
        expected = before[name] - 0.001 * (parameter.grad.sign() + 0.1 * before[name])
        torch.testing.assert_close(parameter.detach(), expected, rtol=0, atol=1e-6)
    assert_resumes_to_the_bit(lambda: fresh(spec), digits, spec, (1, 4, 7))


def test_an_optimizer_that_keeps_what_a_checkpoint_cannot_hold_is_refused(digits: Dataset) -> None:
    spec = recipe(optimizer=functools.partial(Keeping, lr=0.1))
    state = fresh(spec)
    next(train(state, digits, spec, pause=lambda step: True))
    with pytest.raises(SpecError, match="optimizer Keeping keeps 'history', a list, which a checkpoint cannot hold"):
        state.tensors()


# --- smaller images in the first epochs

SIZES = [{"until": 0.5, "scale": 0.5}, {"until": 0.75, "scale": 0.7}]


class Sized(nn.Module):
    """Takes images of any size, and remembers those it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear, self.seen = nn.Conv2d(1, 4, 3), nn.Linear(4, 10), dict[bool, list[Tensor]]()

    def forward(self, x: Tensor) -> Tensor:
        self.seen.setdefault(self.training, []).append(x.clone())
        out: Tensor = self.linear(self.conv(x).mean((2, 3)))
        return out


def test_the_first_epochs_see_smaller_images_and_evaluation_none(digits: Dataset) -> None:
    spec, model = recipe(epochs=4, resizing=SIZES), Sized()
    list(train(prepare(model, spec, CPU), digits, spec, 1))
    assert [x.shape[2] for x in model.seen[True]] == [4] * 8 + [6] * 4 + [8] * 4
    assert {x.shape[2] for x in model.seen[False]} == {8}
    images, _ = next(iter(digits.train_batches(1, 0, 20)))
    assert torch.equal(model.seen[True][0], F.interpolate(images, (4, 4), mode="bilinear", antialias=True))
    assert recipe(resizing=None).content_hash == recipe().content_hash != recipe(resizing=SIZES).content_hash


def test_smaller_images_resume_to_the_bit(digits: Dataset) -> None:
    spec = recipe(epochs=4, resizing=SIZES, accumulate=2)
    assert_resumes_to_the_bit(lambda: fresh(spec), digits, spec, (3, 8, 14))


def test_sizes_that_cannot_be_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        SpecError, match=r"resizing: until \[0.75, 0.5\] must be distinct fractions of the epochs in rising"
    ):
        recipe(resizing=SIZES[::-1])
    study = {
        "name": "sizes",
        "data": {"name": "digits", "train": 60},
        "training": {"epochs": 2, "resizing": SIZES},
        "arms": {"flat": {"network": "mlp"}, "any": {"network": "cifar-resnet"}},
    }
    with pytest.raises(SpecError, match=r"arm flat: training\.resizing: the network cannot take images of 4x4 beside"):
        check_networks(load_study(study))
