"""Test images as small pictures, read from the data set where it is at hand."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from leadline.data.batches import load
from leadline.errors import DataError
from leadline.pretraining.image_grids import ImageGrid, grid
from leadline.specs import TrialSpec

SIDE = 48
"""Pixels of the longer side of a picture at most."""


def read_pictures(
    trial: TrialSpec, places: Sequence[int], labels: NDArray[np.int64], data_dir: Path | None
) -> dict[int, ImageGrid]:
    """Return place among the test images -> its picture.

    Args:
        trial: whose data they are.
        places: of the images.
        labels: of all test images when the trial was evaluated.
        data_dir: folder of the data sets; None: the default one.

    Raises:
        LeadlineError: the data cannot be read here, or are not those that the trial was evaluated on.
    """
    changed = trial.has_other_data(data_dir)
    data = load(trial.data, data_dir, download=False)
    if changed or not np.array_equal(data.test_labels, labels):
        raise DataError(f"{trial.data.display_name}: the test images are no longer those that networks were tested on")
    images = data.images("test", places)
    return {place: _picture(image) for place, image in zip(places, images, strict=True)}


def _picture(image: Tensor) -> ImageGrid:
    """Return an image of bytes or floats, [channels, height, width], as a picture of at most `SIDE` pixels."""
    values = image.float() if image.shape[0] in (1, 3) else image.float().mean(0, keepdim=True)
    if image.is_floating_point():
        low, high = values.min(), values.max()
        values = (values - low) / (high - low).clamp(min=1e-12)
    else:
        values = values / 255
    _, height, width = values.shape
    if max(height, width) > SIDE:
        ratio = SIDE / max(height, width)
        size = max(1, round(height * ratio)), max(1, round(width * ratio))
        values = functional.adaptive_avg_pool2d(values, size)
    return grid(values.clamp(0, 1).numpy()[None], 1)
