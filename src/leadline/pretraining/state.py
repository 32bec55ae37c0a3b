"""What pre-training changes: machines, momentum, chains and what was measured, as named tensors and back."""

import json
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field

import torch
from torch import Tensor

from leadline.pretraining.autoencoder import DenoisingAutoencoder
from leadline.pretraining.fitting import LayerEpoch, LayerState
from leadline.pretraining.rbm import RBM
from leadline.specs.pretraining import PretrainingSpec, Visible

Machine = RBM | DenoisingAutoencoder


@dataclass
class PretrainingState:
    """All that pre-training changes until it fills in the layers: what a checkpoint holds, beside the streams."""

    spec: PretrainingSpec
    machines: list[Machine] = field(default_factory=list, repr=False)  # of the layers begun, from the input up
    epochs: list[LayerEpoch] = field(default_factory=list, repr=False)  # done, in all layers
    layer: LayerState = field(default_factory=LayerState)  # of the last machine

    @property
    def steps(self) -> int:
        """How many steps are done in all layers."""
        return sum({each.layer: each.step for each in self.epochs}.values())

    def visible(self, number: int) -> Visible:
        """Return the kind of a layer's visible units, counted from 1 at the input."""
        return self.spec.visible if number == 1 else "bernoulli"

    def tensors(self) -> dict[str, Tensor]:
        """Return all of it by name, for a checkpoint."""
        named = {
            f"{number}.{name}": tensor
            for number, machine in enumerate(self.machines, 1)
            for name, tensor in machine.parameters.items()
        }
        named |= {f"velocity.{name}": tensor for name, tensor in self.layer.velocity.items()}
        if self.layer.chains is not None:
            named["chains"] = self.layer.chains
        rows = json.dumps([astuple(each) for each in self.epochs])
        return {**named, "epochs": torch.frombuffer(bytearray(rows.encode()), dtype=torch.uint8)}

    def load(self, tensors: Mapping[str, Tensor], device: torch.device) -> None:
        """Take over what `tensors` returned, on a device."""
        parts: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts.setdefault(part, {})[rest] = tensor.to(device, copy=True)  # which the file keeps no hand on
        epochs = parts.pop("epochs")[""].cpu().numpy().tobytes()
        velocity, chains = parts.pop("velocity", {}), parts.pop("chains", {}).get("")
        kind = RBM if self.spec.method == "rbm" else DenoisingAutoencoder
        self.machines = [kind(**parts[number], visible=self.visible(int(number))) for number in sorted(parts, key=int)]
        self.epochs = [LayerEpoch(*row) for row in json.loads(epochs)]
        done = sum(each.layer == len(self.machines) for each in self.epochs)
        self.layer = LayerState(done, velocity, chains)
