"""Study files as people write them: names that YAML 1.1 turns into other things, repeats, tags, tabs, empty files."""

from pathlib import Path

import pytest

from leadline.api import Study
from leadline.cli.options import settings_of
from leadline.errors import SpecError
from leadline.study.expand import ExpandedStudy
from leadline.study.load import load_study
from leadline.study.pipeline import prepare
from leadline.study.yaml12 import parse_value

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
        ("name: x\n\tarms: y", r"study\.yaml:2:1: invalid YAML: a tab, .* use spaces"),
        ("", "the file is empty"),
        ("# nothing\n", "the file is empty"),
        ("name: x\nname: y", r"study\.yaml:2:1: invalid YAML: key 'name' appears twice"),
        ("? [a]\n: b", "cannot be a key"),
        ("name: x\nseeds: [1,\n", r"study\.yaml:3:1: invalid YAML: the file ends inside brackets"),
        ("name: x\ntitle: a: b", r"study\.yaml:2:9: invalid YAML: a colon that is not expected here; "),
        ("name: x\n---\nname: y", r"study\.yaml:2:1: invalid YAML: a second document begins here"),
        ("name: x\n\u00a0arms: y\nseeds: 1", r"key '\\xa0arms' contains no-break space"),
        ("name:\u00a0x\nseeds: 1", "line 1 contains a no-break space"),
        ("name: x\ntitle: a\x1b[31m", r"study\.yaml:2:9: invalid YAML: character U\+001B is not allowed"),
        ('name: "\\ud800"', "contains half of a character"),
        ("arms:\n", r"study\.yaml:1:1: arms: no value: input should be a mapping"),
        ("name: x\n", r"study\.yaml:1:1: 'arms' is required but missing$"),
        ("name: x\narms: {}\n", r"study\.yaml:2:1: arms: {}: expected at least 1 entry$"),
        ("hello", "expected a mapping with name, arms, ..., got 'hello'"),
        ("- a\n- b", "expected a mapping with name, arms, ..., got a list"),
    ],
)
def test_what_is_no_study_file_gets_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        load_study(_write(tmp_path, text))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "latin-1"])
def test_files_of_other_encodings_are_read_by_their_mark_or_refused(tmp_path: Path, encoding: str) -> None:
    text = FILE.format(a="größe", b="q", more="").replace("\n", "\r\n")
    path = tmp_path / "study.yaml"
    path.write_bytes(text.encode(encoding))
    if encoding in ("utf-8-sig", "utf-16"):
        assert load_study(path).arms[0].name == "größe"
    else:
        with pytest.raises(SpecError, match=r"study\.yaml:\d+.*: .*save the file as UTF-8"):
            load_study(path)


def test_a_folder_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").mkdir()
    with pytest.raises(SpecError, match="is a folder, where a YAML file is expected"):
        load_study(tmp_path / "study.yaml")


def test_everything_that_is_wrong_is_said_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = """\
name: own
titel: x
training: {epohcs: 3, optimizer: {name: adam, learning_rat: 0.1}}
arms:
  a: {network: {family: comparative-resnt}}
  b: {network: {family: comparative-plain, widht: 3}}
  c: {network: {family: cifar-resnet, depth: 21}}
  d: {network: 3}
seeds: [1, x]
"""
    with pytest.raises(SpecError) as error:
        load_study(_write(tmp_path, text), {"data.train": "many"})
    assert [line.removeprefix(f"{tmp_path}/") for line in error.value.lines] == [
        "study.yaml:2:1: unknown key 'titel'; did you mean 'title'?",
        "study.yaml:3:12: training: unknown key 'epohcs'; did you mean 'epochs'?",
        "study.yaml:3:47: training.optimizer: unknown key 'learning_rat'; did you mean 'learning_rate'?",
        "study.yaml:5:7: arms.a: unknown network 'comparative-resnt'; did you mean 'comparative-resnet'?",
        "study.yaml:6:44: arms.b: comparative-plain: unknown argument 'widht'; known: blocks, initialisation",
        "study.yaml:7:39: arms.c: cifar-resnet: depth 21 is not 6n+2; nearest: 20, 26",
        "study.yaml:8:7: arms.d.network: 3: input should be a valid string, or a mapping",
        "study.yaml:9:12: seeds.1: 'x': input should be a valid integer",
        "setting data.train: data.train: 'many': input should be a valid integer",
    ]


def test_a_problem_of_one_part_brings_no_others_that_follow_from_it(tmp_path: Path) -> None:
    text = FILE.format(a="p", b="q", more="training: {epochs: x, warmup: {steps: 20}}\ncontrasts: [[q, p], [p, r]]")
    text = text.replace("seeds: 1", "seeds: 0").replace("blocks: 1", "blocks: 2")
    text = text.replace("{family: comparative-plain, blocks: 2}", "comparative-plain")
    with pytest.raises(SpecError) as error:
        load_study(_write(tmp_path, text))
    assert [line.split(": ", 1)[1] for line in error.value.lines] == [
        "seeds: 0: input should be greater than or equal to 1, or a valid list",
        "training.epochs: 'x': input should be a valid integer",
        "contrasts.1: unknown arm 'r'; known: p, q",
    ]


def test_an_error_at_a_level_names_the_level_and_one_of_an_arms_override_the_override(tmp_path: Path) -> None:
    text = FILE.format(a="p", b="q", more="vary: {blocks: [1, 0, 2]}")
    text = text.replace(", blocks: 1}", "}").replace("plain}}", "plain}, training: {epocs: 2}}")
    with pytest.raises(SpecError) as error:
        load_study(_write(tmp_path, text))
    assert [line.removeprefix(f"{tmp_path}/") for line in error.value.lines] == [
        "study.yaml:5:56: arms.q: training: unknown key 'epocs'; did you mean 'epochs'?",
        "study.yaml:7:20: arms.p: comparative-resnet: blocks: 0: input should be greater than or equal to 1",
        "study.yaml:7:20: arms.q: comparative-plain: blocks: 0: input should be greater than or equal to 1",
    ]


def test_networks_that_the_data_do_not_fit_are_said_with_their_lines(tmp_path: Path) -> None:
    stage = "{blocks: 1, width: 4, pool: true}"
    text = FILE.format(a="p", b="q", more="").replace(
        "{family: comparative-plain, blocks: 1}", f"{{stages: [{', '.join([stage] * 5)}]}}"
    )
    text = text.replace("{family: comparative-resnet, blocks: 1}", '{module: "torch.nn:Linear"}')
    study = load_study(_write(tmp_path, text))
    for check in (lambda: Study.load(tmp_path / "study.yaml").plan(tmp_path), lambda: prepare(study, None)):
        with pytest.raises(SpecError) as error:
            check()
        first, second = (line.removeprefix(f"{tmp_path}/") for line in error.value.lines)
        assert first.startswith("study.yaml:4:7: arm p: torch.nn:Linear: calling it failed: ")
        assert second.startswith("study.yaml:5:7: arm q: an image of 1x8x8 is too small")


def test_errors_of_yaml_that_do_not_end_the_reading_are_said_together(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as error:
        load_study(_write(tmp_path, "name: x\nname: y\nseeds: !!int 3\n? [a]\n: b\ntitle\u00a0: z\n"))
    assert [line.removeprefix(f"{tmp_path}/study.yaml:") for line in error.value.lines] == [
        "2:1: invalid YAML: key 'name' appears twice",
        "3:8: invalid YAML: tag !!int: tags are not used in study files",
        "4:3: invalid YAML: a list or mapping cannot be a key; put quotes around it",
        r"6:1: invalid YAML: key 'title\xa0' contains no-break space (U+00A0); remove it",
    ]


def test_more_trials_than_a_study_may_have_are_refused_before_they_are_made() -> None:
    levels = {"blocks": list(range(1, 301)), "training.batch_size": list(range(1, 101))}
    study = {"name": "large", "arms": {"a": {"network": "comparative-plain"}}, "vary": levels, "seeds": 10}
    with pytest.raises(SpecError, match=r"1 arm x 30,000 combinations of levels x 10 seeds are 300,000 trials, and"):
        load_study(study)
    for key, value in {"devices": 10**9, "seeds": 10**9}.items():
        with pytest.raises(SpecError, match=f"{key}: 1000000000: input should be less than or equal to"):
            load_study({**study, "vary": {}, key: value})


def test_results_of_several_views_of_an_image_are_said_to_be() -> None:
    flipped = {"training": {"epochs": 1, "evaluation": {"flip": True}}, "data": {"name": "digits"}}
    arms = {"a": {"network": "mlp"}, "b": {"network": {"family": "mlp", "hidden": 2}}}
    both = load_study({"name": "views", "arms": arms, **flipped})
    assert both.remarks == (
        "At the end of training, validation and test results are of the mean over 2 views of each image"
        " (training.evaluation).",
    )
    one = load_study(
        {"name": "views", "arms": arms | {"b": {"network": "mlp", "training": {"evaluation": None}}}, **flipped}
    )
    assert "over several views of each image in 1 of 2 arms" in one.remarks[0]
    assert not load_study(
        {"name": "views", "arms": arms, **flipped, "training": {"evaluation": {"flip": False}}}
    ).remarks


def test_views_that_are_tuned_are_said_once_they_are_chosen() -> None:
    tune = {"budget": 2, "training.evaluation.flip": {"choice": [True, False]}}
    training = {"epochs": 1, "evaluation": {"flip": True}}
    arms = {"a": {"network": "mlp"}, "b": {"network": {"family": "mlp", "hidden": 2}}}
    study = load_study({"name": "views", "data": {"name": "digits"}, "arms": arms, "training": training, "tune": tune})
    chosen = {name: {"training.evaluation.flip": name == "a"} for name in ("a", "b")}
    assert study.remarks == ()
    assert "over several views of each image in 1 of 2 arms" in study.resolve(chosen=chosen).remarks[-1]


def test_of_many_arms_each_is_compared_with_the_first_and_a_sentence_says_so() -> None:
    def a_study(count: int, **more: object) -> ExpandedStudy:
        arms = {f"a{n}": {"network": "comparative-plain", "training": {"batch_size": n + 1}} for n in range(count)}
        return load_study({"name": "many", "data": {"name": "digits", "train": 50}, "arms": arms, "seeds": 1, **more})

    few, many = a_study(10), a_study(11)
    assert len(few.contrasts) == 45 and few.remarks == ()
    assert [(one.a, one.b) for one in many.contrasts] == [(f"a{n}", "a0") for n in range(1, 11)]
    sentence = (
        "The study names no contrasts and has 11 arms, more than 10: each arm is compared with the first, a0, and not"
        " with the others."
    )
    assert many.remarks == (sentence,)
    assert a_study(11, contrasts=[["a3", "a4"]]).remarks == ()
    assert len(a_study(300).contrasts) == 299


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ("contrasts=[[18, 34]]", [("18", "34")]),
        ("contrasts=[{a: 18, b: on, metric: train_error}]", [("18", "on")]),
        ("contrasts=[[on, 34], [on, 18]]", [("on", "34"), ("on", "18")]),
    ],
)
def test_settings_of_the_command_line_hold_lists_and_names(setting: str, expected: list[tuple[str, str]]) -> None:
    networks = {"18": "comparative-plain", "34": "comparative-resnet", "on": "comparative-cnn"}
    study = {"name": "x", "arms": {arm: {"network": network} for arm, network in networks.items()}}
    changes = settings_of([setting, "seeds=[3, 5]", "vary.blocks=[2, 3]", "match={what: parameters, to: 18}"])
    found = load_study(study, {key: value for key, value in changes.items() if key != "match"})
    assert [(one.a, one.b) for one in found.contrasts] == [
        (f"{a}[blocks={n}]", f"{b}[blocks={n}]") for a, b in expected for n in (2, 3)
    ]
    assert found.seed_values == (3, 5)
    assert changes["match"] == {"what": "parameters", "to": "18"}
