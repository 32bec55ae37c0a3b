"""Normalisation and memory layout of images."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from jaxtyping import Float, Float32, Shaped, UInt8
from torch import Tensor

IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""For red, green and blue from 0 to 1, as published with the pre-trained networks of torchvision."""

Pixels = UInt8[Tensor, "n c h w"] | Float32[Tensor, "n c h w"]
"""Images of 0 to 255, or floats that are used as they are."""


def normalisation(
    parts: Iterator[Pixels],
    kind: Literal["channel", "pixel-mean", "none", "imagenet"],
    channels: int,
) -> tuple[Float[Tensor, "1 c mh mw"], Float[Tensor, "1 c 1 1"]]:
    """Return mean and scale, in the units of the images, such that (image - mean) / scale is normalised.

    For bytes, they are computed from exact counts, so that they do not depend on the machine; the scale of a constant
    channel is 255. Floats are used as they are: `none` does not change them, `pixel-mean` only subtracts the mean
    image, and for `channel`, the scale of a constant channel is 1.

    Args:
        parts: the training images, in parts of any size; not all are read if `kind` does not need them.
        kind: as in `DataSpec.normalise`.
        channels: number of channels.
    """
    first = next(parts, None)
    if first is not None:
        if first.is_floating_point():
            return _normalisation_of_floats(torch.cat([first, *parts]), kind)
        parts = itertools.chain([first], parts)
    unit = torch.full((1, channels, 1, 1), 255.0)
    if kind == "none":
        return torch.zeros_like(unit), unit
    if kind == "imagenet":
        mean, deviation = (torch.tensor(each).view(1, -1, 1, 1) * 255 for each in (IMAGENET_MEAN, IMAGENET_DEVIATION))
        return mean, deviation
    if kind == "pixel-mean":
        number, total = 0, torch.zeros((), dtype=torch.int64)
        for images in parts:
            number, total = number + len(images), total + images.sum(0, keepdim=True, dtype=torch.int64)
        return (total.double() / number).float(), unit
    counts = torch.zeros(channels, 256, dtype=torch.float64)
    for images in parts:
        counts += torch.stack([torch.bincount(images[:, c].reshape(-1), minlength=256) for c in range(channels)])
    values = torch.arange(256, dtype=torch.float64)
    mean = (counts @ values) / counts.sum(1)
    deviation = ((counts * (values - mean[:, None]) ** 2).sum(1) / counts.sum(1)).sqrt()
    scale = torch.where(deviation > 0, deviation, 255.0)
    return mean.float().view(1, -1, 1, 1), scale.float().view(1, -1, 1, 1)


def _normalisation_of_floats(
    images: Float32[Tensor, "n c h w"], kind: str
) -> tuple[Float[Tensor, "1 c mh mw"], Float[Tensor, "1 c 1 1"]]:
    unit = torch.ones(1, images.shape[1], 1, 1)
    if kind == "none":
        return torch.zeros_like(unit), unit
    if kind == "pixel-mean":
        return images.mean(0, keepdim=True, dtype=torch.float64).float(), unit
    deviation, mean = torch.std_mean(images.double(), (0, 2, 3), correction=0, keepdim=True)
    return mean.float(), torch.where(deviation > 0, deviation, 1.0).float()


def normalise(
    images: Pixels, mean: Float[Tensor, "1 c mh mw"], scale: Float[Tensor, "1 c 1 1"]
) -> Float[Tensor, "b c h w"]:
    """Return (image - mean) / scale, in the memory layout of the images."""
    return images.to(torch.float32, copy=True).sub_(mean).div_(scale)


def to_memory_format(images: Float[Tensor, "b c h w"], channels_last: bool) -> Float[Tensor, "b c h w"]:
    """Return images in one of the two memory layouts."""
    # Done last, on floats, because the previous steps are slower on bytes in this layout.
    return images.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def copy_at_once(
    parts: Sequence[Shaped[Tensor, "_ *rest"]], device: torch.device
) -> Sequence[Shaped[Tensor, "_ *rest"]]:
    """Return tensors on a device, which is waited for once and not for each."""
    return torch.split(torch.cat(list(parts)).to(device), list(map(len, parts))) if parts else ()


def generator(seed: int) -> torch.Generator:
    """Return a new generator on the CPU, whatever the device of the data."""
    return torch.Generator(device="cpu").manual_seed(seed)
