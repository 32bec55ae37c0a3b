"""Seconds of an epoch of a 784-500 RBM on 10,000 images beside scikit-learn's BernoulliRBM, interleaved in one run.

    python -m benchmarks.rbm [--images 10000] [--hidden 500] [--batch 100] [--rounds 5] [--threads 2] [--output FILE]

(a) `train_rbm`, CD-1; (b) the same with persistent chains; (c) scikit-learn's, which is persistent CD-1; (d) a
denoising auto-encoder of the same shape. (c) computes no reconstruction error. Images are random pixels as sparse as
handwritten digits are: no step's time depends on their values. All have the same threads. Ratios are medians over
rounds of seconds over seconds.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from sklearn.neural_network import BernoulliRBM
from threadpoolctl import threadpool_limits

from leadline.pretraining.autoencoder import new_autoencoder, train_autoencoder
from leadline.pretraining.rbm import new_rbm, train_rbm
from leadline.specs.pretraining import PretrainingSpec

PIXELS = 784


def random_images(count: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(0)
    return (torch.rand(count, PIXELS, generator=random) < 0.13).float()


def run_rbm(images: torch.Tensor, hidden: int, batch: int, persistent: bool) -> Callable[[], float]:
    rbm = new_rbm(images, hidden)
    spec = PretrainingSpec(epochs=1, batch_size=batch, learning_rate=0.05, persistent=persistent)

    def once() -> float:
        started = time.perf_counter()
        list(train_rbm(rbm, images, spec))
        return time.perf_counter() - started

    return once


def run_autoencoder(images: torch.Tensor, hidden: int, batch: int) -> Callable[[], float]:
    machine = new_autoencoder(images, hidden)
    spec = PretrainingSpec(method="denoising-autoencoder", epochs=1, batch_size=batch)

    def once() -> float:
        started = time.perf_counter()
        list(train_autoencoder(machine, images, spec))
        return time.perf_counter() - started

    return once


def run_sklearn(images: torch.Tensor, hidden: int, batch: int) -> Callable[[], float]:
    values: np.ndarray = images.numpy()

    def once() -> float:
        machine = BernoulliRBM(hidden, learning_rate=0.05, batch_size=batch, n_iter=1, random_state=0)
        started = time.perf_counter()
        machine.fit(values)
        return time.perf_counter() - started

    return once


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--hidden", type=int, default=500)
    parser.add_argument("--batch", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", type=Path, default=Path("rbm.json"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    images, shape = random_images(options.images), (options.hidden, options.batch)
    peers = {
        "a contrastive divergence": run_rbm(images, *shape, persistent=False),
        "b persistent": run_rbm(images, *shape, persistent=True),
        "c scikit-learn": run_sklearn(images, *shape),
        "d auto-encoder": run_autoencoder(images, *shape),
    }
    seconds: dict[str, list[float]] = {name: [] for name in peers}
    with threadpool_limits(options.threads):
        for once in peers.values():
            once()  # warm-up
        for _ in range(options.rounds):
            for name, once in peers.items():
                seconds[name].append(once())
    median = {name: statistics.median(values) for name, values in seconds.items()}
    ratios = {
        f"c/{name[0]}": statistics.median(
            peer / own for peer, own in zip(seconds["c scikit-learn"], seconds[name], strict=True)
        )
        for name in ("a contrastive divergence", "b persistent")
    }
    print(
        f"{PIXELS}-{options.hidden}, {options.images} images, batch {options.batch}, threads {options.threads}:"
        " seconds per epoch"
    )
    for name, value in median.items():
        print(f"  {name:<26} {value:8.2f}")
    for name, value in ratios.items():
        print(f"  {name:<26} {value:8.2f}")
    results = {"threads": options.threads, "seconds": seconds, "median": median, "ratios": ratios}
    options.output.write_text(json.dumps(results, indent=2))
    print(f"written: {options.output}")


if __name__ == "__main__":
    main()
