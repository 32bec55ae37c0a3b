"""What an epoch of `leadline.train` costs on the networks of the study `parity`, as a multiple of a bare loop.

    python -m benchmarks.small [--rounds 15]

The networks are so small that a step is mostly the calls that it makes. The bare loop has the same network, optimizer
and batches, prepared beforehand, and does what every tutorial does: forward, loss, backward, step. Both train an epoch
in turns, with one thread; the ratio is the median over rounds.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from leadline.data.batches import Data, load
from leadline.networks.modules import build
from leadline.specs import NetworkSpec, TrainingSpec
from leadline.study.load import load_study
from leadline.training import TrainState, prepare, train

CPU = torch.device("cpu")


def prepare_network(network: NetworkSpec, data: Data, recipe: TrainingSpec) -> TrainState:
    return prepare(build(network, data.shape, data.classes), recipe, CPU)


def run_leadline(network: NetworkSpec, data: Data, recipe: TrainingSpec) -> Callable[[], float]:
    records = train(prepare_network(network, data, recipe), data, recipe.with_(epochs=10_000))

    def once() -> float:
        """Seconds of the next epoch's steps, with everything that `train` does for them."""
        return next(record.value for record in records if record.name == "seconds")

    return once


def run_bare(network: NetworkSpec, data: Data, recipe: TrainingSpec) -> Callable[[], float]:
    state = prepare_network(network, data, recipe)
    batches = list(data.train_batches(0, 0, recipe.batch_size))

    def once() -> float:
        state.model.train()
        started = time.perf_counter()
        for images, labels in batches:
            loss = F.cross_entropy(state.model(images), labels)
            state.optimizer.zero_grad()
            loss.backward()
            state.optimizer.step()
        return time.perf_counter() - started

    return once


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    trials = {arm.base: trial for arm, trial in load_study("parity").trials()}  # one of each network's
    for arm, trial in trials.items():
        recipe, data = trial.training, load(trial.data)
        peers = [run(trial.network, data, recipe) for run in (run_leadline, run_bare)]
        for once in peers:
            once()
        rounds = [[once() for once in peers] for _ in range(options.rounds)]
        ratio = statistics.median(a / b for a, b in rounds)
        steps = -(-data.train_size // recipe.batch_size)
        a, b = (1e6 * statistics.median(each) / steps for each in zip(*rounds, strict=True))
        print(f"{arm:<12} {a:5.0f} microseconds per step, bare {b:5.0f}: {ratio:.2f} times", flush=True)


if __name__ == "__main__":
    main()
