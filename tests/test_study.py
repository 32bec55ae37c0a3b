"""Studies: expansion, overrides, places in error messages, ready studies."""

import itertools
import json
import textwrap
from pathlib import Path

import pytest

from leadline.analysis.stats import sequential
from leadline.errors import SpecError
from leadline.networks import comparative_resnet
from leadline.networks.modules import inspect_network
from leadline.specs import SGD, Adam, DataSpec, TrainingSpec, decide, parse
from leadline.specs.contrast import ContrastSpec
from leadline.specs.study import StudySpec
from leadline.study.expand import expand
from leadline.study.load import load_study
from leadline.study.ready import ready_studies
from leadline.study.yaml12 import parse_value

EXAMPLE = """
name: example
data: {name: mnist}
training: {epochs: 30, batch_size: 128, optimizer: {name: adam, learning_rate: 0.001}}
arms:
  cnn:    {network: comparative-cnn}
  resnet: {network: comparative-resnet}
vary: {blocks: [2, 5, 10]}
seeds: 5
contrasts: [[resnet, cnn]]
"""


def written(folder: Path, text: str) -> str:
    path = folder / "study.yaml"
    path.write_text(textwrap.dedent(text))
    return str(path)


def test_arms_are_crossed_with_factors_and_seeds(tmp_path: Path) -> None:
    study = load_study(written(tmp_path, EXAMPLE))
    assert [arm.name for arm in study.arms] == [f"{base}[blocks={n}]" for base in ("cnn", "resnet") for n in (2, 5, 10)]
    assert study.contrasts == tuple(ContrastSpec(a=f"resnet[blocks={n}]", b=f"cnn[blocks={n}]") for n in (2, 5, 10))
    trials = list(study.trials())
    assert len(trials) == len({trial.content_hash for _, trial in trials}) == 30
    assert [trial.seed for _, trial in trials] == [seed for seed in range(5) for _ in range(6)]
    arm, trial = trials[4]
    assert arm.name == "resnet[blocks=5]"
    assert trial.network == comparative_resnet(5)


def test_the_same_study_in_python() -> None:
    spec = StudySpec(
        name="python",
        arms={
            "deep": {"network": {"family": "comparative-resnet", "blocks": 9}},
            "twin": {"network": "comparative-plain"},
        },
        seeds=[3, 4],
    )
    study = expand(spec)
    assert study.arms[0].trial.network == comparative_resnet(9)
    assert study.contrasts == (ContrastSpec(a="twin", b="deep"),)
    assert [trial.seed for _, trial in study.trials()] == [3, 3, 4, 4]


def test_stored_spec_expands_to_the_same_study(tmp_path: Path) -> None:
    study = load_study(written(tmp_path, EXAMPLE))
    assert expand(parse(StudySpec, study.spec.model_dump(mode="json"))) == study


def test_arms_override_training_key_by_key_and_optimizers_whole(tmp_path: Path) -> None:
    text = EXAMPLE + "  \n"
    text = text.replace(
        "{network: comparative-cnn}", "{network: comparative-cnn, training: {optimizer: {learning_rate: 0.01}}}"
    )
    text = text.replace(
        "{network: comparative-resnet}", "{network: comparative-resnet, training: {optimizer: {name: sgd}}}"
    )
    cnn, *_, resnet = load_study(written(tmp_path, text)).arms
    assert cnn.trial.training.optimizer == Adam(learning_rate=0.01)
    assert resnet.trial.training.optimizer == SGD()
    assert resnet.trial.training.epochs == 30


def test_dotted_factors_reach_training() -> None:
    study = load_study("demo", {"vary": {"training.batch_size": [32, 64]}})
    assert [(arm.name, arm.trial.training.batch_size) for arm in study.arms[:2]] == [
        ("plain[training.batch_size=32]", 32),
        ("plain[training.batch_size=64]", 64),
    ]


def test_settings_are_laid_over_the_file() -> None:
    study = load_study("demo", {"training.epochs": 1, "seeds": 2, "vary.blocks": [1]})
    assert study.arms[0].trial.training.epochs == 1
    assert len(list(study.trials())) == 4


def test_contrast_between_levels() -> None:
    study = load_study(
        "demo", {"contrasts": [{"a": "plain[blocks=10]", "b": "plain[blocks=2]", "metric": "train_error"}]}
    )
    assert study.contrasts[0].metric == "train_error"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "epochs: 30",
            "epochs: thirty",
            r"study.yaml:4:12: training.epochs: 'thirty': input should be a valid integer",
        ),
        ("epochs: 30", "epohcs: 30", r"study.yaml:4:12: training: unknown key 'epohcs'"),
        (
            "name: adam,",
            "name: adm,",
            r"study.yaml:4:53: training.optimizer.name: unknown name 'adm'; did you mean 'adam'",
        ),
        (
            "comparative-cnn",
            "comparativ-cnn",
            r"study.yaml:6:12: arms.cnn: unknown network 'comparativ-cnn'; did you mean",
        ),
        (
            "blocks: [2, 5, 10]",
            "blocks: [2, 0]",
            r"study.yaml:8:20: arms.cnn: comparative-cnn: blocks: 0: input should be",
        ),
        ("blocks: [2, 5, 10]", "depth: [2]", r"study.yaml:8:16: arms.cnn: comparative-cnn: unknown argument 'depth'"),
        ("[[resnet, cnn]]", "[[resnet, cn]]", r"study.yaml:10:13: contrasts.0: unknown arm 'cn'; did you mean 'cnn'"),
        (
            "[[resnet, cnn]]",
            "[[cnn, cnn]]",
            r"study.yaml:10:13: contrasts.0: arm 'cnn' is compared with itself; name"
            " two different arms",
        ),
        ("[[resnet, cnn]]", "[[cnn]]", r"contrasts.0: \['cnn'\] is not a pair of arms"),
        ("[[resnet, cnn]]", "[['cnn[blocks=2]', resnet]]", r"pairs an arm at one level with an arm at all levels"),
        ("seeds: 5", "seeds: 0", r"study.yaml:9:1: seeds: 0: input should be greater than or equal to 1"),
        ("seeds: 5", "seeds: [1, 1]", r"study.yaml:9:1: seeds: \[1, 1\] contains a seed twice"),
        ("name: example", "name: ../example", r"study.yaml:2:1: name: '../example': string should match pattern"),
        ("vary: {", "vary: [", r"study.yaml:8:2\d: invalid YAML"),
        ("arms:", "arms: 3\nrest:", r"study.yaml:5:1: arms: 3: input should be"),
        ("seeds: 5", "seeds: 5\nseeds: 6", r"study.yaml:10:1: invalid YAML: key 'seeds' appears twice"),
        ("seeds: 5", "seeds: [3000000000]", r"study.yaml:9:9: seeds.0: "),
        ("seeds: 5", f"seeds: {'9' * 5000}", r"study.yaml:9:8: invalid YAML: a number of 5,000 digits"),
        ("seeds: 5", f"notes: {'[' * 3000}", r"study.yaml: invalid YAML: "),
        ("seeds: 5", "notes: !!binary aGVsbG8=", r"study.yaml:9:8: invalid YAML: tag !!binary: tags are not used"),
        ("cnn:    {", '"c\\n": {', r"study.yaml:6:3: invalid YAML: key .* contains a control character"),
        ("[2, 5, 10]", "[2, 5, 2]", r"study.yaml:8:1: vary: \[2, 5, 2\] names a level of blocks twice"),
        ("blocks: [2, 5, 10]", "network.blocks.x: [2]", r"study.yaml:8:27: arms.cnn: .*blocks"),
        ("[[resnet, cnn]]", "[[resnet, cnn], [cnn, resnet]]", r"contrasts.1: cnn\[blocks=2\] and .* compared twice"),
        (
            "comparative-cnn",
            "comparative-resnet",
            r"contrasts.0: resnet\[blocks=2\] and .* the same network and the same training",
        ),
        ("{network: comparative-cnn}", "{network: {module: 'a:b', arguments: 3}}", r"arguments: 3: input should be"),
    ],
)
def test_a_bad_file_gets_lines_with_their_places(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in EXAMPLE
    with pytest.raises(SpecError, match=message) as caught:
        load_study(written(tmp_path, EXAMPLE.replace(old, new)))
    assert all("study.yaml:" in line and "\n" not in line for line in map(str, caught.value.problems))


def test_factors_reach_into_a_written_network_and_replace_what_has_another_name() -> None:
    spec = StudySpec(
        name="factors",
        training=TrainingSpec(optimizer=Adam(learning_rate=0.01)),
        arms={
            "own": {"network": {"stages": [{"blocks": 1, "width": 4}], "block": {"order": "original"}}},
            "sgd": {
                "network": {"stages": [{"blocks": 2, "width": 4}]},
                "training": {"optimizer": {"name": "sgd", "momentum": 0.5}},
            },
        },
        vary={
            "network.block.order": ["original", "full-preactivation"],
            "training.optimizer.learning_rate": [0.1, 0.2],
            "training.optimizer.name": ["adam", "sgd"],
        },
    )
    before = spec.content_hash
    trials = {arm.name: arm.trial for arm in expand(spec).arms}
    found = "[network.block.order={},training.optimizer.learning_rate=0.1,training.optimizer.name={}]"
    assert trials["own" + found.format("full-preactivation", "sgd")].network.block.order == "full-preactivation"
    assert trials["own" + found.format("original", "sgd")].network.block.order == "original"
    assert trials["own" + found.format("original", "sgd")].training.optimizer == SGD(learning_rate=0.1)
    assert trials["sgd" + found.format("original", "sgd")].training.optimizer == SGD(learning_rate=0.1, momentum=0.5)
    assert trials["sgd" + found.format("original", "adam")].training.optimizer == Adam(learning_rate=0.1)
    assert spec.content_hash == before


def test_another_data_set_keeps_the_size_of_the_subset() -> None:
    spec = StudySpec(
        name="data",
        data=DataSpec(name="mnist", train=1000),
        arms={"a": {"network": "comparative-cnn"}},
        vary={"data.name": ["mnist", "digits"]},
    )
    assert [arm.trial.data for arm in expand(spec).arms] == [
        DataSpec(name="mnist", train=1000),
        DataSpec(name="digits", train=1000),
    ]


def test_unknown_study_and_missing_file(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="unknown study 'dmo'; did you mean 'demo'"):
        load_study("dmo")
    with pytest.raises(SpecError, match="no such file"):
        load_study(str(tmp_path / "none.yaml"))


def test_binary_and_empty_files(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"name: x\ntitle: \xfc\n")
    with pytest.raises(SpecError, match=r"a\.yaml:2: byte 0xfc is not UTF-8; save the file as UTF-8"):
        load_study(str(tmp_path / "a.yaml"))
    (tmp_path / "b.yaml").write_text("")
    with pytest.raises(SpecError, match="expected a mapping"):
        load_study(str(tmp_path / "b.yaml"))


@pytest.mark.parametrize("name", list(ready_studies()))
def test_ready_studies_expand_under_their_file_name(name: str) -> None:
    study = load_study(name)
    assert study.spec.name == name
    assert study.spec.title == ready_studies()[name]
    assert study.contrasts


def test_the_published_studies_hold_their_numbers() -> None:
    published = {(p.arm, p.metric): p.value for p in load_study("comparative-mnist").spec.published}
    assert published[("resnet", "test_error")] == pytest.approx(100 * (1 - 0.9874))
    published = {(p.arm, p.metric): p.value for p in load_study("comparative-cifar10").spec.published}
    assert published[("cnn", "test_error")] == pytest.approx(100 * (1 - 0.5569))
    assert published[("resnet", "train_error")] == pytest.approx(100 * (1 - 0.98926))


@pytest.mark.slow
def test_the_parity_study_compares_networks_of_one_size() -> None:
    study = load_study("parity")
    parameters = {arm.base: inspect_network(arm.trial.network, (1, 1, 12), 2).parameters for arm in study.arms}
    assert max(parameters.values()) / min(parameters.values()) < 1.004
    assert {arm.trial.data for arm in study.arms} == {DataSpec(name="parity", bits=12)}
    assert {arm.trial.training.optimizer.weight_decay for arm in study.arms} == {0, 1}
    shared = {arm.base for arm in study.arms if arm.trial.network.sharing}
    assert shared == {name for name in parameters if name.startswith("recurrent")} != set()


OF_A_TECHNIQUE = {
    "relu": {"network.activation"},
    "initialisation": {"network.initialisation.name"},
    "batch-norm": {"network.normalisation"},
    "shortcuts": {"network.block.shortcut.kind"},
    "max-pooling": {f"network.stages.{stage}.{key}" for stage in "01" for key in ("pool", "stride")},
    "dropout": {"network.head.dropout"},
    "schedule": {"training.schedule.name", "training.schedule.milestones", "training.schedule.factor"},
}


def differences(a: object, b: object, path: str = "") -> set[str]:
    """The dotted keys at which two pieces of plain data differ."""
    if isinstance(a, dict) and isinstance(b, dict):
        return {d for key in a.keys() | b.keys() for d in differences(a.get(key), b.get(key), f"{path}.{key}")}
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b) and isinstance(a[0], dict):
        return {d for key, pair in enumerate(zip(a, b, strict=True)) for d in differences(*pair, f"{path}.{key}")}
    return set() if a == b else {path.removeprefix(".")}


@pytest.mark.parametrize("name", ["techniques", "techniques-mnist"])
def test_the_techniques_study_changes_one_technique_at_a_time(name: str) -> None:
    study = load_study(name)
    trials = {arm.name: arm.trial.model_dump(mode="json") for arm in study.arms}
    assert trials.keys() == {"base", "all"} | {f"{how}{what}" for how in ("+", "all-but-") for what in OF_A_TECHNIQUE}
    assert differences(trials["base"], trials["all"]) == set().union(*OF_A_TECHNIQUE.values())
    for what, keys in OF_A_TECHNIQUE.items():
        assert differences(trials["base"], trials[f"+{what}"]) == keys
        # He's initialisation is that of rectified units, Xavier's that of the others
        with_it = keys | ({"network.initialisation.name"} if what == "relu" else set())
        assert differences(trials["all"], trials[f"all-but-{what}"]) == with_it
    assert {(c.a, c.b) for c in study.contrasts} == {
        (arm, "all" if arm.startswith("all-but-") else "base") for arm in trials if arm != "base"
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[("3", 3), ("[1, 2]", [1, 2]), ("adam", "adam"), ("true", True), ("[", "[")],
        *[("1e-3", 0.001), ("1.5e3", 1500.0), ("2026-11-21", "2026-11-21"), ("e3", "e3"), ("9" * 5000, "9" * 5000)],
    ],
)
def test_settings_read_as_yaml(text: str, value: object) -> None:
    assert parse_value(text) == value


def test_an_epoch_that_an_arm_never_reaches_is_no_moment_for_a_probe(tmp_path: Path) -> None:
    text = "name: s\narms:\n  short: {network: comparative-plain, training: {epochs: 2}}\n"
    text += "  long: {network: comparative-resnet}\nprobes: {lesion: {at: [3]}}\n"
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(
        SpecError, match=r"s.yaml:3:3: arms.short: probes.lesion.at: epoch 3 is after the last"
    ) as caught:
        load_study(str(tmp_path / "s.yaml"))
    assert "\n" not in str(caught.value)
    again = expand(parse(StudySpec, load_study("gradients").spec.model_dump(mode="json")))
    assert again.arms == load_study("gradients").arms
    assert "decomposition" in again.arms[0].trial.probes.snapshots()


# --- seeds that are added until contrasts are decided


def deciding(**changes: object) -> StudySpec:
    arms = {"a": {"network": "comparative-cnn"}, "b": {"network": "comparative-resnet"}}
    return parse(StudySpec, {"name": "toy", "arms": arms, "decide": {"max_seeds": 10}, **changes})


def test_a_study_that_decides_begins_with_few_seeds_and_draws_from_all() -> None:
    study = expand(deciding())
    assert study.spec.seed_values == tuple(range(10)) and [trial.seed for _, trial in study.trials()] == [
        0,
        0,
        1,
        1,
        2,
        2,
    ]
    wider = study.resolve(drawn={"a": 3, "b": 5})
    assert [(arm.name, trial.seed) for arm, trial in wider.trials()][-3:] == [("b", 2), ("b", 3), ("b", 4)]
    listed = expand(deciding(seeds=[9, 7, 5, 3, 1], decide={"max_seeds": 4, "first": 2}))
    assert [trial.seed for _, trial in listed.trials()] == [9, 9, 7, 7] and listed.spec.seed_values == (9, 7, 5, 3)


def test_what_decide_says_once_holds_for_every_contrast_that_says_nothing() -> None:
    said = {"metric": "validation_error", "margin": 0.2}
    own = {"a": "b", "b": "a", "metric": "train_error", "margin": 2.0}
    study = expand(deciding(decide=said, contrasts=[["a", "b"], own, {"a": "a", "b": "b", "metric": "test_error"}]))
    assert [(one.metric, one.margin) for one in study.contrasts] == [
        ("validation_error", 0.2),
        ("train_error", 2.0),
        ("test_error", None),
    ]
    assert expand(deciding(decide=said)).contrasts[0].metric == "validation_error"
    # as a store gives it back
    for spec in (study.spec, deciding(decide=said), deciding(), deciding(seeds=list(range(20, 40)))):
        again = expand(parse(StudySpec, json.loads(spec.model_dump_json())))
        assert again.spec == spec and again.contrasts == expand(spec).contrasts


def test_studies_with_fixed_seeds_are_what_they_were() -> None:
    assert load_study("demo").seeds_of("plain[blocks=2]") == (0, 1, 2) and load_study("demo").spec.decide is None
    assert len(list(load_study("demo").trials())) == 18


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seeds": 3}, "seeds 3 and decide.max_seeds 10 differ"),
        ({"seeds": [1, 2, 3]}, "seeds lists 3 to draw from, fewer than decide.max_seeds 10"),
        ({"contrasts": []}, "the study has no contrasts to decide"),
        ({"arms": {"a": {"network": "comparative-cnn"}}}, "the study has no contrasts to decide"),
        ({"decide": {"max_seeds": 401}}, "decide.max_seeds: 401"),
        ({"decide": {"max_seeds": 1}}, "decide.max_seeds: 1"),
        ({"decide": {"max_seeds": 2}}, "first 3 is more than max_seeds 2"),
        ({"decide": {"first": 1}}, "decide.first: 1"),
        ({"decide": {"step": 0}}, "decide.step: 0"),
        ({"decide": {"confidence": 95}}, "decide.confidence: 95"),
        ({"decide": {"margin": -1}}, "decide.margin: -1"),
        ({"decide": {"metric": "accuracy"}}, "decide.metric: unknown metric 'accuracy'"),
        ({"decide": {"seeds": 5}}, "unknown key 'seeds'"),
        ({"decide": "yes"}, "decide: 'yes'"),
        ({"decide": {"max_seeds": "many"}}, "decide.max_seeds: 'many'"),
        ({"decide": {"metric": "epochs_to"}}, "no interval that is valid at every look is known for such times"),
        (
            {"contrasts": [{"a": "a", "b": "b", "metric": "seconds_to", "target": 5.0}]},
            "contrasts.0: metric seconds_to cannot be used with decide",
        ),
        ({"contrasts": [["a"]]}, "is not a pair of arms"),
    ],
)
def test_mistakes_in_deciding_get_one_line(changes: dict[str, object], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        expand(deciding(**changes))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_so_many_contrasts_that_no_error_is_left_for_each() -> None:
    arms = {f"a{number}": {"network": "comparative-cnn", "training": {"epochs": number + 1}} for number in range(46)}
    pairs = [list(pair) for pair in itertools.combinations(arms, 2)]
    many = deciding(arms=arms, contrasts=pairs, decide={"confidence": 0.999})
    with pytest.raises(
        SpecError, match=r"decide.confidence: confidence 0.999 leaves 0.001 for 1035 contrasts; lower it"
    ):
        expand(many)


def test_limits_of_deciding_are_those_of_its_statistics() -> None:
    assert decide.MOST == sequential.MOST_SEEDS
    assert pytest.approx((0.5, 1 - decide.LEAST_ERROR)) == sequential.CONFIDENCES
    for confidence in (0.5, 0.999):
        each = sequential.confidence_of_each(confidence, 1)
        assert (
            deciding(decide={"confidence": confidence}).decide and len(sequential.critical_values(20, each, 20)) == 20
        )


def test_an_arms_name_is_no_longer_than_a_database_keeps(tmp_path: Path) -> None:
    long = EXAMPLE.replace("  cnn: ", f"  {'c' * 245}: ").replace("contrasts: [[resnet, cnn]]", "")
    assert expand(load_study(written(tmp_path, long), {"vary.blocks": [2]}).spec)  # of 255 letters with its level
    with pytest.raises(
        SpecError, match=r"study.yaml:6:.* has 256 characters with its levels; at most 255 are allowed; "
    ):
        load_study(written(tmp_path, long))


def test_an_arms_own_code_replaces_a_part_and_inherits_no_arguments() -> None:
    study = load_study(
        {
            "name": "own",
            "data": {"name": "digits", "train": 100},
            "training": {"epochs": 1, "loss": {"module": "own:la", "arguments": {"q": 0.001}}},
            "arms": {
                "a": {"network": "mlp"},
                "b": {"network": "mlp", "training": {"loss": {"module": "own:lb"}}},
                "c": {"network": "mlp", "training": {"loss": {"module": "own:la", "arguments": {"q": 0.5}}}},
                "d": {"network": "mlp", "training": {"optimizer": {"module": "torch.optim:NAdam"}}},
                "e": {"network": "mlp", "data": {"module": "own:data"}},
            },
        }
    )
    arms = {arm.name: arm.trial.model_dump(mode="json") for arm in study.arms}
    losses = {name: one["training"]["loss"]["arguments"] for name, one in arms.items()}
    assert losses == {"a": {"q": 0.001}, "b": {}, "c": {"q": 0.5}, "d": {"q": 0.001}, "e": {"q": 0.001}}
    assert arms["d"]["training"]["optimizer"] == {"module": "torch.optim:NAdam", "arguments": {}}
    assert arms["e"]["data"]["module"] == "own:data" and arms["e"]["data"]["train"] == 100
