"""What is done to images whatever they come from: normalisation, augmentation of whole batches, memory layout."""

from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from leadline.spec import Augment

IMAGENET_MEAN, IMAGENET_DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of red, green and blue from 0 to 1: published with torchvision's trained networks, and in use since."""


def normalisation(
    parts: Iterator[UInt8[Tensor, "n c h w"]],
    kind: Literal["channel", "pixel-mean", "none", "imagenet"],
    channels: int,
) -> tuple[Float[Tensor, "1 c mh mw"], Float[Tensor, "1 c 1 1"]]:
    """Return mean and scale, in units of 0 to 255, such that (image - mean) / scale is normalised.

    They come from exact counts, so they do not depend on the machine. A channel that never varies is divided by 255.

    Args:
        parts: the training images alone, in parts of any size; left alone where `kind` needs none.
        kind: as in `DataSpec.normalise`.
        channels: of an image.
    """
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


def normalised(
    images: UInt8[Tensor, "b c h w"], mean: Float[Tensor, "1 c mh mw"], scale: Float[Tensor, "1 c 1 1"]
) -> Float[Tensor, "b c h w"]:
    """Return (image - mean) / scale, in the memory layout that the images have."""
    return images.float().sub_(mean).div_(scale)


def augmented(
    images: Float[Tensor, "b c h w"], draws: Int64[Tensor, "b 3"], augment: Augment
) -> Float[Tensor, "b c h w"]:
    """Shift each image within a border of zeros and flip some left to right, all of them in one gather.

    Args:
        images: normalised.
        draws: numbers from 0 up, far larger than any shift: down, right, and odd for a flip of the crop.
        augment: width of the border, and whether images are flipped at all.
    """
    batch, channels, height, width = images.shape
    border = augment.pad
    padded = F.pad(images, (border,) * 4)
    shifts = draws[:, :2] % (2 * border + 1)
    flip: Bool[Tensor, b] = (draws[:, 2] % 2 == 1) & augment.flip
    rows = torch.arange(height, device=images.device) + shifts[:, :1]
    columns = torch.arange(width, device=images.device).expand(batch, -1)
    columns = torch.where(flip[:, None], width - 1 - columns, columns) + shifts[:, 1:]
    places = rows[:, :, None] * padded.shape[3] + columns[:, None, :]
    places = places.view(batch, 1, height * width).expand(-1, channels, -1)
    return padded.flatten(2).gather(2, places).view(images.shape)


def laid_out(images: Float[Tensor, "b c h w"], channels_last: bool) -> Float[Tensor, "b c h w"]:
    """Return images in one of the two memory layouts."""
    # Floats are rearranged last: on bytes each of the steps before would take longer in this layout.
    return images.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def draws(count: int, seed: int) -> Int64[Tensor, "n 3"]:
    """Return the numbers that augmentation draws on, from 0 to 2^62 - 1.

    Row i holds the numbers of sample i; all three are drawn whatever is used, so that no option shifts another.
    """
    return torch.randint(2**62, (count, 3), generator=generator(seed))


def generator(seed: int) -> torch.Generator:
    """Return a generator of its own on the CPU, whatever device the numbers are for."""
    return torch.Generator(device="cpu").manual_seed(seed)
