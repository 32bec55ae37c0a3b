"""What a study shows, as frozen values: the contract between statistics, words, figures and report."""

from collections.abc import Mapping
from dataclasses import dataclass

from leadline.stats import Decision, McNemar, Paired, Summary


@dataclass(frozen=True)
class ArmFinding:
    """What the trials of one arm gave."""

    name: str  # as in the study, such as resnet[blocks=5]
    base: str  # resnet
    factors: Mapping[str, bool | int | float | str]  # {"blocks": 5}
    planned: int  # trials
    finished: int
    diverged: int
    failed: int
    metrics: Mapping[str, Summary]  # of finished trials; per cent: test_error, train_error, validation_error
    convergence_epoch: Summary | None
    seconds: Summary | None  # wall time of a trial


@dataclass(frozen=True)
class ContrastFinding:
    """What one contrast, `a` against `b`, shows; the difference is a minus b, so below 0 means that a errs less."""

    a: str
    b: str
    metric: str
    margin: float  # percentage points
    seeds: tuple[int, ...]  # at which both arms finished
    differences: tuple[float, ...]  # one per seed, percentage points
    diverged_a: int
    diverged_b: int
    paired: Paired | None  # None: no seed at which both finished
    p_adjusted: float | None  # of the permutation test; Holm, over the study's contrasts
    mcnemar: tuple[McNemar, ...]  # one per seed; empty where predictions are missing
    decision: Decision
    sentence: str
    # of the paired t test, on which the decision rests: at few seeds the permutation test can reach no small p
    t_p_adjusted: float | None = None
    values_a: tuple[float, ...] = ()  # the metric of a at each of the seeds, per cent
    values_b: tuple[float, ...] = ()


@dataclass(frozen=True)
class Findings:
    """Everything that a report says about which arm trains better."""

    study: str
    title: str
    headline: tuple[str, ...]  # the verdict in words, most important first
    arms: tuple[ArmFinding, ...]
    contrasts: tuple[ContrastFinding, ...]
    notes: tuple[str, ...]  # assumptions and cautions, each one sentence
