"""What a task is: which targets it has, how a network's outputs are read, what is recorded, and what is compared."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from leadline.errors import DataError
from leadline.parts.losses import Loss
from leadline.parts.metrics import Outputs

if TYPE_CHECKING:
    from torch import Tensor


class Task(ABC):
    """Base class of tasks.

    A subclass defines `name`, `loss`, `metric`, and how outputs are interpreted. By default, targets are one or several
    numbers per example, and the network has as many outputs.
    """

    name: ClassVar[str]
    loss: Loss
    """The default loss of recipes, which is also the loss recorded in evaluation."""
    metric: ClassVar[str]
    """The default metric of contrasts, as a name or a reference."""
    curves: ClassVar[Mapping[str, str]] = {"loss": "Loss"}
    """Records that are drawn as learning curves -> title of the axis."""

    def check_targets(self, targets: Any, name: str) -> NDArray[Any]:
        """Check the targets of a part of the data, [n] or [n, outputs], and convert them to the type for training.

        Args:
            targets: targets from a data set.
            name: what messages call the part.

        Raises:
            DataError: no network can be trained on them.
        """
        array = np.asarray(targets)
        if array.dtype.kind not in "fiu" or array.ndim not in (1, 2):
            raise DataError(
                f"{name} targets are {array.dtype} of shape {list(array.shape)}; expected numbers of shape [n] or"
                " [n, outputs]"
            )
        if not np.isfinite(array).all():
            raise DataError(f"{name} targets hold NaN or infinity; expected finite numbers")
        return array.astype(np.float32)

    def check_parts(self, parts: Mapping[str, NDArray[Any]], class_names: Sequence[str] | None, name: str) -> None:
        """Check the targets of all parts for consistency.

        Args:
            parts: train, and validation and test if given, from `check_targets`.
            class_names: as the data set gives them.
            name: what messages call the data set.

        Raises:
            DataError: they do not belong together.
        """
        shapes = {part: targets.shape[1:] for part, targets in parts.items()}
        if len(set(shapes.values())) > 1:
            raise DataError(f"{name}: targets of its parts differ in shape: {shapes}")

    @abstractmethod
    def predict(self, outputs: "Tensor") -> "Tensor":
        """Return the predictions for outputs [batch, outputs]."""

    def count_right(self, outputs: "Tensor", targets: "Tensor") -> "Tensor":
        """Return the number of correct predictions in a batch, or 0 if this is not meaningful."""
        return outputs.new_zeros(()).long()

    @abstractmethod
    def values(self, loss: float, right: float) -> dict[str, float]:
        """Return the values to record for a split, by name, from its mean loss and the fraction of correct ones."""

    def average(self, views: "Sequence[Tensor]") -> "Tensor":
        """Return the outputs [batch, outputs] for several views of the same examples: the mean of theirs."""
        return sum(views[1:], start=views[0]) / len(views)

    def outputs(self, outputs: "Tensor", targets: NDArray[Any]) -> Outputs:
        """Return the outputs to store from a trained network's outputs [examples, outputs] for test data."""
        return Outputs(targets, self.predict(outputs).numpy())

    def is_at_chance(self, outputs: Outputs, train_error: float | None) -> bool:
        """Whether a trained network has learned nothing: it does no better than one constant prediction.

        Args:
            outputs: what it gave for test data.
            train_error: on its training data, per cent; None: not recorded.
        """
        return False

    def final_values(self, outputs: Outputs) -> Mapping[str, float]:
        """Return further values to record for test data, by name."""
        return {}
