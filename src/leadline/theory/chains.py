"""Measure the activations and gradients of chains by layer with autograd, to compare them with the closed form.

`chain_forms` has the equations. Here, a chain is a network of PyTorch layers that is run forward and backward in single
and in double precision; underflow and overflow are reported with each value.
"""

import math
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from leadline.theory.chain_forms import (
    QUANTITIES,
    Chain,
    ChainActivation,
    ChainShortcut,
    Kind,
    closed_form,
    ends,
    orthogonal,
)

if TYPE_CHECKING:
    import pandas as pd

Range = Literal["normal", "subnormal", "zero", "overflow"]

_MODULES: dict[ChainActivation, type[nn.Module]] = {
    "linear": nn.Identity,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "relu": nn.ReLU,
}


class ChainNetwork(nn.Module):
    """A chain as a module of PyTorch layers whose separate weights have equal values."""

    def __init__(self, chain: Chain, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        channels, _, taps = chain.shape
        self.shortcut_factor, self.branch_factor = chain.factors
        self.activation = _MODULES[chain.activation]()
        values = torch.from_numpy(chain.weight * orthogonal(chain)).to(dtype)
        layer: nn.Linear | nn.Conv1d
        if chain.kind == "convolutional":
            layer = nn.Conv1d(channels, channels, taps, padding=1, padding_mode="circular", bias=False, device="meta")
        else:
            layer, values = nn.Linear(channels, channels, bias=False, device="meta"), values[:, :, 0]
        layer.weight = nn.Parameter(values)
        self.layers = nn.ModuleList(deepcopy(layer) for _ in range(chain.layers))

    def forward(self, input: Float[Tensor, "batch *state"]) -> list[Float[Tensor, "batch *state"]]:
        """Return the activations a_0 to a_l, including the input."""
        states = [input]
        for layer in self.layers:
            branch = self.activation(layer(states[-1]))
            # without a shortcut, do not add zero times a possible infinity
            states.append(
                self.shortcut_factor * states[-1] + self.branch_factor * branch
                if self.shortcut_factor
                else branch
                if self.branch_factor == 1
                else self.branch_factor * branch
            )
        return states


@dataclass(frozen=True, eq=False)
class Measured:
    """Results of autograd in one precision, with one row per quantity in `QUANTITIES` and one column per layer."""

    log10: Float[np.ndarray, "quantities layers"]  # of the norm; -inf: 0, NaN: not finite
    ranges: tuple[tuple[Range, ...], ...]


@dataclass(frozen=True, eq=False)
class ChainResult:
    """Norms by layer: |a_n|, |dL/da_n| and |dL/dW_n| (Frobenius) for n = 1 to l, as log10.

    If a value is measured as `zero` although its closed form is within the range of the precision, an intermediate
    result has underflowed: a factor was too small, or a saturated derivative such as 1 - tanh(z)^2 was rounded to 0.
    """

    chain: Chain
    closed: Float[np.ndarray, "quantities layers"]
    float32: Measured
    float64: Measured

    def frame(self) -> "pd.DataFrame":
        """Return one row per quantity and layer.

        Columns: layer (from 1 at the input), quantity, log10_closed, log10_float32, float32, log10_float64, float64.
        The columns float32 and float64 contain `normal`, `subnormal` (reduced precision), `zero` (the logarithm is
        -inf) or `overflow` (infinite or NaN, or a gradient through such activations; the logarithm is NaN).
        """
        import pandas as pd

        layers = self.chain.layers
        return pd.DataFrame(
            {
                "layer": np.tile(np.arange(1, layers + 1), len(QUANTITIES)),
                "quantity": np.repeat(QUANTITIES, layers),
                "log10_closed": self.closed.ravel(),
                "log10_float32": self.float32.log10.ravel(),
                "float32": [state for row in self.float32.ranges for state in row],
                "log10_float64": self.float64.log10.ravel(),
                "float64": [state for row in self.float64.ranges for state in row],
            }
        )

    @property
    def gradient(self) -> str:
        """The norm of the loss's gradient at the first layer over that at the last, by the closed form."""
        return _power(self.closed[QUANTITIES.index("activation-gradient"), 0])

    @property
    def failures(self) -> tuple[str, ...]:
        """What float32 cannot represent, and at which layers."""
        return tuple(
            f"the {quantity.replace('-', ' ')} {what} in float32 at {_layers(found)}"
            for state, what in (("zero", "is 0"), ("overflow", "is not finite"), ("subnormal", "has lost digits"))
            for quantity, own in zip(QUANTITIES, self.float32.ranges, strict=True)
            if (found := [layer for layer, each in enumerate(own, 1) if each == state])
        )

    @property
    def deviations(self) -> dict[str, str]:
        """Precision -> the largest deviation of a measured value from the closed form, where it has any value."""
        deviations = {}
        for name, measured in (("float32", self.float32), ("float64", self.float64)):
            normal = np.array(measured.ranges) == "normal"
            if normal.any():
                largest = np.abs(measured.log10[normal] - self.closed[normal]).max()
                words = f"{math.expm1(largest * math.log(10)):.2g} of the value"
                deviations[name] = words if largest < 0.3 else f"a factor of {_power(largest)}"
        return deviations

    def words(self) -> str:
        """Return a sentence with the gradient at the first layer, the failures of float32 and the largest deviation."""
        said = [f"{self.chain}: |dL/da_1| = {self.gradient} |dL/da_{self.chain.layers}|", *self.failures]
        said += [f"largest deviation in {name}: {deviation}" for name, deviation in self.deviations.items()]
        return "; ".join(said)


def chain(
    weight: float,
    layers: int,
    *,
    kind: Kind = "scalar",
    activation: ChainActivation = "linear",
    shortcut: ChainShortcut = "none",
    shortcut_factor: float | None = None,
    branch_factor: float | None = None,
    width: int = 16,
    positions: int = 16,
    seed: int = 0,
) -> ChainResult:
    """Measure a chain's activations and gradients by layer in both precisions, and compute their closed form.

    In chaotic chains (an activation, large |W|, no shortcut), rounding errors grow until the measured activations
    differ from those of the closed form; the two then agree only in how fast gradients grow.

    Args:
        weight: W; negative for a scalar chain that changes sign.
        layers: number of layers l.
        kind: scalar, dense or convolutional.
        activation: phi.
        shortcut: none, identity or scaled.
        shortcut_factor: alpha of `scaled`; None: 1.
        branch_factor: beta of `scaled`; None: 1 / layers.
        width: units of a dense chain, or channels of a convolutional one.
        positions: number of positions of a convolutional chain, which is periodic.
        seed: seed of the orthogonal map, the input and the direction of dL/da_l.

    Raises:
        SpecError: see `Chain`.
    """
    made = Chain(weight, layers, kind, activation, shortcut, shortcut_factor, branch_factor, width, positions, seed)
    return ChainResult(made, closed_form(made), measure(made, torch.float32), measure(made, torch.float64))


# --- measured


def measure(chain: Chain, dtype: torch.dtype) -> Measured:
    """Run a chain forward and backward once, and return the norms and their ranges."""
    model = ChainNetwork(chain, dtype)
    entering, leaving = (
        torch.from_numpy(state[None] if chain.kind == "convolutional" else state.T).to(dtype) for state in ends(chain)
    )
    states = model(entering.requires_grad_())
    weights = [layer.weight for layer in model.layers]
    # the loss is linear in the output, so its gradient there is the chosen direction
    grads = torch.autograd.grad(states[-1], [*states[1:], *weights], leaving)
    tensors = (states[1:], grads[: chain.layers], grads[chain.layers :])
    judged = [[_norm_and_range(tensor.detach()) for tensor in row] for row in tensors]
    if chain.activation != "linear" and any(state.isnan().any() for state in states):
        # ReLU has slope 0 at NaN, so the gradients look valid but are not
        judged[1:] = [[(math.nan, "overflow")] * chain.layers] * 2
    return Measured(
        np.array([[norm for norm, _ in row] for row in judged]),
        tuple(tuple(state for _, state in row) for row in judged),
    )


def _norm_and_range(values: Tensor) -> tuple[float, Range]:
    """Return log10 of the norm of a tensor, and the range of its largest element."""
    largest = values.abs().max().item()
    if not math.isfinite(largest):
        return math.nan, "overflow"
    if largest == 0:
        return -math.inf, "zero"
    # squares of small numbers would underflow even in double precision
    norm = math.log10(largest) + math.log10((values.double() / largest).norm().item())
    return norm, "normal" if largest >= torch.finfo(values.dtype).tiny else "subnormal"


# --- words


def _power(log10: float) -> str:
    if math.isinf(log10):
        return "0" if log10 < 0 else "infinity"
    return f"{10**log10:.4g}" if abs(log10) < 4 else f"10^{log10:.2f}"


def _layers(found: list[int]) -> str:
    first, last = found[0], found[-1]
    if len(found) == 1:
        return f"layer {first}"
    return f"layers {first} to {last}" if len(found) == last - first + 1 else f"{len(found)} layers"
