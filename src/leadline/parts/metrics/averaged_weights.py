"""Error and loss of the network with averaged weights, which `training.averaging` keeps beside the trained ones."""

from leadline.parts.metrics import FinalMetric, register
from leadline.parts.metrics.base import PER_CENT, per_cent_of

register(
    FinalMetric(
        "averaged_test_error",
        "test error of the averaged weights",
        record=("final-averaged-test", "error"),
        requires="averaging",
        resolution=lambda counts: per_cent_of(counts.test),
        bounds=PER_CENT,
        position=(3, ""),
    )
)
register(
    FinalMetric(
        "averaged_validation_error",
        "validation error of the averaged weights",
        record=("final-averaged-validation", "error"),
        requires="averaging",
        resolution=lambda counts: per_cent_of(counts.validation),
        on_validation=True,
        bounds=PER_CENT,
        position=(4, ""),
    )
)
register(
    FinalMetric(
        "averaged_test_loss",
        "test loss of the averaged weights",
        " nats",
        "nats",
        record=("final-averaged-test", "loss"),
        requires="averaging",
        position=(14, ""),
    )
)
