"""Microseconds per image of every augmentation, beside the same in Pillow, one image at a time.

    python -m benchmarks.augmentations [--images 2560] [--rounds 15]

Images of 32x32 pixels in colour, batches of 128, one thread. An augmentation's cost is what an epoch of batches takes
more than one without it, numbers drawn and partners included; Pillow's is that of its operations on images that it has
already, without the conversion to tensors. The smallest of interleaved rounds, to which other programs only add.
"""

import argparse
import math
import random
import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from leadline.data.batches import Dataset, Split
from leadline.parts.augmentations import (
    AUGMENTATIONS,
    Augmentation,
    DecodingAugmentation,
    auto_augment,
    rand_augment,
    trivial_augment,
)
from leadline.specs import DataSpec

SIDE, BATCH, CLASSES = 32, 128, 10
GREY = (125, 123, 114)

ENHANCERS = {
    "brightness": ImageEnhance.Brightness,
    "contrast": ImageEnhance.Contrast,
    "colour": ImageEnhance.Color,
    "sharpness": ImageEnhance.Sharpness,
}
MATRICES: dict[str, Callable[[float], tuple[float, ...]]] = {
    "shear-x": lambda slope: (1, slope, 0, 0, 1, 0),
    "shear-y": lambda slope: (1, 0, 0, slope, 1, 0),
    "translate-x": lambda pixels: (1, 0, int(pixels), 0, 1, 0),
    "translate-y": lambda pixels: (1, 0, 0, 0, 1, int(pixels)),
}
VALUES: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "rotate": lambda image, degrees: image.rotate(degrees),
    "posterize": lambda image, bits: ImageOps.posterize(image, int(bits)),
    "solarize": ImageOps.solarize,
    "auto-contrast": lambda image, _: ImageOps.autocontrast(image),
    "equalize": lambda image, _: ImageOps.equalize(image),
    "invert": lambda image, _: ImageOps.invert(image),
    "identity": lambda image, _: image,
}


def operate(image: Image.Image, name: str, magnitude: float) -> Image.Image:
    if name in ENHANCERS:
        return ENHANCERS[name](image).enhance(magnitude)
    if name in MATRICES:
        return image.transform(image.size, Image.Transform.AFFINE, MATRICES[name](magnitude))
    return VALUES[name](image, magnitude)


def translate(image: Image.Image, other: Image.Image) -> Image.Image:
    left, top = random.randrange(9), random.randrange(9)
    moved = ImageOps.expand(image, 4, GREY).crop((left, top, left + SIDE, top + SIDE))
    return ImageOps.mirror(moved) if random.random() < 0.5 else moved


def cut_out(image: Image.Image, other: Image.Image) -> Image.Image:
    left, top = random.randrange(SIDE) - 8, random.randrange(SIDE) - 8
    result = image.copy()
    ImageDraw.Draw(result).rectangle((left, top, left + 15, top + 15), GREY)
    return result


def jitter(image: Image.Image, other: Image.Image) -> Image.Image:
    def turn(image: Image.Image, factor: float) -> Image.Image:
        hue, saturation, value = image.convert("HSV").split()
        turned = np.asarray(hue) + np.uint8(int(255 * 0.25 * (factor - 1)) % 256)
        return Image.merge("HSV", (Image.fromarray(turned), saturation, value)).convert("RGB")

    changes = [*(lambda image, factor, kind=kind: ENHANCERS[kind](image).enhance(factor) for kind in ENHANCERS), turn]
    del changes[3]  # sharpness
    random.shuffle(changes)
    for change in changes:
        image = change(image, random.uniform(0.6, 1.4))
    return image


RANDOM, POLICY = rand_augment.RandAugment().space(SIDE, SIDE), auto_augment.sub_policies("cifar10")
MAGNITUDES = dict(auto_augment.space(SIDE, SIDE))


def augment_randomly(image: Image.Image, other: Image.Image) -> Image.Image:
    for _ in range(2):
        name, magnitudes = random.choice(RANDOM)
        image = operate(image, name, random.choice(magnitudes or (0,)))
    return image


def augment_trivially(image: Image.Image, other: Image.Image) -> Image.Image:
    name, magnitudes = random.choice(trivial_augment.WIDE)
    return operate(image, name, random.choice(magnitudes or (0,)))


def augment_by_policy(image: Image.Image, other: Image.Image) -> Image.Image:
    for name, chance, level in random.choice(POLICY):
        if random.random() < chance:
            image = operate(image, name, MAGNITUDES[name][level + 10 * random.randrange(2)])
    return image


def mix(image: Image.Image, other: Image.Image) -> Image.Image:
    return Image.blend(other, image, random.betavariate(1, 1))


def cut_and_mix(image: Image.Image, other: Image.Image) -> Image.Image:
    side = int(SIDE * math.sqrt(1 - random.betavariate(1, 1)))
    left, top = random.randrange(SIDE) - side // 2, random.randrange(SIDE) - side // 2
    box = max(0, left), max(0, top), min(SIDE, left + side), min(SIDE, top + side)
    result = image.copy()
    result.paste(other.crop(box), box)
    return result


PILLOW: dict[str, Callable[[Image.Image, Image.Image], Image.Image]] = {
    "translation": translate,
    "cutout": cut_out,
    "color-jitter": jitter,
    "rand-augment": augment_randomly,
    "trivial-augment": augment_trivially,
    "auto-augment": augment_by_policy,
    "mixup": mix,
    "cutmix": cut_and_mix,
}


def dataset(augment: Augmentation | None, images: torch.Tensor) -> Dataset:
    split = Split(images, torch.arange(len(images)) % CLASSES)
    mean, scale = torch.full((1, 3, 1, 1), 120.0), torch.full((1, 3, 1, 1), 60.0)
    return Dataset(DataSpec(augment=augment), (3, SIDE, SIDE), CLASSES, split, split, split, mean, scale)


def epoch(data: Dataset) -> float:
    """Seconds of an epoch of batches."""
    started = time.perf_counter()
    for _ in data.train_batches(0, 0, BATCH):
        pass
    return time.perf_counter() - started


def by_pillow(change: Callable[[Image.Image, Image.Image], Image.Image], images: list[Image.Image]) -> float:
    """Seconds for all images."""
    started = time.perf_counter()
    for image, other in zip(images, reversed(images), strict=True):
        change(image, other)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=2560)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.set_num_threads(1)
    # smooth images, as photographs are: what Pillow and Leadline do does not depend on the values
    coarse = torch.rand(options.images, 3, 5, 5, generator=torch.Generator().manual_seed(0))
    images = (torch.nn.functional.interpolate(coarse, SIDE, mode="bicubic").clamp(0, 1) * 255).to(torch.uint8)
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    members = {
        name: member()
        for name, member in AUGMENTATIONS.members().items()
        if not issubclass(member, DecodingAugmentation)
    }
    data = {"none": dataset(None, images), **{name: dataset(each, images) for name, each in members.items()}}
    own: dict[str, list[float]] = {name: [] for name in data}
    pillow: dict[str, list[float]] = {name: [] for name in PILLOW}
    for each in data.values():
        epoch(each)  # warm-up
    for _ in range(options.rounds):
        for name, each in data.items():
            own[name].append(1e6 * epoch(each) / options.images)
        for name, change in PILLOW.items():
            pillow[name].append(1e6 * by_pillow(change, pictures) / options.images)
    base = min(own["none"])
    print(f"batches without augmentation: {base:.1f} microseconds per image\n")
    print("| augmentation | microseconds per image | Pillow |\n|---|---:|---:|")
    for name in sorted(members):
        beside = f"{min(pillow[name]):.0f}" if name in pillow else ""
        print(f"| `{name}` | {min(own[name]) - base:.0f} | {beside} |")


if __name__ == "__main__":
    main()
