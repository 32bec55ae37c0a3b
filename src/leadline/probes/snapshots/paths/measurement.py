"""Gradients along chosen paths: back through a block's branch or its shortcut alone, and by the length of the path.

Unrolled, a network of n residual blocks is a sum over 2^n paths, each through some of the branches (Veit et al. 2016,
section 3). One forward pass with each block's input led separately into branch and shortcut lets any path be walked
backwards on the graph of that pass.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from leadline.errors import LeadlineError
from leadline.probes.blocks import (
    Blocks,
    Loss,
    Progress,
    cross_entropy,
    find_blocks,
    preserve_state,
)
from leadline.probes.traces import Trace, to_double, traces
from leadline.seeds import stream

PATHS = "paths"  # purpose of the stream that branches are drawn from


@dataclass(frozen=True)
class PathLengths:
    """Gradients at the first block's input by the number of branches on their path, 0 to n.

    Attributes:
        lengths: k, [lengths].
        sampled: norms of the gradients of single paths, [lengths, samples].
        exact: norm of the sum over all paths of a length, [n + 1]; None if not asked for.
        exact_share: that sum's inner product with the whole gradient, over the whole's squared norm, [n + 1]: sums
            to 1; None if not asked for.
        total: norm of the whole gradient.
        blocks: n, the blocks with a shortcut.
    """

    lengths: NDArray[np.int64]
    sampled: NDArray[np.float64]
    exact: NDArray[np.float64] | None
    exact_share: NDArray[np.float64] | None
    total: float
    blocks: int

    @property
    def log10_paths(self) -> NDArray[np.float64]:
        """Logarithm of the number of paths of each length, C(n, k), to base 10."""
        return np.array([_log_count(self.blocks, int(k)) for k in self.lengths]) / math.log(10)

    @property
    def share(self) -> NDArray[np.float64]:
        """Mean norm of a path of each length times their number, as a fraction of that over the lengths measured.

        Veit et al. 2016, figure 6c. In logarithms, since there may be 10^100 paths.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = self.log10_paths + np.log10(self.sampled.mean(1))
            weights = 10.0 ** (logs - logs.max())
            share: NDArray[np.float64] = weights / weights.sum()
        return share

    def effective(self, share: float = 0.95) -> tuple[int, int]:
        """Return the least and greatest length of the narrowest range of lengths that holds a share of the gradient.

        The effective paths of Veit et al. 2016, section 4.3, over the lengths that were measured.

        Raises:
            LeadlineError: the share is not above 0 and at most 1, or the gradients are not finite or all zero.
        """
        if not 0 < share <= 1:
            raise LeadlineError(f"share {share}: expected above 0 and at most 1")
        if not np.isfinite(self.share).all():
            raise LeadlineError(
                "the gradients along the paths are not finite, or all zero, so there is no range of effective lengths"
            )
        held = np.concatenate([[0.0], np.cumsum(self.share)])
        width = 1
        while (held[width:] - held[:-width]).max() < share - 1e-12:
            width += 1
        first = int(np.argmax(held[width:] - held[:-width]))
        return int(self.lengths[first]), int(self.lengths[first + width - 1])

    def frame(self) -> Any:
        """Return a DataFrame with a row per length.

        Columns: `length`; `log10_paths`; `norm`, mean over the sampled paths, with quartiles `norm_low` and
        `norm_high`; `share`; `sum_norm` and `sum_share`, of the exact sum (NaN if not asked for).
        """
        import pandas as pd

        nothing = np.full(self.blocks + 1, np.nan)
        low, high = np.quantile(self.sampled, [0.25, 0.75], axis=1)
        return pd.DataFrame(
            {
                "length": self.lengths,
                "log10_paths": self.log10_paths,
                "norm": self.sampled.mean(1),
                "norm_low": low,
                "norm_high": high,
                "share": self.share,
                "sum_norm": (nothing if self.exact is None else self.exact)[self.lengths],
                "sum_share": (nothing if self.exact_share is None else self.exact_share)[self.lengths],
            }
        )


def gradient_by_path_length(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    blocks: Blocks = None,
    residual: bool = False,
    lengths: Sequence[int] | None = None,
    samples: int = 10,
    exact: bool = True,
    loss: Loss = cross_entropy,
    training: bool = False,
    batch_size: int = 128,
    seed: int = 0,
    progress: Progress | None = None,
) -> PathLengths:
    """Measure the gradient at the first block's input that comes back along paths of each length.

    For each length k and sample, the loss's gradient goes back through the branches of k blocks drawn at random and
    through the shortcut of all others (Veit et al. 2016, section 4.3); plain blocks, which have none, are passed and
    not counted. Exactly, the sums over all paths of a length follow from c_k(l) = S' c_k(l+1) + B' c_(k-1)(l+1), with
    S' and B' back along a block's shortcut and through its branch: n^2 / 2 passes through a block instead of 2^n paths.

    Args:
        model: any network; left as it was.
        images: [batch, ...].
        labels: [batch, ...].
        blocks: see `leadline.probes.blocks.find_blocks`.
        residual: take named submodules as x + F(x).
        lengths: to sample, 0 to n; None: all.
        samples: drawn for each length; each costs a backward pass.
        exact: whether to compute the exact sums too; n / 2 backward passes and n + 1 gradients of a block's input.
        loss: of logits and labels: a mean over the images.
        training: whether batch normalisation uses the batch's statistics; the batch is then taken whole.
        batch_size: most images at once in evaluation mode, which bounds the memory to a training step's of so many.
        seed: of the draws.
        progress: called with backward passes done and in all.

    Raises:
        LeadlineError: no block has a shortcut, or a length or number is impossible.
    """
    if samples < 1:
        raise LeadlineError(f"samples {samples}: expected at least 1")
    found = find_blocks(getattr(model, "_orig_mod", model), blocks, residual)
    sums: _Sums | None = None
    with preserve_state(model, training, seed) as lent:
        for number, one in enumerate(traces(lent, images, labels, found, loss, training, batch_size)):
            if sums is None:
                sums = _Sums.of(one, lengths, samples, exact, seed, 1 if training else -(-len(images) // batch_size))
            sums.add(one, number, progress)
    assert sums is not None  # chunks refuses an empty batch
    return sums.result()


class _Sums:
    """Squared norms and inner products, summed over the chunks of a batch."""

    def __init__(self, drawn: NDArray[np.bool_], lengths: list[int], exact: bool, passes: int) -> None:
        self.drawn = drawn  # [lengths, samples, blocks with a shortcut]: whether the path takes the branch
        self.lengths = lengths
        self.exact = exact
        self.passes = passes
        self.sampled = np.zeros(drawn.shape[:2])
        self.squares, self.products = (np.zeros(drawn.shape[2] + 1) for _ in range(2))
        self.total = 0.0

    @classmethod
    def of(
        cls, first: Trace, lengths: Sequence[int] | None, samples: int, exact: bool, seed: int, passes: int
    ) -> "_Sums":
        n = sum(segment.shortcut is not None for segment in first.segments)
        if n == 0:
            raise LeadlineError(
                "no block has a shortcut, so the one path goes through every block; for a custom module, pass"
                " residual=True or Parts with a join"
            )
        chosen = list(range(n + 1)) if lengths is None else list(lengths)
        for length in chosen:
            if not 0 <= length <= n:
                raise LeadlineError(f"path length {length}: expected 0 to {n}, the number of blocks with a shortcut")
        if not chosen:
            raise LeadlineError("lengths is empty; name at least one, or None for all")
        drawn = np.zeros((len(chosen), samples, n), dtype=np.bool_)
        for row, length in enumerate(chosen):
            generator = torch.Generator().manual_seed(stream(seed, PATHS, length))
            for sample in range(samples):
                drawn[row, sample, torch.randperm(n, generator=generator)[:length].numpy()] = True
        return cls(drawn, chosen, exact, passes)

    def add(self, one: Trace, chunk: int, progress: Progress | None) -> None:
        total = to_double(one.totals()[0])
        self.total += float(total @ total)
        count = self.sampled.size + self.exact
        for index, (row, sample) in enumerate(np.ndindex(self.sampled.shape), 1):
            path = to_double(_walk(one, self.drawn[row, sample]))
            self.sampled[row, sample] += float(path @ path)
            if progress is not None:
                progress(chunk * count + index, self.passes * count)
        if self.exact:
            for length, gradient in enumerate(path_sums(one)):
                flat = to_double(gradient)
                self.squares[length] += float(flat @ flat)
                self.products[length] += float(flat @ total)
            if progress is not None:
                progress((chunk + 1) * count, self.passes * count)

    def result(self) -> PathLengths:
        with np.errstate(divide="ignore", invalid="ignore"):
            share = self.products / self.total
        return PathLengths(
            np.array(self.lengths, dtype=np.int64),
            np.sqrt(self.sampled),
            np.sqrt(self.squares) if self.exact else None,
            share if self.exact else None,
            math.sqrt(self.total),
            self.drawn.shape[2],
        )


def _walk(one: Trace, branches: NDArray[np.bool_]) -> Tensor:
    """Return the gradient of one path: through the branch where `branches` says so, the shortcut elsewhere."""
    gradient, left = one.top, len(branches)
    for number in reversed(range(len(one.segments))):
        segment = one.segments[number]
        taken = True
        if segment.shortcut is not None:
            left -= 1
            taken = bool(branches[left])
        gradient = segment.by_branch(gradient) if taken else segment.by_shortcut(gradient)
        (gradient,) = one.below(number, gradient)
    return gradient


def path_sums(one: Trace) -> list[Tensor]:
    """Return the gradients at the first block's input, summed over all paths through 0, 1, ... n branches."""
    sums = [one.top]
    for number in reversed(range(len(one.segments))):
        segment = one.segments[number]
        through = [segment.by_branch(gradient) for gradient in sums]
        if segment.shortcut is None:
            sums = through
        else:
            straight = [segment.by_shortcut(gradient) for gradient in sums]
            inside = [a + b for a, b in zip(straight[1:], through, strict=False)]
            sums = [straight[0], *inside, through[-1]]
        sums = one.below(number, *sums)
    return sums


def _log_count(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
