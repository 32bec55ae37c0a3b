"""Figures of mean-field theory: the two maps, the plane with the edge of chaos, and predictions by depth."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import altair as alt
import numpy as np
import pandas as pd

from leadline.errors import SpecError
from leadline.reports.charts.chart import (
    SHOWN_BASES,
    Figure,
    Panel,
    arm_channels,
    at_field,
    each,
    grid_columns,
    inline,
    legend_keys,
    spread,
)
from leadline.specs.network import Activation
from leadline.text import join
from leadline.theory.meanfield import (
    CRITICAL,
    Floats,
    Point,
    chi,
    correlation_map,
    depth_scale,
    edge_of_chaos,
    fixed_point,
    fixed_variance,
    gradient,
    signal,
    variance_map,
)

if TYPE_CHECKING:
    from leadline.theory.prediction import Prediction
    from leadline.theory.random_networks import Measured, MeasuredBlocks

SHOWN_MARKS = 16
CELLS = 44  # cells of the plane along each axis
LEAST_SCALE, GREATEST_SCALE = 1.0, 100.0  # layers at the ends of the colour scale
_HALO, _ON_HALO = "white", "black"  # on a colour map, which is the same on light and dark pages
_TITLES = {
    "q": "Variance q of a layer",
    "c": "Correlation c of two inputs",
    "gradient": "Gradient norm, over the last layer's",
}


def three_points(activation: Activation) -> tuple[Point, Point, Point]:
    """Return a point in the ordered phase, one on the edge of chaos and one in the chaotic phase.

    The middle one is the point of the edge whose fixed point is 0.3, or the smallest variance above it that is reached
    from a variance of 1. If there is no edge, as for softplus, it has sigma_b = 0 and the sigma_w for which chi(1) = 1.
    """
    without = 1 / math.sqrt(float(chi(Point(activation, 1.0), 1.0))), 0.0
    edge = zip(*edge_of_chaos(activation, np.geomspace(0.3, 1e4, 200)), strict=True)
    middle, bias = next(((float(w), float(b)) for w, b in edge if _is_reached(activation, w, b)), without)
    # an edge with sigma_b = 0 is a single point; its neighbours get a nonzero sigma_b
    sigma_b = round(bias, 3) or 0.2
    low, high = (Point(activation, round(factor * middle, 2), sigma_b) for factor in (0.75, 1.4))
    return low, Point(activation, middle, bias), high


def _is_reached(activation: Activation, sigma_w: float, sigma_b: float) -> bool:
    """Return whether chi_1 is 1 at the fixed point reached from a variance of 1, and not at an unstable one.

    GELU and SiLU have unstable ones: V is steeper than chi_1 if the mean of phi phi'' is positive.
    """
    if math.isnan(sigma_w):
        return False
    point = Point(activation, float(sigma_w), float(sigma_b))
    return abs(float(chi(point, fixed_variance(point))) - 1) <= CRITICAL


def maps_figure(points: Sequence[Point]) -> Figure:
    """Return the variance map V(q) and the correlation map C(c) of up to seven points, fixed points marked.

    Raises:
        SpecError: no point, or more than seven.
    """
    names = _point_names(points)
    fixed = {name: fixed_point(point) for name, point in zip(names, points, strict=True)}
    ends = [own.q for own in fixed.values() if math.isfinite(own.q)]
    q = np.linspace(0, max(1.0, 2 * max(ends, default=1.0)), 121)
    c = np.linspace(0, 1, 61)
    rows = []
    for name, point in zip(names, points, strict=True):
        rows.append(pd.DataFrame({"point": name, "map": "variance", "x": q, "y": variance_map(point, q)}))
        values = [correlation_map(point, fixed[name].q, float(each)) for each in c]
        rows.append(pd.DataFrame({"point": name, "map": "correlation", "x": c, "y": values}))
    frame = pd.concat(rows, ignore_index=True)
    marks = pd.DataFrame(
        [
            {"base": name, "map": kind, "x": value, "y": value}
            for name, own in fixed.items()
            for kind, value in (("variance", own.q), ("correlation", own.c))
            if math.isfinite(value)
        ]
    )
    axes = {"variance": ("q", "V(q)", float(q[-1])), "correlation": ("c", "C(c)", 1.0)}
    panels = tuple(
        Panel(
            f"{kind.capitalize()} map",
            _map_panel(
                frame[frame["map"].eq(kind)].rename(columns={"point": "base"}),
                marks[marks["map"].eq(kind)],
                names,
                *axes[kind],
            ),
        )
        for kind in axes
    )
    infinite = [name for name, own in fixed.items() if math.isinf(own.q)]
    caption = (
        "From one layer to the next; the thin diagonal is where nothing changes, and marks are where a deep network"
        " ends. The correlation map is drawn at that variance."
    )
    if infinite:
        caption += f" The variance grows without bound for {join(infinite, mark=';')}."
    said = [f"{name}: q* = {own.q:.3g}, c* = {own.c:.3g}, chi_1 = {own.chi_1:.3g}" for name, own in fixed.items()]
    return Figure(
        "mean-field-maps",
        f"Variance and correlation from layer to layer, {points[0].activation}",
        caption,
        frame,
        f"Fixed points. {join(said, mark=';')}.",
        panels,
        2,
        tuple(legend_keys(names)),
    )


def plane_figure(activation: Activation, points: Sequence[Point] = ()) -> Figure:
    """Return the (sigma_w, sigma_b) plane: depth scale of gradients as colour, the edge of chaos, points marked.

    Raises:
        SpecError: more than seven points.
    """
    middle = three_points(activation)[1]
    wide = 2.2 * max([middle.sigma_w, *(point.sigma_w / 2 for point in points)])
    high = max([0.6, 2.5 * middle.sigma_b, *(1.1 * point.sigma_b for point in points)])
    across, up = (np.linspace(0, end, CELLS + 1) for end in (wide, high))
    rows = []
    for left, right in pairwise(across):
        for bottom, top in pairwise(up):
            point = Point(activation, (left + right) / 2, (bottom + top) / 2)
            factor = float(chi(point, fixed_variance(point)))
            rows.append((left, right, bottom, top, factor, depth_scale(factor)))
    frame = pd.DataFrame(rows, columns=["left", "right", "bottom", "top", "chi_1", "layers"])
    sigma_w, sigma_b = edge_of_chaos(activation, np.concatenate([[0.0], np.geomspace(1e-6, 1e4, 800)]))
    edge = pd.DataFrame({"x": sigma_w, "y": sigma_b, "order": range(len(sigma_w))})
    edge = edge[edge["x"].le(wide) & edge["y"].le(high)]
    edge = edge[[_is_reached(activation, w, b) for w, b in zip(edge["x"], edge["y"], strict=True)]]
    cells = frame.assign(
        value=np.log10(frame["layers"].clip(LEAST_SCALE, GREATEST_SCALE)),
        phase=np.where(frame["chi_1"] < 1, "ordered", "chaotic"),
    )
    x = alt.X("x:Q", title="σ_w", scale=alt.Scale(domain=[0, wide], nice=False), axis=alt.Axis(tickCount=6))
    y = alt.Y("y:Q", title="σ_b", scale=alt.Scale(domain=[0, high], nice=False), axis=alt.Axis(tickCount=5, grid=False))
    ends = [math.log10(LEAST_SCALE), math.log10(GREATEST_SCALE)]
    shade = alt.Color(
        "value:Q",
        scale=alt.Scale(domain=ends, clamp=True, nice=False),
        legend=alt.Legend(
            title="Layers to a factor e in the squared gradient",
            titleLimit=400,
            orient="bottom",
            gradientThickness=8,
            gradientLength=200,
            values=[0, 0.5, 1, 1.5, 2],
            labelExpr="format(pow(10, datum.value), '.2~r')",
        ),
    )
    tips = [alt.Tooltip("chi_1:Q", title="chi_1", format=".3~g"), alt.Tooltip("layers:Q", format=".3~g")]
    # a little more than their places, so that cells leave no seams
    cells = cells.assign(right=cells["right"] + wide / CELLS / 8, top=cells["top"] + high / CELLS / 8)
    data = inline(cells, ["left", "right", "bottom", "top", "value", "chi_1", "layers", "phase"])
    rectangles = alt.Chart(data).mark_rect(strokeWidth=0, clip=True)
    layers: list[alt.Chart] = [
        rectangles.encode(
            x=at_field(x, "left"), x2="right:Q", y=at_field(y, "bottom"), y2="top:Q", color=shade, tooltip=tips
        )
    ]
    line = len(edge) > 1 and bool(np.ptp(edge["x"]) > 0)
    if line:
        base = alt.Chart(inline(edge, ["x", "y", "order"])).encode(x=x, y=y, order="order:Q")
        layers += [base.mark_line(color=colour, strokeWidth=thick) for colour, thick in ((_HALO, 5), (_ON_HALO, 2))]
    elif len(edge):
        ring = alt.Chart(inline(edge.head(1), ["x", "y"])).mark_point(size=260, strokeWidth=2, color=_HALO, opacity=1)
        layers.append(ring.encode(x=x, y=y))
    names = _point_names(points) if points else []
    if points:
        marks = pd.DataFrame({"base": names, "x": [p.sigma_w for p in points], "y": [p.sigma_b for p in points]})
        dots = alt.Chart(inline(marks, ["base", "x", "y"])).mark_point(
            fill=_ON_HALO, stroke=_HALO, strokeWidth=1.5, size=90, opacity=1
        )
        layers.append(dots.encode(x=x, y=y, shape=arm_channels(names)[2], tooltip=["base:N"]))
    where = (
        "The line is the edge of chaos, chi_1 = 1: left of it gradients vanish, right of it they explode."
        if line
        else "The ring is the one point where neither vanishes, whatever the variance."
        if len(edge)
        else "No point of the plane has chi_1 = 1 at a finite variance."
    )
    best = frame.iloc[int(frame["layers"].to_numpy().argmax())]
    return Figure(
        "mean-field-plane",
        f"How far gradients reach, {activation}",
        f"{where} Colour: the depth scale of the squared gradient, from {LEAST_SCALE:g} layer or fewer to"
        f" {GREATEST_SCALE:g} or more, from a variance of 1 in the first layer.",
        frame,
        f"Longest depth scale of the plane's cells: {best['layers']:.3g} layers at sigma_w about"
        f" {(best['left'] + best['right']) / 2:.2f}, sigma_b about {(best['bottom'] + best['top']) / 2:.2f}.",
        (Panel(f"Depth scale of gradients, {activation}", alt.LayerChart(layer=layers, height=300)),),
        1,
        tuple(replace(key, arm=0) for key in legend_keys(names, dashed=False)),
    )


def depth_figure(points: Sequence[Point], measured: Sequence["Measured"], residual: bool = False) -> Figure:
    """Return variance, correlation and gradient by layer: theory as lines, real random networks as marks.

    Args:
        points: up to seven of one activation.
        measured: `random_networks.measure` of each, with its defaults for variance and correlation of the inputs.
        residual: whether of blocks x + W phi(x) + b.

    Raises:
        SpecError: no point, more than seven, or not one measurement for each.
    """
    names = _point_names(points)
    if len(measured) != len(points):
        raise SpecError(f"depth figure: {len(measured)} measurements of {len(points)} points; expected one for each")
    frames = []
    for name, point, own in zip(names, points, measured, strict=True):
        depth = own.q.shape[1]
        q, c = signal(point, depth, residual=residual)
        for quantity, theory, values in (
            ("q", np.log10(q), _log10(own.q)),
            ("c", c, own.c),
            ("gradient", gradient(point, q, residual), own.gradient),
        ):
            frames.append(_comparison_frame("layer", theory, values).assign(base=name, quantity=quantity))
    frame = pd.concat(frames, ignore_index=True)
    panels = tuple(
        Panel(title, _overlay(frame[frame["quantity"].eq(quantity)], names, "layer", "Layer", quantity != "c"))
        for quantity, title in _TITLES.items()
    )
    frame["gap"] = (frame["measured"] - frame["predicted"]).abs()
    worst = frame[np.isfinite(frame["gap"])].sort_values("gap").drop_duplicates("quantity", keep="last")
    said = [
        f"{_TITLES[row.quantity]}: {row.gap:.2g}"
        f"{'' if row.quantity == 'c' else ' in log10'} at layer {row.layer} of {row.base}"
        for row in each(worst)
    ]
    form = "residual blocks x + W φ(x) + b" if residual else "layers W φ(x) + b"
    return Figure(
        "mean-field-residual-depth" if residual else "mean-field-depth",
        f"Theory and random networks, {points[0].activation}, {'residual' if residual else 'plain'}",
        f"Lines: mean-field theory of {form}. Marks: mean over {int(frame['seeds'].min())} random networks of finite"
        " width; bars: least to greatest. Variances and gradients are drawn as powers of ten.",
        frame,
        f"Largest deviations of the mean. {join(said, mark=';')}.",
        panels,
        grid_columns(len(panels)),
        tuple(legend_keys(names)),
    )


def prediction_figure(
    predictions: Sequence["Prediction"], measured: Sequence["MeasuredBlocks"], names: Sequence[str] = ()
) -> Figure:
    """Return the gradient and the second moment of each block's output: predicted as lines, measured as marks.

    Args:
        predictions: up to seven, such as a network and its twin.
        measured: `random_networks.measure_blocks` of each.
        names: of each; none: by the kinds of their shortcuts.

    Raises:
        SpecError: no prediction, more than seven, or not one measurement for each.
    """
    if not 1 <= len(predictions) <= SHOWN_BASES or len(measured) != len(predictions):
        raise SpecError(
            f"prediction figure: {len(predictions)} predictions and {len(measured)} measurements; expected one to"
            f" {SHOWN_BASES} of each"
        )
    kinds = [own.spec.block.shortcut.kind for own in predictions]
    names = list(names) or [f"{'plain' if kind == 'none' else f'shortcuts {kind}'}" for kind in kinds]
    names = [f"{name}, {number}" if names.count(name) > 1 else name for number, name in enumerate(names, 1)]
    frames = []
    for name, own, real in zip(names, predictions, measured, strict=True):
        for quantity, theory, values in (
            ("gradient", np.array(own.gradient), real.gradient),
            ("q", _log10(np.array(own.second_moment)), _log10(real.second_moment)),
        ):
            frames.append(_comparison_frame("block", theory, values).assign(base=name, quantity=quantity))
    frame = pd.concat(frames, ignore_index=True)
    titles = {"gradient": "Gradient norm, over the last block's", "q": "Second moment of the block's output"}
    panels = tuple(
        Panel(title, _overlay(frame[frame["quantity"].eq(quantity)], names, "block", "Block", True))
        for quantity, title in titles.items()
    )
    first = frame[frame["block"].eq(1) & frame["quantity"].eq("gradient")]
    said = [f"{row.base}: 1e{row.predicted:+.2f} predicted, 1e{row.measured:+.2f} measured" for row in each(first)]
    return Figure(
        "predicted-depth",
        "Predicted and measured at initialisation, block by block",
        f"Lines: mean-field theory. Marks: mean over {int(frame['seeds'].min())} networks as they are trained"
        f"{', on some of the blocks' if frame['block'].max() > SHOWN_MARKS else ''}; bars: least to greatest. Images of"
        " independent normal pixels.",
        frame,
        f"Gradient of the first block over the last one's. {join(said, mark=';')}.",
        panels,
        2,
        tuple(legend_keys(names)),
    )


# --- parts


def _point_names(points: Sequence[Point]) -> list[str]:
    if not 1 <= len(points) <= SHOWN_BASES:
        raise SpecError(f"mean-field figure: {len(points)} points; expected 1 to {SHOWN_BASES}")
    if len({point.activation for point in points}) > 1:
        raise SpecError("mean-field figure: points of several activations; expected one: draw a figure for each")
    names = [f"σ_w {point.sigma_w:.3g}, σ_b {point.sigma_b:.3g}" for point in points]
    if len(set(names)) < len(names):
        raise SpecError(f"mean-field figure: {join(names, mark=';')}; expected points that differ")
    return names


def _log10(values: Floats) -> Floats:
    with np.errstate(divide="ignore"):
        return np.asarray(np.log10(values))


def _comparison_frame(place: str, predicted: Floats, measured: Floats) -> pd.DataFrame:
    """Return a row per layer or block, with the mean and the range of the measurements [networks, places]."""
    frame = pd.DataFrame({place: np.arange(1, len(predicted) + 1), "predicted": predicted})
    # an infinite value makes the mean missing, without a warning
    finite = np.where(np.isfinite(measured), measured, np.nan)
    return frame.assign(
        measured=finite.mean(0), low=finite.min(0), high=finite.max(0), seeds=np.full(len(predicted), len(measured))
    )


def _map_panel(
    rows: pd.DataFrame, marks: pd.DataFrame, names: Sequence[str], across: str, up: str, end: float
) -> alt.LayerChart:
    colour, dash, shape = arm_channels(names)
    x = alt.X("x:Q", title=across, scale=alt.Scale(domain=[0, end], nice=False), axis=alt.Axis(tickCount=5))
    y = alt.Y("y:Q", title=up, scale=alt.Scale(domain=[0, end], nice=False), axis=alt.Axis(tickCount=5))
    diagonal = pd.DataFrame({"x": [0.0, end], "y": [0.0, end]})
    tips = [alt.Tooltip("base:N", title="point"), alt.Tooltip("x:Q", format=".3~g"), alt.Tooltip("y:Q", format=".3~g")]
    lines = alt.Chart(inline(rows, ["base", "x", "y"])).mark_line(strokeWidth=2, clip=True)
    dots = alt.Chart(inline(marks, ["base", "x", "y"])).mark_point(filled=True, size=80, opacity=1)
    return alt.LayerChart(
        layer=[
            alt.Chart(inline(diagonal, ["x", "y"])).mark_line(style="seed").encode(x=x, y=y),
            lines.encode(x=x, y=y, color=colour, strokeDash=dash),
            dots.encode(x=x, y=y, color=colour, shape=shape, tooltip=tips),
        ],
        height=230,
    )


def _overlay(rows: pd.DataFrame, names: Sequence[str], place: str, title: str, powers: bool) -> alt.LayerChart:
    """Return a chart with predictions as lines and measurements as marks, at some of the places."""
    colour, dash, shape = arm_channels(names)
    rows = rows.rename(columns={place: "x"}).replace([np.inf, -np.inf], np.nan)
    x = alt.X(
        "x:Q",
        title=title,
        scale=alt.Scale(zero=False, nice=False, padding=10),
        axis=alt.Axis(tickCount=6, tickMinStep=1, format="d"),
    )
    values = rows[["predicted", "low", "high"]].to_numpy().ravel()
    values = values[np.isfinite(values)]
    low, high = values.min(), values.max()
    if powers:
        # integer powers over a wide range, else enough ticks for a grid
        step = max(1.0, math.ceil((high - low) / 6)) if high - low > 2 else 0.5 if high - low > 0.7 else 0.1
        unit = min(step, 1.0)
        low, high = unit * math.floor(low / unit - 1e-9), unit * math.ceil(high / unit + 1e-9)
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        ticks = [float(f"{step * number:.6g}") for number in range(first, last + 1)]
        label = "1" if step >= 1 else ".2~g"
        text = "'1e' + format(datum.value, 'd')" if label == "1" else "format(pow(10, datum.value), '.2~g')"
        axis = alt.Axis(values=spread(ticks, 7), labelExpr=text)
        y = alt.Y("y:Q", title=None, scale=alt.Scale(domain=[low, high], nice=False, zero=False), axis=axis)
    else:
        y = alt.Y("y:Q", title=None, scale=alt.Scale(domain=[min(0.0, low), 1], nice=False), axis=alt.Axis(tickCount=5))
    marks = rows[rows["x"].isin(spread(sorted(rows["x"].unique()), SHOWN_MARKS))]
    columns = ["base", "x", "predicted", "measured", "low", "high"]
    tips = [alt.Tooltip("base:N"), alt.Tooltip("x:Q", title=place)]
    tips += [alt.Tooltip(f"{field}:Q", format=".3~g") for field in ("predicted", "measured")]
    data = inline(marks, columns)
    lines = alt.Chart(inline(rows, columns)).mark_line(strokeWidth=2)
    return alt.LayerChart(
        layer=[
            alt.Chart(data).mark_rule(strokeWidth=1).encode(x=x, y=at_field(y, "low"), y2="high:Q", color=colour),
            lines.encode(x=x, y=at_field(y, "predicted"), color=colour, strokeDash=dash),
            alt.Chart(data)
            .mark_point(filled=True, size=36, opacity=1)
            .encode(x=x, y=at_field(y, "measured"), color=colour, shape=shape, tooltip=tips),
        ],
        height=210,
    )
