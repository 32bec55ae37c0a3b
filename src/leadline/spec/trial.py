"""One trial: an arm of a study at one seed; the unit that is run, stored and recognised by its hash."""

from pydantic import Field

from leadline.spec.base import Spec
from leadline.spec.network import AnyNetwork
from leadline.spec.training import DataSpec, ProbeSpec, TrainingSpec


class TrialSpec(Spec):
    """Everything that decides what a trial computes; its content hash is the trial's identity."""

    network: AnyNetwork
    data: DataSpec = DataSpec()
    training: TrainingSpec = TrainingSpec()
    probes: ProbeSpec = ProbeSpec()
    seed: int = Field(default=0, ge=0, lt=2**31)
