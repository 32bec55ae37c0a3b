"""What every probe owes the model that it measures: to measure it at rest, and to leave it exactly as it was."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm

from leadline.errors import LeadlineError
from leadline.probes.blocks import preserve_state
from leadline.seeds import stream

PROBE = "probe"  # purpose of the seed streams; keyed by the probe's name and what it draws


class ProbeError(LeadlineError, ValueError):
    """A model or a batch that a probe cannot measure."""


@dataclass(frozen=True)
class Batch:
    """Images and perhaps labels, on the model's device, cut into chunks of so many images."""

    images: Tensor
    labels: Tensor | None
    chunk: int

    def __len__(self) -> int:
        return len(self.images)

    def chunks(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield images and labels, chunk by chunk; the last one may be smaller."""
        for start in range(0, len(self.images), self.chunk):
            part = slice(start, start + self.chunk)
            yield self.images[part], None if self.labels is None else self.labels[part]


def prepare_batch(model: nn.Module, images: Tensor, labels: Tensor | None = None, chunk: int = 0) -> Batch:
    """Return a batch as the model takes it: on its device and, where images are real numbers, in its precision.

    Args:
        model: whose first parameter says device and precision.
        images: any shape whose first dimension counts images.
        labels: one per image.
        chunk: images at a time; 0: all of them.

    Raises:
        ProbeError: no image, a negative chunk, or another number of labels than of images.
    """
    if images.dim() == 0 or len(images) == 0:
        raise ProbeError(
            f"images of shape {tuple(images.shape)}: expected at least one image along the first dimension"
        )
    if labels is not None and len(labels) != len(images):
        raise ProbeError(f"{len(labels)} labels for {len(images)} images: expected one per image")
    if chunk < 0:
        raise ProbeError(f"chunk {chunk}: expected a number of images, or 0 for all at once")
    like = next((parameter for parameter in model.parameters() if parameter.is_floating_point()), images)
    # a copy, so that a tensor made in inference mode can take part in gradients
    images = images.detach().to(like.device, like.dtype if images.is_floating_point() else images.dtype, copy=True)
    return Batch(images, None if labels is None else labels.detach().clone().to(like.device), chunk or len(images))


def require_at_least(name: str, value: int, least: int) -> None:
    """Refuse a number that is too small.

    Raises:
        ProbeError: it is.
    """
    if value < least:
        raise ProbeError(f"{name} {value}: expected at least {least}")


def generator(seed: int, *keys: int | str) -> torch.Generator:
    """Return a generator of a probe's own, on the CPU, so that every device sees the same numbers."""
    return torch.Generator().manual_seed(stream(seed, PROBE, *keys))


@contextmanager
def measurement_mode(model: nn.Module, seed: int = 0, batch_statistics: bool = False) -> Iterator[nn.Module]:
    """Put a model into evaluation mode, with gradients enabled, and restore it completely afterwards.

    See `preserve_state` for what is restored. Second-order gradients work inside: of a compiled model the original is
    used, and attention is computed step by step.

    Args:
        model: what is measured.
        seed: of what the model itself draws.
        batch_statistics: batch normalisation uses the mean and variance of the batch, as in training, instead of its
            running statistics; gradients pass through them. Running statistics are not updated. Before training they
            are 0 and 1 and say nothing of the network, so measure with the batch's there.
    """
    with (
        preserve_state(model, training=False, seed=seed) as lent,
        sdpa_kernel(SDPBackend.MATH),
        torch.inference_mode(False),
        torch.enable_grad(),
    ):
        if batch_statistics:
            for module in lent.modules():
                if isinstance(module, _BatchNorm):
                    # without running statistics it normalises by the batch's, in evaluation mode too
                    module.running_mean = module.running_var = None
        yield lent


def output_of(model: Callable[[Tensor], object], images: Tensor) -> Tensor:
    """Return the model's output for a chunk of images.

    Raises:
        ProbeError: it is not one tensor with one row per image.
    """
    # a copy, for models that work on their input in place
    output = model(images.clone())
    if not isinstance(output, Tensor):
        raise ProbeError(
            f"the model returns a {type(output).__name__}; expected one tensor; wrap the model in a module that"
            f" returns one"
        )
    if output.dim() == 0 or len(output) != len(images):
        raise ProbeError(
            f"the model returns shape {tuple(output.shape)} for {len(images)} images; expected one row per image"
        )
    return output


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are trained, by name; one that is shared counts once.

    Raises:
        ProbeError: there is none.
    """
    found = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    if not found:
        raise ProbeError("the model has no parameter that requires a gradient; expected at least one")
    return found
