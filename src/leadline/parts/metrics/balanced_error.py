"""Balanced error: the mean over classes of the fraction of misclassified images."""

from typing import Any

from leadline.parts.metrics import FinalMetric, register
from leadline.parts.metrics.base import PER_CENT, check_arrays, per_cent_of


def balanced_error(labels: Any, predicted: Any, probabilities: Any = None) -> float:
    """Return 1 minus the mean recall over the classes with images, in per cent (Brodersen et al. 2010).

    Args:
        labels: (n,) true classes.
        predicted: (n,) predicted classes.
        probabilities: not used.

    Raises:
        ValueError: there are no labels, or the numbers of labels and predictions differ.

    Example:
        >>> balanced_error([0, 0, 0, 1], [0, 0, 0, 0])
        50.0
    """
    import numpy as np

    check_arrays(labels, predicted)
    labels, wrong = np.asarray(labels), np.asarray(labels) != np.asarray(predicted)
    return 100 * float(np.mean([wrong[labels == one].mean() for one in np.unique(labels)]))


register(
    FinalMetric(
        "balanced_error",
        "balanced test error",
        record=("final-test", "balanced_error"),
        compute=balanced_error,
        needs_probabilities=False,
        resolution=lambda counts: per_cent_of(counts.test),
        bounds=PER_CENT,
        position=(21, ""),
    )
)
