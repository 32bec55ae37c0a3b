"""Top-5 error: the fraction of images whose class is not among the five most probable (Krizhevsky et al. 2012)."""

from typing import Any

from leadline.parts.metrics import FinalMetric, register
from leadline.parts.metrics.base import PER_CENT, per_cent_of


def top5_error(labels: Any, predicted: Any, probabilities: Any) -> float:
    """Return the top-5 error in per cent.

    Ties are broken in favour of the smaller class index.

    Args:
        labels: (n,) true classes.
        predicted: not used.
        probabilities: (n, classes).

    Example:
        >>> import numpy as np
        >>> probabilities = np.array([[0.3, 0.2, 0.2, 0.1, 0.1, 0.1]])
        >>> top5_error(np.array([4]), None, probabilities), top5_error(np.array([5]), None, probabilities)
        (0.0, 100.0)
    """
    import numpy as np

    first = np.argsort(-np.asarray(probabilities), axis=1, kind="stable")[:, :5]
    return 100 * float(1 - np.mean((first == np.asarray(labels)[:, None]).any(1)))


register(
    FinalMetric(
        "top5_error",
        "top-5 test error",
        record=("final-test", "top5_error"),
        compute=top5_error,
        fewest_classes=6,
        resolution=lambda counts: per_cent_of(counts.test),
        bounds=PER_CENT,
        position=(20, ""),
    )
)
