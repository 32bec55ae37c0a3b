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
    """What a network is trained for.

    A subclass says `name`, `loss`, `metric`, and how outputs are read; by default targets are numbers, one or several
    for each example, and a network has as many outputs.
    """

    name: ClassVar[str]
    loss: Loss
    """The loss of a recipe that names none, and the one that evaluation records."""
    metric: ClassVar[str]
    """The metric of contrasts that name none, by its name or as a reference."""
    curves: ClassVar[Mapping[str, str]] = {"loss": "Loss"}
    """Records that learning curves are drawn of -> the title of their axis."""

    def check_targets(self, targets: Any, name: str) -> NDArray[Any]:
        """Return the targets of a part of the data, [n] or [n, outputs], in the type that training takes.

        Args:
            targets: as a data set gives them.
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
        """Compare the targets of all parts with each other.

        Args:
            parts: train, and validation and test where they are given, from `check_targets`.
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
        """Return what the network says of each example, from outputs [batch, outputs]."""

    def count_right(self, outputs: "Tensor", targets: "Tensor") -> "Tensor":
        """Return how many examples of a batch are right, one whole number; 0 where that means nothing."""
        return outputs.new_zeros(()).long()

    @abstractmethod
    def values(self, loss: float, right: float) -> dict[str, float]:
        """Return what is recorded of a split, by name, from its mean loss and the fraction that is right."""

    def outputs(self, outputs: "Tensor", targets: NDArray[Any]) -> Outputs:
        """Return what is kept of a trained network's outputs [examples, outputs] for test data."""
        return Outputs(targets, self.predict(outputs).numpy())

    def is_at_chance(self, outputs: Outputs, train_error: float | None) -> bool:
        """Whether a trained network has learned nothing: it does no better than one constant prediction.

        Args:
            outputs: what it gave for test data.
            train_error: on its training data, per cent; None: not recorded.
        """
        return False

    def final_values(self, outputs: Outputs) -> Mapping[str, float]:
        """Return what is recorded of test data beside `values`, by name."""
        return {}
