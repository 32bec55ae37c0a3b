"""How good a network is on one split, in evaluation mode."""

from dataclasses import dataclass
from itertools import zip_longest
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from leadline.data.batches import Data
from leadline.distributed.process_group import SINGLE_PROCESS, ProcessGroup
from leadline.spec import TrainingSpec

EVALUATION_BATCH, EVALUATION_PIXELS = 500, 2**22
"""Images, and pixels of all of them, in a batch of evaluation at most: 500 of up to 91x91, 83 of 224x224."""


@dataclass(frozen=True)
class Evaluation:
    """A network's results on one split, in evaluation mode."""

    loss: float  # mean cross-entropy, nats
    accuracy: float  # fraction
    predicted: np.ndarray  # int16 [n]


@torch.no_grad()
def evaluate(
    model: nn.Module,
    data: Data,
    split: Literal["train", "validation", "test"],
    spec: TrainingSpec,
    group: ProcessGroup = SINGLE_PROCESS,
) -> Evaluation:
    """Return loss, accuracy and predicted classes on one split, without augmentation, in evaluation mode.

    The processes of a group evaluate whole batches each, whose results are put together in order: the same weights give
    the same bits on any number of devices.
    """
    model.eval()
    batches = data.take_shard(group.shard).evaluation_batches(split, _evaluation_batch(data.shape), spec.channels_last)
    results: list[tuple[float, int, np.ndarray]] = []  # loss, correct, predicted
    for images, labels in batches:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=spec.precision == "bfloat16"):
            logits: Float[Tensor, "batch classes"] = model(images)
        predicted: Int64[Tensor, " batch"] = logits.argmax(1)
        loss = float(F.cross_entropy(logits.float(), labels, reduction="sum"))
        results.append((loss, int((predicted == labels).sum()), predicted.cpu().numpy().astype(np.int16)))
    in_turn = zip_longest(*group.all_gather(results))
    losses, correct, classes = zip(*(one for turn in in_turn for one in turn if one is not None), strict=True)
    everything = np.concatenate(classes)
    return Evaluation(sum(losses) / len(everything), sum(correct) / len(everything), everything)


def _evaluation_batch(shape: tuple[int, int, int]) -> int:
    _, height, width = shape
    return max(1, min(EVALUATION_BATCH, EVALUATION_PIXELS // (height * width)))
