"""Operations on batches of pixels, each with an argument for every image: those of Pillow, to the bit.

Images are uint8 [b, channels, height, width] of one channel or three; where an operation is of colours, a grey image
stays as it is. Nothing loops over images, and nothing that is computed for one depends on the others.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

FIXED = 2**16
"""Coordinates are integers in units of this fraction of a pixel, as in Pillow."""

RED, GREEN, BLUE = 19595, 38470, 7471
"""Luma of ITU-R 601, of 2^16."""


# --- places


def transform(images: "Tensor", matrices: "Tensor", fill: int = 0) -> "Tensor":
    """Return images of which each pixel is the nearest one at an affine function of its place.

    Args:
        images: uint8 [b, c, h, w].
        matrices: int64 [b, 6], of `fix`.
        fill: value of pixels from outside the image.
    """
    import torch

    batch, channels, height, width = images.shape
    x = torch.arange(width, device=images.device)
    y = torch.arange(height, device=images.device)[:, None]
    a, b, c, d, e, f = matrices.view(batch, 6, 1, 1).unbind(1)
    columns, rows = (c + a * x + b * y) >> 16, (f + d * x + e * y) >> 16
    inside = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    places = torch.where(inside, rows * width + columns, 0).view(batch, 1, -1).expand(-1, channels, -1)
    moved = images.flatten(2).gather(2, places).view(images.shape)
    return torch.where(inside[:, None], moved, fill)


def fix(a: float, b: float, c: float, d: float, e: float, f: float) -> tuple[int, ...]:
    """Return the matrix of (x, y) -> (ax + by + c, dx + ey + f) in fixed point, for the centres of pixels."""
    given = (a, b, c + 0.5 * a + 0.5 * b, d, e, f + 0.5 * d + 0.5 * e)
    return tuple(math.floor(value * FIXED + 0.5) for value in given)


def shear_x(slope: float, height: int, width: int) -> tuple[int, ...]:
    """Return the matrix of a shift of each row by its number times the slope."""
    return fix(1, slope, 0, 0, 1, 0)


def shear_y(slope: float, height: int, width: int) -> tuple[int, ...]:
    """Return the matrix of a shift of each column by its number times the slope."""
    return fix(1, 0, 0, slope, 1, 0)


def translate_x(pixels: float, height: int, width: int) -> tuple[int, ...]:
    """Return the matrix of a horizontal shift by whole pixels."""
    return fix(1, 0, int(pixels), 0, 1, 0)


def translate_y(pixels: float, height: int, width: int) -> tuple[int, ...]:
    """Return the matrix of a vertical shift by whole pixels."""
    return fix(1, 0, 0, 0, 1, int(pixels))


def rotate(degrees: float, height: int, width: int) -> tuple[int, ...]:
    """Return the matrix of a rotation about the centre, counter-clockwise."""
    angle = -math.radians(degrees % 360)
    cosine, sine = round(math.cos(angle), 15), round(math.sin(angle), 15)
    x, y = width / 2, height / 2
    return fix(cosine, sine, x - cosine * x - sine * y, -sine, cosine, y + sine * x - cosine * y)


# --- values


def blend(start: "Tensor", images: "Tensor", factors: "Tensor") -> "Tensor":
    """Return start + factor * (image - start), between 0 and 255, rounded down.

    Args:
        start: uint8, as the images or with one channel or pixel for all.
        images: uint8 [b, c, h, w].
        factors: float32 [b]; 0: start; 1: the image.
    """
    import torch

    begin = start.float()
    return (begin + factors.view(-1, 1, 1, 1) * (images.float() - begin)).clamp_(0, 255).to(torch.uint8)


def to_grey(images: "Tensor") -> "Tensor":
    """Return the luma of images, uint8 [b, 1, h, w]."""
    import torch

    if images.shape[1] == 1:
        return images
    red, green, blue = images.int().unbind(1)
    return ((RED * red + GREEN * green + BLUE * blue + FIXED // 2) >> 16).to(torch.uint8)[:, None]


def brightness(images: "Tensor", factors: "Tensor") -> "Tensor":
    """Return images between black, at factor 0, and themselves, at 1, or beyond."""
    return blend(images.new_zeros(1), images, factors)


def contrast(images: "Tensor", factors: "Tensor") -> "Tensor":
    """Return images between their mean grey, at factor 0, and themselves, at 1, or beyond."""
    import torch

    grey = to_grey(images).flatten(1)
    pixels = grey.shape[1]
    mean = torch.div(2 * grey.sum(1, dtype=torch.int64) + pixels, 2 * pixels, rounding_mode="floor")
    return blend(mean.to(torch.uint8).view(-1, 1, 1, 1), images, factors)


def colour(images: "Tensor", factors: "Tensor") -> "Tensor":
    """Return images between grey, at factor 0, and themselves, at 1, or beyond."""
    return images if images.shape[1] == 1 else blend(to_grey(images), images, factors)


def sharpness(images: "Tensor", factors: "Tensor") -> "Tensor":
    """Return images between smoothed ones, at factor 0, and themselves, at 1, or beyond.

    A smoothed pixel is the mean of its 3x3 neighbours, in which itself counts five times; the border stays as it is.
    """
    import torch

    if min(images.shape[2:]) < 3:
        return images
    values = images.int()
    rows = values[:, :, :-2] + values[:, :, 1:-1] + values[:, :, 2:]
    sums = rows[..., :-2] + rows[..., 1:-1] + rows[..., 2:] + 4 * values[:, :, 1:-1, 1:-1]
    smooth = images.clone()
    smooth[:, :, 1:-1, 1:-1] = torch.div(2 * sums + 13, 26, rounding_mode="floor").to(torch.uint8)
    return blend(smooth, images, factors)


def posterize(images: "Tensor", bits: "Tensor") -> "Tensor":
    """Keep the highest bits of each value, int64 [b] of them."""
    import torch

    return images & (256 - (1 << (8 - bits))).to(torch.uint8).view(-1, 1, 1, 1)


def solarize(images: "Tensor", thresholds: "Tensor") -> "Tensor":
    """Invert values from a threshold on, float32 [b]."""
    import torch

    return torch.where(images < thresholds.view(-1, 1, 1, 1), images, 255 - images)


def invert(images: "Tensor", unused: "Tensor") -> "Tensor":
    """Return 255 minus each value."""
    return 255 - images


def auto_contrast(images: "Tensor", unused: "Tensor") -> "Tensor":
    """Scale the values of each channel so that the smallest becomes 0 and the largest 255."""
    import torch

    values, precision = images.flatten(2), _precision(images)
    low, high = (each.to(precision) for each in (values.amin(2, True), values.amax(2, True)))
    scale = torch.full_like(low, 255) / (high - low).clamp(min=1)  # `255 / x` would multiply by the reciprocal
    every = torch.arange(256, dtype=precision, device=images.device)
    table = torch.where(high > low, (every * scale + -low * scale).clamp(0, 255), every).to(torch.uint8)
    return _look_up(images, table)


def equalize(images: "Tensor", unused: "Tensor") -> "Tensor":
    """Spread the values of each channel so that all are about equally frequent."""
    import torch

    batch, channels = images.shape[:2]
    values = images.reshape(batch * channels, -1).long()
    first = 256 * torch.arange(len(values), device=images.device)[:, None]
    ones = torch.ones((), dtype=torch.int64, device=images.device).expand(values.numel())
    counts = ones.new_zeros(256 * len(values)).scatter_add_(0, (values + first).flatten(), ones).view(-1, 256)
    last = counts.gather(1, values.amax(1, True))
    step = torch.div(values.shape[1] - last, 255, rounding_mode="floor")
    before = counts.cumsum(1) - counts + torch.div(step, 2, rounding_mode="floor")
    spread = torch.div(before, step.clamp(min=1), rounding_mode="floor").clamp(max=255)
    table = torch.where(step > 0, spread, torch.arange(256, device=images.device)).to(torch.uint8)
    return _look_up(images, table.view(batch, channels, 256))


def _precision(images: "Tensor") -> "torch.dtype":
    """Return the precision in which Pillow computes, double, or on Apple's GPUs, which do not have it, single."""
    import torch

    return torch.float32 if images.device.type == "mps" else torch.float64


def _look_up(images: "Tensor", table: "Tensor") -> "Tensor":
    """Return the value of each value in a table, uint8 [b, c, 256]."""
    return table.gather(2, images.flatten(2).long()).view(images.shape)


def hue(images: "Tensor", steps: "Tensor") -> "Tensor":
    """Turn the hue of each pixel by some 255ths of the circle, int64 [b]."""
    import torch

    if images.shape[1] == 1:
        return images
    red, green, blue = images.float().unbind(1)
    high, low = torch.maximum(torch.maximum(red, green), blue), torch.minimum(torch.minimum(red, green), blue)
    spread = (high - low).clamp(min=1)
    precision = _precision(images)
    from_red, from_green, from_blue = (((high - each) / spread).to(precision) for each in (red, green, blue))
    sixths = torch.where(
        red == high,
        from_blue - from_green,
        torch.where(green == high, 2 + from_red - from_blue, 4 + from_green - from_red),
    )
    old = ((sixths.float().to(precision) / 6 + 1).frac().float().to(precision) * 255).int()
    turned = torch.where(high > low, (old + steps.view(-1, 1, 1).int()) & 255, 0).float() * 6 / 255
    part, saturation = turned.frac(), (255 * (high - low) / high.clamp(min=1)).floor() / 255
    sector = turned.long() % 6
    weakest = (high * (1 - saturation)).round()
    falling = (high * (1 - saturation * part)).round()
    rising = (high * (1 - saturation * (1 - part))).round()
    ways = torch.stack([high, falling, weakest, rising])
    chosen = torch.tensor(_SECTORS, device=images.device)[:, sector]
    return ways.gather(0, chosen).transpose(0, 1).to(torch.uint8)


_SECTORS = ((0, 1, 2, 2, 3, 0), (3, 0, 0, 1, 2, 2), (2, 2, 3, 0, 0, 1))
"""For red, green and blue, by sixths of the circle: 0 the highest value, 1 the falling, 2 the lowest, 3 the rising."""


# --- operations that are drawn


PLACES: Mapping[str, Callable[[float, int, int], tuple[int, ...]]] = {
    "shear-x": shear_x,
    "shear-y": shear_y,
    "translate-x": translate_x,
    "translate-y": translate_y,
    "rotate": rotate,
}
"""Name -> matrix for a magnitude, a height and a width."""

VALUES: "Mapping[str, Callable[[Tensor, Tensor], Tensor]]" = {
    "brightness": brightness,
    "colour": colour,
    "contrast": contrast,
    "sharpness": sharpness,
    "posterize": posterize,
    "solarize": solarize,
    "invert": invert,
    "auto-contrast": auto_contrast,
    "equalize": equalize,
}
"""Name -> function of images and their magnitudes."""

IDENTITY = "identity"

Space = Sequence[tuple[str, tuple[float, ...]]]
"""Operations by name, each with the magnitudes of its levels; all have equally many levels."""


def apply_drawn(images: "Tensor", choices: "Tensor", levels: "Tensor", space: Space, fill: int) -> "Tensor":
    """Return images after one operation of a space each.

    Args:
        images: uint8 [b, c, h, w].
        choices: int64 [b], positions of operations.
        levels: int64 [b], of their magnitudes.
        space: the operations.
        fill: value of pixels from outside an image.
    """
    height, width = images.shape[2:]

    def function(name: str, magnitudes: tuple[float, ...]) -> "Callable[[Tensor, Tensor], Tensor] | None":
        if name == IDENTITY:
            return None
        table = _table(name, magnitudes, height, width, images.device)
        if name in PLACES:
            return lambda some, rows: transform(some, table[levels[rows]], fill)
        return lambda some, rows: VALUES[name](some, table[levels[rows]])

    return apply_chosen(images, choices, [function(name, magnitudes) for name, magnitudes in space])


def apply_chosen(
    images: "Tensor", choices: "Tensor", functions: "Sequence[Callable[[Tensor, Tensor], Tensor] | None]"
) -> "Tensor":
    """Return images after the function that is chosen for each, called with those images and their positions.

    The device is waited for once.

    Args:
        images: uint8 [b, c, h, w].
        choices: int64 [b], positions of functions.
        functions: of images [r, c, h, w] and of their positions in the batch, int64 [r]; None: images stay as they are.
    """
    import torch

    result = images.clone(memory_format=torch.contiguous_format)
    counts = torch.bincount(choices, minlength=len(functions)).tolist()
    for rows, function in zip(torch.split(choices.argsort(stable=True), counts), functions, strict=True):
        if len(rows) and function is not None:
            result.index_copy_(0, rows, function(images.index_select(0, rows), rows))
    return result


@lru_cache(maxsize=1024)
def _table(name: str, magnitudes: tuple[float, ...], height: int, width: int, device: "torch.device") -> "Tensor":
    """Return what an operation needs at each level: [levels] magnitudes, or [levels, 6] matrices."""
    import torch

    if name in PLACES:
        return torch.tensor([PLACES[name](each, height, width) for each in magnitudes], device=device)
    return torch.tensor(magnitudes, dtype=torch.int64 if name == "posterize" else torch.float32, device=device)
