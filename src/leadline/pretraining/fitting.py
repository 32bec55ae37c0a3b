"""The one loop that trains a single layer without labels, whatever the machine: order, steps, momentum, divergence.

What is drawn in a step is a function of (seed, layer, epoch, step) alone, and drawn on the CPU, so that nothing
depends on the device or on what was drawn before.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from leadline.errors import DataError, LeadlineError
from leadline.seeds import PRETRAINING, stream
from leadline.specs.pretraining import PretrainingSpec, Visible

EXPLODED = 100
"""Times the error of a machine whose parameters are all 0: a greater error is divergence."""
LOOK_EVERY = 50
"""Steps between looks at the error on a GPU, where each look waits for it."""
GAP_IMAGES = 1000
"""Of each side at most, when free energies are compared."""

Parameters = Mapping[str, Tensor]
Estimate = Callable[[Tensor, torch.Generator], tuple[dict[str, Tensor], Tensor]]
"""From a batch to the direction in which each parameter goes, by name, and the batch's reconstruction error."""


class PretrainingDiverged(LeadlineError):
    """The reconstruction error of a layer became NaN or infinite, or exploded.

    Attributes:
        layer: counted from 1 at the input.
        epoch: counted from 1.
        step: counted from 1 at the layer's first.
    """

    def __init__(self, layer: int, epoch: int, step: int, error: float, learning_rate: float) -> None:
        super().__init__(
            f"pre-training of layer {layer} diverged in epoch {epoch} at step {step}: the reconstruction error was"
            f" {error:.3g} nats per unit; lower the learning rate of {learning_rate:g}"
        )
        self.layer, self.epoch, self.step = layer, epoch, step


@dataclass(frozen=True)
class LayerEpoch:
    """What was measured in one epoch of one layer."""

    layer: int  # from 1 at the input
    epoch: int  # from 1
    step: int  # steps of this layer done
    reconstruction_error: float  # nats per unit, running mean of the epoch
    free_energy_gap: float | None  # nats: mean of held-out images minus that of training images, where there are both
    seconds: float


@dataclass
class LayerState:
    """What a layer's training carries from one epoch to the next, beside the machine's parameters."""

    epochs: int = 0  # done
    velocity: dict[str, Tensor] = field(default_factory=dict, repr=False)  # by parameter; begins at 0
    chains: Float[Tensor, "batch hidden"] | None = field(default=None, repr=False)  # of an RBM, where they persist


def generator(seed: int, *keys: int | str) -> torch.Generator:
    """Return a generator of this purpose's own, on the CPU."""
    return torch.Generator().manual_seed(stream(seed, PRETRAINING, *keys))


def draw_bernoulli(mean: Float[Tensor, "*shape"], random: torch.Generator) -> Float[Tensor, "*shape"]:
    """Return a 1 with the probability given, else a 0, from numbers drawn on the CPU."""
    return torch.rand(mean.shape, generator=random, dtype=torch.float32).to(mean).lt_(mean)


def check_images(images: Tensor, visible: Visible) -> None:
    """Check that images fit the kind of visible units.

    Raises:
        DataError: not a matrix of real numbers with one row per image, a value that is not finite, or, for Bernoulli
            units, one outside [0, 1].
    """
    if images.ndim != 2 or images.numel() == 0 or not images.is_floating_point():
        raise DataError(
            f"pre-training: images of shape {tuple(images.shape)} and {images.dtype}; expected real numbers, one row"
            f" per image"
        )
    low, high = (float(value) for value in torch.aminmax(images))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise DataError("pre-training: images hold NaN or infinite values; expected finite numbers")
    if visible == "bernoulli" and (low < 0 or high > 1):
        raise DataError(
            f"pre-training: images hold values from {low:g} to {high:g}; Bernoulli units take values in [0, 1]; scale"
            f" the images to it (normalise: none does this), or use visible: gaussian"
        )


def error_of(
    logits: Float[Tensor, "batch visible"], images: Float[Tensor, "batch visible"], visible: Visible
) -> Float[Tensor, ""]:
    """Return the reconstruction error: mean negative log-probability of the images, nats per unit.

    Bernoulli: cross-entropy. Gaussian of variance 1: half the squared error, its constant left out.

    Args:
        logits: of Bernoulli units, or the mean of Gaussian ones.
        images: what should have been reconstructed.
        visible: kind of the units.
    """
    if visible == "gaussian":
        return F.mse_loss(logits, images) / 2
    return F.binary_cross_entropy_with_logits(logits, images)


@torch.no_grad()
def fit(
    parameters: Parameters,
    estimate: Estimate,
    images: Float[Tensor, "images visible"],
    visible: Visible,
    spec: PretrainingSpec,
    seed: int = 0,
    layer: int = 1,
    free_energy: Callable[[Tensor], Tensor] | None = None,
    held_out: Float[Tensor, "others visible"] | None = None,
    state: LayerState | None = None,
) -> Iterator[LayerEpoch]:
    """Train a machine in place to the end of the last epoch, yielding what was measured in each.

    A step is velocity = momentum velocity + learning_rate (estimate - weight_decay weight), parameter += velocity:
    Hinton 2010, "A Practical Guide to Training Restricted Boltzmann Machines", sections 9 and 10.

    Args:
        parameters: by name, changed in place; those with two axes are weights and decay.
        estimate: of a direction for each of them, from a batch.
        images: as the visible units take them.
        visible: kind of the visible units.
        spec: the recipe.
        seed: of the streams.
        layer: counted from 1 at the input; enters the streams.
        free_energy: of images, where the machine has one.
        held_out: images that are not trained on.
        state: where to continue, up to date at each yield; None: start from the beginning.

    Raises:
        DataError: images are not what the visible units take.
        PretrainingDiverged: the reconstruction error was not finite, or exploded.
    """
    check_images(images, visible)
    if held_out is not None:
        check_images(held_out, visible)
    rate = spec.gaussian_learning_rate if visible == "gaussian" else spec.learning_rate
    # with parameters of 0 Bernoulli units err by log 2, Gaussian ones by half the square, which is 1/2 at variance 1
    limit = EXPLODED * (math.log(2) if visible == "bernoulli" else max(float(images.square().mean()), 1.0) / 2)
    state = LayerState() if state is None else state
    velocity = state.velocity
    for name, parameter in parameters.items():
        velocity.setdefault(name, torch.zeros_like(parameter))
    look_every = 1 if images.device.type == "cpu" else LOOK_EVERY
    steps = math.ceil(len(images) / spec.batch_size)
    for epoch in range(state.epochs + 1, spec.epochs + 1):
        started = time.perf_counter()
        order = torch.randperm(len(images), generator=generator(seed, "order", layer, epoch)).to(images.device)
        errors = torch.zeros(steps, device=images.device, dtype=torch.float64)
        for index in range(steps):
            batch = images[order[index * spec.batch_size : (index + 1) * spec.batch_size]]
            direction, error = estimate(batch, generator(seed, "noise", layer, epoch, index))
            for name, parameter in parameters.items():
                if parameter.ndim == 2:
                    direction[name].add_(parameter, alpha=-spec.weight_decay)
                velocity[name].mul_(spec.momentum).add_(direction[name], alpha=rate)
                parameter.add_(velocity[name])
            errors[index] = error
            if index + 1 == steps or (index + 1) % look_every == 0:
                wrong = (~(errors[: index + 1] <= limit)).nonzero()
                if len(wrong):
                    first = int(wrong[0])
                    step = (epoch - 1) * steps + first + 1
                    raise PretrainingDiverged(layer, epoch, step, float(errors[first]), rate)
        seconds = time.perf_counter() - started
        if not all(bool(torch.isfinite(parameter).all()) for parameter in parameters.values()):  # the last step's doing
            raise PretrainingDiverged(layer, epoch, epoch * steps, math.nan, rate)
        gap = None
        if free_energy is not None and held_out is not None:
            ours, others = (free_energy(each[:GAP_IMAGES]).double().mean() for each in (images, held_out))
            gap = float(others - ours)
        sizes = torch.full_like(errors, spec.batch_size)
        sizes[-1] = len(images) - (steps - 1) * spec.batch_size
        state.epochs = epoch
        yield LayerEpoch(layer, epoch, epoch * steps, float((errors * sizes).sum()) / len(images), gap, seconds)
