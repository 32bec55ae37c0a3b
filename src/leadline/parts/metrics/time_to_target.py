"""Epochs and seconds of training until the validation error first reaches a target."""

from leadline.parts.metrics import TimeMetric, register

register(
    TimeMetric(
        "epochs_to",
        "epochs to {target:g}% validation error",
        "",
        "epochs",
        clock=lambda curve: curve.epochs,
        on_validation=True,
        position=(12, ""),
    )
)
register(
    TimeMetric(
        "seconds_to",
        "seconds of training to {target:g}% validation error",
        "",
        "seconds",
        clock=lambda curve: curve.seconds,
        on_validation=True,
        note="Seconds are of training only, without evaluation, and depend on the machines on which the trials ran.",
        position=(13, ""),
    )
)
