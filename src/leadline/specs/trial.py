"""One trial: an arm of a study at one seed; the unit that is run, stored and recognised by its hash."""

from pathlib import Path
from typing import Any

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from leadline.data.datasets import DataSpec
from leadline.data.datasets.digits import Digits
from leadline.data.files import default_data_dir
from leadline.parts.base import Spec
from leadline.parts.code import identify_all
from leadline.specs.network import AnyNetwork, ModuleSpec
from leadline.specs.pretraining import PretrainingSpec
from leadline.specs.probes import ProbeSpec
from leadline.specs.training import TrainingSpec


class TrialSpec(Spec):
    """Everything that decides what a trial computes; its content hash is the trial's identity."""

    network: AnyNetwork
    data: DataSpec = Digits()
    training: TrainingSpec = TrainingSpec()
    probes: ProbeSpec = ProbeSpec()
    pretraining: PretrainingSpec | None = Field(
        default=None, description="layer-wise pre-training of the hidden layers before training"
    )
    seed: int = Field(default=0, ge=0, lt=2**31)
    code: dict[str, str] = Field(
        default={},
        description="reference to custom code, or path of a data file -> what identifies it; see leadline.parts.code",
    )

    @model_validator(mode="after")
    def _layers_that_can_be_pretrained(self) -> "TrialSpec":
        if self.pretraining is None:
            return self
        network = self.network
        if isinstance(network, ModuleSpec):
            raise ValueError(f"pretraining needs a network of Leadline's parts, such as mlp, got {network.module}")
        wanted = {
            "layers": (network.layers, "fully-connected"),
            "block.kind": (network.block.kind, "single"),
            "block.order": (network.block.order, "original"),
            "block.shortcut": (network.block.shortcut.kind, "none"),
            "block.bias": (network.block.bias, True),
            "sharing": (network.sharing, None),
            "head.recurrent": (network.head.recurrent, None),
            "normalisation": (network.normalisation, "none"),
            "activation": (network.activation, "sigmoid"),
        }
        for key, (found, expected) in wanted.items():
            if found != expected:
                raise ValueError(f"pretraining needs network.{key} {expected}, got {found}")
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_not_used(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = plain(self)
        for name in ("pretraining", "code"):
            if not getattr(self, name):
                content.pop(name, None)
        return content

    def with_code(self, data_dir: Path | None = None) -> "TrialSpec":
        """Return this trial with the identity of the custom code and data files that it uses, as they are now.

        Args:
            data_dir: what the path of a data file is relative to; None: the default folder.

        Raises:
            SpecError: code cannot be found, or was changed after this process had imported it.
            DataError: a data file is missing or cannot be read.
        """
        files = self.data.identify(data_dir or default_data_dir())
        return self.model_copy(update={"code": identify_all(self.model_dump(mode="json")) | files})

    @model_validator(mode="after")
    def _probes_end_with_training(self) -> "TrialSpec":
        for name, epoch in self.probes.beyond(self.training.epochs):
            raise ValueError(
                f"probes.{name}.at: epoch {epoch} is after the last of {self.training.epochs} training.epochs; use end"
                f" or a smaller number"
            )
        return self
