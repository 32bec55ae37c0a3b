"""Prepare training from a recipe: the device, the optimizer, and the learning rate as a function of progress."""

from collections.abc import Callable

import torch
from torch import nn

from leadline.errors import SpecError
from leadline.specs import TrainingSpec
from leadline.text import plural
from leadline.training.averaging import Average
from leadline.training.early_stopping import Best
from leadline.training.freezing import freeze
from leadline.training.numerics import check_precision, fix_workspace
from leadline.training.scaling import LossScaler
from leadline.training.state import TrainState


def choose_device(name: str) -> torch.device:
    """Return the device with this name: `cpu`, `cuda`, `cuda:1`, `mps`, or `auto` for a GPU if one is available.

    If it is a CUDA device, this process and those that it starts compute repeatable matrix products from here on; see
    `fix_workspace`.

    Raises:
        SpecError: the name is unknown or the device is not available.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SpecError(f"device {name!r}: {_EXPECTED}") from None
    if device.type not in ("cpu", "cuda", "mps"):
        raise SpecError(f"device {name!r}: {_EXPECTED}")
    if device.type == "mps" and (device.index or not torch.backends.mps.is_available()):
        raise SpecError(f"device {name!r}: PyTorch sees no such Apple GPU on this machine; use cpu or auto")
    if device.type == "cuda":
        if (device.index or 0) >= torch.cuda.device_count():
            raise SpecError(
                f"device {name!r}: PyTorch sees {torch.cuda.device_count()} CUDA devices on this machine; use cpu or"
                f" auto"
            )
        fix_workspace()
    return device


_EXPECTED = "expected cpu, cuda, cuda:N, mps or auto"


def device_line(device: torch.device) -> str:
    """Return a line that says which device `auto` stands for.

    Example:
        >>> device_line(torch.device("cpu"))
        'Device: cpu (auto).'
    """
    cards = f", {plural(torch.cuda.device_count(), 'card')}" if device.type == "cuda" else ""
    return f"Device: {device} (auto{cards})."


def prepare(model: nn.Module, spec: TrainingSpec, device: torch.device) -> TrainState:
    """Move a model to its device and memory layout and create all that training changes beside it.

    Raises:
        SpecError: the device does not compute in the recipe's precision, a custom optimizer cannot be created or has no
            weight decay to apply to weights alone, or `rates` name no parameters.
    """
    check_precision(device, spec.precision)
    layout = torch.channels_last if spec.channels_last else torch.contiguous_format
    model = model.to(device).to(memory_format=layout)  # type: ignore[call-overload]
    optimizer = spec.optimizer.build(freeze(model, spec))
    spec.check_decay(type(optimizer).__name__, optimizer.param_groups)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    if spec.rates or spec.decayed == "weights":
        _divide_groups(optimizer, model, spec)
    average = None if spec.averaging is None else Average(spec.averaging, model)
    best = None if spec.early_stopping is None else Best(spec.early_stopping, model)
    return TrainState(model, optimizer, LossScaler(device, spec.precision == "float16"), average, best)


def _divide_groups(optimizer: torch.optim.Optimizer, model: nn.Module, spec: TrainingSpec) -> None:
    """Divide the parameter groups by the recipe's rates, and by whether parameters decay."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = list(optimizer.param_groups)
    optimizer.param_groups.clear()
    for group in groups:
        divided: dict[tuple[float, bool], list[nn.Parameter]] = {}
        for parameter in group["params"]:
            decays = spec.decayed == "all" or parameter.ndim > 1
            divided.setdefault((spec.rate(names[id(parameter)]), decays), []).append(parameter)
        for (rate, decays), parameters in divided.items():
            changes = {"initial_lr": group["initial_lr"] * rate} | ({} if decays else {"weight_decay": 0.0})
            optimizer.param_groups.append({**group, **changes, "params": parameters})


def rate_factor(spec: TrainingSpec, steps: int) -> Callable[[int], float]:
    """Return what learning rates are multiplied by, as a function of the steps already done, of `steps` in all."""
    warmup, schedule = spec.warmup, spec.schedule
    skipped = 0 if warmup is None or schedule.counts_warmup else warmup.steps

    def factor(step: int) -> float:
        if warmup is not None and step < warmup.steps:
            return warmup.at(step)
        return schedule.at(step - skipped, steps - skipped)

    return factor
