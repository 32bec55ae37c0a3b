"""Misclassification error, in per cent, on test, training and validation data."""

from leadline.parts.metrics import FinalMetric, register
from leadline.parts.metrics.base import per_cent_of

register(
    FinalMetric(
        "test_error",
        "test error",
        record=("final-test", "error"),
        summary=True,
        resolution=lambda counts: per_cent_of(counts.test),
        position=(0, ""),
    )
)
register(
    FinalMetric(
        "train_error",
        "training error",
        record=("final-train", "error"),
        summary=True,
        resolution=lambda counts: per_cent_of(counts.train),
        position=(1, ""),
    )
)
register(
    FinalMetric(
        "validation_error",
        "validation error",
        record=("final-validation", "error"),
        summary=True,
        resolution=lambda counts: per_cent_of(counts.validation),
        on_validation=True,
        position=(2, ""),
    )
)
