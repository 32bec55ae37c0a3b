"""What a contrast compares: the values of its two arms, seed by seed, and the trials that failed."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from leadline.analysis.stats import McNemar, Outcome, mcnemar
from leadline.analysis.verdict.design import Contrast
from leadline.analysis.verdict.evidence import Evidence
from leadline.analysis.verdict.tested import Tested
from leadline.analysis.verdict.values import ToTarget, step_of_clock, to_target
from leadline.parts.metrics import TimeMetric
from leadline.seeds import SeedName, seed_order


@dataclass(frozen=True)
class Ended:
    """How the trials of an arm ended that form no pairs."""

    trials: int
    failed: int  # of them


@dataclass(frozen=True)
class Pairs:
    """What one contrast compares; seeds, values and tests are in the order of seeds."""

    contrast: Contrast
    margin: float
    seeds: tuple[SeedName, ...]  # at which both arms have a value, and not both learned nothing
    a: tuple[float, ...]
    b: tuple[float, ...]
    resolution: float  # the step in which the values move
    declared: bool = True  # whether that is known beforehand, not from the values
    outcomes: tuple[tuple[SeedName, Outcome], ...] = ()  # seed by seed, at which both trials have ended
    mcnemar: tuple[McNemar, ...] = ()  # of the seeds whose predictions are known
    reach: ToTarget | None = None  # of times to a target
    apart: tuple[Ended, Ended] | None = None  # of arms that form no pairs, whose values are two separate samples

    @property
    def differences(self) -> tuple[float, ...]:
        """The values of a minus those of b; none where they form no pairs."""
        if self.apart:
            return ()
        return tuple(x - y for x, y in zip(self.a, self.b, strict=True))

    @property
    def largest(self) -> float:
        """The largest difference that is possible."""
        return self.contrast.kind.largest_difference

    @property
    def silent(self) -> bool:
        """Whether the values say nothing: no trial reached the target, or a lone pair of seeds has a failed trial.

        Two trials of one arm that learned nothing agree, and agreement of two looks like certainty.
        """
        if self.reach is not None and self.reach.silent:
            return True
        failed = {seed for seed, one in self.outcomes if one.difference is not None and (one.failed_a or one.failed_b)}
        return len(self.seeds) == 2 and not failed.isdisjoint(self.seeds)

    @property
    def shared(self) -> tuple[tuple[int, ...], ...]:
        """Of each source of randomness of which pairs share seeds, the seed of each pair; none: pairs are independent.

        A source with one seed in all is left out: what is shown holds for that seed.
        """
        found = zip(*map(seed_order, self.seeds), strict=True)
        return tuple(keys for keys in found if 1 < len(set(keys)) < len(keys))

    @property
    def uneven(self) -> bool:
        """Whether at some seed just one of the two trials failed; without pairs, whether any did."""
        if self.apart:
            return any(side.failed for side in self.apart)
        return any(one.failed_a != one.failed_b for _, one in self.outcomes)

    @property
    def neither_learned(self) -> bool:
        """Whether at every seed that has ended both trials diverged, or learned nothing."""
        if self.apart:
            return all(side.failed == side.trials for side in self.apart)
        return bool(self.outcomes) and all(one.failed_a and one.failed_b for _, one in self.outcomes)

    def at(self, places: Iterable[int]) -> "Pairs":
        """Return the pairs at some places, in that order."""
        kept = tuple(places)
        seeds = tuple(self.seeds[place] for place in kept)
        return replace(
            self,
            seeds=seeds,
            a=tuple(self.a[place] for place in kept),
            b=tuple(self.b[place] for place in kept),
            mcnemar=tuple(test for test in self.mcnemar if test.seed in seeds),
        )


def pair(contrast: Contrast, margin: float, evidence: Evidence) -> Pairs:
    """Return what a contrast compares.

    Args:
        contrast: of the study.
        margin: percentage points; of a contrast that names none and whose metric moves in points.
        evidence: the study's frames.
    """
    margin = contrast.margin or (margin if contrast.kind.in_points else 0.0)
    if contrast.unpaired:
        return _apart(contrast, margin, evidence)
    return (_times if isinstance(contrast.kind, TimeMetric) else _values)(contrast, margin, evidence)


def _values(contrast: Contrast, margin: float, evidence: Evidence) -> Pairs:
    a, b = (evidence.values(side, contrast.metric) for side in (contrast.a, contrast.b))
    failed_a, failed_b = (evidence.ended(side) for side in (contrast.a, contrast.b))
    outcomes = []
    for seed in sorted(failed_a.keys() & failed_b.keys(), key=seed_order):
        known = seed in a and seed in b and not (failed_a[seed] and failed_b[seed])
        difference = a[seed][1] - b[seed][1] if known else None
        outcomes.append((seed, Outcome(difference, failed_a[seed], failed_b[seed])))
    seeds = [seed for seed, one in outcomes if one.difference is not None]
    tests = (
        _mcnemar(seed, evidence.tested.get(a[seed][0]), evidence.tested.get(b[seed][0]))
        for seed in seeds
        if contrast.metric == "test_error"
    )
    values_a, values_b = (tuple(side[seed][1] for seed in seeds) for side in (a, b))
    declared = _declared(contrast, evidence)
    return Pairs(
        contrast=contrast,
        margin=margin,
        seeds=tuple(seeds),
        a=values_a,
        b=values_b,
        resolution=_smallest_gap((*values_a, *values_b)) if declared is None else declared,
        declared=declared is not None,
        outcomes=tuple(outcomes),
        mcnemar=tuple(test for test in tests if test),
    )


def _apart(contrast: Contrast, margin: float, evidence: Evidence) -> Pairs:
    """The values of two arms as separate samples."""
    sides = [evidence.values(side, contrast.metric) for side in (contrast.a, contrast.b)]
    ended = [evidence.ended(side) for side in (contrast.a, contrast.b)]
    values_a, values_b = (tuple(value for _, value in side.values()) for side in sides)
    declared = _declared(contrast, evidence)
    return Pairs(
        contrast=contrast,
        margin=margin,
        seeds=(),
        a=values_a,
        b=values_b,
        resolution=_smallest_gap((*values_a, *values_b)) if declared is None else declared,
        declared=declared is not None,
        apart=(Ended(len(ended[0]), sum(ended[0].values())), Ended(len(ended[1]), sum(ended[1].values()))),
    )


def _times(contrast: Contrast, margin: float, evidence: Evidence) -> Pairs:
    """The times to a target, of which a margin says nothing: they move by epochs."""
    a, b = (evidence.waited(side, contrast) for side in (contrast.a, contrast.b))
    seeds = sorted(a.keys() & b.keys(), key=seed_order)
    one, two = ([side[seed] for seed in seeds] for side in (a, b))
    found = to_target(contrast.target or 0.0, one, two)
    if found is None:
        return Pairs(contrast, margin, (), (), (), margin)
    reach, values_a, values_b = found
    return Pairs(contrast, margin, tuple(seeds), values_a, values_b, step_of_clock([*one, *two]), reach=reach)


def _mcnemar(seed: SeedName, a: Tested | None, b: Tested | None) -> McNemar | None:
    """None where a trial left no outputs, or the two saw different test images."""
    if a is None or b is None or not a.is_comparable(b):
        return None
    return mcnemar(~a.wrong, ~b.wrong, seed)


def _smallest_gap(values: Iterable[float]) -> float:
    """The smallest gap between any two values, for a metric that declares no step; 0 where all are equal."""
    gaps = np.diff(np.unique(np.fromiter(values, dtype=float)))
    # values that differ by less differ by rounding alone
    return float(min(gaps[gaps > 1e-7], default=0.0))


def _declared(contrast: Contrast, evidence: Evidence) -> float | None:
    """The step in which a metric moves, from what trials are evaluated on; None where it is not known."""
    if contrast.kind.resolution is None:
        return None
    steps = []
    for side in (contrast.a, contrast.b):
        counts = evidence.arms[side].counts
        steps.append(contrast.kind.resolution(replace(counts, test=evidence.test_images(side) or counts.test)))
    return max((step for step in steps if step is not None), default=None)
