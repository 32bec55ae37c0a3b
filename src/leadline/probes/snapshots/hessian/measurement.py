"""The Hessian of the loss: its largest eigenvalues, its trace, and how its eigenvalues are spread."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from leadline.probes.blocks import Loss, Progress, cross_entropy
from leadline.probes.lanczos import Floats, Tridiagonal, lanczos, orthogonal
from leadline.probes.state import (
    Batch,
    generator,
    measurement_mode,
    output_of,
    prepare_batch,
    require_at_least,
    trainable,
)

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Hessian:
    """What Hessian-vector products say of the eigenvalues, in units of loss per weight squared.

    Lanczos sees a repeated eigenvalue once. An eigenvalue lies within its error of each value given, so an error of
    0 means exact.
    """

    parameters: int  # rows of the matrix
    images: int
    largest: Floats  # descending
    largest_error: Floats
    smallest: Floats  # ascending: the most negative first
    smallest_error: Floats
    steps: int  # Lanczos steps that these took
    trace: float  # NaN without random vectors
    trace_error: float  # standard error of that; NaN for fewer than two random vectors
    nodes: tuple[Floats, ...]  # one quadrature rule of each random vector: eigenvalues it sees ...
    weights: tuple[Floats, ...]  # ... and the share of all eigenvalues that each stands for; they sum to 1

    def density(self, points: int = 512, width: float | None = None) -> tuple[Floats, Floats]:
        """Return eigenvalues x and the density of the spectrum there, which integrates to 1 (per unit of x).

        Each node is drawn as a Gaussian, and the rules are averaged: Ghorbani et al. 2019, section 2.

        Args:
            points: of the grid.
            width: standard deviation of the Gaussians; None: a hundredth of the range.
        """
        if not self.nodes:
            return np.empty(0), np.empty(0)
        every = np.concatenate(self.nodes)
        low, high = float(every.min()), float(every.max())
        # a spectrum of one value has no range to take a share of
        sigma = width or 0.01 * (high - low) or 0.01 * abs(high) or 1.0
        x = np.linspace(low - 4 * sigma, high + 4 * sigma, points)
        share = np.concatenate(self.weights) / len(self.nodes)
        bumps = np.exp(-0.5 * ((x[:, None] - every) / sigma) ** 2) / (sigma * np.sqrt(2 * np.pi))
        return x, np.asarray(bumps @ share)

    def frame(self, points: int = 512) -> "pd.DataFrame":
        """Return quantity, index, x, value, error; `x` is the eigenvalue that a density is at, else NaN.

        Quantities: largest, smallest (eigenvalues), trace, density.
        """
        import pandas as pd

        x, density = self.density(points)
        nothing = np.nan
        rows = [
            *[
                ("largest", i, nothing, *pair)
                for i, pair in enumerate(zip(self.largest, self.largest_error, strict=True))
            ],
            *[
                ("smallest", i, nothing, *pair)
                for i, pair in enumerate(zip(self.smallest, self.smallest_error, strict=True))
            ],
            ("trace", 0, nothing, self.trace, self.trace_error),
            *[("density", i, at, value, nothing) for i, (at, value) in enumerate(zip(x, density, strict=True))],
        ]
        return pd.DataFrame(rows, columns=["quantity", "index", "x", "value", "error"])


def hessian(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    count: int = 3,
    steps: int = 40,
    tolerance: float = 1e-3,
    vectors: int = 4,
    trace_vectors: int = 30,
    loss: Loss = cross_entropy,
    chunk: int = 32,
    batch_statistics: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Hessian:
    """Measure the Hessian of the mean loss with respect to the parameters that are trained.

    Cost: at most steps x (1 + vectors) + trace_vectors Hessian-vector products, each about four forward passes over
    the images. Memory: `steps` + 2 vectors as long as the parameters are many, and the graph of the gradient of
    `chunk` images, which is kept when they are all there are. A piecewise linear network's own curvature is 0 almost
    everywhere: what is seen then is that of the loss and of products of weights.

    The trace is summed exactly over the space that Lanczos iteration reached for the eigenvalues, which holds the
    largest of them, and estimated only in what is orthogonal to it. This is how Hutch++ divides it (Meyer, Musco, Musco
    & Woodruff 2021), with a space that costs no further products. On two trained networks of 1,066 and 1,210
    parameters, 30 vectors left an error of 2.6% and 2.0% of the trace (root mean square of 40 draws); without the space
    5.1% and 6.7%, and with Hutch++'s own, found with 10 of the 30 products, 5.0% and 5.4%.

    Args:
        model: any module from images to one tensor.
        images: (images, ...).
        labels: (images,), or whatever `loss` takes.
        count: eigenvalues at each end of the spectrum; 0: none.
        steps: Lanczos steps at most, of the eigenvalues and of each random vector.
        tolerance: Lanczos stops once each of the `count` largest lies within this share of itself.
        vectors: random vectors of the density; 0: none.
        trace_vectors: random vectors of the trace; 0: none.
        loss: from outputs and labels to their mean over images.
        chunk: images at a time.
        batch_statistics: normalise by each chunk's own statistics.
        seed: of the random vectors.
        progress: called with the products done and the most there may be.

    Raises:
        ProbeError: no image, not as many labels, or no parameter that requires a gradient.
    """
    require_at_least("count", count, 0)
    require_at_least("vectors", vectors, 0)
    require_at_least("trace_vectors", trace_vectors, 0)
    require_at_least("steps", steps, max(count, 1))
    require_at_least("chunk", chunk, 1)
    values, errors = np.empty(0), np.empty(0)
    nodes: list[Floats] = []
    weights: list[Floats] = []
    trace = trace_error = float("nan")
    taken = 0
    with measurement_mode(model, seed, batch_statistics) as lent:
        trained = list(trainable(lent).values())
        size = sum(weight.numel() for weight in trained)
        steps = min(steps, size)
        count = min(count, steps)
        total, done = steps * ((count > 0) + vectors) + trace_vectors, 0
        multiply = product(lent, prepare_batch(lent, images, labels, chunk), loss)

        def counted(vector: Tensor) -> Tensor:
            nonlocal done
            result = multiply(vector)
            done += 1
            if progress is not None:
                progress(done, total)
            return result

        like = trained[0]

        def signs(purpose: str, number: int) -> Tensor:
            drawn = torch.randint(0, 2, (size,), generator=generator(seed, "hessian", purpose, number)) * 2 - 1
            return drawn.to(like.device, like.dtype)

        random = generator(seed, "hessian", "eigenvalues")

        def gaussian() -> Tensor:
            return torch.randn(size, generator=random).to(like.device, like.dtype)

        def enough(matrix: Tridiagonal) -> bool:
            if len(matrix.diagonal) < count:
                return False
            found, error = matrix.ritz()
            return bool((error[-count:] <= tolerance * np.abs(found[-count:])).all())

        reached: Tridiagonal | None = None
        if count:
            reached = lanczos(counted, gaussian(), steps, gaussian, enough)
            values, errors = reached.ritz()
            taken = len(values)
            if np.isnan(values).any():
                values, errors = np.full((2, count), np.nan)
            done = steps
        if trace_vectors:
            outside = []
            for number in range(trace_vectors):
                vector = signs("trace", number)
                if reached is not None:
                    vector = orthogonal(vector, reached.basis)
                outside.append(float(torch.dot(vector, counted(vector))))
            trace = float(np.mean(outside)) + (0.0 if reached is None else float(reached.diagonal.sum()))
            if trace_vectors > 1:
                trace_error = float(np.std(outside, ddof=1) / np.sqrt(trace_vectors))
        reached = None  # whose basis takes as much memory as each that follows
        for number in range(vectors):
            found, eigenvectors = lanczos(counted, signs("density", number), steps).eigen()
            nodes.append(found)
            weights.append(eigenvectors[0] ** 2)
            done = steps * ((count > 0) + number + 1) + trace_vectors
    return Hessian(
        parameters=size,
        images=len(images),
        largest=values[::-1][:count],
        largest_error=errors[::-1][:count],
        smallest=values[:count],
        smallest_error=errors[:count],
        steps=taken,
        trace=trace,
        trace_error=trace_error,
        nodes=tuple(nodes),
        weights=tuple(weights),
    )


def product(model: nn.Module, batch: Batch, loss: Loss) -> Callable[[Tensor], Tensor]:
    """Return v -> H v, with H the Hessian of the mean loss over a batch; vectors are flat, in `trainable`'s order.

    Pearlmutter 1994, by two backward passes. The model must be at rest.
    """
    parameters = list(trainable(model).values())
    sizes = [parameter.numel() for parameter in parameters]

    def gradients(images: Tensor, labels: Tensor | None) -> list[Tensor]:
        assert labels is not None
        value = loss(output_of(model, images), labels)
        return list(torch.autograd.grad(value, parameters, create_graph=True, materialize_grads=True))

    chunks = [(*chunk, len(chunk[0]) / len(batch)) for chunk in batch.chunks()]
    # one graph may stay for all products; more would not be bounded
    kept = gradients(*chunks[0][:2]) if len(chunks) == 1 else None

    def multiply(vector: Tensor) -> Tensor:
        pieces = [piece.view_as(p) for piece, p in zip(torch.split(vector, sizes), parameters, strict=True)]
        total = torch.zeros_like(vector)
        for images, labels, share in chunks:
            first = gradients(images, labels) if kept is None else kept
            # a gradient that does not depend on the parameters has no second derivative
            curved = [(g, piece) for g, piece in zip(first, pieces, strict=True) if g.requires_grad]
            if not curved:
                continue
            second = torch.autograd.grad(
                [g for g, _ in curved],
                parameters,
                [piece for _, piece in curved],
                retain_graph=kept is not None,
                materialize_grads=True,
            )
            total += share * torch.cat([part.reshape(-1) for part in second])
        return total

    return multiply
