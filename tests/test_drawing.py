"""Drawings: everything that runs is drawn, what repeats is folded and counted, nothing overlaps, files are whole."""

import re
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from leadline.errors import LeadlineError, SpecError
from leadline.networks import FAMILIES, family
from leadline.networks.drawing import draw
from leadline.networks.modules import NetworkInfo, skeleton
from leadline.reports.charts.files import write_drawing
from leadline.specs import Block, Head, NetworkSpec, Sharing, Shortcut, Stage, Stem
from leadline.specs.network import Initialisation, RecurrentHead

MNIST, CIFAR, LARGE = (1, 28, 28), (3, 32, 32), (3, 256, 256)
SVG = "{http://www.w3.org/2000/svg}"
TWO_STAGES = (Stage(blocks=3, width=16), Stage(blocks=4, width=32, stride=2))


NO_COSTS = NetworkInfo(0, 0, (10,), None, 0, 0, ())
"""Stands in for what a network costs where that is not looked at: counting it takes longer than drawing."""


def drawn(name: str, shape: tuple[int, int, int] = CIFAR, **arguments: object) -> ET.Element:
    return ET.fromstring(draw(family(name, arguments), shape, 10, name, NO_COSTS))


def of_spec(spec: NetworkSpec, shape: tuple[int, int, int] = CIFAR) -> ET.Element:
    return ET.fromstring(draw(spec, shape, 10, "a network", NO_COSTS))


def placed(
    element: ET.Element, x: float = 0, y: float = 0, blocks: int = 1
) -> Iterator[tuple[ET.Element, float, float, int]]:
    """Every element with where its origin is and how many of the network's blocks it is drawn for."""
    move = re.match(r"translate\((\S+) (\S+)\)", element.get("transform", ""))
    if move:
        x, y = x + float(move[1]), y + float(move[2])
    blocks = int(element.get("data-blocks", blocks))
    yield element, x, y, blocks
    for child in element:
        yield from placed(child, x, y, blocks)


def having(root: ET.Element, class_: str) -> list[ET.Element]:
    return [element for element in root.iter() if element.get("class") == class_]


def texts(root: ET.Element) -> list[str]:
    return [element.text or "" for element in root.iter(f"{SVG}text")]


def blocks_drawn(root: ET.Element) -> list[int]:
    return [int(element.get("data-blocks", 0)) for element in root.iter() if "data-blocks" in element.attrib]


def total_blocks(spec: NetworkSpec) -> int:
    return sum(stage.blocks for stage in spec.stages)


def layers_by_kind(root: ET.Element) -> Counter[str]:
    """How often each kind of layer stands in the network, as the drawing tells it."""
    counts: Counter[str] = Counter()
    for element, _, _, blocks in placed(root):
        if element.get("class") == "layer":
            counts[_kind(element.findtext(f"{SVG}title", ""))] += blocks
    return counts


def _kind(name: str) -> str:
    if re.match(r"\d+×\d+ (WS )?conv, \d", name):
        return "convolution"
    if name in ("BN", "LN", "IN", "GN"):
        return "normalisation"
    return "factor" if re.match(r"× \d", name) else name.partition(",")[0]


def layers_that_run(spec: NetworkSpec, shape: tuple[int, int, int]) -> Counter[str]:
    """How often each kind of layer stands in the network; one that is used at many places counts at each."""
    names = {
        "Conv2d": "convolution",
        "StandardisedConv2d": "convolution",
        "BatchNorm2d": "normalisation",
        "GroupNorm": "normalisation",
        "ReLU": "ReLU",
        "LeakyReLU": "leaky ReLU",
        "Tanh": "tanh",
        "Flatten": "flatten",
        "Dropout": "dropout",
        "StochasticDepth": "drop path",
        "Multiply": "factor",
        "Scale": "× α",
        "Shift": "+ β",
    }
    places = skeleton(spec, shape, 10).named_modules(remove_duplicate=False)
    kinds = (names.get(type(module).__name__) for _, module in places)
    return Counter(kind for kind in kinds if kind)


def without_others(said: Counter[str]) -> Counter[str]:
    others = ("linear", "σ", "global avg")
    return Counter({kind: n for kind, n in said.items() if kind not in others and not re.match(r"\d+×\d+ ", kind)})


def check(root: ET.Element, spec: NetworkSpec, shape: tuple[int, int, int]) -> None:
    """What holds for every drawing that leaves nothing out."""
    assert sum(blocks_drawn(root)) == total_blocks(spec)
    assert without_others(layers_by_kind(root)) == layers_that_run(spec, shape)
    arcs = len(having(root, "shortcut"))
    assert arcs == (0 if spec.block.shortcut.kind == "none" else len(having(root, "block")))
    assert len(having(root, "fold")) == (0 if spec.sharing else sum(count > 1 for count in blocks_drawn(root)))
    check_layout(root)


def check_layout(root: ET.Element) -> None:
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    boxes = []
    for element, x, y, _ in placed(root):
        if element.tag == f"{SVG}rect":
            left, top = x + float(element.get("x", 0)), y + float(element.get("y", 0))
            right, bottom = left + float(element.get("width", 0)), top + float(element.get("height", 0))
            assert left >= 0 and top >= 0 and right <= width and bottom <= height
        if element.get("class") in ("layer", "cell"):
            rect = element.find(f"{SVG}rect")
            assert rect is not None
            left, top = x + float(rect.get("x", 0)), y + float(rect.get("y", 0))
            boxes.append((left, top, left + float(rect.get("width", 0)), top + float(rect.get("height", 0))))
    for i, (left, top, right, bottom) in enumerate(boxes):
        for other in boxes[:i]:
            assert right <= other[0] or other[2] <= left or bottom <= other[1] or other[3] <= top


# --- what is drawn


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shape"),
    [(name, MNIST if name in ("comparative-resnet", "mnist-cnn") else CIFAR) for name in FAMILIES],
)
def test_every_family_is_drawn_as_it_runs(name: str, shape: tuple[int, int, int]) -> None:
    if name in ("cifar-preresnet", "densenet"):
        spec = family(name, {"depth": 20 if name == "cifar-preresnet" else 22})
    else:
        spec = family(name, {})
    check(of_spec(spec, shape), spec, shape)


def test_comparative_resnet_in_words() -> None:
    root = ET.fromstring(draw(family("comparative-resnet", {}), MNIST, 10, "comparative-resnet"))
    words = texts(root)
    for word in ("Stage 1", "5 blocks", "3×3 conv", "64", "32", "ReLU", "flatten", "linear", "1×28×28", "32×28×28"):
        assert word in words
    assert "417,834 parameters; 130.8 million multiply-adds for one image of 1×28×28; 10 classes." in words
    arcs = having(root, "shortcut")
    assert [arc.get("stroke-dasharray") is not None for arc in arcs] == [True, False]
    assert [word for word in words if word.startswith("identity")] == ["identity, +31 zero channels", "identity"]
    assert blocks_drawn(root) == [1, 4] and "× 4" in words and "blocks 2–5" in words
    assert not having(root, "loop")


def test_plain_networks_have_no_arcs_and_the_same_layers() -> None:
    plain, residual = drawn("comparative-plain", MNIST), drawn("comparative-resnet", MNIST)
    assert not having(plain, "shortcut") and not having(plain, "node")
    assert layers_by_kind(plain) == layers_by_kind(residual)


def test_sizes_of_maps_stand_between_stages() -> None:
    words = texts(drawn("cifar-resnet", depth=20))
    assert [word for word in words if re.fullmatch(r"\d+×\d+×\d+", word)] == [
        "3×32×32",
        "16×32×32",
        "16×32×32",
        "32×16×16",
        "64×8×8",
    ]


def test_activation_stands_where_the_order_puts_it() -> None:
    def titles(order: str) -> list[str]:
        root = of_spec(NetworkSpec(stages=(Stage(blocks=1, width=3),), block=Block(order=order)))
        block = having(root, "block")[0]
        return [
            element.findtext(f"{SVG}title", "").replace("3×3 conv, 3", "conv")
            for element in sorted(
                (element for element in block.iter() if element.get("class") in ("layer", "node")),
                key=lambda element: float(element[1].get("x") or element[1].get("cx") or 0),
            )
        ]

    assert titles("original") == ["conv", "BN", "ReLU", "conv", "BN", "add", "ReLU"]
    assert titles("bn-after-addition") == ["conv", "BN", "ReLU", "conv", "add", "BN", "ReLU"]
    assert titles("relu-before-addition") == ["conv", "BN", "ReLU", "conv", "BN", "ReLU", "add"]
    assert titles("relu-only-preactivation") == ["ReLU", "conv", "BN", "ReLU", "conv", "BN", "add"]
    assert titles("full-preactivation") == ["BN", "ReLU", "conv", "BN", "ReLU", "conv", "add"]
    assert titles("preactivation-and-after") == ["BN", "ReLU", "conv", "BN", "ReLU", "conv", "add", "BN", "ReLU"]


@pytest.mark.parametrize(
    ("kind", "layers", "nodes"),
    [
        ("A", [], ["add"]),
        ("C", ["1×1 conv, 16", "BN"], ["add"]),
        ("scaled", ["× 0.5", "× 0.25"], ["add"]),
        ("dropout", ["dropout, 0.5"], ["add"]),
        ("shortcut-only-gating", ["1×1 conv, 16", "σ"], ["add", "multiply"]),
        ("exclusive-gating", ["1×1 conv, 16", "σ"], ["add", "multiply", "multiply"]),
    ],
)
def test_shortcuts(kind: str, layers: list[str], nodes: list[str]) -> None:
    shortcut = Shortcut(kind=kind, shortcut_factor=0.5, branch_factor=0.25)
    block = Block(kind="single", shortcut=shortcut)
    root = of_spec(NetworkSpec(stem=Stem(width=16), stages=(Stage(blocks=1, width=16),), block=block))
    drawn_block = having(root, "block")[0]
    found = [element.findtext(f"{SVG}title", "") for element in having(drawn_block, "layer")]
    assert sorted(found) == sorted([*layers, "3×3 conv, 16", "BN", "ReLU"])
    assert sorted(element.findtext(f"{SVG}title", "") for element in having(drawn_block, "node")) == nodes
    assert len(having(drawn_block, "gate")) == ("gating" in kind)
    assert ("g" in texts(drawn_block)) == (kind == "exclusive-gating")


@pytest.mark.slow
def test_dense_blocks_concatenate_and_transitions_stand_between() -> None:
    root = drawn("densenet", depth=100)
    assert blocks_drawn(root) == [16, 16, 16]
    assert [node.findtext(f"{SVG}title") for node in having(root, "node")] == ["concatenate"] * 3
    assert texts(root).count("Transition") == 2
    assert {"216×32×32", "108×16×16", "342×8×8"} <= set(texts(root))


@pytest.mark.slow
@pytest.mark.parametrize("normalisation", ["shared", "per-step"])
def test_shared_weights_are_a_loop(normalisation: str) -> None:
    spec = family("recurrent-resnet", {"steps": 6, "states": 3, "normalisation": normalisation})
    root = of_spec(spec)
    check(root, spec, CIFAR)
    assert len(having(root, "loop")) == 3
    assert texts(root).count("× 6 steps, shared weights") == 3
    assert texts(root).count("each step has its own normalisation") == (3 if normalisation == "per-step" else 0)
    assert not having(drawn("recurrent-resnet", shared=False), "loop")


@pytest.mark.parametrize(("steps", "cells"), [(1, 1), (7, 7), (8, 8), (200, 4)])
def test_recurrent_head_is_unrolled(steps: int, cells: int) -> None:
    head = Head(pool="none", recurrent=RecurrentHead(steps=steps, width=128))
    root = of_spec(NetworkSpec(stages=(Stage(blocks=1, width=16, stride=2),), head=head))
    assert len(having(root, "cell")) == cells
    assert ("1 step" if steps == 1 else f"× {steps} steps, shared weights") in texts(root)
    assert "h ← tanh(Wx + b + Uh + c); x: 4,096 features, h: 128 units" in texts(root)
    check_layout(root)


# --- folding


@pytest.mark.slow
def test_1202_layers_fold() -> None:
    shallow = drawn("cifar-resnet", depth=20)
    deep = drawn("cifar-resnet", depth=1202)
    assert blocks_drawn(deep) == [200, 1, 199, 1, 199]
    printed = [int(word[2:]) for word in texts(deep) if re.fullmatch(r"× \d+", word)]
    assert sum(printed) + 2 == 600
    assert len(list(deep.iter())) == len(list(shallow.iter()))
    assert deep.get("height") == shallow.get("height")
    assert len(having(deep, "shortcut")) == 5


@pytest.mark.slow
def test_periods_of_stages_fold() -> None:
    root = drawn("comparative-cnn", MNIST, blocks=101)
    assert blocks_drawn(root) == [50, 50, 1]
    assert "Stages 1–100: 2 stages × 50" in texts(root)
    assert blocks_drawn(drawn("comparative-cnn", MNIST, blocks=5)) == [1] * 5


def test_rates_of_folded_blocks_reach_from_the_first_to_the_last() -> None:
    block = Block(stochastic_depth=0.5)
    words = texts(of_spec(NetworkSpec(stem=Stem(width=16), stages=TWO_STAGES[:1], block=block)))
    assert "0.17–0.5" in words
    stages = tuple(Stage(blocks=1, width=16) for _ in range(10))
    root = of_spec(NetworkSpec(stem=Stem(width=16), stages=stages, block=block))
    assert "Stages 1–10: all alike" in texts(root) and "0.05–0.5" in texts(root)
    assert blocks_drawn(root) == [10]


@pytest.mark.slow
@pytest.mark.parametrize("count", [9, 10, 60])
def test_many_different_stages_stay_bounded_and_say_what_is_left_out(count: int) -> None:
    spec = NetworkSpec(stem=Stem(width=16), stages=tuple(Stage(blocks=1 + i % 3, width=16 + i) for i in range(count)))
    root = of_spec(spec, (3, 4, 4))
    assert sum(blocks_drawn(root)) == total_blocks(spec)
    assert f"{count - 8} stages" in texts(root)
    assert len(list(root.iter())) < 900 and float(root.get("height", 0)) < 2000
    check_layout(root)


# --- as a document


def test_it_is_accessible_and_deterministic() -> None:
    spec = family("cifar-resnet", {"depth": 20})
    svg = draw(spec, CIFAR, 10, 'a <b> & "c" \x00', NO_COSTS)
    assert svg == draw(spec, CIFAR, 10, 'a <b> & "c" \x00', NO_COSTS)
    root = ET.fromstring(svg)
    assert root.get("role") == "img"
    assert root.findtext(f"{SVG}title") == 'a <b> & "c" \ufffd'
    description = root.findtext(f"{SVG}desc", "")
    assert "Stage 2: a block: 3×3 conv, 32, /2 then BN then ReLU" in description
    assert "2 blocks alike" in description and "gives 32×16×16" in description
    assert 700 <= float(root.get("width", 0)) <= 900


def test_an_image_that_is_too_small_is_one_line() -> None:
    with pytest.raises(SpecError, match="too small"):
        draw(family("mnist-cnn", {}), (1, 3, 3), 10, "small")


@st.composite
def specs(draw_: st.DrawFn) -> NetworkSpec:
    pick = lambda *values: draw_(st.sampled_from(values))  # noqa: E731
    kind = pick("none", "A", "B", "C", "scaled", "exclusive-gating", "shortcut-only-gating", "dropout", "concatenate")
    dense, residual = kind == "concatenate", kind not in ("none", "concatenate")
    branch_start = pick("none", "skipinit", "fixup") if residual else "none"
    fixup = branch_start == "fixup"
    normalisation = "none" if fixup else pick("batch", "layer", "group", "instance")
    order = (
        "full-preactivation"
        if dense
        else "original"
        if fixup
        else pick(
            "original",
            "bn-after-addition",
            "relu-before-addition",
            "relu-only-preactivation",
            "full-preactivation",
            "preactivation-and-after",
        )
    )
    shape = pick("basic", "bottleneck") if fixup else pick("single", "basic", "bottleneck", "dense")
    stages = tuple(
        Stage(
            blocks=draw_(st.integers(1, 4)),
            width=16 * 2**number,
            stride=1 if dense else pick(1, 2),
            pool=pick(False, True),
            transition=pick(None, 0.5) if dense else None,
        )
        for number in range(draw_(st.integers(1, 3)))
    )
    return NetworkSpec(
        stem=pick(Stem(width=16), Stem(width=16, kernel=5, pool=True)),
        stages=stages,
        block=Block(
            kind=shape,
            order=order,
            shortcut=Shortcut(kind=kind),
            dropout=pick(0.0, 0.3),
            stochastic_depth=pick(0.0, 0.5) if residual else 0.0,
            groups=pick(1, 4) if shape == "bottleneck" else 1,
        ),
        sharing=None if dense else pick(None, Sharing(normalisation="shared"), Sharing(normalisation="per-step")),
        head=Head(
            pool=pick("global-average", "none"),
            dropout=pick(0.0, 0.25),
            recurrent=pick(None, RecurrentHead(steps=3, dropout=0.5)),
        ),
        normalisation=normalisation,
        weight_standardisation=pick(False, True) and not fixup,
        activation=pick("relu", "leaky-relu", "tanh"),
        initialisation=Initialisation(branch=branch_start),
    )


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(specs(), st.text(max_size=40))
def test_any_network_is_drawn_whole(spec: NetworkSpec, title: str) -> None:
    root = ET.fromstring(draw(spec, LARGE, 10, title, NO_COSTS))
    assert sum(blocks_drawn(root)) == total_blocks(spec)
    assert without_others(layers_by_kind(root)) == layers_that_run(spec, LARGE)
    arcs = 0 if spec.block.shortcut.kind == "none" else len(having(root, "block"))
    assert len(having(root, "shortcut")) == arcs
    check_layout(root)


# --- files


@pytest.mark.parametrize(("name", "magic"), [("a.svg", b"<svg "), ("a.pdf", b"%PDF-"), ("a.PNG", b"\x89PNG\r\n\x1a\n")])
def test_the_suffix_decides(tmp_path: Path, name: str, magic: bytes) -> None:
    svg = draw(family("comparative-resnet", {}), MNIST, 10, "comparative-resnet")
    (tmp_path / name).write_bytes(b"old")
    write_drawing(svg, tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(magic)
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_a_picture_has_two_pixels_for_one_and_is_not_empty(tmp_path: Path) -> None:
    svg = draw(family("comparative-resnet", {}), MNIST, 10, "comparative-resnet")
    write_drawing(svg, tmp_path / "a.png")
    root = ET.fromstring(svg)
    with Image.open(tmp_path / "a.png") as image:
        sides = (float(root.get("width", 0)), float(root.get("height", 0)))
        assert all(abs(a - 2 * b) <= 2 for a, b in zip(image.size, sides, strict=True))
        colours = image.convert("RGB").getcolors(1 << 24)
    assert {(0xD5, 0x5E, 0x00), (0xDC, 0xEC, 0xF7)} <= {colour for _, colour in colours}


@pytest.mark.parametrize("name", ["a.jpg", "a", "svg", ".svg", "a.svg.gz"])
def test_another_suffix_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SpecError, match=r"is not one of \.svg, \.pdf, \.png") as caught:
        write_drawing("<svg/>", tmp_path / name)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder.svg").mkdir()
    for path in (tmp_path / "missing" / "a.svg", tmp_path / "file" / "a.svg", tmp_path / "folder.svg"):
        with pytest.raises(LeadlineError, match=r"cannot be written|is a folder") as caught:
            write_drawing("<svg/>", path)
        assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["file", "folder.svg"]
