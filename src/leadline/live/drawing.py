"""Curves and maps as SVG that fits any width: marks scale with it, text and lines keep their size.

Nothing has a style of its own, which the page's security policy forbids.
"""

import base64
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup, escape
from PIL import Image

from leadline.live.snapshot import CurvePanel, Curves, Flow, FlowMap, Line
from leadline.reports.charts.axes import DECADES, log_ticks, whole_step
from leadline.reports.charts.chart import CROSS, DISTINCT, Key, legend_keys, spread
from leadline.text import join, magnitude, plural

VIRIDIS = (0x440154, 0x482878, 0x3E4A89, 0x31688E, 0x26828E, 0x1F9E89, 0x35B779, 0x6DCD59, 0xB4DE2C, 0xFDE725)
"""Colours of the scale at equal distances (van der Walt & Smith 2015), as the report's maps have them."""
MISSING = 255
"""Index of the transparent colour."""
UNITS = 1000
"""Side of the square that curves are drawn in before they are stretched."""


@dataclass(frozen=True)
class Scale:
    """An axis: values from low to high, in proportion to their logarithms or to themselves."""

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def place(self, value: float) -> float:
        """Return where a value lies between the ends, 0 to 1; values beyond an end lie at it."""
        value = min(max(value, self.low), self.high)
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def scale_epochs(epochs: Iterable[int]) -> Scale:
    """Return an axis of whole numbers with a tick at round ones."""
    found = list(epochs)
    low, high = min(found), max(found)
    step = whole_step(high - low, 6)
    ticks = tuple(float(tick) for tick in range(low, high + 1) if tick % step == 0)
    room = 0.02 * (high - low) or 0.5
    return Scale(low - room, high + room, ticks)


def scale_values(values: Iterable[float]) -> Scale:
    """Return an axis of magnitudes: from zero, or logarithmic where they are positive and differ by more than 20."""
    found = [0.0, *values]
    low, high = min(found[1:], default=0.0), max(found)
    if low > 1e-300 and high > 20 * low:
        top = min(1.3 * high, 1.7e308)
        edge = max(low / 1.3, top / 10.0**DECADES)
        return Scale(edge, top, tuple(log_ticks(edge, top, (1, 2, 5))), log=True)
    low, high = min(found), high or 1.0
    step = _round_step((high - low) / 5)
    ticks = tuple(round(step * count, 12) for count in range(math.ceil(low / step), math.floor(high / step) + 1))
    room = 0.04 * (high - low)
    return Scale(low - (room if low else 0.0), high + room, ticks)


def _round_step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next(size * power for size in (1, 2, 5, 10) if size * power >= least * (1 - 1e-9))


# --- curves


def curve_keys(curves: Curves) -> list[Key]:
    """Return the legend of a quantity's curves."""
    keys = legend_keys(curves.arms)
    diverged = any(line.state == "diverged" for panel in curves.panels for line in panel.single)
    return [*keys, *([Key("diverged", CROSS)] if diverged else [])]


def draw_curves(curves: Curves) -> list[tuple[str, Markup]]:
    """Return the panels of a quantity's curves, all on one scale: their titles, and SVG."""
    lines = [line for panel in curves.panels for line in (*panel.lines, *panel.single)]
    if not lines:
        return []
    y = scale_values(value for line in lines for value in (*line.values, *line.low, *line.high))
    x = scale_epochs(epoch for line in lines for epoch in line.epochs)
    return [(panel.title, _draw_panel(panel, curves, x, y)) for panel in curves.panels]


def describe_panel(panel: CurvePanel, axis: str) -> str:
    """Return where the curves of a panel end, for a reader who cannot see them."""
    means = [f"{line.arm} {_tick(line.values[-1])} over {plural(line.trials, 'trial')}" for line in panel.lines]
    single = [f"{line.arm} {_tick(line.values[-1])} ({line.state})" for line in panel.single]
    last = max(line.epochs[-1] for line in (*panel.lines, *panel.single))
    return f"{axis}, {panel.title}, up to epoch {last}: {join([*means, *single], 12, ';')}."


def _draw_panel(panel: CurvePanel, curves: Curves, x: Scale, y: Scale) -> Markup:
    keys = legend_keys(curves.arms)
    shapes, marks = [], []
    for line in (*panel.lines, *panel.single):
        key = keys[line.place]
        arm = f"arm-{line.place % DISTINCT + 1}"
        if line.low:
            top = _points(x, y, line.epochs, line.high)
            shapes.append(
                f'<path class="band {arm}" d="M{"L".join([*top, *_points(x, y, line.epochs, line.low)[::-1]])}Z"/>'
            )
        weight = "mean" if line in panel.lines else "single"
        dash = f' stroke-dasharray="{" ".join(map(str, key.dash))}"' if key.dash[1] else ""
        shapes.append(f'<path class="{weight} {arm}"{dash} d="M{"L".join(_points(x, y, line.epochs, line.values))}"/>')
        marks.append(_mark(line, x, y, arm, CROSS if line.state == "diverged" else key.marker, weight))
    grid = "".join(
        f'<line class="grid" x1="0" x2="100%" y1="{_down(y, tick)}" y2="{_down(y, tick)}"/>'
        + _beside(_down(y, tick), _tick(tick))
        for tick in y.ticks
    )
    below = "".join(_below(_along(x, tick), f"{tick:.0f}") for tick in x.ticks)
    return Markup(
        f'<div class="curves" role="img" aria-label="{escape(describe_panel(panel, curves.axis))}"><svg class="plot">'
        f'{grid}<line class="axis" x1="0" x2="100%" y1="100%" y2="100%"/>{below}'
        f'<svg class="stretched" viewBox="0 0 {UNITS} {UNITS}" preserveAspectRatio="none">{"".join(shapes)}</svg>'
        f"{''.join(marks)}</svg></div>"
    )


def _points(x: Scale, y: Scale, epochs: Sequence[int], values: Sequence[float]) -> list[str]:
    return [
        f"{UNITS * x.place(epoch):.0f} {UNITS * (1 - y.place(value)):.0f}"
        for epoch, value in zip(epochs, values, strict=True)
    ]


def _mark(line: Line, x: Scale, y: Scale, arm: str, marker: str, weight: str) -> str:
    size = 4.2 if weight == "mean" else 3.2
    return (
        f'<svg class="mark" x="{_along(x, line.epochs[-1])}" y="{_down(y, line.values[-1])}">'
        f'<path class="{arm}" transform="scale({size})" d="{marker}"/></svg>'
    )


def _along(scale: Scale, value: float) -> str:
    return f"{100 * scale.place(value):.2f}%"


def _down(scale: Scale, value: float) -> str:
    return f"{100 * (1 - scale.place(value)):.2f}%"


def _tick(value: float) -> str:
    return magnitude(value) if value and not 1e-3 <= abs(value) < 1e5 else f"{value:.4g}"


# --- maps


def flow_range(flow: Flow) -> tuple[int, int]:
    """Return the exponents of ten between which all maps of a study are coloured: at most `DECADES` around the median.

    So an arm whose gradients exploded leaves the differences between the others visible.
    """
    every = np.concatenate([one.values.ravel() for one in flow.maps])
    high = min(math.ceil(np.nanmax(every)), math.ceil(np.nanmedian(every)) + DECADES // 2)
    low = max(math.floor(np.nanmin(every)), high - DECADES)
    return (low, high) if low < high else (high - 1, high)


def draw_flow(flow: Flow) -> list[tuple[str, Markup]]:
    """Return the map of each arm on one scale of colours: its name, and SVG; the input is at the top."""
    ends = flow_range(flow)
    return [(one.arm, _draw_map(one, ends)) for one in flow.maps]


def describe_map(one: FlowMap) -> str:
    """Return what a map shows in its last epoch, for a reader who cannot see it."""
    last = one.values[:, -1]
    known = np.flatnonzero(np.isfinite(last))
    first, final = (magnitude(10.0 ** float(last[row])) for row in (known[0], known[-1]))
    return f"{one.arm}, epoch {one.epochs[-1]}: gradient norm {first} in the first layer and {final} in the last."


def _draw_map(one: FlowMap, ends: tuple[int, int]) -> Markup:
    rows, columns = one.values.shape
    across = "".join(
        _below(f"{100 * (place + 0.5) / columns:.2f}%", str(one.epochs[place]))
        for place in spread(list(range(columns)), 5)
    )
    down = "".join(
        _beside(f"{100 * (place + 0.5) / rows:.2f}%", str(place + 1)) for place in spread(list(range(rows)), 5)
    )
    return Markup(
        f'<div class="map" role="img" aria-label="{escape(describe_map(one))}"><svg class="plot">'
        f"{_image(one.values, ends)}{across}{down}</svg></div>"
    )


def draw_scale(ends: tuple[int, int]) -> Markup:
    """Return the scale of colours with the powers of ten that it stands for."""
    low, high = ends
    labels = "".join(
        _below(f"{100 * (tick - low) / (high - low):.1f}%", f"1e{tick}")
        for tick in spread(list(range(low, high + 1)), 4)
    )
    return Markup(
        f'<div class="scale" role="img" aria-label="Colours from 1e{low} to 1e{high}"><svg class="plot">'
        f"{_image(np.linspace(low, high, 64)[None], ends)}{labels}</svg></div>"
    )


def _below(x: str, text: str) -> str:
    return f'<text class="tick" text-anchor="middle" x="{x}" y="100%" dy="1.35em">{text}</text>'


def _beside(y: str, text: str) -> str:
    return f'<text class="tick" text-anchor="end" x="-6" y="{y}" dy="0.32em">{text}</text>'


def _image(values: np.ndarray, ends: tuple[int, int]) -> str:
    """Return an image that fills the plot, with a pixel for each value."""
    address = _picture(values, ends)
    return f'<image class="pixels" width="100%" height="100%" preserveAspectRatio="none" href="{address}"/>'


def _picture(values: np.ndarray, ends: tuple[int, int]) -> str:
    """Return a PNG as a data URL, with a pixel for each value."""
    low, high = ends
    levels = np.clip((values - low) / (high - low), 0, 1) * (MISSING - 1)
    indices = np.where(np.isfinite(values), np.round(levels), MISSING).astype(np.uint8)
    image = Image.fromarray(indices, "P")
    image.putpalette(_palette().tobytes())
    file = io.BytesIO()
    image.save(file, "PNG", transparency=MISSING, optimize=True)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def _palette() -> np.ndarray:
    stops = np.array([[colour >> shift & 255 for shift in (16, 8, 0)] for colour in VIRIDIS], float)
    at = np.linspace(0, len(VIRIDIS) - 1, MISSING)
    colours = np.stack([np.interp(at, range(len(VIRIDIS)), channel) for channel in stops.T], 1)
    return np.vstack([np.round(colours), np.zeros((1, 3))]).astype(np.uint8)
