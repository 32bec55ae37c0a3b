"""Expected calibration error: the mean difference between confidence and accuracy."""

from typing import Any

from leadline.parts.metrics import FinalMetric, register
from leadline.parts.metrics.base import PER_CENT

BINS = 15
"""The number of bins of equal width, as in Guo et al. 2017."""


def calibration_error(labels: Any, predicted: Any, probabilities: Any) -> float:
    """Return the expected calibration error (Guo et al. 2017, equation 3), in percentage points.

    Images are sorted into `BINS` bins of equal width by the probability of their predicted class, each closed on the
    right; the error is the mean over images of the difference between the mean probability and the accuracy of a bin.

    Args:
        labels: (n,) true classes.
        predicted: (n,) predicted classes.
        probabilities: (n, classes).

    Example:
        >>> import numpy as np
        >>> probabilities = np.array([[0.8, 0.2]] * 4)
        >>> round(calibration_error(np.array([0, 0, 0, 1]), np.zeros(4, int), probabilities), 6)
        5.0
    """
    import numpy as np

    confidence = np.asarray(probabilities, dtype=np.float64).max(1)
    right = np.asarray(labels) == np.asarray(predicted)
    bins = np.clip(np.ceil(confidence * BINS).astype(int) - 1, 0, BINS - 1)
    gaps = [abs(confidence[bins == one].sum() - right[bins == one].sum()) for one in np.unique(bins)]
    return 100 * float(np.sum(gaps) / len(right))


register(
    FinalMetric(
        "calibration_error",
        "expected calibration error",
        record=("final-test", "calibration_error"),
        compute=calibration_error,
        bounds=PER_CENT,
        position=(23, ""),
    )
)
