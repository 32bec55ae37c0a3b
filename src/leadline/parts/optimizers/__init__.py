"""Optimizers: the kind, its registry, and custom optimizers; one file for each that is built in."""

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
    """What updates the parameters; the schedule multiplies the learning rate that each group of them starts with."""

    @abstractmethod
    def build(self, parameters: "list[torch.nn.Parameter]") -> "torch.optim.Optimizer":
        """Return PyTorch's optimizer over parameters, in the fastest form that PyTorch has of it."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Take any member where a field asks for the kind."""
        return OPTIMIZERS.schema(handler)


@OPTIMIZERS.register
class CustomOptimizer(Reference, Optimizer):
    """A `torch.optim.Optimizer` class, or a function that returns one, called with the parameters and `arguments`.

    Such as `{module: torch.optim:NAdam, arguments: {lr: 0.002}}`. What it draws from PyTorch's global generator is
    drawn from the trial's noise stream.
    """

    def build(self, parameters: "list[torch.nn.Parameter]") -> "torch.optim.Optimizer":
        """Return the optimizer over parameters.

        Raises:
            SpecError: it cannot be imported, calling it fails, what it returns is no optimizer, or its steps need a
                closure, as L-BFGS does.
        """
        import inspect

        import torch

        optimizer = self.call(parameters)
        if not isinstance(optimizer, torch.optim.Optimizer):
            raise SpecError(f"{self.module} returned a {type(optimizer).__name__}; expected a torch.optim.Optimizer")
        closure = inspect.signature(type(optimizer).step).parameters.get("closure")
        if closure is not None and closure.default is inspect.Parameter.empty:
            raise SpecError(f"{self.module} needs a closure that computes the loss again, which training does not give")
        return optimizer
