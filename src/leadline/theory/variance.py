"""Predicted and measured second moments of activations and gradients by depth, for initialisations of plain stacks.

In a layer with weights of mean 0 and variance v, biases of variance v_b and inputs of second moment q, the second
moment before the activation is q_z = fan_in v q + v_b (LeCun et al. 1998; Glorot & Bengio 2010, equation 5), and
gradients of second moment g become fan_out v E[phi'(z)^2] g (equation 6 there; He et al. 2015, equation 13, for ReLU).
E[phi(z)^2] and E[phi'(z)^2] are q_z and 1 for a linear layer; q_z / 2 and 1/2 for ReLU and any symmetric z; for tanh,
they are computed for Gaussian z, as in wide layers (Poole et al. 2016). The old initialisation, uniform in
[-1/sqrt(k), 1/sqrt(k)] with k the fan-in, has v = 1/(3k): a linear layer multiplies both moments by 1/3, one with ReLU
by 1/6, so that after 20 layers a factor of 3e-16 is left.

Linear and ReLU predictions are expectations over independent symmetric weights and hold at any width, because changing
the sign of a weight does not change the terms in which it meets its own activation. (The exception, a layer whose w
units are all 0, has a probability of 2^-w.) Orthogonal weights are not independent, and tanh is not homogeneous: for
these, predictions are asymptotic in the width.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from leadline.analysis.stats import t_interval
from leadline.errors import SpecError, unknown
from leadline.networks.modules.init import initialise
from leadline.seeds import NOISE, stream
from leadline.specs.network import Initialisation, InitialisationName

if TYPE_CHECKING:
    import pandas as pd

StackActivation = Literal["linear", "relu", "tanh"]
Direction = Literal["forward", "backward"]

DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
MOST_WEIGHTS = 50_000_000
Moments = Float[np.ndarray, "directions layers"]

_MODULES: dict[StackActivation, Callable[[], nn.Module]] = {"linear": nn.Identity, "relu": nn.ReLU, "tanh": nn.Tanh}
# the trapezoidal rule converges exponentially here, and faster than Gauss-Hermite, which the poles of tanh slow down
# (Trefethen & Weideman 2014)
_NODES = np.linspace(-12, 12, 2401)
_DENSITY = np.exp(-(_NODES**2) / 2) / np.exp(-(_NODES**2) / 2).sum()


@dataclass(frozen=True)
class Stack:
    """A plain stack of layers, each followed by the activation: dense, or convolutional with circular padding.

    With circular padding, each pixel sees a whole kernel, and the closed form also holds at the border.

    Raises:
        SpecError: an unknown name, fewer than one layer, a width or kernel below 1, an even kernel, delta-orthogonal
            convolutions with decreasing widths, or too many weights.
    """

    initialisation: Initialisation
    activation: StackActivation
    widths: tuple[int, ...]  # units or channels of the input and of each layer
    kernel: int | None = None  # size of 2-D kernels; None: dense layers
    bias: bool = False  # 0 except with `old-uniform` or `bias_std`

    def __post_init__(self) -> None:
        if self.activation not in get_args(StackActivation):
            raise SpecError(f"stack: {unknown('activation', self.activation, get_args(StackActivation))}")
        if len(self.widths) < 2 or min(self.widths) < 1:
            raise SpecError(f"stack: widths {self.widths}: expected two or more numbers of at least 1")
        if self.kernel is not None and (self.kernel < 1 or self.kernel % 2 == 0):
            raise SpecError(f"stack: kernel {self.kernel}: expected an odd number of at least 1")
        if self.initialisation.identity:
            raise SpecError("stack: initialisation.identity copies channels, so weights have no single variance")
        if self.initialisation.name == "delta-orthogonal" and self.kernel is not None:
            for before, after in zip(self.widths[:-1], self.widths[1:], strict=True):
                if after < before:
                    raise SpecError(
                        f"stack: delta-orthogonal cannot go from {before} to {after} channels; use"
                        f" non-decreasing widths"
                    )
        if (
            weights := sum(a * b for a, b in zip(self.widths, self.widths[1:], strict=False)) * self.area
        ) > MOST_WEIGHTS:
            raise SpecError(
                f"stack: {weights} weights: expected at most {MOST_WEIGHTS}; choose fewer or narrower layers"
            )

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.widths) - 1

    @property
    def area(self) -> int:
        """Number of positions in a kernel."""
        return 1 if self.kernel is None else self.kernel**2

    def __str__(self) -> str:
        kind = "dense" if self.kernel is None else f"{self.kernel}x{self.kernel} convolutional"
        same = len(set(self.widths)) == 1
        width = f"width {self.widths[0]}" if same else f"widths {self.widths[0]} to {self.widths[-1]}"
        return f"{self.initialisation.name}, {self.activation}, {self.depth} {kind} layers of {width}"


def stack(
    name: InitialisationName,
    activation: StackActivation,
    depth: int,
    width: int,
    *,
    kernel: int | None = None,
    bias: bool = False,
    gain: float | None = None,
) -> Stack:
    """Return a stack of layers of one width.

    Args:
        name: name of the initialisation.
        activation: activation after every layer.
        depth: number of layers.
        width: units or channels per layer.
        kernel: size of 2-D kernels; None: dense layers.
        bias: whether layers have biases.
        gain: gain of the initialisation; None: its default.

    Raises:
        SpecError: see `Stack`.
    """
    for what, value in (("depth", depth), ("width", width)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise SpecError(f"stack: {what} {value!r}: expected a whole number of at least 1")
    if depth > MOST_WEIGHTS:  # checked before creating a tuple of widths
        raise SpecError(f"stack: depth {depth}: expected at most {MOST_WEIGHTS}; choose fewer layers")
    if name not in get_args(InitialisationName):
        raise SpecError(f"stack: {unknown('initialisation', name, get_args(InitialisationName))}")
    if gain is not None and not 0 < gain < math.inf:
        raise SpecError(f"stack: gain {gain!r}: expected a number above 0")
    return Stack(Initialisation(name=name, gain=gain), activation, (width,) * (depth + 1), kernel, bias)


# --- predicted


def weight_variance(initialisation: Initialisation, fan_in: int, fan_out: int, area: int = 1) -> float:
    """Return the variance of a weight; for delta-orthogonal, the mean over the kernel.

    Args:
        initialisation: name and gain.
        fan_in: input channels times the area of the kernel.
        fan_out: output channels times the area of the kernel.
        area: area of the kernel; 1 for a dense layer.
    """
    gain = initialisation.gain
    scale, _, form = initialisation.name.partition("-")
    match scale:
        case "old":  # the variance of a uniform distribution is a third of its squared bound
            return (gain or 1) ** 2 / (3 * fan_in)
        case "he":
            return (gain or math.sqrt(2)) ** 2 / (fan_out if form.endswith("fan-out") else fan_in)
        case "xavier":
            return (gain or 1) ** 2 * 2 / (fan_in + fan_out)
        case "lecun":
            return (gain or 1) ** 2 / fan_in
        case "orthogonal":  # the rows of (out, in x area), or its columns if these are fewer, have norm 1
            return (gain or 1) ** 2 / max(fan_in, fan_out // area)
        case _:
            return (gain or 1) ** 2 / max(fan_in, fan_out)


def bias_variance(initialisation: Initialisation, fan_in: int) -> float:
    """Return the variance of a bias."""
    if initialisation.bias_std is not None:
        return initialisation.bias_std**2
    return 1 / (3 * fan_in) if initialisation.name == "old-uniform" else 0.0


def predicted_variance(made: Stack) -> Moments:
    """Return the second moments by layer: of a_n, and of dL/da_n relative to dL/da_l, for n = 1 to l.

    The input has a second moment of 1. See the module for the equations and their assumptions.
    """
    forward, passed, q = [], [], 1.0
    for before, after in zip(made.widths[:-1], made.widths[1:], strict=True):
        fan_in, fan_out = before * made.area, after * made.area
        variance = weight_variance(made.initialisation, fan_in, fan_out, made.area)
        q_z = fan_in * variance * q + (bias_variance(made.initialisation, fan_in) if made.bias else 0)
        q, slope = _expectations(made.activation, q_z)
        forward.append(q)
        passed.append(fan_out * variance * slope)
    backward = np.cumprod([1.0, *passed[:0:-1]])[::-1]
    return np.array([forward, backward])


def _expectations(name: StackActivation, q: float) -> tuple[float, float]:
    """Return E[phi(z)^2] and E[phi'(z)^2] over z of mean 0 and variance q, Gaussian for tanh."""
    match name:
        case "linear":
            return q, 1.0
        case "relu":
            return q / 2, 0.5
        case "tanh":
            squares = np.tanh(math.sqrt(q) * _NODES) ** 2
            return float(_DENSITY @ squares), float(_DENSITY @ (1 - squares) ** 2)


# --- measured


@dataclass(frozen=True, eq=False)
class VarianceResult:
    """Second moments by layer, predicted and measured; a measured value is the mean over networks.

    `low` and `high` are its 95% interval (Student's t over networks), which is infinite for one network. Deep ReLU
    stacks are skewed: most networks lie below the mean and a few far above it, so that intervals from few networks
    have a lower coverage.
    """

    stack: Stack
    predicted: Moments
    measured: Moments
    low: Moments
    high: Moments
    networks: int

    def frame(self) -> "pd.DataFrame":
        """Return one row per direction and layer: layer (from 1), direction, predicted, measured, low, high."""
        import pandas as pd

        arrays = {"predicted": self.predicted, "measured": self.measured, "low": self.low, "high": self.high}
        return pd.DataFrame(
            {
                "layer": np.tile(np.arange(1, self.stack.depth + 1), len(DIRECTIONS)),
                "direction": np.repeat(DIRECTIONS, self.stack.depth),
                **{name: values.ravel() for name, values in arrays.items()},
                "networks": self.networks,
            }
        )

    def words(self) -> str:
        """Return a sentence with the second moments of the last activation and of the gradient at the first layer."""
        return (
            f"{self.stack}: forward {self.measured[0, -1]:.3g} of the input's second moment is left at the last layer"
            f" (predicted {self.predicted[0, -1]:.3g}); backward {self.measured[1, 0]:.3g} of the gradient's at the"
            f" first (predicted {self.predicted[1, 0]:.3g}); mean of {self.networks} networks"
        )


def variance(made: Stack, networks: int = 16, samples: int = 16, pixels: int = 8, seed: int = 0) -> VarianceResult:
    """Predict second moments and measure them in random networks.

    Args:
        made: the stack.
        networks: number of random networks.
        samples: number of Gaussian inputs per network.
        pixels: height and width of the input of a convolutional stack.
        seed: seed of the first network's weights, inputs and gradients; the others use the following seeds.

    Raises:
        SpecError: fewer than one network, sample or pixel.
    """
    for what, value in (("networks", networks), ("samples", samples), ("pixels", pixels)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise SpecError(f"stack: {what} {value!r}: expected a whole number of at least 1")
    if made.kernel is not None and pixels < made.kernel:
        raise SpecError(f"stack: pixels {pixels} with kernel {made.kernel}: expected at least as many; choose more")
    found = np.stack([measured_variance(made, samples, pixels, seed + network) for network in range(networks)])
    low, high = (np.full(found.shape[1:], edge) for edge in (-math.inf, math.inf))
    if networks > 1:
        low, high = t_interval(np.moveaxis(found, 0, -1))
    return VarianceResult(made, predicted_variance(made), found.mean(0), low, high, networks)


def measured_variance(made: Stack, samples: int = 16, pixels: int = 8, seed: int = 0) -> Moments:
    """Return the second moments by layer of one random network, in double precision."""
    model = _network(made, seed)
    shape = () if made.kernel is None else (pixels, pixels)
    entering, leaving = (
        torch.randn(
            samples,
            width,
            *shape,
            dtype=torch.float64,
            generator=torch.Generator().manual_seed(stream(seed, NOISE, name)),
        )
        for name, width in (("input", made.widths[0]), ("gradient", made.widths[-1]))
    )
    states = [entering.requires_grad_()]
    for layer in model:
        states.append(layer(states[-1]))
    grads = torch.autograd.grad(states[-1], states[1:], leaving)
    moments = [[_second_moment(tensor.detach()) for tensor in row] for row in (states[1:], grads)]
    result = np.array(moments)
    result[1] /= _second_moment(leaving)
    return result


def _network(made: Stack, seed: int) -> nn.Sequential:
    layers = []
    for before, after in zip(made.widths[:-1], made.widths[1:], strict=True):
        layer: nn.Module
        if made.kernel is None:
            layer = nn.Linear(before, after, bias=made.bias, device="meta", dtype=torch.float64)
        else:
            layer = nn.Conv2d(
                before,
                after,
                made.kernel,
                padding=made.kernel // 2,
                padding_mode="circular",
                bias=made.bias,
                device="meta",
                dtype=torch.float64,
            )
        layers.append(nn.Sequential(layer, _MODULES[made.activation]()))
    model = nn.Sequential(*layers).to_empty(device="cpu")
    initialise(model, made.initialisation, seed)
    return model.requires_grad_(False)


def _second_moment(values: Tensor) -> float:
    return values.square().mean().item()
