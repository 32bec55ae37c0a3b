"""Shortcuts: how a block's input meets its branch. He et al. 2015, section 3.3; He et al. 2016, section 3."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leadline.errors import SpecError
from leadline.nets.layers import (
    Dropout,
    Maps,
    Multiply,
    WeightLayer,
    ZeroPad,
    append,
    normalisation,
    prefix,
    weight_layer,
)
from leadline.spec import NetworkSpec

Joined = Float[Tensor, "batch joined *smaller"]


class Add(nn.Module):
    """Shortcut plus branch, each perhaps scaled or dropped on its way."""

    def __init__(self, path: nn.Module, branch: nn.Module) -> None:
        super().__init__()
        self.path = path
        self.branch = branch

    def forward(self, x: Maps, y: Joined) -> Joined:
        """Join the block's input `x` and its branch's output `y`."""
        out: Tensor = self.branch(y) + self.path(x)
        return out


class Gated(nn.Module):
    """Shortcut times 1 - g plus branch (times g, if exclusive), with g = sigmoid(convolution of the block's input)."""

    def __init__(self, path: nn.Module, gate: WeightLayer, exclusive: bool, gate_bias: float) -> None:
        super().__init__()
        self.path = path
        self.gate = gate
        self.exclusive = exclusive
        self.gate_bias = gate_bias

    def forward(self, x: Maps, y: Joined) -> Joined:
        """Join the block's input `x` and its branch's output `y`."""
        gate = torch.sigmoid(self.gate(x))
        out: Tensor = (y * gate if self.exclusive else y) + self.path(x) * (1 - gate)
        return out


class Concatenate(nn.Module):
    """The block's input, then its branch's output, side by side (Huang et al. 2017, equation 2)."""

    def forward(self, x: Maps, y: Joined) -> Float[Tensor, "batch wider *smaller"]:
        """Join the block's input `x` and its branch's output `y`."""
        return torch.cat([x, y], 1)


def join(spec: NetworkSpec, channels_in: int, channels_out: int, stride: int) -> nn.Module | None:
    """Return what joins a block's input and its branch; None for a plain block.

    Raises:
        SpecError: zero padding cannot reach fewer channels.
    """
    shortcut = spec.block.shortcut
    match shortcut.kind:
        case "none":
            return None
        case "concatenate":
            return Concatenate()
        case "C":
            return Add(_projection(spec, channels_in, channels_out, stride), nn.Identity())
        case "B" if channels_in != channels_out or stride != 1:
            return Add(_projection(spec, channels_in, channels_out, stride), nn.Identity())
    path = _identity(shortcut.kind, channels_in, channels_out, stride)
    match shortcut.kind:
        case "scaled":
            scaled = nn.Sequential()
            append(scaled, "path", path)
            scaled.add_module("scale", Multiply(shortcut.shortcut_factor))
            return Add(scaled, Multiply(shortcut.branch_factor))
        case "dropout":
            dropped = nn.Sequential()
            append(dropped, "path", path)
            dropped.add_module("dropout", Dropout(shortcut.dropout))
            return Add(dropped, nn.Identity())
        case "exclusive-gating" | "shortcut-only-gating":
            size = shortcut.gate_kernel
            gate: WeightLayer = (
                nn.Conv2d(channels_in, channels_out, size, stride, size // 2)
                if spec.layers == "convolutional"
                else nn.Linear(channels_in, channels_out)
            )
            return Gated(path, gate, shortcut.kind == "exclusive-gating", shortcut.gate_bias)
    return Add(path, nn.Identity())


def _identity(kind: str, channels_in: int, channels_out: int, stride: int) -> nn.Module:
    if channels_out < channels_in:
        raise SpecError(
            f"shortcut {kind} pads with zeros and cannot go from {channels_in} to {channels_out} channels;"
            " use B or C, or let widths grow"
        )
    return nn.Identity() if channels_in == channels_out and stride == 1 else ZeroPad(channels_in, channels_out, stride)


def _projection(spec: NetworkSpec, channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    sequence = nn.Sequential()
    sequence.add_module(prefix(spec), weight_layer(spec, channels_in, channels_out, 1, stride))
    # where the branch is pre-activated, nothing is normalised after the convolutions (He et al. 2016, figure 1b)
    if spec.block.order in ("original", "relu-before-addition", "relu-only-preactivation"):
        append(sequence, "norm", normalisation(spec, channels_out))
    return sequence
