"""One class of several for each example."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from leadline.errors import DataError
from leadline.parts.losses.cross_entropy import CrossEntropy
from leadline.parts.metrics import Outputs, metrics
from leadline.parts.metrics.base import recorded
from leadline.parts.tasks import register_task
from leadline.parts.tasks.base import Task

if TYPE_CHECKING:
    from torch import Tensor


CHANCE = 2.0
"""Standard deviations by which a network that counts as guessing may be ahead of a constant prediction."""


@register_task
class Classification(Task):
    """Classification: one of several classes per example, predicted by the largest logit."""

    name = "classification"
    loss = CrossEntropy()
    metric = "test_error"
    curves = {"accuracy": "Accuracy", "loss": "Cross-entropy (nats)"}

    def check_targets(self, targets: Any, name: str) -> NDArray[np.int64]:
        """Return labels as int64, [n].

        Raises:
            DataError: they are not non-negative integers.
        """
        array = np.asarray(targets)
        if array.ndim != 1:
            raise DataError(f"{name} labels have shape {list(array.shape)}; expected [n], one number for each image")
        if array.dtype.kind not in "iu":
            raise DataError(f"{name} labels are {array.dtype}; expected whole numbers from 0")
        if len(array) and array.min() < 0:
            raise DataError(f"{name} label {array.min()} at position {int(array.argmin())}; expected 0 or more")
        return array.astype(np.int64)

    def check_parts(self, parts: Mapping[str, NDArray[Any]], class_names: Sequence[str] | None, name: str) -> None:
        """Check labels against the classes.

        Raises:
            DataError: a label is out of range, a class has no training image, or there is only one class.
        """
        train = parts["train"]
        classes = len(class_names) if class_names is not None else int(train.max()) + 1
        for part, labels in parts.items():
            if labels.max() >= classes:
                known = f"{classes} class_names" if class_names is not None else f"{classes} classes in train"
                raise DataError(
                    f"{name}: {part} label {labels.max()} at position {int(labels.argmax())}, but there are {known};"
                    " labels run from 0"
                )
        missing = np.flatnonzero(np.bincount(train, minlength=classes) == 0)
        if len(missing):
            raise DataError(f"{name}: no training image has label {missing[0]}; labels run from 0 to {classes - 1}")
        if classes < 2:
            raise DataError(
                f"{name}: all training images have label 0; a network needs two classes or more to tell apart"
            )

    def predict(self, outputs: "Tensor") -> "Tensor":
        """Return the class of the largest logit, int64 [batch]."""
        return outputs.argmax(1)

    def count_right(self, outputs: "Tensor", targets: "Tensor") -> "Tensor":
        """Return the number of correct predictions; where targets are probabilities, of the most probable class."""
        if targets.ndim == 2:
            targets = targets.argmax(1)
        return (self.predict(outputs) == targets).sum()

    def average(self, views: "Sequence[Tensor]") -> "Tensor":
        """Return the logarithm of the mean of the views' probabilities."""
        total = views[0].log_softmax(1)
        for outputs in views[1:]:
            total = total.logaddexp(outputs.log_softmax(1))
        return total - math.log(len(views))

    def values(self, loss: float, right: float) -> dict[str, float]:
        """Return the loss in nats, the accuracy as a fraction and the error in per cent."""
        return {"loss": loss, "accuracy": right, "error": 100 * (1 - right)}

    def outputs(self, outputs: "Tensor", targets: NDArray[Any]) -> Outputs:
        """Return predicted classes and softmax probabilities."""
        predicted = self.predict(outputs).numpy().astype(np.int16)
        return Outputs(targets.astype(np.int16), predicted, outputs.softmax(1).numpy())

    def is_at_chance(self, outputs: Outputs, train_error: float | None) -> bool:
        """Whether a network is right no more often than giving every example the most frequent class.

        On test data by the examples that only one of the two gets right: the network's are at most `CHANCE` standard
        deviations ahead, and its share at most half of the way to 100%, so that few examples do not make a good network
        a guess; or training data are got right no better, by one point, and test data do not show otherwise. Test data
        of one class alone tell nothing. A network that gets training data right more than half of the way has learned
        them, whatever it makes of test data, unless nearly all of its predictions are one class, which imbalanced
        training data reward.
        """
        right, constant = outputs.labels == outputs.predicted, outputs.labels == np.bincount(outputs.labels).argmax()
        most, share = (int(np.count_nonzero(one)) / len(one) for one in (constant, right))
        if most == 1:
            return False
        half = (1 + most) / 2
        varied = np.bincount(outputs.predicted).max() / len(right) <= half
        if varied and train_error is not None and 1 - train_error / 100 > half:
            return False
        ahead, behind = int(np.count_nonzero(right & ~constant)), int(np.count_nonzero(constant & ~right))
        close = ahead - behind <= CHANCE * math.sqrt(ahead + behind)
        if close and share <= half:
            return True
        return close and train_error is not None and 1 - train_error / 100 <= most + 0.01

    def final_values(self, outputs: Outputs) -> Mapping[str, float]:
        """Return all built-in metrics that are computed from outputs and have a finite value."""
        assert outputs.probabilities is not None
        asked = recorded(metrics(), outputs.probabilities.shape[1])
        found = {name: metric.value(outputs) for name, metric in asked.items()}
        return {name: value for name, value in found.items() if value is not None and math.isfinite(value)}
