"""Blocks: a branch of weight layers, ordered with normalisation and activation, and how it is joined to its input."""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from leadline.networks.modules.layers import (
    Dropout,
    Maps,
    Scale,
    Shift,
    StochasticDepth,
    WeightLayer,
    activation,
    append,
    channels_of,
    normalisation,
    prefix,
    weight_layer,
)
from leadline.networks.modules.shortcuts import Custom
from leadline.specs import NetworkSpec, Stage


class Block(nn.Module):
    """`after(join(before(x), branch(before(x))))`; a plain block has no join: `after(branch(before(x)))`."""

    def __init__(self, before: nn.Module, branch: nn.Module, join: nn.Module | None, after: nn.Module) -> None:
        super().__init__()
        self.before = before
        self.branch = branch
        self.join = join
        self.after = after

    def forward(self, x: Maps) -> Float[Tensor, "batch wider *smaller"]:
        """Apply the block."""
        x = self.before(x)
        y = self.branch(x)
        if self.join is not None:
            y = self.join(x, y)
        out: Tensor = self.after(y)
        return out


class Recomputed(nn.Sequential):
    """A sequence that keeps few activations: about sqrt(n) of its n modules are recomputed at a time.

    Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost", section 4.1. What the modules draw must be a
    function of step and name, as `Noisy` layers draw, and batch statistics are updated once.
    """

    def forward(self, input: Maps) -> Float[Tensor, "batch wider *smaller"]:
        """Apply the modules in order."""
        x = input
        if not torch.is_grad_enabled():
            return self._through(x, 0, len(self))
        segment = math.isqrt(len(self) - 1) + 1
        draws = any(isinstance(module, Custom) for module in self.modules())  # perhaps, from global generators
        for start in range(0, len(self), segment):
            stop = min(start + segment, len(self))
            contexts = partial(self._contexts, start, stop)
            x = checkpoint(
                self._through, x, start, stop, use_reentrant=False, context_fn=contexts, preserve_rng_state=draws
            )
        return x

    def _through(self, x: Tensor, start: int, stop: int) -> Tensor:
        for module in list(self.children())[start:stop]:
            x = module(x)
        return x

    def _contexts(self, start: int, stop: int) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), _FrozenStatistics(list(self.children())[start:stop])


class _FrozenStatistics(AbstractContextManager[None]):
    """Keeps further passes over a batch, from updating running statistics again."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self.norms = [norm for module in modules for norm in module.modules() if isinstance(norm, _BatchNorm)]
        self.buffers: list[tuple[nn.Module, str, Tensor]] = []

    def __enter__(self) -> None:
        # copies, and not None, stand in for them: the second pass must save as many tensors for the backward pass
        self.buffers = [
            (norm, name, buffer) for norm in self.norms for name, buffer in norm.named_buffers(recurse=False)
        ]
        for norm, name, buffer in self.buffers:
            setattr(norm, name, buffer.clone())

    def __exit__(self, *_: object) -> None:
        for norm, name, buffer in self.buffers:
            setattr(norm, name, buffer)


def weight_layers(spec: NetworkSpec, stage: Stage, channels_in: int, stride: int) -> list[WeightLayer]:
    """Return the branch's weight layers, first to last."""
    kernel, width = spec.block.kernel, stage.width

    def conv(channels_in: int, channels_out: int, kernel: int, stride: int = 1, groups: int = 1) -> WeightLayer:
        return weight_layer(spec, channels_in, channels_out, kernel, stride, groups)

    match spec.block.kind:
        case "single":
            return [conv(channels_in, width, kernel, stride)]
        case "basic":
            inner = stage.inner_width or width
            return [conv(channels_in, inner, kernel, stride), conv(inner, width, kernel)]
        case "bottleneck":
            inner = stage.inner_width or width // 4
            first, second = (stride, 1) if spec.block.stride_in == "first-1x1" else (1, stride)
            return [
                conv(channels_in, inner, 1, first),
                conv(inner, inner, kernel, second, spec.block.groups),
                conv(inner, width, 1),
            ]
        case "dense":
            inner = stage.inner_width or 4 * width
            return [conv(channels_in, inner, 1, stride), conv(inner, width, kernel)]


def block(
    spec: NetworkSpec, stage: Stage, channels_in: int, stride: int, depth: float = 0.0, first: bool = False
) -> Block:
    """Return one block of a stage.

    Args:
        spec: the network.
        stage: the stage that the block is of.
        channels_in: channels of the block's input.
        stride: of the block.
        depth: the block's place in the network, above 0 to 1 for the last; for stochastic depth.
        first: whether it is the network's first block.

    Raises:
        SpecError: the shortcut cannot join these widths.
    """
    around = spec.block.shortcut.part.build(spec, channels_in, stage.width, stride)
    convs = weight_layers(spec, stage, channels_in, stride)
    before, branch, after = _order_layers(spec, convs, channels_in, stage.width, stride, first)
    if spec.initialisation.branch in ("skipinit", "rezero"):
        branch.add_module("scale", Scale(0.0))
    elif spec.initialisation.branch == "fixup":
        branch = _add_fixup(branch)
    if spec.block.stochastic_depth:
        branch.add_module("drop", StochasticDepth(spec.block.stochastic_depth * depth))
    return Block(before, branch, around, after)


def _order_layers(
    spec: NetworkSpec, convs: list[WeightLayer], channels_in: int, channels_out: int, stride: int, first: bool
) -> tuple[nn.Module, nn.Sequential, nn.Module]:
    """Place normalisation and activation before the block, inside its branch and after its addition.

    He et al. 2016, figure 4. A pre-activated block whose input changes its shape, and the network's first, share the
    pre-activation between branch and shortcut, as in the paper's appendix and code.
    """
    order = spec.block.order
    before, branch, after = nn.Sequential(), nn.Sequential(), nn.Sequential()
    preactivated = order in ("full-preactivation", "preactivation-and-after", "relu-only-preactivation")
    changed = channels_in != channels_out or stride != 1
    shared = order == "full-preactivation" and not spec.block.shortcut.part.widens and (first or changed)
    for number, conv in enumerate(convs, 1):
        last = number == len(convs)
        if preactivated:
            place = before if number == 1 and shared else branch
            if order != "relu-only-preactivation":
                append(place, f"norm{number}", normalisation(spec, channels_of(conv)[0]))
            place.add_module(f"act{number}", activation(spec))
        if last and spec.block.dropout:
            branch.add_module("dropout", Dropout(spec.block.dropout))
        branch.add_module(f"{prefix(spec)}{number}", conv)
        if order not in ("full-preactivation", "preactivation-and-after") and not (
            last and order == "bn-after-addition"
        ):
            append(branch, f"norm{number}", normalisation(spec, channels_of(conv)[1]))
        if not preactivated and (not last or order == "relu-before-addition"):
            branch.add_module(f"act{number}", activation(spec))
    if order in ("bn-after-addition", "preactivation-and-after"):
        append(after, "norm", normalisation(spec, channels_out))
    if order in ("original", "bn-after-addition", "preactivation-and-after"):
        after.add_module("act", activation(spec))
    return before if len(before) else nn.Identity(), branch, after if len(after) else nn.Identity()


def _add_fixup(branch: nn.Sequential) -> nn.Sequential:
    """Put a learned shift before each convolution and activation and a learned scale at the end: Zhang et al. 2019."""
    result = nn.Sequential()
    for name, module in branch.named_children():
        if name.startswith(("conv", "linear", "act")):
            result.add_module(f"shift_{name}", Shift())
        result.add_module(name, module)
    result.add_module("scale", Scale(1.0))
    result.add_module("shift_out", Shift())
    return result
