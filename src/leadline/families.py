"""Networks by the names that their papers gave them: each a short function that returns a specification."""

import inspect
from collections.abc import Callable, Mapping
from typing import Annotated, Any

from pydantic import Field, ValidationError, validate_call

from leadline.errors import SpecError, unknown
from leadline.spec import Block, Head, NetworkSpec, Stage, Stem, explain
from leadline.spec.network import Initialisation, InitialisationName, Shortcut, ShortcutKind

Positive = Annotated[int, Field(ge=1)]


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


def cifar_resnet(depth: int = 20, shortcut: ShortcutKind = "A") -> NetworkSpec:
    """Residual network of 6n+2 layers for 32x32 images: He et al. 2015, section 4.2 and table 6."""
    if depth < 8 or (depth - 2) % 6:
        below = max(8, 6 * ((depth - 2) // 6) + 2)
        nearest = str(below) if depth < 8 else f"{below}, {below + 6}"
        raise SpecError(f"depth {depth} is not 6n+2; nearest: {nearest}")
    n = (depth - 2) // 6
    return NetworkSpec(
        stem=Stem(width=16),
        stages=(
            Stage(blocks=n, width=16),
            Stage(blocks=n, width=32, stride=2),
            Stage(blocks=n, width=64, stride=2),
        ),
        block=Block(shortcut=Shortcut(kind=shortcut)),
    )


def cifar_plain(depth: int = 20) -> NetworkSpec:
    """`cifar-resnet` with its shortcuts left out: He et al. 2015, section 4.2."""
    return cifar_resnet(depth, "none")


FAMILIES: Mapping[str, Callable[..., NetworkSpec]] = {
    "comparative-cnn": comparative_cnn,
    "comparative-resnet": comparative_resnet,
    "comparative-plain": comparative_plain,
    "cifar-resnet": cifar_resnet,
    "cifar-plain": cifar_plain,
}


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
