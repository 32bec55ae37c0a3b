"""What is compared in a pair of arms: the metric, the target it may need, and the margin that does not matter."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from leadline.errors import SpecError
from leadline.parts.base import Spec
from leadline.parts.metrics import metric_name, metrics


def _named(thing: object) -> object:
    try:
        return metric_name(thing)
    except SpecError as error:
        raise ValueError(str(error)) from None


def _schema(_: object) -> dict[str, object]:
    """Return the JSON Schema of a metric: a name, or a reference to a custom one."""
    reference = {
        "type": "object",
        "properties": {
            "module": {"type": "string", "description": "package.module:function, or a Metric there"},
            "arguments": {"type": "object", "description": "keyword arguments of the function"},
            "higher_is_better": {"type": "boolean", "default": False},
        },
        "required": ["module"],
        "additionalProperties": False,
    }
    return {"anyOf": [{"enum": list(metrics())}, {"type": "string", "pattern": ":"}, reference]}


class _MetricSchema:
    @classmethod
    def __get_pydantic_json_schema__(cls, source: object, handler: object) -> dict[str, object]:
        return _schema(source)


MetricName = Annotated[str, BeforeValidator(_named), _MetricSchema]
"""The name of a metric of `leadline.parts.metrics`, or what `metric_name` makes of a custom one."""


def needs_target(name: str) -> bool:
    """Whether a metric is a time to a target."""
    return ":" not in name and metrics()[name].needs_target


Correction = Literal["holm", "benjamini-hochberg"]
"""How the p-values of a study's contrasts are adjusted for their number."""


class ContrastSpec(Spec):
    """A pair of arms to compare, `a` against `b`; where factors are varied, at each of their levels."""

    a: str = Field(description="the arm that may be better")
    b: str = Field(description="the arm that it is compared with")
    metric: MetricName = Field(default="test_error", description="what is compared")
    target: float | None = Field(
        default=None, ge=0, lt=100, description="for epochs_to and seconds_to: target validation error in per cent"
    )
    margin: float | None = Field(
        default=None,
        gt=0,
        description="equivalence margin in the metric's unit; None: the study's margin for metrics in per cent, and no"
        " equivalence for other metrics",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_pair(cls, value: object) -> object:
        if isinstance(value, list | tuple):
            if len(value) != 2:
                raise ValueError(f"{list(value)} is not a pair of arms; expected for example [resnet, cnn]")
            return {"a": value[0], "b": value[1]}
        return value

    @model_validator(mode="after")
    def _target_where_it_is_needed(self) -> "ContrastSpec":
        if needs_target(self.metric) and self.target is None:
            raise ValueError(f"metric {self.metric} needs a target, a validation error in per cent such as target: 10")
        if not needs_target(self.metric) and self.target is not None:
            raise ValueError(
                f"target {self.target:g} needs a metric that is a time to a target, such as epochs_to;"
                f" got {self.metric}"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_not_given(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = plain(self)
        return {key: value for key, value in content.items() if value is not None or key in ("a", "b", "metric")}
