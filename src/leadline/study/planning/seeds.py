"""How many seeds a study needs, from the standard deviation of paired differences, given or taken from a pilot."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from leadline.analysis.stats import LEVEL, seeds_for_power
from leadline.analysis.stats.sequential import confidence_of_each, running_interval
from leadline.analysis.verdict import Findings
from leadline.errors import SpecError
from leadline.parts.metrics import metric
from leadline.seeds import NAMES
from leadline.study.expand import ExpandedStudy, drawn_sources
from leadline.text import join

POWER = 0.8
SIMULATED = 2_000
"""Number of simulated studies from which the expected number of seeds is estimated."""


@dataclass(frozen=True)
class SeedsNeeded:
    """Seeds at which a contrast is decided with 80% power, all in the unit of its metric, mostly percentage points."""

    contrast: str  # a against b; empty where a deviation was given
    sd: float  # of the paired differences
    margin: float | None  # None: the metric has none
    for_margin: int | None  # to find a true difference as large as the margin; None: more than 10,000
    for_equivalence: int | None  # to find equivalence where there is no difference; None: as above, or no margin
    difference: float | None = None  # of the pilot
    for_difference: int | None = None  # until the pilot's difference is decided, either way; None: as above
    pairs: int | None = None  # of the pilot
    metric: str = "test_error"
    expected: float | None = None  # mean number of seeds of a study that decides as it goes; None: it does not
    decided: float | None = None  # share of such studies that decide before they have all their seeds


def seeds_by_deviation(study: ExpandedStudy, deviations: Sequence[float]) -> tuple[SeedsNeeded, ...]:
    """Return the seeds that it takes to find a difference as large as the study's margin, for each deviation.

    By the power of the tests that decide, at 5% divided by the number of contrasts; see `stats.seeds_for_power`. Of a
    study that decides as it goes, also the number of seeds to expect where that is the true difference.

    Args:
        study: the study, expanded.
        deviations: standard deviations of the paired differences, percentage points.

    Raises:
        SpecError: a deviation that is not above 0.
    """
    decide = study.decide
    margin = decide.margin if decide is not None and decide.margin is not None else study.spec.margin
    found = []
    for sd in deviations:
        if not (sd > 0 and math.isfinite(sd)):
            raise SpecError(f"--sd {sd:g}: expected the standard deviation of paired differences, in points, above 0")
        needed = SeedsNeeded("", sd, margin, _power(study, margin, sd), _power(study, 0.0, sd, margin))
        found.append(_expected(study, needed, margin))
    return tuple(found)


def seeds_by_pilot(study: ExpandedStudy, pilot: Findings) -> tuple[SeedsNeeded, ...]:
    """Return the seeds that each contrast of a study takes, if its differences spread as those of a pilot.

    Of a study that decides as it goes, also the number to expect where the pilot's difference is the true one.

    Args:
        study: the study, expanded.
        pilot: what a study with the same contrasts, or some of them, has shown.

    Raises:
        SpecError: the pilot has no contrast of the study with two pairs or more, its pairs share seeds of some source
            of randomness, or it has one seed of a source that differs between the study's trials.
    """
    varied = [source for source in drawn_sources(study.arms) if source in study.spec.varied_sources]
    alike = [NAMES[source] for source in varied if source not in pilot.sources]
    crossed = any(one.crossed for one in pilot.contrasts)
    if alike or crossed:
        why = "some of its pairs share seeds" if crossed else f"it has one seed of {join(alike)}"
        raise SpecError(
            f"--pilot {pilot.study}: {why}, so it does not show how much independent trials of {study.name} would vary;"
            " choose a pilot study whose seeds are plain numbers, or use --sd"
        )
    seen = {(frozenset((one.a, one.b)), one.metric): one for one in pilot.contrasts}
    found = []
    for contrast in study.contrasts:
        piloted = seen.get((frozenset((contrast.a, contrast.b)), contrast.metric))
        result = piloted.paired if piloted is not None else None
        if piloted is None or result is None or result.sd is None:
            continue
        # the spread behind the effect is never below the step in which values move, so it is the one to plan with
        sd = abs(result.difference / result.effect_size) if result.effect_size else result.sd
        difference = result.difference if piloted.a == contrast.a else -result.difference
        margin = contrast.margin or (study.spec.margin if metric(contrast.metric).in_points else None)
        needed = SeedsNeeded(
            f"{contrast.a} against {contrast.b}",
            sd,
            margin,
            None if margin is None else _power(study, margin, sd),
            None if margin is None else _power(study, 0.0, sd, margin),
            difference,
            _power(study, difference, sd, margin or 0.0),
            result.n,
            contrast.metric,
        )
        found.append(_expected(study, needed, difference))
    if not found:
        raise SpecError(
            f"--pilot {pilot.study}: it has no contrast of {study.name} with at least two pairs of finished trials;"
            f" choose another pilot study, or use --sd"
        )
    return tuple(found)


def _power(study: ExpandedStudy, difference: float, sd: float, margin: float = 0.0) -> int | None:
    """Return the seeds at which a contrast of a study is decided with the wanted power; None: more than 10,000."""
    if not sd:
        return 2 if difference or margin else None
    seeds = float(seeds_for_power(difference, sd, margin, LEVEL / max(1, len(study.contrasts)), POWER))
    return int(seeds) if math.isfinite(seeds) else None


def _expected(study: ExpandedStudy, needed: SeedsNeeded, difference: float) -> SeedsNeeded:
    """Add the seeds that a study that decides as it goes takes on average, by simulation with normal differences.

    A look is taken after every seed from the first round on; rounds of several seeds take a few more.
    """
    decide = study.decide
    if decide is None or needed.sd == 0:
        return needed
    drawn = np.random.default_rng(0).normal(difference, needed.sd, (SIMULATED, decide.max_seeds))
    confidence = confidence_of_each(decide.confidence, len(study.contrasts))
    low, high = running_interval(drawn, confidence, 0.0, study.shared_over)
    margin = needed.margin or 0.0
    over = (high < 0) | (low > 0) | ((low > -margin) & (high < margin))
    over[:, : decide.first - 1] = False
    seeds = np.where(over.any(axis=1), over.argmax(axis=1) + 1, decide.max_seeds)
    return replace(needed, expected=float(seeds.mean()), decided=float(over.any(axis=1).mean()))
