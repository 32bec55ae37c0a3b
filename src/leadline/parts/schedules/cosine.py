"""Cosine annealing."""

from typing import Literal

from pydantic import Field

from leadline.parts.base import Spec
from leadline.parts.schedules import SCHEDULES, Schedule, anneal


@SCHEDULES.register
class Cosine(Spec, Schedule):
    """Half a cosine from the learning rate down to `final` of it (Loshchilov & Hutter 2017, without restarts)."""

    name: Literal["cosine"] = "cosine"
    final: float = Field(default=0.0, ge=0, lt=1, description="last learning rate, as a fraction of the full one")

    def at(self, step: int, steps: int) -> float:
        """Return the cosine's value, 1 at the first step; `final` would follow the last."""
        return anneal(1.0, self.final, step / steps)
