"""Images per second out of a folder: Leadline against PyTorch's DataLoader, interleaved in one run; ratios as JSON.

    python -m benchmarks.folder [--root FOLDER --size 32] [--rounds 5] [--output folder.json]

Both read the same files, cut a random part out of each, resize, flip and normalise it, and hand over float batches;
DataLoader does so with Pillow in as many worker processes as there are cores, Leadline in as many threads. An epoch of
each is measured from asking for its first batch, the start of its workers included (DataLoader: kept between epochs,
as `persistent_workers` does). Without a folder, one of JPEGs of 500x375 is made, of which a part of 224x224 is cut.
"""

import argparse
import json
import math
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from leadline.data.batches import load
from leadline.data.encoded import EncodedDataset
from leadline.data.threads import decoder_threads
from leadline.specs import DataSpec

BATCH = 64


def make(root: Path, count: int, size: tuple[int, int] = (500, 375)) -> None:
    """Write smooth images with some noise, of a width and height; those of ImageNet's size have about its weight."""
    rng = np.random.default_rng(0)
    width, height = (max(2, side * 8 // 125) for side in size)  # pixels of which each becomes about 16x16
    for part, number in (("train", count), ("val", 20)):
        for position in range(number):
            smooth = Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))
            pixels = np.asarray(smooth.resize(size, Image.Resampling.BICUBIC)).astype(int)
            noisy = np.clip(pixels + rng.integers(-16, 17, pixels.shape), 0, 255).astype(np.uint8)
            folder = root / part / f"class{position % 10}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noisy).save(folder / f"{position}.jpg", quality=92)


class Images(torch.utils.data.Dataset[tuple[torch.Tensor, int]]):
    """One image at a time, as most training scripts do it."""

    def __init__(
        self, paths: list[Path], labels: list[int], size: int, mean: torch.Tensor, scale: torch.Tensor
    ) -> None:
        self.paths, self.labels, self.size = paths, labels, size
        self.mean, self.scale = mean / 255, scale / 255
        self.random = random.Random(0)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        with self.paths[index].open("rb") as file:
            image = Image.open(file).convert("RGB")
        left, top, width, height = self.part(*image.size)
        image = image.crop((left, top, left + width, top + height)).resize((self.size, self.size), 2)
        if self.random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        tensor = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().float().div(255)
        return (tensor - self.mean) / self.scale, self.labels[index]

    def part(self, width: int, height: int) -> tuple[int, int, int, int]:
        for _ in range(10):
            area = width * height * self.random.uniform(0.08, 1)
            ratio = math.exp(self.random.uniform(math.log(3 / 4), math.log(4 / 3)))
            w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < w <= width and 0 < h <= height:
                return self.random.randint(0, width - w), self.random.randint(0, height - h), w, h
        side = min(width, height)
        return (width - side) // 2, (height - side) // 2, side, side


def ours(data: EncodedDataset) -> Callable[[], int]:
    epochs = iter(range(1_000_000))
    return lambda: sum(len(labels) for _, labels in data.train_batches(0, next(epochs), BATCH))


def theirs(data: EncodedDataset) -> Callable[[], int]:
    paths = [data.root / path for path in data.train.paths]
    images = Images(paths, data.train.labels.tolist(), data.spec.size, data.mean[0], data.scale[0])
    loader = torch.utils.data.DataLoader(
        images,
        BATCH,
        shuffle=True,
        num_workers=decoder_threads(),
        persistent_workers=True,
        multiprocessing_context="fork",
    )
    return lambda: sum(len(labels) for _, labels in loader)


def measure(data: EncodedDataset, rounds: int) -> dict[str, object]:
    peers = {"leadline": ours(data), "dataloader": theirs(data)}
    speed: dict[str, list[float]] = {name: [] for name in peers}
    for once in peers.values():
        once()  # files into the system's cache, worker processes up
    for _ in range(rounds):
        for name, once in peers.items():
            started = time.perf_counter()
            images = once()
            speed[name].append(images / (time.perf_counter() - started))
    ratio = statistics.median(a / b for a, b in zip(speed["leadline"], speed["dataloader"], strict=True))
    return {
        "images": data.train_size,
        "size": data.spec.size,
        "cores": decoder_threads(),
        "pictures_per_second": {name: statistics.median(values) for name, values in speed.items()},
        "all": speed,
        "ratio": ratio,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", type=Path, help="a folder of images; default: one is made")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--images", type=int, default=600, help="how many are made, or are taken of the folder")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=Path("folder.json"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        root, train = options.root, options.images
        if root is None:
            root, train = Path(made), None
            make(root, options.images)
        data = load(DataSpec(name="imagefolder", path=str(root.resolve()), size=options.size, train=train))
        assert isinstance(data, EncodedDataset)
        results = measure(data, options.rounds)
    for name, value in results["pictures_per_second"].items():  # type: ignore[attr-defined]
        print(f"{name:<12} {value:8.0f} images/s")
    print(f"ratio        {results['ratio']:8.2f}")
    options.output.write_text(json.dumps(results, indent=2))
    print(f"written: {options.output}")


if __name__ == "__main__":
    main()
