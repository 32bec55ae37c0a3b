"""Training: pairing, oracles for step and schedule, exact resume, divergence, nothing global."""

import functools
import itertools
import math
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import lr_scheduler as schedulers
from torch.optim.lr_scheduler import LRScheduler

from leadline.data.batches import Dataset, load
from leadline.errors import SpecError
from leadline.networks import cifar_resnet, comparative_cnn, comparative_resnet
from leadline.networks.modules import build
from leadline.parts.base import parse
from leadline.parts.metrics.record import Record
from leadline.parts.optimizers import CustomOptimizer
from leadline.parts.schedules import CustomSchedule
from leadline.specs import (
    SGD,
    Adam,
    Augment,
    Constant,
    Cosine,
    DataSpec,
    FlowSpec,
    NetworkSpec,
    OneCycle,
    Optimizer,
    ProbeSpec,
    RMSprop,
    Schedule,
    StepDecay,
    TrainingSpec,
    Warmup,
)
from leadline.training import Diverged, TrainState, choose_device, evaluate, prepare, train
from leadline.training.recipe import rate_factor

CPU = torch.device("cpu")
SMALL = DataSpec(name="digits", train=150, validation=60, test=50, augment=Augment(pad=1))


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load(SMALL)


def fresh(spec: TrainingSpec, network: NetworkSpec | None = None, seed: int = 0) -> TrainState:
    return prepare(build(network or comparative_resnet(2), (1, 8, 8), 10, seed), spec, CPU)


def measured(records: list[Record]) -> list[Record]:
    return [record for record in records if record.split != "time"]


class Watched(nn.Module):
    """Passes on, and remembers what it saw while training."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.seen: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.seen.append(x.clone())
        return self.inner(x)


@pytest.mark.slow
def test_arms_of_one_seed_see_the_same_batches_whatever_their_size(digits: Dataset) -> None:
    spec = TrainingSpec(epochs=2, batch_size=32, optimizer=Adam())
    seen = []
    for network in (comparative_cnn(1), comparative_resnet(4), cifar_resnet(8)):
        watched = Watched(build(network, (1, 8, 8), 10))
        list(train(prepare(watched, spec, CPU), digits, spec, seed=7))
        seen.append(watched.seen)
    assert len(seen[0]) == 2 * math.ceil(150 / 32)
    for other in seen[1:]:
        assert all(torch.equal(a, b) for a, b in zip(seen[0], other, strict=True))
    assert not torch.equal(seen[0][0], seen[0][5])


@pytest.mark.slow
def test_no_global_generator_is_touched() -> None:
    # in a process of its own: the type checker of these tests draws from `random` itself
    script = """
import random, numpy, torch
import sklearn.datasets  # importing it draws from `random`
from leadline.data.batches import load
from leadline.networks import comparative_resnet
from leadline.networks.modules import build
from leadline.specs import Augment, DataSpec, TrainingSpec
from leadline.training import prepare, train

def states():
    return torch.get_rng_state().tolist(), random.getstate(), [list(map(str, numpy.random.get_state()))]

before = states()
data = load(DataSpec(name="digits", train=100, validation=50, test=50, augment=Augment()))
spec = TrainingSpec(epochs=1, batch_size=50)
list(train(prepare(build(comparative_resnet(1), (1, 8, 8), 10), spec, torch.device("cpu")), data, spec))
assert states() == before
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_steps_against_a_loop_written_out(digits: Dataset) -> None:
    spec = TrainingSpec(
        epochs=2,
        batch_size=40,
        optimizer=SGD(learning_rate=0.05, momentum=0.8, nesterov=True, weight_decay=0.01),
        schedule=Cosine(),
        label_smoothing=0.1,
        clip_norm=0.5,
    )
    state = fresh(spec)
    list(train(state, digits, spec, seed=3))

    model = build(comparative_resnet(2), (1, 8, 8), 10)
    velocity = {name: torch.zeros_like(value) for name, value in model.named_parameters()}
    steps, step = 2 * 4, 0
    for epoch in range(2):
        for images, labels in digits.train_batches(3, epoch, 40):
            log_p = F.log_softmax(model(images), 1)
            target = F.one_hot(labels, 10) * 0.9 + 0.01
            loss = -(target * log_p).sum(1).mean()
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            norm = torch.sqrt(sum((g**2).sum() for g in gradients))  # type: ignore[arg-type]
            rate = 0.05 * (1 + math.cos(math.pi * step / steps)) / 2
            with torch.no_grad():
                for (name, value), gradient in zip(model.named_parameters(), gradients, strict=True):
                    g = gradient * min(1.0, 0.5 / float(norm)) + 0.01 * value
                    velocity[name] = 0.8 * velocity[name] + g
                    value -= rate * (g + 0.8 * velocity[name])
            step += 1
    assert state.step == steps
    for name, value in state.model.named_parameters():
        torch.testing.assert_close(value, dict(model.named_parameters())[name], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "optimizer",
    [
        SGD(),
        Adam(weight_decay=0.01),
        Adam(name="adamw", weight_decay=0.01),
        RMSprop(momentum=0.5),
        CustomOptimizer(module="torch.optim:NAdam", arguments={"lr": 0.002}),
    ],
)
def test_in_parts_equals_at_once_to_the_bit(digits: Dataset, optimizer: Optimizer) -> None:
    spec = TrainingSpec(epochs=4, batch_size=64, optimizer=optimizer, schedule=OneCycle())
    network = cifar_resnet(8)
    whole = fresh(spec, network)
    records = list(train(whole, digits, spec, seed=1))

    first = fresh(spec, network)
    early = []
    for record in train(first, digits, spec, seed=1):
        early.append(record)
        if first.epoch == 2:
            break
    tensors = {name: tensor.clone() for name, tensor in first.tensors().items()}
    second = fresh(spec, network, seed=99)
    second.load(tensors, first.step, first.epoch)
    late = list(train(second, digits, spec, seed=1))

    assert measured(early + late) == measured(records)
    assert all(torch.equal(tensor, second.tensors()[name]) for name, tensor in whole.tensors().items())
    assert (whole.test_outputs.predicted == second.test_outputs.predicted).all()


def test_records_are_complete_and_in_their_units(digits: Dataset) -> None:
    spec = TrainingSpec(epochs=2, batch_size=50, test_every=2)
    state = fresh(spec)
    records = list(train(state, digits, spec, probes=ProbeSpec(flow=FlowSpec())))
    names = [(record.epoch, record.split, record.name) for record in records]
    assert len(set(names)) == len(names)
    for epoch in (1, 2):
        for split in ("train", "validation"):
            for name in ("loss", "accuracy", "error"):
                assert (epoch, split, name) in names
    assert (2, "test", "error") in names and (1, "test", "error") not in names
    value = {(record.epoch, record.split, record.name): record.value for record in records}
    assert value[(2, "final-test", "error")] == pytest.approx(100 * (1 - value[(2, "final-test", "accuracy")]))
    assert value[(2, "final-test", "error")] == value[(2, "test", "error")]
    assert value[(2, "final-validation", "loss")] == value[(2, "validation", "loss")]
    assert state.test_outputs is not None
    correct = (state.test_outputs.predicted == digits.test.labels.numpy()).mean()
    assert value[(2, "final-test", "accuracy")] == pytest.approx(correct)
    assert state.flow is not None
    names_, norms = state.flow.series("weight_gradient_norm")
    gradient = dict(state.model.named_parameters())["head.linear.weight"].grad
    assert gradient is not None
    assert norms[-1, names_.index("head.linear.weight")] == pytest.approx(float(gradient.norm()))


def test_probes_leave_training_as_it_is_to_the_bit(digits: Dataset) -> None:
    spec = TrainingSpec(epochs=2, batch_size=50)
    bare, probed = fresh(spec), fresh(spec)
    records = list(train(bare, digits, spec))
    steps = []
    same = []
    for record in train(probed, digits, spec, probes=ProbeSpec(flow=FlowSpec(every=2))):
        same.append(record)
        if record.split == "validation" and record.name == "error":
            assert probed.flow is not None
            steps.append(list(probed.flow.steps))
    assert measured(same) == measured(records)
    assert all(torch.equal(tensor, probed.tensors()[name]) for name, tensor in bare.tensors().items())
    assert bare.flow is None
    per_epoch = math.ceil(digits.train_size / 50)
    assert steps[0] + steps[1] == list(range(0, 2 * per_epoch, 2))
    assert not any(module._forward_hooks for module in probed.model.modules())


def test_flow_of_the_epoch_that_diverges_is_kept_up_to_there(digits: Dataset) -> None:
    spec = TrainingSpec(epochs=2, batch_size=50, optimizer=SGD(learning_rate=1e6))
    state = fresh(spec)
    with pytest.raises(Diverged) as caught:
        list(train(state, digits, spec, probes=ProbeSpec(flow=FlowSpec())))
    assert state.flow is not None
    assert list(state.flow.steps) == list(range(caught.value.step - 1))


def test_a_pause_in_the_consumer_is_not_training_time(digits: Dataset) -> None:
    spec = TrainingSpec(epochs=1, batch_size=2)
    times = [r.value for r in train(fresh(spec), digits, spec) if (r.split, r.name) == ("time", "images_per_second")]
    assert len(times) == 1 and times[0] > 0


@pytest.mark.parametrize("steps_before", [0, 3])
def test_divergence_names_its_step(digits: Dataset, steps_before: int) -> None:
    spec = TrainingSpec(epochs=3, batch_size=50)
    state = fresh(spec)

    class Poisoned(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner, self.calls = inner, 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            out: Tensor = self.inner(x)
            return out * (math.nan if self.calls > steps_before and self.training else 1)

    state.model = Poisoned(state.model)
    with pytest.raises(Diverged, match=f"nan at step {steps_before + 1}") as caught:
        list(train(state, digits, TrainingSpec(epochs=3, batch_size=50)))
    assert caught.value.step == steps_before + 1


def test_a_real_divergence(digits: Dataset) -> None:
    spec = TrainingSpec(epochs=5, batch_size=10, optimizer=SGD(learning_rate=1e6))
    with pytest.raises(Diverged):
        list(train(fresh(spec), digits, spec))


def test_a_divergence_by_the_very_last_step(digits: Dataset) -> None:
    spec = TrainingSpec(epochs=1, batch_size=150, optimizer=SGD(learning_rate=1e38))
    with pytest.raises(Diverged, match="at step 1"):
        list(train(fresh(spec), digits, spec))


@pytest.mark.slow
def test_it_learns(digits: Dataset) -> None:
    spec = TrainingSpec(epochs=12, batch_size=16, optimizer=Adam())
    data = load(DataSpec(name="digits"))
    last = {r.split + r.name: r.value for r in train(fresh(spec), data, spec.with_(epochs=3))}
    assert last["final-testerror"] < 8


@pytest.mark.parametrize(
    ("schedule", "step", "factor"),
    [
        (Constant(), 90, 1.0),
        (StepDecay(), 49, 1.0),
        (StepDecay(), 50, 0.1),
        (StepDecay(), 75, 0.01),
        (Cosine(), 0, 1.0),
        (Cosine(), 50, 0.5),
        (Cosine(final=0.2), 100, 0.2),
        (OneCycle(peak_at=0.25, start=0.1), 0, 0.1),
        (OneCycle(peak_at=0.25), 24, 1.0),
        (OneCycle(peak_at=0.2, final=0.5), 59, 0.75),
        (OneCycle(), 99, 0.000004),
    ],
)
def test_schedules_by_hand(schedule: Schedule, step: int, factor: float) -> None:
    assert schedule.at(step, 100) == pytest.approx(factor)


def in_torch(make: Callable[[torch.optim.Optimizer], LRScheduler], steps: int) -> list[float]:
    """The learning rate of every step, of a scheduler of PyTorch over one of 1."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 1.0)
    scheduler = make(optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def rates(steps: int, schedule: Schedule, warmup: Warmup | None = None) -> list[float]:
    factor = rate_factor(TrainingSpec(schedule=schedule, warmup=warmup), steps)
    return [factor(step) for step in range(steps)]


@pytest.mark.parametrize("steps", [2, 7, 60])
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Constant(), lambda o, steps: schedulers.ConstantLR(o, 1.0)),
        (Cosine(), lambda o, steps: schedulers.CosineAnnealingLR(o, steps)),
        (Cosine(final=0.1), lambda o, steps: schedulers.CosineAnnealingLR(o, steps, eta_min=0.1)),
        (StepDecay(), lambda o, steps: schedulers.MultiStepLR(o, [math.ceil(steps / 2), math.ceil(steps * 3 / 4)])),
        (OneCycle(peak_at=0.6), lambda o, steps: schedulers.OneCycleLR(o, 1.0, steps, pct_start=0.6)),
        (
            OneCycle(peak_at=0.9, start=0.1, final=0.02),
            lambda o, steps: schedulers.OneCycleLR(o, 1.0, steps, pct_start=0.9, div_factor=10, final_div_factor=5),
        ),
    ],
)
def test_schedules_are_those_of_torch(
    steps: int, ours: Schedule, theirs: Callable[[torch.optim.Optimizer, int], LRScheduler]
) -> None:
    assert rates(steps, ours) == pytest.approx(in_torch(lambda o: theirs(o, steps), steps), abs=1e-12)


@pytest.mark.parametrize(
    ("warmup", "theirs"),
    [
        (Warmup(steps=8), lambda o: schedulers.LinearLR(o, 1 / 8, total_iters=8)),
        (Warmup(steps=8, factor=0.1), lambda o: schedulers.LinearLR(o, 0.1, total_iters=8)),
        (Warmup(steps=8, factor=0.1, form="constant"), lambda o: schedulers.ConstantLR(o, 0.1, total_iters=8)),
    ],
)
def test_schedules_go_on_from_a_warm_up_as_in_torch(
    warmup: Warmup, theirs: Callable[[torch.optim.Optimizer], LRScheduler]
) -> None:
    steps, warm = 60, 8

    def warmed(o: torch.optim.Optimizer, after: LRScheduler) -> LRScheduler:
        return schedulers.SequentialLR(o, [theirs(o), after], [warm])

    cosine = in_torch(lambda o: warmed(o, schedulers.CosineAnnealingLR(o, steps - warm)), steps)
    assert rates(steps, Cosine(), warmup) == pytest.approx(cosine, abs=1e-12)
    # milestones are fractions of the whole training, as in He et al. 2016 and Goyal et al. 2017
    falling = in_torch(lambda o: warmed(o, schedulers.MultiStepLR(o, [30 - warm, 45 - warm])), steps)
    assert rates(steps, StepDecay(), warmup) == pytest.approx(falling, abs=1e-12)


def test_every_step_trains_and_a_warm_up_ends_at_the_full_rate() -> None:
    found = rates(100, Cosine(), Warmup(steps=30))
    assert min(found) > 0 and found[0] == 1 / 30 and max(found) == found[30] == 1.0
    assert max(abs(after - before) for before, after in itertools.pairwise(found)) < 0.04
    assert rates(3, Constant(), Warmup(steps=1)) == [1.0, 1.0, 1.0]
    assert len(rates(3, Cosine(), Warmup(steps=5))) == 3  # one longer than training


def test_a_custom_schedule_goes_on_from_a_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEADLINE_TRUST", "math")
    schedule = CustomSchedule(module="math:sqrt")
    assert rates(5, schedule, Warmup(steps=1)) == pytest.approx([1.0, 0.0, 0.5, 0.5**0.5, 0.75**0.5])


@pytest.mark.parametrize("peak_at", [0.001, 0.3, 0.999])
@pytest.mark.parametrize("steps", [1, 2, 3, 1000])
def test_one_cycle_ends_at_the_rate_that_is_asked_for(steps: int, peak_at: float) -> None:
    found = rates(steps, OneCycle(peak_at=peak_at, start=0.1, final=0.01))
    assert found[-1] == pytest.approx(0.01 if steps > 1 else 1.0) and 0 < min(found) <= max(found) <= 1


def test_warm_ups_that_make_no_sense_are_refused() -> None:
    with pytest.raises(SpecError, match="a constant warm-up with factor 0 trains nothing"):
        parse(Warmup, {"steps": 5, "form": "constant"})
    with pytest.raises(SpecError, match="one-cycle is a warm-up itself: leave warmup out"):
        parse(TrainingSpec, {"schedule": "one-cycle", "warmup": {"steps": 5}})


def test_warm_up_as_he_et_al_do_it() -> None:
    spec = TrainingSpec(warmup=Warmup(steps=400, factor=0.1, form="constant"), optimizer=SGD(learning_rate=0.1))
    factor = rate_factor(spec, 64_000)
    assert (factor(0), factor(399), factor(400)) == pytest.approx((0.1, 0.1, 1.0))


def test_evaluation_changes_nothing_and_does_not_depend_on_layout(digits: Dataset) -> None:
    spec = TrainingSpec()
    state = fresh(spec, cifar_resnet(8))
    before = state.tensors()
    result = evaluate(state.model, digits, "test", spec)
    assert all(torch.equal(tensor, state.tensors()[name]) for name, tensor in before.items())
    other = evaluate(state.model, digits, "test", spec.with_(channels_last=False))
    assert result.loss == pytest.approx(other.loss, rel=1e-5)
    assert len(result.predicted) == 50


def test_devices() -> None:
    assert choose_device("auto").type in ("cpu", "cuda")
    for name in ("gpu", "cuda:99", "meta", "cpu!"):
        with pytest.raises(SpecError, match=f"device '{name}'"):
            choose_device(name)


def test_an_optimizer_of_the_users_own_takes_the_steps_that_it_takes_alone_at_the_schedules_rates(
    digits: Dataset,
) -> None:
    custom = CustomOptimizer(module="torch.optim:NAdam", arguments={"lr": 0.002})
    spec = TrainingSpec(epochs=2, batch_size=40, optimizer=custom, schedule=Cosine())
    state = fresh(spec)
    list(train(state, digits, spec, seed=3))

    model = build(comparative_resnet(2), (1, 8, 8), 10)
    theirs = torch.optim.NAdam(model.parameters(), lr=0.002)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(theirs, 8)
    for epoch in range(2):
        for images, labels in digits.train_batches(3, epoch, 40):
            theirs.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            theirs.step()
            scheduler.step()
    for name, value in state.model.named_parameters():
        torch.testing.assert_close(value, dict(model.named_parameters())[name], rtol=1e-4, atol=1e-5)


class Keeping(torch.optim.SGD):
    """SGD with momentum by keeping half of each gradient."""

    def zero_grad(self, set_to_none: bool = True) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.mul_(0.5)


def test_a_custom_optimizer_may_have_a_zero_grad_of_its_own(digits: Dataset) -> None:
    spec = parse(TrainingSpec, {"epochs": 1, "batch_size": 40, "optimizer": functools.partial(Keeping, lr=0.01)})
    state, model = fresh(spec), fresh(spec).model
    list(train(state, digits, spec, seed=3))
    theirs = Keeping(model.parameters(), lr=0.01)
    model.train()
    for images, labels in digits.train_batches(3, 0, 40):
        loss = F.cross_entropy(model(images), labels)
        theirs.zero_grad()
        loss.backward()
        theirs.step()
    for name, value in state.model.named_parameters():
        torch.testing.assert_close(value, dict(model.named_parameters())[name], rtol=1e-4, atol=1e-5)


def test_gradients_of_parameters_that_the_optimizer_gets_later_are_dropped_too(digits: Dataset) -> None:
    spec = TrainingSpec(epochs=1, batch_size=40)
    state = fresh(spec)
    late = torch.nn.Parameter(torch.zeros(2))
    seen = train(state, digits, spec, pause=lambda step: True)
    next(seen)
    state.optimizer.add_param_group({"params": [late], "initial_lr": 0.0})
    late.grad = torch.ones(2)
    next(seen)
    assert late.grad is None


class Noisy(torch.optim.SGD):
    """SGD with noise from PyTorch's global generator (Welling & Teh 2011), as a user might write it."""

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        super().step(closure)
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    parameter.add_(torch.randn_like(parameter), alpha=1e-3)


def generalised_cross_entropy(logits: Tensor, labels: Tensor, q: float = 0.7) -> Tensor:
    """Return the loss that is robust to label noise (Zhang & Sabuncu 2018, equation 6)."""
    p = torch.softmax(logits, 1).gather(1, labels[:, None])
    return ((1 - p**q) / q).mean()


def noisy_loss(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits + torch.randn_like(logits), labels)


@pytest.mark.slow
def test_custom_parts_that_draw_are_keyed_by_the_step_and_leave_the_global_generators_alone(digits: Dataset) -> None:
    spec = parse(
        TrainingSpec,
        {"epochs": 2, "batch_size": 64, "loss": noisy_loss, "optimizer": functools.partial(Noisy, lr=0.01)},
    )
    torch.manual_seed(11)
    before = torch.get_rng_state()
    whole = fresh(spec)
    records = list(train(whole, digits, spec, seed=1))
    assert torch.equal(torch.get_rng_state(), before)

    torch.manual_seed(12)
    first = fresh(spec)
    early = []
    for record in train(first, digits, spec, seed=1):
        early.append(record)
        if first.epoch == 1:
            break
    tensors = {name: tensor.clone() for name, tensor in first.tensors().items()}
    second = fresh(spec, seed=99)
    second.load(tensors, first.step, first.epoch)
    assert measured(early + list(train(second, digits, spec, seed=1))) == measured(records)
    other = fresh(spec)
    assert measured(list(train(other, digits, spec, seed=2))) != measured(records)


def test_a_custom_loss_is_what_is_trained_on_and_evaluation_stays_comparable(digits: Dataset) -> None:
    custom = functools.partial(generalised_cross_entropy, q=1.0)  # 1 - p: the mean absolute error
    spec = parse(TrainingSpec, {"epochs": 1, "batch_size": 200, "loss": custom, "optimizer": {"name": "sgd"}})
    state = fresh(spec)
    with torch.no_grad():
        images, labels = next(digits.train_batches(0, 0, 200))
        state.model.train()
        expected = 1 - torch.softmax(fresh(spec).model.train()(images), 1).gather(1, labels[:, None]).mean()
    value = {(one.split, one.name): one.value for one in train(state, digits, spec)}
    assert value["train", "loss"] == pytest.approx(float(expected), rel=1e-5)
    state.model.eval()
    with torch.no_grad():
        images, labels = next(digits.evaluation_batches("test", 50))
        entropy = float(F.cross_entropy(state.model(images), labels))
    assert value["final-test", "loss"] == pytest.approx(entropy, rel=1e-5)


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        ({"module": "torch.nn:NoLoss"}, "has no function or class 'NoLoss'"),
        ({"module": "torch.nn.functional:one_hot"}, "expected a tensor with the batch's mean loss|calling it failed"),
        (
            {"module": "torch.nn:Linear", "arguments": {"in_features": 2, "out_features": 2}},
            "has parameters, which no optimizer would train",
        ),
    ],
)
def test_a_loss_that_cannot_be_gets_one_line(digits: Dataset, loss: object, message: str) -> None:
    spec = parse(TrainingSpec, {"epochs": 1, "loss": loss})
    with pytest.raises(SpecError, match=message) as caught:
        list(train(fresh(spec), digits, spec))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "loss",
    [
        {"module": "torch.nn.functional:multi_margin_loss", "arguments": {"margin": 0.5}},
        {"module": "torch.nn:MultiMarginLoss", "arguments": {"margin": 0.5}},
        "cross-entropy",
    ],
)
def test_parts_of_a_loss_add_up_to_that_of_the_batch(loss: object) -> None:
    criterion = parse(TrainingSpec, {"loss": loss}).loss
    assert criterion is not None
    logits, labels = torch.randn(10, 4, generator=torch.Generator().manual_seed(0)), torch.arange(10) % 4
    parts = [criterion.compute(logits[rows], labels[rows], "sum") for rows in (slice(0, 3), slice(3, 10))]
    torch.testing.assert_close(sum(parts) / 10, criterion.compute(logits, labels, "mean"))


def test_a_loss_that_takes_no_reduction_is_for_one_device() -> None:
    criterion = parse(TrainingSpec, {"loss": generalised_cross_entropy}).loss
    assert criterion is not None
    with pytest.raises(
        SpecError, match="has no argument `reduction`, so it cannot be split over devices; train on one device"
    ):
        criterion.compute(torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64), "sum")


def test_a_loss_that_is_defined_again_is_the_one_that_is_used() -> None:
    values = []
    for factor in (1.0, 2.0):

        def scaled(logits: Tensor, labels: Tensor, factor: float = factor) -> Tensor:
            return factor * F.cross_entropy(logits, labels)

        criterion = parse(TrainingSpec, {"loss": scaled}).loss
        assert criterion is not None
        values.append(float(criterion.compute(torch.zeros(3, 2), torch.zeros(3, dtype=torch.int64), "mean")))
    assert values[1] == pytest.approx(2 * values[0])


def test_a_loss_that_is_not_named_is_in_no_hash() -> None:
    assert "loss" not in TrainingSpec().model_dump(mode="json")
    named = parse(TrainingSpec, {"loss": "cross-entropy"})
    assert named.model_dump(mode="json")["loss"] == {"name": "cross-entropy"}
