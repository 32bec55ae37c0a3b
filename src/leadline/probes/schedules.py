"""When to measure: functions of the step, which is the number of optimizer steps done before it, so the first is 0."""

import math
from collections.abc import Callable

from leadline.errors import SpecError

Schedule = Callable[[int], bool]
"""Whether to measure at a step; any function of it will do, and it should depend on nothing else."""


def every(n: int = 1) -> Schedule:
    """Measure at steps 0, n, 2n, ...

    Raises:
        SpecError: n is below 1.
    """
    _at_least_1("every(n)", n)
    return lambda step: step % n == 0


def log_spaced(per_decade: int = 10) -> Schedule:
    """Measure at step 0 and at the whole numbers nearest to 10^(k / per_decade), k = 0, 1, 2, ...: often, then seldom.

    Raises:
        SpecError: per_decade is below 1.
    """
    _at_least_1("log_spaced(per_decade)", per_decade)

    def due(step: int) -> bool:
        if step < 1:
            return step == 0
        k = math.floor(per_decade * math.log10(step))
        return any(round(10 ** (near / per_decade)) == step for near in (k, k + 1))

    return due


def first(n: int, steps_per_epoch: int) -> Schedule:
    """Measure at the first n steps of every epoch.

    Raises:
        SpecError: a number is below 1.
    """
    _at_least_1("first(n)", n)
    _at_least_1("first(steps_per_epoch)", steps_per_epoch)
    return lambda step: step % steps_per_epoch < n


def last(n: int, steps_per_epoch: int) -> Schedule:
    """Measure at the last n steps of every epoch.

    Raises:
        SpecError: a number is below 1.
    """
    _at_least_1("last(n)", n)
    _at_least_1("last(steps_per_epoch)", steps_per_epoch)
    return lambda step: step % steps_per_epoch >= steps_per_epoch - n


def either(*schedules: Schedule) -> Schedule:
    """Measure at the steps at which any of some schedules would."""
    return lambda step: any(schedule(step) for schedule in schedules)


def _at_least_1(what: str, value: int) -> None:
    if value < 1:
        raise SpecError(f"{what}: {value} is too small; expected a whole number of 1 or more")
