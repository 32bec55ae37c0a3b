"""Arms made equal: counts against inspection, proportions, what is kept, what is said, what cannot be."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leadline.analysis.verdict import analyze, notes
from leadline.data.metadata import describe
from leadline.errors import SpecError
from leadline.networks import FAMILIES, cifar_preresnet, cifar_resnet, comparative_cnn, densenet, mlp, recnet, resnext
from leadline.networks.modules import build, inspect_network
from leadline.specs import NetworkSpec
from leadline.specs.study import StudySpec
from leadline.store import Store
from leadline.study.expand import ExpandedStudy, expand
from leadline.study.load import load_study
from leadline.study.match import TOLERANCE, count, match, nearest, widths_of, with_widths

SHAPE = (3, 32, 32)
INFO_FIELD = {"parameters": "parameters", "multiply_adds": "multiply_adds", "activations": "training_memory"}


def _resnext() -> NetworkSpec:
    """Return the two last stages of a small ResNeXt, after a stem."""
    whole = resnext(50, groups=8, group_width=4).model_dump(mode="json")
    return NetworkSpec.model_validate(
        whole | {"stages": tuple({**stage, "blocks": 2} for stage in whole["stages"][2:])}
    )


def study(arms: dict[str, object], **more: object) -> ExpandedStudy:
    named = {name: {"network": network} for name, network in arms.items()}
    return expand(StudySpec.model_validate({"name": "equal", "arms": named, **more}))


@pytest.mark.slow
@pytest.mark.parametrize("what", list(INFO_FIELD))
@pytest.mark.parametrize("spec", [comparative_cnn(3), cifar_preresnet(29), densenet(16), mlp(3), recnet(), _resnext()])
def test_counts_are_those_of_inspection(what: str, spec: NetworkSpec) -> None:
    assert count(what, spec, SHAPE, 10) == getattr(inspect_network(spec, SHAPE, 10), INFO_FIELD[what])


@pytest.mark.slow
@pytest.mark.parametrize("what", list(INFO_FIELD))
def test_each_level_is_made_equal_to_its_own_reference(what: str) -> None:
    found = match(
        study({"cnn": "comparative-cnn", "resnet": "comparative-resnet"}, vary={"blocks": [2, 10]}, match=what)
    )
    arms = {arm.name: arm.trial.network for arm in found.arms}
    shape, classes = describe(found.arms[0].trial.data)
    for blocks in (2, 10):
        assert arms[f"cnn[blocks={blocks}]"] == comparative_cnn(blocks)
        one, other = (
            getattr(inspect_network(arms[f"{base}[blocks={blocks}]"], shape, classes), INFO_FIELD[what])
            for base in ("resnet", "cnn")
        )
        assert abs(one / other - 1) <= TOLERANCE
        assert arms[f"resnet[blocks={blocks}]"].stages[0].blocks == blocks


@pytest.mark.slow
def test_a_stored_study_expands_to_the_same_trials(tmp_path: Path) -> None:
    asked = study({"a": "comparative-cnn", "b": "comparative-resnet"}, vary={"blocks": [2, 5]}, match="parameters")
    found = match(asked)
    with Store.open(tmp_path) as store:
        store.register(found)
        again = store.study("equal").expand()
    assert again == found and again.spec == asked.spec
    assert [t.content_hash for _, t in again.trials()] == [t.content_hash for _, t in found.trials()]
    assert [t.content_hash for _, t in found.trials()] != [t.content_hash for _, t in asked.trials()]


@pytest.mark.slow
def test_what_was_changed_is_said_with_its_numbers() -> None:
    found = match(
        study({"deep": "comparative-resnet", "cnn": "comparative-cnn"}, match={"what": "parameters", "to": "cnn"})
    )
    [change] = found.resolved.matched or []
    before, after, target = (
        inspect_network(spec, (1, 8, 8), 10).parameters
        for spec in (FAMILIES["comparative-resnet"](), change.network, comparative_cnn())
    )
    width = change.network.stages[0]
    assert change.arm == "deep"
    assert change.sentence == (
        f"match parameters: deep widths 32/64 -> {width.width}/{width.inner_width}: {before:,} -> {after:,} parameters,"
        f" {100 * abs(after / target - 1):.1f}% from the {target:,} of cnn."
    )


@pytest.mark.slow
def test_one_arm_at_one_level_can_be_the_measure_of_all() -> None:
    found = match(
        study({"r": "cifar-resnet"}, vary={"depth": [20, 32]}, match={"what": "parameters", "to": "r[depth=32]"})
    )
    shallow, deep = (inspect_network(arm.trial.network, (1, 8, 8), 10).parameters for arm in found.arms)
    assert abs(shallow / deep - 1) <= TOLERANCE
    assert found.arms[1].trial.network == cifar_resnet(32)
    assert found.arms[0].trial.network.stages[0].width > 16


def test_arms_that_are_equal_stay_as_they_are_and_that_is_said() -> None:
    before = study({"p": "comparative-plain", "r": "comparative-resnet"}, match="parameters")
    found = match(before)
    assert found.arms == before.arms
    assert found.resolved.matched == []
    assert found.matching == ("match parameters: the arms are already equal within 1%; nothing was changed.",)
    assert before.matching == ()
    assert match(study({"p": "comparative-plain", "r": "comparative-resnet"})).matching == ()


@pytest.mark.slow
def test_the_verdict_says_what_was_changed(tmp_path: Path) -> None:
    found = match(study({"cnn": "comparative-cnn", "resnet": "comparative-resnet"}, match="parameters", seeds=2))
    with Store.open(tmp_path) as store:
        store.register(found)
        findings = analyze(found, store.trials_frame("equal"), store.records_frame("equal"), {})
    assert notes(findings)[0] == found.matching[0]


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from(
        [
            cifar_resnet(8),
            cifar_resnet(8, "B"),
            cifar_preresnet(11),
            densenet(10),
            FAMILIES["highway"](depth=8),
            FAMILIES["wide-resnet"](depth=10, widen=1),
            FAMILIES["recurrent-resnet"](steps=2, states=3),
            comparative_cnn(4),
            mlp(4, shortcut="A"),
        ]
    ),
    st.floats(0.3, 4),
)
def test_what_is_found_is_near_and_keeps_all_but_widths(spec: NetworkSpec, factor: float) -> None:
    target = round(factor * count("parameters", spec, SHAPE, 10))
    found = nearest(spec, target, lambda one: count("parameters", one, SHAPE, 10))
    assert with_widths(found, widths_of(spec, inside=True)) == with_widths(spec, widths_of(spec, inside=True))
    # the coarsest network here has widths of 16, and one step of all of them is 12%
    assert abs(count("parameters", found, SHAPE, 10) / target - 1) < 0.05
    build(found, SHAPE, 10)


@pytest.mark.slow
@settings(max_examples=4, deadline=None)
@given(st.floats(0.4, 3))
def test_equal_widths_stay_equal_where_blocks_are_shared(factor: float) -> None:
    spec = FAMILIES["recurrent-resnet"](steps=4, width=48)
    found = nearest(
        spec, round(factor * count("parameters", spec, SHAPE, 10)), lambda one: count("parameters", one, SHAPE, 10)
    )
    assert found.stem is not None and found.stem.width == found.stages[0].width


@pytest.mark.slow
def test_bottlenecks_and_groups_get_widths_that_divide() -> None:
    spec = _resnext()
    target = count("parameters", spec, SHAPE, 10) // 2
    found = nearest(spec, target, lambda one: count("parameters", one, SHAPE, 10))
    assert abs(count("parameters", found, SHAPE, 10) / target - 1) <= TOLERANCE
    assert all(stage.inner_width % 8 == 0 for stage in found.stages)
    grouped = nearest(
        cifar_resnet(8).with_(normalisation="group"), 60_000, lambda one: count("parameters", one, SHAPE, 10)
    )
    assert all(stage.width % 16 == 0 for stage in grouped.stages)


@pytest.mark.parametrize(
    ("arms", "asked", "message"),
    [
        (
            {"tiny": {"family": "mlp", "hidden": 2, "width": 1}, "cnn": "comparative-cnn"},
            "parameters",
            r"match parameters: cnn cannot be matched within 1%; closest: widths 64/32 -> .* from the .* of tiny;",
        ),
        (
            {"a": "comparative-cnn", "own": "ownnets:linear"},
            "parameters",
            r"match parameters: own: ownnets:linear is a custom module, with 650 parameters against [\d,]+ of a",
        ),
        ({"a": "comparative-cnn", "b": "comparative-resnet"}, {"what": "parameters", "to": "c"}, "unknown arm 'c'"),
    ],
)
def test_what_cannot_be_matched_is_one_line(
    arms: dict[str, object], asked: object, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ownnets.py").write_text(
        "from torch import nn\ndef linear(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SpecError, match=message) as caught:
        match(study(arms, match=asked))
    assert "\n" not in str(caught.value)


def test_a_wrong_key_in_the_file_gets_its_place(tmp_path: Path) -> None:
    text = "name: s\narms: {a: {network: comparative-cnn}, b: {network: comparative-resnet}}\nmatch: "
    for asked, message in [
        ("flops", r"s.yaml:3:1: match: 'flops': input should be 'parameters', 'multiply_adds'"),
        ("{what: parameters, to: nobody}", r"s.yaml:3:27: match.to: unknown arm 'nobody'; known: a, b"),
        ("{to: a}", r"s.yaml:3:1: match: 'what' is required but missing"),
        ("3", r"s.yaml:3:1: match: 3"),
        (
            "parameters\nmatched: []",
            r"s.yaml:4:1: matched: matched is determined by match when the study runs and .* remove",
        ),
    ]:
        (tmp_path / "s.yaml").write_text(text + asked)
        with pytest.raises(SpecError, match=message) as caught:
            load_study(str(tmp_path / "s.yaml"))
        assert "\n" not in str(caught.value)


def test_arms_that_matching_makes_the_same_are_no_contrast() -> None:
    arms = {"narrow": {"family": "mlp", "hidden": 2, "width": 20}, "wide": {"family": "mlp", "hidden": 2, "width": 30}}
    with pytest.raises(
        SpecError,
        match="wide and narrow have the same network and the same training, so there is"
        " nothing to compare; change one of them",
    ):
        match(study(arms, match="parameters"))


def test_a_study_that_was_not_matched_is_not_registered(tmp_path: Path) -> None:
    asked = study({"a": "comparative-cnn", "b": "comparative-resnet"}, match="parameters")
    with Store.open(tmp_path) as store, pytest.raises(SpecError, match="match must be resolved before"):
        store.register(asked)
