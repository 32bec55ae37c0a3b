"""Wide residual networks."""

from leadline.networks.families.registry import register_family
from leadline.networks.families.shapes import AnyHead, Positive, blocks_of, three_stages, to_head
from leadline.specs import Block, NetworkSpec, Shortcut, Stem
from leadline.specs.network import Rate


@register_family("wide-resnet")
def wide_resnet(
    depth: int = 28, widen: Positive = 10, dropout: Rate = 0.0, head: AnyHead = "global-average"
) -> NetworkSpec:
    """Wide pre-activation residual network of 6n+4 layers: Zagoruyko & Komodakis 2016, table 1.

    Args:
        depth: weight layers: 6n+4, at least 10.
        widen: factor on the widths 16, 32 and 64, at least 1.
        dropout: rate before the second convolution of a block, from 0 to below 1.
        head: as in `cifar_resnet`, of 64 `widen` maps.

    Raises:
        SpecError: a value is impossible; of a depth the message names the nearest.

    Source: Zagoruyko & Komodakis 2016, "Wide Residual Networks".

    Example:
        >>> from leadline.networks import wide_resnet
        >>> [stage.width for stage in wide_resnet(depth=40, widen=4).stages]
        [64, 128, 256]
    """
    return NetworkSpec(
        stem=Stem(width=16),
        stages=three_stages(blocks_of(depth, 6, 4), (16 * widen, 32 * widen, 64 * widen)),
        block=Block(order="full-preactivation", shortcut=Shortcut(kind="B"), dropout=dropout),
        head=to_head(head),
    )
