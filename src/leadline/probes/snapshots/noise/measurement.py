"""Gradient noise: how much of a minibatch's gradient is signal, layer by layer, and what batch size that suggests."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from leadline.probes.blocks import Loss, Progress, cross_entropy
from leadline.probes.lanczos import Floats
from leadline.probes.state import (
    ProbeError,
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
class GradientNoise:
    """Signal and noise of the gradient of each layer's own parameters.

    Estimates without bias, so that a `signal` may be negative where noise drowns it.
    """

    layers: tuple[str, ...]  # modules that own parameters, in the model's order
    parameters: tuple[int, ...]
    signal: Floats  # layers: |G|^2, squared length of the gradient of all images; (loss / weight)^2
    noise: Floats  # layers: tr(Sigma), variance of one image's gradient, summed over weights; (loss / weight)^2
    batch_size: int  # images
    batches: int

    @property
    def signal_to_noise(self) -> Floats:
        """|G| / sqrt(tr(Sigma) / batch_size), of each layer; 0 where no signal is seen, NaN without either."""
        return _ratio(self.signal, self.noise / self.batch_size)

    @property
    def noise_scale(self) -> float:
        """tr(Sigma) / |G|^2 of all parameters together, in images: McCandlish et al. 2018, B_simple of section 2.2."""
        return float(_scale(self.signal.sum(), self.noise.sum()))

    def frame(self) -> "pd.DataFrame":
        """Return one row per layer, in order of depth, and one of `all`: layer, depth, quantity, value.

        Quantities: signal, noise, signal_to_noise, noise_scale.
        """
        import pandas as pd

        layers = (*self.layers, "all")
        signal, noise = np.append(self.signal, self.signal.sum()), np.append(self.noise, self.noise.sum())
        values = {
            "signal": signal,
            "noise": noise,
            "signal_to_noise": _ratio(signal, noise / self.batch_size),
            "noise_scale": _scale(signal, noise),
        }
        return pd.concat(
            [
                pd.DataFrame({"layer": layers, "depth": np.arange(len(layers)), "quantity": quantity, "value": value})
                for quantity, value in values.items()
            ],
            ignore_index=True,
        )


def _ratio(signal: Floats, noise: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.sqrt(np.maximum(signal, 0) / noise))


def _scale(signal: Floats, noise: Floats) -> Floats:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(signal > 0, noise / signal, np.where(noise > 0, np.inf, np.nan)))


def gradient_noise(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    batch_size: int = 32,
    loss: Loss = cross_entropy,
    batch_statistics: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> GradientNoise:
    """Measure signal and noise of the gradient from the gradients of minibatches.

    With b images in each of K batches, g_k a batch's gradient and g their mean, McCandlish et al. 2018, appendix A.1,
    with B_small = b and B_big = K b: tr(Sigma) = (mean |g_k|^2 - |g|^2) / (1/b - 1/(K b)), and
    |G|^2 = (K b |g|^2 - b mean |g_k|^2) / (K b - b). Memory: two copies of the gradient, and one batch's graph.

    Args:
        model: any module from images to one tensor.
        images: (images, ...), at least two batches; what is left over after the last full batch is left out.
        labels: (images,), or whatever `loss` takes.
        batch_size: b; 1 measures single images.
        loss: from outputs and labels to their mean over images.
        batch_statistics: normalise by each batch's own statistics, as training does.
        seed: of the order of the images.
        progress: called with the batches done and in all.

    Raises:
        ProbeError: fewer than two batches, not as many labels as images, or no parameter that requires a gradient.
    """
    require_at_least("batch_size", batch_size, 1)
    batches = len(images) // batch_size
    if batches < 2:
        raise ProbeError(f"{len(images)} images in batches of {batch_size}: expected at least two full batches")
    order = torch.randperm(len(images), generator=generator(seed, "noise")).to(images.device)
    order = order[: batches * batch_size]
    if len(labels) != len(images):
        raise ProbeError(f"{len(labels)} labels for {len(images)} images: expected one per image")
    with measurement_mode(model, seed, batch_statistics) as lent:
        parameters = trainable(lent)
        batch = prepare_batch(lent, images[order], labels[order.to(labels.device)], batch_size)
        layers = {name: name.rpartition(".")[0] or type(lent).__name__ for name in parameters}
        sums = [torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32)) for p in parameters.values()]
        squares = np.zeros(len(sums))
        for number, (part, truth) in enumerate(batch.chunks()):
            assert truth is not None
            value = loss(output_of(lent, part), truth)
            gradients = torch.autograd.grad(value, list(parameters.values()), materialize_grads=True)
            squares += _squares(gradients)
            for total, gradient in zip(sums, gradients, strict=True):
                total += gradient
            if progress is not None:
                progress(number + 1, batches)
        small, big = squares / batches, _squares(sums) / batches**2
    noise = (small - big) / (1 / batch_size - 1 / (batches * batch_size))
    signal = (batches * big - small) / (batches - 1)
    names = tuple(dict.fromkeys(layers.values()))
    summed = np.array([[float(layers[name] == layer) for name in parameters] for layer in names])
    return GradientNoise(
        layers=names,
        parameters=tuple(
            sum(parameter.numel() for name, parameter in parameters.items() if layers[name] == layer) for layer in names
        ),
        signal=summed @ signal,
        noise=summed @ noise,
        batch_size=batch_size,
        batches=batches,
    )


def _squares(gradients: Sequence[Tensor]) -> Floats:
    """Return the squared length of each gradient; in double precision, for those that have all but vanished."""
    here = [gradient.cpu() if gradient.device.type == "mps" else gradient for gradient in gradients]
    norms = torch.stack([torch.linalg.vector_norm(g, dtype=torch.float64).cpu() for g in here])
    return np.asarray(norms.numpy() ** 2)
