"""Networks of one's own: built in pairs, run in studies, refused in one line."""

import json
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from leadline.cli import app
from leadline.errors import SpecError
from leadline.networks.modules import build, check, describe_network, inspect_network
from leadline.running.executors import InProcess
from leadline.running.job import Job
from leadline.specs import ModuleSpec, NetworkSpec, parse
from leadline.specs.study import StudySpec
from leadline.store import Store
from leadline.study.expand import expand, resolve_network

SOURCE = """
import torch

def small(classes, input_shape, width=8):
    channels, height, size = input_shape
    return torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(channels * height * size, width), torch.nn.ReLU(), torch.nn.Dropout(0.3),
        torch.nn.Linear(width, classes),
    )

def zoo(**kwargs):
    return small(kwargs["num_classes"], (1, 8, 8))

def five(classes):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 5))

def wrong():
    return 3

def fails():
    raise KeyError("inside")

def described(width=8, norm="batch"):
    from leadline.specs import Block, NetworkSpec, Stage, Stem
    stages = (Stage(blocks=2, width=width),)
    block = Block(order="preactivation-and-after")
    return NetworkSpec(stem=Stem(width=width), stages=stages, block=block, normalisation=norm)

class Fourier(torch.nn.Linear):
    def forward(self, x):
        return super().forward(torch.fft.rfft(x.flatten(1)).abs())

def fourier(classes):
    return Fourier(33, classes)

number = 4
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_networks.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "own_networks", raising=False)


@pytest.mark.usefixtures("own")
def test_arguments_are_given_where_they_are_taken() -> None:
    info = inspect_network(ModuleSpec(module="own_networks:small", arguments={"width": 16}), (1, 8, 8), 10)
    assert info.parameters == 64 * 16 + 16 + 160 + 10
    assert info.multiply_adds == 64 * 16 + 160
    assert info.receptive_field is None
    check(ModuleSpec(module="own_networks:zoo"), (1, 8, 8), 7)


@pytest.mark.usefixtures("own")
def test_inspect_says_what_is_in_no_count() -> None:
    arguments = ["inspect", "own_networks:fourier", "--input", "1x8x8"]
    assert "Not counted in the multiply-adds: aten::_fft_r2c" in CliRunner().invoke(app, arguments).stdout
    info = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert (info["multiply_adds"], info["uncounted"]) == (330, ["aten::_fft_r2c"])
    small = CliRunner().invoke(app, ["inspect", "own_networks:small", "--input", "1x8x8"]).stdout
    assert "multiply-adds" in small and "ot counted" not in small


@pytest.mark.slow
@pytest.mark.usefixtures("own")
def test_a_function_may_give_a_specification(tmp_path: Path) -> None:
    spec = ModuleSpec(module="own_networks:described", arguments={"width": 4})
    written_out = describe_network(spec, (1, 8, 8), 10)
    assert isinstance(written_out, NetworkSpec) and written_out.stages[0].width == 4
    assert describe_network(written_out, (1, 8, 8), 10) is written_out
    small = ModuleSpec(module="own_networks:small")
    assert describe_network(small, (1, 8, 8), 10) is small
    one, other = (build(each, (1, 8, 8), 10, seed=3).state_dict() for each in (spec, written_out))
    assert list(one) == list(other)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert inspect_network(spec, (1, 8, 8), 10) == inspect_network(written_out, (1, 8, 8), 10)
    check(spec, (1, 8, 8), 10)
    figure = tmp_path / "figure.svg"
    arguments = ["own_networks:described", "--input", "1x8x8"]
    shown = CliRunner().invoke(app, ["inspect", *arguments, "--figure", str(figure), "--json"])
    assert json.loads(shown.stdout)["receptive_field"] == 11
    assert "global avg" in figure.read_text()
    predicted = CliRunner().invoke(app, ["predict-depth", *arguments, "--set", "norm=none"])
    assert predicted.exit_code == 0, predicted.output
    shown = CliRunner().invoke(app, ["inspect", "own_networks:small", "--input", "1x8x8", "--figure", str(figure)])
    assert shown.exit_code == 0 and "linear" in figure.read_text()


@pytest.mark.usefixtures("own")
def test_building_is_seeded_and_leaves_the_global_generator_alone() -> None:
    spec = ModuleSpec(module="own_networks:small")
    state = torch.get_rng_state()
    a, b, c = (build(spec, (1, 8, 8), 10, seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["1.weight"], c["1.weight"])


@pytest.mark.slow
@pytest.mark.usefixtures("own")
def test_in_a_study_with_the_same_bits_each_time(tmp_path: Path) -> None:
    study = expand(
        StudySpec.model_validate(
            {
                "name": "own",
                "data": {"name": "digits", "train": 100, "validation": 50, "test": 50},
                "training": {"epochs": 2},
                "arms": {
                    "own": {"network": {"module": "own_networks:small"}},
                    "described": {"network": {"module": "own_networks:described", "arguments": {"width": 4}}},
                    "cnn": {"network": "comparative-cnn"},
                },
                "seeds": 1,
            }
        )
    )
    values = []
    for runs in (tmp_path / "one", tmp_path / "two"):
        with Store.open(runs) as store:
            store.register(study)
            InProcess().run(Job("own", runs), lambda event: None)
            frame = store.records_frame("own")
            values.append(frame[frame["split"] != "time"]["value"].tolist())
            assert store.counts("own")["finished"] == 3
    assert values[0] == values[1]


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("own_networks:five", r"own_networks:five gives \(5,\) for an image of 1x8x8; expected \(10,\)"),
        ("own_networks:wrong", "returned a int; expected a torch.nn.Module or a NetworkSpec"),
        ("own_networks:fails", "calling it failed: KeyError: 'inside'"),
        ("own_networks:number", "has no function or class 'number'"),
        ("own_networks:nothing", "has no function or class 'nothing'"),
        ("not_there:x", "importing not_there failed: ModuleNotFoundError"),
    ],
)
def test_mistakes_get_one_line(module: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        check(ModuleSpec(module=module), (1, 8, 8), 10)
    assert "\n" not in str(caught.value)


def test_a_name_that_is_no_function() -> None:
    with pytest.raises(SpecError, match=r"module: 'os\.system': string should match pattern"):
        parse(ModuleSpec, {"module": "os.system"})


def test_resolution_by_colon_and_factors_become_arguments() -> None:
    assert resolve_network("a.b:c", {"width": 3}) == ModuleSpec(module="a.b:c", arguments={"width": 3})
