"""What any module computes, as a graph of its layers: watched while it takes one image, whatever its control flow.

Layers are the modules that hold no others, and those of PyTorch that are layers to their users; between them, functions
are seen as they are called. What only moves values, such as a reshape, is no node.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from leadline.errors import SpecError
from leadline.networks.modules import InputShape
from leadline.networks.modules.operations import unfused

CONTAINERS = (
    *(nn.Sequential, nn.ModuleList, nn.ModuleDict),
    *(nn.Transformer, nn.TransformerEncoder, nn.TransformerEncoderLayer, nn.TransformerDecoder),
    nn.TransformerDecoderLayer,
)
"""Modules of PyTorch that are not drawn as one layer."""
# fmt: off
MOVES = frozenset({
    "as_strided", "chunk", "clone", "contiguous", "cpu", "detach", "dropout", "expand", "expand_as", "flip", "float",
    "get", "getitem", "half", "identity", "movedim", "narrow", "permute", "reshape", "roll", "select", "split",
    "squeeze", "swapaxes", "t", "tensor_split", "to", "transpose", "type", "type_as", "unbind", "unflatten", "unfold",
    "unsqueeze", "view", "view_as",
})
# fmt: on
"""Functions that only move values, or change none in evaluation."""
JOINS = {
    **dict.fromkeys(("add", "iadd", "radd", "sum"), "add"),
    **dict.fromkeys(("cat", "concat", "concatenate"), "concatenate"),
    **dict.fromkeys(("mul", "imul", "rmul", "multiply"), "multiply"),
}


@dataclass(frozen=True)
class Node:
    """A layer or function that was called."""

    number: int  # in the order of the calls; 0: the network's input
    inputs: tuple[int, ...]  # numbers of the nodes whose results it takes
    shape: tuple[int, ...]  # of its result for one image, without the batch
    owner: str  # path of the module whose forward called it
    path: str = ""  # of the layer; empty: a function
    module: nn.Module | None = None
    function: str = ""
    constant: str = ""  # of a function: what it takes beside results

    @property
    def join(self) -> str:
        """`add`, `concatenate` or `multiply` where it joins several results so, else empty."""
        return JOINS.get(self.function, "") if len(self.inputs) > 1 else ""


def trace(module: nn.Module, input_shape: InputShape, name: str) -> tuple[list[Node], nn.Module]:
    """Return what a module computes for one image, from the input to the output, and the copy that was watched.

    Args:
        module: left as it is; it has taken an image of this shape before.
        input_shape: channels, height, width.
        name: of the module, for messages.

    Raises:
        SpecError: the output cannot be followed back to the input, because something else than PyTorch's functions
            computes in between; or the module fails while it is watched.
    """
    try:
        watched = copy.deepcopy(module).to("meta")
        nodes, end = _watch(watched, input_shape, torch.device("meta"))
    except Exception:  # whatever somebody's code may raise where tensors have no values
        watched = copy.deepcopy(module).cpu()
        try:
            with torch.random.fork_rng(devices=[]):
                nodes, end = _watch(watched, input_shape, torch.device("cpu"))
        except Exception as error:
            reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
            raise SpecError(f"{name} cannot be drawn: it fails while it is watched: {reason}") from None
    kept = _between(nodes, end)
    if 0 not in kept:
        raise SpecError(
            f"{name} cannot be drawn: its output cannot be followed back to its input through PyTorch's functions"
        )
    inside = [replace(node, inputs=tuple(i for i in node.inputs if i in kept)) for node in nodes if node.number in kept]
    return _chain_concatenations(inside), watched


def _watch(module: nn.Module, input_shape: InputShape, device: torch.device) -> tuple[list[Node], int | None]:
    """Return the nodes in the order of their calls, and the number of the one that gave the output."""
    watching = _Watching(module.eval())
    image = torch.zeros(1, *input_shape, device=device)
    watching.begin(image)
    try:
        with torch.no_grad(), unfused(), watching:
            output = module(image)
    finally:
        watching.stop()
    return watching.nodes, watching.source(output)


class _Watching(TorchFunctionMode):
    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.nodes: list[Node] = []
        self._sources: dict[int, int] = {}  # identity of a tensor -> the node that gave it
        self._kept: list[Tensor] = []  # so that no identity is used twice
        self._paths = {one: name for name, one in module.named_modules()}
        self._stack: list[str] = []
        self._inside = 0  # layers that are at work
        self._handles = []
        for one, name in self._paths.items():
            leaf = name != "" and _is_layer(one)
            self._handles.append(one.register_forward_pre_hook(self._enter_layer if leaf else self._enter))
            leave = one.register_forward_hook(self._leave_layer, with_kwargs=True) if leaf else None
            self._handles.append(leave or one.register_forward_hook(self._leave, always_call=True))

    def begin(self, image: Tensor) -> None:
        """Take an image as the input."""
        self.nodes.append(Node(0, (), tuple(image.shape[1:]), ""))
        self._note(image, 0)

    def stop(self) -> None:
        """Take the hooks away."""
        for handle in self._handles:
            handle.remove()

    def source(self, value: object) -> int | None:
        """Return the number of the node that gave a tensor; None if that is not known."""
        return self._sources.get(id(value))

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not self._inside:
            given = list(_tensors((args, kwargs)))
            made = [one for one in _tensors(result) if one.dtype.is_floating_point]
            name = getattr(func, "__name__", "function").strip("_")
            if made and any(id(one) in self._sources for one in given):
                self._add_function(name, given, args, made)
        return result

    def _add_function(self, name: str, given: list[Tensor], args: Sequence[Any], made: list[Tensor]) -> None:
        inputs = self._inputs(given)
        if name in MOVES or (JOINS.get(name) == "concatenate" and len(inputs) == len(given) == 1):
            number = inputs[0]
            if len(made) == 1 and not any(number in node.inputs for node in self.nodes):
                self.nodes[number] = replace(self.nodes[number], shape=tuple(made[0].shape[1:]))
        else:
            others = [one for one in given if id(one) not in self._sources]
            numbers = [one for one in args if isinstance(one, int | float) and not isinstance(one, bool)]
            learned = any(isinstance(one, nn.Parameter) for one in others)
            constant = "learned" if learned else "constant" if others else f"{numbers[0]:g}" if numbers else ""
            number = self._add(inputs, made[0], function=name, constant=constant)
        for one in made:
            self._note(one, number)

    def _enter(self, module: nn.Module, _args: object) -> None:
        self._stack.append(self._paths[module])

    def _leave(self, _module: nn.Module, _args: object, _output: object) -> None:
        self._stack.pop()

    def _enter_layer(self, _module: nn.Module, _args: object) -> None:
        self._inside += 1

    def _leave_layer(self, module: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
        self._inside -= 1
        if self._inside:
            return None
        given = list(_tensors((args, kwargs)))
        inputs = self._inputs(given)
        made = list(_tensors(output))
        if not inputs or not made or isinstance(module, nn.Identity):
            return None
        if isinstance(output, Tensor) and not getattr(module, "inplace", False) and any(output is one for one in given):
            output = output.view_as(output)  # another tensor than the input, which others may take
            made = [output]
        number = self._add(inputs, made[0], path=self._paths[module], module=module)
        for one in made:
            self._note(one, number)
        return output

    def _inputs(self, given: Iterable[Tensor]) -> tuple[int, ...]:
        known = [self._sources[id(one)] for one in given if id(one) in self._sources]
        return tuple(dict.fromkeys(known))

    def _add(self, inputs: tuple[int, ...], made: Tensor, **more: Any) -> int:
        owner = self._stack[-1] if self._stack else ""
        self.nodes.append(Node(len(self.nodes), inputs, tuple(made.shape[1:]), owner, **more))
        return self.nodes[-1].number

    def _note(self, tensor: Tensor, number: int) -> None:
        self._sources[id(tensor)] = number
        self._kept.append(tensor)


def _is_layer(module: nn.Module) -> bool:
    if isinstance(module, CONTAINERS):
        return False
    return type(module).__module__.startswith("torch.") or not any(True for _ in module.children())


def _tensors(value: object) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, tuple | list):
        for one in value:
            yield from _tensors(one)
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _tensors(one)


def _between(nodes: list[Node], end: int | None) -> set[int]:
    """Return the nodes on a way from the input to a node."""
    if end is None:
        return set()
    needed, reached = {end}, {0}
    for node in reversed(nodes):
        if node.number in needed:
            needed |= set(node.inputs)
    for node in nodes:
        if reached & set(node.inputs):
            reached.add(node.number)
    return needed & reached


def _chain_concatenations(nodes: list[Node]) -> list[Node]:
    """Let what concatenates all results so far take the concatenation before, and what is new."""
    found: list[Node] = []
    known: dict[tuple[int, ...], int] = {}
    for node in nodes:
        if node.join == "concatenate":
            whole = node.inputs
            for taken in range(len(whole) - 1, 1, -1):
                if whole[:taken] in known:
                    node = replace(node, inputs=(known[whole[:taken]], *whole[taken:]))
                    break
            known.setdefault(whole, node.number)
        found.append(node)
    return found


@dataclass(frozen=True)
class Region:
    """What lies between a node that everything passes and the next one: a layer, or ways that part and meet again."""

    start: int
    end: Node
    ways: tuple[tuple[Node, ...], ...] = ()  # each in order, without start and end; empty: there is nothing between
    direct: bool = False  # whether the end also takes the start's result itself


def regions(nodes: Sequence[Node], start: int) -> list[Region]:
    """Return a graph as regions, one after the other.

    Args:
        nodes: in the order of the calls, without the start; each takes results of others and of the start alone.
        start: number of the node before them.
    """
    found, inner, before = list[Region](), list[Node](), start
    goes = {number: i for i, node in enumerate(nodes) for number in node.inputs}  # the last place a result is taken to
    reach = goes.get(start, -1)
    for i, node in enumerate(nodes):
        if reach <= i:  # nothing passes it by
            found.append(Region(before, node, _ways(inner, before), before in node.inputs))
            inner, before = [], node.number
        else:
            inner.append(node)
        reach = max(reach, goes.get(node.number, -1))
    return found


def _ways(nodes: Sequence[Node], start: int) -> tuple[tuple[Node, ...], ...]:
    """Return the nodes in parts that have nothing to do with each other."""
    parts: list[list[Node]] = []
    for node in nodes:
        linked = [part for part in parts if any(one.number in node.inputs for one in part)]
        merged = sorted((one for part in linked for one in part), key=lambda one: one.number)
        parts = [part for part in parts if part not in linked]
        parts.append([*merged, node])
    return tuple(tuple(part) for part in sorted(parts, key=lambda part: part[0].number))
