"""Figures of the deeper probes: what is drawn against what the probes gave, of networks that were trained a little."""

import json
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
import vl_convert
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from leadline.analysis.diagnostics import Diagnostics
from leadline.errors import DataError, SpecError
from leadline.networks.modules import build
from leadline.probes.snapshots import PROBES, find_probe
from leadline.probes.snapshots.cka import measurement as cka
from leadline.probes.snapshots.cka.figures import SHOWN_LAYERS
from leadline.probes.snapshots.decomposition import measurement as decomposition
from leadline.probes.snapshots.hessian import measurement as hessian
from leadline.probes.snapshots.jacobian import measurement as jacobian
from leadline.probes.snapshots.landscape import measurement as landscape
from leadline.probes.snapshots.lesion import measurement as lesion
from leadline.probes.snapshots.noise import measurement as noise
from leadline.probes.snapshots.paths import measurement as paths
from leadline.probes.snapshots.shattered import measurement as shattered
from leadline.reports.charts.axes import DECADES, logarithmic, whole_numbers
from leadline.reports.charts.chart import LIGHT, SHOWN_BASES, Figure, theme
from leadline.reports.charts.earlyflow import early_flow
from leadline.reports.charts.probe_curves import SHOWN_EPOCHS, SHOWN_LEVELS, over_seeds, prepare_rows
from leadline.reports.charts.probes import figures as figures_of
from leadline.specs import NetworkSpec, Shortcut, Stage

NETWORKS = {
    base: NetworkSpec(
        stages=(Stage(blocks=3, width=3),), normalisation="none", block={"shortcut": Shortcut(kind=shortcut)}
    )
    for base, shortcut in (("plain", "none"), ("residual", "A"))
}
RANDOM = torch.Generator().manual_seed(0)
IMAGES = torch.randn(24, 1, 6, 6, generator=RANDOM)
LABELS = torch.randint(0, 3, (24,), generator=RANDOM)
BOTH = ["plain", "residual"]

Probe = Callable[[nn.Module], Any]
MEASURES: dict[str, list[Probe]] = {
    "cka": [lambda model: cka.cka(model, IMAGES)],
    "decomposition": [lambda model: decomposition.decompose(model, IMAGES, LABELS)],
    "hessian": [lambda model: hessian.hessian(model, IMAGES[:8], LABELS[:8], steps=8, vectors=2, trace_vectors=4)],
    "jacobian": [
        lambda model: jacobian.jacobian(model, IMAGES[:3]),
        lambda model: jacobian.jacobian(model, IMAGES[:3], maps="from-input", steps=4),
        lambda model: jacobian.jacobian(model, IMAGES[:3], maps="across", steps=4),
    ],
    "landscape": [
        lambda model: landscape.along(model, IMAGES, LABELS, points=7),
        lambda model: landscape.plane(model, IMAGES, LABELS, points=4),
        lambda model: landscape.between(model, IMAGES, LABELS, network(NETWORKS[base_of(model)], 9, 0), points=6),
    ],
    "lesion": [
        lambda model: lesion.lesion(model, IMAGES, LABELS),
        lambda model: lesion.lesion_several(model, IMAGES, LABELS, draws=2),
        lambda model: lesion.swap(model, IMAGES, LABELS),
    ],
    "noise": [lambda model: noise.gradient_noise(model, IMAGES, LABELS, batch_size=4)],
    "paths": [lambda model: paths.gradient_by_path_length(model, IMAGES, LABELS, samples=3)],
    "shattered": [lambda model: shattered.shattered(model, IMAGES[:4], points=6)],
}


def figures(name: str, frame: pd.DataFrame, bases: Sequence[str] = ()) -> list[Figure]:
    return figures_of(find_probe(name), frame, bases)


def base_of(model: nn.Module) -> str:
    return "residual" if any(getattr(module, "join", None) is not None for module in model.modules()) else "plain"


def network(spec: NetworkSpec, seed: int, epoch: int) -> nn.Module:
    model = build(spec, (1, 6, 6), 3, seed)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for _ in range(4 * epoch):
        optimizer.zero_grad()
        F.cross_entropy(model(IMAGES), LABELS).backward()
        optimizer.step()
    return model


Results = dict[tuple[str, int, int], list[Any]]


@pytest.fixture(scope="module")
def results() -> dict[str, Results]:
    """What every probe gave, by base, seed and epoch."""
    found: dict[str, Results] = {name: {} for name in MEASURES}
    for base, spec in NETWORKS.items():
        for seed in (0, 1):
            for epoch in (0, 2):
                model = network(spec, seed, epoch)
                for name, probes in MEASURES.items():
                    if name != "paths" or base == "residual":
                        found[name][base, seed, epoch] = [probe(model) for probe in probes]
    return found


def study(results: Results, level: str = "blocks=3") -> pd.DataFrame:
    return pd.concat(
        [
            result.frame().assign(arm=f"{base}[{level}]", base=base, seed=seed, epoch=epoch)
            for (base, seed, epoch), own in results.items()
            for result in own
        ],
        ignore_index=True,
    )


def plain_json(spec: Any) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} in a chart")

    return json.loads(json.dumps(spec), parse_constant=refuse)


def marks(figure: Figure, base: str, epoch: int, **given: Any) -> pd.DataFrame:
    rows = figure.data
    for field, value in {"base": base, "epoch": epoch, **given}.items():
        rows = rows[rows[field].eq(value)]
    return rows.sort_values("x", kind="stable")


def drawn_rows(figure: Figure) -> list[dict[str, Any]]:
    """All rows of data in a figure's charts."""
    spec = plain_json(figure.chart().to_dict(validate=False))
    return [row for rows in spec["datasets"].values() for row in json.loads(rows)]


NAMES = {
    "cka": ["cka"],
    "decomposition": ["decomposition"],
    "hessian": ["hessian"],
    "jacobian": ["jacobian", "jacobian-from-input", "jacobian-across"],
    "landscape": ["landscape", "landscape-between", "landscape-plane"],
    "lesion": ["lesion", "lesion-several", "lesion-order"],
    "noise": ["noise"],
    "paths": ["paths", "path-shares"],
    "shattered": ["shattered", "shattered-distance"],
}


def test_every_probe_has_figures() -> None:
    assert set(MEASURES) == set(NAMES) == set(PROBES.members())


@pytest.mark.slow
@pytest.mark.parametrize("name", MEASURES)
def test_what_probes_give_is_drawn(name: str, results: dict[str, Results]) -> None:
    found = figures(name, study(results[name]), BOTH)
    assert [figure.name for figure in found] == NAMES[name]
    for figure in found:
        spec = plain_json(figure.chart().to_dict(validate=False))
        assert not re.search(r"#[0-9a-fA-F]{3,6}\b", json.dumps(spec)), "a chart names a colour"
        svg = vl_convert.vegalite_to_svg(spec | {"config": theme(LIGHT, standalone=True)})
        assert "NaN" not in svg and "undefined" not in svg
        assert figure.title and len(figure.caption) > 60 and re.search(r"\d", figure.description)
        titles = " | ".join(panel.title for panel in figure.panels)
        if name != "paths" and figure.name != "landscape-between":
            assert "efore the first step" in titles and "poch 2" in titles
        assert {"arm", "base", "epoch"} <= {*figure.data.columns}
        if figure.keys:  # each arm has its colour, drawn or not the other one
            numbers = {key.label: key.arm for key in figure.keys if key.arm}
            assert numbers == {base: BOTH.index(base) + 1 for base in {*figure.data["base"]}}


@pytest.mark.slow
def test_one_trial_is_drawn_alone(results: dict[str, Results]) -> None:
    for name in MEASURES:
        one = {("residual", 0, 2): results[name]["residual", 0, 2]}
        for figure in figures(name, study(one)):
            assert figure.panels and figure.columns == 1
            assert "mean over seeds" not in figure.caption
            assert figure.keys == () or figure.keys[0].arm == 1


# --- the numbers


def test_shares_are_means_over_seeds_with_their_range(results: dict[str, Results]) -> None:
    (figure,) = figures("decomposition", study(results["decomposition"]))
    pair = np.stack([results["decomposition"]["residual", seed, 2][0].share for seed in (0, 1)])
    own = marks(figure, "residual", 2)
    np.testing.assert_allclose(own["mean"], pair.mean(0))
    np.testing.assert_allclose(own["low"], pair.min(0))
    np.testing.assert_allclose(own["high"], pair.max(0))
    assert list(own["x"]) == [1, 2, 3] and set(own["seeds"]) == {2}
    assert set(marks(figure, "plain", 0)["mean"]) == {0.0}
    gap = max(result[0].gap.max() for result in results["decomposition"].values())
    assert f"largest gap is {gap:.1e}" in figure.caption
    assert f"residual[blocks=3], epoch 2: {pair.mean(0)[0]:.3g} to {pair.mean(0)[-1]:.3g}" in figure.description
    # a mark in the chart is the number in the data
    heights = [row["mean"] for row in drawn_rows(figure) if row.get("base") == "residual"]
    assert set(np.round(pair.mean(0), 5)) <= set(np.round(heights, 5))


def test_singular_values_are_medians_over_images(results: dict[str, Results]) -> None:
    first, from_input, _ = figures("jacobian", study(results["jacobian"]))
    for extreme in ("largest", "smallest"):
        pair = [np.median(getattr(results["jacobian"]["plain", seed, 0][0], extreme), 1) for seed in (0, 1)]
        own = marks(first, "plain", 0, part=extreme)
        np.testing.assert_allclose(own["mean"], np.mean(pair, 0))
        assert list(own["x"]) == [0, 1, 2, 3] and own["place"].iloc[0] == "images"
    assert marks(from_input, "plain", 0, part="largest")["x"].iloc[0] == 1
    assert [key.label for key in first.keys] == [*BOTH, "largest", "smallest"]
    # exact values need no word about it, few Lanczos steps do
    assert "Lanczos" not in first.caption and "Lanczos" in from_input.caption


def test_correlation_counts_all_pairs_of_points_alike(results: dict[str, Results]) -> None:
    figure, far = figures("shattered", study(results["shattered"]))
    one = results["shattered"]["residual", 0, 0][0], results["shattered"]["residual", 1, 0][0]
    own = marks(figure, "residual", 0)
    expected = np.mean([result.mean_correlation for result in one], 0)
    # the last place is the fewest blocks from the output; the images are not drawn
    np.testing.assert_allclose(own["mean"], expected[1:][::-1], rtol=1e-6)
    assert list(own["x"]) == [1, 2, 3] and "images" not in set(own["place"])
    deepest = marks(far, "residual", 0)
    np.testing.assert_allclose(deepest["mean"], np.mean([result.by_distance[1] for result in one], 0), rtol=1e-6)
    assert deepest["x"].iloc[0] == 0.0 and deepest["mean"].iloc[0] == pytest.approx(1)


def test_lesions_stand_beside_the_whole_network(results: dict[str, Results]) -> None:
    one, several, order = figures("lesion", study(results["lesion"]))
    pair = [results["lesion"]["residual", seed, 2] for seed in (0, 1)]
    np.testing.assert_allclose(marks(one, "residual", 2)["mean"], np.mean([own[0].errors for own in pair], 0))
    intact = np.mean([own[0].error for own in pair])
    for figure in (one, several, order):
        rules = [row for row in drawn_rows(figure) if set(row) == {"arm", "base", "mean"}]
        assert any(row["base"] == "residual" and row["mean"] == pytest.approx(intact, rel=1e-5) for row in rules)
    means = [own[1].errors.reshape(3, 2).mean(1) for own in pair]
    np.testing.assert_allclose(marks(several, "residual", 2)["mean"], np.mean(means, 0))
    assert sorted(marks(order, "residual", 2)["mean"]) == sorted(np.concatenate([own[2].errors for own in pair]))
    # the first block widens, and there is no identity to put in a plain one's place
    assert "Left out: 1 block of plain arms" in one.caption and list(marks(one, "plain", 2)["x"]) == [2, 3]
    alone = figures("lesion", study({key: own[1:2] for key, own in results["lesion"].items()}))
    assert [figure.name for figure in alone] == ["lesion-several"]
    assert "Horizontal" not in alone[0].caption


def test_blocks_that_cannot_be_deleted_are_counted(results: dict[str, Results]) -> None:
    frame = study({("plain", 0, 2): results["lesion"]["plain", 0, 2][:1]})
    frame.loc[1, ["error", "error_increase"]] = np.nan
    (figure,) = figures("lesion", frame)
    assert "Left out: 2 blocks of plain arms" in figure.caption
    assert list(figure.data["x"]) == [3]


def test_the_hill_between_networks_is_the_probes_barrier(results: dict[str, Results]) -> None:
    one = results["landscape"]["residual", 0, 2]
    figure = next(f for f in figures("landscape", study({("residual", 0, 2): one})) if f.name == "landscape-between")
    assert f"residual[blocks=3], epoch 2: {one[2].barrier:.3g}." in figure.caption
    np.testing.assert_allclose(marks(figure, "residual", 2)["mean"], one[2].loss)


@pytest.mark.parametrize("layers", [SHOWN_LAYERS, SHOWN_LAYERS + 1])
def test_layers_that_a_map_of_cka_leaves_out_are_said(layers: int) -> None:
    rows = [(depth, f"l{depth}", 0, "l0", 0.5) for depth in range(layers)]
    frame = pd.DataFrame(rows, columns=["row_depth", "row", "column_depth", "column", "cka"])
    (figure,) = figures("cka", frame.assign(arm="a", base="a", seed=0, epoch=0))
    assert (f"At most {SHOWN_LAYERS} layers of a network are drawn" in figure.caption) == (layers > SHOWN_LAYERS)
    assert len(figure.data) == layers


def test_every_place_of_a_plane_and_of_a_matrix_has_its_cell(results: dict[str, Results]) -> None:
    (matrix,) = figures("cka", study(results["cka"]))
    assert [panel.title for panel in matrix.panels] == [
        f"{base}[blocks=3], {when}" for when in ("before the first step", "epoch 2") for base in BOTH
    ]
    plane = figures("landscape", study(results["landscape"]))[-1]
    for figure in (matrix, plane):
        for panel in figure.panels:
            spec = plain_json(panel.chart.to_dict(validate=False))
            encoding = spec["layer"][0]["encoding"]
            rows = [row for rows in spec["datasets"].values() for row in json.loads(rows)]
            # x and y of each cell are among the places of the axes, as they are written
            assert {row["x"] for row in rows} <= set(encoding["x"]["scale"]["domain"])
            assert {row["y"] for row in rows} <= set(encoding["y"]["scale"]["domain"])
        scales = [
            json.dumps(panel.chart.to_dict(validate=False)["layer"][0]["encoding"]["color"]["scale"])
            for panel in figure.panels
        ]
        assert len(set(scales)) == 1
    pair = [results["cka"]["plain", seed, 0][0].values for seed in (0, 1)]
    own = matrix.data[matrix.data["base"].eq("plain") & matrix.data["epoch"].eq(0)]
    np.testing.assert_allclose(own["mean"], np.mean(pair, 0).ravel())


def test_a_layer_without_a_value_keeps_its_place(results: dict[str, Results]) -> None:
    frame = study({("plain", 0, 0): results["cka"]["plain", 0, 0]})
    last = frame["row_depth"].max()
    frame.loc[frame["row_depth"].eq(last) | frame["column_depth"].eq(last), "cka"] = np.nan
    (figure,) = figures("cka", frame)
    assert figure.panels[0].chart.to_dict()["layer"][0]["encoding"]["y"]["scale"]["domain"][-1] == last + 1
    assert "Layers whose output is the same for every image are left out" in figure.caption


def test_traces_and_largest_eigenvalues_are_said(results: dict[str, Results]) -> None:
    (figure,) = figures("hessian", study(results["hessian"]))
    pair = [results["hessian"]["residual", seed, 2][0] for seed in (0, 1)]
    traces = [own.trace for own in pair]
    error = np.hypot(*(own.trace_error for own in pair)) / 2
    said = f"{np.mean(traces):.3g} ± {error:.2g} ({min(traces):.3g} to {max(traces):.3g})"
    assert f"residual[blocks=3], epoch 2: {said}" in figure.caption
    assert f"residual[blocks=3], epoch 2: {np.mean([own.largest[0] for own in pair]):.3g}" in figure.description
    shown = [row["x"] for row in drawn_rows(figure) if row.get("quantity") == "largest"]
    expected = [value for own in results["hessian"].values() for value in own[0].largest]
    np.testing.assert_allclose(sorted(shown), sorted(expected), rtol=1e-5)


def test_noise_scale_is_said_and_its_layers_drawn(results: dict[str, Results]) -> None:
    (figure,) = figures("noise", study(results["noise"]))
    scales = [results["noise"]["residual", seed, 0][0].noise_scale for seed in (0, 1)]
    low, high = f"{min(scales):.3g}", f"{max(scales):.3g}"
    assert f"residual[blocks=3], before the first step: {low if low == high else f'{low} to {high}'}" in figure.caption
    pair = [results["noise"]["residual", seed, 0][0].signal_to_noise for seed in (0, 1)]
    np.testing.assert_allclose(marks(figure, "residual", 0)["mean"], np.mean(pair, 0))
    assert "all" not in set(figure.data["place"])


def test_paths_are_drawn_by_length(results: dict[str, Results]) -> None:
    norms, shares = figures("paths", study(results["paths"]), BOTH)
    pair = [results["paths"]["residual", seed, 2][0] for seed in (0, 1)]
    np.testing.assert_allclose(
        marks(norms, "residual", 2, part="one")["mean"], np.mean([p.sampled.mean(1) for p in pair], 0)
    )
    exact = np.mean([own.exact_share for own in pair], 0)
    np.testing.assert_allclose(marks(shares, "residual", 2, part="exact")["mean"], exact)
    assert exact.sum() == pytest.approx(1, abs=1e-4)
    band = marks(norms, "residual", 2, part="one")
    np.testing.assert_allclose(band["high"], np.max([np.quantile(p.sampled, 0.75, axis=1) for p in pair], 0))


# --- what is common


def rows_of(*given: tuple[str, str, int, int, float, float]) -> pd.DataFrame:
    """A frame of probe `decomposition` from arm, base, seed, epoch, block and share."""
    frame = pd.DataFrame(given, columns=["arm", "base", "seed", "epoch", "number", "value"])
    return frame.assign(block="b", quantity="share")


def test_levels_epochs_and_arms_beyond_what_is_shown_are_said() -> None:
    frame = rows_of(
        *(
            (f"arm{base}[blocks={level}]", f"arm{base}", 0, epoch, 1, 0.5)
            for base in range(SHOWN_BASES + 2)
            for level in range(5)
            for epoch in range(6)
        )
    )
    (figure,) = figures("decomposition", frame)
    assert len(figure.panels) == SHOWN_LEVELS * SHOWN_EPOCHS and figure.columns == SHOWN_LEVELS
    assert [panel.title for panel in figure.panels][:2] == [
        "Before the first step, blocks = 0",
        "Before the first step, blocks = 2",
    ]
    assert figure.panels[-1].title == "Epoch 5, blocks = 4"
    for said in (f"{SHOWN_BASES} of {SHOWN_BASES + 2} arms", "3 of 5 levels", "3 of 6 epochs"):
        assert said in figure.caption
    assert len(figure.data) == len(frame)
    assert len(figure.keys) == SHOWN_BASES


def test_what_is_below_the_scale_lies_on_its_edge_and_that_is_said(results: dict[str, Results]) -> None:
    frame = study({("residual", 0, 0): results["jacobian"]["residual", 0, 0][:1]})
    frame.loc[frame["extreme"].eq("smallest"), "value"] = 0.0
    (figure,) = figures("jacobian", frame)
    assert "drawn at the lower edge" in figure.caption
    least = min(row["mean"] for row in drawn_rows(figure) if "mean" in row)
    assert least > 0
    assert figure.data["mean"].min() == 0.0


@given(st.lists(st.floats(0, 1e308), min_size=1, max_size=30))
def test_a_logarithmic_axis_holds_what_is_within_its_decades(values: list[float]) -> None:
    axis, edge = logarithmic("", values)
    low, high = axis.to_dict()["scale"]["domain"]
    assert 0 < low == edge < high
    greatest = max(*values, 1e-280)
    assert all(low <= value <= high for value in values if value > greatest / 10 ** (DECADES - 1))
    ticks = axis.to_dict()["axis"]["values"]
    assert len(ticks) <= 12 and all(low <= tick <= high for tick in ticks)


@given(st.integers(0, 500), st.integers(0, 500))
def test_ticks_of_places_are_whole_and_few(low: int, extra: int) -> None:
    ticks = whole_numbers("", pd.Series([low, low + extra])).to_dict()["axis"]["values"]
    assert 1 <= len(ticks) <= 10 or extra < 1
    assert all(tick == int(tick) and low <= tick <= low + extra for tick in ticks)


def test_a_seed_counts_once_whatever_it_measured() -> None:
    rows = prepare_rows("x", rows_of(("a", "a", 0, 0, 1, 1.0), ("a", "a", 0, 0, 1, 3.0), ("a", "a", 1, 0, 1, 8.0)), ())
    rows = pd.concat([rows, rows.assign(value=math.inf)])
    (found,) = over_seeds(rows, ["number"]).itertuples(index=False)
    assert (found.mean, found.low, found.high, found.seeds) == (5.0, 2.0, 8.0, 2)


def test_arms_without_a_level_and_with_a_name_of_their_own() -> None:
    frame = rows_of(("a", "a", 0, 0, 1, 1.0), ("b[k=1,n=x]", "b", 0, 0, 1, 1.0), ("strange", "b", 0, 0, 1, 1.0))
    assert list(prepare_rows("x", frame, ())["level"]) == ["", "k = 1, n = x", "strange"]


@pytest.mark.parametrize("name", MEASURES)
def test_nothing_measured_is_said(name: str, results: dict[str, Results]) -> None:
    frame = study({("residual", 0, 0): results[name]["residual", 0, 0]})
    values = [column for column in frame.select_dtypes("float") if column not in ("x", "y", "distance", "tau", "count")]
    broken = frame.assign(**{column: np.nan for column in values if column != "number"})
    for empty in (pd.DataFrame(), frame.iloc[:0], broken):
        (figure,) = figures(name, empty)
        assert not figure.panels and figure.name == NAMES[name][0]
        assert "Not measured" in figure.caption


@pytest.mark.parametrize(
    ("name", "frame", "error", "said"),
    [
        ("lesions", pd.DataFrame(), SpecError, "unknown probe 'lesions'; did you mean 'lesion'?"),
        ("decomposition", rows_of(("a", "a", 0, 0, 1, 1.0)).drop(columns="seed"), DataError, "no column 'seed'"),
        ("decomposition", rows_of(("a", "a", 0, -1, 1, 1.0)), DataError, "epoch"),
        ("decomposition", rows_of(("a", "a", 0, 0, 1, 1.0)).assign(epoch="last"), DataError, "'last'"),
        ("decomposition", rows_of(("a", "a", 0, 0, 1, 1.0)).assign(base=None), DataError, "base None in row 0"),
        ("decomposition", rows_of(("a", "a", 0, 0, 1, 1.0)).assign(value="x"), DataError, "value 'x' in row 0"),
        ("cka", rows_of(("a", "a", 0, 0, 1, 1.0)), DataError, "no column 'row'"),
        (
            "lesion",
            rows_of(("a", "a", 0, 0, 1, 1.0)).rename(columns={"number": "n"}).assign(error=1.0),
            DataError,
            "none of",
        ),
    ],
)
def test_wrong_frames_are_refused_in_one_line(
    name: str, frame: pd.DataFrame, error: type[Exception], said: str
) -> None:
    with pytest.raises(error) as caught:
        figures(name, frame)
    assert said in str(caught.value) and "\n" not in str(caught.value)


# --- early flow


def early(*given: tuple[str, int, float, float], together: str = "Across 4 trials: rho 0.5.") -> Diagnostics:
    rows = [
        (f"t{n}", f"{base}[blocks=2]", base, seed, ratio, error) for n, (base, seed, ratio, error) in enumerate(given)
    ]
    return Diagnostics(
        early=pd.DataFrame(rows, columns=["trial", "arm", "base", "seed", "ratio", "error"]), correlation=together
    )


def test_early_flow_has_a_mark_for_each_trial_and_the_correlation_below() -> None:
    why = early(
        ("plain", 0, -4.0, 90.0), ("plain", 1, -2.0, 80.0), ("residual", 0, 0.1, 2.0), ("residual", 1, -0.1, 4.0)
    )
    figure = early_flow(why)
    assert why.correlation in figure.caption
    assert [(row["ratio"], row["error"]) for row in drawn_rows(figure)] == [(-4, 90), (-2, 80), (0.1, 2), (-0.1, 4)]
    assert "plain[blocks=2]: log10 ratio -3.00, error 85.00%" in figure.description
    assert [key.label for key in figure.keys] == BOTH
    spec = plain_json(figure.chart().to_dict())
    assert "NaN" not in vl_convert.vegalite_to_svg(spec | {"config": theme(LIGHT, standalone=True)})


def test_early_flow_of_one_trial_and_of_none() -> None:
    alone = early_flow(early(("plain", 0, -4.0, 0.0)))
    domain = alone.panels[0].chart.to_dict()["layer"][0]["encoding"]["x"]["scale"]["domain"]
    assert domain[0] < -4 < domain[1]
    for why in (Diagnostics(), early(("plain", 0, math.nan, 3.0))):
        figure = early_flow(why)
        assert not figure.panels and "No trial has both" in figure.caption
    many = early(*((f"a{n}", 0, float(n), 1.0) for n in range(SHOWN_BASES + 1)))
    assert f"{SHOWN_BASES} of {SHOWN_BASES + 1} arms are drawn" in early_flow(many).caption


def test_charts_are_valid_vega_lite(results: dict[str, Results]) -> None:
    for name in ("lesion", "jacobian", "landscape", "hessian"):
        one = {("residual", 0, 2): results[name]["residual", 0, 2][:1]}
        for figure in figures(name, study(one)):
            assert figure.chart().to_dict(validate=True)["$schema"]
