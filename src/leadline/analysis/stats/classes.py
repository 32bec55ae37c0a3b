"""What a classifier gets wrong: confusion matrix, error of each class, and how far confidence is from accuracy."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from leadline.analysis.stats.samples import Floats, StatisticsError


@dataclass(frozen=True, eq=False)
class Reliability:
    """Images in bins of equal width by the probability of their predicted class, of the bins that hold any."""

    counts: NDArray[np.int64]  # images of each bin
    confidence: Floats  # the mean probability of the predicted class
    accuracy: Floats  # the share that is right

    @property
    def error(self) -> float:
        """The expected calibration error (Guo et al. 2017, equation 3), in percentage points."""
        gaps = self.counts * np.abs(self.confidence - self.accuracy)
        return float(100 * gaps.sum() / self.counts.sum())


def confusion_matrix(labels: ArrayLike, predicted: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Return the number of images by true class, the rows, and predicted class, the columns.

    Args:
        labels, predicted: shape [n], classes from 0.
        classes: their number.

    Raises:
        StatisticsError: shapes that differ, or a class that is not below `classes`.

    Example:
        >>> confusion_matrix([0, 0, 1], [0, 1, 1], 2).tolist()
        [[1, 1], [0, 1]]
    """
    true, given = (np.asarray(side, dtype=np.int64) for side in (labels, predicted))
    if true.shape != given.shape or true.ndim != 1:
        raise StatisticsError(f"labels have shape {true.shape} and predictions {given.shape}; expected [n] twice")
    if true.size and not 0 <= min(true.min(), given.min()) <= max(true.max(), given.max()) < classes:
        raise StatisticsError(f"a label or prediction is not one of {classes} classes, which are counted from 0")
    return np.bincount(true * classes + given, minlength=classes * classes).reshape(classes, classes)


def class_errors(matrix: ArrayLike) -> Floats:
    """Return the share of each class that is given another, in per cent; NaN for a class without images.

    Args:
        matrix: shape [..., classes, classes], as `confusion_matrix` returns it.

    Example:
        >>> class_errors([[3, 1], [0, 4]]).tolist()
        [25.0, 0.0]
    """
    counts = np.asarray(matrix, dtype=np.float64)
    images = counts.sum(-1)
    right = np.diagonal(counts, axis1=-2, axis2=-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(100 * (images - right) / images)


def reliability(labels: ArrayLike, predicted: ArrayLike, probabilities: ArrayLike, bins: int) -> Reliability:
    """Return confidence and accuracy by bins of equal width, each closed on the right.

    Args:
        labels, predicted: shape [n], classes.
        probabilities: shape [n, classes].
        bins: their number.

    Example:
        >>> found = reliability([0, 0, 0, 1], [0] * 4, [[0.8, 0.2]] * 4, 10)
        >>> found.counts.tolist(), found.accuracy.tolist(), round(found.error, 6)
        ([4], [0.75], 5.0)
    """
    confidence = np.asarray(probabilities, dtype=np.float64).max(1)
    right = np.asarray(labels) == np.asarray(predicted)
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    held = counts > 0
    sums = (np.bincount(place, weights=values, minlength=bins)[held] for values in (confidence, right))
    means = [total / counts[held] for total in sums]
    return Reliability(counts[held], *means)
