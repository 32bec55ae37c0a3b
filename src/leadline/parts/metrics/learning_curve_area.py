"""Mean validation error over the epochs: the area under the learning curve divided by its length."""

from leadline.parts.metrics import Curve, CurveMetric, register
from leadline.parts.metrics.base import PER_CENT, per_cent_of


def area(curve: Curve) -> float | None:
    """Return the mean validation error over the epochs by the trapezoidal rule, in per cent; None if one is not finite.

    The unit is that of an error, whatever the number of epochs.
    """
    import numpy as np

    if not len(curve.errors) or not np.isfinite(curve.errors).all():
        return None
    if len(curve.errors) == 1:
        return float(curve.errors[0])
    return float(np.trapezoid(curve.errors, curve.epochs) / (curve.epochs[-1] - curve.epochs[0]))


register(
    CurveMetric(
        "learning_curve_area",
        "mean validation error over the epochs",
        compute=area,
        resolution=lambda counts: per_cent_of(counts.validation and counts.validation * counts.epochs),
        on_validation=True,
        note="The mean validation error over the epochs is the area under the learning curve (trapezoidal rule) divided"
        " by its length.",
        bounds=PER_CENT,
        position=(10, ""),
    )
)
