"""The page of evidence: what it says of a claim, and that it is the one that its data give."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from benchmarks.evidence import __main__ as command
from benchmarks.evidence.measuring import CONVERGENCE, compare_convergence, measure
from benchmarks.evidence.page import write_page

import leadline as ll
from leadline.parts.base import parse
from leadline.parts.metrics import Outputs
from leadline.specs.study import StudySpec
from leadline.study.expand import expand
from leadline.study.load import load_study

CLAIMS = yaml.safe_load(command.CLAIMS.read_text())
NOTHING_ELSE: dict[str, Any] = {"trained": [], "fast": {"published": [], "studies": []}, "computed": [], "studies": []}


def contrast(verdict: str, **others: Any) -> dict[str, Any]:
    values = {"a": "r", "b": "p", "metric": "test_error", "target": None, "unit": "points", "verdict": verdict, "n": 3}
    return {**values, "difference": -1.25, "ci_low": -2.0, "ci_high": -0.5, "needed_likely": None, **others}


def page(contrasts: list[dict[str, Any]], shown: list[dict[str, Any]]) -> str:
    claims = {"claims": [{"claim": "C", "source": "S", "shown": shown}], **NOTHING_ELSE}
    found = {"arms": {}, "contrasts": contrasts, "vanishing": ["deep[depth=9]"], "seeds": 3}
    return write_page(claims, {"s": found})


def asked(expected: str, **others: Any) -> dict[str, Any]:
    return {"study": "s", "a": "r", "b": "p", "expected": expected, **others}


@pytest.mark.slow
def test_the_page_is_the_one_of_the_measurements() -> None:
    measured = json.loads(command.MEASURED.read_text())
    assert command.PAGE.read_text() == write_page(CLAIMS, measured)


@pytest.mark.parametrize(
    ("verdict", "expected", "word"),
    [
        ("better", "better", "held"),
        ("worse", "better", "reversed"),
        ("equivalent", "better", "no difference"),
        ("undecided", "better", "undecided"),
        ("better", "equivalent", "reversed"),
        ("better", "not worse", "held"),
        ("equivalent", "not worse", "held"),
        ("worse", "not worse", "reversed"),
    ],
)
def test_what_a_verdict_says_of_a_claim(verdict: str, expected: str, word: str) -> None:
    assert f"| C | S | {word} |" in page([contrast(verdict)], [asked(expected)])


def test_an_interval_with_the_published_difference_does_not_exclude_it() -> None:
    wide, narrow = (contrast("equivalent", difference=0.0, ci_low=-low, ci_high=low) for low in (0.4, 0.2))
    text = page([wide], [asked("better", published=-0.3)])
    assert "0.40), 3 pairs; published −0.30, inside | equivalent | undecided; the interval has both 0" in text
    assert "| C | S | undecided |" in text
    text = page([narrow], [asked("better", published=-0.3)])
    assert "published −0.30, outside | equivalent | no difference |" in text and "| C | S | no difference |" in text


@pytest.mark.parametrize(
    ("changes", "distance", "said"),
    [
        ({}, True, ""),
        ({"seeds": [3, 4, 5]}, True, "seeds 3 to 5"),
        ({"seeds": [3, 5]}, True, "seeds [3, 5]"),
        ({"seeds": 3, "training.epochs": 1}, False, "seeds 3 and training.epochs 1"),
    ],
)
def test_a_changed_study_has_no_distance_from_what_was_published(
    changes: dict[str, Any], distance: bool, said: str
) -> None:
    arm = {"n": 4, "test_error_mean": 1.62, "test_error_sd": 0.1, "train_error_mean": 0.2, "train_error_sd": 0.1}
    measured = {"arms": {"cnn": arm}, "trials": 4, "epochs": 1, "train": None, "hours": 1, "date": "2026-01-01"}
    machine = {"cpu": "C", "device": "cpu", "torch": "T"}
    entries = [{"study": "comparative-mnist", "set": changes}]
    claims = {**NOTHING_ELSE, "claims": [], "trained": [{"study": "comparative-mnist"}], "studies": entries}
    text = write_page(claims, {"comparative-mnist": {**measured, "machine": machine, "contrasts": []}})
    found = "| cnn, test error | 1.52 | 1.62 ± 0.10 (4 seeds)" + ", +2.00 standard errors" * distance
    assert found + (f"; changed: {said} |" if said else " |") in text


def test_contrasts_at_several_levels_are_counted_and_missing_studies_named() -> None:
    levels = [
        contrast(word, a=f"r[depth={n}]", b=f"p[depth={n}]") for n, word in enumerate(("better", "better", "worse"))
    ]
    unsure = contrast("undecided", a="q", needed_likely=17.2)
    missing = {"study": "other", "a": "r", "b": "p", "expected": "better"}
    text = page([*levels, unsure], [asked("better"), asked("better", a="q"), missing])
    assert "| C | S | held by 2 and reversed by 1 (1 undecided and 1 not run) |" in text
    assert (
        "| `s` | r[depth=0] against p[depth=0], test error | −1.25 points (95% interval −2.00 to −0.50), 3 pairs |"
        in text
    )
    assert "undecided; about 18 seeds in all would decide" in text
    assert "| C | S | held by both |" in page(levels[:2], [asked("better")])
    assert "| C | S | held by 2 of 3 (1 undecided) |" in page(
        [*levels[:2], unsure], [asked("better"), asked("better", a="q")]
    )
    hopeless = contrast("undecided", needed_likely=130)
    assert "undecided; too small a difference to be decided by more seeds" in page([hopeless], [asked("better")])
    neither = contrast("undecided", n=0, difference=None)
    assert "| no pair in which both networks learned | undecided |" in page([neither], [asked("better")])


def test_epochs_of_convergence_stand_with_both_means_and_the_seeds_without_one() -> None:
    values = {"metric": "convergence_epoch", "unit": "epochs", "mean_a": 4.0, "mean_b": 5.25}
    ask = asked("better", metric="convergence_epoch", published=-15)
    text = page([contrast("better"), contrast("better", **values)], [ask])
    said = "4.00 against 5.25, −1.25 epochs (95% interval −2.00 to −0.50), 3 pairs; published −15.00, outside"
    assert f"| `s` | r against p, epoch of convergence | {said} | better | held |" in text
    text = page([contrast("undecided", **{**values, "n": 1, "ci_low": None, "ci_high": None})], [ask])
    assert "−1.25 epochs, 1 pair; at 2 seeds one or both have not converged; published −15.00 | undecided |" in text
    values |= {"n": 0, "difference": None, "ci_low": None, "ci_high": None, "mean_a": None, "mean_b": None}
    assert "| no pair in which both networks converged; published −15.00 |" in page(
        [contrast("undecided", **values)], [ask]
    )
    assert "| r against p, epoch of convergence |  |  | not run |" in page([], [ask])


def test_epochs_of_convergence_are_paired_by_seed_and_decided_alone() -> None:
    contrasts = [["two", "one"], {"a": "two", "b": "one", "metric": "epochs_to", "target": 50}]
    arms = {"one": {"network": "mlp"}, "two": {"network": {"family": "mlp", "hidden": 2}}}
    study = expand(parse(StudySpec, {"name": "s", "arms": arms, "contrasts": contrasts, "seeds": 6}))
    rows, records, outputs = [], [], {}
    epochs = {"one": (3, 4, 3, 4, 4, 9), "two": (1, 1, 1, 1, 2, 1)}  # of 9, at the last of which nothing has settled
    for arm, first in epochs.items():
        for seed, reached in enumerate(first):
            trial = f"{arm}{seed}"
            rows.append({"trial": trial, "arm": arm, "seed": seed, "state": "finished", "seconds": 1.0})
            curve = [0.9 if epoch >= reached else 0.5 for epoch in range(1, 10)]
            records += [(trial, epoch, "validation", "accuracy", value) for epoch, value in enumerate(curve, 1)]
            records.append((trial, 9, "final-train", "error", 0.0))
            outputs[trial] = Outputs(np.arange(10), np.arange(10))
    frame = pd.DataFrame(records, columns=["trial", "epoch", "split", "name", "value"])
    (found,) = compare_convergence(study, pd.DataFrame(rows), frame, outputs)
    assert (found["a"], found["b"], found["metric"], found["unit"]) == ("two", "one", "convergence_epoch", "epochs")
    assert (found["n"], found["mean_a"], found["mean_b"], found["difference"]) == (5, 1.2, 3.6, -2.4)
    assert found["verdict"] == "better" and found["ci_high"] < 0


def test_gradients_that_vanish() -> None:
    shown = [{"study": "s", "arm": "deep", "found": "vanishing"}, {"study": "s", "arm": "other", "found": "vanishing"}]
    text = write_page(
        {"claims": [{"claim": "C", "source": "S", "shown": shown}], **NOTHING_ELSE},
        {"s": {"arms": {"deep[depth=9]": {}, "other": {}}, "contrasts": [], "vanishing": ["deep[depth=9]"]}},
    )
    assert "| C | S | held by 1 and reversed by 1 |" in text
    assert "| `s` | gradients of deep | 1 of 1 arm | vanishing | held |" in text


def test_every_claim_is_about_studies_that_are_run_and_arms_that_they_have() -> None:
    run = {entry["study"] for entry in CLAIMS["studies"]}
    for claim in CLAIMS["claims"]:
        for shown in claim["shown"]:
            assert shown["study"] in run
            study = load_study(shown["study"])
            names = {name for arm in study.arms for name in (arm.name, arm.base)}
            assert {shown[key] for key in ("a", "b", "arm") if key in shown} <= names
            if "arm" not in shown:
                wanted = (shown["a"], shown["b"], shown.get("metric", "test_error"))
                found = [(one.a, one.b, one.metric) for one in study.contrasts]
                found += [(a, b, CONVERGENCE.name) for a, b, _ in found]
                assert wanted in found + [(a.split("[")[0], b.split("[")[0], metric) for a, b, metric in found]
    for entry in CLAIMS["trained"]:
        assert load_study(entry["study"]).published


def test_what_accuracy_costs_is_put_beside_what_is_published() -> None:
    published = {"method": "M", "accuracy": 94.01, "flops": 3.6e14, "seconds": 3.83, "machine": "A100", "source": "S"}
    claims = {"claims": [], **NOTHING_ELSE, "fast": {"published": [published], "studies": ["s", "later"]}}
    arm = {"n": 3, "test_error_mean": 9.5, "seconds": 1330.4, "flops": 1.53e14}
    text = write_page(claims, {"s": {"arms": {"plain": arm}, "machine": {"device": "cpu", "cpu": "Some CPU"}}})
    assert "| M | 94.01 | 3.6e+14 | 3.83 | A100 | S |" in text
    assert "| `s`, plain | 90.50 (3 seeds) | 1.5e+14 | 1330 | Some CPU | measured |" in text
    assert "| `later` | not run |" in text
    lost = {"n": 0, "test_error_mean": None, "seconds": None, "flops": 1.53e14}
    text = write_page(claims, {"s": {"arms": {"plain": lost}, "machine": {"device": "cpu", "cpu": "Some CPU"}}})
    assert "| `s`, plain | diverged | 1.5e+14 |  | Some CPU | measured |" in text


@pytest.mark.usefixtures("known_speed")
def test_a_stored_study_is_measured(tmp_path: Path) -> None:
    study = ll.Study(
        "tiny",
        arms={"one": "mlp", "two": {"network": {"family": "mlp", "hidden": 2}}},
        data={"name": "digits", "train": 60, "test": 40},
        training={"epochs": 1, "batch_size": 30},
        seeds=2,
    )
    results = study.run(tmp_path, workers=0, progress=False)
    found = measure("tiny", tmp_path)
    frame = results.verdict().contrasts
    assert (found["trials"], found["seeds"], found["epochs"], found["train"]) == (4, 2, 1, 60)
    assert found["contrasts"][0]["difference"] == pytest.approx(frame["difference"][0], abs=1e-6)
    assert found["arms"]["one"]["test_error_mean"] == pytest.approx(results.verdict().arms["test_error_mean"][0])
    assert found["vanishing"] is None
    assert all(one["seconds"] > 0 and one["flops"] > 0 for one in found["arms"].values())
    assert json.loads(json.dumps(found)) == found
    also = measure("tiny", tmp_path, convergence=True)["contrasts"]
    assert also[:-1] == found["contrasts"] and (also[-1]["metric"], also[-1]["unit"]) == ("convergence_epoch", "epochs")
    assert also[-1]["n"] == 0 and also[-1]["verdict"] == "undecided"  # one epoch tells of no convergence
