"""Metrics, each declared once in its own file and used everywhere.

The declaration of a metric contains its name in study files and JSON, its wording and units, its direction, and the
source of its value; records, contrasts, `decide`, tables, figures, sentences and JSON follow from it. To add a metric,
add a file to this package::

    register(FinalMetric("test_rmse", "test root mean squared error", "", "", record=("final-test", "rmse")))

A custom metric can be used wherever a name is accepted: a function of labels and predictions, and of probabilities if
it takes three arguments, or a `Metric`; in YAML `{module: package.module:function, arguments: {...}}`. It is computed
from the stored outputs of trained networks when a verdict needs it, so that the hashes of trials do not depend on it.
"""

import importlib
import inspect
import json
import pkgutil
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, TypeVar

from leadline.errors import SpecError, unknown
from leadline.parts.base import canonical_json, parse
from leadline.parts.metrics.base import Counts, Curve, CurveMetric, FinalMetric, Metric, Outputs, TimeMetric
from leadline.parts.reference import Reference, refer

__all__ = [
    "Counts",
    "Curve",
    "CurveMetric",
    "FinalMetric",
    "Metric",
    "Outputs",
    "TimeMetric",
    "metric",
    "metric_name",
    "metrics",
    "register",
]

_metrics: dict[str, Metric] = {}
M = TypeVar("M", bound=Metric)


def register(declared: M) -> M:
    """Add a metric under its name and return it.

    Raises:
        ValueError: another metric has the name.
    """
    if _metrics.setdefault(declared.name, declared) != declared:
        raise ValueError(f"metric {declared.name!r} is declared twice")
    return declared


@lru_cache(maxsize=1)
def _load() -> None:
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")


def metrics() -> Mapping[str, Metric]:
    """Return every built-in metric by name, errors first.

    Example:
        >>> list(metrics())[:3]
        ['test_error', 'train_error', 'validation_error']
    """
    _load()
    return dict(sorted(_metrics.items(), key=lambda item: item[1].position))


def metric(name: str) -> Metric:
    """Return a metric by its name.

    Args:
        name: a name such as `test_error`, or `package.module:thing`, where thing is a `Metric`, or a function of labels
            (n,), predictions (n,) and, if it takes three arguments, probabilities (n, classes) that returns a number:
            see `metric_name`.

    Raises:
        SpecError: the name is unknown, or the metric cannot be imported.

    Example:
        >>> metric("test_error").wording
        'test error'
    """
    if ":" in name:
        return _custom(name)
    known = metrics()
    if name not in known:
        raise SpecError(unknown("metric", name, known))
    return known[name]


def metric_name(thing: object) -> object:
    """Return the name of a metric from its value in a study; return other values unchanged.

    Args:
        thing: a name; a `Metric`; a function, for which lower is better; or `{module: package.module:function,
            arguments: {...}, higher_is_better: true}`, where only `module` is required and may be the function itself.

    Returns:
        The name; for a custom metric, a text that contains all settings, such as
        `sklearn.metrics:f1_score({"average":"macro"}), higher is better`.

    Raises:
        SpecError: the name is unknown, or the reference is invalid.

    Example:
        >>> metric_name({"module": "sklearn.metrics:cohen_kappa_score", "higher_is_better": True})
        'sklearn.metrics:cohen_kappa_score, higher is better'
    """
    if isinstance(thing, Metric):
        thing = thing.as_plain()
    elif callable(thing):
        thing = refer(thing)
    if isinstance(thing, Mapping):
        higher = thing.get("higher_is_better", False)
        if not isinstance(higher, bool):
            raise SpecError(f"metric: higher_is_better must be true or false, got {higher!r}")
        given = {key: value for key, value in thing.items() if key != "higher_is_better"}
        function = given.get("module")
        if callable(function) or isinstance(function, Mapping):  # itself, or as `parse` has already referred to it
            referred = refer(function) if callable(function) else dict(function)
            given = {**given, **referred, "arguments": {**referred.get("arguments", {}), **given.get("arguments", {})}}
        custom = parse(Reference, given)
        arguments = f"({canonical_json(custom.arguments)})" if custom.arguments else ""
        return f"{custom.module}{arguments}{_HIGHER * higher}"
    if isinstance(thing, str):
        if ":" in thing:
            _parts(thing)
        elif thing not in metrics():
            raise SpecError(unknown("metric", thing, metrics()))
    return thing


_HIGHER = ", higher is better"


def _parts(name: str) -> tuple[Reference, bool]:
    """Return the reference in a custom metric's name, and whether higher is better."""
    found = re.fullmatch(r"([\w.]+:[\w.]+)(?:\((\{.*\})\))?(" + _HIGHER + ")?", name)
    try:
        assert found
        reference = {"module": found[1], "arguments": json.loads(found[2] or "{}")}
        return parse(Reference, reference), bool(found[3])
    except (AssertionError, ValueError):
        raise SpecError(f"metric {name!r}: expected a name, or a reference such as package.module:function") from None


def _custom(name: str) -> Metric:
    reference, higher = _parts(name)
    thing: Any = reference.resolve()
    if isinstance(thing, FinalMetric) and thing.compute is not None and reference.arguments:
        thing = replace(thing, compute=partial(thing.compute, **reference.arguments))
    if isinstance(thing, TimeMetric):
        raise SpecError(f"metric {name}: times to a target are built in; use epochs_to or seconds_to")
    if isinstance(thing, Metric):
        return replace(thing, name=name, higher_is_better=higher or thing.higher_is_better)
    if not callable(thing):
        raise SpecError(f"metric {name}: expected a function or a Metric, got {type(thing).__name__}")
    takes_probabilities = _takes_probabilities(thing)

    def compute(labels: Any, predicted: Any, probabilities: Any) -> float:
        given = (labels, predicted, probabilities) if takes_probabilities else (labels, predicted)
        value: float = thing(*given, **reference.arguments)
        return value

    arguments = ", ".join(f"{key}={value}" for key, value in reference.arguments.items())
    words = reference.module.partition(":")[2].replace("_", " ") + (f" ({arguments})" if arguments else "")
    return FinalMetric(
        name,
        words.replace("{", "{{").replace("}", "}}"),
        unit="",
        difference_unit="",
        higher_is_better=higher,
        compute=compute,
        needs_probabilities=takes_probabilities,
    )


def _takes_probabilities(function: Callable[..., Any]) -> bool:
    """Return whether a function takes three positional arguments, and not two like the metrics of scikit-learn."""
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except ValueError:  # functions in C may have no signature
        return True
    if any(one.kind is one.VAR_POSITIONAL for one in parameters):
        return True
    by_position = [one for one in parameters if one.kind in (one.POSITIONAL_ONLY, one.POSITIONAL_OR_KEYWORD)]
    return len(by_position) > 2 and (by_position[2].default is inspect.Parameter.empty or "prob" in by_position[2].name)
