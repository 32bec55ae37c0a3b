"""Optimizers: the base class, the registry, and custom optimizers; each built-in optimizer has its own file."""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema

from leadline.errors import SpecError
from leadline.parts.reference import Reference
from leadline.parts.registry import Registry

if TYPE_CHECKING:
    import torch

OPTIMIZERS: "Registry[Optimizer]" = Registry("optimizer", __name__)
"""Every optimizer by name."""


class Optimizer(ABC):
    """Base class of optimizers; the schedule multiplies the initial learning rate of each parameter group."""

    @abstractmethod
    def build(self, parameters: "list[torch.nn.Parameter]") -> "torch.optim.Optimizer":
        """Return PyTorch's optimizer of the parameters, in its fastest implementation."""

    @property
    def state_values(self) -> int | None:
        """Values that the optimizer keeps for each parameter; None: they are not known before it has taken a step."""
        return None

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Accept any optimizer in a field of this type."""
        return OPTIMIZERS.schema(handler)


@OPTIMIZERS.register
class CustomOptimizer(Reference, Optimizer):
    """A `torch.optim.Optimizer` class, or a function that returns one, called with the parameters and `arguments`.

    Example: `{module: torch.optim:NAdam, arguments: {lr: 0.002}}`. PyTorch's global generator is seeded from the noise
    stream of the trial.
    """

    def build(self, parameters: "list[torch.nn.Parameter]") -> "torch.optim.Optimizer":
        """Return the optimizer of the parameters.

        Raises:
            SpecError: it cannot be imported, calling it fails, it does not return an optimizer, or its steps need a
                closure, such as L-BFGS.
        """
        import inspect

        import torch

        optimizer = self.call(parameters)
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise SpecError(f"{self.module} returned a {type(optimizer).__name__}; expected a torch.optim.Optimizer")
        closure = inspect.signature(type(optimizer).step).parameters.get("closure")
        if closure is not None and closure.default is inspect.Parameter.empty:
            raise SpecError(f"{self.module} needs a closure that computes the loss again, which is not supported")
        return optimizer
