"""One network on several devices: what their processes exchange, so that they compute what one device would.

Every process has the whole network and its share of each batch (`data.share`). In a step they exchange the sums that
batch normalisation takes over the batch, and at its end the gradients, each process's being of its rows' part of the
mean loss of the whole batch: added up they are the gradient of one device, whatever the shares. With them go the loss
and the number of correct predictions, so that records, and the look at whether training diverged, are of the whole
batch on every device. Noise is drawn for the whole batch, of which each device keeps its rows. What differs from one
device is the order of additions, and so the last bits.

The gradients are exchanged in one piece after the backward pass, and not bucket by bucket during it: on the CPU nothing
would overlap, and between GPUs it takes some thousandths of a step.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed import Store  # type: ignore[attr-defined]
from torch.nn.modules.batchnorm import _BatchNorm

from leadline.data.share import Share
from leadline.errors import LeadlineError, SpecError
from leadline.nets import Network

PATIENCE = timedelta(minutes=10)
"""How long a device waits for the others: longer than writing a checkpoint, or than a deeper probe, may take."""

T = TypeVar("T")
Maps = Float[Tensor, "batch channels *pixels"]


class Disconnected(LeadlineError):
    """Another process of the team is gone, or has not been heard of for too long."""


@dataclass(frozen=True)
class Team:
    """The processes that train one network together; alone, a process exchanges nothing.

    Every method but `share` and `whole_batch` is a call that all of them make, in the same order.

    Attributes:
        rank: of this process, from 0.
        size: how many there are.
    """

    rank: int = 0
    size: int = 1

    @property
    def share(self) -> Share:
        """Which part of the data falls to this process."""
        return Share(self.rank, self.size)

    @contextmanager
    def whole_batch(self, model: nn.Module, rows: int) -> Iterator[None]:
        """Let a model draw, and take batch statistics, for a whole batch of so many rows while it sees its share.

        Raises:
            SpecError: the model draws from PyTorch's global generator, whose numbers are not by row.
        """
        if self.size == 1:
            yield
            return
        norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
        for norm in norms:  # in place, so that names, state and hooks stay as they are
            norm.forward = partial(_normalise, norm, self)  # type: ignore[method-assign]
        noise = model.noise if isinstance(model, Network) else None
        if noise is not None:
            noise.first, noise.rows = self.share.rows(rows).start, rows
        before = torch.random.get_rng_state()
        try:
            yield
        finally:
            for norm in norms:
                del norm.forward
            if noise is not None:
                noise.first = None
        if noise is None and not torch.equal(before, torch.random.get_rng_state()):
            raise SpecError(
                f"{type(model).__name__}: draws from PyTorch's global generator while it trains, as nn.Dropout does, so"
                " several devices cannot draw what one does; train it on one device"
            )

    @torch.no_grad()
    def add_up(self, model: nn.Module, *numbers: Tensor) -> list[Tensor]:
        """Add up the model's gradients in place, and scalars, whose sums it returns in their own types.

        A gradient that no process has stays None.
        """
        if self.size == 1:
            return list(numbers)
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        has = torch.tensor([float(parameter.grad is not None) for parameter in parameters])
        device = parameters[0].device
        zeros = (torch.zeros_like(parameter) if parameter.grad is None else parameter.grad for parameter in parameters)
        parts = [gradient.reshape(-1).float() for gradient in zeros]
        flat = torch.cat([*parts, has.to(device), *(number.reshape(1).float() for number in numbers)])
        self._sum(flat)
        *sums, has, scalars = torch.split(flat, [*map(len, parts), len(has), len(numbers)])
        for parameter, total, held in zip(parameters, sums, has.tolist(), strict=True):
            if held:
                if parameter.grad is None:
                    parameter.grad = torch.empty_like(parameter)
                parameter.grad.copy_(total.view(parameter.shape))
        return [total.to(number.dtype) for total, number in zip(scalars, numbers, strict=True)]

    def told(self, value: T) -> T:
        """Return the value that rank 0 gives, which pickle must take."""
        if self.size == 1:
            return value
        box: list[Any] = [value]
        with _others_expected():
            dist.broadcast_object_list(box, 0)
        told: T = box[0]
        return told

    def gathered(self, value: T) -> list[T]:
        """Return every process's value by rank, which pickle must take."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with _others_expected():
            dist.all_gather_object(values, value)
        return values

    def _sum(self, tensor: Tensor) -> None:
        with _others_expected():
            dist.all_reduce(tensor)

    def _moments(self, own: Float[Tensor, "_"]) -> Float[Tensor, "ranks _"]:
        everyone = torch.empty(self.size, len(own), dtype=own.dtype, device=own.device)
        with _others_expected():
            dist.all_gather(list(everyone.unbind()), own)
        return everyone


ALONE = Team()


@contextmanager
def joined(
    rank: int, size: int, device: torch.device, meeting: str | Store, patience: timedelta = PATIENCE
) -> Iterator[Team]:
    """Join a team of processes while the body runs: by gloo on CPUs, by nccl on GPUs.

    Args:
        rank: of this process, from 0.
        size: how many processes there are.
        device: of this process; each has a GPU of its own.
        meeting: where they find each other: a store, or an `init_method` of torch.distributed such as `file:///PATH`.
        patience: how long each waits for the others.

    Raises:
        Disconnected: the others did not come.
    """
    backend = "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"
    where: dict[str, Any] = {"init_method" if isinstance(meeting, str) else "store": meeting}
    with _others_expected():
        dist.init_process_group(backend, rank=rank, world_size=size, timeout=patience, **where)
    try:
        yield Team(rank, size)
    finally:
        dist.destroy_process_group()


@contextmanager
def _others_expected() -> Iterator[None]:
    """Turn what torch.distributed says when others are gone into one line."""
    try:
        yield
    except (RuntimeError, dist.DistError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        reason = " ".join(str(error).split())[:200]
        raise Disconnected(f"lost contact with the other devices' processes: {reason}") from error


# --- batch normalisation over the whole batch


def _normalise(module: _BatchNorm, team: Team, x: Maps) -> Maps:
    """Do what a batch normalisation layer does, with the statistics of all processes' rows."""
    if not module.training:
        evaluated: Tensor = type(module).forward(module, x)
        return evaluated
    module._check_input_dim(x)  # type: ignore[no-untyped-call]
    channels = x.shape[1]
    count, mean, variance = _statistics(team, x.detach())
    if x.numel() <= channels and int(count) == 1:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {tuple(x.shape)}")
    if module.running_mean is not None and module.running_var is not None:
        assert module.num_batches_tracked is not None
        module.num_batches_tracked.add_(1)
        momentum = module.momentum
        weight = 1 / float(module.num_batches_tracked) if momentum is None else momentum
        module.running_mean.lerp_(mean.to(module.running_mean.dtype), weight)
        module.running_var.lerp_((variance * (count / (count - 1))).to(module.running_var.dtype), weight)
    scale = torch.ones(channels, device=x.device) if module.weight is None else module.weight
    shift = torch.zeros(channels, device=x.device) if module.bias is None else module.bias
    out: Tensor = _Normalised.apply(  # type: ignore[no-untyped-call]
        x, scale, shift, mean.float(), variance.float(), module.eps, count, team
    )
    return out


@torch.no_grad()
def _statistics(
    team: Team, x: Maps
) -> tuple[Float[Tensor, ""], Float[Tensor, " channels"], Float[Tensor, " channels"]]:
    """Return the number of values per channel, their mean, and their variance as a mean of squares, in float64.

    Each process's mean and sum of squared deviations are put together as by Chan et al. 1979, equation 2.1, which
    loses nothing to a mean that is large beside the deviation.
    """
    channels, own = x.shape[1], x.numel() // x.shape[1]
    mine = torch.zeros(2 * channels + 1, dtype=torch.float64, device=x.device)
    if own:
        variance, mean = torch.var_mean(x.float(), _but_channels(x), correction=0)
        mine = torch.cat([mean.double(), variance.double() * own, mine.new_tensor([own])])
    everyone = team._moments(mine)
    means, squares, counts = torch.split(everyone, [channels, channels, 1], 1)
    count = counts.sum()  # stays on the device, which nobody waits for
    mean = (counts * means).sum(0) / count
    squared = squares.sum(0) + (counts * (means - mean).square()).sum(0)
    return count, mean, squared / count


class _Normalised(torch.autograd.Function):
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
        team: Team,
    ) -> Tensor:
        """Normalise this process's rows."""
        ctx.save_for_backward(x, scale, mean, (variance + eps).rsqrt(), count)
        ctx.team = team
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
        ctx.team._sum(sums)
        whole_scale, whole_shift = (sums / count).float().view(2, *shape)
        of_x = (incoming - normal * whole_scale - whole_shift) * (scale * inverse).view(shape)
        return of_x.to(x.dtype), of_scale, of_shift, None, None, None, None, None


def _but_channels(x: Tensor) -> list[int]:
    return [0, *range(2, x.ndim)]
