"""Specifications: frozen, exact round trips, hashes over everything, one-line errors."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from leadline.errors import SpecError
from leadline.networks import FAMILIES, cifar_resnet, mlp
from leadline.probes.snapshots import PROBES
from leadline.specs import (
    SCHEMA_VERSION,
    SGD,
    Adam,
    Augment,
    Cosine,
    DataSpec,
    FlowSpec,
    ModuleSpec,
    NetworkSpec,
    OneCycle,
    ProbeSpec,
    RMSprop,
    Stage,
    StepDecay,
    TrainingSpec,
    TrialSpec,
    Warmup,
    parse,
)
from leadline.specs.training import Precision

NETWORK = {"stages": [{"blocks": 2, "width": 16}]}


def trials() -> st.SearchStrategy[TrialSpec]:
    optimizers = st.one_of(
        st.builds(SGD, learning_rate=st.floats(1e-6, 10), nesterov=st.just(False)),
        st.builds(Adam, name=st.sampled_from(["adam", "adamw"]), learning_rate=st.floats(1e-6, 10)),
        st.builds(RMSprop, decay=st.floats(0, 0.999)),
    )
    schedules = st.one_of(
        st.builds(StepDecay, milestones=st.just((0.25, 0.5))),
        st.builds(Cosine),
        st.builds(OneCycle, peak_at=st.floats(0.1, 0.9)),
    )
    warmups = st.none() | st.builds(Warmup, steps=st.integers(1, 500))
    recipes = st.tuples(schedules, warmups).filter(lambda recipe: not (isinstance(recipe[0], OneCycle) and recipe[1]))
    training = st.builds(
        lambda recipe, **rest: TrainingSpec(schedule=recipe[0], warmup=recipe[1], **rest),
        recipe=recipes,
        epochs=st.integers(1, 1000),
        optimizer=optimizers,
        clip_norm=st.none() | st.floats(0.1, 10),
    )
    data = st.builds(
        DataSpec,
        name=st.sampled_from(["digits", "cifar10"]),
        train=st.none() | st.integers(1, 50_000),
        augment=st.none() | st.builds(Augment, pad=st.integers(0, 8)),
    )
    networks = st.sampled_from([function() for function in FAMILIES.values()])
    return st.builds(TrialSpec, network=networks, data=data, training=training, seed=st.integers(0, 2**31 - 1))


@given(trials())
def test_json_round_trip_is_exact(trial: TrialSpec) -> None:
    again = TrialSpec.model_validate_json(trial.model_dump_json())
    assert again == trial
    assert again.content_hash == trial.content_hash
    assert parse(TrialSpec, json.loads(trial.model_dump_json())) == trial


def test_specs_are_frozen_and_hashable() -> None:
    trial = parse(TrialSpec, {"network": NETWORK})
    with pytest.raises(ValidationError, match="frozen"):
        trial.seed = 3  # type: ignore[misc]
    assert len({trial, parse(TrialSpec, {"network": NETWORK})}) == 1


def test_hash_covers_defaults_seed_kind_and_schema_version(monkeypatch: pytest.MonkeyPatch) -> None:
    trial = parse(TrialSpec, {"network": NETWORK})
    spelled_out = parse(TrialSpec, {"network": NETWORK, "training": {"epochs": trial.training.epochs}})
    assert spelled_out.content_hash == trial.content_hash
    assert trial.with_(seed=1).content_hash != trial.content_hash
    assert trial.with_(training={"label_smoothing": 0.1}).content_hash != trial.content_hash
    before = trial.content_hash
    monkeypatch.setattr("leadline.parts.base.SCHEMA_VERSION", SCHEMA_VERSION + 1)
    assert trial.content_hash != before


def test_hash_changes_with_a_default() -> None:
    class Before(TrainingSpec):
        pass

    class After(TrainingSpec):
        epochs: int = 11

    After.__name__ = Before.__name__
    assert Before().content_hash != After().content_hash


def test_hash_is_the_same_on_every_machine() -> None:
    # pinned: a change here means that finished trials are no longer recognised, and needs a new schema version
    assert cifar_resnet(20).content_hash == PINNED_CIFAR_RESNET_20


@pytest.mark.parametrize(
    ("recipe", "before"),
    [
        ({"schedule": "cosine"}, "ed4fbc4e2193d109cc39518402fa015c42e053c2e539cfd00c689ff9b42b52ba"),
        (
            {"schedule": "step", "warmup": {"steps": 5, "factor": 0.1}},
            "a0f98538197737454ceb5aa66ba3dd42e1711af3cba5172e6c020cd4f1f2de82",
        ),
        (
            {"warmup": {"steps": 5, "factor": 0.1, "form": "constant"}},
            "977599f837e09798ecccb91c0c2ed17681f2bff5309f21d473634e4fc18089c1",
        ),
    ],
)
def test_recipes_that_give_what_they_gave_keep_their_hash(recipe: dict[str, object], before: str) -> None:
    assert parse(TrialSpec, {"network": NETWORK, "training": recipe}).content_hash == before


@pytest.mark.parametrize(
    ("recipe", "before"),
    [
        ({"schedule": "one-cycle"}, "9f10581004b50555fbcee0ead26a06533832b36ea903fa2c2cea583e5c2a6528"),
        ({"warmup": {"steps": 5}}, "1f36c03c25aaf37569a483393a5764b5138f92f322b925312e4c3c5455ae2313"),
        (
            {"schedule": "step", "warmup": {"steps": 5}},
            "0cbf5df7cd0178d65fa87a6799c9e439c9677a1307a85da6d7795c27e468be08",
        ),
        (
            {"schedule": "cosine", "warmup": {"steps": 5, "factor": 0.1}},
            "4d145bbdb1cff39f3c0fb1edec6df8ee4bc6eb07f27d0ed9906dc09e0a2d813d",
        ),
        (
            {"schedule": {"module": "math:sqrt"}, "warmup": {"steps": 5, "factor": 0.1}},
            "3238d7432c42d0d5a8c622fe8ced41fb4dcec3a11a1c919605bfcacced7c9951",
        ),
    ],
)
def test_recipes_that_gave_something_else_have_another_hash(recipe: dict[str, object], before: str) -> None:
    trial = parse(TrialSpec, {"network": NETWORK, "training": recipe})
    assert trial.content_hash != before
    assert parse(TrialSpec, json.loads(trial.model_dump_json())).content_hash == trial.content_hash


def test_only_trials_whose_probe_measures_otherwise_have_another_hash() -> None:
    def hashed(probe: str) -> str:
        return parse(TrialSpec, {"network": NETWORK, "probes": [probe]}).content_hash

    assert hashed("jacobian") == "61c11f697d6360bc15a1498a32e8049b04bbfee148bf339e35a3e9417e9b2ba1"
    assert hashed("hessian") != "d5609a9d92d9e5957d1825d0edac17c181116b81d16331fd0dc2420a265e5b51"


def test_a_revision_anywhere_inside_changes_the_hash_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    trial = parse(TrialSpec, {"network": NETWORK, "probes": ["cka"]})
    plain, before = trial.model_dump(mode="json"), trial.content_hash
    hashes = {before}
    for kind in (Stage, type(trial.probes.snapshots()["cka"]), TrialSpec):  # in a tuple, in a mapping, the whole
        with monkeypatch.context() as patch:
            patch.setattr(kind, "revision", 2)
            hashes.add(trial.content_hash)
            assert trial.model_dump(mode="json") == plain
    assert len(hashes) == 4 and trial.content_hash == before


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize(
    ("network", "perhaps_shared"),
    [
        (mlp(hidden=3), False),
        (mlp(hidden=3, shared=True), True),
        (ModuleSpec(module="torch.nn:Linear"), True),
    ],
)
def test_shared_weights_have_another_revision_in_half_precision(
    network: NetworkSpec | ModuleSpec, perhaps_shared: bool, precision: Precision
) -> None:
    trial = TrialSpec(network=network, training=TrainingSpec(precision=precision))
    assert trial.revision == (2 if perhaps_shared and precision != "float32" else 1)


PINNED_CIFAR_RESNET_20 = "211eb0981d4994e740cf1b8b23763933f258a92085f1b05746339738e12667f7"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"network": {"stages": [{"blocks": 0, "width": 8}]}},
            r"network.stages.0.blocks: 0: input should be greater than or equal to 1",
        ),
        ({"network": NETWORK, "traning": {}}, r"unknown key 'traning'"),
        ({"network": {**NETWORK, "hed": {}}}, r"network: unknown key 'hed'"),
        ({"network": NETWORK, "seed": "3"}, r"seed: '3': input should be a valid integer"),
        ({"network": NETWORK, "seed": True}, r"seed: True: input should be a valid integer"),
        ({"network": NETWORK, "training": {"epochs": 1.5}}, r"training.epochs: 1.5: input should be a valid integer"),
        ({}, r"'network' is required but missing"),
        (
            {"network": NETWORK, "training": {"optimizer": {"name": "adm"}}},
            r"training.optimizer.name: unknown name 'adm'; did you mean 'adam'\?",
        ),
        (
            {"network": NETWORK, "training": {"optimizer": {"name": "sgd", "momentum": 1.0}}},
            r"training.optimizer.momentum: 1.0: input should be less than 1",
        ),
        (
            {"network": NETWORK, "training": {"optimizer": {"name": "sgd", "momentum": 0.0, "nesterov": True}}},
            r"training.optimizer: nesterov needs a momentum above 0, got 0",
        ),
        (
            {"network": NETWORK, "training": {"schedule": {"name": "step", "milestones": [0.5, 0.2]}}},
            r"training.schedule: milestones \[0.5, 0.2\] must be distinct fractions",
        ),
        (
            {"network": {"stages": [{"blocks": 1, "width": 6}], "block": {"kind": "bottleneck"}}},
            r"network: stages.0.width 6 is not a multiple of 4",
        ),
        ({"network": NETWORK, "data": {"name": "minst"}}, r"data.name: unknown name 'minst'; did you mean 'mnist'"),
        ({"network": NETWORK, "training": {"clip_norm": float("inf")}}, r"(?i)training.clip_norm: inf"),
    ],
)
def test_errors_are_one_line_with_place_value_and_expectation(data: object, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        parse(TrialSpec, data)
    assert "\n" not in str(caught.value)


def test_with_validates() -> None:
    with pytest.raises(SpecError, match="unknown key 'wdth'"):
        Stage(blocks=1, width=8).with_(wdth=3)


def test_network_spec_takes_lists_and_tuples() -> None:
    assert NetworkSpec(stages=[Stage(blocks=1, width=8)]) == NetworkSpec(stages=(Stage(blocks=1, width=8),))


def test_deeper_probes_say_when_and_of_how_many_images() -> None:
    asked = parse(ProbeSpec, {"decomposition": {"at": ["end", 12, "start", 3]}, "hessian": {"at": "end", "images": 64}})
    decomposition, hessian = asked.snapshots().values()
    assert decomposition.at == ("start", 3, 12, "end") and decomposition.epochs(20) == {0, 3, 12, 20}
    assert hessian.epochs(7) == {7} and hessian.images == 64
    assert list(asked.snapshots()) == ["decomposition", "hessian"]
    by_name = parse(ProbeSpec, ["flow", *PROBES.members()])
    assert list(by_name.snapshots()) == sorted(PROBES.members())
    assert {name for name, spec in by_name.snapshots().items() if spec.at != ("start", "end")} == {"lesion"}
    assert by_name.snapshots()["lesion"].at == ("end",)
    assert parse(ProbeSpec, by_name.model_dump(mode="json")) == by_name
    assert asked == parse(ProbeSpec, asked.model_dump(mode="json"))


def test_a_probe_may_be_named_alone() -> None:
    assert ProbeSpec.model_validate("flow") == ProbeSpec.model_validate(["flow"]) == ProbeSpec(flow=FlowSpec())


def test_probes_that_are_not_asked_for_leave_no_trace_in_the_hash() -> None:
    # trials that were stored when flow was the only probe must be found again
    assert ProbeSpec().model_dump(mode="json") == {"flow": None}
    assert list(parse(ProbeSpec, ["flow"]).model_dump(mode="json")) == ["flow"]
    one, other = (parse(ProbeSpec, {"lesion": {"at": at}}) for at in ([1, "end"], ["end", 1]))
    assert one.content_hash == other.content_hash != parse(ProbeSpec, ["lesion"]).content_hash


@pytest.mark.parametrize(
    ("probes", "message"),
    [
        (["lesoin"], r"^probes: unknown probe 'lesoin'; did you mean 'lesion'\?"),
        ({"lesoin": {}}, r"^probes: unknown probe 'lesoin'; did you mean 'lesion'\?"),
        (["flow", "flow"], r"^probes: \['flow', 'flow'\] names a probe twice"),
        ([["flow"]], r"^probes: unknown probe"),
        (
            {"cka": {"at": [0]}},
            r"^probes.cka.at: 0 is not a time of training; expected start, end or an epoch number of at least 1",
        ),
        ({"cka": {"at": [True]}}, r"True is not a time"),
        ({"cka": {"at": ["middle"]}}, r"'middle' is not a time"),
        ({"cka": {"at": []}}, r"probes.cka.at: \[\]"),
        ({"cka": {"at": [2, 2]}}, r"\[2, 2\] names 2 twice"),
        ({"cka": {"images": 3}}, r"probes.cka.images: 3: input should be greater than or equal to 4"),
        ({"shattered": {"images": 5}}, r"probes.shattered.images: 5: input should be a multiple of 2"),
        ({"noise": {"evry": 2}}, r"probes.noise: unknown key 'evry'"),
        (
            {"hessian": {"at": ["start", 11]}},
            r"probes.hessian.at: epoch 11 is after the last of 10 training.epochs; use end or a smaller number",
        ),
    ],
)
def test_what_probes_cannot_be_asked_for_is_one_line(probes: object, message: str) -> None:
    with pytest.raises(SpecError, match=message) as caught:
        parse(TrialSpec, {"network": NETWORK, "probes": probes})
    assert "\n" not in str(caught.value)
