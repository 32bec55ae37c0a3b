"""A live table of a model's flow while it trains, with warnings in sentences."""

import importlib.util
import sys
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from leadline.probes.flow import Flow, probe
from leadline.probes.schedules import Schedule
from leadline.probes.selection import ALL
from leadline.probes.table import (
    ACTIVATION_GRADIENT,
    BRANCH,
    DEAD,
    KINDS,
    MEAN,
    SECOND_MOMENT,
    UPDATE,
    WEIGHT_GRADIENT,
    ZEROS,
    FlowTable,
    without_call,
)
from leadline.probes.words import Finding, describe
from leadline.text import magnitude
from leadline.text.terminal import make_console

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live

WINDOW = 50
"""Measured steps that warnings are about: the latest."""

_HEADINGS = {
    ACTIVATION_GRADIENT: "gradient",
    WEIGHT_GRADIENT: "weight gradient",
    UPDATE: "update/weight",
    MEAN: "mean",
    SECOND_MOMENT: "second moment",
    ZEROS: "zeros",
    DEAD: "dead",
    BRANCH: "branch/shortcut",
}
_FRACTIONS = (ZEROS, DEAD)


def watch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer | Iterable[torch.optim.Optimizer] | None = None,
    layers: str | Sequence[str] = ALL,
    what: str | Sequence[str] | None = None,
    schedule: Schedule | None = None,
    *,
    images: int | None = 16,
    steps_per_epoch: int | None = None,
    seconds: float = 0.5,
    rows: int = 24,
    console: "Console | None" = None,
) -> "Watch":
    """Show a model's flow while it trains, as a context manager that gives the `Flow`.

    A terminal and a notebook with ipywidgets get one table that changes in place, with what `describe` finds in the
    last 50 measured steps beneath it; anything else, such as a log file, gets each finding as a line when it is first
    made.

    Args:
        model: any module.
        optimizer: as `probe` has it, like `layers`, `what`, `schedule`, `images` and `steps_per_epoch`.
        layers: which modules.
        what: which quantities.
        schedule: at which steps.
        images: number of images of each batch whose outputs are measured.
        steps_per_epoch: ends an epoch by itself.
        seconds: minimum time between two updates of the display.
        rows: maximum number of layers shown, evenly spaced over depth.
        console: where to print; None: standard output.

    Raises:
        SpecError: an argument is impossible.
    """
    display = _Display(seconds, rows, console)
    flow = probe(
        model,
        optimizer,
        layers,
        what,
        schedule,
        images=images,
        steps_per_epoch=steps_per_epoch,
        after_step=display.after_step,
    )
    return Watch(flow, display)


class Watch:
    """A `Flow` and what shows it, for one `with` statement."""

    def __init__(self, flow: Flow, display: "_Display") -> None:
        self.flow = flow
        self._display = display

    def __enter__(self) -> Flow:
        flow = self.flow.__enter__()
        try:
            self._display.start()
        except BaseException:
            flow.__exit__()
            raise
        return flow

    def __exit__(self, *raised: object) -> None:
        try:
            self.flow.__exit__(*raised)
        finally:
            self._display.stop(self.flow)


class _Display:
    def __init__(self, seconds: float, rows: int, console: "Console | None") -> None:
        self.console = console or make_console()
        self.seconds = seconds
        self.rows = rows
        self.live: Live | None = None
        self.shown_at = -float("inf")
        self.said: set[tuple[str, str]] = set()

    def start(self) -> None:
        """Start the display, updated in place where possible."""
        from rich.live import Live

        # without these widgets a notebook cannot change what it shows
        notebook = self.console.is_jupyter and importlib.util.find_spec("ipywidgets") is not None
        if self.console.is_terminal or notebook:
            own = self.console.file is sys.stdout
            self.live = Live(console=self.console, auto_refresh=False, redirect_stdout=own, redirect_stderr=own)
            self.live.start()

    def after_step(self, flow: Flow) -> None:
        """Update the display if enough time has passed since the last update."""
        if time.monotonic() - self.shown_at >= self.seconds:
            self.show(flow.table(WINDOW))
            self.shown_at = time.monotonic()

    def stop(self, flow: Flow) -> None:
        """Show the final state and stop updating."""
        try:
            table = flow.table(WINDOW)
            if len(table.steps):
                self.show(table)
        finally:
            if self.live is not None:
                self.live.stop()

    def show(self, table: FlowTable) -> None:
        """Show the latest rows and the findings in them."""
        findings = describe(table)
        if self.live is not None:
            self.live.update(_picture(table, findings, self.rows), refresh=True)
            return
        new = [finding for finding in findings if (finding.kind, finding.layer) not in self.said]
        # the layer of a healthy network's least gradient changes, and is no news
        new = [finding for finding in new if finding.kind != "healthy" or not self.said]
        for finding in new:
            self.said.add((finding.kind, finding.layer))
            text = f"step {table.steps[-1]}: {finding.kind}: {finding.sentence}"
            self.console.print(text, markup=False, highlight=False, soft_wrap=True)


def latest(table: FlowTable) -> tuple[list[str], dict[str, list[float]]]:
    """Return the layers in the order of depth, and by kind the value of each in the last row, NaN where there is none.

    Weights stand beside the module that they are in: the norm over its weights' gradients, the largest of their update
    ratios. Where no outputs were measured, every weight is a layer.
    """
    row = table.values[-1] if len(table.steps) else np.full(len(table.names), np.nan, np.float32)
    values = {(kind, name): float(value) for kind, name, value in zip(table.kinds, table.names, row, strict=True)}
    of_weights = (WEIGHT_GRADIENT, UPDATE)
    outputs = dict.fromkeys(name for kind, name in values if kind not in of_weights)
    layers = list(outputs or dict.fromkeys(name for _, name in values))
    columns = {}
    for kind in KINDS:
        if kind in of_weights and outputs:
            columns[kind] = [_over_weights(kind, without_call(layer), values) for layer in layers]
        else:
            columns[kind] = [values.get((kind, layer), np.nan) for layer in layers]
    return layers, {kind: column for kind, column in columns.items() if not np.isnan(column).all()}


def _over_weights(kind: str, layer: str, values: dict[tuple[str, str], float]) -> float:
    own = [
        value for (k, name), value in values.items() if k == kind and name.startswith(f"{layer}.") and value == value
    ]
    if not own:
        return float("nan")
    return max(own) if kind == UPDATE else float(np.sqrt(np.square(own).sum()))


def _picture(table: FlowTable, findings: Sequence[Finding], rows: int) -> Any:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    layers, columns = latest(table)
    picture = Table(title=f"step {table.steps[-1]}", title_justify="left", show_edge=False, pad_edge=False)
    picture.add_column("layer", overflow="fold")
    for kind in columns:
        picture.add_column(_HEADINGS[kind], justify="right")
    chosen = sorted({round(index) for index in np.linspace(0, len(layers) - 1, min(rows, len(layers)))})
    for index in chosen:
        cells = [_cell(kind, column[index]) for kind, column in columns.items()]
        picture.add_row(Text(layers[index]), *cells)
    lines = [
        Text(f"{finding.kind}: {finding.sentence}", style="green" if finding.kind == "healthy" else "yellow")
        for finding in findings
    ]
    if len(chosen) < len(layers):
        lines.insert(0, Text(f"{len(chosen)} of {len(layers)} layers, evenly over depth", style="dim"))
    return Group(picture, *lines)


def _cell(kind: str, value: float) -> str:
    if value != value:
        return ""
    return f"{value:.0%}" if kind in _FRACTIONS else magnitude(value)
