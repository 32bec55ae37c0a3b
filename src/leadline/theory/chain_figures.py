"""Figures of chains and initialisations by layer: measurements as marks, closed forms as lines.

Values are drawn as log10, because they range down to 1e-600.
"""

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import altair as alt
import numpy as np
import pandas as pd

from leadline.errors import SpecError
from leadline.reports.charts.axes import whole_step
from leadline.reports.charts.chart import (
    CROSS,
    SHOWN_BASES,
    Figure,
    Key,
    Panel,
    arm_channels,
    at_field,
    each,
    grid_columns,
    inline,
    legend_keys,
    spread,
)
from leadline.text import join

if TYPE_CHECKING:
    from leadline.theory.chain_forms import Quantity
    from leadline.theory.chains import ChainResult
    from leadline.theory.variance import VarianceResult

SHOWN_POINTS, SHOWN_STEPS = 21, 200
LOST = "0 or not finite in float32"
SINGLE = {"float32 overflows": 38.53, "float32 is 0": -45.15}  # log10 of the greatest number and of half the least
_NAMES = {
    "activation": "norm of the activation a_n",
    "activation-gradient": "norm of the gradient dL/da_n",
    "weight-gradient": "Frobenius norm of the gradient dL/dW_n",
}
_AXES = {
    "activation": "|a_n|",
    "activation-gradient": "|dL/da_n|",
    "weight-gradient": "|dL/dW_n|",
}


def chain_figure(results: Sequence["ChainResult"], quantity: "Quantity" = "activation-gradient") -> Figure:
    """Return a figure of chains by layer: one colour per weight, one panel per kind, activation and shortcut.

    Args:
        results: chains of one depth; at most seven weights.
        quantity: the quantity to draw.

    Raises:
        SpecError: no chain, chains of different depths, too many weights, or two chains for the same line.
    """
    if not results:
        raise SpecError("chain figure: no chain; expected at least one")
    if len(depths := sorted({result.chain.layers for result in results})) > 1:
        raise SpecError(f"chain figure: chains of {depths} layers; expected one depth: draw a figure for each")
    weights = list(dict.fromkeys(f"W = {result.chain.weight:g}" for result in results))
    if len(weights) > SHOWN_BASES:
        raise SpecError(f"chain figure: {len(weights)} weights; expected at most {SHOWN_BASES}")
    frames = []
    for result in results:
        own = result.frame().query("quantity == @quantity")
        frames.append(own.assign(base=f"W = {result.chain.weight:g}", panel=_panel_name(result)))
    frame = pd.concat(frames, ignore_index=True)
    if frame.duplicated(["base", "panel", "layer"]).any():
        raise SpecError("chain figure: two chains of one weight, kind, activation and shortcut; expected one of each")
    lost = frame["float32"].isin(["zero", "overflow"])
    frame = frame.assign(value=frame["log10_closed"], measured=frame["log10_float32"].where(~lost), lost=lost)
    drawn = frame[np.isfinite(frame["value"])]
    title = f"{_NAMES[quantity][0].upper()}{_NAMES[quantity][1:]}, by layer"
    if drawn.empty:
        return Figure(f"chain-{quantity}", title, "It is 0 in every layer.", frame)
    y, low_high = _powers_axis(_AXES[quantity], [*drawn["value"], *frame["measured"]])
    x = _layers_axis(depths[0])
    names = list(dict.fromkeys(frame["panel"]))
    panels = tuple(Panel(name, _chain_panel(drawn[drawn["panel"].eq(name)], weights, x, y, low_high)) for name in names)
    some = ", on some of the layers" if depths[0] > SHOWN_POINTS else ""
    caption = [f"Lines: the closed form. Marks: measured by autograd in single precision{some}."]
    if drawn["lost"].any():
        caption.append(f"Crosses: {LOST}, drawn where the closed form is; it was lost at {_describe_lost(drawn)}.")
    caption.append("The input is at the left; dL/da has norm 1 at the last layer.")
    first = frame[frame["layer"].eq(1)]
    said = [f"{row.panel}, {row.base}: {_power(row.value)}" for row in each(first)]
    keys = legend_keys(weights)
    return Figure(
        f"chain-{quantity}",
        title,
        " ".join(caption),
        frame.drop(columns=["value", "measured", "lost"]),
        f"{title}. Closed form at the first layer: {join(said, mark=';')}.",
        panels,
        grid_columns(len(panels)),
        (*keys, Key(LOST, CROSS)) if drawn["lost"].any() else tuple(keys),
    )


def variance_figure(results: Sequence["VarianceResult"]) -> Figure:
    """Return a figure of second moments by layer: one colour per initialisation, one row per kind and activation.

    Raises:
        SpecError: no stack, stacks of different depths, or too many initialisations.
    """
    if not results:
        raise SpecError("variance figure: no stack; expected at least one")
    if len(depths := sorted({result.stack.depth for result in results})) > 1:
        raise SpecError(f"variance figure: stacks of {depths} layers; expected one depth: draw a figure for each")
    frames = []
    for result in results:
        own = result.stack
        kind = "dense" if own.kernel is None else f"{own.kernel}x{own.kernel} convolutions"
        base = own.initialisation.name + (", biases" if own.bias else "")
        frames.append(result.frame().assign(base=base, panel=f"{own.activation}, {kind}"))
    frame = pd.concat(frames, ignore_index=True)
    if frame.duplicated(["base", "panel", "layer", "direction"]).any():
        raise SpecError("variance figure: two stacks of one initialisation, activation and kind; expected one of each")
    bases = list(dict.fromkeys(frame["base"]))
    if len(bases) > SHOWN_BASES:
        raise SpecError(f"variance figure: {len(bases)} initialisations; expected at most {SHOWN_BASES}")
    logs = {"value": frame["predicted"], "measured_log": frame["measured"], "high_log": frame["high"]}
    with np.errstate(divide="ignore"):
        drawn = frame.assign(**{name: np.log10(values) for name, values in logs.items()})
        # an interval that reaches 0 has no logarithm: draw it to a tenth of the mean
        drawn["low_log"] = np.log10(np.maximum(frame["low"], frame["measured"] / 10))
    drawn = drawn.replace([np.inf, -np.inf], np.nan)
    y, _ = _powers_axis("Second moment", list(drawn[["value", "measured_log", "high_log"]].to_numpy().ravel()))
    x = _layers_axis(depths[0])
    panels = tuple(
        Panel(
            f"{said}: {name}",
            _moments_panel(drawn[drawn["panel"].eq(name) & drawn["direction"].eq(direction)], bases, x, y),
        )
        for name in dict.fromkeys(drawn["panel"])
        for direction, said in (("forward", "Activations"), ("backward", "Gradients"))
    )
    title = "Second moments by depth"
    last = frame[frame["layer"].eq(depths[0]) & frame["direction"].eq("forward")]
    said = [f"{row.base}, {row.panel}: {row.measured:.2g} (predicted {row.predicted:.2g})" for row in each(last)]
    networks = sorted(set(frame["networks"]))
    return Figure(
        "initialisation-variance",
        title,
        "Lines: predicted. Marks: mean over"
        f" {' or '.join(map(str, networks))} random networks, on some of the layers; bars: its 95% interval, at most"
        " down to a tenth of the mean. Activations: over the input's second moment of 1. Gradients: of dL/da_n over"
        " those of the last layer.",
        frame,
        f"{title}. Activations at the last layer: {join(said, mark=';')}.",
        panels,
        2,
        tuple(legend_keys(bases)),
    )


def _panel_name(result: "ChainResult") -> str:
    own = result.chain
    words = {"none": "no shortcut", "identity": "identity shortcuts"}
    if own.shortcut == "scaled":
        alpha, beta = own.factors
        branch = f"W/{own.layers}" if own.branch_factor is None else f"{beta:g} W"
        return f"{own.kind}, {own.activation}, {alpha:g} + {branch}"
    return f"{own.kind}, {own.activation}, {words[own.shortcut]}"


def _chain_panel(rows: pd.DataFrame, bases: Sequence[str], x: alt.X, y: alt.Y, ends: tuple[int, int]) -> alt.LayerChart:
    colour, dash, shape = arm_channels(bases)
    shown = _stagger(rows, bases)
    layers = list(_limits(x, y, *ends, last=rows["layer"].max()))
    line = alt.Chart(inline(_thin(rows, SHOWN_STEPS), ["base", "layer", "value"])).mark_line(strokeWidth=1.5)
    layers.append(line.encode(x=x, y=at_field(y, "value"), color=colour, strokeDash=dash))
    tips = [alt.Tooltip("base:N", title="chain"), alt.Tooltip("layer:Q", format="d")]
    tips += [alt.Tooltip("value:Q", title="closed form, log10", format=".4~f")]
    tips += [alt.Tooltip("measured:Q", title="measured, log10", format=".4~f"), alt.Tooltip("float32:N")]
    columns = ["base", "layer", "value", "measured", "float32"]
    if not (kept := shown[~shown["lost"]]).empty:
        points = alt.Chart(inline(kept, columns)).mark_point(filled=True, size=40, opacity=1)
        layers.append(points.encode(x=x, y=at_field(y, "measured"), color=colour, shape=shape, tooltip=tips))
    if not (lost := shown[shown["lost"]]).empty:
        points = alt.Chart(inline(lost, columns)).mark_point(filled=True, shape=CROSS, size=50, opacity=1)
        layers.append(points.encode(x=x, y=at_field(y, "value"), color=colour, tooltip=tips))
    return alt.LayerChart(layer=layers, height=230)


def _moments_panel(rows: pd.DataFrame, bases: Sequence[str], x: alt.X, y: alt.Y) -> alt.LayerChart:
    colour, dash, shape = arm_channels(bases)
    shown = _stagger(rows, bases)
    columns = ["base", "layer", "value", "predicted", "measured", "measured_log", "low_log", "high_log", "low", "high"]
    tips = [alt.Tooltip("base:N", title="initialisation"), alt.Tooltip("layer:Q", format="d")]
    tips += [alt.Tooltip(f"{name}:Q", format=".4~g") for name in ("predicted", "measured", "low", "high")]
    line = alt.Chart(inline(_thin(rows, SHOWN_STEPS), ["base", "layer", "value"])).mark_line(strokeWidth=1.5)
    layers = [line.encode(x=x, y=at_field(y, "value"), color=colour, strokeDash=dash)]
    if not (barred := shown[shown["high_log"].notna() & shown["low_log"].notna()]).empty:
        bars = alt.Chart(inline(barred, columns)).mark_rule(strokeWidth=1.5)
        layers.append(bars.encode(x=x, y=at_field(y, "low_log"), y2="high_log:Q", color=colour))
    points = alt.Chart(inline(shown, columns)).mark_point(filled=True, size=34, opacity=1)
    layers.append(points.encode(x=x, y=at_field(y, "measured_log"), color=colour, shape=shape, tooltip=tips))
    return alt.LayerChart(layer=layers, height=230)


def _thin(rows: pd.DataFrame, most: int) -> pd.DataFrame:
    return rows[rows["layer"].isin(spread(sorted(rows["layer"].unique()), most))]


def _stagger(rows: pd.DataFrame, bases: Sequence[str]) -> pd.DataFrame:
    """Return some layers of each line, staggered so that the marks of coinciding lines do not overlap."""
    step = math.ceil(rows["layer"].max() / SHOWN_POINTS)
    turns = {base: place * step // len(bases) for place, base in enumerate(bases)}
    return rows[(rows["layer"] - 1 - rows["base"].map(turns)).mod(step).eq(0)]


def _limits(x: alt.X, y: alt.Y, low: float, high: float, last: int) -> Iterator[alt.Chart]:
    """Yield where single precision ends, where the axis goes so far."""
    for said, at in SINGLE.items():
        if low < at < high:
            # named in the middle, where lines that meet at the last layer are far apart, and on the side without them
            limit = pd.DataFrame([(at, said, (1 + last) / 2)], columns=["at", "words", "layer"])
            data = inline(limit, ["at", "words", "layer"])
            yield alt.Chart(data).mark_rule(style="seed", strokeDash=[2, 3]).encode(y=at_field(y, "at"))
            words = alt.Chart(data).mark_text(style="numbers", dy=-7 if at > 0 else 8)
            yield words.encode(x=x, y=at_field(y, "at"), text="words:N")


def _powers_axis(title: str, values: Sequence[float]) -> tuple[alt.Y, tuple[int, int]]:
    """Return an axis for logarithms that is labelled with what they are of, and its ends."""
    finite = [value for value in values if math.isfinite(value)] or [0.0]
    pad = 0.06 * (max(finite) - min(finite)) + 0.05
    low, high = math.floor(min(finite) - pad), math.ceil(max(finite) + pad)
    step = whole_step(high - low, 8)
    ticks = [tick for tick in range(low, high + 1) if tick % step == 0]
    axis = alt.Axis(values=ticks, labelExpr="datum.value == 0 ? '1' : '1e' + datum.value")
    scale = alt.Scale(domain=[low, high], nice=False)
    return alt.Y("y:Q", title=f"{title}, log scale", axis=axis, scale=scale), (low, high)


def _layers_axis(last: int) -> alt.X:
    scale = alt.Scale(domain=[1, max(2, last)], nice=False, zero=False, padding=6)
    step = whole_step(last, 5)
    ticks = [1, *range(step, last + 1, step)] if step > 1 else list(range(1, last + 1))
    return alt.X("layer:Q", title="Layer, from the input", axis=alt.Axis(values=ticks, format="d"), scale=scale)


def _describe_lost(rows: pd.DataFrame) -> str:
    """Describe at how many layers each line is lost in single precision."""
    words = {"zero": "0", "overflow": "not finite"}
    counts = rows[rows["lost"]].groupby(["panel", "base", "float32"], sort=False).size().reset_index(name="many")
    return join(
        [f"{row.many} layers of {row.base} ({row.panel}: {words[row.float32]})" for row in each(counts)], mark=";"
    )


def _power(log10: float) -> str:
    if log10 == -math.inf:
        return "0"
    return f"{10**log10:.3g}" if abs(log10) < 4 else f"1e{log10:.1f}"
