"""What is exact for a small RBM: its partition function, likelihood and gradient, by all states of its smaller side.

Everything is computed in double precision and a chunk of states at a time; the partition function and the likelihood
are differentiable. For machines too large for it, `annealed_log_partition` estimates.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from leadline.errors import SpecError
from leadline.pretraining.fitting import check_images, draw_bernoulli, generator
from leadline.pretraining.rbm import RBM

MOST_UNITS = 22
"""Of the smaller side: 4 million states."""
CHUNK = 2**12
LOG_TWO_PI = math.log(2 * math.pi)


def log_partition(rbm: RBM) -> Float[Tensor, ""]:
    """Return log Z in nats, over all states of the smaller side; of Gaussian visible units, of the hidden side.

    For hidden states the visible side sums in closed form: prod_i (1 + exp(u_i)) with u = a + W^T h for Bernoulli
    units, and (2 pi)^(n/2) exp(|u|^2 / 2 - |a|^2 / 2) for Gaussian ones.

    Raises:
        SpecError: the side has more than 22 units.
    """
    return torch.logsumexp(torch.stack([torch.logsumexp(chunk.log_weight, 0) for chunk in _chunks(rbm)]), 0)


def log_likelihood(rbm: RBM, images: Float[Tensor, "batch visible"]) -> Float[Tensor, " batch"]:
    """Return log p(v) of each image in nats, -F(v) - log Z; of Gaussian visible units the log of a density.

    Raises:
        SpecError: too many units to enumerate.
        DataError: images are not what the visible units take.
    """
    check_images(images, rbm.visible)
    return -rbm.to(torch.float64).free_energy(images.double()) - log_partition(rbm)


@torch.no_grad()
def model_expectations(rbm: RBM) -> dict[str, Tensor]:
    """Return the model's mean of h v^T (weight), v (visible_bias) and h (hidden_bias), in double precision.

    Raises:
        SpecError: too many units to enumerate.
    """
    log_z = log_partition(rbm)
    sums = {name: torch.zeros_like(tensor, dtype=torch.float64) for name, tensor in rbm.parameters.items()}
    for chunk in _chunks(rbm):
        probability = (chunk.log_weight - log_z).exp()[:, None]
        sums["weight"] += (chunk.hidden * probability).T @ chunk.visible
        sums["visible_bias"] += (probability * chunk.visible).sum(0)
        sums["hidden_bias"] += (probability * chunk.hidden).sum(0)
    return sums


@torch.no_grad()
def exact_gradient(rbm: RBM, images: Float[Tensor, "batch visible"]) -> dict[str, Tensor]:
    """Return the gradient of the mean log-likelihood by parameter, in double precision.

    The mean over images of h v^T, v and h with h at its probability, minus the model's own: Hinton 2002, equation 3.
    Of Gaussian visible units too: the derivative to their bias is v - a, and the two a cancel.

    Raises:
        SpecError: too many units to enumerate.
        DataError: images are not what the visible units take.
    """
    check_images(images, rbm.visible)
    visible = images.double()
    hidden = rbm.to(torch.float64).hidden_mean(visible)
    data = {
        "weight": hidden.T @ visible / len(visible),
        "visible_bias": visible.mean(0),
        "hidden_bias": hidden.mean(0),
    }
    model = model_expectations(rbm)
    return {name: data[name] - model[name] for name in data}


@dataclass(frozen=True, eq=False)
class _Chunk:
    """States of one side with the means of the other, and log of the summed exp(-energy) of each."""

    log_weight: Float[Tensor, " states"]
    visible: Float[Tensor, "states visible"]
    hidden: Float[Tensor, "states hidden"]


def _chunks(rbm: RBM) -> Iterator[_Chunk]:
    hidden_units, visible_units = rbm.weight.shape
    by_visible = rbm.visible == "bernoulli" and visible_units < hidden_units
    units = visible_units if by_visible else hidden_units
    if units > MOST_UNITS:
        raise SpecError(
            f"an exact partition function of an RBM with {visible_units} visible ({rbm.visible}) and {hidden_units}"
            f" hidden units needs 2^{units} states; expected at most {MOST_UNITS} units on the side that is enumerated"
        )
    machine = rbm.to(torch.float64)
    places = torch.arange(units, device=rbm.weight.device)
    for start in range(0, 2**units, CHUNK):
        numbers = torch.arange(start, min(start + CHUNK, 2**units), device=rbm.weight.device)
        states = ((numbers[:, None] >> places) & 1).double()
        if by_visible:
            yield _Chunk(-machine.free_energy(states), states, machine.hidden_mean(states))
        else:
            yield _Chunk(_log_weight_of_hidden(machine, states), machine.visible_mean(states), states)


def _log_weight_of_hidden(rbm: RBM, hidden: Float[Tensor, "states hidden"]) -> Float[Tensor, " states"]:
    inputs = rbm.visible_input(hidden)
    if rbm.visible == "bernoulli":
        summed = F.softplus(inputs).sum(1)
    else:
        own = rbm.visible_bias.square().sum()
        summed = (inputs.square().sum(1) - own + inputs.shape[1] * LOG_TWO_PI) / 2
    return hidden @ rbm.hidden_bias + summed


@dataclass(frozen=True, eq=False)
class AnnealedPartition:
    """An estimate of log Z by annealed importance sampling."""

    log_partition: float  # nats
    interval: tuple[float, float]  # log of the mean weight, 3 standard errors down and up; -inf where that is below 0
    log_weights: Float[Tensor, " chains"]


@torch.no_grad()
def annealed_log_partition(rbm: RBM, chains: int = 100, steps: int = 1000, seed: int = 0) -> AnnealedPartition:
    """Estimate log Z of a machine of any size: Salakhutdinov & Murray 2008, section 3.

    The path multiplies the hidden units' inputs by 0 to 1 in equal steps; at 0 the visible units are independent, each
    at its own bias. Z is right in the mean, so its log is too low on average, the more so the fewer the steps.

    Args:
        rbm: of either kind.
        chains: independent runs.
        steps: from 0 to 1.
        seed: of the stream.

    Raises:
        SpecError: fewer than two chains or one step.
    """
    if chains < 2 or steps < 1:
        raise SpecError(f"{chains} chains of {steps} steps; expected at least 2 chains and 1 step")
    random, machine = generator(seed, "annealing"), rbm.to(torch.float64)
    base = machine.visible_bias.expand(chains, -1)
    visible = machine.draw_visible(base, random)
    own = base[0].numel() * LOG_TWO_PI / 2 if rbm.visible == "gaussian" else float(F.softplus(base[0]).sum())
    log_weights = torch.full_like(visible[:, 0], own + len(rbm.hidden_bias) * math.log(2))
    for step in range(1, steps + 1):
        inputs, before, now = machine.hidden_input(visible), (step - 1) / steps, step / steps
        log_weights += (F.softplus(now * inputs) - F.softplus(before * inputs)).sum(1)
        hidden = draw_bernoulli(torch.sigmoid(now * inputs), random)
        visible = machine.draw_visible(machine.visible_bias + now * (hidden @ machine.weight), random)
    weights = (log_weights - log_weights.max()).exp()
    mean, error = float(weights.mean()), float(weights.std()) / math.sqrt(chains)
    top = float(log_weights.max())
    low, high = (top + math.log(each) if each > 0 else -math.inf for each in (mean - 3 * error, mean + 3 * error))
    return AnnealedPartition(top + math.log(mean), (low, high), log_weights)
