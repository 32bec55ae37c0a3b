"""What a study shows, as frozen numbers: the contract between statistics, words, figures and report."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from leadline.analysis.stats import (
    LEVEL,
    Decision,
    DifferenceTest,
    Effect,
    McNemar,
    Paired,
    SeedsForWord,
    Summary,
)
from leadline.analysis.stats.factorial import OverDataSets
from leadline.analysis.stats.pairing import Ahead, Pairing, SeedsAndImages
from leadline.analysis.verdict.decisions import Judgement
from leadline.analysis.verdict.pairs import Ended
from leadline.analysis.verdict.tuned import Tuning
from leadline.analysis.verdict.values import ToTarget
from leadline.data.split import Resample
from leadline.parts.metrics import Metric, metric
from leadline.parts.tasks import task_of
from leadline.seeds import SOURCES, SeedName, Source
from leadline.specs.contrast import Correction
from leadline.specs.tuning import TuneSpec, Values
from leadline.study.rounds import Round


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
    at_chance: int  # of the finished, those that have learned nothing
    metrics: Mapping[str, Summary]  # of finished trials; per cent: test_error, train_error, validation_error
    convergence_epoch: Summary | None
    seconds: Summary | None  # wall time of a trial
    data: str = ""  # the data set on which it was evaluated
    memorised: int = 0  # of the finished, those that have learned the training images and guess on the test images

    @property
    def unfinished(self) -> int:
        """Trials that are still waiting or running."""
        return max(0, self.planned - self.finished - self.diverged - self.failed)


@dataclass(frozen=True)
class InterimAnalysis:
    """What the first seeds of a contrast show, with the interval that holds at every look."""

    seeds: int  # at which both trials have ended
    pairs: int  # of them, at which both have finished
    difference: float | None  # their mean; None without a pair
    low: float  # -inf where there is no end
    high: float
    decision: Decision
    looked: bool  # whether a round ended here, up to the one that decided
    by_failures: bool = False  # whether failures decided, before there were two pairs


@dataclass(frozen=True)
class SequentialAnalysis:
    """What a contrast shows in a study that adds seeds until it is decided, whenever one stops."""

    low: float  # of the difference; -inf where there is no end
    high: float
    confidence: float  # that no interval of any contrast, at any look, leaves out the true difference
    of_each: float  # of each contrast's interval, so that all hold together
    contrasts: int
    planned: int  # seeds over which the error was distributed before the first look
    seeds: int  # at which both trials have ended, up to the first at which they have not
    most: int  # seeds that the study may take
    taken: int  # looks, until it was decided
    interim: tuple[InterimAnalysis, ...]  # at 1, 2, 3, ... seeds, up to all of these
    adjusted: float | None = None  # the mean difference, adjusted for stopping when it was decided
    futile: bool = False  # whether it got no more seeds because neither arm learned anything

    @property
    def judgement(self) -> Judgement:
        """What its last look decided, by values or by failures."""
        if not self.interim:
            return Judgement("undecided")
        last = self.interim[-1]
        return Judgement(last.decision, DifferenceTest(None, 0, "failures" if last.by_failures else "values"))


@dataclass(frozen=True)
class ContrastFinding:
    """What one contrast, `a` against `b`, shows; the difference is a minus b, so below 0 means that a is lower."""

    a: str
    b: str
    metric: str
    margin: float  # percentage points
    seeds: tuple[SeedName, ...]  # at which both arms have a value, and not both learned nothing
    differences: tuple[float, ...]  # one per seed, percentage points
    diverged_a: int
    diverged_b: int
    paired: Effect | None  # None: no such seed
    mcnemar: tuple[McNemar, ...]  # one per seed; empty where predictions are missing
    judgement: Judgement
    failed_a: int = 0  # trials that diverged or stayed at chance, of the seeds at which both ended
    failed_b: int = 0
    at_chance_a: int = 0
    at_chance_b: int = 0
    ended: int = 0  # seeds at which both trials ended
    both_failed: int = 0  # of them, those at which both failed, which have no difference
    crossed: bool = False  # whether pairs share seeds of some sources of randomness, so that they are not independent
    neither_learned: bool = False  # whether at every such seed both failed
    values_a: tuple[float, ...] = ()  # the metric of a at each of the seeds, per cent
    values_b: tuple[float, ...] = ()
    target: float | None = None  # validation error, per cent, that times are measured to
    reach: ToTarget | None = None  # of such times, which the values give no further than to its horizon
    resolution: float = 0.0  # the step in which the values move
    sequential: SequentialAnalysis | None = None  # None: fixed seeds; else `paired` has its interval and no p
    looked: tuple[int, ...] = ()  # seeds at which verdicts were there to see before more were added
    until_decided: bool = False  # whether no more were added because a study had decided its own contrasts
    finished: int = 0  # seeds at which both arms finished, whether or not the metric has a value there
    needed: SeedsForWord | None = None  # where it is undecided
    shrunk: float | None = None  # the mean difference, drawn to that of all contrasts of the metric
    pairing: Pairing | None = None
    ahead: Ahead | None = None  # how often a is better at a fresh seed, failures counted
    images: SeedsAndImages | None = None  # of test errors whose predictions are known at every seed
    apart: tuple[Ended, Ended] | None = None  # of arms that form no pairs
    declared: Metric | None = field(default=None, compare=False)  # of the metric; None: what Leadline has by its name

    @property
    def kind(self) -> Metric:
        """What is declared of its metric."""
        return self.declared or metric(self.metric)

    @property
    def decision(self) -> Decision:
        """What is decided, beside the study's other contrasts."""
        return self.judgement.decision

    @property
    def at_every_look(self) -> bool:
        """Whether its interval holds at every look: seeds were added, to this contrast or to others of the study."""
        return bool(self.sequential or self.looked) or bool(
            self.paired and self.paired.ci95 and self.paired.t_p is None
        )

    @property
    def by_failures(self) -> bool:
        """Whether a difference is decided by how often trials failed, not by values."""
        return self.decision in ("better", "worse") and self.judgement.test.ground == "failures"

    @property
    def estimate(self) -> Effect | None:
        """What its pairs show; None: there is none, or no trial reached the target."""
        return None if self.reach and self.reach.silent else self.paired


@dataclass(frozen=True)
class FactorEffect:
    """The difference a - b over all levels of the factors, or how it, or both arms together, change with a factor."""

    a: str  # without levels
    b: str
    metric: str
    target: float | None
    within: str  # the data set on which it is, such as data.name=mnist; empty where none is varied
    of: Literal["difference", "both"]  # a - b, whose change is an interaction; or the mean of a and b
    over: Literal["mean", "step", "slope"]
    factor: str  # empty of a mean
    levels: tuple[bool | int | float | str, ...]  # of the factor: the two of a step, all of a slope
    logarithmic: bool  # a slope per doubling of the factor, not per one of it
    seeds: tuple[SeedName, ...]  # at which every trial that it needs has its value
    paired: Paired  # of the effect, one number per seed
    t_p_adjusted: float | None  # over all such effects of the study
    declared: Metric | None = field(default=None, compare=False)  # of the metric; None: what Leadline has by its name

    @property
    def kind(self) -> Metric:
        """What is declared of its metric."""
        return self.declared or metric(self.metric)

    @property
    def shown(self) -> bool:
        """Whether the effect is shown to be other than 0, beside all others of the study."""
        return self.t_p_adjusted is not None and self.t_p_adjusted <= LEVEL


@dataclass(frozen=True)
class DataSetFinding:
    """A contrast on one of several data sets."""

    data: str
    contrast: ContrastFinding
    weight: float | None  # in the mean; None: one pair has no spread, or none was left


@dataclass(frozen=True)
class MetaAnalysis:
    """What one contrast shows over several data sets, which are taken as a sample of such data sets."""

    a: str  # without the data set
    b: str
    metric: str
    target: float | None
    margin: float
    parts: tuple[DataSetFinding, ...]
    summary: OverDataSets | None  # None: fewer than two data sets have two pairs
    decision: Decision
    declared: Metric | None = field(default=None, compare=False)  # of the metric; None: what Leadline has by its name

    @property
    def kind(self) -> Metric:
        """What is declared of its metric."""
        return self.declared or metric(self.metric)


@dataclass(frozen=True)
class Findings:
    """Everything that a study shows about which arm trains better, in numbers; `wording` puts it in words."""

    study: str
    title: str
    arms: tuple[ArmFinding, ...]
    contrasts: tuple[ContrastFinding, ...]
    correction: Correction = "holm"  # of the p-values, for the number of contrasts
    factors: tuple[FactorEffect, ...] = ()
    meta_analyses: tuple[MetaAnalysis, ...] = ()
    rounds: tuple[Round, ...] = ()  # of a study that decides while seeds are added
    data_sets: tuple[str, ...] = ()  # that arms are trained on
    sources: tuple[Source, ...] = SOURCES  # of randomness, that differ from seed to seed
    resample: Resample | None = None  # what of the data is redrawn at every seed, in all arms
    mislabelled: tuple[str, ...] = ()  # arms some of whose training labels are replaced by wrong ones
    unrecorded: Mapping[str, Mapping[str, int]] = field(default_factory=dict)  # metric -> why -> trials that lack it
    metric: str = "test_error"  # that the arms are for, where no contrast names another
    declared: Mapping[str, Metric] = field(default_factory=dict, compare=False)  # by name; others as Leadline has them
    summarised: tuple[str, ...] = ("test_error", "validation_error", "train_error")  # metrics that each arm is shown by
    trained: bool = True  # whether Leadline trained and evaluated the arms; else only their results are known
    curves: Mapping[str, str] = field(  # records that learning curves are drawn of -> the title of their axis
        default_factory=lambda: dict(task_of("classification").curves)
    )
    remarks: tuple[str, ...] = ()  # how the specification was completed: default contrasts, widths, in sentences
    tune: TuneSpec | None = None
    chosen: Mapping[str, Values] | None = None  # arm -> tuned values; None: nothing was tuned
    tuning: Tuning | None = field(default=None, compare=False)  # None: what was tried is not known

    def kind(self, name: str) -> Metric:
        """Return what is declared of a metric."""
        return self.declared.get(name) or metric(name)

    @property
    def tested(self) -> int:
        """Contrasts that have a test of difference, among which p-values are adjusted."""
        return sum(one.judgement.test.p is not None for one in self.contrasts)
