"""Epochs that a trial was trained, and the epoch of the network that is tested, where training stops early."""

from dataclasses import dataclass

from leadline.parts.metrics import FinalMetric, register


@dataclass(frozen=True)
class NumberOfEpochs(FinalMetric):
    """A number of epochs after which something has happened in every trial."""

    verb = "needs"
    lower = "fewer"
    higher = "more"
    lowest = "fewer"
    again = ""


register(
    NumberOfEpochs(
        "epochs_trained",
        "epochs of training",
        "",
        "epochs",
        record=("final-epochs", "trained"),
        summary=True,
        resolution=lambda counts: 1.0,
        requires="early_stopping",
        position=(15, ""),
    )
)
register(
    NumberOfEpochs(
        "best_epoch",
        "epochs to the tested network",
        "",
        "epochs",
        record=("final-epochs", "best"),
        summary=True,
        resolution=lambda counts: 1.0,
        on_validation=True,
        requires="early_stopping",
        position=(16, ""),
    )
)
