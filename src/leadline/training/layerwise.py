"""Layer-wise pre-training of a network on a data set, before its training as a whole begins."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from leadline.data.batches import Data, Part
from leadline.errors import SpecError
from leadline.parts.metrics.record import Record
from leadline.pretraining.fitting import LayerEpoch
from leadline.pretraining.image_grids import ImageGrids, filters, samples
from leadline.pretraining.stack import PretrainingResult, train_layers
from leadline.pretraining.state import PretrainingState
from leadline.training.numerics import compute_in, numerics

SAMPLES, GIBBS_STEPS = 64, 500


@dataclass(frozen=True)
class Pretrained:
    """What pre-training measured, and what it looks like."""

    records: tuple[Record, ...]  # all of epoch 0: before the first
    grids: ImageGrids | None  # None: images are not of one or three channels


def pretrain_network(state: PretrainingState, model: nn.Module, data: Data, seed: int) -> Iterator[LayerEpoch]:
    """Pre-train the hidden layers of a fully-connected sigmoid network in place, on the training images alone.

    What is yielded after each epoch of each layer is a moment for a checkpoint; see `train_layers`. Everything is
    computed in float32, whatever the precision of training.

    Args:
        state: a new one, or one that has been loaded; changed in place.
        model: a plain network whose linear layers are its hidden ones, in order, and the classifier.
        data: not augmented here.
        seed: of the streams.

    Raises:
        SpecError: the network's layers cannot be pre-trained, or not on this device.
        DataError: the images are not what the first layer's units take.
        PretrainingDiverged: a layer diverged.
    """
    if data.device.type == "mps":
        raise SpecError("pretraining: needs sums in float64, which mps does not have; use --device cpu")
    images, held_out = _flat(data, "train"), _flat(data, "validation")
    epochs = train_layers(state, hidden_layers(model), "sigmoid", images, seed, held_out)
    yield from compute_in(lambda: numerics(data.device), epochs)


def hidden_layers(model: nn.Module) -> list[nn.Linear]:
    """Return a plain network's hidden linear layers, from the input up."""
    *hidden, _ = [module for module in model.modules() if isinstance(module, nn.Linear)]
    return hidden


def pretrained(state: PretrainingState, shape: tuple[int, int, int], seed: int) -> Pretrained:
    """Return what there is to keep of a pre-training that has come to its end, on images of a shape."""
    result = PretrainingResult.of(state)
    records = tuple(record._replace(epoch=0) for record in result.records())
    whole = Record(0, 0, "time", "seconds", result.seconds)
    with numerics(result.machines[0].weight.device):
        return Pretrained((*records, whole), _image_grids(result, shape, seed))


def _flat(data: Data, part: Part) -> Tensor:
    return torch.cat([images.flatten(1) for images, _ in data.evaluation_batches(part, 1000, False)])


def _image_grids(result: PretrainingResult, shape: tuple[int, int, int], seed: int) -> ImageGrids | None:
    """Return the first layer's filters and, of a deep belief network, what it dreams of."""
    if shape[0] not in (1, 3) or min(shape[1:]) < 2:
        return None
    seen = filters(result.machines[0].weight.cpu().numpy(), shape)
    if result.spec.method != "rbm":
        return ImageGrids(seen, None)
    dreamt = result.dbn().sample(SAMPLES, GIBBS_STEPS, seed).cpu().numpy()
    return ImageGrids(seen, samples(dreamt, shape, standardised=result.spec.visible == "gaussian"))
