"""Leadline, a laboratory for depth in neural networks."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leadline import families as networks
    from leadline.api import Results, Study, Verdict, train
    from leadline.data.arrays import Arrays
    from leadline.data.batches import Dataset
    from leadline.data.batches import load as load_data
    from leadline.errors import DataError, LeadlineError, SpecError, StoreError
    from leadline.export import Loaded, from_trial, load, predict, save
    from leadline.families import FAMILIES, family
    from leadline.metrics import FinalMetric, Metric
    from leadline.nets import build, inspect_module, inspect_network
    from leadline.probes.flow import probe
    from leadline.probes.watch import watch
    from leadline.record import Record
    from leadline.specs import DataSpec, NetworkSpec, TrainingSpec, TrialSpec
    from leadline.specs.study import StudySpec
    from leadline.store import Store
    from leadline.tasks import Task
    from leadline.training import Diverged, evaluate
    from leadline.weights import load_weights

__version__ = "0.1.0"

_HOME = {
    "Arrays": "data.arrays",
    "DataError": "errors",
    "DataSpec": "specs",
    "Dataset": "data.batches",
    "Diverged": "training",
    "FAMILIES": "families",
    "FinalMetric": "metrics",
    "LeadlineError": "errors",
    "Loaded": "export",
    "Metric": "metrics",
    "NetworkSpec": "specs",
    "Record": "record",
    "Results": "api",
    "SpecError": "errors",
    "Store": "store",
    "StoreError": "errors",
    "Study": "api",
    "StudySpec": "specs.study",
    "Task": "tasks",
    "TrainingSpec": "specs",
    "TrialSpec": "specs",
    "Verdict": "api",
    "build": "nets",
    "evaluate": "training",
    "family": "families",
    "from_trial": "export",
    "inspect_module": "nets",
    "inspect_network": "nets",
    "load": "export",
    "load_data": "data.batches",
    "load_weights": "weights",
    "networks": "families",
    "predict": "export",
    "probe": "probes.flow",
    "save": "export",
    "train": "api",
    "watch": "probes.watch",
}
_RENAMED = {"load_data": "load"}
_MODULES = {"networks"}

__all__ = [
    "FAMILIES",
    "Arrays",
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
