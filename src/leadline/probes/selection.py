"""What of a model is measured: its weights, and the modules whose outputs are looked at, chosen by pattern."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from torch.nn.parameter import is_lazy

from leadline.errors import SpecError, unknown

ALL = "*"


@dataclass(frozen=True)
class Selection:
    """Weights and modules by name, in the order in which the model defines them."""

    weights: dict[str, nn.Parameter]  # parameters of two dimensions or more
    units: dict[str, nn.Module]  # modules whose outputs are measured
    joins: dict[str, nn.Module]  # of those units that are residual blocks: what joins branch and shortcut
    blocks: tuple[str, ...]  # every block of the model


def select(model: nn.Module, layers: str | Sequence[str] = ALL) -> Selection:
    """Choose by the names of modules.

    `"*"` alone means all weights, and as units the blocks and the largest modules beside them; or, in a model without
    blocks, every module without children. A block is a module with `before`, `branch`, `join` and `after`. Otherwise
    patterns choose modules and the weights in them: `*` stands for any part of a name between dots, `**` for any
    part of it, dots included. Weights are parameters of two dimensions or more: biases and the scales of a
    normalisation start at 0 or 1, so their ratios say little.

    Raises:
        SpecError: a pattern fits no module, or a parameter has no shape yet.
    """
    modules = {name or type(model).__name__: module for name, module in model.named_modules()}
    parameters = dict(model.named_parameters())
    for name, parameter in parameters.items():
        if is_lazy(parameter):
            raise SpecError(f"parameter {name!r} has no shape yet; run the model on one batch before measuring")
    weights = {name: parameter for name, parameter in parameters.items() if parameter.ndim > 1}
    blocks = tuple(name for name, module in modules.items() if _is_block(module))
    if tuple(layers) == (ALL,):
        units = _units(model, modules)
    else:
        units = {}
        for pattern in [layers] if isinstance(layers, str) else layers:
            fitting = {name: module for name, module in modules.items() if _expression(pattern).fullmatch(name)}
            if not fitting:
                raise SpecError(unknown("layer", pattern, modules))
            units |= fitting
        units = {name: module for name, module in modules.items() if name in units}  # in the model's order
        if model not in units.values():
            weights = {
                name: weight for name, weight in weights.items() if any(name.startswith(f"{unit}.") for unit in units)
            }
    joins = {name: module.join for name, module in units.items() if _is_block(module)}
    return Selection(
        weights, units, {name: join for name, join in joins.items() if isinstance(join, nn.Module)}, blocks
    )


def _is_block(module: nn.Module) -> bool:
    return all(hasattr(module, part) for part in ("before", "branch", "join", "after"))


def _units(model: nn.Module, modules: dict[str, nn.Module]) -> dict[str, nn.Module]:
    if not any(_is_block(module) for module in modules.values()):
        # an empty container is never called, an identity's output is its input's
        passed = (nn.Identity, nn.ModuleList, nn.ModuleDict, nn.Sequential)
        return {
            name: module
            for name, module in modules.items()
            if not any(True for _ in module.children()) and (module is model or not isinstance(module, passed))
        }
    units: dict[str, nn.Module] = {}

    def walk(name: str, module: nn.Module) -> None:
        if not _is_block(module) and any(_is_block(inner) for inner in module.modules()):
            for part, child in module.named_children():
                walk(f"{name}.{part}" if name else part, child)
        elif not isinstance(module, nn.Identity) and not (isinstance(module, nn.Sequential) and len(module) == 0):
            units[name or type(model).__name__] = module

    walk("", model)
    return units


def _expression(pattern: str) -> re.Pattern[str]:
    parts = {"**": ".*", "*": "[^.]*", "?": "[^.]"}
    return re.compile("".join(parts.get(part, re.escape(part)) for part in re.split(r"(\*\*|\*|\?)", pattern)))
