"""Residual networks for 32x32 images, of basic or bottleneck blocks in any order, and their plain twins."""

from typing import Literal

from leadline.networks.families.registry import register_family
from leadline.networks.families.shapes import AnyHead, AnyShortcut, blocks_of, three_stages, to_head, to_shortcut
from leadline.specs import Block, NetworkSpec, Stem
from leadline.specs.network import Initialisation, InitialisationName, Order

Kind = Literal["basic", "bottleneck"]
Preactivation = Literal["full-preactivation", "relu-only-preactivation", "preactivation-and-after"]


@register_family("cifar-resnet")
def cifar_resnet(
    depth: int = 20,
    shortcut: AnyShortcut = "A",
    order: Order = "original",
    initialisation: InitialisationName = "he-normal",
    block: Kind = "basic",
    head: AnyHead = "global-average",
) -> NetworkSpec:
    """Residual network of 6n+2 layers for 32x32 images: He et al. 2015, section 4.2 and table 6.

    A 3x3 convolution to 16 maps; three stages of n blocks with 16, 32 and 64 maps of 32x32, 16x16 and 8x8 pixels;
    pooling; linear. Bottlenecks, 9n+2 layers, give 64, 128 and 256 maps.

    Args:
        depth: weight layers on the longest path: 6n+2 of basic blocks, 9n+2 of bottlenecks.
        shortcut: `A`, identity with zero padding; `B`, 1x1 projections where the shape changes; `C`, projections
            everywhere; or any other kind or `leadline.specs.Shortcut`.
        order: of convolution, normalisation, activation and addition: `original`, one of the variants of He et al.
            2016, table 2, or `preactivation-and-after`: BN, ReLU, convolution, as often as the block has convolutions,
            then the addition, then BN, ReLU.
        initialisation: how weights are drawn.
        block: `basic`, two 3x3; `bottleneck`, 1x1, 3x3, 1x1.
        head: `global-average`; `average-2x2` or `average-4x4`, average pooling of windows, flattened: 4x4x64 = 1024
            or 2x2x64 = 256 features; `none`, the maps flattened as they are; or a `leadline.specs.Head`.

    Raises:
        SpecError: a value is impossible, or values together are; of a depth the message names the nearest.

    Source: He et al. 2015, "Deep Residual Learning for Image Recognition"; He et al. 2016, "Identity Mappings in Deep
    Residual Networks".

    Example:
        >>> from leadline.networks import cifar_resnet
        >>> from leadline.networks.modules import inspect_network
        >>> inspect_network(cifar_resnet(depth=56), (3, 32, 32), classes=10).parameters
        853018
    """
    return _residual(depth, shortcut, order, initialisation, block, head)


@register_family("cifar-plain")
def cifar_plain(
    depth: int = 20,
    initialisation: InitialisationName = "he-normal",
    order: Order = "original",
    block: Kind = "basic",
    head: AnyHead = "global-average",
) -> NetworkSpec:
    """`cifar-resnet` without shortcuts: He et al. 2015, section 4.2.

    Args:
        depth: weight layers: 6n+2 of basic blocks, 9n+2 of bottlenecks.
        initialisation: how weights are drawn.
        order: as in `cifar_resnet`, where nothing is added.
        block: `basic` or `bottleneck`.
        head: as in `cifar_resnet`.

    Raises:
        SpecError: a value is impossible, or values together are; of a depth the message names the nearest.

    Source: He et al. 2015, "Deep Residual Learning for Image Recognition".

    Example:
        >>> from leadline.networks import cifar_plain, cifar_resnet
        >>> cifar_plain(depth=56) == cifar_resnet(depth=56, shortcut="none")
        True
    """
    return _residual(depth, "none", order, initialisation, block, head)


@register_family("cifar-preresnet")
def cifar_preresnet(
    depth: int = 164,
    block: Kind = "bottleneck",
    shortcut: AnyShortcut = "B",
    order: Preactivation = "full-preactivation",
    initialisation: InitialisationName = "he-normal",
    head: AnyHead = "global-average",
) -> NetworkSpec:
    """Pre-activation residual network for 32x32 images, of 9n+2 layers (bottleneck) or 6n+2 (basic).

    Args:
        depth: weight layers on the longest path: 9n+2 of bottlenecks, 6n+2 of basic blocks.
        block: `basic`, two 3x3; `bottleneck`, 1x1, 3x3, 1x1.
        shortcut: as in `cifar_resnet`.
        order: `full-preactivation`: BN, ReLU, convolution, as often as the block has convolutions, then the addition;
            `preactivation-and-after`: BN and ReLU after the addition too; `relu-only-preactivation`: ReLU,
            convolution, BN.
        initialisation: how weights are drawn.
        head: as in `cifar_resnet`.

    Raises:
        SpecError: a value is impossible, or values together are; of a depth the message names the nearest.

    Source: He et al. 2016, "Identity Mappings in Deep Residual Networks", section 4 and table 4: 164 and 1001 layers.

    Example:
        >>> from leadline.networks import cifar_preresnet
        >>> spec = cifar_preresnet(depth=20, block="basic", order="preactivation-and-after", head="average-2x2")
        >>> spec.head.pool
        'average-2x2'
    """
    return _residual(depth, shortcut, order, initialisation, block, head)


def _residual(
    depth: int, shortcut: AnyShortcut, order: Order, initialisation: InitialisationName, kind: Kind, head: AnyHead
) -> NetworkSpec:
    basic = kind == "basic"
    return NetworkSpec(
        stem=Stem(width=16),
        stages=three_stages(blocks_of(depth, 6 if basic else 9, 2), (16, 32, 64) if basic else (64, 128, 256)),
        block=Block(kind=kind, shortcut=to_shortcut(shortcut), order=order),
        head=to_head(head),
        initialisation=Initialisation(name=initialisation),
    )
