"""Label noise: training labels that are replaced by wrong ones, once for each seed; no torch."""

from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from leadline.data.split import split_mix
from leadline.parts.base import Spec
from leadline.seeds import LABELS, stream


class LabelNoise(Spec):
    """Training labels that are wrong (Patrini et al. 2017; Han et al. 2018); a bare number stands for `rate`."""

    rate: float = Field(ge=0, le=1, description="probability that a training label is replaced by a wrong one")
    kind: Literal["symmetric", "pair"] = Field(
        default="symmetric",
        description="symmetric: by any other class, each as likely; pair: by the next class, after the last the first",
    )

    @model_validator(mode="before")
    @classmethod
    def _spell_out(cls, value: object) -> object:
        return value if isinstance(value, Mapping | LabelNoise) else {"rate": value}

    def __str__(self) -> str:
        other = "any other class" if self.kind == "symmetric" else "the next class"
        return (
            f"label noise: a training label is replaced by {other} with probability {self.rate:g}, at every seed anew"
        )

    def change(self, labels: NDArray[np.int64], classes: int, seed: int) -> NDArray[np.int64]:
        """Return the labels with noise.

        Whether a label is replaced depends on (seed, sample) alone, so that a higher rate replaces all that a lower one
        does, and by the same.

        Args:
            labels: of the training images, [n], from 0.
            classes: their number, at least 2.
            seed: the trial's seed.

        Example:
            >>> LabelNoise(rate=1, kind="pair").change(np.array([0, 1, 2]), 3, seed=0).tolist()
            [1, 2, 0]
        """
        samples = np.arange(len(labels), dtype=np.uint64)
        chance = (split_mix(samples, stream(seed, LABELS, "whether")) >> np.uint64(11)) / 2**53
        drawn = split_mix(samples, stream(seed, LABELS, "which")) % np.uint64(classes - 1)
        steps = 1 + drawn.astype(np.int64) if self.kind == "symmetric" else 1
        return np.where(chance < self.rate, (labels + steps) % classes, labels)
