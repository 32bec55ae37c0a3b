"""The mean of paired differences that are not independent, because pairs share seeds of some source of randomness."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import scipy
from numpy.typing import ArrayLike

from leadline.analysis.stats.effects import Paired, paired
from leadline.analysis.stats.samples import cut, least_spread, sample


@dataclass(frozen=True)
class CrossedMean:
    """A mean with its standard error."""

    mean: float
    error: float
    freedom: float  # degrees of freedom of the error


def crossed_mean(differences: ArrayLike, sources: Sequence[Sequence[Hashable]], resolution: float = 0.0) -> CrossedMean:
    """Return the mean of paired differences, with an error that holds for other seeds of every source.

    With independent seeds, other initial weights and another order would come together; pairs that share one of them
    vary together, and a t test that takes them as independent is too sure. The squared error is the sum over sources of
    the variance of the means at one seed divided by the number of seeds. It counts what is left beside the main effects
    once for each source, so that it is too large rather than too small. Degrees of freedom: Satterthwaite (1946).

    Args:
        differences: shape [n].
        sources: of each source of which pairs share seeds, at least one with two seeds: the seed of each pair.
        resolution: the step in which the values move; see `paired`.

    Raises:
        StatisticsError: no value, or one that is not finite.

    Example:
        >>> found = crossed_mean([1, 2, 3, 4], [(0, 0, 1, 1), (0, 1, 0, 1)])
        >>> found.mean, round(found.error, 3), round(found.freedom, 2)
        (2.5, 1.118, 1.47)
    """
    d = sample("differences", differences)
    parts, freedom = [], []
    for keys in sources:
        levels = {key: place for place, key in enumerate(dict.fromkeys(keys))}
        places = np.array([levels[key] for key in keys])
        means = np.bincount(places, weights=d) / np.bincount(places)
        parts.append(means.var(ddof=1) / len(means))
        freedom.append(len(means) - 1)
    squared = np.array(parts)
    error = max(math.sqrt(squared.sum()), least_spread(resolution) / math.sqrt(len(d)))
    known = squared.sum() > 0
    own = squared.sum() ** 2 / (squared**2 / np.array(freedom)).sum() if known else min(freedom)
    return CrossedMean(float(d.mean()), error, float(own))


def paired_crossed(
    a: ArrayLike,
    b: ArrayLike,
    sources: Sequence[Sequence[Hashable]],
    resolution: float = 0.0,
    largest: float = math.inf,
) -> Paired:
    """Return what pairs that share seeds show: as `paired`, with the error of `crossed_mean`.

    There is no permutation test, no bootstrap and no effect size, which take pairs as independent.

    Args:
        a, b: one value per pair, in the same order.
        sources: see `crossed_mean`.
        resolution, largest: see `paired`.

    Raises:
        StatisticsError: as `paired`.
    """
    found = crossed_mean(np.subtract(sample("a", a), sample("b", b)), sources, resolution)
    half = scipy.stats.t.ppf(0.975, found.freedom) * found.error
    if found.error:
        p = float(2 * scipy.special.stdtr(found.freedom, -abs(found.mean) / found.error))
    else:
        p = float(found.mean == 0)
    return replace(
        paired(a, b, resolution=resolution),
        ci95=cut((float(found.mean - half), float(found.mean + half)), largest),
        t_p=p,
        bca95=None,
        p=None,
        p_smallest=None,
        effect_size=None,
    )


def equivalence_p_crossed(
    differences: ArrayLike, margin: float, sources: Sequence[Sequence[Hashable]], resolution: float = 0.0
) -> float:
    """Return the p of the test that the mean difference is within the margin: as `equivalence_p`, of such pairs."""
    found = crossed_mean(differences, sources, resolution)
    room = margin - abs(found.mean)
    if not found.error:
        return float(room <= 0)
    return float(scipy.special.stdtr(found.freedom, -room / found.error))
