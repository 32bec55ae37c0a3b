"""Macro-averaged F1 score: the mean over the classes of the harmonic mean of precision and recall."""

from typing import Any

from leadline.parts.metrics import FinalMetric, register
from leadline.parts.metrics.base import PER_CENT, check_arrays, per_cent_of


def macro_f1(labels: Any, predicted: Any, probabilities: Any = None) -> float:
    """Return the mean F1 score, in per cent, over the classes in labels or predictions.

    The score of a class is 2 TP / (2 TP + FP + FN), which is 0 if it is never predicted correctly.

    Args:
        labels: (n,) true classes.
        predicted: (n,) predicted classes.
        probabilities: not used.

    Raises:
        ValueError: there are no labels, or the numbers of labels and predictions differ.

    Example:
        >>> round(macro_f1([0, 0, 1, 1], [0, 0, 1, 0]), 2)
        73.33
    """
    import numpy as np

    check_arrays(labels, predicted)
    labels, predicted = np.asarray(labels), np.asarray(predicted)
    scores = []
    for one in np.union1d(labels, predicted):
        true, found = labels == one, predicted == one
        scores.append(2 * np.sum(true & found) / (np.sum(true) + np.sum(found)))
    return 100 * float(np.mean(scores))


register(
    FinalMetric(
        "macro_f1",
        "macro F1 score",
        record=("final-test", "macro_f1"),
        compute=macro_f1,
        needs_probabilities=False,
        resolution=lambda counts: per_cent_of(counts.test),
        higher_is_better=True,
        bounds=PER_CENT,
        position=(22, ""),
    )
)
