"""Many comparisons at once: p-values adjusted for their number.

A contrast with a margin has two tests, of difference and of equivalence, and one word. `holm_both` adjusts them by
closed testing (Marcus, Peritz & Gabriel 1976): of every combination of contrasts, each without difference or not
equivalent, by Bonferroni's inequality. Without margins that is Holm's procedure. With them a contrast counts until
both of its hypotheses are rejected, and not only until it has a word, for this may be a false one, of the other kind:
with q the chance that a contrast gets its other word, to leave it out would let the family-wise error of m contrasts
grow to (1 - q^m)/(1 - q) times the level (compare Lauzon & Caffo 2009).
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leadline.analysis.stats.samples import Floats, StatisticsError


def holm(p_values: Sequence[float | None]) -> Floats:
    """Return the p-values adjusted for their number, which keeps the family-wise error rate (Holm 1979).

    Args:
        p_values: None or NaN where a comparison has none; these stay NaN and do not count.

    Raises:
        StatisticsError: a p-value outside 0 to 1.
    """
    p, order = _in_order(p_values)
    steps = p[order] * (len(order) - np.arange(len(order)))
    p[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return p


def benjamini_hochberg(p_values: Sequence[float | None]) -> Floats:
    """Return the p-values adjusted so that those below q are a list with a false discovery rate of at most q.

    Benjamini & Hochberg (1995): it holds for independent tests, and for positively dependent ones (Benjamini &
    Yekutieli 2001). Never above Holm's.

    Args:
        p_values: see `holm`.

    Raises:
        StatisticsError: a p-value outside 0 to 1.
    """
    p, order = _in_order(p_values)
    steps = p[order] * len(order) / np.arange(1, len(order) + 1)
    p[order] = np.minimum.accumulate(steps[::-1])[::-1]
    return p


def holm_both(difference: ArrayLike, equivalence: ArrayLike) -> tuple[Floats, Floats]:
    """Return the p-values of both tests of every contrast, adjusted so that words are false in few studies.

    Of the words that values of at most q lead to, any is false in at most a share q of studies.

    Args:
        difference: shape [..., contrasts]; NaN where a contrast has no test, which then does not count.
        equivalence: likewise; NaN of a contrast without a margin, which counts by its other test.

    Returns:
        Both adjusted, NaN where there was none.
    """
    p, q = (np.asarray(one, dtype=np.float64) for one in (difference, equivalence))
    if not p.shape[-1]:
        return p, q
    # of a contrast, the hypothesis that is further from being rejected; the combination of k hypotheses that is hardest
    # to reject is any one with those of k - 1 other contrasts that are furthest
    kept = np.nan_to_num(np.fmax(p, q), nan=-math.inf)
    order = np.argsort(-kept, axis=-1, kind="stable")
    place, rank = np.arange(p.shape[-1] - 1), np.argsort(order, axis=-1, kind="stable")
    others = order[..., None, :-1]
    others = np.where(place < rank[..., None], others, order[..., None, 1:])
    furthest = np.take_along_axis(kept[..., None, :], others, axis=-1)
    found = []
    for own in (p, q):
        least = np.concatenate([own[..., None], np.minimum(own[..., None], furthest)], axis=-1)
        steps = np.arange(1, p.shape[-1] + 1) * np.maximum(least, 0.0)
        found.append(np.minimum(steps.max(axis=-1), 1.0))
    return found[0], found[1]


def benjamini_hochberg_both(difference: ArrayLike, equivalence: ArrayLike) -> tuple[Floats, Floats]:
    """Return the p-values of both tests of every contrast, adjusted so that few words are false.

    Of the words that values of at most q lead to, on average at most a share q is false. A contrast has one word,
    however many of its tests reject, so the rank of a value is the number of contrasts with a value no larger: were
    both tests of a contrast counted, a difference that is shown falsely within a small interval would count as half.

    Args:
        difference, equivalence: see `holm_both`.
    """
    p, q = (np.asarray(one, dtype=np.float64) for one in (difference, equivalence))
    least = np.fmin(p, q)
    contrasts = np.sum(~np.isnan(least), axis=-1, keepdims=True)
    pooled = np.concatenate([p, q], axis=-1)
    order = np.argsort(pooled, axis=-1)  # NaN last
    values = np.take_along_axis(pooled, order, axis=-1)
    rank = np.sum(least[..., None, :] <= values[..., None], axis=-1)
    steps = values * contrasts / np.maximum(rank, 1)
    steps = np.where(np.isnan(steps), math.inf, steps)[..., ::-1]
    adjusted = np.empty_like(pooled)
    np.put_along_axis(adjusted, order, np.minimum(np.minimum.accumulate(steps, axis=-1), 1.0)[..., ::-1], axis=-1)
    adjusted = np.where(np.isnan(pooled), math.nan, adjusted)
    return adjusted[..., : p.shape[-1]], adjusted[..., p.shape[-1] :]


def _in_order(p_values: Sequence[float | None]) -> tuple[Floats, NDArray[np.intp]]:
    """Return p-values, NaN where there is none, and the places of the others, smallest first."""
    p = np.array([math.nan if value is None else value for value in p_values], dtype=np.float64)
    given = np.flatnonzero(~np.isnan(p))
    for index in given:
        if not 0 <= p[index] <= 1:
            raise StatisticsError(f"p-value {p[index]} at position {index} is not between 0 and 1")
    return p, given[np.argsort(p[given], kind="stable")]
