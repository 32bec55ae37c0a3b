"""What may be compared: metrics, each declared once in a file of its own, which everything else reads.

A metric's declaration gives its name in study files and JSON, its words and units, its direction, and where its value
comes from: records, contrasts, `decide`, tables, figures, sentences and JSON follow from it. To add one, add a file to
this package::

    register(FinalMetric("test_rmse", "test root mean squared error", "", "", record=("final-test", "rmse")))

A metric of the user's own is a function of labels, predictions and probabilities, or a `Metric`, referred to as
`package.module:thing` wherever a name may stand.
"""

import importlib
import pkgutil
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, TypeVar

from leadline.errors import SpecError, unknown
from leadline.metrics.base import Curve, CurveMetric, FinalMetric, Metric, Outputs, TimeMetric
from leadline.parts.reference import PATTERN, resolve

__all__ = [
    "Curve",
    "CurveMetric",
    "FinalMetric",
    "Metric",
    "Outputs",
    "TimeMetric",
    "metric",
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
    """Return a metric by its name, or the user's own by its reference.

    Args:
        name: such as `test_error`, or `package.module:thing`, whose thing is a `Metric` or a function of labels (n,),
            predictions (n,) and probabilities (n, classes) that returns a number.

    Raises:
        SpecError: there is none of that name.

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


def _custom(reference: str) -> Metric:
    if not re.match(PATTERN, reference):
        raise SpecError(f"metric {reference!r}: expected a name, or a reference such as package.module:function")
    thing: Any = resolve(reference)
    if isinstance(thing, Metric):
        return thing.renamed(reference)
    function: Callable[..., float] = thing
    words = reference.partition(":")[2].replace("_", " ")
    return FinalMetric(reference, words, unit="", difference_unit="", compute=function)
