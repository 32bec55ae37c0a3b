"""Losses: the base class, the registry, and custom losses; each built-in loss has its own file."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema

from leadline.errors import SpecError
from leadline.parts.reference import Reference
from leadline.parts.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

LOSSES: "Registry[Loss]" = Registry("loss", __name__)
"""Every loss by name."""

Reduction = Literal["mean", "sum"]


class Loss(ABC):
    """Base class of losses: functions of the outputs of a network and of the targets, minimised by training."""

    splits = True
    """Whether the loss of a batch is a sum over its examples, so that several devices can each compute a part."""
    takes_probabilities: ClassVar[bool] = False
    """Whether targets may be probabilities of the classes, (batch, classes), as mixed labels are."""

    @abstractmethod
    def compute(self, outputs: "Tensor", targets: "Tensor", reduction: Reduction, smoothing: float = 0.0) -> "Tensor":
        """Return the loss of a batch.

        Args:
            outputs: (batch, outputs), such as logits.
            targets: (batch,), such as classes; (batch, classes) of probabilities where it takes them.
            reduction: `mean` or `sum` over the batch.
            smoothing: the recipe's `label_smoothing`.
        """

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Accept any loss in a field of this type."""
        return LOSSES.schema(handler)


@LOSSES.register
class CustomLoss(Reference, Loss):
    """A function of outputs, targets and `arguments` that returns the mean over a batch, or a `torch.nn.Module` class.

    Example: `{module: torch.nn:MultiMarginLoss, arguments: {margin: 0.5}}`, where the class is instantiated with
    `arguments`. A function with an argument `reduction`, or a module with an attribute `reduction`, can be used on
    several devices; its `mean` must be its `sum` divided by the number of examples. Global generators are seeded from a
    stream of the trial's seed.
    """

    def compute(self, outputs: "Tensor", targets: "Tensor", reduction: Reduction, smoothing: float = 0.0) -> "Tensor":
        """Return the loss of a batch.

        Raises:
            SpecError: it cannot be imported, calling it fails, it does not return a single number, or it does not
                support the reduction or label smoothing.
        """
        import torch

        if smoothing:
            raise SpecError(f"{self.module} does not support label_smoothing; set it to 0")
        # resolved each time, because a notebook may redefine it
        function, takes_reduction = _prepare(self.resolve(), self.model_dump_json())
        if reduction != "mean" and not takes_reduction:
            raise SpecError(
                f"{self.module} has no argument `reduction`, so it cannot be split over devices; train on one device"
            )
        try:
            loss = function(outputs, targets, **({"reduction": reduction} if takes_reduction else {}))
        except Exception as error:
            reason = " ".join(str(error).split())
            raise SpecError(f"{self.module}: calling it failed: {type(error).__name__}: {reason}") from error
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            raise SpecError(
                f"{self.module} returned {type(loss).__name__}; expected a tensor with the batch's mean loss"
            )
        return loss.reshape(())


@lru_cache(maxsize=32)
def _prepare(thing: Callable[..., Any], spec: str) -> tuple[Callable[..., Any], bool]:
    """Return a callable loss, and whether it accepts `reduction`."""
    from torch import nn

    reference = CustomLoss.model_validate_json(spec)
    if not (isinstance(thing, type) and issubclass(thing, nn.Module)):
        try:
            takes = "reduction" in inspect.signature(thing).parameters
        except ValueError:  # functions in C may have no signature
            takes = False
        return (lambda *given, **further: thing(*given, **{**reference.arguments, **further})), takes
    made: nn.Module = reference.call()
    if list(made.parameters()):
        raise SpecError(
            f"{reference.module} has parameters, which no optimizer would train; move them into the network"
        )
    if not isinstance(getattr(made, "reduction", None), str):
        return made, False

    def reduce(outputs: "Tensor", targets: "Tensor", reduction: str) -> Any:
        made.reduction = reduction  # type: ignore[assignment]  # as in the losses of PyTorch
        return made(outputs, targets)

    return reduce, True
