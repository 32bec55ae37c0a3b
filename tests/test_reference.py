"""The reference of study files: everything in it has a meaning, it is up to date, and `leadline list` prints it too."""

import json

import pytest
from docs.reference import PATH, reference
from typer.testing import CliRunner

from leadline.cli import app
from leadline.errors import SpecError
from leadline.networks import FAMILIES
from leadline.parts.base import parse
from leadline.specs.study import StudySpec
from leadline.study.load import load_study
from leadline.study.ready import ready_studies
from leadline.study.vocabulary import KINDS, SECTIONS, Entry, entries, find_entries, keys_of
from leadline.study.yaml12 import read_yaml

runner = CliRunner()
EVERYTHING = [entry for kind in KINDS for entry in entries(kind)]


@pytest.mark.parametrize("key", SECTIONS)
def test_every_key_has_a_meaning(key: str) -> None:
    keys = keys_of(SECTIONS[key])
    assert keys and not [one.name for one in keys if not one.meaning or not one.type]


@pytest.mark.parametrize("entry", EVERYTHING, ids=lambda entry: f"{entry.kind} {entry.name}")
def test_every_part_and_each_of_its_keys_has_a_meaning(entry: Entry) -> None:
    assert entry.summary
    assert not [key.name for key in entry.keys if not key.meaning or not key.type]
    if entry.kind == "network":
        assert entry.source


@pytest.mark.parametrize("entry", EVERYTHING, ids=lambda entry: f"{entry.kind} {entry.name}")
def test_every_example_is_valid(entry: Entry) -> None:
    if "..." in entry.example:
        pytest.skip("needs a file")
    rest = {
        "name": "example",
        "arms": {"plain": {"network": "comparative-plain"}, "residual": {"network": "comparative-resnet"}},
    }
    given = read_yaml(entry.example).value
    assert isinstance(given, dict)
    parse(StudySpec, {**rest, **given})
    load_study({**rest, **given})


def test_every_specification_in_a_study_is_described() -> None:
    described = {one.__name__ for one in SECTIONS.values()}
    parts = {member.__name__ for kind, members in KINDS.items() if kind != "metric" for member in members().values()}
    unions = {"LogSpace", "LinearSpace", "IntegerSpace", "ChoiceSpace", "ProbeSpec", "Reference"}
    found = set(StudySpec.model_json_schema()["$defs"])
    assert {name for name in found - described - parts - unions if not name.startswith("Custom")} == set()


def test_the_page_is_up_to_date() -> None:
    assert PATH.read_text(encoding="utf-8") == reference(), "run python -m docs.reference"


def test_list_describes_a_network_a_data_set_and_a_ready_study() -> None:
    network = runner.invoke(app, ["list", "cifar-resnet"], catch_exceptions=False).output
    assert "depth (integer; default 20)" in network and "He et al. 2015" in network
    assert "example: arms: {mine: {network: cifar-resnet}}" in network
    both = runner.invoke(app, ["list", "parity"], catch_exceptions=False).output
    assert "parity: ready study" in both and "parity: data set" in both
    study = runner.invoke(app, ["list", "degradation-digits"], catch_exceptions=False).output
    assert "20 epochs, 18 trials" in study and "depth: 8, 20, 56" in study
    assert "leadline init NAME --from degradation-digits" in study


@pytest.mark.parametrize("name", ["demo", "digits", "sgd", "epochs_to", *FAMILIES])
def test_list_describes_as_json(name: str) -> None:
    (found,) = json.loads(runner.invoke(app, ["list", name, "--json"], catch_exceptions=False).output)
    assert found["name"] == name and found["summary"]


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(SpecError, match="unknown name 'cifar-resnt'; did you mean 'cifar-resnet'") as error:
        runner.invoke(app, ["list", "cifar-resnt"], catch_exceptions=False)
    assert len(error.value.lines) == 1


def test_names_of_several_things_are_all_found() -> None:
    assert [entry.kind for entry in find_entries("parity")] == ["data set"] and "parity" in ready_studies()
