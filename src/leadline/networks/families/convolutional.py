"""Plain convolutional networks."""

from typing import Literal

from leadline.networks.families.registry import register_family
from leadline.networks.families.shapes import Above0, Positive
from leadline.specs import Block, Head, NetworkSpec, Shortcut, Stage, Stem
from leadline.specs.network import Activation, Initialisation


@register_family("delta-orthogonal-cnn")
def delta_orthogonal_cnn(
    depth: Positive = 32, width: Positive = 64, activation: Activation = "tanh", gain: Above0 = 1.0
) -> NetworkSpec:
    """Plain convolutions at the edge of chaos, without normalisation or shortcuts: Xiao et al. 2018, section 4.

    Two strided stages come first, then `depth` layers of one size.

    Args:
        depth: layers of one size, at least 1.
        width: channels, at least 1.
        activation: after each convolution.
        gain: factor on the orthogonal weights, above 0; 1 without biases is critical for tanh.

    Raises:
        SpecError: a value is impossible.

    Source: Xiao et al. 2018, "Dynamical Isometry and a Mean Field Theory of CNNs: How to Train 10,000-Layer Vanilla
    Convolutional Neural Networks".

    Example:
        >>> from leadline.networks import delta_orthogonal_cnn
        >>> delta_orthogonal_cnn(depth=256).initialisation.name
        'delta-orthogonal'
    """
    return NetworkSpec(
        stem=Stem(width=width),
        stages=(Stage(blocks=1, width=width, stride=2), Stage(blocks=depth, width=width, stride=2)),
        block=Block(kind="single", shortcut=Shortcut(kind="none"), bias=True),
        normalisation="none",
        activation=activation,
        initialisation=Initialisation(name="delta-orthogonal", gain=gain),
    )


@register_family("mnist-cnn")
def mnist_cnn(activation: Literal["relu", "softplus"] = "relu") -> NetworkSpec:
    """Two convolutions of 20 filters 5x5 with stride 2, ReLU or softplus, and 2x2 max-pooling; linear.

    Args:
        activation: `relu` or `softplus`.

    Raises:
        SpecError: the activation is another.

    Source: "Recurrent Networks in Residual Networks", its network for MNIST.

    Example:
        >>> from leadline.networks import mnist_cnn
        >>> [stage.width for stage in mnist_cnn().stages]
        [20, 20]
    """
    stage = Stage(blocks=1, width=20, stride=2, pool=True)
    return NetworkSpec(
        stages=(stage, stage),
        block=Block(kind="single", kernel=5, shortcut=Shortcut(kind="none"), bias=True),
        head=Head(pool="none"),
        normalisation="none",
        activation=activation,
    )
