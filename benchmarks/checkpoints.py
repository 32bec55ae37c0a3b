"""What a checkpoint with the records of its epochs costs, and the share of training that it takes.

    python -m benchmarks.checkpoints [--images 2000] [--epochs 3]

Trains one trial of each network in this process, as a worker does, with a store on disk: ResNet-20, ResNet-110 and the
residual network of the comparative study, on random images of CIFAR-10's size, with a checkpoint after each epoch. How
many epochs of all 50,000 images would share one follows from the time per image, or from the speed of another device:
`--images-per-second`.
"""

import argparse
import math
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import leadline as ll
from leadline.running.checkpoints import LARGEST_SHARE
from leadline.running.trial import TrialRun

NETWORKS = {
    "ResNet-20": {"family": "cifar-resnet", "depth": 20},
    "ResNet-110": {"family": "cifar-resnet", "depth": 110},
    "comparative-resnet": "comparative-resnet",
}
EPOCH = 50_000


def main() -> None:
    """Print the time of a checkpoint and its share of training for each network."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--images-per-second", type=float, help="speed of training on another device")
    options = parser.parse_args()
    torch.set_num_threads(1)
    spent: list[float] = []
    checkpoint = TrialRun.checkpoint

    def timed(self: TrialRun, *arguments: object) -> None:
        started = time.perf_counter()
        checkpoint(self, *arguments)  # type: ignore[arg-type]
        spent.append(time.perf_counter() - started)

    TrialRun.checkpoint = timed  # type: ignore[method-assign]
    draw = np.random.default_rng(0)
    for name, network in NETWORKS.items():
        spent.clear()
        with tempfile.TemporaryDirectory() as folder:
            images = draw.integers(0, 256, (options.images + 100, 3, 32, 32), dtype=np.uint8)
            labels = np.arange(len(images)) % 10
            path = Path(folder) / "images.npz"
            parts = {"train": slice(options.images), "test": slice(options.images, None)}
            named = {f"{part}_images": images[one] for part, one in parts.items()}
            np.savez(path, **named, **{f"{part}_labels": labels[one] for part, one in parts.items()})
            data, training = {"name": "npz", "path": str(path)}, {"epochs": options.epochs}
            study = ll.Study("one", arms={"one": {"network": network}}, data=data, training=training, seeds=1)
            results = study.run(Path(folder) / "runs", workers=0, progress=False, checkpoint_every="epoch")
            records = results.records
        seconds = records[(records["split"] == "time") & (records["name"] == "seconds")]["value"]
        speed = options.images_per_second or options.images / seconds.median()
        each, epoch = statistics.median(spent), EPOCH / speed
        sharing = max(1, math.ceil(each / LARGEST_SHARE / epoch))
        print(
            f"{name:<20} {1000 * each:6.1f} ms; at {speed:,.0f} images/s an epoch of {EPOCH:,} takes {epoch:,.2f} s:"
            f" {each / epoch:.2%} with one after each, {each / epoch / sharing:.2%} with one after {sharing}",
            flush=True,
        )


if __name__ == "__main__":
    main()
