"""Rectangles that differ from image to image."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def mark(images: "Tensor", top: "Tensor", bottom: "Tensor", left: "Tensor", right: "Tensor") -> "Tensor":
    """Return which pixels of each image are in its rectangle, bool [b, 1, h, w].

    Args:
        images: [b, c, h, w].
        top, bottom, left, right: int64 [b], the first row and column inside, and those after the last; what is beyond
            the border is left out.
    """
    import torch

    height, width = images.shape[2:]
    rows, columns = torch.arange(height, device=images.device), torch.arange(width, device=images.device)
    vertical = (rows >= top[:, None]) & (rows < bottom[:, None])
    horizontal = (columns >= left[:, None]) & (columns < right[:, None])
    return (vertical[:, :, None] & horizontal[:, None, :])[:, None]
