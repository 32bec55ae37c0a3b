"""Blocks: a branch of convolutions, how it is ordered with normalisation and activation, and its shortcut."""

from jaxtyping import Float
from torch import Tensor, nn

from leadline.nets.shortcuts import shortcut
from leadline.spec.network import NetworkSpec, Stage


def normalisation(spec: NetworkSpec, channels: int) -> nn.Module:
    """Return a normalisation layer for feature maps of so many channels."""
    match spec.normalisation:
        case "none":
            return nn.Identity()
        case "batch":
            return nn.BatchNorm2d(channels)


def activation(spec: NetworkSpec) -> nn.Module:
    """Return a fresh activation layer."""
    match spec.activation:
        case "relu":
            return nn.ReLU()


def append(sequence: nn.Sequential, name: str, module: nn.Module) -> None:
    """Append a module under a name, unless it does nothing."""
    if not isinstance(module, nn.Identity):
        sequence.add_module(name, module)


class Block(nn.Module):
    """`after(branch(before(x)) + shortcut(before(x)))`; without a shortcut, the plain `after(branch(before(x)))`."""

    def __init__(self, before: nn.Module, branch: nn.Module, shortcut: nn.Module | None, after: nn.Module) -> None:
        super().__init__()
        self.before = before
        self.branch = branch
        self.shortcut = shortcut
        self.after = after

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch wider rows columns"]:
        """Apply the block."""
        x = self.before(x)
        y = self.branch(x)
        if self.shortcut is not None:
            y = y + self.shortcut(x)
        out: Tensor = self.after(y)
        return out


def convolutions(spec: NetworkSpec, stage: Stage, channels_in: int, stride: int) -> list[nn.Conv2d]:
    """Return the branch's convolutions, first to last."""
    bias = spec.block.bias

    def conv(channels_in: int, channels_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
        return nn.Conv2d(channels_in, channels_out, kernel, stride, kernel // 2, bias=bias)

    match spec.block.kind:
        case "single":
            return [conv(channels_in, stage.width, 3, stride)]
        case "basic":
            inner = stage.inner_width or stage.width
            return [conv(channels_in, inner, 3, stride), conv(inner, stage.width, 3)]
        case "bottleneck":
            inner = stage.inner_width or stage.width // 4
            return [conv(channels_in, inner, 1), conv(inner, inner, 3, stride), conv(inner, stage.width, 1)]


def block(spec: NetworkSpec, stage: Stage, channels_in: int, stride: int) -> Block:
    """Return one block of a stage.

    Raises:
        SpecError: the shortcut cannot join these widths.
    """
    branch = nn.Sequential()
    convs = convolutions(spec, stage, channels_in, stride)
    for number, conv in enumerate(convs, 1):
        branch.add_module(f"conv{number}", conv)
        append(branch, f"norm{number}", normalisation(spec, conv.out_channels))
        if number < len(convs):
            branch.add_module(f"act{number}", activation(spec))
    around = shortcut(
        spec.block.shortcut,
        channels_in,
        stage.width,
        stride,
        normalisation(spec, stage.width),
        spec.block.bias,
    )
    return Block(nn.Identity(), branch, around, activation(spec))
