"""What pairing is worth, how often one arm is ahead, and what test images add to the uncertainty that seeds leave."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import zip_longest

import numpy as np
import scipy
from numpy.typing import ArrayLike

from leadline.analysis.stats.samples import StatisticsError, sample


@dataclass(frozen=True)
class Pairing:
    """What it brought that two arms were trained at the same seeds."""

    correlation: float | None  # Pearson's, of the two arms' values over the seeds; None: one of them never varies
    worth: float  # seeds of each arm, not paired, that would show the mean difference as precisely
    low: float  # of a 95% interval for `worth`
    high: float


@dataclass(frozen=True)
class Ahead:
    """How often one arm is better than another at a fresh seed."""

    share: float  # of the seeds, ties as one half
    low: float  # of a 95% interval
    high: float
    ties: int = 0  # seeds at which neither is ahead


@dataclass(frozen=True)
class SeedsAndImages:
    """A difference between two arms' errors, for other seeds and other test images at once; points."""

    difference: float
    low: float  # of a 95% interval
    high: float
    from_seeds: float  # standard deviation that other seeds give the mean difference, on these images
    from_images: float  # that other images give it, with these seeds
    images: int


def pairing(a: ArrayLike, b: ArrayLike) -> Pairing | None:
    """Return how well the values of two arms go together over the seeds, and what that is worth in seeds.

    Without pairing the variance of the mean difference is that of both arms together. With rho the share of it that
    pairing takes away, n pairs are worth n / (1 - rho) unpaired seeds of each arm; the variances of sums and
    differences, whose ratio is (1 + rho) / (1 - rho), give the interval by their F distribution, which is exact where
    both arms vary alike (compare Pitman 1939), and too wide rather than too narrow where they do not.

    Args:
        a, b: one value per seed, in the same order.

    Returns:
        None with fewer than three seeds, or where the differences do not vary.

    Example:
        >>> found = pairing([1.0, 2.0, 3.0, 4.0], [1.1, 2.3, 2.9, 4.1])
        >>> round(found.correlation, 2), round(found.worth)
        (0.99, 430)
    """
    x, y = sample("a", a), sample("b", b)
    n = len(x)
    if len(y) != n or n < 3:
        return None
    apart, together = (x - y).var(ddof=1), (x + y).var(ddof=1)
    if apart <= 1e-18 * max(together, 1e-300):
        return None
    ratio = together / apart
    low, high = ratio / scipy.stats.f.ppf([0.975, 0.025], n - 1, n - 1)
    varies = np.ptp(x) > 0 and np.ptp(y) > 0
    correlation = float(np.corrcoef(x, y)[0, 1]) if varies else None
    return Pairing(correlation, *(float(n * (one + 1) / 2) for one in (ratio, low, high)))


def ahead_at_a_seed(wins: int, ties: int, n: int) -> Ahead:
    """Return the probability that one arm is better than another at a fresh seed (Bouthillier et al. 2021).

    Interval: Clopper & Pearson (1934), a tie as half a success, so it assumes nothing of how large differences are.

    Args:
        wins: seeds at which it is better.
        ties: at which both are equal, or both fail.
        n: seeds in all, at least 1.

    Example:
        >>> found = ahead_at_a_seed(5, 0, 5)
        >>> found.share, round(found.low, 2), found.high
        (1.0, 0.48, 1.0)
    """
    won = wins + ties / 2
    low = float(scipy.stats.beta.ppf(0.025, won, n - won + 1)) if won > 0 else 0.0
    high = float(scipy.stats.beta.ppf(0.975, won + 1, n - won)) if won < n else 1.0
    return Ahead(won / n, low, high, ties)


def over_seeds_and_images(wrong_a: Iterable[ArrayLike], wrong_b: Iterable[ArrayLike]) -> SeedsAndImages:
    """Return the difference of two arms' errors with an interval for other seeds and other test images.

    Seeds and images are crossed random effects: every network of both arms has seen every image. The mean squares of
    the two-way table of differences estimate the variance of its mean, Satterthwaite's (1946) approximation its degrees
    of freedom. With few seeds these come out too many by chance, so the interval is at least as wide as that of the
    paired t test, which is for other seeds alone.

    Args:
        wrong_a, wrong_b: for each seed, shape [images], whether the network misclassifies each image; at least
            2 seeds and 2 images.

    Raises:
        StatisticsError: shapes that differ, or too few seeds or images.
    """
    rows: list[int] = []
    total, apart = np.zeros(0, dtype=np.int64), 0
    for a, b in zip_longest(wrong_a, wrong_b, fillvalue=()):
        one, other = (np.asarray(side, dtype=np.int8) for side in (a, b))
        if one.shape != other.shape or one.ndim != 1 or (rows and one.shape != total.shape):
            raise StatisticsError(f"shapes {one.shape} and {other.shape}: expected [images], the same for every seed")
        row = one - other  # each entry is -1, 0 or 1
        total = total + row if rows else row.astype(np.int64)
        rows.append(int(row.sum()))
        apart += int(np.count_nonzero(row))
    n, images = len(rows), total.size
    if min(n, images) < 2:
        raise StatisticsError(f"{n} seeds and {images} images: expected at least 2 of each")
    by_seed, by_image = 100 * np.array(rows) / images, 100 * total / n
    mean = 100 * sum(rows) / (n * images)
    squares_seeds = images * float(((by_seed - mean) ** 2).sum())
    squares_images = n * float(((by_image - mean) ** 2).sum())
    squares = 1e4 * apart - n * images * mean**2
    squares_rest = max(0.0, float(squares) - squares_seeds - squares_images)
    freedom = np.array([n - 1, images - 1, (n - 1) * (images - 1)])
    parts = np.array([squares_seeds, squares_images, squares_rest]) / freedom / (n * images)
    variance = max(parts[0] + parts[1] - parts[2], parts[0], parts[1])
    half = 0.0
    if variance > 0:
        freedoms = max(1.0, variance**2 / (parts**2 / freedom).sum()), n - 1
        quantiles = scipy.stats.t.ppf(0.975, freedoms)
        half = float(max(quantiles * np.sqrt([variance, parts[0]])))
    return SeedsAndImages(
        difference=float(mean),
        low=float(mean) - half,
        high=float(mean) + half,
        from_seeds=math.sqrt(max(0.0, parts[0] - parts[2])),
        from_images=math.sqrt(max(0.0, parts[1] - parts[2])),
        images=images,
    )
