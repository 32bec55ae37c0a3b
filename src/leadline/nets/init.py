"""Initialisations: every parameter is drawn from a stream of its own, named by the parameter."""

import math

import torch
from torch import Tensor, nn

from leadline.seeds import INIT, stream
from leadline.spec.network import Initialisation

Weighted = nn.Conv2d | nn.Linear


def initialise(model: nn.Module, kind: Initialisation, seed: int) -> None:
    """Draw every parameter of a network in place; reset the statistics of its normalisation.

    A parameter's values depend on the seed, its name and its shape alone, so networks that share a parameter by
    name and shape start from the same values of it. Weights are drawn on the CPU, so they do not depend on the device.
    """
    with torch.no_grad():
        for prefix, module in model.named_modules():
            if isinstance(module, Weighted):
                for name, parameter in module.named_parameters(recurse=False):
                    generator = torch.Generator().manual_seed(stream(seed, INIT, f"{prefix}.{name}"))
                    parameter.copy_(_drawn(kind, name, parameter, module, generator))
            elif isinstance(module, nn.BatchNorm2d):
                module.reset_parameters()


def _drawn(kind: Initialisation, name: str, parameter: Tensor, module: Weighted, generator: torch.Generator) -> Tensor:
    values = torch.empty(parameter.shape)
    fan_in = module.weight[0].numel()
    match kind:
        case "old-uniform":
            # the bias too: PyTorch's own default, and the formula of the notes on depth with k the fan-in
            bound = 1 / math.sqrt(fan_in)
            return values.uniform_(-bound, bound, generator=generator)
        case "he-normal":
            # He et al. 2015, "Delving Deep into Rectifiers", equation 10
            return values.zero_() if name == "bias" else values.normal_(0, math.sqrt(2 / fan_in), generator=generator)
