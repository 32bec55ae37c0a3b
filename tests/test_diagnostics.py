"""What probes saw, in words and pictures: from tables whose numbers are known."""

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from leadline.analysis.diagnostics import NOTHING_MEASURED, Diagnostics, diagnose
from leadline.analysis.verdict import Findings
from leadline.errors import DataError, SpecError
from leadline.probes.measured import Measurement
from leadline.probes.snapshots import find_probe
from leadline.probes.table import ACTIVATION_GRADIENT, DEAD, SECOND_MOMENT, WEIGHT_GRADIENT, FlowTable
from leadline.reports.charts.figures import figures
from leadline.specs import DataSpec, FlowSpec, ProbeSpec, parse

NOTHING_FOUND = Findings("s", "", (), ())


def table(blocks: int, ratio: float, epoch: int = 1, dead: float = 0.0, seconds: float = 0.5) -> bytes:
    """A network of blocks through each of which the gradient shrinks by a ratio; the last block's norm is 2."""
    names = [f"stage.{block}" for block in range(blocks)]
    norms = [2 * ratio ** (blocks - 1 - block) for block in range(blocks)]
    series = {
        ACTIVATION_GRADIENT: (names, norms),
        WEIGHT_GRADIENT: ([f"{name}.weight" for name in names], norms),
        SECOND_MOMENT: ([*names, "head"], [1.0] * (blocks + 1)),
        DEAD: (names, [dead] * blocks),
    }
    steps = np.arange(3) + 3 * (epoch - 1)
    row = np.array([value for _, values in series.values() for value in values], np.float32)
    values = np.stack([row * 100, row, row / 100])  # the median is the row
    values[:, -blocks:] = dead
    return FlowTable(
        tuple(name for own, _ in series.values() for name in own),
        tuple(kind for kind, (own, _) in series.items() for _ in own),
        steps,
        values,
        tuple(names),
        seconds,
    ).to_bytes()


def study(
    *given: tuple[str, dict[str, Any], float, float | None], epochs: int = 2, dead: float = 0.0
) -> tuple[pd.DataFrame, pd.DataFrame, dict[str, list[tuple[int, bytes]]]]:
    """Trials of base, factors, shrinking ratio and final error (None: it diverged in its second epoch)."""
    trials, records, measured = [], [], {}
    for number, (base, factors, ratio, error) in enumerate(given):
        arm = f"{base}[{','.join(f'{key}={value}' for key, value in factors.items())}]"
        own = {"trial": f"t{number}", "arm": arm, "base": base, "seed": number}
        state = "diverged" if error is None else "finished"
        trials.append({**own, "factors": factors, "state": state, "error": None, "diverged_step": None})
        done = 1 if error is None else epochs
        rows = [("time", "seconds", epoch, 10.0) for epoch in range(1, done + 1)]
        if error is not None:
            rows += [("final-train", "error", epochs, error), ("final-test", "error", epochs, error)]
        records += [
            {**own, "epoch": epoch, "step": 0, "split": split, "name": name, "value": value}
            for split, name, epoch, value in rows
        ]
        measured[f"t{number}"] = [
            (epoch, table(factors["blocks"], ratio, epoch, dead)) for epoch in range(1, epochs + 1)
        ]
    return pd.DataFrame(trials), pd.DataFrame(records), measured


def said(why: Diagnostics, arm: str) -> dict[str, str]:
    return {one.kind: one.text for one in why.statements if one.arm == arm}


def test_the_frame_has_medians_by_epoch_and_place() -> None:
    why = diagnose(*study(("plain", {"blocks": 3}, 0.1, 5.0)))
    rows = why.frame[why.frame["kind"].eq(ACTIVATION_GRADIENT) & why.frame["epoch"].eq(2)]
    assert list(rows["position"]) == list(rows["block"]) == [1, 2, 3]
    assert list(rows["value"]) == pytest.approx([0.02, 0.2, 2.0])
    head = why.frame[why.frame["layer"].eq("head")]
    assert head["block"].isna().all() and set(head["position"]) == {4}


@pytest.mark.slow
def test_vanishing_and_healthy_but_degraded_are_told_apart() -> None:
    why = diagnose(
        *study(
            ("bare", {"blocks": 3}, 0.5, 1.0),
            ("bare", {"blocks": 8}, 0.01, 90.0),
            ("normal", {"blocks": 3}, 0.9, 0.5),
            ("normal", {"blocks": 8}, 0.8, 6.0),
            ("residual", {"blocks": 3}, 1.0, 0.5),
            ("residual", {"blocks": 8}, 1.0, 0.7),
        )
    )
    assert list(said(why, "bare[blocks=3]")) == list(said(why, "residual[blocks=8]")) == ["healthy"]
    bare = said(why, "bare[blocks=8]")
    assert list(bare) == ["vanishing", "degraded"]
    assert "vanishing in 2 of 2 measured epochs" in bare["vanishing"]
    assert "block 1 of 8: gradient norm 1e-14 of the last block's" in bare["vanishing"]
    assert "90.00% (mean of 1 trial) against 1.00% of bare[blocks=3]" in bare["degraded"]
    assert "vanishing or exploding in 2 of 2 measured epochs" in bare["degraded"]
    normal = said(why, "normal[blocks=8]")
    assert list(normal) == ["healthy", "healthy but degraded"]
    assert "vanishing or exploding in 0 of 2 measured epochs" in normal["healthy but degraded"]
    assert not any(word in one.text for one in why.statements for word in ("because", "cause", "due to"))
    drawn = {
        figure.name: figure for figure in figures(NOTHING_FOUND, *study(("bare", {"blocks": 3}, 0.5, 1.0))[:2], why)
    }
    assert {one.figure for one in why.statements} <= set(drawn)


def test_an_arm_is_healthy_but_degraded_only_where_nothing_else_was_found() -> None:
    given = ("plain", {"blocks": 3}, 0.9, 1.0), ("plain", {"blocks": 8}, 0.9, 50.0)
    dead = said(diagnose(*study(*given, dead=0.75)), "plain[blocks=8]")
    assert list(dead) == ["dead", "degraded"]
    assert "vanishing or exploding in 0 of 2 measured epochs" in dead["degraded"]
    # activations alone say nothing of gradients
    trials, records, measured = study(*given)
    blind = {}
    for trial, epochs in measured.items():
        tables = [(epoch, FlowTable.from_bytes(content)) for epoch, content in epochs]
        blind[trial] = [(epoch, only(own, SECOND_MOMENT).to_bytes()) for epoch, own in tables]
    degraded = said(diagnose(trials, records, blind), "plain[blocks=8]")
    assert list(degraded) == ["degraded"] and "gradients" not in degraded["degraded"]


def test_epochs_that_cannot_be_judged_are_not_counted_as_sound() -> None:
    trials, records, measured = study(("plain", {"blocks": 3}, 0.9, 1.0), ("plain", {"blocks": 8}, 0.9, 50.0))
    tables = {
        trial: [(epoch, only(FlowTable.from_bytes(content), WEIGHT_GRADIENT)) for epoch, content in epochs]
        for trial, epochs in measured.items()
    }

    def degraded() -> dict[str, str]:
        stored = {trial: [(epoch, own.to_bytes()) for epoch, own in epochs] for trial, epochs in tables.items()}
        return said(diagnose(trials, records, stored), "plain[blocks=8]")

    # all blocks but the last are frozen in one epoch, then in both
    tables["t1"][0][1].values[:, :-1] = np.nan
    words = "gradients vanishing or exploding in 0 of 1 measured epoch that could be judged."
    assert degraded()["healthy but degraded"].endswith(words)
    tables["t1"][1][1].values[:, :-1] = np.nan
    assert list(degraded()) == ["degraded"] and "gradients" not in degraded()["degraded"]


def only(own: FlowTable, kind: str) -> FlowTable:
    names, values = own.series(kind)
    return FlowTable(names, (kind,) * len(names), own.steps, values, own.blocks, own.seconds)


def test_more_modules_are_not_more_depth() -> None:
    # a normalisation in the stem is one more module, a projection on a shortcut one more weight
    trials, records, measured = study(
        ("plain", {"blocks": 3}, 0.9, 1.0), ("plain", {"blocks": 3, "norm": 1}, 0.9, 50.0)
    )
    own = FlowTable.from_bytes(measured["t1"][1][1])
    more = np.ones((len(own.steps), 2), np.float32)
    own = FlowTable(
        ("stem.norm", "stage.0.join.weight", *own.names),
        (SECOND_MOMENT, WEIGHT_GRADIENT, *own.kinds),
        own.steps,
        np.concatenate([more, own.values], 1),
        own.blocks,
    )
    measured["t1"] = [(1, own.to_bytes())]
    assert list(said(diagnose(trials, records, measured), "plain[blocks=3,norm=1]")) == ["healthy"]


def test_the_worst_epoch_is_the_one_that_is_quoted() -> None:
    trials, records, measured = study(("plain", {"blocks": 3}, 0.5, 5.0))
    measured["t0"] = [(epoch, table(3, ratio, epoch)) for epoch, ratio in ((1, 0.5), (2, 1e-3), (3, 5e-3), (4, 0.7))]
    why = diagnose(trials, records, measured)
    told = said(why, "plain[blocks=3]")
    words = "vanishing in 2 of 4 measured epochs. Most extreme at seed 0, epoch 2: block 1 of 3: gradient norm 1e-6 of"
    assert told["vanishing"].startswith(words)
    assert told["healthy"].startswith("healthy in 2 of 4 measured epochs. Lowest at seed 0, epoch 1:")
    # flow is early in the first epoch alone
    assert list(why.early["ratio"]) == pytest.approx([math.log10(0.25)])


def test_units_are_as_dead_as_at_the_end_of_the_epoch() -> None:
    trials, records, measured = study(("plain", {"blocks": 3}, 0.5, 5.0))
    own = only(FlowTable.from_bytes(measured["t0"][0][1]), DEAD)
    own.values[:] = np.array([[0.6], [0.4], [0.2]])
    frame = diagnose(trials, records, {"t0": [(1, own.to_bytes())]}).frame
    assert list(frame["value"]) == pytest.approx([0.2] * 3)


def test_arms_that_differ_in_two_factors_are_not_compared() -> None:
    given = ("plain", {"blocks": 3, "rate": 1}, 0.9, 1.0), ("plain", {"blocks": 8, "rate": 2}, 0.9, 50.0)
    assert {one.kind for one in diagnose(*study(*given)).statements} == {"healthy"}


def test_a_trial_of_two_arms_counts_once_and_one_block_has_no_ratio() -> None:
    given = [("plain", {"blocks": 3}, 0.5 + seed / 100, 5.0 + seed) for seed in range(5)]
    trials, records, measured = study(*given, ("single", {"blocks": 1}, 0.5, 5.0))
    twice = (pd.concat([frame, frame.assign(arm="again", base="again")]) for frame in (trials, records))
    why = diagnose(*twice, measured)
    assert why.correlation.startswith("Across 5 trials:") and len(why.early) == 10


@pytest.mark.slow
def test_dead_units_bring_their_own_figure() -> None:
    trials, records, measured = study(("plain", {"blocks": 3}, 0.5, 5.0), dead=0.75)
    why = diagnose(trials, records, measured)
    assert "dead units 75%" in said(why, "plain[blocks=3]")["dead"]
    drawn = {figure.name: figure for figure in figures(NOTHING_FOUND, trials, records, why)}
    assert "dead-units" in drawn and drawn["dead-units"].panels
    assert set(drawn["dead-units"].data["value"]) == {0.75}


@pytest.mark.slow
def test_arms_lie_side_by_side_on_one_colour_scale() -> None:
    trials, records, measured = study(
        ("plain", {"blocks": 3}, 0.1, 5.0),
        ("plain", {"blocks": 8}, 1e-9, None),
        ("residual", {"blocks": 3}, 1.0, 5.0),
        ("residual", {"blocks": 8}, 1.0, 5.0),
    )
    drawn = {
        figure.name: figure for figure in figures(NOTHING_FOUND, trials, records, diagnose(trials, records, measured))
    }
    for name in ("gradient-flow", "weight-gradients", "activations"):
        figure = drawn[name]
        assert [panel.title for panel in figure.panels] == [
            f"{base}[blocks={blocks}]" for blocks in (3, 8) for base in ("plain", "residual")
        ]
        assert figure.columns == 2
        charts = [panel.chart.to_dict(validate=False)["layer"][0] for panel in figure.panels]
        assert len({tuple(chart["encoding"]["color"]["scale"]["domain"]) for chart in charts}) == 1
    cells = drawn["gradient-flow"].data.set_index(["arm", "epoch", "position"])["value"]
    assert cells["plain[blocks=3]", 1, 1] == pytest.approx(0.02)
    # what lies below the scale is put on its floor, and the caption tells
    assert cells["plain[blocks=8]", 2, 1] == pytest.approx(1e-11)
    least = drawn["gradient-flow"].data.set_index(["arm", "epoch", "position"])["least"]
    assert least["plain[blocks=8]", 2, 1] == 0.0  # 2e-63 is below what float32 holds
    assert "below 1e-11 are drawn as 1e-11" in drawn["gradient-flow"].caption
    assert drawn["gradient-profiles"].panels


def test_early_flow_and_final_error_are_correlated_by_rank() -> None:
    ratios, errors = [0.9, 0.5, 0.2, 0.1, 0.05, 0.0], [1.0, 3.0, 2.0, 40.0, 50.0, 90.0]
    trials, records, measured = study(
        *[("plain", {"blocks": 3}, ratio, error) for ratio, error in zip(ratios, errors, strict=True)],
        ("plain", {"blocks": 3}, 0.1, None),
    )
    why = diagnose(trials, records, measured)
    rho = stats.spearmanr(ratios, errors).statistic
    assert why.correlation.startswith("Across 6 trials:")
    assert f"correlation −{-rho:.2f} (permutation of trials: p = 0.017, smallest possible 0.0028)" in why.correlation
    assert "1 diverged trial has no final error." in why.correlation
    assert why.early["ratio"].iloc[2] == pytest.approx(math.log10(0.04))
    few = diagnose(*study(*[("plain", {"blocks": 3}, 0.5, error) for error in errors[:4]]))
    assert (
        few.correlation
        == "The correlation of early flow and final error needs 5 trials with both, but only 4 have them."
    )


def test_arms_are_correlated_not_their_trials() -> None:
    """Trials of one arm are alike, so that three of each of two arms are two things that were seen, not six."""
    flow = {"a": 0.9, "b": 0.5, "c": 0.3, "d": 0.2, "e": 0.1}
    errors = {"a": 5.0, "b": 1.0, "c": 2.0, "d": 4.0, "e": 3.0}
    given = [
        (name, {"blocks": 3}, flow[name] + seed / 100, errors[name] + seed / 10) for name in flow for seed in range(3)
    ]
    why = diagnose(*study(*given))
    # rho of ranks 5 4 3 2 1 and 5 1 2 4 3 is 1 - 6 * 18 / 120
    assert "Across the means of 5 arms (15 trials):" in why.correlation
    assert "rank correlation 0.10 (permutation of arms: p = 0.95, smallest possible 0.017)" in why.correlation
    assert "Arms differ in more than their flow, so this is correlation, not causation." in why.correlation
    assert diagnose(*study(*given[:12])).correlation == (
        "The correlation of early flow and final error needs 5 arms with both, but only 4 have them."
    )


def test_cost_is_what_the_probes_counted_over_the_epochs_that_were_timed() -> None:
    # four epochs of 0.5 s in 10 s each; the one that diverged was not timed
    why = diagnose(*study(("plain", {"blocks": 3}, 0.5, 5.0), ("plain", {"blocks": 3}, 0.5, None), epochs=3))
    assert why.cost.startswith("Measuring took 5.0% of this study's training time (2.0 of 40 s)")


def test_nothing_measured_is_nothing_said() -> None:
    trials, records, _ = study(("plain", {"blocks": 3}, 0.5, 5.0))
    assert diagnose(trials, records, {}) is NOTHING_MEASURED
    names = [figure.name for figure in figures(NOTHING_FOUND, trials, records)]
    assert names == ["accuracy-curves", "loss-curves", "test-error", "differences"]
    with pytest.raises(DataError, match="as a flow table"):
        diagnose(trials, records, {"t0": [(1, b"damaged")]})


def test_probes_are_asked_for_by_name_or_in_full() -> None:
    assert parse(ProbeSpec, ["flow"]) == parse(ProbeSpec, {"flow": {}}) == ProbeSpec(flow=FlowSpec())
    assert parse(ProbeSpec, []) == ProbeSpec()
    chosen = parse(ProbeSpec, {"flow": {"every": 10, "what": ["gradients"], "layers": ["stages.**"]}})
    assert chosen.flow == FlowSpec(every=10, what=("gradients",), layers=("stages.**",))
    assert parse(ProbeSpec, chosen.model_dump(mode="json")) == chosen
    for wrong in (["flwo"], {"flow": {"what": ["gradient"]}}, {"flow": {"every": 0}}, {"flow": {"layers": []}}, [1]):
        with pytest.raises(SpecError) as caught:
            parse(ProbeSpec, wrong)
        assert "\n" not in str(caught.value)
    with pytest.raises(SpecError, match=r"unknown probe .flwo.; did you mean .flow."):
        parse(ProbeSpec, ["flwo"])


def test_what_a_study_may_ask_for_is_what_the_probe_can_measure() -> None:
    from leadline.probes.flow import WHAT

    assert set(FlowSpec().what) == set(WHAT)


def look(value: float, reason: str = "", own: bool = False) -> bytes:
    frame = pd.DataFrame() if reason else pd.DataFrame({"block": ["a", "b"], "value": [value, 2 * value]})
    return Measurement(frame, 64, 1.5, own, reason).to_bytes()


def test_snapshot_probes_are_stacked_with_their_place_and_their_failures_told() -> None:
    trials, records, measured = study(
        ("plain", {"blocks": 3}, 0.5, 5.0),
        ("residual", {"blocks": 3}, 1.0, 5.0),
        ("residual", {"blocks": 8}, 1.0, None),
    )
    stored = {
        "lesion": {f"t{n}": [(0, look(n, own=True)), (2, look(10 + n))] for n in range(3)},
        "paths": {"t0": [(0, look(0, "no shortcut")), (2, look(0, "no shortcut"))], "t1": [(2, look(7))]},
        "cka": {"t9": [(0, b"of a trial that the study has no more")]},
    }
    why = diagnose(trials, records, measured, {name: (find_probe(name), one) for name, one in stored.items()})
    assert [seen.name for seen in why.probes] == ["lesion", "paths"]
    lesion, paths = why.probes
    assert lesion.probe.describe().startswith("Lesions.") and lesion.failures == ()
    assert list(lesion.frame.columns) == ["arm", "base", "seed", "epoch", "block", "value"]
    at = lesion.frame.set_index(["arm", "epoch", "block"])["value"]
    assert at["residual[blocks=3]", 2, "b"] == 22.0 and len(at) == 12
    assert lesion.how.startswith("Measured on 64 validation images. Before the first step")
    assert paths.how.startswith("Measured on 64 validation images. The loss is the cross-entropy of their classes,")
    assert paths.failures == ("Not measured in plain[blocks=3] (2 attempts): no shortcut",)
    assert set(paths.frame["arm"]) == {"residual[blocks=3]"} and "Before" not in paths.how
    # 50 s were timed: two epochs of two trials, one of the one that diverged
    took = "The snapshot probes took 13.5 s on top of the training time (27.0% of it): lesion 9.0 s and paths 4.5 s."
    assert took in why.cost
    assert why.cost.startswith("Measuring took 5.0% of this study's training time")


@pytest.mark.parametrize(
    ("plain", "residual", "shared"),
    [
        ({}, {}, ", the same for every arm"),
        (
            {},
            {"train": 50, "augment": {"pad": 1}, "label_noise": 0.1, "resample": "bootstrap"},
            ", the same for every arm",
        ),
        ({"resample": "split"}, {"resample": "split"}, ", the same for every arm at a seed"),
        ({}, {"resample": "split"}, ""),
        ({}, {"validation": 100}, ""),
        ({}, {"name": "mnist"}, ""),
    ],
)
def test_validation_images_are_said_to_be_the_same_where_they_are(
    plain: dict[str, Any], residual: dict[str, Any], shared: str
) -> None:
    trials, records, _ = study(("plain", {"blocks": 3}, 0.5, 5.0), ("residual", {"blocks": 3}, 0.5, 5.0))
    given = {"plain[blocks=3]": plain, "residual[blocks=3]": residual}
    data = {arm: parse(DataSpec, {"name": "digits", **settings}) for arm, settings in given.items()}
    stored = {trial: [(2, look(1))] for trial in ("t0", "t1")}
    [found] = diagnose(trials, records, {}, {"jacobian": (find_probe("jacobian"), stored)}, data).probes
    assert found.how == f"Measured on 64 validation images{shared}."


def test_snapshot_probes_without_flow_are_something() -> None:
    trials, records, _ = study(("plain", {"blocks": 3}, 0.5, 5.0))
    why = diagnose(trials, records, {}, {"lesion": (find_probe("lesion"), {"t0": [(2, look(1))]})})
    assert why.frame.empty and why.statements == () and why.early.empty and why.correlation == ""
    assert why.cost == "The snapshot probes took 1.5 s on top of the training time (7.5% of it): lesion 1.5 s."
    nothing = diagnose(trials, records, {}, {"lesion": (find_probe("lesion"), {"t0": [(0, look(1, "it cannot"))]})})
    assert nothing.probes[0].frame.empty and nothing.probes[0].how == ""
    with pytest.raises(
        DataError,
        match=r"^trial t0, probe lesion, epoch 2: cannot read 7 bytes as a probe's"
        " measurement",
    ):
        diagnose(trials, records, {}, {"lesion": (find_probe("lesion"), {"t0": [(2, b"damaged")]})})
