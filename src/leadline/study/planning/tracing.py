"""What training a network and evaluating it takes: its operations and its memory, traced on the meta device."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import flop_registry

from leadline.networks.modules import InputShape, build, distinct_tensors, inspect_network, skeleton
from leadline.networks.modules.memory import Kept, Live
from leadline.networks.modules.shapes import Watching
from leadline.specs import NetworkSpec
from leadline.study.planning.timing import Work
from leadline.training.evaluation import evaluation_batch

aten = torch.ops.aten

Amounts = Counter[str]
"""What takes time -> how much of it: calls of operations, multiply-adds, values read and written, by kind."""

_LANES = 8  # channels that convolutions compute together; fewer take as long
_FREE = {aten.detach.default, aten.empty.memory_format, aten.empty_like.default}
_KINDS = {
    "norm": "normalised values",
    "pool2d": "pooled values",
    **dict.fromkeys(("tanh", "sigmoid", "gelu", "silu", "softplus", "elu"), "transcendental values"),
}
_PASSES = 6  # values read and written for each value of an image: taken from memory, converted, normalised


@dataclass(frozen=True)
class Traced:
    """What one network takes, for batches of one size.

    Attributes:
        parameters: of the whole network.
        tensors: number of tensors that hold them.
        state: bytes of parameters and buffers.
        multiply_adds: of one image.
        kept: bytes that the backward pass of a batch needs, beside the parameters.
        peak: bytes that are alive at once in an evaluation.
        step: operations of a forward and a backward pass of a batch; None: they cannot be traced.
        evaluation: operations of an evaluated batch; None: they cannot be traced.
        evaluated: images in that batch.
        uncounted: operations that multiply but are in no count.
    """

    parameters: int
    tensors: int
    state: int
    multiply_adds: int
    kept: int
    peak: int
    step: Amounts | None
    evaluation: Amounts | None
    evaluated: int
    uncounted: tuple[str, ...] = ()


def trace(work: Work, evaluated: int | None = None) -> Traced:
    """Trace a training step and an evaluation of a network; nothing is computed, and no memory taken.

    Args:
        work: the network, its images and its batches.
        evaluated: images in a batch of evaluation; None: as many as `evaluate` takes at once.

    Raises:
        SpecError: the network cannot be built, or cannot take images of this shape.
    """
    spec, shape, classes = work.trial.network, work.shape, work.classes
    training, evaluated = work.trial.training, evaluated or evaluation_batch(work.shape)
    batch, channels_last = training.batch_size, training.channels_last
    if isinstance(spec, NetworkSpec):
        return _trace(skeleton(spec, shape, classes), shape, batch, evaluated, channels_last)
    info = inspect_network(spec, shape, classes)
    model = build(spec, shape, classes)
    tensors, state = len(list(model.parameters())), _bytes(model)
    try:
        traced = _trace(model.to("meta"), shape, batch, evaluated, channels_last)
        step, evaluation = (None, None) if info.uncounted else (traced.step, traced.evaluation)
    except Exception:  # whatever somebody's code may raise where tensors have no values
        step = evaluation = None
    return Traced(
        info.parameters,
        tensors,
        state,
        info.multiply_adds,
        info.training_memory * batch,
        info.inference_memory * evaluated,
        step,
        evaluation,
        evaluated,
        info.uncounted,
    )


def _trace(model: nn.Module, shape: InputShape, batch: int, evaluated: int, channels_last: bool) -> Traced:
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = model.to(memory_format=layout)  # type: ignore[call-overload]

    def images(count: int) -> Tensor:
        return torch.empty(count, *shape, device="meta").to(memory_format=layout)

    live = Live(model, images(evaluated))
    with torch.no_grad(), live, Noting() as evaluation:
        model.eval()(images(evaluated))
    kept = Kept(model)
    with torch.enable_grad(), Noting() as step:
        with kept:
            loss = model.train()(images(batch)).sum()
        kept_bytes = kept.bytes
        loss.backward()
    for parameter in model.parameters():
        parameter.grad = None
    return Traced(
        sum(parameter.numel() for parameter in model.parameters()),
        len(list(model.parameters())),
        _bytes(model),
        evaluation.multiply_adds // evaluated,
        kept_bytes,
        live.peak,
        step.amounts,
        evaluation.amounts,
        evaluated,
    )


def step_amounts(work: Work, traced: Traced) -> Amounts | None:
    """Return all that a training step takes: the data, the network, the optimizer and the loop; None: not known."""
    optimizer = work.trial.training.optimizer
    slots = optimizer.state_values
    if traced.step is None or slots is None or work.trial.training.precision != "float32":
        return None
    pixels = math.prod(work.shape) * work.trial.training.batch_size
    amounts = Amounts(traced.step)
    amounts["steps"] += 1
    amounts["values"] += _PASSES * pixels
    amounts["updated tensors"] += traced.tensors
    amounts["updated values"] += (3 + 2 * slots) * traced.parameters
    return amounts


def evaluation_amounts(work: Work, traced: Traced) -> Amounts | None:
    """Return all that the evaluation of a batch takes; None: not known."""
    if traced.evaluation is None or work.trial.training.precision != "float32":
        return None
    amounts = Amounts(traced.evaluation)
    amounts["values"] += _PASSES * math.prod(work.shape) * traced.evaluated
    return amounts


class Noting(Watching):  # type: ignore[no-untyped-call]
    """Notes what the operations inside the `with` block take.

    Attributes:
        amounts: of all operations so far.
        multiply_adds: of all convolutions and matrix products so far.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.amounts = Amounts()
        self.multiply_adds = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view and func not in _FREE:
            self._note(func, args, kwargs or {}, result)
        return result

    def _note(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> None:
        if func is aten.convolution.default:
            self._note_convolution(args[0], args[1], result, 1)
        elif func is aten.convolution_backward.default:
            self._note_convolution(args[1], args[2], args[0], sum(args[10][:2]))
        elif func.overloadpacket in flop_registry:
            multiply_adds = flop_registry[func.overloadpacket](*args, **kwargs, out_val=result) // 2
            self.multiply_adds += multiply_adds
            self.amounts["products"] += 1
            self.amounts["multiply-adds of products"] += multiply_adds
            self.amounts["values of products"] += _values(args) + _values(result)
        else:
            self.amounts["calls"] += 1
            self.amounts[_kind(func.overloadpacket)] += _values(args) + _values(result)

    def _note_convolution(self, images: Tensor, weight: Tensor, maps: Tensor, passes: int) -> None:
        out, into, *kernel = weight.shape
        whole = images.shape[1] == into  # rather than in groups of channels
        kind = "grouped" if not whole else "pointwise" if math.prod(kernel) == 1 else "convolved"
        weights = _lanes(out) * _lanes(into) * math.prod(kernel) if whole else weight.numel()
        pixels = maps.numel() // out
        self.multiply_adds += passes * pixels * weight.numel()
        self.amounts["convolutions"] += passes
        self.amounts[f"multiply-adds, {kind}"] += passes * pixels * weights
        self.amounts["values of convolutions"] += passes * (images.numel() + maps.numel())


@cache
def _kind(operation: Any) -> str:
    return next((_KINDS[word] for word in operation.__name__.split("_") if word in _KINDS), "values")


def _lanes(channels: int) -> int:
    return math.ceil(channels / _LANES) * _LANES


def _values(given: Any) -> int:
    if isinstance(given, Tensor):
        return given.numel()
    return sum(map(_values, given)) if isinstance(given, tuple | list) else 0


def _bytes(model: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in distinct_tensors(model).values())
