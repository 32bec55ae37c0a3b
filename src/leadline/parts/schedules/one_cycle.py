"""The one-cycle policy."""

from typing import Literal

from pydantic import Field

from leadline.parts.base import Spec
from leadline.parts.schedules import SCHEDULES, Schedule, anneal


@SCHEDULES.register
class OneCycle(Spec, Schedule):
    """Cosine from `start` of the learning rate up to it at `peak_at`, then down to `final` (Smith & Topin 2018).

    The first step has `start`, the last one `final`, and `peak_at` is a fraction of the steps.
    """

    name: Literal["one-cycle"] = "one-cycle"
    peak_at: float = Field(
        default=0.3, gt=0, lt=1, description="fraction of the training after which the learning rate is highest"
    )
    start: float = Field(default=0.04, gt=0, lt=1, description="first learning rate, as a fraction of the highest")
    final: float = Field(default=0.000004, ge=0, lt=1, description="last learning rate, as a fraction of the highest")

    @property
    def revision(self) -> int:
        """2: `final` is reached."""
        return 2

    def at(self, step: int, steps: int) -> float:
        """Return the rising or the falling cosine's value; 1 where there is one step only."""
        last = steps - 1
        peak = max(self.peak_at * steps - 1, 0)
        if step < peak:
            return anneal(self.start, 1.0, step / peak)
        return anneal(1.0, self.final, (step - peak) / (last - peak)) if last else 1.0
