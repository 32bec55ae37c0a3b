"""Frozen, validated specifications of networks, data, training, probes and trials."""

from leadline.data.datasets import DataSpec
from leadline.parts.augmentations import Augmentation
from leadline.parts.augmentations.resized_crop import ResizedCrop
from leadline.parts.augmentations.translation import Augment
from leadline.parts.base import SCHEMA_VERSION, Spec, canonical_json, explain, parse
from leadline.parts.optimizers import Optimizer
from leadline.parts.optimizers.adam import Adam
from leadline.parts.optimizers.rmsprop import RMSprop
from leadline.parts.optimizers.sgd import SGD
from leadline.parts.schedules import Schedule
from leadline.parts.schedules.constant import Constant
from leadline.parts.schedules.cosine import Cosine
from leadline.parts.schedules.one_cycle import OneCycle
from leadline.parts.schedules.step import StepDecay
from leadline.parts.shortcuts import CustomShortcut
from leadline.specs.network import (
    AnyNetwork,
    AnyShortcut,
    Block,
    Head,
    Initialisation,
    ModuleSpec,
    NetworkSpec,
    Sharing,
    Shortcut,
    Stage,
    Stem,
)
from leadline.specs.pretraining import PretrainingSpec
from leadline.specs.probes import FlowSpec, ProbeSpec
from leadline.specs.training import TrainingSpec, Warmup
from leadline.specs.trial import TrialSpec

__all__ = [
    "SCHEMA_VERSION",
    "SGD",
    "Adam",
    "AnyNetwork",
    "AnyShortcut",
    "Augment",
    "Augmentation",
    "Block",
    "Constant",
    "Cosine",
    "CustomShortcut",
    "DataSpec",
    "FlowSpec",
    "Head",
    "Initialisation",
    "ModuleSpec",
    "NetworkSpec",
    "OneCycle",
    "Optimizer",
    "PretrainingSpec",
    "ProbeSpec",
    "RMSprop",
    "ResizedCrop",
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
