"""Leadline, a laboratory for depth in neural networks."""

__version__ = "0.1.0"
