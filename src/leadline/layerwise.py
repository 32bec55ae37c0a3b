"""Layer-wise pre-training of a network on a data set, before its training as a whole begins."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from leadline.data.batches import Data, Part
from leadline.pretraining.fitting import LayerEpoch
from leadline.pretraining.pictures import Pictures, filters, samples
from leadline.pretraining.stack import PretrainingResult, pretrain
from leadline.record import Record
from leadline.spec import PretrainingSpec

SAMPLES, GIBBS_STEPS = 64, 500


@dataclass(frozen=True)
class Pretrained:
    """What pre-training measured, and what it looks like."""

    records: tuple[Record, ...]  # all of epoch 0: before the first
    seconds: float
    pictures: Pictures | None  # None: images are not of one or three channels


def pretrain_network(
    model: nn.Module,
    data: Data,
    spec: PretrainingSpec,
    seed: int,
    progress: Callable[[str, float], None],
) -> Pretrained:
    """Pre-train the hidden layers of a fully-connected sigmoid network in place, on the training images alone.

    Args:
        model: a plain network whose linear layers are its hidden ones, in order, and the classifier.
        data: not augmented here.
        spec: the recipe.
        seed: of the streams.
        progress: called with words and the fraction done.

    Raises:
        SpecError: the network's layers cannot be pre-trained.
        DataError: the images are not what the first layer's units take.
        PretrainingDiverged: a layer diverged.
    """
    *hidden, _ = [module for module in model.modules() if isinstance(module, nn.Linear)]

    def tell(epoch: LayerEpoch) -> None:
        done = ((epoch.layer - 1) * spec.epochs + epoch.epoch) / (len(hidden) * spec.epochs)
        progress(f"pre-training layer {epoch.layer} of {len(hidden)}", done)

    images = _flat(data, "train")
    result = pretrain(hidden, "sigmoid", images, spec, seed, tell, _flat(data, "validation"))
    records = tuple(record._replace(epoch=0) for record in result.records())
    whole = Record(0, 0, "time", "seconds", result.seconds)
    return Pretrained((*records, whole), result.seconds, _pictures(result, data.shape, seed))


def _flat(data: Data, part: Part) -> Tensor:
    return torch.cat([images.flatten(1) for images, _ in data.evaluation_batches(part, 1000, False)])


def _pictures(result: PretrainingResult, shape: tuple[int, int, int], seed: int) -> Pictures | None:
    """Return the first layer's filters and, of a deep belief network, what it dreams of."""
    if shape[0] not in (1, 3) or min(shape[1:]) < 2:
        return None
    seen = filters(result.machines[0].weight.cpu().numpy(), shape)
    if result.spec.method != "rbm":
        return Pictures(seen, None)
    dreamt = result.dbn().sample(SAMPLES, GIBBS_STEPS, seed).cpu().numpy()
    return Pictures(seen, samples(dreamt, shape, standardised=result.spec.visible == "gaussian"))
