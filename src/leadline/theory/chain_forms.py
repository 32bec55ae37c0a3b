"""Chains of equal layers, and the closed form of their activations and gradients, in NumPy and in logarithms.

A chain has the same weight in every layer: a_n = alpha a_(n-1) + beta phi(W a_(n-1)) for n = 1 to l. The shortcut
`none` is alpha = 0, beta = 1; `identity` is alpha = beta = 1; `scaled` takes any factors. Linear chains then have

    dL/da_n = (alpha + beta W^T)^(l-n) dL/da_l    and    dL/dW_n = beta dL/da_n a_(n-1)^T,

so that gradients vanish where |alpha + beta W| < 1 and explode where it is above 1 (Hochreiter 1991; Bengio, Simard &
Frasconi 1994). With beta = 1/l, the product stays below (1 + |W|/l)^l < e^|W| at any depth. With an activation, beta
W^T becomes beta W^T phi'(z_n) at the activations of the input.

So that |W| has the same meaning for every kind, each layer is W times the same orthogonal map, and all of its singular
values are |W|. Closed forms are computed as a direction and the logarithm of its norm, in double precision, so that
they neither underflow nor overflow.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Complex, Float
from scipy.linalg import schur
from scipy.special import expit

from leadline.errors import SpecError, unknown
from leadline.seeds import INIT, stream

Kind = Literal["scalar", "dense", "convolutional"]
ChainActivation = Literal["linear", "tanh", "sigmoid", "relu"]
ChainShortcut = Literal["none", "identity", "scaled"]
Quantity = Literal["activation", "activation-gradient", "weight-gradient"]

QUANTITIES: tuple[Quantity, ...] = get_args(Quantity)
MOST_LAYERS = 10_000
MOST_NUMBERS = 50_000_000
"""Maximum total number of weights and activations of a chain: 400 MB per copy in double precision."""

_GREATEST = float(np.finfo(np.float32).max)
_LEAST = float(np.finfo(np.float32).tiny)

State = Float[np.ndarray, "channels positions"]
Kernel = Float[np.ndarray, "channels channels taps"]


@dataclass(frozen=True)
class Chain:
    """A chain of equal layers. See the module for its equation.

    `scalar` has one unit; `dense` has `width` units and a matrix; `convolutional` has `width` channels at `positions`
    periodic positions and kernels of size 3, which rotate the channels, shift each by -1, 0 or 1 and rotate them again.
    The input has a root mean square of 1 and dL/da_l a norm of 1; in a scalar chain, both are 1.

    Raises:
        SpecError: an unknown name, a number that is not finite or too small, a chain that is too large, or factors
            with a shortcut other than `scaled`.
    """

    weight: float
    layers: int
    kind: Kind = "scalar"
    activation: ChainActivation = "linear"
    shortcut: ChainShortcut = "none"
    shortcut_factor: float | None = None  # alpha of `scaled`; None: 1
    branch_factor: float | None = None  # beta of `scaled`; None: 1 / layers
    width: int = 16
    positions: int = 16
    seed: int = 0

    def __post_init__(self) -> None:
        names = (("kind", Kind), ("activation", ChainActivation), ("shortcut", ChainShortcut))
        for what, known in names:
            if (name := getattr(self, what)) not in get_args(known):
                raise SpecError(f"chain: {unknown(what, name, get_args(known))}")
        for what in ("layers", "width", "positions"):
            value = getattr(self, what)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise SpecError(f"chain: {what} {value!r}: expected a whole number of at least 1")
        if self.layers > MOST_LAYERS:
            raise SpecError(f"chain: layers {self.layers}: expected at most {MOST_LAYERS}; choose fewer layers")
        for what in ("weight", "shortcut_factor", "branch_factor"):
            value = getattr(self, what)
            if value is not None and not (isinstance(value, int | float) and abs(value) <= _GREATEST):
                raise SpecError(f"chain: {what} {value!r}: expected a number within the range of float32")
            if value and abs(value) < _LEAST:
                raise SpecError(f"chain: {what} {value!r}: expected 0, or a number within the normal range of float32")
            if what != "weight" and value is not None and self.shortcut != "scaled":
                raise SpecError(
                    f"chain: {what} {value:g} with shortcut {self.shortcut!r}: only 'scaled' has factors; choose it"
                )
        channels, positions, taps = self.shape
        if (numbers := self.layers * channels * (channels * taps + positions)) > MOST_NUMBERS:
            raise SpecError(
                f"chain: {numbers} weights and activations in {self.layers} {self.kind} layers of width {self.width}:"
                f" expected at most {MOST_NUMBERS}; choose fewer layers or a smaller width"
            )

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, positions and kernel size."""
        match self.kind:
            case "scalar":
                return 1, 1, 1
            case "dense":
                return self.width, 1, 1
            case "convolutional":
                return self.width, self.positions, 3

    @property
    def factors(self) -> tuple[float, float]:
        """Factors alpha of the shortcut and beta of the branch."""
        match self.shortcut:
            case "none":
                return 0.0, 1.0
            case "identity":
                return 1.0, 1.0
            case "scaled":
                alpha, beta = self.shortcut_factor, self.branch_factor
                return 1.0 if alpha is None else alpha, 1 / self.layers if beta is None else beta

    def __str__(self) -> str:
        words = {"none": "no shortcut", "identity": "identity shortcuts", "scaled": "scaled shortcuts"}[self.shortcut]
        if self.shortcut == "scaled":
            words += " ({:.4g} and {:.4g})".format(*self.factors)
        return f"{self.kind} {self.activation} chain of {self.layers} layers, W = {self.weight:g}, {words}"


# --- closed forms


def closed_form(chain: Chain) -> Float[np.ndarray, "quantities layers"]:
    """Return log10 of the norms of `QUANTITIES` by layer: by `power_form` for linear chains, else by `product_form`."""
    return power_form(chain) if chain.activation == "linear" else product_form(chain)


def power_form(chain: Chain) -> Float[np.ndarray, "quantities layers"]:
    """Return the closed form of a linear chain from powers of alpha + beta W, by the eigenvalues of W.

    An orthogonal map is normal: with its eigenvalues e^(i theta) and the coefficients c of a vector in its
    eigenvectors, |(alpha + beta W)^k c|^2 = sum |alpha + beta |W| e^(i theta)|^(2k) |c|^2. A periodic convolution is
    one matrix per frequency.
    """
    kernel, (entering, leaving), layers = orthogonal(chain), ends(chain), chain.layers
    alpha, beta = chain.factors
    shifts = np.exp(2j * np.pi * np.outer(np.fft.fftfreq(chain.shape[1]), _offsets(kernel)))
    pairs = [schur(matrix, output="complex") for matrix in np.einsum("oit,ft->foi", kernel, shifts)]
    vectors = np.array([vector for _, vector in pairs])
    values = alpha + beta * chain.weight * np.array([np.diag(triangle) for triangle, _ in pairs])
    forward, backward = (
        _powers(own, vectors, state, layers) for own, state in ((values, entering), (values.conj(), leaving))
    )
    weight_gradients = [
        math.log(abs(beta))
        + forward[n - 1][1]
        + backward[layers - n][1]
        + _log_norm(_outer(backward[layers - n][0], forward[n - 1][0], kernel))
        if beta
        else -math.inf
        for n in range(1, layers + 1)
    ]
    return np.array(
        [[log for _, log in forward[1:]], [log for _, log in backward[layers - 1 :: -1]], weight_gradients]
    ) / math.log(10)


def _powers(
    values: Complex[np.ndarray, "positions channels"],
    vectors: Complex[np.ndarray, "positions channels channels"],
    state: State,
    most: int,
) -> list[tuple[State, float]]:
    """Return M^k times a state for k = 0 to `most`, as directions and logarithms of norms."""
    parts = np.einsum("foi,of->fi", vectors.conj(), np.fft.fft(state, norm="ortho"))
    with np.errstate(divide="ignore"):
        logs, angles = np.log(np.abs(values)), np.angle(values)
        sizes, turns = np.log(np.abs(parts)), np.angle(parts)
    found = []
    for k in range(most + 1):
        grown = sizes + k * logs if k else sizes
        top = grown.max()
        if top == -math.inf:
            found.append((np.zeros_like(state), -math.inf))
            continue
        spectrum = np.einsum("foi,fi->of", vectors, np.exp(grown - top + 1j * (turns + k * angles)))
        direction = np.fft.ifft(spectrum, norm="ortho").real
        norm = float(np.linalg.norm(direction))
        found.append((direction / norm, top + math.log(norm)))
    return found


def product_form(chain: Chain) -> Float[np.ndarray, "quantities layers"]:
    """Return the closed form of any chain: the product of alpha + beta W^T phi'(z_n) at its activations.

    Vectors are represented by a direction and the logarithm of their norm.
    """
    kernel, (entering, leaving) = chain.weight * orthogonal(chain), ends(chain)
    alpha, beta = chain.factors
    states, slopes = [_split(entering)], []
    for _ in range(chain.layers):
        direction, log = states[-1]
        scale = log if math.isfinite(log) else 0.0
        z = _apply(kernel, direction)
        slopes.append(_log_slope(chain.activation, z, scale))
        # without a branch, a sigmoid over a shrinking state would give 0 times infinity
        branch = beta * _activate(chain.activation, z, scale) if beta else np.zeros_like(z)
        states.append(_split(alpha * direction + branch, scale))
    gradient = _split(leaving)
    gradients, weight_gradients = [gradient[1]], []
    for slope, (state, log) in zip(reversed(slopes), reversed(states[:-1]), strict=True):
        steepest = slope.max()
        pulled = beta * gradient[0] * np.exp(slope - steepest) if steepest > -math.inf else np.zeros_like(state)
        steepest = max(steepest, -1e300)  # finite, so that 0 times it is 0
        weight_gradients.append(gradient[1] + steepest + log + _log_norm(_outer(pulled, state, kernel)))
        back = _apply(kernel.transpose(1, 0, 2)[:, :, ::-1], pulled)
        if alpha:
            gradient = _split(alpha * gradient[0] + math.exp(steepest) * back, gradient[1])
        else:
            gradient = _split(back, gradient[1] + steepest)
        gradients.append(gradient[1])
    return np.array([[log for _, log in states[1:]], gradients[-2::-1], weight_gradients[::-1]]) / math.log(10)


def _activate(name: ChainActivation, z: State, log: float) -> State:
    """Return phi(z e^log) / e^log."""
    with np.errstate(over="ignore"):
        match name:
            case "linear":
                return z
            case "relu":
                return np.asarray(np.maximum(z, 0))
            case "tanh":  # equal to its argument in double precision if that is small enough
                return z if log < -40 else np.asarray(np.tanh(z * np.exp(log)) * np.exp(-log), dtype=np.float64)
            case "sigmoid":
                return np.asarray(expit(z * np.exp(log)) * np.exp(-log), dtype=np.float64)


def _log_slope(name: ChainActivation, z: State, log: float) -> State:
    """Return the logarithm of phi'(z e^log), accurate even if phi saturates."""
    with np.errstate(over="ignore"):
        size = np.abs(z) * np.exp(log)
    match name:
        case "linear":
            return np.zeros_like(z)
        case "relu":
            return np.where(z > 0, 0.0, -np.inf)
        case "tanh":  # 4 / (e^z + e^-z)^2
            return np.asarray(math.log(4) - 2 * (size + np.log1p(np.exp(-2 * size))))
        case "sigmoid":  # 1 / ((1 + e^z) (1 + e^-z))
            return np.asarray(-size - 2 * np.log1p(np.exp(-size)))


def _split(vector: State, log: float = 0.0) -> tuple[State, float]:
    """Return a vector times e^log as a direction and the logarithm of its norm."""
    norm = _log_norm(vector)
    return (vector / math.exp(norm), log + norm) if norm > -math.inf else (vector, -math.inf)


def _log_norm(vector: Float[np.ndarray, "..."]) -> float:
    largest = float(np.abs(vector).max())
    return math.log(largest) + math.log(float(np.linalg.norm(vector / largest))) if largest else -math.inf


# --- weights and inputs of a chain


def ends(chain: Chain) -> tuple[State, State]:
    """Return the input, of root mean square 1, and dL/da_l, of norm 1."""
    channels, positions, _ = chain.shape
    if chain.kind == "scalar":
        return np.ones((1, 1)), np.ones((1, 1))
    entering, leaving = (_normal(chain, name, (channels, positions)) for name in ("input", "gradient"))
    return entering * math.sqrt(entering.size) / np.linalg.norm(entering), leaving / np.linalg.norm(leaving)


def orthogonal(chain: Chain) -> Kernel:
    """Return the kernel of an orthogonal map: two rotations with a shift of each channel in between (see `Chain`)."""
    channels, _, taps = chain.shape
    if chain.kind == "scalar":
        return np.ones((1, 1, 1))
    first, second = (_rotation(chain, name, channels) for name in ("first", "second"))
    tap = np.arange(channels) % taps
    return np.stack([second[:, tap == t] @ first[tap == t] for t in range(taps)], axis=-1)


def _rotation(chain: Chain, name: str, size: int) -> Float[np.ndarray, "size size"]:
    q, r = np.linalg.qr(_normal(chain, name, (size, size)))
    return np.asarray(q * np.sign(np.diag(r)))  # uniform over all rotations: Mezzadri 2007


def _normal(chain: Chain, name: str, shape: tuple[int, int]) -> Float[np.ndarray, "rows columns"]:
    generator = np.random.default_rng(stream(chain.seed, INIT, "chain", name))
    return generator.standard_normal(shape)


def _offsets(kernel: Kernel) -> range:
    return range(-(kernel.shape[2] // 2), kernel.shape[2] // 2 + 1)


def _apply(kernel: Kernel, state: State) -> State:
    """Cross-correlate periodically, as a convolutional layer does."""
    return np.asarray(sum(kernel[:, :, t] @ np.roll(state, -by, axis=1) for t, by in enumerate(_offsets(kernel))))


def _outer(gradient: State, state: State, kernel: Kernel) -> Kernel:
    """Return the gradient of a kernel from the gradient of its output and its input."""
    return np.stack([gradient @ np.roll(state, -by, axis=1).T for by in _offsets(kernel)], axis=-1)
