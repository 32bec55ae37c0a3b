"""Fully-connected networks, plain, residual or recurrent."""

from leadline.errors import SpecError
from leadline.networks.families.registry import register_family
from leadline.networks.families.shapes import Positive
from leadline.specs import Block, Head, NetworkSpec, Sharing, Shortcut, Stage, Stem
from leadline.specs.network import (
    Activation,
    Initialisation,
    InitialisationName,
    Normalisation,
    Order,
    Rate,
    ShortcutKind,
)


@register_family("mlp")
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

    Args:
        hidden: hidden layers, at least 1.
        width: units of each, at least 1.
        activation: after each hidden layer.
        shortcut: with `A` it is the residual twin: each block adds its input.
        normalisation: of each hidden layer.
        initialisation: how weights are drawn.
        order: of linear layer, normalisation, activation and addition in a block.
        shared: the recurrent network: the blocks are one, applied hidden - 1 times.
        dropout: rate of every hidden layer's output, from 0 to below 1.

    Raises:
        SpecError: a value is impossible, or one hidden layer, which has no block, is to have a shortcut or to share.

    Source: Nielsen 2015, "Neural Networks and Deep Learning", chapter 1, for the plain form of one hidden layer.

    Example:
        >>> from leadline.networks import mlp
        >>> from leadline.networks.modules import inspect_network
        >>> inspect_network(mlp(hidden=1, width=30), (1, 28, 28), classes=10).parameters
        23860
    """
    if hidden == 1 and (shortcut != "none" or shared):
        raise SpecError(
            "a network with one hidden layer has no block for a shortcut or for sharing; use hidden of at least 2"
        )
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
