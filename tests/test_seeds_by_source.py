"""Seeds by source of randomness: initial weights, order, augmentation and noise vary apart."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import leadline as ll
from leadline.analysis.stats.crossed import crossed_mean, equivalence_p_crossed, paired_crossed
from leadline.cli import app
from leadline.data import batches
from leadline.errors import SpecError, StoreError
from leadline.networks.modules import build
from leadline.parts.metrics.record import Record
from leadline.running.trial import init_state
from leadline.seeds import AUGMENT, INIT, LOSS, NOISE, ORDER, SOURCES, Seed, name_seed, seed_of, stream
from leadline.specs import TrialSpec, parse
from leadline.study.expand import expand
from leadline.study.load import load_study
from leadline.training import train

NOISY: dict[str, Any] = {
    "network": {
        "layers": "fully-connected",
        "stages": [{"blocks": 1, "width": 8}],
        "block": {"kind": "single", "shortcut": "none"},
        "head": {"pool": "none", "dropout": 0.3},
    },
    "data": {"name": "digits", "train": 60, "test": 50, "augment": {"pad": 1}},
    "training": {"epochs": 1, "batch_size": 20},
}


def trained(**seeds: object) -> tuple[list[Record], dict[str, torch.Tensor]]:
    """Everything that a trial measures but its times, and its weights."""
    spec = parse(TrialSpec, {**NOISY, "data": {**NOISY["data"], "resample": "bootstrap"}, **seeds})
    data = batches.load(spec.data, seed=spec.random_seed)
    state = init_state(spec, data, torch.device("cpu"))
    records = [one for one in train(state, data, spec.training, spec.random_seed) if one.split != "time"]
    return records, state.tensors()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_source_has_its_own_stream_and_the_others_follow_the_number() -> None:
    seed = Seed(4, {"order": 9, "noise": 7})
    assert stream(seed, ORDER, 1) == stream(9, ORDER, 1)
    assert stream(seed, NOISE, 1) == stream(7, NOISE, 1)
    assert stream(seed, LOSS, 1) == stream(7, LOSS, 1)
    assert (stream(seed, INIT, "a"), stream(seed, AUGMENT, 1)) == (stream(4, INIT, "a"), stream(4, AUGMENT, 1))


@pytest.mark.parametrize("seed", [0, 12, Seed(0, {"init": 1}), Seed(3, {"order": 0, "noise": 5})])
def test_a_seed_is_read_from_its_name_and_survives_pickling(seed: int) -> None:
    for other in (seed_of(name_seed(seed)), pickle.loads(pickle.dumps(seed))):
        assert other == seed
        assert type(other) is type(seed)


@pytest.mark.parametrize("name", ["", "x", "-1", "seed.init", "seed.nothing=1", "seed.init=1;seed.order=2"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a seed"):
        seed_of(name)


def test_a_seed_with_sources_is_not_the_number_that_the_others_follow() -> None:
    assert Seed(0, {"init": 1}) not in (0, Seed(0, {"init": 2}), Seed(1, {"init": 1}))


def test_all_sources_at_one_seed_train_to_the_same_bits_as_that_seed() -> None:
    records, weights = trained(seed=3)
    again, others = trained(seeds=dict.fromkeys(SOURCES, 3))
    assert records == again
    assert same(weights, others)


@pytest.mark.parametrize("source", SOURCES)
def test_each_source_changes_the_result(source: str) -> None:
    assert not same(trained(seed=0)[1], trained(seed=0, seeds={source: 1})[1])


def test_only_its_own_source_changes_the_initial_weights() -> None:
    spec = parse(TrialSpec, NOISY)
    first, *others = (
        build(spec.network, (1, 8, 8), 10, Seed(0, {source: 1})).state_dict() for source in ("order", "noise", "init")
    )
    assert same(first, others[0])
    assert not same(first, others[1])


def test_a_trial_without_seeds_by_source_keeps_its_hash() -> None:
    """As computed before there were any."""
    assert "seeds" not in parse(TrialSpec, NOISY).model_dump()
    assert parse(TrialSpec, NOISY).content_hash == "0028d91ac85581accdf1791a6a75f1a146a7bb1b1345392c406da8cc4fb3cfd3"
    hashes = {parse(TrialSpec, {**NOISY, "seeds": seeds}).content_hash for seeds in ({}, {"init": 0}, {"init": 1})}
    assert len(hashes) == 3


def mlp_study(**keys: object) -> dict[str, object]:
    return {
        "name": "sources",
        "data": {"name": "digits", "train": 200, "test": 100},
        "training": {"epochs": 2, "batch_size": 20, "optimizer": {"name": "adam", "learning_rate": 0.01}},
        "arms": {"narrow": {"network": {"family": "mlp", "width": 16}}, "wide": {"network": "mlp"}},
        **keys,
    }


@pytest.mark.parametrize(
    "keys",
    [
        {"vary": {"seed.init": [0, 1], "seed.order": [0, 1, 2]}},
        {"seeds": {"init": 2, "order": 3}},
        {"seeds": {"init": 2}, "vary": {"seed.order": [0, 1, 2]}},
        {"seeds": [{"init": one, "order": other} for one in (0, 1) for other in (0, 1, 2)]},
    ],
    ids=["vary", "numbers", "both", "listed"],
)
def test_a_study_crosses_seeds_of_sources(keys: dict[str, object]) -> None:
    study = load_study(mlp_study(**keys))
    assert [arm.name for arm in study.arms] == ["narrow", "wide"]
    assert [trial.seed_name for arm, trial in study.trials() if arm.name == "wide"] == [
        f"seed.init={one},seed.order={other}" for one in (0, 1) for other in (0, 1, 2)
    ]
    assert expand(study.spec) == study
    assert len({trial.content_hash for _, trial in study.trials()}) == 12


def test_sources_are_crossed_with_seeds_where_these_are_given() -> None:
    study = load_study(
        mlp_study(seeds=[0, 7], vary={"seed.init": [0, 1], "width": [8, 16]}, arms={"a": {"network": "mlp"}})
    )
    assert [arm.factors for arm in study.arms] == [{"width": 8}, {"width": 16}]
    names = ["seed.init=0", "seed.init=1", "seed=7,seed.init=0", "seed=7,seed.init=1"]
    assert [trial.seed_name for arm, trial in study.trials()][::2] == names


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"vary": {"seed.first": [0, 1]}}, "unknown key 'seed.first'"),
        ({"vary": {"seed.init": [0, -1]}}, "are not all seeds"),
        ({"vary": {"seed.init": [0, 1.5]}}, "are not all seeds"),
        ({"vary": {"seed.augment": [0, 1]}}, "seed.augment: no arm augments its images"),
        ({"seeds": {"noise": 2}}, "seed.noise: no arm has dropout"),
        ({"seeds": {"split": 2}}, "seed.split: no arm resamples its images"),
        ({"seeds": {"init": 0}}, "seeds.init: 0"),
        ({"seeds": {"begin": 2}}, "begin"),
        ({"seeds": {"init": 2}, "vary": {"seed.init": [0, 1]}}, "seed.init is given by both vary and seeds"),
        ({"seeds": [{"init": 1}, {"init": 1}]}, "contains a seed twice"),
        ({"seeds": [{"init": 1}, {"order": 1}]}, "different sources of randomness"),
        ({"vary": {"seed.init": [0, 1]}, "decide": {"margin": 1, "max_seeds": 5}}, "decide adds seeds one by one"),
    ],
)
def test_what_seeds_by_source_cannot_be(keys: dict[str, object], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        load_study(mlp_study(**keys))


def test_a_study_by_source_runs_grows_and_is_found_by_name(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    results = ll.Study.load(mlp_study(seeds={"init": 2, "order": 2})).run(runs, workers=0, progress=False)
    assert results.outcome is not None
    assert results.outcome.complete
    trials = results.trials
    names = [f"seed.init={one},seed.order={other}" for one in (0, 1) for other in (0, 1)]
    assert trials["seed"].tolist() == [name for name in names for _ in range(2)]
    assert trials["factors"].tolist() == [{}] * 8
    assert set(results.records["seed"]) == set(names)
    contrast = results.verdict().findings.contrasts[0]
    assert contrast.seeds == tuple(names)
    assert contrast.crossed
    assert contrast.paired is not None
    assert contrast.paired.p is None
    assert "4 combinations of seeds" in str(results.verdict())
    assert "other seeds of initial weights and order alone" in str(results.verdict())
    assert names[3] in Path(results.report(tmp_path / "report")).read_text()
    own, other = results.network("wide", names[1]), results.network("wide", names[2])
    assert not same(dict(own.state_dict()), dict(other.state_dict()))
    with pytest.raises(StoreError, match=r"has no seed 1; its seeds: seed\.init=0,seed\.order=0, "):
        results.network("wide", 1)

    def lines(*arguments: str) -> str:
        result = CliRunner().invoke(app, [*arguments, "--runs", str(runs)], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    assert names[3] in lines("trials", "sources")
    assert trials["trial"][0] in lines("show", f"sources/narrow/{names[0]}", "--json")
    assert "no fault" in lines("check")
    grown = ll.Study.load(mlp_study(seeds={"init": 3, "order": 2})).run(runs, workers=0, progress=False)
    assert set(trials["trial"]) < set(grown.trials["trial"])


def test_a_study_of_one_source_has_independent_pairs_and_says_what_is_fixed(tmp_path: Path) -> None:
    results = ll.Study.load(mlp_study(vary={"seed.order": [0, 1, 2]})).run(tmp_path, workers=0, progress=False)
    contrast = results.verdict().findings.contrasts[0]
    assert not contrast.crossed
    assert contrast.paired is not None
    assert contrast.paired.p is not None
    assert "other seeds of order alone, and the same initial weights, augmentation" in str(results.verdict())


def test_the_error_of_a_crossed_mean_by_hand() -> None:
    """Means 1.5 and 3.5 over one source, 2 and 3 over the other: 2/2 + 0.5/2 = 1.25."""
    sources = [(0, 0, 1, 1), (0, 1, 0, 1)]
    found = crossed_mean([1, 2, 3, 4], sources)
    assert found.mean == 2.5
    assert found.error == pytest.approx(1.25**0.5)
    assert found.freedom == pytest.approx(1.25**2 / (1.0 + 0.25**2))
    shown = paired_crossed([1, 2, 3, 4], [0, 0, 0, 0], sources)
    assert shown.ci95 is not None
    assert shown.ci95[0] < 0 < shown.ci95[1]  # which pairs taken as independent would leave out
    assert equivalence_p_crossed([1, 2, 3, 4], 2.0, sources) > 0.5


def test_the_interval_of_crossed_pairs_ends_at_the_largest_difference() -> None:
    sources = [(0, 0, 1, 1), (0, 1, 0, 1)]
    wide = paired_crossed([5, 90, 40, 80], [0, 0, 0, 0], sources).ci95
    cut_at_100 = paired_crossed([5, 90, 40, 80], [0, 0, 0, 0], sources, largest=100.0).ci95
    assert wide is not None and wide[0] < -100 and wide[1] > 100
    assert cut_at_100 == (-100.0, 100.0)


def test_intervals_of_crossed_pairs_cover_as_they_say() -> None:
    """Each source, and what they do together, gives a third of the variance; independent pairs would cover 55%."""
    draw = np.random.default_rng(0)
    sources = [tuple(place // 5 for place in range(25)), tuple(place % 5 for place in range(25))]
    covered = 0
    for _ in range(400):
        first, second = draw.normal(size=5), draw.normal(size=5)
        values = (first[:, None] + second + draw.normal(size=(5, 5))).ravel()
        ends = paired_crossed(values, np.zeros(25), sources).ci95
        assert ends is not None
        covered += ends[0] < 0 < ends[1]
    assert 0.93 <= covered / 400 <= 0.995
