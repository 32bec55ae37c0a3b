"""What the processes that train one network exchange, so that they compute what one device would.

Every process has the whole network and its shard of each batch. In a step they exchange the sums that batch
normalization takes over the batch (`batch_norm`), and the gradients (`gradients`), each process's being of its rows'
part of the mean loss of the whole batch: their sum is the gradient of one device, whatever the shards. With them go the
loss and the number of correct predictions, so that records, and the check whether training diverged, are of the whole
batch on every device. Noise is drawn for the whole batch, of which each process keeps its rows. What differs from one
device is the order of additions, and so the last bits.
"""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed import Store  # type: ignore[attr-defined]

from leadline.distributed.shard import Shard
from leadline.errors import LeadlineError

TIMEOUT = timedelta(minutes=10)
"""Maximum time that a process waits for the others; longer than a checkpoint or a probe takes."""

NCCL_ERRORS = "TORCH_NCCL_ASYNC_ERROR_HANDLING"
"""Set to 1 unless it is set: an error or a timeout of NCCL, which comes after the call, ends the process and so the
attempt at the trial, instead of leaving it waiting."""

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
        beside: communicator of sums that are under way beside other calls; None: the default one, as on CPUs.
    """

    rank: int = 0
    world_size: int = 1
    beside: dist.ProcessGroup | None = None

    @property
    def shard(self) -> Shard:
        """Which part of the data falls to this process."""
        return Shard(self.rank, self.world_size)

    def broadcast(self, value: T) -> T:
        """Return the value that rank 0 gives: tensors and plain data, with the tensors in CPU memory."""
        if self.world_size == 1:
            return value
        packed = _pack(value) if self.rank == 0 else torch.empty(0, dtype=torch.uint8)
        size = torch.tensor([len(packed)])
        with expect_others():
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
        with expect_others():
            dist.all_reduce(tensor)

    def start_sum(self, tensor: Tensor) -> dist.Work:
        """Start to sum a tensor over several processes in place; wait for what is returned before reading it."""
        with expect_others():
            work: dist.Work | None = dist.all_reduce(tensor, group=self.beside, async_op=True)
        assert work is not None
        return work

    def stack_tensors(self, tensor: Tensor) -> Tensor:
        """Return the vectors of several processes, all of one length, as the rows of a matrix."""
        stacked = torch.empty(self.world_size, len(tensor), dtype=tensor.dtype, device=tensor.device)
        with expect_others():
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
        os.environ.setdefault(NCCL_ERRORS, "1")
    with expect_others():
        dist.init_process_group(backend, rank=rank, world_size=world_size, timeout=timeout, store=rendezvous)
    try:
        yield ProcessGroup(rank, world_size, dist.new_group() if device.type == "cuda" else None)
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
def expect_others() -> Iterator[None]:
    """Turn the errors that torch.distributed raises when other processes are gone into one line."""
    try:
        yield
    except (RuntimeError, dist.DistError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        reason = " ".join(str(error).split())[:200]
        raise Disconnected(f"lost contact with the other devices' processes: {reason}") from error
