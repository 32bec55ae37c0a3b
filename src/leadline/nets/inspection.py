"""What a network costs: parameters, multiply-adds, shapes and memory, layer by layer, without computing anything."""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from leadline.nets.layers import ZeroPad
from leadline.nets.memory import inference_memory, training_memory
from leadline.nets.network import InputShape, Network
from leadline.nets.shortcuts import Add, Concatenate, Gated


@dataclass(frozen=True)
class LayerInfo:
    """One call of one layer, in the order in which the forward pass reaches it; parameters count at the first call."""

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class NetworkInfo:
    """A network's totals for one image, and its layers."""

    parameters: int
    multiply_adds: int
    output_shape: tuple[int, ...]
    receptive_field: (
        int | None
    )  # pixels on a side that one value before the head may see; None: not our network, or no convolution
    training_memory: int  # bytes kept for the backward pass, of one image
    inference_memory: int  # bytes, the most that is alive at once, of one image
    layers: tuple[LayerInfo, ...]


def inspect_module(model: nn.Module, input_shape: InputShape) -> NetworkInfo:
    """Count any module that takes a batch of images, by watching a copy of it work on the meta device.

    Multiply-adds are those of convolution and linear layers.
    """
    model = copy.deepcopy(model).to("meta")
    layers: list[LayerInfo] = []
    counted: set[int] = set()
    names = {module: name for name, module in model.named_modules()}
    field = _ReceptiveField()

    def watch(module: nn.Module, _inputs: object, output: object) -> None:
        if isinstance(output, tuple):
            output = output[0]
        if not isinstance(output, Tensor):
            return
        new = [parameter for parameter in module.parameters() if id(parameter) not in counted]
        counted.update(id(parameter) for parameter in new)
        parameters = sum(parameter.numel() for parameter in new)
        kind, shape = type(module).__name__, tuple(output.shape[1:])
        layers.append(LayerInfo(names[module], kind, shape, parameters, _multiply_adds(module, output)))
        field.pass_through(names[module], module)

    leaves = [module for module in model.modules() if not list(module.children()) and not _does_nothing(module)]
    handles = [leaf.register_forward_hook(watch) for leaf in leaves]
    image = torch.empty(1, *input_shape, device="meta")
    with torch.no_grad():
        output = model.eval()(image)
    for handle in handles:
        handle.remove()
    return NetworkInfo(
        sum(parameter.numel() for parameter in model.parameters()),
        sum(layer.multiply_adds for layer in layers),
        tuple(output.shape[1:]) if isinstance(output, Tensor) else (),
        field.size if isinstance(model, Network) and field.convolved else None,
        training_memory(model, input_shape),
        inference_memory(model, input_shape),
        tuple(layers),
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


def _multiply_adds(module: nn.Module, output: Tensor) -> int:
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        return output[0].numel() * module.weight[0].numel()
    if isinstance(module, nn.Linear):
        return output[0].numel() * module.in_features
    return 0
