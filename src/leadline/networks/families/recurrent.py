"""Networks that use weights again at every step."""

from typing import Literal

from leadline.networks.families.registry import register_family
from leadline.networks.families.shapes import AnyHead, AnyShortcut, Positive, to_head, to_shortcut
from leadline.specs import Block, Head, NetworkSpec, Sharing, Stage, Stem
from leadline.specs.network import Rate, RecurrentHead


@register_family("recurrent-resnet")
def recurrent_resnet(
    steps: Positive = 8,
    width: Positive = 64,
    states: Literal[1, 3] = 1,
    shared: bool = True,
    normalisation: Literal["shared", "per-step"] = "per-step",
    head: AnyHead = "global-average",
    shortcut: AnyShortcut = "A",
) -> NetworkSpec:
    """Residual network whose blocks are one block, applied `steps` times: Liao & Poggio 2016.

    Args:
        steps: times that each state's block is applied, at least 1.
        width: channels of the first state, at least 1.
        states: 1, the fully shared form: every step works on the same maps; 3: each state of `width`, twice and four
            times that has a block of its own, after one that changes the maps' shape.
        shared: False is the residual network of as many blocks, each with weights of its own.
        normalisation: whether each step has scales, shifts and statistics of its own.
        head: as in `cifar_resnet`.
        shortcut: as in `cifar_resnet`; `none` is the plain twin, recurrent or not.

    Raises:
        SpecError: a value is impossible.

    Source: Liao & Poggio 2016, "Bridging the Gaps Between Residual Learning, Recurrent Neural Networks and Visual
    Cortex".

    Example:
        >>> from leadline.networks import recurrent_resnet
        >>> from leadline.networks.modules import inspect_network
        >>> specs = [recurrent_resnet(steps, normalisation="shared") for steps in (2, 8)]
        >>> len({inspect_network(spec, (3, 32, 32), classes=10).parameters for spec in specs})
        1
    """
    widths = (width, 2 * width, 4 * width)[:states]
    return NetworkSpec(
        stem=Stem(width=width),
        stages=tuple(
            Stage(blocks=steps if number == 0 else steps + 1, width=w, stride=1 if number == 0 else 2)
            for number, w in enumerate(widths)
        ),
        block=Block(shortcut=to_shortcut(shortcut)),
        sharing=Sharing(normalisation=normalisation) if shared else None,
        head=to_head(head),
    )


@register_family("recnet")
def recnet(steps: Positive = 7, width: Positive = 128, dropout: Rate = 0.0, recurrent: bool = True) -> NetworkSpec:
    """Stem and one residual block, flattened, then a simple RNN cell that sees the features at each of its steps.

    Args:
        steps: of the cell, at least 1.
        width: hidden units of the cell, at least 1. The source names no widths; this and that of the maps, 16, are
            ours.
        dropout: rate on the last hidden state, from 0 to below 1.
        recurrent: False is the shallow counterpart: the same without the cell.

    Raises:
        SpecError: a value is impossible.

    Source: "Recurrent Networks in Residual Networks", its network for CIFAR-10: 7 steps.

    Example:
        >>> from leadline.networks import recnet
        >>> recnet(steps=3).head.recurrent.steps
        3
    """
    cell = RecurrentHead(steps=steps, width=width, dropout=dropout) if recurrent else None
    return NetworkSpec(
        stem=Stem(width=16),
        stages=(Stage(blocks=1, width=16, stride=2),),
        head=Head(pool="none", recurrent=cell),
    )
