"""Gradient, activation and update flow at every step of any training loop, at little cost.

with probe(model) as flow:
    for images, labels in batches:
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
flow.frame()
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle

from leadline.errors import SpecError, unknown
from leadline.probes.buffer import Buffer
from leadline.probes.outputs import Clock, Outputs
from leadline.probes.schedules import Schedule, every
from leadline.probes.selection import ALL, select
from leadline.probes.table import ACTIVATION_GRADIENT, DEAD, UPDATE, WEIGHT_GRADIENT, FlowTable

if TYPE_CHECKING:
    import pandas as pd

OF_WEIGHTS = ("gradients", "updates")
OF_OUTPUTS = ("activations", "activation-gradients")
WHAT = OF_WEIGHTS + OF_OUTPUTS


def probe(
    model: nn.Module,
    optimizer: torch.optim.Optimizer | Iterable[torch.optim.Optimizer] | None = None,
    layers: str | Sequence[str] = ALL,
    what: str | Sequence[str] | None = None,
    schedule: Schedule | None = None,
    *,
    images: int | None = 16,
    steps_per_epoch: int | None = None,
    first_step: int = 0,
    capacity: int = 1024,
    after_step: "Callable[[Flow], None] | None" = None,
) -> "Flow":
    """Measure inside a model while it trains, as a context manager; the model and its training are not changed.

    `what` is any of

    - `gradients`: norm of the gradient of each weight, as the optimizer finds it: accumulated, clipped, unscaled;
    - `updates`: norm of each weight's change in the step / its norm before; keeps a copy of the weights;
    - `activations`: of each chosen module's output its mean, second moment, fraction of zeros, and the fraction of
      its channels that were never other than 0 since the epoch began; of each residual block the norm of its branch /
      the norm of its shortcut, as they are added;
    - `activation-gradients`: norm of the loss's gradient with respect to each chosen module's output.

    What is measured of outputs is measured on the first `images` of a batch, and a gradient's norm scaled by
    sqrt(batch / images) to estimate that of the whole batch; all else is exact. Dimension 0 of an output is taken for
    the batch; its channels are dimension 1 of four or five, the last of two or three (in a model with 1-D
    convolutions: dimension 1 of three).

    A step is whatever the model does until its optimizer steps; several passes are summed up as one batch would be,
    up to equal weights of their means. A module that is called again in one pass, as in a recurrent network, has a
    series of its own for each call: `cell`, `cell#2`, ... Only passes in training mode with gradients count.

    Of a model that torch.compile has compiled, in whole or in part, weights are measured and outputs are not: probe
    the model before it is compiled and run it uncompiled to see those. Within reentrant checkpointing nothing is
    measured, within the other kind everything is. Under a gradient scaler, gradients of outputs carry its scale.

    Args:
        model: any module; its parameters' device holds the buffer.
        optimizer: the optimizer whose steps are measured, or several that together make one step; None: every optimizer
            that holds any of the model's parameters. Without a torch optimizer, call `Flow.step`.
        layers: `"*"`, or patterns of module names; see `leadline.probes.selection.select`.
        what: see above; None: all that can be measured.
        schedule: whether to measure at a step, given the number of steps before it; None: always. At other steps
            there are no hooks on the modules and no work.
        images: number of images of each batch whose outputs are measured; None: all.
        steps_per_epoch: ends an epoch by itself after so many steps; None: only `Flow.epoch_end` does.
        first_step: number of the first step, for training that is resumed.
        capacity: rows kept on the device before they are copied to the host at once.
        after_step: called after each measured step.

    Raises:
        SpecError: an argument is impossible, or asks for outputs of a compiled model.
    """
    return Flow(model, optimizer, layers, what, schedule, images, steps_per_epoch, first_step, capacity, after_step)


@dataclass(frozen=True, eq=False)
class FlowPart:
    """What a probe has measured in an epoch, for another probe that continues it in the same model."""

    table: FlowTable  # without the fractions of dead units, which only the whole epoch tells
    active: Mapping[str, Tensor]  # by output: which channels were other than 0 so far, bool [channels]


class Flow:
    """What `probe` measures. Memory: capacity x series float32 on the device, and steps x series on the host."""

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer | Iterable[torch.optim.Optimizer] | None,
        layers: str | Sequence[str],
        what: str | Sequence[str] | None,
        schedule: Schedule | None,
        images: int | None,
        steps_per_epoch: int | None,
        first_step: int,
        capacity: int,
        after_step: "Callable[[Flow], None] | None",
    ) -> None:
        for name, value in (("images", images), ("steps_per_epoch", steps_per_epoch), ("capacity", capacity)):
            if value is not None and value < 1:
                raise SpecError(f"{name}: {value} is too small; expected a whole number of 1 or more")
        self._what = _what(model, what)
        model = getattr(model, "_orig_mod", model)
        chosen = select(model, layers)
        self._model = model
        self._weights = chosen.weights
        self._blocks = chosen.blocks
        self._own = {id(parameter) for parameter in model.parameters()}
        self._optimizers = [optimizer] if isinstance(optimizer, torch.optim.Optimizer) else list(optimizer or ())
        for given in self._optimizers:
            if not self._owns(given):
                raise SpecError(
                    f"the {type(given).__name__} optimizer holds none of the model's parameters; pass the optimizer"
                    f" that trains it, or None"
                )
        self._schedule = schedule or every(1)
        self._steps_per_epoch = steps_per_epoch
        self._after_step_call = after_step
        device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
        # squares of small gradients are below what float32 can hold; Apple's devices have nothing longer
        self._number = torch.float32 if device.type == "mps" else torch.float64
        self._clock = Clock()
        self._buffer = Buffer(device, capacity)
        for kind, asked in ((WEIGHT_GRADIENT, "gradients"), (UPDATE, "updates")):
            if asked in self._what:
                for name in self._weights:
                    self._buffer.column(kind, name)
        self._outputs = Outputs(
            model,
            chosen.units,
            chosen.joins,
            "activations" in self._what,
            "activation-gradients" in self._what,
            images,
            self._buffer.column,
            self._number,
            self._clock,
        )
        self._handles: list[RemovableHandle] = []
        self._kept: dict[str, Tensor] = {}  # weights before the step
        self._kept_by_hand = False
        self._stepped: set[int] = set()  # ids of the optimizers that have stepped in this step
        self._step = first_step
        self._due = False

    @property
    def seconds(self) -> float:
        """Seconds that measuring has taken on the host; on a GPU, those of launching its work."""
        return self._clock.seconds

    @property
    def watches_outputs(self) -> bool:
        """Whether outputs are measured in the step that comes next."""
        self._close_if_stepped()
        return self._due and self._looks_at_outputs()

    def __enter__(self) -> Self:
        if self._handles:
            raise SpecError("this probe is already active; create another with probe(model)")
        pre, post = self._before_optimizer, self._after_optimizer
        for optimizer in self._optimizers:
            self._handles += [optimizer.register_step_pre_hook(pre), optimizer.register_step_post_hook(post)]
        if not self._optimizers:
            self._handles += [register_optimizer_step_pre_hook(pre), register_optimizer_step_post_hook(post)]
        if self._looks_at_outputs():
            self._handles.append(self._model.register_forward_pre_hook(self._new_pass))
        self._open()
        return self

    def __exit__(self, *_: object) -> None:
        self._outputs.detach()
        while self._handles:
            self._handles.pop().remove()
        self._close_if_stepped()
        self._outputs.detach()
        self._outputs.pending.clear()
        self._kept.clear()

    def step(self) -> None:
        """End a step by hand, where no torch optimizer does: call it when weights have changed and gradients are there.

        An update is what has changed since the last call, so there is none at the first.
        """
        if not self._stepped:
            with self._clock:
                if self._due:
                    self._read_gradients(self._weights)
                    if self._kept_by_hand:
                        self._read_updates(self._weights)
            self._stepped.add(0)
        self._close_if_stepped()
        with self._clock:
            self._kept_by_hand = self._due and self._keep(self._weights)

    def epoch_end(self) -> None:
        """End an epoch: the count of dead units restarts, and the measurements are copied to the host at once."""
        self._close_if_stepped()
        with self._clock:
            self._end_epoch()

    def table(self, last: int | None = None) -> FlowTable:
        """Return what was measured up to the last finished step, or its last rows only.

        The last row has the fraction of dead units of the epoch so far.
        """
        self._close_if_stepped()
        with self._clock:
            return self._buffer.table(last, self._outputs.dead(), self._blocks, self.seconds)

    def part(self) -> FlowPart:
        """Return what was measured up to the last finished step, for `resume`."""
        self._close_if_stepped()
        with self._clock:
            names = {column: name for (_, name), column in self._buffer.columns.items()}
            table = self._buffer.table(None, {}, self._blocks, self.seconds)
            return FlowPart(table, {names[column]: active for column, active in self._outputs.active.items()})

    def resume(self, part: FlowPart) -> None:
        """Resume from the measurements of another probe with the same arguments, before the first step of this one."""
        self._buffer.restore(part.table)
        self._clock.seconds = part.table.seconds
        for name, active in part.active.items():
            self._outputs.active[self._buffer.column(DEAD, name)] = active.to(self._buffer.device)

    def frame(self) -> "pd.DataFrame":
        """Return what was measured as a table of one row per value: see `FlowTable.frame`."""
        return self.table().frame()

    def _looks_at_outputs(self) -> bool:
        return any(what in self._what for what in OF_OUTPUTS)

    def _owns(self, optimizer: torch.optim.Optimizer) -> bool:
        return any(id(parameter) in self._own for group in optimizer.param_groups for parameter in group["params"])

    def _weights_of(self, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
        held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        return {name: weight for name, weight in self._weights.items() if id(weight) in held}

    def _new_pass(self, module: nn.Module, args: Any) -> None:
        if self._outputs.counts():
            # with several optimizers, it is the next pass that tells that all have stepped
            self._close_if_stepped()
            self._outputs.new_pass()

    def _before_optimizer(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if not self._owns(optimizer):
            return
        if id(optimizer) in self._stepped:
            self._close_if_stepped()
        if self._due:
            with self._clock:
                weights = self._weights_of(optimizer)
                if not _has_closure(args, kwargs):
                    self._read_gradients(weights)
                self._keep(weights)

    def _after_optimizer(self, optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
        if not self._owns(optimizer):
            return
        if self._due:
            with self._clock:
                weights = self._weights_of(optimizer)
                if _has_closure(args, kwargs):
                    self._read_gradients(weights)
                self._read_updates(weights)
        self._stepped.add(id(optimizer))

    @torch.no_grad()
    def _read_gradients(self, weights: Mapping[str, Tensor]) -> None:
        if "gradients" in self._what:
            found = {name: _dense(weight.grad) for name, weight in weights.items() if weight.grad is not None}
            self._put(WEIGHT_GRADIENT, found, self._norms(list(found.values())))

    @torch.no_grad()
    def _keep(self, weights: Mapping[str, Tensor]) -> bool:
        if "updates" in self._what:
            for name in weights.keys() - self._kept.keys():
                self._kept[name] = torch.empty_like(weights[name])
            if weights:
                torch._foreach_copy_([self._kept[name] for name in weights], list(weights.values()))
        return "updates" in self._what

    @torch.no_grad()
    def _read_updates(self, weights: Mapping[str, Tensor]) -> None:
        if "updates" in self._what and weights:
            kept = [self._kept[name] for name in weights]
            before = torch.stack(self._norms(kept))
            torch._foreach_sub_(kept, list(weights.values()))
            change = torch.stack(self._norms(kept))
            ratios = torch.where(change == 0, 0.0, change / before)  # no change of zeros is none
            self._put(UPDATE, weights, ratios.unbind())

    def _norms(self, tensors: list[Tensor]) -> list[Tensor]:
        return list(torch._foreach_norm(tensors, 2, dtype=self._number)) if tensors else []

    def _put(self, kind: str, names: Iterable[str], values: Sequence[Tensor]) -> None:
        for name, value in zip(names, values, strict=True):
            self._outputs.pending[self._buffer.column(kind, name)] = [value]

    def _open(self) -> None:
        self._due = bool(self._schedule(self._step))
        if self._due and self._looks_at_outputs():
            self._outputs.attach()
        else:
            self._outputs.detach()

    def _close_if_stepped(self) -> None:
        if not self._stepped:
            return
        self._stepped.clear()
        measured = self._due
        with self._clock, torch.no_grad():
            if measured:
                self._buffer.append(self._step, self._gathered())
            self._outputs.pending.clear()
            self._outputs.new_pass()
            self._step += 1
            if self._steps_per_epoch is not None and self._step % self._steps_per_epoch == 0:
                self._end_epoch()
            self._open()
        if measured and self._after_step_call is not None:
            self._after_step_call(self)

    def _gathered(self) -> dict[int, Tensor]:
        """Return one scalar per column: of several passes, what one batch of them all would have given."""
        norms = {column for (kind, _), column in self._buffer.columns.items() if kind == ACTIVATION_GRADIENT}
        gathered = {}
        for column, values in self._outputs.pending.items():
            if len(values) == 1:
                gathered[column] = values[0]
            elif column in norms:
                gathered[column] = torch.linalg.vector_norm(torch.stack(values))
            else:
                gathered[column] = torch.stack(values).mean()
        return gathered

    @torch.no_grad()
    def _end_epoch(self) -> None:
        self._buffer.amend(self._outputs.dead())
        self._buffer.flush()
        self._outputs.active.clear()


def _what(model: nn.Module, what: str | Sequence[str] | None) -> tuple[str, ...]:
    compiled = any(
        hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None
        for module in model.modules()
    )
    if what is None:
        return OF_WEIGHTS if compiled else WHAT
    asked = (what,) if isinstance(what, str) else tuple(what)
    for one in asked:
        if one not in WHAT:
            raise SpecError(unknown("what to measure", one, WHAT))
        if compiled and one in OF_OUTPUTS:
            raise SpecError(
                f"what={one!r}: outputs inside a compiled model cannot be measured; use {' and '.join(OF_WEIGHTS)},"
                " or probe the model before torch.compile"
            )
    if not asked:
        raise SpecError(f"what: empty; expected at least one of {', '.join(WHAT)}")
    return asked


def _has_closure(args: Any, kwargs: Any) -> bool:
    """Whether the optimizer computes the gradients itself; its hooks are given itself and its step's arguments."""
    return any(callable(one) for one in (*args[1:], kwargs.get("closure")))


def _dense(gradient: Tensor) -> Tensor:
    return gradient.coalesce().values() if gradient.is_sparse else gradient
