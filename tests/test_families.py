"""Families: published counts, exactly; multiply-adds to the printed digits; impossible arguments in one line.

`python -m pytest tests/test_families.py -s -k table` prints every published number beside the counted one.
"""

import doctest
import functools
import importlib
import inspect
import pkgutil
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import nn

from leadline import networks
from leadline.errors import SpecError
from leadline.networks import (
    FAMILIES,
    cifar_resnet,
    densenet,
    families,
    family,
    imagenet_resnet,
    list_arguments,
    register_family,
    wide_resnet,
)
from leadline.networks.families import registry
from leadline.networks.modules import NetworkInfo, build, inspect_network, skeleton
from leadline.specs import NetworkSpec, Stage

MNIST, CIFAR, IMAGENET = (1, 28, 28), (3, 32, 32), (3, 224, 224)

HE_2015 = "He et al. 2015"
HE_2016 = "He et al. 2016"
WRN = "Zagoruyko & Komodakis 2016, table 5"
FIRST_1X1 = {"stride_in": "first-1x1"}


@dataclass(frozen=True)
class Golden:
    """A network and what is known of it: a count that follows from its definition, or one as a paper prints it."""

    name: str
    source: str
    shape: tuple[int, int, int]
    arguments: dict[str, Any] = field(default_factory=dict)
    exact: int | None = None
    printed: str | None = None

    @property
    def classes(self) -> int:
        return 1000 if self.shape == IMAGENET else 10

    def __str__(self) -> str:
        return " ".join([self.name, *(f"{key}={value}" for key, value in self.arguments.items())])


GOLDEN = [
    *(
        Golden("cifar-resnet", f"{HE_2015}, table 6, option A", CIFAR, {"depth": depth}, exact, printed)
        for depth, exact, printed in [
            (20, 269_722, "0.27M"),
            (32, 464_154, "0.46M"),
            (44, 658_586, "0.66M"),
            (56, 853_018, "0.85M"),
            (110, 1_727_962, "1.7M"),
            (1202, 19_421_274, "19.4M"),
        ]
    ),
    Golden("cifar-resnet", f"{HE_2015}, option B", CIFAR, {"depth": 56, "shortcut": "B"}, 855_770),
    *(
        Golden("cifar-plain", f"{HE_2015}, section 4.2", CIFAR, {"depth": d}, n)
        for d, n in [(20, 269_722), (56, 853_018)]
    ),
    *(
        Golden("imagenet-resnet", f"{HE_2015}, table 1, option B", IMAGENET, {"depth": depth}, exact)
        for depth, exact in [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032), (101, 44_549_160), (152, 60_192_808)]
    ),
    *(
        Golden(name, f"{HE_2015}, table 1, {of}", IMAGENET, {"depth": depth, **more}, exact)
        for name, of, more in [("imagenet-plain", "plain", {}), ("imagenet-resnet", "option A", {"shortcut": "A"})]
        for depth, exact in [(18, 11_515_688), (34, 21_623_848)]
    ),
    # 784 x 30 + 30 + 30 x 10 + 10: the first network of Nielsen 2015, "Neural Networks and Deep Learning", chapter 1
    Golden("mlp", "Nielsen 2015, chapter 1", MNIST, {"hidden": 1, "width": 30}, 23_860),
    # 784-512-512-10, a common first example
    Golden("mlp", "two hidden layers of 512", MNIST, {"hidden": 2, "width": 512}, 669_706),
    Golden("imagenet-resnet", f"{HE_2015}, option C", IMAGENET, {"depth": 34, "shortcut": "C"}, 22_716_840),
    Golden("imagenet-resnet", f"{HE_2015}, option B", IMAGENET, {"depth": 50, **FIRST_1X1}, 25_557_032),
    # the paper's tables 2 and 4 give 1.7M and 10.2M; what 10.2M counts is settled below
    Golden("cifar-preresnet", f"{HE_2016}, table 4", CIFAR, {"depth": 164}, 1_703_258, "1.7M"),
    Golden("cifar-preresnet", f"{HE_2016}, table 4", CIFAR, {"depth": 1001}, 10_327_706),
    Golden("imagenet-preresnet", "ResNet-200 of He et al. 2016, table 5", IMAGENET, {"depth": 200}, None, "64.7M"),
    Golden("wide-resnet", WRN, CIFAR, {"depth": 28, "widen": 10}, None, "36.5M"),
    Golden("wide-resnet", WRN, CIFAR, {"depth": 40, "widen": 4}, None, "8.9M"),
    Golden(
        "resnext", "Xie et al. 2017, table 1", IMAGENET, {"depth": 50, "groups": 32, "group_width": 4}, None, "25.0M"
    ),
    Golden("densenet", "Huang et al. 2017, table 2", CIFAR, {"depth": 100, "growth": 12}, None, "0.8M"),
    *(
        Golden(name, "Comparative study 2019", shape, {}, exact)
        for name, shape, exact in [
            ("comparative-cnn", MNIST, 576_330),
            ("comparative-cnn", CIFAR, 731_082),
            ("comparative-resnet", MNIST, 417_834),
            ("comparative-resnet", CIFAR, 495_786),
            ("comparative-plain", MNIST, 417_834),
            ("comparative-plain", CIFAR, 495_786),
        ]
    ),
]


@functools.cache
def _info(spec: NetworkSpec, shape: tuple[int, int, int], classes: int) -> NetworkInfo:
    return inspect_network(spec, shape, classes)


@functools.cache
def counts(spec: NetworkSpec, shape: tuple[int, int, int]) -> tuple[int, int]:
    """All parameters, and those of convolutions and linear layers alone."""
    network = skeleton(spec, shape, 1000 if shape == IMAGENET else 10)
    weighted = [module for module in network.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    return tuple(
        sum(parameter.numel() for parameter in parameters)
        for parameters in (network.parameters(), (p for module in weighted for p in module.parameters()))
    )


def count(golden: Golden) -> int:
    return counts(family(golden.name, golden.arguments), golden.shape)[0]


def millions(count: int, like: str) -> str:
    """A count with as many digits after the point as the printed one has."""
    digits = len(like.removesuffix("M").partition(".")[2])
    return f"{count / 1e6:.{digits}f}M"


@pytest.mark.slow
@pytest.mark.parametrize("golden", GOLDEN, ids=str)
def test_golden_parameters(golden: Golden) -> None:
    found = count(golden)
    assert golden.exact is not None or golden.printed is not None
    if golden.exact is not None:
        assert found == golden.exact
    if golden.printed is not None:
        assert millions(found, golden.printed) == golden.printed


@pytest.mark.slow
def test_the_1001_layers_of_10_2_million() -> None:
    """He et al. 2016 print 10.2M for 1001 layers, which is the convolutions and the linear layer alone.

    With the scales and shifts of batch normalisation there are 10,327,706, which would print as 10.3M; so would option
    A's 10,285,722. For 164 layers both ways of counting print as the paper's 1.7M.
    """
    deep, less_deep, identity = (
        counts(family("cifar-preresnet", arguments), CIFAR)
        for arguments in ({"depth": 1001}, {"depth": 164}, {"depth": 1001, "shortcut": "A"})
    )
    assert deep == (10_327_706, 10_178_490)
    assert [millions(number, "10.2M") for number in deep] == ["10.3M", "10.2M"]
    assert identity[0] == 10_285_722
    assert millions(identity[0], "10.2M") == "10.3M"
    assert less_deep == (1_703_258, 1_679_034)
    assert [millions(number, "1.7M") for number in less_deep] == ["1.7M", "1.7M"]


# He et al. 2015, table 1: 1.8, 3.6, 3.8, 7.6 and 11.3 billion multiply-adds, read off with one digit. The bottlenecks
# of the paper subsample in the first 1x1; in the 3x3, as the later form has it, ResNet-50 has 4.089.
MULTIPLY_ADDS = [
    ("imagenet-resnet", {"depth": 18, "shortcut": "A"}, 1.795, "1.8"),
    ("imagenet-resnet", {"depth": 18}, 1.814, "1.8"),
    # table 1's figure for 34 layers is that of the plain network and of option A; with option B it would print as 3.7
    ("imagenet-plain", {"depth": 34}, 3.644, "3.6"),
    ("imagenet-resnet", {"depth": 34, "shortcut": "A"}, 3.644, "3.6"),
    ("imagenet-resnet", {"depth": 34}, 3.664, "3.7"),
    # the paper prints 3.8: cut off, where all its others are rounded
    ("imagenet-resnet", {"depth": 50, **FIRST_1X1}, 3.858, "3.9"),
    ("imagenet-resnet", {"depth": 50}, 4.089, "4.1"),
    ("imagenet-resnet", {"depth": 101, **FIRST_1X1}, 7.570, "7.6"),
    ("imagenet-resnet", {"depth": 152, **FIRST_1X1}, 11.282, "11.3"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "arguments", "billions", "rounded"), MULTIPLY_ADDS, ids=str)
def test_multiply_adds(name: str, arguments: dict[str, Any], billions: float, rounded: str) -> None:
    count = _info(family(name, arguments), IMAGENET, 1000).multiply_adds
    assert round(count / 1e9, 3) == billions
    assert f"{count / 1e9:.1f}" == rounded


def test_the_printed_multiply_adds_of_50_layers_are_cut_off() -> None:
    count = _info(family("imagenet-resnet", {"depth": 50, **FIRST_1X1}), IMAGENET, 1000).multiply_adds
    assert count // 10**8 / 10 == 3.8


@pytest.mark.slow
def test_stride_in_and_shortcut_a_change_no_parameter() -> None:
    first, middle = (
        _info(family("imagenet-resnet", {"depth": 50, "stride_in": where}), IMAGENET, 1000)
        for where in ("first-1x1", "3x3")
    )
    assert first.parameters == middle.parameters
    assert first.multiply_adds < middle.multiply_adds
    plain, twin = (_info(family(name, {"depth": 20}), CIFAR, 10) for name in ("cifar-plain", "cifar-resnet"))
    assert (plain.parameters, plain.multiply_adds) == (twin.parameters, twin.multiply_adds)


def test_widths_and_sizes_are_those_of_the_tables() -> None:
    sizes = {layer.name: layer.output_shape for layer in _info(family("imagenet-resnet", {}), IMAGENET, 1000).layers}
    assert sizes["stem.conv"] == (64, 112, 112)
    assert sizes["stem.pool"] == (64, 56, 56)
    assert [sizes[f"stages.{s}.0.branch.conv3"] for s in range(4)] == [
        (256, 56, 56),
        (512, 28, 28),
        (1024, 14, 14),
        (2048, 7, 7),
    ]
    # DenseNet-BC with 3 blocks of 12 channels a stage, each transition to half
    sizes = {layer.name: layer.output_shape for layer in _info(densenet(22), CIFAR, 10).layers}
    assert [sizes[f"stages.{s}.transition.pool"] for s in range(2)] == [(30, 16, 16), (33, 8, 8)]
    assert sizes["head.norm"] == (69, 8, 8)


@pytest.mark.slow
def test_table() -> None:
    rows = [("network", "counted", "published", "source")]
    for golden in GOLDEN:
        published = " = ".join(filter(None, [golden.printed, f"{golden.exact:,}" if golden.exact else None]))
        rows.append((str(golden), f"{count(golden):,}", published, golden.source))
    weights = counts(family("cifar-preresnet", {"depth": 1001}), CIFAR)[1]
    rows.append(("  without normalisation", f"{weights:,}", "10.2M", f"{HE_2016}, table 4, as printed"))
    printed = {18: "1.8", 34: "3.6", 50: "3.8", 101: "7.6", 152: "11.3"}
    for name, arguments, _, _ in MULTIPLY_ADDS:
        operations = _info(family(name, arguments), IMAGENET, 1000).multiply_adds
        shown = " ".join([name, *(f"{key}={value}" for key, value in arguments.items())])
        rows.append((shown, f"{operations / 1e9:.3f}G", f"{printed[arguments['depth']]}G", f"{HE_2015}, table 1"))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    print()
    for name, counted, published, source in rows:
        print(f"{name:<{widths[0]}}  {counted:>{widths[1]}}  {published:>{widths[2]}}  {source}")
    assert len(rows) == len(GOLDEN) + len(MULTIPLY_ADDS) + 2
    assert "10,178,490" in rows[len(GOLDEN) + 1]


@pytest.mark.parametrize("name", list(FAMILIES))
def test_defaults_build(name: str) -> None:
    spec = family(name, {})
    assert spec == FAMILIES[name]()
    assert counts(spec, CIFAR)[0] > 0


# 6n+2, 6n+4, 9n+2, 3n+2
IMPOSSIBLE_DEPTHS = [
    *(
        (name, {}, depth, form, nearest)
        for name in ("cifar-resnet", "cifar-plain")
        for form in ["6n+2"]
        for depth, nearest in [(57, "56, 62"), (9, "8, 14"), (7, "8"), (0, "8"), (-4, "8"), (1000, "998, 1004")]
    ),
    *(("cifar-preresnet", {}, depth, "9n+2", nearest) for depth, nearest in [(163, "155, 164"), (10, "11"), (2, "11")]),
    ("cifar-preresnet", {"block": "basic"}, 164, "6n+2", None),
    ("cifar-preresnet", {"block": "basic"}, 109, "6n+2", "104, 110"),
    *(
        (name, {}, depth, "6n+4", nearest)
        for name in ("wide-resnet", "densenet")
        for depth, nearest in [(27, "22, 28"), (9, "10"), (4, "10"), (101, "100, 106")]
    ),
    *(("highway", {}, depth, "3n+2", nearest) for depth, nearest in [(19, "17, 20"), (2, "5"), (4, "5")]),
]


@pytest.mark.parametrize(("name", "more", "depth", "form", "nearest"), IMPOSSIBLE_DEPTHS, ids=str)
def test_impossible_depths_name_the_nearest(
    name: str, more: dict[str, Any], depth: int, form: str, nearest: str | None
) -> None:
    if nearest is None:
        assert family(name, {**more, "depth": depth}).block.kind == "basic"
        return
    with pytest.raises(SpecError) as caught:
        family(name, {**more, "depth": depth})
    assert str(caught.value) == f"{name}: depth {depth} is not {form}; nearest: {nearest}"


@pytest.mark.parametrize(
    ("name", "depth", "known"),
    [
        ("imagenet-resnet", 35, "18, 34, 50, 101 or 152"),
        ("imagenet-plain", 200, "18, 34, 50, 101 or 152"),
        ("imagenet-preresnet", 50, "101, 152 or 200"),
        ("resnext", 34, "50, 101 or 152"),
    ],
)
def test_impossible_imagenet_depths_name_the_possible_ones(name: str, depth: int, known: str) -> None:
    with pytest.raises(SpecError) as caught:
        family(name, {"depth": depth})
    assert str(caught.value) == f"{name}: depth: {depth}: input should be {known}"


def test_functions_called_directly_say_the_same() -> None:
    for call, match in (
        (lambda: cifar_resnet(57), r"^cifar-resnet: depth 57 is not 6n\+2; nearest: 56, 62$"),
        (lambda: wide_resnet(27), r"^wide-resnet: depth 27 is not 6n\+4; nearest: 22, 28$"),
        (lambda: densenet(depth=101), r"^densenet: depth 101 is not 6n\+4; nearest: 100, 106$"),
        (lambda: imagenet_resnet(35), "^imagenet-resnet: depth: 35: input should be 18, 34, 50, 101 or 152$"),  # type: ignore[arg-type]
        (lambda: cifar_resnet(shortcut="concatenate"), "^cifar-resnet: block.shortcut concatenate needs"),
        (lambda: cifar_resnet(dept=20), "^cifar-resnet: unknown argument 'dept'; did you mean 'depth'"),  # type: ignore[call-arg]
        (lambda: wide_resnet(28, 10, 0.0, "none", 1), "^wide-resnet: too many positional arguments$"),  # type: ignore[call-arg]
    ):
        with pytest.raises(SpecError, match=match):
            call()


@pytest.mark.parametrize("name", list(FAMILIES))
def test_unknown_arguments_are_named(name: str) -> None:
    with pytest.raises(SpecError) as caught:
        family(name, {"wdith_of_it": 3})
    assert str(caught.value).startswith(f"{name}: unknown argument 'wdith_of_it'; ")
    assert "\n" not in str(caught.value)


WRONG = [
    *((name, key, value) for name, key in [("cifar-resnet", "depth"), ("wide-resnet", "widen"), ("recnet", "steps")]
      for value in ("20", 20.5, True, None, [20])),
    ("wide-resnet", "widen", 0),
    ("wide-resnet", "dropout", 1.0),
    ("wide-resnet", "dropout", -0.1),
    ("wide-resnet", "dropout", float("nan")),
    ("cifar-resnet", "shortcut", "D"),
    ("cifar-resnet", "order", "orignal"),
    ("cifar-resnet", "initialisation", "he"),
    ("cifar-preresnet", "block", "dense"),
    ("highway", "gate_bias", float("inf")),
    ("highway", "gate_bias", "-3"),
    ("densenet", "compression", 0),
    ("densenet", "compression", 1.5),
    ("delta-orthogonal-cnn", "gain", 0),
    ("delta-orthogonal-cnn", "activation", "swish"),
    ("recurrent-resnet", "states", 2),
    ("recurrent-resnet", "shared", 1),
    ("recurrent-resnet", "normalisation", "batch"),
    ("mnist-cnn", "activation", "tanh"),
    ("resnext", "groups", -1),
]  # fmt: skip


@pytest.mark.parametrize(("name", "key", "value"), WRONG, ids=str)
def test_impossible_values_are_named_in_one_line(name: str, key: str, value: object) -> None:
    with pytest.raises(SpecError) as caught:
        family(name, {key: value})
    message = str(caught.value)
    shown = "no value" if value is None else repr(value)
    assert message.startswith(f"{name}: {key}: {shown}: input should be ")
    assert "\n" not in message


def test_impossible_combinations_say_why() -> None:
    with pytest.raises(
        SpecError, match=r"^cifar-resnet: block.shortcut concatenate needs .*full-preactivation"
    ) as caught:
        family("cifar-resnet", {"shortcut": "concatenate"})
    assert "\n" not in str(caught.value)
    with pytest.raises(SpecError, match=r"^unknown network 'cifar-resnt'; did you mean 'cifar-resnet'\?$"):
        family("cifar-resnt", {})


@pytest.mark.slow
@pytest.mark.parametrize(("states", "steps"), [(1, 1), (1, 8), (3, 1), (3, 5)])
def test_recurrent_resnet_has_one_blocks_weights_in_each_state(states: int, steps: int) -> None:
    arguments = {"states": states, "steps": steps, "width": 4, "normalisation": "shared"}
    shared, apart = (
        inspect_network(family("recurrent-resnet", {**arguments, "shared": on}), CIFAR, 10) for on in (True, False)
    )
    widths = [4, 8, 16][:states]
    blocks = sum(2 * 9 * width * width + 4 * width for width in widths)
    grow = sum(9 * width * (width // 2) + 9 * width * width + 4 * width for width in widths[1:])
    assert shared.parameters == 9 * 3 * 4 + 8 + blocks + grow + 10 * widths[-1] + 10
    assert apart.parameters == shared.parameters + (steps - 1) * blocks
    assert apart.multiply_adds == shared.multiply_adds


@pytest.mark.parametrize("shared", [True, False])
def test_recurrent_resnet_without_shortcuts_is_its_twin(shared: bool) -> None:
    residual, plain = (
        family("recurrent-resnet", {"steps": 3, "width": 4, "shared": shared, **given})
        for given in ({}, {"shortcut": "none"})
    )
    assert plain.with_(block={"shortcut": "A"}) == residual
    states = [build(spec, CIFAR, 10, seed=3).state_dict() for spec in (residual, plain)]
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


@pytest.mark.slow
def test_recnet_and_its_shallow_counterpart() -> None:
    deep, shallow = (family("recnet", {"recurrent": on}) for on in (True, False))
    assert deep.with_(head={"pool": "none"}) == shallow
    features = 16 * 16 * 16
    counts = [inspect_network(spec, CIFAR, 10).parameters for spec in (deep, shallow)]
    assert counts[0] - counts[1] == (features + 1) * 128 + 129 * 128 + 129 * 10 - (features + 1) * 10
    once, seven = (inspect_network(family("recnet", {"steps": n}), CIFAR, 10) for n in (1, 7))
    assert once.parameters == seven.parameters
    assert seven.multiply_adds - once.multiply_adds == 6 * 128 * 128


def test_mnist_cnn_by_hand() -> None:
    # 28 -> 14 -> 7 -> 4 -> 2 pixels
    found = inspect_network(family("mnist-cnn", {}), MNIST, 10)
    assert found.parameters == (25 + 1) * 20 + (25 * 20 + 1) * 20 + (20 * 2 * 2 + 1) * 10
    assert found.multiply_adds == 25 * 20 * 14 * 14 + 25 * 20 * 20 * 4 * 4 + 20 * 2 * 2 * 10


# --- arguments, and families of one's own


@pytest.mark.parametrize("name", list(FAMILIES))
def test_arguments_are_those_of_the_signature_and_explained(name: str) -> None:
    function = FAMILIES[name]
    listed = list_arguments(name)
    parameters = inspect.signature(function).parameters
    assert {each.name: each.default for each in listed} == {key: each.default for key, each in parameters.items()}
    explained = inspect.getdoc(function) or ""
    for part in ("\nArgs:\n", "\nRaises:\n", "\nSource: ", "\nExample:\n"):
        assert part in explained
    for each in listed:
        assert f"\n    {each.name}: " in explained
        assert each.type and "$" not in each.type
    assert getattr(networks, function.__name__) is function


def test_arguments_in_words() -> None:
    words = {
        each.name: each.type
        for name in ("imagenet-resnet", "cifar-resnet", "densenet")
        for each in list_arguments(name)
    }
    assert words["stride_in"] == "'3x3' | 'first-1x1'"
    assert words["head"] == "'global-average' | 'average-2x2' | 'average-4x4' | 'none' | mapping"
    assert words["growth"] == "integer, at least 1"
    assert words["compression"] == "number, above 0, at most 1"
    with pytest.raises(SpecError, match=r"^unknown network 'mpl'; did you mean 'mlp'\?$"):
        list_arguments("mpl")


@pytest.fixture
def own_families(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget at the end what was registered during the test."""
    monkeypatch.setattr(registry, "_registered", registered := dict(registry._registered))
    monkeypatch.setattr(registry, "FAMILIES", registered)


@pytest.mark.usefixtures("own_families")
def test_a_family_of_ones_own() -> None:
    @register_family("thin")
    def thin(width: int, blocks: int = 2) -> NetworkSpec:
        """Thin."""
        return NetworkSpec(stages=(Stage(blocks=blocks, width=width),))

    assert family("thin", {"width": 4}) == thin(4) == thin(width=4)
    assert [(each.name, each.type) for each in list_arguments("thin")] == [("width", "integer"), ("blocks", "integer")]
    with pytest.raises(SpecError, match=r"^thin: missing a required argument: 'width'$"):
        family("thin", {})
    with pytest.raises(SpecError, match=r"^thin: width: '4': input should be a valid integer$"):
        family("thin", {"width": "4"})
    with pytest.raises(
        SpecError, match=r"^network 'thin' is already registered by .*test_families; choose another name$"
    ):
        register_family("thin")(thin_too)
    assert register_family("thick")(thin_too)() == register_family("thick")(thin_too)()


def thin_too() -> NetworkSpec:
    return NetworkSpec(stages=(Stage(blocks=1, width=2),))


MODULES = [name for _, name, _ in pkgutil.iter_modules(families.__path__) if name != "shapes"]


@pytest.mark.slow
@pytest.mark.usefixtures("own_families")
@pytest.mark.parametrize("name", MODULES)
def test_examples_give_what_they_show(name: str) -> None:
    tried = doctest.testmod(importlib.import_module(f"leadline.networks.families.{name}"))
    assert tried.attempted > 0 and tried.failed == 0
