"""The average of a network's weights, kept beside those that are trained: updated after each step, and evaluated."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from leadline.data.batches import Data
from leadline.networks.modules import distinct_tensors, fill_tensors
from leadline.parts.averaging import Averaging
from leadline.specs import TrainingSpec
from leadline.training.freezing import frozen_norms
from leadline.training.numerics import autocast


class Average:
    """An average of the weights of a model.

    Buffers of floating point are averaged as well, or with `recomputes_statistics` those of the last weights that were
    averaged; others, such as counters, are always the latter.

    Args:
        spec: what is averaged.
        model: on its device and in its memory layout.

    Attributes:
        tensors: averaged parameters and buffers by name.
        count: number of times that weights have been averaged; before the first, there is no average.
    """

    def __init__(self, spec: Averaging, model: nn.Module) -> None:
        self.spec, self.count = spec, 0
        self.tensors = {name: tensor.clone() for name, tensor in distinct_tensors(model).items()}
        learned = {name for name, _ in model.named_parameters()}
        self._averaged = [
            name
            for name, tensor in self.tensors.items()
            if tensor.is_floating_point() and (name in learned or not spec.recomputes_statistics)
        ]
        # where they are, because a module may assign another tensor to a buffer
        paths = {name: name.rpartition(".") for name in self.tensors}
        self._places = {name: (model.get_submodule(module), key) for name, (module, _, key) in paths.items()}

    @torch.no_grad()
    def update(self, step: int, steps: int, epochs: int) -> None:
        """Average the weights after a step, if they have a share.

        Args:
            step: number of steps done.
            steps: of the whole training.
            epochs: of the whole training.
        """
        share = self.spec.share(self.count, step, steps, epochs)
        if not share:
            return
        averaged = self._averaged if self.count else []
        if averaged:
            torch._foreach_lerp_([self.tensors[name] for name in averaged], [*map(self._now, averaged)], share)
        for name in self.tensors.keys() - set(averaged):
            self.tensors[name].copy_(self._now(name))
        self.count += 1

    @contextmanager
    def applied(self, model: nn.Module, data: Data, spec: TrainingSpec) -> Iterator[None]:
        """Let a model have the average in the body, in evaluation mode, and its own weights again after it."""
        own = {name: tensor.clone() for name, tensor in distinct_tensors(model).items()}
        fill_tensors(model, self.tensors)
        try:
            if self.spec.recomputes_statistics:
                recompute_statistics(model, data, spec)
            yield
        finally:
            fill_tensors(model, own)

    def named(self) -> dict[str, Tensor]:
        """Return all of it by name, for a checkpoint."""
        return {"count": torch.tensor(self.count), **{f"of.{name}": one for name, one in self.tensors.items()}}

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `named` returned."""
        self.count = int(tensors["count"])
        for name, tensor in self.tensors.items():
            tensor.copy_(tensors[f"of.{name}"])

    def _now(self, name: str) -> Tensor:
        module, key = self._places[name]
        tensor: Tensor = getattr(module, key)
        return tensor.detach()


def norms_to_recompute(model: nn.Module, spec: TrainingSpec) -> list[_BatchNorm]:
    """Return the layers whose running statistics `recompute_statistics` replaces: all that are trained."""
    frozen = set(frozen_norms(model, spec))
    return [
        one
        for one in model.modules()
        if isinstance(one, _BatchNorm) and one.running_mean is not None and one not in frozen
    ]


@torch.no_grad()
def recompute_statistics(model: nn.Module, data: Data, spec: TrainingSpec) -> None:
    """Replace the running statistics of batch normalisation by means over batches of the training images.

    The images are in order and not augmented, in batches of the recipe's size, each of which counts the same, as in
    `torch.optim.swa_utils.update_bn`. Other layers are in evaluation mode, and so is what is not trained. In a group of
    processes, each computes all.
    """
    model.eval()
    norms = norms_to_recompute(model, spec)
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    try:
        for images, _ in data.evaluation_batches("train", spec.batch_size, spec.channels_last):
            with autocast(images.device, spec.precision):
                model(images)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        model.eval()
