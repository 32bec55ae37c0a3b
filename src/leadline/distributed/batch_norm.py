"""Batch normalization over the whole batch, of which each process has its shard."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from leadline.distributed.process_group import ProcessGroup
from leadline.errors import SpecError

Maps = Float[Tensor, "batch channels *pixels"]


def sync_batch(model: nn.Module, group: ProcessGroup) -> AbstractContextManager[None]:
    """Let a model take batch statistics over the shards of all processes in the body.

    Raises:
        SpecError: the model draws from PyTorch's global generator, whose numbers do not belong to rows.
    """
    return _share_statistics(model, group) if group.world_size > 1 else nullcontext()


@contextmanager
def _share_statistics(model: nn.Module, group: ProcessGroup) -> Iterator[None]:
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    for norm in norms:  # in place, so that names, state and hooks stay as they are
        norm.forward = partial(_normalize, norm, group)  # type: ignore[method-assign]
    before = _read_generators(model)
    try:
        yield
    finally:
        for norm in norms:
            del norm.forward
    if not all(map(torch.equal, before, _read_generators(model))):
        raise SpecError(
            f"{type(model).__name__}: uses PyTorch's global generator during training, as nn.Dropout does, so several"
            f" devices would draw other numbers than one; train it on one device"
        )


def _read_generators(model: nn.Module) -> list[Tensor]:
    """Return the states of PyTorch's global generators that a model can draw from: the CPU's and its own device's."""
    states = [torch.random.get_rng_state()]
    parameter = next(model.parameters(), None)
    if parameter is not None and parameter.is_cuda:
        states.append(torch.cuda.get_rng_state(parameter.device))
    return states


def _normalize(module: _BatchNorm, group: ProcessGroup, x: Maps) -> Maps:
    """Do what a batch normalization layer does, with the statistics of all processes' rows."""
    if not module.training:
        evaluated: Tensor = type(module).forward(module, x)
        return evaluated
    module._check_input_dim(x)  # type: ignore[no-untyped-call]
    channels = x.shape[1]
    count, mean, variance = _statistics(group, x.detach())
    if x.numel() <= channels and int(count) == 1:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {tuple(x.shape)}")
    if module.running_mean is not None and module.running_var is not None:
        assert module.num_batches_tracked is not None
        module.num_batches_tracked.add_(1)
        momentum = module.momentum
        weight = 1 / module.num_batches_tracked if momentum is None else torch.full((), momentum, device=x.device)
        module.running_mean.lerp_(mean.to(module.running_mean.dtype), weight)
        module.running_var.lerp_((variance * (count / (count - 1))).to(module.running_var.dtype), weight)
    scale = torch.ones(channels, device=x.device) if module.weight is None else module.weight
    shift = torch.zeros(channels, device=x.device) if module.bias is None else module.bias
    out: Tensor = _Normalized.apply(  # type: ignore[no-untyped-call]
        x, scale, shift, mean.float(), variance.float(), module.eps, count, group
    )
    return out


@torch.no_grad()
def _statistics(
    group: ProcessGroup, x: Maps
) -> tuple[Float[Tensor, ""], Float[Tensor, " channels"], Float[Tensor, " channels"]]:
    """Return the number of values per channel, their mean, and their variance as a mean of squares, in float64.

    Each process's mean and sum of squared deviations are put together as by Chan et al. 1979, equation 2.1, which
    loses nothing to a mean that is large beside the deviation.
    """
    channels, own = x.shape[1], x.numel() // x.shape[1]
    mine = torch.zeros(2 * channels + 1, dtype=torch.float64, device=x.device)
    if own:
        variance, mean = torch.var_mean(x.float(), _but_channels(x), correction=0)
        mine = torch.cat([mean.double(), variance.double() * own, mine.new_full((1,), own)])
    everyone = group.stack_tensors(mine)
    means, squares, counts = torch.split(everyone, [channels, channels, 1], 1)
    count = counts.sum()  # stays on the device, which nobody waits for
    mean = (counts * means).sum(0) / count
    squared = squares.sum(0) + (counts * (means - mean).square()).sum(0)
    return count, mean, squared / count


class _Normalized(torch.autograd.Function):
    """(x - mean) / sqrt(variance + eps) * scale + shift, where mean and variance are those of all processes' x.

    Gradients: Ioffe & Szegedy 2015, section 3, with sums over all processes' rows for that of x; those of scale and
    shift are of this process's rows, as all parameters' are.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        scale: Tensor,
        shift: Tensor,
        mean: Tensor,
        variance: Tensor,
        eps: float,
        count: Tensor,
        group: ProcessGroup,
    ) -> Tensor:
        """Normalize this process's rows."""
        ctx.save_for_backward(x, scale, mean, (variance + eps).rsqrt(), count)
        ctx.group = group
        return F.batch_norm(x, mean, variance, scale, shift, False, 0.0, eps)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        """Return the gradients of x, scale and shift."""
        x, scale, mean, inverse, count = ctx.saved_tensors
        shape = [1, -1, *[1] * (x.ndim - 2)]
        axes = _but_channels(x)
        normal = (x.float() - mean.view(shape)) * inverse.view(shape)
        incoming = gradient.float()
        of_scale, of_shift = (incoming * normal).sum(axes), incoming.sum(axes)
        sums = torch.cat([of_scale, of_shift]).double()
        ctx.group.sum_tensor(sums)
        whole_scale, whole_shift = (sums / count).float().view(2, *shape)
        of_x = (incoming - normal * whole_scale - whole_shift) * (scale * inverse).view(shape)
        return of_x.to(x.dtype), of_scale, of_shift, None, None, None, None, None


def _but_channels(x: Tensor) -> list[int]:
    return [0, *range(2, x.ndim)]
