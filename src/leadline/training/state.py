"""What training changes, as named tensors and back: weights, their average, optimizer, loss scale, part of an epoch.

Before it, in place of all these, what pre-training has so far.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from leadline.errors import SpecError
from leadline.networks.modules import distinct_tensors, fill_tensors
from leadline.parts.metrics import Outputs
from leadline.pretraining.state import PretrainingState
from leadline.probes.flow import Flow, FlowPart
from leadline.probes.measured import Measurement
from leadline.probes.table import FlowTable
from leadline.training.averaging import Average
from leadline.training.early_stopping import Best
from leadline.training.scaling import LossScaler


@dataclass
class PartOfEpoch:
    """How far training is in an epoch that has not ended: what a checkpoint within one holds beside the weights."""

    losses: Float[Tensor, " steps"]  # of each batch, times its images; 0 for those to come
    correct: Int64[Tensor, ""]  # images that were classified rightly, of the batches so far
    batches: int = 0  # done
    seconds: float = 0.0  # that they took
    flow: Flow | FlowPart | None = field(default=None, repr=False)  # at work, or from a checkpoint

    def tensors(self) -> dict[str, Tensor]:
        """Return all of it by name, for a checkpoint."""
        numbers = {"batches": torch.tensor(self.batches), "seconds": torch.tensor(self.seconds, dtype=torch.float64)}
        named = {"losses": self.losses, "correct": self.correct, **numbers}
        if self.flow is not None:
            seen = self.flow.part() if isinstance(self.flow, Flow) else self.flow
            named["flow"] = torch.frombuffer(bytearray(seen.table.to_bytes()), dtype=torch.uint8)
            named |= {f"active.{name}": active for name, active in seen.active.items()}
        return named

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], device: torch.device) -> "PartOfEpoch":
        """Return what `tensors` was called on, on a device."""
        flow = None
        if "flow" in tensors:
            active = {name[7:]: value for name, value in tensors.items() if name.startswith("active.")}
            flow = FlowPart(FlowTable.from_bytes(tensors["flow"].numpy().tobytes()), active)
        losses, correct = (tensors[name].to(device) for name in ("losses", "correct"))
        return cls(losses, correct, int(tensors["batches"]), float(tensors["seconds"]), flow)


@dataclass
class TrainState:
    """All that training changes: what a checkpoint holds, beside the streams, which need no state."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: LossScaler = field(default_factory=LossScaler)
    average: Average | None = field(default=None, repr=False)  # of the weights; None: none is asked for
    best: Best | None = field(default=None, repr=False)  # network so far; None: it is not looked for
    step: int = 0  # optimizer steps done
    epoch: int = 0  # epochs whose records have been yielded, the last of them included
    part: PartOfEpoch | None = field(default=None, repr=False)  # None between epochs
    pretraining: PretrainingState | None = field(default=None, repr=False)  # None: it is done, or not asked for
    test_outputs: Outputs | None = field(default=None, repr=False)  # of the last epoch's model
    flow: FlowTable | None = field(default=None, repr=False)  # what was measured inside it in the last epoch
    # by epoch and probe: what snapshots showed at the end of the last epoch, with the first also before it, as 0
    measured: Mapping[int, Mapping[str, Measurement]] = field(default_factory=dict, repr=False)

    def is_over(self, epochs: int) -> bool:
        """Return whether training has ended, which was to take so many epochs."""
        return self.epoch >= epochs or (self.best is not None and self.best.ends_training(self.epoch))

    def tensors(self) -> dict[str, Tensor]:
        """Return all of it by name, for a checkpoint; or what pre-training has so far.

        The network is as it was built until pre-training has come to its end, and is left out.
        """
        if self.pretraining is not None:
            named = {f"pretraining.{name}": tensor for name, tensor in self.pretraining.tensors().items()}
            return _to_cpu(named)
        named = {f"model.{name}": tensor for name, tensor in distinct_tensors(self.model).items()}
        named |= {f"optimizer.{name}": tensor for name, tensor in _name_optimizer_state(self.optimizer).items()}
        named |= {f"scaler.{name}": tensor for name, tensor in self.scaler.tensors().items()}
        if self.average is not None:
            named |= {f"average.{name}": tensor for name, tensor in self.average.named().items()}
        if self.best is not None:
            named |= {f"best.{name}": tensor for name, tensor in self.best.named().items()}
        if self.part is not None:
            named |= {f"epoch.{name}": tensor for name, tensor in self.part.tensors().items()}
        return _to_cpu(named)

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor], step: int, epoch: int) -> None:
        """Take over what `tensors` returned, at the step and epoch at which it did.

        Raises:
            ValueError: it is of a pre-training, and this state has none.
        """
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        before = _below("pretraining", tensors)
        if before:
            if self.pretraining is None:
                raise ValueError("it is of a pre-training, which is not asked for")
            self.pretraining.load(before, parameters[0].device)
            return
        self.pretraining = None
        fill_tensors(self.model, _below("model", tensors))
        _load_optimizer_state(self.optimizer, _below("optimizer", tensors))
        self.scaler.load(_below("scaler", tensors))
        if self.average is not None:
            self.average.load(_below("average", tensors))
        if self.best is not None:
            self.best.load(_below("best", tensors))
        self.step, self.epoch = step, epoch
        part = _below("epoch", tensors)
        self.part = PartOfEpoch.of(part, parameters[0].device) if part else None


def _name_optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return what an optimizer keeps for its parameters, and the settings of groups that it has changed, by name.

    Python's numbers are named apart, so that they are such again and steps have the same bits.

    Raises:
        SpecError: it keeps something else than tensors and numbers.
    """
    named: dict[str, Tensor] = {}

    def add(place: str, value: object) -> None:
        if isinstance(value, Tensor):
            named[place] = value
        elif isinstance(value, bool | int | float):
            named[f"number.{place}"] = torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else None)
        elif value is not None:
            raise SpecError(
                f"optimizer {type(optimizer).__name__} keeps {place.rpartition('.')[2]!r}, a {type(value).__name__},"
                f" which a checkpoint cannot hold; keep tensors and numbers"
            )

    for index, values in optimizer.state_dict()["state"].items():
        if not isinstance(index, int):
            raise SpecError(
                f"optimizer {type(optimizer).__name__} keeps {index!r} beside the state of its parameters, which a"
                f" checkpoint cannot hold; keep it in a parameter group"
            )
        for key, value in values.items():
            add(f"{index}.{key}", value)
    for number, group in enumerate(optimizer.param_groups):
        for key, value in group.items():
            if isinstance(value, Tensor | bool | int | float) and key not in _RATES:
                default = optimizer.defaults.get(key)
                if isinstance(value, Tensor) or value != default:
                    add(f"group.{number}.{key}", value)
    return named


_RATES = ("lr", "initial_lr")
"""Settings of groups that are set anew at each step, or when training is prepared."""


def _load_optimizer_state(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Take over what `_name_optimizer_state` returned."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    slots: dict[int, dict[str, object]] = {}
    for name, tensor in tensors.items():
        value: Tensor | float = tensor.item() if name.startswith("number.") else tensor
        index, _, key = name.removeprefix("number.").partition(".")
        if index == "group":
            number, _, key = key.partition(".")
            optimizer.param_groups[int(number)][key] = value
            continue
        parameter = parameters[int(index)]
        if isinstance(value, Tensor) and value.shape == parameter.shape:
            # fused optimizers walk through memory, so state must lie in memory as its parameter does
            value = torch.empty_like(parameter).copy_(value)
        slots.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": slots})


def _to_cpu(named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return contiguous copies of tensors on the CPU, for a checkpoint file."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in named.items()}


def _below(part: str, named: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a part, by their names within it."""
    return {name.removeprefix(f"{part}."): one for name, one in named.items() if name.startswith(f"{part}.")}
