"""Frozen, validated specifications of networks, data, training, probes and trials."""

from leadline.spec.base import SCHEMA_VERSION, Spec, canonical_json, explain, parse
from leadline.spec.network import Block, Head, Initialisation, NetworkSpec, Sharing, Shortcut, Stage, Stem
from leadline.spec.training import (
    SGD,
    Adam,
    Augment,
    Constant,
    Cosine,
    DatasetName,
    DataSpec,
    OneCycle,
    Optimizer,
    ProbeSpec,
    RMSprop,
    Schedule,
    StepDecay,
    TrainingSpec,
    Warmup,
)
from leadline.spec.trial import TrialSpec

__all__ = [
    "SCHEMA_VERSION",
    "SGD",
    "Adam",
    "Augment",
    "Block",
    "Constant",
    "Cosine",
    "DataSpec",
    "DatasetName",
    "Head",
    "Initialisation",
    "NetworkSpec",
    "OneCycle",
    "Optimizer",
    "ProbeSpec",
    "RMSprop",
    "Schedule",
    "Sharing",
    "Shortcut",
    "Spec",
    "Stage",
    "Stem",
    "StepDecay",
    "TrainingSpec",
    "TrialSpec",
    "Warmup",
    "canonical_json",
    "explain",
    "parse",
]
