"""Linear CKA: how alike the representations of images are in two layers, of one network or of two."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from leadline.probes.blocks import Progress
from leadline.probes.hooks import Layers, choose_modules, forward_with_hooks
from leadline.probes.lanczos import Floats
from leadline.probes.state import ProbeError, generator, measurement_mode, prepare_batch, require_at_least

if TYPE_CHECKING:
    import pandas as pd


FEWEST = 4  # the unbiased estimator divides by n - 3


@dataclass(frozen=True)
class CKA:
    """Linear CKA of every layer of one network (rows) with every layer of another, or of the same (columns)."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    values: Floats  # rows x columns; NaN where a layer gives the same for every image
    batch_size: int
    batches: int

    def frame(self) -> "pd.DataFrame":
        """Return one row per pair: row, column, row_depth, column_depth, cka."""
        import pandas as pd

        rows, columns = self.values.shape
        return pd.DataFrame(
            {
                "row": np.repeat(self.rows, columns),
                "column": np.tile(self.columns, rows),
                "row_depth": np.repeat(np.arange(rows), columns),
                "column_depth": np.tile(np.arange(columns), rows),
                "cka": self.values.ravel(),
            }
        )


def cka(
    model: nn.Module,
    images: Tensor,
    other: nn.Module | None = None,
    *,
    layers: Layers | None = None,
    other_layers: Layers | None = None,
    batch_size: int = 128,
    passes: int = 1,
    batch_statistics: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> CKA:
    """Compare all layers of a network with all layers of the same or another one, from minibatches.

    CKA = mean HSIC(K, L) / sqrt(mean HSIC(K, K) mean HSIC(L, L)), with K and L the Gram matrices of two layers'
    outputs on a batch, HSIC's unbiased estimator, and means over batches: minibatch CKA of Nguyen et al. 2021. One
    batch of all images gives the exact full-batch value. Memory: one batch's forward pass, and layers x batch_size^2
    numbers.

    Args:
        model: any module from images to one tensor.
        images: (images, ...), at least 4.
        other: the network of the columns; None: the same.
        layers: names or patterns; None: the blocks and what stands beside them, or every module without children.
        other_layers: the same of `other`; None: chosen as by default.
        batch_size: images in a batch, at least 4; all images where there are fewer. Images that are left over after
            the last full batch are left out of that pass.
        passes: over the images, each in an order of its own; more passes bring less variance.
        batch_statistics: normalise by the batch's own statistics.
        seed: of the orders.
        progress: called with the batches done and in all.

    Raises:
        ProbeError: fewer than 4 images, or a batch smaller than that.
        SpecError: no such layer.
    """
    require_at_least("passes", passes, 1)
    require_at_least("batch_size", batch_size, FEWEST)
    if len(images) < FEWEST:
        raise ProbeError(f"{len(images)} images: expected at least {FEWEST}, as the unbiased estimator needs")
    batch_size = min(batch_size, len(images))
    per_pass = len(images) // batch_size
    sums: tuple[Floats, Floats, Floats] | None = None
    rows: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    for number in range(passes * per_pass):
        turn, place = divmod(number, per_pass)
        order = torch.randperm(len(images), generator=generator(seed, "cka", turn))
        chosen = images[order[place * batch_size : (place + 1) * batch_size].to(images.device)]
        rows, grams = _grams(model, chosen, layers, seed, batch_statistics)
        columns, others = rows, grams
        if other is not None:
            columns, others = _grams(other, chosen, other_layers, seed, batch_statistics)
        new = hsic(grams, others), np.diagonal(hsic(grams, grams)), np.diagonal(hsic(others, others))
        sums = new if sums is None else (sums[0] + new[0], sums[1] + new[1], sums[2] + new[2])
        if progress is not None:
            progress(number + 1, passes * per_pass)
    assert sums is not None  # there is at least one batch
    cross, own, others_own = sums
    with np.errstate(divide="ignore", invalid="ignore"):
        values = cross / np.sqrt(own[:, None] * others_own[None, :])
    # layers that do not tell images apart are like nothing, and not infinitely like something
    values = np.where((own[:, None] > 0) & (others_own[None, :] > 0), values, np.nan)
    return CKA(rows, columns, values, batch_size, passes * per_pass)


def hsic(first: Floats, second: Floats) -> Floats:
    """Return the unbiased HSIC of every matrix of one stack with every matrix of another.

    HSIC(K, L) = [tr(K L) + 1'K1 1'L1 / ((n - 1)(n - 2)) - 2 1'K L1 / (n - 2)] / (n (n - 3)), with the diagonals of K
    and L set to zero: HSIC_1 of Song et al. 2012, as in Nguyen et al. 2021.

    Args:
        first: symmetric matrices, (a, n, n), with n at least 4.
        second: symmetric matrices, (b, n, n).

    Returns:
        (a, b).
    """
    n = first.shape[1]
    outside = 1 - np.eye(n)
    k, el = first * outside, second * outside
    k_rows, l_rows = k.sum(2), el.sum(2)
    trace = k.reshape(len(k), -1) @ el.reshape(len(el), -1).T
    totals = np.outer(k_rows.sum(1), l_rows.sum(1)) / ((n - 1) * (n - 2))
    crossed = 2 / (n - 2) * (k_rows @ l_rows.T)
    return np.asarray((trace + totals - crossed) / (n * (n - 3)))


def _grams(
    model: nn.Module, images: Tensor, layers: Layers | None, seed: int, batch_statistics: bool
) -> tuple[tuple[str, ...], Floats]:
    """Return the names of a network's layers in the order of their calls, and their Gram matrices (layers, n, n)."""
    grams: dict[str, Floats] = {}

    def leave(name: str, x: Tensor) -> None:
        if len(x) != len(images):
            raise ProbeError(
                f"layer {name} returns shape {tuple(x.shape)} for {len(images)} images; choose other layers"
            )
        features = x.flatten(1) if x.dim() > 1 else x[:, None]
        features = features.to(torch.promote_types(x.dtype, torch.float32))
        # HSIC does not see a shift, but rounding does
        centred = features - features.mean(0)
        spread = centred.abs().amax()
        if spread <= 8 * torch.finfo(features.dtype).eps * features.abs().amax():
            # what is left of a layer that gives the same for every image is rounding
            grams[name] = np.zeros((len(x), len(x)))
            return
        # squares of small numbers leave single precision
        scaled = centred / spread
        grams[name] = (scaled @ scaled.T).cpu().double().numpy() * float(spread) ** 2

    with measurement_mode(model, seed, batch_statistics) as lent, torch.no_grad():
        forward_with_hooks(
            lent, prepare_batch(lent, images).images, choose_modules(lent, layers, beside=True), leaving=leave
        )
    if not grams:
        raise ProbeError("none of the chosen layers is called in the forward pass; choose other layers")
    return tuple(grams), np.stack(list(grams.values()))
