"""Stochastic gradient descent."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from leadline.parts.base import Spec
from leadline.parts.optimizers import OPTIMIZERS, Optimizer

if TYPE_CHECKING:
    import torch


@OPTIMIZERS.register
class SGD(Spec, Optimizer):
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"] = "sgd"
    learning_rate: float = Field(default=0.1, gt=0, description="step size before the schedule")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="factor on the previous step")
    nesterov: bool = Field(default=False, description="whether the gradient is that after the momentum's step")
    weight_decay: float = Field(default=0.0, ge=0, description="L2 penalty, added to the gradient")

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> "SGD":
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0, got 0")
        return self

    @property
    def state_values(self) -> int:
        """The momentum where there is one."""
        return 1 if self.momentum else 0

    def build(self, parameters: "list[torch.nn.Parameter]") -> "torch.optim.SGD":
        """Return PyTorch's SGD, fused."""
        import torch

        return torch.optim.SGD(
            parameters,
            self.learning_rate,
            self.momentum,
            weight_decay=self.weight_decay,
            nesterov=self.nesterov,
            fused=True,
        )
