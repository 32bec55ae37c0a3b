"""Loss scaling: what keeps small gradients above the smallest number of float16, and which steps it costs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


class LossScaler:
    """Scales the loss before the backward pass and gradients back after it, and skips steps without finite gradients.

    The scale is PyTorch's: it halves when a gradient overflows, and doubles after 2000 steps in which none has. A
    skipped step has seen its batch and counts as a step everywhere, in schedules too; weights and optimizer stay.

    Attributes:
        enabled: otherwise the loss stays as it is, and every step is taken.
        skipped: how many steps have been skipped so far.
    """

    def __init__(self, device: torch.device | None = None, enabled: bool = False) -> None:
        self.enabled = enabled
        self.skipped = 0
        self._unscaled: UnscaledOptimizer | None = None
        self._scaler = torch.amp.GradScaler("cpu" if device is None else device.type, enabled=enabled)

    def scale(self, loss: Tensor) -> Tensor:
        """Return the loss for the backward pass."""
        if not self.enabled:
            return loss
        scaled: Tensor = self._scaler.scale(loss)
        return scaled

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide an optimizer's gradients by the scale, in place; call it once for every step."""
        if self.enabled:
            self._unscaled = UnscaledOptimizer(optimizer)
            self._scaler.unscale_(self._unscaled)  # type: ignore[arg-type]

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Take a step of the optimizer, in float16 if all its gradients are finite; adjust the scale."""
        if not self.enabled:
            optimizer.step()
            return
        assert self._unscaled is not None
        self._scaler.step(self._unscaled)  # type: ignore[arg-type]
        self._scaler.update()
        self.skipped += not self._unscaled.stepped

    def tensors(self) -> dict[str, Tensor]:
        """Return all of it by name, for a checkpoint."""
        if not self.enabled:
            return {}
        now = self._scaler.state_dict()
        return {
            "scale": torch.tensor(now["scale"]),
            "growth_tracker": torch.tensor(now["_growth_tracker"]),
            "skipped": torch.tensor(self.skipped),
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` returned."""
        if self.enabled:
            scale, tracker = float(tensors["scale"]), int(tensors["growth_tracker"])
            self._scaler.load_state_dict({**self._scaler.state_dict(), "scale": scale, "_growth_tracker": tracker})
            self.skipped = int(tensors["skipped"])


@dataclass
class UnscaledOptimizer:
    """An optimizer whose gradients have been unscaled.

    PyTorch lets fused optimizers skip steps themselves, and SGD that skips its first one goes on from a momentum that
    was never written. As this is none of them, PyTorch decides whether to call it.
    """

    optimizer: torch.optim.Optimizer
    stepped: bool = False

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The optimizer's parameters."""
        return self.optimizer.param_groups

    def step(self) -> None:
        """Take the optimizer's step."""
        self.optimizer.step()
        self.stepped = True
