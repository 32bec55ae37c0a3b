"""How fast this machine is: small networks timed once, and the time of every kind of operation fitted to them."""

import statistics
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from leadline import networks
from leadline.data.datasets.digits import Digits
from leadline.networks.modules import build
from leadline.specs import SGD, Adam, NetworkSpec, TrainingSpec, TrialSpec
from leadline.specs.network import Block, Stage, Stem
from leadline.study.planning.timing import Work, limit_threads, settling_steps, synthetic
from leadline.study.planning.tracing import Amounts, evaluation_amounts, step_amounts, trace
from leadline.training import evaluate, prepare, train

SECONDS = 8
"""About how long a calibration takes on a CPU."""

_SECONDS_EACH = 0.15  # of training steps of one network
_FEWEST, _MOST = 2, 40  # steps of one network; before the fewest come those that take longer


@dataclass(frozen=True)
class Sample:
    """One network timed: what it called, and how long that took."""

    amounts: Amounts
    seconds: float


def calibrate(device: torch.device, threads: int) -> dict[str, float]:
    """Return the seconds that one unit of every amount takes, such as a call, a value or a multiply-add.

    Args:
        device: where to train.
        threads: number of threads.
    """
    with limit_threads(threads):
        samples = [sample for work in networks_to_time() for sample in time_network(work, device)]
    return fit(samples)


def fit(samples: list[Sample]) -> dict[str, float]:
    """Return the seconds of a unit of every amount, none below 0, with the least squared relative errors."""
    from scipy.optimize import nnls

    names = sorted(set().union(*(sample.amounts for sample in samples)))
    rows = np.array([[sample.amounts[name] / sample.seconds for name in names] for sample in samples])
    scale = np.abs(rows).max(axis=0)
    found, _ = nnls(rows / scale, np.ones(len(samples)))
    return {name: float(value) for name, value in zip(names, found / scale, strict=True)}


def predict(speed: Mapping[str, float], amounts: Amounts) -> float:
    """Return the seconds that some amounts take."""
    return sum(number * speed.get(name, 0.0) for name, number in amounts.items())


def networks_to_time() -> Iterator[Work]:
    """Yield small networks that between them call every kind of operation, in several sizes."""
    grouped = NetworkSpec(
        stem=Stem(width=128),
        stages=(Stage(blocks=2, width=128),),
        block=Block(kind="bottleneck", groups=8),
    )
    sgd, adam = SGD(learning_rate=1e-9), Adam(learning_rate=1e-9)
    for network, shape, batch, optimizer in (
        (networks.mlp(hidden=2, width=16), (1, 8, 8), 16, sgd),
        (networks.mlp(hidden=8, width=64, activation="tanh"), (1, 8, 8), 64, adam),
        (networks.mlp(hidden=3, width=512), (1, 28, 28), 128, sgd),
        (networks.mlp(hidden=2, width=512, normalisation="batch"), (3, 32, 32), 64, adam),
        (networks.comparative_plain(blocks=2), (1, 8, 8), 64, adam),
        (networks.comparative_resnet(blocks=1), (1, 28, 28), 32, adam),
        (networks.comparative_cnn(blocks=3), (3, 16, 16), 64, sgd),
        (networks.cifar_resnet(depth=8), (1, 8, 8), 64, sgd),
        (networks.cifar_resnet(depth=8), (3, 32, 32), 32, sgd),
        (networks.cifar_preresnet(depth=11), (3, 32, 32), 16, sgd),
        (networks.wide_resnet(depth=10, widen=4), (3, 16, 16), 16, sgd),
        (networks.densenet(depth=16, growth=12), (3, 16, 16), 16, sgd),
        (NetworkSpec(stem=Stem(width=256), stages=(Stage(blocks=1, width=256),)), (3, 8, 8), 16, sgd),
        (grouped, (3, 16, 16), 16, sgd),
    ):
        training = TrainingSpec(epochs=1, batch_size=batch, optimizer=optimizer)
        yield Work(TrialSpec(network=network, data=Digits(), training=training), shape, 10)


def time_network(work: Work, device: torch.device) -> Iterator[Sample]:
    """Yield the training step and the evaluation of a network, each with the time that it takes."""
    trial, traced = work.trial, trace(work, work.trial.training.batch_size)
    state = prepare(build(trial.network, work.shape, work.classes), trial.training, device)
    data = synthetic(work, _MOST).to(device)
    took: list[float] = []
    first = max(1, settling_steps(device))
    began = _clock(device)
    for record in train(state, data, trial.training, pause=lambda step: True):
        if record.split != "batch":
            break
        took.append(_clock(device) - began)
        if sum(took) > _SECONDS_EACH and len(took) >= first + _FEWEST:
            break
        began = _clock(device)
    amounts = step_amounts(work, traced), evaluation_amounts(work, traced)
    assert amounts[0] is not None and amounts[1] is not None  # of networks of Leadline's parts
    yield Sample(amounts[0], statistics.median(took[first:]))
    took.clear()
    for _ in range(3):
        began = _clock(device)
        evaluate(state.model, data, "test", trial.training)
        took.append(_clock(device) - began)
    yield Sample(amounts[1], min(took))


def _clock(device: torch.device) -> float:
    """Return seconds: of computing on one thread, which other programs do not lengthen, and else of real time."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.process_time() if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter()
