"""How much of the variance of a result each source of randomness gives: random effects in an orthogonal array."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from leadline.analysis.stats.samples import Floats, StatisticsError, sample

LEVELS = (3, 5, 7, 11, 13)
"""Numbers of seeds of each source for which there are such arrays here: primes."""
DRAWS = 4_000


@dataclass(frozen=True)
class Component:
    """A part of the variance, in squared units of the values, and its share of the total."""

    name: str
    variance: float
    share: float
    low: float  # of a 95% interval for the share
    high: float


def orthogonal_array(levels: int, columns: int) -> tuple[tuple[int, ...], ...]:
    """Return levels^2 rows in which every two levels of any two columns meet exactly once (Bose 1938).

    In a crossed design of that size with two sources, further sources ride along as Latin squares do. What two or
    more of them do together is then different in each row, so that it is part of what is left beside the main effects
    and touches every source alike.

    Args:
        levels: one of `LEVELS`.
        columns: sources, at most as many as levels, so that something is left to estimate what they do together.

    Raises:
        StatisticsError: there is no such array.

    Example:
        >>> orthogonal_array(3, 3)[:4]
        ((0, 0, 0), (0, 1, 1), (0, 2, 2), (1, 0, 1))
    """
    if levels not in LEVELS or not 1 <= columns <= levels:
        raise StatisticsError(
            f"{levels} levels of {columns} sources: levels are {', '.join(map(str, LEVELS))}, and at least as many as"
            " sources"
        )
    multiples = range(1, columns - 1)
    rows = (
        (i, j, *((i + multiple * j) % levels for multiple in multiples)) for i in range(levels) for j in range(levels)
    )
    return tuple(row[:columns] for row in rows)


def variance_components(
    values: ArrayLike, sources: Mapping[str, Sequence[int]], other: tuple[str, Floats] | None = None, seed: int = 0
) -> tuple[Component, ...]:
    """Return what each source, and what is left, gives of the variance of a value in an orthogonal array.

    With random effects of the sources, whose combined effects differ from row to row, the mean squares of the sources
    and of what is left are independent multiples of chi-square variables, as in a balanced analysis of variance. A
    component is the difference of two mean squares, and 0 where that is negative. Intervals of shares are generalised
    confidence intervals (Weerahandi 1993; Hannig, Iyer & Patterson 2006): the mean squares with their chi-square
    variables drawn anew. Estimates of shares add up to 1, while the draws are divided by a total in which components
    below 0 count as such: without this, intervals of the smaller shares were too low (`python -m benchmarks.variance`).

    Args:
        values: shape [levels^2], one for each row of the array.
        sources: name -> the level of each row, from `orthogonal_array`.
        other: name of a further source that is independent of all rows, with its variance: the estimate, and then draws
            of it.
        seed: of the draws.

    Returns:
        The sources, `other`, and what is left, whose name is empty.

    Raises:
        StatisticsError: rows are no orthogonal array, or the values do not vary.

    Example:
        >>> rows = orthogonal_array(3, 2)
        >>> first, second = zip(*rows)
        >>> found = variance_components([0, 1, -1, 9, 11, 10, 21, 20, 19], {"a": first, "b": second})
        >>> [round(one.share, 2) for one in found]
        [0.99, 0.0, 0.01]
    """
    y, columns = sample("values", values), {name: np.asarray(levels) for name, levels in sources.items()}
    rows, count = len(y), round(len(y) ** 0.5)
    freedom_left = rows - 1 - len(columns) * (count - 1)
    _check(rows, count, columns, freedom_left)
    squares = {
        name: count * float(((np.bincount(levels, weights=y) / count - y.mean()) ** 2).sum())
        for name, levels in columns.items()
    }
    total = float(((y - y.mean()) ** 2).sum())
    left = max(0.0, total - sum(squares.values()))
    draw = np.random.default_rng(seed)
    # the first of each array is the estimate, the others are draws
    mean_left = np.array([left / freedom_left, *left / draw.chisquare(freedom_left, DRAWS)])
    parts = {}
    for name, own in squares.items():
        mean = np.array([own / (count - 1), *own / draw.chisquare(count - 1, DRAWS)])
        parts[name] = (mean - mean_left) / count
    if other is not None:
        parts[other[0]] = np.array([other[1][0], *draw.choice(other[1][1:], DRAWS)])
    parts[""] = mean_left
    whole = np.sum(list(parts.values()), axis=0)  # with parts below 0, since it would be too large without them
    if not whole[0] > 0:
        raise StatisticsError("all values are equal, so there is no variance to divide")
    estimates = {name: max(0.0, float(part[0])) for name, part in parts.items()}
    found = []
    for name, part in parts.items():
        share = estimates[name] / sum(estimates.values())
        low, high = np.quantile(np.clip(part[1:] / whole[1:], 0, 1), [0.025, 0.975])
        found.append(Component(name, estimates[name], share, min(share, float(low)), max(share, float(high))))
    return tuple(found)


def variance_from_images(table: ArrayLike, seed: int = 0) -> Floats:
    """Return the variance that other test images give the mean over images, and draws of it by a bootstrap of images.

    Images and trainings are crossed: the variance of the images' means over trainings, less what the trainings give
    these means, divided by the number of images.

    Args:
        table: shape [trainings, images], what each image gives in each training; at least 2 by 2.
        seed: of the draws.

    Returns:
        Shape [1 + DRAWS], the estimate and the draws, none below 0.
    """
    x = np.asarray(table, dtype=np.float64)
    trainings, images = x.shape
    means, within = x.mean(axis=0), x.var(axis=0, ddof=1)
    draw = np.random.default_rng(seed)
    chosen = (np.arange(images), *(draw.integers(0, images, images) for _ in range(DRAWS)))
    found: Floats = np.array([means[one].var(ddof=1) - within[one].mean() / trainings for one in chosen])
    parts: Floats = np.maximum(0.0, found) / images
    return parts


def _check(rows: int, count: int, columns: Mapping[str, np.ndarray], freedom_left: int) -> None:
    pairs = [(one, other) for one in columns for other in columns if one < other]
    balanced = all(np.array_equal(np.bincount(levels, minlength=count), [count] * count) for levels in columns.values())
    met = all(
        len(set(zip(columns[one].tolist(), columns[other].tolist(), strict=True))) == rows for one, other in pairs
    )
    if rows != count**2 or not balanced or not met or freedom_left < 1:
        raise StatisticsError(f"{rows} values of {len(columns)} sources are no complete orthogonal array")
