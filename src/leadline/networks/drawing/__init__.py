"""Drawings of networks: stem, stages, blocks, shortcuts and head, as papers show them."""

from leadline.networks.drawing.files import write_drawing
from leadline.networks.drawing.page import draw

__all__ = ["draw", "write_drawing"]
