"""Highway networks."""

from leadline.networks.families.registry import register_family
from leadline.networks.families.shapes import AnyHead, blocks_of, three_stages, to_head
from leadline.specs import Block, NetworkSpec, Shortcut, Stem
from leadline.specs.network import Initialisation, InitialisationName


@register_family("highway")
def highway(
    depth: int = 20,
    gate_bias: float = -3.0,
    initialisation: InitialisationName = "he-normal",
    head: AnyHead = "global-average",
) -> NetworkSpec:
    """Convolutional highway network: y = H(x) T(x) + x (1 - T(x)), gate T of 3x3 convolutions, no normalisation.

    Widths and subsampling are those of `cifar-resnet`, one layer per block: 3n+2 layers.

    Args:
        depth: weight layers: 3n+2, at least 5.
        gate_bias: initial bias of the gates; negative, -1 to -3 in the paper, so that they start almost closed.
        initialisation: how weights are drawn.
        head: as in `cifar_resnet`.

    Raises:
        SpecError: a value is impossible; of a depth the message names the nearest.

    Source: Srivastava et al. 2015, "Training Very Deep Networks", equation 3 and section 2.2.

    Example:
        >>> from leadline.networks import highway
        >>> highway(depth=20).block.shortcut.gate_bias
        -3.0
    """
    return NetworkSpec(
        stem=Stem(width=16),
        stages=three_stages(blocks_of(depth, 3, 2), (16, 32, 64)),
        block=Block(
            kind="single",
            order="relu-before-addition",
            bias=True,
            shortcut=Shortcut(kind="exclusive-gating", gate_bias=gate_bias, gate_kernel=3),
        ),
        head=to_head(head),
        normalisation="none",
        initialisation=Initialisation(name=initialisation),
    )
