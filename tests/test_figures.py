import json
import math
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
import vl_convert
from hypothesis import given
from hypothesis import strategies as st

from leadline.analysis.diagnostics import COLUMNS, Diagnostics
from leadline.analysis.stats import paired, summarise
from leadline.analysis.verdict import ArmFinding, ContrastFinding, Findings
from leadline.analysis.verdict.decisions import Judgement
from leadline.analysis.verdict.wording.labels import contrast_labels, contrast_pair
from leadline.parts.metrics import metric
from leadline.pretraining.image_grids import ImageGrids, grid
from leadline.probes.table import ACTIVATION_GRADIENT, SECOND_MOMENT
from leadline.reports.charts import chart, figures, fit, heat, lines, notable
from leadline.reports.charts import frames as chartdata
from leadline.reports.charts.axes import Values, accuracies, log_ticks
from leadline.reports.charts.chart import DARK, LIGHT, PAGE, Palette, spread, theme
from leadline.reports.charts.files import to_svg
from leadline.reports.charts.forest import SHOWN_CONTRASTS, forest
from leadline.reports.charts.pretraining import SHOWN_ARMS, pretraining_figures
from leadline.reports.charts.runs import SHOWN_LINES, run_values
from leadline.reports.tables import curve_table
from leadline.text import join

Trial = tuple[str, str, dict[str, Any], int, str]


def trials_of(*trials: Trial) -> pd.DataFrame:
    columns = ["trial", "base", "factors", "seed", "state"]
    frame = pd.DataFrame(list(trials), columns=columns)
    inside = [",".join(f"{key}={value}" for key, value in factors.items()) for factors in frame["factors"]]
    frame["arm"] = [f"{base}[{text}]" if text else base for base, text in zip(frame["base"], inside, strict=True)]
    return frame.assign(error=None, diverged_step=pd.array([pd.NA] * len(frame), "Int64"))


def records_of(trials: pd.DataFrame, values: list[tuple[str, int, str, str, float]]) -> pd.DataFrame:
    rows = pd.DataFrame(values, columns=["trial", "epoch", "split", "name", "value"]).assign(step=0)
    return rows.merge(trials[["trial", "arm", "base", "seed"]], on="trial")


def contrast(a: str, b: str, differences: list[float], decision: str = "undecided", **changes: Any) -> ContrastFinding:
    given: dict[str, Any] = {
        "a": a,
        "b": b,
        "metric": "test_error",
        "margin": 0.5,
        "seeds": tuple(range(len(differences))),
        "differences": tuple(differences),
        "diverged_a": 0,
        "diverged_b": 0,
        "paired": paired(np.array(differences), np.zeros(len(differences))) if differences else None,
        "mcnemar": (),
        "judgement": Judgement(decision),
    }
    return ContrastFinding(**{**given, **changes})


def findings_of(*contrasts: ContrastFinding) -> Findings:
    return Findings("s", "", (), contrasts)


def curves(name: str, trial: str, values: list[float], split: str = "train") -> list[tuple[str, int, str, str, float]]:
    return [(trial, epoch, split, name, value) for epoch, value in enumerate(values, start=1)]


def plain(spec: Any) -> Any:
    """Chart specification as strict JSON; NaN and infinity are refused."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} in a chart")

    return json.loads(json.dumps(spec), parse_constant=refuse)


def layers_of(panel: chart.Panel) -> list[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Each layer of a panel with its rows of data."""
    spec = plain(panel.chart.to_dict())
    named = [(layer, (layer.get("data") or spec["data"])["name"]) for layer in spec["layer"]]
    return [(layer, json.loads(spec["datasets"][name])) for layer, name in named]


TWO = trials_of(
    ("r0", "resnet", {"blocks": 5}, 0, "finished"),
    ("c0", "cnn", {"blocks": 5}, 0, "finished"),
    ("r1", "resnet", {"blocks": 5}, 1, "finished"),
    ("c1", "cnn", {"blocks": 5}, 1, "diverged"),
)
TWO_RECORDS = records_of(
    TWO,
    [
        *curves("loss", "r0", [2.0, 1.0, 0.5]),
        *curves("loss", "r1", [4.0, 2.0, 0.7]),
        *curves("loss", "c0", [3.0, math.nan, 1.0]),
        *curves("loss", "c1", [9.0, math.inf]),
        ("r0", 3, "final-test", "error", 2.0),
        ("r1", 3, "final-test", "error", 3.0),
        ("c0", 3, "final-test", "error", 7.5),
    ],
)


def test_curve_frame_by_hand() -> None:
    frame = chartdata.curve_frame(TWO, chartdata.sum_up(TWO, TWO_RECORDS), "loss")
    rows = [tuple(row) for row in frame[["arm", "epoch", "mean", "low", "high", "seeds"]].itertuples(index=False)]
    assert rows == [
        ("resnet[blocks=5]", 1, 3.0, 2.0, 4.0, 2),
        ("resnet[blocks=5]", 2, 1.5, 1.0, 2.0, 2),
        ("resnet[blocks=5]", 3, pytest.approx(0.6), 0.5, 0.7, 2),
        ("cnn[blocks=5]", 1, 3.0, 3.0, 3.0, 1),  # the diverged trial's 9.0 does not enter, nor the NaN
        ("cnn[blocks=5]", 3, 1.0, 1.0, 1.0, 1),
    ]
    assert set(frame["level"]) == {"blocks = 5"}


def test_loose_frame_holds_what_did_not_finish() -> None:
    frame = chartdata.unfinished_frame(TWO, chartdata.sum_up(TWO, TWO_RECORDS), "loss")
    rows = [tuple(row) for row in frame[["trial", "epoch", "value", "state", "last"]].itertuples(index=False)]
    assert rows == [("c1", 1, 9.0, "diverged", True)]


def test_error_frame_keeps_diverged_trials_without_a_value() -> None:
    frame = chartdata.error_frame(TWO, TWO_RECORDS)
    found = {row.trial: row.value for row in frame.itertuples()}
    assert list(found) == ["r0", "r1", "c0", "c1"]
    assert (found["r0"], found["r1"], found["c0"]) == (2.0, 3.0, 7.5)
    assert math.isnan(found["c1"])


def test_arms_that_share_a_trial_do_not_multiply_it() -> None:
    trials = trials_of(("same", "a", {}, 0, "finished"), ("same", "b", {}, 0, "finished"))
    trials["trial"] = "same"
    records = pd.concat(
        [
            pd.DataFrame(
                [
                    {
                        "trial": "same",
                        "arm": arm,
                        "base": arm,
                        "seed": 0,
                        "step": 0,
                        "epoch": 1,
                        "split": split,
                        "name": name,
                    }
                ]
            ).assign(value=5.0)
            for arm in "ab"
            for split, name in (("final-test", "error"), ("train", "loss"))
        ]
    )
    assert list(chartdata.error_frame(trials, records)["arm"]) == ["a", "b"]
    assert list(chartdata.curve_frame(trials, chartdata.sum_up(trials, records), "loss")["seeds"]) == [1, 1]
    trials["state"] = "running"
    assert len(chartdata.unfinished_frame(trials, chartdata.sum_up(trials, records), "loss")) == 2


def test_profiles_take_the_first_the_middle_and_the_last_epoch() -> None:
    trials = trials_of(("t", "resnet", {}, 0, "finished"), ("u", "resnet", {}, 1, "diverged"))
    rows = [
        (trial, "resnet", "resnet", seed, epoch, f"layer{place}", place, epoch * 10.0**-place)
        for trial, seed in (("t", 0), ("u", 1))
        for epoch in (1, 2, 3, 4)
        for place in (2, 1, 3)
    ]
    rows += [("t", "resnet", "resnet", 0, 1, "gone", 4, 0.0), ("t", "resnet", "resnet", 0, 1, "far", 5, math.inf)]
    columns = ["trial", "arm", "base", "seed", "epoch", "layer", "position", "value"]
    frame = chartdata.profile_frame(trials, pd.DataFrame(rows, columns=columns))
    assert list(frame["split"].unique()) == ["epoch 1", "epoch 2", "epoch 4"]
    assert list(frame.loc[frame["split"].eq("epoch 4"), "layer"]) == ["layer1", "layer2", "layer3"]
    assert list(frame.loc[frame["split"].eq("epoch 4"), "mean"]) == pytest.approx([0.4, 0.04, 0.004])
    assert set(frame["seeds"]) == {2}


def test_contrasts_are_named_as_shortly_as_is_clear() -> None:
    level = [contrast(f"r[blocks={n}]", f"p[blocks={n}]", [1.0]) for n in (2, 5)]
    assert contrast_labels(level) == ["blocks = 2", "blocks = 5"]
    assert contrast_pair(level) == ("r", "p")
    mixed = [*level, contrast("r[blocks=2]", "c[blocks=2]", [1.0])]
    assert contrast_labels(mixed) == ["r − p, blocks = 2", "r − p, blocks = 5", "r − c, blocks = 2"]
    assert contrast_pair(mixed) is None
    across = [contrast("r[blocks=5]", "r[blocks=2]", [1.0]), contrast("r", "p", [1.0], metric="train_error")]
    assert contrast_labels(across) == ["r[blocks=5] − r[blocks=2]", "r − p (train error)"]


@pytest.mark.slow
def test_figures_draw_what_the_frames_hold() -> None:
    findings = findings_of(contrast("resnet[blocks=5]", "cnn[blocks=5]", [-5.5, -4.0], "better"))
    drawn = {figure.name: figure for figure in figures.figures(findings, TWO, TWO_RECORDS)}
    assert list(drawn) == ["accuracy-curves", "loss-curves", "test-error", "differences"]
    assert not drawn["accuracy-curves"].panels
    assert "no curves of accuracy" in drawn["accuracy-curves"].caption
    loss = drawn["loss-curves"]
    assert [panel.title for panel in loss.panels] == ["Training, blocks = 5"]
    assert "not finite are not drawn" in loss.caption
    assert "no validation records" in loss.caption
    assert "cross marks where one diverged" in loss.caption
    for figure in drawn.values():
        if not figure.panels:
            continue
        spec = plain(figure.chart().to_dict())
        assert not re.search(r"#[0-9a-fA-F]{3,6}\b", json.dumps(spec)), "a chart names a colour"
        svg = vl_convert.vegalite_to_svg({**spec, "config": theme(LIGHT, standalone=True)})
        assert "NaN" not in svg
        assert figure.description
    svg = vl_convert.vegalite_to_svg(loss.chart().to_dict() | {"config": theme(LIGHT, standalone=True)})
    lines = re.findall(r'aria-roledescription="line mark"[^>]*stroke="([^"]+)"', svg)
    assert sorted(set(lines)) == sorted(LIGHT.arms[:2])


def test_seeds_stand_beside_their_mean() -> None:
    (panel,) = figures.final_error(TWO, TWO_RECORDS).panels
    rows = [row for _, part in layers_of(panel) for row in part]
    assert sorted({row["value"] for row in rows if "value" in row}) == [2.0, 3.0, 7.5]
    assert {row["arm"]: row["mean"] for row in rows if "mean" in row} == {"resnet[blocks=5]": 2.5, "cnn[blocks=5]": 7.5}
    assert [(row["base"], row["trial"]) for row in rows if "trial" in row] == [("cnn", 1)]


def test_numeric_factor_has_a_numeric_axis_and_other_factors_make_panels() -> None:
    rows = [
        (f"{blocks}{shortcut}", "resnet", {"shortcut": shortcut, "blocks": blocks}, 0, "finished")
        for shortcut in ("A", "B")
        for blocks in (2, 5, 10)
    ]
    trials = trials_of(*rows)
    records = records_of(trials, [(row[0], 1, "final-test", "error", 4.0) for row in rows])
    figure = figures.final_error(trials, records)
    assert [panel.title for panel in figure.panels] == ["shortcut = A", "shortcut = B"]
    line = figure.panels[0].chart.to_dict()["layer"][0]["encoding"]["x"]
    assert (line["type"], line["axis"]["values"]) == ("quantitative", [2, 5, 10])
    words = trials.assign(factors=[{"shortcut": factors["shortcut"]} for factors in trials["factors"]])
    names = figures.final_error(words, records).panels[0].chart.to_dict()["layer"][0]["encoding"]["y"]
    assert (names["type"], names["title"]) == ("nominal", "shortcut")


@pytest.mark.parametrize("levels", [[20, 32, 44, 56], [18, 34], [0.125, 0.25], [1, 20, 56]])
def test_levels_are_written_in_full(levels: list[float]) -> None:
    trials = trials_of(*((f"t{level}", "resnet", {"depth": level}, 0, "finished") for level in levels))
    records = records_of(trials, [(f"t{level}", 1, "final-test", "error", 4.0) for level in levels])
    svg = to_svg(figures.final_error(trials, records))
    assert all(f">{level}<" in svg for level in levels)


@given(st.floats(1e-6, 1e6), st.floats(1.02, 1e9))
def test_a_logarithmic_axis_is_never_without_ticks(low: float, times: float) -> None:
    ticks = log_ticks(low, low * times, (1, 2, 5))
    assert 1 <= len(ticks) <= 12 and all(low <= tick <= low * times for tick in ticks)


@pytest.mark.parametrize(("errors", "kind"), [([1.0, 5.0], None), ([1.0, 50.0], "log"), ([0.0, 50.0], None)])
def test_scale_is_logarithmic_only_where_that_is_possible_and_helps(errors: list[float], kind: str | None) -> None:
    trials = trials_of(*((f"t{i}", f"arm{i}", {}, 0, "finished") for i in range(2)))
    records = records_of(trials, [(f"t{i}", 1, "final-test", "error", error) for i, error in enumerate(errors)])
    axis = figures.final_error(trials, records).panels[0].chart.to_dict()["layer"][0]["encoding"]["x"]
    assert axis["scale"].get("type") == kind
    assert ("log scale" in axis["title"]) == (kind == "log")


def test_forest_has_interval_seeds_margin_and_zero() -> None:
    figure = forest(findings_of(contrast("a", "b", [1.0, 2.0, 4.5]), contrast("a", "c", [3.0])))
    margin, zero, interval, seeds, estimates = (rows for _, rows in layers_of(figure.panels[0])[:5])
    assert [(row["left"], row["right"], row["zero"]) for row in margin] == [(-0.5, 0.5, 0)] * 2
    assert zero == margin
    # mean 2.5, sd 1.8028, so the half width is 4.3027 * 1.8028 / sqrt(3) = 4.4784; one pair has no interval
    assert [(row["low"], row["high"]) for row in interval] == [
        (pytest.approx(-1.9784, abs=1e-3), pytest.approx(6.9784, abs=1e-3))
    ]
    assert [row["value"] for row in seeds] == [1.0, 2.0, 4.5, 3.0]
    assert [row["difference"] for row in estimates] == [2.5, 3.0]
    assert "single pair has no interval" in figure.caption


def test_forest_without_pairs_says_so() -> None:
    assert "no contrasts" in forest(findings_of()).caption
    figure = forest(findings_of(contrast("a", "b", [])))
    assert not figure.panels
    assert "no differences to show" in figure.caption


def test_many_arms_and_levels_and_contrasts_are_drawn_in_part_and_that_is_said() -> None:
    trials = trials_of(
        *(
            (f"{base}-{level}", f"arm{base}", {"blocks": level}, 0, "finished")
            for base in range(chart.SHOWN_BASES + 3)
            for level in range(1, 31)
        )
    )
    records = records_of(trials, [row for trial in trials["trial"] for row in curves("loss", trial, [2.0, 1.0])])
    figure = figures.learning_curves(trials, chartdata.sum_up(trials, records), "loss", "Cross-entropy (nats)")
    assert len(figure.keys) == chart.SHOWN_BASES
    assert [panel.title for panel in figure.panels] == [
        f"Training, blocks = {level}, arm{first} to arm{first + chart.DISTINCT - 1}"
        for level in (1, 30)
        for first in range(0, chart.SHOWN_BASES, chart.DISTINCT)
    ]
    assert f"{chart.SHOWN_BASES} of {chart.SHOWN_BASES + 3} arms are drawn" in figure.caption
    assert "2 of 30 levels are drawn" in figure.caption
    assert len(figure.data) == (chart.SHOWN_BASES + 3) * 30 * 2
    many = forest(findings_of(*(contrast("a", f"b{n}", [float(n), n + 1.0]) for n in range(60))))
    assert f"{SHOWN_CONTRASTS} largest of 60" in many.caption
    assert len(many.data) == 60


@pytest.mark.parametrize("arms", [chart.SHOWN_BASES, 30])
def test_every_pretrained_arm_is_drawn_or_said_to_be_left_out(arms: int) -> None:
    names = [f"arm{n:02d}" for n in range(arms)]
    trials = trials_of(*((f"{name}-{seed}", name, {}, seed, "finished") for name in names for seed in (0, 1)))
    rows = [(trial, 0, "pretraining-1", "reconstruction_error", 0.1) for trial in trials["trial"]]
    pictures = ImageGrids(grid(np.zeros((1, 1, 2, 2)), 1), None)
    # the first seed of the first arm has none yet
    seen = {trial: pictures for trial in trials["trial"] if trial != "arm00-0"}
    images, errors = pretraining_figures(seen, trials, records_of(trials, rows))
    drawn = [panel.title for panel in errors.panels]
    said = re.search(r"(\d+) of (\d+) arms are drawn; this figure's data file has all of them", errors.caption)
    assert set(errors.data["arm"]) == set(names)
    if arms <= chart.SHOWN_BASES:
        assert (drawn, said) == (names, None)
    else:
        assert said is not None and said.groups() == (f"{len(drawn)}", f"{arms}")
    shown = [panel.title.removesuffix(": filters") for panel in images.panels]
    assert (len(shown), shown[0], shown[-1]) == (SHOWN_ARMS, names[0], names[-1])
    left_out = [name for name in names if name not in shown]
    assert f"{SHOWN_ARMS} of {arms} pre-trained arms are shown; not shown: {join(left_out)}." in images.caption
    assert dict(zip(images.data["arm"], images.data["shown"], strict=True)) == {name: name in shown for name in names}
    assert images.data["trial"].tolist() == ["arm00-1", *(f"{name}-0" for name in names[1:])]
    few, _ = pretraining_figures(seen, trials[trials["arm"].isin(names[:3])], records_of(trials, rows))
    assert "not shown" not in few.caption and len(few.panels) == 3
    none, _ = pretraining_figures({}, trials, records_of(trials, rows))
    assert not none.panels and none.caption.startswith("No images are stored")


SPLITS = [
    (trial, epoch, split, name, value)
    for trial, worse in (("r0", 1.0), ("r1", 1.5), ("c0", 4.0), ("c1", 9.0))
    for epoch in (1, 2, 3)
    for split, more in (("train", 0.5), ("validation", 1.0), ("test", 1.1))
    for error in [worse * more * 6 / epoch]
    for name, value in (("error", error), ("accuracy", 1 - error / 100))
]


def test_training_validation_and_test_stand_in_one_panel_for_each_arm() -> None:
    (figure,) = fit.fit_curves(TWO, chartdata.sum_up(TWO, records_of(TWO, SPLITS)), "accuracy", "Accuracy")
    assert [panel.title for panel in figure.panels] == ["resnet[blocks=5]", "cnn[blocks=5]"]
    assert [key.label for key in figure.keys] == ["Training", "Validation", "Test", "diverged"]
    assert "running averages" in figure.caption and "nothing was chosen by them" in figure.caption
    for panel, seeds in zip(figure.panels, (2, 1), strict=True):
        data = next(rows for layer, rows in layers_of(panel) if layer["mark"]["type"] == "line")
        assert [row["base"] for row in data] == ["Training"] * 3 + ["Validation"] * 3 + ["Test"] * 3
        assert {row["seeds"] for row in data} == {seeds}
        layer = next(layer for layer, _ in layers_of(panel) if layer["mark"]["type"] == "line")
        (edge, _) = layer["encoding"]["y"]["scale"]["domain"]
        assert {"calculate": f"max(1 - datum.mean, {edge})", "as": "at_mean"} in layer["transform"]
        assert layer["encoding"]["y"]["field"] == "at_mean"  # they lie where their errors are
    plain_end = [row for row in layers_of(figure.panels[1])[0][1] if row["x"] == 3]
    assert [row["mean"] for row in plain_end] == pytest.approx([0.96, 0.92, 0.912])
    only_training = [row for row in SPLITS if row[2] == "train"]
    assert not list(fit.fit_curves(TWO, chartdata.sum_up(TWO, records_of(TWO, only_training)), "accuracy", "Accuracy"))


def test_test_values_by_epoch_are_drawn_where_they_are_stored() -> None:
    findings = findings_of(contrast("resnet[blocks=5]", "cnn[blocks=5]", [-5.5, -4.0], "better"))
    drawn = {figure.name: figure for figure in figures.figures(findings, TWO, records_of(TWO, SPLITS))}
    assert [name for name in drawn if name in figures.curve_names(findings)] == [
        *("accuracy-curves", "accuracy-fit", "loss-curves", "error-fit")
    ]
    assert {panel.title.partition(",")[0] for panel in drawn["accuracy-curves"].panels} >= {"Training", "Test"}
    assert [key.label for key in drawn["error-fit"].keys][:2] == ["Training", "Test"]
    without = records_of(TWO, [row for row in SPLITS if row[2] != "test"])
    drawn = {figure.name: figure for figure in figures.figures(findings, TWO, without)}
    assert "error-fit" not in drawn and "accuracy-fit" in drawn


def test_depths_have_colours_training_is_thin_and_validation_bold() -> None:
    trials = trials_of(
        *((f"{base}{blocks}", base, {"blocks": blocks}, 0, "finished") for base in ("p", "r") for blocks in (20, 3))
    )
    values = [
        (trial, epoch, split, "error", 40.0 / epoch + extra)
        for trial in trials["trial"]
        for epoch in (1, 2)
        for split, extra in (("train", 0.0), ("validation", 2.0))
    ]
    (figure,) = fit.depth_curves(trials, chartdata.sum_up(trials, records_of(trials, values)))
    assert [panel.title for panel in figure.panels] == ["p", "r"]
    assert [key.label for key in figure.keys] == ["blocks = 3", "blocks = 20"]
    for panel in figure.panels:
        lines_of = [(layer, rows) for layer, rows in layers_of(panel) if layer["mark"]["type"] == "line"]
        (thin, training), (bold, validation) = lines_of
        assert thin["mark"]["strokeWidth"] < bold["mark"]["strokeWidth"]
        assert {row["mean"] for row in training} == {40, 20} and {row["mean"] for row in validation} == {42, 22}
        assert {row["base"] for row in training} == {"blocks = 3", "blocks = 20"}
    one_depth = trials[[factors["blocks"] == 3 for factors in trials["factors"]]]
    assert not list(fit.depth_curves(one_depth, chartdata.sum_up(one_depth, records_of(one_depth, values))))
    named = trials_of(*((f"t{kind}", "r", {"kind": kind}, 0, "finished") for kind in "AB"))
    assert not list(
        fit.depth_curves(named, chartdata.sum_up(named, records_of(named, [("tA", 1, "train", "error", 1.0)])))
    )


def placed(found: Values, values: list[float]) -> list[float]:
    """Where values lie on an axis, by its expression."""
    if not found.place:
        return values
    edge = float(re.fullmatch(r"max\(1 - \{\}, (.*)\)", found.place)[1])  # type: ignore[index]
    return [max(1 - value, edge) for value in values]


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_every_accuracy_lies_on_its_axis(values: list[float]) -> None:
    found = accuracies("Accuracy", values)
    low, high = found.axis["scale"].domain
    assert low < high
    assert all(low <= value <= high for value in placed(found, values))


def test_98_and_99_per_cent_are_as_far_apart_as_80_and_90() -> None:
    found = accuracies("Accuracy", [0.5, 0.8, 0.9, 0.98, 0.99, 1.0])
    at = placed(found, [0.8, 0.9, 0.98, 0.99, 1.0])
    assert at[0] / at[1] == pytest.approx(at[2] / at[3]) == 2
    assert at[4] == found.axis["scale"].domain[0] < at[3]
    assert not accuracies("Accuracy", [0.3, 0.7]).place


def test_a_long_curve_is_thinned_but_not_its_data() -> None:
    trials = trials_of(("t", "cnn", {}, 0, "finished"))
    records = records_of(trials, curves("loss", "t", [1 / epoch for epoch in range(1, 1001)]))
    figure = figures.learning_curves(trials, chartdata.sum_up(trials, records), "loss", "Cross-entropy (nats)")
    shown = layers_of(figure.panels[0])[0][1]
    assert len(shown) == lines.SHOWN_EPOCHS
    assert (shown[0]["x"], shown[-1]["x"]) == (1, 1000)
    assert len(figure.data) == 1000
    assert f"{lines.SHOWN_EPOCHS} of 1000 epochs are drawn; this figure's data file has" in figure.caption
    table = curve_table(figure)
    assert table.note == "6 of 1000 epochs; this figure's data file has all of them." and len(table.columns) == 2 + 6
    short = records_of(trials, curves("loss", "t", [1.0, 0.5]))
    figure = figures.learning_curves(trials, chartdata.sum_up(trials, short), "loss", "Cross-entropy (nats)")
    assert "epochs are drawn" not in figure.caption and not curve_table(figure).note


def test_epochs_that_curves_by_depth_leave_out_are_said() -> None:
    trials = trials_of(*((f"p{blocks}", "plain", {"blocks": blocks}, 0, "finished") for blocks in (2, 5)))
    for epochs in (fit.SHOWN_EPOCHS, fit.SHOWN_EPOCHS + 1):
        rows = [row for trial in ("p2", "p5") for row in curves("error", trial, [9.0] * epochs)]
        (figure,) = fit.depth_curves(trials, chartdata.sum_up(trials, records_of(trials, rows)))
        said = f"{fit.SHOWN_EPOCHS} of {epochs} epochs are drawn" in figure.caption
        assert said == (epochs > fit.SHOWN_EPOCHS)


def test_a_curve_that_ends_with_the_first_of_its_trials_says_so() -> None:
    trials = trials_of(("t0", "cnn", {}, 0, "finished"), ("t1", "cnn", {}, 1, "finished"))
    ends = "its curve ends with the first of them"
    for values, apart in (([3.0, 2.0], True), ([3.0, 2.0, 1.0], False), ([3.0, math.nan, 1.0], False)):
        rows = [*curves("loss", "t0", [3.0, 2.0, 1.0]), *curves("loss", "t1", values)]
        rows += [row for trial in ("t0", "t1") for row in curves("loss", trial, [3.0, 2.0], "validation")]
        found = chartdata.sum_up(trials, records_of(trials, rows))
        for figure in (
            figures.learning_curves(trials, found, "loss", "Cross-entropy (nats)"),
            *fit.fit_curves(trials, found, "loss", "Cross-entropy (nats)"),
        ):
            last = figure.data.loc[
                figure.data["split"].isin(["train", ""]) & figure.data["arm"].eq("cnn"), "epoch"
            ].max()
            assert (last, ends in figure.caption) == (2 if apart else 3, apart)
            assert ("not finite are not drawn" in figure.caption) == any(math.isnan(value) for value in values)


def test_what_lies_beyond_an_edge_is_said() -> None:
    trials = trials_of(("t", "cnn", {}, 0, "finished"), ("d", "cnn", {}, 1, "diverged"))
    for last in (2.5, 1e9):
        records = records_of(trials, [*curves("loss", "t", [2.0, 1.0]), *curves("loss", "d", [2.0, last])])
        figure = figures.learning_curves(trials, chartdata.sum_up(trials, records), "loss", "Cross-entropy (nats)")
        said = re.search(
            r"Values above (\S+), of trials that did not finish, lie beyond the upper edge", figure.caption
        )
        top = layers_of(figure.panels[0])[0][0]["encoding"]["y"]["scale"]["domain"][1]
        assert (last > top) == (said is not None)
        assert said is None or float(said[1]) == pytest.approx(top, rel=0.01)
        assert "lower edge" not in figure.caption


def test_layers_and_epochs_that_maps_and_profiles_leave_out_are_said() -> None:
    trials = trials_of(("t", "plain", {}, 0, "finished"))

    def drawn(epochs: int, layers: int) -> list[chart.Figure]:
        rows = [
            ("t", "plain", "plain", 0, epoch, kind, f"layer{place}", place, place, 0.5)
            for epoch in range(1, epochs + 1)
            for place in range(1, layers + 1)
            for kind in (ACTIVATION_GRADIENT, SECOND_MOMENT)
        ]
        found = Diagnostics(pd.DataFrame(rows, columns=list(COLUMNS)))
        return [figures.gradient_profiles(trials, found), *heat.heat_maps(found, trials)]

    profile, flow, *_, moments = drawn(heat.SHOWN_EPOCHS, heat.SHOWN_LAYERS)
    assert f"3 of {heat.SHOWN_EPOCHS} measured epochs are drawn: the first, the middle and the last" in profile.caption
    assert "At most" not in flow.caption + moments.caption and "blocks are drawn" not in profile.caption
    profile, flow, *_, moments = drawn(heat.SHOWN_EPOCHS + 1, heat.SHOWN_LAYERS + 131)
    for figure, what in ((flow, "blocks"), (moments, "layers")):
        for most, name in ((heat.SHOWN_EPOCHS, "epochs"), (heat.SHOWN_LAYERS, what)):
            assert f"At most {most} {name} of an arm are drawn, evenly over all" in figure.caption
        cells = layers_of(figure.panels[0])[0][1]
        assert {len({cell[key] for cell in cells}) for key in ("epoch", "position")} == {60, 120}
        assert len(figure.data) == (heat.SHOWN_EPOCHS + 1) * (heat.SHOWN_LAYERS + 131)
    assert re.search(r"\d+ of 251 blocks are drawn", profile.caption)
    profile, *_ = drawn(3, 2)
    assert "measured epochs" not in profile.caption


def test_values_that_a_map_leaves_out_are_said() -> None:
    trials = trials_of(("t", "plain", {}, 0, "finished"))
    for value in (0.5, math.inf):
        rows = [
            ("t", "plain", "plain", 0, 1, SECOND_MOMENT, f"layer{n}", n, n, one) for n, one in ((1, 0.5), (2, value))
        ]
        *_, moments = heat.heat_maps(Diagnostics(pd.DataFrame(rows, columns=list(COLUMNS))), trials)
        assert ("not finite are left out" in moments.caption) == math.isinf(value)


@pytest.mark.parametrize("pairs", [SHOWN_LINES, SHOWN_LINES + 1])
def test_runs_of_too_many_pairs_are_not_joined_and_that_is_said(pairs: int) -> None:
    trials = trials_of(*((f"{base}{seed}", base, {}, seed, "finished") for base in "ab" for seed in range(pairs)))
    records = records_of(trials, [(trial, 1, "final", "test_error", 2.0) for trial in trials["trial"]])
    figure = run_values(trials, records, metric("test_error"), "runs", True)
    joined = any(layer["mark"]["type"] == "line" for layer, _ in layers_of(figure.panels[0]))
    assert joined == ("Lines join the runs of a pair." in figure.caption) == (pairs <= SHOWN_LINES)
    assert (f"No lines join the runs of a pair, of which there are {pairs}." in figure.caption) == (not joined)


@given(st.lists(st.integers(), unique=True, max_size=60), st.integers(2, 20))
def test_spread_keeps_order_ends_and_number(items: list[int], most: int) -> None:
    chosen = spread(items, most)
    assert len(chosen) == min(most, len(items))
    assert [item for item in items if item in set(chosen)] == chosen
    assert not items or (chosen[0], chosen[-1]) == (items[0], items[-1])


# --- colours


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    parts = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def contrast_ratio(a: str, b: str) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("palette", [LIGHT, DARK])
def test_text_and_first_arms_stand_out_from_the_ground(palette: Palette) -> None:
    assert contrast_ratio(palette.ink, palette.ground) >= 7
    assert contrast_ratio(palette.muted, palette.ground) >= 4.5
    assert all(contrast_ratio(arm, palette.ground) >= 3 for arm in palette.arms[:3])


DICHROMATS = {  # linear RGB, Machado, Oliveira & Fernandes 2009, severity 1
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


@pytest.mark.parametrize("palette", [LIGHT, DARK])
@pytest.mark.parametrize("kind", DICHROMATS)
def test_colours_of_arms_differ_for_colour_blind_readers(palette: Palette, kind: str) -> None:
    rgb = np.array([[int(arm[i : i + 2], 16) / 255 for i in (1, 3, 5)] for arm in palette.arms])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(DICHROMATS[kind]).T, 0, 1)
    xyz = seen @ np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]).T
    scaled = np.cbrt(xyz / [0.9505, 1, 1.089])
    lab = np.stack(
        [116 * scaled[:, 1], 500 * (scaled[:, 0] - scaled[:, 1]), 200 * (scaled[:, 1] - scaled[:, 2])], axis=1
    )
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=-1)[np.triu_indices(len(lab), 1)]
    assert apart.min() > 8  # a just noticeable difference is about 2.3


def test_arms_differ_without_colour() -> None:
    assert len({tuple(dash) for dash in chart.DASHES}) == len(set(chart.MARKERS)) == chart.DISTINCT
    assert all(len(palette.arms) == chart.DISTINCT for palette in (LIGHT, DARK, PAGE))


def test_eight_arms_are_all_drawn_each_with_a_mark_of_its_own() -> None:
    names = [f"{kind}-shortcut" for kind in ("none", "identity", "scaled-identity", "exclusive-gating-bias-minus-six")]
    names += [f"{name}-and-dropout" for name in names]
    trials = trials_of(*((name, name, {}, 0, "finished") for name in names))
    rows = [row for name in names for row in curves("loss", name, [2.0, 1.0])]
    records = records_of(trials, [*rows, *((name, 1, "final-test", "error", 4.0) for name in names)])
    figure = figures.learning_curves(trials, chartdata.sum_up(trials, records), "loss", "Cross-entropy (nats)")
    assert "arms are drawn" not in figure.caption
    assert [panel.title for panel in figure.panels] == [
        f"Training, {names[0]} to {names[3]}",
        f"Training, {names[4]} to {names[7]}",
    ]
    drawn = [row["base"] for panel in figure.panels for _, part in layers_of(panel) for row in part]
    assert set(drawn) == set(names)
    assert [key.label for key in figure.keys] == names
    assert len({(key.arm, key.marker) for key in figure.keys}) == len({(key.arm, key.dash) for key in figure.keys}) == 8
    svg = to_svg(figures.final_error(trials, records))
    assert all(f">{name}<" in svg for name in names)  # whole, none cut short


def test_many_seeds_are_drawn_as_ranges() -> None:
    seeds = 300
    rows = [(f"{base}{n}", base, {"blocks": 2 + n % 2}, n // 2, "finished") for base in "ab" for n in range(2 * seeds)]
    trials = trials_of(*rows)
    records = records_of(trials, [(row[0], 1, "final-test", "error", float(row[3])) for row in rows])
    figure = figures.final_error(trials, records)
    assert "the middle half of them" in figure.caption and "one seed each" not in figure.caption
    bars = [layer for layer, _ in layers_of(figure.panels[0]) if layer["mark"]["type"] == "rule"]
    drawn = [data for layer, data in layers_of(figure.panels[0]) if layer["mark"]["type"] == "rule"]
    assert len(bars) == 2
    assert {(row["least"], row["low"], row["high"], row["greatest"]) for row in drawn[0]} == {(0, 74.75, 224.25, 299)}
    assert len(figure.data) == len(trials)
    many = forest(findings_of(*(contrast("a", f"b{n}", [float(k) for k in range(100)]) for n in range(20))))
    assert "single seeds, too many to draw" in many.caption
    few = forest(findings_of(contrast("a", "b", [1.0, 2.0])))
    assert "rings below: one seed each" in few.caption


def test_of_many_arms_the_control_the_extremes_and_clear_differences_are_drawn() -> None:
    names = [f"arm{n:02d}" for n in range(40)]
    errors = {name: summarise([10.0 + 0.1 * n, 10.1 + 0.1 * n]) for n, name in enumerate(names)}
    arms = tuple(
        ArmFinding(name, name, {}, 2, 2, 0, 0, 0, {"test_error": error}, None, None) for name, error in errors.items()
    )
    others = [contrast(name, "arm20", [1.0, 2.0]) for name in names if name not in ("arm20", "arm25")]
    clear = contrast("arm25", "arm20", [9.0, 9.1], "worse")
    chosen = notable.notable_arms(Findings("s", "", arms, (*others, clear)))
    best, worst = names[: notable.BEST], names[-notable.WORST :]
    assert chosen == ("arm20", *best, *worst, "arm25")
    trials = trials_of(*((name, name, {}, 0, "finished") for name in names))
    records = records_of(trials, [row for name in names for row in curves("loss", name, [2.0, 1.0])])
    figure = figures.learning_curves(trials, chartdata.sum_up(trials, records), "loss", "Loss", notable=chosen)
    assert [key.label for key in figure.keys] == sorted(chosen)
    assert f"{len(chosen)} of 40 arms are drawn: the control (the arm of most contrasts), the best" in figure.caption
    assert set(figure.data["arm"]) == set(names)
