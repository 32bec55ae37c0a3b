"""Gradients summed over processes bucket by bucket, while the backward pass computes those of the layers before.

The buckets are of neighbouring parameters, the last layers' first, and are exchanged in an order that never changes,
whichever gradient comes first: additions happen in one order, and so a trial repeats its bits.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from leadline.distributed.process_group import ProcessGroup, expect_others

BUCKET_BYTES = 25 * 2**20
"""Bytes of gradients that are exchanged at once between GPUs, at least but for the last bucket; those of PyTorch's
DistributedDataParallel. CPUs exchange all at once, as nothing would overlap."""


class GradientSum:
    """The sum of a model's gradients over the processes of a group.

    Args:
        group: several processes, each with a gradient of its rows' part of the loss.
        model: its parameters are the same in all of them.
        bucket_bytes: see `BUCKET_BYTES`; None: that on GPUs, and everything at once on a CPU.
    """

    def __init__(self, group: ProcessGroup, model: nn.Module, bucket_bytes: float | None = None) -> None:
        self.group = group
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self._device = self.parameters[0].device
        if bucket_bytes is None:
            bucket_bytes = float("inf") if self._device.type == "cpu" else BUCKET_BYTES
        self.buckets = _divide(self.parameters, bucket_bytes)
        self._bucket_of = {id(parameter): number for number, one in enumerate(self.buckets) for parameter in one}
        self._missing: list[int] = []  # gradients that each bucket waits for
        self._sums: list[tuple[Tensor, dist.Work]] = []  # under way, of the first buckets

    @contextmanager
    def overlap(self) -> Iterator[None]:
        """Exchange a bucket as soon as the backward pass in the body has come to the end of it and of those before."""
        self._missing, self._sums = [len(one) for one in self.buckets], []
        hooks = [one.register_post_accumulate_grad_hook(self._note) for one in self.parameters]  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    @torch.no_grad()
    def finish(self, *numbers: Tensor) -> list[Tensor]:
        """Sum what is left, in place, and scalars, whose sums are returned in their types.

        A gradient that no process has stays None.
        """
        has = torch.tensor([float(parameter.grad is not None) for parameter in self.parameters])
        while len(self._sums) < len(self.buckets):
            self._exchange()
        self.group.sum_tensor(has)  # on CPUs, so that no device is waited for
        scalars = torch.stack([number.float() for number in numbers])
        self.group.sum_tensor(scalars)
        held = {id(parameter) for parameter, count in zip(self.parameters, has.tolist(), strict=True) if count}
        with expect_others():
            for _, work in self._sums:
                work.wait()
        for bucket, (flat, _) in zip(self.buckets, self._sums, strict=True):
            for parameter, total in zip(bucket, flat.split([one.numel() for one in bucket]), strict=True):  # type: ignore[no-untyped-call]
                if id(parameter) in held:
                    if parameter.grad is None:
                        parameter.grad = torch.empty_like(parameter)
                    parameter.grad.copy_(total.view(parameter.shape))
        self._sums = []
        return [total.to(number.dtype) for total, number in zip(scalars, numbers, strict=True)]

    def _note(self, parameter: Tensor) -> None:
        self._missing[self._bucket_of[id(parameter)]] -= 1
        while len(self._sums) < len(self.buckets) and self._missing[len(self._sums)] == 0:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        """Start to sum the next bucket."""
        bucket = self.buckets[len(self._sums)]
        grads = (torch.zeros_like(one) if one.grad is None else one.grad for one in bucket)
        flat = torch.cat([grad.reshape(-1).float() for grad in grads])
        self._sums.append((flat, self.group.start_sum(flat)))


def _divide(parameters: Sequence[nn.Parameter], bucket_bytes: float) -> list[list[nn.Parameter]]:
    """Return parameters in the order in which their gradients come, in buckets of so many bytes of float32."""
    buckets: list[list[nn.Parameter]] = [[]]
    for parameter in reversed(parameters):
        if sum(one.numel() for one in buckets[-1]) * 4 >= bucket_bytes:
            buckets.append([])
        buckets[-1].append(parameter)
    return buckets
