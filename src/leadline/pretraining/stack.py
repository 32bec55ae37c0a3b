"""Greedy layer-wise pre-training: a network's hidden layers one after the other, each on the codes of the one below."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leadline.errors import SpecError
from leadline.parts.metrics.record import Record
from leadline.pretraining.autoencoder import DenoisingAutoencoder, new_autoencoder, train_autoencoder
from leadline.pretraining.dbn import DBN
from leadline.pretraining.fitting import LayerEpoch, LayerState, check_images
from leadline.pretraining.rbm import RBM, new_rbm, train_rbm
from leadline.pretraining.state import Machine, PretrainingState
from leadline.specs.pretraining import PretrainingSpec

if TYPE_CHECKING:
    import pandas as pd

Progress = Callable[[LayerEpoch], None]


@dataclass(frozen=True, eq=False)
class PretrainingResult:
    """What pre-training left behind: the machines as they were before the network is trained as a whole."""

    spec: PretrainingSpec
    machines: tuple[Machine, ...] = field(repr=False)
    epochs: tuple[LayerEpoch, ...] = field(repr=False)

    @classmethod
    def of(cls, state: PretrainingState) -> "PretrainingResult":
        """Return what is left behind by a pre-training that has come to its end."""
        return cls(state.spec, tuple(state.machines), tuple(state.epochs))

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
            raise SpecError(
                f"layers pre-trained by {self.spec.method} do not form a deep belief network; use method rbm"
            )
        return DBN(machines)

    def records(self) -> tuple[Record, ...]:
        """Return what was measured: splits `pretraining-1`, ... by layer, steps and epochs counted in each layer.

        Names: reconstruction_error (nats per unit), free_energy_gap (nats, of RBMs with held-out images), seconds.
        """
        return tuple(
            Record(each.step, each.epoch, f"pretraining-{each.layer}", name, value)
            for each in self.epochs
            for name, value in _measurements(each)
        )

    def frame(self) -> "pd.DataFrame":
        """Return one row per layer, epoch and quantity: layer, epoch, step, quantity, value."""
        import pandas as pd

        columns = ["layer", "epoch", "step", "quantity", "value"]
        rows = [(each.layer, each.epoch, each.step, *pair) for each in self.epochs for pair in _measurements(each)]
        return pd.DataFrame(rows, columns=columns)


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
    state = PretrainingState(spec)
    for epoch in train_layers(state, layers, activation, images, seed, held_out):
        if progress is not None:
            progress(epoch)
    return PretrainingResult.of(state)


def train_layers(
    state: PretrainingState,
    layers: Sequence[nn.Linear],
    activation: str,
    images: Float[Tensor, "images features"],
    seed: int = 0,
    held_out: Float[Tensor, "others width"] | None = None,
) -> Iterator[LayerEpoch]:
    """Pre-train as `pretrain` does, yielding what was measured in each epoch of each layer: moments for a checkpoint.

    A loaded state continues where it stopped, with bit-identical results on the same device and number of threads. The
    layers are filled in after the last epoch.

    Args:
        state: a new one, or from `PretrainingState.load`; changed in place, and whole whenever this yields.
        layers: as in `pretrain`, like the rest.
        activation: what follows each of them.
        images: as the network sees them, flat.
        seed: of the streams.
        held_out: images that are not trained on.

    Raises:
        SpecError: as `pretrain`, or the state is of layers of other widths.
        DataError: images are not what the first layer's visible units take.
        PretrainingDiverged: a layer's reconstruction error was not finite, or exploded.
    """
    spec, machines = state.spec, state.machines
    check_images(images, spec.visible)
    _check_layers(layers, activation, images.shape[1])
    if held_out is not None:
        check_images(held_out, spec.visible)
        if held_out.shape[1] != images.shape[1]:
            raise SpecError(f"held-out images of {held_out.shape[1]} values beside images of {images.shape[1]}")
    _check_machines(machines, layers)
    codes, others = images.detach(), None if held_out is None else held_out.detach()
    for number, layer in enumerate(layers, 1):
        if number > len(machines):
            machines.append(_new_machine(state, codes, layer.out_features, seed, number))
            state.layer = LayerState()
        machine = machines[number - 1]
        if number == len(machines):
            for epoch in _train_machine(machine, codes, state, seed, number, others):
                state.epochs.append(epoch)
                yield epoch
        codes = machine.hidden_mean(codes)
        others = None if others is None else machine.hidden_mean(others)
    with torch.no_grad():
        for layer, machine in zip(layers, machines, strict=True):
            layer.weight.copy_(machine.weight)
            layer.bias.copy_(machine.hidden_bias)


def _new_machine(state: PretrainingState, images: Tensor, hidden: int, seed: int, number: int) -> Machine:
    """Return a layer's machine before training."""
    if state.spec.method == "rbm":
        return new_rbm(images, hidden, state.visible(number), seed, number)
    return new_autoencoder(images, hidden, state.visible(number), state.spec.tied, seed, number)


def _train_machine(
    machine: Machine, images: Tensor, state: PretrainingState, seed: int, number: int, others: Tensor | None
) -> Iterator[LayerEpoch]:
    """Return what trains the machine of the layer at work from where it is to its last epoch."""
    if isinstance(machine, DenoisingAutoencoder):
        return train_autoencoder(machine, images, state.spec, seed, number, state.layer)
    return train_rbm(machine, images, state.spec, seed, number, others, state.layer)


def _check_machines(machines: Sequence[Machine], layers: Sequence[nn.Linear]) -> None:
    """Raise SpecError unless a state's machines are those of the first layers."""
    found, wanted = ([tuple(each.weight.shape) for each in some] for some in (machines, layers))
    if found != wanted[: len(found)]:
        raise SpecError(
            f"pre-training of layers {found} cannot be resumed with layers {wanted}; expected the layers it was"
            f" started with"
        )


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


def _measurements(epoch: LayerEpoch) -> Iterator[tuple[str, float]]:
    yield "reconstruction_error", epoch.reconstruction_error
    if epoch.free_energy_gap is not None:
        yield "free_energy_gap", epoch.free_energy_gap
    yield "seconds", epoch.seconds
