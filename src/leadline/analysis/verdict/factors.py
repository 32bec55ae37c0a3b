"""How a contrast depends on the factors that a study varies: main effects and interactions, seed by seed."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from leadline.analysis.stats import Paired, cut
from leadline.analysis.stats.factorial import mean_weights, slope_weights, step_weights, within_seeds
from leadline.analysis.verdict.findings import ArmFinding, ContrastFinding, FactorEffect
from leadline.seeds import SeedName, seed_order

Floats = NDArray[np.float64]
Level = bool | int | float | str
Of = Literal["difference", "both"]
Over = Literal["mean", "step", "slope"]
Adjust = Callable[[Sequence[float | None]], list[float | None]]

_SIDES: tuple[Of, ...] = ("difference", "both")


@dataclass(frozen=True)
class _Grid:
    """Contrasts of one pair of arms at every combination of levels."""

    factors: Mapping[str, tuple[Level, ...]]
    cells: Mapping[tuple[Level, ...], ContrastFinding]
    within: str


@dataclass(frozen=True)
class _Plan:
    """One effect: the cells that it takes, with their weights."""

    of: Of
    over: Over
    factor: str
    levels: tuple[Level, ...]
    logarithmic: bool
    weights: Mapping[tuple[Level, ...], float]


def factor_effects(
    arms: Sequence[ArmFinding], contrasts: Sequence[ContrastFinding], names_data: Collection[str], adjust: Adjust
) -> tuple[FactorEffect, ...]:
    """Return main effects of arms and factors, and how the difference between arms changes with each factor.

    Steps between neighbouring levels, numbers in rising order; of a numeric factor with three levels or more also the
    slope, per doubling where its levels are nearer to equal ratios than to equal steps. Other factors are averaged
    over. Each effect is a number per seed (see `leadline.analysis.stats.factorial`), over the seeds at which all trials
    that it needs have their value. Data sets are never averaged over: each has effects of its own. Times to a target
    are left out where their horizons differ.

    Args:
        arms, contrasts: of the study's findings.
        names_data: factors whose levels are data sets.
        adjust: p-values for how many there are.
    """
    found = [
        (grid, plan, *shown)
        for grid in _grids(arms, contrasts, names_data)
        for plan in _plans(grid)
        if (shown := _measure(grid, plan)) is not None
    ]
    adjusted = adjust([result.t_p for _, _, _, result in found])
    return tuple(_effect(*one, p) for one, p in zip(found, adjusted, strict=True))


def _grids(
    arms: Sequence[ArmFinding], contrasts: Sequence[ContrastFinding], names_data: Collection[str]
) -> Iterator[_Grid]:
    by_name = {arm.name: arm for arm in arms}
    groups: dict[tuple[str, str, str, float | None, str], list[tuple[Mapping[str, Level], ContrastFinding]]] = {}
    for contrast in contrasts:
        a, b = by_name[contrast.a], by_name[contrast.b]
        if a.factors and a.factors == b.factors:
            within = ",".join(f"{name}={value}" for name, value in a.factors.items() if name in names_data)
            key = (a.base, b.base, contrast.metric, contrast.target, within)
            groups.setdefault(key, []).append((a.factors, contrast))
    for (*_, within), members in groups.items():
        names = [name for name in members[0][0] if name not in names_data]
        levels = {name: _ordered([factors[name] for factors, _ in members]) for name in names}
        cells = {tuple(factors[name] for name in names): contrast for factors, contrast in members}
        whole = len(cells) == math.prod(map(len, levels.values()))
        horizons = {contrast.reach.horizon for contrast in cells.values() if contrast.reach}
        if len(cells) > 1 and whole and len(horizons) <= 1:
            yield _Grid(levels, cells, within)


def _plans(grid: _Grid) -> Iterator[_Plan]:
    every = list(grid.cells)
    yield _Plan("difference", "mean", "", (), False, dict(zip(every, mean_weights(len(every)).tolist(), strict=True)))
    for place, (factor, levels) in enumerate(grid.factors.items()):
        for of in _SIDES:
            for over, shown, logarithmic, by_level in _shapes(levels):
                weight = dict(zip(levels, (by_level * len(levels) / len(every)).tolist(), strict=True))
                weights = {cell: weight[cell[place]] for cell in every if weight[cell[place]]}
                yield _Plan(of, over, factor, shown, logarithmic, weights)


def _shapes(levels: tuple[Level, ...]) -> Iterator[tuple[Over, tuple[Level, ...], bool, Floats]]:
    for start, end in pairwise(range(len(levels))):
        yield "step", (levels[start], levels[end]), False, step_weights(len(levels), start, end)
    if len(levels) > 2 and all(map(_is_number, levels)):
        positions, logarithmic = _positions(np.array(levels, dtype=np.float64))
        yield "slope", levels, logarithmic, slope_weights(positions)


def _measure(grid: _Grid, plan: _Plan) -> tuple[tuple[SeedName, ...], Paired] | None:
    """Return the seeds at which an effect is known, and what it is there; None where these are none, or lucky."""
    cells = [grid.cells[cell] for cell in plan.weights]
    if any(cell.both_failed for cell in cells):  # at the other seeds one was lucky
        return None
    seeds = tuple(sorted(set.intersection(*(set(cell.seeds) for cell in cells)), key=seed_order))
    if not seeds or all(cell.reach and cell.reach.silent for cell in cells):
        return None
    both = plan.of == "both"
    columns = [[values[seed] for seed in seeds] for values in (_values(cell, both) for cell in cells)]
    resolution = max(cell.resolution for cell in cells) / (2 if both else 1)
    result = within_seeds(np.transpose(columns), list(plan.weights.values()), resolution)
    # the weights of a change sum to zero, so a mean of both arms gains at most what half of them can lose
    reach = sum(map(abs, plan.weights.values())) / (2 if both else 1)
    largest = reach * cells[0].kind.largest_difference
    return seeds, replace(result, ci95=cut(result.ci95, largest)) if result.ci95 else result


def _effect(grid: _Grid, plan: _Plan, seeds: tuple[SeedName, ...], result: Paired, p: float | None) -> FactorEffect:
    one = next(iter(grid.cells.values()))
    return FactorEffect(
        a=one.a.partition("[")[0],
        b=one.b.partition("[")[0],
        metric=one.metric,
        declared=one.declared,
        target=one.target,
        within=grid.within,
        of=plan.of,
        over=plan.over,
        factor=plan.factor,
        levels=plan.levels,
        logarithmic=plan.logarithmic,
        seeds=seeds,
        paired=result,
        t_p_adjusted=p,
    )


def _values(cell: ContrastFinding, both: bool) -> dict[SeedName, float]:
    """Return seed -> the mean of both arms, or their difference."""
    pairs = zip(cell.seeds, cell.values_a, cell.values_b, strict=True)
    return {seed: (a + b) / 2 if both else a - b for seed, a, b in pairs}


# --- levels


def _ordered(levels: Sequence[Level]) -> tuple[Level, ...]:
    """Return the different levels: numbers in rising order, else as they come."""
    distinct = list(dict.fromkeys(levels))
    return tuple(sorted(distinct, key=float) if all(map(_is_number, distinct)) else distinct)


def _positions(x: Floats) -> tuple[Floats, bool]:
    """Return where levels lie, in rising order, and whether that is as logarithms to the base 2."""
    if x[0] <= 0:
        return x, False
    steps, ratios = np.diff(x), np.diff(np.log2(x))
    # spread over mean has no unit; equal steps may have a residue of rounding
    logarithmic = bool(ratios.std() / ratios.mean() < steps.std() / steps.mean() - 1e-9)
    return (np.log2(x), True) if logarithmic else (x, False)


def _is_number(value: Level) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
