"""Residual networks for 224x224 images, and their plain twins."""

from typing import Literal

from leadline.networks.families.registry import register_family
from leadline.networks.families.shapes import Positive
from leadline.specs import Block, NetworkSpec, Shortcut, Stage, Stem
from leadline.specs.network import ShortcutKind

_BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}
_BASIC_DEPTHS = (18, 34)
_BOTTLENECK_WIDTHS = (256, 512, 1024, 2048)
_STEM = Stem(width=64, kernel=7, stride=2, pool=True)


@register_family("imagenet-resnet")
def imagenet_resnet(
    depth: Literal[18, 34, 50, 101, 152] = 50,
    shortcut: ShortcutKind = "B",
    stride_in: Literal["3x3", "first-1x1"] = "3x3",
) -> NetworkSpec:
    """Residual network for 224x224 images: He et al. 2015, table 1.

    Args:
        depth: weight layers: 18 or 34 of basic blocks, 50, 101 or 152 of bottlenecks.
        shortcut: `A`, identity with zero padding; `B`, projections where the shape changes; `C`, everywhere; others.
        stride_in: which convolution of a bottleneck subsamples. In the paper it is the `first-1x1`; `3x3` is the later
            form whose trained weights people share.

    Raises:
        SpecError: a value is impossible.

    Source: He et al. 2015, "Deep Residual Learning for Image Recognition".

    Example:
        >>> from leadline.networks import imagenet_resnet
        >>> from leadline.networks.modules import inspect_network
        >>> inspect_network(imagenet_resnet(depth=50), (3, 224, 224), classes=1000).parameters
        25557032
    """
    return _residual(depth, shortcut, stride_in)


@register_family("imagenet-plain")
def imagenet_plain(depth: Literal[18, 34, 50, 101, 152] = 34) -> NetworkSpec:
    """`imagenet-resnet` without shortcuts: He et al. 2015, table 1 and figure 3.

    Args:
        depth: weight layers: 18, 34, 50, 101 or 152.

    Raises:
        SpecError: there is no network of this depth.

    Source: He et al. 2015, "Deep Residual Learning for Image Recognition".

    Example:
        >>> from leadline.networks import imagenet_plain, imagenet_resnet
        >>> imagenet_plain(depth=18) == imagenet_resnet(depth=18, shortcut="none")
        True
    """
    return _residual(depth, "none", "3x3")


@register_family("imagenet-preresnet")
def imagenet_preresnet(depth: Literal[101, 152, 200] = 200) -> NetworkSpec:
    """Pre-activation residual network for 224x224 images: He et al. 2016, table 5 (152 and 200 layers).

    Args:
        depth: weight layers: 101, 152 or 200.

    Raises:
        SpecError: there is no network of this depth.

    Source: He et al. 2016, "Identity Mappings in Deep Residual Networks".

    Example:
        >>> from leadline.networks import imagenet_preresnet
        >>> [stage.blocks for stage in imagenet_preresnet(depth=200).stages]
        [3, 24, 36, 3]
    """
    return NetworkSpec(
        stem=_STEM,
        stages=_stages(depth, _BOTTLENECK_WIDTHS),
        block=Block(kind="bottleneck", shortcut=Shortcut(kind="B"), order="full-preactivation"),
    )


@register_family("resnext")
def resnext(depth: Literal[50, 101, 152] = 50, groups: Positive = 32, group_width: Positive = 4) -> NetworkSpec:
    """Residual network of grouped bottlenecks for 224x224 images: Xie et al. 2017, table 1.

    Args:
        depth: weight layers: 50, 101 or 152.
        groups: of each 3x3 convolution (the paper's cardinality), at least 1.
        group_width: channels of a group in the first stage, at least 1; each stage doubles them.

    Raises:
        SpecError: a value is impossible.

    Source: Xie et al. 2017, "Aggregated Residual Transformations for Deep Neural Networks".

    Example:
        >>> from leadline.networks import resnext
        >>> [stage.inner_width for stage in resnext(groups=32, group_width=4).stages]
        [128, 256, 512, 1024]
    """
    inner = groups * group_width
    return NetworkSpec(
        stem=_STEM,
        stages=tuple(
            stage.with_(inner_width=inner * 2**number)
            for number, stage in enumerate(_stages(depth, _BOTTLENECK_WIDTHS))
        ),
        block=Block(kind="bottleneck", groups=groups, shortcut=Shortcut(kind="B")),
    )


def _residual(depth: int, shortcut: ShortcutKind, stride_in: Literal["3x3", "first-1x1"]) -> NetworkSpec:
    basic = depth in _BASIC_DEPTHS
    return NetworkSpec(
        stem=_STEM,
        stages=_stages(depth, (64, 128, 256, 512) if basic else _BOTTLENECK_WIDTHS),
        block=Block(
            kind="basic" if basic else "bottleneck",
            shortcut=Shortcut(kind=shortcut),
            stride_in="3x3" if basic else stride_in,
        ),
    )


def _stages(depth: int, widths: tuple[int, int, int, int]) -> tuple[Stage, ...]:
    return tuple(
        Stage(blocks=blocks, width=width, stride=1 if number == 0 else 2)
        for number, (blocks, width) in enumerate(zip(_BLOCKS[depth], widths, strict=True))
    )
