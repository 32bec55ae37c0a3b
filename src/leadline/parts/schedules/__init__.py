"""Learning-rate schedules: the kind, its registry, and custom schedules; one file for each built-in one."""

import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema

from leadline.errors import SpecError
from leadline.parts.reference import Reference
from leadline.parts.registry import Registry

SCHEDULES: "Registry[Schedule]" = Registry("schedule", __name__)
"""Every schedule by name."""


class Schedule(ABC):
    """How the learning rate changes while a network is trained, from the end of the warm-up, if there is one."""

    counts_warmup: ClassVar[bool] = False
    """Whether steps are counted from the start of training instead, so that a warm-up moves nothing."""

    @abstractmethod
    def at(self, step: int, steps: int) -> float:
        """Return what the learning rate is multiplied by at a step, counted from 0, of `steps` in all."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Take any member where a field asks for the kind."""
        return SCHEDULES.schema(handler)


@SCHEDULES.register
class CustomSchedule(Reference, Schedule):
    """A function that returns the learning rate's factor, given progress and `arguments`.

    Progress is 0 at the first step after the warm-up, and would be 1 at the step after the last.
    """

    def at(self, step: int, steps: int) -> float:
        """Return the function's value.

        Raises:
            SpecError: it cannot be imported, calling it fails, or what it returns is no finite number of 0 or more.
        """
        progress = step / steps
        value = self.call(progress)
        if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise SpecError(
                f"{self.module} returned {value!r} at progress {progress:g}; expected a number of 0 or more"
            )
        return float(value)


def anneal(start: float, end: float, fraction: float) -> float:
    """Return the value a fraction of the way from `start` to `end` along half a period of a cosine.

    Example:
        >>> anneal(1.0, 0.0, 0.5)
        0.5
    """
    return end + (start - end) * (1 + math.cos(math.pi * fraction)) / 2
