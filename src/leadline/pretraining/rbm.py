"""Restricted Boltzmann machines: binary hidden units under binary or Gaussian visible ones, trained by contrastive
divergence.

The energy of visible units v and hidden units h is -a.v - b.h - h.W v for Bernoulli visible units (Smolensky 1986;
Hinton 2002) and |v - a|^2 / 2 - b.h - h.W v for Gaussian ones of variance 1 (Hinton & Salakhutdinov 2006). Weights have
the shape of `torch.nn.Linear`, so that a layer of a network is an RBM's hidden side.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from leadline.errors import DataError, SpecError
from leadline.pretraining.fitting import LayerEpoch, LayerState, check_images, draw_bernoulli, error_of, fit, generator
from leadline.specs.pretraining import PretrainingSpec, Visible


@dataclass(frozen=True, eq=False)
class RBM:
    """A restricted Boltzmann machine; training changes its tensors in place."""

    weight: Float[Tensor, "hidden visible"]
    visible_bias: Float[Tensor, " visible"]
    hidden_bias: Float[Tensor, " hidden"]
    visible: Visible = "bernoulli"

    @property
    def parameters(self) -> dict[str, Tensor]:
        """The tensors that are trained, by name."""
        return {"weight": self.weight, "visible_bias": self.visible_bias, "hidden_bias": self.hidden_bias}

    def to(self, target: torch.device | torch.dtype) -> "RBM":
        """Return a machine of these parameters on a device or in a precision."""
        return RBM(**{name: tensor.to(target) for name, tensor in self.parameters.items()}, visible=self.visible)

    def hidden_input(self, visible: Float[Tensor, "batch visible"]) -> Float[Tensor, "batch hidden"]:
        """Return the log-odds of each hidden unit, b + W v."""
        return torch.addmm(self.hidden_bias, visible, self.weight.T)

    def hidden_mean(self, visible: Float[Tensor, "batch visible"]) -> Float[Tensor, "batch hidden"]:
        """Return the probability that each hidden unit is 1, given the visible ones."""
        return torch.sigmoid(self.hidden_input(visible))

    def visible_input(self, hidden: Float[Tensor, "batch hidden"]) -> Float[Tensor, "batch visible"]:
        """Return a + W^T h: the log-odds of Bernoulli units, the mean of Gaussian ones."""
        return torch.addmm(self.visible_bias, hidden, self.weight)

    def visible_mean(self, hidden: Float[Tensor, "batch hidden"]) -> Float[Tensor, "batch visible"]:
        """Return the mean of each visible unit, given the hidden ones."""
        inputs = self.visible_input(hidden)
        return inputs if self.visible == "gaussian" else torch.sigmoid(inputs)

    def draw_visible(
        self, inputs: Float[Tensor, "batch visible"], random: torch.Generator
    ) -> Float[Tensor, "batch visible"]:
        """Draw the visible units, given their inputs from `visible_input`."""
        if self.visible == "bernoulli":
            return draw_bernoulli(torch.sigmoid(inputs), random)
        return inputs + torch.randn(inputs.shape, generator=random).to(inputs)

    def gibbs(
        self, hidden: Float[Tensor, "batch hidden"], steps: int, random: torch.Generator
    ) -> Float[Tensor, "batch hidden"]:
        """Return the hidden units after so many steps, in each of which both sides are redrawn."""
        for _ in range(steps):
            visible = self.draw_visible(self.visible_input(hidden), random)
            hidden = draw_bernoulli(self.hidden_mean(visible), random)
        return hidden

    def free_energy(self, visible: Float[Tensor, "batch visible"]) -> Float[Tensor, " batch"]:
        """Return -log of the sum over hidden units of exp(-energy), in nats: Hinton 2010, section 16.1."""
        if self.visible == "gaussian":
            own = (visible - self.visible_bias).square().sum(1) / 2
        else:
            own = -visible @ self.visible_bias
        return own - F.softplus(self.hidden_input(visible)).sum(1)

    def reconstruction_error(self, visible: Float[Tensor, "batch visible"]) -> Float[Tensor, ""]:
        """Return the error of the reconstruction through the hidden units' means, nats per unit; see `error_of`."""
        return error_of(self.visible_input(self.hidden_mean(visible)), visible, self.visible)


def new_rbm(
    images: Float[Tensor, "images visible"], hidden: int, visible: Visible = "bernoulli", seed: int = 0, layer: int = 1
) -> RBM:
    """Return a machine before training: Hinton 2010, section 8.

    Weights are drawn from N(0, 0.01), hidden biases are 0, and visible biases alone give every unit its mean.

    Args:
        images: what it will be trained on.
        hidden: the number of hidden units.
        visible: kind of the visible units.
        seed: of the weights' stream.
        layer: counted from 1 at the input; enters the stream.

    Raises:
        SpecError: there would be no hidden unit.
        DataError: images are not what the visible units take.
    """
    if hidden < 1:
        raise SpecError(f"an RBM with {hidden} hidden units; expected at least 1")
    check_images(images, visible)
    weight = 0.01 * torch.randn(hidden, images.shape[1], generator=generator(seed, "weight", layer))
    # one more image of each kind keeps the log-odds of a pixel that never varies finite
    odds = torch.logit((images.sum(0) + 1) / (len(images) + 2))
    bias = odds if visible == "bernoulli" else images.mean(0)
    return RBM(weight.to(images), bias, torch.zeros(hidden).to(images), visible)


@dataclass
class ContrastiveDivergence:
    """Estimates the gradient of the mean log-likelihood: CD-k (Hinton 2002), or persistent CD-k (Tieleman 2008)."""

    rbm: RBM
    steps: int = 1
    persistent: bool = False
    chains: Float[Tensor, "batch hidden"] | None = field(default=None, repr=False)  # where persistent ones are

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise SpecError(f"contrastive divergence of {self.steps} steps; expected at least 1")

    @torch.no_grad()
    def __call__(
        self, images: Float[Tensor, "batch visible"], random: torch.Generator
    ) -> tuple[dict[str, Tensor], Float[Tensor, ""]]:
        """Return an estimate of the gradient by name, and the batch's reconstruction error in nats per unit.

        Both sides use the hidden units' probabilities and not draws of them, which leaves the mean as it is and takes
        variance away. A batch smaller than the one before moves as many of the persistent chains.
        """
        rbm = self.rbm
        mean = rbm.hidden_mean(images)
        start = draw_bernoulli(mean, random)
        inputs = rbm.visible_input(start)
        error = error_of(inputs, images, rbm.visible)
        if self.persistent:
            if self.chains is None:
                self.chains = start
            elif len(self.chains) < len(images):
                self.chains = torch.cat([self.chains, start[len(self.chains) :]])
            inputs = rbm.visible_input(self.chains[: len(images)])
        model = rbm.draw_visible(inputs, random)
        model_mean = rbm.hidden_mean(model)
        for _ in range(self.steps - 1):
            model = rbm.draw_visible(rbm.visible_input(draw_bernoulli(model_mean, random)), random)
            model_mean = rbm.hidden_mean(model)
        if self.persistent and self.chains is not None:
            self.chains[: len(images)] = draw_bernoulli(model_mean, random)
        share = 1 / len(images)
        weight = (mean.T @ images).addmm_(model_mean.T, model, beta=share, alpha=-share)
        return {
            "weight": weight,
            "visible_bias": (images - model).mean(0),
            "hidden_bias": (mean - model_mean).mean(0),
        }, error


def train_rbm(
    rbm: RBM,
    images: Float[Tensor, "images visible"],
    spec: PretrainingSpec,
    seed: int = 0,
    layer: int = 1,
    held_out: Float[Tensor, "others visible"] | None = None,
    state: LayerState | None = None,
) -> Iterator[LayerEpoch]:
    """Train a machine in place by contrastive divergence, yielding what was measured in each epoch; see `fit`.

    Raises:
        SpecError: images have another number of values than the machine has visible units.
        DataError: images are not what the visible units take.
        PretrainingDiverged: the reconstruction error was not finite, or exploded.
    """
    _check_width(rbm, images)
    state = LayerState() if state is None else state
    estimate = ContrastiveDivergence(rbm, spec.cd_steps, spec.persistent, state.chains)
    about = spec, seed, layer, rbm.free_energy, held_out, state
    for epoch in fit(rbm.parameters, estimate, images, rbm.visible, *about):
        state.chains = estimate.chains
        yield epoch


@torch.no_grad()
def pseudo_log_likelihood(
    rbm: RBM, images: Float[Tensor, "batch visible"], seed: int | None = None
) -> Float[Tensor, " batch"]:
    """Return the sum over visible units of log p(v_i | all others), in nats: Besag 1975.

    Args:
        rbm: with Bernoulli visible units.
        images: of zeros and ones.
        seed: None: every unit, exactly, at the cost of visible x hidden per image; else one unit of each image is
            chosen at random and counts for all, which is right in the mean.

    Raises:
        SpecError: visible units are Gaussian, or as many as the images do not have.
        DataError: images hold other values than 0 and 1.
    """
    if rbm.visible != "bernoulli":
        raise SpecError("the pseudo-likelihood is that of Bernoulli visible units; this RBM's are gaussian")
    _check_width(rbm, images)
    if not bool(((images == 0) | (images == 1)).all()):
        raise DataError("the pseudo-likelihood is that of binary images; these hold other values than 0 and 1")
    units = images.shape[1]
    inputs, energy = rbm.hidden_input(images), rbm.free_energy(images)
    if seed is not None:
        chosen = torch.randint(units, (len(images),), generator=generator(seed, "pseudo")).to(images.device)
        return units * _log_odds_of_a_flip(rbm, images, inputs, energy, chosen)
    total = torch.zeros_like(energy)
    for unit in range(units):
        total += _log_odds_of_a_flip(rbm, images, inputs, energy, torch.full_like(energy, unit, dtype=torch.int64))
    return total


def _log_odds_of_a_flip(rbm: RBM, images: Tensor, inputs: Tensor, energy: Tensor, chosen: Tensor) -> Tensor:
    """Return log p(v_i | all others) of one unit of each image, from the free energy with that unit flipped."""
    change = 1 - 2 * images.gather(1, chosen[:, None])
    flipped_inputs = inputs + change * rbm.weight.T[chosen]
    flipped = -(images @ rbm.visible_bias) - change[:, 0] * rbm.visible_bias[chosen]
    flipped = flipped - F.softplus(flipped_inputs).sum(1)
    return F.logsigmoid(flipped - energy)


def _check_width(rbm: RBM, images: Tensor) -> None:
    """Raise SpecError where images cannot be this machine's."""
    units = len(rbm.visible_bias)
    if images.ndim == 2 and images.shape[1] != units:
        raise SpecError(f"images of {images.shape[1]} values for an RBM of {units} visible units; expected as many")
