"""Shortcuts: how a block's input reaches its addition. He et al. 2015, section 3.3: options A, B and C."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from leadline.errors import SpecError
from leadline.spec.network import Shortcut


class ZeroPad(nn.Module):
    """Identity with strided subsampling and zeros for the channels that the input lacks (option A); no parameters."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.padding = channels_out - channels_in
        self.stride = stride

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch wider rows columns"]:
        """Keep every stride-th pixel and append zero channels."""
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, 0, self.padding)) if self.padding else x

    def extra_repr(self) -> str:
        """Show what the shortcut does."""
        return f"padding={self.padding}, stride={self.stride}"


def projection(channels_in: int, channels_out: int, stride: int, normalise: nn.Module, bias: bool) -> nn.Sequential:
    """Return a 1x1 convolution and its normalisation (options B and C)."""
    sequence = nn.Sequential()
    sequence.add_module("conv", nn.Conv2d(channels_in, channels_out, 1, stride, bias=bias))
    if not isinstance(normalise, nn.Identity):
        sequence.add_module("norm", normalise)
    return sequence


def shortcut(
    kind: Shortcut, channels_in: int, channels_out: int, stride: int, normalise: nn.Module, bias: bool
) -> nn.Module | None:
    """Return the shortcut of one block; None for a plain block.

    Raises:
        SpecError: option A with fewer channels out than in.
    """
    same = channels_in == channels_out and stride == 1
    match kind:
        case "none":
            return None
        case "A":
            if channels_out < channels_in:
                raise SpecError(
                    f"shortcut A pads with zeros and cannot go from {channels_in} to {channels_out} channels;"
                    " use B or C, or let widths grow"
                )
            return nn.Identity() if same else ZeroPad(channels_in, channels_out, stride)
        case "B" if same:
            return nn.Identity()
        case "B" | "C":
            return projection(channels_in, channels_out, stride, normalise, bias)
