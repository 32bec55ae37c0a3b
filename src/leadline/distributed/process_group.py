"""What the processes that train one network exchange, so that they compute what one device would.

Every process has the whole network and its shard of each batch. In a step they exchange the sums that batch
normalization takes over the batch (`batch_norm`), and at its end the gradients, each process's being of its rows' part
of the mean loss of the whole batch: their sum is the gradient of one device, whatever the shards. With them go the loss
and the number of correct predictions, so that records, and the check whether training diverged, are of the whole
batch on every device. Noise is drawn for the whole batch, of which each process keeps its rows. What differs from one
device is the order of additions, and so the last bits.

The gradients are exchanged in one piece after the backward pass, and not bucket by bucket during it: on the CPU nothing
would overlap, and between GPUs it takes some thousandths of a step.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed import Store  # type: ignore[attr-defined]

from leadline.distributed.shard import Shard
from leadline.errors import LeadlineError

TIMEOUT = timedelta(minutes=10)
"""Maximum time that a process waits for the others; longer than a checkpoint or a probe takes."""

T = TypeVar("T")


class Disconnected(LeadlineError):
    """Another process of the group has ended or has not responded in time."""


@dataclass(frozen=True)
class ProcessGroup:
    """The processes that train one network together; a single process exchanges nothing.

    Every method but `shard` is a collective call: all processes make it, in the same order.

    Attributes:
        rank: of this process, from 0.
        world_size: number of processes.
    """

    rank: int = 0
    world_size: int = 1

    @property
    def shard(self) -> Shard:
        """Which part of the data falls to this process."""
        return Shard(self.rank, self.world_size)

    @torch.no_grad()
    def all_reduce(self, model: nn.Module, *numbers: Tensor) -> list[Tensor]:
        """Sum the model's gradients over all processes in place, and scalars, whose sums it returns in their types.

        A gradient that no process has stays None.
        """
        if self.world_size == 1:
            return list(numbers)
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        has = torch.tensor([float(parameter.grad is not None) for parameter in parameters])
        device = parameters[0].device
        zeros = (torch.zeros_like(parameter) if parameter.grad is None else parameter.grad for parameter in parameters)
        parts = [gradient.reshape(-1).float() for gradient in zeros]
        flat = torch.cat([*parts, has.to(device), *(number.reshape(1).float() for number in numbers)])
        self.sum_tensor(flat)
        *sums, has, scalars = torch.split(flat, [*map(len, parts), len(has), len(numbers)])
        for parameter, total, held in zip(parameters, sums, has.tolist(), strict=True):
            if held:
                if parameter.grad is None:
                    parameter.grad = torch.empty_like(parameter)
                parameter.grad.copy_(total.view(parameter.shape))
        return [total.to(number.dtype) for total, number in zip(scalars, numbers, strict=True)]

    def broadcast(self, value: T) -> T:
        """Return the value that rank 0 gives: tensors and plain data, with the tensors in CPU memory."""
        if self.world_size == 1:
            return value
        packed = _pack(value) if self.rank == 0 else torch.empty(0, dtype=torch.uint8)
        size = torch.tensor([len(packed)])
        with _expect_others():
            dist.broadcast(size, 0)
            packed = packed if self.rank == 0 else torch.empty(int(size), dtype=torch.uint8)
            dist.broadcast(packed, 0)
        given: T = value if self.rank == 0 else _unpack(packed)
        return given

    def all_gather(self, value: T) -> list[T]:
        """Return every process's value by rank: tensors and plain data, with the tensors in CPU memory."""
        if self.world_size == 1:
            return [value]
        packed = _pack(value)
        sizes = self.stack_tensors(torch.tensor([len(packed)])).flatten().tolist()
        padded = self.stack_tensors(F.pad(packed, (0, max(sizes) - len(packed))))
        return [_unpack(row[:size]) for row, size in zip(padded, sizes, strict=True)]

    def sum_tensor(self, tensor: Tensor) -> None:
        """Sum a tensor over several processes in place."""
        with _expect_others():
            dist.all_reduce(tensor)

    def stack_tensors(self, tensor: Tensor) -> Tensor:
        """Return the vectors of several processes, all of one length, as the rows of a matrix."""
        stacked = torch.empty(self.world_size, len(tensor), dtype=tensor.dtype, device=tensor.device)
        with _expect_others():
            dist.all_gather(list(stacked.unbind()), tensor)
        return stacked


SINGLE_PROCESS = ProcessGroup()


@contextmanager
def join_process_group(
    rank: int, world_size: int, device: torch.device, rendezvous: Store, timeout: timedelta = TIMEOUT
) -> Iterator[ProcessGroup]:
    """Join a group of processes while the body runs: by gloo on CPUs, by nccl on GPUs.

    Args:
        rank: of this process, from 0.
        world_size: number of processes.
        device: of this process; each has a GPU of its own.
        rendezvous: key-value store in which they find each other.
        timeout: how long each waits for the others.

    Raises:
        Disconnected: the others did not come.
    """
    backend = "gloo"
    if device.type == "cuda":
        torch.cuda.set_device(device)
        backend = "cpu:gloo,cuda:nccl"
    with _expect_others():
        dist.init_process_group(backend, rank=rank, world_size=world_size, timeout=timeout, store=rendezvous)
    try:
        yield ProcessGroup(rank, world_size)
    finally:
        dist.destroy_process_group()


def _pack(value: object) -> Tensor:
    """Return the bytes of tensors and plain data."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return torch.frombuffer(buffer.getbuffer(), dtype=torch.uint8)


def _unpack(packed: Tensor) -> Any:
    """Return what `_pack` packed; bytes from elsewhere, which nothing keeps out, can build nothing else."""
    return torch.load(io.BytesIO(packed.numpy().tobytes()), map_location="cpu", weights_only=True)


@contextmanager
def _expect_others() -> Iterator[None]:
    """Turn the errors that torch.distributed raises when other processes are gone into one line."""
    try:
        yield
    except (RuntimeError, dist.DistError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        reason = " ".join(str(error).split())[:200]
        raise Disconnected(f"lost contact with the other devices' processes: {reason}") from error
