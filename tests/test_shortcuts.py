"""Shortcuts as parts: what each asks of a network, and the user's own, built, counted, drawn and trained."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from leadline.data.batches import load
from leadline.errors import SpecError
from leadline.networks import cifar_resnet
from leadline.networks.drawing import draw
from leadline.networks.modules import build, inspect_network
from leadline.parts.shortcuts import SHORTCUTS, CustomShortcut
from leadline.specs import DataSpec, NetworkSpec, Shortcut, TrainingSpec, TrialSpec, parse
from leadline.training import prepare, train

SHAPE = (1, 8, 8)


class Weighted(nn.Module):
    """A projection, dropped now and then, times a learned factor of each channel, plus the branch."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, start: float = 0.5, drop: float = 0.0) -> None:
        super().__init__()
        self.path = nn.Conv2d(channels_in, channels_out, 1, stride)
        self.weight = nn.Parameter(torch.full((channels_out, 1, 1), start))
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        out: Tensor = y + self.weight * self.drop(self.path(x))
        return out


class Narrow(nn.Module):
    def __init__(self, *given: int) -> None:
        super().__init__()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return y[:, :1]


def nothing(channels_in: int, channels_out: int, stride: int) -> int:
    return 3


def network(shortcut: object = Weighted, **changes: object) -> NetworkSpec:
    plain = cifar_resnet(8).model_dump(mode="json")
    return parse(NetworkSpec, {**plain, "block": {**plain["block"], "shortcut": shortcut}, **changes})


def own(**arguments: object) -> dict[str, object]:
    return {"module": f"{__name__}:Weighted", "arguments": arguments}


def test_the_dump_of_a_kind_that_is_built_in_is_what_it_was() -> None:
    # byte for byte, for it enters the hash of every trial that was ever stored
    assert Shortcut(kind="scaled", branch_factor=0.5).model_dump_json() == (
        '{"kind":"scaled","shortcut_factor":1.0,"branch_factor":0.5,"gate_bias":-6.0,"gate_kernel":1,"dropout":0.5}'
    )
    assert parse(Shortcut, "B") == Shortcut(kind="B")


def test_every_kind_has_one_file_and_is_built_by_its_name() -> None:
    assert set(SHORTCUTS.members()) == {
        *("none", "A", "B", "C", "scaled", "exclusive-gating", "shortcut-only-gating", "dropout", "concatenate")
    }
    with pytest.raises(SpecError, match="'D': input should be 'A', 'B', 'C'"):
        parse(Shortcut, "D")
    with pytest.raises(SpecError, match="arguments of A: unknown key 'start'"):
        parse(Shortcut, {"kind": "A", "arguments": {"start": 1}})


def test_a_shortcut_of_the_users_own_is_given_by_reference_or_as_the_class_itself() -> None:
    for given in (Weighted, f"{__name__}:Weighted", {"module": f"{__name__}:Weighted"}):
        spec = network(given)
        assert spec.block.shortcut == CustomShortcut(module=f"{__name__}:Weighted")
        assert parse(NetworkSpec, spec.model_dump(mode="json")) == spec
    assert parse(TrialSpec, {"network": network()}).with_code().code.keys() == {f"{__name__}:Weighted"}


@pytest.mark.slow
def test_it_is_counted_and_drawn() -> None:
    spec = network()
    joins = [(16, 16), (16, 32), (32, 64)]
    extra = sum(a * b + 2 * b for a, b in joins)
    plain = inspect_network(network("none"), SHAPE, 10)
    counted = inspect_network(spec, SHAPE, 10)
    assert counted.parameters == plain.parameters + extra
    assert counted.multiply_adds > plain.multiply_adds
    assert "Weighted" in draw(spec, SHAPE, 10, "weighted")


def test_it_starts_as_it_was_written_and_common_parameters_are_paired() -> None:
    one, again = (build(network(own(start=0.25)), SHAPE, 10, seed) for seed in (3, 3))
    plain, other = build(network("none"), SHAPE, 10, 3), build(network(own(start=0.25)), SHAPE, 10, 4)
    state = one.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in again.state_dict().items())
    common = plain.state_dict()
    assert set(common) < set(state) and all(torch.equal(tensor, state[name]) for name, tensor in common.items())
    names = [name for name in state if ".join." in name]
    assert all(bool((state[name] == 0.25).all()) for name in names if name.endswith("custom.weight"))
    weights = [name for name in names if name.endswith("path.weight")]
    assert len(weights) == 3 and not any(torch.equal(state[name], other.state_dict()[name]) for name in weights)
    # PyTorch's own start of a convolution, and not the network's initialisation
    assert all(float(state[name].abs().max()) <= state[name].shape[1] ** -0.5 for name in weights)


def trained(shortcut: object, **changes: Any) -> nn.Module:
    data = load(DataSpec(name="digits", train=96, validation=32))
    training = TrainingSpec(epochs=1, batch_size=48)
    state = prepare(build(network(shortcut, **changes), data.shape, data.classes, 0), training, torch.device("cpu"))
    list(train(state, data, training, 0))
    return state.model


def test_it_trains_and_draws_the_same_whenever_it_does() -> None:
    start = build(network(own(drop=0.5)), SHAPE, 10, 0).state_dict()
    torch.manual_seed(1)
    one = trained(own(drop=0.5)).state_dict()
    random = torch.get_rng_state()
    torch.manual_seed(2)
    two = trained(own(drop=0.5), checkpoint_blocks=True).state_dict()
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())
    assert all(not torch.equal(tensor, start[name]) for name, tensor in one.items() if ".join." in name)
    whole = trained(own()).state_dict()
    assert any(not torch.equal(tensor, whole[name]) for name, tensor in one.items())


def test_a_recurrent_stage_shares_it_and_a_copy_is_as_good() -> None:
    model = build(network(sharing={}, stages=[{"blocks": 3, "width": 16}]), SHAPE, 10, 0)
    blocks = model.get_submodule("stages.0")
    assert blocks.get_submodule("0").join is blocks.get_submodule("2").join
    images = torch.randn(2, *SHAPE)
    assert torch.equal(copy.deepcopy(model).eval()(images), model.eval()(images))


@pytest.mark.parametrize(
    ("shortcut", "message"),
    [
        (
            "Narrow",
            "returns shape (2, 1, 32, 32) for inputs of shape (2, 16, 32, 32) and (2, 16, 32, 32);"
            " expected the second shape",
        ),
        ("nothing", "returned a int; expected a torch.nn.Module"),
        ("absent", "has no function or class 'absent'"),
    ],
)
def test_what_is_no_shortcut_is_one_line(shortcut: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        build(network({"module": f"{__name__}:{shortcut}"}), SHAPE, 10, 0)
    assert message in str(caught.value) and "\n" not in str(caught.value)
