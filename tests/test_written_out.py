"""Pre-activation networks with normalisation after the addition and 2x2 pooling, beside their layers in plain torch.nn.

3x3 convolution to 16 maps; three stages of n blocks with 16, 32, 64 maps of 32x32, 16x16, 8x8 pixels, the second and
third with stride 2; in a block BN, ReLU, convolution, as often as it has convolutions, then the addition, then BN and
ReLU; average pooling of 2x2; linear. Nothing here is taken from Leadline but the network that is compared.
"""

import json
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.testing import assert_close
from typer.testing import CliRunner

from leadline.cli import app
from leadline.errors import SpecError
from leadline.networks import (
    cifar_plain,
    cifar_preresnet,
    cifar_resnet,
    densenet,
    family,
    highway,
    recurrent_resnet,
    wide_resnet,
)
from leadline.networks.drawing import draw
from leadline.networks.modules import build, inspect_network
from leadline.specs import Head, NetworkSpec

CIFAR = (3, 32, 32)
Kind = Literal["basic", "bottleneck"]
Option = Literal["none", "A", "B"]


class PlainBlock(nn.Module):
    """BN, ReLU, convolution, two or three times; plus the shortcut; BN, ReLU."""

    def __init__(self, maps_in: int, maps: int, stride: int, kind: Kind, option: Option) -> None:
        super().__init__()
        if kind == "basic":
            convs = [
                nn.Conv2d(maps_in, maps, 3, stride=stride, padding=1, bias=False),
                nn.Conv2d(maps, maps, 3, padding=1, bias=False),
            ]
        else:
            convs = [
                nn.Conv2d(maps_in, maps // 4, 1, bias=False),
                nn.Conv2d(maps // 4, maps // 4, 3, stride=stride, padding=1, bias=False),
                nn.Conv2d(maps // 4, maps, 1, bias=False),
            ]
        layers: list[nn.Module] = []
        for conv in convs:
            layers += [nn.BatchNorm2d(conv.in_channels), nn.ReLU(), conv]
        self.branch = nn.Sequential(*layers)
        self.option, self.stride, self.missing = option, stride, maps - maps_in
        changes = stride > 1 or maps != maps_in
        self.projection = nn.Conv2d(maps_in, maps, 1, stride=stride, bias=False) if option == "B" and changes else None
        self.after = nn.BatchNorm2d(maps)

    def forward(self, x: Tensor) -> Tensor:
        y = self.branch(x)
        if self.option != "none":
            if self.projection is not None:
                x = self.projection(x)
            else:
                x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.missing))
            y = x + y
        return F.relu(self.after(y))


def plain_network(n: int, kind: Kind, option: Option) -> nn.Sequential:
    """The whole network, as a list of layers."""
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1, bias=False)]
    maps_in = 16
    for stage in range(3):
        maps = 16 * 2**stage * (1 if kind == "basic" else 4)
        for block in range(n):
            layers.append(PlainBlock(maps_in, maps, 2 if stage and not block else 1, kind, option))
            maps_in = maps
    return nn.Sequential(*layers, nn.AvgPool2d(2), nn.Flatten(), nn.Linear(4 * 4 * maps_in, 10))


def document(n: int, kind: Kind, option: Option) -> NetworkSpec:
    return cifar_resnet(
        depth=(6 if kind == "basic" else 9) * n + 2,
        shortcut=option,
        order="preactivation-and-after",
        block=kind,
        head="average-2x2",
    )


@pytest.mark.parametrize("option", ["none", "A", "B"])
@pytest.mark.parametrize(("n", "kind"), [(1, "basic"), (3, "basic"), (2, "bottleneck")])
def test_forward_and_backward_are_those_of_the_written_out_network(n: int, kind: Kind, option: Option) -> None:
    ours, theirs = build(document(n, kind, option), CIFAR, 10).double(), plain_network(n, kind, option).double()
    generator = torch.Generator().manual_seed(n)
    pairs = list(zip(ours.parameters(), theirs.parameters(), strict=True))
    with torch.no_grad():
        for mine, other in pairs:
            assert mine.shape == other.shape
            scale = 1.4 / mine[0].numel() ** 0.5 if mine.ndim > 1 else 1
            mine.normal_(0, scale, generator=generator)
            other.copy_(mine)
    x = torch.randn(4, *CIFAR, generator=generator, dtype=torch.float64)
    for training in (True, False):  # the second with the running statistics that the first left
        results = [network.train(training)(x) for network in (ours, theirs)]
        assert_close(*results)
        assert results[0].std() > 0.01
    for network in (ours, theirs):
        network.train()(x).square().sum().backward()
    for mine, other in pairs:
        assert mine.grad is not None and other.grad is not None
        assert_close(mine.grad, other.grad)


GOLDEN = {
    ("basic", "none", 3): 279_866,
    ("basic", "A", 3): 279_866,
    ("basic", "B", 3): 282_426,
    ("basic", "A", 9): 864_506,
    ("basic", "A", 18): 1_741_466,
}


@pytest.mark.slow
@pytest.mark.parametrize(("key", "expected"), GOLDEN.items(), ids=str)
def test_parameters(key: tuple[Kind, Option, int], expected: int) -> None:
    kind, option, n = key
    written_out = sum(parameter.numel() for parameter in plain_network(n, kind, option).parameters())
    # convolutions; scales and shifts; linear layer; projections
    convs = 9 * (3 * 16 + 2 * n * 16**2 + 16 * 32 + (2 * n - 1) * 32**2 + 32 * 64 + (2 * n - 1) * 64**2)
    norms = 2 * 3 * n * (16 + 32 + 64) - 2 * (16 + 32)
    by_hand = convs + norms + 1024 * 10 + 10 + (16 * 32 + 32 * 64 if option == "B" else 0)
    found = inspect_network(document(n, kind, option), CIFAR, 10)
    assert found.parameters == written_out == by_hand == expected


@pytest.mark.slow
def test_multiply_adds_and_receptive_field() -> None:
    pooled, averaged = (inspect_network(document(3, "basic", "A").with_(head=head), CIFAR, 10) for head in HEADS)
    stage = 9 * 16 * 16 * 32 * 32  # of a convolution from 16 to 16 maps; as many in each stage, half where they grow
    assert pooled.multiply_adds == 9 * 3 * 16 * 32 * 32 + 16 * stage + 2 * stage // 2 + 4 * 4 * 64 * 10
    assert averaged.multiply_adds == pooled.multiply_adds - 15 * 64 * 10
    # 1 + 2 (stem) + 6 x 2 + (2 + 5 x 4) + (4 + 5 x 8), as 32x32 images are seen
    assert pooled.receptive_field == averaged.receptive_field == 1 + 2 + 12 + 2 + 20 + 4 + 40
    sizes = {layer.name: layer.output_shape for layer in pooled.layers}
    assert sizes["head.pool"] == (64, 4, 4)
    assert sizes["head.flatten"] == (1024,)
    assert pooled.training_memory > averaged.training_memory


HEADS = ("average-2x2", "global-average")


@pytest.mark.parametrize(("head", "features"), [("average-2x2", 1024), ("average-4x4", 256), ("none", 4096)])
@pytest.mark.parametrize("name", ["cifar-resnet", "cifar-plain", "cifar-preresnet", "wide-resnet", "highway"])
def test_every_cifar_family_takes_a_head(name: str, head: str, features: int) -> None:
    arguments: dict[str, Any] = {"wide-resnet": {"widen": 1, "depth": 10}, "cifar-preresnet": {"depth": 11}}.get(
        name, {}
    )
    maps = 256 if name == "cifar-preresnet" else 64
    layers = inspect_network(family(name, {**arguments, "head": head}), CIFAR, 10).layers
    assert layers[-1].parameters == features * maps // 64 * 10 + 10


def test_a_head_may_be_written_out_and_its_default_is_the_papers() -> None:
    assert cifar_resnet(head=Head(dropout=0.1)).head.dropout == 0.1
    assert family("cifar-resnet", {"head": {"pool": "average-4x4", "dropout": 0.5}}).head.pool == "average-4x4"
    assert cifar_resnet(20).with_(head="average-2x2") == cifar_resnet(20, head="average-2x2")
    for spec in (cifar_plain(), cifar_preresnet(), wide_resnet(), densenet(), highway(), recurrent_resnet()):
        assert spec.head == Head()
    # what a study of the plain default was stored under
    assert cifar_resnet().content_hash == "211eb0981d4994e740cf1b8b23763933f258a92085f1b05746339738e12667f7"


def test_heads_that_cannot_be() -> None:
    with pytest.raises(SpecError, match=r"^cifar-resnet: head: 'average-3x3': input should be 'global-average', 'aver"):
        family("cifar-resnet", {"head": "average-3x3"})
    with pytest.raises(SpecError, match="8x8 is too small for the network's strides, pooling and normalisation"):
        inspect_network(cifar_resnet(head="average-4x4"), (3, 8, 8), 10)


@pytest.mark.parametrize("kind", ["basic", "bottleneck"])
def test_pre_activation_by_either_name(kind: Kind) -> None:
    depth = 20 if kind == "basic" else 29
    arguments: dict[str, Any] = {"depth": depth, "block": kind, "shortcut": "B", "order": "preactivation-and-after"}
    assert family("cifar-preresnet", arguments) == family("cifar-resnet", arguments)
    assert cifar_preresnet(depth, kind, "A") == cifar_resnet(depth, "A", "full-preactivation", block=kind)


@pytest.mark.slow
def test_inspect_and_drawing_show_the_head() -> None:
    arguments = ["inspect", "cifar-resnet", "--set", "head=average-2x2", "--set", "order=preactivation-and-after"]
    shown = CliRunner().invoke(app, [*arguments, "--json"])
    assert json.loads(shown.stdout)["parameters"] == GOLDEN["basic", "A", 3]
    text = CliRunner().invoke(app, arguments).stdout
    assert "head.pool" in text and "64x4x4" in text and "1024" in text
    drawing = draw(document(3, "basic", "A"), CIFAR, 10, "document")
    assert "2×2 avg" in drawing and "global avg" not in drawing and "279,866 parameters" in drawing
    described = drawing.split("<desc>")[1].split("</desc>")[0]
    assert "Head: 2×2 avg, pool, /2 then flatten then linear, 10; gives 10" in " ".join(described.split())
