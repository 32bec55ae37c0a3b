"""A constant learning rate."""

from typing import ClassVar, Literal

from leadline.parts.base import Spec
from leadline.parts.schedules import SCHEDULES, Schedule


@SCHEDULES.register
class Constant(Spec, Schedule):
    """The learning rate stays as it is."""

    name: Literal["constant"] = "constant"

    counts_warmup: ClassVar[bool] = True

    def at(self, step: int, steps: int) -> float:
        """Return 1."""
        return 1.0
