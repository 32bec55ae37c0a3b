"""What a network costs: parameters, multiply-adds, shapes and memory, layer by layer."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from leadline.networks.modules.layers import ZeroPad
from leadline.networks.modules.memory import inference_memory, training_memory
from leadline.networks.modules.network import InputShape, Network
from leadline.networks.modules.operations import Operations, count_operations, unfused
from leadline.networks.modules.shortcuts import Add, Concatenate, Gated


@dataclass(frozen=True)
class LayerInfo:
    """One call of one module, in the order in which the forward pass leaves it.

    A module that holds others has a row where it multiplies, or has parameters, beside theirs. Parameters count at the
    first call. The network itself has the name "".
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class NetworkInfo:
    """A network's totals for one image, and its layers.

    Attributes:
        parameters: of the whole network, those that no call reaches included.
        multiply_adds: of every convolution and matrix product that one image takes.
        output_shape: of one image, without the batch.
        receptive_field: pixels on a side that one value before the head may see; None: a custom module, or no
            convolution.
        training_memory: bytes kept for the backward pass, of one image.
        inference_memory: bytes, the most that is alive at once, of one image.
        layers: the calls of the modules.
        uncounted: operations that multiply and add and are not in `multiply_adds`, such as `aten::_fft_r2c`.
    """

    parameters: int
    multiply_adds: int
    output_shape: tuple[int, ...]
    receptive_field: int | None
    training_memory: int
    inference_memory: int
    layers: tuple[LayerInfo, ...]
    uncounted: tuple[str, ...] = ()


def inspect_module(model: nn.Module, input_shape: InputShape) -> NetworkInfo:
    """Count any module that takes a batch of images, by watching a copy of it work.

    The copy works on the meta device, which computes nothing, or on the CPU where the module cannot: because it makes
    tensors on a device of its own choice, or decides by the values that it computes.

    Args:
        model: left as it is.
        input_shape: channels, height, width of an image.

    Raises:
        RuntimeError, ValueError, ...: whatever the module raises for an image of this shape.

    Example:
        >>> from torch import nn
        >>> from leadline.networks.modules import inspect_module
        >>> inspect_module(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), (1, 8, 8)).multiply_adds
        640
    """
    try:
        return inspect_skeleton(copy.deepcopy(model).to("meta"), input_shape)
    except Exception:  # whatever somebody's code may raise where tensors have no values
        if any(parameter.is_meta for parameter in model.parameters()):
            raise
    with torch.random.fork_rng(devices=[]), unfused():
        return _inspect(copy.deepcopy(model).cpu(), input_shape, torch.device("cpu"))


def inspect_skeleton(model: nn.Module, input_shape: InputShape) -> NetworkInfo:
    """Count a module on the meta device, as `inspect_module` does, without a copy: its mode, of training, changes."""
    return _inspect(model, input_shape, torch.device("meta"))


def _inspect(model: nn.Module, input_shape: InputShape, device: torch.device) -> NetworkInfo:
    with torch.no_grad(), count_operations() as operations:
        watching = _Watching(model, operations)
        output = model.eval()(torch.zeros(1, *input_shape, device=device))
        watching.stop()
    return NetworkInfo(
        sum(parameter.numel() for parameter in model.parameters()),
        operations.multiply_adds,
        tuple(output.shape[1:]) if isinstance(output, Tensor) else (),
        watching.field.size if isinstance(model, Network) and watching.field.convolved else None,
        training_memory(model, input_shape, device),
        inference_memory(model, input_shape, device),
        tuple(watching.layers),
        tuple(sorted(operations.uncounted)),
    )


class _Watching:
    """Makes one row per call of a module that does something beside what the modules inside it do."""

    def __init__(self, model: nn.Module, operations: Operations) -> None:
        self.layers: list[LayerInfo] = []
        self.field = _ReceptiveField()
        self.operations = operations
        self.names = {module: name for name, module in model.named_modules()}
        self.counted: set[int] = set()  # parameters that have a row
        self.calls: list[list[int]] = []  # of the modules that are at work: multiply-adds before, and of those inside
        self.handles = [
            handle
            for module in self.names
            for handle in (module.register_forward_pre_hook(self.enter), module.register_forward_hook(self.leave))
        ]

    def stop(self) -> None:
        """Take the hooks away."""
        for handle in self.handles:
            handle.remove()

    def enter(self, _module: nn.Module, _inputs: object) -> None:
        """Note what was counted before a call."""
        self.calls.append([self.operations.multiply_adds, 0])

    def leave(self, module: nn.Module, _inputs: object, output: object) -> None:
        """Count what a call did."""
        before, inside = self.calls.pop()
        whole = self.operations.multiply_adds - before
        if self.calls:
            self.calls[-1][1] += whole
        new = [parameter for parameter in module.parameters() if id(parameter) not in self.counted]
        self.counted.update(id(parameter) for parameter in new)
        leaf = not list(module.children()) and not _does_nothing(module)
        if leaf:
            self.field.pass_through(self.names[module], module)
        if leaf or new or whole > inside:
            first = output[0] if isinstance(output, tuple) and output else output
            self.layers.append(
                LayerInfo(
                    self.names[module],
                    type(module).__name__,
                    tuple(first.shape[1:]) if isinstance(first, Tensor) else (),
                    sum(parameter.numel() for parameter in new),
                    whole - inside,
                )
            )


class _ReceptiveField:
    """Grows along stem and branches, which see at least as far as the shortcuts around them."""

    def __init__(self) -> None:
        self.size = 1
        self.jump = 1
        self.convolved = False

    def pass_through(self, name: str, module: nn.Module) -> None:
        if ".join." in name or name.startswith("head."):
            return
        if isinstance(module, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
            kernel, stride = (
                size[0] if isinstance(size, tuple) else size for size in (module.kernel_size, module.stride)
            )
            self.convolved = True
            self.size += (kernel - 1) * self.jump
            self.jump *= stride


def _does_nothing(module: nn.Module) -> bool:
    return isinstance(module, nn.Identity | nn.Sequential | Add | Concatenate | Gated) or (
        isinstance(module, ZeroPad) and module.padding == 0 and module.stride == 1
    )
