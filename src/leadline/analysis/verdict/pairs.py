"""What a contrast compares: the values of its two arms, seed by seed."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from leadline.analysis.stats import McNemar, mcnemar
from leadline.analysis.verdict.evidence import Evidence
from leadline.analysis.verdict.values import ToTarget, step_of_clock, to_target
from leadline.parts.metrics import Outputs, TimeMetric, metric
from leadline.specs.contrast import ContrastSpec


@dataclass(frozen=True)
class Pairs:
    """What one contrast compares; seeds, values and tests are in the order of seeds."""

    contrast: ContrastSpec
    margin: float
    seeds: tuple[int, ...]  # at which both arms have a value
    a: tuple[float, ...]
    b: tuple[float, ...]
    resolution: float  # the step in which the values move
    mcnemar: tuple[McNemar, ...] = ()  # of the seeds whose predictions are known
    reach: ToTarget | None = None  # of times to a target

    @property
    def differences(self) -> tuple[float, ...]:
        """The values of a minus those of b."""
        return tuple(x - y for x, y in zip(self.a, self.b, strict=True))

    @property
    def silent(self) -> bool:
        """Whether no trial reached the target, so that the values say nothing."""
        return self.reach is not None and self.reach.silent

    def at(self, places: Iterable[int], resolution: float) -> "Pairs":
        """Return the pairs at some places, in that order, of values that move in another step."""
        kept = tuple(places)
        seeds = tuple(self.seeds[place] for place in kept)
        return Pairs(
            contrast=self.contrast,
            margin=self.margin,
            seeds=seeds,
            a=tuple(self.a[place] for place in kept),
            b=tuple(self.b[place] for place in kept),
            resolution=resolution,
            mcnemar=tuple(test for test in self.mcnemar if test.seed in seeds),
            reach=self.reach,
        )


def pair(contrast: ContrastSpec, margin: float, evidence: Evidence) -> Pairs:
    """Return what a contrast compares.

    Args:
        contrast: of the study.
        margin: percentage points; of a contrast that names none and whose metric moves in points.
        evidence: the study's frames.
    """
    compared = metric(contrast.metric)
    margin = contrast.margin or (margin if compared.in_points else 0.0)
    return (_times if isinstance(compared, TimeMetric) else _values)(contrast, margin, evidence)


def _values(contrast: ContrastSpec, margin: float, evidence: Evidence) -> Pairs:
    a, b = (evidence.values(side, contrast.metric) for side in (contrast.a, contrast.b))
    seeds = sorted(a.keys() & b.keys())
    tests = (
        _mcnemar(seed, evidence.outputs.get(a[seed][0]), evidence.outputs.get(b[seed][0]))
        for seed in seeds
        if contrast.metric == "test_error"
    )
    return Pairs(
        contrast=contrast,
        margin=margin,
        seeds=tuple(seeds),
        a=tuple(a[seed][1] for seed in seeds),
        b=tuple(b[seed][1] for seed in seeds),
        resolution=_resolution(evidence.on_the_same_data(contrast), margin),
        mcnemar=tuple(test for test in tests if test),
    )


def _times(contrast: ContrastSpec, margin: float, evidence: Evidence) -> Pairs:
    """The times to a target, of which a margin says nothing: they move by epochs."""
    a, b = (evidence.waited(side, contrast) for side in (contrast.a, contrast.b))
    seeds = sorted(a.keys() & b.keys())
    one, two = ([side[seed] for seed in seeds] for side in (a, b))
    found = to_target(contrast.target or 0.0, one, two)
    if found is None:
        return Pairs(contrast, margin, (), (), (), margin)
    reach, values_a, values_b = found
    return Pairs(contrast, margin, tuple(seeds), values_a, values_b, step_of_clock([*one, *two]), reach=reach)


def _mcnemar(seed: int, a: Outputs | None, b: Outputs | None) -> McNemar | None:
    """None where a trial left no outputs, or the two saw different test images."""
    if a is None or b is None or not np.array_equal(a.labels, b.labels):
        return None
    return mcnemar(a.predicted == a.labels, b.predicted == b.labels, seed)


def _resolution(values: Iterable[float], margin: float) -> float:
    """The step in which values move: the smallest gap between any two, at most the margin where there is one."""
    gaps = np.diff(np.unique(np.fromiter(values, dtype=float)))
    # per cent that differ by less differ by rounding alone: one image in a million is 0.0001
    return float(min([*([margin] if margin else []), *gaps[gaps > 1e-7]], default=0.0))
