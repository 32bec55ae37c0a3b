"""Images per second of Leadline's whole training against its peers, interleaved in one run; ratios as JSON.

    python -m benchmarks.throughput [--steps 20] [--rounds 3] [--output throughput.json]

(a) `leadline.train`, everything included that an epoch does to the training images; one process, one and two threads
(b) a bare PyTorch loop over float tensors in memory; the same network, optimizer and batches' size
(c) PyTorch with a DataLoader and per-image transforms in Python
(d) the same network in Keras on TensorFlow, where they import
(h) `leadline.train` as in (a), in bfloat16
(w) two processes of (a) with one thread each, as `leadline run` has them, against (b) with two threads
"""

import argparse
import dataclasses
import importlib.util
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from leadline.data.batches import Dataset, Split
from leadline.data.pixels import normalisation
from leadline.networks import cifar_resnet, comparative_cnn
from leadline.networks.modules import build
from leadline.specs import SGD, Adam, DataSpec, NetworkSpec, TrainingSpec
from leadline.training import TrainState, prepare, train
from leadline.training.numerics import autocast

BATCH = 128
CLASSES = 10
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Case:
    name: str
    network: NetworkSpec
    data: DataSpec
    shape: tuple[int, int, int]
    training: TrainingSpec


CASES = {
    case.name: case
    for case in (
        Case(
            "comparative-cnn 1x28x28",
            comparative_cnn(5),
            DataSpec(name="mnist"),
            (1, 28, 28),
            TrainingSpec(epochs=1, batch_size=BATCH, optimizer=Adam()),
        ),
        Case(
            "cifar-resnet 20 3x32x32",
            cifar_resnet(20),
            DataSpec(name="cifar10"),
            (3, 32, 32),
            TrainingSpec(epochs=1, batch_size=BATCH, optimizer=SGD(weight_decay=1e-4)),
        ),
    )
}


def images_and_labels(case: Case, steps: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (steps * BATCH, *case.shape), dtype=np.uint8)
    return images, rng.integers(0, CLASSES, steps * BATCH).astype(np.int64)


def leadline_dataset(case: Case, steps: int) -> Dataset:
    images, labels = images_and_labels(case, steps)
    train_split = Split(torch.from_numpy(images), torch.from_numpy(labels))
    few = Split(train_split.images[:2], train_split.labels[:2])
    mean, scale = normalisation(iter([train_split.images]), case.data.normalise, case.shape[0])
    return Dataset(case.data, case.shape, CLASSES, train_split, few, few, mean, scale)


def prepare_case(case: Case, device: torch.device) -> TrainState:
    """A new network of a case with its optimizer, on a device."""
    return prepare(build(case.network, case.shape, CLASSES), case.training, device)


def run_leadline(case: Case, steps: int, device: torch.device = CPU) -> Callable[[], float]:
    records = train(
        prepare_case(case, device), leadline_dataset(case, steps).to(device), case.training.with_(epochs=10_000)
    )

    def once() -> float:
        """Seconds of the next epoch as a caller sees them, evaluation of two images included."""
        started = time.perf_counter()
        next(record for record in records if record.name == "images_per_second")
        return time.perf_counter() - started

    return once


def run_bare(case: Case, steps: int, device: torch.device = CPU) -> Callable[[], float]:
    images, labels = images_and_labels(case, steps)
    x = torch.from_numpy(images).to(device).float().div(255).contiguous(memory_format=torch.channels_last)
    y = torch.from_numpy(labels).to(device)
    return run_loop(case, device, lambda: zip(x.split(BATCH), y.split(BATCH), strict=True))


def run_loop(
    case: Case, device: torch.device, batches: Callable[[], Iterable[tuple[torch.Tensor, torch.Tensor]]]
) -> Callable[[], float]:
    """Seconds of one epoch of the loop that every tutorial has, over these batches."""
    state = prepare_case(case, device)
    model, optimizer = state.model, state.optimizer

    def once() -> float:
        model.train()
        started = time.perf_counter()
        for images, labels in batches():
            x, y = images.to(device, non_blocking=True), labels.to(device, non_blocking=True)
            with autocast(device, case.training.precision):
                loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started

    return once


class PerImage(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """One image at a time through Python, as most training scripts do it."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, crop_and_flip: bool) -> None:
        self.images = images.transpose(0, 2, 3, 1).copy()
        self.labels = labels
        self.crop_and_flip = crop_and_flip
        self.rng = np.random.default_rng(0)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = self.images[index]
        if self.crop_and_flip:
            top, left = self.rng.integers(0, 9, 2)
            image = np.pad(image, ((4, 4), (4, 4), (0, 0)))[top : top + image.shape[0], left : left + image.shape[1]]
            if self.rng.random() < 0.5:
                image = image[:, ::-1]
        tensor = torch.from_numpy(image.transpose(2, 0, 1).copy()).float().div(255)
        return (tensor - 0.5) / 0.25, int(self.labels[index])


def run_dataloader(case: Case, steps: int, device: torch.device = CPU, workers: int = 0) -> Callable[[], float]:
    images, labels = images_and_labels(case, steps)
    loader = torch.utils.data.DataLoader(
        PerImage(images, labels, case.data.augment is not None),
        BATCH,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
    )
    contiguous = dataclasses.replace(case, training=case.training.with_(channels_last=False))
    return run_loop(contiguous, device, lambda: loader)


def run_keras(case: Case, steps: int) -> Callable[[], float]:
    import keras
    from keras import layers

    def cnn(x: Any) -> Any:
        for filters in (64, 32, 64, 32, 64):
            x = layers.Conv2D(filters, 3, padding="same", activation="relu")(x)
        return layers.Dense(CLASSES)(layers.Flatten()(x))

    def resnet(x: Any) -> Any:
        def convolve(x: Any, filters: int, stride: int) -> Any:
            x = layers.Conv2D(filters, 3, stride, padding="same", use_bias=False)(x)
            return layers.BatchNormalization()(x)

        x = layers.ReLU()(convolve(x, 16, 1))
        for stage, filters in enumerate((16, 32, 64)):
            for block in range(3):
                stride = 2 if stage and not block else 1
                y = layers.ReLU()(convolve(x, filters, stride))
                y = convolve(y, filters, 1)
                if stride == 2:
                    x = x[:, ::2, ::2]
                    x = keras.ops.pad(x, ((0, 0), (0, 0), (0, 0), (0, filters // 2)))
                x = layers.ReLU()(x + y)
        return layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(x))

    images, labels = images_and_labels(case, steps)
    x = (images.astype(np.float32) / 255).transpose(0, 2, 3, 1).copy()
    inputs = keras.Input(x.shape[1:])
    outputs = resnet(inputs) if case.name.startswith("cifar") else cnn(inputs)
    model = keras.Model(inputs, outputs)
    optimizer = keras.optimizers.Adam() if case.name.startswith("comp") else keras.optimizers.SGD(0.1, 0.9)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))

    def once() -> float:
        started = time.perf_counter()
        model.fit(x, labels, BATCH, epochs=1, verbose=0)
        return time.perf_counter() - started

    return once


def worker(name: str, steps: int, rounds: int, barrier: Any, results: Any) -> None:
    torch.set_num_threads(1)
    once = run_leadline(CASES[name], steps)
    once()
    for _ in range(rounds):
        barrier.wait()
        once()
        barrier.wait()
    results.put(True)


def two_workers(case: Case, steps: int, rounds: int) -> list[float]:
    """Seconds that two processes of one thread each take for one epoch each."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(3), context.Queue()
    processes = [context.Process(target=worker, args=(case.name, steps, rounds, barrier, results)) for _ in range(2)]
    for process in processes:
        process.start()
    seconds = []
    for _ in range(rounds):
        barrier.wait()
        started = time.perf_counter()
        barrier.wait()
        seconds.append(time.perf_counter() - started)
    for process in processes:
        process.join()
    return seconds


def measure(case: Case, steps: int, rounds: int) -> dict[str, Any]:
    peers: dict[str, Callable[[], float]] = {
        "a leadline": run_leadline(case, steps),
        "b bare loop": run_bare(case, steps),
        "c dataloader": run_dataloader(case, steps),
        "h bfloat16": run_leadline(
            dataclasses.replace(case, training=case.training.with_(precision="bfloat16")), steps
        ),
    }
    if importlib.util.find_spec("tensorflow") and importlib.util.find_spec("keras"):
        peers["d keras"] = run_keras(case, steps)
    images = steps * BATCH
    speed: dict[str, list[float]] = {name: [] for name in peers}
    for once in peers.values():
        once()  # warm-up
    for _ in range(rounds):
        for name, once in peers.items():
            speed[name].append(images / once())
    speed["w two workers"] = [2 * images / seconds for seconds in two_workers(case, steps, rounds)]
    median = {name: statistics.median(values) for name, values in speed.items()}
    ratios = {
        "a/b": statistics.median(a / b for a, b in zip(speed["a leadline"], speed["b bare loop"], strict=True)),
        "a/c": statistics.median(a / c for a, c in zip(speed["a leadline"], speed["c dataloader"], strict=True)),
        "h/a": statistics.median(h / a for h, a in zip(speed["h bfloat16"], speed["a leadline"], strict=True)),
        "w/b": median["w two workers"] / median["b bare loop"],
    }
    if "d keras" in speed:
        ratios["a/d"] = median["a leadline"] / median["d keras"]
        ratios["w/d"] = median["w two workers"] / median["d keras"]
    return {"images_per_second": median, "all": speed, "ratios": ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("throughput.json"))
    options = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    torch.set_num_threads(2)
    results: dict[str, Any] = {"threads": torch.get_num_threads(), "batch": BATCH}
    for case in CASES.values():
        results[case.name] = measured = measure(case, options.steps, options.rounds)
        print(case.name)
        for name, value in measured["images_per_second"].items():
            print(f"  {name:<14} {value:8.0f} images/s")
        for name, value in measured["ratios"].items():
            print(f"  {name:<14} {value:8.2f}")
    options.output.write_text(json.dumps(results, indent=2))
    print(f"written: {options.output}")


if __name__ == "__main__":
    main()
