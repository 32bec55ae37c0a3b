"""Averages of a network's weights: the kind, its registry, and custom ones; one file for each built-in one."""

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema

from leadline.errors import SpecError
from leadline.parts.reference import Reference
from leadline.parts.registry import Registry

AVERAGES: "Registry[Averaging]" = Registry("averaging", __name__)
"""Every average of weights by name."""


class Averaging(ABC):
    """What an average of the weights is made of; it is kept beside those that are trained, and evaluated."""

    recomputes_statistics: ClassVar[bool] = True
    """Whether batch statistics are computed anew for the averaged weights; otherwise they are averaged like these."""

    @abstractmethod
    def share(self, averaged: int, step: int, steps: int, epochs: int) -> float:
        """Return the share of the weights after a step in the average, at most 1; 0 leaves the average as it is.

        The first weights with a share are the average, whatever their share is.

        Args:
            averaged: number of times that weights have been averaged.
            step: number of steps done.
            steps: number of steps of the whole training, a multiple of `epochs`.
            epochs: number of epochs of the whole training.
        """

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Accept any average in a field of this type."""
        return AVERAGES.schema(handler)


@AVERAGES.register
class CustomAveraging(Reference, Averaging):
    """A function that returns the share of the current weights in the average, called after each step.

    It is called with progress, 1 at the last step, the number of times that weights have been averaged, and
    `arguments`.
    """

    def share(self, averaged: int, step: int, steps: int, epochs: int) -> float:
        """Return the function's value.

        Raises:
            SpecError: it cannot be imported, calling it fails, or what it returns is no number from 0 to 1.
        """
        value = self.call(step / steps, averaged)
        if not isinstance(value, int | float) or not math.isfinite(value) or not 0 <= value <= 1:
            raise SpecError(f"{self.module} returned {value!r} at step {step}; expected a number from 0 to 1")
        return float(value)
