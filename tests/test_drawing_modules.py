"""Drawings of modules that somebody else wrote: every join is found, what repeats is folded, nothing overlaps."""

import itertools
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import drawn_modules
from leadline.cli import app
from leadline.data.network_input import NetworkInput
from leadline.errors import SpecError
from leadline.networks.drawing import draw
from leadline.networks.drawing.custom import outline_module
from leadline.networks.drawing.outline import BlockOutline, Fork, Joint, Layer, Part
from leadline.networks.drawing.tracing import trace
from leadline.networks.modules import NetworkInfo
from leadline.reports.networks import setup_section
from leadline.specs import ModuleSpec
from leadline.study.load import load_study
from test_drawing import SVG, having, placed, texts

CIFAR = (3, 32, 32)
NO_COSTS = NetworkInfo(0, 0, (10,), None, 0, 0, ())
DRAWN = (
    "ResNet",
    "DenseNet",
    "UNet",
    "Transformer",
    "Recurrent",
    "Inception",
    "squeezed",
    "shared",
    "Dropped",
    "nested",
    "Cells",
)


@pytest.fixture(autouse=True)
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEADLINE_TRUST", "drawn_modules")


def parts_of(module: nn.Module) -> list[Part]:
    return outline_module(module, CIFAR, "a module")


def blocks_of(parts: list[Part]) -> list[tuple[BlockOutline, int]]:
    """Every block, and how many of the network's it is drawn for."""
    return [
        (piece, piece.count * part.repeats)
        for part in parts
        for piece in part.pieces
        if isinstance(piece, BlockOutline)
    ]


def names(layers: tuple[Layer, ...]) -> list[str]:
    return [layer.text for layer in layers]


@pytest.mark.parametrize("blocks", [1, 2, 9])
def test_a_residual_network_has_a_join_for_each_block(blocks: int) -> None:
    module = drawn_modules.ResNet(blocks=blocks)
    nodes, _ = trace(module, CIFAR, "")
    assert [node.join for node in nodes].count("add") == 3 * blocks
    found = blocks_of(parts_of(module))
    assert sum(count for _, count in found) == 3 * blocks
    assert all(block.shortcut is not None and block.shortcut.join == "add" for block, _ in found)
    alike = [9] if blocks == 9 else [blocks]
    rest = [1, 8] * 2 if blocks == 9 else [1] * (2 * blocks)
    assert [count for _, count in found] == alike + rest


def test_a_block_is_told_layer_by_layer() -> None:
    first, *_ = parts_of(drawn_modules.ResNet(blocks=3))[3].pieces
    assert isinstance(first, BlockOutline) and first.shortcut is not None
    assert names(first.branch) == ["3×3 conv, 64, /2", "BN", "ReLU", "3×3 conv, 64", "BN"]
    assert names(first.shortcut.layers) == ["1×1 conv, 64, /2", "BN"]
    assert names(first.after) == ["ReLU"]
    parts = parts_of(drawn_modules.ResNet(blocks=3))
    assert [part.name for part in parts] == ["", "layer1", "layer2", "layer3", ""]
    assert [part.size for part in parts] == [(16, 32, 32), (16, 32, 32), (32, 16, 16), (64, 8, 8), (10,)]
    counted = sum(p.numel() for p in drawn_modules.ResNet(blocks=3).parameters())
    assert sum(part.parameters or 0 for part in parts) == counted


def test_layers_that_take_all_results_before_them_concatenate_one_by_one() -> None:
    (block, count), *others = blocks_of(parts_of(drawn_modules.DenseNet(layers=6)))
    assert count == 6 and not others
    assert block.shortcut is not None and block.shortcut.join == "concatenate"
    assert names(block.branch) == ["BN", "ReLU", "3×3 conv, 12"]


def test_the_skips_of_a_u_net_lie_inside_each_other() -> None:
    pieces = [piece for part in parts_of(drawn_modules.UNet()) for piece in part.pieces]
    ways = [(type(piece), piece.number) for piece in pieces if isinstance(piece, Fork | Joint)]
    assert ways == [(Fork, 1), (Fork, 2), (Joint, 2), (Joint, 1)]
    assert {piece.join for piece in pieces if isinstance(piece, Joint)} == {"concatenate"}
    assert not blocks_of(parts_of(drawn_modules.UNet()))
    assert all(part.size for part in parts_of(drawn_modules.UNet()))
    counted = sum(p.numel() for p in drawn_modules.UNet().parameters())
    assert sum(part.parameters or 0 for part in parts_of(drawn_modules.UNet())) == counted


def test_the_skips_of_modules_inside_each_other() -> None:
    pieces = [piece for part in parts_of(drawn_modules.nested()) for piece in part.pieces]
    kinds = [type(piece) for piece in pieces if isinstance(piece, Fork | Joint | BlockOutline)]
    assert kinds == [Fork, Fork, BlockOutline, Joint, Joint]


def test_a_cell_that_is_called_at_every_step_is_a_box() -> None:
    (part,) = parts_of(drawn_modules.Cells())
    assert names(part.pieces[0])[-2:] == ["GRUCell, 32 steps", "linear, 10"]  # type: ignore[arg-type]


def test_the_two_joins_of_a_transformer_block_are_folded_together() -> None:
    found = parts_of(drawn_modules.Transformer(blocks=6))
    (part,) = [part for part in found if part.repeats > 1]
    assert (part.name, part.repeats, len(part.pieces)) == ("blocks × 6", 6, 2)
    attention, mlp = part.pieces
    assert isinstance(attention, BlockOutline) and isinstance(mlp, BlockOutline)
    assert names(attention.branch) == ["LN", "Attention, 3 ways", "flatten", "linear, 32"]
    assert names(mlp.branch) == ["LN", "linear, 64", "GELU", "dropout, 0.1", "linear, 32"]
    assert "+ learned" in [
        layer.text for part in found for piece in part.pieces if isinstance(piece, tuple) for layer in piece
    ]


def test_pytorchs_own_transformer_is_drawn_layer_by_layer() -> None:
    layer = nn.TransformerEncoderLayer(96, 4, 64, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)

    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.fc = encoder, nn.Linear(96, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.encoder(x.transpose(1, 2).flatten(2)).mean(1))

    assert sum(count for _, count in blocks_of(parts_of(Rows()))) == 6


def test_a_module_that_decides_by_values_is_watched_where_it_has_some() -> None:
    (part,) = parts_of(drawn_modules.Recurrent())
    assert names(part.pieces[0]) == ["flatten", "LSTM, 24 units, 2 layers", "linear, 10"]  # type: ignore[arg-type]


def test_more_than_two_ways_are_a_box() -> None:
    layers = [layer for part in parts_of(drawn_modules.Inception()) for layer in part.pieces[0]]  # type: ignore[union-attr]
    assert names(tuple(layers)) == ["Mixed, 3 ways", "mean", "linear, 10"]


def test_ways_inside_a_branch_are_a_box() -> None:
    found = blocks_of(parts_of(drawn_modules.squeezed()))
    assert [count for _, count in found] == [1, 3]
    assert names(found[1][0].branch) == ["3×3 conv, 8", "BN", "ReLU", "3×3 conv, 8", "BN", "Squeeze"]


def test_a_block_that_is_used_again_shares_its_weights() -> None:
    ((block, count),) = blocks_of(parts_of(drawn_modules.shared()))
    assert (block.shared, count) == (True, 4)


def test_a_layer_that_gives_its_input_itself_is_not_on_the_skip() -> None:
    ((block, _),) = blocks_of(parts_of(drawn_modules.Dropped()))
    assert block.shortcut is not None and block.shortcut.words == "identity"
    assert names(block.branch) == ["dropout, 0.5", "linear, 3072"]


def test_the_module_is_left_as_it_is() -> None:
    module = drawn_modules.ResNet(blocks=1).train()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    state = torch.random.get_rng_state()
    parts_of(module)
    assert module.training and not any(one._forward_hooks or one._forward_pre_hooks for one in module.modules())
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())
    assert torch.equal(state, torch.random.get_rng_state())


def drawing(name: str) -> ET.Element:
    return ET.fromstring(draw(ModuleSpec(module=f"drawn_modules:{name}"), CIFAR, 10, name, NO_COSTS))


@pytest.mark.parametrize("name", DRAWN)
def test_everything_is_on_the_page_and_boxes_do_not_overlap(name: str) -> None:
    root = drawing(name)
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    boxes = []
    for element, x, y, _ in placed(root):
        if element.get("class") == "layer":
            rectangle = element.find(f"{SVG}rect")
            assert rectangle is not None
            left, top = x + float(rectangle.get("x", 0)), y + float(rectangle.get("y", 0))
            boxes.append((left, top, left + float(rectangle.get("width", 0)), top + float(rectangle.get("height", 0))))
    assert boxes
    for left, top, right, bottom in boxes:
        assert 0 <= left < right <= width and 0 <= top < bottom <= height
    for (left, top, right, bottom), (other_left, other_top, other_right, other_bottom) in itertools.combinations(
        boxes, 2
    ):
        assert right <= other_left or other_right <= left or bottom <= other_top or other_bottom <= top
    assert ET.tostring(drawing(name)) == ET.tostring(root)


def test_arcs_and_letters() -> None:
    assert len(having(drawing("ResNet"), "shortcut")) == 5
    unet = texts(drawing("UNet"))
    letters = [text for text in unet if text in ("a", "b")]
    assert "Equal letters mark where a skip connection begins and where it ends." in unet
    assert sorted(letters) == ["a", "a"] or sorted(letters) == ["a", "a", "b", "b"]
    assert {"enc1", "bottom", "dec2", "9 blocks, 42 k parameters"} & {*unet, *texts(drawing("ResNet"))} == {
        "enc1",
        "bottom",
        "dec2",
        "9 blocks, 42 k parameters",
    }


def test_inspect_draws_a_module(tmp_path: Path) -> None:
    figure = tmp_path / "net.svg"
    done = CliRunner().invoke(app, ["inspect", "drawn_modules:UNet", "--figure", str(figure)])
    assert done.exit_code == 0
    assert "enc1" in texts(ET.parse(figure).getroot())


def test_what_cannot_be_followed_is_one_line(tmp_path: Path) -> None:
    line = (
        "drawn_modules:Untraceable cannot be drawn: its output cannot be followed back to its input through PyTorch's"
        " functions"
    )
    with pytest.raises(SpecError) as caught:
        drawing("Untraceable")
    assert str(caught.value) == line
    done = CliRunner().invoke(app, ["inspect", "drawn_modules:Untraceable", "--figure", str(tmp_path / "net.svg")])
    assert isinstance(done.exception, SpecError) and not (tmp_path / "net.svg").exists()


def test_a_report_draws_modules_and_says_which_cannot_be() -> None:
    arms = {name: {"network": {"module": f"drawn_modules:{name}"}} for name in ("UNet", "Untraceable", "ResNet")}
    study = load_study({"name": "own", "data": {"name": "digits"}, "arms": arms})
    given = NetworkInput(input_shape=CIFAR, classes=10, mean=(((0.0,),),) * 3, scale=(1.0,) * 3)
    section = setup_section(study, dict.fromkeys(arms, given), None)
    assert [one.title for one in section.drawings] == ["UNet", "ResNet"]
    (said,) = section.paragraphs
    assert said.startswith("drawn_modules:Untraceable cannot be drawn: ") and said.endswith(" functions.")


def test_a_module_that_fails_while_it_is_watched_is_one_line() -> None:
    class Shy(nn.Flatten):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self._forward_hooks:
                raise RuntimeError("not while\nothers look on")
            return super().forward(x)

    with pytest.raises(SpecError) as caught:
        parts_of(nn.Sequential(Shy(), nn.Linear(3072, 10)))
    assert str(caught.value) == (
        "a module cannot be drawn: it fails while it is watched: RuntimeError: not while others look on"
    )
