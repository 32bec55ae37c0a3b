"""Misclassification error, in per cent, on test, training and validation data."""

from leadline.metrics import FinalMetric, register

register(FinalMetric("test_error", "test error", record=("final-test", "error"), summary=True, position=(0, "")))
register(FinalMetric("train_error", "training error", record=("final-train", "error"), summary=True, position=(1, "")))
register(
    FinalMetric(
        "validation_error", "validation error", record=("final-validation", "error"), summary=True, position=(2, "")
    )
)
