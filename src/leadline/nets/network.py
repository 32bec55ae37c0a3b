"""From a specification to a network: stem, stages of blocks, head."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from leadline.errors import SpecError
from leadline.nets.blocks import activation, append, block, normalisation
from leadline.nets.init import initialise
from leadline.spec import NetworkSpec

InputShape = tuple[int, int, int]


class Network(nn.Module):
    """A convolutional network: `stem`, then `stages` of blocks, then `head`."""

    def __init__(self, stem: nn.Sequential, stages: nn.ModuleList, head: nn.Sequential) -> None:
        super().__init__()
        self.stem = stem
        self.stages = stages
        self.head = head

    def forward(self, images: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Return the logits of a batch of images."""
        x = self.stem(images)
        for stage in self.stages:
            x = stage(x)
        logits: Tensor = self.head(x)
        return logits


def build(spec: NetworkSpec, input_shape: InputShape, classes: int, seed: int = 0) -> Network:
    """Build a network and draw its parameters.

    Args:
        spec: what to build.
        input_shape: channels, height, width of an image.
        classes: number of logits.
        seed: of the parameters' streams.

    Raises:
        SpecError: the specification cannot take images of this shape.
    """
    network = skeleton(spec, input_shape, classes).to_empty(device="cpu")
    initialise(network, spec.initialisation, seed)
    return network


def skeleton(spec: NetworkSpec, input_shape: InputShape, classes: int) -> Network:
    """Build a network on the meta device: shapes without memory, and nothing drawn.

    Raises:
        SpecError: the specification cannot take images of this shape.
    """
    if min(input_shape) < 1 or classes < 1:
        raise SpecError(f"input {'x'.join(map(str, input_shape))} and {classes} classes: each must be at least 1")
    with torch.device("meta"):
        channels = input_shape[0]
        stem = nn.Sequential()
        if spec.stem is not None:
            stem.add_module(
                "conv",
                nn.Conv2d(
                    channels,
                    spec.stem.width,
                    spec.stem.kernel,
                    spec.stem.stride,
                    spec.stem.kernel // 2,
                    bias=spec.block.bias,
                ),
            )
            append(stem, "norm", normalisation(spec, spec.stem.width))
            stem.add_module("act", activation(spec))
            if spec.stem.pool:
                stem.add_module("pool", nn.MaxPool2d(3, 2, 1))
            channels = spec.stem.width
        stages = nn.ModuleList()
        for stage in spec.stages:
            blocks = nn.Sequential()
            for number in range(stage.blocks):
                stride = stage.stride if number == 0 else 1
                blocks.add_module(str(number), block(spec, stage, channels, stride))
                channels = stage.width
            stages.append(blocks)
        head = nn.Sequential()
        if spec.head.pool == "global-average":
            head.add_module("pool", nn.AdaptiveAvgPool2d(1))
        head.add_module("flatten", nn.Flatten())
        network = Network(stem, stages, head)
        features = channels if spec.head.pool == "global-average" else _features(network, input_shape)
        head.add_module("linear", nn.Linear(features, classes))
        return network


def _features(network: Network, input_shape: InputShape) -> int:
    """Return the length of what an unfinished head flattens."""
    with torch.no_grad():
        return int(network.eval()(torch.empty(1, *input_shape)).shape[1])
