"""The exponential moving average."""

from typing import ClassVar, Literal

from pydantic import Field

from leadline.parts.averaging import AVERAGES, Averaging
from leadline.parts.base import Spec


@AVERAGES.register
class EMA(Spec, Averaging):
    """The exponential moving average of the weights over all steps (Polyak & Juditsky 1992).

    It begins with the weights after the first step. Batch statistics are averaged like weights.
    """

    name: Literal["ema"] = "ema"
    decay: float = Field(default=0.999, gt=0, lt=1, description="share of the average that stays at each step")
    warmup: bool = Field(
        default=False, description="whether the decay after t steps is at most (1 + t) / (10 + t), as in TensorFlow"
    )

    recomputes_statistics: ClassVar[bool] = False

    def share(self, averaged: int, step: int, steps: int, epochs: int) -> float:
        """Return 1 minus the decay.

        Example:
            >>> round(EMA(decay=0.9).share(5, 6, 100, 10), 10), EMA(decay=0.9, warmup=True).share(5, 6, 100, 10)
            (0.1, 0.5625)
        """
        decay = min(self.decay, (1 + step) / (10 + step)) if self.warmup else self.decay
        return 1 - decay
