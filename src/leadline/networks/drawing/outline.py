"""What a drawing of a network shows: its layers in words, and its blocks with what repeats folded into one.

Everything is read from the built network, so a drawing cannot say anything else than what runs.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Literal

from torch import nn

from leadline.networks.modules.blocks import Block
from leadline.networks.modules.layers import (
    Dropout,
    Multiply,
    Scale,
    Shift,
    StandardisedConv2d,
    StochasticDepth,
    ZeroPad,
)
from leadline.networks.modules.network import Network, RecurrentCell
from leadline.networks.modules.shortcuts import Add, Concatenate, Custom, Gated
from leadline.specs import NetworkSpec
from leadline.specs.network import Normalisation
from leadline.text import plural

Sizes = dict[nn.Module, tuple[int, ...]]
"""The shape that each module gave for one image, without the batch."""

Kind = Literal["convolution", "normalisation", "activation", "pooling", "linear", "noise", "scalar", "other"]

NORMALISATIONS: dict[Normalisation, tuple[str, str]] = {
    "batch": ("BN", "batch normalisation"),
    "layer": ("LN", "layer normalisation"),
    "instance": ("IN", "instance normalisation"),
    "group": ("GN", "group normalisation"),
}
_ACTIVATIONS = {"LeakyReLU": "leaky ReLU", "Tanh": "tanh", "Sigmoid": "sigmoid", "Softplus": "softplus"}


@dataclass(frozen=True)
class Layer:
    """One layer: what it is, its details, and the range of its rate over the blocks that are drawn as one."""

    kind: Kind
    name: str
    detail: str = ""
    rates: tuple[float, float] | None = field(default=None, compare=False)

    @property
    def text(self) -> str:
        """The layer in words, such as `3×3 conv, 64, /2`."""
        return ", ".join(part for part in (self.name, self.detail, self.rate) if part)

    @property
    def rate(self) -> str:
        """The rate in words, empty where there is none."""
        return "–".join(f"{rate:.2g}" for rate in dict.fromkeys(self.rates)) if self.rates else ""


@dataclass(frozen=True)
class Shortcut:
    """The way around a branch: its layers, and how it meets the branch again."""

    join: Literal["add", "concatenate", "custom"]
    layers: tuple[Layer, ...] = ()
    padded: bool = False  # an identity whose missing channels are zeros: drawn dashed
    words: str = ""
    gate: tuple[Layer, ...] = ()
    exclusive: bool = False  # the gate weighs the branch too


@dataclass(frozen=True)
class BlockOutline:
    """A block as it is drawn, and how many consecutive blocks of the network are drawn so."""

    before: tuple[Layer, ...]
    branch: tuple[Layer, ...]
    shortcut: Shortcut | None
    after: tuple[Layer, ...]
    size: tuple[int, ...] | None  # None where it grows from block to block
    count: int = 1
    shared: bool = False  # one block's weights at every step
    own_normalisation: bool = False  # at every step, beside what is shared
    first: int = field(default=1, compare=False)  # its number within the stage


@dataclass(frozen=True)
class Recurrence:
    """A simple RNN cell, unrolled."""

    features: int
    width: int
    steps: int


@dataclass(frozen=True)
class Omission:
    """Stages that are left out of a drawing."""

    stages: int
    blocks: int


@dataclass(frozen=True)
class Fork:
    """Where a way around several pieces begins, of a module that somebody else wrote."""

    number: int  # of the way, within the drawing


@dataclass(frozen=True)
class Joint:
    """Where it meets them again."""

    number: int
    join: Literal["add", "concatenate", "custom"]
    words: str


Piece = BlockOutline | Recurrence | Omission | Fork | Joint | tuple[Layer, ...]


@dataclass(frozen=True)
class Part:
    """A part of the network, drawn on one ground: the stem, a stage, a transition, the head."""

    name: str
    pieces: tuple[Piece, ...]
    size: tuple[int, ...]  # of what it gives
    repeats: int = 1  # how many times the part stands in the network, one after the other
    parameters: int | None = None  # None: not told

    @property
    def blocks(self) -> int:
        """How many of the network's blocks the part stands for."""
        counts = [piece.count if isinstance(piece, BlockOutline) else 0 for piece in self.pieces]
        counts += [piece.blocks for piece in self.pieces if isinstance(piece, Omission)]
        return self.repeats * sum(counts)


def outline(network: Network, spec: NetworkSpec, sizes: Sizes, most_stages: int) -> list[Part]:
    """Return the parts of a network in their order.

    Args:
        network: what is drawn.
        spec: what it was built from; it tells normalisations apart that are one kind of module.
        sizes: what each of the network's modules gave for one image.
        most_stages: networks of more stages have periods of stages folded, and what is still too many left out.
    """
    words = _Words(spec)
    parts: list[Part] = []
    if len(network.stem):
        parts.append(Part("Stem", (words.layers(network.stem),), sizes[network.stem]))
    stages = [list(_stage(stage, number, words, sizes)) for number, stage in enumerate(network.stages, 1)]
    if len(stages) > most_stages:
        stages = _shorten(stages, most_stages)
    parts += [part for stage in stages for part in stage]
    return [*parts, Part("Head", tuple(_head(network.head, words)), sizes[network.head])]


def _stage(stage: nn.Module, number: int, words: "_Words", sizes: Sizes) -> Iterator[Part]:
    blocks = [module for module in stage.children() if isinstance(module, Block)]
    pieces: list[Piece] = list(_fold(_outlines(blocks, words, sizes)))
    size = sizes[blocks[-1]]
    transitions = []
    for name, module in stage.named_children():
        if isinstance(module, Block):
            continue
        if isinstance(module, nn.Sequential):
            transitions.append(Part(name.capitalize(), (words.layers(module),), sizes[module]))
        else:
            pieces.append(words.layers(nn.Sequential(module)))
            size = sizes[module]
    yield Part(f"Stage {number}", tuple(pieces), size)
    yield from transitions


def _outlines(blocks: list[Block], words: "_Words", sizes: Sizes) -> Iterator[BlockOutline]:
    """Return the outline of each block by itself."""
    weighted = [{module for module in block.modules() if list(module.parameters(recurse=False))} for block in blocks]
    for i, block in enumerate(blocks):
        beside = set[nn.Module]().union(*weighted[max(0, i - 1) : i], *weighted[i + 1 : i + 2])
        shared = weighted[i] & beside
        weighing = words.layers(block.join.branch) if isinstance(block.join, Add) else ()
        yield BlockOutline(
            words.layers(block.before),
            (*words.layers(block.branch), *weighing),
            None if block.join is None else words.shortcut(block.join),
            words.layers(block.after),
            None if isinstance(block.join, Concatenate) else sizes[block],
            shared=bool(shared),
            own_normalisation=bool(shared) and shared < weighted[i],
            first=i + 1,
        )


def _fold(blocks: Iterator[BlockOutline]) -> Iterator[BlockOutline]:
    """Fold consecutive blocks that would be drawn alike into one."""
    for block, group in groupby(blocks):
        same = list(group)
        yield replace(block, branch=_merge_rates(block.branch, same[-1].branch), count=len(same))


def _merge_rates(first: tuple[Layer, ...], last: tuple[Layer, ...]) -> tuple[Layer, ...]:
    """Return the layers with their rates from those of the first block to those of the last."""
    pairs = zip(first, last, strict=True)
    return tuple(replace(a, rates=(a.rates[0], b.rates[1])) if a.rates and b.rates else a for a, b in pairs)


def _head(head: nn.Sequential, words: "_Words") -> Iterator[Piece]:
    for recurrent, modules in groupby(head, lambda module: isinstance(module, RecurrentCell)):
        if not recurrent:
            yield words.layers(nn.Sequential(*modules))
            continue
        for cell in modules:
            if isinstance(cell, RecurrentCell):
                yield Recurrence(cell.input.in_features, cell.hidden.out_features, cell.steps)


# --- many stages


def _shorten(stages: list[list[Part]], most: int) -> list[list[Part]]:
    """Fold periods of stages into one, and leave out the middle of what is still too many."""
    keys = [[replace(part, name="") for part in stage] for stage in stages]
    folded: list[list[Part]] = []
    counts: list[int] = []  # of the network's stages in each entry
    while (done := sum(counts)) < len(stages):
        period, times = find_period(keys, done, range(1, 5))
        parts = [part for stage in stages[done : done + period] for part in stage]
        if times > 1:
            each = f"{period} stages × {times}" if period > 1 else "all alike"
            name = f"Stages {done + 1}–{done + period * times}: {each}"
            last = [part for stage in stages[done + period * (times - 1) : done + period * times] for part in stage]
            pieces = zip(*([piece for part in ends for piece in part.pieces] for ends in (parts, last)), strict=True)
            parts = [Part(name, tuple(_extend_rates(a, b) for a, b in pieces), parts[-1].size, times)]
        folded.append(parts)
        counts.append(period * times)
    if len(folded) <= most:
        return folded
    ends = most // 2
    middle = folded[ends:-ends]
    left_out = Omission(sum(counts[ends:-ends]), sum(part.blocks for stage in middle for part in stage))
    return [*folded[:ends], [Part("", (left_out,), middle[-1][-1].size)], *folded[-ends:]]


def _extend_rates(piece: Piece, last: Piece) -> Piece:
    """Return a piece whose rates reach to those of the last one like it."""
    if isinstance(piece, BlockOutline) and isinstance(last, BlockOutline):
        return replace(piece, branch=_merge_rates(piece.branch, last.branch))
    return piece


def find_period(items: Sequence[object], start: int, periods: Iterable[int]) -> tuple[int, int]:
    """Return the length of the period that repeats farthest from here, and how many times it stands.

    Args:
        items: a list whose equal entries are drawn alike.
        start: position of the first.
        periods: lengths that are tried, the first of equally far ones being taken; (1, 1) if none repeats.
    """
    best = (1, 1)
    for period in periods:
        times = 1
        while items[start : start + period] == items[start + times * period : start + (times + 1) * period] != []:
            times += 1
        if times > 1 and period * times > best[0] * best[1]:
            best = (period, times)
    return best


# --- words


class _Words:
    """Names modules as papers do."""

    def __init__(self, spec: NetworkSpec) -> None:
        self.normalisation = NORMALISATIONS.get(spec.normalisation, ("norm", ""))[0]

    def layers(self, module: nn.Module) -> tuple[Layer, ...]:
        """Return the layers of a module in their order; those that do nothing are none."""
        if isinstance(module, nn.Sequential):
            return tuple(layer for child in module for layer in self.layers(child))
        return () if isinstance(module, nn.Identity) else (layer_of(module, self.normalisation),)

    def shortcut(self, join: nn.Module) -> Shortcut:
        """Return the way around the branch."""
        if isinstance(join, Concatenate):
            return Shortcut("concatenate", words="concatenate")
        if isinstance(join, Custom):
            return Shortcut("custom", words=type(join.custom).__name__)
        if not isinstance(join, Add | Gated):
            return Shortcut("add", self.layers(join))
        pads = [module for module in join.path.modules() if isinstance(module, ZeroPad)]
        layers = self.layers(join.path)
        gate = (*self.layers(join.gate), Layer("activation", "σ")) if isinstance(join, Gated) else ()
        exclusive = isinstance(join, Gated) and join.exclusive
        words = [] if any(layer.kind in ("convolution", "linear") for layer in layers) else ["identity"]
        for pad in pads:
            if pad.padding:
                words.append(f"+{plural(pad.padding, 'zero channel')}")
            if pad.stride > 1:
                words.append(f"/{pad.stride}")
        drawn = tuple(layer for layer in layers if layer.name != "zero pad")
        return Shortcut("add", drawn, bool(pads), ", ".join(words), gate, exclusive)


def layer_of(module: nn.Module, normalisation: str = "norm") -> Layer:
    """Return a module as a layer; `normalisation` is the name of batch and group normalisation."""
    match module:
        case nn.Conv2d():
            kernel, kind = module.kernel_size, "WS conv" if isinstance(module, StandardisedConv2d) else "conv"
            detail = f"{module.out_channels}{_format_stride(module.stride)}"
            detail += f", {module.groups} groups" if module.groups > 1 else ""
            return Layer("convolution", f"{kernel[0]}×{kernel[1]} {kind}", detail)
        case nn.BatchNorm1d() | nn.BatchNorm2d() | nn.GroupNorm():
            return Layer("normalisation", normalisation)
        case nn.MaxPool2d():
            return Layer("pooling", f"{_format_size(module.kernel_size)} max", f"pool{_format_stride(module.stride)}")
        case nn.AvgPool2d():
            return Layer("pooling", f"{_format_size(module.kernel_size)} avg", f"pool{_format_stride(module.stride)}")
        case nn.AdaptiveAvgPool2d():
            return Layer("pooling", "global avg", "pool")
        case nn.Linear():
            return Layer("linear", "linear", str(module.out_features))
        case Dropout():
            return Layer("noise", "dropout", f"{module.rate:g}")
        case StochasticDepth():
            return Layer("noise", "drop path", rates=(module.rate, module.rate))
        case Multiply():
            return Layer("scalar", f"× {module.factor:g}")
        case Scale():
            return Layer("scalar", "× α")
        case Shift():
            return Layer("scalar", "+ β")
        case ZeroPad():
            return Layer("other", "zero pad")
        case nn.Flatten():
            return Layer("other", "flatten")
    name = type(module).__name__
    known = module.__class__.__module__.startswith("torch.nn.modules.activation")
    return Layer("activation" if known else "other", _ACTIVATIONS.get(name, name))


def _format_stride(stride: object) -> str:
    """Return a stride as He et al. 2015 write it, empty for none."""
    step = max(stride) if isinstance(stride, tuple) else stride
    return f", /{step}" if step != 1 else ""


def _format_size(size: object) -> str:
    return "×".join(map(str, size)) if isinstance(size, tuple) else f"{size}×{size}"
