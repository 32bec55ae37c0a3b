"""Probes of the user's own: asked for by reference, taken while a study trains, drawn in its report and by itself."""

import random
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

from leadline.cli import app
from leadline.errors import SpecError
from leadline.networks import comparative_resnet
from leadline.networks.modules import build
from leadline.probes.running import run_probe
from leadline.probes.snapshots import CustomProbe, find_probe
from leadline.reports.charts.probes import figures
from leadline.reports.writing import write_report
from leadline.running.executors import InProcess
from leadline.running.job import Job
from leadline.specs import ProbeSpec, TrialSpec, parse
from leadline.store import Store
from leadline.study.load import load_study

OWN = '''
import altair as alt
import torch
import torch.nn.functional as F


def sharpness(model, images, labels, radius=0.1):
    """How much the loss rises when every weight is moved a little."""
    before = float(F.cross_entropy(model(images), labels))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += radius * torch.randn_like(parameter)
    return {"radius": [radius], "rise": [float(F.cross_entropy(model(images), labels)) - before]}


sharpness.chart = lambda frame: alt.Chart(frame).mark_point().encode(x="epoch:O", y="rise:Q", color="base:N")


def undrawn(model, images, labels):
    return {"images": [len(images)]}
'''
IMAGES = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(8) % 10


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with a custom module."""
    (tmp_path / "own_probes.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "own_probes", raising=False)
    yield tmp_path
    sys.modules.pop("own_probes", None)


def vandal(model: nn.Module, images: Tensor, labels: Tensor) -> pd.DataFrame:
    drawn = random.random(), float(np.random.rand()), float(torch.rand(()))  # noqa: NPY002
    model.train()(images).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers(), images, labels):
            tensor.zero_()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model.extra = nn.Linear(1, 1)
    return pd.DataFrame({"drawn": drawn})


def generators() -> tuple[object, ...]:
    return random.getstate(), torch.get_rng_state().tolist(), str(np.random.get_state())  # noqa: NPY002


def test_whatever_a_probe_does_the_network_and_the_generators_are_as_they_were() -> None:
    model = build(comparative_resnet(2), (1, 8, 8), 10, 0).train()
    model(IMAGES).sum().backward()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    gradients = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    images, state = IMAGES.clone(), generators()
    probe = find_probe(vandal)
    one = run_probe(probe, model, images, LABELS, seed=3, untrained=False)
    assert one.reason == "" and torch.equal(images, IMAGES)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    found = [parameter.grad for parameter in model.parameters() if parameter.requires_grad]
    assert all(one is not None and torch.equal(one, other) for one, other in zip(found, gradients, strict=True))
    assert not hasattr(model, "extra") and all(module.training for module in model.modules())
    assert generators() == state
    # what it draws follows from the trial's seed
    again = run_probe(probe, model, images, LABELS, seed=3, untrained=False)
    other = run_probe(probe, model, images, LABELS, seed=4, untrained=False)
    assert one.frame.equals(again.frame) and not one.frame.equals(other.frame)


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (3.5, "returned a float; expected a pandas frame or a dict of columns"),
        ({"loss": 0.5}, "give columns of one length"),
        ({"seed": [1]}, "column 'seed' is reserved for the trial"),
    ],
)
def test_what_is_no_frame_is_a_reason_in_one_line(result: object, reason: str) -> None:
    def wrong(model: nn.Module, images: Tensor, labels: Tensor) -> object:
        return result

    measured = run_probe(find_probe(wrong), nn.Flatten(), IMAGES, LABELS, seed=0, untrained=True)
    assert reason in measured.reason and "\n" not in measured.reason and measured.frame.empty


def test_a_probe_is_asked_for_by_reference_by_name_or_as_the_function_itself() -> None:
    key = f"{__name__}:vandal"
    listed = parse(ProbeSpec, ["flow", {"module": key, "arguments": {"radius": 2}, "at": "end", "images": 64}])
    assert listed.snapshots() == {
        key: CustomProbe(name=key, module=key, arguments={"radius": 2}, at=("end",), images=64)
    }
    named = parse(ProbeSpec, {"mine": {"module": key}, key: {"at": [2]}, "lesion": {}})
    assert [(name, getattr(one, "module", "")) for name, one in named.snapshots().items()] == [
        ("lesion", ""),
        ("mine", key),
        (key, key),
    ]
    assert parse(ProbeSpec, named.model_dump(mode="json")) == named
    assert parse(ProbeSpec, [vandal]) == parse(ProbeSpec, [key]) == parse(ProbeSpec, {key: {}})
    trial = parse(TrialSpec, {"network": {"stages": [{"blocks": 1, "width": 2}]}, "probes": [vandal]}).with_code()
    assert trial.code[key].startswith("sha256:")


@pytest.mark.parametrize(
    ("probes", "message"),
    [
        ({"lesion": {"module": "own_probes:f"}}, "'lesion' is Leadline's own; give own_probes:f another name"),
        ({"pretraining": {"module": "own_probes:f"}}, "'pretraining' is Leadline's own"),
        ({"a b": {"module": "own_probes:f"}}, "'a b' names no probe"),
        (["own_probes:" + "f" * 60], "at most 64; give it a name of its own"),
        ([{"module": "own_probes:f", "evry": 2}], "unknown key 'evry'"),
        ({"cka": 3}, "probe cka: 3 is not a mapping of settings; expected for example"),
    ],
)
def test_what_cannot_be_asked_for_is_one_line(probes: object, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        parse(ProbeSpec, probes)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_chart_that_cannot_be_drawn_leaves_its_values_and_says_why() -> None:
    def charted(model: nn.Module, images: Tensor, labels: Tensor) -> object:
        """Count images."""
        return {"count": [len(images)]}

    frame = pd.DataFrame({"arm": ["a"], "base": ["a"], "seed": [0], "epoch": [1], "count": [8]})
    charted.chart = lambda rows: "no chart"  # type: ignore[attr-defined]
    (figure,) = figures(find_probe(charted), frame)
    assert figure.panels == () and list(figure.data["count"]) == [8]
    assert figure.caption.startswith("Count images. Its chart could not be drawn: TypeError: expected an altair.Chart")


@pytest.mark.slow
def test_a_study_takes_it_the_report_draws_it_and_so_does_the_command(own: Path) -> None:
    tiny = {"training.epochs": 1, "vary.blocks": [2], "seeds": 1, "data.train": 100}
    probes = [
        {"module": "own_probes:sharpness", "arguments": {"radius": 0.01}, "images": 16},
        {"name": "count", "module": "own_probes:undrawn", "at": ["end"], "images": 16},
    ]
    with Store.open(own / "runs") as store:
        store.register(load_study("demo", {**tiny, "probes": probes}))
        InProcess().run(Job("demo", own / "runs"), lambda event: None)
        trial = store.trials_frame("demo")["trial"].iloc[0]
        page = write_report(store, "demo", own / "report").read_text()
    assert 'id="probe-own-probes-sharpness"' in page
    assert "How much the loss rises when every weight is moved a little." in page
    assert "Measured on 16 validation images, the same for every arm." in page
    assert (own / "report/figures/probe-own-probes-sharpness.svg").read_text().startswith("<svg")
    rows = pd.read_csv(own / "report/tables/probe-own-probes-sharpness.csv")
    assert set(rows["arm"]) == {"plain[blocks=2]", "residual[blocks=2]"} and set(rows["epoch"]) == {0, 1}
    assert set(rows["radius"]) == {0.01} and rows["rise"].notna().all()
    counted = pd.read_csv(own / "report/tables/probe-count.csv")
    assert list(counted["images"]) == [16, 16] and "no attribute `chart`" in page
    arguments = ["probe", trial[:10], "own_probes:sharpness", "--figure", "s.svg", "--runs", "runs", "--images", "8"]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0 and (own / "s.svg").read_text().startswith("<svg")
