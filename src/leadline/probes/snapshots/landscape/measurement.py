"""The loss around a trained network: along random directions of a fair length, and on the way to another network."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from leadline.probes.blocks import Loss, Progress, cross_entropy
from leadline.probes.lanczos import Floats
from leadline.probes.state import ProbeError, generator, measurement_mode, output_of, prepare_batch, require_at_least

if TYPE_CHECKING:
    import pandas as pd


Kind = Literal["line", "plane", "between"]
Place = Mapping[str, Tensor]  # parameters and buffers by name


@dataclass(frozen=True)
class Landscape:
    """Loss and error on a grid of places in weight space."""

    kind: Kind
    x: Floats  # line, plane: steps along the first direction; between: 0 is the first model, 1 the second
    y: Floats | None  # plane: steps along the second direction
    loss: Floats  # (x) or (x, y); in the loss's unit, which is nats for cross-entropy
    error: Floats  # the same shape; per cent of images; NaN where labels are not classes

    @property
    def barrier(self) -> float:
        """How far the loss rises at most above the straight line between the ends' losses.

        Frankle et al. 2020, section 3, where the line between two networks is meant. NaN on a plane.
        """
        if self.loss.ndim != 1:
            return float("nan")
        share = (self.x - self.x[0]) / (self.x[-1] - self.x[0])
        return float(np.max(self.loss - ((1 - share) * self.loss[0] + share * self.loss[-1])))

    def frame(self) -> "pd.DataFrame":
        """Return one row per place: kind, x, y (NaN but on a plane), loss, error."""
        import pandas as pd

        y = np.full(1, np.nan) if self.y is None else self.y
        return pd.DataFrame(
            {
                "kind": self.kind,
                "x": np.repeat(self.x, len(y)),
                "y": np.tile(y, len(self.x)),
                "loss": self.loss.ravel(),
                "error": self.error.ravel(),
            }
        )


def direction(model: nn.Module, seed: int = 0, axis: int = 0) -> dict[str, Tensor]:
    """Return a random direction in weight space, normalised filter by filter.

    d <- d / |d| * |w| for every filter w, with d Gaussian: Li et al. 2018, section 4. A filter is what makes one output
    channel of a convolution, or one row of a linear layer's matrix. Parameters of one dimension or none, which are
    biases and normalisation, do not move.

    Args:
        model: any module.
        seed: of the direction; each parameter has a stream of its own, by its name.
        axis: tells the directions of one seed apart.
    """
    return {
        name: _normalised(torch.randn(weight.shape, generator=generator(seed, "direction", axis, name)), weight)
        for name, weight in model.named_parameters()
        if weight.dim() > 1
    }


def _normalised(drawn: Tensor, weight: Tensor) -> Tensor:
    drawn = drawn.to(weight.device, weight.dtype)
    filters, weights = drawn.flatten(1), weight.detach().flatten(1)
    lengths = weights.norm(dim=1, keepdim=True) / filters.norm(dim=1, keepdim=True).clamp_min(1e-12)
    step: Tensor = (filters * lengths).reshape(weight.shape)
    return step


def along(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    span: float = 1.0,
    points: int = 51,
    loss: Loss = cross_entropy,
    chunk: int = 256,
    batch_statistics: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Landscape:
    """Measure the loss along one filter-normalised random direction: Li et al. 2018, section 4.

    Memory: three copies of the weights, and the forward pass of `chunk` images.

    Args:
        model: any module from images to one tensor.
        images: (images, ...).
        labels: (images,), or whatever `loss` takes.
        span: the grid runs from -span to span; 1 moves each filter by its own length.
        points: of the grid; an odd number has the network itself in the middle.
        loss: from outputs and labels to their mean over images.
        chunk: images at a time.
        batch_statistics: normalise by each chunk's own statistics.
        seed: of the direction.
        progress: called with the points done and in all.

    Raises:
        ProbeError: no image, or not as many labels.
    """
    require_at_least("points", points, 2)
    x = np.linspace(-span, span, points)
    with measurement_mode(model, seed, batch_statistics) as lent, torch.no_grad():
        evaluate = _evaluator(lent, images, labels, loss, chunk)
        start, step = dict(lent.named_parameters()), direction(lent, seed)
        losses, errors = np.empty((2, points))
        for index, distance in enumerate(x.tolist()):
            losses[index], errors[index] = evaluate(_moved(start, (step, distance)))
            if progress is not None:
                progress(index + 1, points)
    return Landscape("line", x, None, losses, errors)


def plane(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    span: float = 1.0,
    points: int = 25,
    loss: Loss = cross_entropy,
    chunk: int = 256,
    batch_statistics: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Landscape:
    """Measure the loss on the plane of two filter-normalised random directions: Li et al. 2018, section 4.

    The first direction is that of `along` with the same seed. Memory: four copies of the weights, and the forward pass
    of `chunk` images.

    Args:
        model: any module from images to one tensor.
        images: (images, ...).
        labels: (images,), or whatever `loss` takes.
        span: both axes run from -span to span.
        points: of each axis; there are points^2 places.
        loss: from outputs and labels to their mean over images.
        chunk: images at a time.
        batch_statistics: normalise by each chunk's own statistics.
        seed: of the directions.
        progress: called with the places done and in all.

    Raises:
        ProbeError: no image, or not as many labels.
    """
    require_at_least("points", points, 2)
    x = np.linspace(-span, span, points)
    with measurement_mode(model, seed, batch_statistics) as lent, torch.no_grad():
        evaluate = _evaluator(lent, images, labels, loss, chunk)
        start, first, second = dict(lent.named_parameters()), direction(lent, seed), direction(lent, seed, axis=1)
        losses, errors = np.empty((2, points, points))
        for row, down in enumerate(x.tolist()):
            for column, right in enumerate(x.tolist()):
                losses[row, column], errors[row, column] = evaluate(_moved(start, (first, down), (second, right)))
                if progress is not None:
                    progress(row * points + column + 1, points**2)
    return Landscape("plane", x, x.copy(), losses, errors)


def between(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    other: nn.Module,
    *,
    margin: float = 0.0,
    points: int = 25,
    loss: Loss = cross_entropy,
    chunk: int = 256,
    batch_statistics: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Landscape:
    """Measure the loss on the line between two models of one architecture: Goodfellow, Vinyals & Saxe 2015, section 2.

    Parameters and real-valued buffers, such as running statistics, are (1 - x) times the first's and x times the
    second's. Memory: a copy of the weights, and the forward pass of `chunk` images.

    Args:
        model: the model at 0.
        images: (images, ...).
        labels: (images,), or whatever `loss` takes.
        other: the model at 1, with parameters and buffers of the same names and shapes.
        margin: the grid runs from -margin to 1 + margin.
        points: of the grid.
        loss: from outputs and labels to their mean over images.
        chunk: images at a time.
        batch_statistics: normalise by each chunk's own statistics.
        seed: of what the model itself draws.
        progress: called with the points done and in all.

    Raises:
        ProbeError: no image, not as many labels, or models that differ in shape.
    """
    require_at_least("points", points, 2)
    x = np.linspace(-margin, 1 + margin, points)
    # put at rest as well, so that both have the same buffers
    with (
        measurement_mode(model, seed, batch_statistics) as lent,
        measurement_mode(other, seed, batch_statistics) as far,
        torch.no_grad(),
    ):
        ends = [{**dict(one.named_parameters()), **dict(one.named_buffers())} for one in (lent, far)]
        shapes = [{name: tuple(tensor.shape) for name, tensor in end.items()} for end in ends]
        if shapes[0] != shapes[1]:
            name = min(name for name, _ in shapes[0].items() ^ shapes[1].items())
            sizes = [shape.get(name, "absent") for shape in shapes]
            raise ProbeError(
                f"{name} is {sizes[0]} in one model and {sizes[1]} in the other; expected one architecture"
            )
        evaluate = _evaluator(lent, images, labels, loss, chunk)
        losses, errors = np.empty((2, points))
        for index, share in enumerate(x.tolist()):
            place = {
                name: torch.lerp(near, ends[1][name].to(near), share) if near.is_floating_point() else near
                for name, near in ends[0].items()
            }
            losses[index], errors[index] = evaluate(place)
            if progress is not None:
                progress(index + 1, points)
    return Landscape("between", x, None, losses, errors)


def _moved(start: Place, *moves: tuple[Place, float]) -> dict[str, Tensor]:
    place = dict(start)
    for step, distance in moves:
        for name, along_it in step.items():
            place[name] = place[name] + distance * along_it
    return place


def _evaluator(
    model: nn.Module, images: Tensor, labels: Tensor, loss: Loss, chunk: int
) -> Callable[[Place], tuple[float, float]]:
    """Return a function from a place in weight space to mean loss and error in per cent."""
    require_at_least("chunk", chunk, 1)
    batch = prepare_batch(model, images, labels, chunk)

    def evaluate(place: Place) -> tuple[float, float]:
        total, wrong = 0.0, 0.0
        for part, truth in batch.chunks():
            assert truth is not None
            output = output_of(lambda x: functional_call(model, dict(place), (x,)), part)
            total += float(loss(output, truth)) * len(part)
            classes = output.dim() == 2 and truth.dim() == 1 and not truth.is_floating_point()
            wrong += int((output.argmax(1) != truth).sum()) if classes else float("nan")
        return total / len(batch), 100 * wrong / len(batch)

    return evaluate
