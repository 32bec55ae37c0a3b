"""What a report says of training settings and of networks."""

import re
from dataclasses import replace

import pytest

from leadline.analysis.stats import summarise
from leadline.analysis.verdict import ArmFinding, Findings
from leadline.data.network_input import NetworkInput
from leadline.networks.modules import inspect_network
from leadline.reports.networks import SHOWN_DRAWINGS, setup_section
from leadline.reports.page import Section, _setting
from leadline.reports.settings import name_arms, settings_table
from leadline.reports.tables import accuracy_table
from leadline.specs import parse
from leadline.specs.study import StudySpec
from leadline.study.expand import ExpandedStudy, expand
from leadline.study.load import load_study, ready_studies


def study_of(**more: object) -> ExpandedStudy:
    arms = {"plain": {"network": "comparative-plain"}, "residual": {"network": "comparative-resnet"}}
    return expand(parse(StudySpec, {"name": "s", "arms": arms, **more}))


def rows_of(study: ExpandedStudy) -> dict[str, list[tuple[str, str]]]:
    found: dict[str, list[tuple[str, str]]] = {}
    for row in settings_table(study).rows:
        found.setdefault(row["setting"], []).append((row["value"], row["arms"]))
    return found


@pytest.mark.parametrize("name", ready_studies())
def test_every_arm_of_every_ready_study_has_one_value_of_each_setting(name: str) -> None:
    study = load_study(name)
    bases = [arm.base for arm in study.arms]
    for setting, values in rows_of(study).items():
        assert len({value for value, _ in values}) == len(values), setting
        assert (len(values) == 1) == (values[0][1] == "every arm"), setting
        named = re.split(r", | and ", ", ".join(arms for _, arms in values))
        if set(named) <= set(bases):
            assert sorted(named) == sorted(set(bases)), setting  # each once
    assert not [row for row in settings_table(study).rows if row["value"] in ("", "None")]


def test_settings_say_what_differs_between_arms() -> None:
    study = study_of(
        training={"epochs": 7, "warmup": {"steps": 20}, "label_smoothing": 0.1},
        vary={"training.batch_size": [32, 64], "blocks": [2, 5]},
        seeds=[3, 5],
    )
    found = rows_of(study)
    assert found["Epochs"] == [("7", "every arm")]
    assert found["Batch size"] == [("32", "training.batch_size = 32"), ("64", "training.batch_size = 64")]
    assert found["Shortcuts"] == [("none", "plain"), ("A", "residual")]
    assert found["Optimizer"] == [("sgd (momentum 0.9, weight decay 0)", "every arm")]
    assert found["Learning rate"] == [("0.1", "every arm")]
    assert found["Warm-up"] == [("steps 20, factor 0, form linear", "every arm")]
    assert found["Loss"] == [("cross-entropy", "every arm")] and found["Label smoothing"] == [("0.1", "every arm")]
    assert found["Images"] == [("1,294 training, 143 validation and 360 test", "every arm")]
    assert found["Seeds"] == [("2: 3 and 5", "every arm")]
    assert "Gradient clipping" not in found and "is with label smoothing;" in settings_table(study).note
    assert settings_table(study_of()).note == ""


def test_seeds_by_source_and_what_the_training_loss_includes() -> None:
    assert rows_of(study_of(seeds={"init": 2}))["Seeds"] == [("2: seed.init=0 and seed.init=1", "every arm")]
    mixed = settings_table(study_of(data={"augment": [{"pad": 1}, "mixup"]}, training={"label_smoothing": 0.1})).note
    assert (
        mixed == "The training loss is with label smoothing and mixed images; validation and test losses are without."
    )
    own = study_of(training={"loss": {"module": "torch.nn:MultiMarginLoss"}}, vary={"data.label_noise": [0.0, 0.2]})
    assert "is with wrong labels (data.label_noise = 0.2) and a loss of its own;" in settings_table(own).note


def test_arms_are_named_as_shortly_as_is_clear() -> None:
    arms = study_of(vary={"blocks": [2, 5, 10]}).arms
    of = {arm.name: arm for arm in arms}
    assert name_arms(arms, list(of)) == "every arm"
    assert (
        name_arms(arms, [name for name, arm in of.items() if arm.factors["blocks"] != 2])
        == "blocks = 5 and blocks = 10"
    )
    assert name_arms(arms, ["plain[blocks=2]", "residual[blocks=5]"]) == "plain[blocks=2] and residual[blocks=5]"


def test_networks_are_counted_as_the_inspection_counts_them_and_drawn_once() -> None:
    study = study_of(vary={"blocks": [2, 3], "training.batch_size": [32, 64]})
    section = setup_section(study, {}, None)
    _, networks = section.tables
    assert [row["arm"] for row in networks.rows] == [arm.name for arm in study.arms]
    for row, arm in zip(networks.rows, study.arms, strict=True):
        info = inspect_network(arm.trial.network, (1, 8, 8), 10)
        assert (row["parameters"], row["multiply_adds"]) == (info.parameters, info.multiply_adds)
        assert row["input"] == "1×8×8"
    assert [one.title for one in section.drawings] == [
        f"{base}[blocks={blocks},training.batch_size=32] and {base}[blocks={blocks},training.batch_size=64]"
        for base in ("plain", "residual")
        for blocks in (2, 3)
    ]
    assert all(one.svg.startswith("<svg") and len(one.svg) < 60_000 for one in section.drawings)


def test_more_networks_than_are_drawn_are_counted_and_unknown_data_are_said() -> None:
    study = study_of(vary={"blocks": list(range(1, 9))})
    section = setup_section(study, {}, None)
    assert len(section.drawings) == SHOWN_DRAWINGS and len(section.tables[1].rows) == 16
    assert section.paragraphs == ("The first 12 of 16 different networks are drawn.",)
    lost = study_of(data={"name": "npz", "path": "gone.npz"})
    section = setup_section(lost, {}, None)
    (said,) = section.paragraphs
    assert said.startswith("The network of plain and residual could not be counted: ") and "gone.npz" in said
    assert not section.drawings and not section.tables[1].rows
    known = NetworkInput(input_shape=(1, 8, 8), classes=10, mean=(((0.0,),),), scale=(1.0,))
    section = setup_section(lost, {"plain": known}, None)  # as a finished trial stored it
    assert [row["arm"] for row in section.tables[1].rows] == ["plain"] and len(section.drawings) == 1


def test_of_more_networks_than_are_counted_both_numbers_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("leadline.reports.networks.SHOWN_NETWORKS", 5)
    monkeypatch.setattr("leadline.reports.networks.SHOWN_DRAWINGS", 2)
    section = setup_section(study_of(vary={"blocks": [1, 2, 3]}), {}, None)
    assert len(section.tables[1].rows) == 5 and len(section.drawings) == 2
    counted, drawn = section.paragraphs
    assert (
        counted.startswith("5 of 6 different networks are counted")
        and drawn == "The first 2 of 5 of these networks are drawn."
    )


def test_all_data_sets_and_all_numbers_of_epochs_stand_in_the_head() -> None:
    study = study_of(vary={"data.name": ["digits", "mnist"], "training.epochs": [1, 4]})
    assert _setting(study) == "digits and mnist · 1 to 4 epochs"
    assert _setting(study_of(training={"epochs": 1})) == "digits · 1 epoch"


def test_final_accuracies_are_100_minus_errors_data_set_by_data_set() -> None:
    errors = {f"{split}_error": summarise([2.0, 4.0]) for split in ("train", "test")}
    arm = ArmFinding("a[data.name=mnist]", "a", {"data.name": "mnist"}, 2, 2, 0, 0, 0, errors, None, None, "mnist")
    other = replace(arm, name="a[data.name=digits]", data="digits", metrics={})
    findings = Findings("s", "", (arm, other), (), data_sets=("digits", "mnist"))
    table = accuracy_table(findings)
    assert [row["data"] for row in table.rows] == ["digits", "mnist"]
    assert table.shown[1][3:] == ("97.00 ± 1.41", "–", "97.00 ± 1.41") and table.shown[0][3:] == ("–",) * 3
    assert not accuracy_table(replace(findings, curves={"loss": "Loss"})).rows
    assert Section("s", "S").drawings == ()
