"""What a metric is: its name, words, units and direction, and where its value comes from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from leadline.errors import SpecError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Outputs:
    """What a trained network gave for the test images."""

    labels: "NDArray[Any]"  # (n,) true classes, or targets
    predicted: "NDArray[Any]"  # (n,) predicted classes, or values
    probabilities: "NDArray[np.floating] | None" = None  # (n, classes); None: not kept, or never recorded


@dataclass(frozen=True, eq=False)
class Curve:
    """A trial, epoch by epoch; NaN where a value is not known."""

    epochs: "NDArray[np.float64]"
    errors: "NDArray[np.float64]"  # on validation data, per cent
    seconds: "NDArray[np.float64]"  # of training, without evaluation, since the beginning


@dataclass(frozen=True)
class Counts:
    """What a trial is trained and evaluated on: images of each split, None where that is not known, and epochs."""

    train: int | None
    validation: int | None
    test: int | None
    epochs: int


def per_cent_of(count: int | None) -> float | None:
    """Return the step, in per cent, in which a share of so many images moves; None where the number is not known."""
    return 100 / count if count else None


@dataclass(frozen=True)
class Metric:
    """A metric's declaration.

    Args:
        name: in study files, in `verdict --json` and in frames.
        wording: what sentences and headings call it, such as `test error`; `{target}` stands for its target.
        unit: written after a value.
        difference_unit: written after a difference and a margin; `points` are percentage points.
        higher_is_better: whether a difference above 0 is in favour of the first arm.
        summary: whether every arm is summarised by it.
        resolution: the step in which its values move, from what a trial is evaluated on; None: in no step that is
            known beforehand.
        on_validation: whether it is of the validation images, by which tuning chooses.
        note: what a reader of a verdict must know of it, in a sentence; empty: nothing.
        position: where it stands among columns; equal ones stand in the order of their names.
    """

    name: str
    wording: str
    unit: str = "%"
    difference_unit: str = "points"
    higher_is_better: bool = field(default=False, kw_only=True)
    summary: bool = field(default=False, kw_only=True)
    resolution: Callable[[Counts], float | None] | None = field(default=None, kw_only=True)
    on_validation: bool = field(default=False, kw_only=True)
    note: str = field(default="", kw_only=True)
    position: tuple[int, str] = field(default=(50, ""), kw_only=True)

    verb = "has"
    lower = "a lower"
    higher = "a higher"
    lowest = "the lower"
    highest = "the higher"
    again = " one"  # after `lower` and `higher` where the metric has just been named
    needs_target = False

    @property
    def in_points(self) -> bool:
        """Whether a study's margin, which is in percentage points, holds for it."""
        return self.difference_unit == "points"

    @property
    def better(self) -> str:
        """What stands before the metric of the arm that is better, such as `a lower`."""
        return self.higher if self.higher_is_better else self.lower

    @property
    def worse(self) -> str:
        """What stands before the metric of the arm that is worse, such as `a higher`."""
        return self.lower if self.higher_is_better else self.higher

    @property
    def best(self) -> str:
        """What stands before the metric of the better of two arms, such as `the lower`."""
        return self.highest if self.higher_is_better else self.lowest

    def amount(self, value: float, digits: int = 6) -> str:
        """Return a margin or a horizon with its unit, such as `0.5 points` or `1 epoch`."""
        return self.with_unit(f"{value:.{digits}g}")

    def with_unit(self, text: str) -> str:
        """Return a difference that is written out with its unit, such as `0.5 points`, `1 epoch`, or `0.1` of none."""
        return f"{text} {self.difference_unit.removesuffix('s') if text == '1' else self.difference_unit}".rstrip()

    def named(self, target: float | None = None) -> str:
        """Return what a sentence calls it, with its target where it has one."""
        return self.wording.format(target=target)

    def renamed(self, name: str) -> Self:
        """Return the same metric under another name."""
        return replace(self, name=name)

    def reason_missing(self, outputs: Outputs | None) -> str:
        """Return why what is stored of a finished trial does not give it, as the end of a sentence; empty: it does."""
        return ""

    def as_plain(self) -> str | dict[str, Any]:
        """Return what a specification holds of it: its name where it is built in, else a reference to it."""
        from leadline.parts.metrics import metrics
        from leadline.parts.reference import refer_to_object

        return self.name if metrics().get(self.name) == self else refer_to_object(self, self.name)


@dataclass(frozen=True)
class FinalMetric(Metric):
    """A metric of the last epoch's network in evaluation mode: a record, or a function of its outputs for test images.

    Args:
        record: split and name of the record that holds it; None: it is computed from the stored outputs.
        compute: the function, of labels (n,), predictions (n,) and probabilities (n, classes); of a built-in metric
            its value is recorded when training ends, so that it is there without the outputs.
        needs_probabilities: whether labels and predictions alone do not give it.
        fewest_classes: below which it means nothing and is not recorded.
    """

    record: tuple[str, str] | None = field(default=None, kw_only=True)
    compute: Callable[..., float] | None = field(default=None, kw_only=True)
    needs_probabilities: bool = field(default=True, kw_only=True)
    fewest_classes: int = field(default=2, kw_only=True)

    def value(self, outputs: Outputs) -> float | None:
        """Return its value from stored outputs; None where they do not give it.

        Raises:
            SpecError: the function fails, or returns no number.
        """
        if self.compute is None or self.reason_missing(outputs):
            return None
        try:
            return float(self.compute(*map(_unwritable, (outputs.labels, outputs.predicted, outputs.probabilities))))
        except Exception as error:  # whatever somebody's code may raise
            reason = " ".join(str(error).split())
            raise SpecError(
                f"metric {self.name}: expected a number from labels, predictions and probabilities, got"
                f" {type(error).__name__}: {reason}"
            ) from error

    def reason_missing(self, outputs: Outputs | None) -> str:
        """Return why stored outputs do not give it, as the end of a sentence; empty: they do."""
        probabilities = None if outputs is None else outputs.probabilities
        if self.compute is None:
            return "its value is not finite, or was not recorded"
        if outputs is None or (self.needs_probabilities and probabilities is None):
            return "trained before Leadline recorded it, and it cannot be computed from the stored outputs"
        if probabilities is not None and probabilities.shape[1] < self.fewest_classes:
            return f"it needs {self.fewest_classes} classes or more, and the data have {probabilities.shape[1]}"
        return ""


@dataclass(frozen=True)
class CurveMetric(Metric):
    """A metric of a trial's whole learning curve.

    Args:
        compute: a function of the curve; None where the curve does not give it.
    """

    compute: Callable[[Curve], float | None] = field(kw_only=True)


@dataclass(frozen=True)
class TimeMetric(Metric):
    """A time at which the validation error first is at a target, which some trials never reach.

    Args:
        clock: the curve's times, of the same length as its epochs.
    """

    clock: Callable[[Curve], "NDArray[np.float64]"] = field(kw_only=True)

    verb = "needs"
    lower = "fewer"
    higher = "more"
    lowest = "fewer"
    again = ""
    needs_target = True


def _unwritable(array: "NDArray[Any] | None") -> "NDArray[Any] | None":
    """Return a view that a metric's function cannot write to, for other metrics read the same array."""
    if array is None:
        return None
    view = array.view()
    view.flags.writeable = False
    return view


def recorded(metrics: Mapping[str, Metric], classes: int) -> dict[str, FinalMetric]:
    """Return name of a `final-test` record -> the metric that computes it, of those that so many classes have."""
    found: dict[str, FinalMetric] = {}
    for one in metrics.values():
        if isinstance(one, FinalMetric) and one.record and one.compute and classes >= one.fewest_classes:
            found[one.record[1]] = one
    return found


def check_arrays(labels: Any, predicted: Any) -> None:
    """Raise ValueError unless labels and predictions are as many, and there are some."""
    if len(labels) != len(predicted) or not len(labels):
        raise ValueError(
            f"{len(labels)} labels and {len(predicted)} predictions; expected as many of both, at least one"
        )
