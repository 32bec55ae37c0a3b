"""Leadline, a laboratory for depth in neural networks."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leadline import networks
    from leadline.api import Comparison, Results, Study, Verdict, compare, train
    from leadline.api.export import Loaded, from_trial, load, predict, save
    from leadline.data.arrays import Arrays
    from leadline.data.batches import Dataset
    from leadline.data.batches import load as load_data
    from leadline.errors import DataError, LeadlineError, SpecError, StoreError
    from leadline.networks import FAMILIES, family
    from leadline.networks.modules import build, inspect_module, inspect_network
    from leadline.networks.weights import load_weights
    from leadline.parts.metrics import FinalMetric, Metric
    from leadline.parts.metrics.record import Record
    from leadline.parts.tasks import Task
    from leadline.probes.flow import probe
    from leadline.probes.watch import watch
    from leadline.specs import DataSpec, NetworkSpec, TrainingSpec, TrialSpec
    from leadline.specs.study import StudySpec
    from leadline.store import Store
    from leadline.training import Diverged, evaluate

__version__ = "0.1.0"

_HOME = {
    "Arrays": "data.arrays",
    "Comparison": "api",
    "DataError": "errors",
    "DataSpec": "specs",
    "Dataset": "data.batches",
    "Diverged": "training",
    "FAMILIES": "networks",
    "FinalMetric": "parts.metrics",
    "LeadlineError": "errors",
    "Loaded": "api.export",
    "Metric": "parts.metrics",
    "NetworkSpec": "specs",
    "Record": "parts.metrics.record",
    "Results": "api",
    "SpecError": "errors",
    "Store": "store",
    "StoreError": "errors",
    "Study": "api",
    "StudySpec": "specs.study",
    "Task": "parts.tasks",
    "TrainingSpec": "specs",
    "TrialSpec": "specs",
    "Verdict": "api",
    "build": "networks.modules",
    "compare": "api",
    "evaluate": "training",
    "family": "networks",
    "from_trial": "api.export",
    "inspect_module": "networks.modules",
    "inspect_network": "networks.modules",
    "load": "api.export",
    "load_data": "data.batches",
    "load_weights": "networks.weights",
    "networks": "networks",
    "predict": "api.export",
    "probe": "probes.flow",
    "save": "api.export",
    "train": "api",
    "watch": "probes.watch",
}
_RENAMED = {"load_data": "load"}
_MODULES = {"networks"}

__all__ = [
    "FAMILIES",
    "Arrays",
    "Comparison",
    "DataError",
    "DataSpec",
    "Dataset",
    "Diverged",
    "FinalMetric",
    "LeadlineError",
    "Loaded",
    "Metric",
    "NetworkSpec",
    "Record",
    "Results",
    "SpecError",
    "Store",
    "StoreError",
    "Study",
    "StudySpec",
    "Task",
    "TrainingSpec",
    "TrialSpec",
    "Verdict",
    "__version__",
    "build",
    "compare",
    "evaluate",
    "family",
    "from_trial",
    "inspect_module",
    "inspect_network",
    "load",
    "load_data",
    "load_weights",
    "networks",
    "predict",
    "probe",
    "save",
    "train",
    "watch",
]


def __getattr__(name: str) -> Any:
    """Import a public name from where it lives when it is first used, so that `import leadline` stays quick."""
    if name not in _HOME:
        raise AttributeError(f"module 'leadline' has no attribute {name!r}")
    module = importlib.import_module(f"leadline.{_HOME[name]}")
    value = module if name in _MODULES else getattr(module, _RENAMED.get(name, name))
    globals()[name] = value
    return value
