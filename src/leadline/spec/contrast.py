"""What is compared in a pair of arms: the metric, the target it may need, and the margin that does not matter."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from leadline.errors import unknown
from leadline.metrics import metrics
from leadline.parts.base import Spec
from leadline.parts.reference import refer


def _check_metric(name: object) -> object:
    """Return the name of a metric, from its reference or the function itself where it is the user's own."""
    if isinstance(name, Mapping):
        if set(name) != {"module"}:
            raise ValueError(f"metric {dict(name)}: expected {{module: package.module:function}} and nothing else")
        name = name["module"]
    elif callable(name):
        name = refer(name)["module"]
    if isinstance(name, str) and ":" not in name and name not in metrics():
        raise ValueError(unknown("metric", name, metrics()))
    return name


MetricName = Annotated[str, BeforeValidator(_check_metric)]
"""The name of a metric of `leadline.metrics`, or `package.module:thing` of one of the user's own."""


def needs_target(name: str) -> bool:
    """Whether a metric is a time to a target."""
    return ":" not in name and metrics()[name].needs_target


Correction = Literal["holm", "benjamini-hochberg"]
"""How the p-values of a study's contrasts are adjusted for their number."""


class ContrastSpec(Spec):
    """A pair of arms to compare, `a` against `b`; where factors are varied, at each of their levels."""

    a: str
    b: str
    metric: MetricName = "test_error"
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
        if needs_target(self.metric) and self.target is None:
            raise ValueError(f"metric {self.metric} needs a target, a validation error in per cent such as target: 10")
        if not needs_target(self.metric) and self.target is not None:
            raise ValueError(f"target {self.target:g} is for times to a target, such as epochs_to, got {self.metric}")
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_not_given(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = plain(self)
        return {key: value for key, value in content.items() if value is not None or key in ("a", "b", "metric")}
