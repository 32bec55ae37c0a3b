"""What a network is trained for: how its outputs are read, which loss it has by default, and what is recorded.

Classification is built in. Another task is a subclass of `Task` with a decorator; data sets name the task that they
are for, and training, the store, verdicts and reports ask it.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int64, Shaped
from torch import Tensor

from leadline.errors import SpecError, unknown
from leadline.metrics import Outputs, metrics
from leadline.metrics.base import recorded
from leadline.parts.losses import Loss
from leadline.parts.losses.cross_entropy import CrossEntropy

TASKS: dict[str, "Task"] = {}
"""Every task by name."""

T = TypeVar("T", bound="type[Task]")


def register_task(task: T) -> T:
    """Add a task under its name."""
    TASKS[task.name] = task()
    return task


def task_named(name: str) -> "Task":
    """Return a task by its name.

    Raises:
        SpecError: there is none.
    """
    if name not in TASKS:
        raise SpecError(unknown("task", name, TASKS))
    return TASKS[name]


class Task(ABC):
    """What a network is trained for."""

    name: str
    loss: Loss
    """The loss of a recipe that names none, and the one that evaluation records."""

    @abstractmethod
    def predict(self, outputs: Float[Tensor, "batch outputs"]) -> Shaped[Tensor, " batch"]:
        """Return what the network says of each example."""

    @abstractmethod
    def count_right(self, outputs: Float[Tensor, "batch outputs"], targets: Tensor) -> Int64[Tensor, ""]:
        """Return how many examples of a batch are right; 0 where that means nothing."""

    @abstractmethod
    def values(self, loss: float, right: float) -> dict[str, float]:
        """Return what is recorded of a split, by name, from its mean loss and the fraction that is right."""

    @abstractmethod
    def outputs(self, outputs: Float[Tensor, "examples outputs"], targets: np.ndarray) -> Outputs:
        """Return what is kept of a trained network's outputs for test data."""

    def final_values(self, outputs: Outputs) -> Mapping[str, float]:
        """Return what is recorded of test data beside `values`, by name."""
        return {}


@register_task
class Classification(Task):
    """One class of several for each example, by the largest logit."""

    name = "classification"
    loss = CrossEntropy()

    def predict(self, outputs: Float[Tensor, "batch outputs"]) -> Int64[Tensor, " batch"]:
        """Return the class of the largest logit."""
        return outputs.argmax(1)

    def count_right(self, outputs: Float[Tensor, "batch outputs"], targets: Tensor) -> Int64[Tensor, ""]:
        """Return how many predictions are the true classes."""
        return (self.predict(outputs) == targets).sum()

    def values(self, loss: float, right: float) -> dict[str, float]:
        """Return loss in nats, accuracy as a fraction, error in per cent."""
        return {"loss": loss, "accuracy": right, "error": 100 * (1 - right)}

    def outputs(self, outputs: Float[Tensor, "examples outputs"], targets: np.ndarray) -> Outputs:
        """Return classes and the probabilities of the softmax."""
        predicted = self.predict(outputs).numpy().astype(np.int16)
        return Outputs(targets.astype(np.int16), predicted, torch.softmax(outputs, 1).numpy())

    def final_values(self, outputs: Outputs) -> Mapping[str, float]:
        """Return every built-in metric that is computed from outputs and is a finite number."""
        assert outputs.probabilities is not None
        asked = recorded(metrics(), outputs.probabilities.shape[1])
        found = {name: metric.value(outputs) for name, metric in asked.items()}
        return {name: value for name, value in found.items() if value is not None and math.isfinite(value)}
