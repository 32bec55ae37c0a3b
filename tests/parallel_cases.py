"""What the processes of `test_parallel` run: importable by them."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from leadline.data.batches import Dataset, load
from leadline.distributed.batch_norm import sync_batch
from leadline.distributed.gradients import GradientSum
from leadline.distributed.process_group import ProcessGroup
from leadline.errors import LeadlineError
from leadline.networks.modules import build
from leadline.specs import Augment, DataSpec, NetworkSpec, ProbeSpec, TrainingSpec
from leadline.training import Diverged, evaluate, prepare, train

CPU = torch.device("cpu")
Report = Callable[..., None]


def digits(train: int, augment: Any = Augment(pad=1), **more: Any) -> Dataset:  # noqa: B008
    return load(DataSpec(name="digits", train=train, validation=60, test=50, augment=augment, **more))


class OwnDropout(nn.Module):
    """A custom network that draws from the global generator."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(F.dropout(x.flatten(1), 0.5, self.training))


class SometimesUnused(nn.Module):
    """A custom network with a part that only some rows use, so not every shard, and one that none does."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear, self.rarely, self.never = nn.Linear(64, 10), nn.Linear(64, 10), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        out, rare = self.linear(x), x[:, 20] > 1.3
        if bool(rare.any()):
            out = out.index_put((rare.nonzero()[:, 0],), self.rarely(x[rare]), accumulate=True)
        return out


class Steep(nn.Module):
    """A custom network whose gradients overflow in float16 until the loss is scaled less."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(8 * x.flatten(1))


def trained(
    group: ProcessGroup,
    network: NetworkSpec | type[nn.Module],
    spec: TrainingSpec,
    train_size: int,
    probes: ProbeSpec,
    data: Mapping[str, Any] | None = None,
) -> tuple[Any, ...]:
    """Train on this process's shard; return records, weights, predictions and what was measured, or the error."""
    loaded = digits(train_size, **(data or {}))
    model = network() if isinstance(network, type) else build(network, (1, 8, 8), 10, 3)
    state = prepare(model, spec, CPU)
    try:
        records = list(train(state, loaded, spec, 3, probes, group=group))
    except (LeadlineError, Diverged) as error:
        return (type(error).__name__, str(error), getattr(error, "step", None))
    flow = None if state.flow is None else state.flow.to_bytes()
    return records, {name: one.numpy() for name, one in state.tensors().items()}, state.test_outputs.predicted, flow


def train_all(group: ProcessGroup, device: torch.device, report: Report, cases: Sequence[tuple[Any, ...]]) -> None:
    for case in cases:
        report(gather_objects(group, trained(group, *case)))
    report(group.all_gather([layer_by_layer(group, rows) for rows in ROWS]))
    network, spec = cases[0][0], cases[0][1]
    model = build(network, (1, 8, 8), 10, 5)
    data = load(DataSpec(name="digits", train=1200, validation=60, test=50))
    report(gather_objects(group, evaluate(model, data, "train", spec, group)))


def gather_objects(group: ProcessGroup, value: object) -> list[Any]:
    """Return every process's value, of any kind."""
    values: list[Any] = [None] * group.world_size
    dist.all_gather_object(values, value)
    return values


ROWS = (7, 2, 1)
LAYERS = {
    "2d": (nn.BatchNorm2d(3), (3, 4, 5)),
    "cumulative": (nn.BatchNorm2d(3, momentum=None), (3, 2, 2)),
    "plain": (nn.BatchNorm1d(4, affine=False), (4, 6)),
    "batch": (nn.BatchNorm2d(3, track_running_stats=False), (3, 3, 3)),
}


def layer_by_layer(group: ProcessGroup, rows: int) -> dict[str, list[Tensor]]:
    """Return what batch normalisation gives of this process's rows of a batch: output, gradients, statistics."""
    found = {}
    for name, (layer, shape) in LAYERS.items():
        torch.manual_seed(rows)
        whole, outer = 1000 + torch.randn(rows, *shape), torch.randn(rows, *shape)
        own = group.shard.rows(rows)
        x = whole[own].clone().requires_grad_()
        layer.reset_parameters()
        if layer.affine:
            nn.init.normal_(layer.weight)
            nn.init.normal_(layer.bias)
        layer.train().zero_grad()
        with sync_batch(layer, group):
            for _ in range(2):
                out = layer(x)
            out.backward(outer[own])
        if layer.affine and group.world_size > 1:
            GradientSum(group, layer).finish(torch.zeros(()))
        assert x.grad is not None
        grads = [parameter.grad.clone() for parameter in layer.parameters() if parameter.grad is not None]
        found[name] = [out.detach(), x.grad, *grads, *(buffer.clone().float() for buffer in layer.buffers())]
    return found


def sum_in_buckets(group: ProcessGroup, device: torch.device, report: Report) -> None:
    """Report the gradients of a batch, by the size of buckets, and how many were begun in the backward pass."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"unused": nn.Linear(6, 6), "of rank 1": nn.Linear(6, 6)})
    model.update({"first": nn.Linear(6, 8), "second": nn.Linear(8, 5), "third": nn.Linear(5, 3)})
    images, targets = torch.randn(7, 6), torch.arange(7) % 3
    rows = group.shard.rows(7)
    found = {}
    for size in (1.0, 150.0, None):
        model.zero_grad()
        gradients = GradientSum(group, model, size)
        with gradients.overlap():
            x = model["of rank 1"](images[rows]) if group.rank == 1 else images[rows]
            outputs = model["third"](model["second"](model["first"](x).tanh()).tanh())
            loss = F.cross_entropy(outputs, targets[rows], reduction="sum") / 7
            loss.backward()
            begun = len(gradients._sums)
        total, number = gradients.finish(loss.detach(), torch.tensor(len(outputs)))
        grads = {name: one.grad for name, one in model.named_parameters() if one.grad is not None}
        found[size] = {name: one.numpy().tobytes() for name, one in grads.items()}
        found[size, "buckets"] = (len(gradients.buckets), begun, float(total), int(number))
    report(gather_objects(group, found))


# --- what goes wrong


def fails(group: ProcessGroup, device: torch.device, report: Report) -> None:
    if group.rank == 1:
        raise ValueError("no such thing")
    group.broadcast(1)


def meets(group: ProcessGroup, device: torch.device, report: Report) -> None:
    report(group.all_gather(group.rank))


def exchanges(group: ProcessGroup, device: torch.device, report: Report) -> None:
    """Exchange values of different sizes on each process, with bits that text would lose."""
    numbers = torch.tensor([0.1, float("nan"), -0.0, 1e-42]).repeat(1 + 1000 * group.rank)
    report(group.all_gather({"rank": group.rank, "numbers": [numbers, numbers[:1].double()], "none": None}))
    report(gather_objects(group, group.broadcast([group.rank, numbers.bfloat16()])))


def ends_alone(group: ProcessGroup, device: torch.device, report: Report, late: Path) -> None:
    """Let rank 0 end while the other is stuck, and makes a file when it is waited for."""
    if group.rank == 1:
        time.sleep(60)
        late.touch()
    report("stored")


def sleeps(group: ProcessGroup, device: torch.device, report: Report) -> None:
    if group.rank == 1:
        time.sleep(600)
    group.broadcast(1)
