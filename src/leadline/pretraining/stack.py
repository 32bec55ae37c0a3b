"""Greedy layer-wise pre-training: a network's hidden layers one after the other, each on the codes of the one below."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leadline.errors import SpecError
from leadline.pretraining.autoencoder import DenoisingAutoencoder, new_autoencoder, train_autoencoder
from leadline.pretraining.dbn import DBN
from leadline.pretraining.fitting import LayerEpoch, check_images
from leadline.pretraining.rbm import RBM, new_rbm, train_rbm
from leadline.record import Record
from leadline.spec.pretraining import PretrainingSpec, Visible

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[LayerEpoch], None]


@dataclass(frozen=True, eq=False)
class PretrainingResult:
    """What pre-training left behind: the machines as they were before the network is trained as a whole."""

    spec: PretrainingSpec
    machines: tuple[RBM, ...] | tuple[DenoisingAutoencoder, ...] = field(repr=False)
    epochs: tuple[LayerEpoch, ...] = field(repr=False)

    @property
    def seconds(self) -> float:
        """How long all layers took."""
        return sum(epoch.seconds for epoch in self.epochs)

    def dbn(self) -> DBN:
        """Return the machines as a deep belief network, which can generate images.

        Raises:
            SpecError: they are auto-encoders.
        """
        machines = tuple(machine for machine in self.machines if isinstance(machine, RBM))
        if not machines:
            raise SpecError(f"layers pre-trained by {self.spec.method} are no deep belief network; use method rbm")
        return DBN(machines)

    def records(self) -> tuple[Record, ...]:
        """Return what was measured: splits `pretraining-1`, ... by layer, steps and epochs counted in each layer.

        Names: reconstruction_error (nats per unit), free_energy_gap (nats, of RBMs with held-out images), seconds.
        """
        return tuple(
            Record(each.step, each.epoch, f"pretraining-{each.layer}", name, value)
            for each in self.epochs
            for name, value in _measured(each)
        )

    def frame(self) -> "pd.DataFrame":
        """Return one row per layer, epoch and quantity: layer, epoch, step, quantity, value."""
        import pandas as pd

        columns = ["layer", "epoch", "step", "quantity", "value"]
        rows = [(each.layer, each.epoch, each.step, *pair) for each in self.epochs for pair in _measured(each)]
        return pd.DataFrame(rows, columns=columns)


@torch.no_grad()
def pretrain(
    layers: Sequence[nn.Linear],
    activation: str,
    images: Float[Tensor, "images features"],
    spec: PretrainingSpec,
    seed: int = 0,
    progress: Progress | None = None,
    held_out: Float[Tensor, "others width"] | None = None,
) -> PretrainingResult:
    """Train the hidden layers of a network one by one without labels, and fill in their weights and biases.

    Each layer is trained on the mean-field codes of the one below: Hinton et al. 2006; Bengio et al. 2006. Nothing is
    filled in before all are trained. Visible biases and decoders stay with the machines of the result.

    Args:
        layers: hidden ones from the input up, with biases; their own values play no part.
        activation: what follows each of them, by name; only `sigmoid` is a hidden unit of these machines.
        images: as the network sees them, flat: in [0, 1] for Bernoulli units, of variance about 1 for Gaussian ones.
        spec: the recipe.
        seed: of the streams.
        progress: called with what was measured after each epoch of each layer.
        held_out: as many values each, not trained on, for the RBMs' gap of free energies; None: it is not measured.

    Raises:
        SpecError: another activation, no layer, a layer without bias, or widths that do not follow one another.
        DataError: images are not what the first layer's visible units take.
        PretrainingDiverged: a layer's reconstruction error was not finite, or exploded.
    """
    check_images(images, spec.visible)
    _check_layers(layers, activation, images.shape[1])
    if held_out is not None:
        check_images(held_out, spec.visible)
        if held_out.shape[1] != images.shape[1]:
            raise SpecError(f"held-out images of {held_out.shape[1]} values beside images of {images.shape[1]}")
    codes, others = images.detach(), None if held_out is None else held_out.detach()
    machines: list[RBM] | list[DenoisingAutoencoder]
    machines, epochs = [], []
    for number, layer in enumerate(layers, 1):
        visible = spec.visible if number == 1 else "bernoulli"
        machine, measured = _machine(layer.out_features, codes, visible, spec, seed, number, others)
        for each in measured:
            epochs.append(each)
            if progress is not None:
                progress(each)
        machines.append(machine)  # type: ignore[arg-type]
        codes = machine.hidden_mean(codes)
        others = None if others is None else machine.hidden_mean(others)
    for layer, machine in zip(layers, machines, strict=True):
        layer.weight.copy_(machine.weight)
        layer.bias.copy_(machine.hidden_bias)
    return PretrainingResult(spec, tuple(machines), tuple(epochs))


def _machine(
    hidden: int, images: Tensor, visible: Visible, spec: PretrainingSpec, seed: int, number: int, others: Tensor | None
) -> tuple[RBM | DenoisingAutoencoder, Iterator[LayerEpoch]]:
    """Return a layer's machine and what will train it."""
    if spec.method == "rbm":
        rbm = new_rbm(images, hidden, visible, seed, number)
        return rbm, train_rbm(rbm, images, spec, seed, number, others)
    coder = new_autoencoder(images, hidden, visible, spec.tied, seed, number)
    return coder, train_autoencoder(coder, images, spec, seed, number)


def _check_layers(layers: Sequence[nn.Linear], activation: str, features: int) -> None:
    """Raise SpecError unless layers can be pre-trained on images of so many features."""
    if activation != "sigmoid":
        raise SpecError(
            f"pre-training needs activation sigmoid, whose units are those of its machines; got {activation}"
        )
    if not layers:
        raise SpecError("pre-training of a network without hidden linear layers; expected at least one")
    for number, layer in enumerate(layers, 1):
        if layer.bias is None:
            raise SpecError(f"hidden layer {number} to be pre-trained has no bias; expected linear layers with biases")
        if layer.in_features != features:
            raise SpecError(
                f"hidden layer {number} to be pre-trained takes {layer.in_features} values and would get {features};"
                " expected hidden layers in order, each on the one below"
            )
        features = layer.out_features


def _measured(epoch: LayerEpoch) -> Iterator[tuple[str, float]]:
    yield "reconstruction_error", epoch.reconstruction_error
    if epoch.free_energy_gap is not None:
        yield "free_energy_gap", epoch.free_energy_gap
    yield "seconds", epoch.seconds
