"""What is compared, as far as statistics need to know it: the same description of a study and of a table of runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from leadline.analysis.verdict.values import CONVERGENCE_RECORD, CURVE_RECORDS
from leadline.data.split import Resample, split_sizes
from leadline.parts.base import canonical_json
from leadline.parts.metrics import Counts, CurveMetric, FinalMetric, Metric, TimeMetric, metric, metrics
from leadline.parts.tasks import Task, task_of
from leadline.seeds import SOURCES, Source
from leadline.specs.contrast import Correction
from leadline.specs.decide import DecideSpec
from leadline.specs.tuning import TuneSpec, Values
from leadline.study.expand import Arm, ExpandedStudy, default_metric, tasks_of

NAMES_DATA = ("data.name", "data.path", "data.module")
"""Factors whose levels are data sets, over which nothing is averaged."""

UNKNOWN = Counts(None, None, None, 0)


@dataclass(frozen=True)
class DesignArm:
    """One of the variants that are compared, at one level of every factor."""

    name: str  # such as resnet[blocks=5]
    base: str  # resnet
    factors: Mapping[str, bool | int | float | str] = field(default_factory=dict)
    data: str = ""  # the data set on which it was evaluated
    alike: str = ""  # equal for arms that differ in their data set alone
    counts: Counts = UNKNOWN  # of what it was trained and evaluated on
    resample: Resample | None = None  # which images it draws again at every seed; None: none
    mislabelled: bool = False  # whether some of its training labels are replaced by wrong ones
    task: Task | None = None  # which says whether a trial has learned anything; None: not known


@dataclass(frozen=True)
class Contrast:
    """A pair of arms to compare, `a` against `b`."""

    a: str
    b: str
    kind: Metric  # what is declared of its metric
    target: float | None = None
    margin: float | None = None
    unpaired: bool = False  # whether their values are two separate samples
    across: bool = False  # whether they are of two studies, each of which has a verdict of its own
    until_decided: bool = False  # whether a study added seeds until its own contrasts were decided, of which it is none

    @property
    def metric(self) -> str:
        """The name of its metric."""
        return self.kind.name


@dataclass(frozen=True)
class Design:
    """Arms, contrasts, metrics and seeds of a comparison, whether they are fixed, and what else a verdict mentions."""

    name: str
    arms: tuple[DesignArm, ...]
    contrasts: tuple[Contrast, ...]
    metrics: Mapping[str, Metric]  # that something is said of: of the contrasts, and `metric`
    metric: str  # that the arms are for, where no contrast names another
    seeds: tuple[int, ...]  # in their order; where seeds are added until contrasts are decided, all that there may be
    sources: tuple[Source, ...] = SOURCES  # of randomness that differ from seed to seed
    planned: int | None = None  # trials of each arm; None: as many as there are
    title: str = ""
    margin: float = 0.0  # of contrasts that name none and whose metric moves in points
    correction: Correction = "holm"
    decide: DecideSpec | None = None  # None: all seeds are fixed beforehand
    shared_over: int = 0  # seeds over which a design with `decide` distributes its error
    summarised: tuple[str, ...] = ("test_error", "validation_error", "train_error")  # metrics that each arm is shown by
    names_data: tuple[str, ...] = NAMES_DATA  # factors whose levels are data sets
    trained: bool = True  # whether Leadline trained and evaluated the arms; else only their results are known
    moments: bool = False  # whether the values are known by means and standard deviations alone
    curves: Mapping[str, str] = field(
        default_factory=dict
    )  # records that curves are drawn of -> the title of their axis
    remarks: tuple[str, ...] = ()
    tune: TuneSpec | None = None
    chosen: Mapping[str, Values] | None = None  # arm -> tuned values; None: nothing was tuned

    @property
    def resample(self) -> Resample | None:
        """Which images all arms draw again at every seed; None: none, or arms differ."""
        found = {arm.resample for arm in self.arms}
        return found.pop() if len(found) == 1 else None


def design_of(study: ExpandedStudy) -> Design:
    """Return what a study compares."""
    kinds = {name: metric(name) for name in sorted(_asked(study))}
    tasks = tasks_of(study)
    given = {arm.name: arm for arm in study.asked}  # for tuning and matching change each one on each data set
    several = len({arm.trial.data.display_name for arm in study.arms}) > 1
    return Design(
        name=study.name,
        title=study.title,
        arms=tuple(_arm(arm, _but_for_data(given[arm.name]) if several else "") for arm in study.arms),
        contrasts=tuple(Contrast(one.a, one.b, kinds[one.metric], one.target, one.margin) for one in study.contrasts),
        metrics=kinds,
        metric=default_metric(study),
        seeds=study.seed_values,
        sources=study.spec.varied_sources,
        planned=len(study.seed_values) if study.decide is None else None,
        margin=study.spec.margin,
        correction=study.spec.correction,
        decide=study.decide,
        shared_over=0 if study.decide is None else study.shared_over,
        curves={name: axis for one in tasks for name, axis in one.curves.items()},
        remarks=study.remarks,
        tune=study.spec.tune,
        chosen=study.resolved.chosen,
    )


def reads_probabilities(study: ExpandedStudy) -> bool:
    """Whether a contrast's metric may have to be computed from the probabilities of classes."""
    return any(computes_from_probabilities(metric(name)) for name in _asked(study))


def reads_records(study: ExpandedStudy) -> set[tuple[str, str]]:
    """Return split and name of the records that `analyze` reads, which are few of those that are stored."""
    asked = [metric(name) for name in _asked(study)]
    finals = {one.record for one in (*metrics().values(), *asked) if isinstance(one, FinalMetric) and one.record}
    curves = any(isinstance(one, CurveMetric | TimeMetric) for one in asked)
    return finals | {CONVERGENCE_RECORD} | (set(CURVE_RECORDS) if curves else set())


def computes_from_probabilities(one: Metric) -> bool:
    """Return whether a metric may have to be computed from the probabilities of classes."""
    return isinstance(one, FinalMetric) and bool(one.compute) and one.needs_probabilities


def _asked(study: ExpandedStudy) -> set[str]:
    """Return every metric that something is said of, beside those by which all arms are summarised."""
    compared, published = study.contrasts, study.published
    return {default_metric(study), *(one.metric for one in compared), *(one.metric for one in published)}


def _arm(arm: Arm, alike: str) -> DesignArm:
    data = arm.trial.data
    sizes = split_sizes(data.known_sizes, data) if data.known_sizes else data  # what is asked for, where it is
    return DesignArm(
        name=arm.name,
        base=arm.base,
        factors=arm.factors,
        data=data.display_name,
        alike=alike,
        counts=Counts(sizes.train, sizes.validation, sizes.test, arm.trial.training.epochs),
        resample=data.resample,
        mislabelled=data.label_noise is not None,
        task=task_of(data.task),
    )


def _but_for_data(arm: Arm) -> str:
    """Return what two arms have in common that differ in their data alone."""
    factors = {name: value for name, value in arm.factors.items() if name not in NAMES_DATA}
    return canonical_json([arm.trial.model_dump(mode="json", exclude={"data", "seed"}), factors])
