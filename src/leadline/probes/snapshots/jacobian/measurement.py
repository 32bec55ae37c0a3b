"""Input-output Jacobian: how much a network, and the part of it from each block on, stretches what enters."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn

from leadline.probes.blocks import Progress
from leadline.probes.hooks import Layers, choose_modules, forward_with_hooks
from leadline.probes.lanczos import Floats, singular_values
from leadline.probes.state import ProbeError, generator, measurement_mode, prepare_batch, require_at_least

if TYPE_CHECKING:
    import pandas as pd


Maps = Literal["to-output", "from-input", "across"]
OUTPUT = "output"
IMAGES = "images"


@dataclass(frozen=True)
class Jacobians:
    """The extreme singular values of some maps inside a network, image by image.

    A value has the unit of the map's output over that of its input. `smallest` is of the min(inputs, outputs) values
    that the map has. With fewer Lanczos steps than that, `largest` may be too small and `smallest` too large; some
    singular value lies within the error of each, and where the error is 0 it is exact. NaN: the map is not finite.
    """

    kind: Maps
    maps: tuple[str, ...]  # the place that each map starts from (to-output), ends at (from-input) or crosses
    inputs: tuple[int, ...]  # numbers that enter each map
    outputs: tuple[int, ...]  # numbers that leave it
    largest: Floats  # maps x images; one column for the whole batch where batch statistics were used
    largest_error: Floats
    smallest: Floats
    smallest_error: Floats

    @property
    def condition(self) -> Floats:
        """Largest over smallest, maps x images; infinite where the smallest is 0."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(self.largest / self.smallest)

    def frame(self) -> "pd.DataFrame":
        """Return one row per map, image and extreme: kind, map, depth, image, extreme, value, error."""
        import pandas as pd

        maps, images = self.largest.shape
        parts = [
            pd.DataFrame(
                {
                    "kind": self.kind,
                    "map": np.repeat(self.maps, images),
                    "depth": np.repeat(np.arange(maps), images),
                    "image": np.tile(np.arange(images), maps),
                    "extreme": extreme,
                    "value": values.ravel(),
                    "error": errors.ravel(),
                }
            )
            for extreme, values, errors in (
                ("largest", self.largest, self.largest_error),
                ("smallest", self.smallest, self.smallest_error),
            )
        ]
        return pd.concat(parts, ignore_index=True)


def jacobian(
    model: nn.Module,
    images: Tensor,
    *,
    maps: Maps = "to-output",
    layers: Layers | None = None,
    steps: int = 32,
    chunk: int = 8,
    batch_statistics: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Jacobians:
    """Measure the extreme singular values of a network's Jacobian for some images, by depth.

    A map with at most `steps` outputs is written out, one backward pass a row for all places at once, and its singular
    values are exact. A larger one takes Golub-Kahan-Lanczos steps, each of one Jacobian-vector and one
    vector-Jacobian product on a graph that is built once. Memory: the graph, and `chunk` images times either the
    outputs times all places' numbers, or twice `steps` times the numbers at one place.

    Args:
        model: any module from images to one tensor.
        images: (images, ...), real numbers.
        maps: `to-output`: from the images, and from what enters each place, to the model's output; `from-input`:
            from the images to what leaves each place, and to the output; `across`: each place alone.
        layers: names or patterns of the places; None: the blocks, or every module without children.
        steps: Lanczos steps at most.
        chunk: images at a time.
        batch_statistics: normalise by the batch's own statistics. Images then depend on one another, so the map is
            the whole batch's, taken at once. Before training
            this is the one to use: running statistics are then 0 and 1 still.
        seed: of the start vectors.
        progress: called with the maps and chunks done and in all.

    Raises:
        ProbeError: no image, images that are not real numbers, or an output that does not depend on them.
        SpecError: no such layer.
    """
    require_at_least("steps", steps, 1)
    require_at_least("chunk", chunk, 1)
    if not images.is_floating_point():
        raise ProbeError(f"images of {images.dtype}: expected real numbers, as a derivative with respect to them needs")
    found: dict[str, list[tuple[Floats, Floats]]] = {}
    sizes: dict[str, tuple[int, int]] = {}
    with measurement_mode(model, seed, batch_statistics) as lent:
        batch = prepare_batch(lent, images, chunk=0 if batch_statistics else chunk)
        chunks = -(-len(batch) // batch.chunk)
        for number, (part, _) in enumerate(batch.chunks()):
            pairs = _pairs(lent, part, maps, layers)
            # rows of maps to one target come together, one backward pass for all of their sources
            rest = list(pairs)
            while rest:
                target = pairs[rest[0]][1]
                outputs = _flat(target, batch_statistics).shape[1]
                if outputs <= steps:
                    together = [name for name in rest if pairs[name][1] is target]
                    matrices = _rows([pairs[name][0] for name in together], target, batch_statistics)
                else:
                    together, matrices = rest[:1], []
                for index, name in enumerate(together):
                    source = pairs[name][0]
                    sizes[name] = (_flat(source, batch_statistics).shape[1], outputs)
                    if matrices:
                        values, errors = _exact(matrices[index])
                    else:
                        random = generator(seed, "jacobian", name, number)
                        values, errors = _approximate(source, target, steps, batch_statistics, random)
                    found.setdefault(name, []).append((values[:, [0, -1]], errors[:, [0, -1]]))
                    rest.remove(name)
                if progress is not None:
                    progress(number * len(pairs) + len(pairs) - len(rest), chunks * len(pairs))
    values, errors = (
        np.stack([np.concatenate([part[which] for part in parts]) for parts in found.values()]) for which in (0, 1)
    )
    return Jacobians(
        kind=maps,
        maps=tuple(found),
        inputs=tuple(sizes[name][0] for name in found),
        outputs=tuple(sizes[name][1] for name in found),
        largest=values[:, :, 0],
        largest_error=errors[:, :, 0],
        smallest=values[:, :, 1],
        smallest_error=errors[:, :, 1],
    )


def _pairs(model: nn.Module, images: Tensor, maps: Maps, layers: Layers | None) -> dict[str, tuple[Tensor, Tensor]]:
    """Return the two ends of each map, by name in the order of the forward pass, as tensors of one graph."""
    images.requires_grad_()
    before: dict[str, Tensor] = {}
    after: dict[str, Tensor] = {}

    def enter(name: str, x: Tensor) -> Tensor:
        # the place goes on with a copy, so that a layer that works in place leaves the captured tensor alone
        if x.requires_grad:
            before[name] = x
        return x.clone()

    def leave(name: str, x: Tensor) -> Tensor:
        if x.requires_grad:
            after[name] = x
        return x.clone()

    output = forward_with_hooks(model, images, choose_modules(model, layers), enter, leave)
    if not output.requires_grad:
        raise ProbeError("the model's output does not depend on the images through differentiable operations")
    if maps == "to-output":
        return {IMAGES: (images, output), **{name: (x, output) for name, x in before.items()}}
    if maps == "from-input":
        return {**{name: (images, x) for name, x in after.items()}, OUTPUT: (images, output)}
    pairs = {name: (before[name], x) for name, x in after.items() if name in before}
    if not pairs:
        raise ProbeError("no layer lies between the images and the output; choose other layers")
    return pairs


def _flat(tensor: Tensor, whole: bool) -> Tensor:
    """Return a matrix with one row per image, or a single row for the whole batch."""
    return tensor.reshape(1, -1) if whole else tensor.flatten(1) if tensor.dim() > 1 else tensor[:, None]


def _rows(sources: list[Tensor], target: Tensor, whole: bool) -> list[Tensor]:
    """Return each source's Jacobians: images x outputs x inputs."""
    flat = _flat(target, whole)
    matrices = [source.new_empty(*flat.shape, _flat(source, whole).shape[1]) for source in sources]
    for row in range(flat.shape[1]):
        picked = torch.zeros_like(flat)
        picked[:, row] = 1
        gradients = torch.autograd.grad(flat, sources, picked, retain_graph=True, materialize_grads=True)
        for matrix, gradient in zip(matrices, gradients, strict=True):
            matrix[:, row] = _flat(gradient, whole)
    return matrices


def _exact(matrices: Tensor) -> tuple[Floats, Floats]:
    values = np.full((len(matrices), min(matrices.shape[1:])), np.nan)
    finite = matrices.isfinite().flatten(1).all(1).cpu()
    if finite.any():
        values[finite.numpy()] = np.linalg.svd(
            matrices[finite.to(matrices.device)].cpu().double().numpy(), compute_uv=False
        )
    return values, np.where(np.isnan(values), np.nan, 0.0)


def _approximate(
    source: Tensor, target: Tensor, steps: int, whole: bool, random: torch.Generator
) -> tuple[Floats, Floats]:
    # a double backward pass: the vector-Jacobian product is linear in its vector, and its derivative is the Jacobian
    vector = torch.zeros_like(target, requires_grad=True)
    (back,) = torch.autograd.grad(target, source, vector, create_graph=True, materialize_grads=True)
    # gradients may be far below what single precision can square
    precise = torch.float32 if source.device.type == "mps" else torch.float64

    def adjoint(u: Tensor) -> Tensor:
        given = u.reshape(target.shape).to(target.dtype)
        (result,) = torch.autograd.grad(target, source, given, retain_graph=True, materialize_grads=True)
        return _flat(result, whole).to(precise)

    def forward(v: Tensor) -> Tensor:
        if not back.requires_grad:
            return torch.zeros_like(_flat(target, whole), dtype=precise)
        given = v.reshape(source.shape).to(source.dtype)
        (result,) = torch.autograd.grad(back, vector, given, retain_graph=True, materialize_grads=True)
        return _flat(result, whole).to(precise)

    rows, columns = _flat(target, whole).shape[1], _flat(source, whole).shape[1]
    matrices = 1 if whole else len(source)

    def draw(length: int) -> Tensor:
        return torch.randn(matrices, length, generator=random).to(source.device, precise)

    with torch.no_grad():
        return singular_values(forward, adjoint, (rows, columns), steps, draw)
