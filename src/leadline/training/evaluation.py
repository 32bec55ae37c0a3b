"""Evaluation of a network on one split."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from leadline.data.batches import Data
from leadline.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from leadline.parts.metrics import Outputs
from leadline.parts.tasks import task_of
from leadline.specs import TrainingSpec
from leadline.training.numerics import autocast

EVALUATION_BATCH, EVALUATION_PIXELS = 500, 2**22
"""Images, and pixels of all of them, in a batch of evaluation at most: 500 of up to 91x91, 83 of 224x224."""


@dataclass(frozen=True)
class Evaluation:
    """A network's results on one split, in evaluation mode."""

    values: Mapping[str, float]  # such as loss (nats), accuracy (a fraction) and error (per cent)
    predicted: np.ndarray  # [n], int16 where classes are predicted
    outputs: Outputs | None = None  # of test data, where they were asked for

    @property
    def loss(self) -> float:
        """The mean of the task's loss; of classes the cross-entropy, in nats."""
        return self.values["loss"]

    @property
    def accuracy(self) -> float:
        """The fraction of examples that is right."""
        return self.values["accuracy"]


@torch.no_grad()
def evaluate(
    model: nn.Module,
    data: Data,
    split: Literal["train", "validation", "test"],
    spec: TrainingSpec,
    group: ProcessGroup = SINGLE_PROCESS,
    keep_outputs: bool = False,
) -> Evaluation:
    """Evaluate a network on one split, without augmentation, in evaluation mode.

    The processes of a group evaluate whole batches each, whose results are put together in order: the same weights give
    the same bits on any number of devices.

    Args:
        model: its parameters are on the data's device.
        data: the data set.
        split: which part of it.
        spec: the recipe, for precision and memory layout.
        group: the processes that evaluate together.
        keep_outputs: on test data, also return the outputs and record the metrics computed from them.
    """
    model.eval()
    task = task_of(data.spec.task)
    batches = data.take_shard(group.shard).evaluation_batches(split, evaluation_batch(data.shape), spec.channels_last)
    results: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []  # loss, right, predictions, outputs where they are kept
    for images, targets in batches:
        with autocast(images.device, spec.precision):
            outputs: Float[Tensor, "batch outputs"] = model(images)
        loss = task.loss.compute(outputs.float(), targets, "sum")
        kept = outputs.float() if keep_outputs else outputs.new_empty(0)
        results.append((loss, task.count_right(outputs, targets), task.predict(outputs), kept))
    in_turn = zip_longest(*group.all_gather([tuple(one.cpu() for one in each) for each in results]))
    losses, right, predicted, kept_outputs = zip(
        *(one for turn in in_turn for one in turn if one is not None), strict=True
    )
    everything = torch.cat(predicted).numpy()
    values = task.values(sum(map(float, losses)) / len(everything), sum(map(int, right)) / len(everything))
    if not keep_outputs:
        return Evaluation(values, everything)
    found = task.outputs(torch.cat(kept_outputs), data.test_labels)
    return Evaluation({**values, **task.final_values(found)}, everything, found)


def evaluation_batch(shape: tuple[int, int, int]) -> int:
    """Return the number of images that are evaluated at once."""
    _, height, width = shape
    return max(1, min(EVALUATION_BATCH, EVALUATION_PIXELS // (height * width)))
