"""Evaluation of a network on one split."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn

from leadline.data.batches import Data, Part
from leadline.data.encoded import EncodedDataset
from leadline.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from leadline.errors import SpecError
from leadline.parts.metrics import Outputs
from leadline.parts.tasks import task_of
from leadline.specs import TrainingSpec
from leadline.specs.training import Views
from leadline.training.numerics import autocast, numerics

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
    split: Part,
    spec: TrainingSpec,
    group: ProcessGroup = SINGLE_PROCESS,
    keep_outputs: bool = False,
    views: Views | None = None,
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
        views: of each image, whose outputs are averaged as the task does; None: the image as it is.

    Raises:
        SpecError: the views are crops, and the images are not decoded during training.
    """
    model.eval()
    task = task_of(data.spec.task)
    results: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []  # loss, right, predictions, outputs where they are kept
    with numerics(data.device, spec.precision):
        for images, targets in _batches(data.take_shard(group.shard), split, spec, views):
            with autocast(targets.device, spec.precision):
                seen: list[Float[Tensor, "batch outputs"]] = [model(view) for view in images]
            outputs = seen[0] if views is None else task.average([one.float() for one in seen])
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


def _batches(
    data: Data, split: Part, spec: TrainingSpec, views: Views | None
) -> Iterator[tuple[list[Float[Tensor, "batch c h w"]], Shaped[Tensor, "batch *targets"]]]:
    """Yield the views of each batch, one after the other, with the targets."""
    size = evaluation_batch(data.shape)
    if views is None:
        for images, targets in data.evaluation_batches(split, size, spec.channels_last):
            yield [images], targets
        return
    if views.crops > 1 and not isinstance(data, EncodedDataset):
        raise SpecError(
            f"training.evaluation.crops {views.crops}: needs images that are decoded during training, such as those of"
            f" an image folder"
        )
    crops = data.crops() if isinstance(data, EncodedDataset) and views.crops > 1 else (data,)
    for batches in zip(*(one.evaluation_batches(split, size, spec.channels_last) for one in crops), strict=True):
        yield [one.flip(3) if flip else one for one, _ in batches for flip in views.flips], batches[0][1]


def evaluation_batch(shape: tuple[int, int, int]) -> int:
    """Return the number of images that are evaluated at once."""
    _, height, width = shape
    return max(1, min(EVALUATION_BATCH, EVALUATION_PIXELS // (height * width)))
