"""How a network is trained: data, optimizer, schedule, budget."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from leadline.spec.base import Spec

DatasetName = Literal["digits", "mnist", "fashion-mnist", "kmnist", "cifar10", "cifar100"]


class Augment(Spec):
    """Random translation (zero padding, then a random crop of the old size) and horizontal flip."""

    pad: int = Field(default=4, ge=0, description="pixels of zero padding on each side before the random crop")
    flip: bool = Field(default=True, description="flip half of the images left to right")


class DataSpec(Spec):
    """A data set, its split and its preprocessing."""

    name: DatasetName = "digits"
    train: int | None = Field(default=None, ge=1, description="training images; None: all that validation leaves")
    validation: int | None = Field(
        default=None,
        ge=1,
        description="images cut from the training part; None: a tenth of it, at most 5,000",
    )
    test: int | None = Field(default=None, ge=1, description="test images; None: all")
    subset_seed: int = Field(default=0, ge=0, description="chooses the images of a subset, evenly over the classes")
    normalise: Literal["channel", "pixel-mean", "none"] = Field(
        default="channel",
        description="channel: mean 0 and deviation 1 per channel; pixel-mean: subtract the mean image, scale to [0, 1];"
        " none: scale to [0, 1]. Constants come from the training images alone",
    )
    augment: Augment | None = None


class SGD(Spec):
    """Stochastic gradient descent with momentum."""

    name: Literal["sgd"] = "sgd"
    learning_rate: float = Field(default=0.1, gt=0)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> "SGD":
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov needs a momentum above 0, got 0")
        return self


class Adam(Spec):
    """Adam (Kingma & Ba 2015); `adamw` decouples the weight decay (Loshchilov & Hutter 2019)."""

    name: Literal["adam", "adamw"] = "adam"
    learning_rate: float = Field(default=0.001, gt=0)
    betas: Annotated[
        tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]], Field(strict=False)
    ] = (0.9, 0.999)
    epsilon: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)


class RMSprop(Spec):
    """RMSprop (Tieleman & Hinton 2012)."""

    name: Literal["rmsprop"] = "rmsprop"
    learning_rate: float = Field(default=0.001, gt=0)
    decay: float = Field(default=0.99, ge=0, lt=1, description="smoothing of the squared gradient")
    momentum: float = Field(default=0.0, ge=0, lt=1)
    epsilon: float = Field(default=1e-8, gt=0)
    weight_decay: float = Field(default=0.0, ge=0)


Optimizer = Annotated[SGD | Adam | RMSprop, Field(discriminator="name")]


class Warmup(Spec):
    """Steps at a smaller learning rate before the schedule takes over."""

    steps: int = Field(ge=1)
    factor: float = Field(default=0.0, ge=0, lt=1, description="fraction of the learning rate that it starts from")
    form: Literal["linear", "constant"] = "linear"


class Constant(Spec):
    """The learning rate stays as it is."""

    name: Literal["constant"] = "constant"


class StepDecay(Spec):
    """The learning rate is multiplied by `factor` at each milestone."""

    name: Literal["step"] = "step"
    milestones: Annotated[tuple[Annotated[float, Field(gt=0, lt=1)], ...], Field(strict=False, min_length=1)] = (
        0.5,
        0.75,
    )
    factor: float = Field(default=0.1, gt=0, lt=1)

    @model_validator(mode="after")
    def _in_order(self) -> "StepDecay":
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(
                f"milestones {list(self.milestones)} must be distinct fractions of training in rising order"
            )
        return self


class Cosine(Spec):
    """Half a cosine from the learning rate down to `final` of it (Loshchilov & Hutter 2017, without restarts)."""

    name: Literal["cosine"] = "cosine"
    final: float = Field(default=0.0, ge=0, lt=1)


class OneCycle(Spec):
    """Cosine from `start` of the learning rate up to it at `peak_at`, then down to `final` (Smith & Topin 2018)."""

    name: Literal["one-cycle"] = "one-cycle"
    peak_at: float = Field(default=0.3, gt=0, lt=1)
    start: float = Field(default=0.04, gt=0, lt=1)
    final: float = Field(default=0.000004, ge=0, lt=1)


Schedule = Annotated[Constant | StepDecay | Cosine | OneCycle, Field(discriminator="name")]


class TrainingSpec(Spec):
    """One recipe: everything that is the same for all arms unless an arm says otherwise."""

    epochs: int = Field(default=10, ge=1)
    batch_size: int = Field(default=128, ge=1)
    optimizer: Optimizer = SGD()
    schedule: Schedule = Constant()
    warmup: Warmup | None = None
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    clip_norm: float | None = Field(
        default=None, gt=0, description="largest norm of the whole gradient; None: not clipped"
    )
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32", description="bfloat16: autocast of the forward pass, on CUDA only"
    )
    channels_last: bool = Field(default=True, description="memory layout of images and convolutions")
    test_every: int = Field(default=0, ge=0, description="epochs between looks at the test data; 0: only at the end")


class ProbeSpec(Spec):
    """What is measured inside the network while it trains."""

    gradient_norms: bool = Field(
        default=False, description="norm of every weight's gradient, at the last step of each epoch"
    )
