"""Shattered gradients: whether the gradients of nearby inputs still resemble one another after many layers."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn

from leadline.probes.blocks import Progress
from leadline.probes.hooks import Layers, choose_modules, forward_with_hooks
from leadline.probes.lanczos import Floats
from leadline.probes.state import ProbeError, generator, measurement_mode, prepare_batch, require_at_least

if TYPE_CHECKING:
    import pandas as pd


Form = Literal["plain", "residual", "residual-normalised"]


def expected_correlation(layers: int, form: Form, branch_scale: float = 1.0) -> float:
    """Return theory's correlation between gradients of two unlike inputs at initialisation.

    Each unit of a rectifier network is taken as active for half of the inputs, independently for two of them, and
    weights as drawn by He et al. A gradient that comes back through one layer keeps its variance, and two gradients
    half of their covariance. Hence for L layers (Balduzzi et al. 2017, theorems 1 to 3):

    - `plain`: 1 / 2^L;
    - `residual`, x + F(x) without normalisation: variance 2^L, covariance (3/2)^L, correlation (3/4)^L;
    - `residual-normalised`, x + b F(BN(x)): block l divides by the standard deviation of x, whose square is
      1 + b^2 (l - 1), so factors are 1 + s and 1 + s/2 with s = b^2 / (1 + b^2 (l - 1)); their ratios' product is
      about 1 / sqrt(1 + b^2 L).

    Args:
        layers: L, layers (blocks of one layer) that the gradient comes back through.
        form: of the network.
        branch_scale: b, of `residual-normalised`.
    """
    match form:
        case "plain":
            return float(0.5**layers)
        case "residual":
            return float(0.75**layers)
        case "residual-normalised":
            b2 = branch_scale**2
            share = b2 / (1 + b2 * np.arange(layers))
            return float(np.prod((1 + share / 2) / (1 + share)))


@dataclass(frozen=True)
class Shattered:
    """Gradients of one output along lines between images, with respect to what enters each place, compared.

    The covariance of two gradients is their inner product over their length, as in the paper, where a gradient's mean
    over initial weights is zero; it is averaged over the lines. The correlation is each line's cosine, averaged.
    """

    places: tuple[str, ...]  # in the order of the forward pass, the images first
    positions: Floats  # of the grid's points: 0 at a line's first image, 1 at its second
    covariance: Floats  # places x points x points; (output / input)^2
    correlation: Floats  # places x points x points
    slopes: Floats  # lines x points: derivative of the output along the line, per line's length
    gradient_rms: Floats  # places x points: root mean square over a gradient's numbers and the lines

    @property
    def mean_correlation(self) -> Floats:
        """Mean correlation between two different points, of each place; NaN where gradients are zero."""
        points = len(self.positions)
        return np.asarray(self.correlation[:, ~np.eye(points, dtype=bool)].mean(1))

    @property
    def by_distance(self) -> Floats:
        """Mean correlation of points that lie 0, 1, 2, ... steps apart: places x points."""
        points = len(self.positions)
        columns = [np.diagonal(self.correlation, lag, 1, 2).mean(1) for lag in range(points)]
        return np.stack(columns, 1)

    @property
    def autocorrelation(self) -> Floats:
        """Autocorrelation of the slopes at lags 0, 1, ..., points - 1, averaged over lines; the paper's figure 1.

        sum_t (s_t - m)(s_(t+lag) - m) / sum_t (s_t - m)^2, with m the line's mean. NaN: a slope that is constant.
        """
        centred = self.slopes - self.slopes.mean(1, keepdims=True)
        points = centred.shape[1]
        sums = [(centred[:, lag:] * centred[:, : points - lag]).sum(1) for lag in range(points)]
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray((np.stack(sums) / sums[0]).mean(1))

    def frame(self) -> "pd.DataFrame":
        """Return the correlation by distance: place, depth, blocks_to_output, distance, correlation.

        `distance` is a share of the line.
        """
        import pandas as pd

        count, points = len(self.places), len(self.positions)
        depth = np.arange(count)
        # the images and the first place's input are both as far from the output as there are places
        to_output = np.minimum(count - depth, count - 1)
        return pd.DataFrame(
            {
                "place": np.repeat(self.places, points),
                "depth": np.repeat(depth, points),
                "blocks_to_output": np.repeat(to_output, points),
                "distance": np.tile(self.positions - self.positions[0], count),
                "correlation": self.by_distance.ravel(),
            }
        )


def shattered(
    model: nn.Module,
    images: Tensor,
    *,
    points: int = 64,
    output: int | None = None,
    layers: Layers | None = None,
    chunk: int = 32,
    batch_statistics: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Shattered:
    """Compare gradients at points of the line between two images, or of several such lines.

    Depth within one network: a gradient with respect to what enters a place has come back through the places that
    follow it, so correlation against places left is the decay that theory speaks of (`expected_correlation`).
    Memory: the graph of `chunk` points, and one line's gradients: points times all places' numbers.

    Args:
        model: any module from images to one tensor.
        images: (2 x lines, ...), real numbers: each line runs from an image to the next.
        points: of each line's grid, both ends included.
        output: which of the model's outputs is differentiated; None: a random combination of them of length 1.
        layers: names or patterns of the places; None: the blocks, or every module without children.
        chunk: points at a time.
        batch_statistics: normalise by the statistics of the line's points, all of which are then taken at once.
            Before training this is the one to use: running statistics are then 0 and 1 still.
        seed: of the combination of outputs.
        progress: called with the chunks done and in all.

    Raises:
        ProbeError: an odd number of images, images that are not real numbers, no such output, or one that does not
            depend on them.
        SpecError: no such layer.
    """
    require_at_least("points", points, 2)
    require_at_least("chunk", chunk, 1)
    if not images.is_floating_point() or len(images) < 2 or len(images) % 2:
        raise ProbeError(
            f"{len(images)} images of {images.dtype}: expected an even number, in real numbers: pairs of ends"
        )
    size = points if batch_statistics else chunk
    total, done = len(images) // 2 * -(-points // size), 0
    covariances: list[Floats] = []
    correlations: list[Floats] = []
    slopes: list[Floats] = []
    names: tuple[str, ...] = ()
    with measurement_mode(model, seed, batch_statistics) as lent:
        ends = prepare_batch(lent, images).images
        chosen = choose_modules(lent, layers)
        grid = torch.linspace(0, 1, points, dtype=torch.float64).to(ends.device, ends.dtype)
        for first, second in zip(ends[::2], ends[1::2], strict=True):
            line = torch.lerp(first, second, grid.reshape(-1, *[1] * first.dim()))
            gathered: dict[str, list[Tensor]] = {}
            for part in torch.split(line, size):
                for name, gradient in _gradients(lent, part.clone(), chosen, output, seed).items():
                    gathered.setdefault(name, []).append(gradient)
                done += 1
                if progress is not None:
                    progress(done, total)
            names = tuple(gathered)
            grams, slope = [], np.zeros(points)
            for number, name in enumerate(names):
                # squares of gradients that have all but vanished leave single precision
                gradients = torch.cat(gathered.pop(name)).cpu().double()
                grams.append((gradients @ gradients.T / gradients.shape[1]).numpy())
                if number == 0:
                    slope = (gradients @ (second - first).flatten().cpu().double()).numpy()
            covariance = np.stack(grams)
            norms = np.sqrt(np.diagonal(covariance, 0, 1, 2))
            with np.errstate(divide="ignore", invalid="ignore"):
                correlations.append(covariance / (norms[:, :, None] * norms[:, None, :]))
            covariances.append(covariance)
            slopes.append(slope)
    covariance = np.mean(covariances, 0)
    return Shattered(
        places=names,
        positions=grid.cpu().double().numpy(),
        covariance=covariance,
        correlation=np.mean(correlations, 0),
        slopes=np.stack(slopes),
        gradient_rms=np.sqrt(np.diagonal(covariance, 0, 1, 2)),
    )


def _gradients(
    model: nn.Module, images: Tensor, modules: dict[str, nn.Module], output: int | None, seed: int
) -> dict[str, Tensor]:
    """Return the gradients of one output of each image, by place: images x numbers that enter it."""
    images.requires_grad_()
    entered: dict[str, Tensor] = {"images": images}

    def enter(name: str, x: Tensor) -> Tensor:
        if x.requires_grad:
            entered[name] = x
        return x.clone()

    result = forward_with_hooks(model, images, modules, enter)
    if not result.requires_grad:
        raise ProbeError("the model's output does not depend on the images through differentiable operations")
    flat = result.flatten(1) if result.dim() > 1 else result[:, None]
    outputs = flat.shape[1]
    if output is None:
        weights = torch.randn(outputs, generator=generator(seed, "shattered", "outputs"), dtype=torch.float64)
        weights = weights / weights.norm()
    elif -outputs <= output < outputs:
        weights = torch.nn.functional.one_hot(torch.tensor(output % outputs), outputs)
    else:
        raise ProbeError(f"output {output}: the model has {outputs}, numbered from 0")
    cotangent = weights.to(flat.device, flat.dtype).expand_as(flat)
    gradients = torch.autograd.grad(flat, list(entered.values()), cotangent, materialize_grads=True)
    return {name: gradient.detach().flatten(1) for name, gradient in zip(entered, gradients, strict=True)}
