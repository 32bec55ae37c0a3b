"""Leadline, a laboratory for depth in neural networks."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leadline.data.arrays import Arrays
    from leadline.data.batches import Dataset
    from leadline.data.batches import load as load_data
    from leadline.errors import DataError, LeadlineError, SpecError, StoreError
    from leadline.export import Loaded, from_trial, load, predict, save
    from leadline.families import FAMILIES, family
    from leadline.metrics import FinalMetric
    from leadline.nets import build, inspect_module, inspect_network
    from leadline.probes.flow import probe
    from leadline.probes.watch import watch
    from leadline.record import Record
    from leadline.running.executors import InProcess, LocalProcesses
    from leadline.running.job import Job
    from leadline.spec import DataSpec, NetworkSpec, TrainingSpec, TrialSpec
    from leadline.spec.study import StudySpec
    from leadline.store import Store
    from leadline.study.expand import ExpandedStudy as Study
    from leadline.study.expand import expand
    from leadline.study.load import load_study
    from leadline.tasks import Task
    from leadline.training import Diverged, evaluate, prepare, train
    from leadline.verdict import Findings, analyze
    from leadline.weights import load_weights

__version__ = "0.1.0"

_HOME = {
    "Arrays": "data.arrays",
    "DataError": "errors",
    "DataSpec": "spec",
    "Dataset": "data.batches",
    "Diverged": "training",
    "FAMILIES": "families",
    "FinalMetric": "metrics",
    "Findings": "verdict",
    "InProcess": "running.executors",
    "Job": "running.job",
    "LeadlineError": "errors",
    "Loaded": "export",
    "LocalProcesses": "running.executors",
    "NetworkSpec": "spec",
    "Record": "record",
    "SpecError": "errors",
    "Store": "store",
    "StoreError": "errors",
    "Study": "study.expand",
    "StudySpec": "spec.study",
    "Task": "tasks",
    "TrainingSpec": "spec",
    "TrialSpec": "spec",
    "analyze": "verdict",
    "build": "nets",
    "evaluate": "training",
    "expand": "study.expand",
    "family": "families",
    "inspect_module": "nets",
    "inspect_network": "nets",
    "from_trial": "export",
    "load": "export",
    "load_data": "data.batches",
    "load_study": "study.load",
    "load_weights": "weights",
    "predict": "export",
    "prepare": "training",
    "probe": "probes.flow",
    "save": "export",
    "train": "training",
    "watch": "probes.watch",
}
_RENAMED = {"load_data": "load", "Study": "ExpandedStudy"}

__all__ = [
    "FAMILIES",
    "Arrays",
    "DataError",
    "DataSpec",
    "Dataset",
    "Diverged",
    "FinalMetric",
    "Findings",
    "InProcess",
    "Job",
    "LeadlineError",
    "Loaded",
    "LocalProcesses",
    "NetworkSpec",
    "Record",
    "SpecError",
    "Store",
    "StoreError",
    "Study",
    "StudySpec",
    "Task",
    "TrainingSpec",
    "TrialSpec",
    "__version__",
    "analyze",
    "build",
    "evaluate",
    "expand",
    "family",
    "from_trial",
    "inspect_module",
    "inspect_network",
    "load",
    "load_data",
    "load_study",
    "load_weights",
    "predict",
    "prepare",
    "probe",
    "save",
    "train",
    "watch",
]


def __getattr__(name: str) -> Any:
    """Import a public name from where it lives when it is first used, so that `import leadline` stays quick."""
    if name not in _HOME:
        raise AttributeError(f"module 'leadline' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"leadline.{_HOME[name]}"), _RENAMED.get(name, name))
    globals()[name] = value
    return value
