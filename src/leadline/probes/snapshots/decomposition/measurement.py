"""The residual decomposition: what of a gradient came straight down the shortcuts, and what through the branches.

"Comparative Study between CNNs and Deep Residual Networks" (2019), equations 5 and 7, after He et al. 2016.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from leadline.errors import LeadlineError
from leadline.probes.blocks import (
    Blocks,
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
from leadline.probes.traces import Trace, to_double, traces


@dataclass(frozen=True)
class Decomposition:
    """Gradient of a loss at the input of every block, first to last, and its two parts; arrays are [blocks].

    Attributes:
        blocks: names; a block that is called again is `name#2`.
        total: norm of autograd's gradient dL/dx_l over the whole batch.
        direct: norm of the part that came straight down the shortcuts.
        through: norm of the part that came through at least one branch.
        cosine: between the two parts; NaN where one is zero.
        share: of the direct part, <direct, total> / <total, total>. That of the other is 1 - share.
        gap: norm of total - direct - through, over total's: floating point's error; more says that the blocks are no
            chain, and that the decomposition does not hold.
    """

    blocks: tuple[str, ...]
    total: NDArray[np.float64]
    direct: NDArray[np.float64]
    through: NDArray[np.float64]
    cosine: NDArray[np.float64]
    share: NDArray[np.float64]
    gap: NDArray[np.float64]

    def frame(self) -> Any:
        """Return a DataFrame in long form: `number` of the block from 1, its name `block`, `quantity`, `value`."""
        return _long(self, ("total", "direct", "through", "cosine", "share", "gap"))


@dataclass(frozen=True)
class SplitGradient:
    """The gradient at one block's input, shaped as that input: autograd's total, and its two parts."""

    block: str
    total: Tensor
    direct: Tensor
    through: Tensor


def split_gradients(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    blocks: Blocks = None,
    residual: bool = False,
    loss: Loss = cross_entropy,
    training: bool = False,
    seed: int = 0,
) -> list[SplitGradient]:
    """Return the gradient at every block's input in its two parts, first block to last, as tensors.

    Arguments are those of `decompose`; the batch is taken whole, and three gradients a block are kept.

    Raises:
        LeadlineError: there are no such blocks.
    """
    found = find_blocks(getattr(model, "_orig_mod", model), blocks, residual)
    with preserve_state(model, training, seed) as lent:
        (one,) = traces(lent, images, labels, found, loss, training, max(len(images), 1))
        return list(_split(one))[::-1]


def decompose(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    blocks: Blocks = None,
    residual: bool = False,
    loss: Loss = cross_entropy,
    training: bool = False,
    batch_size: int = 128,
    seed: int = 0,
    progress: Progress | None = None,
) -> Decomposition:
    """Split dL/dx_l at every block's input into its direct part and that through the branches (equation 7).

    Exact for every order of layers: what precedes the branching, follows the addition or stands between blocks is on
    both paths. A plain block has no direct path.

    Args:
        model: any network; left as it was.
        images: [batch, ...].
        labels: [batch, ...].
        blocks: names of submodules, or their parts by name; None: those that say themselves what they are made of (see
            `leadline.probes.blocks.find_blocks`). They must follow each other in a chain.
        residual: take named submodules as x + F(x), all that they add to their input being the branch: for one whose
            addition is followed by a ReLU, give its `Parts` instead.
        loss: of logits and labels: a mean over the images.
        training: whether batch normalisation uses the batch's statistics; the batch is then taken whole.
        batch_size: most images at once in evaluation mode, which bounds the memory to a training step's of so many.
        seed: of what the network itself draws in training mode.
        progress: called with chunks done and in all.

    Raises:
        LeadlineError: there are no such blocks, or no images.
    """
    found = find_blocks(getattr(model, "_orig_mod", model), blocks, residual)
    names: tuple[str, ...] = ()
    products: NDArray[np.float64] | int = 0
    with preserve_state(model, training, seed) as lent:
        passes = 1 if training or batch_size < 1 else -(-len(images) // batch_size)
        for done, one in enumerate(traces(lent, images, labels, found, loss, training, batch_size), 1):
            names = tuple(segment.name for segment in one.segments)
            products = products + np.array([_products(split) for split in _split(one)])[::-1]
            if progress is not None:
                progress(done, passes)
    assert isinstance(products, np.ndarray)  # an empty batch was refused
    total, direct, through, direct_total, direct_through, gap = products.T
    with np.errstate(divide="ignore", invalid="ignore"):
        return Decomposition(
            names,
            np.sqrt(total),
            np.sqrt(direct),
            np.sqrt(through),
            direct_through / (np.sqrt(direct) * np.sqrt(through)),
            direct_total / total,
            np.sqrt(gap) / np.sqrt(total),
        )


def _split(one: Trace) -> Iterator[SplitGradient]:
    """Walk down from the last block: what is direct stays so along shortcuts alone."""
    totals = one.totals()
    direct, through = one.top, torch.zeros_like(one.top)
    for number in reversed(range(len(one.segments))):
        segment = one.segments[number]
        branch = segment.by_branch(direct + through)
        direct, through = segment.by_shortcut(direct), segment.by_shortcut(through) + branch
        yield SplitGradient(segment.name, totals[number], direct, through)
        direct, through = one.below(number, direct, through)


def _products(split: SplitGradient) -> list[float]:
    total, direct, through = to_double(split.total), to_double(split.direct), to_double(split.through)
    gap = total - direct - through
    pairs = [(total, total), (direct, direct), (through, through), (direct, total), (direct, through), (gap, gap)]
    return [float(a @ b) for a, b in pairs]


@dataclass(frozen=True)
class BranchSums:
    """What each block adds to the sum that its output is, first to last; arrays are [blocks].

    A stretch is a run of blocks over which x_L = x_l + the sum of branches holds exactly, since the shortcuts between
    them pass their input on unchanged and nothing stands before, after or between. A pre-activation network has one
    for each of its stages; where a ReLU follows the addition, each block is one of its own, up to that ReLU.

    Attributes:
        blocks: names; a block that is called again is `name#2`.
        stretch: number of the block's stretch, from 1.
        input: norm of the block's input.
        shortcut: norm of what the shortcut brings to the addition.
        branch: norm of what the branch brings to the addition.
        cosine: between the two; NaN where one is zero.
        base_share: <b, s> / <s, s>, with s the sum at the end of the block's stretch, of what the stretch's first
            shortcut brings.
        share: the same of what this block's branch brings. Over a stretch they sum, with `base_share`, to 1.
        gap: norm of s less all that sums to it, over that of s: floating point's error.
    """

    blocks: tuple[str, ...]
    stretch: NDArray[np.int64]
    input: NDArray[np.float64]
    shortcut: NDArray[np.float64]
    branch: NDArray[np.float64]
    cosine: NDArray[np.float64]
    base_share: NDArray[np.float64]
    share: NDArray[np.float64]
    gap: NDArray[np.float64]

    def frame(self) -> Any:
        """Return a DataFrame in long form: `number` of the block from 1, its name `block`, `quantity`, `value`."""
        names = ("stretch", "input", "shortcut", "branch", "cosine", "base_share", "share", "gap")
        return _long(self, names)


@dataclass(frozen=True)
class _Addition:
    name: str
    entry: Tensor
    shortcut: Tensor
    branch: Tensor
    joined: Tensor
    out: Tensor


def sum_of_branches(
    model: nn.Module,
    images: Tensor,
    *,
    blocks: Blocks = None,
    residual: bool = False,
    training: bool = False,
    batch_size: int = 128,
    seed: int = 0,
    progress: Progress | None = None,
) -> BranchSums:
    """Measure the terms of x_L = x_l + the sum of branches (equation 5), wherever it is exact.

    What the shortcut brings is what the block's join gives for a branch of zeros; what the branch brings is the rest:
    for a gate, with the factors that the gate takes at this input. Blocks without a shortcut are left out.

    Args:
        model: any network; left as it was.
        images: [batch, ...].
        blocks: see `decompose`.
        residual: take named submodules as x + F(x).
        training: whether batch normalisation uses the batch's statistics; the batch is then taken whole.
        batch_size: most images at once in evaluation mode; their blocks' inputs, terms and outputs are kept.
        seed: of what the network itself draws in training mode.
        progress: called with chunks done and in all.

    Raises:
        LeadlineError: there are no such blocks, or none has a shortcut.
    """
    found = find_blocks(getattr(model, "_orig_mod", model), blocks, residual)
    with preserve_state(model, training, seed) as lent, torch.no_grad():
        size = max(len(images), 1) if training else batch_size

        def parts() -> Iterator[Tensor]:
            return (some for some, _ in chunks(lent, images, images, size))

        if not any(call.parts.join for call in survey(lent, found, next(parts()))):
            raise LeadlineError("no block has a shortcut, so nothing is added; expected a residual network")
        # one chunk may pass an addition's ReLU unchanged by chance, so all are asked before any sum is taken
        continued = np.logical_and.reduce([_continues(_additions(lent, found, some)) for some in parts()])
        products: NDArray[np.float64] | int = 0
        names: tuple[str, ...] = ()
        for done, some in enumerate(parts(), 1):
            additions = _additions(lent, found, some)
            names = tuple(addition.name for addition in additions)
            products = products + np.array(_terms(additions, continued))
            if progress is not None:
                progress(done, -(-len(images) // size))
    assert isinstance(products, np.ndarray)
    entry, shortcut, branch, both, base, own, end, gap = products.T
    with np.errstate(divide="ignore", invalid="ignore"):
        return BranchSums(
            names,
            np.cumsum(~continued),
            np.sqrt(entry),
            np.sqrt(shortcut),
            np.sqrt(branch),
            both / (np.sqrt(shortcut) * np.sqrt(branch)),
            base / end,
            own / end,
            np.sqrt(gap) / np.sqrt(end),
        )


def _additions(model: nn.Module, found: Found, images: Tensor) -> list[_Addition]:
    additions: list[_Addition] = []

    def look(name: str, parts: Parts, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        z = parts.before(x)
        y = parts.branch(z, *args, **kwargs)
        if parts.join is None:
            return parts.after(y)
        joined = parts.join(z, y)
        shortcut = parts.join(z, torch.zeros_like(y))
        out = parts.after(joined)
        additions.append(_Addition(name, x, shortcut, joined - shortcut, joined, out))
        return out

    with reroute_blocks(found, look):
        model(images)
    return additions


def _continues(additions: list[_Addition]) -> NDArray[np.bool_]:
    """Say of each addition whether it goes on with the sum of the one before."""
    result = [False]
    for last, this in pairwise(additions):
        untouched = this.entry is last.out and torch.equal(last.out, last.joined)
        result.append(untouched and torch.equal(this.shortcut, this.entry))
    return np.array(result)


def _terms(additions: list[_Addition], continued: NDArray[np.bool_]) -> list[list[float]]:
    starts = [*np.flatnonzero(~continued).tolist(), len(additions)]
    rows = []
    for first, stop in pairwise(starts):
        stretch = additions[first:stop]
        base, end = to_double(stretch[0].shortcut), to_double(stretch[-1].joined)
        rest = end - base
        for addition in stretch:
            rest -= to_double(addition.branch)
        for addition in stretch:
            entry, shortcut, branch = (
                to_double(addition.entry),
                to_double(addition.shortcut),
                to_double(addition.branch),
            )
            pairs = [(entry, entry), (shortcut, shortcut), (branch, branch), (shortcut, branch)]
            pairs += [(base, end), (branch, end), (end, end), (rest, rest)]
            rows.append([float(a @ b) for a, b in pairs])
    return rows


def _long(result: Decomposition | BranchSums, quantities: tuple[str, ...]) -> Any:
    import pandas as pd

    wide_form = pd.DataFrame({name: getattr(result, name) for name in quantities})
    wide_form.insert(0, "block", list(result.blocks))
    wide_form.insert(0, "number", np.arange(1, len(result.blocks) + 1))
    return wide_form.melt(["number", "block"], var_name="quantity", value_name="value")
