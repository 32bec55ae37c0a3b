"""What a flow table shows, in sentences under stated thresholds: each states what was measured, not its cause."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from leadline.probes.table import ACTIVATION_GRADIENT, DEAD, UPDATE, WEIGHT_GRADIENT, FlowTable, block_of, without_call
from leadline.text import magnitude, plural

VANISHED = 1e-4
"""Of the last block's gradient norm. Gradient descent with one learning rate moves such a block ten thousand times less
far than the last: more steps than most trainings have would make one of the last block's. Deep networks with batch
normalisation come to a few thousandths, and train."""

EXPLODED = 1e4
"""Times the last block's gradient norm: the same the other way round."""

MOSTLY_DEAD = 0.5
"""Of a layer's units: more than half of what the layer could compute is not used."""

UNSTABLE_UPDATE = 0.1
"""Of a weight's norm, changed in one step: ten such steps in one direction leave little of what was learnt before.
Healthy training is near 0.001."""

Kind = Literal["vanishing", "exploding", "dead", "unstable", "healthy"]


@dataclass(frozen=True)
class Finding:
    """One thing that was measured beyond a threshold, or that nothing was."""

    kind: Kind
    sentence: str
    value: float
    threshold: float
    layer: str  # name of the series with that value


def describe(table: FlowTable) -> list[Finding]:
    """Return what a table's rows show, worst layer first in each sentence; medians are over the rows.

    Gradient norms are those of outputs where they were measured, else those of weights, and are compared with the last
    block's, or the last layer's in a model without blocks. Layers without any gradient, such as frozen ones, are left
    out. `healthy` is said only where gradients of two layers or more were measured and nothing else was found. Choose
    rows with `FlowTable.between`.
    """
    names, norms, unit = _gradients(table)
    findings = [*_unstable(table, names, norms, unit), *_flow(table, names, norms, unit), *_dead(table)]
    finite, ratios = _profile(norms)
    if findings or len(names) < 2 or finite == 0:
        return findings
    worst = int(np.argmin(ratios))
    least, greatest = magnitude(ratios.min()), magnitude(ratios.max())
    sentence = (
        f"gradient norms of all {len(names)} {unit}s are {least} to {greatest} times the last {unit}'s,"
        f" {_median(finite)}"
    )
    dead_names, dead = _latest(table, DEAD)
    if dead_names:
        sentence += f"; dead units at most {dead.max():.0%}" if dead.max() > 0 else "; no dead units"
    return [Finding("healthy", sentence, float(ratios.min()), VANISHED, names[worst])]


def judges_flow(table: FlowTable) -> bool:
    """Return whether a table's rows tell if gradients vanish or explode."""
    names, norms, _ = _gradients(table)
    return len(names) > 1 and _profile(norms)[0] > 0


def relative_to_last(norms: np.ndarray) -> np.ndarray:
    """Return norms [steps, layers] over the last layer's at each step; 0 over 0 is 0, but 1 for the last layer."""
    last = norms[:, -1:]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(norms == 0, 0.0, norms / last)
    ratios[:, -1] = 1.0
    return ratios


def _gradients(table: FlowTable) -> tuple[tuple[str, ...], np.ndarray, str]:
    """Return names and gradient norms [steps, layers], of blocks where there are any, and what they are of, in words.

    Only series that were measured at some step count.
    """
    names, values = _measured(table, ACTIVATION_GRADIENT)
    if not table.blocks:
        kind = ACTIVATION_GRADIENT if names else WEIGHT_GRADIENT
        names, values = _measured(table, kind)
        return names, values, "layer" if len(names) == table.kinds.count(kind) else "measured layer"
    own = [index for index, name in enumerate(names) if without_call(name) in table.blocks]
    if own:
        names, values = tuple(names[index] for index in own), values[:, own]
    else:
        weights, values = _measured(table, WEIGHT_GRADIENT)
        places = [block_of(name, table.blocks) for name in weights]
        held = [place for place in range(1, len(table.blocks) + 1) if place in places]
        columns = [[index for index, own_place in enumerate(places) if own_place == place] for place in held]
        norms = [np.sqrt(np.square(values[:, chosen]).sum(1)) for chosen in columns]
        names = tuple(table.blocks[place - 1] for place in held)
        values = np.stack(norms, 1) if norms else values[:, :0]
    return names, values, "block" if {*map(without_call, names)} == {*table.blocks} else "measured block"


def _measured(table: FlowTable, kind: str) -> tuple[tuple[str, ...], np.ndarray]:
    """Return names and values of those series of one kind that were measured at all."""
    names, values = table.series(kind)
    kept = np.flatnonzero(~np.isnan(values).all(0))
    return tuple(names[index] for index in kept), values[:, kept].astype(np.float64)


def _profile(norms: np.ndarray) -> tuple[int, np.ndarray]:
    """Return in how many steps all norms are finite, and by layer the median ratio to the last over those."""
    usable = norms[np.isfinite(norms).all(1)]
    if not usable.size:
        return 0, np.full(norms.shape[1], np.nan)
    return len(usable), np.median(relative_to_last(usable), 0)


def _flow(table: FlowTable, names: Sequence[str], norms: np.ndarray, unit: str) -> list[Finding]:
    steps, ratios = _profile(norms)
    if len(names) < 2 or steps == 0:
        return []
    findings = []
    dead_names, dead = _latest(table, DEAD)
    kinds: tuple[tuple[Kind, int, np.ndarray, float, str], ...] = (
        ("vanishing", int(np.argmin(ratios)), ratios < VANISHED, VANISHED, "below"),
        ("exploding", int(np.argmax(ratios)), ratios > EXPLODED, EXPLODED, "above"),
    )
    for kind, worst, beyond, threshold, side in kinds:
        if beyond.any():
            name, value = names[worst], float(ratios[worst])
            sentence = (
                f"{_place(table, name, names, unit)}: gradient norm {magnitude(value)} of the last {unit}'s,"
                f" {_median(steps)}; {side} {magnitude(threshold)} in {beyond.sum()} of {len(names)} {unit}s"
            )
            if name in dead_names and dead[dead_names.index(name)] >= MOSTLY_DEAD:
                sentence += f"; dead units {dead[dead_names.index(name)]:.0%}"
            findings.append(Finding(kind, sentence, value, threshold, name))
    return findings


def _dead(table: FlowTable) -> list[Finding]:
    names, dead = _latest(table, DEAD)
    many = dead >= MOSTLY_DEAD
    if not many.any():
        return []
    worst = int(np.argmax(dead))
    sentence = (
        f"{_place(table, names[worst], names)}: dead units {dead[worst]:.0%}, never active in what was seen of the"
        f" epoch; {MOSTLY_DEAD:.0%} or more in {many.sum()} of {len(names)} layers"
    )
    return [Finding("dead", sentence, float(dead[worst]), MOSTLY_DEAD, names[worst])]


def _unstable(table: FlowTable, names: Sequence[str], norms: np.ndarray, unit: str) -> list[Finding]:
    findings = []
    infinite = np.isinf(norms).sum(0)
    if infinite.any():
        worst = int(np.argmax(infinite))
        steps = plural(int((~np.isnan(norms[:, worst])).sum()), "step")
        place = _place(table, names[worst], names, unit)
        sentence = f"{place}: gradient norm not finite at {infinite[worst]} of {steps}"
        findings.append(Finding("unstable", sentence, float(infinite[worst]), 0.0, names[worst]))
    weights, updates = table.series(UPDATE)
    rows = updates[~np.isnan(updates).all(1)]
    if rows.size:
        medians = np.nan_to_num(np.median(np.nan_to_num(rows, nan=0.0, posinf=np.inf), 0), posinf=np.inf)
        many = medians >= UNSTABLE_UPDATE
        if many.any():
            worst = int(np.argmax(medians))
            sentence = (
                f"{weights[worst]}: one step changes it by {magnitude(medians[worst])} of its norm,"
                f" {_median(len(rows))}; {magnitude(UNSTABLE_UPDATE)} or more in {many.sum()} of {len(weights)} weights"
            )
            findings.append(Finding("unstable", sentence, float(medians[worst]), UNSTABLE_UPDATE, weights[worst]))
    return findings


def _latest(table: FlowTable, kind: str) -> tuple[tuple[str, ...], np.ndarray]:
    """Return names and last measured values of those series of one kind that were measured at all."""
    names, values = _measured(table, kind)
    return names, np.array([own[~np.isnan(own)][-1] for own in values.T])


def _place(table: FlowTable, name: str, names: Sequence[str], unit: str = "layer") -> str:
    if table.blocks:
        block = block_of(name, table.blocks)
        return name if block is None else f"block {block} of {len(table.blocks)}"
    return f"{unit} {list(names).index(name) + 1} of {len(names)} ({name})"


def _median(steps: int) -> str:
    return f"median of {plural(steps, 'step')}"
