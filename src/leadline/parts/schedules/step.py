"""A learning rate that falls in steps."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from leadline.parts.base import Spec
from leadline.parts.schedules import SCHEDULES, Schedule


@SCHEDULES.register
class StepDecay(Spec, Schedule):
    """The learning rate is multiplied by `factor` at each milestone, a fraction of training with its warm-up."""

    name: Literal["step"] = "step"
    milestones: Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], Field(strict=False, min_length=1)] = Field(
        default=(0.5, 0.75),
        description="fractions of the training after which the learning rate changes",
    )
    factor: float = Field(
        default=0.1, gt=0, lt=1, description="what the learning rate is multiplied by at each milestone"
    )

    counts_warmup: ClassVar[bool] = True

    @model_validator(mode="after")
    def _in_order(self) -> "StepDecay":
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(
                f"milestones {list(self.milestones)} must be distinct fractions of training in rising order"
            )
        return self

    def at(self, step: int, steps: int) -> float:
        """Return `factor` to the power of the milestones passed."""
        return self.factor ** sum(step / steps >= milestone for milestone in self.milestones)
