"""What a network costs: parameters, multiply-adds and output shapes, layer by layer, without computing anything."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from leadline.nets.network import InputShape, skeleton
from leadline.spec import NetworkSpec


@dataclass(frozen=True)
class LayerInfo:
    """One layer, in the order in which the forward pass reaches it."""

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
    layers: tuple[LayerInfo, ...]


def inspect_network(spec: NetworkSpec, input_shape: InputShape, classes: int) -> NetworkInfo:
    """Count a network's parameters, and the multiply-adds of its convolutions and linear layers for one image.

    As in He et al. 2015, table 1, normalisation, activation, pooling and additions count no multiply-adds.

    Raises:
        SpecError: the specification cannot take images of this shape.
    """
    return inspect_module(skeleton(spec, input_shape, classes), input_shape)


def inspect_module(model: nn.Module, input_shape: InputShape) -> NetworkInfo:
    """Count any module that takes a batch of images, by watching one forward pass on the meta device."""
    layers: list[LayerInfo] = []
    counted: set[int] = set()
    names = {module: name for name, module in model.named_modules()}

    def watch(module: nn.Module, _inputs: object, output: Tensor) -> None:
        new = [parameter for parameter in module.parameters() if id(parameter) not in counted]
        counted.update(id(parameter) for parameter in new)
        layers.append(
            LayerInfo(
                names[module],
                type(module).__name__,
                tuple(output.shape[1:]),
                sum(parameter.numel() for parameter in new),
                _multiply_adds(module, output),
            )
        )

    nothing = nn.Identity | nn.Sequential  # an empty sequence
    leaves = [module for module in model.modules() if not list(module.children()) and not isinstance(module, nothing)]
    handles = [leaf.register_forward_hook(watch) for leaf in leaves]
    training = model.training
    try:
        model.eval().to("meta")(torch.empty(1, *input_shape, device="meta"))
    finally:
        model.train(training)
        for handle in handles:
            handle.remove()
    total = sum(parameter.numel() for parameter in model.parameters())
    return NetworkInfo(total, sum(layer.multiply_adds for layer in layers), tuple(layers))


def _multiply_adds(module: nn.Module, output: Tensor) -> int:
    if isinstance(module, nn.Conv2d):
        return output[0].numel() * module.weight[0].numel()
    if isinstance(module, nn.Linear):
        return output[0].numel() * module.in_features
    return 0
