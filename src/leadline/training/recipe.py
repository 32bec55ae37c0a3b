"""A recipe carried out: the device, the optimizer, and the learning rate as a function of progress."""

import math
from collections.abc import Callable

import torch
from torch import nn

from leadline.errors import SpecError
from leadline.spec import (
    SGD,
    Adam,
    Constant,
    Cosine,
    OneCycle,
    Optimizer,
    RMSprop,
    Schedule,
    StepDecay,
    TrainingSpec,
)
from leadline.training.state import TrainState


def choose_device(name: str) -> torch.device:
    """Return the device of a name: `cpu`, `cuda`, `cuda:1`, or `auto` for a GPU where there is one.

    Raises:
        SpecError: the name is unknown or the device is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise SpecError(f"device {name!r}: expected cpu, cuda, cuda:N or auto") from None
    if device.type not in ("cpu", "cuda"):
        raise SpecError(f"device {name!r}: expected cpu, cuda, cuda:N or auto")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise SpecError(
            f"device {name!r}: this machine shows {torch.cuda.device_count()} CUDA devices to PyTorch; use cpu or auto"
        )
    return device


def prepare(model: nn.Module, spec: TrainingSpec, device: torch.device) -> TrainState:
    """Move a model to its device and memory layout and give it its optimizer.

    Raises:
        SpecError: bfloat16 is asked for on a CPU.
    """
    if spec.precision == "bfloat16" and device.type != "cuda":
        raise SpecError("training.precision: bfloat16 autocast needs a CUDA device; use float32 on a CPU")
    layout = torch.channels_last if spec.channels_last else torch.contiguous_format
    model = model.to(device).to(memory_format=layout)  # type: ignore[call-overload]
    return TrainState(model, make_optimizer(spec.optimizer, model))


def make_optimizer(spec: Optimizer, model: nn.Module) -> torch.optim.Optimizer:
    """Return a fused optimizer over all parameters; RMSprop, which PyTorch does not fuse, in its foreach form."""
    parameters = list(model.parameters())
    match spec:
        case SGD():
            return torch.optim.SGD(
                parameters,
                spec.learning_rate,
                spec.momentum,
                weight_decay=spec.weight_decay,
                nesterov=spec.nesterov,
                fused=True,
            )
        case Adam():
            kind = torch.optim.AdamW if spec.name == "adamw" else torch.optim.Adam
            return kind(
                parameters,
                spec.learning_rate,
                spec.betas,
                spec.epsilon,
                weight_decay=spec.weight_decay,
                fused=True,
            )
        case RMSprop():
            return torch.optim.RMSprop(
                parameters,
                spec.learning_rate,
                spec.decay,
                spec.epsilon,
                spec.weight_decay,
                spec.momentum,
                foreach=True,
            )


def learning_rate(spec: TrainingSpec, steps: int) -> Callable[[int], float]:
    """Return the learning rate as a function of the optimizer steps already done, of `steps` in all."""

    def rate(step: int) -> float:
        base = spec.optimizer.learning_rate
        warmup = spec.warmup
        if warmup is not None and step < warmup.steps:
            grown = step / warmup.steps if warmup.form == "linear" else 0.0
            return base * (warmup.factor + (1 - warmup.factor) * grown)
        return base * schedule_factor(spec.schedule, step / steps)

    return rate


def schedule_factor(schedule: Schedule, progress: float) -> float:
    """Return what the learning rate is multiplied by when a fraction `progress` of training is done."""

    def cosine(start: float, end: float, fraction: float) -> float:
        return end + (start - end) * (1 + math.cos(math.pi * fraction)) / 2

    match schedule:
        case Constant():
            return 1.0
        case StepDecay():
            return schedule.factor ** sum(progress >= milestone for milestone in schedule.milestones)
        case Cosine():
            return cosine(1.0, schedule.final, progress)
        case OneCycle() if progress < schedule.peak_at:
            return cosine(schedule.start, 1.0, progress / schedule.peak_at)
        case OneCycle():
            return cosine(1.0, schedule.final, (progress - schedule.peak_at) / (1 - schedule.peak_at))
