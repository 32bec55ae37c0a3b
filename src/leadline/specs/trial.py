"""One trial: an arm of a study at one seed; the unit that is run, stored and recognised by its hash."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from leadline.data.datasets import DataSpec
from leadline.data.datasets.digits import Digits
from leadline.data.files import default_data_dir
from leadline.data.image_dataset import ImageDataSpec
from leadline.errors import SpecError
from leadline.parts.base import Spec
from leadline.parts.code import identify_all
from leadline.parts.reference import Reference
from leadline.seeds import SOURCES, Seed, SeedName, Source, name_seed
from leadline.specs.network import AnyNetwork, ModuleSpec
from leadline.specs.pretraining import PretrainingSpec
from leadline.specs.probes import ProbeSpec
from leadline.specs.training import HALVES, TrainingSpec

OneSeed = Annotated[int, Field(ge=0, lt=2**31)]


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
    seeds: dict[Source, OneSeed] = Field(
        default={}, description="source of randomness -> a seed of its own; the others follow `seed`"
    )
    code: dict[str, str] = Field(
        default={},
        description="reference to custom code, or path of a file of data or weights -> what identifies it; see"
        " leadline.parts.code",
    )

    @model_validator(mode="after")
    def _layers_that_can_be_pretrained(self) -> "TrialSpec":
        if self.pretraining is None:
            return self
        if self.training.weights is not None:
            raise ValueError("pretraining and training.weights both say where training starts; leave one of them out")
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
        for name in ("pretraining", "seeds", "code"):
            if not getattr(self, name):
                content.pop(name, None)
        return content

    @property
    def revision(self) -> int:
        """2: in half precision, the gradients of a weight that is used several times are added in float32."""
        network = self.network
        shares = isinstance(network, ModuleSpec) or bool(network.sharing or network.head.recurrent)  # perhaps
        return 2 if shares and self.training.precision in HALVES else 1

    @property
    def random_seed(self) -> int:
        """What everything random in the trial is drawn from."""
        return Seed(self.seed, self.seeds) if self.seeds else self.seed

    @property
    def seed_name(self) -> SeedName:
        """How tables and messages call the seed."""
        return name_seed(self.random_seed)

    @property
    def sources(self) -> tuple[Source, ...]:
        """The sources of randomness that the trial draws from; custom code is taken to draw noise."""
        network = self.network
        noisy = isinstance(network, ModuleSpec) or network.is_noisy
        parts = (self.training.optimizer, self.training.loss, network)
        draws: dict[Source, bool] = {
            "augment": self.data.augment is not None,
            "split": self.data.is_redrawn,
            "noise": noisy or any(isinstance(part, Reference) for part in parts),
        }
        return tuple(source for source in SOURCES if draws.get(source, True))

    def with_seed(self, seed: int) -> "TrialSpec":
        """Return this trial at another seed."""
        by_source = dict(seed.by_source) if isinstance(seed, Seed) else {}
        return self.model_copy(update={"seed": int(seed), "seeds": by_source})

    def with_code(self, data_dir: Path | None = None) -> "TrialSpec":
        """Return this trial with the identity of the custom code and data files that it uses, as they are now.

        Args:
            data_dir: what the path of a data file is relative to; None: the default folder.

        Raises:
            SpecError: code cannot be found, or was changed after this process had imported it.
            DataError: a data file is missing or cannot be read.
        """
        folder = data_dir or default_data_dir()
        files = self.data.identify(folder) | self.training.identify(folder)
        return self.model_copy(update={"code": identify_all(self.model_dump(mode="json")) | files})

    def has_other_data(self, data_dir: Path | None = None) -> bool:
        """Return whether data files, or code that returns the data, are others now than when the trial was entered.

        Args:
            data_dir: what the path of a data file is relative to; None: the default folder.

        Raises:
            SpecError: code cannot be found, or was changed after this process had imported it.
            DataError: a data file is missing or cannot be read.
        """
        now = self.data.identify(data_dir or default_data_dir()) | identify_all(self.data.model_dump(mode="json"))
        return any(self.code.get(name, digest) != digest for name, digest in now.items())

    @model_validator(mode="after")
    def _loss_of_mixed_labels(self) -> "TrialSpec":
        try:
            self.data.check_loss(self.training.loss)
        except SpecError as error:
            raise ValueError(f"data.{error}") from None
        return self

    @model_validator(mode="after")
    def _flow_of_gradients_that_are_not_scaled(self) -> "TrialSpec":
        if self.probes.flow is not None and self.training.precision == "float16":
            raise ValueError(
                "probes.flow: cannot follow training in float16, whose gradients are scaled and whose steps may be"
                " skipped; use training.precision bfloat16, or leave flow out"
            )
        return self

    @model_validator(mode="after")
    def _crops_of_images_that_are_decoded(self) -> "TrialSpec":
        crops = 1 if self.training.evaluation is None else self.training.evaluation.crops
        if crops == 1:
            return self
        if not isinstance(self.data, ImageDataSpec):
            raise ValueError(
                f"training.evaluation.crops {crops}: needs images that are decoded during training, such as data.name"
                f" imagefolder, got {self.data.display_name}"
            )
        if self.data.shorter_side <= self.data.size:
            raise ValueError(
                f"training.evaluation.crops {crops}: images of shorter side {self.data.shorter_side} have no other crop"
                f" of size {self.data.size} than the centre; raise data.resize"
            )
        return self

    @model_validator(mode="after")
    def _probes_end_with_training(self) -> "TrialSpec":
        for name, epoch in self.probes.beyond(self.training.epochs):
            raise ValueError(
                f"probes.{name}.at: epoch {epoch} is after the last of {self.training.epochs} training.epochs; use end"
                f" or a smaller number"
            )
        return self
