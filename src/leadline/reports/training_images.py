"""Training images as a network sees them: a sheet with a row for each sample and a column for each epoch."""

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from jaxtyping import Float, Shaped
from PIL import Image
from torch import Tensor

from leadline.data.batches import Data

SIDE = 96
"""Pixels of the longer side of an image on the sheet, about."""
GAP, LINE = 6, 14
"""Pixels between images, and of a line of text."""
SHOWN = 0.005
"""Smallest probability of a class that is written."""


def draw_training_images(data: Data, original: Data, samples: int, epochs: int, seed: int) -> str:
    """Return the sheet as SVG: samples as the data set has them, and as they are seen in the first epochs.

    Below an image are its classes, with their probabilities where labels are mixed, or the targets of another task.

    Args:
        data: a loaded data set.
        original: the same without label noise, for the classes of the first column.
        samples: number of rows, at most; evenly spaced among the training images.
        epochs: number of columns beside the first.
        seed: the trial's seed.

    Raises:
        LeadlineError: images cannot be read, or custom code fails.
    """
    positions = np.unique(np.linspace(0, data.train_size - 1, samples).astype(int)).tolist()
    plain = data.images("train", positions)
    low, high = (float(plain.min()), float(plain.max())) if plain.is_floating_point() else (0.0, 255.0)
    known = [_words(original, one) for one in original.targets("train", positions)]
    columns: list[tuple[str, Tensor, Sequence[Sequence[str]]]] = [("original", plain.float(), known)]
    for epoch in range(epochs):
        images, targets = data.training_view(positions, seed, epoch)
        columns.append((f"epoch {epoch + 1}", images * data.scale + data.mean, [_words(data, one) for one in targets]))
    width, height = _size(data.shape)
    below = LINE * max(len(lines) for _, _, words in columns for lines in words)
    shapes = []
    for column, (title, images, words) in enumerate(columns):
        x = GAP + column * (width + GAP)
        shapes.append(_text(x, LINE, title, "bold"))
        for row, (image, lines) in enumerate(zip(images, words, strict=True)):
            y = GAP + LINE + row * (height + below + GAP)
            uri = _encode((image - low) / max(high - low, 1e-12), (width, height))
            shapes.append(f'<image x="{x}" y="{y}" width="{width}" height="{height}" href="{uri}"/>')
            shapes += [_text(x, y + height + LINE * number, line) for number, line in enumerate(lines, 1)]
    whole = GAP + len(columns) * (width + GAP), GAP + LINE + len(positions) * (height + below + GAP)
    pixels = ' style="image-rendering:pixelated"' if width >= data.shape[2] else ""  # sharp in any size
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{whole[0]}" height="{whole[1]}"'
        f' viewBox="0 0 {whole[0]} {whole[1]}" font-family="sans-serif" font-size="11"{pixels}>'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(shapes)}</svg>'
    )


def _size(shape: tuple[int, int, int]) -> tuple[int, int]:
    """Return width and height on the sheet: a whole multiple of small images."""
    _, height, width = shape
    times = SIDE / max(height, width)
    times = max(1, int(times)) if times >= 1 else times
    return max(1, round(width * times)), max(1, round(height * times))


def _words(data: Data, target: Shaped[Tensor, "*target"]) -> Sequence[str]:
    """Return a line for each class of a target, or for each number of another task's."""
    if data.spec.task != "classification":
        return [f"{value:g}" for value in target.flatten().tolist()]
    names = data.metadata.class_names if data.metadata is not None else None
    named = [str(number) for number in range(data.classes)] if names is None else names
    if target.ndim == 0:
        return [named[int(target)]]
    likely = [(share, named[number]) for number, share in enumerate(target.tolist()) if share >= SHOWN]
    return [f"{share:.2f} {name}" for share, name in sorted(likely, reverse=True)]


def _encode(image: Float[Tensor, "channels height width"], size: tuple[int, int]) -> str:
    """Return an image of values from 0 to 1 as the address of a PNG file of some width and height."""
    shown = image if len(image) in (1, 3) else image.mean(0, keepdim=True)
    pixels = (shown.clamp(0, 1) * 255).round().byte().cpu().expand(3, -1, -1).permute(1, 2, 0)
    way = Image.Resampling.NEAREST if size[0] >= image.shape[2] else Image.Resampling.BOX
    file = io.BytesIO()
    Image.fromarray(pixels.numpy()).resize(size, way).save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _text(x: int, y: int, text: str, weight: str = "normal") -> str:
    return f'<text x="{x}" y="{y - 3}" font-weight="{weight}">{escape(text)}</text>'
