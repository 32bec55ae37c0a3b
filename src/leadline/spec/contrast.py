"""What is compared in a pair of arms: the metric, the target it may need, and the margin that does not matter."""

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from leadline.parts.base import Spec

Metric = Literal[
    "test_error",
    "train_error",
    "validation_error",
    "learning_curve_area",
    "test_loss",
    "epochs_to",
    "seconds_to",
]
"""What may be compared: errors and the loss of the last epoch's network in evaluation mode; the mean validation error
over the epochs; and when the validation error first was at a target, which some trials never reach."""

TO_TARGET: tuple[Metric, ...] = ("epochs_to", "seconds_to")
IN_POINTS: tuple[Metric, ...] = ("test_error", "train_error", "validation_error", "learning_curve_area")

Correction = Literal["holm", "benjamini-hochberg"]
"""How the p-values of a study's contrasts are adjusted for their number."""


class ContrastSpec(Spec):
    """A pair of arms to compare, `a` against `b`; where factors are varied, at each of their levels."""

    a: str
    b: str
    metric: Metric = "test_error"
    target: float | None = Field(
        default=None, ge=0, lt=100, description="validation error in per cent, of epochs_to and seconds_to"
    )
    margin: float | None = Field(
        default=None,
        gt=0,
        description="in the metric's unit; None: the study's, of metrics in per cent, and of others none, so that"
        " nothing counts as equivalent",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_pair(cls, value: object) -> object:
        if isinstance(value, list | tuple):
            if len(value) != 2:
                raise ValueError(f"{list(value)} is not a pair of arms, such as [resnet, cnn]")
            return {"a": value[0], "b": value[1]}
        return value

    @model_validator(mode="after")
    def _target_where_it_is_needed(self) -> "ContrastSpec":
        if self.metric in TO_TARGET and self.target is None:
            raise ValueError(f"metric {self.metric} needs a target, a validation error in per cent such as target: 10")
        if self.metric not in TO_TARGET and self.target is not None:
            raise ValueError(f"target {self.target:g} is for metric {' or '.join(TO_TARGET)}, got {self.metric}")
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_not_given(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = plain(self)
        return {key: value for key, value in content.items() if value is not None or key in ("a", "b", "metric")}
