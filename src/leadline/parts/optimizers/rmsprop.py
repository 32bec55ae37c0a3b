"""RMSprop."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from leadline.parts.base import Spec
from leadline.parts.optimizers import OPTIMIZERS, Optimizer

if TYPE_CHECKING:
    import torch


@OPTIMIZERS.register
class RMSprop(Spec, Optimizer):
    """RMSprop (Tieleman & Hinton 2012)."""

    name: Literal["rmsprop"] = "rmsprop"
    learning_rate: float = Field(default=0.001, gt=0, description="step size before the schedule")
    decay: float = Field(default=0.99, ge=0, lt=1, description="smoothing of the squared gradient")
    momentum: float = Field(default=0.0, ge=0, lt=1, description="factor on the previous step")
    epsilon: float = Field(default=1e-8, gt=0, description="added to the denominator")
    weight_decay: float = Field(default=0.0, ge=0, description="L2 penalty, added to the gradient")

    @property
    def state_values(self) -> int:
        """The running mean of the squared gradient, and the momentum where there is one."""
        return 2 if self.momentum else 1

    def build(self, parameters: "list[torch.nn.Parameter]") -> "torch.optim.RMSprop":
        """Return PyTorch's RMSprop in its foreach form, as PyTorch has no fused one."""
        import torch

        return torch.optim.RMSprop(
            parameters,
            self.learning_rate,
            self.decay,
            self.epsilon,
            self.weight_decay,
            self.momentum,
            foreach=True,
        )
