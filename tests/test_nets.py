"""Networks: golden counts, an independent forward pass, twins, shared initial values, counted costs."""

from collections.abc import Mapping

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from leadline.errors import SpecError
from leadline.networks import FAMILIES, cifar_plain, cifar_resnet, comparative_cnn, comparative_resnet, family
from leadline.networks.modules import build, inspect_network, skeleton
from leadline.specs import Block, NetworkSpec, Stage

MNIST, CIFAR = (1, 28, 28), (3, 32, 32)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "arguments", "shape", "parameters"),
    [
        # comparative study, 2019: definitions in its section on the networks, counts follow from them
        ("comparative-cnn", {}, MNIST, 576_330),
        ("comparative-cnn", {}, CIFAR, 731_082),
        ("comparative-resnet", {}, MNIST, 417_834),
        ("comparative-resnet", {}, CIFAR, 495_786),
        ("comparative-plain", {}, MNIST, 417_834),
        ("comparative-plain", {}, CIFAR, 495_786),
        # He et al. 2015, table 6, option A
        ("cifar-resnet", {"depth": 20}, CIFAR, 269_722),
        ("cifar-resnet", {"depth": 56}, CIFAR, 853_018),
        ("cifar-resnet", {"depth": 110}, CIFAR, 1_727_962),
        ("cifar-resnet", {"depth": 56, "shortcut": "B"}, CIFAR, 855_770),
        ("cifar-plain", {"depth": 20}, CIFAR, 269_722),
    ],
)
def test_golden_counts(name: str, arguments: dict[str, object], shape: tuple[int, int, int], parameters: int) -> None:
    spec = family(name, arguments)
    assert inspect_network(spec, shape, 10).parameters == parameters
    assert sum(parameter.numel() for parameter in build(spec, shape, 10).parameters()) == parameters


def comparative_cnn_forward(weights: Mapping[str, Tensor], x: Tensor, blocks: int) -> Tensor:
    for number in range(blocks):
        prefix = f"stages.{number}.0.branch.conv1"
        x = F.relu(F.conv2d(x, weights[f"{prefix}.weight"], weights[f"{prefix}.bias"], padding=1))
    return F.linear(x.flatten(1), weights["head.linear.weight"], weights["head.linear.bias"])


def comparative_resnet_forward(weights: Mapping[str, Tensor], x: Tensor, blocks: int, residual: bool) -> Tensor:
    for number in range(blocks):
        first, second = (f"stages.0.{number}.branch.conv{k}" for k in (1, 2))
        y = F.relu(F.conv2d(x, weights[f"{first}.weight"], weights[f"{first}.bias"], padding=1))
        y = F.conv2d(y, weights[f"{second}.weight"], weights[f"{second}.bias"], padding=1)
        if residual:
            padded = torch.zeros_like(y)
            padded[:, : x.shape[1]] = x
            y = y + padded
        x = F.relu(y)
    return F.linear(x.flatten(1), weights["head.linear.weight"], weights["head.linear.bias"])


@pytest.mark.parametrize("shape", [MNIST, CIFAR, (1, 8, 8), (3, 5, 7)])
@pytest.mark.parametrize("blocks", [1, 2, 5, 8])
def test_comparative_networks_against_functional_calls(shape: tuple[int, int, int], blocks: int) -> None:
    x = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    cnn = build(comparative_cnn(blocks), shape, 10, seed=1)
    torch.testing.assert_close(cnn(x), comparative_cnn_forward(cnn.state_dict(), x, blocks))
    for residual, shortcut in ((True, "A"), (False, "none")):
        net = build(comparative_resnet(blocks, shortcut), shape, 10, seed=1)
        torch.testing.assert_close(net(x), comparative_resnet_forward(net.state_dict(), x, blocks, residual))


def test_cifar_resnet_against_functional_calls() -> None:
    net = build(cifar_resnet(14), CIFAR, 10, seed=3).train()
    weights = net.state_dict()
    x = torch.randn(4, *CIFAR, generator=torch.Generator().manual_seed(0))

    def norm(x: Tensor, name: str) -> Tensor:
        x = (x - x.mean((0, 2, 3), keepdim=True)) / (x.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()
        return x * weights[f"{name}.weight"].view(1, -1, 1, 1) + weights[f"{name}.bias"].view(1, -1, 1, 1)

    y = F.relu(norm(F.conv2d(x, weights["stem.conv.weight"], padding=1), "stem.norm"))
    for stage in range(3):
        for number in range(2):
            stride = 2 if stage and not number else 1
            prefix = f"stages.{stage}.{number}.branch"
            z = F.relu(
                norm(F.conv2d(y, weights[f"{prefix}.conv1.weight"], stride=stride, padding=1), f"{prefix}.norm1")
            )
            z = norm(F.conv2d(z, weights[f"{prefix}.conv2.weight"], padding=1), f"{prefix}.norm2")
            kept = y[:, :, ::stride, ::stride]
            z[:, : kept.shape[1]] += kept
            y = F.relu(z)
    expected = F.linear(y.mean((2, 3)), weights["head.linear.weight"], weights["head.linear.bias"])
    torch.testing.assert_close(net(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("residual", "plain"), [(cifar_resnet(20), cifar_plain(20)), (comparative_resnet(7), comparative_resnet(7, "none"))]
)
def test_twins_have_the_same_parameters_and_initial_values(residual: NetworkSpec, plain: NetworkSpec) -> None:
    a, b = build(residual, CIFAR, 10, seed=5).state_dict(), build(plain, CIFAR, 10, seed=5).state_dict()
    assert list(a) == list(b)
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_parameters_shared_by_name_and_shape_start_equal() -> None:
    small, large = (dict(build(comparative_resnet(blocks), MNIST, 10, seed=2).named_parameters()) for blocks in (3, 9))
    shared = [name for name in small if name in large and small[name].shape == large[name].shape]
    assert len(shared) == len(small)
    assert all(torch.equal(small[name], large[name]) for name in shared)
    other = dict(build(comparative_resnet(3), MNIST, 10, seed=3).named_parameters())
    assert not any(torch.equal(small[name], other[name]) for name in small)


def test_parameters_of_one_network_are_not_copies_of_each_other() -> None:
    weights = dict(build(comparative_resnet(3), MNIST, 10).named_parameters())
    assert not torch.equal(weights["stages.0.1.branch.conv1.weight"], weights["stages.0.2.branch.conv1.weight"])


def test_old_uniform_and_he_normal_follow_their_formulas() -> None:
    weights = dict(build(comparative_resnet(3), MNIST, 10).named_parameters())
    for name, fan_in in (("stages.0.1.branch.conv1", 32 * 9), ("head.linear", 32 * 28 * 28)):
        for part in ("weight", "bias"):
            values = weights[f"{name}.{part}"]
            assert values.abs().max() <= fan_in**-0.5
            if part == "weight":
                assert values.std().item() == pytest.approx(fan_in**-0.5 / 3**0.5, rel=0.02)
    he = dict(build(comparative_resnet(3, initialisation="he-normal"), MNIST, 10).named_parameters())
    assert he["stages.0.1.branch.conv1.weight"].std().item() == pytest.approx((2 / 288) ** 0.5, rel=0.02)
    assert he["stages.0.1.branch.conv1.bias"].eq(0).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", list(FAMILIES))
def test_building_leaves_the_global_generator_alone_and_nothing_unset(name: str) -> None:
    state = torch.get_rng_state()
    net = build(family(name, {}), CIFAR, 10)
    assert torch.equal(state, torch.get_rng_state())
    with torch.no_grad():
        assert net.eval()(torch.ones(2, *CIFAR)).isfinite().all()
    for key, value in net.state_dict().items():
        if key.endswith(("norm.weight", "norm1.weight", "norm2.weight", "running_var")):
            assert value.eq(1).all()
        elif key.endswith(("running_mean", "num_batches_tracked", "norm1.bias")):
            assert value.eq(0).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", list(FAMILIES))
def test_counted_multiply_adds_are_those_of_the_calls(name: str) -> None:
    spec = family(name, {})
    info = inspect_network(spec, CIFAR, 10)
    net = build(spec, CIFAR, 10).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        net(torch.ones(1, *CIFAR))
    assert 2 * info.multiply_adds == counter.get_total_flops()
    assert info.parameters == sum(layer.parameters for layer in info.layers)
    assert info.layers[-1].output_shape == (10,)


def test_inspection_allocates_nothing() -> None:
    assert all(parameter.is_meta for parameter in skeleton(cifar_resnet(20), CIFAR, 10).parameters())


@pytest.mark.parametrize(
    ("spec", "shape", "message"),
    [
        (
            NetworkSpec(stages=(Stage(blocks=1, width=8), Stage(blocks=1, width=4))),
            CIFAR,
            "cannot go from 8 to 4 channels",
        ),
        (cifar_resnet(20), (0, 32, 32), "input 0x32x32 and 10 classes"),
    ],
)
def test_impossible_networks_say_why(spec: NetworkSpec, shape: tuple[int, int, int], message: str) -> None:
    with pytest.raises(SpecError, match=message):
        build(spec, shape, 10)


@pytest.mark.parametrize("depth", [-4, 2, 7, 57])
def test_impossible_depths_name_the_nearest(depth: int) -> None:
    with pytest.raises(SpecError, match=rf"depth {depth} is not 6n\+2; nearest: \d+"):
        cifar_resnet(depth)


def test_projection_shortcuts_where_asked() -> None:
    names_b = list(build(cifar_resnet(8, "B"), CIFAR, 10).state_dict())
    names_c = list(build(cifar_resnet(8, "C"), CIFAR, 10).state_dict())
    convs = [name for name in names_c if name.endswith("join.path.conv.weight")]
    assert convs == [f"stages.{stage}.0.join.path.conv.weight" for stage in range(3)]
    assert [name for name in names_b if name.endswith("join.path.conv.weight")] == convs[1:]


def test_bottleneck_runs() -> None:
    spec = NetworkSpec(stages=(Stage(blocks=2, width=32, stride=2),), block=Block(kind="bottleneck", shortcut="B"))
    info = inspect_network(spec, CIFAR, 10)
    # 1x1 3->8, 3x3 8->8, 1x1 8->32, projection 3->32, 32->8, 3x3, 8->32; norms two numbers a channel; linear
    convs = 24 + 576 + 256 + 96 + 256 + 576 + 256
    assert info.parameters == convs + 2 * (8 + 8 + 32 + 32 + 8 + 8 + 32) + 330
