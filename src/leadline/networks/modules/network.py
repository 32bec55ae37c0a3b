"""From a specification to a network: stem, stages of blocks, head."""

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leadline.errors import SpecError
from leadline.networks.modules.blocks import Block, Recomputed, block
from leadline.networks.modules.init import check_widths, initialise
from leadline.networks.modules.layers import (
    NORMALISING,
    Dropout,
    Noise,
    Noisy,
    activation,
    append,
    normalisation,
    prefix,
    weight_layer,
)
from leadline.networks.modules.shapes import remember_shapes
from leadline.networks.modules.shortcuts import Custom
from leadline.seeds import NOISE, seeded, stream
from leadline.specs import NetworkSpec
from leadline.specs.network import RecurrentHead, Stage

InputShape = tuple[int, int, int]

_WINDOWS = {"average-2x2": 2, "average-4x4": 4}


class Network(nn.Module):
    """A network: `stem`, then `stages` of blocks, then `head`."""

    def __init__(self, stem: nn.Sequential, stages: nn.ModuleList, head: nn.Sequential) -> None:
        super().__init__()
        self.stem = stem
        self.stages = stages
        self.head = head
        self.noise = Noise()
        self.draws_globally = any(isinstance(module, Custom) for module in stages.modules())

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Return the logits of a batch of images."""
        x = self.stem(images)
        for stage in self.stages:
            x = stage(x)
        logits: Tensor = self.head(x)
        return logits


class RecurrentCell(nn.Module):
    """h <- tanh(W x + b + U h + c) from h = 0, for some steps, with the same x at each."""

    def __init__(self, features: int, spec: RecurrentHead) -> None:
        super().__init__()
        self.input = nn.Linear(features, spec.width)
        self.hidden = nn.Linear(spec.width, spec.width)
        self.steps = spec.steps

    def forward(self, x: Float[Tensor, "batch features"]) -> Float[Tensor, "batch width"]:
        """Return the last hidden state."""
        seen = self.input(x)
        h: Tensor = torch.zeros_like(seen)
        for _ in range(self.steps):
            h = torch.tanh(seen + self.hidden(h))
        return h

    def extra_repr(self) -> str:
        """Show the number of steps."""
        return f"steps={self.steps}"


def build_network(spec: NetworkSpec, input_shape: InputShape, classes: int, seed: int = 0) -> Network:
    """Build a network and draw its parameters.

    Args:
        spec: what to build.
        input_shape: channels, height, width of an image.
        classes: number of logits.
        seed: of the parameters' streams.

    Raises:
        SpecError: the specification cannot take images of this shape.
    """
    network = skeleton(spec, input_shape, classes).to_empty(device="cpu")
    initialise(network, spec.initialisation, seed)
    return network


def skeleton(spec: NetworkSpec, input_shape: InputShape, classes: int) -> Network:
    """Build a network on the meta device: shapes without memory, and nothing drawn.

    Raises:
        SpecError: the specification cannot take images of this shape.
    """
    if min(input_shape) < 1 or classes < 1:
        raise SpecError(f"input {'x'.join(map(str, input_shape))} and {classes} classes: each must be at least 1")
    with torch.device("meta"):
        stem, channels = _stem(spec, input_shape)
        stages = nn.ModuleList()
        total, done = sum(stage.blocks for stage in spec.stages), 0
        for stage in spec.stages:
            module, channels = _stage(spec, stage, channels, done, total)
            stages.append(module)
            done += stage.blocks
        head = nn.Sequential()
        if spec.block.order in ("full-preactivation", "relu-only-preactivation"):
            if spec.block.order == "full-preactivation":
                append(head, "norm", normalisation(spec, channels))
            head.add_module("act", activation(spec))
        if spec.head.pool == "global-average":
            head.add_module("pool", nn.AdaptiveAvgPool2d(1))
        elif spec.head.pool != "none":
            head.add_module("pool", nn.AvgPool2d(_WINDOWS[spec.head.pool]))
        if spec.layers == "convolutional":
            head.add_module("flatten", nn.Flatten())
        network = Network(stem, stages, head)
        # a forward pass takes its time in a deep network, even on the meta device
        any_size = (
            (spec.layers == "fully-connected" or spec.head.pool == "global-average")
            and spec.normalisation in ("none", "batch")
            and not any(stage.pool or stage.transition is not None for stage in spec.stages)
        )
        features = channels if any_size else _features(network, input_shape)
        if spec.head.recurrent is not None:
            head.add_module("recurrent", RecurrentCell(features, spec.head.recurrent))
            if spec.head.recurrent.dropout:
                head.add_module("recurrent_dropout", Dropout(spec.head.recurrent.dropout))
            features = spec.head.recurrent.width
        if spec.head.dropout:
            head.add_module("dropout", Dropout(spec.head.dropout))
        head.add_module("linear", nn.Linear(features, classes))
    check_widths(network, spec.initialisation)
    for name, module in network.named_modules():
        if isinstance(module, Noisy):
            module.noise, module.name = network.noise, name
    return network


def distinct_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers by name; of those that several names share, the first name alone."""
    named: dict[int, tuple[str, Tensor]] = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        named.setdefault(id(tensor), (name, tensor.detach()))
    return dict(named.values())


@torch.no_grad()
def fill_tensors(model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy values into parameters and buffers, in place, from tensors by the names of `distinct_tensors`."""
    for name, tensor in distinct_tensors(model).items():
        tensor.copy_(tensors[name])


def noise_at(
    model: nn.Module, seed: int, step: int, first: int | None = None, batch_size: int = 0
) -> AbstractContextManager[None]:
    """Let what a module draws while it trains depend on the trial's seed and the step alone, in the body.

    A model that sees only rows from `first` on of a batch of `batch_size` has their draws, out of those for the whole
    batch.

    A `Network` draws from streams. Any other module, and a custom shortcut, draws from global generators as it was
    written to: they are seeded for the step and the first row, and put back as they were, unless it says that it is
    `capturable`.
    """
    if isinstance(model, Network):
        model.noise.seed, model.noise.step = seed, step
        globally = model.draws_globally
    else:
        globally = not getattr(model, "capturable", False)
    if not globally and first is None:
        return nullcontext()  # most steps, which are short for small networks
    key = stream(seed, NOISE, step, *([first] if first else []))
    return _draw_for(model, key if globally else None, first, batch_size)


@contextmanager
def _draw_for(model: nn.Module, global_seed: int | None, first: int | None, batch_size: int) -> Iterator[None]:
    """Seed the global generators, if asked to, and let a `Network` draw for the rows from `first` on."""
    with nullcontext() if global_seed is None else seeded(global_seed):
        if not isinstance(model, Network) or first is None:
            yield
            return
        noise = model.noise
        noise.rows, noise.first = batch_size, first
        try:
            yield
        finally:
            noise.first = None


def is_capturable(model: nn.Module) -> bool:
    """Return whether a step of a model does the same with all batches of one size, so that a graph can replay it."""
    if not isinstance(model, Network):
        return bool(getattr(model, "capturable", False))
    return not model.draws_globally and not any(isinstance(module, Recomputed) for module in model.modules())


@contextmanager
def keep_draws(model: nn.Module) -> Iterator[None]:
    """Let noisy layers keep what they draw first in the body, and read it ever after: only `redraw` draws anew.

    A graph of a later pass can then be replayed: it reads these tensors, and neither makes nor fills them.
    """
    if not isinstance(model, Network):
        yield
        return
    model.noise.keeps = True
    try:
        yield
    finally:
        model.noise.keeps = False


def redraw(model: nn.Module) -> None:
    """Draw again, for the step that `noise_at` has set, what was drawn in the body of `keep_draws`."""
    if isinstance(model, Network):
        model.noise.redraw()


def _stem(spec: NetworkSpec, input_shape: InputShape) -> tuple[nn.Sequential, int]:
    stem, channels = nn.Sequential(), input_shape[0]
    if spec.layers == "fully-connected":
        stem.add_module("flatten", nn.Flatten())
        channels = math.prod(input_shape)
    if spec.stem is None:
        return stem, channels
    width, order = spec.stem.width, spec.block.order
    stem.add_module(prefix(spec), weight_layer(spec, channels, width, spec.stem.kernel, spec.stem.stride))
    # what a pre-activated first block normalises and activates is not normalised and activated here too, unless
    # it is pooled in between
    if spec.stem.pool or order not in ("full-preactivation", "preactivation-and-after"):
        append(stem, "norm", normalisation(spec, width))
        if spec.stem.pool or order != "relu-only-preactivation":
            stem.add_module("act", activation(spec))
    if spec.stem.pool:
        stem.add_module("pool", nn.MaxPool2d(3, 2, 1))
    return stem, width


def _stage(spec: NetworkSpec, stage: Stage, channels: int, done: int, total: int) -> tuple[nn.Sequential, int]:
    """Return a stage after `done` of `total` blocks, and its channels."""
    module = Recomputed() if spec.checkpoint_blocks else nn.Sequential()
    prototype: Block | None = None
    for number in range(stage.blocks):
        stride = stage.stride if number == 0 else 1
        depth = (done + number + 1) / total
        new = block(spec, stage, channels, stride, depth, first=done + number == 0 and spec.stem is not None)
        if spec.sharing is not None and channels == stage.width and stride == 1:
            if prototype is None:
                prototype = new
            else:
                _share(prototype, new, spec.sharing.normalisation == "shared")
        module.add_module(str(number), new)
        channels = channels + stage.width if spec.block.shortcut.part.widens else stage.width
    if stage.transition is not None:
        narrower = max(1, int(channels * stage.transition))
        transition = nn.Sequential()
        append(transition, "norm", normalisation(spec, channels))
        transition.add_module("act", activation(spec))
        transition.add_module("conv", weight_layer(spec, channels, narrower, 1))
        transition.add_module("pool", nn.AvgPool2d(2))
        module.add_module("transition", transition)
        channels = narrower
    if stage.pool:
        module.add_module("pool", nn.MaxPool2d(2))
    return module, channels


def _share(prototype: Block, block: Block, normalisation: bool) -> None:
    """Give a block the prototype's own layers: one set of weights, used at both places."""
    if isinstance(prototype.join, Custom):
        block.join = prototype.join
    places = dict(block.named_modules())
    for name, module in list(prototype.named_modules()):
        if list(module.children()) or not list(module.parameters(recurse=False)):
            continue
        if isinstance(module, NORMALISING) and not normalisation:
            continue
        # the pre-activation that stands before the network's first block is in the branch of those that follow
        place = name if name in places else name.replace("before.", "branch.", 1)
        parent, _, leaf = place.rpartition(".")
        setattr(block.get_submodule(parent), leaf, module)


def _features(network: Network, input_shape: InputShape) -> int:
    """Return the length of what an unfinished head flattens.

    Raises:
        SpecError: the image is too small for the network's strides and pooling.
    """
    network.eval()
    try:
        with torch.no_grad(), remember_shapes():  # without which PyTorch imports its compiler, for seconds
            return int(network(torch.empty(1, *input_shape)).shape[1])
    except (RuntimeError, ValueError):
        shape = "x".join(map(str, input_shape))
        raise SpecError(
            f"an image of {shape} is too small for the network's strides, pooling and normalisation"
        ) from None
    finally:
        network.train()
