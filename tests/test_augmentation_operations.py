"""Operations on batches of pixels against Pillow, which does the same to one image at a time."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from leadline.parts.augmentations import operations

SHAPES = [(3, 32, 32), (1, 28, 28), (3, 17, 23), (1, 2, 5)]
IMAGES = 32


def some_images(shape: tuple[int, int, int]) -> Tensor:
    """Noise, noise of low contrast, slopes, and images of one colour."""
    rng = np.random.default_rng(0)
    channels, height, width = shape
    images = rng.integers(0, 256, (IMAGES, *shape))
    images[8:16] = images[8:16] // 8 + 100
    for number in range(16, 30):
        slope = np.add.outer(np.arange(height) * rng.integers(-9, 9), np.arange(width) * rng.integers(-9, 9))
        images[number] = np.clip(slope + rng.integers(0, 255, (channels, 1, 1)), 0, 255)
    images[30:] = rng.integers(0, 256, (2, channels, 1, 1))
    return torch.from_numpy(images.astype(np.uint8))


def to_pillow(image: Tensor) -> Image.Image:
    pixels = image.permute(1, 2, 0).numpy()
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)


def of_pillow(image: Image.Image) -> Tensor:
    pixels = np.array(image)
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1)


def by_pillow(images: Tensor, change: Callable[[Image.Image, float], Image.Image], arguments: list[float]) -> Tensor:
    both = zip(images, arguments, strict=True)
    return torch.stack([of_pillow(change(to_pillow(image), argument)) for image, argument in both])


ENHANCERS = {
    "brightness": ImageEnhance.Brightness,
    "contrast": ImageEnhance.Contrast,
    "colour": ImageEnhance.Color,
    "sharpness": ImageEnhance.Sharpness,
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ENHANCERS)
def test_enhancing(name: str, shape: tuple[int, int, int]) -> None:
    images = some_images(shape)
    factors = torch.linspace(0, 2, IMAGES)
    expected = by_pillow(images, lambda image, factor: ENHANCERS[name](image).enhance(factor), factors.tolist())
    assert torch.equal(operations.VALUES[name](images, factors), expected)


@pytest.mark.parametrize("shape", SHAPES)
def test_values(shape: tuple[int, int, int]) -> None:
    images, unused = some_images(shape), torch.zeros(IMAGES)
    bits, thresholds = torch.arange(IMAGES) % 8 + 1, torch.linspace(0, 256, IMAGES)
    for name, arguments, change in (
        ("posterize", bits, lambda image, kept: ImageOps.posterize(image, int(kept))),
        ("solarize", thresholds, ImageOps.solarize),
        ("invert", unused, lambda image, _: ImageOps.invert(image)),
        ("auto-contrast", unused, lambda image, _: ImageOps.autocontrast(image)),
        ("equalize", unused, lambda image, _: ImageOps.equalize(image)),
    ):
        expected = by_pillow(images, change, arguments.tolist())
        assert torch.equal(operations.VALUES[name](images, arguments), expected), name


def transformed(*matrix: float) -> Callable[[Image.Image], Image.Image]:
    return lambda image: image.transform(image.size, Image.Transform.AFFINE, matrix)  # type: ignore[arg-type]


PLACES: dict[str, Callable[[Image.Image, float], Image.Image]] = {
    "shear-x": lambda image, slope: transformed(1, slope, 0, 0, 1, 0)(image),
    "shear-y": lambda image, slope: transformed(1, 0, 0, slope, 1, 0)(image),
    "translate-x": lambda image, pixels: transformed(1, 0, int(20 * pixels), 0, 1, 0)(image),
    "translate-y": lambda image, pixels: transformed(1, 0, 0, 0, 1, int(20 * pixels))(image),
    "rotate": lambda image, turn: image.rotate(180 * turn),
}
UNITS = {"translate-x": 20, "translate-y": 20, "rotate": 180}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", PLACES)
def test_places(name: str, shape: tuple[int, int, int]) -> None:
    images = some_images(shape)
    shares = [*np.linspace(-0.99, 0.99, IMAGES - 3).tolist(), 0.0, 0.5, 1.0]  # with right angles
    matrices = torch.tensor([operations.PLACES[name](UNITS.get(name, 1) * share, *shape[1:]) for share in shares])
    assert torch.equal(operations.transform(images, matrices), by_pillow(images, PLACES[name], shares))


def test_what_comes_from_outside_the_image() -> None:
    images = torch.full((1, 3, 8, 8), 255, dtype=torch.uint8)
    matrix = torch.tensor([operations.translate_x(3, 8, 8)])
    moved = operations.transform(images, matrix, fill=7)
    assert (moved[..., :5] == 255).all() and (moved[..., 5:] == 7).all()


def test_hue() -> None:
    images, steps = some_images((3, 32, 32)), torch.arange(IMAGES) * 8

    def turn(image: Image.Image, step: float) -> Image.Image:
        hue, saturation, value = image.convert("HSV").split()
        turned = Image.fromarray((np.asarray(hue).astype(int) + int(step)).astype(np.uint8))
        return Image.merge("HSV", (turned, saturation, value)).convert("RGB")

    assert torch.equal(operations.hue(images, steps), by_pillow(images, turn, steps.tolist()))
    every = torch.cartesian_prod(*[torch.arange(0, 256, 5, dtype=torch.uint8)] * 3).T.reshape(1, 3, -1, 52)
    assert torch.equal(operations.hue(every, torch.tensor([40])), by_pillow(every, turn, [40]))
    grey = some_images((1, 8, 8))
    assert torch.equal(operations.hue(grey, steps), grey) and torch.equal(operations.colour(grey, steps / 99), grey)


def test_an_operation_is_applied_to_the_images_that_drew_it_alone() -> None:
    images = some_images((3, 9, 9))
    seen: list[int] = []

    def invert(some: Tensor, rows: Tensor) -> Tensor:
        seen.extend(rows.tolist())
        return 255 - some

    choices = torch.arange(IMAGES) % 3
    changed = operations.apply_chosen(images, choices, [None, invert, None])
    assert seen == list(range(1, IMAGES, 3))
    assert torch.equal(changed[1::3], 255 - images[1::3])
    assert torch.equal(changed[::3], images[::3]) and torch.equal(changed[2::3], images[2::3])
