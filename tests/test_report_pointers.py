"""What a report says is worth a look, and how it stays small."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from leadline.analysis.diagnostics import COLUMNS, Diagnostics
from leadline.analysis.stats import summarise
from leadline.analysis.verdict import ArmFinding, Findings, analyze, depth_sentence, gap_sentence
from leadline.data.batches import load
from leadline.parts.metrics import Outputs
from leadline.reports.mistakes import mistakes_section
from leadline.reports.networks import setup_section
from leadline.reports.page import write
from leadline.reports.writing import PREDICTED_ARMS, _outputs, _predict
from leadline.specs import parse
from leadline.specs.study import StudySpec
from leadline.study.expand import ExpandedStudy, expand

MOST = 3_000_000
"""Bytes of a report."""


def arm(base: str, blocks: int, train: list[float], test: list[float], at_chance: int = 0) -> ArmFinding:
    errors = {"train_error": summarise(train), "test_error": summarise(test)}
    count = len(train)
    name = f"{base}[blocks={blocks}]"
    return ArmFinding(name, base, {"blocks": blocks}, count, count, 0, 0, at_chance, errors, None, None)


def test_the_largest_gap_is_said_of_arms_that_have_learned() -> None:
    arms = (arm("a", 2, [1.0, 2.0], [5.0, 6.0]), arm("b", 2, [0.0], [90.0], 1), arm("c", 2, [3.0], [4.5]))
    said = gap_sentence(Findings("s", "", arms, ()))
    assert said.startswith("a[blocks=2] has the largest gap") and "1.5% of the training" in said and "5.5% of" in said
    assert gap_sentence(Findings("s", "", arms[1:2], ())) == ""
    assert gap_sentence(Findings("s", "", (arm("a", 2, [3.0], [3.5]),), ())) == ""


def test_a_training_error_that_rises_with_depth_is_said_with_its_ends() -> None:
    plain = (arm("plain", 20, [9.0, 11.0], [12.0]), arm("plain", 2, [2.0, 4.0], [5.0]), arm("plain", 5, [3.0], [5.0]))
    residual = (arm("residual", 2, [3.0], [4.0]), arm("residual", 20, [1.0], [2.0]))
    said = depth_sentence(Findings("s", "", (*residual, *plain), ()))
    assert said.startswith("The training error of plain rises from 3.0% at blocks = 2 to 10.0% at blocks = 20")
    assert depth_sentence(Findings("s", "", residual, ())) == ""
    noisy = (arm("p", 2, [1.0, 9.0], [5.0]), arm("p", 5, [2.0, 12.0], [5.0]))
    assert depth_sentence(Findings("s", "", noisy, ())) == ""
    by_two = tuple(replace(one, factors={**one.factors, "width": n}) for n, one in enumerate(plain))
    assert depth_sentence(Findings("s", "", by_two, ())) == ""


def test_harder_data_are_no_failure_of_training() -> None:
    levels = (arm("plain", 0, [1.0, 2.0], [9.0]), arm("plain", 1, [30.0, 31.0], [20.0]))
    by_noise = tuple(replace(one, factors={"data.label_noise": n}) for n, one in enumerate(levels))
    assert depth_sentence(Findings("s", "", levels, ())) and depth_sentence(Findings("s", "", by_noise, ())) == ""
    gap = gap_sentence(Findings("s", "", (arm("a", 2, [1.0], [5.0]), levels[0]), (), mislabelled=("plain[blocks=0]",)))
    assert gap.startswith("Of the arms with right training labels, a[blocks=2] has the largest gap")


def measured(study: ExpandedStudy, epochs: int) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, Outputs]]:
    generator = np.random.default_rng(0)
    labels = load(study.arms[0].trial.data).test_labels
    trials, records, outputs = [], [], {}
    for one, spec in study.trials():
        row = {"trial": spec.content_hash, "arm": one.name, "base": one.base, "seed": spec.seed}
        when = pd.Timestamp("2026-11-21T05:00Z")
        trials.append(
            {**row, "factors": dict(one.factors), "state": "finished", "error": None, "diverged_step": pd.NA}
            | {"started": when, "ended": when, "seconds": 9.0, "environment": None}
        )
        values = [
            (epoch, split, name, value)
            for epoch in range(1, epochs + 1)
            for split in ("train", "validation", "test")
            for error in [60 / epoch + 2 * generator.random()]
            for name, value in (("error", error), ("accuracy", 1 - error / 100), ("loss", error / 30))
        ]
        values += [(epochs, f"final-{split}", "error", 5.0 + generator.random()) for split in ("train", "test")]
        records += [{**row, "step": e, "epoch": e, "split": s, "name": n, "value": v} for e, s, n, v in values]
        probabilities = generator.dirichlet(np.full(10, 0.3), len(labels)).astype(np.float32)
        predicted = np.where(generator.random(len(labels)) < 0.7, labels, probabilities.argmax(1))
        outputs[spec.content_hash] = Outputs(labels, predicted, probabilities)
    return pd.DataFrame(trials).astype({"diverged_step": "Int64"}), pd.DataFrame(records), outputs


@pytest.mark.parametrize("arms", [PREDICTED_ARMS, PREDICTED_ARMS + 2])
def test_arms_of_which_theory_is_not_compared_are_said(arms: int) -> None:
    network = {"family": "mlp", "hidden": 3, "activation": "relu"}
    named = {f"arm{n}": {"network": {**network, "width": 8 + n}} for n in range(arms)}
    study = expand(parse(StudySpec, {"name": "s", "arms": named, "contrasts": [], "seeds": 1}))
    seen = Diagnostics(
        pd.DataFrame([(*("t", "arm0", "arm0", 0, 1, "kind", "layer", 1, 1, 0.5),)], columns=list(COLUMNS))
    )
    (section,) = _predict(study, seen, None)
    predicted = [said.partition(":")[0] for said in section.paragraphs[:PREDICTED_ARMS]]
    assert (predicted[0], predicted[-1]) == ("arm0", f"arm{arms - 1}")
    assert set(section.figures[0].data["base"]) == set(predicted)
    left_out = [said for said in section.paragraphs if said.startswith(f"These are {PREDICTED_ARMS} of {arms} arms")]
    assert len(left_out) == (arms > PREDICTED_ARMS)
    assert not list(_predict(study, replace(seen, frame=seen.frame.iloc[:0]), None))


def test_probabilities_that_are_too_many_are_counted_and_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.arange(10)
    asked = []

    class Stored:
        def outputs(self, study: str, probabilities: bool = True) -> dict[str, Outputs]:
            asked.append(probabilities)
            return {f"t{n}": Outputs(labels, labels, np.eye(10) if probabilities else None) for n in range(3)}

    study = expand(parse(StudySpec, {"name": "s", "arms": {"a": {"network": "comparative-cnn"}}, "seeds": 3}))
    for most, unread in ((300, 0), (299, 300)):
        monkeypatch.setattr("leadline.reports.writing.MOST_PROBABILITIES", most)
        found, too_many = _outputs(Stored(), study)  # type: ignore[arg-type]
        assert too_many == unread
        assert all((one.probabilities is None) == bool(unread) for one in found.values())
    assert asked == [False, True, False]


def write_whole(arms: int, epochs: int, folder: Path) -> str:
    """The page of a study of so many arms, with everything that a report has without probes."""
    named = {
        f"a-rather-long-name-of-arm-{n}": {
            "network": {"family": ("comparative-plain", "comparative-resnet")[n % 2], "blocks": 1 + n}
        }
        for n in range(arms)
    }
    study = expand(parse(StudySpec, {"name": "s", "arms": named, "seeds": 2, "training": {"epochs": epochs}}))
    trials, records, outputs = measured(study, epochs)
    sections = (*mistakes_section(study, trials, outputs, {}, None), setup_section(study, {}, None))
    findings = analyze(study, trials, records, outputs.items())
    return write(study, findings, trials, records, folder, sections=sections).read_text(encoding="utf-8")


@pytest.mark.slow
def test_pointers_lead_to_places_on_the_page_and_images_have_words(tmp_path: Path) -> None:
    page = write_whole(2, 3, tmp_path)
    top = page[page.index("Where to look") : page.index('<nav aria-label="Sections">')]
    targets = re.findall(r'href="#([\w-]+)"', top)
    assert {"mistakes-confusion", "mistakes-calibration", "mistakes-images"} <= set(targets)
    assert all(page.count(f'id="{target}"') == 1 for target in targets)
    images = re.findall(r'<img src="([^"]+)" alt="([^"]+)" width="(\d+)" height="(\d+)">', page)
    assert images and all(uri.startswith("data:image/png;base64,") and "Class" in alt for uri, alt, _, _ in images)
    assert {(width, height) for _, _, width, height in images} == {("8", "8")}
    drawings = re.findall(r'<div class="drawing" role="region" aria-label="Drawing: ([^"]+)"', page)
    assert drawings == ["a-rather-long-name-of-arm-0", "a-rather-long-name-of-arm-1"]
    assert {path.name for path in (tmp_path / "figures").glob("network-*")} == {
        f"network-{n}.{end}" for n in (1, 2) for end in ("svg", "pdf")
    }
    ids = re.findall(r' id="([^"]+)"', re.sub(r"<script>.*?</script>", "", page, flags=re.S))
    assert len(ids) == len(set(ids))


@pytest.mark.slow
def test_a_report_of_many_arms_epochs_and_mistakes_stays_small(tmp_path: Path) -> None:
    page = write_whole(21, 60, tmp_path)
    assert len(page.encode()) < MOST
    for name in ("accuracy-fit", "loss-fit", "error-fit", "mistakes-confusion"):
        figure = page[page.index(f'<figure id="{name}"') :]
        figure = figure[: figure.index("</figure>")]
        assert figure.count('<div class="panel"') == 21  # every arm
