"""Microseconds per image of every augmentation, beside the same in Pillow, one image at a time.

    python -m benchmarks.augmentations [--images 2560] [--files 256] [--rounds 15] [--only pixels|decoding]

Images of 32x32 pixels in colour, batches of 128, one thread. An augmentation's cost is what an epoch of batches takes
more than one without it, numbers drawn and partners included; Pillow's is that of its operations on images that it has
already, without the conversion to tensors. The smallest of interleaved rounds, to which other programs only add.

`resized-crop` takes the place of the centre crop when an image file is decoded, so both stand beside what decoding
itself takes: microseconds of one thread's processor time, which other programs change less than that of the clock, for
files that are in memory. Medians of interleaved rounds; the ratio is that of decoding with the random crop to decoding
with the centre crop, with the quartiles of the rounds.
"""

import argparse
import math
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from benchmarks.folder import make
from leadline.data.batches import Dataset, Split
from leadline.data.formats.images import centre, decode
from leadline.data.image_dataset import ImageDataSpec
from leadline.parts.augmentations import (
    AUGMENTATIONS,
    Augmentation,
    DecodingAugmentation,
    auto_augment,
    rand_augment,
    trivial_augment,
)
from leadline.parts.augmentations.resized_crop import ResizedCrop
from leadline.specs import DataSpec

SIDE, BATCH, CLASSES = 32, 128, 10
GREY = (125, 123, 114)
FILES = {(32, 32): 32, (256, 256): 224, (500, 375): 224}  # width and height of files -> side of the network's input

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


def mix_either_way(image: Image.Image, other: Image.Image) -> Image.Image:
    return random.choice((mix, cut_and_mix))(image, other)


PILLOW: dict[str, Callable[[Image.Image, Image.Image], Image.Image]] = {
    "translation": translate,
    "cutout": cut_out,
    "color-jitter": jitter,
    "rand-augment": augment_randomly,
    "trivial-augment": augment_trivially,
    "auto-augment": augment_by_policy,
    "mixup": mix,
    "cutmix": cut_and_mix,
    "mixup-or-cutmix": mix_either_way,
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


def measure_pixels(count: int, rounds: int) -> None:
    """Print the table of augmentations of images in memory."""
    # smooth images, as photographs are: what Pillow and Leadline do does not depend on the values
    coarse = torch.rand(count, 3, 5, 5, generator=torch.Generator().manual_seed(0))
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
    for _ in range(rounds):
        for name, each in data.items():
            own[name].append(1e6 * epoch(each) / count)
        for name, change in PILLOW.items():
            pillow[name].append(1e6 * by_pillow(change, pictures) / count)
    base = min(own["none"])
    print(f"batches without augmentation: {base:.1f} microseconds per image\n")
    print("| augmentation | microseconds per image | Pillow |\n|---|---:|---:|")
    for name in sorted(members):
        beside = f"{min(pillow[name]):.0f}" if name in pillow else ""
        print(f"| `{name}` | {min(own[name]) - base:.0f} | {beside} |")


def spent(work: Callable[[], object], count: int) -> float:
    """Microseconds of this thread's processor time for each of a number of images."""
    started = time.thread_time()
    work()
    return 1e6 * (time.thread_time() - started) / count


def crop_files(files: tuple[int, int], size: int, count: int, rounds: int) -> list[list[float]]:
    """For each round, microseconds for an image: of decoding it, of the centre crop and of `resized-crop`.

    Args:
        files: width and height of the JPEG files, which are made.
        size: height and width of a crop.
        count: number of files.
        rounds: number of rounds.
    """
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder), count, files)
        contents = [path.read_bytes() for path in sorted(Path(folder).glob("train/*/*.jpg"))]
    spec = DataSpec(name="imagefolder", path=folder, size=size)
    assert isinstance(spec, ImageDataSpec)
    pictures, crop = [decode(content) for content in contents], ResizedCrop()
    numbers = iter(range(rounds * count))  # every image is cropped in another way in every round
    works: list[Callable[[], object]] = [
        lambda: [decode(content) for content in contents],
        lambda: [centre(picture, size, spec.shorter_side) for picture in pictures],
        lambda: [crop.crop(picture, size, next(numbers)) for picture in pictures],
    ]
    return [[spent(work, count) for work in works] for _ in range(rounds)]


def measure_decoding(count: int, rounds: int) -> None:
    """Print the table of the crops of image files."""
    print("| JPEG files | to | decoding | centre crop | `resized-crop` | ratio | quartiles |")
    print("|---|---|---:|---:|---:|---:|---|")
    for (width, height), size in FILES.items():
        taken = crop_files((width, height), size, count, rounds)
        low, middle, high = statistics.quantiles([(own + crop) / (own + middle) for own, middle, crop in taken], n=4)
        medians = " | ".join(f"{statistics.median(column):.0f}" for column in zip(*taken, strict=True))
        print(f"| {width}x{height} | {size}x{size} | {medians} | {middle:.2f} | {low:.2f} to {high:.2f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--images", type=int, default=2560, help="images in memory")
    parser.add_argument("--files", type=int, default=256, help="image files of each size")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", choices=("pixels", "decoding"), help="one of the two tables")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.only != "decoding":
        measure_pixels(options.images, options.rounds)
        print()
    if options.only != "pixels":
        measure_decoding(options.files, options.rounds)


if __name__ == "__main__":
    main()
