"""The small layers that blocks are made of: activation, normalisation, noise from named streams, scalars."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from leadline.errors import SpecError
from leadline.seeds import NOISE, stream
from leadline.specs.network import Activation, NetworkSpec

Maps = Float[Tensor, "batch channels *pixels"]  # no pixels in a fully-connected network
WeightLayer = nn.Conv2d | nn.Linear
NORMALISING = (nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm)

_ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky-relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
}


def activation(spec: NetworkSpec) -> nn.Module:
    """Return a fresh activation layer."""
    return _ACTIVATIONS[spec.activation]()


def normalisation(spec: NetworkSpec, channels: int) -> nn.Module:
    """Return a normalisation layer for feature maps of so many channels.

    Layer normalisation is over channels and pixels of an image. Group normalisation has 32 groups as in Wu & He 2018,
    or fewer where they would hold less than four channels: with one channel a group it is instance normalisation.
    """
    match spec.normalisation:
        case "none":
            return nn.Identity()
        case "batch":
            return nn.BatchNorm2d(channels) if spec.layers == "convolutional" else nn.BatchNorm1d(channels)
        case "layer":
            return nn.GroupNorm(1, channels)
        case "instance":
            return nn.GroupNorm(channels, channels)
        case "group":
            return nn.GroupNorm(math.gcd(32, channels, max(1, channels // 4)), channels)


class StandardisedConv2d(nn.Conv2d):
    """A convolution whose weights are standardised per output channel: Qiao et al. 2019, equations 1 to 3."""

    def forward(self, input: Maps) -> Float[Tensor, "batch wider *smaller"]:
        """Convolve with the standardised weights."""
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        weight = weight / (weight.square().mean((1, 2, 3), keepdim=True) + 1e-10).sqrt()
        out: Tensor = self._conv_forward(input, weight, self.bias)
        return out


def weight_layer(
    spec: NetworkSpec, channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1
) -> WeightLayer:
    """Return a convolution that keeps the image's size but for its stride, or a fully-connected layer.

    Raises:
        SpecError: where weights are standardised and a filter has a single one, which standardises to zero.
    """
    if spec.layers == "fully-connected":
        return nn.Linear(channels_in, channels_out, bias=spec.block.bias)
    if spec.weight_standardisation and channels_in // groups * kernel**2 == 1:
        raise SpecError(
            "weight_standardisation needs filters of two weights or more, but a 1x1 convolution of one channel has one,"
            " which it makes zero; use a larger kernel, more channels (a stem, fewer groups) or no standardisation"
        )
    kind = StandardisedConv2d if spec.weight_standardisation else nn.Conv2d
    return kind(channels_in, channels_out, kernel, stride, kernel // 2, groups=groups, bias=spec.block.bias)


def channels_of(layer: WeightLayer) -> tuple[int, int]:
    """Return how many channels go into a layer, and how many come out."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    return layer.in_channels, layer.out_channels


def prefix(spec: NetworkSpec) -> str:
    """Return what the names of a network's weight layers begin with."""
    return "conv" if spec.layers == "convolutional" else "linear"


class Noise:
    """What noisy layers draw: a pure function of the trial's seed, the step and the layer's name.

    Whoever trains sets seed and step before each step. A device that has only some rows of a batch has their draws as
    well, out of those for the whole batch.
    """

    def __init__(self) -> None:
        self.seed = 0
        self.step = 0
        self.first: int | None = None  # row of the whole batch; None: all rows are here
        self.rows = 0  # of the whole batch
        self.keeps = False  # whether a draw is the tensor that `redraw` fills, and not a new one
        self._kept: dict[tuple[str, tuple[int, ...]], Tensor] = {}

    def draw(self, name: str, shape: tuple[int, ...], device: torch.device) -> Tensor:
        """Return numbers in [0, 1); while draws are kept, the tensor that `redraw` fills."""
        if self.keeps and (name, shape) in self._kept:
            return self._kept[name, shape]
        drawn = torch.rand(shape, generator=self._generator(name, device), device=device)
        if self.keeps:
            self._kept[name, shape] = drawn
        return drawn

    def redraw(self) -> None:
        """Draw all that was kept, for the step that is set now."""
        for (name, shape), kept in self._kept.items():
            torch.rand(shape, generator=self._generator(name, kept.device), out=kept)

    def _generator(self, name: str, device: torch.device) -> torch.Generator:
        return torch.Generator(device).manual_seed(stream(self.seed, NOISE, self.step, name))


class Noisy(nn.Module):
    """A layer that draws; recomputing it in the same step repeats the draw."""

    def __init__(self) -> None:
        super().__init__()
        self.noise = Noise()
        self.name = ""

    def uniform(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Return numbers in [0, 1) on the device of `like`; the first dimension is that of the batch."""
        if like.is_meta:
            return torch.empty(shape, device=like.device)
        here, first = shape[0], self.noise.first
        if first is None:
            return self.noise.draw(self.name, shape, like.device)
        return self.noise.draw(self.name, (self.noise.rows, *shape[1:]), like.device)[first : first + here]


class Dropout(Noisy):
    """Zero each value at a rate, scale the others up (Srivastava et al. 2014)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Drop values while training."""
        if not self.training or self.rate == 0:
            return x
        return x * (self.uniform(tuple(x.shape), x) >= self.rate).to(x.dtype) / (1 - self.rate)

    def extra_repr(self) -> str:
        """Show the rate."""
        return f"rate={self.rate}"


class StochasticDepth(Noisy):
    """Drop the branch of each image at a rate while training; scale it by what survives when not.

    Huang et al. 2016, equations 2 and 5, with the draw per image instead of per batch.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Maps) -> Maps:
        """Drop whole images' branches."""
        if not self.training:
            return x * (1 - self.rate)
        return x * (self.uniform((len(x), *[1] * (x.ndim - 1)), x) >= self.rate).to(x.dtype)

    def extra_repr(self) -> str:
        """Show the rate."""
        return f"rate={self.rate}"


class Scale(nn.Module):
    """Multiply by one learned number (SkipInit: De & Smith 2020; ReZero: Bachlechner et al. 2020; Fixup)."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.start = start
        self.factor = nn.Parameter(torch.empty(()))

    def forward(self, x: Maps) -> Maps:
        """Scale."""
        return x * self.factor


class Shift(nn.Module):
    """Add one learned number, which starts at 0 (Fixup: Zhang et al. 2019, section 3.2)."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.empty(()))

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Shift."""
        return x + self.bias


class Multiply(nn.Module):
    """Multiply by a constant."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Maps) -> Maps:
        """Scale."""
        return x * self.factor

    def extra_repr(self) -> str:
        """Show the factor."""
        return f"factor={self.factor}"


class ZeroPad(nn.Module):
    """Identity with strided subsampling and zeros for the channels that the input lacks (option A); no parameters."""

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        self.padding = channels_out - channels_in
        self.stride = stride

    def forward(self, x: Maps) -> Float[Tensor, "batch wider *smaller"]:
        """Keep every stride-th pixel and append zero channels."""
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (*[0, 0] * (x.ndim - 2), 0, self.padding)) if self.padding else x

    def extra_repr(self) -> str:
        """Show what the shortcut does."""
        return f"padding={self.padding}, stride={self.stride}"


def append(sequence: nn.Sequential, name: str, module: nn.Module) -> None:
    """Append a module under a name, unless it does nothing."""
    if not isinstance(module, nn.Identity):
        sequence.add_module(name, module)
