"""What shortcuts are built of: modules that join a block's input and its branch, and the ways of the input to them."""

import copy
from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leadline.errors import SpecError
from leadline.networks.modules.layers import (
    Maps,
    WeightLayer,
    ZeroPad,
    append,
    normalisation,
    prefix,
    weight_layer,
)
from leadline.parts.shortcuts import CustomShortcut
from leadline.seeds import seeded
from leadline.specs import NetworkSpec

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


class Custom(nn.Module):
    """A custom module that joins a block's input and its branch's output."""

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.make = make
        with seeded(0):  # what a constructor draws here is drawn again when the network starts
            self.custom = make()

    def start(self, seed: int) -> None:
        """Make the module again, where it stands in memory and draws; `seed` is of what its constructor draws."""
        with seeded(seed), torch.device("cpu"):
            self.custom = self.make()

    def forward(self, x: Maps, y: Joined) -> Joined:
        """Join the block's input `x` and its branch's output `y`."""
        out: Tensor = self.custom(x, y)
        return out


def build_custom(spec: CustomShortcut, convolutional: bool, channels_in: int, channels_out: int, stride: int) -> Custom:
    """Return a custom shortcut, and see that it joins.

    Raises:
        SpecError: calling it fails, it returns no module, or that does not give maps shaped as the branch's.
    """
    custom = Custom(partial(_make, spec, channels_in, channels_out, stride))
    pixels = (32, -(-32 // stride)) if convolutional else ()
    x, y = (
        torch.empty(2, channels, *[size] * 2 if convolutional else (), device="meta")
        for channels, size in zip((channels_in, channels_out), pixels or (0, 0), strict=True)
    )
    try:
        joined = copy.deepcopy(custom.custom).to("meta")(x, y)
    except Exception as error:  # whatever a custom module may raise
        reason = " ".join(str(error).split())
        raise SpecError(
            f"{spec.module} cannot join {tuple(x.shape)} and {tuple(y.shape)}: {type(error).__name__}: {reason}"
        ) from None
    if not isinstance(joined, Tensor) or joined.shape != y.shape:
        given = f"shape {tuple(joined.shape)}" if isinstance(joined, Tensor) else f"a {type(joined).__name__}"
        raise SpecError(
            f"{spec.module} returns {given} for inputs of shape {tuple(x.shape)} and {tuple(y.shape)};"
            f" expected the second shape"
        )
    return custom


def _make(spec: CustomShortcut, channels_in: int, channels_out: int, stride: int) -> nn.Module:
    module = spec.call(channels_in, channels_out, stride)
    if not isinstance(module, nn.Module):
        raise SpecError(f"{spec.module} returned a {type(module).__name__}; expected a torch.nn.Module")
    return module


def follow(path: nn.Module, name: str, module: nn.Module) -> nn.Sequential:
    """Return a path with a module after it, under a name."""
    sequence = nn.Sequential()
    append(sequence, "path", path)
    sequence.add_module(name, module)
    return sequence


def identity(kind: str, channels_in: int, channels_out: int, stride: int) -> nn.Module:
    """Return the identity, zero-padded and subsampled where dimensions grow.

    Raises:
        SpecError: zero padding cannot reach fewer channels.
    """
    if channels_out < channels_in:
        raise SpecError(
            f"shortcut {kind} pads with zeros and cannot go from {channels_in} to {channels_out} channels;"
            " use B or C, or non-decreasing widths"
        )
    return nn.Identity() if channels_in == channels_out and stride == 1 else ZeroPad(channels_in, channels_out, stride)


def projection(spec: NetworkSpec, channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    """Return a 1x1 convolution, normalised where the branch's convolutions are."""
    sequence = nn.Sequential()
    sequence.add_module(prefix(spec), weight_layer(spec, channels_in, channels_out, 1, stride))
    # where the branch is pre-activated, nothing is normalised after the convolutions (He et al. 2016, figure 1b)
    if spec.block.order in ("original", "relu-before-addition", "relu-only-preactivation"):
        append(sequence, "norm", normalisation(spec, channels_out))
    return sequence
