"""Lesions: the error of a trained network after blocks are deleted or change places; Veit et al. 2016, section 4."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from leadline.errors import LeadlineError
from leadline.probes.blocks import (
    Blocks,
    Call,
    Found,
    Loss,
    Parts,
    Progress,
    chunks,
    cross_entropy,
    find_blocks,
    preserve_state,
    reroute_blocks,
    survey,
)
from leadline.seeds import stream

LESION, REORDER = "lesion", "reorder"  # purposes of the streams that blocks are drawn from


@dataclass(frozen=True)
class Lesions:
    """Error and loss with one block deleted at a time, first to last; arrays are [blocks].

    Attributes:
        error: of the whole network, per cent.
        loss: of the whole network, mean over the images.
        blocks: names; a block that is called again, as a step, is `name#2`.
        removed: `branch`, `block`, or why the block cannot be deleted.
        keeps_shape: whether the block's output is shaped as its input.
        errors: per cent; NaN where the block cannot be deleted.
        losses: mean over the images; NaN where the block cannot be deleted.
    """

    error: float
    loss: float
    blocks: tuple[str, ...]
    removed: tuple[str, ...]
    keeps_shape: NDArray[np.bool_]
    errors: NDArray[np.float64]
    losses: NDArray[np.float64]

    def frame(self) -> Any:
        """Return a DataFrame with a row per block.

        Columns: `number` from 1, `block`, `removed`, `keeps_shape`, `error`, `error_increase` (both per cent), `loss`.
        """
        import pandas as pd

        return pd.DataFrame(
            {
                "number": np.arange(1, len(self.blocks) + 1),
                "block": list(self.blocks),
                "removed": list(self.removed),
                "keeps_shape": self.keeps_shape,
                "error": self.errors,
                "error_increase": self.errors - self.error,
                "loss": self.losses,
            }
        )


@dataclass(frozen=True)
class RandomLesions:
    """Error and loss with several blocks deleted at once; arrays are [draws].

    Attributes:
        error: of the whole network, per cent.
        loss: of the whole network, mean over the images.
        counts: blocks deleted.
        deleted: their names, in the network's order.
        errors: per cent.
        losses: mean over the images.
    """

    error: float
    loss: float
    counts: NDArray[np.int64]
    deleted: tuple[tuple[str, ...], ...]
    errors: NDArray[np.float64]
    losses: NDArray[np.float64]

    def frame(self) -> Any:
        """Return a DataFrame with a row per draw: `count`, `deleted`, names with spaces between, `error`, `loss`."""
        import pandas as pd

        deleted = [" ".join(names) for names in self.deleted]
        return pd.DataFrame({"count": self.counts, "deleted": deleted, "error": self.errors, "loss": self.losses})


@dataclass(frozen=True)
class Reorderings:
    """Error and loss with blocks of one shape in other places; arrays are [draws].

    Attributes:
        error: of the whole network, per cent.
        loss: of the whole network, mean over the images.
        blocks: all blocks' names in the network's order.
        swaps: pairs that changed places.
        orders: numbers of the blocks, from 0, that stand at each place, [draws, blocks].
        taus: Kendall's rank correlation of that order with the network's own: 1 is unchanged.
        errors: per cent.
        losses: mean over the images.
    """

    error: float
    loss: float
    blocks: tuple[str, ...]
    swaps: NDArray[np.int64]
    orders: NDArray[np.int64]
    taus: NDArray[np.float64]
    errors: NDArray[np.float64]
    losses: NDArray[np.float64]

    def frame(self) -> Any:
        """Return a DataFrame with a row per draw: `swaps`, `tau`, `error`, `loss`."""
        import pandas as pd

        return pd.DataFrame({"swaps": self.swaps, "tau": self.taus, "error": self.errors, "loss": self.losses})


def lesion(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    blocks: Blocks = None,
    residual: bool = False,
    loss: Loss = cross_entropy,
    batch_size: int = 256,
    progress: Progress | None = None,
) -> Lesions:
    """Delete each block in turn and measure the error: Veit et al. 2016, section 4.1 and figure 3.

    Batch normalisation is in evaluation mode.

    Args:
        model: any network that gives logits; left as it was.
        images: [batch, ...].
        labels: of classes, [batch].
        blocks: names of submodules, or their parts by name; None: those that say themselves what they are made of (see
            `leadline.probes.blocks.find_blocks`).
        residual: take named submodules as x + F(x), so that x remains; a plain one is replaced by x as well.
        loss: of logits and labels: a mean over the images.
        batch_size: most images at once, which bounds the memory.
        progress: called with passes over the images done and in all.

    Raises:
        LeadlineError: there are no such blocks, or no images.
    """
    with _bench(model, images, labels, blocks, residual, loss, batch_size) as bench:
        removed = tuple(_removed(call) for call in bench.calls)
        chosen = [(call.name,) if _deletable(call) else None for call in bench.calls]
        measured = _deleted(bench, [names for names in chosen if names is not None], progress)
    rows = iter(measured[1:])
    nothing = (float("nan"), float("nan"))
    errors, losses = np.array([nothing if names is None else next(rows) for names in chosen]).T
    keeps = np.array([call.keeps_shape for call in bench.calls])
    return Lesions(*measured[0], tuple(call.name for call in bench.calls), removed, keeps, errors, losses)


def lesion_several(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    counts: Sequence[int] | None = None,
    draws: int = 10,
    seed: int = 0,
    blocks: Blocks = None,
    residual: bool = False,
    loss: Loss = cross_entropy,
    batch_size: int = 256,
    progress: Progress | None = None,
) -> RandomLesions:
    """Delete several blocks, drawn at random, and measure the error: Veit et al. 2016, section 4.2 and figure 5a.

    Args:
        model, images, labels, blocks, residual, loss, batch_size, progress: see `lesion`.
        counts: of blocks to delete, each 1 to the number that can be deleted; None: 1, 2, 3, ... up to all.
        draws: for each count.
        seed: of the draws; those of one count do not depend on the other counts.

    Raises:
        LeadlineError: no block can be deleted, or a count or number is impossible.
    """
    if draws < 1:
        raise LeadlineError(f"draws {draws}: expected at least 1")
    with _bench(model, images, labels, blocks, residual, loss, batch_size) as bench:
        able = [call.name for call in bench.calls if _deletable(call)]
        if not able:
            reason = _removed(bench.calls[0])
            raise LeadlineError(f"none of {len(bench.calls)} blocks can be deleted; {bench.calls[0].name}: {reason}")
        tried = list(range(1, len(able) + 1)) if counts is None else list(counts)
        chosen: list[tuple[str, ...]] = []
        for count in tried:
            if not 1 <= count <= len(able):
                raise LeadlineError(f"{count} blocks to delete; expected 1 to {len(able)}, those that can be deleted")
            for draw in range(draws):
                generator = torch.Generator().manual_seed(stream(seed, LESION, count, draw))
                places = torch.randperm(len(able), generator=generator)[:count].tolist()
                chosen.append(tuple(able[place] for place in sorted(places)))
        measured = _deleted(bench, chosen, progress)
    numbers = np.array([len(names) for names in chosen], dtype=np.int64)
    errors, losses = np.array(measured[1:], dtype=np.float64).reshape(-1, 2).T
    return RandomLesions(*measured[0], numbers, tuple(chosen), errors, losses)


def reorder(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    swaps: Sequence[int] = tuple(range(1, 11)),
    draws: int = 10,
    seed: int = 0,
    blocks: Blocks = None,
    residual: bool = False,
    loss: Loss = cross_entropy,
    batch_size: int = 256,
    progress: Progress | None = None,
) -> Reorderings:
    """Let random pairs of blocks of one shape change places and measure the error: Veit et al. 2016, figure 5b.

    Only blocks whose output is shaped as their input change places, as in the paper.

    Args:
        model, images, labels, blocks, residual, loss, batch_size, progress: see `lesion`.
        swaps: numbers of pairs that change places one after another.
        draws: for each number.
        seed: of the draws; those of one number do not depend on the other numbers.

    Raises:
        LeadlineError: no two blocks have one shape, or a number is impossible.
    """
    if draws < 1 or min(swaps, default=-1) < 0:
        raise LeadlineError(f"draws {draws}, swaps {list(swaps)}: expected at least 1 draw of 0 or more swaps")
    with _bench(model, images, labels, blocks, residual, loss, batch_size) as bench:
        pairs = _pairs(bench.calls)
        orders, numbers = [], []
        for count in swaps:
            for draw in range(draws):
                generator = torch.Generator().manual_seed(stream(seed, REORDER, count, draw))
                order = list(range(len(bench.calls)))
                for number in torch.randint(len(pairs), (count,), generator=generator).tolist():
                    first, second = pairs[number]
                    order[first], order[second] = order[second], order[first]
                orders.append(order)
                numbers.append(count)
        return _reordered(bench, orders, numbers, progress)


def swap(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    blocks: Blocks = None,
    residual: bool = False,
    loss: Loss = cross_entropy,
    batch_size: int = 256,
    progress: Progress | None = None,
) -> Reorderings:
    """Let each pair of blocks of one shape change places and measure the error; one pass over the images a pair.

    Arguments and errors are those of `reorder`; the pairs come in the network's order, by their first block.
    """
    with _bench(model, images, labels, blocks, residual, loss, batch_size) as bench:
        orders = []
        for first, second in _pairs(bench.calls):
            order = list(range(len(bench.calls)))
            order[first], order[second] = second, first
            orders.append(order)
        return _reordered(bench, orders, [1] * len(orders), progress)


def kendall_tau(order: Sequence[int]) -> float:
    """Return Kendall's rank correlation of an order of distinct numbers with the rising one; NaN for fewer than two.

    The share of pairs in rising order less that of pairs in falling order.
    """
    values = np.asarray(order)
    first, second = np.triu_indices(len(values), 1)
    return float(np.sign(values[second] - values[first]).mean()) if len(first) else float("nan")


Way = Callable[..., Tensor]


@dataclass(frozen=True)
class _Bench:
    """A network in evaluation mode with its images: error and loss by one way through its blocks or another."""

    model: nn.Module
    found: Found
    calls: list[Call]
    images: Tensor
    labels: Tensor
    loss: Loss
    batch_size: int

    def measure(self, ways: Sequence[Way], progress: Progress | None) -> list[tuple[float, float]]:
        """Return error in per cent and loss for each way."""
        measured = []
        for done, way in enumerate(ways, 1):
            measured.append(self._one(way))
            if progress is not None:
                progress(done, len(ways))
        return measured

    @torch.no_grad()
    def _one(self, way: Way) -> tuple[float, float]:
        wrong, total = 0, 0.0
        for images, labels in chunks(self.model, self.images, self.labels, self.batch_size):
            with reroute_blocks(self.found, way):
                logits = self.model(images)
            total += float(self.loss(logits, labels)) * len(images)
            wrong += int((logits.argmax(1) != labels).sum())
        return 100 * wrong / len(self.images), total / len(self.images)


@contextmanager
def _bench(
    model: nn.Module, images: Tensor, labels: Tensor, blocks: Blocks, residual: bool, loss: Loss, batch_size: int
) -> Iterator[_Bench]:
    found = find_blocks(getattr(model, "_orig_mod", model), blocks, residual)
    with preserve_state(model) as lent:
        some, _ = next(chunks(lent, images, labels, batch_size))
        yield _Bench(lent, found, survey(lent, found, some[:2]), images, labels, loss, batch_size)


def _deletable(call: Call) -> bool:
    return call.keeps_shape or not (call.parts.join is None or call.parts.whole)


def _removed(call: Call) -> str:
    if not _deletable(call):
        shapes = ("x".join(map(str, shape)) for shape in (call.shape_in, call.shape_out))
        return f"not deleted: it changes the shape from {' to '.join(shapes)}, which the identity cannot do"
    return "block" if call.parts.join is None else "branch"


def _deleted(bench: _Bench, chosen: Sequence[tuple[str, ...]], progress: Progress | None) -> list[tuple[float, float]]:
    """Measure the whole network, then without some of its blocks."""
    return bench.measure([_whole, *(_without(bench.calls, names) for names in chosen)], progress)


def _reordered(
    bench: _Bench, orders: Sequence[Sequence[int]], swaps: Sequence[int], progress: Progress | None
) -> Reorderings:
    ways = [_in_order(bench.calls, order) for order in orders]
    whole, *others = bench.measure([_whole, *ways], progress)
    errors, losses = np.array(others, dtype=np.float64).T
    taus = np.array([kendall_tau(order) for order in orders])
    names = tuple(call.name for call in bench.calls)
    return Reorderings(*whole, names, np.array(swaps), np.array(orders), taus, errors, losses)


def _whole(name: str, parts: Parts, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    return parts.apply(x, *args, **kwargs)


def _without(calls: Sequence[Call], names: Sequence[str]) -> Way:
    shapes = {call.name: call.shape_branch for call in calls if call.name in names}

    def way(name: str, parts: Parts, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return parts.shortcut_alone(x, shapes[name]) if name in shapes else parts.apply(x, *args, **kwargs)

    return way


def _in_order(calls: Sequence[Call], order: Sequence[int]) -> Way:
    standing = {call.name: calls[other].parts for call, other in zip(calls, order, strict=True)}

    def way(name: str, parts: Parts, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return standing[name].apply(x, *args, **kwargs)

    return way


def _pairs(calls: Sequence[Call]) -> list[tuple[int, int]]:
    pairs = [
        (first, second)
        for second in range(len(calls))
        for first in range(second)
        if calls[first].keeps_shape and calls[second].keeps_shape and calls[first].shape_in == calls[second].shape_in
    ]
    if not pairs:
        raise LeadlineError(f"no two of {len(calls)} blocks keep one shape, so none can change places")
    return sorted(pairs)
