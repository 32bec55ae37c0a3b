"""Hooks through which probes look into a forward pass: at a network's blocks, or at modules chosen by name."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from torch import Tensor, nn

from leadline.probes.selection import ALL, select
from leadline.probes.state import ProbeError, output_of

Layers = str | Sequence[str]
"""Names of modules, or patterns: `*` stands for part of a name between dots, `**` for any part of it."""

Look = Callable[[str, Tensor], Tensor | None]
"""Given a call's name and a tensor; what it returns, if anything, goes on in the tensor's place."""


def choose_modules(model: nn.Module, layers: Layers | None, beside: bool = False) -> dict[str, nn.Module]:
    """Return modules by name.

    Args:
        model: any module.
        layers: names or patterns; None: the blocks, or every module without children in a model that has no blocks.
        beside: without `layers`, what stands beside the blocks as well, such as stem and head.

    Raises:
        SpecError: a pattern that fits no module.
    """
    chosen = select(model, ALL if layers is None else layers)
    if layers is None and chosen.blocks and not beside:
        return {name: module for name, module in chosen.units.items() if name in chosen.blocks}
    return chosen.units


def forward_with_hooks(
    model: nn.Module,
    images: Tensor,
    modules: Mapping[str, nn.Module],
    entering: Look | None = None,
    leaving: Look | None = None,
) -> Tensor:
    """Return the model's output for some images, and show what enters and leaves modules on the way.

    A module that is called more than once is told apart by call: `cell`, `cell#2`, `cell#3`.

    Args:
        model: whose forward pass is run.
        images: a chunk.
        modules: by name.
        entering: shown the first tensor that each call is given.
        leaving: shown the first tensor that it gives.

    Raises:
        ProbeError: a module that is not given, or does not give, a tensor first.
    """
    with ExitStack() as hooks:
        for name, module in modules.items():
            if entering is not None:
                hooks.callback(module.register_forward_pre_hook(_before(name, entering)).remove)
            if leaving is not None:
                hooks.callback(module.register_forward_hook(_after(name, leaving)).remove)
        return output_of(model, images)


def _before(name: str, look: Look) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...] | None]:
    calls = Counter[str]()

    def hook(_module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
        replaced = look(_call(name, calls), _first_tensor(name, given))
        return None if replaced is None else (replaced, *given[1:])

    return hook


def _after(name: str, look: Look) -> Callable[[nn.Module, Any, Any], Any]:
    calls = Counter[str]()

    def hook(_module: nn.Module, _given: Any, result: Any) -> Any:
        several = isinstance(result, tuple | list)
        replaced = look(_call(name, calls), _first_tensor(name, result if several else (result,)))
        return (replaced, *result[1:]) if several and replaced is not None else replaced

    return hook


def _call(name: str, calls: Counter[str]) -> str:
    calls[name] += 1
    return name if calls[name] == 1 else f"{name}#{calls[name]}"


def _first_tensor(name: str, values: Sequence[Any]) -> Tensor:
    if not values or not isinstance(values[0], Tensor):
        kind = type(values[0]).__name__ if values else "nothing"
        raise ProbeError(f"layer {name}: expected a tensor as the first value, found {kind}; choose other layers")
    return values[0]
