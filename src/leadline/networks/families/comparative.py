"""The networks of "Comparative Study between CNNs and Deep Residual Networks" (2019)."""

from leadline.networks.families.registry import register_family
from leadline.networks.families.shapes import Positive
from leadline.specs import Block, Head, NetworkSpec, Shortcut, Stage
from leadline.specs.network import Initialisation, InitialisationName, ShortcutKind


@register_family("comparative-cnn")
def comparative_cnn(blocks: Positive = 5, initialisation: InitialisationName = "old-uniform") -> NetworkSpec:
    """Plain 3x3 convolutions of 64, 32, 64, ... filters with bias, ReLU, no normalisation; flatten; linear.

    Args:
        blocks: convolutions, at least 1.
        initialisation: how weights are drawn. The study names none; `old-uniform` is what PyTorch did then and does
            now.

    Raises:
        SpecError: a value is impossible.

    Source: "Comparative Study between CNNs and Deep Residual Networks" (2019), whose network has five.

    Example:
        >>> from leadline.networks import comparative_cnn
        >>> [stage.width for stage in comparative_cnn(blocks=3).stages]
        [64, 32, 64]
    """
    return NetworkSpec(
        stages=tuple(Stage(blocks=1, width=32 if number % 2 else 64) for number in range(blocks)),
        block=Block(kind="single", shortcut=Shortcut(kind="none"), bias=True),
        head=Head(pool="none"),
        normalisation="none",
        initialisation=Initialisation(name=initialisation),
    )


@register_family("comparative-resnet")
def comparative_resnet(
    blocks: Positive = 5, shortcut: ShortcutKind = "A", initialisation: InitialisationName = "old-uniform"
) -> NetworkSpec:
    """Identical residual blocks: conv 64, ReLU, conv 32, add the block's input, ReLU; flatten; linear.

    The first block's input is zero-padded to 32 channels.

    Args:
        blocks: residual blocks, at least 1.
        shortcut: `none` is the plain twin: the same parameters under the same names, without the additions.
        initialisation: how weights are drawn, as in `comparative_cnn`.

    Raises:
        SpecError: a value is impossible.

    Source: "Comparative Study between CNNs and Deep Residual Networks" (2019), whose network has five blocks.

    Example:
        >>> from leadline.networks import comparative_resnet
        >>> from leadline.networks.modules import inspect_network
        >>> inspect_network(comparative_resnet(), (1, 28, 28), classes=10).parameters
        417834
    """
    return _identical_blocks(blocks, shortcut, initialisation)


@register_family("comparative-plain")
def comparative_plain(blocks: Positive = 5, initialisation: InitialisationName = "old-uniform") -> NetworkSpec:
    """`comparative-resnet` without shortcuts.

    Args:
        blocks: pairs of convolutions, at least 1.
        initialisation: how weights are drawn, as in `comparative_cnn`.

    Raises:
        SpecError: a value is impossible.

    Source: "Comparative Study between CNNs and Deep Residual Networks" (2019).

    Example:
        >>> from leadline.networks import comparative_plain, comparative_resnet
        >>> comparative_plain(blocks=7) == comparative_resnet(blocks=7, shortcut="none")
        True
    """
    return _identical_blocks(blocks, "none", initialisation)


def _identical_blocks(blocks: int, shortcut: ShortcutKind, initialisation: InitialisationName) -> NetworkSpec:
    return NetworkSpec(
        stages=(Stage(blocks=blocks, width=32, inner_width=64),),
        block=Block(kind="basic", shortcut=Shortcut(kind=shortcut), bias=True),
        head=Head(pool="none"),
        normalisation="none",
        initialisation=Initialisation(name=initialisation),
    )
