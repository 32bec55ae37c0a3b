"""Pre-training inside a study: what it needs, what it leaves behind, and that it repeats itself to the bit."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from leadline.data import batches
from leadline.data.batches import Data
from leadline.errors import DataError, SpecError
from leadline.networks.modules import build
from leadline.pretraining.image_grids import ImageGrids
from leadline.pretraining.state import PretrainingState
from leadline.reports.charts.pretraining import pretraining_figures
from leadline.reports.writing import write_report
from leadline.running.executors import InProcess
from leadline.running.job import Job
from leadline.specs import DataSpec, PretrainingSpec, TrialSpec, parse
from leadline.specs.study import StudySpec
from leadline.store import Store
from leadline.study.expand import ExpandedStudy, expand
from leadline.training import prepare, train
from leadline.training.layerwise import Pretrained, pretrain_network, pretrained

NETWORK = {"family": "mlp", "hidden": 2, "width": 12, "activation": "sigmoid", "initialisation": "old-uniform"}
DATA = {"name": "digits", "train": 200, "validation": 50, "test": 50, "normalise": "none"}


def study(**arms: Any) -> ExpandedStudy:
    return expand(
        StudySpec.model_validate(
            {
                "name": "before",
                "data": DATA,
                "training": {"epochs": 2, "batch_size": 50},
                "probes": ["flow"],
                "arms": {
                    "old": {"network": NETWORK},
                    "rbm": {"network": NETWORK, "pretraining": {"method": "rbm", "epochs": 2}},
                    **arms,
                },
                "seeds": 1,
            }
        )
    )


def pretrain(model: torch.nn.Module, data: Data, spec: PretrainingSpec, seed: int) -> Pretrained:
    """Pre-train without a break."""
    state = PretrainingState(spec)
    for _ in pretrain_network(state, model, data, seed):
        pass
    return pretrained(state, data.shape, seed)


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[ExpandedStudy, Path]:
    made = study(coder={"network": NETWORK, "pretraining": {"method": "denoising-autoencoder", "epochs": 2}})
    runs = tmp_path_factory.mktemp("runs")
    with Store.open(runs) as store:
        store.register(made)
    InProcess().run(Job("before", runs), lambda event: None)
    return made, runs


def test_the_stored_trial_is_pretraining_and_then_training(ran: tuple[ExpandedStudy, Path]) -> None:
    made, runs = ran
    trial = next(trial for arm, trial in made.trials() if arm.name == "rbm")
    assert trial.pretraining is not None
    data = batches.load(trial.data)
    model = build(trial.network, data.shape, data.classes, trial.seed)
    before = pretrain(model, data, trial.pretraining, trial.seed)
    records = list(train(prepare(model, trial.training, torch.device("cpu")), data, trial.training, trial.seed))
    with Store.open(runs) as store:
        frame = store.records_frame("before")
    own = frame[frame["trial"].eq(trial.content_hash) & ~frame["split"].eq("time")]
    stored = {(row.step, row.epoch, row.split, row.name): row.value for row in own.itertuples()}
    wanted = {
        (record.step, record.epoch, record.split, record.name): record.value
        for record in (*before.records, *records)
        if record.split not in ("batch", "time") and record.name != "seconds"
    }
    assert wanted == {key: value for key, value in stored.items() if key[3] != "seconds"}
    assert {split for _, _, split, _ in stored} >= {"pretraining-1", "pretraining-2"}


def test_pretraining_changes_the_network_and_counts_in_its_time(ran: tuple[ExpandedStudy, Path]) -> None:
    _, runs = ran
    with Store.open(runs) as store:
        frame, trials = store.records_frame("before"), store.trials_frame("before")
    first = frame[frame["split"].eq("train") & frame["epoch"].eq(1) & frame["name"].eq("loss")].set_index("arm")[
        "value"
    ]
    assert len(set(first)) == 3
    times = frame[frame["split"].eq("time") & frame["name"].eq("seconds")].groupby("arm")["value"].sum()
    assert trials.set_index("arm")["seconds"].to_dict() == pytest.approx(times.to_dict())
    assert (frame[frame["split"].eq("time") & frame["epoch"].eq(0)]["arm"]).tolist() == ["rbm", "coder"]


@pytest.mark.slow
def test_pictures_are_stored_and_shown(ran: tuple[ExpandedStudy, Path], tmp_path: Path) -> None:
    made, runs = ran
    hashes = {arm.name: trial.content_hash for arm, trial in made.trials()}
    with Store.open(runs) as store:
        stored = store.measurements("before", "pretraining")
        assert stored.keys() == {hashes["rbm"], hashes["coder"]}
        grids = {trial: ImageGrids.from_bytes(content) for trial, [(_, content)] in stored.items()}
        drawn, errors = pretraining_figures(grids, store.trials_frame("before"), store.records_frame("before"))
        page = write_report(store, "before", tmp_path).read_text()
    assert [panel.title for panel in drawn.panels] == ["rbm: filters", "rbm: samples", "coder: filters"]
    assert set(errors.data["layer"]) == {1, 2} and set(errors.data["pass"]) == {1, 2}
    assert page.count("data:image/png;base64,") >= 3 and 'id="pretraining"' in page
    assert (tmp_path / "figures" / "pretraining-images.svg").exists()
    # theory knows how weights are drawn, and not what pre-training makes of them
    assert "rbm and coder: pre-training replaces the initial weights." in page
    predicted = pd.read_csv(tmp_path / "tables" / "predicted-depth.csv")
    assert set(predicted["base"]) == {"old"}


def test_pretraining_that_diverges_is_a_diverged_trial(tmp_path: Path) -> None:
    wild = {"epochs": 2, "visible": "gaussian", "gaussian_learning_rate": 1e4}
    made = study(rbm={"network": NETWORK, "pretraining": wild})
    with Store.open(tmp_path) as store:
        store.register(made)
        InProcess().run(Job("before", tmp_path), lambda event: None)
        trials = store.trials_frame("before").set_index("arm")
    assert trials["state"].to_dict() == {"old": "finished", "rbm": "diverged"}
    assert "pre-training of layer 1 diverged" in trials.loc["rbm", "error"]
    assert trials.loc["rbm", "diverged_step"] >= 1


def test_damaged_pictures_are_one_line() -> None:
    with pytest.raises(DataError, match="the stored pre-training images are damaged"):
        ImageGrids.from_bytes(b"PK nothing")


@pytest.mark.slow
def test_pretraining_sees_the_training_images_alone() -> None:
    trial = next(trial for arm, trial in study().trials() if arm.name == "rbm")
    assert trial.pretraining is not None
    weights = {}
    for change, of in (("none", {}), ("test", {"test": 20}), ("train", {"train": 150})):
        data = batches.load(parse(DataSpec, DATA | of))
        model = build(trial.network, data.shape, data.classes, trial.seed)
        pretrain(model, data, trial.pretraining, trial.seed)
        weights[change] = next(model.parameters()).detach().numpy()
    assert np.array_equal(weights["none"], weights["test"])
    assert not np.array_equal(weights["none"], weights["train"])


def test_it_repeats_itself_to_the_bit() -> None:
    trial = next(trial for arm, trial in study().trials() if arm.name == "rbm")
    assert trial.pretraining is not None
    data = batches.load(trial.data)
    weights = []
    for _ in range(2):
        model = build(trial.network, data.shape, data.classes, trial.seed)
        pretrain(model, data, trial.pretraining, trial.seed)
        weights.append([parameter.detach().numpy().copy() for parameter in model.parameters()])
    assert all(np.array_equal(a, b) for a, b in zip(*weights, strict=True))


def test_without_pretraining_a_trial_is_what_it_was() -> None:
    old = next(trial for arm, trial in study().trials() if arm.name == "old")
    assert "pretraining" not in old.model_dump(mode="json")
    assert parse(TrialSpec, old.model_dump(mode="json")) == old


@pytest.mark.parametrize(
    ("network", "words"),
    [
        ({**NETWORK, "activation": "relu"}, "network.activation sigmoid, got relu"),
        ({**NETWORK, "shortcut": "A"}, "network.block.shortcut none, got A"),
        ({**NETWORK, "shared": True}, "network.sharing None"),
        ({**NETWORK, "normalisation": "batch"}, "network.normalisation none, got batch"),
        ("comparative-cnn", "network.layers fully-connected, got convolutional"),
        ("torch.nn:Identity", "torch.nn:Identity"),
    ],
)
def test_a_network_that_cannot_be_pretrained_is_refused(network: Any, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        study(wrong={"network": network, "pretraining": {"epochs": 1}})


def test_images_that_are_no_probabilities_are_refused() -> None:
    data = batches.load(DataSpec(name="digits", train=100, validation=20, test=20))
    trial = next(trial for arm, trial in study().trials() if arm.name == "rbm")
    with pytest.raises(DataError, match="normalise: none"):
        pretrain(build(trial.network, (1, 8, 8), 10), data, PretrainingSpec(epochs=1), 0)
