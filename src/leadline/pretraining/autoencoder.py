"""Denoising auto-encoders: a layer that learns to undo what was done to its input.

From y = sigmoid(W x~ + b), where x~ is x with some values set to 0, it reconstructs x as sigmoid(W' y + a), or as
W' y + a for Gaussian units: Vincent et al. 2008, "Extracting and Composing Robust Features with Denoising
Autoencoders".
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from leadline.errors import SpecError
from leadline.pretraining.fitting import LayerEpoch, LayerState, check_images, draw_bernoulli, error_of, fit, generator
from leadline.specs.pretraining import PretrainingSpec, Visible


@dataclass(frozen=True, eq=False)
class DenoisingAutoencoder:
    """One hidden layer of sigmoid units and its decoder; training changes its tensors in place."""

    weight: Float[Tensor, "hidden visible"]
    visible_bias: Float[Tensor, " visible"]
    hidden_bias: Float[Tensor, " hidden"]
    decoder: Float[Tensor, "hidden visible"] | None = None  # None: tied, the decoder is the weight
    visible: Visible = "bernoulli"

    @property
    def parameters(self) -> dict[str, Tensor]:
        """The tensors that are trained, by name."""
        own = {"weight": self.weight, "visible_bias": self.visible_bias, "hidden_bias": self.hidden_bias}
        return own if self.decoder is None else {**own, "decoder": self.decoder}

    def hidden_mean(self, visible: Float[Tensor, "batch visible"]) -> Float[Tensor, "batch hidden"]:
        """Return the code of each image."""
        return torch.sigmoid(torch.addmm(self.hidden_bias, visible, self.weight.T))

    def visible_input(self, hidden: Float[Tensor, "batch hidden"]) -> Float[Tensor, "batch visible"]:
        """Return the log-odds of Bernoulli units, or the mean of Gaussian ones, given the code."""
        return torch.addmm(self.visible_bias, hidden, self.weight if self.decoder is None else self.decoder)

    def visible_mean(self, hidden: Float[Tensor, "batch hidden"]) -> Float[Tensor, "batch visible"]:
        """Return the reconstruction, given the code."""
        inputs = self.visible_input(hidden)
        return inputs if self.visible == "gaussian" else torch.sigmoid(inputs)


def new_autoencoder(
    images: Float[Tensor, "images visible"],
    hidden: int,
    visible: Visible = "bernoulli",
    tied: bool = True,
    seed: int = 0,
    layer: int = 1,
) -> DenoisingAutoencoder:
    """Return an auto-encoder before training; biases are 0.

    Weights are uniform within 1 / sqrt(max(visible, hidden)), as in Larochelle et al. 2009, "Exploring Strategies for
    Training Deep Neural Networks": no better than the old initialisation, so that what is gained is pre-training's. An
    untied decoder starts as the encoder transposed.

    Args:
        images: what it will be trained on.
        hidden: the number of hidden units.
        visible: kind of the visible units.
        tied: the decoder stays the encoder transposed.
        seed: of the weights' stream.
        layer: counted from 1 at the input; enters the stream.

    Raises:
        SpecError: there would be no hidden unit.
        DataError: images are not what the visible units take.
    """
    if hidden < 1:
        raise SpecError(f"an auto-encoder with {hidden} hidden units; expected at least 1")
    check_images(images, visible)
    units = images.shape[1]
    bound = 1 / math.sqrt(max(units, hidden))
    random = generator(seed, "weight", layer)
    weight = torch.empty(hidden, units).uniform_(-bound, bound, generator=random).to(images)
    zeros = torch.zeros(units + hidden).to(images)
    return DenoisingAutoencoder(
        weight, zeros[:units].clone(), zeros[units:].clone(), None if tied else weight.clone(), visible
    )


@dataclass(frozen=True)
class Denoising:
    """The descent direction of the reconstruction error, summed over units, mean over the batch."""

    machine: DenoisingAutoencoder
    corruption: float  # the probability that a value is set to 0

    @torch.no_grad()
    def __call__(
        self, images: Float[Tensor, "batch visible"], random: torch.Generator
    ) -> tuple[dict[str, Tensor], Float[Tensor, ""]]:
        """Return the direction by name, and the batch's reconstruction error in nats per unit."""
        machine, count = self.machine, len(images)
        corrupted = images * draw_bernoulli(torch.full_like(images, 1 - self.corruption), random)
        hidden = machine.hidden_mean(corrupted)
        inputs = machine.visible_input(hidden)
        error = error_of(inputs, images, machine.visible)
        # of cross-entropy to the log-odds, and of half the square to the mean, the derivative is the same difference
        outer = (images - (inputs if machine.visible == "gaussian" else inputs.sigmoid_())).div_(count)
        inner = outer @ (machine.weight if machine.decoder is None else machine.decoder).T
        inner.mul_(hidden * (1 - hidden))
        direction = {"weight": inner.T @ corrupted, "visible_bias": outer.sum(0), "hidden_bias": inner.sum(0)}
        if machine.decoder is None:
            direction["weight"].addmm_(hidden.T, outer)
        else:
            direction["decoder"] = hidden.T @ outer
        return direction, error


def train_autoencoder(
    machine: DenoisingAutoencoder,
    images: Float[Tensor, "images visible"],
    spec: PretrainingSpec,
    seed: int = 0,
    layer: int = 1,
    state: LayerState | None = None,
) -> Iterator[LayerEpoch]:
    """Train an auto-encoder in place by gradient descent, yielding what was measured in each epoch; see `fit`.

    Raises:
        SpecError: images have another number of values than the machine has visible units.
        DataError: images are not what the visible units take.
        PretrainingDiverged: the reconstruction error was not finite, or exploded.
    """
    units = len(machine.visible_bias)
    if images.ndim == 2 and images.shape[1] != units:
        raise SpecError(f"images of {images.shape[1]} values for an auto-encoder of {units} inputs; expected as many")
    estimate = Denoising(machine, spec.corruption)
    yield from fit(machine.parameters, estimate, images, machine.visible, spec, seed, layer, state=state)
