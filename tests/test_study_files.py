"""Study files as people write them: names that YAML 1.1 turns into other things, repeats, tags, tabs, empty files."""

from pathlib import Path

import pytest

from leadline.errors import SpecError
from leadline.study.load import load_study, parse_value

FILE = """name: own
data: {{name: digits, train: 100, test: 50}}
arms:
  {a}: {{network: {{family: comparative-resnet, blocks: 1}}}}
  {b}: {{network: {{family: comparative-plain, blocks: 1}}}}
seeds: 1
{more}
"""


@pytest.mark.parametrize(("a", "b"), [("on", "off"), ("yes", "true"), ("18", "34"), ("12:30", "x"), ("010", "1e-3")])
def test_arms_keep_the_names_that_are_written(tmp_path: Path, a: str, b: str) -> None:
    for more in (f"contrasts: [[{b}, {a}]]", f"contrasts: [{{a: {b}, b: {a}}}]"):
        study = load_study(_write(tmp_path, FILE.format(a=a, b=b, more=more)))
        assert [arm.name for arm in study.arms] == [a, b]
        assert [(one.a, one.b) for one in study.contrasts] == [(b, a)]


def _write(folder: Path, text: str) -> Path:
    (folder / "study.yaml").write_text(text)
    return folder / "study.yaml"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[
            ("010", 10),
            ("1_000", 1000),
            ("0x10", 16),
            ("0o10", 8),
            ("-3", -3),
            ("1e-3", 0.001),
            (".5", 0.5),
            ("1.", 1.0),
        ],
        *[("yes", "yes"), ("off", "off"), ("1:30", "1:30"), ("2026-01-02", "2026-01-02"), ("true", True), ("~", None)],
        *[(".inf", float("inf")), ("[1, on]", [1, "on"]), ("{1: 2}", {"1": 2}), ("", None), ("=", "=")],
    ],
)
def test_values_are_those_of_yaml_12(text: str, value: object) -> None:
    found = parse_value(text)
    assert found == value and type(found) is type(value)


def test_aliases_and_merges_work_within_bounds(tmp_path: Path) -> None:
    text = FILE.format(a="p", b="q", more="training: {epochs: 2}").replace(
        "p: {network: {family: comparative-resnet, blocks: 1}}",
        "p: &one {network: {family: comparative-resnet, blocks: 1}}\n  r: {<<: *one, training: {epochs: 1}}",
    )
    study = load_study(_write(tmp_path, text))
    assert [arm.name for arm in study.arms] == ["p", "r", "q"] and study.arms[1].trial.training.epochs == 1
    layers = [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 9)]
    bomb = "l0: &l0 [x]\n" + "\n".join(layers)
    with pytest.raises(SpecError, match=r"study\.yaml:1:1: invalid YAML: more than 100,000 values"):
        load_study(_write(tmp_path, bomb))
    with pytest.raises(SpecError, match="more than 100,000 values"):
        load_study(_write(tmp_path, "arms: &a {x: *a}"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: !!bool x", r"study\.yaml:1:7: invalid YAML: tag !!bool: tags are not used in study files"),
        ("name: !!python/object:os.system x", "tags are not used"),
        ("name: x\n\tarms: y", r"study\.yaml:2:1: invalid YAML: a tab, .* indent with spaces"),
        ("", "the file is empty"),
        ("# nothing\n", "the file is empty"),
        ("name: x\nname: y", r"study\.yaml:2:1: invalid YAML: key 'name' appears twice"),
        ("? [a]\n: b", "cannot be a key"),
        ("- a\n- b", "expected a mapping with name, arms, ..., got list"),
    ],
)
def test_what_is_no_study_file_gets_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message) as error:
        load_study(_write(tmp_path, text))
    assert "\n" not in str(error.value)


def test_a_folder_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").mkdir()
    with pytest.raises(SpecError, match="is a folder, where a YAML file is expected"):
        load_study(tmp_path / "study.yaml")
