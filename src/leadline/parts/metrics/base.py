"""Declaration of a metric: its name, wording, units and direction, and the source of its value."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

from leadline.errors import SpecError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Outputs:
    """Outputs of a trained network for the test images."""

    labels: "NDArray[Any]"  # (n,) true classes, or targets
    predicted: "NDArray[Any]"  # (n,) predicted classes, or values
    probabilities: "NDArray[np.floating] | None" = None  # (n, classes); None: not stored
    examples: "NDArray[Any] | None" = None  # (n,) their names, where they are not the test images in their order

    def is_of_same_examples(self, other: "Outputs") -> bool:
        """Return whether two networks saw the same examples, in the same order."""
        import numpy as np

        if self.examples is None or other.examples is None:
            alike = self.examples is other.examples
        else:
            alike = np.array_equal(self.examples, other.examples)
        return alike and np.array_equal(self.labels, other.labels)


@dataclass(frozen=True, eq=False)
class Curve:
    """Learning curve of a trial by epoch, with NaN for unknown values."""

    epochs: "NDArray[np.float64]"
    errors: "NDArray[np.float64]"  # on validation data, per cent
    seconds: "NDArray[np.float64]"  # of training, without evaluation, since the beginning


@dataclass(frozen=True)
class Counts:
    """Numbers of images in each split of a trial, None if unknown, and of epochs."""

    train: int | None
    validation: int | None
    test: int | None
    epochs: int


PER_CENT = (0.0, 100.0)
"""Bounds of what is told in per cent of a whole."""


def per_cent_of(count: int | None) -> float | None:
    """Return the resolution, in per cent, of a fraction of `count` images, or None if the number is unknown."""
    return 100 / count if count else None


@dataclass(frozen=True)
class Metric:
    """Declaration of a metric.

    Args:
        name: name in study files, in `verdict --json` and in frames.
        wording: name in sentences and headings, such as `test error`; `{target}` is replaced by its target.
        unit: unit of values.
        difference_unit: unit of differences and margins; `points` are percentage points.
        higher_is_better: whether a difference above 0 favours the first arm.
        bounds: the smallest and the largest value that it can have; None: it has no bounds, or they are not known.
        summary: whether it is reported for every arm.
        resolution: function that returns the smallest step of its values, given the sizes of a trial; None: unknown.
        on_validation: whether it is measured on validation images, by which tuning chooses.
        requires: key of `training` without which it is not measured, or empty.
        note: sentence that a reader of a verdict should know, or empty.
        position: sort key of its column; ties are sorted by name.
    """

    name: str
    wording: str
    unit: str = "%"
    difference_unit: str = "points"
    higher_is_better: bool = field(default=False, kw_only=True)
    bounds: tuple[float, float] | None = field(default=None, kw_only=True)
    summary: bool = field(default=False, kw_only=True)
    resolution: Callable[[Counts], float | None] | None = field(default=None, kw_only=True)
    on_validation: bool = field(default=False, kw_only=True)
    requires: str = field(default="", kw_only=True)
    note: str = field(default="", kw_only=True)
    position: tuple[int, str] = field(default=(50, ""), kw_only=True)

    verb = "has"
    lower = "a lower"
    higher = "a higher"
    lowest = "the lower"
    highest = "the higher"
    again = " one"  # after `lower` and `higher` if the metric has just been mentioned
    needs_target = False

    @property
    def in_points(self) -> bool:
        """Whether a study's margin, which is in percentage points, applies to it."""
        return self.difference_unit == "points"

    @property
    def largest_difference(self) -> float:
        """The largest difference that two values can have; infinite without bounds."""
        return math.inf if self.bounds is None else self.bounds[1] - self.bounds[0]

    @property
    def better(self) -> str:
        """Words before the metric for the better arm, such as `a lower`."""
        return self.higher if self.higher_is_better else self.lower

    @property
    def worse(self) -> str:
        """Words before the metric for the worse arm, such as `a higher`."""
        return self.lower if self.higher_is_better else self.higher

    @property
    def best(self) -> str:
        """Words before the metric for the better of two arms, such as `the lower`."""
        return self.highest if self.higher_is_better else self.lowest

    def amount(self, value: float, digits: int = 6) -> str:
        """Return a margin or a horizon with its unit, such as `0.5 points` or `1 epoch`."""
        return self.with_unit(f"{value:.{digits}g}")

    def with_unit(self, text: str) -> str:
        """Return a formatted difference with its unit, if any, such as `0.5 points`, `1 epoch` or `0.1`."""
        return f"{text} {self.difference_unit.removesuffix('s') if text == '1' else self.difference_unit}".rstrip()

    def named(self, target: float | None = None) -> str:
        """Return its name in sentences, with its target if it has one."""
        return self.wording.format(target=target)

    def renamed(self, name: str) -> Self:
        """Return the same metric under another name."""
        return replace(self, name=name)

    def reason_missing(self, outputs: Outputs | None) -> str:
        """Return why the stored results of a finished trial lack it, as the end of a sentence, or an empty string."""
        return ""

    def as_plain(self) -> str | dict[str, Any]:
        """Return its value in a specification: the name of a built-in metric, or a reference to a custom one."""
        from leadline.parts.metrics import metrics
        from leadline.parts.reference import refer_to_object

        return self.name if metrics().get(self.name) == self else refer_to_object(self, self.name)


@dataclass(frozen=True)
class FinalMetric(Metric):
    """A metric of the final network in evaluation mode: a record, or a function of its outputs for test images.

    Args:
        record: split and name of its record; None: it is computed from the stored outputs.
        compute: function of labels (n,), predictions (n,) and probabilities (n, classes); for built-in metrics, the
            value is recorded at the end of training, so that outputs are not needed.
        needs_probabilities: whether it needs probabilities besides labels and predictions.
        fewest_classes: minimum number of classes for which it is meaningful and recorded.
    """

    record: tuple[str, str] | None = field(default=None, kw_only=True)
    compute: Callable[..., float] | None = field(default=None, kw_only=True)
    needs_probabilities: bool = field(default=True, kw_only=True)
    fewest_classes: int = field(default=2, kw_only=True)

    def value(self, outputs: Outputs) -> float | None:
        """Return its value from stored outputs, or None if they do not suffice.

        Raises:
            SpecError: the function fails, or does not return a number.
        """
        if self.compute is None or self.reason_missing(outputs):
            return None
        try:
            return float(self.compute(*map(_read_only, (outputs.labels, outputs.predicted, outputs.probabilities))))
        except Exception as error:  # custom code can raise any exception
            reason = " ".join(str(error).split())
            raise SpecError(
                f"metric {self.name}: expected a number from labels, predictions and probabilities, got"
                f" {type(error).__name__}: {reason}"
            ) from error

    def reason_missing(self, outputs: Outputs | None) -> str:
        """Return why the stored outputs do not suffice, as the end of a sentence, or an empty string."""
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
    """A metric of a trial's learning curve.

    Args:
        compute: function of the curve, which returns None if the curve does not suffice.
    """

    compute: Callable[[Curve], float | None] = field(kw_only=True)


@dataclass(frozen=True)
class TimeMetric(Metric):
    """The time at which the validation error first reaches a target, which some trials never do.

    Args:
        clock: function that returns the times of a curve, one per epoch.
    """

    clock: Callable[[Curve], "NDArray[np.float64]"] = field(kw_only=True)

    verb = "needs"
    lower = "fewer"
    higher = "more"
    lowest = "fewer"
    again = ""
    needs_target = True


def _read_only(array: "NDArray[Any] | None") -> "NDArray[Any] | None":
    """Return a read-only view, because other metrics use the same array."""
    if array is None:
        return None
    view = array.view()
    view.flags.writeable = False
    return view


def recorded(metrics: Mapping[str, Metric], classes: int) -> dict[str, FinalMetric]:
    """Return name of a `final-test` record -> its metric, for metrics that are defined for this number of classes."""
    found: dict[str, FinalMetric] = {}
    for one in metrics.values():
        if isinstance(one, FinalMetric) and one.record and one.compute and classes >= one.fewest_classes:
            found[one.record[1]] = one
    return found


def check_arrays(labels: Any, predicted: Any) -> None:
    """Raise ValueError unless there are equally many labels and predictions, and at least one."""
    if len(labels) != len(predicted) or not len(labels):
        raise ValueError(f"{len(labels)} labels and {len(predicted)} predictions; expected equal numbers, at least one")
