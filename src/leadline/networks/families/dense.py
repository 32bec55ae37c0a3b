"""Densely connected networks."""

from leadline.networks.families.registry import register_family
from leadline.networks.families.shapes import AnyHead, Fraction, Positive, blocks_of, to_head
from leadline.specs import Block, NetworkSpec, Shortcut, Stage, Stem


@register_family("densenet")
def densenet(
    depth: int = 100, growth: Positive = 12, compression: Fraction = 0.5, head: AnyHead = "global-average"
) -> NetworkSpec:
    """DenseNet-BC of 6n+4 layers for 32x32 images: Huang et al. 2017, section 3 and table 2.

    Args:
        depth: weight layers: 6n+4, at least 10.
        growth: channels that each block adds, at least 1.
        compression: fraction of the channels that a transition keeps, above 0, at most 1.
        head: as in `cifar_resnet`.

    Raises:
        SpecError: a value is impossible; of a depth the message names the nearest.

    Source: Huang et al. 2017, "Densely Connected Convolutional Networks".

    Example:
        >>> from leadline.networks import densenet
        >>> from leadline.networks.modules import inspect_network
        >>> inspect_network(densenet(depth=100, growth=12), (3, 32, 32), classes=10).parameters
        769162
    """
    blocks = blocks_of(depth, 6, 4)
    return NetworkSpec(
        stem=Stem(width=2 * growth),
        stages=(
            Stage(blocks=blocks, width=growth, transition=compression),
            Stage(blocks=blocks, width=growth, transition=compression),
            Stage(blocks=blocks, width=growth),
        ),
        block=Block(kind="dense", order="full-preactivation", shortcut=Shortcut(kind="concatenate")),
        head=to_head(head),
    )
