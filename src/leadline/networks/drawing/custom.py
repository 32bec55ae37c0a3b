"""The outline of a module that somebody else wrote, from the graph of what it computes."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal, cast

from torch import nn

from leadline.networks.drawing.outline import (
    BlockOutline,
    Fork,
    Joint,
    Layer,
    Part,
    Piece,
    Shortcut,
    find_period,
    layer_of,
)
from leadline.networks.drawing.tracing import JOINS, Node, Region, regions, trace
from leadline.networks.modules import InputShape

MOST_IN_A_BLOCK = 24
"""Nodes of a block with ways inside ways; where there are more, the outer way is drawn around the pieces inside."""
LONGEST_PERIOD = 6

_NORMS = (
    ((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), "BN"),
    ((nn.LayerNorm,), "LN"),
    ((nn.GroupNorm,), "GN"),
    ((nn.InstanceNorm1d, nn.InstanceNorm2d), "IN"),
)
_FUNCTIONS = {  # kind, name, detail
    "relu": ("activation", "ReLU", ""),
    "gelu": ("activation", "GELU", ""),
    "silu": ("activation", "SiLU", ""),
    "tanh": ("activation", "tanh", ""),
    "sigmoid": ("activation", "sigmoid", ""),
    "softmax": ("activation", "softmax", ""),
    "leaky_relu": ("activation", "leaky ReLU", ""),
    "max_pool2d": ("pooling", "max", "pool"),
    "avg_pool2d": ("pooling", "avg", "pool"),
    "adaptive_avg_pool2d": ("pooling", "global avg", "pool"),
    "mean": ("pooling", "mean", ""),
    "batch_norm": ("normalisation", "BN", ""),
    "layer_norm": ("normalisation", "LN", ""),
    "group_norm": ("normalisation", "GN", ""),
    "scaled_dot_product_attention": ("other", "attention", ""),
    "interpolate": ("other", "resize", ""),
}


@dataclass(frozen=True)
class _Placed:
    """A piece, the nodes that it stands for, and the module that holds these."""

    piece: Piece
    nodes: tuple[Node, ...]
    owner: str
    part: str = ""

    @property
    def size(self) -> tuple[int, ...]:
        return self.nodes[-1].shape

    @property
    def plain(self) -> bool:
        return isinstance(self.piece, tuple)

    @property
    def weights(self) -> frozenset[str]:
        """Paths of the layers that have parameters."""
        return frozenset(node.path for node in self.nodes if _parameters([node]))


def outline_module(module: nn.Module, input_shape: InputShape, name: str) -> list[Part]:
    """Return the parts of any module in their order.

    Args:
        module: left as it is.
        input_shape: channels, height, width of an image.
        name: of the module, for messages.

    Raises:
        SpecError: its output cannot be followed back to its input.
    """
    nodes, watched = trace(module, input_shape, name)
    writer = _Outline(watched, nodes)
    return list(writer.parts(writer.pieces(nodes[1:], 0)))


class _Outline:
    def __init__(self, module: nn.Module, nodes: Sequence[Node]) -> None:
        self.module = module
        self.shapes = {node.number: node.shape for node in nodes}
        self.root = _common([_place(node) for node in nodes[1:]])
        if isinstance(self._module(self.root), nn.Module) and any(node.path == self.root for node in nodes):
            self.root = self.root.rpartition(".")[0]
        self.ways = 0

    # --- pieces

    def pieces(self, nodes: Sequence[Node], start: int) -> list[_Placed]:
        """Return what a graph of nodes is made of."""
        found: list[_Placed] = []
        for region in regions(nodes, start):
            new = (
                self._joined(region)
                if region.ways
                else [_Placed((_layer(region.end),), (region.end,), _place(region.end))]
            )
            for placed in new:
                found += self._continue(found, placed)
        return found

    def _continue(self, found: list[_Placed], placed: _Placed) -> list[_Placed]:
        """Return a piece, or take it into the last one: a layer that ends a block, and a block that layers begin."""
        last = found[-1] if found else None
        if last is None:
            return [placed]
        if isinstance(last.piece, BlockOutline) and placed.plain and self._within(placed, last.owner):
            block = replace(last.piece, after=(*last.piece.after, *cast(tuple[Layer, ...], placed.piece)))
            found[-1] = replace(last, piece=block, nodes=(*last.nodes, *placed.nodes))
            return []
        if isinstance(placed.piece, BlockOutline) and last.plain:
            taken = 0
            while taken < len(last.nodes) and self._holds(placed.owner, last.nodes[-taken - 1]):
                taken += 1
            if taken:
                layers = cast(tuple[Layer, ...], last.piece)
                block = replace(placed.piece, before=layers[len(layers) - taken :])
                found.pop()
                if len(layers) > taken:
                    rest = last.nodes[: len(layers) - taken]
                    found.append(replace(last, piece=layers[: len(layers) - taken], nodes=rest))
                return [replace(placed, piece=block, nodes=(*last.nodes[len(layers) - taken :], *placed.nodes))]
        if last.plain and placed.plain and self._part(last) == self._part(placed) and self._same_map(last, placed):
            layers = (*cast(tuple[Layer, ...], last.piece), *cast(tuple[Layer, ...], placed.piece))
            found[-1] = replace(last, piece=layers, nodes=(*last.nodes, *placed.nodes))
            return []
        return [placed]

    def _same_map(self, last: _Placed, placed: _Placed) -> bool:
        """Return whether two pieces may stand side by side without the size of what is between them."""
        return bool(self._part(last)) or len(last.size) < 3 or last.size[1:] == placed.size[1:]

    def _within(self, placed: _Placed, owner: str) -> bool:
        return all(self._holds(owner, node) for node in placed.nodes)

    def _holds(self, owner: str, node: Node) -> bool:
        return owner != self.root and (node.owner == owner or node.owner.startswith(f"{owner}."))

    def _joined(self, region: Region) -> list[_Placed]:
        """Return ways that part and meet: a block, a way around other pieces, or a box where there is more to it."""
        join, ways = region.end, [*region.ways, *([()] if region.direct else [])]
        nodes = (*(node for way in region.ways for node in way), join)
        nodes = tuple(sorted(nodes, key=lambda node: node.number))
        single = all([node for node in way if node.number in join.inputs] == [way[-1]] for way in region.ways)
        if join.join and len(ways) == 2 and single:
            around, branch = sorted(ways, key=len)
            inside, outside = self.pieces(branch, region.start), self.pieces(around, region.start) if around else []
            if all(placed.plain for placed in outside):
                layers = tuple(layer for placed in outside for layer in cast(tuple[Layer, ...], placed.piece))
                words = "" if layers else "identity"
                if self._stands_apart(inside, branch, join):
                    return self._around(region.start, inside, layers, join)
                block = self._block(inside, Shortcut(_join(join), layers, words=_words(join, words)), join)
                return [_Placed(block, nodes, join.owner)]
        return [_Placed((self._box(nodes, len(ways)),), nodes, join.owner)]

    def _stands_apart(self, inside: list[_Placed], branch: Sequence[Node], join: Node) -> bool:
        """Return whether a way goes around pieces of the network, rather than around the branch of a block."""
        nested = [placed.piece for placed in inside if not placed.plain]
        skips = [one for one in nested if not (isinstance(one, BlockOutline) and _is_gate(one))]
        hourglass = any(len(node.shape) == len(join.shape) == 3 and node.shape[1:] < join.shape[1:] for node in branch)
        if join.owner == self.root and (nested or hourglass):
            return True
        return bool(skips) and (hourglass or len(branch) > MOST_IN_A_BLOCK)

    def _block(self, inside: list[_Placed], shortcut: Shortcut, join: Node) -> BlockOutline:
        branch = tuple(layer for placed in inside for layer in self._layers(placed))
        size = None if shortcut.join == "concatenate" else join.shape
        return BlockOutline((), branch, shortcut, (), size)

    def _layers(self, placed: _Placed) -> tuple[Layer, ...]:
        return placed.piece if isinstance(placed.piece, tuple) else (self._box(placed.nodes, 2),)

    def _around(self, start: int, inside: list[_Placed], layers: tuple[Layer, ...], join: Node) -> list[_Placed]:
        self.ways += 1
        number, words = self.ways, " then ".join(layer.text for layer in layers)
        fork = _Placed(Fork(number), (Node(start, (), self.shapes[start], join.owner),), join.owner)
        return [fork, *inside, _Placed(Joint(number, _join(join), _words(join, words)), (join,), join.owner)]

    def _box(self, nodes: Sequence[Node], ways: int) -> Layer:
        """Return ways that are not drawn one by one as a layer."""
        if nodes[0].module is not None and {node.path for node in nodes} == {nodes[0].path}:
            return Layer("other", type(nodes[0].module).__name__, f"{len(nodes)} steps")
        module = self._module(_common([_place(node) for node in nodes]))
        name = type(module).__name__ if module is not None and module is not self._module(self.root) else ""
        if not name:
            return Layer("other", f"{ways} ways", nodes[-1].join or nodes[-1].function)
        return Layer("other", name, f"{ways} ways" if ways > 2 else "")

    def _module(self, path: str) -> nn.Module | None:
        return self.module.get_submodule(path) if path else self.module

    # --- parts

    def parts(self, placed: Sequence[_Placed]) -> Iterator[Part]:
        """Yield pieces in parts: those of one module, or of one size, together, repetitions folded."""
        for part, group in self._groups(placed):
            title = part
            for pieces, times, own in _fold(group):
                name = title or ("Blocks" if any(isinstance(piece, BlockOutline) for piece in pieces) else "")
                name = name if times == 1 else f"{name} × {times}"
                yield Part(name, tuple(pieces), own[-1].size, times, _parameters(n for one in own for n in one.nodes))
                title = f"{part}, continued" if part else ""

    def _groups(self, placed: Sequence[_Placed]) -> Iterator[tuple[str, list[_Placed]]]:
        forks = [one.piece.number for one in placed if isinstance(one.piece, Fork)]
        named = [
            replace(one, piece=replace(one.piece, number=forks.index(one.piece.number) + 1))
            if isinstance(one.piece, Fork | Joint)
            else replace(one, part=self._part(one))
            for one in placed
        ]
        for i, one in enumerate(named):
            if isinstance(one.piece, Fork):
                named[i] = replace(one, part=named[i - 1].part if i else self._next(named, i))
        for i in reversed(range(len(named))):
            if isinstance(named[i].piece, Joint):
                named[i] = replace(named[i], part=self._next(named, i) or named[i - 1].part)
        single = {
            part
            for part, group in groupby(named, lambda one: one.part)
            if [type(one.piece) for one in group] == [BlockOutline]
        }
        named = [replace(one, part="") if one.part in single else one for one in named]
        for part, group in groupby(named, lambda one: one.part):
            same = list(group)
            if part:
                yield part, same
                continue
            begin = 0
            for i in range(1, len(same)):
                if len(same[i].size) == 3 and len(same[i - 1].size) == 3 and same[i].size[1:] != same[i - 1].size[1:]:
                    yield "", same[begin:i]
                    begin = i
            yield "", same[begin:]

    def _next(self, named: Sequence[_Placed], i: int) -> str:
        return next((one.part for one in named[i + 1 :] if not isinstance(one.piece, Fork | Joint)), "")

    def _part(self, placed: _Placed) -> str:
        """Return the name of the part of the network that a piece stands in; empty: it is one of its own."""
        if isinstance(placed.piece, Fork | Joint):
            return ""
        places = [_place(node) for node in placed.nodes]
        if isinstance(placed.piece, BlockOutline):  # the network itself may join what one of its parts gives
            places = [place for place in places if place != self.root] or places
        below = _common(places)
        inner = below.removeprefix(self.root).removeprefix(".")
        first = inner.partition(".")[0]
        path = f"{self.root}.{first}" if self.root else first
        return "" if not first or any(node.path == path for node in placed.nodes) else first


def _place(node: Node) -> str:
    return node.path or node.owner


def _common(paths: Sequence[str]) -> str:
    """Return the longest path that all paths begin with."""
    parts = [path.split(".") for path in paths]
    common = []
    for names in zip(*parts, strict=False):
        if len(set(names)) > 1:
            break
        common.append(names[0])
    return ".".join(common)


def _is_gate(block: BlockOutline) -> bool:
    return block.shortcut is not None and block.shortcut.join == "custom"


def _parameters(nodes: Iterable[Node]) -> int:
    modules = {node.module for node in nodes if node.module is not None}
    return sum(one.numel() for one in {p for module in modules for p in module.parameters()})


def _join(node: Node) -> Literal["add", "concatenate", "custom"]:
    return "custom" if node.join == "multiply" else cast(Literal["add", "concatenate"], node.join)


def _words(node: Node, words: str) -> str:
    return f"multiply, {words}".removesuffix(", ") if node.join == "multiply" else words


def _fold(group: Sequence[_Placed]) -> list[tuple[list[Piece], int, list[_Placed]]]:
    """Return pieces with what repeats folded: blocks alike into one with their number, then periods of pieces.

    Each entry has the pieces, how many times they stand there, and all that they stand for.
    """
    pieces: list[Piece] = []
    members: list[list[_Placed]] = []
    first = 1
    for _, alike in groupby(group, lambda one: one.piece):
        same = list(alike)
        piece = same[0].piece
        if isinstance(piece, BlockOutline):
            weights = {one.weights for one in same}
            shared = len(same) > 1 and len(weights) == 1 and weights != {frozenset()}
            pieces.append(replace(piece, count=len(same), first=first, shared=shared))
            members.append(same)
            first += len(same)
        else:
            pieces += [one.piece for one in same]
            members += [[one] for one in same]
    found: list[tuple[list[Piece], int, list[_Placed]]] = []
    done = 0
    while done < len(pieces):
        period, times = find_period(pieces, done, range(2, LONGEST_PERIOD + 1))
        own = [one for some in members[done : done + period * times] for one in some]
        if times == 1 and found and found[-1][1] == 1:
            found[-1][0].extend(pieces[done : done + period])
            found[-1][2].extend(own)
        else:
            found.append((list(pieces[done : done + period]), times, own))
        done += period * times
    return found


# --- words


def _layer(node: Node) -> Layer:
    return _function(node) if node.module is None else _module_layer(node.module, node)


def _function(node: Node) -> Layer:
    sign = {"add": "+", "multiply": "×", "sub": "−", "div": "÷", "truediv": "÷"}.get(
        JOINS.get(node.function, node.function)
    )
    if sign and node.constant:
        return Layer("scalar", f"{sign} {node.constant}")
    if node.function in ("conv1d", "conv2d", "conv_transpose2d"):
        return Layer("convolution", "conv", str(node.shape[0]))
    if JOINS.get(node.function) == "concatenate":
        return Layer("other", "concat")
    if node.function == "linear":
        return Layer("linear", "linear", str(node.shape[-1]))
    if node.function in _FUNCTIONS:
        kind, name, detail = _FUNCTIONS[node.function]
        return Layer(kind, name, detail)  # type: ignore[arg-type]
    return Layer("other", node.function)


def _module_layer(module: nn.Module, node: Node) -> Layer:
    for kinds, short in _NORMS:
        if isinstance(module, kinds):
            return Layer("normalisation", short)
    match module:
        case nn.ConvTranspose2d():
            kernel = "×".join(map(str, module.kernel_size))
            return Layer("convolution", f"{kernel} up", f"conv, {module.out_channels}, ×{max(module.stride)}")
        case nn.AdaptiveAvgPool2d() if node.shape[1:] != (1, 1):
            return Layer("pooling", "avg pool", "to " + "×".join(map(str, node.shape[1:])))
        case nn.Dropout() | nn.Dropout1d() | nn.Dropout2d():
            return Layer("noise", "dropout", f"{module.p:g}")
        case nn.RNNBase():
            layers = f", {module.num_layers} layers" if module.num_layers > 1 else ""
            both = ", both directions" if module.bidirectional else ""
            return Layer("other", module.mode.partition("_")[0], f"{module.hidden_size} units{layers}{both}")
        case nn.MultiheadAttention():
            return Layer("other", "attention", f"{module.num_heads} heads")
        case nn.Upsample():
            return Layer("other", "upsample", "×".join(map(str, node.shape[1:])))
        case nn.Conv1d():
            return Layer("convolution", f"{module.kernel_size[0]} conv", str(module.out_channels))
    return layer_of(module)
