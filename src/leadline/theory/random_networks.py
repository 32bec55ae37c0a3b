"""Measure variances, correlations and gradients of random networks by layer, to compare them with mean-field theory."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from leadline.errors import SpecError
from leadline.networks.modules.network import InputShape, build_network
from leadline.seeds import INIT, SUBSET, stream
from leadline.specs import NetworkSpec
from leadline.specs.network import Activation
from leadline.theory.meanfield import Floats, Point

FUNCTIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "leaky-relu": F.leaky_relu,
    "elu": F.elu,
    "gelu": F.gelu,
    "silu": F.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
}


MOST_WEIGHTS = 500_000_000
"""Maximum total number of weights of a random network: 2 GB, all of which backpropagation needs."""


@dataclass(frozen=True)
class Measured:
    """Measurements of random networks for two inputs of a given correlation; arrays [seeds, layers], float64."""

    q: Floats  # variance of the pre-activations over the units of a layer, mean of both inputs
    c: Floats  # correlation of the pre-activations of the two inputs
    gradient: Floats  # log10 of the norm of the gradient, relative to the last layer, for the first input


def measure(
    point: Point,
    depth: int,
    seeds: int,
    width: int = 1000,
    start: float = 1.0,
    correlation: float = 0.5,
    residual: bool = False,
) -> Measured:
    """Measure in random networks of `depth` layers what `meanfield.signal` and `meanfield.gradient` predict.

    Layer 1 of the two inputs has exactly the variance `start` and the given correlation; layer l + 1 is W phi(layer l)
    + b, plus layer l itself with `residual`. The gradient is that of a random linear function of the last layer.

    Args:
        point: activation, sigma_w and sigma_b.
        depth: number of layers, including the first.
        seeds: number of networks, with seeds from 0.
        width: units per layer.
        start: variance of the first layer.
        correlation: correlation of the two inputs in the first layer.
        residual: whether layers are blocks x + W phi(x) + b.

    Raises:
        SpecError: fewer than 2 layers, 1 seed or 3 units.
    """
    for name, value, least in (("depth", depth, 2), ("seeds", seeds, 1), ("width", width, 3)):
        if value < least:
            raise SpecError(f"{name} {value}: expected a whole number of {least} or more")
    if depth * width**2 > MOST_WEIGHTS:
        raise SpecError(
            f"width {width}, depth {depth}: {depth * width**2:,} weights; expected at most {MOST_WEIGHTS:,} in a"
            " network; choose narrower or fewer layers"
        )
    rows = [_one(point, depth, width, start, correlation, residual, seed) for seed in range(seeds)]
    return Measured(*(np.stack(column) for column in zip(*rows, strict=True)))


def _one(
    point: Point, depth: int, width: int, start: float, correlation: float, residual: bool, seed: int
) -> tuple[Floats, Floats, Floats]:
    phi = FUNCTIONS[point.activation]
    layers = [_inputs(width, start, correlation, seed).requires_grad_()]
    for number in range(1, depth):
        draw = torch.Generator().manual_seed(stream(seed, INIT, "mean-field", number))
        weight = torch.randn(width, width, generator=draw) * (point.sigma_w / math.sqrt(width))
        bias = torch.randn(width, generator=draw) * point.sigma_b
        # weights in single precision, the same for both inputs
        new = F.linear(phi(layers[-1]), weight, bias)
        layers.append(layers[-1] + new if residual else new)
    draw = torch.Generator().manual_seed(stream(seed, INIT, "mean-field", "output"))
    output = layers[-1][0] @ torch.randn(width, generator=draw)
    gradients = torch.autograd.grad(output, layers)
    norms = np.array([float(gradient[0].double().norm()) for gradient in gradients])
    both = [layer.detach().double() for layer in layers]
    squares = np.array([float(layer.square().mean()) for layer in both])
    products = np.array([float((layer[0] * layer[1]).mean()) for layer in both])
    sizes = np.array([float(layer[0].square().mean() * layer[1].square().mean()) for layer in both])
    with np.errstate(divide="ignore", invalid="ignore"):
        return squares, products / np.sqrt(sizes), np.log10(norms / norms[-1])


def _inputs(width: int, start: float, correlation: float, seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(stream(seed, SUBSET, "mean-field"))
    pair = torch.linalg.qr(torch.randn(width, 2, generator=draw, dtype=torch.float64)).Q.T * math.sqrt(width * start)
    second = correlation * pair[0] + math.sqrt(max(0.0, 1 - correlation**2)) * pair[1]
    return torch.stack([pair[0], second]).float()


def batch_norm_gradients(
    activation: Activation, depth: int, seed: int, width: int = 1000, images: int = 1000, block: int = 0
) -> Floats:
    """Return log10 of the gradient norm at the input of each layer, relative to the last, with batch normalisation.

    Layers are W phi(BN(x)); with `block` >= 1, residual blocks have that many layers, and depth counts blocks. Weights
    have the variance of He et al. 2015, without biases. The loss is a different random linear function of each image,
    so that the gradients of images are independent.

    Args:
        activation: phi.
        depth: number of layers or blocks.
        seed: seed of the weights and inputs.
        width: units per layer.
        images: batch size; images are independent and normally distributed.
        block: layers per residual block; 0: a plain network.

    Raises:
        SpecError: fewer than 2 layers, or fewer than 2 images.
    """
    if depth < 2 or images < 2:
        raise SpecError(f"depth {depth}, images {images}: expected 2 or more of each")
    phi = FUNCTIONS[activation]
    draw = torch.Generator().manual_seed(stream(seed, INIT, "batch-norm"))
    x = torch.randn(images, width, generator=draw).requires_grad_()
    layers = [x]
    for _ in range(depth):
        y = layers[-1]
        for _ in range(max(block, 1)):
            weight = torch.randn(width, width, generator=draw) * math.sqrt(2 / width)
            y = F.linear(phi(F.batch_norm(y, None, None, training=True)), weight)
        layers.append(layers[-1] + y if block else y)
    output = (layers[-1] * torch.randn(images, width, generator=draw)).sum()
    norms = np.array([float(gradient.double().norm()) for gradient in torch.autograd.grad(output, layers)])
    return np.asarray(np.log10(norms / norms[-1]))


@dataclass(frozen=True)
class MeasuredBlocks:
    """Measurements of a network at initialisation for images of independent normal pixels; arrays [seeds, blocks]."""

    second_moment: Floats  # of each block's output, over images, channels and pixels
    gradient: Floats  # log10 of the norm of each block's gradient, relative to the last block


def measure_blocks(
    spec: NetworkSpec, input_shape: InputShape = (3, 32, 32), seeds: int = 5, images: int = 4
) -> MeasuredBlocks:
    """Build a network as for training and measure what `predict_depth` predicts for its blocks.

    The gradient is that of a random linear function of the classifier's input, different for each image.

    Args:
        spec: a network without normalisation.
        input_shape: channels, height, width of an image.
        seeds: number of networks, with seeds from 0.
        images: number of normally distributed images per network.

    Raises:
        SpecError: fewer than 1 network or image, or the network does not accept images of this shape.
    """
    if seeds < 1 or images < 1:
        raise SpecError(f"seeds {seeds}, images {images}: expected 1 or more of each")
    moments, norms = [], []
    for seed in range(seeds):
        network = build_network(spec, input_shape, 10, seed).double()
        draw = torch.Generator().manual_seed(stream(seed, SUBSET, "mean-field"))
        x = network.stem(torch.randn(images, *input_shape, generator=draw, dtype=torch.float64))
        outputs: list[Tensor] = []
        for stage in network.stages:
            for block in stage.children():
                x = block(x)
                outputs.append(x)
        # up to the linear layer, which Fixup initialises to 0
        for module in itertools.takewhile(lambda module: not isinstance(module, nn.Flatten), network.head):
            x = module(x)
        output = (x * torch.randn(x.shape, generator=draw, dtype=torch.float64)).sum()
        moments.append([float(each.detach().square().mean()) for each in outputs])
        norms.append([float(each.norm()) for each in torch.autograd.grad(output, outputs)])
    logs = np.log10(np.array(norms))
    return MeasuredBlocks(np.array(moments), logs - logs[:, -1:])
