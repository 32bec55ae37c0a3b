"""The best network so far by its validation result, and whether training ends for want of a better one."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from leadline.errors import SpecError
from leadline.networks.modules import distinct_tensors, fill_tensors
from leadline.specs.training import EarlyStopping


class Best:
    """The network of the epoch with the best validation result so far; the earliest of equal ones.

    Args:
        spec: what is measured, and how long to wait for an improvement.
        model: on its device and in its memory layout.

    Attributes:
        epoch: whose network it is; 0 before the end of the first.
        value: its validation result.
        tensors: its parameters and buffers by name.
    """

    def __init__(self, spec: EarlyStopping, model: nn.Module) -> None:
        self.spec, self.epoch, self.value = spec, 0, math.inf
        self.tensors = {name: tensor.clone() for name, tensor in distinct_tensors(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module, epoch: int, values: Mapping[str, float]) -> None:
        """Take over a network if it is better.

        Args:
            model: after an epoch.
            epoch: its number, from 1.
            values: results on the validation images by name.

        Raises:
            SpecError: the metric is not among them.
        """
        if self.spec.metric not in values:
            raise SpecError(
                f"training.early_stopping.metric: {self.spec.metric} is not measured on the validation part of these"
                f" data; measured: {', '.join(values)}"
            )
        value = values[self.spec.metric]
        value = math.inf if math.isnan(value) else value  # any number is better
        if value < self.value or not self.epoch:
            self.epoch, self.value = epoch, value
            for name, tensor in distinct_tensors(model).items():
                self.tensors[name].copy_(tensor)

    def ends_training(self, epoch: int) -> bool:
        """Return whether training ends after so many epochs."""
        return epoch - self.epoch >= self.spec.patience

    def restore(self, model: nn.Module) -> None:
        """Give the model the best weights and statistics."""
        fill_tensors(model, self.tensors)

    def named(self) -> dict[str, Tensor]:
        """Return all of it by name, for a checkpoint."""
        numbers = {"epoch": torch.tensor(self.epoch), "value": torch.tensor(self.value, dtype=torch.float64)}
        return {**numbers, **{f"of.{name}": one for name, one in self.tensors.items()}}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `named` returned."""
        self.epoch, self.value = int(tensors["epoch"]), float(tensors["value"])
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[f"of.{name}"])
