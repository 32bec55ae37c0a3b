"""Mean-field theory of deep random networks: how far signals and gradients propagate before training.

In a network with wide layers, independent weights of mean 0 and variance sigma_w^2 / fan-in, and biases of variance
sigma_b^2, the pre-activations are Gaussian over the units of a layer. They are described by two numbers: their variance
q, and the correlation c for two inputs. From layer to layer, each follows a map of one variable (Poole et al. 2016,
"Exponential expressivity in deep neural networks through transient chaos"; Schoenholz et al. 2017, "Deep information
propagation"; Xiao et al. 2018 for convolutions, where the fan-in includes the kernel).

Expectations are computed by Gauss-Legendre quadrature on intervals that end at the kink of rectifiers. Gauss-Hermite
nodes straddle the kink and are too coarse for saturating activations with a large variance: with 200 of them,
E[tanh^2] at q = 100 is 2% too large.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import erf, expit

from leadline.errors import SpecError, unknown
from leadline.specs.network import Activation

Floats = NDArray[np.float64]
Function = Callable[[Floats], Floats]
Phase = Literal["ordered", "critical", "chaotic"]

SMALLEST, LARGEST = 1e-24, 1e24
"""Variances at which every activation has reached its limits: the slope at 0 and the asymptotic slopes."""

CRITICAL = 1e-6
"""Maximum distance of chi_1 from 1 that counts as critical: depth scales beyond a million layers."""

_SQRT2, _ROOT_2PI = math.sqrt(2), math.sqrt(2 * math.pi)
_LEAK = 0.01  # PyTorch's default


def _gelu(x: Floats) -> Floats:
    return x * (1 + erf(x / _SQRT2)) / 2


def _gelu_slope(x: Floats) -> Floats:
    near = np.clip(x, -1e3, 1e3)  # the density is 0 outside, where its exponent would overflow
    return (1 + erf(x / _SQRT2)) / 2 + near * np.exp(-near * near / 2) / _ROOT_2PI


_FUNCTIONS: dict[Activation, tuple[Function, Function]] = {
    "relu": (lambda x: np.maximum(x, 0.0), lambda x: (x > 0).astype(float)),
    "leaky-relu": (lambda x: np.where(x > 0, x, _LEAK * x), lambda x: np.where(x > 0, 1.0, _LEAK)),
    "elu": (lambda x: np.where(x > 0, x, np.expm1(np.minimum(x, 0))), lambda x: np.exp(np.minimum(x, 0))),
    "gelu": (_gelu, _gelu_slope),
    "silu": (lambda x: x * expit(x), lambda x: expit(x) * (1 + x * expit(-x))),
    "tanh": (np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    "sigmoid": (expit, lambda x: expit(x) * expit(-x)),
    "softplus": (lambda x: np.logaddexp(x, 0), expit),
}


@dataclass(frozen=True)
class Point:
    """A point of the (sigma_w, sigma_b) plane and an activation, which define a layer in mean-field theory.

    Raises:
        SpecError: the activation is unknown, sigma_w is not from 1e-6 to 1e6, or sigma_b not from 0 to 1e6.
    """

    activation: Activation
    sigma_w: float
    sigma_b: float = 0.0

    def __post_init__(self) -> None:
        if self.activation not in _FUNCTIONS:
            raise SpecError(unknown("activation", self.activation, _FUNCTIONS))
        if not 1e-6 <= self.sigma_w <= 1e6:
            raise SpecError(f"sigma_w {self.sigma_w}: expected a number from 1e-6 to 1e6, such as 1.5")
        if not 0 <= self.sigma_b <= 1e6:
            raise SpecError(f"sigma_b {self.sigma_b}: expected a number from 0 to 1e6, such as 0.1")

    def __str__(self) -> str:
        return f"{self.activation}, sigma_w = {self.sigma_w:.4g}, sigma_b = {self.sigma_b:.4g}"


@dataclass(frozen=True)
class Fixed:
    """Fixed points of the maps, and the depth scales of Schoenholz et al. 2017.

    A depth scale is the number of layers in which a distance decreases (a squared gradient: decreases or increases) by
    a factor of e.
    """

    q: float  # variance, possibly 0 or infinite
    c: float  # correlation of two inputs
    chi_1: float  # factor of the squared gradient norm per layer, backwards
    xi_q: float  # depth scale of the variance
    xi_c: float  # depth scale of the correlation: how deep differences between inputs propagate
    xi_gradient: float  # depth scale of the squared gradient norm, vanishing or exploding
    phase: Phase


def variance_map(point: Point, q: float | Floats) -> Floats:
    """Return V(q) = sigma_w^2 E[phi(sqrt(q) z)^2] + sigma_b^2, z normal: Poole et al. 2016."""
    phi, _ = _FUNCTIONS[point.activation]
    return np.asarray(point.sigma_w**2 * mean(lambda x: phi(x) ** 2, q) + point.sigma_b**2)


def variance_slope(point: Point, q: float) -> float:
    """Return V'(q); by Stein's lemma sigma_w^2 E[phi phi' z] / sqrt(q), which needs no second derivative."""
    phi, slope = _FUNCTIONS[point.activation]
    q = _clip(q)
    found = mean(lambda x: phi(x) * slope(x) * x, q) / q
    if point.activation in ("sigmoid", "softplus") and q < 1e-6:
        # phi(0) is not 0, so the integral suffers from cancellation; use phi'^2 + phi phi'' instead
        curvature = 0.0 if point.activation == "sigmoid" else 0.25
        found = slope(np.zeros(1))[0] ** 2 + phi(np.zeros(1))[0] * curvature
    return float(point.sigma_w**2 * found)


def covariance_map(point: Point, q: float, c: float) -> float:
    """Return sigma_w^2 E[phi(u) phi(v)] + sigma_b^2 for u, v of variance q and correlation c: Poole et al. 2016."""
    phi, _ = _FUNCTIONS[point.activation]
    return point.sigma_w**2 * mean_of_two(phi, q, c) + point.sigma_b**2


def correlation_map(point: Point, q: float, c: float) -> float:
    """Return the next layer's correlation, the covariance over V(q); at the fixed point q* this is C(c)."""
    q = _clip(q)
    return covariance_map(point, q, c) / float(variance_map(point, q))


def chi(point: Point, q: float | Floats) -> Floats:
    """Return sigma_w^2 E[phi'(sqrt(q) z)^2]; chi_1 if q is the fixed point: Poole et al. 2016."""
    _, slope = _FUNCTIONS[point.activation]
    return np.asarray(point.sigma_w**2 * mean(lambda x: slope(x) ** 2, q))


def fixed_variance(point: Point, start: float = 1.0) -> float:
    """Return the limit of iterating V from `start`: finite, 0 or infinite.

    V increases with q for every activation here, so that iterates are monotonic and the first crossing is the limit. If
    every q is fixed, as for ReLU with sigma_w^2 = 2 and sigma_b = 0, the limit is `start` itself.
    """
    _check_start(start)
    squares, grid = _mean_squares(point.activation)

    def gap(q: float) -> float:
        return float(variance_map(point, q)) - q

    here = gap(start)
    if abs(here) <= 1e-9 * start:
        return start
    gaps = point.sigma_w**2 * squares + point.sigma_b**2 - grid
    beyond = grid > start if here > 0 else grid < start
    crossed = np.flatnonzero(beyond & ((gaps <= 0) if here > 0 else (gaps >= 0)))
    if not len(crossed):
        return math.inf if here > 0 else 0.0
    far = int(crossed[0] if here > 0 else crossed[-1])
    near = max(start, float(grid[far - 1])) if here > 0 else min(start, float(grid[far + 1]))
    ends = [near, float(grid[far])]
    for end in ends:
        if abs(gap(end)) <= 1e-13 * end:  # a fixed point on the grid, where the sign depends on rounding
            return end
    return float(brentq(gap, ends[0], ends[1], rtol=1e-13, xtol=1e-300))


def fixed_point(point: Point, start: float = 1.0) -> Fixed:
    """Return the fixed points of both maps, chi_1 and the depth scales for a variance `start` of the first layer."""
    q = fixed_variance(point, start)
    chi_1 = float(chi(point, q))
    at = _clip(q)
    # if q goes to 0 or infinity, correlations follow the map of the ratio of covariance and variance
    steepness = chi_1 * at / float(variance_map(point, at))
    c = _fixed_correlation(point, at, steepness)
    rate = steepness if c == 1.0 else _correlation_slope(point, at, c)
    return Fixed(
        q=q,
        c=c,
        chi_1=chi_1,
        xi_q=math.inf if math.isinf(q) else depth_scale(variance_slope(point, q)),
        xi_c=depth_scale(rate),
        xi_gradient=depth_scale(chi_1),
        phase="critical" if abs(chi_1 - 1) <= CRITICAL else "ordered" if chi_1 < 1 else "chaotic",
    )


def depth_scale(factor: float) -> float:
    """Return the number of layers in which a quantity with this factor per layer changes by a factor of e."""
    if factor <= 0:
        return 0.0
    log = abs(math.log(factor))
    return math.inf if log <= CRITICAL else 1 / log


def edge_of_chaos(activation: Activation, q: Floats) -> tuple[Floats, Floats]:
    """Return sigma_w and sigma_b for which q is the fixed point and chi_1 = 1; NaN if there are none.

    For tanh, this is a curve in the plane, parametrised by q (Poole et al. 2016). For ReLU, it is the same point for
    every q: sigma_w^2 = 2, sigma_b = 0, the initialisation of He et al. 2015.
    """
    unit = Point(activation, 1.0)
    weight = 1 / chi(unit, q)
    bias = q - weight * variance_map(unit, q)
    bias = np.where(np.abs(bias) < 1e-12 * q + 1e-18, 0.0, bias)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.sqrt(np.where(bias < 0, np.nan, weight))), np.asarray(np.sqrt(bias))


def signal(
    point: Point, depth: int, start: float = 1.0, correlation: float = 0.5, residual: bool = False
) -> tuple[Floats, Floats]:
    """Return q and c of layers 1 to `depth`, for two inputs whose first layer has variance `start`.

    With `residual`, layers are blocks x + W phi(x) + b, whose variances and covariances add up: Yang & Schoenholz 2017,
    "Mean field residual networks", here with one weight matrix per block.

    Variances are clipped to the range from 1e-24 to 1e24.

    Raises:
        SpecError: depth below 1, a start outside that range, or a correlation outside [-1, 1].
    """
    _check_start(start)
    if depth < 1:
        raise SpecError(f"depth {depth}: expected a whole number of 1 or more")
    if not -1 <= correlation <= 1:
        raise SpecError(f"correlation {correlation}: expected a number from -1 to 1")
    q, c = [start], [correlation]
    for _ in range(depth - 1):
        kept = q[-1] if residual else 0.0
        variance = kept + float(variance_map(point, q[-1]))
        covariance = kept * c[-1] + covariance_map(point, q[-1], c[-1])
        q.append(_clip(variance))
        c.append(min(1.0, max(-1.0, covariance / variance)))
    return np.array(q), np.array(c)


def gradient(point: Point, q: Floats, residual: bool = False) -> Floats:
    """Return log10 of the gradient norm at layers with variances q, relative to the last of them.

    Backwards through a layer, the squared norm is multiplied by chi(q), through a residual block by 1 + chi(q):
    Schoenholz et al. 2017; Yang & Schoenholz 2017.
    """
    factors = chi(point, q[:-1]) + (1.0 if residual else 0.0)
    with np.errstate(divide="ignore"):
        logs = np.log10(factors) / 2
    return np.append(np.cumsum(logs[::-1])[::-1], 0.0)


def batch_norm_growth(activation: Activation) -> float:
    """Return the factor of the squared gradient norm per layer of a plain network with batch normalisation.

    It is E[phi'(z)^2] / Var[phi(z)] for z normal: before each activation, a unit has mean 0 and variance 1 over the
    batch, and the next normalisation divides by the batch variance of W phi, without the mean over images. For ReLU,
    it is pi / (pi - 1) = 1.467, as in Yang et al. 2019, "A mean field theory of batch normalization". It is never below
    1 (Poincare inequality), so gradients explode at any initialisation. It assumes wide layers, large batches of
    different images, scale 1 and shift 0.
    """
    phi, slope = _FUNCTIONS[Point(activation, 1.0).activation]
    variance = mean(lambda x: phi(x) ** 2, 1.0) - mean(phi, 1.0) ** 2
    return float(mean(lambda x: slope(x) ** 2, 1.0) / variance)


def batch_norm_residual_growth(activation: Activation, variance: float, layers: int = 2) -> float:
    """Return the factor of the squared gradient norm of one pre-activated residual block with batch normalisation.

    It is 1 + g^m / v for a branch of m layers, the factor g of a plain network, and an input whose batch variance is v
    times that of the branch's output. Since all branches have the same output variance, v increases by 1 per block (De
    & Smith 2020, "Batch normalization biases residual blocks towards the identity function"), and the product over L
    blocks grows like a power of L, not exponentially.

    Args:
        activation: activation of the branch.
        variance: v; about l in block l.
        layers: m.

    Raises:
        SpecError: a variance that is not above 0, or fewer than 1 layer.
    """
    if not (variance > 0 and layers >= 1):
        raise SpecError(f"variance {variance}, layers {layers}: expected a number above 0, a whole number of 1 or more")
    return 1 + batch_norm_growth(activation) ** layers / variance


# --- expectations


def mean(function: Function, q: float | Floats) -> Floats:
    """Return E[f(sqrt(q) z)] for z normal; f may have a kink or a jump at 0."""
    z, weight = _half_line()
    x = np.sqrt(np.clip(np.asarray(q, float), SMALLEST, LARGEST))[..., None] * z
    return np.asarray((function(x) + function(-x)) @ weight)


def mean_of_two(function: Function, q: float, c: float) -> float:
    """Return E[f(u) f(v)] for u, v normal with variance q and correlation c; f may have a kink or a jump at 0.

    In polar coordinates, u = r cos(t) and v = r cos(t - arccos(c)), so that both kinks lie on boundaries of sectors.
    """
    angle = math.acos(min(1.0, max(-1.0, c)))
    turn, share = _sector()
    radius, density = _radius()
    edges = (-math.pi / 2, angle - math.pi / 2, math.pi / 2, angle + math.pi / 2)
    widths = (angle, math.pi - angle, angle, math.pi - angle)
    angles = np.concatenate([edge + width * turn for edge, width in zip(edges, widths, strict=True)])
    weights = np.concatenate([width * share for width in widths]) / (2 * math.pi)
    length = math.sqrt(_clip(q)) * radius
    u, v = np.cos(angles)[:, None] * length, np.cos(angles - angle)[:, None] * length
    return float(weights @ (function(u) * function(v)) @ density)


@cache
def _legendre(edges: tuple[float, ...], order: int) -> tuple[Floats, Floats]:
    nodes, weights = np.polynomial.legendre.leggauss(order)
    low, high = np.array(edges[:-1])[:, None], np.array(edges[1:])[:, None]
    half = (high - low) / 2
    return (low + half * (nodes + 1)).ravel(), (half * weights).ravel()


@cache
def _half_line() -> tuple[Floats, Floats]:
    """Return positive nodes at every scale down to 1e-6, with weights that include the normal density."""
    z, weight = _legendre((0.0, *(2.0**power for power in range(-20, 1)), 1.5, 2.0, 3.0, 4.0, 5.5, 7.5, 10.0, 13.0), 8)
    return z, weight * np.exp(-z * z / 2) / _ROOT_2PI


@cache
def _radius() -> tuple[Floats, Floats]:
    r, weight = _legendre((0.0, 1 / 64, 1 / 16, 1 / 4, 1.0, 2.0, 3.0, 4.0, 6.0, 8.5, 12.0), 8)
    return r, weight * r * np.exp(-r * r / 2)


@cache
def _sector() -> tuple[Floats, Floats]:
    """Return nodes of the unit interval, dense at both ends, where steep activations bend."""
    rising = [0.0, *(2.0**power for power in range(-10, 0))]
    return _legendre((*rising, *(1 - edge for edge in rising[-2::-1])), 8)


@cache
def _mean_squares(activation: Activation) -> tuple[Floats, Floats]:
    grid = np.geomspace(1e-13, 1e13, 521)
    return variance_map(Point(activation, 1.0), grid), grid


def _fixed_correlation(point: Point, q: float, steepness: float) -> float:
    if steepness <= 1 + CRITICAL:
        return 1.0

    def gap(c: float) -> float:
        return correlation_map(point, q, c) - c

    # the map is convex from 0 to 1 and steeper than the diagonal at 1, so it crosses the diagonal once
    high = 1 - 1e-7
    if gap(high) >= 0:
        return 1.0
    return 0.0 if gap(0.0) <= 1e-12 else float(brentq(gap, 0.0, high, xtol=1e-12))


def _correlation_slope(point: Point, q: float, c: float) -> float:
    _, slope = _FUNCTIONS[point.activation]
    return point.sigma_w**2 * mean_of_two(slope, q, c) * q / float(variance_map(point, q))


def _clip(q: float) -> float:
    return min(max(q, SMALLEST), LARGEST)


def _check_start(start: float) -> None:
    if not SMALLEST <= start <= LARGEST:
        raise SpecError(f"start {start}: expected a variance from {SMALLEST:g} to {LARGEST:g}, such as 1.0")
