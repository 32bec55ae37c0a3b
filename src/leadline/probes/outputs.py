"""Forward hooks that measure modules' outputs: small reductions on the device, over the first images of a batch."""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from leadline.probes.table import ACTIVATION_GRADIENT, BRANCH, DEAD, MEAN, SECOND_MOMENT, ZEROS


class Clock:
    """Seconds on the host within `with clock:`; what is nested counts once."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self._depth = 0
        self._started = 0.0

    def __enter__(self) -> None:
        if self._depth == 0:
            self._started = time.perf_counter()
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            self.seconds += time.perf_counter() - self._started


class Outputs:
    """Measures the outputs of modules while its hooks are attached, in training passes with gradients only.

    Attributes:
        pending: column -> scalars of this step, one for each pass.
        active: column of `DEAD` -> which channels were other than 0 since it was emptied, bool [channels].
    """

    def __init__(
        self,
        model: nn.Module,
        units: Mapping[str, nn.Module],
        joins: Mapping[str, nn.Module],
        activations: bool,
        gradients: bool,
        images: int | None,
        column: Callable[[str, str], int],
        number: torch.dtype,
        clock: Clock,
    ) -> None:
        self.model = model
        self.units = units
        self.joins = joins if activations else {}
        self.activations = activations
        self.gradients = gradients
        self.images = images
        self.column = column
        self.number = number
        self.clock = clock
        self.pending: dict[int, list[Tensor]] = {}
        self.active: dict[int, Tensor] = {}
        self._channels_first = any(isinstance(module, nn.Conv1d | nn.ConvTranspose1d) for module in model.modules())
        self._calls: Counter[tuple[str, str]] = Counter()
        self._handles: list[RemovableHandle] = []

    def attach(self) -> None:
        """Put hooks on the modules, if they are not there."""
        if self._handles:
            return
        for name, unit in self.units.items():
            self._handles.append(unit.register_forward_hook(self._unit_hook(name, unit)))
        for name, join in self.joins.items():
            caught: dict[str, Tensor] = {}
            for part, child in join.named_children():
                self._handles.append(child.register_forward_hook(self._catch_hook(caught, part, child)))
            self._handles.append(join.register_forward_hook(self._join_hook(name, join, caught)))

    def detach(self) -> None:
        """Take the hooks away."""
        while self._handles:
            self._handles.pop().remove()

    def new_pass(self) -> None:
        """Count calls from 1 again."""
        self._calls.clear()

    def counts(self) -> bool:
        """Whether this is a training pass, and not one that recomputes activations within a backward pass."""
        return (
            not torch.compiler.is_compiling()  # a hook that is traced would be compiled into the model
            and self.model.training
            and torch.is_grad_enabled()
            and torch._C._current_graph_task_id() == -1
        )

    def dead(self) -> dict[int, Tensor]:
        """Return, by column, the fraction of channels that were 0 throughout."""
        return {column: 1 - active.to(self.number).mean() for column, active in self.active.items()}

    def _unit_hook(self, name: str, unit: nn.Module) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, result: Any) -> None:
            # a copy of the model has copies of its hooks
            if module is unit and self.counts() and (output := _tensor(result)) is not None:
                with self.clock:
                    self._look(self._named("unit", name), output)

        return hook

    def _catch_hook(self, caught: dict[str, Tensor], part: str, child: nn.Module) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, result: Any) -> None:
            if module is child and self.counts() and isinstance(result, Tensor):
                caught[part] = result.detach()[: self.images]

        return hook

    def _join_hook(self, name: str, join: nn.Module, caught: dict[str, Tensor]) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, result: Any) -> None:
            if module is join and self.counts() and len(args) == 2:
                with self.clock, torch.no_grad():
                    x, y = (arg.detach()[: self.images] for arg in args)
                    branch, shortcut = _terms(join, caught, x, y)
                    caught.clear()
                    self._add(BRANCH, self._named("join", name), self._norm(branch) / self._norm(shortcut))

        return hook

    def _named(self, role: str, name: str) -> str:
        self._calls[role, name] += 1
        calls = self._calls[role, name]
        return name if calls == 1 else f"{name}#{calls}"

    def _look(self, name: str, output: Tensor) -> None:
        sample = output.detach()[: self.images]
        if self.gradients and output.requires_grad:
            column = self.column(ACTIVATION_GRADIENT, name)
            # the rest of the batch is taken to be like its first images
            scale = math.sqrt(len(output) / len(sample)) if len(sample) else 1.0
            output.register_hook(self._gradient_hook(column, scale))  # type: ignore[no-untyped-call]
        if self.activations:
            with torch.no_grad():
                size = max(1, sample.numel())
                nonzero = self._nonzero_by_channel(sample)
                self._add(MEAN, name, sample.sum(dtype=self.number) / size)
                self._add(SECOND_MOMENT, name, self._norm(sample).square() / size)
                self._add(ZEROS, name, 1 - nonzero.sum(dtype=self.number) / size)
                column, active = self.column(DEAD, name), nonzero > 0
                known = self.active.get(column)
                fits = known is not None and known.shape == active.shape
                self.active[column] = known | active if known is not None and fits else active

    def _gradient_hook(self, column: int, scale: float) -> Callable[[Tensor], None]:
        def hook(gradient: Tensor) -> None:
            if not torch.compiler.is_compiling():
                with self.clock, torch.no_grad():
                    norm = self._norm(gradient.detach()[: self.images])
                    self.pending.setdefault(column, []).append(norm * scale)

        return hook

    def _add(self, kind: str, name: str, value: Tensor) -> None:
        self.pending.setdefault(self.column(kind, name), []).append(value)

    def _norm(self, x: Tensor) -> Tensor:
        norm: Tensor = torch.linalg.vector_norm(x, dtype=self.number)
        return norm

    def _nonzero_by_channel(self, sample: Tensor) -> Tensor:
        last = sample.ndim < 3 or (sample.ndim == 3 and not self._channels_first)
        channel = sample.ndim - 1 if last else 1
        return (sample != 0).sum([axis for axis in range(sample.ndim) if axis != channel])


def _terms(join: nn.Module, caught: Mapping[str, Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return what the branch and what the shortcut bring to a join, from what its parts gave."""
    shortcut = caught.get("path", x)
    if "gate" in caught:
        gate = torch.sigmoid(caught["gate"])
        return y * gate if getattr(join, "exclusive", False) else y, shortcut * (1 - gate)
    return caught.get("branch", y), shortcut


def _tensor(result: Any) -> Tensor | None:
    """Return the first tensor of numbers with a batch dimension in what a module returned."""
    if isinstance(result, Tensor):
        if result.ndim == 1:
            result = result[:, None]
        return result if result.ndim and result.is_floating_point() else None
    if isinstance(result, Mapping):
        result = tuple(result.values())
    if isinstance(result, tuple | list):
        return next((found for each in result if (found := _tensor(each)) is not None), None)
    return None
