"""Forward passes whose blocks keep a graph of each way through them, so that gradients can go back by one alone.

One forward pass with each block's input led separately into branch and shortcut lets any path be walked backwards on
the graph of that pass.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from leadline.errors import LeadlineError
from leadline.probes.blocks import Found, Loss, Parts, chunks, disable_recomputation, reroute_blocks


@dataclass(frozen=True)
class Segment:
    """One block of a forward pass, with its graph: input, what its parts were given, and output."""

    name: str
    entry: Tensor
    inner: Tensor  # after `before`
    shortcut: Tensor | None  # the shortcut's input; None: the block is plain
    branch: tuple[Tensor, ...]  # the branch's input, and the gate's
    out: Tensor

    def along(self, gradient: Tensor, way: Sequence[Tensor]) -> Tensor:
        """Return the gradient at the block's input, of one at its output that goes back by `way` alone."""
        got = torch.autograd.grad(self.out, way, gradient, retain_graph=True, allow_unused=True)
        inner = sum((part for part in got if part is not None), torch.zeros_like(self.inner))
        return _through(self.inner, self.entry, inner)

    def by_shortcut(self, gradient: Tensor) -> Tensor:
        """Return what comes back along the shortcut; zeros in a plain block."""
        return torch.zeros_like(self.entry) if self.shortcut is None else self.along(gradient, [self.shortcut])

    def by_branch(self, gradient: Tensor) -> Tensor:
        """Return what comes back through the branch, and through the gate where there is one."""
        return self.along(gradient, self.branch)


@dataclass(frozen=True)
class Trace:
    """A forward pass through a chain of blocks, and the gradient of its loss at the last one's output."""

    segments: tuple[Segment, ...]
    loss: Tensor
    top: Tensor

    def totals(self) -> tuple[Tensor, ...]:
        """Return autograd's own gradient at the input of every block."""
        entries = [segment.entry for segment in self.segments]
        return torch.autograd.grad(self.loss, entries, retain_graph=True)

    def below(self, number: int, *gradients: Tensor) -> list[Tensor]:
        """Return gradients at the output of block `number - 1`, of those at the input of block `number`."""
        if number == 0:
            return list(gradients)
        upper, lower = self.segments[number].entry, self.segments[number - 1].out
        return [_through(upper, lower, gradient) for gradient in gradients]


def _through(upper: Tensor, lower: Tensor, gradient: Tensor) -> Tensor:
    if upper is lower:
        return gradient
    (got,) = torch.autograd.grad(upper, lower, gradient, retain_graph=True, allow_unused=True)
    return torch.zeros_like(lower) if got is None else got


def trace(model: nn.Module, images: Tensor, labels: Tensor, blocks: Found, loss: Loss, scale: float = 1.0) -> Trace:
    """Run a network forward and keep, for every call of a block, the graph of its ways.

    Memory: what a training step of this batch keeps, where nothing is recomputed.

    Args:
        model: the network, in the mode that is asked for.
        images: batch, on the network's device.
        labels: of the images.
        blocks: the network's, which must form a chain: each one's input comes from the last one's output alone.
        loss: of logits and labels.
        scale: what the loss is multiplied by.

    Raises:
        LeadlineError: no block was called, or one that is known as a whole changes its input's shape.
    """
    segments: list[Segment] = []

    def split(name: str, parts: Parts, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if not x.requires_grad:
            x = x.detach().requires_grad_()
        inner = parts.before(x)
        branch, shortcut, gate = (inner.view_as(inner) for _ in range(3))
        y = parts.branch(branch, *args, **kwargs)
        if parts.join is None:
            out = parts.after(y)
            segments.append(Segment(name, x, inner, None, (branch,), out))
            return out
        if parts.whole and y.shape != x.shape:
            raise LeadlineError(
                f"block {name} changes the shape from {tuple(x.shape[1:])} to {tuple(y.shape[1:])}, so it is not x +"
                f" F(x); pass its Parts, or remove it from blocks"
            )
        if parts.gate is None:
            joined = parts.join(shortcut, y)
        else:
            handle = parts.gate.register_forward_pre_hook(lambda module, given: (gate,))
            try:
                joined = parts.join(shortcut, y)
            finally:
                handle.remove()
        out = parts.after(joined)
        segments.append(Segment(name, x, inner, shortcut, (branch, gate), out))
        return out

    with torch.enable_grad(), disable_recomputation(model), reroute_blocks(blocks, split):
        value = loss(model(images), labels) * scale
        if not segments:
            raise LeadlineError(f"{type(model).__name__}: none of its blocks is called in the forward pass")
        (top,) = torch.autograd.grad(value, segments[-1].out, retain_graph=True)
    return Trace(tuple(segments), value, top)


def traces(
    model: nn.Module, images: Tensor, labels: Tensor, blocks: Found, loss: Loss, training: bool, batch_size: int
) -> Iterator[Trace]:
    """Yield the passes of a batch, whose losses sum to the loss of the whole: in training mode, one pass."""
    size = len(images) if training else batch_size
    for some_images, some_labels in chunks(model, images, labels, max(size, 1) if training else size):
        yield trace(model, some_images, some_labels, blocks, loss, len(some_images) / len(images))


def to_double(tensor: Tensor) -> Tensor:
    """Flatten to double precision, in which squares of vanishing gradients do not underflow."""
    flat = tensor.detach().flatten()
    return flat.cpu().double() if flat.device.type == "mps" else flat.double()
