"""The one-cycle policy."""

from typing import Literal

from pydantic import Field

from leadline.parts.base import Spec
from leadline.parts.schedules import SCHEDULES, Schedule, anneal


@SCHEDULES.register
class OneCycle(Spec, Schedule):
    """Cosine from `start` of the learning rate up to it at `peak_at`, then down to `final` (Smith & Topin 2018)."""

    name: Literal["one-cycle"] = "one-cycle"
    peak_at: float = Field(default=0.3, gt=0, lt=1)
    start: float = Field(default=0.04, gt=0, lt=1)
    final: float = Field(default=0.000004, ge=0, lt=1)

    def at(self, progress: float) -> float:
        """Return the rising or the falling cosine's value."""
        if progress < self.peak_at:
            return anneal(self.start, 1.0, progress / self.peak_at)
        return anneal(1.0, self.final, (progress - self.peak_at) / (1 - self.peak_at))
