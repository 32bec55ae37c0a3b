"""What a network is: stem, stages of blocks, head. One specification, one network, whatever the input's size."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    SerializerFunctionWrapHandler,
    Tag,
    model_serializer,
    model_validator,
)

from leadline.errors import SpecError
from leadline.parts.base import Spec, parse
from leadline.parts.reference import Reference, refer
from leadline.parts.shortcuts import SHORTCUTS, CustomShortcut, ShortcutName, ShortcutPart

Normalisation = Literal["none", "batch", "layer", "instance", "group"]
Activation = Literal["relu", "leaky-relu", "elu", "gelu", "silu", "tanh", "sigmoid", "softplus"]
Order = Literal[
    "original",
    "bn-after-addition",
    "relu-before-addition",
    "relu-only-preactivation",
    "full-preactivation",
    "preactivation-and-after",
]
ShortcutKind = Annotated[str, ShortcutName]
InitialisationName = Literal[
    "old-uniform",
    "he-normal",
    "he-uniform",
    "he-normal-fan-out",
    "he-uniform-fan-out",
    "xavier-normal",
    "xavier-uniform",
    "lecun-normal",
    "lecun-uniform",
    "orthogonal",
    "delta-orthogonal",
]
Pooling = Literal["global-average", "average-2x2", "average-4x4", "none"]
BranchInitialisation = Literal["none", "zero-gamma", "fixup", "skipinit", "rezero"]
Rate = Annotated[float, Field(ge=0, lt=1)]


class Stem(Spec):
    """The layers before the first stage: a convolution, normalisation and activation, and perhaps a max-pooling."""

    width: int = Field(ge=1, description="output channels of the stem's convolution")
    kernel: int = Field(default=3, ge=1, description="kernel size of the stem's convolution")
    stride: int = Field(default=1, ge=1, description="stride of the stem's convolution")
    pool: bool = Field(default=False, description="3x3 max-pooling with stride 2 after the activation")


class Stage(Spec):
    """Blocks of one width; the first of them may subsample."""

    blocks: int = Field(ge=1, description="number of blocks")
    width: int = Field(
        ge=1,
        description="output channels of each block; with concatenating shortcuts, the channels that each block adds",
    )
    inner_width: int | None = Field(
        default=None,
        ge=1,
        description="channels inside the branch; None: `width`, a quarter of it in a bottleneck, four times it in"
        " `dense`",
    )
    stride: int = Field(default=1, ge=1, description="stride of the stage's first block")
    pool: bool = Field(default=False, description="2x2 max-pooling after the stage")
    transition: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None,
        description="after the stage: normalisation, activation, a 1x1 convolution to this fraction of the channels and"
        " 2x2 average pooling (DenseNet)",
    )


class Shortcut(Spec):
    """How a block's input reaches its addition; a bare string stands for its `kind`.

    `none`: plain; `A`: identity, zero-padded and subsampled where dimensions grow; `B`: 1x1 projection where they
    change; `C`: projection everywhere, which is also the "1x1 conv shortcut" (He et al. 2015, section 3.3). From He et
    al. 2016, section 3: `scaled`, constant factors; `exclusive-gating`, g = sigmoid(conv 1x1) on the branch and 1 - g
    on the shortcut; `shortcut-only-gating`, the branch left as it is; `dropout`, on the shortcut. `concatenate`: the
    input beside the branch's output (DenseNet).
    """

    kind: ShortcutKind = Field(default="A", description="name of the shortcut")
    shortcut_factor: float = Field(default=1.0, description="`scaled`: factor on the shortcut")
    branch_factor: float = Field(default=1.0, description="`scaled`: factor on the branch")
    gate_bias: float = Field(default=-6.0, description="gates: initial value of the bias")
    gate_kernel: Literal[1, 3] = Field(
        default=1, description="gates: kernel size of their convolution; 3 in Highway networks"
    )
    dropout: Rate = Field(default=0.5, description="`dropout`: rate")
    arguments: dict[str, Any] = Field(
        default={}, description="further settings of the kind, which have no key of their own"
    )

    @model_validator(mode="before")
    @classmethod
    def _from_kind(cls, value: object) -> object:
        return {"kind": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _settings_that_the_kind_has(self) -> "Shortcut":
        try:
            _ = self.part
        except SpecError as error:
            raise ValueError(f"arguments of {self.kind}: {error}") from None
        return self

    @model_serializer(mode="wrap")
    def _without_arguments(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # of kinds that have none, so that the hash of a network is what it was before there were any
        content: dict[str, Any] = plain(self)
        if not self.arguments:
            content.pop("arguments", None)
        return content

    @property
    def part(self) -> ShortcutPart:
        """What builds the shortcut."""
        member = SHORTCUTS.members()[self.kind]
        own = {field: getattr(self, field) for field in member.model_fields if field in Shortcut.model_fields}
        part = parse(member, {"name": self.kind, **own, **self.arguments})
        assert isinstance(part, ShortcutPart)
        return part


def _shortcut_form(value: object) -> str:
    if isinstance(value, dict):
        return "custom" if "module" in value else "built-in"
    if isinstance(value, str):
        return "custom" if ":" in value else "built-in"
    return "built-in" if isinstance(value, Shortcut) else "custom"


def _spell_out(value: object) -> object:
    if isinstance(value, str) and ":" in value:
        return {"module": value}
    return refer(value) if callable(value) else value


AnyShortcut = Annotated[
    Annotated[Shortcut, Tag("built-in")] | Annotated[CustomShortcut, Tag("custom")],
    Discriminator(_shortcut_form),
    BeforeValidator(_spell_out),
]


class Sharing(Spec):
    """Recurrence: the blocks of a stage that have one shape are one block, applied once per step."""

    normalisation: Literal["shared", "per-step"] = Field(
        default="per-step", description="whether each step has its own normalisation (Liao & Poggio 2016)"
    )


class Block(Spec):
    """The branch of every block, and how it meets its shortcut."""

    kind: Literal["single", "basic", "bottleneck", "dense"] = Field(
        default="basic", description="one 3x3; two 3x3; 1x1, 3x3, 1x1; or 1x1, 3x3 (DenseNet-BC)"
    )
    order: Order = Field(
        default="original",
        description="order of the operations in a branch and around its addition (He et al. 2016, figure 4):"
        " original: conv, BN, ReLU, conv, BN; addition; ReLU."
        " bn-after-addition: conv, BN, ReLU, conv; addition; BN, ReLU."
        " relu-before-addition: conv, BN, ReLU, conv, BN, ReLU; addition."
        " relu-only-preactivation: ReLU, conv, BN, ReLU, conv, BN; addition."
        " full-preactivation: BN, ReLU, conv, BN, ReLU, conv; addition."
        " preactivation-and-after, which is not in the figure: BN, ReLU, conv, BN, ReLU, conv; addition; BN, ReLU."
        " A bottleneck has three convolutions instead of two.",
    )
    shortcut: AnyShortcut = Field(
        default=Shortcut(), description="how the block's input reaches its addition; a name stands for its kind"
    )
    bias: bool = Field(default=False, description="whether convolutions have a bias")
    kernel: int = Field(default=3, ge=1, description="kernel size of the branch's larger convolutions")
    groups: int = Field(default=1, ge=1, description="groups of a bottleneck's 3x3 (ResNeXt)")
    stride_in: Literal["3x3", "first-1x1"] = Field(
        default="3x3", description="which convolution of a bottleneck subsamples; in He et al. 2015 it is the first"
    )
    dropout: Rate = Field(
        default=0.0, description="dropout rate before the branch's last convolution (wide residual networks)"
    )
    stochastic_depth: Rate = Field(
        default=0.0,
        description="probability of dropping the last block's branch; grows linearly with depth (Huang et al. 2016)",
    )


class RecurrentHead(Spec):
    """A simple RNN cell that sees the flattened features at every step: h <- tanh(W x + b + U h + c)."""

    steps: int = Field(default=7, ge=1, description="number of steps of the cell")
    width: int = Field(default=128, ge=1, description="number of hidden units")
    dropout: Rate = Field(default=0.0, description="dropout rate on the last hidden state")


class Head(Spec):
    """The layers from the last stage to the classes; a bare string stands for its `pool`."""

    pool: Pooling = Field(
        default="global-average",
        description="average pooling over the whole map, or over adjacent windows of 2x2 or 4x4 pixels, then"
        " flattened; none: maps are flattened without pooling",
    )
    dropout: Rate = Field(default=0.0, description="dropout rate before the linear layer")
    recurrent: RecurrentHead | None = Field(
        default=None, description="a recurrent cell between the pooling and the linear layer; None: none"
    )

    @model_validator(mode="before")
    @classmethod
    def _from_pool(cls, value: object) -> object:
        return {"pool": value} if isinstance(value, str) else value


class Initialisation(Spec):
    """How weights are drawn; a bare string stands for its `name`."""

    name: InitialisationName = Field(default="he-normal", description="distribution of the weights")
    gain: float | None = Field(
        default=None,
        gt=0,
        description="factor on the weights' scale; None: sqrt(2) for he-*, else 1",
    )
    bias_std: float | None = Field(
        default=None, ge=0, description="initial bias; None: zero, or uniform like the weights with old-uniform"
    )
    branch: BranchInitialisation = Field(
        default="none",
        description="zero-gamma: the last normalisation of a branch starts at 0; skipinit, rezero: a learned factor on"
        " the branch starts at 0; fixup: Zhang et al. 2019",
    )
    identity: bool = Field(
        default=False,
        description="whether the first filters of every convolution but those of gates, as many as it has input"
        " channels, copy one input channel each; the other filters are drawn (Jordan 2024)",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: object) -> object:
        return {"name": value} if isinstance(value, str) else value

    @model_serializer(mode="wrap")
    def _without_identity(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = plain(self)  # where it is off, so that hashes are what they were before it was added
        if not self.identity:
            content.pop("identity", None)
        return content


class NetworkSpec(Spec):
    """A plain, residual, dense or recurrent network, convolutional or fully connected: stem, stages, block, head."""

    layers: Literal["convolutional", "fully-connected"] = Field(
        default="convolutional",
        description="fully-connected: the image is flattened, every convolution becomes a linear layer with as many"
        " units as channels, and kernels are ignored",
    )
    stem: Stem | None = Field(default=None, description="None: the first block takes the image itself")
    stages: Annotated[tuple[Stage, ...], Field(strict=False, min_length=1)] = Field(
        description="groups of blocks of one width"
    )
    block: Block = Field(default=Block(), description="what every block is made of")
    sharing: Sharing | None = Field(default=None, description="None: every block has its own weights")
    head: Head = Field(default=Head(), description="the layers after the last stage")
    normalisation: Normalisation = Field(default="batch", description="normalisation of every block and of the stem")
    weight_standardisation: bool = Field(
        default=False, description="standardise the weights of every convolution (Qiao et al. 2019)"
    )
    activation: Activation = Field(default="relu", description="activation function of every block and of the stem")
    initialisation: Initialisation = Field(default=Initialisation(), description="how weights are drawn")
    checkpoint_blocks: bool = Field(
        default=False,
        description="recompute activations in the backward pass (gradient checkpointing), about the square root of"
        " a stage's number of blocks at a time: less memory, more time",
    )

    @property
    def is_noisy(self) -> bool:
        """Whether the network draws random numbers while it trains; a custom shortcut is taken to do so."""
        shortcut, recurrent = self.block.shortcut, self.head.recurrent
        on_shortcut = shortcut.kind == "dropout" if isinstance(shortcut, Shortcut) else True
        rates = (self.block.dropout, self.block.stochastic_depth, self.head.dropout)
        return on_shortcut or any(rates) or bool(recurrent and recurrent.dropout)

    @model_validator(mode="after")
    def _possible(self) -> "NetworkSpec":
        for problem in self._problems():
            raise ValueError(problem)
        return self

    def _problems(self) -> list[str]:
        block, kind, branch = self.block, self.block.shortcut.kind, self.initialisation.branch
        shortcut = block.shortcut.part
        residual = shortcut.adds
        problems = []
        for number, stage in enumerate(self.stages):
            if block.kind == "bottleneck" and stage.inner_width is None and stage.width % 4:
                problems.append(
                    f"stages.{number}.width {stage.width} is not a multiple of 4, which a bottleneck needs;"
                    " change it or give inner_width"
                )
            inner = stage.inner_width or stage.width // 4
            if block.kind == "bottleneck" and inner % block.groups:
                problems.append(
                    f"stages.{number}: {inner} inner channels do not divide into {block.groups} groups; change either"
                )
        if block.groups > 1 and block.kind != "bottleneck":
            problems.append(f"block.groups {block.groups} needs block.kind bottleneck, got {block.kind}")
        if block.stride_in == "first-1x1" and block.kind != "bottleneck":
            problems.append(f"block.stride_in first-1x1 needs block.kind bottleneck, got {block.kind}")
        if block.kernel % 2 == 0:
            problems.append(f"block.kernel {block.kernel} is even; use an odd one, which keeps the image size")
        problems += shortcut.find_problems(self)
        if block.order in ("bn-after-addition", "relu-only-preactivation") and self.normalisation == "none":
            problems.append(f"block.order {block.order} needs a normalisation, got none")
        if block.stochastic_depth and not residual:
            problems.append(
                f"block.stochastic_depth {block.stochastic_depth} needs a shortcut beside the branch, got {kind}"
            )
        if branch != "none" and not residual:
            problems.append(f"initialisation.branch {branch} needs residual blocks, got shortcut {kind}")
        if branch == "zero-gamma":
            if self.normalisation == "none":
                problems.append("initialisation.branch zero-gamma needs a normalisation, got none")
            elif block.order not in ("original", "relu-only-preactivation"):
                problems.append(
                    f"initialisation.branch zero-gamma needs a branch that ends in its normalisation, not {block.order}"
                )
        if self.initialisation.identity and self.weight_standardisation:
            problems.append(
                "initialisation.identity: weight_standardisation changes filters that copy a channel; use one of them"
            )
        if self.initialisation.identity and self.initialisation.name in ("orthogonal", "delta-orthogonal"):
            problems.append(
                "initialisation.identity: filters that copy a channel are not orthogonal to the others; use another"
                f" initialisation than {self.initialisation.name}"
            )
        if branch == "fixup" and self.initialisation.identity:
            problems.append("initialisation.identity: fixup scales filters that copy a channel; use one of them")
        if branch == "fixup" and self.weight_standardisation:
            problems.append(
                "initialisation.branch fixup scales weights, and weight_standardisation undoes that; use one of them"
            )
        if branch == "fixup" and (self.normalisation != "none" or block.order != "original" or block.kind == "single"):
            problems.append(
                "initialisation.branch fixup needs normalisation none, block.order original and two or three"
                f" convolutions in a branch, got {self.normalisation}, {block.order}, {block.kind}"
            )
        if self.layers == "fully-connected":
            problems += self._of_vectors()
        return problems

    def _of_vectors(self) -> Iterator[str]:
        """Yield what has no meaning where there are no pixels."""
        stem = self.stem or Stem(width=1)
        spatial = {
            "stem.stride": stem.stride > 1,
            "stem.pool": stem.pool,
            "block.groups": self.block.groups > 1,
            "head.pool": self.head.pool != "none",
            "weight_standardisation": self.weight_standardisation,
            "initialisation.identity": self.initialisation.identity,
        }
        for number, stage in enumerate(self.stages):
            spatial[f"stages.{number}.stride"] = stage.stride > 1
            spatial[f"stages.{number}.pool"] = stage.pool
            spatial[f"stages.{number}.transition"] = stage.transition is not None
        for key, asked in spatial.items():
            if asked:
                instead = "none" if key == "head.pool" else "its default"
                yield f"{key} needs pixels, but fully-connected layers have none; set it to {instead}"
        if self.normalisation == "instance":
            yield "normalisation instance of single values gives only zeros; use batch, layer or none instead"


class ModuleSpec(Reference):
    """A custom network: a function that gives a `torch.nn.Module`, as torchvision's and timm's do, or a `NetworkSpec`.

    It is called with `arguments`, and with `input_shape` (channels, height, width), `in_channels` or `in_chans`,
    `classes` or `num_classes` where it takes them.
    """


def _form(value: object) -> str:
    own = "module" in value if isinstance(value, dict) else isinstance(value, ModuleSpec)
    return "own-module" if own else "written-out"


AnyNetwork = Annotated[
    Annotated[NetworkSpec, Tag("written-out")] | Annotated[ModuleSpec, Tag("own-module")], Discriminator(_form)
]
