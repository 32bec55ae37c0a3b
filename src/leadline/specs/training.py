"""How a network is trained: optimizer, schedule, budget."""

from typing import Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer

from leadline.parts.base import Spec
from leadline.parts.losses import Loss
from leadline.parts.optimizers import Optimizer
from leadline.parts.optimizers.sgd import SGD
from leadline.parts.schedules import Schedule
from leadline.parts.schedules.constant import Constant


class Warmup(Spec):
    """Steps at a smaller learning rate before the schedule takes over."""

    steps: int = Field(ge=1)
    factor: float = Field(default=0.0, ge=0, lt=1, description="initial learning rate as a fraction of the full one")
    form: Literal["linear", "constant"] = "linear"


class TrainingSpec(Spec):
    """One recipe: everything that is the same for all arms unless an arm says otherwise."""

    epochs: int = Field(default=10, ge=1)
    batch_size: int = Field(default=128, ge=1)
    optimizer: Optimizer = SGD()
    schedule: Schedule = Constant()
    warmup: Warmup | None = None
    loss: Loss | None = Field(
        default=None, description="None: the default of the task, which is cross-entropy for classification"
    )
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    clip_norm: float | None = Field(
        default=None, gt=0, description="maximum norm of the whole gradient; None: no clipping"
    )
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32", description="bfloat16: autocast of the forward pass, on CUDA only"
    )
    channels_last: bool = Field(default=True, description="memory layout of images and convolutions")
    test_every: int = Field(
        default=0, ge=0, description="epochs between evaluations on the test data; 0: only at the end"
    )

    @model_serializer(mode="wrap")
    def _without_a_loss_that_is_not_named(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = plain(self)  # so that naming losses changed no hash of trials that name none
        return content if self.loss is not None else {key: one for key, one in content.items() if key != "loss"}
