"""How a network is trained: optimizer, schedule, budget."""

from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from leadline.data.files import compute_sha256, find_file
from leadline.errors import MOST_NAMES, SpecError
from leadline.parts.averaging import Averaging
from leadline.parts.averaging.swa import SWA
from leadline.parts.base import Spec
from leadline.parts.losses import Loss
from leadline.parts.optimizers import Optimizer
from leadline.parts.optimizers.sgd import SGD
from leadline.parts.schedules import Schedule
from leadline.parts.schedules.constant import Constant
from leadline.parts.schedules.one_cycle import OneCycle
from leadline.text import join

Precision = Literal["float32", "tf32", "bfloat16", "float16"]
"""Numbers that training computes in; weights and optimizer state are float32 in each."""

HALVES: tuple[Precision, ...] = ("bfloat16", "float16")
"""Those of 16 bits."""


class Warmup(Spec):
    """Steps at a smaller learning rate before the schedule takes over (Goyal et al. 2017)."""

    steps: int = Field(ge=1, description="number of steps of the warm-up")
    factor: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="learning rate of the first step as a fraction of the full one; 0: 1/steps",
    )
    form: Literal["linear", "constant"] = Field(
        default="linear", description="linear: the learning rate grows at every step; constant: it stays at factor"
    )

    @property
    def revision(self) -> int:
        """2: the first step trains."""
        return 1 if self.factor else 2

    @model_validator(mode="after")
    def _training_something(self) -> "Warmup":
        if self.form == "constant" and not self.factor:
            raise ValueError("a constant warm-up with factor 0 trains nothing; give a factor above 0, such as 0.1")
        return self

    def at(self, step: int) -> float:
        """Return what the learning rate is multiplied by at a step of the warm-up, counted from 0.

        Example:
            >>> [Warmup(steps=4).at(step) for step in range(4)]
            [0.25, 0.4375, 0.625, 0.8125]
        """
        first = self.factor or 1 / self.steps
        return first if self.form == "constant" else first + (1 - first) * (step / self.steps)


class EarlyStopping(Spec):
    """Training ends when a validation result no longer improves, and the network of the best epoch is tested."""

    metric: Literal["loss", "error"] = Field(default="loss", description="what is measured on the validation images")
    patience: int = Field(ge=1, description="number of epochs without improvement after which training ends")


class Resizing(Spec):
    """Training images of a smaller size in the first epochs."""

    until: float = Field(gt=0, lt=1, description="fraction of the epochs after which images have another size")
    scale: float = Field(gt=0, lt=1, description="height and width as fractions of those of the data set's images")


class Views(Spec):
    """Several views of each image at the end: the mean of their probabilities, or outputs, is evaluated."""

    flip: bool = Field(default=False, description="whether each image is seen mirrored left to right as well")
    crops: Literal[1, 5, 10] = Field(
        default=1,
        description="of images that are decoded during training; 5: the four corners and the centre of the centre"
        " square; 10: these and their mirror images (Krizhevsky et al. 2012)",
    )

    @property
    def flips(self) -> tuple[bool, ...]:
        """Whether each crop is mirrored, for each time that it is seen."""
        return (False, True) if self.flip or self.crops == 10 else (False,)

    @property
    def count(self) -> int:
        """The number of views of an image."""
        return len(self.flips) * min(self.crops, 5)


class TrainingSpec(Spec):
    """One recipe: everything that is the same for all arms unless an arm says otherwise."""

    epochs: int = Field(default=10, ge=1, description="number of passes through the training images")
    batch_size: int = Field(default=128, ge=1, description="number of images in a training step")
    weights: str | None = Field(
        default=None,
        min_length=1,
        description="file of the weights that training starts from, relative to the folder of the data sets:"
        " safetensors, or a state_dict of PyTorch; a last layer for another number of classes is drawn at random. None:"
        " all weights are drawn",
    )
    whitening: bool = Field(
        default=False,
        description="whether the first convolution starts as filters that whiten patches of the training images, each"
        " with both signs (Page 2019, Jordan 2024); rates keep them as they are, mostly with stem.conv: 0",
    )
    rates: dict[str, Annotated[float, Field(ge=0)]] | None = Field(
        default=None,
        description="beginning of the names of parameters, such as stem or stages.0 -> factor on their learning rate;"
        " * stands for any part between dots, as in stages.*.*.branch.norm1.bias; of those that fit, that with most"
        " parts counts, then with fewest *, then the last by name; 0: not trained, with batch statistics as they are;"
        " None: 1 for all",
    )
    accumulate: int = Field(
        default=1,
        ge=1,
        description="parts of a batch that pass through the network one after the other; their gradients add up to that"
        " of the batch's mean loss, and batch statistics are those of a part",
    )
    optimizer: Optimizer = Field(default=SGD(), description="how weights are updated; a name stands for its defaults")
    decayed: Literal["all", "weights"] = Field(
        default="all",
        description="which parameters the optimizer's weight decay is applied to; weights: those of two dimensions or"
        " more, so no biases, no scales and shifts of normalisation",
    )
    schedule: Schedule = Field(
        default=Constant(), description="how the learning rate changes; a name stands for its defaults"
    )
    warmup: Warmup | None = Field(
        default=None, description="steps at a smaller learning rate before the schedule; None: none"
    )
    loss: Loss | None = Field(
        default=None, description="None: the default of the task, which is cross-entropy for classification"
    )
    label_smoothing: float = Field(
        default=0.0, ge=0, lt=1, description="share of the target probability that is spread evenly over all classes"
    )
    averaging: Averaging | None = Field(
        default=None,
        description="average of the weights, which is kept and evaluated beside those that are trained; None: none",
    )
    clip_norm: float | None = Field(
        default=None, gt=0, description="maximum norm of the whole gradient; None: no clipping"
    )
    early_stopping: EarlyStopping | None = Field(
        default=None,
        description="end of training before the last epoch, and the choice of the network by its validation result;"
        " None: all epochs, and the network after the last",
    )
    resizing: Annotated[tuple[Resizing, ...], Field(strict=False, min_length=1)] | None = Field(
        default=None,
        description="smaller training images in the first epochs, in rising order of until; None: all in full size",
    )
    evaluation: Views | None = Field(
        default=None,
        description="views of validation and test images in the evaluation at the end of training; None: each image"
        " once",
    )
    precision: Precision = Field(
        default="float32",
        description="float32: IEEE numbers; tf32: products of 10-bit fractions, on CUDA; bfloat16, float16: autocast of"
        " the forward pass, with scaled loss in float16",
    )
    channels_last: bool = Field(default=True, description="memory layout of images and convolutions")
    test_every: int = Field(
        default=0, ge=0, description="epochs between evaluations on the test data; 0: only at the end"
    )

    @model_validator(mode="after")
    def _one_warmup(self) -> "TrainingSpec":
        if self.warmup is not None and isinstance(self.schedule, OneCycle):
            raise ValueError("schedule one-cycle is a warm-up itself: leave warmup out, or use schedule cosine")
        return self

    @model_validator(mode="after")
    def _one_start(self) -> "TrainingSpec":
        if self.weights is not None and self.whitening:
            raise ValueError("weights and whitening both say what the first convolution starts as; leave one out")
        return self

    @model_validator(mode="after")
    def _parts_with_images(self) -> "TrainingSpec":
        if self.accumulate > self.batch_size:
            raise ValueError(
                f"accumulate {self.accumulate} is more than the images of a batch, batch_size {self.batch_size}"
            )
        return self

    @model_validator(mode="after")
    def _an_average_in_every_trial(self) -> "TrainingSpec":
        late = isinstance(self.averaging, SWA) and not self.averaging.share(0, 1, self.epochs, self.epochs)
        if late and self.early_stopping is not None:
            raise ValueError(
                "averaging swa starts after a fraction of all epochs, before which early_stopping may end training"
                " without an average; use averaging ema, start 0, or leave early_stopping out"
            )
        return self

    def rate(self, name: str) -> float:
        """Return the factor on the learning rate of a parameter, or of what a module has, by its name.

        Example:
            >>> recipe = TrainingSpec(rates={"stages": 0.1, "stages.0": 0.0})
            >>> [recipe.rate(name) for name in ("stages.0.conv.weight", "stages.1.conv.weight", "head.linear.weight")]
            [0.0, 0.1, 1.0]
            >>> TrainingSpec(rates={"stages.*.*.branch.norm1.bias": 64.0}).rate("stages.0.2.branch.norm1.bias")
            64.0
        """
        fitting = [prefix for prefix in self.rates or () if _begins(name, prefix)]
        return self.rates[max(fitting, key=_specificity)] if self.rates and fitting else 1.0

    def check_rates(self, parameters: Collection[str]) -> None:
        """Check that `rates` are of parameters that a network has, and leave one to train.

        Raises:
            SpecError: they are not.
        """
        for prefix in self.rates or ():
            if not any(_begins(name, prefix) for name in parameters):
                known = dict.fromkeys(".".join(name.split(".")[:depth]) for name in parameters for depth in (1, 2))
                raise SpecError(
                    f"training.rates: {prefix!r} begins the name of no parameter; there are"
                    f" {join(list(known), MOST_NAMES)}"
                )
        if self.rates and not any(self.rate(name) for name in parameters):
            raise SpecError("training.rates: every parameter has rate 0; leave one to train")

    def check_decay(self, optimizer: str, groups: Iterable[Collection[str]]) -> None:
        """Check that an optimizer has weight decay, if the recipe names what decays.

        Args:
            optimizer: its name.
            groups: the settings of its parameter groups.

        Raises:
            SpecError: it has none.
        """
        if self.decayed == "weights" and not all("weight_decay" in group for group in groups):
            raise SpecError(
                f"training.decayed: weights needs an optimizer with weight decay, and the parameter groups of"
                f" {optimizer} have no weight_decay; leave decayed out"
            )

    def identify(self, data_dir: Path) -> dict[str, str]:
        """Return the path of the file of weights -> the digest of its content; empty without one.

        Raises:
            DataError: it is missing or cannot be read.
        """
        if self.weights is None:
            return {}
        return {self.weights: f"sha256:{compute_sha256(find_file(self.weights, data_dir, 'training.weights'))}"}

    @model_validator(mode="after")
    def _in_order(self) -> "TrainingSpec":
        ends = [one.until for one in self.resizing or ()]
        if ends != sorted(set(ends)):
            raise ValueError(f"resizing: until {ends} must be distinct fractions of the epochs in rising order")
        return self

    def image_size(self, epoch: int, height: int, width: int) -> tuple[int, int]:
        """Return height and width of training images in an epoch, counted from 0, from those of the data set's images.

        Example:
            >>> recipe = TrainingSpec(epochs=10, resizing=(Resizing(until=0.5, scale=0.25),))
            >>> recipe.image_size(4, 32, 32), recipe.image_size(5, 32, 32)
            ((8, 8), (32, 32))
        """
        for one in self.resizing or ():
            if epoch / self.epochs < one.until:
                return max(1, round(height * one.scale)), max(1, round(width * one.scale))
        return height, width

    def image_sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """Return all sizes that training images have, the smallest first."""
        return sorted({self.image_size(epoch, height, width) for epoch in range(self.epochs)})

    def parts(self, images: int, devices: int = 1) -> int:
        """Return in how many parts a batch of so many images is computed: fewer where each device has too few."""
        return max(1, min(self.accumulate, images // devices))

    @property
    def revision(self) -> int:
        """2: the schedule begins where the warm-up ends."""
        return 1 if self.warmup is None or self.schedule.counts_warmup else 2

    @model_serializer(mode="wrap")
    def _without_what_is_not_used(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = plain(self)  # so that what was added later changed no hash of trials without it
        return {key: one for key, one in content.items() if key not in _ADDED or one != _ADDED[key]}


def _begins(name: str, prefix: str) -> bool:
    """Return whether a prefix fits a dotted name: each of its parts is the name's, or `*`."""
    parts, asked = name.split("."), prefix.split(".")
    return len(asked) <= len(parts) and all(one in (part, "*") for one, part in zip(asked, parts, strict=False))


def _specificity(prefix: str) -> tuple[int, int, str]:
    """Return what prefixes are ordered by where several fit; not by their places, which no hash knows."""
    return prefix.count("."), -prefix.split(".").count("*"), prefix


_ADDED: dict[str, object] = {
    "weights": None,
    "whitening": False,
    "rates": None,
    "accumulate": 1,
    "decayed": "all",
    "loss": None,
    "averaging": None,
    "early_stopping": None,
    "evaluation": None,
    "resizing": None,
}
"""Keys that were added later -> the value with which they are left out."""
