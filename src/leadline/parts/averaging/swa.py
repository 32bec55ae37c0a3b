"""Stochastic weight averaging."""

from typing import Literal

from pydantic import Field

from leadline.parts.averaging import AVERAGES, Averaging
from leadline.parts.base import Spec


@AVERAGES.register
class SWA(Spec, Averaging):
    """Stochastic weight averaging: the mean of the weights at the ends of the last epochs (Izmailov et al. 2018).

    Batch statistics are computed anew at each evaluation of the average. It needs a learning rate that keeps the
    weights moving until the end, such as that of schedule `constant`.
    """

    name: Literal["swa"] = "swa"
    start: float = Field(
        default=0.75, ge=0, lt=1, description="fraction of the epochs at whose end the first weights are averaged"
    )

    def share(self, averaged: int, step: int, steps: int, epochs: int) -> float:
        """Return one part of as many as there are with these weights, at the ends of epochs from `start` on.

        Example:
            >>> [SWA(start=0.5).share(1, step, 8, 4) for step in range(1, 9)]
            [0.0, 0.0, 0.0, 0.5, 0.0, 0.5, 0.0, 0.5]
        """
        ends_epoch = step % (steps // epochs) == 0
        return 1 / (averaged + 1) if ends_epoch and step / steps >= self.start else 0.0
