"""A constant learning rate."""

from typing import Literal

from leadline.parts.base import Spec
from leadline.parts.schedules import SCHEDULES, Schedule


@SCHEDULES.register
class Constant(Spec, Schedule):
    """The learning rate stays as it is."""

    name: Literal["constant"] = "constant"

    def at(self, progress: float) -> float:
        """Return 1."""
        return 1.0
