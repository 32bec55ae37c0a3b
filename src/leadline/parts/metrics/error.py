"""Misclassification error, in per cent, on test, training and validation data."""

from leadline.parts.metrics import FinalMetric, register
from leadline.parts.metrics.base import PER_CENT, per_cent_of

register(
    FinalMetric(
        "test_error",
        "test error",
        record=("final-test", "error"),
        summary=True,
        resolution=lambda counts: per_cent_of(counts.test),
        bounds=PER_CENT,
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
        bounds=PER_CENT,
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
        bounds=PER_CENT,
        position=(2, ""),
    )
)
