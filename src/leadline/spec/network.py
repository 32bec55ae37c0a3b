"""What a network is: stem, stages of blocks, head. One specification, one network, whatever the input's size."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from leadline.spec.base import Spec

Normalisation = Literal["none", "batch"]
Activation = Literal["relu"]
Shortcut = Literal["none", "A", "B", "C"]
Order = Literal["original", "full-preactivation"]
Initialisation = Literal["old-uniform", "he-normal"]


class Stem(Spec):
    """The layers before the first stage: a convolution, normalisation and activation, and perhaps a max-pooling."""

    width: int = Field(ge=1, description="channels that the stem's convolution gives")
    kernel: int = Field(default=3, ge=1)
    stride: int = Field(default=1, ge=1)
    pool: bool = Field(default=False, description="3x3 max-pooling of stride 2 after the activation")


class Stage(Spec):
    """Blocks of one width; the first of them may subsample."""

    blocks: int = Field(ge=1)
    width: int = Field(ge=1, description="channels that each block gives")
    inner_width: int | None = Field(
        default=None,
        ge=1,
        description="channels inside the branch; None: `width`, or a quarter of it in a bottleneck",
    )
    stride: int = Field(default=1, ge=1, description="stride of the stage's first block")


class Block(Spec):
    """The branch of every block, and how it meets its shortcut."""

    kind: Literal["single", "basic", "bottleneck"] = Field(
        default="basic", description="one 3x3; two 3x3; or 1x1, 3x3, 1x1"
    )
    order: Order = "original"
    shortcut: Shortcut = Field(
        default="A",
        description="none: plain; A: identity, zero-padded where dimensions grow; B: 1x1 projection where they change;"
        " C: projection everywhere (He et al. 2015, section 3.3)",
    )
    bias: bool = Field(default=False, description="whether convolutions have a bias")


class Head(Spec):
    """The layers from the last stage to the classes."""

    pool: Literal["global-average", "none"] = "global-average"


class NetworkSpec(Spec):
    """A plain or residual convolutional network: stem, stages, block, head."""

    stem: Stem | None = Field(default=None, description="None: the first block sees the image itself")
    stages: Annotated[tuple[Stage, ...], Field(strict=False, min_length=1)]
    block: Block = Block()
    head: Head = Head()
    normalisation: Normalisation = "batch"
    activation: Activation = "relu"
    initialisation: Initialisation = "he-normal"

    @model_validator(mode="after")
    def _bottleneck_divides(self) -> "NetworkSpec":
        for number, stage in enumerate(self.stages):
            if self.block.kind == "bottleneck" and stage.inner_width is None and stage.width % 4:
                raise ValueError(
                    f"stages.{number}.width {stage.width} is not a multiple of 4, which a bottleneck needs;"
                    " change it or give inner_width"
                )
        return self
