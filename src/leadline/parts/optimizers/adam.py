"""Adam and AdamW."""

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from leadline.parts.base import Spec
from leadline.parts.optimizers import OPTIMIZERS, Optimizer

if TYPE_CHECKING:
    import torch


@OPTIMIZERS.register
class Adam(Spec, Optimizer):
    """Adam (Kingma & Ba 2015); `adamw` decouples the weight decay (Loshchilov & Hutter 2019)."""

    name: Literal["adam", "adamw"] = "adam"
    learning_rate: float = Field(default=0.001, gt=0, description="step size before the schedule")
    betas: Annotated[
        tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]], Field(strict=False)
    ] = Field(default=(0.9, 0.999), description="decay rates of the running means of the gradient and of its square")
    epsilon: float = Field(default=1e-8, gt=0, description="added to the denominator")
    weight_decay: float = Field(
        default=0.0, ge=0, description="adam: L2 penalty, added to the gradient; adamw: decoupled from it"
    )

    @property
    def state_values(self) -> int:
        """2: the running means of the gradient and of its square."""
        return 2

    def build(self, parameters: "list[torch.nn.Parameter]") -> "torch.optim.Adam":
        """Return PyTorch's Adam or AdamW, fused."""
        import torch

        kind = torch.optim.AdamW if self.name == "adamw" else torch.optim.Adam
        return kind(
            parameters,
            self.learning_rate,
            self.betas,
            self.epsilon,
            weight_decay=self.weight_decay,
            fused=True,
        )
