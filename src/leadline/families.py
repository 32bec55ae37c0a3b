"""Networks by the names that their papers gave them: each a short function that returns a specification."""

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, validate_call

from leadline.errors import SpecError, unknown
from leadline.spec import Block, Head, NetworkSpec, Sharing, Shortcut, Stage, Stem, explain
from leadline.spec.network import (
    Activation,
    Initialisation,
    InitialisationName,
    Normalisation,
    Order,
    Rate,
    RecurrentHead,
    ShortcutKind,
)

Positive = Annotated[int, Field(ge=1)]
Above0 = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(gt=0, le=1)]


def comparative_cnn(blocks: Positive = 5, initialisation: InitialisationName = "old-uniform") -> NetworkSpec:
    """Plain 3x3 convolutions of 64, 32, 64, ... filters with bias, ReLU, no normalisation; flatten; linear.

    Source: "Comparative Study between CNNs and Deep Residual Networks" (2019), whose network has five. The study
    names no initialisation; `old-uniform` is what PyTorch did then and does now.
    """
    return NetworkSpec(
        stages=tuple(Stage(blocks=1, width=32 if number % 2 else 64) for number in range(blocks)),
        block=Block(kind="single", shortcut=Shortcut(kind="none"), bias=True),
        head=Head(pool="none"),
        normalisation="none",
        initialisation=Initialisation(name=initialisation),
    )


def comparative_resnet(
    blocks: Positive = 5, shortcut: ShortcutKind = "A", initialisation: InitialisationName = "old-uniform"
) -> NetworkSpec:
    """Identical residual blocks: conv 64, ReLU, conv 32, the block's input added, ReLU; flatten; linear.

    The first block's input is zero-padded to 32 channels. `shortcut="none"` is the plain twin: the same
    parameters under the same names, without the additions.

    Source: "Comparative Study between CNNs and Deep Residual Networks" (2019), whose network has five blocks.
    """
    return NetworkSpec(
        stages=(Stage(blocks=blocks, width=32, inner_width=64),),
        block=Block(kind="basic", shortcut=Shortcut(kind=shortcut), bias=True),
        head=Head(pool="none"),
        normalisation="none",
        initialisation=Initialisation(name=initialisation),
    )


def comparative_plain(blocks: Positive = 5, initialisation: InitialisationName = "old-uniform") -> NetworkSpec:
    """`comparative-resnet` with its shortcuts left out."""
    return comparative_resnet(blocks, "none", initialisation)


def cifar_resnet(
    depth: int = 20,
    shortcut: ShortcutKind | Shortcut = "A",
    order: Order = "original",
    initialisation: InitialisationName = "he-normal",
) -> NetworkSpec:
    """Residual network of 6n+2 layers for 32x32 images: He et al. 2015, section 4.2 and table 6.

    With another `order`, the variants of He et al. 2016, table 2.
    """
    return NetworkSpec(
        stem=Stem(width=16),
        stages=_three_stages(_repeats(depth, 6), (16, 32, 64)),
        block=Block(shortcut=_shortcut(shortcut), order=order),
        initialisation=Initialisation(name=initialisation),
    )


def cifar_plain(depth: int = 20, initialisation: InitialisationName = "he-normal") -> NetworkSpec:
    """`cifar-resnet` with its shortcuts left out: He et al. 2015, section 4.2."""
    return cifar_resnet(depth, "none", initialisation=initialisation)


def cifar_preresnet(
    depth: int = 164, block: Literal["basic", "bottleneck"] = "bottleneck", shortcut: ShortcutKind = "B"
) -> NetworkSpec:
    """Pre-activation residual network for 32x32 images, of 9n+2 layers (bottleneck) or 6n+2 (basic).

    Source: He et al. 2016, section 4 and table 4: 164 and 1001 layers.
    """
    widths = (64, 128, 256) if block == "bottleneck" else (16, 32, 64)
    return NetworkSpec(
        stem=Stem(width=16),
        stages=_three_stages(_repeats(depth, 9 if block == "bottleneck" else 6), widths),
        block=Block(kind=block, shortcut=Shortcut(kind=shortcut), order="full-preactivation"),
    )


_IMAGENET_BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}
_BASIC_DEPTHS = (18, 34)


def imagenet_resnet(
    depth: Literal[18, 34, 50, 101, 152] = 50,
    shortcut: ShortcutKind = "B",
    stride_in: Literal["3x3", "first-1x1"] = "3x3",
) -> NetworkSpec:
    """Residual network for 224x224 images: He et al. 2015, table 1.

    Its bottlenecks subsample in the first 1x1; `stride_in="3x3"`, the default, is the later form whose trained weights
    people share.
    """
    basic = depth in _BASIC_DEPTHS
    widths = (64, 128, 256, 512) if basic else (256, 512, 1024, 2048)
    return NetworkSpec(
        stem=Stem(width=64, kernel=7, stride=2, pool=True),
        stages=_imagenet_stages(depth, widths),
        block=Block(
            kind="basic" if basic else "bottleneck",
            shortcut=Shortcut(kind=shortcut),
            stride_in="3x3" if basic else stride_in,
        ),
    )


def imagenet_plain(depth: Literal[18, 34, 50, 101, 152] = 34) -> NetworkSpec:
    """`imagenet-resnet` with its shortcuts left out: He et al. 2015, table 1 and figure 3."""
    return imagenet_resnet(depth, "none")


def imagenet_preresnet(depth: Literal[101, 152, 200] = 200) -> NetworkSpec:
    """Pre-activation residual network for 224x224 images: He et al. 2016, table 5 (152 and 200 layers)."""
    return NetworkSpec(
        stem=Stem(width=64, kernel=7, stride=2, pool=True),
        stages=_imagenet_stages(depth, (256, 512, 1024, 2048)),
        block=Block(kind="bottleneck", shortcut=Shortcut(kind="B"), order="full-preactivation"),
    )


def wide_resnet(depth: int = 28, widen: Positive = 10, dropout: Rate = 0.0) -> NetworkSpec:
    """Wide pre-activation residual network of 6n+4 layers: Zagoruyko & Komodakis 2016, table 1."""
    if depth < 10 or (depth - 4) % 6:
        raise SpecError(_nearest(depth, 6, 4))
    return NetworkSpec(
        stem=Stem(width=16),
        stages=_three_stages((depth - 4) // 6, (16 * widen, 32 * widen, 64 * widen)),
        block=Block(order="full-preactivation", shortcut=Shortcut(kind="B"), dropout=dropout),
    )


def resnext(depth: Literal[50, 101, 152] = 50, groups: Positive = 32, group_width: Positive = 4) -> NetworkSpec:
    """Residual network of grouped bottlenecks for 224x224 images: Xie et al. 2017, table 1."""
    inner = groups * group_width
    return NetworkSpec(
        stem=Stem(width=64, kernel=7, stride=2, pool=True),
        stages=tuple(
            stage.with_(inner_width=inner * 2**number)
            for number, stage in enumerate(_imagenet_stages(depth, (256, 512, 1024, 2048)))
        ),
        block=Block(kind="bottleneck", groups=groups, shortcut=Shortcut(kind="B")),
    )


def highway(depth: int = 20, gate_bias: float = -3.0, initialisation: InitialisationName = "he-normal") -> NetworkSpec:
    """Convolutional highway network: y = H(x) T(x) + x (1 - T(x)), gate T of 3x3 convolutions, no normalisation.

    Source: Srivastava et al. 2015, equation 3 and section 2.2 (a negative bias, -1 to -3, on the gates). Widths
    and subsampling are those of `cifar-resnet`, one layer per block: 3n+2 layers.
    """
    return NetworkSpec(
        stem=Stem(width=16),
        stages=_three_stages(_repeats(depth, 3), (16, 32, 64)),
        block=Block(
            kind="single",
            order="relu-before-addition",
            bias=True,
            shortcut=Shortcut(kind="exclusive-gating", gate_bias=gate_bias, gate_kernel=3),
        ),
        normalisation="none",
        initialisation=Initialisation(name=initialisation),
    )


def densenet(depth: int = 100, growth: Positive = 12, compression: Fraction = 0.5) -> NetworkSpec:
    """DenseNet-BC of 6n+4 layers for 32x32 images: Huang et al. 2017, section 3 and table 2."""
    if depth < 10 or (depth - 4) % 6:
        raise SpecError(_nearest(depth, 6, 4))
    n = (depth - 4) // 6
    return NetworkSpec(
        stem=Stem(width=2 * growth),
        stages=(
            Stage(blocks=n, width=growth, transition=compression),
            Stage(blocks=n, width=growth, transition=compression),
            Stage(blocks=n, width=growth),
        ),
        block=Block(kind="dense", order="full-preactivation", shortcut=Shortcut(kind="concatenate")),
    )


def recurrent_resnet(
    steps: Positive = 8,
    width: Positive = 64,
    states: Literal[1, 3] = 1,
    shared: bool = True,
    normalisation: Literal["shared", "per-step"] = "per-step",
) -> NetworkSpec:
    """Residual network whose blocks are one block, applied `steps` times: Liao & Poggio 2016.

    With one state, the fully shared form, every step works on the same maps. With three, each state of `width`, twice
    and four times that has a block of its own, after one that changes the maps' shape. `shared=False` is the residual
    network of as many blocks, each with weights of its own.
    """
    widths = (width, 2 * width, 4 * width)[:states]
    return NetworkSpec(
        stem=Stem(width=width),
        stages=tuple(
            Stage(blocks=steps if number == 0 else steps + 1, width=w, stride=1 if number == 0 else 2)
            for number, w in enumerate(widths)
        ),
        sharing=Sharing(normalisation=normalisation) if shared else None,
    )


def delta_orthogonal_cnn(
    depth: Positive = 32, width: Positive = 64, activation: Activation = "tanh", gain: Above0 = 1.0
) -> NetworkSpec:
    """Plain convolutions at the edge of chaos, without normalisation or shortcuts: Xiao et al. 2018, section 4.

    Two strided stages come first, then `depth` layers of one size; gain 1 without biases is critical for tanh.
    """
    return NetworkSpec(
        stem=Stem(width=width),
        stages=(Stage(blocks=1, width=width, stride=2), Stage(blocks=depth, width=width, stride=2)),
        block=Block(kind="single", shortcut=Shortcut(kind="none"), bias=True),
        normalisation="none",
        activation=activation,
        initialisation=Initialisation(name="delta-orthogonal", gain=gain),
    )


def mnist_cnn(activation: Literal["relu", "softplus"] = "relu") -> NetworkSpec:
    """Twice 20 filters 5x5 of stride 2 with ReLU, or softplus, its smooth form, and 2x2 max-pooling; linear.

    Source: "Recurrent Networks in Residual Networks", its network for MNIST.
    """
    stage = Stage(blocks=1, width=20, stride=2, pool=True)
    return NetworkSpec(
        stages=(stage, stage),
        block=Block(kind="single", kernel=5, shortcut=Shortcut(kind="none"), bias=True),
        head=Head(pool="none"),
        normalisation="none",
        activation=activation,
    )


def recnet(steps: Positive = 7, width: Positive = 128, dropout: Rate = 0.0, recurrent: bool = True) -> NetworkSpec:
    """Stem and one residual block, flattened, then a simple RNN cell that sees the features at each of its steps.

    `recurrent=False` is its shallow counterpart: the same without the cell. Source: "Recurrent Networks in Residual
    Networks", CIFAR-10, 7 steps; it names no widths, those of the maps (16) and of the cell (128) are ours.
    """
    cell = RecurrentHead(steps=steps, width=width, dropout=dropout) if recurrent else None
    return NetworkSpec(
        stem=Stem(width=16),
        stages=(Stage(blocks=1, width=16, stride=2),),
        head=Head(pool="none", recurrent=cell),
    )


def mlp(
    hidden: Positive = 4,
    width: Positive = 256,
    activation: Activation = "relu",
    shortcut: ShortcutKind = "none",
    normalisation: Normalisation = "none",
    initialisation: InitialisationName = "he-normal",
    order: Order = "original",
    shared: bool = False,
    dropout: Rate = 0.0,
) -> NetworkSpec:
    """Fully-connected network of `hidden` layers of one width, each after the first a block of its own; linear.

    With `shortcut="A"` its residual twin: each block adds its input. With `shared=True` the recurrent network: the
    blocks are one, applied hidden - 1 times. `dropout` is of every hidden layer's output.
    """
    if hidden == 1 and (shortcut != "none" or shared):
        raise SpecError("one hidden layer has no block to shortcut or share; use hidden 2 or more")
    deep = hidden > 1
    return NetworkSpec(
        layers="fully-connected",
        stem=Stem(width=width) if deep else None,
        stages=(Stage(blocks=hidden - 1 if deep else 1, width=width),),
        block=Block(
            kind="single", order=order, shortcut=Shortcut(kind=shortcut), bias=True, dropout=dropout if deep else 0.0
        ),
        sharing=Sharing() if shared else None,
        head=Head(pool="none", dropout=dropout),
        normalisation=normalisation,
        activation=activation,
        initialisation=Initialisation(name=initialisation),
    )


FAMILIES: Mapping[str, Callable[..., NetworkSpec]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        comparative_cnn,
        comparative_resnet,
        comparative_plain,
        cifar_resnet,
        cifar_plain,
        cifar_preresnet,
        imagenet_resnet,
        imagenet_plain,
        imagenet_preresnet,
        wide_resnet,
        resnext,
        highway,
        densenet,
        recurrent_resnet,
        delta_orthogonal_cnn,
        mnist_cnn,
        recnet,
        mlp,
    )
}


def _shortcut(given: ShortcutKind | Shortcut) -> Shortcut:
    return given if isinstance(given, Shortcut) else Shortcut(kind=given)


def _three_stages(blocks: int, widths: tuple[int, int, int]) -> tuple[Stage, ...]:
    return tuple(
        Stage(blocks=blocks, width=width, stride=1 if number == 0 else 2) for number, width in enumerate(widths)
    )


def _imagenet_stages(depth: int, widths: tuple[int, int, int, int]) -> tuple[Stage, ...]:
    if depth not in _IMAGENET_BLOCKS:
        nearest = sorted(sorted(_IMAGENET_BLOCKS, key=lambda known: abs(known - depth))[:2])
        raise SpecError(
            f"depth {depth} is none of {', '.join(map(str, _IMAGENET_BLOCKS))}; nearest: {nearest[0]}, {nearest[1]}"
        )
    return tuple(
        Stage(blocks=blocks, width=width, stride=1 if number == 0 else 2)
        for number, (blocks, width) in enumerate(zip(_IMAGENET_BLOCKS[depth], widths, strict=True))
    )


def _repeats(depth: int, per_block: int) -> int:
    """Return n of a network of `per_block` n + 2 layers."""
    if depth < per_block + 2 or (depth - 2) % per_block:
        raise SpecError(_nearest(depth, per_block, 2))
    return (depth - 2) // per_block


def _nearest(depth: int, per_block: int, rest: int) -> str:
    smallest = per_block + rest
    below = per_block * ((depth - rest) // per_block) + rest
    nearest = str(smallest) if depth < smallest else f"{below}, {below + per_block}"
    return f"depth {depth} is not {per_block}n+{rest}; nearest: {nearest}"


def family(name: str, arguments: Mapping[str, Any]) -> NetworkSpec:
    """Return the specification of a named network.

    Raises:
        SpecError: the name or an argument is unknown, or a value is impossible.
    """
    if name not in FAMILIES:
        raise SpecError(unknown("network", name, FAMILIES))
    function = FAMILIES[name]
    for key in arguments:
        if key not in inspect.signature(function).parameters:
            raise SpecError(f"{name}: {unknown('argument', key, inspect.signature(function).parameters)}")
    try:
        return validate_call(config={"strict": True})(function)(**arguments)
    except ValidationError as error:
        raise SpecError(f"{name}: {explain(error, dict(arguments))}") from None
    except SpecError as error:
        raise SpecError(f"{name}: {error}") from None
