"""Study files that Leadline writes: every study survives being printed, saved and loaded, and new files can be run."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from leadline.api import Study
from leadline.cli import app
from leadline.errors import LeadlineError, SpecError
from leadline.specs.study import StudySpec
from leadline.store import Store
from leadline.study.load import load_study, read_study
from leadline.study.ready import RENAMED, ready_studies
from leadline.study.writing import FIRST, OPTIONS, new_study_file, to_yaml
from leadline.study.yaml12 import read_yaml

runner = CliRunner()
STORED = sorted((Path(__file__).parent / "fixtures/stores/studies").glob("*.yaml"))
STRANGE = [
    "1e-3",
    "on",
    "010",
    "12:30",
    "null",
    "~",
    "0x10",
    "# no comment",
    "a: b",
    "[x]",
    " spaces ",
    "two\nlines",
    "",
]


def hashes(study: str | Path) -> list[str]:
    return [trial.content_hash for _, trial in load_study(study).trials()]


def small_study(**changes: object) -> Study:
    keys: dict[str, object] = {
        "data": {"name": "digits", "train": 40, "validation": 20, "test": 20},
        "training": {"epochs": 1, "batch_size": 20},
        "seeds": 1,
    }
    return Study("tiny", arms={"a": "comparative-plain", "b": "comparative-resnet"}, **(keys | changes))


@pytest.mark.parametrize("name", [*ready_studies(), *map(str, STORED)])
def test_a_study_is_the_same_after_being_written_and_read(name: str, tmp_path: Path) -> None:
    study = load_study(name)
    file = tmp_path / "saved.yaml"
    file.write_text(to_yaml(study.spec), encoding="utf-8")
    again = load_study(file)
    assert again.spec == study.spec
    assert [trial.content_hash for _, trial in again.trials()] == [trial.content_hash for _, trial in study.trials()]
    assert again.changes == study.changes == ""
    assert max(map(len, file.read_text().splitlines())) <= 120


@pytest.mark.parametrize("text", STRANGE)
def test_text_that_looks_like_something_else_stays_text(text: str) -> None:
    spec = FIRST.with_(notes=text, title=text)
    assert read_yaml(to_yaml(spec)).value == {
        **read_yaml(to_yaml(FIRST)).value,  # type: ignore[dict-item]
        **({"notes": text, "title": text} if text else {}),
    }


def test_a_contrast_keeps_a_metric_that_decide_would_replace(tmp_path: Path) -> None:
    spec = StudySpec.model_validate_json(
        '{"name": "x", "arms": {"a": {"network": "comparative-plain"}, "b": {"network": "comparative-resnet"}},'
        ' "contrasts": [{"a": "a", "b": "b", "metric": "test_error"}, ["a", "b"]], "decide": {"metric": "macro_f1"}}'
    )
    (tmp_path / "x.yaml").write_text(to_yaml(spec))
    assert "{a: a, b: b, metric: test_error}, [a, b]" in to_yaml(spec)
    assert load_study(tmp_path / "x.yaml").spec == spec


# --- new files


@pytest.mark.parametrize("key", OPTIONS)
def test_an_option_of_a_new_file_can_be_used(key: str, tmp_path: Path) -> None:
    text = new_study_file(FIRST.with_(contrasts=None))
    used = re.sub(rf"^# ({key}: )", r"\1", text, count=1, flags=re.MULTILINE)
    assert used != text
    if key == "decide":
        used = re.sub(r"^seeds:.*\n", "", used, flags=re.MULTILINE)
    (tmp_path / "used.yaml").write_text(used)
    assert getattr(load_study(tmp_path / "used.yaml").spec, key) != getattr(FIRST.with_(contrasts=None), key)


def test_init_writes_a_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = runner.invoke(app, ["init", "mine"], catch_exceptions=False)
    assert result.output.splitlines() == [
        "written: mine.yaml",
        "Next: change it, then leadline plan mine.yaml, then leadline run mine.yaml",
    ]
    assert load_study("mine.yaml").spec == FIRST.with_(name="mine")
    keys = re.findall(r"^# (?=[a-z]+:)|^([a-z]+):", Path("mine.yaml").read_text(), re.MULTILINE)
    assert [key for key in keys if key] == ["name", "data", "training", "arms", "vary", "seeds", "contrasts"]
    Path("mine.yaml").write_text("changed")
    with pytest.raises(LeadlineError, match="exists; choose another file with --output, or overwrite it with --force"):
        runner.invoke(app, ["init", "mine"], catch_exceptions=False)
    assert Path("mine.yaml").read_text() == "changed"
    assert runner.invoke(app, ["init", "mine", "--force"]).exit_code == 0
    assert load_study("mine.yaml").name == "mine"


def test_init_begins_with_another_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in (["one", "--from", "comparative-mnist"], ["two", "--from", "one.yaml", "--output", "other.yaml"]):
        assert runner.invoke(app, ["init", *arguments], catch_exceptions=False).exit_code == 0
    assert hashes("other.yaml") == hashes("comparative-mnist")
    assert load_study("other.yaml").spec.based_on == "comparative-mnist"
    small_study().run(tmp_path / "runs", workers=0, progress=False)
    assert runner.invoke(app, ["init", "three", "--from", "tiny"], catch_exceptions=False).exit_code == 0
    assert load_study("three.yaml").spec == small_study().spec.with_(name="three")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["demo"], "demo is the name of a ready study; choose another"),
        (["a b"], "name: 'a b'"),
        (["x", "--from", "dmo"], "unknown study 'dmo'; did you mean 'demo'"),
        (["x", "--from", "none.yaml"], r"none\.yaml: no such file"),
        (["x", "--output", "nowhere/x.yaml"], r"nowhere/x\.yaml: cannot be written: No such file"),
    ],
)
def test_init_says_what_is_wrong_in_one_line(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LeadlineError, match=words) as error:
        runner.invoke(app, ["init", *arguments], catch_exceptions=False)
    assert len(error.value.lines) == 1 and not list(tmp_path.iterdir())


# --- show


@pytest.mark.parametrize("name", ["demo", "techniques"])
def test_what_show_prints_of_a_ready_study_can_be_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("saved.yaml").write_text(runner.invoke(app, ["show", name], catch_exceptions=False).output)
    assert hashes("saved.yaml") == hashes(name)
    again = runner.invoke(app, ["show", "saved.yaml"], catch_exceptions=False).output
    assert again == Path("saved.yaml").read_text() == read_study(name)


def test_show_prints_a_stored_study_first_and_what_is_known_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    changes = {"training.epochs": 1, "vary.blocks": [2], "seeds": 1, "data.train": 40, "data.test": 20}
    study = Study.load("demo", changes)
    study.run(tmp_path / "runs", workers=0, progress=False)
    output = runner.invoke(app, ["show", "demo"], catch_exceptions=False).output
    assert "ready study of this name" in output.splitlines()[0]
    assert "# trials: 2 finished" in output and "training.epochs" in output
    Path("saved.yaml").write_text(output)
    assert hashes("saved.yaml") == [trial.content_hash for _, trial in study.expanded.trials()]
    assert load_study("saved.yaml").changes == study.expanded.changes != ""
    ready = runner.invoke(app, ["show", "demo", "--runs", "elsewhere"], catch_exceptions=False).output
    assert ready == read_study("demo")


# --- names


@pytest.mark.parametrize(("old", "new"), RENAMED.items())
def test_an_earlier_name_stands_for_the_study_and_says_its_name(old: str, new: str) -> None:
    with pytest.warns(UserWarning, match=f"study {old} is now called {new}"):
        study = load_study(old)
    assert study.name == new and old not in ready_studies()


def test_a_study_on_digits_does_not_name_another_data_set() -> None:
    for name in ready_studies():
        data = load_study(name).spec.data.name
        named = {one for one in ("cifar10", "mnist", "digits", "imagenet") if one in name}
        assert named <= {data, "imagenet" if data == "imagefolder" else data}, name


def test_titles_hold_no_numbers_that_a_setting_changes() -> None:
    for title in ready_studies().values():
        assert not re.search(r"\d", title.replace("CIFAR-10", "")), title


# --- what is changed


def test_a_changed_ready_study_says_so_and_compares_no_published_numbers() -> None:
    study = load_study("degradation-cifar10", {"training.epochs": 3, "vary.depth": [20, 56]})
    assert study.title.endswith("on CIFAR-10 (changed)")
    assert study.changes.startswith(
        "Changed from the ready study degradation-cifar10: training.epochs 182 -> 3, vary.depth [20, 32, 44, 56, 110]"
        " -> [20, 56]."
    )
    assert "notes are those of the unchanged study" in study.changes
    assert "published numbers are for the unchanged study" in study.changes
    assert study.remarks[0] == study.changes
    assert study.spec.published and not study.published


def test_seeds_and_probes_change_no_experiment() -> None:
    study = load_study("comparative-mnist", {"seeds": 2, "probes": "flow"})
    assert "seeds 5 -> 2" in study.changes and "unchanged" not in study.changes
    assert study.title == ready_studies()["comparative-mnist"] and study.published
    assert load_study("comparative-mnist", {"name": "mine"}).changes == ""


def test_a_title_and_published_numbers_of_ones_own_are_kept() -> None:
    published = [{"arm": "cnn", "value": 5, "source": "mine"}]
    study = load_study("comparative-mnist", {"training.epochs": 3, "title": "Mine", "published": published})
    assert study.title == "Mine" and [one.value for one in study.published] == [5]


def test_what_is_changed_is_stored_and_shown_with_the_results(tmp_path: Path) -> None:
    changes = {"training.epochs": 1, "vary.blocks": [2], "seeds": 2, "data.train": 40, "data.test": 20, "name": "cut"}
    results = Study.load("demo", changes).run(tmp_path, workers=0, progress=False)
    line = load_study("demo", changes).changes
    assert line in str(results.verdict()).replace("\n", " ")
    with Store.open_existing(tmp_path) as store:
        (summary,) = store.studies()
        assert summary.title == f"{ready_studies()['demo']} (changed)"
        assert store.study("cut").expand().changes == line


def test_an_unknown_origin_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("name: x\nbased_on: dmo\narms:\n  a: {network: comparative-plain}\n")
    with pytest.raises(SpecError, match=r"x\.yaml:2:1: based_on: unknown ready study 'dmo'; did you mean 'demo'"):
        load_study(tmp_path / "x.yaml")


def test_studies_without_an_origin_are_stored_as_before() -> None:
    assert "based_on" not in small_study().spec.model_dump(mode="json")
    assert "based_on" not in FIRST.model_dump(mode="json")
