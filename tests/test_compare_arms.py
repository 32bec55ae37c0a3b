"""Arms of stored studies compared with one another: when, as what, and what is said of how they differ."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

import leadline as ll
from leadline.analysis.runs import Options
from leadline.analysis.studies import ComparedArms, StoredStudy, compare_arms
from leadline.analysis.studies.arms import Side
from leadline.analysis.studies.sharing import sharing_sentence, streams
from leadline.analysis.verdict import Findings, analyze, to_text
from leadline.analysis.verdict.wording.tables import contrast_values
from leadline.cli import app
from leadline.data.batches import load
from leadline.errors import DataError, LeadlineError, SpecError, StoreError
from leadline.networks.modules import build, noise_at
from leadline.parts.metrics import Outputs
from leadline.seeds import SeedName
from leadline.specs import TrialSpec, parse
from leadline.specs.study import StudySpec
from leadline.store import Store
from leadline.study.expand import expand
from leadline.study.resolved import ResolvedStudy

START = datetime(2026, 1, 1, tzinfo=UTC)
HERE = {"leadline": "0.1.0", "torch": "2.13.0", "device": "cpu", "devices": 1}
SMALL = {"name": "digits", "train": 100, "test": 200}


def a_study(
    name: str = "one",
    values: Mapping[str, float] | None = None,
    states: Mapping[tuple[str, SeedName], str] | None = None,
    when: Mapping[int, int] | None = None,
    environment: Mapping[str, Any] = HERE,
    resolved: Mapping[str, Any] | None = None,
    labels: int = 0,
    **spec: Any,
) -> StoredStudy:
    """A study with made-up results: the mean test error of each base arm, and the hour at which seeds were added."""
    networks = {"plain": {"network": {"family": "mlp", "hidden": 2, "width": 16}}}
    networks["residual"] = {"network": {"family": "mlp", "hidden": 2, "width": 16, "shortcut": "A"}}
    plain = {"name": name, "data": SMALL, "arms": networks, "contrasts": [["residual", "plain"]], "seeds": 5, **spec}
    study = expand(parse(StudySpec, plain), parse(ResolvedStudy, dict(resolved or {})))
    trials, records, outputs = [], [], {}
    for arm, trial in study.trials():
        key, seed = trial.content_hash, trial.seed_name
        draw = np.random.default_rng([trial.seed, len(arm.name), sum(map(ord, name))])
        state = (states or {}).get((arm.name, seed), "finished")
        created = START + timedelta(hours=(when or {}).get(trial.seed, 0))
        ended = created + timedelta(minutes=5)
        own = {"trial": key, "arm": arm.name, "base": arm.base, "seed": seed}
        trials.append({**own, "factors": dict(arm.factors), "state": state, "error": None, "diverged_step": pd.NA})
        trials[-1] |= {"created": created, "started": created, "ended": ended, "seconds": 1.0}
        trials[-1] |= {"environment": environment, "note": None}
        if state == "finished":
            truth = np.random.default_rng(labels).integers(0, 10, 200)
            error = (values or {"plain": 0.3, "residual": 0.2})[arm.base] + draw.normal(0, 0.02)
            wrong = draw.random(200) < error
            outputs[key] = Outputs(truth, np.where(wrong, (truth + 1) % 10, truth))
            for split, value in (("final-test", 100 * wrong.mean()), ("final-train", 1.0), ("final-validation", 20.0)):
                records.append({**own, "step": 1, "epoch": 1, "split": split, "name": "error", "value": value})
    frame = pd.DataFrame(trials).astype({"diverged_step": "Int64"})
    return StoredStudy(study, frame, pd.DataFrame(records), outputs)


def compare(
    *studies: StoredStudy, names: tuple[str, ...] = (), values: tuple[str, ...] = (), **options: Any
) -> ComparedArms:
    chosen = names or tuple(f"{one.study.name}/residual" for one in studies)
    return compare_arms(chosen, {one.study.name: one for one in studies}, values, Options(**options))


def refused(*studies: StoredStudy, **options: Any) -> str:
    with pytest.raises(LeadlineError) as error:
        compare(*studies, **options)
    assert len(error.value.lines) == 1
    return str(error.value)


def said(found: ComparedArms) -> str:
    return "\n".join(found.reading)


def own_findings(stored: StoredStudy) -> Findings:
    return analyze(stored.study, stored.trials, stored.records, stored.outputs.items())


def numbers(findings: Findings) -> list[dict[str, Any]]:
    left_out = ("a", "b")
    return [
        {key: one for key, one in contrast_values(own).items() if key not in left_out} for own in findings.contrasts
    ]


# --- arms of one study: its own verdict


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"margin": 3.0},
        {"contrasts": [{"a": "residual", "b": "plain", "metric": "train_error", "margin": 0.1}]},
        {"vary": {"width": [8, 16, 32]}},
        {"seeds": {"init": 3, "order": 3}},
        {"decide": {"max_seeds": 12, "first": 4, "margin": 2.0}, "seeds": 12},
    ],
)
@pytest.mark.parametrize("state", ["finished", "diverged", "running"])
def test_two_arms_of_one_study_have_its_own_verdict_to_the_bit(spec: dict[str, Any], state: str) -> None:
    seed = "seed.init=1,seed.order=2" if isinstance(spec.get("seeds"), dict) else 3
    states: dict[tuple[str, SeedName], str] = {("plain", seed): state, ("plain[width=16]", seed): state}
    stored = a_study(states=states, **spec)
    found = compare(stored, names=("one/plain", "one/residual"))
    own = own_findings(stored)
    assert own.contrasts
    assert numbers(found.findings) == numbers(own)
    assert [one.paired for one in found.findings.factors] == [one.paired for one in own.factors]
    assert [one.mcnemar for one in found.findings.contrasts] == [one.mcnemar for one in own.contrasts]
    assert [one.images for one in found.findings.contrasts] == [one.images for one in own.contrasts]
    assert (found.findings.contrasts[0].a, found.findings.contrasts[0].b) == tuple(
        f"one/{arm}" for arm in (own.contrasts[0].a, own.contrasts[0].b)
    )


# --- which arms


def test_a_name_without_levels_is_the_arm_at_every_level_of_the_other() -> None:
    one, two = a_study(vary={"width": [8, 16]}), a_study("two", vary={"width": [16, 8, 32]}, training={"epochs": 3})
    found = compare(one, two)
    pairs = [(contrast.a, contrast.b) for contrast in found.findings.contrasts]
    assert pairs == [
        ("two/residual[width=16]", "one/residual[width=16]"),
        ("two/residual[width=8]", "one/residual[width=8]"),
    ]
    assert "Left out, since the other has no such level: two/residual[width=32]." in found.reading
    single = compare(one, two, names=("one/residual[width=8]", "two/residual"))
    assert [(own.a, own.b) for own in single.findings.contrasts] == [pairs[1]]
    levels = compare(one, names=("one/residual[width=8]", "one/residual[width=16]"))
    assert [(own.a, own.b) for own in levels.findings.contrasts] == [
        ("one/residual[width=16]", "one/residual[width=8]")
    ]
    assert "Their networks, both mlp, differ in stem.width (16 and 8)" in said(levels)
    assert "name one of one/residual[width=8] and one/residual[width=16]" in refused(one, a_study("two"))


def test_baseline_and_contrasts_choose_among_the_arms() -> None:
    one, two = a_study(), a_study("two", training={"batch_size": 32})
    names = ("one/plain", "one/residual", "two/residual")
    every = compare(one, two, names=names)
    assert len(every.findings.contrasts) == 3
    assert [arm.name for arm in every.findings.arms] == list(names)
    based = compare(one, two, names=names, baseline="two/residual")
    assert [(own.a, own.b) for own in based.findings.contrasts] == [(name, "two/residual") for name in names[:2]]
    chosen = compare(one, two, names=names, contrasts=(("one/residual", "two/residual"),))
    assert [(own.a, own.b) for own in chosen.findings.contrasts] == [("one/residual", "two/residual")]
    assert "--baseline: unknown arm 'two/plain'" in refused(one, two, names=names, baseline="two/plain")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("one/residul", "two/residual"), "study one: unknown arm 'residul'; did you mean 'residual'?"),
        (("one/residual", "one/residual"), "one/residual is given twice"),
        (("residual", "two/residual"), "'residual': expected STUDY/ARM, such as demo/residual"),
        (("one/", "two/residual"), "'one/': expected STUDY/ARM"),
    ],
)
def test_names_that_are_of_no_arm(names: tuple[str, ...], message: str) -> None:
    assert message in refused(a_study(), a_study("two", training={"epochs": 3}), names=names)


# --- what cannot be compared


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, "have the same network, data and training"),
        ({"probes": {"flow": {}}}, "have the same network, data and training"),
        ({"seeds": [10, 11, 12]}, "have the same network, data and training"),
        ({"data": {"name": "mnist"}}, "different data sets: mnist and digits"),
        ({"data": {**SMALL, "test": 100}}, "different test images (data.test): 100 and 200"),
        ({"data": {**SMALL, "subset_seed": 1}}, "different test images (data.subset_seed): 1 and 0"),
        ({"data": {**SMALL, "resample": "split"}}, "different test images (data.resample): split and not given"),
        ({"training": {"epochs": 3}, "labels": 1}, "different test images: 200 and 200 with other labels"),
    ],
)
def test_arms_that_cannot_be_compared(spec: dict[str, Any], message: str) -> None:
    text = refused(a_study(), a_study("two", **spec))
    assert message in text
    assert "two/residual and one/residual" in text


def test_other_numbers_of_training_images_can_be_compared_but_not_by_validation_error() -> None:
    one, two = a_study(), a_study("two", data={**SMALL, "validation": 50})
    assert "data.validation (50 and " in said(compare(one, two))
    assert "different validation images, which validation_error is measured on" in refused(
        one, two, values=("validation_error",)
    )


def test_files_are_known_by_what_they_hold() -> None:
    def with_file(name: str, path: str, digest: str, **spec: Any) -> StoredStudy:
        code = {arm: {path: digest} for arm in ("plain", "residual")}
        return a_study(name, data={"name": "npz", "path": path}, resolved={"code": code}, **spec)

    one = with_file("one", "a.npz", "sha256:1")
    assert "different files of data: b.npz (sha256:2) and a.npz (sha256:1)" in refused(
        one, with_file("two", "b.npz", "sha256:2")
    )
    moved = compare(one, with_file("two", "b.npz", "sha256:1", training={"epochs": 3}))
    assert "training.epochs (3 and 10)" in said(moved)
    unknown = a_study("two", data={"name": "npz", "path": "b.npz"})
    assert "different data sets: b.npz and a.npz" in refused(one, unknown)


def test_custom_code_is_told_apart_by_its_source() -> None:
    def with_code(name: str, digest: str) -> StoredStudy:
        code = {arm: {"mine:Net": digest} for arm in ("plain", "residual")}
        arms = {arm: {"network": {"module": "mine:Net", "arguments": {"arm": arm}}} for arm in code}
        return a_study(name, arms=arms, resolved={"code": code})

    one = with_code("one", "sha256:1")
    assert "have the same network" in refused(one, with_code("two", "sha256:1"))
    found = compare(one, with_code("two", "sha256:2"))
    assert "Trials differ in the code of mine:Net (sha256:2 and sha256:1)." in found.reading
    assert "not the initial weights (custom code draws them, and is not the same)" in said(found)
    data = {"module": "mine:make", "train": 100, "test": 200}
    sources = [{arm: {"mine:make": digest} for arm in ("plain", "residual")} for digest in ("sha256:1", "sha256:2")]
    made = [a_study(name, data=data, resolved={"code": own}) for name, own in zip(("one", "two"), sources, strict=True)]
    assert "The code that makes their data is not the same: that test images are, their labels alone show." in said(
        compare(*made)
    )


def test_a_metric_that_an_arm_lacks() -> None:
    one, two = a_study(), a_study("two", training={"epochs": 3})
    assert "two/residual has no calibration_error: " in refused(one, two, values=("calibration_error",))
    assert "unknown metric 'test_eror'; did you mean 'test_error'?" in refused(one, two, values=("test_eror",))
    assert "such as epochs_to=10" in refused(one, two, values=("epochs_to",))
    assert "learning_curve_area is a mean over epochs" in refused(one, two, values=("learning_curve_area",))


def test_a_study_without_results() -> None:
    states: dict[tuple[str, SeedName], str] = {("residual", seed): "waiting" for seed in range(5)}
    text = refused(a_study(), a_study("two", states=states, training={"epochs": 3}))
    assert text == "two/residual: none of its trials has ended (5 waiting); `leadline run two` trains them"


# --- what is said


def test_everything_that_differs_is_said_with_both_values() -> None:
    training = {"batch_size": 32, "optimizer": {"name": "adam", "learning_rate": 0.01}}
    elsewhere = {**HERE, "torch": "2.12.0", "device": "H200"}
    two = a_study("two", training=training, data={**SMALL, "augment": {"pad": 1}}, environment=elsewhere)
    text = said(compare(a_study(), two))
    assert "Compared: two/residual against one/residual." in text
    assert "training.batch_size (32 and 128)" in text
    assert "training.optimizer.name (adam and " in text
    assert "data.augment.pad (1 and not given)" in text
    assert "torch (2.12.0 and 2.13.0) and device (H200 and cpu)" in text
    assert "leadline (" not in text
    crossed = said(compare(a_study(), two, names=("one/plain", "two/residual")))
    assert "Besides the network, trials differ in " in crossed
    assert "Their networks, both mlp, differ in block.shortcut" in crossed


def test_two_arms_that_differ_in_their_network_alone() -> None:
    found = compare(a_study(), names=("one/plain", "one/residual"))
    assert "Trials differ in nothing but the network." in found.reading


def test_trials_that_have_not_finished_are_named() -> None:
    states: dict[tuple[str, SeedName], str] = {("residual", 3): "running", ("residual", 4): "failed"}
    found = compare(a_study(states=states), a_study("two", training={"epochs": 3}))
    assert (
        "Left out, since they have not finished: the trials of one/residual at 3 (running); one/residual at 4 (failed)."
        in found.reading
    )
    assert found.findings.contrasts[0].seeds == (0, 1, 2)


def test_the_margin_is_that_of_the_studies_and_the_smaller_of_two() -> None:
    one, two = a_study(margin=2.0), a_study("two", margin=1.0, training={"epochs": 3})
    found = compare(one, two)
    assert found.findings.contrasts[0].margin == 1.0
    assert (
        "Margin of test_error: 1 point, the smallest that the studies have (1 and 2); --margin gives another."
        in said(found)
    )
    assert compare(one, two, margin=4.0).findings.contrasts[0].margin == 4.0


def test_tuned_values_are_said() -> None:
    tune = {"learning_rate": {"log": [0.001, 1]}, "budget": 3}
    chosen = {arm: {"learning_rate": 0.02} for arm in ("plain", "residual")}
    tuned = a_study("two", tune=tune, resolved={"chosen": chosen})
    text = said(compare(a_study(), tuned))
    assert "Tuned: one/residual not; two/residual learning_rate=0.02." in text
    assert "training.optimizer.learning_rate (0.02 and 0.1)" in text
    longer = a_study("three", tune={**tune, "budget": 9}, resolved={"chosen": chosen}, training={"epochs": 3})
    assert "The searches of two and three differ in budget (3 and 9)." in said(compare(tuned, longer))


# --- pairs and seeds


def test_seeds_that_only_one_has_are_left_out_and_most_of_them_end_pairing() -> None:
    one = a_study()
    found = compare(one, a_study("two", seeds=8, training={"epochs": 3}))
    assert found.findings.contrasts[0].seeds == (0, 1, 2, 3, 4)
    assert "left out: two/residual alone has seed 5, 6 and 7." in said(found)
    apart = compare(one, a_study("two", seeds=[4, 5, 6, 7], training={"epochs": 3}))
    assert apart.findings.contrasts[0].apart is not None
    assert "are not paired: most trials have no partner" in said(apart)
    assert compare(one, a_study("two", training={"epochs": 3}), unpaired=True).findings.contrasts[0].apart is not None


def test_equal_seeds_that_mean_nothing_in_common_make_no_pairs() -> None:
    network = {"family": "mlp", "hidden": 2, "width": 16, "initialisation": "xavier-uniform"}
    two = a_study("two", arms={"residual": {"network": network}}, contrasts=[], data={**SMALL, "train": 90})
    found = compare(a_study(), two)
    assert found.findings.contrasts[0].apart is not None
    assert "trials of one seed have nothing random in common" in said(found)
    assert "Trials of one seed share nothing: not the initial weights (the initialisation is not the same)" in said(
        found
    )


def test_seeds_by_source_are_not_separate_samples() -> None:
    crossed = a_study(seeds={"init": 3, "order": 3})
    assert "share seeds of single sources" in refused(crossed, a_study("two", training={"epochs": 3}))


def deciding(name: str, drawn: int, **spec: Any) -> StoredStudy:
    resolved = {"drawn": {"plain": drawn, "residual": drawn}, "planned": 12}
    return a_study(name, seeds=12, decide={"max_seeds": 12, "margin": 2.0}, resolved=resolved, **spec)


def test_seeds_whose_number_depends_on_results_have_intervals_that_hold_at_every_look() -> None:
    """Also where a study had decided after its first seeds, and the other one ran later."""
    fixed = a_study("two", seeds=10, when=dict.fromkeys(range(10), 48), training={"epochs": 3})
    for added, looked in (({}, (6,)), ({3: 24, 4: 24, 5: 24}, (3, 6))):
        stored = deciding("one", 6, when=added)
        found = compare(fixed, stored)
        (contrast,) = found.findings.contrasts
        assert contrast.seeds == (0, 1, 2, 3, 4, 5)
        assert contrast.looked == looked
        assert contrast.judgement.test.p is None
        once = compare(fixed, a_study("one", seeds=6)).findings.contrasts[0].paired
        assert once is not None and once.ci95 is not None and once.t_p is not None
        assert contrast.paired is not None and contrast.paired.ci95 is not None
        assert contrast.paired.difference == once.difference
        assert np.diff(contrast.paired.ci95) > 1.2 * np.diff(once.ci95)
        text = to_text(found.findings)
        assert "How many seeds there are was decided by what they showed in a study that decides, so the in" in text
        assert "A study added seeds until its own contrasts were decided, which are not those here." in text
        assert "Seeds were added until each contrast was decided" not in text
    times = compare(fixed, stored, values=("epochs_to=10",)).findings.contrasts[0]
    assert times.decision == "undecided"
    assert "no interval of separate samples holds at every look" in refused(fixed, stored, unpaired=True)
    elsewhere = a_study("two", seeds=[20, 21, 22], training={"epochs": 3})
    assert "no interval of separate samples holds at every look" in refused(stored, elsewhere)


def test_few_seeds_in_common_are_paired_where_a_study_decides() -> None:
    found = compare(a_study("two", seeds=12, training={"epochs": 3}), deciding("one", 3))
    assert found.findings.contrasts[0].seeds == (0, 1, 2)


def test_another_question_to_a_study_that_decides_is_not_the_one_it_decided() -> None:
    names = ("one/plain", "one/residual")
    own = compare(deciding("one", 6), names=names).findings.contrasts[0]
    assert own.sequential is not None
    for options in ({"values": ("train_error",)}, {"margin": 0.3}):
        (other,) = compare(deciding("one", 6), names=names, **options).findings.contrasts
        assert other.sequential is None
        assert other.looked == (6,)


def test_seeds_that_one_study_added_after_a_look_count_in_both() -> None:
    """Though the other study ran later, so that together their trials were created at one time."""
    when = {0: 0, 1: 0, 2: 0, 3: 24, 4: 24}
    looked, later = a_study(when=when), a_study("two", when=dict.fromkeys(range(5), 48), training={"epochs": 3})
    (contrast,) = compare(looked, later).findings.contrasts
    assert contrast.looked == (3,)
    assert contrast.judgement.test.p is None
    (contrast,) = compare(a_study(), later).findings.contrasts
    assert contrast.looked == ()
    text = refused(looked, later, unpaired=True)
    assert "one/residual got more seeds after a verdict on its first ones could be seen" in text


# --- which random choices are shared, as claimed and as trained


def sides(**specs: Any) -> tuple[Side, Side]:
    """The first arm of two studies that differ as told."""
    both = [a_study("one"), a_study("two", **specs)]
    return tuple(Side(one, one.study.arms[0]) for one in both)  # type: ignore[return-value]


def batches(trial: TrialSpec, seed: int = 3, epoch: int = 1) -> list[torch.Tensor]:
    data = load(trial.data, seed=seed)
    return [images for images, _ in data.train_batches(seed, epoch, trial.training.batch_size)]


def weights(trial: TrialSpec, seed: int = 3) -> dict[str, torch.Tensor]:
    return build(trial.network, (1, 8, 8), 10, seed).state_dict()


def noise(trial: TrialSpec, seed: int = 3, step: int = 2) -> torch.Tensor:
    rows = min(trial.training.batch_size, 100)
    network = build(trial.network, (1, 8, 8), 10, 0)
    with noise_at(network, seed, step):
        return network(torch.ones(rows, 1, 8, 8))


def sentence(a: Side, b: Side) -> str:
    return sharing_sentence(streams(a, b))


def test_trials_that_differ_in_their_optimizer_share_everything() -> None:
    a, b = sides(training={"optimizer": "adam"})
    assert sentence(a, b) == "Trials of one seed share the initial weights; the order of images."
    assert all(map(torch.equal, batches(a.trial), batches(b.trial)))
    assert all(torch.equal(one, weights(b.trial)[name]) for name, one in weights(a.trial).items())


def test_batches_of_another_size_divide_the_same_order() -> None:
    a, b = sides(training={"batch_size": 32})
    assert "the order of images (divided into batches of 128 and of 32)" in sentence(a, b)
    one, two = batches(a.trial), batches(b.trial)
    assert len(one) != len(two)
    assert torch.equal(torch.cat(one), torch.cat(two))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({"train": 90}, "100 and 90 training images"),
        ({"validation": 20}, "other training images"),
        ({"resample": "bootstrap"}, "other training images"),
    ],
)
def test_other_training_images_are_another_order(data: dict[str, Any], why: str) -> None:
    a, b = sides(data={**SMALL, **data})
    assert f"not the order of images ({why})" in sentence(a, b)
    one, two = torch.cat(batches(a.trial)), torch.cat(batches(b.trial))
    rows = min(len(one), len(two))
    assert not torch.equal(one[:rows], two[:rows])


def test_augmentation_is_shared_only_if_it_is_the_same() -> None:
    augmented = {**SMALL, "augment": {"pad": 2}}
    pads = {"one": 2, "two": 2, "three": 1}
    made = [a_study(name, data={**SMALL, "augment": {"pad": pad}}) for name, pad in pads.items()]
    a, b, c = (Side(stored, stored.study.arms[0]) for stored in made)
    assert "share the initial weights; the order of images; augmentation." in sentence(a, b)
    assert all(map(torch.equal, batches(a.trial), batches(b.trial)))
    assert "not augmentation (it is not the same)" in sentence(a, c)
    assert not torch.equal(batches(a.trial)[0], batches(c.trial)[0])
    assert "not augmentation (two/plain alone has it)" in sentence(*sides(data=augmented))
    small = a_study("four", data=augmented, training={"batch_size": 32})
    d = Side(small, small.study.arms[0])
    assert "augmentation" in sentence(a, d).partition("; not ")[0]
    assert torch.equal(torch.cat(batches(a.trial)), torch.cat(batches(d.trial)))


def test_of_several_augmentations_each_is_shared_by_itself() -> None:
    lists: dict[str, Any] = {
        "one": ["rand-augment", {"pad": 2}],
        "two": [{"pad": 2}, {"name": "cutout", "size": 3}],
        "three": ["rand-augment", {"pad": 2}],
    }
    made = [a_study(name, data={**SMALL, "augment": augment}) for name, augment in lists.items()]
    a, b, c = (Side(stored, stored.study.arms[0]) for stored in made)
    shared, _, other = sentence(a, b).partition("; not ")
    assert "augmentation by translation" in shared
    assert "augmentation by rand-augment (one/plain alone has it)" in other
    assert "augmentation by cutout (two/plain alone has it)" in other
    assert "the order of images; augmentation." in sentence(a, c)


def test_label_noise_is_shared_by_the_same_images() -> None:
    noises: dict[str, Any] = {"one": 0.2, "two": 0.2, "three": 0.4, "four": {"rate": 0.2, "kind": "pair"}, "five": 0}
    made = [a_study(name, data={**SMALL, "label_noise": noise}) for name, noise in noises.items()]
    a, b, c, d, e = (Side(stored, stored.study.arms[0]) for stored in made)
    assert "the order of images; label noise." in sentence(a, b)
    assert "label noise (at rates 0.2 and 0.4)" in sentence(a, c).partition("; not ")[0]
    assert "not label noise (it is not of the same kind)" in sentence(a, d)
    assert "not label noise (one/plain alone has it)" in sentence(a, e)
    assert "data.label_noise" in said(compare(made[0], made[2]))


def test_initial_weights_are_shared_by_name_and_shape() -> None:
    stored = a_study()
    a, b = (Side(stored, arm) for arm in stored.study.arms)
    deeper = {"plain": {"network": {"family": "mlp", "hidden": 3, "width": 16}}}
    c = sides(arms=deeper, contrasts=[])[1]
    for other in (b, c):
        assert "the initial weights of the parameters that both have by name and shape" in sentence(a, other)
        one, two = weights(a.trial), weights(other.trial)
        common = [name for name in one if name in two and one[name].shape == two[name].shape]
        assert len(common) > 2
        assert all(torch.equal(one[name], two[name]) for name in common)
    drawn = {"plain": {"network": {"family": "mlp", "hidden": 2, "width": 16, "initialisation": "xavier-normal"}}}
    d = sides(arms=drawn, contrasts=[])[1]
    assert "not the initial weights (the initialisation is not the same)" in sentence(a, d)
    assert not torch.equal(weights(a.trial)["head.linear.weight"], weights(d.trial)["head.linear.weight"])


def test_initial_weights_from_a_file_are_shared_if_its_content_is_the_same() -> None:
    def starting(name: str, file: str | None, digest: str = "") -> StoredStudy:
        code = {arm: {file: digest} for arm in ("plain", "residual")} if file and digest else {}
        return a_study(name, training={"weights": file} if file else {}, resolved={"code": code})

    one, drawn = starting("one", "a.pt", "sha256:1"), starting("two", None)
    a, b = (Side(stored, stored.study.arms[0]) for stored in (one, drawn))
    for first, second in ((a, b), (b, a)):
        assert "not the initial weights (one/plain alone starts from a file)" in sentence(first, second)
    moved, changed = starting("two", "b.pt", "sha256:1"), starting("two", "a.pt", "sha256:2")
    assert "share the initial weights (read from a file)" in said(compare(one, moved))
    for other in (changed, starting("two", "b.pt"), starting("two", "b.pt", "sha256:2")):
        assert "not the initial weights (they are read from files with different content)" in said(compare(one, other))
    assert "differ in the content of training.weights a.pt (sha256:2 and sha256:1)." in said(compare(one, changed))


def test_a_first_convolution_that_whitens_is_shared_by_the_same_images() -> None:
    arm = {"network": {"family": "cifar-resnet", "depth": 8}}

    def study(called: str, whitening: bool = True, **data: Any) -> StoredStudy:
        training = {"epochs": 1, "whitening": whitening}
        return a_study(called, arms={"residual": arm}, contrasts=[], data={**SMALL, **data}, training=training)

    def shared(one: StoredStudy, two: StoredStudy) -> str:
        return sentence(*(Side(stored, stored.study.arms[0]) for stored in (one, two)))

    whitened = study("one")
    for same in (study("two"), study("two", augment=[{"pad": 1}]), study("two", label_noise=0.1)):
        assert "share the initial weights;" in shared(whitened, same)
    for other in (study("two", False), study("two", normalise="pixel-mean"), study("two", train=90)):
        assert "share the initial weights but for the first convolution;" in shared(whitened, other)
    small, large = (study(f"{size}", name="imagefolder", path="flowers", size=size) for size in (32, 64))
    assert "share the initial weights but for the first convolution" in shared(small, large)
    arm = {"network": {"family": "cifar-resnet", "depth": 14}}
    deeper = "share the initial weights of the parameters that both have by name and shape"
    assert f"{deeper} but for the first convolution" in shared(whitened, study("two", False))
    assert f"{deeper};" in shared(whitened, study("two"))


def test_noise_is_shared_where_batches_and_layers_are_the_same() -> None:
    def noisy(name: str, **spec: Any) -> Side:
        arms = {"plain": {"network": {"family": "mlp", "hidden": 2, "width": 16, "dropout": 0.5}}}
        stored = a_study(name, arms=arms, contrasts=[], **spec)
        return Side(stored, stored.study.arms[0])

    a, b, c = noisy("one"), noisy("two", training={"optimizer": "adam"}), noisy("three", training={"batch_size": 32})
    assert sentence(a, b) == "Trials of one seed share the initial weights; the order of images; noise."
    assert torch.equal(noise(a.trial), noise(b.trial))
    assert "not noise (it is drawn for each batch, and batches are not the same)" in sentence(a, c)
    assert "not noise (two/plain alone has it)" in sentence(sides()[0], noisy("two"))
    elsewhere = noisy("four", environment={**HERE, "device": "H200"})
    assert "not noise (it is drawn on the device, and trials ran on CPU and GPU)" in sentence(a, elsewhere)
    smaller = noisy("five", training={"resizing": [{"until": 0.5, "scale": 0.5}]})
    assert "not noise (images do not have the same size in all epochs)" in sentence(a, smaller)


def test_resampled_images_are_shared_where_they_are_drawn_alike() -> None:
    made = [
        a_study(name, data={**SMALL, "resample": "bootstrap", **more})
        for name, more in (("one", {}), ("two", {"augment": {"pad": 1}}), ("three", {"train": 90}))
    ]
    a, b, c = (Side(stored, stored.study.arms[0]) for stored in made)
    assert "the choice of images" in sentence(a, b).partition("; not ")[0]
    labels = [load(side.trial.data, seed=3).train.images for side in (a, b, c)]  # type: ignore[attr-defined]
    assert torch.equal(labels[0], labels[1])
    assert "the choice of images (100 and 90 training images)" in sentence(a, c).partition("; not ")[2]
    assert not torch.equal(labels[0][:90], labels[2])


# --- from a store, by the command and in Python


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two studies that were trained, of which the second has other batches and one more seed."""
    folder = tmp_path_factory.mktemp("arms") / "runs"
    for name, seeds, batch in (("one", 3, 32), ("two", 4, 64)):
        arms = {
            "plain": {"network": {"family": "mlp", "hidden": 2, "width": 16}},
            "residual": {"network": {"family": "mlp", "hidden": 2, "width": 16, "shortcut": "A"}},
        }
        training = {"epochs": 3, "batch_size": batch, "optimizer": {"name": "adam", "learning_rate": 0.01}}
        spec = {"name": name, "data": SMALL, "training": training, "arms": arms, "seeds": seeds}
        ll.Study.load(spec).run(folder, workers=0)
    return folder


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["compare", *map(str, arguments)])


def test_the_command_and_python_agree_and_print_what_differs_first(runs: Path) -> None:
    done = run("one/residual", "two/residual", "--runs", runs)
    assert done.exit_code == 0, done.output
    found = ll.compare(["one/residual", "two/residual"], runs=runs)
    assert "\n".join(found.reading) in done.output
    assert done.output.index("training.batch_size (64 and 32)") < done.output.index("one/residual and two/residual\n")
    (row,) = found.contrasts.to_dict("records")
    assert (row["a"], row["b"], row["n"]) == ("two/residual", "one/residual", 3)
    printed = json.loads(run("one/residual", "two/residual", "--runs", runs, "--json").output)
    assert printed["reading"] == list(found.reading)
    assert printed["contrasts"][0]["difference"] == row["difference"]
    assert printed["contrasts"][0]["mcnemar"]
    assert printed["contrasts"][0]["images"]


def test_the_verdict_of_a_stored_study_is_had_again(runs: Path) -> None:
    own = ll.Results.open("one", runs).verdict().findings
    found = ll.compare(["one/plain", "one/residual"], runs=runs).verdict.findings
    assert numbers(found) == numbers(own)
    assert [one.mcnemar for one in found.contrasts] == [one.mcnemar for one in own.contrasts]


def test_the_report_is_one_file_that_says_how_the_arms_differ(runs: Path, tmp_path: Path) -> None:
    done = run(
        "one/residual", "two/residual", "--runs", runs, "--report", tmp_path / "out", "--margin", 2, "--title", "Two"
    )
    assert done.exit_code == 0, done.output
    page = (tmp_path / "out" / "report.html").read_text()
    assert "training.batch_size (64 and 32)" in page
    assert "leadline compare one/residual two/residual --margin 2 --title Two" in page
    assert "leadline run one.yaml\nleadline run two.yaml" in page
    for name in ("one", "two"):
        again = ll.Study.load(tmp_path / "out" / f"{name}.yaml")
        with Store.open_existing(runs) as store:
            assert again.expanded.spec == store.study(name).expand().spec


def test_several_metrics_and_arms(runs: Path) -> None:
    names = ("one/plain", "one/residual", "two/residual")
    done = run(
        *names, "--runs", runs, "--value", "test_error", "--value", "macro_f1", "--baseline", "one/plain", "--json"
    )
    assert done.exit_code == 0, done.output
    contrasts = json.loads(done.output)["contrasts"]
    assert [one["metric"] for one in contrasts] == ["test_error", "macro_f1"] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["one/residual"], "if it is an arm of a stored study, name another to compare it with"),
        (["one/residual", "tow/residual"], "unknown study 'tow'; did you mean 'two'?"),
        (["one/residual", "two/residul"], "study two: unknown arm 'residul'; did you mean 'residual'?"),
        (["one/residual", "two/residual", "--arm", "x", "--decide", "5"], "--arm and --decide: for tables of results"),
        ([], "nothing to compare: give a table, file or folder of results"),
    ],
)
def test_what_the_command_refuses(runs: Path, arguments: list[str], message: str) -> None:
    done = run(*arguments, "--runs", runs)
    assert done.exit_code == 1
    assert message in str(done.exception) if done.exception else message in done.output


def test_two_tables_are_no_arms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a.csv", "b.csv"):
        Path(name).write_text("arm,seed,test_error\n")
    for names in (["a.csv", "b.csv"], ["one/residual", "a.csv"]):
        with pytest.raises(DataError, match=r"expected one table, folder or file of results, .* and a.csv is a file"):
            ll.compare(names)
    with pytest.raises(SpecError, match="expected two arms"):
        ll.compare(["one/residual"])
    with pytest.raises(StoreError, match="does not exist yet"):
        ll.compare(["one/residual", "two/residual"])
