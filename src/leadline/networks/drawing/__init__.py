"""Drawings of networks: stem, stages, blocks, shortcuts and head, as papers show them."""

from leadline.networks.drawing.page import draw

__all__ = ["draw"]
