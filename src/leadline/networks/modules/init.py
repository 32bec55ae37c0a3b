"""Initialisations: every parameter is drawn from a stream of its own, named by the parameter."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from leadline.errors import SpecError
from leadline.networks.modules.blocks import Block
from leadline.networks.modules.layers import NORMALISING, Scale, Shift, WeightLayer
from leadline.networks.modules.shortcuts import Custom, Gated
from leadline.seeds import INIT, stream
from leadline.specs.network import Initialisation


def initialise(model: nn.Module, spec: Initialisation, seed: int) -> None:
    """Draw every parameter of a network in place; reset the statistics of its normalisation.

    A parameter's values depend on the seed, its name and its shape alone, so networks that share a parameter by
    name and shape start from the same values of it. Weights are drawn on the CPU, so they do not depend on the device.
    """
    gates = {module.gate for module in model.modules() if isinstance(module, Gated)}
    with torch.no_grad():
        for prefix, module in _built_in(model):
            if isinstance(module, WeightLayer):
                for name, parameter in module.named_parameters(recurse=False):
                    generator = torch.Generator().manual_seed(stream(seed, INIT, f"{prefix}.{name}"))
                    values = torch.empty(parameter.shape)
                    draw = _draw_weight if name == "weight" else _draw_bias
                    values = draw(spec, values, module, generator)
                    if spec.identity and name == "weight" and isinstance(module, nn.Conv2d) and module not in gates:
                        _copy_channels(values, module.groups)
                    parameter.copy_(values)
            elif isinstance(module, NORMALISING):
                module.reset_parameters()
            elif isinstance(module, Scale):
                module.factor.fill_(module.start)
            elif isinstance(module, Shift):
                module.bias.zero_()
        for prefix, module in list(model.named_modules()):
            if isinstance(module, Custom):
                module.start(stream(seed, INIT, prefix))
        blocks = [module for module in model.modules() if isinstance(module, Block)]
        for module in model.modules():
            if isinstance(module, Gated) and module.gate.bias is not None:
                module.gate.bias.fill_(module.gate_bias)
        if spec.branch == "zero-gamma":
            for block in blocks:
                norms = [module for module in block.branch.modules() if isinstance(module, NORMALISING)]
                nn.init.zeros_(norms[-1].weight)
        elif spec.branch == "fixup":
            _fixup(model, blocks)


def _built_in(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules by name, but for those of custom shortcuts, which start as they were written."""
    custom = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, Custom))
    yield from ((name, module) for name, module in model.named_modules() if not f"{name}.".startswith(custom))


def check_widths(model: nn.Module, spec: Initialisation) -> None:
    """Check that every layer has the shape that the initialisation needs.

    Raises:
        SpecError: delta-orthogonal, and a convolution has fewer channels out than in.
    """
    for _, module in _built_in(model) if spec.name == "delta-orthogonal" else ():
        if isinstance(module, nn.Conv2d) and module.out_channels < module.in_channels:
            raise SpecError(
                f"initialisation delta-orthogonal needs at least as many output channels as input channels, got"
                f" {module.in_channels} to {module.out_channels}; use non-decreasing widths"
            )


def _draw_weight(spec: Initialisation, values: Tensor, module: WeightLayer, generator: torch.Generator) -> Tensor:
    area = values[0, 0].numel()
    fan_in, fan_out = values.shape[1] * area, values.shape[0] * area
    scale, _, form = spec.name.partition("-")
    match scale:
        case "old":
            # PyTorch's own default, and the formula of the notes on depth with k the fan-in
            bound = (spec.gain or 1) / math.sqrt(fan_in)
            return values.uniform_(-bound, bound, generator=generator)
        case "orthogonal":
            return nn.init.orthogonal_(values, spec.gain or 1, generator)
        case "delta":
            groups = module.groups if isinstance(module, nn.Conv2d) else 1
            for part in values.chunk(groups):  # each group of a grouped convolution is a convolution of its own
                _delta_orthogonal(part, spec.gain or 1.0, generator)
            return values
        case "he":  # He et al. 2015, "Delving Deep into Rectifiers", equations 10 and 14
            std = (spec.gain or math.sqrt(2)) / math.sqrt(fan_out if form.endswith("fan-out") else fan_in)
        case "xavier":  # Glorot & Bengio 2010, equation 16
            std = (spec.gain or 1) * math.sqrt(2 / (fan_in + fan_out))
        case _:  # LeCun et al. 1998, "Efficient BackProp", equation 16
            std = (spec.gain or 1) / math.sqrt(fan_in)
    if form.startswith("uniform"):
        bound = std * math.sqrt(3)
        return values.uniform_(-bound, bound, generator=generator)
    return values.normal_(0, std, generator=generator)


def _draw_bias(spec: Initialisation, values: Tensor, module: WeightLayer, generator: torch.Generator) -> Tensor:
    if spec.bias_std is not None:
        return values.normal_(0, spec.bias_std, generator=generator)
    if spec.name == "old-uniform":
        bound = 1 / math.sqrt(module.weight[0].numel())
        return values.uniform_(-bound, bound, generator=generator)
    return values.zero_()


def _delta_orthogonal(values: Tensor, gain: float, generator: torch.Generator) -> None:
    """An orthogonal matrix at the kernel's centre, zeros around it: Xiao et al. 2018, algorithm 1."""
    if values.ndim == 2:
        nn.init.orthogonal_(values, gain, generator)
        return
    channels_out, channels_in, height, width = values.shape
    centre = nn.init.orthogonal_(torch.empty(channels_out, channels_in), gain, generator)
    values.zero_()
    values[:, :, height // 2, width // 2] = centre


def _copy_channels(values: Tensor, groups: int) -> None:
    """Let the first filters of each group copy the group's input channels, one each: Jordan 2024, section 3.3."""
    for part in values.chunk(groups):
        nn.init.dirac_(part[: part.shape[1]])


def _fixup(model: nn.Module, blocks: list[Block]) -> None:
    """Scale a branch's convolutions by L^(-1/(2m-2)), zero its last and the classifier: Zhang et al. 2019, 3.2."""
    scaled: set[nn.Module] = set()  # blocks that share their weights scale them once
    for block in blocks:
        convs = [module for module in block.branch.children() if isinstance(module, WeightLayer)]
        for conv in convs[:-1]:
            if conv not in scaled:
                conv.weight.mul_(len(blocks) ** (-1 / (2 * len(convs) - 2)))
                scaled.add(conv)
        _zero(convs[-1])
    _zero([module for module in model.modules() if isinstance(module, nn.Linear)][-1])


def _zero(module: nn.Module) -> None:
    for parameter in module.parameters():
        parameter.zero_()
