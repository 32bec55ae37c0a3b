"""Mean-field theory of an actual network: each layer is represented by a population of units at every pixel.

After an addition and an activation, a signal is no longer Gaussian and follows no map of one variable. But the units of
a wide network are independent samples from one distribution, so thousands of samples represent a layer. A weight layer
draws a new Gaussian population, whose covariance follows from its fan-in, its initialisation and the second moments of
the previous population (Xiao et al. 2018, pixel by pixel, here with zero padding). Activations, additions and zero
padding act on each unit, so that shortcuts carry units on. Mean squared gradients are propagated backwards in the same
way (Schoenholz et al. 2017), through the slopes of each unit.
"""

import math
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

from leadline.errors import SpecError
from leadline.networks.modules.blocks import Block
from leadline.networks.modules.layers import Multiply, Scale, Shift, ZeroPad
from leadline.networks.modules.network import InputShape, Network
from leadline.networks.modules.shortcuts import Add
from leadline.specs import Initialisation

UNITS, FEWEST = 2**14, 16
"""Total units of all pixels, and minimum units per pixel."""

Population = Float[Tensor, "images units height width"]
Left = Float[Tensor, "images units rows columns"]  # a population after a module
Squares = Float[Tensor, "units height width"]  # squared gradients, mean over weights
Back = Callable[[Float[Tensor, "units rows columns"]], Squares]  # from the output of a module to its input

_FLOOR, _CEILING = 1e-140, 1e140  # so that products are finite
_ACTIVATIONS = (nn.ReLU, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Softplus)


class Walk:
    """Propagate a population through the modules of a network, and squared gradients backwards.

    Args:
        network: on any device, including the meta device; the values of its parameters are not used.
        spec: its initialisation.
        random: generator of the population.
    """

    def __init__(self, network: Network, spec: Initialisation, random: torch.Generator) -> None:
        self.spec = spec
        self.random = random
        self.channels = 0  # channels that the population represents
        self.weights: list[tuple[float, float]] = []  # sigma_w^2 and sigma_b^2 of each layer so far
        self._zeroed = {
            [module for module in block.branch.modules() if isinstance(module, _Weighted)][-1]
            for _, block in blocks_of(network)
            if spec.branch == "fixup"
        }

    def images(self, shape: InputShape, correlations: tuple[float, ...]) -> Population:
        """Return an image of mean 0 and variance 1, and one more image for each correlation with it."""
        self.channels, height, width = shape
        units = max(FEWEST, UNITS // (height * width))
        ones = torch.ones(1 + len(correlations), 1, height, width, dtype=torch.float64)
        products = torch.tensor(correlations, dtype=torch.float64)[:, None, None, None] * ones[1:]
        return self._gaussian(units, ones, products)

    def block(self, block: Block, x: Population) -> tuple[Left, Back]:
        """Propagate through a block: after(join(before(x), branch(before(x))))."""
        x, back_before = self.through(block.before, x)
        entered = self.channels
        y, back_branch = self.through(block.branch, x)
        if not isinstance(block.join, Add):
            out, back_after = self.through(block.after, y)
            return out, lambda squares: back_before(back_branch(back_after(squares)))
        y, back_scale = self.through(block.join.branch, y)
        # a projection is parallel to the branch, so its layer does not count
        self.channels, weights = entered, list(self.weights)
        path, back_path = self.through(block.join.path, x)
        self.weights = weights
        out, back_after = self.through(block.after, y + path)

        def back(squares: Float[Tensor, "units rows columns"]) -> Squares:
            squares = back_after(squares)
            return back_before(back_branch(back_scale(squares)) + back_path(squares))

        return out, back

    def through(self, module: nn.Module, x: Population) -> tuple[Left, Back]:
        """Propagate through a module.

        Raises:
            SpecError: the theory does not cover this kind of module.
        """
        match module:
            case nn.Sequential():
                backs: list[Back] = []
                for child in module:
                    x, back = self.through(child, x)
                    backs.insert(0, back)
                return x, lambda squares: _apply_all(backs, squares)
            case nn.Identity() | Shift() | nn.Flatten():  # vectors are images of one pixel
                return x, lambda squares: squares
            case Scale() | Multiply():
                factor = module.start if isinstance(module, Scale) else module.factor
                return factor * x, lambda squares: factor**2 * squares
            case ZeroPad():
                return self._through_padding(module, x)
            case nn.Conv2d() | nn.Linear():
                return self._through_weights(module, x)
            case _ if isinstance(module, _ACTIVATIONS):
                first = x[0].clone().requires_grad_()
                with torch.enable_grad():
                    (slopes,) = torch.autograd.grad(module(first).sum(), first)
                return module(x), lambda squares: slopes.square() * squares
        raise SpecError(f"mean-field theory does not cover {type(module).__name__}; choose a network without it")

    def _through_weights(self, module: nn.Conv2d | nn.Linear, x: Population) -> tuple[Left, Back]:
        out, inputs = module.weight.shape[:2]
        if isinstance(module, nn.Conv2d):
            area, stride, padding, groups = module.kernel_size, module.stride, module.padding, module.groups
        else:
            area, stride, padding, groups = (1, 1), (1, 1), (0, 0), 1
        variance, bias = variances(self.spec, inputs, out // groups, math.prod(area), out)
        kernel = torch.ones(1, 1, *area, dtype=torch.float64)
        alike = self.spec.name == "delta-orthogonal"  # layers act on single pixels, so all pixels are alike
        if alike:
            kernel = torch.zeros_like(kernel)
            kernel[0, 0, area[0] // 2, area[1] // 2] = 1
        self.weights.append((variance * inputs * float(kernel.sum()), bias))
        self.channels = out
        if module in self._zeroed:
            variance = 0.0
        squares, products = x.square().mean(1, keepdim=True), (x[:1] * x[1:]).mean(1, keepdim=True)
        both = nn.functional.conv2d(torch.cat([squares, products]), kernel, None, stride, padding)
        if alike:
            both = both.mean((2, 3), keepdim=True).expand_as(both)
        spread = variance * inputs * both + bias
        squares, products = spread[: len(x)], spread[len(x) :]
        entered = x.shape[1:]

        def back(gradient: Float[Tensor, "units rows columns"]) -> Squares:
            given = variance * (out // groups) * gradient.mean(0)[None, None]
            shape = (1, 1, *entered[1:])
            below: Tensor = conv2d_input(shape, kernel, given, stride, padding)  # type: ignore[no-untyped-call]
            return (below.mean() if alike else below[0]).expand(entered)

        return self._gaussian(x.shape[1], squares, products), back

    def _gaussian(
        self,
        units: int,
        squares: Float[Tensor, "images 1 height width"],
        products: Float[Tensor, "others 1 height width"],
    ) -> Population:
        """Return a population with these second moments, and products of the first image with each of the others."""
        height, width = squares.shape[-2:]
        if not bool(squares.any()):
            return torch.zeros(len(squares), units, height, width, dtype=torch.float64)
        roots = squares.sqrt()
        along = torch.nan_to_num(products / roots[:1] / roots[1:], nan=1.0).clamp(-1, 1)
        roots = roots.clamp(_FLOOR, _CEILING)
        first, second = self._normal(units, height, width), self._normal(units, height, width)
        # random correlations of the two would accumulate over layers
        second = second - first * (first * second).sum(1, keepdim=True) / first.square().sum(1, keepdim=True)
        second = second / second.square().mean(1, keepdim=True).sqrt()
        others = along * first + (1 - along.square()).sqrt() * second
        return roots * torch.cat([first, others])

    def _normal(self, units: int, height: int, width: int) -> Float[Tensor, "1 units height width"]:
        """Return normal numbers by stratified sampling: at every pixel, one from each of `units` quantile intervals."""
        shape = (1, units, height, width)
        order = torch.rand(shape, generator=self.random).argsort(1)
        places = (order + torch.rand(shape, generator=self.random, dtype=torch.float64)) / units
        drawn: Tensor = torch.special.ndtri(places.clamp(1e-15, 1 - 1e-15))
        return drawn

    def _through_padding(self, module: ZeroPad, x: Population) -> tuple[Left, Back]:
        stride, entered = module.stride, x.shape[1:]
        share = self.channels / (self.channels + module.padding)
        self.channels += module.padding
        x = x[:, :, ::stride, ::stride]
        kept = torch.rand(x.shape[1:], generator=self.random, dtype=torch.float64) < share

        def back(squares: Float[Tensor, "units rows columns"]) -> Squares:
            # divide by the share of units that represent input channels, because every input channel is carried on
            below = torch.zeros(entered, dtype=torch.float64)
            below[:, ::stride, ::stride] = kept * squares / share
            return below

        return x * kept, back


def variances(spec: Initialisation, inputs: int, outputs: int, area: int, rows: int) -> tuple[float, float]:
    """Return the variance of a weight and of a bias.

    Args:
        spec: the initialisation.
        inputs: input channels of a unit.
        outputs: output channels that read an input channel.
        area: area of the kernel.
        rows: units of the layer in all groups.
    """
    fan_in, fan_out = inputs * area, rows * area
    scale, _, form = spec.name.partition("-")
    squared_gain = spec.gain**2 if spec.gain is not None else 2.0 if scale == "he" else 1.0
    match scale:
        case "old":
            variance = squared_gain / (3 * fan_in)
        case "he" if form.endswith("fan-out"):
            variance = squared_gain / fan_out
        case "xavier":
            variance = squared_gain * 2 / (fan_in + fan_out)
        case "orthogonal":  # rows or columns of length 1, whichever are fewer
            variance = squared_gain / max(fan_in, rows)
        case "delta":
            variance = squared_gain / max(inputs, outputs)
        case _:
            variance = squared_gain / fan_in
    if spec.bias_std is not None:
        return variance, spec.bias_std**2
    return variance, 1 / (3 * fan_in) if scale == "old" else 0.0


def blocks_of(network: Network) -> Iterator[tuple[str, Block]]:
    """Return a network's blocks with their names, in the order of the forward pass."""
    return ((name, module) for name, module in network.named_modules() if isinstance(module, Block))


_Weighted = nn.Conv2d | nn.Linear


def _apply_all(backs: list[Back], squares: Float[Tensor, "units rows columns"]) -> Squares:
    for back in backs:
        squares = back(squares)
    return squares
